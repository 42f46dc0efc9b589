/* Values as text: str() and repr() of Python, and tojson. */
#include "text/jinja_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void jinja_print_int(sw_buf *b, __int128 i)
{
    char text[48], *at = text + sizeof text;
    unsigned __int128 u = i < 0 ? -(unsigned __int128)i : (unsigned __int128)i;
    do
        *--at = (char)('0' + (int)(u % 10));
    while (u /= 10);
    if (i < 0)
        *--at = '-';
    sw_buf_add(b, at, (size_t)(text + sizeof text - at));
}

/* The fewest digits that read back the same; an exponent below 1e-4 and from 1e16. */
void jinja_print_float(sw_buf *b, double f)
{
    if (isnan(f) || isinf(f)) {
        sw_buf_puts(b, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    char text[64];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*e", digits - 1, f);
        if (strtod(text, NULL) == f)
            break;
    }
    char *e = strchr(text, 'e');
    int exponent = atoi(e + 1), negative = text[0] == '-';
    char digits[24];
    int n = 0;
    for (char *c = text + negative; c < e; c++)
        if (*c != '.')
            digits[n++] = *c;
    if (negative)
        sw_buf_putc(b, '-');
    if (exponent < -4 || exponent >= 16) {
        sw_buf_putc(b, digits[0]);
        if (n > 1) {
            sw_buf_putc(b, '.');
            sw_buf_add(b, digits + 1, (size_t)n - 1);
        }
        sw_buf_printf(b, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (exponent < 0) {
        sw_buf_puts(b, "0.");
        for (int i = -1; i > exponent; i--)
            sw_buf_putc(b, '0');
        sw_buf_add(b, digits, (size_t)n);
        return;
    }
    for (int i = 0; i <= exponent || i < n; i++) {
        if (i == exponent + 1)
            sw_buf_putc(b, '.');
        sw_buf_putc(b, i < n ? digits[i] : '0');
    }
    if (n <= exponent + 1)
        sw_buf_puts(b, ".0");
}

static bool printable(uint32_t cp)
{
    if (cp < 127)
        return cp >= 32;
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return !(c == UTF8PROC_CATEGORY_CN || c >= UTF8PROC_CATEGORY_ZS);
}

static void repr_text(sw_buf *b, const char *s, size_t n)
{
    char quote = memchr(s, '\'', n) && !memchr(s, '"', n) ? '"' : '\'';
    sw_buf_putc(b, quote);
    for (size_t i = 0; i < n;) {
        uint32_t cp = (unsigned char)s[i];
        int len = sw_utf8_decode(s + i, n - i, &cp);
        if (!len)
            len = 1;
        if (cp == (unsigned char)quote || cp == '\\')
            sw_buf_printf(b, "\\%c", (int)cp);
        else if (cp == '\n' || cp == '\r' || cp == '\t')
            sw_buf_puts(b, cp == '\n' ? "\\n" : cp == '\r' ? "\\r" : "\\t");
        else if (printable(cp))
            sw_buf_add(b, s + i, (size_t)len);
        else
            sw_buf_printf(b, cp < 256 ? "\\x%02x" : cp < 65536 ? "\\u%04x" : "\\U%08x", cp);
        i += (size_t)len;
    }
    sw_buf_putc(b, quote);
}

static int enter(jrun *r, const sw_buf *b)
{
    if (++r->depth > JINJA_MAX_DEPTH) {
        r->depth--;
        return sw_fail("values are nested too deeply to be written");
    }
    if (b->n > JINJA_MAX_OUTPUT)
        return sw_fail("a value's text is too long (more than %d MiB)", JINJA_MAX_OUTPUT >> 20);
    return jinja_charge(r, 1);
}

static int repr_items(jrun *r, sw_buf *b, const jv *items, size_t n, const char *open, const char *close)
{
    sw_buf_puts(b, open);
    for (size_t i = 0; i < n; i++) {
        if (i)
            sw_buf_puts(b, ", ");
        if (jinja_repr(r, b, items[i]))
            return -1;
    }
    sw_buf_puts(b, close);
    return 0;
}

static int repr_dict(jrun *r, sw_buf *b, const jdict *d)
{
    sw_buf_putc(b, '{');
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            sw_buf_puts(b, ", ");
        if (jinja_repr(r, b, d->at[i].key))
            return -1;
        sw_buf_puts(b, ": ");
        if (jinja_repr(r, b, d->at[i].value))
            return -1;
    }
    sw_buf_putc(b, '}');
    return 0;
}

static int repr_view(jrun *r, sw_buf *b, jv v)
{
    if (v.flags != JF_RANGE)
        return repr_items(r, b, v.u.items, v.n,
                          v.flags == JF_KEYS     ? "dict_keys(["
                          : v.flags == JF_VALUES ? "dict_values(["
                                                 : "dict_items([",
                          "])");
    const jv *of = v.u.items - 3;
    return repr_items(r, b, of, of[2].u.i == 1 ? 2 : 3, "range(", ")");
}

int jinja_repr(jrun *r, sw_buf *b, jv v)
{
    if (enter(r, b))
        return -1;
    int bad = 0;
    switch ((jkind)v.kind) {
    case J_STR:
        if (v.flags & JF_MARKUP)
            sw_buf_puts(b, "Markup(");
        repr_text(b, v.u.s, v.n);
        if (v.flags & JF_MARKUP)
            sw_buf_putc(b, ')');
        bad = jinja_charge(r, v.n / 16);
        break;
    case J_LIST: bad = repr_items(r, b, v.u.items, v.n, "[", "]"); break;
    case J_TUPLE: bad = repr_items(r, b, v.u.items, v.n, "(", v.n == 1 ? ",)" : ")"); break;
    case J_VIEW: bad = repr_view(r, b, v); break;
    case J_DICT: bad = repr_dict(r, b, v.u.dict); break;
    case J_UNDEFINED: sw_buf_puts(b, "Undefined"); break;
    default: bad = jinja_print(r, b, v);
    }
    r->depth--;
    return bad;
}

int jinja_print(jrun *r, sw_buf *b, jv v)
{
    switch ((jkind)v.kind) {
    case J_MISSING:
    case J_UNDEFINED: return 0;
    case J_NONE: sw_buf_puts(b, "None"); return 0;
    case J_BOOL: sw_buf_puts(b, v.u.b ? "True" : "False"); return 0;
    case J_INT: jinja_print_int(b, jinja_int(v)); return 0;
    case J_FLOAT: jinja_print_float(b, v.u.f); return 0;
    case J_STR: sw_buf_add(b, v.u.s, v.n); return 0;
    case J_LIST:
    case J_TUPLE:
    case J_VIEW:
    case J_DICT: return jinja_repr(r, b, v);
    case J_ITER: sw_buf_puts(b, "<generator object>"); return 0;
    case J_NAMESPACE:
        sw_buf_puts(b, "<Namespace ");
        if (enter(r, b) || repr_dict(r, b, v.u.dict))
            return -1;
        r->depth--;
        sw_buf_putc(b, '>');
        return 0;
    case J_MACRO: sw_buf_puts(b, "<Macro "); repr_text(b, v.u.macro->name.u.s, v.u.macro->name.n); sw_buf_putc(b, '>'); return 0;
    case J_FUNCTION: sw_buf_printf(b, "<function %s>", v.u.function->name); return 0;
    case J_METHOD: sw_buf_printf(b, "<built-in method %s>", v.u.method->row->name); return 0;
    case J_LOOP: sw_buf_printf(b, "<LoopContext %zu/%zu>", v.u.loop->i + 1, v.u.loop->n); return 0;
    case J_CYCLER: sw_buf_puts(b, "<Cycler>"); return 0;
    case J_JOINER: sw_buf_puts(b, "<Joiner>"); return 0;
    }
    return 0;
}

int jinja_copy_text(jrun *r, const char *s, size_t n, jv *out)
{
    char *to = jinja_text(r, n);
    if (!to)
        return -1;
    memcpy(to, s, n);
    *out = jspan(to, n);
    return 0;
}

int jinja_to_text(jrun *r, jv v, jv *out)
{
    if (v.kind == J_STR) {
        *out = jspan(v.u.s, v.n);
        return 0;
    }
    sw_buf b = {0};
    int bad = jinja_print(r, &b, v) || jinja_copy_text(r, b.n ? b.at : "", b.n, out);
    sw_buf_free(&b);
    return bad ? -1 : 0;
}

int jinja_escape(jrun *r, jv v, jv *out)
{
    if (v.kind == J_STR && v.flags & JF_MARKUP) {
        *out = v;
        return 0;
    }
    jv text;
    if (jinja_to_text(r, v, &text))
        return -1;
    sw_buf b = {0};
    for (size_t i = 0; i < text.n; i++) {
        char c = text.u.s[i];
        const char *with = c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '"' ? "&#34;" : c == '\'' ? "&#39;" : NULL;
        if (with)
            sw_buf_puts(&b, with);
        else
            sw_buf_putc(&b, c);
    }
    int bad = jinja_copy_text(r, b.n ? b.at : "", b.n, out);
    out->flags = JF_MARKUP;
    sw_buf_free(&b);
    return bad;
}

/* ---- tojson: json.dumps without the escapes for HTML */

typedef struct writer {
    jrun *r;
    sw_buf *b;
    bool ascii, sort;
    int depth;
    jv indent; /* text of one level, or NONE */
    jv item, key; /* separators */
} writer;

static void json_text(writer *w, const char *s, size_t n)
{
    sw_buf_putc(w->b, '"');
    for (size_t i = 0; i < n;) {
        size_t plain = i;
        while (plain < n && (unsigned char)s[plain] >= 32 && s[plain] != '"' && s[plain] != '\\' &&
               (!w->ascii || (unsigned char)s[plain] < 127))
            plain++;
        sw_buf_add(w->b, s + i, plain - i);
        if ((i = plain) == n)
            break;
        static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
        const char *known = memchr(from, s[i], sizeof from - 1);
        uint32_t cp = (unsigned char)s[i];
        int len = sw_utf8_decode(s + i, n - i, &cp);
        if (known)
            sw_buf_printf(w->b, "\\%c", to[known - from]);
        else if (cp < 0x10000)
            sw_buf_printf(w->b, "\\u%04x", cp);
        else
            sw_buf_printf(w->b, "\\u%04x\\u%04x", 0xd800 + ((cp - 0x10000) >> 10), 0xdc00 + ((cp - 0x10000) & 0x3ff));
        i += (size_t)SW_MAX(len, 1);
    }
    sw_buf_putc(w->b, '"');
}

static void json_newline(writer *w)
{
    if (w->indent.kind != J_STR)
        return;
    sw_buf_putc(w->b, '\n');
    for (int i = 0; i < w->depth; i++)
        sw_buf_add(w->b, w->indent.u.s, w->indent.n);
}

static int json_value(writer *w, jv v);

static int json_list(writer *w, jv v)
{
    sw_buf_putc(w->b, '[');
    w->depth++;
    for (size_t i = 0; i < v.n; i++) {
        if (i)
            sw_buf_add(w->b, w->item.u.s, w->item.n);
        json_newline(w);
        if (json_value(w, v.u.items[i]))
            return -1;
    }
    w->depth--;
    if (v.n)
        json_newline(w);
    sw_buf_putc(w->b, ']');
    return 0;
}

static void json_float(sw_buf *b, double f)
{
    if (isnan(f) || isinf(f))
        sw_buf_puts(b, isnan(f) ? "NaN" : f < 0 ? "-Infinity" : "Infinity");
    else
        jinja_print_float(b, f);
}

static int json_key(writer *w, jv key)
{
    sw_buf text = {0};
    switch ((jkind)key.kind) {
    case J_STR: json_text(w, key.u.s, key.n); return 0;
    case J_NONE: sw_buf_puts(w->b, "\"null\""); return 0;
    case J_BOOL: sw_buf_puts(w->b, key.u.b ? "\"true\"" : "\"false\""); return 0;
    case J_INT: jinja_print_int(&text, jinja_int(key)); break;
    case J_FLOAT: json_float(&text, key.u.f); break;
    default: return sw_fail("keys must be str, int, float, bool or None, not %s", jinja_type_name(key));
    }
    json_text(w, text.at, text.n);
    sw_buf_free(&text);
    return 0;
}

static int json_dict(writer *w, const jdict *d)
{
    const jentry **order = jinja_alloc(w->r, d->n * sizeof *order);
    if (!order)
        return -1;
    for (size_t i = 0; i < d->n; i++)
        order[i] = &d->at[i];
    for (size_t i = 1; w->sort && i < d->n; i++) { /* few keys: insertion sort, charged */
        size_t k = i;
        for (int cmp = -1; k; k--) {
            if (jinja_charge(w->r, 1) || jinja_compare(w->r, d->at[i].key, order[k - 1]->key, "<", &cmp))
                return -1;
            if (cmp >= 0)
                break;
            order[k] = order[k - 1];
        }
        order[k] = &d->at[i];
    }
    sw_buf_putc(w->b, '{');
    w->depth++;
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            sw_buf_add(w->b, w->item.u.s, w->item.n);
        json_newline(w);
        if (json_key(w, order[i]->key))
            return -1;
        sw_buf_add(w->b, w->key.u.s, w->key.n);
        if (json_value(w, order[i]->value))
            return -1;
    }
    w->depth--;
    if (d->n)
        json_newline(w);
    sw_buf_putc(w->b, '}');
    return 0;
}

static int json_value(writer *w, jv v)
{
    if (enter(w->r, w->b))
        return -1;
    int bad = 0;
    switch ((jkind)v.kind) {
    case J_NONE: sw_buf_puts(w->b, "null"); break;
    case J_BOOL: sw_buf_puts(w->b, v.u.b ? "true" : "false"); break;
    case J_INT: jinja_print_int(w->b, jinja_int(v)); break;
    case J_FLOAT: json_float(w->b, v.u.f); break;
    case J_STR:
        json_text(w, v.u.s, v.n);
        bad = jinja_charge(w->r, v.n / 16);
        break;
    case J_LIST:
    case J_TUPLE: bad = json_list(w, v); break;
    case J_DICT: bad = json_dict(w, v.u.dict); break;
    default: bad = sw_fail("Object of type %s is not JSON serializable", jinja_type_name(v));
    }
    w->r->depth--;
    return bad;
}

int jinja_tojson(jrun *r, const jargs *a, jv *out)
{
    jv p[5];
    if (JINJA_BIND("tojson", a, 1, p, "value", "ensure_ascii", "indent", "separators", "sort_keys"))
        return -1;
    sw_buf b = {0};
    writer w = {.r = r, .b = &b, .ascii = jinja_truth(p[1]), .sort = jinja_truth(p[4]), .key = JSTR(": ")};
    w.item = p[2].kind == J_STR || jis_int(p[2]) ? JSTR(",") : JSTR(", ");
    w.indent = p[2].kind == J_STR ? p[2] : J_NONE_V;
    if (jis_int(p[2])) {
        int64_t n = jinja_index(p[2]);
        char *spaces = jinja_text(r, (size_t)SW_MAX(0, SW_MIN(n, 1000)));
        if (!spaces)
            return -1;
        w.indent = jspan(spaces, (size_t)SW_MAX(0, SW_MIN(n, 1000)));
        memset(spaces, ' ', w.indent.n);
    }
    if (p[3].kind == J_TUPLE || p[3].kind == J_LIST) {
        if (p[3].n != 2 || p[3].u.items[0].kind != J_STR || p[3].u.items[1].kind != J_STR)
            return sw_fail("tojson: separators are two strings");
        w.item = p[3].u.items[0];
        w.key = p[3].u.items[1];
    }
    int bad = json_value(&w, p[0]) || jinja_copy_text(r, b.at, b.n, out);
    sw_buf_free(&b);
    return bad ? -1 : 0;
}
