/* What the parts of swift-tokenize share: options, a row on its way from text to tokens, where records go. */
#ifndef SWIFT_TOKENIZE_H
#define SWIFT_TOKENIZE_H

#include "base/option.h"
#include "data/dataset.h"
#include "data/dedup.h"
#include "data/lengths.h"
#include "data/mixture.h"
#include "data/packing.h"
#include "data/shard.h"
#include "data/tags.h"
#include "text/template.h"
#include "text/tokenizer.h"

enum { TRUNCATE_DROP, TRUNCATE_LEFT, TRUNCATE_RIGHT, TRUNCATE_SPLIT };
enum { PACK_BINPACK, PACK_SEQUENTIAL, PACK_WRAPPED };
enum { DEDUP_NONE, DEDUP_EXACT, DEDUP_NEAR };
enum { TOKENIZE_AS_TABLE, TOKENIZE_AS_JSON, TOKENIZE_AS_MAN };

typedef struct tokenize_options {
    const char *model, *template_source, *agent, *loss_scale, *out, *val_out, *system, *stats, *labels;
    int format, task, input_kind, text_unit, train_on, truncate, mix, packing_strategy, dedup, utf8_errors, list_as;
    int64_t max_length, packing_length, pack_window, skip_bad, limit, max_record, dedup_memory, shard_tokens;
    double val_split, dedup_threshold;
    bool packing, end_token, inspect, resume, list_templates;
    sw_strings fill, map, carry;
} tokenize_options;

extern const sw_program swift_tokenize;

/* Everything that does not change while rows are encoded. */
typedef struct tokenize_job {
    const tokenize_options *o;
    sw_dataset_options dataset;
    const sw_tokenizer *tokenizer;
    const sw_template *template; /* NULL: the model has none */
    const sw_loss_scale *scale;  /* NULL: all answers weigh 1 */
    int32_t end_token;           /* of the template, or -1 */
    bool encoder;                /* the model reads prompts by an encoder: they and their completions are texts of their own */
    sw_tags tags;                /* the classes of texts or words: --labels, or the model's */
    const cJSON *classes;        /* their names, or NULL */
    sw_template_use takes;       /* what the template makes something of */
} tokenize_job;

/* A run of something in somebody's arrays. */
typedef struct span {
    size_t start, n;
} span;

/* The sequences of a record, and which groups of columns it has. */
enum { SEQ_MAIN, SEQ_REJECTED, SEQ_POSITIVE, SEQ_NEGATIVE, N_SEQS };
enum { HAS_REJECTED = 1, HAS_LISTS = 2, HAS_LABEL = 4, HAS_MARGIN = 8, HAS_MEDIA = 16, HAS_CARRIED = 32, HAS_TAGS = 64 };

/* A row's outcome: one piece, none (dropped), or several (split). */
typedef struct piece {
    unsigned has;
    span seqs[N_SEQS]; /* in ids and weights */
    span ends[N_SEQS]; /* in ends: of the texts of SEQ_POSITIVE and SEQ_NEGATIVE */
    span labels;       /* in numbers */
    span media, carried; /* in bytes */
    float margin;
} piece;

/* What happened to rows. */
typedef struct counts {
    int64_t truncated, dropped, empty, split;
    int64_t unlabelled; /* pieces without a labelled token that should have one */
    int64_t chats, unfilled, unused_tools,
        end_trained; /* conversations; with {{NAME}} left; with tools that the template leaves out; with its end token as a label */
} counts;

/* What is told of a row besides its pieces. */
typedef struct outcome {
    sw_format format;
    bool lists, tools, rejected, labels, tags, media;
    int64_t length,
        labelled; /* tokens before anything was cut, of the answer and the rejected one the longer; 0: empty */
    counts n;
} outcome;

/* Per thread, and per batch of rows: what pieces refer to lies one behind the other. */
typedef struct encoded {
    sw_ids ids;
    sw_weights weights;
    sw_ids tags; /* of as many ids as there are up to the last record that has some */
    struct {
        uint32_t *at;
        size_t n, cap;
    } ends;
    struct {
        float *at;
        size_t n, cap;
    } numbers;
    sw_buf bytes;
    struct {
        piece *at;
        size_t n, cap;
    } pieces;
} encoded;

