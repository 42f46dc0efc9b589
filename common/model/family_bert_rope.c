/* Encoders whose tokens turn: Nomic Embed (Nussbaum et al. 2024, arXiv 2402.01613), Jina Embeddings 3 (Sturua et al. 2024,
 * arXiv 2409.10173) and GTE (Zhang et al. 2024, arXiv 2407.19669) with the norms of BERT, and EuroBERT (Boizard et al. 2025,
 * arXiv 2503.05500), which is Llama that sees both sides. */
#include "model/encoder.h"

#include "base/json.h"

#include <string.h>

#define EMBEDDINGS(prefix)                                                                                              \
    {"model.embed_tokens", prefix "embeddings.word_embeddings"}, {"model.embed_types", prefix "embeddings.token_type_embeddings"}

#define FLASH(mixer)                                                                                                    \
    {"self_attn.qkv_proj", mixer ".Wqkv"}, {"self_attn.o_proj", mixer ".out_proj"}, {"attn_norm", "norm1"}, {"mlp_norm", "norm2"}

/* ---- Nomic Embed. Published files have GPT-2's names for sizes, transformers 5 has BERT's. */

static int read_nomic(sw_spec *s, const cJSON *config)
{
    static const char *const refused[][2] = {{"moe_every_n_layers", "of mixtures of experts"}, {"prenorm", "with norms before"},
                                             {"qkv_proj_bias", "with biases"}, {"mlp_fc1_bias", "with biases"}, {"rotary_emb_interleaved", "that turns neighbours"}};
    for (size_t i = 0; i < SW_COUNT(refused); i++) {
        const cJSON *v = sw_json_get(config, refused[i][0]);
        if (cJSON_IsTrue(v) || (cJSON_IsNumber(v) && v->valuedouble != 0))
            return sw_fail("\"%s\": a Nomic model %s is not run here", refused[i][0], refused[i][1]);
    }
    sw_bert_heads(s, s->act, SW_ACT_TANH);
    return sw_bert_read(s, config, 2);
}

static int nomic_layers(sw_spec *s, const cJSON *config)
{
    const char *act;
    (void)s;
    if (sw_json_str(config, "activation_function", "swiglu", &act))
        return -1;
    return strcmp(act, "swiglu") ? sw_fail("\"activation_function\": '%s' is not run here, swiglu is", act) : 0;
}

static const sw_rename nomic_names[] = {
    EMBEDDINGS("nomic_bert."), {"model.embed_norm", "nomic_bert.emb_ln"}, {"model.layers", "nomic_bert.encoder.layers"}, FLASH("attn"),
    {"mlp.up_proj", "mlp.fc11"}, {"mlp.gate_proj", "mlp.fc12"}, {"mlp.down_proj", "mlp.fc2"},
    {"lm_head.hidden", "cls.predictions.transform.dense"}, {"lm_head.norm", "cls.predictions.transform.layer_norm"},
    {"lm_head", "cls.predictions.decoder"}, {"score.hidden", "nomic_bert.pooler.dense"}, {"score", "classifier"}, {0}};

/* ---- Jina Embeddings 3 */

#define JINA                                                                                                            \
    EMBEDDINGS("roberta."), {"model.embed_norm", "roberta.emb_ln"}, {"model.layers", "roberta.encoder.layers"}, FLASH("mixer"), \
        {"mlp.up_proj", "mlp.fc1"}, {"mlp.down_proj", "mlp.fc2"}
static const sw_rename jina_names[] = {JINA, {"lm_head.hidden", "lm_head.dense"}, {"lm_head.norm", "lm_head.layer_norm"},
                                       {"lm_head", "lm_head.decoder"}, {"score.hidden", "classifier.dense"}, {"score", "classifier.out_proj"}, {0}};
static const sw_rename jina_tokens[] = {JINA, {"score", "classifier"}, {0}};

/* GTE's, too. */
static int read_turning(sw_spec *s, const cJSON *config)
{
    sw_bert_heads(s, SW_ACT_GELU, SW_ACT_TANH);
    if (s->task == SW_TASK_TOKENS && s->names == jina_names)
        s->names = jina_tokens;
    return sw_bert_read(s, config, 1);
}

/* ---- GTE: the gate is the second half of a projection */

typedef struct gte_ffn {
    sw_linear up_gate, down;
} gte_ffn;

static void declare_gte(sw_builder *b, void *self)
{
    gte_ffn *f = self;
    int64_t wide = sw_builder_layer(b)->mlp, hidden = sw_builder_spec(b)->hidden;
    sw_ask_linear(b, &f->up_gate, "mlp.up_gate_proj", 2 * wide, hidden, 0);
    sw_ask_linear(b, &f->down, "mlp.down_proj", hidden, wide, SW_ASK_BIAS);
}

