/* Attention, forward: online softmax over tiles (Milakov and Gimelshein 2018; Dao et al. 2022). Tiles hold scores with
 * keys down and queries across, so that maxima and sums over keys run on whole vectors of queries; the output of a tile of
 * queries is summed transposed. Few queries (decoding) go their own way (cpu_attention_few.c). */
#include "cpu_attention.h"

#include <stdlib.h>

/* ---- many queries */

/* Tiles of 64 keys of every sequence, packed once: K by rows, V with neighbouring keys in a word. */
typedef struct packed {
    sw_word *k, *v;
    int64_t k_size, v_size; /* words of a tile */
} packed;

/* One head, queries i0 .. i0 + count - 1. tiles: where the sequence's packed tiles of this key head begin. */
static void forward_tile(const sw_attention_call *c, const sw_seq *p, int64_t head, int64_t i0, const packed *keys, int64_t tiles, char *space)
{
    int64_t count = SW_MIN(SW_TILE, p->n - i0), lanes = (count + SW_LANES - 1) / SW_LANES * SW_LANES;
    float *score = (float *)(void *)space, *sum = score + SW_TILE * SW_TILE, *line = sum + c->value_padded * SW_TILE;
    sw_word *rows = (sw_word *)(void *)(line + sw_pad16(c->value_padded)), *query = rows + SW_TILE * c->padded;
    sw_word *weights = query + SW_TILE * c->padded;
    float top[SW_TILE], total[SW_TILE], most[SW_TILE], shrink[SW_TILE];
    sw_columns columns;
    sw_make_columns(&columns, c->a, p, i0, count);
    sw_tile_rows(c->pairs, rows, c->q, NULL, p->q0 + i0, count, head);
    sw_tile_transpose(c->pairs, query, rows, c->padded);
    memset(sum, 0, (size_t)(c->value_padded * SW_TILE) * sizeof *sum);
    for (int64_t i = 0; i < SW_TILE; i++) {
        top[i] = c->a->sinks ? c->a->sinks[head] : -INFINITY;
        total[i] = c->a->sinks ? 1 : 0;
    }
    for (int64_t key = columns.first / SW_TILE * SW_TILE; key < columns.last; key += SW_TILE) {
        int64_t at = tiles + key / SW_TILE;
        memset(score, 0, SW_TILE * SW_TILE * sizeof *score);
        sw_tile_product(c->pairs, SW_TILE, lanes, sw_words(c->pairs, c->padded), keys->k + at * keys->k_size,
                        sw_words(c->pairs, c->padded), 1, query, SW_TILE, score, SW_TILE);
        sw_scores(score, NULL, &columns, c->a, head, key);
        memcpy(most, top, sizeof most);
        for (int64_t j = 0; j < SW_TILE; j++)
            for (int64_t i = 0; i < SW_TILE; i++)
                most[i] = score[j * SW_TILE + i] > most[i] ? score[j * SW_TILE + i] : most[i];
        for (int64_t i = 0; i < SW_TILE; i++) {
            float base = most[i] == -INFINITY ? 0 : most[i];
            shrink[i] = sw_exp(top[i] - base);
            total[i] *= shrink[i];
            top[i] = most[i];
            most[i] = base;
        }
        for (int64_t j = 0; j < SW_TILE; j++)
            for (int64_t i = 0; i < SW_TILE; i++) {
                float e = sw_exp(score[j * SW_TILE + i] - most[i]);
                total[i] += e;
                score[j * SW_TILE + i] = e;
            }
        for (int64_t d = 0; d < c->value_padded; d++)
            for (int64_t i = 0; i < SW_TILE; i++)
                sum[d * SW_TILE + i] *= shrink[i];
        sw_tile_product(c->pairs, c->value_padded, lanes, sw_words(c->pairs, SW_TILE), keys->v + at * keys->v_size, 1,
                        c->value_padded, sw_tile_as_right(c->pairs, weights, score), SW_TILE, sum, SW_TILE);
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t row = p->q0 + i0 + i;
        float scale = total[i] > 0 ? 1 / total[i] : total[i]; /* zeros when it sees nothing; NaN stays */
        for (int64_t d = 0; d < c->value_width; d++)
            line[d] = sum[d * SW_TILE + i] * scale;
        sw_store(sw_at(c->out, row * c->out->stride[0] + head * c->out->stride[1]), c->out->dtype, c->value_width, line);
        sw_write_lse(c, row, head, top[i], total[i]);
    }
}

