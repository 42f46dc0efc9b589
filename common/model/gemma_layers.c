#include "model/gemma_layers.h"

#include "model/cache.h"

#include <math.h>

static const sw_norm_spec *plain_of(sw_builder *b)
{
    sw_norm_spec *n = sw_builder_alloc(b, sizeof *n);
    *n = sw_builder_spec(b)->norm;
    n->plain = true;
    return n;
}

/* ---- attention */

typedef struct attention {
    sw_linear q, k, v, o;
    sw_norm q_norm, k_norm, v_norm;
} attention;

static const sw_kv_sharing *sharing_of(const sw_layer *l) { return l->mixer_options; }

static void declare(sw_builder *b, void *self)
{
    attention *a = self;
    const sw_spec *s = sw_builder_spec(b);
    const sw_layer *l = sw_builder_layer(b);
    const sw_kv_sharing *how = sharing_of(l);
    unsigned bias = s->q_bias ? SW_ASK_BIAS : 0;
    int64_t kv = l->kv_heads * l->head_dim;
    sw_ask_linear(b, &a->q, "self_attn.q_proj", l->heads * l->head_dim, s->hidden, bias);
    sw_ask_norm(b, &a->q_norm, "self_attn.q_norm", l->head_dim, &s->norm);
    if (how->source < 0) {
        sw_ask_linear(b, &a->k, "self_attn.k_proj", kv, s->hidden, bias);
        if (!how->value_is_key)
            sw_ask_linear(b, &a->v, "self_attn.v_proj", kv, s->hidden, bias);
        sw_ask_norm(b, &a->k_norm, "self_attn.k_norm", l->head_dim, &s->norm);
        a->v_norm.spec = plain_of(b);
    }
    sw_ask_linear(b, &a->o, "self_attn.o_proj", s->hidden, l->heads * l->head_dim, bias);
}

/* Keys and values of this layer, from what its Linears say; in the cache when there is one. */
static int own(sw_ctx *c, attention *a, const sw_pass *p, sw_var *k, sw_var *v, sw_var *kv[2])
{
    v = v ? sw_norm_forward(c, &a->v_norm, v) : NULL;
    k = v ? sw_norm_forward(c, &a->k_norm, k) : NULL;
    k = k ? sw_pass_rope(c, p, k, false) : NULL;
    kv[0] = k ? sw_pass_remember(c, p, 0, k) : NULL;
    kv[1] = kv[0] ? sw_pass_remember(c, p, 1, v) : NULL;
    return kv[1] ? 0 : -1;
}

/* Those of the source. */
static void others(sw_ctx *c, const sw_pass *p, sw_var *whole, sw_var *kv[2])
{
    const sw_layer *l = p->block->spec;
    const sw_kv_sharing *how = sharing_of(l);
    int64_t width = l->kv_heads * l->head_dim, all = whole->t.shape[1], begins = all - how->carried + how->at;
    for (int i = 0; i < 2; i++)
        kv[i] = p->cache ? sw_borrow(c, p->cache->layer[how->source].t[i])
                         : sw_part(c, whole, begins + i * width, 3, (int64_t[]){whole->t.shape[0], l->kv_heads, l->head_dim},
                                   (int64_t[]){all, l->head_dim, 1});
}

sw_var *sw_attend_shared(sw_ctx *c, const sw_pass *p, sw_var *x, sw_var *whole, sw_var *kv[2])
{
    attention *a = p->block->mixer;
    const sw_layer *l = p->block->spec;
    const sw_kv_sharing *how = sharing_of(l);
    sw_var *used[2], *y[3], *q;
    if (sw_linears_forward(c, (sw_linear *[]){&a->q, &a->k, &a->v}, how->source >= 0 ? 1 : a->v.w ? 3 : 2, x, y))
        return NULL;
    q = sw_norm_forward(c, &a->q_norm, sw_heads(y[0], l->heads));
    if (!q || !(q = sw_pass_rope(c, p, q, true)))
        return NULL;
    if (how->source >= 0)
        others(c, p, whole, used);
    else if (own(c, a, p, sw_heads(y[1], l->kv_heads), a->v.w ? sw_heads(y[2], l->kv_heads) : y[1], used))
        return NULL;
    bool travels = how->stores && !p->cache;
    kv[0] = travels ? used[0] : NULL;
    kv[1] = travels ? used[1] : NULL;
    sw_attention settings = {.scale = l->attention_scale, .causal = 1, .window = l->window, .softcap = p->spec->attention_softcap,
                             .paging = sw_pass_paging(p->pages)};
    sw_var *out = sw_attend(c, q, used[0], used[1], p->seqs, &settings, NULL, NULL);
    return out ? sw_linear_forward(c, &a->o, out) : NULL;
}

sw_var *sw_carry(sw_ctx *c, const sw_pass *p, sw_var *x, sw_var *whole, int64_t width, sw_var *const kv[2])
{
    int64_t carried = whole->t.shape[1] - width;
    sw_var *parts[4] = {x};
    size_t n = 1;
    (void)p;
    if (carried)
        parts[n++] = sw_columns(c, whole, width, carried);
    for (int i = 0; i < 2 && kv[i]; i++)
        parts[n++] = kv[i];
    return n > 1 ? sw_join(c, parts, n) : x;
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    sw_var *kv[2];
    (void)self;
    return sw_attend_shared(c, p, x, x, kv);
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    (void)s;
    if (sharing_of(l)->source >= 0)
        return 0;
    out[0] = out[1] = (sw_state_spec){true, 2, {l->kv_heads, l->head_dim}, SW_DTYPE_COUNT, false};
    return 2;
}

