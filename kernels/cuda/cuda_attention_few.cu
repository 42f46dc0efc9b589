/* Attention of few queries over many keys (decoding). Eight lanes take a key: each has some runs of eight of its values,
 * so that a key is read in one go by neighbours, without shared memory; they keep a running softmax of their own for up to
 * four heads that share the key head. What the groups of a block found is joined at its end, what the blocks of a long
 * context found by attention_join. Reads the keys and values once: 32,768 keys of 8 heads of 128 in bf16, 134 MB, 0.04 ms. */
#include "cuda_attention.cuh"

namespace {

enum { THREADS = 128, LANES = 8, GROUPS = THREADS / LANES };

/* WIDTH: the least of 64, 128, 256 that holds both widths; HEADS that a block does together.
 * 32 heads over 8 of 128, 32,768 bf16 keys: 134 MB, 0.04 ms; 0.5 GFLOP. */
template <int WIDTH, int HEADS> __global__ void __launch_bounds__(THREADS) attention_few(attention_call p, attention_parts split)
{
    SW_DYNAMIC_SHARED(float, shared); /* [GROUPS][HEADS][2 + WIDTH] */
    const int RUNS = WIDTH / (LANES * RUN), EACH = 2 + WIDTH;
    int group = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES, chunks = (p.group + HEADS - 1) / HEADS;
    int64_t query = blockIdx.x, n = 0, k0 = 0, place = 0, m = 0, from, to;
    int key_head = (int)blockIdx.y / chunks, first_head = (int)blockIdx.y % chunks * HEADS; /* within the group */
    bool covered = false;
    for (int b = 0; b < p.count; b++) {
        int64_t q0 = p.seqs[4 * b];
        n = p.seqs[4 * b + 1];
        if (covered || query < q0 || query >= q0 + n)
            continue;
        covered = true;
        k0 = p.seqs[4 * b + 2];
        m = p.seqs[4 * b + 3];
        place = m - n + query - q0;
    }
    if (!covered)
        return;
    key_range(p, place, place, m, &from, &to);
    int64_t each = to > from ? (to - from + split.splits - 1) / split.splits : 0;
    from += (int64_t)blockIdx.z * each;
    to = to < from + each ? to : from + each;
    float q[HEADS][RUNS * RUN], acc[HEADS][RUNS * RUN], top[HEADS], sum[HEADS];
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        int head = key_head * p.group + (first_head + h < p.group ? first_head + h : p.group - 1);
        top[h] = -INFINITY;
        sum[h] = 0;
#pragma unroll
        for (int j = 0; j < RUNS; j++) {
            int c = (lane + LANES * j) * RUN, have = p.width - c;
            float v[RUN];
            load_run(v, p.q.data, p.q.type, p.q.at(query, head) + c, have);
#pragma unroll
            for (int i = 0; i < RUN; i++) {
                q[h][j * RUN + i] = v[i];
                acc[h][j * RUN + i] = 0;
            }
        }
    }
    for (int64_t base = from; base < to; base += GROUPS) { /* whole warps go round together */
        int64_t key = base + group;
        bool seen = key < to && sees(p, query, place, key);
        int64_t k_at = seen ? p.k.at(k0 + key, key_head) : 0, v_at = seen ? p.v.at(k0 + key, key_head) : 0;
        float dot[HEADS] = {0}, v[RUNS][RUN];
#pragma unroll
        for (int j = 0; j < RUNS; j++) {
            int c = (lane + LANES * j) * RUN, have = seen ? p.width - c : 0, values = seen ? p.value_width - c : 0;
            float k[RUN];
            load_run(k, p.k.data, p.k.type, k_at + c, have);
            load_run(v[j], p.v.data, p.v.type, v_at + c, values);
#pragma unroll
            for (int h = 0; h < HEADS; h++)
#pragma unroll
                for (int i = 0; i < RUN; i++)
                    dot[h] += q[h][j * RUN + i] * k[i];
        }
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            for (int d = LANES / 2; d; d >>= 1)
                dot[h] += __shfl_xor_sync(FULL_WARP, dot[h], d);
            int head = key_head * p.group + (first_head + h < p.group ? first_head + h : p.group - 1);
            float slope, x = seen ? score_of(p, dot[h], head, place, key, &slope) : -INFINITY;
            if (x == -INFINITY)
                continue;
            float most = x > top[h] ? x : top[h], shrink = top[h] > -INFINITY ? expf(top[h] - most) : 0, e = expf(x - most);
            top[h] = most;
            sum[h] = sum[h] * shrink + e;
#pragma unroll
            for (int j = 0; j < RUNS; j++)
#pragma unroll
                for (int i = 0; i < RUN; i++)
                    acc[h][j * RUN + i] = acc[h][j * RUN + i] * shrink + e * v[j][i];
        }
    }
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        float *mine = shared + (group * HEADS + h) * EACH;
        if (lane == 0) {
            mine[0] = top[h];
            mine[1] = sum[h];
        }
