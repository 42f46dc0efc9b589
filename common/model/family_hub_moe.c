/* Mixtures of experts published with code of their own on the hub: XVERSE, Ling (BailingMoe) and Grok-1. */
#include "model/ffn_moe.h"
#include "model/head.h"

#include "base/json.h"

/* ---- XVERSE: Llama, with experts or without */

SW_MOE_LAYERS(xverse_moe, .router = {.score = SW_ROUTE_SOFTMAX}, .shared_wide = 1)

static int xverse_layers(sw_spec *s, const cJSON *config)
{
    return sw_json_get(config, "num_experts") ? xverse_moe(s, config) : 0;
}

/* ---- Ling 1 and 2 */

static int read_ling(sw_spec *s, const cJSON *config)
{
    bool qkv, rest, head, softmax;
    if (sw_json_bool(config, "use_qkv_bias", false, &qkv) || sw_json_bool(config, "use_bias", false, &rest) ||
        sw_json_bool(config, "norm_head", false, &head) || sw_json_bool(config, "norm_softmax", false, &softmax))
        return -1;
    if (softmax || rest)
        return sw_fail("\"norm_softmax\" and \"use_bias\" must be false, as published models have them");
    s->q_bias = s->k_bias = s->v_bias = qkv;
    s->head_product = head ? sw_head_unit_columns : NULL;
    return 0;
}

SW_MOE_LAYERS(ling, .router = {.score = SW_ROUTE_SOFTMAX}, .shared_wide = 1)
SW_MOE_LAYERS(ling2, .router = {.score = SW_ROUTE_SIGMOID, .normalise = true, .eps = 1e-20, .group_by_two = true}, .correction = true,
              .shared_wide = 1)

/* ---- Grok-1, from JAX by way of PyTorch */

static int read_grok(sw_spec *s, const cJSON *config)
{
    return sw_json_f64(config, "embedding_multiplier_scale", 1, &s->embedding_scale) ||
                   sw_json_f64(config, "output_multiplier_scale", 1, &s->logit_scale) ||
                   sw_json_f64(config, "attn_output_multiplier", 1, &s->attention_scale) ||
                   sw_json_f64(config, "max_attn_value", 30, &s->attention_softcap)
               ? -1
               : 0;
}

SW_MOE_LAYERS(grok, .router = {.score = SW_ROUTE_SOFTMAX}, .gate = "linear", .up = "linear_v", .down = "linear_1")

static const sw_rename xverse_names[] = {{"mlp.shared.", "mlp.shared_experts."}, {0}};
#define LING                                                                                                           \
    {"model.embed_tokens", "model.word_embeddings"}, {"self_attn.qkv_proj", "attention.query_key_value"},              \
        {"self_attn.o_proj", "attention.dense"}, {"mlp.router", "mlp.gate"}, {"mlp.shared.", "mlp.shared_experts."}
static const sw_rename ling_names[] = {LING, {0}};
static const sw_rename ling2_names[] = {LING, {"self_attn.q_norm", "attention.query_layernorm"},
                                        {"self_attn.k_norm", "attention.key_layernorm"}, {"mlp.correction", "mlp.gate.expert_bias"}, {0}};
static const sw_rename grok_names[] = {{"self_attn.", "attn."}, {"attn_norm.weight", "pre_attn_norm.scale"},
                                       {"attn_post_norm.weight", "post_attn_norm.scale"}, {"mlp_norm.weight", "pre_moe_norm.scale"},
                                       {"mlp_post_norm.weight", "post_moe_norm.scale"}, {"model.norm.weight", "model.norm.scale"},
                                       {"mlp.router", "moe_block.gate"}, {"mlp.experts.", "moe_block.experts."}, {0}};

const sw_family sw_family_hub_moe[] = {
    {.name = "xverse", .architectures = SW_NAMES("XverseForCausalLM"), .model_types = SW_NAMES("xverse"), .read = sw_read_biases,
     .layers = xverse_layers, .names = xverse_names},
    {.name = "bailing_moe", .architectures = SW_NAMES("BailingMoeForCausalLM"), .model_types = SW_NAMES("bailing_moe"),
     .spec = {.packed = "qkv"}, .read = read_ling, .layers = ling, .names = ling_names},
    {.name = "bailing_moe_v2", .architectures = SW_NAMES("BailingMoeV2ForCausalLM"), .model_types = SW_NAMES("bailing_moe_v2"),
     .spec = {.packed = "qkv", .qk_norm = SW_QK_HEAD}, .read = read_ling, .layers = ling2, .names = ling2_names},
    {.name = "grok-1", .architectures = SW_NAMES("Grok1ModelForCausalLM"), .model_types = SW_NAMES("grok-1"),
     .spec = {.norm = {.eps = 1e-5}, .norm_place = SW_SANDWICH_NORM, .act = SW_ACT_GELU}, .read = read_grok, .layers = grok,
     .names = grok_names},
    {0}};
