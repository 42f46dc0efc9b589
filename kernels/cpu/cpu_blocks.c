/* Values out of quantised blocks, as kernels/blocks.c defines them bit for bit, in vectors. Built without contraction (kernels.mk): a fused multiply-add would round once where the definition rounds twice. */
#include "cpu_linear.h"
#include "kernels/blocks.h"

#include "base/memory.h"

typedef uint8_t byte;

static inline float half_at(const byte *p)
{
#if defined(__F16C__)
    uint16_t h;
    memcpy(&h, p, 2);
    return _cvtsh_ss(h);
#else
    uint16_t h;
    memcpy(&h, p, 2);
    return sw_f16_to_f32(h);
#endif
}

/* Sixteen levels at a time. */
typedef int8_t levels __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint8_t bytes __attribute__((vector_size(16), aligned(1), may_alias));

static inline bytes load(const byte *p) { return *(const bytes *)p; }

/* y = levels as f32. Compilers take the plain conversion apart into single values. */
static inline void widen(float *y, levels q)
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

/* y = level * d, or level * d + min. */
static inline void scaled(float *y, levels q, float d)
{
    float v[16];
    widen(v, q);
    for (int i = 0; i < 16; i++)
        y[i] = v[i] * d;
}
static inline void shifted(float *y, levels q, float d, float min)
{
    float v[16];
    widen(v, q);
    for (int i = 0; i < 16; i++)
        y[i] = v[i] * d + min;
}

/* Bits i of h, eight bytes alike and then the next eight, as 16 where set: the fifth bits of 16 levels. */
static inline bytes fifth(const byte *h)
{
    static const bytes bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    bytes at = {h[0], h[0], h[0], h[0], h[0], h[0], h[0], h[0], h[1], h[1], h[1], h[1], h[1], h[1], h[1], h[1]};
    return (bytes)((at & bit) != 0) & 16;
}

static inline void q4_0(float *y, const byte *b)
{
    bytes q = load(b + 2);
    float d = half_at(b);
    scaled(y, (levels)(q & 15) - 8, d);
    scaled(y + 16, (levels)(q >> 4) - 8, d);
}
static inline void q4_1(float *y, const byte *b)
{
    bytes q = load(b + 4);
    float d = half_at(b), min = half_at(b + 2);
    shifted(y, (levels)(q & 15), d, min);
    shifted(y + 16, (levels)(q >> 4), d, min);
}
static inline void q5_0(float *y, const byte *b)
{
    bytes q = load(b + 6);
    float d = half_at(b);
    scaled(y, (levels)((q & 15) | fifth(b + 2)) - 16, d);
    scaled(y + 16, (levels)((q >> 4) | fifth(b + 4)) - 16, d);
}
static inline void q5_1(float *y, const byte *b)
{
    bytes q = load(b + 8);
    float d = half_at(b), min = half_at(b + 2);
    shifted(y, (levels)((q & 15) | fifth(b + 4)), d, min);
    shifted(y + 16, (levels)((q >> 4) | fifth(b + 6)), d, min);
}
static inline void q8_0(float *y, const byte *b)
{
    float d = half_at(b);
    scaled(y, (levels)load(b + 2), d);
    scaled(y + 16, (levels)load(b + 18), d);
}

/* Six-bit scales and minima of the eight groups of Q4_K and Q5_K. */
static inline void scales_min(const byte *s, float d, float dmin, float scale[8], float min[8])
{
    for (int g = 0; g < 4; g++) {
        scale[g] = d * (float)(s[g] & 63);
        min[g] = dmin * (float)(s[g + 4] & 63);
        scale[g + 4] = d * (float)((s[g + 8] & 15) | s[g] >> 6 << 4);
        min[g + 4] = dmin * (float)(s[g + 8] >> 4 | s[g + 4] >> 6 << 4);
    }
}

__attribute__((always_inline)) static inline void q45_k(float *y, const byte *b, bool five)
{
    const byte *high = b + 16, *qs = five ? b + 48 : b + 16;
    float scale[8], min[8];
    scales_min(b + 4, half_at(b), half_at(b + 2), scale, min);
    for (int g = 0; g < 8; g++)
        for (int half = 0; half < 32; half += 16) {
            bytes q = load(qs + g / 2 * 32 + half);
            q = g % 2 ? (bytes)(q >> 4) : (bytes)(q & 15);
            if (five)
                q |= (load(high + half) >> (byte)g & 1) << 4;
            shifted(y + g * 32 + half, (levels)q, scale[g], -min[g]);
        }
}
static inline void q4_k(float *y, const byte *b) { q45_k(y, b, false); }
static inline void q5_k(float *y, const byte *b) { q45_k(y, b, true); }

static inline void q6_k(float *y, const byte *b)
{
    const int8_t *scales = (const int8_t *)b + 192;
    float d = half_at(b + 208);
    for (int group = 0; group < 16; group++) {
        int run = group / 2, half = group % 2 * 16;
        bytes low = load(b + run / 4 * 64 + run % 2 * 32 + half), high = load(b + 128 + run / 4 * 32 + half);
        low = run / 2 % 2 ? (bytes)(low >> 4) : (bytes)(low & 15);
        high = (high >> (byte)(run % 4 * 2) & 3) << 4;
        scaled(y + group * 16, (levels)(low | high) - 32, d * (float)scales[group]);
    }
}

void SW_CPU(dequantise)(float *dst, const void *src, sw_dtype t, int64_t n)
{
    const byte *b = src;
    switch (t) {
#define CASE(type, decode, values, bytes)                                                                              \
    case type:                                                                                                         \
        for (int64_t i = 0; i < n; i += (values), b += (bytes))                                                        \
            decode(dst + i, b);                                                                                        \
        return;
        CASE(SW_Q4_0, q4_0, 32, 18)
        CASE(SW_Q4_1, q4_1, 32, 20)
        CASE(SW_Q5_0, q5_0, 32, 22)
        CASE(SW_Q5_1, q5_1, 32, 24)
        CASE(SW_Q8_0, q8_0, 32, 34)
        CASE(SW_Q4_K, q4_k, 256, 144)
        CASE(SW_Q5_K, q5_k, 256, 176)
        CASE(SW_Q6_K, q6_k, 256, 210)
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
