/* Falcon-H1: attention and Mamba 2 side by side in each layer, and multipliers everywhere. */
#include "model/family.h"
#include "model/mixer_mamba.h"

#include "base/json.h"

#include <math.h>

typedef struct h1_options {
    sw_mamba2_options mamba; /* first: the layer's mixer_options are its, too */
    double attention_in, attention_out, gate, down;
} h1_options;

static const h1_options *options(const sw_layer *l) { return l->mixer_options; }

typedef struct both {
    void *attention, *mamba;
} both;

static void declare(sw_builder *b, void *self)
{
    both *d = self;
    d->mamba = sw_builder_alloc(b, sw_mixer_mamba2.size);
    d->attention = sw_builder_alloc(b, sw_mixer_attention.size);
    sw_mixer_mamba2.declare(b, d->mamba);
    sw_mixer_attention.declare(b, d->attention);
}

static sw_var *scaled_copy(sw_ctx *c, sw_var *x, double factor)
{
    sw_var *y = sw_dense(c, x);
    return y ? sw_scale(c, y, factor) : NULL;
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    both *d = self;
    const h1_options *o = options(p->block->spec);
    sw_var *a = sw_mixer_mamba2.forward(c, d->mamba, p, x), *in = a ? scaled_copy(c, x, o->attention_in) : NULL;
    sw_var *b = in ? sw_mixer_attention.forward(c, d->attention, p, in) : NULL;
    b = b ? sw_scale(c, b, o->attention_out) : NULL;
    return b ? sw_add(c, a, b) : NULL;
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    int n = sw_mixer_attention.states(s, l, out);
    return n + sw_mixer_mamba2.states(s, l, out + n);
}

static const sw_mixer_ops mixer_both = {"attention beside mamba 2", sizeof(both), declare, forward, states};

typedef struct feed {
    sw_linear gate, up, down;
} feed;

static void declare_feed(sw_builder *b, void *self)
{
    feed *f = self;
    const sw_spec *s = sw_builder_spec(b);
    unsigned bias = s->mlp_bias ? SW_ASK_BIAS : 0;
    int64_t wide = sw_builder_layer(b)->mlp;
    sw_ask_linear(b, &f->gate, "mlp.gate_proj", wide, s->hidden, bias);
    sw_ask_linear(b, &f->up, "mlp.up_proj", wide, s->hidden, bias);
    sw_ask_linear(b, &f->down, "mlp.down_proj", s->hidden, wide, bias);
}

static sw_var *feed_forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    feed *f = self;
    const h1_options *o = options(p->block->spec);
    sw_var *in[2], *h;
    if (sw_linears_forward(c, (sw_linear *[]){&f->gate, &f->up}, 2, x, in) || !(h = sw_scale(c, in[0], o->gate)))
        return NULL;
    h = sw_glu(c, h, in[1], p->spec->act);
    h = h ? sw_linear_forward(c, &f->down, h) : NULL;
    return h ? sw_scale(c, h, o->down) : NULL;
}

static const sw_ffn_ops ffn_scaled = {"dense with multipliers", sizeof(feed), declare_feed, feed_forward};

static int read(sw_spec *s, const cJSON *config)
{
    return sw_read_biases(s, config) || sw_json_f64(config, "embedding_multiplier", 1, &s->embedding_scale) ||
                   sw_json_f64(config, "lm_head_multiplier", 1, &s->logit_scale)
               ? -1
               : 0;
}

/* The numbers of a list, as many as `to` has; all 1 without one. */
static int read_list(const cJSON *config, const char *key, double *const *to, int n)
{
    const cJSON *list = sw_json_get(config, key), *v = list ? list->child : NULL;
    for (int i = 0; i < n; i++, v = v ? v->next : NULL) {
        *to[i] = v ? v->valuedouble : 1;
        if (list && !(cJSON_IsNumber(v) && isfinite(v->valuedouble)))
            return sw_fail("\"%s\": a list of %d numbers is needed", key, n);
    }
    return 0;
}

static int layers(sw_spec *s, const cJSON *config)
{
    h1_options *o = sw_arena_zalloc(&s->arena, sizeof *o);
    const sw_mamba2_options *read = sw_mamba2_read(s, config);
    double key;
    bool norm, before;
    if (!read)
        return -1;
    sw_mamba2_options *m = &o->mamba;
    int64_t inner = read->heads * read->head_dim;
    *m = *read;
    m->first_state = 2;
    if (sw_json_f64(config, "attention_in_multiplier", 1, &o->attention_in) || sw_json_f64(config, "key_multiplier", 1, &key) ||
        sw_json_f64(config, "attention_out_multiplier", 1, &o->attention_out) || sw_json_f64(config, "ssm_in_multiplier", 1, &m->in_scale) ||
        sw_json_f64(config, "ssm_out_multiplier", 1, &m->out_scale) || sw_json_bool(config, "projectors_bias", false, &m->out_bias) ||
        sw_json_bool(config, "mamba_rms_norm", false, &norm) || sw_json_bool(config, "mamba_norm_before_gate", true, &before) ||
        sw_json_i64(config, "mamba_d_ssm", 1, 1 << 24, inner, &inner) ||
        read_list(config, "mlp_multipliers", (double *const[]){&o->gate, &o->down}, 2) ||
        read_list(config, "ssm_multipliers", (double *const[]){&m->z_scale, &m->x_scale, &m->b_scale, &m->c_scale, &m->dt_scale}, 5))
        return -1;
    if (cJSON_IsString(sw_json_get(config, "mamba_d_head"))) /* "auto" */
        m->head_dim = inner / m->heads;
    if (inner != m->heads * m->head_dim)
        return sw_fail("\"mamba_d_ssm\": %lld channels are not %lld heads of %lld", (long long)inner, (long long)m->heads, (long long)m->head_dim);
    m->norm = !norm ? SW_GATE_ONLY : before ? SW_NORM_THEN_GATE : SW_GATE_THEN_NORM;
    if (s->kv_heads < 1 || s->heads % s->kv_heads || s->head_dim % 2)
        return sw_fail("\"num_attention_heads\": %lld heads, %lld of keys, of %lld values each, do not fit together", (long long)s->heads,
                       (long long)s->kv_heads, (long long)s->head_dim);
    for (int64_t i = 0; i < s->layers; i++) {
        s->layer[i].mixer = &mixer_both;
        s->layer[i].mixer_options = o;
        s->layer[i].ffn = &ffn_scaled;
        s->layer[i].attention_scale *= key;
    }
    return sw_mamba2_check(m);
}

static const sw_rename names[] = {{"model.norm", "model.final_layernorm"}, {"mlp_norm", "pre_ff_layernorm"}, {"mlp.", "feed_forward."}, {0}};

const sw_family sw_family_falcon_h1[] = {
    {.name = "falcon_h1", .architectures = SW_NAMES("FalconH1ForCausalLM"), .model_types = SW_NAMES("falcon_h1"),
     .spec = {.norm = {.eps = 1e-5}}, .read = read, .layers = layers, .names = names},
    {0}};
