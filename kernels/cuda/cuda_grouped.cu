/* Products of rows in groups (mixtures of experts). What a group has is read from device memory, so the grid is of as many tiles as
 * there may be, and blocks without one end at once. Few rows a group go to cuda_few.cu, which reads each matrix for four rows at a
 * time; f32, and f16 with bf16, to the plain kernel; the rest to tensor cores. */
#include "cuda_grouped_mma.cuh"

namespace {

/* 4096 rows of 64 experts, 2048 by 768, in f32: 13 GFLOP, 0.2 ms at the limit; 0.45 GB, 0.14 ms. */
template <int FORM> __global__ void __launch_bounds__(256) grouped_plain(grouped_call p)
{
    cuda_product q;
    int64_t row;
    if (locate<FORM>(p, PLAIN_TILE, &q, &row))
        plain_tile<FORM != BACK_W>(q, row, (int64_t)blockIdx.y * PLAIN_TILE);
}

/* ---- tensor cores: 64 x 128 of the result a block, four warps of 32 x 64; 64 of k at a time, the next ones on their way meanwhile */
enum { WARPS = 4, ROWS = 64, COLUMNS = GROUPED_COLUMNS, DEPTH = GROUPED_DEPTH };
/* An operand in shared memory, as it lies: rows of k, or of m (n). */
enum { A_STRIDE = DEPTH + 8, B_STRIDE = DEPTH + 8, B_STRIDE_TURNED = COLUMNS + 8, A_VALUES = ROWS * A_STRIDE, B_VALUES = COLUMNS * B_STRIDE };
static_assert(ROWS == DEPTH && B_VALUES >= DEPTH * B_STRIDE_TURNED, "space for both ways round");
const size_t SHARED_BYTES = (size_t)2 * (A_VALUES + B_VALUES) * sizeof(uint16_t);

/* R x C values from (row, column) on, zeros behind the matrix's rows and columns, as 16 bits; BLOCKS: it may be of any type. They
 * are there after wait_copies and a barrier. */
template <bool BF16, bool BLOCKS, int R, int C>
__device__ static inline void load_block(uint16_t *to, int stride, const void *m, int type, int64_t ld, int64_t row, int64_t rows, int64_t column, int64_t columns,
                                                  const scales_of &scales)
{
    for (int i = (int)threadIdx.x; i < R * (C / 8); i += WARPS * 32) {
        int r = i / (C / 8), c = i % (C / 8) * 8;
        int64_t left = row + r < rows ? columns - column - c : 0, at = (row + r) * ld + column + c;
        uint16_t *here = to + r * stride + c;
        if (type == (BF16 ? SW_BF16 : SW_F16) && left >= 8 && ((uintptr_t)((const uint16_t *)m + at) & 15) == 0) {
            copy_async(here, (const uint16_t *)m + at, 16);
            continue;
        }
        float v[RUN] = {0};
        if (left > 0 && BLOCKS)
            load_any(v, m, type, at, left < RUN ? (int)left : (int)RUN, scales);
        else if (left > 0)
            load_run(v, m, type, at, left < RUN ? (int)left : (int)RUN);
        *(uint4 *)here = uint4{packed<BF16>(v[0], v[1]), packed<BF16>(v[2], v[3]), packed<BF16>(v[4], v[5]), packed<BF16>(v[6], v[7])};
    }
}

/* 65536 rows of 128 experts, 2048 by 768 of Q4_K, in bf16: 206 GFLOP, 0.21 ms at the limit; decoding 64 weights for each 64 rows takes
 * several times that. */
template <bool BF16, int FORM> __global__ void __launch_bounds__(WARPS * 32) grouped_mma(grouped_call p)
{
    SW_DYNAMIC_SHARED(uint16_t, shared);
    const bool A_TURNED = FORM == BACK_W, B_TURNED = FORM != FORWARD;
    cuda_product q;
    int64_t row, column = (int64_t)blockIdx.y * COLUMNS;
    if (!locate<FORM>(p, ROWS, &q, &row))
        return;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, down = warp / 2 * 32, across = warp % 2 * 64;
    float c[2][8][4] = {{{0}}};
    auto load = [&](int stage, int64_t k) {
        uint16_t *a = shared + stage * (A_VALUES + B_VALUES), *b = a + A_VALUES;
        if (A_TURNED)
            load_block<BF16, false, DEPTH, ROWS>(a, A_STRIDE, q.a, q.type, q.a_ld, k, q.k, row, q.m, scales_of{});
        else
            load_block<BF16, false, ROWS, DEPTH>(a, A_STRIDE, q.a, q.type, q.a_ld, row, q.m, k, q.k, scales_of{});
        if (B_TURNED)
            load_block<BF16, FORM != BACK_W, DEPTH, COLUMNS>(b, B_STRIDE_TURNED, q.b, q.b_type, q.b_ld, k, q.k, column, q.n, q.scales);
        else
            load_block<BF16, true, COLUMNS, DEPTH>(b, B_STRIDE, q.b, q.b_type, q.b_ld, column, q.n, k, q.k, q.scales);
    };
    int stage = 1;
    for (int64_t k = -(int64_t)DEPTH; k < q.k; k += DEPTH, stage = 1 - stage) {
        if (k >= 0) {
            wait_copies();
            __syncthreads(); /* these are there, nobody needs those before them */
        }
        if (k + DEPTH < q.k)
            load(1 - stage, k + DEPTH);
        const uint16_t *a = shared + stage * (A_VALUES + B_VALUES), *b = a + A_VALUES;
        if (k >= 0)
            multiply_block<BF16, A_TURNED, B_TURNED, A_STRIDE, B_TURNED ? (int)B_STRIDE_TURNED : (int)B_STRIDE>(
                c, A_TURNED ? a + down : a + down * A_STRIDE, B_TURNED ? b + across : b + across * B_STRIDE);
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int64_t r = row + down + i * 16 + j / 2 * 8 + lane / 4, o = column + across + n * 8 + lane % 4 * 2 + j % 2, at = r * q.c_ld + o;
                if (r >= q.m || o >= q.n)
                    continue;
                float v = q.alpha * c[i][n][j] + (q.bias ? value_of(q.bias, q.bias_type, o) : 0);
                set_value(q.c, q.c_type, at, q.beta != 0 ? v + q.beta * value_of(q.c, q.c_type, at) : v);
            }
}

/* By tensor cores where they have the types: 16-bit rows; f16 has not the range for what bf16 may hold. */
template <int FORM> int multiply(sw_stream *s, const grouped_call &p, int64_t tiles_down, bool tensor_cores)
{
    int64_t size = tensor_cores ? (int64_t)COLUMNS : (int64_t)PLAIN_TILE;
    dim3 grid((unsigned)tiles_down, (unsigned)((p.all.n + size - 1) / size));
    if (!tensor_cores)
        SW_LAUNCH(grouped_plain<FORM>, grid, 256, 0, s->stream, p);
    else if (p.all.type == SW_BF16 ? cuda_shared(s, grouped_mma<true, FORM>, SHARED_BYTES, "products of experts")
                                   : cuda_shared(s, grouped_mma<false, FORM>, SHARED_BYTES, "products of experts"))
        return -1;
    else if (p.all.type == SW_BF16)
        SW_LAUNCH((grouped_mma<true, FORM>), grid, WARPS * 32, SHARED_BYTES, s->stream, p);
    else
        SW_LAUNCH((grouped_mma<false, FORM>), grid, WARPS * 32, SHARED_BYTES, s->stream, p);
    return cuda_launched(s, "products of experts");
}

bool has_tensor_cores(const sw_stream *s, int type, int other)
{
    return s->capability >= 80 && SHARED_BYTES <= s->shared_most && (type == SW_BF16 || (type == SW_F16 && other != SW_BF16));
}

cuda_product product_of(sw_tensor *c, const sw_tensor *a, double alpha, double beta)
{
    cuda_product p = {};
    p.m = c->shape[0];
    p.n = c->shape[1];
    p.k = a->shape[1];
    p.type = a->dtype;
    p.a = a->data;
    p.a_ld = a->stride[0];
    p.c = c->data;
    p.c_type = c->dtype;
    p.c_ld = c->stride[0];
    p.alpha = (float)alpha;
    p.beta = (float)beta;
    return p;
}

template <int FORM> int rows_by_matrices(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_matrices *w, const sw_tensor *bias, const sw_tensor *start,
                                         double alpha, double beta)
{
    grouped_call p = {product_of(y, x, alpha, beta), cuda_groups(w, start, x->shape[0]), bias ? bias->stride[0] : 0};
    bool tensor_cores = has_tensor_cores(s, x->dtype, w->one.dtype);
    p.all.b_turned = FORM == FORWARD;
    p.all.b_type = w->one.dtype;
    p.all.b_ld = w->one.stride[0];
    p.all.scales = cuda_scales(&w->one);
    p.all.bias = bias ? bias->data : NULL;
    p.all.bias_type = bias ? (int)bias->dtype : 0;
    int rc = cuda_grouped_runs(s, &p, FORM, w, x->shape[0] / w->count);
    if (rc != GROUPED_NONE)
        return rc;
    return multiply<FORM>(s, p, cuda_tiles(p.groups, tensor_cores ? (int64_t)ROWS : (int64_t)PLAIN_TILE), tensor_cores);
}

/* A block a group and 32 columns. 65536 rows of 5760 in bf16: 0.75 GB, 0.23 ms. */
__global__ void __launch_bounds__(256) sum_group(float *out, int64_t out_ld, rows_of x, int64_t width, const int *start)
{
    __shared__ float part[8][32];
    int64_t g = blockIdx.x, c = (int64_t)blockIdx.y * 32 + threadIdx.x;
    float sum = 0;
    if (c < width)
        for (int64_t r = start[g] + (int)threadIdx.y; r < start[g + 1]; r += 8)
            sum += value_of(x.data, x.type, r * x.stride[0] + c);
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || c >= width || start[g] == start[g + 1])
        return;
    for (int i = 1; i < 8; i++)
        sum += part[i][threadIdx.x];
    out[g * out_ld + c] += sum;
}

} // namespace

