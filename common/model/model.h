/* A decoder, an encoder, or one before the other: parameters of a checkpoint hung into the blocks that a spec describes.
 *
 * A batch is packed: the tokens of all sequences one after the other, without padding, with positions and a table of
 * sequences. The same call trains (keys and values of this batch only) and generates (with a cache of earlier ones). */
#ifndef SW_MODEL_MODEL_H
#define SW_MODEL_MODEL_H

#include "adapter/tuner.h"
#include "model/cache.h"
#include "model/family.h"
#include "nn/linear.h"
#include "nn/logprob.h"
#include "store/safetensors.h"

struct sw_checkpoint;
struct sw_new_head;

/* How a tensor of the file lies in a parameter: whole, or as rows of one that several files' tensors make. */
typedef struct sw_stored {
    const char *name;     /* in the file */
    sw_param *p;
    int64_t index, count; /* part `index` of `count` equal ones along the first dimension */
    bool transposed;      /* the file has [in, out] */
} sw_stored;

typedef struct sw_model {
    sw_spec spec;
    sw_device *device;
    sw_params params;          /* base and adapters; names as the checkpoint's */
    sw_linear embed;           /* the table [V, hidden] */
    sw_linear positions;       /* the table of learned positions, or empty */
    sw_linear encoder_positions; /* of an encoder in front */
    sw_linear types;           /* the table of token types, or empty */
    sw_linear project_in, project_out; /* between embed_dim and hidden, or empty */
    sw_norm embed_norm, norm;
    sw_norm encoder_norm, encoder_embed_norm; /* of an encoder in front: after its last block and its embedding, or empty */
    sw_linear head_hidden;     /* first of two layers of the head, or empty; then a norm */
    sw_norm head_norm;
    sw_linear head;            /* lm_head or score; empty where the task has none */
    sw_block *blocks;          /* [spec.layers] */
    void *body;                /* of the family's sw_body_ops */
    sw_modules modules;        /* everything a tuner may name */
    struct { sw_stored *at; size_t n, cap; } stored;
    struct sw_checkpoint *checkpoint; /* what borrowed parameters lie in; owned */
    sw_arena arena;
} sw_model;

typedef struct sw_load_options {
    sw_dtype dtype;   /* convert plain float weights to this; SW_DTYPE_COUNT keeps the file's. Quantised ones and 8-bit floats stay. */
    bool dequantise;  /* those become dtype too */
    const struct sw_new_head *head; /* for a model without a head for classes (new_head.h); NULL: as the file is */
} sw_load_options;

/* Opens a folder, GGUF file or hub id. On host devices weights that need no conversion stay in the mapped file. Missing,
 * unexpected and misshapen tensors are all listed in the error. */
sw_model *sw_model_load(const char *path, sw_device *d, const sw_load_options *o) SW_MUST_CHECK;
/* With another file in config.json's place (NULL: the folder's own). */
sw_model *sw_model_load_config(const char *path, const char *config, sw_device *d, const sw_load_options *o) SW_MUST_CHECK;
void sw_model_free(sw_model *m);
/* Whether c holds all tensors of a model of this spec, in the right shapes, and no unexpected ones; the error lists them. */
int sw_model_check(const struct sw_checkpoint *c, const sw_spec *s) SW_MUST_CHECK;
/* The tensors that files of such a model hold: names, which are arena's, and shapes, as f32 without data. */
int sw_model_tensors(const sw_spec *s, sw_entries *out, sw_arena *arena) SW_MUST_CHECK;
/* Where the family has two sets of names, those that c's tensors have. */
void sw_model_choose_names(const struct sw_checkpoint *c, sw_spec *s);
/* Tensors that files carry and no model of the spec reads: buffers, heads of other tasks, layers that guess further tokens. */
bool sw_model_ignores(const sw_spec *s, const char *name);
/* What lies beside a model in the folder, as sentence-transformers writes it: how texts are pooled, into s; of embedding models
 * modules that are not computed here are an error. */
#define SW_POOLING_FILE "1_Pooling/config.json"
#define SW_MODULES_FILE "modules.json"
int sw_model_modules_around(const char *folder, sw_spec *s) SW_MUST_CHECK;
/* What c's configuration, which must be there, describes; where is for errors. The folder of an embedding model often names the
 * class with words that it was made from: where texts are pooled and that class's head is missing it is the body's, and c's
 * configuration says so from here on. */
