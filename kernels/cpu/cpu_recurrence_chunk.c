/* A chunk of places as matrix products: see cpu_recurrence.h. */
#include "cpu_recurrence.h"

size_t SW_CPU(chunk_floats)(const sw_keeper *p)
{
    int64_t d = p->deep_padded, w = p->wide_padded, each = p->each ? d : 1;
    return (size_t)(SW_CHUNK * (7 * d + 4 * w + 4 * SW_CHUNK + each) + (p->each ? 0 : SW_CHUNK * SW_CHUNK) + d);
}

static float *take(float **at, int64_t n)
{
    float *p = *at;
    *at += n;
    return p;
}

sw_chunk SW_CPU(chunk_in)(const sw_keeper *p, float *space)
{
    int64_t d = SW_CHUNK * p->deep_padded, w = SW_CHUNK * p->wide_padded, square = SW_CHUNK * SW_CHUNK;
    return (sw_chunk){.q = take(&space, d), .k = take(&space, d), .k_across = take(&space, d), .q_in = take(&space, d),
                      .k_in = take(&space, d), .k_out = take(&space, d), .some = take(&space, d), .v = take(&space, w),
                      .x = take(&space, w), .u = take(&space, w), .seen = take(&space, w), .p = take(&space, square),
                      .l = take(&space, square), .raw_p = take(&space, square), .raw_l = take(&space, square),
                      .ratio = p->each ? NULL : take(&space, square), .whole = take(&space, p->deep_padded),
                      .decay = take(&space, p->each ? d : SW_CHUNK)};
}

/* ---- transposing: rounds of a perfect shuffle */

#if defined(__AVX512F__)
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX__)
#define LOW 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LOW 0, 4, 1, 5
#define HIGH 2, 6, 3, 7
#endif

static void transpose_block(float *to, int64_t to_row, const float *from, int64_t from_row)
{
    sw_vec a[SW_LANES], b[SW_LANES];
    for (int i = 0; i < SW_LANES; i++)
        a[i] = *(const sw_vec *)(const void *)(from + i * from_row);
    for (int n = SW_LANES; n > 1; n /= 2) {
        for (int i = 0; i < SW_LANES / 2; i++) {
            b[2 * i] = __builtin_shufflevector(a[i], a[i + SW_LANES / 2], LOW);
            b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + SW_LANES / 2], HIGH);
        }
        memcpy(a, b, sizeof a);
    }
    for (int i = 0; i < SW_LANES; i++)
        *(sw_vec *)(void *)(to + i * to_row) = a[i];
}

void SW_CPU(transpose)(float *to, int64_t to_row, const float *from, int64_t from_row, int64_t rows, int64_t columns)
{
    for (int64_t r = 0; r < rows; r += SW_LANES)
        for (int64_t c = 0; c < columns; c += SW_LANES)
            transpose_block(to + c * to_row + r, to_row, from + r * from_row + c, from_row);
}

/* ---- q and k */

/* Rows [first, first + n) of a head, zeros up to `rows`. */
static void load_rows(float *to, const sw_tensor *x, int64_t first, int64_t n, int64_t head, int64_t rows, int64_t padded)
{
    int64_t width = x->shape[2];
    for (int64_t t = 0; t < n; t++) {
        sw_fetch(to + t * padded, x, first + t, head, width);
        sw_clear(to + t * padded + width, padded - width);
    }
    sw_clear(to + n * padded, (rows - n) * padded);
}

/* c's blocks at and below the diagonal: a b^T, with b across. */
static void lower_products(float *c, const float *a, const float *b_across, int64_t rows, int64_t width)
{
    for (int64_t t = 0; t < rows; t += SW_SUB) {
        for (int64_t i = t; i < t + SW_SUB; i++)
            sw_clear(c + i * SW_CHUNK, t + SW_SUB);
        sw_product(SW_SUB, t + SW_SUB, width, a + t * width, width, 1, b_across, SW_CHUNK, c + t * SW_CHUNK, SW_CHUNK);
    }
}

void SW_CPU(chunk_keys)(const sw_keeper *p, sw_chunk *c, int64_t first, int64_t n, int64_t head)
{
    int64_t d = p->deep_padded, key = head / p->share;
    c->first = first;
    c->n = n;
    c->padded = sw_pad16(n);
    load_rows(c->q, p->q, first, n, key, c->padded, d);
    load_rows(c->k, p->k, first, n, key, c->padded, d);
    if (p->each)
        return;
    SW_CPU(transpose)(c->k_across, SW_CHUNK, c->k, d, c->padded, d);
    lower_products(c->raw_p, c->q, c->k_across, c->padded, d);
    if (p->delta)
        lower_products(c->raw_l, c->k, c->k_across, c->padded, d);
}

