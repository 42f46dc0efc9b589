/* A set of byte strings with values, for finding the prefixes of a text that are in it: a double array (Aoe 1989). */
#ifndef SW_TEXT_TOKENIZER_TRIE_H
#define SW_TEXT_TOKENIZER_TRIE_H

#include "base/strbuf.h"

#include <stddef.h>
#include <stdint.h>

typedef struct sw_trie_node {
    int32_t base;  /* children lie at base + byte */
    int32_t check; /* the parent; -1: free */
    int32_t value; /* -1: no string ends here */
} sw_trie_node;

typedef struct sw_trie {
    sw_trie_node *node; /* [n], node 0 is the root */
    int32_t n;
} sw_trie;

/* Of equal keys the last counts; empty keys and those with at == NULL are left out. values may be NULL: the index. */
void sw_trie_build(sw_trie *t, const sw_span *keys, const int32_t *values, size_t n);
void sw_trie_free(sw_trie *t);

/* The node reached from one by a byte, or -1. */
static inline int32_t sw_trie_step(const sw_trie *t, int32_t node, unsigned char byte)
{
    int32_t next = t->node[node].base + byte;
    return next < t->n && t->node[next].check == node ? next : -1;
}

/* The longest key that s[0..n) begins with: its length (0: none) and value. */
static inline size_t sw_trie_longest(const sw_trie *t, const char *s, size_t n, int32_t *value)
{
    size_t best = 0;
    if (!t->n)
        return 0;
    for (int32_t node = 0, i = 0; (size_t)i < n && (node = sw_trie_step(t, node, (unsigned char)s[i])) >= 0; i++)
        if (t->node[node].value >= 0) {
            best = (size_t)i + 1;
            *value = t->node[node].value;
        }
    return best;
}

#endif
