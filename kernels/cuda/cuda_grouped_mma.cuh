/* Products of rows in groups by tensor cores: what a block does, and what its warps do with it. */
#ifndef SW_CUDA_GROUPED_MMA_CUH
#define SW_CUDA_GROUPED_MMA_CUH

#include "cuda_grouped.cuh"
#include "cuda_mma.cuh"
#include "cuda_products.cuh"

enum form { FORWARD, BACK_X, BACK_W }; /* w [n, k], w [k, n], rows on both sides */

struct grouped_call {
    cuda_product all; /* a: all rows; b: rows of x (BACK_W); c: all rows of the result */
    group_list groups; /* of w, or of its gradient */
    int64_t bias_step;
};

__device__ static inline const void *row_of(const void *p, int type, int64_t row, int64_t ld)
{
    return (const char *)p + row * ld * (type == SW_F32 ? 4 : 2);
}

/* What this block does: the product of its group, from a row and a column on. */
template <int FORM> __device__ static inline bool locate(const grouped_call &p, int rows, cuda_product *q, int64_t *row)
{
    *q = p.all;
    if (FORM == BACK_W) {
        int64_t tiles = (p.all.m + rows - 1) / rows, g = blockIdx.x / tiles, first = p.groups.start[g];
        *row = blockIdx.x % tiles * rows;
        q->k = p.groups.start[g + 1] - first;
        q->a = row_of(q->a, q->type, first, q->a_ld);
        q->b = row_of(q->b, q->b_type, first, q->b_ld);
        q->c = (void *)(uintptr_t)p.groups.matrix(g);
        return q->k > 0;
    }
    group_tile t;
    if (!find_group_tile(p.groups, rows, blockIdx.x, &t))
        return false;
    *row = 0;
    q->m = t.n;
    q->a = row_of(q->a, q->type, t.first, q->a_ld);
    q->c = (void *)(uintptr_t)row_of(q->c, q->c_type, t.first, q->c_ld);
    if (t.group == p.groups.count) { /* of no group */
        q->k = 0;
        q->bias = NULL;
        return true;
    }
    q->b = p.groups.matrix(t.group);
    q->scales = p.groups.scales(t.group, q->scales);
    if (q->bias)
        q->bias = row_of(q->bias, q->bias_type, t.group, p.bias_step);
    return true;
}

/* A block has so many columns of the result, and takes so much of what is summed over at once. */
enum { GROUPED_COLUMNS = 128, GROUPED_DEPTH = 64 };

/* c += a b over GROUPED_DEPTH: a [32 of m, k], or turned [k, m]; b [64 of n, k], or turned [k, n]. */
template <bool BF16, bool A_TURNED, bool B_TURNED, int A_STRIDE, int B_STRIDE>
__device__ static inline void multiply_block(float (&c)[2][8][4], const uint16_t *a, const uint16_t *b)
{
    int lane = (int)threadIdx.x % 32, low = lane % 8, second = lane / 8 % 2 * 8, upper = lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < GROUPED_DEPTH; k += 16) {
        unsigned x[2][4], y[4];
#pragma unroll
        for (int i = 0; i < 2; i++)
            load_matrices<A_TURNED>(x[i], A_TURNED ? a + (k + upper + low) * A_STRIDE + i * 16 + second : a + (i * 16 + second + low) * A_STRIDE + k + upper);
#pragma unroll
        for (int n = 0; n < 8; n += 2) {
            load_matrices<B_TURNED>(y, B_TURNED ? b + (k + second + low) * B_STRIDE + n * 8 + upper : b + (n * 8 + upper + low) * B_STRIDE + k + second);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                mma<BF16>(c[i][n], x[i], y[0], y[1]);
                mma<BF16>(c[i][n + 1], x[i], y[2], y[3]);
            }
        }
    }
}

/* The product of a form where both sides are of one 16-bit type in whole runs of 16 bytes (cuda_grouped_runs.cu). m: the matrices of
 * p->groups; average: rows of a group. GROUPED_NONE: they are not; nothing is done. */
enum { GROUPED_NONE = 1 };
int cuda_grouped_runs(sw_stream *s, const grouped_call *p, int form, const sw_matrices *m, int64_t average);

#endif
