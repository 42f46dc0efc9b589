/* Attention forward by tensor cores, for bf16 and f16 heads of up to 256 values: the algorithm of cuda_attention.cu with
 * tiles of 64 rows (16 a warp) and 64 or 32 keys; probabilities are rounded to 16 bits before they meet the values, sums
 * and the softmax are f32. 4 T^2 D operations a head, half when causal: 2048 tokens, 32 heads of 128 take 34 GFLOP, 0.04 ms
 * at the limit of 989 TFLOP/s; mma.sync reaches about 60 % of it on an H100 by published measurements. A tile of keys and
 * values of 128, 35 KB, comes in about 1000 cycles, its products take 820 of an SM: values come while scores are multiplied,
 * the next keys while probabilities are, in the memory that one tile takes.
 *
 * Hopper's bulk copies (cp.async.bulk, TMA) would save instructions and not time that is waited: a tile is 2048 copies of 16
 * bytes, 16 a thread with some 12 instructions each, 190 of the some 900 that a warp issues a tile (128 mma, 96 ldmatrix, 400
 * of the softmax, 64 to scale sums). In bulk they were 128 rows of 256 bytes, one a thread, which is a fifth of a kernel that
 * issues while its tensor cores idle, at most: 3 % of training at 2048 tokens, where attention is 15 %. What holds it to 60 %
 * is mma.sync; the way past that is wgmma, whose operands lie swizzled as TMA writes them, and both belong into one kernel. */
#include "cuda_mma.cuh"

namespace {

enum { WARPS = 4, ROWS = 16 * WARPS };
template <int WIDTH> struct shape {
    static const int keys = WIDTH > 128 ? 32 : 64, stride = WIDTH + 8;
    static const size_t bytes = (size_t)(ROWS + 2 * keys) * stride * sizeof(uint16_t);
};

/* 2048 causal bf16 tokens, 32 heads of 128 over 8: 34 GFLOP, 0.035 ms at the limit; 42 MB, 0.013 ms. */
template <bool BF16, int WIDTH> __global__ void __launch_bounds__(WARPS * 32) attention_mma(attention_call p)
{
    SW_DYNAMIC_SHARED(uint16_t, shared);
    const int KEYS = shape<WIDTH>::keys, STRIDE = shape<WIDTH>::stride;
    uint16_t *qs = shared, *ks = qs + ROWS * STRIDE, *vs = ks + KEYS * STRIDE;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, key_head = (int)blockIdx.y;
    attention_seq s;
    if (!find_tile(p, blockIdx.x, ROWS, false, &s))
        return;
    int64_t first = s.tile * ROWS, have = s.n * p.group, shift = s.m - s.n, from, to;
    int64_t last = first + ROWS < have ? first + ROWS - 1 : have - 1, first_place = shift + first / p.group, last_place = shift + last / p.group;
    key_range(p, first_place, last_place, s.m, &from, &to);
    load_halves<WIDTH>(qs, STRIDE, p.q, s.q0, have, ROWS, p.width, (int64_t)key_head * p.group, p.group, first);
    /* this lane's two rows */
    int64_t row[2], place[2];
    int head[2];
    float top[2], sum[2], acc[WIDTH / 8][4] = {{0}};
    for (int i = 0; i < 2; i++) {
        row[i] = first + warp * 16 + lane / 4 + 8 * i;
        place[i] = shift + row[i] / p.group;
        head[i] = key_head * p.group + (int)(row[i] % p.group);
        top[i] = p.sinks ? p.sinks[head[i]] : -INFINITY;
        sum[i] = p.sinks && lane % 4 == 0 ? 1 : 0;
    }
    load_halves<WIDTH>(ks, STRIDE, p.k, s.k0, s.m, KEYS, p.width, key_head, 1, from / KEYS * KEYS);
    for (int64_t base = from / KEYS * KEYS; base < to; base += KEYS) {
        wait_copies();
        __syncthreads(); /* keys are there, nobody needs the last values */
        load_halves<WIDTH>(vs, STRIDE, p.v, s.k0, s.m, KEYS, p.value_width, key_head, 1, base);
        float score[KEYS / 8][4] = {{0}}, most[2] = {-INFINITY, -INFINITY};
        mma_rows<BF16, KEYS / 8, WIDTH>(score, qs + warp * 16 * STRIDE, ks, STRIDE);
        wait_copies();
        __syncthreads(); /* values are there, nobody needs the keys */
        if (base + KEYS < to)
            load_halves<WIDTH>(ks, STRIDE, p.k, s.k0, s.m, KEYS, p.width, key_head, 1, base + KEYS);
        bool whole = base + KEYS <= s.m && sees_all(p, first_place, last_place, base, KEYS);
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int64_t key = base + n * 8 + lane % 4 * 2 + i % 2;
                float slope;
                bool seen = whole || (row[i / 2] < have && key < s.m && sees(p, s.q0 + row[i / 2] / p.group, place[i / 2], key));
                score[n][i] = seen ? score_of(p, score[n][i], head[i / 2], place[i / 2], key, &slope) : -INFINITY;
                most[i / 2] = fmaxf(most[i / 2], score[n][i]);
            }
        float shrink[2];
#pragma unroll
        for (int i = 0; i < 2; i++) { /* four lanes hold a row */
            most[i] = fmaxf(most[i], __shfl_xor_sync(FULL_WARP, most[i], 1));
            most[i] = fmaxf(most[i], __shfl_xor_sync(FULL_WARP, most[i], 2));
            float old = top[i];
            top[i] = fmaxf(old, most[i]);
            shrink[i] = old > -INFINITY ? expf(old - top[i]) : 0;
            sum[i] *= shrink[i];
        }
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                score[n][i] = score[n][i] > -INFINITY ? expf(score[n][i] - top[i / 2]) : 0;
                sum[i / 2] += score[n][i];
            }
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                acc[n][i] *= shrink[i / 2];
        mma_result<BF16, KEYS / 8, WIDTH / 8>(acc, score, vs, STRIDE);
    }
    wait_copies(); /* of a tile that sees no key */
