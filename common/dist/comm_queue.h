/* The queue of a communicator and its thread (see comm.h). */
#ifndef SW_DIST_COMM_QUEUE_H
#define SW_DIST_COMM_QUEUE_H

#include "dist/comm.h"

struct sw_comm_queue *sw_comm_queue_new(sw_comm *c) SW_MUST_CHECK;
/* Waits for what is asked for, then ends the thread; NULL is fine. */
void sw_comm_queue_free(struct sw_comm_queue *q);

#endif
