#include "tokenize.h"

#include "base/log.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

enum { COLUMNS_MAX = 16 };

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

cJSON *header_options(void)
{
    cJSON *o = sw_options_json(&swift_tokenize);
    static const char *const without[] = {"threads", "quiet", "config", "inspect", "list-templates", "list-as", "out", "val-out", "stats", "resume"};
    for (size_t i = 0; i < SW_COUNT(without); i++)
        cJSON_DeleteItemFromObjectCaseSensitive(o, without[i]);
    return o;
}

/* The columns of a record, and where they lie; e and p may be NULL where only the columns are asked for. The one place
 * that says what a record is made of. */
static size_t lay_out(unsigned has, bool packing, const encoded *e, const piece *p, sw_column *columns,
                      sw_value *values)
{
    static const struct {
        const char *name, *weights, *ends;
        int seq;
        unsigned has; /* 0: always */
    } sequences[] = {{"ids", "weights", NULL, SEQ_MAIN, 0},
                     {"rejected.ids", "rejected.weights", NULL, SEQ_REJECTED, HAS_REJECTED},
                     {"positive.ids", NULL, "positive.segments", SEQ_POSITIVE, HAS_LISTS},
                     {"negative.ids", NULL, "negative.segments", SEQ_NEGATIVE, HAS_LISTS}};
    size_t n = 0;
#define COLUMN(name, type, from, count)                                                                                \
    (columns[n] = (sw_column){name, type}, values[n++] = p ? (sw_value){from, count} : (sw_value){0})
    for (size_t i = 0; i < SW_COUNT(sequences); i++) {
        if (sequences[i].has && !(has & sequences[i].has))
            continue;
        span q = p ? p->seqs[sequences[i].seq] : (span){0}, ends = p ? p->ends[sequences[i].seq] : (span){0};
        COLUMN(sequences[i].name, SW_COLUMN_I32, e->ids.at + q.start, q.n);
        if (sequences[i].weights)
            COLUMN(sequences[i].weights, SW_COLUMN_RUNS, e->weights.at + q.start, q.n);
        if (sequences[i].ends)
            COLUMN(sequences[i].ends, SW_COLUMN_U32, e->ends.at + ends.start, ends.n);
        if (!i && packing)
            COLUMN("segments", SW_COLUMN_U32, NULL, 0);
    }
    if (has & HAS_TAGS)
        COLUMN("tags", SW_COLUMN_I32, e->tags.at + p->seqs[SEQ_MAIN].start, p->seqs[SEQ_MAIN].n);
    if (has & HAS_LABEL)
        COLUMN("label", SW_COLUMN_F32, e->numbers.at + p->labels.start, p->labels.n);
    if (has & HAS_MARGIN)
        COLUMN("margin", SW_COLUMN_F32, &p->margin, 1);
    if (has & HAS_MEDIA)
        COLUMN("media", SW_COLUMN_BYTES, e->bytes.at + p->media.start, p->media.n);
    if (has & HAS_CARRIED)
        COLUMN("carried", SW_COLUMN_BYTES, e->bytes.at + p->carried.start, p->carried.n);
#undef COLUMN
    return n;
}

char *sink_part_name(const char *folder, int i)
{
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/')
        n--;
    return sw_strfmt("%.*s/part-%05d.shard", (int)n, folder, i);
}

