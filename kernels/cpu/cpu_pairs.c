/* Dot products of bf16 rows with stored weights by vdpbf16ps, which multiplies and adds 16 pairs. */
#include "cpu_levels.h"
#include "cpu_linear.h"

#include "base/memory.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__)

typedef uint8_t byte;
typedef short short_at __attribute__((aligned(1), may_alias));

/* Rows at a time, vectors summed apart in each, values of a product; bytes of weights asked for before their turn. */
enum { ROWS = 4, LINES = 4, PER = 32, RUNS = SW_RUN / PER, AHEAD = 4096 };

/* Types that are read here. */
#define PAIR_TYPES(X) SW_LEVEL_TYPES(X) X(SW_IQ4_NL) X(SW_MXFP4) X(SW_IQ4_XS)
static inline bool is_read(sw_dtype t)
{
    switch (t) {
#define X(type) case type:
        PAIR_TYPES(X)
#undef X
        return true;
    default: return false;
    }
}
static inline bool is_k(sw_dtype t) { return sw_block_values(t) == 256; }
static int64_t line_of(const sw_tensor *x) { return (x->shape[1] + SW_RUN - 1) / SW_RUN * SW_RUN; }

size_t SW_CPU(pair_bytes)(const sw_tensor *x, const sw_tensor *w)
{
    bool read = sw_is_float8(w->dtype) ? SW_CPU(float8_pairs)(w) : w->dtype == SW_BF16 || is_read(w->dtype);
    if (x->dtype != SW_BF16 || !read)
        return 0;
    int64_t line = line_of(x);
    return (size_t)(x->shape[0] * line) * sizeof(uint16_t) + (size_t)(x->shape[0] * line / PER) * sizeof(float);
}

/* Blocks whose bytes hold values i and i + 16: two of them are taken at a time. */
static inline bool has_halves(sw_dtype t)
{
    return t == SW_Q4_0 || t == SW_Q4_1 || t == SW_Q5_0 || t == SW_Q5_1 || t == SW_IQ4_NL || t == SW_MXFP4;
}

/* 64 values: those in even places, then those in odd ones. */
static void turn_apart(uint16_t *x)
{
    __m512i a = _mm512_loadu_si512(x), b = _mm512_loadu_si512(x + PER);
    _mm512_storeu_si512(x, _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(a)), _mm512_cvtepi32_epi16(b), 1));
    a = _mm512_srli_epi32(a, 16), b = _mm512_srli_epi32(b, 16);
    _mm512_storeu_si512(x + PER, _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(a)), _mm512_cvtepi32_epi16(b), 1));
}

sw_pair_rows SW_CPU(pair_rows)(void *space, const sw_tensor *x, sw_dtype w)
{
    int64_t rows = x->shape[0], in = x->shape[1], line = line_of(x);
    float *sums = space;
    uint16_t *copy = (uint16_t *)(void *)(sums + rows * line / PER);
    for (int64_t r = 0; r < rows; r++) {
        uint16_t *to = copy + r * line;
        memcpy(to, sw_at(x, r * x->stride[0]), (size_t)in * sizeof *to);
        memset(to + in, 0, (size_t)(line - in) * sizeof *to);
        for (int64_t i = 0; i < line; i += PER) {
            __m512i v = _mm512_loadu_si512(to + i);
            __m512 low = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)),
                   high = _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000)));
            sums[(r * line + i) / PER] = _mm512_reduce_add_ps(_mm512_add_ps(low, high));
        }
        if (sw_is_float8(w)) /* of two values side by side the first ones, then the second ones: bytes of words */
            for (int64_t i = 0; i < line; i += 2 * PER)
                turn_apart(to + i);
        if (has_halves(w)) /* first halves of two blocks side by side, then second halves */
            for (int64_t i = 0; i + 2 * PER <= in; i += 2 * PER) {
                __m256i *at = (__m256i *)(void *)(to + i), second = _mm256_loadu_si256(at + 1), third = _mm256_loadu_si256(at + 2);
                _mm256_storeu_si256(at + 1, third);
                _mm256_storeu_si256(at + 2, second);
            }
    }
    return (sw_pair_rows){copy, sums, line, line / PER};
}

#define SW_ANY static inline
#define SW_TABLE static const
#define SW_HALF sw_half_at
#include "kernels/codebooks.h"

static inline __m512 half_at(const byte *p) { return _mm512_set1_ps(sw_half_at(p)); }
static inline __m512bh pairs_at(const uint16_t *x) { return (__m512bh)_mm512_loadu_si512(x); }

