#include "text/tokenizer_trie.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

typedef struct key {
    const char *at;
    size_t n;
    int32_t value, order;
} key;

static int by_bytes(const void *a, const void *b)
{
    const key *x = a, *y = b;
    int c = memcmp(x->at, y->at, SW_MIN(x->n, y->n));
    if (c)
        return c;
    if (x->n != y->n)
        return x->n < y->n ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

typedef struct builder {
    sw_trie *t;
    int32_t cap, hint; /* hint: every place below it is taken */
} builder;

static void reserve(builder *b, int32_t want)
{
    if (want <= b->cap)
        return;
    int32_t cap = SW_MAX(want, b->cap + b->cap / 2 + 1024);
    b->t->node = sw_realloc(b->t->node, (size_t)cap * sizeof *b->t->node);
    for (int32_t i = b->cap; i < cap; i++)
        b->t->node[i] = (sw_trie_node){0, -1, -1};
    b->cap = cap;
}

/* A base at which all these bytes are free. The search starts where free places begin, and moves on when they are rare.
 */
static int32_t place(builder *b, const unsigned char *bytes, int n)
{
    int32_t seen = 0;
    for (int32_t at = SW_MAX(b->hint, bytes[0] + 1);; at++) {
        reserve(b, at + 257);
        if (b->t->node[at].check >= 0)
            continue;
        if (!seen++)
            b->hint = at;
        int32_t base = at - bytes[0];
        int i = 1;
        while (i < n && b->t->node[base + bytes[i]].check < 0)
            i++;
        if (i == n) {
            if (seen > 64) /* what lies behind is too full to look through again */
                b->hint = at;
            return base;
        }
    }
}

typedef struct range {
    int32_t node;
    size_t from, to, depth;
} range;

void sw_trie_build(sw_trie *t, const sw_span *keys, const int32_t *values, size_t n)
{
    key *k = SW_NEW_ARRAY(key, n + 1);
    size_t m = 0;
    for (size_t i = 0; i < n; i++)
        if (keys[i].at && keys[i].n)
            k[m++] = (key){keys[i].at, keys[i].n, values ? values[i] : (int32_t)i, (int32_t)i};
    *t = (sw_trie){0};
    if (m)
        qsort(k, m, sizeof *k, by_bytes);
    builder b = {.t = t, .hint = 1};
    reserve(&b, 512);
    t->n = 1;
    t->node[0].check = 0;
    struct {
        range *at;
        size_t n, cap;
    } work = {0};
    if (m)
        SW_PUSH(work, ((range){0, 0, m, 0}));
    while (work.n) {
        range r = work.at[--work.n];
        size_t i = r.from;
        for (; i < r.to && k[i].n == r.depth; i++) /* keys that end here */
            t->node[r.node].value = k[i].value;
        if (i == r.to)
            continue;
        unsigned char bytes[256];
        size_t first[257];
        int count = 0;
        for (size_t j = i; j < r.to; j++) {
            unsigned char c = (unsigned char)k[j].at[r.depth];
            if (!count || bytes[count - 1] != c) {
                first[count] = j;
                bytes[count++] = c;
            }
        }
        first[count] = r.to;
        int32_t base = place(&b, bytes, count);
        t->node[r.node].base = base;
        for (int c = 0; c < count; c++)
            t->node[base + bytes[c]].check = r.node;
        t->n = SW_MAX(t->n, base + bytes[count - 1] + 1);
        for (int c = 0; c < count; c++)
            SW_PUSH(work, ((range){base + bytes[c], first[c], first[c + 1], r.depth + 1}));
    }
    free(work.at);
    free(k);
}

void sw_trie_free(sw_trie *t)
{
    free(t->node);
    *t = (sw_trie){0};
}