static int create(sink *s)
{
    const tokenize_job *job = s->job;
    const tokenize_options *o = job->o;
    static const char *const train_on[] = {"all", "assistant", "last"};
    sw_column columns[COLUMNS_MAX];
    sw_value none[COLUMNS_MAX];
    size_t n = lay_out(s->has, o->packing, NULL, NULL, columns, none);
    sw_digest tokenizer = sw_tokenizer_digest(job->tokenizer), vocab = sw_tokenizer_vocab_digest(job->tokenizer);
    sw_digest template = {0};
    sw_shard_info info = {.tokenizer_digest = tokenizer.hex,
                          .vocab_digest = vocab.hex,
                          .vocab_size = sw_tokenizer_size(job->tokenizer),
                          .train_on = train_on[o->train_on],
                          .task = sw_task_names[o->task                  ? o->task
                                               : s->has & HAS_LISTS ? SW_TASK_EMBEDDING
                                               : s->has & HAS_TAGS  ? SW_TASK_TAG
                                                                    : SW_TASK_AUTO],
                          .max_length = o->packing ? o->packing_length : o->max_length,
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
    info.classes = s->has & HAS_TAGS || (s->has & HAS_LABEL && o->labels) ? job->classes : NULL;
    char *part = o->shard_tokens ? sink_part_name(s->path, s->part) : NULL;
    s->writer = sw_shard_create(part ? part : s->path, &info);
    free(part);
    cJSON_Delete(options);
    return s->writer ? 0 : -1;
}

/* ---- packing */

/* Adds a document, or part of one, to the pack that is being joined. */
static void join(sink *s, const int32_t *ids, const float *weights, size_t n)
{
    SW_RESERVE(s->ids, s->ids.n + n);
    SW_RESERVE(s->weights, s->ids.n + n);
    memcpy(s->ids.at + s->ids.n, ids, n * sizeof *ids);
    memcpy(s->weights.at + s->ids.n, weights, n * sizeof *weights);
    s->weights.at[s->ids.n] = 0; /* nothing before it in its record */
    s->ids.n += n;
    SW_PUSH(s->segments, (int32_t)s->ids.n);
}

static int write_joined(sink *s)
{
    if (!s->ids.n)
        return 0;
    sw_value values[] = {{s->ids.at, s->ids.n}, {s->weights.at, s->ids.n}, {s->segments.at, s->segments.n}};
    s->packs++;
    s->packed += (int64_t)s->ids.n;
    s->ids.n = s->segments.n = 0;
    return sw_shard_append(s->writer, values);
}

static int write_pack(void *context, void *const *items, size_t n)
{
    sink *s = context;
    for (size_t i = 0; i < n; i++) {
        const waiting *d = items[i];
        join(s, d->ids, d->weights, d->n);
        free_waiting(items[i]);
    }
    return write_joined(s);
}

static int pack(sink *s, const int32_t *ids, const float *weights, size_t n)
{
    size_t room = (size_t)s->job->o->packing_length;
    if (s->packer) {
        waiting *d = SW_NEW(waiting);
        d->n = n;
        d->ids = sw_malloc(n * sizeof *ids);
        d->weights = sw_malloc(n * sizeof *weights);
        memcpy(d->ids, ids, n * sizeof *ids);
        memcpy(d->weights, weights, n * sizeof *weights);
        return sw_packer_add(s->packer, n, d);
    }
    bool wrapped = s->job->o->packing_strategy == PACK_WRAPPED;
    if (!wrapped && s->ids.n + n > room && write_joined(s))
        return -1;
    while (n) {
        size_t take = SW_MIN(n, room - s->ids.n);
        join(s, ids, weights, take);
        ids += take, weights += take, n -= take;
        if (s->ids.n == room && write_joined(s))
            return -1;
    }
    return 0;
}

/* ---- */

void sink_begin(sink *s, const tokenize_job *job, const char *path)
{
    const tokenize_options *o = job->o;
    *s = (sink){.job = job, .path = path};
    if (o->packing && o->packing_strategy == PACK_BINPACK)
        s->packer = sw_packer_new((size_t)o->packing_length, (size_t)o->pack_window, write_pack, s);
}

/* All records of a shard have the same columns. */
static int check_columns(const sink *s, unsigned has)
{
    static const struct {
        unsigned has;
        const char *there, *missing;
    } groups[] = {{HAS_REJECTED, "a rejected answer", "no rejected answer"},
                  {HAS_LISTS, "texts to compare with", "no texts to compare with"},
                  {HAS_TAGS, "words with classes", "no words with classes"},
                  {HAS_LABEL, "a number as \"label\"", "no number as \"label\""},
                  {HAS_MARGIN, "a number as \"margin\"", "no number as \"margin\""},
                  {HAS_CARRIED, "carried columns", "no carried columns"}};
    for (size_t i = 0; i < SW_COUNT(groups); i++)
        if ((s->has ^ has) & groups[i].has)
            return sw_fail("has %s, unlike the first record; all records of a shard have the same columns (--task says "
                           "what is wanted)",
                           has & groups[i].has ? groups[i].there : groups[i].missing);
    return 0;
}

int sink_add(sink *s, const encoded *e, const piece *p)
{
    unsigned has = p->has;
    if (s->job->o->packing && !p->media.n)
        has &= ~(unsigned)HAS_MEDIA;
    if (s->job->o->packing && has)
        return sw_fail("more than tokens (a rejected answer, labels, words' classes, compared texts, media, carried columns) cannot be "
                       "packed; leave "
                       "--packing out, or what the record has (--task sft)");
    if (!s->started)
        s->has = has;
    s->started = true;
    if ((!s->writer && create(s)) || check_columns(s, has))
        return -1;
    span main = p->seqs[SEQ_MAIN];
    s->added += (int64_t)main.n;
    if (s->job->o->packing)
        return pack(s, e->ids.at + main.start, e->weights.at + main.start, main.n);
    sw_column columns[COLUMNS_MAX];
    sw_value values[COLUMNS_MAX];
    lay_out(s->has, false, e, p, columns, values);
    return sw_shard_append(s->writer, values);
}

bool sink_is_full(const sink *s) { return s->job->o->shard_tokens && s->added >= s->job->o->shard_tokens; }

int sink_end_shard(sink *s, const cJSON *report)
{
    if ((!s->writer && create(s)) || (s->packer && sw_packer_flush(s->packer)) || write_joined(s))
        return -1;
    s->before = sink_totals(s);
    s->part++;
    s->added = 0;
    sw_shard_writer *w = s->writer;
    s->writer = NULL;
    return sw_shard_finish(w, report);
}

sw_shard_totals sink_totals(const sink *s)
{
    sw_shard_totals t = s->before;
    const sw_shard_totals *now = s->writer ? sw_shard_written(s->writer) : &(sw_shard_totals){0};
    t.frames += now->frames, t.records += now->records, t.tokens += now->tokens;
    t.labelled += now->labelled, t.segments += now->segments;
    t.longest = SW_MAX(t.longest, now->longest);
    return t;
}

double sink_fill(const sink *s)
{
    return s->packs ? (double)s->packed / ((double)s->packs * (double)s->job->o->packing_length) : 1;
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
