/* Ids to text. A decoder is a chain of steps, each of which is fed tokens one at a time and hands tokens on; so
 * decoding as ids come in is the same as decoding them all. A step behind one that makes a single token of all
 * (ByteLevel, Fuse) sees that token in parts. */
#include "text/tokenizer_chars.h"
#include "text/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

typedef struct stage {
    sw_buf held;   /* text that may still change */
    int64_t count; /* tokens (or parts of the one token) seen; SENTENCEPIECE: of ids that are no bytes */
    size_t cut;    /* STRIP of one token in parts: characters taken off its start */
    bool open;     /* STRIP: the start is not over yet; SENTENCEPIECE: nothing was written yet */
} stage;

struct sw_decoding {
    const sw_tokenizer *t;
    sw_buf *out;
    stage *stages;
    bool any; /* without a decoder: a token was written, a space goes before the next */
};

void sw_decode_step_free(sw_decode_step *s)
{
    sw_pattern_free(&s->pattern);
    free(s->text);
    free(s->other);
}

/* Whether a step's input is one token that comes in parts. */
static bool in_parts(const sw_tokenizer *t, size_t step)
{
    for (size_t i = 0; i < step; i++)
        if (t->decoders.at[i].kind == SW_DECODE_BYTE_LEVEL || t->decoders.at[i].kind == SW_DECODE_FUSE)
            return true;
    return false;
}

/* Length of the part of s that cannot change when more bytes come: all but a cut character at the end. */
static size_t settled(const char *s, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)s[n - back];
        if ((c & 0xc0) == 0x80)
            continue;
        size_t need = c >= 0xf0 && c <= 0xf4 ? 4 : c >= 0xe0 ? 3 : c >= 0xc2 ? 2 : 1;
        if (c >= 0xf5 || need <= back)
            return n;
        /* cut only if what is there could go on */
        uint32_t cp;
        char test[4];
        memcpy(test, s + n - back, back);
        for (size_t i = back; i < need; i++)
            test[i] = (char)(i == 1 && (c == 0xe0 || c == 0xf0) ? 0xa0 : 0x80);
        return sw_utf8_decode(test, need, &cp) ? n - back : n;
    }
    return n;
}

/* Bytes as text: each maximal part of a broken sequence becomes one U+FFFD, as Rust's lossy conversion has it. */
static void add_lossy(sw_buf *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t good = sw_utf8_valid_prefix(s + i, n - i);
        sw_buf_add(out, s + i, good);
        i += good;
        if (i == n)
            return;
        const unsigned char *u = (const unsigned char *)s + i;
        size_t len = 1, left = n - i;
        unsigned char lo = 0x80, hi = 0xbf;
        int need = u[0] >= 0xc2 && u[0] <= 0xdf   ? 1
                   : u[0] >= 0xe0 && u[0] <= 0xef ? 2
                   : u[0] >= 0xf0 && u[0] <= 0xf4 ? 3
                                                  : 0;
        lo = u[0] == 0xe0 ? 0xa0 : u[0] == 0xf0 ? 0x90 : lo;
        hi = u[0] == 0xed ? 0x9f : u[0] == 0xf4 ? 0x8f : hi;
        for (; (int)len <= need && len < left && u[len] >= lo && u[len] <= hi; len++) {
            lo = 0x80;
            hi = 0xbf;
        }
        sw_buf_puts(out, "\xef\xbf\xbd");
        i += len;
    }
}

static void replace_all(sw_buf *b, const char *from, const char *to)
{
    size_t n = strlen(from), done = 0;
    if (!n || !b->n || !memmem(b->at, b->n, from, n))
        return;
    sw_buf r = {0};
    for (const char *hit; (hit = memmem(b->at + done, b->n - done, from, n)); done = (size_t)(hit - b->at) + n) {
        sw_buf_add(&r, b->at + done, (size_t)(hit - b->at) - done);
        sw_buf_puts(&r, to);
    }
    sw_buf_add(&r, b->at + done, b->n - done);
    sw_buf_free(b);
    *b = r;
}

