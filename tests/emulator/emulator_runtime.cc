/* Devices, memory, streams and events of the emulated runtime. */
#include "cuda_runtime.h"

#include "emulator_control.h"
#include "emulator_memory.h"

#include <cstdio>
#include <map>
#include <mutex>
#include <unistd.h>
#include <vector>

static long setting(const char *name, long usual)
{
    const char *text = getenv(name);
    return text && *text ? atol(text) : usual;
}

sw_emulator_counts sw_emu_count;

static size_t device_memory(void)
{
    long said = setting("SWIFT_EMULATOR_MEMORY", 0);
    return said > 0 ? (size_t)said : (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
}

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = (int)setting("SWIFT_EMULATOR_GPUS", 2);
    return *n ? cudaSuccess : cudaErrorNoDevice;
}
static thread_local int current;
cudaError_t cudaGetDevice(int *index)
{
    *index = current;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int index)
{
    if (index < 0 || index > 1)
        return cudaErrorInvalidDevice;
    current = index;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int)
{
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated GPU");
    p->totalGlobalMem = device_memory();
    p->sharedMemPerBlockOptin = 227 << 10;
    p->major = (int)setting("SWIFT_EMULATOR_CAPABILITY", 90) / 10;
    p->minor = (int)setting("SWIFT_EMULATOR_CAPABILITY", 90) % 10;
    p->multiProcessorCount = 4;
    p->memoryPoolsSupported = 1;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *v)
{
    *v = (int)setting("SWIFT_EMULATOR_DRIVER", 13000);
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *v)
{
    *v = 13000;
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *unused, size_t *total)
{
    size_t used = sw_emu_used();
    *total = device_memory();
    *unused = used < *total ? *total - used : 0;
    return cudaSuccess;
}

/* ---- graphs: what a stream was given while it captured */

struct sw_emu_graph { std::vector<std::function<void()>> calls; };
struct sw_emu_stream {
    sw_emu_graph *graph;
    bool spoilt; /* by something that cannot be in a graph */
};
static std::vector<sw_emu_stream *> capturing;

bool sw_emu_capturing(cudaStream_t s) { return s && s->graph; }
void sw_emu_capture(cudaStream_t s, std::function<void()> run) { s->graph->calls.push_back(std::move(run)); }

/* Calls that may not be made while a stream of the thread captures. */
static cudaError_t outside_capture(void)
{
    for (sw_emu_stream *s : capturing)
        s->spoilt = true;
    return capturing.empty() ? cudaSuccess : cudaErrorStreamCaptureUnsupported;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode)
{
    if (!s || s->graph)
        return cudaErrorInvalidValue;
    *s = {new sw_emu_graph, false};
    capturing.push_back(s);
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    if (!sw_emu_capturing(s))
        return cudaErrorInvalidValue;
    *g = s->graph;
    s->graph = nullptr;
    capturing.clear();
    sw_emu_count.captures++;
    if (!s->spoilt)
        return cudaSuccess;
    delete *g;
    *g = nullptr;
    return cudaErrorStreamCaptureInvalidated;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *made, cudaGraph_t g, unsigned long long)
{
    if (outside_capture())
        return cudaErrorStreamCaptureUnsupported;
    *made = new sw_emu_graph(*g);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    delete g;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) { return cudaGraphDestroy(g); }
cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t)
{
    sw_emu_count.graphs++;
    for (auto &run : g->calls)
        run();
    return cudaGetLastError();
}

/* ---- memory */

cudaError_t cudaMalloc(void **p, size_t n)
{
    if (outside_capture())
        return cudaErrorStreamCaptureUnsupported;
    sw_emu_count.allocations++;
    *p = sw_emu_used() + n <= device_memory() ? sw_emu_alloc(n) : nullptr;
    return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFree(void *p)
{
    if (outside_capture())
        return cudaErrorStreamCaptureUnsupported;
    sw_emu_release(p);
    return cudaSuccess;
}
cudaError_t cudaMallocAsync(void **p, size_t n, cudaStream_t) { return cudaMalloc(p, n); }
cudaError_t cudaFreeAsync(void *p, cudaStream_t) { return cudaFree(p); }

static std::map<char *, size_t> pinned;
static std::mutex pinned_lock;
static bool is_pinned(const void *p, size_t n)
{
    std::lock_guard<std::mutex> hold(pinned_lock);
    auto found = pinned.upper_bound((char *)p);
    return found != pinned.begin() && (--found)->first + found->second >= (const char *)p + n;
}
cudaError_t cudaMallocHost(void **p, size_t n)
{
    if (outside_capture())
        return cudaErrorStreamCaptureUnsupported;
    std::lock_guard<std::mutex> hold(pinned_lock);
    sw_emu_count.pinned++;
    *p = malloc(n);
    pinned[(char *)*p] = n;
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *p)
{
    std::lock_guard<std::mutex> hold(pinned_lock);
    pinned.erase((char *)p);
    free(p);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind kind, cudaStream_t s)
{
    auto run = [=] {
        sw_emu_access access;
        memcpy(to, from, n);
    };
    /* memory that is not pinned is read at once, which a graph cannot */
    if (kind != cudaMemcpyDeviceToDevice && sw_emu_capturing(s) && !is_pinned(kind == cudaMemcpyHostToDevice ? from : to, n))
        return outside_capture();
    if (sw_emu_capturing(s))
        sw_emu_capture(s, run);
    else
        run();
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t n, cudaStream_t s)
{
    auto run = [=] {
        sw_emu_access access;
        memset(to, value, n);
    };
    if (sw_emu_capturing(s))
        sw_emu_capture(s, run);
    else
        run();
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = new sw_emu_stream();
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    delete s;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return outside_capture(); }
struct sw_emu_event { int unused; };
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = new sw_emu_event();
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return outside_capture(); }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *p, int)
{
    *p = nullptr;
    return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, int, void *) { return cudaSuccess; }
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaSuccess; }
const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    default: return "invalid argument";
    }
}
