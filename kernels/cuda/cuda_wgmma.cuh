/* Products of 16-bit tiles by the tensor cores of a warpgroup, four warps (PTX wgmma.mma_async, compute capability 9.0 alone), sums
 * in f32. The right side, and the left one unless it is in registers, are read from shared memory while the warps go on. A warp's
 * part of the result are 16 of the warpgroup's 64 rows, laid out as cuda_mma.cuh has it.
 *
 * Tiles lie in blocks of 64 columns, 128 bytes a row, whose 16-byte units are swizzled: unit u of row r lies at u ^ r % 8 (PTX ISA,
 * "Shared Memory Matrix Layout", swizzle of 128 bytes), so that neither rows nor columns meet in one bank. A tile begins at a
 * multiple of 1024 bytes. The same tile serves products that sum over its columns and such that sum over its rows.
 *
 * Order: tiles_there() for what the threads have copied; settle() for sums and left sides that others than products have written;
 * products; sent(); wait_products() before a sum is read, a left side written, or a tile written again. The four warps execute the
 * same of these (their .aligned), so no condition on the way to one may be a warp's own. ptxas makes products wait
 * for one another (C7515) where ways meet between sending and waiting that have not all sent. */
#ifndef SW_CUDA_WGMMA_CUH
#define SW_CUDA_WGMMA_CUH

#include "cuda_mma.cuh"

enum { TILE_ALIGN = 1024, TILE_COLUMNS = 64 };

#if defined(SW_EMULATOR) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SW_WARPGROUPS 1
#endif

/* The first multiple of TILE_ALIGN bytes in dynamic shared memory, which has TILE_ALIGN bytes to spare. */
__device__ static inline uint16_t *first_tile(unsigned char *shared)
{
#ifdef SW_EMULATOR
    unsigned at = sw_emu_shared_address(shared);
#else
    unsigned at = (unsigned)__cvta_generic_to_shared(shared);
#endif
    return (uint16_t *)(shared + (0 - at) % TILE_ALIGN);
}

/* A tile as the products take it (PTX ISA, "Matrix Descriptor"): address, and the distances of its blocks of columns, where the
 * rows are summed over, and of its groups of 8 rows, all in 16 bytes; swizzle of 128. */
__device__ static inline uint64_t tile_of(const uint16_t *first, int rows)
{
#ifdef SW_EMULATOR
    unsigned at = sw_emu_shared_address(first);
#else
    unsigned at = (unsigned)__cvta_generic_to_shared(first);
#endif
    return (uint64_t)(at >> 4 & 0x3fff) | (uint64_t)(rows * 8) << 16 | (uint64_t)64 << 32 | (uint64_t)1 << 62;
}

/* v again: the compiler takes it to be another each time, and keeps nothing that it can find from it. */
__device__ static inline uint64_t found_again(uint64_t v)
{
#ifndef SW_EMULATOR
    asm volatile("" : "+l"(v));
#endif
    return v;
}

/* The line that asks: the emulator tells instructions apart by it. */
#ifdef SW_EMULATOR
#define SW_SITE int site = __builtin_LINE()
#else
#define SW_SITE
#endif

