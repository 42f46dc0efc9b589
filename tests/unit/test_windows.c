/* Rows that windows of tokens are compressed into (DeepSeek 4): what is read in parts, in slots beside other texts, sees
 * what a text that is read at once sees; also where an indexer chooses among the rows, and a table the experts. */
#include "base/json.h"
#include "base/memory.h"
#include "model/cache.h"
#include "model/model.h"
#include "store/checkpoint.h"
#include "tests/unit/folder.h"
#include "tests/unit/logits.h"

#include <stdlib.h>
#include <string.h>

#define FOLDER "tests/golden/llm/deepseek_v4"

enum { TEXTS = 3, LONGEST = 41 };
static const int64_t lengths[TEXTS] = {LONGEST, 17, 30};
static int32_t texts[TEXTS][LONGEST];

static void copy(const char *name)
{
    sw_buf bytes = {0};
    char *from = sw_path_join(FOLDER, name);
    ok(sw_read_file(from, &bytes) || sw_write_file(in(name), bytes.at, bytes.n));
    sw_buf_free(&bytes);
    free(from);
}

/* The model, where an indexer keeps `topk` rows. */
static sw_model *opened(sw_device *d, int topk)
{
    cJSON *config = sw_json_load(FOLDER "/config.json");
    assert_true(config && d);
    cJSON_ReplaceItemInObjectCaseSensitive(config, "index_topk", cJSON_CreateNumber(topk));
    char *text = cJSON_Print(config);
    ok(sw_write_file(in("topk.json"), text, strlen(text)));
    sw_model *m = sw_model_load_config(FOLDER, in("topk.json"), d, &(sw_load_options){.dtype = SW_F32});
    free(text);
    cJSON_Delete(config);
    if (!m)
        fail_msg("%s", sw_error());
    for (int i = 0; i < TEXTS; i++)
        for (int k = 0; k < LONGEST; k++)
            texts[i][k] = (int32_t)((k * k * 5 + i * 31 + k * 7 + 11) % m->spec.vocab);
    return m;
}

/* One part of each text after the other, of at most `part` tokens, all texts in the same batches.
 * Logits of text i to y[i]. */
static void in_parts(sw_model *m, sw_cache *cache, sw_ctx *c, const int64_t part[TEXTS], int64_t until, float *y[TEXTS])
{
    int64_t v = m->spec.vocab;
    float *all = SW_NEW_ARRAY(float, (size_t)(TEXTS * LONGEST * v));
    for (bool more = true; more;) {
        int32_t ids[TEXTS * LONGEST];
        int64_t each[TEXTS], slots[TEXTS] = {2, 0, 1}, before[TEXTS], n = 0;
        more = false;
        for (int i = 0; i < TEXTS; i++) {
            before[i] = cache->length[slots[i]];
            each[i] = SW_MAX(SW_MIN(part[i], SW_MIN(lengths[i], until) - before[i]), 0);
            memcpy(ids + n, texts[i] + before[i], (size_t)each[i] * sizeof *ids);
            n += each[i];
        }
        if (!n)
            break;
        more = true;
        logits_of(c, m, &(sw_batch){.n = n, .n_seqs = TEXTS, .ids = ids, .lengths = each, .cache = cache, .slots = slots}, all);
        for (int64_t i = 0, at = 0; i < TEXTS; at += each[i++])
            memcpy(y[i] + before[i] * v, all + at * v, (size_t)(each[i] * v) * sizeof *all);
    }
    free(all);
}

static void allocate(float *y[TEXTS], int64_t v)
{
    for (int i = 0; i < TEXTS; i++)
        y[i] = SW_NEW_ARRAY(float, (size_t)(LONGEST * v));
}

static void release(float *y[TEXTS])
{
    for (int i = 0; i < TEXTS; i++)
        free(y[i]);
}

