/* Matrix products of oneDNN for the CPU's kernels: primitives are made once a shape and kept. Safe from any thread. */
#ifndef SW_KERNELS_CPU_GEMM_H
#define SW_KERNELS_CPU_GEMM_H

#include "kernels/kernels.h"

/* Element (r, c) lies at data[r * row + c * column]; one of the two strides is 1. */
typedef struct sw_gemm_operand {
    const void *data;
    int64_t row, column;
} sw_gemm_operand;

typedef struct sw_gemm {
    int64_t m, n, k;
    sw_dtype type; /* of a and b: f32, or bf16 where the processor multiplies it */
    sw_gemm_operand a, b;
    void *c; /* [m, n], rows c_row apart */
    sw_dtype c_type; /* f32, or bf16 for products of bf16 */
    int64_t c_row;
    const float *bias; /* [n] or NULL */
    float alpha, beta;
    bool relu;
} sw_gemm;

/* c = alpha (a b + bias) + beta c; with relu what is below 0 becomes 0. m, n, k > 0. */
int sw_cpu_gemm(const sw_gemm *g) SW_MUST_CHECK;

#endif
