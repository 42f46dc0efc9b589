/* Mamba 2: a matrix a head that decays and takes in x outer B (Dao and Gu 2024, arXiv 2405.21060). */
#include "model/mixer_mamba.h"

#include "base/json.h"
#include "model/family.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct mamba2 {
    sw_linear in, out;
    sw_param *conv, *conv_bias, *dt_bias, *a_log, *skip, *norm;
} mamba2;

int sw_mamba2_check(const sw_mamba2_options *o)
{
    if (o->heads < 1 || o->head_dim < 1 || o->groups < 1 || o->state < 1 || o->heads > 1 << 16 || o->head_dim > 1 << 12 ||
        o->state > 1 << 12 || o->heads % o->groups)
        return sw_fail("Mamba 2 layers of %lld heads of %lld channels in %lld groups, with %lld values of state, are not possible",
                       (long long)o->heads, (long long)o->head_dim, (long long)o->groups, (long long)o->state);
    return o->taps < 2 || o->taps > 256 ? sw_fail("the convolution's width, %lld, is not between 2 and 256", (long long)o->taps) : 0;
}

/* Infinity is no number in JSON: whatever stands in its place is no limit. */
int sw_mamba2_read_limit(sw_mamba2_options *o, const cJSON *config)
{
    const cJSON *limit = sw_json_get(config, "time_step_limit"), *least = limit ? limit->child : NULL, *most = least ? least->next : NULL;
    if (!limit)
        return 0;
    if (!cJSON_IsArray(limit) || !cJSON_IsNumber(least) || !most)
        return sw_fail("\"time_step_limit\": the least and the largest step are needed");
    o->dt_least = least->valuedouble;
    o->dt_most = cJSON_IsNumber(most) && isfinite(most->valuedouble) ? most->valuedouble : 0;
    return o->dt_least < 0 || o->dt_most < 0 ? sw_fail("\"time_step_limit\": steps are positive") : 0;
}

const sw_mamba2_options *sw_mamba2_read(sw_spec *s, const cJSON *config)
{
    sw_mamba2_options *o = sw_arena_zalloc(&s->arena, sizeof *o);
    const int64_t most = 1 << 24;
    double expand;
    o->act = s->act;
    o->eps = s->norm.eps;
    if (sw_json_i64(config, "mamba_n_heads", 1, most, 128, &o->heads) || sw_json_f64(config, "mamba_expand", 2, &expand))
        return NULL;
    o->head_dim = expand > 0 && expand < 64 ? (int64_t)(expand * (double)s->hidden) / o->heads : 0; /* "auto" */
    if ((!cJSON_IsString(sw_json_get(config, "mamba_d_head")) && sw_json_i64(config, "mamba_d_head", 1, most, o->head_dim, &o->head_dim)) ||
        sw_json_i64(config, "mamba_n_groups", 1, most, 1, &o->groups) || sw_json_i64(config, "mamba_d_state", 1, most, 256, &o->state) ||
        sw_json_i64(config, "mamba_d_conv", 1, most, 4, &o->taps) || sw_json_bool(config, "mamba_proj_bias", false, &o->in_bias) ||
        sw_json_bool(config, "mamba_conv_bias", true, &o->conv_bias) || sw_mamba2_read_limit(o, config) || sw_mamba2_check(o))
        return NULL;
    o->out_bias = o->in_bias;
    return o;
}

void sw_mamba2_layer(sw_layer *l, const sw_mamba2_options *o)
{
    l->mixer = &sw_mixer_mamba2;
    l->mixer_options = o;
}

bool sw_is_full_attention(const cJSON *config, int64_t i, bool missing)
{
    const cJSON *types = sw_json_get(config, "layer_types");
    if (!types)
        types = sw_json_get(config, "layers_block_type");
    const cJSON *type = cJSON_IsArray(types) ? cJSON_GetArrayItem(types, (int)i) : NULL;
    if (!cJSON_IsString(type))
        return missing;
    return !strcmp(type->valuestring, "full_attention") || !strcmp(type->valuestring, "attention");
}

