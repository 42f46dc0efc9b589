/* Attention of few queries over many keys (decoding). A team of lanes takes some keys at a time for four heads that share them: each
 * lane has eight values of a key, so that keys and values are read in one go by neighbours, all of a turn before the first is used,
 * and without shared memory. What the lanes' products add up to comes to be spread over them, a score a lane, each with its share in
 * a running softmax (in powers of two). What the teams of a block found is joined at its end, what the blocks of a long context found by
 * attention_join. Reads the keys and values once: 32,768 keys of 8 heads of 128 in bf16, 134 MB, 0.04 ms. */
#include "cuda_attention.cuh"

namespace {

enum { THREADS = 256, WARPS = THREADS / 32, HEADS = 4 };
#define LN_2 0.693147181f

/* WIDTH: the least of 64, 128, 256 that holds both widths. */
template <int WIDTH> struct team {
    enum { LANES = WIDTH / RUN, KEYS = LANES / HEADS, TEAMS = THREADS / LANES, TURN = TEAMS * KEYS };
};

/* The lane's run of a key (or value) at `at`: n values, none if that is less than 1. TYPE: what it is stored as, or f32: any. even: all runs are whole. */
template <int TYPE> __device__ inline void take(stored_run<TYPE> *to, const head_rows &t, int64_t at, int n, bool even)
{
    if (TYPE == SW_F32) {
        float v[RUN] = {0};
        if (n > 0)
            load_run(v, t.data, t.type, at, n);
        memcpy(to->w, v, sizeof v);
    } else if (even) {
        memset(to->w, 0, sizeof to->w);
        if (n > 0)
            to->whole((const char *)t.data + at * 2);
    } else {
        to->part((const char *)t.data + at * 2, n);
    }
}

/* 32 heads over 8 of 128, 32,768 bf16 keys: 134 MB, 0.04 ms; 0.5 GFLOP. */
template <int WIDTH, int TYPE> __global__ void __launch_bounds__(THREADS) attention_few(attention_call p, attention_parts split, bool even)
{
    typedef team<WIDTH> own;
    constexpr int LANES = own::LANES, KEYS = own::KEYS, TEAMS = own::TEAMS;
    __shared__ float tops[TEAMS][HEADS], sums[TEAMS][HEADS], joined[WARPS][HEADS][WIDTH];
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, number = (int)threadIdx.x / LANES, place_in = (int)threadIdx.x % LANES;
    int first_lane = lane - place_in, chunks = (p.group + HEADS - 1) / HEADS;
    int64_t query = blockIdx.x, from, to;
    int key_head = (int)blockIdx.y / chunks, first_head = (int)blockIdx.y % chunks * HEADS; /* within the group */
    begin_early();
    int b = 0;
    unsigned found = 0;
    for (; !found && b < p.count; b += found ? 0 : 32) {
        int64_t q0 = b + lane < p.count ? p.seqs[4 * (b + lane)] : query + 1;
        found = __ballot_sync(FULL_WARP, query >= q0 && query < q0 + p.seqs[4 * (b + lane) + 1]);
    }
    if (!found)
        return;
    const int *seq = p.seqs + 4 * (b + __ffs((int)found) - 1);
    int64_t k0 = seq[2], m = seq[3], place = m - seq[1] + query - seq[0];
    key_range(p, place, place, m, &from, &to);
    int64_t each = to > from ? (to - from + split.splits - 1) / split.splits : 0;
    from += (int64_t)blockIdx.z * each;
    to = to < from + each ? to : from + each;

    auto head_of = [&](int h) { return key_head * p.group + (first_head + h < p.group ? first_head + h : p.group - 1); };
    int c = place_in * RUN, k_have = p.width - c, v_have = p.value_width - c;
    int my_key = place_in / HEADS, my_head = head_of(place_in % HEADS);
    float q[HEADS][RUN], acc[HEADS][RUN] = {{0}}, top = -INFINITY, sum = 0;
#pragma unroll
    for (int h = 0; h < HEADS; h++)
        load_run(q[h], p.q.data, p.q.type, p.q.at(query, head_of(h)) + c, k_have);
    for (int64_t base = from; base < to; base += own::TURN) { /* whole warps go round together */
        int64_t first = base + number * KEYS;
        stored_run<TYPE> k[KEYS], v[KEYS];
#pragma unroll
        for (int j = 0; j < KEYS; j++) {
            bool seen = first + j < to && sees(p, query, place, first + j);
            int64_t at = seen ? k0 + first + j : 0;
            if (p.k.page && seen)
                at = ((int64_t)p.k.page[at >> p.k.bits] << p.k.bits) + (at & ((1 << p.k.bits) - 1));
            take(&k[j], p.k, at * p.k.row + key_head * p.k.head + c, seen ? k_have : 0, even);
            take(&v[j], p.v, at * p.v.row + key_head * p.v.head + c, seen ? v_have : 0, even);
        }
        float dot[KEYS * HEADS];
#pragma unroll
        for (int j = 0; j < KEYS; j++) {
            float u[RUN];
            k[j].values(u);
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                float d = 0;
#pragma unroll
                for (int i = 0; i < RUN; i++)
                    d += q[h][i] * u[i];
                dot[j * HEADS + h] = d;
            }
        }
        halve<LANES / 2>(dot, place_in); /* lane l ends with the sum of dot[l] */
        bool seen = first + my_key < to && sees(p, query, place, first + my_key);
        float slope, score = seen ? score_of(p, dot[0], my_head, place, first + my_key, &slope) * LOG2_E : -INFINITY, most = score;
#pragma unroll
        for (int d = HEADS; d < LANES; d *= 2) {
            float other = __shfl_xor_sync(FULL_WARP, most, d);
            most = other > most ? other : most;
        }
        most = most > top ? most : top;
        float shrink = top > -INFINITY ? exp2f(top - most) : 0, share = score > -INFINITY ? exp2f(score - most) : 0;
        top = most;
        sum = sum * shrink + share;
        if (__any_sync(FULL_WARP, shrink != 1)) {
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                float f = __shfl_sync(FULL_WARP, shrink, first_lane + h);
#pragma unroll
                for (int i = 0; i < RUN; i++)
                    acc[h][i] *= f;
            }
        }
#pragma unroll
        for (int j = 0; j < KEYS; j++) {
            float u[RUN];
            v[j].values(u);
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                float f = __shfl_sync(FULL_WARP, share, first_lane + j * HEADS + h);
#pragma unroll
                for (int i = 0; i < RUN; i++)
                    acc[h][i] += f * u[i];
            }
        }
    }
