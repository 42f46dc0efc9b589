/* Attention forward by tensor cores, for bf16 and f16 heads of up to 256 values: the algorithm of cuda_attention.cu with
 * tiles of 128 rows (32 a warp; 64 of wide heads) and 64 or 32 keys; probabilities are rounded to 16 bits before they meet the
 * values, sums and the softmax, in powers of two, are f32. 4 T^2 D operations a head, half when causal: 2048 tokens, 32 heads of 128 take
 * 34 GFLOP, 0.04 ms at the limit of 989 TFLOP/s; mma.sync reaches about 60 % of it on an H100 by published measurements.
 * Values come while scores are multiplied, the next keys while probabilities are, in the memory that one tile takes. A warp reads 33 KB
 * of shared memory, 128 bytes a cycle, for products that take 400 cycles of an SM; with 16 rows a warp it would wait for the memory.
 * Sums are scaled again only where a row's largest score has grown, which after a few tiles is seldom.
 * The way past mma.sync is cuda_attention_wgmma.cu. Hopper's bulk copies (TMA) would save instructions and not time that is waited. */
#include "cuda_mma.cuh"

namespace {

enum { WARPS = 4, THREADS = WARPS * 32 };
/* A warp has `tiles` times 16 rows: with two, what it reads of keys and values serves twice, where registers allow the sums. */
template <int WIDTH, bool PLAIN> struct shape {
    static const int tiles = WIDTH > 128 ? 1 : 2, rows = 16 * tiles * WARPS, keys = WIDTH > 128 || (!PLAIN && WIDTH > 64) ? 32 : 64, stride = WIDTH + 8;
    static const size_t bytes = (size_t)(rows + 2 * keys) * stride * sizeof(uint16_t);
};

/* PLAIN: scores are scaled products; they stay products until their exponentials are taken.
 * 2048 causal bf16 tokens, 32 heads of 128 over 8: 34 GFLOP, 0.035 ms at the limit; 42 MB, 0.013 ms. */
template <bool BF16, int WIDTH, bool PLAIN> __global__ void __launch_bounds__(THREADS, 2) attention_mma(attention_call p)
{
    SW_DYNAMIC_SHARED(uint16_t, shared);
    typedef shape<WIDTH, PLAIN> own;
    const int M = own::tiles, ROWS = own::rows, KEYS = own::keys, STRIDE = own::stride, N = KEYS / 8;
    uint16_t *qs = shared, *ks = qs + ROWS * STRIDE, *vs = ks + KEYS * STRIDE;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    rows_and_keys t;
    if (!find_rows<ROWS, KEYS>(p, &t))
        return;
    const attention_seq &s = t.s;
    const int key_head = t.key_head, first = t.first, have = t.have, shift = t.shift, m = t.m, to = t.to;
    int base = t.from;
    load_halves<WIDTH, ROWS, THREADS>(qs, STRIDE, p.q, s.q0, have, p.width, (int64_t)key_head * p.group, p.group, first);
    const float scale = PLAIN ? p.scale * LOG2_E : 1; /* exponents are of 2 */
    int low = first + warp * 16 * M + lane / 4;       /* this lane's rows: low + 8 i */
    float top[2 * M], sum[2 * M], acc[M][WIDTH / 8][4] = {{{0}}};
    begin_rows(p, t, low, top, sum);
    load_halves<WIDTH, KEYS, THREADS>(ks, STRIDE, p.k, s.k0, m, p.width, key_head, 1, base);
    for (; base < to; base += KEYS) {
        wait_copies();
        __syncthreads(); /* keys are there, nobody needs the last values */
        load_halves<WIDTH, KEYS, THREADS>(vs, STRIDE, p.v, s.k0, m, p.value_width, key_head, 1, base);
        float score[M][N][4] = {{{0}}};
        mma_rows<BF16, M, N, WIDTH>(score, qs + warp * 16 * M * STRIDE, ks, STRIDE);
        wait_copies();
        __syncthreads(); /* values are there, nobody needs the keys */
        if (base + KEYS < to)
            load_halves<WIDTH, KEYS, THREADS>(ks, STRIDE, p.k, s.k0, m, p.width, key_head, 1, base + KEYS);
        if (!PLAIN || base < t.whole[0] || base + KEYS > t.whole[1]) {
            const sight sees_at(p);
#pragma unroll
            for (int i = 0; i < 2 * M; i++) {
                int row = low + 8 * i, query = row / p.group, head = key_head * p.group + row % p.group, key0 = base + lane % 4 * 2;
#pragma unroll
                for (int n = 0; n < 2 * N; n++) {
                    float &x = score[i / 2][n / 2][i % 2 * 2 + n % 2], slope;
                    int key = key0 + n / 2 * 8 + n % 2;
                    if (PLAIN)
                        x = key < m && sees_at(shift + query - key) ? x : -INFINITY;
                    else
                        x = row < have && key < m && sees(p, s.q0 + query, shift + query, key)
                                ? LOG2_E * score_of(p, x, head, shift + query, key, &slope) : -INFINITY;
                }
            }
        }
        float shrink[2 * M];
        bool moved = false;
#pragma unroll
        for (int i = 0; i < 2 * M; i++) { /* four lanes hold a row */
            float most = -INFINITY;
#pragma unroll
            for (int n = 0; n < N; n++)
                most = fmaxf(most, fmaxf(score[i / 2][n][i % 2 * 2], score[i / 2][n][i % 2 * 2 + 1]));
            most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, 1));
            most = scale * fmaxf(most, __shfl_xor_sync(FULL_WARP, most, 2));
            moved |= most > top[i];
            most = fmaxf(top[i], most);
            shrink[i] = power_of_two(top[i] - (most > -INFINITY ? most : 0));
            top[i] = most;
            sum[i] *= shrink[i];
        }
        if (__any_sync(FULL_WARP, moved)) { /* after a few tiles the largest score is mostly known */
#pragma unroll
            for (int n = 0; n < WIDTH / 8; n++)
#pragma unroll
                for (int i = 0; i < 2 * M; i++)
                    acc[i / 2][n][i % 2 * 2] *= shrink[i], acc[i / 2][n][i % 2 * 2 + 1] *= shrink[i];
        }
#pragma unroll
        for (int i = 0; i < 2 * M; i++) {
            float zero = top[i] > -INFINITY ? top[i] : 0; /* a row that has seen nothing yet */
#pragma unroll
            for (int n = 0; n < 2 * N; n++) {
                float &x = score[i / 2][n / 2][i % 2 * 2 + n % 2];
                x = power_of_two(fmaf(x, scale, -zero));
                sum[i] += x;
            }
        }
        mma_result<BF16, M, N, WIDTH / 8>(acc, score, vs, STRIDE);
    }
    wait_copies(); /* of a tile that sees no key */
    end_rows(p, t, low, top, sum);
    store_sums<BF16>(acc, sum, p.out, s.q0, have, p.value_width, (int64_t)key_head * p.group, p.group, first + warp * 16 * M);
}

