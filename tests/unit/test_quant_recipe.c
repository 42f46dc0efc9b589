/* Which type each tensor gets: the mixtures that llama.cpp writes under the same names. */
#include "tools/swift-quant/quant_recipe.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const sw_strings none;

static void picks(const char *recipe, const quant_model *m, const char *name, int ndim, int64_t row, sw_dtype want)
{
    int64_t shape[] = {8, 8, 8};
    size_t i = 0;
    sw_dtype got;
    while (strcmp(quant_recipes[i].name, recipe))
        i++;
    shape[ndim - 1] = row;
    sw_tensor t = sw_tensor_of(NULL, SW_F32, ndim, shape);
    assert_int_equal(quant_pick(&quant_recipes[i], m, &none, name, &t, &got), 0);
    if (got != want)
        fail_msg("%s: %s became %s, not %s", recipe, name, sw_dtypes[got].name, sw_dtypes[want].name);
}

/* As llama_model_quantize (llama-cpp-python 0.3.36) gave the 291 tensors of a Llama with 32 layers and four heads to a key head. */
static void as_llama_cpp_mixes(void **state)
{
    (void)state;
    quant_model m = {.layers = 32, .has_output = true, .query_rows = 256, .key_rows = 64};
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
    quant_model m = {.layers = 32, .has_output = false, .query_rows = 64, .key_rows = 64};
    picks("q2_k", &m, "blk.5.attn_v.weight", 2, 256, SW_Q3_K); /* a key head of its own for each head */
    picks("q4_k_s", &m, "token_embd.weight", 2, 256, SW_Q6_K); /* is the head, too */
    picks("q2_k", &m, "blk.5.attn_q.weight", 2, 96, SW_Q4_0);
    picks("iq4_xs", &m, "blk.5.attn_q.weight", 2, 96, SW_IQ4_NL);
    picks("q5_k_m", &m, "blk.5.attn_q.weight", 2, 96, SW_Q5_1);
    picks("iq4_xs", &m, "blk.5.attn_q.weight", 2, 40, SW_F16);
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
    assert_int_equal(quant_pick(&quant_recipes[0], &m, &keep, "blk.0.ffn_gate_tid2eid.weight", &t, &got), 0);
    assert_int_equal(got, SW_I32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_llama_cpp_mixes), cmocka_unit_test(what_fits), cmocka_unit_test(what_stays)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
