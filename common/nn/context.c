#include "nn/context.h"

#include "base/strbuf.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* The pool. Sizes are rounded up to eight classes a doubling (at most 12.5 % waste); freed blocks wait in their
 * class. Batches of changing length would leave blocks of many sizes behind, so a request may take a block up to
 * three classes larger, and what waits is given back to the device before it grows past a quarter of the peak. */
enum { CLASSES = 8 * 48 };

typedef struct sw_pool {
    struct { sw_storage **at; size_t n, cap; } idle[CLASSES];
    size_t in_use, waiting, peak, limit;
} sw_pool;

static int class_of(size_t n)
{
    if (n <= 64)
        return 0;
    int log = 63 - __builtin_clzll(n - 1);              /* 2^log <= n - 1 */
    return (log - 6) * 8 + (int)((n - 1) >> (log - 3) & 7) + 1;
}

static size_t class_bytes(int k)
{
    if (k == 0)
        return 64;
    int log = (k - 1) / 8 + 6, eighth = (k - 1) % 8;
    return ((size_t)(8 + eighth + 1) << log) / 8;
}

static int by_address(const void *a, const void *b)
{
    const sw_storage *x = *(sw_storage *const *)a, *y = *(sw_storage *const *)b;
    return ((uintptr_t)x->data > (uintptr_t)y->data) - ((uintptr_t)x->data < (uintptr_t)y->data);
}

void sw_ctx_settle(sw_ctx *c)
{
    for (int k = 0; k < CLASSES; k++)
        if (c->pool->idle[k].n > 1)
            qsort(c->pool->idle[k].at, c->pool->idle[k].n, sizeof *c->pool->idle[k].at, by_address);
}

static void release_idle(sw_ctx *c)
{
    for (int k = 0; k < CLASSES; k++) {
        for (size_t i = 0; i < c->pool->idle[k].n; i++) {
            sw_storage *s = c->pool->idle[k].at[i];
            c->pool->waiting -= s->bytes;
            c->device->free(c->device, s->data);
            free(s);
        }
        c->pool->idle[k].n = 0;
    }
}

static sw_storage *take(sw_ctx *c, size_t n)
{
    sw_pool *p = c->pool;
    int k = class_of(n);
    assert(k < CLASSES);
    for (int try = k; try < k + 4 && try < CLASSES; try++) {
        if (!p->idle[try].n)
            continue;
        sw_storage *s = p->idle[try].at[--p->idle[try].n];
        p->waiting -= s->bytes;
        p->in_use += s->bytes;
        p->peak = SW_MAX(p->peak, p->in_use);
        s->refs = 1;
        return s;
    }
    size_t bytes = class_bytes(k);
    char have[32], want[32];
    if (p->limit && p->in_use + bytes > p->limit)
        return sw_fail_null("%s: %s more would pass the memory limit of %s; lower the batch size or the length, or turn on "
                            "recomputation", c->where ? c->where : "tensor", sw_human_bytes((double)bytes, want),
                            sw_human_bytes((double)p->limit, have));
    if (p->waiting && (p->in_use + p->waiting + bytes > p->peak + p->peak / 4 ||
                       (p->limit && p->in_use + p->waiting + bytes > p->limit)))
        release_idle(c);
    void *data = c->device->alloc(c->device, bytes);
    if (!data && p->waiting) {
        release_idle(c);
        data = c->device->alloc(c->device, bytes);
    }
    if (!data) {
        sw_fail_in("%s (%s in use)", c->where ? c->where : "tensor", sw_human_bytes((double)p->in_use, have));
        return NULL;
    }
    sw_storage *s = SW_NEW(sw_storage);
    *s = (sw_storage){data, bytes, 1, k};
    p->in_use += bytes;
    p->peak = SW_MAX(p->peak, p->in_use);
    return s;
}

static void drop(sw_ctx *c, sw_storage *s)
{
    if (!s || --s->refs)
        return;
    c->pool->in_use -= s->bytes;
    c->pool->waiting += s->bytes;
    SW_PUSH(c->pool->idle[s->size_class], s);
}

