#include "nn/ops.h"

#include <assert.h>

/* The values of each head from `from` on: t [N, H, D] -> [N, H, D - from]. */
static sw_tensor tail(const sw_tensor *t, int64_t from)
{
    sw_tensor r = *t;
    r.data = (char *)t->data + sw_dtype_bytes(t->dtype, from);
    r.shape[2] -= from;
    return r;
}

/* The first `count` values of each head. */
static sw_tensor front(const sw_tensor *t, int64_t count)
{
    sw_tensor r = *t;
    r.shape[2] = count;
    return r;
}

/* y = x, turned from dimension `from` of each head on; the same memory, or not. */
static int turn(sw_ctx *c, const sw_tensor *y, const sw_tensor *x, int64_t from, const sw_tensor *cos, const sw_tensor *sin, int mode, int inverse)
{
    if (from < 0 || from > x->shape[2] || 2 * cos->shape[1] > x->shape[2] - from)
        return sw_fail("rotation of %lld values from %lld on: a head has %lld", (long long)(2 * cos->shape[1]), (long long)from, (long long)x->shape[2]);
    sw_tensor to = tail(y, from), of = tail(x, from), to_front = front(y, from), of_front = front(x, from);
    if (from && y->data != x->data && sw_k(c)->copy(sw_s(c), &to_front, &of_front))
        return -1;
    return sw_k(c)->rope(sw_s(c), &to, &of, cos, sin, mode, inverse);
}

static int rope_back(sw_ctx *c, sw_node *n)
{
    sw_var *x = n->in[0], *y = n->out[0];
    const sw_tensor *cos = &n->saved[0]->t, *sin = &n->saved[1]->t;
    int mode = (int)n->i[0], inverse = !n->i[2];
    if (!x->needs_grad)
        return 0;
    if (!x->base && !x->grad && y->grad->storage && y->grad->storage->refs == 1) /* turn y's gradient back where it lies */
        return turn(c, &y->grad->t, &y->grad->t, n->i[1], cos, sin, mode, inverse) ? -1 : sw_grad_pass(c, x, y);
    sw_var *t = sw_tmp(c, y->grad->t.dtype, y->t.ndim, y->t.shape);
    if (!t || turn(c, &t->t, &y->grad->t, n->i[1], cos, sin, mode, inverse))
        return -1;
    int acc;
    sw_tensor *g = sw_grad(c, x, &acc);
    return g ? sw_k(c)->axpby(sw_s(c), g, 1, &t->t, acc) : -1;
}

static sw_var *turned_var(sw_ctx *c, sw_var *x, int64_t from, sw_var *cos, sw_var *sin, sw_rope_mode mode, bool inverse)
{
    sw_tensor of = x->t;
    sw_var *y = sw_take_over(c, x);
    if (!y || turn(c, &y->t, &of, from, &cos->t, &sin->t, mode, inverse))
        return NULL;
    return sw_record(c, (sw_node){.op = "rope", .back = rope_back, .in = {x}, .out = {y}, .saved = {cos, sin}, .i = {mode, from, inverse}});
}

sw_var *sw_rope_from(sw_ctx *c, sw_var *x, int64_t from, sw_var *cos, sw_var *sin, sw_rope_mode mode)
{
    return turned_var(c, x, from, cos, sin, mode, false);
}

sw_var *sw_rope_back(sw_ctx *c, sw_var *x, int64_t from, sw_var *cos, sw_var *sin, sw_rope_mode mode)
{
    return turned_var(c, x, from, cos, sin, mode, true);
}

sw_var *sw_rope(sw_ctx *c, sw_var *x, sw_var *cos, sw_var *sin, sw_rope_mode mode) { return sw_rope_from(c, x, 0, cos, sin, mode); }

/* ---- keys of which heads share a part */

static int shared_keys_back(sw_ctx *c, sw_node *n)
{
    const sw_kernels *k = sw_k(c);
    const sw_tensor *dk = &n->out[0]->grad->t;
    int64_t own = n->in[0]->t.shape[2];
    sw_tensor from = front(dk, own), rest = tail(dk, own);
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    if (acc == -2 || (g && k->axpby(sw_s(c), g, 1, &from, acc)))
        return -1;
    if (!(g = sw_grad(c, n->in[1], &acc)))
        return acc == -2 ? -1 : 0;
    sw_var *sum = sw_tmp(c, SW_F32, 3, n->in[1]->t.shape); /* over heads, in f32 */
    for (int64_t h = 0; sum && h < dk->shape[1]; h++) {
        sw_tensor one = rest;
        one.data = (char *)rest.data + sw_dtype_bytes(rest.dtype, h * rest.stride[1]);
        one.shape[1] = 1;
        if (k->axpby(sw_s(c), &sum->t, 1, &one, h > 0))
            return -1;
    }
    return sum ? k->axpby(sw_s(c), g, 1, &sum->t, acc) : -1;
}