#pragma unroll
    for (int d = HEADS; d < LANES; d *= 2)
        sum += __shfl_xor_sync(FULL_WARP, sum, d);
    if (place_in < HEADS) {
        tops[number][place_in] = top;
        sums[number][place_in] = sum;
    }
    __syncthreads();
    float most[HEADS], total[HEADS];
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        int head = head_of(h);
        bool sink = p.sinks && !split.at;
        float other = lane < TEAMS ? tops[lane % TEAMS][h] : -INFINITY, mine = tops[number][h];
        most[h] = warp_max(sink && lane == 0 ? larger()(other, p.sinks[head] * LOG2_E) : other);
        total[h] = warp_sum(other > -INFINITY ? sums[lane % TEAMS][h] * exp2f(other - most[h]) : 0);
        total[h] += sink ? exp2f(p.sinks[head] * LOG2_E - most[h]) : 0;
        float f = mine > -INFINITY ? exp2f(mine - most[h]) : 0;
#pragma unroll
        for (int i = 0; i < RUN; i++) {
            acc[h][i] *= f;
#pragma unroll
            for (int d = LANES; d < 32; d *= 2)
                acc[h][i] += __shfl_xor_sync(FULL_WARP, acc[h][i], d);
            if (first_lane == 0)
                joined[warp][h][c + i] = acc[h][i];
        }
    }
    __syncthreads();
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        if (first_head + h >= p.group)
            continue;
        int head = head_of(h);
        int64_t row = query * p.heads + head;
        float *part = split.at ? split.at + ((int64_t)blockIdx.z * split.rows + row) * (2 + p.value_width) : NULL;
        for (int i = (int)threadIdx.x; i < p.value_width; i += THREADS) {
            float v = 0;
#pragma unroll
            for (int w = 0; w < WARPS; w++)
                v += joined[w][h][i];
            if (part)
                part[2 + i] = v;
            else
                set_value(p.out.data, p.out.type, p.out.at(query, head) + i, total[h] > 0 ? v / total[h] : 0);
        }
        if (threadIdx.x)
            continue;
        if (part) {
            part[0] = most[h] * LN_2;
            part[1] = total[h];
        } else if (p.lse) {
            p.lse[row] = total[h] > 0 ? most[h] * LN_2 + logf(total[h]) : -INFINITY;
        }
    }
}

template <int WIDTH, int TYPE> int launch(sw_stream *s, const attention_call &p, int64_t queries, int64_t keys)
{
    int64_t chunks = (p.group + HEADS - 1) / HEADS, blocks = queries * p.key_heads * chunks;
    uint64_t odd = (uint64_t)(uintptr_t)p.k.data / 2 | (uint64_t)(uintptr_t)p.v.data / 2 | (uint64_t)p.k.row | (uint64_t)p.v.row |
                   (uint64_t)p.k.head | (uint64_t)p.v.head | (uint64_t)p.width | (uint64_t)p.value_width;
    attention_parts split;
    if (cuda_attention_split(s, p, queries, keys, blocks, 2 * team<WIDTH>::TURN, &split))
        return -1;
    dim3 grid((unsigned)queries, (unsigned)(p.key_heads * chunks), (unsigned)split.splits);
    SW_LAUNCH_EARLY((attention_few<WIDTH, TYPE>), grid, THREADS, 0, s, p, split, odd % RUN == 0);
    return cuda_launched(s, "attention_fwd") || cuda_attention_join(s, p, split);
}

template <int WIDTH> int launch_type(sw_stream *s, const attention_call &p, int64_t queries, int64_t keys)
{
    int type = p.k.type == p.v.type ? p.k.type : (int)SW_F32;
    return type == SW_BF16  ? launch<WIDTH, SW_BF16>(s, p, queries, keys)
           : type == SW_F16 ? launch<WIDTH, SW_F16>(s, p, queries, keys)
                            : launch<WIDTH, SW_F32>(s, p, queries, keys);
}

} // namespace

int cuda_attention_few(sw_stream *s, const attention_call &p, int64_t queries, int64_t keys)
{
    int width = p.width > p.value_width ? p.width : p.value_width;
    return width <= 64    ? launch_type<64>(s, p, queries, keys)
           : width <= 128 ? launch_type<128>(s, p, queries, keys)
                          : launch_type<256>(s, p, queries, keys);
}
