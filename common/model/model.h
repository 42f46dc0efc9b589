/* A decoder: parameters of a checkpoint hung into the blocks that a spec describes.
 *
 * A batch is packed: the tokens of all sequences one after the other, without padding, with positions and a table of
 * sequences. The same call trains (keys and values of this batch only) and generates (with a cache of earlier ones). */
#ifndef SW_MODEL_MODEL_H
#define SW_MODEL_MODEL_H

#include "adapter/tuner.h"
#include "model/family.h"
#include "nn/linear.h"
#include "nn/logprob.h"

struct sw_checkpoint;

typedef struct sw_block {
    sw_param *attn_norm, *mlp_norm, *q_norm, *k_norm;
    sw_linear q, k, v, o, gate, up, down;
    int64_t window; /* 0: full */
    int64_t index;
    char *name;     /* "model.layers.3" */
} sw_block;

typedef struct sw_model {
    sw_spec spec;
    sw_device *device;
    sw_params params;          /* base and adapters; names as the checkpoint's */
    sw_linear embed;           /* the table [V, hidden] */
    sw_param *norm;
    sw_linear head;            /* lm_head or score */
    sw_block *blocks;          /* [spec.layers] */
    struct sw_checkpoint *checkpoint; /* what borrowed parameters lie in; owned */
    sw_arena arena;
} sw_model;

typedef struct sw_load_options {
    sw_dtype dtype;   /* convert plain float weights to this; SW_DTYPE_COUNT keeps the file's. Quantised ones stay. */
    bool dequantise;  /* quantised weights become dtype too */
} sw_load_options;

/* Opens a folder, GGUF file or hub id. On host devices weights that need no conversion stay in the mapped file. Missing,
 * unexpected and misshapen tensors are all listed in the error. */
sw_model *sw_model_load(const char *path, sw_device *d, const sw_load_options *o) SW_MUST_CHECK;
/* With another file in config.json's place (NULL: the folder's own). */
sw_model *sw_model_load_config(const char *path, const char *config, sw_device *d, const sw_load_options *o) SW_MUST_CHECK;
void sw_model_free(sw_model *m);
/* Everything that a tuner may name; the paths are the model's. Free with free(modules.at). */
sw_modules sw_model_modules(sw_model *m);
int64_t sw_model_parameter_count(const sw_model *m, bool trainable_only);

/* Keys and values of sequences that are being generated. */
typedef struct sw_cache {
    sw_ctx *ctx;
    int64_t slots, capacity;   /* sequences, and places of each */
    int64_t *length;           /* [slots] places filled */
    sw_tensor *k, *v;          /* [layers]: [slots * capacity, kv_heads, head_dim] */
    sw_storage *memory;        /* [2 * layers] */
} sw_cache;
int sw_cache_init(sw_cache *cache, sw_ctx *c, const sw_model *m, int64_t slots, int64_t capacity) SW_MUST_CHECK;
/* Grows the places of each slot, keeping what is there. */
int sw_cache_reserve(sw_cache *cache, const sw_model *m, int64_t capacity) SW_MUST_CHECK;
/* Makes slot `to` a copy of `from` (several samples of one prompt). */
int sw_cache_copy_slot(sw_cache *cache, const sw_model *m, int64_t to, int64_t from) SW_MUST_CHECK;
void sw_cache_free(sw_cache *cache, const sw_model *m);

typedef struct sw_batch {
    int64_t n, n_seqs;
    const int32_t *ids;        /* host [n] */
    const int32_t *positions;  /* host [n], or NULL: 0, 1, ... in each sequence (after what the cache holds) */
    const int64_t *lengths;    /* host [n_seqs] tokens of each sequence in this batch; they sum to n */
    sw_cache *cache;           /* NULL in training */
    const int64_t *slots;      /* host [n_seqs] slot of each sequence, with a cache; lengths are added to it */
    int64_t rope_length;       /* > 0: the longest length that dynamic rotary frequencies follow (default: the batch's) */
} sw_batch;

/* Hidden states [n, hidden] after the last norm. */
sw_var *sw_model_forward(sw_ctx *c, sw_model *m, const sw_batch *b, bool recompute) SW_MUST_CHECK;
/* The head as objectives and samplers want it. */
sw_head sw_model_head(sw_model *m);

#endif