sw_var *sw_shared_keys(sw_ctx *c, sw_var *own, sw_var *shared)
{
    int64_t m = own->t.shape[0], heads = own->t.shape[1], width = own->t.shape[2];
    sw_var *y = sw_tmp3(c, own->t.dtype, m, heads, width + shared->t.shape[2]);
    if (!y)
        return NULL;
    sw_tensor to = front(&y->t, width), rest = tail(&y->t, width), all = shared->t;
    all.shape[1] = heads;
    all.stride[1] = 0;
    if (sw_k(c)->copy(sw_s(c), &to, &own->t) || sw_k(c)->copy(sw_s(c), &rest, &all))
        return NULL;
    return sw_record(c, (sw_node){.op = "shared_keys", .back = shared_keys_back, .in = {own, shared}, .out = {y}});
}

/* ---- attention */

static int attend_back(sw_ctx *c, sw_node *n)
{
    const sw_kernels *k = sw_k(c);
    sw_attention *a = n->data;
    a->dsinks = n->in[3] && n->in[3]->needs_grad ? n->in[3]->grad->t.data : NULL;
    int acc[3], add_bias;
    sw_tensor *dbias = sw_grad(c, n->in[4], &add_bias);
    if (add_bias == -2 || (add_bias == 0 && k->fill(sw_s(c), dbias, 0)))
        return -1;
    a->dbias = dbias ? dbias->data : NULL;
    sw_tensor *g[3], into[3];
    for (int i = 0; i < 3; i++) {
        g[i] = sw_grad(c, n->in[i], &acc[i]);
        if (acc[i] == -2)
            return -1;
        if (acc[i] == 0) {
            into[i] = *g[i];
        } else {
            sw_var *t = sw_like(c, n->saved[i]);
            if (!t)
                return -1;
            into[i] = t->t;
        }
    }
    if (k->attention_bwd(sw_s(c), &into[0], &into[1], &into[2], &n->out[0]->grad->t, &n->saved[4]->t, &n->saved[5]->t,
                         &n->saved[0]->t, &n->saved[1]->t, &n->saved[2]->t, &n->saved[3]->t, a))
        return -1;
    for (int i = 0; i < 3; i++)
        if (acc[i] == 1 && k->axpby(sw_s(c), g[i], 1, &into[i], 1))
            return -1;
    return 0;
}

/* Values of a parameter in f32, whatever it computes in. */
static const float *f32_values(const sw_param *p) { return p->master.data ? p->master.data : p->v.t.data; }

static sw_var *attend(sw_ctx *c, sw_var *q, sw_var *k, sw_var *v, sw_var *seqs, const sw_attention *a, sw_var *alibi, sw_param *sinks,
                      sw_var *seen, sw_var *bias)
{
    int64_t n = q->t.shape[0], heads = q->t.shape[1];
    sw_var *sink = sinks ? &sinks->v : NULL;
    bool wants = sw_wants(c, (sw_var *[]){q, k, v, sink, bias}, 5);
    if (sw_use(c, sink, NULL) || (sinks && sw_master_values(sinks) < 0))
        return NULL;
    sw_var *out = sw_tmp3(c, q->t.dtype, n, heads, v->t.shape[2]), *lse = wants ? sw_tmp2(c, SW_F32, n, heads) : NULL;
    sw_attention *copy = sw_ctx_alloc(c, sizeof *copy);
    *copy = *a;
    copy->sinks = sinks ? f32_values(sinks) : NULL;
    copy->dsinks = NULL;
    copy->alibi = alibi ? alibi->t.data : NULL;
    copy->seen = seen ? seen->t.data : NULL;
    copy->seen_words = seen ? seen->t.shape[1] : 0;
    copy->bias = bias ? bias->t.data : NULL;
    copy->dbias = NULL;
    copy->bias_span = bias ? bias->t.shape[1] : 0;
    if (!out || (wants && !lse) ||
        sw_k(c)->attention_fwd(sw_s(c), &out->t, lse ? &lse->t : NULL, &q->t, &k->t, &v->t, &seqs->t, copy))
        return NULL;
    return sw_record(c, (sw_node){.op = "attention", .back = attend_back, .in = {q, k, v, sink, bias}, .out = {out},
                                  .saved = {q, k, v, seqs, wants ? out : NULL, lse, alibi, seen, bias}, .data = copy});
}

sw_var *sw_attend(sw_ctx *c, sw_var *q, sw_var *k, sw_var *v, sw_var *seqs, const sw_attention *a, sw_var *alibi, sw_param *sinks)
{
    return attend(c, q, k, v, seqs, a, alibi, sinks, NULL, NULL);
}

sw_var *sw_attend_seen(sw_ctx *c, sw_var *q, sw_var *k, sw_var *v, sw_var *seqs, const sw_attention *a, sw_var *seen)
{
    return attend(c, q, k, v, seqs, a, NULL, NULL, seen, NULL);
}

sw_var *sw_attend_biased(sw_ctx *c, sw_var *q, sw_var *k, sw_var *v, sw_var *seqs, const sw_attention *a, sw_var *bias)
{
    return attend(c, q, k, v, seqs, a, NULL, NULL, NULL, bias);
}

/* ---- two sets of keys: each is a call of its own; with the sum and the result of both, their ways back are right */

