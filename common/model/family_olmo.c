/* OLMo, which norms without weights, and its successors, which norm after the branch. */
#include "model/family.h"

#include "base/json.h"

static int read_olmo(sw_spec *s, const cJSON *config)
{
    return sw_read_biases(s, config) || sw_json_f64(config, "clip_qkv", 0, &s->clip_qkv) ? -1 : 0;
}

static int read_olmo3(sw_spec *s, const cJSON *config)
{
    return sw_read_biases(s, config) || sw_read_window(s, config) ? -1 : sw_local_rope(s, s->rope[0].theta);
}

const sw_family sw_family_olmo[] = {
    {.name = "olmo", .architectures = SW_NAMES("OlmoForCausalLM", "OlmoForSequenceClassification"), .no_word_classes = true, .model_types = SW_NAMES("olmo"),
     .spec = {.norm = {.kind = SW_NORM_LAYER, .plain = true}}, .read = read_olmo},
    {.name = "olmo2", .architectures = SW_NAMES("Olmo2ForCausalLM", "Olmo2ForSequenceClassification"), .no_word_classes = true, .model_types = SW_NAMES("olmo2"),
     .spec = {.norm_place = SW_POST_NORM, .qk_norm = SW_QK_FULL, .norm = {.eps = 1e-5}}, .read = sw_read_biases},
    {.name = "olmo3", .architectures = SW_NAMES("Olmo3ForCausalLM", "Olmo3ForSequenceClassification"), .no_word_classes = true, .model_types = SW_NAMES("olmo3"),
     .spec = {.norm_place = SW_POST_NORM, .qk_norm = SW_QK_FULL, .norm = {.eps = 1e-5}, .window = 4096, .full_every = 4,
              .rope = {{.theta = 500000}}},
     .read = read_olmo3},
    {0}};
