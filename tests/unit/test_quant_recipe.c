/* Which type each tensor gets: the mixtures that llama.cpp writes under the same names. */
#include "tools/swift-quant/quant_recipe.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const sw_strings none;

/* The place of a value or a down projection is its layer, as in models whose layers are all alike. */
static void picks(const char *recipe, const quant_model *m, const char *name, int ndim, int64_t row, sw_dtype want)
{
    int64_t shape[] = {8, 8, 8};
    size_t i = 0;
    sw_dtype got;
    while (strcmp(quant_recipes[i].name, recipe))
        i++;
    shape[ndim - 1] = row;
    sw_tensor t = sw_tensor_of(NULL, SW_F32, ndim, shape);
    assert_int_equal(quant_pick(&quant_recipes[i], m, &none, name, &t, SW_MAX(quant_layer(name), 0), &got), 0);
    if (got != want)
        fail_msg("%s: %s became %s, not %s", recipe, name, sw_dtypes[got].name, sw_dtypes[want].name);
}

/* As llama_model_quantize (llama-cpp-python 0.3.36) gave the 291 tensors of a Llama with 32 layers and four heads to a key head. */
static void as_llama_cpp_mixes(void **state)
{
    (void)state;
    quant_model m = {.layers = 32, .values = 32, .has_output = true, .shared_by = 4};
    static const struct { const char *recipe; sw_dtype most, head, out, value[3], down[4]; } want[] = {
        /* value: layers 0, 2, 9; down: layers 0, 2, 4, 9 */
        {"q2_k", SW_Q2_K, SW_Q6_K, SW_Q3_K, {SW_Q4_K, SW_Q4_K, SW_Q4_K}, {SW_Q3_K, SW_Q3_K, SW_Q3_K, SW_Q3_K}},
        {"q3_k_s", SW_Q3_K, SW_Q6_K, SW_Q3_K, {SW_Q3_K, SW_Q3_K, SW_Q3_K}, {SW_Q3_K, SW_Q3_K, SW_Q3_K, SW_Q3_K}},
        {"q3_k_m", SW_Q3_K, SW_Q6_K, SW_Q4_K, {SW_Q5_K, SW_Q4_K, SW_Q4_K}, {SW_Q5_K, SW_Q4_K, SW_Q4_K, SW_Q4_K}},
        {"q3_k_l", SW_Q3_K, SW_Q6_K, SW_Q5_K, {SW_Q5_K, SW_Q5_K, SW_Q5_K}, {SW_Q5_K, SW_Q5_K, SW_Q5_K, SW_Q5_K}},
        {"q4_k_s", SW_Q4_K, SW_Q6_K, SW_Q4_K, {SW_Q5_K, SW_Q5_K, SW_Q4_K}, {SW_Q5_K, SW_Q5_K, SW_Q4_K, SW_Q4_K}},
        {"q4_k_m", SW_Q4_K, SW_Q6_K, SW_Q4_K, {SW_Q6_K, SW_Q6_K, SW_Q6_K}, {SW_Q6_K, SW_Q6_K, SW_Q4_K, SW_Q6_K}},
        {"q5_k_s", SW_Q5_K, SW_Q6_K, SW_Q5_K, {SW_Q5_K, SW_Q5_K, SW_Q5_K}, {SW_Q5_K, SW_Q5_K, SW_Q5_K, SW_Q5_K}},
        {"iq4_xs", SW_IQ4_XS, SW_Q6_K, SW_IQ4_XS, {SW_Q5_K, SW_Q5_K, SW_Q5_K}, {SW_Q5_K, SW_Q5_K, SW_IQ4_XS, SW_IQ4_XS}},
        {"q8_0", SW_Q8_0, SW_Q8_0, SW_Q8_0, {SW_Q8_0, SW_Q8_0, SW_Q8_0}, {SW_Q8_0, SW_Q8_0, SW_Q8_0, SW_Q8_0}},
        {"tq2_0", SW_TQ2_0, SW_Q6_K, SW_TQ2_0, {SW_TQ2_0, SW_TQ2_0, SW_TQ2_0}, {SW_TQ2_0, SW_TQ2_0, SW_TQ2_0, SW_TQ2_0}},
    };
    for (size_t i = 0; i < SW_COUNT(want); i++) {
        const char *r = want[i].recipe;
        picks(r, &m, "blk.5.attn_q.weight", 2, 256, want[i].most);
        picks(r, &m, "output.weight", 2, 256, want[i].head);
        picks(r, &m, "blk.5.attn_output.weight", 2, 256, want[i].out);
        picks(r, &m, "blk.5.attn_norm.weight", 1, 256, SW_F32);
        for (int k = 0; k < 3; k++)
            picks(r, &m, (const char *[]){"blk.0.attn_v.weight", "blk.2.attn_v.weight", "blk.9.attn_v.weight"}[k], 2, 256, want[i].value[k]);
        for (int k = 0; k < 4; k++)
            picks(r, &m, (const char *[]){"blk.0.ffn_down.weight", "blk.2.ffn_down.weight", "blk.4.ffn_down.weight", "blk.9.ffn_down.weight"}[k],
                  2, 512, want[i].down[k]);
    }
    picks("tq1_0", &m, "token_embd.weight", 2, 256, SW_Q4_K);
    picks("q2_0", &m, "token_embd.weight", 2, 256, SW_Q4_K);
    picks("q2_0", &m, "output.weight", 2, 256, SW_Q6_K);
    picks("q2_0", &m, "blk.0.attn_v.weight", 2, 64, SW_Q2_0);
    picks("q1_0", &m, "token_embd.weight", 2, 256, SW_Q1_0);
    picks("q1_0", &m, "output.weight", 2, 256, SW_Q6_K);
    picks("q1_0", &m, "blk.0.ffn_down.weight", 2, 64, SW_Q4_0);
    picks("mxfp4_moe", &m, "blk.0.ffn_up_exps.weight", 3, 64, SW_MXFP4);
    picks("mxfp4_moe", &m, "blk.0.attn_q.weight", 2, 64, SW_Q8_0);
}

