#include "model/mixer_compressed.h"

#include "model/cache.h"
#include "model/model.h"
#include "model/windows.h"

#include <stdio.h>

/* What makes rows of windows: values, and for each of them the logit of its share. With two windows a row, each token has
 * values for the row after its own and, behind them, for its own. */
typedef struct compressor {
    sw_linear kv, gate;
    sw_param *bias; /* of the gates, by the place in the window [every, parts * width] */
    sw_norm norm;
    int64_t width;
    int state; /* of its ring's values and gates, and of its rows */
} compressor;

typedef struct attention {
    sw_linear q_a, q_b, kv, o_b;
    sw_norm q_norm, kv_norm;
    sw_norm_spec plain; /* of each head's queries */
    sw_param *o_a, *sinks;
    compressor rows;
    /* of the indexer */
    compressor keys;
    sw_linear index_q, index_weights;
} attention;

static int64_t parts_of(const sw_compressed *o) { return o->overlap ? 2 : 1; }

static void freeze(sw_param *p)
{
    if (p)
        p->fixed = true;
}

/* No gradient goes through the choice, so what an indexer is made of is never trained. */
static void declare_compressor(sw_builder *b, compressor *k, const char *place, const sw_compressed *o, int64_t width, int state,
                               bool fixed)
{
    const sw_spec *s = sw_builder_spec(b);
    int64_t wide = parts_of(o) * width;
    unsigned flags = fixed ? SW_ASK_FIXED : 0;
    char name[SW_NAME_MAX];
    k->width = width;
    k->state = state;
    snprintf(name, sizeof name, "%skv_proj", place);
    sw_ask_linear(b, &k->kv, name, wide, s->hidden, flags);
    snprintf(name, sizeof name, "%sgate_proj", place);
    sw_ask_linear(b, &k->gate, name, wide, s->hidden, flags);
    snprintf(name, sizeof name, "%sposition_bias", place);
    k->bias = sw_ask(b, name, 2, (int64_t[]){o->every, wide}, flags | SW_ASK_F32);
    snprintf(name, sizeof name, "%skv_norm", place);
    sw_ask_norm(b, &k->norm, name, width, &s->norm);
    if (fixed)
        freeze(k->norm.w);
}

static void declare(sw_builder *b, void *self)
{
    attention *a = self;
    const sw_spec *s = sw_builder_spec(b);
    const sw_layer *l = sw_builder_layer(b);
    const sw_compressed *o = l->mixer_options;
    int64_t queries = l->heads * l->head_dim;
    a->plain = (sw_norm_spec){.kind = SW_NORM_RMS, .plain = true, .eps = s->norm.eps};
    sw_ask_linear(b, &a->q_a, "self_attn.q_a_proj", o->q_rank, s->hidden, 0);
    sw_ask_norm(b, &a->q_norm, "self_attn.q_a_norm", o->q_rank, &s->norm);
    sw_ask_linear(b, &a->q_b, "self_attn.q_b_proj", queries, o->q_rank, 0);
    sw_ask_linear(b, &a->kv, "self_attn.kv_proj", l->head_dim, s->hidden, 0);
    sw_ask_norm(b, &a->kv_norm, "self_attn.kv_norm", l->head_dim, &s->norm);
    a->o_a = sw_ask(b, "self_attn.o_a_proj.weight", 2, (int64_t[]){o->groups * o->group_rank, queries / o->groups}, 0);
    sw_ask_linear(b, &a->o_b, "self_attn.o_b_proj", s->hidden, o->groups * o->group_rank, 0);
    a->sinks = sw_ask(b, "self_attn.sinks", 1, &l->heads, SW_ASK_F32);
    if (o->every)
        declare_compressor(b, &a->rows, "self_attn.compressor.", o, l->head_dim, 1, false);
    if (o->indexer.topk) {
        declare_compressor(b, &a->keys, "self_attn.indexer.compressor.", o, o->indexer.width, 4, true);
        sw_ask_linear(b, &a->index_q, "self_attn.indexer.q_b_proj", o->indexer.heads * o->indexer.width, o->q_rank, SW_ASK_FIXED);
        sw_ask_linear(b, &a->index_weights, "self_attn.indexer.weights_proj", o->indexer.heads, s->hidden, SW_ASK_FIXED);
    }
}

static void compressor_states(const sw_compressed *o, int64_t width, sw_state_spec *out)
{
    int64_t ring = parts_of(o) * o->every, wide = parts_of(o) * width;
    out[0] = (sw_state_spec){false, 2, {ring, wide}, SW_DTYPE_COUNT, false};
    out[1] = (sw_state_spec){false, 2, {ring, wide}, SW_F32, false};
    out[2] = (sw_state_spec){(int32_t)o->every, 2, {1, width}, SW_DTYPE_COUNT, false};
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    (void)s;
    const sw_compressed *o = l->mixer_options;
    out[0] = (sw_state_spec){true, 2, {1, l->head_dim}, SW_DTYPE_COUNT, true};
    if (o->every)
        compressor_states(o, l->head_dim, out + 1);
    if (o->indexer.topk)
        compressor_states(o, o->indexer.width, out + 4);
    return o->indexer.topk ? 7 : o->every ? 4 : 1;
}

