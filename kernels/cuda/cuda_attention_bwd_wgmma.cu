/* Attention backward by the tensor cores of warpgroups (9.0 alone), for the heads that cuda_attention_wgmma.cu serves: the
 * algorithm of cuda_attention_bwd_mma.cu, whose probabilities and their gradients stay in the registers that products left them
 * in, as the left side of the next. Two warpgroups have 64 keys (rows) each and share what they meet, tiles of 64 rows (keys).
 * The kernel of dq has registers for the scores of two tiles: it sends the next tile's, works on this one's meanwhile, and sends
 * its sums. That of dk and dv has not: it sends the next tile's scores behind its sums, and what it works on then is hidden as far as
 * the other warpgroup's products last.
 * A product of 64 x 64 by 16 from shared memory reads 4 KB in the 32 cycles that it takes, all that the memory can; one whose left
 * side is in registers half of it. 4096 causal tokens, 32 heads of 128 over 8: 275 and 206 GFLOP, 0.28 and 0.21 ms at the limit. */
#include "cuda_wgmma.cuh"

namespace {

enum { THREADS = 256, OWN = 128, OTHER = 64, KEY_STAGES = 3, ROW_STAGES = 4, N = OTHER / 8 };
template <int WIDTH> constexpr size_t shared_bytes(int stages)
{
    return (size_t)(OWN + stages * OTHER) * 2 * WIDTH * sizeof(uint16_t) + (size_t)stages * OTHER * 2 * sizeof(float) + TILE_ALIGN;
}

/* Four products a tile. 4096 causal tokens, 32 heads of 128 over 8: 275 GFLOP, 0.28 ms at the limit; 0.2 GB, 0.06 ms. */
template <bool BF16, int WIDTH> __global__ void __launch_bounds__(THREADS, 1) gradient_keys_wgmma(gradient_call c)
{
#ifdef SW_WARPGROUPS
    SW_DYNAMIC_SHARED(unsigned char, shared);
    const attention_call &p = c.p;
    const int TILE = OTHER * WIDTH;
    uint16_t *ks = first_tile(shared), *vs = ks + OWN * WIDTH, *all_qs = vs + OWN * WIDTH, *all_gs = all_qs + KEY_STAGES * TILE;
    float *all_lse = (float *)(all_gs + KEY_STAGES * TILE), *all_delta = all_lse + KEY_STAGES * OTHER;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    keys_and_queries t;
    if (!find_keys<OWN, OTHER>(p, &t))
        return;
    const attention_seq &s = t.s;
    const int key_head = t.key_head, base = t.base, m = t.m, have = t.have, shift = t.shift, from = t.from, to = t.to;
    /* the queries of one head after the other: rows of a tile are one stride apart */
    int query = from, head = key_head * p.group, left = t.tiles;
    float dk[1][WIDTH / 8][4] = {{{0}}}, dv[1][WIDTH / 8][4] = {{{0}}}, score[N][4], dp[N][4];
    unsigned prob[N / 2][4], grad[N / 2][4];
    next_rows<OTHER> rows; /* kept where the tile's products are done */
    auto load = [&](int q, int h, int stage) {
        load_rows<WIDTH, OTHER, THREADS>(all_qs + stage * TILE, p.q, s.q0, have, p.width, h, q);
        load_rows<WIDTH, OTHER, THREADS>(all_gs + stage * TILE, c.dout, s.q0, have, p.value_width, h, q);
        rows.take(c, t, q, h);
    };
    auto keep = [&](int stage) { rows.keep(all_lse, all_delta, stage); };
    if (left) {
        load_rows<WIDTH, OWN, THREADS>(ks, p.k, s.k0, m, p.width, key_head, base);
        load_rows<WIDTH, OWN, THREADS>(vs, p.v, s.k0, m, p.value_width, key_head, base);
        load(query, head, 0);
        keep(0);
        int stage = 0;
        do { /* products are under way where it goes round: no other way leads there */
            tiles_there(); /* nobody needs the tile before the last */
            const int next = stage + 1 < KEY_STAGES ? stage + 1 : 0, next_query = query + OTHER < to ? query + OTHER : from;
            const int next_head = query + OTHER < to ? head : head + 1;
            if (left > 1)
                load(next_query, next_head, next);
            const uint16_t *qs = all_qs + stage * TILE, *gs = all_gs + stage * TILE;
            wait_products<1>(); /* the last sums of values: prob is free */
            settle();
            rows_product<BF16, WIDTH, OWN>(score, ks, warp / 4 * 64, qs);
            sent();
            rows_product<BF16, WIDTH, OWN>(dp, vs, warp / 4 * 64, gs);
            sent();
            wait_products<1>(score); /* and the last sums of keys: grad is free */
            int whole[2], key0 = base + warp * 16 + lane / 4, query0 = query + lane % 4 * 2;
            all_range(p, shift + query, shift + query + OTHER - 1, m, whole);
            if (base < whole[0] || base + OWN > whole[1]) /* rows that are none are zeros and add nothing; keys are not stored */
                hide_queries(score, sight(p), shift + query0 - key0);
            const float *lse = all_lse + stage * OTHER + lane % 4 * 2, *delta = all_delta + stage * OTHER + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < 4 * N; n++) {
                float &x = score[n / 4][n % 4];
                x = power_of_two(fmaf(x, p.scale * LOG2_E, -lse[n / 4 * 8 + n % 2]));
            }
            round_results<BF16, N>(prob, score);
            settle();
            kept_product<BF16, N>(dv[0], prob, gs);
            sent();
            wait_products<1>(dp);
#pragma unroll
            for (int n = 0; n < 4 * N; n++)
                dp[n / 4][n % 4] = score[n / 4][n % 4] * (dp[n / 4][n % 4] - delta[n / 4 * 8 + n % 2]);
            round_results<BF16, N>(grad, dp);
            settle();
            kept_product<BF16, N>(dk[0], grad, qs);
            sent();
            if (left > 1)
                keep(next);
            stage = next;
            query = next_query;
            head = next_head;
        } while (--left);
        wait_products<0>(dk[0], dv[0]);
    }
    store_sums<BF16>(dk, all_equal<2>(p.scale).at, c.dk, s.k0, m, p.width, key_head, 1, base + warp * 16);
    store_sums<BF16>(dv, all_equal<2>(1).at, c.dv, s.k0, m, p.value_width, key_head, 1, base + warp * 16);
#else
    (void)c;
#endif
}

