/* swift-merge: adapters into their base. */
#ifndef SWIFT_MERGE_MERGE_H
#define SWIFT_MERGE_MERGE_H

#include "model/model_save.h"

typedef struct merge_request {
    const char *model, *out;
    const char *const *adapters; /* PEFT folders, applied in this order */
    size_t n_adapters;
    sw_save_options save;
} merge_request;

/* Writes the merged folder; all of it, or nothing. */
int merge_run(const merge_request *r, sw_save_report *report) SW_MUST_CHECK;

#endif
