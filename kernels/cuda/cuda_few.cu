/* Products of few rows (decoding): the weights are read once, as they are stored. Bound by their bytes: a model of 8 billion weights
 * in Q4_K, 4.5 GB, takes 1.35 ms a token; in bf16, 15.0 GB, 5.0 ms at the 3.0 TB/s that copies reach.
 *
 * 3.0 TB/s at 1.0 to 1.4 us of latency under load are 23 to 32 KB that each of 132 SMs always waits for. Weights as they are stored go
 * through a ring in shared memory: a warp has three stages of 2 KB, four rows of 512 bytes, of which it works on one, so that two blocks
 * of 8 warps wait for 64 to 96 KB, whatever the sums at the end of a piece take. A value of x serves four rows; a piece is an eighth of
 * a row, whose sums over the lanes take 6 exchanges for four rows. Pieces go round the warps of a block, whatever the shape, and each
 * leaves its sum in shared memory, where the pieces of a row are added in order at the end: what comes out does not depend on the grid.
 * Weights in blocks are decoded as they are loaded, and a warp waits for less; their rows are on their way to the L2 cache before, AHEAD
 * bytes an SM, as are the first rows of any weights while the kernels before end.
 *
 * An SM has room for four blocks (64 registers, 53 KB), two of the product at work and two of the next, which is launched early: when
 * the small kernels between have begun, which need 13 (sum and norm) to 32 thousand (attention) of its 65 thousand registers on a few
 * SMs. In a graph a block fills its ring before it waits, 12.7 MB of the GPU, 4 us, and asks for AHEAD, 17 MB, 6 us. A layer of 8
 * billion in bf16, each product fetched while the one before ends and the small kernels behind that run:
 *
 *     queries, keys, values    50 MB  17 us   next: two turned, two stored, attention and its join, some 8 us: the rest of the next
 *                                             two products, 33 and 235 MB, for which they leave room but on attention's SMs
 *     attention's output       34 MB  11 us   next: sum and norm, 3 us; the blocks that end make room for `down`
 *     gate, up, their product 235 MB  78 us   next: `down` itself, waiting since before
 *     down                    117 MB  39 us   next: sum and norm, 3 us; room for the next layer's output
 *
 * 145 us, 4.65 ms for 32 layers, 0.35 ms for the head. What a product streams is marked to leave the L2 cache first, so that what was
 * asked for ahead stays there beside it. */
#include "cuda_act.cuh"
#include "cuda_few.cuh"
#include "cuda_products.cuh"

#include <limits.h>

namespace {

enum { WARPS = FEW_WARPS, MOST_PIECES = 64, AHEAD = 128 << 10 };

/* ---- weights in blocks */

/* The runs of a lane from value i of a row of n on. aligned: rows and their runs begin at multiples of a run's words. */
template <int TYPE, int N> __device__ inline void take(stored_run<TYPE> (&to)[N], const char *row, int i, int n, bool aligned)
{
    const char *p = row + (int64_t)i * (stored_run<TYPE>::BYTES / RUN);
    int step = 32 * stored_run<TYPE>::BYTES, lane = (int)threadIdx.x % 32;
    if (aligned && i - lane * RUN + N * 32 * RUN <= n) {
#pragma unroll
        for (int k = 0; k < N; k++)
            to[k].whole(p + k * step);
        return;
    }
#pragma unroll
    for (int k = 0; k < N; k++) {
        int left = n - i - k * 32 * RUN;
        if (aligned && left >= RUN)
            to[k].whole(p + k * step);
        else
            to[k].part(p + k * step, left);
    }
}

/* sum[r] += what the lane's N runs of weights give with those of the rows of x. */
template <int X, int N, int ROWS>
__device__ inline void add_products(float (&sum)[ROWS], const float (&v)[N][RUN], const few_call &p, const group_tile &t, int64_t head, int i,
                                    bool aligned)
{
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (r >= t.n)
            continue;
        stored_run<X> x[N];
        const char *row = (const char *)p.x.data + (head * p.x_head + (t.first + r) * p.x.stride[0]) * (stored_run<X>::BYTES / RUN);
        take(x, row, i, p.in, aligned);
#pragma unroll
        for (int k = 0; k < N; k++) {
            float u[RUN];
            x[k].values(u);
#pragma unroll
            for (int j = 0; j < RUN; j++)
                sum[r] += v[k][j] * u[j];
        }
    }
}

