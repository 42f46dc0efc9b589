/* Mixture of attention heads (Zhang et al. 2022, arXiv 2210.05144, as JetMoE has it: Shen et al. 2024, arXiv 2404.07413):
 * each expert has queries and an output of its own for all key heads; keys and values are everybody's. A token's chosen
 * experts attend side by side: query head (key head, choice). */
#include "model/ffn_moe.h"

typedef struct moa {
    const sw_moe *o;
    sw_linear router, kv;
    sw_param *query, *out, *bias; /* [E, kv_heads * head_dim, hidden], [E, hidden, kv_heads * head_dim], [hidden] */
} moa;

static void declare(sw_builder *b, void *self)
{
    moa *a = self;
    const sw_spec *s = sw_builder_spec(b);
    const sw_layer *l = sw_builder_layer(b);
    const sw_moe *o = a->o = l->mixer_options;
    int64_t wide = l->kv_heads * l->head_dim;
    sw_ask_linear(b, &a->router, "self_attn.router", o->experts, s->hidden, 0);
    sw_ask_linear(b, &a->kv, "self_attn.kv_proj", 2 * wide, s->hidden, 0);
    a->query = sw_ask(b, "self_attn.experts.query", 3, (int64_t[]){o->experts, wide, s->hidden}, SW_ASK_ANY);
    a->out = sw_ask(b, "self_attn.experts.out", 3, (int64_t[]){o->experts, s->hidden, wide}, SW_ASK_ANY);
    a->bias = sw_ask(b, "self_attn.bias", 1, &s->hidden, 0);
}

/* y[to] += the product of x[from] with expert e's matrix, weighted where w says so. */
static sw_var *add_product(sw_ctx *c, const moa *a, sw_param *m, int64_t e, const sw_dispatch *d, sw_var *x, bool back, sw_var *y)
{
    sw_scope scope = sw_scope_begin(c);
    int64_t first = d->start[e], count = d->start[e + 1] - first;
    sw_var *token = sw_from_host(c, SW_I32, 1, &count, d->rows + first), *slot = sw_from_host(c, SW_I32, 1, &count, d->slots + first);
    sw_var *mine = token && slot ? sw_gather(c, x, back ? slot : token) : NULL;
    mine = mine ? sw_matmul_one(c, mine, m, NULL, a->o->experts, e, false) : NULL;
    if (mine && back) {
        sw_var *w = sw_gather(c, d->weights, slot);
        mine = w ? sw_scale_rows(c, mine, w) : NULL;
    }
    return mine ? sw_scope_return(c, scope, sw_scatter_add(c, y, mine, back ? token : slot)) : NULL;
}

/* The products of all experts: of tokens x [N, hidden] with their queries, [N * k, width], or `back` of what those attended
 * to with their outputs, [N, hidden]. */
static sw_var *products(sw_ctx *c, const moa *a, sw_param *m, const sw_dispatch *d, sw_var *x, bool back, int64_t rows, int64_t width)
{
    sw_var *y = sw_tmp2(c, c->compute, rows, width);
    if (!y || sw_k(c)->fill(sw_s(c), &y->t, 0))
        return NULL;
    for (int64_t e = 0; y && e < a->o->experts; e++)
        if (d->start[e + 1] > d->start[e])
            y = add_product(c, a, m, e, d, x, back, y);
    return y;
}

/* x [N, A, B, head_dim], dense and of any shape, with A and B the other way round: [N, B * A, head_dim]. */
static sw_var *turned(sw_ctx *c, sw_var *x, int64_t n, int64_t a, int64_t b, int64_t head_dim)
{
    sw_var *v = sw_part(c, x, 0, 4, (int64_t[]){n, b, a, head_dim}, (int64_t[]){a * b * head_dim, head_dim, b * head_dim, 1});
    v = v ? sw_dense(c, v) : NULL;
    return v ? sw_heads(v, a * b) : NULL;
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    moa *a = self;
    const sw_layer *l = p->block->spec;
    int64_t n = x->t.shape[0], k = a->o->router.k, wide = l->kv_heads * l->head_dim;
    sw_dispatch d;
    if (sw_moe_dispatch(c, &a->router, NULL, &a->o->router, x, &d))
        return NULL;
    sw_var *q = products(c, a, a->query, &d, x, false, n * k, wide);
    q = q ? turned(c, q, n, k, l->kv_heads, l->head_dim) : NULL;
    sw_var *kv = q ? sw_linear_forward(c, &a->kv, x) : NULL;
    if (!kv)
        return NULL;
    const int64_t shape[] = {n, l->kv_heads, l->head_dim}, stride[] = {2 * wide, l->head_dim, 1};
    sw_var *key = sw_part(c, kv, 0, 3, shape, stride), *value = sw_part(c, kv, wide, 3, shape, stride);
    if (!key || !value || !(q = sw_pass_rope(c, p, q, true)) || !(key = sw_pass_rope(c, p, key, false)) ||
        !(key = sw_pass_remember(c, p, 0, key)) || !(value = sw_pass_remember(c, p, 1, value)))
        return NULL;
    sw_attention how = {.scale = l->attention_scale, .causal = 1, .window = l->window};
    sw_var *y = sw_attend(c, q, key, value, p->seqs, &how, NULL, NULL);
    y = y ? turned(c, y, n, l->kv_heads, k, l->head_dim) : NULL;
    y = y ? sw_part(c, y, 0, 2, (int64_t[]){n * k, wide}, (int64_t[]){wide, 1}) : NULL;
    y = y ? products(c, a, a->out, &d, y, true, n, x->t.shape[1]) : NULL;
    sw_var *bias = y ? sw_parameter(c, a->bias) : NULL;
    return bias ? sw_plus_row(c, y, bias) : NULL;
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    (void)s;
    out[0] = out[1] = (sw_state_spec){true, 2, {l->kv_heads, l->head_dim}, SW_DTYPE_COUNT};
    return 2;
}

const sw_mixer_ops sw_mixer_moa = {"mixture of attention heads", sizeof(moa), declare, forward, states};
