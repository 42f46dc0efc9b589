/* Devices and memory of the emulated runtime. */
#include "cuda_runtime.h"

#include "emulator_control.h"
#include "emulator_memory.h"
#include "emulator_streams.h"

#include <cstdio>
#include <map>
#include <mutex>
#include <unistd.h>

static long setting(const char *name, long usual)
{
    const char *text = getenv(name);
    return text && *text ? atol(text) : usual;
}

sw_emulator_counts sw_emu_count;

static void write_counts(void)
{
    FILE *f = fopen(getenv("SWIFT_EMULATOR_COUNTS"), "w");
    const sw_emulator_counts &c = sw_emu_count;
    if (f)
        fprintf(f, "allocations %ld\npinned %ld\nlaunches %ld\ncaptures %ld\ngraphs %ld\nbeside %ld\nwaits %ld\n", c.allocations, c.pinned,
                c.launches, c.captures, c.graphs, c.beside, c.waits);
    if (f)
        fclose(f);
}
static const int at_exit = getenv("SWIFT_EMULATOR_COUNTS") ? atexit(write_counts) : 0;

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

/* ---- memory */

cudaError_t cudaMalloc(void **p, size_t n)
{
    if (sw_emu_outside_capture())
        return cudaErrorStreamCaptureUnsupported;
    sw_emu_count.allocations++;
    *p = sw_emu_used() + n <= device_memory() ? sw_emu_alloc(n) : nullptr;
    return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFree(void *p)
{
    if (sw_emu_outside_capture())
        return cudaErrorStreamCaptureUnsupported;
    sw_emu_run_all(); /* it waits for the device */
    sw_emu_release(p);
    return cudaSuccess;
}
cudaError_t cudaMallocAsync(void **p, size_t n, cudaStream_t) { return cudaMalloc(p, n); }
cudaError_t cudaFreeAsync(void *p, cudaStream_t s)
{
    if (sw_emu_outside_capture())
        return cudaErrorStreamCaptureUnsupported;
    sw_emu_give(s, [=] { sw_emu_release(p); });
    return cudaSuccess;
}

static std::map<char *, size_t> pinned;
static std::mutex pinned_lock;
bool sw_emu_is_pinned(const void *p, size_t n)
{
    std::lock_guard<std::mutex> hold(pinned_lock);
    auto found = pinned.upper_bound((char *)p);
    return found != pinned.begin() && (--found)->first + found->second >= (const char *)p + n;
}
cudaError_t cudaMallocHost(void **p, size_t n)
{
    if (sw_emu_outside_capture())
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
