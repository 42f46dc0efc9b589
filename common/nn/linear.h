/* Linear: the one place where weights meet activations. It holds the weight in any stored type, a bias, and the
 * chain of adapters hung on it; so every tuner works on every family and on every quantised base. */
#ifndef SW_NN_LINEAR_H
#define SW_NN_LINEAR_H

#include "nn/ops.h"

typedef struct sw_linear sw_linear;
typedef struct sw_linears sw_linears;
typedef struct sw_adapter sw_adapter;

/* What a tuner fills to hang on a Linear. */
typedef struct sw_adapter_ops {
    const char *kind; /* "lora" */
    /* Where all that it does is to add a product of low rank: that product; then `forward` is not asked. NULL: it is no such
     * adapter. */
    void (*low_rank)(const sw_adapter *a, sw_low_rank *r);
    /* The layer's output with this adapter. What lies below is had by sw_linear_below(c, l, a, x). */
    sw_var *(*forward)(sw_ctx *c, sw_linear *l, sw_adapter *a, sw_var *x);
    /* The same for a Linear that is used as an embedding table: rows of w at ids. What lies below is had by
     * sw_embed_below. NULL: this adapter cannot hang on an embedding. */
    sw_var *(*embed)(sw_ctx *c, sw_linear *l, sw_adapter *a, sw_var *ids);
    /* Adds the adapter's effect to w, host f32 [out, in], in place (for merging); -1 when it cannot be merged. */
    int (*merge)(const sw_linear *l, const sw_adapter *a, sw_device *d, float *w);
    void (*free)(sw_adapter *a);
    /* For Linears of experts (sw_linear_places), where every one of them has such an adapter: whether all can run at once, and
     * the output at all places; what lies below is had by sw_places_below. NULL: one by one. */
    bool (*alike)(sw_adapter *const *a, int64_t n);
    sw_var *(*places)(sw_ctx *c, sw_linears *l, sw_adapter *const *a, sw_var *x, const sw_dispatch *d);
} sw_adapter_ops;

struct sw_adapter { /* a tuner's own struct begins with this */
    const sw_adapter_ops *ops;
    sw_adapter *next; /* the one below */
    bool off; /* who changes it says so by sw_layout_changed() */
};

struct sw_linear {
    const char *name;       /* module path: "model.layers.0.self_attn.q_proj"; owned by the model */
    int64_t in, out;
    sw_param *w, *bias;     /* w [out, in]; bias [out] or NULL */
    sw_adapter *adapter;    /* topmost, or NULL */
};

struct sw_linears { /* of experts, all of one shape */
    sw_linear *at;
    int64_t n;
    sw_param **w; /* room for n */
    /* private: what was found out under sw_layout() == seen */
    uint64_t seen;
    bool alike, plain;
};

/* x [N, in] -> [N, out] */
sw_var *sw_linear_forward(sw_ctx *c, sw_linear *l, sw_var *x) SW_MUST_CHECK;
sw_var *sw_linear_below(sw_ctx *c, sw_linear *l, sw_adapter *a, sw_var *x) SW_MUST_CHECK;
/* y[i] of each of n Linears that read the same x, in the order in which the model declares them; what their adapters have in
 * common is done once. */
enum { SW_LINEARS_MOST = 8 };
int sw_linears_forward(sw_ctx *c, sw_linear *const *l, size_t n, sw_var *x, sw_var **y) SW_MUST_CHECK;
/* act of it; one kernel where no adapter stands between the product and act. */
sw_var *sw_linear_act(sw_ctx *c, sw_linear *l, sw_var *x, sw_act kind) SW_MUST_CHECK;
/* At each place of d the row of x [N * k, in] through its expert's Linear [N * k, out]: at once where they are alike and have
 * adapters that are, else one by one. Choices behind the last of them give zeros. */
sw_var *sw_linear_places(sw_ctx *c, sw_linears *l, sw_var *x, const sw_dispatch *d) SW_MUST_CHECK;
/* What lies below the adapters a, one of each (NULL: everything). */
sw_var *sw_places_below(sw_ctx *c, sw_linears *l, sw_adapter *const *a, sw_var *x, const sw_dispatch *d) SW_MUST_CHECK;
/* The table's rows at ids i32 [N], with its adapters: [N, in]. l->w is [V, D]; l->in is D, l->out is V. */
sw_var *sw_embed_forward(sw_ctx *c, sw_linear *l, sw_var *ids, double scale) SW_MUST_CHECK;
sw_var *sw_embed_below(sw_ctx *c, sw_linear *l, sw_adapter *a, sw_var *ids) SW_MUST_CHECK;
void sw_linear_attach(sw_linear *l, sw_adapter *a); /* on top; the Linear owns it */
void sw_linear_detach_all(sw_linear *l);

#endif
