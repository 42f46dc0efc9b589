/* Sparse attention by an indexer (DeepSeek-AI 2025, DeepSeek-V3.2, section 2.1): a small attention without softmax gives
 * every earlier token a score, and only the best of them take part in the attention proper. No gradient goes through the
 * choice, so none of the indexer's weights is trained. */
#ifndef SW_MODEL_INDEXER_H
#define SW_MODEL_INDEXER_H

#include "model/family.h"
#include "model/ranking.h"

typedef struct sw_indexer {
    int64_t topk; /* keys of a query; 0: no indexer, all */
    int64_t heads, width;
    sw_rope_mode mode;    /* how the beginning of each head turns, as wide as what turns of the layer's keys */
    bool follows;         /* no indexer of its own: what the layer before chose */
} sw_indexer;

typedef struct sw_indexer_parts {
    sw_linear q, k, weights;
    sw_norm k_norm;
} sw_indexer_parts;

void sw_indexer_declare(sw_builder *b, sw_indexer_parts *a, const sw_indexer *o, int64_t q_rank);
sw_state_spec sw_indexer_state(const sw_indexer *o);
/* The weights of the heads, f32 [N, heads], scaled, by a Linear of hidden states x [N, hidden]. */
sw_var *sw_index_weights(sw_ctx *c, sw_linear *l, const sw_indexer *o, sw_var *x) SW_MUST_CHECK;
/* From hidden states x [N, hidden] and the latents of queries [N, q_rank]. state: of the indexer's keys. */
int sw_indexer_choose(sw_ctx *c, sw_indexer_parts *a, const sw_indexer *o, const sw_pass *p, sw_var *x, sw_var *latent, int state,
                      sw_chosen *to) SW_MUST_CHECK;

/* Families with indexers have this body: it holds what layers have chosen. */
extern const sw_body_ops sw_indexer_body;

#endif
