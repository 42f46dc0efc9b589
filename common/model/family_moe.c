/* Llama-like families whose feed-forwards are mixtures of experts: a router's kind and the names of its tensors. */
#include "model/ffn_moe.h"

#include "base/json.h"

#define SOFTMAX .router = {.score = SW_ROUTE_SOFTMAX}
#define SOFTMAX_NORMALISED .router = {.score = SW_ROUTE_SOFTMAX, .normalise = true}
#define SIGMOID                                                                                                        \
    .router = {.score = SW_ROUTE_SIGMOID, .normalise = true, .eps = 1e-20, .group_by_two = true}, .correction = true
#define W123 .gate = "w1", .up = "w3", .down = "w2"

SW_MOE_LAYERS(mixtral, SOFTMAX_NORMALISED, W123)
SW_MOE_LAYERS(minimax, SIGMOID, W123)
SW_MOE_LAYERS(qwen2, SOFTMAX, .shared_wide = 1, .shared_gated = true)
SW_MOE_LAYERS(plain, SOFTMAX)
SW_MOE_LAYERS(mellum, SOFTMAX_NORMALISED)
SW_MOE_LAYERS(with_shared, SOFTMAX, .shared_wide = 1)
SW_MOE_LAYERS(normalised_with_shared, SOFTMAX_NORMALISED, .shared_wide = 1)
SW_MOE_LAYERS(corrected_softmax, SOFTMAX_NORMALISED, .shared_wide = 1, .correction = true, .correction_row = true)
SW_MOE_LAYERS(sigmoid, SIGMOID, .shared_wide = 1)
SW_MOE_LAYERS(glm4_moe, SIGMOID, .shared_wide = 1, .dense_first = 1)
SW_MOE_LAYERS(exaone, .router = {.score = SW_ROUTE_SIGMOID, .normalise = true, .eps = 1e-20, .group_by_two = true, .scale = 2.5},
              .correction = true, .shared_wide = 1, .dense_first = 1)
SW_MOE_LAYERS(hy_v3, .router = {.score = SW_ROUTE_SIGMOID, .normalise = true, .eps = 1e-20, .group_by_two = true, .scale = 2.826},
              .correction = true, .shared_wide = 1, .dense_first = 1)

static int read_qwen2_moe(sw_spec *s, const cJSON *config)
{
    bool bias;
    if (sw_json_bool(config, "qkv_bias", true, &bias))
        return -1;
    s->q_bias = s->k_bias = s->v_bias = bias;
    return sw_read_qwen_window(s, config);
}

static int read_qwen3_moe(sw_spec *s, const cJSON *config)
{
    bool slides; /* all layers or none */
    if (sw_read_biases(s, config) || sw_read_window(s, config) || sw_json_bool(config, "use_sliding_window", false, &slides))
        return -1;
    if (!slides)
        s->window = 0;
    return 0;
}

/* Which layers slide is layer_types' to say: without it, none. */
static int read_mellum(sw_spec *s, const cJSON *config)
{
    if (sw_read_biases(s, config) || sw_read_window(s, config))
        return -1;
    if (!sw_json_get(config, "layer_types"))
        s->full_every = 1;
    return sw_local_rope(s, 10000);
}

static int read_olmoe(sw_spec *s, const cJSON *config)
{
    return sw_read_biases(s, config) || sw_json_f64(config, "clip_qkv", 0, &s->clip_qkv) ? -1 : 0;
}

static int read_window_and_biases(sw_spec *s, const cJSON *config)
{
    return sw_read_biases(s, config) || sw_read_window(s, config) ? -1 : 0;
}

static int read_solar(sw_spec *s, const cJSON *config)
{
    if (sw_read_biases(s, config))
        return -1;
    s->o_bias = false;
    return 0;
}

static int read_dots(sw_spec *s, const cJSON *config)
{
    return read_window_and_biases(s, config) || sw_json_i64(config, "max_window_layers", 0, 1 << 20, 62, &s->window_from) ? -1 : 0;
}

/* Published files say how many values of a head turn. */
static int read_minimax(sw_spec *s, const cJSON *config)
{
    int64_t turned;
    if (sw_read_window(s, config) || sw_json_i64(config, "rotary_dim", 2, s->head_dim, 0, &turned))
        return -1;
    if (turned && !(s->rope[0].partial > 0))
        s->rope[0].partial = turned < s->head_dim ? ((double)turned + 0.5) / (double)s->head_dim : 1; /* whatever is rounded */
    return 0;
}

static int read_ernie(sw_spec *s, const cJSON *config)
{
    bool bias;
    if (sw_json_bool(config, "use_bias", false, &bias))
        return -1;
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = s->mlp_bias = s->down_bias = s->head_bias = bias;
    return sw_read_window(s, config);
}

/* Biases of the shared expert, too, but not of the others. */
static int bias_shared(sw_spec *s)
{
    const sw_moe *with = NULL;
    for (int64_t i = 0; i < s->layers && s->mlp_bias; i++) {
        if (s->layer[i].ffn != &sw_ffn_moe)
            continue;
        if (!with) {
            sw_moe m = *(const sw_moe *)s->layer[i].ffn_options;
            m.shared_bias = true;
            with = sw_moe_keep(s, &m);
        }
        sw_moe_layer(s, i, with);
    }
    return 0;
}

