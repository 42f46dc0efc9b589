#include "store/safetensors.h"

#include "base/json.h"
#include "base/map.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER = 100 << 20 }; /* what other readers allow */

/* The format's own spelling of element types. */
static const struct {
    const char *name;
    sw_dtype dtype;
} dtype_names[] = {
    {"F32", SW_F32},         {"F16", SW_F16},         {"BF16", SW_BF16}, {"F64", SW_F64}, {"I8", SW_I8},
    {"I16", SW_I16},         {"I32", SW_I32},         {"I64", SW_I64},   {"U8", SW_U8},   {"BOOL", SW_BOOL},
    {"F8_E4M3", SW_F8_E4M3}, {"F8_E5M2", SW_F8_E5M2}, {"F8_E8M0", SW_F8_E8M0},
};

static const char *name_of(sw_dtype t)
{
    for (size_t i = 0; i < SW_COUNT(dtype_names); i++)
        if (dtype_names[i].dtype == t)
            return dtype_names[i].name;
    return NULL;
}

int sw_shape_bytes(sw_dtype dtype, int ndim, const int64_t *shape, size_t *bytes)
{
    const sw_dtype_info *d = &sw_dtypes[dtype];
    size_t values = 1; /* with 1 for a size of 0: strides must not overflow either */
    bool empty = false;
    if (ndim < 0 || ndim > SW_MAX_DIMS)
        return sw_fail("%d dimensions, at most %d are allowed", ndim, SW_MAX_DIMS);
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0)
            return sw_fail("dimension %d is negative", i);
        if (sw_mul_size(values, shape[i] ? (size_t)shape[i] : 1, &values) || values > INT64_MAX / 16)
            return sw_fail("the shape has too many values");
        empty |= !shape[i];
    }
    if (d->block > 1 && (!ndim || shape[ndim - 1] % d->block))
        return sw_fail("rows of %" PRId64 " values, %s needs a multiple of %d", ndim ? shape[ndim - 1] : 1, d->name,
                       d->block);
    *bytes = empty ? 0 : sw_dtype_bytes(dtype, (int64_t)values);
    return 0;
}

void sw_entry_align(sw_entry *e, sw_arena *copies)
{
    size_t element = (size_t)sw_dtypes[e->t.dtype].bytes, n = sw_tensor_bytes(&e->t);
    if (sw_is_quantised(e->t.dtype))
        element = 2; /* blocks begin with or hold half floats */
    if ((uintptr_t)e->t.data % element)
        e->t.data = memcpy(sw_arena_alloc(copies, n), e->t.data, n);
}

/* ---- reading */

typedef struct item {
    sw_entry e;
    size_t start, end; /* in the data part */
} item;

struct sw_safetensors {
    char *name;
    sw_mapping map;
    bool mapped;
    cJSON *header;
    const cJSON *metadata;
    sw_entry *entries;
    size_t n;
    sw_map index;
    sw_arena copies;
};

static int whole(const cJSON *v, int64_t max, int64_t *out)
{
    if (!cJSON_IsNumber(v) || !(v->valuedouble >= 0 && v->valuedouble <= (double)max) ||
        v->valuedouble != (double)(int64_t)v->valuedouble)
        return -1;
    *out = (int64_t)v->valuedouble;
    return 0;
}

