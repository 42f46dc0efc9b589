/* Text to ids: added tokens are cut out, the rest is normalised, cut into words, and each word merged; words that
 * came before are looked up in a cache. */
#include "text/tokenizer_parts.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#include <xxhash.h>

enum { CACHE_SLOTS = 1 << 15, CACHED_WORD = 32, CACHED_IDS = 8 };

typedef struct cached {
    uint8_t n_bytes, n_ids;
    char word[CACHED_WORD];
    int32_t ids[CACHED_IDS];
} cached;

struct sw_encoder {
    const sw_tokenizer *t;
    sw_bpe_scratch bpe;
    cached *cache;
    sw_ids ends[2], lens;
    sw_buf normal;
    struct { uint32_t *at; size_t n, cap; } origin; /* of each byte of `normal` (and its end) in the text */
};

sw_encoder *sw_encoder_new(const sw_tokenizer *t)
{
    sw_encoder *e = SW_NEW(sw_encoder);
    e->t = t;
    e->cache = SW_NEW_ARRAY(cached, CACHE_SLOTS);
    return e;
}

void sw_encoder_free(sw_encoder *e)
{
    if (!e)
        return;
    free(e->bpe.node);
    free(e->bpe.heap);
    free(e->cache);
    free(e->ends[0].at);
    free(e->ends[1].at);
    free(e->lens.at);
    free(e->origin.at);
    sw_buf_free(&e->normal);
    free(e);
}

/* One word; lens gets the bytes of each id when offsets are wanted (then the cache is passed by). */
static int encode_word(sw_encoder *e, const char *word, size_t n, sw_ids *ids, sw_ids *lens)
{
    const sw_tokenizer *t = e->t;
    size_t first = ids->n;
    cached *c = NULL;
    if (!lens && n <= CACHED_WORD) {
        c = &e->cache[XXH3_64bits(word, n) & (CACHE_SLOTS - 1)];
        if (c->n_bytes == n && !memcmp(c->word, word, n)) {
            SW_RESERVE(*ids, ids->n + CACHED_IDS);
            memcpy(ids->at + ids->n, c->ids, sizeof c->ids);
            ids->n += c->n_ids;
            return 0;
        }
    }
    if (t->ignore_merges && n <= 256) { /* a word that is a token as a whole needs no merging */
        char spelled[1024];
        size_t m = 0;
        for (size_t i = 0; i < n; i++)
            m += (size_t)sw_utf8_encode(sw_byte_char((uint8_t)word[i]), spelled + m);
        int64_t id = sw_map_get(&t->ids, spelled, m, -1);
        if (id >= 0) {
            SW_PUSH(*ids, (int32_t)id);
            if (lens)
                SW_PUSH(*lens, (int32_t)n);
        }
    }
    if (ids->n == first && sw_bpe_word(t, &e->bpe, (const uint8_t *)word, n, ids, lens))
        return -1;
    if (c && ids->n - first <= CACHED_IDS) {
        c->n_bytes = (uint8_t)n;
        c->n_ids = (uint8_t)(ids->n - first);
        memcpy(c->word, word, n);
        memcpy(c->ids, ids->at + first, (ids->n - first) * sizeof *c->ids);
    }
    return 0;
}

/* Characters that cp falls apart into. */
static int parts(uint32_t cp)
{
    utf8proc_int32_t out[8];
    int last = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, out, 8, UTF8PROC_DECOMPOSE, &last);
    return n < 1 ? 1 : (int)n;
}

/* Canonical composition of a stretch, noting for each byte of the result where its character came from. A composed
 * character belongs to the first of those that it was made of. */
