/* Attention backward by tensor cores, for bf16 and f16 heads of up to 256 values: the algorithm of cuda_attention_bwd.cu.
 * In the kernel of dk and dv a warp has keys as the rows of its results, so that probabilities and their gradients come
 * out as the left side of the next product; in that of dq rows. Both are rounded to 16 bits for it, all sums are f32.
 * 14 T^2 D operations a head, half when causal: 2048 tokens, 32 heads of 128 take 120 GFLOP, 0.12 ms at the limit. The two
 * more products than a kernel for all three would have are the price of sums in one order: its dq would be added by atomics.
 * The next rows come while these are worked on. What holds mma.sync back is shared memory, 128 bytes a cycle: a warp reads
 * 36 KB for 32 rows by 16 keys of 128 (four products), or 40 KB for 32 rows by 32 keys (three), so tiles are as large as
 * registers allow. */
#include "cuda_mma.cuh"

namespace {

enum { WARPS = 4, THREADS = WARPS * 32 };
enum { VALUES = 1, KEYS = 2 }; /* which sums; heads of 256 have registers for one of them */

/* TILES: 16 rows of results each, that a warp has. own: keys (rows) of a block; other: rows (keys) at a time. */
template <int WIDTH, int STAGES, int TILES, int OTHER> struct tiling {
    static const int tiles = TILES, own = 16 * TILES * WARPS, other = OTHER, stride = WIDTH + 8, stages = STAGES;
    static const size_t bytes = (size_t)2 * (own + stages * other) * stride * sizeof(uint16_t), row_bytes = 2 * sizeof(float);
};
/* Scores that are more than scaled products take registers of their own. */
template <int WIDTH, int STAGES, bool PLAIN> struct for_keys : tiling<WIDTH, STAGES, PLAIN && WIDTH <= 64 ? 2 : 1, PLAIN && WIDTH == 128 ? 64 : 32> {};
template <int WIDTH, int STAGES> struct for_rows : tiling<WIDTH, STAGES, WIDTH <= 128 ? 2 : 1, 32> {};
template <int WIDTH, int STAGES> size_t most_bytes(void)
{
    typedef for_keys<WIDTH, STAGES, true> keys;
    typedef for_rows<WIDTH, STAGES> rows;
    return keys::bytes + STAGES * keys::other * keys::row_bytes > rows::bytes ? keys::bytes + STAGES * keys::other * keys::row_bytes : rows::bytes;
}

/* As plain_pair for any scores, with p.scale. */
__device__ __forceinline__ float any_pair(const attention_call &p, float dot, float *dp, float lse, float delta, bool seen, int head, int place, int key)
{
    float slope = 0, e = seen ? power_of_two(fmaf(score_of(p, dot, head, place, key, &slope), LOG2_E, -lse)) : 0;
    *dp = e * (*dp - delta) * slope * p.scale;
    return e;
}

/* 2048 causal bf16 tokens, 32 heads of 128: 69 GFLOP, 0.07 ms at the limit; 0.1 GB, 0.03 ms. */
template <bool BF16, int WIDTH, int STAGES, int PARTS, bool PLAIN> __global__ void __launch_bounds__(THREADS, 2) gradient_keys_mma(gradient_call c)
{
    SW_DYNAMIC_SHARED(uint16_t, shared);
    typedef for_keys<WIDTH, STAGES, PLAIN> shape;
    const int M = shape::tiles, OWN = shape::own, OTHER = shape::other, STRIDE = shape::stride, N = OTHER / 8;
    const attention_call &p = c.p;
    uint16_t *ks = shared, *vs = ks + OWN * STRIDE, *all_qs = vs + OWN * STRIDE, *all_gs = all_qs + STAGES * OTHER * STRIDE;
    float *all_lse = (float *)(all_gs + STAGES * OTHER * STRIDE), *all_delta = all_lse + STAGES * OTHER;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    keys_and_queries t;
    if (!find_keys<OWN, OTHER>(p, &t))
        return;
    const attention_seq &s = t.s;
    const int key_head = t.key_head, base = t.base, m = t.m, have = t.have, shift = t.shift, from = t.from, to = t.to;
    /* the queries of one head after the other: rows of a tile are one stride apart */
    int query = from, head = key_head * p.group, left = t.tiles;
    load_halves<WIDTH, OWN, THREADS>(ks, STRIDE, p.k, s.k0, m, p.width, key_head, 1, base);
    load_halves<WIDTH, OWN, THREADS>(vs, STRIDE, p.v, s.k0, m, p.value_width, key_head, 1, base);
    float dk[PARTS & KEYS ? M : 1][PARTS & KEYS ? WIDTH / 8 : 2][4] = {{{0}}}, dv[PARTS & VALUES ? M : 1][PARTS & VALUES ? WIDTH / 8 : 2][4] = {{{0}}};
    next_rows<OTHER> rows; /* kept where the tile's products are done */
    auto load = [&](int q, int h, int stage) {
        load_halves<WIDTH, OTHER, THREADS>(all_qs + stage * OTHER * STRIDE, STRIDE, p.q, s.q0, have, p.width, h, 1, q);
        load_halves<WIDTH, OTHER, THREADS>(all_gs + stage * OTHER * STRIDE, STRIDE, c.dout, s.q0, have, p.value_width, h, 1, q);
        rows.take(c, t, q, h);
    };
    auto keep = [&](int stage) { rows.keep(all_lse, all_delta, stage); };
    if (STAGES == 2 && left) {
        load(query, head, 0);
        keep(0);
    }
    for (int stage = 0; left > 0; left--, stage = STAGES - 1 - stage) {
        if (STAGES == 1) {
            __syncthreads();
            load(query, head, 0);
            keep(0);
        }
        wait_copies();
        __syncthreads();
        int next_query = query + OTHER < to ? query + OTHER : from, next_head = query + OTHER < to ? head : head + 1;
        if (STAGES == 2 && left > 1)
            load(next_query, next_head, 1 - stage);
        const uint16_t *qs = all_qs + stage * OTHER * STRIDE, *gs = all_gs + stage * OTHER * STRIDE;
        const float *lse = all_lse + stage * OTHER, *delta = all_delta + stage * OTHER;
        float prob[M][N][4] = {{{0}}}, score[M][N][4] = {{{0}}};
        mma_rows<BF16, M, N, WIDTH>(prob, ks + warp * 16 * M * STRIDE, qs, STRIDE);
        if (PARTS & KEYS)
            mma_rows<BF16, M, N, WIDTH>(score, vs + warp * 16 * M * STRIDE, gs, STRIDE);
        int whole[2], key0 = base + warp * 16 * M + lane / 4, query0 = query + lane % 4 * 2;
        all_range(p, shift + query, shift + query + OTHER - 1, m, whole);
        if (PLAIN && (base < whole[0] || base + OWN > whole[1])) { /* rows that are none are zeros and add nothing; keys are not stored */
            const sight sees_at(p);
#pragma unroll
            for (int i = 0; i < M; i++)
                hide_queries(prob[i], sees_at, shift + query0 - key0 - 16 * i);
        }
#pragma unroll
        for (int n = 0; n < 2 * N; n++) {
            int r = n / 2 * 8 + n % 2, row = query0 + r;
            float r_lse = lse[lane % 4 * 2 + r], r_delta = delta[lane % 4 * 2 + r];
#pragma unroll
            for (int i = 0; i < 2 * M; i++) {
                float *dp = &score[i / 2][n / 2][i % 2 * 2 + n % 2], *x = &prob[i / 2][n / 2][i % 2 * 2 + n % 2];
                int key = key0 + 8 * i, place = shift + row;
                *x = PLAIN ? plain_pair(*x, dp, p.scale * LOG2_E, r_lse, r_delta)
                           : any_pair(p, *x, dp, r_lse, r_delta, row < have && key < m && sees(p, s.q0 + row, place, key), head, place, key);
            }
        }
        if constexpr (PARTS & VALUES)
            mma_result<BF16, M, N, WIDTH / 8>(dv, prob, gs, STRIDE);
        if constexpr (PARTS & KEYS)
            mma_result<BF16, M, N, WIDTH / 8>(dk, score, qs, STRIDE);
        if (STAGES == 2)
            keep(1 - stage);
        query = next_query;
        head = next_head;
    }
    wait_copies(); /* of keys that nobody sees */
    if constexpr (PARTS & KEYS)
        store_sums<BF16>(dk, all_equal<2 * M>(PLAIN ? p.scale : 1).at, c.dk, s.k0, m, p.width, key_head, 1, base + warp * 16 * M);
    if constexpr (PARTS & VALUES)
        store_sums<BF16>(dv, all_equal<2 * M>(1).at, c.dv, s.k0, m, p.value_width, key_head, 1, base + warp * 16 * M);
}

/* The same shape: 52 GFLOP, 0.05 ms at the limit; 0.1 GB, 0.03 ms. */
template <bool BF16, int WIDTH, int STAGES, bool PLAIN> __global__ void __launch_bounds__(THREADS, 2) gradient_rows_mma(gradient_call c)
{
    SW_DYNAMIC_SHARED(uint16_t, shared);
    typedef for_rows<WIDTH, STAGES> shape;
    const int M = shape::tiles, OWN = shape::own, OTHER = shape::other, STRIDE = shape::stride, N = OTHER / 8;
    const attention_call &p = c.p;
    uint16_t *qs = shared, *gs = qs + OWN * STRIDE, *all_ks = gs + OWN * STRIDE, *all_vs = all_ks + STAGES * OTHER * STRIDE;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    rows_and_keys t;
    if (!find_rows<OWN, OTHER>(p, &t))
        return;
    const attention_seq &s = t.s;
    const int key_head = t.key_head, first = t.first, have = t.have, shift = t.shift, m = t.m;
    int base = t.from, to = t.to;
    load_halves<WIDTH, OWN, THREADS>(qs, STRIDE, p.q, s.q0, have, p.width, (int64_t)key_head * p.group, p.group, first);
    load_halves<WIDTH, OWN, THREADS>(gs, STRIDE, c.dout, s.q0, have, p.value_width, (int64_t)key_head * p.group, p.group, first);
    float lse[2 * M], delta[2 * M], dq[M][WIDTH / 8][4] = {{{0}}};
    int low = first + warp * 16 * M + lane / 4; /* this lane's rows: low + 8 i */
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        int row = low + 8 * i, query = row / p.group;
        int64_t at = (s.q0 + query) * p.heads + key_head * p.group + row - query * p.group;
        lse[i] = row < have ? exponent_of(c.lse[at]) : 0;
        delta[i] = row < have ? c.delta[at] : 0;
    }
    auto load = [&](int at, int stage) {
        load_halves<WIDTH, OTHER, THREADS>(all_ks + stage * OTHER * STRIDE, STRIDE, p.k, s.k0, m, p.width, key_head, 1, at);
        load_halves<WIDTH, OTHER, THREADS>(all_vs + stage * OTHER * STRIDE, STRIDE, p.v, s.k0, m, p.value_width, key_head, 1, at);
    };
    if (STAGES == 2)
        load(base, 0);
    for (int stage = 0; base < to; base += OTHER, stage = STAGES - 1 - stage) {
        if (STAGES == 1) {
            __syncthreads();
            load(base, 0);
        }
        wait_copies();
        __syncthreads();
        if (STAGES == 2 && base + OTHER < to)
            load(base + OTHER, 1 - stage);
        const uint16_t *ks = all_ks + stage * OTHER * STRIDE, *vs = all_vs + stage * OTHER * STRIDE;
        float score[M][N][4] = {{{0}}}, dp[M][N][4] = {{{0}}};
        mma_rows<BF16, M, N, WIDTH>(score, qs + warp * 16 * M * STRIDE, ks, STRIDE);
        mma_rows<BF16, M, N, WIDTH>(dp, gs + warp * 16 * M * STRIDE, vs, STRIDE);
        int key0 = base + lane % 4 * 2;
        if (PLAIN && (base < t.whole[0] || base + OTHER > t.whole[1])) { /* rows that are none are not stored */
            const sight sees_at(p);
#pragma unroll
            for (int i = 0; i < 2 * M; i++) {
                int place = shift + (low + 8 * i) / p.group;
#pragma unroll
                for (int n = 0; n < 2 * N; n++) {
                    int key = key0 + n / 2 * 8 + n % 2;
                    if (!(key < m && sees_at(place - key)))
                        score[i / 2][n / 2][i % 2 * 2 + n % 2] = -INFINITY;
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 2 * M; i++) {
            int row = low + 8 * i, query = row / p.group, head = key_head * p.group + row - query * p.group, place = shift + query;
#pragma unroll
            for (int n = 0; n < 2 * N; n++) {
                float x = score[i / 2][n / 2][i % 2 * 2 + n % 2], *y = &dp[i / 2][n / 2][i % 2 * 2 + n % 2];
                int key = key0 + n / 2 * 8 + n % 2;
                if (PLAIN)
                    plain_pair(x, y, p.scale * LOG2_E, lse[i], delta[i]);
                else
                    any_pair(p, x, y, lse[i], delta[i], row < have && key < m && sees(p, s.q0 + query, place, key), head, place, key);
            }
        }
        mma_result<BF16, M, N, WIDTH / 8>(dq, dp, ks, STRIDE);
    }
    wait_copies(); /* of rows that see no key */
    store_sums<BF16>(dq, all_equal<2 * M>(PLAIN ? p.scale : 1).at, c.dq, s.q0, have, p.width, (int64_t)key_head * p.group, p.group, first + warp * 16 * M);
}

template <bool BF16, int WIDTH, int STAGES, int PARTS, bool PLAIN> int launch_keys(sw_stream *s, const gradient_call &c, int64_t keys)
{
    typedef for_keys<WIDTH, STAGES, PLAIN> shape;
    size_t bytes = shape::bytes + STAGES * shape::other * shape::row_bytes;
    if (cuda_shared(s, gradient_keys_mma<BF16, WIDTH, STAGES, PARTS, PLAIN>, bytes, "the gradient of attention"))
        return -1;
    SW_LAUNCH((gradient_keys_mma<BF16, WIDTH, STAGES, PARTS, PLAIN>), (unsigned)((keys / shape::own + c.p.count) * c.p.key_heads), THREADS, bytes,
              s->stream, c);
    return 0;
}

template <bool BF16, int WIDTH, int STAGES, bool PLAIN> int launch(sw_stream *s, const gradient_call &c, int64_t queries, int64_t keys)
{
    typedef for_rows<WIDTH, STAGES> shape;
    if constexpr (WIDTH > 128) {
        if (launch_keys<BF16, WIDTH, STAGES, KEYS, PLAIN>(s, c, keys) || launch_keys<BF16, WIDTH, STAGES, VALUES, PLAIN>(s, c, keys))
            return -1;
    } else if (launch_keys<BF16, WIDTH, STAGES, KEYS | VALUES, PLAIN>(s, c, keys)) {
        return -1;
    }
    if (cuda_shared(s, gradient_rows_mma<BF16, WIDTH, STAGES, PLAIN>, shape::bytes, "the gradient of attention"))
        return -1;
    SW_LAUNCH((gradient_rows_mma<BF16, WIDTH, STAGES, PLAIN>), (unsigned)((queries * c.p.group / shape::own + c.p.count) * c.p.key_heads), THREADS,
              shape::bytes, s->stream, c);
    return cuda_launched(s, "attention_bwd") ? -1 : 1;
}

template <bool BF16, int WIDTH, int STAGES> int launch_scores(sw_stream *s, const gradient_call &c, int64_t queries, int64_t keys)
{
    return plain_scores(c.p) ? launch<BF16, WIDTH, STAGES, true>(s, c, queries, keys) : launch<BF16, WIDTH, STAGES, false>(s, c, queries, keys);
}

template <bool BF16> int launch_width(sw_stream *s, const gradient_call &c, int64_t queries, int64_t keys)
{
    int width = c.p.width > c.p.value_width ? c.p.width : c.p.value_width;
    return width <= 64                                 ? launch_scores<BF16, 64, 2>(s, c, queries, keys)
           : width > 128                               ? launch_scores<BF16, 256, 1>(s, c, queries, keys)
           : most_bytes<128, 2>() <= s->shared_most ? launch_scores<BF16, 128, 2>(s, c, queries, keys)
                                                       : launch_scores<BF16, 128, 1>(s, c, queries, keys); /* 99 KiB a block: 8.6, 8.9, 12.0 */
}

} // namespace

int cuda_attention_bwd_mma(sw_stream *s, const gradient_call &c, int64_t queries, int64_t keys)
{
    int t = c.p.q.type;
    if (!cuda_mma_serves(s, c.p, most_bytes<256, 1>() <= s->shared_most ? 256 : 128) || c.dout.type != t || c.dq.type != t || c.dk.type != t || c.dv.type != t)
        return 0;
    return t == SW_BF16 ? launch_width<true>(s, c, queries, keys) : launch_width<false>(s, c, queries, keys);
}
