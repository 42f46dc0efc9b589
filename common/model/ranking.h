/* Queries' choice among keys by the scores of an indexer, sum over heads of weight * max(0, q . k): only the best keys take part
 * in the attention proper. A key stands for one token or for several. No gradient goes through the choice. */
#ifndef SW_MODEL_RANKING_H
#define SW_MODEL_RANKING_H

#include "model/block.h"

/* What the queries of a layer see; without any of the three all keys that are complete before them. */
typedef struct sw_chosen {
    sw_var *seen;        /* i32 [N, words], as sw_attend_seen has it */
    sw_var *rows, *seqs; /* where each sequence has one token, with a cache: i32 [N, topk], rows of the states of keys, and the table
                            of sequences for attention to those alone, each a page of its own */
} sw_chosen;

/* The choices of a pass's layers. In training a block may run again, long after: what a layer chose waits on the host. With a
 * cache the layers that follow one come behind it, and all take turns in the same memory of the device; nothing is read back. */
typedef struct sw_choices {
    int64_t topk, every;    /* keys of a query; tokens of a key */
    int64_t longest, words; /* keys of the sequence that has the most; words for their bits */
    sw_var *seqs, *pages;
    struct sw_layer_choice {
        bool made;
        uint32_t *bits; /* host [N, words], or NULL */
    } *of; /* [layers] */
    sw_chosen now;
} sw_choices;

/* Made where the pass begins. With a cache: seqs i32 [n_seqs, 4] as index_scores has it, pages where the keys lie (sw_paging);
 * else both are NULL, and the keys of the batch's sequences lie one after the other. */
int sw_choices_make(sw_ctx *c, sw_pass *p, int64_t topk, int64_t every, sw_var *seqs, sw_var *pages, sw_choices *all) SW_MUST_CHECK;

/* What a layer's indexer has for a batch. */
typedef struct sw_ranked {
    sw_var *keys;        /* of one type with q: [keys of the batch, 1, width]; with a cache all that it has */
    sw_var *q, *weights; /* [N, heads, width]; f32 [N, heads] */
} sw_ranked;
/* keys_only: every query will see all keys, which need only be remembered. */
typedef int (*sw_rank_fn)(sw_ctx *c, void *arg, const sw_pass *p, bool keys_only, sw_ranked *to);

/* The running layer's choice, made once a pass, so that a block which runs again sees the same. rank NULL: what the layer before
 * chose. */
int sw_choose_keys(sw_ctx *c, const sw_pass *p, sw_choices *all, sw_rank_fn rank, void *arg, sw_chosen *to) SW_MUST_CHECK;

#endif
