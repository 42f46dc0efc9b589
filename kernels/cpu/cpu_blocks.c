/* Values out of quantised blocks, as kernels/blocks.c defines them bit for bit, in vectors. Built without contraction
 * (kernels.mk): a fused multiply-add would round once where the definition rounds twice. */
#include "cpu_levels.h"
#include "cpu_linear.h"
#include "kernels/blocks.h"

#include "base/memory.h"

/* y = levels as f32. Compilers take the plain conversion apart into single values. */
static inline void widen(float *y, sw_levels q)
{
#if defined(__AVX512F__)
    _mm512_storeu_ps(y, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32((__m128i)q)));
#elif defined(__AVX2__)
    _mm256_storeu_ps(y, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32((__m128i)q)));
    _mm256_storeu_ps(y + 8, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64((__m128i)q, (__m128i)q))));
#else
    for (int i = 0; i < 16; i++)
        y[i] = (float)q[i];
#endif
}

/* One block, of a type that is a constant. */
__attribute__((always_inline)) static inline void decode(float *y, const uint8_t *b, sw_dtype t)
{
    float scale[16], min[8];
    sw_block_scales(scale, min, t, b);
#pragma GCC unroll 8
    for (int g = 0; g < sw_block_values(t) / SW_LEVEL_RUN; g++) {
        sw_levels q[2];
        sw_run_levels(q, t, b, g);
        for (int half = 0; half < 2; half++) {
            float v[16], *to = y + g * SW_LEVEL_RUN + half * 16, d = scale[2 * g + half];
            widen(v, q[half]);
            for (int i = 0; i < 16; i++)
                to[i] = sw_levels_have_min(t) ? v[i] * d + min[g] : v[i] * d;
        }
    }
}

void SW_CPU(dequantise)(float *dst, const void *src, sw_dtype t, int64_t n)
{
    const uint8_t *b = src;
    switch (t) {
#define CASE(type)                                                                                                     \
    case type:                                                                                                         \
        for (int64_t i = 0; i < n; i += sw_block_values(type), b += sw_block_bytes(type))                              \
            decode(dst + i, b, type);                                                                                  \
        return;
        CASE(SW_Q4_0)
        CASE(SW_Q4_1)
        CASE(SW_Q5_0)
        CASE(SW_Q5_1)
        CASE(SW_Q8_0)
        CASE(SW_Q4_K)
        CASE(SW_Q5_K)
        CASE(SW_Q6_K)
#undef CASE
    default:
        if (sw_block_decode(dst, src, t, n))
            memset(dst, 0xff, (size_t)n * sizeof *dst); /* no such type: NaN */
    }
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
