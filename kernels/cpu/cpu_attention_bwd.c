/* Attention, backward (Dao 2023, algorithm 2). With P = exp(score - lse), D = dout . out:
 *     dS = P (dout v^T - D) slope scale,  dv = P^T dout,  dk = dS^T q,  dq = dS k;  a sink's share is -exp(sink - lse) D.
 * Tiles hold keys down and queries across, as in the forward. A task is one query head of one sequence, with sums of its
 * own; the heads that share keys are added in order afterwards, so that nothing depends on who did what when. */
#include "cpu_attention.h"

#include <stdlib.h>

typedef struct call {
    sw_tensor *dq, *dk, *dv;
    const sw_tensor *dout, *out, *lse, *q, *k, *v;
    const sw_attention *a;
    int64_t heads, group, width, value_width, padded, value_padded;
    int64_t words, value_words; /* of a padded row */
    bool pairs;
} call;

/* A key head of a sequence, and where the wave keeps what belongs to it. */
typedef struct unit {
    sw_seq seq;
    int64_t key_head;
    sw_word *k, *v, *k_across; /* tiles of keys: by rows, by rows, neighbours along keys in a word */
    float *dk, *dv;            /* for each head of the group, [tiles * 64, padded] */
    float *dbias;              /* for each head of the group, [bias_span]; NULL where nobody asks */
} unit;

static int64_t unit_rows(const unit *u) { return sw_tiles(u->seq.m) * SW_TILE; }

/* Bytes that a unit takes of the wave's space. */
static size_t unit_bytes(const call *c, const sw_seq *p)
{
    size_t rows = (size_t)(sw_tiles(p->m) * SW_TILE), width = (size_t)(c->padded + c->value_padded);
    size_t bias = c->a->dbias ? (size_t)c->a->bias_span * 4 * (size_t)c->group : 0;
    return rows * 4 * (2 * (size_t)c->words + (size_t)c->value_words) + rows * 4 * width * (size_t)c->group + bias;
}

static void place_unit(const call *c, unit *u, char *at)
{
    int64_t rows = unit_rows(u);
    u->k = (sw_word *)(void *)at;
    u->v = u->k + rows * c->words;
    u->k_across = u->v + rows * c->value_words;
    u->dk = (float *)(void *)(u->k_across + rows * c->words);
    u->dv = u->dk + rows * c->padded * c->group;
    u->dbias = c->a->dbias ? u->dv + rows * c->value_padded * c->group : NULL;
}

/* Bytes of a thread's own space: queries of one head packed four ways, dq summed transposed, tiles. */
static size_t own_bytes(const call *c, int64_t tiles)
{
    size_t rows = (size_t)(tiles * SW_TILE), tile = SW_TILE * SW_TILE;
    return (rows * (2 * (size_t)(c->words + c->value_words) + (size_t)c->padded + 2) + 5 * tile +
            (size_t)SW_TILE * (size_t)(c->padded + c->value_padded) + (size_t)c->padded) * 4;
}

typedef struct own {
    sw_word *q, *dout, *q_across, *dout_across; /* tiles of queries: words down; neighbours along queries in a word */
    float *dq;                                  /* tiles [padded][64] */
    float *lse, *delta;
    float *score, *dscore, *slope, *line;
    sw_word *left, *right, *rows;
} own;

static own place_own(const call *c, int64_t tiles, char *at)
{
    int64_t rows = tiles * SW_TILE, tile = SW_TILE * SW_TILE;
    own o;
    o.q = (sw_word *)(void *)at;
    o.dout = o.q + rows * c->words;
    o.q_across = o.dout + rows * c->value_words;
    o.dout_across = o.q_across + rows * c->words;
    o.dq = (float *)(void *)(o.dout_across + rows * c->value_words);
    o.lse = o.dq + rows * c->padded;
    o.delta = o.lse + rows;
    o.score = o.delta + rows;
    o.dscore = o.score + tile;
    o.slope = o.dscore + tile;
    o.left = (sw_word *)(void *)(o.slope + tile);
    o.right = o.left + tile;
    o.rows = o.right + tile;
    o.line = (float *)(void *)(o.rows + SW_TILE * (c->padded + c->value_padded));
    return o;
}

