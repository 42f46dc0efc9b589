/* The families that GGUF knows, one description each (gguf_map.h). Names of metadata and tensors, and what is regrouped, as
 * llama.cpp's converter writes and its loader reads them. */
#include "model/ffn_moe.h"
#include "model/gguf_rows.h"

#include "base/json.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- fields that a spec has and config.json spells in many ways */

#define DROP(gguf_) {.gguf = gguf_, .get = nothing}

GET(nothing, s ? NAN : NAN)
GET(soft_attention, s->attention_softcap > 0 ? s->attention_softcap : NAN)
GET(soft_logits, s->logit_softcap > 0 ? s->logit_softcap : NAN)
GET(logit_scale, s->logit_scale)
GET(divide_logits, 1 / s->logit_scale)
GET(embedding_scale, s->embedding_scale == 0 ? 1 : s->embedding_scale)
GET(residual_scale, s->residual_scale == 0 ? 1 : s->residual_scale)
GET(norm_eps, s->norm.eps)
GET(clip, s->clip_qkv > 0 ? s->clip_qkv : NAN)
GET(twice_mlp, 2 * (double)s->mlp)
GET(local_theta, s->rope[1].theta > 0 ? s->rope[1].theta : NAN)
GET(side_by_side, s->parallel == SW_PARALLEL)
GET(kv_heads, (double)s->kv_heads)
GET(key_dim, (double)s->layer[0].head_dim)
GET(value_dim, (double)s->layer[0].value_dim)

static double number(const cJSON *config, const char *name, double missing)
{
    const cJSON *v = sw_json_get(config, name);
    return cJSON_IsNumber(v) ? v->valuedouble : missing;
}

/* ---- what no key says */

static int gemma2_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    int64_t layers = sw_gguf_whole(config, "num_hidden_layers"), heads = sw_gguf_whole(config, "num_attention_heads");
    bool largest = layers == 46 || layers == 62; /* readers know them by their layers */
    set_number(config, "query_pre_attn_scalar", largest && heads > 0 ? (double)(sw_gguf_whole(config, "hidden_size") / heads) : number(config, "head_dim", 256));
    set_missing(config, "attn_logit_softcapping", cJSON_CreateNull());
    set_missing(config, "final_logit_softcapping", cJSON_CreateNull());
    return 0;
}

static int minicpm_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    double layers = (double)sw_gguf_whole(config, "num_hidden_layers"), hidden = (double)sw_gguf_whole(config, "hidden_size");
    set_number(config, "scale_emb", number(config, "scale_emb", 12));
    set_number(config, "scale_depth", number(config, "scale_depth", 1.4 / sqrt(layers)) * sqrt(layers));
    set_number(config, "dim_model_base", hidden / number(config, "dim_model_base", hidden / 256));
    return 0;
}

/* Its numbers are the published model's, whatever the file is. */
static int minicpm3_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    set_number(config, "scale_emb", 12);
    set_number(config, "scale_depth", 1.4);
    set_number(config, "dim_model_base", 256);
    return 0;
}

static int normalised(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    set_missing(config, "norm_topk_prob", cJSON_CreateTrue());
    return 0;
}

static int deepseek_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    set_missing(config, "norm_topk_prob", cJSON_CreateFalse());
    set_missing(config, "first_k_dense_replace", cJSON_CreateNumber(0));
    if (sw_json_get(config, "n_group"))
        set_text(config, "topk_method", "group_limited_greedy");
    return 0;
}

static int gpt_oss_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    cJSON *rope = cJSON_GetObjectItemCaseSensitive(config, "rope_scaling");
    if (rope)
        set_bool(rope, "truncate", false);
    return 0;
}

static int mpt_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    set_number(config, "expansion_ratio", number(config, "intermediate_size", 0) / (double)SW_MAX(sw_gguf_whole(config, "hidden_size"), 1));
    cJSON_DeleteItemFromObjectCaseSensitive(config, "intermediate_size");
    set_bool(config, "no_bias", !cJSON_IsTrue(sw_json_get(config, "attention_bias")));
    return 0;
}

