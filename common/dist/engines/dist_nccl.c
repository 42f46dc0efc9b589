/* The NCCL engine: bytes between GPUs. A shared object of its own, linked with NCCL and the CUDA run-time library. Its work
 * goes on in a stream of its own, beside the device's, and begins where that has come to a mark. The ranks find each other
 * over the host's communicator (MPI). Rings add in an order that depends on the ranks and their GPUs only, so rings are
 * asked for unless NCCL_ALGO says otherwise. */
#include "dist/comm.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

typedef struct nccl {
    sw_comm *host;
    ncclComm_t comm;
    cudaStream_t stream;
    void *word; /* on the device, for a barrier */
    int device;
    bool broken;
} nccl;

static int check(sw_comm *c, ncclResult_t rc, const char *what)
{
    nccl *m = c->state;
    if (rc == ncclSuccess)
        return 0;
    const char *more = m && m->comm ? ncclGetLastError(m->comm) : "";
    if (m)
        m->broken = true;
    return c->fail("NCCL: %s: %s%s%s", what, ncclGetErrorString(rc), more && *more ? ": " : "", more ? more : "");
}

static int check_cuda(sw_comm *c, cudaError_t rc, const char *what)
{
    return rc == cudaSuccess ? 0 : c->fail("CUDA: %s: %s", what, cudaGetErrorString(rc));
}

/* The current device is a thread's own; jobs come from the communicator's. */
static int enter(sw_comm *c)
{
    nccl *m = c->state;
    return check_cuda(c, cudaSetDevice(m->device), "device");
}

/* Until the stream is empty, looking out for ranks that have gone: their peers would wait for ever. */
static int finish(sw_comm *c, const char *what)
{
    nccl *m = c->state;
    for (;;) {
        cudaError_t rc = cudaStreamQuery(m->stream);
        if (rc == cudaSuccess)
            return 0;
        if (rc != cudaErrorNotReady)
            return check_cuda(c, rc, what);
        ncclResult_t state = ncclSuccess;
        if (check(c, ncclCommGetAsyncError(m->comm, &state), what) || check(c, state, what))
            return -1;
        nanosleep(&(struct timespec){0, 5000}, NULL);
    }
}

static ncclDataType_t type_of(sw_dtype type)
{
    return type == SW_F32 ? ncclFloat32 : type == SW_F64 ? ncclFloat64 : type == SW_BF16 ? ncclBfloat16 : type == SW_F16 ? ncclFloat16 : ncclInt64;
}

static size_t width(sw_dtype type) { return type == SW_F64 || type == SW_I64 ? 8 : type == SW_F32 ? 4 : 2; }
static ncclRedOp_t op_of(sw_reduce op) { return op == SW_REDUCE_SUM ? ncclSum : ncclMax; }

static int broadcast(sw_comm *c, void *data, size_t bytes, int root)
{
    nccl *m = c->state;
    return enter(c) || check(c, ncclBroadcast(data, data, bytes, ncclUint8, root, m->comm, m->stream), "broadcast") || finish(c, "broadcast") ? -1 : 0;
}

static int all_reduce(sw_comm *c, void *data, int64_t n, sw_dtype type, sw_reduce op)
{
    nccl *m = c->state;
    return enter(c) || check(c, ncclAllReduce(data, data, (size_t)n, type_of(type), op_of(op), m->comm, m->stream), "all-reduce") ||
                   finish(c, "all-reduce") ? -1 : 0;
}

static int reduce_scatter(sw_comm *c, void *data, int64_t n, sw_dtype type, sw_reduce op)
{
    nccl *m = c->state;
    char *mine = (char *)data + (size_t)c->rank * (size_t)n * width(type);
    return enter(c) || check(c, ncclReduceScatter(data, mine, (size_t)n, type_of(type), op_of(op), m->comm, m->stream), "reduce-scatter") ||
                   finish(c, "reduce-scatter") ? -1 : 0;
}

static int all_gather(sw_comm *c, void *data, size_t bytes)
{
    nccl *m = c->state;
    return enter(c) || check(c, ncclAllGather((char *)data + bytes * (size_t)c->rank, data, bytes, ncclUint8, m->comm, m->stream), "all-gather") ||
                   finish(c, "all-gather") ? -1 : 0;
}

