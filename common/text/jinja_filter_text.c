/* Filters over texts. */
#include "text/jinja_internal.h"

#include <stdlib.h>
#include <string.h>

int jinja_take(jrun *r, sw_buf *b, int flags, jv *out)
{
    int bad = jinja_copy_text(r, b->n ? b->at : "", b->n, out);
    out->flags = (uint8_t)flags;
    sw_buf_free(b);
    return bad;
}

/* The value as text that stays markup if it is. */
int jinja_soft_text(jrun *r, jv v, jv *out)
{
    if (v.kind != J_STR)
        return jinja_to_text(r, v, out);
    *out = v;
    return 0;
}

int jinja_one_text(jrun *r, const char *who, const jargs *a, jv *out)
{
    jv v;
    return JINJA_BIND(who, a, 1, &v, "s") || jinja_soft_text(r, v, out) ? -1 : 0;
}

/* Of those filters that take nothing but text, as Python's len() and splitlines() are asked. */
static int given_text(const char *who, jv v, jv *out)
{
    *out = v;
    if (v.kind == J_STR)
        return 0;
    return v.kind == J_UNDEFINED ? jinja_use_undefined(v) : sw_fail("%s wants a str, not %s", who, jinja_type_name(v));
}

int jinja_optional_int(const char *who, jv v, int64_t otherwise, int64_t *out)
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
    return jinja_one_text(r, "upper", a, &s) || jinja_change_case(r, s, JC_UPPER, out) ? -1 : 0;
}
static int filter_lower(jrun *r, const jargs *a, jv *out)
{
    jv s;
    return jinja_one_text(r, "lower", a, &s) || jinja_change_case(r, s, JC_LOWER, out) ? -1 : 0;
}
static int filter_capitalize(jrun *r, const jargs *a, jv *out)
{
    jv s;
    return jinja_one_text(r, "capitalize", a, &s) || jinja_change_case(r, s, JC_CAPITALIZE, out) ? -1 : 0;
}

/* Words begin after white space, a dash or an opening bracket (the method `title` begins one after any non-letter). */
static int filter_title(jrun *r, const jargs *a, jv *out)
{
    jv s, word;
    sw_buf b = {0};
    if (jinja_one_text(r, "title", a, &s))
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
    return jinja_take(r, &b, s.flags, out);
}

static int filter_trim(jrun *r, const jargs *a, jv *out)
{
    jv p[2], s;
    if (JINJA_BIND("trim", a, 1, p, "value", "chars") || jinja_soft_text(r, p[0], &s))
        return -1;
    if (p[1].kind == J_UNDEFINED || (p[1].kind > J_NONE && p[1].kind != J_STR))
        return sw_fail("trim: the characters are a str or None, not %s", jinja_type_name(p[1]));
    *out = jinja_strip(s, p[1].kind == J_STR ? &p[1] : NULL, 3);
    return 0;
}

static int filter_center(jrun *r, const jargs *a, jv *out)
{
    jv p[2], s;
    int64_t width;
    if (JINJA_BIND("center", a, 1, p, "value", "width") || jinja_soft_text(r, p[0], &s) || jinja_optional_int("center", p[1], 80, &width))
        return -1;
    return jinja_pad(r, s, width, JSTR(" "), 1, 1, out);
}

static int filter_indent(jrun *r, const jargs *a, jv *out)
{
    jv p[4], s, indent;
    if (JINJA_BIND("indent", a, 1, p, "s", "width", "first", "blank") || given_text("indent", p[0], &s))
        return -1;
    if (p[1].kind == J_STR) {
        indent = p[1];
    } else {
        int64_t width;
        if (jinja_optional_int("indent", p[1], 4, &width) || jinja_pad(r, JSTR(""), width, JSTR(" "), 0, 1, &indent))
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
    return jinja_take(r, &b, s.flags, out);
}

static int filter_wordcount(jrun *r, const jargs *a, jv *out)
{
    jv s;
    int64_t count = 0;
    bool word = false;
    if (jinja_one_text(r, "wordcount", a, &s))
        return -1;
    for (size_t at = 0; at < s.n;) {
        uint32_t cp = 0;
        int len = sw_utf8_decode(s.u.s + at, s.n - at, &cp);
        bool letter = cp == '_' || jinja_is_alnum(cp);
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
    if (JINJA_BIND("truncate", a, 1, p, "s", "length", "killwords", "end", "leeway") ||
        jinja_optional_int("truncate", p[1], 255, &length) ||
        jinja_optional_int("truncate", p[4].kind == J_NONE ? (jv){0} : p[4], 5, &leeway))
        return -1;
    jv end = p[3].kind == J_STR ? p[3] : JSTR("...");
    int64_t ending = (int64_t)sw_utf8_count(end.u.s, end.n);
    if (length < ending || leeway < 0)
        return sw_fail("truncate: expected length >= %lld and leeway >= 0", (long long)ending);
    size_t n = 0;
    *out = p[0];
    if (p[0].kind != J_UNDEFINED && jinja_length(p[0], &n))
        return -1;
    if ((int64_t)n <= length + leeway)
        return 0;
    if (given_text("truncate", p[0], &s))
        return -1;
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
    while (pending < line.n && (line.u.s[pending] == ' ' || line.u.s[pending] == '\t'))
        pending++;
    if (pending == line.n) /* nothing else: it is dropped */
        return;
    pending = 0;
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
        given_text("wordwrap", p[0], &s) || jinja_optional_int("wordwrap", p[1], 79, &width))
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
    return jinja_charge(r, b.n / 16) || jinja_take(r, &b, s.flags, out) ? -1 : 0;
}

/* ---- replacing and formatting */

static int filter_replace(jrun *r, const jargs *a, jv *out)
{
    jv p[4];
    int64_t count;
    if (JINJA_BIND("replace", a, 3, p, "s", "old", "new", "count") || jinja_to_text(r, p[0], &p[0]) ||
        jinja_to_text(r, p[1], &p[1]) || jinja_to_text(r, p[2], &p[2]) ||
        jinja_optional_int("replace", p[3].kind == J_NONE ? (jv){0} : p[3], -1, &count))
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

static int filter_string(jrun *r, const jargs *a, jv *out) { return jinja_one_text(r, "string", a, out); }

/* ---- the table */

jfunction jinja_find_text_filter(const char *name, size_t n)
{
    static const jglobal filters[] = {
        {"capitalize", filter_capitalize}, {"center", filter_center}, {"format", filter_format},
        {"indent", filter_indent}, {"lower", filter_lower}, {"replace", filter_replace}, {"pprint", jinja_pprint},
        {"string", filter_string}, {"title", filter_title}, {"trim", filter_trim}, {"truncate", filter_truncate},
        {"upper", filter_upper}, {"wordcount", filter_wordcount}, {"wordwrap", filter_wordwrap},
    };
    for (size_t i = 0; i < SW_COUNT(filters); i++)
        if (strlen(filters[i].name) == n && !memcmp(filters[i].name, name, n))
            return filters[i].fn;
    return jinja_find_number_filter(name, n);
}
