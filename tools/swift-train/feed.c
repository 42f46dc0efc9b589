#include "feed.h"

#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/philox.h"
#include "data/shard_format.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct feed_summary {
    int64_t count;
    bool has_totals;
    sw_shard_totals totals;
    sw_digest digest;
} feed_summary;

struct train_feed {
    feed_options o;
    sw_shard **shards;
    int64_t *ends; /* running count of records after each shard */
    int n;
    int64_t count; /* of an epoch; -1: a pipe that is read once */
    feed_place place;
    uint64_t *order; /* of the epoch, when files are shuffled */
    int64_t order_of;
    struct {
        train_sample **at;
        size_t n, cap;
    } waiting; /* of a pipe */
    bool drained, over;
    /* Standard input of several ranks: rank 0 has the shard, the others what they need to know of it. */
    bool dealt;
    feed_summary summary;
};

static bool is_stdin(const char *path) { return !strcmp(path, "-"); }

static bool is_regular(int fd)
{
    struct stat st;
    return !fstat(fd, &st) && S_ISREG(st.st_mode) && lseek(fd, 0, SEEK_CUR) == 0;
}

/* Standard input as a file without a name from its beginning on, so that nothing is left of a run that is killed. */
static sw_shard *open_spooled(const char *folder)
{
    const char *base = getenv("TMPDIR") && *getenv("TMPDIR") ? getenv("TMPDIR") : folder;
    char *path = sw_strfmt("%s/swift-spool-XXXXXX", base), *block = sw_malloc(1 << 16);
    int fd = mkstemp(path);
    int rc = fd < 0 || unlink(path) ? sw_fail_errno("%s: a file for the data from the pipe", path) : 0;
    for (ssize_t got = 1; !rc && got;) {
        got = sw_read_unless_stopped(STDIN_FILENO, block, 1 << 16);
        if (got < 0)
            rc = sw_interrupted() ? sw_fail("standard input: interrupted") : sw_fail_errno("standard input");
        else if (sw_write_all(fd, block, (size_t)got))
            rc = sw_fail_errno("%s: the data from the pipe cannot be kept (TMPDIR names another place)", path);
    }
    if (rc && fd >= 0)
        close(fd);
    free(path);
    free(block);
    return rc ? NULL : shard_open_fd(fd, "standard input", true);
}

static bool is_used(const feed_options *o, const char *column)
{
    static const char *const always[] = {"ids", "weights", "segments", "carried", NULL};
    for (const char *const *c = always; *c; c++)
        if (!strcmp(*c, column))
            return true;
    for (const char *const *c = o->columns; c && *c; c++)
        if (!strcmp(*c, column))
            return true;
    return false;
}

/* What a record holds besides one sequence says what it is for: a rejected answer, a label, a picture. Training without it
 * would be training on something else. */
static int check_columns(const feed_options *o, const sw_shard_info *info, const char *name)
{
    for (size_t i = 0; i < info->n_columns; i++)
        if (!is_used(o, info->columns[i].name) && strcmp(info->columns[i].name, "media"))
            return sw_fail("%s: its records have \"%s\", which the objective %s cannot use; swift-tokenize --task sft makes records of "
                           "the answers alone", name, info->columns[i].name, o->objective);
    if (!strcmp(info->task, "prompt"))
        return sw_fail("%s: holds prompts without answers (--task prompt), which the objective %s cannot use", name, o->objective);
    return 0;
}

/* The column is there wherever the template could have used it; what counts is that something is in it. */
static int check_media(const train_feed *f, const sw_shard *s, const sw_shard_record *r)
{
    int media = sw_shard_column(s, "media");
    if (media < 0 || !r->values[media].n || is_used(&f->o, "media"))
        return 0;
    return sw_fail("record %lld has images, videos or audios, which the objective %s cannot use", (long long)r->number, f->o.objective);
}

