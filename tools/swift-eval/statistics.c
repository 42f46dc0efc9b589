#include "statistics.h"

#include "base/philox.h"

#include <math.h>
#include <stdlib.h>

double eval_value(eval_scale scale, double ratio) { return scale == EVAL_EXP ? exp(ratio) : ratio; }

double eval_ratio(const eval_amount *a, size_t n, size_t stride)
{
    double sum = 0, weight = 0;
    for (size_t i = 0; i < n; i++) {
        sum += a[i * stride].sum;
        weight += a[i * stride].weight;
    }
    return sum / weight;
}

enum { AT_ONCE = 8 }; /* metrics whose sums are held while records are drawn */

void eval_bootstrap(const eval_amount *a, size_t n, size_t m, int64_t resamples, uint64_t seed, double *ratios)
{
    const uint32_t site = sw_rng_site("bootstrap");
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < resamples; b++) {
        const sw_rng rng = {.seed = seed, .step = (uint32_t)b, .site = site};
        for (size_t first = 0; first < m; first += AT_ONCE) {
            size_t last = first + AT_ONCE < m ? first + AT_ONCE : m;
            eval_amount all[AT_ONCE] = {{0, 0}};
            for (size_t i = 0; i < n; i++) {
                const eval_amount *record = a + (size_t)sw_rng_below(&rng, i, n) * m;
                for (size_t k = first; k < last; k++) {
                    all[k - first].sum += record[k].sum;
                    all[k - first].weight += record[k].weight;
                }
            }
            for (size_t k = first; k < last; k++)
                ratios[k * (size_t)resamples + (size_t)b] = all[k - first].sum / all[k - first].weight;
        }
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, int64_t n, double q)
{
    double at = q * (double)(n - 1);
    int64_t below = (int64_t)at;
    double part = at - (double)below;
    return part > 0 ? sorted[below] + part * (sorted[below + 1] - sorted[below]) : sorted[below];
}

eval_interval eval_middle(double *values, int64_t n, double confidence)
{
    int64_t numbers = 0;
    for (int64_t i = 0; i < n; i++)
        if (!isnan(values[i]))
            values[numbers++] = values[i];
    n = numbers;
    if (!n)
        return (eval_interval){NAN, NAN};
    qsort(values, (size_t)n, sizeof *values, ascending);
    double tail = (1 - confidence) / 2;
    return (eval_interval){quantile(values, n, tail), quantile(values, n, 1 - tail)};
}