static int read_item(const cJSON *o, size_t data_n, item *out)
{
    const cJSON *dtype = sw_json_get(o, "dtype"), *shape = sw_json_get(o, "shape"), *at = sw_json_get(o, "data_offsets");
    size_t k = 0, want;
    if (!cJSON_IsObject(o))
        return sw_fail("is %s, an object with dtype, shape and data_offsets is needed", sw_json_kind(o));
    if (!cJSON_IsString(dtype))
        return sw_fail("dtype is %s, a string is needed", sw_json_kind(dtype));
    while (k < SW_COUNT(dtype_names) && strcmp(dtype_names[k].name, dtype->valuestring))
        k++;
    if (k == SW_COUNT(dtype_names))
        return sw_fail("dtype '%s' is not known", dtype->valuestring);
    if (!cJSON_IsArray(shape))
        return sw_fail("shape is %s, an array is needed", sw_json_kind(shape));
    int64_t dims[SW_MAX_DIMS], offsets[2];
    int ndim = 0, ends = 0;
    for (const cJSON *d = shape->child; d; d = d->next, ndim++)
        if (ndim == SW_MAX_DIMS)
            return sw_fail("shape has more than %d dimensions", SW_MAX_DIMS);
        else if (whole(d, INT64_C(1) << 53, &dims[ndim]))
            return sw_fail("shape: dimension %d is no whole number of at least 0", ndim);
    for (const cJSON *d = cJSON_IsArray(at) ? at->child : NULL; d; d = d->next, ends++)
        if (ends == 2 || whole(d, INT64_C(1) << 53, &offsets[ends]))
            return sw_fail("data_offsets must be two whole numbers");
    if (ends != 2)
        return sw_fail("data_offsets must be two whole numbers");
    if (offsets[0] > offsets[1])
        return sw_fail("data_offsets run backwards (%" PRId64 " to %" PRId64 ")", offsets[0], offsets[1]);
    if ((uint64_t)offsets[1] > data_n)
        return sw_fail("data_offsets reach to byte %" PRId64 " of the data, but the file ends at %zu: it is cut short",
                       offsets[1], data_n);
    if (sw_shape_bytes(dtype_names[k].dtype, ndim, dims, &want))
        return -1;
    out->start = (size_t)offsets[0];
    out->end = (size_t)offsets[1];
    if (out->end - out->start != want)
        return sw_fail("shape and dtype make %zu bytes, data_offsets hold %zu", want, out->end - out->start);
    out->e.t = sw_tensor_of(NULL, dtype_names[k].dtype, ndim, dims);
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const item *x = a, *y = b;
    if (x->start != y->start)
        return x->start < y->start ? -1 : 1;
    if (x->end != y->end) /* empty tensors come before the one that starts there */
        return x->end < y->end ? -1 : 1;
    return strcmp(x->e.name, y->e.name);
}

/* The tensors of the header, in file order, which must fill the data part without gaps or overlaps. */
static int read_items(sw_safetensors *s, const uint8_t *data, size_t data_n)
{
    struct { item *at; size_t n, cap; } v = {0};
    int rc = 0;
    for (const cJSON *o = s->header->child; !rc && o; o = o->next) {
        if (!strcmp(o->string, "__metadata__")) {
            s->metadata = cJSON_IsObject(o) ? o : NULL;
            if (!s->metadata)
                rc = sw_fail("__metadata__ is %s, an object is needed", sw_json_kind(o));
            continue;
        }
        item it = {.e.name = o->string, .e.file = &s->map};
        if (strstr(o->string, "\xc0\x80"))
            rc = sw_fail("a tensor's name holds a NUL character");
        else if (read_item(o, data_n, &it))
            rc = sw_fail_in("tensor '%s'", o->string);
        else
            SW_PUSH(v, it);
    }
    if (v.n)
        qsort(v.at, v.n, sizeof *v.at, by_offset);
    size_t end = 0;
    s->entries = SW_NEW_ARRAY(sw_entry, v.n + 1);
    for (size_t i = 0; !rc && i < v.n; end = v.at[i++].end) {
        item *it = &v.at[i];
        if (it->start < end)
            rc = sw_fail("tensor '%s' overlaps '%s' (bytes %zu to %zu)", it->e.name, v.at[i - 1].e.name, it->start, end);
        else if (it->start > end)
            rc = sw_fail("bytes %zu to %zu of the data belong to no tensor", end, it->start);
        else if (sw_map_gets(&s->index, it->e.name, -1) >= 0)
            rc = sw_fail("tensor '%s' is listed twice", it->e.name);
        if (rc)
            break;
        it->e.t.data = (void *)(uintptr_t)(data + it->start);
        sw_entry_align(&it->e, &s->copies);
        sw_map_puts(&s->index, it->e.name, (int64_t)i);
        s->entries[s->n++] = it->e;
    }
    if (!rc && end < data_n)
        rc = sw_fail("the last %zu bytes belong to no tensor", data_n - end);
    free(v.at);
    return rc;
}

