/* Products of few rows (decoding): a warp an output, the weights read once as they are stored. Bound by their bytes: a
 * model of 8 billion weights in Q4_K, 4.5 GB, in 1.35 ms a token; in bf16 in 4.8 ms.
 *
 * Weights go from memory to registers, each once: shared memory in between (cp.async, or Hopper's bulk copies) would share
 * nothing. It could only keep more bytes on their way, of which 3.35 TB/s and 0.6 us of latency need 2 MB, 15 KB an SM; two runs
 * of 16 bytes a thread are 64 KB at 2048 threads an SM, 16 KB at a quarter of them. */
#include "cuda_blocks.cuh"
#include "cuda_grouped.cuh"
#include "cuda_products.cuh"

namespace {

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
};

/* One row by 14336 x 4096: in bf16 117 MB, 35 us; in Q4_K 33 MB, 10 us; 0.12 GFLOP. In groups: a block has up to ROWS rows of one.
 * A token's 8 experts of 768 x 2048 in bf16: 25 MB, 7.5 us. */
template <int TYPE, int ROWS> __global__ void __launch_bounds__(128) few(few_call p)
{
    int lane = (int)threadIdx.x % 32;
    int64_t o = (int64_t)blockIdx.x * 4 + threadIdx.x / 32, head = blockIdx.z;
    if (o >= p.out)
        return;
    group_tile t = {0, 0, ROWS};
    const void *w = p.w.data;
    if (p.groups.start) {
        if (!find_group_tile(p.groups, ROWS, blockIdx.y, &t))
            return;
        w = t.group < p.groups.count ? p.groups.matrix(t.group) : NULL;
    }
    constexpr bool float8 = TYPE == SW_F8_E4M3 || TYPE == SW_F8_E5M2;
    const uint8_t *bytes = (const uint8_t *)w + (float8 ? head * p.w_head + o * p.w.stride[0] : 0);
    scales_of scales = float8 && w ? p.groups.scales(t.group, p.scales) : p.scales;
    scale_row scale = float8 && w ? scale_row_at(scales, bytes) : scale_row{NULL, 0};
    float sum[ROWS] = {0};
#pragma unroll 2
    for (int64_t i = w ? lane * RUN : p.in; i < p.in; i += 32 * RUN) {
        int n = p.in - i < RUN ? (int)(p.in - i) : (int)RUN;
        float v[RUN], u[RUN];
        if constexpr (float8)
            load_float8(v, bytes + i, TYPE, n, scales, scale, i);
        else
            load_any(v, w, TYPE, head * p.w_head + o * p.w.stride[0] + i, n, scales);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (r >= t.n)
                continue;
            load_run(u, p.x.data, p.x.type, head * p.x_head + (t.first + r) * p.x.stride[0] + i, n);
#pragma unroll
            for (int k = 0; k < RUN; k++)
                sum[r] += v[k] * u[k];
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float total = p.alpha * warp_sum(sum[r]) + (p.bias && w ? value_of(p.bias, p.bias_type, t.group * p.bias_step + o) : 0);
        int64_t at = head * p.y_head + (t.first + r) * p.y.stride[0] + o;
        if (lane == 0 && r < t.n)
            set_value(p.y.data, p.y.type, at, p.beta != 0 ? total + p.beta * value_of(p.y.data, p.y.type, at) : total);
    }
}

enum { COLUMNS = 64, PARTS = 4 }; /* threads across a head's outputs, and over what is summed */

/* y[n, h] = w[h]^T x[n, h]: a row of w a step, in PARTS at a time.
 * One row, 128 heads of 128 by 512 in bf16: 17 MB, 5 us; 17 MFLOP. */
template <int TYPE, int ROWS> __global__ void __launch_bounds__(COLUMNS *PARTS) few_across(few_call p)
{
    __shared__ float part[PARTS][ROWS][COLUMNS * RUN];
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

template <int ROWS> int launch(sw_stream *s, const few_call &p, int64_t heads, bool across)
{
    dim3 blocks((unsigned)(across ? (p.out + COLUMNS * RUN - 1) / (COLUMNS * RUN) : (p.out + 3) / 4), p.groups.start ? (unsigned)cuda_tiles(p.groups, ROWS) : 1, (unsigned)heads);
    switch (p.w.type) {
#define X(t)                                                                                     \
    case t:                                                                                      \
        if (across)                                                                              \
            SW_LAUNCH((few_across<t, ROWS>), blocks, dim3(COLUMNS, PARTS), 0, s->stream, p); \
        else                                                                                     \
            SW_LAUNCH((few<t, ROWS>), blocks, 128, 0, s->stream, p);                             \
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
                    heads ? y->stride[1] : 0, heads ? x->stride[1] : 0, heads ? w->stride[0] : 0};
}

} // namespace

int cuda_linear_few(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, float alpha, float beta)
{
    return launch_rows(s, call_of(y, x, w, bias, alpha, beta), x->shape[0], 1, false);
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
