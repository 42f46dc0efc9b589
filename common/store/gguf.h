/* GGUF files (versions 2 and 3, little endian): typed metadata, tensor table, aligned tensor data. Reading maps the
 * file and checks every length and offset; writing streams tensors in order. */
#ifndef SW_STORE_GGUF_H
#define SW_STORE_GGUF_H

#include "base/error.h"
#include "base/strbuf.h"
#include "store/safetensors.h"

typedef enum sw_gguf_type {
    SW_GGUF_U8, SW_GGUF_I8, SW_GGUF_U16, SW_GGUF_I16, SW_GGUF_U32, SW_GGUF_I32, SW_GGUF_F32, SW_GGUF_BOOL,
    SW_GGUF_STR, SW_GGUF_ARRAY, SW_GGUF_U64, SW_GGUF_I64, SW_GGUF_F64,
} sw_gguf_type;

typedef struct sw_gguf sw_gguf;

/* A metadata value; arrays are read through the accessors below. */
typedef struct sw_gguf_value {
    const char *key; /* NUL-terminated */
    sw_gguf_type type, item; /* item: of an array */
    uint64_t count;          /* of an array */
    const uint8_t *at;       /* raw bytes in the file: of an array its first item, of a string its length */
} sw_gguf_value;

/* A model that is split into files NAME-00001-of-0000N.gguf is opened as a whole, whichever of them is named. */
sw_gguf *sw_gguf_open(const char *path) SW_MUST_CHECK;
sw_gguf *sw_gguf_from_bytes(const void *bytes, size_t n, const char *name) SW_MUST_CHECK; /* bytes must outlive it */
void sw_gguf_close(sw_gguf *g);
const char *sw_gguf_path(const sw_gguf *g);
size_t sw_gguf_value_count(const sw_gguf *g);
const sw_gguf_value *sw_gguf_value_at(const sw_gguf *g, size_t i);
const sw_gguf_value *sw_gguf_find(const sw_gguf *g, const char *key); /* NULL: none */
size_t sw_gguf_tensor_count(const sw_gguf *g);
/* Shapes are given in our order (outermost first), the reverse of the file's. */
const sw_entry *sw_gguf_tensor_at(const sw_gguf *g, size_t i);
const sw_entry *sw_gguf_tensor(const sw_gguf *g, const char *name); /* NULL: none */

/* Scalars by key: 0 with *out, or the default when missing; -1 and an error when of a wrong kind or out of range. */
int sw_gguf_i64(const sw_gguf *g, const char *key, int64_t min, int64_t max, int64_t missing, int64_t *out) SW_MUST_CHECK;
int sw_gguf_f64(const sw_gguf *g, const char *key, double missing, double *out) SW_MUST_CHECK;
int sw_gguf_bool(const sw_gguf *g, const char *key, bool missing, bool *out) SW_MUST_CHECK;
/* A string's bytes in the file (not NUL-terminated); {NULL,0} when missing or no string. */
sw_span sw_gguf_str(const sw_gguf *g, const char *key);
/* Reads the items of an array in order; strings and numbers. Zero i starts it. */
typedef struct sw_gguf_iter {
    const sw_gguf_value *v;
    uint64_t i;
    const uint8_t *at;
} sw_gguf_iter;
sw_gguf_iter sw_gguf_items(const sw_gguf_value *v);
bool sw_gguf_next_str(sw_gguf_iter *it, sw_span *out);
bool sw_gguf_next_f64(sw_gguf_iter *it, double *out); /* any number or bool */

/* A key given twice, and a shape or type that a file cannot hold, are reported by _open. general.alignment is the
 * writer's own (32) and the writer makes one file: copies of it and of split.* are passed over. */
typedef struct sw_gguf_writer sw_gguf_writer;
sw_gguf_writer *sw_gguf_writer_new(void);
void sw_gguf_put_u32(sw_gguf_writer *w, const char *key, uint32_t v);
void sw_gguf_put_u64(sw_gguf_writer *w, const char *key, uint64_t v);
void sw_gguf_put_f32(sw_gguf_writer *w, const char *key, float v);
void sw_gguf_put_bool(sw_gguf_writer *w, const char *key, bool v);
void sw_gguf_put_str(sw_gguf_writer *w, const char *key, const char *s, size_t n);
void sw_gguf_put_array(sw_gguf_writer *w, const char *key, sw_gguf_type item, uint64_t count, const void *items);
void sw_gguf_put_strs(sw_gguf_writer *w, const char *key, uint64_t count, const sw_span *items);
void sw_gguf_put_copy(sw_gguf_writer *w, const sw_gguf_value *v); /* as it stands in another file */
void sw_gguf_declare(sw_gguf_writer *w, const char *name, sw_dtype dtype, int ndim, const int64_t *shape); /* our order */
/* The file as it would be read, with zeros for weights (memory that nobody touches takes none). */
sw_gguf *sw_gguf_preview(const sw_gguf_writer *w) SW_MUST_CHECK;
int sw_gguf_writer_open(sw_gguf_writer *w, const char *path) SW_MUST_CHECK; /* w stays the caller's */
int sw_gguf_write(sw_gguf_writer *w, const void *bytes, size_t n) SW_MUST_CHECK; /* tensors in order; pads by itself */
int sw_gguf_writer_commit(sw_gguf_writer *w) SW_MUST_CHECK; /* frees w, also on failure */
void sw_gguf_writer_abort(sw_gguf_writer *w);

#endif
