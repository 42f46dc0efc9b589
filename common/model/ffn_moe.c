#include "model/ffn_moe.h"

#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Those of all experts; of the shared one. No gate: there is none; no up: it is in the gate. */
typedef struct experts {
    sw_linears gate, up, down;
} experts;

typedef struct moe {
    const sw_moe *o;
    sw_linear router, shared_gate, latent_in, latent_out;
    void *own; /* of o->own */
    experts apart, shared; /* empty where they are stacked, where there is none */
    sw_param *gate_up, *down, *gate_up_bias, *down_bias;
    sw_param *gate, *up; /* where those are apart */
    sw_param *correction, *out_bias;
    const int32_t *by_token; /* host [vocab, k], or NULL */
    sw_norm norm;                            /* of what experts get */
    sw_param *router_scale, *expert_scale;   /* [hidden]; [experts] */
} moe;

static sw_linears new_linears(sw_builder *b, int64_t n)
{
    return (sw_linears){.at = sw_builder_alloc(b, (size_t)n * sizeof(sw_linear)), .n = n, .w = sw_builder_alloc(b, (size_t)n * sizeof(sw_param *))};
}

static experts new_experts(sw_builder *b, int64_t n, bool packed)
{
    experts x = {.down = new_linears(b, n)};
    if (packed || !sw_builder_spec(b)->plain_mlp)
        x.gate = new_linears(b, n);
    if (!packed)
        x.up = new_linears(b, n);
    return x;
}

/* Expert e. packed: the name of gate and up in one, or NULL */
static void ask_expert(sw_builder *b, experts *x, int64_t e, const char *prefix, const char *const names[3], int64_t in, int64_t wide,
                       const char *packed, bool bias)
{
    unsigned flags = bias ? SW_ASK_BIAS : 0;
    char name[SW_NAME_MAX];
    if (x->gate.n) {
        snprintf(name, sizeof name, "%s.%s", prefix, packed ? packed : names[0]);
        sw_ask_linear(b, &x->gate.at[e], name, packed ? 2 * wide : wide, in, flags);
    }
    if (x->up.n) {
        snprintf(name, sizeof name, "%s.%s", prefix, names[1]);
        sw_ask_linear(b, &x->up.at[e], name, wide, in, flags);
    }
    snprintf(name, sizeof name, "%s.%s", prefix, names[2]);
    sw_ask_linear(b, &x->down.at[e], name, in, wide, flags);
}

static void ask_stacks(sw_builder *b, moe *m)
{
    int64_t hidden = sw_builder_spec(b)->hidden, wide = m->o->wide, experts = m->o->experts;
    bool turned = m->o->turned;
    if (m->o->apart) {
        int64_t rows[2] = {experts * wide, hidden};
        m->gate = sw_ask(b, "mlp.experts.gate", 2, rows, SW_ASK_ANY);
        m->up = sw_ask(b, "mlp.experts.up", 2, rows, SW_ASK_ANY);
        m->down = sw_ask(b, "mlp.experts.down", 2, rows, SW_ASK_ANY);
        return;
    }
    m->gate_up = sw_ask(b, "mlp.experts.gate_up", 3,
                        (int64_t[]){experts, turned ? hidden : 2 * wide, turned ? 2 * wide : hidden}, SW_ASK_ANY);
    m->down = sw_ask(b, "mlp.experts.down", 3, (int64_t[]){experts, turned ? wide : hidden, turned ? hidden : wide},
                     SW_ASK_ANY);
    if (m->o->biased) {
        m->gate_up_bias = sw_ask(b, "mlp.experts.gate_up_bias", 2, (int64_t[]){experts, 2 * wide}, 0);
        m->down_bias = sw_ask(b, "mlp.experts.down_bias", 2, (int64_t[]){experts, hidden}, 0);
    }
}

