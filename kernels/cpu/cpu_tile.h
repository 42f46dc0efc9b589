/* Small matrix products for attention, on tiles that stay in the nearest caches.
 *
 * Operands are words of 32 bits: one f32, or (where the processor multiplies them) two bf16 neighbours along the summed
 * dimension. With words, both types share every layout: C[m][n] += sum over k of A(m, k) . B[k][n], where A(m, k) is at
 * a[m * row + k * column] and is broadcast, and B's and C's rows are vectors. m is a multiple of 4, n of SW_LANES. */
#ifndef SW_KERNELS_CPU_TILE_H
#define SW_KERNELS_CPU_TILE_H

#include "cpu_vec.h"

typedef uint32_t sw_word __attribute__((may_alias));

enum { SW_TILE = 64 }; /* queries, and keys, a tile */

/* Vectors of C a step: as many as the registers take with four rows. */
enum { SW_TILE_VECTORS = SW_LANES == 16 ? 4 : 2 };

__attribute__((always_inline)) static inline void sw_tile_step(bool pairs, int vectors, int64_t words, const sw_word *a,
                                                               int64_t row, int64_t column, const sw_word *b, int64_t b_row,
                                                               float *c, int64_t c_row)
{
    sw_vec sum[4][4];
    for (int m = 0; m < 4; m++)
        for (int v = 0; v < vectors; v++)
            sum[m][v] = *(const sw_vec *)(const void *)(c + m * c_row + v * SW_LANES);
    for (int64_t k = 0; k < words; k++) {
        sw_vec bv[4];
        for (int v = 0; v < vectors; v++)
            bv[v] = *(const sw_vec *)(const void *)(b + k * b_row + v * SW_LANES);
        for (int m = 0; m < 4; m++) {
            const sw_word *at = a + m * row + k * column;
#if defined(__AVX512BF16__)
            if (pairs) {
                __m512i av = _mm512_set1_epi32((int)*at);
                for (int v = 0; v < vectors; v++)
                    sum[m][v] = (sw_vec)_mm512_dpbf16_ps((__m512)sum[m][v], (__m512bh)av, (__m512bh)bv[v]);
                continue;
            }
#endif
            float f;
            memcpy(&f, at, sizeof f);
            sw_vec av = sw_splat(f);
            for (int v = 0; v < vectors; v++)
                sum[m][v] += av * bv[v];
        }
    }
    (void)pairs;
    for (int m = 0; m < 4; m++)
        for (int v = 0; v < vectors; v++)
            *(sw_vec *)(void *)(c + m * c_row + v * SW_LANES) = sum[m][v];
}

__attribute__((always_inline)) static inline void sw_tile_steps(bool pairs, int64_t m, int64_t n, int64_t words, const sw_word *a,
                                                                int64_t row, int64_t column, const sw_word *b, int64_t b_row,
                                                                float *c, int64_t c_row)
{
    int64_t j = 0, wide = SW_TILE_VECTORS * SW_LANES;
    for (; j + wide <= n; j += wide)
        for (int64_t i = 0; i < m; i += 4)
            sw_tile_step(pairs, SW_TILE_VECTORS, words, a + i * row, row, column, b + j, b_row, c + i * c_row + j, c_row);
    for (; j < n; j += SW_LANES)
        for (int64_t i = 0; i < m; i += 4)
            sw_tile_step(pairs, 1, words, a + i * row, row, column, b + j, b_row, c + i * c_row + j, c_row);
}

static inline void sw_tile_product(bool pairs, int64_t m, int64_t n, int64_t words, const sw_word *a, int64_t row, int64_t column,
                                   const sw_word *b, int64_t b_row, float *c, int64_t c_row)
{
    if (pairs)
        sw_tile_steps(SW_HAS_BF16_DOT, m, n, words, a, row, column, b, b_row, c, c_row);
    else
        sw_tile_steps(false, m, n, words, a, row, column, b, b_row, c, c_row);
}

