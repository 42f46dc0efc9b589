/* From files to shards: one thread cuts the inputs into batches of rows, workers encode them, records are written in
 * the order of the input. */
#include "tokenize.h"

#include "base/log.h"
#include "base/memory.h"
#include "data/pipeline.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

enum { BATCH_BYTES = 128 << 10, BATCH_ROWS = 256 };

typedef struct row {
    size_t at, n; /* in the batch's bytes */
    int64_t line;
    size_t pieces; /* end of its pieces in `out` */
    bool validation;
    char *failure;
} row;

typedef struct batch {
    const sw_rows *rows_of;
    sw_buf bytes;
    struct {
        row *at;
        size_t n, cap;
    } rows;
    encoded out;
    int64_t input_bytes; /* of all inputs, up to here */
} batch;

typedef struct run {
    const tokenize_job *job;
    char **inputs;
    int n_inputs, opened;
    sw_rows **rows; /* stay open to the end: workers parse by them */
    int64_t bytes_before, rows_read;
    bool ended;
    sw_encoder **encoders;
    atomic_bool stop;
    sink train, validation;
    encoded total; /* its counts only */
    int64_t rows_written, bad;
    sw_progress progress;
} run;

/* ---- reading */

static int open_next(run *r)
{
    const tokenize_options *o = r->job->o;
    sw_rows *rows = sw_rows_open(r->inputs[r->opened], (sw_rows_kind)o->input_kind, (sw_text_unit)o->text_unit);
    if (!rows)
        return -1;
    sw_rows_stop_when(rows, &r->stop);
    r->rows[r->opened++] = rows;
    return 0;
}

static void clear_batch(batch *b)
{
    for (size_t i = 0; i < b->rows.n; i++)
        free(b->rows.at[i].failure);
    b->rows.n = 0;
    sw_buf_clear(&b->bytes);
    encoded_clear(&b->out);
}

/* A batch holds rows of one input, and the same rows however many threads there are. */
static int read_batch(void *context, void *item)
{
    run *r = context;
    batch *b = item;
    int64_t limit = r->job->o->limit;
    clear_batch(b);
    while (!r->ended && b->bytes.n < BATCH_BYTES && b->rows.n < BATCH_ROWS) {
        if (!r->opened && open_next(r))
            return -1;
        sw_rows *rows = r->rows[r->opened - 1];
        sw_row line;
        int rc = limit && r->rows_read == limit ? 0 : sw_rows_next(rows, &line);
        if (rc < 0)
            return -1;
        if (!rc) {
            r->bytes_before += sw_rows_bytes(rows);
            r->ended = r->opened == r->n_inputs || (limit && r->rows_read == limit);
            if (!r->ended && open_next(r))
                return -1;
            if (b->rows.n)
                break;
            continue;
        }
        b->rows_of = rows;
        SW_PUSH(b->rows, ((row){.at = b->bytes.n, .n = line.n, .line = line.line}));
        sw_buf_add(&b->bytes, line.at, line.n);
        r->rows_read++;
        b->input_bytes = r->bytes_before + sw_rows_bytes(rows);
    }
    return b->rows.n > 0;
}

/* ---- working */

/* Whether a row is for validation depends on its bytes and the seed: not on its place, and the same rows stay together.
 */
static bool for_validation(const tokenize_options *o, const char *at, size_t n)
{
    uint64_t h = XXH3_64bits_withSeed(at, n, (uint64_t)sw_common_opts.seed);
    return (double)(h >> 11) * 0x1p-53 < o->val_split;
}

static int work_batch(void *context, int worker, void *item)
{
    run *r = context;
    batch *b = item;
    const tokenize_job *job = r->job;
    for (size_t i = 0; i < b->rows.n; i++) {
        row *w = &b->rows.at[i];
        const char *at = b->bytes.at + w->at;
        cJSON *v = sw_row_json(b->rows_of, at, w->n, w->line);
        int rc = -1;
        if (v) {
            rc = encode_row(job, r->encoders[worker], v, &b->out);
            if (rc)
                sw_fail_in("%s: line %lld", sw_rows_name(b->rows_of), (long long)w->line);
        }
        if (rc)
            w->failure = sw_strdup(sw_error());
        w->pieces = b->out.pieces.n;
        w->validation = job->o->val_split > 0 && for_validation(job->o, at, w->n);
        if (rc && !job->o->skip_bad) { /* the writer will stop here */
            b->rows.n = i + 1;
            break;
        }
    }
    return 0;
}

