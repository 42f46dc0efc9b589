/* Weights in 8 and 4 bits with scales beside them: what they stand for, models that compute with them as they are, and what is
 * refused. */
#include "model/family.h"
#include "model/generate.h"
#include "model/model.h"
#include "model/model_save.h"
#include "nn/logprob.h"
#include "store/made.h"
#include "store/quant.h"
#include "store/scaled.h"

#include "base/json.h"
#include "tests/unit/folder.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

typedef struct given {
    const char *name;
    sw_dtype dtype;
    int ndim;
    int64_t shape[4];
    const void *data;
} given;

static sw_checkpoint *opened(const char *config, const given *list, size_t n)
{
    sw_entry entries[8];
    for (size_t i = 0; i < n; i++)
        entries[i] = (sw_entry){.name = (char *)(uintptr_t)list[i].name,
                                .t = sw_tensor_of((void *)(uintptr_t)list[i].data, list[i].dtype, list[i].ndim, list[i].shape)};
    assert_int_equal(sw_write_file(in("config.json"), config, strlen(config)), 0);
    if (sw_st_save(in("model.safetensors"), entries, n, NULL))
        fail_msg("%s", sw_error());
    return sw_checkpoint_open(dir);
}

static void refused(const char *config, const given *list, size_t n, const char *why)
{
    sw_checkpoint *c = opened(config, list, n);
    if (c || !strstr(sw_error(), why))
        fail_msg("%s: '%s' does not say '%s'", c ? "accepted" : "refused", sw_error(), why);
}

static uint8_t bytes[6 * 10];
static float f32[64];

static void fill(void)
{
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 37 % 120 + (i % 2 ? 128 : 0)); /* no NaN among them */
    for (size_t i = 0; i < sizeof f32 / sizeof *f32; i++)
        f32[i] = 0.01f * (float)(i + 1);
}

/* Every value is the byte's times its scale, rounded once; rows can be asked for in any pieces. */
static void check(const sw_checkpoint *c, const char *name, int64_t high, int64_t wide, int64_t s_wide)
{
    const sw_entry *e = sw_checkpoint_find(c, name);
    uint16_t all[60], row[10];
    assert_non_null(e);
    assert_int_equal(e->t.dtype, SW_BF16);
    assert_int_equal(e->t.shape[0], 6);
    assert_int_equal(e->t.shape[1], 10);
    assert_int_equal(sw_entry_rows(e, 0, 6, all), 0);
    for (int64_t r = 0; r < 6; r++)
        for (int64_t k = 0; k < 10; k++) {
            float scale = f32[r / high * s_wide + k / wide], v = (float)sw_scalar_get(bytes, SW_F8_E4M3, r * 10 + k);
            assert_int_equal(all[r * 10 + k], sw_f32_to_bf16(v * scale));
        }
    assert_int_equal(sw_entry_rows(e, 4, 1, row), 0);
    assert_memory_equal(row, all + 40, sizeof row);
}

#define FP8(block) "{\"quantization_config\":{\"quant_method\":\"fp8\"" block "}}"
#define WEIGHT {"a.weight", SW_F8_E4M3, 2, {6, 10}, bytes}
#define CT(type, bits, more) "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"group_0\":{\"weights\":" \
                             "{\"num_bits\":" bits ",\"type\":\"" type "\"" more "}}}}}"

static void granularities(void **state)
{
    (void)state;
    fill();
    const struct {
        const char *config, *scale;
        int ndim;
        int64_t shape[2], high, wide, s_wide;
    } cases[] = {
        {FP8(",\"weight_block_size\":[4,3]"), "a.weight_scale_inv", 2, {2, 4}, 4, 3, 4}, /* blocks at the edges are cut */
        {FP8(",\"weight_block_size\":[128,128]"), "a.weight_scale_inv", 2, {1, 1}, 128, 128, 1},
        {FP8(""), "a.weight_scale_inv", 0, {0}, 6, 10, 1},
        {FP8(",\"weight_block_size\":[4,3]"), "a.scale", 2, {2, 4}, 4, 3, 4},
        {CT("float", "8", ",\"strategy\":\"channel\""), "a.weight_scale", 2, {6, 1}, 1, 10, 1},
        {CT("float", "8", ",\"strategy\":\"tensor\""), "a.weight_scale", 1, {1}, 6, 10, 1},
        {CT("float", "8", ",\"strategy\":\"block\",\"block_structure\":[3,5]"), "a.weight_scale", 2, {2, 2}, 3, 5, 2},
        {"{\"quantization_config\":{\"quant_method\":\"fbgemm_fp8\"}}", "a.weight_scale", 2, {6, 1}, 1, 10, 1},
        {"{}", "a.weight_scale_inv", 1, {6}, 1, 10, 1}}; /* the tensors alone say it */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        given list[] = {WEIGHT, {cases[i].scale, SW_F32, cases[i].ndim, {cases[i].shape[0], cases[i].shape[1]}, f32},
                        {"a.input_scale", SW_F32, 0, {0}, f32}, {"b.weight", SW_F32, 1, {3}, f32}};
        sw_checkpoint *c = opened(cases[i].config, list, 4);
        if (!c)
            fail_msg("case %zu: %s", i, sw_error());
        assert_int_equal(sw_checkpoint_count(c), 2); /* scales are no tensors of the model */
        check(c, "a.weight", cases[i].high, cases[i].wide, cases[i].s_wide);
        assert_int_equal(sw_checkpoint_find(c, "b.weight")->t.dtype, SW_F32);
        sw_checkpoint_close(c);
    }
}