/* ---- one decay */

static void scale_row(float *restrict to, const float *restrict from, float by, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = by * from[i];
}

static void one_decay(const sw_keeper *p, sw_chunk *c, int64_t head)
{
    int64_t d = p->deep_padded;
    float start = 1, end = 1;
    for (int64_t t = 0; t < c->padded; t++) {
        c->decay[t] = 0;
        if (t < c->n)
            sw_fetch(c->decay + t, p->g, c->first + t, head, 1);
    }
    for (int64_t t = 0; t < c->padded; t++)
        c->decay[t] = sw_exp(c->decay[t]);
    for (int64_t t = 0; t < c->padded; t++) {
        const float *before = c->ratio + (t - 1) * SW_CHUNK;
        float *row = c->ratio + t * SW_CHUNK;
        if (t)
            scale_row(row, before, c->decay[t], t);
        row[t] = 1;
        sw_clear(row + t + 1, SW_CHUNK - t - 1);
        c->from_start[t] = start *= c->decay[t];
    }
    for (int64_t t = c->padded; t-- > 0; end *= c->decay[t])
        c->to_end[t] = end;
    for (int64_t t = 0; t < c->padded; t++) {
        int64_t at = t * SW_CHUNK, whole = t / SW_SUB * SW_SUB + SW_SUB;
        scale_row(c->q_in + t * d, c->q + t * d, c->from_start[t], d);
        for (int64_t j = 0; j < whole; j++)
            c->p[at + j] = c->ratio[at + j] * c->raw_p[at + j];
        if (!p->delta)
            continue;
        scale_row(c->k_in + t * d, c->k + t * d, c->from_start[t], d);
        for (int64_t j = 0; j < whole; j++)
            c->l[at + j] = c->ratio[at + j] * c->raw_l[at + j];
    }
    for (int64_t i = 0; i < d; i++) {
        for (int64_t t = 0; t < c->padded; t++)
            c->k_out[i * SW_CHUNK + t] = c->to_end[t] * c->k_across[i * SW_CHUNK + t];
        c->whole[i] = start;
    }
}

/* ---- a decay for each place of the key */

/* p and l of a block with itself, and what is left of its keys at its end, [16][D]. */
static void own_block(const sw_keeper *p, const sw_chunk *c, int64_t first, float *left)
{
    int64_t d = p->deep_padded;
    const float *e = c->decay + first * d, *q = c->q + first * d, *k = c->k + first * d;
    for (int64_t j = 0; j < SW_SUB; j++) {
        sw_vec dot[2][SW_SUB];
        memset(dot, 0, sizeof dot);
        for (int64_t i = 0; i < d; i += SW_LANES) {
            sw_vec w = *(const sw_vec *)(const void *)(k + j * d + i);
            for (int64_t t = j; t < SW_SUB; t++) {
                if (t > j)
                    w *= *(const sw_vec *)(const void *)(e + t * d + i);
                dot[0][t] += w * *(const sw_vec *)(const void *)(q + t * d + i);
                dot[1][t] += w * *(const sw_vec *)(const void *)(k + t * d + i);
            }
            *(sw_vec *)(void *)(left + j * d + i) = w;
        }
        for (int which = 0; which < 1 + p->delta; which++)
            for (int64_t t = 0; t < SW_SUB; t += SW_LANES) {
                sw_vec sums = sw_lanes_sums(dot[which] + t);
                float *to = (which ? c->l : c->p) + (first + t) * SW_CHUNK + first + j;
                for (int64_t i = 0; i < SW_LANES; i++)
                    to[i * SW_CHUNK] = sums[i];
            }
    }
}

