#include "nn/ops.h"

static int embedding_back(sw_ctx *c, sw_node *n)
{
    return sw_k(c)->embedding_bwd(sw_s(c), &n->in[0]->grad->t, &n->out[0]->grad->t, &n->saved[0]->t, n->f[0]);
}

sw_var *sw_embedding(sw_ctx *c, sw_param *w, sw_var *ids, double scale)
{
    sw_var *y = sw_tmp2(c, c->compute, ids->t.shape[0], w->v.t.shape[1]);
    if (!y || sw_use(c, &w->v, NULL) || sw_k(c)->embedding_fwd(sw_s(c), &y->t, &w->v.t, &ids->t, scale))
        return NULL;
    return sw_record(c, (sw_node){.op = "embedding", .back = embedding_back, .in = {&w->v}, .out = {y}, .saved = {ids}, .f = {scale}});
}
