/* Weights in 8 and 4 bits with scales beside them: what they stand for, in bf16, and what is refused. */
#include "model/model.h"
#include "store/made.h"
#include "store/scaled.h"

#include "base/json.h"
#include "tests/unit/folder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
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
    assert_int_equal(sw_st_save(in("model.safetensors"), entries, n, NULL), 0);
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
    wrong[1] = (given){"a.weight_scale_inv", SW_I32, 2, {2, 4}, f32};
    refused(blocks, wrong, 2, "a float is needed");
    refused(blocks, wrong, 1, "a.weight is of type f8_e4m3, and its scale");
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

/* Two experts of 3 rows, 2 groups of 32 values: the value at [e, k, r] is nibble k of row r times 2^(exponent - 127). */
static void four_bits(void **state)
{
    (void)state;
    static const float values[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
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
        float want = ldexpf(values[k % 2 ? byte >> 4 : byte & 15], exponents[(x * 3 + r) * 2 + k / 32] - 127);
        assert_int_equal(out[i], sw_f32_to_bf16(want));
    }
    sw_checkpoint_close(c);
    list[1].shape[2] = 1;
    refused(config, list, 2, "[experts, rows, groups, 16]");
    refused(config, list, 1, "scales are missing");
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

/* A whole model whose matrices are 8-bit floats: it loads as bf16, answers as the values that they stand for do, and is saved
 * as a plain one. */
static void model(void **state)
{
    (void)state;
    sw_checkpoint *c = sw_checkpoint_open("tests/golden/llm/llama");
    assert_non_null(c);
    static const char how[] = "{\"quant_method\":\"fp8\",\"weight_block_size\":[16,16]}";
    cJSON *config = cJSON_Duplicate(c->config, true);
    cJSON_AddItemToObject(config, "quantization_config", sw_json_parse(how, strlen(how)));
    sw_buf text = {0};
    sw_json_print(&text, config);
    assert_int_equal(sw_write_file(in("config.json"), text.at, text.n), 0);
    sw_st_writer *w = sw_st_writer_new();
    sw_arena arena = {0};
    size_t n = sw_checkpoint_count(c);
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < n; i++) {
            const sw_entry *e = sw_checkpoint_at(c, i);
            bool coded = strstr(e->name, "_proj.weight");
            int64_t high = (e->t.shape[0] + 15) / 16, wide = e->t.ndim > 1 ? (e->t.shape[1] + 15) / 16 : 1, values = sw_numel(&e->t);
            char *scale_name = sw_strfmt("%s_scale_inv", e->name);
            if (!pass) {
                sw_st_declare(w, e->name, coded ? SW_F8_E4M3 : e->t.dtype, e->t.ndim, e->t.shape);
                if (coded)
                    sw_st_declare(w, scale_name, SW_F32, 2, (int64_t[]){high, wide});
            } else if (!coded) {
                assert_int_equal(sw_st_write(w, e->t.data, sw_tensor_bytes(&e->t)), 0);
            } else {
                uint8_t *b = sw_arena_alloc(&arena, (size_t)values);
                float *s = sw_arena_alloc(&arena, (size_t)(high * wide) * sizeof *s);
                for (int64_t k = 0; k < values; k++)
                    b[k] = nearest(sw_scalar_get(e->t.data, e->t.dtype, k) / 0.125);
                for (int64_t k = 0; k < high * wide; k++)
                    s[k] = 0.125f;
                assert_int_equal(sw_st_write(w, b, (size_t)values), 0);
                assert_int_equal(sw_st_write(w, s, (size_t)(high * wide) * sizeof *s), 0);
            }
            free(scale_name);
        }
        if (!pass)
            assert_int_equal(sw_st_writer_open(w, in("model.safetensors")), 0);
    }
    assert_int_equal(sw_st_writer_commit(w), 0);
    sw_device *d = sw_device_open("cpu");
    sw_model *m = sw_model_load(dir, d, &(sw_load_options){.dtype = SW_DTYPE_COUNT});
    if (!m)
        fail_msg("%s", sw_error());
    sw_param *p = sw_param_find(&m->params, "model.layers.1.mlp.up_proj.weight");
    const sw_entry *e = sw_checkpoint_find(c, p->name);
    assert_int_equal(p->v.t.dtype, SW_BF16);
    for (int64_t i = 0; i < sw_numel(&p->v.t); i++) {
        double got = sw_scalar_get(p->v.t.data, SW_BF16, i), was = sw_scalar_get(e->t.data, e->t.dtype, i);
        assert_true(fabs(got - was) <= 0.07 * fabs(was) + 0.125 * 0x1p-9);
    }
    sw_model_free(m);
    d->close(d);
    cJSON_Delete(config);
    sw_buf_free(&text);
    sw_arena_free(&arena);
    sw_checkpoint_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(granularities), cmocka_unit_test(bad_scales), cmocka_unit_test(methods),
                                       cmocka_unit_test(four_bits), cmocka_unit_test(model)};
    return cmocka_run_group_tests(tests, sw_folder_make, sw_folder_remove);
}