/* bf16 of -32..31. vpermw takes an entry by the low five bits of a word. */
static const uint16_t whole[64] = {
    0xc200, 0xc1f8, 0xc1f0, 0xc1e8, 0xc1e0, 0xc1d8, 0xc1d0, 0xc1c8,
    0xc1c0, 0xc1b8, 0xc1b0, 0xc1a8, 0xc1a0, 0xc198, 0xc190, 0xc188,
    0xc180, 0xc170, 0xc160, 0xc150, 0xc140, 0xc130, 0xc120, 0xc110,
    0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80,
    0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0,
    0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170,
    0x4180, 0x4188, 0x4190, 0x4198, 0x41a0, 0x41a8, 0x41b0, 0x41b8,
    0x41c0, 0x41c8, 0x41d0, 0x41d8, 0x41e0, 0x41e8, 0x41f0, 0x41f8,
};
static inline __m512i table_at(int first) { return _mm512_loadu_si512(whole + 32 + first); }
/* Where four bits mean a level: twice the same, whatever the fifth. */
static inline __m512i short_table(const uint16_t *sixteen)
{
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)sixteen));
}
static inline __m512i short_table_at(int first) { return short_table(whole + 32 + first); }
/* bf16 of the levels of IQ4 and of twice the 4-bit floats. */
static const uint16_t iq4[16] = {0xc2fe, 0xc2d0, 0xc2a6, 0xc282, 0xc244, 0xc20c, 0xc1b0, 0xc120, 0x3f80, 0x4150, 0x41c8, 0x4218, 0x4254, 0x428a, 0x42b2, 0x42e2};
static const uint16_t e2m1[16] = {0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40c0, 0x4100, 0x4140, 0x0000, 0xbf80, 0xc000, 0xc040, 0xc080, 0xc0c0, 0xc100, 0xc140};

/* 16 bytes: their low halves as words, and then their high halves (with more bits above, which are not used). */
static inline __m512i halves(const byte *p)
{
    __m256i t = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm512_inserti64x4(_mm512_castsi256_si512(t), _mm256_srli_epi16(t, 4), 1);
}
static inline __m512i with_fifth(__m512i low, __mmask32 fifth)
{
    return _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi16(15)), _mm512_maskz_set1_epi16(fifth, 16));
}
static inline __mmask32 mask_at(const byte *p)
{
    uint32_t m;
    memcpy(&m, p, 4);
    return m;
}

/* Words of 32 bytes, moved right: what is above the bits that a table takes is not used. */
static inline __m512i words(__m256i bytes, int right) { return _mm512_srli_epi16(_mm512_cvtepu8_epi16(bytes), (unsigned)right); }
static inline __m256i bytes_at(const byte *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }

static inline __m512bh of_int8(const byte *p)
{
    __m512i low = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)),
            high = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p + 16)));
    return _mm512_cvtne2ps_pbh(_mm512_cvtepi32_ps(high), _mm512_cvtepi32_ps(low));
}

/* What is read before the runs of a block or of a few: the tables, and the scales of a K-quant. */
typedef struct levels {
    __m512i table, more;
    float scale[16], min[8];
} levels;


__attribute__((always_inline)) static inline void set_tables(levels *v, sw_dtype t)
{
    switch (t) {
    case SW_Q4_0: v->table = short_table_at(-8); return;
    case SW_Q4_1:
    case SW_Q4_K: v->table = short_table_at(0); return;
    case SW_Q5_0: v->table = table_at(-16); return;
    case SW_IQ4_NL:
    case SW_IQ4_XS: v->table = short_table(iq4); return;
    case SW_MXFP4: v->table = short_table(e2m1); return;
    case SW_Q6_K: v->table = table_at(-32), v->more = table_at(0); return;
    default: v->table = table_at(0);
    }
}

