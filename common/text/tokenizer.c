#include "text/tokenizer_parts.h"

#include "store/gguf.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#include <xxhash.h>

/* GPT-2's table: printable Latin-1 stands for itself, the rest for U+0100 onwards in order. */
static bool printable(int b) { return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae; }

uint32_t sw_byte_char(uint8_t byte)
{
    if (printable(byte))
        return byte;
    uint32_t n = 0;
    for (int b = 0; b < byte; b++)
        n += !printable(b);
    return 0x100 + n;
}

int sw_char_byte(uint32_t cp)
{
    if (cp < 0x100)
        return printable((int)cp) ? (int)cp : -1;
    static int16_t table[0x50]; /* filled once with equal values by whoever comes first */
    static bool ready;
    if (!ready) {
        int n = 0;
        for (int b = 0; b < 256; b++)
            if (!printable(b))
                table[n++] = (int16_t)b;
        for (; n < 0x50; n++)
            table[n] = -1;
        ready = true;
    }
    return cp < 0x150 ? table[cp - 0x100] : -1;
}

sw_tokenizer *sw_tokenizer_new(void)
{
    sw_tokenizer *t = SW_NEW(sw_tokenizer);
    t->bos = t->eos = t->pad = t->unk = -1;
    return t;
}

void sw_tokenizer_free(sw_tokenizer *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->cuts.n; i++)
        sw_cut_free(&t->cuts.at[i]);
    for (size_t i = 0; i < t->added.n; i++)
        free(t->added.at[i].text);
    free(t->cuts.at);
    free(t->added.at);
    free(t->pieces);
    free(t->words);
    free(t->bytes);
    free(t->special);
    free(t->added_first);
    free(t->merges);
    free(t->prefix.at);
    free(t->suffix.at);
    free(t->pair_prefix.at);
    free(t->chat_template);
    sw_map_free(&t->ids);
    sw_arena_free(&t->arena);
    free(t);
}

void sw_tokenizer_size_is(sw_tokenizer *t, int64_t size)
{
    t->size = size;
    t->pieces = SW_NEW_ARRAY(sw_span, (size_t)size);
    t->words = SW_NEW_ARRAY(sw_span, (size_t)size);
}

void sw_tokenizer_set_word(sw_tokenizer *t, int32_t id, const char *s, size_t n)
{
    t->words[id] = t->pieces[id] = (sw_span){sw_arena_strndup(&t->arena, s, n), n};
    sw_map_put(&t->ids, s, n, id);
}

void sw_tokenizer_set_added(sw_tokenizer *t, const sw_added *a)
{
    t->pieces[a->id] = (sw_span){sw_arena_strndup(&t->arena, a->text, a->n), a->n};
    sw_map_put(&t->ids, a->text, a->n, a->id);
    SW_PUSH(t->added, *a);
}

static int by_length(const void *a, const void *b)
{
    const sw_added *x = a, *y = b;
    if (x->n != y->n)
        return x->n < y->n ? 1 : -1;
    return memcmp(x->text, y->text, x->n);
}

