#include "nn/ops.h"

#include <assert.h>

/* [N, anything] as [N, width]. */
static sw_tensor flat2(const sw_tensor *t)
{
    if (t->ndim == 2)
        return *t;
    assert(sw_is_dense(t));
    int64_t width = 1;
    for (int i = 1; i < t->ndim; i++)
        width *= t->shape[i];
    return sw_reshaped(t, 2, (int64_t[]){t->shape[0], width});
}

typedef struct matmul_args {
    sw_param *w, *bias;
    double alpha;
    sw_act act;
} matmul_args;

static int product_back(sw_ctx *c, sw_node *n, sw_tensor dy)
{
    const sw_kernels *k = sw_k(c);
    const matmul_args *m = n->data;
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    if (acc == -2)
        return -1;
    if (g) {
        sw_tensor dx = flat2(g), w = flat2(&m->w->v.t);
        if (k->linear_bwd_x(sw_s(c), &dx, &dy, &w, m->alpha, acc))
            return -1;
    }
    if (m->w->v.needs_grad) {
        sw_tensor x = flat2(&n->saved[0]->t), dw = flat2(&m->w->v.grad->t);
        if (k->linear_bwd_w(sw_s(c), &dw, &dy, &x, m->alpha))
            return -1;
    }
    if (m->bias && m->bias->v.needs_grad && k->sum_rows(sw_s(c), &m->bias->v.grad->t, &dy, NULL))
        return -1;
    return 0;
}

static int matmul_back(sw_ctx *c, sw_node *n) { return product_back(c, n, flat2(&n->out[0]->grad->t)); }

static int matmul_act_back(sw_ctx *c, sw_node *n)
{
    const matmul_args *m = n->data;
    sw_var *d = sw_like(c, n->out[0]);
    return !d || sw_k(c)->act_bwd(sw_s(c), &d->t, &n->out[0]->grad->t, &n->saved[1]->t, m->act, 0) || product_back(c, n, d->t) ? -1 : 0;
}

static int matmul_add_back(sw_ctx *c, sw_node *n)
{
    return matmul_back(c, n) || sw_grad_pass(c, n->in[3], n->out[0]) ? -1 : 0;
}

static sw_node node_of(sw_ctx *c, sw_var *x, sw_param *w, sw_param *bias, double alpha)
{
    matmul_args *m = sw_ctx_alloc(c, sizeof *m);
    *m = (matmul_args){w, bias, alpha, SW_ACT_NONE};
    /* x's values are needed for the weight's gradient only: a frozen weight costs no memory. */
    return (sw_node){.op = "matmul", .back = matmul_back, .in = {x, &w->v, bias ? &bias->v : NULL},
                     .saved = {w->v.needs_grad ? x : NULL}, .data = m};
}

sw_var *sw_matmul(sw_ctx *c, sw_var *x, sw_param *w, sw_param *bias)
{
    sw_tensor in = flat2(&x->t);
    sw_var *y = sw_tmp2(c, c->product, in.shape[0], w->v.t.shape[0]);
    if (!y || sw_use(c, &w->v, bias ? &bias->v : NULL))
        return NULL;
    sw_tensor m = flat2(&w->v.t);
    assert(in.shape[1] == m.shape[1]);
    if (sw_k(c)->linear_fwd(sw_s(c), &y->t, &in, &m, bias ? &bias->v.t : NULL, 1, 0))
        return NULL;
    sw_node n = node_of(c, x, w, bias, 1);
    n.out[0] = y;
    return sw_record(c, n);
}

sw_var *sw_matmul_act(sw_ctx *c, sw_var *x, sw_param *w, sw_param *bias, sw_act kind)
{
    sw_tensor in = flat2(&x->t);
    /* What act was given is needed on the way back; of ReLU its result says as much. */
    bool keep = sw_wants(c, (sw_var *[]){x, &w->v, bias ? &bias->v : NULL}, 3) && kind != SW_ACT_RELU;
    sw_var *y = sw_tmp2(c, c->product, in.shape[0], w->v.t.shape[0]), *before = y && keep ? sw_like(c, y) : NULL;
    if (!y || (keep && !before) || sw_use(c, &w->v, bias ? &bias->v : NULL))
        return NULL;
    sw_tensor m = flat2(&w->v.t);
    assert(in.shape[1] == m.shape[1]);
    if (sw_k(c)->linear_act_fwd(sw_s(c), &y->t, before ? &before->t : NULL, &in, &m, bias ? &bias->v.t : NULL, kind))
        return NULL;
    sw_node n = node_of(c, x, w, bias, 1);
    ((matmul_args *)n.data)->act = kind;
    n.op = "matmul_act";
    n.back = matmul_act_back;
    n.out[0] = y;
    n.saved[1] = before ? before : y;
    return sw_record(c, n);
}

