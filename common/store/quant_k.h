/* Writing the K types: 256 values in 16 or 8 groups, each with a small integer scale (and minimum) under the block's own
 * half-precision ones. n is a multiple of 256. Used by store/quant.c. */
#ifndef SW_STORE_QUANT_K_H
#define SW_STORE_QUANT_K_H

#include "base/error.h"
#include "kernels/tensor.h"

/* Each |src| below 2^100. importance: [n] or NULL. */
int sw_quantise_k(void *dst, sw_dtype dtype, const float *src, int64_t n, const float *importance) SW_MUST_CHECK;

/* The same search for one block of 32, src[at..at+32), with levels lo..hi: value = scale * q - min, both as half precision
 * holds them. Without with_min min is 0. */
int sw_search_32(const float *src, int64_t at, const float *importance, int lo, int hi, bool with_min, float *scale, float *min,
                 int q[32]) SW_MUST_CHECK;

#endif