int sw_tokenizer_finish(sw_tokenizer *t)
{
    t->bytes = SW_NEW_ARRAY(sw_span, (size_t)t->size);
    t->special = SW_NEW_ARRAY(uint8_t, (size_t)t->size);
    t->added_first = SW_NEW_ARRAY(uint16_t, 256);
    for (size_t i = 0; i < t->added.n; i++) {
        const sw_added *a = &t->added.at[i];
        t->special[a->id] = a->special ? 1 : 2;
        if (a->n)
            t->added_first[(unsigned char)a->text[0]] = 1;
    }
    /* Longest first, so that the first that fits is the longest that fits. */
    if (t->added.n)
        qsort(t->added.at, t->added.n, sizeof *t->added.at, by_length);
    sw_buf b = {0};
    for (int64_t id = 0; id < t->size; id++) {
        sw_span p = t->pieces[id];
        if (!p.at)
            continue;
        if (t->special[id]) {
            t->bytes[id] = p;
            continue;
        }
        sw_buf_clear(&b);
        for (size_t i = 0; i < p.n;) {
            uint32_t cp;
            int len = sw_utf8_decode(p.at + i, p.n - i, &cp), byte = len ? sw_char_byte(cp) : -1;
            if (!len)
                len = 1;
            if (byte >= 0)
                sw_buf_putc(&b, (char)byte);
            else
                sw_buf_add(&b, p.at + i, (size_t)len); /* no byte's character: kept as it is */
            i += (size_t)len;
        }
        t->bytes[id] = (sw_span){sw_arena_strndup(&t->arena, b.at ? b.at : "", b.n), b.n};
    }
    sw_buf_free(&b);
    for (int i = 0; i < 256; i++) {
        char c[4];
        int n = sw_utf8_encode(sw_byte_char((uint8_t)i), c);
        t->byte_ids[i] = (int32_t)sw_map_get(&t->ids, c, (size_t)n, -1);
    }
    if (!t->merges)
        sw_tokenizer_reserve_merges(t, 0);
    return 0;
}

sw_tokenizer *sw_tokenizer_load(const char *path)
{
    if (!sw_is_dir(path) && !sw_ends_with(path, ".json")) {
        sw_gguf *g = sw_gguf_open(path);
        sw_tokenizer *t = g ? sw_tokenizer_from_gguf(g) : NULL;
        if (g)
            sw_gguf_close(g);
        return t;
    }
    char *dir = sw_is_dir(path) ? sw_strdup(path) : NULL;
    if (!dir) {
        const char *slash = strrchr(path, '/');
        dir = slash ? sw_strndup(path, (size_t)(slash - path)) : sw_strdup(".");
    }
    char *json = sw_is_dir(path) ? sw_path_join(path, "tokenizer.json") : sw_strdup(path);
    char *config = sw_path_join(dir, "tokenizer_config.json"), *jinja = sw_path_join(dir, "chat_template.jinja");
    sw_buf a = {0}, b = {0}, c = {0};
    sw_tokenizer *t = NULL;
    if (!sw_read_file(json, &a) && (!sw_is_file(config) || !sw_read_file(config, &b)) && (!sw_is_file(jinja) || !sw_read_file(jinja, &c))) {
        t = sw_tokenizer_from_json(a.at, a.n, b.at, b.n);
        if (!t)
            sw_fail_in("%s", json);
        else if (c.n) {
            free(t->chat_template);
            t->chat_template = sw_strndup(c.at, c.n);
        }
    }
    sw_buf_free(&a);
    sw_buf_free(&b);
    sw_buf_free(&c);
    free(json);
    free(config);
    free(jinja);
    free(dir);
    return t;
}

int64_t sw_tokenizer_size(const sw_tokenizer *t) { return t->size; }
sw_span sw_token_piece(const sw_tokenizer *t, int32_t id) { return id >= 0 && id < t->size ? t->pieces[id] : (sw_span){0}; }
bool sw_token_is_special(const sw_tokenizer *t, int32_t id) { return id >= 0 && id < t->size && t->special[id] == 1; }
int32_t sw_token_id(const sw_tokenizer *t, const char *piece, size_t n) { return (int32_t)sw_map_get(&t->ids, piece, n, -1); }
int32_t sw_tokenizer_bos(const sw_tokenizer *t) { return t->bos; }
int32_t sw_tokenizer_eos(const sw_tokenizer *t) { return t->eos; }
int32_t sw_tokenizer_pad(const sw_tokenizer *t) { return t->pad; }
bool sw_tokenizer_adds_bos(const sw_tokenizer *t) { return t->adds_bos; }
bool sw_tokenizer_adds_eos(const sw_tokenizer *t) { return t->adds_eos; }
const char *sw_tokenizer_chat_template(const sw_tokenizer *t) { return t->chat_template; }

