#ifndef SW_TOOL_MERGE_H
#define SW_TOOL_MERGE_H

#include "base/error.h"
#include "kernels/tensor.h"

typedef struct merge_request {
    const char *model, *out;
    const char *const *adapters;
    size_t n_adapters;
    sw_dtype dtype;      /* SW_DTYPE_COUNT: each tensor's own, bf16 for quantised ones */
    size_t max_shard;
} merge_request;

typedef struct merge_report {
    size_t tensors, changed, bytes;
} merge_report;

/* Writes the merged folder whole or not at all. */
int merge_run(const merge_request *r, merge_report *report) SW_MUST_CHECK;

#endif
