/* Mixtures of experts: who is chosen, pairs by expert, and rows back to their tokens. */
#include "kernels/reference/reference.h"

#include <math.h>

/* Rows of `scores` as one-dimensional arrays of E values. */
static void put_row(const sw_tensor *scores, int64_t row, const double *from, int64_t n)
{
    for (int64_t e = 0; e < n; e++)
        ref_set(scores, row * n + e, from[e]);
}
static void get_row(double *to, const sw_tensor *t, int64_t row, int64_t n)
{
    for (int64_t e = 0; e < n; e++)
        to[e] = ref_get(t, row * n + e);
}

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

/* s = the scores of n logits, rounded to what `scores` holds, where they go into row `row`. */
static void scores_of(double *s, const double *logits, int64_t n, sw_router_score kind, const sw_tensor *scores, int64_t row)
{
    double sum = 0, top = -INFINITY;
    for (int64_t e = 0; e < n; e++)
        top = logits[e] > top ? logits[e] : top;
    for (int64_t e = 0; e < n; e++) {
        s[e] = apart(kind) ? score_of(logits[e], kind) : exp(logits[e] - top);
        sum += s[e];
    }
    put_row(scores, row, s, n);
    get_row(s, scores, row, n);
    for (int64_t e = 0; !apart(kind) && e < n; e++)
        s[e] /= sum;
    put_row(scores, row, s, n);
    get_row(s, scores, row, n);
}

/* The first of the largest of n values. */
static int64_t largest(const double *v, int64_t n)
{
    int64_t best = 0;
    for (int64_t e = 1; e < n; e++)
        if (v[e] > v[best])
            best = e;
    return best;
}

/* Leaves -INFINITY in the groups that are not among the best. */
static void keep_groups(double *choice, int64_t experts, const sw_router *r)
{
    int64_t each = experts / r->groups;
    double worth[SW_MOST_GROUPS];
    bool keep[SW_MOST_GROUPS] = {false};
    for (int64_t g = 0; g < r->groups; g++) {
        double first = -INFINITY, second = -INFINITY;
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

/* The norm of the chosen scores; 1 where nothing is normalised. */
static double norm_of(const sw_router *r, const double *s, const sw_tensor *ids, int64_t token)
{
    double sum = 0, power = r->power > 0 ? r->power : 1;
    for (int64_t j = 0; r->normalise && j < r->k; j++)
        sum += pow(s[(int64_t)ref_get(ids, token * r->k + j)], power);
    return r->normalise ? pow(sum, 1 / power) : 1;
}

/* The rounds of SW_ROUTE_SPARSEMIXER. What is close to the best is measured by the larger of the best and the score's own
 * magnitude. */
static void mix_row(const sw_router *r, int64_t token, int64_t experts, double *logits, double *left, double *shares,
                    sw_tensor *ids, sw_tensor *weights, const sw_tensor *scores)
{
    for (int64_t e = 0; e < experts; e++)
        left[e] = logits[e];
    for (int64_t j = 0; j < r->k; j++) {
        int64_t best = largest(left, experts), pair = token * r->k + j;
        double top = left[best];
        for (int64_t e = 0; e < experts; e++)
            shares[e] = (top - logits[e]) / fmax(fabs(logits[e]), top) > 2 * r->jitter ? -INFINITY : left[e];
        scores_of(shares, shares, experts, SW_ROUTE_SOFTMAX, scores, pair);
        ref_set(ids, pair, (double)best);
        ref_set(weights, pair, r->scale * shares[best]);
        left[best] = -INFINITY;
    }
}

int ref_route_fwd(sw_stream *s, sw_tensor *ids, sw_tensor *weights, sw_tensor *scores, const sw_tensor *logits,
                  const sw_tensor *correction, const sw_router *r)
{
    int64_t n = logits->shape[0], experts = logits->shape[1];
    double *row = ref_scratch(s, 3 * experts), *choice = row + experts, *score = choice + experts;
    assert(r->k <= experts && r->groups <= SW_MOST_GROUPS);
    if (!row)
        return -1;
    for (int64_t i = 0; i < n; i++) {
        get_row(row, logits, i, experts);
        if (r->score == SW_ROUTE_SPARSEMIXER) {
            mix_row(r, i, experts, row, choice, score, ids, weights, scores);
            continue;
        }
        scores_of(score, row, experts, r->score, scores, i);
        for (int64_t e = 0; e < experts; e++) {
            choice[e] = score[e] + (correction ? ref_get(correction, e) : 0);
            choice[e] = scores->dtype == SW_F32 ? (float)choice[e] : choice[e];
            choice[e] = isnan(choice[e]) ? -INFINITY : choice[e];
        }
        if (r->groups > 1)
            keep_groups(choice, experts, r);
        for (int64_t j = 0; !r->given && j < r->k; j++) {
            int64_t best = largest(choice, experts);
            ref_set(ids, i * r->k + j, (double)best);
            choice[best] = -INFINITY;
        }
        double sum = norm_of(r, score, ids, i) + (r->normalise ? r->eps : 0);
        for (int64_t j = 0; j < r->k; j++)
            ref_set(weights, i * r->k + j, r->scale * score[(int64_t)ref_get(ids, i * r->k + j)] / sum);
    }
    return 0;
}

/* d += the gradient of a token's logits: weight_j = scale s_j / (D + eps), D the norm of the chosen scores (or 1). */
static void row_back(double *d, double *ds, const double *s, int64_t experts, const double *dw, const sw_tensor *ids,
                     int64_t token, const sw_router *r)
{
    double norm = norm_of(r, s, ids, token), sum = norm + (r->normalise ? r->eps : 0), power = r->power > 0 ? r->power : 1;
    double dot = 0, all = 0;
    for (int64_t e = 0; e < experts; e++)
        ds[e] = 0;
    for (int64_t j = 0; r->normalise && j < r->k; j++)
        dot += dw[j] * s[(int64_t)ref_get(ids, token * r->k + j)];
    for (int64_t j = 0; j < r->k; j++) {
        int64_t e = (int64_t)ref_get(ids, token * r->k + j);
        double dnorm = r->normalise && norm > 0 ? pow(s[e] / norm, power - 1) : 0; /* dD / ds_j */
        ds[e] = r->scale * (dw[j] / sum - dnorm * dot / (sum * sum));
        all += ds[e] * s[e];
    }
    for (int64_t e = 0; e < experts; e++)
        d[e] += apart(r->score) ? ds[e] * slope_of(s[e], r->score) : s[e] * (ds[e] - all);
}

int ref_route_bwd(sw_stream *s, sw_tensor *dlogits, const sw_tensor *dweights, const sw_tensor *scores, const sw_tensor *ids,
                  const sw_router *r, int acc)
{
    int64_t n = dlogits->shape[0], experts = dlogits->shape[1], k = r->k;
    double *d = ref_scratch(s, 3 * experts + k), *ds = d + experts, *score = ds + experts, *dw = score + experts;
    if (!d)
        return -1;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t e = 0; e < experts; e++)
            d[e] = 0;
        get_row(dw, dweights, i, k);
        for (int64_t j = 0; r->score == SW_ROUTE_SPARSEMIXER && j < k; j++) {
            int64_t id = (int64_t)ref_get(ids, i * k + j);
            get_row(score, scores, i * k + j, experts);
            for (int64_t e = 0; e < experts; e++)
                d[e] += r->scale * dw[j] * score[id] * ((e == id) - score[e]);
        }
        if (r->score != SW_ROUTE_SPARSEMIXER) {
            get_row(score, scores, i, experts);
            row_back(d, ds, score, experts, dw, ids, i, r);
        }
        ref_store(dlogits, i, d, acc);
    }
    return 0;
}

