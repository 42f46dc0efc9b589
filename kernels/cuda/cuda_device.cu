/* The CUDA device: opening it, its memory, copies between it and the host, and the table of its kernels.
 *
 * Memory comes from the driver's stream-ordered pool, which keeps what is freed. Copies from the host pass through rings of
 * pinned memory: `put` returns once the bytes are in one, and the GPU takes them in order with the kernels; weights stream
 * from a mapped file that way, some megabytes at a time, which several threads fetch. What is `sent` has a ring and a stream of its
 * own beside the kernels', which waits for the mark it was given, and for which the kernels' stream waits before the first of them that comes after. */
#include "cuda_products.cuh"
#include "cuda_steps.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

sw_cuda_host cuda_host;

static const sw_kernels table = {
#define K(name, args) cuda_step_kernel<cuda_##name>::call,
#include "kernels/kernels.def"
};
/* The same but for two. */
#define cuda_linear_fwd cuda_linear_rounded
#define cuda_linear_act_fwd cuda_linear_act_rounded
static const sw_kernels table_rounding = {
#include "kernels/kernels.def"
};
#undef cuda_linear_act_fwd
#undef cuda_linear_fwd
#undef K

/* ---- rings: segments that are filled in turn; an event says when the GPU has read one */
enum { SEGMENT = 4 << 20, SEGMENTS = 8, SEND_SEGMENTS = 2, READ_HALF = 8 << 20 };
struct cuda_ring {
    cudaStream_t stream; /* of the copies */
    char *memory;
    cudaEvent_t read[SEGMENTS];
    bool used[SEGMENTS];
    int segments, segment;
    size_t at;
};

struct cuda_device {
    sw_device device; /* first: the callbacks are given this */
    sw_stream stream;
    cuda_ring put, send;
    cudaEvent_t sent;
    char *back[2]; /* for copies to the host */
    cudaEvent_t arrived[2];
    char name[32];
};

static sw_stream *stream_of(sw_device *d) { return d->stream; }

/* The current device is a property of the thread. */
static int enter(sw_stream *s)
{
    int now = -1;
    if (cudaGetDevice(&now) == cudaSuccess && now == s->index)
        return 0;
    CUDA_TRY(s, cudaSetDevice(s->index));
    return 0;
}

/* n: bytes that were asked for, 0: not known. */
static int out_of_memory(const sw_stream *s, size_t n)
{
    size_t left = 0, total = 0;
    char asked[64] = "";
    cudaMemGetInfo(&left, &total);
    if (n)
        snprintf(asked, sizeof asked, ": %.2f GB more were asked for", (double)n / 1e9);
    return cuda_fail("%s: out of memory%s (%.2f of %.2f GB are left); lower the batch size or the length, turn on recomputation, or use "
                     "a quantised model", s->name, asked, (double)left / 1e9, (double)total / 1e9);
}

int cuda_failed(const sw_stream *s, cudaError_t e, const char *what)
{
    cudaGetLastError();
    return e == cudaErrorMemoryAllocation ? out_of_memory(s, 0) : cuda_fail("%s: %s: %s", s->name, what, cudaGetErrorString(e));
}

void *cuda_allocate(sw_stream *s, size_t n)
{
    void *p = NULL;
    if (enter(s))
        return NULL;
    n = n ? n : 1;
    cudaError_t e = s->pools ? cudaMallocAsync(&p, n, s->stream) : cudaMalloc(&p, n);
    if (e == cudaErrorMemoryAllocation && s->pools) { /* what the pool keeps in pieces may do as a whole */
        cudaMemPool_t pool;
        cudaGetLastError();
        if (cudaStreamSynchronize(s->stream) == cudaSuccess && cudaDeviceGetDefaultMemPool(&pool, s->index) == cudaSuccess)
            cudaMemPoolTrimTo(pool, 0);
        e = cudaMallocAsync(&p, n, s->stream);
    }
    if (e == cudaErrorMemoryAllocation && cuda_sparse_trim(s)) {
        cudaGetLastError();
        e = s->pools ? cudaMallocAsync(&p, n, s->stream) : cudaMalloc(&p, n);
    }
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        out_of_memory(s, n);
    } else if (e != cudaSuccess) {
        cuda_failed(s, e, "memory");
    }
    return e == cudaSuccess ? p : NULL;
}

