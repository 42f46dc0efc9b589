/* What a decoder or encoder computes, as data. The zero value of every field is plain Llama; a family (family.h) is a spec of what
 * differs, a few lines that read its config.json, and its tensor names. One generic decoder builds from it (block.h).
 *
 * A field here serves two families or more. What only one family has is a mixer, feed-forward, block or body of its own,
 * whose options are a struct of its own (sw_layer's mixer_options and ffn_options). */
#ifndef SW_MODEL_SPEC_H
#define SW_MODEL_SPEC_H

#include "base/strbuf.h"
#include "model/rope.h"

struct sw_family;
struct sw_ctx;
struct sw_linear;
struct sw_var;
struct sw_mixer_ops;
struct sw_ffn_ops;
struct sw_block_ops;

typedef enum sw_task {
    SW_TASK_LM,
    SW_TASK_CLASSIFY,  /* score head over the pooled sequence; labels 1 is a reward or value */
    SW_TASK_MASKED_LM, /* each token's own word from both sides; no shift */
    SW_TASK_TOKENS,    /* score head over every token */
    SW_TASK_EMBED,     /* no head: the pooled sequence */
} sw_task;

/* What stands for a whole sequence. */
typedef enum sw_pooling {
    SW_POOL_LAST,
    SW_POOL_FIRST,
    SW_POOL_MEAN,
    SW_POOL_MEAN_LATE, /* of what the head's first layer makes of each token */
} sw_pooling;

typedef enum sw_norm_kind { SW_NORM_RMS, SW_NORM_LAYER } sw_norm_kind;
typedef struct sw_norm_spec {
    sw_norm_kind kind;
    bool plain;    /* no weight */
    bool bias;     /* LayerNorm only */
    double eps;
    double offset; /* 1: the weight is stored as its distance from one */
} sw_norm_spec;

typedef enum sw_norm_place {
    SW_PRE_NORM,      /* x + f(norm(x)) */
    SW_POST_NORM,     /* x + norm(f(x)) */
    SW_SANDWICH_NORM, /* x + norm(f(norm(x))) */
    SW_RESIDUAL_NORM, /* norm(x + f(x)), as the first transformers */
} sw_norm_place;

typedef enum sw_parallel {
    SW_SEQUENTIAL,
    SW_PARALLEL,        /* x + mixer(norm(x)) + ffn(norm'(x)) */
    SW_PARALLEL_SHARED, /* both behind the first norm */
} sw_parallel;

typedef enum sw_qk_norm {
    SW_QK_NONE,
    SW_QK_HEAD, /* of each head, one weight for all: [head_dim] */
    SW_QK_EACH, /* of each head, every head with a weight of its own: [heads, head_dim] */
    SW_QK_FULL, /* over the whole projection: [heads * head_dim] */
} sw_qk_norm;

typedef enum sw_positions {
    SW_POSITIONS_ROPE,
    SW_POSITIONS_LEARNED,    /* a table, added to the embedding */
    SW_POSITIONS_SINUSOIDAL, /* halves of sines and cosines, added to the embedding */
    SW_POSITIONS_ALIBI,
    SW_POSITIONS_NONE,
} sw_positions;

/* Where values are dropped in training (Srivastava et al. 2014). */
typedef enum sw_drop_place {
    SW_DROP_EMBEDDING, /* what goes into the first block, of encoder and decoder */
    SW_DROP_MIXER,     /* what a mixer gives, before it is added */
    SW_DROP_FFN,       /* what a feed-forward gives, before it is added */
    SW_DROP_BOTH,      /* the sum of the two, where they stand side by side */
    SW_DROP_INNER,     /* inside of a feed-forward, behind its activation */
    SW_DROP_FINAL,     /* behind the last norm */
    SW_DROP_POOLED,    /* before the first layer of a head of two */
    SW_DROP_HEAD,      /* before the last layer of a classifier */
    SW_DROPS,
} sw_drop_place;

