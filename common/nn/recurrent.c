/* Layers that carry a state along each sequence, and what prepares their decays. */
#include "nn/ops.h"

#include <assert.h>
#include <math.h>

sw_var *sw_parameter(sw_ctx *c, sw_param *p)
{
    return sw_use(c, &p->v, NULL) || (p->v.t.dtype == SW_F32 && sw_master_values(p)) ? NULL : sw_cast(c, &p->v, SW_F32);
}

static sw_tensor flat_rows(const sw_tensor *x)
{
    int64_t n = x->shape[0], width = n ? sw_numel(x) / n : 0;
    sw_tensor t = sw_tensor_of(x->data, x->dtype, 2, (int64_t[]){n, width});
    assert(x->ndim == 2 || sw_is_dense(x));
    t.stride[0] = x->ndim > 1 ? x->stride[0] : width;
    return t;
}

/* The same row as often as x has rows. */
static sw_tensor repeated(const sw_tensor *w, const sw_tensor *rows)
{
    sw_tensor t = sw_tensor_of(w->data, w->dtype, 2, rows->shape);
    assert(sw_is_dense(w) && sw_numel(w) == rows->shape[1]);
    t.stride[0] = 0;
    return t;
}

/* The gradient of a row, f32, for kernels that add to it. */
static int row_grad(sw_ctx *c, sw_var *w, sw_tensor *flat)
{
    int acc;
    sw_tensor *g = w ? sw_grad(c, w, &acc) : NULL;
    flat->data = NULL;
    if (!g)
        return w && acc == -2 ? -1 : 0;
    *flat = sw_reshaped(g, 1, (int64_t[]){sw_numel(g)});
    return acc == 0 ? sw_k(c)->fill(sw_s(c), g, 0) : 0;
}

static int with_row_back(sw_ctx *c, sw_node *n)
{
    sw_tensor dw, dy = flat_rows(&n->out[0]->grad->t), x = n->i[0] ? flat_rows(&n->saved[0]->t) : dy;
    if (row_grad(c, n->in[1], &dw) || (dw.data && sw_k(c)->sum_rows(sw_s(c), &dw, &dy, n->i[0] ? &x : NULL)))
        return -1;
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    if (!g)
        return acc == -2 ? -1 : 0;
    sw_tensor dx = flat_rows(g);
    if (!n->i[0])
        return sw_k(c)->axpby(sw_s(c), &dx, 1, &dy, acc);
    sw_tensor w = sw_reshaped(&n->saved[1]->t, 1, (int64_t[]){dx.shape[1]});
    return sw_k(c)->mul(sw_s(c), &dx, &dy, &w, acc);
}

static sw_var *with_row(sw_ctx *c, sw_var *x, sw_var *w, bool times)
{
    sw_var *y = sw_like(c, x);
    if (!y)
        return NULL;
    sw_tensor from = flat_rows(&x->t), to = flat_rows(&y->t), row = sw_reshaped(&w->t, 1, (int64_t[]){sw_numel(&w->t)}),
              rows = repeated(&w->t, &to);
    if (times ? sw_k(c)->mul(sw_s(c), &to, &from, &row, 0)
              : sw_k(c)->copy(sw_s(c), &to, &from) || sw_k(c)->axpby(sw_s(c), &to, 1, &rows, 1))
        return NULL;
    return sw_record(c, (sw_node){.op = times ? "times_row" : "plus_row", .back = with_row_back, .in = {x, w}, .out = {y},
                                  .saved = {times ? x : NULL, times ? w : NULL}, .i = {times}});
}

sw_var *sw_plus_row(sw_ctx *c, sw_var *x, sw_var *w) { return with_row(c, x, w, false); }
sw_var *sw_times_row(sw_ctx *c, sw_var *x, sw_var *w) { return with_row(c, x, w, true); }

