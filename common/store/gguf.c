#include "store/gguf_format.h"

#include "base/map.h"
#include "base/memory.h"
#include "store/made.h"
#include "store/quant.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ALIGNMENT = 1 << 20 };

static const char *const type_words[SW_GGUF_TYPES] = {"a number", "a number", "a number", "a number", "a number",
                                              "a number", "a number", "a bool",   "a string", "an array",
                                              "a number", "a number", "a number"};

struct sw_gguf {
    char *path;
    sw_mapping map;
    bool mapped;
    struct { sw_gguf_value *at; size_t n, cap; } values;
    struct { sw_entry *at; size_t n, cap; } tensors;
    sw_map keys, names;
    sw_arena text, copies;
    sw_gguf **parts; /* the other files of a split model, in order; its tensors are listed here, too */
    size_t n_parts;
};

typedef struct cursor {
    const uint8_t *at;
    size_t left;
} cursor;

static int take(cursor *c, size_t n, const uint8_t **at)
{
    if (n > c->left)
        return sw_fail("%zu bytes are needed, only %zu are left: the file is cut short", n, c->left);
    *at = c->at;
    c->at += n;
    c->left -= n;
    return 0;
}

static int take_u32(cursor *c, uint32_t *v)
{
    const uint8_t *p = NULL;
    if (take(c, 4, &p))
        return -1;
    memcpy(v, p, 4);
    return 0;
}

static int take_u64(cursor *c, uint64_t *v)
{
    const uint8_t *p = NULL;
    if (take(c, 8, &p))
        return -1;
    memcpy(v, p, 8);
    return 0;
}

static int take_span(cursor *c, sw_span *s)
{
    uint64_t n;
    const uint8_t *p = NULL;
    if (take_u64(c, &n))
        return -1;
    if (n > c->left)
        return sw_fail("a string of %" PRIu64 " bytes is announced, only %zu are left", n, c->left);
    if (take(c, (size_t)n, &p))
        return -1;
    *s = (sw_span){(const char *)p, (size_t)n};
    return 0;
}

/* A key or tensor name: UTF-8 without NUL. */
static int take_name(sw_gguf *g, cursor *c, char **name)
{
    sw_span s;
    if (take_span(c, &s))
        return -1;
    if (sw_utf8_valid_prefix(s.at, s.n) < s.n || memchr(s.at, 0, s.n))
        return sw_fail("is no UTF-8 text without NUL");
    *name = sw_arena_strndup(&g->text, s.at, s.n);
    return 0;
}

static int take_array(cursor *c, sw_gguf_value *v)
{
    uint32_t item;
    if (take_u32(c, &item) || take_u64(c, &v->count))
        return -1;
    if (item >= SW_GGUF_TYPES)
        return sw_fail("items of the unknown type %u", item);
    if (item == SW_GGUF_ARRAY)
        return sw_fail("arrays of arrays are not allowed");
    v->item = (sw_gguf_type)item;
    v->at = c->at;
    size_t least = item == SW_GGUF_STR ? 8 : sw_gguf_scalar_bytes[item];
    if (v->count > c->left / least)
        return sw_fail("an array of %" PRIu64 " items is announced, only %zu bytes are left", v->count, c->left);
    if (item != SW_GGUF_STR)
        return take(c, (size_t)v->count * least, &v->at);
    for (uint64_t i = 0; i < v->count; i++) {
        sw_span s;
        if (take_span(c, &s))
            return sw_fail_in("item %" PRIu64, i);
    }
    return 0;
}

static int take_value(sw_gguf *g, cursor *c)
{
    sw_gguf_value v = {0};
    uint32_t type;
    char *key;
    sw_span s;
    if (take_name(g, c, &key))
        return sw_fail_in("key %zu", g->values.n);
    v.key = key;
    if (take_u32(c, &type))
        return sw_fail_in("%s", key);
    if (type >= SW_GGUF_TYPES)
        return sw_fail("%s: a value of the unknown type %u", key, type);
    v.type = (sw_gguf_type)type;
    v.at = c->at;
    if (type == SW_GGUF_ARRAY ? take_array(c, &v) : type == SW_GGUF_STR ? take_span(c, &s) : take(c, sw_gguf_scalar_bytes[type], &v.at))
        return sw_fail_in("%s", key);
    if (sw_map_gets(&g->keys, key, -1) >= 0)
        return sw_fail("%s: the key is there twice", key);
    sw_map_puts(&g->keys, key, (int64_t)g->values.n);
    SW_PUSH(g->values, v);
    return 0;
}

