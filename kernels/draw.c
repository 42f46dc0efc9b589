#include "kernels/draw.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>

static int32_t largest(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return (int32_t)best;
}

static double log_sum(const float *x, int64_t n, float top)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)x[i] - top);
    return top + log(sum);
}

/* plain: what the logits of those tokens were. */
static void penalise(float *logits, int64_t vocab, const sw_draw *d, const int32_t (*seen)[2], float *plain)
{
    for (int64_t i = 0; i < d->seen_count; i++) {
        float *x = seen[i][0] >= 0 && seen[i][0] < vocab ? &logits[seen[i][0]] : NULL;
        if (!x)
            continue;
        plain[i] = *x;
        if (d->repetition_penalty != 1)
            *x = (float)(*x > 0 ? *x / d->repetition_penalty : *x * d->repetition_penalty);
        if (seen[i][1])
            *x -= (float)(d->presence_penalty + d->frequency_penalty * seen[i][1]);
    }
}

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

static int by_logit(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

static int32_t draw(const float *logits, int64_t vocab, const sw_draw *d, float top)
{
    /* Only tokens within the reach of a float's exponential can be drawn; sorting those few is enough. */
    float floor = top - (float)(d->temperature * 40);
    struct { candidate *at; size_t n, cap; } c = {0};
    for (int64_t i = 0; i < vocab; i++)
        if (logits[i] >= floor) {
            candidate one = {logits[i], (int32_t)i};
            SW_PUSH(c, one);
        }
    qsort(c.at, c.n, sizeof *c.at, by_logit);
    size_t keep = d->top_k > 0 ? SW_MIN(c.n, (size_t)d->top_k) : c.n;
    double total = 0, part = 0;
    for (size_t i = 0; i < keep; i++)
        total += exp(((double)c.at[i].logit - top) / d->temperature);
    if (d->top_p < 1) {
        size_t k = 0;
        while (k < keep && part < d->top_p * total)
            part += exp(((double)c.at[k++].logit - top) / d->temperature);
        keep = SW_MAX(k, 1);
        total = part;
    }
    if (d->min_p > 0) {
        size_t k = 0;
        for (part = 0; k < keep; k++) {
            double share = exp(((double)c.at[k].logit - top) / d->temperature);
            if (share < d->min_p)
                break;
            part += share;
        }
        keep = k;
        total = part;
    }
    double u = (double)sw_rng_u32(&d->rng, d->place) * 0x1p-32 * total, sum = 0;
    size_t k = 0;
    while (k + 1 < keep && (sum += exp(((double)c.at[k].logit - top) / d->temperature)) <= u)
        k++;
    int32_t id = c.n ? c.at[k].id : largest(logits, vocab);
    free(c.at);
    return id;
}

void sw_draw_row(double out[2], float *logits, int64_t vocab, const sw_draw *d, const int32_t (*seen)[2])
{
    out[1] = 0;
    if (d->forced >= 0) {
        out[0] = d->forced;
        return;
    }
    double plain_sum = d->want_logp ? log_sum(logits, vocab, logits[largest(logits, vocab)]) : 0;
    float *plain = d->seen_count ? sw_malloc((size_t)d->seen_count * sizeof *plain) : NULL;
    if (plain)
        penalise(logits, vocab, d, seen, plain);
    int32_t id = largest(logits, vocab);
    if (d->temperature > 0)
        id = draw(logits, vocab, d, logits[id]);
    out[0] = id;
    if (d->want_logp) {
        float logit = logits[id];
        for (int64_t i = 0; i < d->seen_count; i++)
            logit = seen[i][0] == id ? plain[i] : logit;
        out[1] = (double)logit - plain_sum;
    }
    free(plain);
}
