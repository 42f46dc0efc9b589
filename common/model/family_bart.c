/* BART (Lewis et al. 2019, arXiv 1910.13461): an encoder and a decoder as the first transformers, norms behind the residuals,
 * learned positions of their own. */
#include "model/family.h"

#include "base/json.h"

#include <limits.h>
#include <math.h>

#define LAYERS(stack)                                                                                                   \
    {"model.layers", "model." stack ".layers"}, {"attn_norm", "self_attn_layer_norm"}, {"mlp_norm", "final_layer_norm"}, \
        {"self_attn.o_proj", "self_attn.out_proj"}, {"mlp.up_proj", "fc1"}, {"mlp.down_proj", "fc2"}
static const sw_rename decoder_names[] = {
    LAYERS("decoder"), {"cross_norm", "encoder_attn_layer_norm"}, {"cross_attn.o_proj", "encoder_attn.out_proj"}, {"cross_attn.", "encoder_attn."},
    {"model.embed_tokens", "model.shared"}, {"model.embed_positions", "model.decoder.embed_positions"},
    {"model.encoder_positions", "model.encoder.embed_positions"}, {"model.embed_norm", "model.decoder.layernorm_embedding"},
    {"model.encoder_embed_norm", "model.encoder.layernorm_embedding"}, {"lm_head.bias", "final_logits_bias"}, {0}};
static const sw_rename encoder_names[] = {LAYERS("encoder"), {0}};

static int read_bart(sw_spec *s, const cJSON *config)
{
    int64_t decoder, start;
    bool scaled, is_decoder;
    if (sw_json_i64(config, "encoder_layers", 1, 4096, 12, &s->encoder_layers) || sw_json_i64(config, "decoder_layers", 1, 4096, 12, &decoder) ||
        sw_json_i64(config, "encoder_attention_heads", 1, 1 << 16, 16, &s->heads) || sw_json_i64(config, "encoder_ffn_dim", 1, 1 << 24, 4096, &s->mlp) ||
        sw_json_bool(config, "scale_embedding", false, &scaled) || sw_json_bool(config, "is_decoder", false, &is_decoder) ||
        sw_json_i64(config, "decoder_start_token_id", 0, INT_MAX, 2, &start))
        return -1;
    if (is_decoder)
        return sw_fail("\"is_decoder\": must be false; this architecture is an encoder and a decoder");
    if (s->hidden % s->heads)
        return sw_fail("\"encoder_attention_heads\": %lld heads do not share \"d_model\", %lld, evenly", (long long)s->heads, (long long)s->hidden);
    if (start >= s->vocab)
        return sw_fail("\"decoder_start_token_id\": %lld is not below the vocabulary's size, %lld", (long long)start, (long long)s->vocab);
    s->decoder_start = (int32_t)start;
    s->layers = s->encoder_layers + decoder;
    s->kv_heads = s->heads;
    s->head_dim = s->hidden / s->heads;
    s->embedding_scale = scaled ? sqrt((double)s->hidden) : 0;
    return 0;
}

/* The two may differ in their sizes. */
static int bart_layers(sw_spec *s, const cJSON *config)
{
    int64_t heads, mlp;
    if (sw_json_i64(config, "decoder_attention_heads", 1, 1 << 16, 16, &heads) || sw_json_i64(config, "decoder_ffn_dim", 1, 1 << 24, 4096, &mlp))
        return -1;
    if (s->hidden % heads)
        return sw_fail("\"decoder_attention_heads\": %lld heads do not share \"d_model\", %lld, evenly", (long long)heads, (long long)s->hidden);
    for (int64_t i = 0; i < s->layers; i++) {
        sw_layer *l = &s->layer[i];
        l->bidirectional = i < s->encoder_layers;
        if (l->bidirectional)
            continue;
        l->cross = &sw_mixer_cross;
        l->heads = l->kv_heads = heads;
        l->head_dim = l->value_dim = s->hidden / heads;
        l->attention_scale = 1 / sqrt((double)l->head_dim);
        l->mlp = mlp;
    }
    return 0;
}

const sw_family sw_family_bart[] = {
    {.name = "bart", .architectures = SW_NAMES("BartForConditionalGeneration"), .model_types = SW_NAMES("bart"),
     .spec = {.norm = {.kind = SW_NORM_LAYER, .bias = true, .eps = 1e-5}, .norm_place = SW_RESIDUAL_NORM, .no_final_norm = true, .embed_norm = true,
              .positions = SW_POSITIONS_LEARNED, .position_offset = 2, .q_bias = true, .k_bias = true, .v_bias = true, .o_bias = true,
              .mlp_bias = true, .down_bias = true, .plain_mlp = true, .act = SW_ACT_GELU, .tied = true, .file_ties = true, .head_row_bias = true},
     .read = read_bart, .layers = bart_layers, .names = decoder_names, .encoder_names = encoder_names,
     .same_embedding = SW_NAMES("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")},
    {0}};
