/* The context a computation runs in: a device, its memory, the scope of temporaries, and the tape.
 *
 * Eager: an op runs its kernels at once and, when the context records, notes how to go back. A var is a tensor
 * with a life: storage from the context's pool (so that after the first step nothing asks the system for memory),
 * and, once the backward pass reaches it, a gradient.
 *
 * Temporaries belong to the innermost scope. Leaving a scope frees the storage of those that the caller does not
 * keep and that no recorded op has saved; so a model only opens a scope per block, and memory in training is what
 * the backward pass needs, in inference two blocks' worth. */
#ifndef SW_NN_CONTEXT_H
#define SW_NN_CONTEXT_H

#include "base/error.h"
#include "base/map.h"
#include "base/memory.h"
#include "kernels/kernels.h"
#include "nn/landing.h"

typedef struct sw_storage { /* counted device memory */
    void *data;
    size_t bytes;
    int refs;
    int size_class; /* of the pool; -1: not the pool's */
} sw_storage;

typedef struct sw_var {
    sw_tensor t;
    sw_storage *storage;  /* NULL: memory of somebody else (weights, inputs) */
    struct sw_var *base;  /* a view: shares base's storage and gradient, from this place on */
    int64_t first_row, first_column;
    bool own_strides;     /* a view by sw_part: first_column values from base's start, strides as they are */
    struct sw_var *grad;
    bool in_parts;        /* of the gradient there are columns grad_from .. grad_to - 1, each row taken as one; views wrote them */
    int64_t grad_from, grad_to;
    bool needs_grad;      /* some parameter below it trains */
    bool leaf;            /* a parameter: its gradient is added to, and outlives the step */
    int saved;            /* recorded ops that need its values */
    int uses;             /* recorded consumers whose backward is still to come (parameters; see final_grad) */
    bool away;            /* a parameter whose values are not here now: sw_use brings them */
    struct sw_param *param;
} sw_var;

typedef struct sw_node sw_node;
typedef struct sw_ctx sw_ctx;

enum { SW_NODE_IN = 6, SW_NODE_OUT = 3, SW_NODE_SAVED = 9 };
struct sw_node {
    const char *op;
    int (*back)(sw_ctx *c, sw_node *n);
    sw_var *in[SW_NODE_IN], *out[SW_NODE_OUT], *saved[SW_NODE_SAVED];
    double f[4];
    int64_t i[4];
    void *data; /* of the op, from sw_ctx_alloc */
    sw_var *const *more; /* inputs beside `in`, of which it has too many (experts' parameters) */
    size_t n_more;
};

/* Hooks that a higher layer fills. */
typedef struct sw_tape_hooks {
    void *arg;
    /* The gradient of a parameter will not change any more in this backward pass. A parameter for which this was not
     * called is final when the pass ends. */
    int (*final_grad)(void *arg, struct sw_param *p);
    /* Brings the values of a parameter that are `away`. */
    int (*value)(void *arg, struct sw_param *p);
} sw_tape_hooks;

struct sw_ctx {
    sw_device *device;
    sw_dtype compute;     /* type of activations: SW_F32, SW_BF16 or SW_F16 */
    sw_dtype product;     /* type that matrix products come out in: compute, but f32 for logits */
    bool recording;
    bool training;        /* dropout is on */
    bool rounding;        /* ops run the device's table `rounding`, which it has */
    bool check;           /* look for NaN and infinity after every op; the first one is an error that names it */
    bool late;            /* set by a model whose blocks share parameters: with blocks that run again, nobody can tell which
                             use is the last, so gradients are final when the pass ends; until sw_ctx_reset */
    sw_rng rng;           /* seed and step; ops set the site */
    sw_var *keys;         /* i64 [N] of the rows that are now being worked on, or NULL: they are numbered. What dropout draws for a row
                             depends on its key and not on its place among the rows, so that a record draws the same wherever
                             it is run: the upper half of a key is the record, the lower half the row in it. None after
                             sw_ctx_reset */
    sw_tape_hooks hooks;
    const char *where;    /* the module being run, for messages: "model.layers.3.mlp" */
    /* private */
    struct sw_pool *pool;
    struct sw_ctx *twin_of; /* whose pool it is */
    sw_landing landing;
    sw_arena arena;
    struct { sw_var **at; size_t n, cap; } temps;
    struct { sw_node *at; size_t n, cap; } nodes;
    sw_map known_lists; /* of addresses: keys to their place in lists */
    struct {
        struct sw_address_list {
            const void **host;
            void *device;
        } * at;
        size_t n, cap;
    } lists;
};

