/* Methods of strings, lists and dictionaries. Positions count code points, as Python's do. */
#include "text/jinja_internal.h"

#include <stdlib.h>
#include <string.h>

static int need_text(const char *who, jv v)
{
    if (v.kind == J_STR)
        return 0;
    if (v.kind == J_UNDEFINED)
        return jinja_use_undefined(v);
    return sw_fail("%s: a str is wanted, not %s", who, jinja_type_name(v));
}

static int need_int(const char *who, jv v)
{
    if (jis_int(v))
        return 0;
    if (v.kind == J_UNDEFINED)
        return jinja_use_undefined(v);
    return sw_fail("%s: an int is wanted, not %s", who, jinja_type_name(v));
}

/* A built text becomes a value that keeps the markup flag of what it was made from. */
static int take(jrun *r, sw_buf *b, jv from, jv *out)
{
    int bad = jinja_copy_text(r, b->n ? b->at : "", b->n, out);
    out->flags = from.flags;
    sw_buf_free(b);
    return bad;
}

/* ---- stripping */

static bool one_of(const jv *chars, const char *s, size_t n, uint32_t cp)
{
    return chars ? memmem(chars->u.s, chars->n, s, n) != NULL : jinja_is_space(cp);
}

jv jinja_strip(jv v, const jv *chars, int sides)
{
    uint32_t cp;
    while (sides & 1 && v.n) {
        int len = sw_utf8_decode(v.u.s, v.n, &cp);
        if (!len || !one_of(chars, v.u.s, (size_t)len, cp))
            break;
        v.u.s += len;
        v.n -= (size_t)len;
    }
    while (sides & 2 && v.n) {
        size_t at = v.n - 1;
        while (at && ((unsigned char)v.u.s[at] & 0xc0) == 0x80)
            at--;
        int len = sw_utf8_decode(v.u.s + at, v.n - at, &cp);
        if (!len || !one_of(chars, v.u.s + at, v.n - at, cp))
            break;
        v.n = at;
    }
    v.hash = 0;
    return v;
}

static int strip(const char *who, jv s, const jargs *a, int sides, jv *out)
{
    jv chars;
    if (JINJA_BIND(who, a, 0, &chars, "chars") || (chars.kind > J_NONE && need_text(who, chars)))
        return -1;
    if (chars.kind == J_UNDEFINED)
        return jinja_use_undefined(chars);
    *out = jinja_strip(s, chars.kind == J_STR ? &chars : NULL, sides);
    return 0;
}
static int str_strip(jrun *r, jv s, const jargs *a, jv *out) { (void)r; return strip("strip", s, a, 3, out); }
static int str_lstrip(jrun *r, jv s, const jargs *a, jv *out) { (void)r; return strip("lstrip", s, a, 1, out); }
static int str_rstrip(jrun *r, jv s, const jargs *a, jv *out) { (void)r; return strip("rstrip", s, a, 2, out); }

static int remove_affix(const char *who, jv s, const jargs *a, bool front, jv *out)
{
    jv affix;
    if (JINJA_BIND(who, a, 1, &affix, "affix") || need_text(who, affix))
        return -1;
    *out = s;
    if (affix.n > s.n || memcmp(front ? s.u.s : s.u.s + s.n - affix.n, affix.u.s, affix.n))
        return 0;
    *out = jspan(s.u.s + (front ? affix.n : 0), s.n - affix.n);
    out->flags = s.flags;
    return 0;
}
static int str_removeprefix(jrun *r, jv s, const jargs *a, jv *out) { (void)r; return remove_affix("removeprefix", s, a, true, out); }
static int str_removesuffix(jrun *r, jv s, const jargs *a, jv *out) { (void)r; return remove_affix("removesuffix", s, a, false, out); }

/* ---- splitting and joining */

typedef struct pieces {
    jv *at;
    size_t n, cap;
} pieces;

static int take_list(jrun *r, pieces *p, jv from, jv *out)
{
    jv *items = jinja_items(r, p->n);
    if (items) {
        if (p->n)
            memcpy(items, p->at, p->n * sizeof *items);
        for (size_t i = 0; i < p->n; i++)
            items[i].flags = from.flags;
        *out = jlist(J_LIST, items, p->n);
    }
    free(p->at);
    return items && !jinja_charge(r, p->n) ? 0 : -1;
}

