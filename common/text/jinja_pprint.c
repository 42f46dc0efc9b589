/* The filter pprint: a value as Python's pprint module lays it out, in lines of 80 characters where it can. */
#include "text/jinja_internal.h"

#include <stdlib.h>
#include <string.h>

enum { WIDTH = 80 };

static int by_key(jrun *r, const jentry *a, const jentry *b)
{
    int cmp = 0;
    if (a->key.kind == J_STR && b->key.kind == J_STR) {
        cmp = memcmp(a->key.u.s, b->key.u.s, SW_MIN(a->key.n, b->key.n));
        return cmp ? cmp : (a->key.n > b->key.n) - (a->key.n < b->key.n);
    }
    if (jis_number(a->key) && jis_number(b->key) && !jinja_compare(r, a->key, b->key, "<", &cmp))
        return cmp;
    return strcmp(jinja_type_name(a->key), jinja_type_name(b->key));
}

static void merge_sort(jrun *r, jentry *at, jentry *spare, size_t n)
{
    if (n < 2)
        return;
    size_t half = n / 2, i = 0, j = half, k = 0;
    merge_sort(r, at, spare, half);
    merge_sort(r, at + half, spare, n - half);
    while (i < half && j < n)
        spare[k++] = by_key(r, &at[j], &at[i]) < 0 ? at[j++] : at[i++];
    while (i < half)
        spare[k++] = at[i++];
    memcpy(at, spare, k * sizeof *at);
}

static int enter(jrun *r)
{
    if (++r->depth > JINJA_MAX_DEPTH) {
        r->depth--;
        return sw_fail("the template recurses deeper than %d levels", JINJA_MAX_DEPTH);
    }
    return jinja_charge(r, 1);
}

/* The same value with every dictionary in the order of its keys. */
static int in_order(jrun *r, jv v, jv *out)
{
    *out = v;
    if (v.kind != J_DICT && v.kind != J_LIST && v.kind != J_TUPLE)
        return 0;
    if (enter(r))
        return -1;
    int bad = 0;
    if (v.kind == J_DICT) {
        size_t n = v.u.dict->n;
        jentry *sorted = jinja_alloc(r, 2 * (n + 1) * sizeof *sorted);
        *out = jinja_dict_new(r, n);
        bad = !sorted || !out->kind;
        if (!bad && n)
            memcpy(sorted, v.u.dict->at, n * sizeof *sorted);
        if (!bad)
            merge_sort(r, sorted, sorted + n, n);
        for (size_t i = 0; i < n && !bad; i++) {
            jv value;
            bad = in_order(r, sorted[i].value, &value) || jinja_dict_put(r, out->u.dict, sorted[i].key, value);
        }
    } else {
        jv *items = jinja_items(r, v.n);
        bad = !items;
        if (!bad)
            *out = jlist((jkind)v.kind, items, v.n);
        for (size_t i = 0; i < v.n && !bad; i++)
            bad = in_order(r, v.u.items[i], &items[i]);
    }
    r->depth--;
    return bad ? -1 : 0;
}

static size_t repr_length(jrun *r, jv v, sw_buf *b, int *bad)
{
    sw_buf_clear(b);
    *bad |= jinja_repr(r, b, v);
    return b->n ? sw_utf8_count(b->at, b->n) : 0;
}

static void next_line(sw_buf *b, int64_t indent)
{
    sw_buf_putc(b, '\n');
    for (int64_t i = 0; i < indent; i++)
        sw_buf_putc(b, ' ');
}

typedef struct layout {
    jrun *r;
    sw_buf *out;
    sw_buf one; /* a repr being measured */
    int bad;
} layout;

static void put_repr(layout *l, jv v) { l->bad |= jinja_repr(l->r, l->out, v); }

/* The end of what re.findall(r'\S*\s*') takes from `at`. */
static size_t part_end(jv line, size_t at)
{
    for (int space = 0; space < 2; space++)
        while (at < line.n) {
            uint32_t cp = 0;
            int len = sw_utf8_decode(line.u.s + at, line.n - at, &cp);
            if (jinja_is_space(cp) != (space == 1))
                break;
            at += (size_t)SW_MAX(len, 1);
        }
    return at;
}

