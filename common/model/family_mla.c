/* Families with latent attention: DeepSeek 2 and 3 and those built like them. */
#include "model/ffn_moe.h"
#include "model/mixer_mla.h"

#include "base/json.h"

#include <string.h>

#define PAIRS .rope = {{.mode = SW_ROPE_INTERLEAVED}}

SW_MOE_LAYERS(softmax_experts, .router = {.score = SW_ROUTE_SOFTMAX}, .shared_wide = 2)
SW_MOE_LAYERS(sigmoid_experts, .router = {.score = SW_ROUTE_SIGMOID, .normalise = true, .eps = 1e-20, .group_by_two = true, .scale = 2.5},
              .correction = true, .shared_wide = 1, .dense_first = 3)
SW_MOE_LAYERS(lite_experts, .router = {.score = SW_ROUTE_SIGMOID, .normalise = true, .eps = 1e-20, .group_by_two = true, .scale = 1.8},
              .correction = true, .shared_wide = 1, .dense_first = 1)

static int dense(sw_spec *s, const cJSON *config) { return sw_mla_layers(s, config, NULL); }

/* Groups count where topk_method says so; weights are what softmax gave, whatever norm_topk_prob says. */
static int deepseek_v2(sw_spec *s, const cJSON *config)
{
    const char *method;
    const sw_moe *changed = NULL;
    if (sw_json_str(config, "topk_method", "greedy", &method) || sw_mla_layers(s, config, NULL) || softmax_experts(s, config))
        return -1;
    bool greedy = !strcmp(method, "greedy");
    if (!greedy && strcmp(method, "group_limited_greedy"))
        return sw_fail("\"topk_method\": '%s' is neither greedy nor group_limited_greedy", method);
    for (int64_t i = 0; i < s->layers; i++) {
        if (s->layer[i].ffn != &sw_ffn_moe)
            continue;
        if (!changed) {
            sw_moe m = *(const sw_moe *)s->layer[i].ffn_options;
            m.router.normalise = false;
            m.shared_bias = s->mlp_bias;
            m.router.groups = greedy ? 1 : m.router.groups;
            changed = sw_moe_keep(s, &m);
        }
        sw_moe_layer(s, i, changed);
    }
    return 0;
}

static int deepseek_v3(sw_spec *s, const cJSON *config) { return sw_mla_layers(s, config, NULL) || sigmoid_experts(s, config) ? -1 : 0; }
static int glm4_lite(sw_spec *s, const cJSON *config) { return sw_mla_layers(s, config, NULL) || lite_experts(s, config) ? -1 : 0; }

/* Options of an indexer; topk and heads are what absent fields mean. */
static int read_indexer(const cJSON *config, const sw_mla *o, sw_rope_mode mode, int64_t heads, sw_indexer *x)
{
    x->mode = mode;
    if (sw_json_i64(config, "index_topk", 1, 1 << 24, 2048, &x->topk) || sw_json_i64(config, "index_head_dim", 1, 1 << 16, 128, &x->width) ||
        sw_json_i64(config, "index_n_heads", 1, 1 << 16, heads, &x->heads))
        return -1;
    if (x->width < o->rope)
        return sw_fail("\"index_head_dim\": %lld is less than \"qk_rope_head_dim\", %lld", (long long)x->width, (long long)o->rope);
    return o->q_rank ? 0 : sw_fail("\"q_lora_rank\" is missing: the indexer works on the latents of queries");
}

static int deepseek_v32(sw_spec *s, const cJSON *config)
{
    sw_mla *o;
    if (sw_mla_layers(s, config, &o) || sigmoid_experts(s, config))
        return -1;
    return read_indexer(config, o, SW_ROPE_HALF, 64, &o->indexer);
}