/* Sums or left sides that are no products' are written; products may take them. */
__device__ static inline void settle(SW_SITE)
{
#ifdef SW_EMULATOR
    sw_emu_wgmma_fence(site);
#elif defined(SW_WARPGROUPS)
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
/* The products since the last of these are one group. */
__device__ static inline void sent(SW_SITE)
{
#ifdef SW_EMULATOR
    sw_emu_wgmma_commit(site);
#elif defined(SW_WARPGROUPS)
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
#ifndef SW_EMULATOR
/* Registers that products write while the compiler does not see it: after it they are taken to be new. */
template <int N> __device__ static inline void renewed(float (&d)[N][4])
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            asm volatile("" : "+f"(d[n][i]));
}
#endif
/* All but the last PENDING groups are done; those sums are d's, if any are named. */
template <int PENDING> __device__ static inline void wait_products(SW_SITE)
{
#ifdef SW_EMULATOR
    sw_emu_wgmma_wait(PENDING, site);
#elif defined(SW_WARPGROUPS)
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
#endif
}
#ifdef SW_EMULATOR
template <int PENDING, class D> static inline void wait_products(D &, SW_SITE) { wait_products<PENDING>(site); }
template <int PENDING, class D, class E> static inline void wait_products(D &, E &, SW_SITE) { wait_products<PENDING>(site); }
#else
template <int PENDING, class D, class... E> __device__ static inline void wait_products(D &d, E &...e)
{
    wait_products<PENDING>();
    renewed(d);
    (renewed(e), ...);
}
#endif
/* Whether a thread of the warpgroup says yes. All of them come, and no wait for products that is behind it is put before what they
 * say. */
__device__ static inline bool warpgroup_any(bool yes)
{
#ifdef SW_EMULATOR
    return sw_emu_warpgroup_any(yes, __FILE__, __LINE__);
#elif defined(SW_WARPGROUPS)
    int any; /* barrier 0 is the block's */
    asm volatile("{.reg .pred p, q; setp.ne.b32 p, %1, 0; barrier.cta.red.or.aligned.pred q, %2, 128, p; selp.b32 %0, 1, 0, q;}"
                 : "=r"(any)
                 : "r"((int)yes), "r"(1 + threadIdx.x / 128)
                 : "memory");
    return any;
#else
    return yes;
#endif
}
/* What all threads of the block have copied into tiles is there for products. */
__device__ static inline void tiles_there()
{
    wait_copies();
#ifdef SW_EMULATOR
    sw_emu_proxy_fence();
#elif defined(SW_WARPGROUPS)
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
    __syncthreads();
}

#define SW_D4(how, n) how(d[n][0]), how(d[n][1]), how(d[n][2]), how(d[n][3])
#define SW_D32(how, n) SW_D4(how, n), SW_D4(how, n + 1), SW_D4(how, n + 2), SW_D4(how, n + 3), SW_D4(how, n + 4), SW_D4(how, n + 5), SW_D4(how, n + 6), SW_D4(how, n + 7)
#define SW_D64(how) SW_D32(how, 0)
#define SW_D128(how) SW_D32(how, 0), SW_D32(how, 8)
#define SW_R0                                                                                                       \
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define SW_R64 SW_R0 "}"
#define SW_R128                                                                                                     \
    SW_R0 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}"
#define SW_WGMMA(type, width, add, rest)                                                                                              \
    "{.reg .pred p; setp.ne.b32 p, " #add ", 0; wgmma.mma_async.sync.aligned.m64n" #width "k16.f32." type "." type " " SW_R##width ", " rest ";}"
