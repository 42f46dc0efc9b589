#include "model/ranking.h"

#include "model/cache.h"

#include <string.h>

static int64_t tokens_of(const sw_pass *p, int64_t i) { return (p->cache ? p->before[i] : 0) + p->lengths[i]; }

static bool a_token_each(const sw_pass *p)
{
    for (int64_t i = 0; i < p->n_seqs; i++)
        if (p->lengths[i] > 1)
            return false;
    return true;
}

int sw_choices_make(sw_ctx *c, sw_pass *p, int64_t topk, int64_t every, sw_var *seqs, sw_var *pages, sw_choices *all)
{
    *all = (sw_choices){.topk = topk, .every = every, .seqs = seqs, .pages = pages};
    all->of = sw_ctx_alloc(c, (size_t)p->spec->layers * sizeof *all->of);
    for (int64_t i = 0; i < p->n_seqs; i++)
        all->longest = SW_MAX(all->longest, tokens_of(p, i) / every);
    all->words = (all->longest + 31) / 32;
    if (!p->cache || all->longest <= topk)
        return 0;
    if (!a_token_each(p)) {
        all->now.seen = sw_pass_keep(c, p, sw_tmp2(c, SW_I32, p->n, all->words));
        return all->now.seen ? 0 : -1;
    }
    int32_t *table = sw_ctx_alloc(c, (size_t)p->n_seqs * 4 * sizeof *table);
    for (int64_t i = 0, at = 0; i < p->n_seqs; at += p->lengths[i++])
        memcpy(table + 4 * i, (int32_t[]){(int32_t)at, (int32_t)p->lengths[i], (int32_t)(at * topk), (int32_t)SW_MIN(tokens_of(p, i) / every, topk)},
               4 * sizeof *table);
    all->now.rows = sw_pass_keep(c, p, sw_tmp2(c, SW_I32, p->n, topk));
    all->now.seqs = sw_pass_keep(c, p, sw_from_host(c, SW_I32, 2, (int64_t[]){p->n_seqs, 4}, table));
    return all->now.rows && all->now.seqs ? 0 : -1;
}

/* ---- many queries: products of matrices */

/* Queries at a time, so that their scores take a bounded space. */
static int64_t rows_at_once(const sw_var *q, int64_t keys)
{
    return SW_MAX(((int64_t)1 << 24) / (q->t.shape[1] * SW_MAX(keys, 1)), 1); /* 64 MiB of scores by head */
}

/* scores f32 [count, m] of the queries from row `first` on with keys [m, width]. */
static int score(sw_ctx *c, const sw_ranked *w, int64_t first, int64_t count, const sw_tensor *keys, sw_tensor *scores)
{
    const sw_kernels *k = sw_k(c);
    int64_t m = keys->shape[0], heads = w->q->t.shape[1];
    sw_var *each = sw_tmp2(c, SW_F32, count * heads, m);
    sw_tensor rows = sw_row_view(&w->q->t, first, count);
    rows = sw_reshaped(&rows, 2, (int64_t[]){count * heads, w->q->t.shape[2]});
    if (!each || k->linear_fwd(sw_s(c), &each->t, &rows, keys, NULL, 1, 0) || k->act_fwd(sw_s(c), &each->t, &each->t, SW_ACT_RELU))
        return -1;
    for (int64_t i = 0; i < count; i++) {
        sw_tensor to = sw_row_view(scores, i, 1), of = sw_row_view(&w->weights->t, first + i, 1), by_head = sw_row_view(&each->t, i * heads, heads);
        if (k->linear_bwd_x(sw_s(c), &to, &of, &by_head, 1, 0))
            return -1;
    }
    return 0;
}

/* bits: of the n queries from row `first` on, which stand at places `before` on of their sequence.
 * In training the best are sought among as many keys as the batch's longest sequence has, as in the reference, whose shorter
 * rows are padded; which of equals come first depends on it. */
static int choose_sequence(sw_ctx *c, const sw_choices *all, const sw_pass *p, const sw_ranked *w, const sw_tensor *bits, int64_t first, int64_t n,
                           int64_t before, const sw_tensor *keys)
{
    int64_t m = keys->shape[0], most = rows_at_once(w->q, m);
    for (int64_t i = 0; i < n; i += most) {
        int64_t count = SW_MIN(most, n - i), tokens = before + i + count; /* that the last of them sees */
        sw_scope scope = sw_scope_begin(c);
        sw_var *sum = sw_tmp2(c, SW_F32, count, m);
        sw_var *seqs = sum ? sw_from_host(c, SW_I32, 2, (int64_t[]){1, 4}, (int32_t[]){0, (int32_t)count, 0, (int32_t)tokens}) : NULL;
        sw_tensor to = sw_row_view(bits, i, count);
        if (!seqs || (tokens / all->every > all->topk && score(c, w, first + i, count, keys, &sum->t)) ||
            sw_k(c)->index_choose(sw_s(c), &to, NULL, &sum->t, &seqs->t, &(sw_paging){0}, all->every, all->topk, p->cache ? m : all->longest))
            return -1;
        sw_scope_end(c, scope, NULL, 0);
    }
    return 0;
}