int sw_model_read_config(struct sw_checkpoint *c, sw_spec *s, const char *where) SW_MUST_CHECK;
/* Whether the head of such a model with c's tensors is the embedding. */
bool sw_model_ties(const struct sw_checkpoint *c, const sw_spec *s);
/* Whether the head is not the file's but new (sw_load_options.head). */
static inline bool sw_model_has_new_head(const sw_model *m) { return m->head.w && m->head.w->drawn; }
/* Fails where parameters are new and no adapter has brought their values: what they would say is by chance. */
int sw_model_check_new(const sw_model *m) SW_MUST_CHECK;
/* Everything that a tuner may name; the paths are the model's. Free with free(modules.at). */
sw_modules sw_model_modules(sw_model *m);
int64_t sw_model_parameter_count(const sw_model *m, bool trainable_only);
/* Where the file's tensor lies, or NULL when no part of the model asked for it. */
const sw_stored *sw_model_stored(const sw_model *m, const char *name);
/* The part of a dense tensor (p's value, master or gradient) that a stored tensor is. */
sw_tensor sw_stored_part(const sw_stored *s, const sw_tensor *whole);

typedef struct sw_batch {
    int64_t n, n_seqs;
    const int32_t *ids;        /* host [n] */
    const int32_t *positions;  /* host [n], or NULL: 0, 1, ... in each sequence (after what the cache holds) */
    const int64_t *lengths;    /* host [n_seqs] tokens of each sequence in this batch; they sum to n */
    sw_cache *cache;           /* NULL in training */
    const int64_t *slots;      /* host [n_seqs] slot of each sequence, with a cache; lengths are added to it */
    int64_t rope_length;       /* > 0: the longest length that dynamic rotary frequencies follow (default: the batch's) */
    /* Of models with an encoder: the sources of the sequences one after the other, and how many tokens each has. With a
     * cache, 0 where the slot's source was read before. */
    const int32_t *source_ids;
    const int64_t *source_lengths; /* host [n_seqs] */
    const int32_t *types;      /* host [n] token types, or NULL: all 0; of models that have a table of them */
    /* Of training: keys of the tokens, and of those of the sources, for what dropout draws (sw_ctx.keys); host [n]. NULL: each
     * is its own place in the batch. */
    const int64_t *keys, *source_keys;
} sw_batch;

/* Hidden states [n, hidden] after the last norm; where the head is over every token of an encoder (SW_TASK_MASKED_LM,
 * SW_TASK_TOKENS, and SW_POOL_MEAN_LATE), after all of its layers but the last, which is sw_model_head or sw_model_score. */
sw_var *sw_model_forward(sw_ctx *c, sw_model *m, const sw_batch *b, bool recompute) SW_MUST_CHECK;
/* The same in two parts: the batch on the device, which can be sent there while it is at work on another; valid until the
 * context's reset, and run once. */
sw_pass *sw_model_prepare(sw_ctx *c, sw_model *m, const sw_batch *b) SW_MUST_CHECK;
sw_var *sw_model_run(sw_ctx *c, sw_pass *p, bool recompute) SW_MUST_CHECK;
/* The head as objectives and samplers want it. */
sw_head sw_model_head(sw_model *m);
/* What stands for each sequence of the batch, from its hidden states: [n, hidden] -> [n_seqs, hidden]. Every sequence must
 * have a token. */
sw_var *sw_model_pool(sw_ctx *c, sw_model *m, const sw_batch *b, sw_var *hidden) SW_MUST_CHECK;
/* Fails where what sentence-transformers' folders do behind the pooling (modules.json) is not computed here; else notes whether
 * vectors are made of length one. Done by sw_model_load for embedding models; for language models that serve as one, too. */
int sw_model_check_modules(const char *folder, sw_spec *s) SW_MUST_CHECK;
/* The score head of a classifier (SW_TASK_CLASSIFY) over pooled sequences: [n_seqs, hidden] -> [n_seqs, labels]. */
sw_var *sw_model_score(sw_ctx *c, sw_model *m, sw_var *x) SW_MUST_CHECK;

#endif
