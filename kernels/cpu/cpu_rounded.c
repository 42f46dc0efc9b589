/* Dot products of rows rounded to 16 bits with quantised weights, in whole numbers a block at a time: at AVX-512 by
 * vpdpbusd, which multiplies and adds 64 pairs of bytes (x is 256 high + low), with AVX2 by vpmaddwd. Built without
 * contraction (kernels.mk), so that x is rounded alike at every level. 8 bits, as llama.cpp has them, would halve the
 * products, which are not what takes the time; but they are coarser than bf16, and of SmolLM2-135M's answers they
 * change most before 50 tokens. Where several rows share what is read of w, bytes of w become 16 bits, and products of
 * pairs (vpdpwssd) spare what puts high and low together; sums and their order are the same. */
#include "cpu_levels.h"
#include "cpu_linear.h"

#include "base/memory.h"

typedef uint8_t byte;

enum { PER = SW_LEVEL_RUN, LARGEST = 127 * 256 };

/* Of values of which `most` is the largest: what they are multiplied with to become whole numbers, and what these stand
 * for. Tiny ones become 0, and NaN and infinity end in the unit. */
static inline float units(float most) { return most >= 0x1p-100f ? LARGEST / most : 0; }
static inline float unit(float most) { return most < 0x1p-100f ? 0 : most / LARGEST; }

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

/* Values of a product of two vectors; bytes of weights asked for before their turn; rows of x, and of w, that share (where
 * reading w sets the time: one of each, two streams are slower); rows of x at a time that do not. */
enum { GROUP = 128, RUNS = GROUP / PER, AHEAD = 8192, ROWS = 8, HALF_ROWS = ROWS / 2, OUTS = 2, APART = 1 };

/* GROUP values of x, in the order in which levels of the weights' type come out of their bytes. `start` is what
 * products begin with: levels are multiplied as unsigned bytes, which for types around 0 are larger by an offset. */
typedef struct group {
    int8_t high[GROUP], low[GROUP];
    int32_t start[GROUP / 4];
    float scale[RUNS], sum[RUNS];
} __attribute__((aligned(64))) group;

/* The same for several rows: the even bytes' places of the first vector of levels, its odd ones', then the second's, and
 * scales lane by lane, for the first vector of products and the second. Levels are signed here. */
typedef struct shared_group {
    int16_t q[4][GROUP / 4];
    float scale[2][16], sum[RUNS];
} __attribute__((aligned(64))) shared_group;

/* Rows from which on they share. */
static bool shares(int64_t rows) { return rows >= HALF_ROWS; }
static size_t group_bytes(bool shared) { return shared ? sizeof(shared_group) : sizeof(group); }

/* Bytes of a block hold values i and i + 16: of four blocks, first halves come and then second ones, so that a lane of
 * both vectors belongs to one block. */
static inline bool has_halves(sw_dtype t) { return t == SW_Q4_0 || t == SW_Q4_1 || t == SW_Q5_0 || t == SW_Q5_1; }
static inline int offset_of(sw_dtype t)
{
    return t == SW_Q4_0 ? 8 : t == SW_Q5_0 ? 16 : t == SW_Q8_0 ? 128 : t == SW_Q6_K ? 32 : 0;
}

/* Rows that share at once: what registers hold, two scales or minima beside the sums or not. */
static inline int rows_of(sw_dtype t) { return has_halves(t) && !sw_levels_have_min(t) ? ROWS : HALF_ROWS; }

static int64_t groups_of(const sw_tensor *x) { return (x->shape[1] + GROUP - 1) / GROUP; }

size_t SW_CPU(rounded_bytes)(const sw_tensor *x, sw_dtype w)
{
    return sw_has_levels(w) ? (size_t)(x->shape[0] * groups_of(x)) * group_bytes(shares(x->shape[0])) : 0;
}

