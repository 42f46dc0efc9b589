/* Filters over texts and numbers. */
#include "text/jinja_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int take(jrun *r, sw_buf *b, int flags, jv *out)
{
    int bad = jinja_copy_text(r, b->n ? b->at : "", b->n, out);
    out->flags = (uint8_t)flags;
    sw_buf_free(b);
    return bad;
}

/* The value as text that stays markup if it is. */
static int soft_text(jrun *r, jv v, jv *out)
{
    if (v.kind != J_STR)
        return jinja_to_text(r, v, out);
    *out = v;
    return 0;
}

static int one_text(jrun *r, const char *who, const jargs *a, jv *out)
{
    jv v;
    return JINJA_BIND(who, a, 1, &v, "s") || soft_text(r, v, out) ? -1 : 0;
}

static int optional_int(const char *who, jv v, int64_t otherwise, int64_t *out)
{
    *out = jis_int(v) ? jinja_index(v) : otherwise;
    if (v.kind == J_MISSING || jis_int(v))
        return 0;
    return v.kind == J_UNDEFINED ? jinja_use_undefined(v) : sw_fail("%s: an int is wanted, not %s", who, jinja_type_name(v));
}

/* ---- case and space */

static int filter_upper(jrun *r, const jargs *a, jv *out)
{
    jv s;
    return one_text(r, "upper", a, &s) || jinja_change_case(r, s, JC_UPPER, out) ? -1 : 0;
}
static int filter_lower(jrun *r, const jargs *a, jv *out)
{
    jv s;
    return one_text(r, "lower", a, &s) || jinja_change_case(r, s, JC_LOWER, out) ? -1 : 0;
}
static int filter_capitalize(jrun *r, const jargs *a, jv *out)
{
    jv s;
    return one_text(r, "capitalize", a, &s) || jinja_change_case(r, s, JC_CAPITALIZE, out) ? -1 : 0;
}

/* Words begin after white space, a dash or an opening bracket (the method `title` begins one after any non-letter). */
static int filter_title(jrun *r, const jargs *a, jv *out)
{
    jv s, word;
    sw_buf b = {0};
    if (one_text(r, "title", a, &s))
        return -1;
    for (size_t at = 0; at < s.n;) {
        size_t end = at;
        bool gap = false;
        while (end < s.n) {
            uint32_t cp = 0;
            int len = sw_utf8_decode(s.u.s + end, s.n - end, &cp);
            gap = jinja_is_space(cp) || (cp < 128 && cp && strchr("-({[<", (int)cp));
            if (gap && end > at)
                break;
            end += (size_t)SW_MAX(len, 1);
            if (gap)
                break;
        }
        if (jinja_change_case(r, jspan(s.u.s + at, end - at), JC_CAPITALIZE, &word)) {
            sw_buf_free(&b);
            return -1;
        }
        sw_buf_add(&b, word.u.s, word.n);
        at = end;
    }
    return take(r, &b, s.flags, out);
}

static int filter_trim(jrun *r, const jargs *a, jv *out)
{
    jv p[2], s;
    if (JINJA_BIND("trim", a, 1, p, "value", "chars") || soft_text(r, p[0], &s))
        return -1;
    *out = jinja_strip(s, p[1].kind == J_STR ? &p[1] : NULL, 3);
    return 0;
}

static int filter_center(jrun *r, const jargs *a, jv *out)
{
    jv p[2], s;
    int64_t width;
    if (JINJA_BIND("center", a, 1, p, "value", "width") || soft_text(r, p[0], &s) || optional_int("center", p[1], 80, &width))
        return -1;
    return jinja_pad(r, s, width, JSTR(" "), 1, 1, out);
}

