/* Values out of quantised blocks, as kernels/blocks.c defines them bit for bit, in loops that the compiler turns into vector
 * instructions. Built without contraction (kernels.mk): a fused multiply-add would round once where the definition rounds twice. */
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

/* y = level * d + min, or without min (adding 0 would make -0 a 0). */
static inline void scaled(float *restrict y, const int8_t *restrict q, int n, float d)
{
    for (int i = 0; i < n; i++)
        y[i] = (float)q[i] * d;
}
static inline void shifted(float *restrict y, const int8_t *restrict q, int n, float d, float min)
{
    for (int i = 0; i < n; i++)
        y[i] = (float)q[i] * d + min;
}

static inline void nibbles(int8_t *restrict q, const byte *restrict qs, int zero)
{
    for (int i = 0; i < 16; i++)
        q[i] = (int8_t)((qs[i] & 15) - zero);
    for (int i = 0; i < 16; i++)
        q[i + 16] = (int8_t)((qs[i] >> 4) - zero);
}

static inline void fives(int8_t *restrict q, const byte *restrict qh, const byte *restrict qs, int zero)
{
    byte high[32];
    for (int i = 0; i < 32; i++)
        high[i] = (byte)((qh[i / 8] >> i % 8 & 1) << 4);
    for (int i = 0; i < 16; i++)
        q[i] = (int8_t)(((qs[i] & 15) | high[i]) - zero);
    for (int i = 0; i < 16; i++)
        q[i + 16] = (int8_t)((qs[i] >> 4 | high[i + 16]) - zero);
}

static inline void q4_0(float *restrict y, const byte *b)
{
    int8_t q[32];
    nibbles(q, b + 2, 8);
    scaled(y, q, 32, half_at(b));
}
static inline void q4_1(float *restrict y, const byte *b)
{
    int8_t q[32];
    nibbles(q, b + 4, 0);
    shifted(y, q, 32, half_at(b), half_at(b + 2));
}
static inline void q5_0(float *restrict y, const byte *b)
{
    int8_t q[32];
    fives(q, b + 2, b + 6, 16);
    scaled(y, q, 32, half_at(b));
}
static inline void q5_1(float *restrict y, const byte *b)
{
    int8_t q[32];
    fives(q, b + 4, b + 8, 0);
    shifted(y, q, 32, half_at(b), half_at(b + 2));
}
static inline void q8_0(float *restrict y, const byte *b) { scaled(y, (const int8_t *)b + 2, 32, half_at(b)); }

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

static inline void q45_k(float *restrict y, const byte *b, bool five)
{
    const byte *high = b + 16, *qs = five ? b + 48 : b + 16;
    float scale[8], min[8];
    scales_min(b + 4, half_at(b), half_at(b + 2), scale, min);
    for (int g = 0; g < 8; g++) {
        int8_t q[32];
        const byte *from = qs + g / 2 * 32;
        int right = g % 2 * 4;
        for (int i = 0; i < 32; i++)
            q[i] = (int8_t)(from[i] >> right & 15);
        if (five)
            for (int i = 0; i < 32; i++)
                q[i] = (int8_t)(q[i] | (high[i] >> g & 1) << 4);
        shifted(y + g * 32, q, 32, scale[g], -min[g]);
    }
}
static inline void q4_k(float *restrict y, const byte *b) { q45_k(y, b, false); }
static inline void q5_k(float *restrict y, const byte *b) { q45_k(y, b, true); }

static inline void q6_k(float *restrict y, const byte *b)
{
    const int8_t *scales = (const int8_t *)b + 192;
    float d = half_at(b + 208);
    for (int run = 0; run < 8; run++) {
        const byte *low = b + run / 4 * 64 + run % 2 * 32, *high = b + 128 + run / 4 * 32;
        int right = run / 2 % 2 * 4, shift = run % 4 * 2;
        int8_t q[32];
        for (int i = 0; i < 32; i++)
            q[i] = (int8_t)(((low[i] >> right & 15) | (high[i] >> shift & 3) << 4) - 32);
        scaled(y + run * 32, q, 16, d * (float)scales[run * 2]);
        scaled(y + run * 32 + 16, q + 16, 16, d * (float)scales[run * 2 + 1]);
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
