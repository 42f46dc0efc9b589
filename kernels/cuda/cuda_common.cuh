/* What the CUDA kernels share: launches, errors, values of any type, rows of strided tensors, sums over threads.
 *
 * A .cu file is device code, then launchers with the C signature of kernels.def. The same text compiles as C++ with
 * tests/emulator in the include path; launches and dynamic shared memory go through SW_LAUNCH (or SW_LAUNCH_EARLY) and SW_DYNAMIC_SHARED.
 * Times in comments are what published limits of an H100 SXM allow (3.35 TB/s of memory, 66.9 TFLOP/s in f32,
 * 989 TFLOP/s in bf16 by tensor cores), not measurements. */
#ifndef SW_CUDA_COMMON_CUH
#define SW_CUDA_COMMON_CUH

#include <cuda_runtime.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <tuple>
#include <type_traits>

extern "C" {
#include "kernels/cuda/cuda_api.h"
}

#ifndef SW_EMULATOR
#define SW_LAUNCH(kernel, grid, block, shared, stream, ...) kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)
#define SW_LAUNCH_EARLY(kernel, grid, block, shared, s, ...) cuda_launch_early(s, kernel, grid, block, shared, __VA_ARGS__)
#define SW_DYNAMIC_SHARED(type, name)                           \
    extern __shared__ __align__(16) unsigned char sw_dynamic[]; \
    type *name = reinterpret_cast<type *>(sw_dynamic)
#endif

#define K(name, args) int cuda_##name args;
#include "kernels/kernels.def"
#undef K

/* ---- host side */

typedef struct cuda_products cuda_products;
typedef struct cuda_steps cuda_steps;
typedef struct cuda_sparse cuda_sparse;
struct cuda_call;

/* The stream of a device, one for each; used by one thread of the host at a time. */
struct sw_stream {
    cudaStream_t stream;
    int index, sms, capability; /* capability: 90 for 9.0 */
    size_t shared_most;         /* dynamic shared memory that a block may ask for */
    bool pools;
    const char *name;
    void *scratch;
    size_t scratch_bytes;
    uint64_t scratch_number; /* how often it has moved */
    cuda_products *products;
    cuda_steps *steps;
    cuda_sparse *sparse; /* NULL: the driver or the GPU cannot */
    bool in_step, capturing; /* of cuda_steps.cuh */
    bool warpgroups;         /* attention by products of warpgroups where there are such (SWIFT_WARPGROUPS) */
    bool shared_first;       /* what is captured asks for all the shared memory that an SM can have (cuda_launch_early) */
    sw_device *coming;       /* whose copies were sent since something was last asked for that may need them; or NULL */
    cuda_call *kept;         /* of cuda_steps.cuh, or NULL */
};

extern sw_cuda_host cuda_host;
#define cuda_fail(...) cuda_host.fail(__VA_ARGS__)
/* -1 with a message that says which call failed and what to do about it. */
int cuda_failed(const sw_stream *s, cudaError_t e, const char *what);
#define CUDA_TRY(s, call)                     \
    do {                                      \
        cudaError_t e_ = (call);              \
        if (e_ != cudaSuccess)                \
            return cuda_failed(s, e_, #call); \
    } while (0)
/* After a launch: 0, or -1 when it could not be made. */
static inline int cuda_launched(const sw_stream *s, const char *kernel)
{
    cudaError_t e = cudaGetLastError();
    return e == cudaSuccess ? 0 : cuda_failed(s, e, kernel);
}
/* Before anything is asked for of s: it begins when what was sent has come. */
int cuda_wait_for_sent(sw_stream *s);
static inline int cuda_arrive(sw_stream *s) { return s->coming ? cuda_wait_for_sent(s) : 0; }
#ifndef SW_EMULATOR
/* Whether all that a GPU of this capability may run of this build was compiled for 9.0 or later: it has its own code, or takes that
 * of the last of the list, in ascending order. */
static inline bool cuda_early(const sw_stream *s)
{
    constexpr int archs[] = {__CUDA_ARCH_LIST__};
    return s->capability >= 90 && archs[sizeof archs / sizeof *archs - 1] >= 900;
}
/* An SM divides its memory between shared and L1 anew only when it is idle: where kernels that need much shared memory are to begin
 * while small ones run, those ask for the same division. */
template <class... P, class... A>
static inline void cuda_launch_early(const sw_stream *s, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A... a)
{
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t c = {};
    c.gridDim = grid, c.blockDim = block, c.dynamicSmemBytes = shared, c.stream = s->stream;
    c.attrs = &early, c.numAttrs = cuda_early(s);
    if (s->capturing && s->shared_first)
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
    cudaLaunchKernelEx(&c, kernel, P(a)...); /* an error is what cuda_launched finds */
}
#endif
/* Temporary space until the next call on the stream; NULL after cuda_fail. */
void *cuda_scratch(sw_stream *s, size_t n);
void *cuda_allocate(sw_stream *s, size_t n);
void cuda_release(sw_stream *s, void *p);
int cuda_products_open(sw_stream *s);
void cuda_products_close(sw_stream *s);
static inline size_t cuda_padded(size_t n) { return (n + 255) & ~(size_t)255; }
/* Lets a kernel have n bytes of dynamic shared memory. */
template <class F> static inline int cuda_shared(const sw_stream *s, F *kernel, size_t n, const char *name)
{
    if (n <= (48u << 10))
        return 0;
    if (n > s->shared_most)
        return cuda_fail("%s: %s needs %zu KiB of shared memory a block, and this GPU has %zu", s->name, name, n >> 10,
                         s->shared_most >> 10);
    CUDA_TRY(s, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)n));
    return 0;
}

