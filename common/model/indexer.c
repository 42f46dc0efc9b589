#include "model/indexer.h"

#include "model/mixer_mla.h"
#include "model/model.h"
#include "model/ranking.h"

#include <math.h>
#include <string.h>

static const sw_norm_spec key_norm = {.kind = SW_NORM_LAYER, .bias = true, .eps = 1e-6};

void sw_indexer_declare(sw_builder *b, sw_indexer_parts *a, const sw_indexer *o, int64_t q_rank)
{
    int64_t hidden = sw_builder_spec(b)->hidden;
    sw_ask_linear(b, &a->q, "self_attn.indexer.wq_b", o->heads * o->width, q_rank, SW_ASK_FIXED);
    sw_ask_linear(b, &a->k, "self_attn.indexer.wk", o->width, hidden, SW_ASK_FIXED);
    sw_ask_norm(b, &a->k_norm, "self_attn.indexer.k_norm", o->width, &key_norm);
    sw_ask_linear(b, &a->weights, "self_attn.indexer.weights_proj", o->heads, hidden, SW_ASK_FIXED | SW_ASK_F32);
    if (a->k_norm.w)
        a->k_norm.w->fixed = true;
    if (a->k_norm.b)
        a->k_norm.b->fixed = true;
}

sw_state_spec sw_indexer_state(const sw_indexer *o) { return (sw_state_spec){true, 2, {1, o->width}, SW_DTYPE_COUNT}; }

/* ---- what was chosen */

/* In training a block may run again, long after: what a layer chose waits on the host. With a cache the layers that follow one
 * come behind it, and all take turns in the same memory of the device. */
typedef struct choices {
    struct choice {
        bool made;
        uint32_t *bits; /* [n, words] */
    } *of; /* [layers] */
    int64_t longest, words; /* tokens of the longest sequence; words for its places */
    sw_chosen now;
} choices;

static void declare(sw_builder *b, void *self)
{
    (void)b;
    (void)self;
}

static bool a_token_each(const sw_pass *p)
{
    for (int64_t i = 0; i < p->n_seqs; i++)
        if (p->lengths[i] != 1)
            return false;
    return true;
}

static int64_t topk_of(const sw_spec *s)
{
    for (int64_t i = 0; i < s->layers; i++)
        if (s->layer[i].mixer == &sw_mixer_mla)
            return ((const sw_mla *)s->layer[i].mixer_options)->indexer.topk;
    return 0;
}

static int memory_for(sw_ctx *c, sw_pass *p, int64_t topk, choices *all)
{
    if (!a_token_each(p)) {
        all->now.seen = sw_pass_keep(c, p, sw_tmp2(c, SW_I32, p->n, all->words));
        return all->now.seen ? 0 : -1;
    }
    int32_t *table = sw_ctx_alloc(c, (size_t)p->n * 4 * sizeof *table);
    for (int64_t i = 0; i < p->n; i++)
        memcpy(table + 4 * i, (int32_t[]){(int32_t)i, 1, (int32_t)(i * topk), (int32_t)SW_MIN(p->before[i] + 1, topk)}, 4 * sizeof *table);
    all->now.rows = sw_pass_keep(c, p, sw_tmp2(c, SW_I32, p->n, topk));
    all->now.seqs = sw_pass_keep(c, p, sw_from_host(c, SW_I32, 2, (int64_t[]){p->n, 4}, table));
    return all->now.rows && all->now.seqs ? 0 : -1;
}

static sw_var *enter(sw_ctx *c, void *self, sw_pass *p, sw_var *x)
{
    (void)self;
    choices *all = p->body = sw_ctx_alloc(c, sizeof *all);
    all->of = sw_ctx_alloc(c, (size_t)p->spec->layers * sizeof *all->of);
    for (int64_t i = 0; i < p->n_seqs; i++)
        all->longest = SW_MAX(all->longest, (p->cache ? p->before[i] : 0) + p->lengths[i]);
    all->words = (all->longest + 31) / 32;
    return p->cache && all->longest > topk_of(p->spec) && memory_for(c, p, topk_of(p->spec), all) ? NULL : x;
}

const sw_body_ops sw_indexer_body = {.size = 1, .declare = declare, .enter = enter};

/* ---- scores of many queries */

/* What a batch's indexer works with. */
typedef struct work {
    const sw_indexer *o;
    sw_var *q, *weights; /* [N, heads, width]; f32 [N, heads] */
    int64_t places; /* among which the best are sought: in training those of the batch's longest sequence, as in the
                       reference, whose shorter rows are padded; which of equals come first depends on it. 0: the sequence's */
} work;

/* bits: of the sequence's n queries, which stand at the last of its places. */
static int choose_sequence(sw_ctx *c, const work *w, const sw_tensor *bits, int64_t first, int64_t n, const sw_tensor *keys)
{
    int64_t m = keys->shape[0], most = sw_rank_rows(w->q, m);
    for (int64_t i = 0; i < n; i += most) {
        int64_t count = SW_MIN(most, n - i), seen = m - n + i + count; /* by the last of them */
        sw_scope scope = sw_scope_begin(c);
        sw_var *sum = sw_tmp2(c, SW_F32, count, m);
        sw_var *seqs = sum ? sw_from_host(c, SW_I32, 2, (int64_t[]){1, 4}, (int32_t[]){0, (int32_t)count, 0, (int32_t)seen}) : NULL;
        sw_tensor to = sw_row_view(bits, i, count);
        if (!seqs || (seen > w->o->topk && sw_rank_scores(c, w->q, w->weights, first + i, count, keys, &sum->t)) ||
            sw_k(c)->index_choose(sw_s(c), &to, NULL, &sum->t, &seqs->t, &(sw_paging){0}, w->o->topk, SW_MAX(m, w->places)))
            return -1;
        sw_scope_end(c, scope, NULL, 0);
    }
    return 0;
}

