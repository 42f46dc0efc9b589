/* GPT-2 and its line: LayerNorm with bias, feed-forward without a gate, packed or turned projections. */
#include "model/family.h"

#include "base/json.h"

#include <string.h>

/* n_inner is often null. */
static void four_times(sw_spec *s)
{
    if (!s->mlp)
        s->mlp = 4 * s->hidden;
}

static int read_gpt2(sw_spec *s, const cJSON *config)
{
    bool scaled;
    if (sw_json_bool(config, "scale_attn_weights", true, &scaled))
        return -1;
    if (!scaled)
        s->attention_scale = 1;
    four_times(s);
    return 0;
}

static int gpt2_layers(sw_spec *s, const cJSON *config)
{
    bool by_layer;
    if (sw_json_bool(config, "scale_attn_by_inverse_layer_idx", false, &by_layer))
        return -1;
    for (int64_t i = 0; by_layer && i < s->layers; i++)
        s->layer[i].attention_scale /= (double)(i + 1);
    return 0;
}

static int read_bigcode(sw_spec *s, const cJSON *config)
{
    bool multi_query;
    if (read_gpt2(s, config) || sw_json_bool(config, "multi_query", true, &multi_query))
        return -1;
    s->kv_heads = multi_query ? 1 : s->heads;
    s->packed_groups = multi_query ? 1 : s->heads;
    return 0;
}

static int read_neo(sw_spec *s, const cJSON *config)
{
    s->attention_scale = 1;
    four_times(s);
    return sw_json_i64(config, "window_size", 1, 1 << 30, 256, &s->window);
}

/* attention_layers names every layer; attention_types says how often a pattern of names repeats. */
static int neo_layers(sw_spec *s, const cJSON *config)
{
    const cJSON *list = sw_json_get(config, "attention_layers"), *types = sw_json_get(config, "attention_types"), *pattern = list;
    if (!list && cJSON_IsArray(types) && cJSON_IsArray(types->child))
        pattern = types->child->child;
    int n = cJSON_IsArray(pattern) ? cJSON_GetArraySize(pattern) : 0;
    if (!n || (list && n != s->layers))
        return sw_fail("\"attention_layers\": a list of %lld names is needed, one a layer", (long long)s->layers);
    for (int64_t i = 0; i < s->layers; i++) {
        const cJSON *name = cJSON_GetArrayItem(pattern, (int)(i % n));
        bool local = cJSON_IsString(name) && !strcmp(name->valuestring, "local");
        if (!local && !(cJSON_IsString(name) && !strcmp(name->valuestring, "global")))
            return sw_fail("\"attention_layers\": layer %lld is neither global nor local", (long long)i);
        s->layer[i].window = local ? s->window : 0;
    }
    return 0;
}

static int read_gptj(sw_spec *s, const cJSON *config)
{
    int64_t turned;
    if (sw_json_i64(config, "rotary_dim", 2, s->head_dim, s->head_dim, &turned))
        return -1;
    s->rope[0].partial = turned < s->head_dim ? ((double)turned + 0.5) / (double)s->head_dim : 1; /* whatever is rounded */
    four_times(s);
    return 0;
}

static int read_neox(sw_spec *s, const cJSON *config)
{
    bool parallel;
    if (sw_json_bool(config, "use_parallel_residual", true, &parallel) || sw_json_bool(config, "attention_bias", true, &s->q_bias))
        return -1;
    s->parallel = parallel ? SW_PARALLEL : SW_SEQUENTIAL;
    s->k_bias = s->v_bias = s->o_bias = s->q_bias;
    s->packed_groups = s->heads;
    return 0;
}

static int read_codeshell(sw_spec *s, const cJSON *config)
{
    bool grouped;
    if (sw_json_bool(config, "group_query_attention", true, &grouped) ||
        (grouped && sw_json_i64(config, "num_query_groups", 1, 1 << 16, 1, &s->kv_heads)))
        return -1;
    four_times(s);
    return 0;
}

#define GPT2_ENDS                                                                                                       \
    {"model.embed_tokens", "transformer.wte"}, {"model.embed_positions", "transformer.wpe"}, {"model.layers", "transformer.h"}, \
        {"model.norm", "transformer.ln_f"}, {"attn_norm", "ln_1"}, {"mlp_norm", "ln_2"}
#define GPT2_NAMES                                                                                                      \
    GPT2_ENDS, {"self_attn.qkv_proj", "attn.c_attn"}, {"self_attn.o_proj", "attn.c_proj"}, {"mlp.up_proj", "mlp.c_fc"}, \
        {"mlp.down_proj", "mlp.c_proj"}