/* ---- rows of tensors. Outer dimensions are merged as far as every tensor of a call allows. */
enum { MAX_OUTER = SW_MAX_DIMS - 1 };
struct rows_shape {
    int64_t rows, width;
    int outer;
    int64_t dim[MAX_OUTER]; /* outermost first */
};
struct rows_of {
    void *data;
    int type;
    int64_t stride[MAX_OUTER];
    bool whole = false; /* known: runs of eight are whole and lie at multiples of 16 bytes */
};
/* n tensors of one shape (NULL ones are left out: their data is NULL); keep_rows leaves the first dimensions as rows
 * even where everything is dense. The last strides must be 1. */
rows_shape cuda_rows(rows_of *out, const sw_tensor *const *t, int n, bool keep_rows);

__device__ static inline int64_t row_start(const rows_shape &g, const rows_of &t, int64_t r)
{
    if (g.outer == 0)
        return 0;
    if (g.outer == 1)
        return r * t.stride[0];
    int64_t at = 0;
#pragma unroll
    for (int d = MAX_OUTER - 1; d >= 0; d--) { /* places that the compiler knows: no copy of the arguments in local memory */
        if (d >= g.outer)
            continue;
        int64_t q = r / g.dim[d];
        at += (r - q * g.dim[d]) * t.stride[d];
        r = q;
    }
    return at;
}

/* ---- kernels that begin early (CUDA's programmatic dependent launch, from 9.0 on). One that SW_LAUNCH_EARLY launches may begin
 * while those before it run, once all their blocks have begun: launches cost a step of small kernels as much as their work. All
 * its threads call begin_early before they touch memory; it returns when all that was asked for before is done and seen. Since
 * each so launched waits, what comes after it comes after all that came before it, too. Before its wait a kernel may do no more
 * than prefetch, which puts nothing into registers that an earlier kernel is about to change, and copy what cuda_unwritten (of
 * cuda_steps.cuh) says that none is. */
