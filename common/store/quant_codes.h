/* Writing the types whose levels are few and fixed: 4-bit floats under a power of two (MXFP4), ternary values (TQ1_0, TQ2_0),
 * one and two bits (Q1_0, Q2_0). Used by store/quant.c. */
#ifndef SW_STORE_QUANT_CODES_H
#define SW_STORE_QUANT_CODES_H

#include "base/error.h"
#include "kernels/tensor.h"

/* Each |src| below 2^100, n whole blocks. Without importance the bytes of ggml; with importance [n] the scale of least weighted
 * error. */
int sw_quantise_codes(void *dst, sw_dtype dtype, const float *src, int64_t n, const float *importance) SW_MUST_CHECK;

#endif
