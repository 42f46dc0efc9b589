/* Attention forward by the tensor cores of warpgroups (9.0 alone), for bf16 and f16 heads of up to 128 values whose scores are
 * scaled products and no more: the algorithm of cuda_attention_mma.cu. Two warpgroups have 64 rows each and share tiles of 128 keys,
 * which are in shared memory twice: one to be multiplied, one under way. A warpgroup sends the next tile's scores, then the sums
 * of this tile's values; while the tensor cores do the second it takes the exponentials of the first.
 * A tile of 128 rows by 128 keys of 128 values: 8.4 MFLOP, 2048 cycles of an SM at the limit; 16384 exponentials, 1024 cycles;
 * 64 KB of keys and values, 32 bytes a cycle. */
#include "cuda_wgmma.cuh"

namespace {

enum { THREADS = 256, ROWS = 128, KEYS = 128, STAGES = 2 };
template <int WIDTH> constexpr size_t shared_bytes(void) { return (size_t)(ROWS + 2 * STAGES * KEYS) * WIDTH * sizeof(uint16_t) + TILE_ALIGN; }

/* A tile's scores become powers of two; what sums so far are to be multiplied by, and whether by something else than 1. */
template <int N>
__device__ __forceinline__ bool take_powers(float (&score)[N][4], float (&top)[2], float (&sum)[2], float (&shrink)[2], float scale)
{
    bool moved = false;
#pragma unroll
    for (int i = 0; i < 2; i++) { /* four lanes hold a row */
        float most = -INFINITY;
#pragma unroll
        for (int n = 0; n < N; n++)
            most = fmaxf(most, fmaxf(score[n][2 * i], score[n][2 * i + 1]));
        most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, 1));
        most = scale * fmaxf(most, __shfl_xor_sync(FULL_WARP, most, 2));
        moved |= most > top[i];
        most = fmaxf(top[i], most);
        float zero = most > -INFINITY ? most : 0; /* a row that has seen nothing yet */
        shrink[i] = power_of_two(top[i] - zero);
        top[i] = most;
        float total = 0;
#pragma unroll
        for (int n = 0; n < 2 * N; n++) {
            float &x = score[n / 2][2 * i + n % 2];
            x = power_of_two(fmaf(x, scale, -zero));
            total += x;
        }
        sum[i] = sum[i] * shrink[i] + total;
    }
    return moved;
}

