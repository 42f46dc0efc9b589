#include "nn/ops.h"

#include <assert.h>

/* Whether y may take x's memory: x is a plain temporary whose values nobody needs again. */
static bool can_take(const sw_var *x) { return x->storage && x->storage->refs == 1 && !x->base && !x->saved && sw_is_dense(&x->t); }

sw_var *sw_take_over(sw_ctx *c, sw_var *x)
{
    if (!can_take(x))
        return sw_like(c, x);
    sw_var *y = sw_borrow(c, x->t);
    y->storage = x->storage;
    for (size_t i = c->temps.n; i-- > 0;)
        if (c->temps.at[i] == x) {
            c->temps.at[i] = y; /* y lives where x lived */
            x->storage = NULL;
            x->t.data = NULL;
            return y;
        }
    y->storage->refs++;
    SW_PUSH(c->temps, y);
    return y;
}

static int add_back(sw_ctx *c, sw_node *n)
{
    return sw_grad_pass(c, n->in[0], n->out[0]) || sw_grad_pass(c, n->in[1], n->out[0]) ? -1 : 0;
}

sw_var *sw_add(sw_ctx *c, sw_var *x, sw_var *residual)
{
    sw_tensor a = x->t;
    sw_var *y = sw_take_over(c, x);
    if (!y || sw_k(c)->add(sw_s(c), &y->t, &a, &residual->t))
        return NULL;
    return sw_record(c, (sw_node){.op = "add", .back = add_back, .in = {x, residual}, .out = {y}});
}

static int mul_back(sw_ctx *c, sw_node *n)
{
    for (int i = 0; i < 2; i++) {
        int acc;
        sw_tensor *g = sw_grad(c, n->in[i], &acc);
        if (acc == -2 || (g && sw_k(c)->mul(sw_s(c), g, &n->out[0]->grad->t, &n->saved[1 - i]->t, acc)))
            return -1;
    }
    return 0;
}

sw_var *sw_mul(sw_ctx *c, sw_var *a, sw_var *b)
{
    sw_var *y = sw_like(c, a);
    if (!y || sw_k(c)->mul(sw_s(c), &y->t, &a->t, &b->t, 0))
        return NULL;
    return sw_record(c, (sw_node){.op = "mul", .back = mul_back, .in = {a, b}, .out = {y}, .saved = {a, b}});
}

static int scale_back(sw_ctx *c, sw_node *n)
{
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    return acc == -2 || (g && sw_k(c)->axpby(sw_s(c), g, n->f[0], &n->out[0]->grad->t, acc)) ? -1 : 0;
}

sw_var *sw_scale(sw_ctx *c, sw_var *x, double factor)
{
    sw_tensor from = x->t;
    sw_var *y = sw_take_over(c, x);
    if (!y || sw_k(c)->axpby(sw_s(c), &y->t, factor, &from, 0))
        return NULL;
    return sw_record(c, (sw_node){.op = "scale", .back = scale_back, .in = {x}, .out = {y}, .f = {factor}});
}

sw_var *sw_cast(sw_ctx *c, sw_var *x, sw_dtype dtype)
{
    if (x->t.dtype == dtype)
        return x;
    sw_var *y = sw_tmp(c, dtype, x->t.ndim, x->t.shape);
    if (!y || sw_k(c)->copy(sw_s(c), &y->t, &x->t))
        return NULL;
    return sw_record(c, (sw_node){.op = "cast", .back = scale_back, .in = {x}, .out = {y}, .f = {1}});
}

/* y may have been given another shape since (sw_heads). */
static int dense_back(sw_ctx *c, sw_node *n)
{
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    if (!g)
        return acc == -2 ? -1 : 0;
    sw_tensor dy = sw_reshaped(&n->out[0]->grad->t, g->ndim, g->shape);
    return sw_k(c)->axpby(sw_s(c), g, 1, &dy, acc);
}

