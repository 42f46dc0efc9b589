/* Duplicates in bounded memory, and lengths of many records. */
#include "base/json.h"
#include "base/memory.h"
#include "base/philox.h"
#include "data/dedup.h"
#include "data/lengths.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* 200 words, of which a share are others than those of `base`. */
static void text_of(sw_buf *b, uint64_t base, uint64_t other, double share)
{
    sw_rng words = {base, 0, 1}, which = {base * 1000003 + other, 0, 2}, new = {other, 1, 3};
    sw_buf_clear(b);
    for (uint64_t i = 0; i < 200; i++) {
        bool changed = sw_rng_uniform(&which, i) < share;
        sw_buf_printf(b, "w%u ", sw_rng_u32(changed ? &new : &words, i) % 5000);
    }
}

static sw_print print_of(const sw_buf *b, uint64_t kind)
{
    sw_print p = {0};
    sw_print_text(&p, b->at, b->n, kind);
    sw_print_exact(&p, b->at, b->n);
    return p;
}

/* How many of 300 texts with this share of other words are found to be like the first. */
static int found(double share, double threshold)
{
    sw_buf b = {0};
    int n = 0;
    for (uint64_t i = 0; i < 300; i++) {
        sw_dedup *d = sw_dedup_new(true, threshold, 1 << 20);
        text_of(&b, i, 0, 0);
        sw_print p = print_of(&b, 0);
        assert_false(sw_dedup_seen(d, &p));
        text_of(&b, i, i + 1, share);
        p = print_of(&b, 0);
        n += sw_dedup_seen(d, &p);
        sw_dedup_free(d);
    }
    sw_buf_free(&b);
    return n;
}

static void near(void **state)
{
    (void)state;
    /* a share e of other words leaves (1-e)^5 of the runs of five: similarity s = k / (2 - k) */
    assert_true(found(0.005, 0.8) >= 297);       /* 0.95 */
    assert_in_range(found(0.02, 0.7), 240, 297); /* 0.82 on average: 92 to 97 in a hundred share a band */
    assert_true(found(0.10, 0.8) <= 6);          /* 0.42 */
    assert_int_equal(found(1, 0.5), 0);
    sw_buf b = {0};
    sw_dedup *d = sw_dedup_new(true, 0.8, 1 << 20);
    sw_buf_puts(&b, "Hello,  World! again and again");
    sw_print p = print_of(&b, 0);
    assert_false(sw_dedup_seen(d, &p));
    assert_true(sw_dedup_seen(d, &p));
    sw_buf_clear(&b);
    sw_buf_puts(&b, "hello world -- again and again.");
    p = print_of(&b, 0);
    assert_true(sw_dedup_seen(d, &p));
    p = print_of(&b, 1);
    assert_false(sw_dedup_seen(d, &p)); /* of another kind */
    const char *others[] = {"hello", "!", "?!", "", "你好世界", "你好朋友们", "hello world again and more"};
    for (size_t i = 0; i < SW_COUNT(others); i++) {
        p = (sw_print){0};
        sw_print_text(&p, others[i], strlen(others[i]), 0);
        sw_print_exact(&p, others[i], strlen(others[i]));
        assert_false(sw_dedup_seen(d, &p));
        assert_true(sw_dedup_seen(d, &p));
    }
    sw_dedup_free(d);
    sw_buf_free(&b);
}

static void exact(void **state)
{
    (void)state;
    sw_dedup *d = sw_dedup_new(false, 0, 64 << 20);
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < 200000; i++) {
            sw_print p = {0};
            sw_print_exact(&p, &i, sizeof i);
            assert_int_equal(sw_dedup_seen(d, &p), pass);
        }
    assert_int_equal(sw_dedup_forgotten(d), 0);
    sw_dedup_free(d);
}

/* An endless stream: the latest records are known, the memory stays what it was. */
static void full(void **state)
{
    (void)state;
    for (int near = 0; near < 2; near++) {
        sw_dedup *d = sw_dedup_new(near, 0.8, 1 << 20);
        size_t rss = 0;
        for (int i = 0; i < 300000; i++) {
            sw_print p = {0};
            char text[40];
            int n = snprintf(text, sizeof text, "%d %d %d", i, i * 7, i * 13);
            sw_print_exact(&p, text, (size_t)n);
            if (near)
                sw_print_text(&p, text, (size_t)n, 0);
            assert_false(sw_dedup_seen(d, &p));
            assert_true(sw_dedup_seen(d, &p));
            if (i == 100000)
                rss = sw_current_rss();
        }
        assert_true(sw_dedup_forgotten(d) > 100000);
        assert_true(sw_current_rss() < rss + (2 << 20));
        sw_dedup_free(d);
    }
}

static int by_size(const void *a, const void *b) { return *(const int64_t *)a > *(const int64_t *)b ? 1 : -1; }

static void lengths(void **state)
{
    (void)state;
    enum { N = 20000 };
    static int64_t all[N];
    sw_lengths *l = SW_NEW(sw_lengths);
    sw_rng rng = {1, 0, 0};
    double sum = 0;
    for (int i = 0; i < N; i++) {
        all[i] = (int64_t)exp(5 + 1.5 * sw_rng_normal(&rng, (uint64_t)i));
        sw_lengths_add(l, all[i]);
        sum += (double)all[i];
    }
    qsort(all, N, sizeof *all, by_size);
    assert_true(l->sum == sum && l->min == all[0] && l->max == all[N - 1]);
    for (double q = 0.01; q < 1; q += 0.01) {
        double want = (double)all[(int)ceil(q * N) - 1], got = (double)sw_lengths_quantile(l, q);
        assert_true(got >= want && got <= want * (1 + 1 / 32.0));
    }
    cJSON *o = sw_lengths_json(l, 40);
    double counted = 0, end = -1;
    const cJSON *bar;
    cJSON_ArrayForEach(bar, sw_json_get(o, "histogram"))
    {
        assert_true(bar->child->valuedouble > end);
        end = bar->child->next->valuedouble;
        counted += bar->child->next->next->valuedouble;
    }
    assert_true(counted == N && end >= (double)l->max);
    cJSON_Delete(o);
    *l = (sw_lengths){0};
    sw_lengths_add(l, INT64_MAX);
    sw_lengths_add(l, 0);
    assert_int_equal(sw_lengths_quantile(l, 0.5), 0);
    assert_true(sw_lengths_quantile(l, 1) == INT64_MAX);
    free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(near), cmocka_unit_test(exact), cmocka_unit_test(full),
                                       cmocka_unit_test(lengths)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
