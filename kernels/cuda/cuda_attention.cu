/* Attention forward with a running softmax (Milakov and Gimelshein 2018; Rabe and Staats 2021; Dao 2023), in f32, on any
 * GPU. A block has a tile of rows of one key head and goes through the keys 32 at a time: a lane scores a key, then owns
 * columns of the output; keys and values take turns in the same shared memory. When there are few rows the keys are split
 * over blocks and what they found is joined by a second kernel. Tensor cores do the 16-bit types (cuda_attention_mma.cu),
 * few queries have a kernel of their own (cuda_attention_few.cu).
 *
 * 4 T^2 D operations a head (half of it when causal): 2048 tokens, 32 heads of 128 take 34 GFLOP, 0.5 ms at the f32
 * limit; shared memory, two reads for four operations, allows about a third of it. */
#include "cuda_attention.cuh"

namespace {

enum { KEYS = 32, WARP_ROWS = 4, MOST_SPLITS = 64 };

/* 2048 causal f32 tokens, 32 heads of 128 over 8: 34 GFLOP, 0.51 ms at the limit of f32; 84 MB, 0.03 ms. */
template <int COLUMNS> /* value_width <= 32 COLUMNS */
__global__ void attention_plain(attention_call p, attention_parts split)
{
    SW_DYNAMIC_SHARED(float, shared);
    int warps = (int)blockDim.x / 32, warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, rows = warps * WARP_ROWS;
    int padded = (p.width + 3) & ~3, stride = padded + 1;
    float *qs = shared, *kv = qs + rows * padded;
    float *prob = kv + KEYS * (stride > p.value_width ? stride : p.value_width) + warp * WARP_ROWS * KEYS;
    int key_head = (int)blockIdx.y;
    attention_seq s;
    if (!find_tile(p, blockIdx.x, rows, false, &s))
        return;
    int64_t first = s.tile * rows, have = s.n * p.group, from, to;
    int64_t last = first + rows < have ? first + rows - 1 : have - 1, shift = s.m - s.n;
    key_range(p, shift + first / p.group, shift + last / p.group, s.m, &from, &to);
    from = from / KEYS * KEYS;
    if (split.splits > 1) { /* whole tiles, shared out evenly */
        int64_t tiles = to > from ? (to - from + KEYS - 1) / KEYS : 0, each = (tiles + split.splits - 1) / split.splits;
        from += (int64_t)blockIdx.z * each * KEYS;
        to = to < from + each * KEYS ? to : from + each * KEYS;
    }
    load_tile(qs, padded, p.q, s.q0, have, rows, p.width, padded, (int64_t)key_head * p.group, p.group, first);
    float top[WARP_ROWS], sum[WARP_ROWS], acc[WARP_ROWS][COLUMNS];
    int64_t place[WARP_ROWS];
    int head[WARP_ROWS];
#pragma unroll
    for (int j = 0; j < WARP_ROWS; j++) {
        int64_t row = first + warp * WARP_ROWS + j;
        place[j] = shift + row / p.group;
        head[j] = key_head * p.group + (int)(row % p.group);
        bool sink = p.sinks && !split.at;
        top[j] = sink ? p.sinks[head[j]] : -INFINITY;
        sum[j] = sink && lane == 0 ? 1 : 0;
        for (int c = 0; c < COLUMNS; c++)
            acc[j][c] = 0;
    }
    for (int64_t base = from; base < to; base += KEYS) {
        int64_t key = base + lane;
        float score[WARP_ROWS] = {0}, slope;
        __syncthreads();
        load_tile(kv, stride, p.k, s.k0, s.m, KEYS, p.width, padded, key_head, 1, base);
        __syncthreads();
        for (int d = 0; d < padded; d += 4) {
            const float *k = kv + lane * stride + d;
            float k0 = k[0], k1 = k[1], k2 = k[2], k3 = k[3];
#pragma unroll
            for (int j = 0; j < WARP_ROWS; j++) {
                float4 q = *(const float4 *)(qs + (warp * WARP_ROWS + j) * padded + d);
                score[j] += q.x * k0 + q.y * k1 + q.z * k2 + q.w * k3;
            }
        }
        __syncthreads();
        load_tile(kv, p.value_width, p.v, s.k0, s.m, KEYS, p.value_width, p.value_width, key_head, 1, base);
        __syncthreads();
#pragma unroll
        for (int j = 0; j < WARP_ROWS; j++) {
            bool seen = key < to && first + warp * WARP_ROWS + j < have && sees(p, s.q0 + (first + warp * WARP_ROWS + j) / p.group, place[j], key);
            float x = seen ? score_of(p, score[j], head[j], place[j], key, &slope) : -INFINITY;
            float most = warp_max(x), old = top[j];
            top[j] = most > old ? most : old;
            float e = x > -INFINITY ? expf(x - top[j]) : 0, shrink = old > -INFINITY ? expf(old - top[j]) : 0;
            sum[j] = sum[j] * shrink + e;
            for (int c = 0; c < COLUMNS; c++)
                acc[j][c] *= shrink;
            prob[j * KEYS + lane] = e;
        }
        __syncwarp();
        for (int k = 0; k < KEYS; k++) {
            float e[WARP_ROWS];
            for (int j = 0; j < WARP_ROWS; j++)
                e[j] = prob[j * KEYS + k];
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) {
                float v = lane + 32 * c < p.value_width ? kv[k * p.value_width + lane + 32 * c] : 0;
#pragma unroll
                for (int j = 0; j < WARP_ROWS; j++)
                    acc[j][c] += e[j] * v;
            }
        }
    }
#pragma unroll
    for (int j = 0; j < WARP_ROWS; j++) {
        int64_t row = first + warp * WARP_ROWS + j, query = s.q0 + row / p.group;
        float total = warp_sum(sum[j]);
        if (row >= have)
            continue;
        if (split.at) {
            float *part = split.at + ((int64_t)blockIdx.z * split.rows + query * p.heads + head[j]) * (2 + p.value_width);
            if (lane == 0) {
                part[0] = top[j];
                part[1] = total;
            }
            for (int c = 0; c < COLUMNS; c++)
                if (lane + 32 * c < p.value_width)
                    part[2 + lane + 32 * c] = acc[j][c];
            continue;
        }
        for (int c = 0; c < COLUMNS; c++)
            if (lane + 32 * c < p.value_width)
                set_value(p.out.data, p.out.type, p.out.at(query, head[j]) + lane + 32 * c, total > 0 ? acc[j][c] / total : 0);
        if (p.lse && lane == 0)
            p.lse[query * p.heads + head[j]] = total > 0 ? top[j] + logf(total) : -INFINITY;
    }
}

