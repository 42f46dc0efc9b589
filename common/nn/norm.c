#include "nn/ops.h"

#include <assert.h>

static sw_var *stats_of(sw_ctx *c, const sw_var *x) { return sw_tmp1(c, SW_F32, sw_numel(&x->t) / SW_MAX(x->t.shape[x->t.ndim - 1], 1)); }
static const sw_tensor *value(const sw_param *p) { return p ? &p->v.t : NULL; }
static sw_tensor *leaf_grad(sw_param *p) { return p && p->v.needs_grad ? &p->v.grad->t : NULL; }
static sw_var *leaf(sw_param *p) { return p ? &p->v : NULL; }

static int rmsnorm_back(sw_ctx *c, sw_node *n)
{
    sw_param *w = n->data;
    int acc;
    sw_tensor *dx = sw_grad(c, n->in[0], &acc);
    if (acc == -2)
        return -1;
    return sw_k(c)->rmsnorm_bwd(sw_s(c), dx, leaf_grad(w), &n->out[0]->grad->t, &n->saved[0]->t, value(w), &n->saved[1]->t, n->f[0],
                                acc == 1);
}

sw_var *sw_rmsnorm(sw_ctx *c, sw_var *x, sw_param *w, double eps, double offset)
{
    sw_var *in[] = {x, leaf(w)};
    sw_var *y = sw_like(c, x), *rstd = sw_wants(c, in, 2) ? stats_of(c, x) : NULL;
    if (!y || (sw_wants(c, in, 2) && !rstd) || sw_use(c, leaf(w), NULL) ||
        sw_k(c)->rmsnorm_fwd(sw_s(c), &y->t, rstd ? &rstd->t : NULL, &x->t, value(w), eps, offset))
        return NULL;
    return sw_record(c, (sw_node){.op = "rmsnorm", .back = rmsnorm_back, .in = {x, leaf(w)}, .out = {y}, .saved = {x, rstd},
                                  .f = {offset}, .data = w});
}

typedef struct layernorm_params {
    sw_param *w, *b;
} layernorm_params;

static int layernorm_back(sw_ctx *c, sw_node *n)
{
    const layernorm_params *p = n->data;
    int acc;
    sw_tensor *dx = sw_grad(c, n->in[0], &acc);
    if (acc == -2)
        return -1;
    return sw_k(c)->layernorm_bwd(sw_s(c), dx, leaf_grad(p->w), leaf_grad(p->b), &n->out[0]->grad->t, &n->saved[0]->t, value(p->w),
                                  &n->saved[1]->t, &n->saved[2]->t, n->f[0], acc == 1);
}

sw_var *sw_layernorm(sw_ctx *c, sw_var *x, sw_param *w, sw_param *b, double eps, double offset)
{
    sw_var *y = sw_like(c, x), *mean = stats_of(c, x), *rstd = stats_of(c, x);
    if (!y || !mean || !rstd || sw_use(c, leaf(w), leaf(b)) ||
        sw_k(c)->layernorm_fwd(sw_s(c), &y->t, &mean->t, &rstd->t, &x->t, value(w), value(b), eps, offset))
        return NULL;
    layernorm_params *p = sw_ctx_alloc(c, sizeof *p);
    *p = (layernorm_params){w, b};
    return sw_record(c, (sw_node){.op = "layernorm", .back = layernorm_back, .in = {x, leaf(w), leaf(b)}, .out = {y},
                                  .saved = {x, mean, rstd}, .f = {offset}, .data = p});
}
