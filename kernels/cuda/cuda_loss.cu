/* Log-softmax at a target. A block a row, one pass with the running maximum (Milakov and Gimelshein 2018); 1024 rows of
 * 128,256 f32 logits, one chunk of the head: 525 MB read, 0.16 ms; the way back reads and writes them: 0.31 ms. */
#include "cuda_common.cuh"

namespace {

struct running {
    float top, sum; /* sum of exp(x - top); sum is 0 where there is nothing yet */
    int best;
};

__device__ inline running joined(running a, running b)
{
    running r = a.top > b.top || (a.top == b.top && a.best < b.best) ? a : b;
    const running &o = a.top > b.top || (a.top == b.top && a.best < b.best) ? b : a;
    if (o.sum != 0)
        r.sum += o.top == r.top ? o.sum : o.sum * expf(o.top - r.top);
    return r;
}

__device__ inline running warp_joined(running a)
{
    for (int d = 16; d; d >>= 1) {
        running o;
        o.top = __shfl_xor_sync(FULL_WARP, a.top, d);
        o.sum = __shfl_xor_sync(FULL_WARP, a.sum, d);
        o.best = __shfl_xor_sync(FULL_WARP, a.best, d);
        a = joined(a, o);
    }
    return a;
}

/* What a run adds; n of its values exist, and behind them stand zeros. */
__device__ __forceinline__ void add_run(running *a, float *total, const float (&v)[RUN], int64_t c, int n)
{
    running b = {v[0], 0, (int)c};
#pragma unroll
    for (int i = 1; i < RUN; i++)
        if (i < n && v[i] > b.top) {
            b.top = v[i];
            b.best = (int)c + i;
        }
#pragma unroll
    for (int i = 0; i < RUN; i++) {
        *total += v[i];
        if (i < n && b.top > -INFINITY)
            b.sum += expf(v[i] - b.top);
    }
    *a = joined(*a, b);
}

/* TYPE: rows of it in whole aligned runs, of which a thread has four under way; or ANY_TYPE.
 * 1024 rows of 128,256 f32 logits: 525 MB, 0.16 ms; an exponential a value. */
template <int TYPE>
__global__ void __launch_bounds__(512)
xent_forward(float *logp, float *mean, float *lse, int *best, const void *logits, int type, int64_t row_stride, int64_t width, const int *targets)
{
    __shared__ float top[32], sum[32], total_space[32];
    __shared__ int at[32];
    begin_early();
    int64_t r = blockIdx.x, step = (int64_t)blockDim.x * RUN;
    running a = {-INFINITY, 0, 0x7fffffff};
    float total = 0, v[RUN];
    if constexpr (TYPE == ANY_TYPE) {
        for (int64_t c = (int64_t)threadIdx.x * RUN; c < width; c += step) {
            int n = width - c < RUN ? (int)(width - c) : (int)RUN;
            load_run(v, logits, type, r * row_stride + c, n);
            add_run(&a, &total, v, c, n);
        }
    } else {
        enum { TOGETHER = TYPE == SW_F32 ? 2 : 4 };
        for (int64_t c = (int64_t)threadIdx.x * RUN; c < width; c += TOGETHER * step) {
            stored_run<TYPE> run[TOGETHER];
#pragma unroll
            for (int k = 0; k < TOGETHER; k++)
                if (c + k * step < width)
                    run[k].load(logits, r * row_stride + c + k * step);
#pragma unroll
            for (int k = 0; k < TOGETHER; k++)
                if (c + k * step < width) {
                    run[k].values(v);
                    add_run(&a, &total, v, c + k * step, RUN);
                }
        }
    }
    total = row_sum(total, total_space);
    a = warp_joined(a);
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, warps = (int)blockDim.x / 32;
    if (lane == 0) {
        top[warp] = a.top;
        sum[warp] = a.sum;
        at[warp] = a.best;
    }
    __syncthreads();
    if (warp)
        return;
    running o = {-INFINITY, 0, 0x7fffffff};
    if (lane < warps)
        o = running{top[lane], sum[lane], at[lane]};
    o = warp_joined(o);
    if (lane)
        return;
    float log_sum = logf(o.sum); /* differences from the largest first: logits far from 0 lose no digits */
    int target = targets[r];
    lse[r] = o.top + log_sum;
    logp[r] = target >= 0 ? value_of(logits, type, r * row_stride + target) - o.top - log_sum : 0;
    if (mean)
        mean[r] = total / (float)width - o.top - log_sum;
    if (best)
        best[r] = o.best;
}

struct xent_back {
    rows_of d, logits;
    const float *lse, *dlogp, *dmean;
    const int *targets;
    SW_TENSORS(&d, &logits)
    __device__ void operator()(const rows_shape &g, int64_t r, int64_t c, int n) const
    {
        float v[RUN], log_sum = lse[r], m = dmean ? dmean[r] : 0, share = 1 / (float)g.width;
        int target = targets[r];
        float at_target = target >= 0 ? dlogp[r] : 0;
        int64_t here = target - c; /* the target's place in the run, or one outside it */
        load_run(v, logits, row_start(g, logits, r) + c, n);
#pragma unroll
        for (int i = 0; i < RUN; i++) {
            float prob = d.type == SW_F32 ? expf(v[i] - log_sum) : __expf(v[i] - log_sum); /* that is rounded */
            v[i] = m * (share - prob) + at_target * ((here == i ? 1 : 0) - prob);
        }
        store_run(d, row_start(g, d, r) + c, n, v);
    }
};

} // namespace

int cuda_xent_fwd(sw_stream *s, sw_tensor *logp, sw_tensor *mean_logp, sw_tensor *lse, sw_tensor *best, const sw_tensor *logits,
                  const sw_tensor *targets)
{
    int64_t rows = logits->shape[0], width = logits->shape[1];
    if (!rows)
        return 0;
    unsigned threads = 32;
    while (threads < 512 && (int64_t)threads * RUN * 2 < width)
        threads *= 2;
    bool whole = width % RUN == 0 && logits->stride[0] % RUN == 0 && (uintptr_t)logits->data % 16 == 0;
    cuda_by_type(whole ? (int)logits->dtype : (int)ANY_TYPE, [&](auto type) {
        SW_LAUNCH_EARLY((xent_forward<decltype(type)::value>), (unsigned)rows, threads, 0, s, (float *)logp->data,
                        mean_logp ? (float *)mean_logp->data : NULL, (float *)lse->data, best ? (int *)best->data : NULL, logits->data,
                        (int)logits->dtype, logits->stride[0], width, (const int *)targets->data);
    });
    return cuda_launched(s, "xent_fwd");
}

int cuda_xent_bwd(sw_stream *s, sw_tensor *dlogits, const sw_tensor *logits, const sw_tensor *lse, const sw_tensor *targets,
                  const sw_tensor *dlogp, const sw_tensor *dmean)
{
    const sw_tensor *t[] = {dlogits, logits};
    rows_of of[2];
    rows_shape g = cuda_rows(of, t, 2, true);
    return cuda_map(s, g, xent_back{of[0], of[1], (const float *)lse->data, (const float *)dlogp->data,
                                    dmean ? (const float *)dmean->data : NULL, (const int *)targets->data}, "xent_bwd");
}
