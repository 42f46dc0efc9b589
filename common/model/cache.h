/* What sequences that are being generated remember: for each layer the states that its mixer asks for (block.h).
 *
 * States by token lie in pages of SW_PAGE rows that slots take as they grow and give back when they end, so that a short
 * sequence does not hold what a long one needs. A page's number is the same in every layer. States whose rows stand for several
 * tokens have pages of their own. Slots that began as copies
 * share the pages of what they have in common; a page is copied before one of them writes into it. Where the device has
 * address space without memory, pages are added behind the others and nothing moves. */
#ifndef SW_MODEL_CACHE_H
#define SW_MODEL_CACHE_H

#include "model/block.h"

/* A tile of keys of the attention kernels is a page or half of one; half a page, what a sequence wastes on average, is
 * less than what a slot's other buffers take. */
enum { SW_PAGE_BITS = 6, SW_PAGE = 1 << SW_PAGE_BITS };

typedef struct sw_layer_states {
    int n;
    sw_state_spec spec[SW_MOST_STATES];
    sw_tensor t[SW_MOST_STATES];
    void *memory[SW_MOST_STATES]; /* of those by slot */
} sw_layer_states;

/* The pages of the states of one kind. */
typedef struct sw_pages {
    int32_t by_token;   /* the kind (sw_state_spec) */
    int64_t made, room; /* pages that the tensors cover; that the memory has addresses for */
    void *memory;       /* of all layers' states, one behind the other */
    size_t bytes;
    bool reserved;      /* addresses, which take memory where they are written */
    struct { int32_t *at; size_t n, cap; } holders; /* [made] slots that have the page */
    struct { int32_t *at; size_t n, cap; } idle;
    struct sw_slot_pages { int32_t *at; size_t n, cap; } *of; /* [slots] page of each SW_PAGE rows; -1: nobody reads them any more */
} sw_pages;

enum { SW_PAGES_TOKENS, SW_PAGES_SOURCES, SW_MOST_PAGES = 4 };

typedef struct sw_cache {
    sw_ctx *ctx;
    int64_t slots;
    int64_t *length;           /* [slots] places filled; set to 0 to start a slot afresh */
    int64_t *source_length;    /* [slots] the same of the source, of models with an encoder */
    sw_pages pages[SW_MOST_PAGES]; /* of tokens, of sources, and of rows for several tokens */
    int kinds;
    int64_t window;            /* tokens that all layers see at most; 0: all */
    int32_t **ids;             /* [slots] the tokens themselves, for rotations that change with the length */
    sw_layer_states *layer;    /* [layers] */
} sw_cache;

int sw_cache_init(sw_cache *cache, sw_ctx *c, const struct sw_model *m, int64_t slots) SW_MUST_CHECK;
/* Pages for the places from length[slot] up to `places`, which nobody shares. A pass does it for what it reads. */
int sw_cache_take(sw_cache *cache, const struct sw_model *m, int64_t slot, int64_t places) SW_MUST_CHECK;
/* The same for a source of so many tokens, instead of the one that was. */
int sw_cache_take_source(sw_cache *cache, const struct sw_model *m, int64_t slot, int64_t places) SW_MUST_CHECK;
/* The pages of states with a row for `every` tokens; NULL: there are no such states. */
const sw_pages *sw_cache_rows(const sw_cache *cache, int64_t every);
/* Row of the states' tensors that row `n` of a slot has. */
static inline int64_t sw_cache_row(const sw_pages *p, int64_t slot, int64_t n)
{
    return ((int64_t)p->of[slot].at[n >> SW_PAGE_BITS] << SW_PAGE_BITS) + (n & (SW_PAGE - 1));
}
/* Pages of some slots, as wide for each as the longest needs, which grows in steps: i32 [n, width], for sw_pass_paging. */
sw_var *sw_cache_table(sw_ctx *c, const sw_pages *p, const int64_t *slots, int64_t n) SW_MUST_CHECK;
/* Pages that slots have: what the cache takes of memory. */
int64_t sw_cache_pages(const sw_cache *cache);
/* Makes slot `to` a copy of `from` (several samples of one prompt). */
int sw_cache_copy_slot(sw_cache *cache, const struct sw_model *m, int64_t to, int64_t from) SW_MUST_CHECK;
/* Its sequence has ended: gives its pages back. */
void sw_cache_clear_slot(sw_cache *cache, int64_t slot);
void sw_cache_free(sw_cache *cache, const struct sw_model *m);

#endif
