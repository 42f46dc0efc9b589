/* GLM 4 and the ChatGLM files that came before it: half of each head turns, in neighbouring pairs. */
#include "model/family.h"

#include "base/json.h"

static int read_glm(sw_spec *s, const cJSON *config)
{
    if (sw_json_bool(config, "attention_bias", false, &s->q_bias))
        return -1;
    s->k_bias = s->v_bias = s->q_bias;
    return 0;
}

static int read_chatglm(sw_spec *s, const cJSON *config)
{
    bool grouped, qkv, linear, rms, original, after;
    double ratio;
    if (sw_json_bool(config, "multi_query_attention", false, &grouped) || sw_json_bool(config, "add_qkv_bias", false, &qkv) ||
        sw_json_bool(config, "add_bias_linear", false, &linear) || sw_json_bool(config, "rmsnorm", true, &rms) ||
        sw_json_bool(config, "original_rope", true, &original) || sw_json_f64(config, "rope_ratio", 1, &ratio) ||
        sw_json_bool(config, "apply_residual_connection_post_layernorm", false, &after) ||
        (grouped && sw_json_i64(config, "multi_query_group_num", 1, 1 << 16, 1, &s->kv_heads)))
        return -1;
    if (!original || after || !(ratio > 0))
        return sw_fail("\"original_rope\" must be true, \"apply_residual_connection_post_layernorm\" false and \"rope_ratio\" positive");
    s->q_bias = qkv || linear;
    s->o_bias = s->mlp_bias = s->down_bias = linear;
    s->rope[0].theta *= ratio;
    if (!rms)
        s->norm = (sw_norm_spec){SW_NORM_LAYER, false, true, s->norm.eps, 0};
    return 0;
}

static const sw_rename glm4_names[] = {{"attn_post_norm", "post_self_attn_layernorm"}, {"mlp_post_norm", "post_mlp_layernorm"}, {0}};
static const sw_rename chatglm_names[] = {{"model.embed_tokens", "transformer.embedding.word_embeddings"},
                                          {"model.layers", "transformer.encoder.layers"},
                                          {"model.norm", "transformer.encoder.final_layernorm"},
                                          {"lm_head", "transformer.output_layer"},
                                          {"self_attn.qkv_proj", "self_attention.query_key_value"},
                                          {"self_attn.o_proj", "self_attention.dense"},
                                          {"mlp.gate_up_proj", "mlp.dense_h_to_4h"},
                                          {"mlp.down_proj", "mlp.dense_4h_to_h"},
                                          {0}};

#define GLM .packed_mlp = true, .rope = {{.mode = SW_ROPE_INTERLEAVED, .partial = 0.5}}

const sw_family sw_family_glm[] = {
    {.name = "glm", .architectures = SW_NAMES("GlmForCausalLM", "GlmForSequenceClassification"), .model_types = SW_NAMES("glm"),
     .spec = {GLM}, .read = read_glm},
    {.name = "glm4", .architectures = SW_NAMES("Glm4ForCausalLM", "Glm4ForSequenceClassification"), .model_types = SW_NAMES("glm4"),
     .spec = {GLM, .norm_place = SW_SANDWICH_NORM}, .read = read_glm, .names = glm4_names},
    {.name = "chatglm", .architectures = SW_NAMES("ChatGLMModel", "ChatGLMForConditionalGeneration"), .model_types = SW_NAMES("chatglm"),
     .spec = {GLM, .packed = "qkv"}, .read = read_chatglm, .names = chatglm_names},
    {0}};
