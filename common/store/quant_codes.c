#include "store/quant_codes.h"

#include "store/quant_k.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define SW_TABLE static const
#include "kernels/codebook_tables.h"

enum { B = 32, N = 256 };

static float largest(const float *x, int n)
{
    float most = 0;
    for (int i = 0; i < n; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    return most;
}

/* ---- MXFP4: [exponent][nibbles: value i low, i + 16 high]. Half the scale, 2^(e-128), times twice a 4-bit float. */

static int nearest_float(float x, float half_scale)
{
    int best = 0;
    for (int i = 1; i < 16; i++) /* of two as near the first, which is the smaller */
        if (fabsf((float)sw_levels_e2m1[i] * half_scale - x) < fabsf((float)sw_levels_e2m1[best] * half_scale - x))
            best = i;
    return best;
}

static float mxfp4_error(const float *x, const float *w, int e)
{
    float half_scale = ldexpf(1, e - 128), sum = 0;
    for (int i = 0; i < B; i++) {
        float d = (float)sw_levels_e2m1[nearest_float(x[i], half_scale)] * half_scale - x[i];
        sum += w[i] * d * d;
    }
    return sum;
}

/* The exponent that puts the largest value between the largest power of two and the end of what the floats reach; with weights,
 * the best of those next to it. */
static int mxfp4_exponent(const float *x, const float *w)
{
    float most = largest(x, B), least = INFINITY;
    int e = most > 0 ? (int)floorf(log2f(most)) - 2 + 127 : 0, best = e;
    e = e < 0 ? 0 : e;
    for (int k = e - 1; w && k <= e + 1; k++) {
        float error = k >= 0 ? mxfp4_error(x, w, k) : INFINITY;
        if (error < least)
            least = error, best = k;
    }
    return w ? best : e;
}

static void write_mxfp4(uint8_t *p, const float *x, const float *w)
{
    int e = mxfp4_exponent(x, w);
    float half_scale = ldexpf(1, e - 128);
    p[0] = (uint8_t)e;
    for (int i = 0; i < B / 2; i++)
        p[1 + i] = (uint8_t)(nearest_float(x[i], half_scale) | nearest_float(x[i + B / 2], half_scale) << 4);
}

/* ---- few levels: every value is -d, 0 or d, and in Q2_0 it may be 2 d */

static int level_of(float x, float inverse, int top)
{
    float r = roundf(x * inverse);
    return r > (float)top ? top : r < -1 ? -1 : (int)r;
}

/* The largest of n values is d; with weights, d is searched below it, each by least squares for the levels it gives. */
static float level_scale(const float *x, const float *w, int n, int top)
{
    float most = largest(x, n), best = most, most_gain = -1;
    for (int k = 1; w && most > 0 && k <= 20; k++) {
        float inverse = 20 / (most * (float)k), xq = 0, qq = 0;
        if (!isfinite(inverse))
            continue;
        for (int i = 0; i < n; i++) {
            float q = (float)level_of(x[i], inverse, top);
            xq += w[i] * x[i] * q;
            qq += w[i] * q * q;
        }
        if (qq > 0 && xq * xq / qq > most_gain)
            most_gain = xq * xq / qq, best = xq / qq;
    }
    return best;
}

/* Their levels of n values, and d as a half; -1: it is too large for one. */
static int few_levels(const float *x, const float *w, int n, int top, int *level, uint16_t *half)
{
    float d = level_scale(x, w, n, top), inverse = d != 0 ? 1 / d : 0;
    for (int i = 0; i < n; i++)
        level[i] = level_of(x[i], isfinite(inverse) ? inverse : 0, top);
    *half = sw_f32_to_f16(d);
    return isfinite(sw_f16_to_f32(*half)) ? 0 : -1;
}

/* Q2_0: [d][pairs of bits: level + 1]. */
static int write_q2(uint8_t *p, const float *x, const float *w)
{
    int level[64];
    uint16_t half;
    if (few_levels(x, w, 64, 2, level, &half))
        return -1;
    memset(p, 0, 18);
    memcpy(p, &half, 2);
    for (int i = 0; i < 64; i++)
        p[2 + i / 4] |= (uint8_t)((level[i] + 1) << i % 4 * 2);
    return 0;
}

/* Q1_0: [d][bits: whether the value is not negative]. d is the mean magnitude, which is what least squares gives. */
static int write_q1(uint8_t *p, const float *x, const float *w)
{
    float sum = 0, all = 0;
    for (int i = 0; i < 128; i++) {
        sum += w ? w[i] * fabsf(x[i]) : fabsf(x[i]);
        all += w ? w[i] : 1;
    }
    uint16_t half = sw_f32_to_f16(all > 0 ? sum / all : 0);
    memset(p, 0, 18);
    memcpy(p, &half, 2);
    for (int i = 0; i < 128; i++)
        p[2 + i / 8] |= (uint8_t)((x[i] >= 0) << i % 8);
    return isfinite(sw_f16_to_f32(half)) ? 0 : -1;
}

/* ---- ternary */

/* TQ1_0: five ternary digits in a byte as the fraction of 256 that they are of 243, rounded up: three times the byte, cut to eight
 * bits, has the next digit above. Digits of value i lie as kernels/codebooks.h reads them. */
static uint8_t digits(const int *level, int step, int count)
{
    int all = 0;
    for (int k = 0; k < 5; k++)
        all = all * 3 + (k < count ? level[k * step] + 1 : 0);
    return (uint8_t)((all * 256 + 242) / 243);
}

static int write_ternary(uint8_t *p, sw_dtype dtype, const float *x, const float *w)
{
    int level[N];
    uint16_t half;
    if (few_levels(x, w, N, 1, level, &half))
        return -1;
    if (dtype == SW_TQ1_0) {
        for (int i = 0; i < 32; i++)
            p[i] = digits(level + i, 32, 5);
        for (int i = 0; i < 16; i++)
            p[32 + i] = digits(level + 160 + i, 16, 5);
        for (int i = 0; i < 4; i++)
            p[48 + i] = digits(level + 240 + i, 4, 4);
        memcpy(p + 52, &half, 2);
    } else {
        memset(p, 0, 64);
        for (int i = 0; i < N; i++)
            p[i / 128 * 32 + i % 32] |= (uint8_t)((level[i] + 1) << i / 32 % 4 * 2);
        memcpy(p + 64, &half, 2);
    }
    return 0;
}

static int write_block(uint8_t *p, sw_dtype dtype, const float *x, const float *w)
{
    switch (dtype) {
    case SW_MXFP4: write_mxfp4(p, x, w); return 0;
    case SW_Q1_0: return write_q1(p, x, w);
    case SW_Q2_0: return write_q2(p, x, w);
    default: return write_ternary(p, dtype, x, w);
    }
}

int sw_quantise_codes(void *dst, sw_dtype dtype, const float *src, int64_t n, const float *importance)
{
    int block = sw_dtypes[dtype].block;
    uint8_t *p = dst;
    for (int64_t at = 0; at < n; at += block, p += sw_dtypes[dtype].bytes) {
        float w[N];
        if (importance && sw_quant_weights(w, importance, block, at))
            return -1;
        if (write_block(p, dtype, src + at, importance ? w : NULL))
            return sw_fail("values %" PRId64 " to %" PRId64 " are too large for the half-precision scale of %s", at, at + block - 1,
                           sw_dtypes[dtype].name);
    }
    return 0;
}
