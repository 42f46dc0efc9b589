/* The quick way: text that the normaliser leaves alone, cut by a scanner, words looked up in a cache. Of the tokenizers
 * that most models have: byte-level BPE cut by a known expression, and BPE in which ▁ stands for a space. */
#include "text/bpe_cut.h"
#include "text/encode_text.h"
#include "text/tokenizer_chars.h"

#include <stdlib.h>

enum { BATCH = 256, SPACE = 0x2581 };

/* ---- the cache */

static inline uint64_t load(const char *s)
{
    uint64_t v;
    memcpy(&v, s, sizeof v);
    return v;
}

/* The first n bytes of eight; n <= 8. */
static inline uint64_t first_bytes(uint64_t v, size_t n) { return n == 8 ? v : v & ((UINT64_C(1) << (8 * n)) - 1); }

/* Zeros behind the word. room: readable bytes from s on. */
static inline void word_key(const char *s, size_t n, size_t room, uint64_t key[3])
{
    char padded[SW_CACHED_WORD];
    if (room < SW_CACHED_WORD) {
        memset(padded, 0, sizeof padded);
        memcpy(padded, s, n);
        s = padded;
    }
    key[0] = first_bytes(load(s), SW_MIN(n, 8));
    key[1] = n > 8 ? first_bytes(load(s + 8), SW_MIN(n - 8, 8)) : 0;
    key[2] = n > 16 ? first_bytes(load(s + 16), n - 16) : 0;
}

static inline size_t place(const uint64_t key[3], size_t n)
{
    uint64_t h = (key[0] ^ n) * 0x9E3779B97F4A7C15u;
    h = (h ^ h >> 32) + key[1] * 0xBF58476D1CE4E5B9u + key[2] * 0x94D049BB133111EBu;
    return (size_t)(h * 0x9E3779B97F4A7C15u >> 49);
}

static inline bool holds(const struct sw_cached *c, const uint64_t key[3], size_t n)
{
    return c->n_bytes == n && c->word[0] == key[0] && c->word[1] == key[1] && c->word[2] == key[2];
}

static struct sw_cached *slot(sw_encoder *e, const char *s, size_t n, size_t room, uint8_t kind)
{
    uint64_t key[3];
    if (!e->cache)
        e->cache = SW_NEW_ARRAY(struct sw_cached, SW_CACHE_SLOTS);
    word_key(s, n, room, key);
    struct sw_cached *c = &e->cache[place(key, n | kind)];
    if (!holds(c, key, n | kind))
        c->n_ids = 0;
    return c;
}

/* Words as they stand in the text and pieces as the model sees them share the cache: the same bytes are two things. */
enum { PIECE = 0x80 };

static void fill(struct sw_cached *c, const char *s, size_t n, uint8_t kind, const int32_t *ids, size_t n_ids)
{
    c->n_ids = 0;
    if (!n_ids || n_ids > SW_CACHED_IDS)
        return;
    word_key(s, n, n, c->word);
    c->n_bytes = (uint8_t)n | kind;
    c->n_ids = (uint8_t)n_ids;
    memcpy(c->ids, ids, n_ids * sizeof *ids);
}

struct sw_cached *sw_cache_slot(sw_encoder *e, const char *s, size_t n) { return slot(e, s, n, n, PIECE); }
void sw_cache_fill(struct sw_cached *c, const char *s, size_t n, const int32_t *ids, size_t n_ids)
{
    fill(c, s, n, PIECE, ids, n_ids);
}

/* ---- which tokenizers */

static const sw_pattern *scanner_of(const sw_tokenizer *t)
{
    const sw_cut *c = t->cuts.at;
    if (t->cuts.n == 1 && c[0].kind == SW_CUT_BYTE_LEVEL && c[0].regex && !c[0].prefix_space)
        return &sw_gpt2_pattern;
    if (t->cuts.n != 2 || c[1].kind != SW_CUT_BYTE_LEVEL || c[1].prefix_space)
        return NULL;
    if (c[0].kind == SW_CUT_DIGITS && c[0].behaviour == SW_ISOLATED && c[1].regex)
        return &sw_gpt2_digits_pattern;
    bool all = c[0].invert ? c[0].behaviour == SW_REMOVED : c[0].behaviour == SW_ISOLATED;
    return c[0].kind == SW_CUT_SPLIT && c[0].pattern.scanner != SW_SCAN_NONE && all && !c[1].regex ? &c[0].pattern
                                                                                                   : NULL;
}