/* Whether some layer has this tensor. */
static int falcon_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)arch;
    int64_t kv = sw_gguf_whole(config, "num_key_value_heads"), heads = sw_gguf_whole(config, "num_attention_heads");
    bool two = has(g, ".attn_norm_2.weight"), newer = two || (kv > 1 && kv < heads);
    set_bool(config, "new_decoder_architecture", newer);
    set_bool(config, "multi_query", kv != heads);
    set_bool(config, "parallel_attn", true);
    set_bool(config, "alibi", false);
    set_bool(config, "bias", has(g, ".attn_qkv.bias"));
    if (newer)
        set_number(config, "num_ln_in_parallel_attn", two ? 2 : 1);
    set_number(config, "num_kv_heads", (double)kv);
    cJSON_DeleteItemFromObjectCaseSensitive(config, "num_key_value_heads");
    return 0;
}

static int baichuan_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    if (sw_gguf_whole(config, "num_hidden_layers") == 40) { /* the larger one goes by distance, and says so by what it lacks */
        set_number(config, "model_max_length", number(config, "max_position_embeddings", 4096));
        cJSON_DeleteItemFromObjectCaseSensitive(config, "max_position_embeddings");
    }
    return 0;
}

static int chatglm_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)arch;
    set_bool(config, "multi_query_attention", true);
    set_bool(config, "add_qkv_bias", has(g, ".attn_qkv.bias"));
    set_bool(config, "add_bias_linear", has(g, ".attn_output.bias"));
    set_number(config, "rope_ratio", number(config, "rope_theta", 10000) / 10000);
    cJSON_DeleteItemFromObjectCaseSensitive(config, "rope_theta");
    cJSON_DeleteItemFromObjectCaseSensitive(config, "attention_bias");
    return 0;
}

static int stablelm_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)arch;
    set_bool(config, "use_parallel_residual", !has(g, ".ffn_norm.weight"));
    set_bool(config, "qk_layernorm", has(g, ".attn_q_norm.weight"));
    return 0;
}

static int phi2_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)arch;
    set_bool(config, "qk_layernorm", has(g, ".attn_q_norm.weight"));
    return 0;
}

static int cohere_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)arch;
    set_bool(config, "use_qk_norm", has(g, ".attn_q_norm.weight"));
    return 0;
}

static int phimoe_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)arch;
    set_bool(config, "lm_head_bias", sw_gguf_tensor(g, "output.bias"));
    cJSON *rope = cJSON_GetObjectItemCaseSensitive(config, "rope_scaling");
    const cJSON *factor = sw_json_get(rope, "attention_factor");
    if (factor) {
        set_number(rope, "short_mscale", factor->valuedouble);
        set_number(rope, "long_mscale", factor->valuedouble);
    }
    return 0;
}

static int glm_moe_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)arch;
    set_bool(config, "use_qk_norm", has(g, ".attn_q_norm.weight"));
    set_missing(config, "norm_topk_prob", cJSON_CreateTrue());
    set_missing(config, "first_k_dense_replace", cJSON_CreateNumber(0));
    if (!sw_gguf_whole(config, "intermediate_size")) /* no layer is dense */
        cJSON_DeleteItemFromObjectCaseSensitive(config, "intermediate_size");
    return 0;
}

static int smollm3_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    set_number(config, "no_rope_layer_interval", 4);
    return 0;
}

static int exaone4_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    set_missing(config, "sliding_window", cJSON_CreateNull());
    return 0;
}

/* Layers by whether they have key heads: names for those that have and those that have not. */
static int by_heads(const sw_gguf *g, const char *arch, cJSON *config, const char *with, const char *without)
{
    char key[128];
    snprintf(key, sizeof key, "%s.attention.head_count_kv", arch);
    sw_gguf_iter it = sw_gguf_items(sw_gguf_find(g, key));
    cJSON *list = cJSON_CreateArray();
    double kv;
    while (sw_gguf_next_f64(&it, &kv))
        cJSON_AddItemToArray(list, cJSON_CreateString(kv > 0 ? with : without));
    if (!cJSON_GetArraySize(list)) {
        cJSON_Delete(list);
        return sw_fail("%s is no list: which layers have attention is not said", key);
    }
    sw_gguf_set(config, "layer_types", list);
    return 0;
}

