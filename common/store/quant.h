/* Block-quantised types: reading values out of them and writing values into them, on the host, one row at a time.
 * Layouts are GGUF's (llama.cpp, ggml-common.h, block_q*). Devices have their own kernels for products; these are
 * the definition. */
#ifndef SW_STORE_QUANT_H
#define SW_STORE_QUANT_H

#include "base/error.h"
#include "kernels/tensor.h"

/* dst[0..n) = values of src, n values of any dtype that SW_DTYPES lists (n a multiple of its block). */
int sw_dequantise(float *dst, const void *src, sw_dtype dtype, int64_t n) SW_MUST_CHECK;
/* dst = n values of src as dtype. importance: per-column weights of the squared error [n], or NULL.
 * Without importance Q4_0..Q8_0, MXFP4, TQ1_0, TQ2_0, Q1_0, Q2_0, F16 and BF16 give the bytes of ggml; K and IQ types, and with importance all
 * block types, search the scales by weighted least squares. Types that are only read are an error, as sw_is_written says. Values that a type cannot hold are an error: too large ones, and in block
 * types NaN and infinite ones. */
int sw_quantise(void *dst, sw_dtype dtype, const float *src, int64_t n, const float *importance) SW_MUST_CHECK;
bool sw_is_written(sw_dtype dtype);
/* SW_DTYPE_COUNT when there is none of that name ("q4_0", "BF16", "F8_E4M3"; case does not matter). */
sw_dtype sw_dtype_by_name(const char *name);
sw_dtype sw_dtype_by_gguf(int type);

#endif
