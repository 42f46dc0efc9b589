#include "nn/linear.h"

#include <assert.h>

/* The next adapter that is on, behind `a` (NULL: the topmost). */
static sw_adapter *next_on(const sw_linear *l, const sw_adapter *a)
{
    sw_adapter *next = a ? a->next : l->adapter;
    while (next && next->off)
        next = next->next;
    return next;
}

static sw_low_rank low_rank_of(const sw_adapter *a)
{
    sw_low_rank r;
    a->ops->low_rank(a, &r);
    return r;
}

sw_var *sw_linear_below(sw_ctx *c, sw_linear *l, sw_adapter *a, sw_var *x)
{
    sw_adapter *next = next_on(l, a);
    if (!next)
        return sw_matmul(c, x, l->w, l->bias);
    if (!next->ops->low_rank)
        return next->ops->forward(c, l, next, x);
    sw_low_rank r = low_rank_of(next);
    if (!next_on(l, next))
        return sw_matmul_low_rank(c, x, l->w, l->bias, &r);
    sw_var *y = sw_linear_below(c, l, next, x);
    return y ? sw_add_low_rank(c, y, x, &r) : NULL;
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

/* Those with an adapter of low rank and no other multiply x by one matrix, where theirs lie side by side. They come last: on the
 * way back their small product then is the first to reach x's gradient, and all others add to that. */
int sw_linears_forward(sw_ctx *c, sw_linear *const *l, size_t n, sw_var *x, sw_var **y)
{
    const char *outer = c->where;
    sw_low_rank_linear p[SW_LINEARS_MOST];
    sw_var *out[SW_LINEARS_MOST];
    size_t at[SW_LINEARS_MOST], some = 0, k = 0;
    assert(n <= SW_LINEARS_MOST);
    for (size_t i = 0; i < n; i++) {
        const sw_adapter *a = next_on(l[i], NULL);
        if (!a || !a->ops->low_rank || next_on(l[i], a))
            continue;
        p[some] = (sw_low_rank_linear){l[i]->name, l[i]->w, l[i]->bias, low_rank_of(a)};
        at[some++] = i;
    }
    if (some < 2 || !sw_low_ranks_shared(c, p, some))
        some = 0;
    for (size_t i = 0; i < n; i++) {
        if (k < some && at[k] == i)
            k++;
        else if (!(y[i] = sw_linear_forward(c, l[i], x)))
            return -1;
    }
    if (some && sw_matmul_low_ranks(c, x, p, some, out))
        return -1;
    for (k = 0; k < some; k++)
        y[at[k]] = out[k];
    c->where = outer;
    return 0;
}

sw_var *sw_linear_act(sw_ctx *c, sw_linear *l, sw_var *x, sw_act kind)
{
    const char *outer = c->where;
    if (next_on(l, NULL)) {
        sw_var *y = sw_linear_forward(c, l, x);
        return y ? sw_activation(c, y, kind) : NULL;
    }
    c->where = l->name;
    sw_var *y = sw_matmul_act(c, x, l->w, l->bias, kind);
    if (y)
        c->where = outer;
    return y;
}

/* ---- Linears of experts */

/* The next adapters that are on, one of each Linear, behind `a` (NULL: the topmost). Returns how many have one. */
static int64_t next_adapters(const sw_linears *l, sw_adapter *const *a, sw_adapter **out)
{
    int64_t some = 0;
    for (int64_t e = 0; e < l->n; e++) {
        out[e] = next_on(&l->at[e], a ? a[e] : NULL);
        some += out[e] != NULL;
    }
    return some;
}

/* Whether adapters at every height of the chains are of one kind that can be run at once. */
static bool adapters_alike(sw_ctx *c, const sw_linears *l)
{
    sw_adapter **a = sw_ctx_alloc(c, (size_t)l->n * sizeof *a);
    int64_t some = next_adapters(l, NULL, a);
    for (; some == l->n; some = next_adapters(l, a, a)) {
        bool one_kind = a[0]->ops->places != NULL;
        for (int64_t e = 1; e < l->n && one_kind; e++)
            one_kind = a[e]->ops == a[0]->ops;
        if (!one_kind || !a[0]->ops->alike(a, l->n))
            return false;
    }
    return some == 0;
}

static sw_experts experts_of(const sw_linears *l) { return (sw_experts){l->w, l->n, l->n, false}; }

/* Whether one kernel can do the work of all. */
static bool at_once(sw_ctx *c, sw_linears *l)
{
    if (l->seen == sw_layout())
        return l->alike;
    l->plain = true;
    bool biased = false;
    for (int64_t e = 0; e < l->n; e++) {
        l->w[e] = l->at[e].w;
        biased |= l->at[e].bias != NULL;
        l->plain &= !l->at[e].adapter;
    }
    sw_experts w = experts_of(l);
    l->alike = !biased && sw_experts_alike(&w) && (l->plain || adapters_alike(c, l));
    l->seen = sw_layout();
    return l->alike;
}

sw_var *sw_places_below(sw_ctx *c, sw_linears *l, sw_adapter *const *a, sw_var *x, const sw_dispatch *d)
{
    sw_adapter **next = l->plain ? NULL : sw_ctx_alloc(c, (size_t)l->n * sizeof *next);
    if (next && next_adapters(l, a, next))
        return next[0]->ops->places(c, l, next, x, d);
    sw_experts w = experts_of(l);
    return sw_matmul_places(c, x, &w, NULL, d);
}

/* Each Linear by itself: the host reads how many rows they have. c->keys: of the places. */
static sw_var *one_by_one(sw_ctx *c, const sw_linears *l, sw_var *x, const sw_dispatch *d)
{
    int64_t rows = x->t.shape[0];
    sw_var *keys = c->keys;
    int32_t *start = sw_ctx_alloc(c, (size_t)(d->experts + 1) * sizeof *start), *all = sw_ctx_alloc(c, (size_t)rows * sizeof *all);
    for (int64_t i = 0; i < rows; i++)
        all[i] = (int32_t)i;
    sw_var *y = sw_tmp2(c, c->product, rows, l->at[0].out), *places = sw_from_host(c, SW_I32, 1, &rows, all);
    if (!y || !places || sw_k(c)->fill(sw_s(c), &y->t, 0) || sw_to_host(c, d->start, start))
        return NULL;
    for (int64_t e = 0; y && e < l->n; e++) {
        int64_t first = start[e], count = start[e + 1] - first;
        if (!count)
            continue;
        sw_scope scope = sw_scope_begin(c);
        c->keys = keys ? sw_row_range(c, keys, first, count) : NULL;
        sw_var *part = sw_linear_forward(c, &l->at[e], sw_row_range(c, x, first, count));
        y = part ? sw_scope_return(c, scope, sw_scatter_add(c, y, part, sw_row_range(c, places, first, count))) : NULL;
    }
    return y;
}

sw_var *sw_linear_places(sw_ctx *c, sw_linears *l, sw_var *x, const sw_dispatch *d)
{
    const char *outer = c->where;
    bool once = at_once(c, l);
    sw_var *of_tokens = c->keys;
    c->where = l->at[0].name;
    if (c->training && of_tokens && !l->plain && !(c->keys = sw_keys_at_places(c, d)))
        return NULL;
    sw_var *y = once ? sw_places_below(c, l, NULL, x, d) : one_by_one(c, l, x, d);
    c->keys = of_tokens;
    if (y)
        c->where = outer;
    return y;
}

sw_var *sw_embed_below(sw_ctx *c, sw_linear *l, sw_adapter *a, sw_var *ids)
{
    sw_adapter *next = next_on(l, a);
    return next ? next->ops->embed(c, l, next, ids) : sw_embedding(c, l->w, ids, 1);
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
    sw_layout_changed();
}

void sw_linear_detach_all(sw_linear *l)
{
    for (sw_adapter *a = l->adapter, *next; a; a = next) {
        next = a->next;
        a->ops->free(a);
    }
    l->adapter = NULL;
    sw_layout_changed();
}
