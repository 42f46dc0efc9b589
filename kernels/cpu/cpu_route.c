/* Mixtures of experts: who is chosen, pairs by expert, and rows back to their tokens. Scores are computed in double and stored in
 * f32, so that what decides a choice is the same on every processor (built without contraction: kernels.mk). */
#include "cpu_isa.h"

#include "base/memory.h"

#include <math.h>

/* Those that are no shares of a sum. */
static double score_of(double x, sw_router_score kind)
{
    return kind == SW_ROUTE_SIGMOID ? 1 / (1 + exp(-x)) : sqrt(log1p(exp(-fabs(x))) + fmax(x, 0));
}
/* Their slope where the score is v: that of sqrt(softplus) has 1 - exp(-v^2) = sigmoid(x) in it. */
static double slope_of(double v, sw_router_score kind)
{
    return kind == SW_ROUTE_SIGMOID ? v * (1 - v) : -expm1(-v * v) / (2 * fmax(v, 1e-30));
}
static bool apart(sw_router_score kind) { return kind == SW_ROUTE_SIGMOID || kind == SW_ROUTE_SQRT_SOFTPLUS; }

static void scores_of(float *s, const float *logits, int64_t n, sw_router_score kind)
{
    double sum = 0;
    float top = -INFINITY;
    for (int64_t e = 0; e < n; e++)
        top = logits[e] > top ? logits[e] : top;
    for (int64_t e = 0; e < n; e++) {
        double v = apart(kind) ? score_of(logits[e], kind) : exp((double)logits[e] - (double)top);
        s[e] = (float)v;
        sum += v;
    }
    for (int64_t e = 0; kind == SW_ROUTE_SOFTMAX && e < n; e++)
        s[e] = (float)((double)s[e] / sum);
}

/* The largest of n values that is not yet taken (-INFINITY); the first of equal ones. */
static int64_t largest(const float *v, int64_t n)
{
    int64_t best = 0;
    for (int64_t e = 1; e < n; e++)
        if (v[e] > v[best])
            best = e;
    return best;
}

/* Leaves -INFINITY in the groups that are not among the best. */
static void keep_groups(float *choice, int64_t experts, const sw_router *r)
{
    int64_t each = experts / r->groups;
    float worth[SW_MOST_GROUPS];
    bool keep[SW_MOST_GROUPS] = {false};
    for (int64_t g = 0; g < r->groups; g++) {
        float first = -INFINITY, second = -INFINITY;
        for (int64_t e = g * each; e < (g + 1) * each; e++) {
            second = choice[e] > first ? first : choice[e] > second ? choice[e] : second;
            first = choice[e] > first ? choice[e] : first;
        }
        worth[g] = r->group_by_two && each > 1 ? first + second : first;
    }
    for (int64_t i = 0; i < r->top_groups; i++) {
        int64_t best = largest(worth, r->groups);
        keep[best] = true;
        worth[best] = -INFINITY;
    }
    for (int64_t e = 0; e < experts; e++)
        if (!keep[e / each])
            choice[e] = -INFINITY;
}

static double power_of(const sw_router *r) { return r->power > 0 ? r->power : 1; }

/* The norm of the chosen scores; 1 where nothing is normalised. */
static double norm_of(const sw_router *r, const float *s, const int32_t *ids)
{
    double sum = 0, power = power_of(r);
    for (int64_t j = 0; r->normalise && j < r->k; j++)
        sum += pow(s[ids[j]], power);
    return r->normalise ? pow(sum, 1 / power) : 1;
}

/* The rounds of SW_ROUTE_SPARSEMIXER for one token. What is close to the best is measured by the larger of the best and the
 * score's own magnitude. */
static void mix_row(const sw_router *r, const float *logits, int64_t experts, float *left, float *shares, int32_t *ids,
                    float *weights)
{
    memcpy(left, logits, (size_t)experts * sizeof *left);
    for (int64_t j = 0; j < r->k; j++, shares += experts) {
        int64_t best = largest(left, experts);
        float top = left[best];
        for (int64_t e = 0; e < experts; e++) {
            bool far = (top - logits[e]) / fmaxf(fabsf(logits[e]), top) > 2 * r->jitter;
            shares[e] = far ? -INFINITY : left[e];
        }
        scores_of(shares, shares, experts, SW_ROUTE_SOFTMAX);
        ids[j] = (int32_t)best;
        weights[j] = (float)(r->scale * shares[best]);
        left[best] = -INFINITY;
    }
}