static int filter_indent(jrun *r, const jargs *a, jv *out)
{
    jv p[4], s, indent;
    if (JINJA_BIND("indent", a, 1, p, "s", "width", "first", "blank") || soft_text(r, p[0], &s))
        return -1;
    if (p[1].kind == J_STR) {
        indent = p[1];
    } else {
        int64_t width;
        if (optional_int("indent", p[1], 4, &width) || jinja_pad(r, JSTR(""), width, JSTR(" "), 0, 1, &indent))
            return -1;
    }
    sw_buf b = {0};
    if (jinja_truth(p[2]))
        sw_buf_add(&b, indent.u.s, indent.n);
    for (size_t at = 0; at <= s.n;) {
        const char *newline = memchr(s.u.s + at, '\n', s.n - at);
        size_t end = newline ? (size_t)(newline - s.u.s) : s.n;
        if (at) {
            sw_buf_putc(&b, '\n');
            if (end > at || jinja_truth(p[3]))
                sw_buf_add(&b, indent.u.s, indent.n);
        }
        sw_buf_add(&b, s.u.s + at, end - at);
        if (b.n > JINJA_MAX_OUTPUT) {
            sw_buf_free(&b);
            return sw_fail("an indented text is too long (more than %d MiB)", JINJA_MAX_OUTPUT >> 20);
        }
        at = end + 1;
    }
    return take(r, &b, s.flags, out);
}

static int filter_wordcount(jrun *r, const jargs *a, jv *out)
{
    jv s;
    int64_t count = 0;
    bool word = false;
    if (one_text(r, "wordcount", a, &s))
        return -1;
    for (size_t at = 0; at < s.n;) {
        uint32_t cp = 0;
        int len = sw_utf8_decode(s.u.s + at, s.n - at, &cp);
        bool letter = cp >= 128 ? !jinja_is_space(cp) : (cp >= '0' && cp <= '9') || cp == '_' || ((cp | 32) >= 'a' && (cp | 32) <= 'z');
        count += letter && !word;
        word = letter;
        at += (size_t)SW_MAX(len, 1);
    }
    *out = jint(count);
    return 0;
}

static int filter_truncate(jrun *r, const jargs *a, jv *out)
{
    jv p[5], s;
    int64_t length, leeway;
    if (JINJA_BIND("truncate", a, 1, p, "s", "length", "killwords", "end", "leeway") || soft_text(r, p[0], &s) ||
        optional_int("truncate", p[1], 255, &length) ||
        optional_int("truncate", p[4].kind == J_NONE ? (jv){0} : p[4], 5, &leeway))
        return -1;
    jv end = p[3].kind == J_STR ? p[3] : JSTR("...");
    int64_t ending = (int64_t)sw_utf8_count(end.u.s, end.n);
    if (length < ending || leeway < 0)
        return sw_fail("truncate: expected length >= %lld and leeway >= 0", (long long)ending);
    *out = s;
    if ((int64_t)sw_utf8_count(s.u.s, s.n) <= length + leeway)
        return 0;
    size_t cut = jinja_offset(s, (size_t)(length - ending));
    if (!jinja_truth(p[2])) {
        const char *space = memrchr(s.u.s, ' ', cut);
        cut = space ? (size_t)(space - s.u.s) : cut;
    }
    return jinja_concat(r, jspan(s.u.s, cut), end, out);
}

/* One line wrapped greedily at white space and after hyphens; a word longer than a line is cut. */
static void wrap_line(sw_buf *b, jv line, size_t width, bool cut_words, bool hyphens, jv newline)
{
    size_t used = 0, pending = 0; /* code points on the line; bytes of white space before the next word */
    bool first = true;
    for (size_t at = 0; at < line.n;) {
        size_t end = at;
        bool space = line.u.s[at] == ' ' || line.u.s[at] == '\t';
        while (end < line.n && (line.u.s[end] == ' ' || line.u.s[end] == '\t') == space) {
            end++;
            if (!space && hyphens && line.u.s[end - 1] == '-' && end - at > 1 && end < line.n && line.u.s[end] != ' ')
                break;
        }
        if (space) {
            pending = end - at;
            if (first && pending <= width) { /* white space that begins the text stays */
                sw_buf_add(b, line.u.s + at, pending);
                used = pending;
                pending = 0;
            }
            first = false;
            at = end;
            continue;
        }
        first = false;
        jv word = jspan(line.u.s + at, end - at);
        size_t n = sw_utf8_count(word.u.s, word.n);
        if (used && used + pending + n > width && !(cut_words && n > width && used + pending < width)) {
            sw_buf_add(b, newline.u.s, newline.n);
            used = pending = 0;
        }
        if (used && pending)
            sw_buf_add(b, line.u.s + at - pending, pending);
        used += used ? pending : 0;
        pending = 0;
        while (cut_words && n > width - SW_MIN(used, width)) {
            size_t room = width - SW_MIN(used, width), bytes = jinja_offset(word, room);
            sw_buf_add(b, word.u.s, bytes);
            sw_buf_add(b, newline.u.s, newline.n);
            word = jspan(word.u.s + bytes, word.n - bytes);
            n -= room;
            used = 0;
        }
        sw_buf_add(b, word.u.s, word.n);
        used += n;
        at = end;
    }
}

