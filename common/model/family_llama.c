/* Llama and those that differ from it by biases, windows, one activation or norms of queries and keys. */
#include "model/family.h"

#include "base/json.h"

static int read_qwen3(sw_spec *s, const cJSON *config) { return sw_read_biases(s, config) || sw_read_qwen_window(s, config) ? -1 : 0; }

static int read_ministral3(sw_spec *s, const cJSON *config)
{
    const cJSON *rope = sw_json_get(config, "rope_parameters");
    if (!rope)
        rope = sw_json_get(config, "rope_scaling");
    if (sw_json_f64(rope, "llama_4_scaling_beta", 0, &s->query_growth))
        return -1;
    s->query_growth_length = s->rope[0].original_length > 0 ? s->rope[0].original_length : (double)s->max_position;
    return sw_read_window(s, config);
}

static int read_seed(sw_spec *s, const cJSON *config)
{
    return sw_read_biases(s, config) || sw_json_bool(config, "attention_out_bias", false, &s->o_bias) ? -1 : 0;
}

static int read_ernie(sw_spec *s, const cJSON *config)
{
    bool bias;
    if (sw_json_bool(config, "use_bias", false, &bias))
        return -1;
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = s->mlp_bias = s->down_bias = bias;
    return 0;
}

static int read_cwm(sw_spec *s, const cJSON *config) { return sw_read_biases(s, config) || sw_read_window(s, config) ? -1 : 0; }

/* Where layers are not named by kind, every fourth sees everything, the first among them. */
static int cwm_layers(sw_spec *s, const cJSON *config)
{
    for (int64_t i = 0; i < s->layers && !sw_json_get(config, "layer_types"); i++)
        s->layer[i].window = i % 4 ? s->window : 0;
    return 0;
}

static int read_internlm3(sw_spec *s, const cJSON *config)
{
    bool qkv, rest;
    if (sw_json_bool(config, "qkv_bias", false, &qkv) || sw_json_bool(config, "bias", false, &rest))
        return -1;
    s->q_bias = s->k_bias = s->v_bias = qkv;
    s->o_bias = s->mlp_bias = s->down_bias = rest;
    return 0;
}

static int read_iquest(sw_spec *s, const cJSON *config)
{
    return sw_read_biases(s, config) || sw_read_qwen_window(s, config) || sw_json_f64(config, "clip_qkv", 0, &s->clip_qkv) ? -1 : 0;
}

static const sw_rename qwen2_rm_names[] = {{"score.hidden", "score.0"}, {"score", "score.2"}, {0}};
static const sw_rename hunyuan_names[] = {{"self_attn.q_norm", "self_attn.query_layernorm"}, {"self_attn.k_norm", "self_attn.key_layernorm"}, {0}};

static int read_helium(sw_spec *s, const cJSON *config)
{
    if (sw_read_biases(s, config))
        return -1;
    s->o_bias = false;
    return 0;
}