/* Added tokens of the tokenizer may have no row in the model. */
static int check_ids(const train_feed *f, const sw_shard *s, const sw_shard_record *r)
{
    for (size_t i = 0; sw_shard_info_of(s)->vocab_size > f->o.vocab && i < r->n; i++)
        if (r->ids[i] >= f->o.vocab)
            return sw_fail("record %lld has the token %d, which the model has no row for: its vocabulary ends at %lld", (long long)r->number,
                           r->ids[i], (long long)f->o.vocab - 1);
    return 0;
}

/* Where an objective learns the classes of words, they must be there. */
static int check_tags(const train_feed *f, const sw_shard *s, const char *name)
{
    if (is_used(&f->o, "tags") && sw_shard_column(s, "tags") < 0)
        return sw_fail("%s: its words have no classes, which the objective %s learns; swift-tokenize --task tag makes records of words and their "
                       "classes", name, f->o.objective);
    return 0;
}

/* Classes must be the model's, by number and name. */
static int check_classes(const train_feed *f, const sw_shard *s, const char *name)
{
    const cJSON *theirs = sw_shard_info_of(s)->classes;
    if (!theirs || !f->o.classes || cJSON_Compare(theirs, f->o.classes, true))
        return 0;
    const cJSON *a = theirs->child, *b = f->o.classes->child;
    int i = 0;
    for (; a && b && !strcmp(a->valuestring, b->valuestring); i++, a = a->next, b = b->next)
        ;
    return sw_fail("%s: its %d classes are not those of the model, which has %d (id2label of its config.json, or --labels): class %d is %s%.40s and %s%.40s",
                   name, cJSON_GetArraySize(theirs), cJSON_GetArraySize(f->o.classes), i, a ? "" : "none", a ? a->valuestring : "",
                   b ? "" : "none", b ? b->valuestring : "");
}

static int check_tag_numbers(const train_feed *f, const sw_shard *s, const sw_shard_record *r)
{
    int tags = is_used(&f->o, "tags") ? sw_shard_column(s, "tags") : -1;
    const int32_t *tag = tags < 0 ? NULL : r->values[tags].at;
    for (size_t i = 0; tag && i < r->n; i++)
        if (tag[i] >= f->o.n_classes)
            return sw_fail("record %lld: a word's class is %d, the model has the classes 0 to %lld", (long long)r->number, tag[i],
                           (long long)f->o.n_classes - 1);
    return 0;
}

static int check_record(const train_feed *f, const sw_shard *s, const sw_shard_record *r)
{
    return check_ids(f, s, r) || check_media(f, s, r) || check_tag_numbers(f, s, r) ? -1 : 0;
}

/* Where an objective learns labels, every record must have its own. */
static int check_label(const train_feed *f, const sw_shard *s, const char *name)
{
    const sw_shard_info *info = sw_shard_info_of(s);
    if (!is_used(&f->o, "label"))
        return 0;
    if (sw_shard_column(s, "label") < 0)
        return sw_fail("%s: its records have no label, which the objective %s learns; swift-tokenize --task classify keeps it", name, f->o.objective);
    if (!strcmp(info->task, "kto") || info->packing)
        return sw_fail("%s: %s; swift-tokenize --task classify makes records of a text and its label", name,
                       info->packing ? "its records hold several texts (--packing)" : "its labels say whether an answer is wanted (--task kto)");
    return 0;
}

static int check_shard(const train_feed *f, const sw_shard *s, const char *name)
{
    const sw_shard_info *info = sw_shard_info_of(s);
    if (f->o.vocab_digest && sw_shard_check_vocab(s, f->o.vocab_digest))
        return -1;
    if (info->vocab_size > f->o.vocab && !f->o.vocab_digest) /* else it is the model's own, which fits */
        return sw_fail("%s: its tokenizer has %lld ids, the model's vocabulary %lld", name, (long long)info->vocab_size, (long long)f->o.vocab);
    if (check_columns(&f->o, info, name) || check_label(f, s, name) || check_tags(f, s, name) || check_classes(f, s, name))
        return -1;
    const sw_shard_info *first = sw_shard_info_of(f->shards[0]);
    if (first->template_digest && info->template_digest && strcmp(first->template_digest, info->template_digest))
        sw_warn("%s: made with another chat template (%s) than the first shard (%s)", name, info->template_name, first->template_name);
    return 0;
}

