/* NCCL's calls among processes of one machine, through shared memory: the engine's code (common/dist/engines/dist_nccl.c) runs
 * over emulated devices. Every call is done when it returns. SWIFT_EMULATOR_NCCL_FAILS=R:K has call K of rank R fail. */
#include "cuda_runtime.h"

#define SW_EMULATOR_CUDA_RUNTIME_API_H /* its names are the runtime's here */
#include "nccl/nccl.h"

#include "emulator_memory.h"

#include <algorithm>
#include <cstdio>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

extern "C" {
#include "kernels/tensor.h"
cudaError_t sw_emu_c_set_device(int index) { return cudaSetDevice(index); }
cudaError_t sw_emu_c_stream(cudaStream_t *s, unsigned flags) { return cudaStreamCreateWithFlags(s, flags); }
cudaError_t sw_emu_c_stream_end(cudaStream_t s) { return cudaStreamDestroy(s); }
cudaError_t sw_emu_c_query(cudaStream_t) { return cudaSuccess; }
cudaError_t sw_emu_c_wait(cudaStream_t s, cudaEvent_t e, unsigned flags) { return cudaStreamWaitEvent(s, e, flags); }
cudaError_t sw_emu_c_malloc(void **p, size_t n) { return cudaMalloc(p, n); }
cudaError_t sw_emu_c_memset(void *p, int value, size_t n) { return cudaMemsetAsync(p, value, n, nullptr); }
cudaError_t sw_emu_c_free(void *p) { return cudaFree(p); }
const char *sw_emu_c_error(cudaError_t e) { return cudaGetErrorString(e); }
}

enum { PIECE = 1 << 16, MOST_RANKS = 8 };

/* Each rank writes its own piece, all meet, each reads the others', all meet. */
struct shared {
    pthread_barrier_t meet;
    int ready;
    size_t bytes[MOST_RANKS], turn[MOST_RANKS]; /* of send: 0 the sender's, else the receiver's */
    unsigned char piece[MOST_RANKS][PIECE];
};
struct sw_emu_nccl {
    shared *s;
    int rank, ranks, calls;
};
struct transfer {
    char *data;
    size_t n;
    int peer;
    bool out;
    sw_emu_nccl *c;
};
static thread_local bool grouped;
static thread_local std::vector<transfer> group;

