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
    bool reads_x;     /* an adapter's matrix that meets x: those of one x best lie side by side (sw_matmul_low_ranks) */
    bool drawn;       /* the base's file has no such tensor: the values are by chance */
    bool transposed;  /* checkpoints hold this matrix the other way round */
    int64_t offset;   /* in the flat buffers, when trainable */
    sw_tensor master; /* its f32 values there; data NULL before */
    bool parts;       /* of the master values this rank holds only its parts: sw_master_values */
    void *owned;      /* device memory of the value that this parameter frees, or NULL */
    sw_scales scales; /* of 8-bit floats: what v.t.scales points at */
    void *owned_scales; /* device memory of theirs, or NULL */
} sw_param;

typedef struct sw_params { /* a list in checkpoint order; owns the params */
    sw_param **at;
    size_t n, cap;
} sw_params;

/* A number that changes when parameters come, go or move, or something else hangs on a Linear: what was found out about many of
 * them holds as long as it is the same. */
uint64_t sw_layout(void);
void sw_layout_changed(void);
/* For ops that read the master values themselves: an error where they are divided among ranks. */
int sw_master_values(const sw_param *p) SW_MUST_CHECK;
/* A parameter over memory that outlives it (a mapped file on a host device). */
sw_param *sw_param_borrow(sw_params *list, const char *name, sw_tensor t);
/* A parameter with its own device memory, not filled. */
sw_param *sw_param_new(sw_params *list, sw_device *d, const char *name, sw_dtype dtype, int ndim, const int64_t *shape) SW_MUST_CHECK;
/* Gives a dense parameter of 8-bit floats scales (sw_scales; the origin is the parameter's own), in memory that outlives it. */
void sw_param_scale(sw_param *p, sw_scales scales);
sw_param *sw_param_find(const sw_params *list, const char *name);
bool sw_same_layer(const sw_param *a, const sw_param *b); /* by their names */
void sw_params_free(sw_params *list, sw_device *d);

/* How the flat buffers are shared among ranks: the stages of ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054). */
typedef enum sw_share_stage {
    SW_SHARE_NONE,       /* every rank holds all */
    SW_SHARE_OPTIMIZER,  /* states of the optimiser, among them the master values of parameters that compute in bf16 */
    SW_SHARE_GRADIENTS,  /* and gradients */
    SW_SHARE_PARAMETERS, /* and values */
} sw_share_stage;

typedef struct sw_flat_plan {
    sw_share_stage stage;
    int rank, ranks;
    int64_t bucket; /* values, at least, of the pieces in which ranks exchange the buffers */
} sw_flat_plan;

/* The flat buffers of all trainable parameters: f32 master values, f32 gradients, and where they compute in bf16 or f16
 * a copy in that type. After building, every trainable parameter's value and gradient are views into them, so that
 * optimiser, clipping, sharding and all-reduce are loops over one array. Parameters keep their order; each starts at a
 * multiple of 16 values; the gaps are zero.
 *
 * Shared among ranks, the buffers are cut into buckets, which end where a layer ends, and a bucket into a part for each
 * rank, whole pages each. What a rank does not hold keeps its place but takes no memory, so an index means the same in
 * every buffer on every rank. */
typedef struct sw_flat {
    sw_device *device;
    int64_t n;             /* values, gaps included */
    sw_tensor master, grad, low; /* [n]; low.data NULL when parameters compute in f32 */
    sw_dtype compute;
    void *word;            /* 8 bytes of the device for what the host reads; NULL on host devices */
    sw_var *grads;         /* one a trainable parameter */
    sw_param **params;     /* the trainable ones, by offset */
    size_t n_params;
    sw_flat_plan plan;
    int64_t *buckets;      /* [n_buckets + 1] where they start, and n */
    int64_t n_buckets;
} sw_flat;

/* Takes the present values of the trainable parameters (any float or quantised type; converted) and moves them into
 * flat buffers. compute: type that they are computed in. */
int sw_flat_build(sw_flat *f, sw_params *list, sw_device *d, sw_dtype compute) SW_MUST_CHECK;
int sw_flat_build_shared(sw_flat *f, sw_params *list, sw_device *d, sw_dtype compute, const sw_flat_plan *plan) SW_MUST_CHECK;
void sw_flat_free(sw_flat *f);
/* The bucket that a value lies in; the part of a bucket that is rank's, [*start, *start + return). */
int64_t sw_flat_bucket(const sw_flat *f, int64_t at);
int64_t sw_flat_part(const sw_flat *f, int64_t bucket, int rank, int64_t *start);
/* Whether this rank holds only its parts of a kind of buffer. */
static inline bool sw_flat_shares(const sw_flat *f, sw_share_stage what) { return f->plan.ranks > 1 && f->plan.stage >= what; }
bool sw_flat_shares_master(const sw_flat *f);
/* A buffer of f->n f32 zeros beside the others, for an optimiser; and its end. */
int sw_flat_state(const sw_flat *f, sw_tensor *t) SW_MUST_CHECK;
void sw_flat_state_free(const sw_flat *f, sw_tensor *t);
/* Gives back the memory of what other ranks hold of a bucket of t. */
void sw_flat_release(const sw_flat *f, const sw_tensor *t, int64_t bucket);
/* What the parameters are computed with: the copy in low precision, or the master values. */
static inline sw_tensor *sw_flat_values(sw_flat *f) { return f->low.data ? &f->low : &f->master; }
/* Dense view of the values [start, start + n). */
sw_tensor sw_flat_range(const sw_tensor *t, int64_t start, int64_t n);
/* Bytes of memory that the buffers and `states` states of an optimiser take on this rank. */
size_t sw_flat_bytes(const sw_flat *f, size_t states);
int sw_flat_zero_grad(sw_flat *f) SW_MUST_CHECK;
/* Refreshes the low-precision copy from the master values (after loading or an optimiser without a fused copy). */
int sw_flat_refresh(sw_flat *f) SW_MUST_CHECK;
int sw_flat_refresh_range(sw_flat *f, int64_t start, int64_t n) SW_MUST_CHECK;

#endif
