/* Attention backward by tensor cores, for bf16 and f16 heads of up to 256 values: the algorithm of cuda_attention_bwd.cu.
 * In the kernel of dk and dv a warp has 16 keys as the rows of its results, so that probabilities and their gradients
 * come out as the left side of the next product; in that of dq 16 rows. Both are rounded to 16 bits for it, all sums are
 * f32. 14 T^2 D operations a head, half when causal: 2048 tokens, 32 heads of 128 take 120 GFLOP, 0.12 ms at the limit.
 * The next rows come while these are worked on, where two of them leave room for two blocks on an SM, which registers allow. */
#include "cuda_mma.cuh"

namespace {

enum { WARPS = 4, OWN = 16 * WARPS, OTHER = 32 }; /* OWN: keys (rows) of a block; OTHER: rows (keys) at a time */
enum { VALUES = 1, KEYS = 2 };                    /* which sums; heads of 256 have registers for one of them */

template <int WIDTH> struct shape {
    static const int stride = WIDTH + 8, stages = WIDTH > 128 ? 1 : 2;
    static const size_t bytes = (size_t)2 * (OWN + stages * OTHER) * stride * sizeof(uint16_t) + stages * OTHER * (2 * sizeof(float) + 2 * sizeof(int));
};

/* A warp's 16 x WIDTH sums to rows skip .. of the tensor. */
template <bool BF16, int N>
__device__ void store_sums(const float (&c)[N][4], const head_rows &to, int64_t first, int64_t have, int width, int64_t head, int group, int64_t skip)
{
    int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int64_t item = skip + lane / 4 + 8 * i;
        if (item >= have)
            continue;
        uint16_t *out = (uint16_t *)to.data + to.at(first + item / group, head + item % group);
#pragma unroll
        for (int n = 0; n < N; n++) {
            int at = n * 8 + lane % 4 * 2;
            if (at + 1 < width && ((uintptr_t)(out + at) & 3) == 0) {
                *(unsigned *)(out + at) = packed<BF16>(c[n][2 * i], c[n][2 * i + 1]);
                continue;
            }
            for (int k = 0; k < 2 && at + k < width; k++)
                out[at + k] = half_bits(BF16 ? SW_BF16 : SW_F16, c[n][2 * i + k]);
        }
    }
}

