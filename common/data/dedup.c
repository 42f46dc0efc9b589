#include "data/dedup.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { SHINGLE = 5, VALUES = SW_PRINT_BANDS * SW_PRINT_ROWS };

/* ---- signatures */

/* Odd multipliers and offsets of the hash functions h -> a h + b modulo 2^32, of which the high bits are good. */
static void multipliers(uint32_t a[VALUES], uint32_t b[VALUES])
{
    uint64_t x = 0x9e3779b97f4a7c15u;
    for (int i = 0; i < VALUES; i++) {
        x += 0x9e3779b97f4a7c15u; /* SplitMix64 */
        uint64_t z = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        a[i] = (uint32_t)z | 1;
        b[i] = (uint32_t)(z >> 32);
    }
}

static void take_shingle(uint32_t signature[VALUES], const uint32_t a[VALUES], const uint32_t b[VALUES], uint64_t hash)
{
    uint32_t h = (uint32_t)(hash ^ hash >> 32);
    for (int i = 0; i < VALUES; i++) {
        uint32_t v = h * a[i] + b[i];
        v ^= v >> 15;
        v *= 0x2c1b3c6du; /* the low byte is stored, so all bits must be mixed */
        v ^= v >> 12;
        signature[i] = SW_MIN(signature[i], v);
    }
}

