/* Values of 8-bit floats (OCP OFP8) times their scales, and products of bf16 rows with them. */
#include "cpu_linear.h"

#include "base/memory.h"

typedef uint8_t byte;

/* ---- values. An e5m2 is the upper half of an f16; the bits of an e4m3, moved, are an f16 of 2^-8 times its value. */

static inline float value_of(byte b, sw_dtype t)
{
    const bool e5 = t == SW_F8_E5M2;
    uint32_t size = b & 0x7f, bits = size << (e5 ? 21 : 20);
    float v;
    memcpy(&v, &bits, sizeof v);
    v *= e5 ? 0x1p112f : 0x1p120f;
    memcpy(&bits, &v, sizeof bits);
    if (e5 ? size >= 0x7c : size == 0x7f)
        bits = e5 && size == 0x7c ? 0x7f800000 : 0x7fc00000;
    bits |= (uint32_t)(b & 0x80) << 24;
    memcpy(&v, &bits, sizeof v);
    return v;
}

#if defined(__AVX512F__) && defined(__AVX512VL__)
static inline sw_vec some_values(const byte *from, sw_dtype t)
{
    __m256i w = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)from));
    if (t == SW_F8_E5M2)
        return (sw_vec)_mm512_cvtph_ps(_mm256_slli_epi16(w, 8));
    __m256i size = _mm256_and_si256(w, _mm256_set1_epi16(0x7f)), sign = _mm256_slli_epi16(_mm256_xor_si256(w, size), 8);
    __m256i half = _mm256_or_si256(_mm256_slli_epi16(size, 7), sign);
    half = _mm256_mask_mov_epi16(half, _mm256_cmpeq_epi16_mask(size, _mm256_set1_epi16(0x7f)), _mm256_set1_epi16(0x7e00));
    return (sw_vec)_mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256));
}
#elif defined(__AVX2__)
static inline sw_vec some_values(const byte *from, sw_dtype t)
{
    __m128i w = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)from));
    if (t == SW_F8_E5M2)
        return (sw_vec)_mm256_cvtph_ps(_mm_slli_epi16(w, 8));
    __m128i size = _mm_and_si128(w, _mm_set1_epi16(0x7f)), sign = _mm_slli_epi16(_mm_xor_si128(w, size), 8);
    __m128i half = _mm_or_si128(_mm_slli_epi16(size, 7), sign);
    half = _mm_blendv_epi8(half, _mm_set1_epi16(0x7e00), _mm_cmpeq_epi16(size, _mm_set1_epi16(0x7f)));
    return (sw_vec)_mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256));
}
#else
static inline sw_vec some_values(const byte *from, sw_dtype t)
{
    sw_vec v;
    for (int i = 0; i < SW_LANES; i++)
        v[i] = value_of(from[i], t);
    return v;
}
#endif

__attribute__((always_inline)) static inline void decode(float *dst, const byte *from, sw_dtype t, int64_t n, float scale)
{
    int64_t i = 0;
    for (; i + SW_LANES <= n; i += SW_LANES)
        *(sw_vec *)(void *)(dst + i) = some_values(from + i, t) * scale;
    for (; i < n; i++)
        dst[i] = value_of(from[i], t) * scale;
}

void SW_CPU(float8_values)(float *dst, const void *src, sw_dtype t, const sw_scales *s, int64_t n)
{
    const byte *from = src;
    for (int64_t i = 0; i < n;) {
        int64_t column = 0, m = n - i;
        float scale = 1;
        if (s) { /* up to the end of the block or of the row */
            const float *line = sw_scales_at(s, from + i, &column);
            scale = line[column / s->wide];
            m = SW_MIN(m, SW_MIN((column / s->wide + 1) * s->wide, s->width) - column);
        }
        if (t == SW_F8_E5M2)
            decode(dst + i, from + i, SW_F8_E5M2, m, scale);
        else
            decode(dst + i, from + i, SW_F8_E4M3, m, scale);
        i += m;
    }
}

/* ---- products by vdpbf16ps */

enum { ROWS = 4, STEP = 128, AHEAD = 4096 }; /* rows at a time; values under one scale; bytes of weights asked for before their turn */

bool SW_CPU(float8_pairs)(const sw_tensor *w)
{
    int64_t column = 0;
    if (!SW_HAS_BF16_DOT)
        return false;
    if (!w->scales || !sw_numel(w))
        return true;
    sw_scales_at(w->scales, w->data, &column);
    bool whole = w->scales->wide >= w->scales->width;
    return (whole || (w->scales->wide % STEP == 0 && column % STEP == 0)) &&
           (w->shape[0] == 1 || w->stride[0] % w->scales->width == 0);
}

#if defined(__AVX512BF16__) && defined(__AVX512BW__)

/* bf16 of what does not follow the rule by which bits are moved, by its own low five: values below the least normal one, NaN and
 * (of e5m2) infinity. All values are exact in bf16. */
__attribute__((always_inline)) static inline __m512i specials(sw_dtype t)
{
    static const uint16_t e4m3[32] = {0x0000, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60, [31] = 0x7fc0};
    static const uint16_t e5m2[32] = {0x0000, 0x3780, 0x3800, 0x3840, [28] = 0x7f80, 0x7fc0, 0x7fc0, 0x7fc0};
    return _mm512_loadu_si512(t == SW_F8_E5M2 ? e5m2 : e4m3);
}

