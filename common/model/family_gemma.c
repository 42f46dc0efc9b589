/* Gemma and its kin: norms that store their distance from one, scaled embeddings, tied heads. */
#include "model/family.h"

#include "base/json.h"

#include <math.h>

/* A number whose null means none, and whose absence means `missing`. */
static int read_cap(const cJSON *config, const char *key, double missing, double *out)
{
    return sw_json_f64(config, key, cJSON_HasObjectItem(config, key) ? 0 : missing, out);
}

static int read_gemma(sw_spec *s, const cJSON *config)
{
    s->embedding_scale = sqrt((double)s->hidden);
    if (!sw_json_get(config, "hidden_activation") && s->act == SW_ACT_GELU) /* the first files say gelu and mean its tanh form */
        s->act = SW_ACT_GELU_TANH;
    return sw_read_biases(s, config);
}

static int read_gemma2(sw_spec *s, const cJSON *config)
{
    double scalar;
    bool both;
    if (read_gemma(s, config) || sw_json_bool(config, "use_bidirectional_attention", false, &both) ||
        sw_json_f64(config, "query_pre_attn_scalar", 256, &scalar) ||
        read_cap(config, "attn_logit_softcapping", s->attention_softcap, &s->attention_softcap) ||
        read_cap(config, "final_logit_softcapping", s->logit_softcap, &s->logit_softcap) || sw_read_window(s, config))
        return -1;
    if (!(scalar > 0))
        return sw_fail("\"query_pre_attn_scalar\": %g is not positive", scalar);
    if (both && !s->bidirectional)
        return sw_fail("\"use_bidirectional_attention\": true makes an encoder of this decoder, which has no words to say");
    s->bidirectional = both;
    s->attention_scale = 1 / sqrt(scalar);
    return 0;
}

static int read_gemma3(sw_spec *s, const cJSON *config)
{
    double local;
    int64_t every;
    if (read_gemma2(s, config) || sw_json_i64(config, "_sliding_window_pattern", 1, 1 << 20, s->full_every, &every) ||
        sw_json_i64(config, "sliding_window_pattern", 1, 1 << 20, every, &s->full_every) ||
        sw_json_f64(config, "rope_local_base_freq", 10000, &local))
        return -1;
    s->attention_softcap = 0; /* configurations have a field for it that no layer reads */
    return sw_local_rope(s, local);
}

/* EmbeddingGemma: the body alone. Its window counts both sides, and bounds what is strictly nearer than half. */
static int read_embedding(sw_spec *s, const cJSON *config)
{
    if (read_gemma3(s, config))
        return -1;
    s->pooling = SW_POOL_MEAN;
    if (s->bidirectional && s->window)
        s->window = s->window / 2 + 1;
    return 0;
}

#define GEMMA .norm = {.offset = 1}, .tied = true, .act = SW_ACT_GELU_TANH
#define GEMMA3                                                                                                     \
    GEMMA, .vocab = 262208, .heads = 8, .kv_heads = 4, .head_dim = 256, .max_position = 131072, /* as files leave out */ \
        .norm_place = SW_SANDWICH_NORM, .window = 4096, .full_every = 6, .qk_norm = SW_QK_HEAD, .rope = {{.theta = 1e6}}
static const sw_rename body_names[] = {{"mlp_norm", "pre_feedforward_layernorm"}, {"model.embed_tokens", "embed_tokens"},
                                       {"model.layers", "layers"}, {"model.norm", "norm"}, {0}};
static const sw_rename sandwich_names[] = {{"mlp_norm", "pre_feedforward_layernorm"}, {0}};

const sw_family sw_family_gemma[] = {
    {.name = "gemma", .architectures = SW_NAMES("GemmaForCausalLM", "GemmaForSequenceClassification"), .model_types = SW_NAMES("gemma"),
     .spec = {GEMMA}, .read = read_gemma},
    {.name = "gemma2", .architectures = SW_NAMES("Gemma2ForCausalLM", "Gemma2ForSequenceClassification"), .model_types = SW_NAMES("gemma2"),
     .spec = {GEMMA, .norm_place = SW_SANDWICH_NORM, .window = 4096, .full_every = 2, .attention_softcap = 50, .logit_softcap = 30},
     .read = read_gemma2, .names = sandwich_names},
    {.name = "vaultgemma", .architectures = SW_NAMES("VaultGemmaForCausalLM"), .model_types = SW_NAMES("vaultgemma"),
     .spec = {GEMMA, .window = 512, .full_every = 2, .attention_softcap = 50, .logit_softcap = 30}, .read = read_gemma2,
     .names = sandwich_names},
    {.name = "gemma3_text", .architectures = SW_NAMES("Gemma3ForCausalLM", "Gemma3TextForSequenceClassification"), .no_word_classes = true,
     .model_types = SW_NAMES("gemma3_text"),
     .spec = {GEMMA3}, .read = read_gemma3, .names = sandwich_names},
    {.name = "gemma3_embedding", .architectures = SW_NAMES("Gemma3TextModel"), .spec = {GEMMA3, .bidirectional = true},
     .read = read_embedding, .names = body_names},
    {0}};
