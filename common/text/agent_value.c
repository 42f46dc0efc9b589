#include "text/agent_value.h"

#include "base/json.h"
#include "base/memory.h"

#include <string.h>

enum { AGENT_DEPTH = 60 };

/* A reader that writes what it reads as JSON text. */
typedef struct reader {
    const char *at, *end;
    bool gemma; /* bare keys, <|"|> as quote */
    sw_buf out;
} reader;

#define GEMMA_QUOTE "<|\"|>"

static void skip_space(reader *r)
{
    while (r->at < r->end && strchr(" \t\r\n", *r->at) && *r->at)
        r->at++;
}

static bool take(reader *r, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(r->end - r->at) < n || memcmp(r->at, word, n))
        return false;
    r->at += n;
    return true;
}

static bool take_hex(reader *r, int digits, uint32_t *cp)
{
    *cp = 0;
    if (r->end - r->at < digits)
        return false;
    for (int i = 0; i < digits; i++, r->at++) {
        char c = *r->at;
        int v = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (v < 0)
            return false;
        *cp = *cp * 16 + (uint32_t)v;
    }
    return true;
}

/* After a backslash. */
static bool take_escape(reader *r, sw_buf *text)
{
    static const char from[] = "nrtbfav0\\'\"/", to[] = "\n\r\t\b\f\a\v\0\\'\"/";
    if (r->at == r->end)
        return false;
    char c = *r->at++, out[4];
    uint32_t cp, low;
    if (c == 'u' || c == 'x') {
        if (!take_hex(r, c == 'u' ? 4 : 2, &cp))
            return false;
        if (cp >= 0xd800 && cp < 0xdc00 && take(r, "\\u") && take_hex(r, 4, &low) && low >= 0xdc00 && low < 0xe000)
            cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
        int n = sw_utf8_encode(cp, out);
        sw_buf_add(text, n ? out : "\xef\xbf\xbd", n ? (size_t)n : 3);
        return true;
    }
    const char *hit = c ? memchr(from, c, sizeof from - 1) : NULL;
    if (hit)
        sw_buf_putc(text, to[hit - from]);
    else if (c != '\n') { /* a broken line is joined; what is no escape stays as it is */
        sw_buf_putc(text, '\\');
        sw_buf_putc(text, c);
    }
    return true;
}

static bool read_text(reader *r, char quote)
{
    sw_buf text = {0};
    bool good = false;
    while (r->at < r->end && !good) {
        char c = *r->at++;
        if (c == quote)
            good = true;
        else if (c != '\\')
            sw_buf_putc(&text, c);
        else if (!take_escape(r, &text))
            break;
    }
    if (good)
        sw_buf_json(&r->out, text.n ? text.at : "", text.n);
    sw_buf_free(&text);
    return good;
}

static bool read_gemma_text(reader *r)
{
    const char *close = memmem(r->at, (size_t)(r->end - r->at), GEMMA_QUOTE, sizeof GEMMA_QUOTE - 1);
    if (!close)
        return false;
    sw_buf_json(&r->out, r->at, (size_t)(close - r->at));
    r->at = close + sizeof GEMMA_QUOTE - 1;
    return true;
}

static bool read_number(reader *r)
{
    const char *from = r->at;
    r->at += r->at < r->end && (*r->at == '-' || *r->at == '+');
    const char *digits = r->at;
    while (r->at < r->end && *r->at && strchr("0123456789.eE+-", *r->at))
        r->at++;
    size_t n = (size_t)(r->at - from);
    if (r->at == digits || n > 400)
        return false;
    if (*from == '+')
        from++, n--;
    sw_buf_add(&r->out, from, n); /* whether it is a number, the JSON parser will tell */
    return true;
}

static bool read_key(reader *r)
{
    const char *from = r->at;
    while (r->at < r->end && *r->at != ':' && *r->at != ',' && *r->at != '}')
        r->at++;
    sw_buf_json(&r->out, from, (size_t)(r->at - from));
    return r->at > from;
}

static bool read_value(reader *r, int depth);

/* Items up to `close`; pairs of an object. */
static bool read_items(reader *r, char close, bool pairs, int depth)
{
    sw_buf_putc(&r->out, pairs ? '{' : '[');
    for (bool first = true;; first = false) {
        skip_space(r);
        if (r->at < r->end && *r->at == close) {
            r->at++;
            break;
        }
        if (!first)
            sw_buf_putc(&r->out, ',');
        if (pairs) {
            char c = r->at < r->end ? *r->at : 0;
            bool quoted = c == '"' || c == '\'' || (r->gemma && c == '<');
            if (!(quoted ? read_value(r, depth + 1) : r->gemma && read_key(r)))
                return false;
            skip_space(r);
            if (!take(r, ":"))
                return false;
            sw_buf_putc(&r->out, ':');
        }
        if (!read_value(r, depth + 1))
            return false;
        skip_space(r);
        if (!take(r, ",") && !(r->at < r->end && *r->at == close))
            return false;
    }
    sw_buf_putc(&r->out, pairs ? '}' : ']');
    return true;
}