sw_var *sw_matmul_add(sw_ctx *c, sw_var *y, sw_var *x, sw_param *w, double alpha)
{
    sw_tensor in = flat2(&x->t), from = y->t;
    sw_var *sum = sw_take_over(c, y);
    if (!sum || (sum->t.data != from.data && sw_k(c)->copy(sw_s(c), &sum->t, &from)))
        return NULL;
    sw_tensor out = flat2(&sum->t);
    if (sw_use(c, &w->v, NULL) || sw_k(c)->linear_fwd(sw_s(c), &out, &in, &w->v.t, NULL, alpha, 1))
        return NULL;
    sw_node n = node_of(c, x, w, NULL, alpha);
    n.op = "matmul_add";
    n.back = matmul_add_back;
    n.in[3] = y;
    n.out[0] = sum;
    return sw_record(c, n);
}

/* ---- one matrix of a stack */

typedef struct stack_args {
    sw_param *w, *bias;
    int64_t index, count;
    bool turned;
} stack_args;

/* Part `index` of `count` equal ones, of `ndim` dimensions. */
static sw_tensor part_of(const sw_tensor *t, const stack_args *a, int ndim)
{
    int64_t rows = t->shape[0] / a->count;
    sw_tensor m = sw_row_view(t, a->index * rows, rows);
    return t->ndim == ndim ? m : sw_reshaped(&m, ndim, m.shape + 1);
}

static int stack_back(sw_ctx *c, sw_node *n)
{
    const sw_kernels *k = sw_k(c);
    const stack_args *a = n->data;
    sw_tensor dy = n->out[0]->grad->t, w = part_of(&a->w->v.t, a, 2);
    int acc;
    sw_tensor *dx = sw_grad(c, n->in[0], &acc);
    if (acc == -2)
        return -1;
    if (dx && (a->turned ? k->linear_fwd(sw_s(c), dx, &dy, &w, NULL, 1, acc) : k->linear_bwd_x(sw_s(c), dx, &dy, &w, 1, acc)))
        return -1;
    if (a->w->v.needs_grad) {
        sw_tensor dw = part_of(&a->w->v.grad->t, a, 2), *x = &n->saved[0]->t;
        if (k->linear_bwd_w(sw_s(c), &dw, a->turned ? x : &dy, a->turned ? &dy : x, 1))
            return -1;
    }
    if (!a->bias || !a->bias->v.needs_grad)
        return 0;
    sw_tensor db = part_of(&a->bias->v.grad->t, a, 1);
    return k->sum_rows(sw_s(c), &db, &dy, NULL);
}

sw_var *sw_matmul_one(sw_ctx *c, sw_var *x, sw_param *w, sw_param *bias, int64_t count, int64_t index, bool turned)
{
    const sw_kernels *k = sw_k(c);
    stack_args *a = sw_ctx_alloc(c, sizeof *a);
    *a = (stack_args){w, bias, index, count, turned};
    if (sw_use(c, &w->v, bias ? &bias->v : NULL))
        return NULL;
    sw_tensor m = part_of(&w->v.t, a, 2), add = bias ? part_of(&bias->v.t, a, 1) : m;
    int64_t n = x->t.shape[0], out = m.shape[turned];
    assert(x->t.ndim == 2 && x->t.shape[1] == m.shape[!turned]);
    sw_var *y = sw_tmp2(c, c->product, n, out);
    if (!y)
        return NULL;
    if (turned && bias) { /* the product adds to the bias, which lies in every row */
        int32_t *none = sw_ctx_alloc(c, (size_t)n * sizeof *none);
        sw_tensor row = sw_tensor_of(add.data, add.dtype, 2, (int64_t[]){1, out});
        for (int64_t i = 0; i < n; i++)
            none[i] = 0;
        sw_var *ids = sw_from_host(c, SW_I32, 1, &n, none);
        if (!ids || k->gather_rows(sw_s(c), &y->t, &row, &ids->t))
            return NULL;
    }
    if (turned ? k->linear_bwd_x(sw_s(c), &y->t, &x->t, &m, 1, bias ? 1 : 0) : k->linear_fwd(sw_s(c), &y->t, &x->t, &m, bias ? &add : NULL, 1, 0))
        return NULL;
    return sw_record(c, (sw_node){.op = "matmul_one", .back = stack_back, .in = {x, &w->v, bias ? &bias->v : NULL}, .out = {y},
                                  .saved = {w->v.needs_grad ? x : NULL}, .data = a});
}