const sw_family sw_family_llama[] = {
    {.name = "llama",
     .architectures = SW_NAMES("LlamaForCausalLM", "LlamaForSequenceClassification", "LLaMAForCausalLM", "AquilaForCausalLM",
                               "SkyworkForCausalLM"),
     .model_types = SW_NAMES("llama", "aquila", "skywork"), .read = sw_read_biases},
    {.name = "mistral", .architectures = SW_NAMES("MistralForCausalLM", "MistralForSequenceClassification"),
     .model_types = SW_NAMES("mistral"), .read = sw_read_window},
    {.name = "ministral", .architectures = SW_NAMES("MinistralForCausalLM", "MinistralForSequenceClassification"),
     .model_types = SW_NAMES("ministral"), .spec = {.window = 4096}, .read = sw_read_window},
    {.name = "ministral3", .architectures = SW_NAMES("Ministral3ForCausalLM", "Ministral3ForSequenceClassification"), .model_types = SW_NAMES("ministral3"),
     .spec = {.kv_heads = 8, .head_dim = 128, .norm = {.eps = 1e-5}, .rope = {{.theta = 1e6}}}, .read = read_ministral3,
     .rope_class = "{\"rope_type\": \"yarn\", \"rope_theta\": 1000000, \"factor\": 16, \"original_max_position_embeddings\": 16384, "
                   "\"beta_fast\": 32, \"beta_slow\": 1, \"mscale\": 1, \"mscale_all_dim\": 1, \"llama_4_scaling_beta\": 0.1}"},
    {.name = "qwen2", .architectures = SW_NAMES("Qwen2ForCausalLM", "Qwen2ForSequenceClassification"), .model_types = SW_NAMES("qwen2"),
     .spec = {.q_bias = true, .k_bias = true, .v_bias = true}, .read = sw_read_qwen_window},
    /* Reward models of Qwen 2.5 score with two layers. */
    {.name = "qwen2_rm", .architectures = SW_NAMES("Qwen2ForRewardModel"), .model_types = SW_NAMES("qwen2_rm"),
     .spec = {.q_bias = true, .k_bias = true, .v_bias = true, .head_hidden = true, .head_hidden_bias = true, .head_act = SW_ACT_RELU,
              .head_bias = true},
     .read = sw_read_qwen_window, .names = qwen2_rm_names},
    /* And process reward models score every token with such two. */
    {.name = "qwen2_prm", .architectures = SW_NAMES("Qwen2ForProcessRewardModel"), .model_types = SW_NAMES("qwen2_prm"),
     .spec = {.q_bias = true, .k_bias = true, .v_bias = true, .head_hidden = true, .head_hidden_bias = true, .head_act = SW_ACT_RELU,
              .head_bias = true},
     .read = sw_read_qwen_window, .names = qwen2_rm_names},
    /* Its layers that guess further tokens are left out. */
    {.name = "mimo", .architectures = SW_NAMES("MiMoForCausalLM"), .model_types = SW_NAMES("mimo"),
     .spec = {.q_bias = true, .k_bias = true, .v_bias = true}, .read = sw_read_qwen_window, .unread = SW_NAMES("model.mtp_layers.")},
    {.name = "internlm3", .architectures = SW_NAMES("InternLM3ForCausalLM"), .model_types = SW_NAMES("internlm3"),
     .spec = {.kv_heads = 2}, .read = read_internlm3},
    {.name = "iquestcoder", .architectures = SW_NAMES("IQuestCoderForCausalLM"), .model_types = SW_NAMES("iquestcoder"),
     .read = read_iquest},
    {.name = "qwen3", .architectures = SW_NAMES("Qwen3ForCausalLM", "Qwen3ForSequenceClassification"), .model_types = SW_NAMES("qwen3"),
     .spec = {.qk_norm = SW_QK_HEAD}, .read = read_qwen3},
    {.name = "seed_oss", .architectures = SW_NAMES("SeedOssForCausalLM", "SeedOssForSequenceClassification"), .model_types = SW_NAMES("seed_oss"), .spec = {.q_bias = true},
     .read = read_seed},
    {.name = "cwm", .architectures = SW_NAMES("CwmForCausalLM"), .model_types = SW_NAMES("cwm"),
     .spec = {.kv_heads = 8, .head_dim = 128, .norm = {.eps = 1e-5}, .window = 8192, .rope = {{.theta = 1e6}}}, .read = read_cwm,
     .rope_class = "{\"rope_type\": \"llama3\", \"rope_theta\": 1000000, \"factor\": 16, \"original_max_position_embeddings\": 8192, "
                   "\"low_freq_factor\": 1, \"high_freq_factor\": 4}",
     .layers = cwm_layers},
    {.name = "arcee", .architectures = SW_NAMES("ArceeForCausalLM", "ArceeForSequenceClassification"), .model_types = SW_NAMES("arcee"),
     .spec = {.plain_mlp = true, .act = SW_ACT_RELU2, .norm = {.eps = 1e-5}}, .read = sw_read_biases},
    {.name = "helium", .architectures = SW_NAMES("HeliumForCausalLM", "HeliumForSequenceClassification"), .model_types = SW_NAMES("helium"),
     .spec = {.kv_heads = 20, .head_dim = 128, .norm = {.eps = 1e-8}, .rope = {{.mode = SW_ROPE_INTERLEAVED, .theta = 1e5}}}, .read = read_helium},
    {.name = "ernie4_5", .architectures = SW_NAMES("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"), .model_types = SW_NAMES("ernie4_5"),
     .spec = {.tied = true, .norm = {.eps = 1e-5}, .rope = {{.mode = SW_ROPE_INTERLEAVED}}}, .read = read_ernie},
    {.name = "hunyuan_v1_dense", .architectures = SW_NAMES("HunYuanDenseV1ForCausalLM", "HunYuanDenseV1ForSequenceClassification"), .no_word_classes = true, .model_types = SW_NAMES("hunyuan_v1_dense"),
     .spec = {.qk_norm = SW_QK_HEAD, .qk_norm_after_rope = true, .norm = {.eps = 1e-5}}, .read = sw_read_biases, .names = hunyuan_names},
    {0}};