static void what_fits(void **state)
{
    (void)state;
    quant_model m = {.layers = 32, .values = 32, .has_output = false, .shared_by = 1};
    picks("q2_k", &m, "blk.5.attn_v.weight", 2, 256, SW_Q3_K); /* a key head of its own for each head */
    picks("q4_k_s", &m, "token_embd.weight", 2, 256, SW_Q6_K); /* is the head, too */
    picks("q2_k", &m, "blk.5.attn_q.weight", 2, 96, SW_Q4_0);
    picks("iq4_xs", &m, "blk.5.attn_q.weight", 2, 96, SW_IQ4_NL);
    picks("q5_k_m", &m, "blk.5.attn_q.weight", 2, 96, SW_Q5_1);
    picks("iq4_xs", &m, "blk.5.attn_q.weight", 2, 40, SW_F16);
}

/* Also as llama_model_quantize gave them: eight experts, 70B, Falcon, layers of which few attend. */
static void as_llama_cpp_mixes_others(void **state)
{
    (void)state;
    quant_model eight = {.layers = 32, .values = 32, .has_output = true, .shared_by = 4, .experts = 8}, four = eight;
    four.experts = 4;
    static const struct { const char *recipe; sw_dtype out, most; } want[] = {
        {"q2_k", SW_Q5_K, SW_Q2_K},   {"q3_k_s", SW_Q5_K, SW_Q3_K}, {"q3_k_m", SW_Q5_K, SW_Q3_K}, {"q3_k_l", SW_Q3_K, SW_Q3_K},
        {"q4_k_s", SW_Q5_K, SW_Q4_K}, {"q4_k_m", SW_Q5_K, SW_Q4_K}, {"q5_k_m", SW_Q5_K, SW_Q5_K}, {"q6_k", SW_Q6_K, SW_Q6_K},
        {"q4_0", SW_Q4_0, SW_Q4_0},   {"iq4_xs", SW_Q5_K, SW_IQ4_XS}, {"q8_0", SW_Q8_0, SW_Q8_0}};
    for (size_t i = 0; i < SW_COUNT(want); i++) {
        picks(want[i].recipe, &eight, "blk.9.attn_v.weight", 2, 256, SW_Q8_0);
        picks(want[i].recipe, &eight, "blk.9.attn_k.weight", 2, 256, SW_Q8_0);
        picks(want[i].recipe, &eight, "blk.9.attn_output.weight", 2, 256, want[i].out);
        picks(want[i].recipe, &eight, "blk.9.attn_q.weight", 2, 256, want[i].most);
        picks(want[i].recipe, &four, "blk.9.attn_k.weight", 2, 256, want[i].most);
    }
    picks("q2_k", &eight, "blk.9.ffn_down_exps.weight", 3, 256, SW_Q3_K);

    quant_model large = {.layers = 80, .values = 80, .has_output = true, .shared_by = 8, .large = true};
    picks("q4_k_m", &large, "blk.13.attn_v.weight", 2, 256, SW_Q5_K);
    picks("q4_k_m", &large, "blk.12.attn_v.weight", 2, 256, SW_Q6_K);
    picks("q2_k", &large, "blk.13.attn_v.weight", 2, 256, SW_Q5_K);
    picks("q4_k_m", &large, "blk.13.attn_k.weight", 2, 256, SW_Q4_K);

    quant_model falcon = {.layers = 33, .values = 33, .shared_by = 4, .falcon = true};
    picks("q4_0", &falcon, "token_embd.weight", 2, 256, SW_Q8_0);
    picks("q2_k", &falcon, "blk.5.attn_output.weight", 2, 256, SW_Q2_K);
    picks("q3_k_m", &falcon, "blk.5.ffn_down.weight", 2, 256, SW_Q3_K);
    picks("q3_k_l", &falcon, "blk.5.attn_output.weight", 2, 256, SW_Q4_K);
    picks("q4_k_s", &falcon, "blk.0.ffn_down.weight", 2, 256, SW_Q4_K);
    picks("q4_k_m", &falcon, "blk.1.ffn_down.weight", 2, 256, SW_Q6_K);
    picks("q4_k_m", &falcon, "blk.2.ffn_down.weight", 2, 256, SW_Q5_K);
    picks("q4_k_m", &falcon, "blk.4.ffn_down.weight", 2, 256, SW_Q4_K);

    quant_model hybrid = {.layers = 32, .values = 8}; /* blk.7 has the second value, of eight */
    sw_dtype got;
    sw_tensor t = sw_tensor_of(NULL, SW_F32, 2, (int64_t[]){8, 256});
    size_t q4_k_m = 0;
    while (strcmp(quant_recipes[q4_k_m].name, "q4_k_m"))
        q4_k_m++;
    for (int64_t place = 0; place < 8; place++) {
        assert_int_equal(quant_pick(&quant_recipes[q4_k_m], &hybrid, &none, "blk.7.attn_v.weight", &t, place, &got), 0);
        assert_int_equal(got, place == 0 || place == 3 || place == 6 || place == 7 ? SW_Q6_K : SW_Q4_K);
    }
    assert_true(quant_order("blk.2.a", "blk.10.a") < 0 && quant_order("output.weight", "blk.0.a") < 0 && quant_order("blk.1.b", "blk.1.a") > 0);
}