void train_step_free(train_step_data *d)
{
    for (size_t i = 0; i < d->n; i++)
        free(d->at[i]);
    d->n = 0;
}

static train_feed *open_shards(char **paths, int n, const feed_options *o)
{
    train_feed *f = SW_NEW(train_feed);
    f->o = *o;
    f->shards = SW_NEW_ARRAY(sw_shard *, (size_t)n);
    f->ends = SW_NEW_ARRAY(int64_t, (size_t)n);
    f->order_of = -1;
    int rc = 0;
    for (int i = 0; i < n && !rc; i++) {
        if (is_stdin(paths[i]) && n > 1)
            rc = sw_fail("standard input cannot be one of several shards");
        bool spool = is_stdin(paths[i]) && o->again && !is_regular(STDIN_FILENO);
        if (!rc)
            f->shards[i] = spool ? open_spooled(o->spool) : sw_shard_open(paths[i]);
        if (f->shards[i] && o->again && !sw_shard_seekable(f->shards[i]))
            rc = sw_fail("%s: is a pipe, which is read once; give it as standard input, or a file", paths[i]);
        f->n += f->shards[i] != NULL;
        rc = rc || !f->shards[i] || check_shard(f, f->shards[i], is_stdin(paths[i]) ? "standard input" : paths[i]) ? -1 : 0;
        if (rc)
            break;
        int64_t records = sw_shard_count(f->shards[i]);
        if (records < 0 && n > 1)
            rc = sw_fail("%s: is a pipe, which cannot be one of several shards", paths[i]);
        f->count = records < 0 ? -1 : f->count + records;
        f->ends[i] = f->count;
    }
    if (!rc && !f->count)
        rc = sw_fail("%s: holds no records", is_stdin(paths[0]) ? "standard input" : paths[0]);
    if (rc) {
        feed_close(f);
        return NULL;
    }
    return f;
}

train_feed *feed_open(char **paths, int n, const feed_options *o)
{
    static char *stdin_only[] = {"-"};
    if (!n) {
        paths = stdin_only;
        n = 1;
    }
    if (!o->comm || o->comm->ranks == 1 || n > 1 || !is_stdin(*paths))
        return open_shards(paths, n, o);
    train_feed *f = o->comm->rank ? SW_NEW(train_feed) : open_shards(paths, n, o);
    if (sw_comm_agree(o->comm, f ? 0 : -1)) {
        feed_close(f);
        return NULL;
    }
    f->o = *o;
    if (!o->comm->rank) {
        f->summary.count = f->count;
        f->summary.has_totals = feed_totals(f, &f->summary.totals);
        f->summary.digest = feed_digest(f);
    }
    if (sw_comm_broadcast(o->comm, &f->summary, sizeof f->summary, 0)) {
        feed_close(f);
        return NULL;
    }
    f->dealt = true;
    f->count = f->summary.count;
    return f;
}

void feed_close(train_feed *f)
{
    if (!f)
        return;
    for (int i = 0; i < f->n; i++)
        sw_shard_close(f->shards[i]);
    for (size_t i = 0; i < f->waiting.n; i++)
        free(f->waiting.at[i]);
    free(f->waiting.at);
    free(f->shards);
    free(f->ends);
    free(f->order);
    free(f);
}

const sw_shard_info *feed_info(const train_feed *f) { return f->n ? sw_shard_info_of(f->shards[0]) : NULL; }