/* A text that does not fit is written as several, one below another. */
static void put_text(layout *l, jv v, int64_t indent, int64_t allowance, int level)
{
    jv lines, yes = jbool(true);
    if (!v.n) {
        put_repr(l, v);
        return;
    }
    if (jinja_find_method("splitlines", 10)->str(l->r, v, &(jargs){&yes, 1, NULL, 0}, &lines)) {
        l->bad = -1;
        return;
    }
    struct {
        jv *at;
        size_t n, cap;
    } chunks = {0};
    if (level == 1) {
        indent++;
        allowance++;
    }
    int64_t width = WIDTH - indent, width1 = width;
    for (size_t i = 0; i < lines.n && !l->bad; i++) {
        jv line = lines.u.items[i];
        bool last = i + 1 == lines.n;
        if (last)
            width1 -= allowance;
        if ((int64_t)repr_length(l->r, line, &l->one, &l->bad) <= width1) {
            SW_PUSH(chunks, line);
            continue;
        }
        int64_t width2 = width;
        size_t from = 0;
        for (size_t at = 0; at < line.n && !l->bad;) {
            size_t end = part_end(line, at);
            if (end == line.n && last)
                width2 -= allowance;
            if ((int64_t)repr_length(l->r, jspan(line.u.s + from, end - from), &l->one, &l->bad) > width2) {
                if (at > from)
                    SW_PUSH(chunks, jspan(line.u.s + from, at - from));
                from = at;
            }
            at = end;
            l->bad |= jinja_charge(l->r, 1 + (at - from) / 16);
        }
        if (line.n > from)
            SW_PUSH(chunks, jspan(line.u.s + from, line.n - from));
    }
    bool parentheses = level == 1 && chunks.n > 1;
    if (parentheses)
        sw_buf_putc(l->out, '(');
    for (size_t i = 0; i < chunks.n && !l->bad; i++) {
        if (i)
            next_line(l->out, indent);
        put_repr(l, chunks.at[i]);
    }
    if (parentheses)
        sw_buf_putc(l->out, ')');
    free(chunks.at);
}

static void put(layout *l, jv v, int64_t indent, int64_t allowance, int level);

static void put_items(layout *l, jv v, int64_t indent, int64_t allowance, int level)
{
    for (size_t i = 0; i < v.n && !l->bad; i++) {
        if (i) {
            sw_buf_putc(l->out, ',');
            next_line(l->out, indent + 1);
        }
        put(l, v.u.items[i], indent + 1, i + 1 == v.n ? allowance : 1, level);
    }
}

static void put_dict(layout *l, const jdict *d, int64_t indent, int64_t allowance, int level)
{
    for (size_t i = 0; i < d->n && !l->bad; i++) {
        if (i) {
            sw_buf_putc(l->out, ',');
            next_line(l->out, indent + 1);
        }
        int64_t key = (int64_t)repr_length(l->r, d->at[i].key, &l->one, &l->bad);
        put_repr(l, d->at[i].key);
        sw_buf_puts(l->out, ": ");
        put(l, d->at[i].value, indent + 1 + key + 2, i + 1 == d->n ? allowance : 1, level);
    }
}

static void put(layout *l, jv v, int64_t indent, int64_t allowance, int level)
{
    if (l->bad || enter(l->r)) {
        l->bad = -1;
        return;
    }
    bool fits = (int64_t)repr_length(l->r, v, &l->one, &l->bad) <= WIDTH - indent - allowance;
    if (l->out->n > JINJA_MAX_OUTPUT)
        l->bad = sw_fail("the output is too long (more than %d MiB)", JINJA_MAX_OUTPUT >> 20);
    else if (!fits && v.kind == J_STR && !v.flags)
        put_text(l, v, indent, allowance, level + 1);
    else if (!fits && (v.kind == J_LIST || (v.kind == J_TUPLE && !v.flags))) {
        const char *close = v.kind == J_LIST ? "]" : v.n == 1 ? ",)" : ")";
        sw_buf_putc(l->out, v.kind == J_LIST ? '[' : '(');
        put_items(l, v, indent, allowance + (int64_t)strlen(close), level + 1);
        sw_buf_puts(l->out, close);
    } else if (!fits && v.kind == J_DICT) {
        sw_buf_putc(l->out, '{');
        put_dict(l, v.u.dict, indent, allowance + 1, level + 1);
        sw_buf_putc(l->out, '}');
    } else {
        put_repr(l, v);
    }
    l->r->depth--;
}

int jinja_pprint(jrun *r, const jargs *a, jv *out)
{
    jv v;
    if (JINJA_BIND("pprint", a, 1, &v, "value") || in_order(r, v, &v))
        return -1;
    sw_buf b = {0};
    layout l = {.r = r, .out = &b};
    put(&l, v, 0, 0, 0);
    sw_buf_free(&l.one);
    if (l.bad) {
        sw_buf_free(&b);
        return -1;
    }
    return jinja_take(r, &b, 0, out);
}
