#include "nn/param.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static _Atomic uint64_t layout = 1;
uint64_t sw_layout(void) { return layout; }
void sw_layout_changed(void) { layout++; }

static sw_param *append(sw_params *list, const char *name)
{
    sw_layout_changed();
    sw_param *p = SW_NEW(sw_param);
    p->name = sw_strdup(name);
    p->v.param = p;
    p->v.leaf = true;
    SW_PUSH(*list, p);
    return p;
}

sw_param *sw_param_borrow(sw_params *list, const char *name, sw_tensor t)
{
    sw_param *p = append(list, name);
    p->v.t = t;
    return p;
}

sw_param *sw_param_new(sw_params *list, sw_device *d, const char *name, sw_dtype dtype, int ndim, const int64_t *shape)
{
    sw_tensor t = sw_tensor_of(NULL, dtype, ndim, shape);
    t.data = d->alloc(d, sw_tensor_bytes(&t));
    if (!t.data) {
        sw_fail_in("%s", name);
        return NULL;
    }
    sw_param *p = sw_param_borrow(list, name, t);
    p->owned = t.data;
    return p;
}

void sw_param_scale(sw_param *p, sw_scales scales)
{
    p->scales = scales;
    p->scales.origin = p->v.t.data;
    p->v.t.scales = &p->scales;
}

static void give_back(sw_param *p, sw_device *d)
{
    if (p->owned)
        d->free(d, p->owned);
    if (p->owned_scales)
        d->free(d, p->owned_scales);
    p->owned = p->owned_scales = NULL;
}

int sw_master_values(const sw_param *p)
{
    return p->parts ? sw_fail("%s: is computed with in f32, whose values --shard divides among ranks; use --dtype f32 or --shard none", p->name) : 0;
}

sw_param *sw_param_find(const sw_params *list, const char *name)
{
    for (size_t i = 0; i < list->n; i++)
        if (!strcmp(list->at[i]->name, name))
            return list->at[i];
    return NULL;
}

void sw_params_free(sw_params *list, sw_device *d)
{
    sw_layout_changed();
    for (size_t i = 0; i < list->n; i++) {
        give_back(list->at[i], d);
        free(list->at[i]->name);
        free(list->at[i]);
    }
    free(list->at);
    *list = (sw_params){0};
}

/* ---- the layout */

enum { UNIT = 2048 }; /* values of which every rank's part is a multiple: whole pages in f32 and bf16 */

static int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Length of the part of a name that says which layer it is of ("model.layers.3"); the whole name where it is of none. */
static size_t layer_of(const char *name)
{
    for (const char *p = name; *p; p++)
        if (*p == '.' && p[1] >= '0' && p[1] <= '9') {
            size_t digits = strspn(p + 1, "0123456789");
            if (!p[1 + digits] || p[1 + digits] == '.')
                return (size_t)(p - name) + 1 + digits;
        }
    return strlen(name);
}

bool sw_same_layer(const sw_param *a, const sw_param *b)
{
    size_t n = layer_of(a->name);
    return n == layer_of(b->name) && !memcmp(a->name, b->name, n);
}

/* Gives every parameter its place. Without ranks to share with, all is one bucket. */
static void lay_out(sw_flat *f)
{
    struct { int64_t *at; size_t n, cap; } starts = {0};
    bool shared = f->plan.ranks > 1;
    int64_t unit = shared ? (int64_t)UNIT * f->plan.ranks : 16, begin = 0;
    SW_PUSH(starts, 0);
    for (size_t i = 0; i < f->n_params; i++) {
        sw_param *p = f->params[i];
        if (shared && i && f->n - begin >= f->plan.bucket && !sw_same_layer(f->params[i - 1], p)) {
            begin = f->n = up(f->n, unit);
            SW_PUSH(starts, begin);
        }
        p->offset = f->n;
        f->n = up(f->n + sw_numel(&p->v.t), 16);
    }
    f->n = up(f->n, unit);
    f->n_buckets = (int64_t)starts.n;
    SW_PUSH(starts, f->n);
    f->buckets = starts.at;
}