static sw_digest digest(const sw_tokenizer *t, bool all)
{
    sw_buf b = {0};
    int64_t last = t->size;
    /* Filler rows ("[PAD12]") and rows without a token at the end belong to the model's size, not to the vocabulary. */
    while (last > 0 && (!t->pieces[last - 1].at || (t->pieces[last - 1].n > 5 && !memcmp(t->pieces[last - 1].at, "[PAD", 4))))
        last--;
    for (int64_t id = 0; id < last; id++) {
        uint32_t head[2] = {(uint32_t)id, (uint32_t)t->bytes[id].n};
        if (!t->pieces[id].at)
            continue;
        sw_buf_add(&b, head, sizeof head);
        sw_buf_add(&b, t->bytes[id].at, t->bytes[id].n);
    }
    if (all) {
        for (size_t i = 0; i < t->merge_cap; i++)
            if (t->merges[i].left >= 0) {
                /* The table's order is that of its hash, which is the same for equal merges. */
                sw_buf_add(&b, &t->merges[i], sizeof t->merges[i]);
            }
        for (size_t i = 0; i < t->added.n; i++) {
            const sw_added *a = &t->added.at[i];
            sw_buf_printf(&b, "%d%d%d%d%d%d", a->id, a->special, a->lstrip, a->rstrip, a->single_word, a->normalized);
        }
        for (size_t i = 0; i < t->cuts.n; i++)
            sw_buf_printf(&b, "|%d%d%s", t->cuts.at[i].kind, t->cuts.at[i].digits,
                          t->cuts.at[i].kind == SW_CUT_REGEX ? t->cuts.at[i].expression : "");
        sw_buf_printf(&b, "|%d%d%d%d", t->nfc, t->ignore_merges, t->adds_bos, t->adds_eos);
    }
    sw_digest d = sw_digest_bytes(b.at ? b.at : "", b.n);
    sw_buf_free(&b);
    return d;
}

sw_digest sw_tokenizer_digest(const sw_tokenizer *t) { return digest(t, true); }
sw_digest sw_tokenizer_vocab_digest(const sw_tokenizer *t) { return digest(t, false); }

/* ---- decoding */

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
        int need = u[0] >= 0xc2 && u[0] <= 0xdf ? 1 : u[0] >= 0xe0 && u[0] <= 0xef ? 2 : u[0] >= 0xf0 && u[0] <= 0xf4 ? 3 : 0;
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

static void raw_bytes(const sw_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, sw_buf *out)
{
    for (size_t i = 0; i < n; i++) {
        int32_t id = ids[i];
        if (id < 0 || id >= t->size || !t->pieces[id].at || (skip_special && t->special[id] == 1))
            continue;
        sw_buf_add(out, t->bytes[id].at, t->bytes[id].n);
    }
}

int sw_decode(const sw_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, sw_buf *out)
{
    sw_buf b = {0};
    raw_bytes(t, ids, n, skip_special, &b);
    add_lossy(out, b.at ? b.at : "", b.n);
    sw_buf_free(&b);
    return 0;
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

int sw_stream_decode(sw_stream_decoder *d, const sw_tokenizer *t, int32_t id, bool skip_special, sw_buf *out)
{
    SW_PUSH(d->ids, id);
    sw_buf b = {0};
    raw_bytes(t, d->ids.at, d->ids.n, skip_special, &b);
    size_t ready = settled(b.at ? b.at : "", b.n);
    if (ready > d->emitted)
        add_lossy(out, b.at + d->emitted, ready - d->emitted);
    if (ready == b.n) { /* nothing is held back: start afresh, so that the cost stays flat */
        d->ids.n = 0;
        d->emitted = 0;
    } else {
        d->emitted = SW_MAX(d->emitted, ready);
    }
    sw_buf_free(&b);
    return 0;
}

int sw_stream_finish(sw_stream_decoder *d, const sw_tokenizer *t, bool skip_special, sw_buf *out)
{
    sw_buf b = {0};
    raw_bytes(t, d->ids.at, d->ids.n, skip_special, &b);
    if (b.n > d->emitted)
        add_lossy(out, b.at + d->emitted, b.n - d->emitted);
    sw_buf_free(&b);
    free(d->ids.at);
    *d = (sw_stream_decoder){0};
    return 0;
}
