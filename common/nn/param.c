#include "nn/param.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static sw_param *append(sw_params *list, const char *name)
{
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

sw_param *sw_param_find(const sw_params *list, const char *name)
{
    for (size_t i = 0; i < list->n; i++)
        if (!strcmp(list->at[i]->name, name))
            return list->at[i];
    return NULL;
}

void sw_params_free(sw_params *list, sw_device *d)
{
    for (size_t i = 0; i < list->n; i++) {
        if (list->at[i]->owned)
            d->free(d, list->at[i]->owned);
        free(list->at[i]->name);
        free(list->at[i]);
    }
    free(list->at);
    *list = (sw_params){0};
}

static int flat_memory(sw_flat *f, int which, sw_tensor *t, sw_dtype dtype)
{
    sw_storage *s = &f->memory[which];
    *t = sw_tensor_of(NULL, dtype, 1, &f->n);
    s->bytes = sw_tensor_bytes(t);
    s->data = t->data = f->device->alloc(f->device, s->bytes);
    return s->data ? 0 : -1;
}

/* The part of a flat buffer that is a parameter. */
static sw_tensor part(const sw_tensor *flat, const sw_param *p)
{
    return sw_tensor_of((char *)flat->data + sw_dtype_bytes(flat->dtype, p->offset), flat->dtype, p->v.t.ndim, p->v.t.shape);
}

int sw_flat_build(sw_flat *f, sw_params *list, sw_device *d, sw_dtype compute)
{
    const sw_kernels *k = d->k;
    *f = (sw_flat){.device = d};
    for (size_t i = 0; i < list->n; i++) {
        sw_param *p = list->at[i];
        p->trainable &= !p->fixed;
        if (!p->trainable)
            continue;
        p->offset = f->n;
        f->n = (f->n + sw_numel(&p->v.t) + 15) & ~(int64_t)15;
        f->n_params++;
    }
    f->grads = SW_NEW_ARRAY(sw_var, f->n_params);
    f->params = SW_NEW_ARRAY(sw_param *, f->n_params);
    if (flat_memory(f, 0, &f->master, SW_F32) || flat_memory(f, 1, &f->grad, SW_F32) || k->fill(d->stream, &f->master, 0) ||
        k->fill(d->stream, &f->grad, 0) || (compute != SW_F32 && flat_memory(f, 2, &f->low, compute)))
        goto fail;
    size_t at = 0;
    for (size_t i = 0; i < list->n; i++) {
        sw_param *p = list->at[i];
        if (!p->trainable)
            continue;
        sw_tensor master = part(&f->master, p);
        if (k->copy(d->stream, &master, &p->v.t))
            goto fail;
        if (p->owned)
            d->free(d, p->owned);
        p->owned = NULL;
        p->master = master;
        p->v.t = f->low.data ? part(&f->low, p) : master;
        f->grads[at].t = part(&f->grad, p);
        p->v.grad = &f->grads[at];
        p->v.needs_grad = true;
        f->params[at++] = p;
    }
    if (sw_flat_refresh(f))
        goto fail;
    return 0;
fail:
    sw_flat_free(f);
    return sw_fail_in("buffers of the %zu trained tensors", f->n_params);
}

void sw_flat_free(sw_flat *f)
{
    for (int i = 0; i < 3; i++)
        if (f->memory[i].data)
            f->device->free(f->device, f->memory[i].data);
    free(f->grads);
    free(f->params);
    *f = (sw_flat){0};
}

int sw_flat_zero_grad(sw_flat *f) { return f->device->k->fill(f->device->stream, &f->grad, 0); }
int sw_flat_refresh(sw_flat *f) { return f->low.data ? f->device->k->copy(f->device->stream, &f->low, &f->master) : 0; }
