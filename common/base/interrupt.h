/* Signals as flags that loops look at: SIGINT, SIGTERM and SIGHUP (unless it was ignored) ask to save and stop, SIGUSR1 asks
 * for plots. A second SIGINT ends the program at once. */
#ifndef SW_BASE_INTERRUPT_H
#define SW_BASE_INTERRUPT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

void sw_interrupt_install(void);
bool sw_interrupted(void);     /* one of the three came */
bool sw_terminated(void);      /* SIGTERM or SIGHUP came */
void sw_interrupt_clear(void); /* forgets SIGINT; the others stay */
/* read(2) that a stop ends, also one that came just before it or that another thread was told of: -1 with EINTR. */
ssize_t sw_read_unless_stopped(int fd, void *to, size_t n);
bool sw_usr1_taken(void);      /* true once per SIGUSR1 */

#endif
