/* The text being worked on, and edits that remember where each byte came from. */
#include "text/tokenizer_chars.h"
#include "text/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

void sw_work_reserve(sw_work_text *t, size_t want)
{
    if (want <= t->cap)
        return;
    t->cap = SW_MAX(want, t->cap + t->cap / 2 + 64);
    t->at = sw_realloc(t->at, t->cap);
    t->from = sw_realloc(t->from, t->cap * sizeof *t->from);
}

void sw_work_free(sw_work *w)
{
    free(w->text.at);
    free(w->text.from);
    free(w->spare.at);
    free(w->spare.from);
    free(w->pieces.at);
    free(w->spare_pieces.at);
    free(w->matches.at);
    free(w->units.at);
    sw_buf_free(&w->scratch);
    *w = (sw_work){0};
}

sw_edit sw_edit_begin(const sw_work_text *in, const sw_piece *p, sw_work_text *out)
{
    sw_work_reserve(out, out->n + (p->end - p->start) + 16);
    return (sw_edit){in, out, p->start, p->end, p->start, p->origin};
}

static size_t character(const sw_edit *e, size_t at)
{
    int len;
    if (at >= e->end)
        return 0;
    sw_char_at(e->in->at + at, &len);
    return (size_t)len;
}

void sw_edit_skip(sw_edit *e, size_t characters)
{
    while (characters-- && e->at < e->end)
        e->at += character(e, e->at);
}

void sw_edit_put(sw_edit *e, uint32_t cp, int32_t change)
{
    sw_from from;
    if (change > 0)
        from = e->at > e->start ? e->in->from[e->at - 1] : (sw_from){e->origin, e->origin};
    else if (e->at < e->end)
        from = e->in->from[e->at];
    else
        from = e->end > e->start ? e->in->from[e->end - 1] : (sw_from){e->origin, e->origin};
    if (change <= 0)
        sw_edit_skip(e, (size_t)(1 - change));
    sw_work_text *out = e->out;
    sw_work_reserve(out, out->n + 4);
    int len = sw_utf8_encode(cp, out->at + out->n);
    for (int i = 0; i < len; i++)
        out->from[out->n + (size_t)i] = from;
    out->n += (size_t)len;
}

void sw_edit_copy(sw_edit *e, size_t to)
{
    size_t n = to - e->at;
    sw_work_reserve(e->out, e->out->n + n + 1);
    memcpy(e->out->at + e->out->n, e->in->at + e->at, n);
    memcpy(e->out->from + e->out->n, e->in->from + e->at, n * sizeof *e->in->from);
    e->out->n += n;
    e->at = to;
}
