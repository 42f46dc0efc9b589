/* Encoders after BERT (Devlin et al. 2018, arXiv 1810.04805): norms behind the residuals, learned positions, token types; and
 * ModernBERT (Warner et al. 2024, arXiv 2412.13663): norms before, rotation, windows to both sides. */
#include "model/encoder.h"

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

void sw_bert_heads(sw_spec *s, sw_act before_words, sw_act before_classes)
{
    s->head_hidden = s->task != SW_TASK_TOKENS;
    s->head_hidden_bias = s->head_bias = true;
    s->head_act = s->task == SW_TASK_MASKED_LM ? before_words : before_classes;
    s->head_norm = s->task == SW_TASK_MASKED_LM;
    s->pooling = s->task == SW_TASK_EMBED ? SW_POOL_MEAN : SW_POOL_FIRST;
}

int sw_bert_read(sw_spec *s, const cJSON *config, int64_t types)
{
    bool decoder;
    if (sw_json_bool(config, "is_decoder", false, &decoder) || sw_json_i64(config, "type_vocab_size", 0, 1 << 16, types, &s->token_types))
        return -1;
    return decoder ? sw_fail("\"is_decoder\": must be false; this architecture is run as an encoder") : 0;
}

int sw_bert_positions(sw_spec *s)
{
    s->position_offset = (s->pad < 0 ? 1 : s->pad) + 1;
    s->max_position -= s->position_offset;
    return s->max_position < 1 ? sw_fail("\"max_position_embeddings\": %lld leaves no place behind the %lld of padding",
                                         (long long)(s->max_position + s->position_offset), (long long)s->position_offset)
                               : 0;
}

/* Positions are a table; other kinds that some configurations name are not known. */
static int read_learned(sw_spec *s, const cJSON *config)
{
    const char *kind;
    if (sw_bert_read(s, config, 2) || sw_json_str(config, "position_embedding_type", "absolute", &kind))
        return -1;
    return strcmp(kind, "absolute") ? sw_fail("\"position_embedding_type\": '%s' is not known; known is absolute", kind) : 0;
}

static int read_bert(sw_spec *s, const cJSON *config)
{
    sw_bert_heads(s, s->act, SW_ACT_TANH);
    return read_learned(s, config);
}

static int read_roberta(sw_spec *s, const cJSON *config)
{
    sw_bert_heads(s, SW_ACT_GELU, SW_ACT_TANH);
    if (s->task == SW_TASK_TOKENS)
        s->names = roberta_tokens;
    return read_learned(s, config) || sw_bert_positions(s) ? -1 : 0;
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

#define SPEC SW_BERT_NORMS, SW_BERT_ATTENTION_BIASES, SW_BERT_MLP, .act = SW_ACT_GELU, .positions = SW_POSITIONS_LEARNED

const sw_family sw_family_bert[] = {
    {.name = "bert", .architectures = SW_NAMES(SW_ENCODER("Bert"), "BertForPreTraining"), .model_types = SW_NAMES("bert"),
     .spec = {SPEC}, .read = read_bert, .names = bert_names,
     .unread = SW_NAMES("cls.", "bert.pooler.", "pooler.", "bert.embeddings.position_ids", "embeddings.position_ids")},
    {.name = "roberta", .architectures = SW_NAMES(SW_ENCODER("Roberta"), SW_ENCODER("XLMRoberta"), SW_ENCODER("Camembert")),
     .model_types = SW_NAMES("roberta", "xlm-roberta", "camembert"), .spec = {SPEC}, .read = read_roberta, .names = roberta_names,
     .unread = SW_NAMES("lm_head.", "roberta.pooler.", "pooler.", "roberta.embeddings.position_ids", "embeddings.position_ids")},
    {.name = "modernbert", .architectures = SW_NAMES(SW_ENCODER("ModernBert")), .model_types = SW_NAMES("modernbert"),
     .spec = {.norm = {.kind = SW_NORM_LAYER, .eps = 1e-5}, .embed_norm = true, .bidirectional = true, .packed = "qkv", .packed_mlp = true,
              .act = SW_ACT_GELU, .head_act = SW_ACT_GELU, .tied = true, .rope = {{.theta = 160000}, {.theta = 10000}}},
     .read = read_modern, .layers = modern_layers, .names = modern_names, .new_head = modern_head, .unread = SW_NAMES("head.", "decoder.")},
    {0}};