sw_var *sw_dense(sw_ctx *c, sw_var *x)
{
    sw_var *y = sw_like(c, x);
    if (!y || sw_k(c)->copy(sw_s(c), &y->t, &x->t))
        return NULL;
    return sw_record(c, (sw_node){.op = "dense", .back = dense_back, .in = {x}, .out = {y}});
}

static sw_tensor rows_of(const sw_tensor *x)
{
    int64_t n = x->shape[0];
    return sw_reshaped(x, 2, (int64_t[]){n, n ? sw_numel(x) / n : 0});
}

static int scale_columns_back(sw_ctx *c, sw_node *n)
{
    sw_param *w = n->data;
    sw_tensor dy = rows_of(&n->out[0]->grad->t), flat = sw_reshaped(&w->v.t, 1, (int64_t[]){sw_numel(&w->v.t)});
    if (w->v.needs_grad) {
        sw_tensor x = rows_of(&n->saved[0]->t), dw = sw_reshaped(&w->v.grad->t, 1, (int64_t[]){sw_numel(&w->v.t)});
        if (sw_k(c)->sum_rows(sw_s(c), &dw, &dy, &x))
            return -1;
    }
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    if (!g)
        return acc == -2 ? -1 : 0;
    sw_tensor dx = rows_of(g);
    return sw_k(c)->mul(sw_s(c), &dx, &dy, &flat, acc);
}

sw_var *sw_scale_columns(sw_ctx *c, sw_var *x, sw_param *w)
{
    sw_var *y = sw_like(c, x);
    if (!y || sw_use(c, &w->v, NULL))
        return NULL;
    sw_tensor from = rows_of(&x->t), to = rows_of(&y->t), flat = sw_reshaped(&w->v.t, 1, (int64_t[]){sw_numel(&w->v.t)});
    if (sw_k(c)->mul(sw_s(c), &to, &from, &flat, 0))
        return NULL;
    return sw_record(c, (sw_node){.op = "scale_columns", .back = scale_columns_back, .in = {x, &w->v}, .out = {y},
                                  .saved = {w->v.needs_grad ? x : NULL}, .data = w});
}

static int act_back(sw_ctx *c, sw_node *n)
{
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    return acc == -2 || (g && sw_k(c)->act_bwd(sw_s(c), g, &n->out[0]->grad->t, &n->saved[0]->t, (int)n->i[0], acc)) ? -1 : 0;
}

sw_var *sw_activation(sw_ctx *c, sw_var *x, sw_act kind)
{
    sw_var *y = sw_like(c, x);
    if (!y || sw_k(c)->act_fwd(sw_s(c), &y->t, &x->t, kind))
        return NULL;
    return sw_record(c, (sw_node){.op = "activation", .back = act_back, .in = {x}, .out = {y}, .saved = {x}, .i = {kind}});
}

static int glu_back(sw_ctx *c, sw_node *n)
{
    const sw_kernels *k = sw_k(c);
    int acc[2];
    sw_tensor *g[2], into[2];
    bool plain = true;
    for (int i = 0; i < 2; i++) {
        g[i] = sw_grad(c, n->in[i], &acc[i]);
        if (acc[i] == -2)
            return -1;
        plain &= acc[i] == 0;
    }
    for (int i = 0; i < 2; i++) {
        if (acc[i] == 0) {
            into[i] = *g[i];
        } else {
            sw_var *t = sw_like(c, n->saved[i]);
            if (!t)
                return -1;
            into[i] = t->t;
        }
    }
    if (k->glu_bwd(sw_s(c), &into[0], &into[1], &n->out[0]->grad->t, &n->saved[0]->t, &n->saved[1]->t, (int)n->i[0]))
        return -1;
    for (int i = 0; !plain && i < 2; i++)
        if (acc[i] == 1 && k->axpby(sw_s(c), g[i], 1, &into[i], 1))
            return -1;
    return 0;
}

