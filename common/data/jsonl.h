/* Rows of data files: JSON Lines, a JSON array, CSV and TSV, plain text, Parquet; all but the last from a file, a pipe
 * or standard input, gzip, zstd or plain. Memory holds one row at a time, however long the file; every row knows its
 * line. Splitting is cheap and done by one thread, parsing a row (sw_row_json) is left to as many threads as there are.
 */
#ifndef SW_DATA_JSONL_H
#define SW_DATA_JSONL_H

#include "base/error.h"
#include "base/fileio.h"
#include "base/json.h"

#include <stdatomic.h>

typedef enum sw_rows_kind {
    SW_ROWS_AUTO,  /* by the name's ending, then by the first byte that is no white space */
    SW_ROWS_JSONL, /* one value a line; empty lines are skipped */
    SW_ROWS_JSON,  /* the elements of an array, or values one after another, over any number of lines */
    SW_ROWS_CSV,   /* RFC 4180, the first row names the columns; a name that ends in .tsv: tabs */
    SW_ROWS_TEXT,
    SW_ROWS_PARQUET, /* known by its first bytes; not from a pipe, since it is read from its end */
} sw_rows_kind;

typedef enum sw_text_unit {                    /* what a row of plain text is */
                            SW_TEXT_LINE,      /* empty ones are skipped */
                            SW_TEXT_PARAGRAPH, /* lines up to an empty one */
                            SW_TEXT_FILE,
} sw_text_unit;

typedef struct sw_rows sw_rows;

typedef struct sw_row {
    const char *at; /* n bytes, until the next row; not checked for UTF-8 yet */
    size_t n;
    int64_t line;  /* where it begins, from 1; of Parquet: which row it is */
    bool too_long; /* longer than sw_rows_bounds.max_row: at holds its beginning only, what follows it can be read */
} sw_row;

typedef struct sw_rows_bounds {
    int64_t max_row; /* bytes of a row; 0: 1 GiB */
    bool pass_long; /* a longer line is given out as too_long; otherwise, and where rows are no lines, it is an error */
    bool replace;   /* bytes that are no UTF-8 become U+FFFD instead of making the row a bad one */
} sw_rows_bounds;

/* "-" is standard input. */
sw_rows *sw_rows_open(const char *path, sw_rows_kind kind, sw_text_unit unit) SW_MUST_CHECK;
void sw_rows_close(sw_rows *r);
/* Before the first row. */
void sw_rows_set(sw_rows *r, const sw_rows_bounds *b);
/* No more rows will be asked for (before a rewind): gives the file and the memory back. */
void sw_rows_release(sw_rows *r);
/* Back to the first row; rows given out before may still be parsed. Fails on a pipe. */
int sw_rows_rewind(sw_rows *r) SW_MUST_CHECK;
/* "JSON Lines", ... once the first row was read. */
const char *sw_rows_kind_name(const sw_rows *r);
const char *sw_rows_name(const sw_rows *r);                  /* for messages */
void sw_rows_stop_when(sw_rows *r, const atomic_bool *stop); /* see sw_source_stop_when */
/* 1 a row, 0 the end, -1 failed (the message names file and line). */
int sw_rows_next(sw_rows *r, sw_row *row) SW_MUST_CHECK;
int64_t sw_rows_bytes(const sw_rows *r); /* of the file, in this pass so far */
int64_t sw_rows_size(const sw_rows *r);  /* of the file; 0: not known */
sw_digest sw_rows_digest(const sw_rows *r);

/* A row as JSON: CSV gives an object of strings, plain text {"text": ...}. Any thread may call this while the reader
 * goes on. The message names file and line, and for JSON the byte. Caller frees. */
cJSON *sw_row_json(const sw_rows *r, const char *at, size_t n, int64_t line) SW_MUST_CHECK;

#endif