static const sw_mamba2_options *options(const sw_layer *l) { return l->mixer_options; }
static int64_t inner_of(const sw_mamba2_options *o) { return o->heads * o->head_dim; }
static int64_t conv_of(const sw_mamba2_options *o) { return inner_of(o) + 2 * o->groups * o->state; }

static const char *named(char out[SW_NAME_MAX], const sw_mamba2_options *o, const char *name)
{
    snprintf(out, SW_NAME_MAX, "%s%s", o->place ? o->place : "mamba.", name);
    return out;
}

static void declare(sw_builder *b, void *self)
{
    mamba2 *m = self;
    const sw_mamba2_options *o = options(sw_builder_layer(b));
    int64_t hidden = sw_builder_spec(b)->hidden, inner = inner_of(o), wide = conv_of(o);
    char name[SW_NAME_MAX];
    sw_ask_linear(b, &m->in, named(name, o, "in_proj"), inner + wide + o->heads, hidden, o->in_bias ? SW_ASK_BIAS : 0);
    m->conv = sw_ask(b, named(name, o, "conv1d.weight"), 3, (int64_t[]){wide, 1, o->taps}, 0);
    m->conv_bias = o->conv_bias ? sw_ask(b, named(name, o, "conv1d.bias"), 1, &wide, 0) : NULL;
    m->dt_bias = sw_ask(b, named(name, o, "dt_bias"), 1, &o->heads, SW_ASK_F32);
    m->a_log = sw_ask(b, named(name, o, "A_log"), 1, &o->heads, SW_ASK_F32);
    m->skip = sw_ask(b, named(name, o, "D"), 1, &o->heads, SW_ASK_F32);
    if (o->norm != SW_GATE_ONLY)
        m->norm = sw_ask(b, named(name, o, "norm.weight"), 1, &inner, SW_ASK_F32);
    sw_ask_linear(b, &m->out, named(name, o, "out_proj"), hidden, inner, o->out_bias ? SW_ASK_BIAS : 0);
}

/* x's values as rows of `groups` parts. */
static sw_var *as_groups(sw_ctx *c, sw_var *x, int64_t groups, int64_t inner)
{
    int64_t each = inner / groups, n = x->t.shape[0];
    return groups == 1 ? sw_part(c, x, 0, 2, (int64_t[]){n, inner}, (int64_t[]){inner, 1})
                       : sw_part(c, x, 0, 3, (int64_t[]){n, groups, each}, (int64_t[]){inner, each, 1});
}

static sw_var *gated(sw_ctx *c, mamba2 *m, const sw_mamba2_options *o, sw_var *y, sw_var *z)
{
    int64_t inner = inner_of(o);
    bool first = o->norm != SW_NORM_THEN_GATE;
    if (first && !(y = sw_glu(c, z, as_groups(c, y, 1, inner), SW_ACT_SILU)))
        return NULL;
    if (o->norm == SW_GATE_ONLY)
        return y;
    y = sw_rmsnorm(c, as_groups(c, y, o->groups, inner), NULL, o->eps, 0);
    sw_var *w = y ? sw_parameter(c, m->norm) : NULL;
    y = w ? sw_times_row(c, y, w) : NULL;
    if (!y)
        return NULL;
    y = as_groups(c, y, 1, inner);
    return first ? y : sw_glu(c, z, y, SW_ACT_SILU);
}

/* Multipliers of the five parts of in_proj's output, as a row. */
static sw_var *scaled_parts(sw_ctx *c, const sw_mamba2_options *o, sw_var *x)
{
    int64_t inner = inner_of(o), bc = o->groups * o->state, wide = x->t.shape[1], at = 0;
    const double scale[] = {o->z_scale, o->x_scale, o->b_scale, o->c_scale, o->dt_scale};
    const int64_t width[] = {inner, inner, bc, bc, o->heads};
    if (scale[0] == 0 && scale[1] == 0 && scale[2] == 0 && scale[3] == 0 && scale[4] == 0)
        return x;
    float *row = sw_ctx_alloc(c, (size_t)wide * sizeof *row);
    for (int part = 0; part < 5; part++)
        for (int64_t i = 0; i < width[part]; i++)
            row[at++] = (float)scale[part];
    sw_var *w = sw_from_host(c, SW_F32, 1, &wide, row);
    return w ? sw_times_row(c, x, w) : NULL;
}

