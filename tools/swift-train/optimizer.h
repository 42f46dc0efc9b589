/* Optimisers: loops over the flat buffers of the trained parameters. An optimiser is one file and one row in optimizer.c. */
#ifndef SWIFT_TRAIN_OPTIMIZER_H
#define SWIFT_TRAIN_OPTIMIZER_H

#include "nn/param.h"

enum { SW_OPTIMIZER_STATES = 2 };

typedef struct sw_optimizer_options {
    double weight_decay, beta1, beta2, eps;
} sw_optimizer_options;

typedef struct sw_optimizer sw_optimizer;

typedef struct sw_optimizer_kind {
    const char *name;                                /* --optimizer */
    const char *states[SW_OPTIMIZER_STATES];         /* names of its f32 buffers in a checkpoint: "exp_avg"; NULL: fewer */
    /* One update of the values [start, start + n), in which decay and learning rate are the same for all. */
    int (*update)(sw_optimizer *o, int64_t start, int64_t n, double lr, double decay, double grad_scale);
} sw_optimizer_kind;

struct sw_optimizer {
    const sw_optimizer_kind *kind;
    sw_optimizer_options options;
    sw_flat *flat;                            /* borrowed */
    int64_t steps;                            /* updates done; part of a checkpoint */
    sw_tensor state[SW_OPTIMIZER_STATES];     /* f32 [flat->n], zero at first */
    double group_factor[8];                   /* learning-rate factor of sw_param.group */
};

const sw_optimizer_kind *sw_optimizer_find(const char *name) SW_MUST_CHECK;
int sw_optimizer_init(sw_optimizer *o, const sw_optimizer_kind *kind, const sw_optimizer_options *options, sw_flat *flat) SW_MUST_CHECK;
void sw_optimizer_free(sw_optimizer *o);
/* Applies the gradients times grad_scale (of clipping) at rate lr. Parameters whose `decay` is off are not decayed. */
int sw_optimizer_step(sw_optimizer *o, double lr, double grad_scale) SW_MUST_CHECK;
/* Sum of the squares of a range of a buffer of f. */
int sw_sum_squares(const sw_flat *f, const sw_tensor *t, double *squares) SW_MUST_CHECK;
/* L2 norm of all gradients. */
int sw_grad_norm(const sw_flat *f, double *norm) SW_MUST_CHECK;
/* min(1, limit / (norm + 1e-6)), as torch's clip_grad_norm_; 1 when limit is 0. */
double sw_clip_scale(double norm, double limit);

#endif