void cuda_release(sw_stream *s, void *p)
{
    if (!p || enter(s))
        return;
    if (s->pools)
        cudaFreeAsync(p, s->stream);
    else
        cudaFree(p);
}

void *cuda_scratch(sw_stream *s, size_t n)
{
    if (n <= s->scratch_bytes)
        return s->scratch;
    s->scratch_number++;
    if (s->capturing) /* a graph owns no memory: the call runs by itself */
        return NULL;
    cuda_release(s, s->scratch);
    s->scratch_bytes = 0;
    n += n / 4; /* lengths grow a little from batch to batch */
    s->scratch = cuda_allocate(s, n);
    if (s->scratch)
        s->scratch_bytes = n;
    return s->scratch;
}

static void *device_alloc(sw_device *d, size_t n)
{
    sw_stream *s = stream_of(d);
    return cuda_step_memory(s) ? NULL : cuda_allocate(s, n);
}

/* Before anything but a call of a kernel is done in the order of the stream. */
static int in_order(sw_stream *s) { return cuda_arrive(s) || cuda_settle(s) ? -1 : 0; }

static void device_free(sw_device *d, void *p)
{
    sw_stream *s = stream_of(d);
    if (cuda_step_memory(s) || in_order(s))
        cudaStreamSynchronize(s->stream); /* the message is there for the next call that fails */
    cuda_release(s, p);
}

static int device_begin(sw_device *d, uint64_t key)
{
    sw_stream *s = stream_of(d);
    return enter(s) || cuda_settle(s) || cuda_step_begin(s, key) ? -1 : 0;
}
static int device_end(sw_device *d) { return enter(stream_of(d)) || cuda_step_end(stream_of(d)) ? -1 : 0; }

static int copy_through(sw_stream *s, cuda_ring *r, void *to, const void *from, size_t n)
{
    while (n) {
        if (r->at == SEGMENT) {
            CUDA_TRY(s, cudaEventRecord(r->read[r->segment], r->stream));
            r->used[r->segment] = true;
            r->segment = (r->segment + 1) % r->segments;
            r->at = 0;
            if (r->used[r->segment])
                CUDA_TRY(s, cudaEventSynchronize(r->read[r->segment]));
        }
        size_t part = SEGMENT - r->at < n ? SEGMENT - r->at : n;
        char *pinned = r->memory + (size_t)r->segment * SEGMENT + r->at;
        cuda_host.copy(pinned, from, part);
        CUDA_TRY(s, cudaMemcpyAsync(to, pinned, part, cudaMemcpyHostToDevice, r->stream));
        r->at += (part + 255) & ~(size_t)255;
        if (r->at > SEGMENT)
            r->at = SEGMENT;
        to = (char *)to + part;
        from = (const char *)from + part;
        n -= part;
    }
    return 0;
}

static int device_put(sw_device *d, void *to, const void *from, size_t n)
{
    sw_stream *s = stream_of(d);
    if (enter(s) || in_order(s) || cuda_sparse_touch(s, to, n))
        return -1;
    int staged = cuda_step_put(s, to, from, n);
    return staged ? (staged < 0 ? -1 : 0) : copy_through(s, &((cuda_device *)d)->put, to, from, n);
}

