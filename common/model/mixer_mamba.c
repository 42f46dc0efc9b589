/* Mamba: a gated selective scan behind a short convolution (Gu and Dao 2023, arXiv 2312.00752). */
#include "model/mixer_mamba.h"

typedef struct mamba {
    sw_linear in, x, dt, out;
    sw_norm dt_norm, b_norm, c_norm;
    sw_param *conv, *conv_bias, *a_log, *skip;
} mamba;

int sw_mamba_check(const sw_mamba_options *o)
{
    if (o->inner < 1 || o->state < 1 || o->rank < 1 || o->inner > 1 << 24 || o->state > 1 << 16 || o->rank > 1 << 20)
        return sw_fail("Mamba layers of %lld channels with %lld values and a rank of %lld are not possible", (long long)o->inner,
                       (long long)o->state, (long long)o->rank);
    return o->taps < 2 || o->taps > 256 ? sw_fail("\"conv_kernel\": %lld is not between 2 and 256", (long long)o->taps) : 0;
}

static const sw_mamba_options *options(const sw_layer *l) { return l->mixer_options; }

static void declare(sw_builder *b, void *self)
{
    mamba *m = self;
    const sw_mamba_options *o = options(sw_builder_layer(b));
    int64_t hidden = sw_builder_spec(b)->hidden;
    unsigned bias = o->bias ? SW_ASK_BIAS : 0;
    sw_ask_linear(b, &m->in, "mamba.in_proj", 2 * o->inner, hidden, bias);
    m->conv = sw_ask(b, "mamba.conv1d.weight", 3, (int64_t[]){o->inner, 1, o->taps}, 0);
    m->conv_bias = o->conv_bias ? sw_ask(b, "mamba.conv1d.bias", 1, &o->inner, 0) : NULL;
    sw_ask_linear(b, &m->x, "mamba.x_proj", o->rank + 2 * o->state, o->inner, 0);
    sw_ask_linear(b, &m->dt, "mamba.dt_proj", o->inner, o->rank, SW_ASK_BIAS);
    m->a_log = sw_ask(b, "mamba.A_log", 2, (int64_t[]){o->inner, o->state}, SW_ASK_F32);
    m->skip = sw_ask(b, "mamba.D", 1, &o->inner, SW_ASK_F32);
    sw_ask_linear(b, &m->out, "mamba.out_proj", hidden, o->inner, bias);
    if (o->inner_norm.eps > 0) {
        sw_ask_norm(b, &m->dt_norm, "mamba.dt_layernorm", o->rank, &o->inner_norm);
        sw_ask_norm(b, &m->b_norm, "mamba.b_layernorm", o->state, &o->inner_norm);
        sw_ask_norm(b, &m->c_norm, "mamba.c_layernorm", o->state, &o->inner_norm);
    }
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    mamba *m = self;
    const sw_mamba_options *o = options(p->block->spec);
    sw_var *both = sw_linear_forward(c, &m->in, x);
    sw_var *u = both ? sw_conv1d(c, sw_columns(c, both, 0, o->inner), m->conv, m->conv_bias, p->runs, sw_pass_state(p, 0)) : NULL;
    u = u ? sw_activation(c, u, o->act) : NULL;
    sw_var *parts = u ? sw_linear_forward(c, &m->x, u) : NULL;
    if (!parts)
        return NULL;
    sw_var *dt = sw_dense(c, sw_columns(c, parts, 0, o->rank));
    sw_scan_in in = {.x = u, .b = sw_columns(c, parts, o->rank, o->state), .c = sw_columns(c, parts, o->rank + o->state, o->state)};
    if (!dt || !(dt = sw_norm_forward(c, &m->dt_norm, dt)) || !(in.b = sw_norm_forward(c, &m->b_norm, in.b)) ||
        !(in.c = sw_norm_forward(c, &m->c_norm, in.c)) || !(dt = sw_linear_forward(c, &m->dt, dt)) || !(dt = sw_cast(c, dt, SW_F32)))
        return NULL;
    in.dt = sw_activation(c, dt, SW_ACT_SOFTPLUS);
    sw_var *a = in.dt ? sw_parameter(c, m->a_log) : NULL;
    a = a ? sw_activation(c, a, SW_ACT_EXP) : NULL;
    in.a = a ? sw_scale(c, a, -1) : NULL;
    in.skip = in.a ? sw_parameter(c, m->skip) : NULL;
    sw_var *y = in.skip ? sw_selective_scan(c, &in, p->runs, sw_pass_state(p, 1)) : NULL;
    y = y ? sw_glu(c, sw_columns(c, both, o->inner, o->inner), y, SW_ACT_SILU) : NULL;
    return y ? sw_linear_forward(c, &m->out, y) : NULL;
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    const sw_mamba_options *o = options(l);
    (void)s;
    out[0] = (sw_state_spec){false, 2, {o->taps - 1, o->inner}, SW_DTYPE_COUNT, false};
    out[1] = (sw_state_spec){false, 2, {o->inner, o->state}, SW_F32, false};
    return 2;
}

const sw_mixer_ops sw_mixer_mamba = {"mamba", sizeof(mamba), declare, forward, states};
