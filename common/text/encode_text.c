/* Text to ids: added tokens are cut out, the rest is normalised, cut into pieces, and each piece given to the model.
 * What a tokenizer of a common kind makes of text that its normaliser leaves alone has a quicker way (encode_quick.c).
 */
#include "text/encode_text.h"

#include "text/tokenizer_chars.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

sw_encoder *sw_encoder_new(const sw_tokenizer *t)
{
    sw_encoder *e = SW_NEW(sw_encoder);
    e->t = t;
    e->tables = sw_bpe_tables(t, false);
    return e;
}

void sw_encoder_free(sw_encoder *e)
{
    if (!e)
        return;
    sw_scratch_free(&e->scratch);
    sw_work_free(&e->work);
    free(e->cache);
    free(e->lens.at);
    free(e->edges.at);
    sw_buf_free(&e->spelling);
    free(e);
}

/* Spaces at the ends of a token's text, in characters: white space, or the byte-level character of a space. */
struct sw_edges sw_edges_of(const char *s, size_t n)
{
    struct sw_edges e = {0, 0};
    int len;
    for (size_t i = 0; i < n; i += (size_t)len, e.lead++) {
        uint32_t c = sw_char_at(s + i, &len);
        if (c != 0x120 && !sw_char_is_space(c))
            break;
    }
    for (size_t i = n; i > 0; e.trail++) {
        i = sw_char_before(s, i);
        uint32_t c = sw_char_at(s + i, &len);
        if (c != 0x120 && !sw_char_is_space(c))
            break;
    }
    return e;
}

static void push_offsets(sw_encoder *e, sw_ids *offsets, size_t a, size_t b, const char *value, size_t n)
{
    SW_PUSH(*offsets, (int32_t)a);
    SW_PUSH(*offsets, (int32_t)b);
    if (e->t->trims.n)
        SW_PUSH(e->edges, sw_edges_of(value, n));
}

/* Offsets of the ids of one piece, from the bytes that each has of it. */
static void piece_offsets(sw_encoder *e, const sw_piece *p, const sw_ids *ids, size_t first, sw_ids *offsets)
{
    const sw_work_text *w = &e->work.text;
    size_t at = p->start;
    for (size_t k = 0; k < e->lens.n; k++) {
        int32_t id = ids->at[first + k], len = e->lens.at[k];
        size_t a = at, b = at + (size_t)abs(len);
        if (len > 0)
            at = b;
        sw_span value = e->t->words[id];
        if (e->t->model == SW_UNIGRAM && id == e->t->unk && b <= p->end)
            value = (sw_span){w->at + a, b - a};
        else if (!value.at)
            value = (sw_span){"", 0};
        if (b > a && b <= p->end)
            push_offsets(e, offsets, w->from[a].start, w->from[b - 1].end, value.at, value.n);
        else /* beyond the text: as the numbers stand */
            push_offsets(e, offsets, a - p->start, b - p->start, value.at, value.n);
    }
}

static int encode_piece(sw_encoder *e, const char *s, size_t n, sw_ids *ids, sw_ids *lens)
{
    size_t first = ids->n;
    struct sw_cached *c = lens || n > SW_CACHED_WORD ? NULL : sw_cache_slot(e, s, n);
    if (c && c->n_ids) {
        SW_RESERVE(*ids, ids->n + SW_CACHED_IDS);
        memcpy(ids->at + ids->n, c->ids, sizeof c->ids);
        ids->n += c->n_ids;
        return 0;
    }
    if (sw_model_piece(e->t, &e->scratch, s, n, ids, lens))
        return -1;
    if (c && ids->n > first)
        sw_cache_fill(c, s, n, ids->at + first, ids->n - first);
    return 0;
}

/* A stretch without those added tokens that are looked for in the text as given; it begins at `base` of the whole text.
 */
static int encode_stretch(sw_encoder *e, const char *s, size_t n, size_t base, bool plain, sw_ids *ids, sw_ids *offsets)
{
    const sw_tokenizer *t = e->t;
    sw_work *w = &e->work;
    if (!n)
        return 0;
    int quick = sw_quick_stretch(e, s, n, base, plain, ids, offsets);
    if (quick <= 0)
        return quick;
    sw_work_reserve(&w->spare, 1);
    w->text.n = 0;
    sw_work_reserve(&w->text, n + 1);
    memcpy(w->text.at, s, n);
    w->text.n = n;
    for (size_t i = 0; i < n;) {
        int len;
        sw_char_at(s + i, &len);
        for (int k = 0; k < len; k++)
            w->text.from[i + (size_t)k] = (sw_from){(uint32_t)(base + i), (uint32_t)(base + i) + (uint32_t)len};
        i += (size_t)len;
    }
    if (sw_normalise(t, w))
        return -1;
    if (!w->text.n)
        return 0;
    if (w->text.n > INT_MAX / 4)
        return sw_fail("a text of %zu bytes is too long", w->text.n);
    w->pieces.n = 0;
    SW_PUSH(w->pieces, ((sw_piece){0, (uint32_t)w->text.n, w->text.from[0].start, -1}));
    sw_added_cut(t, true, plain, w);
    if (sw_pretokenize(t, w))
        return -1;
    for (size_t i = 0; i < w->pieces.n; i++) {
        const sw_piece *p = &w->pieces.at[i];
        const char *at = w->text.at + p->start;
        if (p->id >= 0) {
            SW_PUSH(*ids, p->id);
            if (offsets)
                push_offsets(e, offsets, w->text.from[p->start].start, w->text.from[p->end - 1].end, at,
                             p->end - p->start);
            continue;
        }
        size_t first = ids->n;
        e->lens.n = 0;
        if (t->sentencepiece && t->model == SW_WORDLEVEL && i && first && ids->at[first - 1] == t->unk &&
            !t->byte_fallback &&
            sw_whole_word(t, at, p->end - p->start) < 0) { /* one unknown token for words in a row */
            if (offsets)
                offsets->at[offsets->n - 1] = (int32_t)w->text.from[p->end - 1].end;
            continue;
        }
        if (encode_piece(e, at, p->end - p->start, ids, offsets ? &e->lens : NULL))
            return -1;
        if (offsets)
            piece_offsets(e, p, ids, first, offsets);
    }
    return 0;
}