/* A tile of queries of one head: packed, with D and lse. Padding queries get lse = inf, which makes their P zero. */
static void prepare_queries(const call *c, const sw_seq *p, int64_t head, int64_t tile, own *o)
{
    int64_t i0 = tile * SW_TILE, count = SW_MIN(SW_TILE, p->n - i0), across = SW_TILE * c->words, vacross = SW_TILE * c->value_words;
    sw_tile_rows(c->pairs, o->rows, c->q, NULL, p->q0 + i0, count, head);
    sw_tile_transpose(c->pairs, o->q + tile * across, o->rows, c->padded);
    sw_tile_interleave(c->pairs, o->q_across + tile * across, o->rows, c->padded);
    sw_tile_rows(c->pairs, o->rows, c->dout, NULL, p->q0 + i0, count, head);
    sw_tile_transpose(c->pairs, o->dout + tile * vacross, o->rows, c->value_padded);
    sw_tile_interleave(c->pairs, o->dout_across + tile * vacross, o->rows, c->value_padded);
    for (int64_t i = 0; i < SW_TILE; i++) {
        float *lse = o->lse + i0 + i, *delta = o->delta + i0 + i;
        *lse = INFINITY;
        *delta = 0;
        if (i >= count)
            continue;
        int64_t row = p->q0 + i0 + i, n = c->value_width;
        *lse = ((const float *)c->lse->data)[row * c->lse->stride[0] + head * c->lse->stride[1]];
        if (*lse == -INFINITY) /* saw nothing */
            *lse = INFINITY;
        float *space = (float *)(void *)o->rows; /* no longer needed as rows */
        const float *g = sw_load(sw_at(c->dout, row * c->dout->stride[0] + head * c->dout->stride[1]), c->dout->dtype, n, space);
        const float *y = sw_load(sw_at(c->out, row * c->out->stride[0] + head * c->out->stride[1]), c->out->dtype, n,
                                 space + c->value_padded);
        float lane[16] = {0};
        for (int64_t d = 0; d < n; d++)
            lane[d & 15] += g[d] * y[d];
        for (int l = 0; l < 16; l++)
            *delta += lane[l];
    }
}

/* Gradients of scores, keys down, summed over pairs of the same distance; `nearest` is that of key 0 from query 0. */
static void add_distances(const sw_attention *a, const float *restrict dscore, int64_t nearest, float *dbias)
{
    float line[2 * SW_TILE] = {0};
    for (int64_t j = 0; j < SW_TILE; j++)
        for (int64_t i = 0; i < SW_TILE; i++)
            line[j - i + SW_TILE - 1] += dscore[j * SW_TILE + i];
    for (int64_t d = 0; d < 2 * SW_TILE - 1; d++)
        dbias[SW_MIN(SW_MAX(nearest + d - (SW_TILE - 1) + a->bias_zero, 0), a->bias_span - 1)] += line[d];
}

/* Five products on one tile of keys and one of queries. */
static void backward_tile(const call *c, const unit *u, int64_t head, int64_t key, int64_t tile, own *o, float *dk, float *dv, float *dbias)
{
    const sw_seq *p = &u->seq;
    int64_t i0 = tile * SW_TILE, size = SW_TILE * SW_TILE, pair_words = sw_words(c->pairs, SW_TILE);
    sw_columns columns;
    sw_make_columns(&columns, c->a, p, i0, SW_MIN(SW_TILE, p->n - i0));
    if (key >= columns.last || key + SW_TILE <= columns.first)
        return;
    const float *lse = o->lse + i0, *delta = o->delta + i0;
    float scale = (float)c->a->scale, *score = o->score, *dscore = o->dscore, *slope = c->a->softcap > 0 ? o->slope : NULL;
    memset(score, 0, (size_t)size * sizeof *score);
    memset(dscore, 0, (size_t)size * sizeof *dscore);
    sw_tile_product(c->pairs, SW_TILE, SW_TILE, c->words, u->k + key * c->words, c->words, 1, o->q + i0 * c->words, SW_TILE, score,
                    SW_TILE);
    sw_tile_product(c->pairs, SW_TILE, SW_TILE, c->value_words, u->v + key * c->value_words, c->value_words, 1,
                    o->dout + i0 * c->value_words, SW_TILE, dscore, SW_TILE);
    sw_scores(score, slope, &columns, c->a, head, key);
    for (int64_t j = 0; j < SW_TILE; j++)
        for (int64_t i = 0; i < SW_TILE; i++) {
            float e = sw_exp(score[j * SW_TILE + i] - lse[i]);
            score[j * SW_TILE + i] = e;
            dscore[j * SW_TILE + i] = e * (dscore[j * SW_TILE + i] - delta[i]);
        }
    if (dbias)
        add_distances(c->a, dscore, key - (p->m - p->n + i0), dbias);
    for (int64_t i = 0; i < size; i++)
        dscore[i] *= scale;
    for (int64_t i = 0; slope && i < size; i++)
        dscore[i] *= slope[i];
    sw_tile_product(c->pairs, SW_TILE, c->value_padded, pair_words, sw_tile_as_left(c->pairs, o->left, score), pair_words, 1,
                    o->dout_across + i0 * c->value_words, c->value_padded, dv, c->value_padded);
    sw_tile_product(c->pairs, SW_TILE, c->padded, pair_words, sw_tile_as_left(c->pairs, o->left, dscore), pair_words, 1,
                    o->q_across + i0 * c->words, c->padded, dk, c->padded);
    sw_tile_product(c->pairs, c->padded, SW_TILE, pair_words, u->k_across + key * c->words, 1, c->padded,
                    sw_tile_as_right(c->pairs, o->right, dscore), SW_TILE, o->dq + i0 * c->padded, SW_TILE);
}

