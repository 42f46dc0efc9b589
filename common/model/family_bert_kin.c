/* BERT's kin with positions of their own kind in tables: DistilBERT (Sanh et al. 2019, arXiv 1910.01108), MPNet (Song et al. 2020,
 * arXiv 2004.09297: scores by distance, too), ELECTRA (Clark et al. 2020, arXiv 2003.10555) and ALBERT (Lan et al. 2019,
 * arXiv 1909.11942), whose embeddings are narrow and whose layers are one. */
#include "model/encoder.h"
#include "model/model.h"

#include "base/json.h"

#include <string.h>

#define EMBEDDINGS(prefix)                                                                                              \
    {"model.embed_tokens", prefix ".embeddings.word_embeddings"}, {"model.embed_positions", prefix ".embeddings.position_embeddings"}, \
        {"model.embed_types", prefix ".embeddings.token_type_embeddings"}, {"model.embed_norm", prefix ".embeddings.LayerNorm"}
#define AFTER {"mlp.up_proj", "intermediate.dense"}, {"mlp.down_proj", "output.dense"}, {"mlp_norm", "output.LayerNorm"}

/* ---- DistilBERT: no types of tokens, and norms with a fixed eps */

static int read_distil(sw_spec *s, const cJSON *config)
{
    (void)config;
    sw_bert_heads(s, s->act, SW_ACT_RELU);
    return 0;
}

static const sw_rename distil_names[] = {
    EMBEDDINGS("distilbert"), {"model.layers", "distilbert.transformer.layer"}, {"self_attn.q_proj", "attention.q_lin"},
    {"self_attn.k_proj", "attention.k_lin"}, {"self_attn.v_proj", "attention.v_lin"}, {"self_attn.o_proj", "attention.out_lin"},
    {"attn_norm", "sa_layer_norm"}, {"mlp.up_proj", "ffn.lin1"}, {"mlp.down_proj", "ffn.lin2"}, {"mlp_norm", "output_layer_norm"},
    {"lm_head.hidden", "vocab_transform"}, {"lm_head.norm", "vocab_layer_norm"}, {"lm_head", "vocab_projector"},
    {"score.hidden", "pre_classifier"}, {"score", "classifier"}, {0}};

/* ---- MPNet */

#define MPNET_BODY                                                                                                      \
    EMBEDDINGS("mpnet"), AFTER, {"model.layers", "mpnet.encoder.layer"}, {"self_attn.q_proj", "attention.attn.q"},       \
        {"self_attn.k_proj", "attention.attn.k"}, {"self_attn.v_proj", "attention.attn.v"}, {"self_attn.o_proj", "attention.attn.o"}, \
        {"attn_norm", "attention.LayerNorm"}, {"self_attn.distances", "/mpnet.encoder.relative_attention_bias"}
static const sw_rename mpnet_names[] = {MPNET_BODY, {"lm_head.hidden", "lm_head.dense"}, {"lm_head.norm", "lm_head.layer_norm"},
                                        {"lm_head", "lm_head.decoder"}, {"score.hidden", "classifier.dense"}, {"score", "classifier.out_proj"}, {0}};
static const sw_rename mpnet_tokens[] = {MPNET_BODY, {"score", "classifier"}, {0}};

/* The padding token's id is 1 and there are 32 ranges of distances, whatever the configuration says. */
static int read_mpnet(sw_spec *s, const cJSON *config)
{
    if (sw_json_i64(config, "relative_attention_num_buckets", 1, 1 << 16, 32, &s->buckets))
        return -1;
    if (s->buckets != 32 || s->pad != 1)
        return sw_fail("\"relative_attention_num_buckets\" must be 32 and \"pad_token_id\" 1, as published code has them");
    s->bucket_distance = 128;
    sw_bert_heads(s, SW_ACT_GELU, SW_ACT_TANH);
    if (s->task == SW_TASK_TOKENS)
        s->names = mpnet_tokens;
    return sw_bert_positions(s);
}

/* ---- ELECTRA and ALBERT */

static int read_narrow(sw_spec *s, const cJSON *config)
{
    s->embed_whole = true;
    return sw_bert_read(s, config, 2) || sw_json_i64(config, "embedding_size", 1, 1 << 20, 128, &s->embed_dim) ? -1 : 0;
}

static const char *class_of(const cJSON *config)
{
    const cJSON *list = sw_json_get(config, "architectures");
    return cJSON_IsArray(list) && cJSON_IsString(list->child) ? list->child->valuestring : "";
}

#define ELECTRA_BODY                                                                                                    \
    EMBEDDINGS("electra"), AFTER, {"model.project_in", "electra.embeddings_project"}, {"model.layers", "electra.encoder.layer"}, \
        {"self_attn.q_proj", "attention.self.query"}, {"self_attn.k_proj", "attention.self.key"}, {"self_attn.v_proj", "attention.self.value"}, \
        {"self_attn.o_proj", "attention.output.dense"}, {"attn_norm", "attention.output.LayerNorm"}
static const sw_rename electra_names[] = {ELECTRA_BODY, {"lm_head.hidden", "generator_predictions.dense"},
                                          {"lm_head.norm", "generator_predictions.LayerNorm"}, {"lm_head", "generator_lm_head"},
                                          {"score.hidden", "classifier.dense"}, {"score", "classifier.out_proj"}, {0}};