/* The m keys from row `first` on, through the cache's pages where there is one: [m, width]. */
static int keys_of(sw_ctx *c, const sw_choices *all, const sw_pass *p, const sw_ranked *w, int64_t first, int64_t m, sw_tensor *keys)
{
    if (p->cache) {
        sw_paging paging = sw_pass_paging(all->pages);
        sw_var *seq = sw_from_host(c, SW_I32, 2, (int64_t[]){1, 4}, (int32_t[]){0, 0, (int32_t)first, (int32_t)m}), *ids = sw_tmp(c, SW_I32, 1, &m);
        sw_var *x = seq && ids && !sw_k(c)->paged_rows(sw_s(c), &ids->t, &seq->t, &paging) ? sw_gather(c, w->keys, ids) : NULL;
        if (!x)
            return -1;
        *keys = x->t;
    } else {
        *keys = sw_row_view(&w->keys->t, first, m);
    }
    *keys = sw_reshaped(keys, 2, (int64_t[]){m, w->keys->t.shape[2]});
    return 0;
}

static int choose_bits(sw_ctx *c, const sw_choices *all, const sw_pass *p, const sw_ranked *w, const sw_tensor *bits)
{
    for (int64_t i = 0, at = 0, first = 0; i < p->n_seqs; at += p->lengths[i++]) {
        int64_t n = p->lengths[i], m = tokens_of(p, i) / all->every;
        sw_scope scope = sw_scope_begin(c);
        sw_tensor keys, to = sw_row_view(bits, at, n);
        if (p->cache)
            first = i * sw_pass_paging(all->pages).most;
        if (n && m && (keys_of(c, all, p, w, first, m, &keys) || choose_sequence(c, all, p, w, &to, at, n, tokens_of(p, i) - n, &keys)))
            return -1;
        sw_scope_end(c, scope, NULL, 0);
        first += m;
    }
    return 0;
}

/* ---- a token a sequence: keys are read where they lie, and rows of those that are chosen come of it */

static int choose_rows(sw_ctx *c, const sw_choices *all, const sw_pass *p, const sw_ranked *w)
{
    sw_paging paging = sw_pass_paging(all->pages);
    sw_scope scope = sw_scope_begin(c);
    sw_var *scores = sw_tmp2(c, SW_F32, p->n, paging.most);
    if (!scores || sw_k(c)->index_scores(sw_s(c), &scores->t, &w->q->t, &w->keys->t, &w->weights->t, &all->seqs->t, &paging, all->every) ||
        sw_k(c)->index_choose(sw_s(c), NULL, &all->now.rows->t, &scores->t, &all->seqs->t, &paging, all->every, all->topk, 0))
        return -1;
    sw_scope_end(c, scope, NULL, 0);
    return 0;
}

static int choose(sw_ctx *c, const sw_choices *all, const sw_pass *p, sw_rank_fn rank, void *arg, struct sw_layer_choice *mine)
{
    sw_ranked w = {0};
    sw_var *bits = all->now.seen;
    bool keys_only = all->longest <= all->topk;
    mine->made = true;
    if (keys_only && !p->cache)
        return 0;
    if (rank(c, arg, p, keys_only, &w))
        return -1;
    if (keys_only)
        return 0;
    if (all->now.rows)
        return choose_rows(c, all, p, &w);
    bits = bits ? bits : sw_tmp2(c, SW_I32, p->n, all->words);
    if (!bits || choose_bits(c, all, p, &w, &bits->t))
        return -1;
    if (p->cache)
        return 0;
    mine->bits = sw_ctx_alloc(c, (size_t)(p->n * all->words) * sizeof *mine->bits);
    return sw_to_host(c, bits, mine->bits);
}

int sw_choose_keys(sw_ctx *c, const sw_pass *p, sw_choices *all, sw_rank_fn rank, void *arg, sw_chosen *to)
{
    struct sw_layer_choice *mine = &all->of[p->block->index];
    if (!mine->made && !rank) {
        *mine = mine[-1]; /* the first layer has one of its own: the family's `layers` sees to it */
    } else if (!mine->made) {
        bool recording = c->recording;
        c->recording = false;
        int rc = choose(c, all, p, rank, arg, mine);
        c->recording = recording;
        if (rc)
            return -1;
    }
    *to = all->now;
    if (mine->bits && !(to->seen = sw_from_host(c, SW_I32, 2, (int64_t[]){p->n, all->words}, mine->bits)))
        return -1;
    return 0;
}
