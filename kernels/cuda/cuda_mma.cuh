/* Products of 16-bit tiles in shared memory by tensor cores (PTX mma.m16n8k16, compute capability 8.0 and later), a warp
 * at a time, sums in f32. c[n][4] is the warp's 16 x 8 result number n: lane l holds rows l / 4 and l / 4 + 8, columns
 * 2 (l % 4) and the next. Rows in shared memory are `stride` values apart, a multiple of 8 that is odd in 16-byte units,
 * so that eight rows of a matrix lie in different banks. */
#ifndef SW_CUDA_MMA_CUH
#define SW_CUDA_MMA_CUH

#include "cuda_attention.cuh"
#include "cuda_copies.cuh"

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

/* c += a b^T: a 16 M rows, b 8 N rows, both DEPTH wide. What comes of b is used M times. */
template <bool BF16, int M, int N, int DEPTH> __device__ static inline void mma_rows(float (&c)[M][N][4], const uint16_t *a, const uint16_t *b, int stride)
{
    static_assert(N % 2 == 0, "two results a load");
    int lane = (int)threadIdx.x % 32;
    const uint16_t *a_row = a + (lane / 8 % 2 * 8 + lane % 8) * stride + lane / 16 * 8;
    const uint16_t *b_row = b + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8;
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
        unsigned x[M][4], y[4];
#pragma unroll
        for (int m = 0; m < M; m++)
            load_matrices<false>(x[m], a_row + m * 16 * stride + k);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            load_matrices<false>(y, b_row + n * 8 * stride + k);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma<BF16>(c[m][n], x[m], y[0], y[1]);
                mma<BF16>(c[m][n + 1], x[m], y[2], y[3]);
            }
        }
    }
}

template <bool BF16> __device__ static inline unsigned packed(float a, float b) { return half_pair(BF16 ? SW_BF16 : SW_F16, a, b); }

/* c += p b: p results of 16 M rows and K matrices, rounded to 16 bits; b 8 K rows of 8 N values. */
template <bool BF16, int M, int K, int N>
__device__ static inline void mma_result(float (&c)[M][N][4], const float (&p)[M][K][4], const uint16_t *b, int stride)
{
    static_assert(N % 2 == 0 && K % 2 == 0, "two matrices a load");
    int lane = (int)threadIdx.x % 32;
    const uint16_t *b_row = b + (lane / 8 % 2 * 8 + lane % 8) * stride + lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < K; k += 2) {
        unsigned x[M][4], y[4];
#pragma unroll
        for (int m = 0; m < M; m++) {
            x[m][0] = packed<BF16>(p[m][k][0], p[m][k][1]), x[m][1] = packed<BF16>(p[m][k][2], p[m][k][3]);
            x[m][2] = packed<BF16>(p[m][k + 1][0], p[m][k + 1][1]), x[m][3] = packed<BF16>(p[m][k + 1][2], p[m][k + 1][3]);
        }
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            load_matrices<true>(y, b_row + k * 8 * stride + n * 8);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma<BF16>(c[m][n], x[m], y[0], y[1]);
                mma<BF16>(c[m][n + 1], x[m], y[2], y[3]);
            }
        }
    }
}

/* A warp's 16 M x 8 N sums, each of the lane's rows times its `scale`, to items skip .. of the tensor, as load_halves counts them. */
template <bool BF16, int M, int N>
__device__ static inline void store_sums(const float (&c)[M][N][4], const float (&scale)[2 * M], const head_rows &to, int64_t first, int64_t have,
                                         int width, int64_t head, int group, int64_t skip)
{
    int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        int64_t item = skip + lane / 4 + 8 * i;
        if (item >= have)
            continue;
        uint16_t *out = (uint16_t *)to.data + to.at(first + item / group, head + item % group);
#pragma unroll
        for (int n = 0; n < N; n++) {
            int at = n * 8 + lane % 4 * 2;
            float x = c[i / 2][n][i % 2 * 2] * scale[i], y = c[i / 2][n][i % 2 * 2 + 1] * scale[i];
            if (at + 1 < width && ((uintptr_t)(out + at) & 3) == 0) {
                *(unsigned *)(out + at) = packed<BF16>(x, y);
                continue;
            }
            if (at < width)
                out[at] = half_bits(BF16 ? SW_BF16 : SW_F16, x);
            if (at + 1 < width)
                out[at + 1] = half_bits(BF16 ? SW_BF16 : SW_F16, y);
        }
    }
}
template <int N> struct all_equal {
    float at[N];
    __device__ explicit all_equal(float v)
    {
#pragma unroll
        for (int i = 0; i < N; i++)
            at[i] = v;
    }
};

