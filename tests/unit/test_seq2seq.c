/* A decoder behind an encoder: what each sequence reads, what a cache keeps of it, and what is refused. The numbers of whole
 * models are those of tests/golden/llm. */
#include "model/generate.h"

#include "base/json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static sw_device *device;
static sw_model *model;
static sw_ctx ctx;

static const int32_t source[] = {1, 8, 9, 19, 17, 32, 5, 11}, target[] = {0, 7, 30, 4, 21};
enum { SOURCE = 8, TARGET = 5 };

static sw_var *forward(const sw_batch *b)
{
    sw_var *h = sw_model_forward(&ctx, model, b, false);
    if (!h)
        fail_msg("%s", sw_error());
    return h;
}

/* Hidden states of a decoder's tokens behind a source, alone. */
static float *alone(const int32_t *ids, int64_t n, const int32_t *from, int64_t n_source)
{
    sw_var *h = forward(&(sw_batch){.n = n, .n_seqs = 1, .ids = ids, .lengths = &n, .source_ids = from, .source_lengths = &n_source});
    float *out = sw_malloc(sw_tensor_bytes(&h->t));
    assert_int_equal(sw_to_host(&ctx, h, out), 0);
    sw_ctx_reset(&ctx);
    return out;
}

static void near(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)a[i] - b[i]) < 1e-5))
            fail_msg("value %lld is %g, not %g", (long long)i, (double)a[i], (double)b[i]);
}

static double distance(const float *a, const float *b, int64_t n)
{
    double d = 0;
    for (int64_t i = 0; i < n; i++)
        d = fmax(d, fabs((double)a[i] - b[i]));
    return d;
}

static void each_sequence_reads_its_own_source(void **state)
{
    (void)state;
    int64_t wide = model->spec.hidden;
    const int32_t ids[] = {0, 7, 30, 0, 7, 30, 4, 21}, sources[] = {1, 8, 9, 19, 17, 32, 5, 11, 1, 8, 9};
    sw_var *h = forward(&(sw_batch){.n = 8, .n_seqs = 2, .ids = ids, .lengths = (int64_t[]){3, 5}, .source_ids = sources,
                                    .source_lengths = (int64_t[]){8, 3}});
    float *both = sw_malloc(sw_tensor_bytes(&h->t));
    assert_int_equal(sw_to_host(&ctx, h, both), 0);
    sw_ctx_reset(&ctx);
    float *first = alone(target, 3, source, SOURCE), *second = alone(target, 5, source, 3), *other = alone(target, 3, source, 3);
    near(both, first, 3 * wide);
    near(both + 3 * wide, second, 5 * wide);
    assert_true(distance(first, other, 3 * wide) > 1e-3); /* the source matters */
    free(both);
    free(first);
    free(second);
    free(other);
}

/* The decoder sees what is before, the encoder all. */
static void only_the_decoder_is_causal(void **state)
{
    (void)state;
    int64_t wide = model->spec.hidden;
    const int32_t later[] = {0, 7, 30, 4, 9}, changed[] = {1, 8, 9, 19, 17, 32, 5, 12};
    float *a = alone(target, TARGET, source, SOURCE), *b = alone(later, TARGET, source, SOURCE), *c = alone(target, TARGET, changed, SOURCE);
    near(a, b, 4 * wide);
    assert_true(distance(a + 4 * wide, b + 4 * wide, wide) > 1e-3);
    assert_true(distance(a, c, wide) > 1e-4); /* the last word of the source, at the first place */
    free(a);
    free(b);
    free(c);
}