bool feed_totals(const train_feed *f, sw_shard_totals *t)
{
    *t = f->summary.totals;
    if (f->dealt)
        return f->summary.has_totals;
    for (int i = 0; i < f->n; i++) {
        const sw_shard_totals *one = sw_shard_totals_of(f->shards[i]);
        if (!one || f->count < 0)
            return false;
        t->frames += one->frames;
        t->records += one->records;
        t->tokens += one->tokens;
        t->labelled += one->labelled;
        t->segments += one->segments;
        t->longest = SW_MAX(t->longest, one->longest);
    }
    return true;
}

sw_digest feed_digest(const train_feed *f)
{
    sw_buf b = {0};
    if (f->dealt)
        return f->summary.digest;
    for (int i = 0; i < f->n; i++) {
        const sw_shard_info *info = sw_shard_info_of(f->shards[i]);
        const sw_shard_totals *t = f->count < 0 ? NULL : sw_shard_totals_of(f->shards[i]);
        sw_buf_printf(&b, "%s %s %s %lld %d\n", info->tokenizer_digest, info->template_digest ? info->template_digest : "-", info->train_on,
                      (long long)info->max_length, info->packing);
        if (t)
            sw_buf_printf(&b, "%lld %lld %lld %lld\n", (long long)t->records, (long long)t->tokens, (long long)t->labelled, (long long)t->longest);
        if (t && sw_shard_report(f->shards[i]))
            sw_json_print(&b, sw_shard_report(f->shards[i]));
    }
    sw_digest d = sw_digest_bytes(b.at, b.n);
    sw_buf_free(&b);
    return d;
}

/* tags: NULL, or a class for each token. */
static train_sample *copy_of(const sw_shard_record *r, const sw_value *label, const int32_t *tags)
{
    size_t ids = r->n * sizeof *r->ids, weights = r->n * sizeof *r->weights, segments = r->n_segments * sizeof *r->segments;
    size_t labels = label->n * sizeof(float);
    train_sample *s = sw_malloc(sizeof *s + ids + weights + segments + labels + (tags ? ids : 0));
    *s = (train_sample){.n = (int64_t)r->n, .n_segments = (int64_t)r->n_segments, .n_labels = (int64_t)label->n};
    s->ids = (int32_t *)(s + 1);
    s->weights = (float *)((char *)s->ids + ids);
    s->segments = (uint32_t *)((char *)s->weights + weights);
    if (r->n) {
        memcpy(s->ids, r->ids, ids);
        memcpy(s->weights, r->weights, weights);
    }
    memcpy(s->segments, r->segments, segments);
    s->labels = (float *)((char *)s->segments + segments);
    if (labels)
        memcpy(s->labels, label->at, labels);
    if (tags) {
        s->targets = (int32_t *)((char *)s->labels + labels);
        memcpy(s->targets, tags, ids);
    }
    return s;
}

/* A record of a shard, with its label or its tokens' classes where that is used. */
static train_sample *take(const train_feed *f, const sw_shard *shard, const sw_shard_record *r)
{
    int label = is_used(&f->o, "label") ? sw_shard_column(shard, "label") : -1;
    int tags = is_used(&f->o, "tags") ? sw_shard_column(shard, "tags") : -1;
    return copy_of(r, label < 0 ? &(sw_value){0} : &r->values[label], tags < 0 ? NULL : r->values[tags].at);
}

/* ---- files: any record at once */

static bool epoch_ends(train_feed *f)
{
    if (f->place.taken < f->count)
        return false;
    f->place = (feed_place){f->place.epoch + 1, 0};
    return true;
}

/* Record number `at` of the present epoch. */
static int read_at(train_feed *f, int64_t at, train_sample **s)
{
    if (f->o.shuffle && f->order_of != f->place.epoch) {
        if (!f->order)
            f->order = SW_NEW_ARRAY(uint64_t, (size_t)f->count);
        sw_rng rng = {f->o.seed, (uint32_t)f->place.epoch, sw_rng_site("shuffle")};
        sw_rng_permutation(&rng, (uint64_t)f->count, f->order);
        f->order_of = f->place.epoch;
    }
    int64_t i = f->o.shuffle ? (int64_t)f->order[at] : at;
    int which = 0;
    while (i >= f->ends[which])
        which++;
    sw_shard_record r;
    if (sw_shard_read(f->shards[which], i - (which ? f->ends[which - 1] : 0), &r) || check_record(f, f->shards[which], &r))
        return -1;
    *s = take(f, f->shards[which], &r);
    return 0;
}

