#include "model/windows.h"

#include "model/cache.h"
#include "model/model.h"

#include <string.h>

static sw_var *kept(sw_ctx *c, sw_pass *p, int ndim, const int64_t *shape, const int32_t *host)
{
    return sw_pass_keep(c, p, sw_from_host(c, SW_I32, ndim, shape, host));
}

/* The first place of the tokens that the rows which sequence i completes are made of. */
static int64_t first_of(const sw_pass *p, const sw_windows *w, int64_t i)
{
    return SW_MAX((p->before[i] / w->every - w->parts + 1) * w->every, 0);
}

static int64_t completed(const sw_pass *p, const sw_windows *w, int64_t i) { return w->count[i] - p->before[i] / w->every; }

/* Where every sequence has a token at most there is room for a row of each and all that it is made of, whether it is
 * complete or not, so that one such batch asks for what the next one does. */
static void count(sw_ctx *c, const sw_pass *p, sw_windows *w)
{
    w->count = sw_ctx_alloc(c, (size_t)p->n_seqs * sizeof *w->count);
    w->single = p->cache != NULL;
    for (int64_t i = 0; i < p->n_seqs; i++) {
        w->count[i] = (p->before[i] + p->lengths[i]) / w->every;
        w->longest = SW_MAX(w->longest, w->count[i]);
        w->made += completed(p, w, i);
        w->old += completed(p, w, i) ? p->before[i] - first_of(p, w, i) : 0;
        w->single &= p->lengths[i] <= 1;
    }
    if (w->single) {
        w->made = p->n_seqs;
        w->old = p->n_seqs * (w->parts * w->every - 1);
    }
}

/* Tokens: their places, and what of the ring they fill. */
static int lay_tokens(sw_ctx *c, sw_pass *p, sw_windows *w)
{
    int32_t *places = sw_ctx_alloc(c, (size_t)p->n * 2 * sizeof *places), *ring = places + p->n;
    int64_t size = w->every * w->parts;
    for (int64_t i = 0, at = 0; i < p->n_seqs; i++)
        for (int64_t t = 0; t < p->lengths[i]; t++, at++) {
            int64_t place = p->before[i] + t;
            places[at] = (int32_t)(place % w->every);
            ring[at] = t + size < p->lengths[i] ? -1 : (int32_t)(p->slots[i] * size + place % size);
        }
    w->places = kept(c, p, 1, &p->n, places);
    w->ring = p->cache ? kept(c, p, 1, &p->n, ring) : NULL;
    return w->places && (!p->cache || w->ring) ? 0 : -1;
}

/* Rows that are completed. */
static int lay_rows(sw_ctx *c, sw_pass *p, sw_windows *w, int rope)
{
    int64_t slots = w->parts * w->every;
    int32_t *rows = sw_ctx_alloc(c, (size_t)(w->made * slots + 1) * sizeof *rows),
            *old = sw_ctx_alloc(c, (size_t)(w->old + 1) * sizeof *old);
    int32_t *to = sw_ctx_alloc(c, (size_t)(2 * w->made + 1) * sizeof *to), *positions = to + w->made;
    const sw_pages *pages = p->cache ? sw_cache_rows(p->cache, w->every) : NULL;
    memset(rows, 0xff, (size_t)(w->made * slots) * sizeof *rows); /* -1: none */
    memset(to, 0xff, (size_t)w->made * sizeof *to);
    memset(old, 0xff, (size_t)w->old * sizeof *old);
    for (int64_t i = 0, at = 0, e = 0, gone = 0; i < p->n_seqs; at += p->lengths[i++]) {
        int64_t before = p->before[i], from = first_of(p, w, i), k = before / w->every;
        if (w->single) {
            e = i;
            gone = i * (slots - 1);
        }
        for (int64_t first = gone; k < w->count[i]; k++, e++) {
            for (int64_t j = 0; j < slots; j++) {
                int64_t place = (k - w->parts + 1) * w->every + j;
                rows[e * slots + j] = (int32_t)(place < 0        ? -1
                                                : place < before ? first + place - from
                                                                 : w->old + at + place - before);
            }
            positions[e] = (int32_t)(k * w->every);
            to[e] = (int32_t)(pages ? sw_cache_row(pages, p->slots[i], k) : -1);
        }
        for (int64_t place = from; completed(p, w, i) && place < before; place++)
            old[gone++] = (int32_t)(p->slots[i] * slots + place % slots);
    }
    if (!w->made)
        return 0;
    const sw_rope_spec *r = &p->spec->rope[rope];
    int64_t pairs = sw_rope_pairs(r);
    float *frequency = sw_ctx_alloc(c, (size_t)pairs * sizeof *frequency);
    double scale;
    sw_rope_frequencies(r, p->longest, frequency, &scale);
    w->rows = kept(c, p, 2, (int64_t[]){w->made, slots}, rows);
    w->old_rows = w->old ? kept(c, p, 1, &w->old, old) : NULL;
    w->kept = pages ? kept(c, p, 1, &w->made, to) : NULL;
    w->cos = sw_pass_keep(c, p, sw_tmp2(c, SW_F32, w->made, pairs));
    w->sin = sw_pass_keep(c, p, sw_tmp2(c, SW_F32, w->made, pairs));
    sw_var *at = sw_from_host(c, SW_I32, 1, &w->made, positions), *f = sw_from_host(c, SW_F32, 1, &pairs, frequency);
    if (!w->rows || (w->old && !w->old_rows) || (pages && !w->kept) || !w->cos || !w->sin || !at || !f)
        return -1;
    return sw_k(c)->rope_table(sw_s(c), &w->cos->t, &w->sin->t, &at->t, &f->t, scale);
}

