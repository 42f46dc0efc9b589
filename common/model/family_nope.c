/* Families in which some layers do not turn their queries and keys. */
#include "model/family.h"

#include "base/json.h"

#include <string.h>

/* "LLLG": which layers of each group are local; a number says that each n-th is global. */
static int exaone_layers(sw_spec *s, const cJSON *config)
{
    const cJSON *pattern = sw_json_get(config, "sliding_window_pattern");
    if (cJSON_IsString(pattern) && !sw_json_get(config, "layer_types")) {
        size_t n = strlen(pattern->valuestring);
        if (!n || strspn(pattern->valuestring, "LG") != n)
            return sw_fail("\"sliding_window_pattern\": '%s' is no row of L and G", pattern->valuestring);
        for (int64_t i = 0; i < s->layers; i++)
            s->layer[i].window = pattern->valuestring[(size_t)i % n] == 'L' ? s->window : 0;
    }
    return s->window ? sw_full_layers_do_not_turn(s, config) : 0;
}

static int read_exaone4(sw_spec *s, const cJSON *config)
{
    const cJSON *pattern = sw_json_get(config, "sliding_window_pattern");
    if (cJSON_HasObjectItem(config, "sliding_window") && !sw_json_get(config, "sliding_window")) /* null: none slides */
        s->window = 0;
    if (!cJSON_IsString(pattern) && sw_json_i64(config, "sliding_window_pattern", 0, 1 << 20, s->full_every, &s->full_every)) /* 0 where none slides */
        return -1;
    return sw_read_window(s, config);
}

static int read_smollm3(sw_spec *s, const cJSON *config)
{
    bool use;
    if (sw_read_biases(s, config) || sw_json_bool(config, "use_sliding_window", false, &use))
        return -1;
    return use ? sw_read_window(s, config) : 0;
}

/* no_rope_layers: 1 where a layer turns, 0 where it does not. */
static int smollm3_layers(sw_spec *s, const cJSON *config)
{
    const cJSON *list = sw_json_get(config, "no_rope_layers");
    int64_t every;
    if (sw_json_i64(config, "no_rope_layer_interval", 1, 1 << 20, 4, &every))
        return -1;
    if (list && (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != s->layers))
        return sw_fail("\"no_rope_layers\": a list of %lld numbers is needed, one a layer", (long long)s->layers);
    const cJSON *v = list ? list->child : NULL;
    for (int64_t i = 0; i < s->layers; i++, v = v ? v->next : NULL)
        if (list ? !(cJSON_IsNumber(v) && v->valuedouble != 0) : (i + 1) % every == 0)
            s->layer[i].rope = -1;
    return 0;
}

const sw_family sw_family_nope[] = {
    {.name = "exaone4", .architectures = SW_NAMES("Exaone4ForCausalLM", "Exaone4ForSequenceClassification"), .model_types = SW_NAMES("exaone4"),
     .spec = {.norm_place = SW_POST_NORM, .qk_norm = SW_QK_HEAD, .norm = {.eps = 1e-5}, .window = 4096, .full_every = 4},
     .read = read_exaone4, .layers = exaone_layers},
    {.name = "smollm3", .architectures = SW_NAMES("SmolLM3ForCausalLM", "SmolLM3ForSequenceClassification"), .model_types = SW_NAMES("smollm3"), .spec = {.kv_heads = 4, .tied = true, .rope = {{.theta = 2e6}}},
     .read = read_smollm3, .layers = smollm3_layers},
    {0}};