static bool fails(sw_emu_nccl *c)
{
    int rank = -1, call = -1;
    const char *text = getenv("SWIFT_EMULATOR_NCCL_FAILS");
    return text && sscanf(text, "%d:%d", &rank, &call) == 2 && rank == c->rank && c->calls++ == call;
}
static void meet(sw_emu_nccl *c) { pthread_barrier_wait(&c->s->meet); }
static size_t width(ncclDataType_t t) { return t == ncclUint8 ? 1 : t == ncclFloat32 ? 4 : t == ncclInt64 || t == ncclFloat64 ? 8 : 2; }

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static int number;
    snprintf(id->internal, sizeof id->internal, "/swift-emulator-%d-%d", (int)getpid(), number++);
    int fd = shm_open(id->internal, O_CREAT | O_EXCL | O_RDWR, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(shared)))
        return ncclSystemError;
    close(fd);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *out, int ranks, ncclUniqueId id, int rank)
{
    int fd = shm_open(id.internal, O_RDWR, 0);
    void *p = fd < 0 || ranks > MOST_RANKS ? MAP_FAILED : mmap(nullptr, sizeof(shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return ncclSystemError;
    close(fd);
    sw_emu_nccl *c = new sw_emu_nccl{(shared *)p, rank, ranks, 0};
    if (!rank) {
        pthread_barrierattr_t a;
        pthread_barrierattr_init(&a);
        pthread_barrierattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
        pthread_barrier_init(&c->s->meet, &a, (unsigned)ranks);
        __atomic_store_n(&c->s->ready, 1, __ATOMIC_RELEASE);
    }
    while (!__atomic_load_n(&c->s->ready, __ATOMIC_ACQUIRE))
        usleep(100);
    meet(c);
    if (!rank)
        shm_unlink(id.internal);
    *out = c;
    return fails(c) ? ncclSystemError : ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t c)
{
    munmap(c->s, sizeof *c->s);
    delete c;
    return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t c) { return ncclCommAbort(c); }
ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t *state)
{
    *state = ncclSuccess;
    return ncclSuccess;
}
const char *ncclGetErrorString(ncclResult_t r)
{
    return r == ncclSystemError ? "unhandled system error" : r == ncclRemoteError ? "remote process exited or there was a network error" : "invalid argument";
}
const char *ncclGetLastError(ncclComm_t) { return ""; }

/* One meeting: mine (n bytes, at most PIECE) is shown, read(r, bytes, n) sees each rank's. */
template <class F> static void exchange(sw_emu_nccl *c, const void *mine, size_t n, F read)
{
    {
        sw_emu_access access;
        memcpy(c->s->piece[c->rank], mine, n);
    }
    c->s->bytes[c->rank] = n;
    meet(c);
    {
        sw_emu_access access;
        for (int r = 0; r < c->ranks; r++)
            read(r, c->s->piece[r], c->s->bytes[r]);
    }
    meet(c);
}

static double number(const void *p, size_t i, ncclDataType_t t)
{
    return t == ncclFloat32   ? (double)((const float *)p)[i]
           : t == ncclFloat64 ? ((const double *)p)[i]
           : t == ncclBfloat16 ? (double)sw_bf16_to_f32(((const uint16_t *)p)[i])
                               : (double)sw_f16_to_f32(((const uint16_t *)p)[i]);
}
static void set_number(void *p, size_t i, ncclDataType_t t, double v)
{
    if (t == ncclFloat32)
        ((float *)p)[i] = (float)v;
    else if (t == ncclFloat64)
        ((double *)p)[i] = v;
    else
        ((uint16_t *)p)[i] = t == ncclBfloat16 ? sw_f32_to_bf16((float)v) : sw_f32_to_f16((float)v);
}

/* out (n values) = op over the ranks of in. */
static void reduce(sw_emu_nccl *c, const char *in, char *out, size_t n, ncclDataType_t t, ncclRedOp_t op, bool keep)
{
    size_t each = PIECE / width(t);
    std::vector<double> sum(each);
    std::vector<int64_t> whole(each);
    for (size_t at = 0; at < n; at += each) {
        size_t k = std::min(each, n - at);
        exchange(c, in + at * width(t), k * width(t), [&](int r, const void *p, size_t) {
            for (size_t i = 0; i < k; i++) {
                double v = t == ncclInt64 ? 0 : number(p, i, t);
                int64_t w = t == ncclInt64 ? ((const int64_t *)p)[i] : 0;
                sum[i] = !r ? v : op == ncclSum ? sum[i] + v : std::max(sum[i], v);
                whole[i] = !r ? w : op == ncclSum ? whole[i] + w : std::max(whole[i], w);
            }
        });
        sw_emu_access access;
        for (size_t i = 0; keep && i < k; i++)
            if (t == ncclInt64)
                ((int64_t *)out)[at + i] = whole[i];
            else
                set_number(out, at + i, t, sum[i]);
    }
}

ncclResult_t ncclBroadcast(const void *in, void *out, size_t n, ncclDataType_t t, int root, ncclComm_t c, cudaStream_t)
{
    if (fails(c))
        return ncclRemoteError;
    for (size_t at = 0, bytes = n * width(t); at < bytes; at += PIECE)
        exchange(c, (const char *)in + at, std::min((size_t)PIECE, bytes - at), [&](int r, const void *p, size_t k) {
            if (r == root)
                memcpy((char *)out + at, p, k);
        });
    return ncclSuccess;
}
ncclResult_t ncclAllReduce(const void *in, void *out, size_t n, ncclDataType_t t, ncclRedOp_t op, ncclComm_t c, cudaStream_t)
{
    if (fails(c))
        return ncclRemoteError;
    reduce(c, (const char *)in, (char *)out, n, t, op, true);
    return ncclSuccess;
}
ncclResult_t ncclReduceScatter(const void *in, void *out, size_t n, ncclDataType_t t, ncclRedOp_t op, ncclComm_t c, cudaStream_t)
{
    if (fails(c))
        return ncclRemoteError;
    for (int r = 0; r < c->ranks; r++)
        reduce(c, (const char *)in + (size_t)r * n * width(t), (char *)out, n, t, op, r == c->rank);
    return ncclSuccess;
}
ncclResult_t ncclAllGather(const void *in, void *out, size_t n, ncclDataType_t t, ncclComm_t c, cudaStream_t)
{
    if (fails(c))
        return ncclRemoteError;
    for (size_t at = 0, bytes = n * width(t); at < bytes; at += PIECE)
        exchange(c, (const char *)in + at, std::min((size_t)PIECE, bytes - at),
                 [&](int r, const void *p, size_t k) { memmove((char *)out + (size_t)r * bytes + at, p, k); });
    return ncclSuccess;
}

/* ---- between two, by the sender's piece */
static void move(const transfer &t)
{
    size_t *turn = &t.c->s->turn[t.out ? t.c->rank : t.peer];
    unsigned char *piece = t.c->s->piece[t.out ? t.c->rank : t.peer];
    if (t.peer == t.c->rank)
        return;
    for (size_t at = 0; at < t.n; at += PIECE) {
        size_t k = std::min((size_t)PIECE, t.n - at), full = (size_t)1 << 40 | (size_t)(t.out ? t.peer : t.c->rank);
        while (__atomic_load_n(turn, __ATOMIC_ACQUIRE) != (t.out ? 0 : full))
            usleep(20);
        {
            sw_emu_access access;
            memcpy(t.out ? piece : (unsigned char *)t.data + at, t.out ? (unsigned char *)t.data + at : piece, k);
        }
        __atomic_store_n(turn, t.out ? full : 0, __ATOMIC_RELEASE);
    }
}
ncclResult_t ncclGroupStart(void)
{
    grouped = true;
    return ncclSuccess;
}
/* In an order that all ranks share: from each to each. */
ncclResult_t ncclGroupEnd(void)
{
    std::vector<transfer> all;
    all.swap(group);
    grouped = false;
    if (all.empty())
        return ncclSuccess;
    sw_emu_nccl *c = all[0].c;
    for (const transfer &a : all) /* to itself */
        for (const transfer &b : all)
            if (a.out && !b.out && a.peer == c->rank && b.peer == c->rank) {
                sw_emu_access access;
                memmove(b.data, a.data, std::min(a.n, b.n));
            }
    for (int from = 0; from < c->ranks; from++)
        for (int to = 0; to < c->ranks; to++)
            for (const transfer &t : all)
                if (from != to && ((t.out && c->rank == from && t.peer == to) || (!t.out && c->rank == to && t.peer == from)))
                    move(t);
    return ncclSuccess;
}
static ncclResult_t add(const transfer &t)
{
    if (fails(t.c))
        return ncclRemoteError;
    bool alone = !grouped;
    group.push_back(t);
    return alone ? ncclGroupEnd() : ncclSuccess;
}
ncclResult_t ncclSend(const void *in, size_t n, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t)
{
    return add({(char *)in, n * width(t), peer, true, c});
}
ncclResult_t ncclRecv(void *out, size_t n, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t)
{
    return add({(char *)out, n * width(t), peer, false, c});
}