/* In a step the copy is a part of its graph. */
static int device_send(sw_device *d, void *to, const void *from, size_t n, void *after)
{
    cuda_device *c = (cuda_device *)d;
    sw_stream *s = &c->stream;
    if (s->in_step)
        return device_put(d, to, from, n);
    if (enter(s))
        return -1;
    if (after)
        CUDA_TRY(s, cudaStreamWaitEvent(c->send.stream, (cudaEvent_t)after, 0));
    s->coming = &c->device;
    return copy_through(s, &c->send, to, from, n);
}

int cuda_wait_for_sent(sw_stream *s)
{
    cuda_device *c = (cuda_device *)s->coming;
    s->coming = NULL;
    CUDA_TRY(s, cudaEventRecord(c->sent, c->send.stream));
    CUDA_TRY(s, cudaStreamWaitEvent(s->stream, c->sent, 0));
    return 0;
}

/* Two halves: while the host takes one away the other is filled. */
static int device_get(sw_device *d, void *to, const void *from, size_t n)
{
    cuda_device *c = (cuda_device *)d;
    sw_stream *s = &c->stream;
    size_t asked = 0, taken = 0;
    if (enter(s) || in_order(s) || cuda_sparse_touch(s, from, n) || cuda_step_boundary(s))
        return -1;
    for (int i = 0; taken < n; i++) {
        for (; asked < n && asked - taken < 2 * (size_t)READ_HALF; asked += READ_HALF) {
            int half = (int)(asked / READ_HALF % 2);
            size_t part = n - asked < (size_t)READ_HALF ? n - asked : (size_t)READ_HALF;
            CUDA_TRY(s, cudaMemcpyAsync(c->back[half], (const char *)from + asked, part, cudaMemcpyDeviceToHost, s->stream));
            CUDA_TRY(s, cudaEventRecord(c->arrived[half], s->stream));
        }
        size_t part = n - taken < (size_t)READ_HALF ? n - taken : (size_t)READ_HALF;
        CUDA_TRY(s, cudaEventSynchronize(c->arrived[i % 2]));
        cuda_host.copy((char *)to + taken, c->back[i % 2], part);
        taken += part;
    }
    return 0;
}

static int device_sync(sw_device *d)
{
    sw_stream *s = stream_of(d);
    if (enter(s) || in_order(s) || cuda_step_boundary(s))
        return -1;
    CUDA_TRY(s, cudaStreamSynchronize(s->stream));
    return 0;
}

static void *device_mark(sw_device *d, void *was)
{
    sw_stream *s = stream_of(d);
    cudaEvent_t e = (cudaEvent_t)was;
    if (enter(s) || in_order(s) || cuda_step_boundary(s))
        return NULL;
    cudaError_t rc = e ? cudaSuccess : cudaEventCreateWithFlags(&e, cudaEventDisableTiming);
    rc = rc == cudaSuccess ? cudaEventRecord(e, s->stream) : rc;
    if (rc == cudaSuccess)
        return e;
    cuda_failed(s, rc, "event");
    return NULL;
}

static void device_unmark(sw_device *d, void *mark)
{
    if (mark && !enter(stream_of(d)))
        cudaEventDestroy((cudaEvent_t)mark);
}

static int device_memory(sw_device *d, size_t *left, size_t *total)
{
    sw_stream *s = stream_of(d);
    if (enter(s))
        return -1;
    CUDA_TRY(s, cudaMemGetInfo(left, total));
    return 0;
}

static void close_ring(cuda_ring *r)
{
    for (int i = 0; i < r->segments && r->read[i]; i++)
        cudaEventDestroy(r->read[i]);
    cudaFreeHost(r->memory);
    if (r->stream)
        cudaStreamDestroy(r->stream);
}

