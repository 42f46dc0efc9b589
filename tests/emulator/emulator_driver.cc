/* Virtual memory of the emulated device. A piece that is mapped holds what was left there before, and what is not mapped
 * cannot be touched. */
#include "cuda.h"

#include "emulator_memory.h"

#include <cstdio>
#include <map>
#include <mutex>
#include <sys/mman.h>

static size_t piece_size(void)
{
    static const char *text = getenv("SWIFT_EMULATOR_PIECE");
    static const size_t n = text && atol(text) > 0 ? (size_t)atol(text) : 64 << 10;
    return n;
}
#define PIECE piece_size()
static std::mutex lock;
static std::map<CUmemGenericAllocationHandle, CUdeviceptr> pieces; /* where each is mapped; 0: nowhere */
static CUmemGenericAllocationHandle last;

CUresult cuDeviceGetAttribute(int *v, CUdevice_attribute, CUdevice)
{
    *v = 1;
    return CUDA_SUCCESS;
}
CUresult cuMemGetAllocationGranularity(size_t *n, const CUmemAllocationProp *, CUmemAllocationGranularity_flags)
{
    *n = PIECE;
    return CUDA_SUCCESS;
}
CUresult cuMemAddressReserve(CUdeviceptr *p, size_t n, size_t, CUdeviceptr, unsigned long long)
{
    void *at = n % PIECE ? MAP_FAILED : mmap(nullptr, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    *p = (CUdeviceptr)(uintptr_t)at;
    return at == MAP_FAILED ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
CUresult cuMemAddressFree(CUdeviceptr p, size_t n)
{
    std::lock_guard<std::mutex> hold(lock);
    for (auto &i : pieces)
        if (i.second >= p && i.second < p + n)
            return CUDA_ERROR_INVALID_VALUE;
    return munmap((void *)(uintptr_t)p, n) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
CUresult cuMemCreate(CUmemGenericAllocationHandle *h, size_t n, const CUmemAllocationProp *, unsigned long long)
{
    size_t left, total;
    cudaMemGetInfo(&left, &total);
    std::lock_guard<std::mutex> hold(lock);
    if (n != PIECE)
        return CUDA_ERROR_INVALID_VALUE;
    if (left < n)
        return CUDA_ERROR_OUT_OF_MEMORY;
    sw_emu_count_used(n, true);
    pieces[*h = ++last] = 0;
    return CUDA_SUCCESS;
}
CUresult cuMemRelease(CUmemGenericAllocationHandle h)
{
    std::lock_guard<std::mutex> hold(lock);
    auto found = pieces.find(h);
    if (found == pieces.end() || found->second)
        return CUDA_ERROR_INVALID_VALUE;
    sw_emu_count_used(PIECE, false);
    pieces.erase(found);
    return CUDA_SUCCESS;
}
CUresult cuMemMap(CUdeviceptr p, size_t n, size_t offset, CUmemGenericAllocationHandle h, unsigned long long)
{
    std::lock_guard<std::mutex> hold(lock);
    auto found = pieces.find(h);
    if (found == pieces.end() || found->second || n != PIECE || offset || p % 4096)
        return CUDA_ERROR_INVALID_VALUE;
    found->second = p;
    return CUDA_SUCCESS;
}
CUresult cuMemUnmap(CUdeviceptr p, size_t n)
{
    std::lock_guard<std::mutex> hold(lock);
    for (auto &i : pieces)
        if (i.second == p && n == PIECE) {
            i.second = 0;
            sw_emu_show((void *)(uintptr_t)p, n, false);
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_VALUE;
}
CUresult cuMemSetAccess(CUdeviceptr p, size_t n, const CUmemAccessDesc *, size_t)
{
    std::lock_guard<std::mutex> hold(lock);
    for (auto &i : pieces)
        if (i.second == p && n == PIECE) {
            sw_emu_show((void *)(uintptr_t)p, n, true);
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_VALUE;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **f, unsigned, unsigned long long, cudaDriverEntryPointQueryResult *found)
{
    static const struct {
        const char *name;
        void *f;
    } known[] = {{"cuDeviceGetAttribute", (void *)cuDeviceGetAttribute}, {"cuMemGetAllocationGranularity", (void *)cuMemGetAllocationGranularity},
                 {"cuMemAddressReserve", (void *)cuMemAddressReserve},   {"cuMemAddressFree", (void *)cuMemAddressFree},
                 {"cuMemCreate", (void *)cuMemCreate},                   {"cuMemRelease", (void *)cuMemRelease},
                 {"cuMemMap", (void *)cuMemMap},                         {"cuMemUnmap", (void *)cuMemUnmap},
                 {"cuMemSetAccess", (void *)cuMemSetAccess}};
    *f = nullptr;
    for (auto &k : known)
        if (!strcmp(k.name, name))
            *f = k.f;
    *found = *f ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
