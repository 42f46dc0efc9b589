/* Rotary positions and rows by index. Bound by memory. */
#include "cuda_blocks.cuh"
#include "cuda_fuse.cuh"

namespace {

/* 8192 positions, 64 pairs: 4.2 MB written, 1.3 us; a sine and a cosine each. */
__global__ void __launch_bounds__(256) rope_angles(float *c, float *s, const int *positions, const float *inv_freq, int64_t total, int64_t half, float scale)
{
    begin_early();
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < total; i += (int64_t)gridDim.x * blockDim.x) {
        float angle = __fmul_rn((float)positions[i / half], inv_freq[i % half]);
        c[i] = cosf(angle) * scale;
        s[i] = sinf(angle) * scale;
    }
}

struct rope_heads {
    void *y;
    const void *x;
    int64_t heads, y_token, y_head, x_token, x_head;
};
struct rope_call {
    rope_heads of[2]; /* by blockIdx.y */
    const float *cos, *sin;
    int type, mode, inverse;
    int64_t tokens, width, half, cos_row, sin_row;
};

enum { TURNED = 4 }; /* heads that a thread turns by the same angles */

/* Two runs of a head, eight pairs: at `first` and `second`, of which n and m values exist. */
struct rope_runs {
    int64_t first, second;
    int n, m;
};
__device__ static inline int at_most_run(int64_t n) { return n < 0 ? 0 : n < RUN ? (int)n : (int)RUN; }
__device__ static inline rope_runs runs_of(const rope_call &p, int64_t k)
{
    int64_t left = p.half - k * RUN;
    if (p.mode == SW_ROPE_HALF)
        return rope_runs{k * RUN, p.half + k * RUN, at_most_run(left), at_most_run(left)};
    return rope_runs{2 * k * RUN, 2 * k * RUN + RUN, at_most_run(2 * left), at_most_run(2 * left - RUN)};
}

/* a and b, the two runs, by eight angles: c their cosines, s their sines. */
__device__ static inline void turn(float (&a)[RUN], float (&b)[RUN], const float (&c)[RUN], const float (&s)[RUN], int mode)
{
    float u[RUN], v[RUN]; /* what turns: pairs (u, v) */
#pragma unroll
    for (int i = 0; i < RUN; i++) {
        bool low = i < RUN / 2;
        u[i] = mode == SW_ROPE_HALF ? a[i] : low ? a[2 * i & 7] : b[2 * i & 7];
        v[i] = mode == SW_ROPE_HALF ? b[i] : low ? a[(2 * i + 1) & 7] : b[(2 * i + 1) & 7];
    }
#pragma unroll
    for (int i = 0; i < RUN; i++) {
        float x = u[i] * c[i] - v[i] * s[i];
        v[i] = v[i] * c[i] + u[i] * s[i];
        u[i] = x;
    }
#pragma unroll
    for (int i = 0; i < RUN; i++) {
        a[i] = mode == SW_ROPE_HALF ? u[i] : i & 1 ? v[i / 2] : u[i / 2];
        b[i] = mode == SW_ROPE_HALF ? v[i] : i & 1 ? v[i / 2 + 4] : u[i / 2 + 4];
    }
}

/* Eight pairs, or eight of the values behind them, of TURNED heads a thread, all of whose loads are under way at once. Places are
 * counted a head: first the pairs, then the rest. TYPE: of it, in whole aligned runs; or ANY_TYPE.
 * 8192 tokens, 32 heads of 128 in bf16: 134 MB, 0.04 ms; 0.1 GFLOP. One token's queries and
 * keys: 21 KB; the launch costs more. */
