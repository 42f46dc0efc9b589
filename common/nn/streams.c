/* Hidden states of several streams: what mixes them, and windows of tokens pooled into one row. */
#include "nn/ops.h"

#include <assert.h>

/* ---- matrices whose rows and columns sum to one */

static int sinkhorn_back(sw_ctx *c, sw_node *n)
{
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    if (!g)
        return acc == -2 ? -1 : 0;
    sw_var *dx = sw_like(c, n->out[0]);
    return !dx ||
                   sw_k(c)->sinkhorn_bwd(sw_s(c), &dx->t, &n->out[0]->grad->t, &n->saved[0]->t, &n->saved[1]->t, (int)n->i[0],
                                         n->f[0]) ||
                   sw_k(c)->axpby(sw_s(c), g, 1, &dx->t, acc)
               ? -1
               : 0;
}

sw_var *sw_sinkhorn(sw_ctx *c, sw_var *x, int64_t streams, int rounds, double eps)
{
    assert(x->t.ndim == 2 && x->t.dtype == SW_F32 && x->t.shape[1] == streams * streams);
    sw_var *y = sw_like(c, x),
           *divisors = sw_wants(c, &x, 1) ? sw_tmp2(c, SW_F32, x->t.shape[0], (2 * rounds - 1) * streams) : NULL;
    if (!y || (!divisors && sw_wants(c, &x, 1)) ||
        sw_k(c)->sinkhorn_fwd(sw_s(c), &y->t, divisors ? &divisors->t : NULL, &x->t, rounds, eps))
        return NULL;
    return sw_record(
        c,
        (sw_node){
            .op = "sinkhorn", .back = sinkhorn_back, .in = {x}, .out = {y}, .saved = {y, divisors}, .i = {rounds}, .f = {eps}});
}

/* ---- mixing */

/* The streams of x [N, S * D]. */
static sw_tensor streams_of(const sw_tensor *x, int64_t streams)
{
    int64_t width = sw_numel(x) / SW_MAX(x->shape[0] * streams, 1);
    return sw_reshaped(x, 3, (int64_t[]){x->shape[0], streams, width});
}

/* Weights [N, J * K] from J streams to K, or turned about. */
static sw_tensor weights_of(const sw_tensor *w, int64_t from, bool turned)
{
    int64_t to = w->shape[1] / from;
    sw_tensor t = sw_tensor_of(w->data, w->dtype, 3, (int64_t[]){w->shape[0], turned ? to : from, turned ? from : to});
    t.stride[0] = w->stride[0];
    t.stride[1] = turned ? 1 : to;
    t.stride[2] = turned ? to : 1;
    return t;
}

static int mix_back(sw_ctx *c, sw_node *n)
{
    const sw_kernels *k = sw_k(c);
    int64_t from = n->i[0], to = n->i[1];
    sw_tensor dy = streams_of(&n->out[0]->grad->t, to), x = streams_of(&n->saved[0]->t, from);
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    if (acc == -2)
        return -1;
    if (g) {
        sw_tensor dx = streams_of(g, from), w = weights_of(&n->saved[1]->t, from, true);
        if (k->mix_streams(sw_s(c), &dx, &w, &dy, acc))
            return -1;
    }
    g = sw_grad(c, n->in[1], &acc);
    if (acc == -2)
        return -1;
    if (g) {
        sw_var *t = sw_tmp2(c, SW_F32, n->in[1]->t.shape[0], from * to);
        if (!t)
            return -1;
        sw_tensor dw = weights_of(&t->t, from, false);
        if (k->mix_streams_bwd_w(sw_s(c), &dw, &dy, &x) || k->axpby(sw_s(c), g, 1, &t->t, acc))
            return -1;
    }
    return n->in[2] ? sw_grad_pass(c, n->in[2], n->out[0]) : 0;
}

sw_var *sw_mix_streams(sw_ctx *c, sw_var *y, sw_var *x, sw_var *w, int64_t from)
{
    assert(x->t.ndim == 2 && w->t.ndim == 2 && w->t.dtype == SW_F32 && w->t.shape[1] % from == 0 && x->t.shape[1] % from == 0);
    int64_t to = w->t.shape[1] / from;
    sw_tensor was = y ? y->t : (sw_tensor){0};
    sw_var *sum = y ? sw_take_over(c, y) : sw_tmp2(c, x->t.dtype, x->t.shape[0], x->t.shape[1] / from * to);
    if (!sum || (y && sum->t.data != was.data && sw_k(c)->copy(sw_s(c), &sum->t, &was)))
        return NULL;
    sw_tensor out = streams_of(&sum->t, to), in = streams_of(&x->t, from), by = weights_of(&w->t, from, false);
    if (sw_k(c)->mix_streams(sw_s(c), &out, &by, &in, y != NULL))
        return NULL;
    return sw_record(
        c, (sw_node){.op = "mix_streams", .back = mix_back, .in = {x, w, y}, .out = {sum}, .saved = {x, w}, .i = {from, to}});
}

/* ---- pooling */

/* Where the gradient of x goes, with zeros where no slot points; what has been there is added afterwards. */
static int spread(sw_ctx *c, sw_var *x, const sw_var *like, sw_tensor **grad, sw_tensor *into, int *acc)
{
    *grad = sw_grad(c, x, acc);
    if (*acc == -2)
        return -1;
    if (*acc == 0) {
        *into = **grad;
    } else {
        sw_var *t = sw_like(c, like);
        if (!t)
            return -1;
        *into = t->t;
    }
    return sw_k(c)->fill(sw_s(c), into, 0);
}

static int pool_back(sw_ctx *c, sw_node *n)
{
    sw_tensor *grad[2], into[2];
    int acc[2];
    for (int i = 0; i < 2; i++)
        if (spread(c, n->in[i], n->saved[i], &grad[i], &into[i], &acc[i]))
            return -1;
    sw_tensor dy = sw_reshaped(&n->out[0]->grad->t, 2, n->saved[3]->t.shape),
              y = sw_reshaped(&n->saved[2]->t, 2, dy.shape); /* (sw_heads) */
    if (sw_k(c)->pool_bwd(sw_s(c), &into[0], &into[1], &dy, &y, &n->saved[3]->t, &n->saved[0]->t, &n->saved[1]->t,
                          &n->saved[4]->t))
        return -1;
    for (int i = 0; i < 2; i++)
        if (acc[i] == 1 && sw_k(c)->axpby(sw_s(c), grad[i], 1, &into[i], 1))
            return -1;
    return 0;
}

sw_var *sw_pool(sw_ctx *c, sw_var *x, sw_var *gate, sw_var *rows, int64_t width)
{
    assert(x->t.ndim == 2 && gate->t.dtype == SW_F32 && x->t.shape[1] % width == 0);
    sw_var *y = sw_tmp2(c, x->t.dtype, rows->t.shape[0], width), *lse = sw_tmp2(c, SW_F32, rows->t.shape[0], width);
    if (!y || !lse || sw_k(c)->pool_fwd(sw_s(c), &y->t, &lse->t, &x->t, &gate->t, &rows->t))
        return NULL;
    return sw_record(c,
                     (sw_node){.op = "pool", .back = pool_back, .in = {x, gate}, .out = {y}, .saved = {x, gate, y, lse, rows}});
}