static void prepare_bytes(sw_tokenizer *t)
{
    bool nfc = t->normals.n == 1 && t->normals.at[0].kind == SW_NFC;
    const sw_pattern *scan = scanner_of(t);
    if (!scan || (t->normals.n && !nfc) || *t->prefix_text || *t->suffix_text)
        return;
    for (int b = 0; b < 256; b++)
        t->quick.holes |= t->byte_chars[b] < 0;
    t->token_bytes = SW_NEW_ARRAY(uint8_t, (size_t)t->size);
    for (int64_t id = 0; id < t->size; id++) {
        size_t n = t->words[id].at ? sw_utf8_count(t->words[id].at, t->words[id].n) : 0;
        t->token_bytes[id] = n < 256 ? (uint8_t)n : 0;
    }
    t->quick.kind = SW_QUICK_BYTES;
    t->quick.scan = scan;
    t->quick.nfc = nfc;
}

static bool is_text(const char *at, size_t n, const char *s) { return n == strlen(s) && !memcmp(at, s, n); }

static bool spaces_by_normaliser(sw_tokenizer *t)
{
    const sw_normal *s = t->normals.at;
    size_t n = t->normals.n;
    if (n == 1 && s[0].kind == SW_SENTENCEPIECE && !t->cuts.n) {
        t->quick.prefix = s[0].prefix;
        t->quick.first = s[0].first;
        return !s[0].suffix && !s[0].squeeze && s[0].escape && !s[0].charsmap.n_unit && !t->frozen.n;
    }
    if (n && s[0].kind == SW_PREPEND) {
        if (!is_text(s[0].text, s[0].n, "\xe2\x96\x81"))
            return false;
        t->quick.prefix = true;
        s++;
        n--;
    }
    if (n != 1 || s[0].kind != SW_REPLACE || !s[0].pattern.literal ||
        !is_text(s[0].pattern.literal, s[0].pattern.n, " ") || !is_text(s[0].text, s[0].n, "\xe2\x96\x81"))
        return false;
    /* a split at spaces, of which there are none left */
    const sw_cut *c = t->cuts.at;
    return !t->cuts.n || (t->cuts.n == 1 && c->kind == SW_CUT_SPLIT && c->pattern.literal &&
                          is_text(c->pattern.literal, c->pattern.n, " ") && !c->invert);
}

static void prepare_spaces(sw_tokenizer *t)
{
    const sw_cut *c = t->cuts.at;
    if (!t->cut_spaces)
        return;
    if (!t->normals.n && t->cuts.n == 1 && c->kind == SW_CUT_METASPACE && c->character == SPACE) {
        t->quick.each = c->split;
        t->quick.prefix = c->scheme != SW_PREPEND_NEVER;
        t->quick.given = true;
        t->quick.first = c->scheme == SW_PREPEND_FIRST;
    } else if (!spaces_by_normaliser(t)) {
        return;
    }
    t->quick.kind = SW_QUICK_SPACES;
}

void sw_quick_prepare(sw_tokenizer *t)
{
    if (t->model == SW_UNIGRAM)
        t->cut_spaces = sw_unigram_cuts_spaces(t);
    if (t->model != SW_BPE)
        return;
    t->cut_spaces = !t->ignore_merges && sw_bpe_cuts_spaces(t);
    prepare_bytes(t);
    if (t->quick.kind == SW_QUICK_NONE)
        prepare_spaces(t);
}

/* ---- byte-level BPE */

/* Bytes that have no token: what the model does with such a character needs its spelling. */
static bool has_hole(const sw_tokenizer *t, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (t->byte_chars[(unsigned char)s[i]] < 0)
            return true;
    return false;
}