template <int TYPE> __global__ void __launch_bounds__(256) rope_turn(rope_call p)
{
    begin_early();
    constexpr bool KNOWN = TYPE != ANY_TYPE;
    int type = KNOWN ? TYPE : p.type;
    rope_heads o = blockIdx.y ? p.of[1] : p.of[0];
    int64_t pairs = (p.half + RUN - 1) / RUN, rest = o.y == o.x ? 0 : (p.width - 2 * p.half + RUN - 1) / RUN, per_head = pairs + rest;
    int64_t groups = (o.heads + TURNED - 1) / TURNED, total = p.tokens * groups * per_head;
    for (int64_t t = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; t < total; t += (int64_t)gridDim.x * blockDim.x) {
        int64_t row = quotient(t, per_head), k = t - row * per_head, token = quotient(row, groups), head = (row - token * groups) * TURNED;
        int64_t from = token * o.x_token + head * o.x_head, to = token * o.y_token + head * o.y_head;
        int heads = o.heads - head < TURNED ? (int)(o.heads - head) : (int)TURNED;
        if (k >= pairs) {
            int64_t at = 2 * p.half + (k - pairs) * RUN;
            int n = at_most_run(p.width - at);
            for (int h = 0; h < heads; h++) {
                float v[RUN];
                load_run(v, o.x, type, from + h * o.x_head + at, n, KNOWN);
                store_run(o.y, type, to + h * o.y_head + at, n, v, KNOWN);
            }
            continue;
        }
        rope_runs r = runs_of(p, k);
        float c[RUN], s[RUN], a[RUN], b[RUN];
        int angles = at_most_run(p.half - k * RUN);
        stored_run<KNOWN ? TYPE : (int)SW_F16> first[TURNED], second[TURNED];
#pragma unroll
        for (int h = 0; h < TURNED; h++)
            if (KNOWN && h < heads) {
                first[h].load(o.x, from + h * o.x_head + r.first);
                second[h].load(o.x, from + h * o.x_head + r.second);
            }
        load_run(c, p.cos, SW_F32, token * p.cos_row + k * RUN, angles, KNOWN);
        load_run(s, p.sin, SW_F32, token * p.sin_row + k * RUN, angles, KNOWN);
#pragma unroll
        for (int i = 0; i < RUN; i++)
            s[i] = p.inverse ? -s[i] : s[i];
#pragma unroll
        for (int h = 0; h < TURNED; h++) {
            if (h >= heads)
                continue;
            if constexpr (KNOWN) {
                first[h].values(a);
                second[h].values(b);
            } else {
                load_run(a, o.x, type, from + h * o.x_head + r.first, r.n);
                load_run(b, o.x, type, from + h * o.x_head + r.second, r.m);
            }
            turn(a, b, c, s, p.mode);
            store_run(o.y, type, to + h * o.y_head + r.first, r.n, a, KNOWN);
            store_run(o.y, type, to + h * o.y_head + r.second, r.m, b, KNOWN);
        }
    }
}

/* ---- rows by index: row n of one tensor and row ids[n] of the other. The dimensions behind the first are in `g`. */
struct indexed {
    rows_shape g;
    rows_of to, from;
    int64_t to_row, from_row; /* strides of the first dimension, in values */
    const int *ids;
    int64_t n;
    float scale;
    scales_of scales; /* of from */
};

/* to[n] = scale from[ids[n]] (GATHER; zeros where ids < 0), or to[ids[n]] = from[n]; TWO: of two pairs, by blockIdx.y.
 * 8192 rows of 4096 in bf16: 134 MB, 0.04 ms. */
template <bool GATHER, bool TWO> __global__ void __launch_bounds__(256) move_rows(indexed p, indexed other)
{
    begin_early();
    if (TWO && blockIdx.y)
        p = other;
    int64_t per_row = (p.g.width + RUN - 1) / RUN, each = p.g.rows * per_row, total = p.n * each;
    for (int64_t t = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; t < total; t += (int64_t)gridDim.x * blockDim.x) {
        int64_t n = t / each, k = t - n * each, r = k / per_row, c = (k - r * per_row) * RUN;
        int count = p.g.width - c < RUN ? (int)(p.g.width - c) : (int)RUN;
        int id = p.ids[n];
        float v[RUN] = {0};
        if (!GATHER && id < 0)
            continue;
        if (id >= 0 || !GATHER)
            load_any(v, p.from.data, p.from.type, (GATHER ? id : n) * p.from_row + row_start(p.g, p.from, r) + c, count,
                     p.scales);
#pragma unroll
        for (int i = 0; i < RUN; i++)
            v[i] *= p.scale;
        store_run(p.to.data, p.to.type, (GATHER ? n : id) * p.to_row + row_start(p.g, p.to, r) + c, count, v);
    }
}

