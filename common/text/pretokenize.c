/* Pre-tokenizers: the pieces of a text are cut further, one kind after the other. Some also edit what they cut. */
#include "text/tokenizer_chars.h"
#include "text/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

enum { HAN = 42, LONG_VOWEL = 0x30fc };

void sw_cut_free(sw_cut *c) { sw_pattern_free(&c->pattern); }

static void keep(sw_work *w, uint32_t start, uint32_t end, uint32_t origin, int32_t id)
{
    if (end > start || id >= 0)
        SW_PUSH(w->spare_pieces, ((sw_piece){start, end, origin, id}));
}

static void swap_pieces(sw_work *w)
{
    sw_pieces t = w->pieces;
    w->pieces = w->spare_pieces;
    w->spare_pieces = t;
}

static void swap_texts(sw_work *w)
{
    sw_work_text t = w->text;
    w->text = w->spare;
    w->spare = t;
}

/* The matches of a piece become pieces. hit is read as "this is a delimiter". */
static void apply(sw_work *w, const sw_piece *p, sw_behaviour behaviour)
{
    sw_match *m = w->matches.at;
    size_t n = w->matches.n, out = 0;
    bool before = false;
    switch (behaviour) {
    case SW_REMOVED:
        for (size_t i = 0; i < n; i++)
            if (!m[i].hit)
                m[out++] = m[i];
        break;
    case SW_ISOLATED: out = n; break;
    case SW_CONTIGUOUS:
    case SW_MERGED_WITH_PREVIOUS:
        for (size_t i = 0; i < n; i++) {
            bool hit = m[i].hit, joins = behaviour == SW_CONTIGUOUS ? hit == before : hit && !before;
            if (joins && out)
                m[out - 1].end = m[i].end;
            else
                m[out++] = m[i];
            before = hit;
        }
        break;
    case SW_MERGED_WITH_NEXT: /* from the end, kept at the end */
        out = n;
        for (size_t i = n; i-- > 0;) {
            bool hit = m[i].hit;
            if (hit && !before && out < n)
                m[out].start = m[i].start;
            else
                m[--out] = m[i];
            before = hit;
        }
        memmove(m, m + out, (n - out) * sizeof *m);
        out = n - out;
        break;
    }
    for (size_t i = 0; i < out; i++)
        if (m[i].end > m[i].start)
            keep(w, p->start + m[i].start, p->start + m[i].end, w->text.from[p->start + m[i].start].start, -1);
}

typedef bool delimits(uint32_t cp, uint32_t given);
static bool is_number(uint32_t cp, uint32_t given) { return (void)given, sw_char_is(cp, SW_NUMBER); }
static bool is_white(uint32_t cp, uint32_t given) { return (void)given, sw_char_is_space(cp); }
static bool is_punctuation(uint32_t cp, uint32_t given) { return (void)given, sw_char_is_punctuation(cp); }
static bool is_given(uint32_t cp, uint32_t given) { return cp == given; }

static void match_characters(sw_work *w, const sw_piece *p, delimits *is, uint32_t given)
{
    const char *s = w->text.at + p->start;
    uint32_t n = p->end - p->start, done = 0;
    w->matches.n = 0;
    for (uint32_t i = 0; i < n;) {
        int len;
        uint32_t cp = sw_char_at(s + i, &len);
        if (is(cp, given)) {
            if (i > done)
                SW_PUSH(w->matches, ((sw_match){done, i, false}));
            done = i + (uint32_t)len;
            SW_PUSH(w->matches, ((sw_match){i, done, true}));
        }
        i += (uint32_t)len;
    }
    if (done < n)
        SW_PUSH(w->matches, ((sw_match){done, n, false}));
}

static void cut_characters(sw_work *w, delimits *is, uint32_t given, sw_behaviour behaviour)
{
    w->spare_pieces.n = 0;
    for (size_t i = 0; i < w->pieces.n; i++) {
        sw_piece p = w->pieces.at[i];
        if (p.id >= 0) {
            SW_PUSH(w->spare_pieces, p);
            continue;
        }
        match_characters(w, &p, is, given);
        apply(w, &p, behaviour);
    }
    swap_pieces(w);
}

static int cut_pattern(sw_work *w, const sw_pattern *pattern, sw_behaviour behaviour, bool invert)
{
    w->spare_pieces.n = 0;
    for (size_t i = 0; i < w->pieces.n; i++) {
        sw_piece p = w->pieces.at[i];
        if (p.id >= 0) {
            SW_PUSH(w->spare_pieces, p);
            continue;
        }
        if (sw_pattern_matches(pattern, w->text.at + p.start, p.end - p.start, &w->matches))
            return -1;
        for (size_t k = 0; invert && k < w->matches.n; k++)
            w->matches.at[k].hit = !w->matches.at[k].hit;
        apply(w, &p, behaviour);
    }
    swap_pieces(w);
    return 0;
}

/* Runs of word characters, and runs of what is neither word nor white space. */
static void cut_words(sw_work *w)
{
    w->spare_pieces.n = 0;
    for (size_t i = 0; i < w->pieces.n; i++) {
        sw_piece p = w->pieces.at[i];
        if (p.id >= 0) {
            SW_PUSH(w->spare_pieces, p);
            continue;
        }
        int kind = 0;
        uint32_t from = p.start;
        for (uint32_t at = p.start; at <= p.end;) {
            int len = 1, now = 0;
            if (at < p.end) {
                uint32_t cp = sw_char_at(w->text.at + at, &len);
                now = sw_char_is_word(cp) ? 1 : sw_char_is_space(cp) ? 0 : 2;
            }
            if (now != kind || at == p.end) {
                if (kind)
                    keep(w, from, at, w->text.from[from].start, -1);
                from = at;
                kind = now;
            }
            at += (uint32_t)len;
        }
    }
    swap_pieces(w);
}

