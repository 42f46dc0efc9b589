/* T5 (Raffel et al. 2019, arXiv 1910.10683): an encoder reads the source, a decoder attends to what it made; or the encoder alone. Attention has
 * learned scores by distance and no scaling. T5 1.1 and FLAN-T5 have gates and a head of their own, mT5 (Xue et al. 2020,
 * arXiv 2010.11934) other words, UMT5 (Chung et al. 2023, arXiv 2304.09151) a table of distances in each layer. */
#include "model/family.h"

#include "base/json.h"

#include <limits.h>
#include <math.h>
#include <string.h>

/* The feed-forward is the last of a layer's parts: 2 in a decoder, 1 in an encoder. */
#define PARTS(stack, ffn, up)                                                                                           \
    {"model.layers", stack ".block"}, {"attn_norm", "layer.0.layer_norm"}, {"self_attn.q_proj", "layer.0.SelfAttention.q"}, \
        {"self_attn.k_proj", "layer.0.SelfAttention.k"}, {"self_attn.v_proj", "layer.0.SelfAttention.v"},               \
        {"self_attn.o_proj", "layer.0.SelfAttention.o"},                                                                \
        {"self_attn.distances", "layer.0.SelfAttention.relative_attention_bias"}, {"mlp_norm", "layer." ffn ".layer_norm"}, \
        {"mlp.gate_proj", "layer." ffn ".DenseReluDense.wi_0"}, {"mlp.up_proj", "layer." ffn ".DenseReluDense." up},    \
        {"mlp.down_proj", "layer." ffn ".DenseReluDense.wo"}
#define DECODER(up)                                                                                                     \
    {PARTS("decoder", "2", up), {"cross_norm", "layer.1.layer_norm"}, {"cross_attn.q_proj", "layer.1.EncDecAttention.q"}, \
     {"cross_attn.k_proj", "layer.1.EncDecAttention.k"}, {"cross_attn.v_proj", "layer.1.EncDecAttention.v"},            \
     {"cross_attn.o_proj", "layer.1.EncDecAttention.o"}, {"model.embed_tokens", "shared"},                              \
     {"model.norm", "decoder.final_layer_norm"}, {"model.encoder_norm", "encoder.final_layer_norm"}, {0}}
static const sw_rename plain_decoder[] = DECODER("wi"), gated_decoder[] = DECODER("wi_1");
static const sw_rename plain_encoder[] = {PARTS("encoder", "1", "wi"), {0}}, gated_encoder[] = {PARTS("encoder", "1", "wi_1"), {0}};
#define ALONE(up) {PARTS("encoder", "1", up), {"model.embed_tokens", "shared"}, {"model.norm", "encoder.final_layer_norm"}, {0}}
static const sw_rename plain_alone[] = ALONE("wi"), gated_alone[] = ALONE("wi_1");

/* feed_forward_proj: an activation, or gated- and one; gated-gelu is the tanh form. */
static int read_ffn(sw_spec *s, const cJSON *config, const char *missing)
{
    const char *name;
    if (sw_json_str(config, "feed_forward_proj", missing, &name))
        return -1;
    bool gated = sw_starts_with(name, "gated-");
    s->plain_mlp = !gated;
    if (s->family->spec.bidirectional)
        s->names = gated ? gated_alone : plain_alone;
    else {
        s->names = gated ? gated_decoder : plain_decoder;
        s->encoder_names = gated ? gated_encoder : plain_encoder;
    }
    cJSON *act = cJSON_CreateObject();
    cJSON_AddStringToObject(act, "feed_forward_proj", gated ? name + strlen("gated-") : name);
    int rc = sw_read_act(act, "feed_forward_proj", SW_ACT_RELU, &s->act);
    cJSON_Delete(act);
    if (!strcmp(name, "gated-gelu"))
        s->act = SW_ACT_GELU_TANH;
    return rc;
}

