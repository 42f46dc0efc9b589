#include "store/quant_k.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define SW_TABLE static const
#include "kernels/codebook_tables.h"

enum { N = 256, MAX_GROUPS = 16, MAX_GROUP = 32 };

/* A value is d * scale[g] * q - dmin * min[g]. What the types differ in: */
typedef struct form {
    int group;              /* values under one scale */
    int lo, hi;             /* of q */
    int scale_lo, scale_hi; /* negative scale_lo: signed scales and no minimum */
    int min_hi;
    bool any_min; /* a minimum of either sign (blocks of 32) */
    const int8_t *table; /* the 16 values that q may have; NULL: every whole number between lo and hi */
} form;

static form form_of(sw_dtype t)
{
    switch (t) {
    case SW_Q4_0: return (form){.group = 32, .lo = -8, .hi = 7};
    case SW_Q5_0: return (form){.group = 32, .lo = -16, .hi = 15};
    case SW_Q8_0: return (form){.group = 32, .lo = -127, .hi = 127};
    case SW_Q4_1: return (form){.group = 32, .hi = 15, .min_hi = 1, .any_min = true};
    case SW_Q5_1: return (form){.group = 32, .hi = 31, .min_hi = 1, .any_min = true};
    case SW_Q2_K: return (form){16, 0, 3, 0, 15, 15, false, NULL};
    case SW_Q3_K: return (form){16, -4, 3, -32, 31, 0, false, NULL};
    case SW_Q4_K: return (form){32, 0, 15, 0, 63, 63, false, NULL};
    case SW_Q5_K: return (form){32, 0, 31, 0, 63, 63, false, NULL};
    case SW_Q6_K: return (form){16, -32, 31, -128, 127, 0, false, NULL};
    default: return (form){32, -127, 113, -32, 31, 0, false, sw_levels_iq4}; /* SW_IQ4_NL, SW_IQ4_XS */
    }
}

typedef struct block {
    float d, dmin;
    int scale[MAX_GROUPS], min[MAX_GROUPS];
    int q[N];
} block;

/* ---- layouts, as kernels/blocks.c reads them */

static void put_half(uint8_t *p, float v)
{
    uint16_t h = sw_f32_to_f16(v);
    memcpy(p, &h, 2);
}

/* Q4_K and Q5_K: eight 6-bit scales and minima in 12 bytes. The first four of each lie in the low 6 bits of bytes
 * 0..3 and 4..7; the last four have their low nibbles in bytes 8..11 and their top bits above the first four. */
static void pack_sixes(uint8_t *p, const block *b)
{
    for (int j = 0; j < 4; j++) {
        p[j] = (uint8_t)(b->scale[j] | b->scale[j + 4] >> 4 << 6);
        p[j + 4] = (uint8_t)(b->min[j] | b->min[j + 4] >> 4 << 6);
        p[j + 8] = (uint8_t)((b->scale[j + 4] & 15) | (b->min[j + 4] & 15) << 4);
    }
}

/* Q3_K: sixteen 6-bit scales, offset by 32: nibbles in bytes 0..7, top pairs in bytes 8..11. */
static void pack_threes_scales(uint8_t *p, const block *b)
{
    memset(p, 0, 12);
    for (int j = 0; j < 16; j++) {
        int s = b->scale[j] + 32;
        p[j & 7] |= (uint8_t)((s & 15) << (j < 8 ? 0 : 4));
        p[8 + (j & 3)] |= (uint8_t)(s >> 4 << 2 * (j >> 2));
    }
}

/* Pairs of bits: byte l of 32 holds values l, l+32, l+64, l+96 of each half of the block. */
static void pack_pairs(uint8_t *p, const int q[N])
{
    memset(p, 0, 64);
    for (int i = 0; i < N; i++)
        p[i / 128 * 32 + i % 32] |= (uint8_t)((q[i] & 3) << 2 * (i % 128 / 32));
}

/* Nibbles: byte l of each 32 holds values l and l+32 of each 64. */
static void pack_nibbles(uint8_t *p, const int q[N])
{
    memset(p, 0, 128);
    for (int i = 0; i < N; i++)
        p[i / 64 * 32 + i % 32] |= (uint8_t)((q[i] & 15) << 4 * (i % 64 / 32));
}

static int number_in(const int8_t *table, int q)
{
    int n = 0;
    while (table[n] < q)
        n++;
    return n;
}

