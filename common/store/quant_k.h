/* Writing the K types and IQ4_XS: 256 values in 16 or 8 groups, each with a small integer scale (and minimum) under the block's own
 * half-precision ones. n is a multiple of 256. Used by store/quant.c. */
#ifndef SW_STORE_QUANT_K_H
#define SW_STORE_QUANT_K_H

#include "base/error.h"
#include "kernels/tensor.h"

/* Each |src| below 2^100. importance: [n] or NULL. */
int sw_quantise_k(void *dst, sw_dtype dtype, const float *src, int64_t n, const float *importance) SW_MUST_CHECK;

/* The same search for one block of 32, src[at..at+32), of Q4_0 to Q8_0 or IQ4_NL: value = scale * q - min, both as half
 * precision holds them; min is 0 where the type has none. q are levels around 0 or from 0, of IQ4_NL their numbers. */
int sw_search_32(sw_dtype dtype, const float *src, int64_t at, const float *importance, float *scale, float *min, int q[32]) SW_MUST_CHECK;

/* w[0..n) = weights of columns at .. at+n-1 with a mean of 1 (importance NULL: all 1): their common scale plays no part, and a
 * group without weight still gets sensible levels. Negative or infinite importance is an error. */
int sw_quant_weights(float *w, const float *importance, int n, int64_t at) SW_MUST_CHECK;

#endif
