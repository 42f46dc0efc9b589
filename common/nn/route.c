/* Mixtures of experts: which experts a token goes to, and the way of rows to them and back. All of it happens on the device. */
#include "nn/ops.h"

#include <assert.h>
#include <limits.h>

static int route_back(sw_ctx *c, sw_node *n)
{
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    if (!g)
        return acc == -2 ? -1 : 0;
    return sw_k(c)->route_bwd(sw_s(c), g, &n->out[0]->grad->t, &n->saved[0]->t, &n->saved[1]->t, n->data, acc);
}

sw_var *sw_route(sw_ctx *c, sw_var *logits, sw_param *correction, const sw_router *r, sw_var **ids)
{
    int64_t n = logits->t.shape[0], experts = logits->t.shape[1];
    sw_router *kept = sw_ctx_alloc(c, sizeof *kept);
    *kept = *r;
    kept->given = *ids != NULL;
    sw_var *plain = sw_cast(c, logits, SW_F32);
    sw_var *scores = plain ? sw_tmp2(c, SW_F32, n * (r->score == SW_ROUTE_SPARSEMIXER ? r->k : 1), experts) : NULL,
           *w = scores ? sw_tmp2(c, SW_F32, n * r->k, 1) : NULL;
    if (!w || (!*ids && !(*ids = sw_tmp2(c, SW_I32, n, r->k))))
        return NULL;
    if (sw_k(c)->route_fwd(sw_s(c), &(*ids)->t, &w->t, &scores->t, &plain->t, correction ? &correction->v.t : NULL, kept))
        return NULL;
    return sw_record(
        c, (sw_node){.op = "route", .back = route_back, .in = {plain}, .out = {w}, .saved = {scores, *ids}, .data = kept});
}

int sw_dispatch_pairs(sw_ctx *c, sw_var *ids, int64_t experts, sw_dispatch *d)
{
    int64_t n = ids->t.shape[0], k = ids->t.shape[1];
    if (n * k > INT_MAX)
        return sw_fail("%lld tokens with %lld experts each are more than %d at a time; lower the batch size", (long long)n,
                       (long long)k, INT_MAX);
    *d = (sw_dispatch){.n = n, .k = k, .experts = experts};
    if (!(d->start = sw_tmp1(c, SW_I32, experts + 1)) || !(d->tokens = sw_tmp1(c, SW_I32, n * k)) ||
        !(d->pairs = sw_tmp1(c, SW_I32, n * k)) || !(d->of = sw_tmp1(c, SW_I32, n * k)) ||
        !(d->places = sw_tmp2(c, SW_I32, n, k)))
        return -1;
    return sw_k(c)->dispatch(sw_s(c), &d->start->t, &d->tokens->t, &d->pairs->t, &d->of->t, &d->places->t, &ids->t);
}

/* ---- rows to places and back */

static int to_places_back(sw_ctx *c, sw_node *n)
{
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    if (!g)
        return acc == -2 ? -1 : 0;
    return sw_k(c)->gather_sum(sw_s(c), g, &n->out[0]->grad->t, &n->saved[1]->t, acc);
}

/* A gradient at other rows: g = dy[ids], or += . */
static int pass_rows(sw_ctx *c, sw_node *n, bool scatter)
{
    const sw_kernels *k = sw_k(c);
    const sw_tensor *dy = &n->out[0]->grad->t, *ids = &n->saved[0]->t;
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc), *to = g;
    if (!g)
        return acc == -2 ? -1 : 0;
    if (acc) {
        sw_var *rows = sw_tmp(c, g->dtype, g->ndim, g->shape);
        if (!rows)
            return -1;
        to = &rows->t;
    }
    if (scatter ? k->scatter_rows(sw_s(c), to, dy, ids, 0) : k->gather_rows(sw_s(c), to, dy, ids))
        return -1;
    return acc ? k->axpby(sw_s(c), g, 1, to, 1) : 0;
}
static int gather_the_gradient(sw_ctx *c, sw_node *n) { return pass_rows(c, n, false); }
static int scatter_the_gradient(sw_ctx *c, sw_node *n) { return pass_rows(c, n, true); }

static sw_var *rows_like(sw_ctx *c, const sw_var *x, int64_t n)
{
    assert(x->t.ndim == 2);
    return sw_tmp2(c, x->t.dtype, n, x->t.shape[1]);
}

sw_var *sw_to_places(sw_ctx *c, sw_var *x, const sw_dispatch *d)
{
    sw_var *y = rows_like(c, x, d->n * d->k);
    if (!y || sw_k(c)->gather_rows(sw_s(c), &y->t, &x->t, &d->tokens->t))
        return NULL;
    return sw_record(
        c, (sw_node){.op = "to_places", .back = to_places_back, .in = {x}, .out = {y}, .saved = {d->tokens, d->places}});
}

sw_var *sw_keys_at_places(sw_ctx *c, const sw_dispatch *d)
{
    sw_var *keys = sw_tmp1(c, SW_I64, d->n * d->k);
    return keys && !sw_k(c)->place_keys(sw_s(c), &keys->t, &c->keys->t, &d->tokens->t, &d->of->t) ? keys : NULL;
}

sw_var *sw_from_places(sw_ctx *c, sw_var *x, const sw_dispatch *d)
{
    sw_var *y = rows_like(c, x, d->n);
    if (!y || sw_k(c)->gather_sum(sw_s(c), &y->t, &x->t, &d->places->t, 0))
        return NULL;
    return sw_record(c, (sw_node){.op = "from_places", .back = gather_the_gradient, .in = {x}, .out = {y}, .saved = {d->tokens}});
}

sw_var *sw_pairs_to_places(sw_ctx *c, sw_var *x, const sw_dispatch *d)
{
    sw_var *y = rows_like(c, x, d->n * d->k);
    if (!y || sw_k(c)->gather_rows(sw_s(c), &y->t, &x->t, &d->pairs->t))
        return NULL;
    return sw_record(
        c, (sw_node){.op = "pairs_to_places", .back = scatter_the_gradient, .in = {x}, .out = {y}, .saved = {d->pairs}});
}

sw_var *sw_places_to_pairs(sw_ctx *c, sw_var *x, const sw_dispatch *d)
{
    sw_var *y = rows_like(c, x, d->n * d->k);
    if (!y || sw_k(c)->scatter_rows(sw_s(c), &y->t, &x->t, &d->pairs->t, 0))
        return NULL;
    return sw_record(c,
                     (sw_node){.op = "places_to_pairs", .back = gather_the_gradient, .in = {x}, .out = {y}, .saved = {d->pairs}});
}

/* ---- rows that are added to others */

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
