/* The part of CUDA's runtime that kernels/cuda uses, on the CPU: the same .cu text compiles as C++ with this folder in
 * the include path. A block's threads are fibers that yield where threads meet (barriers, shuffles, votes); everything
 * between two meetings runs undisturbed, one warp as far as it can go before the next, so that a forgotten barrier gives
 * wrong numbers (shared memory is filled with NaN before each block). Orders of blocks, warps and lanes come from
 * SWIFT_EMULATOR_SEED. Misuse (barriers that not all threads reach, lanes that a shuffle names and that are elsewhere)
 * ends the program with a message. Streams run in order, at once, or as late as events allow (emulator_streams.cc); what is
 * captured into a graph runs when that is launched. */
#ifndef SW_EMULATOR_CUDA_RUNTIME_H
#define SW_EMULATOR_CUDA_RUNTIME_H

#define SW_EMULATOR 1

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <tuple>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
#define __constant__
/* One block at a time runs on a thread of the host. */
#define __shared__ static thread_local

struct uint2 { unsigned x, y; };
struct uint3 { unsigned x, y, z; };
struct __align__(16) uint4 { unsigned x, y, z, w; };
struct __align__(8) float2 { float x, y; };
struct __align__(16) float4 { float x, y, z, w; };
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

/* ---- the running thread */
struct sw_emu_thread {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
    mutable bool waited; /* for the kernels before */
};
extern thread_local const sw_emu_thread *sw_emu_now;
#define threadIdx (sw_emu_now->thread)
#define blockIdx (sw_emu_now->block)
#define blockDim (sw_emu_now->block_dim)
#define gridDim (sw_emu_now->grid_dim)
enum { warpSize = 32 };

void sw_emu_block_sync(const char *file, int line);
/* All lanes of mask give a value and take the one of lane `from` (the vote: one bit each). */
uint64_t sw_emu_exchange(unsigned mask, uint64_t value, int from, const char *file, int line);
unsigned sw_emu_vote(unsigned mask, bool yes, const char *file, int line);
/* An instruction of a whole warp: what each lane gives a pointer to is worked on when all have come. */
typedef void (*sw_emu_meeting)(void *const *lanes);
void sw_emu_meet(void *own, sw_emu_meeting meeting, const char *file, int line);
void *sw_emu_dynamic_shared(void);
int sw_emu_lane(void);

#define __syncthreads() sw_emu_block_sync(__FILE__, __LINE__)
#define __syncwarp(...) sw_emu_warp_sync_(__FILE__, __LINE__, ##__VA_ARGS__)
static inline void sw_emu_warp_sync_(const char *file, int line, unsigned mask = 0xffffffffu)
{
    sw_emu_exchange(mask, 0, -1, file, line);
}
template <class T> static inline T sw_emu_shuffle_(const char *file, int line, unsigned mask, T v, int from)
{
    static_assert(sizeof(T) <= 8, "");
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    bits = sw_emu_exchange(mask, bits, from, file, line);
    memcpy(&v, &bits, sizeof v);
    return v;
}
#define __shfl_sync(mask, v, from) sw_emu_shuffle_(__FILE__, __LINE__, mask, v, (from)&31)
#define __shfl_xor_sync(mask, v, x) sw_emu_shuffle_(__FILE__, __LINE__, mask, v, sw_emu_lane() ^ (x))
#define __shfl_down_sync(mask, v, d) \
    sw_emu_shuffle_(__FILE__, __LINE__, mask, v, sw_emu_lane() + (d) < 32 ? sw_emu_lane() + (int)(d) : sw_emu_lane())
#define __shfl_up_sync(mask, v, d) \
    sw_emu_shuffle_(__FILE__, __LINE__, mask, v, sw_emu_lane() >= (int)(d) ? sw_emu_lane() - (int)(d) : sw_emu_lane())
#define __ballot_sync(mask, yes) sw_emu_vote(mask, (yes) != 0, __FILE__, __LINE__)
#define __any_sync(mask, yes) (sw_emu_vote(mask, (yes) != 0, __FILE__, __LINE__) != 0)
#define __all_sync(mask, yes) (sw_emu_vote(mask, (yes) != 0, __FILE__, __LINE__) == (unsigned)(mask))
#define __activemask() 0xffffffffu