/* As sum_words. `ahead` rows are on their way to the L2 cache. */
template <int TYPE, int ROWS>
__device__ inline void sum_blocks(float *sums, const few_call &p, const few_rows &w, const group_tile &t, int64_t head, int ahead, int64_t bytes)
{
    typedef few_type<TYPE> how;
    constexpr int N = how::WORD / RUN;
    const int block = block_values(TYPE), size = block_size(TYPE);
    int lane = (int)threadIdx.x % 32, in = p.in;
    bool aligned = (((uintptr_t)p.x.data | (uintptr_t)(p.x.stride[0] * 2) | (uintptr_t)(p.x_head * 2)) & 15) == 0;
    few_place<1> here(p, (int)threadIdx.x / 32);
    float sum[ROWS] = {0};
#pragma unroll 1
    while (here.row < w.all) {
        int at = here.row * p.pieces + here.piece, i = here.i + lane * RUN;
        const char *row = w.at(here.row);
        if (here.piece == 0 && lane == 0 && here.row + ahead < w.all)
            prefetch(w.at(here.row + ahead), bytes);
        bool last = here.advance(p, how::STEP);
        float v[N][RUN];
#pragma unroll
        for (int k = 0; k < N; k++) {
            int value = i + k * 32 * RUN;
            if (value < in)
                decode8(v[k], (const uint8_t *)row + value / block * size, TYPE, value % block);
            else
                for (int j = 0; j < RUN; j++)
                    v[k][j] = 0;
        }
        if (p.x.type == SW_BF16)
            add_products<SW_BF16>(sum, v, p, t, head, i, aligned);
        else if (p.x.type == SW_F32)
            add_products<SW_F32>(sum, v, p, t, head, i, aligned);
        else
            add_products<SW_F16>(sum, v, p, t, head, i, aligned);
        if (last) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                float total = warp_sum(sum[r]);
                if (lane == 0)
                    sums[r * how::SUMS + at] = total;
                sum[r] = 0;
            }
        }
    }
}

/* ---- both */

/* v as it is read back from a tensor. */
__device__ inline float as_stored(int type, float v)
{
    uint16_t h = half_bits(type, v);
    return type == SW_F32 ? v : value_of(&h, type, 0);
}
template <bool QUICK> __device__ inline float gate(int kind, float v)
{
    return kind == SW_ACT_SILU ? act<QUICK>(SW_ACT_SILU, v) : act<QUICK>(SW_ACT_GELU_TANH, v);
}

/* One row by 14336 x 4096: in bf16 117 MB, 35 us; in Q4_K 33 MB, 10 us; 0.12 GFLOP. In groups: a block has up to ROWS rows of one.
 * A token's 8 experts of 768 x 2048 in bf16: 25 MB, 7.5 us. With others: queries, keys and values, 6144 x 4096 in bf16: 50 MB,
 * 15 us. */