/* Queries and keys of the indexer for this batch, and the weights of its heads, scaled. */
static int project(sw_ctx *c, sw_indexer_parts *a, const sw_indexer *o, const sw_pass *p, sw_var *x, sw_var *latent, int state, work *w,
                   sw_var **keys)
{
    int which = p->block->spec->rope;
    sw_dtype product = c->product;
    w->q = sw_heads(sw_linear_forward(c, &a->q, latent), o->heads);
    sw_var *k = w->q ? sw_linear_forward(c, &a->k, x) : NULL;
    k = sw_heads(k ? sw_norm_forward(c, &a->k_norm, k) : NULL, 1);
    if (k && which >= 0) {
        w->q = sw_rope(c, w->q, p->cos[which], p->sin[which], o->mode);
        k = w->q ? sw_rope(c, k, p->cos[which], p->sin[which], o->mode) : NULL;
    }
    c->product = SW_F32;
    w->weights = k ? sw_linear_forward(c, &a->weights, x) : NULL;
    c->product = product;
    w->weights = w->weights ? sw_scale(c, w->weights, 1 / sqrt((double)o->heads * (double)o->width)) : NULL;
    *keys = w->weights ? sw_pass_remember(c, p, state, k) : NULL;
    return *keys ? 0 : -1;
}

/* The keys of sequence i, [m, width], of all that there are. */
static int keys_of(sw_ctx *c, const sw_pass *p, int64_t i, int64_t first, sw_var *all, int64_t m, sw_tensor *keys)
{
    sw_tensor rows = sw_row_view(&all->t, first, m);
    if (p->cache) {
        sw_tensor seq = sw_row_view(&p->seqs->t, i, 1);
        sw_paging paging = sw_pass_paging(p->pages);
        sw_var *ids = sw_tmp(c, SW_I32, 1, &m), *x = ids && !sw_k(c)->paged_rows(sw_s(c), &ids->t, &seq, &paging) ? sw_gather(c, all, ids) : NULL;
        if (!x)
            return -1;
        rows = x->t;
    }
    *keys = sw_reshaped(&rows, 2, (int64_t[]){m, all->t.shape[2]});
    return 0;
}

static int choose_all(sw_ctx *c, const work *w, const sw_pass *p, sw_var *keys, const sw_tensor *bits)
{
    for (int64_t i = 0, at = 0; i < p->n_seqs; at += p->lengths[i++]) {
        sw_scope scope = sw_scope_begin(c);
        sw_tensor of, to = sw_row_view(bits, at, p->lengths[i]);
        if (p->lengths[i] && (keys_of(c, p, i, at, keys, (p->cache ? p->before[i] : 0) + p->lengths[i], &of) ||
                              choose_sequence(c, w, &to, at, p->lengths[i], &of)))
            return -1;
        sw_scope_end(c, scope, NULL, 0);
    }
    return 0;
}

/* A token a sequence: keys are read where they lie, and rows of those that are chosen come of it. */
static int choose_rows(sw_ctx *c, const work *w, const sw_pass *p, sw_var *keys, sw_var *rows)
{
    sw_paging paging = sw_pass_paging(p->pages);
    sw_scope scope = sw_scope_begin(c);
    sw_var *scores = sw_tmp2(c, SW_F32, p->n, paging.most);
    if (!scores || sw_k(c)->index_scores(sw_s(c), &scores->t, &w->q->t, &keys->t, &w->weights->t, &p->seqs->t, &paging) ||
        sw_k(c)->index_choose(sw_s(c), NULL, &rows->t, &scores->t, &p->seqs->t, &paging, w->o->topk, 0))
        return -1;
    sw_scope_end(c, scope, NULL, 0);
    return 0;
}

static int choose(sw_ctx *c, sw_indexer_parts *a, const sw_indexer *o, const sw_pass *p, sw_var *x, sw_var *latent, int state, choices *all)
{
    work w = {.o = o};
    struct choice *mine = &all->of[p->block->index];
    sw_var *keys, *bits = all->now.seen;
    if (project(c, a, o, p, x, latent, state, &w, &keys))
        return -1;
    mine->made = true;
    if (all->longest <= o->topk)
        return 0;
    if (all->now.rows)
        return choose_rows(c, &w, p, keys, all->now.rows);
    w.places = p->cache ? 0 : all->longest;
    bits = bits ? bits : sw_tmp2(c, SW_I32, p->n, all->words);
    if (!bits || choose_all(c, &w, p, keys, &bits->t))
        return -1;
    if (p->cache)
        return 0;
    mine->bits = sw_ctx_alloc(c, (size_t)(p->n * all->words) * sizeof *mine->bits);
    return sw_to_host(c, bits, mine->bits);
}

int sw_indexer_choose(sw_ctx *c, sw_indexer_parts *a, const sw_indexer *o, const sw_pass *p, sw_var *x, sw_var *latent, int state, sw_chosen *to)
{
    choices *all = p->body;
    struct choice *mine = &all->of[p->block->index];
    if (!mine->made && o->follows) {
        *mine = mine[-1]; /* the first layer does not follow: the family's `layers` sees to it */
    } else if (!mine->made) {
        bool recording = c->recording;
        c->recording = false;
        int rc = choose(c, a, o, p, x, latent, state, all);
        c->recording = recording;
        if (rc)
            return -1;
    }
    *to = all->now;
    if (mine->bits && !(to->seen = sw_from_host(c, SW_I32, 2, (int64_t[]){p->n, all->words}, mine->bits)))
        return -1;
    return 0;
}
