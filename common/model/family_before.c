/* Attention that is given the token before, too: Yuan 2 filters what queries and keys are made of, Baichuan-M1 mixes keys
 * and values with those before. */
#include "model/ffn_moe.h"
#include "model/head.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

enum { KEYS, VALUES, FIRST, SECOND }; /* states: what attention remembers, then the token before of two things */

/* A convolution with two taps, one and zero, gives the token before, and keeps the last row for the next batch. Its taps
 * are made once a pass, for as many channels as any layer has: [channels, 2] of the context's compute type. */
static sw_var *make_taps(sw_ctx *c, void *self, sw_pass *p, sw_var *x)
{
    int64_t wide = p->spec->hidden;
    (void)self;
    for (int64_t i = 0; i < p->spec->layers; i++)
        wide = SW_MAX(wide, p->spec->layer[i].kv_heads * p->spec->layer[i].head_dim);
    float *taps = sw_ctx_alloc(c, (size_t)wide * 2 * sizeof *taps);
    for (int64_t i = 0; i < wide; i++) {
        taps[2 * i] = 1;
        taps[2 * i + 1] = 0;
    }
    sw_var *t = sw_from_host(c, SW_F32, 2, (int64_t[]){wide, 2}, taps);
    t = t ? sw_cast(c, t, c->compute) : NULL;
    p->body = t ? sw_pass_keep(c, p, t) : NULL;
    return t ? x : NULL;
}

static void declare_nothing(sw_builder *b, void *self)
{
    (void)b;
    (void)self;
}

static const sw_body_ops body_taps = {1, declare_nothing, make_taps, NULL};

/* The rows before those of x [N, W], each of its own sequence; zeros before the first. */
static sw_var *before(sw_ctx *c, const sw_pass *p, int state, sw_var *x)
{
    sw_var *taps = sw_row_range(c, p->body, 0, x->t.shape[1]);
    if (!taps)
        return NULL;
    sw_param *w = sw_ctx_alloc(c, sizeof *w);
    *w = (sw_param){.v = *taps};
    return sw_conv1d(c, x, w, NULL, p->runs, sw_pass_state(p, state));
}

/* ---- Yuan 2: localized filtering (Wu et al. 2023, arXiv 2311.15786) */

typedef struct yuan {
    sw_linear q, k, v, o;
    sw_param *conv[2], *bias[2];
    sw_norm norm;
    sw_norm_spec plain;
} yuan;

static void declare_yuan(sw_builder *b, void *self)
{
    yuan *m = self;
    const sw_spec *s = sw_builder_spec(b);
    int64_t inner = s->heads * s->head_dim, half = s->hidden / 2, to[2] = {half, s->hidden}, from[2] = {s->hidden, half};
    sw_linear *in[3] = {&m->q, &m->k, &m->v};
    static const char *const names[3] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
                            *const convs[2][2] = {{"self_attn.lf_gate.conv1.weight", "self_attn.lf_gate.conv1.bias"},
                                                  {"self_attn.lf_gate.conv2.weight", "self_attn.lf_gate.conv2.bias"}};
    for (int i = 0; i < 3; i++)
        sw_ask_linear(b, in[i], names[i], inner, s->hidden, 0);
    sw_ask_linear(b, &m->o, "self_attn.o_proj", s->hidden, inner, 0);
    for (int i = 0; i < 2; i++) {
        m->conv[i] = sw_ask(b, convs[i][0], 4, (int64_t[]){to[i], from[i], 2, 1}, 0);
        m->bias[i] = sw_ask(b, convs[i][1], 1, &to[i], 0);
    }
    m->plain = (sw_norm_spec){.eps = 1e-6};
    sw_ask_norm(b, &m->norm, "self_attn.lf_gate.output_layernorm", s->hidden, &m->plain);
}

/* A convolution of width two over all channels: one product with each value of the token before beside the token's own. */
static sw_var *convolve(sw_ctx *c, const yuan *m, int which, const sw_pass *p, sw_var *x)
{
    int64_t n = x->t.shape[0], wide = x->t.shape[1], all = n * wide;
    if (x->t.stride[0] != wide && !(x = sw_dense(c, x)))
        return NULL;
    sw_var *old = before(c, p, FIRST + which, x);
    sw_var *pair[2] = {old ? sw_part(c, old, 0, 2, (int64_t[]){all, 1}, (int64_t[]){1, 1}) : NULL,
                       sw_part(c, x, 0, 2, (int64_t[]){all, 1}, (int64_t[]){1, 1})};
    sw_var *both = pair[0] && pair[1] ? sw_join(c, pair, 2) : NULL;
    both = both ? sw_part(c, both, 0, 2, (int64_t[]){n, 2 * wide}, (int64_t[]){2 * wide, 1}) : NULL;
    return both ? sw_matmul(c, both, m->conv[which], m->bias[which]) : NULL;
}

