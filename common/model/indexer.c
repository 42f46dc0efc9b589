#include "model/indexer.h"

#include "model/mixer_mla.h"
#include "model/model.h"

#include <math.h>

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

sw_state_spec sw_indexer_state(const sw_indexer *o) { return (sw_state_spec){true, 2, {1, o->width}, SW_DTYPE_COUNT, false}; }

/* ---- running */

static void declare(sw_builder *b, void *self)
{
    (void)b;
    (void)self;
}

static int64_t topk_of(const sw_spec *s)
{
    for (int64_t i = 0; i < s->layers; i++)
        if (s->layer[i].mixer == &sw_mixer_mla)
            return ((const sw_mla *)s->layer[i].mixer_options)->indexer.topk;
    return 0;
}

static sw_var *enter(sw_ctx *c, void *self, sw_pass *p, sw_var *x)
{
    (void)self;
    p->body = sw_ctx_alloc(c, sizeof(sw_choices));
    return sw_choices_make(c, p, topk_of(p->spec), 1, p->cache ? p->seqs : NULL, p->pages, p->body) ? NULL : x;
}

const sw_body_ops sw_indexer_body = {.size = 1, .declare = declare, .enter = enter};

sw_var *sw_index_weights(sw_ctx *c, sw_linear *l, const sw_indexer *o, sw_var *x)
{
    sw_dtype product = c->product;
    c->product = SW_F32;
    sw_var *y = sw_linear_forward(c, l, x);
    c->product = product;
    return y ? sw_scale(c, y, 1 / sqrt((double)o->heads * (double)o->width)) : NULL;
}

typedef struct asked {
    sw_indexer_parts *a;
    const sw_indexer *o;
    sw_var *x, *latent;
    int state;
} asked;

/* Queries and keys of the indexer for this batch, and the weights of its heads, scaled. */
static int project(sw_ctx *c, void *arg, const sw_pass *p, bool keys_only, sw_ranked *to)
{
    const asked *w = arg;
    const sw_indexer *o = w->o;
    int which = p->block->spec->rope;
    sw_var *k = sw_linear_forward(c, &w->a->k, w->x);
    k = sw_heads(k ? sw_norm_forward(c, &w->a->k_norm, k) : NULL, 1);
    k = k && which >= 0 ? sw_rope(c, k, p->cos[which], p->sin[which], o->mode) : k;
    if (!k || !(to->keys = sw_pass_remember(c, p, w->state, k)))
        return -1;
    if (keys_only)
        return 0;
    to->q = sw_heads(sw_linear_forward(c, &w->a->q, w->latent), o->heads);
    to->q = to->q && which >= 0 ? sw_rope(c, to->q, p->cos[which], p->sin[which], o->mode) : to->q;
    to->weights = to->q ? sw_index_weights(c, &w->a->weights, o, w->x) : NULL;
    return to->weights ? 0 : -1;
}

int sw_indexer_choose(sw_ctx *c, sw_indexer_parts *a, const sw_indexer *o, const sw_pass *p, sw_var *x, sw_var *latent, int state, sw_chosen *to)
{
    return sw_choose_keys(c, p, p->body, o->follows ? NULL : project, &(asked){a, o, x, latent, state}, to);
}
