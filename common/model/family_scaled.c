/* Llama with multipliers on embeddings, scores, branches and logits: Granite, HyperCLOVA X and MiniCPM, whose third has latent attention. */
#include "model/ffn_moe.h"
#include "model/mixer_mla.h"
#include "model/mixer_mamba.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

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

/* Its multiplier of the logits multiplies, and norms may stand on both sides of a branch. */
static int read_hyperclovax(sw_spec *s, const cJSON *config)
{
    bool post;
    double scale;
    if (read_granite(s, config) || sw_json_f64(config, "logits_scaling", 1, &s->logit_scale) ||
        sw_json_bool(config, "use_post_norm", true, &post) || sw_json_f64(config, "attention_multiplier", 0, &scale))
        return -1;
    s->attention_scale = scale; /* without it as everywhere: 1 / sqrt(head_dim) */
    s->norm_place = post ? SW_SANDWICH_NORM : SW_PRE_NORM;
    return 0;
}

SW_MOE_LAYERS(granite_moe, .router = {.score = SW_ROUTE_SOFTMAX, .normalise = true}, .stacked = true)
SW_MOE_LAYERS(granite_shared, .router = {.score = SW_ROUTE_SOFTMAX, .normalise = true}, .stacked = true, .shared_wide = 1, .shared_packed = true)
SW_MOE_LAYERS(minicpm_moe, .router = {.score = SW_ROUTE_SOFTMAX, .normalise = true}, .gate = "w1", .up = "w3", .down = "w2")

static int read_granite_swa(sw_spec *s, const cJSON *config) { return read_granite(s, config) || sw_read_window(s, config) ? -1 : 0; }

/* Every head has a sink, each fourth layer from the first sees everything, and layers may turn by bases of their own, or not. */
static int granite_swa_layers(sw_spec *s, const cJSON *config)
{
    const cJSON *thetas = sw_json_get(config, "layer_rope_theta");
    int ropes = 1;
    if (thetas && (!cJSON_IsArray(thetas) || cJSON_GetArraySize(thetas) != s->layers))
        return sw_fail("\"layer_rope_theta\": a list of %lld numbers is needed", (long long)s->layers);
    for (int64_t i = 0; i < s->layers; i++) {
        sw_layer *l = &s->layer[i];
        const cJSON *theta = thetas ? cJSON_GetArrayItem(thetas, (int)i) : NULL;
        l->sinks = true;
        if (!sw_json_get(config, "layer_types"))
            l->window = i % 4 ? s->window : 0;
        if (!theta)
            continue;
        if (!cJSON_IsNumber(theta) || theta->valuedouble < 0)
            return sw_fail("\"layer_rope_theta\": item %lld is no base, nor 0", (long long)i);
        int k = 0;
        while (k < ropes && s->rope[k].theta != theta->valuedouble)
            k++;
        if (theta->valuedouble > 0 && k == ropes) {
            k = i || ropes > 1 ? ropes++ : 0; /* the first base takes the place of rope_theta, which nobody then uses */
            if (ropes > SW_MOST_ROPES)
                return sw_fail("\"layer_rope_theta\": more than %d bases", SW_MOST_ROPES);
            s->rope[k] = s->rope[0];
            s->rope[k].theta = theta->valuedouble;
        }
        l->rope = theta->valuedouble > 0 ? k : -1;
    }
    return 0;
}

static int granite_moe_swa_layers(sw_spec *s, const cJSON *config)
{
    int64_t shared;
    if (sw_json_i64(config, "shared_intermediate_size", 0, 1 << 24, 0, &shared))
        return -1;
    return granite_swa_layers(s, config) || (shared ? granite_shared : granite_moe)(s, config) ? -1 : 0;
}

/* Mamba 2 in some layers; without experts the shared one is all there is. */
static int read_granite_hybrid(sw_spec *s, const cJSON *config)
{
    const char *positions;
    int64_t experts;
    if (read_granite(s, config) || sw_json_str(config, "position_embedding_type", NULL, &positions) ||
        sw_json_i64(config, "num_local_experts", 0, 1 << 16, 0, &experts) ||
        (!experts && sw_json_i64(config, "shared_intermediate_size", 1, 1 << 24, 1024, &s->mlp)))
        return -1;
    s->packed_mlp = !experts;
    s->positions = positions && !strcmp(positions, "rope") ? SW_POSITIONS_ROPE : SW_POSITIONS_NONE;
    return 0;
}