static const sw_rename gpt2_names[] = {GPT2_NAMES, {0}};
static const sw_rename neo_names[] = {GPT2_ENDS, {"self_attn.o_proj", "attn.attention.out_proj"}, {"self_attn.", "attn.attention."},
                                      {"mlp.up_proj", "mlp.c_fc"}, {"mlp.down_proj", "mlp.c_proj"}, {0}};
static const sw_rename gptj_names[] = {GPT2_ENDS, {"self_attn.o_proj", "attn.out_proj"}, {"self_attn.", "attn."},
                                       {"mlp.up_proj", "mlp.fc_in"}, {"mlp.down_proj", "mlp.fc_out"}, {0}};
static const sw_rename neox_names[] = {{"model.embed_tokens", "gpt_neox.embed_in"}, {"model.layers", "gpt_neox.layers"},
                                       {"model.norm", "gpt_neox.final_layer_norm"}, {"lm_head", "embed_out"},
                                       {"self_attn.qkv_proj", "attention.query_key_value"}, {"self_attn.o_proj", "attention.dense"},
                                       {"mlp.up_proj", "mlp.dense_h_to_4h"}, {"mlp.down_proj", "mlp.dense_4h_to_h"}, {0}};

#define GPT .norm = {.kind = SW_NORM_LAYER, .bias = true}, .plain_mlp = true, .mlp_bias = true, .down_bias = true
#define BIASED .q_bias = true, .k_bias = true, .v_bias = true, .o_bias = true

const sw_family sw_family_gpt[] = {
    {.name = "gpt2", .architectures = SW_NAMES("GPT2LMHeadModel", "GPT2ForSequenceClassification"), .model_types = SW_NAMES("gpt2"), .words_score = "classifier",
     .spec = {GPT, BIASED, .act = SW_ACT_GELU_TANH, .tied = true, .positions = SW_POSITIONS_LEARNED, .packed = "qkv", .conv1d = true},
     .read = read_gpt2, .layers = gpt2_layers, .names = gpt2_names},
    {.name = "gpt_bigcode", .architectures = SW_NAMES("GPTBigCodeForCausalLM", "GPTBigCodeForSequenceClassification"), .words_score = "classifier", .model_types = SW_NAMES("gpt_bigcode"),
     .spec = {GPT, BIASED, .act = SW_ACT_GELU_TANH, .tied = true, .positions = SW_POSITIONS_LEARNED, .packed = "qkv"},
     .read = read_bigcode, .names = gpt2_names},
    {.name = "gpt_neo", .architectures = SW_NAMES("GPTNeoForCausalLM", "GPTNeoForSequenceClassification"), .words_score = "classifier", .model_types = SW_NAMES("gpt_neo"),
     .spec = {GPT, .o_bias = true, .act = SW_ACT_GELU_TANH, .tied = true, .positions = SW_POSITIONS_LEARNED},
     .read = read_neo, .layers = neo_layers, .names = neo_names},
    {.name = "gptj", .architectures = SW_NAMES("GPTJForCausalLM", "GPTJForSequenceClassification"), .no_word_classes = true, .model_types = SW_NAMES("gptj"),
     .spec = {GPT, .act = SW_ACT_GELU_TANH, .parallel = SW_PARALLEL_SHARED, .head_bias = true, .rope = {{.mode = SW_ROPE_INTERLEAVED}}},
     .read = read_gptj, .names = gptj_names},
    /* Its files came from four devices: each holds queries, values and keys of its heads. */
    {.name = "codegen", .architectures = SW_NAMES("CodeGenForCausalLM"), .model_types = SW_NAMES("codegen"),
     .spec = {GPT, .act = SW_ACT_GELU_TANH, .parallel = SW_PARALLEL_SHARED, .head_bias = true, .packed = "qvk", .packed_groups = 4,
              .rope = {{.mode = SW_ROPE_INTERLEAVED}}},
     .read = read_gptj, .names = gptj_names},
    {.name = "gpt_neox", .architectures = SW_NAMES("GPTNeoXForCausalLM", "GPTNeoXForSequenceClassification"), .words_score = "classifier", .model_types = SW_NAMES("gpt_neox"),
     .spec = {GPT, BIASED, .act = SW_ACT_GELU, .packed = "qkv", .rope = {{.partial = 0.25}}}, .read = read_neox, .names = neox_names},
    {.name = "codeshell", .architectures = SW_NAMES("CodeShellForCausalLM"), .model_types = SW_NAMES("codeshell"),
     .spec = {GPT, BIASED, .act = SW_ACT_GELU_TANH, .packed = "qkv"}, .read = read_codeshell, .names = gpt2_names},
    {0}};
