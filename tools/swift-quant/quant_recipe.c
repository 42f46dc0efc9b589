#include "quant_recipe.h"

#include "base/memory.h"
#include "store/quant.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The mixtures that llama.cpp writes under these names (src/llama-quant.cpp). Every logit passes through the head. */
#define HEAD {QUANT_HEAD, QUANT_ALWAYS, SW_Q6_K}
const quant_recipe quant_recipes[] = {
    {"q8_0", SW_Q8_0, 7, {{0}}},
    {"q4_0", SW_Q4_0, 2, {HEAD}},
    {"q4_1", SW_Q4_1, 3, {HEAD}},
    {"q5_0", SW_Q5_0, 8, {HEAD}},
    {"q5_1", SW_Q5_1, 9, {HEAD}},
    {"q2_k", SW_Q2_K, 10, {HEAD, {QUANT_VALUE, QUANT_GROUPED, SW_Q4_K}, {QUANT_VALUE, QUANT_ALWAYS, SW_Q3_K},
                           {QUANT_DOWN, QUANT_ALWAYS, SW_Q3_K}, {QUANT_OUT, QUANT_ALWAYS, SW_Q3_K}}},
    {"q3_k_s", SW_Q3_K, 11, {HEAD}},
    {"q3_k_m", SW_Q3_K, 12, {HEAD, {QUANT_VALUE, QUANT_FIRST_2, SW_Q5_K}, {QUANT_VALUE, QUANT_ALWAYS, SW_Q4_K},
                             {QUANT_DOWN, QUANT_FIRST_16TH, SW_Q5_K}, {QUANT_DOWN, QUANT_ALWAYS, SW_Q4_K}, {QUANT_OUT, QUANT_ALWAYS, SW_Q4_K}}},
    {"q3_k_l", SW_Q3_K, 13, {HEAD, {QUANT_VALUE, QUANT_ALWAYS, SW_Q5_K}, {QUANT_DOWN, QUANT_ALWAYS, SW_Q5_K}, {QUANT_OUT, QUANT_ALWAYS, SW_Q5_K}}},
    {"q4_k_s", SW_Q4_K, 14, {HEAD, {QUANT_VALUE, QUANT_FIRST_4, SW_Q5_K}, {QUANT_DOWN, QUANT_FIRST_8TH, SW_Q5_K}}},
    {"q4_k_m", SW_Q4_K, 15, {HEAD, {QUANT_VALUE, QUANT_SPREAD, SW_Q6_K}, {QUANT_DOWN, QUANT_SPREAD, SW_Q6_K}}},
    {"q5_k_s", SW_Q5_K, 16, {HEAD}},
    {"q5_k_m", SW_Q5_K, 17, {HEAD, {QUANT_VALUE, QUANT_SPREAD, SW_Q6_K}, {QUANT_DOWN, QUANT_SPREAD, SW_Q6_K}}},
    {"q6_k", SW_Q6_K, 18, {{0}}},
    {"iq4_nl", SW_IQ4_NL, 25, {HEAD, {QUANT_VALUE, QUANT_GROUPED, SW_Q5_K}, {QUANT_DOWN, QUANT_FIRST_8TH, SW_Q5_K}}},
    {"iq4_xs", SW_IQ4_XS, 30, {HEAD, {QUANT_VALUE, QUANT_GROUPED, SW_Q5_K}, {QUANT_DOWN, QUANT_FIRST_8TH, SW_Q5_K}}},
    {"tq1_0", SW_TQ1_0, 36, {HEAD, {QUANT_EMBEDDING, QUANT_ALWAYS, SW_Q4_K}}},
    {"tq2_0", SW_TQ2_0, 37, {HEAD, {QUANT_EMBEDDING, QUANT_ALWAYS, SW_Q4_K}}},
    {"q2_0", SW_Q2_0, 41, {HEAD, {QUANT_EMBEDDING, QUANT_ALWAYS, SW_Q4_K}}},
    {"q1_0", SW_Q1_0, 40, {HEAD}},
    {"mxfp4_moe", SW_MXFP4, 38, {{QUANT_NO_EXPERTS, QUANT_ALWAYS, SW_Q8_0}}},
    {"f16", SW_F16, 1, {{0}}},
    {"bf16", SW_BF16, 32, {{0}}},
    {"f32", SW_F32, 0, {{0}}},
};

const char *const quant_recipe_names[] = {"q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m",
                                          "q5_k_s", "q5_k_m", "q6_k", "iq4_nl", "iq4_xs", "tq1_0", "tq2_0", "q2_0", "q1_0", "mxfp4_moe", "f16", "bf16", "f32", NULL};
_Static_assert(SW_COUNT(quant_recipe_names) == SW_COUNT(quant_recipes) + 1, "a name for each recipe");

