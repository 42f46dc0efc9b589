/* Mixtures of experts in decoders that are unlike Llama elsewhere too. */
#include "model/ffn_moe.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

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
    if (mimo_experts(s, config) || sw_json_f64(config, "attention_value_scale", cJSON_HasObjectItem(config, "attention_value_scale") ? 1 : 0.707, &scale) ||
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

/* ---- DBRX: everything but the sizes in two objects of its configuration */

static int read_dbrx(sw_spec *s, const cJSON *config)
{
    const cJSON *attention = sw_json_get(config, "attn_config"), *ffn = sw_json_get(config, "ffn_config");
    if ((attention && !cJSON_IsObject(attention)) || (ffn && !cJSON_IsObject(ffn)))
        return sw_fail("\"attn_config\" and \"ffn_config\": objects are needed");
    if (sw_json_i64(attention, "kv_n_heads", 1, 1 << 16, s->kv_heads, &s->kv_heads) ||
        sw_json_f64(attention, "clip_qkv", 0, &s->clip_qkv) ||
        sw_json_i64(ffn, "ffn_hidden_size", 1, 1 << 24, 3584, &s->mlp) ||
        sw_read_act(sw_json_get(ffn, "ffn_act_fn"), "name", SW_ACT_SILU, &s->act))
        return -1;
    bool given = sw_json_get(config, "rope_parameters") || sw_json_get(config, "rope_theta");
    return given ? 0 : sw_json_f64(attention, "rope_theta", 10000, &s->rope[0].theta);
}

static int dbrx_layers(sw_spec *s, const cJSON *config)
{
    const cJSON *ffn = sw_json_get(config, "ffn_config");
    sw_moe m = {.router = {.score = SW_ROUTE_SOFTMAX, .normalise = true, .k = 1}, .experts = 4, .stacked = true, .apart = true};
    if (sw_json_f64(ffn, "moe_normalize_expert_weights", 1, &m.router.power))
        return -1;
    if (!(m.router.power > 0))
        return sw_fail("\"moe_normalize_expert_weights\": %g is no norm, a positive number is needed", m.router.power);
    /* null is not 1, but none at all */
    m.router.normalise = !cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(ffn, "moe_normalize_expert_weights"));
    return sw_moe_layers(s, ffn, &m);
}

/* ---- Phi-3.5-MoE */

static int read_phimoe(sw_spec *s, const cJSON *config)
{
    return sw_read_biases(s, config) || sw_json_bool(config, "lm_head_bias", false, &s->head_bias) || sw_read_window(s, config)
               ? -1
               : 0;
}

static int phimoe_layers(sw_spec *s, const cJSON *config)
{
    sw_moe m = {.router = {.score = SW_ROUTE_SPARSEMIXER, .k = 2}, .experts = 16, .gate = "w1", .up = "w3", .down = "w2"};
    if (sw_json_f64(config, "router_jitter_noise", 0.01, &m.router.jitter))
        return -1;
    if (!(m.router.jitter >= 0))
        return sw_fail("\"router_jitter_noise\": %g is negative", m.router.jitter);
    return sw_moe_layers(s, config, &m);
}

/* ---- Llama 4: layers see chunks, or everything without turning but with queries that grow */

SW_MOE_LAYERS(llama4_experts, .router = {.score = SW_ROUTE_SIGMOID, .k = 1}, .experts = 16, .shared_wide = 1,
              .weigh_input = true, .stacked = true, .turned = true)

static int read_llama4(sw_spec *s, const cJSON *config)
{
    bool grows, norm;
    int64_t floor_scale;
    double scale;
    if (sw_read_biases(s, config) || sw_json_bool(config, "use_qk_norm", true, &norm) ||
        sw_json_i64(config, "attention_chunk_size", 1, 1 << 30, 8192, &s->chunk) ||
        sw_json_bool(config, "attn_temperature_tuning", true, &grows) ||
        sw_json_i64(config, "floor_scale", 1, 1 << 30, 8192, &floor_scale) ||
        sw_json_f64(config, "attn_scale", 0.1, &scale))
        return -1;
    s->qk_norm = norm ? SW_QK_HEAD : SW_QK_NONE;
    s->qk = (sw_norm_spec){.plain = true, .eps = s->norm.eps};
    if (grows) {
        s->query_growth = scale;
        s->query_growth_length = (double)floor_scale;
    }
    return 0;
}

