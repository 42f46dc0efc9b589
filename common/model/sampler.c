#include "model/sampler.h"

#include "base/memory.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

const sw_sampling sw_sampling_greedy = {.top_p = 1, .repetition_penalty = 1};

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

static int by_id(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static void penalise(float *logits, int64_t vocab, const sw_sampling *s, const int32_t *seen, size_t n, size_t n_prompt)
{
    int32_t *ids = sw_malloc(n * sizeof *ids);
    if (s->repetition_penalty != 1) {
        memcpy(ids, seen, n * sizeof *ids);
        qsort(ids, n, sizeof *ids, by_id);
        for (size_t i = 0; i < n; i++) {
            float *x = ids[i] >= 0 && ids[i] < vocab && (!i || ids[i] != ids[i - 1]) ? &logits[ids[i]] : NULL;
            if (x)
                *x = (float)(*x > 0 ? *x / s->repetition_penalty : *x * s->repetition_penalty);
        }
    }
    size_t made = n - n_prompt;
    if (made && (s->presence_penalty != 0 || s->frequency_penalty != 0)) {
        memcpy(ids, seen + n_prompt, made * sizeof *ids);
        qsort(ids, made, sizeof *ids, by_id);
        for (size_t i = 0, count; i < made; i += count) {
            for (count = 1; i + count < made && ids[i + count] == ids[i]; count++)
                ;
            if (ids[i] >= 0 && ids[i] < vocab)
                logits[ids[i]] -= (float)(s->presence_penalty + s->frequency_penalty * (double)count);
        }
    }
    free(ids);
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

int32_t sw_sample(float *logits, int64_t vocab, const sw_sampling *s, const int32_t *seen, size_t n, size_t n_prompt, uint32_t stream,
                  double *logp)
{
    float plain_top = logits[largest(logits, vocab)];
    double plain_sum = logp ? log_sum(logits, vocab, plain_top) : 0;
    bool penalties = n && (s->repetition_penalty != 1 || s->presence_penalty != 0 || s->frequency_penalty != 0);
    float *plain = NULL;
    if (penalties && logp) {
        plain = sw_malloc((size_t)vocab * sizeof *plain);
        memcpy(plain, logits, (size_t)vocab * sizeof *plain);
    }
    if (penalties)
        penalise(logits, vocab, s, seen, n, n_prompt);
    int32_t id = largest(logits, vocab);
    if (s->temperature > 0) {
        /* Only tokens within the reach of a float's exponential can be drawn; sorting those few is enough. */
        float top = logits[id], floor = top - (float)(s->temperature * 40);
        struct { candidate *at; size_t n, cap; } c = {0};
        for (int64_t i = 0; i < vocab; i++)
            if (logits[i] >= floor) {
                candidate one = {logits[i], (int32_t)i};
                SW_PUSH(c, one);
            }
        qsort(c.at, c.n, sizeof *c.at, by_logit);
        size_t keep = s->top_k > 0 ? SW_MIN(c.n, (size_t)s->top_k) : c.n;
        double total = 0, part = 0;
        for (size_t i = 0; i < keep; i++)
            total += exp(((double)c.at[i].logit - top) / s->temperature);
        if (s->top_p < 1) {
            size_t k = 0;
            while (k < keep && part < s->top_p * total)
                part += exp(((double)c.at[k++].logit - top) / s->temperature);
            keep = SW_MAX(k, 1);
            total = part;
        }
        if (s->min_p > 0) {
            size_t k = 0;
            for (part = 0; k < keep; k++) {
                double share = exp(((double)c.at[k].logit - top) / s->temperature);
                if (share < s->min_p)
                    break;
                part += share;
            }
            keep = k;
            total = part;
        }
        sw_rng rng = {s->seed, stream, sw_rng_site("sample")};
        double u = (double)sw_rng_u32(&rng, n - n_prompt) * 0x1p-32 * total, sum = 0;
        size_t k = 0;
        while (k + 1 < keep && (sum += exp(((double)c.at[k].logit - top) / s->temperature)) <= u)
            k++;
        id = c.at[k].id;
        free(c.at);
    }
    if (logp)
        *logp = (double)(plain ? plain[id] : logits[id]) - plain_sum;
    free(plain);
    return id;
}
