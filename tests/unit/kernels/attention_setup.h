/* Kinds of attention for the cases and the gradient checks. */
#ifndef SW_TESTS_ATTENTION_SETUP_H
#define SW_TESTS_ATTENTION_SETUP_H

#include "cases.h"

typedef struct attention_setup {
    const char *what;
    int64_t rows, key_rows, heads, key_heads, width, value_width;
    int count;
    int32_t seqs[3][4]; /* first query, queries, first key, keys */
    int causal;
    int64_t window;
    double softcap;
    bool alibi, sinks;
    int64_t span; /* of a table of biases by distance; 0: none */
    int64_t seen_words; /* 0: no mask of chosen keys */
} attention_setup;

extern const attention_setup attention_small[], attention_biased_small[]; /* end with what == NULL */

#endif