/* ---- layouts of 64 rows, each `width` values padded with zeros to `padded` (a multiple of 16) */

static inline int64_t sw_words(bool pairs, int64_t values) { return pairs ? values / 2 : values; }
static inline int64_t sw_pad16(int64_t n) { return (n + 15) / 16 * 16; }

/* Rows [first, first + count), in pages or (NULL) not, of head h of t [N, H, width], and zeros up to SW_TILE rows: row after row. */
static inline void sw_tile_rows(bool pairs, sw_word *to, const sw_tensor *t, const sw_paging *paging, int64_t first, int64_t count, int64_t h)
{
    int64_t width = t->shape[2], padded = sw_pad16(width);
    size_t line = (size_t)sw_words(pairs, padded) * 4, used = (size_t)width * (pairs ? 2 : 4);
    for (int64_t r = 0; r < SW_TILE; r++) {
        char *row = (char *)to + (size_t)r * line;
        if (r >= count) {
            memset(row, 0, line);
            continue;
        }
        int64_t at = paging ? sw_paged(paging, first + r) : first + r;
        const void *from = sw_at(t, at * t->stride[0] + h * t->stride[1]);
        if (!pairs)
            from = sw_load(from, t->dtype, width, (float *)(void *)row);
        if (from != row)
            memcpy(row, from, used);
        memset(row + used, 0, line - used);
    }
}

/* to[k][row]: the rows' words transposed. */
static inline void sw_tile_transpose(bool pairs, sw_word *to, const sw_word *rows, int64_t padded)
{
    int64_t words = sw_words(pairs, padded);
    for (int64_t k0 = 0; k0 < words; k0 += 8)
        for (int64_t r = 0; r < SW_TILE; r++)
            for (int64_t k = k0; k < k0 + 8; k++)
                to[k * SW_TILE + r] = rows[r * words + k];
}

/* to[row / 2][column]: a word holds the neighbours along the rows. */
static inline void sw_tile_interleave(bool pairs, sw_word *to, const sw_word *rows, int64_t padded)
{
    if (!pairs) {
        memcpy(to, rows, (size_t)(SW_TILE * padded) * 4);
        return;
    }
    typedef uint16_t __attribute__((may_alias)) half;
    const half *from = (const half *)rows;
    for (int64_t r = 0; r < SW_TILE; r += 2)
        for (int64_t c = 0; c < padded; c++)
            to[r / 2 * padded + c] = from[r * padded + c] | (sw_word)from[(r + 1) * padded + c] << 16;
}

/* A tile of f32 [64][64] as the left operand (summed along its rows) or as the right one (summed down its columns). */
static inline const sw_word *sw_tile_as_left(bool pairs, sw_word *space, const float *tile)
{
#if defined(__AVX512BF16__)
    if (pairs) {
        for (int64_t i = 0; i < SW_TILE * SW_TILE; i += 32) {
            __m512i both = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(tile + i + 16), _mm512_loadu_ps(tile + i));
            _mm512_storeu_si512(space + i / 2, both);
        }
        return space;
    }
#endif
    (void)pairs, (void)space;
    return (const sw_word *)(const void *)tile;
}

static inline const sw_word *sw_tile_as_right(bool pairs, sw_word *space, const float *tile)
{
#if defined(__AVX512BF16__)
    if (pairs) {
        static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                           8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
        __m512i pick = _mm512_loadu_si512(order);
        for (int64_t r = 0; r < SW_TILE; r += 2)
            for (int64_t c = 0; c < SW_TILE; c += 16) {
                const float *at = tile + r * SW_TILE + c;
                __m512i both = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(at + SW_TILE), _mm512_loadu_ps(at));
                _mm512_storeu_si512(space + r / 2 * SW_TILE + c, _mm512_permutexvar_epi16(pick, both));
            }
        return space;
    }
#endif
    (void)pairs, (void)space;
    return (const sw_word *)(const void *)tile;
}

#endif