int sw_ctx_init(sw_ctx *c, sw_device *d, sw_dtype compute)
{
    *c = (sw_ctx){.device = d, .compute = compute, .product = compute, .pool = SW_NEW(sw_pool)};
    if (!sw_is_float(compute))
        return sw_fail("activations cannot be %s; use f32, bf16 or f16", sw_dtypes[compute].name);
    return 0;
}

void sw_ctx_init_twin(sw_ctx *twin, sw_ctx *c)
{
    *twin = (sw_ctx){.device = c->device, .compute = c->compute, .product = c->product, .hooks = c->hooks, .pool = c->pool,
                      .twin_of = c};
}

static void free_pool(sw_ctx *c)
{
    release_idle(c);
    for (int k = 0; k < CLASSES; k++)
        free(c->pool->idle[k].at);
    free(c->pool);
}

void sw_ctx_free(sw_ctx *c)
{
    if (!c->pool)
        return;
    sw_ctx_reset(c);
    sw_landing_free(&c->landing, c->device);
    if (!c->twin_of)
        free_pool(c);
    for (size_t i = 0; i < c->lists.n; i++) {
        if (c->lists.at[i].device != c->lists.at[i].host)
            c->device->free(c->device, c->lists.at[i].device);
        free(c->lists.at[i].host);
    }
    free(c->lists.at);
    sw_map_free(&c->known_lists);
    free(c->temps.at);
    free(c->nodes.at);
    sw_arena_free(&c->arena);
    *c = (sw_ctx){0};
}

void sw_ctx_trim(sw_ctx *c) { release_idle(c); }
size_t sw_ctx_bytes(const sw_ctx *c) { return c->pool->in_use; }
size_t sw_ctx_peak(const sw_ctx *c) { return c->pool->peak; }
void sw_ctx_limit(sw_ctx *c, size_t bytes) { c->pool->limit = bytes; }
void *sw_ctx_alloc(sw_ctx *c, size_t n) { return sw_arena_zalloc(&c->arena, n); }

static sw_var *new_var(sw_ctx *c) { return sw_ctx_alloc(c, sizeof(sw_var)); }

static sw_var *owned_var(sw_ctx *c, sw_dtype dtype, int ndim, const int64_t *shape)
{
    sw_var *v = new_var(c);
    v->t = sw_tensor_of(NULL, dtype, ndim, shape);
    v->storage = take(c, sw_tensor_bytes(&v->t));
    if (!v->storage)
        return NULL;
    v->t.data = v->storage->data;
    return v;
}

sw_var *sw_tmp(sw_ctx *c, sw_dtype dtype, int ndim, const int64_t *shape)
{
    sw_var *v = owned_var(c, dtype, ndim, shape);
    if (v)
        SW_PUSH(c->temps, v);
    return v;
}

sw_var *sw_tmp1(sw_ctx *c, sw_dtype dtype, int64_t a) { return sw_tmp(c, dtype, 1, (int64_t[]){a}); }
sw_var *sw_tmp2(sw_ctx *c, sw_dtype dtype, int64_t a, int64_t b) { return sw_tmp(c, dtype, 2, (int64_t[]){a, b}); }
sw_var *sw_tmp3(sw_ctx *c, sw_dtype dtype, int64_t a, int64_t b, int64_t d)
{
    return sw_tmp(c, dtype, 3, (int64_t[]){a, b, d});
}
sw_var *sw_like(sw_ctx *c, const sw_var *x) { return sw_tmp(c, x->t.dtype, x->t.ndim, x->t.shape); }

sw_var *sw_from_host(sw_ctx *c, sw_dtype dtype, int ndim, const int64_t *shape, const void *host)
{
    sw_tensor t = sw_tensor_of(NULL, dtype, ndim, shape);
    t.data = sw_landing_room(&c->landing, c->device, sw_tensor_bytes(&t));
    if (t.data)
        return sw_landing_send(&c->landing, c->device, t.data, host, sw_tensor_bytes(&t)) ? NULL : sw_borrow(c, t);
    sw_var *v = sw_tmp(c, dtype, ndim, shape);
    if (v && c->device->put(c->device, v->t.data, host, sw_tensor_bytes(&v->t)))
        return NULL;
    return v;
}

