/* Lengths of many records in little memory: exact sums and extremes, quantiles to within 1.6 %, a histogram. */
#ifndef SW_DATA_LENGTHS_H
#define SW_DATA_LENGTHS_H

#include <cjson/cJSON.h>
#include <stdint.h>

/* Exact below 64, above it 32 buckets for each doubling. */
enum { SW_LENGTH_BUCKETS = 64 + 32 * 58 };

typedef struct sw_lengths {
    int64_t n, min, max;
    double sum, squares;
    int64_t buckets[SW_LENGTH_BUCKETS];
} sw_lengths;

void sw_lengths_add(sw_lengths *l, int64_t length);
/* The smallest length that at least the share q (0..1) of the records does not exceed, rounded up within its bucket. */
int64_t sw_lengths_quantile(const sw_lengths *l, double q);
/* {"count", "sum", "mean", "sd", "min", "max", "p1" ... "p99", "histogram": [[first, last, count], ...]}: about
 * `bars` bars of equal width, a power of 2 or three halves of one; count 0 gives the count alone. Caller frees. */
cJSON *sw_lengths_json(const sw_lengths *l, int bars);

#endif