static int granite_hybrid_layers(sw_spec *s, const cJSON *config)
{
    const sw_mamba2_options *o = sw_mamba2_read(s, config);
    if (!o || (!s->packed_mlp && granite_shared(s, config)))
        return -1;
    for (int64_t i = 0; i < s->layers; i++)
        if (!sw_is_full_attention(config, i, false))
            sw_mamba2_layer(&s->layer[i], o);
    return 0;
}

/* The same class, dense or not. */
static int minicpm_layers(sw_spec *s, const cJSON *config)
{
    int64_t experts;
    if (sw_json_i64(config, "num_experts", 0, 1 << 16, 0, &experts))
        return -1;
    return experts ? minicpm_moe(s, config) : 0;
}

static int minicpm3_layers(sw_spec *s, const cJSON *config) { return sw_mla_layers(s, config, NULL); }

static const sw_rename granite_names[] = {{"mlp.router", "block_sparse_moe.router.layer"},
                                          {"mlp.experts.gate_up", "block_sparse_moe.input_linear.weight"},
                                          {"mlp.experts.down", "block_sparse_moe.output_linear.weight"},
                                          {"mlp.shared.gate_up_proj", "shared_mlp.input_linear"},
                                          {"mlp.shared.down_proj", "shared_mlp.output_linear"},
                                          {"mlp.gate_up_proj", "shared_mlp.input_linear"},
                                          {"mlp.down_proj", "shared_mlp.output_linear"},
                                          {0}};
static const sw_rename granite_swa_names[] = {{"mlp.router", "block_sparse_moe.router"},
                                              {"mlp.experts.gate_up", "block_sparse_moe.experts.gate_up_proj"},
                                              {"mlp.experts.down", "block_sparse_moe.experts.down_proj"},
                                              {"mlp.shared.gate_up_proj", "shared_mlp.input_linear"},
                                              {"mlp.shared.down_proj", "shared_mlp.output_linear"},
                                              {0}};
static const sw_rename clova_names[] = {{"attn_post_norm", "post_norm1"}, {"mlp_norm", "post_attention_layernorm"},
                                        {"mlp_post_norm", "post_norm2"}, {0}};
static const sw_rename minicpm_names[] = {{"mlp.router", "mlp.gate"}, {0}};

const sw_family sw_family_scaled[] = {
    {.name = "granite", .architectures = SW_NAMES("GraniteForCausalLM"), .model_types = SW_NAMES("granite"), .read = read_granite},
    {.name = "hyperclovax", .architectures = SW_NAMES("HyperCLOVAXForCausalLM"), .model_types = SW_NAMES("hyperclovax"),
     .read = read_hyperclovax, .names = clova_names},
    {.name = "granite_swa", .architectures = SW_NAMES("GraniteSWAForCausalLM"), .model_types = SW_NAMES("granite_swa"),
     .spec = {.norm = {.eps = 1e-5}, .window = 128, .tied = true}, .read = read_granite_swa, .layers = granite_swa_layers},
    {.name = "granitemoe_swa", .architectures = SW_NAMES("GraniteMoeSWAForCausalLM"), .model_types = SW_NAMES("granitemoe_swa"),
     .spec = {.window = 128}, .read = read_granite_swa, .layers = granite_moe_swa_layers, .names = granite_swa_names},
    {.name = "minicpm", .architectures = SW_NAMES("MiniCPMForCausalLM"), .model_types = SW_NAMES("minicpm"), .read = read_minicpm,
     .layers = minicpm_layers, .names = minicpm_names},
    {.name = "granitemoe", .architectures = SW_NAMES("GraniteMoeForCausalLM"), .model_types = SW_NAMES("granitemoe"), .read = read_granite,
     .layers = granite_moe, .names = granite_names},
    {.name = "granitemoeshared", .architectures = SW_NAMES("GraniteMoeSharedForCausalLM"), .model_types = SW_NAMES("granitemoeshared"),
     .read = read_granite, .layers = granite_shared, .names = granite_names},
    {.name = "minicpm3", .architectures = SW_NAMES("MiniCPM3ForCausalLM"), .model_types = SW_NAMES("minicpm3"),
     .spec = {.tied = true, .norm = {.eps = 1e-5}}, .read = read_minicpm, .layers = minicpm3_layers},
    {.name = "granitemoehybrid", .architectures = SW_NAMES("GraniteMoeHybridForCausalLM"), .model_types = SW_NAMES("granitemoehybrid"),
     .read = read_granite_hybrid, .layers = granite_hybrid_layers, .names = granite_names},
    {0}};
