#include "base/threads.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Threads meet some hundred times a token. A waiter of libgomp turns for milliseconds before it sleeps, which costs an idle
 * machine nothing; but where other processes want the cores, the thread that is waited for does not run meanwhile: answers
 * of half a second took a minute beside a busy compiler. A thousand turns (some ten microseconds) are as quick on an idle
 * machine. libgomp reads its settings while it is loaded, before any code of the program, hence the second start. */
void sw_threads_wait_briefly(char **argv)
{
#ifndef __clang__ /* clang's programs have another runtime */
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY"))
        return;
    for (char **a = argv; *a; a++)
        if (!strncmp(*a, "--help", 6) || !strcmp(*a, "--version"))
            return;
    if (!setenv("GOMP_SPINCOUNT", "1000", 1))
        execv("/proc/self/exe", argv); /* where that cannot be done, all is as it was */
#else
    (void)argv;
#endif
}
