#include "tokenize.h"

#include "base/log.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

enum { COLUMNS_MAX = 5 + N_EXTRAS };

/* A document that waits for a pack. */
typedef struct waiting {
    size_t n;
    int32_t *ids;
    float *weights;
} waiting;

static void free_waiting(void *item)
{
    waiting *d = item;
    free(d->ids);
    free(d->weights);
    free(d);
}

/* Options that change neither the records nor their order are left out: the same data is the same file. */
static cJSON *header_options(void)
{
    cJSON *o = sw_options_json(&swift_tokenize);
    static const char *const without[] = {"threads", "quiet", "config", "inspect", "out", "val-out"};
    for (size_t i = 0; i < SW_COUNT(without); i++)
        cJSON_DeleteItemFromObjectCaseSensitive(o, without[i]);
    return o;
}

static int create(sink *s)
{
    const tokenize_job *job = s->job;
    const tokenize_options *o = job->o;
    static const char *const train_on[] = {"all", "assistant", "last"};
    sw_column columns[COLUMNS_MAX] = {{"ids", SW_COLUMN_I32}, {"weights", SW_COLUMN_RUNS}};
    size_t n = 2;
    if (o->packing)
        columns[n++] = (sw_column){"segments", SW_COLUMN_U32};
    if (s->has_rejected) {
        columns[n++] = (sw_column){"rejected.ids", SW_COLUMN_I32};
        columns[n++] = (sw_column){"rejected.weights", SW_COLUMN_RUNS};
    }
    for (int i = 0; i < N_EXTRAS; i++)
        if (s->has_extra[i])
            columns[n++] = (sw_column){extra_names[i], SW_COLUMN_F32};
    if (o->packing && (s->has_rejected || n > 3))
        return sw_fail("records with rejected answers, labels or margins cannot be packed; leave --packing out");
    sw_digest tokenizer = sw_tokenizer_digest(job->tokenizer), vocab = sw_tokenizer_vocab_digest(job->tokenizer);
    sw_digest template = {0};
    sw_shard_info info = {.tokenizer_digest = tokenizer.hex,
                          .vocab_digest = vocab.hex,
                          .vocab_size = sw_tokenizer_size(job->tokenizer),
                          .train_on = train_on[o->train_on],
                          .max_length = o->max_length,
                          .packing = o->packing,
                          .command_line = sw_command_line(),
                          .program = "swift-tokenize " SW_VERSION,
                          .columns = columns,
                          .n_columns = n};
    if (job->template) {
        template = sw_template_digest(job->template);
        info.template_name = sw_template_name(job->template);
        info.template_digest = template.hex;
        info.template_text = sw_template_text(job->template);
    }
    cJSON *options = header_options();
    info.options = options;
    s->writer = sw_shard_create(s->path, &info);
    cJSON_Delete(options);
    return s->writer ? 0 : -1;
}

static int write_pack(void *context, void *const *items, size_t n)
{
    sink *s = context;
    s->ids.n = s->weights.n = s->segments.n = 0;
    for (size_t i = 0; i < n; i++) {
        const waiting *d = items[i];
        SW_RESERVE(s->ids, s->ids.n + d->n);
        SW_RESERVE(s->weights, s->ids.n + d->n);
        memcpy(s->ids.at + s->ids.n, d->ids, d->n * sizeof *d->ids);
        memcpy(s->weights.at + s->ids.n, d->weights, d->n * sizeof *d->weights);
        s->ids.n += d->n;
        SW_PUSH(s->segments, (int32_t)s->ids.n);
        free_waiting(items[i]);
    }
    sw_value values[] = {{s->ids.at, s->ids.n}, {s->weights.at, s->ids.n}, {s->segments.at, s->segments.n}};
    return sw_shard_append(s->writer, values);
}

void sink_begin(sink *s, const tokenize_job *job, const char *path)
{
    *s = (sink){.job = job, .path = path};
    if (job->o->packing)
        s->packer = sw_packer_new((size_t)job->o->max_length, (size_t)job->o->pack_window, write_pack, s);
}

static int check_columns(const sink *s, const piece *p)
{
    if (s->has_rejected != (p->rejected.n > 0))
        return sw_fail("has %s rejected answer, unlike the first record; all records of a shard have the same columns",
                       p->rejected.n ? "a" : "no");
    for (int i = 0; i < N_EXTRAS; i++)
        if (s->has_extra[i] != p->has[i])
            return sw_fail("field \"%s\": %s, unlike in the first record; all records of a shard have the same columns",
                           extra_names[i], p->has[i] ? "is a number" : "is missing or no number");
    return 0;
}

int sink_add(sink *s, const encoded *e, const piece *p)
{
    if (!s->writer) {
        s->has_rejected = p->rejected.n > 0;
        memcpy(s->has_extra, p->has, sizeof s->has_extra);
        if (create(s))
            return -1;
    }
    if (check_columns(s, p))
        return -1;
    const int32_t *ids = e->ids.at;
    const float *weights = e->weights.at;
    if (s->packer) {
        waiting *d = SW_NEW(waiting);
        d->n = p->main.n;
        d->ids = sw_malloc(d->n * sizeof *d->ids);
        d->weights = sw_malloc(d->n * sizeof *d->weights);
        memcpy(d->ids, ids + p->main.start, d->n * sizeof *d->ids);
        memcpy(d->weights, weights + p->main.start, d->n * sizeof *d->weights);
        return sw_packer_add(s->packer, d->n, d);
    }
    sw_value values[COLUMNS_MAX] = {{ids + p->main.start, p->main.n}, {weights + p->main.start, p->main.n}};
    size_t n = 2;
    if (s->has_rejected) {
        values[n++] = (sw_value){ids + p->rejected.start, p->rejected.n};
        values[n++] = (sw_value){weights + p->rejected.start, p->rejected.n};
    }
    for (int i = 0; i < N_EXTRAS; i++)
        if (s->has_extra[i])
            values[n++] = (sw_value){&p->extras[i], 1};
    return sw_shard_append(s->writer, values);
}

int sink_finish(sink *s, const cJSON *report, sw_shard_totals *totals, double *fill)
{
    if ((!s->writer && create(s)) || (s->packer && sw_packer_flush(s->packer)))
        return -1;
    *totals = *sw_shard_written(s->writer);
    *fill = s->packer ? sw_packer_fill(s->packer) : 1;
    sw_shard_writer *w = s->writer;
    s->writer = NULL;
    return sw_shard_finish(w, report);
}

void sink_free(sink *s)
{
    sw_packer_free(s->packer, free_waiting);
    sw_shard_abandon(s->writer);
    free(s->ids.at);
    free(s->weights.at);
    free(s->segments.at);
    *s = (sink){0};
}