/* Parts of a row joined in order: a block a query and head, each of whose warps finds by itself what the parts weigh.
 * One query, 32 heads of 128 in 64 parts: 1.1 MB read, 0.3 us; the launch costs more. */
__global__ void attention_join(attention_call p, attention_parts split)
{
    __shared__ float weight[MOST_SPLITS];
    begin_early();
    int64_t row = blockIdx.x, query = row / p.heads;
    int head = (int)(row % p.heads), lane = (int)threadIdx.x % 32;
    bool covered = false;
    for (int b = 0; b < p.count; b++)
        covered |= query >= p.seqs[4 * b] && query < (int64_t)p.seqs[4 * b] + p.seqs[4 * b + 1];
    if (!covered)
        return;
    const float *part = split.at + row * (2 + p.value_width);
    int64_t step = split.rows * (2 + p.value_width);
    float top = p.sinks ? p.sinks[head] : -INFINITY, total = 0;
    for (int i = lane; i < split.splits; i += 32)
        top = larger()(top, part[i * step]);
    top = warp_max(top);
    for (int i = lane; i < split.splits; i += 32) {
        float w = part[i * step] > -INFINITY ? expf(part[i * step] - top) : 0;
        total += w * part[i * step + 1];
        if (threadIdx.x < 32)
            weight[i] = w;
    }
    total = warp_sum(total) + (p.sinks ? expf(p.sinks[head] - top) : 0);
    __syncthreads();
    for (int c = (int)threadIdx.x; c < p.value_width; c += (int)blockDim.x) {
        float v = 0;
#pragma unroll 8
        for (int i = 0; i < split.splits; i++)
            v += weight[i] > 0 ? part[i * step + 2 + c] * weight[i] : 0;
        set_value(p.out.data, p.out.type, p.out.at(query, head) + c, total > 0 ? v / total : 0);
    }
    if (p.lse && threadIdx.x == 0)
        p.lse[row] = total > 0 ? top + logf(total) : -INFINITY;
}

template <int COLUMNS> int launch(sw_stream *s, const attention_call &p, const attention_parts &split, int64_t queries, int warps)
{
    int padded = (p.width + 3) & ~3, wide = padded + 1 > p.value_width ? padded + 1 : p.value_width;
    size_t bytes;
    for (;; warps /= 2) {
        bytes = (size_t)(warps * WARP_ROWS * padded + KEYS * wide + warps * WARP_ROWS * KEYS) * sizeof(float);
        if (bytes <= s->shared_most || warps == 1)
            break;
    }
    int64_t tiles = queries * p.group / (warps * WARP_ROWS) + p.count;
    if (cuda_shared(s, attention_plain<COLUMNS>, bytes, "attention"))
        return -1;
    SW_LAUNCH(attention_plain<COLUMNS>, dim3((unsigned)tiles, (unsigned)p.key_heads, (unsigned)split.splits), (unsigned)warps * 32, bytes,
              s->stream, p, split);
    return cuda_launched(s, "attention_fwd");
}

} // namespace