static int parse(sw_safetensors *s)
{
    const uint8_t *b = s->map.at;
    size_t n = s->map.n;
    uint64_t length = 0;
    if (n < 8)
        return sw_fail("%zu bytes are no safetensors file: 8 bytes of header length are missing", n);
    for (int i = 7; i >= 0; i--)
        length = length << 8 | b[i];
    if (length > MAX_HEADER)
        return sw_fail("a header of %" PRIu64 " bytes is announced, at most %d are allowed: no safetensors file?", length,
                       MAX_HEADER);
    if (length > n - 8)
        return sw_fail("a header of %" PRIu64 " bytes is announced, but only %zu follow: the file is cut short", length,
                       n - 8);
    s->header = sw_json_parse((const char *)b + 8, (size_t)length);
    if (!s->header)
        return sw_fail_in("header");
    if (!cJSON_IsObject(s->header))
        return sw_fail("the header is %s, an object is needed", sw_json_kind(s->header));
    return read_items(s, b + 8 + length, n - 8 - (size_t)length);
}

static sw_safetensors *finish(sw_safetensors *s, int rc)
{
    if (!rc && !parse(s))
        return s;
    if (!rc)
        sw_fail_in("%s", s->name);
    sw_st_close(s);
    return NULL;
}

sw_safetensors *sw_st_open(const char *path)
{
    sw_safetensors *s = SW_NEW(sw_safetensors);
    s->name = sw_strdup(path);
    int rc = sw_map_file(path, &s->map);
    s->mapped = !rc;
    return finish(s, rc);
}

sw_safetensors *sw_st_from_bytes(const void *bytes, size_t n, const char *name)
{
    sw_safetensors *s = SW_NEW(sw_safetensors);
    s->name = sw_strdup(name);
    s->map = (sw_mapping){bytes, n};
    return finish(s, 0);
}

void sw_st_close(sw_safetensors *s)
{
    if (!s)
        return;
    if (s->mapped)
        sw_unmap_file(&s->map);
    cJSON_Delete(s->header);
    sw_map_free(&s->index);
    sw_arena_free(&s->copies);
    free(s->entries);
    free(s->name);
    free(s);
}

size_t sw_st_count(const sw_safetensors *s) { return s->n; }
const sw_entry *sw_st_at(const sw_safetensors *s, size_t i) { return i < s->n ? &s->entries[i] : NULL; }
const cJSON *sw_st_metadata(const sw_safetensors *s) { return s->metadata; }

const sw_entry *sw_st_find(const sw_safetensors *s, const char *name)
{
    int64_t i = sw_map_gets(&s->index, name, -1);
    return i < 0 ? NULL : &s->entries[i];
}

/* ---- writing */

struct sw_st_writer {
    sw_buf tensors, metadata; /* members of the two objects, each followed by a comma */
    sw_map names;
    char *bad; /* the first wrong declaration */
    size_t total, written;
    sw_outfile out;
};

sw_st_writer *sw_st_writer_new(void) { return SW_NEW(sw_st_writer); }

void sw_st_declare(sw_st_writer *w, const char *name, sw_dtype dtype, int ndim, const int64_t *shape)
{
    size_t bytes = 0, end = 0;
    const char *type = name_of(dtype);
    if (w->bad)
        return;
    if (!type)
        w->bad = sw_strfmt("tensor '%s': safetensors has no type for %s", name, sw_dtypes[dtype].name);
    else if (sw_shape_bytes(dtype, ndim, shape, &bytes) || sw_add_size(w->total, bytes, &end))
        w->bad = sw_strfmt("tensor '%s': %s", name, sw_error());
    else if (sw_map_gets(&w->names, name, -1) >= 0 || !strcmp(name, "__metadata__"))
        w->bad = sw_strfmt("tensor name '%s' is taken", name);
    if (w->bad)
        return;
    sw_map_puts(&w->names, name, 1);
    sw_buf_json(&w->tensors, name, strlen(name));
    sw_buf_printf(&w->tensors, ":{\"dtype\":\"%s\",\"shape\":[", type);
    for (int i = 0; i < ndim; i++)
        sw_buf_printf(&w->tensors, "%s%" PRId64, i ? "," : "", shape[i]);
    sw_buf_printf(&w->tensors, "],\"data_offsets\":[%zu,%zu]},", w->total, end);
    w->total = end;
}

