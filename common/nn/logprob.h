/* The end of a language model: per-token log-probabilities under the vocabulary projection, a chunk of rows at a
 * time, so that logits [N, V] are never stored. Every objective is a function of what this gives. */
#ifndef SW_NN_LOGPROB_H
#define SW_NN_LOGPROB_H

#include "nn/linear.h"

typedef struct sw_head {
    sw_linear *linear; /* [V, D]; may be tied to the embedding, and may carry adapters */
    sw_var *(*product)(sw_ctx *c, sw_linear *l, sw_var *x); /* x times the matrix, f32; NULL: sw_linear_forward */
    double scale;      /* of the logits; 0 is 1 */
    double softcap;    /* 0 is none */
} sw_head;

typedef struct sw_logprob_request {
    sw_var *targets;        /* i32 [N]; < 0: the row is left out and its logp is 0 */
    bool want_mean;         /* mean_logp too, for label smoothing */
    /* What the objective will send back, f32 host [N], when it is known beforehand (SFT: minus the loss weights over
     * their sum). Then the gradient of the hidden states and of the head is made in the same pass: a third less
     * work. sw_backward must then be seeded with exactly dlogp on logp (dmean on mean_logp). */
    const float *dlogp, *dmean;
} sw_logprob_request;

typedef struct sw_logprobs {
    sw_var *logp;      /* [N] f32: log softmax(cap(scale * linear(h))) at the target */
    sw_var *mean_logp; /* [N] f32: mean over V of the log softmax, or NULL */
    sw_var *best;      /* [N] i32: the most likely token */
} sw_logprobs;

int sw_token_logprobs(sw_ctx *c, sw_var *hidden, const sw_head *head, const sw_logprob_request *r, sw_logprobs *out) SW_MUST_CHECK;
/* Logits f32 [N, V] of a few rows, for generation and checks; no gradient. */
sw_var *sw_logits(sw_ctx *c, sw_var *hidden, const sw_head *head) SW_MUST_CHECK;

#endif
