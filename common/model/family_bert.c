/* Encoders after BERT (Devlin et al. 2018, arXiv 1810.04805): norms behind the residuals, learned positions, token types. */
#include "model/family.h"

#include "base/json.h"

#include <string.h>

#define LAYER                                                                                                           \
    {"attn_norm", "attention.output.LayerNorm"}, {"mlp_norm", "output.LayerNorm"}, {"self_attn.q_proj", "attention.self.query"}, \
        {"self_attn.k_proj", "attention.self.key"}, {"self_attn.v_proj", "attention.self.value"},                       \
        {"self_attn.o_proj", "attention.output.dense"}, {"mlp.up_proj", "intermediate.dense"}, {"mlp.down_proj", "output.dense"}
#define BODY(prefix)                                                                                                    \
    LAYER, {"model.embed_tokens", prefix ".embeddings.word_embeddings"},                                                \
        {"model.embed_positions", prefix ".embeddings.position_embeddings"},                                            \
        {"model.embed_types", prefix ".embeddings.token_type_embeddings"}, {"model.embed_norm", prefix ".embeddings.LayerNorm"}, \
        {"model.layers", prefix ".encoder.layer"}
static const sw_rename bert_names[] = {BODY("bert"), {"lm_head.hidden", "cls.predictions.transform.dense"},
                                       {"lm_head.norm", "cls.predictions.transform.LayerNorm"}, {"lm_head", "cls.predictions.decoder"},
                                       {"lm_head.bias", "cls.predictions.bias"}, {"score.hidden", "bert.pooler.dense"},
                                       {"score", "classifier"}, {0}};
#define ROBERTA_WORDS                                                                                                   \
    {"lm_head.hidden", "lm_head.dense"}, {"lm_head.norm", "lm_head.layer_norm"}, {"lm_head", "lm_head.decoder"}, {"lm_head.bias", "lm_head.bias"}
static const sw_rename roberta_names[] = {BODY("roberta"), ROBERTA_WORDS, {"score.hidden", "classifier.dense"},
                                          {"score", "classifier.out_proj"}, {0}};
static const sw_rename roberta_tokens[] = {BODY("roberta"), {"score", "classifier"}, {0}};

/* Heads that all of this line have in common: one more layer before the words, and a pooled first token before classes. */
static void heads(sw_spec *s, sw_act before_words)
{
    s->head_hidden = s->task != SW_TASK_TOKENS;
    s->head_hidden_bias = s->head_bias = true;
    s->head_act = s->task == SW_TASK_MASKED_LM ? before_words : SW_ACT_TANH;
    s->head_norm = s->task == SW_TASK_MASKED_LM;
    s->pooling = s->task == SW_TASK_EMBED ? SW_POOL_MEAN : SW_POOL_FIRST;
}

static int read_encoder(sw_spec *s, const cJSON *config)
{
    bool decoder;
    const char *kind;
    if (sw_json_bool(config, "is_decoder", false, &decoder) || sw_json_str(config, "position_embedding_type", "absolute", &kind) ||
        sw_json_i64(config, "type_vocab_size", 0, 1 << 16, 2, &s->token_types))
        return -1;
    if (decoder)
        return sw_fail("\"is_decoder\": must be false; this architecture is run as an encoder");
    if (strcmp(kind, "absolute"))
        return sw_fail("\"position_embedding_type\": '%s' is not known; known is absolute", kind);
    return 0;
}

static int read_bert(sw_spec *s, const cJSON *config)
{
    if (read_encoder(s, config))
        return -1;
    heads(s, s->act);
    return 0;
}

/* Positions begin behind the padding token's id, and the table counts the rows before them. */
static int read_roberta(sw_spec *s, const cJSON *config)
{
    if (read_encoder(s, config))
        return -1;
    s->position_offset = (s->pad < 0 ? 1 : s->pad) + 1;
    s->max_position -= s->position_offset;
    if (s->max_position < 1)
        return sw_fail("\"max_position_embeddings\": %lld leaves no place behind the %lld of padding",
                       (long long)(s->max_position + s->position_offset), (long long)s->position_offset);
    heads(s, SW_ACT_GELU);
    if (s->task == SW_TASK_TOKENS)
        s->names = roberta_tokens;
    return 0;
}

#define ENCODER                                                                                                         \
    .norm = {.kind = SW_NORM_LAYER, .bias = true, .eps = 1e-12}, .norm_place = SW_RESIDUAL_NORM, .no_final_norm = true,  \
    .embed_norm = true, .positions = SW_POSITIONS_LEARNED, .bidirectional = true, .q_bias = true, .k_bias = true, .v_bias = true, \
    .o_bias = true, .mlp_bias = true, .down_bias = true, .plain_mlp = true, .act = SW_ACT_GELU, .tied = true

const sw_family sw_family_bert[] = {
    {.name = "bert", .architectures = SW_NAMES(SW_ENCODER("Bert"), "BertForPreTraining"), .model_types = SW_NAMES("bert"),
     .spec = {ENCODER}, .read = read_bert, .names = bert_names,
     .unread = SW_NAMES("cls.", "bert.pooler.", "pooler.", "bert.embeddings.position_ids", "embeddings.position_ids")},
    {.name = "roberta", .architectures = SW_NAMES(SW_ENCODER("Roberta"), SW_ENCODER("XLMRoberta"), SW_ENCODER("Camembert")),
     .model_types = SW_NAMES("roberta", "xlm-roberta", "camembert"), .spec = {ENCODER}, .read = read_roberta, .names = roberta_names,
     .unread = SW_NAMES("lm_head.", "roberta.pooler.", "pooler.", "roberta.embeddings.position_ids", "embeddings.position_ids")},
    {0}};
