/* Filters over sequences and mappings. What Jinja gives as a generator is a J_ITER here. */
#include "text/jinja_internal.h"

#include <stdlib.h>
#include <string.h>

static int make_iter(jrun *r, const jv *items, size_t n, jv *out)
{
    struct jiter *it = jinja_alloc(r, sizeof *it);
    if (!it)
        return -1;
    *it = (struct jiter){items, n, 0};
    *out = (jv){.kind = J_ITER, .u.iter = it};
    return 0;
}

/* An attribute as filters name it: "a.b.0", or an item's number. */
static int attribute_of(jrun *r, jv v, jv path, jv fallback, jv *out)
{
    *out = v;
    if (path.kind == J_MISSING || path.kind == J_NONE)
        return 0;
    if (path.kind != J_STR)
        return jinja_getitem(r, v, path, out);
    for (size_t at = 0; at <= path.n;) {
        const char *dot = memchr(path.u.s + at, '.', path.n - at);
        jv key = jspan(path.u.s + at, (dot ? (size_t)(dot - path.u.s) : path.n) - at);
        at += key.n + 1;
        bool number = key.n && key.n < 10;
        int64_t i = 0;
        for (size_t k = 0; k < key.n && number; k++) {
            number = key.u.s[k] >= '0' && key.u.s[k] <= '9';
            i = i * 10 + (key.u.s[k] - '0');
        }
        if (jinja_getitem(r, *out, number ? jint(i) : key, out))
            return -1;
        if (out->kind == J_UNDEFINED && fallback.kind)
            *out = fallback;
    }
    return 0;
}

static int fold(jrun *r, jv *v, bool case_sensitive)
{
    return v->kind == J_STR && !case_sensitive ? jinja_change_case(r, *v, JC_LOWER, v) : 0;
}

/* ---- order */

typedef struct sorted {
    jv key, value;
} sorted;

/* lists: keys are compared as lists of them would be, so that two undefined ones are equal. */
static int merge_sort(jrun *r, sorted *a, sorted *scratch, size_t n, bool reverse, bool lists)
{
    if (n < 2)
        return 0;
    size_t half = n / 2, i = 0, j = half, k = 0;
    if (jinja_charge(r, n) || merge_sort(r, a, scratch, half, reverse, lists) ||
        merge_sort(r, a + half, scratch, n - half, reverse, lists))
        return -1;
    while (i < half && j < n) { /* stable both ways, as Python's */
        int cmp;
        if (a[j].key.kind == J_UNDEFINED && a[i].key.kind == J_UNDEFINED && lists)
            cmp = 0;
        else if (jinja_compare(r, a[j].key, a[i].key, "<", &cmp))
            return -1;
        scratch[k++] = (reverse ? cmp > 0 : cmp < 0) ? a[j++] : a[i++];
    }
    while (i < half)
        scratch[k++] = a[i++];
    memcpy(a, scratch, k * sizeof *a);
    return 0;
}

/* The key of one item: its attribute, or a tuple of several ("a,b"). */
static int sort_key(jrun *r, jv item, jv attribute, jv fallback, bool case_sensitive, jv *out)
{
    size_t parts = 1;
    for (size_t i = 0; attribute.kind == J_STR && i < attribute.n; i++)
        parts += attribute.u.s[i] == ',';
    if (parts == 1)
        return attribute_of(r, item, attribute, fallback, out) || fold(r, out, case_sensitive);
    jv *keys = jinja_items(r, parts);
    if (!keys)
        return -1;
    *out = jlist(J_TUPLE, keys, parts);
    for (size_t at = 0; parts--; keys++) {
        const char *comma = memchr(attribute.u.s + at, ',', attribute.n - at);
        jv one = jspan(attribute.u.s + at, (comma ? (size_t)(comma - attribute.u.s) : attribute.n) - at);
        at += one.n + 1;
        if (attribute_of(r, item, jinja_strip(one, NULL, 3), fallback, keys) || fold(r, keys, case_sensitive))
            return -1;
    }
    return 0;
}