static int ernie_layers(sw_spec *s, const cJSON *config) { return corrected_softmax(s, config) ? -1 : bias_shared(s); }
static int hy_layers(sw_spec *s, const cJSON *config) { return hy_v3(s, config) ? -1 : bias_shared(s); }

static int read_glm4_moe(sw_spec *s, const cJSON *config)
{
    bool norm;
    if (sw_json_bool(config, "attention_bias", false, &s->q_bias) || sw_json_bool(config, "use_qk_norm", false, &norm))
        return -1;
    s->k_bias = s->v_bias = s->q_bias;
    s->qk_norm = norm ? SW_QK_HEAD : SW_QK_NONE;
    return 0;
}

static int exaone_moe(sw_spec *s, const cJSON *config)
{
    return exaone(s, config) || (s->window && sw_full_layers_do_not_turn(s, config)) ? -1 : 0;
}

/* gpt-oss: every head has a sink; the limit of its gates may be another. */
static int gpt_oss_layers(sw_spec *s, const cJSON *config)
{
    sw_moe m = {SOFTMAX_NORMALISED,  .router_bias = true, .stacked = true, .turned = true,
                .interleaved = true, .biased = true};
    if (sw_json_f64(config, "swiglu_alpha", 1.702, &m.sharpness) || sw_json_f64(config, "swiglu_limit", 7, &m.limit))
        return -1;
    if (!(m.sharpness > 0) || !(m.limit > 0))
        return sw_fail("\"swiglu_alpha\" %g and \"swiglu_limit\" %g: positive numbers are needed", m.sharpness, m.limit);
    for (int64_t i = 0; i < s->layers; i++)
        s->layer[i].sinks = true;
    return sw_moe_layers(s, config, &m);
}

#define GATE                                                                                                           \
    {                                                                                                                  \
        "mlp.router", "mlp.gate"                                                                                       \
    }
#define SPARSE_BLOCK                                                                                                   \
    {"mlp.router", "block_sparse_moe.gate"}, { "mlp.experts.", "block_sparse_moe.experts." }
static const sw_rename gate_names[] = {
    GATE, {"mlp.correction", "mlp.gate.e_score_correction_bias"}, {"mlp.shared.", "mlp.shared_experts."}, {0}};
static const sw_rename mixtral_names[] = {
    SPARSE_BLOCK, {"mlp.correction", "block_sparse_moe.e_score_correction_bias"}, {0}};
static const sw_rename qwen_names[] = {
    GATE, {"mlp.shared.", "mlp.shared_expert."}, {"mlp.shared_gate", "mlp.shared_expert_gate"}, {0}};
static const sw_rename ernie_names[] = {
    GATE, {"mlp.correction", "mlp.moe_statics.e_score_correction_bias"}, {"mlp.shared.", "mlp.shared_experts."}, {0}};
static const sw_rename exaone_names[] = {
    GATE, {"mlp.correction", "mlp.e_score_correction_bias"}, {"mlp.shared.", "mlp.shared_experts."}, {0}};
static const sw_rename hunyuan_names[] = {{"mlp.router", "mlp.gate.wg"},
                                          {"mlp.shared.", "mlp.shared_mlp."},
                                          {"self_attn.q_norm", "self_attn.query_layernorm"},
                                          {"self_attn.k_norm", "self_attn.key_layernorm"},
                                          {0}};
static const sw_rename hy_names[] = {
    {"mlp.router", "mlp.router.gate"}, {"mlp.correction", "mlp.expert_bias"}, {"mlp.shared.", "mlp.shared_mlp."}, {0}};
static const sw_rename gpt_oss_names[] = {{"mlp.experts.gate_up", "mlp.experts.gate_up_proj"},
                                          {"mlp.experts.down", "mlp.experts.down_proj"},
                                          {"mlp.experts.gate_up_bias", "mlp.experts.gate_up_proj_bias"},
                                          {"mlp.experts.down_bias", "mlp.experts.down_proj_bias"},
                                          {0}};