sw_var *sw_glu(sw_ctx *c, sw_var *gate, sw_var *up, sw_act kind)
{
    sw_var *y = sw_like(c, gate);
    if (!y || sw_k(c)->glu_fwd(sw_s(c), &y->t, &gate->t, &up->t, kind))
        return NULL;
    return sw_record(c, (sw_node){.op = "glu", .back = glu_back, .in = {gate, up}, .out = {y}, .saved = {gate, up}, .i = {kind}});
}

static int softcap_back(sw_ctx *c, sw_node *n)
{
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    return acc == -2 || (g && sw_k(c)->softcap_bwd(sw_s(c), g, &n->out[0]->grad->t, &n->saved[0]->t, n->f[0], acc)) ? -1 : 0;
}

sw_var *sw_softcap(sw_ctx *c, sw_var *x, double cap)
{
    sw_tensor from = x->t;
    sw_var *y = sw_take_over(c, x);
    if (!y || sw_k(c)->softcap_fwd(sw_s(c), &y->t, &from, cap))
        return NULL;
    return sw_record(c, (sw_node){.op = "softcap", .back = softcap_back, .in = {x}, .out = {y}, .saved = {y}, .f = {cap}});
}

/* [N, ...] as the kernel takes it: [N, D], each row with a key. */
static sw_tensor keyed_rows(const sw_tensor *t)
{
    int64_t n = t->shape[0];
    return t->ndim == 2 ? *t : sw_reshaped(t, 2, (int64_t[]){n, n ? sw_numel(t) / n : 0});
}

static int dropout_back(sw_ctx *c, sw_node *n)
{
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    const sw_tensor *keys = n->saved[0] ? &n->saved[0]->t : NULL;
    if (!g)
        return acc == -2 ? -1 : 0;
    sw_tensor into = keyed_rows(g), from = keyed_rows(&n->out[0]->grad->t);
    return sw_k(c)->dropout(sw_s(c), &into, &from, keys, n->f[0], n->data, acc);
}

sw_var *sw_dropout(sw_ctx *c, sw_var *x, double p, uint32_t site)
{
    if (!c->training || p <= 0)
        return x;
    sw_var *y, *keys = c->keys;
    if (keys && keys->t.shape[0] != x->t.shape[0])
        return sw_fail_null("%s: drops values of %lld rows, of which %lld have keys", c->where, (long long)x->t.shape[0], (long long)keys->t.shape[0]);
    sw_rng *rng = sw_ctx_alloc(c, sizeof *rng);
    *rng = c->rng;
    rng->site ^= site;
    if (!(y = sw_like(c, x)))
        return NULL;
    sw_tensor to = keyed_rows(&y->t), from = keyed_rows(&x->t);
    if (sw_k(c)->dropout(sw_s(c), &to, &from, keys ? &keys->t : NULL, p, rng, 0))
        return NULL;
    return sw_record(c, (sw_node){.op = "dropout", .back = dropout_back, .in = {x}, .out = {y}, .saved = {keys}, .f = {p}, .data = rng});
}

static int gather_back(sw_ctx *c, sw_node *n)
{
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    if (!g)
        return acc == -2 ? -1 : 0;
    if (acc == 0 && sw_k(c)->fill(sw_s(c), g, 0))
        return -1;
    return sw_k(c)->scatter_rows(sw_s(c), g, &n->out[0]->grad->t, &n->saved[0]->t, 1);
}

sw_var *sw_gather(sw_ctx *c, sw_var *x, sw_var *ids)
{
    sw_tensor t = x->t;
    t.shape[0] = ids->t.shape[0];
    sw_var *y = sw_tmp(c, x->t.dtype, t.ndim, t.shape);
    if (!y || sw_k(c)->gather_rows(sw_s(c), &y->t, &x->t, &ids->t))
        return NULL;
    return sw_record(c, (sw_node){.op = "gather", .back = gather_back, .in = {x}, .out = {y}, .saved = {ids}});
}
