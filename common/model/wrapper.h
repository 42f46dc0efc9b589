/* Models of text with towers for pictures or sound around them, of which the text's part is read: an object of their
 * config.json describes it as if it stood alone, and its tensors lie under a prefix. What else their files hold is kept as it
 * is when the model is written. */
#ifndef SW_MODEL_WRAPPER_H
#define SW_MODEL_WRAPPER_H

#include "store/checkpoint.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct sw_wrapper {
    const char *architecture;
    const char *prefix; /* of the text's tensors */
    bool whole;         /* of all their names; else it takes the place of "model." */
} sw_wrapper;

/* NULL where the architecture is none. */
const sw_wrapper *sw_wrapper_for(const char *architecture);
/* The configuration of the text's model as one of its own, to be freed; NULL where config has none. */
cJSON *sw_wrapper_text(const cJSON *config);
/* name, below n bytes, as the files have it. */
void sw_wrapper_name(const sw_wrapper *w, char *name, size_t n);
/* The tensor that a family calls so, as files spell it: those saved from a base model leave out the first part of each name
 * ("transformer."), and those whose config.json does not name the towers around the text may still have their prefix. */
const sw_entry *sw_wrapper_find(const sw_checkpoint *c, const char *name);
/* Whether a tensor of that name is the text's. */
bool sw_wrapper_has(const sw_wrapper *w, const char *name);

#endif
