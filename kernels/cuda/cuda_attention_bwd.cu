/* Attention backward, in f32, on any GPU. With P = exp(score - lse) and delta = dout . out: dscore = P (dout v - delta),
 * dv = P^T dout; scores are made again from q and k. One kernel goes along the rows for a tile of keys (dk, dv), one
 * along the keys for a tile of rows (dq): nothing is added by two blocks, so the sums have one order.
 * 14 T^2 D operations a head (half when causal), all through shared memory: 2048 tokens, 32 heads of 128 take 120 GFLOP,
 * 1.8 ms at the f32 limit, of which shared memory allows about a quarter. */
#include "cuda_attention.cuh"

namespace {

enum { THREADS = 256 };

/* The tiles in shared memory; strides are odd, so that neighbouring rows lie in other banks. */
struct tiles {
    float *q, *g, *k, *v, *first, *second, *prob, *score, *lse, *delta; /* g: dout; first, second: sums */
    int width, value_width; /* strides */
};

__device__ int odd(int n) { return n | 1; }

__device__ tiles tiles_of(const gradient_call &c, float *at, bool of_keys)
{
    tiles t;
    t.width = odd(c.p.width);
    t.value_width = odd(c.p.value_width);
    t.q = at, at += c.rows * t.width;
    t.g = at, at += c.rows * t.value_width;
    t.k = at, at += c.keys * t.width;
    t.v = at, at += c.keys * t.value_width;
    t.prob = at, at += c.rows * c.keys;
    t.score = at, at += c.rows * c.keys;
    t.lse = at, at += c.rows;
    t.delta = at, at += c.rows;
    t.first = at, at += (of_keys ? c.keys : c.rows) * t.width;
    t.second = of_keys ? at : NULL;
    return t;
}

size_t tiles_bytes(const attention_call &p, int rows, int keys, bool of_keys)
{
    int width = p.width | 1, values = p.value_width | 1;
    return sizeof(float) * (size_t)((rows + keys) * (width + values) + 2 * rows * keys + 2 * rows + (of_keys ? keys * (width + values) : rows * width));
}

__device__ void load_rows(const gradient_call &c, const tiles &t, const attention_seq &s, int key_head, int64_t first)
{
    const attention_call &p = c.p;
    int64_t have = s.n * p.group, head = (int64_t)key_head * p.group;
    load_tile(t.q, t.width, p.q, s.q0, have, c.rows, p.width, p.width, head, p.group, first);
    load_tile(t.g, t.value_width, c.dout, s.q0, have, c.rows, p.value_width, p.value_width, head, p.group, first);
    for (int r = (int)threadIdx.x; r < c.rows; r += THREADS) {
        int64_t row = first + r, at = (s.q0 + row / p.group) * p.heads + head + row % p.group;
        t.lse[r] = row < have ? c.lse[at] : 0;
        t.delta[r] = row < have ? c.delta[at] : 0;
    }
}

__device__ void load_keys(const gradient_call &c, const tiles &t, const attention_seq &s, int key_head, int64_t base)
{
    load_tile(t.k, t.width, c.p.k, s.k0, s.m, c.keys, c.p.width, c.p.width, key_head, 1, base);
    load_tile(t.v, t.value_width, c.p.v, s.k0, s.m, c.keys, c.p.value_width, c.p.value_width, key_head, 1, base);
}

/* prob = P and score = dP/d(q . k), or by the score itself where `bare`, for the rows from `first` and the keys from `base`;
 * zeros where a row does not see. */
__device__ void pair(const gradient_call &c, const tiles &t, const attention_seq &s, int key_head, int64_t first, int64_t base, bool bare)
{
    const attention_call &p = c.p;
    for (int i = (int)threadIdx.x; i < c.rows * c.keys; i += THREADS) {
        int r = i / c.keys, k = i - r * c.keys;
        int64_t row = first + r, key = base + k, place = s.m - s.n + row / p.group;
        float prob = 0, score = 0;
        if (row < s.n * p.group && key < s.m && sees(p, s.q0 + row / p.group, place, key)) {
            float dot = 0, dp = 0, slope;
            for (int d = 0; d < p.width; d++)
                dot += t.q[r * t.width + d] * t.k[k * t.width + d];
            for (int d = 0; d < p.value_width; d++)
                dp += t.g[r * t.value_width + d] * t.v[k * t.value_width + d];
            prob = expf(score_of(p, dot, key_head * p.group + (int)(row % p.group), place, key, &slope) - t.lse[r]);
            score = prob * (dp - t.delta[r]) * (bare ? 1 : slope * p.scale);
        }
        t.prob[i] = prob;
        t.score[i] = score;
    }
}

/* sum[i][c] += over j of a[i or j][..] b[j][c]; a is [rows, keys], turned: i counts keys. */
__device__ void add_product(float *sum, int stride, int items, const float *a, int row, int column, int terms, const float *b, int b_stride, int width)
{
    for (int i = (int)threadIdx.x; i < items * width; i += THREADS) {
        int r = i / width, c = i - r * width;
        float v = sum[r * stride + c];
        for (int j = 0; j < terms; j++)
            v += a[r * row + j * column] * b[j * b_stride + c];
        sum[r * stride + c] = v;
    }
}

__device__ void clear(float *p, int n)
{
    for (int i = (int)threadIdx.x; i < n; i += THREADS)
        p[i] = 0;
}

__device__ void store_tile(const head_rows &to, const float *from, int stride, int64_t first, int64_t have, int rows, int width, int64_t head, int group, int64_t skip)
{
    for (int i = (int)threadIdx.x; i < rows * width; i += THREADS) {
        int r = i / width, c = i - r * width;
        int64_t item = skip + r;
        if (item < have)
            set_value(to.data, to.type, to.at(first + item / group, head + item % group) + c, from[r * stride + c]);
    }
}

/* Four products of the five: 2048 causal f32 tokens, 32 heads of 128: 69 GFLOP, 1.0 ms at the limit of f32; 0.2 GB. */
__global__ void __launch_bounds__(THREADS) gradient_keys(gradient_call c)
{
    SW_DYNAMIC_SHARED(float, shared);
    const attention_call &p = c.p;
    tiles t = tiles_of(c, shared, true);
    int key_head = (int)blockIdx.y;
    attention_seq s;
    if (!find_tile(p, blockIdx.x, c.keys, true, &s))
        return;
    int64_t base = s.tile * c.keys, last = base + c.keys < s.m ? base + c.keys - 1 : s.m - 1;
    load_keys(c, t, s, key_head, base);
    clear(t.first, c.keys * t.width);
    clear(t.second, c.keys * t.value_width);
    int64_t from, to;
    query_range(p, base, last, s, &from, &to);
    for (int64_t first = from * p.group / c.rows * c.rows; first < to * p.group; first += c.rows) {
        __syncthreads();
        load_rows(c, t, s, key_head, first);
        __syncthreads();
        pair(c, t, s, key_head, first, base, false);
        __syncthreads();
        add_product(t.second, t.value_width, c.keys, t.prob, 1, c.keys, c.rows, t.g, t.value_width, p.value_width);
        add_product(t.first, t.width, c.keys, t.score, 1, c.keys, c.rows, t.q, t.width, p.width);
    }
    __syncthreads();
    store_tile(c.dk, t.first, t.width, s.k0, s.m, c.keys, p.width, key_head, 1, base);
    store_tile(c.dv, t.second, t.value_width, s.k0, s.m, c.keys, p.value_width, key_head, 1, base);
}

/* Three products: the same shape 52 GFLOP, 0.77 ms at the limit of f32; 0.2 GB. */
__global__ void __launch_bounds__(THREADS) gradient_rows(gradient_call c)
{
    SW_DYNAMIC_SHARED(float, shared);
    const attention_call &p = c.p;
    tiles t = tiles_of(c, shared, false);
    int key_head = (int)blockIdx.y;
    attention_seq s;
    if (!find_tile(p, blockIdx.x, c.rows, false, &s))
        return;
    int64_t first = s.tile * c.rows, have = s.n * p.group, from, to, shift = s.m - s.n;
    int64_t last = first + c.rows < have ? first + c.rows - 1 : have - 1;
    key_range(p, shift + first / p.group, shift + last / p.group, s.m, &from, &to);
    load_rows(c, t, s, key_head, first);
    clear(t.first, c.rows * t.width);
    for (int64_t base = from / c.keys * c.keys; base < to; base += c.keys) {
        __syncthreads();
        load_keys(c, t, s, key_head, base);
        __syncthreads();
        pair(c, t, s, key_head, first, base, false);
        __syncthreads();
        add_product(t.first, t.width, c.rows, t.score, c.keys, 1, c.keys, t.k, t.width, p.width);
    }
    __syncthreads();
    store_tile(c.dq, t.first, t.width, s.q0, have, c.rows, p.width, (int64_t)key_head * p.group, p.group, first);
}

/* What the tile of scores adds to the biases of its heads: a thread sums the pairs of one place of a head's table, which
 * at its ends are those of many distances. */
__device__ void add_distances(const gradient_call &c, const tiles &t, const attention_seq &s, int64_t first, int64_t base, float *dbias)
{
    const attention_call &p = c.p;
    int64_t place = s.m - s.n + first / p.group, last = s.m - s.n + (first + c.rows - 1) / p.group;
    int64_t least = base - last, most = base + c.keys - 1 - place, from = bias_at(p, least), places = bias_at(p, most) - from + 1;
    for (int64_t i = threadIdx.x; i < places * p.group; i += THREADS) {
        int64_t at = from + i / p.group, member = i % p.group;
        int64_t low = at == 0 ? least : at - p.bias_zero, high = at == p.bias_span - 1 ? most : at - p.bias_zero;
        float sum = 0;
        for (int r = (int)((member - first % p.group + p.group) % p.group); r < c.rows; r += p.group) {
            int64_t query = s.m - s.n + (first + r) / p.group, k = low + query - base, end = high + query - base;
            for (k = k < 0 ? 0 : k; k <= end && k < c.keys; k++)
                sum += t.score[r * c.keys + k];
        }
        dbias[member * p.bias_span + at] += sum;
    }
}

/* The scores of a tile of queries once more, and what they add to the biases. 512 tokens both ways, 12 heads of 64 in bf16: 2.4 MB
 * read, 0.8 GFLOP without tensor cores, 12 us at their peak. */
__global__ void __launch_bounds__(THREADS) gradient_bias(gradient_call c)
{
    SW_DYNAMIC_SHARED(float, shared);
    const attention_call &p = c.p;
    tiles t = tiles_of(c, shared, false);
    int key_head = (int)blockIdx.y;
    float *dbias = c.dbias + ((int64_t)blockIdx.x * p.heads + (int64_t)key_head * p.group) * p.bias_span;
    for (int64_t i = threadIdx.x; i < p.group * p.bias_span; i += THREADS)
        dbias[i] = 0;
    attention_seq s;
    if (!find_tile(p, blockIdx.x, c.rows, false, &s))
        return;
    int64_t first = s.tile * c.rows, have = s.n * p.group, from, to, shift = s.m - s.n;
    int64_t last = first + c.rows < have ? first + c.rows - 1 : have - 1;
    key_range(p, shift + first / p.group, shift + last / p.group, s.m, &from, &to);
    load_rows(c, t, s, key_head, first);
    for (int64_t base = from / c.keys * c.keys; base < to; base += c.keys) {
        __syncthreads();
        load_keys(c, t, s, key_head, base);
        __syncthreads();
        pair(c, t, s, key_head, first, base, true);
        __syncthreads();
        add_distances(c, t, s, first, base, dbias);
    }
}

/* The tiles' shares, in order. 32 tiles of 12 heads of 32 buckets: 49 KB read, a launch's time. */
__global__ void __launch_bounds__(THREADS) sum_bias(float *to, const float *parts, int64_t tiles, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    float sum = 0;
    for (int64_t k = 0; i < n && k < tiles; k++)
        sum += parts[k * n + i];
    if (i < n)
        to[i] += sum;
}

/* delta = dout . out: `lanes` of a warp (a power of two) a (query, head), eight values each at a time. TYPE: both are of it, in
 * whole aligned runs; or ANY_TYPE. 2048 tokens, 32 heads of 128 in bf16: 34 MB read, 10 us; 17 MFLOP. */
template <int TYPE> __global__ void __launch_bounds__(THREADS) gradient_delta(gradient_call c, int64_t total, int lanes)
{
    int64_t row = (int64_t)blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes;
    float sum = 0;
    if (row < total) {
        int64_t query = total <= 0x7fffffff ? (int64_t)((unsigned)row / (unsigned)c.p.heads) : row / c.p.heads;
        int64_t head = row - query * c.p.heads;
        int64_t from = c.dout.at(query, head), at = c.p.out.at(query, head);
        for (int i = (int)threadIdx.x % lanes * RUN; i < c.p.value_width; i += lanes * RUN) {
            float u[RUN], v[RUN];
            if constexpr (TYPE == ANY_TYPE) {
                int n = c.p.value_width - i < RUN ? c.p.value_width - i : (int)RUN;
                load_run(u, c.dout.data, c.dout.type, from + i, n);
                load_run(v, c.p.out.data, c.p.out.type, at + i, n);
            } else {
                load_whole<TYPE>(u, c.dout.data, from + i);
                load_whole<TYPE>(v, c.p.out.data, at + i);
            }
#pragma unroll
            for (int k = 0; k < RUN; k++)
                sum += u[k] * v[k];
        }
    }
    for (int d = lanes / 2; d; d >>= 1)
        sum += __shfl_xor_sync(FULL_WARP, sum, d);
    if (row < total && (int)threadIdx.x % lanes == 0)
        c.delta[row] = sum;
}

/* dsinks[h] -= exp(sink - lse) delta over the queries: a block a head.
 * 2048 tokens, 32 heads: 0.5 MB read, 0.2 us; the launch costs more. */
__global__ void __launch_bounds__(THREADS) gradient_sinks(gradient_call c, float *dsinks)
{
    __shared__ float space[32];
    const attention_call &p = c.p;
    int head = (int)blockIdx.x;
    float sum = 0, sink = p.sinks[head];
    for (int b = 0; b < p.count; b++)
        for (int64_t i = threadIdx.x; i < p.seqs[4 * b + 1]; i += THREADS) {
            int64_t at = (p.seqs[4 * b] + i) * p.heads + head;
            sum += expf(sink - c.lse[at]) * c.delta[at];
        }
    sum = row_sum(sum, space);
    if (threadIdx.x == 0)
        dsinks[head] -= sum;
}

void find_delta(sw_stream *s, const gradient_call &c, int64_t total)
{
    int lanes = 1;
    while (lanes < 32 && lanes * RUN < c.p.value_width)
        lanes *= 2;
    bool whole = c.dout.type == c.p.out.type && c.p.value_width % RUN == 0 && whole_runs(c.dout) && whole_runs(c.p.out);
    int64_t each = THREADS / lanes;
    cuda_by_type(whole ? c.dout.type : (int)ANY_TYPE, [&](auto type) {
        SW_LAUNCH((gradient_delta<decltype(type)::value>), (unsigned)((total + each - 1) / each), THREADS, 0, s->stream, c, total,
                  lanes);
    });
}

/* The largest tiles that fit: 32, 16 or 8 rows and keys. */
int tile_size(const sw_stream *s, const attention_call &p, bool of_keys)
{
    int n = 32;
    while (n > 8 && tiles_bytes(p, n, n, of_keys) > s->shared_most)
        n /= 2;
    return n;
}

int bias_gradient(sw_stream *s, gradient_call c, int64_t tiles, float *dbias)
{
    size_t bytes = tiles_bytes(c.p, c.rows, c.keys, false);
    int64_t n = c.p.heads * c.p.bias_span;
    if (cuda_shared(s, gradient_bias, bytes, "the gradient of attention"))
        return -1;
    SW_LAUNCH(gradient_bias, dim3((unsigned)tiles, (unsigned)c.p.key_heads), THREADS, bytes, s->stream, c);
    SW_LAUNCH(sum_bias, (unsigned)((n + THREADS - 1) / THREADS), THREADS, 0, s->stream, dbias, (const float *)c.dbias, tiles, n);
    return cuda_launched(s, "attention_bwd");
}

} // namespace