/* 2048 causal bf16 tokens, 32 heads of 128: 69 GFLOP, 0.07 ms at the limit; 0.1 GB, 0.03 ms. */
template <bool BF16, int WIDTH, int PARTS> __global__ void __launch_bounds__(WARPS * 32) gradient_keys_mma(gradient_call c)
{
    SW_DYNAMIC_SHARED(uint16_t, shared);
    const int STRIDE = shape<WIDTH>::stride, STAGES = shape<WIDTH>::stages;
    const attention_call &p = c.p;
    uint16_t *ks = shared, *vs = ks + OWN * STRIDE, *all_qs = vs + OWN * STRIDE, *all_gs = all_qs + STAGES * OTHER * STRIDE;
    float *all_lse = (float *)(all_gs + STAGES * OTHER * STRIDE), *all_delta = all_lse + STAGES * OTHER;
    int *all_query = (int *)(all_delta + STAGES * OTHER), *all_head = all_query + STAGES * OTHER;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, key_head = (int)blockIdx.y;
    attention_seq s;
    if (!find_tile(p, blockIdx.x, OWN, true, &s))
        return;
    int64_t base = s.tile * OWN, have = s.n * p.group, shift = s.m - s.n, last = base + OWN < s.m ? base + OWN - 1 : s.m - 1, from, to;
    query_range(p, base, last, s, &from, &to);
    load_halves<WIDTH>(ks, STRIDE, p.k, s.k0, s.m, OWN, p.width, key_head, 1, base);
    load_halves<WIDTH>(vs, STRIDE, p.v, s.k0, s.m, OWN, p.value_width, key_head, 1, base);
    float dk[PARTS & KEYS ? WIDTH / 8 : 2][4] = {{0}}, dv[PARTS & VALUES ? WIDTH / 8 : 2][4] = {{0}};
    auto load = [&](int64_t first, int stage) {
        load_halves<WIDTH>(all_qs + stage * OTHER * STRIDE, STRIDE, p.q, s.q0, have, OTHER, p.width, (int64_t)key_head * p.group, p.group, first);
        load_halves<WIDTH>(all_gs + stage * OTHER * STRIDE, STRIDE, c.dout, s.q0, have, OTHER, p.value_width, (int64_t)key_head * p.group, p.group,
                           first);
        if (threadIdx.x < OTHER) {
            int r = stage * OTHER + (int)threadIdx.x;
            int64_t row = first + threadIdx.x, at = (s.q0 + row / p.group) * p.heads + (int64_t)key_head * p.group + row % p.group;
            all_lse[r] = row < have ? c.lse[at] : 0;
            all_delta[r] = row < have ? c.delta[at] : 0;
            all_query[r] = (int)(row / p.group);
            all_head[r] = key_head * p.group + (int)(row % p.group);
        }
    };
    int64_t first = from * p.group / OTHER * OTHER;
    if (STAGES == 2)
        load(first, 0);
    for (int stage = 0; first < to * p.group; first += OTHER, stage = STAGES - 1 - stage) {
        if (STAGES == 1) {
            __syncthreads();
            load(first, 0);
        }
        wait_copies();
        __syncthreads();
        if (STAGES == 2 && first + OTHER < to * p.group)
            load(first + OTHER, 1 - stage);
        const uint16_t *qs = all_qs + stage * OTHER * STRIDE, *gs = all_gs + stage * OTHER * STRIDE;
        const float *lse = all_lse + stage * OTHER, *delta = all_delta + stage * OTHER;
        const int *query = all_query + stage * OTHER, *head = all_head + stage * OTHER;
        float prob[OTHER / 8][4] = {{0}}, score[OTHER / 8][4] = {{0}};
        mma_rows<BF16, OTHER / 8, WIDTH>(prob, ks + warp * 16 * STRIDE, qs, STRIDE);
        if (PARTS & KEYS)
            mma_rows<BF16, OTHER / 8, WIDTH>(score, vs + warp * 16 * STRIDE, gs, STRIDE);
#pragma unroll
        for (int n = 0; n < OTHER / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int r = n * 8 + lane % 4 * 2 + i % 2;
                int64_t key = base + warp * 16 + lane / 4 + i / 2 * 8, place = shift + query[r];
                float e = 0, slope = 0;
                if (first + r < have && key < s.m && sees(p, s.q0 + query[r], place, key))
                    e = expf(score_of(p, prob[n][i], head[r], place, key, &slope) - lse[r]);
                prob[n][i] = e;
                score[n][i] = e * (score[n][i] - delta[r]) * slope * p.scale;
            }
        if (PARTS & VALUES)
            mma_result<BF16>(dv, prob, gs, STRIDE);
        if (PARTS & KEYS)
            mma_result<BF16>(dk, score, qs, STRIDE);
    }
    wait_copies(); /* of keys that nobody sees */
    if (PARTS & KEYS)
        store_sums<BF16>(dk, c.dk, s.k0, s.m, p.width, key_head, 1, base + warp * 16);
    if (PARTS & VALUES)
        store_sums<BF16>(dv, c.dv, s.k0, s.m, p.value_width, key_head, 1, base + warp * 16);
}

