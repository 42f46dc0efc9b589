/* Rows of Parquet files (the format of the Apache project, as pyarrow, Polars, DuckDB and Spark write it) as JSON:
 * nested lists, structs and maps; plain and dictionary encodings; Snappy, gzip and zstd. A page of each column is in
 * memory. */
#ifndef SW_DATA_PARQUET_H
#define SW_DATA_PARQUET_H

#include "base/error.h"
#include "base/strbuf.h"

typedef struct sw_parquet sw_parquet;

/* A regular file. Rows of more bytes than max_row are an error. */
sw_parquet *sw_parquet_open(const char *path, size_t max_row) SW_MUST_CHECK;
/* Back to the first row. */
void sw_parquet_rewind(sw_parquet *p);
void sw_parquet_close(sw_parquet *p);
/* Appends the next row as a JSON object: 1, 0 the end, -1. Text is copied as it is, so that it may hold bytes that are
 * no UTF-8; binary values that are none become base64. NaN becomes null. */
int sw_parquet_next(sw_parquet *p, sw_buf *json) SW_MUST_CHECK;
int64_t sw_parquet_bytes(const sw_parquet *p); /* of the file, read so far */

#endif