/* Scales and minima of a K-quant's block (llama.cpp's layout: kernels/blocks.c has it in words). */
__attribute__((always_inline)) static inline void read_scales(levels *v, sw_dtype t, const byte *b)
{
    if (t == SW_Q6_K) {
        __m512 scale = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(b + 192))));
        _mm512_storeu_ps(v->scale, _mm512_mul_ps(scale, half_at(b + 208)));
        return;
    }
    if (t == SW_IQ4_XS) {
        uint32_t low;
        memcpy(&low, b + 4, sizeof low);
        const __m256i turn = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
        __m256i nibble = _mm256_srlv_epi32(_mm256_set1_epi32((int)low), _mm256_slli_epi32(turn, 2)),
                pair = _mm256_srlv_epi32(_mm256_set1_epi32(b[2] | b[3] << 8), _mm256_slli_epi32(turn, 1));
        __m256i six = _mm256_or_si256(_mm256_and_si256(nibble, _mm256_set1_epi32(15)),
                                      _mm256_slli_epi32(_mm256_and_si256(pair, _mm256_set1_epi32(3)), 4));
        _mm256_storeu_ps(v->scale, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(six, _mm256_set1_epi32(32))),
                                                 _mm512_castps512_ps256(half_at(b))));
        return;
    }
    uint32_t w[3], low[4];
    memcpy(w, b + 4, sizeof w);
    low[0] = w[0] & 0x3f3f3f3f;
    low[1] = (w[2] & 0x0f0f0f0f) | (w[0] >> 2 & 0x30303030);
    low[2] = w[1] & 0x3f3f3f3f;
    low[3] = (w[2] >> 4 & 0x0f0f0f0f) | (w[1] >> 2 & 0x30303030);
    __m512 both = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)low)));
    float all[16];
    _mm512_storeu_ps(all, both);
    _mm256_storeu_ps(v->scale, _mm256_mul_ps(_mm256_loadu_ps(all), _mm512_castps512_ps256(half_at(b))));
    _mm256_storeu_ps(v->min, _mm256_mul_ps(_mm256_loadu_ps(all + 8), _mm512_castps512_ps256(_mm512_sub_ps(_mm512_setzero_ps(), half_at(b + 2)))));
}

/* The 32 levels of run g of a block, as bf16; *d what scales the lanes of their products, *min what is added to each value. */
__attribute__((always_inline)) static inline __m512bh run_of(const levels *v, sw_dtype t, const byte *b, int g, __m512 *d, float *min)
{
    *min = 0;
    if (t == SW_MXFP4) {
        *d = _mm512_set1_ps(sw_code_e8m0(b[0]));
        return (__m512bh)_mm512_permutexvar_epi16(halves(b + 1), v->table);
    }
    if (!is_k(t)) {
        *d = half_at(b);
        if (sw_levels_have_min(t))
            *min = sw_half_at(b + 2);
        switch (t) {
        case SW_IQ4_NL:
        case SW_Q4_0: return (__m512bh)_mm512_permutexvar_epi16(halves(b + 2), v->table);
        case SW_Q4_1: return (__m512bh)_mm512_permutexvar_epi16(halves(b + 4), v->table);
        case SW_Q5_0: return (__m512bh)_mm512_permutexvar_epi16(with_fifth(halves(b + 6), mask_at(b + 2)), v->table);
        case SW_Q5_1: return (__m512bh)_mm512_permutexvar_epi16(with_fifth(halves(b + 8), mask_at(b + 4)), v->table);
        default: return of_int8(b + 2);
        }
    }
    if (t == SW_Q6_K) {
        __m512i low = words(bytes_at(b + g / 4 * 64 + g % 2 * 32), g / 2 % 2 * 4),
                high = words(bytes_at(b + 128 + g / 4 * 32), g % 4 * 2);
        __m512i level = _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi16(15)),
                                        _mm512_slli_epi16(_mm512_and_si512(high, _mm512_set1_epi16(3)), 4));
        *d = _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(v->scale[2 * g]), _mm512_set1_ps(v->scale[2 * g + 1]));
        return (__m512bh)_mm512_permutex2var_epi16(v->table, level, v->more);
    }
    if (t == SW_IQ4_XS) {
        *d = _mm512_set1_ps(v->scale[g]);
        return (__m512bh)_mm512_permutexvar_epi16(halves(b + 8 + g * 16), v->table);
    }
    __m512i level = words(bytes_at(b + (t == SW_Q5_K ? 48 : 16) + g / 2 * 32), g % 2 * 4);
    if (t == SW_Q5_K)
        level = with_fifth(level, _mm256_test_epi8_mask(bytes_at(b + 16), _mm256_set1_epi8((char)(1 << g))));
    *d = _mm512_set1_ps(v->scale[g]);
    *min = v->min[g];
    return (__m512bh)_mm512_permutexvar_epi16(level, v->table);
}

/* The levels of two blocks that have halves, as bf16: first halves, then second halves. *d what scales the lanes of their
 * products, min[0] and min[1] what is added to each value. */