static void each_decay(const sw_keeper *p, sw_chunk *c, int64_t head)
{
    int64_t d = p->deep_padded, n = c->n;
    float *in_block = c->some, *left = c->some; /* in turn */
    load_rows(c->decay, p->g, c->first, n, head, c->padded, d);
    for (int64_t i = 0; i < c->padded * d; i++)
        c->decay[i] = sw_exp(c->decay[i]);
    for (int64_t i = 0; i < d; i++)
        c->whole[i] = 1;
    for (int64_t first = 0; first < c->padded; first += SW_SUB) {
        const float *e = c->decay + first * d;
        for (int which = 0; which < 1 + p->delta; which++) {
            const float *from = (which ? c->k : c->q) + first * d;
            float *to = (which ? c->k_in : c->q_in) + first * d, *dots = (which ? c->l : c->p) + first * SW_CHUNK;
            for (int64_t i = 0; i < d; i += SW_LANES) {
                sw_vec run = *(const sw_vec *)(const void *)(e + i), start = *(const sw_vec *)(const void *)(c->whole + i);
                for (int64_t t = 0; t < SW_SUB; t++) {
                    if (t)
                        run *= *(const sw_vec *)(const void *)(e + t * d + i);
                    sw_vec x = run * *(const sw_vec *)(const void *)(from + t * d + i);
                    *(sw_vec *)(void *)(in_block + t * d + i) = x;
                    *(sw_vec *)(void *)(to + t * d + i) = start * x;
                }
            }
            for (int64_t t = 0; t < SW_SUB; t++)
                sw_clear(dots + t * SW_CHUNK, first);
            if (first)
                sw_product(SW_SUB, first, d, in_block, d, 1, c->k_out, SW_CHUNK, dots, SW_CHUNK);
        }
        own_block(p, c, first, left);
        for (int64_t i = 0; i < d; i++) {
            float all = 1;
            for (int64_t t = 0; t < SW_SUB; t++)
                all *= e[t * d + i];
            for (int64_t j = 0; j < first; j++)
                c->k_out[i * SW_CHUNK + j] *= all;
            c->whole[i] *= all;
        }
        SW_CPU(transpose)(c->k_out + first, SW_CHUNK, left, d, SW_SUB, d);
    }
}

/* ---- the chunk */

void SW_CPU(chunk_head)(const sw_keeper *p, sw_chunk *c, int64_t head)
{
    for (int64_t t = 0; t < c->padded; t++)
        c->beta[t] = t < c->n;
    for (int64_t t = 0; p->beta && t < c->n; t++)
        sw_fetch(c->beta + t, p->beta, c->first + t, head, 1);
    load_rows(c->v, p->v, c->first, c->n, head, c->padded, p->wide_padded);
    if (p->each)
        each_decay(p, c, head);
    else
        one_decay(p, c, head);
    for (int64_t t = 0; p->delta && t < c->padded; t++)
        sw_clear(c->l + t * SW_CHUNK + t, SW_SUB - t % SW_SUB);
}

/* x_t and u_t of a block, one place after the other; `seen` holds what the places before the block give. */
static void solve_block(sw_chunk *c, int64_t first, int64_t wide)
{
    for (int64_t t = first; t < first + SW_SUB; t++)
        for (int64_t j = 0; j < wide; j += SW_LANES) {
            sw_vec seen = *(const sw_vec *)(const void *)(c->seen + t * wide + j);
            for (int64_t i = first; i < t; i++)
                seen += c->l[t * SW_CHUNK + i] * *(const sw_vec *)(const void *)(c->u + i * wide + j);
            sw_vec x = *(const sw_vec *)(const void *)(c->v + t * wide + j) - seen;
            *(sw_vec *)(void *)(c->x + t * wide + j) = x;
            *(sw_vec *)(void *)(c->u + t * wide + j) = c->beta[t] * x;
        }
}

void SW_CPU(chunk_solve)(const sw_keeper *p, sw_chunk *c, const float *m)
{
    int64_t w = p->wide_padded, d = p->deep_padded;
    if (!p->delta) {
        memcpy(c->x, c->v, (size_t)(c->padded * w) * sizeof *c->x);
        for (int64_t t = 0; t < c->padded; t++)
            scale_row(c->u + t * w, c->v + t * w, c->beta[t], w);
        return;
    }
    sw_clear(c->seen, c->padded * w);
    sw_product(c->padded, w, d, c->k_in, d, 1, m, w, c->seen, w);
    for (int64_t t = 0; t < c->padded; t += SW_SUB) {
        if (t)
            sw_product(SW_SUB, w, t, c->l + t * SW_CHUNK, SW_CHUNK, 1, c->u, w, c->seen + t * w, w);
        solve_block(c, t, w);
    }
}

void SW_CPU(chunk_advance)(const sw_keeper *p, const sw_chunk *c, float *m)
{
    int64_t w = p->wide_padded;
    for (int64_t i = 0; i < p->deep_padded; i++)
        for (int64_t j = 0; j < w; j++)
            m[i * w + j] *= c->whole[i];
    sw_product(p->deep_padded, w, c->padded, c->k_out, SW_CHUNK, 1, c->u, w, m, w);
}
