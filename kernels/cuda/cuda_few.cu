/* Products of few rows (decoding): the weights are read once, as they are stored. Bound by their bytes: a model of 8 billion weights
 * in Q4_K, 4.5 GB, takes 1.35 ms a token; in bf16 4.8 ms.
 *
 * 3.35 TB/s at 0.8 us of latency are 20 KB that each SM always waits for. A warp holds a piece of a row, 2 KB, in registers while the
 * next comes: 16 warps an SM wait for 32 to 64 KB. Blocks are decoded as they are loaded, and a warp waits for less; their rows are on
 * their way to the L2 cache before, AHEAD bytes an SM. So are the first rows of any weights while the kernels before end. Pieces go
 * round the warps of a block, whatever the shape, and each leaves its sum in shared memory, where the pieces of a row are added in
 * order at the end: what comes out does not depend on the grid. Shared memory for weights (cp.async, or Hopper's bulk copies) would
 * share nothing. */
#include "cuda_blocks.cuh"
#include "cuda_fuse.cuh"
#include "cuda_grouped.cuh"
#include "cuda_products.cuh"

#include <limits.h>

namespace {

/* Another matrix that the same rows are multiplied by. */
struct few_other {
    void *y;
    const void *w, *bias;
    int64_t out, y_row; /* y_row: stride of rows of y */
    scales_of scales;
    unsigned block; /* the first that has its outputs */
};

struct few_call {
    rows_of y, x, w; /* stride[0]: of rows */
    const void *bias;
    int bias_type;
    int64_t in, out;
    float alpha, beta;
    scales_of scales; /* of w */
    group_list groups;  /* start NULL: all rows have w */
    int64_t bias_step;  /* values, from one group's to the next's */
    int64_t y_head, x_head, w_head; /* how far the next head is, in values; grid.z heads */
    /* of few: outputs a block, pieces of a row of weights, values of a piece; how far a warp's next piece is, in rows and pieces */
    int rows, pieces, piece, down, across;
    int others; /* of few */
    few_other other[CUDA_TOGETHER - 1];
};

enum { WARPS = 8, SUMS = 512, MOST_PIECES = 64, AHEAD = 128 << 10 };

/* How a type of weights is read. */
template <int TYPE> struct few_type {
    enum { FLOAT8 = TYPE == SW_F8_E4M3 || TYPE == SW_F8_E5M2, BLOCKS = TYPE >= SW_Q4_0 };
    enum { AT_ONCE = TYPE == SW_F32 || BLOCKS ? 2 : 4 }; /* runs that a lane asks for before it uses the first */
    enum { AN_SM = BLOCKS ? 4 : 2 };                     /* blocks */
};

/* The runs of a lane from value i of a row of n on. aligned: rows and their runs begin at multiples of a run's words. */
template <bool ONCE, int TYPE, int N> __device__ inline void take(stored_run<TYPE> (&to)[N], const char *row, int i, int n, bool aligned)
{
    const char *p = row + (int64_t)i * (stored_run<TYPE>::BYTES / RUN);
    int step = 32 * stored_run<TYPE>::BYTES, lane = (int)threadIdx.x % 32;
    if (aligned && i - lane * RUN + N * 32 * RUN <= n) {
#pragma unroll
        for (int k = 0; k < N; k++)
            to[k].template whole<ONCE>(p + k * step);
        return;
    }
#pragma unroll
    for (int k = 0; k < N; k++) {
        int left = n - i - k * 32 * RUN;
        if (aligned && left >= RUN)
            to[k].template whole<ONCE>(p + k * step);
        else
            to[k].part(p + k * step, left);
    }
}

/* sum[r] += what the lane's N runs of weights (weights(v, k) gives a run's values) and those of the rows of x give. */
template <int X, int N, int ROWS, class F>
__device__ inline void add_products(float (&sum)[ROWS], F weights, const few_call &p, const group_tile &t, int64_t head, int i,
                                    bool aligned)
{
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (r >= t.n)
            continue;
        stored_run<X> x[N];
        const char *row = (const char *)p.x.data + (head * p.x_head + (t.first + r) * p.x.stride[0]) * (stored_run<X>::BYTES / RUN);
        take<false>(x, row, i, (int)p.in, aligned);
#pragma unroll
        for (int k = 0; k < N; k++) {
            float u[RUN], v[RUN];
            x[k].values(u);
            weights(v, k);
#pragma unroll
            for (int j = 0; j < RUN; j++)
                sum[r] += v[j] * u[j];
        }
    }
}

