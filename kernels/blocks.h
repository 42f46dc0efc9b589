/* Values out of rows of any stored type: the definition of the block-quantised layouts (GGUF's: ggml-common.h,
 * block_q*). store/quant.h writes them; devices with faster readers agree with this one bit for bit. */
#ifndef SW_KERNELS_BLOCKS_H
#define SW_KERNELS_BLOCKS_H

#include "base/error.h"
#include "kernels/tensor.h"

/* dst[0..n) = the n values of src, of any type that SW_DTYPES lists. n is a multiple of the block size: anything else,
 * or an unknown type, is an error. src need not be aligned for the quantised types. */
int sw_block_decode(float *dst, const void *src, sw_dtype t, int64_t n) SW_MUST_CHECK;

#endif