static void declare(sw_builder *b, void *self)
{
    static const char *const usual[3] = {"gate_proj", "up_proj", "down_proj"};
    moe *m = self;
    const sw_spec *s = sw_builder_spec(b);
    const sw_moe *o = m->o = sw_builder_layer(b)->ffn_options;
    const char *const names[3] = {o->gate ? o->gate : usual[0], o->up ? o->up : usual[1], o->down ? o->down : usual[2]};
    int64_t choices = o->experts + o->identities;
    char prefix[64];
    if (o->own) {
        m->own = sw_builder_alloc(b, o->own->size);
        o->own->declare(b, m->own, choices);
    } else {
        sw_ask_linear(b, &m->router, "mlp.router", choices, s->hidden, o->router_bias ? SW_ASK_BIAS : 0);
    }
    if (o->correction) {
        int64_t row[2] = {1, choices};
        m->correction = sw_ask(b, "mlp.correction", o->correction_row ? 2 : 1, o->correction_row ? row : &choices,
                               SW_ASK_F32 | SW_ASK_FIXED);
    }
    if (o->by_token)
        m->by_token = sw_ask_integers(b, "mlp.router.by_token", 2, (int64_t[]){s->vocab, o->router.k}, o->experts);
    if (o->own_norms) {
        sw_ask_norm(b, &m->norm, "mlp.expert_norm", s->hidden, &s->norm);
        m->router_scale = sw_ask(b, "mlp.router_scale", 1, &s->hidden, 0);
        m->expert_scale = sw_ask(b, "mlp.expert_scale", 1, &o->experts, 0);
    }
    if (o->latent) {
        unsigned bias = o->shared_bias ? SW_ASK_BIAS : 0;
        sw_ask_linear(b, &m->latent_in, "mlp.latent_in", o->latent, s->hidden, bias);
        sw_ask_linear(b, &m->latent_out, "mlp.latent_out", s->hidden, o->latent, bias);
    }
    if (o->out_bias)
        m->out_bias = sw_ask(b, "mlp.bias", 1, &s->hidden, 0);
    if (o->stacked)
        ask_stacks(b, m);
    else
        m->apart = new_experts(b, o->experts, o->packed);
    for (int64_t e = 0; e < m->apart.down.n; e++) {
        snprintf(prefix, sizeof prefix, "mlp.experts.%lld", (long long)e);
        ask_expert(b, &m->apart, e, prefix, names, o->latent ? o->latent : s->hidden, o->wide, o->packed ? names[0] : NULL, false);
    }
    if (o->shared_wide) {
        m->shared = new_experts(b, 1, o->shared_packed);
        ask_expert(b, &m->shared, 0, "mlp.shared", usual, s->hidden, o->shared_wide, o->shared_packed ? "gate_up_proj" : NULL, o->shared_bias);
    }
    if (o->shared_gated)
        sw_ask_linear(b, &m->shared_gate, "mlp.shared_gate", 1, s->hidden, 0);
}

/* x where it is below the limit: x - relu(x - limit), which leaves small values as they are in 16 bits, too. */
static sw_var *cut_above(sw_ctx *c, sw_var *x, double limit)
{
    sw_var *y = sw_shift(c, x, -limit);
    y = y ? sw_activation(c, y, SW_ACT_RELU) : NULL;
    y = y ? sw_scale(c, y, -1) : NULL;
    return y ? sw_add(c, y, x) : NULL;
}

#define QUICK_SHARPNESS 1.702 /* of SW_ACT_GELU_QUICK */

/* Columns first, first + 2, ... of y [N, W]: as rows of one value, since kernels want rows without gaps. */
static sw_var *every_second(sw_ctx *c, sw_var *y, int64_t first)
{
    int64_t n = y->t.shape[0], wide = y->t.shape[1] / 2;
    sw_var *v = sw_part(c, y, first, 2, (int64_t[]){n * wide, 1}, (int64_t[]){2, 1});
    v = v ? sw_dense(c, v) : NULL;
    return v ? sw_part(c, v, 0, 2, (int64_t[]){n, wide}, (int64_t[]){wide, 1}) : NULL;
}