__attribute__((always_inline)) static inline void two_blocks(__m512bh q[2], const levels *v, sw_dtype t, const byte *b, __m512 *d, float *min)
{
    const int bytes = sw_block_bytes(t);
    const byte *low = b + bytes - 16, *other = b + bytes;
    __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)low)),
                                           _mm_loadu_si128((const __m128i *)(const void *)(low + bytes)), 1);
    __m512i first = _mm512_cvtepu8_epi16(both), second = _mm512_srli_epi16(first, 4);
    if (t == SW_Q5_0 || t == SW_Q5_1) {
        __mmask32 m = mask_at(low - 4), n = mask_at(low - 4 + bytes);
        first = with_fifth(first, (m & 0xffff) | n << 16);
        second = with_fifth(second, m >> 16 | (n & 0xffff0000));
    }
    q[0] = (__m512bh)_mm512_permutexvar_epi16(first, v->table);
    q[1] = (__m512bh)_mm512_permutexvar_epi16(second, v->table);
    if (t == SW_MXFP4) {
        *d = _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(sw_code_e8m0(b[0])), _mm512_set1_ps(sw_code_e8m0(other[0])));
        return;
    }
    __m128i scales = _mm_insert_epi16(_mm_loadu_si16(b), *(const short_at *)(const void *)other, 1);
    *d = _mm512_permutexvar_ps(_mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0), _mm512_castps128_ps512(_mm_cvtph_ps(scales)));
    if (sw_levels_have_min(t)) {
        min[0] = sw_half_at(b + 2);
        min[1] = sw_half_at(other + 2);
    }
}

/* n values of a row of w against those of x at `at`, for `rows` rows: sum[row][i], i taking turns. */
__attribute__((always_inline)) static inline void run_dots(__m512 sum[ROWS][LINES], int rows, const sw_pair_rows *x, int64_t at,
                                                           const byte *b, sw_dtype t, int64_t n)
{
    const bool k = is_k(t);
    const int values = sw_block_values(t), bytes = sw_block_bytes(t), span = k ? 256 : LINES * PER; /* unrolled */
    float min[RUNS] = {0};
    levels v;
    set_tables(&v, t);
    for (int64_t i = 0; i < n; i += span) {
        const byte *block = b + i / values * bytes;
        if (k)
            read_scales(&v, t, block);
#define ADD(g, turn)                                                                                                   \
    do {                                                                                                               \
        __m512 d;                                                                                                      \
        __builtin_prefetch(block + (k ? (g)*bytes / (256 / PER) : (g)*bytes) + AHEAD);                      \
        __m512bh q = run_of(&v, t, k ? block : block + (g)*bytes, k ? (g) : 0, &d, &min[i / PER + (g)]);      \
        for (int r = 0; r < rows; r++) {                                                                               \
            __m512 p = _mm512_dpbf16_ps(_mm512_setzero_ps(), q, pairs_at(x->x + r * x->line + at + i + (g)*PER));      \
            sum[r][turn] = _mm512_fmadd_ps(d, p, sum[r][turn]);                                                        \
        }                                                                                                              \
    } while (0)
        if (has_halves(t)) {
#pragma GCC unroll 2
            for (int g = 0; g < span / PER; g += 2) {
                if (i + (g + 2) * PER > n) {
                    if (i + g * PER < n)
                        ADD(g, 0);
                    break;
                }
                __m512bh q[2];
                __m512 d;
                __builtin_prefetch(block + g * bytes + AHEAD);
                two_blocks(q, &v, t, block + g * bytes, &d, &min[i / PER + g]);
                for (int r = 0; r < rows; r++) {
                    const uint16_t *from = x->x + r * x->line + at + i + g * PER;
                    __m512 p = _mm512_dpbf16_ps(_mm512_setzero_ps(), q[0], pairs_at(from));
                    sum[r][g % LINES] = _mm512_fmadd_ps(d, _mm512_dpbf16_ps(p, q[1], pairs_at(from + PER)), sum[r][g % LINES]);
                }
            }
        } else if (i + span <= n) {
#pragma GCC unroll 8
            for (int g = 0; g < span / PER; g++)
                ADD(g, g % LINES);
        } else {
            for (int g = 0; g < (n - i) / PER; g++)
                ADD(g, 0);
        }
#undef ADD
    }
    if (!sw_levels_have_min(t))
        return;
    for (int r = 0; r < rows; r++)
        for (int g = 0; g < RUNS; g += 16)
            sum[r][1] = _mm512_fmadd_ps(_mm512_loadu_ps(min + g), _mm512_loadu_ps(x->sums + r * x->sums_line + at / PER + g), sum[r][1]);
}