int sw_ctx_init(sw_ctx *c, sw_device *d, sw_dtype compute) SW_MUST_CHECK;
/* A second context over c's memory, with the same settings and hooks, to make ready what comes next while c is at work. c
 * must be freed after it. */
void sw_ctx_init_twin(sw_ctx *twin, sw_ctx *c);
void sw_ctx_free(sw_ctx *c);
/* End of a step: forgets every temporary and the tape, keeps the memory in the pool. */
void sw_ctx_reset(sw_ctx *c);
/* Between steps: orders the memory that waits in the pool, so that a step which asks for the same sizes in the same order
 * as one before it is given the same addresses (device->begin). */
void sw_ctx_settle(sw_ctx *c);
/* Gives what the pool holds unused back to the device. */
void sw_ctx_trim(sw_ctx *c);
/* Bytes in use now, the most there ever were, and an upper limit (0: none) beyond which allocation fails with a
 * message that says what to change. */
size_t sw_ctx_bytes(const sw_ctx *c);
size_t sw_ctx_peak(const sw_ctx *c);
void sw_ctx_limit(sw_ctx *c, size_t bytes);
/* Host memory until the step ends. */
void *sw_ctx_alloc(sw_ctx *c, size_t n);

static inline const sw_kernels *sw_k(const sw_ctx *c) { return c->rounding ? c->device->rounding : c->device->k; }
static inline sw_stream *sw_s(const sw_ctx *c) { return c->device->stream; }

/* A temporary, not filled. NULL on failure. */
sw_var *sw_tmp(sw_ctx *c, sw_dtype dtype, int ndim, const int64_t *shape) SW_MUST_CHECK;
sw_var *sw_tmp1(sw_ctx *c, sw_dtype dtype, int64_t a) SW_MUST_CHECK;
sw_var *sw_tmp2(sw_ctx *c, sw_dtype dtype, int64_t a, int64_t b) SW_MUST_CHECK;
sw_var *sw_tmp3(sw_ctx *c, sw_dtype dtype, int64_t a, int64_t b, int64_t d) SW_MUST_CHECK;
sw_var *sw_like(sw_ctx *c, const sw_var *x) SW_MUST_CHECK; /* same type and shape, dense */
/* A temporary with the bytes of a host array, to be read only; where there is room for it, it stays until the reset. */
sw_var *sw_from_host(sw_ctx *c, sw_dtype dtype, int ndim, const int64_t *shape, const void *host) SW_MUST_CHECK;
/* Reads a dense var into host memory. */
int sw_to_host(sw_ctx *c, const sw_var *x, void *host) SW_MUST_CHECK;
/* Lists of addresses, on the host and (unless it is a host device's) in the device's memory, until sw_ctx_free: a step which
 * comes again finds them where they were. They are known by `key`; find is false for one that is not. */
bool sw_ctx_find_addresses(sw_ctx *c, const void *key, size_t key_bytes, const void *const **host, const void *const **device);
int sw_ctx_keep_addresses(sw_ctx *c, const void *key, size_t key_bytes, const void *const *list, size_t n,
                          const void *const **host, const void *const **device) SW_MUST_CHECK;