typedef struct extent {
    uint64_t start, end;
    size_t tensor;
} extent;

static int take_tensor(sw_gguf *g, cursor *c, extent *where)
{
    sw_entry e = {.file = &g->map};
    uint32_t ndim, type;
    uint64_t dim, offset;
    int64_t shape[SW_GGUF_MAX_DIMS];
    size_t bytes;
    if (take_name(g, c, &e.name))
        return sw_fail_in("name of tensor %zu", g->tensors.n);
    if (take_u32(c, &ndim))
        return sw_fail_in("tensor '%s'", e.name);
    if (ndim > SW_GGUF_MAX_DIMS)
        return sw_fail("tensor '%s': %u dimensions, at most %d are allowed", e.name, ndim, SW_GGUF_MAX_DIMS);
    for (uint32_t i = 0; i < ndim; i++) {
        if (take_u64(c, &dim))
            return sw_fail_in("tensor '%s'", e.name);
        if (dim > INT64_MAX)
            return sw_fail("tensor '%s': a dimension of %" PRIu64, e.name, dim);
        shape[ndim - 1 - i] = (int64_t)dim;
    }
    if (take_u32(c, &type) || take_u64(c, &offset))
        return sw_fail_in("tensor '%s'", e.name);
    sw_dtype dtype = sw_dtype_by_gguf(type > INT32_MAX ? -1 : (int)type);
    if (dtype == SW_DTYPE_COUNT)
        return sw_fail("tensor '%s': the type %u is not known", e.name, type);
    if (sw_shape_bytes(dtype, (int)ndim, shape, &bytes))
        return sw_fail_in("tensor '%s'", e.name);
    if (sw_map_gets(&g->names, e.name, -1) >= 0)
        return sw_fail("tensor '%s' is listed twice", e.name);
    if (offset > UINT64_MAX - bytes)
        return sw_fail("tensor '%s': the offset %" PRIu64 " is beyond any file", e.name, offset);
    e.t = sw_tensor_of(NULL, dtype, (int)ndim, shape);
    *where = (extent){offset, offset + bytes, g->tensors.n};
    sw_map_puts(&g->names, e.name, (int64_t)g->tensors.n);
    SW_PUSH(g->tensors, e);
    return 0;
}

