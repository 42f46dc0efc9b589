/* Published models (models.def): which family reads each, and how its release holds the weights. */
#ifndef SW_MODEL_RELEASE_H
#define SW_MODEL_RELEASE_H

#include "model/family.h"

/* What the matrices of a published folder are. */
typedef enum sw_release_kind {
    SW_RELEASE_PLAIN, /* f32, f16, bf16 */
    SW_RELEASE_FP8,
    SW_RELEASE_MXFP4,
    SW_RELEASE_GPTQ,
    SW_RELEASE_AWQ,
    SW_RELEASE_AQLM,
    SW_RELEASE_BNB,
    SW_RELEASE_KINDS
} sw_release_kind;

typedef struct sw_release {
    const char *id, *family; /* on the hub; sw_family.name */
    sw_release_kind kind;
} sw_release;
/* In turn: i from 0; NULL after the last. */
const sw_release *sw_release_at(size_t i);
const char *sw_release_kind_name(sw_release_kind k); /* "gptq" */
bool sw_release_is_read(sw_release_kind k);          /* as sw_scaled_check (store/scaled.h) has it */

/* Test cases whose numbers the family gives, separated by blanks, or NULL: of another implementation (tests/golden/make_llm.py
 * and make_hub.py), and of a second writing of the published code (make_hub.py). Without either it was built from the
 * published code alone. */
const char *sw_family_checked(const sw_family *f);
const char *sw_family_rewritten(const sw_family *f);

#endif
