#include "kernels/blocks.h"

#include <inttypes.h>
#include <string.h>

#define SW_ANY static inline
#define SW_TABLE static const
#define SW_HALF half_at

static float half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, 2);
    return sw_f16_to_f32(h);
}

#include "kernels/codebooks.h"

/* ---- blocks of 32: [scale][minimum: types _1][fifth bits, 4 bytes: types 5][levels] */

static void nibbles(const uint8_t *qs, int q[32])
{
    for (int i = 0; i < 16; i++) {
        q[i] = qs[i] & 15;
        q[i + 16] = qs[i] >> 4;
    }
}

static void fives(const uint8_t *qh, const uint8_t *qs, int q[32])
{
    nibbles(qs, q);
    for (int i = 0; i < 32; i++)
        q[i] |= (qh[i / 8] >> i % 8 & 1) << 4;
}

static void decode_centred(float *y, float d, const int q[32], int zero)
{
    for (int i = 0; i < 32; i++)
        y[i] = (float)(q[i] - zero) * d;
}

static void decode_between(float *y, float d, float min, const int q[32])
{
    for (int i = 0; i < 32; i++)
        y[i] = (float)q[i] * d + min;
}

static void decode_q4_0(float *y, const uint8_t *b)
{
    int q[32];
    nibbles(b + 2, q);
    decode_centred(y, half_at(b), q, 8);
}

static void decode_q4_1(float *y, const uint8_t *b)
{
    int q[32];
    nibbles(b + 4, q);
    decode_between(y, half_at(b), half_at(b + 2), q);
}

static void decode_q5_0(float *y, const uint8_t *b)
{
    int q[32];
    fives(b + 2, b + 6, q);
    decode_centred(y, half_at(b), q, 16);
}

static void decode_q5_1(float *y, const uint8_t *b)
{
    int q[32];
    fives(b + 4, b + 8, q);
    decode_between(y, half_at(b), half_at(b + 2), q);
}

static void decode_q8_0(float *y, const uint8_t *b)
{
    float d = half_at(b);
    for (int i = 0; i < 32; i++)
        y[i] = (float)(int8_t)b[2 + i] * d;
}

/* ---- K blocks of 256: groups of 16 or 32 values, each with a small whole-number scale under the block's own */

/* scales[16], qs[64], d, dmin. A byte of qs holds one value of each of four runs of 32. */
static void decode_q2_k(float *y, const uint8_t *b)
{
    const uint8_t *scales = b, *qs = b + 16;
    float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int i = 0; i < 256; i++) {
        int group = i / 16, level = qs[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
        y[i] = d * (float)(scales[group] & 15) * (float)level - dmin * (float)(scales[group] >> 4);
    }
}

/* hmask[32], qs[64], scales[12], d. The third bit, when it is not set, takes 4 off; scales are six bits around 32. */
static void decode_q3_k(float *y, const uint8_t *b)
{
    const uint8_t *high = b, *qs = b + 32, *scales = b + 96;
    float d = half_at(b + 108);
    for (int i = 0; i < 256; i++) {
        int group = i / 16;
        int scale = (scales[group % 8] >> group / 8 * 4 & 15) | (scales[8 + group % 4] >> group / 4 * 2 & 3) << 4;
        int level = qs[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
        level -= high[i % 32] >> i / 32 & 1 ? 0 : 4;
        y[i] = d * (float)(scale - 32) * (float)level;
    }
}

/* Six-bit scale and minimum of group 0..7 in the 12 bytes that Q4_K and Q5_K share. */
static void scale_min(const uint8_t *s, int group, int *scale, int *min)
{
    if (group < 4) {
        *scale = s[group] & 63;
        *min = s[group + 4] & 63;
    } else {
        *scale = (s[group + 4] & 15) | s[group - 4] >> 6 << 4;
        *min = s[group + 4] >> 4 | s[group] >> 6 << 4;
    }
}

/* d, dmin, scales[12], (Q5_K: fifth bits[32],) qs[128]: low and high nibbles of 32 bytes are two groups of 32. */
static void decode_q45_k(float *y, const uint8_t *b, bool five)
{
    const uint8_t *high = b + 16, *qs = five ? b + 48 : b + 16;
    float d = half_at(b), dmin = half_at(b + 2);
    for (int group = 0; group < 8; group++) {
        int scale, min;
        scale_min(b + 4, group, &scale, &min);
        for (int i = 0; i < 32; i++) {
            int level = qs[group / 2 * 32 + i] >> group % 2 * 4 & 15;
            if (five)
                level |= (high[i] >> group & 1) << 4;
            y[group * 32 + i] = d * (float)scale * (float)level - dmin * (float)min;
        }
    }
}

static void decode_q4_k(float *y, const uint8_t *b) { decode_q45_k(y, b, false); }
static void decode_q5_k(float *y, const uint8_t *b) { decode_q45_k(y, b, true); }

/* ql[128], qh[64], int8 scales[16], d. In each half: four runs of 32 from two runs of low nibbles, then two of high. */
static void decode_q6_k(float *y, const uint8_t *b)
{
    const uint8_t *low = b, *high = b + 128;
    const int8_t *scales = (const int8_t *)b + 192;
    float d = half_at(b + 208);
    for (int i = 0; i < 256; i++) {
        int half = i / 128, run = i / 32 % 4;
        int level = (low[half * 64 + run % 2 * 32 + i % 32] >> run / 2 * 4 & 15) |
                    (high[half * 32 + i % 32] >> run * 2 & 3) << 4;
        y[i] = d * (float)scales[i / 16] * (float)(level - 32);
    }
}

static void (*const decoders[SW_DTYPE_COUNT])(float *, const uint8_t *) = {
    [SW_Q4_0] = decode_q4_0, [SW_Q4_1] = decode_q4_1, [SW_Q5_0] = decode_q5_0, [SW_Q5_1] = decode_q5_1,
    [SW_Q8_0] = decode_q8_0, [SW_Q2_K] = decode_q2_k, [SW_Q3_K] = decode_q3_k, [SW_Q4_K] = decode_q4_k,
    [SW_Q5_K] = decode_q5_k, [SW_Q6_K] = decode_q6_k,
};

int sw_block_decode(float *dst, const void *src, sw_dtype t, int64_t n)
{
    if ((unsigned)t >= SW_DTYPE_COUNT)
        return sw_fail("there is no type number %d", (int)t);
    if (n < 0 || n % sw_dtypes[t].block)
        return sw_fail("%" PRId64 " values are no whole blocks of %s (%d values)", n, sw_dtypes[t].name,
                       sw_dtypes[t].block);
    const uint8_t *block = src;
    if (t == SW_F32 && n) {
        memcpy(dst, src, (size_t)n * 4);
    } else if (!sw_is_quantised(t)) {
        for (int64_t i = 0; i < n; i++)
            dst[i] = (float)sw_scalar_get(src, t, i);
    } else if (decoders[t]) {
        for (int64_t i = 0; i < n; i += sw_dtypes[t].block, block += sw_dtypes[t].bytes)
            decoders[t](dst + i, block);
    } else {
        for (int64_t i = 0; i < n; i += 8)
            sw_codebook_eight(dst + i, block + sw_dtype_bytes(t, i / sw_dtypes[t].block * sw_dtypes[t].block), (int)t,
                              (int)(i % sw_dtypes[t].block));
    }
    return 0;
}
