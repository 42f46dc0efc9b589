#include "data/lengths.h"

#include "base/memory.h"

#include <math.h>

static int bucket_of(int64_t length)
{
    if (length < 64)
        return (int)length;
    int log = 63 - __builtin_clzll((uint64_t)length); /* at least 6 */
    return 64 + (log - 6) * 32 + (int)((length >> (log - 5)) & 31);
}

/* The largest length of a bucket. */
static int64_t bucket_end(int b)
{
    if (b < 64)
        return b;
    int log = 6 + (b - 64) / 32;
    return (int64_t)((((uint64_t)(32 + (b - 64) % 32) + 1) << (log - 5)) - 1);
}

void sw_lengths_add(sw_lengths *l, int64_t length)
{
    l->min = l->n ? SW_MIN(l->min, length) : length;
    l->max = SW_MAX(l->max, length);
    l->n++;
    l->sum += (double)length;
    l->squares += (double)length * (double)length;
    l->buckets[bucket_of(length)]++;
}

int64_t sw_lengths_quantile(const sw_lengths *l, double q)
{
    int64_t want = (int64_t)ceil(q * (double)l->n), below = 0;
    for (int b = 0; b < SW_LENGTH_BUCKETS; b++) {
        below += l->buckets[b];
        if (below >= SW_MAX(want, 1))
            return SW_MIN(bucket_end(b), l->max);
    }
    return l->max;
}

/* A width that gives at most `bars` bars up to the 99.9th percentile. */
static int64_t bar_width(const sw_lengths *l, int bars)
{
    int64_t reach = sw_lengths_quantile(l, 0.999) + 1, width = 1;
    while (width * bars < reach)
        width = width % 3 == 0 ? width / 3 * 4 : width > 1 ? width / 2 * 3 : 2;
    return width;
}

cJSON *sw_lengths_json(const sw_lengths *l, int bars)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddNumberToObject(o, "count", (double)l->n);
    if (!l->n)
        return o;
    double mean = l->sum / (double)l->n;
    cJSON_AddNumberToObject(o, "sum", l->sum);
    cJSON_AddNumberToObject(o, "mean", mean);
    cJSON_AddNumberToObject(o, "sd", sqrt(SW_MAX(l->squares / (double)l->n - mean * mean, 0)));
    cJSON_AddNumberToObject(o, "min", (double)l->min);
    cJSON_AddNumberToObject(o, "max", (double)l->max);
    static const struct {
        const char *name;
        double q;
    } quantiles[] = {{"p1", .01},  {"p5", .05}, {"p25", .25}, {"p50", .5},
                     {"p75", .75}, {"p90", .9}, {"p95", .95}, {"p99", .99}};
    for (size_t i = 0; i < SW_COUNT(quantiles); i++)
        cJSON_AddNumberToObject(o, quantiles[i].name, (double)sw_lengths_quantile(l, quantiles[i].q));
    cJSON *list = cJSON_AddArrayToObject(o, "histogram");
    int64_t width = bar_width(l, bars), start = 0, n = 0;
    for (int b = 0; b < SW_LENGTH_BUCKETS; b++) { /* a bucket that two bars share counts for the one it ends in */
        if (!l->buckets[b])
            continue;
        int64_t bar = bucket_end(b) / width * width;
        if (bar != start && n) {
            double row[] = {(double)start, (double)(start + width - 1), (double)n};
            cJSON_AddItemToArray(list, cJSON_CreateDoubleArray(row, 3));
            n = 0;
        }
        start = bar;
        n += l->buckets[b];
    }
    double row[] = {(double)start, (double)(start + width - 1), (double)n};
    cJSON_AddItemToArray(list, cJSON_CreateDoubleArray(row, 3));
    return o;
}
