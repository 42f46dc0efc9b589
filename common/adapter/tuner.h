/* Tuners: what is trained, and what is hung on a model for it. A tuner is one file and one row in tuner.c; it reads and
 * writes PEFT's folder format (adapter_config.json, adapter_model.safetensors), so that PEFT and vLLM read the result.
 *
 * The layer knows Linears and parameters, not models: the model side hands in what it has. */
#ifndef SW_ADAPTER_TUNER_H
#define SW_ADAPTER_TUNER_H

#include "nn/linear.h"

#include <cjson/cJSON.h>

/* A module of the model that a tuner may name. */
typedef enum sw_module_kind { SW_MODULE_LINEAR, SW_MODULE_HEAD, SW_MODULE_EMBEDDING, SW_MODULE_NORM } sw_module_kind;
typedef struct sw_module {
    sw_module_kind kind;
    const char *path;      /* "model.layers.0.self_attn.q_proj"; the parameter is path + ".weight" */
    sw_linear *linear;     /* NULL for a norm */
    sw_param **w, **bias;  /* where the model keeps them; bias may be NULL */
} sw_module;

typedef struct sw_modules {
    sw_module *at;
    size_t n, cap;
    sw_params *params;     /* of the base model */
    sw_device *device;
} sw_modules;

typedef struct sw_tuned {
    const struct sw_tuner *tuner;
    cJSON *config;         /* adapter_config.json as it will be written */
    sw_params params;      /* the tuner's own, in PEFT's names */
    struct { sw_param **at; size_t n, cap; } trained; /* what an adapter file holds: params, and base modules trained whole */
    struct { char **at; size_t n, cap; } names;       /* PEFT's name of each in the file */
    sw_device *device;
} sw_tuned;

typedef struct sw_tuner {
    const char *name;      /* --tuner */
    const char *peft_type; /* "LORA" */
    /* Builds from a PEFT configuration; values come from init (random by seed) until sw_tuned_load gives others. */
    int (*attach)(sw_tuned *t, sw_modules *modules, uint64_t seed);
} sw_tuner;

/* Every tuner in turn: i from 0; NULL after the last. */
const sw_tuner *sw_tuner_at(size_t i);

/* config: adapter_config.json's object (copied). dtype of the adapter's parameters is f32 until flat buffers are built.
 * Errors name the field or the module that no target matches. */
sw_tuned *sw_tuner_attach(sw_modules *modules, const cJSON *config, uint64_t seed) SW_MUST_CHECK;
/* The file of values of a PEFT folder: adapter_model.safetensors, or adapter_model.bin where only that is there. Caller frees. */
char *sw_tuned_values(const char *dir);
/* A PEFT folder: its configuration and its values. */
sw_tuned *sw_tuner_attach_folder(sw_modules *modules, const char *dir) SW_MUST_CHECK;
/* Values from a PEFT file; every tensor must be there in its shape, and none more. */
int sw_tuned_load(sw_tuned *t, const char *path) SW_MUST_CHECK;
/* adapter_config.json and adapter_model.safetensors into an existing folder. values are written as f32, or as bf16. */
int sw_tuned_save(const sw_tuned *t, const char *dir, sw_dtype dtype) SW_MUST_CHECK;
/* The model's Linears free the adapters hung on them; free those first (or detach). */
void sw_tuned_free(sw_tuned *t);
/* Everything that trains, of a layer what meets x first: the flat buffers are built from this list (borrowed parameters; free
 * with free(list.at)). */
sw_params sw_tuned_trainable(const sw_tuned *t);

/* Whether a module is meant by PEFT's target_modules: a list of names (equal, or the path ends with ".name"), one string
 * that is a regular expression for the whole path, or "all-linear" (every Linear but the head); and not taken out by
 * exclude_modules (likewise) or layers_to_transform (with layers_pattern). */
int sw_target_matches(const cJSON *config, const sw_module *m, bool *yes) SW_MUST_CHECK;
/* Whether a module has that name, by the end of its path as PEFT has it, or lies in a module that has. */
bool sw_path_in(const char *path, const char *name);
/* Whether PEFT's modules_to_save names the module: it trains whole. */
bool sw_tuner_saves(const cJSON *config, const sw_module *m);
/* Whether the regular expression (PCRE2) fits the whole text. */
int sw_whole_match(const char *expression, const char *text, bool *yes) SW_MUST_CHECK;
/* For tuners: a parameter of their own under PEFT's name, in f32, not filled; it trains. */
sw_param *sw_tuned_param(sw_tuned *t, const char *peft_name, int64_t rows, int64_t columns) SW_MUST_CHECK;

extern const sw_tuner sw_tuner_lora;

#endif
