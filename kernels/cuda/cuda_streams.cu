/* Hidden states of several streams: the matrices that mix them, and the mixing. */
#include "cuda_common.cuh"

namespace
{

enum { MOST = SW_MOST_STREAMS };

struct sinkhorn_call {
    int64_t n;
    int side, rounds;
    float eps;
};

/* Lines of m, columns or rows, divided by their sums + eps. SIDE 0: known at run time only. */
template <int SIDE> __device__ void divide(float *m, int side, bool columns, float eps, float *sums)
{
    int s = SIDE ? SIDE : side, along = columns ? s : 1, across = columns ? 1 : s;
#pragma unroll
    for (int i = 0; i < s; i++) {
        float sum = 0;
#pragma unroll
        for (int k = 0; k < s; k++)
            sum += m[i * across + k * along];
        sum += eps;
        if (sums)
            sums[i] = sum;
#pragma unroll
        for (int k = 0; k < s; k++)
            m[i * across + k * along] /= sum;
    }
}

/* And back: g of the results becomes that of what was divided, and so does m. */
template <int SIDE> __device__ void multiply(float *g, float *m, int side, bool columns, const float *sums)
{
    int s = SIDE ? SIDE : side, along = columns ? s : 1, across = columns ? 1 : s;
#pragma unroll
    for (int i = 0; i < s; i++) {
        float dot = 0, sum = sums[i];
#pragma unroll
        for (int k = 0; k < s; k++)
            dot += g[i * across + k * along] * m[i * across + k * along];
#pragma unroll
        for (int k = 0; k < s; k++) {
            g[i * across + k * along] = (g[i * across + k * along] - dot) / sum;
            m[i * across + k * along] *= sum;
        }
    }
}

/* A thread a matrix, which with four streams lies in its registers. 8192 matrices of 4 x 4, 20 rounds: 1 MB, and 5 MB of
 * divisors, 2 us; 40 divisions one after the other set the time. */
template <int SIDE>
__global__ void __launch_bounds__(128)
    sinkhorn(sinkhorn_call p, float *y, int64_t y_row, float *divisors, int64_t divisors_row, const float *x, int64_t x_row)
{
    int side = SIDE ? SIDE : p.side, steps = 2 * p.rounds - 1;
    for (int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; n < p.n; n += (int64_t)gridDim.x * blockDim.x) {
        float m[SIDE ? SIDE * SIDE : MOST * MOST];
#pragma unroll
        for (int i = 0; i < side; i++) {
            float top = -INFINITY, sum = 0;
#pragma unroll
            for (int k = 0; k < side; k++) {
                m[i * side + k] = x[n * x_row + i * side + k];
                top = fmaxf(top, m[i * side + k]);
            }
#pragma unroll
            for (int k = 0; k < side; k++)
                sum += m[i * side + k] = expf(m[i * side + k] - top);
#pragma unroll
            for (int k = 0; k < side; k++)
                m[i * side + k] = m[i * side + k] / sum + p.eps;
        }
        float *sums = divisors ? divisors + n * divisors_row : NULL;
        divide<SIDE>(m, side, true, p.eps, sums);
        for (int step = 1; step < steps; step += 2) {
            divide<SIDE>(m, side, false, p.eps, sums ? sums + step * side : NULL);
            divide<SIDE>(m, side, true, p.eps, sums ? sums + (step + 1) * side : NULL);
        }
#pragma unroll
        for (int i = 0; i < side * side; i++)
            y[n * y_row + i] = m[i];
    }
}

/* The same shape: 7 MB, 2 us, and as many divisions. */
template <int SIDE>
__global__ void __launch_bounds__(128) sinkhorn_back(sinkhorn_call p, float *dx, int64_t dx_row, const float *dy, int64_t dy_row,
                                                     const float *y, int64_t y_row, const float *divisors, int64_t divisors_row)
{
    int side = SIDE ? SIDE : p.side, steps = 2 * p.rounds - 1;
    for (int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; n < p.n; n += (int64_t)gridDim.x * blockDim.x) {
        float m[SIDE ? SIDE * SIDE : MOST * MOST], g[SIDE ? SIDE * SIDE : MOST * MOST];
#pragma unroll
        for (int i = 0; i < side * side; i++) {
            m[i] = y[n * y_row + i];
            g[i] = dy[n * dy_row + i];
        }
        const float *sums = divisors + n * divisors_row;
        for (int step = steps - 1; step > 0; step -= 2) {
            multiply<SIDE>(g, m, side, true, sums + step * side);
            multiply<SIDE>(g, m, side, false, sums + (step - 1) * side);
        }
        multiply<SIDE>(g, m, side, true, sums);
#pragma unroll
        for (int i = 0; i < side; i++) {
            float dot = 0;
#pragma unroll
            for (int k = 0; k < side; k++)
                dot += g[i * side + k] * (m[i * side + k] - p.eps);
#pragma unroll
            for (int k = 0; k < side; k++)
                dx[n * dx_row + i * side + k] = (m[i * side + k] - p.eps) * (g[i * side + k] - dot);
        }
    }
}

sinkhorn_call sinkhorn_of(const sw_tensor *x, int rounds, double eps)
{
    int side = 1;
    while ((int64_t)side * side < x->shape[1])
        side++;
    return sinkhorn_call{x->shape[0], side, rounds, (float)eps};
}

/* ---- mixing */

struct mix_call {
    void *y;
    const void *x;
    float *w; /* [tokens, from, to] */
    int type, from, to, acc;
    int64_t tokens, width, y_token, y_stream, x_token, x_stream, w_token, w_from, w_to;
};

enum { TOGETHER = 4 }; /* streams of the result that are summed at a time */

/* A block a token. 8192 tokens of 4 streams of 4096 in bf16: 268 MB read and as much written, 0.16 ms; 1.1 GFLOP. */
__global__ void __launch_bounds__(256) mix(mix_call p)
{
    __shared__ float w[MOST * MOST];
    int64_t t = blockIdx.x;
    for (int i = (int)threadIdx.x; i < p.from * p.to; i += (int)blockDim.x)
        w[i] = p.w[t * p.w_token + i / p.to * p.w_from + i % p.to * p.w_to];
    __syncthreads();
    for (int64_t c = (int64_t)threadIdx.x * RUN; c < p.width; c += (int64_t)blockDim.x * RUN) {
        int count = p.width - c < RUN ? (int)(p.width - c) : (int)RUN;
        for (int first = 0; first < p.to; first += TOGETHER) {
            float sum[TOGETHER][RUN], v[RUN];
#pragma unroll
            for (int k = 0; k < TOGETHER; k++) {
#pragma unroll
                for (int i = 0; i < RUN; i++)
                    sum[k][i] = 0;
                if (p.acc && first + k < p.to)
                    load_run(sum[k], p.y, p.type, t * p.y_token + (first + k) * p.y_stream + c, count);
            }
            for (int j = 0; j < p.from; j++) {
                load_run(v, p.x, p.type, t * p.x_token + j * p.x_stream + c, count);
#pragma unroll
                for (int k = 0; k < TOGETHER; k++) {
                    float f = first + k < p.to ? w[j * p.to + first + k] : 0;
#pragma unroll
                    for (int i = 0; i < RUN; i++)
                        sum[k][i] += f * v[i];
                }
            }
#pragma unroll
            for (int k = 0; k < TOGETHER; k++)
                if (first + k < p.to)
                    store_run(p.y, p.type, t * p.y_token + (first + k) * p.y_stream + c, count, sum[k]);
        }
    }
}

/* Products of each stream of x with each of y, the gradient; a block a token, its threads' sums added in order.
 * The same shape: 537 MB read, 0.16 ms (each stream is read again from the caches). */
__global__ void __launch_bounds__(256) mix_weights(mix_call p)
{
    __shared__ float part[8][TOGETHER];
    int64_t t = blockIdx.x;
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    for (int j = 0; j < p.from; j++)
        for (int first = 0; first < p.to; first += TOGETHER) {
            float dot[TOGETHER] = {0}, v[RUN], g[RUN];
            for (int64_t c = (int64_t)threadIdx.x * RUN; c < p.width; c += (int64_t)blockDim.x * RUN) {
                int count = p.width - c < RUN ? (int)(p.width - c) : (int)RUN;
                load_run(v, p.x, p.type, t * p.x_token + j * p.x_stream + c, count);
#pragma unroll
                for (int k = 0; k < TOGETHER; k++) {
                    if (first + k >= p.to)
                        continue;
                    load_run(g, p.y, p.type, t * p.y_token + (first + k) * p.y_stream + c, count);
#pragma unroll
                    for (int i = 0; i < RUN; i++)
                        dot[k] += v[i] * g[i];
                }
            }
#pragma unroll
            for (int k = 0; k < TOGETHER; k++) {
                float sum = warp_sum(dot[k]);
                if (lane == 0)
                    part[warp][k] = sum;
            }
            __syncthreads();
            if (threadIdx.x < TOGETHER && first + (int)threadIdx.x < p.to) {
                float sum = 0;
                for (int i = 0; i < 8; i++)
                    sum += part[i][threadIdx.x];
                p.w[t * p.w_token + j * p.w_from + (first + (int)threadIdx.x) * p.w_to] = sum;
            }
            __syncthreads();
        }
}

mix_call mix_of(const sw_tensor *y, const sw_tensor *w, const sw_tensor *x, int acc)
{
    return mix_call{y->data,      x->data,      (float *)w->data, x->dtype,     (int)x->shape[1], (int)y->shape[1],
                    acc,          x->shape[0],  x->shape[2],      y->stride[0], y->stride[1],     x->stride[0],
                    x->stride[1], w->stride[0], w->stride[1],     w->stride[2]};
}

} // namespace

