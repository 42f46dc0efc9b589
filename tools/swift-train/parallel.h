/* Data-parallel training: every rank runs its part of an update's records, and the flat buffers of what trains are brought
 * together bucket by bucket while the backward pass is still going. With one rank nothing here costs anything. */
#ifndef SWIFT_TRAIN_PARALLEL_H
#define SWIFT_TRAIN_PARALLEL_H

#include "dist/comm.h"
#include "nn/param.h"

typedef struct train_parallel {
    sw_comm *host;   /* borrowed */
    sw_comm *device; /* over the memory of the flat buffers: host, or one of its own */
    sw_flat *flat;
    struct parallel_bucket *buckets;
    bool *final;      /* [n_params] in this pass */
    bool sending;     /* this pass's gradients are exchanged */
    int64_t next;     /* bucket to be sent next: all ranks send from the last to the first */
    int64_t current;  /* bucket whose values were asked for last */
    uint64_t ticket;  /* of the newest exchange of gradients */
} train_parallel;

/* Fills the hooks of c. On a device of its own memory, opens the engine for it. */
int parallel_open(train_parallel *p, sw_comm *comm, sw_flat *flat, sw_ctx *c) SW_MUST_CHECK;
void parallel_close(train_parallel *p);
/* Around forward and backward of a part of an update. last: no more part adds to the gradients. */
int parallel_begin(train_parallel *p, bool last) SW_MUST_CHECK;
int parallel_end(train_parallel *p) SW_MUST_CHECK;
/* Whether a rank must run forward and backward although it has no records: the others wait for its share of the values. */
bool parallel_needs_all(const train_parallel *p);
/* Until the sums of all ranks are in the gradients (the parts of them that this rank holds). */
int parallel_wait(train_parallel *p) SW_MUST_CHECK;
/* L2 norm of the gradients of all ranks; the same bits on each. */
int parallel_norm(train_parallel *p, double *norm) SW_MUST_CHECK;
/* After the optimiser: what each rank has updated goes to those that compute with it. */
int parallel_share_values(train_parallel *p) SW_MUST_CHECK;
/* Sums over the ranks. */
int parallel_sum(train_parallel *p, double *values, int n) SW_MUST_CHECK;
/* A bucket of a shared buffer, whole on rank 0 until it is released; all ranks call. */
int parallel_collect(train_parallel *p, const sw_tensor *t, int64_t bucket) SW_MUST_CHECK;
/* The other way: rank 0's bucket to all. */
int parallel_spread(train_parallel *p, const sw_tensor *t, int64_t bucket) SW_MUST_CHECK;
/* All master values on rank 0, for writing; and not any more. */
int parallel_collect_master(train_parallel *p) SW_MUST_CHECK;
void parallel_release_master(train_parallel *p);

#endif