/* ---- writing */

static int bad_row(run *r, const char *failure)
{
    int64_t allowed = r->job->o->skip_bad;
    if (r->bad++ < allowed) {
        sw_warn("skipped: %s", failure);
        return 0;
    }
    if (!allowed)
        return sw_fail("%s (--skip-bad=N leaves out up to N bad records)", failure);
    return sw_fail("%s (more than the %lld bad records that --skip-bad allows)", failure, (long long)allowed);
}

static int write_batch(void *context, void *item, const char *failure)
{
    run *r = context;
    const batch *b = item;
    (void)failure;
    size_t piece = 0;
    for (size_t i = 0; i < b->rows.n; i++) {
        const row *w = &b->rows.at[i];
        r->rows_written++;
        if (w->failure) {
            if (bad_row(r, w->failure))
                return -1;
            continue;
        }
        for (; piece < w->pieces; piece++)
            if (sink_add(w->validation ? &r->validation : &r->train, &b->out, &b->out.pieces.at[piece]))
                return sw_fail_in("%s: line %lld", sw_rows_name(b->rows_of), (long long)w->line);
    }
    const encoded *o = &b->out;
    encoded *t = &r->total;
    t->truncated += o->truncated, t->dropped += o->dropped, t->empty += o->empty, t->unlabelled += o->unlabelled;
    t->chats += o->chats, t->unfilled += o->unfilled, t->split += o->split;
    t->end_trained |= o->end_trained;
    sw_progress_update(&r->progress, (double)b->input_bytes, NULL);
    return 0;
}

static void free_batch(void *context, void *item)
{
    (void)context;
    batch *b = item;
    clear_batch(b);
    free(b->rows.at);
    sw_buf_free(&b->bytes);
    encoded_free(&b->out);
}

/* ---- the end */

static cJSON *report_json(const run *r)
{
    cJSON *o = cJSON_CreateObject(), *inputs = cJSON_AddArrayToObject(o, "inputs");
    for (int i = 0; i < r->opened; i++) {
        cJSON *f = cJSON_CreateObject();
        cJSON_AddStringToObject(f, "name", sw_rows_name(r->rows[i]));
        cJSON_AddNumberToObject(f, "bytes", (double)sw_rows_bytes(r->rows[i]));
        cJSON_AddStringToObject(f, "digest", sw_rows_digest(r->rows[i]).hex);
        cJSON_AddItemToArray(inputs, f);
    }
    const encoded *t = &r->total;
    const struct {
        const char *name;
        int64_t n;
    } counts[] = {{"rows", r->rows_written},    {"bad", r->bad},     {"empty", t->empty},
                  {"truncated", t->truncated},  {"split", t->split}, {"dropped", t->dropped},
                  {"unlabelled", t->unlabelled}};
    for (size_t i = 0; i < SW_COUNT(counts); i++)
        cJSON_AddNumberToObject(o, counts[i].name, (double)counts[i].n);
    return o;
}

static void warn(const run *r)
{
    const tokenize_job *job = r->job;
    const encoded *t = &r->total;
    if (t->chats && job->end_token < 0) {
        sw_warn("the template %s puts no token after an answer: a model tuned on this will not know where to stop",
                sw_template_name(job->template));
    } else if (t->chats && !t->end_trained) {
        sw_span s = sw_token_piece(job->tokenizer, job->end_token);
        sw_warn("no record trains the template's end-of-turn token %.*s: a model tuned on this may never stop",
                (int)s.n, s.at);
    }
    if (t->unfilled)
        sw_warn("%lld records hold a {{NAME}} that is not filled in; --fill NAME=VALUE does that",
                (long long)t->unfilled);
    if (t->unlabelled)
        sw_warn("%lld records have no labelled token: there is nothing to learn from them", (long long)t->unlabelled);
    if (!r->rows_written)
        sw_warn("the input is empty, and so is the shard");
}