static void device_close(sw_device *d)
{
    cuda_device *c = (cuda_device *)d;
    sw_stream *s = &c->stream;
    if (enter(s))
        return;
    if (c->send.stream)
        cudaStreamSynchronize(c->send.stream);
    if (cuda_settle(s)) /* what nobody has read */
        cudaGetLastError();
    cudaStreamSynchronize(s->stream);
    cuda_steps_close(s);
    cuda_products_close(s);
    cuda_sparse_close(s);
    cuda_release(s, s->scratch);
    for (int i = 0; i < 2; i++) {
        if (c->arrived[i])
            cudaEventDestroy(c->arrived[i]);
        cudaFreeHost(c->back[i]);
    }
    if (c->sent)
        cudaEventDestroy(c->sent);
    close_ring(&c->send);
    close_ring(&c->put); /* with the stream of the kernels */
    free(c);
}

static int open_ring(const sw_stream *s, cuda_ring *r, int segments)
{
    CUDA_TRY(s, cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking));
    CUDA_TRY(s, cudaMallocHost((void **)&r->memory, (size_t)SEGMENT * (size_t)segments));
    for (r->segments = 0; r->segments < segments; r->segments++)
        CUDA_TRY(s, cudaEventCreateWithFlags(&r->read[r->segments], cudaEventDisableTiming));
    return 0;
}

static int open_copies(cuda_device *c)
{
    const sw_stream *s = &c->stream;
    for (int i = 0; i < 2; i++) {
        CUDA_TRY(s, cudaMallocHost((void **)&c->back[i], READ_HALF));
        CUDA_TRY(s, cudaEventCreateWithFlags(&c->arrived[i], cudaEventDisableTiming));
    }
    CUDA_TRY(s, cudaEventCreateWithFlags(&c->sent, cudaEventDisableTiming));
    return open_ring(s, &c->send, SEND_SEGMENTS);
}

/* Says what is in the way of using device `index`; 0 when nothing is. */
static int usable(const char *name, int index)
{
    int driver = 0, runtime = 0, count = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (!driver)
        return cuda_fail("device '%s': there is no NVIDIA driver on this machine; install one, or use --device cpu", name);
    cudaError_t e = cudaGetDeviceCount(&count);
    if (e == cudaErrorInsufficientDriver || driver / 1000 < runtime / 1000)
        return cuda_fail("device '%s': the NVIDIA driver serves CUDA %d.%d and this build needs %d.%d or later; update the driver, "
                         "or build with an older CUDA toolkit", name, driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (e == cudaErrorNoDevice || (e == cudaSuccess && !count))
        return cuda_fail("device '%s': there is a driver but no GPU; use --device cpu", name);
    if (e != cudaSuccess)
        return cuda_fail("device '%s': %s", name, cudaGetErrorString(e));
    if (index >= count)
        return cuda_fail("device '%s': this machine has %d GPU%s, numbered from 0", name, count, count == 1 ? "" : "s");
    return 0;
}

static int open_stream(cuda_device *c, const cudaDeviceProp *p)
{
    sw_stream *s = &c->stream;
    CUDA_TRY(s, cudaSetDevice(s->index));
    if (open_ring(s, &c->put, SEGMENTS))
        return -1;
    s->stream = c->put.stream;
    s->sms = p->multiProcessorCount;
    s->capability = p->major * 10 + p->minor;
    s->shared_most = p->sharedMemPerBlockOptin;
    const char *warpgroups = getenv("SWIFT_WARPGROUPS");
    s->warpgroups = warpgroups && *warpgroups == '1';
    cudaMemPool_t pool;
    if (p->memoryPoolsSupported && cudaDeviceGetDefaultMemPool(&pool, s->index) == cudaSuccess) {
        uint64_t keep = UINT64_MAX;
        CUDA_TRY(s, cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep));
        s->pools = true;
    }
    return open_copies(c) || cuda_sparse_open(s, &c->device) || cuda_steps_open(s) || cuda_products_open(s);
}