/* One layer. Filled from the fields of sw_spec of the same name; then a family's `layers` may change it. */
typedef struct sw_layer {
    const struct sw_mixer_ops *mixer; /* sw_mixer_attention by default */
    const void *mixer_options;        /* of that mixer; in the spec's arena or static */
    const struct sw_ffn_ops *ffn;     /* sw_ffn_dense by default; NULL: the layer has none */
    const void *ffn_options;
    const struct sw_block_ops *block; /* sw_block_standard by default */
    int64_t heads, kv_heads, head_dim, value_dim, mlp;
    int64_t window;         /* sliding window of the attention; 0: none */
    int rope;               /* index into sw_spec.rope; -1: queries and keys do not turn */
    double attention_scale; /* of the scores */
    bool bare_mixer;        /* no norm before the mixer: what comes in is normed already */
    bool chunked;           /* tokens see only those of their own sw_spec.chunk */
    bool bidirectional;     /* as sw_spec's */
    const struct sw_mixer_ops *cross; /* a second mixer, between the other and the feed-forward, over what the encoder made; or NULL */
    bool no_qk_norm;        /* whatever the spec says */
    double value_scale;     /* of the values; 0: none */
    bool sinks;             /* one learned score a head that takes part in the softmax and has no value */
} sw_layer;

/* A tensor's name in a family's files where it differs: from our name (block.h) to the family's. A pair whose names end
 * with "." replaces the beginning of longer names; a family's name that begins with "/" stands outside of layers. Ends with {0}. */
typedef struct sw_rename {
    const char *ours, *theirs;
} sw_rename;

/* Sizes that configurations spell in several ways. */
typedef enum sw_size_key {
    SW_KEY_VOCAB, SW_KEY_HIDDEN, SW_KEY_LAYERS, SW_KEY_HEADS, SW_KEY_MLP, SW_KEY_PLACES, SW_KEY_KV_HEADS, SW_KEY_HEAD_DIM,
    SW_SIZE_KEYS,
} sw_size_key;

enum { SW_MOST_ROPES = 3 };
typedef struct sw_spec {
    const struct sw_family *family;
    const struct sw_wrapper *wrapper; /* which this is the text's part of; NULL: it stands alone */
    const sw_rename *names;    /* the family's, unless its read chose others */
    const sw_rename *encoder_names; /* of layers of an encoder in front */
    sw_task task;
    int64_t vocab, hidden, layers, heads, kv_heads, head_dim, value_dim, mlp, max_position, labels;
    const char *keys[SW_SIZE_KEYS]; /* what the configuration calls the sizes, for messages */
    int64_t encoder_layers;    /* of `layers`, the first so many read the source, and the others attend to what the last of them
                                * makes; 0: there is no source */
    int64_t further_layers;    /* the file has so many more, which guess further tokens: they are left out */
    int64_t embed_dim;         /* width of the embedding where projections lead to and from hidden; 0: hidden */
    bool embed_whole;          /* positions, types and the norm are so wide, too; one projection with a bias follows them, and the
                                * head's first layer leads back */
    /* norms */
    sw_norm_spec norm;
    sw_norm_place norm_place;
    sw_parallel parallel;
    bool embed_norm;           /* a norm after the embedding */
    sw_norm_spec embedding;    /* that norm; where it is all zero, as norm */
    bool no_final_norm;
    double final_norm_eps;     /* 0: as norm's */
    sw_qk_norm qk_norm;
    sw_norm_spec qk;           /* of q and k; where it is all zero, as norm */
    bool qk_norm_after_rope;
    /* positions */
    sw_positions positions;
    int64_t position_offset;   /* of the table of learned or sinusoidal positions: rows before position 0 */
    sw_rope_spec rope[SW_MOST_ROPES]; /* [0] unless layers choose others; [1] is the sliding layers' where they differ */
    float *alibi;              /* [heads] slopes */
    int64_t buckets;           /* > 0: attention learns a score a head for each of so many ranges of distances (Raffel et al. 2019) */
    int64_t bucket_distance;   /* where the last range begins */
    bool shared_buckets;       /* one table for all layers of an encoder or decoder; the first has it */
    int64_t token_types;       /* rows of a table of token types, added to the embedding; 0: none */
    /* attention */
    bool bidirectional;        /* every token sees those after it, too; a window reaches to both sides */
    double attention_scale;    /* 0: 1/sqrt(head_dim) */
    int64_t window;            /* sliding window; 0: none */
    int64_t full_every;        /* layer i is full attention where (i + 1) % full_every == 0; 0: the window is everywhere */
    int64_t window_from;       /* the window holds from this layer on */
    bool q_bias, k_bias, v_bias, o_bias;
    bool gated;                /* what attention gives is multiplied by sigmoid(gate_proj x) */
    const char *packed;        /* parts of one projection in the order of its rows ("qkv", "kv"); NULL: each its own */
    int64_t packed_groups;     /* how often that order repeats: 1, or the heads, or the key heads; 0 is 1 */
    double clip_qkv;           /* > 0: q, k and v are cut to [-clip, clip] */
    double attention_softcap;  /* > 0 */
    int64_t chunk;             /* places of each of the parts that sequences fall into for chunked layers */
    double query_growth, query_growth_length; /* q times 1 + growth * log(1 + floor(position / length)); 0: none */
    int query_growth_offset;   /* of the position */
    bool query_growth_unturned; /* only in layers that do not turn */
    /* feed-forward */
    sw_act act;
    bool plain_mlp;            /* down(act(up(x))), no gate */
    bool packed_mlp;           /* gate and up are one projection, gate first */
    bool mlp_bias, down_bias;  /* of gate and up; of down */
    /* the rest */
    bool conv1d;               /* matrices of layers are stored [in, out] */
    bool tied;                 /* lm_head is the embedding */
    bool file_ties;            /* it is, unless the file has an lm_head of other values, whatever the configuration says */
    bool head_bias;
    bool head_row_bias;        /* a tied head's, which is stored as one row, is never trained, and may be missing */
    struct sw_var *(*head_product)(struct sw_ctx *c, struct sw_linear *l, struct sw_var *x); /* NULL: the plain one */
    double embedding_scale, residual_scale, logit_scale, logit_softcap; /* 0: none */
    /* the head: with head_hidden it is Linear, head_act, with head_norm a norm, Linear */
    bool head_hidden, head_hidden_bias, head_norm;
    sw_act head_act;
    double dropout[SW_DROPS];  /* probabilities */
    unsigned drops;            /* bits of the places that the family has */
    double layer_drop, encoder_layer_drop; /* probability that an update goes past a layer (Fan et al. 2019, arXiv 1909.11556) */
    sw_pooling pooling;        /* SW_TASK_CLASSIFY and SW_TASK_EMBED */
    bool unit_vectors;         /* embeddings are made of length one (sentence-transformers' Normalize) */
    int32_t bos, eos[8], pad;  /* -1: none; eos ends with -1 */
    int32_t decoder_start;     /* what a decoder behind an encoder begins with */
    sw_layer *layer;           /* [layers] */
    sw_arena arena;            /* of the arrays above */
} sw_spec;

