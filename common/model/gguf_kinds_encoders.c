/* GGUF's descriptions of encoders, and of decoders behind one (gguf_map.h). */
#include "model/gguf_rows.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- BERT. What RoBERTa's files hold differs in the names of tensors, and in rows of the table of positions that nobody reads:
 * they come back as BERT's. */

static int bert_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)arch;
    const sw_entry *types = sw_gguf_tensor(g, "token_types.weight"), *places = sw_gguf_tensor(g, "position_embd.weight");
    set_number(config, "type_vocab_size", types && types->t.ndim == 2 ? (double)types->t.shape[0] : 0);
    if (places && places->t.ndim == 2)
        set_number(config, "max_position_embeddings", (double)places->t.shape[0]);
    return 0;
}

static int bert_keys(sw_gguf_writer *w, const char *arch, const sw_spec *s, const sw_checkpoint *c)
{
    (void)arch, (void)c;
    sw_gguf_put_u32(w, "tokenizer.ggml.token_type_count", (uint32_t)SW_MAX(s->token_types, 1)); /* readers refuse none */
    return 0;
}

/* Queries, keys and values in one; nothing but embeddings. */
static int turning_keys(sw_gguf_writer *w, const char *arch, const sw_spec *s, const sw_checkpoint *c)
{
    return s->task == SW_TASK_CLASSIFY ? sw_fail("GGUF's %s has no place for a classification head", arch) : bert_keys(w, arch, s, c);
}

static int turning_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    const sw_entry *types = sw_gguf_tensor(g, "token_types.weight");
    (void)arch;
    set_number(config, "type_vocab_size", types && types->t.ndim == 2 ? (double)types->t.shape[0] : 0);
    return 0;
}

#define TURNING_WORDS WORDS("num_key_value_heads", "", "head_dim", "", "attention_bias", "", "mlp_bias", "")

#define BERT(family_)                                                                                                   \
    {.arch = "bert", .family = family_, .flags = SW_GGUF_ENCODER | SW_GGUF_NO_TURN | SW_GGUF_BIASES,                    \
     .words = WORDS("num_key_value_heads", "", "head_dim", "", "attention_bias", "", "mlp_bias", ""),                   \
     .to_config = bert_config, .from_config = bert_keys}

/* ---- ModernBERT and EmbeddingGemma: windows to both sides, and how often a layer has none */

GET(both_sides, s->window ? 2 * (double)(s->window - 1) : NAN)
GET(local_theta, s->rope[1].theta)

GET(every_from_first, sw_gguf_period(s, true))
GET(every_last, sw_gguf_period(s, false))

static int modern_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    char key[128];
    int64_t pooling;
    snprintf(key, sizeof key, "%s.hidden_activation", arch);
    sw_span act = sw_gguf_str(g, key);
    if (act.n) {
        char *name = sw_strndup(act.at, act.n);
        set_text(config, "hidden_activation", name);
        free(name);
    }
    snprintf(key, sizeof key, "%s.classifier.pooling_type", arch);
    if (sw_gguf_i64(g, key, 0, 4, 1, &pooling))
        return -1;
    if (pooling != 1 && pooling != 2)
        return sw_fail("\"%s\": %lld is neither 1, the mean, nor 2, the first token", key, (long long)pooling);
    set_text(config, "classifier_pooling", pooling == 1 ? "mean" : "cls");
    if (!sw_json_get(config, "global_attn_every_n_layers"))
        set_number(config, "global_attn_every_n_layers", 3);
    if (!sw_json_get(config, "local_rope_theta"))
        set_number(config, "local_rope_theta", 10000);
    return 0;
}

static int modern_keys(sw_gguf_writer *w, const char *arch, const sw_spec *s, const sw_checkpoint *c)
{
    char key[128];
    (void)c;
    if (s->act != SW_ACT_GELU && s->act != SW_ACT_SILU)
        return sw_fail("GGUF's %s has no place for another activation than gelu and silu", arch);
    if (s->task == SW_TASK_CLASSIFY && (s->head_hidden_bias || s->head_act != SW_ACT_GELU))
        return sw_fail("GGUF's %s has no place for a head with this bias or activation", arch);
    snprintf(key, sizeof key, "%s.hidden_activation", arch);
    sw_gguf_put_str(w, key, sw_act_name(s->act), strlen(sw_act_name(s->act)));
    snprintf(key, sizeof key, "%s.classifier.pooling_type", arch);
    if (s->task == SW_TASK_CLASSIFY)
        sw_gguf_put_u32(w, key, s->pooling == SW_POOL_MEAN ? 1 : 2);
    return 0;
}

static int gemma_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    set_text(config, "model_type", "gemma3_text");
    set_bool(config, "use_bidirectional_attention", true);
    const cJSON *head = sw_json_get(config, "head_dim");
    set_number(config, "query_pre_attn_scalar", cJSON_IsNumber(head) ? head->valuedouble : 256);
    return 0;
}

/* ---- T5 */

GET(encoder_layers, (double)s->encoder_layers)
GET(decoder_layers, (double)(s->layers - s->encoder_layers))
GET(buckets, (double)s->buckets)
GET(start, (double)s->decoder_start)

static void t5_ffn(const sw_gguf *g, cJSON *config)
{
    set_text(config, "feed_forward_proj", sw_gguf_tensor(g, "enc.blk.0.ffn_gate.weight") ? "gated-gelu" : "relu");
}