/* The bytes in the lower, or upper, halves of the words of v, as bf16. */
__attribute__((always_inline)) static inline __m512bh halves(__m512i v, bool upper, __m512i special, sw_dtype t)
{
    const bool e5 = t == SW_F8_E5M2;
    const int least = e5 ? 4 : 8, most = e5 ? 0x7c : 0x7f, up = e5 ? 5 : 4, bias = e5 ? 112 : 120;
    __m512i moved = upper ? _mm512_srli_epi16(v, (unsigned)(8 - up)) : _mm512_slli_epi16(v, (unsigned)up);
    __m512i size = _mm512_and_si512(moved, _mm512_set1_epi16((short)(0x7f << up)));
    __m512i above = _mm512_sub_epi16(size, _mm512_set1_epi16((short)(least << up))); /* those below the least wrap around */
    __mmask32 odd = _mm512_cmpge_epu16_mask(above, _mm512_set1_epi16((short)((most - least) << up)));
    __m512i plain = _mm512_add_epi16(size, _mm512_set1_epi16((short)(bias << 7)));
    __m512i value = _mm512_mask_permutexvar_epi16(plain, odd, upper ? _mm512_srli_epi16(v, 8) : v, special);
    __m512i sign = upper ? v : _mm512_slli_epi16(v, 8);
    return (__m512bh)_mm512_ternarylogic_epi32(value, sign, _mm512_set1_epi16((short)0x8000), 0xf8); /* value | (sign & top) */
}

static inline __m512bh pairs_at(const uint16_t *x) { return (__m512bh)_mm512_loadu_si512(x); }

/* 64 values of a row of w against those of x at `at`. */
__attribute__((always_inline)) static inline void add_64(__m512 *sum, int rows, const sw_pair_rows *x, int64_t at, __m512i bytes,
                                                         __m512i special, sw_dtype t)
{
    __m512bh even = halves(bytes, false, special, t), odd = halves(bytes, true, special, t);
    for (int r = 0; r < rows; r++) {
        const uint16_t *from = x->x + r * x->line + at;
        sum[2 * r] = _mm512_dpbf16_ps(_mm512_dpbf16_ps(sum[2 * r], even, pairs_at(from)), odd, pairs_at(from + 32));
    }
}

__attribute__((always_inline)) static inline void some_rows(sw_vec *lane, int rows, const sw_pair_rows *x, const byte *w, sw_dtype t,
                                                            const float *scale, int64_t column, int64_t wide, int64_t n)
{
    const __m512i special = specials(t);
    __m512 sum[ROWS * 2];
    for (int i = 0; i < rows * 2; i++)
        sum[i] = _mm512_setzero_ps();
    int64_t left = INT64_MAX; /* of the block */
    float d = 1;
    if (scale) {
        scale += column / wide;
        left = wide - column % wide;
        d = *scale;
    }
    for (int64_t i = 0; i < n; i += STEP) {
        __m512 part[ROWS * 2];
        for (int k = 0; k < rows * 2; k++)
            part[k] = _mm512_setzero_ps();
        if (i + STEP <= n) {
            __builtin_prefetch(w + i + AHEAD);
            __builtin_prefetch(w + i + 64 + AHEAD);
            add_64(part, rows, x, i, _mm512_loadu_si512(w + i), special, t);
            add_64(part + 1, rows, x, i + 64, _mm512_loadu_si512(w + i + 64), special, t);
        } else {
            for (int64_t k = i; k < n; k += 64) {
                __mmask64 here = n - k >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << (n - k)) - 1;
                add_64(part, rows, x, k, _mm512_maskz_loadu_epi8(here, w + k), special, t);
            }
        }
        for (int k = 0; k < rows * 2; k++)
            sum[k] = _mm512_fmadd_ps(_mm512_set1_ps(d), part[k], sum[k]);
        if ((left -= STEP) <= 0 && i + STEP < n) {
            d = *++scale;
            left = wide;
        }
    }
    for (int r = 0; r < rows; r++)
        lane[r * SW_LANES] = (sw_vec)_mm512_add_ps(sum[2 * r], sum[2 * r + 1]);
}

__attribute__((always_inline)) static inline void all_rows(sw_vec *lane, int64_t rows, const sw_pair_rows *x, const byte *w, sw_dtype t,
                                                           const float *scale, int64_t column, int64_t wide, int64_t n)
{
    sw_pair_rows rest = *x;
    if (rows == 1) {
        some_rows(lane, 1, &rest, w, t, scale, column, wide, n);
        return;
    }
    for (; rows >= ROWS; rows -= ROWS, lane += ROWS * SW_LANES, rest.x += ROWS * rest.line)
        some_rows(lane, ROWS, &rest, w, t, scale, column, wide, n);
    if (rows >= 2) {
        some_rows(lane, 2, &rest, w, t, scale, column, wide, n);
        rows -= 2, lane += 2 * SW_LANES, rest.x += 2 * rest.line;
    }
    if (rows)
        some_rows(lane, 1, &rest, w, t, scale, column, wide, n);
}

void SW_CPU(float8_dots)(sw_vec *lane, int64_t rows, const sw_pair_rows *x, const sw_tensor *w, int64_t first, int64_t count)
{
    for (int64_t o = 0; o < count; o++) {
        const byte *at = (const byte *)w->data + (first + o) * w->stride[0];
        int64_t column = 0;
        const float *scale = w->scales ? sw_scales_at(w->scales, at, &column) : NULL;
        int64_t wide = w->scales ? w->scales->wide : 0;
        if (w->dtype == SW_F8_E5M2)
            all_rows(lane + o, rows, x, at, SW_F8_E5M2, scale, column, wide, w->shape[1]);
        else
            all_rows(lane + o, rows, x, at, SW_F8_E4M3, scale, column, wide, w->shape[1]);
    }
}

#else

void SW_CPU(float8_dots)(sw_vec *lane, int64_t rows, const sw_pair_rows *x, const sw_tensor *w, int64_t first, int64_t count)
{
    (void)lane, (void)rows, (void)x, (void)w, (void)first, (void)count;
}

#endif
