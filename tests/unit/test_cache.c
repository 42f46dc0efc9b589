/* The cache of what generated sequences remember: the pages they take, share and give back, and that nothing of it shows in
 * what is computed. */
#include "base/memory.h"
#include "model/generate.h"
#include "tests/unit/logits.h"

#include <stdlib.h>
#include <string.h>

static sw_device *device;
static sw_model *model;
static sw_ctx ctx;
static sw_cache cache;
static int32_t text[512];

static void open_model(const char *name, int64_t slots)
{
    char path[128];
    snprintf(path, sizeof path, "tests/golden/llm/%s", name);
    device = sw_device_open("cpu");
    assert_non_null(device);
    model = sw_model_load(path, device, &(sw_load_options){.dtype = SW_F32});
    ok(!model);
    ok(sw_ctx_init(&ctx, device, SW_F32) || sw_cache_init(&cache, &ctx, model, slots));
    for (int i = 0; i < (int)SW_COUNT(text); i++)
        text[i] = (int32_t)((i * 37 + 11) % model->spec.vocab);
}

static void close_model(void)
{
    sw_cache_free(&cache, model);
    sw_ctx_free(&ctx);
    sw_model_free(model);
    device->close(device);
}

/* Logits of the batch's tokens; free them. */
static float *run(const sw_batch *b)
{
    float *y = SW_NEW_ARRAY(float, (size_t)(b->n * model->spec.vocab));
    logits_of(&ctx, model, b, y);
    return y;
}

/* Tokens [from, from + n) of the text into a slot; the logits of the last. */
static float *feed(int64_t slot, int64_t from, int64_t n)
{
    int64_t v = model->spec.vocab;
    float *y = run(&(sw_batch){.n = n, .n_seqs = 1, .ids = text + from, .lengths = &n, .cache = &cache, .slots = &slot});
    memmove(y, y + (n - 1) * v, (size_t)v * sizeof *y);
    return y;
}

static void assert_near(const float *want, const float *got) { assert_true(apart(want, got, model->spec.vocab) <= 2e-5); }

/* What the last of the first n tokens gives without a cache. */
static void assert_is_text(const float *got, int64_t n)
{
    float *all = run(&(sw_batch){.n = n, .n_seqs = 1, .ids = text, .lengths = &n});
    assert_near(all + (n - 1) * model->spec.vocab, got);
    free(all);
}

static void pages_are_of_what_is_there(void **state)
{
    (void)state;
    open_model("llama", 3);
    free(feed(0, 0, 10));
    free(feed(1, 0, 64));
    assert_int_equal(sw_cache_pages(&cache), 2);
    free(feed(2, 0, 200));
    assert_int_equal(sw_cache_pages(&cache), 1 + 1 + 4);
    free(feed(1, 64, 1));
    assert_int_equal(sw_cache_pages(&cache), 1 + 2 + 4);
    sw_cache_clear_slot(&cache, 2);
    assert_int_equal(sw_cache_pages(&cache), 1 + 2);
    int64_t made = cache.pages[SW_PAGES_TOKENS].made;
    for (int64_t i = 0; i < 150; i += 50) { /* those that were given back, in pieces that do not fit pages */
        float *y = feed(2, i, 50);
        assert_is_text(y, i + 50);
        free(y);
    }
    assert_int_equal(cache.pages[SW_PAGES_TOKENS].made, made);
    int64_t lengths[] = {1, 1, 1};
    int32_t ids[] = {text[10], text[65], text[150]};
    float *y = run(&(sw_batch){.n = 3, .n_seqs = 3, .ids = ids, .lengths = lengths, .cache = &cache, .slots = (int64_t[]){0, 1, 2}});
    assert_is_text(y, 11);
    assert_is_text(y + model->spec.vocab, 66);
    assert_is_text(y + 2 * model->spec.vocab, 151);
    free(y);
    close_model();
}

/* Copies of a prompt of two pages and a half share the two, and each has the half once it goes on by itself. */
static void copies_share_pages(void **state)
{
    (void)state;
    enum { PROMPT = 160, COPIES = 4 };
    open_model("llama", COPIES);
    free(feed(0, 0, PROMPT));
    for (int64_t slot = 1; slot < COPIES; slot++)
        ok(sw_cache_copy_slot(&cache, model, slot, 0));
    assert_int_equal(sw_cache_pages(&cache), 3);
    int32_t ids[COPIES], other[PROMPT + 2];
    int64_t lengths[COPIES], slots[COPIES], v = model->spec.vocab;
    for (int step = 0; step < 2; step++) {
        for (int k = 0; k < COPIES; k++) {
            ids[k] = (int32_t)((5 * k + step + 1) % v);
            lengths[k] = 1;
            slots[k] = k;
        }
        float *y = run(&(sw_batch){.n = COPIES, .n_seqs = COPIES, .ids = ids, .lengths = lengths, .cache = &cache, .slots = slots});
        assert_int_equal(sw_cache_pages(&cache), 2 + COPIES);
        for (int64_t k = 0; k < COPIES; k++) {
            int64_t n = PROMPT + 1 + step;
            memcpy(other, text, PROMPT * sizeof *other);
            for (int i = 0; i <= step; i++)
                other[PROMPT + i] = (int32_t)((5 * k + i + 1) % v);
            float *want = run(&(sw_batch){.n = n, .n_seqs = 1, .ids = other, .lengths = &n});
            assert_near(want + (n - 1) * v, y + k * v);
            free(want);
        }
        free(y);
    }
    for (int64_t slot = 0; slot < COPIES - 1; slot++)
        sw_cache_clear_slot(&cache, slot);
    assert_int_equal(sw_cache_pages(&cache), 3); /* the last has all by itself */
    close_model();
}

