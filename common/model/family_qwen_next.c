/* Qwen3-Next and Qwen3.5: layers of the gated delta rule (Yang et al. 2024, arXiv 2412.06464) with some gated attention
 * among them. */
#include "model/ffn_moe.h"
#include "model/mixer_mamba.h"

#include "base/json.h"

#include <math.h>

typedef struct delta_options {
    int64_t key_heads, value_heads, key_dim, value_dim, taps;
    bool packed; /* q, k, v and z of each key head lie together, and so do b and a */
} delta_options;

typedef struct delta {
    sw_linear qkv, z, b, a, out; /* packed: qkv is qkvz, b is ba */
    sw_param *conv, *dt_bias, *a_log;
    sw_norm norm;
    sw_norm_spec plain;
} delta;

static const delta_options *options(const sw_layer *l) { return l->mixer_options; }
static int64_t keys_of(const delta_options *o) { return o->key_heads * o->key_dim; }
static int64_t values_of(const delta_options *o) { return o->value_heads * o->value_dim; }

static void declare(sw_builder *b, void *self)
{
    delta *d = self;
    const sw_spec *s = sw_builder_spec(b);
    const delta_options *o = options(sw_builder_layer(b));
    int64_t wide = 2 * keys_of(o) + values_of(o);
    if (o->packed) {
        sw_ask_linear(b, &d->qkv, "linear_attn.in_proj_qkvz", wide + values_of(o), s->hidden, 0);
        sw_ask_linear(b, &d->b, "linear_attn.in_proj_ba", 2 * o->value_heads, s->hidden, 0);
    } else {
        sw_ask_linear(b, &d->qkv, "linear_attn.in_proj_qkv", wide, s->hidden, 0);
        sw_ask_linear(b, &d->z, "linear_attn.in_proj_z", values_of(o), s->hidden, 0);
        sw_ask_linear(b, &d->b, "linear_attn.in_proj_b", o->value_heads, s->hidden, 0);
        sw_ask_linear(b, &d->a, "linear_attn.in_proj_a", o->value_heads, s->hidden, 0);
    }
    d->conv = sw_ask(b, "linear_attn.conv1d.weight", 3, (int64_t[]){wide, 1, o->taps}, 0);
    d->dt_bias = sw_ask(b, "linear_attn.dt_bias", 1, &o->value_heads, SW_ASK_F32);
    d->a_log = sw_ask(b, "linear_attn.A_log", 1, &o->value_heads, SW_ASK_F32);
    d->plain = (sw_norm_spec){.eps = s->norm.eps};
    sw_ask_norm(b, &d->norm, "linear_attn.norm", o->value_dim, &d->plain);
    sw_ask_linear(b, &d->out, "linear_attn.out_proj", s->hidden, values_of(o), 0);
}

/* What the projections say: q, k and v side by side, the gate z, and b and a of each head. */
typedef struct parts {
    sw_var *qkv, *z, *b, *a;
} parts;

/* Columns [at, at + width) of each of `groups` groups, side by side. */
static sw_var *of_groups(sw_ctx *c, sw_var *x, int64_t groups, int64_t at, int64_t width)
{
    int64_t all = x->t.shape[1], n = x->t.shape[0];
    sw_var *v = sw_part(c, x, at, 3, (int64_t[]){n, groups, width}, (int64_t[]){all, all / groups, 1});
    v = v ? sw_dense(c, v) : NULL;
    return v ? sw_part(c, v, 0, 2, (int64_t[]){n, groups * width}, (int64_t[]){groups * width, 1}) : NULL;
}

