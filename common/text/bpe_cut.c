/* Why it gives the ids that merging gives. Merging takes the pair of the lowest rank first, the leftmost of equal ones.
 *
 * As long as no merge crosses a boundary, what happens on its left is what would happen with nothing on its right, and
 * which of the two sides has its turn depends on these two alone. So a token that comes about anywhere is made as it is
 * made of its own bytes, by one and the same last merge; and t1 ... tk are the ids of their text if and only if each
 * makes itself and for each two neighbours no merge crosses their boundary in the text of the two: the first crossing
 * of any boundary would have been one there, too.
 *
 * For two neighbours that is read off backwards, where every token in them was made before it was used (its last
 * merge's rank is above those of its halves): the younger of the two symbols at the boundary is split, and each pair
 * that stands there is asked for a merge which comes before the younger one is made. Few tokens are not in that order
 * ("unruly"; none in GPT-2's vocabulary or Qwen's, some in Llama 3's); with these, the text of the two is merged.
 *
 * The ids of a prefix are unique, so that a position from which no way leads on is left for good: every position is
 * tried once.
 */
#include "text/bpe_cut.h"
#include "text/bpe_pairs.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { BYTE = -1, NEVER = INT_MAX, LONGEST = 4096 };

typedef struct made {
    int32_t left, right, rank; /* the last merge; BYTE: a symbol from the start; NEVER: does not come about */
    int32_t shorter;           /* the longest token that it begins with and that comes about, or -1 */
    uint32_t bytes : 31, unruly : 1;
} made;

/* Pairs of which it is known whether they stand apart: a slot each, the newest stays. */
enum { PAIR_BITS = 15 };

struct sw_bpe_cuts {
    made *token; /* [size] */
    sw_trie trie;
    int32_t *jump; /* [2^16] the node of a character of three bytes that is a token, by its code point; else -1 */
};

/* The symbols that a token is made of. */
static size_t put_symbols(const made *token, int32_t id, int32_t *out)
{
    if (token[id].rank == BYTE) {
        *out = id;
        return 1;
    }
    size_t n = put_symbols(token, token[id].left, out);
    return n + put_symbols(token, token[id].right, out + n);
}

/* Whether merging the text of two tokens comes to these two, whatever then becomes of them. */
static bool merge_to(const sw_tokenizer *t, const made *token, int32_t a, int32_t b)
{
    int32_t id[2 * LONGEST];
    size_t n = put_symbols(token, a, id), cut = n; /* how many lie on the left */
    n += put_symbols(token, b, id + n);
    while (n > 2) {
        const sw_merge *best = NULL;
        size_t where = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const sw_merge *m = sw_merge_find(t, id[i], id[i + 1]);
            if (m && (!best || m->rank < best->rank)) {
                best = m;
                where = i;
            }
        }
        if (!best || where + 1 == cut)
            return false;
        id[where] = best->id;
        n--;
        memmove(id + where + 1, id + where + 2, (n - where - 1) * sizeof *id);
        cut -= where < cut;
    }
    return cut == 1;
}

/* Whether the text of a and b, which both come about, is merged to the two, and no further unless `joined`. */
static bool stand_apart(const sw_tokenizer *t, const made *token, int32_t a, int32_t b, bool joined)
{
    if (!joined && sw_merge_find(t, a, b))
        return false;
    if (token[a].unruly || token[b].unruly)
        return merge_to(t, token, a, b);
    for (;;) {
        int32_t ka = token[a].rank, kb = token[b].rank, limit;
        if (ka > kb) { /* a crossing of a's rank lies further right than a's own merge: it comes later */
            limit = ka;
            a = token[a].right;
        } else if (kb != BYTE) { /* one of b's rank lies further left: it comes before */
            limit = kb + 1;
            b = token[b].left;
        } else {
            return true;
        }
        const sw_merge *m = sw_merge_find(t, a, b);
        if (m && m->rank < limit)
            return false;
    }
}

/* ---- making the tables */

/* The bytes that a token spells; 0 where it is no spelling of bytes, or of more than fit. */
static size_t spelled_bytes(sw_span word, char *out, size_t room)
{
    size_t n = 0;
    for (size_t i = 0; i < word.n;) {
        uint32_t cp;
        int len = sw_utf8_decode(word.at + i, word.n - i, &cp), byte = len > 0 ? sw_char_byte(cp) : -1;
        if (byte < 0 || n == room)
            return 0;
        out[n++] = (char)byte;
        i += (size_t)len;
    }
    return n;
}