static int all_to_all(sw_comm *c, void *out, const size_t *out_bytes, const void *in, const size_t *in_bytes)
{
    nccl *m = c->state;
    size_t to = 0, from = 0;
    int rc = enter(c) || check(c, ncclGroupStart(), "all-to-all") ? -1 : 0;
    for (int r = 0; !rc && r < c->ranks; r++) {
        if (in_bytes[r])
            rc = check(c, ncclSend((const char *)in + from, in_bytes[r], ncclUint8, r, m->comm, m->stream), "all-to-all");
        if (!rc && out_bytes[r])
            rc = check(c, ncclRecv((char *)out + to, out_bytes[r], ncclUint8, r, m->comm, m->stream), "all-to-all");
        from += in_bytes[r];
        to += out_bytes[r];
    }
    return rc || check(c, ncclGroupEnd(), "all-to-all") || finish(c, "all-to-all") ? -1 : 0;
}

static int send_to(sw_comm *c, const void *data, size_t bytes, int to)
{
    nccl *m = c->state;
    return enter(c) || check(c, ncclSend(data, bytes, ncclUint8, to, m->comm, m->stream), "send") || finish(c, "send") ? -1 : 0;
}

static int receive_from(sw_comm *c, void *data, size_t bytes, int from)
{
    nccl *m = c->state;
    return enter(c) || check(c, ncclRecv(data, bytes, ncclUint8, from, m->comm, m->stream), "receive") || finish(c, "receive") ? -1 : 0;
}

static int barrier(sw_comm *c)
{
    nccl *m = c->state;
    return all_reduce(c, m->word, 1, SW_F32, SW_REDUCE_SUM);
}

static int after(sw_comm *c, void *mark)
{
    nccl *m = c->state;
    return enter(c) || check_cuda(c, cudaStreamWaitEvent(m->stream, (cudaEvent_t)mark, 0), "event") ? -1 : 0;
}

static void end_all(sw_comm *c, int status)
{
    nccl *m = c->state;
    m->host->ops->abort(m->host, status);
}

static void close_nccl(sw_comm *c)
{
    nccl *m = c->state;
    cudaSetDevice(m->device);
    if (m->broken)
        ncclCommAbort(m->comm);
    else
        ncclCommDestroy(m->comm);
    cudaStreamDestroy(m->stream);
    cudaFree(m->word);
    free(m);
}

static const sw_comm_ops ops = {"NCCL", broadcast, all_reduce, reduce_scatter, all_gather, all_to_all, send_to, receive_from,
                                barrier, after, end_all, close_nccl};

int swift_comm_engine(sw_comm *c, sw_comm *host, int device);
int swift_comm_engine(sw_comm *c, sw_comm *host, int device)
{
    /* Every rank takes part in the broadcast, whatever has gone wrong on it. */
    ncclUniqueId id = {{0}};
    setenv("NCCL_ALGO", "Ring", 0);
    int rc = check_cuda(c, cudaSetDevice(device), "device");
    if (!rc && !c->rank)
        rc = check(c, ncclGetUniqueId(&id), "start");
    int64_t failed = rc != 0;
    if (host->ops->broadcast(host, &id, sizeof id, 0) || host->ops->all_reduce(host, &failed, 1, SW_I64, SW_REDUCE_MAX))
        return -1;
    if (failed)
        return rc ? rc : c->fail("NCCL: another rank could not start");
    nccl *m = calloc(1, sizeof *m);
    if (!m)
        return c->fail("out of memory");
    *m = (nccl){.host = host, .device = device};
    if (check(c, ncclCommInitRank(&m->comm, c->ranks, id, c->rank), "start") ||
        check_cuda(c, cudaStreamCreateWithFlags(&m->stream, cudaStreamNonBlocking), "stream") ||
        check_cuda(c, cudaMalloc(&m->word, sizeof(float)), "memory") || check_cuda(c, cudaMemset(m->word, 0, sizeof(float)), "memory")) {
        if (m->comm)
            ncclCommAbort(m->comm);
        free(m);
        return -1;
    }
    c->state = m;
    c->ops = &ops;
    return 0;
}