static int filter_wordwrap(jrun *r, const jargs *a, jv *out)
{
    jv p[5], s;
    int64_t width;
    if (JINJA_BIND("wordwrap", a, 1, p, "s", "width", "break_long_words", "wrapstring", "break_on_hyphens") ||
        soft_text(r, p[0], &s) || optional_int("wordwrap", p[1], 79, &width))
        return -1;
    if (width < 1)
        return sw_fail("wordwrap: the width must be positive");
    jv newline = p[3].kind == J_STR ? p[3] : JSTR("\n");
    sw_buf b = {0};
    for (size_t at = 0; at < s.n;) {
        const char *end = memchr(s.u.s + at, '\n', s.n - at);
        size_t n = (end ? (size_t)(end - s.u.s) : s.n) - at;
        if (at)
            sw_buf_add(&b, newline.u.s, newline.n);
        wrap_line(&b, jspan(s.u.s + at, n), (size_t)width, !p[2].kind || jinja_truth(p[2]), !p[4].kind || jinja_truth(p[4]), newline);
        at += n + 1;
    }
    return jinja_charge(r, b.n / 16) || take(r, &b, s.flags, out) ? -1 : 0;
}

/* ---- replacing and formatting */

static int filter_replace(jrun *r, const jargs *a, jv *out)
{
    jv p[4];
    int64_t count;
    if (JINJA_BIND("replace", a, 3, p, "s", "old", "new", "count") || jinja_to_text(r, p[0], &p[0]) ||
        jinja_to_text(r, p[1], &p[1]) || jinja_to_text(r, p[2], &p[2]) ||
        optional_int("replace", p[3].kind == J_NONE ? (jv){0} : p[3], -1, &count))
        return -1;
    return jinja_replace(r, p[0], p[1], p[2], count, out);
}

static int filter_format(jrun *r, const jargs *a, jv *out)
{
    jv format, args;
    if (jinja_to_text(r, a->at[0], &format))
        return -1;
    if (a->n_kw && a->n > 1)
        return sw_fail("can't handle positional and keyword arguments at the same time");
    args = jlist(J_TUPLE, a->at + 1, a->n - 1);
    if (a->n_kw) {
        args = jinja_dict_new(r, a->n_kw);
        if (!args.kind)
            return -1;
        for (size_t k = 0; k < a->n_kw; k++)
            if (jinja_dict_put(r, args.u.dict, jspan(a->kw[k].name.at, a->kw[k].name.n), a->kw[k].value))
                return -1;
    }
    return jinja_percent(r, format, args, out);
}

static int filter_string(jrun *r, const jargs *a, jv *out) { return one_text(r, "string", a, out); }

static int filter_safe(jrun *r, const jargs *a, jv *out)
{
    if (one_text(r, "safe", a, out))
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
    if (one_text(r, "striptags", a, &s))
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
    return take(r, &b, 0, out);
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
        return take(r, &b, 0, out);
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
    return take(r, &b, 0, out);
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
    return take(r, &b, 0, out);
}

/* ---- numbers */