static void fill_group(group *to, const float *x, sw_dtype w)
{
    static const int order[3][8] = {
        {0, 1, 2, 3, 4, 5, 6, 7}, {0, 4, 1, 5, 2, 6, 3, 7}, {0, 1, 4, 5, 2, 3, 6, 7}}; /* where sixteens go */
    const int *place = order[has_halves(w) ? 1 : w == SW_Q4_K || w == SW_Q5_K ? 2 : 0];
    const __m512i zero = _mm512_setzero_si512(), by = _mm512_set1_epi8((char)offset_of(w));
    for (int i = 0; i < RUNS; i++) {
        __m512 v[2] = {_mm512_loadu_ps(x + i * PER), _mm512_loadu_ps(x + i * PER + 16)};
        /* bits of |x| are ordered as the values are, NaN highest: it and infinity end in the scale */
        __m512i sizes = _mm512_max_epu32(_mm512_castps_si512(_mm512_abs_ps(v[0])),
                                         _mm512_castps_si512(_mm512_abs_ps(v[1]))),
                sum = zero;
        uint32_t top = _mm512_reduce_max_epu32(sizes);
        float most;
        memcpy(&most, &top, 4);
        __m512 up = _mm512_set1_ps(units(most));
        for (int half = 0; half < 2; half++) {
            __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(v[half], up)); /* to the nearest, even where two are as near */
            int at = place[i * 2 + half] * 16;
            _mm_store_si128((__m128i *)(void *)(to->low + at), _mm512_cvtepi32_epi8(q));
            _mm_store_si128((__m128i *)(void *)(to->high + at),
                            _mm512_cvtepi32_epi8(_mm512_srai_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(128)), 8)));
            sum = _mm512_add_epi32(sum, q);
        }
        to->scale[i] = unit(most);
        to->sum[i] = sw_levels_have_min(w) ? to->scale[i] * (float)_mm512_reduce_add_epi32(sum) : 0;
    }
    for (int i = 0; i < 2; i++) {
        __m512i high = _mm512_dpbusd_epi32(zero, by, _mm512_load_si512(to->high + 64 * i));
        __m512i all = _mm512_dpbusd_epi32(_mm512_slli_epi32(high, 8), by, _mm512_load_si512(to->low + 64 * i));
        __m512i *start = (__m512i *)(void *)to->start;
        if (has_halves(w) && i)
            _mm512_store_si512(start, _mm512_sub_epi32(_mm512_load_si512(start), all));
        else
            _mm512_store_si512(start + i, _mm512_sub_epi32(zero, all));
    }
}

/* Lanes of run i: four of them (both vectors), or eight of one vector and then of the other. */
#define LANES(a, b, c, d) _mm512_setr_epi32(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d)

/* What scales runs, in the lanes of the first vector of products or of the second. */
__attribute__((always_inline)) static inline __m512 in_lanes(sw_dtype t, bool second, __m128 runs)
{
    const bool natural = t == SW_Q6_K || t == SW_Q8_0;
    __m512i at = has_halves(t) ? LANES(0, 1, 2, 3)
                 : natural     ? (second ? LANES(2, 2, 3, 3) : LANES(0, 0, 1, 1))
                               : (second ? LANES(1, 1, 3, 3) : LANES(0, 0, 2, 2));
    return _mm512_permutexvar_ps(at, _mm512_castps128_ps512(runs));
}

static void share_group(shared_group *to, const group *g, sw_dtype w)
{
    for (int i = 0; i < 2; i++) {
        __m512i high = _mm512_load_si512(g->high + 64 * i), low = _mm512_load_si512(g->low + 64 * i);
        __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(low, 8), 8), odd = _mm512_srai_epi16(low, 8);
        _mm512_store_si512(to->q[2 * i], _mm512_add_epi16(_mm512_slli_epi16(high, 8), even));
        _mm512_store_si512(to->q[2 * i + 1], _mm512_add_epi16(_mm512_and_si512(high, _mm512_set1_epi16((short)0xff00)), odd));
        _mm512_store_ps(to->scale[i], in_lanes(w, i, _mm_load_ps(g->scale)));
    }
    memcpy(to->sum, g->sum, sizeof to->sum);
}

