/* Which type each tensor of a GGUF file gets. */
#ifndef SWIFT_QUANT_RECIPE_H
#define SWIFT_QUANT_RECIPE_H

#include "base/option.h"
#include "kernels/tensor.h"

/* Which tensors of which layers get another type than most. */
typedef enum quant_part { QUANT_VALUE = 1, QUANT_KEY, QUANT_OUT, QUANT_DOWN, QUANT_EMBEDDING, QUANT_HEAD, QUANT_NO_EXPERTS } quant_part;
typedef enum quant_when {
    QUANT_ALWAYS,
    QUANT_FIRST_2, QUANT_FIRST_4, QUANT_FIRST_16TH, QUANT_FIRST_8TH, /* of the places (quant_has_place) */
    QUANT_SPREAD,  /* the first and the last eighth of them, and every third between */
    QUANT_GROUPED, /* four or more heads share keys and values: those are small */
} quant_when;

/* One value of --type: the type of most matrices, exceptions of which the first counts (ended by part 0), and
 * general.file_type's number. */
typedef struct quant_recipe {
    const char *name;
    sw_dtype most;
    uint32_t file_type;
    struct { quant_part part; quant_when when; sw_dtype type; } other[6];
} quant_recipe;

extern const quant_recipe quant_recipes[];
extern const char *const quant_recipe_names[]; /* in the same order; NULL-terminated */

/* What is known of the model as a whole. */
typedef struct quant_model {
    int64_t layers;
    int64_t values;    /* tensors that are values, with others or alone */
    int64_t experts;   /* of a layer; 0: none */
    int64_t shared_by; /* heads of the first layer that share keys and values; 0: that layer has none */
    bool has_output;   /* the head is a tensor of its own; else the embedding serves as head */
    bool falcon;       /* which has mixtures of its own */
    bool large;        /* a model of 70B whose heads share their values: those are small beside the rest */
} quant_model;

/* Where a tensor stands among those whose type depends on it: values, and down projections. A value's place is how many
 * values come before it in the order of layers, then of names; so is that of a down projection of a model without experts,
 * and with experts it is the layer. The two parts that have places are told by quant_has_place. */
bool quant_has_place(quant_part part, const char *name);
/* By layer, tensors outside of layers ("blk.N.") first, then by name. */
int quant_order(const char *a, const char *b);
int64_t quant_layer(const char *name); /* -1: outside */

/* keep: "PATTERN=TYPE" texts, the first that matches the name wins over the recipe. */
int quant_check_keep(const sw_strings *keep) SW_MUST_CHECK;
/* Whether such a text, which was checked, names this tensor: a matrix, for what stays f32 does so whatever is asked. */
bool quant_keeps(const char *text, const char *name, const sw_tensor *t);
int quant_pick(const quant_recipe *r, const quant_model *m, const sw_strings *keep, const char *name, const sw_tensor *t, int64_t place,
               sw_dtype *out) SW_MUST_CHECK;

#endif