static int lfm2_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    set_bool(config, "block_auto_adjust_ff_dim", false);
    set_bool(config, "conv_bias", has(g, ".shortconv.conv.bias"));
    set_missing(config, "norm_topk_prob", cJSON_CreateTrue());
    if (has(g, ".ffn_gate_inp.weight"))
        set_bool(config, "use_expert_bias", has(g, ".exp_probs_b.bias"));
    return by_heads(g, arch, config, "full_attention", "conv");
}

static int hunyuan_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    cJSON_DeleteItemFromObjectCaseSensitive(config, "norm_topk_prob");
    return 0;
}

static int ernie_moe_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    set_missing(config, "moe_layer_start_index", cJSON_CreateNumber(0));
    return 0;
}

/* Which layers turn, and how they slide. */
static int granite_swa_keys(sw_gguf_writer *w, const char *arch, const sw_spec *s, const sw_checkpoint *c)
{
    bool slides = false, all = true;
    (void)c;
    uint8_t *list = SW_NEW_ARRAY(uint8_t, (size_t)s->layers);
    for (int64_t i = 0; i < s->layers; i++) {
        slides |= s->layer[i].window > 0;
        all &= list[i] = s->layer[i].rope >= 0;
    }
    if (!all)
        put_flags(w, arch, "attention.rope_pattern", list, s->layers);
    free(list);
    return slides ? 0 : sw_fail("GGUF's %s has no place for a model without sliding layers", arch);
}

static int granite_swa_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    char key[SW_GGUF_KEY_MAX];
    const sw_gguf_value *v = sw_gguf_find(g, sw_gguf_full(arch, "attention.rope_pattern", key));
    double theta = number(config, "rope_theta", 10000), turns;
    if (!v || v->type != SW_GGUF_ARRAY)
        return 0;
    sw_gguf_iter it = sw_gguf_items(v);
    cJSON *list = cJSON_CreateArray();
    while (sw_gguf_next_f64(&it, &turns))
        cJSON_AddItemToArray(list, cJSON_CreateNumber(turns != 0 ? theta : 0));
    sw_gguf_set(config, "layer_rope_theta", list);
    return 0;
}

#define ROUTED "num_experts", "n_routed_experts", "shared_expert_intermediate_size", ""
#define LOCAL "num_experts", "num_local_experts"
#define GPT_WORDS                                                                                                      \
    "hidden_size", "n_embd", "num_hidden_layers", "n_layer", "num_attention_heads", "n_head", "max_position_embeddings", "n_positions", \
        "layer_norm_eps", "layer_norm_epsilon", "hidden_act", "activation_function", "intermediate_size", "n_inner",     \
        "num_key_value_heads", "", "head_dim", "", "attention_bias", "", "mlp_bias", ""

#define SCALES                                                                                                         \
    FRACTION("attention.scale", "attention_multiplier", 1), FRACTION("embedding_scale", "embedding_multiplier", 1),     \
        FRACTION("residual_scale", "residual_multiplier", 1), FRACTION("logit_scale", "logits_scaling", 1)