/* ---- what layers share of a batch */

typedef struct sw_windows_of_pass {
    struct of_kind {
        sw_windows windows;
        sw_choices choices; /* of layers with an indexer */
    } kind[SW_MOST_WINDOWS];
    int n;
} windows_of_pass;

static struct of_kind *kind_of(const sw_pass *p, const sw_compressed *o)
{
    windows_of_pass *all = p->body;
    for (int i = 0; i < all->n; i++)
        if (all->kind[i].windows.every == o->every && all->kind[i].windows.parts == parts_of(o))
            return &all->kind[i];
    return NULL;
}

struct sw_windows_of_pass *sw_windows_of(sw_ctx *c, sw_pass *p)
{
    windows_of_pass *all = p->body = sw_ctx_alloc(c, sizeof *all);
    for (int64_t i = 0; i < p->spec->layers; i++) {
        const sw_layer *l = &p->spec->layer[i];
        const sw_compressed *o = l->mixer_options;
        if (!o->every || kind_of(p, o))
            continue;
        if (all->n == SW_MOST_WINDOWS)
            return sw_fail_null("layers have windows of more than %d kinds", SW_MOST_WINDOWS);
        struct of_kind *k = &all->kind[all->n++];
        if (sw_windows_make(c, p, o->every, parts_of(o), l->rope, &k->windows) ||
            (o->indexer.topk && sw_choices_make(c, p, o->indexer.topk, o->every, k->windows.tokens, k->windows.pages, &k->choices)))
            return NULL;
    }
    return all;
}

/* ---- rows */

static sw_var *turned(sw_ctx *c, const sw_pass *p, sw_var *x, int64_t from)
{
    int which = p->block->spec->rope;
    return x ? sw_rope_from(c, x, from, p->cos[which], p->sin[which], p->spec->rope[which].mode) : NULL;
}

/* The ring's tensor as rows. */
static sw_tensor ring_rows(const sw_pass *p, int state)
{
    const sw_tensor *t = sw_pass_state(p, state);
    return sw_reshaped(t, 2, (int64_t[]){t->shape[0] * t->shape[1], t->shape[2]});
}

/* What the rows need of earlier tokens before x, which takes its place in the ring. */
static sw_var *with_old(sw_ctx *c, const sw_pass *p, const sw_windows *w, int state, sw_var *x)
{
    if (!p->cache)
        return x;
    const sw_kernels *k = sw_k(c);
    sw_tensor ring = ring_rows(p, state);
    sw_var *both = x;
    if (w->old) {
        both = sw_tmp2(c, x->t.dtype, w->old + x->t.shape[0], x->t.shape[1]);
        if (!both)
            return NULL;
        sw_tensor first = sw_row_view(&both->t, 0, w->old), rest = sw_row_view(&both->t, w->old, x->t.shape[0]);
        if (k->gather_rows(sw_s(c), &first, &ring, &w->old_rows->t) || k->copy(sw_s(c), &rest, &x->t))
            return NULL;
    }
    return k->scatter_rows(sw_s(c), &ring, &x->t, &w->ring->t, 0) ? NULL : both;
}

/* The rows that the batch completes [made, 1, width], which the cache then has; NULL in *out where there are none. */
static int compress(sw_ctx *c, compressor *k, const sw_pass *p, const sw_windows *w, sw_var *x, sw_var **out)
{
    sw_dtype product = c->product;
    sw_var *kv = sw_linear_forward(c, &k->kv, x), *y;
    c->product = SW_F32;
    sw_var *gate = kv ? sw_linear_forward(c, &k->gate, x) : NULL;
    c->product = product;
    sw_var *bias = gate ? sw_parameter(c, k->bias) : NULL;
    bias = bias ? sw_gather(c, bias, w->places) : NULL;
    gate = bias ? sw_add(c, gate, bias) : NULL;
    *out = NULL;
    if (!gate || !(kv = with_old(c, p, w, k->state, kv)) || !(gate = with_old(c, p, w, k->state + 1, gate)))
        return -1;
    if (!w->made)
        return 0;
    y = sw_heads(sw_pool(c, kv, gate, w->rows, k->width), 1);
    y = y ? sw_norm_forward(c, &k->norm, y) : NULL;
    int64_t turns = 2 * w->cos->t.shape[1];
    *out = y ? sw_rope_from(c, y, k->width - turns, w->cos, w->sin, p->spec->rope[p->block->spec->rope].mode) : NULL;
    if (!*out)
        return -1;
    return p->cache ? sw_k(c)->scatter_rows(sw_s(c), sw_pass_state(p, k->state + 2), &(*out)->t, &w->kept->t, 0) : 0;
}