/* What PTX's mma.m16n8k16 and ldmatrix.x4 do, with its layout of a warp's registers (PTX ISA, "Matrix Fragments"). */
void sw_emu_mma(float *d, const unsigned *a, const unsigned *b, bool bf16);
void sw_emu_ldmatrix(unsigned *r, const void *row, bool turned);

/* Products of a warpgroup (emulator_wgmma.cc) as PTX's wgmma makes them: d [n][4] a lane's sums; a four registers, or NULL: a_tile. A
 * group that is waited for is done; fewer than `most` are left. What cp.async has copied is there for them behind the fence. The four
 * warps of a group execute the same of all that; site: the line that asks. */
void sw_emu_wgmma(float *d, int n, const unsigned *a, uint64_t a_tile, uint64_t b_tile, bool across, bool add, bool bf16);
void sw_emu_wgmma_fence(int site);
void sw_emu_wgmma_commit(int site);
void sw_emu_wgmma_wait(int most, int site);
bool sw_emu_wgmma_ends(int warp);
/* Whether one of the 128 threads of the warpgroup says yes (PTX's barrier.red.or). */
bool sw_emu_warpgroup_any(bool yes, const char *file, int line);
void sw_emu_proxy_fence(void);
void sw_emu_check_copies_fenced(void);
/* Addresses in shared memory; the first is no multiple of more than 16. */
unsigned sw_emu_shared_address(const void *p);
const void *sw_emu_shared_pointer(unsigned address, size_t bytes);
void sw_emu_misuse(const char *what);

/* Copies of 16 bytes into shared memory, `bytes` of them from there and the rest zeros, that are under way until their thread has
 * waited for its own (PTX's cp.async): they arrive when it does, and NaN is there meanwhile. A thread's copies since its last commit
 * are a group; it waits for all but its `later` newest groups (and for what it has not committed to none), or for all copies. */
void sw_emu_copy_async(void *to, const void *from, int bytes);
void sw_emu_commit_copies(void);
void sw_emu_wait_groups(unsigned later);
void sw_emu_wait_copies(void);

