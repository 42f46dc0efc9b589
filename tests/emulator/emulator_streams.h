/* Streams of the emulated runtime, for its other parts. */
#ifndef SW_EMULATOR_STREAMS_H
#define SW_EMULATOR_STREAMS_H

#include "cuda_runtime.h"

/* Does all that late streams have put off (sw_emu_give). */
void sw_emu_run_all(void);
/* For calls that may not be made while a stream captures: spoils the graph, cudaErrorStreamCaptureUnsupported. */
cudaError_t sw_emu_outside_capture(void);
bool sw_emu_is_pinned(const void *p, size_t n);
/* Of a kernel that has not waited for those before it: what is wrong with its copying n bytes from p, or NULL. */
const char *sw_emu_copied_early(const void *p, int n);
/* The graph whose kernel the calling thread launches, or NULL; threads that run its blocks are told so. */
void *sw_emu_graph_at_work(void);
void sw_emu_work_for_graph(void *graph);

#endif