int sw_to_host(sw_ctx *c, const sw_var *x, void *host)
{
    assert(sw_is_dense(&x->t));
    return c->device->get(c->device, host, x->t.data, sw_tensor_bytes(&x->t));
}

bool sw_ctx_find_addresses(sw_ctx *c, const void *key, size_t key_bytes, const void *const **host, const void *const **device)
{
    int64_t known = sw_map_get(&c->known_lists, key, key_bytes, -1);
    if (known < 0)
        return false;
    *host = c->lists.at[known].host;
    *device = (const void *const *)c->lists.at[known].device;
    return true;
}

int sw_ctx_keep_addresses(sw_ctx *c, const void *key, size_t key_bytes, const void *const *list, size_t n,
                          const void *const **host, const void *const **device)
{
    size_t bytes = n * sizeof *list;
    struct sw_address_list made = {sw_malloc(bytes), NULL};
    memcpy(made.host, list, bytes);
    made.device = c->device->host ? made.host : c->device->alloc(c->device, bytes);
    if (!made.device || (!c->device->host && c->device->put(c->device, made.device, list, bytes))) {
        if (made.device)
            c->device->free(c->device, made.device);
        free(made.host);
        return -1;
    }
    sw_map_put(&c->known_lists, key, key_bytes, (int64_t)c->lists.n);
    SW_PUSH(c->lists, made);
    *host = made.host;
    *device = (const void *const *)made.device;
    return 0;
}

sw_var *sw_borrow(sw_ctx *c, sw_tensor t)
{
    sw_var *v = new_var(c);
    v->t = t;
    return v;
}

sw_var *sw_heads(sw_var *x, int64_t heads)
{
    if (!x)
        return NULL;
    assert(sw_is_dense(&x->t) && !x->base && !x->grad);
    int64_t n = x->t.shape[0], width = n ? sw_numel(&x->t) / n : x->t.shape[x->t.ndim - 1] * (x->t.ndim > 2 ? x->t.shape[1] : 1);
    assert(width % heads == 0);
    x->t = sw_tensor_of(x->t.data, x->t.dtype, 3, (int64_t[]){n, heads, width / heads});
    return x;
}

sw_tensor sw_as_rows(const sw_tensor *t)
{
    if (t->ndim == 2)
        return *t;
    assert(sw_is_dense(t));
    int64_t width = 1;
    for (int i = 1; i < t->ndim; i++)
        width *= t->shape[i];
    return sw_reshaped(t, 2, (int64_t[]){t->shape[0], width});
}

static sw_var *view(sw_ctx *c, sw_var *x, sw_tensor t)
{
    sw_var *v = new_var(c);
    v->t = t;
    v->base = x;
    v->needs_grad = x->needs_grad;
    v->storage = x->storage;
    if (v->storage)
        v->storage->refs++;
    SW_PUSH(c->temps, v);
    return v;
}

static sw_tensor columns_of(const sw_tensor *x, int64_t start, int64_t count)
{
    sw_tensor t = *x;
    t.data = (char *)t.data + sw_dtype_bytes(t.dtype, start);
    t.shape[t.ndim - 1] = count;
    return t;
}

sw_var *sw_columns(sw_ctx *c, sw_var *x, int64_t start, int64_t count)
{
    assert(start >= 0 && count >= 0 && start + count <= x->t.shape[x->t.ndim - 1]);
    sw_var *v = view(c, x, columns_of(&x->t, start, count));
    v->first_column = start;
    return v;
}

sw_var *sw_row_range(sw_ctx *c, sw_var *x, int64_t start, int64_t count)
{
    assert(start >= 0 && count >= 0 && start + count <= x->t.shape[0]);
    sw_var *v = view(c, x, sw_row_view(&x->t, start, count));
    v->first_row = start;
    return v;
}