/* Every text at once without a cache; then in parts, whose ends fall inside of windows, on their last tokens and behind them. */
static void parts(void **state)
{
    (void)state;
    static const int64_t plans[][TEXTS] = {{LONGEST, LONGEST, LONGEST}, {1, 1, 1}, {5, 2, 1}, {4, 9, 3}, {1, 7, 12}};
    sw_device *d = sw_device_open("cpu");
    sw_model *m = opened(d, 64);
    int64_t v = m->spec.vocab;
    float *want[TEXTS], *got[TEXTS];
    sw_ctx c = {0};
    allocate(want, v);
    allocate(got, v);
    ok(sw_ctx_init(&c, d, SW_F32));
    for (int i = 0; i < TEXTS; i++)
        logits_of(&c, m, &(sw_batch){.n = lengths[i], .n_seqs = 1, .ids = texts[i], .lengths = &lengths[i]}, want[i]);
    for (size_t k = 0; k < SW_COUNT(plans); k++) {
        sw_cache cache;
        ok(sw_cache_init(&cache, &c, m, TEXTS + 1));
        in_parts(m, &cache, &c, plans[k], LONGEST, got);
        for (int i = 0; i < TEXTS; i++)
            if (!(apart(want[i], got[i], lengths[i] * v) < 2e-5))
                fail_msg("plan %d, text %d differs by %g", (int)k, i, apart(want[i], got[i], lengths[i] * v));
        sw_cache_free(&cache, m);
    }
    release(want);
    release(got);
    sw_ctx_free(&c);
    sw_model_free(m);
    d->close(d);
}

/* A slot that begins as a copy of another goes on as that does. */
static void copies(void **state)
{
    (void)state;
    sw_device *d = sw_device_open("cpu");
    sw_model *m = opened(d, 64);
    int64_t v = m->spec.vocab, rest = 13;
    float *y[TEXTS], *a = SW_NEW_ARRAY(float, (size_t)(rest * v)), *b = SW_NEW_ARRAY(float, (size_t)(rest * v));
    sw_ctx c = {0};
    sw_cache cache;
    allocate(y, v);
    ok(sw_ctx_init(&c, d, SW_F32) || sw_cache_init(&cache, &c, m, TEXTS + 1));
    in_parts(m, &cache, &c, (int64_t[]){6, 6, 6}, LONGEST - rest, y);
    ok(sw_cache_copy_slot(&cache, m, 3, 2));
    logits_of(&c, m,
        &(sw_batch){
            .n = rest, .n_seqs = 1, .ids = texts[0] + LONGEST - rest, .lengths = &rest, .cache = &cache, .slots = &(int64_t){2}},
        a);
    for (int64_t i = 0; i < rest; i++)
        logits_of(&c, m,
            &(sw_batch){.n = 1,
                        .n_seqs = 1,
                        .ids = texts[0] + LONGEST - rest + i,
                        .lengths = &(int64_t){1},
                        .cache = &cache,
                        .slots = &(int64_t){3}},
            b + i * v);
    assert_true(apart(a, b, rest * v) < 2e-5);
    release(y);
    free(a);
    free(b);
    sw_cache_free(&cache, m);
    sw_ctx_free(&c);
    sw_model_free(m);
    d->close(d);
}

/* One token of each text reads the rows that were chosen alone; beside longer parts all are read and the others left out.
 * (Which of equal scores win depends on how many there are, so both go token by token.) */
static void chosen(void **state)
{
    (void)state;
    sw_device *d = sw_device_open("cpu");
    sw_model *m = opened(d, 3), *all = opened(d, 64);
    int64_t v = m->spec.vocab;
    float *want[TEXTS], *got[TEXTS], *more[TEXTS];
    sw_ctx c = {0};
    ok(sw_ctx_init(&c, d, SW_F32));
    allocate(want, v);
    allocate(got, v);
    allocate(more, v);
    for (int k = 0; k < 3; k++) {
        sw_cache cache;
        ok(sw_cache_init(&cache, &c, k == 2 ? all : m, TEXTS));
        in_parts(k == 2 ? all : m, &cache, &c, (int64_t[]){1, k == 1 ? 2 : 1, 1}, LONGEST, k == 0 ? want : k == 1 ? got : more);
        sw_cache_free(&cache, m);
    }
    assert_true(apart(want[0], got[0], lengths[0] * v) < 2e-5);
    assert_true(apart(want[2], got[2], lengths[2] * v) < 2e-5);
    assert_true(apart(want[0], more[0], lengths[0] * v) > 1e-3);
    release(want);
    release(got);
    release(more);
    sw_ctx_free(&c);
    sw_model_free(m);
    sw_model_free(all);
    d->close(d);
}