/* 4096 causal tokens, 32 heads of 128 over 8: 137 GFLOP, 0.14 ms at the limit; 84 MB, 0.025 ms. */
template <bool BF16, int WIDTH> __global__ void __launch_bounds__(THREADS, 1) attention_wgmma(attention_call p)
{
#ifdef SW_WARPGROUPS
    SW_DYNAMIC_SHARED(unsigned char, shared);
    const int N = KEYS / 8, TILE = KEYS * WIDTH;
    uint16_t *qs = first_tile(shared), *ks = qs + ROWS * WIDTH, *vs = ks + STAGES * TILE;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    rows_and_keys t;
    if (!find_rows<ROWS, KEYS>(p, &t))
        return;
    const attention_seq &s = t.s;
    const int key_head = t.key_head, first = t.first, have = t.have, shift = t.shift, m = t.m, base = t.from;
    const int tiles = t.to > base ? (t.to - base + KEYS - 1) / KEYS : 0;
    const float scale = p.scale * LOG2_E; /* exponents are of 2 */
    int low = first + warp * 16 + lane / 4; /* this lane's rows: low, low + 8 */
    const int place[2] = {shift + low / p.group, shift + (low + 8) / p.group};
    float top[2], sum[2], shrink[2] = {1, 1}, acc[1][WIDTH / 8][4] = {{{0}}}, score[N][4];
    unsigned prob[N / 2][4];
    begin_rows(p, t, low, top, sum);
    auto load_keys = [&](int tile) {
        load_halves<WIDTH, KEYS, THREADS, true>(ks + tile % STAGES * TILE, TILE_COLUMNS, p.k, s.k0, m, p.width, key_head, 1, base + tile * KEYS);
    };
    auto load_values = [&](int tile) {
        load_halves<WIDTH, KEYS, THREADS, true>(vs + tile % STAGES * TILE, TILE_COLUMNS, p.v, s.k0, m, p.value_width, key_head, 1, base + tile * KEYS);
    };
    auto send_scores = [&](int tile) {
        settle();
        rows_product<BF16, WIDTH, ROWS>(score, qs, warp / 4 * 64, ks + tile % STAGES * TILE);
        sent();
    };
    auto unsee = [&](int tile) {
        int key0 = base + tile * KEYS + lane % 4 * 2;
        if (base + tile * KEYS >= t.whole[0] && base + (tile + 1) * KEYS <= t.whole[1])
            return;
        const sight sees_at(p);
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int n = 0; n < 2 * N; n++) {
                int key = key0 + n / 2 * 8 + n % 2;
                if (!(key < m && sees_at(place[i] - key)))
                    score[n / 2][2 * i + n % 2] = -INFINITY;
            }
    };
    auto send_values = [&](int tile) {
        settle();
        kept_product<BF16, N>(acc[0], prob, vs + tile % STAGES * TILE);
        sent();
    };
    if (tiles) {
        load_halves<WIDTH, ROWS, THREADS, true>(qs, TILE_COLUMNS, p.q, s.q0, have, p.width, (int64_t)key_head * p.group, p.group, first);
        load_keys(0);
        tiles_there();
        load_values(0);
        if (tiles > 1)
            load_keys(1);
        send_scores(0);
        wait_products<0>(score);
        unsee(0);
        take_powers(score, top, sum, shrink, scale); /* there are no sums yet */
        round_results<BF16, N>(prob, score);
        for (int tile = 0; tile + 1 < tiles; tile++) {
            tiles_there(); /* these values and the next keys; nobody needs those before */
            if (tile + 2 < tiles)
                load_keys(tile + 2);
            load_values(tile + 1);
            send_scores(tile + 1);
            send_values(tile);
            wait_products<1>(score);
            unsee(tile + 1);
            bool moved = take_powers(score, top, sum, shrink, scale);
            /* The vote asks for the sums, too, so that nothing puts the wait before the exponentials: that is what it's after. */
            bool shrinks = warpgroup_any(moved || !(sum[0] + sum[1] >= 0));
            wait_products<0>(acc[0], score);
            if (shrinks) { /* after a few tiles the largest score is mostly known */
#pragma unroll
                for (int n = 0; n < WIDTH / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        acc[0][n][i] *= shrink[i / 2];
            }
            round_results<BF16, N>(prob, score);
        }
        tiles_there();
        send_values(tiles - 1);
        wait_products<0>(acc[0]);
    }
    end_rows(p, t, low, top, sum);
    store_sums<BF16>(acc, sum, p.out, s.q0, have, p.value_width, (int64_t)key_head * p.group, p.group, first + warp * 16);
#else
    (void)p;
#endif
}

template <bool BF16, int WIDTH> int launch(sw_stream *s, const attention_call &p, int64_t queries)
{
    if (cuda_shared(s, attention_wgmma<BF16, WIDTH>, shared_bytes<WIDTH>(), "attention"))
        return -1;
    int64_t tiles = queries * p.group / ROWS + p.count;
    SW_LAUNCH((attention_wgmma<BF16, WIDTH>), (unsigned)(tiles * p.key_heads), THREADS, shared_bytes<WIDTH>(), s->stream, p);
    return cuda_launched(s, "attention_fwd") ? -1 : 1;
}

} // namespace

bool cuda_wgmma_serves(const sw_stream *s, const attention_call &p)
{
#if defined(SW_EMULATOR) || defined(SW_WGMMA_BUILT)
    return s->warpgroups && s->capability == 90 && plain_scores(p) && cuda_mma_serves(s, p, 128);
#else
    (void)s, (void)p;
    return false;
#endif
}

int cuda_attention_wgmma(sw_stream *s, const attention_call &p, int64_t queries)
{
    if (!cuda_wgmma_serves(s, p))
        return 0;
    bool narrow = p.width <= 64 && p.value_width <= 64;
    if (p.q.type == SW_BF16)
        return narrow ? launch<true, 64>(s, p, queries) : launch<true, 128>(s, p, queries);
    return narrow ? launch<false, 64>(s, p, queries) : launch<false, 128>(s, p, queries);
}