/* At changes of script. White space and characters without a script go with what is before; in front they are dropped.
 */
static void cut_scripts(sw_work *w)
{
    w->spare_pieces.n = 0;
    for (size_t i = 0; i < w->pieces.n; i++) {
        sw_piece p = w->pieces.at[i];
        if (p.id >= 0) {
            SW_PUSH(w->spare_pieces, p);
            continue;
        }
        int last = 0;
        uint32_t from = p.start;
        for (uint32_t at = p.start; at < p.end;) {
            int len;
            uint32_t cp = sw_char_at(w->text.at + at, &len);
            int script = cp == LONG_VOWEL ? HAN : cp == ' ' ? 0 : sw_char_script(cp);
            if (script && script != last) {
                if (last)
                    keep(w, from, at, w->text.from[from].start, -1);
                from = at;
                last = script;
            }
            at += (uint32_t)len;
        }
        if (last)
            keep(w, from, p.end, w->text.from[from].start, -1);
    }
    swap_pieces(w);
}

static void cut_length(sw_work *w, size_t length)
{
    w->spare_pieces.n = 0;
    for (size_t i = 0; i < w->pieces.n; i++) {
        sw_piece p = w->pieces.at[i];
        if (p.id >= 0) {
            SW_PUSH(w->spare_pieces, p);
            continue;
        }
        for (uint32_t at = p.start, from; at < p.end;) {
            from = at;
            for (size_t k = 0; k < length && at < p.end; k++) {
                int len;
                sw_char_at(w->text.at + at, &len);
                at += (uint32_t)len;
            }
            keep(w, from, at, w->text.from[from].start, -1);
        }
    }
    swap_pieces(w);
}

typedef struct editing {
    enum { PREFIX_SPACE, TO_BYTES, TO_METASPACE } kind;
    uint32_t character;
    sw_scheme scheme;
} editing;

static void edit_piece(const editing *how, sw_edit *e)
{
    const char *s = e->in->at;
    int len;
    if (how->kind == TO_BYTES) {
        for (size_t i = e->start; i < e->end; i++)
            sw_edit_put(e, sw_byte_char((uint8_t)s[i]), ((unsigned char)s[i] & 0xc0) == 0x80);
        return;
    }
    bool put = false;
    uint32_t first = e->start < e->end ? sw_char_at(s + e->start, &len) : 0;
    if (how->kind == PREFIX_SPACE)
        put = e->start < e->end && first != ' ';
    else if (e->start < e->end && first != how->character && first != ' ')
        put = how->scheme == SW_PREPEND_ALWAYS || (how->scheme == SW_PREPEND_FIRST && e->origin == 0);
    if (put) {
        sw_edit_put(e, how->kind == PREFIX_SPACE ? ' ' : how->character, 0);
        sw_edit_put(e, first, 1);
    }
    if (how->kind == PREFIX_SPACE) {
        sw_edit_copy(e, e->end);
        return;
    }
    for (size_t i = e->at; i < e->end; i++)
        if (s[i] == ' ') {
            sw_edit_copy(e, i);
            e->at = i + 1;
            sw_edit_put(e, how->character, 1);
        }
    sw_edit_copy(e, e->end);
}

static void edit_all(sw_work *w, const editing *how)
{
    w->spare.n = 0;
    for (size_t i = 0; i < w->pieces.n; i++) {
        sw_piece *p = &w->pieces.at[i];
        sw_edit e = sw_edit_begin(&w->text, p, &w->spare);
        uint32_t start = (uint32_t)w->spare.n;
        if (p->id >= 0)
            sw_edit_copy(&e, p->end);
        else
            edit_piece(how, &e);
        p->start = start;
        p->end = (uint32_t)w->spare.n;
    }
    swap_texts(w);
}

int sw_pretokenize(const sw_tokenizer *t, sw_work *w)
{
    for (size_t i = 0; i < t->cuts.n; i++) {
        const sw_cut *c = &t->cuts.at[i];
        switch (c->kind) {
        case SW_CUT_SPLIT:
            if (cut_pattern(w, &c->pattern, c->behaviour, c->invert))
                return -1;
            break;
        case SW_CUT_BYTE_LEVEL:
            if (c->prefix_space)
                edit_all(w, &(editing){.kind = PREFIX_SPACE});
            if (c->regex && cut_pattern(w, &sw_gpt2_pattern, SW_ISOLATED, false))
                return -1;
            edit_all(w, &(editing){.kind = TO_BYTES});
            break;
        case SW_CUT_METASPACE:
            edit_all(w, &(editing){TO_METASPACE, c->character, c->scheme});
            if (c->split)
                cut_characters(w, is_given, c->character, SW_MERGED_WITH_NEXT);
            break;
        case SW_CUT_WHITESPACE: cut_words(w); break;
        case SW_CUT_WHITESPACE_SPLIT: cut_characters(w, is_white, 0, SW_REMOVED); break;
        case SW_CUT_PUNCTUATION: cut_characters(w, is_punctuation, 0, c->behaviour); break;
        case SW_CUT_DIGITS: cut_characters(w, is_number, 0, c->behaviour); break;
        case SW_CUT_CHARACTER: cut_characters(w, is_given, c->character, SW_REMOVED); break;
        case SW_CUT_SCRIPTS: cut_scripts(w); break;
        case SW_CUT_LENGTH: cut_length(w, c->length); break;
        }
    }
    return 0;
}
