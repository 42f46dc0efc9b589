/* What the forward and backward of attention share: sequences, masks, scores of a tile. */
#ifndef SW_KERNELS_CPU_ATTENTION_H
#define SW_KERNELS_CPU_ATTENTION_H

#include "cpu_isa.h"
#include "cpu_math.h"
#include "cpu_tile.h"

#include "base/memory.h"

typedef struct sw_seq {
    int64_t q0, n, k0, m;
} sw_seq;

static inline sw_seq sw_seq_of(const sw_tensor *seqs, int64_t i)
{
    const int32_t *p = (const int32_t *)seqs->data + i * seqs->stride[0];
    return (sw_seq){p[0], p[1], p[2], p[3]};
}

static inline int64_t sw_tiles(int64_t n) { return (n + SW_TILE - 1) / SW_TILE; }

/* Keys lo .. hi - 1 that query i of the sequence sees. Both grow with i. */
static inline void sw_seen(const sw_attention *a, const sw_seq *p, int64_t i, int64_t *lo, int64_t *hi)
{
    int64_t place = p->m - p->n + i;
    *lo = a->window > 0 ? SW_MAX(place - a->window + 1, 0) : 0;
    *hi = a->causal ? place + 1 : a->window > 0 ? SW_MIN(place, INT64_MAX - a->window) + a->window : p->m;
    *hi = SW_MIN(*hi, p->m);
}

/* The tile of queries i0 .. i0 + count - 1: what each of its 64 columns sees (padding columns see nothing). */
typedef struct sw_columns {
    int32_t lo[SW_TILE], hi[SW_TILE];
    int64_t first, last, all_from, all_to; /* some query sees keys first .. last - 1, every query all_from .. all_to - 1 */
    float place[SW_TILE];                  /* of the query, for ALiBi */
    const uint32_t *seen;                  /* row of bits of the first query, or NULL */
    int64_t count;
} sw_columns;

static inline void sw_make_columns(sw_columns *c, const sw_attention *a, const sw_seq *p, int64_t i0, int64_t count)
{
    int64_t lo, hi;
    c->seen = a->seen ? a->seen + (p->q0 + i0) * a->seen_words : NULL;
    c->count = count;
    for (int64_t i = 0; i < SW_TILE; i++) {
        if (i < count)
            sw_seen(a, p, i0 + i, &lo, &hi);
        c->lo[i] = i < count ? (int32_t)lo : 0;
        c->hi[i] = i < count ? (int32_t)SW_MAX(hi, 0) : 0;
        c->place[i] = (float)(p->m - p->n + i0 + i);
    }
    sw_seen(a, p, i0, &c->first, &c->all_to);
    sw_seen(a, p, i0 + count - 1, &c->all_from, &c->last);
}

/* Bias of a head by the distance of a key from a query. */
static inline float sw_bias(const sw_attention *a, int64_t head, int64_t distance)
{
    int64_t at = SW_MIN(SW_MAX(distance + a->bias_zero, 0), a->bias_span - 1);
    return a->bias[head * a->bias_span + at];
}

/* Whether a row of bits has that of place j. */
static inline bool sw_bit(const uint32_t *bits, int64_t words, int64_t j) { return j / 32 < words && bits[j / 32] >> (j % 32) & 1; }

/* Scores [64 keys][64 queries] from products: scale, softcap, ALiBi, bias, mask (-inf). slope (or NULL) gets the derivative of
 * a score by its product, without the scale. Padding queries come out masked only where the tile is not seen whole. */
static inline void sw_scores(float *restrict tile, float *restrict slope, const sw_columns *c, const sw_attention *a,
                             int64_t head, int64_t key0)
{
    float scale = (float)a->scale;
    bool whole = key0 >= c->all_from && key0 + SW_TILE <= c->all_to;
    if (a->softcap > 0) {
        float cap = (float)a->softcap, inverse = (float)(a->scale / a->softcap);
        for (int64_t i = 0; i < SW_TILE * SW_TILE; i++) {
            float t = sw_tanh(tile[i] * inverse);
            tile[i] = cap * t;
            if (slope)
                slope[i] = 1 - t * t;
        }
    } else {
        for (int64_t i = 0; i < SW_TILE * SW_TILE; i++)
            tile[i] *= scale;
    }
    if (a->alibi) {
        float rise = a->alibi[head];
        for (int64_t j = 0; j < SW_TILE; j++)
            for (int64_t i = 0; i < SW_TILE; i++)
                tile[j * SW_TILE + i] += rise * ((float)(key0 + j) - c->place[i]);
    }
    if (a->bias) {
        float line[2 * SW_TILE]; /* by the distance in the tile, from -(SW_TILE - 1) on */
        for (int64_t d = 0; d < 2 * SW_TILE; d++)
            line[d] = sw_bias(a, head, key0 - (int64_t)c->place[0] + d - (SW_TILE - 1));
        for (int64_t j = 0; j < SW_TILE; j++)
            for (int64_t i = 0; i < SW_TILE; i++)
                tile[j * SW_TILE + i] += line[j - i + SW_TILE - 1];
    }
    if (!whole)
        for (int64_t j = 0; j < SW_TILE; j++) {
            int32_t key = (int32_t)(key0 + j);
            for (int64_t i = 0; i < SW_TILE; i++)
                tile[j * SW_TILE + i] = key >= c->lo[i] && key < c->hi[i] ? tile[j * SW_TILE + i] : -INFINITY;
        }
    for (int64_t i = 0; c->seen && i < c->count; i++)
        for (int64_t j = 0; j < SW_TILE; j++)
            if (!sw_bit(c->seen + i * a->seen_words, a->seen_words, key0 + j))
                tile[j * SW_TILE + i] = -INFINITY;
}

/* Work on one head of one sequence, listed before threads share it out. */
static inline bool sw_pairs_for(const sw_tensor *a, const sw_tensor *b, const sw_tensor *c)
{
    return SW_HAS_BF16_DOT && a->dtype == SW_BF16 && b->dtype == SW_BF16 && c->dtype == SW_BF16;
}

/* A forward pass. */
typedef struct sw_attention_call {
    const sw_tensor *out, *lse, *q, *k, *v;
    const sw_attention *a;
    int64_t heads, group, width, value_width, padded, value_padded; /* padded: to whole vectors of every level */
    bool pairs;
} sw_attention_call;

static inline void sw_write_lse(const sw_attention_call *c, int64_t row, int64_t head, float top, float sum)
{
    if (c->lse)
        ((float *)c->lse->data)[row * c->lse->stride[0] + head * c->lse->stride[1]] = sum > 0 ? top + logf(sum) : -INFINITY;
}

/* Where no sequence has more queries than these. */
enum { SW_FEW_QUERIES = 4 };
int SW_CPU(attention_few)(sw_stream *s, const sw_attention_call *c, const sw_tensor *seqs);

#endif
