#include "nn/ops.h"

#include <assert.h>

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
        sw_tensor dx = sw_as_rows(g), w = sw_as_rows(&m->w->v.t);
        if (k->linear_bwd_x(sw_s(c), &dx, &dy, &w, m->alpha, acc))
            return -1;
    }
    if (m->w->v.needs_grad) {
        sw_tensor x = sw_as_rows(&n->saved[0]->t), dw = sw_as_rows(&m->w->v.grad->t);
        if (k->linear_bwd_w(sw_s(c), &dw, &dy, &x, m->alpha))
            return -1;
    }
    if (m->bias && m->bias->v.needs_grad && k->sum_rows(sw_s(c), &m->bias->v.grad->t, &dy, NULL))
        return -1;
    return 0;
}

static int matmul_back(sw_ctx *c, sw_node *n) { return product_back(c, n, sw_as_rows(&n->out[0]->grad->t)); }

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
    sw_tensor in = sw_as_rows(&x->t);
    sw_var *y = sw_tmp2(c, c->product, in.shape[0], w->v.t.shape[0]);
    if (!y || sw_use(c, &w->v, bias ? &bias->v : NULL))
        return NULL;
    sw_tensor m = sw_as_rows(&w->v.t);
    assert(in.shape[1] == m.shape[1]);
    if (sw_k(c)->linear_fwd(sw_s(c), &y->t, &in, &m, bias ? &bias->v.t : NULL, 1, 0))
        return NULL;
    sw_node n = node_of(c, x, w, bias, 1);
    n.out[0] = y;
    return sw_record(c, n);
}

