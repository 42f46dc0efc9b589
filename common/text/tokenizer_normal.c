/* Normalisers: each reads a text and writes the next, character by character. */
#include "text/tokenizer_chars.h"
#include "text/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

void sw_normal_free(sw_normal *s)
{
    sw_pattern_free(&s->pattern);
    free(s->text);
    sw_charsmap_free(&s->charsmap);
}

typedef bool keeps(uint32_t cp);
typedef uint32_t maps(uint32_t cp);

/* Characters that are left out belong to the kept one before them, as far as offsets go. */
static void filter(sw_edit *e, keeps *keep, maps *map)
{
    const char *s = e->in->at;
    size_t removed = 0;
    uint32_t last = 0;
    bool any = false;
    for (size_t i = e->start; i < e->end;) {
        int len;
        uint32_t c = sw_char_at(s + i, &len);
        i += (size_t)len;
        if (!keep(c)) {
            removed++;
            continue;
        }
        if (any)
            sw_edit_put(e, map ? map(last) : last, -(int32_t)removed);
        else
            sw_edit_skip(e, removed);
        last = c;
        any = true;
        removed = 0;
    }
    if (any)
        sw_edit_put(e, map ? map(last) : last, -(int32_t)removed);
}

static bool not_nonspacing(uint32_t c) { return !sw_char_is(c, SW_NONSPACING); }
static bool not_mark(uint32_t c) { return !sw_char_is(c, SW_MARK); }

static bool nmt_keeps(uint32_t c)
{
    return !((c >= 1 && c <= 8) || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f);
}

static uint32_t nmt_maps(uint32_t c)
{
    bool space = c == 9 || c == 10 || c == 12 || c == 13 || c == 0x1680 || (c >= 0x200b && c <= 0x200f) ||
                 c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd;
    return space ? ' ' : c;
}

static bool bert_keeps(uint32_t c)
{
    bool white = c == '\t' || c == '\n' || c == '\r';
    return c && c != 0xfffd && (white || !sw_char_is(c, SW_OTHER_VISIBLE | 1u << SW_CLASS_CONTROL_SPACE));
}

static uint32_t bert_maps(uint32_t c) { return sw_char_is_space(c) ? ' ' : c; }

