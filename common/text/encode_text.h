/* Inside of an encoder: scratch of one thread, and its cache of words. Private to common/text/. */
#ifndef SW_TEXT_ENCODE_TEXT_H
#define SW_TEXT_ENCODE_TEXT_H

#include "text/tokenizer_parts.h"

#include <string.h>

enum { SW_CACHE_SLOTS = 1 << 15, SW_CACHED_WORD = 24, SW_CACHED_IDS = 9 };

/* One cache line: a word and its ids. n_ids 0: empty. */
struct sw_cached {
    uint64_t word[SW_CACHED_WORD / 8]; /* filled up with zeros */
    uint8_t n_bytes, n_ids;
    int32_t ids[SW_CACHED_IDS];
};

struct sw_edges {
    uint32_t lead, trail;
};

struct sw_edges sw_edges_of(const char *s, size_t n); /* of one token's text */

struct sw_encoder {
    const sw_tokenizer *t;
    sw_bpe_scratch scratch;
    sw_work work;
    struct sw_cached *cache;
    sw_ids lens;
    struct {
        struct sw_edges *at;
        size_t n, cap;
    } edges; /* of each token with offsets, where they are trimmed */
    sw_buf spelling;
    size_t merged;                    /* bytes of words so far that no cache held */
    const struct sw_bpe_cuts *tables; /* the tokenizer's, once they are worth their making */
};

/* The place of a piece, as the model sees it: filled with it (n_ids > 0), or empty and to be filled. n <=
 * SW_CACHED_WORD. */
struct sw_cached *sw_cache_slot(sw_encoder *e, const char *s, size_t n);
void sw_cache_fill(struct sw_cached *c, const char *s, size_t n, const int32_t *ids, size_t n_ids);
/* 0 done, -1 failed, 1: this stretch has to go the usual way (nothing was appended). */
int sw_quick_stretch(sw_encoder *e, const char *s, size_t n, size_t base, bool plain, sw_ids *ids,
                     sw_ids *offsets) SW_MUST_CHECK;

#endif