__device__ static inline void let_next_begin()
{
#if !defined(SW_EMULATOR) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ static inline void wait_for_earlier()
{
#if defined(SW_EMULATOR)
    sw_emu_wait_for_earlier();
#elif __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ static inline void begin_early()
{
    let_next_begin();
    wait_for_earlier();
}
/* p's n bytes (whole runs of 16) towards the L2 cache; nothing below 9.0. */
__device__ static inline void prefetch(const void *p, int64_t n)
{
#if !defined(SW_EMULATOR) && __CUDA_ARCH__ >= 900
    uint64_t from = ((uint64_t)p + 15) & ~(uint64_t)15, to = ((uint64_t)p + (uint64_t)n) & ~(uint64_t)15;
    if (from < to)
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(__cvta_generic_to_global((const void *)from)),
                     "r"((unsigned)(to - from))
                     : "memory");
#else
    (void)p, (void)n;
#endif
}

/* ---- values */
__device__ static inline float value_of(const void *p, int type, int64_t i)
{
    if (type == SW_F32)
        return ((const float *)p)[i];
    uint16_t h = ((const uint16_t *)p)[i];
    return type == SW_BF16 ? __uint_as_float((unsigned)h << 16) : __half2float(__ushort_as_half(h));
}
__device__ static inline uint16_t half_bits(int type, float v)
{
    return type == SW_BF16 ? __bfloat16_as_ushort(__float2bfloat16_rn(v)) : __half_as_ushort(__float2half_rn(v));
}
/* Two of them, the first lowest, which GPUs round by one instruction. */
__device__ static inline unsigned half_pair(int type, float first, float second)
{
    union {
        __nv_bfloat162 b;
        __half2 h;
        unsigned bits;
    } u = {__floats2bfloat162_rn(first, second)};
    if (type != SW_BF16)
        u.h = __floats2half2_rn(first, second);
    return u.bits;
}
/* Two values of 16 bits that lie side by side. */
__device__ static inline float2 pair_values(int type, unsigned bits)
{
    if (type == SW_BF16)
        return float2{__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u)};
    return float2{__half2float(__ushort_as_half((uint16_t)bits)), __half2float(__ushort_as_half((uint16_t)(bits >> 16)))};
}
__device__ static inline void set_value(void *p, int type, int64_t i, float v)
{
    if (type == SW_F32)
        ((float *)p)[i] = v;
    else
        ((uint16_t *)p)[i] = half_bits(type, v);
}

/* Eight values as they are stored, for threads that ask for several before they use the first: all loads are then under way at once.
 * Of bytes nothing but the words. */
enum { RUN = 8 };
template <int TYPE> struct stored_run {
    enum { SIZE = TYPE == SW_F32 ? 4 : TYPE == SW_F16 || TYPE == SW_BF16 ? 2 : 1, BYTES = SIZE * RUN };
    typedef typename std::conditional<SIZE == 1, uint2, uint4>::type word;
    word w[SIZE == 4 ? 2 : 1];
    /* From p on, which is a multiple of a word. */
    __device__ void whole(const char *p)
    {
#pragma unroll
        for (int k = 0; k < (int)(sizeof w / sizeof *w); k++)
            w[k] = ((const word *)p)[k];
    }
    /* From value i of p on. */
    __device__ void load(const void *p, int64_t i) { whole((const char *)p + i * SIZE); }
    /* n values (fewer than one: none), the rest 0. */
    __device__ void part(const char *p, int n)
    {
        unsigned u[sizeof w / 4] = {};
#pragma unroll
        for (int k = 0; k < RUN; k++)
            if (k < n) {
                unsigned bits = SIZE == 4 ? ((const unsigned *)p)[k] : SIZE == 2 ? ((const uint16_t *)p)[k] : ((const uint8_t *)p)[k];
                u[k * SIZE / 4] |= bits << k * SIZE % 4 * 8;
            }
        memcpy(w, u, sizeof w);
    }
    __device__ void values(float *v) const
    {
        static_assert(SIZE > 1, "bytes may be any type");
        unsigned u[sizeof w / 4];
        memcpy(u, w, sizeof w);
#pragma unroll
        for (int k = 0; k < RUN; k += 2) {
            float2 pair = SIZE == 4 ? float2{__uint_as_float(u[k * SIZE / 4]), __uint_as_float(u[(k + 1) * SIZE / 4])}
                                    : pair_values(TYPE, u[k * SIZE / 4]);
            v[k] = pair.x, v[k + 1] = pair.y;
        }
    }
};
template <int TYPE, int W> __device__ static inline void load_whole(float (&v)[W], const void *p, int64_t i)
{
    stored_run<TYPE> u[W / RUN];
#pragma unroll
    for (int k = 0; k < W / RUN; k++)
        u[k].load(p, i + k * RUN);
#pragma unroll
    for (int k = 0; k < W / RUN; k++)
        u[k].values(v + k * RUN);
}

/* W values from value i on; n of them exist (fewer than one: none), the rest read as 0. Whole aligned runs move 16 bytes at a time. n is
 * compared, not first cut to 0 .. W: ptxas 13.0 takes the predicate of VIMNMX.RELU for that of n == W. */