static void tell(const run *r, const char *what, const sw_shard_totals *t, double fill)
{
    sw_buf b = {0};
    sw_buf_printf(&b, "%s: %lld records, %lld tokens, %lld labelled, the longest %lld", what, (long long)t->records,
                  (long long)t->tokens, (long long)t->labelled, (long long)t->longest);
    if (r->job->o->packing)
        sw_buf_printf(&b, "; %lld documents, packs %.1f%% full", (long long)t->segments, 100 * fill);
    sw_info("%s", b.at);
    sw_buf_free(&b);
}

static int finish(run *r, double seconds)
{
    const encoded *t = &r->total;
    sw_shard_totals train, validation = {0};
    double fill, fill_validation;
    cJSON *report = report_json(r);
    /* the training shard appears last: where it is, the other is too */
    int rc = r->validation.job ? sink_finish(&r->validation, report, &validation, &fill_validation) : 0;
    if (!rc)
        rc = sink_finish(&r->train, report, &train, &fill);
    cJSON_Delete(report);
    if (rc)
        return -1;
    char took[32];
    tell(r, strcmp(r->train.path, "-") ? r->train.path : "standard output", &train, fill);
    if (r->validation.job)
        tell(r, r->validation.path, &validation, fill_validation);
    sw_info("%lld rows: %lld bad, %lld empty, %lld truncated, %lld split, %lld dropped as longer than --max-length",
            (long long)r->rows_written, (long long)r->bad, (long long)t->empty, (long long)t->truncated,
            (long long)t->split, (long long)t->dropped);
    sw_info("%.4g tokens/s, %s", (double)(train.tokens + validation.tokens) / SW_MAX(seconds, 1e-9),
            sw_human_seconds(seconds, took));
    warn(r);
    return 0;
}

static int64_t size_of_inputs(int n, char **inputs)
{
    int64_t sum = 0;
    for (int i = 0; i < n; i++) {
        struct stat st;
        if (!strcmp(inputs[i], "-") || stat(inputs[i], &st) || !S_ISREG(st.st_mode))
            return 0;
        sum += (int64_t)st.st_size;
    }
    return sum;
}

static int threads(void)
{
    cpu_set_t set;
    if (sw_common_opts.threads)
        return (int)sw_common_opts.threads;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

int tokenize_run(const tokenize_job *job, int n, char **inputs)
{
    static char *standard_input[] = {"-"};
    int workers = threads();
    run r = {.job = job, .inputs = n ? inputs : standard_input, .n_inputs = n ? n : 1};
    r.rows = SW_NEW_ARRAY(sw_rows *, r.n_inputs);
    r.encoders = SW_NEW_ARRAY(sw_encoder *, workers);
    for (int i = 0; i < workers; i++)
        r.encoders[i] = sw_encoder_new(job->tokenizer);
    sink_begin(&r.train, job, job->o->out);
    if (job->o->val_split > 0)
        sink_begin(&r.validation, job, job->o->val_out);
    sw_progress_begin(&r.progress, "tokenizing", "bytes", (double)size_of_inputs(r.n_inputs, r.inputs));
    sw_pipeline p = {&r, sizeof(batch), workers, read_batch, work_batch, write_batch, free_batch, &r.stop};
    double start = sw_now();
    int rc = sw_pipeline_run(&p);
    if (!rc) {
        sw_progress_end(&r.progress);
        rc = finish(&r, sw_now() - start);
    }
    sink_free(&r.train);
    sink_free(&r.validation);
    for (int i = 0; i < workers; i++)
        sw_encoder_free(r.encoders[i]);
    for (int i = 0; i < r.opened; i++)
        sw_rows_close(r.rows[i]);
    free(r.encoders);
    free(r.rows);
    return rc;
}