/* gate sigmoid(sharpness gate) (up + 1), both cut at the limit; without a sharpness act(gate) up. */
static sw_var *glu_cut(sw_ctx *c, sw_var *gate, sw_var *up, double limit, double sharpness, sw_act act)
{
    gate = cut_above(c, gate, limit);
    up = gate ? sw_clamp(c, up, limit) : NULL;
    if (!(sharpness > 0))
        return up ? sw_glu(c, gate, up, act) : NULL;
    up = up ? sw_shift(c, up, 1) : NULL;
    double stretch = sharpness / QUICK_SHARPNESS;
    gate = up && stretch != 1 ? sw_scale(c, gate, stretch) : gate;
    sw_var *h = up && gate ? sw_glu(c, gate, up, SW_ACT_GELU_QUICK) : NULL;
    return h && stretch != 1 ? sw_scale(c, h, 1 / stretch) : h;
}

sw_var *sw_glu_turns(sw_ctx *c, sw_var *y, double limit)
{
    sw_var *gate = every_second(c, y, 0), *up = gate ? every_second(c, y, 1) : NULL;
    return up ? glu_cut(c, gate, up, limit, QUICK_SHARPNESS, SW_ACT_NONE) : NULL;
}

/* Gate and up from a projection y [N, 2 wide] of both. */
static sw_var *gated(sw_ctx *c, const moe *m, const sw_spec *s, sw_var *y)
{
    int64_t wide = y->t.shape[1] / 2;
    sw_var *gate, *up;
    if (m->o->interleaved) {
        gate = every_second(c, y, 0);
        up = every_second(c, y, 1);
    } else {
        gate = sw_columns(c, y, 0, wide);
        up = sw_columns(c, y, wide, wide);
    }
    if (!gate || !up)
        return NULL;
    return m->o->limit > 0 ? glu_cut(c, gate, up, m->o->limit, m->o->sharpness, s->act) : sw_glu(c, gate, up, s->act);
}

static sw_var *linear(sw_ctx *c, sw_linears *l, sw_var *x, const sw_dispatch *d)
{
    return d ? sw_linear_places(c, l, x, d) : sw_linear_forward(c, l->at, x);
}

/* NULL for one that it has not. */
static int gate_and_up(sw_ctx *c, experts *e, sw_var *x, const sw_dispatch *d, sw_var *y[2])
{
    y[0] = y[1] = NULL;
    if (!d && e->gate.n && e->up.n)
        return sw_linears_forward(c, (sw_linear *[]){e->gate.at, e->up.at}, 2, x, y);
    return (e->gate.n && !(y[0] = linear(c, &e->gate, x, d))) || (e->up.n && !(y[1] = linear(c, &e->up, x, d))) ? -1 : 0;
}

/* The experts' part for x at all places of d; the shared one's for every token without d. */
static sw_var *run_apart(sw_ctx *c, experts *e, const moe *m, const sw_spec *s, sw_var *x, const sw_dispatch *d)
{
    sw_var *in[2], *h;
    if (gate_and_up(c, e, x, d, in))
        return NULL;
    h = !in[1]            ? gated(c, m, s, in[0])
        : !in[0]          ? sw_activation(c, in[1], s->act)
        : m->o->limit > 0 ? glu_cut(c, in[0], in[1], m->o->limit, m->o->sharpness, s->act)
                          : sw_glu(c, in[0], in[1], s->act);
    return h ? linear(c, &e->down, h, d) : NULL;
}

static sw_var *run_stacked(sw_ctx *c, moe *m, const sw_spec *s, sw_var *x, const sw_dispatch *d)
{
    bool turned = m->o->turned;
    sw_experts gate = {&m->gate, 1, m->o->experts, false}, up = {&m->up, 1, m->o->experts, false},
               both = {&m->gate_up, 1, m->o->experts, turned}, down = {&m->down, 1, m->o->experts, turned || m->o->apart};
    sw_var *y;
    if (m->o->apart) {
        y = sw_matmul_places(c, x, &gate, NULL, d);
        sw_var *u = y ? sw_matmul_places(c, x, &up, NULL, d) : NULL;
        y = u ? sw_glu(c, y, u, s->act) : NULL;
    } else {
        y = sw_matmul_places(c, x, &both, m->gate_up_bias, d);
        y = y ? gated(c, m, s, y) : NULL;
    }
    return y ? sw_matmul_places(c, y, &down, m->down_bias, d) : NULL;
}