/* One query head: member `g` of the unit's group. deltas: [N, heads], kept where sinks want them. */
static void backward_head(const call *c, const unit *u, int64_t g, char *space, float *deltas)
{
    const sw_seq *p = &u->seq;
    int64_t head = u->key_head * c->group + g, tiles = sw_tiles(p->n), rows = unit_rows(u);
    own o = place_own(c, tiles, space);
    float *dk = u->dk + g * rows * c->padded, *dv = u->dv + g * rows * c->value_padded;
    memset(dk, 0, (size_t)(rows * c->padded) * sizeof *dk);
    memset(dv, 0, (size_t)(rows * c->value_padded) * sizeof *dv);
    float *dbias = u->dbias ? u->dbias + g * c->a->bias_span : NULL;
    if (dbias)
        memset(dbias, 0, (size_t)c->a->bias_span * sizeof *dbias);
    memset(o.dq, 0, (size_t)(tiles * SW_TILE * c->padded) * sizeof *o.dq);
    for (int64_t t = 0; t < tiles; t++)
        prepare_queries(c, p, head, t, &o);
    for (int64_t key = 0; key < p->m; key += SW_TILE)
        for (int64_t t = 0; t < tiles; t++)
            backward_tile(c, u, head, key, t, &o, dk + key * c->padded, dv + key * c->value_padded, dbias);
    for (int64_t i = 0; i < p->n; i++) {
        int64_t row = p->q0 + i;
        const float *from = o.dq + i / SW_TILE * SW_TILE * c->padded + i % SW_TILE;
        for (int64_t d = 0; d < c->width; d++)
            o.line[d] = from[d * SW_TILE];
        sw_store(sw_at(c->dq, row * c->dq->stride[0] + head * c->dq->stride[1]), c->dq->dtype, c->width, o.line);
        if (deltas)
            deltas[row * c->heads + head] = o.delta[i];
    }
}

/* Packs key tile t of the unit. */
static void prepare_keys(const call *c, const unit *u, int64_t t)
{
    int64_t first = t * SW_TILE, count = SW_MIN(SW_TILE, u->seq.m - first);
    sw_tile_rows(c->pairs, u->k + first * c->words, c->k, NULL, u->seq.k0 + first, count, u->key_head);
    sw_tile_rows(c->pairs, u->v + first * c->value_words, c->v, NULL, u->seq.k0 + first, count, u->key_head);
    sw_tile_interleave(c->pairs, u->k_across + first * c->words, u->k + first * c->words, c->padded);
}

/* Adds the group's heads into the first one's sums, and writes the keys' gradients. */
static void store_keys(const call *c, const unit *u, int64_t t)
{
    int64_t rows = unit_rows(u), first = t * SW_TILE, last = SW_MIN(first + SW_TILE, u->seq.m);
    for (int64_t j = first; j < last; j++) {
        float *dk = u->dk + j * c->padded, *dv = u->dv + j * c->value_padded;
        for (int64_t g = 1; g < c->group; g++) {
            const float *k = dk + g * rows * c->padded, *v = dv + g * rows * c->value_padded;
            for (int64_t d = 0; d < c->width; d++)
                dk[d] += k[d];
            for (int64_t d = 0; d < c->value_width; d++)
                dv[d] += v[d];
        }
        int64_t row = u->seq.k0 + j;
        sw_store(sw_at(c->dk, row * c->dk->stride[0] + u->key_head * c->dk->stride[1]), c->dk->dtype, c->width, dk);
        sw_store(sw_at(c->dv, row * c->dv->stride[0] + u->key_head * c->dv->stride[1]), c->dv->dtype, c->value_width, dv);
    }
}

/* In the order of the list, whoever made them. */
static void add_bias_gradients(const call *c, const unit *units, int64_t count)
{
    int64_t span = c->a->bias_span;
    for (int64_t u = 0; u < count; u++)
        for (int64_t i = 0; i < c->group * span; i++)
            c->a->dbias[units[u].key_head * c->group * span + i] += units[u].dbias[i];
}