/* What llama.cpp takes in f32 alone (short convolutions), or never in blocks. */
static void what_is_no_matrix(void **state)
{
    (void)state;
    quant_model m = {.layers = 4};
    static const char *const names[] = {"blk.0.ssm_conv1d.weight", "blk.0.ssm_conv1d_q.weight", "blk.0.shortconv.conv.weight",
                                        "position_embd.weight", "token_types.weight", "enc.blk.0.attn_rel_b.weight"};
    for (size_t i = 0; i < SW_COUNT(names); i++) {
        picks("f16", &m, names[i], 2, 256, SW_F32);
        picks("q4_0", &m, names[i], 2, 256, SW_F32);
    }
    picks("q4_0", &m, "blk.0.laurel_l.weight", 2, 256, SW_F32); /* as the model has it */
    picks("f16", &m, "blk.0.laurel_l.weight", 2, 256, SW_F16);
    picks("q4_k_m", &m, "per_layer_token_embd.weight", 2, 256, SW_Q6_K);
}

/* Of DeepSeek 4: what mixes streams and weighs places; and which experts a token has, whatever the pattern. */
static void what_stays(void **state)
{
    (void)state;
    quant_model m = {.layers = 4};
    const char *patterns[] = {"*=q8_0"};
    sw_strings keep = {patterns, 1, 1};
    sw_dtype got;
    picks("q4_k_m", &m, "blk.2.hc_attn_fn.weight", 2, 256, SW_F32);
    picks("q4_k_m", &m, "output_hc_fn.weight", 2, 256, SW_F32);
    picks("q4_k_m", &m, "blk.2.indexer_compressor_ape.weight", 2, 256, SW_F32);
    picks("q4_k_m", &m, "blk.2.indexer_compressor_gate.weight", 2, 256, SW_Q4_K);
    sw_tensor t = sw_tensor_of(NULL, SW_I32, 2, (int64_t[]){8, 6});
    assert_int_equal(quant_pick(&quant_recipes[0], &m, &keep, "blk.0.ffn_gate_tid2eid.weight", &t, 0, &got), 0);
    assert_int_equal(got, SW_I32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_llama_cpp_mixes), cmocka_unit_test(as_llama_cpp_mixes_others), cmocka_unit_test(what_is_no_matrix),
                                      cmocka_unit_test(what_fits), cmocka_unit_test(what_stays)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