static int t5_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)arch;
    t5_ffn(g, config);
    set_bool(config, "scale_decoder_outputs", cJSON_IsTrue(sw_json_get(config, "tie_word_embeddings")));
    return 0;
}

static int t5_encoder_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)arch;
    t5_ffn(g, config);
    set_text(config, "model_type", has(g, ".1.attn_rel_b.weight") ? "umt5" : "t5");
    return 0;
}

#define T5_WORDS                                                                                                        \
    WORDS("hidden_size", "d_model", "num_hidden_layers", "num_layers", "num_attention_heads", "num_heads", "num_key_value_heads", "", \
          "head_dim", "d_kv", "intermediate_size", "d_ff", "max_position_embeddings", "n_positions", "rms_norm_eps",    \
          "layer_norm_epsilon", "layer_norm_eps", "", "attention_bias", "", "mlp_bias", "", "hidden_act", "")
#define T5_BUCKETS COUNT("attention.relative_buckets_count", "relative_attention_num_buckets", buckets)

#define T5(family_, sign_)                                                                                              \
    {.arch = "t5", .family = family_, .sign = sign_, .flags = SW_GGUF_NO_TURN,                                          \
     .names = ROWS(SW_GGUF_MODULE("attn_o", "self_attn.o_proj"), SW_GGUF_MODULE("dec.output_norm", "model.norm")),      \
     .more = ROWS(SW_GGUF_MODULE("enc.output_norm", "model.encoder_norm"), SW_GGUF_MODULE("attn_rel_b", "self_attn.distances"), \
                  SW_GGUF_MODULE("cross_attn_norm", "cross_norm"), SW_GGUF_MODULE("cross_attn_q", "cross_attn.q_proj"), \
                  SW_GGUF_MODULE("cross_attn_k", "cross_attn.k_proj"), SW_GGUF_MODULE("cross_attn_v", "cross_attn.v_proj"), \
                  SW_GGUF_MODULE("cross_attn_o", "cross_attn.o_proj")),                                                 \
     .keys = KEYS(COUNT("block_count", "num_hidden_layers", encoder_layers), COUNT("decoder_block_count", "num_decoder_layers", decoder_layers), \
                  T5_BUCKETS, COUNT("decoder_start_token_id", "decoder_start_token_id", start)),                        \
     .words = T5_WORDS, .to_config = t5_config}

#define T5_ENCODER(family_, sign_)                                                                                      \
    {.arch = "t5encoder", .family = family_, .sign = sign_, .flags = SW_GGUF_NO_TURN | SW_GGUF_ENCODER | SW_GGUF_ENCODER_ALONE, \
     .names = ROWS(SW_GGUF_MODULE("attn_o", "self_attn.o_proj"), SW_GGUF_MODULE("enc.output_norm", "model.norm")),      \
     .more = ROWS(SW_GGUF_MODULE("attn_rel_b", "self_attn.distances")), .keys = KEYS(T5_BUCKETS), .words = T5_WORDS,   \
     .to_config = t5_encoder_config}

const sw_gguf_kind sw_gguf_kinds_encoders[] = {
    BERT("bert"),
    BERT("roberta"),
    BERT("distilbert"),
    {.arch = "nomic-bert", .family = "nomic_bert", .flags = SW_GGUF_ENCODER | SW_GGUF_QKV, .words = TURNING_WORDS, .to_config = turning_config,
     .from_config = turning_keys},
    {.arch = "jina-bert-v3", .family = "jina_embeddings_v3", .flags = SW_GGUF_ENCODER | SW_GGUF_QKV | SW_GGUF_BIASES, .words = TURNING_WORDS,
     .to_config = turning_config, .from_config = turning_keys},
    {.arch = "eurobert", .family = "eurobert", .flags = SW_GGUF_ENCODER, .from_config = turning_keys},
    {.arch = "modern-bert", .family = "modernbert", .flags = SW_GGUF_ENCODER | SW_GGUF_QKV | SW_GGUF_GATE_UP | SW_GGUF_WINDOWS,
     .keys = KEYS(COUNT("attention.sliding_window", "local_attention", both_sides),
                  COUNT("attention.sliding_window_pattern", "global_attn_every_n_layers", every_from_first),
                  SPEC("rope.freq_base_swa", "local_rope_theta", local_theta)),
     .words = WORDS("rope_theta", "global_rope_theta", "layer_norm_eps", "norm_eps", "num_key_value_heads", "", "head_dim", "", "hidden_act", ""),
     .to_config = modern_config, .from_config = modern_keys},
    {.arch = "gemma-embedding", .family = "gemma3_embedding", .flags = SW_GGUF_ENCODER | SW_GGUF_NORMS_FROM_ONE | SW_GGUF_WINDOWS,
     .keys = KEYS(COUNT("attention.sliding_window", "sliding_window", both_sides),
                  COUNT("attention.sliding_window_pattern", "_sliding_window_pattern", every_last),
                  SPEC("rope.freq_base_swa", "rope_local_base_freq", local_theta)),
     .to_config = gemma_config},
    T5("umt5", ".1.attn_rel_b.weight"),
    T5("t5", NULL),
    T5("mt5", NULL),
    T5_ENCODER("umt5_encoder", ".1.attn_rel_b.weight"),
    T5_ENCODER("t5_encoder", NULL),
    T5_ENCODER("mt5_encoder", NULL),
    {0}};
