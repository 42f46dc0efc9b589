/* Whole-number levels out of quantised blocks, 32 at a time, and what scales and shifts them: the layouts are defined
 * by kernels/blocks.c. value = scale * level + min. What makes values of them is built without contraction (kernels.mk).
 */
#ifndef SW_KERNELS_CPU_LEVELS_H
#define SW_KERNELS_CPU_LEVELS_H

#include "cpu_isa.h"

/* Sixteen levels. */
typedef int8_t sw_levels __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint8_t sw_bytes __attribute__((vector_size(16), aligned(1), may_alias));

enum { SW_LEVEL_RUN = 32 };

static inline float sw_half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, 2);
#if defined(__F16C__)
    return _cvtsh_ss(h);
#else
    return sw_f16_to_f32(h);
#endif
}
static inline sw_bytes sw_bytes_at(const uint8_t *p) { return *(const sw_bytes *)p; }

/* Bytes and values of a block, as constants where the type is one. */
static inline int sw_block_bytes(sw_dtype t)
{
    switch (t) {
#define X(type, name, values, bytes, gguf)                                                                             \
    case type: return bytes;
        SW_DTYPES(X)
#undef X
    default: return 0;
    }
}
static inline int sw_block_values(sw_dtype t)
{
    switch (t) {
#define X(type, name, values, bytes, gguf)                                                                             \
    case type: return values;
        SW_DTYPES(X)
#undef X
    default: return 0;
    }
}

/* Types that are read here. */
#define SW_LEVEL_TYPES(X)                                                                                              \
    X(SW_Q4_0) X(SW_Q4_1) X(SW_Q5_0) X(SW_Q5_1) X(SW_Q8_0) X(SW_Q4_K) X(SW_Q5_K) X(SW_Q6_K)
static inline bool sw_has_levels(sw_dtype t)
{
    switch (t) {
#define X(type) case type:
        SW_LEVEL_TYPES(X)
#undef X
        return true;
    default: return false;
    }
}
static inline bool sw_levels_have_min(sw_dtype t)
{
    return t == SW_Q4_1 || t == SW_Q5_1 || t == SW_Q4_K || t == SW_Q5_K;
}

/* Bits i of h, eight bytes alike and then the next eight, as 16 where set: the fifth bits of 16 levels. */
static inline sw_bytes sw_fifth(const uint8_t *h)
{
    static const sw_bytes bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    sw_bytes at = {h[0], h[0], h[0], h[0], h[0], h[0], h[0], h[0], h[1], h[1], h[1], h[1], h[1], h[1], h[1], h[1]};
    return (sw_bytes)((at & bit) != 0) & 16;
}

/* Scales of a block's halves of a run (scale[2 * run + half]) and minima of its runs. */
__attribute__((always_inline)) static inline void sw_block_scales(float scale[16], float min[8], sw_dtype t,
                                                                  const uint8_t *b)
{
    if (t == SW_Q6_K) {
        float d = sw_half_at(b + 208);
        for (int i = 0; i < 16; i++)
            scale[i] = d * (float)(int8_t)b[192 + i];
    } else if (t == SW_Q4_K || t == SW_Q5_K) { /* six bits each */
        const uint8_t *s = b + 4;
        float d = sw_half_at(b), dmin = sw_half_at(b + 2);
        for (int g = 0; g < 4; g++) {
            scale[2 * g] = scale[2 * g + 1] = d * (float)(s[g] & 63);
            min[g] = -(dmin * (float)(s[g + 4] & 63));
            scale[2 * g + 8] = scale[2 * g + 9] = d * (float)((s[g + 8] & 15) | s[g] >> 6 << 4);
            min[g + 4] = -(dmin * (float)(s[g + 8] >> 4 | s[g + 4] >> 6 << 4));
        }
    } else {
        scale[0] = scale[1] = sw_half_at(b);
        min[0] = sw_levels_have_min(t) ? sw_half_at(b + 2) : 0;
    }
}

/* The levels of run g of a block: 0 and more where the type has minima, around 0 where it has none. */
__attribute__((always_inline)) static inline void sw_run_levels(sw_levels q[2], sw_dtype t, const uint8_t *b, int g)
{
    const int last = sw_block_bytes(t) - 16; /* where the low bits of a block of 32 lie */
    sw_bytes low[2];
    switch (t) {
    case SW_Q8_0:
        q[0] = (sw_levels)sw_bytes_at(b + 2);
        q[1] = (sw_levels)sw_bytes_at(b + 18);
        return;
    case SW_Q4_K:
    case SW_Q5_K:
        for (int half = 0; half < 2; half++) {
            sw_bytes v = sw_bytes_at(b + (t == SW_Q5_K ? 48 : 16) + g / 2 * 32 + half * 16);
            v = g % 2 ? (sw_bytes)(v >> 4) : (sw_bytes)(v & 15);
            if (t == SW_Q5_K)
                v |= (sw_bytes_at(b + 16 + half * 16) >> (uint8_t)g & 1) << 4;
            q[half] = (sw_levels)v;
        }
        return;
    case SW_Q6_K:
        for (int half = 0; half < 2; half++) {
            sw_bytes v = sw_bytes_at(b + g / 4 * 64 + g % 2 * 32 + half * 16),
                     high = sw_bytes_at(b + 128 + g / 4 * 32 + half * 16);
            v = g / 2 % 2 ? (sw_bytes)(v >> 4) : (sw_bytes)(v & 15);
            q[half] = (sw_levels)(v | (high >> (uint8_t)(g % 4 * 2) & 3) << 4) - 32;
        }
        return;
    default:
        low[0] = sw_bytes_at(b + last) & 15;
        low[1] = sw_bytes_at(b + last) >> 4;
        if (t == SW_Q5_0 || t == SW_Q5_1) {
            low[0] |= sw_fifth(b + last - 4);
            low[1] |= sw_fifth(b + last - 2);
        }
        for (int half = 0; half < 2; half++)
            q[half] = (sw_levels)low[half] - (int8_t)(t == SW_Q4_0 ? 8 : t == SW_Q5_0 ? 16 : 0);
    }
}

#endif
