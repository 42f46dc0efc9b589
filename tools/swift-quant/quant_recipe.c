#include "quant_recipe.h"

#include "base/memory.h"
#include "store/quant.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* X(name, most, best, mixture, file type) */
#define RECIPES(X)                                                                                                  \
    X("q8_0", SW_Q8_0, SW_Q8_0, false, 7)                                                                           \
    X("q4_0", SW_Q4_0, SW_Q4_0, false, 2)                                                                           \
    X("q4_1", SW_Q4_1, SW_Q4_1, false, 3)                                                                           \
    X("q5_0", SW_Q5_0, SW_Q5_0, false, 8)                                                                           \
    X("q5_1", SW_Q5_1, SW_Q5_1, false, 9)                                                                           \
    X("q4_k_m", SW_Q4_K, SW_Q6_K, true, 15)                                                                         \
    X("q5_k_m", SW_Q5_K, SW_Q6_K, true, 17)                                                                         \
    X("q6_k", SW_Q6_K, SW_Q6_K, false, 18)                                                                          \
    X("f16", SW_F16, SW_F16, false, 1)                                                                              \
    X("bf16", SW_BF16, SW_BF16, false, 32)                                                                          \
    X("f32", SW_F32, SW_F32, false, 0)

#define ROW(n, most, best, mixture, type) {n, most, best, mixture, type},
const quant_recipe quant_recipes[] = {RECIPES(ROW)};
#define NAME(n, most, best, mixture, type) n,
const char *const quant_recipe_names[] = {RECIPES(NAME) NULL};

/* The type that takes a row whose length is no multiple of the block: blocks of 32 in place of K blocks, then halves. */
static sw_dtype fitting(sw_dtype t, int64_t row)
{
    if (row % sw_dtypes[t].block == 0)
        return t;
    switch (t) {
    case SW_Q2_K: case SW_Q3_K: return fitting(SW_Q4_0, row);
    case SW_Q4_K: return fitting(SW_Q5_0, row);
    case SW_Q5_K: return fitting(SW_Q5_1, row);
    case SW_Q6_K: return fitting(SW_Q8_0, row);
    default: return SW_F16;
    }
}

/* The layers where a mixture spends more bits: the first and the last eighth, and every third between. */
static bool more_bits(int64_t layer, int64_t layers)
{
    return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

/* Vectors, norms, rotary factors and expert routers are small and sensitive. */
static bool stays_f32(const char *name, const sw_tensor *t)
{
    return t->ndim < 2 || !sw_ends_with(name, ".weight") || sw_ends_with(name, "norm.weight") ||
           sw_ends_with(name, "ffn_gate_inp.weight");
}

static sw_dtype by_recipe(const quant_recipe *r, const quant_model *m, const char *name, const sw_tensor *t)
{
    int64_t row = t->shape[t->ndim - 1], layer = 0;
    bool head = !strcmp(name, "output.weight") || (!m->has_output && !strcmp(name, "token_embd.weight"));
    if (!sw_is_quantised(r->most))
        return r->most;
    if (head && r->most != SW_Q8_0) /* every logit passes through it */
        return fitting(SW_Q6_K, row);
    bool delicate = sscanf(name, "blk.%" SCNd64, &layer) == 1 &&
                    (strstr(name, ".attn_v.") || strstr(name, ".attn_qkv.") || strstr(name, ".ffn_down"));
    return fitting(r->mixture && delicate && more_bits(layer, m->layers) ? r->best : r->most, row);
}

static int split_keep(const char *text, sw_buf *pattern, sw_dtype *type)
{
    const char *equals = strrchr(text, '=');
    if (!equals || equals == text)
        return sw_fail("--keep %s: PATTERN=TYPE is needed, such as 'output.weight=q8_0'", text);
    *type = sw_dtype_by_name(equals + 1);
    if (*type == SW_DTYPE_COUNT || !(sw_is_quantised(*type) || sw_is_float(*type)))
        return sw_fail("--keep %s: '%s' is no type to quantise to; there are f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, "
                       "q2_k, q3_k, q4_k, q5_k, q6_k", text, equals + 1);
    sw_buf_clear(pattern);
    sw_buf_add(pattern, text, (size_t)(equals - text));
    return 0;
}

int quant_check_keep(const sw_strings *keep)
{
    sw_buf pattern = {0};
    sw_dtype type;
    int rc = 0;
    for (size_t i = 0; !rc && i < keep->n; i++)
        rc = split_keep(keep->at[i], &pattern, &type);
    sw_buf_free(&pattern);
    return rc;
}

int quant_pick(const quant_recipe *r, const quant_model *m, const sw_strings *keep, const char *name, const sw_tensor *t,
               sw_dtype *out)
{
    sw_buf pattern = {0};
    int rc = 0;
    bool kept = false;
    for (size_t i = 0; !rc && !kept && i < keep->n; i++) {
        rc = split_keep(keep->at[i], &pattern, out);
        kept = !rc && sw_glob(pattern.at, name);
    }
    sw_buf_free(&pattern);
    if (rc)
        return rc;
    if (!kept) {
        *out = stays_f32(name, t) ? SW_F32 : by_recipe(r, m, name, t);
        return 0;
    }
    int64_t row = t->ndim ? t->shape[t->ndim - 1] : 1;
    if (row % sw_dtypes[*out].block)
        return sw_fail("--keep: %s has rows of %" PRId64 " values, %s needs a multiple of %d", name, row, sw_dtypes[*out].name,
                       sw_dtypes[*out].block);
    return 0;
}
