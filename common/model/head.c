#include "model/head.h"

#include "nn/linear.h"
#include "nn/ops.h"

#include <math.h>

/* ---- unit rows */

static int unit_head_back(sw_ctx *c, sw_node *n)
{
    const sw_kernels *k = sw_k(c);
    const sw_tensor *dy = &n->out[0]->grad->t, *unit = &n->saved[1]->t;
    sw_var *w = n->in[1];
    int acc;
    sw_tensor *dx = sw_grad(c, n->in[0], &acc);
    if (acc == -2 || (dx && k->linear_bwd_x(sw_s(c), dx, dy, unit, n->f[0], acc)))
        return -1;
    if (!w->needs_grad)
        return 0;
    sw_var *g = sw_tmp(c, SW_F32, 2, w->t.shape); /* the gradient of the unit rows, then back through their norm */
    if (!g || k->fill(sw_s(c), &g->t, 0) || k->linear_bwd_w(sw_s(c), &g->t, dy, &n->saved[0]->t, n->f[0]))
        return -1;
    sw_var *same = sw_cast(c, g, w->t.dtype), *dw = same ? sw_like(c, same) : NULL;
    return !dw || k->rmsnorm_bwd(sw_s(c), &dw->t, NULL, &same->t, &w->t, NULL, &n->saved[2]->t, 0, 0) ||
                   k->axpby(sw_s(c), &w->grad->t, 1, &dw->t, 1)
               ? -1
               : 0;
}

sw_var *sw_head_unit_rows(sw_ctx *c, sw_linear *l, sw_var *x)
{
    sw_var *w = &l->w->v;
    if (l->adapter || !sw_is_float(w->t.dtype))
        return sw_fail_null("%s: a head of unit rows takes no adapter and no quantised type", l->name);
    sw_var *unit = sw_like(c, w), *rstd = sw_tmp1(c, SW_F32, w->t.shape[0]), *y = sw_tmp2(c, SW_F32, x->t.shape[0], w->t.shape[0]);
    double scale = 1 / sqrt((double)w->t.shape[1]); /* a norm over D gives rows of length sqrt(D) */
    if (!unit || !rstd || !y || sw_use(c, w, NULL) || sw_k(c)->rmsnorm_fwd(sw_s(c), &unit->t, &rstd->t, &w->t, NULL, 0, 0) ||
        sw_k(c)->linear_fwd(sw_s(c), &y->t, &x->t, &unit->t, NULL, scale, 0))
        return NULL;
    return sw_record(c, (sw_node){.op = "unit_head", .back = unit_head_back, .in = {x, w}, .out = {y},
                                  .saved = {w->needs_grad ? x : NULL, unit, rstd}, .f = {scale}});
}

/* ---- unit columns */

sw_var *sw_head_unit_columns(sw_ctx *c, sw_linear *l, sw_var *x)
{
    sw_var *w = &l->w->v;
    int64_t wide = x->t.shape[1];
    if (!sw_is_float(w->t.dtype))
        return sw_fail_null("%s: a head of unit columns takes no quantised type", l->name);
    float *values = sw_ctx_alloc(c, (size_t)wide * sizeof *values);
    sw_var *squares = sw_tmp1(c, SW_F32, wide);
    if (!squares || sw_k(c)->fill(sw_s(c), &squares->t, 0) || sw_use(c, w, NULL) ||
        sw_k(c)->sum_rows(sw_s(c), &squares->t, &w->t, &w->t) || sw_to_host(c, squares, values))
        return NULL;
    for (int64_t i = 0; i < wide; i++)
        values[i] = 1 / (sqrtf(values[i]) + 1e-7F);
    sw_var *scale = sw_from_host(c, SW_F32, 1, &wide, values);
    x = scale ? sw_times_row(c, x, scale) : NULL;
    return x ? sw_linear_forward(c, l, x) : NULL;
}
