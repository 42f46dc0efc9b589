/* Byte-pair encoding (Sennrich et al. 2016): the pair of the lowest rank is merged first, the leftmost of equal ones.
 */
#include "text/bpe_pairs.h"
#include "text/tokenizer_chars.h"
#include "text/tokenizer_parts.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

void sw_tokenizer_reserve_merges(sw_tokenizer *t, size_t n)
{
    free(t->merges);
    free(t->merge_bits);
    t->merge_bits = sw_calloc((1 << 21) / 64, sizeof *t->merge_bits);
    t->merge_cap = 16;
    while (t->merge_cap < n * 2)
        t->merge_cap *= 2;
    t->merges = sw_malloc(t->merge_cap * sizeof *t->merges);
    for (size_t i = 0; i < t->merge_cap; i++)
        t->merges[i].left = -1;
}

static void put_merge(sw_tokenizer *t, int32_t left, int32_t right, int32_t rank, int32_t id)
{
    size_t i = sw_merge_slot(t, left, right);
    if (t->merges[i].left < 0)
        t->n_merges++;
    uint64_t bit = sw_merge_hash(left, right) >> 43;
    t->merge_bits[bit / 64] |= UINT64_C(1) << (bit % 64);
    t->merges[i] = (sw_merge){left, right, rank, id}; /* of equal pairs the last counts */
}

int sw_tokenizer_add_merge(sw_tokenizer *t, const char *left, size_t nl, const char *right, size_t nr, int32_t rank)
{
    size_t prefix = t->prefix_text ? strlen(t->prefix_text) : 0;
    int64_t a = sw_map_get(&t->model_ids, left, nl, -1), b = sw_map_get(&t->model_ids, right, nr, -1), whole = -1;
    if (nr >= prefix) {
        char small[256], *both = nl + nr <= sizeof small ? small : sw_malloc(nl + nr);
        memcpy(both, left, nl);
        memcpy(both + nl, right + prefix, nr - prefix);
        whole = sw_map_get(&t->model_ids, both, nl + nr - prefix, -1);
        if (both != small)
            free(both);
    }
    if (a < 0 || b < 0 || whole < 0)
        return sw_fail("merge %d: '%.*s' + '%.*s': %s is not in the vocabulary", rank, (int)SW_MIN(nl, 100), left,
                       (int)SW_MIN(nr, 100), right, whole < 0 && a >= 0 && b >= 0 ? "the result" : "a part");
    put_merge(t, (int32_t)a, (int32_t)b, rank, (int32_t)whole);
    return 0;
}

typedef struct implied {
    float score;
    int32_t left, right, id;
} implied;

