#include "kernels/cpu_team.h"

#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TURNS = 2000, MOST = 255 }; /* looks before sleep, some 20 us; helpers */

/* Of everybody's own part of the job: chunks that nobody has taken yet, and in the upper half how many helpers may take
 * them. A chunk is taken by lowering this from what it was seen to be; `end` and `job` are read after that, and stay as
 * they are until that chunk, among the others, is done. */
static struct part {
    _Alignas(64) _Atomic uint64_t left;
    int64_t end; /* after its last chunk */
} parts[MOST + 1];
static _Alignas(64) struct {
    _Atomic uint64_t posted; /* the number of the job, times MOST + 1, plus how many helpers may come */
    int64_t n;
    void (*fn)(void *arg, int64_t i, int who);
    void *arg;
} job;
static _Alignas(64) _Atomic int64_t done;

static pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER; /* held by the caller whose job it is */
static int helpers;                                      /* under busy, and so is */
static uint64_t number;

static pthread_mutex_t sleep_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER, all_done = PTHREAD_COND_INITIALIZER;
static _Alignas(64) _Atomic int sleepers;
static _Atomic bool caller_sleeps;

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Does chunks while there are any: its own in their order, so that memory is read in its order, then the others'. Those
 * done are counted at the end, so that threads seldom write to the same place. */
static void work(int who, int count)
{
    int64_t n = 0, did = 0;
    for (int k = 0; k <= count; k++) {
        struct part *p = &parts[(who + k) % (count + 1)];
        uint64_t left = atomic_load(&p->left);
        while ((uint32_t)left && who <= (int)(left >> 32)) {
            if (!atomic_compare_exchange_weak(&p->left, &left, left - 1))
                continue;
            n = job.n;
            did++;
            job.fn(job.arg, p->end - (uint32_t)left, who);
            left = atomic_load(&p->left);
        }
    }
    if (did && atomic_fetch_add(&done, did) + did == n && atomic_load(&caller_sleeps)) {
        pthread_mutex_lock(&sleep_lock);
        pthread_cond_signal(&all_done);
        pthread_mutex_unlock(&sleep_lock);
    }
}

static int count_of(uint64_t word) { return (int)(word % (MOST + 1)); }

static void *help(void *arg)
{
    int who = (int)(intptr_t)arg;
    uint64_t seen = 0, now = 0;
    for (;;) {
        for (int i = 0; i < TURNS && (now = atomic_load(&job.posted)) == seen; i++)
            pause_briefly();
        if (now == seen || who > count_of(now)) {
            pthread_mutex_lock(&sleep_lock);
            atomic_fetch_add(&sleepers, 1);
            while ((now = atomic_load(&job.posted)) == seen || who > count_of(now))
                pthread_cond_wait(&more, &sleep_lock);
            atomic_fetch_sub(&sleepers, 1);
            pthread_mutex_unlock(&sleep_lock);
        }
        seen = now;
        work(who, count_of(now));
    }
    return NULL;
}

/* Helpers up to `count`; how many there are. Signals are the program's other threads' to handle. */
static int started(int count)
{
    sigset_t all, before;
    if (helpers >= count)
        return count;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (pthread_t t; helpers < count && !pthread_create(&t, NULL, help, (void *)(intptr_t)(helpers + 1)); helpers++)
        pthread_detach(t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return helpers;
}

static void wait_for(int64_t n)
{
    for (int i = 0; i < TURNS && atomic_load_explicit(&done, memory_order_relaxed) < n; i++)
        pause_briefly();
    if (atomic_load(&done) == n)
        return;
    pthread_mutex_lock(&sleep_lock);
    atomic_store(&caller_sleeps, true);
    while (atomic_load(&done) < n)
        pthread_cond_wait(&all_done, &sleep_lock);
    atomic_store(&caller_sleeps, false);
    pthread_mutex_unlock(&sleep_lock);
}

void sw_cpu_team(int64_t n, void (*fn)(void *arg, int64_t i, int who), void *arg)
{
    int threads = omp_get_max_threads();
    bool alone = n < 2 || n > UINT32_MAX / 2 || threads < 2 || omp_in_parallel() || pthread_mutex_trylock(&busy);
    if (alone) {
        for (int64_t i = 0; i < n; i++)
            fn(arg, i, 0);
        return;
    }
    int count = started(threads - 1 < MOST ? threads - 1 : MOST);
    job.n = n, job.fn = fn, job.arg = arg;
    atomic_store(&done, 0);
    for (int w = 0; w <= count; w++) {
        int64_t first = (n * w + count) / (count + 1), end = (n * (w + 1) + count) / (count + 1);
        parts[w].end = end;
        atomic_store(&parts[w].left, (uint64_t)count << 32 | (uint64_t)(end - first));
    }
    number++;
    atomic_store(&job.posted, number * (MOST + 1) + (uint64_t)count);
    if (atomic_load(&sleepers)) {
        pthread_mutex_lock(&sleep_lock);
        pthread_cond_broadcast(&more);
        pthread_mutex_unlock(&sleep_lock);
    }
    work(0, count);
    wait_for(n);
    pthread_mutex_unlock(&busy);
}
