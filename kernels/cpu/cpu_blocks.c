/* Values out of quantised blocks, as kernels/blocks.c defines them bit for bit, in vectors. Built without contraction
 * (kernels.mk): a fused multiply-add would round once where the definition rounds twice. */
#include "cpu_levels.h"
#include "cpu_linear.h"
#include "kernels/blocks.h"

#include "base/memory.h"

#define SW_ANY __attribute__((always_inline)) static inline
#define SW_TABLE static const
#define SW_HALF sw_half_at
#include "kernels/codebooks.h"

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

/* y = levels * d, or levels * d + min. */
static inline void scaled(float *y, sw_levels q, float d)
{
    float v[16];
    widen(v, q);
    for (int i = 0; i < 16; i++)
        y[i] = v[i] * d;
}
static inline void shifted(float *y, sw_levels q, float d, float min)
{
    float v[16];
    widen(v, q);
    for (int i = 0; i < 16; i++)
        y[i] = v[i] * d + min;
}

/* Entries of a table of 16. */
static inline sw_levels looked_up(const int8_t *table, sw_bytes q)
{
#if defined(__SSSE3__)
    return (sw_levels)_mm_shuffle_epi8((__m128i)sw_bytes_at((const uint8_t *)table), (__m128i)q);
#else
    sw_levels v;
    for (int i = 0; i < 16; i++)
        v[i] = table[q[i]];
    return v;
#endif
}
static inline void nibbles(float *y, const int8_t *table, const uint8_t *qs, float d)
{
    sw_bytes q = sw_bytes_at(qs);
    scaled(y, looked_up(table, q & 15), d);
    scaled(y + 16, looked_up(table, q >> 4), d);
}
static inline void iq4_nl(float *y, const uint8_t *b) { nibbles(y, sw_levels_iq4, b + 2, sw_half_at(b)); }
static inline void mxfp4(float *y, const uint8_t *b) { nibbles(y, sw_levels_e2m1, b + 1, sw_code_e8m0(b[0])); }
static inline void iq4_xs(float *y, const uint8_t *b)
{
    float d = sw_half_at(b);
    for (int g = 0; g < 8; g++) {
        int scale = (b[4 + g / 2] >> g % 2 * 4 & 15) | (int)(sw_code_u16(b + 2) >> 2 * g & 3) << 4;
        nibbles(y + g * 32, sw_levels_iq4, b + 8 + g * 16, d * (float)(scale - 32));
    }
}

static inline void q2_k(float *y, const uint8_t *b)
{
    float d = sw_half_at(b + 80), dmin = sw_half_at(b + 82);
    for (int g = 0; g < 16; g++) {
        sw_bytes q = sw_bytes_at(b + 16 + g / 8 * 32 + g % 2 * 16) >> (uint8_t)(g / 2 % 4 * 2) & 3;
        shifted(y + g * 16, (sw_levels)q, d * (float)(b[g] & 15), -(dmin * (float)(b[g] >> 4)));
    }
}
static inline void q3_k(float *y, const uint8_t *b)
{
    const uint8_t *s = b + 96;
    float d = sw_half_at(b + 108);
    for (int g = 0; g < 16; g++) {
        int scale = (s[g % 8] >> g / 8 * 4 & 15) | (s[8 + g % 4] >> g / 4 * 2 & 3) << 4;
        sw_bytes q = sw_bytes_at(b + 32 + g / 8 * 32 + g % 2 * 16) >> (uint8_t)(g / 2 % 4 * 2) & 3;
        sw_bytes high = sw_bytes_at(b + g % 2 * 16) >> (uint8_t)(g / 2) & 1;
        scaled(y + g * 16, (sw_levels)(q | high << 2) - 4, d * (float)(scale - 32));
    }
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
        SW_LEVEL_TYPES(CASE)
#undef CASE
#define CASE(type, decode)                                                                                             \
    case type:                                                                                                         \
        for (int64_t i = 0; i < n; i += sw_block_values(type), b += sw_block_bytes(type))                              \
            decode(dst + i, b);                                                                                        \
        return;
        CASE(SW_IQ4_NL, iq4_nl)
        CASE(SW_MXFP4, mxfp4)
        CASE(SW_Q2_K, q2_k)
        CASE(SW_Q3_K, q3_k)
        CASE(SW_IQ4_XS, iq4_xs)
#undef CASE
#define CASE(type)                                                                                                     \
    case type:                                                                                                         \
        for (int64_t i = 0; i < n; i += 256, b += sw_block_bytes(type))                                                \
            for (int j = 0; j < 256; j += 8)                                                                           \
                sw_codebook_eight(dst + i + j, b, type, j);                                                            \
        return;
        CASE(SW_IQ1_S)
        CASE(SW_IQ1_M)
        CASE(SW_IQ2_XXS)
        CASE(SW_IQ2_XS)
        CASE(SW_IQ2_S)
        CASE(SW_IQ3_XXS)
        CASE(SW_IQ3_S)
        CASE(SW_TQ2_0)
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
