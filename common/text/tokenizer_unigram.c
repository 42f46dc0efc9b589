/* The most likely cut of a piece under a unigram model (Kudo 2018), by dynamic programming over its byte positions. */
#include "text/tokenizer_chars.h"
#include "text/tokenizer_parts.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { USER_DEFINED = 4, UNUSED = 5 };
static const double unknown_penalty = 10;

static void emit(sw_ids *ids, sw_ids *lens, int32_t id, size_t len)
{
    SW_PUSH(*ids, id);
    if (lens)
        SW_PUSH(*lens, (int32_t)len);
}

/* An unknown stretch: as bytes, or as one unknown token. Offsets of each byte token are those of the whole, which
 * negative lengths say: -len for all but the last. */
static void emit_unknown(const sw_tokenizer *t, const char *s, size_t n, sw_ids *ids, sw_ids *lens)
{
    if (t->byte_fallback) {
        bool all = true;
        for (size_t i = 0; i < n; i++)
            all &= t->byte_ids[(unsigned char)s[i]] >= 0;
        if (all) {
            for (size_t i = 0; i < n; i++) {
                SW_PUSH(*ids, t->byte_ids[(unsigned char)s[i]]);
                if (lens)
                    SW_PUSH(*lens, i + 1 < n ? -(int32_t)n : (int32_t)n);
            }
            return;
        }
    }
    emit(ids, lens, t->unk, n);
}

static const char space_mark[] = "\xe2\x96\x81";
enum { MARK = 3 };

bool sw_unigram_cuts_spaces(const sw_tokenizer *t)
{
    if (!t->sentencepiece || t->unk < 0)
        return false;
    for (int i = 0; i < 256; i++)
        if (t->byte_fallback && t->byte_ids[i] < 0)
            return false;
    for (int64_t id = 0; id < t->size; id++) {
        sw_span w = t->words[id];
        bool marks = true; /* nothing else so far */
        for (size_t i = 0; w.at && i < w.n;) {
            bool mark = w.n - i >= MARK && !memcmp(w.at + i, space_mark, MARK);
            if (mark && !marks)
                return false;
            marks &= mark;
            i += mark ? MARK : 1;
        }
    }
    return true;
}

/* What a token that covers len bytes adds to the score. */
static inline double score_of(const sw_tokenizer *t, int32_t id, size_t len)
{
    if (id == t->unk)
        return t->least_score - unknown_penalty;
    if (t->piece_types && t->piece_types[id] == USER_DEFINED)
        return (double)(float)((float)len * (float)t->most_score - 0.1);
    return t->scores[id];
}

/* sentencepiece adds in single precision, and ties depend on it. */
static inline double sum_of(const sw_tokenizer *t, double a, double b)
{
    return t->sentencepiece ? (double)((float)a + (float)b) : a + b;
}

static inline void offer(struct sw_best *to, double sum, int32_t from, int32_t id)
{
    if (to->from < 0 || sum > to->score)
        *to = (struct sw_best){sum, to->from < 0 ? -INFINITY : to->score, from, id};
    else if (sum > to->second)
        to->second = sum;
}

/* The best way through text[0..n) that begins with the score `start`: s->best[0].from is the end of the first token,
 * and so on; best[end].id is the token that ends there. */
static int find_path(const sw_tokenizer *t, sw_bpe_scratch *s, const char *text, size_t n, double start)
{
    sw_vec_grow((void **)&s->best, &s->best_cap, n + 1, sizeof *s->best);
    struct sw_best *best = s->best;
    for (size_t i = 0; i <= n; i++)
        best[i] = (struct sw_best){0, -INFINITY, -1, -1};
    best[0].score = start;
    const sw_trie *trie = &t->trie;
    for (size_t i = 0; i < n;) {
        int len;
        sw_char_at(text + i, &len);
        double here = best[i].score;
        bool alone = false;
        int32_t node = 0;
        for (size_t j = i; trie->n && j < n && (node = sw_trie_step(trie, node, (unsigned char)text[j])) >= 0;) {
            j++;
            int32_t id = trie->node[node].value;
            if (id < 0 || (t->piece_types && t->piece_types[id] == UNUSED))
                continue;
            offer(&best[j], sum_of(t, score_of(t, id, j - i), here), (int32_t)i, id);
            alone |= j - i == (size_t)len;
        }
        i += (size_t)len;
        if (alone)
            continue;
        if (t->unk >= 0)
            offer(&best[i], sum_of(t, t->least_score - unknown_penalty, here), (int32_t)i - len, t->unk);
        else if (best[i].from < 0)
            return sw_fail("a character is not in the vocabulary, and the model names no unknown token (\"unk_id\")");
    }
    /* Backwards, then in order: links are turned round. */
    size_t end = n;
    for (int32_t next = -1; end > 0;) {
        int32_t from = best[end].from;
        best[end].from = next;
        next = (int32_t)end;
        end = (size_t)from;
        if (!end)
            best[0].from = next;
    }
    return 0;
}

