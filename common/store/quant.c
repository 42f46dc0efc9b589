#include "store/quant.h"

#include "kernels/blocks.h"
#include "store/quant_codes.h"
#include "store/quant_k.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <strings.h>

enum { B = 32 }; /* values in a block of the simple types */
#define BEYOND 0x1p100f /* far beyond any half-precision scale; keeps sums and differences of values finite */

sw_dtype sw_dtype_by_name(const char *name)
{
    int t = 0;
    while (t < SW_DTYPE_COUNT && strcasecmp(sw_dtypes[t].name, name))
        t++;
    return (sw_dtype)t;
}

sw_dtype sw_dtype_by_gguf(int type)
{
    int t = 0;
    while (t < SW_DTYPE_COUNT && (type < 0 || sw_dtypes[t].gguf != type))
        t++;
    return (sw_dtype)t;
}

static void put_half(uint8_t *p, float v)
{
    uint16_t h = sw_f32_to_f16(v);
    memcpy(p, &h, 2);
}

/* ---- blocks of 32: [scale][minimum: types _1][fifth bits, 4 bytes: types 5][levels] */

static void pack_nibbles(uint8_t *qs, const int q[B])
{
    for (int i = 0; i < B / 2; i++)
        qs[i] = (uint8_t)((q[i] & 15) | (q[i + B / 2] & 15) << 4);
}

static void pack_fives(uint8_t *qh, uint8_t *qs, const int q[B])
{
    uint32_t high = 0;
    for (int i = 0; i < B; i++)
        high |= (uint32_t)(q[i] >> 4 & 1) << i;
    memcpy(qh, &high, 4);
    pack_nibbles(qs, q);
}

/* 1/d, or 0 where that would not be finite: the half-precision scale is 0 then, too. */
static float inverse(float d)
{
    float id = d != 0 ? 1 / d : 0;
    return isfinite(id) ? id : 0;
}

/* The scale puts the value of largest magnitude, sign included, on the lowest level. The level is the fused
 * x * id + (zero + 0.5) cut to a whole number, as machines with fused multiply-add compute it. */
static float levels_symmetric(const float *x, int zero, int q[B])
{
    float amax = 0, max = 0;
    for (int i = 0; i < B; i++)
        if (amax < fabsf(x[i]))
            amax = fabsf(x[i]), max = x[i];
    float d = max / (float)-zero, id = inverse(d);
    for (int i = 0; i < B; i++) {
        int l = (int)(float)((double)x[i] * id + (zero + 0.5));
        q[i] = l < 2 * zero ? l : 2 * zero - 1;
    }
    return d;
}

static float levels_between(const float *x, int top, int q[B], float *minimum)
{
    float min = x[0], max = x[0];
    for (int i = 1; i < B; i++) {
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
    }
    float d = (max - min) / (float)top, id = inverse(d);
    for (int i = 0; i < B; i++) {
        int l = (int)((x[i] - min) * id + 0.5f);
        q[i] = l < top ? l : top;
    }
    *minimum = min;
    return d;
}

static float levels_bytes(const float *x, int q[B])
{
    float amax = 0;
    for (int i = 0; i < B; i++)
        amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    float d = amax / 127, id = inverse(d);
    for (int i = 0; i < B; i++)
        q[i] = (int)roundf(x[i] * id);
    return d;
}

/* Levels by the rules that every writer of these types follows. */
static void plain_levels(sw_dtype dtype, const float *x, float *d, float *m, int q[B])
{
    *m = 0;
    switch (dtype) {
    case SW_Q8_0: *d = levels_bytes(x, q); break;
    case SW_Q4_0: *d = levels_symmetric(x, 8, q); break;
    case SW_Q5_0: *d = levels_symmetric(x, 16, q); break;
    case SW_Q4_1: *d = levels_between(x, 15, q, m); break;
    default: *d = levels_between(x, 31, q, m); break;
    }
}

/* With importance there is no such rule: the scale of least weighted error is searched. IQ4_NL has none at all. */
static int searched_levels(sw_dtype dtype, const float *src, int64_t at, const float *importance, float *d, float *m, int q[B])
{
    int zero = dtype == SW_Q4_0 ? 8 : dtype == SW_Q5_0 ? 16 : 0;
    if (sw_search_32(dtype, src, at, importance, d, m, q))
        return -1;
    *m = -*m;
    for (int i = 0; i < B; i++)
        q[i] += zero;
    return 0;
}