static void bad_scales(void **state)
{
    (void)state;
    fill();
    const char *blocks = FP8(",\"weight_block_size\":[4,3]");
    given wrong[] = {WEIGHT, {"a.weight_scale_inv", SW_F32, 2, {3, 4}, f32}};
    refused(blocks, wrong, 2, "a.weight_scale_inv is [3, 4] for weights of 6 x 10: one scale, one a row, or [2, 4] for blocks of 4 x 3");
    wrong[1] = (given){"a.weight_scale_inv", SW_F32, 2, {4, 2}, f32};
    refused(blocks, wrong, 2, "a.weight_scale_inv is [4, 2]");
    wrong[1] = (given){"a.weight_scale_inv", SW_F32, 0, {0}, f32};
    refused(blocks, wrong, 2, "a.weight_scale_inv is []");
    wrong[1] = (given){"a.weight_scale_inv", SW_F32, 2, {0, 4}, f32};
    refused(blocks, wrong, 2, "a.weight_scale_inv is [0, 4]");
    wrong[1] = (given){"a.weight_scale_inv", SW_I32, 2, {2, 4}, f32};
    refused(blocks, wrong, 2, "a float is needed");
    refused(blocks, wrong, 1, "a.weight is of type f8_e4m3, and its scale, a.weight_scale_inv, a.weight_scale or a.scale, is missing");
    refused(FP8(",\"weight_block_size\":[4]"), wrong, 2, "two sizes");
    refused(FP8(",\"weight_block_size\":[0,1]"), wrong, 2, "two sizes");
    float bad[8] = {1, 1, 1, NAN, 1, 1, 1, 1};
    wrong[1] = (given){"a.weight_scale_inv", SW_F32, 2, {2, 4}, bad};
    sw_checkpoint *c = opened(blocks, wrong, 2);
    uint16_t all[60];
    assert_non_null(c);
    assert_int_equal(sw_entry_rows(sw_checkpoint_find(c, "a.weight"), 0, 6, all), -1);
    assert_non_null(strstr(sw_error(), "a.weight_scale_inv: scale 3 is no number"));
    sw_checkpoint_close(c);
}

static void methods(void **state)
{
    (void)state;
    given list[] = {{"b.weight", SW_F32, 1, {3}, f32}};
    static const char *const other[] = {"gptq", "awq", "bitsandbytes", "hqq", "nonsense"};
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        char config[128], why[64];
        snprintf(config, sizeof config, "{\"quantization_config\":{\"quant_method\":\"%s\"}}", other[i]);
        snprintf(why, sizeof why, "quantised already (%s)", other[i]);
        refused(config, list, 1, why);
        refused(config, list, 1, "give the model it was made from");
    }
    refused(CT("int", "4", ""), list, 1, "compressed-tensors");
    refused(CT("float", "4", ""), list, 1, "compressed-tensors");
    refused("{\"quantization_config\":7}", list, 1, "an object");
    refused("{\"quantization_config\":{}}", list, 1, "quant_method");
}