sw_var *sw_part(sw_ctx *c, sw_var *x, int64_t offset, int ndim, const int64_t *shape, const int64_t *stride)
{
    assert(sw_is_dense(&x->t) && !x->base);
    sw_tensor t = sw_tensor_of((char *)x->t.data + sw_dtype_bytes(x->t.dtype, offset), x->t.dtype, ndim, shape);
    memcpy(t.stride, stride, (size_t)ndim * sizeof *stride);
    sw_var *v = view(c, x, t);
    v->first_column = offset;
    v->own_strides = true;
    return v;
}

/* ---- scopes */

sw_scope sw_scope_begin(sw_ctx *c) { return c->temps.n; }

void sw_scope_end(sw_ctx *c, sw_scope s, sw_var *const *keep, size_t n_keep)
{
    size_t kept = s;
    for (size_t i = s; i < c->temps.n; i++) {
        sw_var *v = c->temps.at[i];
        bool stays = false;
        for (size_t k = 0; k < n_keep; k++)
            for (const sw_var *a = keep[k]; a; a = a->base)
                stays |= a == v;
        if (stays) {
            c->temps.at[kept++] = v;
            continue;
        }
        drop(c, v->storage);
        if (!v->saved) {
            v->storage = NULL;
            v->t.data = NULL;
        }
    }
    c->temps.n = kept;
}

/* ---- the tape */

bool sw_wants(const sw_ctx *c, sw_var *const *in, size_t n)
{
    bool any = false;
    for (size_t i = 0; i < n; i++)
        any |= in[i] && in[i]->needs_grad;
    return any && c->recording;
}

/* The first NaN or infinity in t (any strides): its place by message. */
static int check_finite(sw_ctx *c, const sw_tensor *t, const char *op, const char *what)
{
    if (!sw_is_float(t->dtype) || !sw_is_dense(t) || !t->data || !sw_numel(t))
        return 0;
    sw_storage *s = take(c, 8);
    if (!s)
        return -1;
    int64_t one[1] = {1}, at = -1;
    sw_tensor out = sw_tensor_of(s->data, SW_I64, 1, one);
    int rc = sw_k(c)->find_nonfinite(sw_s(c), &out, t) || c->device->get(c->device, &at, s->data, 8);
    drop(c, s);
    if (rc || at < 0)
        return rc ? -1 : 0;
    return sw_fail("%s%s%s of %s is NaN or infinite at element %lld", c->where ? c->where : "", c->where ? ": " : "", what, op,
                   (long long)at);
}

int sw_use_away(sw_ctx *c, sw_var *const *in, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (in[i] && in[i]->away && c->hooks.value(c->hooks.arg, in[i]->param))
            return -1;
    return 0;
}

static size_t inputs(const sw_node *n) { return SW_NODE_IN + n->n_more; }
static sw_var *input(const sw_node *n, size_t i) { return i < SW_NODE_IN ? n->in[i] : n->more[i - SW_NODE_IN]; }

sw_var *sw_record(sw_ctx *c, sw_node n)
{
    for (size_t i = 0; i < inputs(&n); i++)
        if (input(&n, i) && input(&n, i)->away)
            return sw_fail_null("%s reads a parameter without asking for its values (sw_use)", n.op);
    for (int i = 0; c->check && i < SW_NODE_OUT && n.out[i]; i++)
        if (check_finite(c, &n.out[i]->t, n.op, "the result"))
            return NULL;
    if (!sw_wants(c, n.in, SW_NODE_IN) && !sw_wants(c, n.more, n.n_more))
        return n.out[0];
    for (int i = 0; i < SW_NODE_OUT && n.out[i]; i++)
        n.out[i]->needs_grad = sw_is_float(n.out[i]->t.dtype);
    for (size_t i = 0; i < inputs(&n); i++)
        if (input(&n, i) && input(&n, i)->leaf && input(&n, i)->needs_grad)
            input(&n, i)->uses++;
    for (int i = 0; i < SW_NODE_SAVED; i++) {
        if (!n.saved[i])
            continue;
        n.saved[i]->saved++;
        if (n.saved[i]->storage)
            n.saved[i]->storage->refs++;
    }
    SW_PUSH(c->nodes, n);
    return n.out[0];
}