sw_var *sw_matmul_act(sw_ctx *c, sw_var *x, sw_param *w, sw_param *bias, sw_act kind)
{
    sw_tensor in = sw_as_rows(&x->t);
    /* What act was given is needed on the way back; of ReLU its result says as much. */
    bool keep = sw_wants(c, (sw_var *[]){x, &w->v, bias ? &bias->v : NULL}, 3) && kind != SW_ACT_RELU;
    sw_var *y = sw_tmp2(c, c->product, in.shape[0], w->v.t.shape[0]), *before = y && keep ? sw_like(c, y) : NULL;
    if (!y || (keep && !before) || sw_use(c, &w->v, bias ? &bias->v : NULL))
        return NULL;
    sw_tensor m = sw_as_rows(&w->v.t);
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

/* The end of y's way to sum = y + alpha x w^T. */
static sw_var *record_sum(sw_ctx *c, sw_var *sum, sw_var *y, sw_var *x, sw_param *w, double alpha)
{
    sw_node n = node_of(c, x, w, NULL, alpha);
    n.op = "matmul_add";
    n.back = matmul_add_back;
    n.in[3] = y;
    n.out[0] = sum;
    return sw_record(c, n);
}

sw_var *sw_matmul_add(sw_ctx *c, sw_var *y, sw_var *x, sw_param *w, double alpha)
{
    sw_tensor in = sw_as_rows(&x->t), from = y->t;
    sw_var *sum = sw_take_over(c, y);
    if (!sum || (sum->t.data != from.data && sw_k(c)->copy(sw_s(c), &sum->t, &from)))
        return NULL;
    sw_tensor out = sw_as_rows(&sum->t);
    if (sw_use(c, &w->v, NULL) || sw_k(c)->linear_fwd(sw_s(c), &out, &in, &w->v.t, NULL, alpha, 1))
        return NULL;
    return record_sum(c, sum, y, x, w, alpha);
}

/* a dropout(x) */
static sw_var *lowered(sw_ctx *c, sw_var *x, const sw_low_rank *r)
{
    sw_dtype product = c->product;
    sw_var *kept = sw_dropout(c, x, r->dropout, r->site);
    c->product = c->compute;
    sw_var *t = kept ? sw_matmul(c, kept, r->a, NULL) : NULL;
    c->product = product;
    return t;
}

sw_var *sw_add_low_rank(sw_ctx *c, sw_var *y, sw_var *x, const sw_low_rank *r)
{
    sw_var *t = lowered(c, x, r);
    return t ? sw_matmul_add(c, y, t, r->b, r->scale) : NULL;
}

/* ---- a product and one of low rank beside it, for several that read one x
 *
 * The small product has nothing to hide behind what it reads and writes, the large one has: so the small one writes and the
 * large one adds to it, both ways. On the way back these are dt a, then dy w; so the tape has w's product first, though it is
 * made last. What that is said to give, `large`, never lies anywhere by itself. */

static sw_var *begin_low_rank(sw_ctx *c, sw_var *x, const sw_low_rank_linear *p)
{
    assert(sw_as_rows(&x->t).shape[1] == sw_as_rows(&p->w->v.t).shape[1]);
    sw_node n = node_of(c, x, p->w, p->bias, 1);
    n.out[0] = sw_borrow(c, sw_tensor_of(NULL, c->product, 2, (int64_t[]){x->t.shape[0], p->w->v.t.shape[0]}));
    return sw_use(c, &p->w->v, p->bias ? &p->bias->v : NULL) ? NULL : sw_record(c, n);
}

/* t: a x */
static sw_var *end_low_rank(sw_ctx *c, sw_var *x, const sw_low_rank_linear *p, sw_var *large, sw_var *t)
{
    const sw_kernels *k = sw_k(c);
    sw_var *y = sw_like(c, large), *bias = p->bias ? &p->bias->v : NULL;
    if (!y || sw_use(c, &p->r.b->v, NULL) || k->linear_fwd(sw_s(c), &y->t, &t->t, &p->r.b->v.t, NULL, p->r.scale, 0) ||
        sw_use(c, &p->w->v, bias))
        return NULL;
    sw_tensor in = sw_as_rows(&x->t), w = sw_as_rows(&p->w->v.t);
    return k->linear_fwd(sw_s(c), &y->t, &in, &w, bias ? &bias->t : NULL, 1, 1) ? NULL
                                                                              : record_sum(c, y, large, t, p->r.b, p->r.scale);
}

sw_var *sw_matmul_low_rank(sw_ctx *c, sw_var *x, sw_param *w, sw_param *bias, const sw_low_rank *r)
{
    const sw_low_rank_linear p = {c->where, w, bias, *r};
    sw_var *large = begin_low_rank(c, x, &p), *t = large ? lowered(c, x, r) : NULL;
    return t ? end_low_rank(c, x, &p, large, t) : NULL;
}

/* Whether b's rows go on where a's end. */
static bool goes_on(const sw_tensor *a, const sw_tensor *b)
{
    return a->dtype == b->dtype && sw_is_float(a->dtype) && a->ndim == 2 && b->ndim == 2 && a->shape[1] == b->shape[1] &&
           sw_is_dense(a) && sw_is_dense(b) && (char *)a->data + sw_tensor_bytes(a) == (char *)b->data;
}

bool sw_low_ranks_shared(const sw_ctx *c, const sw_low_rank_linear *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const sw_var *v = &p[i].r.a->v, *before = i ? &p[i - 1].r.a->v : v;
        if ((c->training && p[i].r.dropout > 0) || v->needs_grad != before->needs_grad)
            return false;
        if (i && (!goes_on(&before->t, &v->t) || (v->needs_grad && !goes_on(&before->grad->t, &v->grad->t))))
            return false;
    }
    return true;
}