/* The number that a text spells, white space and single underscores allowed, as Python's int() and float() do. */
static bool text_number(jv v, char *digits, size_t size)
{
    v = jinja_strip(v, NULL, 3);
    size_t k = 0;
    for (size_t i = 0; i < v.n; i++) {
        char c = v.u.s[i];
        if (c == '_' && i && i + 1 < v.n && v.u.s[i - 1] != '_')
            continue;
        if (k + 1 == size || !c || (unsigned char)c <= ' ')
            return false;
        digits[k++] = c;
    }
    digits[k] = 0;
    return k > 0;
}

static bool text_to_float(jv v, double *out)
{
    char digits[400], *end;
    if (!text_number(v, digits, sizeof digits) || strpbrk(digits, "xXpP("))
        return false;
    *out = strtod(digits, &end);
    return !*end;
}

static bool text_to_int(jv v, int base, __int128 *out)
{
    char digits[400];
    if (!text_number(v, digits, sizeof digits))
        return false;
    const char *at = digits;
    bool negative = *at == '-';
    at += *at == '-' || *at == '+';
    char mark = base == 16 ? 'x' : base == 8 ? 'o' : base == 2 ? 'b' : 0;
    if (mark && at[0] == '0' && (at[1] | 32) == mark)
        at += 2;
    *out = 0;
    if (!*at)
        return false;
    for (; *at; at++) {
        int d = *at >= '0' && *at <= '9' ? *at - '0' : (*at | 32) >= 'a' && (*at | 32) <= 'z' ? (*at | 32) - 'a' + 10 : 99;
        if (d >= base || __builtin_mul_overflow(*out, base, out) || __builtin_add_overflow(*out, d, out))
            return false;
    }
    *out = negative ? -*out : *out;
    return true;
}

static int filter_int(jrun *r, const jargs *a, jv *out)
{
    jv p[3];
    int64_t base;
    __int128 i;
    double f;
    (void)r;
    if (JINJA_BIND("int", a, 1, p, "value", "default", "base") || optional_int("int", p[2], 10, &base))
        return -1;
    *out = p[1].kind ? p[1] : jint(0);
    if (base < 2 || base > 36)
        return sw_fail("int() base must be >= 2 and <= 36");
    if (p[0].kind == J_UNDEFINED)
        return jinja_use_undefined(p[0]);
    if (jis_int(p[0]))
        *out = jinja_from_int(jinja_int(p[0]));
    else if (p[0].kind == J_FLOAT && fabs(p[0].u.f) < 1e38)
        *out = jinja_from_int((__int128)p[0].u.f);
    else if (p[0].kind == J_STR && text_to_int(p[0], (int)base, &i))
        *out = jinja_from_int(i);
    else if (p[0].kind == J_STR && text_to_float(p[0], &f) && fabs(f) < 1e38)
        *out = jinja_from_int((__int128)f);
    return 0;
}

static int filter_float(jrun *r, const jargs *a, jv *out)
{
    jv p[2];
    double f;
    (void)r;
    if (JINJA_BIND("float", a, 1, p, "value", "default"))
        return -1;
    if (p[0].kind == J_UNDEFINED)
        return jinja_use_undefined(p[0]);
    *out = p[1].kind ? p[1] : jfloat(0);
    if (jis_number(p[0]))
        *out = jfloat(jinja_double(p[0]));
    else if (p[0].kind == J_STR && text_to_float(p[0], &f))
        *out = jfloat(f);
    return 0;
}

static int filter_abs(jrun *r, const jargs *a, jv *out)
{
    jv v;
    (void)r;
    if (JINJA_BIND("abs", a, 1, &v, "x"))
        return -1;
    if (!jis_number(v))
        return v.kind == J_UNDEFINED ? jinja_use_undefined(v) : sw_fail("bad operand type for abs(): '%s'", jinja_type_name(v));
    *out = jis_int(v) ? jinja_from_int(jinja_int(v)) : v;
    return (v.kind == J_FLOAT ? signbit(v.u.f) : jinja_int(v) < 0) ? jinja_negate(*out, out) : 0;
}