/* The last merge of every token, the shorter ones first. false: a token is too long for merge_to. */
static bool find_last_merges(const sw_tokenizer *t, made *token, const sw_span *bytes, size_t most)
{
    size_t *begin = SW_NEW_ARRAY(size_t, most + 2);
    uint32_t *order = SW_NEW_ARRAY(uint32_t, t->n_merges + 1);
    bool unruly = false;
    size_t longest = 0, n = t->n_merges;
    for (size_t i = 0; i < t->merge_cap; i++)
        if (t->merges[i].left >= 0)
            begin[bytes[t->merges[i].id].n + 1]++;
    for (size_t i = 1; i < most + 2; i++)
        begin[i] += begin[i - 1];
    for (size_t i = 0; i < t->merge_cap; i++)
        if (t->merges[i].left >= 0)
            order[begin[bytes[t->merges[i].id].n]++] = (uint32_t)i;
    for (size_t i = 0; i < n && !(unruly && longest > LONGEST); i++) {
        const sw_merge *m = &t->merges[order[i]];
        int32_t kl = token[m->left].rank, kr = token[m->right].rank;
        if (token[m->id].rank != NEVER || kl == NEVER || kr == NEVER || !stand_apart(t, token, m->left, m->right, true))
            continue;
        bool late = token[m->left].unruly || token[m->right].unruly || m->rank <= SW_MAX(kl, kr);
        token[m->id] = (made){m->left, m->right, m->rank, -1, (uint32_t)bytes[m->id].n, late};
        longest = SW_MAX(longest, bytes[m->id].n);
        unruly |= late;
    }
    free(begin);
    free(order);
    return !(unruly && longest > LONGEST);
}

/* Values of tokens that do not come about, but may be a whole word. */
static inline int32_t whole_only(int32_t id) { return -2 - id; }

static int32_t *jumps(const sw_trie *trie)
{
    int32_t *jump = sw_malloc((1 << 16) * sizeof *jump);
    for (uint32_t cp = 0; cp < 1 << 16; cp++) {
        char c[4];
        int32_t node = 0;
        int len = cp < 0x800 ? 0 : sw_utf8_encode(cp, c);
        for (int i = 0; i < len && node >= 0; i++)
            node = sw_trie_step(trie, node, (unsigned char)c[i]);
        jump[cp] = len == 3 && node >= 0 && trie->node[node].value >= 0 ? node : -1;
    }
    return jump;
}

struct sw_bpe_cuts *sw_bpe_cuts_new(const sw_tokenizer *t)
{
    size_t size = (size_t)t->size, most = 1;
    sw_span *bytes = SW_NEW_ARRAY(sw_span, size);
    int32_t *value = SW_NEW_ARRAY(int32_t, size);
    struct sw_bpe_cuts *c = SW_NEW(struct sw_bpe_cuts);
    sw_arena arena = {0};
    for (size_t id = 0; id < size; id++)
        most = SW_MAX(most, t->words[id].at ? t->words[id].n : 0);
    char *spelled = sw_malloc(most);
    c->token = SW_NEW_ARRAY(made, size);
    for (size_t id = 0; id < size; id++) {
        size_t n = t->words[id].at ? spelled_bytes(t->words[id], spelled, most) : 0;
        if (n)
            bytes[id] = (sw_span){sw_arena_strndup(&arena, spelled, n), n};
        c->token[id].rank = NEVER;
    }
    free(spelled);
    for (int b = 0; b < 256; b++)
        if (t->byte_chars[b] >= 0)
            c->token[t->byte_chars[b]] = (made){-1, -1, BYTE, -1, 1, false};
    bool sound = find_last_merges(t, c->token, bytes, most);
    for (size_t id = 0; id < size && sound; id++) {
        bool comes = c->token[id].rank != NEVER;
        value[id] = comes ? (int32_t)id : whole_only((int32_t)id);
        if (!comes &&
            (!t->ignore_merges || sw_map_get(&t->model_ids, t->words[id].at, t->words[id].n, -1) != (int64_t)id))
            bytes[id] = (sw_span){0};
    }
    if (sound)
        sw_trie_build(&c->trie, bytes, value, size);
    for (size_t id = 0; id < size && sound; id++)
        if (c->token[id].rank != NEVER && bytes[id].n > 1)
            sw_trie_longest(&c->trie, bytes[id].at, bytes[id].n - 1, &c->token[id].shorter);
    if (sound)
        c->jump = jumps(&c->trie);
    free(bytes);
    free(value);
    sw_arena_free(&arena);
    if (sound)
        return c;
    sw_bpe_cuts_free(c);
    return NULL;
}