static bool is_word(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* The next word at *at into word (its first 64 bytes tell), lower case: its length, 0 at the end. */
static size_t next_word(const char *text, size_t n, size_t *at, char word[64])
{
    while (*at < n && !is_word((unsigned char)text[*at]) && !((unsigned char)text[*at] & 0x80))
        ++*at;
    if (*at == n)
        return 0;
    size_t len = 0;
    if ((unsigned char)text[*at] & 0x80) {
        do
            word[len++] = text[(*at)++];
        while (len < 4 && *at < n && ((unsigned char)text[*at] & 0xc0) == 0x80);
        return len;
    }
    for (; *at < n && is_word((unsigned char)text[*at]); ++*at) {
        char c = text[*at];
        if (len < 64)
            word[len++] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    return len;
}

void sw_print_text(sw_print *p, const char *text, size_t n, uint64_t kind)
{
    uint32_t a[VALUES], b[VALUES], signature[VALUES];
    multipliers(a, b);
    memset(signature, 0xff, sizeof signature);
    uint64_t words[SHINGLE] = {0};
    char word[64];
    size_t at = 0, count = 0;
    for (size_t len; (len = next_word(text, n, &at, word)); count++) {
        memmove(words, words + 1, sizeof words - sizeof *words);
        words[SHINGLE - 1] = XXH3_64bits(word, len);
        if (count + 1 >= SHINGLE)
            take_shingle(signature, a, b, XXH3_64bits(words, sizeof words));
    }
    if (count < SHINGLE) /* a short text is one shingle; of a text without words its bytes are */
        take_shingle(signature, a, b, count ? XXH3_64bits(words, sizeof words) : XXH3_64bits(text, n));
    for (int k = 0; k < SW_PRINT_BANDS; k++)
        p->bands[k] = XXH3_64bits_withSeed(signature + k * SW_PRINT_ROWS, SW_PRINT_ROWS * sizeof *signature,
                                           kind * SW_PRINT_BANDS + (uint64_t)k);
    for (int i = 0; i < VALUES; i++)
        p->sketch[i] = (uint8_t)signature[i];
}

void sw_print_exact(sw_print *p, const void *bytes, size_t n)
{
    XXH128_hash_t h = XXH3_128bits(bytes, n);
    p->exact[0] = h.low64;
    p->exact[1] = h.high64;
}

/* ---- what was seen */

/* Half of the memory. Keys find records by open addressing: of each record its exact hash and its bands. */
typedef struct generation {
    struct {
        uint64_t key; /* 0: free */
        uint32_t record;
    } * slots;
    uint64_t *exact; /* the second half of the exact hash, one a record */
    uint8_t (*sketches)[VALUES];
    size_t n; /* records */
} generation;

struct sw_dedup {
    bool near;
    double threshold;
    size_t records, slots; /* of a generation; slots is a power of 2 */
    generation of[2];      /* [0] is filled, [1] is the one before */
    int64_t forgotten;
};

sw_dedup *sw_dedup_new(bool near, double threshold, size_t memory)
{
    sw_dedup *d = SW_NEW(sw_dedup);
    d->near = near;
    d->threshold = threshold;
    size_t keys = near ? 1 + SW_PRINT_BANDS : 1, slot = sizeof *d->of->slots;
    size_t other = sizeof *d->of->exact + (near ? VALUES : 0);
    d->slots = 64;
    while (2 * 2 * d->slots * slot + 2 * (2 * d->slots * 2 / 3 / keys) * other <= memory && d->slots < (size_t)1 << 36)
        d->slots *= 2;
    d->records = SW_MIN(d->slots * 2 / 3 / keys, (size_t)UINT32_MAX);
    return d;
}

static void free_generation(generation *g)
{
    free(g->slots);
    free(g->exact);
    free(g->sketches);
    *g = (generation){0};
}

void sw_dedup_free(sw_dedup *d)
{
    if (!d)
        return;
    free_generation(&d->of[0]);
    free_generation(&d->of[1]);
    free(d);
}

/* Keys never are 0, and those of bands differ from exact ones by what they are hashed from. */
static uint64_t key_of(uint64_t hash) { return hash ? hash : 1; }

static bool alike(const sw_dedup *d, const uint8_t *x, const uint8_t *y)
{
    int same = 0;
    for (int i = 0; i < VALUES; i++)
        same += x[i] == y[i];
    /* bytes of different values are the same once in 256 */
    double estimate = ((double)same / VALUES - 1.0 / 256) / (1 - 1.0 / 256);
    return estimate >= d->threshold;
}

static bool in_generation(const sw_dedup *d, const generation *g, const sw_print *p)
{
    if (!g->slots)
        return false;
    size_t mask = d->slots - 1;
    for (size_t i = key_of(p->exact[0]) & mask; g->slots[i].key; i = (i + 1) & mask)
        if (g->slots[i].key == key_of(p->exact[0]) && g->exact[g->slots[i].record] == p->exact[1])
            return true;
    for (int k = 0; d->near && k < SW_PRINT_BANDS; k++)
        for (size_t i = key_of(p->bands[k]) & mask; g->slots[i].key; i = (i + 1) & mask)
            if (g->slots[i].key == key_of(p->bands[k]) && alike(d, g->sketches[g->slots[i].record], p->sketch))
                return true;
    return false;
}

static void put(const sw_dedup *d, generation *g, uint64_t key, uint32_t record)
{
    size_t mask = d->slots - 1, i = key & mask;
    while (g->slots[i].key)
        i = (i + 1) & mask;
    g->slots[i].key = key;
    g->slots[i].record = record;
}

bool sw_dedup_seen(sw_dedup *d, const sw_print *p)
{
    if (in_generation(d, &d->of[0], p) || in_generation(d, &d->of[1], p))
        return true;
    generation *g = &d->of[0];
    if (g->n == d->records) { /* the older half makes room, and its memory serves again */
        generation old = d->of[1];
        d->forgotten += (int64_t)old.n;
        d->of[1] = d->of[0];
        d->of[0] = old;
        g->n = 0;
        if (g->slots)
            memset(g->slots, 0, d->slots * sizeof *g->slots);
    }
    if (!g->slots) {
        g->slots = sw_calloc(d->slots, sizeof *g->slots);
        g->exact = sw_malloc(d->records * sizeof *g->exact);
        g->sketches = d->near ? sw_malloc(d->records * sizeof *g->sketches) : NULL;
    }
    uint32_t record = (uint32_t)g->n++;
    g->exact[record] = p->exact[1];
    put(d, g, key_of(p->exact[0]), record);
    if (d->near) {
        memcpy(g->sketches[record], p->sketch, VALUES);
        for (int k = 0; k < SW_PRINT_BANDS; k++)
            put(d, g, key_of(p->bands[k]), record);
    }
    return false;
}

int64_t sw_dedup_forgotten(const sw_dedup *d) { return d->forgotten; }