static int miss_holes(sw_encoder *e, const char *s, size_t n, sw_ids *ids)
{
    sw_buf_clear(&e->spelling);
    for (size_t i = 0; i < n; i++) {
        char c[4];
        sw_buf_add(&e->spelling, c, (size_t)sw_utf8_encode(sw_byte_char((uint8_t)s[i]), c));
    }
    return sw_bpe_piece(e->t, &e->scratch, e->spelling.at, e->spelling.n, ids, NULL);
}

static int miss_bytes(sw_encoder *e, const char *s, size_t n, sw_ids *ids)
{
    enum { WORTH_TABLES = 1 << 19 };
    const sw_tokenizer *t = e->t;
    if (t->quick.holes && has_hole(t, s, n))
        return miss_holes(e, s, n, ids);
    if (!e->tables && e->merged < WORTH_TABLES && (e->merged += n) >= WORTH_TABLES)
        e->tables = sw_bpe_tables(t, true);
    if (e->tables)
        return sw_bpe_cut(t, e->tables, &e->scratch, s, n, ids);
    if (t->ignore_merges && n <= 256) { /* a word that is a token as a whole needs no merging */
        char spelled[512];
        size_t m = 0;
        for (size_t i = 0; i < n; i++)
            m += (size_t)sw_utf8_encode(sw_byte_char((uint8_t)s[i]), spelled + m);
        int64_t id = sw_map_get(&t->model_ids, spelled, m, -1);
        if (id >= 0) {
            SW_PUSH(*ids, (int32_t)id);
            return 0;
        }
    }
    return sw_bpe_bytes(t, &e->scratch, (const uint8_t *)s, n, ids);
}

/* Offsets of one word's ids: a token that holds part of a character is said to hold it. */
static bool word_offsets(sw_encoder *e, const char *s, size_t from, size_t to, size_t base, const sw_ids *ids,
                         size_t first, sw_ids *offsets)
{
    size_t at = from;
    for (size_t k = first; k < ids->n; k++) {
        size_t len = e->t->token_bytes[ids->at[k]];
        if (!len || at + len > to)
            return false;
        size_t a = at, b = at += len;
        while (a > from && ((unsigned char)s[a] & 0xc0) == 0x80)
            a--;
        while (b < to && ((unsigned char)s[b] & 0xc0) == 0x80)
            b++;
        SW_PUSH(*offsets, (int32_t)(base + a));
        SW_PUSH(*offsets, (int32_t)(base + b));
        if (e->t->trims.n)
            SW_PUSH(e->edges, sw_edges_of(e->t->words[ids->at[k]].at, e->t->words[ids->at[k]].n));
    }
    return at == to;
}

static bool is_ascii(const char *s, size_t n)
{
    uint64_t any = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        any |= load(s + i);
    for (; i < n; i++)
        any |= (unsigned char)s[i];
    return !(any & 0x8080808080808080u);
}

static int quick_bytes(sw_encoder *e, const char *s, size_t n, size_t base, sw_ids *ids, sw_ids *offsets)
{
    const sw_tokenizer *t = e->t;
    size_t first_id = ids->n, first_offset = offsets ? offsets->n : 0, first_edge = e->edges.n, from = 0;
    uint32_t ends[BATCH];
    if (t->quick.nfc && !is_ascii(s, n) && !sw_text_is_nfc(s, n))
        return 1;
    if (!e->cache)
        e->cache = SW_NEW_ARRAY(struct sw_cached, SW_CACHE_SLOTS);
    while (from < n) {
        size_t count = sw_scan_many(t->quick.scan, s, n, from, ends, BATCH);
        SW_RESERVE(*ids, ids->n + count * SW_CACHED_IDS + SW_CACHED_IDS);
        for (size_t i = 0; i < count; i++) {
            size_t to = ends[i], len = to - from, first = ids->n;
            struct sw_cached *c = NULL;
            if (len <= SW_CACHED_WORD) {
                uint64_t key[3];
                word_key(s + from, len, n - from, key);
                c = &e->cache[place(key, len)];
                if (!holds(c, key, len))
                    c->n_ids = 0;
            }
            if (c && c->n_ids) {
                memcpy(ids->at + ids->n, c->ids, sizeof c->ids);
                ids->n += c->n_ids;
            } else {
                if (miss_bytes(e, s + from, len, ids))
                    return -1;
                if (c)
                    fill(c, s + from, len, 0, ids->at + first, ids->n - first);
                SW_RESERVE(*ids, ids->n + (count - i) * SW_CACHED_IDS + SW_CACHED_IDS);
            }
            if (offsets && !word_offsets(e, s, from, to, base, ids, first, offsets)) {
                ids->n = first_id;
                offsets->n = first_offset;
                e->edges.n = first_edge;
                return 1;
            }
            from = to;
        }
    }
    return 0;
}