static sw_var *yuan_forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    yuan *m = self;
    const sw_layer *l = p->block->spec;
    int64_t n = x->t.shape[0], d = l->head_dim, inner = l->heads * d;
    sw_var *v = sw_heads(sw_linear_forward(c, &m->v, x), l->heads), *f = v ? convolve(c, m, 0, p, x) : NULL;
    f = f ? convolve(c, m, 1, p, f) : NULL;
    f = f ? sw_add(c, f, x) : NULL;
    f = f ? sw_norm_forward(c, &m->norm, f) : NULL;
    sw_var *pair[2] = {f ? sw_linear_forward(c, &m->q, f) : NULL, f ? sw_linear_forward(c, &m->k, f) : NULL};
    sw_var *both = pair[0] && pair[1] ? sw_join(c, pair, 2) : NULL; /* heads take two parts each from left to right */
    if (!both)
        return NULL;
    sw_var *q = sw_part(c, both, 0, 3, (int64_t[]){n, l->heads, d}, (int64_t[]){2 * inner, 2 * d, 1});
    sw_var *k = sw_part(c, both, d, 3, (int64_t[]){n, l->heads, d}, (int64_t[]){2 * inner, 2 * d, 1});
    if (!q || !k || !(q = sw_pass_rope(c, p, q, true)) || !(k = sw_pass_rope(c, p, k, false)) ||
        !(k = sw_pass_remember(c, p, KEYS, k)) || !(v = sw_pass_remember(c, p, VALUES, v)))
        return NULL;
    sw_attention how = {.scale = l->attention_scale, .causal = true, .paging = sw_pass_paging(p->pages)};
    sw_var *y = sw_attend(c, q, k, v, p->seqs, &how, NULL, NULL);
    return y ? sw_linear_forward(c, &m->o, y) : NULL;
}

static int yuan_states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    out[KEYS] = out[VALUES] = (sw_state_spec){true, 2, {l->heads, l->head_dim}, SW_DTYPE_COUNT, false};
    out[FIRST] = (sw_state_spec){false, 2, {1, s->hidden}, SW_DTYPE_COUNT, false};
    out[SECOND] = (sw_state_spec){false, 2, {1, s->hidden / 2}, SW_DTYPE_COUNT, false};
    return 4;
}

static const sw_mixer_ops mixer_yuan = {"localized filtering attention", sizeof(yuan), declare_yuan, yuan_forward, yuan_states};

/* Its router (Wu et al. 2024, arXiv 2405.17976): each expert has a query, a key and a value, and attends to all others. */
typedef struct attending {
    sw_linear q, k, v;
} attending;

static void declare_router(sw_builder *b, void *self, int64_t experts)
{
    attending *m = self;
    int64_t hidden = sw_builder_spec(b)->hidden;
    sw_ask_linear(b, &m->q, "mlp.router.query", experts, hidden, 0);
    sw_ask_linear(b, &m->k, "mlp.router.key", experts, hidden, 0);
    sw_ask_linear(b, &m->v, "mlp.router.value", experts, hidden, 0);
}

static sw_var *router_logits(sw_ctx *c, void *self, sw_var *x)
{
    attending *m = self;
    sw_linear *in[3] = {&m->q, &m->k, &m->v};
    int64_t n = x->t.shape[0], experts = m->q.out;
    int32_t *table = sw_ctx_alloc(c, (size_t)n * 4 * sizeof *table);
    for (int64_t i = 0; i < n; i++) {
        table[4 * i] = table[4 * i + 2] = (int32_t)(i * experts);
        table[4 * i + 1] = table[4 * i + 3] = (int32_t)experts;
    }
    sw_var *seqs = sw_from_host(c, SW_I32, 2, (int64_t[]){n, 4}, table), *part[3];
    sw_dtype product = c->product;
    c->product = SW_F32; /* as in sw_moe_dispatch */
    for (int i = 0; i < 3; i++) {
        part[i] = seqs ? sw_linear_forward(c, in[i], x) : NULL;
        part[i] = part[i] ? sw_part(c, part[i], 0, 3, (int64_t[]){n * experts, 1, 1}, (int64_t[]){1, 1, 1}) : NULL;
    }
    c->product = product;
    sw_attention how = {.scale = 1};
    sw_var *y = part[0] && part[1] && part[2] ? sw_attend(c, part[0], part[1], part[2], seqs, &how, NULL, NULL) : NULL;
    return y ? sw_part(c, y, 0, 2, (int64_t[]){n, experts}, (int64_t[]){experts, 1}) : NULL;
}

static const sw_moe_router router_attending = {sizeof(attending), declare_router, router_logits};