/* [a_0 a_1 ...] x, from matrices that lie one behind the other. */
static sw_var *lowered_all(sw_ctx *c, sw_var *x, const sw_low_rank_linear *p, size_t n)
{
    const sw_var *first = &p->r.a->v;
    sw_param *whole = sw_ctx_alloc(c, sizeof *whole);
    sw_var **each = sw_ctx_alloc(c, n * sizeof *each), *grad = sw_ctx_alloc(c, sizeof *grad);
    int64_t rows = 0;
    for (size_t i = 0; i < n; i++) {
        each[i] = &p[i].r.a->v;
        rows += each[i]->t.shape[0];
    }
    const int64_t shape[] = {rows, first->t.shape[1]};
    whole->v = (sw_var){.needs_grad = first->needs_grad, .grad = grad};
    whole->v.t = sw_tensor_of(first->t.data, first->t.dtype, 2, shape);
    if (first->needs_grad)
        grad->t = sw_tensor_of(first->grad->t.data, first->grad->t.dtype, 2, shape);
    sw_tensor in = sw_as_rows(&x->t);
    sw_var *t = sw_tmp2(c, c->compute, in.shape[0], rows);
    if (!t || sw_use_away(c, each, n) || sw_k(c)->linear_fwd(sw_s(c), &t->t, &in, &whole->v.t, NULL, 1, 0))
        return NULL;
    sw_node node = node_of(c, x, whole, NULL, 1);
    node.in[1] = NULL; /* the tape knows the parameters themselves */
    node.more = each;
    node.n_more = n;
    node.out[0] = t;
    return sw_record(c, node);
}

/* On the way back the one product of all a's writes, then the large ones add. */
int sw_matmul_low_ranks(sw_ctx *c, sw_var *x, const sw_low_rank_linear *p, size_t n, sw_var **y)
{
    sw_var *t, *part;
    for (size_t i = 0; i < n; i++) {
        c->where = p[i].where;
        if (!(y[i] = begin_low_rank(c, x, &p[i])))
            return -1;
    }
    c->where = p->where;
    if (!(t = lowered_all(c, x, p, n)))
        return -1;
    for (size_t i = 0, first = 0; i < n; first += (size_t)part->t.shape[1], i++) {
        c->where = p[i].where;
        part = sw_columns(c, t, (int64_t)first, p[i].r.a->v.t.shape[0]);
        if (!part || !(y[i] = end_low_rank(c, x, &p[i], y[i], part)))
            return -1;
    }
    return 0;
}

/* ---- one matrix of a stack */

typedef struct stack_args {
    sw_param *w, *bias;
    int64_t count, index;
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
    if (acc == -2 || (dx && k->linear_bwd_x(sw_s(c), dx, &dy, &w, 1, acc)))
        return -1;
    if (a->w->v.needs_grad) {
        sw_tensor dw = part_of(&a->w->v.grad->t, a, 2);
        if (k->linear_bwd_w(sw_s(c), &dw, &dy, &n->saved[0]->t, 1))
            return -1;
    }
    if (!a->bias || !a->bias->v.needs_grad)
        return 0;
    sw_tensor db = part_of(&a->bias->v.grad->t, a, 1);
    return k->sum_rows(sw_s(c), &db, &dy, NULL);
}

sw_var *sw_matmul_one(sw_ctx *c, sw_var *x, sw_param *w, sw_param *bias, int64_t count, int64_t index)
{
    stack_args *a = sw_ctx_alloc(c, sizeof *a);
    *a = (stack_args){w, bias, count, index};
    if (sw_use(c, &w->v, bias ? &bias->v : NULL))
        return NULL;
    sw_tensor m = part_of(&w->v.t, a, 2), add = bias ? part_of(&bias->v.t, a, 1) : m;
    assert(x->t.ndim == 2 && x->t.shape[1] == m.shape[1]);
    sw_var *y = sw_tmp2(c, c->product, x->t.shape[0], m.shape[0]);
    if (!y || sw_k(c)->linear_fwd(sw_s(c), &y->t, &x->t, &m, bias ? &add : NULL, 1, 0))
        return NULL;
    return sw_record(c, (sw_node){.op = "matmul_one", .back = stack_back, .in = {x, &w->v, bias ? &bias->v : NULL}, .out = {y},
                                  .saved = {w->v.needs_grad ? x : NULL}, .data = a});
}

/* ---- each row with its expert's matrix */

