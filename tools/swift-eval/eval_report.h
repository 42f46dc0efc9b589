/* A report: what a model reached at a task. Written by `score`, read by `compare`; JSON:
 *
 *   {"task", "count", "metrics": {NAME: {"value", "low", "high", "scale", "lower_is_better"}},
 *    "groups": {GROUP: {"count", "metrics"}}, "truncated",
 *    "bootstrap": {"samples", "confidence", "seed"}, "made": {"program", "command", "inputs": [{"file", "digest"}]},
 *    "records": {"ids": digest of the ids in order, "sums": {NAME: [...]}, "weights": {NAME: [...]}}}
 *
 * Records are in the order of their ids, so that two reports of the same data can be compared record by record
 * whatever order the results came in. Weights that are all 1 are left out. */
#ifndef SWIFT_EVAL_EVAL_REPORT_H
#define SWIFT_EVAL_EVAL_REPORT_H

#include "base/error.h"
#include "statistics.h"

#include <cjson/cJSON.h>
#include <stdbool.h>

typedef struct eval_figure { /* one metric of all records, or of a group */
    char *name;
    eval_scale scale;
    bool lower_is_better;
    double value;
    eval_interval interval;
} eval_figure;

typedef struct eval_group {
    char *name; /* NULL: all records */
    size_t n;
    eval_figure *figures; /* [n_metrics] of the report */
} eval_group;

typedef struct eval_report {
    char *task;
    size_t n, n_metrics, n_groups;
    eval_group all, *groups;
    int64_t resamples, seed, truncated;
    double confidence;
    char *ids;            /* digest */
    eval_amount *amounts; /* [n][n_metrics] */
} eval_report;

/* made: taken. Caller frees. */
cJSON *eval_report_json(const eval_report *r, cJSON *made);
int eval_report_read(const char *path, eval_report *r) SW_MUST_CHECK;
void eval_report_free(eval_report *r);

#endif