static bool is_chinese(uint32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
           (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static void space_chinese(sw_edit *e)
{
    for (size_t i = e->start; i < e->end;) {
        int len;
        uint32_t c = sw_char_at(e->in->at + i, &len);
        i += (size_t)len;
        if (is_chinese(c)) {
            sw_edit_put(e, ' ', 0);
            sw_edit_put(e, c, 1);
            sw_edit_put(e, ' ', 1);
        } else {
            sw_edit_put(e, c, 0);
        }
    }
}

static void lowercase(sw_edit *e)
{
    for (size_t i = e->start; i < e->end;) {
        int len;
        uint32_t out[2], c = sw_char_at(e->in->at + i, &len);
        i += (size_t)len;
        int n = sw_char_lower(c, out);
        for (int k = 0; k < n; k++)
            sw_edit_put(e, out[k], k > 0);
    }
}

static void bytes(sw_edit *e)
{
    for (size_t i = e->start; i < e->end; i++)
        sw_edit_put(e, sw_byte_char((uint8_t)e->in->at[i]), ((unsigned char)e->in->at[i] & 0xc0) == 0x80);
}

static void strip(sw_edit *e, bool left, bool right)
{
    const char *s = e->in->at;
    size_t from = e->start, to = e->end, count = 0, trailing = 0;
    int len;
    while (left && from < e->end && sw_char_is_space(sw_char_at(s + from, &len))) {
        from += (size_t)len;
        count++;
    }
    while (right && to > from) {
        size_t before = sw_char_before(s, to);
        if (before < e->start || !sw_char_is_space(sw_char_at(s + before, &len)))
            break;
        to = before;
        trailing++;
    }
    (void)trailing;
    sw_edit_skip(e, count);
    sw_edit_copy(e, to);
}

static int replace(const sw_normal *s, sw_work *w, sw_edit *e)
{
    if (sw_pattern_matches(&s->pattern, e->in->at + e->start, e->end - e->start, &w->matches))
        return -1;
    for (size_t i = 0; i < w->matches.n; i++) {
        const sw_match *m = &w->matches.at[i];
        if (!m->hit) {
            sw_edit_copy(e, e->start + m->end);
            continue;
        }
        e->at = e->start + m->end; /* what is put in belongs where the end of the match belongs */
        for (size_t k = 0; k < s->n;) {
            int len;
            uint32_t c = sw_char_at(s->text + k, &len);
            sw_edit_put(e, c, 1);
            k += (size_t)len;
        }
    }
    return 0;
}

static void prepend(const sw_normal *s, sw_edit *e)
{
    if (e->start == e->end)
        return;
    int len;
    uint32_t next = sw_char_at(e->in->at + e->start, &len);
    for (size_t k = 0; k < s->n;) {
        int width;
        uint32_t c = sw_char_at(s->text + k, &width);
        sw_edit_put(e, c, k ? 1 : 0);
        k += (size_t)width;
    }
    sw_edit_put(e, next, s->n ? 1 : 0);
    sw_edit_copy(e, e->end);
}

/* As the Hugging Face reading of these rules: whole grapheme clusters below six bytes first, then single characters. A
 * rule that gives nothing leaves its characters to the one before. */
static void charsmap(const sw_charsmap *m, sw_work *w, sw_edit *e)
{
    const char *s = e->in->at;
    w->units.n = 0;
    bool changed = false;
#define UNIT(c, d) SW_PUSH(w->units, ((struct sw_unit){(c), (d), 0}))
    for (size_t i = e->start; i < e->end;) {
        size_t end = sw_grapheme_end(s, e->end, i);
        for (size_t j = i; j < end;) {
            int len;
            sw_span to;
            uint32_t c = sw_char_at(s + j, &len);
            size_t part = j == i && end - i < 6 ? end - i : (size_t)len;
            bool found = sw_charsmap_find(m, s + j, part, false, &to) > 0;
            if (!found && part > (size_t)len) {
                part = (size_t)len;
                found = sw_charsmap_find(m, s + j, part, false, &to) > 0;
            }
            if (!found) {
                UNIT(c, 0);
            } else {
                changed = true;
                int32_t old = (int32_t)sw_utf8_count(s + j, part), now = (int32_t)sw_utf8_count(to.at, to.n), k = 0;
                for (size_t b = 0; b < to.n; k++) {
                    int width;
                    uint32_t r = sw_char_at(to.at + b, &width);
                    UNIT(r, k >= old ? 1 : 0);
                    b += (size_t)width;
                }
                if (now < old && w->units.n)
                    w->units.at[w->units.n - 1].change += now - old;
            }
            j += part;
        }
        i = end;
    }
    if (!changed) {
        sw_edit_copy(e, e->end);
        return;
    }
    for (size_t i = 0; i < w->units.n; i++)
        sw_edit_put(e, w->units.at[i].cp, w->units.at[i].change);
}

/* sentencepiece's own: longest rules, user-defined pieces kept, white space squeezed and spelt ▁ (Kudo and Richardson
 * 2018). */
static void sentencepiece(const sw_tokenizer *t, const sw_normal *s, sw_edit *e)
{
    const char *in = e->in->at;
    bool squeezed = s->squeeze;
    uint32_t mark = s->escape ? 0x2581 : ' ';
    size_t i = e->start, last_end = 0, first = e->out->n;
    sw_span to;
#define NEXT()                                                                                                         \
    size_t used = 0;                                                                                                   \
    int32_t value = 0;                                                                                                 \
    if (t->frozen.n && (used = sw_trie_longest(&t->frozen, in + i, e->end - i, &value)))                               \
        to = (sw_span){in + i, used};                                                                                  \
    else if (!(used = sw_charsmap_find(&s->charsmap, in + i, e->end - i, true, &to))) {                                \
        int len;                                                                                                       \
        sw_char_at(in + i, &len);                                                                                      \
        used = (size_t)len;                                                                                            \
        to = (sw_span){in + i, used};                                                                                  \
    }
    while (s->squeeze && i < e->end) {
        NEXT();
        if (to.n != 1 || to.at[0] != ' ')
            break;
        i += used;
    }
    if (i == e->end)
        return;
    sw_work_text *out = e->out;
#define EMIT(c, a, b)                                                                                                  \
    do {                                                                                                               \
        sw_work_reserve(out, out->n + 4);                                                                              \
        int width = sw_utf8_encode((c), out->at + out->n);                                                             \
        for (int w_ = 0; w_ < width; w_++)                                                                             \
            out->from[out->n + (size_t)w_] = (sw_from){(uint32_t)(a), (uint32_t)(b)};                                  \
        out->n += (size_t)width;                                                                                       \
    } while (0)
    if (s->prefix && !s->suffix && !(s->first && e->origin))
        EMIT(mark, e->in->from[i].start, e->in->from[i].start);
    const sw_charsmap *m = &s->charsmap;
    while (i < e->end) {
        unsigned char c0 = (unsigned char)in[i];
        if (c0 > ' ' && c0 < 0x80 && !t->frozen.n &&
            (!m->n_unit || (m->apart[c0] && (i + 1 == e->end || (unsigned char)in[i + 1] < 0x80)))) { /* as it is */
            sw_work_reserve(out, out->n + 1);
            out->at[out->n] = (char)c0;
            out->from[out->n++] = e->in->from[i];
            squeezed = false;
            last_end = e->in->from[i++].end;
            continue;
        }
        NEXT();
        uint32_t a = e->in->from[i].start, b = e->in->from[i + used - 1].end;
        while (squeezed && to.n && to.at[0] == ' ') {
            to.at++;
            to.n--;
        }
        for (size_t k = 0; k < to.n;) {
            int len;
            uint32_t c = sw_char_at(to.at + k, &len);
            EMIT(c == ' ' ? mark : c, a, b);
            k += (size_t)len;
        }
        if (to.n) {
            squeezed = to.at[to.n - 1] == ' ';
        }
        if (!s->squeeze)
            squeezed = false;
        last_end = b;
        i += used;
    }
    while (s->squeeze && out->n > first) {
        size_t width = s->escape ? 3 : 1;
        if (out->n - first < width || memcmp(out->at + out->n - width, s->escape ? "\xe2\x96\x81" : " ", width))
            break;
        out->n -= width;
    }
    if (s->prefix && s->suffix)
        EMIT(mark, last_end, last_end);
    e->at = e->end;
#undef EMIT
#undef NEXT
}

static void unicode(sw_work *w, sw_edit *e, bool compatible, bool compose)
{
    sw_unicode_normal(w, e->in->at + e->start, e->end - e->start, compatible, compose);
    for (size_t i = 0; i < w->units.n; i++)
        sw_edit_put(e, w->units.at[i].cp, w->units.at[i].change);
}

static bool is_ascii(const sw_work_text *t)
{
    for (size_t i = 0; i < t->n; i++)
        if ((unsigned char)t->at[i] >= 0x80)
            return false;
    return true;
}

/* One pass over the whole text. `pass` numbers the passes of a normaliser that makes several; false: there is no such
 * pass. */
static int pass_of(const sw_tokenizer *t, const sw_normal *s, int pass, sw_work *w, bool *done)
{
    sw_piece whole = {0, (uint32_t)w->text.n, w->text.n ? w->text.from[0].start : 0, -1};
    w->spare.n = 0;
    sw_edit e = sw_edit_begin(&w->text, &whole, &w->spare);
    *done = pass > 0;
    int rc = 0;
    if (s->kind == SW_BERT) {
        *done = pass > 4;
        if (pass == 0 && s->clean)
            filter(&e, bert_keeps, bert_maps);
        else if (pass == 1 && s->chinese)
            space_chinese(&e);
        else if (pass == 2 && s->strip_accents && !is_ascii(&w->text))
            unicode(w, &e, false, false);
        else if (pass == 3 && s->strip_accents && !is_ascii(&w->text))
            filter(&e, not_nonspacing, NULL);
        else if (pass == 4 && s->lowercase)
            lowercase(&e);
        else
            return 0;
    } else if (pass) {
        return 0;
    } else {
        switch (s->kind) {
        case SW_NFC:
        case SW_NFD:
        case SW_NFKC:
        case SW_NFKD:
            if (is_ascii(&w->text) || (s->kind == SW_NFC && sw_text_is_nfc(w->text.at, w->text.n)))
                return 0;
            unicode(w, &e, s->kind == SW_NFKC || s->kind == SW_NFKD, s->kind == SW_NFC || s->kind == SW_NFKC);
            break;
        case SW_LOWERCASE: lowercase(&e); break;
        case SW_STRIP: strip(&e, s->left, s->right); break;
        case SW_STRIP_ACCENTS: filter(&e, not_mark, NULL); break;
        case SW_REPLACE: rc = replace(s, w, &e); break;
        case SW_PREPEND: prepend(s, &e); break;
        case SW_CHARSMAP: charsmap(&s->charsmap, w, &e); break;
        case SW_BYTES: bytes(&e); break;
        case SW_NMT: filter(&e, nmt_keeps, nmt_maps); break;
        case SW_SENTENCEPIECE: sentencepiece(t, s, &e); break;
        case SW_BERT: break;
        }
    }
    sw_work_text keep = w->text;
    w->text = w->spare;
    w->spare = keep;
    return rc;
}

int sw_normalise(const sw_tokenizer *t, sw_work *w)
{
    for (size_t i = 0; i < t->normals.n; i++) {
        bool done = false;
        for (int pass = 0; !done; pass++)
            if (pass_of(t, &t->normals.at[i], pass, w, &done))
                return -1;
    }
    return 0;
}
