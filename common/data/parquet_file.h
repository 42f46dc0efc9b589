/* What the end of a Parquet file says about it, and the pages of its columns. Internal to the reader of rows
 * (parquet.h). */
#ifndef SW_DATA_PARQUET_FILE_H
#define SW_DATA_PARQUET_FILE_H

#include "base/error.h"
#include "base/strbuf.h"

enum { PARQUET_DEPTH_MAX = 32, PARQUET_PAGE_MAX = 256 << 20, PARQUET_FOOTER_MAX = 256 << 20 };

typedef enum parquet_type {
    PARQUET_BOOLEAN,
    PARQUET_INT32,
    PARQUET_INT64,
    PARQUET_INT96,
    PARQUET_FLOAT,
    PARQUET_DOUBLE,
    PARQUET_BYTES,
    PARQUET_FIXED,
} parquet_type;

typedef enum parquet_meaning {
    PARQUET_PLAIN,
    PARQUET_TEXT,
    PARQUET_UNSIGNED,
    PARQUET_DECIMAL,
    PARQUET_LIST,
    PARQUET_MAP,
} parquet_meaning;

/* A node of the schema; nodes lie in the order of the tree, root first. */
typedef struct parquet_node {
    char *name;
    parquet_type type; /* of a leaf */
    int width;         /* bytes of PARQUET_FIXED */
    parquet_meaning meaning;
    bool optional, repeated;
    int children, next;         /* how many; index of the node after this one's subtree */
    int def, rep;               /* levels at which it is there, and repeats */
    int first_leaf, after_leaf; /* leaves under it */
} parquet_node;

typedef struct parquet_chunk {
    int64_t at, end; /* in the file */
    int64_t values;  /* with those that are null */
    int codec;
} parquet_chunk;

typedef struct parquet_group {
    int64_t rows;
    parquet_chunk *chunks; /* one a leaf */
} parquet_group;

typedef struct parquet_meta {
    struct {
        parquet_node *at;
        size_t n, cap;
    } nodes;
    struct {
        parquet_group *at;
        size_t n, cap;
    } groups;
    int leaves;
    int64_t rows;
} parquet_meta;

/* size: of the file. The message does not name the file. */
int parquet_read_meta(int fd, int64_t size, parquet_meta *m) SW_MUST_CHECK;
void parquet_free_meta(parquet_meta *m);
/* n bytes at an offset. */
int parquet_read_at(int fd, int64_t at, size_t n, void *to) SW_MUST_CHECK;

/* ---- the values of one column, in the order of the rows */

typedef struct parquet_bits { /* runs and packed groups of small numbers (encoding RLE) */
    const uint8_t *at, *end;
    int width;
    uint32_t value;
    uint64_t run, packed; /* numbers left in the run, or in the packed groups */
    size_t bit;           /* in the packed groups */
} parquet_bits;

typedef struct parquet_column {
    int fd;
    const parquet_node *leaf;
    parquet_chunk chunk; /* what is left of it */
    sw_buf raw, page, dictionary_page;
    struct {
        sw_span *at;
        size_t n, cap;
    } dictionary;
    int64_t in_page;                  /* values left in the page */
    bool indexed;                     /* the page has indices into the dictionary */
    parquet_bits reps, defs, indices; /* indices: also booleans in runs */
    bool boolean_runs;
    const uint8_t *at, *end; /* plain values */
    int bit;                 /* of plain booleans */
    /* the value that waits */
    bool ended;
    int rep, def;
    sw_span value; /* where def is the leaf's: its bytes; a boolean is one byte */
} parquet_column;

/* Begins a chunk; the first value waits then. */
int parquet_column_begin(parquet_column *c, const parquet_chunk *chunk) SW_MUST_CHECK;
int parquet_column_next(parquet_column *c) SW_MUST_CHECK;
void parquet_column_free(parquet_column *c);

#endif