int cuda_sinkhorn_fwd(sw_stream *s, sw_tensor *y, sw_tensor *divisors, const sw_tensor *x, int rounds, double eps)
{
    sinkhorn_call p = sinkhorn_of(x, rounds, eps);
    if (!p.n)
        return 0;
    float *sums = divisors ? (float *)divisors->data : NULL;
    int64_t sums_row = divisors ? divisors->stride[0] : 0;
    if (p.side == 4)
        SW_LAUNCH(sinkhorn<4>, cuda_blocks(s, p.n, 128), 128, 0, s->stream, p, (float *)y->data, y->stride[0], sums, sums_row,
                  (const float *)x->data, x->stride[0]);
    else
        SW_LAUNCH(sinkhorn<0>, cuda_blocks(s, p.n, 128), 128, 0, s->stream, p, (float *)y->data, y->stride[0], sums, sums_row,
                  (const float *)x->data, x->stride[0]);
    return cuda_launched(s, "sinkhorn_fwd");
}

int cuda_sinkhorn_bwd(sw_stream *s, sw_tensor *dx, const sw_tensor *dy, const sw_tensor *y, const sw_tensor *divisors, int rounds,
                      double eps)
{
    sinkhorn_call p = sinkhorn_of(y, rounds, eps);
    if (!p.n)
        return 0;
    if (p.side == 4)
        SW_LAUNCH(sinkhorn_back<4>, cuda_blocks(s, p.n, 128), 128, 0, s->stream, p, (float *)dx->data, dx->stride[0],
                  (const float *)dy->data, dy->stride[0], (const float *)y->data, y->stride[0], (const float *)divisors->data,
                  divisors->stride[0]);
    else
        SW_LAUNCH(sinkhorn_back<0>, cuda_blocks(s, p.n, 128), 128, 0, s->stream, p, (float *)dx->data, dx->stride[0],
                  (const float *)dy->data, dy->stride[0], (const float *)y->data, y->stride[0], (const float *)divisors->data,
                  divisors->stride[0]);
    return cuda_launched(s, "sinkhorn_bwd");
}

int cuda_mix_streams(sw_stream *s, sw_tensor *y, const sw_tensor *w, const sw_tensor *x, int acc)
{
    mix_call p = mix_of(y, w, x, acc);
    if (!p.tokens || !p.width || !p.to)
        return 0;
    SW_LAUNCH(mix, (unsigned)p.tokens, 256, 0, s->stream, p);
    return cuda_launched(s, "mix_streams");
}

int cuda_mix_streams_bwd_w(sw_stream *s, sw_tensor *dw, const sw_tensor *dy, const sw_tensor *x)
{
    mix_call p = mix_of(dy, dw, x, 0);
    if (!p.tokens || !p.from || !p.to)
        return 0;
    SW_LAUNCH(mix_weights, (unsigned)p.tokens, 256, 0, s->stream, p);
    return cuda_launched(s, "mix_streams_bwd_w");
}