template <bool BF16, int WIDTH, bool PLAIN> int launch(sw_stream *s, const attention_call &p, int64_t queries)
{
    typedef shape<WIDTH, PLAIN> own;
    if (cuda_shared(s, attention_mma<BF16, WIDTH, PLAIN>, own::bytes, "attention"))
        return -1;
    int64_t tiles = queries * p.group / own::rows + p.count;
    SW_LAUNCH((attention_mma<BF16, WIDTH, PLAIN>), (unsigned)(tiles * p.key_heads), THREADS, own::bytes, s->stream, p);
    return cuda_launched(s, "attention_fwd") ? -1 : 1;
}

template <bool BF16, int WIDTH> int launch_scores(sw_stream *s, const attention_call &p, int64_t queries)
{
    return plain_scores(p) ? launch<BF16, WIDTH, true>(s, p, queries) : launch<BF16, WIDTH, false>(s, p, queries);
}

template <bool BF16> int launch_width(sw_stream *s, const attention_call &p, int64_t queries)
{
    int width = p.width > p.value_width ? p.width : p.value_width;
    return width <= 64    ? launch_scores<BF16, 64>(s, p, queries)
           : width <= 128 ? launch_scores<BF16, 128>(s, p, queries)
                          : launch_scores<BF16, 256>(s, p, queries);
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
    if (!cuda_mma_serves(s, p, 256) || shape<256, true>::bytes > s->shared_most)
        return 0;
    return p.q.type == SW_BF16 ? launch_width<true>(s, p, queries) : launch_width<false>(s, p, queries);
}