static void backward_wave(const call *c, const unit *units, int64_t count, char *own, size_t each, float *deltas)
{
    int64_t tiles = 0;
    for (int64_t u = 0; u < count; u++)
        tiles = SW_MAX(tiles, sw_tiles(units[u].seq.m));
#pragma omp parallel if (count * c->group > 1)
    {
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < count * tiles; t++)
            if (t % tiles < sw_tiles(units[t / tiles].seq.m))
                prepare_keys(c, units + t / tiles, t % tiles);
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < count * c->group; t++)
            backward_head(c, units + t / c->group, t % c->group, own + each * (size_t)omp_get_thread_num(), deltas);
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < count * tiles; t++)
            if (t % tiles < sw_tiles(units[t / tiles].seq.m))
                store_keys(c, units + t / tiles, t % tiles);
    }
    if (c->a->dbias)
        add_bias_gradients(c, units, count);
}

static void add_sink_gradients(const call *c, const sw_tensor *seqs, const float *deltas)
{
    for (int64_t h = 0; h < c->heads; h++) {
        double sum = 0;
        for (int64_t b = 0; b < seqs->shape[0]; b++) {
            sw_seq p = sw_seq_of(seqs, b);
            for (int64_t row = p.q0; row < p.q0 + p.n; row++) {
                float lse = ((const float *)c->lse->data)[row * c->lse->stride[0] + h * c->lse->stride[1]];
                sum -= (double)sw_exp(c->a->sinks[h] - lse) * deltas[row * c->heads + h];
            }
        }
        c->a->dsinks[h] += (float)sum;
    }
}

int SW_CPU(attention_bwd)(sw_stream *s, sw_tensor *dq, sw_tensor *dk, sw_tensor *dv, const sw_tensor *dout, const sw_tensor *out,
                          const sw_tensor *lse, const sw_tensor *q, const sw_tensor *k, const sw_tensor *v,
                          const sw_tensor *seqs, const sw_attention *a)
{
    call c = {.dq = dq, .dk = dk, .dv = dv, .dout = dout, .out = out, .lse = lse, .q = q, .k = k, .v = v, .a = a,
              .heads = q->shape[1], .width = q->shape[2], .value_width = v->shape[2],
              .pairs = sw_pairs_for(q, k, v) && dout->dtype == SW_BF16};
    if (!c.heads || !seqs->shape[0])
        return 0;
    int64_t key_heads = k->shape[1], tiles = 0, units = seqs->shape[0] * key_heads;
    c.group = c.heads / key_heads;
    c.padded = sw_pad16(c.width);
    c.value_padded = sw_pad16(c.value_width);
    c.words = sw_words(c.pairs, c.padded);
    c.value_words = sw_words(c.pairs, c.value_padded);
    /* A wave is as many key heads as fit in this much space (at least one): longer waves share work out better. */
    const size_t most = (size_t)128 << 20;
    size_t wave = 0, largest = 0;
    for (int64_t b = 0; b < seqs->shape[0]; b++) {
        sw_seq p = sw_seq_of(seqs, b);
        size_t bytes = (unit_bytes(&c, &p) + 63) & ~(size_t)63;
        tiles = SW_MAX(tiles, sw_tiles(p.n));
        largest = SW_MAX(largest, bytes);
        wave += bytes * (size_t)key_heads;
    }
    wave = SW_MIN(wave, SW_MAX(most, largest));
    size_t each = (own_bytes(&c, tiles) + 127) & ~(size_t)63;
    bool sinks = a->sinks && a->dsinks;
    size_t delta_bytes = sinks ? (size_t)(q->shape[0] * c.heads) * sizeof(float) : 0;
    size_t list_bytes = (size_t)units * sizeof(unit);
    char *space = sw_stream_scratch(s, wave + each * (size_t)omp_get_max_threads() + list_bytes + delta_bytes + 64);
    if (!space)
        return -1;
    char *own_space = space + wave;
    unit *list = (unit *)(void *)(own_space + each * (size_t)omp_get_max_threads());
    float *deltas = sinks ? (float *)(void *)((char *)list + list_bytes) : NULL;
    int64_t held = 0;
    size_t used = 0;
    for (int64_t u = 0; u < units; u++) {
        sw_seq p = sw_seq_of(seqs, u / key_heads);
        size_t bytes = (unit_bytes(&c, &p) + 63) & ~(size_t)63;
        if (held && used + bytes > wave) {
            backward_wave(&c, list, held, own_space, each, deltas);
            held = 0;
            used = 0;
        }
        list[held] = (unit){.seq = p, .key_head = u % key_heads};
        place_unit(&c, list + held++, space + used);
        used += bytes;
    }
    backward_wave(&c, list, held, own_space, each, deltas);
    if (sinks)
        add_sink_gradients(&c, seqs, deltas);
    return 0;
}
