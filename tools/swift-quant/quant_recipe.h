/* Which type each tensor of a GGUF file gets. */
#ifndef SWIFT_QUANT_RECIPE_H
#define SWIFT_QUANT_RECIPE_H

#include "base/option.h"
#include "kernels/tensor.h"

/* Which tensors of which layers get another type than most. */
typedef enum quant_part { QUANT_VALUE = 1, QUANT_OUT, QUANT_DOWN, QUANT_EMBEDDING, QUANT_HEAD, QUANT_NO_EXPERTS } quant_part;
typedef enum quant_when {
    QUANT_ALWAYS,
    QUANT_FIRST_2, QUANT_FIRST_4, QUANT_FIRST_16TH, QUANT_FIRST_8TH, /* of the layers */
    QUANT_SPREAD,  /* the first and the last eighth, and every third between */
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
    bool has_output; /* the head is a tensor of its own; else the embedding serves as head */
    int64_t query_rows, key_rows; /* of a layer's projections; 0: there are none of their own */
} quant_model;

/* keep: "PATTERN=TYPE" texts, the first that matches the name wins over the recipe. */
int quant_check_keep(const sw_strings *keep) SW_MUST_CHECK;
int quant_pick(const quant_recipe *r, const quant_model *m, const sw_strings *keep, const char *name, const sw_tensor *t,
               sw_dtype *out) SW_MUST_CHECK;

#endif
