/* From files to shards: one thread cuts the inputs into batches of rows, workers encode them, records are written in
 * the order of the input. */
#include "tokenize.h"

#include "base/log.h"
#include "base/memory.h"
#include "data/pipeline.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { BATCH_BYTES = 128 << 10, BATCH_ROWS = 256 };

typedef struct row {
    const sw_rows *rows; /* of its file */
    int file;
    size_t at, n; /* in the batch's bytes */
    int64_t line;
    size_t pieces; /* end of its pieces in `out` */
    bool validation, too_long;
    char *failure;
    outcome told;
} row;

typedef struct batch {
    sw_buf bytes;
    struct {
        row *at;
        size_t n, cap;
    } rows;
    sw_print *prints; /* BATCH_ROWS, where duplicates are looked for */
    encoded out;
    double done, total; /* of the input, up to here */
} batch;

typedef struct run {
    const tokenize_job *job;
    sw_mixture *mixture;
    int64_t rows_read;
    sw_encoder **encoders;
    atomic_bool stop;
    sink train, validation;
    account account;
    sw_dedup *dedup;
    sw_progress progress;
} run;

/* ---- reading */

static void clear_batch(batch *b)
{
    for (size_t i = 0; i < b->rows.n; i++)
        free(b->rows.at[i].failure);
    b->rows.n = 0;
    sw_buf_clear(&b->bytes);
    encoded_clear(&b->out);
}

