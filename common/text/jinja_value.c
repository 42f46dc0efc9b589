/* Values: memory, dictionaries, equality, order, and what JSON becomes. */
#include "text/jinja_internal.h"

#include "base/json.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct jchunk {
    struct jchunk *next;
    _Alignas(16) char data[];
};

int jinja_charge(jrun *r, size_t steps)
{
    r->steps += steps;
    if (r->steps > JINJA_MAX_STEPS)
        return sw_fail("the template runs for too long (more than %d steps)", JINJA_MAX_STEPS);
    return 0;
}

static void *pool_alloc(jrun *r, jpool *p, size_t n, size_t first)
{
    if (!p->head || (size_t)(p->end - p->tip) < n) {
        /* twice what is asked for, so that a text which keeps growing is copied a logarithmic number of times */
        size_t cap = n > first / 2 ? 2 * n : first;
        if (n > JINJA_MAX_MEMORY || r->memory + cap > JINJA_MAX_MEMORY)
            return sw_fail_null("the template uses too much memory (more than %d MiB)", JINJA_MAX_MEMORY >> 20);
        r->memory += cap;
        struct jchunk *c = sw_malloc(sizeof *c + cap);
        c->next = p->head;
        p->head = c;
        p->tip = c->data;
        p->end = c->data + cap;
    }
    void *at = p->tip;
    p->tip += n;
    return at;
}

static size_t chunk_size(const jrun *r) { return SW_MIN((size_t)8192 + r->memory, (size_t)1 << 20); }

void *jinja_alloc(jrun *r, size_t n) { return pool_alloc(r, &r->misc, (n + 15) & ~(size_t)15, chunk_size(r)); }

jv *jinja_items(jrun *r, size_t n)
{
    if (n > JINJA_MAX_MEMORY / sizeof(jv))
        return sw_fail_null("the template uses too much memory (a list of %zu items)", n);
    return pool_alloc(r, &r->items, n * sizeof(jv), chunk_size(r));
}

char *jinja_text(jrun *r, size_t n)
{
    if (jinja_charge(r, n / 64))
        return NULL;
    return pool_alloc(r, &r->text, n, chunk_size(r));
}

static void pool_free(jpool *p)
{
    for (struct jchunk *c = p->head, *next; c; c = next) {
        next = c->next;
        free(c);
    }
}

void jinja_pools_free(jrun *r)
{
    pool_free(&r->text);
    pool_free(&r->items);
    pool_free(&r->misc);
}

/* ---- numbers */

__int128 jinja_int(jv v)
{
    if (v.kind == J_BOOL)
        return v.u.b;
    return (__int128)((unsigned __int128)v.n << 64 | (uint64_t)v.u.i);
}

jv jinja_from_int(__int128 i) { return (jv){.kind = J_INT, .n = (size_t)(i >> 64), .u.i = (int64_t)i}; }

double jinja_double(jv v)
{
    return v.kind == J_FLOAT ? v.u.f : v.kind == J_INT && v.n == (size_t)(v.u.i >> 63) ? (double)v.u.i : (double)jinja_int(v);
}

int64_t jinja_index(jv v)
{
    __int128 i = jinja_int(v), most = INT64_MAX / 4;
    return (int64_t)(i > most ? most : i < -most ? -most : i);
}

/* ---- undefined */

jv jinja_undefined(jrun *r, const char *owner, jv name)
{
    struct jundefined *u = jinja_alloc(r, sizeof *u);
    if (u)
        *u = (struct jundefined){owner, name, false, false};
    return (jv){.kind = J_UNDEFINED, .u.undefined = u};
}

