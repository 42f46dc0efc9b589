/* What a training reports: JSONL records (swift-metrics(5)) to a file or standard output, and plots of them. */
#ifndef SWIFT_TRAIN_METRICS_H
#define SWIFT_TRAIN_METRICS_H

#include "base/error.h"

#include <cjson/cJSON.h>
#include <stdint.h>

typedef struct sw_metrics sw_metrics;

/* path: a file, "-" for standard output. step: records of a resumed run with "step" up to this are kept and later ones
 * dropped (the file is then rewritten); < 0 starts the file anew. eval: the same for evaluations, which the run that
 * resumes does again when they came after its checkpoint. The file grows by whole lines, flushed one by one. */
sw_metrics *sw_metrics_open(const char *path, int64_t step, int64_t eval) SW_MUST_CHECK;
/* Writes one record: {"step": N, "kind": "train" | "eval" | ..., ...}. The object stays the caller's. Numbers are written
 * with as many digits as it takes to read the same double (float where it is one). NaN and infinity become null. */
int sw_metrics_write(sw_metrics *m, const cJSON *record) SW_MUST_CHECK;
int sw_metrics_close(sw_metrics *m) SW_MUST_CHECK; /* fails when something could not be written; NULL is fine */

/* Draws loss, evaluation loss, learning rate and gradient norm over steps from a metrics file by gnuplot, to
 * `out`, which ends in .svg or .png, whole or not at all. An error says when gnuplot is not installed. */
int sw_metrics_plot(const char *metrics, const char *out, const char *title) SW_MUST_CHECK;

#endif