sw_rounded_rows SW_CPU(rounded_rows)(void *space, const sw_tensor *x, sw_dtype w)
{
    int64_t in = x->shape[1], per_row = groups_of(x);
    bool shared = shares(x->shape[0]);
    char *to = space;
    for (int64_t r = 0; r < x->shape[0]; r++)
        for (int64_t c = 0; c < in; c += GROUP) {
            float buf[GROUP];
            int64_t n = SW_MIN(GROUP, in - c);
            const float *from = sw_load(sw_at(x, r * x->stride[0] + c), x->dtype, n, buf);
            if (n < GROUP) {
                memmove(buf, from, (size_t)n * sizeof *buf);
                memset(buf + n, 0, (size_t)(GROUP - n) * sizeof *buf);
                from = buf;
            }
            group one;
            fill_group(shared ? &one : (group *)(void *)to, from, w);
            if (shared)
                share_group((shared_group *)(void *)to, &one, w);
            to += group_bytes(shared);
        }
    return (sw_rounded_rows){space, (size_t)per_row * group_bytes(shared), shared};
}

static inline __m128i xmm_at(const byte *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }
static inline __m256i ymm_at(const byte *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
static inline __m512i two_ymm(__m256i a, __m256i b) { return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1); }
static inline int short_at(const byte *p)
{
    int16_t v;
    memcpy(&v, p, 2);
    return v;
}
static inline int int_at(const byte *p)
{
    int32_t v;
    memcpy(&v, p, 4);
    return v;
}

/* The first `n` (1 to 4) of four xmm words, shorts and ints `step` bytes apart; the rest are 0. */
__attribute__((always_inline)) static inline __m512i four_xmm(const byte *b, int step, int n)
{
    const __m128i none = _mm_setzero_si128();
    __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(xmm_at(b)), n > 1 ? xmm_at(b + step) : none, 1);
    if (n <= 2)
        return _mm512_zextsi256_si512(low);
    return two_ymm(low, _mm256_inserti128_si256(_mm256_castsi128_si256(xmm_at(b + 2 * step)),
                                                n > 3 ? xmm_at(b + 3 * step) : none, 1));
}
__attribute__((always_inline)) static inline __m128i four_shorts(const byte *b, int step, int n)
{
    __m128i v = _mm_cvtsi32_si128(short_at(b) & 0xffff);
    v = n > 1 ? _mm_insert_epi16(v, short_at(b + step), 1) : v;
    v = n > 2 ? _mm_insert_epi16(v, short_at(b + 2 * step), 2) : v;
    return n > 3 ? _mm_insert_epi16(v, short_at(b + 3 * step), 3) : v;
}
__attribute__((always_inline)) static inline __m128i four_ints(const byte *b, int step, int n)
{
    __m128i v = _mm_cvtsi32_si128(int_at(b));
    v = n > 1 ? _mm_insert_epi32(v, int_at(b + step), 1) : v;
    v = n > 2 ? _mm_insert_epi32(v, int_at(b + 2 * step), 2) : v;
    return n > 3 ? _mm_insert_epi32(v, int_at(b + 3 * step), 3) : v;
}
static inline __mmask64 mask_of(__m128i four) { return (__mmask64)_mm_cvtsi128_si64(four); }

