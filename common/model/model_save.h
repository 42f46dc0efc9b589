/* A model as a Hugging Face folder: weights under the base's own names and in its own files, config.json, and what lies
 * beside them (tokenizer, chat template, generation config), copied from the base's folder or made from GGUF metadata. */
#ifndef SW_MODEL_MODEL_SAVE_H
#define SW_MODEL_MODEL_SAVE_H

#include "model/model.h"

typedef struct sw_save_options {
    sw_dtype dtype;   /* of the weights; SW_DTYPE_COUNT: as in the base, bf16 where that is quantised */
    size_t max_shard; /* bytes of a file where the base gives no file names; 0: one file */
    bool (*stop)(void); /* looked at between tensors: true ends the writing with an error; NULL: never */
} sw_save_options;

typedef struct sw_save_report {
    size_t tensors, changed, bytes; /* changed: by an adapter that was merged in */
} sw_save_report;

/* Writes into an existing folder `dir` (one being built: sw_outdir). Present values are written: of trained parameters
 * their f32 master values, rounded once; adapters are merged into their Linears. A tied head that no longer equals the
 * embedding is written out, and config.json says so. */
int sw_model_save(const sw_model *m, const sw_modules *modules, const char *dir, const sw_save_options *o, sw_save_report *report) SW_MUST_CHECK;

/* The configuration of a model whose head is new, beside an adapter that brings its values; nothing for another model. */
int sw_model_save_head(const sw_model *m, const char *dir) SW_MUST_CHECK;
/* A pretty-printed JSON file, whole or not at all. */
int sw_save_json(const char *dir, const char *name, const cJSON *o) SW_MUST_CHECK;

#endif