/* A text of several pages of rows, in a cache that moves as it grows: of the tokens only those in the window stay, and rows take
 * one page for 64 of them. One token sees the same alone, where it reads what it has chosen, and beside a longer part, where all is
 * read and the rest left out. */
static void pages(void **state)
{
    (void)state;
    enum { LENGTH = 400, PART = 37, WINDOW = 5, SPARSE = 2, HEAVY = 5 };
    int32_t ids[LENGTH];
    sw_device *d = sw_device_open("cpu");
    for (int keep = 3; keep <= LENGTH; keep += LENGTH - 3) {
        sw_model *m = opened(d, keep);
        int64_t v = m->spec.vocab, n = LENGTH, one = 1;
        float *want = SW_NEW_ARRAY(float, (size_t)(LENGTH * v)), *got = SW_NEW_ARRAY(float, (size_t)(PART * v)), *alone = got + v;
        sw_ctx c = {0};
        sw_cache cache;
        for (int i = 0; i < LENGTH; i++)
            ids[i] = (int32_t)((i * i * 5 + i * 7 + 11) % v);
        d->reserve = NULL;
        ok(sw_ctx_init(&c, d, SW_F32) || sw_cache_init(&cache, &c, m, 3));
        assert_int_equal(cache.window, WINDOW);
        logits_of(&c, m, &(sw_batch){.n = LENGTH, .n_seqs = 1, .ids = ids, .lengths = &n}, want);
        for (int64_t at = 0; at < LENGTH - 1; at += n) {
            n = SW_MIN(PART, LENGTH - 1 - at);
            logits_of(&c, m, &(sw_batch){.n = n, .n_seqs = 1, .ids = ids + at, .lengths = &n, .cache = &cache, .slots = &(int64_t){1}}, got);
            int64_t rows = (at + n + SPARSE - 1) / SPARSE, heavy = (at + n + HEAVY - 1) / HEAVY;
            int64_t tokens = (at + n + SW_PAGE - 1) / SW_PAGE - SW_MAX(at - WINDOW + 1, 0) / SW_PAGE;
            assert_int_equal(sw_cache_pages(&cache), tokens + (rows + SW_PAGE - 1) / SW_PAGE + (heavy + SW_PAGE - 1) / SW_PAGE);
            if (keep == LENGTH)
                assert_true(apart(want + at * v, got, n * v) < 2e-5);
        }
        ok(sw_cache_copy_slot(&cache, m, 0, 1));
        logits_of(&c, m, &(sw_batch){.n = 3, .n_seqs = 2, .ids = (int32_t[]){ids[LENGTH - 1], 3, 4}, .lengths = (int64_t[]){1, 2}, .cache = &cache,
                                     .slots = (int64_t[]){1, 2}}, got);
        logits_of(&c, m, &(sw_batch){.n = 1, .n_seqs = 1, .ids = ids + LENGTH - 1, .lengths = &one, .cache = &cache, .slots = &(int64_t){0}}, alone);
        assert_true(apart(got, alone, v) < 2e-5);
        assert_true(keep < LENGTH || apart(want + (LENGTH - 1) * v, alone, v) < 2e-5);
        free(want);
        free(got);
        sw_cache_free(&cache, m);
        sw_ctx_free(&c);
        sw_model_free(m);
    }
    d->close(d);
}

