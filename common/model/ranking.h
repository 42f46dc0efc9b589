/* Queries' choice among keys by the scores of an indexer: sum over heads of weight * max(0, q . k). */
#ifndef SW_MODEL_RANKING_H
#define SW_MODEL_RANKING_H

#include "model/block.h"

/* Queries at a time, so that their scores take a bounded space. q [N, heads, width] */
int64_t sw_rank_rows(const sw_var *q, int64_t keys);
/* scores f32 [count, m] of the queries from row `first` on with keys [m, width]; weights f32 [N, heads]. */
int sw_rank_scores(sw_ctx *c, sw_var *q, sw_var *weights, int64_t first, int64_t count, const sw_tensor *keys, sw_tensor *scores) SW_MUST_CHECK;

/* The choice on the host, where keys stand for several tokens each. */
typedef struct sw_ranking {
    int64_t topk;
    int64_t every;             /* a query with t tokens of its sequence before it chooses among the first (t + 1) / every keys */
    sw_var *q, *weights;       /* [N, heads, width]; f32 [N, heads] */
    const sw_tensor *keys;     /* rows of `width` values */
    int64_t n_seqs;
    const int64_t *lengths, *before; /* host, of each sequence: its queries, and the tokens before them */
    const int64_t *first, *count;    /* the row of its first key, and how many it has */
    bool together;             /* the best are sought among as many keys as the longest sequence has, as where a batch is trained with
                                  rows that are padded: which of equals come first depends on it */
    uint32_t *bits;            /* result, host [N, words] */
    int64_t words;
} sw_ranking;
int sw_rank(sw_ctx *c, const sw_ranking *w) SW_MUST_CHECK;

#endif