/* Levels of GROUP values as unsigned bytes: of `n` blocks of 32, or of half h of a block of 256. */
__attribute__((always_inline)) static inline void group_levels(__m512i q[2], sw_dtype t, const byte *b, int n, int h)
{
    const __m512i four = _mm512_set1_epi8(15);
    const int step = sw_block_bytes(t);
    if (t == SW_Q8_0) {
        const __m256i none = _mm256_setzero_si256();
        const __m512i top = _mm512_set1_epi8((char)128);
        q[0] = _mm512_xor_si512(two_ymm(ymm_at(b + 2), n > 1 ? ymm_at(b + step + 2) : none), top);
        q[1] = _mm512_xor_si512(
            two_ymm(n > 2 ? ymm_at(b + 2 * step + 2) : none, n > 3 ? ymm_at(b + 3 * step + 2) : none), top);
        return;
    }
    __m512i v = has_halves(t) ? four_xmm(b + step - 16, step, n)
                              : _mm512_loadu_si512(b +
                                                   (t == SW_Q6_K   ? 0
                                                    : t == SW_Q5_K ? 48
                                                                   : 16) +
                                                   h * 64);
    q[0] = _mm512_and_si512(v, four);
    q[1] = _mm512_and_si512(_mm512_srli_epi16(v, 4), four);
    if (t == SW_Q5_0 || t == SW_Q5_1) {
        __m128i fifth = four_ints(b + step - 20, step, n); /* the first halves' shorts, then the second ones' */
        fifth = _mm_shuffle_epi8(fifth, _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
        q[0] = _mm512_mask_add_epi8(q[0], mask_of(fifth), q[0], _mm512_set1_epi8(16));
        q[1] = _mm512_mask_add_epi8(q[1], mask_of(_mm_srli_si128(fifth, 8)), q[1], _mm512_set1_epi8(16));
    } else if (t == SW_Q5_K) { /* runs 4h, 4h + 2; then 4h + 1, 4h + 3 */
        __m512i high = _mm512_broadcast_i64x4(ymm_at(b + 16));
        __m512i bit = two_ymm(_mm256_set1_epi8((char)(1 << 4 * h)), _mm256_set1_epi8((char)(4 << 4 * h)));
        q[0] = _mm512_mask_add_epi8(q[0], _mm512_test_epi8_mask(high, bit), q[0], _mm512_set1_epi8(16));
        bit = _mm512_add_epi8(bit, bit);
        q[1] = _mm512_mask_add_epi8(q[1], _mm512_test_epi8_mask(high, bit), q[1], _mm512_set1_epi8(16));
    } else if (t == SW_Q6_K) { /* two bits each of runs 4h .. 4h + 3 */
        __m512i high = _mm512_broadcast_i64x4(ymm_at(b + 128 + h * 32)), two = _mm512_set1_epi8(0x30);
        __m512i first = two_ymm(_mm256_set1_epi16(4), _mm256_set1_epi16(2)),
                second = two_ymm(_mm256_setzero_si256(), _mm256_set1_epi16(2));
        q[0] = _mm512_or_si512(q[0], _mm512_and_si512(_mm512_sllv_epi16(high, first), two));
        q[1] = _mm512_or_si512(q[1], _mm512_and_si512(_mm512_srlv_epi16(high, second), two));
    }
}

/* Of a group: what scales its runs, and their minima; Q6_K scales sixteens, here lane by lane. */
typedef struct scales {
    __m128 scale, min;
    __m512 lanes[2];
} scales;

__attribute__((always_inline)) static inline scales block_scales(sw_dtype t, const byte *b, int n)
{
    const int step = sw_block_bytes(t);
    scales s = {_mm_setzero_ps(), _mm_setzero_ps(), {_mm512_setzero_ps(), _mm512_setzero_ps()}};
    if (sw_levels_have_min(t)) {
        __m128i v = _mm_shuffle_epi8(four_ints(b, step, n),
                                     _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
        __m256 both = _mm256_cvtph_ps(v);
        s.scale = _mm256_castps256_ps128(both);
        s.min = _mm256_extractf128_ps(both, 1);
    } else {
        s.scale = _mm_cvtph_ps(four_shorts(b, step, n));
    }
    return s;
}

/* The same for halves 0 and 1 of a block of 256 (kernels/blocks.c has its layout in words). */
__attribute__((always_inline)) static inline void k_scales(scales s[2], sw_dtype t, const byte *b)
{
    if (t == SW_Q6_K) {
        __m512 v = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(xmm_at(b + 192)));
        v = _mm512_mul_ps(v, _mm512_set1_ps(sw_half_at(b + 208)));
        for (int h = 0; h < 2; h++) {
            s[h].lanes[0] = _mm512_permutexvar_ps(_mm512_add_epi32(LANES(0, 1, 2, 3), _mm512_set1_epi32(8 * h)), v);
            s[h].lanes[1] = _mm512_permutexvar_ps(_mm512_add_epi32(LANES(4, 5, 6, 7), _mm512_set1_epi32(8 * h)), v);
            s[h].scale = s[h].min = _mm_setzero_ps();
        }
        return;
    }
    uint32_t w[3], low[4]; /* six bits each: scales of runs 0..3, 4..7, then minima */
    memcpy(w, b + 4, sizeof w);
    low[0] = w[0] & 0x3f3f3f3f;
    low[1] = (w[2] & 0x0f0f0f0f) | (w[0] >> 2 & 0x30303030);
    low[2] = w[1] & 0x3f3f3f3f;
    low[3] = (w[2] >> 4 & 0x0f0f0f0f) | (w[1] >> 2 & 0x30303030);
    __m512 v =
        _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_set_epi32((int)low[3], (int)low[2], (int)low[1], (int)low[0])));
    __m128 d = _mm_set1_ps(sw_half_at(b)), dmin = _mm_set1_ps(-sw_half_at(b + 2));
    s[0].scale = _mm_mul_ps(_mm512_castps512_ps128(v), d);
    s[1].scale = _mm_mul_ps(_mm512_extractf32x4_ps(v, 1), d);
    s[0].min = _mm_mul_ps(_mm512_extractf32x4_ps(v, 2), dmin);
    s[1].min = _mm_mul_ps(_mm512_extractf32x4_ps(v, 3), dmin);
    s[0].lanes[0] = s[0].lanes[1] = s[1].lanes[0] = s[1].lanes[1] = _mm512_setzero_ps();
}