/* Where a warp is: a piece of an output's row of weights. */
struct few_place {
    int at, row, piece, i; /* at: number of the piece in the block; i: value of the row */
    __device__ few_place(const few_call &p, int first) : at(first), row(first / p.pieces), piece(first % p.pieces), i(piece * p.piece) {}
    /* The next of `step` values; whether it is of the next piece. */
    __device__ bool advance(const few_call &p, int step)
    {
        i += step;
        if (i < (piece + 1) * p.piece && i < p.in)
            return false;
        at += WARPS;
        piece += p.across;
        row += p.down + (piece >= p.pieces);
        piece -= piece >= p.pieces ? p.pieces : 0;
        i = piece * p.piece;
        return true;
    }
};

/* One row by 14336 x 4096: in bf16 117 MB, 35 us; in Q4_K 33 MB, 10 us; 0.12 GFLOP. In groups: a block has up to ROWS rows of one.
 * A token's 8 experts of 768 x 2048 in bf16: 25 MB, 7.5 us. With others: queries, keys and values, 6144 x 4096 in bf16: 50 MB,
 * 15 us. */
template <int TYPE, int ROWS> __global__ void __launch_bounds__(32 * WARPS, few_type<TYPE>::AN_SM) few(few_call p)
{
    typedef few_type<TYPE> how;
    typedef stored_run<TYPE> run;
    constexpr int N = how::AT_ONCE, STEP = N * 32 * RUN;
    constexpr bool HELD = !how::BLOCKS; /* one piece is held while the next comes */
    __shared__ float sums[ROWS][SUMS];
    int lane = (int)threadIdx.x % 32, in = (int)p.in;
    const int block = block_values(TYPE), size = block_size(TYPE); /* of types of blocks; others: 1, and its bytes */
    void *y = p.y.data;
    const void *matrix = p.w.data, *bias = p.bias;
    int64_t out = p.out, y_row = p.y.stride[0];
    scales_of own = p.scales;
    unsigned from_block = 0;
#pragma unroll
    for (int k = 0; k < CUDA_TOGETHER - 1; k++)
        if (k < p.others && blockIdx.x >= p.other[k].block) {
            const few_other &o = p.other[k];
            y = o.y, matrix = o.w, bias = o.bias, out = o.out, y_row = o.y_row, from_block = o.block;
            if (how::FLOAT8)
                own = o.scales;
        }
    int64_t first = (int64_t)(blockIdx.x - from_block) * p.rows, head = blockIdx.z;
    int64_t row_bytes = p.w.stride[0] / block * size, bytes = p.in / block * size;
    int rows = out - first < p.rows ? (int)(out - first) : p.rows;
    let_next_begin();
    int64_t skip = first * row_bytes + head * (p.w_head / block) * size;
    int ahead = bytes * rows <= AHEAD / how::AN_SM ? rows : (int)(AHEAD / how::AN_SM / bytes); /* rows towards the L2 cache */
    auto prefetch_first = [&](const char *from) {
        for (int r = (int)threadIdx.x; r < ahead; r += 32 * WARPS)
            prefetch(from + r * row_bytes, bytes);
    };
    if (!p.groups.start)
        prefetch_first((const char *)matrix + skip);
    wait_for_earlier();
    group_tile t = {0, 0, ROWS};
    const char *w = (const char *)matrix;
    if (p.groups.start) {
        if (!find_group_tile(p.groups, ROWS, blockIdx.y, &t))
            return;
        w = t.group < p.groups.count ? (const char *)p.groups.matrix(t.group) : NULL;
    }
    scales_of scales = how::FLOAT8 && w ? p.groups.scales(t.group, own) : own;
    int all = w ? rows * p.pieces : 0;
    w += w ? skip : 0;
    if (w && p.groups.start && how::BLOCKS)
        prefetch_first(w);
    bool aligned = (((uintptr_t)w | (uintptr_t)row_bytes) & (sizeof(typename run::word) - 1)) == 0;
    bool x_aligned = (((uintptr_t)p.x.data | (uintptr_t)(p.x.stride[0] * 2) | (uintptr_t)(p.x_head * 2)) & 15) == 0;
    float sum[ROWS] = {0};
    run next[N];
    few_place here(p, (int)threadIdx.x / 32), there = here;
    if (HELD && here.at < all)
        take<true>(next, w + here.row * row_bytes, here.i + lane * RUN, in, aligned);
#pragma unroll 1
    while (here.at < all) {
        run now[N];
        bool last = there.advance(p, STEP);
        int i = here.i + lane * RUN;
        const char *row = w + here.row * row_bytes;
        if constexpr (HELD) {
#pragma unroll
            for (int k = 0; k < N; k++)
                now[k] = next[k];
            if (there.at < all)
                take<true>(next, w + there.row * row_bytes, there.i + lane * RUN, in, aligned);
        }
        if (how::BLOCKS && here.piece == 0 && lane == 0 && here.row + ahead < rows)
            prefetch(row + ahead * row_bytes, bytes);
        scale_row scale = how::FLOAT8 ? scale_row_at(scales, (const uint8_t *)row) : scale_row{NULL, 0};
        float decoded[HELD && !how::FLOAT8 ? 1 : N][RUN];
        if constexpr (!HELD || how::FLOAT8) {
#pragma unroll
            for (int k = 0; k < N; k++) {
                int at = i + k * 32 * RUN;
                if constexpr (how::FLOAT8)
                    float8_run(decoded[k], now[k].w[0], TYPE, in - at, scales, scale, at);
                else if (at < in)
                    decode8(decoded[k], (const uint8_t *)row + at / block * size, TYPE, at % block);
                else
                    for (int j = 0; j < RUN; j++)
                        decoded[k][j] = 0;
            }
        }
        auto weights = [&](float (&v)[RUN], int k) {
            if constexpr (!HELD || how::FLOAT8)
                memcpy(v, decoded[k], sizeof v);
            else
                now[k].values(v);
        };
        if (p.x.type == SW_BF16)
            add_products<SW_BF16, N>(sum, weights, p, t, head, i, x_aligned);
        else if (p.x.type == SW_F32)
            add_products<SW_F32, N>(sum, weights, p, t, head, i, x_aligned);
        else
            add_products<SW_F16, N>(sum, weights, p, t, head, i, x_aligned);
        if (last) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                float total = warp_sum(sum[r]);
                if (lane == 0)
                    sums[r][here.at] = total;
                sum[r] = 0;
            }
        }
        here = there;
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        for (int k = (int)threadIdx.x; r < t.n && k < rows; k += 32 * WARPS) {
            float total = 0;
            for (int j = 0; w && j < p.pieces; j++)
                total += sums[r][k * p.pieces + j];
            int64_t o = first + k, at = head * p.y_head + (t.first + r) * y_row + o;
            total = p.alpha * total + (bias && w ? value_of(bias, p.bias_type, t.group * p.bias_step + o) : 0);
            set_value(y, p.y.type, at, p.beta != 0 ? total + p.beta * value_of(y, p.y.type, at) : total);
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

/* Outputs of few's blocks: as many blocks as the GPU has at a time, or more where their sums would not fit. */
template <int TYPE> dim3 shared_out(const sw_stream *s, few_call *p, int64_t tiles, int64_t heads)
{
    const int step = few_type<TYPE>::AT_ONCE * 32 * RUN;
    int64_t steps = p->in > step ? (p->in + step - 1) / step : 1, blocks = few_type<TYPE>::AN_SM * (int64_t)s->sms;
    int64_t all = p->out, count = 0;
    for (int k = 0; k < p->others; k++)
        all += p->other[k].out;
    int64_t share = (all * tiles * heads + blocks - 1) / blocks;
    int64_t each = (steps + MOST_PIECES - 1) / MOST_PIECES;
    p->piece = (int)each * step;
    p->pieces = (int)((steps + each - 1) / each);
    p->down = WARPS / p->pieces;
    p->across = WARPS % p->pieces;
    const int most = SUMS / p->pieces;
    auto lay_out = [&](int rows) { /* the outputs of a matrix begin with a block */
        p->rows = rows;
        count = (p->out + rows - 1) / rows;
        for (int k = 0; k < p->others; k++) {
            p->other[k].block = (unsigned)count;
            count += (p->other[k].out + rows - 1) / rows;
        }
    };
    lay_out((int)(share < most ? share : most));
    while (p->others && count > blocks && p->rows < most)
        lay_out(p->rows + 1);
    return dim3((unsigned)count, (unsigned)tiles, (unsigned)heads);
}

template <int ROWS> int launch(sw_stream *s, few_call p, int64_t heads, bool across)
{
    int64_t tiles = p.groups.start ? cuda_tiles(p.groups, ROWS) : 1;
    switch (p.w.type) {
#define X(t)                                                                                                                \
    case t:                                                                                                                 \
        if (across) {                                                                                                       \
            dim3 blocks((unsigned)((p.out + COLUMNS * RUN - 1) / (COLUMNS * RUN)), 1, (unsigned)heads);                      \
            SW_LAUNCH_EARLY((few_across<t, ROWS>), blocks, dim3(COLUMNS, PARTS), 0, s, p);                                   \
        } else {                                                                                                            \
            dim3 blocks = shared_out<t>(s, &p, tiles, heads);                                                               \
            SW_LAUNCH_EARLY((few<t, ROWS>), blocks, 32 * WARPS, 0, s, p);                                                    \
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
    if (p.in > INT_MAX / 2)
        return cuda_fail("%s: rows of %lld weights are too long", s->name, (long long)p.in);
    while (rows > 0) {
        int n = rows >= 4 ? 4 : 1;
        if (n == 4 ? launch<4>(s, p, heads, across) : launch<1>(s, p, heads, across))
            return -1;
        p.x.data = (char *)p.x.data + sw_dtype_bytes((sw_dtype)p.x.type, n * p.x.stride[0]);
        p.y.data = (char *)p.y.data + sw_dtype_bytes((sw_dtype)p.y.type, n * p.y.stride[0]);
        for (int k = 0; k < p.others; k++)
            p.other[k].y = (char *)p.other[k].y + sw_dtype_bytes((sw_dtype)p.y.type, n * p.other[k].y_row);
        rows -= n;
    }
    return 0;
}

/* heads: x [N, H, I], y [N, H, O], w [H, O, I] */
few_call call_of(sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, float alpha, float beta)
{
    int last = x->ndim - 1, heads = last == 2;
    return few_call{{y->data, y->dtype, {y->stride[0]}}, {x->data, x->dtype, {x->stride[0]}}, {w->data, w->dtype, {w->stride[heads]}},
                    bias ? bias->data : NULL, bias ? (int)bias->dtype : 0, x->shape[last], y->shape[last], alpha, beta, cuda_scales(w), {}, 0,
                    heads ? y->stride[1] : 0, heads ? x->stride[1] : 0, heads ? w->stride[0] : 0, 0, 0, 0, 0, 0, 0, {}};
}

} // namespace

int cuda_linear_few(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, float alpha, float beta)
{
    return launch_rows(s, call_of(y, x, w, bias, alpha, beta), x->shape[0], 1, false);
}

int cuda_linear_together(sw_stream *s, const cuda_linear *of, int n)
{
    few_call p = call_of(of[0].y, of[0].x, of[0].w, of[0].bias, 1, 0);
    for (p.others = 0; p.others < n - 1; p.others++) {
        const cuda_linear &l = of[p.others + 1];
        p.other[p.others] = few_other{l.y->data, l.w->data, l.bias ? l.bias->data : NULL, l.y->shape[1], l.y->stride[0],
                                      cuda_scales(l.w), 0};
        p.bias_type = l.bias ? (int)l.bias->dtype : p.bias_type;
    }
    return launch_rows(s, p, of[0].x->shape[0], 1, false);
}

int cuda_linear_heads(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, int across, double alpha, double beta)
{
    few_call p = call_of(y, x, w, NULL, (float)alpha, (float)beta);
    return x->shape[1] && p.out ? launch_rows(s, p, x->shape[0], x->shape[1], across) : 0;
}

int cuda_grouped_few(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_matrices *w, const sw_tensor *bias, const sw_tensor *start,
                     float alpha, float beta)
{
    few_call p = call_of(y, x, &w->one, bias, alpha, beta);
    p.groups = cuda_groups(w, start, x->shape[0]);
    p.bias_step = bias ? bias->stride[0] : 0;
    /* one token's rows are of different groups */
    return x->shape[0] <= CUDA_FEW_ROWS ? launch<1>(s, p, 1, false) : launch<4>(s, p, 1, false);
}