int jinja_use_undefined(jv v)
{
    const struct jundefined *u = v.u.undefined;
    if (!u)
        return sw_fail("an undefined value is used");
    int n = (int)SW_MIN(u->name.n, 200);
    if (u->parameter)
        return sw_fail("parameter '%.*s' was not provided", n, u->name.u.s);
    if (u->unsafe)
        return sw_fail("access to attribute '%.*s' of '%s' is unsafe", n, u->name.u.s, u->owner);
    if (!u->owner)
        return sw_fail("'%.*s' is undefined", n, u->name.u.s);
    if (u->name.kind == J_STR)
        return sw_fail("'%s' has no attribute '%.*s'", u->owner, n, u->name.u.s);
    if (u->name.kind == J_INT)
        return sw_fail("%s has no element %lld", u->owner, (long long)u->name.u.i);
    return sw_fail("%s has no such element", u->owner);
}

const char *jinja_type_name(jv v)
{
    switch ((jkind)v.kind) {
    case J_MISSING:
    case J_UNDEFINED: return "Undefined";
    case J_NONE: return "NoneType";
    case J_BOOL: return "bool";
    case J_INT: return "int";
    case J_FLOAT: return "float";
    case J_STR: return v.flags & JF_MARKUP ? "Markup" : "str";
    case J_LIST: return "list";
    case J_TUPLE: return "tuple";
    case J_VIEW: return v.flags == JF_RANGE ? "range" : v.flags == JF_KEYS ? "dict_keys" : v.flags == JF_VALUES ? "dict_values" : "dict_items";
    case J_ITER: return "generator";
    case J_DICT: return "dict";
    case J_NAMESPACE: return "Namespace";
    case J_MACRO: return "Macro";
    case J_FUNCTION: return "function";
    case J_METHOD: return "builtin_function_or_method";
    case J_LOOP: return "LoopContext";
    case J_CYCLER: return "Cycler";
    case J_JOINER: return "Joiner";
    }
    return "object";
}

bool jinja_truth(jv v)
{
    switch ((jkind)v.kind) {
    case J_MISSING:
    case J_UNDEFINED:
    case J_NONE: return false;
    case J_BOOL: return v.u.b;
    case J_INT: return v.u.i || v.n;
    case J_FLOAT: return v.u.f != 0;
    case J_STR:
    case J_LIST:
    case J_TUPLE:
    case J_VIEW: return v.n;
    case J_DICT: return v.u.dict->n;
    default: return true;
    }
}

/* ---- equality and order */

uint32_t jinja_hash(const char *s, size_t n)
{
    uint32_t h = (uint32_t)XXH3_64bits(s, n);
    return h ? h : 1;
}

/* Equal values have equal hashes: 1, 1.0 and true are one key. 0 and an error for what is no key. */
static int hash_value(jrun *r, jv v, uint32_t *out)
{
    switch ((jkind)v.kind) {
    case J_STR: *out = v.hash ? v.hash : jinja_hash(v.u.s, v.n); return 0;
    case J_FLOAT:
        if (fabs(v.u.f) < 9e18 && v.u.f == floor(v.u.f))
            v = jint((int64_t)v.u.f);
        *out = jinja_hash((const char *)&v.u.i, sizeof v.u.i);
        return 0;
    case J_BOOL: v = jint(v.u.b); /* fallthrough */
    case J_INT: *out = jinja_hash((const char *)&v.u.i, sizeof v.u.i); return 0;
    case J_TUPLE: {
        uint32_t h = 17;
        if (r->depth > JINJA_MAX_DEPTH)
            return sw_fail("values are nested too deeply");
        r->depth++;
        for (size_t i = 0; i < v.n; i++) {
            uint32_t one;
            if (hash_value(r, v.u.items[i], &one))
                return -1;
            h = h * 31 + one;
        }
        r->depth--;
        *out = h;
        return 0;
    }
    case J_LIST:
    case J_DICT:
    case J_NAMESPACE: return sw_fail("unhashable type: '%s'", jinja_type_name(v));
    default: *out = v.kind; return 0;
    }
}

static bool equal_items(jrun *r, const jv *a, const jv *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!jinja_equal(r, a[i], b[i]))
            return false;
    return true;
}

