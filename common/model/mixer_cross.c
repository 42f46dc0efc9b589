/* Attention of a decoder's tokens to what the encoder made of their source (Vaswani et al. 2017, arXiv 1706.03762). Keys and
 * values are made once for a source: with a cache, when its sequence begins. */
#include "model/block.h"

#include "model/cache.h"
#include "model/model.h"

typedef struct cross {
    sw_linear q, k, v, o;
} cross;

static void declare(sw_builder *b, void *self)
{
    cross *x = self;
    const sw_spec *s = sw_builder_spec(b);
    const sw_layer *l = sw_builder_layer(b);
    sw_ask_linear(b, &x->q, "cross_attn.q_proj", l->heads * l->head_dim, s->hidden, s->q_bias ? SW_ASK_BIAS : 0);
    sw_ask_linear(b, &x->k, "cross_attn.k_proj", l->kv_heads * l->head_dim, s->hidden, s->k_bias ? SW_ASK_BIAS : 0);
    sw_ask_linear(b, &x->v, "cross_attn.v_proj", l->kv_heads * l->value_dim, s->hidden, s->v_bias ? SW_ASK_BIAS : 0);
    sw_ask_linear(b, &x->o, "cross_attn.o_proj", s->hidden, l->heads * l->value_dim, s->o_bias ? SW_ASK_BIAS : 0);
}

/* Keys or values of the sources, all that state `k` holds with a cache, where those of new sources are put first. */
static sw_var *of_sources(sw_ctx *c, sw_linear *l, const sw_pass *p, int k)
{
    c->keys = p->source ? p->source->keys : NULL;
    sw_var *x = p->memory ? sw_heads(sw_linear_forward(c, l, p->memory), p->block->spec->kv_heads) : NULL;
    c->keys = p->keys;
    if (!p->cache)
        return x;
    if (c->recording)
        return sw_fail_null("a cache of earlier tokens cannot be used in training");
    sw_tensor *state = sw_pass_state(p, p->cache->layer[p->block->index].n - 2 + k);
    if (p->memory && (!x || sw_k(c)->scatter_rows(sw_s(c), state, &x->t, &p->memory_rows->t, 0)))
        return NULL;
    return sw_borrow(c, *state);
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    cross *a = self;
    const sw_layer *l = p->block->spec;
    sw_var *q = sw_heads(sw_linear_forward(c, &a->q, x), l->heads), *k = q ? of_sources(c, &a->k, p, 0) : NULL,
           *v = k ? of_sources(c, &a->v, p, 1) : NULL;
    if (!v)
        return NULL;
    sw_attention how = {.scale = l->attention_scale, .paging = sw_pass_paging(p->cross_pages)};
    sw_var *out = sw_attend(c, q, k, v, p->cross, &how, NULL, NULL);
    return out ? sw_linear_forward(c, &a->o, out) : NULL;
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    (void)s;
    out[0] = (sw_state_spec){SW_BY_SOURCE_TOKEN, 2, {l->kv_heads, l->head_dim}, SW_DTYPE_COUNT, false};
    out[1] = (sw_state_spec){SW_BY_SOURCE_TOKEN, 2, {l->kv_heads, l->value_dim}, SW_DTYPE_COUNT, false};
    return 2;
}

const sw_mixer_ops sw_mixer_cross = {"cross attention", sizeof(cross), declare, forward, states};