static int read_yuan(sw_spec *s, const cJSON *config)
{
    const cJSON *moe = sw_json_get(config, "moe_config");
    bool shared, gated;
    int64_t inner;
    const char *router;
    if (sw_json_bool(config, "use_shareqk", false, &shared) ||
        sw_json_i64(config, "attention_projection_size", 1, 1 << 24, s->hidden, &inner) ||
        sw_json_bool(moe, "gated_linear_unit", true, &gated) || sw_json_str(moe, "router_type", "attn_router", &router) ||
        (moe && sw_json_i64(moe, "ffn_hidden_size", 1, 1 << 24, s->mlp, &s->mlp)))
        return -1;
    if (shared || !gated || strcmp(router, "attn_router"))
        return sw_fail("\"use_shareqk\" must be false, \"gated_linear_unit\" true and \"router_type\" attn_router, as published models have "
                       "them");
    if (s->heads < 1 || inner % s->heads || s->hidden % (2 * s->heads))
        return sw_fail("\"attention_projection_size\" %lld and \"hidden_size\" %lld do not fall into %lld heads", (long long)inner,
                       (long long)s->hidden, (long long)s->heads);
    s->head_dim = s->rope[0].dim = inner / s->heads; /* of which as much turns as if the two sizes were one */
    s->rope[0].partial = SW_MIN(1, (double)s->hidden / (double)inner);
    return 0;
}

static int yuan_layers(sw_spec *s, const cJSON *config)
{
    static const sw_moe base = {.router = {.score = SW_ROUTE_SOFTMAX}, .own = &router_attending, .packed = true, .gate = "w1",
                                .down = "w2"};
    const cJSON *moe = sw_json_get(config, "moe_config");
    int64_t experts;
    for (int64_t i = 0; i < s->layers; i++)
        s->layer[i].mixer = &mixer_yuan;
    if (sw_json_i64(moe, "moe_num_experts", 0, 1 << 16, 0, &experts))
        return -1;
    return experts ? sw_moe_layers(s, moe, &base) : 0;
}

/* ---- Baichuan-M1: keys and values are mixed with those of the token before, by two weights a head; sliding layers may have
 * other heads */

typedef struct mixed {
    sw_linear qkv, o;
    sw_param *weights[2]; /* [1, 1, kv_heads, 1, 2]: of the token before, and of its own */
} mixed;

static void declare_mixed(sw_builder *b, void *self)
{
    mixed *m = self;
    const sw_spec *s = sw_builder_spec(b);
    const sw_layer *l = sw_builder_layer(b);
    int64_t shape[5] = {1, 1, l->kv_heads, 1, 2};
    sw_ask_linear(b, &m->qkv, "self_attn.qkv_proj", (l->heads + 2 * l->kv_heads) * l->head_dim, s->hidden, 0);
    sw_ask_linear(b, &m->o, "self_attn.o_proj", s->hidden, l->heads * l->head_dim, 0);
    m->weights[0] = sw_ask(b, "self_attn.conv_k", 5, shape, 0);
    m->weights[1] = sw_ask(b, "self_attn.conv_v", 5, shape, 0);
}

/* Weight `which` of each head, in all its channels: f32 [kv_heads * head_dim]. */
static sw_var *spread(sw_ctx *c, const sw_layer *l, sw_var *weights, int which)
{
    sw_var *one = sw_part(c, weights, which, 2, (int64_t[]){l->kv_heads, 1}, (int64_t[]){2, 1});
    sw_var *all = one ? sw_tmp2(c, SW_F32, l->kv_heads, l->head_dim) : NULL;
    if (!all || sw_k(c)->fill(sw_s(c), &all->t, 1))
        return NULL;
    all = sw_scale_rows(c, all, one);
    return all ? sw_part(c, all, 0, 1, (int64_t[]){l->kv_heads * l->head_dim}, (int64_t[]){1}) : NULL;
}

static sw_var *mix(sw_ctx *c, const mixed *m, int which, const sw_pass *p, sw_var *x)
{
    const sw_layer *l = p->block->spec;
    sw_var *w = sw_parameter(c, m->weights[which]), *old, *own, *a, *b;
    x = sw_dense(c, x);
    if (!x || !w || !(old = spread(c, l, w, 0)) || !(own = spread(c, l, w, 1)) || !(a = before(c, p, FIRST + which, x)) ||
        !(a = sw_times_row(c, a, old)) || !(b = sw_times_row(c, x, own)))
        return NULL;
    return sw_heads(sw_add(c, a, b), l->kv_heads);
}