void sw_bpe_cuts_free(struct sw_bpe_cuts *c)
{
    if (!c)
        return;
    free(c->token);
    free(c->jump);
    sw_trie_free(&c->trie);
    free(c);
}

const struct sw_bpe_cuts *sw_bpe_tables(const sw_tokenizer *t, bool make)
{
    sw_tokenizer *owner = (sw_tokenizer *)t; /* what it says stays the same: only how fast it does */
    pthread_mutex_lock(&owner->tables.lock);
    if (make && !owner->tables.tried) {
        owner->tables.at = sw_bpe_cuts_new(t);
        owner->tables.tried = true;
    }
    struct sw_bpe_cuts *tables = owner->tables.at;
    pthread_mutex_unlock(&owner->tables.lock);
    return tables;
}

/* ---- cutting */

/* The longest token that s[0..n) begins with and that comes about. *whole: the one that is all of it, or -1. */
static inline int32_t longest(const struct sw_bpe_cuts *c, const char *s, size_t n, int32_t *whole)
{
    const sw_trie *trie = &c->trie;
    int32_t best = -1, node = 0;
    size_t i = 0;
    *whole = -1;
    if (n >= 3 && (s[0] & 0xf0) == 0xe0) { /* a third of the steps where text is made of such characters */
        int32_t there = c->jump[(s[0] & 0x0f) << 12 | (s[1] & 0x3f) << 6 | (s[2] & 0x3f)];
        if (there >= 0 && (s[1] & 0xc0) == 0x80 && (s[2] & 0xc0) == 0x80) {
            node = there;
            best = trie->node[node].value;
            i = 3;
        }
    }
    for (; i < n && (node = sw_trie_step(trie, node, (unsigned char)s[i])) >= 0; i++)
        if (trie->node[node].value >= 0)
            best = trie->node[node].value;
    if (i == n && trie->node[node].value < -1)
        *whole = whole_only(trie->node[node].value);
    return best;
}

static inline bool known_apart(const sw_tokenizer *t, const made *token, uint64_t *pairs, int32_t a, int32_t b)
{
    const uint64_t filled = UINT64_C(1) << 63, apart = UINT64_C(1) << 62; /* ids have 24 bits */
    uint64_t key = filled | (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
    uint64_t *slot = &pairs[sw_merge_hash(a, b) >> (64 - PAIR_BITS)];
    if ((*slot & ~apart) != key)
        *slot = key | (stand_apart(t, token, a, b, false) ? apart : 0);
    return *slot & apart;
}

int sw_bpe_cut(const sw_tokenizer *t, const struct sw_bpe_cuts *c, sw_bpe_scratch *s, const char *word, size_t n,
               sw_ids *ids)
{
    if (n > INT_MAX / 2)
        return sw_fail("a word of %zu bytes is too long", n);
    if (!n)
        return 0;
    const made *token = c->token;
    int32_t whole, id = longest(c, word, n, &whole);
    if (whole >= 0 || token[id].bytes == n) {
        SW_PUSH(*ids, whole >= 0 ? whole : id);
        return 0;
    }
    if (!s->pairs)
        s->pairs = SW_NEW_ARRAY(uint64_t, (size_t)1 << PAIR_BITS);
    sw_vec_grow((void **)&s->dead, &s->dead_cap, n / 64 + 1, sizeof *s->dead);
    memset(s->dead, 0, (n / 64 + 1) * sizeof *s->dead);
    size_t first = ids->n, at = 0, end = 0;
    while (at < n) {
        for (; id >= 0; id = token[id].shorter) {
            end = at + token[id].bytes;
            if (!(s->dead[end / 64] >> (end % 64) & 1) &&
                (ids->n == first || known_apart(t, token, s->pairs, ids->at[ids->n - 1], id)))
                break;
        }
        if (id >= 0) {
            SW_PUSH(*ids, id);
            at = end;
            if (at < n)
                id = longest(c, word + at, n - at, &whole);
            continue;
        }
        if (ids->n == first)
            return sw_fail("a word of %zu bytes cannot be cut into tokens", n); /* not with sound tables */
        s->dead[at / 64] |= UINT64_C(1) << (at % 64);
        id = ids->at[--ids->n];
        at -= token[id].bytes;
        id = token[id].shorter;
    }
    return 0;
}
