/* Llama's block with LayerNorms: Persimmon, StableLM, StarCoder 2, Nemotron, Jais 2, Orion. */
#include "model/family.h"

#include "base/json.h"

static int read_persimmon(sw_spec *s, const cJSON *config)
{
    bool norm;
    if (sw_json_bool(config, "qk_layernorm", true, &norm))
        return -1;
    s->qk_norm = norm ? SW_QK_HEAD : SW_QK_NONE;
    s->qk = s->norm;
    s->packed_groups = s->heads;
    return 0;
}

static int read_stablelm(sw_spec *s, const cJSON *config)
{
    bool bias, norm, parallel;
    if (sw_json_bool(config, "use_qkv_bias", false, &bias) || sw_json_bool(config, "qk_layernorm", false, &norm) ||
        sw_json_bool(config, "use_parallel_residual", false, &parallel))
        return -1;
    s->q_bias = s->k_bias = s->v_bias = bias;
    s->qk_norm = norm ? SW_QK_EACH : SW_QK_NONE;
    s->parallel = parallel ? SW_PARALLEL_SHARED : SW_SEQUENTIAL;
    return 0;
}

static int read_starcoder2(sw_spec *s, const cJSON *config)
{
    bool bias;
    if (sw_json_bool(config, "use_bias", true, &bias))
        return -1;
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = s->mlp_bias = s->down_bias = bias;
    return sw_read_window(s, config);
}

static const sw_rename persimmon_names[] = {{"self_attn.qkv_proj", "self_attn.query_key_value"}, {"self_attn.o_proj", "self_attn.dense"},
                                            {"self_attn.q_norm", "self_attn.q_layernorm"}, {"self_attn.k_norm", "self_attn.k_layernorm"},
                                            {"mlp.up_proj", "mlp.dense_h_to_4h"}, {"mlp.down_proj", "mlp.dense_4h_to_h"},
                                            {"model.norm", "model.final_layernorm"}, {0}};
static const sw_rename stablelm_names[] = {{"self_attn.q_norm.", "self_attn.q_layernorm.norms."},
                                           {"self_attn.k_norm.", "self_attn.k_layernorm.norms."}, {0}};
static const sw_rename starcoder2_names[] = {{"mlp.up_proj", "mlp.c_fc"}, {"mlp.down_proj", "mlp.c_proj"}, {0}};

#define LAYERNORM .norm = {.kind = SW_NORM_LAYER, .bias = true}

const sw_family sw_family_layernorm[] = {
    {.name = "persimmon", .architectures = SW_NAMES("PersimmonForCausalLM", "PersimmonForSequenceClassification"), .model_types = SW_NAMES("persimmon"),
     .spec = {LAYERNORM, .plain_mlp = true, .act = SW_ACT_RELU2, .packed = "qkv", .rope = {{.partial = 0.5}}, .q_bias = true,
              .k_bias = true, .v_bias = true, .o_bias = true, .mlp_bias = true, .down_bias = true},
     .read = read_persimmon, .names = persimmon_names},
    {.name = "stablelm", .architectures = SW_NAMES("StableLmForCausalLM", "StableLMEpochForCausalLM", "StableLmForSequenceClassification"),
     .model_types = SW_NAMES("stablelm", "stablelm_epoch"), .spec = {LAYERNORM, .rope = {{.partial = 0.25}}}, .read = read_stablelm,
     .names = stablelm_names},
    {.name = "starcoder2", .architectures = SW_NAMES("Starcoder2ForCausalLM", "Starcoder2ForSequenceClassification"), .model_types = SW_NAMES("starcoder2"),
     .spec = {LAYERNORM, .kv_heads = 2, .plain_mlp = true, .act = SW_ACT_GELU_TANH, .tied = true}, .read = read_starcoder2, .names = starcoder2_names},
    {.name = "nemotron", .architectures = SW_NAMES("NemotronForCausalLM", "NemotronForSequenceClassification"), .model_types = SW_NAMES("nemotron"),
     .spec = {.norm = {.kind = SW_NORM_LAYER, .bias = true, .offset = 1}, .plain_mlp = true, .act = SW_ACT_RELU2, .rope = {{.partial = 0.5}}},
     .read = sw_read_biases},
    {.name = "jais2", .architectures = SW_NAMES("Jais2ForCausalLM"), .model_types = SW_NAMES("jais2"),
     .spec = {LAYERNORM, .plain_mlp = true, .act = SW_ACT_RELU2, .q_bias = true, .mlp_bias = true}, .read = sw_read_biases},
    {.name = "orion", .architectures = SW_NAMES("OrionForCausalLM"), .model_types = SW_NAMES("orion"), .spec = {LAYERNORM},
     .read = sw_read_biases},
    {0}};