bool jinja_equal(jrun *r, jv a, jv b)
{
    if (a.kind == J_STR && b.kind == J_STR)
        return a.n == b.n && (a.u.s == b.u.s || !memcmp(a.u.s, b.u.s, a.n));
    if (jis_number(a) && jis_number(b)) {
        if (a.kind != J_FLOAT && b.kind != J_FLOAT)
            return jinja_int(a) == jinja_int(b);
        return jinja_double(a) == jinja_double(b);
    }
    if (a.kind != b.kind || r->depth > JINJA_MAX_DEPTH)
        return false;
    bool same = false;
    r->depth++;
    r->steps++;
    switch ((jkind)a.kind) {
    case J_UNDEFINED:
    case J_NONE: same = true; break;
    case J_VIEW:
        if (a.flags != b.flags)
            break; /* fallthrough */
    case J_LIST:
    case J_TUPLE: same = a.n == b.n && equal_items(r, a.u.items, b.u.items, a.n); break;
    case J_DICT:
        same = a.u.dict->n == b.u.dict->n;
        for (size_t i = 0; same && i < a.u.dict->n; i++) {
            const jv *other = jinja_dict_find(r, b.u.dict, a.u.dict->at[i].key);
            same = other && jinja_equal(r, a.u.dict->at[i].value, *other);
        }
        break;
    default: same = a.u.s == b.u.s;
    }
    r->depth--;
    return same;
}

int jinja_compare(jrun *r, jv a, jv b, const char *op, int *cmp)
{
    if (a.kind == J_UNDEFINED)
        return jinja_use_undefined(a);
    if (b.kind == J_UNDEFINED)
        return jinja_use_undefined(b);
    if (jis_number(a) && jis_number(b)) {
        if (a.kind != J_FLOAT && b.kind != J_FLOAT) {
            __int128 x = jinja_int(a), y = jinja_int(b);
            *cmp = (x > y) - (x < y);
        } else {
            double x = jinja_double(a), y = jinja_double(b);
            *cmp = x < y ? -1 : x > y ? 1 : x == y ? 0 : 2; /* 2: not a number, no order */
        }
        return 0;
    }
    if (a.kind == J_STR && b.kind == J_STR) { /* UTF-8 sorts as code points do */
        int c = memcmp(a.u.s, b.u.s, SW_MIN(a.n, b.n));
        *cmp = c ? (c > 0) - (c < 0) : (a.n > b.n) - (a.n < b.n);
        return 0;
    }
    if (a.kind == b.kind && (a.kind == J_LIST || a.kind == J_TUPLE)) {
        if (r->depth > JINJA_MAX_DEPTH)
            return sw_fail("values are nested too deeply");
        for (size_t i = 0; i < a.n && i < b.n; i++) {
            if (jinja_equal(r, a.u.items[i], b.u.items[i]))
                continue;
            r->depth++;
            int bad = jinja_compare(r, a.u.items[i], b.u.items[i], op, cmp);
            r->depth--;
            return bad;
        }
        *cmp = (a.n > b.n) - (a.n < b.n);
        return 0;
    }
    return sw_fail("'%s' not supported between instances of '%s' and '%s'", op, jinja_type_name(a), jinja_type_name(b));
}

int jinja_contains(jrun *r, jv item, jv in, bool *yes)
{
    *yes = false;
    if (in.kind == J_STR) {
        if (item.kind == J_UNDEFINED)
            return jinja_use_undefined(item);
        if (item.kind != J_STR)
            return sw_fail("'in <string>' requires string as left operand, not %s", jinja_type_name(item));
        *yes = !item.n || memmem(in.u.s, in.n, item.u.s, item.n);
        return jinja_charge(r, in.n / 64);
    }
    if (in.kind == J_DICT) {
        uint32_t h;
        if (hash_value(r, item, &h))
            return -1;
        *yes = jinja_dict_find(r, in.u.dict, item);
        return 0;
    }
    const jv *items;
    size_t n;
    if (!jinja_iterable(in))
        return sw_fail("argument of type '%s' is not iterable", jinja_type_name(in));
    if (jinja_iterate(r, in, &items, &n) || jinja_charge(r, n))
        return -1;
    for (size_t i = 0; i < n && !*yes; i++)
        *yes = jinja_equal(r, items[i], item);
    return 0;
}