static int by_start(const void *a, const void *b)
{
    const extent *x = a, *y = b;
    if (x->start != y->start)
        return x->start < y->start ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* Gives every tensor its place in the data part. */
static int place(sw_gguf *g, extent *at, size_t n, const uint8_t *data, size_t data_n, int64_t alignment)
{
    if (n)
        qsort(at, n, sizeof *at, by_start);
    for (size_t i = 0; i < n; i++) {
        sw_entry *e = &g->tensors.at[at[i].tensor];
        if (at[i].start % (uint64_t)alignment)
            return sw_fail("tensor '%s': the offset %" PRIu64 " is no multiple of %" PRId64, e->name, at[i].start, alignment);
        if (at[i].end > data_n)
            return sw_fail("tensor '%s' ends at byte %" PRIu64 " of the data, of which %zu are there: the file is cut short",
                           e->name, at[i].end, data_n);
        if (i && at[i].start < at[i - 1].end)
            return sw_fail("tensor '%s' overlaps '%s'", e->name, g->tensors.at[at[i - 1].tensor].name);
        e->t.data = (void *)(uintptr_t)(data + at[i].start);
        sw_entry_align(e, &g->copies);
    }
    return 0;
}

static int parse(sw_gguf *g)
{
    cursor c = {g->map.at, g->map.n};
    const uint8_t *magic;
    uint32_t version;
    uint64_t tensors, values;
    int64_t alignment;
    if (g->map.n < 8 || take(&c, 4, &magic) || memcmp(magic, "GGUF", 4))
        return sw_fail("no GGUF file: it does not begin with \"GGUF\"");
    if (take_u32(&c, &version))
        return -1;
    if (version != 2 && version != 3)
        return sw_fail(version & 0xffff ? "GGUF version %u; versions 2 and 3 are read"
                                        : "a big-endian GGUF file (version field %#x); little-endian ones are read", version);
    if (take_u64(&c, &tensors) || take_u64(&c, &values))
        return -1;
    /* the shortest value is a key length, a type and a byte; the shortest tensor a name length, rank, type, offset */
    if (values > c.left / 13 || tensors > c.left / 24)
        return sw_fail("%" PRIu64 " values and %" PRIu64 " tensors are announced, only %zu bytes follow", values, tensors,
                       c.left);
    for (uint64_t i = 0; i < values; i++)
        if (take_value(g, &c))
            return -1;
    if (sw_gguf_i64(g, "general.alignment", 8, MAX_ALIGNMENT, SW_GGUF_ALIGNMENT, &alignment))
        return -1;
    if (alignment & (alignment - 1))
        return sw_fail("general.alignment is %" PRId64 ", a power of two is needed", alignment);
    extent *at = SW_NEW_ARRAY(extent, (size_t)tensors + 1);
    int rc = 0;
    for (uint64_t i = 0; !rc && i < tensors; i++)
        rc = take_tensor(g, &c, &at[i]);
    if (!rc) {
        size_t head = g->map.n - c.left, pad = (size_t)(-(int64_t)head & (alignment - 1));
        pad = SW_MIN(pad, c.left); /* a file without data may end at its header */
        rc = place(g, at, (size_t)tensors, c.at + pad, c.left - pad, alignment);
    }
    free(at);
    return rc;
}

static sw_gguf *finish(sw_gguf *g, int rc)
{
    if (!rc && !parse(g))
        return g;
    if (!rc)
        sw_fail_in("%s", g->path);
    sw_gguf_close(g);
    return NULL;
}

static sw_gguf *open_file(const char *path)
{
    sw_gguf *g = SW_NEW(sw_gguf);
    g->path = sw_strdup(path);
    int rc = sw_map_file(path, &g->map);
    g->mapped = !rc;
    return finish(g, rc);
}

/* ---- models in several files: NAME-00001-of-0000N.gguf has the metadata and says split.count; each says its split.no */

/* The name of part i (from 0) beside a part's own; NULL where that has no name of a part. Caller frees. */
static char *part_path(const char *path, int64_t i, int64_t count)
{
    char *tail = sw_strfmt("-of-%05" PRId64 ".gguf", count);
    size_t n = strlen(path), t = strlen(tail);
    char *out = n > t + 6 && sw_ends_with(path, tail) && path[n - t - 6] == '-'
                    ? sw_strfmt("%.*s-%05" PRId64 "%s", (int)(n - t - 6), path, i + 1, tail)
                    : sw_fail_null("%s: is one of %" PRId64 " files, of which the first must be named NAME-00001%s", path, count, tail);
    free(tail);
    return out;
}

static int split_of(const sw_gguf *g, int64_t *no, int64_t *count)
{
    return sw_gguf_i64(g, "split.count", 0, 99999, 0, count) || sw_gguf_i64(g, "split.no", 0, 99999, 0, no) ? -1 : 0;
}

static int add_part(sw_gguf *g, sw_gguf *part, int64_t i, int64_t count)
{
    int64_t no, total;
    if (split_of(part, &no, &total))
        return -1;
    if (no != i || total != count)
        return sw_fail("%s: says that it is part %" PRId64 " of %" PRId64 ", its name and %s make it part %" PRId64 " of %" PRId64, part->path,
                       no + 1, total, g->path, i + 1, count);
    for (size_t k = 0; k < part->tensors.n; k++) {
        if (sw_map_gets(&g->names, part->tensors.at[k].name, -1) >= 0)
            return sw_fail("%s: tensor '%s' is in an earlier part, too", part->path, part->tensors.at[k].name);
        sw_map_puts(&g->names, part->tensors.at[k].name, (int64_t)g->tensors.n);
        SW_PUSH(g->tensors, part->tensors.at[k]);
    }
    return 0;
}

static int open_parts(sw_gguf *g, int64_t count)
{
    int64_t tensors;
    g->parts = SW_NEW_ARRAY(sw_gguf *, (size_t)count);
    for (int64_t i = 1; i < count; i++) {
        char *path = part_path(g->path, i, count);
        sw_gguf *part = path ? open_file(path) : NULL;
        free(path);
        if (!part)
            return sw_fail_in("part %" PRId64 " of %" PRId64, i + 1, count);
        g->parts[g->n_parts++] = part;
        if (add_part(g, part, i, count))
            return -1;
    }
    if (sw_gguf_i64(g, "split.tensors.count", 0, INT64_MAX, (int64_t)g->tensors.n, &tensors))
        return -1;
    return tensors == (int64_t)g->tensors.n ? 0 : sw_fail("%s: %" PRId64 " tensors are announced, its parts hold %zu", g->path, tensors, g->tensors.n);
}

sw_gguf *sw_gguf_open(const char *path)
{
    int64_t no = 0, count = 0;
    sw_gguf *g = open_file(path);
    int rc = g ? split_of(g, &no, &count) : -1;
    if (!rc && count > 1 && no > 0) { /* whichever part is named, the model is the whole */
        char *first = part_path(path, 0, count);
        sw_gguf_close(g);
        g = first ? open_file(first) : NULL;
        free(first);
        rc = g ? split_of(g, &no, &count) : -1;
        if (!rc && no)
            rc = sw_fail("%s: says that it is part %" PRId64 ", the first is needed", g->path, no + 1);
    }
    if (!rc && (count <= 1 || !open_parts(g, count)))
        return g;
    sw_gguf_close(g);
    return NULL;
}

sw_gguf *sw_gguf_from_bytes(const void *bytes, size_t n, const char *name)
{
    sw_gguf *g = SW_NEW(sw_gguf);
    g->path = sw_strdup(name);
    g->map = (sw_mapping){bytes, n};
    return finish(g, 0);
}

sw_gguf *sw_gguf_from_map(sw_mapping map, const char *name)
{
    sw_gguf *g = SW_NEW(sw_gguf);
    g->path = sw_strdup(name);
    g->map = map;
    g->mapped = true;
    return finish(g, 0);
}

void sw_gguf_close(sw_gguf *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < g->n_parts; i++)
        sw_gguf_close(g->parts[i]);
    free(g->parts);
    if (g->mapped)
        sw_unmap_file(&g->map);
    free(g->values.at);
    free(g->tensors.at);
    sw_map_free(&g->keys);
    sw_map_free(&g->names);
    sw_arena_free(&g->text);
    sw_arena_free(&g->copies);
    free(g->path);
    free(g);
}