static int quantise_blocks(void *out, sw_dtype dtype, const float *src, int64_t n, const float *importance)
{
    uint8_t *dst = out;
    for (int64_t at = 0; at < n; at += B, dst += sw_dtypes[dtype].bytes) {
        float d, m;
        int q[B];
        if (!importance && dtype != SW_IQ4_NL)
            plain_levels(dtype, src + at, &d, &m, q);
        else if (searched_levels(dtype, src, at, importance, &d, &m, q))
            return -1;
        put_half(dst, d);
        switch (dtype) {
        case SW_Q8_0:
            for (int i = 0; i < B; i++)
                dst[2 + i] = (uint8_t)q[i];
            break;
        case SW_IQ4_NL:
        case SW_Q4_0: pack_nibbles(dst + 2, q); break;
        case SW_Q5_0: pack_fives(dst + 2, dst + 6, q); break;
        case SW_Q4_1: put_half(dst + 2, m), pack_nibbles(dst + 4, q); break;
        default: put_half(dst + 2, m), pack_fives(dst + 4, dst + 8, q); break;
        }
        if (!isfinite(sw_f16_to_f32(sw_f32_to_f16(d))) || !isfinite(sw_f16_to_f32(sw_f32_to_f16(m))))
            return sw_fail("values %" PRId64 " to %" PRId64 " are too large for the half-precision scale of %s", at,
                           at + B - 1, sw_dtypes[dtype].name);
    }
    return 0;
}

/* ---- any type */

static int whole_blocks(sw_dtype dtype, int64_t n)
{
    if ((unsigned)dtype >= SW_DTYPE_COUNT)
        return sw_fail("no such type"), -1; /* -1 in sight of a compiler that follows the type into its table */
    if (n < 0 || n % sw_dtypes[dtype].block)
        return sw_fail("%" PRId64 " values are no whole blocks of %s (%d values)", n, sw_dtypes[dtype].name,
                       sw_dtypes[dtype].block);
    return 0;
}

int sw_dequantise(float *dst, const void *src, sw_dtype dtype, int64_t n) { return sw_block_decode(dst, src, dtype, n); }

typedef int writer(void *dst, sw_dtype dtype, const float *src, int64_t n, const float *importance);

static int write_f32(void *dst, sw_dtype dtype, const float *src, int64_t n, const float *importance)
{
    (void)dtype, (void)importance;
    memcpy(dst, src, (size_t)n * 4);
    return 0;
}

static int write_halves(void *dst, sw_dtype dtype, const float *src, int64_t n, const float *importance)
{
    (void)importance;
    const uint16_t infinite = dtype == SW_F16 ? 0x7c00 : 0x7f80;
    for (int64_t i = 0; i < n; i++) {
        uint16_t half = dtype == SW_F16 ? sw_f32_to_f16(src[i]) : sw_f32_to_bf16(src[i]);
        if ((half & 0x7fff) == infinite && isfinite(src[i]))
            return sw_fail("value %" PRId64 " is %g: no %s can hold it", i, (double)src[i], sw_dtypes[dtype].name);
        ((uint16_t *)dst)[i] = half;
    }
    return 0;
}

static writer *writer_of(sw_dtype dtype)
{
    switch (dtype) {
    case SW_F32: return write_f32;
    case SW_F16: case SW_BF16: return write_halves;
    case SW_Q4_0: case SW_Q4_1: case SW_Q5_0: case SW_Q5_1: case SW_Q8_0: case SW_IQ4_NL: return quantise_blocks;
    case SW_Q2_K: case SW_Q3_K: case SW_Q4_K: case SW_Q5_K: case SW_Q6_K: case SW_IQ4_XS: return sw_quantise_k;
    case SW_MXFP4: case SW_TQ1_0: case SW_TQ2_0: case SW_Q1_0: case SW_Q2_0: return sw_quantise_codes;
    default: return NULL;
    }
}

bool sw_is_written(sw_dtype dtype) { return writer_of(dtype) != NULL; }

int sw_quantise(void *dst, sw_dtype dtype, const float *src, int64_t n, const float *importance)
{
    writer *w = writer_of(dtype);
    if (whole_blocks(dtype, n))
        return -1;
    if (!w)
        return sw_fail("values are not written as %s", sw_dtypes[dtype].name);
    if (sw_is_quantised(dtype))
        for (int64_t i = 0; i < n; i++)
            if (!(fabsf(src[i]) < BEYOND))
                return sw_fail("value %" PRId64 " is %g: no %s can hold it", i, (double)src[i], sw_dtypes[dtype].name);
    return n ? w(dst, dtype, src, n, importance) : 0;
}