/* IQ4_XS: d, the upper pairs of bits of 6-bit scales, offset by 32, their nibbles, and in 16 bytes for each 32 values their numbers:
 * value l in a low nibble, l + 16 in the high one. */
static void pack_iq4_xs(uint8_t *p, const block *b)
{
    put_half(p, b->d);
    for (int g = 0; g < 8; g++) {
        int s = b->scale[g] + 32;
        p[2 + g / 4] |= (uint8_t)(s >> 4 << 2 * (g % 4));
        p[4 + g / 2] |= (uint8_t)((s & 15) << 4 * (g % 2));
        for (int i = 0; i < 32; i++)
            p[8 + g * 16 + i % 16] |= (uint8_t)(number_in(sw_levels_iq4, b->q[g * 32 + i]) << i / 16 * 4);
    }
}

/* A single bit of value i, in Q3_K and Q5_K, is bit i / 32 of byte i % 32. */
static void pack(uint8_t *p, sw_dtype t, const block *b)
{
    int shifted[N];
    memset(p, 0, (size_t)sw_dtypes[t].bytes);
    switch (t) {
    case SW_Q2_K: /* scales 16, q 64, d, dmin */
        for (int j = 0; j < 16; j++)
            p[j] = (uint8_t)(b->scale[j] | b->min[j] << 4);
        pack_pairs(p + 16, b->q);
        put_half(p + 80, b->d);
        put_half(p + 82, b->dmin);
        break;
    case SW_Q3_K: /* high bits 32, q 64, scales 12, d */
        for (int i = 0; i < N; i++) {
            shifted[i] = b->q[i] + 4;
            p[i % 32] |= (uint8_t)(shifted[i] >> 2 << i / 32);
        }
        pack_pairs(p + 32, shifted);
        pack_threes_scales(p + 96, b);
        put_half(p + 108, b->d);
        break;
    case SW_Q4_K: /* d, dmin, scales 12, q 128 */
    case SW_Q5_K: /* d, dmin, scales 12, high bits 32, q 128 */
        put_half(p, b->d);
        put_half(p + 2, b->dmin);
        pack_sixes(p + 4, b);
        pack_nibbles(p + (t == SW_Q4_K ? 16 : 48), b->q);
        for (int i = 0; t == SW_Q5_K && i < N; i++)
            p[16 + i % 32] |= (uint8_t)(b->q[i] >> 4 << i / 32);
        break;
    case SW_IQ4_XS: pack_iq4_xs(p, b); break;
    default: /* Q6_K: low nibbles 128 (byte l of each 64 holds l and l + 64), high pairs 64, scales 16, d */
        for (int i = 0; i < N; i++) {
            int v = b->q[i] + 32;
            p[i / 128 * 64 + i % 64] |= (uint8_t)((v & 15) << 4 * (i % 128 / 64));
            shifted[i] = v >> 4;
        }
        pack_pairs(p + 128, shifted);
        for (int j = 0; j < 16; j++)
            p[192 + j] = (uint8_t)b->scale[j];
        put_half(p + 208, b->d);
    }
}

/* ---- the search for scales
 *
 * Least squares, weighted by importance, in three steps: every group finds its own real scale and minimum; the
 * block's d and dmin round these to small integers, each of which then tries its neighbours; d and dmin are fitted
 * again to all the levels found. A step is kept only where it lowers the error. */

/* q = x / scale to the nearest of a table's values */
static void levels_of(const int8_t *table, const float *x, int n, float inverse_scale, int *q)
{
    int number[MAX_GROUP] = {0};
    for (int k = 0; k < 15; k++) {
        float between = 0.5f * (float)(table[k] + table[k + 1]);
        for (int i = 0; i < n; i++)
            number[i] += x[i] * inverse_scale > between;
    }
    for (int i = 0; i < n; i++)
        q[i] = table[number[i]];
}

/* q = (x + min) / scale to the nearest level */
static void levels(const form *f, const float *x, float inverse_scale, float min, int *q)
{
    float flo = (float)f->lo, fhi = (float)f->hi;
    if (f->table) {
        levels_of(f->table, x, f->group, inverse_scale, q);
        return;
    }
    for (int i = 0; i < f->group; i++) {
        float v = (x[i] + min) * inverse_scale;
        v = v > flo ? v : flo; /* NaN, of a scale out of range, too */
        v = v < fhi ? v : fhi;
        q[i] = (int)(v + 128.5f) - 128; /* truncation of a positive number: this loop has no branch */
    }
}

