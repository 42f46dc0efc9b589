/* Mixtures of experts: which experts a token goes to, and the way of rows to them and back. */
#include "nn/ops.h"

#include <math.h>
#include <string.h>

typedef struct routed {
    sw_router r;
    int64_t n, experts;
    float *scores;      /* host [n, experts]; SW_ROUTE_SPARSEMIXER: [n, k, experts], the softmax of each choice */
    const int32_t *ids; /* host [n, k] */
} routed;

static void scores_of(float *s, const float *logits, int64_t n, sw_router_score kind)
{
    double sum = 0;
    float top = -INFINITY;
    for (int64_t e = 0; e < n; e++)
        top = logits[e] > top ? logits[e] : top;
    for (int64_t e = 0; e < n; e++) {
        double x = logits[e], v = kind == SW_ROUTE_SIGMOID         ? 1 / (1 + exp(-x))
                                  : kind == SW_ROUTE_SQRT_SOFTPLUS ? sqrt(log1p(exp(-fabs(x))) + fmax(x, 0))
                                                                   : exp(x - (double)top);
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

static double power_of(const routed *d) { return d->r.power > 0 ? d->r.power : 1; }

/* The norm of the chosen scores; 1 where nothing is normalised. */
static double norm_of(const routed *d, const float *s, const int32_t *ids)
{
    double sum = 0, power = power_of(d);
    for (int64_t j = 0; d->r.normalise && j < d->r.k; j++)
        sum += pow(s[ids[j]], power);
    return d->r.normalise ? pow(sum, 1 / power) : 1;
}

static double divisor(const routed *d, const float *s, const int32_t *ids)
{
    return norm_of(d, s, ids) + (d->r.normalise ? d->r.eps : 0);
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

static void mix_row_back(const routed *d, const float *shares, const int32_t *ids, const float *dw, float *dlogits)
{
    memset(dlogits, 0, (size_t)d->experts * sizeof *dlogits);
    for (int64_t j = 0; j < d->r.k; j++, shares += d->experts)
        for (int64_t e = 0; e < d->experts; e++)
            dlogits[e] += (float)(d->r.scale * dw[j] * shares[ids[j]] * ((e == ids[j]) - (double)shares[e]));
}

/* dlogits of a row from dweights: weight_j = scale s_j / (D + eps), D the norm of the chosen scores (or 1). */
static void row_back(const routed *d, const float *s, const int32_t *ids, const float *dw, float *dlogits, double *ds)
{
    double sum = divisor(d, s, ids), norm = norm_of(d, s, ids), power = power_of(d), dot = 0, all = 0;
    memset(ds, 0, (size_t)d->experts * sizeof *ds);
    for (int64_t j = 0; d->r.normalise && j < d->r.k; j++)
        dot += (double)dw[j] * s[ids[j]];
    for (int64_t j = 0; j < d->r.k; j++) {
        double dnorm = d->r.normalise && norm > 0 ? pow(s[ids[j]] / norm, power - 1) : 0; /* dD / ds_j */
        ds[ids[j]] = d->r.scale * ((double)dw[j] / sum - dnorm * dot / (sum * sum));
        all += ds[ids[j]] * s[ids[j]];
    }
    for (int64_t e = 0; e < d->experts; e++) {
        double v = s[e], slope = -expm1(-v * v) / (2 * fmax(v, 1e-30)); /* of sqrt(softplus), whose square v^2 is */
        dlogits[e] = (float)(d->r.score == SW_ROUTE_SIGMOID ? ds[e] * v * (1 - v) : d->r.score == SW_ROUTE_SQRT_SOFTPLUS ? ds[e] * slope : v * (ds[e] - all));
    }
}

static int route_back(sw_ctx *c, sw_node *n)
{
    const routed *d = n->data;
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    if (!g)
        return acc == -2 ? -1 : 0;
    float *dw = sw_ctx_alloc(c, (size_t)(d->n * d->r.k) * sizeof *dw),
          *dlogits = sw_ctx_alloc(c, (size_t)(d->n * d->experts) * sizeof *dlogits);
    double *ds = sw_ctx_alloc(c, (size_t)d->experts * sizeof *ds);
    if (sw_to_host(c, n->out[0]->grad, dw))
        return -1;
    bool mixes = d->r.score == SW_ROUTE_SPARSEMIXER;
    for (int64_t i = 0; mixes && i < d->n; i++)
        mix_row_back(d, d->scores + i * d->r.k * d->experts, d->ids + i * d->r.k, dw + i * d->r.k, dlogits + i * d->experts);
    for (int64_t i = 0; !mixes && i < d->n; i++)
        row_back(d, d->scores + i * d->experts, d->ids + i * d->r.k, dw + i * d->r.k, dlogits + i * d->experts, ds);
    sw_var *back = sw_from_host(c, SW_F32, 2, (int64_t[]){d->n, d->experts}, dlogits);
    return !back || sw_k(c)->axpby(sw_s(c), g, 1, &back->t, acc) ? -1 : 0;
}

sw_var *sw_route(sw_ctx *c, sw_var *logits, const float *correction, const sw_router *r, int32_t *ids)
{
    int64_t n = logits->t.shape[0], experts = logits->t.shape[1];
    routed *d = sw_ctx_alloc(c, sizeof *d);
    float *host = sw_ctx_alloc(c, (size_t)(n * experts) * sizeof *host),
          *choice = sw_ctx_alloc(c, (size_t)experts * sizeof *choice);
    float *weights = sw_ctx_alloc(c, (size_t)(n * r->k) * sizeof *weights);
    bool mixes = r->score == SW_ROUTE_SPARSEMIXER;
    *d = (routed){*r, n, experts, sw_ctx_alloc(c, (size_t)(n * (mixes ? r->k : 1) * experts) * sizeof(float)), ids};
    sw_var *plain = sw_cast(c, logits, SW_F32);
    if (!plain || sw_to_host(c, plain, host))
        return NULL;
    for (int64_t i = 0; mixes && i < n; i++)
        mix_row(r, host + i * experts, experts, choice, d->scores + i * r->k * experts, ids + i * r->k, weights + i * r->k);
    for (int64_t i = 0; !mixes && i < n; i++) {
        float *s = d->scores + i * experts;
        scores_of(s, host + i * experts, experts, r->score);
        for (int64_t e = 0; e < experts; e++) {
            choice[e] = s[e] + (correction ? correction[e] : 0);
            if (isnan(choice[e]))
                choice[e] = -INFINITY;
        }
        if (r->groups > 1)
            keep_groups(choice, experts, r);
        for (int64_t j = 0; j < r->k; j++) {
            int64_t best = r->chosen ? r->chosen[i * r->k + j] : largest(choice, experts);
            ids[i * r->k + j] = (int32_t)best;
            choice[best] = -INFINITY;
        }
        double sum = divisor(d, s, ids + i * r->k);
        for (int64_t j = 0; j < r->k; j++)
            weights[i * r->k + j] = (float)(r->scale * s[ids[i * r->k + j]] / sum);
    }
    sw_var *w = sw_from_host(c, SW_F32, 2, (int64_t[]){n * r->k, 1}, weights);
    return w ? sw_record(c, (sw_node){.op = "route", .back = route_back, .in = {plain}, .out = {w}, .data = d}) : NULL;
}

/* ---- rows back to their tokens */

static int scatter_add_back(sw_ctx *c, sw_node *n)
{
    const sw_kernels *k = sw_k(c);
    const sw_tensor *ids = &n->saved[0]->t;
    int acc;
    sw_tensor *g = sw_grad(c, n->in[1], &acc);
    if (acc == -2)
        return -1;
    if (g && acc) {
        sw_var *rows = sw_tmp(c, g->dtype, g->ndim, g->shape);
        if (!rows || k->gather_rows(sw_s(c), &rows->t, &n->out[0]->grad->t, ids) ||
            k->axpby(sw_s(c), g, 1, &rows->t, 1))
            return -1;
    } else if (g && k->gather_rows(sw_s(c), g, &n->out[0]->grad->t, ids)) {
        return -1;
    }
    return sw_grad_pass(c, n->in[0], n->out[0]);
}

sw_var *sw_scatter_add(sw_ctx *c, sw_var *y, sw_var *x, sw_var *ids)
{
    sw_tensor from = y->t;
    sw_var *sum = sw_take_over(c, y);
    if (!sum || (sum->t.data != from.data && sw_k(c)->copy(sw_s(c), &sum->t, &from)) ||
        sw_k(c)->scatter_rows(sw_s(c), &sum->t, &x->t, &ids->t, 1))
        return NULL;
    return sw_record(
        c, (sw_node){.op = "scatter_add", .back = scatter_add_back, .in = {y, x}, .out = {sum}, .saved = {ids}});
}