template <int TYPE, int ROWS> __global__ void __launch_bounds__(32 * WARPS, few_room<TYPE, ROWS>()) few(few_call p)
{
    typedef few_type<TYPE> how;
    constexpr int T = how::TOGETHER;
    SW_DYNAMIC_SHARED(uint4, shared);
    float *sums = (float *)(shared + how::RING);
    const int block = block_values(TYPE), size = block_size(TYPE); /* of types of blocks; others: 1, and its bytes */
    void *y = p.y.data;
    const void *matrix = p.w.data, *bias = p.bias;
    int64_t out = p.out, y_row = p.y.stride[0];
    scales_of own = p.scales;
    unsigned from_block = 0;
#pragma unroll
    for (int k = 0; k < CUDA_TOGETHER - 1; k++)
        if (k < p.others && !p.gated && blockIdx.x >= p.other[k].block) {
            const few_other &o = p.other[k];
            y = o.y, matrix = o.w, bias = o.bias, out = o.out, y_row = o.y_row, from_block = o.block;
            if (how::FLOAT8)
                own = o.scales;
        }
    int64_t first = (int64_t)(blockIdx.x - from_block) * p.rows, head = blockIdx.z;
    int64_t bytes = (int64_t)p.in / block * size;
    few_rows w;
    w.bytes = p.w.stride[0] / block * size;
    w.there = out - first < p.rows ? (int)(out - first) : p.rows;
    w.half = (w.there + T - 1) / T * T;
    w.all = p.gated ? 2 * w.half : w.half;
    int64_t skip = first * w.bytes + head * (p.w_head / block) * size;
    w.first = p.groups.start ? NULL : (const char *)matrix + skip;
    w.second = p.gated ? (const char *)p.other[0].w + skip : w.first;
    let_next_begin();
    int ahead = bytes * w.all <= AHEAD / how::AN_SM ? w.all : (int)(AHEAD / how::AN_SM / bytes); /* rows towards the L2 cache */
    auto prefetch_rows = [&](int from) {
        for (int r = from + (int)threadIdx.x; r < from + ahead && r < w.all; r += 32 * WARPS)
            if (w.left(r) > 0)
                prefetch(w.at(r), bytes);
    };
    few_ring<TYPE> ring(shared, p);
    bool filled = !how::BLOCKS && p.unwritten && bytes > 0;
    if (filled)
        ring.fill_all(p, w);
    if (!p.groups.start)
        prefetch_rows(filled ? (int)(how::RING * 16 / bytes) : 0);
    wait_for_earlier();
    group_tile t = {0, 0, ROWS};
    bool there = true; /* a matrix */
    if (p.groups.start) {
        if (!find_group_tile(p.groups, ROWS, blockIdx.y, &t))
            return;
        there = t.group < p.groups.count;
        w.first = there ? (const char *)p.groups.matrix(t.group) + skip : NULL;
        w.second = w.first;
        w.all = there ? w.all : 0;
    }
    if (there && p.groups.start && how::BLOCKS)
        prefetch_rows(0);
    if constexpr (how::BLOCKS) {
        sum_blocks<TYPE, ROWS>(sums, p, w, t, head, ahead, bytes);
    } else {
        scales_of scales = how::FLOAT8 && there ? p.groups.scales(t.group, own) : own;
        if (!filled && there)
            ring.fill_all(p, w);
        sum_words<TYPE, ROWS>(sums, p, w, t, head, ring, scales);
    }
    __syncthreads();
    auto total = [&](int r, int row) {
        float sum = 0;
        for (int j = 0; there && j < p.pieces; j++)
            sum += sums[r * how::SUMS + row * p.pieces + j];
        return p.alpha * sum;
    };
#pragma unroll 1
    for (int r = 0; r < ROWS; r++)
        for (int k = (int)threadIdx.x; r < t.n && k < w.there; k += 32 * WARPS) {
            int64_t line = t.first + r, o = first + k, at = head * p.y_head + line * y_row + o;
            float v = total(r, k) + (bias && there ? value_of(bias, p.bias_type, t.group * p.bias_step + o) : 0);
            set_value(y, p.y.type, at, p.beta != 0 ? v + p.beta * value_of(y, p.y.type, at) : v);
            if (p.gated) {
                const few_other &up = p.other[0];
                float u = total(r, w.half + k) + (up.bias ? value_of(up.bias, p.bias_type, o) : 0);
                set_value(up.y, p.y.type, line * up.y_row + o, u);
                v = as_stored(p.y.type, v);
                v = p.y.type == SW_F32 ? gate<false>(p.act, v) : gate<true>(p.act, v);
                set_value(p.gated, p.y.type, line * p.gated_row + o, v * as_stored(p.y.type, u));
            }
        }
}

enum { COLUMNS = 64, PARTS = 4 }; /* threads across a head's outputs, and over what is summed */

/* y[n, h] = w[h]^T x[n, h]: a row of w a step, in PARTS at a time.
 * One row, 128 heads of 128 by 512 in bf16: 17 MB, 5 us; 17 MFLOP. */
template <int TYPE, int ROWS> __global__ void __launch_bounds__(COLUMNS *PARTS) few_across(few_call p)
{
    __shared__ float part[PARTS][ROWS][COLUMNS * RUN];
    begin_early();
    int64_t head = blockIdx.z, c = ((int64_t)blockIdx.x * COLUMNS + threadIdx.x) * RUN, left = p.out - c;
    int n = left <= 0 ? 0 : left < RUN ? (int)left : (int)RUN;
    float sum[ROWS][RUN] = {{0}}, v[RUN];
    if (n)
        for (int64_t o = threadIdx.y; o < p.in; o += PARTS) {
            load_any(v, p.w.data, TYPE, head * p.w_head + o * p.w.stride[0] + c, n, p.scales);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                float x = value_of(p.x.data, p.x.type, head * p.x_head + r * p.x.stride[0] + o);
#pragma unroll
                for (int k = 0; k < RUN; k++)
                    sum[r][k] += x * v[k];
            }
        }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int k = 0; k < RUN; k++)
            part[threadIdx.y][r][threadIdx.x * RUN + k] = sum[r][k];
    __syncthreads();
    for (int i = (int)(threadIdx.y * COLUMNS + threadIdx.x); i < ROWS * COLUMNS * RUN; i += COLUMNS * PARTS) {
        int r = i / (COLUMNS * RUN), k = i % (COLUMNS * RUN);
        int64_t o = (int64_t)blockIdx.x * COLUMNS * RUN + k, at = head * p.y_head + r * p.y.stride[0] + o;
        if (o >= p.out)
            continue;
        float total = 0;
        for (int j = 0; j < PARTS; j++)
            total += part[j][r][k];
        total *= p.alpha;
        set_value(p.y.data, p.y.type, at, p.beta != 0 ? total + p.beta * value_of(p.y.data, p.y.type, at) : total);
    }
}