/* Of each row that ids may name, how often they do and where first: count [rows], and 2^31 - 1 less the place. From zeros; whole
 * numbers, and so the same in every order. 8192 ids: 32 KB; the launch costs more. */
__global__ void __launch_bounds__(256) count_ids(int *count, int *first, const int *ids, int64_t n)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x)
        if (ids[i] >= 0) {
            atomicAdd(&count[ids[i]], 1);
            atomicMax(&first[ids[i]], 0x7fffffff - (int)i);
        }
}

/* to[ids[n]] += scale from[n], equal ids in order: the block of the first n of an id does all of them, and looks on until it has seen
 * as many as there are. TYPE: from is of it, in whole aligned runs; or ANY_TYPE.
 * 8192 rows of 4096 in bf16 to f32, ids all different: 0.34 GB, 0.1 ms. */
template <int TYPE> __global__ void __launch_bounds__(256) add_rows(indexed p, const int *count_of, const int *first_of)
{
    enum { WARPS = 8, EACH = 4, AT_ONCE = 256 * EACH };
    __shared__ int found[AT_ONCE], count[WARPS];
    int64_t n = blockIdx.x;
    int id = p.ids[n], lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    if (id < 0 || first_of[id] != 0x7fffffff - (int)n)
        return;
    int64_t per_row = (p.g.width + RUN - 1) / RUN, each = p.g.rows * per_row;
    int left = count_of[id];
    for (int64_t base = n; left; base += AT_ONCE) { /* a thread looks at EACH neighbours, so that what is found is in order */
        unsigned mine = 0;
        int before = 0, total = 0, own;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int64_t m = base + threadIdx.x * EACH + i;
            mine |= (m < p.n && p.ids[m] == id ? 1u : 0u) << i;
        }
        own = __popc(mine);
        int upto = own; /* of the warp, up to this lane */
        for (int d = 1; d < 32; d *= 2) {
            int other = __shfl_up_sync(FULL_WARP, upto, d);
            upto += lane >= d ? other : 0;
        }
        if (lane == 31)
            count[warp] = upto;
        __syncthreads();
        for (int w = 0; w < WARPS; w++) {
            before += w < warp ? count[w] : 0;
            total += count[w];
        }
        before += upto - own;
        for (int i = 0; i < EACH; i++)
            if (mine >> i & 1)
                found[before++] = (int)threadIdx.x * EACH + i;
        __syncthreads();
        left -= total;
        for (int64_t k = threadIdx.x; total && k < each; k += 256) {
            int64_t r = k / per_row, c = (k - r * per_row) * RUN, to = id * p.to_row + row_start(p.g, p.to, r) + c;
            int64_t from = row_start(p.g, p.from, r) + c;
            int have = p.g.width - c < RUN ? (int)(p.g.width - c) : (int)RUN;
            float sum[RUN], v[RUN];
            load_run(sum, p.to.data, p.to.type, to, have);
#pragma unroll TYPE == ANY_TYPE ? 1 : 4
            for (int j = 0; j < total; j++) {
                int64_t at = (base + found[j]) * p.from_row + from;
                if constexpr (TYPE == ANY_TYPE)
                    load_run(v, p.from.data, p.from.type, at, have);
                else
                    load_whole<TYPE>(v, p.from.data, at);
#pragma unroll
                for (int i = 0; i < RUN; i++)
                    sum[i] += p.scale * v[i];
            }
            store_run(p.to.data, p.to.type, to, have, sum);
        }
        __syncthreads();
    }
}