static size_t space_before(jv s, size_t end) /* length of the white space character that ends there */
{
    size_t at = end;
    uint32_t cp;
    if (!end)
        return 0;
    do
        at--;
    while (at && ((unsigned char)s.u.s[at] & 0xc0) == 0x80);
    return sw_utf8_decode(s.u.s + at, end - at, &cp) && jinja_is_space(cp) ? end - at : 0;
}
static size_t space_after(jv s, size_t at)
{
    uint32_t cp;
    int len = at < s.n ? sw_utf8_decode(s.u.s + at, s.n - at, &cp) : 0;
    return len && jinja_is_space(cp) ? (size_t)len : 0;
}

static void split_words(jv s, int64_t most, pieces *p)
{
    s = jinja_strip(s, NULL, 1);
    for (size_t at = 0; at < s.n;) {
        size_t end = at, gap;
        while (end < s.n && !space_after(s, end))
            end++;
        if (most >= 0 && (int64_t)p->n == most) { /* the rest as it stands */
            SW_PUSH(*p, jspan(s.u.s + at, s.n - at));
            return;
        }
        SW_PUSH(*p, jspan(s.u.s + at, end - at));
        for (at = end; (gap = space_after(s, at));)
            at += gap;
    }
}

static void rsplit_words(jv s, int64_t most, pieces *p)
{
    s = jinja_strip(s, NULL, 2);
    for (size_t end = s.n; end;) {
        size_t at = end, gap;
        if (most >= 0 && (int64_t)p->n == most) {
            SW_PUSH(*p, jspan(s.u.s, end));
            return;
        }
        while (at && !space_before(s, at))
            at--;
        SW_PUSH(*p, jspan(s.u.s + at, end - at));
        for (end = at; (gap = space_before(s, end));)
            end -= gap;
    }
}

static const char *find_last(const char *s, size_t n, const char *what, size_t len)
{
    for (size_t at = n >= len ? n - len + 1 : 0; at--;)
        if (!memcmp(s + at, what, len))
            return s + at;
    return NULL;
}

static int split(jrun *r, const char *who, jv s, const jargs *a, bool from_right, jv *out)
{
    jv p[2];
    pieces list = {0};
    if (JINJA_BIND(who, a, 0, p, "sep", "maxsplit") || (p[1].kind && need_int(who, p[1])))
        return -1;
    int64_t most = p[1].kind ? jinja_index(p[1]) : -1;
    if (p[0].kind == J_MISSING || p[0].kind == J_NONE) {
        if (from_right)
            rsplit_words(s, most, &list);
        else
            split_words(s, most, &list);
    } else {
        jv sep = p[0];
        if (need_text(who, sep))
            return -1;
        if (!sep.n)
            return sw_fail("empty separator");
        const char *at = s.u.s, *end = s.u.s + s.n, *hit;
        while ((most < 0 || (int64_t)list.n < most) &&
               (hit = from_right ? find_last(at, (size_t)(end - at), sep.u.s, sep.n) : memmem(at, (size_t)(end - at), sep.u.s, sep.n))) {
            SW_PUSH(list, from_right ? jspan(hit + sep.n, (size_t)(end - hit) - sep.n) : jspan(at, (size_t)(hit - at)));
            if (from_right)
                end = hit;
            else
                at = hit + sep.n;
        }
        SW_PUSH(list, jspan(at, (size_t)(end - at)));
    }
    for (size_t i = 0; from_right && i < list.n / 2; i++) {
        jv t = list.at[i];
        list.at[i] = list.at[list.n - 1 - i];
        list.at[list.n - 1 - i] = t;
    }
    return take_list(r, &list, s, out);
}
static int str_split(jrun *r, jv s, const jargs *a, jv *out) { return split(r, "split", s, a, false, out); }
static int str_rsplit(jrun *r, jv s, const jargs *a, jv *out) { return split(r, "rsplit", s, a, true, out); }

static int str_splitlines(jrun *r, jv s, const jargs *a, jv *out)
{
    jv keep;
    pieces list = {0};
    if (JINJA_BIND("splitlines", a, 0, &keep, "keepends"))
        return -1;
    for (size_t at = 0; at < s.n;) {
        size_t end = at, len = 0;
        for (; end < s.n; end++) {
            uint32_t cp = 0;
            int n = sw_utf8_decode(s.u.s + end, s.n - end, &cp);
            if ((cp >= 10 && cp <= 13) || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 || cp == 0x2028 || cp == 0x2029) {
                len = cp == '\r' && end + 1 < s.n && s.u.s[end + 1] == '\n' ? 2 : (size_t)n;
                break;
            }
        }
        SW_PUSH(list, jspan(s.u.s + at, end - at + (jinja_truth(keep) ? len : 0)));
        at = end + len;
    }
    return take_list(r, &list, s, out);
}