sw_var *sw_no_gradient(sw_ctx *c, const char *op, sw_var *out, sw_var *const *in, size_t n)
{
    if (sw_wants(c, in, n))
        return sw_fail_null("%s has no gradient, and something below it trains", op);
    if (c->check && check_finite(c, &out->t, op, "the result"))
        return NULL;
    return out;
}

static void forget_node(sw_ctx *c, sw_node *n)
{
    for (int i = 0; i < SW_NODE_SAVED; i++) {
        if (!n->saved[i])
            continue;
        n->saved[i]->saved--;
        drop(c, n->saved[i]->storage);
    }
    for (int i = 0; i < SW_NODE_OUT; i++)
        if (n->out[i])
            sw_drop_grad(c, n->out[i]);
}

void sw_ctx_reset(sw_ctx *c)
{
    while (c->nodes.n) {
        sw_node n = c->nodes.at[--c->nodes.n];
        for (size_t i = 0; i < inputs(&n); i++) {
            sw_var *v = input(&n, i);
            if (v && v->leaf)
                v->uses = 0;
            else if (v)
                sw_drop_grad(c, v);
        }
        forget_node(c, &n);
    }
    c->late = false;
    c->keys = NULL;
    sw_scope_end(c, 0, NULL, 0);
    sw_landing_leave(&c->landing, c->device);
    sw_arena_reset(&c->arena);
}

void sw_drop_grad(sw_ctx *c, sw_var *x)
{
    if (!x->grad || x->leaf)
        return;
    drop(c, x->grad->storage);
    x->grad = NULL;
    x->in_parts = false;
}

void sw_seed_grad(sw_ctx *c, sw_var *x, sw_tensor g)
{
    x->grad = sw_borrow(c, g);
}

/* Whether a view has all rows of its base, of each the same columns one after the other, as if rows were one. */
static bool has_columns(const sw_var *x, int64_t *from, int64_t *to)
{
    const sw_tensor *b = &x->base->t, *t = &x->t;
    if (x->base->base || !sw_is_dense(b) || !sw_numel(b) || !sw_numel(t))
        return false;
    int64_t width = sw_as_rows(b).shape[1], inner = 1;
    if (x->own_strides && !x->first_column && sw_is_dense(t) && sw_numel(t) == sw_numel(b)) {
        *from = 0;
        *to = width;
        return true;
    }
    for (int i = t->ndim - 1; i > 0; inner *= t->shape[i--])
        if (t->shape[i] > 1 && t->stride[i] != inner)
            return false;
    *from = x->first_column;
    *to = *from + inner;
    return t->shape[0] == b->shape[0] && *to <= width && (t->stride[0] == width || t->shape[0] == 1) && (x->own_strides || b->ndim == 2);
}

/* What views have not written of x's gradient reads as zero. */
static int complete(sw_ctx *c, sw_var *x)
{
    if (!x->in_parts)
        return 0;
    sw_tensor all = sw_as_rows(&x->grad->t), before = columns_of(&all, 0, x->grad_from);
    sw_tensor after = columns_of(&all, x->grad_to, all.shape[1] - x->grad_to);
    const sw_kernels *k = sw_k(c);
    x->in_parts = false;
    return (before.shape[1] && k->fill(sw_s(c), &before, 0)) || (after.shape[1] && k->fill(sw_s(c), &after, 0)) ? -1 : 0;
}

/* The gradient of x's base, whose part for x is there (1), to be written (0), or cannot be had (-2). Parts that lie side by side
 * are written one after the other; where that is not so, the rest reads as zero from then on. */
