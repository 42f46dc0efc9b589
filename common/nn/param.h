/* Parameters: the named tensors of a model and its adapters, and the flat buffers that trained ones live in. */
#ifndef SW_NN_PARAM_H
#define SW_NN_PARAM_H

#include "nn/context.h"

typedef struct sw_param {
    char *name;       /* as checkpoints call it */
    sw_var v;         /* value in the type it computes in; v.grad when it trains */
    bool trainable;
    bool fixed;       /* read and never trained, whoever says so (routing biases, constants that files carry) */
    bool decay;       /* weight decay applies */
    int group;        /* of the optimiser: learning-rate factor (0 default) */
    bool adapter;     /* belongs to a tuner, not to the base model */
    bool transposed;  /* checkpoints hold this matrix the other way round */
    int64_t offset;   /* in the flat buffers, when trainable */
    sw_tensor master; /* its f32 values there; data NULL before */
    void *owned;      /* device memory of the value that this parameter frees, or NULL */
} sw_param;

typedef struct sw_params { /* a list in checkpoint order; owns the params */
    sw_param **at;
    size_t n, cap;
} sw_params;

/* A parameter over memory that outlives it (a mapped file on a host device). */
sw_param *sw_param_borrow(sw_params *list, const char *name, sw_tensor t);
/* A parameter with its own device memory, not filled. */
sw_param *sw_param_new(sw_params *list, sw_device *d, const char *name, sw_dtype dtype, int ndim, const int64_t *shape) SW_MUST_CHECK;
sw_param *sw_param_find(const sw_params *list, const char *name);
void sw_params_free(sw_params *list, sw_device *d);

/* The flat buffers of all trainable parameters: f32 master values, f32 gradients, and where they compute in bf16 or f16
 * a copy in that type. After building, every trainable parameter's value and gradient are views into them, so that
 * optimiser, clipping, sharding and all-reduce are loops over one array. Parameters keep their order; each starts at a
 * multiple of 16 values; the gaps are zero. */
typedef struct sw_flat {
    sw_device *device;
    int64_t n;             /* values, gaps included */
    sw_tensor master, grad, low; /* [n]; low.data NULL when parameters compute in f32 */
    sw_storage memory[3];
    sw_var *grads;         /* one a trainable parameter */
    sw_param **params;     /* the trainable ones, by offset */
    size_t n_params;
} sw_flat;

/* Takes the present values of the trainable parameters (any float or quantised type; converted) and moves them into
 * flat buffers. compute: type that they are computed in. */
int sw_flat_build(sw_flat *f, sw_params *list, sw_device *d, sw_dtype compute) SW_MUST_CHECK;
void sw_flat_free(sw_flat *f);
int sw_flat_zero_grad(sw_flat *f) SW_MUST_CHECK;
/* Refreshes the low-precision copy from the master values (after loading or an optimiser without a fused copy). */
int sw_flat_refresh(sw_flat *f) SW_MUST_CHECK;

#endif
