/* Linears with adapters, for the tests of what runs them. */
#ifndef SW_TESTS_ADAPTERS_H
#define SW_TESTS_ADAPTERS_H

#include "adapter/tuner.h"
#include "nn/linear.h"

#include <stdlib.h>

/* An adapter that is no product of low rank; the Linear that it is attached to frees it. */
static inline sw_var *louder(sw_ctx *c, sw_linear *l, sw_adapter *a, sw_var *x)
{
    sw_var *y = sw_linear_below(c, l, a, x);
    return y ? sw_scale(c, y, 1.5) : NULL;
}
static inline void free_louder(sw_adapter *a) { free(a); }
static inline sw_adapter *new_louder(bool off)
{
    static const sw_adapter_ops ops = {.kind = "louder", .forward = louder, .free = free_louder};
    sw_adapter *a = SW_NEW(sw_adapter);
    *a = (sw_adapter){.ops = &ops, .off = off};
    return a;
}

/* Linears that a test has put together, their adapters and parameters. */
static inline void free_tuned(sw_modules *modules, sw_tuned *t, sw_flat *f)
{
    for (size_t i = 0; i < modules->n; i++)
        sw_linear_detach_all(modules->at[i].linear);
    sw_tuned_free(t);
    sw_flat_free(f);
    sw_params_free(modules->params, modules->device);
    free(modules->at);
}

#endif