int cuda_attention_bwd(sw_stream *s, sw_tensor *dq, sw_tensor *dk, sw_tensor *dv, const sw_tensor *dout, const sw_tensor *out,
                       const sw_tensor *lse, const sw_tensor *q, const sw_tensor *k, const sw_tensor *v, const sw_tensor *seqs,
                       const sw_attention *a)
{
    gradient_call c = {};
    c.p = cuda_attention_call(out, lse, q, k, v, seqs, a);
    c.dout = cuda_head_rows(dout), c.dq = cuda_head_rows(dq), c.dk = cuda_head_rows(dk), c.dv = cuda_head_rows(dv);
    c.lse = (const float *)lse->data;
    int64_t queries = q->shape[0], keys = k->shape[0], total = queries * c.p.heads;
    if (!c.p.count)
        return 0;
    c.rows = c.keys = tile_size(s, c.p, false);
    int64_t row_tiles = queries * c.p.group / c.rows + c.p.count, bias = a->dbias ? row_tiles * c.p.heads * c.p.bias_span : 0;
    c.delta = (float *)cuda_scratch(s, (size_t)(total + 1 + bias) * sizeof(float));
    if (!c.delta)
        return -1;
    c.dbias = c.delta + total + 1;
    if (total)
        find_delta(s, c, total);
    if (a->sinks && a->dsinks)
        SW_LAUNCH(gradient_sinks, (unsigned)c.p.heads, THREADS, 0, s->stream, c, a->dsinks);
    if (bias && bias_gradient(s, c, row_tiles, a->dbias))
        return -1;
    bool tiles = queries >= 8 * (int64_t)c.p.count;
    int rc = tiles ? cuda_attention_bwd_wgmma(s, c, queries, keys) : 0;
    rc = rc || !tiles ? rc : cuda_attention_bwd_mma(s, c, queries, keys);
    if (rc)
        return rc < 0 ? -1 : 0;
    c.rows = c.keys = tile_size(s, c.p, true);
    size_t bytes = tiles_bytes(c.p, c.rows, c.keys, true);
    if (cuda_shared(s, gradient_keys, bytes, "the gradient of attention"))
        return -1;
    SW_LAUNCH(gradient_keys, dim3((unsigned)(keys / c.keys + c.p.count), (unsigned)c.p.key_heads), THREADS, bytes, s->stream, c);
    c.rows = c.keys = tile_size(s, c.p, false);
    bytes = tiles_bytes(c.p, c.rows, c.keys, false);
    if (cuda_shared(s, gradient_rows, bytes, "the gradient of attention"))
        return -1;
    SW_LAUNCH(gradient_rows, dim3((unsigned)(queries * c.p.group / c.rows + c.p.count), (unsigned)c.p.key_heads), THREADS, bytes, s->stream, c);
    return cuda_launched(s, "attention_bwd");
}