static int llama4_layers(sw_spec *s, const cJSON *config)
{
    const cJSON *turns = sw_json_get(config, "no_rope_layers"), *types = sw_json_get(config, "layer_types");
    int64_t interval, dense;
    if (llama4_experts(s, config) || sw_json_i64(config, "no_rope_layer_interval", 1, 4096, 4, &interval) ||
        sw_json_i64(config, "intermediate_size_mlp", 1, 1 << 24, 16384, &dense))
        return -1;
    if (turns && !(cJSON_IsArray(turns) && (!turns->child || cJSON_GetArraySize(turns) == s->layers)))
        return sw_fail("\"no_rope_layers\": a list of %lld numbers is needed, 1 where a layer turns", (long long)s->layers);
    const cJSON *turn = turns ? turns->child : NULL, *type = types ? types->child : NULL;
    for (int64_t i = 0; i < s->layers; i++, turn = turn ? turn->next : NULL, type = type ? type->next : NULL) {
        sw_layer *l = &s->layer[i];
        bool turned = turn ? cJSON_IsTrue(turn) || (cJSON_IsNumber(turn) && turn->valuedouble > 0) : (i + 1) % interval != 0;
        l->mlp = dense;
        l->rope = turned ? 0 : -1;
        l->no_qk_norm = !turned;
        l->chunked = type ? !strcmp(type->valuestring, "chunked_attention") : turned;
        if (type && !l->chunked && strcmp(type->valuestring, "full_attention"))
            return sw_fail("\"layer_types\": layer %lld is neither chunked_attention nor full_attention", (long long)i);
    }
    return 0;
}

/* ---- AFMoE (Trinity): gated attention, whole layers that do not turn, norms on both sides */

static int read_afmoe(sw_spec *s, const cJSON *config)
{
    bool scaled, bias;
    int64_t every;
    if (sw_json_bool(config, "mup_enabled", false, &scaled) || sw_json_bool(config, "attention_bias", false, &bias) ||
        sw_json_i64(config, "global_attn_every_n_layers", 1, 4096, 4, &every) || sw_read_window(s, config))
        return -1;
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = bias;
    s->full_every = every;
    s->embedding_scale = scaled ? sqrt((double)s->hidden) : 0;
    return 0;
}

static int afmoe_layers(sw_spec *s, const cJSON *config)
{
    sw_moe m = {.router = {.score = SW_ROUTE_SIGMOID, .normalise = true, .eps = 1e-20}, .correction = true, .shared_wide = 1,
                .dense_first = 1};
    return sw_json_f64(config, "route_scale", 1, &m.router.scale) || sw_moe_layers(s, config, &m) || sw_full_layers_do_not_turn(s, config)
               ? -1
               : 0;
}

/* ---- JetMoE: attention is a mixture, too */

static int read_jetmoe(sw_spec *s, const cJSON *config)
{
    (void)config;
    s->final_norm_eps = s->norm.eps;
    s->norm.eps = 1e-6; /* of layers, whatever the configuration says */
    return 0;
}

static int jetmoe_layers(sw_spec *s, const cJSON *config)
{
    static const sw_moe base = {.router = {.score = SW_ROUTE_SOFTMAX, .normalise = true}, .experts = 8, .stacked = true,
                                .out_bias = true};
    if (sw_moe_layers(s, config, &base))
        return -1;
    if (s->kv_heads < 1 || s->kv_heads > 1 << 16 || s->head_dim < 2 || s->head_dim > 1 << 16 || s->head_dim % 2)
        return sw_fail("\"num_key_value_heads\" %lld of \"kv_channels\" %lld: heads of an even width are needed",
                       (long long)s->kv_heads, (long long)s->head_dim);
    for (int64_t i = 0; i < s->layers; i++) {
        sw_layer *l = &s->layer[i];
        if (l->ffn != &sw_ffn_moe)
            return sw_fail("layer %lld has no experts, and its attention needs some", (long long)i);
        l->mixer = &sw_mixer_moa;
        l->mixer_options = l->ffn_options;
        l->heads = s->kv_heads * ((const sw_moe *)l->ffn_options)->router.k;
    }
    return 0;
}

static const sw_rename afmoe_names[] = {{"mlp_norm", "pre_mlp_layernorm"}, {"mlp_post_norm", "post_mlp_layernorm"},
                                        {"mlp.router", "mlp.router.gate"}, {"mlp.correction", "mlp.expert_bias"},
                                        {"mlp.shared.", "mlp.shared_experts."}, {0}};
static const sw_rename llama4_names[] = {{"mlp.", "feed_forward."},
                                         {"mlp.shared.", "feed_forward.shared_expert."},
                                         {"mlp.experts.gate_up", "feed_forward.experts.gate_up_proj"},
                                         {"mlp.experts.down", "feed_forward.experts.down_proj"},
                                         {0}};
