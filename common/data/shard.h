/* Shards: what swift-tokenize writes and swift-train and swift-quant read (swift-shard(5) describes every byte).
 *
 * A stream of records behind a JSON header, in checksummed zstd frames, closed by an end record with counts and by
 * an index of the frames. A pipe is read from front to back and ignores the index; a file is read in any order. A
 * stream that was cut, or of which any bit was changed, is an error for its reader and never a shorter data set.
 *
 * A record is one value for each column that the header declares. These columns have a meaning here:
 *     ids       i32   token ids; always there
 *     weights   runs  loss weight of each token as a label (0: none); always there, the first of a segment is 0
 *     segments  u32   ends of the documents packed into the record, the last is the number of tokens
 * and the same three under a prefix ("rejected.ids", "rejected.weights") hold a second sequence of the record:
 *     rejected  the answer that is not wanted
 *     positive, negative  texts that belong to ids, and that do not, one behind the other with their ends in segments
 * Beside them:
 *     tags      i32   class of each token, -1 of those that stand for no word; as many as ids
 *     label     f32   class, classes, score, or whether the answer is wanted (1) or not (0)
 *     margin    f32   by how much the answer is better than the rejected one
 *     media     bytes JSON object: images, videos, audios; lists of paths or URLs in the order of the text; may be
 *                     empty
 *     carried   bytes JSON object: columns of the data set as they are, for rewards
 * A program refuses a shard with columns that change what a record is for and that its work cannot use. */
#ifndef SW_DATA_SHARD_H
#define SW_DATA_SHARD_H

#include "base/error.h"
#include "base/fileio.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum sw_column_type {
    SW_COLUMN_BYTES, /* uint8_t */
    SW_COLUMN_I32,
    SW_COLUMN_U32,
    SW_COLUMN_I64,
    SW_COLUMN_F32,
    SW_COLUMN_RUNS, /* float, stored as runs of equal values */
} sw_column_type;

typedef struct sw_column {
    const char *name;
    sw_column_type type;
} sw_column;

/* What the header says. Strings are borrowed: from the caller when writing, from the reader when reading. */
typedef struct sw_shard_info {
    const char *tokenizer_digest, *vocab_digest;                 /* sw_tokenizer_digest, sw_tokenizer_vocab_digest */
    int64_t vocab_size;                                          /* every id is below it */
    const char *template_name, *template_digest, *template_text; /* NULL: no chat template was used */
    const char *train_on;                                        /* "all", "assistant" or "last" */
    const char *task;                                            /* of sw_task_names; "auto": what the columns say */
    int64_t max_length;                                          /* of a record; 0: no limit was set */
    bool packing;                                                /* records hold several documents, see segments */
    const char *command_line, *program;                          /* program: name and version */
    const cJSON *options;                                        /* the resolved options, or NULL */
    const cJSON *classes;                                        /* names of the classes in the column tags, or NULL */
    const sw_column *columns;
    size_t n_columns;
} sw_shard_info;

/* What the end record says. */
typedef struct sw_shard_totals {
    int64_t frames, records, tokens; /* tokens: of the column ids */
    int64_t labelled;                /* tokens with a weight other than 0 */
    int64_t segments;                /* documents */
    int64_t longest;                 /* tokens of the longest record */
} sw_shard_totals;

typedef struct sw_value {
    const void *at; /* n items of the column's C type (RUNS: float); aligned; NULL when n is 0 */
    size_t n;
} sw_value;

/* A record as read; everything points into the reader and holds until its next call. */
typedef struct sw_shard_record {
    int64_t number; /* in its shard, from 0 */
    const int32_t *ids;
    const float *weights; /* n; label i is learnt from ids 0..i-1 of its segment */
    size_t n;
    const uint32_t *segments; /* ends; one entry, n, where the shard has no such column */
    size_t n_segments;
    const sw_value *values; /* one a column, in the header's order */
} sw_shard_record;

/* ---- reading */

typedef struct sw_shard sw_shard;

/* Opens a shard and reads its header; "-" is standard input. A regular file also has its end record and index read
 * and checked here, so that a cut file is refused at once. Not for sharing between threads: open it once in each. */
sw_shard *sw_shard_open(const char *path) SW_MUST_CHECK;
void sw_shard_close(sw_shard *s);
const sw_shard_info *sw_shard_info_of(const sw_shard *s);
/* Index of a column, or -1. */
int sw_shard_column(const sw_shard *s, const char *name);
/* Next record from front to back: 1 a record, 0 the end (the end record was there and its counts were right), -1. */
int sw_shard_next(sw_shard *s, sw_shard_record *r) SW_MUST_CHECK;

/* Whether records can be read in any order (a regular file). The rest needs that, and fails on a pipe. */
bool sw_shard_seekable(const sw_shard *s);
int64_t sw_shard_count(const sw_shard *s); /* -1: a pipe, not known */
int sw_shard_read(sw_shard *s, int64_t i, sw_shard_record *r) SW_MUST_CHECK;
/* Makes record i the one that sw_shard_next gives next; on a pipe it reads and drops what comes before. */
int sw_shard_seek(sw_shard *s, int64_t i) SW_MUST_CHECK;
/* NULL before a pipe has been read to its end. */
const sw_shard_totals *sw_shard_totals_of(const sw_shard *s);
/* The JSON of the end record (inputs with their digests, what was dropped); NULL as above. Borrowed. */
const cJSON *sw_shard_report(const sw_shard *s);

/* Fails where the shard was not made with this vocabulary: `digest` is sw_tokenizer_vocab_digest of the model. */
int sw_shard_check_vocab(const sw_shard *s, const char *digest) SW_MUST_CHECK;

/* ---- writing */

typedef struct sw_shard_writer sw_shard_writer;

/* Begins a shard; "-" is standard output, which must not be a terminal. A file appears under its name by _finish. */
sw_shard_writer *sw_shard_create(const char *path, const sw_shard_info *info) SW_MUST_CHECK;
/* Appends a record: values in the order of the columns (RUNS: floats). Checks what a reader would check. */
int sw_shard_append(sw_shard_writer *w, const sw_value *values) SW_MUST_CHECK;
/* What has been appended so far. */
const sw_shard_totals *sw_shard_written(const sw_shard_writer *w);
/* End record and index; report (object, may be NULL) goes into the end record. Frees the writer, also on failure. */
int sw_shard_finish(sw_shard_writer *w, const cJSON *report) SW_MUST_CHECK;
/* Leaves no file; what went to a pipe has no end record. NULL is fine. */
void sw_shard_abandon(sw_shard_writer *w);

#endif