indexed indexed_of(const sw_tensor *to, const sw_tensor *from, const sw_tensor *ids, double scale)
{
    sw_tensor inner[2] = {*to, *from};
    for (int i = 0; i < 2; i++) {
        inner[i].shape[0] = 1;
        if (inner[i].ndim == 1) { /* a row is one value */
            inner[i].ndim = 2;
            inner[i].shape[1] = 1;
            inner[i].stride[1] = 1;
        }
    }
    const sw_tensor *t[] = {&inner[0], &inner[1]};
    rows_of of[2];
    rows_shape g = cuda_rows(of, t, 2, false);
    return indexed{g, of[0], of[1], to->stride[0], from->stride[0], (const int *)ids->data, sw_numel(ids), (float)scale, cuda_scales(from)};
}

int64_t runs_moved(const indexed &p) { return p.n * p.g.rows * ((p.g.width + RUN - 1) / RUN); }

template <bool GATHER> int moved(sw_stream *s, const indexed &p, const char *name)
{
    int64_t total = runs_moved(p);
    if (!total)
        return 0;
    SW_LAUNCH_EARLY((move_rows<GATHER, false>), cuda_blocks(s, total, 256), 256, 0, s, p, indexed{});
    return cuda_launched(s, name);
}

/* rows: of p.to */
int added(sw_stream *s, const indexed &p, int64_t rows, const char *name)
{
    if (!p.n || !rows || !p.g.rows || !p.g.width)
        return 0;
    int *count = (int *)cuda_scratch(s, (size_t)rows * 2 * sizeof(int)), *first = count + rows;
    if (!count)
        return -1;
    CUDA_TRY(s, cudaMemsetAsync(count, 0, (size_t)rows * 2 * sizeof(int), s->stream));
    SW_LAUNCH(count_ids, cuda_blocks(s, p.n, 256), 256, 0, s->stream, count, first, p.ids, p.n);
    bool whole = p.g.width % RUN == 0 && p.from_row % RUN == 0 && (uintptr_t)p.from.data % 16 == 0;
    for (int d = 0; d < p.g.outer; d++)
        whole = whole && p.from.stride[d] % RUN == 0;
    cuda_by_type(whole ? p.from.type : (int)ANY_TYPE, [&](auto type) {
        SW_LAUNCH((add_rows<decltype(type)::value>), (unsigned)p.n, 256, 0, s->stream, p, (const int *)count, (const int *)first);
    });
    return cuda_launched(s, name);
}

/* Where the keys of sequences lie: a block each. 32 sequences of 4096: 0.5 MB written, 0.2 us; the launch costs more. */
__global__ void __launch_bounds__(256) list_rows(int *rows, const int *seqs, const int *page, int bits)
{
    begin_early();
    int64_t at = 0;
    for (int b = 0; b < (int)blockIdx.x; b++)
        at += seqs[4 * b + 3];
    int first = seqs[4 * blockIdx.x + 2];
    for (int j = (int)threadIdx.x; j < seqs[4 * blockIdx.x + 3]; j += (int)blockDim.x) {
        int r = first + j;
        rows[at + j] = page ? (page[r >> bits] << bits) + (r & ((1 << bits) - 1)) : r;
    }
}

} // namespace

int cuda_rope_table(sw_stream *s, sw_tensor *cos_, sw_tensor *sin_, const sw_tensor *positions, const sw_tensor *inv_freq, double scale)
{
    int64_t total = sw_numel(positions) * sw_numel(inv_freq);
    if (!total)
        return 0;
    SW_LAUNCH_EARLY(rope_angles, cuda_blocks(s, total, 256), 256, 0, s, (float *)cos_->data, (float *)sin_->data,
                    (const int *)positions->data, (const float *)inv_freq->data, total, sw_numel(inv_freq), (float)scale);
    return cuda_launched(s, "rope_table");
}