static sw_tensor *grad_of_base(sw_ctx *c, sw_var *x, int *acc)
{
    sw_var *b = x->base;
    int64_t from = 0, to = 0;
    bool columns = has_columns(x, &from, &to);
    if (b->in_parts && columns && (to == b->grad_from || from == b->grad_to)) {
        b->grad_from = SW_MIN(from, b->grad_from);
        b->grad_to = SW_MAX(to, b->grad_to);
        *acc = 0;
    } else if (b->in_parts && columns && from >= b->grad_from && to <= b->grad_to) {
        *acc = 1;
    } else {
        sw_tensor *whole = sw_grad(c, b, acc);
        if (!whole || *acc)
            return whole;
        if (!columns) {
            *acc = sw_k(c)->fill(sw_s(c), whole, 0) ? -2 : 1;
            return *acc < 0 ? NULL : whole;
        }
        b->in_parts = true;
        b->grad_from = from;
        b->grad_to = to;
    }
    b->in_parts = b->in_parts && !(b->grad_from == 0 && b->grad_to == sw_as_rows(&b->grad->t).shape[1]);
    return &b->grad->t;
}

static sw_tensor *grad_of_view(sw_ctx *c, sw_var *x, int *acc)
{
    sw_tensor *whole = grad_of_base(c, x, acc);
    if (!whole)
        return NULL;
    sw_tensor *t = sw_ctx_alloc(c, sizeof *t);
    *t = x->t;
    for (int i = 0; i < t->ndim && !x->own_strides; i++)
        t->stride[i] = whole->stride[i];
    t->dtype = whole->dtype;
    int64_t rows = x->own_strides ? 0 : x->first_row * whole->stride[0];
    t->data = (char *)whole->data + sw_dtype_bytes(whole->dtype, rows + x->first_column);
    return t;
}

sw_tensor *sw_grad(sw_ctx *c, sw_var *x, int *acc)
{
    if (!x || !x->needs_grad) {
        *acc = -1;
        return NULL;
    }
    if (x->base)
        return grad_of_view(c, x, acc);
    if (!x->grad) {
        x->grad = owned_var(c, x->t.dtype, x->t.ndim, x->t.shape);
        *acc = x->grad ? 0 : -2;
        return x->grad ? &x->grad->t : NULL;
    }
    *acc = complete(c, x) ? -2 : 1;
    if (*acc < 0)
        return NULL;
    if (!x->leaf && x->grad->storage && x->grad->storage->refs > 1) { /* shared by sw_grad_pass: adding must not show elsewhere */
        sw_var *own = owned_var(c, x->grad->t.dtype, x->grad->t.ndim, x->grad->t.shape);
        if (!own || sw_k(c)->copy(sw_s(c), &own->t, &x->grad->t)) {
            *acc = -2;
            return NULL;
        }
        drop(c, x->grad->storage);
        x->grad = own;
    }
    return &x->grad->t;
}

int sw_grad_pass(sw_ctx *c, sw_var *x, sw_var *y)
{
    if (!x || !x->needs_grad)
        return 0;
    assert(sw_numel(&x->t) == sw_numel(&y->t));
    if (complete(c, y))
        return -1;
    if (!x->base && !x->grad && y->grad->storage) {
        x->grad = sw_ctx_alloc(c, sizeof(sw_var));
        *x->grad = *y->grad;
        x->grad->t = sw_reshaped(&y->grad->t, x->t.ndim, x->t.shape);
        x->grad->storage->refs++;
        return 0;
    }
    int acc;
    sw_tensor *g = sw_grad(c, x, &acc);
    if (!g)
        return -1;
    sw_tensor from = sw_reshaped(&y->grad->t, x->t.ndim, x->t.shape);
    return sw_k(c)->axpby(sw_s(c), g, 1, &from, acc);
}

size_t sw_tape_mark(const sw_ctx *c) { return c->nodes.n; }

