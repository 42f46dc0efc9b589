/* The table of merges by their two halves, asked millions of times a second. Private to common/text/. */
#ifndef SW_TEXT_BPE_PAIRS_H
#define SW_TEXT_BPE_PAIRS_H

#include "text/tokenizer_parts.h"

static inline uint64_t sw_merge_hash(int32_t left, int32_t right)
{
    return ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
}

/* Where a pair is, or the empty slot where it would be. */
static inline size_t sw_merge_slot(const sw_tokenizer *t, int32_t left, int32_t right)
{
    size_t i = (size_t)(sw_merge_hash(left, right) >> 20) & (t->merge_cap - 1);
    while (t->merges[i].left >= 0 && (t->merges[i].left != left || t->merges[i].right != right))
        i = (i + 1) & (t->merge_cap - 1);
    return i;
}

/* Most pairs that are asked for are no merges: a bit each, few enough to stay in the cache, says so for nearly all. */
static inline const sw_merge *sw_merge_find(const sw_tokenizer *t, int32_t left, int32_t right)
{
    uint64_t bit = sw_merge_hash(left, right) >> 43;
    if (!(t->merge_bits[bit / 64] >> (bit % 64) & 1))
        return NULL;
    const sw_merge *m = &t->merges[sw_merge_slot(t, left, right)];
    return m->left < 0 ? NULL : m;
}

#endif
