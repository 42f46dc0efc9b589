/* Mixtures of experts in decoders that are unlike Llama elsewhere too. */
#include "model/ffn_moe.h"

#include "base/json.h"

/* ---- MiMo-V2-Flash: sliding layers have sinks, another rotation and twice the key heads */

SW_MOE_LAYERS(mimo_experts, .router = {.score = SW_ROUTE_SIGMOID, .normalise = true, .eps = 1e-20, .group_by_two = true},
              .correction = true, .dense_first = 1)

static int read_mimo(sw_spec *s, const cJSON *config)
{
    int64_t before;
    bool bias;
    if (sw_json_i64(config, "v_head_dim", 1, 1 << 16, s->head_dim, &s->value_dim) || sw_read_window(s, config) ||
        sw_json_i64(config, "sliding_window_size", 0, 1 << 30, -1, &before) ||
        sw_json_bool(config, "attention_bias", false, &bias))
        return -1;
    if (before >= 0) /* these come before the token itself */
        s->window = before + 1;
    s->q_bias = s->k_bias = s->v_bias = bias;
    double theta;
    return sw_json_f64(config, "swa_rope_theta", 10000, &theta) ? -1 : sw_local_rope(s, theta);
}

/* Which layers slide: layer_types, or published files' pattern of ones and zeros; else all but the first and each sixth. */
static int mimo_slides(const sw_spec *s, const cJSON *config, int64_t i, bool *slides)
{
    const cJSON *pattern = sw_json_get(config, "hybrid_layer_pattern");
    if (sw_json_get(config, "layer_types")) {
        *slides = s->layer[i].window > 0;
    } else if (pattern) {
        const cJSON *one = cJSON_IsArray(pattern) ? cJSON_GetArrayItem(pattern, (int)i) : NULL;
        if (!cJSON_IsNumber(one) || cJSON_GetArraySize(pattern) != s->layers)
            return sw_fail("\"hybrid_layer_pattern\": a list of %lld numbers is needed", (long long)s->layers);
        *slides = one->valuedouble > 0;
    } else {
        *slides = i && (i + 1) % 6;
    }
    return 0;
}

static int mimo_layers(sw_spec *s, const cJSON *config)
{
    double scale;
    int64_t kv_heads;
    if (mimo_experts(s, config) || sw_json_f64(config, "attention_value_scale", 1, &scale) ||
        sw_json_i64(config, "swa_num_key_value_heads", 1, 1 << 16, 2 * s->kv_heads, &kv_heads))
        return -1;
    for (int64_t i = 0; i < s->layers; i++) {
        sw_layer *l = &s->layer[i];
        bool slides = false;
        if (mimo_slides(s, config, i, &slides))
            return -1;
        l->value_scale = scale;
        l->window = slides ? s->window : 0;
        l->rope = slides;
        l->sinks = slides;
        if (slides)
            l->kv_heads = kv_heads;
    }
    return 0;
}

static const sw_rename mimo_names[] = {{"mlp.router", "mlp.gate"},
                                       {"mlp.correction", "mlp.gate.e_score_correction_bias"},
                                       {"self_attn.sinks", "self_attn.attention_sink_bias"},
                                       {0}};

const sw_family sw_family_sparse[] = {
    {.name = "mimo_v2_flash",
     .architectures = SW_NAMES("MiMoV2FlashForCausalLM"),
     .model_types = SW_NAMES("mimo_v2_flash"),
     .spec = {.norm = {.eps = 1e-5}, .window = 129, .rope = {{.theta = 5e6, .partial = 0.334}}},
     .read = read_mimo,
     .layers = mimo_layers,
     .names = mimo_names},
    {0}};
