/* What the parts of swift-tokenize share: options, a row on its way from text to tokens, where records go. */
#ifndef SWIFT_TOKENIZE_H
#define SWIFT_TOKENIZE_H

#include "base/option.h"
#include "data/dataset.h"
#include "data/jsonl.h"
#include "data/packing.h"
#include "data/shard.h"
#include "text/template.h"
#include "text/tokenizer.h"

enum { TRUNCATE_DROP, TRUNCATE_LEFT, TRUNCATE_RIGHT, TRUNCATE_SPLIT };

typedef struct tokenize_options {
    const char *model, *template_source, *out, *val_out, *system;
    int format, input_kind, text_unit, train_on, truncate;
    int64_t max_length, pack_window, skip_bad, limit;
    double val_split;
    bool packing, end_token, inspect;
    sw_strings fill;
} tokenize_options;

extern const sw_program swift_tokenize;

/* Everything that does not change while rows are encoded. */
typedef struct tokenize_job {
    const tokenize_options *o;
    sw_dataset_options dataset;
    const sw_tokenizer *tokenizer;
    const sw_template *template; /* NULL: the model has none */
    int32_t end_token;           /* of the template, or -1 */
} tokenize_job;

/* Numbers of a row that may go into the record beside its tokens. */
enum { EXTRA_LABEL, EXTRA_MARGIN, N_EXTRAS };
extern const char *const extra_names[N_EXTRAS];

/* A sequence of tokens in somebody's arrays. */
typedef struct sequence {
    size_t start, n;
} sequence;

/* A row's outcome: one piece, none (dropped), or several (split). */
typedef struct piece {
    sequence main, rejected; /* rejected.n 0: none */
    float extras[N_EXTRAS];
    bool has[N_EXTRAS];
} piece;

/* Per thread, and per batch of rows: sequences lie one behind the other. */
typedef struct encoded {
    sw_ids ids;
    sw_weights weights;
    struct {
        piece *at;
        size_t n, cap;
    } pieces;
    int64_t truncated, dropped, empty, unlabelled, chats, unfilled, split;
    bool end_trained; /* a label is the template's end token */
} encoded;

void encoded_clear(encoded *e);
void encoded_free(encoded *e);
/* Turns one parsed row into pieces (appended). Takes row. The message names the field. */
int encode_row(const tokenize_job *job, sw_encoder *encoder, cJSON *row, encoded *out) SW_MUST_CHECK;

/* One output: a shard, with a packer before it if packing. The shard begins with the first record, which says what
 * columns there are. */
typedef struct sink {
    const tokenize_job *job;
    const char *path;
    sw_shard_writer *writer;
    sw_packer *packer;
    bool has_rejected, has_extra[N_EXTRAS];
    sw_ids ids; /* a pack that is being joined */
    sw_weights weights;
    sw_ids segments;
} sink;

void sink_begin(sink *s, const tokenize_job *job, const char *path);
int sink_add(sink *s, const encoded *e, const piece *p) SW_MUST_CHECK;
/* Ends the shard (an empty one where nothing came); *totals and *fill as they stand at the end. */
int sink_finish(sink *s, const cJSON *report, sw_shard_totals *totals, double *fill) SW_MUST_CHECK;
/* Also after _finish. Leaves no file behind an unfinished one. */
void sink_free(sink *s);

/* Reads the inputs and writes the shards. */
int tokenize_run(const tokenize_job *job, int n, char **inputs) SW_MUST_CHECK;
/* Prints shards for people. tokenizer may be NULL. */
int tokenize_inspect(const tokenize_options *o, const sw_tokenizer *tokenizer, int n, char **shards) SW_MUST_CHECK;

#endif
