/* The ordered map: the same output for any number of workers, and failures in the order of the input. */
#include "data/pipeline.h"

#include "base/memory.h"
#include "base/philox.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { ITEMS = 3000 };

typedef struct item {
    uint64_t in, out;
    char *memory; /* shows leaks and double frees under ASan */
} item;

typedef struct run {
    uint64_t next, written, n;
    uint64_t fail_read, fail_work, fail_write; /* item, or UINT64_MAX */
    bool bad_order;
    char failure[64];
} run;

static int read_one(void *context, void *at)
{
    run *r = context;
    item *i = at;
    if (r->next == r->fail_read)
        return sw_fail("read %llu", (unsigned long long)r->next);
    if (r->next == r->n)
        return 0;
    if (!i->memory)
        i->memory = sw_malloc(10);
    i->in = r->next++;
    return 1;
}

static int work_one(void *context, int worker, void *at)
{
    run *r = context;
    item *i = at;
    (void)worker;
    sw_rng rng = {1, 2, 3};
    volatile uint64_t spin = sw_rng_below(&rng, i->in, 3000); /* items take different times */
    while (spin)
        spin = spin - 1;
    i->out = i->in * i->in;
    /* two fail: the earlier one must be told, whichever worker is first */
    return i->in == r->fail_work || i->in == r->fail_work + 1 ? sw_fail("work %llu", (unsigned long long)i->in) : 0;
}

static int write_one(void *context, void *at, const char *failure)
{
    run *r = context;
    const item *i = at;
    r->bad_order |= i->in != r->written || i->out != i->in * i->in;
    if (failure)
        snprintf(r->failure, sizeof r->failure, "%s", failure);
    if (i->in == r->fail_write)
        return sw_fail("write %llu", (unsigned long long)i->in);
    r->written++;
    return 0;
}

static void free_one(void *context, void *at)
{
    (void)context;
    free(((item *)at)->memory);
}

static int go(run *r, int workers)
{
    atomic_bool stop = false;
    sw_pipeline p = {r, sizeof(item), workers, read_one, work_one, write_one, free_one, &stop};
    int rc = sw_pipeline_run(&p);
    assert_false(r->bad_order);
    return rc;
}

static const int workers[] = {1, 2, 3, 8};

static void keeps_the_order(void **state)
{
    (void)state;
    for (size_t w = 0; w < SW_COUNT(workers); w++)
        for (uint64_t n = 0; n <= ITEMS; n = n * 5 + 1) {
            run r = {.n = n, .fail_read = UINT64_MAX, .fail_work = UINT64_MAX - 1, .fail_write = UINT64_MAX};
            assert_int_equal(go(&r, workers[w]), 0);
            assert_int_equal(r.written, n);
        }
}

static void failures_come_in_order(void **state)
{
    (void)state;
    for (size_t w = 0; w < SW_COUNT(workers); w++)
        for (uint64_t at = 0; at < 500; at += 99) {
            run a = {.n = ITEMS, .fail_read = at, .fail_work = UINT64_MAX - 1, .fail_write = UINT64_MAX};
            assert_int_equal(go(&a, workers[w]), -1);
            assert_int_equal(a.written, at);
            assert_int_equal(strncmp(sw_error(), "read ", 5), 0);
            run b = {.n = ITEMS, .fail_read = UINT64_MAX, .fail_work = at, .fail_write = UINT64_MAX};
            assert_int_equal(go(&b, workers[w]), -1);
            assert_int_equal(b.written, at + 1); /* the writer saw the bad item too, and nothing after it */
            char want[32];
            snprintf(want, sizeof want, "work %d", (int)at);
            assert_string_equal(sw_error(), want);
            assert_string_equal(b.failure, want);
            run c = {.n = ITEMS, .fail_read = UINT64_MAX, .fail_work = UINT64_MAX - 1, .fail_write = at};
            assert_int_equal(go(&c, workers[w]), -1);
            assert_int_equal(c.written, at);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(keeps_the_order), cmocka_unit_test(failures_come_in_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
