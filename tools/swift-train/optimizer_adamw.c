/* Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101). */
#include "optimizer.h"

static int update(sw_optimizer *o, int64_t start, int64_t n, double lr, double decay, double grad_scale)
{
    const sw_flat *f = o->flat;
    sw_tensor p = sw_flat_range(&f->master, start, n), g = sw_flat_range(&f->grad, start, n);
    sw_tensor m = sw_flat_range(&o->state[0], start, n), v = sw_flat_range(&o->state[1], start, n), low;
    if (f->low.data)
        low = sw_flat_range(&f->low, start, n);
    sw_adamw a = {lr, o->options.beta1, o->options.beta2, o->options.eps, decay, grad_scale, o->steps};
    return f->device->k->adamw(f->device->stream, &p, f->low.data ? &low : NULL, &g, &m, &v, &a);
}

const sw_optimizer_kind sw_optimizer_adamw = {"adamw", {"exp_avg", "exp_avg_sq"}, update};