void encoded_clear(encoded *e);
void encoded_free(encoded *e);
/* Turns one parsed row into pieces (appended). Takes row. print: NULL, or where what tells duplicates goes. The message
 * names the field. */
int encode_row(const tokenize_job *job, sw_encoder *encoder, cJSON *row, encoded *out, outcome *told,
               sw_print *print) SW_MUST_CHECK;

/* One output: a shard, with a packer before it if packing. The shard begins with the first record, which says what
 * columns there are. With --shard-tokens it is a folder of shards, each of which says how far the input was read. */
typedef struct sink {
    const tokenize_job *job;
    const char *path;
    sw_shard_writer *writer;
    sw_packer *packer;
    bool started;
    unsigned has;
    sw_ids ids; /* a pack that is being joined */
    sw_weights weights;
    sw_ids segments;
    int64_t packs, packed;  /* tokens in them */
    int64_t added;          /* tokens that came since the shard began */
    int part;               /* number of the shard in the folder */
    sw_shard_totals before; /* of the shards in the folder that are finished */
} sink;

void sink_begin(sink *s, const tokenize_job *job, const char *path);
int sink_add(sink *s, const encoded *e, const piece *p) SW_MUST_CHECK;
/* Whether --shard-tokens says that another shard is to begin. */
bool sink_is_full(const sink *s);
/* Ends the shard (an empty one where nothing came); the next record begins another one. */
int sink_end_shard(sink *s, const cJSON *report) SW_MUST_CHECK;
/* What went into all shards, and how full the packs are (0..1). */
sw_shard_totals sink_totals(const sink *s);
double sink_fill(const sink *s);
/* Leaves no file behind an unfinished one. */
void sink_free(sink *s);
/* Name of shard number i of the folder. Caller frees. */
char *sink_part_name(const char *folder, int i);

/* Options that change neither the records nor their order are left out: the same data is the same file. Caller frees.
 */
cJSON *header_options(void);

/* What is known about one input file. */
typedef struct file_account {
    int64_t rows, formats[SW_FORMAT_COMPLETION + 3]; /* of each format, of compared texts and of words with classes */
    char *told;                                      /* how it was described, NULL: not yet */
} file_account;

/* The whole run's. */
typedef struct account {
    const tokenize_job *job;
    const sw_mixture *mixture;
    file_account *files;
    counts n;
    int64_t rows, bad, duplicates;
    sw_lengths lengths, labelled;
    int described; /* files */
} account;

/* Counts a row of file i that is kept, and says on standard error what the file's records were taken for, once. */
void account_row(account *a, int i, const outcome *told);
/* For the end record. complete: the input has been read to its end, and its digests are known. */
cJSON *account_report(const account *a, const sink *s, bool complete);
/* Goes on from such a report: fails where it is none. */
int account_resume(account *a, sink *s, const cJSON *report) SW_MUST_CHECK;
/* At the end, on standard error; validation may be NULL. */
void account_tell(const account *a, const sink *train, const sink *validation, double seconds);
/* --stats */
int account_write_stats(const account *a, const char *path) SW_MUST_CHECK;
void account_free(account *a);

/* Finds where a folder of shards ends, checks that it was made with the same options and inputs, and passes over what
 * of the input is in it. 1: there is more to do, 0: all is done, -1. */
int series_begin(account *a, sink *s, sw_mixture *m, int n, char **inputs) SW_MUST_CHECK;

/* Reads the inputs and writes the shards. */
int tokenize_run(const tokenize_job *job, int n, char **inputs) SW_MUST_CHECK;
/* Prints shards for people. tokenizer may be NULL. */
int tokenize_inspect(const tokenize_options *o, const sw_tokenizer *tokenizer, int n, char **shards) SW_MUST_CHECK;

/* Prints the built-in templates (list_templates.c). */
int tokenize_list_templates(int as) SW_MUST_CHECK;

#endif
