#include "store/gguf_format.h"

#include "base/map.h"
#include "base/memory.h"

#include <stdlib.h>
#include <sys/mman.h>

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
    sw_buf_add(&w->values, v, sw_gguf_scalar_bytes[type]);
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
        sw_buf_add(&w->values, items, (size_t)count * sw_gguf_scalar_bytes[item]);
}

void sw_gguf_put_strs(sw_gguf_writer *w, const char *key, uint64_t count, const sw_span *items)
{
    put_array_head(w, key, SW_GGUF_STR, count);
    for (uint64_t i = 0; i < count; i++)
        put_text(&w->values, items[i].at, items[i].n);
}

void sw_gguf_put_copy(sw_gguf_writer *w, const sw_gguf_value *v)
{
    if (!strcmp(v->key, "general.alignment") || sw_starts_with(v->key, "split."))
        return; /* the writer's own; and what is written is one file */
    if (v->type == SW_GGUF_STR) {
        sw_span s = sw_gguf_span_at(v->at);
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

static size_t padding(uint64_t n) { return (size_t)(-n & (SW_GGUF_ALIGNMENT - 1)); }

void sw_gguf_declare(sw_gguf_writer *w, const char *name, sw_dtype dtype, int ndim, const int64_t *shape)
{
    size_t bytes = 0;
    if (w->bad)
        return;
    if (sw_dtypes[dtype].gguf < 0)
        w->bad = sw_strfmt("tensor '%s': GGUF has no type for %s", name, sw_dtypes[dtype].name);
    else if (ndim > SW_GGUF_MAX_DIMS)
        w->bad = sw_strfmt("tensor '%s': %d dimensions, GGUF has at most %d", name, ndim, SW_GGUF_MAX_DIMS);
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
    static const uint8_t zeros[SW_GGUF_ALIGNMENT];
    while (w->current < w->sizes.n && w->done == w->sizes.at[w->current]) {
        if (sw_out_write(&w->out, zeros, padding(w->done)))
            return -1;
        w->current++;
        w->done = 0;
    }
    return 0;
}

static int header(const sw_gguf_writer *w, const char *path, sw_buf *h)
{
    if (w->bad)
        return sw_fail("%s: %s", path, w->bad);
    sw_buf_puts(h, "GGUF");
    sw_buf_add(h, &(uint32_t){3}, 4);
    sw_buf_add(h, &(uint64_t){w->sizes.n}, 8);
    sw_buf_add(h, &w->n_values, 8);
    if (w->values.n)
        sw_buf_add(h, w->values.at, w->values.n);
    if (w->tensors.n)
        sw_buf_add(h, w->tensors.at, w->tensors.n);
    while (padding(h->n))
        sw_buf_putc(h, 0);
    return 0;
}

sw_gguf *sw_gguf_preview(const sw_gguf_writer *w)
{
    sw_buf h = {0};
    size_t n;
    sw_gguf *g = NULL;
    if (!header(w, "preview", &h)) {
        void *at = sw_add_size(h.n, (size_t)w->offset, &n) ? MAP_FAILED
                                                           : mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) {
            sw_fail("preview: no address space for the file");
        } else {
            memcpy(at, h.at, h.n);
            g = sw_gguf_from_map((sw_mapping){at, n}, "preview");
        }
    }
    sw_buf_free(&h);
    return g;
}

int sw_gguf_writer_open(sw_gguf_writer *w, const char *path)
{
    sw_buf h = {0};
    int rc = header(w, path, &h);
    if (!rc)
        rc = sw_out_open(&w->out, path);
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