/* Whether layer i takes the choice of the layer before: by a list, a pattern of letters, or a period. */
static int follows(const cJSON *config, int64_t i, bool *out)
{
    const cJSON *types = sw_json_get(config, "indexer_types"), *pattern = sw_json_get(config, "index_topk_pattern");
    int64_t period, skip;
    if (!types && cJSON_IsArray(pattern))
        types = pattern;
    if (types) {
        const cJSON *t = cJSON_IsArray(types) ? cJSON_GetArrayItem(types, (int)i) : NULL;
        *out = cJSON_IsString(t) && !strcmp(t->valuestring, "shared");
        return *out || (cJSON_IsString(t) && !strcmp(t->valuestring, "full"))
                   ? 0
                   : sw_fail("\"indexer_types\": layer %lld is neither full nor shared", (long long)i);
    }
    if (cJSON_IsString(pattern)) {
        char letter = i < (int64_t)strlen(pattern->valuestring) ? pattern->valuestring[i] : 0;
        *out = letter == 'S';
        return *out || letter == 'F' ? 0 : sw_fail("\"index_topk_pattern\": layer %lld is neither F nor S", (long long)i);
    }
    if (sw_json_i64(config, "index_topk_freq", 0, 4096, 1, &period) || sw_json_i64(config, "index_skip_topk_offset", -4096, 4096, 2, &skip))
        return -1;
    *out = SW_MAX(i - skip + 1, 0) % SW_MAX(period, 1) != 0;
    return 0;
}

static int glm_dsa(sw_spec *s, const cJSON *config)
{
    sw_mla *o;
    if (sw_mla_layers(s, config, &o) || sigmoid_experts(s, config) || read_indexer(config, o, SW_ROPE_INTERLEAVED, 32, &o->indexer))
        return -1;
    sw_mla *after = sw_arena_zalloc(&s->arena, sizeof *after);
    *after = *o;
    after->indexer.follows = true;
    for (int64_t i = 0; i < s->layers; i++) {
        bool shares;
        if (follows(config, i, &shares))
            return -1;
        if (shares && i == 0)
            return sw_fail("\"indexer_types\": the first layer has none before it to share with");
        s->layer[i].mixer_options = shares ? after : o;
    }
    return 0;
}

static const sw_rename names[] = {{"mlp.router", "mlp.gate"},
                                  {"mlp.correction", "mlp.gate.e_score_correction_bias"},
                                  {"mlp.shared.", "mlp.shared_experts."},
                                  {0}};

const sw_family sw_family_mla[] = {
    {.name = "youtu", .architectures = SW_NAMES("YoutuForCausalLM"), .model_types = SW_NAMES("youtu", "youtu_llm"), .spec = {.tied = true, PAIRS},
     .layers = dense},
    {.name = "deepseek_v2", .architectures = SW_NAMES("DeepseekV2ForCausalLM", "DeepseekV2ForSequenceClassification"), .no_word_classes = true, .model_types = SW_NAMES("deepseek_v2"), .spec = {PAIRS},
     .read = sw_read_biases, .layers = deepseek_v2, .names = names},
    {.name = "deepseek_v3", .architectures = SW_NAMES("DeepseekV3ForCausalLM", "DeepseekV3ForSequenceClassification"), .model_types = SW_NAMES("deepseek_v3", "kimi_k2"),
     .spec = {PAIRS}, .layers = deepseek_v3, .names = names},
    {.name = "glm4_moe_lite", .architectures = SW_NAMES("Glm4MoeLiteForCausalLM"), .model_types = SW_NAMES("glm4_moe_lite"),
     .spec = {.norm = {.eps = 1e-5}, PAIRS}, .layers = glm4_lite, .names = names},
    {.name = "deepseek_v32", .architectures = SW_NAMES("DeepseekV32ForCausalLM"), .model_types = SW_NAMES("deepseek_v32"), .spec = {PAIRS},
     .layers = deepseek_v32, .names = names, .body = &sw_indexer_body},
    {.name = "glm_moe_dsa", .architectures = SW_NAMES("GlmMoeDsaForCausalLM"), .model_types = SW_NAMES("glm_moe_dsa"),
     .spec = {.norm = {.eps = 1e-5}, PAIRS}, .layers = glm_dsa, .names = names, .body = &sw_indexer_body},
    {0}};
