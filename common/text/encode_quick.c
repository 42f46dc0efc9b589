/* The quick way: text that the normaliser leaves alone, cut by a scanner, words looked up in a cache. */
#include "text/encode_text.h"
#include "text/tokenizer_chars.h"

#include <stdlib.h>

static void word_key(const char *s, size_t n, uint64_t key[3])
{
    char padded[SW_CACHED_WORD] = {0};
    memcpy(padded, s, n);
    memcpy(key, padded, sizeof padded);
}

static size_t place(const uint64_t key[3], size_t n)
{
    uint64_t h = (key[0] ^ n) * 0x9E3779B97F4A7C15u;
    h = (h ^ h >> 29 ^ key[1]) * 0xBF58476D1CE4E5B9u;
    h = (h ^ h >> 32 ^ key[2]) * 0x94D049BB133111EBu;
    return (size_t)(h >> 49);
}

struct sw_cached *sw_cache_slot(sw_encoder *e, const char *s, size_t n)
{
    uint64_t key[3];
    if (!e->cache)
        e->cache = SW_NEW_ARRAY(struct sw_cached, SW_CACHE_SLOTS);
    word_key(s, n, key);
    struct sw_cached *c = &e->cache[place(key, n)];
    if (c->n_bytes != n || memcmp(c->word, key, sizeof key))
        c->n_ids = 0;
    return c;
}

void sw_cache_fill(struct sw_cached *c, const char *s, size_t n, const int32_t *ids, size_t n_ids)
{
    if (!n_ids || n_ids > SW_CACHED_IDS) {
        c->n_ids = 0;
        return;
    }
    word_key(s, n, c->word);
    c->n_bytes = (uint8_t)n;
    c->n_ids = (uint8_t)n_ids;
    memcpy(c->ids, ids, n_ids * sizeof *ids);
}

void sw_quick_prepare(sw_tokenizer *t) { t->quick = SW_QUICK_NONE; }

int sw_quick_stretch(sw_encoder *e, const char *s, size_t n, size_t base, bool plain, sw_ids *ids, sw_ids *offsets)
{
    (void)e, (void)s, (void)n, (void)base, (void)plain, (void)ids, (void)offsets;
    return 1;
}