/* Three products a tile. The same shape: 206 GFLOP, 0.21 ms at the limit; 0.2 GB, 0.06 ms. */
template <bool BF16, int WIDTH> __global__ void __launch_bounds__(THREADS, 1) gradient_rows_wgmma(gradient_call c)
{
#ifdef SW_WARPGROUPS
    SW_DYNAMIC_SHARED(unsigned char, shared);
    const attention_call &p = c.p;
    const int TILE = OTHER * WIDTH;
    uint16_t *qs = first_tile(shared), *gs = qs + OWN * WIDTH, *all_ks = gs + OWN * WIDTH, *all_vs = all_ks + ROW_STAGES * TILE;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    rows_and_keys t;
    if (!find_rows<OWN, OTHER>(p, &t))
        return;
    const attention_seq &s = t.s;
    const int key_head = t.key_head, first = t.first, have = t.have, shift = t.shift, m = t.m;
    const int base = t.from, tiles = t.to > base ? (t.to - base + OTHER - 1) / OTHER : 0;
    float lse[2], delta[2], dq[1][WIDTH / 8][4] = {{{0}}}, score[2][N][4], dp[2][N][4];
    unsigned grad[N / 2][4];
    int low = first + warp * 16 + lane / 4; /* this lane's rows: low, low + 8 */
    const int place[2] = {shift + low / p.group, shift + (low + 8) / p.group};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = low + 8 * i, query = row / p.group;
        int64_t at = (s.q0 + query) * p.heads + key_head * p.group + row - query * p.group;
        lse[i] = row < have ? exponent_of(c.lse[at]) : 0;
        delta[i] = row < have ? c.delta[at] : 0;
    }
    auto load = [&](int tile) {
        int stage = tile % ROW_STAGES * TILE, at = base + tile * OTHER;
        load_rows<WIDTH, OTHER, THREADS>(all_ks + stage, p.k, s.k0, m, p.width, key_head, at);
        load_rows<WIDTH, OTHER, THREADS>(all_vs + stage, p.v, s.k0, m, p.value_width, key_head, at);
    };
    auto send_scores = [&](int tile, float (&to)[N][4], float (&to_dp)[N][4]) {
        int stage = tile % ROW_STAGES * TILE;
        settle();
        rows_product<BF16, WIDTH, OWN>(to, qs, warp / 4 * 64, all_ks + stage);
        rows_product<BF16, WIDTH, OWN>(to_dp, gs, warp / 4 * 64, all_vs + stage);
        sent();
    };
    /* One tile, whose scores are there, while those of the next go into the other registers, and are there in the end. The last
     * tile's sums may be under way when it begins, as its own are when it ends. */
    auto work = [&](auto goes_on, int tile, float (&x)[N][4], float (&y)[N][4], float (&next_x)[N][4], float (&next_y)[N][4]) {
        const int more = decltype(goes_on)::value;
        tiles_there(); /* the next; nobody needs the tile before the last */
        if (tile + 2 < tiles)
            load(tile + 2);
        if constexpr (more)
            send_scores(tile + 1, next_x, next_y);
        int at = base + tile * OTHER, key0 = at + lane % 4 * 2;
        if (at < t.whole[0] || at + OTHER > t.whole[1]) { /* rows that are none are not stored */
            const sight sees_at(p);
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int n = 0; n < 2 * N; n++) {
                    int key = key0 + n / 2 * 8 + n % 2;
                    if (!(key < m && sees_at(place[i] - key)))
                        x[n / 2][2 * i + n % 2] = -INFINITY;
                }
        }