void sw_st_set_metadata(sw_st_writer *w, const char *key, const char *value)
{
    sw_buf_json(&w->metadata, key, strlen(key));
    sw_buf_putc(&w->metadata, ':');
    sw_buf_json(&w->metadata, value, strlen(value));
    sw_buf_putc(&w->metadata, ',');
}

int sw_st_writer_open(sw_st_writer *w, const char *path)
{
    if (w->bad)
        return sw_fail("%s: %s", path, w->bad);
    sw_buf h = {0};
    sw_buf_puts(&h, "{");
    if (w->metadata.n)
        sw_buf_printf(&h, "\"__metadata__\":{%.*s},", (int)w->metadata.n - 1, w->metadata.at);
    sw_buf_add(&h, w->tensors.at, w->tensors.n);
    if (h.at[h.n - 1] == ',')
        h.at[--h.n] = 0;
    sw_buf_putc(&h, '}');
    while (h.n % 8) /* the data part starts aligned */
        sw_buf_putc(&h, ' ');
    uint8_t length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)((uint64_t)h.n >> 8 * i);
    int rc = h.n > MAX_HEADER ? sw_fail("%s: the header would be %zu bytes, readers allow %d", path, h.n, MAX_HEADER) : 0;
    if (!rc)
        rc = sw_out_open(&w->out, path);
    if (!rc && (sw_out_write(&w->out, length, 8) || sw_out_write(&w->out, h.at, h.n)))
        rc = -1;
    sw_buf_free(&h);
    return rc;
}

int sw_st_write(sw_st_writer *w, const void *bytes, size_t n)
{
    if (n > w->total - w->written)
        return sw_fail("%s: more bytes written than the declared tensors have (%zu)", w->out.path ? w->out.path : "-",
                       w->total);
    w->written += n;
    return sw_out_write(&w->out, bytes, n);
}

static void writer_free(sw_st_writer *w)
{
    sw_buf_free(&w->tensors);
    sw_buf_free(&w->metadata);
    sw_map_free(&w->names);
    free(w->bad);
    free(w);
}

int sw_st_writer_commit(sw_st_writer *w)
{
    int rc = 0;
    if (w->written != w->total) {
        rc = sw_fail("%s: %zu of %zu bytes of tensors were written", w->out.path ? w->out.path : "-", w->written, w->total);
        sw_out_abort(&w->out);
    } else {
        rc = sw_out_commit(&w->out);
    }
    writer_free(w);
    return rc;
}

void sw_st_writer_abort(sw_st_writer *w)
{
    if (!w)
        return;
    sw_out_abort(&w->out);
    writer_free(w);
}

int sw_st_save(const char *path, const sw_entry *entries, size_t n, const cJSON *metadata)
{
    sw_st_writer *w = sw_st_writer_new();
    for (const cJSON *m = metadata ? metadata->child : NULL; m; m = m->next)
        if (cJSON_IsString(m))
            sw_st_set_metadata(w, m->string, m->valuestring);
    int rc = 0;
    for (size_t i = 0; !rc && i < n; i++) {
        if (!sw_is_dense(&entries[i].t))
            rc = sw_fail("%s: tensor '%s' is not dense", path, entries[i].name);
        sw_st_declare(w, entries[i].name, entries[i].t.dtype, entries[i].t.ndim, entries[i].t.shape);
    }
    if (!rc)
        rc = sw_st_writer_open(w, path);
    for (size_t i = 0; !rc && i < n; i++)
        rc = sw_st_write(w, entries[i].t.data, sw_tensor_bytes(&entries[i].t));
    if (!rc)
        return sw_st_writer_commit(w);
    sw_st_writer_abort(w);
    return rc;
}