const sw_family sw_family_moe[] = {
    {.name = "mixtral",
     .architectures = SW_NAMES("MixtralForCausalLM", "MixtralForSequenceClassification"),
     .model_types = SW_NAMES("mixtral"),
     .spec = {.kv_heads = 8, .norm = {.eps = 1e-5}, .rope = {{.theta = 1e6}}},
     .read = sw_read_window,
     .layers = mixtral,
     .names = mixtral_names},
    {.name = "minimax_m2",
     .architectures = SW_NAMES("MiniMaxM2ForCausalLM"),
     .model_types = SW_NAMES("minimax_m2"),
     .spec = {.qk_norm = SW_QK_FULL},
     .read = read_minimax,
     .layers = minimax,
     .names = mixtral_names},
    {.name = "qwen2_moe",
     .architectures = SW_NAMES("Qwen2MoeForCausalLM", "Qwen2MoeForSequenceClassification"),
     .model_types = SW_NAMES("qwen2_moe"),
     .read = read_qwen2_moe,
     .layers = qwen2,
     .names = qwen_names},
    {.name = "qwen3_moe",
     .architectures = SW_NAMES("Qwen3MoeForCausalLM", "Qwen3MoeForSequenceClassification"),
     .model_types = SW_NAMES("qwen3_moe"),
     .spec = {.qk_norm = SW_QK_HEAD},
     .read = read_qwen3_moe,
     .layers = plain,
     .names = gate_names},
    {.name = "mellum",
     .architectures = SW_NAMES("MellumForCausalLM"),
     .model_types = SW_NAMES("mellum"),
     .spec = {.qk_norm = SW_QK_HEAD, .window = 1024, .rope = {{.theta = 5e5}}},
     .read = read_mellum,
     .layers = mellum,
     .names = gate_names,
     .unread = SW_NAMES("mtp.")},
    {.name = "olmoe",
     .architectures = SW_NAMES("OlmoeForCausalLM"),
     .model_types = SW_NAMES("olmoe"),
     .spec = {.qk_norm = SW_QK_FULL, .norm = {.eps = 1e-5}},
     .read = read_olmoe,
     .layers = plain,
     .names = gate_names},
    {.name = "flex_olmo",
     .architectures = SW_NAMES("FlexOlmoForCausalLM"),
     .model_types = SW_NAMES("flex_olmo"),
     .spec = {.norm_place = SW_POST_NORM, .qk_norm = SW_QK_FULL},
     .read = sw_read_biases,
     .layers = plain,
     .names = gate_names},
    {.name = "dots1",
     .architectures = SW_NAMES("Dots1ForCausalLM"),
     .model_types = SW_NAMES("dots1"),
     .spec = {.qk_norm = SW_QK_HEAD},
     .read = read_dots,
     .layers = sigmoid,
     .names = gate_names},
    {.name = "solar_open",
     .architectures = SW_NAMES("SolarOpenForCausalLM"),
     .model_types = SW_NAMES("solar_open"),
     .spec = {.norm = {.eps = 1e-5}},
     .read = read_solar,
     .layers = sigmoid,
     .names = gate_names},
    {.name = "glm4_moe",
     .architectures = SW_NAMES("Glm4MoeForCausalLM"),
     .model_types = SW_NAMES("glm4_moe"),
     .spec = {.norm = {.eps = 1e-5}, .rope = {{.partial = 0.5}}},
     .read = read_glm4_moe,
     .layers = glm4_moe,
     .names = gate_names},
    {.name = "ernie4_5_moe",
     .architectures = SW_NAMES("Ernie4_5_MoeForCausalLM"),
     .model_types = SW_NAMES("ernie4_5_moe"),
     .spec = {.tied = true, .norm = {.eps = 1e-5}, .rope = {{.mode = SW_ROPE_INTERLEAVED}}},
     .read = read_ernie,
     .layers = ernie_layers,
     .names = ernie_names},
    {.name = "exaone_moe",
     .architectures = SW_NAMES("ExaoneMoeForCausalLM"),
     .model_types = SW_NAMES("exaone_moe"),
     .spec = {.qk_norm = SW_QK_HEAD, .norm = {.eps = 1e-5}, .window = 4096, .full_every = 4},
     .read = sw_read_window,
     .layers = exaone_moe,
     .names = exaone_names},
    {.name = "deepseek",
     .architectures = SW_NAMES("DeepseekForCausalLM"),
     .model_types = SW_NAMES("deepseek"),
     .read = sw_read_biases,
     .layers = with_shared,
     .names = gate_names},
    {.name = "hunyuan_v1_moe",
     .architectures = SW_NAMES("HunYuanMoEV1ForCausalLM", "HunYuanMoEV1ForSequenceClassification"), .no_word_classes = true,
     .model_types = SW_NAMES("hunyuan_v1_moe"),
     .spec = {.qk_norm = SW_QK_HEAD, .qk_norm_after_rope = true, .norm = {.eps = 1e-5}},
     .read = sw_read_biases,
     .layers = normalised_with_shared,
     .names = hunyuan_names},
    {.name = "hy_v3",
     .architectures = SW_NAMES("HYV3ForCausalLM"),
     .model_types = SW_NAMES("hy_v3"),
     .spec = {.qk_norm = SW_QK_HEAD},
     .read = sw_read_biases,
     .layers = hy_layers,
     .names = hy_names},
    {.name = "gpt_oss",
     .architectures = SW_NAMES("GptOssForCausalLM", "GptOssForSequenceClassification"),
     .model_types = SW_NAMES("gpt_oss"),
     .spec = {.norm = {.eps = 1e-5}, .window = 128, .q_bias = true, .k_bias = true, .v_bias = true, .o_bias = true,
              .rope = {{.theta = 150000}}},
     .read = read_window_and_biases,
     .rope_class = "{\"rope_type\": \"yarn\", \"factor\": 32, \"beta_fast\": 32, \"beta_slow\": 1, \"truncate\": false, "
                   "\"original_max_position_embeddings\": 4096}",
     .layers = gpt_oss_layers,
     .names = gpt_oss_names},
    {0}};