/* Of a row of x and one of w: vectors that add up to their product so far. */
typedef struct sums {
    __m512 of;
    __m128 min;
} sums;

/* Adds the products of a group of a row of x with the same one, of n blocks or half h of one, of a row of w. */
__attribute__((always_inline)) static inline void add_group(sums *sum, const group *g, sw_dtype t, const byte *b, int n,
                                                            int h, const scales *s)
{
    const __m512i zero = _mm512_setzero_si512();
    __m512i q[2];
    group_levels(q, t, b, n, h);
    const __m128 by = _mm_load_ps(g->scale), lanes = t == SW_Q6_K ? by : _mm_mul_ps(s->scale, by);
    __m512i above = _mm512_dpbusd_epi32(zero, q[0], _mm512_load_si512(g->high)),
            p = _mm512_dpbusd_epi32(_mm512_load_si512(g->start), q[0], _mm512_load_si512(g->low));
    if (has_halves(t)) {
        above = _mm512_dpbusd_epi32(above, q[1], _mm512_load_si512(g->high + 64));
        p = _mm512_dpbusd_epi32(p, q[1], _mm512_load_si512(g->low + 64));
        p = _mm512_add_epi32(p, _mm512_slli_epi32(above, 8));
        sum->of = _mm512_fmadd_ps(_mm512_cvtepi32_ps(p), in_lanes(t, false, lanes), sum->of);
    } else {
        __m512i above1 = _mm512_dpbusd_epi32(zero, q[1], _mm512_load_si512(g->high + 64));
        __m512i p1 = _mm512_dpbusd_epi32(_mm512_load_si512(g->start + 16), q[1], _mm512_load_si512(g->low + 64));
        p = _mm512_add_epi32(p, _mm512_slli_epi32(above, 8));
        p1 = _mm512_add_epi32(p1, _mm512_slli_epi32(above1, 8));
        __m512 first = in_lanes(t, false, lanes), second = in_lanes(t, true, lanes);
        if (t == SW_Q6_K) {
            first = _mm512_mul_ps(first, s->lanes[0]);
            second = _mm512_mul_ps(second, s->lanes[1]);
        }
        sum->of = _mm512_fmadd_ps(_mm512_cvtepi32_ps(p), first, sum->of);
        sum->of = _mm512_fmadd_ps(_mm512_cvtepi32_ps(p1), second, sum->of);
    }
    if (sw_levels_have_min(t))
        sum->min = _mm_fmadd_ps(s->min, _mm_load_ps(g->sum), sum->min);
}