static void a_cache_keeps_sources_as_it_grows_and_copies(void **state)
{
    (void)state;
    int64_t wide = model->spec.hidden, none = 0, n = SOURCE;
    float *want = alone(target, TARGET, source, SOURCE), row[64];
    sw_cache cache;
    assert_int_equal(sw_cache_init(&cache, &ctx, model, 3), 0);
    for (int64_t t = 0, slot = 1; t < TARGET; t++) {
        if (t == 2) { /* goes on in another slot, while the first gets another source */
            assert_int_equal(sw_cache_copy_slot(&cache, model, 2, 1), 0);
            assert_int_equal(sw_cache_take_source(&cache, model, 1, 40), 0);
            slot = 2;
        }
        sw_var *h = forward(&(sw_batch){.n = 1, .n_seqs = 1, .ids = target + t, .lengths = &(int64_t){1}, .cache = &cache, .slots = &slot,
                                        .source_ids = source, .source_lengths = t ? &none : &n});
        assert_true(wide <= (int64_t)SW_COUNT(row));
        assert_int_equal(sw_to_host(&ctx, h, row), 0);
        near(row, want + t * wide, wide);
        sw_ctx_reset(&ctx);
    }
    sw_cache_free(&cache, model);
    free(want);
}

static void refuses(const char *what, const sw_batch *b)
{
    if (sw_model_forward(&ctx, model, b, false))
        fail_msg("was taken, expected: %s", what);
    if (!strstr(sw_error(), what))
        fail_msg("said '%s', expected: %s", sw_error(), what);
    sw_ctx_reset(&ctx);
}

static void what_cannot_be_read_is_refused(void **state)
{
    (void)state;
    int64_t n = TARGET, two[] = {8, 0};
    refuses("sequence 0 has no source", &(sw_batch){.n = n, .n_seqs = 1, .ids = target, .lengths = &n});
    refuses("sequence 1 has no source", &(sw_batch){.n = n, .n_seqs = 2, .ids = target, .lengths = (int64_t[]){2, 3}, .source_ids = source,
                                                    .source_lengths = two});
    refuses("the lengths of its sources", &(sw_batch){.n = n, .n_seqs = 1, .ids = target, .lengths = &n, .source_ids = source,
                                                      .source_lengths = &(int64_t){-1}});
    refuses("is not below the vocabulary's size", &(sw_batch){.n = n, .n_seqs = 1, .ids = target, .lengths = &n, .source_ids = &(int32_t){9999},
                                                              .source_lengths = &(int64_t){1}});
}

/* What transformers 5.23 generates from the tiny BART of the golden tests, 8 tokens at most. BART ends with 2. */
static const struct {
    const char *generation;
    int32_t tokens[8];
    size_t n;
    sw_finish finish;
} answers[] = {
    {"{}", {0}, 0, SW_FINISH_STOP},
    {"{\"forced_bos_token_id\": 7}", {7, 30, 30, 30, 30, 30, 30, 30}, 8, SW_FINISH_LENGTH},
    {"{\"forced_bos_token_id\": 7, \"forced_eos_token_id\": [2]}", {7, 30, 30, 30, 30, 30, 30}, 7, SW_FINISH_LENGTH},
    {"{\"decoder_start_token_id\": 5}", {5, 5, 5, 5, 5, 5, 5, 5}, 8, SW_FINISH_LENGTH},
    {"{\"decoder_start_token_id\": 5, \"forced_bos_token_id\": 7, \"forced_eos_token_id\": 3}", {7, 30, 30, 30, 30, 30, 30, 3}, 8, SW_FINISH_LENGTH}};