typedef struct both {
    sw_attention first, second;
} both;

/* One set's part of the gradients: dq, and dk + dv into its keys'. */
static int back_over(sw_ctx *c, sw_node *n, sw_tensor *dq, sw_var *kv, const sw_var *saved, const sw_var *seqs, const sw_attention *a)
{
    const sw_kernels *k = sw_k(c);
    sw_var *dk = sw_like(c, saved), *dv = dk ? sw_like(c, saved) : NULL;
    const sw_tensor *q = &n->saved[0]->t, *out = &n->saved[5]->t, *lse = &n->saved[6]->t;
    if (!dv || k->attention_bwd(sw_s(c), dq, &dk->t, &dv->t, &n->out[0]->grad->t, out, lse, q, &saved->t, &saved->t, &seqs->t, a))
        return -1;
    int acc;
    sw_tensor *g = sw_grad(c, kv, &acc);
    return acc == -2 || (g && (k->axpby(sw_s(c), g, 1, &dk->t, acc) || k->axpby(sw_s(c), g, 1, &dv->t, 1))) ? -1 : 0;
}

static int attend_more_back(sw_ctx *c, sw_node *n)
{
    both *b = n->data;
    b->first.dsinks = n->in[3] && n->in[3]->needs_grad ? n->in[3]->grad->t.data : NULL;
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    if (acc == -2)
        return -1;
    sw_var *dq[2] = {sw_like(c, n->saved[0]), sw_like(c, n->saved[0])};
    if (!dq[0] || !dq[1] || back_over(c, n, &dq[0]->t, n->in[1], n->saved[1], n->saved[3], &b->first) ||
        back_over(c, n, &dq[1]->t, n->in[2], n->saved[2], n->saved[4], &b->second))
        return -1;
    return g && (sw_k(c)->axpby(sw_s(c), g, 1, &dq[0]->t, acc) || sw_k(c)->axpby(sw_s(c), g, 1, &dq[1]->t, 1)) ? -1 : 0;
}

sw_var *sw_attend_more(sw_ctx *c, sw_var *q, sw_var *kv, sw_var *seqs, const sw_attention *a, sw_param *sinks, const sw_more_keys *more)
{
    sw_var *sink = sinks ? &sinks->v : NULL, *out[2], *lse[2];
    both *b = sw_ctx_alloc(c, sizeof *b);
    if (sw_use(c, sink, NULL) || (sinks && sw_master_values(sinks) < 0))
        return NULL;
    b->first = *a;
    b->first.sinks = sinks ? f32_values(sinks) : NULL;
    b->second = (sw_attention){.scale = a->scale, .seen = more->seen ? more->seen->t.data : NULL, .seen_words = more->seen ? more->seen->t.shape[1] : 0,
                               .paging = more->paging};
    for (int i = 0; i < 2; i++) {
        sw_var *of = i ? more->kv : kv;
        out[i] = sw_tmp3(c, q->t.dtype, q->t.shape[0], q->t.shape[1], of->t.shape[2]);
        lse[i] = sw_tmp2(c, SW_F32, q->t.shape[0], q->t.shape[1]);
        if (!out[i] || !lse[i] ||
            sw_k(c)->attention_fwd(sw_s(c), &out[i]->t, &lse[i]->t, &q->t, &of->t, &of->t, i ? &more->seqs->t : &seqs->t, i ? &b->second : &b->first))
            return NULL;
    }
    if (sw_k(c)->attention_merge(sw_s(c), &out[0]->t, &lse[0]->t, &out[1]->t, &lse[1]->t))
        return NULL;
    return sw_record(c, (sw_node){.op = "attention", .back = attend_more_back, .in = {q, kv, more->kv, sink}, .out = {out[0]},
                                  .saved = {q, kv, more->kv, seqs, more->seqs, out[0], lse[0], more->seen}, .data = b});
}

/* t [A, B] as [B, A]: the same memory. */
static sw_tensor turned(const sw_tensor *t)
{
    sw_tensor r = *t;
    r.shape[0] = t->shape[1], r.shape[1] = t->shape[0];
    r.stride[0] = t->stride[1], r.stride[1] = t->stride[0];
    return r;
}

static int bias_table_back(sw_ctx *c, sw_node *n)
{
    sw_tensor from = turned(&n->out[0]->grad->t);
    sw_var *t = sw_tmp2(c, n->in[0]->t.dtype, from.shape[0], from.shape[1]);
    int acc;
    if (!t || sw_k(c)->copy(sw_s(c), &t->t, &from))
        return -1;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    return g ? sw_k(c)->axpby(sw_s(c), g, 1, &t->t, acc) : acc == -2 ? -1 : 0;
}

sw_var *sw_bias_table(sw_ctx *c, sw_var *x)
{
    sw_tensor from = turned(&x->t);
    sw_var *y = sw_tmp2(c, SW_F32, from.shape[0], from.shape[1]);
    if (!y || sw_k(c)->copy(sw_s(c), &y->t, &from))
        return NULL;
    return sw_record(c, (sw_node){.op = "bias_table", .back = bias_table_back, .in = {x}, .out = {y}});
}