#pragma unroll
        for (int j = 0; j < RUNS; j++)
#pragma unroll
            for (int i = 0; i < RUN; i++)
                mine[2 + (lane + LANES * j) * RUN + i] = acc[h][j * RUN + i];
    }
    __syncthreads();
    for (int h = 0; h < HEADS && first_head + h < p.group; h++) {
        int head = key_head * p.group + first_head + h;
        bool sink = p.sinks && !split.at;
        float most = sink ? p.sinks[head] : -INFINITY, total = 0;
        for (int g = 0; g < GROUPS; g++)
            most = shared[(g * HEADS + h) * EACH] > most ? shared[(g * HEADS + h) * EACH] : most;
        if (sink)
            total = expf(p.sinks[head] - most);
        float weight[GROUPS];
        for (int g = 0; g < GROUPS; g++) {
            const float *part = shared + (g * HEADS + h) * EACH;
            weight[g] = part[0] > -INFINITY ? expf(part[0] - most) : 0;
            total += weight[g] * part[1];
        }
        int64_t row = query * p.heads + head;
        float *part = split.at ? split.at + ((int64_t)blockIdx.z * split.rows + row) * (2 + p.value_width) : NULL;
        for (int c = (int)threadIdx.x; c < p.value_width; c += THREADS) {
            float v = 0;
            for (int g = 0; g < GROUPS; g++)
                v += weight[g] > 0 ? weight[g] * shared[(g * HEADS + h) * EACH + 2 + c] : 0;
            if (part)
                part[2 + c] = v;
            else
                set_value(p.out.data, p.out.type, p.out.at(query, head) + c, total > 0 ? v / total : 0);
        }
        if (threadIdx.x)
            continue;
        if (part) {
            part[0] = most;
            part[1] = total;
        } else if (p.lse) {
            p.lse[row] = total > 0 ? most + logf(total) : -INFINITY;
        }
    }
}

template <int WIDTH, int HEADS> int launch(sw_stream *s, const attention_call &p, int64_t queries, int64_t keys)
{
    int64_t chunks = (p.group + HEADS - 1) / HEADS, blocks = queries * p.key_heads * chunks;
    attention_parts split;
    if (cuda_attention_split(s, p, queries, keys, blocks, 4 * GROUPS, &split))
        return -1;
    size_t bytes = (size_t)GROUPS * HEADS * (2 + WIDTH) * sizeof(float);
    if (cuda_shared(s, attention_few<WIDTH, HEADS>, bytes, "attention"))
        return -1;
    SW_LAUNCH((attention_few<WIDTH, HEADS>), dim3((unsigned)queries, (unsigned)(p.key_heads * chunks), (unsigned)split.splits), THREADS, bytes,
              s->stream, p, split);
    return cuda_launched(s, "attention_fwd") || cuda_attention_join(s, p, split);
}

} // namespace

int cuda_attention_few(sw_stream *s, const attention_call &p, int64_t queries, int64_t keys)
{
    int width = p.width > p.value_width ? p.width : p.value_width;
    return width <= 64    ? launch<64, 4>(s, p, queries, keys)
           : width <= 128 ? launch<128, 4>(s, p, queries, keys)
                          : launch<256, 2>(s, p, queries, keys);
}