/* What the router looks at: x of length 1, its columns scaled. */
static sw_var *routed_by(sw_ctx *c, moe *m, sw_var *x)
{
    if (!m->o->own_norms)
        return x;
    sw_var *y = sw_rmsnorm(c, x, NULL, m->norm.spec->eps, 0);
    y = y ? sw_scale_columns(c, y, m->router_scale) : NULL;
    return y ? sw_scale(c, y, 1 / sqrt((double)x->t.shape[1])) : NULL;
}

/* A value of each choice [choices, 1], at all places. */
static sw_var *of_choices(sw_ctx *c, sw_var *each, const sw_dispatch *d)
{
    each = each ? sw_gather(c, each, d->of) : NULL;
    return each ? sw_cast(c, each, c->compute) : NULL;
}

/* The weights w of all places, times their experts' own scales. */
static sw_var *scaled(sw_ctx *c, moe *m, sw_var *w, const sw_dispatch *d)
{
    sw_var *all = sw_parameter(c, m->expert_scale);
    all = all ? sw_scale(c, all, 1) : NULL;
    all = all ? of_choices(c, sw_part(c, all, 0, 2, (int64_t[]){m->o->experts, 1}, (int64_t[]){1, 1}), d) : NULL;
    return all ? sw_mul(c, w, all) : NULL;
}

/* y, where choices that are identities give zeros, plus what they got. */
static sw_var *plus_identities(sw_ctx *c, const moe *m, sw_var *y, sw_var *x, const sw_dispatch *d)
{
    float *is = sw_ctx_alloc(c, (size_t)d->experts * sizeof *is);
    for (int64_t e = 0; e < d->experts; e++)
        is[e] = e >= m->o->experts;
    sw_var *at = of_choices(c, sw_from_host(c, SW_F32, 2, (int64_t[]){d->experts, 1}, is), d);
    sw_var *same = at ? sw_scale_rows(c, x, at) : NULL;
    return same ? sw_add(c, y, same) : NULL;
}

/* The weighted sum of what a token's experts give it. */
static sw_var *routed(sw_ctx *c, moe *m, const sw_pass *p, sw_var *x, sw_var *w, const sw_dispatch *d)
{
    if (!(w = sw_pairs_to_places(c, w, d)) || !(x = sw_to_places(c, x, d)) || (m->expert_scale && !(w = scaled(c, m, w, d))) ||
        (m->o->weigh_input && !(x = sw_scale_rows(c, x, w))))
        return NULL;
    sw_var *y = m->apart.down.n ? run_apart(c, &m->apart, m, p->spec, x, d) : run_stacked(c, m, p->spec, x, d);
    if (y && m->o->identities)
        y = plus_identities(c, m, y, x, d);
    if (y && !m->o->weigh_input)
        y = sw_scale_rows(c, y, w);
    return y ? sw_from_places(c, y, d) : NULL;
}

static sw_var *shared(sw_ctx *c, moe *m, const sw_pass *p, sw_var *x)
{
    sw_var *y = run_apart(c, &m->shared, m, p->spec, x, NULL);
    if (!y || !m->o->shared_gated)
        return y;
    sw_var *w = sw_linear_forward(c, &m->shared_gate, x);
    w = w ? sw_activation(c, w, SW_ACT_SIGMOID) : NULL;
    return w ? sw_scale_rows(c, y, w) : NULL;
}

int sw_moe_dispatch(sw_ctx *c, sw_linear *router, sw_param *correction, sw_var *given, const sw_router *r, sw_var *x, sw_dispatch *out,
                    sw_var **weights)
{
    sw_dtype product = c->product;
    c->product = SW_F32; /* the choice hangs on small differences */
    sw_var *logits = sw_linear_forward(c, router, x);
    c->product = product;
    return sw_moe_dispatch_logits(c, logits, correction, given, r, out, weights);
}

