/* Threads for work that is over in microseconds, where meeting in an OpenMP region would take as long as the work: decoding a
 * token is some hundred such pieces.
 *
 * The caller works; helpers take what is left of the chunks as they come. One that does not get a processor takes none, and
 * nobody waits for it, but for the chunk that it has. So results must not depend on who does a chunk, or in which order. */
#ifndef SW_KERNELS_CPU_TEAM_H
#define SW_KERNELS_CPU_TEAM_H

#include <stdint.h>

/* fn(arg, i, who) for each i in [0, n); returns when all are done. `who` is in [0, omp_get_max_threads()), and no two calls at a
 * time have the same. Helpers are as many as OpenMP's threads less one, started when they are first needed; they look for work
 * for some ten microseconds and then sleep. Where the team is busy (another thread's call, or a call from inside of one or of
 * an OpenMP region), or helpers cannot be started, the caller does all. */
void sw_cpu_team(int64_t n, void (*fn)(void *arg, int64_t i, int who), void *arg);

#endif