/* ---- ▁ for spaces */

static int miss_spaces(sw_encoder *e, const char *s, size_t n, sw_ids *ids)
{
    sw_buf_clear(&e->spelling);
    for (size_t i = 0; i < n;) {
        const char *space = memchr(s + i, ' ', n - i);
        size_t end = space ? (size_t)(space - s) : n;
        sw_buf_add(&e->spelling, s + i, end - i);
        if (space)
            sw_buf_add(&e->spelling, "\xe2\x96\x81", 3);
        i = end + 1;
    }
    return sw_bpe_piece(e->t, &e->scratch, e->spelling.at, e->spelling.n, ids, NULL);
}

static int one_word(sw_encoder *e, const char *s, size_t n, size_t room, sw_ids *ids)
{
    size_t first = ids->n;
    struct sw_cached *c = n <= SW_CACHED_WORD ? slot(e, s, n, room, 0) : NULL;
    if (c && c->n_ids) {
        SW_RESERVE(*ids, ids->n + SW_CACHED_IDS);
        memcpy(ids->at + ids->n, c->ids, sizeof c->ids);
        ids->n += c->n_ids;
        return 0;
    }
    if (miss_spaces(e, s, n, ids))
        return -1;
    if (c && ids->n > first)
        fill(c, s, n, 0, ids->at + first, ids->n - first);
    return 0;
}

/* The bytes of a space or ▁ at i, or 0. */
static inline size_t space_at(const char *s, size_t n, size_t i)
{
    if (s[i] == ' ')
        return 1;
    return s[i] == '\xe2' && n - i >= 3 && s[i + 1] == '\x96' && s[i + 2] == '\x81' ? 3 : 0;
}

static int quick_spaces(sw_encoder *e, const char *s, size_t n, size_t base, sw_ids *ids)
{
    const sw_tokenizer *t = e->t;
    size_t i = 0, width;
    bool prefix = t->quick.prefix && !(t->quick.given && space_at(s, n, 0)) && !(t->quick.first && base);
    while (i < n) {
        size_t from = i;
        while (i < n && (width = space_at(s, n, i))) {
            i += width;
            if (t->quick.each)
                break;
        }
        while (i < n && s[i] != ' ' && (s[i] != '\xe2' || !space_at(s, n, i)))
            i++;
        if (!prefix) {
            if (one_word(e, s + from, i - from, n - from, ids))
                return -1;
            continue;
        }
        prefix = false;
        char small[64], *word = i - from < sizeof small ? small : sw_malloc(i - from + 1);
        *word = ' ';
        memcpy(word + 1, s + from, i - from);
        int rc = one_word(e, word, i - from + 1, i - from + 1, ids);
        if (word != small)
            free(word);
        if (rc)
            return -1;
    }
    return 0;
}

int sw_quick_stretch(sw_encoder *e, const char *s, size_t n, size_t base, bool plain, sw_ids *ids, sw_ids *offsets)
{
    const sw_tokenizer *t = e->t;
    (void)plain;
    if (t->quick.kind == SW_QUICK_NONE || t->matchers[1].trie.n || (offsets && t->quick.kind == SW_QUICK_SPACES))
        return 1;
    return t->quick.kind == SW_QUICK_BYTES ? quick_bytes(e, s, n, base, ids, offsets)
                                           : quick_spaces(e, s, n, base, ids);
}
