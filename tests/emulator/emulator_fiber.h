/* Stacks that a thread of the host can switch between: one a thread of a block. */
#ifndef SW_EMULATOR_FIBER_H
#define SW_EMULATOR_FIBER_H

#include <cstddef>

struct sw_fiber;

/* A fiber that runs entry() (which never returns) when it is first switched to. */
sw_fiber *sw_fiber_new(void (*entry)(void));
/* Of one that will not be entered again. */
void sw_fiber_free(sw_fiber *f);
/* From the host's own stack into a fiber, until one calls sw_fiber_leave. */
void sw_fiber_enter(sw_fiber *f);
/* From the running fiber into another. */
void sw_fiber_pass(sw_fiber *f);
/* From the running fiber back to the host's stack. */
void sw_fiber_leave(void);

#endif
