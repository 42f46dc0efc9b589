/* Values out of quantised blocks. */
#include "cpu_linear.h"
#include "kernels/blocks.h"

#include "base/memory.h"

void SW_CPU(dequantise)(float *dst, const void *src, sw_dtype t, int64_t n)
{
    if (sw_block_decode(dst, src, t, n))
        memset(dst, 0xff, (size_t)n * sizeof *dst); /* no such type: NaN */
}

void SW_CPU(dequantise_bf16)(uint16_t *dst, const void *src, sw_dtype t, int64_t n)
{
    float buf[SW_RUN];
    for (int64_t i = 0; i < n; i += SW_RUN) {
        int64_t m = SW_MIN(SW_RUN, n - i);
        SW_CPU(dequantise)(buf, (const char *)src + sw_dtype_bytes(t, i), t, m);
        sw_narrow_bf16(dst + i, buf, m);
    }
}
