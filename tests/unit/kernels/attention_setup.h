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
} attention_setup;

extern const attention_setup attention_small[], attention_large[]; /* end with what == NULL */

#endif