/* A slot that goes back to an earlier place writes nothing that others see. */
static void going_back_parts_pages(void **state)
{
    (void)state;
    open_model("llama", 2);
    free(feed(0, 0, 130));
    ok(sw_cache_copy_slot(&cache, model, 1, 0));
    cache.length[1] = 20;
    free(feed(1, 200, 60));
    float *y = feed(0, 130, 1);
    assert_is_text(y, 131);
    free(y);
    close_model();
}

/* Where all layers see a window, pages in front of it are given back. */
static void windows_give_pages_back(void **state)
{
    (void)state;
    open_model("mistral", 1);
    assert_in_range(cache.window, 2, 64);
    for (int64_t i = 0; i < 400; i += 16) {
        float *y = feed(0, i, 16);
        assert_in_range(sw_cache_pages(&cache), 1, 3);
        assert_is_text(y, i + 16);
        free(y);
    }
    close_model();
    open_model("gpt_oss", 1); /* every other layer sees all */
    assert_int_equal(cache.window, 0);
    close_model();
}

/* A device without addresses that take memory as it is written copies what is there. */
static void growing_by_copying_keeps_all(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        open_model(i ? "deepseek_v2" : "qwen3", 2);
        device->reserve = NULL;
        for (int64_t n = 0; n < 300; n += 60) {
            free(feed(1, n, 60));
            float *y = feed(0, n, 60);
            assert_is_text(y, n + 60);
            free(y);
        }
        close_model();
    }
}

/* Samples of one prompt read it once, answer as they do alone, and need its memory once. */
static int64_t most_pages;
static sw_generator generator;
static int count_pages(sw_sequence *s, int32_t id)
{
    (void)s, (void)id;
    most_pages = SW_MAX(most_pages, sw_cache_pages(&generator.cache));
    return 0;
}

static void samples_share_their_prompt(void **state)
{
    (void)state;
    enum { SAMPLES = 7, SLOTS = 3, PROMPT = 300, NEW = 9 };
    static const char *const names[] = {"llama", "bamba", "mt5", "deepseek_v4"}; /* bamba has states by slot too, mt5 reads the prompt by an encoder */
    for (size_t i = 0; i < SW_COUNT(names); i++) {
        open_model(names[i], 1);
        sw_sequence s[SAMPLES + 1] = {{0}}, *at[SAMPLES + 1], alone = {0}, *one = &alone;
        ok(sw_generator_init(&generator, model, SW_F32, SLOTS));
        for (int k = 0; k <= SAMPLES; k++) {
            sw_sampling how = sw_sampling_greedy;
            how.temperature = 1.3;
            how.repetition_penalty = 1.2;
            s[k] = (sw_sequence){.prompt = text + (k == SAMPLES), .n_prompt = PROMPT, .max_tokens = NEW - k % 3, .sampling = how, .stream = (uint32_t)k,
                                 .want_logprobs = true, .on_token = count_pages};
            at[k] = &s[k];
        }
        most_pages = 0;
        ok(sw_generate(&generator, at, SAMPLES + 1, NULL));
        if (i == 0)
            assert_in_range(most_pages, 5 + SLOTS, 5 + SLOTS + 5); /* the other prompt may be read while samples are written */
        assert_int_equal(sw_cache_pages(&generator.cache), 0);
        for (int k = 0; k <= SAMPLES; k++) {
            alone = s[k];
            memset(&alone.out, 0, sizeof alone.out);
            memset(&alone.logprobs, 0, sizeof alone.logprobs);
            ok(sw_generate(&generator, &one, 1, NULL));
            assert_int_equal(s[k].out.n, alone.out.n);
            assert_memory_equal(s[k].out.at, alone.out.at, alone.out.n * sizeof *alone.out.at);
            for (size_t t = 0; t < alone.out.n; t++)
                assert_true(fabs(s[k].logprobs.at[t] - alone.logprobs.at[t]) < 1e-4);
            assert_true(s[k].first_token_at > 0 && s[k].done_at >= s[k].first_token_at);
            sw_sequence_free(&alone);
        }
        assert_memory_not_equal(s[0].out.at, s[1].out.at, 6 * sizeof(int32_t));
        for (int k = 0; k <= SAMPLES; k++)
            sw_sequence_free(&s[k]);
        sw_generator_free(&generator);
        close_model();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pages_are_of_what_is_there), cmocka_unit_test(copies_share_pages),
                                       cmocka_unit_test(going_back_parts_pages),     cmocka_unit_test(windows_give_pages_back),
                                       cmocka_unit_test(growing_by_copying_keeps_all), cmocka_unit_test(samples_share_their_prompt)};
    return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
