/* Families published with code of their own on the hub: Baichuan, InternLM, Qwen (the first), TeleChat, BlueLM,
 * EXAONE 3, openPangu Embedded, Index. */
#include "model/family.h"
#include "model/head.h"

#include "base/json.h"

/* The configuration does not say it: only the 13B files, which have no max_position_embeddings, use distances. */
static int read_baichuan(sw_spec *s, const cJSON *config)
{
    if (!sw_json_get(config, "max_position_embeddings") && s->heads > 0)
        sw_spec_alibi(s, 8, 1);
    if (sw_json_get(config, "z_loss_weight") || s->vocab == 125696) /* the second generation */
        s->head_product = sw_head_unit_rows;
    return 0;
}

static int read_internlm(sw_spec *s, const cJSON *config)
{
    bool bias;
    if (sw_json_bool(config, "bias", s->q_bias, &bias))
        return -1;
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = bias;
    if (s->packed)
        s->packed_groups = s->kv_heads;
    return 0;
}

/* Its intermediate_size counts gate and up together. Beyond seq_length it would change its base and its scores
 * (use_dynamic_ntk, use_logn_attn); up to there both do nothing. */
static int read_qwen(sw_spec *s, const cJSON *config)
{
    bool plain;
    if (sw_json_bool(config, "no_bias", true, &plain))
        return -1;
    s->mlp /= 2;
    s->o_bias = s->mlp_bias = s->down_bias = !plain;
    return 0;
}

static int read_telechat(sw_spec *s, const cJSON *config)
{
    bool norm, after;
    if (sw_json_bool(config, "embed_layernorm", false, &norm) ||
        sw_json_bool(config, "apply_residual_connection_post_layernorm", false, &after))
        return -1;
    if (norm || after)
        return sw_fail("\"embed_layernorm\" and \"apply_residual_connection_post_layernorm\" must be false, as published models have them");
    s->packed_groups = s->kv_heads;
    return 0;
}

/* The embedding may have a LayerNorm of its own, among RMSNorms. */
static int read_bluelm(sw_spec *s, const cJSON *config)
{
    s->embedding = (sw_norm_spec){.kind = SW_NORM_LAYER, .bias = true, .eps = s->norm.eps};
    return sw_json_bool(config, "use_stable_embedding", false, &s->embed_norm);
}

static int read_pangu(sw_spec *s, const cJSON *config)
{
    bool bias;
    if (sw_json_bool(config, "bias", true, &bias))
        return -1;
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = bias;
    return 0;
}

/* Configurations say it with a number as well as with true. */
static int read_index(sw_spec *s, const cJSON *config)
{
    const cJSON *norm = sw_json_get(config, "norm_head");
    if (cJSON_IsTrue(norm) || (cJSON_IsNumber(norm) && norm->valuedouble != 0))
        s->head_product = sw_head_unit_rows;
    return 0;
}

static const sw_rename baichuan_names[] = {{"self_attn.qkv_proj", "self_attn.W_pack"}, {0}};
static const sw_rename bluelm_names[] = {{"model.embed_norm", "model.embed_layer_norm"}, {0}};
static const sw_rename internlm2_names[] = {{"model.embed_tokens", "model.tok_embeddings"}, {"lm_head", "output"}, {"score", "v_head"},
                                            {"attn_norm", "attention_norm"}, {"mlp_norm", "ffn_norm"},
                                            {"self_attn.qkv_proj", "attention.wqkv"}, {"self_attn.o_proj", "attention.wo"},
                                            {"mlp.gate_proj", "feed_forward.w1"}, {"mlp.up_proj", "feed_forward.w3"},
                                            {"mlp.down_proj", "feed_forward.w2"}, {0}};
#define TRANSFORMER {"model.layers", "transformer.h"}, {"model.norm", "transformer.ln_f"}
static const sw_rename qwen_names[] = {TRANSFORMER, {"model.embed_tokens", "transformer.wte"}, {"attn_norm", "ln_1"}, {"mlp_norm", "ln_2"},
                                       {"self_attn.qkv_proj", "attn.c_attn"}, {"self_attn.o_proj", "attn.c_proj"},
                                       {"mlp.gate_proj", "mlp.w2"}, {"mlp.up_proj", "mlp.w1"}, {"mlp.down_proj", "mlp.c_proj"}, {0}};
static const sw_rename exaone_names[] = {TRANSFORMER, {"model.embed_tokens", "transformer.wte"}, {"attn_norm", "ln_1"}, {"mlp_norm", "ln_2"},
                                         {"self_attn.o_proj", "attn.attention.out_proj"}, {"self_attn.", "attn.attention."},
                                         {"mlp.gate_proj", "mlp.c_fc_0"}, {"mlp.up_proj", "mlp.c_fc_1"}, {"mlp.down_proj", "mlp.c_proj"}, {0}};
static const sw_rename telechat_names[] = {TRANSFORMER, {"model.embed_tokens", "transformer.word_embeddings"},
                                           {"self_attn.q_proj", "self_attention.query"}, {"self_attn.kv_proj", "self_attention.key_value"},
                                           {"self_attn.o_proj", "self_attention.dense"}, {0}};

const sw_family sw_family_hub[] = {
    {.name = "baichuan", .architectures = SW_NAMES("BaichuanForCausalLM", "BaiChuanForCausalLM"), .model_types = SW_NAMES("baichuan"),
     .spec = {.packed = "qkv"}, .read = read_baichuan, .names = baichuan_names},
    {.name = "bluelm", .architectures = SW_NAMES("BlueLMForCausalLM"), .model_types = SW_NAMES("BlueLM", "bluelm"), .read = read_bluelm,
     .names = bluelm_names},
    {.name = "exaone", .architectures = SW_NAMES("ExaoneForCausalLM"), .model_types = SW_NAMES("exaone"), .names = exaone_names},
    {.name = "index", .architectures = SW_NAMES("IndexForCausalLM"), .model_types = SW_NAMES("index"), .read = read_index},
    {.name = "pangu_embedded", .architectures = SW_NAMES("PanguEmbeddedForCausalLM"), .model_types = SW_NAMES("PanguEmbedded"),
     .read = read_pangu},
    {.name = "internlm", .architectures = SW_NAMES("InternLMForCausalLM"), .model_types = SW_NAMES("internlm"),
     .spec = {.q_bias = true}, .read = read_internlm},
    {.name = "internlm2", .architectures = SW_NAMES("InternLM2ForCausalLM", "InternLM2ForRewardModel"), .model_types = SW_NAMES("internlm2"),
     .spec = {.packed = "qkv"}, .read = read_internlm, .names = internlm2_names},
    {.name = "qwen", .architectures = SW_NAMES("QWenLMHeadModel"), .model_types = SW_NAMES("qwen"),
     .spec = {.packed = "qkv", .q_bias = true}, .read = read_qwen, .names = qwen_names},
    {.name = "telechat", .architectures = SW_NAMES("TELECHAT", "TelechatForCausalLM", "TeleChatForCausalLM", "TeleChat2ForCausalLM"), .model_types = SW_NAMES("telechat"),
     .spec = {.packed = "kv", .o_bias = true, .down_bias = true}, .read = read_telechat, .names = telechat_names},
    {0}};