static const float levels[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

/* Two experts of 3 rows, 2 groups of 32 values: the value at [e, k, r] is nibble k of row r times 2^(exponent - 127). */
static void four_bits(void **state)
{
    (void)state;
    uint8_t blocks[2 * 3 * 2 * 16], exponents[2 * 3 * 2];
    for (size_t i = 0; i < sizeof blocks; i++)
        blocks[i] = (uint8_t)(i * 29 + i / 7);
    for (size_t i = 0; i < sizeof exponents; i++)
        exponents[i] = (uint8_t)(120 + i);
    given list[] = {{"e.gate_up_proj_blocks", SW_U8, 4, {2, 3, 2, 16}, blocks}, {"e.gate_up_proj_scales", SW_U8, 3, {2, 3, 2}, exponents}};
    const char *config = "{\"quantization_config\":{\"quant_method\":\"mxfp4\"}}";
    sw_checkpoint *c = opened(config, list, 2);
    if (!c)
        fail_msg("%s", sw_error());
    const sw_entry *e = sw_checkpoint_find(c, "e.gate_up_proj");
    assert_non_null(e);
    assert_int_equal(sw_checkpoint_count(c), 1);
    assert_int_equal(e->t.shape[1], 64);
    assert_int_equal(e->t.shape[2], 3);
    uint16_t out[2 * 64 * 3];
    assert_int_equal(sw_entry_rows(e, 0, 50, out), 0);
    assert_int_equal(sw_entry_rows(e, 50, 78, out + 150), 0);
    for (int i = 0; i < 2 * 64 * 3; i++) {
        int r = i % 3, k = i / 3 % 64, x = i / 192, byte = blocks[(x * 3 + r) * 32 + k / 2];
        float want = ldexpf(levels[k % 2 ? byte >> 4 : byte & 15], exponents[(x * 3 + r) * 2 + k / 32] - 127);
        assert_int_equal(out[i], sw_f32_to_bf16(want));
    }
    sw_checkpoint_close(c);
    list[1].shape[2] = 1;
    refused(config, list, 2, "[experts, rows, groups, 16]");
    refused(config, list, 1, "scales are missing");
}

/* Rows of 4-bit floats, two a byte, become blocks of MXFP4 that say the same; any rows can be asked for, of stacks, too. */
static void pairs_of_four_bits(void **state)
{
    (void)state;
    uint8_t packed[6 * 32], exponents[6 * 2], out[6 * 34], part[2 * 34];
    float values[6 * 64];
    for (size_t i = 0; i < sizeof packed; i++)
        packed[i] = (uint8_t)(i * 29 + i / 7);
    for (size_t i = 0; i < sizeof exponents; i++)
        exponents[i] = (uint8_t)(i ? 118 + 2 * i : 0);
    given list[] = {{"e.w1.weight", SW_I8, 2, {6, 32}, packed}, {"e.w1.scale", SW_F8_E8M0, 2, {6, 2}, exponents}, {"n.scale", SW_F32, 1, {3}, f32},
                    {"n.weight", SW_I8, 1, {6}, packed}};
    const char *config = FP8(",\"weight_block_size\":[128,128]"), *why = "one for each 32 values of a row of e.w1.weight";
    sw_checkpoint *c = opened(config, list, 2);
    if (!c)
        fail_msg("%s", sw_error());
    const sw_entry *e = sw_checkpoint_find(c, "e.w1.weight");
    assert_int_equal(sw_checkpoint_count(c), 1);
    assert_int_equal(e->t.dtype, SW_MXFP4);
    assert_int_equal(e->t.shape[0], 6);
    assert_int_equal(e->t.shape[1], 64);
    assert_int_equal(sw_entry_rows(e, 0, 6, out), 0);
    assert_int_equal(sw_entry_rows(e, 3, 2, part), 0);
    assert_memory_equal(part, out + 3 * 34, sizeof part);
    assert_int_equal(sw_dequantise(values, out, SW_MXFP4, 6 * 64), 0);
    for (int i = 0; i < 6 * 64; i++)
        assert_true(values[i] == ldexpf(levels[packed[i / 2] >> i % 2 * 4 & 15], exponents[i / 32] - 127));
    sw_checkpoint_close(c);
    list[0] = (given){"e.w1", SW_I8, 3, {2, 3, 32}, packed};
    list[1] = (given){"e.w1_scale_inv", SW_F8_E8M0, 3, {2, 3, 2}, exponents};
    assert_non_null(c = opened(config, list, 2));
    assert_int_equal((e = sw_checkpoint_find(c, "e.w1"))->t.shape[2], 64);
    assert_int_equal(sw_entry_rows(e, 3, 2, part), 0);
    assert_memory_equal(part, out + 3 * 34, sizeof part);
    sw_checkpoint_close(c);

    list[0] = (given){"e.w1.weight", SW_I8, 2, {6, 32}, packed};
    list[1] = (given){"e.w1.scale", SW_F8_E8M0, 2, {6, 1}, exponents};
    refused(config, list, 2, "e.w1.scale is [6, 1]: [6, 2]");
    refused(config, list, 2, why);
    list[1] = (given){"e.w1.scale", SW_F8_E8M0, 1, {12}, exponents};
    refused(config, list, 2, why);
    list[1] = (given){"e.w1.scale", SW_F8_E8M0, 2, {0, 2}, exponents};
    refused(config, list, 2, why);
    list[1] = (given){"e.w1.scale", SW_F32, 2, {6, 2}, f32};
    refused(config, list, 2, "e.w1.scale is of type f32");
    refused(config, list, 1, "its scale, e.w1.weight_scale_inv, e.w1.weight_scale or e.w1.scale, is missing");
    list[1] = (given){"e.w1.scale", SW_F8_E8M0, 2, {6, 2}, exponents};
    list[0] = (given){"e.w1.weight", SW_I8, 2, {6, 24}, packed};
    refused(config, list, 2, "e.w1.weight is [6, 24]: rows of 4-bit floats");
    list[0] = (given){"e.w1.weight", SW_I8, 1, {192}, packed};
    refused(config, list, 2, "e.w1.weight is [192]");
    list[0] = (given){"e.w1.weight", SW_I8, 2, {0, 32}, packed};
    refused(config, list, 2, "rows of 4-bit floats");
    assert_non_null(c = opened("{}", list + 2, 2)); /* whole numbers are whole numbers */
    assert_int_equal(sw_checkpoint_count(c), 2);
    sw_checkpoint_close(c);
    exponents[7] = 255;
    list[0] = (given){"e.w1.weight", SW_I8, 2, {6, 32}, packed};
    assert_non_null(c = opened(config, list, 2));
    assert_int_equal(sw_entry_rows(sw_checkpoint_find(c, "e.w1.weight"), 3, 3, out), -1);
    assert_non_null(strstr(sw_error(), "e.w1.scale: scale 7 is no number"));
    sw_checkpoint_close(c);
}

static uint8_t nearest(double v)
{
    double least = INFINITY;
    uint8_t best = 0;
    for (int i = 0; i < 256; i++) {
        uint8_t byte = (uint8_t)i;
        double d = fabs(sw_scalar_get(&byte, SW_F8_E4M3, 0) - v);
        if (d < least) {
            least = d;
            best = byte;
        }
    }
    return best;
}

/* ---- whole models */

enum { ROWS, ONE, BLOCKS, POWERS, KINDS };
static const struct {
    const char *config, *end;
    int64_t high, wide; /* 0: all */
    sw_dtype type;
} kinds[KINDS] = {{"{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"a\":{\"weights\":{\"num_bits\":8,\"type\":\"float\"}}}}", "_scale", 1, 0, SW_BF16},
                  {"{\"quant_method\":\"fbgemm_fp8\"}", "_scale", 0, 0, SW_F32},
                  {"{\"quant_method\":\"fp8\",\"weight_block_size\":[16,8]}", "_scale_inv", 16, 8, SW_F32},
                  {"{\"quant_method\":\"fp8\",\"weight_block_size\":[8,16]}", "_scale_inv", 8, 16, SW_F8_E8M0}};

/* A tensor of a model in 8 bits. */
typedef struct coding {
    int64_t matrices, rows, width, high, wide, lines, line;
    uint8_t *bytes;
    float *scales, *values; /* and what it stands for */
} coding;

static coding code(const sw_entry *e, int kind, sw_arena *arena)
{
    coding c = {.rows = e->t.shape[e->t.ndim - 2], .width = e->t.shape[e->t.ndim - 1]};
    int64_t n = sw_numel(&e->t);
    c.matrices = n / (c.rows * c.width);
    c.high = kinds[kind].high ? kinds[kind].high : c.rows;
    c.wide = kinds[kind].wide ? kinds[kind].wide : c.width;
    c.lines = (c.rows + c.high - 1) / c.high;
    c.line = (c.width + c.wide - 1) / c.wide;
    c.bytes = sw_arena_alloc(arena, (size_t)n);
    c.values = sw_arena_alloc(arena, (size_t)n * sizeof *c.values);
    c.scales = sw_arena_alloc(arena, (size_t)(c.matrices * c.lines * c.line) * sizeof *c.scales);
    for (int64_t i = 0; i < c.matrices * c.lines * c.line; i++)
        c.scales[i] = kind == POWERS ? ldexpf(1, -2 - (int)(i % 4)) : 0.0625f * (1 + 0.25f * (float)(i % 7)); /* exact in bf16, too */
    for (int64_t i = 0; i < n; i++) {
        int64_t r = i / c.width, k = i % c.width;
        float scale = c.scales[(r / c.rows * c.lines + r % c.rows / c.high) * c.line + k / c.wide];
        c.bytes[i] = nearest(sw_scalar_get(e->t.data, e->t.dtype, i) / scale);
        c.values[i] = (float)sw_scalar_get(c.bytes, SW_F8_E4M3, i) * scale;
    }
    return c;
}

static uint8_t *exponents_of(const float *scales, int64_t n, sw_arena *arena)
{
    uint8_t *to = sw_arena_alloc(arena, (size_t)n);
    for (int64_t k = 0; k < n; k++)
        to[k] = isnan(scales[k]) ? 255 : (uint8_t)(127 + ilogbf(scales[k]));
    return to;
}

static void save_folder(const char *name, const sw_entries *list, const cJSON *config)
{
    char *folder = sw_strdup(in(name)), *file = sw_path_join(folder, "model.safetensors");
    if (sw_is_dir(folder))
        assert_int_equal(sw_remove_tree(folder), 0);
    assert_int_equal(mkdir(folder, 0777), 0);
    assert_int_equal(sw_save_json(folder, "config.json", config), 0);
    if (sw_st_save(file, list->at, list->n, NULL))
        fail_msg("%s", sw_error());
    free(folder);
    free(file);
}

static bool is_coded(const sw_entry *e) { return e->t.ndim > 1 && strstr(e->name, "_proj") && !strstr(e->name, "bias"); }

/* c's tensors in a folder: with projections in 8 bits, or (decoded) the values that those stand for. broken: the number of a scale of
 * the first of them that is NaN, or -1. */
static void write_folder(const char *name, const sw_checkpoint *c, int kind, bool decoded, int64_t broken)
{
    sw_arena arena = {0};
    sw_entries out = {0};
    cJSON *config = cJSON_Duplicate(c->config, true);
    if (!decoded)
        cJSON_AddItemToObject(config, "quantization_config", sw_json_parse(kinds[kind].config, strlen(kinds[kind].config)));
    for (size_t i = 0; i < sw_checkpoint_count(c); i++) {
        sw_entry e = *sw_checkpoint_at(c, i);
        if (is_coded(&e)) {
            coding d = code(&e, kind, &arena);
            int64_t shape[3] = {d.matrices, d.lines, d.line};
            int skip = e.t.ndim == 2, ndim = 3 - skip;
            sw_entry s = {.name = sw_arena_alloc(&arena, strlen(e.name) + 16), .t = sw_tensor_of(d.scales, SW_F32, ndim, shape + skip)};
            strcat(strcpy(s.name, e.name), kinds[kind].end);
            if (broken >= 0)
                d.scales[broken] = NAN;
            broken = -1;
            if (kinds[kind].type == SW_BF16) {
                uint16_t *low = sw_arena_alloc(&arena, (size_t)sw_numel(&s.t) * sizeof *low);
                for (int64_t k = 0; k < sw_numel(&s.t); k++)
                    low[k] = sw_f32_to_bf16(d.scales[k]);
                s.t = sw_tensor_of(low, SW_BF16, ndim, shape + skip);
            }
            if (kind == POWERS)
                s.t = sw_tensor_of(exponents_of(d.scales, sw_numel(&s.t), &arena), SW_F8_E8M0, ndim, shape + skip);
            if (kind == ONE)
                s.t = sw_tensor_of(d.scales, SW_F32, 1, &d.matrices);
            e.t = decoded ? sw_tensor_of(d.values, SW_F32, e.t.ndim, e.t.shape) : sw_tensor_of(d.bytes, SW_F8_E4M3, e.t.ndim, e.t.shape);
            if (!decoded)
                SW_PUSH(out, s);
        }
        SW_PUSH(out, e);
    }
    save_folder(name, &out, config);
    free(out.at);
    cJSON_Delete(config);
    sw_arena_free(&arena);
}

enum { TOKENS = 12, SEQUENCES = 11, LENGTH = 6 };

/* Logits of two texts, and the gradient that the embedding of them gets. */
static float *outputs(sw_device *d, const char *name, sw_dtype compute, bool dequantise, int64_t *n)
{
    sw_ctx c = {0};
    sw_model *m = sw_model_load(in(name), d, &(sw_load_options){.dtype = dequantise ? SW_F32 : SW_DTYPE_COUNT, .dequantise = dequantise});
    if (!m || sw_ctx_init(&c, d, compute))
        fail_msg("%s", sw_error());
    size_t coded = 0;
    for (size_t i = 0; i < m->params.n; i++) {
        const sw_tensor *t = &m->params.at[i]->v.t;
        const sw_entry *e = sw_checkpoint_find(m->checkpoint, m->params.at[i]->name);
        coded += t->dtype == SW_F8_E4M3;
        assert_int_equal(t->dtype == SW_F8_E4M3, !dequantise && e && e->coded && !strstr(e->name, ".wo_a.")); /* a product in groups */
        assert_int_equal(t->dtype == SW_MXFP4, !dequantise && e && e->t.dtype == SW_MXFP4);
        if (t->dtype == SW_F8_E4M3 && d->host) /* where it lies in the file */
            assert_ptr_equal(t->data, e->coded->values->t.data);
    }
    assert_int_equal(coded > 0, !dequantise && !strcmp(name, "coded"));
    int32_t ids[TOKENS], targets[TOKENS];
    for (int i = 0; i < TOKENS; i++) {
        ids[i] = (int32_t)(i * 7 % m->spec.vocab);
        targets[i] = (int32_t)(i * 5 % m->spec.vocab);
    }
    sw_flat flat;
    for (size_t i = 0; i < m->params.n; i++)
        m->params.at[i]->trainable = m->params.at[i] == m->embed.w;
    sw_head head = sw_model_head(m);
    if (sw_flat_build(&flat, &m->params, d, compute) || sw_flat_zero_grad(&flat))
        fail_msg("%s", sw_error());
    c.recording = true;
    int64_t logits = TOKENS * m->spec.vocab;
    float *out = SW_NEW_ARRAY(float, (size_t)(logits + flat.n));
    sw_var *h = sw_model_forward(&c, m, &(sw_batch){.n = TOKENS, .n_seqs = 2, .ids = ids, .lengths = (int64_t[]){5, 7}}, false);
    sw_var *y = h ? sw_logits(&c, h, &head) : NULL;
    sw_var *at = y ? sw_from_host(&c, SW_I32, 1, &(int64_t){TOKENS}, targets) : NULL;
    float one[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        one[i] = 1;
    sw_var *seed = at ? sw_from_host(&c, SW_F32, 1, &(int64_t){TOKENS}, one) : NULL;
    sw_logprobs got = {0};
    if (!seed || sw_to_host(&c, y, out) || sw_token_logprobs(&c, h, &head, &(sw_logprob_request){.targets = at}, &got) ||
        sw_backward(&c, got.logp, &seed->t) || d->get(d, out + logits, flat.grad.data, (size_t)flat.n * sizeof *out))
        fail_msg("%s", sw_error());
    *n = logits + flat.n;
    sw_flat_free(&flat);
    sw_ctx_free(&c);
    sw_model_free(m);
    return out;
}

static void same(const char *what, const float *a, const float *b, int64_t n, double most)
{
    double largest = 0;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)b[i]));
    assert_true(largest > 0);
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)a[i] - b[i]) <= most * largest))
            fail_msg("%s: number %" PRId64 " is %g, not %g (largest %g)", what, i, a[i], b[i], largest);
}