/* ---- sequences */

bool jinja_iterable(jv v)
{
    return v.kind == J_UNDEFINED || v.kind == J_LOOP || (v.kind >= J_STR && v.kind <= J_DICT);
}

const jv jinja_no_items[1];

int jinja_iterate(jrun *r, jv v, const jv **items, size_t *n)
{
    *items = jinja_no_items;
    *n = 0;
    switch ((jkind)v.kind) {
    case J_UNDEFINED: return 0;
    case J_LIST:
    case J_TUPLE:
    case J_VIEW:
        *items = v.u.items;
        *n = v.n;
        return 0;
    case J_ITER:
        *n = v.u.iter->n - v.u.iter->pos;
        *items = *n ? v.u.iter->at + v.u.iter->pos : jinja_no_items;
        v.u.iter->pos = v.u.iter->n;
        return 0;
    case J_DICT: {
        jv *keys = jinja_items(r, v.u.dict->n);
        if (!keys)
            return -1;
        for (size_t i = 0; i < v.u.dict->n; i++)
            keys[i] = v.u.dict->at[i].key;
        *items = keys;
        *n = v.u.dict->n;
        return 0;
    }
    case J_STR: {
        size_t count = sw_utf8_count(v.u.s, v.n), at = 0;
        jv *chars = jinja_items(r, count);
        if (!chars || jinja_charge(r, count / 4))
            return -1;
        for (size_t i = 0; i < count && at < v.n; i++) {
            uint32_t cp;
            int len = sw_utf8_decode(v.u.s + at, v.n - at, &cp);
            chars[i] = jspan(v.u.s + at, len ? (size_t)len : 1);
            at += chars[i].n;
        }
        *items = chars;
        *n = count;
        return 0;
    }
    default: return sw_fail("'%s' object is not iterable", jinja_type_name(v));
    }
}

int jinja_length(jv v, size_t *n)
{
    *n = 0;
    switch ((jkind)v.kind) {
    case J_UNDEFINED: return v.u.undefined && v.u.undefined->unsafe ? jinja_use_undefined(v) : 0;
    case J_STR: *n = sw_utf8_count(v.u.s, v.n); return 0;
    case J_LIST:
    case J_TUPLE:
    case J_VIEW: *n = v.n; return 0;
    case J_DICT: *n = v.u.dict->n; return 0;
    case J_LOOP: *n = v.u.loop->n; return 0;
    default: return sw_fail("object of type '%s' has no len()", jinja_type_name(v));
    }
}

/* ---- dictionaries */

enum { SMALL_DICT = 12 };

jv jinja_dict_new(jrun *r, size_t cap)
{
    jdict *d = jinja_alloc(r, sizeof *d);
    if (!d)
        return (jv){0};
    *d = (jdict){0};
    if (cap && cap < JINJA_MAX_MEMORY / sizeof(jentry) && (d->at = jinja_alloc(r, cap * sizeof *d->at)))
        d->cap = cap;
    return cap && !d->at ? (jv){0} : (jv){.kind = J_DICT, .u.dict = d};
}

static size_t find_entry(jrun *r, const jdict *d, jv key, uint32_t h)
{
    if (!d->index) {
        for (size_t i = 0; i < d->n; i++)
            if (d->at[i].hash == h && jinja_equal(r, d->at[i].key, key))
                return i;
        return SIZE_MAX;
    }
    for (size_t at = h & d->mask; d->index[at]; at = (at + 1) & d->mask) {
        size_t i = d->index[at] - 1;
        if (d->at[i].hash == h && jinja_equal(r, d->at[i].key, key))
            return i;
    }
    return SIZE_MAX;
}

static void index_entry(jdict *d, size_t i)
{
    size_t at = d->at[i].hash & d->mask;
    while (d->index[at])
        at = (at + 1) & d->mask;
    d->index[at] = (uint32_t)i + 1;
}

