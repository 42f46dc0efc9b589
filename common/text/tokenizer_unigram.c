/* The most likely cut of a piece under a unigram model (Kudo 2018), by dynamic programming over its byte positions. */
#include "text/tokenizer_chars.h"
#include "text/tokenizer_parts.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

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

int sw_unigram_piece(const sw_tokenizer *t, sw_bpe_scratch *s, const char *text, size_t n, sw_ids *ids, sw_ids *lens)
{
    if (n > INT_MAX / 4)
        return sw_fail("a word of %zu bytes is too long", n);
    sw_vec_grow((void **)&s->best, &s->best_cap, n + 1, sizeof *s->best);
    struct sw_best *best = s->best;
    for (size_t i = 0; i <= n; i++)
        best[i] = (struct sw_best){0, -1, -1};
    const sw_trie *trie = &t->trie;
    double unknown = t->least_score - unknown_penalty;
    /* sentencepiece adds in single precision, and ties depend on it */
    bool single = t->sentencepiece;
    for (size_t i = 0; i < n;) {
        int len;
        sw_char_at(text + i, &len);
        double here = best[i].score;
        bool alone = false;
        int32_t node = 0;
        for (size_t j = i; trie->n && j < n && (node = sw_trie_step(trie, node, (unsigned char)text[j])) >= 0;) {
            j++;
            int32_t id = trie->node[node].value;
            if (id < 0)
                continue;
            double score = t->scores[id];
            if (t->piece_types && t->piece_types[id] == UNUSED)
                continue;
            if (t->piece_types && t->piece_types[id] == USER_DEFINED)
                score = (double)(float)((float)(j - i) * (float)t->most_score - 0.1);
            double sum = single ? (double)((float)score + (float)here) : score + here;
            if (best[j].from < 0 || sum > best[j].score)
                best[j] = (struct sw_best){sum, (int32_t)i, id};
            alone |= j - i == (size_t)len;
        }
        if (!alone) {
            size_t j = i + (size_t)len;
            double sum = single ? (double)((float)unknown + (float)here) : unknown + here;
            if (best[j].from < 0 || sum > best[j].score) {
                if (t->unk < 0)
                    return sw_fail(
                        "a character is not in the vocabulary, and the model names no unknown token (\"unk_id\")");
                best[j] = (struct sw_best){sum, (int32_t)i, t->unk};
            }
        }
        i += (size_t)len;
    }
    /* Backwards, then in order: links are turned round. */
    size_t end = n;
    for (int32_t next = -1; end > 0;) {
        int32_t from = best[end].from, id = best[end].id;
        best[end].from = next;
        best[end].id = id;
        next = (int32_t)end;
        end = (size_t)from;
        if (!end)
            best[0].from = next;
    }
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
        else
            emit_unknown(t, text + from, last - from, ids, lens);
        from = last;
    }
    return 0;
}
