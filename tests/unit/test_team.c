/* The team of threads (kernels/cpu_team.h): every chunk once, by one thread at a time under one number, whatever the
 * threads. */
#include "kernels/cpu_team.h"

#include <omp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { LARGEST = 300, THREADS = 5 };

typedef struct work {
    int times[LARGEST];          /* of a chunk: plain, as what kernels write */
    _Atomic int inside[THREADS]; /* calls under a number now */
    _Atomic int wrong;
    int threads;
} work;

static void one_chunk(void *arg, int64_t i, int who)
{
    work *w = arg;
    if (who < 0 || who >= w->threads || atomic_fetch_add(&w->inside[who], 1))
        atomic_fetch_add(&w->wrong, 1);
    w->times[i]++;
    for (volatile int spin = 0; spin < (int)(i % 7) * 50; spin++)
        ;
    if (who >= 0 && who < THREADS)
        atomic_fetch_sub(&w->inside[who], 1);
}

static void run(int64_t n, int threads)
{
    work w = {.threads = threads};
    sw_cpu_team(n, one_chunk, &w);
    assert_int_equal(w.wrong, 0);
    for (int64_t i = 0; i < LARGEST; i++)
        assert_int_equal(w.times[i], i < n);
}

static void every_chunk_once(void **state)
{
    (void)state;
    int before = omp_get_max_threads();
    for (int round = 0; round < 2000; round++) {
        int threads = 1 + round * 7 % THREADS; /* fewer than have come already, too */
        omp_set_num_threads(threads);
        run(round % 11 ? round % LARGEST : 0, threads);
        if (round % 500 == 499)
            usleep(2000); /* helpers fall asleep */
    }
    omp_set_num_threads(before);
}

static void within(void *arg, int64_t i, int who)
{
    (void)who;
    work inner = {.threads = THREADS};
    sw_cpu_team(3, one_chunk, &inner);
    ((int *)arg)[i] = inner.times[0] + inner.times[1] + inner.times[2];
}

static void within_itself_and_openmp(void **state)
{
    (void)state;
    int sums[8] = {0}, before = omp_get_max_threads();
    omp_set_num_threads(3);
    sw_cpu_team(8, within, sums);
    for (int i = 0; i < 8; i++)
        assert_int_equal(sums[i], 3);
    memset(sums, 0, sizeof sums);
#pragma omp parallel for
    for (int i = 0; i < 8; i++)
        within(sums, i, 0);
    for (int i = 0; i < 8; i++)
        assert_int_equal(sums[i], 3);
    omp_set_num_threads(before);
}

static void *caller(void *arg)
{
    int *failed = arg;
    for (int round = 0; round < 300; round++) {
        int sums[20] = {0};
        sw_cpu_team(20, within, sums);
        for (int i = 0; i < 20; i++)
            *failed += sums[i] != 3;
    }
    return NULL;
}

static void several_callers(void **state)
{
    (void)state;
    pthread_t threads[3];
    int failed[3] = {0};
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, caller, &failed[i]), 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(failed[i], 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_chunk_once), cmocka_unit_test(within_itself_and_openmp),
                                       cmocka_unit_test(several_callers)};
    return cmocka_run_group_tests_name("team", tests, NULL, NULL);
}