/* All rows that the cache has of the layer. */
static sw_var *remembered(sw_ctx *c, const compressor *k, const sw_pass *p) { return sw_borrow(c, *sw_pass_state(p, k->state + 2)); }

/* ---- the choice among rows */

typedef struct asked {
    attention *a;
    const sw_windows *w;
    sw_var *x, *latent;
} asked;

static int rank(sw_ctx *c, void *arg, const sw_pass *p, bool keys_only, sw_ranked *to)
{
    const asked *w = arg;
    const sw_indexer *n = &((const sw_compressed *)p->block->spec->mixer_options)->indexer;
    if (compress(c, &w->a->keys, p, w->w, w->x, &to->keys))
        return -1;
    if (keys_only)
        return 0;
    if (p->cache)
        to->keys = remembered(c, &w->a->keys, p);
    to->q = sw_heads(sw_linear_forward(c, &w->a->index_q, w->latent), n->heads);
    to->q = turned(c, p, to->q, n->width - 2 * p->cos[p->block->spec->rope]->t.shape[1]);
    to->weights = to->q ? sw_index_weights(c, &w->a->index_weights, n, w->x) : NULL;
    return to->weights ? 0 : -1;
}

/* The rows that this batch attends to; more->kv NULL where there are none. */
static int rows_to_see(sw_ctx *c, attention *a, const sw_pass *p, sw_var *x, sw_var *latent, sw_more_keys *more)
{
    const sw_compressed *o = p->block->spec->mixer_options;
    struct of_kind *kind = kind_of(p, o);
    const sw_windows *w = &kind->windows;
    sw_chosen chosen = {0};
    *more = (sw_more_keys){0};
    if (compress(c, &a->rows, p, w, x, &more->kv) ||
        (o->indexer.topk && sw_choose_keys(c, p, &kind->choices, rank, &(asked){a, w, x, latent}, &chosen)))
        return -1;
    if (p->cache)
        more->kv = w->longest ? remembered(c, &a->rows, p) : NULL;
    more->seqs = chosen.rows ? chosen.seqs : w->seqs;
    more->seen = chosen.seen ? chosen.seen : w->seen;
    more->paging = chosen.rows ? (sw_paging){chosen.rows->t.data, 0, o->indexer.topk} : sw_pass_paging(w->pages);
    return 0;
}

/* ---- attention */

/* Groups of heads through latents of their own, side by side. */
static sw_var *grouped(sw_ctx *c, attention *a, const sw_compressed *o, sw_var *y)
{
    int64_t n = y->t.shape[0], wide = y->t.shape[1] * y->t.shape[2], each = wide / o->groups;
    sw_var **parts = sw_ctx_alloc(c, (size_t)o->groups * sizeof *parts);
    for (int64_t g = 0; g < o->groups; g++) {
        sw_var *part = sw_part(c, y, g * each, 2, (int64_t[]){n, each}, (int64_t[]){wide, 1});
        if (!(parts[g] = sw_matmul_one(c, part, a->o_a, NULL, o->groups, g)))
            return NULL;
    }
    return sw_join(c, parts, (size_t)o->groups);
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    attention *a = self;
    const sw_layer *l = p->block->spec;
    const sw_compressed *o = l->mixer_options;
    sw_attention how = {.scale = l->attention_scale, .causal = 1, .window = l->window, .paging = sw_pass_paging(p->pages)};
    sw_more_keys more = {0};
    sw_norm plain = {.spec = &a->plain};
    sw_var *latent = sw_linear_forward(c, &a->q_a, x);
    latent = latent ? sw_norm_forward(c, &a->q_norm, latent) : NULL;
    sw_var *q = sw_heads(latent ? sw_linear_forward(c, &a->q_b, latent) : NULL, l->heads);
    q = turned(c, p, q ? sw_norm_forward(c, &plain, q) : NULL, o->nope);
    sw_var *kv = sw_heads(q ? sw_linear_forward(c, &a->kv, x) : NULL, 1);
    kv = turned(c, p, kv ? sw_norm_forward(c, &a->kv_norm, kv) : NULL, o->nope);
    kv = kv ? sw_pass_remember(c, p, 0, kv) : NULL;
    if (!kv || (o->every && rows_to_see(c, a, p, x, latent, &more)))
        return NULL;
    sw_var *y = more.kv ? sw_attend_more(c, q, kv, p->seqs, &how, a->sinks, &more)
                        : sw_attend(c, q, kv, kv, p->seqs, &how, NULL, a->sinks);
    y = y ? sw_rope_back(c, y, o->nope, p->cos[l->rope], p->sin[l->rope], p->spec->rope[l->rope].mode) : NULL;
    y = y ? grouped(c, a, o, y) : NULL;
    return y ? sw_linear_forward(c, &a->o_b, y) : NULL;
}

const sw_mixer_ops sw_mixer_compressed = {"compressed attention", sizeof(attention), declare, forward, states};
