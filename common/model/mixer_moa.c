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
    const sw_experts query = {&a->query, 1, a->o->experts, false}, out = {&a->out, 1, a->o->experts, false};
    sw_dispatch d;
    sw_var *w, *q;
    if (sw_moe_dispatch(c, &a->router, NULL, NULL, &a->o->router, x, &d, &w) || !(q = sw_to_places(c, x, &d)))
        return NULL;
    q = sw_matmul_places(c, q, &query, NULL, &d);
    q = q ? sw_places_to_pairs(c, q, &d) : NULL;
    q = q ? turned(c, q, n, k, l->kv_heads, l->head_dim) : NULL;
    sw_var *kv = q ? sw_linear_forward(c, &a->kv, x) : NULL;
    if (!kv)
        return NULL;
    const int64_t shape[] = {n, l->kv_heads, l->head_dim}, stride[] = {2 * wide, l->head_dim, 1};
    sw_var *key = sw_part(c, kv, 0, 3, shape, stride), *value = sw_part(c, kv, wide, 3, shape, stride);
    if (!key || !value || !(q = sw_pass_rope(c, p, q, true)) || !(key = sw_pass_rope(c, p, key, false)) ||
        !(key = sw_pass_remember(c, p, 0, key)) || !(value = sw_pass_remember(c, p, 1, value)))
        return NULL;
    sw_attention how = {.scale = l->attention_scale, .causal = 1, .window = l->window, .paging = sw_pass_paging(p->pages)};
    sw_var *y = sw_attend(c, q, key, value, p->seqs, &how, NULL, NULL);
    y = y ? turned(c, y, n, l->kv_heads, k, l->head_dim) : NULL;
    y = y ? sw_part(c, y, 0, 2, (int64_t[]){n * k, wide}, (int64_t[]){wide, 1}) : NULL;
    y = y ? sw_pairs_to_places(c, y, &d) : NULL;
    y = y ? sw_matmul_places(c, y, &out, NULL, &d) : NULL;
    y = y && (w = sw_pairs_to_places(c, w, &d)) ? sw_scale_rows(c, y, w) : NULL;
    y = y ? sw_from_places(c, y, &d) : NULL;
    sw_var *bias = y ? sw_parameter(c, a->bias) : NULL;
    return bias ? sw_plus_row(c, y, bias) : NULL;
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    (void)s;
    out[0] = out[1] = (sw_state_spec){true, 2, {l->kv_heads, l->head_dim}, SW_DTYPE_COUNT, false};
    return 2;
}

const sw_mixer_ops sw_mixer_moa = {"mixture of attention heads", sizeof(moa), declare, forward, states};