/* ByteLevel's post-processing: spaces at the ends of a token are not counted as its own. One alone at the start of the
 * text stays when the settings say that it may have been put there. Offsets move by characters. */
static void trim(const sw_encoder *e, const char *text, size_t n, sw_ids *offsets, size_t first)
{
    for (size_t k = 0; k < e->t->trims.n; k++)
        for (size_t i = first, token = 0; i + 1 < offsets->n && token < e->edges.n; i += 2, token++) {
            struct sw_edges d = e->edges.at[token];
            size_t a = (size_t)offsets->at[i], b = (size_t)offsets->at[i + 1];
            if (d.lead == 1 && e->t->trims.at[k] && (token == 0 || a == 0))
                d.lead = 0;
            for (uint32_t j = 0; j < d.lead && a < b && a < n; j++)
                for (a++; a < n && ((unsigned char)text[a] & 0xc0) == 0x80; a++)
                    ;
            a = SW_MIN(a, b);
            for (uint32_t j = 0; j < d.trail && b > a && b <= n; j++)
                b = sw_char_before(text, b);
            offsets->at[i] = (int32_t)a;
            offsets->at[i + 1] = (int32_t)SW_MAX(b, a);
        }
}

/* One text, without what the post-processor puts around it. */
static int encode_text(sw_encoder *e, const char *text, size_t n, bool plain, sw_ids *ids, sw_ids *offsets)
{
    const sw_tokenizer *t = e->t;
    size_t from = 0, done = 0, start, end, first = offsets ? offsets->n : 0, good = sw_utf8_valid_prefix(text, n);
    int32_t id;
    if (good < n)
        return sw_fail("the text is no valid UTF-8 at byte %zu", good);
    if (n > INT_MAX / 4)
        return sw_fail("a text of %zu bytes is too long", n);
    e->edges.n = 0;
    while (sw_added_next(t, false, plain, text, n, &from, done, &start, &end, &id)) {
        if (done < start && encode_stretch(e, text + done, start - done, done, plain, ids, offsets))
            return -1;
        if (start < end) {
            SW_PUSH(*ids, id);
            if (offsets)
                push_offsets(e, offsets, start, end, text + start, end - start);
        }
        done = end;
    }
    if (done < n && encode_stretch(e, text + done, n - done, done, plain, ids, offsets))
        return -1;
    if (offsets)
        trim(e, text, n, offsets, first);
    return 0;
}

int sw_encode(sw_encoder *e, const char *text, size_t n, bool add_special, sw_ids *ids, sw_ids *offsets)
{
    const sw_post_items *items = &e->t->single;
    if (items->n == 1 && items->at[0].id == -1)
        return encode_text(e, text, n, false, ids, offsets);
    for (size_t i = 0; i < items->n; i++) {
        int32_t id = items->at[i].id;
        if (id == -1 && encode_text(e, text, n, false, ids, offsets))
            return -1;
        if (id < 0 || !add_special)
            continue;
        SW_PUSH(*ids, id);
        if (offsets) {
            SW_PUSH(*offsets, 0);
            SW_PUSH(*offsets, 0);
        }
    }
    return 0;
}

int sw_encode_plain(sw_encoder *e, const char *text, size_t n, sw_ids *ids)
{
    return encode_text(e, text, n, true, ids, NULL);
}

int sw_encode_pair(sw_encoder *e, const char *a, size_t na, const char *b, size_t nb, bool add_special, sw_ids *ids,
                   sw_ids *types, sw_ids *special)
{
    const sw_post_items *items = &e->t->pair;
    for (size_t i = 0; i < items->n; i++) {
        size_t first = ids->n;
        int32_t id = items->at[i].id;
        if (id >= 0 && add_special)
            SW_PUSH(*ids, id);
        else if (id < 0 && encode_text(e, id == -1 ? a : b, id == -1 ? na : nb, false, ids, NULL))
            return -1;
        for (; first < ids->n; first++) {
            if (types)
                SW_PUSH(*types, items->at[i].type);
            if (special)
                SW_PUSH(*special, id >= 0);
        }
    }
    return 0;
}