#pragma unroll
        for (int n = 0; n < 4 * N; n++)
            plain_pair(x[n / 4][n % 4], &y[n / 4][n % 4], p.scale * LOG2_E, lse[n % 4 / 2], delta[n % 4 / 2]);
        wait_products<more>(y); /* grad is free: the last tile's sums are done */
        round_results<BF16, N>(grad, y);
        settle();
        kept_product<BF16, N>(dq[0], grad, all_ks + tile % ROW_STAGES * TILE);
        sent();
        if constexpr (more)
            wait_products<1>(next_x, next_y);
    };
    if (tiles) {
        load_halves<WIDTH, OWN, THREADS, true>(qs, TILE_COLUMNS, p.q, s.q0, have, p.width, (int64_t)key_head * p.group, p.group, first);
        load_halves<WIDTH, OWN, THREADS, true>(gs, TILE_COLUMNS, c.dout, s.q0, have, p.value_width, (int64_t)key_head * p.group, p.group, first);
        load(0);
        tiles_there();
        if (tiles > 1)
            load(1);
        send_scores(0, score[0], dp[0]);
        wait_products<0>(score[0], dp[0]);
        /* no ways meet where products are under way that one of them has not sent */
        for (int tile = 0;;) {
            if (tile + 1 == tiles) {
                work(std::false_type(), tile, score[0], dp[0], score[1], dp[1]);
                break;
            }
            work(std::true_type(), tile++, score[0], dp[0], score[1], dp[1]);
            if (tile + 1 == tiles) {
                work(std::false_type(), tile, score[1], dp[1], score[0], dp[0]);
                break;
            }
            work(std::true_type(), tile++, score[1], dp[1], score[0], dp[0]);
        }
        wait_products<0>(dq[0]);
    }
    store_sums<BF16>(dq, all_equal<2>(p.scale).at, c.dq, s.q0, have, p.width, (int64_t)key_head * p.group, p.group, first + warp * 16);
#else
    (void)c;
#endif
}

template <bool BF16, int WIDTH> int launch(sw_stream *s, const gradient_call &c, int64_t queries, int64_t keys)
{
    const size_t for_keys = shared_bytes<WIDTH>(KEY_STAGES), for_rows = shared_bytes<WIDTH>(ROW_STAGES);
    if (cuda_shared(s, gradient_keys_wgmma<BF16, WIDTH>, for_keys, "the gradient of attention") ||
        cuda_shared(s, gradient_rows_wgmma<BF16, WIDTH>, for_rows, "the gradient of attention"))
        return -1;
    SW_LAUNCH((gradient_keys_wgmma<BF16, WIDTH>), (unsigned)((keys / OWN + c.p.count) * c.p.key_heads), THREADS, for_keys, s->stream, c);
    SW_LAUNCH((gradient_rows_wgmma<BF16, WIDTH>), (unsigned)((queries * c.p.group / OWN + c.p.count) * c.p.key_heads), THREADS, for_rows, s->stream, c);
    return cuda_launched(s, "attention_bwd") ? -1 : 1;
}

} // namespace

int cuda_attention_bwd_wgmma(sw_stream *s, const gradient_call &c, int64_t queries, int64_t keys)
{
    int t = c.p.q.type;
    const head_rows *const loaded[] = {&c.p.q, &c.p.k, &c.p.v, &c.dout};
    for (const head_rows *r : loaded)
        if (!whole_runs(*r) || r->page)
            return 0;
    if (c.p.width % RUN || c.p.value_width % RUN || !cuda_wgmma_serves(s, c.p) || c.dout.type != t || c.dq.type != t || c.dk.type != t || c.dv.type != t)
        return 0;
    bool narrow = c.p.width <= 64 && c.p.value_width <= 64;
    if (t == SW_BF16)
        return narrow ? launch<true, 64>(s, c, queries, keys) : launch<true, 128>(s, c, queries, keys);
    return narrow ? launch<false, 64>(s, c, queries, keys) : launch<false, 128>(s, c, queries, keys);
}