sw_var *sw_unit(sw_ctx *c, sw_var *x, double scale)
{
    double width = (double)x->t.shape[2];
    sw_var *y = sw_rmsnorm(c, x, NULL, 1e-6 / width, 0);
    return y ? sw_scale(c, y, scale / sqrt(width)) : NULL;
}

/* ---- convolution */

static sw_tensor taps_of(const sw_tensor *w) { return sw_reshaped(w, 2, (int64_t[]){w->shape[0], w->shape[w->ndim - 1]}); }

static int conv1d_back(sw_ctx *c, sw_node *n)
{
    sw_param *const *p = n->data;
    sw_tensor w = taps_of(&p[0]->v.t), dw, *to_w = NULL, *to_b = p[1] && p[1]->v.needs_grad ? &p[1]->v.grad->t : NULL;
    if (p[0]->v.needs_grad) {
        dw = taps_of(&p[0]->v.grad->t);
        to_w = &dw;
    }
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    sw_var *dx = g ? sw_like(c, n->in[0]) : NULL;
    if (acc == -2 || (g && !dx) ||
        sw_k(c)->conv1d_bwd(sw_s(c), dx ? &dx->t : NULL, to_w, to_b, &n->out[0]->grad->t, &n->saved[0]->t, &w, &n->saved[1]->t))
        return -1;
    return g ? sw_k(c)->axpby(sw_s(c), g, 1, &dx->t, acc) : 0;
}

sw_var *sw_conv1d(sw_ctx *c, sw_var *x, sw_param *w, sw_param *b, sw_var *runs, sw_tensor *state)
{
    sw_var *y = sw_like(c, x);
    if (!y || sw_use(c, &w->v, b ? &b->v : NULL))
        return NULL;
    sw_tensor taps = taps_of(&w->v.t);
    if (sw_k(c)->conv1d_fwd(sw_s(c), &y->t, state, &x->t, &taps, b ? &b->v.t : NULL, &runs->t))
        return NULL;
    sw_param **p = sw_ctx_alloc(c, 2 * sizeof *p);
    p[0] = w;
    p[1] = b;
    return sw_record(c, (sw_node){.op = "conv1d", .back = conv1d_back, .in = {x, &w->v, b ? &b->v : NULL}, .out = {y},
                                  .saved = {x, runs, &w->v}, .data = p}); /* w may be no parameter of the model */
}

/* ---- scans */

/* Where a kernel that overwrites puts the gradient of x; NULL in `t` where none is needed. */
typedef struct into {
    sw_tensor *grad, t;
    int acc;
} into;

static int into_of(sw_ctx *c, sw_var *x, sw_dtype dtype, int64_t heads, into *to)
{
    *to = (into){.acc = -1};
    if (!x || !(to->grad = sw_grad(c, x, &to->acc)))
        return to->acc == -2 ? -1 : 0;
    int64_t shape[3] = {x->t.shape[0], heads ? heads : x->t.shape[1], x->t.ndim > 2 ? x->t.shape[2] : 1};
    sw_var *v = sw_tmp(c, dtype, x->t.ndim, shape);
    if (v)
        to->t = v->t;
    return v ? 0 : -1;
}

static sw_tensor *at(into *to) { return to->t.data ? &to->t : NULL; }

/* Heads that share one of x's are summed. */
static int take(sw_ctx *c, const into *to)
{
    if (!to->grad)
        return 0;
    int64_t share = to->t.ndim > 2 ? to->t.shape[1] / to->grad->shape[1] : 1;
    for (int64_t i = 0; i < share; i++) {
        sw_tensor part = to->t;
        if (share > 1) {
            part.data = (char *)part.data + sw_dtype_bytes(part.dtype, i * part.stride[1]);
            part.shape[1] /= share;
            part.stride[1] *= share;
        }
        if (sw_k(c)->axpby(sw_s(c), to->grad, 1, &part, i || to->acc))
            return -1;
    }
    return 0;
}