/* ---- DeepSeek 4 as it is published */

#define PUBLISHED "tests/golden/llm/deepseek_v4"

/* A tensor of a folder as it is published, or the values that it stands for: experts in 4 bits, other projections in 8. */
static void publish(sw_entries *out, sw_entry e, bool decoded, sw_arena *arena)
{
    bool experts = strstr(e.name, ".experts."), eight = e.t.ndim == 2 && (strstr(e.name, ".shared_experts.") || strstr(e.name, ".attn.w"));
    int64_t n = sw_numel(&e.t);
    sw_entry scale = {.name = sw_arena_alloc(arena, strlen(e.name))};
    sprintf(scale.name, "%.*s.scale", (int)(strlen(e.name) - strlen(".weight")), e.name);
    if (experts) {
        float *values = sw_arena_alloc(arena, (size_t)n * sizeof *values);
        uint8_t *packed = sw_arena_zalloc(arena, (size_t)n / 2), *exponents = sw_arena_alloc(arena, (size_t)n / 32);
        for (int64_t i = 0; i < n; i++) {
            int nibble = (int)((i * 7 + i / 16 * 5 + i / 80) % 16);
            exponents[i / 32] = (uint8_t)(121 + i / 32 % 4);
            packed[i / 2] |= (uint8_t)(nibble << i % 2 * 4);
            values[i] = ldexpf(levels[nibble], exponents[i / 32] - 127);
        }
        scale.t = sw_tensor_of(exponents, SW_F8_E8M0, 2, (int64_t[]){e.t.shape[0], e.t.shape[1] / 32});
        e.t = decoded ? sw_tensor_of(values, SW_F32, 2, e.t.shape) : sw_tensor_of(packed, SW_I8, 2, (int64_t[]){e.t.shape[0], e.t.shape[1] / 2});
    } else if (eight) {
        coding d = code(&e, POWERS, arena);
        scale.t = sw_tensor_of(exponents_of(d.scales, d.lines * d.line, arena), SW_F8_E8M0, 2, (int64_t[]){d.lines, d.line});
        e.t = decoded ? sw_tensor_of(d.values, SW_F32, 2, e.t.shape) : sw_tensor_of(d.bytes, SW_F8_E4M3, 2, e.t.shape);
    }
    SW_PUSH(*out, e);
    if ((experts || eight) && !decoded)
        SW_PUSH(*out, scale);
}

