/* Falcon, BLOOM and MPT: packed projections, positions by distance (Falcon's later ones turn). */
#include "model/family.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

static void four_times(sw_spec *s)
{
    if (!s->mlp)
        s->mlp = 4 * s->hidden;
}

static const sw_rename falcon_names[], falcon_two_names[];

static int read_falcon(sw_spec *s, const cJSON *config)
{
    bool alibi, newer, multi_query, parallel, bias;
    int64_t norms;
    if (sw_json_bool(config, "alibi", false, &alibi) || sw_json_bool(config, "new_decoder_architecture", false, &newer) ||
        sw_json_bool(config, "multi_query", true, &multi_query) || sw_json_bool(config, "parallel_attn", true, &parallel) ||
        sw_json_bool(config, "bias", false, &bias) || sw_json_i64(config, "num_ln_in_parallel_attn", 1, 2, newer ? 2 : 1, &norms) ||
        (newer && sw_json_i64(config, "num_kv_heads", 1, 1 << 16, s->heads, &s->kv_heads)))
        return -1;
    if (!newer)
        s->kv_heads = multi_query ? 1 : s->heads;
    s->packed_groups = s->kv_heads;
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = s->mlp_bias = s->down_bias = bias;
    bool two = newer && norms == 2;
    s->parallel = two ? SW_PARALLEL : parallel || newer ? SW_PARALLEL_SHARED : SW_SEQUENTIAL;
    s->names = two ? falcon_two_names : falcon_names;
    four_times(s);
    if (alibi && s->heads > 0) {
        sw_spec_alibi(s, 8, 1);
        for (int64_t i = 0; i < s->heads; i++) /* its slopes are bf16, and are scaled with the scores */
            s->alibi[i] = sw_bf16_to_f32(sw_f32_to_bf16(s->alibi[i])) / sqrtf((float)s->head_dim);
    }
    return 0;
}

static int read_bloom(sw_spec *s, const cJSON *config)
{
    bool after;
    if (sw_json_bool(config, "apply_residual_connection_post_layernorm", false, &after))
        return -1;
    if (after)
        return sw_fail("\"apply_residual_connection_post_layernorm\": true, no published model has it, is not run here");
    s->packed_groups = s->heads;
    s->mlp = 4 * s->hidden;
    if (s->heads > 0)
        sw_spec_alibi(s, 8, 1);
    return 0;
}

static int read_mpt(sw_spec *s, const cJSON *config)
{
    const cJSON *attention = sw_json_get(config, "attn_config");
    double most, ratio;
    bool alibi, norm, plain;
    if (sw_json_f64(attention, "alibi_bias_max", 8, &most) || sw_json_bool(attention, "alibi", true, &alibi) ||
        sw_json_bool(attention, "qk_ln", false, &norm) || sw_json_f64(attention, "clip_qkv", 0, &s->clip_qkv) ||
        sw_json_f64(attention, "softmax_scale", 0, &s->attention_scale) || sw_json_f64(config, "expansion_ratio", 4, &ratio) ||
        sw_json_bool(config, "no_bias", true, &plain))
        return -1;
    if (!alibi || norm || !plain)
        return sw_fail("\"attn_config\": alibi must be true and qk_ln false, and \"no_bias\" true, as all published models have them");
    if (!(ratio > 0 && ratio < 1024))
        return sw_fail("\"expansion_ratio\": %g is not between 0 and 1024", ratio);
    s->mlp = (int64_t)((double)s->hidden * ratio);
    if (s->heads > 0)
        sw_spec_alibi(s, most, 1);
    return 0;
}

#define ENDS                                                                                                            \
    {"model.embed_tokens", "transformer.word_embeddings"}, {"model.embed_norm", "transformer.word_embeddings_layernorm"}, \
        {"model.layers", "transformer.h"}, {"model.norm", "transformer.ln_f"}
#define PARTS                                                                                                           \
    {"self_attn.qkv_proj", "self_attention.query_key_value"}, {"self_attn.o_proj", "self_attention.dense"},              \
        {"mlp.up_proj", "mlp.dense_h_to_4h"}, {"mlp.down_proj", "mlp.dense_4h_to_h"}
static const sw_rename falcon_names[] = {ENDS, PARTS, {0}};
static const sw_rename falcon_two_names[] = {ENDS, PARTS, {"attn_norm", "ln_attn"}, {"mlp_norm", "ln_mlp"}, {0}};
static const sw_rename mpt_names[] = {{"model.embed_tokens", "transformer.wte"}, {"model.layers", "transformer.blocks"},
                                      {"model.norm", "transformer.norm_f"}, {"attn_norm", "norm_1"}, {"mlp_norm", "norm_2"},
                                      {"self_attn.qkv_proj", "attn.Wqkv"}, {"self_attn.o_proj", "attn.out_proj"},
                                      {"mlp.", "ffn."}, {0}};

#define PLAIN .plain_mlp = true, .tied = true, .packed = "qkv"

const sw_family sw_family_alibi[] = {
    {.name = "falcon", .architectures = SW_NAMES("FalconForCausalLM", "RWForCausalLM", "FalconForSequenceClassification"),
     .model_types = SW_NAMES("falcon", "RefinedWeb", "RefinedWebModel"), .words_score = "classifier",
     .spec = {PLAIN, .norm = {.kind = SW_NORM_LAYER, .bias = true}, .act = SW_ACT_GELU}, .read = read_falcon},
    {.name = "bloom", .architectures = SW_NAMES("BloomForCausalLM", "BloomForSequenceClassification"), .model_types = SW_NAMES("bloom"),
     .words_score = "classifier",
     .spec = {PLAIN, .layers = 2, .heads = 8, .norm = {.kind = SW_NORM_LAYER, .bias = true}, .act = SW_ACT_GELU_TANH, .embed_norm = true, .q_bias = true,
              .k_bias = true, .v_bias = true, .o_bias = true, .mlp_bias = true, .down_bias = true},
     .read = read_bloom, .names = falcon_names},
    {.name = "mpt", .architectures = SW_NAMES("MptForCausalLM", "MPTForCausalLM", "MptForSequenceClassification"), .words_score = "classifier", .model_types = SW_NAMES("mpt"),
     .spec = {PLAIN, .norm = {.kind = SW_NORM_LAYER}, .act = SW_ACT_GELU}, .read = read_mpt, .names = mpt_names},
    {0}};
