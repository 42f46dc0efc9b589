/* Products for tokens that are generated (the table `rounding` of kernels.h): weights in e4m3 meet activations that are rounded to
 * it, on tensor cores (compute capability 8.9 and later), with f32 sums.
 *
 * Where scales are one a row or one for all, each row of x has one of its own, and sums are scaled by both when they are written;
 * for blocks of 128 x 128, each 128 values of a row have one, which cuBLASLt takes on Hopper alone. Other weights, and other GPUs,
 * round nothing. What is rounded depends on w, never on how many rows x has: few rows are multiplied by the kernel for few rows,
 * which reads w as fast as it can be read. */
#include "cuda_blocks.cuh"
#include "cuda_products.cuh"

namespace {

enum how { EXACTLY, BY_ROWS, BY_BLOCKS };
enum { BLOCK = 128, MOST = 448 }; /* values under a scale; the largest e4m3 */

/* Row 0 of w in its matrix; -1 where w is not of one matrix, or does not begin at the start of rows. */
int64_t first_row(const sw_tensor *w)
{
    const sw_scales *s = w->scales;
    int64_t i = (const char *)w->data - (const char *)s->origin, row = i / s->width, in_matrix = row % s->rows;
    bool whole = i % s->width == 0 && (w->shape[0] <= 1 || w->stride[0] == s->width);
    return whole && in_matrix + w->shape[0] <= s->rows ? in_matrix : -1;
}

how way_of(const sw_stream *s, const sw_tensor *w)
{
    const sw_scales *k = w->scales;
    int64_t ld = w->shape[0] > 1 ? w->stride[0] : w->shape[1];
    if (w->dtype != SW_F8_E4M3 || s->capability < 89 || w->shape[0] % 16 || w->shape[1] % 16 || ld % 16 || ld < w->shape[1] ||
        (uintptr_t)w->data % 16)
        return EXACTLY;
    if (!k)
        return BY_ROWS;
    int64_t first = first_row(w);
    if (first >= 0 && k->wide >= k->width)
        return BY_ROWS;
    bool blocks = k->high == BLOCK && k->wide == BLOCK && first >= 0 && first % BLOCK == 0 && w->shape[1] == k->width && k->line == ((k->width + BLOCK - 1) / BLOCK + 3) / 4 * 4 &&
                  (uintptr_t)k->at % 16 == 0;
    return blocks && s->capability / 10 == 9 ? BY_BLOCKS : EXACTLY;
}

/* The nearest e4m3, the even one of two as near; what is larger than all becomes the largest, infinity and NaN a NaN. */
__device__ unsigned nearest_e4m3(float v)
{
    unsigned bits = __float_as_uint(v), sign = bits >> 24 & 0x80, size = bits & 0x7fffffff;
    if (size >= 0x7f800000)
        return sign | 0x7f;
    if (size < 0x3c800000) /* below 2^-6 they lie 2^-9 apart */
        return sign | (unsigned)__float2int_rn(__uint_as_float(size) * 512);
    size = size < 0x43e00000 ? size : 0x43e00000;
    size += 0x7ffff + (size >> 20 & 1);
    return sign | ((size >> 20) - (120 << 3));
}

/* Of bits of |x|, which are ordered as the values are, NaN highest. */
__device__ unsigned warp_most(unsigned v)
{
    for (int d = 16; d; d >>= 1) {
        unsigned other = __shfl_xor_sync(FULL_WARP, v, d);
        v = v > other ? v : other;
    }
    return v;
}

__device__ unsigned most_of(const float (&v)[4])
{
    unsigned most = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        unsigned size = __float_as_uint(v[k]) & 0x7fffffff;
        most = most > size ? most : size;
    }
    return most;
}

struct rounding_call {
    rows_of x;
    int64_t rows, padded, in; /* rows of x; with those of zeros behind them */
    void *to;                 /* [padded, in] e4m3; or, of few rows, what they stand for in f32 */
    float *scales;            /* [padded], or of blocks [ceil(in / 128), padded]; not of few rows */
};

/* A block a row. 256 rows of 4096 in bf16: 2 MB read twice, the second time from the caches, 1 MB written: 1 us. */
template <bool BLOCKS, bool FLOATS> __global__ void __launch_bounds__(128) round_rows(rounding_call p)
{
    __shared__ unsigned part[4];
    int64_t row = blockIdx.x;
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    bool there = row < p.rows;
    unsigned most = 0;
    float v[4];
    for (int64_t i = (int64_t)threadIdx.x * 4; !BLOCKS && there && i < p.in; i += 512) {
        load_run(v, p.x.data, p.x.type, row * p.x.stride[0] + i, 4);
        unsigned here = most_of(v);
        most = most > here ? most : here;
    }
    if (!BLOCKS) {
        most = warp_most(most);
        if (lane == 0)
            part[warp] = most;
        __syncthreads();
        most = part[0];
        for (int w = 1; w < 4; w++)
            most = most > part[w] ? most : part[w];
    }
    for (int64_t first = warp * BLOCK; first < p.in; first += 4 * BLOCK) {
        int64_t i = first + lane * 4;
        bool mine = there && i < p.in; /* in is a multiple of 16 */
        if (mine)
            load_run(v, p.x.data, p.x.type, row * p.x.stride[0] + i, 4);
        if (BLOCKS)
            most = warp_most(mine ? most_of(v) : 0);
        float size = __uint_as_float(most);
        float unit = size < 0x1p-100f ? 0 : size / MOST, up = size < 0x1p-100f ? 0 : MOST / size;
        if (!FLOATS && lane == 0 && (BLOCKS || first == 0))
            p.scales[BLOCKS ? first / BLOCK * p.padded + row : row] = unit;
        unsigned code[4] = {0, 0, 0, 0};
        for (int k = 0; mine && k < 4; k++)
            code[k] = nearest_e4m3(v[k] * up);
        if (FLOATS)
            for (int k = 0; mine && k < 4; k++)
                ((float *)p.to)[row * p.in + i + k] = float8_value(code[k], SW_F8_E4M3) * unit;
        else if (i < p.in)
            *(unsigned *)((uint8_t *)p.to + row * p.in + i) = code[0] | code[1] << 8 | code[2] << 16 | code[3] << 24;
    }
}

