/* Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101). */
#include "optimizer.h"

static sw_tensor range(const sw_tensor *flat, int64_t start, int64_t n)
{
    return sw_tensor_of((char *)flat->data + sw_dtype_bytes(flat->dtype, start), flat->dtype, 1, &n);
}

static int update(sw_optimizer *o, int64_t start, int64_t n, double lr, double decay, double grad_scale)
{
    const sw_flat *f = o->flat;
    sw_tensor p = range(&f->master, start, n), g = range(&f->grad, start, n), m = range(&o->state[0], start, n), v = range(&o->state[1], start, n), low;
    if (f->low.data)
        low = range(&f->low, start, n);
    sw_adamw a = {lr, o->options.beta1, o->options.beta2, o->options.eps, decay, grad_scale, o->steps};
    return f->device->k->adamw(f->device->stream, &p, f->low.data ? &low : NULL, &g, &m, &v, &a);
}

const sw_optimizer_kind sw_optimizer_adamw = {"adamw", {"exp_avg", "exp_avg_sq"}, update};