/* The type that takes a row whose length is no multiple of the block: blocks of 32 in place of K blocks, then halves. */
static sw_dtype fitting(sw_dtype t, int64_t row)
{
    if (row % sw_dtypes[t].block == 0)
        return t;
    switch (t) {
    case SW_IQ4_XS: return fitting(SW_IQ4_NL, row);
    case SW_Q2_K: case SW_Q3_K: case SW_TQ1_0: case SW_TQ2_0: case SW_Q2_0: case SW_Q1_0: return fitting(SW_Q4_0, row);
    case SW_Q4_K: return fitting(SW_Q5_0, row);
    case SW_Q5_K: return fitting(SW_Q5_1, row);
    case SW_Q6_K: return fitting(SW_Q8_0, row);
    default: return SW_F16;
    }
}

static bool holds(quant_when when, const quant_model *m, int64_t place, int64_t n)
{
    switch (when) {
    case QUANT_FIRST_2: return place < 2;
    case QUANT_FIRST_4: return place < 4;
    case QUANT_FIRST_16TH: return place < n / 16;
    case QUANT_FIRST_8TH: return place < n / 8;
    case QUANT_SPREAD: return place < n / 8 || place >= 7 * n / 8 || (place - n / 8) % 3 == 2;
    case QUANT_GROUPED: return m->shared_by >= 4;
    default: return true;
    }
}

static bool is_part(quant_part part, const quant_model *m, const char *name, const sw_tensor *t)
{
    bool embedding = !strcmp(name, "token_embd.weight") || !strcmp(name, "per_layer_token_embd.weight");
    switch (part) {
    case QUANT_HEAD: return !strcmp(name, "output.weight") || (embedding && !m->has_output);
    case QUANT_EMBEDDING: return embedding;
    case QUANT_KEY: return strstr(name, "attn_k.weight");
    case QUANT_OUT: return strstr(name, "attn_output.weight");
    case QUANT_VALUE: case QUANT_DOWN: return quant_has_place(part, name);
    default: return t->ndim < 3;
    }
}

/* Vectors, norms, rotary factors and expert routers are small and sensitive, and so are tables of positions, token types and
 * distances, what mixes streams (hc_) and what weighs tokens by their places. Short convolutions take nothing else in llama.cpp. */
static bool stays_f32(const char *name, const sw_tensor *t)
{
    static const char *const ends[] = {"norm.weight", "ffn_gate_inp.weight", "_ape.weight", "position_embd.weight", "token_types.weight",
                                       "shortconv.conv.weight", "attn_rel_b.weight"};
    bool stays = t->ndim < 2 || !sw_ends_with(name, ".weight") || strstr(name, "hc_") || strstr(name, "ssm_conv1d");
    for (size_t i = 0; i < SW_COUNT(ends); i++)
        stays |= sw_ends_with(name, ends[i]);
    return stays;
}

/* Small beside the rest: no blocks, as the model has them. */
static bool stays_whole(const char *name)
{
    return strstr(name, "altup") || strstr(name, "laurel") || strstr(name, "per_layer_model_proj") || strstr(name, "indexer.k_proj.") ||
           strstr(name, "indexer.q_proj.");
}

/* Falcon's mixtures, where they are others; the head has eight bits in all of them. */
static const quant_recipe falcon[] = {
    {"q2_k", SW_Q2_K, 10, {{QUANT_VALUE, QUANT_GROUPED, SW_Q4_K}, {QUANT_VALUE, QUANT_ALWAYS, SW_Q3_K}, {QUANT_DOWN, QUANT_ALWAYS, SW_Q3_K}}},
    {"q3_k_m", SW_Q3_K, 12, {{QUANT_VALUE, QUANT_FIRST_2, SW_Q5_K}, {QUANT_VALUE, QUANT_ALWAYS, SW_Q4_K},
                             {QUANT_DOWN, QUANT_FIRST_16TH, SW_Q5_K}, {QUANT_DOWN, QUANT_SPREAD, SW_Q4_K}}},
    {"q3_k_l", SW_Q3_K, 13, {{QUANT_VALUE, QUANT_ALWAYS, SW_Q5_K}, {QUANT_DOWN, QUANT_ALWAYS, SW_Q4_K}, {QUANT_OUT, QUANT_ALWAYS, SW_Q4_K}}},
    {"q4_k_s", SW_Q4_K, 14, {{QUANT_VALUE, QUANT_FIRST_4, SW_Q5_K}}},
    {"q4_k_m", SW_Q4_K, 15, {{QUANT_VALUE, QUANT_SPREAD, SW_Q6_K}, {QUANT_DOWN, QUANT_FIRST_16TH, SW_Q6_K}, {QUANT_DOWN, QUANT_SPREAD, SW_Q5_K}}},
};

/* Eight experts dwarf the attention beside them: its keys and values have eight bits, and what it gives has five in all
 * mixtures of fewer but q3_k_l. */
