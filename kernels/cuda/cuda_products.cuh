/* Matrix products by cuBLASLt, and the plain kernel that stands in where it has no algorithm. */
#ifndef SW_CUDA_PRODUCTS_CUH
#define SW_CUDA_PRODUCTS_CUH

#include "cuda_common.cuh"

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
};
/* 0, -1, or CUDA_NO_ALGORITHM where cuBLASLt has not that act, or cannot multiply e4m3: nothing is done. */
enum { CUDA_NO_ALGORITHM = 1 };
int cuda_multiply(sw_stream *s, const cuda_product *p);
/* The kernels linear_fwd and linear_act_fwd of the device's table `rounding`. */
int cuda_linear_act_rounded(sw_stream *s, sw_tensor *y, sw_tensor *before, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, int kind);
int cuda_linear_rounded(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, double alpha, double beta);

/* Few rows of x: the weights are read once, as they are stored (cuda_few.cu). */
enum { CUDA_FEW_ROWS = 8 };
int cuda_linear_few(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, float alpha, float beta);

#endif