/* The name that the published files have for what transformers calls `name`. */
static char *published(const char *name)
{
    static const char *const rules[][2] = {{"model.", ""}, {"embed_tokens", "embed"}, {".attn.norm.", ".attn.kv_norm."}, {"hc_head.hc_", "hc_head_"}};
    char *out = sw_strdup(name);
    for (size_t i = 0; i < SW_COUNT(rules); i++) {
        const char *at = strstr(out, rules[i][0]);
        char *next = at ? sw_strfmt("%.*s%s%s", (int)(at - out), out, rules[i][1], at + strlen(rules[i][0])) : sw_strdup(out);
        free(out);
        out = next;
    }
    return out;
}

/* The same weights under the names of the published files give the same. */
static void names(void **state)
{
    (void)state;
    sw_device *d = sw_device_open("cpu");
    sw_checkpoint *k = sw_checkpoint_open(FOLDER);
    assert_non_null(k);
    size_t n = sw_checkpoint_count(k);
    sw_entry *list = SW_NEW_ARRAY(sw_entry, n);
    for (size_t i = 0; i < n; i++) {
        list[i] = *sw_checkpoint_at(k, i);
        list[i].name = published(list[i].name);
    }
    copy("config.json");
    ok(sw_st_save(in("model.safetensors"), list, n, NULL));
    const char *const folders[] = {FOLDER, dir};
    float *y[2];
    for (int i = 0; i < 2; i++) {
        sw_model *m = sw_model_load(folders[i], d, &(sw_load_options){.dtype = SW_F32});
        sw_ctx c = {0};
        if (!m)
            fail_msg("%s", sw_error());
        assert_string_equal(m->blocks[1].name, i ? "layers.1" : "model.layers.1");
        y[i] = SW_NEW_ARRAY(float, (size_t)(LONGEST * m->spec.vocab));
        ok(sw_ctx_init(&c, d, SW_F32));
        logits_of(&c, m, &(sw_batch){.n = lengths[0], .n_seqs = 1, .ids = texts[0], .lengths = &lengths[0]}, y[i]);
        if (i)
            assert_memory_equal(y[0], y[1], (size_t)(LONGEST * m->spec.vocab) * sizeof(float));
        sw_ctx_free(&c);
        sw_model_free(m);
    }
    for (size_t i = 0; i < n; i++)
        free(list[i].name);
    free(list);
    free(y[0]);
    free(y[1]);
    sw_checkpoint_close(k);
    d->close(d);
}

/* A table that names an expert that there is not. */
static void table(void **state)
{
    (void)state;
    sw_device *d = sw_device_open("cpu");
    copy("config.json");
    copy("model.safetensors");
    sw_checkpoint *k = sw_checkpoint_open(dir);
    const sw_entry *e = k ? sw_checkpoint_find(k, "model.layers.0.ffn.gate.tid2eid") : NULL;
    assert_non_null(e);
    const char *start = NULL;
    sw_buf bytes = {0};
    ok(sw_read_file(in("model.safetensors"), &bytes));
    for (size_t i = 0; i + sw_tensor_bytes(&e->t) <= bytes.n && !start; i++)
        if (!memcmp(bytes.at + i, e->t.data, sw_tensor_bytes(&e->t)))
            start = bytes.at + i;
    assert_non_null(start);
    ((int64_t *)(uintptr_t)start)[5] = 4;
    sw_checkpoint_close(k);
    ok(sw_write_file(in("model.safetensors"), bytes.at, bytes.n));
    assert_null(sw_model_load(dir, d, &(sw_load_options){.dtype = SW_F32}));
    assert_non_null(strstr(sw_error(), "tid2eid: value 5 is 4, which is not between 0 and 3"));
    sw_buf_free(&bytes);
    d->close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(parts), cmocka_unit_test(copies), cmocka_unit_test(chosen), cmocka_unit_test(pages), cmocka_unit_test(names),
                                       cmocka_unit_test(table)};
    return cmocka_run_group_tests(tests, sw_folder_make, sw_folder_remove);
}