static const sw_rename jetmoe_names[] = {{"mlp.router", "mlp.router.layer"},
                                         {"mlp.experts.gate_up", "mlp.input_linear.weight"},
                                         {"mlp.experts.down", "mlp.output_linear.weight"},
                                         {"self_attn.", "self_attention."},
                                         {"self_attn.router", "self_attention.experts.router.layer"},
                                         {"self_attn.experts.query", "self_attention.experts.input_linear.weight"},
                                         {"self_attn.experts.out", "self_attention.experts.output_linear.weight"},
                                         {"self_attn.bias", "self_attention.experts.bias"},
                                         {0}};
static const sw_rename dbrx_names[] = {{"model.embed_tokens", "transformer.wte"},
                                       {"model.layers", "transformer.blocks"},
                                       {"model.norm", "transformer.norm_f"},
                                       {"attn_norm", "norm_attn_norm.norm_1"},
                                       {"mlp_norm", "norm_attn_norm.norm_2"},
                                       {"self_attn.qkv_proj", "norm_attn_norm.attn.Wqkv"},
                                       {"self_attn.o_proj", "norm_attn_norm.attn.out_proj"},
                                       {"mlp.router", "ffn.router.layer"},
                                       {"mlp.experts.gate", "ffn.experts.mlp.w1"},
                                       {"mlp.experts.up", "ffn.experts.mlp.v1"},
                                       {"mlp.experts.down", "ffn.experts.mlp.w2"},
                                       {0}};
static const sw_rename phimoe_names[] = {
    {"mlp.router", "block_sparse_moe.gate"}, {"mlp.experts.", "block_sparse_moe.experts."}, {0}};
static const sw_rename mimo_names[] = {{"mlp.router", "mlp.gate"},
                                       {"mlp.correction", "mlp.gate.e_score_correction_bias"},
                                       {"self_attn.sinks", "self_attn.attention_sink_bias"},
                                       {0}};

const sw_family sw_family_sparse[] = {
    {.name = "afmoe", .architectures = SW_NAMES("AfmoeForCausalLM"), .model_types = SW_NAMES("afmoe"),
     .spec = {.norm = {.eps = 1e-5}, .norm_place = SW_SANDWICH_NORM, .qk_norm = SW_QK_HEAD, .gated = true, .window = 1024},
     .read = read_afmoe, .layers = afmoe_layers, .names = afmoe_names},
    {.name = "mimo_v2_flash",
     .architectures = SW_NAMES("MiMoV2FlashForCausalLM"),
     .model_types = SW_NAMES("mimo_v2_flash"),
     .spec = {.norm = {.eps = 1e-5}, .window = 129, .rope = {{.theta = 5e6, .partial = 0.334}}},
     .read = read_mimo,
     .layers = mimo_layers,
     .names = mimo_names},
    {.name = "dbrx",
     .architectures = SW_NAMES("DbrxForCausalLM"),
     .model_types = SW_NAMES("dbrx"),
     .spec = {.norm = {.kind = SW_NORM_LAYER, .eps = 1e-5}, .packed = "qkv"},
     .read = read_dbrx,
     .layers = dbrx_layers,
     .names = dbrx_names},
    {.name = "phimoe",
     .architectures = SW_NAMES("PhimoeForCausalLM", "PhiMoEForCausalLM", "PhimoeForSequenceClassification"), .no_word_classes = true,
     .model_types = SW_NAMES("phimoe"),
     .spec = {.kv_heads = 8, .norm = {.kind = SW_NORM_LAYER, .bias = true, .eps = 1e-5}, .rope = {{.theta = 1e6}}},
     .read = read_phimoe,
     .layers = phimoe_layers,
     .names = phimoe_names},
    {.name = "llama4_text",
     .architectures = SW_NAMES("Llama4ForCausalLM"),
     .model_types = SW_NAMES("llama4_text"),
     .spec = {.norm = {.eps = 1e-5},
              .qk_norm_after_rope = true,
              .query_growth_offset = 1,
              .query_growth_unturned = true,
              .rope = {{.mode = SW_ROPE_INTERLEAVED, .theta = 5e5}}},
     .read = read_llama4,
     .layers = llama4_layers,
     .names = llama4_names},
    {.name = "jetmoe",
     .architectures = SW_NAMES("JetMoeForCausalLM", "JetMoeForSequenceClassification"), .no_word_classes = true,
     .model_types = SW_NAMES("jetmoe"),
     .spec = {.tied = true},
     .read = read_jetmoe,
     .layers = jetmoe_layers,
     .names = jetmoe_names},
    {0}};
