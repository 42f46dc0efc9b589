/* Sums over a whole tensor. Each reads its input once: bytes over 3.35 TB/s. */
#include "cuda_common.cuh"

namespace {

struct row_terms {
    static const int outputs = 1;
    rows_of x, w;
    SW_TENSORS(&x)
    __device__ void operator()(const rows_shape &g, int64_t r, int64_t c, int n, float (&a)[RUN], float (&)[RUN]) const
    {
        float u[RUN], v[RUN];
        load_run(u, x, row_start(g, x, r) + c, n);
        if (w.data)
            load_run(v, w, row_start(g, w, r) + c, n);
#pragma unroll
        for (int i = 0; i < RUN; i++)
            a[i] += w.data ? u[i] * v[i] : u[i];
    }
};

/* Runs of eight add up in f32, runs in f64: the GPUs that do f64 slowly still read faster than they add.
 * A billion f32 values: 4 GB, 1.2 ms; 2 GFLOP. */
__global__ void __launch_bounds__(256) squares_part(double *part, const void *x, int type, int64_t n)
{
    __shared__ double sum[256];
    begin_early();
    double own = 0;
    int64_t step = (int64_t)gridDim.x * blockDim.x * RUN;
    for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * RUN; i < n; i += step) {
        float v[RUN], s = 0;
        load_run(v, x, type, i, n - i < RUN ? (int)(n - i) : (int)RUN);
#pragma unroll
        for (int k = 0; k < RUN; k++)
            s += v[k] * v[k];
        own += s;
    }
    sum[threadIdx.x] = own;
    __syncthreads();
    for (int d = 128; d; d >>= 1) {
        if ((int)threadIdx.x < d)
            sum[threadIdx.x] += sum[threadIdx.x + d];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        part[blockIdx.x] = sum[0];
}

/* 2048 sums: the launch. */
__global__ void squares_total(double *out, const double *part, int n)
{
    __shared__ double sum[256];
    begin_early();
    double own = 0;
    for (int i = (int)threadIdx.x; i < n; i += 256)
        own += part[i];
    sum[threadIdx.x] = own;
    __syncthreads();
    for (int d = 128; d; d >>= 1) {
        if ((int)threadIdx.x < d)
            sum[threadIdx.x] += sum[threadIdx.x + d];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        *out = sum[0];
}

/* 8192 x 4096 in bf16: 67 MB, 0.02 ms. */
__global__ void __launch_bounds__(256) find_bad(unsigned long long *out, const void *x, int type, int64_t n)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x * RUN;
    for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * RUN; i < n; i += step) {
        float v[RUN];
        int have = n - i < RUN ? (int)(n - i) : (int)RUN;
        load_run(v, x, type, i, have);
#pragma unroll
        for (int k = 0; k < RUN; k++) /* behind the end stand zeros */
            if ((__float_as_uint(v[k]) & 0x7f800000u) == 0x7f800000u)
                atomicMin(out, (unsigned long long)(i + k)); /* the least does not depend on the order */
    }
}

/* The start of out: 2^64 - 1 is larger than any index, and -1 when it stays. The launch. */
__global__ void start_at(unsigned long long *out, unsigned long long v) { *out = v; }

/* A block has 32 columns, whose parts eight warps add up, each every eighth. 128 parts of 4096: 2 MB, 0.6 us; the launch costs more. */
__global__ void __launch_bounds__(256) column_total(float *first, float *second, const float *part, int slabs, int64_t width)
{
    __shared__ double sum[8][32];
    begin_early();
    int64_t c = (int64_t)blockIdx.x * 32 + threadIdx.x;
    float *out = blockIdx.y ? second : first;
    if (!out)
        return;
    double own = 0;
    if (c < width)
#pragma unroll 8
        for (int i = (int)threadIdx.y; i < slabs; i += 8)
            own += part[((int64_t)blockIdx.y * slabs + i) * width + c];
    sum[threadIdx.y][threadIdx.x] = own;
    __syncthreads();
    if (threadIdx.y || c >= width)
        return;
    for (int y = 1; y < 8; y++)
        own += sum[y][threadIdx.x];
    out[c] += (float)own;
}
} // namespace

int cuda_column_total(sw_stream *s, float *first, float *second, const float *part, int outputs, int slabs, int64_t width)
{
    SW_LAUNCH_EARLY(column_total, dim3((unsigned)((width + 31) / 32), (unsigned)outputs), dim3(32, 8), 0, s, first, second, part, slabs, width);
    return cuda_launched(s, "column sums");
}

int cuda_sum_rows(sw_stream *s, sw_tensor *out, const sw_tensor *x, const sw_tensor *w)
{
    const sw_tensor *t[] = {x, w};
    rows_of of[2];
    rows_shape g = cuda_rows(of, t, 2, true);
    return cuda_column_sums(s, g, row_terms{of[0], of[1]}, (float *)out->data, NULL, "sum_rows");
}

int cuda_sum_squares(sw_stream *s, sw_tensor *out, const sw_tensor *x)
{
    int64_t n = sw_numel(x), blocks = (n + 256 * RUN * 4 - 1) / (256 * RUN * 4); /* by the size, whatever the GPU */
    blocks = blocks < 1 ? 1 : blocks > 2048 ? 2048 : blocks;
    double *part = (double *)cuda_scratch(s, (size_t)blocks * sizeof(double));
    if (!part)
        return -1;
    SW_LAUNCH_EARLY(squares_part, (unsigned)blocks, 256, 0, s, part, x->data, (int)x->dtype, n);
    SW_LAUNCH_EARLY(squares_total, 1, 256, 0, s, (double *)out->data, part, (int)blocks);
    return cuda_launched(s, "sum_squares");
}

int cuda_find_nonfinite(sw_stream *s, sw_tensor *out, const sw_tensor *x)
{
    int64_t n = sw_numel(x);
    unsigned long long *at = (unsigned long long *)out->data;
    SW_LAUNCH(start_at, 1, 1, 0, s->stream, at, ~0ull);
    SW_LAUNCH(find_bad, cuda_blocks(s, (n + RUN - 1) / RUN, 256), 256, 0, s->stream, at, x->data, (int)x->dtype, n);
    return cuda_launched(s, "find_nonfinite");
}
