#include "optimizer.h"

#include "base/strbuf.h"

#include <math.h>
#include <string.h>

extern const sw_optimizer_kind sw_optimizer_adamw;

static const sw_optimizer_kind *const kinds[] = {&sw_optimizer_adamw};

const sw_optimizer_kind *sw_optimizer_find(const char *name)
{
    for (size_t i = 0; i < SW_COUNT(kinds); i++)
        if (!strcmp(kinds[i]->name, name))
            return kinds[i];
    sw_buf known = {0};
    for (size_t i = 0; i < SW_COUNT(kinds); i++)
        sw_buf_printf(&known, "%s%s", i ? ", " : "", kinds[i]->name);
    sw_fail("the optimiser '%s' is not known; known are %s", name, known.at);
    sw_buf_free(&known);
    return NULL;
}

int sw_optimizer_init(sw_optimizer *o, const sw_optimizer_kind *kind, const sw_optimizer_options *options, sw_flat *flat)
{
    sw_device *d = flat->device;
    *o = (sw_optimizer){.kind = kind, .options = *options, .flat = flat};
    for (size_t i = 0; i < SW_COUNT(o->group_factor); i++)
        o->group_factor[i] = 1;
    for (size_t i = 0; i < SW_OPTIMIZER_STATES && kind->states[i]; i++) {
        o->state[i] = sw_tensor_of(NULL, SW_F32, 1, &flat->n);
        o->state[i].data = d->alloc(d, sw_tensor_bytes(&o->state[i]));
        if (!o->state[i].data || d->k->fill(d->stream, &o->state[i], 0)) {
            sw_optimizer_free(o);
            return sw_fail_in("states of the optimiser");
        }
    }
    return 0;
}

void sw_optimizer_free(sw_optimizer *o)
{
    for (size_t i = 0; i < SW_OPTIMIZER_STATES; i++)
        if (o->state[i].data)
            o->flat->device->free(o->flat->device, o->state[i].data);
    *o = (sw_optimizer){0};
}

/* Neighbours of equal decay and group are updated as one run; the gaps between them are zero in every buffer. */
int sw_optimizer_step(sw_optimizer *o, double lr, double grad_scale)
{
    const sw_flat *f = o->flat;
    o->steps++;
    for (size_t i = 0, next; i < f->n_params; i = next) {
        const sw_param *p = f->params[i];
        for (next = i + 1; next < f->n_params && f->params[next]->decay == p->decay && f->params[next]->group == p->group;)
            next++;
        int64_t end = next < f->n_params ? f->params[next]->offset : f->n;
        if (o->kind->update(o, p->offset, end - p->offset, lr * o->group_factor[p->group], p->decay ? o->options.weight_decay : 0, grad_scale))
            return sw_fail_in("%s", p->name);
    }
    return 0;
}

int sw_grad_norm(const sw_flat *f, double *norm)
{
    sw_device *d = f->device;
    double squares;
    sw_tensor sum = sw_tensor_of(NULL, SW_F64, 1, &(int64_t){1});
    sum.data = d->host ? (void *)&squares : d->alloc(d, sizeof squares);
    int rc = !sum.data || d->k->sum_squares(d->stream, &sum, &f->grad) ? -1 : 0;
    if (!rc && !d->host)
        rc = d->get(d, &squares, sum.data, sizeof squares);
    if (!d->host && sum.data)
        d->free(d, sum.data);
    *norm = rc ? 0 : sqrt(squares);
    return rc;
}

double sw_clip_scale(double norm, double limit) { return limit > 0 ? fmin(1, limit / (norm + 1e-6)) : 1; }