static int sort_items(jrun *r, jv of, jv attribute, jv fallback, bool case_sensitive, bool reverse, bool lists, sorted **out,
                      size_t *n)
{
    const jv *items;
    if (jinja_iterate(r, of, &items, n))
        return -1;
    sorted *a = jinja_alloc(r, (*n * 2 + 1) * sizeof *a);
    if (!a)
        return -1;
    for (size_t i = 0; i < *n; i++) {
        a[i].value = items[i];
        if (sort_key(r, items[i], attribute, fallback, case_sensitive, &a[i].key))
            return -1;
    }
    *out = a;
    return merge_sort(r, a, a + *n, *n, reverse, lists);
}

static int values_of(jrun *r, const sorted *a, size_t n, jv *out)
{
    jv *items = jinja_items(r, n);
    if (!items)
        return -1;
    for (size_t i = 0; i < n; i++)
        items[i] = a[i].value;
    *out = jlist(J_LIST, items, n);
    return 0;
}

static int filter_sort(jrun *r, const jargs *a, jv *out)
{
    jv p[4];
    sorted *s;
    size_t n;
    if (JINJA_BIND("sort", a, 1, p, "value", "reverse", "case_sensitive", "attribute"))
        return -1;
    if (p[1].kind && !jis_int(p[1]))
        return sw_fail("sort: reverse is a bool, not '%s'", jinja_type_name(p[1]));
    if (sort_items(r, p[0], p[3], (jv){0}, jinja_truth(p[2]), jinja_truth(p[1]), p[3].kind > J_NONE, &s, &n))
        return -1;
    return values_of(r, s, n, out);
}

static int filter_dictsort(jrun *r, const jargs *a, jv *out)
{
    jv p[4], pairs;
    if (JINJA_BIND("dictsort", a, 1, p, "value", "case_sensitive", "by", "reverse"))
        return -1;
    if (p[0].kind != J_DICT)
        return p[0].kind == J_UNDEFINED ? jinja_use_undefined(p[0]) : sw_fail("dictsort wants a dict, not %s", jinja_type_name(p[0]));
    bool by_value = p[2].kind && JTEXT_IS(p[2], "value");
    if (p[2].kind && !by_value && !JTEXT_IS(p[2], "key"))
        return sw_fail("You can only sort by either \"key\" or \"value\"");
    sorted *s;
    size_t n;
    if (jinja_find_method("items", 5)->dict(r, p[0], &(jargs){0}, &pairs) ||
        sort_items(r, pairs, jint(by_value), (jv){0}, jinja_truth(p[1]), jinja_truth(p[3]), false, &s, &n))
        return -1;
    return values_of(r, s, n, out);
}

static int filter_groupby(jrun *r, const jargs *a, jv *out)
{
    jv p[4];
    sorted *s;
    size_t n, groups = 0;
    if (JINJA_BIND("groupby", a, 2, p, "value", "attribute", "default", "case_sensitive") ||
        sort_items(r, p[0], p[1], p[2], jinja_truth(p[3]), false, false, &s, &n))
        return -1;
    jv *list = jinja_items(r, n);
    if (!list)
        return -1;
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && jinja_equal(r, s[end].key, s[i].key);)
            end++;
        jv *pair = jinja_items(r, 2);
        if (!pair || attribute_of(r, s[i].value, p[1], p[2], &pair[0]) || values_of(r, s + i, end - i, &pair[1]))
            return -1;
        list[groups] = jlist(J_TUPLE, pair, 2);
        list[groups++].flags = JF_GROUP;
    }
    *out = jlist(J_LIST, list, groups);
    return 0;
}