static int partition(jrun *r, const char *who, jv s, const jargs *a, bool last, jv *out)
{
    jv sep, *items = jinja_items(r, 3);
    if (!items || JINJA_BIND(who, a, 1, &sep, "sep") || need_text(who, sep))
        return -1;
    if (!sep.n)
        return sw_fail("empty separator");
    const char *hit = last ? find_last(s.u.s, s.n, sep.u.s, sep.n) : memmem(s.u.s, s.n, sep.u.s, sep.n);
    items[0] = items[1] = items[2] = JSTR("");
    if (hit) {
        items[0] = jspan(s.u.s, (size_t)(hit - s.u.s));
        items[1] = sep;
        items[2] = jspan(hit + sep.n, s.n - items[0].n - sep.n);
    } else {
        items[last ? 2 : 0] = s;
    }
    *out = jlist(J_TUPLE, items, 3);
    return 0;
}
static int str_partition(jrun *r, jv s, const jargs *a, jv *out) { return partition(r, "partition", s, a, false, out); }
static int str_rpartition(jrun *r, jv s, const jargs *a, jv *out) { return partition(r, "rpartition", s, a, true, out); }

/* strict: every item is a str, as str.join wants; otherwise its str(). */
int jinja_join(jrun *r, jv sep, const jv *items, size_t n, bool strict, jv *out)
{
    sw_buf b = {0};
    int bad = jinja_charge(r, n);
    for (size_t i = 0; i < n && !bad; i++) {
        if (i)
            sw_buf_add(&b, sep.u.s, sep.n);
        if (strict && items[i].kind != J_STR)
            bad = sw_fail("sequence item %zu: expected str instance, %s found", i, jinja_type_name(items[i]));
        else
            bad = jinja_print(r, &b, items[i]);
        if (b.n > JINJA_MAX_OUTPUT)
            bad = sw_fail("a joined text is too long (more than %d MiB)", JINJA_MAX_OUTPUT >> 20);
    }
    if (bad) {
        sw_buf_free(&b);
        return -1;
    }
    return take(r, &b, sep, out);
}

static int str_join(jrun *r, jv s, const jargs *a, jv *out)
{
    jv of;
    const jv *items;
    size_t n;
    if (JINJA_BIND("join", a, 1, &of, "iterable") || jinja_iterate(r, of, &items, &n))
        return -1;
    return jinja_join(r, s, items, n, true, out);
}

/* ---- searching */

int jinja_replace(jrun *r, jv v, jv old, jv new, int64_t count, jv *out)
{
    sw_buf b = {0};
    const char *at = v.u.s, *end = v.u.s + v.n;
    for (int64_t done = 0; count < 0 || done < count; done++) {
        const char *hit;
        if (old.n) {
            hit = memmem(at, (size_t)(end - at), old.u.s, old.n);
        } else { /* before every character and at the end */
            hit = done ? at + jinja_offset(jspan(at, (size_t)(end - at)), 1) : at;
            if (done && at == end)
                hit = NULL;
        }
        if (!hit)
            break;
        sw_buf_add(&b, at, (size_t)(hit - at));
        sw_buf_add(&b, new.u.s, new.n);
        at = hit + old.n;
        if (b.n > JINJA_MAX_OUTPUT) {
            sw_buf_free(&b);
            return sw_fail("a replaced text is too long (more than %d MiB)", JINJA_MAX_OUTPUT >> 20);
        }
    }
    if (!b.n && at == v.u.s) { /* nothing to replace */
        *out = v;
        sw_buf_free(&b);
        return jinja_charge(r, v.n / 16);
    }
    sw_buf_add(&b, at, (size_t)(end - at));
    return take(r, &b, v, out);
}

static int str_replace(jrun *r, jv s, const jargs *a, jv *out)
{
    jv p[3];
    if (JINJA_BIND("replace", a, 2, p, "old", "new", "count") || need_text("replace", p[0]) || need_text("replace", p[1]) ||
        (p[2].kind && need_int("replace", p[2])))
        return -1;
    if (s.flags & JF_MARKUP && jinja_escape(r, p[1], &p[1]))
        return -1;
    return jinja_replace(r, s, p[0], p[1], p[2].kind ? jinja_index(p[2]) : -1, out);
}