const sw_gguf_kind sw_gguf_kinds[] = {
    /* Llama, and what is Llama to GGUF */
    {.arch = "llama", .family = "mixtral", .sign = ".ffn_gate_inp.weight", .flags = SW_GGUF_BIASES | SW_GGUF_PAIRS | SW_GGUF_ALL_SPARSE, .words = WORDS(LOCAL, "moe_intermediate_size", "", "norm_topk_prob", "")},
    {.arch = "llama", .family = "mistral", .sign = "attention.sliding_window", .flags = SW_GGUF_BIASES | SW_GGUF_PAIRS},
    {.arch = "llama", .family = "llama", .flags = SW_GGUF_BIASES | SW_GGUF_PAIRS | SW_GGUF_UNIT_HEAD},
    {.arch = "llama", .family = "internlm", .flags = SW_GGUF_BIASES | SW_GGUF_PAIRS},
    {.arch = "llama", .family = "internlm3", .flags = SW_GGUF_BIASES | SW_GGUF_PAIRS},
    {.arch = "llama", .family = "iquestcoder", .flags = SW_GGUF_BIASES | SW_GGUF_PAIRS},
    {.arch = "llama", .family = "index", .flags = SW_GGUF_BIASES | SW_GGUF_PAIRS | SW_GGUF_UNIT_HEAD},
    {.arch = "llama", .family = "ministral", .flags = SW_GGUF_BIASES | SW_GGUF_PAIRS},
    {.arch = "xverse", .family = "xverse", .architecture = "XverseForCausalLM", .flags = SW_GGUF_PAIRS},
    {.arch = "arcee", .family = "arcee", .flags = SW_GGUF_PAIRS},
    {.arch = "smollm3", .family = "smollm3", .flags = SW_GGUF_PAIRS, .to_config = smollm3_config},
    {.arch = "seed_oss", .family = "seed_oss", .names = ROWS(SW_GGUF_MODULE("post_attention_norm", "mlp_norm"))},
    {.arch = "ernie4_5", .family = "ernie4_5", .flags = SW_GGUF_PAIRS, .words = WORDS("attention_bias", "use_bias", "mlp_bias", "")},
    {.arch = "hunyuan-dense", .family = "hunyuan_v1_dense"},
    {.arch = "minicpm", .family = "minicpm", .flags = SW_GGUF_BIASES | SW_GGUF_PAIRS,
     .keys = KEYS(SPEC("embedding_scale", "scale_emb", embedding_scale), SPEC("residual_scale", "scale_depth", residual_scale),
                  SPEC("logit_scale", "dim_model_base", divide_logits)),
     .to_config = minicpm_config},
    {.arch = "granite", .family = "granite", .flags = SW_GGUF_BIASES | SW_GGUF_PAIRS, .keys = KEYS(SCALES)},
    {.arch = "granitemoe", .family = "granitemoeshared", .sign = ".ffn_gate_shexp.weight", .flags = SW_GGUF_BIASES | SW_GGUF_PAIRS | SW_GGUF_ALL_SPARSE, .keys = KEYS(SCALES),
     .words = WORDS(LOCAL, "moe_intermediate_size", "", "norm_topk_prob", "", "shared_expert_intermediate_size", "shared_intermediate_size",
                    "n_shared_experts", "")},
    {.arch = "granitemoe", .family = "granitemoe", .flags = SW_GGUF_BIASES | SW_GGUF_PAIRS | SW_GGUF_ALL_SPARSE, .keys = KEYS(SCALES),
     .words = WORDS(LOCAL, "moe_intermediate_size", "", "norm_topk_prob", "")},
    {.arch = "granite_swa", .family = "granitemoe_swa", .sign = ".ffn_gate_inp.weight",
     .flags = SW_GGUF_PAIRS | SW_GGUF_ALL_SPARSE | SW_GGUF_WINDOWS | SW_GGUF_GATE_UP | SW_GGUF_BIASES, .keys = KEYS(SCALES),
     .words = WORDS(LOCAL, "moe_intermediate_size", "", "norm_topk_prob", "", "shared_expert_intermediate_size", "shared_intermediate_size",
                    "n_shared_experts", ""),
     .to_config = granite_swa_config, .from_config = granite_swa_keys},
    {.arch = "granite_swa", .family = "granite_swa", .flags = SW_GGUF_PAIRS | SW_GGUF_WINDOWS | SW_GGUF_BIASES, .keys = KEYS(SCALES),
     .to_config = granite_swa_config, .from_config = granite_swa_keys},
    {.arch = "baichuan", .family = "baichuan", .flags = SW_GGUF_PAIRS | SW_GGUF_UNIT_HEAD, .to_config = baichuan_config},
    {.arch = "internlm2", .family = "internlm2", .flags = SW_GGUF_PAIRS, .words = WORDS("attention_bias", "bias")},

    /* Qwen */
    {.arch = "qwen", .family = "qwen", .flags = SW_GGUF_QKV,
     .keys = KEYS(COUNT("feed_forward_length", "intermediate_size", twice_mlp)),
     .words = WORDS("head_dim", "kv_channels", "rms_norm_eps", "layer_norm_epsilon", "rope_theta", "rotary_emb_base", "max_position_embeddings",
                    "seq_length", "num_key_value_heads", "")},
    {.arch = "qwen2", .family = "qwen2", .words = WORDS("attention_bias", "", "mlp_bias", "")},
    {.arch = "qwen2", .family = "mimo", .words = WORDS("attention_bias", "", "mlp_bias", "")},
    {.arch = "qwen2moe", .family = "qwen2_moe", .flags = SW_GGUF_ALL_SPARSE, .words = WORDS("attention_bias", "qkv_bias", "n_shared_experts", "")},
    {.arch = "qwen3", .family = "qwen3"},
    {.arch = "qwen3moe", .family = "qwen3_moe", .flags = SW_GGUF_ALL_SPARSE, .to_config = normalised},

    /* Gemma, Command R, OLMo */
    {.arch = "gemma", .family = "gemma", .flags = SW_GGUF_NORMS_FROM_ONE | SW_GGUF_TIED},
    {.arch = "gemma2", .family = "gemma2", .flags = SW_GGUF_NORMS_FROM_ONE | SW_GGUF_TIED | SW_GGUF_WINDOWS,
     .keys = KEYS(SPEC("attn_logit_softcapping", "attn_logit_softcapping", soft_attention),
                  SPEC("final_logit_softcapping", "final_logit_softcapping", soft_logits)),
     .to_config = gemma2_config},
    {.arch = "gemma3", .family = "gemma3_text", .flags = SW_GGUF_NORMS_FROM_ONE | SW_GGUF_TIED | SW_GGUF_WINDOWS,
     .keys = KEYS(SPEC("rope.freq_base_swa", "rope_local_base_freq", local_theta),
                  SPEC("final_logit_softcapping", "final_logit_softcapping", soft_logits)),
     .to_config = gemma2_config},
    {.arch = "command-r", .family = "cohere", .flags = SW_GGUF_PAIRS | SW_GGUF_TIED, .keys = KEYS(SPEC("logit_scale", "logit_scale", logit_scale)),
     .to_config = cohere_config},
    {.arch = "cohere2", .family = "cohere2", .flags = SW_GGUF_PAIRS | SW_GGUF_TIED | SW_GGUF_WINDOWS,
     .keys = KEYS(SPEC("logit_scale", "logit_scale", logit_scale)), .to_config = cohere_config},
    {.arch = "olmo", .family = "olmo", .flags = SW_GGUF_PAIRS, .keys = KEYS(SPEC("attention.clamp_kqv", "clip_qkv", clip))},
    {.arch = "olmo2", .family = "olmo3", .sign = "attention.sliding_window", .flags = SW_GGUF_WINDOWS},
    {.arch = "olmo2", .family = "olmo2"},
    {.arch = "olmoe", .family = "olmoe", .flags = SW_GGUF_ALL_SPARSE, .words = WORDS("moe_intermediate_size", "")},

    /* Phi, and decoders with LayerNorms */
    {.arch = "phi2", .family = "phi", .to_config = phi2_config},
    {.arch = "phi3", .family = "phi3", .flags = SW_GGUF_QKV | SW_GGUF_GATE_UP},
    /* llama.cpp weighs the chosen experts by one softmax, the model each by its own among those near it (SparseMixer): logits differ. */
    {.arch = "phimoe", .family = "phimoe", .flags = SW_GGUF_BIASES | SW_GGUF_ALL_SPARSE,
     .keys = KEYS(SPEC("attention.layer_norm_rms_epsilon", "rms_norm_eps", norm_eps), DROP("attention.layer_norm_epsilon")),
     .words = WORDS(LOCAL, "moe_intermediate_size", "", "norm_topk_prob", ""), .to_config = phimoe_config},
    {.arch = "starcoder2", .family = "starcoder2", .flags = SW_GGUF_BIASES, .words = WORDS("layer_norm_eps", "norm_epsilon", "attention_bias", "use_bias", "mlp_bias", "")},
    {.arch = "stablelm", .family = "stablelm", .flags = SW_GGUF_NORM_A_HEAD, .words = WORDS("attention_bias", "use_qkv_bias"), .to_config = stablelm_config},
    {.arch = "orion", .family = "orion", .words = WORDS("layer_norm_eps", "rms_norm_eps")},
    {.arch = "nemotron", .family = "nemotron", .flags = SW_GGUF_BIASES | SW_GGUF_NORMS_FROM_ONE, .words = WORDS("layer_norm_eps", "norm_eps")},
    {.arch = "gpt2", .family = "gpt2", .flags = SW_GGUF_QKV | SW_GGUF_NO_TURN, .words = WORDS(GPT_WORDS)},
    {.arch = "starcoder", .family = "gpt_bigcode", .flags = SW_GGUF_QKV | SW_GGUF_NO_TURN, .words = WORDS(GPT_WORDS)},
    {.arch = "codeshell", .family = "codeshell", .flags = SW_GGUF_QKV, .words = WORDS("num_key_value_heads", "num_query_groups", GPT_WORDS)},
    {.arch = "gptneox", .family = "gpt_neox", .flags = SW_GGUF_QKV,
     .keys = KEYS({.gguf = "use_parallel_residual", .config = "use_parallel_residual", .kind = SW_GGUF_YES_NO, .get = side_by_side})},
    {.arch = "falcon", .family = "falcon", .flags = SW_GGUF_QKV | SW_GGUF_NORM_2, .words = WORDS("layer_norm_eps", "layer_norm_epsilon", "intermediate_size", "ffn_hidden_size",
                    "hidden_act", "activation", "attention_bias", "", "mlp_bias", "", "head_dim", ""),
     .to_config = falcon_config},
    {.arch = "bloom", .family = "bloom", .flags = SW_GGUF_QKV | SW_GGUF_NO_TURN,
     .words = WORDS("num_hidden_layers", "n_layer", "num_attention_heads", "n_head", "layer_norm_eps", "layer_norm_epsilon", "max_position_embeddings",
                    "seq_length", "intermediate_size", "", "num_key_value_heads", "", "head_dim", "", "attention_bias", "", "mlp_bias", "", "hidden_act", "")},
    {.arch = "mpt", .family = "mpt", .flags = SW_GGUF_QKV | SW_GGUF_NO_TURN,
     .keys = KEYS(SPEC("attention.clamp_kqv", "attn_config.clip_qkv", clip), FRACTION("attention.max_alibi_bias", "attn_config.alibi_bias_max", 8)),
     .words = WORDS("hidden_size", "d_model", "num_hidden_layers", "n_layers", "num_attention_heads", "n_heads", "max_position_embeddings", "max_seq_len",
                    "layer_norm_eps", "layer_norm_epsilon", "num_key_value_heads", "", "head_dim", "", "attention_bias", "", "mlp_bias", "", "hidden_act", ""),
     .to_config = mpt_config},

    /* GLM */
    {.arch = "chatglm", .family = "glm", .architecture = "GlmForCausalLM", .sign = ".attn_q.weight", .flags = SW_GGUF_PAIRS | SW_GGUF_GATE_UP},
    {.arch = "chatglm", .family = "chatglm", .flags = SW_GGUF_PAIRS | SW_GGUF_QKV | SW_GGUF_GATE_UP,
     .words = WORDS("num_hidden_layers", "num_layers", "intermediate_size", "ffn_hidden_size", "head_dim", "kv_channels", "vocab_size", "padded_vocab_size",
                    "max_position_embeddings", "seq_length", "rms_norm_eps", "layernorm_epsilon", "num_key_value_heads", "multi_query_group_num",
                    "mlp_bias", "", "hidden_act", "", "partial_rotary_factor", ""),
     .to_config = chatglm_config},
    {.arch = "glm4", .family = "glm4", .flags = SW_GGUF_PAIRS | SW_GGUF_GATE_UP},
    {.arch = "glm4moe", .family = "glm4_moe", .names = ROWS(SW_GGUF_MODULE("post_attention_norm", "mlp_norm")), .words = WORDS(ROUTED), .to_config = glm_moe_config},

    /* mixtures and latent attention */
    {.arch = "deepseek", .family = "deepseek", .flags = SW_GGUF_PAIRS, .words = WORDS(ROUTED)},
    {.arch = "deepseek2", .family = "deepseek_v3", .sign = ".exp_probs_b.bias", .flags = SW_GGUF_PAIRS | SW_GGUF_SPLIT_KV, .words = WORDS(ROUTED),
     .to_config = deepseek_config},
    {.arch = "deepseek2", .family = "glm4_moe_lite", .architecture = "Glm4MoeLiteForCausalLM", .flags = SW_GGUF_PAIRS | SW_GGUF_SPLIT_KV, .sign = "glm4_moe_lite"},
    /* llama.cpp rates a group of experts by its two best, as version 3 does, the model's second version by the best: logits differ. */
    {.arch = "deepseek2", .family = "deepseek_v2", .sign = ".ffn_gate_inp.weight", .flags = SW_GGUF_PAIRS | SW_GGUF_SPLIT_KV, .words = WORDS(ROUTED), .to_config = deepseek_config},
    {.arch = "minicpm3", .family = "minicpm3", .flags = 0,
     .keys = KEYS(COUNT("attention.head_count_kv", "num_key_value_heads", kv_heads), COUNT("attention.key_length", "head_dim", key_dim),
                  DROP("attention.value_length"), DROP("attention.key_length_mla"), COUNT("attention.value_length_mla", "v_head_dim", value_dim)),
     .to_config = minicpm3_config},
    {.arch = "dots1", .family = "dots1", .words = WORDS(ROUTED)},
    {.arch = "minimax-m2", .family = "minimax_m2", .flags = SW_GGUF_ALL_SPARSE, .words = WORDS(LOCAL, "moe_intermediate_size", "")},
    {.arch = "exaone4", .family = "exaone4", .flags = SW_GGUF_WINDOWS, .to_config = exaone4_config},
    {.arch = "exaone-moe", .family = "exaone_moe", .flags = SW_GGUF_WINDOWS, .words = WORDS("shared_expert_intermediate_size", "", "n_shared_experts", "num_shared_experts")},
    {.arch = "ernie4_5-moe", .family = "ernie4_5_moe", .flags = SW_GGUF_PAIRS,
     .keys = KEYS(FIELD("interleave_moe_layer_step", "moe_layer_interval", SW_GGUF_WHOLE, 1)),
     .words = WORDS("num_experts", "moe_num_experts", "num_experts_per_tok", "moe_k", "n_shared_experts", "moe_num_shared_experts",
                    "shared_expert_intermediate_size", "", "first_k_dense_replace", "moe_layer_start_index", "norm_topk_prob", "",
                    "attention_bias", "use_bias", "mlp_bias", ""),
     .to_config = ernie_moe_config},
    {.arch = "hunyuan-moe", .family = "hunyuan_v1_moe", .flags = SW_GGUF_ALL_SPARSE,
     .words = WORDS("num_experts_per_tok", "moe_topk", "shared_expert_intermediate_size", "", "moe_intermediate_size", "", "n_shared_experts", "num_shared_expert"),
     .to_config = hunyuan_config},
    /* llama.cpp rounds the ends of yarn's slope to whole pairs, the model ("truncate": false) does not: logits differ where it scales. */
    {.arch = "gpt-oss", .family = "gpt_oss", .flags = SW_GGUF_WINDOWS | SW_GGUF_ALL_SPARSE, .names = ROWS(SW_GGUF_MODULE("post_attention_norm", "mlp_norm")),
     .words = WORDS(LOCAL, "moe_intermediate_size", "", "norm_topk_prob", ""), .to_config = gpt_oss_config},
    {.arch = "dbrx", .family = "dbrx", .flags = SW_GGUF_QKV | SW_GGUF_ALL_SPARSE, .names = ROWS(SW_GGUF_MODULE("attn_output_norm", "mlp_norm")),
     .keys = KEYS(COUNT("attention.head_count_kv", "attn_config.kv_n_heads", kv_heads), SPEC("attention.clamp_kqv", "attn_config.clip_qkv", clip)),
     .words = WORDS("hidden_size", "d_model", "num_hidden_layers", "n_layers", "num_attention_heads", "n_heads", "max_position_embeddings", "max_seq_len",
                    "intermediate_size", "ffn_config.ffn_hidden_size", "num_experts", "ffn_config.moe_num_experts", "num_experts_per_tok",
                    "ffn_config.moe_top_k", "moe_intermediate_size", "", "norm_topk_prob", "", "layer_norm_eps", "", "head_dim", "", "attention_bias", "",
                    "mlp_bias", "", "hidden_act", "")},
    {.arch = "lfm2moe", .family = "lfm2_moe", .flags = SW_GGUF_KV_BY_LAYER,
     .names = ROWS(SW_GGUF_MODULE("token_embd_norm", "model.norm")),
     .more = ROWS(SW_GGUF_TENSOR("shortconv.conv.weight", "conv.conv.weight", SW_GGUF_TAPS, SW_GGUF_SAME), SW_GGUF_MODULE("shortconv.in_proj", "conv.in_proj"), SW_GGUF_MODULE("shortconv.out_proj", "conv.out_proj")),
     .keys = KEYS(FIELD("shortconv.l_cache", "conv_L_cache", SW_GGUF_WHOLE, 3)),
     .words = WORDS("rms_norm_eps", "norm_eps", "first_k_dense_replace", "num_dense_layers"), .to_config = lfm2_config},
    {.arch = "lfm2", .family = "lfm2", .flags = SW_GGUF_KV_BY_LAYER,
     .names = ROWS(SW_GGUF_MODULE("token_embd_norm", "model.norm")),
     .more = ROWS(SW_GGUF_TENSOR("shortconv.conv.weight", "conv.conv.weight", SW_GGUF_TAPS, SW_GGUF_SAME), SW_GGUF_MODULE("shortconv.in_proj", "conv.in_proj"), SW_GGUF_MODULE("shortconv.out_proj", "conv.out_proj")),
     .keys = KEYS(FIELD("shortconv.l_cache", "conv_L_cache", SW_GGUF_WHOLE, 3)),
     .words = WORDS("rms_norm_eps", "norm_eps", "norm_topk_prob", ""), .to_config = lfm2_config},
    {0}};