/* The ids of the path. joined: an unknown token stands before, to which unknown ones at the start belong. */
static void emit_path(const sw_tokenizer *t, const struct sw_best *best, const char *text, size_t n, bool joined, sw_ids *ids,
                      sw_ids *lens)
{
    for (size_t from = 0; from < n;) {
        size_t to = (size_t)best[from].from;
        if (best[to].id != t->unk) {
            emit(ids, lens, best[to].id, to - from);
            from = to;
            continue;
        }
        /* Unknown neighbours are one; sentencepiece with byte fallback does each alone, which comes to the same ids. */
        size_t last = to;
        while (last < n && best[best[last].from].id == t->unk)
            last = (size_t)best[last].from;
        int64_t whole = t->sentencepiece ? -1 : sw_map_get(&t->model_ids, text + from, last - from, -1);
        if (whole >= 0)
            emit(ids, lens, (int32_t)whole, last - from);
        else if (from || !joined || t->byte_fallback)
            emit_unknown(t, text + from, last - from, ids, lens);
        from = last;
    }
}

/* ---- words, where no token crosses their edges: the way through a text is the ways through its words, each begun with the
 * score so far. Rounding makes that score matter where two ways are nearly as good, so the margin of every choice is kept:
 * where it is larger than what rounding can do, the word is cut as it was before. */

enum { WORD = 20, WORD_IDS = 8, WORDS = 1 << 12 };
struct sw_unigram_word {
    char text[WORD];
    uint8_t n, n_ids; /* n 0: free */
    int32_t ids[WORD_IDS];
    float margin, reach; /* the least of a choice; the largest of what is added in all */
};
_Static_assert(sizeof(struct sw_unigram_word) == 64, "a line of the cache");

/* More than rounding can move the difference of two sums of at most n terms. */
static double rounding(double here, double reach, size_t n) { return (double)(n + 2) * 0x1p-22 * (fabs(here) + reach); }

static struct sw_unigram_word *slot_of(sw_bpe_scratch *s, const char *word, size_t n)
{
    if (!s->words)
        s->words = SW_NEW_ARRAY(struct sw_unigram_word, WORDS);
    return &s->words[XXH3_64bits(word, n) % WORDS];
}

static void remember(const sw_tokenizer *t, const struct sw_best *best, struct sw_unigram_word *w, const char *word, size_t n,
                     const int32_t *ids, size_t n_ids)
{
    double start = best[0].score, margin = INFINITY, reach = 0;
    for (size_t from = 0, to; from < n; from = to) {
        to = (size_t)best[from].from;
        if (n_ids > WORD_IDS || best[to].id == t->unk || t->piece_types[best[to].id] == USER_DEFINED)
            return; /* or else the score is the ids' */
    }
    for (size_t i = 1; i <= n; i++) {
        if (best[i].id < 0) /* nothing ends here */
            continue;
        margin = fmin(margin, best[i].score - best[i].second);
        reach = fmax(reach, fabs(best[i].score - start));
        if (best[i].second > -INFINITY)
            reach = fmax(reach, fabs(best[i].second - start));
    }
    memcpy(w->text, word, n);
    memcpy(w->ids, ids, n_ids * sizeof *ids);
    w->n = (uint8_t)n;
    w->n_ids = (uint8_t)n_ids;
    w->reach = (float)(reach * 1.001);
    w->margin = (float)(margin - rounding(start, w->reach, n));
}

static int encode_words(const sw_tokenizer *t, sw_bpe_scratch *s, const char *text, size_t n, sw_ids *ids)
{
    float here = 0;
    bool joined = false;
    for (size_t from = 0, to; from < n; from = to) {
        for (to = from; n - to >= MARK && !memcmp(text + to, space_mark, MARK);)
            to += MARK;
        while (to < n && !(text[to] == space_mark[0] && n - to >= MARK && !memcmp(text + to, space_mark, MARK)))
            to++;
        size_t len = to - from;
        struct sw_unigram_word *w = len <= WORD ? slot_of(s, text + from, len) : NULL;
        if (w && w->n == len && !memcmp(w->text, text + from, len) && w->margin > rounding(here, w->reach, len)) {
            SW_RESERVE(*ids, ids->n + WORD_IDS);
            memcpy(ids->at + ids->n, w->ids, sizeof w->ids);
            ids->n += w->n_ids;
            for (size_t k = 0; k < w->n_ids; k++)
                here += (float)t->scores[w->ids[k]];
            joined = false;
            continue;
        }
        size_t first = ids->n;
        if (find_path(t, s, text + from, len, here))
            return -1;
        emit_path(t, s->best, text + from, len, joined, ids, NULL);
        here = (float)s->best[len].score;
        joined = s->best[len].id == t->unk;
        if (w)
            remember(t, s->best, w, text + from, len, ids->at + first, ids->n - first);
    }
    return 0;
}

int sw_unigram_piece(const sw_tokenizer *t, sw_bpe_scratch *s, const char *text, size_t n, sw_ids *ids, sw_ids *lens)
{
    if (n > INT_MAX / 4)
        return sw_fail("a word of %zu bytes is too long", n);
    if (t->cut_spaces && !lens)
        return encode_words(t, s, text, n, ids);
    if (find_path(t, s, text, n, 0))
        return -1;
    emit_path(t, s->best, text, n, false, ids, lens);
    return 0;
}