/* s[start:end] of the optional arguments; *skipped is how many code points lie before it. */
static int part(jrun *r, const char *who, jv s, jv start, jv end, jv *out, int64_t *skipped)
{
    if ((start.kind > J_NONE && need_int(who, start)) || (end.kind > J_NONE && need_int(who, end)))
        return -1;
    jv from = start.kind ? start : J_NONE_V, to = end.kind ? end : J_NONE_V;
    if (jinja_slice(r, s, from, to, J_NONE_V, out))
        return -1;
    *skipped = (int64_t)sw_utf8_count(s.u.s, (size_t)(out->u.s - s.u.s));
    return 0;
}

static int find_text(jrun *r, const char *who, jv s, const jargs *a, bool last, int64_t *at)
{
    jv p[3], in;
    int64_t skipped;
    if (JINJA_BIND(who, a, 1, p, "sub", "start", "end") || need_text(who, p[0]) || part(r, who, s, p[1], p[2], &in, &skipped))
        return -1;
    const char *hit = last ? find_last(in.u.s, in.n, p[0].u.s, p[0].n) : memmem(in.u.s, in.n, p[0].u.s, p[0].n);
    *at = hit ? skipped + (int64_t)sw_utf8_count(in.u.s, (size_t)(hit - in.u.s)) : -1;
    return jinja_charge(r, s.n / 16);
}
static int str_find(jrun *r, jv s, const jargs *a, jv *out)
{
    int64_t at;
    return find_text(r, "find", s, a, false, &at) ? -1 : (*out = jint(at), 0);
}
static int str_rfind(jrun *r, jv s, const jargs *a, jv *out)
{
    int64_t at;
    return find_text(r, "rfind", s, a, true, &at) ? -1 : (*out = jint(at), 0);
}
static int str_index(jrun *r, jv s, const jargs *a, jv *out)
{
    return str_find(r, s, a, out) ? -1 : out->u.i < 0 ? sw_fail("substring not found") : 0;
}
static int str_rindex(jrun *r, jv s, const jargs *a, jv *out)
{
    return str_rfind(r, s, a, out) ? -1 : out->u.i < 0 ? sw_fail("substring not found") : 0;
}

static int str_count(jrun *r, jv s, const jargs *a, jv *out)
{
    jv p[3], in;
    int64_t skipped, count = 0;
    if (JINJA_BIND("count", a, 1, p, "sub", "start", "end") || need_text("count", p[0]) ||
        part(r, "count", s, p[1], p[2], &in, &skipped))
        return -1;
    if (!p[0].n)
        count = (int64_t)sw_utf8_count(in.u.s, in.n) + 1;
    const char *at = in.u.s, *end = in.u.s + in.n;
    while (p[0].n && (at = memmem(at, (size_t)(end - at), p[0].u.s, p[0].n))) {
        at += p[0].n;
        count++;
    }
    *out = jint(count);
    return jinja_charge(r, s.n / 16);
}

static int has_affix(jrun *r, const char *who, jv s, const jargs *a, bool front, jv *out)
{
    jv p[3], in;
    int64_t skipped;
    if (JINJA_BIND(who, a, 1, p, "affix", "start", "end") || part(r, who, s, p[1], p[2], &in, &skipped))
        return -1;
    const jv *any = p[0].kind == J_TUPLE ? p[0].u.items : p;
    size_t n = p[0].kind == J_TUPLE ? p[0].n : 1;
    *out = jbool(false);
    for (size_t i = 0; i < n; i++) {
        if (any[i].kind == J_UNDEFINED)
            return jinja_use_undefined(any[i]);
        if (any[i].kind != J_STR)
            return sw_fail("%s first arg must be str or a tuple of str, not %s", who, jinja_type_name(any[i]));
        if (any[i].n <= in.n && !memcmp(front ? in.u.s : in.u.s + in.n - any[i].n, any[i].u.s, any[i].n))
            *out = jbool(true);
    }
    return 0;
}
static int str_startswith(jrun *r, jv s, const jargs *a, jv *out) { return has_affix(r, "startswith", s, a, true, out); }
static int str_endswith(jrun *r, jv s, const jargs *a, jv *out) { return has_affix(r, "endswith", s, a, false, out); }

/* ---- padding */