static float inverse(float s)
{
    float i = s != 0 ? 1 / s : 0;
    return isfinite(i) ? i : 0;
}

static float error_of(const float *x, const float *w, int n, const int *q, float scale, float min)
{
    float e = 0;
    for (int i = 0; i < n; i++) {
        float d = x[i] - (scale * (float)q[i] - min);
        e += w[i] * d * d;
    }
    return e;
}

/* The best scale and minimum for a group's given levels. False where none is defined. */
static bool fit(const form *f, const float *x, const float *w, const int *q, float *scale, float *min)
{
    bool with_min = f->min_hi > 0;
    double s1 = 0, sq = 0, sqq = 0, sx = 0, sxq = 0;
    for (int i = 0; i < f->group; i++) {
        float wq = w[i] * (float)q[i], wx = w[i] * x[i];
        s1 += w[i];
        sq += wq;
        sx += wx;
        sqq += wq * (float)q[i];
        sxq += wx * (float)q[i];
    }
    double det = s1 * sqq - sq * sq;
    double m = with_min && det > 0 ? -(sqq * sx - sq * sxq) / det : 0;
    if (m > 0 || (f->any_min && det > 0)) {
        *scale = (float)((s1 * sxq - sx * sq) / det);
        *min = (float)m;
    } else {
        *scale = sqq > 0 ? (float)(sxq / sqq) : 0;
        *min = 0;
    }
    return sqq > 0 && (!with_min || *scale > 0);
}

static void try_levels(const form *f, const float *x, const float *w, float inverse_scale, float min, float *scale_out,
                       float *min_out, float *best)
{
    int q[MAX_GROUP];
    float scale, m;
    levels(f, x, inverse_scale, min, q);
    if (!fit(f, x, w, q, &scale, &m))
        return;
    float e = error_of(x, w, f->group, q, scale, m);
    if (e < *best) {
        *best = e;
        *scale_out = scale;
        *min_out = m;
    }
}