/* The step of each head, f32 [N, heads]. */
static sw_var *steps(sw_ctx *c, mamba2 *m, const sw_mamba2_options *o, sw_var *raw)
{
    sw_var *dt = sw_cast(c, raw, SW_F32), *bias = dt ? sw_parameter(c, m->dt_bias) : NULL;
    dt = bias ? sw_plus_row(c, dt, bias) : NULL;
    dt = dt ? sw_activation(c, dt, SW_ACT_SOFTPLUS) : NULL;
    if (dt && o->dt_least > 0) {
        dt = sw_shift(c, dt, -o->dt_least);
        dt = dt ? sw_activation(c, dt, SW_ACT_RELU) : NULL;
        dt = dt ? sw_shift(c, dt, o->dt_least) : NULL;
    }
    return dt && o->dt_most > 0 ? sw_clamp(c, dt, o->dt_most) : dt;
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    mamba2 *m = self;
    const sw_mamba2_options *o = options(p->block->spec);
    int64_t inner = inner_of(o), wide = conv_of(o), n = x->t.shape[0], bc = o->groups * o->state;
    if (o->in_scale > 0 && (!(x = sw_dense(c, x)) || !(x = sw_scale(c, x, o->in_scale))))
        return NULL;
    sw_var *all = sw_linear_forward(c, &m->in, x);
    all = all ? scaled_parts(c, o, all) : NULL;
    sw_var *u = all ? sw_conv1d(c, sw_columns(c, all, inner, wide), m->conv, m->conv_bias, p->runs, sw_pass_state(p, o->first_state)) : NULL;
    u = u ? sw_activation(c, u, o->act) : NULL;
    sw_var *dt = u ? steps(c, m, o, sw_columns(c, all, inner + wide, o->heads)) : NULL, *a = dt ? sw_parameter(c, m->a_log) : NULL;
    a = a ? sw_activation(c, a, SW_ACT_EXP) : NULL;
    a = a ? sw_scale(c, a, -1) : NULL;
    sw_var *g = a ? sw_times_row(c, dt, a) : NULL, *skip = g ? sw_parameter(c, m->skip) : NULL;
    if (!skip)
        return NULL;
    sw_recurrence_in in = {.v = sw_part(c, u, 0, 3, (int64_t[]){n, o->heads, o->head_dim}, (int64_t[]){wide, o->head_dim, 1}),
                           .k = sw_part(c, u, inner, 3, (int64_t[]){n, o->groups, o->state}, (int64_t[]){wide, o->state, 1}),
                           .q = sw_part(c, u, inner + bc, 3, (int64_t[]){n, o->groups, o->state}, (int64_t[]){wide, o->state, 1}),
                           .g = g, .beta = dt, .skip = skip};
    sw_var *y = sw_recurrence(c, &in, p->runs, sw_pass_state(p, o->first_state + 1));
    y = y ? gated(c, m, o, y, sw_columns(c, all, 0, inner)) : NULL;
    y = y ? sw_linear_forward(c, &m->out, y) : NULL;
    return y && o->out_scale > 0 ? sw_scale(c, y, o->out_scale) : y;
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    const sw_mamba2_options *o = options(l);
    (void)s;
    out[0] = (sw_state_spec){false, 2, {o->taps - 1, conv_of(o)}, SW_DTYPE_COUNT, false};
    out[1] = (sw_state_spec){false, 3, {o->heads, o->state, o->head_dim}, SW_F32, false};
    return 2;
}

const sw_mixer_ops sw_mixer_mamba2 = {"mamba 2", sizeof(mamba2), declare, forward, states};