int jinja_pad(jrun *r, jv v, int64_t width, jv fill, int left_parts, int right_parts, jv *out)
{
    int64_t n = (int64_t)sw_utf8_count(v.u.s, v.n), more = width - n;
    *out = v;
    if (more <= 0)
        return 0;
    if (more > JINJA_MAX_OUTPUT)
        return sw_fail("a padded text is too long (more than %d MiB)", JINJA_MAX_OUTPUT >> 20);
    /* Python's centre: the odd one goes left when the width is odd */
    int64_t left = left_parts && right_parts ? more / 2 + (more & width & 1) : left_parts ? more : 0;
    sw_buf b = {0};
    for (int64_t i = 0; i < left; i++)
        sw_buf_add(&b, fill.u.s, fill.n);
    sw_buf_add(&b, v.u.s, v.n);
    for (int64_t i = left; i < more; i++)
        sw_buf_add(&b, fill.u.s, fill.n);
    return take(r, &b, v, out);
}

static int pad(jrun *r, const char *who, jv s, const jargs *a, int left, int right, jv *out)
{
    jv p[2];
    if (JINJA_BIND(who, a, 1, p, "width", "fillchar") || need_int(who, p[0]))
        return -1;
    jv fill = p[1].kind ? p[1] : JSTR(" ");
    if (need_text(who, fill))
        return -1;
    if (sw_utf8_count(fill.u.s, fill.n) != 1)
        return sw_fail("The fill character must be exactly one character long");
    return jinja_pad(r, s, jinja_index(p[0]), fill, left, right, out);
}
static int str_center(jrun *r, jv s, const jargs *a, jv *out) { return pad(r, "center", s, a, 1, 1, out); }
static int str_ljust(jrun *r, jv s, const jargs *a, jv *out) { return pad(r, "ljust", s, a, 0, 1, out); }
static int str_rjust(jrun *r, jv s, const jargs *a, jv *out) { return pad(r, "rjust", s, a, 1, 0, out); }

static int str_zfill(jrun *r, jv s, const jargs *a, jv *out)
{
    jv width, rest = s;
    if (JINJA_BIND("zfill", a, 1, &width, "width") || need_int("zfill", width))
        return -1;
    bool sign = s.n && (s.u.s[0] == '-' || s.u.s[0] == '+');
    rest.u.s += sign;
    rest.n -= sign;
    if (jinja_pad(r, rest, jinja_index(width) - sign, JSTR("0"), 1, 0, out))
        return -1;
    if (!sign)
        return 0;
    return jinja_concat(r, jspan(s.u.s, 1), *out, out);
}

static int str_format(jrun *r, jv s, const jargs *a, jv *out) { return jinja_format(r, s, a, out); }

/* ---- lists and dictionaries */

static int list_index(jrun *r, jv s, const jargs *a, jv *out)
{
    jv p[3];
    if (JINJA_BIND("index", a, 1, p, "value", "start", "stop") || jinja_charge(r, s.n))
        return -1;
    if ((p[1].kind && need_int("index", p[1])) || (p[2].kind && need_int("index", p[2])))
        return -1;
    int64_t n = (int64_t)s.n, from = p[1].kind ? jinja_index(p[1]) : 0, to = p[2].kind ? jinja_index(p[2]) : n;
    from = from < 0 ? SW_MAX(from + n, 0) : from;
    to = to < 0 ? to + n : SW_MIN(to, n);
    for (int64_t i = from; i < to; i++)
        if (jinja_equal(r, s.u.items[i], p[0])) {
            *out = jint((int64_t)i);
            return 0;
        }
    return sw_fail("the value is not in the %s", jinja_type_name(s));
}

static int list_count(jrun *r, jv s, const jargs *a, jv *out)
{
    jv item;
    int64_t count = 0;
    if (JINJA_BIND("count", a, 1, &item, "value") || jinja_charge(r, s.n))
        return -1;
    for (size_t i = 0; i < s.n; i++)
        count += jinja_equal(r, s.u.items[i], item);
    *out = jint(count);
    return 0;
}

/* A value that cannot change is its own copy. */
static int same(jrun *r, jv s, const jargs *a, jv *out)
{
    (void)r, (void)a;
    *out = s;
    return 0;
}

static int dict_get(jrun *r, jv s, const jargs *a, jv *out)
{
    jv p[2];
    if (JINJA_BIND("get", a, 1, p, "key", "default"))
        return -1;
    const jv *found = jinja_dict_find(r, s.u.dict, p[0]);
    *out = found ? *found : p[1].kind ? p[1] : J_NONE_V;
    return 0;
}