static int next_of_files(train_feed *f, train_sample **s)
{
    if (epoch_ends(f))
        return 0;
    if (read_at(f, f->place.taken, s))
        return -1;
    f->place.taken++;
    return 1;
}

/* ---- a pipe: a draw from the records that wait, each replaced by the next that comes */

static int next_of_pipe(train_feed *f, train_sample **s)
{
    size_t most = f->o.shuffle ? (size_t)f->o.buffer : 1;
    while (!f->drained && f->waiting.n < most) {
        sw_shard_record r;
        int rc = sw_shard_next(f->shards[0], &r);
        if (rc < 0 || (rc && check_record(f, f->shards[0], &r)))
            return -1;
        f->drained = !rc;
        if (rc)
            SW_PUSH(f->waiting, take(f, f->shards[0], &r));
    }
    if (!f->waiting.n) {
        f->place.epoch += !f->over;
        f->place.taken = 0;
        f->over = true;
        return 0;
    }
    sw_rng rng = {f->o.seed, 0, sw_rng_site("shuffle")};
    size_t i = f->waiting.n > 1 ? (size_t)sw_rng_below(&rng, (uint64_t)f->place.taken, f->waiting.n) : 0;
    *s = f->waiting.at[i];
    f->waiting.at[i] = f->waiting.at[--f->waiting.n];
    f->place.taken++;
    return 1;
}

int feed_next(train_feed *f, train_sample **s)
{
    *s = NULL;
    return f->count < 0 ? next_of_pipe(f, s) : next_of_files(f, s);
}

/* ---- a share of what comes next */

static int take_here(train_feed *f, int64_t want, train_step_data *out)
{
    while ((int64_t)out->n < want) {
        train_sample *s;
        int rc = feed_next(f, &s);
        if (rc < 1) {
            if (!rc && out->n && f->count >= 0) /* the end is for the next call to tell */
                f->place = (feed_place){f->place.epoch - 1, f->count};
            return rc;
        }
        SW_PUSH(*out, s);
    }
    return 0;
}

static int take_of_files(train_feed *f, int64_t want, int64_t each, train_step_data *out, int64_t *got)
{
    if (epoch_ends(f))
        return 0;
    int64_t n = SW_MIN(want, f->count - f->place.taken), first = (f->o.comm ? f->o.comm->rank : 0) * each;
    for (int64_t i = first; i < SW_MIN(first + each, n); i++) {
        train_sample *s;
        if (read_at(f, f->place.taken + i, &s))
            return -1;
        SW_PUSH(*out, s);
    }
    f->place.taken += n;
    *got = n;
    return 0;
}

/* A share of samples as one block: for each its counts, then ids, weights, segment ends, labels and classes of tokens. */
static void pack(sw_buf *b, train_sample *const *samples, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const train_sample *s = samples[i];
        sw_buf_add(b, (const char *)(int64_t[]){s->n, s->n_segments, s->n_labels, s->targets != NULL}, 32);
        sw_buf_add(b, (const char *)s->ids, (size_t)s->n * sizeof *s->ids);
        sw_buf_add(b, (const char *)s->weights, (size_t)s->n * sizeof *s->weights);
        sw_buf_add(b, (const char *)s->segments, (size_t)s->n_segments * sizeof *s->segments);
        sw_buf_add(b, (const char *)s->labels, (size_t)s->n_labels * sizeof *s->labels);
        sw_buf_add(b, (const char *)s->targets, s->targets ? (size_t)s->n * sizeof *s->targets : 0);
    }
}

