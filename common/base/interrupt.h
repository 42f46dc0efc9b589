/* Signals as flags that loops look at: SIGINT and SIGTERM ask to save and stop, SIGUSR1 asks for plots. A
 * second SIGINT ends the program at once. */
#ifndef SW_BASE_INTERRUPT_H
#define SW_BASE_INTERRUPT_H

#include <stdbool.h>

void sw_interrupt_install(void);
bool sw_interrupted(void);    /* SIGINT or SIGTERM came */
void sw_interrupt_clear(void);
bool sw_usr1_taken(void);     /* true once per SIGUSR1 */

#endif