int sw_backward_to(sw_ctx *c, size_t mark)
{
    bool recording = c->recording;
    c->recording = false;
    int rc = 0;
    while (!rc && c->nodes.n > mark) {
        sw_node n = c->nodes.at[--c->nodes.n]; /* a copy: a block that is run again records over its place */
        bool reached = false;
        for (int i = 0; i < SW_NODE_OUT; i++) {
            reached |= n.out[i] && n.out[i]->grad;
            rc = rc || (n.out[i] && complete(c, n.out[i])) ? -1 : 0;
        }
        if (reached && !rc) {
            sw_scope s = sw_scope_begin(c);
            rc = sw_use_away(c, n.in, SW_NODE_IN) || sw_use_away(c, n.more, n.n_more) || n.back(c, &n) ? -1 : 0;
            sw_scope_end(c, s, NULL, 0);
            for (size_t i = 0; !rc && c->check && i < inputs(&n); i++)
                if (input(&n, i) && input(&n, i)->grad && !(rc = complete(c, input(&n, i))))
                    rc = check_finite(c, &input(&n, i)->grad->t, n.op, "a gradient");
        }
        for (size_t i = 0; i < inputs(&n); i++) {
            sw_var *v = input(&n, i);
            if (v && v->leaf && v->needs_grad && --v->uses == 0 && !rc && c->hooks.final_grad && !c->late)
                rc = c->hooks.final_grad(c->hooks.arg, v->param);
        }
        forget_node(c, &n);
    }
    c->recording = recording;
    return rc;
}

int sw_backward(sw_ctx *c, sw_var *root, const sw_tensor *seed)
{
    if (!root->needs_grad)
        return 0;
    if (seed) {
        sw_seed_grad(c, root, *seed);
    } else {
        assert(sw_numel(&root->t) == 1);
        root->grad = owned_var(c, root->t.dtype, root->t.ndim, root->t.shape);
        if (!root->grad || sw_k(c)->fill(sw_s(c), &root->grad->t, 1))
            return -1;
    }
    return sw_backward_to(c, 0);
}

/* ---- recomputation */

typedef struct rerun {
    sw_block_fn fn;
    void *arg;
    const char *where;
    sw_rng rng;
} rerun;

static int recompute_back(sw_ctx *c, sw_node *n)
{
    const rerun *r = n->data;
    const char *where = c->where;
    sw_rng rng = c->rng;
    sw_var *x = sw_borrow(c, n->in[0]->t);
    x->needs_grad = n->in[0]->needs_grad;
    c->where = r->where;
    c->rng = r->rng;
    c->recording = true;
    size_t mark = sw_tape_mark(c);
    sw_var *y = r->fn(c, x, r->arg);
    int rc = y ? 0 : -1;
    if (!rc) {
        y->grad = sw_ctx_alloc(c, sizeof(sw_var));
        *y->grad = *n->out[0]->grad;
        if (y->grad->storage)
            y->grad->storage->refs++;
        rc = sw_backward_to(c, mark);
    }
    c->recording = false;
    if (!rc && x->grad) {
        rc = sw_grad_pass(c, n->in[0], x);
        sw_drop_grad(c, x);
    }
    c->where = where;
    c->rng = rng;
    return rc;
}

sw_var *sw_recompute(sw_ctx *c, sw_block_fn fn, sw_var *x, void *arg)
{
    if (!c->recording)
        return fn(c, x, arg);
    bool needs = x->needs_grad;
    c->recording = false;
    sw_scope s = sw_scope_begin(c);
    sw_var *y = fn(c, x, arg);
    sw_scope_return(c, s, y);
    c->recording = true;
    if (!y)
        return NULL;
    /* Parameters inside may train even where x needs no gradient: the block must go back either way. */
    rerun *r = sw_ctx_alloc(c, sizeof *r);
    *r = (rerun){fn, arg, c->where, c->rng};
    x->needs_grad = true;
    y = sw_record(c, (sw_node){.op = "recompute", .back = recompute_back, .in = {x}, .out = {y}, .saved = {x}, .data = r});
    x->needs_grad = needs;
    return y;
}
