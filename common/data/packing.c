#include "data/packing.h"

#include "base/memory.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct document {
    size_t tokens;
    uint64_t number; /* in the stream */
    void *item;
    int32_t next; /* in its pack, -1: the last */
} document;

typedef struct pack {
    size_t room;      /* left in it */
    uint64_t first;   /* smallest number of its documents */
    int32_t document; /* head of their list */
    int32_t next;     /* among the packs with this much room, -1: the last */
    size_t n;
} pack;

struct sw_packer {
    size_t capacity, window;
    sw_pack_sink sink;
    void *context;
    uint64_t number;
    int64_t packs;
    double packed; /* tokens in packs that were handed out */
    struct {
        document *at;
        size_t n, cap;
    } waiting;
    struct {
        pack *at;
        size_t n, cap;
    } open;
    /* Packs by room: the head of each list, and one bit for each list that is not empty. */
    int32_t *with_room;
    uint64_t *any;
};

sw_packer *sw_packer_new(size_t capacity, size_t window, sw_pack_sink sink, void *context)
{
    sw_packer *p = SW_NEW(sw_packer);
    *p = (sw_packer){.capacity = capacity, .window = window, .sink = sink, .context = context};
    p->with_room = sw_malloc((capacity + 1) * sizeof *p->with_room);
    memset(p->with_room, 0xff, (capacity + 1) * sizeof *p->with_room);
    p->any = SW_NEW_ARRAY(uint64_t, capacity / 64 + 1);
    return p;
}

static void list_pack(sw_packer *p, int32_t i)
{
    size_t room = p->open.at[i].room;
    p->open.at[i].next = p->with_room[room];
    p->with_room[room] = i;
    p->any[room / 64] |= (uint64_t)1 << room % 64;
}

/* Takes the fullest pack with at least `tokens` of room off its list, or gives -1. */
static int32_t best_fit(sw_packer *p, size_t tokens)
{
    size_t words = p->capacity / 64 + 1, w = tokens / 64;
    uint64_t bits = p->any[w] & ~(uint64_t)0 << tokens % 64;
    while (!bits) {
        if (++w == words)
            return -1;
        bits = p->any[w];
    }
    size_t room = w * 64 + (size_t)__builtin_ctzll(bits);
    int32_t i = p->with_room[room];
    p->with_room[room] = p->open.at[i].next;
    if (p->with_room[room] < 0)
        p->any[w] &= ~((uint64_t)1 << room % 64);
    return i;
}

static int longest_first(const void *a, const void *b)
{
    const document *x = a, *y = b;
    if (x->tokens != y->tokens)
        return x->tokens < y->tokens ? 1 : -1;
    return x->number > y->number ? 1 : -1;
}

static int earliest_first(const void *a, const void *b)
{
    return ((const pack *)a)->first > ((const pack *)b)->first ? 1 : -1;
}

static int in_order(const void *a, const void *b)
{
    return ((const document *)a)->number > ((const document *)b)->number ? 1 : -1;
}

static int hand_out(sw_packer *p, const pack *k)
{
    document *order = SW_NEW_ARRAY(document, k->n);
    void **items = SW_NEW_ARRAY(void *, k->n);
    size_t n = 0;
    for (int32_t d = k->document; d >= 0; d = p->waiting.at[d].next)
        order[n++] = p->waiting.at[d];
    qsort(order, n, sizeof *order, in_order);
    for (size_t i = 0; i < n; i++)
        items[i] = order[i].item;
    p->packs++;
    p->packed += (double)(p->capacity - k->room);
    int rc = p->sink(p->context, items, n);
    free(order);
    free(items);
    return rc;
}

/* Packs what waits. With `all` every pack is handed out; without, documents of packs less than 31/32 full wait on,
 * but at most half a window of them, the latest ones. */
static int pack_window(sw_packer *p, bool all)
{
    qsort(p->waiting.at, p->waiting.n, sizeof *p->waiting.at, longest_first);
    p->open.n = 0;
    for (size_t d = 0; d < p->waiting.n; d++) {
        document *doc = &p->waiting.at[d];
        int32_t i = best_fit(p, doc->tokens);
        if (i < 0) {
            i = (int32_t)p->open.n;
            SW_PUSH(p->open, ((pack){.room = p->capacity, .first = doc->number, .document = -1}));
        }
        pack *k = &p->open.at[i];
        doc->next = k->document;
        k->document = (int32_t)d;
        k->room -= doc->tokens;
        k->first = SW_MIN(k->first, doc->number);
        k->n++;
        list_pack(p, i);
    }
    for (size_t i = 0; i < p->open.n; i++) {
        p->with_room[p->open.at[i].room] = -1;
        p->any[p->open.at[i].room / 64] = 0;
    }
    qsort(p->open.at, p->open.n, sizeof *p->open.at, earliest_first);
    size_t may_wait = all ? 0 : p->window / 2, kept_from = p->open.n;
    while (kept_from > 0) { /* from the latest back */
        const pack *k = &p->open.at[kept_from - 1];
        bool full = k->room <= p->capacity / 32;
        if (!full && k->n > may_wait)
            break;
        may_wait -= full ? 0 : k->n;
        kept_from--;
    }
    document *keep = SW_NEW_ARRAY(document, p->waiting.n);
    size_t kept = 0;
    int rc = 0;
    for (size_t i = 0; i < p->open.n; i++) {
        const pack *k = &p->open.at[i];
        bool waits = i >= kept_from && k->room > p->capacity / 32;
        if (waits || rc) { /* after a failure the rest is kept for sw_packer_free to drop */
            for (int32_t d = k->document; d >= 0; d = p->waiting.at[d].next)
                keep[kept++] = p->waiting.at[d];
        } else {
            rc = hand_out(p, k);
        }
    }
    if (kept)
        memcpy(p->waiting.at, keep, kept * sizeof *keep);
    p->waiting.n = kept;
    free(keep);
    return rc;
}

int sw_packer_add(sw_packer *p, size_t tokens, void *item)
{
    if (!tokens || tokens > p->capacity)
        return sw_fail("a document of %zu tokens cannot be packed into %zu", tokens, p->capacity);
    SW_PUSH(p->waiting, ((document){.tokens = tokens, .number = p->number++, .item = item}));
    return p->waiting.n >= p->window ? pack_window(p, false) : 0;
}

int sw_packer_flush(sw_packer *p) { return pack_window(p, true); }
int64_t sw_packer_packs(const sw_packer *p) { return p->packs; }

double sw_packer_fill(const sw_packer *p)
{
    return p->packs ? p->packed / ((double)p->packs * (double)p->capacity) : 1;
}

void sw_packer_free(sw_packer *p, void (*drop)(void *item))
{
    if (!p)
        return;
    for (size_t i = 0; drop && i < p->waiting.n; i++)
        drop(p->waiting.at[i].item);
    free(p->waiting.at);
    free(p->open.at);
    free(p->with_room);
    free(p->any);
    free(p);
}