/* [N, anything] as [N, width]; dense, unless it has two dimensions. */
sw_tensor sw_as_rows(const sw_tensor *t);
/* A var over memory that lives elsewhere. */
sw_var *sw_borrow(sw_ctx *c, sw_tensor t);
/* Gives a dense var another shape of as many values, in place; its gradient will have that shape. */
sw_var *sw_heads(sw_var *x, int64_t heads);                              /* [N, H*D] -> [N, H, D] */
/* Views: a range of columns or rows; the gradient goes to x's. */
sw_var *sw_columns(sw_ctx *c, sw_var *x, int64_t start, int64_t count) SW_MUST_CHECK;
sw_var *sw_row_range(sw_ctx *c, sw_var *x, int64_t start, int64_t count) SW_MUST_CHECK;
/* Values of a dense x (no view) from `offset` on, with a shape and strides (in values) of their own: a part of packed
 * columns, the same values in another shape. */
sw_var *sw_part(sw_ctx *c, sw_var *x, int64_t offset, int ndim, const int64_t *shape, const int64_t *stride) SW_MUST_CHECK;

/* Scopes nest. sw_scope_end frees what was made since; keep (may be NULL) goes to the scope around it. */
typedef size_t sw_scope;
sw_scope sw_scope_begin(sw_ctx *c);
void sw_scope_end(sw_ctx *c, sw_scope s, sw_var *const *keep, size_t n_keep);
static inline sw_var *sw_scope_return(sw_ctx *c, sw_scope s, sw_var *x)
{
    sw_scope_end(c, s, &x, x ? 1 : 0);
    return x;
}

/* ---- for ops */

/* Whether an op over these inputs must be recorded. */
bool sw_wants(const sw_ctx *c, sw_var *const *in, size_t n);
/* Notes the op that made n->out from n->in; inputs in n->saved keep their values until it has gone back. No effect
 * (and no cost) when nothing below trains. Checks for NaN when the context is told to. Returns n->out[0], or NULL when
 * the check found one. */
sw_var *sw_record(sw_ctx *c, sw_node n);
/* Before an op reads parameters (NULLs are fine): those whose values lie with other ranks are brought here. An op that
 * forgets it is found by sw_record. */
int sw_use_away(sw_ctx *c, sw_var *const *in, size_t n) SW_MUST_CHECK;
static inline int sw_use(sw_ctx *c, sw_var *a, sw_var *b)
{
    return (a && a->away) || (b && b->away) ? sw_use_away(c, (sw_var *[]){a, b}, 2) : 0;
}
/* An op that has no gradient: says so. Fails when recording would need one. */
sw_var *sw_no_gradient(sw_ctx *c, const char *op, sw_var *out, sw_var *const *in, size_t n);
/* In a backward function: the gradient buffer of x to write to, *acc 0 overwrite or 1 add; NULL with *acc = -1 when x
 * needs none; NULL and *acc = -2 when memory ran out. */
sw_tensor *sw_grad(sw_ctx *c, sw_var *x, int *acc);
/* Hands over y's gradient as (part of) x's without copying where it can. y and x: same shape and type. */
int sw_grad_pass(sw_ctx *c, sw_var *x, sw_var *y) SW_MUST_CHECK;

/* Sets the gradient that the backward pass starts from (device tensor of x's shape, kept alive by the caller). */
void sw_seed_grad(sw_ctx *c, sw_var *x, sw_tensor g);
/* Frees x's gradient early (after somebody has read it). */
void sw_drop_grad(sw_ctx *c, sw_var *x);

/* Goes back from root, whose gradient is seed (device tensor of root's shape; NULL: one, for a scalar). Frees the tape
 * as it goes. */
int sw_backward(sw_ctx *c, sw_var *root, const sw_tensor *seed) SW_MUST_CHECK;
/* Runs fn without recording, and again with recording when the backward pass gets there: memory for time. fn must
 * depend on x, arg and the context only. */
/* Parts of the tape: what was recorded since a mark goes back alone (a block run again, a chunk of the head). */
size_t sw_tape_mark(const sw_ctx *c);
int sw_backward_to(sw_ctx *c, size_t mark) SW_MUST_CHECK;
typedef sw_var *(*sw_block_fn)(sw_ctx *c, sw_var *x, void *arg);
sw_var *sw_recompute(sw_ctx *c, sw_block_fn fn, sw_var *x, void *arg) SW_MUST_CHECK;

#endif
