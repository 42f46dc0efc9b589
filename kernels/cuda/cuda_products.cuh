/* Matrix products by cuBLASLt, and the plain kernel that stands in where it has no algorithm. */
#ifndef SW_CUDA_PRODUCTS_CUH
#define SW_CUDA_PRODUCTS_CUH

#include "cuda_blocks.cuh"

/* c [m, n] = alpha op(a) op(b) + bias + beta c; rows side by side, ld values apart. a is stored [m, k], or [k, m] when
 * a_turned; b [k, n], or [n, k] when b_turned. a and b are of one type, c of the same or f32. bias [n] of c's type or
 * NULL. Sums are f32.
 * Of e4m3, which cuda_linear_rounded multiplies: k and n are multiples of 16, addresses and rows of whole 16 bytes, b is turned and
 * a is not. With a_scales, values of a are multiplied by a_scales[k / 128 * m + i] (row i), those of b by one a block of 128 x 128,
 * whose rows are filled up to a multiple of 4; m is one, too. */
struct cuda_product {
    int64_t m, n, k;
    int type, c_type;
    const void *a, *b;
    int64_t a_ld, b_ld, c_ld;
    bool a_turned, b_turned;
    void *c;
    const void *bias;
    float alpha, beta;
    int act;      /* enum sw_act, over all that; SW_ACT_NONE: none */
    void *before; /* [m, n] of c's type: takes what act is given; or NULL */
    int64_t before_ld;
    const float *a_scales = NULL, *b_scales = NULL;
    int b_type = SW_F32, bias_type = SW_F32; /* of plain_tile: those of b and the bias; there `type` is a's */
    scales_of scales = {};                   /* and these are b's */
};
/* 0, -1, or CUDA_NO_ALGORITHM where cuBLASLt has not that act, or cannot multiply e4m3: nothing is done. */
enum { CUDA_NO_ALGORITHM = 1 };
int cuda_multiply(sw_stream *s, const cuda_product *p);
/* The kernels linear_fwd and linear_act_fwd of the device's table `rounding`. */
int cuda_linear_act_rounded(sw_stream *s, sw_tensor *y, sw_tensor *before, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, int kind);
int cuda_linear_rounded(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, double alpha, double beta);

/* Few rows of x: the weights are read once, as they are stored (cuda_few.cu). */
enum { CUDA_FEW_ROWS = 8 };
static inline bool cuda_few_rows(int64_t rows, const sw_tensor *w)
{
    return rows > 0 && rows <= (sw_is_quantised(w->dtype) || sw_is_float8(w->dtype) ? (int)CUDA_FEW_ROWS : 4);
}
int cuda_linear_few(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, float alpha, float beta);
/* The same for rows in groups, of which a group should have few. */
int cuda_grouped_few(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_matrices *w, const sw_tensor *bias,
                     const sw_tensor *start, float alpha, float beta);

/* 64 x 64 of c, from a row and a column on: 256 threads, 4 x 4 each, in f32. BLOCKS: b may be of any type. */
enum { PLAIN_TILE = 64 };
template <bool BLOCKS> __device__ static inline void plain_tile(const cuda_product &p, int64_t row, int64_t column)
{
    enum { DEPTH = 16, WIDE = PLAIN_TILE / RUN, DEEP = DEPTH / RUN };
    __shared__ float a[DEPTH][PLAIN_TILE + 4], b[DEPTH][PLAIN_TILE + 4];
    int tx = (int)threadIdx.x % 16, ty = (int)threadIdx.x / 16;
    float sum[4][4] = {{0}};
    for (int64_t k = 0; k < p.k; k += DEPTH) {
        /* a run along memory a thread: half of them load a, half b */
        bool left = threadIdx.x < 128, along = left ? !p.a_turned : p.b_turned; /* runs of k, or of rows (columns) at one k */
        int i = (int)threadIdx.x % 128, line = along ? i / DEEP : i % WIDE * RUN, d = along ? i % DEEP * RUN : i / WIDE;
        int64_t at = (left ? row : column) + line, most = left ? p.m : p.n, ld = left ? p.a_ld : p.b_ld;
        int64_t have = along ? (at < most ? p.k - k - d : 0) : (k + d < p.k ? most - at : 0);
        float v[RUN] = {0};
        int64_t from = along ? at * ld + k + d : (k + d) * ld + at;
        if (have > 0 && BLOCKS && !left)
            load_any(v, p.b, p.b_type, from, have < RUN ? (int)have : (int)RUN, p.scales);
        else if (have > 0)
            load_run(v, left ? p.a : p.b, left ? p.type : p.b_type, from, have < RUN ? (int)have : (int)RUN);
#pragma unroll
        for (int q = 0; q < RUN; q++)
            (left ? a : b)[along ? d + q : d][along ? line : line + q] = v[q];
        __syncthreads();
#pragma unroll
        for (int e = 0; e < DEPTH; e++)
#pragma unroll
            for (int r = 0; r < 4; r++)
#pragma unroll
                for (int c = 0; c < 4; c++)
                    sum[r][c] += a[e][ty * 4 + r] * b[e][tx * 4 + c];
        __syncthreads();
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            int64_t r = row + ty * 4 + i, c = column + tx * 4 + j, at = r * p.c_ld + c;
            if (r >= p.m || c >= p.n)
                continue;
            float v = p.alpha * sum[i][j] + (p.bias ? value_of(p.bias, p.bias_type, c) : 0);
            set_value(p.c, p.c_type, at, p.beta != 0 ? v + p.beta * value_of(p.c, p.c_type, at) : v);
        }
}

#endif
