/* Products of few rows, and values out of quantised blocks: shared by cpu_linear*.c and cpu_blocks.c. */
#ifndef SW_KERNELS_CPU_LINEAR_H
#define SW_KERNELS_CPU_LINEAR_H

#include "cpu_isa.h"

/* Up to so many rows of x, reading the weights sets the time. */
enum { SW_FEW_ROWS = 8 };

/* y = alpha x w^T + bias + beta y for N <= SW_FEW_ROWS. */
int SW_CPU(linear_few)(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, float alpha,
                       float beta);
void SW_CPU(dequantise_bf16)(uint16_t *dst, const void *src, sw_dtype t, int64_t n);

#endif