/* The golden model in sizes of whole blocks, with values of its own. */
static void write_published(const char *name, bool decoded)
{
    sw_arena arena = {0};
    sw_entries asked = {0}, out = {0};
    sw_checkpoint *c = sw_checkpoint_open(PUBLISHED);
    cJSON *config = c ? cJSON_Duplicate(c->config, true) : NULL;
    assert_non_null(config);
    cJSON_ReplaceItemInObject(config, "hidden_size", cJSON_CreateNumber(32));
    cJSON_ReplaceItemInObject(config, "moe_intermediate_size", cJSON_CreateNumber(64));
    sw_spec spec;
    if (sw_spec_from_config(&spec, config, PUBLISHED) || sw_model_tensors(&spec, &asked, &arena))
        fail_msg("%s", sw_error());
    for (size_t i = 0; i < asked.n; i++) {
        sw_entry e = asked.at[i];
        int64_t n = sw_numel(&e.t);
        float *values = sw_arena_alloc(&arena, (size_t)n * sizeof *values);
        int32_t *whole = sw_arena_alloc(&arena, (size_t)n * sizeof *whole);
        for (int64_t k = 0; k < n; k++) {
            values[k] = (e.t.ndim == 1) + 0.3f * sinf((float)(k * 12.9898 + (double)i * 78.233));
            whole[k] = (int32_t)((k * 3 + k / 5) % 4);
        }
        e.t.data = e.t.dtype == SW_I32 ? (void *)whole : values;
        publish(&out, e, decoded, &arena);
    }
    static char guess[] = "mtp.0.ffn.experts.0.w1.weight"; /* of a layer that is not read, and is written again */
    publish(&out, (sw_entry){.name = guess, .t = sw_tensor_of(NULL, SW_F32, 2, (int64_t[]){3, 32})}, decoded, &arena);
    if (!decoded) {
        cJSON_AddItemToObject(config, "quantization_config", sw_json_parse(kinds[POWERS].config, strlen(kinds[POWERS].config)));
        cJSON_AddStringToObject(config, "expert_dtype", "fp4");
    }
    save_folder(name, &out, config);
    free(asked.at);
    free(out.at);
    cJSON_Delete(config);
    sw_spec_free(&spec);
    sw_checkpoint_close(c);
    sw_arena_free(&arena);
}