#define SW_EITHER_TYPE(width, how, add, rest, ...)                                                                 \
    if (BF16)                                                                                                      \
        asm volatile(SW_WGMMA("bf16", width, add, rest) : SW_D##width(how) : __VA_ARGS__, "l"(b), "n"((int)ACROSS)); \
    else                                                                                                           \
        asm volatile(SW_WGMMA("f16", width, add, rest) : SW_D##width(how) : __VA_ARGS__, "l"(b), "n"((int)ACROSS))

/* d = a b, or (ADD) d += a b, over 16 values: a the warpgroup's 64 rows of a tile, or each warp's 16 in registers; b a tile's 8 N rows,
 * which hold the values, or (ACROSS) its 16 rows, each with a value of 8 N columns. What d was is no operand unless it is added to:
 * whatever has written it need not be waited for. */
#define SW_PRODUCT(N, A, width, rest, ...)                                                                                          \
    template <bool BF16, bool ACROSS, bool ADD> __device__ static inline void product(float (&d)[N][4], A, uint64_t b)               \
    {                                                                                                                               \
        if (ADD) {                                                                                                                  \
            SW_EITHER_TYPE(width, "+f", 1, rest, __VA_ARGS__);                                                                      \
        } else {                                                                                                                    \
            SW_EITHER_TYPE(width, "=f", 0, rest, __VA_ARGS__);                                                                      \
        }                                                                                                                           \
    }

#ifdef SW_EMULATOR
template <bool BF16, bool ACROSS, bool ADD, int N> static inline void product(float (&d)[N][4], uint64_t a, uint64_t b)
{
    sw_emu_wgmma(&d[0][0], N, NULL, a, b, ACROSS, ADD, BF16);
}
template <bool BF16, bool ACROSS, bool ADD, int N> static inline void product(float (&d)[N][4], const unsigned (&a)[4], uint64_t b)
{
    sw_emu_wgmma(&d[0][0], N, a, 0, b, ACROSS, ADD, BF16);
}
#elif defined(SW_WARPGROUPS)
#define SW_KEPT "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])
SW_PRODUCT(8, uint64_t a, 64, "%32, %33, p, 1, 1, 0, %34", "l"(a))
SW_PRODUCT(16, uint64_t a, 128, "%64, %65, p, 1, 1, 0, %66", "l"(a))
SW_PRODUCT(8, const unsigned (&a)[4], 64, "{%32,%33,%34,%35}, %36, p, 1, 1, %37", SW_KEPT)
SW_PRODUCT(16, const unsigned (&a)[4], 128, "{%64,%65,%66,%67}, %68, p, 1, 1, %69", SW_KEPT)
#else
template <bool BF16, bool ACROSS, bool ADD, int N> __device__ static inline void product(float (&)[N][4], uint64_t, uint64_t) {}
template <bool BF16, bool ACROSS, bool ADD, int N> __device__ static inline void product(float (&)[N][4], const unsigned (&)[4], uint64_t) {}
#endif

/* Rows skip .. of a head, ROWS of them, into a tile: zeros behind `have` of them and the tensor's width. Runs of eight values begin at
 * multiples of 16 bytes; no pages. As load_halves, with less to keep. */
template <int WIDTH, int ROWS, int THREADS>
__device__ __forceinline__ void load_rows(uint16_t *to, const head_rows &t, int64_t first, int have, int width, int head, int skip)
{
    const int CHUNKS = WIDTH / 8, STEP = THREADS / CHUNKS;
    static_assert(ROWS % STEP == 0 && STEP % 8 == 0, "whole passes");
    int c = (int)threadIdx.x % CHUNKS, r = (int)threadIdx.x / CHUNKS, left = (c * 8 < width ? have - skip : 0) - r;
    to += c / 8 * (ROWS * TILE_COLUMNS) + r * TILE_COLUMNS + ((c ^ r) & 7) * 8;
    const int64_t step = (int64_t)found_again((uint64_t)(STEP * t.row));
    const uint16_t *from = (const uint16_t *)t.data + (first + skip + r) * t.row + head * t.head + c * 8;
#pragma unroll
    for (int i = 0; i < ROWS / STEP; i++, from += step)
        copy_async(to + i * STEP * TILE_COLUMNS, i * STEP < left ? from : (const uint16_t *)t.data, i * STEP < left ? 16 : 0);
}

/* d = a b^T: the warpgroup's 64 rows of tile a from row `row` on, of A_ROWS, and all 8 N rows of tile b, both WIDTH wide. */
template <bool BF16, int WIDTH, int A_ROWS, int N>
__device__ static inline void rows_product(float (&d)[N][4], const uint16_t *a, int row, const uint16_t *b)
{
    static_assert(WIDTH % TILE_COLUMNS == 0, "whole blocks");
    uint64_t left = found_again(tile_of(a + row * TILE_COLUMNS, A_ROWS)), right = found_again(tile_of(b, 8 * N));
#pragma unroll
    for (int k = 0; k < WIDTH / 16; k++) { /* in 16 bytes: 2 for 16 values, a block's rows for 64 */
        const int inside = k % 4 * 2, block = k / 4 * 8;
        uint64_t from = left + (uint64_t)(inside + block * A_ROWS), by = right + (uint64_t)(inside + block * 8 * N);
        if (k)
            product<BF16, false, true>(d, from, by);
        else
            product<BF16, false, false>(d, from, by);
    }
}

/* d += p b: p 16 x 8 K results of each warp, rounded to 16 bits; b a tile of 8 K rows, 8 N wide. */
template <bool BF16, int K, int N> __device__ static inline void kept_product(float (&d)[N][4], const unsigned (&p)[K / 2][4], const uint16_t *b)
{
    uint64_t right = found_again(tile_of(b, 8 * K));
#pragma unroll
    for (int k = 0; k < K / 2; k++)
        product<BF16, true, true>(d, p[k], right + (uint64_t)(k * 16 * 8));
}

/* Results as the left side of kept_product. */
template <bool BF16, int K> __device__ static inline void round_results(unsigned (&to)[K / 2][4], const float (&p)[K][4])
{
#pragma unroll
    for (int k = 0; k < K / 2; k++) {
        to[k][0] = packed<BF16>(p[2 * k][0], p[2 * k][1]), to[k][1] = packed<BF16>(p[2 * k][2], p[2 * k][3]);
        to[k][2] = packed<BF16>(p[2 * k + 1][0], p[2 * k + 1][1]), to[k][3] = packed<BF16>(p[2 * k + 1][2], p[2 * k + 1][3]);
    }
}

#endif