/* Where the scales of 8-bit floats are of the whole matrix, from its beginning on. */
static bool same_scales(const sw_tensor *a, const sw_tensor *b)
{
    const sw_scales *s = a->scales, *t = b->scales;
    if (!s || !t)
        return !s && !t;
    return s->origin == a->data && t->origin == b->data && s->rows == t->rows && s->width == t->width && s->high == t->high &&
           s->wide == t->wide && s->line == t->line;
}

static bool same_layout(const sw_tensor *a, const sw_tensor *b)
{
    return a->dtype == b->dtype && a->ndim == 2 && b->ndim == 2 && a->shape[0] == b->shape[0] && a->shape[1] == b->shape[1] &&
           a->stride[0] == b->stride[0] && same_scales(a, b);
}

bool sw_experts_alike(const sw_experts *w)
{
    for (int64_t e = 1; e < w->n; e++)
        if (!same_layout(&w->at[e]->v.t, &w->at[0]->v.t) || w->at[e]->v.needs_grad != w->at[0]->v.needs_grad)
            return false;
    return true;
}

/* Lists of what each of the parameters has, found again while none of them moves. */
enum list { VALUES, GRADIENTS, SCALES, FIRST_SCALES };
static const void *address_of(const sw_param *p, enum list which)
{
    return which == GRADIENTS ? p->v.grad->t.data : which == SCALES ? p->v.t.scales : which == FIRST_SCALES ? p->v.t.scales->at : p->v.t.data;
}

static int list_of(sw_ctx *c, const sw_experts *w, enum list which, const void *const **host, const void *const **device)
{
    const uint64_t key[] = {(uintptr_t)w->at, sw_layout(), which};
    if (sw_ctx_find_addresses(c, key, sizeof key, host, device))
        return 0;
    const void **at = sw_ctx_alloc(c, (size_t)w->n * sizeof *at);
    for (int64_t e = 0; e < w->n; e++)
        at[e] = address_of(w->at[e], which);
    return sw_ctx_keep_addresses(c, key, sizeof key, at, (size_t)w->n, host, device);
}

/* The matrices, or their gradients. */
static int matrices_of(sw_ctx *c, const sw_experts *w, bool gradients, sw_matrices *m)
{
    sw_tensor first = gradients ? w->at[0]->v.grad->t : w->at[0]->v.t;
    const void *const *scales, *const *unused;
    *m = (sw_matrices){.one = first, .count = w->count};
    if (w->n > 1) {
        if (first.scales && (list_of(c, w, SCALES, &scales, &unused) || list_of(c, w, FIRST_SCALES, &unused, &m->scales_table)))
            return -1;
        m->scales = first.scales ? (const sw_scales *const *)scales : NULL;
        return list_of(c, w, gradients ? GRADIENTS : VALUES, &m->at, &m->table);
    }
    m->one.ndim = 2;
    if (first.ndim == 3) {
        m->step = first.stride[0];
        m->one.shape[0] = first.shape[1];
        m->one.shape[1] = first.shape[2];
        m->one.stride[0] = first.stride[1];
        m->one.stride[1] = 1;
    } else {
        m->one.shape[0] /= w->count;
        m->step = m->one.shape[0] * first.stride[0];
    }
    return 0;
}

typedef struct places_args {
    sw_experts w;
    sw_param *bias;
    double alpha;
} places_args;

static int places_back(sw_ctx *c, sw_node *n)
{
    const sw_kernels *k = sw_k(c);
    const places_args *a = n->data;
    sw_tensor *dy = &n->out[0]->grad->t, *x = n->saved[0] ? &n->saved[0]->t : NULL,
              start = sw_row_view(&n->saved[1]->t, 0, a->w.count + 1);
    sw_matrices m;
    int acc;
    sw_tensor *dx = sw_grad(c, n->in[0], &acc);
    if (acc == -2 || (dx && matrices_of(c, &a->w, false, &m)))
        return -1;
    if (dx && (a->w.turned ? k->grouped_fwd(sw_s(c), dx, dy, &m, NULL, &start, a->alpha, acc)
                           : k->grouped_bwd_x(sw_s(c), dx, dy, &m, &start, a->alpha, acc)))
        return -1;
    if (x && (matrices_of(c, &a->w, true, &m) ||
              k->grouped_bwd_w(sw_s(c), &m, a->w.turned ? x : dy, a->w.turned ? dy : x, &start, a->alpha)))
        return -1;
    return a->bias && a->bias->v.needs_grad ? k->grouped_sum(sw_s(c), &a->bias->v.grad->t, dy, &start) : 0;
}