static void choose_row(const sw_router *r, const float *logits, const float *correction, int64_t experts, float *choice, float *s,
                       int32_t *ids, float *weights)
{
    scores_of(s, logits, experts, r->score);
    for (int64_t e = 0; e < experts; e++) {
        choice[e] = s[e] + (correction ? correction[e] : 0);
        if (isnan(choice[e]))
            choice[e] = -INFINITY;
    }
    if (r->groups > 1)
        keep_groups(choice, experts, r);
    for (int64_t j = 0; !r->given && j < r->k; j++) {
        int64_t best = largest(choice, experts);
        ids[j] = (int32_t)best;
        choice[best] = -INFINITY;
    }
    double sum = norm_of(r, s, ids) + (r->normalise ? r->eps : 0);
    for (int64_t j = 0; j < r->k; j++)
        weights[j] = (float)(r->scale * s[ids[j]] / sum);
}

int SW_CPU(route_fwd)(sw_stream *s, sw_tensor *ids, sw_tensor *weights, sw_tensor *scores, const sw_tensor *logits,
                      const sw_tensor *correction, const sw_router *r)
{
    int64_t n = logits->shape[0], experts = logits->shape[1], k = r->k;
    size_t each = (size_t)experts * sizeof(float);
    char *space = sw_thread_space(s, &each);
    if (!space)
        return -1;
#pragma omp parallel for schedule(static) if (n * experts >= SW_PARALLEL / 16)
    for (int64_t i = 0; i < n; i++) {
        float *choice = (float *)(void *)(space + (size_t)omp_get_thread_num() * each);
        const float *row = sw_at(logits, i * experts);
        int32_t *id = (int32_t *)ids->data + i * k;
        float *w = (float *)weights->data + i * k;
        if (r->score == SW_ROUTE_SPARSEMIXER)
            mix_row(r, row, experts, choice, sw_at(scores, i * k * experts), id, w);
        else
            choose_row(r, row, correction ? correction->data : NULL, experts, choice, sw_at(scores, i * experts), id, w);
    }
    return 0;
}

static void mix_row_back(const sw_router *r, int64_t experts, const float *shares, const int32_t *ids, const float *dw,
                         float *dlogits)
{
    for (int64_t j = 0; j < r->k; j++, shares += experts)
        for (int64_t e = 0; e < experts; e++)
            dlogits[e] += (float)(r->scale * dw[j] * shares[ids[j]] * ((e == ids[j]) - (double)shares[e]));
}

/* dlogits of a row from dweights: weight_j = scale s_j / (D + eps), D the norm of the chosen scores (or 1). */
static void row_back(const sw_router *r, int64_t experts, const float *s, const int32_t *ids, const float *dw, float *dlogits,
                     double *ds)
{
    double norm = norm_of(r, s, ids), sum = norm + (r->normalise ? r->eps : 0), power = power_of(r), dot = 0, all = 0;
    memset(ds, 0, (size_t)experts * sizeof *ds);
    for (int64_t j = 0; r->normalise && j < r->k; j++)
        dot += (double)dw[j] * s[ids[j]];
    for (int64_t j = 0; j < r->k; j++) {
        double dnorm = r->normalise && norm > 0 ? pow(s[ids[j]] / norm, power - 1) : 0; /* dD / ds_j */
        ds[ids[j]] = r->scale * ((double)dw[j] / sum - dnorm * dot / (sum * sum));
        all += ds[ids[j]] * s[ids[j]];
    }
    for (int64_t e = 0; e < experts; e++)
        dlogits[e] += (float)(apart(r->score) ? ds[e] * slope_of(s[e], r->score) : s[e] * (ds[e] - all));
}