/* What is saved is plain, and says the same; it names no type of experts. */
static void check_saved(sw_device *d, const float *want)
{
    int64_t n;
    char *to = sw_strdup(in("saved"));
    sw_model *m = sw_model_load(in("coded"), d, &(sw_load_options){.dtype = SW_DTYPE_COUNT});
    sw_save_report report;
    sw_modules modules = sw_model_modules(m);
    assert_int_equal(sw_is_dir(to) ? sw_remove_tree(to) : 0, 0);
    assert_int_equal(mkdir(to, 0777), 0);
    if (sw_model_save(m, &modules, to, &(sw_save_options){.dtype = SW_DTYPE_COUNT}, &report))
        fail_msg("%s", sw_error());
    float *got = outputs(d, "saved", SW_F32, false, &n);
    same("saved", got, want, n, 2e-5);
    sw_checkpoint *c = sw_checkpoint_open(to), *plain = sw_checkpoint_open(in("decoded"));
    assert_int_equal(sw_checkpoint_count(c), sw_checkpoint_count(plain));
    assert_null(sw_json_get(c->config, "quantization_config"));
    assert_null(sw_json_get(c->config, "expert_dtype"));
    for (size_t i = 0; i < sw_checkpoint_count(c); i++) {
        const sw_entry *e = sw_checkpoint_at(c, i), *p = sw_checkpoint_find(plain, e->name);
        assert_int_equal(e->t.dtype, p->t.dtype == SW_F32 && (strstr(e->name, "experts") || strstr(e->name, ".attn.w")) ? SW_BF16 : p->t.dtype);
        for (int64_t k = 0; k < sw_numel(&e->t); k++)
            assert_true(sw_scalar_get(e->t.data, e->t.dtype, k) == sw_scalar_get(p->t.data, p->t.dtype, k));
    }
    sw_checkpoint_close(c);
    sw_checkpoint_close(plain);
    free(modules.at);
    free(got);
    free(to);
    sw_model_free(m);
}

