/* Sparse attention by an indexer (DeepSeek-AI 2025, DeepSeek-V3.2, section 2.1): a small attention without softmax gives
 * every earlier token a score, and only the best of them take part in the attention proper. No gradient goes through the
 * choice, so none of the indexer's weights is trained. */
#ifndef SW_MODEL_INDEXER_H
#define SW_MODEL_INDEXER_H

#include "model/family.h"

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
/* From hidden states x [N, hidden] and the latents of queries [N, q_rank]: *seen as sw_attend_seen has it, NULL where every
 * query sees all. Chooses once a pass, so that a block which runs again sees the same. state: of the indexer's keys. */
int sw_indexer_choose(sw_ctx *c, sw_indexer_parts *a, const sw_indexer *o, const sw_pass *p, sw_var *x, sw_var *latent, int state,
                      sw_var **seen) SW_MUST_CHECK;

/* The choice alone, of keys that an indexer has made. */
typedef struct sw_ranking {
    int64_t topk, heads, width;
    int64_t every;             /* a query with t tokens of its sequence before it chooses among the first (t + 1) / every keys */
    sw_var *q, *weights;       /* [N, heads, width]; f32 [N, heads] */
    const sw_tensor *keys;     /* rows of `width` values */
    int64_t n_seqs;
    const int64_t *lengths, *before; /* host, of each sequence: its queries, and the tokens before them */
    const int64_t *first, *count;    /* the row of its first key, and how many it has */
    bool together;             /* the best are sought among as many keys as the longest sequence has, as where a batch is trained with
                                  rows that are padded: which of equals come first depends on it */
    uint32_t *bits;            /* result, host [N, words], zeros before */
    int64_t words;
} sw_ranking;
int sw_rank(sw_ctx *c, const sw_ranking *w) SW_MUST_CHECK;

/* Families with indexers have this body: it holds what layers have chosen. */
extern const sw_body_ops sw_indexer_body;

/* What this layer chose, host [n, words], or NULL where every token sees all before it. */
const uint32_t *sw_indexer_chosen(const sw_pass *p, int64_t *words);

#endif