const char *sw_gguf_path(const sw_gguf *g) { return g->path; }
size_t sw_gguf_value_count(const sw_gguf *g) { return g->values.n; }
size_t sw_gguf_tensor_count(const sw_gguf *g) { return g->tensors.n; }
const sw_gguf_value *sw_gguf_value_at(const sw_gguf *g, size_t i) { return i < g->values.n ? &g->values.at[i] : NULL; }
const sw_entry *sw_gguf_tensor_at(const sw_gguf *g, size_t i) { return i < g->tensors.n ? &g->tensors.at[i] : NULL; }

const sw_gguf_value *sw_gguf_find(const sw_gguf *g, const char *key)
{
    int64_t i = sw_map_gets(&g->keys, key, -1);
    return i < 0 ? NULL : &g->values.at[i];
}

const sw_entry *sw_gguf_tensor(const sw_gguf *g, const char *name)
{
    int64_t i = sw_map_gets(&g->names, name, -1);
    return i < 0 ? NULL : &g->tensors.at[i];
}

/* One scalar; *is_whole false where it is a float. Whole numbers beyond int64 read as its largest. */
static bool scalar(sw_gguf_type type, const uint8_t *at, double *f, int64_t *i, bool *is_whole)
{
    union { uint8_t u8; int8_t i8; uint16_t u16; int16_t i16; uint32_t u32; int32_t i32; uint64_t u64; int64_t i64; float f32; double f64; } v;
    if (type == SW_GGUF_STR || type == SW_GGUF_ARRAY)
        return false;
    memcpy(&v, at, sw_gguf_scalar_bytes[type]);
    *is_whole = true;
    switch (type) {
    case SW_GGUF_U8: *i = v.u8; break;
    case SW_GGUF_BOOL: *i = v.u8 != 0; break;
    case SW_GGUF_I8: *i = v.i8; break;
    case SW_GGUF_U16: *i = v.u16; break;
    case SW_GGUF_I16: *i = v.i16; break;
    case SW_GGUF_U32: *i = v.u32; break;
    case SW_GGUF_I32: *i = v.i32; break;
    case SW_GGUF_I64: *i = v.i64; break;
    case SW_GGUF_U64: *i = v.u64 > INT64_MAX ? INT64_MAX : (int64_t)v.u64; break;
    default:
        *is_whole = false;
        *f = type == SW_GGUF_F32 ? (double)v.f32 : v.f64;
        return true;
    }
    *f = (double)*i;
    return true;
}