int64_t sw_flat_bucket(const sw_flat *f, int64_t at)
{
    int64_t low = 0, high = f->n_buckets - 1;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (f->buckets[middle] <= at)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

int64_t sw_flat_part(const sw_flat *f, int64_t bucket, int rank, int64_t *start)
{
    int64_t n = (f->buckets[bucket + 1] - f->buckets[bucket]) / f->plan.ranks;
    *start = f->buckets[bucket] + n * rank;
    return n;
}

sw_tensor sw_flat_range(const sw_tensor *t, int64_t start, int64_t n)
{
    return sw_tensor_of((char *)t->data + sw_dtype_bytes(t->dtype, start), t->dtype, 1, &n);
}

/* The part of a flat buffer that is a parameter. */
static sw_tensor part(const sw_tensor *flat, const sw_param *p)
{
    return sw_tensor_of((char *)flat->data + sw_dtype_bytes(flat->dtype, p->offset), flat->dtype, p->v.t.ndim, p->v.t.shape);
}

/* ---- memory */

static int buffer(const sw_flat *f, sw_tensor *t, sw_dtype dtype, bool sparse)
{
    sw_device *d = f->device;
    *t = sw_tensor_of(NULL, dtype, 1, &f->n);
    t->data = sparse ? d->reserve(d, sw_tensor_bytes(t)) : d->alloc(d, sw_tensor_bytes(t));
    return !t->data || (!sparse && d->k->fill(d->stream, t, 0)) ? -1 : 0;
}

static void free_buffer(const sw_flat *f, sw_tensor *t, bool sparse)
{
    if (t->data && sparse)
        f->device->unreserve(f->device, t->data, sw_tensor_bytes(t));
    else if (t->data)
        f->device->free(f->device, t->data);
    t->data = NULL;
}

/* The master values are a state of the optimiser where there is another copy to compute with. */
bool sw_flat_shares_master(const sw_flat *f)
{
    return sw_flat_shares(f, f->compute != SW_F32 ? SW_SHARE_OPTIMIZER : SW_SHARE_PARAMETERS);
}

int sw_flat_state(const sw_flat *f, sw_tensor *t) { return buffer(f, t, SW_F32, sw_flat_shares(f, SW_SHARE_OPTIMIZER)); }
void sw_flat_state_free(const sw_flat *f, sw_tensor *t) { free_buffer(f, t, sw_flat_shares(f, SW_SHARE_OPTIMIZER)); }

void sw_flat_release(const sw_flat *f, const sw_tensor *t, int64_t bucket)
{
    for (int r = 0; r < f->plan.ranks; r++) {
        int64_t start, n = sw_flat_part(f, bucket, r, &start);
        if (r != f->plan.rank)
            f->device->release(f->device, (char *)t->data + sw_dtype_bytes(t->dtype, start), sw_dtype_bytes(t->dtype, n));
    }
}

size_t sw_flat_bytes(const sw_flat *f, size_t states)
{
    size_t n = (size_t)f->n, mine = n / (size_t)SW_MAX(f->plan.ranks, 1);
    size_t bytes = (sw_flat_shares_master(f) ? mine : n) * sizeof(float);
    bytes += (sw_flat_shares(f, SW_SHARE_GRADIENTS) ? mine : n) * sizeof(float);
    bytes += (sw_flat_shares(f, SW_SHARE_OPTIMIZER) ? mine : n) * sizeof(float) * states;
    if (f->low.data)
        bytes += sw_dtype_bytes(f->low.dtype, (int64_t)(sw_flat_shares(f, SW_SHARE_PARAMETERS) ? mine : n));
    return bytes;
}

/* ---- the whole */

/* Moves parameter i's values in; at the end of a bucket, what others hold of it goes. */
static int take_values(sw_flat *f, size_t i)
{
    sw_device *d = f->device;
    sw_param *p = f->params[i];
    sw_tensor master = part(&f->master, p);
    sw_layout_changed();
    if (d->k->copy(d->stream, &master, &p->v.t))
        return -1;
    give_back(p, d);
    p->master = master;
    p->parts = f->low.data && sw_flat_shares_master(f);
    p->v.t = f->low.data ? part(&f->low, p) : master;
    if (f->low.data && d->k->copy(d->stream, &p->v.t, &master))
        return -1;
    f->grads[i].t = part(&f->grad, p);
    p->v.grad = &f->grads[i];
    p->v.needs_grad = true;
    int64_t bucket = sw_flat_bucket(f, p->offset);
    if (i + 1 < f->n_params && sw_flat_bucket(f, f->params[i + 1]->offset) == bucket)
        return 0;
    if (d->sync(d))
        return -1;
    if (sw_flat_shares_master(f))
        sw_flat_release(f, &f->master, bucket);
    if (f->low.data && sw_flat_shares(f, SW_SHARE_PARAMETERS))
        sw_flat_release(f, &f->low, bucket);
    return 0;
}

int sw_flat_build_shared(sw_flat *f, sw_params *list, sw_device *d, sw_dtype compute, const sw_flat_plan *plan)
{
    *f = (sw_flat){.device = d, .compute = compute, .plan = *plan};
    for (size_t i = 0; i < list->n; i++) {
        list->at[i]->trainable &= !list->at[i]->fixed;
        f->n_params += list->at[i]->trainable;
    }
    f->grads = SW_NEW_ARRAY(sw_var, f->n_params);
    f->params = SW_NEW_ARRAY(sw_param *, f->n_params);
    for (size_t i = 0, at = 0; i < list->n; i++)
        if (list->at[i]->trainable)
            f->params[at++] = list->at[i];
    lay_out(f);
    int rc = sw_flat_shares(f, SW_SHARE_OPTIMIZER) && !d->reserve
                 ? sw_fail("the device %s cannot give the memory of parts back, which sharing needs; use --shard none", d->name)
                 : 0;
    rc = rc || buffer(f, &f->master, SW_F32, sw_flat_shares_master(f)) || buffer(f, &f->grad, SW_F32, sw_flat_shares(f, SW_SHARE_GRADIENTS)) ||
                 (compute != SW_F32 && buffer(f, &f->low, compute, sw_flat_shares(f, SW_SHARE_PARAMETERS)))
             ? -1
             : 0;
    if (!rc && !d->host && !(f->word = d->alloc(d, 8)))
        rc = -1;
    for (size_t i = 0; i < f->n_params && !rc; i++)
        rc = take_values(f, i);
    if (rc) {
        size_t n = f->n_params;
        sw_flat_free(f);
        return sw_fail_in("buffers of the %zu trained tensors", n);
    }
    return 0;
}

int sw_flat_build(sw_flat *f, sw_params *list, sw_device *d, sw_dtype compute)
{
    return sw_flat_build_shared(f, list, d, compute, &(sw_flat_plan){.ranks = 1});
}

void sw_flat_free(sw_flat *f)
{
    if (f->word)
        f->device->free(f->device, f->word);
    free_buffer(f, &f->master, sw_flat_shares_master(f));
    free_buffer(f, &f->grad, sw_flat_shares(f, SW_SHARE_GRADIENTS));
    free_buffer(f, &f->low, sw_flat_shares(f, SW_SHARE_PARAMETERS));
    free(f->grads);
    free(f->params);
    free(f->buckets);
    *f = (sw_flat){0};
}

int sw_flat_zero_grad(sw_flat *f)
{
    if (!sw_flat_shares(f, SW_SHARE_GRADIENTS))
        return f->device->k->fill(f->device->stream, &f->grad, 0);
    for (int64_t b = 0; b < f->n_buckets; b++) {
        int64_t start, n = sw_flat_part(f, b, f->plan.rank, &start);
        sw_tensor mine = sw_flat_range(&f->grad, start, n);
        if (f->device->k->fill(f->device->stream, &mine, 0))
            return -1;
        sw_flat_release(f, &f->grad, b); /* of a pass that was not finished */
    }
    return 0;
}

int sw_flat_refresh_range(sw_flat *f, int64_t start, int64_t n)
{
    if (!f->low.data)
        return 0;
    sw_tensor to = sw_flat_range(&f->low, start, n), from = sw_flat_range(&f->master, start, n);
    return f->device->k->copy(f->device->stream, &to, &from);
}

int sw_flat_refresh(sw_flat *f) { return sw_flat_refresh_range(f, 0, f->n); }
