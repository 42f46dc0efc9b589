#include "text/tokenizer_parts.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static size_t slot_of(const sw_tokenizer *t, int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    size_t i = (size_t)(h >> 20) & (t->merge_cap - 1);
    while (t->merges[i].left >= 0 && (t->merges[i].left != left || t->merges[i].right != right))
        i = (i + 1) & (t->merge_cap - 1);
    return i;
}

void sw_tokenizer_reserve_merges(sw_tokenizer *t, size_t n)
{
    t->merge_cap = 16;
    while (t->merge_cap < n * 2)
        t->merge_cap *= 2;
    t->merges = sw_malloc(t->merge_cap * sizeof *t->merges);
    for (size_t i = 0; i < t->merge_cap; i++)
        t->merges[i].left = -1;
}

int sw_tokenizer_add_merge(sw_tokenizer *t, const char *left, size_t nl, const char *right, size_t nr, int32_t rank)
{
    char both[1024];
    int64_t a = sw_map_get(&t->ids, left, nl, -1), b = sw_map_get(&t->ids, right, nr, -1), whole = -1;
    if (nl + nr <= sizeof both) {
        memcpy(both, left, nl);
        memcpy(both + nl, right, nr);
        whole = sw_map_get(&t->ids, both, nl + nr, -1);
    }
    if (a < 0 || b < 0 || whole < 0)
        return sw_fail("merge %d: '%.*s' + '%.*s': %s is not in the vocabulary", rank, (int)nl, left, (int)nr, right,
                       whole < 0 && a >= 0 && b >= 0 ? "the result" : "a part");
    size_t i = slot_of(t, (int32_t)a, (int32_t)b);
    if (t->merges[i].left < 0) /* of equal pairs the first counts */
        t->merges[i] = (sw_merge){(int32_t)a, (int32_t)b, rank, (int32_t)whole};
    t->n_merges++;
    return 0;
}

static inline const sw_merge *find(const sw_tokenizer *t, int32_t left, int32_t right)
{
    const sw_merge *m = &t->merges[slot_of(t, left, right)];
    return m->left < 0 ? NULL : m;
}

/* Words of usual length: look at all pairs each time, the whole state sits in the first-level cache. */
static void merge_short(const sw_tokenizer *t, sw_bpe_scratch *s, size_t *n)
{
    int32_t rank[64], id[64];
    for (size_t i = 0; i + 1 < *n; i++) {
        const sw_merge *m = find(t, s->node[i].id, s->node[i + 1].id);
        rank[i] = m ? m->rank : INT_MAX;
        id[i] = m ? m->id : 0;
    }
    while (*n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < *n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == INT_MAX)
            return;
        s->node[best].id = id[best];
        s->node[best].len += s->node[best + 1].len;
        --*n;
        memmove(&s->node[best + 1], &s->node[best + 2], (*n - best - 1) * sizeof *s->node);
        if (best + 1 < *n) {
            memmove(&rank[best + 1], &rank[best + 2], (*n - best - 1) * sizeof *rank);
            memmove(&id[best + 1], &id[best + 2], (*n - best - 1) * sizeof *id);
            const sw_merge *m = find(t, s->node[best].id, s->node[best + 1].id);
            rank[best] = m ? m->rank : INT_MAX;
            id[best] = m ? m->id : 0;
        }
        if (best > 0) {
            const sw_merge *m = find(t, s->node[best - 1].id, s->node[best].id);
            rank[best - 1] = m ? m->rank : INT_MAX;
            id[best - 1] = m ? m->id : 0;
        }
    }
}

static bool before(const sw_bpe_scratch *s, size_t a, size_t b)
{
    return s->heap[a].rank != s->heap[b].rank ? s->heap[a].rank < s->heap[b].rank : s->heap[a].at < s->heap[b].at;
}

static void swap(sw_bpe_scratch *s, size_t a, size_t b)
{
    __typeof__(*s->heap) keep = s->heap[a];
    s->heap[a] = s->heap[b];
    s->heap[b] = keep;
}

static void offer(const sw_tokenizer *t, sw_bpe_scratch *s, size_t *n, int32_t at)
{
    int32_t next = s->node[at].next;
    const sw_merge *m = next >= 0 ? find(t, s->node[at].id, s->node[next].id) : NULL;
    if (!m)
        return;
    sw_vec_grow((void **)&s->heap, &s->heap_cap, *n + 1, sizeof *s->heap);
    size_t i = (*n)++;
    s->heap[i].rank = m->rank;
    s->heap[i].at = at;
    s->heap[i].left = s->node[at].id;
    s->heap[i].right = s->node[next].id;
    for (; i && before(s, i, (i - 1) / 2); i = (i - 1) / 2)
        swap(s, i, (i - 1) / 2);
}

/* Long words: a heap of pairs over a linked list, n log n however long the word. */
static void merge_long(const sw_tokenizer *t, sw_bpe_scratch *s, size_t *n)
{
    size_t heap = 0, count = *n;
    for (size_t i = 0; i < count; i++) {
        s->node[i].prev = (int32_t)i - 1;
        s->node[i].next = i + 1 < count ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i + 1 < count; i++)
        offer(t, s, &heap, (int32_t)i);
    while (heap) {
        __typeof__(*s->heap) top = s->heap[0];
        s->heap[0] = s->heap[--heap];
        for (size_t i = 0;;) {
            size_t least = i, l = 2 * i + 1;
            if (l < heap && before(s, l, least))
                least = l;
            if (l + 1 < heap && before(s, l + 1, least))
                least = l + 1;
            if (least == i)
                break;
            swap(s, i, least);
            i = least;
        }
        int32_t at = top.at, next = s->node[at].next;
        if (s->node[at].len == 0 || next < 0 || s->node[at].id != top.left || s->node[next].id != top.right)
            continue; /* one of the two was merged in the meantime */
        s->node[at].id = find(t, top.left, top.right)->id;
        s->node[at].len += s->node[next].len;
        s->node[next].len = 0;
        s->node[at].next = s->node[next].next;
        if (s->node[at].next >= 0)
            s->node[s->node[at].next].prev = at;
        offer(t, s, &heap, at);
        if (s->node[at].prev >= 0)
            offer(t, s, &heap, s->node[at].prev);
    }
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (s->node[i].len)
            s->node[kept++] = s->node[i];
    *n = kept;
}

int sw_bpe_word(const sw_tokenizer *t, sw_bpe_scratch *s, const uint8_t *word, size_t n, sw_ids *ids, sw_ids *lens)
{
    if (n > INT_MAX / 2)
        return sw_fail("a word of %zu bytes is too long", n);
    sw_vec_grow((void **)&s->node, &s->cap, n, sizeof *s->node);
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t id = t->byte_ids[word[i]];
        if (id < 0) { /* a vocabulary without this byte: the unknown token, or nothing, stands for it */
            if (t->unk < 0)
                continue;
            id = t->unk;
        }
        s->node[m].id = id;
        s->node[m++].len = 1;
    }
    if (m > 1 && m <= 64)
        merge_short(t, s, &m);
    else if (m > 1)
        merge_long(t, s, &m);
    for (size_t i = 0; i < m; i++) {
        SW_PUSH(*ids, s->node[i].id);
        if (lens)
            SW_PUSH(*lens, s->node[i].len);
    }
    return 0;
}
