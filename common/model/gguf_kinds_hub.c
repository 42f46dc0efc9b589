/* GGUF's descriptions of further mixtures, and of families whose code lay beside their weights (gguf_map.h). */
#include "model/ffn_moe.h"
#include "model/gguf_rows.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static double four(const sw_spec *s) { return s ? 4 : 4; }
GET(local_theta, s->rope[1].theta > 0 ? s->rope[1].theta : NAN)
GET(soft_attention, s->attention_softcap)
GET(all_layers, (double)s->layers)
GET(wide, (double)s->mlp)
GET(none, 0 * (double)s->layers)
GET(score_scale, s->layer[0].attention_scale)
GET(value_dim, (double)s->layer[0].value_dim)
GET(value_scale, s->layer[0].value_scale > 0 ? s->layer[0].value_scale : 1)

/* ---- */

static int afmoe_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    cJSON_DeleteItemFromObjectCaseSensitive(config, "attention_bias");
    set_bool(config, "mup_enabled", true); /* readers always scale the embedding */
    set_number(config, "global_attn_every_n_layers", 4); /* and know by themselves which layers do not turn */
    set_missing(config, "num_dense_layers", cJSON_CreateNumber(0));
    return 0;
}

/* Layers that slide turn at the same base, without the others' scaling. */
static int mellum_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    cJSON *full = cJSON_DetachItemFromObjectCaseSensitive(config, "rope_scaling"), *theta = cJSON_DetachItemFromObjectCaseSensitive(config, "rope_theta");
    if (!full) {
        full = cJSON_CreateObject();
        cJSON_AddStringToObject(full, "rope_type", "default");
    }
    theta = theta ? theta : cJSON_CreateNumber(10000);
    sw_gguf_set(config, "rope_parameters.full_attention", full);
    cJSON *both = cJSON_GetObjectItemCaseSensitive(config, "rope_parameters");
    sw_gguf_set(both, "sliding_attention.rope_type", cJSON_CreateString("default"));
    sw_gguf_set(both, "sliding_attention.rope_theta", cJSON_Duplicate(theta, true));
    cJSON_AddItemToObject(full, "rope_theta", theta);
    if (!sw_json_get(config, "norm_topk_prob"))
        set_bool(config, "norm_topk_prob", true);
    return 0;
}

static int ling_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)arch;
    set_bool(config, "use_qkv_bias", has(g, ".attn_q.bias") || has(g, ".attn_qkv.bias"));
    set_missing(config, "first_k_dense_replace", cJSON_CreateNumber(0));
    return 0;
}

/* Where a layer has experts, and heads of keys by kind of layer. */
static int mimo_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    char key[128];
    int64_t n = SW_MIN(sw_gguf_whole(config, "num_hidden_layers"), 4096);
    cJSON *ffn = cJSON_CreateArray();
    const cJSON *types = sw_json_get(config, "layer_types"), *type = types ? types->child : NULL;
    double kv, full = 0, slides = 0;
    snprintf(key, sizeof key, "%s.attention.head_count_kv", arch);
    const sw_gguf_value *v = sw_gguf_find(g, key);
    sw_gguf_iter it = v ? sw_gguf_items(v) : (sw_gguf_iter){0};
    for (int64_t i = 0; i < n; i++, type = type ? type->next : NULL) {
        cJSON_AddItemToArray(ffn, cJSON_CreateString(has_in_layer(g, i, "ffn_gate_inp.weight") ? "sparse" : "dense"));
        if (v && v->type == SW_GGUF_ARRAY && sw_gguf_next_f64(&it, &kv))
            *(cJSON_IsString(type) && !strcmp(type->valuestring, "sliding_attention") ? &slides : &full) = kv;
    }
    sw_gguf_set(config, "mlp_layer_types", ffn);
    if (full > 0)
        set_number(config, "num_key_value_heads", full);
    if (slides > 0)
        set_number(config, "swa_num_key_value_heads", slides);
    if (!sw_json_get(config, "attention_value_scale"))
        set_number(config, "attention_value_scale", 1);
    return 0;
}