static int filter_round(jrun *r, const jargs *a, jv *out)
{
    jv p[3];
    int64_t precision;
    (void)r;
    if (JINJA_BIND("round", a, 1, p, "value", "precision", "method") || optional_int("round", p[1], 0, &precision))
        return -1;
    if (!jis_number(p[0]))
        return p[0].kind == J_UNDEFINED ? jinja_use_undefined(p[0]) : sw_fail("type %s doesn't define __round__", jinja_type_name(p[0]));
    double f = jinja_double(p[0]);
    bool up = p[2].kind && JTEXT_IS(p[2], "ceil"), down = p[2].kind && JTEXT_IS(p[2], "floor");
    if (p[2].kind && !up && !down && !JTEXT_IS(p[2], "common"))
        return sw_fail("method must be common, ceil or floor");
    if (precision < -300 || precision > 300)
        return sw_fail("round: a precision from -300 to 300 is wanted");
    if (up || down) {
        double scale = pow(10, (double)precision);
        *out = jfloat((up ? ceil(f * scale) : floor(f * scale)) / scale);
    } else if (jis_int(p[0]) && precision >= 0) {
        *out = jinja_from_int(jinja_int(p[0]));
    } else if (precision >= 0) { /* the decimal text is rounded half to even on the exact value */
        char text[1000];
        snprintf(text, sizeof text, "%.*f", (int)precision, f);
        *out = jfloat(isfinite(f) ? strtod(text, NULL) : f);
    } else {
        double scale = pow(10, (double)-precision);
        f = nearbyint(f / scale) * scale;
        *out = jis_int(p[0]) && fabs(f) < 1e38 ? jinja_from_int((__int128)f) : jfloat(f);
    }
    return 0;
}

static int filter_filesizeformat(jrun *r, const jargs *a, jv *out)
{
    jv p[2], number;
    if (JINJA_BIND("filesizeformat", a, 1, p, "value", "binary") || filter_float(r, &(jargs){p, 1, NULL, 0}, &number))
        return -1;
    bool binary = jinja_truth(p[1]);
    double bytes = jinja_double(number), base = binary ? 1024 : 1000, unit = base;
    static const char letters[] = "kMGTPEZY", upper[] = "KMGTPEZY";
    char text[400];
    if (bytes == 1) {
        snprintf(text, sizeof text, "1 Byte");
    } else if (bytes < base) {
        snprintf(text, sizeof text, "%.0f Bytes", trunc(bytes));
    } else {
        int i = 0;
        for (unit *= base; i < 7 && bytes >= unit; i++)
            unit *= base;
        snprintf(text, sizeof text, "%.1f %c%s", base * bytes / unit, binary ? upper[i] : letters[i], binary ? "iB" : "B");
    }
    return jinja_copy_text(r, text, strlen(text), out);
}

/* ---- the table */

jfunction jinja_find_text_filter(const char *name, size_t n)
{
    static const jglobal filters[] = {
        {"abs", filter_abs}, {"capitalize", filter_capitalize}, {"center", filter_center}, {"e", filter_escape},
        {"escape", filter_escape}, {"filesizeformat", filter_filesizeformat}, {"float", filter_float},
        {"forceescape", filter_forceescape}, {"format", filter_format}, {"indent", filter_indent}, {"int", filter_int},
        {"lower", filter_lower}, {"replace", filter_replace}, {"round", filter_round}, {"safe", filter_safe},
        {"string", filter_string}, {"striptags", filter_striptags}, {"title", filter_title}, {"trim", filter_trim},
        {"truncate", filter_truncate}, {"upper", filter_upper}, {"urlencode", filter_urlencode},
        {"wordcount", filter_wordcount}, {"wordwrap", filter_wordwrap}, {"xmlattr", filter_xmlattr},
    };
    for (size_t i = 0; i < SW_COUNT(filters); i++)
        if (strlen(filters[i].name) == n && !memcmp(filters[i].name, name, n))
            return filters[i].fn;
    return NULL;
}