static int project(sw_ctx *c, delta *d, const delta_options *o, sw_var *x, parts *p)
{
    int64_t share = o->value_heads / o->key_heads, values = share * o->value_dim;
    sw_linear *four[] = {&d->qkv, &d->z, &d->b, &d->a}, *two[] = {&d->qkv, &d->b};
    sw_var *y[4];
    if (sw_linears_forward(c, o->packed ? two : four, o->packed ? 2 : 4, x, y))
        return -1;
    if (!o->packed) {
        *p = (parts){y[0], y[1], y[2], y[3]};
        return 0;
    }
    sw_var *all = y[0], *ba = y[1], *three[3] = {of_groups(c, all, o->key_heads, 0, o->key_dim),
                                                 of_groups(c, all, o->key_heads, o->key_dim, o->key_dim),
                                                 of_groups(c, all, o->key_heads, 2 * o->key_dim, values)};
    p->qkv = three[0] && three[1] && three[2] ? sw_join(c, three, 3) : NULL;
    p->z = p->qkv ? of_groups(c, all, o->key_heads, 2 * o->key_dim + values, values) : NULL;
    p->b = p->z ? of_groups(c, ba, o->key_heads, 0, share) : NULL;
    p->a = p->b ? of_groups(c, ba, o->key_heads, share, share) : NULL;
    return p->a ? 0 : -1;
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    delta *d = self;
    const delta_options *o = options(p->block->spec);
    int64_t n = x->t.shape[0], keys = keys_of(o), wide = 2 * keys + values_of(o);
    parts in;
    if (project(c, d, o, x, &in))
        return NULL;
    sw_var *u = sw_conv1d(c, in.qkv, d->conv, NULL, p->runs, sw_pass_state(p, 0));
    u = u ? sw_activation(c, u, p->spec->act) : NULL;
    if (!u)
        return NULL;
    sw_recurrence_in r = {.delta = 1};
    r.q = sw_unit(c, sw_part(c, u, 0, 3, (int64_t[]){n, o->key_heads, o->key_dim}, (int64_t[]){wide, o->key_dim, 1}),
               1 / sqrt((double)o->key_dim));
    r.k = r.q ? sw_unit(c, sw_part(c, u, keys, 3, (int64_t[]){n, o->key_heads, o->key_dim}, (int64_t[]){wide, o->key_dim, 1}), 1) : NULL;
    r.v = sw_part(c, u, 2 * keys, 3, (int64_t[]){n, o->value_heads, o->value_dim}, (int64_t[]){wide, o->value_dim, 1});
    sw_var *beta = r.k ? sw_cast(c, in.b, SW_F32) : NULL, *dt, *bias, *a;
    if (!beta || !(r.beta = sw_activation(c, beta, SW_ACT_SIGMOID)) || !(dt = sw_cast(c, in.a, SW_F32)) ||
        !(bias = sw_parameter(c, d->dt_bias)) || !(dt = sw_plus_row(c, dt, bias)) || !(dt = sw_activation(c, dt, SW_ACT_SOFTPLUS)) ||
        !(a = sw_parameter(c, d->a_log)) || !(a = sw_activation(c, a, SW_ACT_EXP)) || !(a = sw_scale(c, a, -1)) ||
        !(r.g = sw_times_row(c, dt, a)))
        return NULL;
    sw_var *y = sw_recurrence(c, &r, p->runs, sw_pass_state(p, 1));
    y = y ? sw_norm_forward(c, &d->norm, y) : NULL;
    y = y ? sw_glu(c, in.z, sw_part(c, y, 0, 2, (int64_t[]){n, values_of(o)}, (int64_t[]){values_of(o), 1}), SW_ACT_SILU) : NULL;
    return y ? sw_linear_forward(c, &d->out, y) : NULL;
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    const delta_options *o = options(l);
    (void)s;
    out[0] = (sw_state_spec){false, 2, {o->taps - 1, 2 * keys_of(o) + values_of(o)}, SW_DTYPE_COUNT, false};
    out[1] = (sw_state_spec){false, 3, {o->value_heads, o->key_dim, o->value_dim}, SW_F32, false};
    return 2;
}

static const sw_mixer_ops mixer_delta = {"gated delta rule", sizeof(delta), declare, forward, states};

static int read(sw_spec *s, const cJSON *config)
{
    s->packed = "qg";
    s->packed_groups = s->heads;
    return sw_read_biases(s, config);
}

static int set_layers(sw_spec *s, const cJSON *config, bool packed)
{
    delta_options *o = sw_arena_zalloc(&s->arena, sizeof *o);
    const int64_t most = 1 << 16;
    int64_t every;
    o->packed = packed;
    if (sw_json_i64(config, "linear_num_key_heads", 1, most, 16, &o->key_heads) ||
        sw_json_i64(config, "linear_num_value_heads", 1, most, 32, &o->value_heads) ||
        sw_json_i64(config, "linear_key_head_dim", 1, 4096, 128, &o->key_dim) ||
        sw_json_i64(config, "linear_value_head_dim", 1, 4096, 128, &o->value_dim) ||
        sw_json_i64(config, "linear_conv_kernel_dim", 2, 256, 4, &o->taps) || sw_json_i64(config, "full_attention_interval", 1, 4096, 4, &every))
        return -1;
    if (o->value_heads % o->key_heads)
        return sw_fail("\"linear_num_value_heads\": %lld is no multiple of \"linear_num_key_heads\", %lld", (long long)o->value_heads,
                       (long long)o->key_heads);
    for (int64_t i = 0; i < s->layers; i++)
        if (!sw_is_full_attention(config, i, (i + 1) % every == 0)) {
            s->layer[i].mixer = &mixer_delta;
            s->layer[i].mixer_options = o;
        }
    return 0;
}

SW_MOE_LAYERS(experts, .router = {.score = SW_ROUTE_SOFTMAX, .normalise = true}, .shared_wide = 1, .shared_gated = true)

static int next_layers(sw_spec *s, const cJSON *config) { return experts(s, config) || set_layers(s, config, true) ? -1 : 0; }
static int dense_layers(sw_spec *s, const cJSON *config) { return set_layers(s, config, false); }
static int moe_layers(sw_spec *s, const cJSON *config) { return experts(s, config) || set_layers(s, config, false) ? -1 : 0; }

static const sw_rename names[] = {{"mlp.router", "mlp.gate"}, {"mlp.shared.", "mlp.shared_expert."},
                                  {"mlp.shared_gate", "mlp.shared_expert_gate"}, {0}};
#define GATED .head_dim = 256, .qk_norm = SW_QK_HEAD, .norm = {.offset = 1}, .rope = {{.partial = 0.25}}

const sw_family sw_family_qwen_next[] = {
    {.name = "qwen3_next", .architectures = SW_NAMES("Qwen3NextForCausalLM", "Qwen3NextForSequenceClassification"), .model_types = SW_NAMES("qwen3_next"), .spec = {GATED, .kv_heads = 2},
     .read = read, .layers = next_layers, .names = names},
    {.name = "qwen3_5_text", .architectures = SW_NAMES("Qwen3_5ForCausalLM"), .model_types = SW_NAMES("qwen3_5_text"), .spec = {GATED, .kv_heads = 4},
     .read = read, .layers = dense_layers, .names = names},
    {.name = "qwen3_5_moe_text", .architectures = SW_NAMES("Qwen3_5MoeForCausalLM"), .model_types = SW_NAMES("qwen3_5_moe_text"),
     .spec = {GATED, .kv_heads = 2}, .read = read, .layers = moe_layers, .names = names},
    {0}};