/* The same for `rows` rows of x and `outs` of w, which share. */
__attribute__((always_inline)) static inline void add_shared(sums *sum, int rows, int outs, const char *x, size_t line,
                                                             sw_dtype t, const byte *b, size_t w_line, int n, int h,
                                                             const scales *s, int step)
{
    const __m512i even = _mm512_set1_epi16(255), by_which = _mm512_set1_epi16((short)offset_of(t));
    __m512i q[OUTS][4];
    __m512 by[OUTS][2];
    for (int o = 0; o < outs; o++) {
        __m512i bytes[2];
        group_levels(bytes, t, b + (size_t)o * w_line, n, h);
        for (int i = 0; i < 2; i++) {
            q[o][2 * i] = _mm512_and_si512(bytes[i], even);
            q[o][2 * i + 1] = _mm512_srli_epi16(bytes[i], 8);
            if (offset_of(t)) {
                q[o][2 * i] = _mm512_sub_epi16(q[o][2 * i], by_which);
                q[o][2 * i + 1] = _mm512_sub_epi16(q[o][2 * i + 1], by_which);
            }
            by[o][i] = t == SW_Q6_K ? s[o * step].lanes[i] : in_lanes(t, i, s[o * step].scale);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        const shared_group *g = (const shared_group *)(const void *)(x + (size_t)r * line);
#pragma GCC unroll 2
        for (int o = 0; o < outs; o++, sum++) {
            __m512i p = _mm512_madd_epi16(q[o][0], _mm512_load_si512(g->q[0]));
            p = _mm512_dpwssd_epi32(p, q[o][1], _mm512_load_si512(g->q[1]));
            __m512i x2 = _mm512_load_si512(g->q[2]);
            __m512i p1 = has_halves(t) ? _mm512_dpwssd_epi32(p, q[o][2], x2) : _mm512_madd_epi16(q[o][2], x2);
            p1 = _mm512_dpwssd_epi32(p1, q[o][3], _mm512_load_si512(g->q[3]));
            if (!has_halves(t))
                sum->of = _mm512_fmadd_ps(_mm512_cvtepi32_ps(p), _mm512_mul_ps(by[o][0], _mm512_load_ps(g->scale[0])), sum->of);
            int last = has_halves(t) ? 0 : 1;
            sum->of = _mm512_fmadd_ps(_mm512_cvtepi32_ps(p1), _mm512_mul_ps(by[o][last], _mm512_load_ps(g->scale[last])), sum->of);
            if (sw_levels_have_min(t))
                sum->min = _mm_fmadd_ps(s[o * step].min, _mm_load_ps(g->sum), sum->min);
        }
    }
}

__attribute__((always_inline)) static inline void add_any(sums *sum, bool shared, int rows, int outs, const char *x,
                                                          size_t line, sw_dtype t, const byte *b, size_t w_line, int n,
                                                          int h, const scales *s, int step)
{
    if (shared)
        add_shared(sum, rows, outs, x, line, t, b, w_line, n, h, s, step);
    else
        add_group(sum, (const group *)(const void *)x, t, b, n, h, s); /* one row each */
}

__attribute__((always_inline)) static inline void add_blocks(sums *sum, bool shared, int rows, int outs, const char *x,
                                                             size_t line, sw_dtype t, const byte *b, size_t w_line, int n)
{
    scales s[OUTS];
    for (int o = 0; o < outs; o++)
        s[o] = block_scales(t, b + (size_t)o * w_line, n);
    add_any(sum, shared, rows, outs, x, line, t, b, w_line, n, 0, s, 1);
}

/* Products of `rows` rows of x with `outs` rows of w. */
__attribute__((always_inline)) static inline void some_rows(sw_vec *lane, bool shared, int rows, int outs,
                                                            const char *x, size_t line, const byte *b, size_t w_line,
                                                            sw_dtype t, int64_t in)
{
    const int bytes = sw_block_bytes(t), span = sw_block_values(t) == 256 ? 256 : GROUP;
    const size_t each = group_bytes(shared);
    sums sum[ROWS * OUTS];
    for (int i = 0; i < rows * outs; i++)
        sum[i] = (sums){_mm512_setzero_ps(), _mm_setzero_ps()};
    int64_t i = 0;
    for (; i + span <= in; i += span, x += span / GROUP * each, b += span / sw_block_values(t) * bytes) {
        for (int o = 0; o < outs; o++)
            for (int p = 0; p < span / sw_block_values(t) * bytes; p += 64)
                __builtin_prefetch(b + (size_t)o * w_line + p + AHEAD);
        if (span == 256) {
            scales s[OUTS][2];
            for (int o = 0; o < outs; o++)
                k_scales(s[o], t, b + (size_t)o * w_line);
            add_any(sum, shared, rows, outs, x, line, t, b, w_line, 4, 0, s[0], 2);
            add_any(sum, shared, rows, outs, x + each, line, t, b, w_line, 4, 1, s[0] + 1, 2);
        } else {
            add_blocks(sum, shared, rows, outs, x, line, t, b, w_line, 4);
        }
    }
    switch ((in - i) / PER) {
    case 3: add_blocks(sum, shared, rows, outs, x, line, t, b, w_line, 3); break;
    case 2: add_blocks(sum, shared, rows, outs, x, line, t, b, w_line, 2); break;
    case 1: add_blocks(sum, shared, rows, outs, x, line, t, b, w_line, 1); break;
    default: break;
    }
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < outs; o++)
            lane[r * SW_LANES + o] =
                (sw_vec)_mm512_add_ps(sum[r * outs + o].of, _mm512_zextps128_ps512(sum[r * outs + o].min));
}