template <int W>
__device__ static inline void load_run(float (&v)[W], const void *p, int type, int64_t i, int n, bool whole = false)
{
    static_assert(W % 4 == 0, "runs are made of vectors");
    if (type == SW_F32) {
        const float *f = (const float *)p + i;
        if (whole || (n >= W && ((uintptr_t)f & 15) == 0)) {
#pragma unroll
            for (int k = 0; k < W; k += 4) {
                float4 u = *(const float4 *)(f + k);
                v[k] = u.x, v[k + 1] = u.y, v[k + 2] = u.z, v[k + 3] = u.w;
            }
            return;
        }
#pragma unroll
        for (int k = 0; k < W; k++)
            v[k] = k < n ? f[k] : 0;
        return;
    }
    const uint16_t *h = (const uint16_t *)p + i;
    if constexpr (W % RUN == 0) {
        if (whole || (n >= W && ((uintptr_t)h & 15) == 0)) {
            if (type == SW_BF16)
                load_whole<SW_BF16>(v, h, 0);
            else
                load_whole<SW_F16>(v, h, 0);
            return;
        }
    }
#pragma unroll
    for (int k = 0; k < W; k++)
        v[k] = k < n ? value_of(h, type, k) : 0;
}
template <int W>
__device__ static inline void store_run(void *p, int type, int64_t i, int n, const float (&v)[W], bool whole = false)
{
    if (type == SW_F32) {
        float *f = (float *)p + i;
        if (whole || (n >= W && ((uintptr_t)f & 15) == 0)) {
#pragma unroll
            for (int k = 0; k < W; k += 4)
                *(float4 *)(f + k) = float4{v[k], v[k + 1], v[k + 2], v[k + 3]};
            return;
        }
#pragma unroll
        for (int k = 0; k < W; k++)
            if (k < n)
                f[k] = v[k];
        return;
    }
    uint16_t *h = (uint16_t *)p + i;
    if constexpr (W == RUN) {
        if (whole || (n >= W && ((uintptr_t)h & 15) == 0)) {
            *(uint4 *)h = uint4{half_pair(type, v[0], v[1]), half_pair(type, v[2], v[3]), half_pair(type, v[4], v[5]),
                                half_pair(type, v[6], v[7])};
            return;
        }
    }
#pragma unroll
    for (int k = 0; k < W; k++)
        if (k < n)
            h[k] = half_bits(type, v[k]);
}
/* Of a tensor; i counts values from its first. */
__device__ static inline void load_run(float (&v)[RUN], const rows_of &t, int64_t i, int n)
{
    load_run(v, t.data, t.type, i, n, t.whole);
}
__device__ static inline void store_run(const rows_of &t, int64_t i, int n, const float (&v)[RUN])
{
    store_run(t.data, t.type, i, n, v, t.whole);
}

/* ---- sums over threads; every thread of the warp, or of the block, takes part and gets the result */
#define FULL_WARP 0xffffffffu
struct plus { __device__ float operator()(float a, float b) const { return a + b; } };
struct larger { __device__ float operator()(float a, float b) const { return a > b ? a : b; } };
template <class F> __device__ static inline float warp_reduce(float v, F f)
{
#pragma unroll
    for (int d = 16; d; d >>= 1)
        v = f(v, __shfl_xor_sync(FULL_WARP, v, d));
    return v;
}
__device__ static inline float warp_sum(float v) { return warp_reduce(v, plus()); }
__device__ static inline float warp_max(float v) { return warp_reduce(v, larger()); }
/* Of 2 HALF values a lane the sums over as many lanes: value l in lane l's v[0]. */
template <int HALF, int N> __device__ static inline void halve(float (&v)[N], int lane)
{
    bool upper = lane & HALF;
#pragma unroll
    for (int i = 0; i < HALF; i++) {
        float given = __shfl_xor_sync(FULL_WARP, upper ? v[i] : v[i + HALF], HALF);
        v[i] = (upper ? v[i + HALF] : v[i]) + given;
    }
    if constexpr (HALF > 1)
        halve<HALF / 2>(v, lane);
}
/* Over the threads of a row of threads: blockDim.x of them, a multiple of 32. More than 32: blockDim.y must be 1, and
 * space is 32 floats of shared memory that nobody else uses meanwhile. */
