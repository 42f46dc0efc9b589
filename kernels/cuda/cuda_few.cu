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
};

/* One row by 14336 x 4096: in bf16 117 MB, 35 us; in Q4_K 33 MB, 10 us; 0.12 GFLOP. In groups: a block has up to ROWS rows of one.
 * A token's 8 experts of 768 x 2048 in bf16: 25 MB, 7.5 us. */
template <int TYPE, int ROWS> __global__ void __launch_bounds__(128) few(few_call p)
{
    int lane = (int)threadIdx.x % 32;
    int64_t o = (int64_t)blockIdx.x * 4 + threadIdx.x / 32;
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
    const uint8_t *bytes = (const uint8_t *)w + (float8 ? o * p.w.stride[0] : 0);
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
            load_any(v, w, TYPE, o * p.w.stride[0] + i, n, scales);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (r >= t.n)
                continue;
            load_run(u, p.x.data, p.x.type, (t.first + r) * p.x.stride[0] + i, n);
#pragma unroll
            for (int k = 0; k < RUN; k++)
                sum[r] += v[k] * u[k];
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float total = p.alpha * warp_sum(sum[r]) + (p.bias && w ? value_of(p.bias, p.bias_type, t.group * p.bias_step + o) : 0);
        int64_t at = (t.first + r) * p.y.stride[0] + o;
        if (lane == 0 && r < t.n)
            set_value(p.y.data, p.y.type, at, p.beta != 0 ? total + p.beta * value_of(p.y.data, p.y.type, at) : total);
    }
}

template <int ROWS> int launch(sw_stream *s, const few_call &p)
{
    dim3 blocks((unsigned)((p.out + 3) / 4), p.groups.start ? (unsigned)cuda_tiles(p.groups, ROWS) : 1);
    switch (p.w.type) {
#define TYPE_CASE(t) \
    case t: SW_LAUNCH((few<t, ROWS>), blocks, 128, 0, s->stream, p); break
        TYPE_CASE(SW_F32);
        TYPE_CASE(SW_BF16);
        TYPE_CASE(SW_F16);
        TYPE_CASE(SW_F8_E4M3);
        TYPE_CASE(SW_F8_E5M2);
        TYPE_CASE(SW_Q4_0);
        TYPE_CASE(SW_Q4_1);
        TYPE_CASE(SW_Q5_0);
        TYPE_CASE(SW_Q5_1);
        TYPE_CASE(SW_Q8_0);
        TYPE_CASE(SW_Q2_K);
        TYPE_CASE(SW_Q3_K);
        TYPE_CASE(SW_Q4_K);
        TYPE_CASE(SW_Q5_K);
        TYPE_CASE(SW_Q6_K);
        TYPE_CASE(SW_IQ1_S);
        TYPE_CASE(SW_IQ1_M);
        TYPE_CASE(SW_IQ2_XXS);
        TYPE_CASE(SW_IQ2_XS);
        TYPE_CASE(SW_IQ2_S);
        TYPE_CASE(SW_IQ3_XXS);
        TYPE_CASE(SW_IQ3_S);
        TYPE_CASE(SW_IQ4_NL);
        TYPE_CASE(SW_IQ4_XS);
        TYPE_CASE(SW_MXFP4);
        TYPE_CASE(SW_NVFP4);
        TYPE_CASE(SW_TQ1_0);
        TYPE_CASE(SW_TQ2_0);
        TYPE_CASE(SW_Q1_0);
        TYPE_CASE(SW_Q2_0);
        TYPE_CASE(SW_Q8_K);
    default: return cuda_fail("%s: weights of type %s cannot be multiplied", s->name, sw_dtypes[p.w.type].name);
    }
    return cuda_launched(s, "linear");
}

} // namespace

static few_call call_of(sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, float alpha, float beta)
{
    return few_call{{y->data, y->dtype, {y->stride[0]}}, {x->data, x->dtype, {x->stride[0]}}, {w->data, w->dtype, {w->stride[0]}},
                    bias ? bias->data : NULL, bias ? (int)bias->dtype : 0, x->shape[1], w->shape[0], alpha, beta, cuda_scales(w), {}, 0};
}

int cuda_linear_few(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, float alpha, float beta)
{
    few_call p = call_of(y, x, w, bias, alpha, beta);
    for (int64_t left = x->shape[0]; left > 0;) { /* four or one at a time: the weights come from the caches again */
        int n = left >= 4 ? 4 : 1;
        if (n == 4 ? launch<4>(s, p) : launch<1>(s, p))
            return -1;
        p.x.data = (char *)p.x.data + sw_dtype_bytes(x->dtype, n * x->stride[0]);
        p.y.data = (char *)p.y.data + sw_dtype_bytes(y->dtype, n * y->stride[0]);
        left -= n;
    }
    return 0;
}

int cuda_grouped_few(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_matrices *w, const sw_tensor *bias, const sw_tensor *start,
                     float alpha, float beta)
{
    few_call p = call_of(y, x, &w->one, bias, alpha, beta);
    p.groups = cuda_groups(w, start, x->shape[0]);
    p.bias_step = bias ? bias->stride[0] : 0;
    /* one token's rows are of different groups */
    return x->shape[0] <= CUDA_FEW_ROWS ? launch<1>(s, p) : launch<4>(s, p);
}