#define FEW_TYPES(X) \
    X(SW_F32) X(SW_BF16) X(SW_F16) X(SW_F8_E4M3) X(SW_F8_E5M2) X(SW_Q4_0) X(SW_Q4_1) X(SW_Q5_0) X(SW_Q5_1) \
    X(SW_Q8_0) X(SW_Q2_K) X(SW_Q3_K) X(SW_Q4_K) X(SW_Q5_K) X(SW_Q6_K) X(SW_IQ1_S) \
    X(SW_IQ1_M) X(SW_IQ2_XXS) X(SW_IQ2_XS) X(SW_IQ2_S) X(SW_IQ3_XXS) X(SW_IQ3_S) X(SW_IQ4_NL) \
    X(SW_IQ4_XS) X(SW_MXFP4) X(SW_NVFP4) X(SW_TQ1_0) X(SW_TQ2_0) X(SW_Q1_0) X(SW_Q2_0) \
    X(SW_Q8_K)

/* Outputs of few's blocks, each of `bytes` of shared memory: as many blocks as the GPU has at a time, or more where their sums would
 * not fit. */
template <int TYPE> dim3 shared_out(const sw_stream *s, few_call *p, int64_t tiles, int64_t heads, size_t bytes)
{
    typedef few_type<TYPE> how;
    const int matrices = p->gated ? 2 : 1, step = how::STEP; /* of a block */
    int64_t room = (int64_t)((s->shared_most + 1024) / (bytes + 1024)), most_an_sm = how::AN_SM; /* the driver has 1024 bytes a block */
    int64_t steps = p->in > step ? (p->in + step - 1) / step : 1, blocks = (room < 1 ? 1 : room < most_an_sm ? room : most_an_sm) * s->sms;
    int64_t each = (steps + (how::BLOCKS ? MOST_PIECES : WARPS) - 1) / (how::BLOCKS ? MOST_PIECES : WARPS);
    p->piece = (int)each * step;
    p->pieces = (int)((steps + each - 1) / each);
    p->down = WARPS / p->pieces;
    p->across = WARPS % p->pieces;
    int64_t all = p->out, count = 0;
    for (int k = 0; k < p->others; k++)
        all += p->other[k].out;
    int64_t share = (all * tiles * heads + blocks * matrices - 1) / (blocks * matrices);
    share = (share + how::TOGETHER - 1) / how::TOGETHER * how::TOGETHER;
    const int most = how::SUMS / p->pieces / matrices / how::TOGETHER * how::TOGETHER;
    auto lay_out = [&](int rows) { /* the outputs of a matrix begin with a block */
        p->rows = rows;
        count = (p->out + rows - 1) / rows;
        for (int k = 0; k < p->others && !p->gated; k++) {
            p->other[k].block = (unsigned)count;
            count += (p->other[k].out + rows - 1) / rows;
        }
    };
    lay_out((int)(share < most ? share : most));
    while (p->others && count > blocks && p->rows < most)
        lay_out(p->rows + how::TOGETHER);
    return dim3((unsigned)count, (unsigned)tiles, (unsigned)heads);
}

template <int ROWS> int launch(sw_stream *s, few_call p, int64_t heads, bool across)
{
    int64_t tiles = p.groups.start ? cuda_tiles(p.groups, ROWS) : 1;
    if (p.in < 0)
        return cuda_fail("%s: rows of more than %d weights are too long", s->name, INT_MAX / 2);
    switch (p.w.type) {
#define X(t)                                                                                                                \
    case t:                                                                                                                 \
        if (across) {                                                                                                       \
            dim3 blocks((unsigned)((p.out + COLUMNS * RUN - 1) / (COLUMNS * RUN)), 1, (unsigned)heads);                      \
            SW_LAUNCH_EARLY((few_across<t, ROWS>), blocks, dim3(COLUMNS, PARTS), 0, s, p);                                   \
        } else {                                                                                                            \
            const size_t bytes = (size_t)few_type<t>::RING * 16 + sizeof(float[ROWS][few_type<t>::SUMS]);                    \
            dim3 blocks = shared_out<t>(s, &p, tiles, heads, bytes);                                                        \
            if (cuda_shared(s, few<t, ROWS>, bytes, "a product"))                                                            \
                return -1;                                                                                                  \
            SW_LAUNCH_EARLY((few<t, ROWS>), blocks, 32 * WARPS, bytes, s, p);                                                \
        }                                                                                                                   \
        break;
        FEW_TYPES(X)
#undef X
    default: return cuda_fail("%s: weights of type %s cannot be multiplied", s->name, sw_dtypes[p.w.type].name);
    }
    return cuda_launched(s, "linear");
}

