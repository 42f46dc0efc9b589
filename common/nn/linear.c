#include "nn/linear.h"

sw_var *sw_linear_below(sw_ctx *c, sw_linear *l, sw_adapter *a, sw_var *x)
{
    a = a ? a->next : l->adapter;
    while (a && a->off)
        a = a->next;
    return a ? a->ops->forward(c, l, a, x) : sw_matmul(c, x, l->w, l->bias);
}

sw_var *sw_linear_forward(sw_ctx *c, sw_linear *l, sw_var *x)
{
    const char *outer = c->where;
    c->where = l->name;
    sw_var *y = sw_linear_below(c, l, NULL, x);
    if (y)
        c->where = outer; /* on failure the message's place stays */
    return y;
}

static bool adapted(const sw_linear *l)
{
    for (const sw_adapter *a = l->adapter; a; a = a->next)
        if (!a->off)
            return true;
    return false;
}

sw_var *sw_linear_act(sw_ctx *c, sw_linear *l, sw_var *x, sw_act kind)
{
    const char *outer = c->where;
    if (adapted(l)) {
        sw_var *y = sw_linear_forward(c, l, x);
        return y ? sw_activation(c, y, kind) : NULL;
    }
    c->where = l->name;
    sw_var *y = sw_matmul_act(c, x, l->w, l->bias, kind);
    if (y)
        c->where = outer;
    return y;
}

sw_var *sw_embed_below(sw_ctx *c, sw_linear *l, sw_adapter *a, sw_var *ids)
{
    a = a ? a->next : l->adapter;
    while (a && a->off)
        a = a->next;
    return a ? a->ops->embed(c, l, a, ids) : sw_embedding(c, l->w, ids, 1);
}

sw_var *sw_embed_forward(sw_ctx *c, sw_linear *l, sw_var *ids, double scale)
{
    const char *outer = c->where;
    c->where = l->name;
    sw_var *y = l->adapter ? sw_embed_below(c, l, NULL, ids) : sw_embedding(c, l->w, ids, scale);
    if (y && l->adapter && scale != 1)
        y = sw_scale(c, y, scale);
    if (y)
        c->where = outer;
    return y;
}

void sw_linear_attach(sw_linear *l, sw_adapter *a)
{
    a->next = l->adapter;
    l->adapter = a;
}

void sw_linear_detach_all(sw_linear *l)
{
    for (sw_adapter *a = l->adapter, *next; a; a = next) {
        next = a->next;
        a->ops->free(a);
    }
    l->adapter = NULL;
}
