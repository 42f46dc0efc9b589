/* Command R: attention and feed-forward side by side behind one LayerNorm, interleaved rotation. */
#include "model/family.h"

#include "base/json.h"

static int read_cohere(sw_spec *s, const cJSON *config)
{
    bool norm;
    if (sw_read_biases(s, config) || sw_json_f64(config, "logit_scale", 0.0625, &s->logit_scale) ||
        sw_json_bool(config, "use_qk_norm", false, &norm))
        return -1;
    s->qk_norm = norm ? SW_QK_EACH : SW_QK_NONE;
    return 0;
}

static int read_cohere2(sw_spec *s, const cJSON *config)
{
    return read_cohere(s, config) || sw_json_i64(config, "sliding_window_pattern", 1, 1 << 20, s->full_every, &s->full_every) ? -1
                                                                                                   : sw_read_window(s, config);
}

#define COHERE .norm = {.kind = SW_NORM_LAYER}, .parallel = SW_PARALLEL_SHARED, .tied = true, .rope = {{.mode = SW_ROPE_INTERLEAVED}}

const sw_family sw_family_cohere[] = {
    {.name = "cohere", .architectures = SW_NAMES("CohereForCausalLM"), .model_types = SW_NAMES("cohere"), .spec = {COHERE},
     .read = read_cohere},
    {.name = "cohere2", .architectures = SW_NAMES("Cohere2ForCausalLM"), .model_types = SW_NAMES("cohere2"),
     .spec = {COHERE, .window = 4096, .full_every = 4}, .read = read_cohere2, .layers = sw_full_layers_do_not_turn},
    {0}};
