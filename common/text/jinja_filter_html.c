/* Filters for HTML and addresses. */
#include "text/jinja_internal.h"

#include <stdlib.h>
#include <string.h>

static int filter_safe(jrun *r, const jargs *a, jv *out)
{
    if (jinja_one_text(r, "safe", a, out))
        return -1;
    out->flags = JF_MARKUP;
    return 0;
}

static int filter_escape(jrun *r, const jargs *a, jv *out)
{
    jv v;
    return JINJA_BIND("escape", a, 1, &v, "s") || jinja_escape(r, v, out) ? -1 : 0;
}

static int filter_forceescape(jrun *r, const jargs *a, jv *out)
{
    jv v;
    return JINJA_BIND("forceescape", a, 1, &v, "value") || jinja_to_text(r, v, &v) || jinja_escape(r, v, out) ? -1 : 0;
}

/* One entity at s[0..n): its length, and its text appended; 0 where there is none. */
static size_t unescape_entity(sw_buf *b, const char *s, size_t n)
{
    static const struct {
        const char *name, *text;
    } known[] = {{"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}, {"&apos;", "'"}, {"&nbsp;", "\xc2\xa0"}};
    for (size_t i = 0; i < SW_COUNT(known); i++)
        if (n >= strlen(known[i].name) && !memcmp(s, known[i].name, strlen(known[i].name))) {
            sw_buf_puts(b, known[i].text);
            return strlen(known[i].name);
        }
    if (n < 4 || s[1] != '#')
        return 0;
    bool hex = (s[2] | 32) == 'x';
    uint32_t cp = 0;
    size_t at = hex ? 3 : 2;
    for (; at < n && at < 10 && s[at] != ';'; at++) {
        int d = s[at] >= '0' && s[at] <= '9' ? s[at] - '0' : hex && (s[at] | 32) >= 'a' && (s[at] | 32) <= 'f' ? (s[at] | 32) - 'a' + 10 : -1;
        if (d < 0)
            return 0;
        cp = cp * (hex ? 16 : 10) + (uint32_t)d;
    }
    char text[4];
    int len = at < n && s[at] == ';' ? sw_utf8_encode(cp, text) : 0;
    sw_buf_add(b, text, (size_t)len);
    return len ? at + 1 : 0;
}

static int filter_striptags(jrun *r, const jargs *a, jv *out)
{
    jv s;
    if (jinja_one_text(r, "striptags", a, &s))
        return -1;
    sw_buf plain = {0}, b = {0};
    for (size_t at = 0; at < s.n;) {
        const char *open = s.u.s + at, *close = NULL;
        if (*open == '<') {
            bool comment = s.n - at >= 4 && !memcmp(open, "<!--", 4);
            close = comment ? memmem(open, s.n - at, "-->", 3) : memchr(open, '>', s.n - at);
            if (close)
                at = (size_t)(close - s.u.s) + (comment ? 3 : 1);
        }
        if (!close)
            sw_buf_putc(&plain, s.u.s[at++]);
    }
    jv words = jspan(plain.n ? plain.at : "", plain.n);
    bool gap = false;
    for (size_t at = 0; at < words.n;) {
        uint32_t cp = 0;
        int len = sw_utf8_decode(words.u.s + at, words.n - at, &cp);
        size_t n = (size_t)SW_MAX(len, 1);
        if (jinja_is_space(cp)) {
            gap = b.n > 0;
        } else {
            if (gap)
                sw_buf_putc(&b, ' ');
            gap = false;
            size_t entity = cp == '&' ? unescape_entity(&b, words.u.s + at, words.n - at) : 0;
            if (entity)
                n = entity;
            else
                sw_buf_add(&b, words.u.s + at, n);
        }
        at += n;
    }
    sw_buf_free(&plain);
    return jinja_take(r, &b, 0, out);
}

static void quote_url(sw_buf *b, jv s, bool query)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.u.s[i];
        if ((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || strchr("_.-~", c ? c : ' ') || (c == '/' && !query))
            sw_buf_putc(b, (char)c);
        else if (c == ' ' && query)
            sw_buf_putc(b, '+');
        else
            sw_buf_printf(b, "%%%02X", c);
    }
}

static int filter_urlencode(jrun *r, const jargs *a, jv *out)
{
    jv v, text;
    sw_buf b = {0};
    if (JINJA_BIND("urlencode", a, 1, &v, "value"))
        return -1;
    if (v.kind == J_DICT && jinja_find_method("items", 5)->dict(r, v, &(jargs){0}, &v))
        return -1;
    if (v.kind == J_STR || !jinja_iterable(v)) {
        if (jinja_to_text(r, v, &text))
            return -1;
        quote_url(&b, text, false);
        return jinja_take(r, &b, 0, out);
    }
    const jv *items, *pair;
    size_t n, two;
    int bad = jinja_iterate(r, v, &items, &n);
    for (size_t i = 0; i < n && !bad; i++) {
        if (i)
            sw_buf_putc(&b, '&');
        bad = jinja_iterate(r, items[i], &pair, &two);
        if (!bad && two != 2)
            bad = sw_fail("urlencode wants pairs");
        for (size_t k = 0; k < 2 && !bad; k++) {
            bad = jinja_to_text(r, pair[k], &text);
            if (!bad) {
                quote_url(&b, text, true);
                if (!k)
                    sw_buf_putc(&b, '=');
            }
        }
    }
    if (bad) {
        sw_buf_free(&b);
        return -1;
    }
    return jinja_take(r, &b, 0, out);
}

static int filter_xmlattr(jrun *r, const jargs *a, jv *out)
{
    jv p[2], key, value;
    sw_buf b = {0};
    if (JINJA_BIND("xmlattr", a, 1, p, "d", "autospace"))
        return -1;
    if (p[0].kind != J_DICT)
        return sw_fail("xmlattr wants a dict, not %s", jinja_type_name(p[0]));
    int bad = 0;
    for (size_t i = 0; i < p[0].u.dict->n && !bad; i++) {
        jentry e = p[0].u.dict->at[i];
        if (e.value.kind == J_NONE || e.value.kind == J_UNDEFINED)
            continue;
        bad = jinja_to_text(r, e.key, &key) || jinja_escape(r, e.value, &value);
        for (size_t k = 0; k < key.n && !bad; k++)
            if (strchr(" \t\n\f\r/>=", key.u.s[k]))
                bad = sw_fail("xmlattr: a name holds white space, '/', '>' or '='");
        if (bad)
            break;
        if (b.n || !p[1].kind || jinja_truth(p[1]))
            sw_buf_putc(&b, ' ');
        bad = jinja_escape(r, key, &key);
        sw_buf_add(&b, key.u.s, key.n);
        sw_buf_puts(&b, "=\"");
        sw_buf_add(&b, value.u.s, value.n);
        sw_buf_putc(&b, '"');
    }
    if (bad) {
        sw_buf_free(&b);
        return -1;
    }
    return jinja_take(r, &b, 0, out);
}

/* ---- the table */

jfunction jinja_find_html_filter(const char *name, size_t n)
{
    static const jglobal filters[] = {
        {"e", filter_escape}, {"escape", filter_escape}, {"forceescape", filter_forceescape}, {"safe", filter_safe},
        {"striptags", filter_striptags}, {"urlencode", filter_urlencode}, {"urlize", jinja_urlize},
        {"xmlattr", filter_xmlattr},
    };
    for (size_t i = 0; i < SW_COUNT(filters); i++)
        if (strlen(filters[i].name) == n && !memcmp(filters[i].name, name, n))
            return filters[i].fn;
    return NULL;
}
