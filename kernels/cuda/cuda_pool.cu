/* Windows of tokens pooled into one row, and attention over two sets of keys. Bound by memory. */
#include "cuda_attention.cuh"

namespace
{

/* A block a query and head. 8192 queries, 64 heads of 512 in bf16: 1.6 GB, 0.5 ms. */
__global__ void __launch_bounds__(128)
    merge_rows(head_rows out, head_rows other, float *lse, const float *more, int heads, int width)
{
    int64_t row = blockIdx.x, n = row / heads, h = row - n * heads;
    float a = lse[row], b = more[row], top = a > b ? a : b, first = 0, second = 0, total = -INFINITY;
    if (top > -INFINITY) {
        first = expf(a - top);
        second = expf(b - top);
        total = top + logf(first + second);
        first /= first + second;
        second = 1 - first;
    }
    for (int c = (int)threadIdx.x * RUN; c < width; c += (int)blockDim.x * RUN) {
        int count = width - c < RUN ? width - c : (int)RUN;
        float x[RUN], y[RUN];
        load_run(x, out.data, out.type, out.at(n, h) + c, count);
        load_run(y, other.data, other.type, other.at(n, h) + c, count);
#pragma unroll
        for (int i = 0; i < RUN; i++)
            x[i] = first * x[i] + second * y[i];
        store_run(out.data, out.type, out.at(n, h) + c, count, x);
    }
    __syncthreads();
    if (threadIdx.x == 0)
        lse[row] = total;
}

struct pool_call {
    const void *x;
    const float *gate;
    const int *rows;
    int type;
    int64_t entries, width, slots, each, x_row, gate_row; /* each: slots of a part of the columns */
    __device__ int64_t part(int64_t j, int64_t d) const { return j / each * width + d; }
};

/* A thread a value of an entry: gates are read twice, the second time from the caches. 2048 entries of 8 slots and 512 values
 * in bf16: 50 MB of values and gates, 8 MB of results, 0.02 ms. */
__global__ void __launch_bounds__(256) pool_windows(pool_call p, void *y, int64_t y_row, float *lse)
{
    int64_t total = p.entries * p.width;
    for (int64_t t = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; t < total; t += (int64_t)gridDim.x * blockDim.x) {
        int64_t e = t / p.width, d = t - e * p.width;
        const int *rows = p.rows + e * p.slots;
        float top = -INFINITY, shares = 0, sum = 0;
        for (int64_t j = 0; j < p.slots; j++)
            if (rows[j] >= 0)
                top = fmaxf(top, p.gate[rows[j] * p.gate_row + p.part(j, d)]);
        for (int64_t j = 0; j < p.slots; j++) {
            if (rows[j] < 0)
                continue;
            float share = expf(p.gate[rows[j] * p.gate_row + p.part(j, d)] - top);
            shares += share;
            sum += share * value_of(p.x, p.type, rows[j] * p.x_row + p.part(j, d));
        }
        set_value(y, p.type, e * y_row + d, shares > 0 ? sum / shares : 0);
        lse[t] = shares > 0 ? top + logf(shares) : -INFINITY;
    }
}

/* The same shape: 50 MB read and written, 0.03 ms. */
__global__ void __launch_bounds__(256)
    pool_windows_back(pool_call p, void *dx, int64_t dx_row, float *dgate, int64_t dgate_row, const void *dy, int64_t dy_row,
                      const void *y, int64_t y_row, const float *lse)
{
    int64_t total = p.entries * p.width;
    for (int64_t t = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; t < total; t += (int64_t)gridDim.x * blockDim.x) {
        int64_t e = t / p.width, d = t - e * p.width;
        const int *rows = p.rows + e * p.slots;
        float g = value_of(dy, p.type, e * dy_row + d), mean = value_of(y, p.type, e * y_row + d), log_sum = lse[t];
        for (int64_t j = 0; j < p.slots; j++) {
            if (rows[j] < 0)
                continue;
            int64_t at = p.part(j, d);
            float share = expf(p.gate[rows[j] * p.gate_row + at] - log_sum) * g;
            set_value(dx, p.type, rows[j] * dx_row + at, share);
            dgate[rows[j] * dgate_row + at] = share * (value_of(p.x, p.type, rows[j] * p.x_row + at) - mean);
        }
    }
}

pool_call pool_of(const sw_tensor *y, const sw_tensor *x, const sw_tensor *gate, const sw_tensor *rows)
{
    int64_t width = y->shape[1], slots = rows->shape[1];
    return pool_call{x->data,
                     (const float *)gate->data,
                     (const int *)rows->data,
                     x->dtype,
                     y->shape[0],
                     width,
                     slots,
                     width ? slots / (x->shape[1] / width) : 0,
                     x->stride[0],
                     gate->stride[0]};
}

} // namespace

int cuda_attention_merge(sw_stream *s, sw_tensor *out, sw_tensor *lse, const sw_tensor *other, const sw_tensor *other_lse)
{
    int64_t rows = out->shape[0] * out->shape[1];
    if (!rows)
        return 0;
    SW_LAUNCH(merge_rows, (unsigned)rows, 128, 0, s->stream, cuda_head_rows(out), cuda_head_rows(other), (float *)lse->data,
              (const float *)other_lse->data, (int)out->shape[1], (int)out->shape[2]);
    return cuda_launched(s, "attention_merge");
}

int cuda_pool_fwd(sw_stream *s, sw_tensor *y, sw_tensor *lse, const sw_tensor *x, const sw_tensor *gate, const sw_tensor *rows)
{
    pool_call p = pool_of(y, x, gate, rows);
    if (!p.entries || !p.width)
        return 0;
    SW_LAUNCH(pool_windows, cuda_blocks(s, p.entries * p.width, 256), 256, 0, s->stream, p, y->data, y->stride[0],
              (float *)lse->data);
    return cuda_launched(s, "pool_fwd");
}

int cuda_pool_bwd(sw_stream *s, sw_tensor *dx, sw_tensor *dgate, const sw_tensor *dy, const sw_tensor *y, const sw_tensor *lse,
                  const sw_tensor *x, const sw_tensor *gate, const sw_tensor *rows)
{
    pool_call p = pool_of(y, x, gate, rows);
    if (!p.entries || !p.width)
        return 0;
    SW_LAUNCH(pool_windows_back, cuda_blocks(s, p.entries * p.width, 256), 256, 0, s->stream, p, dx->data, dx->stride[0],
              (float *)dgate->data, dgate->stride[0], (const void *)dy->data, dy->stride[0], (const void *)y->data, y->stride[0],
              (const float *)lse->data);
    return cuda_launched(s, "pool_bwd");
}
