/* The families: which config.json a family reads, how it differs from Llama, and what its tensors are called.
 *
 * A family is a row in some family_X.c (grouped by kin) and, for a new file, one line in family_list.h. A Llama-like one
 * is a spec of differences and perhaps a rename table; see CONTRIBUTING.md for a worked example. New mathematics comes as
 * a mixer, feed-forward or block (block.h) that the row's `layers` puts into the spec's layers. */
#ifndef SW_MODEL_FAMILY_H
#define SW_MODEL_FAMILY_H

#include "model/block.h"
#include "store/checkpoint.h"

/* What a model has around its blocks beyond embedding and final norm. */
typedef struct sw_body_ops {
    size_t size;
    void (*declare)(sw_builder *b, void *self); /* names are whole: "model.per_layer_projection" */
    /* After the embedding (x [N, hidden]), before the first block; what blocks share goes to p->body and is kept alive
     * with sw_pass_keep. NULL: nothing. */
    sw_var *(*enter)(sw_ctx *c, void *self, sw_pass *p, sw_var *x);
    sw_var *(*leave)(sw_ctx *c, void *self, const sw_pass *p, sw_var *x); /* before the final norm; NULL: nothing */
} sw_body_ops;

typedef struct sw_family {
    const char *name;                  /* "qwen2" */
    const char *const *architectures;  /* of config.json, NULL-terminated: "Qwen2ForCausalLM" */
    const char *const *model_types;    /* of config.json, for files without architectures */
    /* What differs from Llama before config.json is read: also what its fields are where they are absent. */
    sw_spec spec;
    /* After the fields all families share (sizes, norm eps, act, rope, tying, tokens) have been read. */
    int (*read)(sw_spec *s, const cJSON *config);
    /* After s->layer is filled: what differs from layer to layer. */
    int (*layers)(sw_spec *s, const cJSON *config);
    const char *rope_class;            /* JSON: rope_parameters of the published class, where a configuration says nothing of rotation; NULL: plain */
    const sw_rename *names;            /* NULL: Llama's */
    const sw_rename *other_names;      /* of files whose embedding is called as these have it; NULL: there are none */
    const sw_rename *encoder_names;    /* of the layers of an encoder in front of a decoder; NULL: there is none */
    const char *const *same_embedding; /* names under which files hold the embedding once more; NULL: none */
    const char *const *unread;         /* beginnings of tensors' names that belong to heads of other tasks; NULL: none */
    const sw_body_ops *body;
    bool no_word_classes;              /* transformers has no class of it with a head over each token */
    const char *words_score;           /* what the head over each token is called, otherwise than that over texts; NULL: the same */
    /* How the values of a new head are drawn otherwise than normally by initializer_range: standard deviation, and at how many
     * of them they end (0: nowhere). hidden: of the layer before the last. NULL: not otherwise. */
    int (*new_head)(const sw_spec *s, const cJSON *config, bool hidden, double *deviation, double *cut);
} sw_family;

#define SW_NAMES(...) (const char *const[]){__VA_ARGS__, NULL}

/* "BertForMaskedLM" and the like: prefix and what the tasks of an encoder end with. */
#define SW_ENCODER(prefix)                                                                                              \
    prefix "ForMaskedLM", prefix "ForSequenceClassification", prefix "Model"

/* Every family in turn: i from 0; NULL after the last. */
const sw_family *sw_family_at(size_t i);

/* From a config.json tree; the error names the field that decides and the nearest known architectures. */
int sw_spec_from_config(sw_spec *s, const cJSON *config, const char *where) SW_MUST_CHECK;
const char *sw_act_name(sw_act act);

enum { SW_NAME_MAX = 192 };
/* The name in the family's files of what is called `ours` here: relative to the layer, or whole with layer -1. Returns out. */
char *sw_file_name(const sw_spec *s, int64_t layer, const char *ours, char out[SW_NAME_MAX]);
/* The tensor of that name, as its file spells it; NULL where there is none. */
const sw_entry *sw_file_find(const sw_checkpoint *c, const char *name);

/* For `read`s: attention_bias (all four) and mlp_bias. */
int sw_read_biases(sw_spec *s, const cJSON *config) SW_MUST_CHECK;
/* An activation by its name. */
int sw_read_act(const cJSON *config, const char *key, sw_act missing, sw_act *out) SW_MUST_CHECK;
/* sliding_window, unless use_sliding_window is false. */
int sw_read_window(sw_spec *s, const cJSON *config) SW_MUST_CHECK;
/* The same only if use_sliding_window is true, from layer max_window_layers on. */
int sw_read_qwen_window(sw_spec *s, const cJSON *config) SW_MUST_CHECK;
/* Sliding layers turn by a plain rotation with this base, unless rope_parameters has said how. */
int sw_local_rope(sw_spec *s, double theta) SW_MUST_CHECK;
/* A `layers`: only those that slide turn queries and keys. */
int sw_full_layers_do_not_turn(sw_spec *s, const cJSON *config);

#endif