void sw_spec_free(sw_spec *s);
/* A model of this task, for people: "a masked language model". */
const char *sw_task_name(sw_task t);
/* Whether the head has a row for each token of the vocabulary. */
static inline bool sw_task_has_words(sw_task t) { return t == SW_TASK_LM || t == SW_TASK_MASKED_LM; }
/* Reads rope_parameters / rope_scaling / rope_theta of config.json in either spelling into s->rope; by layer type where
 * rope_parameters has full_attention and sliding_attention. head_dim and max_position of s must be set. */
int sw_spec_read_rope(sw_spec *s, const cJSON *config) SW_MUST_CHECK;
/* Slope of head i (from 0) of ALiBi (Press et al. 2021, arXiv 2108.12409): 2^(-max_bias (i + 1) / heads); for a number of heads
 * that is no power of two, those of the next smaller one and every second of the next larger. */
double sw_alibi_slope(int64_t heads, int64_t i, double max_bias);
/* Makes s->alibi of them, times scale. */
void sw_spec_alibi(sw_spec *s, double max_bias, double scale);
/* Makes s->layer from the fields above; layer_types of config (NULL: none) says which layers slide. */
int sw_spec_fill_layers(sw_spec *s, const cJSON *config) SW_MUST_CHECK;
/* Reads the dropout that config asks for into s->dropout, by the names that s->family knows. */
int sw_spec_read_dropout(sw_spec *s, const cJSON *config) SW_MUST_CHECK;
/* The same probability in all of the family's places, and no layer is gone past; false: it has no such place. */
bool sw_spec_set_dropout(sw_spec *s, double p);
/* Appends what config asks to drop that is not dropped here: attention's probabilities. */
void sw_spec_unused_dropout(const sw_spec *s, const cJSON *config, sw_buf *out);
/* Drops values of x where s has it in this place; site: of the block, or of the whole model. */
struct sw_var *sw_drop(struct sw_ctx *c, const sw_spec *s, sw_drop_place place, uint32_t site, struct sw_var *x);
/* Whether training goes past a layer in this update: the same for all of its records, however they are split. */
bool sw_drops_layer(const struct sw_ctx *c, const sw_spec *s, int64_t layer, uint32_t site);
/* Checks what every model needs (positive sizes, heads a multiple of kv_heads, ...); errors name the field. */
int sw_spec_check(const sw_spec *s) SW_MUST_CHECK;

#endif