int cuda_grouped_fwd(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_matrices *w, const sw_tensor *bias, const sw_tensor *start,
                     double alpha, double beta)
{
    if (!y->shape[0] || !y->shape[1])
        return 0;
    if (x->shape[0] <= CUDA_FEW_ROWS || (x->shape[0] <= 4 * w->count && x->shape[0] < 65536))
        return cuda_grouped_few(s, y, x, w, bias, start, (float)alpha, (float)beta);
    return rows_by_matrices<FORWARD>(s, y, x, w, bias, start, alpha, beta);
}

int cuda_grouped_bwd_x(sw_stream *s, sw_tensor *dx, const sw_tensor *dy, const sw_matrices *w, const sw_tensor *start, double alpha, double beta)
{
    return dx->shape[0] && dx->shape[1] ? rows_by_matrices<BACK_X>(s, dx, dy, w, NULL, start, alpha, beta) : 0;
}

int cuda_grouped_bwd_w(sw_stream *s, const sw_matrices *dw, const sw_tensor *dy, const sw_tensor *x, const sw_tensor *start, double alpha)
{
    sw_tensor one = dw->one;
    if (!dy->shape[0] || !one.shape[0] || !one.shape[1])
        return 0;
    grouped_call p = {product_of(&one, dy, alpha, 1), cuda_groups(dw, start, dy->shape[0]), 0};
    bool tensor_cores = dy->dtype == x->dtype && has_tensor_cores(s, dy->dtype, x->dtype);
    p.all.a_turned = true;
    p.all.b = x->data;
    p.all.b_type = x->dtype;
    p.all.b_ld = x->stride[0];
    int rc = cuda_grouped_runs(s, &p, BACK_W, dw, dy->shape[0] / dw->count);
    if (rc != GROUPED_NONE)
        return rc;
    int64_t size = tensor_cores ? (int64_t)ROWS : (int64_t)PLAIN_TILE;
    return multiply<BACK_W>(s, p, (one.shape[0] + size - 1) / size * dw->count, tensor_cores);
}

int cuda_grouped_sum(sw_stream *s, sw_tensor *out, const sw_tensor *x, const sw_tensor *start)
{
    rows_of rows = {x->data, x->dtype, {x->stride[0]}};
    if (!out->shape[0] || !out->shape[1])
        return 0;
    SW_LAUNCH(sum_group, dim3((unsigned)out->shape[0], (unsigned)((out->shape[1] + 31) / 32)), dim3(32, 8), 0, s->stream, (float *)out->data,
              out->stride[0], rows, out->shape[1], (const int *)start->data);
    return cuda_launched(s, "grouped_sum");
}
