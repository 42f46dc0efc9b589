#include "nn/ops.h"

/* clamp(x) = relu(x + limit) - relu(x - limit) - limit, in f32. */
static sw_var *shifted(sw_ctx *c, const sw_var *x, double by)
{
    sw_var *t = sw_tmp(c, SW_F32, x->t.ndim, x->t.shape);
    return !t || sw_k(c)->fill(sw_s(c), &t->t, by) || sw_k(c)->axpby(sw_s(c), &t->t, 1, &x->t, 1) ? NULL : t;
}

static int clamp_back(sw_ctx *c, sw_node *n)
{
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    if (!g)
        return acc == -2 ? -1 : 0;
    /* y may have been given another shape since (sw_heads) */
    sw_var *dy = sw_cast(c, sw_borrow(c, sw_reshaped(&n->out[0]->grad->t, g->ndim, g->shape)), SW_F32);
    for (int i = 0; dy && i < 2; i++) {
        sw_var *x = shifted(c, n->saved[0], i ? -n->f[0] : n->f[0]);
        if (!x || sw_k(c)->act_bwd(sw_s(c), &x->t, &dy->t, &x->t, SW_ACT_RELU, 0) ||
            sw_k(c)->axpby(sw_s(c), g, i ? -1 : 1, &x->t, i || acc))
            return -1;
    }
    return dy ? 0 : -1;
}

sw_var *sw_clamp(sw_ctx *c, sw_var *x, double limit)
{
    sw_var *y = sw_like(c, x), *low = y ? shifted(c, x, limit) : NULL, *high = low ? shifted(c, x, -limit) : NULL;
    const sw_kernels *k = sw_k(c);
    if (!high || k->act_fwd(sw_s(c), &low->t, &low->t, SW_ACT_RELU) || k->act_fwd(sw_s(c), &high->t, &high->t, SW_ACT_RELU) ||
        k->axpby(sw_s(c), &low->t, -1, &high->t, 1) || k->fill(sw_s(c), &high->t, -limit) ||
        k->axpby(sw_s(c), &high->t, 1, &low->t, 1) || k->copy(sw_s(c), &y->t, &high->t))
        return NULL;
    return sw_record(c, (sw_node){.op = "clamp", .back = clamp_back, .in = {x}, .out = {y}, .saved = {x}, .f = {limit}});
}
