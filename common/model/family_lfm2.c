/* LFM2: gated short convolutions (C * conv(B * x)) with some attention among them. */
#include "model/ffn_moe.h"

#include "base/json.h"

#include <string.h>

typedef struct conv_options {
    int64_t taps;
    bool bias;
} conv_options;

typedef struct short_conv {
    sw_linear in, out;
    sw_param *w, *b;
} short_conv;

static const conv_options *options(const sw_layer *l) { return l->mixer_options; }

static void declare(sw_builder *b, void *self)
{
    short_conv *m = self;
    const conv_options *o = options(sw_builder_layer(b));
    int64_t hidden = sw_builder_spec(b)->hidden;
    unsigned bias = o->bias ? SW_ASK_BIAS : 0;
    sw_ask_linear(b, &m->in, "conv.in_proj", 3 * hidden, hidden, bias);
    m->w = sw_ask(b, "conv.conv.weight", 3, (int64_t[]){hidden, 1, o->taps}, 0);
    m->b = o->bias ? sw_ask(b, "conv.conv.bias", 1, &hidden, 0) : NULL;
    sw_ask_linear(b, &m->out, "conv.out_proj", hidden, hidden, bias);
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    short_conv *m = self;
    int64_t hidden = p->spec->hidden;
    sw_var *all = sw_linear_forward(c, &m->in, x);
    sw_var *h = all ? sw_mul(c, sw_columns(c, all, 0, hidden), sw_columns(c, all, 2 * hidden, hidden)) : NULL;
    h = h ? sw_conv1d(c, h, m->w, m->b, p->runs, sw_pass_state(p, 0)) : NULL;
    h = h ? sw_mul(c, h, sw_columns(c, all, hidden, hidden)) : NULL;
    return h ? sw_linear_forward(c, &m->out, h) : NULL;
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    out[0] = (sw_state_spec){false, 2, {options(l)->taps - 1, s->hidden}, SW_DTYPE_COUNT, false};
    return 1;
}

static const sw_mixer_ops mixer_short_conv = {"short convolution", sizeof(short_conv), declare, forward, states};

static int read(sw_spec *s, const cJSON *config)
{
    bool adjust;
    double factor;
    int64_t multiple;
    if (sw_json_bool(config, "tie_embedding", s->tied, &s->tied) || sw_json_i64(config, "block_ff_dim", 1, 1 << 24, s->mlp, &s->mlp) ||
        sw_json_bool(config, "block_auto_adjust_ff_dim", !strcmp(s->family->name, "lfm2"), &adjust) ||
        sw_json_f64(config, "block_ffn_dim_multiplier", 1, &factor) || sw_json_i64(config, "block_multiple_of", 1, 1 << 20, 256, &multiple))
        return -1;
    if (adjust && !(factor > 0 && factor < 64))
        return sw_fail("\"block_ffn_dim_multiplier\": %g is not between 0 and 64", factor);
    if (adjust) {
        s->mlp = (int64_t)(factor * (double)(2 * s->mlp / 3));
        s->mlp = (s->mlp + multiple - 1) / multiple * multiple;
    }
    return 0;
}

/* Whether layer i is attention: by layer_types, or among full_attn_idxs (all without). */
static bool attends(const cJSON *config, int64_t i)
{
    const cJSON *types = sw_json_get(config, "layer_types"), *list = sw_json_get(config, "full_attn_idxs");
    const cJSON *type = types ? cJSON_GetArrayItem(types, (int)i) : NULL;
    if (types)
        return cJSON_IsString(type) && !strcmp(type->valuestring, "full_attention");
    for (const cJSON *v = list ? list->child : NULL; v; v = v->next)
        if (cJSON_IsNumber(v) && v->valuedouble == (double)i)
            return true;
    return !list;
}

static int layers(sw_spec *s, const cJSON *config)
{
    conv_options *o = sw_arena_zalloc(&s->arena, sizeof *o);
    if (sw_json_i64(config, "conv_L_cache", 2, 256, 3, &o->taps) || sw_json_bool(config, "conv_bias", false, &o->bias))
        return -1;
    for (int64_t i = 0; i < s->layers; i++)
        if (!attends(config, i)) {
            s->layer[i].mixer = &mixer_short_conv;
            s->layer[i].mixer_options = o;
        }
    return 0;
}

#define ROUTER .router = {.score = SW_ROUTE_SIGMOID, .normalise = true, .eps = 1e-6}, .gate = "w1", .up = "w3", .down = "w2"
SW_MOE_LAYERS(plain_experts, ROUTER)
SW_MOE_LAYERS(corrected_experts, ROUTER, .correction = true)

static int moe_layers(sw_spec *s, const cJSON *config)
{
    bool corrected;
    if (sw_json_bool(config, "use_expert_bias", true, &corrected) || layers(s, config))
        return -1;
    return corrected ? corrected_experts(s, config) : plain_experts(s, config);
}

static const sw_rename names[] = {{"model.norm", "model.embedding_norm"}, {"attn_norm", "operator_norm"}, {"mlp_norm", "ffn_norm"},
                                  {"mlp.gate_proj", "feed_forward.w1"}, {"mlp.up_proj", "feed_forward.w3"},
                                  {"mlp.down_proj", "feed_forward.w2"}, {"self_attn.o_proj", "self_attn.out_proj"},
                                  {"self_attn.q_norm", "self_attn.q_layernorm"}, {"self_attn.k_norm", "self_attn.k_layernorm"},
                                  {"mlp.router", "feed_forward.gate"}, {"mlp.correction", "feed_forward.expert_bias"},
                                  {"mlp.experts.", "feed_forward.experts."}, {0}};

const sw_family sw_family_lfm2[] = {
    {.name = "lfm2", .architectures = SW_NAMES("Lfm2ForCausalLM"), .model_types = SW_NAMES("lfm2"),
     .spec = {.tied = true, .qk_norm = SW_QK_HEAD, .norm = {.eps = 1e-5}, .rope = {{.theta = 1e6}}}, .read = read, .layers = layers, .names = names},
    {.name = "lfm2_moe", .architectures = SW_NAMES("Lfm2MoeForCausalLM"), .model_types = SW_NAMES("lfm2_moe"),
     .spec = {.tied = true, .qk_norm = SW_QK_HEAD, .norm = {.eps = 1e-5}, .rope = {{.theta = 1e6}}}, .read = read, .layers = moe_layers,
     .names = names},
    {0}};