static int normalise(sw_encoder *e, const char *s, size_t n)
{
    sw_buf_clear(&e->normal);
    e->origin.n = 0;
    for (size_t i = 0; i < n;) {
        /* a stretch: a starter and what may combine with it */
        size_t j = i;
        uint32_t cp = 0;
        int len = sw_utf8_decode(s + j, n - j, &cp);
        bool plain = cp < 0xc0;
        j += (size_t)len;
        while (j < n) {
            len = sw_utf8_decode(s + j, n - j, &cp);
            if (cp < 0x300)
                break;
            const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)cp);
            bool joins = p->combining_class || (cp >= 0x1161 && cp <= 0x11c2) || p->category == UTF8PROC_CATEGORY_MC ||
                         p->category == UTF8PROC_CATEGORY_MN;
            if (!joins)
                break;
            plain = false;
            j += (size_t)len;
        }
        if (plain) {
            sw_buf_add(&e->normal, s + i, j - i);
            for (size_t k = i; k < j; k++)
                SW_PUSH(e->origin, (uint32_t)k);
            i = j;
            continue;
        }
        utf8proc_uint8_t *out = NULL;
        utf8proc_ssize_t m = utf8proc_map((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(j - i), &out,
                                          (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
        if (m < 0) {
            free(out);
            return sw_fail("normalisation: %s", utf8proc_errmsg(m));
        }
        /* A character of the result has used up as many of the source as it falls apart into. */
        size_t source = i, last = i, at = 0;
        int owed = 0; /* below 0: the last source has parts to come */
        while (at < (size_t)m) {
            uint32_t c;
            int width = sw_utf8_decode((const char *)out + at, (size_t)m - at, &c);
            for (int k = 0; k < width; k++)
                SW_PUSH(e->origin, (uint32_t)(owed < 0 || source == j ? last : source));
            at += (size_t)width;
            for (owed += parts(c); owed > 0 && source < j;) {
                uint32_t from;
                last = source;
                source += (size_t)sw_utf8_decode(s + source, n - source, &from);
                owed -= parts(from);
            }
        }
        sw_buf_add(&e->normal, out, (size_t)m);
        free(out);
        i = j;
    }
    SW_PUSH(e->origin, (uint32_t)n);
    return 0;
}

static size_t character_end(const char *s, size_t n, size_t i)
{
    i++;
    while (i < n && ((unsigned char)s[i] & 0xc0) == 0x80)
        i++;
    return i;
}

/* A stretch without added tokens. base: where it begins in the whole text, for offsets. */
static int encode_stretch(sw_encoder *e, const char *s, size_t n, size_t base, sw_ids *ids, sw_ids *offsets)
{
    const sw_tokenizer *t = e->t;
    const char *whole = s;
    size_t whole_n = n;
    bool mapped = false;
    if (!n)
        return 0;
    if (n > INT_MAX / 2)
        return sw_fail("a text of %zu bytes is too long", n);
    if (t->nfc) {
        bool ascii = true;
        for (size_t i = 0; i < n && ascii; i++)
            ascii = (unsigned char)s[i] < 0x80;
        if (!ascii) {
            if (normalise(e, s, n))
                return -1;
            mapped = true;
            s = e->normal.at;
            n = e->normal.n;
        }
    }
    sw_ids *ends = &e->ends[0], *next = &e->ends[1];
    ends->n = 0;
    SW_PUSH(*ends, (int32_t)n);
    for (size_t k = 0; k < t->cuts.n; k++) {
        next->n = 0;
        size_t from = 0;
        for (size_t i = 0; i < ends->n; i++) {
            size_t to = (size_t)ends->at[i], first = next->n;
            if (sw_cut_text(&t->cuts.at[k], s + from, to - from, next))
                return -1;
            for (size_t m = first; m < next->n; m++)
                next->at[m] += (int32_t)from;
            from = to;
        }
        sw_ids *swap = ends;
        ends = next;
        next = swap;
    }
    size_t from = 0;
    for (size_t i = 0; i < ends->n; i++) {
        size_t to = (size_t)ends->at[i];
        e->lens.n = 0;
        if (encode_word(e, s + from, to - from, ids, offsets ? &e->lens : NULL))
            return -1;
        size_t at = from;
        for (size_t m = 0; offsets && m < e->lens.n; m++) {
            size_t a = at, b = at + (size_t)e->lens.at[m];
            at = b;
            /* whole characters: a token that holds part of one is said to hold it */
            while (a > from && ((unsigned char)s[a] & 0xc0) == 0x80)
                a--;
            while (b < to && ((unsigned char)s[b] & 0xc0) == 0x80)
                b++;
            if (mapped) {
                size_t last = b;
                do
                    last--;
                while (last > a && ((unsigned char)s[last] & 0xc0) == 0x80);
                b = character_end(whole, whole_n, e->origin.at[last]);
                a = e->origin.at[a];
            }
            SW_PUSH(*offsets, (int32_t)(base + a));
            SW_PUSH(*offsets, (int32_t)(base + b));
        }
        from = to;
    }
    return 0;
}

static bool is_space(const char *s, size_t n, size_t i)
{
    uint32_t cp;
    if (!sw_utf8_decode(s + i, n - i, &cp))
        return false;
    return (cp >= 9 && cp <= 13) || cp == ' ' || cp == 0x85 || cp == 0xa0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

static bool is_word(const char *s, size_t n, size_t i)
{
    uint32_t cp;
    if (!sw_utf8_decode(s + i, n - i, &cp))
        return false;
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c <= UTF8PROC_CATEGORY_LO ? c != UTF8PROC_CATEGORY_CN : c <= UTF8PROC_CATEGORY_NO || c == UTF8PROC_CATEGORY_PC;
}

static size_t back(const char *s, size_t i)
{
    do
        i--;
    while (i && ((unsigned char)s[i] & 0xc0) == 0x80);
    return i;
}

static const sw_added *added_at(const sw_tokenizer *t, const char *s, size_t n, size_t i)
{
    if (!t->added_first[(unsigned char)s[i]])
        return NULL;
    for (size_t k = 0; k < t->added.n; k++) {
        const sw_added *a = &t->added.at[k];
        if (!a->n || a->n > n - i || memcmp(s + i, a->text, a->n))
            continue;
        if (a->single_word && ((i && is_word(s, n, back(s, i))) || (i + a->n < n && is_word(s, n, i + a->n))))
            continue;
        return a;
    }
    return NULL;
}

/* ByteLevel's post-processing: spaces at the ends of a token are not counted as its own. One alone at the start of the
 * text stays when the settings say that it may have been put there. Other white space is no space in byte-level spelling. */
static void trim(const sw_tokenizer *t, const char *text, sw_ids *offsets, size_t first)
{
    for (size_t i = first; t->trim_offsets && i + 1 < offsets->n; i += 2) {
        int32_t a = offsets->at[i], b = offsets->at[i + 1], lead = 0, trail = 0;
        while (a + lead < b && text[a + lead] == ' ')
            lead++;
        while (a < b - trail && text[b - trail - 1] == ' ')
            trail++;
        if (lead == 1 && t->trim_keeps_first && (i == first || a == 0))
            lead = 0;
        offsets->at[i] = a + lead;
        offsets->at[i + 1] = SW_MAX(b - trail, a + lead);
    }
}

static void add_special(const sw_ids *from, sw_ids *ids, sw_ids *offsets)
{
    for (size_t i = 0; i < from->n; i++) {
        SW_PUSH(*ids, from->at[i]);
        if (offsets) {
            SW_PUSH(*offsets, 0);
            SW_PUSH(*offsets, 0);
        }
    }
}

static int encode(sw_encoder *e, const char *text, size_t n, bool special, bool plain, sw_ids *ids, sw_ids *offsets)
{
    const sw_tokenizer *t = e->t;
    size_t done = 0, first = offsets ? offsets->n : 0;
    if (special)
        add_special(&t->prefix, ids, offsets);
    if (special && offsets)
        first = offsets->n;
    for (size_t i = 0; t->added.n && i < n;) {
        const sw_added *a = added_at(t, text, n, i);
        if (!a || (plain && a->special)) {
            i++;
            continue;
        }
        size_t from = i, to = i + a->n;
        while (a->lstrip && from > done && is_space(text, n, back(text, from)))
            from = back(text, from);
        while (a->rstrip && to < n && is_space(text, n, to))
            to = character_end(text, n, to);
        if (encode_stretch(e, text + done, from - done, done, ids, offsets))
            return -1;
        SW_PUSH(*ids, a->id);
        if (offsets) {
            SW_PUSH(*offsets, (int32_t)from);
            SW_PUSH(*offsets, (int32_t)to);
        }
        i = done = to;
    }
    if (encode_stretch(e, text + done, n - done, done, ids, offsets))
        return -1;
    if (offsets)
        trim(t, text, offsets, first);
    if (special)
        add_special(&t->suffix, ids, offsets);
    return 0;
}

int sw_encode(sw_encoder *e, const char *text, size_t n, bool add_special_tokens, sw_ids *ids, sw_ids *offsets)
{
    size_t good = sw_utf8_valid_prefix(text, n);
    if (good < n)
        return sw_fail("the text is no valid UTF-8 at byte %zu", good);
    return encode(e, text, n, add_special_tokens, false, ids, offsets);
}

int sw_encode_plain(sw_encoder *e, const char *text, size_t n, sw_ids *ids)
{
    size_t good = sw_utf8_valid_prefix(text, n);
    if (good < n)
        return sw_fail("the text is no valid UTF-8 at byte %zu", good);
    return encode(e, text, n, false, true, ids, NULL);
}