static int selective_scan_back(sw_ctx *c, sw_node *n)
{
    sw_var *x = n->saved[0], *dt = n->saved[1], *a = n->saved[2], *b = n->saved[3], *cc = n->saved[4], *skip = n->saved[5];
    into to[4]; /* x, dt, b, c */
    sw_tensor da, dskip;
    if (into_of(c, n->in[0], x->t.dtype, 0, &to[0]) || into_of(c, n->in[1], SW_F32, 0, &to[1]) || into_of(c, n->in[3], SW_F32, 0, &to[2]) ||
        into_of(c, n->in[4], SW_F32, 0, &to[3]) || row_grad(c, n->in[2], &da) || row_grad(c, n->in[5], &dskip))
        return -1;
    sw_tensor whole = da.data ? sw_reshaped(&da, 2, a->t.shape) : da;
    if (sw_k(c)->selective_scan_bwd(sw_s(c), at(&to[0]), at(&to[1]), da.data ? &whole : NULL, at(&to[2]), at(&to[3]),
                                    dskip.data ? &dskip : NULL, &n->out[0]->grad->t, &x->t, &dt->t, &a->t, &b->t, &cc->t, &skip->t,
                                    &n->saved[6]->t))
        return -1;
    for (int i = 0; i < 4; i++)
        if (take(c, &to[i]))
            return -1;
    return 0;
}

sw_var *sw_selective_scan(sw_ctx *c, const sw_scan_in *in, sw_var *runs, sw_tensor *state)
{
    sw_var *y = sw_like(c, in->x);
    if (!y || sw_k(c)->selective_scan_fwd(sw_s(c), &y->t, state, &in->x->t, &in->dt->t, &in->a->t, &in->b->t, &in->c->t, &in->skip->t, &runs->t))
        return NULL;
    return sw_record(c, (sw_node){.op = "selective_scan", .back = selective_scan_back,
                                  .in = {in->x, in->dt, in->a, in->b, in->c, in->skip}, .out = {y},
                                  .saved = {in->x, in->dt, in->a, in->b, in->c, in->skip, runs}});
}

enum { Q, K, V, G, BETA, SKIP };

static int recurrence_back(sw_ctx *c, sw_node *n)
{
    into to[5];
    sw_tensor dskip;
    sw_var **in = n->saved;
    int64_t heads = in[V]->t.shape[1];
    for (int i = Q; i <= BETA; i++)
        if (into_of(c, n->in[i], i == V ? in[V]->t.dtype : SW_F32, i <= K ? heads : 0, &to[i]))
            return -1;
    if (row_grad(c, n->in[SKIP], &dskip) ||
        sw_k(c)->recurrence_bwd(sw_s(c), at(&to[Q]), at(&to[K]), at(&to[V]), at(&to[G]), at(&to[BETA]), dskip.data ? &dskip : NULL,
                                &n->out[0]->grad->t, &in[Q]->t, &in[K]->t, &in[V]->t, &in[G]->t, in[BETA] ? &in[BETA]->t : NULL,
                                in[SKIP] ? &in[SKIP]->t : NULL, &in[6]->t, (int)n->i[0]))
        return -1;
    for (int i = Q; i <= BETA; i++)
        if (take(c, &to[i]))
            return -1;
    return 0;
}

sw_var *sw_recurrence(sw_ctx *c, const sw_recurrence_in *in, sw_var *runs, sw_tensor *state)
{
    sw_var *y = sw_like(c, in->v);
    if (!y || sw_k(c)->recurrence_fwd(sw_s(c), &y->t, state, &in->q->t, &in->k->t, &in->v->t, &in->g->t, in->beta ? &in->beta->t : NULL,
                                      in->skip ? &in->skip->t : NULL, &runs->t, in->delta))
        return NULL;
    return sw_record(c, (sw_node){.op = "recurrence", .back = recurrence_back, .in = {in->q, in->k, in->v, in->g, in->beta, in->skip},
                                  .out = {y}, .saved = {in->q, in->k, in->v, in->g, in->beta, in->skip, runs}, .i = {in->delta}});
}
