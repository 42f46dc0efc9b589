/* Rows that windows of tokens are pooled into, as attention over such rows has them (mixer_compressed.h): which windows a
 * batch completes, where their tokens are, and what of the rows each token sees. The same for all layers with windows of a
 * kind, so it is made once a batch.
 *
 * A row is complete when the last token of its window is there. The tokens before it are in the batch or, with a cache, in
 * a ring that holds as many tokens of each slot as a row is made of. The rows are remembered one after the other, in pages of their
 * own (cache.h). */
#ifndef SW_MODEL_WINDOWS_H
#define SW_MODEL_WINDOWS_H

#include "model/block.h"

typedef struct sw_windows {
    int64_t every;      /* tokens of a window */
    int64_t parts;      /* windows that a row is made of: its own, and with 2 the one before it */
    int64_t made, old;  /* rows that this batch completes, and tokens before the batch that they are made of: some may be empty */
    sw_var *old_rows;   /* i32 [old]: which of the ring's, or -1 */
    sw_var *rows;       /* i32 [made, parts * every] for sw_pool, over the old tokens and then the batch's */
    sw_var *places;     /* i32 [N]: each token's place in its window */
    sw_var *ring;       /* i32 [N]: where it is remembered, -1 where a later one will be; NULL without a cache */
    sw_var *cos, *sin;  /* f32 [made, R]: angles of the rows that are made: those of their windows' first tokens */
    sw_var *kept;       /* i32 [made]: the cache's row of each, or -1; NULL without a cache */
    sw_var *pages;      /* i32: where the cache has the rows of the batch's sequences, as sw_paging has it; NULL without a cache: they
                           are those that are made */
    sw_var *seqs;       /* i32 [n_seqs, 4]: as sw_attend has it, of queries and all these rows */
    sw_var *tokens;     /* the same with tokens in place of rows, as kernels of an indexer have it; NULL without a cache */
    int64_t *count, longest; /* host [n_seqs]: rows of each sequence, those that the batch completes with them; of the longest */
    sw_var *seen;       /* i32 [N, words]: rows complete at each token; NULL: all of its sequence's */
    bool single;        /* each sequence has one token, with a cache */
} sw_windows;

/* rope: which of the spec's turns the rows. */
int sw_windows_make(sw_ctx *c, sw_pass *p, int64_t every, int64_t parts, int rope, sw_windows *w) SW_MUST_CHECK;

#endif