const sw_mixer_ops sw_mixer_shared_kv = {"attention with shared keys and values", sizeof(attention), declare, forward, states};

int sw_share_kv(sw_spec *s, int64_t shared, bool value_is_key)
{
    int64_t first = s->layers - shared, last[2] = {-1, -1}, carried = 0, at[2] = {0, 0};
    sw_kv_sharing *all = sw_arena_zalloc(&s->arena, (size_t)s->layers * sizeof *all);
    for (int64_t i = 0; i < first; i++)
        last[s->layer[i].window > 0] = i;
    for (int64_t i = 0; i < s->layers; i++) {
        sw_layer *l = &s->layer[i];
        int kind = l->window > 0;
        if (l->head_dim < 2 || l->head_dim % 2 || l->heads < 1 || l->kv_heads < 1 || l->heads % l->kv_heads)
            return sw_fail("layer %lld: %lld heads, %lld of keys, of %lld values each, do not fit together", (long long)i,
                           (long long)l->heads, (long long)l->kv_heads, (long long)l->head_dim);
        all[i] = (sw_kv_sharing){.source = i >= first ? last[kind] : -1, .stores = shared > 0 && i < first && last[kind] == i,
                                 .value_is_key = value_is_key && !kind, .carried = carried, .at = at[kind]};
        if (i >= first && last[kind] < 0)
            return sw_fail("\"num_kv_shared_layers\": %lld leaves no layer whose keys layer %lld could use", (long long)shared, (long long)i);
        if (all[i].source >= 0 && (s->layer[all[i].source].kv_heads != l->kv_heads || s->layer[all[i].source].head_dim != l->head_dim))
            return sw_fail("\"num_kv_shared_layers\": layer %lld has other heads than layer %lld, whose keys it uses", (long long)i,
                           (long long)all[i].source);
        if (all[i].stores) {
            at[kind] = carried;
            carried += 2 * l->kv_heads * l->head_dim;
        }
        l->mixer = &sw_mixer_shared_kv;
        l->mixer_options = &all[i];
        l->attention_scale = 1;
        l->rope = kind;
    }
    return 0;
}

bool sw_kv_is_unused(const sw_spec *s, const char *name)
{
    static const char *const unused[] = {"self_attn.k_proj.", "self_attn.v_proj.", "self_attn.k_norm."};
    char prefix[SW_NAME_MAX];
    for (int64_t i = 0; i < s->layers; i++)
        for (size_t k = 0; k < SW_COUNT(unused) && s->layer[i].mixer == &sw_mixer_shared_kv && sharing_of(&s->layer[i])->source >= 0; k++) {
            sw_file_name(s, i, unused[k], prefix);
            if (sw_starts_with(name, prefix))
                return true;
        }
    return false;
}

/* ---- inputs of each layer */

void sw_declare_layer_inputs(sw_builder *b, sw_layer_inputs *in, int64_t vocab, int64_t width)
{
    const sw_spec *s = sw_builder_spec(b);
    in->width = width;
    if (!width)
        return;
    sw_ask_linear(b, &in->table, "model.embed_tokens_per_layer", vocab, s->layers * width, SW_ASK_EMBEDDING);
    sw_ask_linear(b, &in->projection, "model.per_layer_model_projection", s->layers * width, s->hidden, 0);
    sw_ask_norm(b, &in->norm, "model.per_layer_projection_norm", width, &s->norm);
}

sw_var *sw_layer_inputs_of(sw_ctx *c, sw_layer_inputs *in, sw_pass *p, sw_var *x)
{
    int64_t layers = p->spec->layers, wide = layers * in->width;
    int32_t *ids = sw_ctx_alloc(c, (size_t)p->n * sizeof *ids);
    for (int64_t i = 0; i < p->n; i++)
        ids[i] = p->ids[i] < in->table.out ? p->ids[i] : 0;
    sw_var *at = sw_from_host(c, SW_I32, 1, &p->n, ids);
    sw_var *e = at ? sw_embed_forward(c, &in->table, at, sqrt((double)in->width)) : NULL;
    sw_var *y = e ? sw_linear_forward(c, &in->projection, x) : NULL;
    y = y ? sw_scale(c, y, 1 / sqrt((double)p->spec->hidden)) : NULL;
    y = y ? sw_norm_forward(c, &in->norm, sw_part(c, y, 0, 3, (int64_t[]){p->n, layers, in->width}, (int64_t[]){wide, in->width, 1})) : NULL;
    y = y ? sw_add(c, e, sw_part(c, y, 0, 2, (int64_t[]){p->n, wide}, (int64_t[]){wide, 1})) : NULL;
    return y ? sw_pass_keep(c, p, sw_scale(c, y, 1 / sqrt(2))) : NULL;
}

void sw_declare_layer_input(sw_builder *b, sw_layer_input *in, int64_t width)
{
    const sw_spec *s = sw_builder_spec(b);
    sw_ask_linear(b, &in->gate, "per_layer_input_gate", width, s->hidden, 0);
    sw_ask_linear(b, &in->projection, "per_layer_projection", s->hidden, width, 0);
    sw_ask_norm(b, &in->norm, "post_per_layer_input_norm", s->hidden, &s->norm);
}

sw_var *sw_layer_input_of(sw_ctx *c, sw_layer_input *in, const sw_pass *p, sw_var *x)
{
    int64_t width = in->gate.out;
    sw_var *h = sw_linear_forward(c, &in->gate, x);
    h = h ? sw_glu(c, h, sw_columns(c, p->body, p->block->index * width, width), p->spec->act) : NULL;
    h = h ? sw_linear_forward(c, &in->projection, h) : NULL;
    return h ? sw_norm_forward(c, &in->norm, h) : NULL;
}
