/* See cuda_sparse.cuh. A piece costs about 20 us to map; those that are given back are kept for the next, wherever it is. */
#include "cuda_sparse.cuh"
#include "cuda_steps.cuh"

#include <cuda.h>

#include <mutex>
#include <vector>

namespace {

struct driver {
    decltype(&cuDeviceGetAttribute) attribute;
    decltype(&cuMemGetAllocationGranularity) granularity;
    decltype(&cuMemAddressReserve) reserve;
    decltype(&cuMemAddressFree) unreserve;
    decltype(&cuMemCreate) create;
    decltype(&cuMemRelease) release;
    decltype(&cuMemMap) map;
    decltype(&cuMemUnmap) unmap;
    decltype(&cuMemSetAccess) access;
};

typedef CUmemGenericAllocationHandle piece; /* 0: none */

/* Piece `index` of a range was given back when `event` was recorded: kernels asked for before may still use it. */
struct leaving {
    size_t range, index;
    cudaEvent_t event;
};

struct sparse_range {
    char *base;
    std::vector<piece> pieces;
    std::vector<bool> gone; /* given back, and not unmapped yet */
};

} // namespace

struct cuda_sparse {
    driver call;
    CUmemAllocationProp kind;
    size_t size; /* of a piece */
    std::mutex lock;
    std::vector<sparse_range> ranges; /* base NULL: free for the next */
    std::vector<leaving> leaves;
    std::vector<piece> idle;
};

namespace {

int failed(const sw_stream *s, CUresult e, const char *what)
{
    return e == CUDA_ERROR_OUT_OF_MEMORY ? cuda_failed(s, cudaErrorMemoryAllocation, what)
                                         : cuda_fail("%s: %s: the driver says error %d", s->name, what, (int)e);
}

template <class F> bool entry(F *f, const char *name)
{
    void *p = NULL;
    cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
    cudaError_t e = cudaGetDriverEntryPointByVersion(name, &p, 12000, cudaEnableDefault, &found);
#else
    cudaError_t e = cudaGetDriverEntryPoint(name, &p, cudaEnableDefault, &found);
#endif
    *f = (F)p;
    return e == cudaSuccess && found == cudaDriverEntryPointSuccess && p;
}

bool find(driver *d)
{
    return entry(&d->attribute, "cuDeviceGetAttribute") && entry(&d->granularity, "cuMemGetAllocationGranularity") &&
           entry(&d->reserve, "cuMemAddressReserve") && entry(&d->unreserve, "cuMemAddressFree") && entry(&d->create, "cuMemCreate") &&
           entry(&d->release, "cuMemRelease") && entry(&d->map, "cuMemMap") && entry(&d->unmap, "cuMemUnmap") &&
           entry(&d->access, "cuMemSetAccess");
}

CUdeviceptr place(const cuda_sparse *o, const sparse_range *r, size_t i) { return (CUdeviceptr)(uintptr_t)(r->base + i * o->size); }

/* Unmaps what was given back and is not used any more; waits for it where `wait`. */
int reap(sw_stream *s, bool wait)
{
    cuda_sparse *o = s->sparse;
    size_t kept = 0;
    for (size_t i = 0; i < o->leaves.size(); i++) {
        leaving l = o->leaves[i];
        sparse_range *r = &o->ranges[l.range];
        bool gone = r->base && r->gone[l.index];
        cudaError_t e = !gone ? cudaSuccess : wait ? cudaEventSynchronize(l.event) : cudaEventQuery(l.event);
        if (e == cudaErrorNotReady) {
            o->leaves[kept++] = l;
            continue;
        }
        CUDA_TRY(s, e);
        cudaEventDestroy(l.event);
        if (!gone)
            continue;
        CUresult u = o->call.unmap(place(o, r, l.index), o->size);
        if (u != CUDA_SUCCESS)
            return failed(s, u, "memory of a part");
        o->idle.push_back(r->pieces[l.index]);
        r->pieces[l.index] = 0;
        r->gone[l.index] = false;
    }
    o->leaves.resize(kept);
    return 0;
}

int take(sw_stream *s, piece *p)
{
    cuda_sparse *o = s->sparse;
    if (o->idle.empty() && reap(s, false))
        return -1;
    if (o->idle.empty()) {
        CUresult e = o->call.create(p, o->size, &o->kind, 0);
        if (e != CUDA_ERROR_OUT_OF_MEMORY)
            return e == CUDA_SUCCESS ? 0 : failed(s, e, "memory of a part");
        if (reap(s, true))
            return -1;
        if (o->idle.empty())
            return failed(s, e, "memory of a part");
    }
    *p = o->idle.back();
    o->idle.pop_back();
    return 0;
}

int make(sw_stream *s, sparse_range *r, size_t i)
{
    cuda_sparse *o = s->sparse;
    if (r->pieces[i] && !r->gone[i])
        return 0;
    if (r->pieces[i]) {
        r->gone[i] = false; /* its entry in leaves finds it so */
    } else {
        piece p;
        CUmemAccessDesc all = {};
        all.location = o->kind.location;
        all.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
        if (take(s, &p))
            return -1;
        CUresult e = o->call.map(place(o, r, i), o->size, 0, p, 0);
        if (e == CUDA_SUCCESS) {
            r->pieces[i] = p;
            e = o->call.access(place(o, r, i), o->size, &all, 1);
        } else {
            o->idle.push_back(p);
        }
        if (e != CUDA_SUCCESS)
            return failed(s, e, "memory of a part");
    }
    CUDA_TRY(s, cudaMemsetAsync(r->base + i * o->size, 0, o->size, s->stream));
    return 0;
}

/* The range that p lies in, and the part of [p, p + n) in it. */
sparse_range *range_of(cuda_sparse *o, const void *p, size_t *n, size_t *at)
{
    for (sparse_range &r : o->ranges) {
        size_t bytes = r.pieces.size() * o->size;
        if (!r.base || (const char *)p < r.base || (const char *)p >= r.base + bytes)
            continue;
        *at = (size_t)((const char *)p - r.base);
        *n = *n < bytes - *at ? *n : bytes - *at;
        return &r;
    }
    return NULL;
}

int enter(sw_stream *s)
{
    CUDA_TRY(s, cudaSetDevice(s->index));
    return 0;
}

void *reserve(sw_device *d, size_t n)
{
    sw_stream *s = d->stream;
    cuda_sparse *o = s->sparse;
    std::lock_guard<std::mutex> hold(o->lock);
    size_t pieces = (n + o->size - 1) / o->size + (n ? 0 : 1), at = 0;
    CUdeviceptr p = 0;
    if (enter(s))
        return NULL;
    CUresult e = o->call.reserve(&p, pieces * o->size, o->size, 0, 0);
    if (e != CUDA_SUCCESS) {
        failed(s, e, "address space");
        return NULL;
    }
    while (at < o->ranges.size() && o->ranges[at].base)
        at++;
    if (at == o->ranges.size())
        o->ranges.push_back({});
    o->ranges[at] = sparse_range{(char *)(uintptr_t)p, std::vector<piece>(pieces), std::vector<bool>(pieces)};
    return (void *)(uintptr_t)p;
}

/* Whole pieces leave; what is left of the others at both ends is cleared. */
void release(sw_device *d, void *p, size_t n)
{
    sw_stream *s = d->stream;
    cuda_sparse *o = s->sparse;
    if (cuda_settle(s))
        cudaGetLastError(); /* the message is there for the next call that fails */
    std::lock_guard<std::mutex> hold(o->lock);
    size_t at;
    sparse_range *r = range_of(o, p, &n, &at);
    if (!r || enter(s))
        return;
    for (size_t end = at + n; at < end;) {
        size_t i = at / o->size, begins = i * o->size, next = begins + o->size < end ? begins + o->size : end;
        bool whole = at == begins && next == begins + o->size;
        leaving l = {(size_t)(r - o->ranges.data()), i, NULL};
        if (r->pieces[i] && !r->gone[i]) {
            whole = whole && cudaEventCreateWithFlags(&l.event, cudaEventDisableTiming) == cudaSuccess &&
                    cudaEventRecord(l.event, s->stream) == cudaSuccess;
            if (whole) {
                r->gone[i] = true;
                o->leaves.push_back(l);
            } else {
                cudaMemsetAsync(r->base + at, 0, next - at, s->stream);
            }
        }
        at = next;
    }
    reap(s, false);
}

void unreserve(sw_device *d, void *p, size_t n)
{
    sw_stream *s = d->stream;
    cuda_sparse *o = s->sparse;
    if (cuda_settle(s))
        cudaGetLastError(); /* the message is there for the next call that fails */
    std::lock_guard<std::mutex> hold(o->lock);
    size_t at;
    sparse_range *r = range_of(o, p, &n, &at);
    if (!r || enter(s))
        return;
    cudaStreamSynchronize(s->stream);
    reap(s, true);
    for (size_t i = 0; i < r->pieces.size(); i++)
        if (r->pieces[i]) {
            o->call.unmap(place(o, r, i), o->size);
            o->call.release(r->pieces[i]);
        }
    o->call.unreserve((CUdeviceptr)(uintptr_t)r->base, r->pieces.size() * o->size);
    *r = sparse_range{};
    for (piece w : o->idle) /* a trainer that ends */
        o->call.release(w);
    o->idle.clear();
}

int commit(sw_device *d, void *p, size_t n) { return enter(d->stream) || cuda_sparse_touch(d->stream, p, n) ? -1 : 0; }

} // namespace

