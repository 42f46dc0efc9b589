/* Values of the block types whose levels are looked up or have no minimum of their own: IQ1 to IQ4, the 4-bit floats, the ternary
 * and binary types and Q8_K (layouts: llama.cpp, ggml-common.h, block_*). One text for every device: all products but Q8_K's are
 * exact in f32, so that no device can round them otherwise. The includer gives, before it includes this,
 *   SW_ANY     what a function is declared with,        SW_TABLE   what a constant table is declared with,
 *   SW_HALF(p) the f32 of the half-precision number at p. */
#ifndef SW_KERNELS_CODEBOOKS_H
#define SW_KERNELS_CODEBOOKS_H

#include "kernels/codebook_tables.h"
#include "kernels/tensor.h"

#include <string.h>

SW_ANY unsigned sw_code_u16(const uint8_t *p) { return (unsigned)p[0] | (unsigned)p[1] << 8; }
SW_ANY uint32_t sw_code_u32(const uint8_t *p) { return sw_code_u16(p) | sw_code_u16(p + 2) << 16; }
SW_ANY float sw_code_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Seven signs; the eighth makes their number even. */
SW_ANY unsigned sw_code_signs(unsigned seven)
{
    unsigned parity = seven ^ seven >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    return seven | (parity & 1) << 7;
}
SW_ANY float sw_code_sign(unsigned signs, int i) { return (float)(1 - (int)(signs >> i & 1) * 2); }

/* 8, 25 or 43 times the scale. */
SW_ANY void sw_code_eight(float *v, unsigned code, unsigned signs, float scale)
{
    for (int i = 0; i < 8; i++) {
        int c = (int)(code >> 2 * i & 3);
        v[i] = scale * (float)(8 + 17 * c + (c >> 1)) * sw_code_sign(signs, i);
    }
}

/* value = scale (c - 1 +- 1/8) */
SW_ANY void sw_code_thirds(float *v, unsigned code, bool below, float scale)
{
    for (int i = 0; i < 8; i++)
        v[i] = scale * ((float)((int)(code >> 2 * i & 3) - 1) + (below ? -0.125f : 0.125f));
}

/* Sixteen nibbles of 8 bytes: the low ones, or the high. */
SW_ANY void sw_code_nibbles(float *v, const uint8_t *qs, int high, const int8_t *levels, float scale)
{
    for (int i = 0; i < 8; i++)
        v[i] = scale * (float)levels[qs[i] >> (high ? 4 : 0) & 15];
}

/* The scales of NVFP4 are 8-bit floats without a sign (four bits of exponent, bias 7, three of mantissa); half of one here. */
SW_ANY float sw_code_e4m3(unsigned b)
{
    unsigned exponent = b >> 3 & 15, mantissa = b & 7;
    if (b == 0x7f)
        return 0;
    return exponent ? sw_code_float((exponent + 119) << 23 | mantissa << 20) : (float)mantissa * 0x1p-10f;
}

/* 2^(e-128): half the scale of MXFP4. */
SW_ANY float sw_code_e8m0(unsigned e) { return sw_code_float(e < 2 ? 0x00200000u << e : (e - 1) << 23); }

/* The ternary digit of value i of TQ1_0: a byte holds five digits as a fraction of 256 (the last four bytes four). */
SW_ANY int sw_code_ternary(const uint8_t *b, int i)
{
    int digit = i < 160 ? i / 32 : i < 240 ? (i - 160) / 16 : (i - 240) / 4;
    int at = i < 160 ? i % 32 : i < 240 ? 32 + i % 16 : 48 + i % 4;
    unsigned power = digit == 0 ? 1 : digit == 1 ? 3 : digit == 2 ? 9 : digit == 3 ? 27 : 81;
    return (int)((b[at] * power & 255) * 3 >> 8);
}

