/* A mixture of experts as a feed-forward (Shazeer et al. 2017, arXiv 1701.06538): options a family puts into
 * sw_layer.ffn_options beside sw_ffn_moe.
 *
 * Our names, which families rename: mlp.router, mlp.correction (a bias of the choice), mlp.experts.N.gate_proj and so
 * on or stacked mlp.experts.gate_up and mlp.experts.down, mlp.shared.gate_proj and so on, mlp.shared_gate. */
#ifndef SW_MODEL_FFN_MOE_H
#define SW_MODEL_FFN_MOE_H

#include "model/family.h"

/* A router that is more than one matrix. Its names are below "mlp.router". */
typedef struct sw_moe_router {
    size_t size;
    void (*declare)(sw_builder *b, void *self, int64_t experts);
    sw_var *(*logits)(sw_ctx *c, void *self, sw_var *x); /* x [N, hidden] -> f32 [N, experts] */
} sw_moe_router;

typedef struct sw_moe {
    sw_router router;
    const sw_moe_router *own; /* NULL: a matrix, mlp.router */
    int64_t experts, wide; /* wide: of an expert's hidden layer */
    int64_t latent;        /* > 0: experts work on a projection of so many values (mlp.latent_in, mlp.latent_out) */
    int64_t identities;    /* more choices of the router, whose output is their input */
    int64_t dense_first;   /* layers before the first mixture, where the configuration does not say */
    int64_t shared_wide;   /* an expert for every token; 0: none */
    bool shared_packed;    /* its gate and up are one projection */
    bool shared_bias;      /* its projections have biases, and so have those around a latent */
    bool shared_gated;     /* and it is weighted by sigmoid(mlp.shared_gate x) */
    bool router_bias;
    bool out_bias;                /* mlp.bias is added to what it gives */
    bool correction;              /* of the choice, not of the weights */
    bool correction_row;          /* files hold it as the row of a matrix */
    bool weigh_input;             /* weights scale what experts get, not what they give */
    bool own_norms;               /* Gemma 4: experts get mlp.expert_norm of x; the router x of length 1 times mlp.router_scale;
                                     and weights are multiplied by mlp.expert_scale */
    const char *gate, *up, *down; /* the last part of an expert's module names; NULL: gate_proj, up_proj, down_proj */
    bool packed;      /* an expert's gate and up are one projection, called as its gate */
    bool stacked;     /* all experts in one tensor: [E, 2 wide, hidden], gate first, and [E, hidden, wide] */
    bool turned;      /* those are [E, hidden, 2 wide] and [E, wide, hidden] */
    bool interleaved; /* columns of gate and up take turns */
    bool apart;       /* stacked, but gate, up and down each [E * wide, hidden] (DBRX) */
    bool biased;      /* stacked biases [E, 2 wide] and [E, hidden] */
    bool by_token;    /* a token's experts stand in a table, mlp.router.by_token [vocab, k]; only their weights are the router's */
    double limit;     /* > 0: gate is cut above, up on both sides; */
    double sharpness; /* > 0: and 1 is added to up, and x sigmoid(sharpness x) of the gate is taken (gpt-oss) */
} sw_moe;

extern const sw_ffn_ops sw_ffn_moe;

/* Gate and up are the columns of y [N, 2 wide] in turns: GELU_QUICK(gate, cut above limit) * (1 + up, cut to [-limit, limit]). */
sw_var *sw_glu_turns(sw_ctx *c, sw_var *y, double limit) SW_MUST_CHECK;

/* Where x [N, hidden] goes by a router's logits, and the weights [N * k, 1] of pairs; correction [choices] or NULL; given i32 [N, k],
 * the experts, where scores do not decide, or NULL. */
int sw_moe_dispatch(sw_ctx *c, sw_linear *router, sw_param *correction, sw_var *given, const sw_router *r, sw_var *x, sw_dispatch *out,
                    sw_var **weights) SW_MUST_CHECK;
/* The same from the logits [N, choices]; NULL is an error passed on. */
int sw_moe_dispatch_logits(sw_ctx *c, sw_var *logits, sw_param *correction, sw_var *given, const sw_router *r, sw_dispatch *out,
                           sw_var **weights) SW_MUST_CHECK;

/* A mixer: a mixture of attention heads (mixer_moa.c), whose mixer_options are a sw_moe. */
extern const sw_mixer_ops sw_mixer_moa;

/* For families' `layers`: makes layer i a mixture. `m` is copied into the spec's arena once. */
const sw_moe *sw_moe_keep(sw_spec *s, const sw_moe *m);
void sw_moe_layer(sw_spec *s, int64_t i, const sw_moe *m);
/* Sizes and choices that contradict each other are errors. */
int sw_moe_check(const sw_moe *m) SW_MUST_CHECK;

/* Reads sizes and choices from config.json over what m says. */
int sw_moe_read(const sw_spec *s, const cJSON *config, sw_moe *m) SW_MUST_CHECK;
/* The same over what `base` says (base->shared_wide: so many shared experts where the
 * configuration says nothing; 0: never any) and makes the layers mixtures that are some. */
int sw_moe_layers(sw_spec *s, const cJSON *config, const sw_moe *base) SW_MUST_CHECK;
/* A family's `layers` with its own base. */
#define SW_MOE_LAYERS(name, ...)                                                                                       \
    static int name(sw_spec *s, const cJSON *config)                                                                   \
    {                                                                                                                  \
        static const sw_moe base = {__VA_ARGS__};                                                                      \
        return sw_moe_layers(s, config, &base);                                                                        \
    }

#endif