static void forced_tokens_are_generated(void **state)
{
    (void)state;
    static const int32_t prompt[] = {1, 44, 3, 9, 21, 5}, end[] = {2};
    sw_model *bart = sw_model_load("tests/golden/llm/bart", device, &(sw_load_options){.dtype = SW_F32});
    assert_non_null(bart);
    for (size_t i = 0; i < SW_COUNT(answers); i++) {
        sw_generator g;
        cJSON *generation = sw_json_parse(answers[i].generation, strlen(answers[i].generation));
        sw_sequence s = {.prompt = prompt, .n_prompt = SW_COUNT(prompt), .max_tokens = 8, .sampling = sw_sampling_greedy, .stop = end, .n_stop = 1},
                    *all[] = {&s};
        assert_int_equal(sw_generator_init(&g, bart, SW_F32, 1), 0);
        assert_int_equal(sw_generator_configure(&g, NULL, generation), 0);
        assert_int_equal(sw_generate(&g, all, 1, NULL), 0);
        assert_int_equal(s.out.n, answers[i].n);
        for (size_t k = 0; k < s.out.n; k++)
            assert_int_equal(s.out.at[k], answers[i].tokens[k]);
        assert_int_equal(s.finish, answers[i].finish);
        sw_sequence_free(&s);
        if (g.forced_second >= 0) { /* a continuation is scored behind it, whether it says it or not */
            const int32_t rest[] = {1, 44, 3, 9}, whole[] = {1, 44, 3, g.forced_second, 9};
            float logp[5], more[5];
            assert_int_equal(sw_score_tokens(&g, rest, 4, 3, logp, NULL), 0);
            assert_int_equal(sw_score_tokens(&g, whole, 5, 3, more, NULL), 0);
            near(logp + 3, more + 4, 1);
        }
        sw_generator_free(&g);
        cJSON_Delete(generation);
    }
    static const char *const wrong[] = {"{\"forced_bos_token_id\": 48}", "{\"forced_eos_token_id\": [1, 2]}", "{\"decoder_start_token_id\": \"x\"}"};
    for (size_t i = 0; i < SW_COUNT(wrong); i++) {
        sw_generator g = {.model = bart};
        cJSON *generation = sw_json_parse(wrong[i], strlen(wrong[i]));
        assert_int_not_equal(sw_generator_configure(&g, NULL, generation), 0);
        assert_non_null(strstr(sw_error(), "the id of one token is needed, from 0 to 47"));
        cJSON_Delete(generation);
    }
    sw_model_free(bart);
}

static void spec_refuses(const char *what, const char *fields)
{
    sw_buf text = {0};
    sw_buf_printf(&text, "{\"architectures\": [\"T5ForConditionalGeneration\"], \"vocab_size\": 48, \"d_model\": 24, \"num_layers\": 2, \"num_heads\": 4, "
                         "\"d_kv\": 4, \"d_ff\": 8%s}", fields);
    cJSON *config = sw_json_parse(text.at, text.n);
    sw_spec s;
    int rc = sw_spec_from_config(&s, config, "config.json");
    if (!rc)
        sw_spec_free(&s);
    if (what ? !rc || !strstr(sw_error(), what) : rc)
        fail_msg("'%s', expected: %s", rc ? sw_error() : "taken", what ? what : "taken");
    cJSON_Delete(config);
    sw_buf_free(&text);
}

static void configurations_that_contradict_themselves_are_refused(void **state)
{
    (void)state;
    spec_refuses(NULL, "");
    spec_refuses("\"relative_attention_max_distance\": 16 is not more than half", ", \"relative_attention_max_distance\": 16");
    spec_refuses("\"relative_attention_num_buckets\"", ", \"relative_attention_num_buckets\": 2");
    spec_refuses("\"decoder_start_token_id\": 48 is not below", ", \"decoder_start_token_id\": 48");
    spec_refuses("\"is_decoder\": must be false", ", \"is_decoder\": true");
    spec_refuses("'gelu_newer' is not known", ", \"feed_forward_proj\": \"gated-gelu_newer\"");
    spec_refuses("\"num_decoder_layers\"", ", \"num_decoder_layers\": 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_sequence_reads_its_own_source), cmocka_unit_test(only_the_decoder_is_causal),
        cmocka_unit_test(a_cache_keeps_sources_as_it_grows_and_copies), cmocka_unit_test(what_cannot_be_read_is_refused),
        cmocka_unit_test(forced_tokens_are_generated),
        cmocka_unit_test(configurations_that_contradict_themselves_are_refused)};
    device = sw_device_open("cpu");
    model = device ? sw_model_load("tests/golden/llm/mt5", device, &(sw_load_options){.dtype = SW_F32}) : NULL;
    if (!model || sw_ctx_init(&ctx, device, SW_F32)) {
        fprintf(stderr, "test_seq2seq: %s\n", sw_error());
        return 1;
    }
    int rc = cmocka_run_group_tests_name("seq2seq", tests, NULL, NULL);
    sw_ctx_free(&ctx);
    sw_model_free(model);
    device->close(device);
    return rc;
}
