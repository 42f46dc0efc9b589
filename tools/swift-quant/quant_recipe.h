/* Which type each tensor of a GGUF file gets. */
#ifndef SWIFT_QUANT_RECIPE_H
#define SWIFT_QUANT_RECIPE_H

#include "base/option.h"
#include "kernels/tensor.h"

/* One value of --type: the type of most matrices, the one of those that suffer most from rounding (the same where the
 * recipe is no mixture), and general.file_type's number. */
typedef struct quant_recipe {
    const char *name;
    sw_dtype most, best;
    bool mixture;
    uint32_t file_type;
} quant_recipe;

extern const quant_recipe quant_recipes[];
extern const char *const quant_recipe_names[]; /* in the same order; NULL-terminated */

/* What is known of the model as a whole. */
typedef struct quant_model {
    int64_t layers;
    bool has_output; /* the head is a tensor of its own; else the embedding serves as head */
} quant_model;

/* keep: "PATTERN=TYPE" texts, the first that matches the name wins over the recipe. */
int quant_check_keep(const sw_strings *keep) SW_MUST_CHECK;
int quant_pick(const quant_recipe *r, const quant_model *m, const sw_strings *keep, const char *name, const sw_tensor *t,
               sw_dtype *out) SW_MUST_CHECK;

#endif
