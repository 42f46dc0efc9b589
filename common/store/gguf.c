#include "store/gguf.h"

#include "base/map.h"
#include "base/memory.h"
#include "store/quant.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "model files are mapped as they lie: little-endian machines only"
#endif

enum { TYPES = SW_GGUF_F64 + 1, MAX_GGUF_DIMS = 4, DEFAULT_ALIGNMENT = 32, MAX_ALIGNMENT = 1 << 20 };

static const uint8_t scalar_bytes[TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
static const char *const type_words[TYPES] = {"a number", "a number", "a number", "a number", "a number",
                                              "a number", "a number", "a bool",   "a string", "an array",
                                              "a number", "a number", "a number"};

/* For messages: types that exist elsewhere and not here. */
static const char *foreign_type(uint32_t t)
{
    static const char *const names[] = {
        [9] = "Q8_1",     [15] = "Q8_K",  [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S", [20] = "IQ4_NL",
        [21] = "IQ3_S",   [22] = "IQ2_S", [23] = "IQ4_XS",  [29] = "IQ1_M",  [34] = "TQ1_0",   [35] = "TQ2_0", [39] = "MXFP4",
        [40] = "NVFP4",
    };
    return t < SW_COUNT(names) && names[t] ? names[t] : "?";
}

struct sw_gguf {
    char *path;
    sw_mapping map;
    bool mapped;
    struct { sw_gguf_value *at; size_t n, cap; } values;
    struct { sw_entry *at; size_t n, cap; } tensors;
    sw_map keys, names;
    sw_arena text, copies;
};

/* ---- reading */

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
    if (item >= TYPES)
        return sw_fail("items of the unknown type %u", item);
    if (item == SW_GGUF_ARRAY)
        return sw_fail("arrays of arrays are not allowed");
    v->item = (sw_gguf_type)item;
    v->at = c->at;
    size_t least = item == SW_GGUF_STR ? 8 : scalar_bytes[item];
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
    if (type >= TYPES)
        return sw_fail("%s: a value of the unknown type %u", key, type);
    v.type = (sw_gguf_type)type;
    v.at = c->at;
    if (type == SW_GGUF_ARRAY ? take_array(c, &v) : type == SW_GGUF_STR ? take_span(c, &s) : take(c, scalar_bytes[type], &v.at))
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
    int64_t shape[MAX_GGUF_DIMS];
    size_t bytes;
    if (take_name(g, c, &e.name))
        return sw_fail_in("name of tensor %zu", g->tensors.n);
    if (take_u32(c, &ndim))
        return sw_fail_in("tensor '%s'", e.name);
    if (ndim > MAX_GGUF_DIMS)
        return sw_fail("tensor '%s': %u dimensions, at most %d are allowed", e.name, ndim, MAX_GGUF_DIMS);
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
        return sw_fail("tensor '%s': the type %s (%u) is not known", e.name, foreign_type(type), type);
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
    if (sw_gguf_i64(g, "general.alignment", 8, MAX_ALIGNMENT, DEFAULT_ALIGNMENT, &alignment))
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

sw_gguf *sw_gguf_open(const char *path)
{
    sw_gguf *g = SW_NEW(sw_gguf);
    g->path = sw_strdup(path);
    int rc = sw_map_file(path, &g->map);
    g->mapped = !rc;
    return finish(g, rc);
}

sw_gguf *sw_gguf_from_bytes(const void *bytes, size_t n, const char *name)
{
    sw_gguf *g = SW_NEW(sw_gguf);
    g->path = sw_strdup(name);
    g->map = (sw_mapping){bytes, n};
    return finish(g, 0);
}

void sw_gguf_close(sw_gguf *g)
{
    if (!g)
        return;
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
    memcpy(&v, at, scalar_bytes[type]);
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

static sw_span span_at(const uint8_t *at)
{
    uint64_t n;
    memcpy(&n, at, 8);
    return (sw_span){(const char *)at + 8, (size_t)n};
}

sw_span sw_gguf_str(const sw_gguf *g, const char *key)
{
    const sw_gguf_value *v = sw_gguf_find(g, key);
    return v && v->type == SW_GGUF_STR ? span_at(v->at) : (sw_span){0};
}

sw_gguf_iter sw_gguf_items(const sw_gguf_value *v) { return (sw_gguf_iter){.v = v, .at = v ? v->at : NULL}; }

static bool more(const sw_gguf_iter *it) { return it->v && it->v->type == SW_GGUF_ARRAY && it->i < it->v->count; }

bool sw_gguf_next_str(sw_gguf_iter *it, sw_span *out)
{
    if (!more(it) || it->v->item != SW_GGUF_STR)
        return false;
    *out = span_at(it->at);
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
    it->at += scalar_bytes[it->v->item];
    it->i++;
    return true;
}

/* ---- writing */

struct sw_gguf_writer {
    sw_buf values, tensors;
    uint64_t n_values;
    sw_map keys, names;
    struct { size_t *at; size_t n, cap; } sizes;
    uint64_t offset;      /* of the next declared tensor */
    size_t current, done; /* the tensor that bytes are wanted for, and how many it has */
    char *bad;
    sw_outfile out;
};

sw_gguf_writer *sw_gguf_writer_new(void) { return SW_NEW(sw_gguf_writer); }

static void put_text(sw_buf *b, const char *s, size_t n)
{
    uint64_t length = n;
    sw_buf_add(b, &length, 8);
    if (n)
        sw_buf_add(b, s, n);
}

static void put_key(sw_gguf_writer *w, const char *key, sw_gguf_type type)
{
    uint32_t t = type;
    if (sw_map_gets(&w->keys, key, -1) >= 0 && !w->bad)
        w->bad = sw_strfmt("%s: the key is given twice", key);
    sw_map_puts(&w->keys, key, 1);
    put_text(&w->values, key, strlen(key));
    sw_buf_add(&w->values, &t, 4);
    w->n_values++;
}

static void put_scalar(sw_gguf_writer *w, const char *key, sw_gguf_type type, const void *v)
{
    put_key(w, key, type);
    sw_buf_add(&w->values, v, scalar_bytes[type]);
}

void sw_gguf_put_u32(sw_gguf_writer *w, const char *key, uint32_t v) { put_scalar(w, key, SW_GGUF_U32, &v); }
void sw_gguf_put_u64(sw_gguf_writer *w, const char *key, uint64_t v) { put_scalar(w, key, SW_GGUF_U64, &v); }
void sw_gguf_put_f32(sw_gguf_writer *w, const char *key, float v) { put_scalar(w, key, SW_GGUF_F32, &v); }
void sw_gguf_put_bool(sw_gguf_writer *w, const char *key, bool v) { put_scalar(w, key, SW_GGUF_BOOL, &(uint8_t){v}); }

void sw_gguf_put_str(sw_gguf_writer *w, const char *key, const char *s, size_t n)
{
    put_key(w, key, SW_GGUF_STR);
    put_text(&w->values, s, n);
}

static void put_array_head(sw_gguf_writer *w, const char *key, sw_gguf_type item, uint64_t count)
{
    uint32_t t = item;
    put_key(w, key, SW_GGUF_ARRAY);
    sw_buf_add(&w->values, &t, 4);
    sw_buf_add(&w->values, &count, 8);
}

void sw_gguf_put_array(sw_gguf_writer *w, const char *key, sw_gguf_type item, uint64_t count, const void *items)
{
    put_array_head(w, key, item, count);
    if (count)
        sw_buf_add(&w->values, items, (size_t)count * scalar_bytes[item]);
}

void sw_gguf_put_strs(sw_gguf_writer *w, const char *key, uint64_t count, const sw_span *items)
{
    put_array_head(w, key, SW_GGUF_STR, count);
    for (uint64_t i = 0; i < count; i++)
        put_text(&w->values, items[i].at, items[i].n);
}

void sw_gguf_put_copy(sw_gguf_writer *w, const sw_gguf_value *v)
{
    if (!strcmp(v->key, "general.alignment"))
        return;
    if (v->type == SW_GGUF_STR) {
        sw_span s = span_at(v->at);
        sw_gguf_put_str(w, v->key, s.at, s.n);
    } else if (v->type != SW_GGUF_ARRAY) {
        put_scalar(w, v->key, v->type, v->at);
    } else if (v->item != SW_GGUF_STR) {
        sw_gguf_put_array(w, v->key, v->item, v->count, v->at);
    } else {
        sw_gguf_iter it = sw_gguf_items(v);
        sw_span s;
        put_array_head(w, v->key, SW_GGUF_STR, v->count);
        while (sw_gguf_next_str(&it, &s))
            put_text(&w->values, s.at, s.n);
    }
}

static size_t padding(uint64_t n) { return (size_t)(-n & (DEFAULT_ALIGNMENT - 1)); }

void sw_gguf_declare(sw_gguf_writer *w, const char *name, sw_dtype dtype, int ndim, const int64_t *shape)
{
    size_t bytes = 0;
    if (w->bad)
        return;
    if (sw_dtypes[dtype].gguf < 0)
        w->bad = sw_strfmt("tensor '%s': GGUF has no type for %s", name, sw_dtypes[dtype].name);
    else if (ndim > MAX_GGUF_DIMS)
        w->bad = sw_strfmt("tensor '%s': %d dimensions, GGUF has at most %d", name, ndim, MAX_GGUF_DIMS);
    else if (sw_shape_bytes(dtype, ndim, shape, &bytes))
        w->bad = sw_strfmt("tensor '%s': %s", name, sw_error());
    else if (sw_map_gets(&w->names, name, -1) >= 0)
        w->bad = sw_strfmt("tensor '%s' is given twice", name);
    if (w->bad)
        return;
    sw_map_puts(&w->names, name, 1);
    put_text(&w->tensors, name, strlen(name));
    sw_buf_add(&w->tensors, &(uint32_t){(uint32_t)ndim}, 4);
    for (int i = ndim - 1; i >= 0; i--)
        sw_buf_add(&w->tensors, &(uint64_t){(uint64_t)shape[i]}, 8);
    sw_buf_add(&w->tensors, &(uint32_t){(uint32_t)sw_dtypes[dtype].gguf}, 4);
    sw_buf_add(&w->tensors, &w->offset, 8);
    SW_PUSH(w->sizes, bytes);
    w->offset += bytes + padding(bytes);
}

/* Tensors that have all their bytes are padded and left behind. */
static int advance(sw_gguf_writer *w)
{
    static const uint8_t zeros[DEFAULT_ALIGNMENT];
    while (w->current < w->sizes.n && w->done == w->sizes.at[w->current]) {
        if (sw_out_write(&w->out, zeros, padding(w->done)))
            return -1;
        w->current++;
        w->done = 0;
    }
    return 0;
}

int sw_gguf_writer_open(sw_gguf_writer *w, const char *path)
{
    if (w->bad)
        return sw_fail("%s: %s", path, w->bad);
    sw_buf h = {0};
    sw_buf_puts(&h, "GGUF");
    sw_buf_add(&h, &(uint32_t){3}, 4);
    sw_buf_add(&h, &(uint64_t){w->sizes.n}, 8);
    sw_buf_add(&h, &w->n_values, 8);
    if (w->values.n)
        sw_buf_add(&h, w->values.at, w->values.n);
    if (w->tensors.n)
        sw_buf_add(&h, w->tensors.at, w->tensors.n);
    while (padding(h.n))
        sw_buf_putc(&h, 0);
    int rc = sw_out_open(&w->out, path);
    if (!rc)
        rc = sw_out_write(&w->out, h.at, h.n);
    if (!rc)
        rc = advance(w);
    sw_buf_free(&h);
    return rc;
}

int sw_gguf_write(sw_gguf_writer *w, const void *bytes, size_t n)
{
    const char *at = bytes;
    while (n) {
        if (w->current == w->sizes.n)
            return sw_fail("%s: more bytes written than the declared tensors have", w->out.path ? w->out.path : "-");
        size_t now = SW_MIN(n, w->sizes.at[w->current] - w->done);
        if (sw_out_write(&w->out, at, now))
            return -1;
        w->done += now;
        at += now;
        n -= now;
        if (advance(w))
            return -1;
    }
    return 0;
}

static void writer_free(sw_gguf_writer *w)
{
    sw_buf_free(&w->values);
    sw_buf_free(&w->tensors);
    sw_map_free(&w->keys);
    sw_map_free(&w->names);
    free(w->sizes.at);
    free(w->bad);
    free(w);
}

int sw_gguf_writer_commit(sw_gguf_writer *w)
{
    int rc = 0;
    if (w->current < w->sizes.n) {
        rc = sw_fail("%s: %zu of %zu tensors were written", w->out.path ? w->out.path : "-", w->current, w->sizes.n);
        sw_out_abort(&w->out);
    } else {
        rc = sw_out_commit(&w->out);
    }
    writer_free(w);
    return rc;
}

void sw_gguf_writer_abort(sw_gguf_writer *w)
{
    if (!w)
        return;
    sw_out_abort(&w->out);
    writer_free(w);
}
