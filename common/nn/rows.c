/* Ops between rows and one number a row, by products with a matrix of ones; rows side by side. */
#include "nn/ops.h"

#include <assert.h>

static sw_var *ones(sw_ctx *c, const sw_var *x, double value)
{
    sw_var *w = sw_tmp2(c, x->t.dtype, 1, x->t.shape[1]);
    return w && sw_k(c)->fill(sw_s(c), &w->t, value) ? NULL : w;
}

static int row_sum_back(sw_ctx *c, sw_node *n)
{
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    if (!g)
        return acc == -2 ? -1 : 0;
    sw_var *w = ones(c, n->in[0], n->f[0]);
    return w ? sw_k(c)->linear_bwd_x(sw_s(c), g, &n->out[0]->grad->t, &w->t, 1, acc) : -1;
}

sw_var *sw_row_sum(sw_ctx *c, sw_var *x, double factor)
{
    assert(x->t.ndim == 2);
    sw_var *y = sw_tmp2(c, x->t.dtype, x->t.shape[0], 1), *w = y ? ones(c, x, factor) : NULL;
    if (!w || sw_k(c)->linear_fwd(sw_s(c), &y->t, &x->t, &w->t, NULL, 1, 0))
        return NULL;
    return sw_record(c, (sw_node){.op = "row_sum", .back = row_sum_back, .in = {x}, .out = {y}, .f = {factor}});
}

/* s[n] in every column of row n. */
static sw_var *widened(sw_ctx *c, const sw_var *x, const sw_var *s)
{
    sw_var *e = sw_tmp2(c, x->t.dtype, x->t.shape[0], x->t.shape[1]), *w = e ? ones(c, x, 1) : NULL;
    return w && !sw_k(c)->linear_bwd_x(sw_s(c), &e->t, &s->t, &w->t, 1, 0) ? e : NULL;
}

static int scale_rows_back(sw_ctx *c, sw_node *n)
{
    const sw_kernels *k = sw_k(c);
    const sw_tensor *dy = &n->out[0]->grad->t;
    sw_var *x = n->saved[0], *s = n->saved[1], *e = widened(c, x, s), *w = e ? ones(c, x, 1) : NULL;
    int acc;
    if (!w)
        return -1;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    if (acc == -2 || (g && k->mul(sw_s(c), g, dy, &e->t, acc)))
        return -1;
    g = sw_grad(c, n->in[1], &acc);
    if (!g)
        return acc == -2 ? -1 : 0;
    return k->mul(sw_s(c), &e->t, dy, &x->t, 0) || k->linear_fwd(sw_s(c), g, &e->t, &w->t, NULL, 1, acc) ? -1 : 0;
}

sw_var *sw_scale_rows(sw_ctx *c, sw_var *x, sw_var *s)
{
    assert(x->t.ndim == 2 && s->t.ndim == 2 && s->t.shape[1] == 1 && s->t.shape[0] == x->t.shape[0]);
    sw_var *y = widened(c, x, s);
    if (!y || sw_k(c)->mul(sw_s(c), &y->t, &y->t, &x->t, 0))
        return NULL;
    return sw_record(c, (sw_node){.op = "scale_rows", .back = scale_rows_back, .in = {x, s}, .out = {y}, .saved = {x, s}});
}

static int shift_back(sw_ctx *c, sw_node *n) { return sw_grad_pass(c, n->in[0], n->out[0]); }

sw_var *sw_shift(sw_ctx *c, sw_var *x, double value)
{
    sw_var *y = sw_like(c, x);
    if (!y || sw_k(c)->fill(sw_s(c), &y->t, value) || sw_k(c)->axpby(sw_s(c), &y->t, 1, &x->t, 1))
        return NULL;
    return sw_record(c, (sw_node){.op = "shift", .back = shift_back, .in = {x}, .out = {y}});
}

static int64_t width_of(const sw_var *x) { return x->t.shape[0] ? sw_numel(&x->t) / x->t.shape[0] : 0; }

/* Columns [at, at + width) of a dense t [N, W], in x's shape. */
static sw_tensor place(const sw_tensor *t, const sw_var *x, int64_t at)
{
    sw_tensor to = sw_tensor_of((char *)t->data + sw_dtype_bytes(t->dtype, at), t->dtype, x->t.ndim, x->t.shape);
    to.stride[0] = t->stride[0];
    return to;
}

static int join_back(sw_ctx *c, sw_node *n)
{
    int64_t at = 0;
    for (int i = 0; i < SW_NODE_IN && n->in[i]; at += width_of(n->in[i++])) {
        int acc;
        sw_tensor *g = sw_grad(c, n->in[i], &acc), from = place(&n->out[0]->grad->t, n->in[i], at);
        if (acc == -2 || (g && sw_k(c)->axpby(sw_s(c), g, 1, &from, acc)))
            return -1;
    }
    return 0;
}

sw_var *sw_join(sw_ctx *c, sw_var *const *parts, size_t n)
{
    sw_node node = {.op = "join", .back = join_back};
    int64_t width = 0, at = 0;
    sw_var *first = NULL;
    if (n > SW_NODE_IN) { /* a node takes only so many */
        first = sw_join(c, parts, SW_NODE_IN);
        if (!first)
            return NULL;
        sw_var **rest = sw_ctx_alloc(c, (n - SW_NODE_IN + 1) * sizeof *rest);
        rest[0] = first;
        for (size_t i = SW_NODE_IN; i < n; i++)
            rest[i - SW_NODE_IN + 1] = parts[i];
        return sw_join(c, rest, n - SW_NODE_IN + 1);
    }
    for (size_t i = 0; i < n; i++)
        width += width_of(parts[i]);
    sw_var *y = sw_tmp2(c, parts[0]->t.dtype, parts[0]->t.shape[0], width);
    for (size_t i = 0; y && i < n; at += width_of(parts[i++])) {
        sw_tensor to = place(&y->t, parts[i], at);
        if (sw_k(c)->copy(sw_s(c), &to, &parts[i]->t))
            return NULL;
        node.in[i] = parts[i];
    }
    node.out[0] = y;
    return y ? sw_record(c, node) : NULL;
}