template <bool FLOATS> int round_x(sw_stream *s, how way, const rounding_call &p)
{
    if (way == BY_BLOCKS)
        SW_LAUNCH((round_rows<true, FLOATS>), (unsigned)p.padded, 128, 0, s->stream, p);
    else
        SW_LAUNCH((round_rows<false, FLOATS>), (unsigned)p.padded, 128, 0, s->stream, p);
    return cuda_launched(s, "rounding");
}

/* y = alpha sum, scaled by rows and columns where those have scales, + bias + beta y. */
struct finish_run {
    rows_of y, bias;
    const float *sum, *by_row, *by_column;
    int64_t out, first, high, line; /* of by_column: a scale for `high` columns, `line` apart */
    float alpha, beta;
    __device__ void operator()(const rows_shape &g, int64_t r, int64_t c, int n) const
    {
        float v[RUN], old[RUN], add[RUN] = {0};
        int64_t at = row_start(g, y, r) + c;
        load_run(v, sum, SW_F32, r * out + c, n);
        if (bias.data)
            load_run(add, bias.data, bias.type, c, n);
        if (beta != 0)
            load_run(old, y.data, y.type, at, n);
        float all = alpha * (by_row ? by_row[r] : 1);
#pragma unroll
        for (int k = 0; k < RUN; k++) {
            float scale = by_column && k < n ? all * by_column[quotient(first + c + k, high) * line] : all;
            v[k] = scale * v[k] + add[k];
            if (beta != 0)
                v[k] += beta * old[k];
        }
        store_run(y.data, y.type, at, n, v);
    }
};

} // namespace

int cuda_linear_rounded(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, double alpha,
                        double beta)
{
    int64_t rows = x->shape[0], in = x->shape[1], out = w->shape[0];
    how way = rows && in && out && alpha != 0 ? way_of(s, w) : EXACTLY;
    if (way == EXACTLY)
        return cuda_linear_fwd(s, y, x, w, bias, alpha, beta);
    rounding_call call = {{x->data, x->dtype, {x->stride[0]}}, rows, rows, in, NULL, NULL};
    if (rows <= CUDA_FEW_ROWS) {
        int64_t shape[2] = {rows, in};
        sw_tensor rounded = sw_tensor_of(cuda_scratch(s, (size_t)(rows * in) * sizeof(float)), SW_F32, 2, shape);
        call.to = rounded.data;
        if (!rounded.data || round_x<true>(s, way, call))
            return -1;
        return cuda_linear_few(s, y, &rounded, w, bias, (float)alpha, (float)beta);
    }
    call.padded = (rows + 3) / 4 * 4;
    int64_t scales = way == BY_BLOCKS ? (in + BLOCK - 1) / BLOCK * call.padded : call.padded;
    size_t need[2] = {cuda_padded((size_t)(call.padded * in)), cuda_padded((size_t)scales * sizeof(float))};
    char *space = (char *)cuda_scratch(s, need[0] + need[1] + (size_t)(call.padded * out) * sizeof(float));
    if (!space)
        return -1;
    call.to = space;
    call.scales = (float *)(space + need[0]);
    float *sum = (float *)(space + need[0] + need[1]);
    if (round_x<false>(s, way, call))
        return -1;
    int64_t first = w->scales ? first_row(w) : 0, ld = out > 1 ? w->stride[0] : in;
    cuda_product p = {call.padded, out, in, SW_F8_E4M3, SW_F32, space, w->data, in, ld, out, false, true, sum, NULL, 1, 0, SW_ACT_NONE,
                      NULL, 0};
    const float *by_column = w->scales ? w->scales->at : NULL;
    if (w->scales) { /* those of its matrix, or of its first row of blocks */
        int64_t column;
        by_column = sw_scales_at(w->scales, w->data, &column) - (way == BY_ROWS ? first / w->scales->high * w->scales->line : 0);
    }
    if (way == BY_BLOCKS)
        p.a_scales = call.scales, p.b_scales = by_column;
    int rc = cuda_multiply(s, &p);
    if (rc == CUDA_NO_ALGORITHM)
        return cuda_linear_fwd(s, y, x, w, bias, alpha, beta);
    if (rc)
        return -1;
    const sw_tensor *t[] = {y};
    finish_run f = {{}, {bias ? bias->data : NULL, bias ? (int)bias->dtype : 0, {}}, sum, NULL, NULL, out, first, 1, 1, (float)alpha,
                    (float)beta};
    if (way == BY_ROWS) {
        f.by_row = call.scales;
        f.by_column = by_column;
        f.high = w->scales ? w->scales->high : 1;
        f.line = w->scales ? w->scales->line : 1;
    }
    rows_shape g = cuda_rows(&f.y, t, 1, true);
    return cuda_map(s, g, f, "linear");
}

int cuda_linear_act_rounded(sw_stream *s, sw_tensor *y, sw_tensor *before, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, int kind)
{
    if (way_of(s, w) == EXACTLY)
        return cuda_linear_act_fwd(s, y, before, x, w, bias, kind);
    sw_tensor *z = before ? before : y;
    return cuda_linear_rounded(s, z, x, w, bias, 1, 0) || cuda_act_fwd(s, y, z, kind) ? -1 : 0;
}