/* What there is to see, and who sees what. */
static int lay_seen(sw_ctx *c, sw_pass *p, sw_windows *w)
{
    int64_t words = (w->longest + 31) / 32;
    int32_t *seqs = sw_ctx_alloc(c, (size_t)p->n_seqs * 8 * sizeof *seqs), *tokens = seqs + 4 * p->n_seqs;
    if (p->cache && !(w->pages = sw_pass_keep(c, p, sw_cache_table(c, sw_cache_rows(p->cache, w->every), p->slots, p->n_seqs))))
        return -1;
    for (int64_t i = 0, at = 0, first = 0; i < p->n_seqs; first += w->count[i], at += p->lengths[i++]) {
        if (p->cache)
            first = i * sw_pass_paging(w->pages).most;
        memcpy(seqs + 4 * i, (int32_t[]){(int32_t)at, (int32_t)p->lengths[i], (int32_t)first, (int32_t)w->count[i]}, 4 * sizeof *seqs);
        memcpy(tokens + 4 * i, (int32_t[]){(int32_t)at, (int32_t)p->lengths[i], (int32_t)first, (int32_t)(p->before[i] + p->lengths[i])},
               4 * sizeof *tokens);
    }
    w->seqs = kept(c, p, 2, (int64_t[]){p->n_seqs, 4}, seqs);
    w->tokens = p->cache ? kept(c, p, 2, (int64_t[]){p->n_seqs, 4}, tokens) : NULL;
    if (!w->seqs || (p->cache && !w->tokens))
        return -1;
    if (w->single)
        return 0;
    uint32_t *bits = sw_ctx_alloc(c, (size_t)(p->n * words) * sizeof *bits), *row = bits;
    for (int64_t i = 0; i < p->n_seqs; i++)
        for (int64_t t = 0; t < p->lengths[i]; t++, row += words) {
            int64_t seen = (p->before[i] + t + 1) / w->every;
            memset(row, 0xff, (size_t)(seen / 32) * sizeof *row);
            if (seen % 32)
                row[seen / 32] = ((uint32_t)1 << seen % 32) - 1;
        }
    w->seen = kept(c, p, 2, (int64_t[]){p->n, words}, (const int32_t *)bits);
    return w->seen ? 0 : -1;
}

int sw_windows_make(sw_ctx *c, sw_pass *p, int64_t every, int64_t parts, int rope, sw_windows *w)
{
    *w = (sw_windows){.every = every, .parts = parts};
    count(c, p, w);
    return lay_tokens(c, p, w) || lay_rows(c, p, w, rope) || (w->longest && lay_seen(c, p, w)) ? -1 : 0;
}
