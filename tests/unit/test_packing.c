/* Packing: every document once, never more than the capacity, order inside a pack kept, well filled, repeatable. */
#include "data/packing.h"

#include "base/memory.h"
#include "base/philox.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { DOCUMENTS = 20000, CAPACITY = 1000 };

typedef struct seen {
    size_t lengths[DOCUMENTS];
    uint8_t times[DOCUMENTS];
    uint64_t hash;
    size_t capacity, packs, fail_at;
    bool overfull, unordered;
} seen;

static int sink(void *context, void *const *items, size_t n)
{
    seen *s = context;
    size_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        size_t d = (size_t)(uintptr_t)items[i] - 1;
        s->times[d]++;
        s->unordered |= i && (uintptr_t)items[i] <= (uintptr_t)items[i - 1];
        sum += s->lengths[d];
        s->hash = s->hash * 1099511628211u + d;
    }
    s->overfull |= sum > s->capacity;
    s->hash = s->hash * 31 + n;
    return ++s->packs == s->fail_at ? sw_fail("full disk") : 0;
}

static double pack(seen *s, size_t n, size_t shortest, size_t longest, size_t window)
{
    s->capacity = CAPACITY;
    sw_packer *p = sw_packer_new(CAPACITY, window, sink, s);
    sw_rng rng = {5, 0, 0};
    for (size_t i = 0; i < n; i++) {
        s->lengths[i] = shortest + sw_rng_below(&rng, i, longest - shortest + 1);
        assert_int_equal(sw_packer_add(p, s->lengths[i], (void *)(uintptr_t)(i + 1)), 0);
    }
    assert_int_equal(sw_packer_flush(p), 0);
    double fill = sw_packer_fill(p);
    assert_int_equal(sw_packer_packs(p), s->packs);
    sw_packer_free(p, NULL);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(s->times[i], 1);
    assert_false(s->overfull);
    assert_false(s->unordered);
    return fill;
}

static void packs_everything_well(void **state)
{
    (void)state;
    static const struct {
        size_t n, shortest, longest, window;
        double fill;
    } cases[] = {{DOCUMENTS, 1, 300, 1024, 0.99},
                 {DOCUMENTS, 1, CAPACITY, 1024, 0.97},
                 {DOCUMENTS, 100, 500, 256, 0.97},
                 {100, CAPACITY, CAPACITY, 10, 1},
                 {1, 5, 5, 10, 0.005},
                 {500, 1, CAPACITY, 1, 0.45}};
    for (size_t c = 0; c < SW_COUNT(cases); c++) {
        seen *s = SW_NEW(seen), *again = SW_NEW(seen);
        double fill = pack(s, cases[c].n, cases[c].shortest, cases[c].longest, cases[c].window);
        if (fill < cases[c].fill - 1e-12)
            fail_msg("case %zu: filled %.4f, %.4f is wanted", c, fill, cases[c].fill);
        pack(again, cases[c].n, cases[c].shortest, cases[c].longest, cases[c].window);
        assert_int_equal(s->hash, again->hash);
        free(s);
        free(again);
    }
}

static void refuses_what_does_not_fit(void **state)
{
    (void)state;
    seen *s = SW_NEW(seen);
    sw_packer *p = sw_packer_new(CAPACITY, 10, sink, s);
    assert_int_equal(sw_packer_add(p, CAPACITY + 1, s), -1);
    assert_int_equal(sw_packer_add(p, 0, s), -1);
    assert_true(sw_packer_fill(p) == 1);
    sw_packer_free(p, NULL);
    free(s);
}

static int dropped;
static void drop(void *item)
{
    (void)item;
    dropped++;
}

static void failure_loses_nothing(void **state)
{
    (void)state;
    seen *s = SW_NEW(seen);
    s->capacity = CAPACITY;
    s->fail_at = 3;
    sw_packer *p = sw_packer_new(CAPACITY, 100, sink, s);
    int rc = 0, n = 0, times = 0;
    while (!rc) {
        s->lengths[n] = 400;
        rc = sw_packer_add(p, 400, (void *)(uintptr_t)(n + 1));
        n++;
    }
    dropped = 0;
    sw_packer_free(p, drop);
    for (int i = 0; i < n; i++)
        times += s->times[i];
    assert_int_equal(times + dropped, n); /* each document is either the sink's or dropped */
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(packs_everything_well),
                                       cmocka_unit_test(refuses_what_does_not_fit),
                                       cmocka_unit_test(failure_loses_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