static void unpack(const char *at, const char *end, train_step_data *out)
{
    while (at < end) {
        int64_t n[4];
        memcpy(n, at, sizeof n);
        at += sizeof n;
        sw_shard_record r = {.n = (size_t)n[0], .n_segments = (size_t)n[1]};
        r.ids = (const int32_t *)at;
        r.weights = (const float *)(at + r.n * sizeof *r.ids);
        r.segments = (const uint32_t *)(at + r.n * (sizeof *r.ids + sizeof *r.weights));
        sw_value label = {r.segments + r.n_segments, (size_t)n[2]};
        at = (const char *)label.at + label.n * sizeof(float);
        const int32_t *tags = n[3] ? (const int32_t *)at : NULL;
        at += n[3] ? r.n * sizeof *tags : 0;
        SW_PUSH(*out, copy_of(&r, &label, tags));
    }
}

static int send_share(sw_comm *c, train_sample *const *samples, int64_t n, int to)
{
    sw_buf b = {0};
    pack(&b, samples, n);
    int64_t bytes = (int64_t)b.n;
    int rc = sw_comm_send(c, &bytes, sizeof bytes, to) || (bytes && sw_comm_send(c, b.at, b.n, to)) ? -1 : 0;
    sw_buf_free(&b);
    return rc;
}

static int receive_share(sw_comm *c, train_step_data *out)
{
    int64_t bytes = 0;
    if (sw_comm_receive(c, &bytes, sizeof bytes, 0))
        return -1;
    char *block = sw_malloc((size_t)bytes + 1);
    int rc = bytes ? sw_comm_receive(c, block, (size_t)bytes, 0) : 0;
    if (!rc)
        unpack(block, block + bytes, out);
    free(block);
    return rc;
}

static int deal(train_feed *f, int64_t want, int64_t each, train_step_data *out, int64_t *got)
{
    sw_comm *c = f->o.comm;
    if (sw_comm_agree(c, c->rank ? 0 : take_here(f, want, out)))
        return -1;
    struct {
        int64_t n;
        feed_place place;
    } now = {(int64_t)out->n, f->place};
    if (sw_comm_broadcast(c, &now, sizeof now, 0))
        return -1;
    f->place = now.place;
    *got = now.n;
    if (c->rank)
        return receive_share(c, out);
    for (int r = 1; r < c->ranks; r++) {
        int64_t first = SW_MIN(r * each, now.n);
        if (send_share(c, out->at + first, SW_MIN(each, now.n - first), r))
            return -1;
    }
    while ((int64_t)out->n > each)
        free(out->at[--out->n]);
    return 0;
}

int feed_take(train_feed *f, int64_t want, int64_t each, train_step_data *out, int64_t *got)
{
    *got = 0;
    train_step_free(out);
    if (f->dealt)
        return deal(f, want, each, out, got);
    if (f->count >= 0)
        return take_of_files(f, want, each, out, got);
    int rc = take_here(f, want, out);
    *got = (int64_t)out->n;
    return rc;
}

bool feed_at_once(const train_feed *f) { return f->count >= 0 && !f->dealt; }

feed_place feed_tell(const train_feed *f) { return f->place; }

int feed_seek(train_feed *f, feed_place to)
{
    if (f->dealt && f->o.comm->rank) {
        f->place = to;
        return 0;
    }
    if (f->count >= 0) {
        if (to.epoch < 0 || to.taken < 0 || to.taken > f->count)
            return sw_fail("record %lld of epoch %lld is asked for, an epoch has %lld", (long long)to.taken, (long long)to.epoch,
                           (long long)f->count);
        f->place = to;
        return 0;
    }
    while (f->place.epoch < to.epoch || (f->place.epoch == to.epoch && f->place.taken < to.taken)) {
        train_sample *s;
        int rc = feed_next(f, &s);
        free(s);
        if (rc < 0 || (!rc && f->place.epoch != to.epoch))
            return rc < 0 ? -1 : sw_fail("standard input: ends before the record at which the run is to go on; pipe the same data again");
    }
    return 0;
}