#else

/* A run of x: value i of it is scale * q[i], and sum all of them. */
typedef struct run {
    int16_t q[PER];
    float scale, sum;
} run;

/* q = PER values at x in units of the result. */
static float rounded(int16_t *q, const float *x)
{
    uint32_t top = 0; /* bits of |x| are ordered as the values are, NaN highest */
    for (int i = 0; i < PER; i++) {
        uint32_t u;
        memcpy(&u, x + i, 4);
        u &= 0x7fffffff;
        top = u > top ? u : top;
    }
    float most;
    memcpy(&most, &top, 4);
    float up = units(most);
    for (int i = 0; i < PER; i++) {
        float v = x[i] * up + 0x1.8p23f; /* its last bits: the nearest whole number, even where two are as near */
        uint32_t u;
        memcpy(&u, &v, 4);
        q[i] = (int16_t)(uint16_t)u;
    }
    return unit(most);
}

enum { ROWS = 4, HALF_ROWS = ROWS, OUTS = 1, APART = ROWS };
static inline int rows_of(sw_dtype t) { return (void)t, ROWS; }

size_t SW_CPU(rounded_bytes)(const sw_tensor *x, sw_dtype w)
{
    return sw_has_levels(w) ? (size_t)(x->shape[0] * (x->shape[1] / PER)) * sizeof(run) : 0;
}

sw_rounded_rows SW_CPU(rounded_rows)(void *space, const sw_tensor *x, sw_dtype w)
{
    (void)w;
    run *to = space;
    for (int64_t r = 0; r < x->shape[0]; r++)
        for (int64_t c = 0; c < x->shape[1]; c += PER, to++) {
            float buf[PER];
            int sum = 0;
            to->scale = rounded(to->q, sw_load(sw_at(x, r * x->stride[0] + c), x->dtype, PER, buf));
            for (int i = 0; i < PER; i++)
                sum += to->q[i];
            to->sum = to->scale * (float)sum;
        }
    return (sw_rounded_rows){space, (size_t)(x->shape[1] / PER) * sizeof(run), false};
}

