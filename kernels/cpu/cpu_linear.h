/* Products of few rows, and values out of quantised blocks: shared by cpu_linear*.c and cpu_blocks.c. */
#ifndef SW_KERNELS_CPU_LINEAR_H
#define SW_KERNELS_CPU_LINEAR_H

#include "cpu_isa.h"

/* Up to so many rows of x, reading the weights sets the time. */
enum { SW_FEW_ROWS = 8 };

/* y = alpha x w^T + bias + beta y for N <= SW_FEW_ROWS. */
int SW_CPU(linear_few)(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias,
                       float alpha, float beta);

/* The kernel linear_fwd of a device's table `rounding` (kernels.h): where w is of a type with levels (cpu_levels.h),
 * rows of x are rounded, and each gives the same however many there are; else linear_fwd. */
int SW_CPU(linear_rounded)(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias,
                           double alpha, double beta);

int SW_CPU(linear_act_rounded)(sw_stream *s, sw_tensor *y, sw_tensor *before, const sw_tensor *x, const sw_tensor *w,
                               const sw_tensor *bias, int kind);
/* The kernel grouped_fwd of that table. */
int SW_CPU(grouped_rounded)(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_matrices *w, const sw_tensor *bias,
                            const sw_tensor *start, double alpha, double beta);

/* Rows of x rounded to whole numbers of at most 32512 in size, times a scale for every 32 of them (the largest of them
 * / 32512), laid out for weights of one type, `line` bytes apart. */
typedef struct sw_rounded_rows {
    const void *at;
    size_t line;
    bool shared; /* laid out for several rows that share what is read of the weights */
} sw_rounded_rows;

/* Space that rounded_rows fills, or 0 where weights of type w have no levels. */
size_t SW_CPU(rounded_bytes)(const sw_tensor *x, sw_dtype w);
sw_rounded_rows SW_CPU(rounded_rows)(void *space, const sw_tensor *x, sw_dtype w);
/* As pair_dots: the products of levels are summed exactly, a block of 32 (of 16 for Q6_K) at a time, then scaled. */
void SW_CPU(rounded_dots)(sw_vec *lane, int64_t rows, const sw_rounded_rows *x, const void *w, size_t w_line,
                          int64_t count, sw_dtype type, int64_t in);

/* Rows of bf16 laid out for products of pairs with weights of one type: padded with zeros to `line` values (a multiple
 * of SW_RUN), and the sums of every 32 of them, `sums_line` (line / 32) a row, which the minima of blocks are
 * multiplied with. */
typedef struct sw_pair_rows {
    const uint16_t *x;
    const float *sums;
    int64_t line, sums_line;
} sw_pair_rows;

/* Space that pair_rows fills, or 0 where x and weights w cannot be multiplied so (wrong types, no SW_HAS_BF16_DOT, or scales of
 * blocks that float8_pairs says no to). */
size_t SW_CPU(pair_bytes)(const sw_tensor *x, const sw_tensor *w);
sw_pair_rows SW_CPU(pair_rows)(void *space, const sw_tensor *x, sw_dtype w);
/* lane[r * SW_LANES + o]: a vector whose lanes add up to x[r] . w[o], for `count` (SW_LANES at most) rows of w, w_line
 * bytes apart, each n values of bf16 or a quantised type. Levels are multiplied as they are (they are whole numbers of
 * at most 8 bits: exact in bf16) and scaled a block at a time. */
void SW_CPU(pair_dots)(sw_vec *lane, int64_t rows, const sw_pair_rows *x, const void *w, size_t w_line, int64_t count,
                       sw_dtype type, int64_t n);

/* The same for rows [first, first + count) of w, of 8-bit floats: they are exact in bf16, and each 128 products have one scale. */
void SW_CPU(float8_dots)(sw_vec *lane, int64_t rows, const sw_pair_rows *x, const sw_tensor *w, int64_t first, int64_t count);
bool SW_CPU(float8_pairs)(const sw_tensor *w);

void SW_CPU(dequantise_bf16)(uint16_t *dst, const void *src, sw_dtype t, int64_t n);

#endif
