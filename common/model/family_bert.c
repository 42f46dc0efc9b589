/* Encoders after BERT (Devlin et al. 2018, arXiv 1810.04805): norms behind the residuals, learned positions, token types; and
 * ModernBERT (Warner et al. 2024, arXiv 2412.13663): norms before, rotation, windows to both sides. */
#include "model/family.h"

#include "base/json.h"

#include <math.h>
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
                                       {"score.hidden", "bert.pooler.dense"}, {"score", "classifier"}, {0}};
static const sw_rename roberta_names[] = {BODY("roberta"), {"lm_head.hidden", "lm_head.dense"}, {"lm_head.norm", "lm_head.layer_norm"},
                                          {"lm_head", "lm_head.decoder"}, {"score.hidden", "classifier.dense"},
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

/* ---- ModernBERT */

/* Published files name two bases; transformers 5 writes rope_parameters by the kind of layer, maybe without them. */
static int read_modern_rope(sw_spec *s, const cJSON *config)
{
    static const struct {
        const char *kind, *older;
    } ropes[] = {{"full_attention", "global_rope_theta"}, {"sliding_attention", "local_rope_theta"}};
    const cJSON *all = sw_json_get(config, "rope_parameters"), *scaling = sw_json_get(config, "rope_scaling");
    if (!all && scaling && sw_rope_read(&s->rope[1], scaling, NULL, &s->arena))
        return -1;
    for (int i = 0; i < 2; i++)
        if (!sw_json_get(sw_json_get(all, ropes[i].kind), "rope_theta") &&
            sw_json_f64(config, ropes[i].older, s->rope[i].theta, &s->rope[i].theta))
            return -1;
    if (!(s->rope[0].theta > 0) || !(s->rope[1].theta > 0))
        return sw_fail("\"global_rope_theta\" %g and \"local_rope_theta\" %g must be positive", s->rope[0].theta, s->rope[1].theta);
    return 0;
}

static int read_modern(sw_spec *s, const cJSON *config)
{
    const char *pooling;
    bool dense;
    if (sw_read_biases(s, config) || read_modern_rope(s, config) || sw_json_bool(config, "norm_bias", false, &s->norm.bias) ||
        sw_json_i64(config, "local_attention", 0, 1 << 30, 128, &s->window) || sw_json_bool(config, "classifier_bias", false, &dense) ||
        sw_json_bool(config, "decoder_bias", true, &s->head_bias) || sw_read_act(config, "hidden_activation", s->act, &s->act) ||
        sw_read_act(config, "classifier_activation", s->head_act, &s->head_act) ||
        sw_json_str(config, "classifier_pooling", "cls", &pooling))
        return -1;
    bool mean = !strcmp(pooling, "mean");
    if (!mean && strcmp(pooling, "cls"))
        return sw_fail("\"classifier_pooling\": '%s' is neither cls nor mean", pooling);
    s->pooling = mean || s->task == SW_TASK_EMBED ? SW_POOL_MEAN : SW_POOL_FIRST;
    s->window = s->window / 2 + 1; /* local_attention counts both sides */
    s->head_hidden = s->head_norm = true;
    s->head_hidden_bias = dense;
    s->head_bias |= s->task != SW_TASK_MASKED_LM;
    return 0;
}

/* Cut normal values, as its authors drew them: of the last layer by its width, of the one before by the depth. */
static int modern_head(const sw_spec *s, const cJSON *config, bool hidden, double *deviation, double *cut)
{
    if (sw_json_f64(config, "initializer_cutoff_factor", 2, cut))
        return -1;
    *deviation = hidden ? *deviation / sqrt(2 * (double)s->layers) : 1 / sqrt((double)s->hidden);
    return 0;
}

/* Without layer_types every so many layers, from the first on, see everything. The embedding's norm is the first layer's. */
static int modern_layers(sw_spec *s, const cJSON *config)
{
    int64_t every, i = 0;
    const cJSON *types = sw_json_get(config, "layer_types");
    for (const cJSON *t = types ? types->child : NULL; t; t = t->next, i++)
        if (strcmp(t->valuestring, "sliding_attention") && strcmp(t->valuestring, "full_attention"))
            return sw_fail("\"layer_types\": layer %lld is neither sliding_attention nor full_attention", (long long)i);
    if (sw_json_i64(config, "global_attn_every_n_layers", 1, 4096, 3, &every))
        return -1;
    for (i = 0; !types && i < s->layers; i++)
        if (i % every == 0) {
            s->layer[i].window = 0;
            s->layer[i].rope = 0;
        }
    s->layer[0].bare_mixer = true;
    return 0;
}

static const sw_rename modern_names[] = {{"model.embed_tokens", "model.embeddings.tok_embeddings"}, {"model.embed_norm", "model.embeddings.norm"},
                                         {"model.norm", "model.final_norm"}, {"attn_norm", "attn_norm"}, {"mlp_norm", "mlp_norm"},
                                         {"self_attn.qkv_proj", "attn.Wqkv"}, {"self_attn.o_proj", "attn.Wo"},
                                         {"mlp.gate_up_proj", "mlp.Wi"}, {"mlp.down_proj", "mlp.Wo"}, {"lm_head", "decoder"},
                                         {"lm_head.hidden", "head.dense"}, {"lm_head.norm", "head.norm"}, {"score", "classifier"},
                                         {"score.hidden", "head.dense"}, {"score.norm", "head.norm"}, {0}};

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
    {.name = "modernbert", .architectures = SW_NAMES(SW_ENCODER("ModernBert")), .model_types = SW_NAMES("modernbert"),
     .spec = {.norm = {.kind = SW_NORM_LAYER, .eps = 1e-5}, .embed_norm = true, .bidirectional = true, .packed = "qkv", .packed_mlp = true,
              .act = SW_ACT_GELU, .head_act = SW_ACT_GELU, .tied = true, .rope = {{.theta = 160000}, {.theta = 10000}}},
     .read = read_modern, .layers = modern_layers, .names = modern_names, .new_head = modern_head, .unread = SW_NAMES("head.", "decoder.")},
    {0}};
