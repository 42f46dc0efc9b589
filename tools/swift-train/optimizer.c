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
    *o = (sw_optimizer){.kind = kind, .options = *options, .flat = flat};
    for (size_t i = 0; i < SW_COUNT(o->group_factor); i++)
        o->group_factor[i] = 1;
    for (size_t i = 0; i < SW_OPTIMIZER_STATES && kind->states[i]; i++) {
        if (sw_flat_state(flat, &o->state[i])) {
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
            sw_flat_state_free(o->flat, &o->state[i]);
    *o = (sw_optimizer){0};
}

/* The values [start, end), of these those that this rank holds. */
static int update_run(sw_optimizer *o, int64_t start, int64_t end, double lr, double decay, double grad_scale)
{
    const sw_flat *f = o->flat;
    if (!sw_flat_shares(f, SW_SHARE_OPTIMIZER))
        return o->kind->update(o, start, end - start, lr, decay, grad_scale);
    for (int64_t b = sw_flat_bucket(f, start); b < f->n_buckets && f->buckets[b] < end; b++) {
        int64_t first, n = sw_flat_part(f, b, f->plan.rank, &first), last = SW_MIN(first + n, end);
        first = SW_MAX(first, start);
        if (first < last && o->kind->update(o, first, last - first, lr, decay, grad_scale))
            return -1;
    }
    return 0;
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
        if (update_run(o, p->offset, end, lr * o->group_factor[p->group], p->decay ? o->options.weight_decay : 0, grad_scale))
            return sw_fail_in("%s", p->name);
    }
    return 0;
}

int sw_sum_squares(const sw_flat *f, const sw_tensor *t, double *squares)
{
    sw_device *d = f->device;
    sw_tensor sum = sw_tensor_of(NULL, SW_F64, 1, &(int64_t){1});
    sum.data = d->host ? (void *)squares : f->word;
    int rc = d->k->sum_squares(d->stream, &sum, t);
    return rc || d->host ? rc : d->get(d, squares, sum.data, sizeof *squares);
}

int sw_grad_norm(const sw_flat *f, double *norm)
{
    double squares = 0;
    int rc = sw_sum_squares(f, &f->grad, &squares);
    *norm = rc ? 0 : sqrt(squares);
    return rc;
}

double sw_clip_scale(double norm, double limit) { return limit > 0 ? fmin(1, limit / (norm + 1e-6)) : 1; }
