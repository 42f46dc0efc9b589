#include "nn/ops.h"

#include <assert.h>

static int rope_back(sw_ctx *c, sw_node *n)
{
    sw_var *x = n->in[0], *y = n->out[0];
    int mode = (int)n->i[0];
    if (!x->needs_grad)
        return 0;
    if (!x->base && !x->grad && y->grad->storage && y->grad->storage->refs == 1) /* turn y's gradient back where it lies */
        return sw_k(c)->rope(sw_s(c), &y->grad->t, &y->grad->t, &n->saved[0]->t, &n->saved[1]->t, mode, 1) ? -1
                                                                                                          : sw_grad_pass(c, x, y);
    sw_var *t = sw_tmp(c, y->grad->t.dtype, y->t.ndim, y->t.shape);
    if (!t || sw_k(c)->rope(sw_s(c), &t->t, &y->grad->t, &n->saved[0]->t, &n->saved[1]->t, mode, 1))
        return -1;
    int acc;
    sw_tensor *g = sw_grad(c, x, &acc);
    return g ? sw_k(c)->axpby(sw_s(c), g, 1, &t->t, acc) : -1;
}

sw_var *sw_rope(sw_ctx *c, sw_var *x, sw_var *cos, sw_var *sin, sw_rope_mode mode)
{
    sw_tensor from = x->t;
    sw_var *y = sw_take_over(c, x);
    if (!y || sw_k(c)->rope(sw_s(c), &y->t, &from, &cos->t, &sin->t, mode, 0))
        return NULL;
    return sw_record(c, (sw_node){.op = "rope", .back = rope_back, .in = {x}, .out = {y}, .saved = {cos, sin}, .i = {mode}});
}

static int attend_back(sw_ctx *c, sw_node *n)
{
    const sw_kernels *k = sw_k(c);
    sw_attention *a = n->data;
    a->dsinks = n->in[3] && n->in[3]->needs_grad ? n->in[3]->grad->t.data : NULL;
    int acc[3];
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

sw_var *sw_attend(sw_ctx *c, sw_var *q, sw_var *k, sw_var *v, sw_var *seqs, const sw_attention *a, sw_var *alibi, sw_param *sinks)
{
    int64_t n = q->t.shape[0], heads = q->t.shape[1];
    sw_var *sink = sinks ? &sinks->v : NULL;
    bool wants = sw_wants(c, (sw_var *[]){q, k, v, sink}, 4);
    if (sw_use(c, sink, NULL) || (sinks && sw_master_values(sinks) < 0))
        return NULL;
    sw_var *out = sw_tmp3(c, q->t.dtype, n, heads, v->t.shape[2]), *lse = wants ? sw_tmp2(c, SW_F32, n, heads) : NULL;
    sw_attention *copy = sw_ctx_alloc(c, sizeof *copy);
    *copy = *a;
    copy->sinks = sinks ? f32_values(sinks) : NULL;
    copy->dsinks = NULL;
    copy->alibi = alibi ? alibi->t.data : NULL;
    if (!out || (wants && !lse) ||
        sw_k(c)->attention_fwd(sw_s(c), &out->t, lse ? &lse->t : NULL, &q->t, &k->t, &v->t, &seqs->t, copy))
        return NULL;
    return sw_record(c, (sw_node){.op = "attention", .back = attend_back, .in = {q, k, v, sink}, .out = {out},
                                  .saved = {q, k, v, seqs, wants ? out : NULL, lse, alibi}, .data = copy});
}