/* The same shape: 52 GFLOP, 0.05 ms at the limit; 0.1 GB, 0.03 ms. */
template <bool BF16, int WIDTH> __global__ void __launch_bounds__(WARPS * 32) gradient_rows_mma(gradient_call c)
{
    SW_DYNAMIC_SHARED(uint16_t, shared);
    const int STRIDE = shape<WIDTH>::stride, STAGES = shape<WIDTH>::stages;
    const attention_call &p = c.p;
    uint16_t *qs = shared, *gs = qs + OWN * STRIDE, *all_ks = gs + OWN * STRIDE, *all_vs = all_ks + STAGES * OTHER * STRIDE;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, key_head = (int)blockIdx.y;
    attention_seq s;
    if (!find_tile(p, blockIdx.x, OWN, false, &s))
        return;
    int64_t first = s.tile * OWN, have = s.n * p.group, shift = s.m - s.n, from, to, row[2], place[2];
    int64_t last = first + OWN < have ? first + OWN - 1 : have - 1;
    key_range(p, shift + first / p.group, shift + last / p.group, s.m, &from, &to);
    load_halves<WIDTH>(qs, STRIDE, p.q, s.q0, have, OWN, p.width, (int64_t)key_head * p.group, p.group, first);
    load_halves<WIDTH>(gs, STRIDE, c.dout, s.q0, have, OWN, p.value_width, (int64_t)key_head * p.group, p.group, first);
    float lse[2], delta[2], dq[WIDTH / 8][4] = {{0}};
    int head[2];
    for (int i = 0; i < 2; i++) {
        row[i] = first + warp * 16 + lane / 4 + 8 * i;
        place[i] = shift + row[i] / p.group;
        head[i] = key_head * p.group + (int)(row[i] % p.group);
        int64_t at = (s.q0 + row[i] / p.group) * p.heads + head[i];
        lse[i] = row[i] < have ? c.lse[at] : 0;
        delta[i] = row[i] < have ? c.delta[at] : 0;
    }
    auto load = [&](int64_t base, int stage) {
        load_halves<WIDTH>(all_ks + stage * OTHER * STRIDE, STRIDE, p.k, s.k0, s.m, OTHER, p.width, key_head, 1, base);
        load_halves<WIDTH>(all_vs + stage * OTHER * STRIDE, STRIDE, p.v, s.k0, s.m, OTHER, p.value_width, key_head, 1, base);
    };
    int64_t base = from / OTHER * OTHER;
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
        float score[OTHER / 8][4] = {{0}}, dp[OTHER / 8][4] = {{0}};
        mma_rows<BF16, OTHER / 8, WIDTH>(score, qs + warp * 16 * STRIDE, ks, STRIDE);
        mma_rows<BF16, OTHER / 8, WIDTH>(dp, gs + warp * 16 * STRIDE, vs, STRIDE);
#pragma unroll
        for (int n = 0; n < OTHER / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int64_t key = base + n * 8 + lane % 4 * 2 + i % 2;
                float e = 0, slope = 0;
                if (row[i / 2] < have && key < s.m && sees(p, s.q0 + row[i / 2] / p.group, place[i / 2], key))
                    e = expf(score_of(p, score[n][i], head[i / 2], place[i / 2], key, &slope) - lse[i / 2]);
                score[n][i] = e * (dp[n][i] - delta[i / 2]) * slope * p.scale;
            }
        mma_result<BF16>(dq, score, ks, STRIDE);
    }
    wait_copies(); /* of rows that see no key */
    store_sums<BF16>(dq, c.dq, s.q0, have, p.width, (int64_t)key_head * p.group, p.group, first + warp * 16);
}

template <bool BF16, int WIDTH, int PARTS> int launch_keys(sw_stream *s, const gradient_call &c, int64_t keys)
{
    if (cuda_shared(s, gradient_keys_mma<BF16, WIDTH, PARTS>, shape<WIDTH>::bytes, "the gradient of attention"))
        return -1;
    SW_LAUNCH((gradient_keys_mma<BF16, WIDTH, PARTS>), dim3((unsigned)(keys / OWN + c.p.count), (unsigned)c.p.key_heads), WARPS * 32,
              shape<WIDTH>::bytes, s->stream, c);
    return 0;
}

template <bool BF16, int WIDTH> int launch(sw_stream *s, const gradient_call &c, int64_t queries, int64_t keys)
{
    if constexpr (WIDTH > 128) {
        if (launch_keys<BF16, WIDTH, KEYS>(s, c, keys) || launch_keys<BF16, WIDTH, VALUES>(s, c, keys))
            return -1;
    } else if (launch_keys<BF16, WIDTH, KEYS | VALUES>(s, c, keys)) {
        return -1;
    }
    if (cuda_shared(s, gradient_rows_mma<BF16, WIDTH>, shape<WIDTH>::bytes, "the gradient of attention"))
        return -1;
    SW_LAUNCH((gradient_rows_mma<BF16, WIDTH>), dim3((unsigned)(queries * c.p.group / OWN + c.p.count), (unsigned)c.p.key_heads), WARPS * 32,
              shape<WIDTH>::bytes, s->stream, c);
    return cuda_launched(s, "attention_bwd") ? -1 : 1;
}

template <bool BF16> int launch_width(sw_stream *s, const gradient_call &c, int64_t queries, int64_t keys)
{
    int width = c.p.width > c.p.value_width ? c.p.width : c.p.value_width;
    return width <= 64 ? launch<BF16, 64>(s, c, queries, keys) : width <= 128 ? launch<BF16, 128>(s, c, queries, keys) : launch<BF16, 256>(s, c, queries, keys);
}

} // namespace

int cuda_attention_bwd_mma(sw_stream *s, const gradient_call &c, int64_t queries, int64_t keys)
{
    int t = c.p.q.type;
    if (!cuda_mma_serves(s, c.p, shape<256>::bytes <= s->shared_most ? 256 : 128) || c.dout.type != t || c.dq.type != t || c.dk.type != t || c.dv.type != t)
        return 0;
    return t == SW_BF16 ? launch_width<true>(s, c, queries, keys) : launch_width<false>(s, c, queries, keys);
}