static void published(void **state)
{
    (void)state;
    static const char *const devices[] = {"cpu", "emulator"};
    write_published("coded", false);
    write_published("decoded", true);
    for (size_t k = 0; k < SW_COUNT(devices); k++) {
        sw_device *d = sw_device_open(devices[k]);
        int64_t n;
        float *want = outputs(d, "decoded", SW_F32, false, &n), *got = outputs(d, "coded", SW_F32, false, &n),
              *turned = outputs(d, "coded", SW_F32, true, &n);
        same(devices[k], got, want, n, 2e-5);
        same(devices[k], turned, want, n, 2e-5); /* powers of two lose nothing by way of bf16 */
        check_saved(d, want);
        free(want), free(got), free(turned);
        d->close(d);
    }
}

/* Greedy answers of `n` sequences at once: each's logarithms of probabilities. */
static void generate(sw_model *m, int64_t n, bool rounding, const int32_t *prompts, double *logprobs)
{
    sw_generator g;
    sw_sequence s[SEQUENCES] = {{0}}, *at[SEQUENCES];
    assert_int_equal(sw_generator_init(&g, m, SW_F32, n), 0);
    g.rounding = rounding;
    for (int64_t i = 0; i < n; i++) {
        s[i] = (sw_sequence){.prompt = prompts + i, .n_prompt = 3, .max_tokens = LENGTH, .want_logprobs = true};
        at[i] = &s[i];
    }
    if (sw_generate(&g, at, (size_t)n, NULL))
        fail_msg("%s", sw_error());
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(s[i].out.n, LENGTH);
        for (int k = 0; k < LENGTH; k++)
            logprobs[i * LENGTH + k] = s[i].logprobs.at[k] + s[i].out.at[k];
        sw_sequence_free(&s[i]);
    }
    sw_generator_free(&g);
}

/* The same of a model in a folder, without rounding. */
static void answers(sw_device *d, const char *name, const int32_t *prompts, double *logprobs)
{
    sw_model *m = sw_model_load(in(name), d, &(sw_load_options){.dtype = SW_DTYPE_COUNT});
    if (!m)
        fail_msg("%s", sw_error());
    generate(m, 2, false, prompts, logprobs);
    sw_model_free(m);
}