/* Four rows or one at a time: the weights come from the caches again. */
int launch_rows(sw_stream *s, few_call p, int64_t rows, int64_t heads, bool across)
{
    while (rows > 0) {
        int n = rows >= 4 ? 4 : 1;
        if (n == 4 ? launch<4>(s, p, heads, across) : launch<1>(s, p, heads, across))
            return -1;
        p.x.data = (char *)p.x.data + sw_dtype_bytes((sw_dtype)p.x.type, n * p.x.stride[0]);
        p.y.data = (char *)p.y.data + sw_dtype_bytes((sw_dtype)p.y.type, n * p.y.stride[0]);
        for (int k = 0; k < p.others; k++)
            p.other[k].y = (char *)p.other[k].y + sw_dtype_bytes((sw_dtype)p.y.type, n * p.other[k].y_row);
        if (p.gated)
            p.gated = (char *)p.gated + sw_dtype_bytes((sw_dtype)p.y.type, n * p.gated_row);
        rows -= n;
    }
    return 0;
}

/* heads: x [N, H, I], y [N, H, O], w [H, O, I] */
few_call call_of(const sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, float alpha, float beta)
{
    int last = x->ndim - 1, heads = last == 2;
    int in = x->shape[last] <= INT_MAX / 2 ? (int)x->shape[last] : -1;
    return few_call{{y->data, y->dtype, {y->stride[0]}}, {x->data, x->dtype, {x->stride[0]}}, {w->data, w->dtype, {w->stride[heads]}},
                    bias ? bias->data : NULL, bias ? (int)bias->dtype : 0, in, y->shape[last], alpha, beta, cuda_scales(w), {}, 0,
                    heads ? y->stride[1] : 0, heads ? x->stride[1] : 0, heads ? w->stride[0] : 0, 0, 0, 0, 0, 0, cuda_unwritten(s, w), NULL, 0, 0,
                    0, {}};
}

} // namespace

int cuda_linear_few(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, float alpha, float beta)
{
    return launch_rows(s, call_of(s, y, x, w, bias, alpha, beta), x->shape[0], 1, false);
}

int cuda_linear_together(sw_stream *s, const cuda_linear *of, int n, sw_tensor *gated, int kind)
{
    few_call p = call_of(s, of[0].y, of[0].x, of[0].w, of[0].bias, 1, 0);
    for (p.others = 0; p.others < n - 1; p.others++) {
        const cuda_linear &l = of[p.others + 1];
        p.other[p.others] = few_other{l.y->data, l.w->data, l.bias ? l.bias->data : NULL, l.y->shape[1], l.y->stride[0],
                                      cuda_scales(l.w), 0};
        p.bias_type = l.bias ? (int)l.bias->dtype : p.bias_type;
        p.unwritten = p.unwritten && cuda_unwritten(s, l.w);
    }
    if (gated)
        p.gated = gated->data, p.gated_row = gated->stride[0], p.act = kind;
    return launch_rows(s, p, of[0].x->shape[0], 1, false);
}

int cuda_linear_heads(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, int across, double alpha, double beta)
{
    few_call p = call_of(s, y, x, w, NULL, (float)alpha, (float)beta);
    return x->shape[1] && p.out ? launch_rows(s, p, x->shape[0], x->shape[1], across) : 0;
}

int cuda_grouped_few(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_matrices *w, const sw_tensor *bias, const sw_tensor *start,
                     float alpha, float beta)
{
    few_call p = call_of(s, y, x, &w->one, bias, alpha, beta);
    p.groups = cuda_groups(w, start, x->shape[0]);
    p.unwritten = false; /* which matrices they are is not known before */
    p.bias_step = bias ? bias->stride[0] : 0;
    /* one token's rows are of different groups */
    return x->shape[0] <= CUDA_FEW_ROWS ? launch<1>(s, p, 1, false) : launch<4>(s, p, 1, false);
}