#define NO_BIAS "attention_bias", "", "mlp_bias", ""
#define SHARED(count) "shared_expert_intermediate_size", "", "n_shared_experts", count

const sw_gguf_kind sw_gguf_kinds_hub[] = {
    {.arch = "exaone", .family = "exaone",
     .words = WORDS("num_hidden_layers", "num_layers", "rms_norm_eps", "layer_norm_epsilon", "hidden_act", "activation_function", NO_BIAS)},
    {.arch = "pangu-embedded", .family = "pangu_embedded", .flags = SW_GGUF_BIASES, .words = WORDS("attention_bias", "bias", "mlp_bias", "")},
    {.arch = "jais2", .family = "jais2", .flags = SW_GGUF_BIASES},
    {.arch = "mellum", .family = "mellum", .flags = SW_GGUF_WINDOWS | SW_GGUF_ALL_SPARSE, .to_config = mellum_config},
    {.arch = "glm4moe", .family = "solar_open", .names = ROWS(SW_GGUF_MODULE("post_attention_norm", "mlp_norm")),
     .words = WORDS("num_experts", "n_routed_experts", "shared_expert_intermediate_size", "")},
    {.arch = "deepseek2", .family = "youtu", .flags = SW_GGUF_PAIRS | SW_GGUF_SPLIT_KV, /* without experts */
     .keys = KEYS(COUNT("leading_dense_block_count", NULL, all_layers), COUNT("expert_feed_forward_length", NULL, wide), COUNT("expert_shared_count", NULL, none))},
    {.arch = "afmoe", .family = "afmoe", .flags = SW_GGUF_WINDOWS, .more = ROWS(SW_GGUF_MODULE("attn_gate", "self_attn.gate_proj")),
     .keys = KEYS(COUNT("attention.sliding_window_pattern", NULL, four)),
     .words = WORDS("first_k_dense_replace", "num_dense_layers", SHARED("num_shared_experts"), "routed_scaling_factor", "route_scale",
                    "norm_topk_prob", "route_norm"),
     .to_config = afmoe_config},
    {.arch = "bailingmoe", .family = "bailing_moe", .flags = SW_GGUF_PAIRS | SW_GGUF_UNIT_HEAD, .words = WORDS(SHARED("num_shared_experts"), NO_BIAS), .to_config = ling_config},
    {.arch = "bailingmoe2", .family = "bailing_moe_v2", .flags = SW_GGUF_QKV, .words = WORDS(SHARED("num_shared_experts"), NO_BIAS),
     .to_config = ling_config},
    {.arch = "grok", .family = "grok-1", .flags = SW_GGUF_ALL_SPARSE,
     .names = ROWS(SW_GGUF_MODULE("attn_output_norm", "attn_post_norm"), SW_GGUF_MODULE("layer_output_norm", "mlp_post_norm")),
     .keys = KEYS(FRACTION("embedding_scale", "embedding_multiplier_scale", 1), FRACTION("logit_scale", "output_multiplier_scale", 1),
                  SPEC("attn_logit_softcapping", "max_attn_value", soft_attention), SPEC("attention.output_scale", "attn_output_multiplier", score_scale)),
     .words = WORDS("moe_intermediate_size", "", "norm_topk_prob", "", NO_BIAS)},
    {.arch = "mimo2", .family = "mimo_v2_flash", .flags = SW_GGUF_WINDOWS | SW_GGUF_KV_BY_LAYER,
     .keys = KEYS(COUNT("attention.value_length", "v_head_dim", value_dim), SPEC("attention.value_scale", "attention_value_scale", value_scale),
                  SPEC("rope.freq_base_swa", "swa_rope_theta", local_theta)),
     .words = WORDS("num_experts", "n_routed_experts", "first_k_dense_replace", ""), .to_config = mimo_config},
    {0}};
