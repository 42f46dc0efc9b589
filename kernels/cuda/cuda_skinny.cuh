/* Products of a matrix of many rows and columns with one of few columns, LoRA's: time goes into reading the large one, which
 * cuBLASLt does for each product. Here it is read once for both that the way back asks of it: dt = dy b and db += dy^T t. */
#ifndef SW_CUDA_SKINNY_CUH
#define SW_CUDA_SKINNY_CUH

#include "cuda_common.cuh"

enum { SKINNY_MOST = 64 }; /* of rank */

/* x [rows, wide] is of a 16-bit type, as w and t are; distances of rows in values.
 * y [rows, rank] = y_alpha x w, of x's type or f32; w is stored [wide, rank], or with w_turned [rank, wide]. y NULL: not asked for.
 * g += g_alpha x^T t, f32 [wide, rank], or with g_turned [rank, wide]; t [rows, rank]. g NULL: not asked for. */
struct cuda_skinny {
    int64_t rows, wide;
    int rank, type;
    const void *x;
    int64_t x_ld;
    void *y;
    int y_type;
    int64_t y_ld;
    float y_alpha;
    const void *w;
    int64_t w_ld;
    bool w_turned;
    float *g;
    int64_t g_ld;
    float g_alpha;
    bool g_turned;
    const void *t;
    int64_t t_ld;
};
/* What linear_fwd, linear_bwd_x and linear_bwd_w are asked for, as such a product. False where it is none, or none that is worth it. */
bool cuda_skinny_forward(const sw_stream *s, const sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias,
                         double alpha, double beta, cuda_skinny *p);
bool cuda_skinny_back_x(const sw_stream *s, const sw_tensor *dx, const sw_tensor *dy, const sw_tensor *w, double alpha, double beta,
                        cuda_skinny *p);
bool cuda_skinny_back_w(const sw_stream *s, const sw_tensor *dw, const sw_tensor *dy, const sw_tensor *x, double alpha, cuda_skinny *p);
/* p also does what q asks for. False where they read different matrices, or it is too much for one kernel. */
bool cuda_skinny_join(cuda_skinny *p, const cuda_skinny *q);
int cuda_skinny_multiply(sw_stream *s, const cuda_skinny *p);

#endif
