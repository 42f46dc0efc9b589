/* Llama with multipliers on embeddings, scores, branches and logits: Granite and MiniCPM. */
#include "model/family.h"

#include "base/json.h"

#include <math.h>

static int read_granite(sw_spec *s, const cJSON *config)
{
    double divide;
    if (sw_read_biases(s, config) || sw_json_f64(config, "embedding_multiplier", 1, &s->embedding_scale) ||
        sw_json_f64(config, "attention_multiplier", 1, &s->attention_scale) ||
        sw_json_f64(config, "residual_multiplier", 1, &s->residual_scale) || sw_json_f64(config, "logits_scaling", 1, &divide))
        return -1;
    if (!(divide > 0))
        return sw_fail("\"logits_scaling\": %g is not positive", divide);
    s->logit_scale = 1 / divide;
    return 0;
}

static int read_minicpm(sw_spec *s, const cJSON *config)
{
    double depth, base;
    if (sw_read_biases(s, config) || sw_json_f64(config, "scale_emb", 1, &s->embedding_scale) ||
        sw_json_f64(config, "scale_depth", 0, &depth) || sw_json_f64(config, "dim_model_base", (double)s->hidden, &base))
        return -1;
    if (!(depth >= 0) || !(base > 0) || s->layers < 1 || s->hidden < 1)
        return sw_fail("\"scale_depth\" %g and \"dim_model_base\" %g must be positive", depth, base);
    s->residual_scale = depth / sqrt((double)s->layers);
    s->logit_scale = base / (double)s->hidden;
    return 0;
}

const sw_family sw_family_scaled[] = {
    {.name = "granite", .architectures = SW_NAMES("GraniteForCausalLM"), .model_types = SW_NAMES("granite"), .read = read_granite},
    {.name = "minicpm", .architectures = SW_NAMES("MiniCPMForCausalLM"), .model_types = SW_NAMES("minicpm"), .read = read_minicpm},
    {0}};