namespace {

int rope(sw_stream *s, const cuda_moved *of, int n, const sw_tensor *cos_, const sw_tensor *sin_, int mode, int inverse)
{
    const sw_tensor *first = of[0].x;
    rope_call p = {{}, (const float *)cos_->data, (const float *)sin_->data, first->dtype, mode, inverse, first->shape[0], first->shape[2],
                   cos_->shape[1], cos_->stride[0], sin_->stride[0]};
    bool whole = p.half % RUN == 0 && p.width % RUN == 0 && p.cos_row % 4 == 0 && p.sin_row % 4 == 0 &&
                 ((uintptr_t)p.cos | (uintptr_t)p.sin) % 16 == 0;
    int64_t heads = 0;
    for (int k = 0; k < n; k++) {
        const sw_tensor *x = of[k].x, *y = of[k].y;
        p.of[k] = rope_heads{y->data, x->data, x->shape[1], y->stride[0], y->stride[1], x->stride[0], x->stride[1]};
        whole = whole && (x->stride[0] | x->stride[1] | y->stride[0] | y->stride[1]) % RUN == 0 &&
                ((uintptr_t)x->data | (uintptr_t)y->data) % 16 == 0;
        heads = x->shape[1] > heads ? x->shape[1] : heads;
    }
    int64_t total = p.tokens * ((heads + TURNED - 1) / TURNED) * ((p.half + RUN - 1) / RUN + (p.width - 2 * p.half + RUN - 1) / RUN);
    if (!total)
        return 0;
    cuda_by_type(whole ? p.type : (int)ANY_TYPE, [&](auto known) {
        SW_LAUNCH_EARLY((rope_turn<decltype(known)::value>), dim3(cuda_blocks(s, total, 256), (unsigned)n), 256, 0, s, p);
    });
    return cuda_launched(s, "rope");
}

} // namespace

int cuda_rope(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *cos_, const sw_tensor *sin_, int mode, int inverse)
{
    const cuda_moved of = {y, x};
    return rope(s, &of, 1, cos_, sin_, mode, inverse);
}

int cuda_rope_two(sw_stream *s, const cuda_moved of[2], const sw_tensor *cos_, const sw_tensor *sin_, int mode, int inverse)
{
    return rope(s, of, 2, cos_, sin_, mode, inverse);
}

int cuda_embedding_fwd(sw_stream *s, sw_tensor *y, const sw_tensor *w, const sw_tensor *ids, double scale)
{
    return moved<true>(s, indexed_of(y, w, ids, scale), "embedding_fwd");
}

int cuda_embedding_bwd(sw_stream *s, sw_tensor *dw, const sw_tensor *dy, const sw_tensor *ids, double scale)
{
    return added(s, indexed_of(dw, dy, ids, scale), dw->shape[0], "embedding_bwd");
}

int cuda_gather_rows(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *ids)
{
    return moved<true>(s, indexed_of(y, x, ids, 1), "gather_rows");
}

int cuda_scatter_rows(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *ids, int acc)
{
    indexed p = indexed_of(y, x, ids, 1);
    return acc ? added(s, p, y->shape[0], "scatter_rows") : moved<false>(s, p, "scatter_rows");
}

int cuda_scatter_two(sw_stream *s, const cuda_moved of[2], const sw_tensor *ids)
{
    indexed p[2] = {indexed_of(of[0].y, of[0].x, ids, 1), indexed_of(of[1].y, of[1].x, ids, 1)};
    int64_t total = runs_moved(p[0]) > runs_moved(p[1]) ? runs_moved(p[0]) : runs_moved(p[1]);
    if (!total)
        return 0;
    SW_LAUNCH_EARLY((move_rows<false, true>), dim3(cuda_blocks(s, total, 256), 2), 256, 0, s, p[0], p[1]);
    return cuda_launched(s, "scatter_rows");
}

int cuda_paged_rows(sw_stream *s, sw_tensor *rows, const sw_tensor *seqs, const sw_paging *paging)
{
    if (!seqs->shape[0])
        return 0;
    SW_LAUNCH_EARLY(list_rows, (unsigned)seqs->shape[0], 256, 0, s, (int *)rows->data, (const int *)seqs->data, paging->page, paging->bits);
    return cuda_launched(s, "paged_rows");
}