/* sum += products of a run's halves with levels q, scaled by d[0] and d[1]. */
__attribute__((always_inline)) static inline sw_vec add_products(sw_vec sum, const sw_levels q[2], const int16_t *x,
                                                                 const float d[2], sw_dtype t)
{
#if defined(__AVX2__)
    const __m256i *at = (const __m256i *)(const void *)x;
    __m256i p = _mm256_madd_epi16(_mm256_cvtepi8_epi16((__m128i)q[0]), _mm256_loadu_si256(at));
    __m256i second = _mm256_madd_epi16(_mm256_cvtepi8_epi16((__m128i)q[1]), _mm256_loadu_si256(at + 1));
    if (t == SW_Q6_K) /* the halves' scales differ */
        sum = (sw_vec)_mm256_fmadd_ps(_mm256_cvtepi32_ps(second), _mm256_set1_ps(d[1]), (__m256)sum);
    else
        p = _mm256_add_epi32(p, second);
    return (sw_vec)_mm256_fmadd_ps(_mm256_cvtepi32_ps(p), _mm256_set1_ps(d[0]), (__m256)sum);
#else
    (void)t;
    for (int half = 0; half < 2; half++) {
        int p = 0;
        for (int i = 0; i < 16; i++)
            p += q[half][i] * x[half * 16 + i];
        sum[half] += d[half] * (float)p;
    }
    return sum;
#endif
}

__attribute__((always_inline)) static inline void some_rows(sw_vec *lane, bool shared, int rows, int outs,
                                                            const char *at, size_t line, const byte *b, size_t w_line,
                                                            sw_dtype t, int64_t in)
{
    (void)shared, (void)outs, (void)w_line; /* no, one */
    sw_vec sum[ROWS] = {{0}};
    float mins[ROWS] = {0};
    for (int64_t i = 0; i < in; i += sw_block_values(t), b += sw_block_bytes(t)) {
        float scale[16], min[8];
        sw_block_scales(scale, min, t, b);
#pragma GCC unroll 8
        for (int g = 0; g < sw_block_values(t) / PER; g++, at += sizeof(run)) {
            sw_levels q[2];
            sw_run_levels(q, t, b, g);
            for (int r = 0; r < rows; r++) {
                const run *x = (const run *)(const void *)(at + (size_t)r * line);
                sum[r] =
                    add_products(sum[r], q, x->q, (float[]){scale[2 * g] * x->scale, scale[2 * g + 1] * x->scale}, t);
                if (sw_levels_have_min(t))
                    mins[r] += min[g] * x->sum;
            }
        }
    }
    for (int r = 0; r < rows; r++) {
        sum[r][0] += mins[r];
        lane[r * SW_LANES] = sum[r];
    }
}

#endif

/* Products with `outs` rows of w. */
__attribute__((always_inline)) static inline void all_rows(sw_vec *lane, bool shared, int64_t rows, int outs,
                                                           const sw_rounded_rows *x, const void *w, size_t w_line,
                                                           sw_dtype t, int64_t in)
{
    const char *at = x->at;
    for (; shared && rows >= ROWS && rows_of(t) == ROWS; rows -= ROWS, lane += ROWS * SW_LANES, at += ROWS * x->line)
        some_rows(lane, shared, ROWS, outs, at, x->line, w, w_line, t, in);
    for (; rows >= HALF_ROWS && (shared || APART > 1); rows -= HALF_ROWS, lane += HALF_ROWS * SW_LANES, at += HALF_ROWS * x->line)
        some_rows(lane, shared, HALF_ROWS, outs, at, x->line, w, w_line, t, in);
    for (; rows; rows--, lane += SW_LANES, at += x->line)
        some_rows(lane, shared, 1, outs, at, x->line, w, w_line, t, in);
}

void SW_CPU(rounded_dots)(sw_vec *lane, int64_t rows, const sw_rounded_rows *x, const void *w, size_t w_line,
                          int64_t count, sw_dtype type, int64_t in)
{
    int64_t o = 0;
    switch (type) {
#define CASE(t)                                                                                                        \
    case t:                                                                                                            \
        for (; x->shared && o + OUTS <= count; o += OUTS)                                                              \
            all_rows(lane + o, true, rows, OUTS, x, (const byte *)w + (size_t)o * w_line, w_line, t, in);              \
        for (; x->shared && o < count; o++)                                                                            \
            all_rows(lane + o, true, rows, 1, x, (const byte *)w + (size_t)o * w_line, w_line, t, in);                 \
        for (; o < count; o++)                                                                                         \
            all_rows(lane + o, false, rows, 1, x, (const byte *)w + (size_t)o * w_line, w_line, t, in);                \
        return;
        SW_LEVEL_TYPES(CASE)
#undef CASE
    default: return;
    }
}