/* v[0..8) = values first .. first+7 of the block b of one of these types; first is a multiple of 8. */
SW_ANY void sw_codebook_eight(float *v, const uint8_t *b, int type, int first)
{
    int eight = first / 8, run = first / 32, quarter = eight % 4, odd16 = first / 16 % 2;
    switch (type) {
    case SW_IQ4_NL: /* d, qs[16] */
        sw_code_nibbles(v, b + 2 + first % 16, first / 16, sw_levels_iq4, SW_HALF(b));
        break;
    case SW_IQ4_XS: { /* d, scales_h (2 bits a run), scales_l[4], qs[128] */
        int scale = (b[4 + run / 2] >> run % 2 * 4 & 15) | (int)(sw_code_u16(b + 2) >> 2 * run & 3) << 4;
        sw_code_nibbles(v, b + 8 + run * 16 + first % 16, odd16, sw_levels_iq4, SW_HALF(b) * (float)(scale - 32));
        break;
    }
    case SW_MXFP4: /* exponent, qs[16] */
        sw_code_nibbles(v, b + 1 + first % 16, first / 16, sw_levels_e2m1, sw_code_e8m0(b[0]));
        break;
    case SW_NVFP4: /* scales[4], qs[32]: 8 bytes for each 16 values */
        sw_code_nibbles(v, b + 4 + first / 16 * 8, eight % 2, sw_levels_e2m1, sw_code_e4m3(b[first / 16]));
        break;
    case SW_IQ2_XXS: { /* d, runs of [4 indices, 4 x 7 signs and a scale of 4 bits] */
        uint32_t rest = sw_code_u32(b + 2 + 8 * run + 4);
        sw_code_eight(v, sw_grid_iq2_xxs[b[2 + 8 * run + quarter]], sw_code_signs(rest >> 7 * quarter & 127),
                      SW_HALF(b) * (0.5f + (float)(rest >> 28)) * 0.25f);
        break;
    }
    case SW_IQ2_XS: { /* d, 32 of [index of 9 bits, 7 signs], scales[8] */
        unsigned q = sw_code_u16(b + 2 + 2 * eight);
        sw_code_eight(v, sw_grid_iq2_xs[q & 511], sw_code_signs(q >> 9),
                      SW_HALF(b) * (0.5f + (float)(b[66 + run] >> odd16 * 4 & 15)) * 0.25f);
        break;
    }
    case SW_IQ2_S: /* d, indices[32], signs[32], high bits[8], scales[8] */
        sw_code_eight(v, sw_grid_iq2_s[b[2 + eight] | (b[66 + run] >> 2 * quarter & 3) << 8], b[34 + eight],
                      SW_HALF(b) * (0.5f + (float)(b[74 + run] >> odd16 * 4 & 15)) * 0.25f);
        break;
    case SW_IQ3_XXS: { /* d, indices[64], runs of [4 x 7 signs and a scale of 4 bits] */
        uint32_t rest = sw_code_u32(b + 66 + 4 * run), signs = sw_code_signs(rest >> 7 * quarter & 127);
        uint32_t code = sw_grid_iq3_xxs[b[2 + 2 * eight]] | (uint32_t)sw_grid_iq3_xxs[b[3 + 2 * eight]] << 12;
        float scale = SW_HALF(b) * (0.5f + (float)(rest >> 28)) * 0.5f;
        for (int i = 0; i < 8; i++) { /* 4, 12, .. 52, 62 */
            int c = (int)(code >> 3 * i & 7);
            v[i] = scale * (float)(4 + 8 * c + (c + 1) / 8 * 2) * sw_code_sign(signs, i);
        }
        break;
    }
    case SW_IQ3_S: { /* d, indices[64], high bits[8], signs[32], scales[4] */
        unsigned high = (unsigned)b[66 + run] >> 2 * quarter;
        uint32_t code = sw_grid_iq3_s[b[2 + 2 * eight] | (high & 1) << 8] |
                        (uint32_t)sw_grid_iq3_s[b[3 + 2 * eight] | (high & 2) << 7] << 12;
        float scale = SW_HALF(b) * (float)(1 + 2 * (b[106 + run / 2] >> run % 2 * 4 & 15));
        for (int i = 0; i < 8; i++)
            v[i] = scale * (float)(1 + 2 * (int)(code >> 3 * i & 7)) * sw_code_sign(b[74 + eight], i);
        break;
    }
    case SW_IQ1_S: { /* d, indices[32], runs of [4 x 3 high bits, scale of 3 bits, sign of the shift] */
        unsigned rest = sw_code_u16(b + 34 + 2 * run);
        sw_code_thirds(v, sw_grid_iq1[b[2 + eight] | (rest >> 3 * quarter & 7) << 8], rest & 0x8000,
                       SW_HALF(b) * (float)(2 * (rest >> 12 & 7) + 1));
        break;
    }
    case SW_IQ1_M: { /* indices[32], halves of [3 high bits, sign of the shift][16], scales of 3 bits; d in what they leave over */
        const uint8_t *s = b + 48;
        uint16_t d = (uint16_t)(s[1] >> 4 | (s[3] & 0xf0) | (s[5] & 0xf0) << 4 | (s[7] & 0xf0) << 8);
        unsigned half = (unsigned)b[32 + first / 16] >> eight % 2 * 4;
        unsigned scale = sw_code_u16(s + run / 2 * 2) >> (run % 2 * 6 + odd16 * 3) & 7;
        sw_code_thirds(v, sw_grid_iq1[b[eight] | (half & 7) << 8], half & 8, SW_HALF((const uint8_t *)&d) * (float)(2 * scale + 1));
        break;
    }
    case SW_TQ1_0: /* digits[48 + 4], d */
    case SW_TQ2_0: { /* pairs of bits[64], d */
        float d = SW_HALF(b + (type == SW_TQ1_0 ? 52 : 64));
        for (int i = first; i < first + 8; i++) {
            int level = type == SW_TQ1_0 ? sw_code_ternary(b, i) : b[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
            v[i - first] = d * (float)(level - 1);
        }
        break;
    }
    case SW_Q1_0: /* d, bits[16] */
        for (int i = 0; i < 8; i++)
            v[i] = SW_HALF(b) * -sw_code_sign(b[2 + eight], i);
        break;
    case SW_Q2_0: /* d, pairs of bits[16] */
        for (int i = 0; i < 8; i++)
            v[i] = SW_HALF(b) * (float)((int)(b[2 + 2 * eight + i / 4] >> i % 4 * 2 & 3) - 1);
        break;
    default: /* SW_Q8_K: d in f32, int8[256], sums that are not needed here */
        for (int i = 0; i < 8; i++)
            v[i] = sw_code_float(sw_code_u32(b)) * (float)(int8_t)b[4 + first + i];
        break;
    }
}

#endif
