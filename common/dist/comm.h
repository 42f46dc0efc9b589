/* Processes that work together on one job. A communicator knows how many there are (ranks) and which one this is, and
 * moves bytes between them by one of three engines behind one table: nothing to move (one process), MPI between host
 * memories, NCCL between GPUs. MPI and NCCL live in shared objects of their own (libswift-mpi.so, libswift-nccl.so in
 * ../lib/swift of the program), opened only when a launcher has started several processes: programs start as fast as
 * without them, and run where there is neither.
 *
 * Every rank makes the same calls in the same order. Sums are taken in the order of the ranks, whoever is faster, so two
 * runs give the same bits. */
#ifndef SW_DIST_COMM_H
#define SW_DIST_COMM_H

#include "base/error.h"
#include "kernels/tensor.h"

typedef struct sw_comm sw_comm;

typedef enum sw_reduce { SW_REDUCE_SUM, SW_REDUCE_MAX } sw_reduce;

/* What an engine fills. All return 0, or -1 with the reason through comm->fail. `data` is host memory (MPI) or memory of
 * the engine's device (NCCL). Values are f32, f64, bf16, f16 or i64; those of 16 bits are added in f32. */
typedef struct sw_comm_ops {
    const char *name;
    int (*broadcast)(sw_comm *c, void *data, size_t bytes, int root);
    int (*all_reduce)(sw_comm *c, void *data, int64_t n, sw_dtype type, sw_reduce op);
    /* data is `ranks` parts of n values: part `rank` becomes that part of the sum, the others are left as they are. */
    int (*reduce_scatter)(sw_comm *c, void *data, int64_t n, sw_dtype type, sw_reduce op);
    /* data is `ranks` parts of `bytes`: part i becomes what rank i has there. */
    int (*all_gather)(sw_comm *c, void *data, size_t bytes);
    /* in: a part for each rank, out: a part from each, one after the other; sizes in bytes [ranks]. */
    int (*all_to_all)(sw_comm *c, void *out, const size_t *out_bytes, const void *in, const size_t *in_bytes);
    int (*send)(sw_comm *c, const void *data, size_t bytes, int to);
    int (*receive)(sw_comm *c, void *data, size_t bytes, int from);
    int (*barrier)(sw_comm *c);
    /* What is asked for next begins when the device has come to a mark (sw_device.mark). NULL: the caller has to have
     * waited. */
    int (*after)(sw_comm *c, void *mark);
    void (*abort)(sw_comm *c, int status); /* ends all ranks; does not return */
    void (*close)(sw_comm *c);
} sw_comm_ops;

struct sw_comm {
    int rank, ranks;
    int local_rank, local_ranks; /* among those on this machine */
    bool agreed;                 /* a failure that all ranks know of (sw_comm_agree) */
    const sw_comm_ops *ops;
    int (*fail)(const char *fmt, ...); /* sw_fail, for engines, which are not linked with it */
    void *state;                       /* the engine's */
    struct sw_comm_queue *queue;
    void *library;
};

/* Whether a launcher (mpirun, srun) has started this process as one of several, and as which: -1 when not. Costs nothing. */
int sw_comm_launched_rank(void);
/* The ranks that the launcher started: one where there is none. Several without an MPI engine are an error: they would all
 * do the same work and write over each other. */
sw_comm *sw_comm_open(void) SW_MUST_CHECK;
/* The same ranks over the memory of GPU `device`, by NCCL. */
sw_comm *sw_comm_open_gpu(sw_comm *host, int device) SW_MUST_CHECK;
void sw_comm_close(sw_comm *c); /* NULL is fine */

/* ---- work in order. A communicator has one queue and one thread that takes from it, so that moving goes on beside
 * computing, in the order in which it was asked for on every rank. */

/* Runs on that thread; calls c->ops. */
typedef int (*sw_comm_job)(sw_comm *c, void *arg);
/* Asks for a job; arg lives until it is done. Returns its ticket. One process: done when this returns. */
uint64_t sw_comm_start(sw_comm *c, sw_comm_job job, void *arg);
/* Until all jobs up to this ticket are done. -1 and the reason when one failed; jobs after a failure are not run. */
int sw_comm_wait(sw_comm *c, uint64_t ticket) SW_MUST_CHECK;

/* ---- at once: asked for and waited for */
int sw_comm_broadcast(sw_comm *c, void *data, size_t bytes, int root) SW_MUST_CHECK;
int sw_comm_all_reduce(sw_comm *c, void *data, int64_t n, sw_dtype type, sw_reduce op) SW_MUST_CHECK;
int sw_comm_reduce_scatter(sw_comm *c, void *data, int64_t n, sw_dtype type, sw_reduce op) SW_MUST_CHECK;
int sw_comm_all_gather(sw_comm *c, void *data, size_t bytes) SW_MUST_CHECK;
int sw_comm_all_to_all(sw_comm *c, void *out, const size_t *out_bytes, const void *in, const size_t *in_bytes) SW_MUST_CHECK;
int sw_comm_send(sw_comm *c, const void *data, size_t bytes, int to) SW_MUST_CHECK;
int sw_comm_receive(sw_comm *c, void *data, size_t bytes, int from) SW_MUST_CHECK;
int sw_comm_barrier(sw_comm *c) SW_MUST_CHECK;
/* Parts as in all_gather, to the root alone. */
int sw_comm_gather(sw_comm *c, void *data, size_t bytes, int root) SW_MUST_CHECK;

/* Whether all ranks are fine: 0, or -1 on all of them with the message of the first that failed. A rank whose rc is not 0
 * has its message in sw_error(). */
int sw_comm_agree(sw_comm *c, int rc) SW_MUST_CHECK;
/* Ends all ranks after a failure that the others do not know of. */
void sw_comm_abort(sw_comm *c, int status) __attribute__((noreturn));

/* What an engine's shared object exports: fills rank, ranks, local_*, ops and state; fail is set. */
typedef int (*sw_comm_engine)(sw_comm *c, sw_comm *host, int device);
#define SW_COMM_ENGINE "swift_comm_engine"

#endif