int sw_gguf_i64(const sw_gguf *g, const char *key, int64_t min, int64_t max, int64_t missing, int64_t *out)
{
    const sw_gguf_value *v = sw_gguf_find(g, key);
    double f;
    bool is_whole;
    *out = missing;
    if (!v)
        return 0;
    if (v->type == SW_GGUF_BOOL || !scalar(v->type, v->at, &f, out, &is_whole) || !is_whole)
        return sw_fail("%s: %s is %s, a whole number is needed", g->path, key,
                       v->type == SW_GGUF_F32 || v->type == SW_GGUF_F64 ? "a fraction" : type_words[v->type]);
    if (*out < min || *out > max)
        return sw_fail("%s: %s is %" PRId64 ", it must lie in %" PRId64 "..%" PRId64, g->path, key, *out, min, max);
    return 0;
}

int sw_gguf_f64(const sw_gguf *g, const char *key, double missing, double *out)
{
    const sw_gguf_value *v = sw_gguf_find(g, key);
    int64_t i;
    bool is_whole;
    *out = missing;
    if (v && (v->type == SW_GGUF_BOOL || !scalar(v->type, v->at, out, &i, &is_whole)))
        return sw_fail("%s: %s is %s, a number is needed", g->path, key, type_words[v->type]);
    return 0;
}

int sw_gguf_bool(const sw_gguf *g, const char *key, bool missing, bool *out)
{
    const sw_gguf_value *v = sw_gguf_find(g, key);
    *out = missing;
    if (v && v->type != SW_GGUF_BOOL)
        return sw_fail("%s: %s is %s, a bool is needed", g->path, key, type_words[v->type]);
    if (v)
        *out = *v->at != 0;
    return 0;
}

sw_span sw_gguf_str(const sw_gguf *g, const char *key)
{
    const sw_gguf_value *v = sw_gguf_find(g, key);
    return v && v->type == SW_GGUF_STR ? sw_gguf_span_at(v->at) : (sw_span){0};
}

sw_gguf_iter sw_gguf_items(const sw_gguf_value *v) { return (sw_gguf_iter){.v = v, .at = v ? v->at : NULL}; }

static bool more(const sw_gguf_iter *it) { return it->v && it->v->type == SW_GGUF_ARRAY && it->i < it->v->count; }

bool sw_gguf_next_str(sw_gguf_iter *it, sw_span *out)
{
    if (!more(it) || it->v->item != SW_GGUF_STR)
        return false;
    *out = sw_gguf_span_at(it->at);
    it->at += 8 + out->n;
    it->i++;
    return true;
}

bool sw_gguf_next_f64(sw_gguf_iter *it, double *out)
{
    int64_t i;
    bool is_whole;
    if (!more(it) || !scalar(it->v->item, it->at, out, &i, &is_whole))
        return false;
    it->at += sw_gguf_scalar_bytes[it->v->item];
    it->i++;
    return true;
}