head_rows cuda_head_rows(const sw_tensor *t) { return head_rows{t->data, t->dtype, t->stride[0], t->stride[1], NULL, 0}; }

attention_call cuda_attention_call(const sw_tensor *out, const sw_tensor *lse, const sw_tensor *q, const sw_tensor *k, const sw_tensor *v,
                                   const sw_tensor *seqs, const sw_attention *a)
{
    attention_call p = {};
    p.q = cuda_head_rows(q), p.k = cuda_head_rows(k), p.v = cuda_head_rows(v), p.out = cuda_head_rows(out);
    p.k.page = p.v.page = a->paging.page;
    p.k.bits = p.v.bits = a->paging.bits;
    p.lse = lse ? (float *)lse->data : NULL;
    p.seqs = (const int *)seqs->data;
    p.count = (int)seqs->shape[0];
    p.heads = (int)q->shape[1], p.key_heads = (int)k->shape[1], p.group = p.heads / p.key_heads;
    p.width = (int)q->shape[2], p.value_width = (int)v->shape[2];
    p.causal = a->causal, p.window = a->window, p.scale = (float)a->scale, p.softcap = (float)a->softcap;
    p.alibi = a->alibi, p.sinks = a->sinks, p.seen = a->seen, p.seen_words = a->seen_words;
    p.bias = a->bias, p.bias_span = a->bias_span, p.bias_zero = a->bias_zero;
    return p;
}

int cuda_attention_split(sw_stream *s, const attention_call &p, int64_t queries, int64_t keys, int64_t blocks, int64_t least, attention_parts *split)
{
    int64_t most = keys / p.count / least, want = (4 * s->sms + blocks - 1) / blocks;
    *split = attention_parts{NULL, 1, queries * p.heads};
    if (blocks >= 2 * s->sms || most <= 1 || want <= 1)
        return 0;
    want = want < most ? want : most;
    split->splits = want < MOST_SPLITS ? (int)want : (int)MOST_SPLITS;
    split->at = (float *)cuda_scratch(s, (size_t)(split->splits * split->rows * (2 + p.value_width)) * sizeof(float));
    return split->at ? 0 : -1;
}

int cuda_attention_join(sw_stream *s, const attention_call &p, const attention_parts &split)
{
    if (!split.at)
        return 0;
    SW_LAUNCH_EARLY(attention_join, (unsigned)split.rows, 128, 0, s, p, split);
    return cuda_launched(s, "attention_fwd");
}

int cuda_attention_fwd(sw_stream *s, sw_tensor *out, sw_tensor *lse, const sw_tensor *q, const sw_tensor *k, const sw_tensor *v,
                       const sw_tensor *seqs, const sw_attention *a)
{
    attention_call p = cuda_attention_call(out, lse, q, k, v, seqs, a);
    int64_t queries = q->shape[0], keys = a->paging.page ? a->paging.most * p.count : k->shape[0];
    if (!queries || !p.count || !p.value_width)
        return 0;
    if (p.value_width > 512)
        return cuda_fail("%s: attention heads have %d values; at most 512 are computed", s->name, p.value_width);
    if (queries <= 8 * (int64_t)p.count && p.width <= 256 && p.value_width <= 256)
        return cuda_attention_few(s, p, queries, keys);
    int64_t rows = queries * p.group;
    int rc = cuda_attention_wgmma(s, p, queries);
    rc = rc ? rc : cuda_attention_mma(s, p, queries);
    if (rc)
        return rc < 0 ? -1 : 0;
    int warps = rows <= 4 * p.count ? 1 : rows <= 8 * p.count ? 2 : rows <= 16 * p.count ? 4 : 8;
    attention_parts split;
    if (cuda_attention_split(s, p, queries, keys, (rows / (warps * WARP_ROWS) + p.count) * p.key_heads, 4 * KEYS, &split))
        return -1;
    rc = p.value_width <= 64    ? launch<2>(s, p, split, queries, warps)
         : p.value_width <= 128 ? launch<4>(s, p, split, queries, warps)
         : p.value_width <= 256 ? launch<8>(s, p, split, queries, warps)
                                : launch<16>(s, p, split, queries, warps);
    return rc || cuda_attention_join(s, p, split);
}