int jinja_dict_put(jrun *r, jdict *d, jv key, jv value)
{
    uint32_t h;
    if (hash_value(r, key, &h))
        return -1;
    size_t i = find_entry(r, d, key, h);
    if (i != SIZE_MAX) {
        d->at[i].value = value;
        return 0;
    }
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 4;
        jentry *at = jinja_alloc(r, cap * sizeof *at);
        if (!at)
            return -1;
        if (d->n)
            memcpy(at, d->at, d->n * sizeof *at);
        d->at = at;
        d->cap = cap;
    }
    d->at[d->n++] = (jentry){key, value, h};
    if (d->index && d->n * 2 <= d->mask) {
        index_entry(d, d->n - 1);
    } else if (d->n > SMALL_DICT) {
        size_t size = 64;
        while (size < d->n * 4)
            size *= 2;
        d->index = jinja_alloc(r, size * sizeof *d->index);
        if (!d->index)
            return -1;
        memset(d->index, 0, size * sizeof *d->index);
        d->mask = size - 1;
        for (size_t k = 0; k < d->n; k++)
            index_entry(d, k);
    }
    return 0;
}

const jv *jinja_dict_find(jrun *r, const jdict *d, jv key)
{
    uint32_t h;
    if (key.kind == J_STR)
        h = key.hash ? key.hash : jinja_hash(key.u.s, key.n);
    else if (hash_value(r, key, &h))
        return NULL;
    size_t i = find_entry(r, d, key, h);
    return i == SIZE_MAX ? NULL : &d->at[i].value;
}

/* ---- JSON */

static int from_text(jrun *r, const char *s, jv *out)
{
    size_t n = strlen(s);
    *out = jspan(s, n);
    if (!memchr(s, '\xc0', n))
        return 0;
    char *to = jinja_text(r, n); /* C0 80 stands for U+0000 (base/json.h) */
    if (!to)
        return -1;
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        bool nul = s[i] == '\xc0' && s[i + 1] == '\x80';
        to[k++] = nul ? 0 : s[i];
        i += nul;
    }
    *out = jspan(to, k);
    return 0;
}

/* 1 is an int and 1.0 a float. A number without its spelling was made by a program: whole ones are ints. */
static jv from_number(const cJSON *j)
{
    double d = j->valuedouble;
    const char *text = sw_json_number_text(j);
    if (!text)
        return fabs(d) < 0x1p63 && d == floor(d) ? jint((int64_t)d) : jfloat(d);
    bool negative = *text == '-';
    __int128 i = 0;
    for (const char *c = text + negative; *c; c++)
        if (*c < '0' || *c > '9' || __builtin_mul_overflow(i, 10, &i) || __builtin_add_overflow(i, *c - '0', &i))
            return jfloat(d);
    return jinja_from_int(negative ? -i : i);
}

int jinja_from_json(jrun *r, const cJSON *j, jv *out)
{
    *out = J_NONE_V;
    size_t n = 0;
    switch (j->type & 0xff) {
    case cJSON_True: *out = jbool(true); return 0;
    case cJSON_False: *out = jbool(false); return 0;
    case cJSON_String: return from_text(r, j->valuestring, out);
    case cJSON_Number: *out = from_number(j); return 0;
    case cJSON_Array: {
        for (const cJSON *c = j->child; c; c = c->next)
            n++;
        jv *items = jinja_items(r, n);
        if (!items)
            return -1;
        *out = jlist(J_LIST, items, n);
        for (const cJSON *c = j->child; c; c = c->next)
            if (jinja_from_json(r, c, items++))
                return -1;
        return 0;
    }
    case cJSON_Object: {
        for (const cJSON *c = j->child; c; c = c->next)
            n++;
        jv d = jinja_dict_new(r, n);
        if (!d.kind)
            return -1;
        for (const cJSON *c = j->child; c; c = c->next) {
            jv key, value;
            if (from_text(r, c->string ? c->string : "", &key) || jinja_from_json(r, c, &value))
                return -1;
            key.hash = jinja_hash(key.u.s, key.n);
            if (jinja_dict_put(r, d.u.dict, key, value))
                return -1;
        }
        *out = d;
        return 0;
    }
    default: return 0;
    }
}