/* A group's own scale and minimum as real numbers. */
static void search_group(const form *f, const float *x, const float *w, float *scale, float *min)
{
    float low = x[0], high = x[0];
    for (int i = 1; i < f->group; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    *scale = 0;
    float best = INFINITY;
    if (f->min_hi) {
        low = low < 0 || f->any_min ? low : 0;
        *min = -low;
        float range = high - low;
        if (!(range > 0))
            return;
        *scale = range / (float)f->hi;
        float step = f->hi < 8 ? 0.05f : 0.1f; /* around "the extremes are the extreme levels", both ways */
        for (int k = -12; k <= 12; k++)
            try_levels(f, x, w, ((float)f->hi + step * (float)k) / range, -low, scale, min, &best);
    } else {
        float extreme = -low > high ? low : high;
        *min = 0;
        if (extreme == 0)
            return;
        *scale = extreme / (float)f->lo;
        float step = f->table ? 1.5f : 0.1f;
        for (int k = -9; k <= 9; k++) { /* the extreme on the lowest level, then on the highest */
            float at = (float)f->lo + step * (float)k;
            try_levels(f, x, w, at / extreme, 0, scale, min, &best);
            if (f->hi < 8 || f->table)
                try_levels(f, x, w, (f->table ? (float)f->hi - step * (float)k : -at) / extreme, 0, scale, min, &best);
        }
    }
    for (int again = 0; again < 2; again++)
        try_levels(f, x, w, inverse(*scale), *min, scale, min, &best);
}

static float to_half(float v) { return sw_f16_to_f32(sw_f32_to_f16(v)); }

static int nearest(float v, int lo, int hi)
{
    v = roundf(v);
    return v < (float)lo ? lo : v > (float)hi ? hi : (int)v;
}

/* Levels of every group for the block's scales as they stand; with `around`, integers one off are tried too. */
static float settle(const form *f, const float *x, const float *w, block *b, bool around)
{
    float total = 0;
    for (int g = 0; g < N / f->group; g++) {
        const float *xg = x + g * f->group, *wg = w + g * f->group;
        int s0 = b->scale[g], m0 = b->min[g], reach = around ? 1 : 0, *best_q = b->q + g * f->group, q[MAX_GROUP];
        float best = INFINITY;
        for (int s = s0 - reach; s <= s0 + reach; s++) {
            for (int m = m0 - reach; m <= m0 + reach; m++) {
                if (s < f->scale_lo || s > f->scale_hi || m < 0 || m > f->min_hi)
                    continue;
                float scale = b->d * (float)s, min = b->dmin * (float)m;
                levels(f, xg, inverse(scale), min, q);
                float e = error_of(xg, wg, f->group, q, scale, min);
                if (e < best) {
                    best = e;
                    b->scale[g] = s;
                    b->min[g] = m;
                    memcpy(best_q, q, sizeof *q * (size_t)f->group);
                }
            }
        }
        total += best;
    }
    return total;
}

/* d and dmin by least squares over the block, its integers given. */
static void refit(const form *f, const float *x, const float *w, block *b)
{
    double aa = 0, am = 0, mm = 0, xa = 0, xm = 0;
    for (int i = 0; i < N; i++) {
        double a = (double)b->scale[i / f->group] * b->q[i], m = b->min[i / f->group];
        aa += w[i] * a * a;
        am += w[i] * a * m;
        mm += w[i] * m * m;
        xa += w[i] * a * x[i];
        xm += w[i] * m * x[i];
    }
    double det = aa * mm - am * am;
    if (det > 0 && (xa * am - xm * aa) / det > 0) {
        b->d = to_half((float)((xa * mm - xm * am) / det));
        b->dmin = to_half((float)((xa * am - xm * aa) / det));
    } else if (aa > 0) {
        b->d = to_half((float)((xa + am * b->dmin) / aa));
    }
}

static void quantise_block(const form *f, const float *x, const float *w, block *b)
{
    float scale[MAX_GROUPS], min[MAX_GROUPS], top_scale = 0, top_min = 0;
    int groups = N / f->group;
    for (int g = 0; g < groups; g++) {
        search_group(f, x + g * f->group, w + g * f->group, &scale[g], &min[g]);
        if (fabsf(scale[g]) > fabsf(top_scale))
            top_scale = scale[g];
        top_min = min[g] > top_min ? min[g] : top_min;
    }
    /* signed scales reach further below zero than above: the largest goes there */
    b->d = to_half(top_scale / (float)(f->scale_lo ? f->scale_lo : f->scale_hi));
    b->dmin = f->min_hi ? to_half(top_min / (float)f->min_hi) : 0;
    float id = inverse(b->d), im = inverse(b->dmin);
    for (int g = 0; g < groups; g++) {
        b->scale[g] = nearest(scale[g] * id, f->scale_lo, f->scale_hi);
        b->min[g] = nearest(min[g] * im, 0, f->min_hi);
    }
    float e = settle(f, x, w, b, true);
    for (int again = 0; again < 2; again++) {
        block next = *b;
        refit(f, x, w, &next);
        float better = settle(f, x, w, &next, again > 0);
        if (!(better < e))
            break;
        e = better;
        *b = next;
    }
}

int sw_quant_weights(float *w, const float *importance, int n, int64_t at)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        w[i] = importance ? importance[at + i] : 1;
        if (!(w[i] >= 0 && w[i] < 0x1p60f))
            return sw_fail("importance of column %" PRId64 " is %g, a finite number of at least 0 is needed", at + i,
                           (double)w[i]);
        sum += w[i];
    }
    for (int i = 0; i < n; i++)
        w[i] = sum > 0 ? (float)(w[i] * (n / sum)) + 1e-6f : 1;
    return 0;
}

int sw_search_32(sw_dtype dtype, const float *src, int64_t at, const float *importance, float *scale, float *min, int q[32])
{
    form f = form_of(dtype);
    float w[32];
    if (sw_quant_weights(w, importance, 32, at))
        return -1;
    search_group(&f, src + at, w, scale, min);
    *scale = to_half(*scale);
    *min = to_half(*min);
    levels(&f, src + at, inverse(*scale), *min, q);
    for (int i = 0; f.table && i < 32; i++)
        q[i] = number_in(f.table, q[i]);
    return 0;
}

int sw_quantise_k(void *dst, sw_dtype dtype, const float *src, int64_t n, const float *importance)
{
    form f = form_of(dtype);
    uint8_t *p = dst;
    for (int64_t at = 0; at < n; at += N, p += sw_dtypes[dtype].bytes) {
        float w[N];
        if (sw_quant_weights(w, importance, N, at))
            return -1;
        block b = {0};
        quantise_block(&f, src + at, w, &b);
        if (!isfinite(b.d) || !isfinite(b.dmin))
            return sw_fail("values %" PRId64 " to %" PRId64 " are too large for the half-precision scales of %s", at,
                           at + N - 1, sw_dtypes[dtype].name);
        pack(p, dtype, &b);
    }
    return 0;
}