int SW_CPU(route_bwd)(sw_stream *s, sw_tensor *dlogits, const sw_tensor *dweights, const sw_tensor *scores, const sw_tensor *ids,
                      const sw_router *r, int acc)
{
    int64_t n = dlogits->shape[0], experts = dlogits->shape[1], k = r->k;
    size_t each = (size_t)experts * sizeof(double);
    char *space = sw_thread_space(s, &each);
    if (!space)
        return -1;
#pragma omp parallel for schedule(static) if (n * experts >= SW_PARALLEL / 16)
    for (int64_t i = 0; i < n; i++) {
        double *ds = (double *)(void *)(space + (size_t)omp_get_thread_num() * each);
        const int32_t *id = (const int32_t *)ids->data + i * k;
        const float *dw = (const float *)dweights->data + i * k;
        float *to = sw_at(dlogits, i * experts);
        if (!acc)
            memset(to, 0, (size_t)experts * sizeof *to);
        if (r->score == SW_ROUTE_SPARSEMIXER)
            mix_row_back(r, experts, sw_at(scores, i * k * experts), id, dw, to);
        else
            row_back(r, experts, sw_at(scores, i * experts), id, dw, to, ds);
    }
    return 0;
}

int SW_CPU(dispatch)(sw_stream *s, sw_tensor *start, sw_tensor *tokens, sw_tensor *pairs, sw_tensor *experts, sw_tensor *places,
                     const sw_tensor *ids)
{
    int64_t n = ids->shape[0], k = ids->shape[1], count = start->shape[0] - 1;
    const int32_t *id = ids->data;
    int32_t *first = start->data, *next = sw_stream_scratch(s, (size_t)(count + n) * sizeof *next), *found = next + count;
    if (!next)
        return -1;
    memset(first, 0, (size_t)(count + 1) * sizeof *first);
    memset(found, 0, (size_t)n * sizeof *found); /* places that each token has so far */
    for (int64_t i = 0; i < n * k; i++)
        first[id[i] + 1]++;
    for (int64_t e = 0; e < count; e++) {
        next[e] = first[e];
        first[e + 1] += first[e];
    }
    for (int64_t i = 0; i < n * k; i++) {
        int32_t place = next[id[i]]++;
        ((int32_t *)tokens->data)[place] = (int32_t)(i / k);
        ((int32_t *)pairs->data)[place] = (int32_t)i;
        ((int32_t *)experts->data)[place] = id[i];
    }
    for (int64_t place = 0; place < n * k; place++) {
        int32_t token = ((const int32_t *)tokens->data)[place];
        ((int32_t *)places->data)[token * k + found[token]++] = (int32_t)place;
    }
    return 0;
}

int SW_CPU(place_keys)(sw_stream *s, sw_tensor *keys, const sw_tensor *of, const sw_tensor *tokens, const sw_tensor *experts)
{
    (void)s;
    const int64_t *key = of->data;
    for (int64_t i = 0, n = keys->shape[0]; i < n; i++)
        ((int64_t *)keys->data)[i] = sw_rng_key_at(key[((const int32_t *)tokens->data)[i]], ((const int32_t *)experts->data)[i]);
    return 0;
}

int SW_CPU(gather_sum)(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *ids, int acc)
{
    (void)s;
    sw_runs r = sw_cut(y, false);
    int64_t k = ids->shape[1];
#pragma omp parallel for schedule(static) if (r.values * k >= SW_PARALLEL)
    for (int64_t i = 0; i < r.count; i++) {
        float sum[SW_RUN] = {0}, buf[SW_RUN];
        int64_t n = sw_run_length(&r, i), column = sw_run_column(&r, i);
        const int32_t *id = (const int32_t *)ids->data + i / r.per_row * k;
        if (acc) {
            const float *old = sw_run_load(&r, y, i, buf);
            memcpy(sum, old, (size_t)n * sizeof *sum);
        }
        for (int64_t j = 0; j < k; j++) {
            const float *from = sw_load(sw_at(x, id[j] * x->stride[0] + column), x->dtype, n, buf);
            for (int64_t c = 0; c < n; c++)
                sum[c] += from[c];
        }
        sw_run_store(&r, y, i, sum);
    }
    return 0;
}