static sw_var *mixed_forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    mixed *m = self;
    const sw_layer *l = p->block->spec;
    int64_t n = x->t.shape[0], d = l->head_dim, wide = l->kv_heads * d, rows = l->heads * d + 2 * wide;
    sw_var *y = sw_linear_forward(c, &m->qkv, x);
    sw_var *q = y ? sw_part(c, y, 0, 3, (int64_t[]){n, l->heads, d}, (int64_t[]){rows, d, 1}) : NULL;
    sw_var *k = q ? mix(c, m, 0, p, sw_columns(c, y, l->heads * d, wide)) : NULL;
    sw_var *v = k ? mix(c, m, 1, p, sw_columns(c, y, l->heads * d + wide, wide)) : NULL;
    if (!v || !(q = sw_pass_rope(c, p, q, true)) || !(k = sw_pass_rope(c, p, k, false)) || !(k = sw_pass_remember(c, p, KEYS, k)) ||
        !(v = sw_pass_remember(c, p, VALUES, v)))
        return NULL;
    sw_attention how = {.scale = l->attention_scale, .causal = true, .window = l->window, .paging = sw_pass_paging(p->pages)};
    y = sw_attend(c, q, k, v, p->seqs, &how, NULL, NULL);
    return y ? sw_linear_forward(c, &m->o, y) : NULL;
}

static int mixed_states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    (void)s;
    out[KEYS] = out[VALUES] = (sw_state_spec){true, 2, {l->kv_heads, l->head_dim}, SW_DTYPE_COUNT, false};
    out[FIRST] = out[SECOND] = (sw_state_spec){false, 2, {1, l->kv_heads * l->head_dim}, SW_DTYPE_COUNT, false};
    return 4;
}

static const sw_mixer_ops mixer_mixed = {"attention with mixed keys and values", sizeof(mixed), declare_mixed, mixed_forward, mixed_states};

static int read_m1(sw_spec *s, const cJSON *config)
{
    int64_t taps;
    if (sw_json_i64(config, "conv_window", 1, 64, 2, &taps) || sw_read_window(s, config))
        return -1;
    s->head_product = sw_head_unit_rows;
    return taps == 2 ? 0 : sw_fail("\"conv_window\": %lld, where published models have 2", (long long)taps);
}

static int m1_layers(sw_spec *s, const cJSON *config)
{
    const cJSON *sliding = sw_json_get(config, "sliding_window_layers");
    int64_t heads, kv_heads;
    if (sw_json_i64(config, "num_swa_attention_heads", 1, 1 << 16, s->heads, &heads) ||
        sw_json_i64(config, "num_swa_key_value_heads", 1, 1 << 16, s->kv_heads, &kv_heads))
        return -1;
    if (s->hidden % heads || s->hidden / heads % 2 || heads % kv_heads)
        return sw_fail("\"num_swa_attention_heads\" %lld and \"num_swa_key_value_heads\" %lld do not divide the %lld values of \"hidden_size\"",
                       (long long)heads, (long long)kv_heads, (long long)s->hidden);
    s->rope[1] = s->rope[0];
    s->rope[1].dim = s->hidden / heads;
    for (int64_t i = 0; i < s->layers; i++) {
        sw_layer *l = &s->layer[i];
        l->mixer = &mixer_mixed;
        l->window = 0;
        l->rope = 0;
    }
    for (const cJSON *v = sliding ? sliding->child : NULL; v; v = v->next) {
        if (!cJSON_IsNumber(v) || v->valuedouble < 0 || v->valuedouble >= (double)s->layers)
            return sw_fail("\"sliding_window_layers\": numbers of layers below %lld are needed", (long long)s->layers);
        sw_layer *l = &s->layer[(int64_t)v->valuedouble];
        l->window = s->window;
        l->heads = heads;
        l->kv_heads = kv_heads;
        l->head_dim = l->value_dim = s->hidden / heads;
        l->attention_scale = 1 / sqrt((double)l->head_dim);
        l->rope = 1;
    }
    return 0;
}

/* What Yuan calls up is what others call gate. */
static const sw_rename yuan_names[] = {{"mlp.gate_proj", "mlp.up_proj"}, {"mlp.up_proj", "mlp.gate_proj"}, {"mlp.router", "mlp.gate"}, {0}};
static const sw_rename m1_names[] = {{"self_attn.qkv_proj", "self_attn.W_pack"}, {0}};

const sw_family sw_family_before[] = {
    {.name = "yuan", .architectures = SW_NAMES("YuanForCausalLM"), .model_types = SW_NAMES("yuan"), .read = read_yuan,
     .layers = yuan_layers, .names = yuan_names, .body = &body_taps},
    {.name = "baichuan_m1", .architectures = SW_NAMES("BaichuanM1ForCausalLM"), .model_types = SW_NAMES("baichuan_m1"), .read = read_m1,
     .layers = m1_layers, .names = m1_names, .body = &body_taps},
    {0}};