/* A batch holds the same rows however many threads there are. */
static int read_batch(void *context, void *item)
{
    run *r = context;
    batch *b = item;
    int64_t limit = r->job->o->limit;
    clear_batch(b);
    while (b->bytes.n < BATCH_BYTES && b->rows.n < BATCH_ROWS && !(limit && r->rows_read >= limit)) {
        sw_row line;
        int file, rc = sw_mixture_next(r->mixture, &line, &file);
        if (rc < 0)
            return -1;
        if (!rc)
            break;
        SW_PUSH(b->rows, ((row){.rows = sw_mixture_file(r->mixture, file),
                                .file = file,
                                .at = b->bytes.n,
                                .n = line.n,
                                .line = line.line,
                                .too_long = line.too_long}));
        sw_buf_add(&b->bytes, line.at, line.n);
        r->rows_read++;
    }
    sw_mixture_progress(r->mixture, &b->done, &b->total);
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

static int encode_one(const run *r, int worker, batch *b, row *w, sw_print *print)
{
    if (w->too_long)
        return sw_fail("%s: line %lld: the row is longer than the %lld bytes that a row may have (--max-record)",
                       sw_rows_name(w->rows), (long long)w->line, (long long)r->job->o->max_record);
    cJSON *v = sw_row_json(w->rows, b->bytes.at + w->at, w->n, w->line);
    if (!v)
        return -1;
    if (encode_row(r->job, r->encoders[worker], v, &b->out, &w->told, print))
        return sw_fail_in("%s: line %lld", sw_rows_name(w->rows), (long long)w->line);
    return 0;
}

static int work_batch(void *context, int worker, void *item)
{
    run *r = context;
    batch *b = item;
    const tokenize_job *job = r->job;
    if (r->dedup && !b->prints)
        b->prints = SW_NEW_ARRAY(sw_print, BATCH_ROWS);
    for (size_t i = 0; i < b->rows.n; i++) {
        row *w = &b->rows.at[i];
        int rc = encode_one(r, worker, b, w, b->prints ? &b->prints[i] : NULL);
        if (rc)
            w->failure = sw_strdup(sw_error());
        w->pieces = b->out.pieces.n;
        w->validation = job->o->val_split > 0 && for_validation(job->o, b->bytes.at + w->at, w->n);
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
    if (r->account.bad++ < allowed) {
        sw_warn("skipped: %s", failure);
        return 0;
    }
    if (!allowed)
        return sw_fail("%s (--skip-bad=N leaves out up to N bad records)", failure);
    return sw_fail("%s (more than the %lld bad records that --skip-bad allows)", failure, (long long)allowed);
}

static int end_part(run *r, bool complete)
{
    cJSON *report = account_report(&r->account, &r->train, complete);
    int rc = sink_end_shard(&r->train, report);
    cJSON_Delete(report);
    return rc;
}

static int write_row(run *r, const batch *b, size_t i)
{
    const row *w = &b->rows.at[i];
    r->account.rows++;
    if (w->failure)
        return bad_row(r, w->failure);
    if (r->dedup && w->told.length && sw_dedup_seen(r->dedup, &b->prints[i])) {
        r->account.duplicates++;
        return 0;
    }
    account_row(&r->account, w->file, &w->told);
    for (size_t k = i ? b->rows.at[i - 1].pieces : 0; k < w->pieces; k++)
        if (sink_add(w->validation ? &r->validation : &r->train, &b->out, &b->out.pieces.at[k]))
            return sw_fail_in("%s: line %lld", sw_rows_name(w->rows), (long long)w->line);
    return sink_is_full(&r->train) ? end_part(r, false) : 0;
}

static int write_batch(void *context, void *item, const char *failure)
{
    run *r = context;
    const batch *b = item;
    (void)failure;
    for (size_t i = 0; i < b->rows.n; i++)
        if (write_row(r, b, i))
            return -1;
    r->progress.total = b->total;
    sw_progress_update(&r->progress, b->done, NULL);
    return 0;
}

static void free_batch(void *context, void *item)
{
    (void)context;
    batch *b = item;
    clear_batch(b);
    free(b->rows.at);
    free(b->prints);
    sw_buf_free(&b->bytes);
    encoded_free(&b->out);
}

/* ---- the end */

/* The training shard appears last: where it is, the other is too. A folder that is full at the end has a last shard all
 * the same, which says that it is complete. */
static int finish(run *r)
{
    const tokenize_options *o = r->job->o;
    if (r->validation.job) {
        cJSON *report = account_report(&r->account, &r->validation, true);
        int rc = sink_end_shard(&r->validation, report);
        cJSON_Delete(report);
        if (rc)
            return -1;
    }
    if (o->stats && account_write_stats(&r->account, o->stats))
        return sw_fail_in("--stats");
    return end_part(r, true);
}

static int threads(void)
{
    cpu_set_t set;
    if (sw_common_opts.threads)
        return (int)sw_common_opts.threads;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

static int run_pipeline(run *r, int workers)
{
    r->encoders = SW_NEW_ARRAY(sw_encoder *, workers);
    for (int i = 0; i < workers; i++)
        r->encoders[i] = sw_encoder_new(r->job->tokenizer);
    double done, total, start = sw_now();
    sw_mixture_progress(r->mixture, &done, &total);
    sw_progress_begin(&r->progress, "tokenizing", "bytes", total);
    sw_pipeline p = {r, sizeof(batch), workers, read_batch, work_batch, write_batch, free_batch, &r->stop};
    int rc = sw_pipeline_run(&p);
    if (!rc) {
        sw_progress_end(&r->progress);
        rc = finish(r);
    }
    if (!rc)
        account_tell(&r->account, &r->train, r->validation.job ? &r->validation : NULL, sw_now() - start);
    if (!rc && r->dedup && sw_dedup_forgotten(r->dedup))
        sw_warn("%lld records did not fit into --dedup-memory and were compared with the later part of the input only",
                (long long)sw_dedup_forgotten(r->dedup));
    for (int i = 0; i < workers; i++)
        sw_encoder_free(r->encoders[i]);
    free(r->encoders);
    return rc;
}

int tokenize_run(const tokenize_job *job, int n, char **inputs)
{
    static char *standard_input[] = {"-"};
    const tokenize_options *o = job->o;
    run r = {.job = job};
    if (!n) {
        inputs = standard_input;
        n = 1;
    }
    sw_mixture_options m = {.mix = (sw_mix)o->mix,
                            .kind = (sw_rows_kind)o->input_kind,
                            .unit = (sw_text_unit)o->text_unit,
                            .bounds = {o->max_record, o->skip_bad > 0, o->utf8_errors},
                            .seed = (uint64_t)sw_common_opts.seed,
                            .stop = &r.stop};
    r.mixture = sw_mixture_new(inputs, n, &m);
    if (!r.mixture || sw_mixture_spared_by(r.mixture, o->out) || sw_mixture_spared_by(r.mixture, o->val_out) ||
        sw_mixture_spared_by(r.mixture, o->stats)) {
        sw_mixture_free(r.mixture);
        return -1;
    }
    r.account = (account){.job = job, .mixture = r.mixture, .files = SW_NEW_ARRAY(file_account, n)};
    if (o->dedup)
        r.dedup = sw_dedup_new(o->dedup == DEDUP_NEAR, o->dedup_threshold, (size_t)o->dedup_memory);
    sink_begin(&r.train, job, o->out);
    if (o->val_split > 0)
        sink_begin(&r.validation, job, o->val_out);
    int more = o->shard_tokens ? series_begin(&r.account, &r.train, r.mixture, n, inputs) : 1;
    r.rows_read = r.account.rows;
    int rc = more > 0 ? run_pipeline(&r, threads()) : more;
    sink_free(&r.train);
    sink_free(&r.validation);
    sw_dedup_free(r.dedup);
    account_free(&r.account);
    sw_mixture_free(r.mixture);
    return rc;
}
