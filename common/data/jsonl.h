/* Rows of data files: JSON Lines, a JSON array, CSV and TSV, plain text; each from a file, a pipe or standard input,
 * zstd or plain. Memory holds one row at a time, however long the file; every row knows its line. Splitting is cheap
 * and done by one thread, parsing a row (sw_row_json) is left to as many threads as there are. */
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
    int64_t line; /* where it begins, from 1 */
} sw_row;

/* "-" is standard input. */
sw_rows *sw_rows_open(const char *path, sw_rows_kind kind, sw_text_unit unit) SW_MUST_CHECK;
void sw_rows_close(sw_rows *r);
const char *sw_rows_name(const sw_rows *r);                  /* for messages */
void sw_rows_stop_when(sw_rows *r, const atomic_bool *stop); /* see sw_source_stop_when */
/* 1 a row, 0 the end, -1 failed (the message names file and line). */
int sw_rows_next(sw_rows *r, sw_row *row) SW_MUST_CHECK;
int64_t sw_rows_bytes(const sw_rows *r); /* of the file, so far */
int64_t sw_rows_size(const sw_rows *r);  /* of the file; 0: not known */
sw_digest sw_rows_digest(const sw_rows *r);

/* A row as JSON: CSV gives an object of strings, plain text {"text": ...}. Any thread may call this while the reader
 * goes on. The message names file and line, and for JSON the byte. Caller frees. */
cJSON *sw_row_json(const sw_rows *r, const char *at, size_t n, int64_t line) SW_MUST_CHECK;

#endif