static int by_score(const void *a, const void *b)
{
    const implied *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

int sw_tokenizer_merges_from_scores(sw_tokenizer *t, const float *scores, const uint8_t *usable, bool distinct)
{
    struct {
        implied *at;
        size_t n, cap;
    } all = {0};
    for (int64_t id = 0; id < t->size; id++) {
        sw_span w = t->words[id];
        if (!w.at || (usable && !usable[id]))
            continue;
        if (w.n > 4096) { /* every cut of it is looked up */
            free(all.at);
            return sw_fail("token %lld has %zu bytes; 4096 are possible", (long long)id, w.n);
        }
        for (size_t k = 1; k < w.n; k++) {
            if (((unsigned char)w.at[k] & 0xc0) == 0x80)
                continue;
            int64_t l = sw_map_get(&t->model_ids, w.at, k, -1),
                    r = l < 0 ? -1 : sw_map_get(&t->model_ids, w.at + k, w.n - k, -1);
            if (r < 0 || (usable && (!usable[l] || !usable[r])))
                continue;
            SW_PUSH(all, ((implied){scores[id], (int32_t)l, (int32_t)r, (int32_t)id}));
        }
    }
    if (all.n)
        qsort(all.at, all.n, sizeof *all.at, by_score);
    sw_tokenizer_reserve_merges(t, all.n);
    int32_t rank = 0;
    for (size_t i = 0; i < all.n; i++) {
        if (i && (distinct || all.at[i].score != all.at[i - 1].score))
            rank++;
        put_merge(t, all.at[i].left, all.at[i].right, rank, all.at[i].id);
    }
    free(all.at);
    return 0;
}

bool sw_bpe_cuts_spaces(const sw_tokenizer *t)
{
    static const char space[] = "\xe2\x96\x81";
    if (*t->prefix_text || *t->suffix_text || !t->char_ids[0x25] || t->char_ids[0x25][0x81] < 0)
        return false;
    for (size_t i = 0; i < t->merge_cap; i++) {
        const sw_merge *m = &t->merges[i];
        if (m->left < 0)
            continue;
        sw_span l = t->words[m->left], r = t->words[m->right];
        if (r.n >= 3 && !memcmp(r.at, space, 3) && (l.n < 3 || memcmp(l.at + l.n - 3, space, 3)))
            return false;
    }
    return true;
}

/* Words of usual length: ranks in blocks of which each knows its least, links beside them, all in the first-level
 * cache. */
enum { SHORT = 256, BLOCK = 16 };

typedef struct links {
    int32_t rank[SHORT], made[SHORT]; /* of the pair that begins here */
    int32_t least[SHORT / BLOCK];
    uint16_t where[SHORT / BLOCK], next[SHORT + 1], prev[SHORT + 1];
} links;

static inline void look(const sw_tokenizer *t, const sw_bpe_scratch *s, links *l, size_t i, size_t n)
{
    const sw_merge *m = i < n && l->next[i] < n ? sw_merge_find(t, s->node[i].id, s->node[l->next[i]].id) : NULL;
    l->rank[i] = m ? m->rank : INT_MAX;
    l->made[i] = m ? m->id : 0;
}

static inline void count_block(links *l, size_t block, size_t n)
{
    size_t from = block * BLOCK, to = SW_MIN(from + BLOCK, n), best = from;
    int32_t least = l->rank[from];
    for (size_t i = from + 1; i < to; i++)
        if (l->rank[i] < least) {
            least = l->rank[i];
            best = i;
        }
    l->least[block] = least;
    l->where[block] = (uint16_t)best;
}

static void merge_short(const sw_tokenizer *t, sw_bpe_scratch *s, size_t *count)
{
    links l;
    size_t n = *count, blocks = (n + BLOCK - 1) / BLOCK, kept = 0;
    for (size_t i = 0; i < n; i++) {
        l.next[i] = (uint16_t)(i + 1);
        l.prev[i] = (uint16_t)(i ? i - 1 : SHORT);
    }
    for (size_t i = 0; i < n; i++)
        look(t, s, &l, i, n);
    for (size_t b = 0; b < blocks; b++)
        count_block(&l, b, n);
    for (;;) {
        size_t b = 0;
        for (size_t k = 1; k < blocks; k++)
            if (l.least[k] < l.least[b])
                b = k;
        if (l.least[b] == INT_MAX)
            break;
        size_t i = l.where[b], gone = l.next[i], after = l.next[gone], before = l.prev[i];
        s->node[i].id = l.made[i];
        s->node[i].len += s->node[gone].len;
        s->node[gone].len = 0;
        l.rank[gone] = INT_MAX;
        l.next[i] = (uint16_t)after;
        if (after < n)
            l.prev[after] = (uint16_t)i;
        look(t, s, &l, i, n);
        count_block(&l, b, n);
        if (gone / BLOCK != b)
            count_block(&l, gone / BLOCK, n);
        if (before < n) {
            look(t, s, &l, before, n);
            count_block(&l, before / BLOCK, n);
        }
    }
    for (size_t i = 0; i < n; i = l.next[i])
        s->node[kept++] = s->node[i];
    *count = kept;
}

static bool before(const sw_bpe_scratch *s, size_t a, size_t b)
{
    return s->heap[a].rank != s->heap[b].rank ? s->heap[a].rank < s->heap[b].rank : s->heap[a].at < s->heap[b].at;
}

static void swap(sw_bpe_scratch *s, size_t a, size_t b)
{
    struct sw_bpe_pair keep = s->heap[a];
    s->heap[a] = s->heap[b];
    s->heap[b] = keep;
}

static void offer(const sw_tokenizer *t, sw_bpe_scratch *s, size_t *n, int32_t at)
{
    int32_t next = s->node[at].next;
    const sw_merge *m = next >= 0 ? sw_merge_find(t, s->node[at].id, s->node[next].id) : NULL;
    if (!m)
        return;
    sw_vec_grow((void **)&s->heap, &s->heap_cap, *n + 1, sizeof *s->heap);
    size_t i = (*n)++;
    s->heap[i] = (struct sw_bpe_pair){m->rank, at, s->node[at].id, s->node[next].id};
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
        struct sw_bpe_pair top = s->heap[0];
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
        s->node[at].id = sw_merge_find(t, top.left, top.right)->id;
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

static void merge(const sw_tokenizer *t, sw_bpe_scratch *s, size_t *n)
{
    if (*n > 1 && *n <= SHORT)
        merge_short(t, s, n);
    else if (*n > 1)
        merge_long(t, s, n);
}

int sw_bpe_bytes(const sw_tokenizer *t, sw_bpe_scratch *s, const uint8_t *word, size_t n, sw_ids *ids)
{
    if (n > INT_MAX / 2)
        return sw_fail("a word of %zu bytes is too long", n);
    sw_vec_grow((void **)&s->node, &s->cap, n, sizeof *s->node);
    for (size_t i = 0; i < n; i++) {
        s->node[i].id = t->byte_chars[word[i]];
        s->node[i].len = 1;
    }
    merge(t, s, &n);
    for (size_t i = 0; i < n; i++)
        SW_PUSH(*ids, s->node[i].id);
    return 0;
}

typedef struct symbols {
    const sw_tokenizer *t;
    sw_bpe_scratch *s;
    size_t n;
    int64_t unknown; /* bytes of the unknown token that is pending; 0: none */
} symbols;

static void add_symbol(symbols *y, int32_t id, int32_t len)
{
    sw_vec_grow((void **)&y->s->node, &y->s->cap, y->n + 1, sizeof *y->s->node);
    y->s->node[y->n].id = id;
    y->s->node[y->n++].len = len;
}

static void flush_unknown(symbols *y)
{
    if (y->unknown)
        add_symbol(y, y->t->unk, (int32_t)y->unknown);
    y->unknown = 0;
}

/* One character, with the texts that the model puts around it, `len` of its bytes being the piece's. */
static void add_character(symbols *y, int32_t id, const char *spelling, size_t n, size_t len)
{
    const sw_tokenizer *t = y->t;
    if (id >= 0) {
        flush_unknown(y);
        add_symbol(y, id, (int32_t)len);
        return;
    }
    if (t->byte_fallback) {
        bool all = true;
        for (size_t i = 0; i < n; i++)
            all &= t->byte_ids[(unsigned char)spelling[i]] >= 0;
        if (all) { /* what is pending stays so: it is put in later */
            for (size_t i = 0; i < n; i++)
                add_symbol(y, t->byte_ids[(unsigned char)spelling[i]], 1);
            return;
        }
    }
    if (t->unk < 0)
        return;
    if (y->unknown && t->fuse_unk) {
        y->unknown += (int64_t)len;
        return;
    }
    flush_unknown(y);
    y->unknown = (int64_t)len;
}

/* An unused piece of sentencepiece falls apart again into what it was made of. */
static void emit(const sw_tokenizer *t, int32_t id, int32_t len, int depth, sw_ids *ids, sw_ids *lens)
{
    enum { UNUSED = 5, DEEPEST = 200 };
    sw_span w = t->words[id];
    for (size_t k = 1; t->piece_types && t->piece_types[id] == UNUSED && depth < DEEPEST && k < w.n; k++) {
        int64_t l = sw_map_get(&t->model_ids, w.at, k, -1),
                r = l < 0 ? -1 : sw_map_get(&t->model_ids, w.at + k, w.n - k, -1);
        if (r < 0 || !sw_merge_find(t, (int32_t)l, (int32_t)r))
            continue;
        emit(t, (int32_t)l, (int32_t)k, depth + 1, ids, lens);
        emit(t, (int32_t)r, (int32_t)(w.n - k), depth + 1, ids, lens);
        return;
    }
    SW_PUSH(*ids, id);
    if (lens)
        SW_PUSH(*lens, len);
}

/* Merges what has come together, and gives it out. */
static void finish(symbols *y, sw_ids *ids, sw_ids *lens)
{
    merge(y->t, y->s, &y->n);
    for (size_t i = 0; i < y->n; i++)
        emit(y->t, y->s->node[i].id, y->s->node[i].len, 0, ids, lens);
    y->n = 0;
}

int sw_bpe_piece(const sw_tokenizer *t, sw_bpe_scratch *s, const char *text, size_t n, sw_ids *ids, sw_ids *lens)
{
    if (n > INT_MAX / 4)
        return sw_fail("a word of %zu bytes is too long", n);
    if (t->ignore_merges) {
        int64_t id = sw_map_get(&t->model_ids, text, n, -1);
        if (id >= 0) {
            SW_PUSH(*ids, (int32_t)id);
            if (lens)
                SW_PUSH(*lens, (int32_t)n);
            return 0;
        }
    }
    symbols y = {.t = t, .s = s};
    size_t prefix = strlen(t->prefix_text), suffix = strlen(t->suffix_text);
    enum { SPACE = 0x2581 };
    uint32_t before = 0;
    for (size_t i = 0; i < n;) {
        int len;
        int32_t frozen;
        size_t used = t->frozen.n ? sw_trie_longest(&t->frozen, text + i, n - i, &frozen) : 0;
        if (used) { /* nothing is merged with it */
            flush_unknown(&y);
            finish(&y, ids, lens);
            SW_PUSH(*ids, frozen);
            if (lens)
                SW_PUSH(*lens, (int32_t)used);
            i += used;
            continue;
        }
        uint32_t cp = sw_char_at(text + i, &len);
        bool first = i == 0, last = i + (size_t)len == n;
        if (t->cut_spaces && cp == SPACE && y.n &&
            before != SPACE) { /* nothing crosses here: short merges instead of a long one */
            flush_unknown(&y);
            finish(&y, ids, lens);
        }
        before = cp;
        if ((prefix && !first) || (suffix && last)) {
            sw_buf_clear(&s->spelling);
            if (!first)
                sw_buf_add(&s->spelling, t->prefix_text, prefix);
            sw_buf_add(&s->spelling, text + i, (size_t)len);
            if (last)
                sw_buf_add(&s->spelling, t->suffix_text, suffix);
            add_character(&y, (int32_t)sw_map_get(&t->model_ids, s->spelling.at, s->spelling.n, -1), s->spelling.at,
                          s->spelling.n, (size_t)len);
        } else {
            const int32_t *row = t->char_ids[cp >> 8];
            add_character(&y, row ? row[cp & 255] : -1, text + i, (size_t)len, (size_t)len);
        }
        i += (size_t)len;
    }
    flush_unknown(&y);
    finish(&y, ids, lens);
    return 0;
}
