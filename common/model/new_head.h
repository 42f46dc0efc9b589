/* A head for classes on a model that has none, as transformers' AutoModelFor...Classification makes one over a base: the
 * configuration becomes that of the class with the head, and the loader draws the values that the file lacks. An adapter over
 * such a base brings the values; what the head is like stands beside it, in config.json. */
#ifndef SW_MODEL_NEW_HEAD_H
#define SW_MODEL_NEW_HEAD_H

#include "model/model.h"

typedef struct sw_new_head {
    bool words;          /* classes of each word (TokenClassification), not of whole texts (SequenceClassification) */
    bool if_none;        /* a model that has a head for classes keeps its own; else that is an error */
    cJSON *names;        /* of the classes, a list of strings, at least one; owned */
    const char *problem; /* "problem_type" of whole texts; NULL: regression where there is one class, else one class of several */
    cJSON *config;       /* that problem points into and padding is taken from, or NULL; owned */
    uint64_t seed;       /* of the values */
} sw_new_head;

/* LABEL_0 ... for n classes, as transformers calls them; the caller deletes it. */
cJSON *sw_numbered_names(int64_t n);
void sw_new_head_free(sw_new_head *h);

/* c's configuration and its spec become those of the same model with the head. Errors: the model has such a head already
 * (unless if_none), or none is known for its family. On failure s holds nothing. */
int sw_new_head_configure(const sw_new_head *h, sw_checkpoint *c, sw_spec *s) SW_MUST_CHECK;
/* n values for a tensor of the head: rows of matrices are normal, norms are one, biases zero. name: as files have it;
 * hidden: of the layer before the last. */
int sw_new_head_values(const sw_new_head *h, const sw_spec *s, const cJSON *config, const char *name, bool hidden, int ndim, int64_t n,
                       float *out) SW_MUST_CHECK;
/* The head that an adapter's folder says its base needs: 1, 0 none, -1. By its config.json, else by the head's own shape. */
int sw_new_head_of_adapter(const char *dir, sw_new_head *h) SW_MUST_CHECK;
/* A base to hang adapters on: with the head of the first that brings one, where the base has none. */
sw_model *sw_model_load_under(const char *path, sw_device *d, sw_dtype dtype, const char *const *adapters, size_t n) SW_MUST_CHECK;

#endif
