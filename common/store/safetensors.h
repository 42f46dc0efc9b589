/* Safetensors files: 8 bytes header length, a JSON header, raw little-endian tensors. Reading maps the file and
 * trusts nothing in it: every offset, size and overlap is checked before a tensor is handed out. */
#ifndef SW_STORE_SAFETENSORS_H
#define SW_STORE_SAFETENSORS_H

#include "base/error.h"
#include "base/fileio.h"
#include "kernels/tensor.h"

#include <cjson/cJSON.h>

/* A named tensor that lies in a mapped file. data of the tensor is read-only memory. */
typedef struct sw_made sw_made;
typedef struct sw_coded sw_coded;
typedef struct sw_entry {
    char *name;
    sw_tensor t;
    const struct sw_mapping *file; /* what it lies in; NULL: in none */
    const sw_made *made;           /* its rows are computed (store/made.h) and t has no data; NULL: they lie there */
    const sw_coded *coded;         /* what they are computed from, where that can be used in their place (store/scaled.h); or NULL */
} sw_entry;

typedef struct sw_entries {
    sw_entry *at;
    size_t n, cap;
} sw_entries;

/* Checks a shape that a file gave (negative sizes, overflow, rows that are no whole blocks) and computes the bytes of
 * a dense tensor of it. -1 with a message that does not name the tensor. */
int sw_shape_bytes(sw_dtype dtype, int ndim, const int64_t *shape, size_t *bytes) SW_MUST_CHECK;
/* Readers hand out tensors that are aligned to their element (16 bytes at most). One that is not, as old writers left
 * them, is copied into *copies, to live as long as the file. */
struct sw_arena;
void sw_entry_align(sw_entry *e, struct sw_arena *copies);

typedef struct sw_safetensors sw_safetensors;
sw_safetensors *sw_st_open(const char *path) SW_MUST_CHECK;
/* The same over bytes in memory (for tests and fuzzing); the bytes must outlive it. */
sw_safetensors *sw_st_from_bytes(const void *bytes, size_t n, const char *name) SW_MUST_CHECK;
void sw_st_close(sw_safetensors *s);
size_t sw_st_count(const sw_safetensors *s);
const sw_entry *sw_st_at(const sw_safetensors *s, size_t i);       /* in file order */
const sw_entry *sw_st_find(const sw_safetensors *s, const char *name); /* NULL: none (no error set) */
const cJSON *sw_st_metadata(const sw_safetensors *s);               /* __metadata__ object or NULL */

/* Writing: declare all tensors, then give their bytes in that order, in any number of pieces. */
typedef struct sw_st_writer sw_st_writer;
sw_st_writer *sw_st_writer_new(void);
/* Tensors lie one after another without gaps: where byte sizes are odd, declare large element types first. A type that
 * safetensors has no name for (GGUF's blocks) or a name used twice is reported by _open. */
void sw_st_declare(sw_st_writer *w, const char *name, sw_dtype dtype, int ndim, const int64_t *shape);
void sw_st_set_metadata(sw_st_writer *w, const char *key, const char *value);
int sw_st_writer_open(sw_st_writer *w, const char *path) SW_MUST_CHECK; /* writes the header; w stays the caller's */
int sw_st_write(sw_st_writer *w, const void *bytes, size_t n) SW_MUST_CHECK;
int sw_st_writer_commit(sw_st_writer *w) SW_MUST_CHECK; /* checks that all bytes came; frees w, also on failure */
void sw_st_writer_abort(sw_st_writer *w);
/* A handful of dense tensors at once. metadata: an object of strings or NULL. */
int sw_st_save(const char *path, const sw_entry *entries, size_t n, const cJSON *metadata) SW_MUST_CHECK;

#endif