int cuda_sparse_touch(sw_stream *s, const void *p, size_t n)
{
    cuda_sparse *o = s->sparse;
    size_t at;
    if (!o || o->ranges.empty() || !n)
        return 0;
    std::lock_guard<std::mutex> hold(o->lock);
    sparse_range *r = range_of(o, p, &n, &at);
    for (size_t i = r ? at / o->size : 0; r && i <= (at + n - 1) / o->size; i++)
        if (make(s, r, i))
            return -1;
    return 0;
}

bool cuda_sparse_trim(sw_stream *s)
{
    cuda_sparse *o = s->sparse;
    if (!o || !o->lock.try_lock()) /* it is this that asks for memory */
        return false;
    bool some = !reap(s, true) && !o->idle.empty();
    for (piece w : o->idle)
        o->call.release(w);
    o->idle.clear();
    o->lock.unlock();
    return some;
}

int cuda_sparse_open(sw_stream *s, sw_device *d)
{
    driver call;
    int can = 0;
    if (!find(&call) || call.attribute(&can, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, s->index) != CUDA_SUCCESS || !can) {
        cudaGetLastError();
        return 0;
    }
    cuda_sparse *o = s->sparse = new cuda_sparse();
    o->call = call;
    o->kind.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    o->kind.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    o->kind.location.id = s->index;
    CUresult e = call.granularity(&o->size, &o->kind, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
    if (e != CUDA_SUCCESS)
        return failed(s, e, "memory");
    d->reserve = reserve;
    d->release = release;
    d->unreserve = unreserve;
    d->commit = commit;
    return 0;
}

void cuda_sparse_close(sw_stream *s)
{
    cuda_sparse_trim(s);
    delete s->sparse;
    s->sparse = NULL;
}