/* ---- arithmetic */
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline int __float2int_rn(float v) { return (int)rintf(v); }
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
#define __expf(x) expf(x) /* a name that libm has too */
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __uint_as_float(unsigned u) { float f; memcpy(&f, &u, 4); return f; }
static inline unsigned __float_as_uint(float f) { unsigned u; memcpy(&u, &f, 4); return u; }
template <class T> static inline T __ldg(const T *p) { return *p; }
template <class T> static inline T __ldcs(const T *p) { return *p; }
template <class T> static inline T atomicAdd(T *p, T v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
template <class T> static inline T atomicMin(T *p, T v)
{
    T old = __atomic_load_n(p, __ATOMIC_SEQ_CST);
    while (v < old && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
    return old;
}
template <class T> static inline T atomicMax(T *p, T v)
{
    T old = __atomic_load_n(p, __ATOMIC_SEQ_CST);
    while (v > old && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
    return old;
}

/* ---- launches. A kernel that may begin before those ahead of it have ended has to wait for them, in each of its threads. Before it
 * has waited it copies nothing but what no other kernel of its graph writes (emulator_streams.cc compares). */
static inline void sw_emu_wait_for_earlier(void) { sw_emu_now->waited = true; }
void sw_emu_check_waited(void);
typedef struct sw_emu_stream *cudaStream_t;
typedef struct sw_emu_event *cudaEvent_t;
typedef int cudaError_t;
enum { cudaSuccess, cudaErrorInvalidValue, cudaErrorMemoryAllocation, cudaErrorInvalidConfiguration = 9,
       cudaErrorInsufficientDriver = 35, cudaErrorNoDevice = 100, cudaErrorInvalidDevice = 101, cudaErrorNotReady = 600, cudaErrorStreamCaptureUnsupported = 900,
       cudaErrorStreamCaptureInvalidated };

/* Whether what a stream is given does not run at once: it captures, or is late. Then it is given by sw_emu_give. */
bool sw_emu_puts_off(cudaStream_t s);
void sw_emu_give(cudaStream_t s, std::function<void()> run);

typedef void (*sw_emu_body)(const void *args);
void sw_emu_launch(const void *kernel, const char *name, dim3 grid, dim3 block, size_t dynamic_shared, sw_emu_body body,
                   const void *args);
template <bool EARLY, class... P, class... A>
static inline void sw_emu_call(const char *name, dim3 grid, dim3 block, size_t shared, cudaStream_t stream, void (*kernel)(P...), A... a)
{
    struct call {
        void (*kernel)(P...);
        std::tuple<P...> args;
    };
    call c{kernel, std::tuple<P...>(a...)};
    sw_emu_body body = [](const void *p) {
        sw_emu_now->waited = !EARLY;
        std::apply(((const call *)p)->kernel, ((const call *)p)->args);
        if (EARLY)
            sw_emu_check_waited();
    };
    if (sw_emu_puts_off(stream)) {
        auto kept = std::make_shared<call>(c);
        sw_emu_give(stream, [=] { sw_emu_launch((const void *)kernel, name, grid, block, shared, body, kept.get()); });
        return;
    }
    sw_emu_launch((const void *)kernel, name, grid, block, shared, body, &c);
}
#define SW_LAUNCH(kernel, grid, block, shared, stream, ...) \
    sw_emu_call<false>(#kernel, grid, block, shared, stream, kernel, __VA_ARGS__)
#define SW_LAUNCH_EARLY(kernel, grid, block, shared, s, ...) \
    sw_emu_call<true>(#kernel, grid, block, shared, (s)->stream, kernel, __VA_ARGS__)
#define SW_DYNAMIC_SHARED(type, name) type *name = (type *)sw_emu_dynamic_shared()

/* ---- the runtime */
typedef struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlockOptin;
    int major, minor, multiProcessorCount, memoryPoolsSupported;
} cudaDeviceProp;
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
typedef struct sw_emu_pool *cudaMemPool_t;
enum { cudaMemPoolAttrReleaseThreshold = 4, cudaEventDisableTiming = 2, cudaStreamNonBlocking = 1,
       cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaGetDevice(int *index);
cudaError_t cudaSetDevice(int index);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int index);
cudaError_t cudaDriverGetVersion(int *v);
cudaError_t cudaRuntimeGetVersion(int *v);
cudaError_t cudaMemGetInfo(size_t *unused, size_t *total);
cudaError_t cudaMalloc(void **p, size_t n);
cudaError_t cudaFree(void *p);
cudaError_t cudaMallocAsync(void **p, size_t n, cudaStream_t s);
cudaError_t cudaFreeAsync(void *p, cudaStream_t s);
cudaError_t cudaMallocHost(void **p, size_t n);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind kind, cudaStream_t s);
cudaError_t cudaMemsetAsync(void *to, int value, size_t n, cudaStream_t s);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaEventQuery(cudaEvent_t e);
typedef struct sw_emu_graph *cudaGraph_t, *cudaGraphExec_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed };
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *made, cudaGraph_t g, unsigned long long flags);
cudaError_t cudaGraphDestroy(cudaGraph_t g);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g);
cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t s);
#define CUDART_VERSION 13000
enum { cudaEnableDefault };
enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess, cudaDriverEntryPointSymbolNotFound };
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **f, unsigned version, unsigned long long flags,
                                             cudaDriverEntryPointQueryResult *found);
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *p, int index);
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t p, int attribute, void *value);
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t p, size_t n);
cudaError_t cudaGetLastError(void);
const char *cudaGetErrorString(cudaError_t e);
cudaError_t sw_emu_func_attribute(const void *kernel, int attribute, int value);
#define cudaFuncSetAttribute(kernel, attribute, value) sw_emu_func_attribute((const void *)(kernel), attribute, value)

#endif
