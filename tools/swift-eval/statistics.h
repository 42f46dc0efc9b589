/* Values of metrics and how sure they are: the percentile bootstrap (B. Efron, "Bootstrap methods: another look at the
 * jackknife", 1979), over records. */
#ifndef SWIFT_EVAL_STATISTICS_H
#define SWIFT_EVAL_STATISTICS_H

#include <stddef.h>
#include <stdint.h>

/* What a record adds to a metric: the metric is the ratio of the sums over all records, on its scale. An accuracy has
 * weight 1 a record; a perplexity weighs each record by its tokens. */
typedef struct eval_amount {
    double sum, weight;
} eval_amount;

typedef enum eval_scale {
    EVAL_MEAN,
    EVAL_EXP, /* exp of the ratio */
} eval_scale;

typedef struct eval_interval {
    double low, high;
} eval_interval;

double eval_value(eval_scale scale, double ratio);
/* The ratio over n records; stride: amounts from one record to the next. */
double eval_ratio(const eval_amount *a, size_t n, size_t stride);

/* Ratios of `resamples` draws of n records from n with replacement, for m metrics of the same records: a is [n][m],
 * ratios [m][resamples]. Draw b depends on (seed, b) only: not on the threads, and the same n and seed draw the same
 * records, which makes differences of two calls paired. n > 0. */
void eval_bootstrap(const eval_amount *a, size_t n, size_t m, int64_t resamples, uint64_t seed, double *ratios);

/* The middle part of the values, `confidence` of them; sorts values. Between two of them it interpolates linearly.
 * NaN, from draws whose weights add up to 0, is left out. */
eval_interval eval_middle(double *values, int64_t n, double confidence);

#endif
