/* The one who asks a checkpoint for the tensors that parts of a model declare. Private to the model loader. */
#ifndef SW_MODEL_BUILDER_H
#define SW_MODEL_BUILDER_H

#include "model/model.h"

#include "base/map.h"
#include "base/strbuf.h"

struct sw_builder {
    sw_model *m;
    const sw_load_options *o;
    int64_t layer;    /* -1: outside of layers */
    sw_buf problems;
    int n_problems;
    sw_map used;      /* names of tensors taken */
    const struct sw_new_head *fresh; /* what is asked for is a new head's: made where the file lacks it */
    bool fresh_hidden; /* its layer before the last */
    bool look_only;   /* names and shapes are checked, nothing is loaded */
    sw_entries *asked; /* not NULL: there is no file, what is asked for is listed here; names are the model's arena's */
    int rc;           /* -1: memory or the device failed */
};

void sw_builder_problem(sw_builder *b, const char *fmt, ...) SW_PRINTF(2, 3);
/* Declares the whole model. */
int sw_builder_run(sw_builder *b) SW_MUST_CHECK;
void sw_builder_free(sw_builder *b);

#endif
