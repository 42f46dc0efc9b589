/* Families with latent attention: DeepSeek 2 and 3 and those built like them. */
#include "model/ffn_moe.h"
#include "model/mixer_mla.h"

#include "base/json.h"

#include <string.h>

#define PAIRS .rope = {{.mode = SW_ROPE_INTERLEAVED}}

SW_MOE_LAYERS(softmax_experts, .router = {.score = SW_ROUTE_SOFTMAX}, .shared_wide = 1)
SW_MOE_LAYERS(sigmoid_experts, .router = {.score = SW_ROUTE_SIGMOID, .normalise = true, .eps = 1e-20, .group_by_two = true},
              .correction = true, .shared_wide = 1, .dense_first = 3)
SW_MOE_LAYERS(lite_experts, .router = {.score = SW_ROUTE_SIGMOID, .normalise = true, .eps = 1e-20, .group_by_two = true},
              .correction = true, .shared_wide = 1, .dense_first = 1)

/* Groups count where topk_method says so; weights are what softmax gave, whatever norm_topk_prob says. */
static int deepseek_v2(sw_spec *s, const cJSON *config)
{
    const char *method;
    const sw_moe *changed = NULL;
    if (sw_json_str(config, "topk_method", "greedy", &method) || sw_mla_layers(s, config) || softmax_experts(s, config))
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
            m.router.groups = greedy ? 1 : m.router.groups;
            changed = sw_moe_keep(s, &m);
        }
        sw_moe_layer(s, i, changed);
    }
    return 0;
}

static int deepseek_v3(sw_spec *s, const cJSON *config) { return sw_mla_layers(s, config) || sigmoid_experts(s, config) ? -1 : 0; }
static int glm4_lite(sw_spec *s, const cJSON *config) { return sw_mla_layers(s, config) || lite_experts(s, config) ? -1 : 0; }

static const sw_rename names[] = {{"mlp.router", "mlp.gate"},
                                  {"mlp.correction", "mlp.gate.e_score_correction_bias"},
                                  {"mlp.shared.", "mlp.shared_experts."},
                                  {0}};

const sw_family sw_family_mla[] = {
    {.name = "youtu", .architectures = SW_NAMES("YoutuForCausalLM"), .model_types = SW_NAMES("youtu", "youtu_llm"), .spec = {.tied = true, PAIRS},
     .layers = sw_mla_layers},
    {.name = "deepseek_v2", .architectures = SW_NAMES("DeepseekV2ForCausalLM"), .model_types = SW_NAMES("deepseek_v2"), .spec = {PAIRS},
     .read = sw_read_biases, .layers = deepseek_v2, .names = names},
    {.name = "deepseek_v3", .architectures = SW_NAMES("DeepseekV3ForCausalLM"), .model_types = SW_NAMES("deepseek_v3", "kimi_k2"),
     .spec = {PAIRS}, .layers = deepseek_v3, .names = names},
    {.name = "glm4_moe_lite", .architectures = SW_NAMES("Glm4MoeLiteForCausalLM"), .model_types = SW_NAMES("glm4_moe_lite"),
     .spec = {.norm = {.eps = 1e-5}, PAIRS}, .layers = glm4_lite, .names = names},
    {0}};
