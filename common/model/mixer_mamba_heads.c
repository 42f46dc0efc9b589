/* Mamba in heads, as Zamba's layers have it (Glorioso et al. 2024, arXiv 2405.16712): each head is a Mamba of its own channels,
 * with steps, B and C of its own, between one projection in and one out. */
#include "model/family.h"
#include "model/mixer_mamba.h"

#include <stdio.h>

typedef struct mamba_heads {
    sw_linear in, out;
    sw_param *conv, *conv_bias, *x, *dt, *dt_bias, *a_log, *skip;
} mamba_heads;

int sw_mamba_heads_check(const sw_mamba_heads_options *o)
{
    if (o->heads < 1 || o->first_state + 1 + o->heads > SW_MOST_STATES || o->inner < 1 || o->inner > 1 << 24 || o->inner % o->heads ||
        o->state < 1 || o->state > 1 << 16 || o->rank < 1 || o->rank > 1 << 20)
        return sw_fail("Mamba layers of %lld channels in %lld heads with %lld values and a rank of %lld are not possible",
                       (long long)o->inner, (long long)o->heads, (long long)o->state, (long long)o->rank);
    return o->taps < 2 || o->taps > 256 ? sw_fail("\"mamba_d_conv\": %lld is not between 2 and 256", (long long)o->taps) : 0;
}

static const sw_mamba_heads_options *options(const sw_layer *l) { return l->mixer_options; }

static const char *named(char out[SW_NAME_MAX], const sw_mamba_heads_options *o, const char *name)
{
    snprintf(out, SW_NAME_MAX, "%s%s", o->place, name);
    return out;
}

static void declare(sw_builder *b, void *self)
{
    mamba_heads *m = self;
    const sw_mamba_heads_options *o = options(sw_builder_layer(b));
    int64_t hidden = sw_builder_spec(b)->hidden, each = o->inner / o->heads;
    unsigned bias = o->bias ? SW_ASK_BIAS : 0;
    char name[SW_NAME_MAX];
    sw_ask_linear(b, &m->in, named(name, o, "in_proj"), 2 * o->inner, hidden, bias);
    m->conv = sw_ask(b, named(name, o, "conv1d.weight"), 3, (int64_t[]){o->inner, 1, o->taps}, 0);
    m->conv_bias = o->conv_bias ? sw_ask(b, named(name, o, "conv1d.bias"), 1, &o->inner, 0) : NULL;
    m->x = sw_ask(b, named(name, o, "x_proj_weight"), 3, (int64_t[]){o->heads, o->rank + 2 * o->state, each}, 0);
    m->dt = sw_ask(b, named(name, o, "dt_proj_weight"), 3, (int64_t[]){o->heads, each, o->rank}, 0);
    m->dt_bias = sw_ask(b, named(name, o, "dt_proj_bias"), 2, (int64_t[]){o->heads, each}, 0);
    m->a_log = sw_ask(b, named(name, o, "A_log"), 3, (int64_t[]){o->heads, each, o->state}, SW_ASK_F32);
    m->skip = sw_ask(b, named(name, o, "D"), 2, (int64_t[]){o->heads, each}, SW_ASK_F32);
    sw_ask_linear(b, &m->out, named(name, o, "out_proj"), hidden, o->inner, bias);
}

/* Values first, first + 2, ... of each row, which channels and their gates take turns in. */
static sw_var *every_second(sw_ctx *c, sw_var *x, int64_t first)
{
    int64_t n = x->t.shape[0], wide = x->t.shape[1] / 2;
    sw_var *v = sw_part(c, x, first, 2, (int64_t[]){n * wide, 1}, (int64_t[]){2, 1});
    v = v ? sw_dense(c, v) : NULL;
    return v ? sw_part(c, v, 0, 2, (int64_t[]){n, wide}, (int64_t[]){wide, 1}) : NULL;
}

/* Head h of u [N, inner], with a = -exp(A) [heads, each, state] and skip [heads, each]. */
static sw_var *scan(sw_ctx *c, mamba_heads *m, const sw_pass *p, int64_t h, sw_var *u, sw_var *a, sw_var *skip)
{
    const sw_mamba_heads_options *o = options(p->block->spec);
    int64_t each = o->inner / o->heads;
    sw_var *x = sw_dense(c, sw_columns(c, u, h * each, each));
    sw_var *parts = x ? sw_matmul_one(c, x, m->x, NULL, o->heads, h) : NULL;
    sw_var *dt = parts ? sw_dense(c, sw_columns(c, parts, 0, o->rank)) : NULL;
    dt = dt ? sw_matmul_one(c, dt, m->dt, m->dt_bias, o->heads, h) : NULL;
    dt = dt ? sw_cast(c, dt, SW_F32) : NULL;
    dt = dt ? sw_activation(c, dt, SW_ACT_SOFTPLUS) : NULL;
    if (!dt)
        return NULL;
    sw_scan_in in = {.x = x, .dt = dt, .b = sw_columns(c, parts, o->rank, o->state), .c = sw_columns(c, parts, o->rank + o->state, o->state),
                     .a = sw_part(c, a, h * each * o->state, 2, (int64_t[]){each, o->state}, (int64_t[]){o->state, 1}),
                     .skip = sw_part(c, skip, h * each, 1, &each, (int64_t[]){1})};
    return in.a && in.skip ? sw_selective_scan(c, &in, p->runs, sw_pass_state(p, o->first_state + 1 + (int)h)) : NULL;
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    mamba_heads *m = self;
    const sw_mamba_heads_options *o = options(p->block->spec);
    sw_var *head[SW_MOST_STATES], *both = sw_linear_forward(c, &m->in, x), *u = both ? every_second(c, both, 0) : NULL;
    u = u ? sw_conv1d(c, u, m->conv, m->conv_bias, p->runs, sw_pass_state(p, o->first_state)) : NULL;
    u = u ? sw_activation(c, u, o->act) : NULL;
    sw_var *a = u ? sw_parameter(c, m->a_log) : NULL, *skip;
    a = a ? sw_activation(c, a, SW_ACT_EXP) : NULL;
    if (!a || !(a = sw_scale(c, a, -1)) || !(skip = sw_parameter(c, m->skip)) || !(skip = sw_scale(c, skip, 1)))
        return NULL;
    for (int64_t h = 0; h < o->heads; h++)
        if (!(head[h] = scan(c, m, p, h, u, a, skip)))
            return NULL;
    sw_var *y = o->heads > 1 ? sw_join(c, head, (size_t)o->heads) : head[0], *gate = y ? every_second(c, both, 1) : NULL;
    y = gate ? sw_glu(c, gate, y, SW_ACT_SILU) : NULL;
    return y ? sw_linear_forward(c, &m->out, y) : NULL;
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    const sw_mamba_heads_options *o = options(l);
    (void)s;
    out[0] = (sw_state_spec){false, 2, {o->taps - 1, o->inner}, SW_DTYPE_COUNT, false};
    for (int64_t h = 0; h < o->heads; h++)
        out[1 + h] = (sw_state_spec){false, 2, {o->inner / o->heads, o->state}, SW_F32, false};
    return 1 + (int)o->heads;
}

const sw_mixer_ops sw_mixer_mamba_heads = {"mamba in heads", sizeof(mamba_heads), declare, forward, states};