static bool read_value(reader *r, int depth)
{
    static const char *const words[][2] = {{"true", "true"},   {"True", "true"}, {"false", "false"},
                                           {"False", "false"}, {"null", "null"}, {"None", "null"}};
    skip_space(r);
    if (r->at == r->end || depth > AGENT_DEPTH)
        return false;
    char c = *r->at;
    if (r->gemma && take(r, GEMMA_QUOTE))
        return read_gemma_text(r);
    if (c == '"' || c == '\'' || c == '{' || c == '[' || c == '(')
        r->at++;
    switch (c) {
    case '"':
    case '\'': return read_text(r, c);
    case '{': return read_items(r, '}', true, depth);
    case '[': return read_items(r, ']', false, depth);
    case '(': return read_items(r, ')', false, depth);
    }
    for (size_t i = 0; i < SW_COUNT(words); i++)
        if (take(r, words[i][0])) {
            sw_buf_puts(&r->out, words[i][1]);
            return true;
        }
    return read_number(r);
}

static cJSON *finish(reader *r, bool good)
{
    cJSON *v = good && r->out.n ? sw_json_parse(r->out.at, r->out.n) : NULL;
    if (!v)
        sw_error_clear(); /* it is a text then, which is no error */
    sw_buf_free(&r->out);
    return v;
}

cJSON *agent_value_prefix(const char *text, size_t n, size_t *used)
{
    reader r = {.at = text, .end = text + n};
    bool good = read_value(&r, 0);
    *used = (size_t)(r.at - text);
    return finish(&r, good);
}

cJSON *agent_value(const char *text, size_t n)
{
    reader r = {.at = text, .end = text + n};
    bool good = read_value(&r, 0);
    skip_space(&r);
    return finish(&r, good && r.at == r.end);
}

cJSON *agent_value_gemma(const char *text, size_t n)
{
    reader r = {.at = text, .end = text + n, .gemma = true};
    return finish(&r, read_value(&r, 0));
}

/* ---- nested tags */

#define NAMESPACE "]<]minimax[>["

/* The next tag at or after at: its name between < and >. Returns where it begins, NULL where there is none. */
static const char *next_tag(const char *at, const char *end, sw_span *name, const char **after)
{
    const size_t n = sizeof NAMESPACE - 1;
    const char *hit = (size_t)(end - at) > n ? memmem(at, (size_t)(end - at), NAMESPACE "<", n + 1) : NULL;
    const char *close = hit ? memchr(hit + n + 1, '>', (size_t)(end - hit) - n - 1) : NULL;
    if (!close)
        return NULL;
    *name = (sw_span){hit + n + 1, (size_t)(close - hit) - n - 1};
    *after = close + 1;
    return hit;
}

static bool is_name(sw_span a, const char *b, size_t n) { return a.n == n && !memcmp(a.at, b, n); }

/* One element's inside, up to its closing tag: appended as a JSON value. Returns where its closing tag ends. */
static const char *read_element(sw_buf *out, const char *at, const char *end, int depth)
{
    sw_span name;
    const char *after, *tag = next_tag(at, end, &name, &after);
    if (!tag || depth > AGENT_DEPTH || (name.n && *name.at == '/')) { /* text alone */
        const char *stop = tag ? tag : end;
        cJSON *v = agent_value(at, (size_t)(stop - at));
        if (v && !cJSON_IsString(v))
            sw_json_print(out, v);
        else
            sw_buf_json(out, at, (size_t)(stop - at));
        cJSON_Delete(v);
        return tag && name.n && *name.at == '/' ? after : end;
    }
    bool list = is_name(name, "item", 4);
    sw_buf_putc(out, list ? '[' : '{');
    for (bool first = true; tag && !(name.n && *name.at == '/'); first = false) {
        if (!first)
            sw_buf_putc(out, ',');
        if (!list) {
            sw_buf_json(out, name.at, name.n);
            sw_buf_putc(out, ':');
        }
        at = read_element(out, after, end, depth + 1);
        tag = next_tag(at, end, &name, &after);
    }
    sw_buf_putc(out, list ? ']' : '}');
    return tag ? after : end;
}

cJSON *agent_value_minimax(const char *text, size_t n)
{
    reader r = {.at = text, .end = text + n};
    sw_span name;
    const char *after;
    if (next_tag(text, text + n, &name, &after))
        read_element(&r.out, text, text + n, 0);
    else
        sw_buf_puts(&r.out, "{}");
    cJSON *v = finish(&r, true);
    if (cJSON_IsObject(v))
        return v;
    cJSON_Delete(v);
    return cJSON_CreateObject();
}