template <class F> __device__ static inline float row_reduce(float v, F f, float none, float *space)
{
    v = warp_reduce(v, f);
    if (blockDim.x <= 32)
        return v;
    int warps = (int)blockDim.x / 32, lane = (int)threadIdx.x % 32;
    __syncthreads();
    if (lane == 0)
        space[threadIdx.x / 32] = v;
    __syncthreads();
    return warp_reduce(lane < warps ? space[lane] : none, f);
}
__device__ static inline float row_sum(float v, float *space) { return row_reduce(v, plus(), 0, space); }

/* ---- one functor over all values: f(shape, row, column, n) handles n <= RUN values from a column on. One that has `tensors`,
 * a list of those that it reads and writes, is compiled for each type too, for tensors that are all of it and in whole runs:
 * nothing is asked about a value then, and all loads of a run are under way at once. */
enum { ANY_TYPE = -1, MOST_LISTED = 5 };
struct tensor_list {
    rows_of *at[MOST_LISTED]; /* NULL behind the last */
};
#define SW_TENSORS(...) \
    __host__ __device__ __forceinline__ tensor_list tensors() { return tensor_list{{__VA_ARGS__}}; }
template <class F, class = void> struct lists_tensors : std::false_type {};
template <class F> struct lists_tensors<F, decltype((void)std::declval<F &>().tensors())> : std::true_type {};
/* In a kernel for one type. */
template <int TYPE, class F> __device__ static __forceinline__ void take_type(rows_shape &g, F &f)
{
    if constexpr (TYPE != ANY_TYPE) {
        tensor_list t = f.tensors();
#pragma unroll
        for (int i = 0; i < MOST_LISTED; i++)
            if (t.at[i]) {
                t.at[i]->type = TYPE;
                t.at[i]->whole = true;
            }
        g.outer = 1;
    }
}
/* y = a + b, 8192 x 4096 in bf16: 201 MB, 0.06 ms. */
template <class F, int TYPE> __global__ void __launch_bounds__(256) map_kernel(rows_shape g, F f)
{
    begin_early();
    take_type<TYPE>(g, f);
    if constexpr (TYPE != ANY_TYPE) {
        unsigned per_row = (unsigned)(g.width / RUN), total = (unsigned)g.rows * per_row, step = gridDim.x * blockDim.x;
        for (unsigned c = blockIdx.x * blockDim.x + threadIdx.x; c < total; c += step) {
            unsigned r = g.rows == 1 ? 0 : c / per_row;
            f(g, r, (int64_t)(c - r * per_row) * RUN, RUN);
        }
    } else {
        int64_t per_row = (g.width + RUN - 1) / RUN, total = g.rows * per_row, step = (int64_t)gridDim.x * blockDim.x;
        for (int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; c < total; c += step) {
            int64_t r = g.rows == 1 ? 0 : per_row == 1 ? c : total <= 0x7fffffff ? (int64_t)((unsigned)c / (unsigned)per_row) : c / per_row;
            int64_t column = (c - r * per_row) * RUN, left = g.width - column;
            f(g, r, column, left < RUN ? (int)left : (int)RUN);
        }
    }
}
/* Blocks for `items` threads: what keeps the GPU full, and no more; loops do the rest. */
static inline unsigned cuda_blocks(const sw_stream *s, int64_t items, int threads)
{
    int64_t blocks = (items + threads - 1) / threads, most = (int64_t)s->sms * 16;
    return (unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most);
}
/* The type of all of f's tensors where a kernel for one type can take them, whose rows then lie one stride apart (0 where there is
 * one row); or ANY_TYPE. */