static int filter_unique(jrun *r, const jargs *a, jv *out)
{
    jv p[3], seen = jinja_dict_new(r, 0), key;
    const jv *items;
    size_t n, kept = 0;
    if (!seen.kind || JINJA_BIND("unique", a, 1, p, "value", "case_sensitive", "attribute") || jinja_iterate(r, p[0], &items, &n))
        return -1;
    jv *list = jinja_items(r, n);
    if (!list || jinja_charge(r, n))
        return -1;
    for (size_t i = 0; i < n; i++) {
        size_t before = seen.u.dict->n;
        if (attribute_of(r, items[i], p[2], (jv){0}, &key) || fold(r, &key, jinja_truth(p[1])) ||
            jinja_dict_put(r, seen.u.dict, key, J_NONE_V))
            return -1;
        if (seen.u.dict->n > before)
            list[kept++] = items[i];
    }
    return make_iter(r, list, kept, out);
}

static int extreme(jrun *r, const char *who, const jargs *a, int sign, jv *out)
{
    jv p[3], best = {0}, key;
    const jv *items;
    size_t n;
    if (JINJA_BIND(who, a, 1, p, "value", "case_sensitive", "attribute") || jinja_iterate(r, p[0], &items, &n) || jinja_charge(r, n))
        return -1;
    if (!n) {
        *out = jinja_undefined(r, NULL, JSTR("the extreme of an empty sequence"));
        return out->u.undefined ? 0 : -1;
    }
    for (size_t i = 0; i < n; i++) {
        int cmp = 1;
        if (attribute_of(r, items[i], p[2], (jv){0}, &key) || fold(r, &key, jinja_truth(p[1])) ||
            (i && jinja_compare(r, key, best, sign > 0 ? ">" : "<", &cmp)))
            return -1;
        if (!i || (cmp != 2 && cmp * sign > 0)) {
            best = key;
            *out = items[i];
        }
    }
    return 0;
}
static int filter_min(jrun *r, const jargs *a, jv *out) { return extreme(r, "min", a, -1, out); }
static int filter_max(jrun *r, const jargs *a, jv *out) { return extreme(r, "max", a, 1, out); }

static int filter_sum(jrun *r, const jargs *a, jv *out)
{
    jv p[3], one;
    const jv *items;
    size_t n;
    if (JINJA_BIND("sum", a, 1, p, "iterable", "attribute", "start") || jinja_iterate(r, p[0], &items, &n))
        return -1;
    *out = p[2].kind ? p[2] : jint(0);
    if (out->kind == J_STR)
        return sw_fail("sum() can't sum strings [use ''.join(seq) instead]");
    for (size_t i = 0; i < n; i++)
        if (jinja_charge(r, 1) || attribute_of(r, items[i], p[1], (jv){0}, &one) || jinja_binary(r, OP_ADD, *out, one, out))
            return -1;
    return 0;
}

/* ---- map, select and their kin */

/* The items of what map and select walk: anything false is empty to them. */
static int walk(jrun *r, jv of, const jv **items, size_t *n)
{
    *items = jinja_no_items;
    *n = 0;
    return jinja_truth(of) ? jinja_iterate(r, of, items, n) : 0;
}

/* Calls a filter or test on item with more arguments. */
static int apply(jrun *r, jfunction fn, jv item, const jargs *more, jv *out)
{
    jv few[6], *at = more->n + 1 <= SW_COUNT(few) ? few : jinja_items(r, more->n + 1);
    if (!at || jinja_charge(r, 1))
        return -1;
    at[0] = item;
    if (more->n)
        memcpy(at + 1, more->at, more->n * sizeof *at);
    return fn(r, &(jargs){at, more->n + 1, more->kw, more->n_kw}, out);
}

static const jv *keyword(const jargs *a, const char *name)
{
    for (size_t k = 0; k < a->n_kw; k++)
        if (a->kw[k].name.n == strlen(name) && !memcmp(a->kw[k].name.at, name, a->kw[k].name.n))
            return &a->kw[k].value;
    return NULL;
}