static sw_dtype beside_experts(const quant_recipe *r, quant_part part)
{
    if (part != QUANT_OUT)
        return SW_Q8_0;
    bool few = r->most == SW_Q2_K || r->most == SW_Q3_K || r->most == SW_Q4_K || r->most == SW_IQ4_NL || r->most == SW_IQ4_XS;
    return few && strcmp(r->name, "q3_k_l") ? SW_Q5_K : r->most;
}

static sw_dtype by_recipe(const quant_recipe *r, const quant_model *m, const char *name, const sw_tensor *t, int64_t place)
{
    static const quant_part attention[] = {QUANT_VALUE, QUANT_KEY, QUANT_OUT};
    int64_t row = t->shape[t->ndim - 1];
    if (!sw_is_quantised(r->most))
        return r->most;
    if (stays_whole(name))
        return t->dtype == SW_F32 || t->dtype == SW_BF16 ? t->dtype : SW_F16;
    if (m->falcon && is_part(QUANT_HEAD, m, name, t))
        return fitting(SW_Q8_0, row);
    for (size_t i = 0; i < SW_COUNT(attention) && m->experts == 8 && r->most != SW_MXFP4; i++)
        if (is_part(attention[i], m, name, t))
            return fitting(beside_experts(r, attention[i]), row);
    for (size_t i = 0; i < SW_COUNT(falcon) && m->falcon; i++)
        if (!strcmp(falcon[i].name, r->name))
            r = &falcon[i];
    sw_dtype type = r->most;
    for (size_t i = SW_COUNT(r->other); i-- > 0;)
        if (r->other[i].part && is_part(r->other[i].part, m, name, t) &&
            holds(r->other[i].when, m, place, r->other[i].part == QUANT_VALUE ? m->values : m->layers))
            type = r->other[i].type;
    if (m->large && is_part(QUANT_VALUE, m, name, t) && (type == SW_Q3_K || type == SW_Q4_K))
        type = SW_Q5_K;
    return fitting(type, row);
}

bool quant_has_place(quant_part part, const char *name)
{
    if (part == QUANT_VALUE)
        return strstr(name, "attn_v.weight") || strstr(name, "attn_qkv.weight") || strstr(name, "attn_kv_b.weight");
    return part == QUANT_DOWN && strstr(name, "ffn_down") && sw_ends_with(name, ".weight");
}

int64_t quant_layer(const char *name)
{
    int64_t layer;
    return sscanf(name, "blk.%" SCNd64 ".", &layer) == 1 && layer >= 0 ? layer : -1;
}

int quant_order(const char *a, const char *b)
{
    int64_t x = quant_layer(a), y = quant_layer(b);
    return x != y ? (x > y) - (x < y) : strcmp(a, b);
}

static void put_types(sw_buf *b)
{
    for (int t = 0; t < SW_DTYPE_COUNT; t++)
        if (sw_is_written((sw_dtype)t))
            sw_buf_printf(b, "%s%s", b->n ? ", " : "", sw_dtypes[t].name);
}

static int split_keep(const char *text, sw_buf *pattern, sw_dtype *type)
{
    const char *equals = strrchr(text, '=');
    if (!equals || equals == text)
        return sw_fail("--keep %s: PATTERN=TYPE is needed, such as 'output.weight=q8_0'", text);
    *type = sw_dtype_by_name(equals + 1);
    if (!sw_is_written(*type)) {
        sw_buf types = {0};
        put_types(&types);
        int rc = sw_fail("--keep %s: '%s' is no type to quantise to; there are %s", text, equals + 1, types.at);
        sw_buf_free(&types);
        return rc;
    }
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

bool quant_keeps(const char *text, const char *name, const sw_tensor *t)
{
    sw_buf pattern = {0};
    sw_dtype type;
    bool keeps = !sw_is_integer(t->dtype) && !stays_f32(name, t) && !split_keep(text, &pattern, &type) && sw_glob(pattern.at, name);
    sw_buf_free(&pattern);
    return keeps;
}

int quant_pick(const quant_recipe *r, const quant_model *m, const sw_strings *keep, const char *name, const sw_tensor *t, int64_t place,
               sw_dtype *out)
{
    size_t i = 0;
    while (i < keep->n && !quant_keeps(keep->at[i], name, t))
        i++;
    if (i == keep->n) { /* a table of whole numbers stays as it is */
        *out = sw_is_integer(t->dtype) ? t->dtype : stays_f32(name, t) ? SW_F32 : by_recipe(r, m, name, t, place);
        return 0;
    }
    *out = sw_dtype_by_name(strrchr(keep->at[i], '=') + 1);
    int64_t row = t->shape[t->ndim - 1];
    if (row % sw_dtypes[*out].block)
        return sw_fail("--keep: %s has rows of %" PRId64 " values, %s needs a multiple of %d", name, row, sw_dtypes[*out].name,
                       sw_dtypes[*out].block);
    return 0;
}