/* ---- which is which */

const sw_gguf_kind *sw_gguf_kind_at(size_t i)
{
    static const sw_gguf_kind *const tables[] = {sw_gguf_kinds, sw_gguf_kinds_states, sw_gguf_kinds_latent, sw_gguf_kinds_encoders,
                                                 sw_gguf_kinds_gemma, sw_gguf_kinds_hub};
    for (size_t t = 0; t < SW_COUNT(tables); t++)
        for (const sw_gguf_kind *k = tables[t]; k->arch; k++)
            if (i-- == 0)
                return k;
    return NULL;
}

static bool signs(const sw_gguf *g, const sw_gguf_kind *k)
{
    char key[128];
    if (!k->sign)
        return true;
    bool value = *k->sign == '=', yes;
    snprintf(key, sizeof key, "%s.%s", k->arch, k->sign + value);
    if (value)
        return !sw_gguf_bool(g, key, false, &yes) && yes;
    return *k->sign == '.' ? has(g, k->sign) : sw_gguf_find(g, key) != NULL;
}

const sw_gguf_kind *sw_gguf_kind_of(const sw_gguf *g)
{
    sw_span arch = sw_gguf_str(g, "general.architecture");
    const sw_gguf_kind *nearest = sw_gguf_kinds;
    char name[64] = "";
    size_t least = SIZE_MAX;
    const sw_gguf_kind *k;
    if (arch.n)
        memcpy(name, arch.at, SW_MIN(arch.n, sizeof name - 1));
    for (size_t i = 0; (k = sw_gguf_kind_at(i)); i++) {
        if (strlen(k->arch) == arch.n && !memcmp(k->arch, arch.at, arch.n) && signs(g, k))
            return k;
        size_t d = sw_spelling_distance(name, k->arch);
        if (d < least) {
            least = d;
            nearest = k;
        }
    }
    return sw_fail_null("%s: \"general.architecture\": '%s' is not known here; the nearest that is is %s", sw_gguf_path(g), name, nearest->arch);
}

const sw_gguf_kind *sw_gguf_kind_for(const sw_spec *s, const cJSON *config)
{
    const cJSON *list = sw_json_get(config, "architectures");
    const char *name = cJSON_IsArray(list) && cJSON_IsString(list->child) ? list->child->valuestring : "";
    const sw_gguf_kind *found = NULL;
    const sw_gguf_kind *k;
    bool sparse = sw_gguf_moe(s) != NULL;
    for (size_t i = 0; (k = sw_gguf_kind_at(i)); i++) {
        if (!strcmp(k->family, s->family->name) && k->sign && !strcmp(k->sign, ".ffn_gate_inp.weight") && !sparse)
            continue;
        if (strcmp(k->family, s->family->name))
            continue;
        if (k->architecture && !strcmp(k->architecture, name))
            return k;
        if (!k->architecture && !found)
            found = k;
    }
    return found ? found : sw_fail_null("models of the family %s are not written as GGUF", s->family->name);
}