static int filter_map(jrun *r, const jargs *a, jv *out)
{
    const jv *items, *attribute = keyword(a, "attribute"), *fallback = keyword(a, "default");
    size_t n;
    jfunction fn = NULL;
    if (a->n > 1 && a->at[1].kind == J_STR)
        fn = jinja_find_filter(a->at[1].u.s, a->at[1].n);
    if (a->n > 1 && !fn)
        return sw_fail("map: no filter has that name");
    if (a->n <= 1 && !attribute)
        return sw_fail("map requires a filter argument");
    if (walk(r, a->at[0], &items, &n))
        return -1;
    jv *list = jinja_items(r, n);
    if (!list)
        return -1;
    jargs more = fn ? (jargs){a->at + 2, a->n - 2, a->kw, a->n_kw} : (jargs){0};
    for (size_t i = 0; i < n; i++)
        if (jinja_charge(r, 1) ||
            (fn ? apply(r, fn, items[i], &more, &list[i])
                : attribute_of(r, items[i], *attribute, fallback ? *fallback : (jv){0}, &list[i])))
            return -1;
    return make_iter(r, list, n, out);
}

static int choose(jrun *r, const jargs *a, bool by_attribute, bool keep, jv *out)
{
    size_t first = by_attribute ? 2 : 1, n, kept = 0;
    const jv *items;
    jfunction fn = NULL;
    if (by_attribute && a->n < 2)
        return sw_fail("the name of an attribute is missing");
    if (a->n > first) {
        jv name = a->at[first];
        fn = name.kind == J_STR ? jinja_find_test(name.u.s, name.n) : NULL;
        if (!fn)
            return sw_fail("No test named '%.*s'", name.kind == J_STR ? (int)SW_MIN(name.n, 100) : 0, name.u.s);
    }
    if (walk(r, a->at[0], &items, &n))
        return -1;
    jv *list = jinja_items(r, n), yes;
    if (!list)
        return -1;
    jargs more = fn ? (jargs){a->at + first + 1, a->n - first - 1, a->kw, a->n_kw} : (jargs){0};
    for (size_t i = 0; i < n; i++) {
        jv of = items[i];
        if (jinja_charge(r, 1) || (by_attribute && attribute_of(r, of, a->at[1], (jv){0}, &of)))
            return -1;
        yes = of;
        if (fn && apply(r, fn, of, &more, &yes))
            return -1;
        if (jinja_truth(yes) == keep)
            list[kept++] = items[i];
    }
    return make_iter(r, list, kept, out);
}
static int filter_select(jrun *r, const jargs *a, jv *out) { return choose(r, a, false, true, out); }
static int filter_reject(jrun *r, const jargs *a, jv *out) { return choose(r, a, false, false, out); }
static int filter_selectattr(jrun *r, const jargs *a, jv *out) { return choose(r, a, true, true, out); }
static int filter_rejectattr(jrun *r, const jargs *a, jv *out) { return choose(r, a, true, false, out); }

/* ---- parts of sequences */

static int empty_sequence(jrun *r, jv *out)
{
    *out = jinja_undefined(r, NULL, JSTR("an item of an empty sequence"));
    return out->u.undefined ? 0 : -1;
}

static int filter_first(jrun *r, const jargs *a, jv *out)
{
    jv of;
    const jv *items;
    size_t n;
    if (JINJA_BIND("first", a, 1, &of, "seq"))
        return -1;
    if (of.kind == J_ITER && of.u.iter->pos < of.u.iter->n) { /* takes only that one */
        *out = of.u.iter->at[of.u.iter->pos++];
        return 0;
    }
    if (jinja_iterate(r, of, &items, &n))
        return -1;
    if (!n)
        return empty_sequence(r, out);
    *out = items[0];
    return 0;
}

static int filter_last(jrun *r, const jargs *a, jv *out)
{
    jv of;
    const jv *items;
    size_t n;
    if (JINJA_BIND("last", a, 1, &of, "seq"))
        return -1;
    if (of.kind == J_ITER)
        return sw_fail("'generator' object is not reversible");
    if (jinja_iterate(r, of, &items, &n))
        return -1;
    if (!n)
        return empty_sequence(r, out);
    *out = items[n - 1];
    return 0;
}