/* Whole models, some of them with experts, in one tensor or in one each, one with latent attention: 8-bit floats stay what they
 * are, and give what the values that they stand for give; they become those where that is asked for. */
static void models(void **state)
{
    (void)state;
    static const char *const bases[] = {"tests/golden/llm/llama", "tests/golden/llm/gemma4_moe", "tests/golden/llm/llama4_text", "tests/golden/llm/deepseek_v2"};
    static const int32_t prompts[] = {3, 17, 5, 29};
    static const char *const devices[] = {"cpu", "emulator"};
    for (size_t k = 0; k < SW_COUNT(devices); k++)
        for (size_t i = 0; i < SW_COUNT(bases); i++)
            for (int kind = 0; kind < KINDS; kind++) {
                sw_checkpoint *c = sw_checkpoint_open(bases[i]);
                sw_device *d = sw_device_open(devices[k]);
                int64_t n;
                if (!c || !d)
                    fail_msg("%s", sw_error());
                write_folder("coded", c, kind, false, -1);
                write_folder("decoded", c, kind, true, -1);
                float *want = outputs(d, "decoded", SW_F32, false, &n), *got = outputs(d, "coded", SW_F32, false, &n),
                      *low = outputs(d, "coded", SW_BF16, false, &n),
                      *want_low = outputs(d, "decoded", SW_BF16, false, &n), *turned = outputs(d, "coded", SW_F32, true, &n);
                char what[96];
                snprintf(what, sizeof what, "%s, %s, %s", devices[k], bases[i], kinds[kind].config);
                same(what, got, want, n, 2e-5);
                same(what, low, want_low, n, 0.05);
                same(what, turned, want, n, 0.03); /* by way of bf16 */
                double coded[2 * LENGTH], decoded[2 * LENGTH];
                answers(d, "coded", prompts, coded);
                answers(d, "decoded", prompts, decoded);
                for (int t = 0; t < 2 * LENGTH; t++)
                    if (!(fabs(coded[t] - decoded[t]) < 1e-3))
                        fail_msg("%s: token %d is %g, not %g", what, t, coded[t], decoded[t]);
                free(want), free(got), free(low), free(want_low), free(turned);
                write_folder("coded", c, kind, false, 1);
                if (kind != ONE) {
                    assert_null(sw_model_load(in("coded"), d, &(sw_load_options){.dtype = SW_DTYPE_COUNT}));
                    assert_non_null(strstr(sw_error(), "scale 1 is no number"));
                }
                sw_checkpoint_close(c);
                d->close(d);
            }
}

/* On a GPU activations that meet 8-bit floats are rounded in steps of tokens, where that is asked for, and a sequence gives the
 * same alone, by the kernel for few rows, and among others, by products of 8-bit floats. */
static void generated(void **state)
{
    (void)state;
    sw_checkpoint *c = sw_checkpoint_open("tests/golden/llm/llama");
    sw_device *d = sw_device_open("emulator");
    if (!c || !d)
        fail_msg("%s", sw_error());
    int32_t prompts[SEQUENCES + 3];
    for (int i = 0; i < SEQUENCES + 3; i++)
        prompts[i] = (int32_t)(i * 11 % 50);
    for (int kind = 0; kind <= ONE; kind++) {
        write_folder("coded", c, kind, false, -1);
        sw_model *m = sw_model_load(in("coded"), d, &(sw_load_options){.dtype = SW_DTYPE_COUNT});
        if (!m)
            fail_msg("%s", sw_error());
        double among[SEQUENCES * LENGTH], exactly[SEQUENCES * LENGTH], alone[LENGTH], apart = 0;
        generate(m, SEQUENCES, true, prompts, among);
        generate(m, SEQUENCES, false, prompts, exactly);
        for (int i = 0; i < SEQUENCES * LENGTH; i++)
            apart = fmax(apart, fabs(among[i] - exactly[i]));
        assert_true(apart > 1e-4);
        for (int i = 0; i < SEQUENCES; i += 5) {
            generate(m, 1, true, prompts + i, alone);
            for (int k = 0; k < LENGTH; k++)
                if (!(fabs(alone[k] - among[i * LENGTH + k]) < 1e-4))
                    fail_msg("token %d of sequence %d: %g alone, %g among others", k, i, alone[k], among[i * LENGTH + k]);
        }
        sw_model_free(m);
    }
    sw_checkpoint_close(c);
    d->close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(granularities), cmocka_unit_test(bad_scales), cmocka_unit_test(methods),
                                       cmocka_unit_test(four_bits), cmocka_unit_test(pairs_of_four_bits),
                                       cmocka_unit_test(models), cmocka_unit_test(published), cmocka_unit_test(generated)};
    return cmocka_run_group_tests(tests, sw_folder_make, sw_folder_remove);
}