static int places_add_back(sw_ctx *c, sw_node *n) { return places_back(c, n) || sw_grad_pass(c, n->in[3], n->out[0]) ? -1 : 0; }

static sw_node places_node(sw_ctx *c, sw_var *x, const sw_experts *w, sw_param *bias, double alpha, const sw_dispatch *d)
{
    places_args *a = sw_ctx_alloc(c, sizeof *a);
    int64_t n = c->recording || c->hooks.value ? w->n : 0; /* else nobody asks, and experts are many */
    sw_var **all = sw_ctx_alloc(c, (size_t)n * sizeof *all);
    *a = (places_args){*w, bias, alpha};
    for (int64_t e = 0; e < n; e++)
        all[e] = &w->at[e]->v;
    return (sw_node){.op = "matmul_places",
                     .back = places_back,
                     .in = {x, bias ? &bias->v : NULL},
                     .more = all,
                     .n_more = (size_t)n,
                     .saved = {w->at[0]->v.needs_grad ? x : NULL, d->start},
                     .data = a};
}

sw_var *sw_matmul_places(sw_ctx *c, sw_var *x, const sw_experts *w, sw_param *bias, const sw_dispatch *d)
{
    const sw_kernels *k = sw_k(c);
    sw_node n = places_node(c, x, w, bias, 1, d);
    sw_tensor start = sw_row_view(&d->start->t, 0, w->count + 1);
    sw_matrices m;
    if (sw_use_away(c, n.in, 2) || sw_use_away(c, n.more, n.n_more) || matrices_of(c, w, false, &m))
        return NULL;
    assert(x->t.ndim == 2 && x->t.shape[1] == m.one.shape[!w->turned] && (!bias || d->experts == w->count));
    sw_var *y = n.out[0] = sw_tmp2(c, c->product, x->t.shape[0], m.one.shape[w->turned]);
    if (!y)
        return NULL;
    /* turned: the product adds to the bias, which lies in every row */
    if (w->turned && bias && k->gather_rows(sw_s(c), &y->t, &bias->v.t, &d->of->t))
        return NULL;
    if (w->turned ? k->grouped_bwd_x(sw_s(c), &y->t, &x->t, &m, &start, 1, bias ? 1 : 0)
                  : k->grouped_fwd(sw_s(c), &y->t, &x->t, &m, bias ? &bias->v.t : NULL, &start, 1, 0))
        return NULL;
    return sw_record(c, n);
}

sw_var *sw_matmul_places_add(sw_ctx *c, sw_var *y, sw_var *x, const sw_experts *w, double alpha, const sw_dispatch *d)
{
    sw_node n = places_node(c, x, w, NULL, alpha, d);
    sw_tensor start = sw_row_view(&d->start->t, 0, w->count + 1), from = y->t;
    sw_matrices m;
    sw_var *sum = sw_take_over(c, y);
    assert(!w->turned);
    if (!sum || (sum->t.data != from.data && sw_k(c)->copy(sw_s(c), &sum->t, &from)) || sw_use_away(c, n.more, n.n_more) ||
        matrices_of(c, w, false, &m) || sw_k(c)->grouped_fwd(sw_s(c), &sum->t, &x->t, &m, NULL, &start, alpha, 1))
        return NULL;
    n.op = "matmul_places_add";
    n.back = places_add_back;
    n.in[3] = y;
    n.out[0] = sum;
    return sw_record(c, n);
}