template <class F> static inline int cuda_one_type(rows_shape &g, F &f)
{
    int type = ANY_TYPE;
    if constexpr (lists_tensors<F>::value) {
        tensor_list all = f.tensors();
        bool fits = g.width % RUN == 0 && g.outer <= 1 && g.rows * (g.width / RUN) < 1ll << 30;
        for (int i = 0; i < MOST_LISTED && all.at[i]; i++) {
            const rows_of &t = *all.at[i];
            int64_t stride = g.outer ? t.stride[0] * (t.type == SW_F32 ? 4 : 2) : 0;
            fits = fits && (type == ANY_TYPE || t.type == type) && (uintptr_t)t.data % 16 == 0 && stride % 16 == 0;
            type = t.type;
        }
        if (!fits || (type != SW_F32 && type != SW_BF16 && type != SW_F16))
            return ANY_TYPE;
        for (int i = 0; i < MOST_LISTED && all.at[i] && !g.outer; i++)
            all.at[i]->stride[0] = 0;
        g.outer = 1;
    }
    return type;
}
/* call(a type that the compiler knows); where not EVERY one is asked for, with ANY_TYPE alone */
template <bool EVERY = true, class C> static inline void cuda_by_type(int type, C call)
{
    if constexpr (EVERY) {
        if (type == SW_BF16)
            return call(std::integral_constant<int, SW_BF16>());
        if (type == SW_F16)
            return call(std::integral_constant<int, SW_F16>());
        if (type == SW_F32)
            return call(std::integral_constant<int, SW_F32>());
    }
    call(std::integral_constant<int, ANY_TYPE>());
}
template <class F> static inline int cuda_map(sw_stream *s, rows_shape g, F f, const char *name)
{
    if (!g.rows || !g.width)
        return 0;
    unsigned blocks = cuda_blocks(s, g.rows * ((g.width + RUN - 1) / RUN), 256);
    cuda_by_type<lists_tensors<F>::value>(cuda_one_type(g, f), [&](auto type) {
        constexpr int TYPE = decltype(type)::value;
        SW_LAUNCH_EARLY((map_kernel<F, TYPE>), blocks, 256, 0, s, g, f);
    });
    return cuda_launched(s, name);
}

/* ---- column sums: out[c] += the sum over rows of f's values; one or two outputs (f32 [width]). f(row, column, n, a, b)
 * gives n <= RUN terms of each. The order of the sum depends on the shape only. 8192 x 4096 in bf16: 67 MB, 0.02 ms. */
template <class F, int TYPE> __global__ void __launch_bounds__(256) column_part(rows_shape g, int64_t slab, float *part, F f)
{
    __shared__ float sum[8][32 * RUN + 8];
    begin_early();
    take_type<TYPE>(g, f);
    int64_t column = ((int64_t)blockIdx.x * 32 + threadIdx.x) * RUN, left = g.width - column;
    int n = left <= 0 ? 0 : TYPE != ANY_TYPE || left >= RUN ? (int)RUN : (int)left;
    float a[RUN] = {0}, b[RUN] = {0};
    int64_t first = (int64_t)blockIdx.y * slab, last = first + slab < g.rows ? first + slab : g.rows;
    if (n) {
#pragma unroll TYPE == ANY_TYPE ? 1 : 4
        for (int64_t r = first + threadIdx.y; r < last; r += 8)
            f(g, r, column, n, a, b);
    }
    for (int which = 0; which < F::outputs; which++) {
#pragma unroll
        for (int k = 0; k < RUN; k++)
            sum[threadIdx.y][threadIdx.x * RUN + k] = which ? b[k] : a[k];
        __syncthreads();
        int c = (int)(threadIdx.y * 32 + threadIdx.x);
        int64_t at = (int64_t)blockIdx.x * 32 * RUN + c;
        if (at < g.width) {
            float total = 0;
            for (int y = 0; y < 8; y++)
                total += sum[y][c];
            part[(which * (int64_t)gridDim.y + blockIdx.y) * g.width + at] = total;
        }
        __syncthreads();
    }
}
/* first (and second, with two outputs) += their parts [outputs, slabs, width] in order. */
int cuda_column_total(sw_stream *s, float *first, float *second, const float *part, int outputs, int slabs, int64_t width);
template <class F> static inline int cuda_column_sums(sw_stream *s, rows_shape g, F f, float *first, float *second, const char *name)
{
    if (!g.rows || !g.width)
        return 0;
    int64_t columns = (g.width + 32 * RUN - 1) / (32 * RUN), slab = 64;
    while ((g.rows + slab - 1) / slab > 256)
        slab *= 2;
    unsigned slabs = (unsigned)((g.rows + slab - 1) / slab);
    float *part = (float *)cuda_scratch(s, (size_t)(F::outputs * slabs * g.width) * sizeof(float));
    if (!part)
        return -1;
    cuda_by_type<lists_tensors<F>::value>(cuda_one_type(g, f), [&](auto type) {
        constexpr int TYPE = decltype(type)::value;
        SW_LAUNCH_EARLY((column_part<F, TYPE>), dim3((unsigned)columns, slabs), dim3(32, 8), 0, s, g, slab, part, f);
    });
    return cuda_launched(s, name) || cuda_column_total(s, first, second, part, F::outputs, (int)slabs, g.width);
}

#endif
