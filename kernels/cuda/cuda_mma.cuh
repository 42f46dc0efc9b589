/* Products of 16-bit tiles in shared memory by tensor cores (PTX mma.m16n8k16, compute capability 8.0 and later), a warp
 * at a time, sums in f32. c[n][4] is the warp's 16 x 8 result number n: lane l holds rows l / 4 and l / 4 + 8, columns
 * 2 (l % 4) and the next. Rows in shared memory are `stride` values apart, a multiple of 8 that is odd in 16-byte units,
 * so that eight rows of a matrix lie in different banks. */
#ifndef SW_CUDA_MMA_CUH
#define SW_CUDA_MMA_CUH

#include "cuda_attention.cuh"

template <bool BF16> __device__ static inline void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
#ifdef SW_EMULATOR
    unsigned b[2] = {b0, b1};
    sw_emu_mma(d, a, b, BF16);
#elif __CUDA_ARCH__ >= 800
    if (BF16)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

template <bool TURNED> __device__ static inline void load_matrices(unsigned (&r)[4], const uint16_t *row)
{
#ifdef SW_EMULATOR
    sw_emu_ldmatrix(r, row, TURNED);
#elif __CUDA_ARCH__ >= 800
    unsigned at = (unsigned)__cvta_generic_to_shared(row);
    if (TURNED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
#endif
}

/* c += a b^T: a 16 rows, b 8 N rows, both `depth` wide. */
template <bool BF16, int N, int DEPTH> __device__ static inline void mma_rows(float (&c)[N][4], const uint16_t *a, const uint16_t *b, int stride)
{
    static_assert(N % 2 == 0, "two results a load");
    int lane = (int)threadIdx.x % 32;
    const uint16_t *a_row = a + (lane / 8 % 2 * 8 + lane % 8) * stride + lane / 16 * 8;
    const uint16_t *b_row = b + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8;
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
        unsigned x[4], y[4];
        load_matrices<false>(x, a_row + k);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            load_matrices<false>(y, b_row + n * 8 * stride + k);
            mma<BF16>(c[n], x, y[0], y[1]);
            mma<BF16>(c[n + 1], x, y[2], y[3]);
        }
    }
}

template <bool BF16> __device__ static inline unsigned packed(float a, float b)
{
    return half_bits(BF16 ? SW_BF16 : SW_F16, a) | (unsigned)half_bits(BF16 ? SW_BF16 : SW_F16, b) << 16;
}

/* c += p b: p a result of K matrices, rounded to 16 bits; b 8 K rows of 8 N values. */
template <bool BF16, int K, int N> __device__ static inline void mma_result(float (&c)[N][4], const float (&p)[K][4], const uint16_t *b, int stride)
{
    static_assert(N % 2 == 0 && K % 2 == 0, "two matrices a load");
    int lane = (int)threadIdx.x % 32;
    const uint16_t *b_row = b + (lane / 8 % 2 * 8 + lane % 8) * stride + lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < K; k += 2) {
        unsigned x[4] = {packed<BF16>(p[k][0], p[k][1]), packed<BF16>(p[k][2], p[k][3]), packed<BF16>(p[k + 1][0], p[k + 1][1]),
                         packed<BF16>(p[k + 1][2], p[k + 1][3])},
                 y[4];
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            load_matrices<true>(y, b_row + k * 8 * stride + n * 8);
            mma<BF16>(c[n], x, y[0], y[1]);
            mma<BF16>(c[n + 1], x, y[2], y[3]);
        }
    }
}

/* 16 bytes into shared memory while the thread goes on (cp.async): there once it has waited. */
__device__ static inline void copy_async(void *to, const void *from)
{
#ifdef SW_EMULATOR
    sw_emu_copy_async(to, from);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" : : "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from) : "memory");
#endif
}
/* For the thread's own copies; those of others are there behind the next barrier. */
__device__ static inline void wait_copies(void)
{
#ifdef SW_EMULATOR
    sw_emu_wait_copies();
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" : : : "memory");
#endif
}

/* As load_tile, 16-bit values as they are: rows of WIDTH values, zeros behind the tensor's width and rows. They are there
 * after wait_copies and a barrier. */
template <int WIDTH> __device__ static inline void load_halves(uint16_t *to, int stride, const head_rows &t, int64_t first, int64_t have, int rows, int width,
                                                               int64_t head, int group, int64_t skip)
{
    for (int i = (int)threadIdx.x; i < rows * (WIDTH / 8); i += (int)blockDim.x) {
        int r = i / (WIDTH / 8), c = i % (WIDTH / 8) * 8;
        int64_t item = skip + r;
        uint4 v = {0, 0, 0, 0};
        if (item < have && c < width) {
            const uint16_t *p = (const uint16_t *)t.data + t.at(first + item / group, head + item % group) + c;
            if (c + 8 <= width && ((uintptr_t)p & 15) == 0) {
                copy_async(to + r * stride + c, p);
                continue;
            }
            unsigned w[8];
#pragma unroll
            for (int k = 0; k < 8; k++)
                w[k] = c + k < width ? p[k] : 0;
            v = uint4{w[0] | w[1] << 16, w[2] | w[3] << 16, w[4] | w[5] << 16, w[6] | w[7] << 16};
        }
        *(uint4 *)(to + r * stride + c) = v;
    }
}

/* Whether every one of places first .. last sees every key of [base, base + keys). */
__device__ static inline bool sees_all(const attention_call &p, int64_t first, int64_t last, int64_t base, int64_t keys)
{
    return !p.seen && (!p.causal || base + keys - 1 <= first) && (p.window <= 0 || (last - base < p.window && base + keys - 1 - first < p.window));
}

#endif
