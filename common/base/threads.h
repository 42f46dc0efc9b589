/* How OpenMP's threads wait for each other. */
#ifndef SW_BASE_THREADS_H
#define SW_BASE_THREADS_H

/* To be called first in main, before anything is opened: starts the program again with libgomp's waits cut short, unless the
 * user has set them (GOMP_SPINCOUNT, OMP_WAIT_POLICY) or only asks for help. Returns where nothing needs to change. */
void sw_threads_wait_briefly(char **argv);

#endif