typedef struct task {
    sw_seq seq;
    int64_t head, first; /* first query, or first key */
    int64_t tiles;       /* number of the first tile of (sequence, key head 0); the next head's begin count later */
} task;

static int forward_many(sw_stream *s, const sw_attention_call *c, const sw_tensor *seqs)
{
    int64_t key_heads = c->heads / c->group, tiles = 0, tasks = 0;
    for (int64_t b = 0; b < seqs->shape[0]; b++) {
        sw_seq p = sw_seq_of(seqs, b);
        tiles += p.n ? sw_tiles(p.m) * key_heads : 0;
        tasks += sw_tiles(p.n) * c->heads;
    }
    packed keys = {.k_size = SW_TILE * sw_words(c->pairs, c->padded), .v_size = SW_TILE * sw_words(c->pairs, c->value_padded)};
    size_t each = (size_t)(SW_TILE * (SW_TILE * 2 + 2 * c->padded + c->value_padded) + c->value_padded + 16) * 4;
    each = (each + 127) & ~(size_t)63;
    size_t key_bytes = (size_t)(tiles * keys.k_size) * 4, value_bytes = (size_t)(tiles * keys.v_size) * 4;
    size_t list_bytes = (size_t)(tasks + tiles) * sizeof(task);
    char *space = sw_stream_scratch(s, key_bytes + value_bytes + each * (size_t)omp_get_max_threads() + list_bytes + 64);
    if (!space)
        return -1;
    keys.k = (sw_word *)(void *)space;
    keys.v = (sw_word *)(void *)(space + key_bytes);
    char *own = space + key_bytes + value_bytes;
    task *list = (task *)(void *)(own + each * (size_t)omp_get_max_threads()), *pack = list + tasks;
    tiles = tasks = 0;
    for (int64_t b = 0; b < seqs->shape[0]; b++) {
        sw_seq p = sw_seq_of(seqs, b);
        if (!p.n)
            continue;
        for (int64_t i = sw_tiles(p.n) - 1; i >= 0; i--) /* the longest rows of keys first */
            for (int64_t h = 0; h < c->heads; h++)
                list[tasks++] = (task){p, h, i * SW_TILE, tiles};
        for (int64_t h = 0; h < key_heads; h++)
            for (int64_t i = 0; i < sw_tiles(p.m); i++)
                pack[tiles++] = (task){p, h, i * SW_TILE, 0};
    }
#pragma omp parallel if (tasks > 1)
    {
        char *mine = own + each * (size_t)omp_get_thread_num();
#pragma omp for schedule(static)
        for (int64_t t = 0; t < tiles; t++) {
            const task *w = pack + t;
            int64_t count = SW_MIN(SW_TILE, w->seq.m - w->first), lo, hi;
            sw_seen(c->a, &w->seq, 0, &lo, &hi);
            if (w->first + SW_TILE <= lo) /* nobody sees it */
                continue;
            sw_tile_rows(c->pairs, keys.k + t * keys.k_size, c->k, &c->a->paging, w->seq.k0 + w->first, count, w->head);
            sw_tile_rows(c->pairs, (sw_word *)(void *)mine, c->v, &c->a->paging, w->seq.k0 + w->first, count, w->head);
            sw_tile_interleave(c->pairs, keys.v + t * keys.v_size, (sw_word *)(void *)mine, c->value_padded);
        }
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < tasks; t++)
            forward_tile(c, &list[t].seq, list[t].head, list[t].first, &keys,
                         list[t].tiles + list[t].head / c->group * sw_tiles(list[t].seq.m), mine);
    }
    return 0;
}

int SW_CPU(attention_fwd)(sw_stream *s, sw_tensor *out, sw_tensor *lse, const sw_tensor *q, const sw_tensor *k,
                          const sw_tensor *v, const sw_tensor *seqs, const sw_attention *a)
{
    sw_attention_call c = {.out = out, .lse = lse, .q = q, .k = k, .v = v, .a = a, .heads = q->shape[1], .width = q->shape[2],
              .value_width = v->shape[2], .pairs = sw_pairs_for(q, k, v)};
    if (!c.heads)
        return 0;
    c.group = c.heads / k->shape[1];
    c.padded = sw_pad16(c.width);
    c.value_padded = sw_pad16(c.value_width);
    int64_t longest = 0;
    for (int64_t b = 0; b < seqs->shape[0]; b++)
        longest = SW_MAX(longest, sw_seq_of(seqs, b).n);
    return longest <= SW_FEW_QUERIES ? SW_CPU(attention_few)(s, &c, seqs) : forward_many(s, &c, seqs);
}
