/* Learning-rate schedules, by the formulas of transformers' optimization.py: factors of the base rate. */
#ifndef SWIFT_TRAIN_SCHEDULE_H
#define SWIFT_TRAIN_SCHEDULE_H

#include "base/error.h"

#include <stdint.h>

typedef struct sw_schedule {
    const char *name; /* --schedule */
    const char *help; /* a line for the man page */
    /* Factor for update `step` (0-based) of `total`, after the warm-up; progress is (step - warmup) / (total - warmup) in [0, 1]. */
    double (*factor)(int64_t step, int64_t warmup, int64_t total);
} sw_schedule;

extern const sw_schedule sw_schedules[]; /* ends with name NULL */
const sw_schedule *sw_schedule_find(const char *name) SW_MUST_CHECK; /* the error lists the known ones */
/* Factor of update `step`: linear from 0 over `warmup` updates, then the schedule's own. */
double sw_schedule_at(const sw_schedule *s, int64_t step, int64_t warmup, int64_t total);

#endif