int ref_dispatch(sw_stream *s, sw_tensor *start, sw_tensor *tokens, sw_tensor *pairs, sw_tensor *experts, sw_tensor *places,
                 const sw_tensor *ids)
{
    int64_t n = ids->shape[0], k = ids->shape[1], count = start->shape[0] - 1, place = 0;
    double *found = ref_scratch(s, n); /* places that each token has so far */
    if (!found)
        return -1;
    for (int64_t i = 0; i < n; i++)
        found[i] = 0;
    for (int64_t e = 0; e < count; e++) {
        ref_set(start, e, (double)place);
        for (int64_t i = 0; i < n * k; i++) {
            if ((int64_t)ref_get(ids, i) != e)
                continue;
            ref_set(tokens, place, (double)(i / k));
            ref_set(pairs, place, (double)i);
            ref_set(experts, place, (double)e);
            ref_set(places, i / k * k + (int64_t)found[i / k]++, (double)place);
            place++;
        }
    }
    ref_set(start, count, (double)place);
    assert(place == n * k);
    return 0;
}

int ref_place_keys(sw_stream *s, sw_tensor *keys, const sw_tensor *of, const sw_tensor *tokens, const sw_tensor *experts)
{
    (void)s;
    assert(keys->dtype == SW_I64 && of->dtype == SW_I64 && sw_is_dense(of));
    for (int64_t i = 0, n = keys->shape[0]; i < n; i++)
        ((int64_t *)keys->data)[i] = sw_rng_key_at(((const int64_t *)of->data)[(int64_t)ref_get(tokens, i)], (int32_t)ref_get(experts, i));
    return 0;
}

int ref_gather_sum(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *ids, int acc)
{
    int64_t n = y->shape[0], width = y->shape[1], k = ids->shape[1];
    assert(ids->shape[0] == n && x->shape[1] == width);
    double *sum = ref_scratch(s, 2 * width), *row = sum + width;
    if (!sum)
        return -1;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t c = 0; c < width; c++)
            sum[c] = 0;
        if (acc)
            ref_load(sum, y, i);
        for (int64_t j = 0; j < k; j++) {
            ref_load(row, x, (int64_t)ref_get(ids, i * k + j));
            for (int64_t c = 0; c < width; c++)
                sum[c] += row[c];
        }
        ref_store(y, i, sum, 0);
    }
    return 0;
}
