/* Neighbours among calls that one kernel can do: a decoded token's kernels read a few MB, 1 to 40 us each, and between one and
 * the next the GPU is idle for 1 to 2 us. What comes out are the bits that the calls give one by one. */
#ifndef SW_CUDA_FUSE_CUH
#define SW_CUDA_FUSE_CUH

#include "cuda_steps.cuh"

#include <memory>

/* Launches what the first calls of n ask for where one kernel can do two of them or more. How many it has done; 0: none; -1. */
int cuda_fuse(sw_stream *s, const std::unique_ptr<cuda_call> *calls, size_t n);

/* Whether one of n calls is a product of few rows whose weights go through shared memory (cuda_few.cu). */
bool cuda_fills_shared(const std::unique_ptr<cuda_call> *calls, size_t n);

/* y = x w^T + bias (or NULL) */
struct cuda_linear {
    sw_tensor *y;
    const sw_tensor *x, *w, *bias;
};
enum { CUDA_TOGETHER = 3 };
/* n products, up to CUDA_TOGETHER, of the same few rows by matrices of one type whose rows are as far apart; results of one type, and
 * biases of one. gated: NULL, or of two products of one shape, act(of[0].y) * of[1].y, kind SiLU or GELU by tanh. */
int cuda_linear_together(sw_stream *s, const cuda_linear *of, int n, sw_tensor *gated, int kind);
/* y = the norm of x, as rmsnorm_fwd, or where it is `centred` layernorm_fwd, says. */
struct cuda_norm {
    bool centred;
    sw_tensor *y, *mean, *rstd;
    const sw_tensor *x, *w, *bias;
    double eps, offset;
};
/* n->x = a + b, and its norm, for tensors of one shape [..., D] and float type. */
int cuda_add_norm(sw_stream *s, const cuda_norm *n, const sw_tensor *a, const sw_tensor *b);
/* Two calls of rope for the same tokens and widths; two of scatter_rows without acc by the same ids. */
struct cuda_moved {
    sw_tensor *y;
    const sw_tensor *x;
};
int cuda_rope_two(sw_stream *s, const cuda_moved of[2], const sw_tensor *cos, const sw_tensor *sin, int mode, int inverse);
int cuda_scatter_two(sw_stream *s, const cuda_moved of[2], const sw_tensor *ids);

#endif