static int view(jrun *r, jv s, int which, jv *out)
{
    const jdict *d = s.u.dict;
    jv *items = jinja_items(r, d->n), *pairs = which == JF_ITEMS ? jinja_items(r, d->n * 2) : items;
    if (!items || !pairs || jinja_charge(r, d->n))
        return -1;
    for (size_t i = 0; i < d->n; i++) {
        if (which == JF_ITEMS) {
            pairs[2 * i] = d->at[i].key;
            pairs[2 * i + 1] = d->at[i].value;
            items[i] = jlist(J_TUPLE, pairs + 2 * i, 2);
        } else {
            items[i] = which == JF_KEYS ? d->at[i].key : d->at[i].value;
        }
    }
    *out = jlist(J_VIEW, items, d->n);
    out->flags = (uint8_t)which;
    return 0;
}
static int dict_items(jrun *r, jv s, const jargs *a, jv *out) { (void)a; return view(r, s, JF_ITEMS, out); }
static int dict_keys(jrun *r, jv s, const jargs *a, jv *out) { (void)a; return view(r, s, JF_KEYS, out); }
static int dict_values(jrun *r, jv s, const jargs *a, jv *out) { (void)a; return view(r, s, JF_VALUES, out); }

/* ---- the table */

static const jmethod methods[] = {
    {"append", .unsafe_list = true}, {"capitalize", .str = jinja_str_capitalize, .bare = true},
    {"casefold", .str = jinja_str_casefold, .bare = true}, {"center", .str = str_center}, {"clear", .unsafe_list = true, .unsafe_dict = true},
    {"copy", .list = same, .dict = same, .bare = true}, {"count", .str = str_count, .list = list_count}, {"endswith", .str = str_endswith},
    {"expandtabs", .str = jinja_str_expandtabs}, {"extend", .unsafe_list = true}, {"find", .str = str_find},
    {"format", .str = str_format}, {"format_map", .str = jinja_str_format_map},
    {"get", .dict = dict_get}, {"index", .str = str_index, .list = list_index}, {"insert", .unsafe_list = true},
    {"isalnum", .str = jinja_str_isalnum, .bare = true}, {"isalpha", .str = jinja_str_isalpha, .bare = true}, {"isascii", .str = jinja_str_isascii, .bare = true},
    {"isdecimal", .str = jinja_str_isdecimal, .bare = true}, {"isdigit", .str = jinja_str_isdigit, .bare = true}, {"isidentifier", .str = jinja_str_isidentifier, .bare = true},
    {"islower", .str = jinja_str_islower, .bare = true}, {"isnumeric", .str = jinja_str_isnumeric, .bare = true}, {"isprintable", .str = jinja_str_isprintable, .bare = true},
    {"isspace", .str = jinja_str_isspace, .bare = true}, {"istitle", .str = jinja_str_istitle, .bare = true}, {"isupper", .str = jinja_str_isupper, .bare = true},
    {"items", .dict = dict_items, .bare = true}, {"join", .str = str_join}, {"keys", .dict = dict_keys, .bare = true},
    {"ljust", .str = str_ljust}, {"lower", .str = jinja_str_lower, .bare = true}, {"lstrip", .str = str_lstrip},
    {"partition", .str = str_partition}, {"pop", .unsafe_list = true, .unsafe_dict = true}, {"popitem", .unsafe_dict = true},
    {"remove", .unsafe_list = true}, {"removeprefix", .str = str_removeprefix},
    {"removesuffix", .str = str_removesuffix}, {"replace", .str = str_replace}, {"reverse", .unsafe_list = true},
    {"rfind", .str = str_rfind}, {"rindex", .str = str_rindex}, {"rjust", .str = str_rjust},
    {"rpartition", .str = str_rpartition}, {"rsplit", .str = str_rsplit}, {"rstrip", .str = str_rstrip},
    {"setdefault", .unsafe_dict = true}, {"sort", .unsafe_list = true}, {"split", .str = str_split},
    {"splitlines", .str = str_splitlines}, {"startswith", .str = str_startswith},
    {"strip", .str = str_strip}, {"swapcase", .str = jinja_str_swapcase, .bare = true}, {"title", .str = jinja_str_title, .bare = true},
    {"update", .unsafe_dict = true}, {"upper", .str = jinja_str_upper, .bare = true}, {"values", .dict = dict_values, .bare = true},
    {"zfill", .str = str_zfill},
};

const jmethod *jinja_find_method(const char *name, size_t n)
{
    for (size_t i = 0; i < SW_COUNT(methods); i++)
        if (strlen(methods[i].name) == n && !memcmp(methods[i].name, name, n))
            return &methods[i];
    return NULL;
}