static int filter_random(jrun *r, const jargs *a, jv *out)
{
    jv of;
    const jv *items;
    size_t n;
    if (JINJA_BIND("random", a, 1, &of, "seq") || jinja_length(of, &n) || jinja_iterate(r, of, &items, &n))
        return -1;
    if (!n)
        return empty_sequence(r, out);
    *out = items[jinja_hash((const char *)&r->steps, sizeof r->steps) % n]; /* the same in every run */
    return 0;
}

static int filter_length(jrun *r, const jargs *a, jv *out)
{
    jv of;
    size_t n;
    (void)r;
    if (JINJA_BIND("length", a, 1, &of, "value") || jinja_length(of, &n))
        return -1;
    *out = jint((int64_t)n);
    return 0;
}

static int filter_list(jrun *r, const jargs *a, jv *out)
{
    jv of;
    const jv *items;
    size_t n;
    if (JINJA_BIND("list", a, 1, &of, "value") || jinja_iterate(r, of, &items, &n))
        return -1;
    *out = jlist(J_LIST, items, n);
    return 0;
}

static int filter_reverse(jrun *r, const jargs *a, jv *out)
{
    jv of;
    const jv *items;
    size_t n;
    if (JINJA_BIND("reverse", a, 1, &of, "value"))
        return -1;
    if (of.kind == J_STR)
        return jinja_reverse_text(r, of, out);
    if (jinja_iterate(r, of, &items, &n))
        return -1;
    jv *list = jinja_items(r, n);
    if (!list || jinja_charge(r, n))
        return -1;
    for (size_t i = 0; i < n; i++)
        list[i] = items[n - 1 - i];
    return make_iter(r, list, n, out);
}

static int filter_join(jrun *r, const jargs *a, jv *out)
{
    jv p[3], sep = JSTR("");
    const jv *items;
    size_t n;
    if (JINJA_BIND("join", a, 1, p, "value", "d", "attribute") || jinja_iterate(r, p[0], &items, &n) ||
        (p[1].kind && jinja_to_text(r, p[1], &sep)))
        return -1;
    if (p[2].kind > J_NONE) {
        jv *list = jinja_items(r, n);
        if (!list)
            return -1;
        for (size_t i = 0; i < n; i++)
            if (attribute_of(r, items[i], p[2], (jv){0}, &list[i]))
                return -1;
        items = list;
    }
    return jinja_join(r, sep, items, n, false, out);
}

static int filter_batch(jrun *r, const jargs *a, jv *out)
{
    jv p[3];
    const jv *items;
    size_t n;
    if (JINJA_BIND("batch", a, 2, p, "value", "linecount", "fill_with") || jinja_iterate(r, p[0], &items, &n))
        return -1;
    int64_t size = jis_int(p[1]) ? jinja_index(p[1]) : 0;
    if (size < 1 || size > JINJA_MAX_RANGE)
        return sw_fail("batch wants a size from 1 to %d", JINJA_MAX_RANGE);
    size_t by = (size_t)size, count = (n + by - 1) / by;
    jv *list = jinja_items(r, count);
    if (!list)
        return -1;
    for (size_t i = 0; i < count; i++) {
        size_t have = SW_MIN(by, n - i * by);
        list[i] = jlist(J_LIST, items + i * by, have);
        if (have < by && p[2].kind > J_NONE) {
            jv *row = jinja_items(r, by);
            if (!row)
                return -1;
            memcpy(row, items + i * by, have * sizeof *row);
            for (size_t k = have; k < by; k++)
                row[k] = p[2];
            list[i] = jlist(J_LIST, row, by);
        }
    }
    return make_iter(r, list, count, out);
}

