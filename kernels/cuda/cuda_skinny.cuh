/* Products of LoRA's, of which one side has few columns. From a large matrix to a small one (a shrink): time goes into reading the
 * large one, which cuBLASLt does for each product; here it is read once for both that the way back asks of it, dt = dy b and
 * db += dy^T t. From a small one to a large one (an expand): into writing it. */
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

/* y [rows, wide] = alpha t w, all of one 16-bit type; t [rows, rank], w is stored [rank, wide], or with w_turned [wide, rank]. */
struct cuda_expand {
    int64_t rows, wide;
    int rank, type;
    const void *t;
    int64_t t_ld;
    const void *w;
    int64_t w_ld;
    bool w_turned;
    void *y;
    int64_t y_ld;
    float alpha;
};
/* Of linear_fwd (turned) and linear_bwd_x. */
bool cuda_expands(const sw_stream *s, const sw_tensor *y, const sw_tensor *t, const sw_tensor *w, const sw_tensor *bias, bool turned, double alpha,
                  double beta, cuda_expand *p);
int cuda_expand_multiply(sw_stream *s, const cuda_expand *p);

/* A matrix whose rows are whole runs of 16 bytes at multiples of them, in a 16-bit type. */
static inline bool cuda_in_runs(const sw_tensor *t)
{
    return t->ndim == 2 && t->shape[1] % 8 == 0 && t->stride[1] == 1 && (uintptr_t)t->data % 16 == 0 &&
           (t->shape[0] <= 1 || (t->stride[0] % 8 == 0 && t->stride[0] >= t->shape[1]));
}
/* Ranks and sizes from which on these kernels are better. */
static inline bool cuda_skinny_sizes(const sw_stream *s, int64_t rows, int64_t wide, int64_t rank, sw_dtype type)
{
    return s->capability >= 80 && (type == SW_BF16 || type == SW_F16) && rank >= 8 && rank <= SKINNY_MOST && rank % 8 == 0 && rows >= 256 &&
           wide >= 128 && wide >= 2 * rank;
}

#endif
