/* OPT and XGLM: the decoders of fairseq. */
#include "model/family.h"

#include "base/json.h"

#include <math.h>

static int read_opt(sw_spec *s, const cJSON *config)
{
    bool before, bias, affine, no_last;
    int64_t inner;
    if (sw_json_bool(config, "do_layer_norm_before", true, &before) || sw_json_bool(config, "enable_bias", true, &bias) ||
        sw_json_bool(config, "layer_norm_elementwise_affine", true, &affine) ||
        sw_json_bool(config, "_remove_final_layer_norm", false, &no_last) ||
        sw_json_i64(config, "word_embed_proj_dim", 1, 1 << 20, s->hidden, &inner))
        return -1;
    s->norm_place = before ? SW_PRE_NORM : SW_RESIDUAL_NORM;
    s->no_final_norm = !before || no_last;
    s->norm.plain = !affine;
    s->embed_dim = inner == s->hidden ? 0 : inner;
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = s->mlp_bias = s->down_bias = bias;
    return 0;
}

static int read_xglm(sw_spec *s, const cJSON *config)
{
    bool scaled;
    if (sw_json_bool(config, "scale_embedding", true, &scaled))
        return -1;
    s->embedding_scale = scaled ? sqrt((double)s->hidden) : 0;
    return 0;
}

#define LAYER                                                                                                           \
    {"attn_norm", "self_attn_layer_norm"}, {"mlp_norm", "final_layer_norm"}, {"self_attn.o_proj", "self_attn.out_proj"}, \
        {"mlp.up_proj", "fc1"}, {"mlp.down_proj", "fc2"}
static const sw_rename opt_names[] = {LAYER, {"model.", "model.decoder."}, {"model.norm", "model.decoder.final_layer_norm"},
                                      {"model.layers", "model.decoder.layers"}, {0}};
static const sw_rename xglm_names[] = {LAYER, {"model.norm", "model.layer_norm"}, {0}};

#define FAIRSEQ .norm = {.kind = SW_NORM_LAYER, .bias = true}, .plain_mlp = true, .tied = true, .position_offset = 2

const sw_family sw_family_opt[] = {
    {.name = "opt", .architectures = SW_NAMES("OPTForCausalLM", "OPTForSequenceClassification"), .model_types = SW_NAMES("opt"), .no_word_classes = true,
     .spec = {FAIRSEQ, .act = SW_ACT_RELU, .positions = SW_POSITIONS_LEARNED}, .read = read_opt, .names = opt_names},
    {.name = "xglm", .architectures = SW_NAMES("XGLMForCausalLM"), .model_types = SW_NAMES("xglm"),
     .spec = {FAIRSEQ, .act = SW_ACT_GELU, .positions = SW_POSITIONS_SINUSOIDAL, .q_bias = true, .k_bias = true, .v_bias = true,
              .o_bias = true, .mlp_bias = true, .down_bias = true},
     .read = read_xglm, .names = xglm_names},
    {0}};