static int filter_slice(jrun *r, const jargs *a, jv *out)
{
    jv p[3];
    const jv *items;
    size_t n, at = 0;
    if (JINJA_BIND("slice", a, 2, p, "value", "slices", "fill_with") || jinja_iterate(r, p[0], &items, &n))
        return -1;
    int64_t slices = jis_int(p[1]) ? jinja_index(p[1]) : 0;
    if (slices < 1 || slices > JINJA_MAX_RANGE)
        return sw_fail("slice wants a number from 1 to %d", JINJA_MAX_RANGE);
    size_t count = (size_t)slices, each = n / count, longer = n % count;
    jv *list = jinja_items(r, count);
    if (!list)
        return -1;
    for (size_t i = 0; i < count; i++) {
        size_t have = each + (i < longer);
        list[i] = jlist(J_LIST, items + at, have);
        if (i >= longer && p[2].kind > J_NONE) {
            jv *row = jinja_items(r, have + 1);
            if (!row)
                return -1;
            if (have)
                memcpy(row, items + at, have * sizeof *row);
            row[have] = p[2];
            list[i] = jlist(J_LIST, row, have + 1);
        }
        at += have;
    }
    return make_iter(r, list, count, out);
}

/* ---- mappings and attributes */

static int filter_items(jrun *r, const jargs *a, jv *out)
{
    jv of, view = {0};
    if (JINJA_BIND("items", a, 1, &of, "value"))
        return -1;
    if (of.kind == J_DICT) {
        if (jinja_find_method("items", 5)->dict(r, of, &(jargs){0}, &view))
            return -1;
    } else if (of.kind != J_UNDEFINED) {
        return sw_fail("Can only get item pairs from a mapping.");
    }
    return make_iter(r, view.u.items, view.n, out);
}

static int filter_attr(jrun *r, const jargs *a, jv *out)
{
    jv p[2];
    if (JINJA_BIND("attr", a, 2, p, "obj", "name"))
        return -1;
    if (p[1].kind != J_STR)
        return sw_fail("attribute name must be string, not '%s'", jinja_type_name(p[1]));
    if (p[0].kind == J_DICT) { /* methods only, never keys: a dict without them stands in */
        const jmethod *row = jinja_find_method(p[1].u.s, p[1].n);
        if (!row || !(row->dict || row->unsafe_dict))
            p[0] = jinja_dict_new(r, 0);
        if (!p[0].kind)
            return -1;
        return jinja_getattr(r, p[0], p[1], row, out);
    }
    return jinja_getattr(r, p[0], p[1], jinja_find_method(p[1].u.s, p[1].n), out);
}

static int filter_default(jrun *r, const jargs *a, jv *out)
{
    jv p[3];
    (void)r;
    if (JINJA_BIND("default", a, 1, p, "value", "default_value", "boolean"))
        return -1;
    bool use = p[0].kind == J_UNDEFINED || (jinja_truth(p[2]) && !jinja_truth(p[0]));
    *out = !use ? p[0] : p[1].kind ? p[1] : JSTR("");
    return 0;
}

/* ---- the table */

jfunction jinja_find_filter(const char *name, size_t n)
{
    static const jglobal filters[] = {
        {"attr", filter_attr}, {"batch", filter_batch}, {"count", filter_length}, {"d", filter_default},
        {"default", filter_default}, {"dictsort", filter_dictsort}, {"first", filter_first}, {"groupby", filter_groupby},
        {"items", filter_items}, {"join", filter_join}, {"last", filter_last}, {"length", filter_length},
        {"list", filter_list}, {"map", filter_map}, {"max", filter_max}, {"min", filter_min}, {"random", filter_random},
        {"reject", filter_reject}, {"rejectattr", filter_rejectattr}, {"reverse", filter_reverse},
        {"select", filter_select}, {"selectattr", filter_selectattr}, {"slice", filter_slice}, {"sort", filter_sort},
        {"sum", filter_sum}, {"tojson", jinja_tojson}, {"unique", filter_unique},
    };
    for (size_t i = 0; i < SW_COUNT(filters); i++)
        if (strlen(filters[i].name) == n && !memcmp(filters[i].name, name, n))
            return filters[i].fn;
    return jinja_find_text_filter(name, n);
}