__attribute__((always_inline)) static inline void plain_dots(__m512 sum[ROWS][LINES], int rows, const sw_pair_rows *x, const uint16_t *w,
                                                             int64_t n)
{
    int64_t i = 0;
    for (; i + LINES * PER <= n; i += LINES * PER)
        for (int l = 0; l < LINES; l++) {
            __builtin_prefetch((const char *)(w + i + l * PER) + AHEAD);
            __m512bh q = pairs_at(w + i + l * PER);
            for (int r = 0; r < rows; r++)
                sum[r][l] = _mm512_dpbf16_ps(sum[r][l], q, pairs_at(x->x + r * x->line + i + l * PER));
        }
    for (; i < n; i += PER) {
        __mmask32 here = n - i >= PER ? ~(__mmask32)0 : ((__mmask32)1 << (n - i)) - 1;
        __m512bh q = (__m512bh)_mm512_maskz_loadu_epi16(here, w + i);
        for (int r = 0; r < rows; r++)
            sum[r][0] = _mm512_dpbf16_ps(sum[r][0], q, pairs_at(x->x + r * x->line + i));
    }
}

__attribute__((always_inline)) static inline void some_rows(sw_vec *lane, int rows, const sw_pair_rows *x, const void *w, sw_dtype t, int64_t n)
{
    __m512 sum[ROWS][LINES];
    for (int r = 0; r < rows; r++)
        for (int l = 0; l < LINES; l++)
            sum[r][l] = _mm512_setzero_ps();
    if (t == SW_BF16)
        plain_dots(sum, rows, x, w, n);
    else
        for (int64_t c = 0; c < n; c += SW_RUN)
            run_dots(sum, rows, x, c, (const byte *)w + c / sw_block_values(t) * sw_block_bytes(t), t, SW_MIN(SW_RUN, n - c));
    for (int r = 0; r < rows; r++)
        lane[r * SW_LANES] = (sw_vec)((sum[r][0] + sum[r][1]) + (sum[r][2] + sum[r][3]));
}

__attribute__((always_inline)) static inline void all_rows(sw_vec *lane, int64_t rows, const sw_pair_rows *x, const void *w, sw_dtype t,
                                                           int64_t n)
{
    if (rows == 1) {
        some_rows(lane, 1, x, w, t, n);
        return;
    }
    sw_pair_rows rest = *x;
    for (; rows >= ROWS; rows -= ROWS, lane += ROWS * SW_LANES) {
        some_rows(lane, ROWS, &rest, w, t, n);
        rest.x += ROWS * rest.line;
        rest.sums += ROWS * rest.sums_line;
    }
    if (rows >= 2) {
        some_rows(lane, 2, &rest, w, t, n);
        rows -= 2, lane += 2 * SW_LANES;
        rest.x += 2 * rest.line;
        rest.sums += 2 * rest.sums_line;
    }
    if (rows)
        some_rows(lane, 1, &rest, w, t, n);
}

void SW_CPU(pair_dots)(sw_vec *lane, int64_t rows, const sw_pair_rows *x, const void *w, size_t w_line, int64_t count, sw_dtype type,
                       int64_t n)
{
    switch (type) {
#define CASE(t)                                                                                                        \
    case t:                                                                                                            \
        for (int64_t o = 0; o < count; o++)                                                                            \
            all_rows(lane + o, rows, x, (const byte *)w + (size_t)o * w_line, t, n);                                   \
        return;
        CASE(SW_BF16)
        PAIR_TYPES(CASE)
#undef CASE
    default:
        return;
    }
}

#else

size_t SW_CPU(pair_bytes)(const sw_tensor *x, const sw_tensor *w) { return (void)x, (void)w, 0; }
sw_pair_rows SW_CPU(pair_rows)(void *space, const sw_tensor *x, sw_dtype w) { return (void)space, (void)x, (void)w, (sw_pair_rows){0}; }
void SW_CPU(pair_dots)(sw_vec *lane, int64_t rows, const sw_pair_rows *x, const void *w, size_t w_line, int64_t count, sw_dtype type,
                       int64_t n)
{
    (void)lane, (void)rows, (void)x, (void)w, (void)w_line, (void)count, (void)type, (void)n;
}

#endif
