/* Added tokens are found in a text before anything else: the leftmost first, of those the longest. */
#include "text/tokenizer_chars.h"
#include "text/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

void sw_added_build(sw_tokenizer *t)
{
    size_t n = t->added.n;
    sw_span *keys = SW_NEW_ARRAY(sw_span, n + 1);
    for (int normalized = 0; normalized < 2; normalized++) {
        sw_matcher *m = &t->matchers[normalized];
        sw_trie_free(&m->trie);
        memset(m->first, 0, sizeof m->first);
        for (size_t i = 0; i < n; i++) {
            const sw_added *a = &t->added.at[i];
            keys[i] = a->normalized == normalized ? (sw_span){a->pattern, a->n_pattern} : (sw_span){0};
            if (keys[i].n)
                m->first[(unsigned char)keys[i].at[0]] = 1;
        }
        bool any = false;
        for (size_t i = 0; i < n; i++)
            any |= keys[i].n > 0;
        if (any)
            sw_trie_build(&m->trie, keys, NULL, n);
    }
    free(keys);
}

static bool word_at(const char *s, size_t i)
{
    int len;
    return sw_char_is_word(sw_char_at(s + i, &len));
}

static bool space_at(const char *s, size_t i, int *len) { return sw_char_is_space(sw_char_at(s + i, len)); }

bool sw_added_next(const sw_tokenizer *t, bool normalized, bool plain, const char *s, size_t n, size_t *from,
                   size_t done, size_t *start, size_t *end, int32_t *id)
{
    const sw_matcher *m = &t->matchers[normalized];
    if (!m->trie.n)
        return false;
    for (size_t i = *from; i < n; i++) {
        int32_t which = 0;
        if (!m->first[(unsigned char)s[i]])
            continue;
        size_t len = sw_trie_longest(&m->trie, s + i, n - i, &which);
        if (!len)
            continue;
        const sw_added *a = &t->added.at[which];
        size_t a_start = i, a_end = i + len;
        i = a_end - 1;
        if (plain && a->special)
            continue;
        if (a->single_word && ((a_start && word_at(s, sw_char_before(s, a_start))) || (a_end < n && word_at(s, a_end))))
            continue;
        int width;
        while (a->lstrip && a_start > done && space_at(s, sw_char_before(s, a_start), &width))
            a_start = sw_char_before(s, a_start);
        size_t stop = a_end;
        while (a->rstrip && stop < n && space_at(s, stop, &width))
            stop += (size_t)width;
        *from = a_end;
        *start = a->lstrip ? SW_MAX(a_start, done) : a_start;
        *end = stop;
        *id = a->id;
        return true;
    }
    *from = n;
    return false;
}

void sw_added_cut(const sw_tokenizer *t, bool normalized, bool plain, sw_work *w)
{
    if (!t->matchers[normalized].trie.n)
        return;
    w->spare_pieces.n = 0;
    for (size_t i = 0; i < w->pieces.n; i++) {
        sw_piece p = w->pieces.at[i];
        const char *s = w->text.at + p.start;
        size_t n = p.end - p.start, from = 0, done = 0, start, end;
        int32_t id;
        if (p.id >= 0) {
            SW_PUSH(w->spare_pieces, p);
            continue;
        }
        while (sw_added_next(t, normalized, plain, s, n, &from, done, &start, &end, &id)) {
            if (done < start)
                SW_PUSH(w->spare_pieces, ((sw_piece){p.start + (uint32_t)done, p.start + (uint32_t)start,
                                                     w->text.from[p.start + done].start, -1}));
            if (start < end)
                SW_PUSH(w->spare_pieces, ((sw_piece){p.start + (uint32_t)start, p.start + (uint32_t)end,
                                                     w->text.from[p.start + start].start, id}));
            done = end;
        }
        if (done < n)
            SW_PUSH(w->spare_pieces,
                    ((sw_piece){p.start + (uint32_t)done, p.end, w->text.from[p.start + done].start, -1}));
    }
    sw_pieces keep = w->pieces;
    w->pieces = w->spare_pieces;
    w->spare_pieces = keep;
}