/* What encoders and decoders have alike. */
static int read_layers(sw_spec *s, const cJSON *config, const char *ffn)
{
    bool is_decoder;
    if (sw_json_i64(config, "d_kv", 1, 1 << 16, 64, &s->head_dim) || sw_json_i64(config, "d_ff", 1, 1 << 24, 0, &s->mlp) ||
        read_ffn(s, config, ffn) || sw_json_i64(config, "relative_attention_num_buckets", 4, 1 << 16, 32, &s->buckets) ||
        sw_json_i64(config, "relative_attention_max_distance", 1, 1 << 20, 128, &s->bucket_distance) ||
        sw_json_bool(config, "is_decoder", false, &is_decoder))
        return -1;
    if (is_decoder)
        return sw_fail("\"is_decoder\": must be false; this architecture is an encoder, with a decoder or without");
    if (s->bucket_distance <= s->buckets / 2)
        return sw_fail("\"relative_attention_max_distance\": %lld is not more than half of \"relative_attention_num_buckets\", %lld",
                       (long long)s->bucket_distance, (long long)s->buckets);
    s->kv_heads = s->heads;
    s->attention_scale = 1;
    return 0;
}

static int read_parts(sw_spec *s, const cJSON *config, const char *ffn)
{
    int64_t decoder, start;
    s->encoder_layers = s->layers;
    if (read_layers(s, config, ffn) || sw_json_i64(config, "num_decoder_layers", 1, 4096, s->layers, &decoder) ||
        sw_json_i64(config, "decoder_start_token_id", 0, INT_MAX, s->pad < 0 ? 0 : s->pad, &start))
        return -1;
    if (start >= s->vocab)
        return sw_fail("\"decoder_start_token_id\": %lld is not below the vocabulary's size, %lld", (long long)start, (long long)s->vocab);
    s->decoder_start = (int32_t)start;
    s->layers += decoder;
    return 0;
}

static int read_alone(sw_spec *s, const cJSON *config, const char *ffn)
{
    s->pooling = SW_POOL_MEAN;
    return read_layers(s, config, ffn);
}

static int read_t5_alone(sw_spec *s, const cJSON *config) { return read_alone(s, config, "relu"); }
static int read_mt5_alone(sw_spec *s, const cJSON *config) { return read_alone(s, config, "gated-gelu"); }

static int read(sw_spec *s, const cJSON *config, const char *ffn, bool scaled)
{
    if (sw_json_bool(config, "scale_decoder_outputs", scaled, &scaled) || read_parts(s, config, ffn))
        return -1;
    s->logit_scale = scaled ? 1 / sqrt((double)s->hidden) : 0;
    return 0;
}

/* What a tied head reads is scaled. Published files of later versions say that theirs is not tied; transformers 5 writes
 * that all are, and for T5 whether they scale. */
static int read_t5(sw_spec *s, const cJSON *config) { return read(s, config, "relu", s->tied); }
static int read_mt5(sw_spec *s, const cJSON *config) { return read(s, config, "gated-gelu", false); }
static int read_umt5(sw_spec *s, const cJSON *config) { return read(s, config, "gated-gelu", s->tied); }

static int layers(sw_spec *s, const cJSON *config)
{
    (void)config;
    for (int64_t i = 0; i < s->layers; i++) {
        s->layer[i].bidirectional = i < s->encoder_layers;
        s->layer[i].cross = i < s->encoder_layers ? NULL : &sw_mixer_cross;
    }
    return 0;
}

#define T5(which, kind, shared, reader)                                                                                 \
    {.name = kind, .architectures = SW_NAMES(which "ForConditionalGeneration", which "WithLMHeadModel"), .model_types = SW_NAMES(kind), \
     .spec = {.positions = SW_POSITIONS_NONE, .tied = true, .file_ties = true, .shared_buckets = shared}, .read = reader, .layers = layers, \
     .names = gated_decoder, .encoder_names = gated_encoder,                                                            \
     .same_embedding = SW_NAMES("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),                          \
     .unread = SW_NAMES("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.")}

#define T5_ALONE(which, name_, shared, reader)                                                                          \
    {.name = name_, .architectures = SW_NAMES(which "EncoderModel"),                                                    \
     .spec = {.positions = SW_POSITIONS_NONE, .bidirectional = true, .shared_buckets = shared}, .read = reader, .names = gated_alone, \
     .same_embedding = SW_NAMES("encoder.embed_tokens.weight"), .unread = SW_NAMES("decoder.", "lm_head.")}

const sw_family sw_family_t5[] = {T5("T5", "t5", true, read_t5), T5("MT5", "mt5", true, read_mt5), T5("UMT5", "umt5", false, read_umt5),
                                  T5_ALONE("T5", "t5_encoder", true, read_t5_alone), T5_ALONE("MT5", "mt5_encoder", true, read_mt5_alone),
                                  T5_ALONE("UMT5", "umt5_encoder", false, read_mt5_alone), {0}};