/* 2^x, to 2 units of the last place of f32; 0 where that would be below its normal numbers. */
__device__ static inline float power_of_two(float x)
{
#ifdef SW_EMULATOR
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

/* As load_tile, 16-bit values as they are: ROWS rows of WIDTH values by THREADS threads, zeros behind the tensor's width and rows.
 * They are there after wait_copies and a barrier. Fewer than 2^31 items. SWIZZLED: into a tile of cuda_wgmma.cuh, whose stride is 64. */
template <int WIDTH, int ROWS, int THREADS, bool SWIZZLED = false>
__device__ static inline void load_halves(uint16_t *to, int stride, const head_rows &t, int64_t first, int64_t have, int width, int64_t head,
                                          int group, int64_t skip)
{
    const int CHUNKS = WIDTH / 8, STEP = THREADS / CHUNKS; /* rows at once: a thread has one place of each */
    static_assert(ROWS % STEP == 0 && (!SWIZZLED || STEP % 8 == 0), "whole passes");
    int c = (int)threadIdx.x % CHUNKS * 8, r = (int)threadIdx.x / CHUNKS, left = (int)(have - skip < ROWS ? have - skip : ROWS);
    int item = (int)skip + r, query = group > 1 ? (int)((unsigned)item / (unsigned)group) : item, over = item - query * group;
    const uint16_t *data = (const uint16_t *)t.data + c;
    to += SWIZZLED ? c / 64 * (ROWS * 64) + r * 64 + ((c / 8 ^ r) & 7) * 8 : r * stride + c;
    bool runs = (((uintptr_t)t.data | (uintptr_t)(t.row * 2) | (uintptr_t)(t.head * 2)) & 15) == 0 && width % 8 == 0;
    if (runs && !t.page) {
        const uint16_t *p = data + t.at(first + query, head + over);
        int more = group > 1 ? STEP % group : 0;
        int64_t next = (STEP / group) * t.row + more * t.head, wrap = next + t.row - group * t.head;
        if (left >= ROWS && width == WIDTH && more == 0) { /* most of the time */
#pragma unroll
            for (int i = 0; i < ROWS / STEP; i++, p += next)
                copy_async(to + i * STEP * stride, p, 16);
            return;
        }
#pragma unroll
        for (int i = 0; i < ROWS / STEP; i++) {
            copy_async(to + i * STEP * stride, p, r + i * STEP < left && c < width ? 16 : 0);
            over += more;
            p += over < group ? next : wrap;
            over -= over < group ? 0 : group;
        }
        return;
    }
    if (runs && group == 1) { /* in pages: where all rows lie is asked for before the first is */
        int64_t row[ROWS / STEP];
#pragma unroll
        for (int i = 0; i < ROWS / STEP; i++) {
            int64_t at = r + i * STEP < left ? first + query + i * STEP : first;
            row[i] = ((int64_t)t.page[at >> t.bits] << t.bits) + (at & ((1 << t.bits) - 1));
        }
#pragma unroll
        for (int i = 0; i < ROWS / STEP; i++)
            copy_async(to + i * STEP * stride, data + row[i] * t.row + head * t.head, r + i * STEP < left && c < width ? 16 : 0);
        return;
    }
#pragma unroll 1
    for (int i = 0; i < ROWS / STEP; i++, r += STEP, to += STEP * stride) {
        bool there = r < left && c < width;
        const uint16_t *p = there ? data + t.at(first + ((int)skip + r) / group, head + ((int)skip + r) % group) : (const uint16_t *)t.data;
#pragma unroll
        for (int k = 0; k < 8; k++)
            to[k] = there && c + k < width ? p[k] : 0;
    }
}

/* Distances (place of the query less the key's) at which keys are seen, where no table of bits says more. */
struct sight {
    int least;
    unsigned span;
    __device__ explicit sight(const attention_call &p)
    {
        const int far = 1 << 30;
        int window = p.window > 0 && p.window < far ? (int)p.window : far;
        least = p.causal ? 0 : 1 - window;
        span = (unsigned)(window - 1 - least);
    }
    __device__ bool operator()(int distance) const { return (unsigned)(distance - least) <= span; }
};

/* Whether scores are scaled products and no more. */
static inline bool plain_scores(const attention_call &p) { return p.softcap <= 0 && !p.bias && !p.alibi && !p.seen && p.scale > 0; }

/* The probability that belongs to a dot product, and in *dp what it does to the product, given dout . v; lse in powers of two. A dot
 * product of minus infinity is one that is not seen. The gradient is short of p.scale. */
__device__ __forceinline__ float plain_pair(float dot, float *dp, float scale, float lse, float delta)
{
    float e = power_of_two(fmaf(dot, scale, -lse));
    *dp = e * (*dp - delta);
    return e;
}

/* lse in powers of two. That of a row which sees no key, minus infinity, becomes a number: less it, scores that are not seen stay
 * minus infinity. */
__device__ static inline float exponent_of(float lse) { return lse > -INFINITY ? lse * LOG2_E : 0; }

/* Keys that every one of places first .. last sees, but for p.seen: [of[0], of[1]). */
__device__ static inline void all_range(const attention_call &p, int first, int last, int keys, int (&of)[2])
{
    of[0] = p.window > 0 && p.window <= last ? last - (int)p.window + 1 : 0;
    of[1] = p.causal ? first + 1 : keys;
    if (!p.causal && p.window > 0 && p.window < keys - first)
        of[1] = first + (int)p.window;
    of[1] = of[1] < keys ? of[1] : keys;
}

/* A block's rows, from row `first` of `have` on, the last ones in the first blocks: where attention is causal they see most. Of m keys
 * they see from .. to - 1, from rounded down to tiles of KEYS, and every row sees all of whole[0] .. whole[1] - 1. */
struct rows_and_keys {
    attention_seq s;
    int key_head, first, have, shift, m, from, to, whole[2]; /* shift: the place of query 0 */
};
/* False behind the last. */
template <int ROWS, int KEYS> __device__ __forceinline__ bool find_rows(const attention_call &p, rows_and_keys *t)
{
    t->key_head = (int)(blockIdx.x % (unsigned)p.key_heads);
    if (!find_tile(p, (gridDim.x - 1 - blockIdx.x) / (unsigned)p.key_heads, ROWS, false, &t->s))
        return false;
    t->first = (int)t->s.tile * ROWS, t->have = (int)(t->s.n * p.group), t->m = (int)t->s.m, t->shift = (int)(t->s.m - t->s.n);
    int last = (t->first + ROWS < t->have ? t->first + ROWS : t->have) - 1;
    int first_place = t->shift + t->first / p.group, last_place = t->shift + last / p.group;
    int64_t range[2];
    key_range(p, first_place, last_place, t->m, &range[0], &range[1]);
    all_range(p, first_place, last_place, t->m, t->whole);
    t->from = (int)range[0] / KEYS * KEYS, t->to = (int)range[1];
    return true;
}

/* A lane's R rows, low + 8 i, before a key is seen: the largest score, in powers of two, and the sum of all powers. */
template <int R> __device__ __forceinline__ void begin_rows(const attention_call &p, const rows_and_keys &t, int low, float (&top)[R], float (&sum)[R])
{
#pragma unroll
    for (int i = 0; i < R; i++) {
        top[i] = p.sinks ? p.sinks[t.key_head * p.group + (low + 8 * i) % p.group] * LOG2_E : -INFINITY;
        sum[i] = p.sinks && threadIdx.x % 4 == 0 ? 1 : 0;
    }
}
/* After the last: lse is stored, sum[i] what the row's sums of values are to be multiplied by. */
template <int R> __device__ __forceinline__ void end_rows(const attention_call &p, const rows_and_keys &t, int low, const float (&top)[R], float (&sum)[R])
{
#pragma unroll
    for (int i = 0; i < R; i++) {
        sum[i] += __shfl_xor_sync(FULL_WARP, sum[i], 1);
        sum[i] += __shfl_xor_sync(FULL_WARP, sum[i], 2);
        int row = low + 8 * i, query = row / p.group;
        if (p.lse && threadIdx.x % 4 == 0 && row < t.have)
            p.lse[(t.s.q0 + query) * p.heads + t.key_head * p.group + row - query * p.group] =
                sum[i] > 0 ? top[i] / LOG2_E + logf(sum[i]) : -INFINITY;
        sum[i] = sum[i] > 0 ? 1 / sum[i] : 0;
    }
}

/* A block's keys, from key `base` of m on, and the queries that see some of them, from .. to - 1 of `have`, from rounded down to tiles
 * of QUERIES; `tiles` of those for all heads of a key's. */
struct keys_and_queries {
    attention_seq s;
    int key_head, base, m, have, shift, from, to, tiles;
};
template <int KEYS, int QUERIES> __device__ __forceinline__ bool find_keys(const attention_call &p, keys_and_queries *t)
{
    t->key_head = (int)(blockIdx.x % (unsigned)p.key_heads);
    if (!find_tile(p, blockIdx.x / (unsigned)p.key_heads, KEYS, true, &t->s))
        return false;
    t->base = (int)t->s.tile * KEYS, t->m = (int)t->s.m, t->have = (int)t->s.n, t->shift = (int)(t->s.m - t->s.n);
    int last = (t->base + KEYS < t->m ? t->base + KEYS : t->m) - 1;
    int64_t range[2];
    query_range(p, t->base, last, t->s, &range[0], &range[1]);
    t->from = (int)range[0] / QUERIES * QUERIES, t->to = (int)range[1];
    t->tiles = t->to > t->from ? (t->to - t->from + QUERIES - 1) / QUERIES * p.group : 0;
    return true;
}

/* lse, in powers of two, and delta of a tile's QUERIES rows, a thread a row: on their way from take on, stored by keep. */
template <int QUERIES> struct next_rows {
    float lse = 0, delta = 0;
    __device__ __forceinline__ void take(const gradient_call &c, const keys_and_queries &t, int query, int head)
    {
        int row = query + (int)threadIdx.x;
        bool there = threadIdx.x < QUERIES && row < t.have;
        lse = there ? c.lse[(t.s.q0 + row) * c.p.heads + head] : 0;
        delta = there ? c.delta[(t.s.q0 + row) * c.p.heads + head] : 0;
    }
    __device__ __forceinline__ void keep(float *all_lse, float *all_delta, int stage) const
    {
        if (threadIdx.x < QUERIES) {
            all_lse[stage * QUERIES + (int)threadIdx.x] = exponent_of(lse);
            all_delta[stage * QUERIES + (int)threadIdx.x] = delta;
        }
    }
};

/* Of a lane's scores of 16 keys by 8 N queries those that are not seen; distance: of its first query from its first key. */
template <int N> __device__ __forceinline__ void hide_queries(float (&score)[N][4], const sight &sees_at, int distance)
{
#pragma unroll
    for (int n = 0; n < 2 * N; n++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (!sees_at(distance + n / 2 * 8 + n % 2 - 8 * i))
                score[n / 2][2 * i + n % 2] = -INFINITY;
}

#endif