#pragma unroll
    for (int i = 0; i < 2; i++) {
        sum[i] += __shfl_xor_sync(FULL_WARP, sum[i], 1);
        sum[i] += __shfl_xor_sync(FULL_WARP, sum[i], 2);
        if (row[i] >= have)
            continue;
        int64_t query = s.q0 + row[i] / p.group;
        float inverse = sum[i] > 0 ? 1 / sum[i] : 0;
        uint16_t *out = (uint16_t *)p.out.data + p.out.at(query, head[i]);
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n++) {
            int c = n * 8 + lane % 4 * 2;
            if (c + 1 < p.value_width && ((uintptr_t)(out + c) & 3) == 0) {
                *(unsigned *)(out + c) = packed<BF16>(acc[n][2 * i] * inverse, acc[n][2 * i + 1] * inverse);
                continue;
            }
            for (int k = 0; k < 2 && c + k < p.value_width; k++)
                out[c + k] = half_bits(BF16 ? SW_BF16 : SW_F16, acc[n][2 * i + k] * inverse);
        }
        if (p.lse && lane % 4 == 0)
            p.lse[query * p.heads + head[i]] = sum[i] > 0 ? top[i] + logf(sum[i]) : -INFINITY;
    }
}

template <bool BF16, int WIDTH> int launch(sw_stream *s, const attention_call &p, int64_t queries)
{
    if (cuda_shared(s, attention_mma<BF16, WIDTH>, shape<WIDTH>::bytes, "attention"))
        return -1;
    int64_t tiles = queries * p.group / ROWS + p.count;
    SW_LAUNCH((attention_mma<BF16, WIDTH>), dim3((unsigned)tiles, (unsigned)p.key_heads), WARPS * 32, shape<WIDTH>::bytes, s->stream, p);
    return cuda_launched(s, "attention_fwd") ? -1 : 1;
}

template <bool BF16> int launch_width(sw_stream *s, const attention_call &p, int64_t queries)
{
    int width = p.width > p.value_width ? p.width : p.value_width;
    return width <= 64 ? launch<BF16, 64>(s, p, queries) : width <= 128 ? launch<BF16, 128>(s, p, queries) : launch<BF16, 256>(s, p, queries);
}

} // namespace

bool cuda_mma_serves(const sw_stream *s, const attention_call &p, int most_width)
{
    int t = p.q.type;
    return s->capability >= 80 && t != SW_F32 && p.k.type == t && p.v.type == t && p.out.type == t && p.width <= most_width &&
           p.value_width <= most_width;
}

int cuda_attention_mma(sw_stream *s, const attention_call &p, int64_t queries)
{
    if (!cuda_mma_serves(s, p, 256) || shape<256>::bytes > s->shared_most)
        return 0;
    return p.q.type == SW_BF16 ? launch_width<true>(s, p, queries) : launch_width<false>(s, p, queries);
}