static const sw_rename electra_tokens[] = {ELECTRA_BODY, {"score", "classifier"}, {0}};

static int read_electra(sw_spec *s, const cJSON *config)
{
    if (sw_ends_with(class_of(config), "ForPreTraining"))
        return sw_fail("\"architectures\": ElectraForPreTraining tells replaced tokens, which is not run here; its body serves "
                       "ElectraModel, ElectraForSequenceClassification and ElectraForTokenClassification");
    if (read_narrow(s, config))
        return -1;
    sw_bert_heads(s, SW_ACT_GELU, SW_ACT_GELU);
    if (s->task == SW_TASK_TOKENS)
        s->names = electra_tokens;
    if (s->embed_dim == s->hidden) /* nothing to project, then */
        s->embed_dim = 0;
    return 0;
}

static int read_albert(sw_spec *s, const cJSON *config)
{
    int64_t groups, inner;
    if (read_narrow(s, config) || sw_json_i64(config, "num_hidden_groups", 1, 4096, 1, &groups) ||
        sw_json_i64(config, "inner_group_num", 1, 4096, 1, &inner))
        return -1;
    if (groups != 1 || inner != 1)
        return sw_fail("\"num_hidden_groups\" and \"inner_group_num\" must be 1, as published models have them");
    sw_bert_heads(s, s->act, SW_ACT_TANH);
    return 0;
}

/* All layers are the first, which holds the tensors. */
static void declare_nothing(sw_builder *b, void *self) { (void)b, (void)self; }

static sw_var *forward_first(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    const sw_block *first = p->model->blocks;
    sw_block *own = sw_ctx_alloc(c, sizeof *own);
    sw_pass *q = sw_ctx_alloc(c, sizeof *q);
    (void)self;
    *own = *p->block;
    own->mixer = first->mixer;
    own->ffn = first->ffn;
    *q = *p;
    q->block = own;
    return sw_block_standard.forward(c, first->self, q, x);
}

static const sw_block_ops block_first = {1, declare_nothing, forward_first};

static int albert_layers(sw_spec *s, const cJSON *config)
{
    (void)config;
    for (int64_t i = 1; i < s->layers; i++)
        s->layer[i].block = &block_first;
    return 0;
}

static const sw_rename albert_names[] = {
    EMBEDDINGS("albert"), {"model.project_in", "albert.encoder.embedding_hidden_mapping_in"}, {"model.layers", "albert.encoder.albert_layer_groups"},
    {"self_attn.q_proj", "albert_layers.0.attention.query"}, {"self_attn.k_proj", "albert_layers.0.attention.key"},
    {"self_attn.v_proj", "albert_layers.0.attention.value"}, {"self_attn.o_proj", "albert_layers.0.attention.dense"},
    {"attn_norm", "albert_layers.0.attention.LayerNorm"}, {"mlp.up_proj", "albert_layers.0.ffn"}, {"mlp.down_proj", "albert_layers.0.ffn_output"},
    {"mlp_norm", "albert_layers.0.full_layer_layer_norm"}, {"lm_head.hidden", "predictions.dense"}, {"lm_head.norm", "predictions.LayerNorm"},
    {"lm_head", "predictions.decoder"}, {"score.hidden", "albert.pooler"}, {"score", "classifier"}, {0}};

#define SPEC SW_BERT_NORMS, SW_BERT_ATTENTION_BIASES, SW_BERT_MLP, .positions = SW_POSITIONS_LEARNED

const sw_family sw_family_bert_kin[] = {
    {.name = "distilbert", .architectures = SW_NAMES(SW_ENCODER("DistilBert")), .model_types = SW_NAMES("distilbert"), .spec = {SPEC, .act = SW_ACT_GELU},
     .read = read_distil, .names = distil_names, .unread = SW_NAMES("vocab_", "pre_classifier.", "classifier.")},
    {.name = "mpnet", .architectures = SW_NAMES(SW_ENCODER("MPNet")), .model_types = SW_NAMES("mpnet"), .spec = {SPEC, .act = SW_ACT_GELU, .shared_buckets = true},
     .read = read_mpnet, .names = mpnet_names, .unread = SW_NAMES("lm_head.", "classifier.", "mpnet.pooler.", "pooler.", "embeddings.position_ids")},
    {.name = "electra", .architectures = SW_NAMES(SW_ENCODER("Electra"), "ElectraForPreTraining"), .model_types = SW_NAMES("electra"), .spec = {SPEC, .act = SW_ACT_GELU},
     .read = read_electra, .names = electra_names,
     .unread = SW_NAMES("classifier.", "generator_predictions.", "generator_lm_head.", "discriminator_predictions.", "electra.embeddings.position_ids")},
    {.name = "albert", .architectures = SW_NAMES(SW_ENCODER("Albert"), "AlbertForPreTraining"), .model_types = SW_NAMES("albert"),
     .spec = {SPEC, .act = SW_ACT_GELU_TANH}, .read = read_albert, .layers = albert_layers, .names = albert_names,
     .unread = SW_NAMES("predictions.", "classifier.", "sop_classifier.", "albert.pooler.", "pooler.", "albert.embeddings.position_ids")},
    {0}};