static void clean(sw_buf *b)
{
    static const char *const pairs[][2] = {{" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
                                           {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
                                           {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t i = 0; i < SW_COUNT(pairs); i++)
        replace_all(b, pairs[i][0], pairs[i][1]);
}

static int feed(struct sw_decoding *d, size_t step, const char *s, size_t n);

/* The byte that a token spelt <0x41> stands for, or -1. */
static int byte_token(const char *s, size_t n)
{
    if (n != 6 || memcmp(s, "<0x", 3) || s[5] != '>')
        return -1;
    int value = 0;
    for (int i = 3; i < 5; i++) {
        char c = s[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* A run of byte tokens is over: text, or a sign for each. */
static int flush_bytes(struct sw_decoding *d, size_t step)
{
    sw_buf *held = &d->stages[step].held;
    if (!held->n)
        return 0;
    int rc = 0;
    if (sw_utf8_valid_prefix(held->at, held->n) == held->n)
        rc = feed(d, step + 1, held->at, held->n);
    else
        for (size_t i = 0; i < held->n && !rc; i++)
            rc = feed(d, step + 1, "\xef\xbf\xbd", 3);
    sw_buf_clear(held);
    return rc;
}

static int metaspace(struct sw_decoding *d, size_t step, const sw_decode_step *s, const char *at, size_t n, bool first)
{
    sw_buf b = {0};
    for (size_t i = 0; i < n;) {
        int len;
        uint32_t cp = sw_char_at(at + i, &len);
        if (cp != s->character)
            sw_buf_add(&b, at + i, (size_t)len);
        else if (!first || s->scheme == SW_PREPEND_NEVER)
            sw_buf_putc(&b, ' ');
        i += (size_t)len;
    }
    int rc = feed(d, step + 1, b.at ? b.at : "", b.n);
    sw_buf_free(&b);
    return rc;
}

/* Characters off both ends. */
static sw_span strip(const sw_decode_step *s, const char *at, size_t n)
{
    int len;
    size_t from = 0, to = n;
    for (size_t k = 0; k < s->start && from < n && sw_char_at(at + from, &len) == s->character; k++)
        from += (size_t)len;
    for (size_t k = 0; k < s->stop && to > 0; k++) {
        size_t before = sw_char_before(at, to);
        if (sw_char_at(at + before, &len) != s->character)
            break;
        to = before;
    }
    return (sw_span){at + from, to > from ? to - from : 0};
}

static int replaced(struct sw_decoding *d, size_t step, const sw_decode_step *s, const char *at, size_t n)
{
    sw_matches m = {0};
    sw_buf b = {0};
    int rc = sw_pattern_matches(&s->pattern, at, n, &m);
    for (size_t i = 0; i < m.n && !rc; i++) {
        if (m.at[i].hit)
            sw_buf_puts(&b, s->text);
        else
            sw_buf_add(&b, at + m.at[i].start, m.at[i].end - m.at[i].start);
    }
    if (!rc)
        rc = feed(d, step + 1, b.at ? b.at : "", b.n);
    free(m.at);
    sw_buf_free(&b);
    return rc;
}

/* Steps that need their whole token before they can say anything of it. */
static int whole(struct sw_decoding *d, size_t step, const char *at, size_t n, int64_t index, bool last)
{
    const sw_decode_step *s = &d->t->decoders.at[step];
    sw_buf b = {0};
    sw_span r;
    int rc = 0, byte;
    switch (s->kind) {
    case SW_DECODE_WORDPIECE:
        if (index && n >= strlen(s->text) && !memcmp(at, s->text, strlen(s->text))) {
            sw_buf_add(&b, at + strlen(s->text), n - strlen(s->text));
        } else {
            if (index)
                sw_buf_putc(&b, ' ');
            sw_buf_add(&b, at, n);
        }
        if (s->cleanup)
            clean(&b);
        rc = feed(d, step + 1, b.at ? b.at : "", b.n);
        break;
    case SW_DECODE_BPE:
        sw_buf_add(&b, at, n);
        replace_all(&b, s->text, last ? "" : " ");
        rc = feed(d, step + 1, b.at ? b.at : "", b.n);
        break;
    case SW_DECODE_CTC:
        sw_buf_add(&b, at, n);
        replace_all(&b, s->text, "");
        if (s->cleanup) {
            clean(&b);
            replace_all(&b, s->other, " ");
        }
        if (b.n)
            rc = feed(d, step + 1, b.at, b.n);
        break;
    case SW_DECODE_STRIP:
        r = strip(s, at, n);
        rc = feed(d, step + 1, r.at, r.n);
        break;
    case SW_DECODE_REPLACE: rc = replaced(d, step, s, at, n); break;
    case SW_DECODE_BYTE_FALLBACK:
        byte = byte_token(at, n);
        if (byte >= 0) {
            sw_buf_putc(&d->stages[step].held, (char)byte);
            break;
        }
        rc = flush_bytes(d, step);
        if (!rc)
            rc = feed(d, step + 1, at, n);
        break;
    default: break;
    }
    sw_buf_free(&b);
    return rc;
}

/* sentencepiece's pieces: the first space goes, and with squeezing all at the start. Its id is known, not only its
 * text. */
static int sentencepiece(struct sw_decoding *d, size_t step, const sw_decode_step *s, const char *at, size_t n,
                         int type)
{
    stage *g = &d->stages[step];
    sw_buf b = {0};
    if (type == 6) {
        int byte = byte_token(at, n);
        sw_buf_putc(&g->held, (char)byte);
        size_t ready = settled(g->held.at, g->held.n);
        if (!ready)
            return 0;
        /* each byte that belongs to no character is a sign of its own */
        for (size_t i = 0; i < ready;) {
            size_t good = sw_utf8_valid_prefix(g->held.at + i, ready - i);
            sw_buf_add(&b, g->held.at + i, good);
            i += good;
            if (i < ready) {
                sw_buf_puts(&b, "\xef\xbf\xbd");
                i++;
            }
        }
        memmove(g->held.at, g->held.at + ready, g->held.n - ready);
        g->held.n -= ready;
        if (b.n)
            g->count = 2;
    } else {
        for (size_t i = 0; i < g->held.n; i++) {
            sw_buf_puts(&b, "\xef\xbf\xbd");
            g->count = 2;
        }
        sw_buf_clear(&g->held);
        if (type == 2) {
            sw_buf_puts(&b, s->text);
            g->count = 2;
        } else if (type != 3) {
            bool ate = false;
            if (g->count < 1 && (s->prefix || s->squeeze) && n >= 3 && !memcmp(at, "\xe2\x96\x81", 3)) {
                at += 3;
                n -= 3;
                ate = !s->squeeze;
            }
            for (size_t i = 0; i < n;) {
                if (n - i >= 3 && !memcmp(at + i, "\xe2\x96\x81", 3)) {
                    sw_buf_putc(&b, ' ');
                    i += 3;
                } else {
                    sw_buf_putc(&b, at[i++]);
                }
            }
            if (ate || b.n)
                g->count = 2;
        }
    }
    int rc = b.n ? feed(d, step + 1, b.at, b.n) : 0;
    sw_buf_free(&b);
    return rc;
}

static int feed(struct sw_decoding *d, size_t step, const char *at, size_t n)
{
    if (step == d->t->decoders.n) {
        sw_buf_add(d->out, at, n);
        return 0;
    }
    const sw_decode_step *s = &d->t->decoders.at[step];
    stage *g = &d->stages[step];
    bool parts = in_parts(d->t, step);
    int rc = 0;
    switch (s->kind) {
    case SW_DECODE_FUSE: return feed(d, step + 1, at, n);
    case SW_DECODE_METASPACE: return metaspace(d, step, s, at, n, parts || !g->count++);
    case SW_DECODE_BYTE_LEVEL: {
        /* A token with any character that stands for no byte is taken as it is; so is the one token in parts, which
         * then has to be seen whole. */
        if (parts) {
            sw_buf_add(&g->held, at, n);
            return 0;
        }
        size_t before = g->held.n;
        for (size_t i = 0; i < n;) {
            int len, byte = sw_char_byte(sw_char_at(at + i, &len));
            if (byte < 0) {
                g->held.n = before;
                sw_buf_add(&g->held, at, n);
                break;
            }
            sw_buf_putc(&g->held, (char)byte);
            i += (size_t)len;
        }
        size_t ready = settled(g->held.at ? g->held.at : "", g->held.n);
        if (ready) {
            sw_buf b = {0};
            add_lossy(&b, g->held.at, ready);
            memmove(g->held.at, g->held.at + ready, g->held.n - ready);
            g->held.n -= ready;
            rc = feed(d, step + 1, b.at, b.n);
            sw_buf_free(&b);
        }
        return rc;
    }
    case SW_DECODE_STRIP:
        if (parts && !s->stop) {
            int len;
            while (!g->open && g->cut < s->start && n && sw_char_at(at, &len) == s->character) {
                at += len;
                n -= (size_t)len;
                g->cut++;
            }
            g->open |= n > 0;
            return feed(d, step + 1, at, n);
        }
        break;
    case SW_DECODE_CTC:
        if (!parts) {
            bool same = g->count && g->held.n == n && !memcmp(g->held.at ? g->held.at : "", at, n);
            g->count = 1;
            if (same)
                return 0;
            sw_buf_clear(&g->held);
            sw_buf_add(&g->held, at, n);
            return whole(d, step, at, n, 0, false);
        }
        break;
    case SW_DECODE_BPE:
        if (!parts) { /* the last token is another's: one is held back */
            if (g->count++)
                rc = whole(d, step, g->held.at ? g->held.at : "", g->held.n, 0, false);
            sw_buf_clear(&g->held);
            sw_buf_add(&g->held, at, n);
            return rc;
        }
        break;
    default: break;
    }
    if (parts) {
        sw_buf_add(&g->held, at, n);
        g->count = 1;
        return 0;
    }
    return whole(d, step, at, n, g->count++, false);
}

static int finish(struct sw_decoding *d)
{
    int rc = 0;
    for (size_t i = 0; i < d->t->decoders.n && !rc; i++) {
        const sw_decode_step *s = &d->t->decoders.at[i];
        stage *g = &d->stages[i];
        const char *at = g->held.at ? g->held.at : "";
        bool parts = in_parts(d->t, i);
        sw_buf b = {0};
        if (s->kind == SW_DECODE_BYTE_LEVEL) {
            if (parts) {
                bool all = true;
                for (size_t k = 0; k < g->held.n && all;) {
                    int len, byte = sw_char_byte(sw_char_at(at + k, &len));
                    all = byte >= 0;
                    sw_buf_putc(&b, (char)byte);
                    k += (size_t)len;
                }
                if (!all) {
                    sw_buf_clear(&b);
                    sw_buf_add(&b, at, g->held.n);
                }
                sw_buf lossy = {0};
                add_lossy(&lossy, b.at ? b.at : "", b.n);
                sw_buf_free(&b);
                b = lossy;
            } else {
                add_lossy(&b, at, g->held.n);
            }
            rc = b.n ? feed(d, i + 1, b.at, b.n) : 0;
        } else if (s->kind == SW_DECODE_SENTENCEPIECE) {
            for (size_t k = 0; k < g->held.n; k++)
                sw_buf_puts(&b, "\xef\xbf\xbd");
            rc = b.n ? feed(d, i + 1, b.at, b.n) : 0;
        } else if (s->kind == SW_DECODE_BYTE_FALLBACK) {
            if (parts && g->count) {
                char *copy = sw_strndup(at, g->held.n);
                size_t n = g->held.n;
                sw_buf_clear(&g->held);
                rc = whole(d, i, copy, n, 0, true);
                free(copy);
            }
            rc = rc || flush_bytes(d, i) ? -1 : 0;
        } else if (g->count && (parts || s->kind == SW_DECODE_BPE) && s->kind != SW_DECODE_METASPACE &&
                   s->kind != SW_DECODE_FUSE && (s->kind != SW_DECODE_CTC || parts)) {
            rc = whole(d, i, at, g->held.n, 0, true);
        }
        sw_buf_free(&b);
    }
    return rc;
}

static int feed_id(struct sw_decoding *d, int32_t id, bool skip_special)
{
    const sw_tokenizer *t = d->t;
    if (id < 0 || id >= t->size || !t->pieces[id].at || (skip_special && t->skipped[id]))
        return 0;
    sw_span p = t->pieces[id];
    if (!t->decodes) {
        if (d->any)
            sw_buf_putc(d->out, ' ');
        d->any = true;
    } else if (t->decoders.n && t->decoders.at[0].kind == SW_DECODE_SENTENCEPIECE) {
        return sentencepiece(d, 0, &t->decoders.at[0], p.at, p.n, t->piece_types[id]);
    }
    return feed(d, 0, p.at, p.n);
}

static struct sw_decoding *begin(const sw_tokenizer *t)
{
    struct sw_decoding *d = SW_NEW(struct sw_decoding);
    d->t = t;
    d->stages = SW_NEW_ARRAY(stage, t->decoders.n + 1);
    return d;
}

static void end(struct sw_decoding *d)
{
    for (size_t i = 0; d && i < d->t->decoders.n; i++)
        sw_buf_free(&d->stages[i].held);
    if (d)
        free(d->stages);
    free(d);
}

int sw_decode(const sw_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, sw_buf *out)
{
    struct sw_decoding *d = begin(t);
    d->out = out;
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++)
        rc = feed_id(d, ids[i], skip_special);
    if (!rc)
        rc = finish(d);
    end(d);
    return rc;
}

int sw_stream_decode(sw_stream_decoder *s, const sw_tokenizer *t, int32_t id, bool skip_special, sw_buf *out)
{
    if (!s->decoding)
        s->decoding = begin(t);
    s->decoding->out = out;
    return feed_id(s->decoding, id, skip_special);
}

int sw_stream_finish(sw_stream_decoder *s, const sw_tokenizer *t, bool skip_special, sw_buf *out)
{
    (void)t;
    (void)skip_special;
    int rc = 0;
    if (s->decoding) {
        s->decoding->out = out;
        rc = finish(s->decoding);
        end(s->decoding);
    }
    *s = (sw_stream_decoder){0};
    return rc;
}

void sw_stream_free(sw_stream_decoder *s)
{
    end(s->decoding);
    *s = (sw_stream_decoder){0};
}