static sw_var *gte_forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    gte_ffn *f = self;
    int64_t wide = f->down.in;
    sw_var *both = sw_linear_forward(c, &f->up_gate, x);
    sw_var *h = both ? sw_glu(c, sw_columns(c, both, wide, wide), sw_columns(c, both, 0, wide), p->spec->act) : NULL;
    h = h ? sw_drop(c, p->spec, SW_DROP_INNER, p->block->site, h) : NULL;
    return h ? sw_linear_forward(c, &f->down, h) : NULL;
}

static const sw_ffn_ops ffn_gte = {"dense, gate behind", sizeof(gte_ffn), declare_gte, gte_forward};

static int gte_layers(sw_spec *s, const cJSON *config)
{
    (void)config;
    for (int64_t i = 0; i < s->layers; i++)
        s->layer[i].ffn = &ffn_gte;
    return 0;
}

static const sw_rename gte_names[] = {
    EMBEDDINGS("gte."), {"model.embed_norm", "gte.embeddings.LayerNorm"}, {"model.layers", "gte.encoder.layer"},
    {"self_attn.qkv_proj", "attention.qkv_proj"}, {"self_attn.o_proj", "attention.o_proj"}, {"attn_norm", "attn_ln"}, {"mlp_norm", "mlp_ln"},
    {"lm_head.hidden", "lm_head.dense"}, {"lm_head.norm", "lm_head.norm"}, {"lm_head", "lm_head.decoder"},
    {"score.hidden", "gte.pooler.dense"}, {"score", "classifier"}, {0}};

/* ---- EuroBERT */

static int read_euro(sw_spec *s, const cJSON *config)
{
    const char *pooling;
    if (sw_read_biases(s, config) || sw_json_str(config, "classifier_pooling", "late", &pooling))
        return -1;
    bool late = !strcmp(pooling, "late"), mean = !strcmp(pooling, "mean"), classes = s->task == SW_TASK_CLASSIFY;
    if (!late && !mean && strcmp(pooling, "bos"))
        return sw_fail("\"classifier_pooling\": '%s' is neither late, mean nor bos", pooling);
    s->head_bias = classes || s->task == SW_TASK_TOKENS || s->mlp_bias;
    s->head_hidden = s->head_hidden_bias = classes;
    s->head_act = SW_ACT_GELU;
    s->pooling = !classes || mean ? SW_POOL_MEAN : late ? SW_POOL_MEAN_LATE : SW_POOL_FIRST;
    return 0;
}

static const sw_rename euro_names[] = {{"score.hidden", "dense"}, {"score", "classifier"}, {0}};

const sw_family sw_family_bert_rope[] = {
    {.name = "eurobert", .architectures = SW_NAMES(SW_ENCODER("EuroBert")), .model_types = SW_NAMES("eurobert"),
     .spec = {.bidirectional = true, .norm = {.eps = 1e-5}}, .read = read_euro, .names = euro_names,
     .unread = SW_NAMES("lm_head.", "dense.", "classifier.")},
    {.name = "nomic_bert", .architectures = SW_NAMES(SW_ENCODER("NomicBert")), .model_types = SW_NAMES("nomic_bert"),
     .spec = {SW_BERT_NORMS, .packed = "qkv", .rope = {{.theta = 1000}}}, .read = read_nomic, .layers = nomic_layers, .names = nomic_names,
     .unread = SW_NAMES("cls.", "classifier.", "nomic_bert.pooler.", "pooler.")},
    {.name = "jina_embeddings_v3", .architectures = SW_NAMES(SW_ENCODER("JinaEmbeddingsV3")), .model_types = SW_NAMES("jina_embeddings_v3"),
     .spec = {SW_BERT_NORMS, SW_BERT_ATTENTION_BIASES, SW_BERT_MLP, .act = SW_ACT_GELU, .packed = "qkv", .rope = {{.theta = 20000}}},
     .read = read_turning, .names = jina_names, .unread = SW_NAMES("lm_head.", "classifier.", "roberta.pooler.", "pooler.")},
    {.name = "gte", .architectures = SW_NAMES(SW_ENCODER("Gte")), .model_types = SW_NAMES("gte"),
     .spec = {SW_BERT_NORMS, SW_BERT_ATTENTION_BIASES, .act = SW_ACT_GELU, .packed = "qkv", .rope = {{.theta = 160000}}},
     .read = read_turning, .layers = gte_layers, .names = gte_names, .unread = SW_NAMES("lm_head.", "classifier.", "gte.pooler.", "pooler.")},
    {0}};