int sw_moe_dispatch_logits(sw_ctx *c, sw_var *logits, sw_param *correction, sw_var *given, const sw_router *r, sw_dispatch *out,
                           sw_var **weights)
{
    sw_var *ids = given;
    if (!logits || !(*weights = sw_route(c, logits, correction, r, &ids)) || !(*weights = sw_cast(c, *weights, c->compute)))
        return -1;
    return sw_dispatch_pairs(c, ids, logits->t.shape[1], out);
}

/* The experts of the batch's tokens [n, k]. */
static sw_var *experts_by_token(sw_ctx *c, const moe *m, const sw_pass *p)
{
    int64_t k = m->o->router.k;
    int32_t *ids = sw_ctx_alloc(c, (size_t)(p->n * k) * sizeof *ids);
    for (int64_t i = 0; i < p->n; i++)
        memcpy(ids + i * k, m->by_token + p->ids[i] * k, (size_t)k * sizeof *ids);
    return sw_from_host(c, SW_I32, 2, (int64_t[]){p->n, k}, ids);
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    moe *m = self;
    const sw_moe *o = m->o;
    sw_dispatch d;
    sw_var *w, *given = m->by_token ? experts_by_token(c, m, p) : NULL, *seen = routed_by(c, m, x), *in = x;
    int rc = !seen || (m->by_token && !given)
                 ? -1
             : o->own ? sw_moe_dispatch_logits(c, o->own->logits(c, m->own, seen), m->correction, given, &o->router, &d, &w)
                      : sw_moe_dispatch(c, &m->router, m->correction, given, &o->router, seen, &d, &w);
    if (rc || !(in = sw_norm_forward(c, &m->norm, in)) || (o->latent && !(in = sw_linear_forward(c, &m->latent_in, in))))
        return NULL;
    sw_var *y = routed(c, m, p, in, w, &d);
    if (y && o->latent)
        y = sw_linear_forward(c, &m->latent_out, y);
    if (y && m->out_bias) {
        sw_var *bias = sw_parameter(c, m->out_bias);
        y = bias ? sw_plus_row(c, y, bias) : NULL;
    }
    if (!y || !o->shared_wide)
        return y;
    sw_var *all = shared(c, m, p, x);
    return all ? sw_add(c, y, all) : NULL;
}

const sw_ffn_ops sw_ffn_moe = {"moe", sizeof(moe), declare, forward};

int sw_moe_check(const sw_moe *m)
{
    const sw_router *r = &m->router;
    if (m->experts < 1 || m->experts > 1 << 16 || m->wide < 1 || m->wide > 1 << 24 || m->shared_wide < 0 ||
        m->shared_wide > 1 << 24 || m->identities < 0 || m->identities > 1 << 16)
        return sw_fail("experts: %lld of width %lld (shared: %lld) are not possible", (long long)m->experts,
                       (long long)m->wide, (long long)m->shared_wide);
    if (r->k < 1 || r->k > m->experts + m->identities)
        return sw_fail("\"num_experts_per_tok\": %lld is not between 1 and the %lld experts", (long long)r->k,
                       (long long)(m->experts + m->identities));
    if (r->groups > 1 && (r->groups > SW_MOST_GROUPS || m->experts % r->groups || r->top_groups < 1 ||
                          r->top_groups > r->groups || r->k > m->experts / r->groups * r->top_groups))
        return sw_fail("\"n_group\" %lld and \"topk_group\" %lld do not divide %lld experts so that %lld can be chosen",
                       (long long)r->groups, (long long)r->top_groups, (long long)m->experts, (long long)r->k);
    return 0;
}

const sw_moe *sw_moe_keep(sw_spec *s, const sw_moe *m)
{
    sw_moe *copy = sw_arena_zalloc(&s->arena, sizeof *copy);
    *copy = *m;
    return copy;
}

void sw_moe_layer(sw_spec *s, int64_t i, const sw_moe *m)
{
    s->layer[i].ffn = &sw_ffn_moe;
    s->layer[i].ffn_options = m;
}