extern "C" __attribute__((visibility("default"))) sw_device *SW_CUDA_ENTRY(const sw_cuda_host *host, const char *prefix, int index)
{
    cuda_host = *host;
    if (host->sizes != SW_CUDA_SIZES || strcmp(host->interface, sw_cuda_interface)) {
        cuda_fail("device '%s': libswift-cuda.so was built from other sources than this program; build both together", prefix);
        return NULL;
    }
    char name[32];
    snprintf(name, sizeof name, "%s:%d", prefix, index);
    cudaDeviceProp p;
    if (usable(name, index))
        return NULL;
    cudaError_t e = cudaGetDeviceProperties(&p, index);
    if (e != cudaSuccess) {
        cuda_fail("device '%s': %s", name, cudaGetErrorString(e));
        return NULL;
    }
    if (p.major * 10 + p.minor < SW_CUDA_OLDEST) {
        cuda_fail("device '%s': %s has compute capability %d.%d, and this build needs %d.%d or later (make CUDA_ARCHS=%d%d)", name, p.name,
                  p.major, p.minor, SW_CUDA_OLDEST / 10, SW_CUDA_OLDEST % 10, p.major, p.minor);
        return NULL;
    }
    cuda_device *c = (cuda_device *)calloc(1, sizeof *c);
    if (!c) {
        cuda_fail("device '%s': out of memory", name);
        return NULL;
    }
    snprintf(c->name, sizeof c->name, "%s", name);
    c->stream.index = index;
    c->stream.name = c->device.name = c->name;
    c->device.k = &table;
    c->device.stream = &c->stream;
    c->device.low_precision = p.major >= 8;
    if (p.major * 10 + p.minor >= 89) /* products of 8-bit floats */
        c->device.rounding = &table_rounding;
    c->device.alloc = device_alloc;
    c->device.free = device_free;
    c->device.put = device_put;
    c->device.send = device_send;
    c->device.get = device_get;
    c->device.sync = device_sync;
    c->device.mark = device_mark;
    c->device.unmark = device_unmark;
    c->device.memory = device_memory;
    c->device.begin = device_begin;
    c->device.end = device_end;
    c->device.close = device_close;
    snprintf(c->device.description, sizeof c->device.description, "%.80s, %.0f GB", p.name, (double)p.totalGlobalMem / 1e9);
    if (open_stream(c, &p)) {
        device_close(&c->device);
        return NULL;
    }
    return &c->device;
}

/* ---- rows */

rows_shape cuda_rows(rows_of *out, const sw_tensor *const *t, int n, bool keep_rows)
{
    const sw_tensor *first = NULL;
    for (int i = 0; i < n; i++)
        first = t[i] ? (first ? first : t[i]) : first;
    int dims = first->ndim;
    rows_shape g = {1, dims ? first->shape[dims - 1] : 1, 0, {}};
    int64_t dim[SW_MAX_DIMS], stride[8][SW_MAX_DIMS];
    int outer = 0; /* innermost first, while they are merged */
    for (int d = dims - 2; d >= 0; d--) {
        int64_t size = first->shape[d];
        g.rows *= size;
        if (size == 1)
            continue;
        bool merges = true, whole = outer == 0 && !keep_rows;
        for (int i = 0; i < n && (outer || whole); i++)
            if (t[i])
                merges = merges && t[i]->stride[d] == (outer ? dim[outer - 1] * stride[i][outer - 1] : g.width);
        if (merges && outer) {
            dim[outer - 1] *= size;
        } else if (merges && whole) {
            g.width *= size;
            g.rows /= size ? size : 1;
        } else {
            dim[outer] = size;
            for (int i = 0; i < n; i++)
                stride[i][outer] = t[i] ? t[i]->stride[d] : 0;
            outer++;
        }
    }
    g.outer = outer;
    for (int k = 0; k < outer; k++)
        g.dim[outer - 1 - k] = dim[k];
    for (int i = 0; i < n; i++) {
        out[i] = rows_of{t[i] ? t[i]->data : NULL, t[i] ? (int)t[i]->dtype : 0, {}};
        for (int k = 0; k < outer; k++)
            out[i].stride[outer - 1 - k] = stride[i][k];
    }
    return g;
}
