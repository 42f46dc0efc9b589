#include "data/shard_format.h"

#include "base/interrupt.h"
#include "base/json.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#ifdef SW_FUZZ
#define ZSTD_STATIC_LINKING_ONLY /* ZSTD_d_forceIgnoreChecksum */
#endif
#include <zstd.h>

enum {
    CACHED_FRAMES = 16, /* of a seekable shard, for reading in a random order */
    STEP = 4 << 20,     /* what a length promises is allocated as it arrives */
};

/* A decompressed frame. */
typedef struct frame {
    int64_t number; /* -1: empty */
    int64_t first;  /* number of its first record */
    uint64_t used;  /* clock of the last use */
    sw_buf raw;
    struct {
        uint32_t *at;
        size_t n, cap;
    } records; /* offsets of the records' columns in raw */
} frame;

typedef struct entry {
    uint64_t offset, sum;
    int64_t first;
} entry;

struct sw_shard {
    char *name;
    int fd;
    bool seekable, ended;
    uint64_t at, size; /* bytes read from a pipe; size of a file */
    cJSON *header, *report;
    sw_shard_info info;
    shard_layout layout;
    sw_shard_totals totals, seen; /* totals: valid when seekable or ended; seen: read in order so far */
    int64_t next;                 /* record that sw_shard_next gives */
    entry *index;                 /* of a seekable shard: totals.frames entries */
    frame frames[CACHED_FRAMES];  /* a pipe uses the first */
    uint64_t clock;
    XXH3_state_t *sums;
    ZSTD_DCtx *zstd;
    sw_buf block;
    struct {
        void *at;
        size_t bytes;
    } * decoded; /* a column's values */
    sw_value *values;
    uint32_t one_segment;
};

static int cut(const sw_shard *s)
{
    return sw_fail("%s: the shard is cut off at byte %llu, its end record is missing; make it again", s->name,
                   (unsigned long long)(s->seekable ? s->size : s->at));
}

static int damaged(const sw_shard *s, uint64_t at, const char *what)
{
    return sw_fail("%s: the shard is damaged at byte %llu: %s", s->name, (unsigned long long)at, what);
}

/* Appends n bytes at `offset` to b; a pipe can only give those at s->at. */
static int fetch(sw_shard *s, uint64_t offset, uint64_t n, sw_buf *b)
{
    if (s->seekable && (offset > s->size || n > s->size - offset))
        return cut(s);
    while (n) {
        size_t want = (size_t)SW_MIN(n, (uint64_t)STEP);
        sw_buf_reserve(b, want);
        ssize_t got = s->seekable ? pread(s->fd, b->at + b->n, want, (off_t)offset) : read(s->fd, b->at + b->n, want);
        if (got < 0 && errno == EINTR && !sw_interrupted())
            continue;
        if (got < 0)
            return sw_fail_errno("%s: read", s->name);
        if (!got)
            return cut(s);
        b->n += (size_t)got;
        offset += (uint64_t)got;
        n -= (uint64_t)got;
        if (!s->seekable)
            s->at = offset;
    }
    return 0;
}

static int check_sum(const sw_shard *s, const sw_buf *block, uint64_t offset, uint64_t *sum)
{
    size_t n = block->n - SHARD_SUM_BYTES;
    *sum = shard_get64(block->at + n);
#ifndef SW_FUZZ /* a fuzzer that has to find checksums finds nothing else */
    if (XXH3_64bits(block->at, n) != *sum)
        return damaged(s, offset, "a checksum is wrong");
#endif
    (void)s, (void)offset;
    return 0;
}

/* ---- header */

static int read_columns(sw_shard *s)
{
    const cJSON *list = sw_json_get(s->header, "columns");
    int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
    if (n < 1 || n > SHARD_COLUMNS_MAX)
        return sw_fail("\"columns\": an array of 1 to %d columns is needed", SHARD_COLUMNS_MAX);
    sw_column *columns = SW_NEW_ARRAY(sw_column, n);
    s->info.columns = columns;
    s->decoded = sw_calloc((size_t)n, sizeof *s->decoded);
    s->values = SW_NEW_ARRAY(sw_value, n);
    for (const cJSON *c = list->child; c; c = c->next) {
        const char *name, *type;
        if (sw_json_str(c, "name", NULL, &name) || sw_json_str(c, "type", NULL, &type))
            return sw_fail_in("column %zu", s->info.n_columns);
        if (!name || !type)
            return sw_fail("column %zu: \"name\" and \"type\" are needed", s->info.n_columns);
        int t = 0;
        while (shard_type_names[t] && strcmp(shard_type_names[t], type))
            t++;
        if (!shard_type_names[t])
            return sw_fail("column \"%s\": the type \"%.40s\" is not known", name, type);
        columns[s->info.n_columns++] = (sw_column){name, (sw_column_type)t};
    }
    return shard_layout_of(&s->info, &s->layout);
}

static int read_info(sw_shard *s)
{
    sw_shard_info *i = &s->info;
    const cJSON *h = s->header, *tokenizer = sw_json_get(h, "tokenizer"), *template = sw_json_get(h, "template");
    if (sw_json_str(tokenizer, "digest", "", &i->tokenizer_digest) ||
        sw_json_str(tokenizer, "vocab_digest", "", &i->vocab_digest) ||
        sw_json_i64(tokenizer, "vocab_size", 1, INT32_MAX, 0, &i->vocab_size))
        return sw_fail_in("\"tokenizer\"");
    if (!i->vocab_size)
        return sw_fail("\"tokenizer\": \"vocab_size\" is needed");
    if (sw_json_str(template, "name", NULL, &i->template_name) ||
        sw_json_str(template, "text", NULL, &i->template_text) ||
        sw_json_str(template, "digest", NULL, &i->template_digest))
        return sw_fail_in("\"template\"");
    if (sw_json_str(h, "train_on", "all", &i->train_on) ||
        sw_json_i64(h, "max_length", 0, INT64_MAX, 0, &i->max_length) ||
        sw_json_bool(h, "packing", false, &i->packing) || sw_json_str(h, "program", "", &i->program) ||
        sw_json_str(h, "command_line", "", &i->command_line))
        return -1;
    i->options = sw_json_get(h, "options");
    return read_columns(s);
}

/* Leaves in *end where the first frame starts. */
static int read_header(sw_shard *s, uint64_t *end)
{
    sw_buf *b = &s->block;
    if (fetch(s, 0, SHARD_HEADER_BYTES, b)) {
        if (b->n < 8 || memcmp(b->at, SHARD_MAGIC, 8))
            return s->size || s->at ? sw_fail("%s: is no shard; swift-tokenize makes them", s->name)
                                    : sw_fail("%s: is empty, a shard was expected", s->name);
        return -1;
    }
    if (memcmp(b->at, SHARD_MAGIC, 8))
        return sw_fail("%s: is no shard; swift-tokenize makes them", s->name);
    uint32_t version = shard_get32(b->at + 8), n = shard_get32(b->at + 12);
    if (version != SHARD_VERSION)
        return sw_fail("%s: shard version %u; this program reads version %d, make it again", s->name, version,
                       SHARD_VERSION);
    if (n > SHARD_JSON_MAX)
        return damaged(s, 12, "the header's length is beyond all bounds");
    uint64_t sum;
    if (fetch(s, SHARD_HEADER_BYTES, (uint64_t)n + SHARD_SUM_BYTES, b) || check_sum(s, b, 0, &sum))
        return -1;
    *end = b->n;
    s->header = sw_json_parse(b->at + SHARD_HEADER_BYTES, n);
    if (!s->header || read_info(s))
        return sw_fail_in("%s: header", s->name);
    return 0;
}

/* ---- end record and index */

static bool plausible(const sw_shard_totals *t)
{
    return t->frames >= 0 && t->records >= t->frames && t->tokens >= t->records && t->labelled >= 0 &&
           t->labelled <= t->tokens && t->segments >= t->records && t->segments <= t->tokens && t->longest >= 0 &&
           t->longest <= t->tokens && (t->records == 0) == (t->frames == 0);
}

/* The block's first SHARD_FRAME_BYTES bytes are in s->block. *chain: digest over the frames' checksums. */
static int read_done(sw_shard *s, uint64_t offset, uint64_t *chain, uint64_t *end)
{
    sw_buf *b = &s->block;
    uint32_t n = shard_get32(b->at + 4);
    uint64_t sum;
    if (n > SHARD_JSON_MAX)
        return damaged(s, offset, "the end record's length is beyond all bounds");
    if (fetch(s, offset + b->n, (uint64_t)SHARD_DONE_BYTES - b->n + n + SHARD_SUM_BYTES, b) ||
        check_sum(s, b, offset, &sum))
        return -1;
    *end = offset + b->n;
    int64_t counts[6];
    memcpy(counts, b->at + 8, sizeof counts);
    s->totals = (sw_shard_totals){counts[0], counts[1], counts[2], counts[3], counts[4], counts[5]};
    *chain = shard_get64(b->at + 56);
    if (!plausible(&s->totals))
        return damaged(s, offset, "the end record's counts contradict each other");
    if (n) {
        s->report = sw_json_parse(b->at + SHARD_DONE_BYTES, n);
        if (!s->report)
            return sw_fail_in("%s: end record", s->name);
    }
    return 0;
}

static int read_index(sw_shard *s, uint64_t first_frame, uint64_t done_at, uint64_t offset, uint64_t chain)
{
    sw_buf *b = &s->block;
    uint64_t frames = (uint64_t)s->totals.frames, sum;
    sw_buf_clear(b);
    /* a frame takes at least its head and its checksum */
    if (frames > s->size / (SHARD_FRAME_BYTES + SHARD_SUM_BYTES))
        return damaged(s, offset, "more frames than the file has room for");
    uint64_t n = SHARD_INDEX_BYTES + frames * SHARD_ENTRY_BYTES + SHARD_SUM_BYTES;
    if (offset + n + SHARD_FOOTER_BYTES != s->size)
        return damaged(s, offset, "the index has not the length that the end record asks for");
    if (fetch(s, offset, n, b) || check_sum(s, b, offset, &sum))
        return -1;
    if (memcmp(b->at, "INDX", SHARD_TAG_BYTES) || shard_get64(b->at + 8) != frames)
        return damaged(s, offset, "no index follows the end record");
    s->index = SW_NEW_ARRAY(entry, frames);
    for (uint64_t i = 0; i < frames; i++) {
        const char *p = b->at + SHARD_INDEX_BYTES + i * SHARD_ENTRY_BYTES;
        entry *e = &s->index[i];
        *e = (entry){.offset = shard_get64(p), .first = (int64_t)shard_get64(p + 8), .sum = shard_get64(p + 16)};
        XXH3_64bits_update(s->sums, &e->sum, sizeof e->sum);
        bool ordered =
            i ? e->offset > e[-1].offset && e->first > e[-1].first : e->offset == first_frame && e->first == 0;
        if (!ordered || e->offset >= done_at || e->first >= s->totals.records)
            return damaged(s, offset, "the index is out of order");
    }
#ifndef SW_FUZZ
    if (XXH3_64bits_digest(s->sums) != chain)
        return damaged(s, offset, "the index and the end record disagree");
#endif
    (void)chain;
    return 0;
}

static int open_seekable(sw_shard *s, uint64_t first_frame)
{
    sw_buf *b = &s->block;
    sw_buf_clear(b);
    if (s->size < first_frame + SHARD_FOOTER_BYTES)
        return cut(s);
    if (fetch(s, s->size - SHARD_FOOTER_BYTES, SHARD_FOOTER_BYTES, b))
        return -1;
    if (memcmp(b->at + 8, SHARD_END, 8))
        return cut(s);
    uint64_t done_at = shard_get64(b->at), end, chain;
    sw_buf_clear(b);
    if (done_at < first_frame || done_at > s->size - SHARD_FOOTER_BYTES)
        return damaged(s, s->size - SHARD_FOOTER_BYTES, "the end record's place is outside the file");
    if (fetch(s, done_at, SHARD_FRAME_BYTES, b))
        return -1;
    if (memcmp(b->at, "DONE", SHARD_TAG_BYTES))
        return damaged(s, done_at, "no end record where there should be one");
    return read_done(s, done_at, &chain, &end) ? -1 : read_index(s, first_frame, done_at, end, chain);
}

/* A pipe reads index and footer too: the writer must not meet a closed pipe, and a cut is a cut. */
static int finish_pipe(sw_shard *s, uint64_t offset)
{
    sw_buf *b = &s->block;
    uint64_t chain, end, sum;
    if (read_done(s, offset, &chain, &end))
        return -1;
    if (memcmp(&s->seen, &s->totals, sizeof s->seen))
        return damaged(s, offset, "the end record counts other records than those that came");
#ifndef SW_FUZZ
    if (XXH3_64bits_digest(s->sums) != chain)
        return damaged(s, offset, "frames are not those that were written");
#endif
    /* the counts are right, so this length is no promise any more */
    sw_buf_clear(b);
    if (fetch(s, end, SHARD_INDEX_BYTES + (uint64_t)s->totals.frames * SHARD_ENTRY_BYTES + SHARD_SUM_BYTES, b) ||
        check_sum(s, b, end, &sum))
        return -1;
    if (memcmp(b->at, "INDX", SHARD_TAG_BYTES))
        return damaged(s, end, "no index follows the end record");
    sw_buf_clear(b);
    if (fetch(s, s->at, SHARD_FOOTER_BYTES, b))
        return -1;
    if (memcmp(b->at + 8, SHARD_END, 8) || shard_get64(b->at) != offset)
        return damaged(s, s->at - SHARD_FOOTER_BYTES, "the end mark is wrong");
    char more;
    ssize_t got;
    while ((got = read(s->fd, &more, 1)) < 0 && errno == EINTR && !sw_interrupted())
        ;
    if (got)
        return got < 0 ? sw_fail_errno("%s: read", s->name)
                       : damaged(s, s->at,
                                 "more follows the end; shards cannot be joined by concatenation, name each file");
    s->ended = true;
    return 0;
}

/* ---- frames */

/* Splits the raw bytes into records; every length is checked against what is there. */
static int split_frame(sw_shard *s, frame *f, uint32_t records, uint64_t offset)
{
    f->records.n = 0;
    size_t at = 0;
    for (uint32_t i = 0; i < records; i++) {
        if (f->raw.n - at < 4 || shard_get32(f->raw.at + at) > f->raw.n - at - 4)
            return damaged(s, offset, "a record reaches beyond its frame");
        SW_PUSH(f->records, (uint32_t)at);
        at += 4 + (size_t)shard_get32(f->raw.at + at);
    }
    return at == f->raw.n ? 0 : damaged(s, offset, "a frame is longer than its records");
}

/* Reads the frame at `offset`, the head of which is in s->block, into f. *sum: its checksum. */
static int read_frame(sw_shard *s, frame *f, uint64_t offset, uint64_t *sum)
{
    sw_buf *b = &s->block;
    uint32_t records = shard_get32(b->at + 4), packed = shard_get32(b->at + 8), raw = shard_get32(b->at + 12);
    f->number = -1;
    if (!records || raw > SHARD_FRAME_MAX || packed > ZSTD_compressBound(raw) || raw / 4 < records)
        return damaged(s, offset, "a frame's lengths are beyond all bounds");
    if (fetch(s, offset + SHARD_FRAME_BYTES, (uint64_t)packed + SHARD_SUM_BYTES, b) || check_sum(s, b, offset, sum))
        return -1;
    const char *from = b->at + SHARD_FRAME_BYTES;
    if (ZSTD_getFrameContentSize(from, packed) != raw)
        return damaged(s, offset, "a frame does not unpack to its length");
    sw_buf_clear(&f->raw);
    sw_buf_reserve(&f->raw, raw);
    size_t n = ZSTD_decompressDCtx(s->zstd, f->raw.at, raw, from, packed);
    if (ZSTD_isError(n) || n != raw)
        return damaged(s, offset, ZSTD_isError(n) ? ZSTD_getErrorName(n) : "a frame does not unpack to its length");
    f->raw.n = n;
    return split_frame(s, f, records, offset);
}

/* The frame of record i of a seekable shard, from the cache or from the file. */
static frame *frame_of(sw_shard *s, int64_t i)
{
    int64_t low = 0, high = s->totals.frames - 1; /* the last frame whose first record is not after i */
    while (low < high) {
        int64_t mid = (low + high + 1) / 2;
        if (s->index[mid].first <= i)
            low = mid;
        else
            high = mid - 1;
    }
    frame *oldest = &s->frames[0];
    for (frame *f = s->frames; f < s->frames + CACHED_FRAMES; f++) {
        if (f->number == low) {
            f->used = ++s->clock;
            return f;
        }
        if (f->used < oldest->used)
            oldest = f;
    }
    const entry *e = &s->index[low];
    int64_t last = low + 1 < s->totals.frames ? e[1].first : s->totals.records;
    uint64_t sum;
    sw_buf_clear(&s->block);
    if (fetch(s, e->offset, SHARD_FRAME_BYTES, &s->block))
        return NULL;
    if (memcmp(s->block.at, "FRAM", SHARD_TAG_BYTES)) {
        damaged(s, e->offset, "no frame where the index has one");
        return NULL;
    }
    if (read_frame(s, oldest, e->offset, &sum))
        return NULL;
    if (sum != e->sum || (int64_t)oldest->records.n != last - e->first) {
        damaged(s, e->offset, "a frame is not the one that the index has");
        return NULL;
    }
    oldest->number = low;
    oldest->first = e->first;
    oldest->used = ++s->clock;
    return oldest;
}

/* The next frame of a pipe into frames[0]: 1, or 0 after the end record. */
static int next_frame(sw_shard *s)
{
    frame *f = &s->frames[0];
    uint64_t offset = s->at, sum;
    sw_buf_clear(&s->block);
    if (fetch(s, offset, SHARD_FRAME_BYTES, &s->block))
        return -1;
    if (!memcmp(s->block.at, "DONE", SHARD_TAG_BYTES))
        return finish_pipe(s, offset);
    if (memcmp(s->block.at, "FRAM", SHARD_TAG_BYTES))
        return damaged(s, offset, "neither a frame nor the end record");
    if (read_frame(s, f, offset, &sum))
        return -1;
    XXH3_64bits_update(s->sums, &sum, sizeof sum);
    f->number = s->seen.frames++;
    f->first = s->next;
    return 1;
}

/* ---- records */

static void *room(sw_shard *s, size_t column, size_t bytes)
{
    if (bytes > s->decoded[column].bytes) {
        free(s->decoded[column].at);
        s->decoded[column].bytes = bytes + bytes / 2;
        s->decoded[column].at = sw_malloc(s->decoded[column].bytes);
    }
    return s->decoded[column].at;
}

/* at[0..n): pairs of a length and a value. The lengths must add up to as many as the column describes. */
static int read_runs(sw_shard *s, size_t column, const char *at, size_t n)
{
    uint64_t total = 0;
    int described = s->layout.of[column];
    for (size_t i = 0; i < n; i += 8)
        total += shard_get32(at + i);
    if (total > (described >= 0 ? s->values[described].n : SHARD_FRAME_MAX / 4))
        return sw_fail("column \"%s\": more values than its record has tokens", s->info.columns[column].name);
    float *to = room(s, column, (size_t)total * sizeof *to);
    s->values[column] = (sw_value){to, (size_t)total};
    for (size_t i = 0; i < n; i += 8) {
        float v;
        memcpy(&v, at + i + 4, sizeof v);
        for (uint32_t k = shard_get32(at + i); k; k--)
            *to++ = v;
    }
    return 0;
}

static int read_columns_of(sw_shard *s, const char *at, size_t n)
{
    struct {
        const char *at;
        size_t n;
    } bytes[SHARD_COLUMNS_MAX];
    for (size_t c = 0; c < s->info.n_columns; c++) {
        if (n < 4 || shard_get32(at) > n - 4)
            return sw_fail("column \"%s\" reaches beyond its record", s->info.columns[c].name);
        bytes[c].at = at + 4;
        bytes[c].n = shard_get32(at);
        at += 4 + bytes[c].n;
        n -= 4 + bytes[c].n;
        bool runs = s->info.columns[c].type == SW_COLUMN_RUNS;
        size_t item = runs ? 8 : shard_item_bytes(s->info.columns[c].type);
        if (bytes[c].n % item)
            return sw_fail("column \"%s\": %zu bytes are no whole number of items", s->info.columns[c].name,
                           bytes[c].n);
        if (!runs) {
            void *to = room(s, c, bytes[c].n);
            if (bytes[c].n)
                memcpy(to, bytes[c].at, bytes[c].n);
            s->values[c] = (sw_value){to, bytes[c].n / item};
        }
    }
    if (n)
        return sw_fail("%zu bytes are left after its last column", n);
    for (size_t c = 0; c < s->info.n_columns; c++) /* after the ids that bound them */
        if (s->info.columns[c].type == SW_COLUMN_RUNS && read_runs(s, c, bytes[c].at, bytes[c].n))
            return -1;
    return shard_check_record(&s->info, &s->layout, s->values);
}

static int decode(sw_shard *s, const frame *f, int64_t number, sw_record *r)
{
    const char *at = f->raw.at + f->records.at[number - f->first];
    if (read_columns_of(s, at + 4, shard_get32(at)))
        return sw_fail_in("%s: record %lld", s->name, (long long)number);
    const shard_layout *l = &s->layout;
    *r = (sw_record){.number = number, .values = s->values};
    r->ids = s->values[l->ids].at;
    r->n = s->values[l->ids].n;
    r->weights = s->values[l->weights].at;
    if (l->segments >= 0) {
        r->segments = s->values[l->segments].at;
        r->n_segments = s->values[l->segments].n;
    } else {
        s->one_segment = (uint32_t)r->n;
        r->segments = &s->one_segment;
        r->n_segments = 1;
    }
    return 0;
}

int sw_shard_next(sw_shard *s, sw_record *r)
{
    const frame *f = &s->frames[0];
    if (s->seekable) {
        if (s->next == s->totals.records)
            return 0;
        f = frame_of(s, s->next);
        if (!f)
            return -1;
    } else if (s->ended) {
        return 0;
    } else if (f->number < 0 || s->next == f->first + (int64_t)f->records.n) {
        int rc = next_frame(s);
        if (rc <= 0)
            return rc;
    }
    if (decode(s, f, s->next, r))
        return -1;
    s->next++;
    if (!s->seekable)
        shard_count_record(&s->layout, s->values, &s->seen);
    return 1;
}

int sw_shard_read(sw_shard *s, int64_t i, sw_record *r)
{
    if (!s->seekable)
        return sw_fail("%s: a pipe is read from front to back; records in any order need a file", s->name);
    if (i < 0 || i >= s->totals.records)
        return sw_fail("%s: there is no record %lld; it has %lld", s->name, (long long)i, (long long)s->totals.records);
    const frame *f = frame_of(s, i);
    return f ? decode(s, f, i, r) : -1;
}

int sw_shard_seek(sw_shard *s, int64_t i)
{
    if (s->seekable) {
        if (i < 0 || i > s->totals.records)
            return sw_fail("%s: there is no record %lld; it has %lld", s->name, (long long)i,
                           (long long)s->totals.records);
        s->next = i;
        return 0;
    }
    if (i < s->next)
        return sw_fail("%s: a pipe cannot go back from record %lld to %lld; use a file", s->name, (long long)s->next,
                       (long long)i);
    sw_record r;
    while (s->next < i) {
        int rc = sw_shard_next(s, &r);
        if (rc < 0)
            return -1;
        if (!rc)
            return sw_fail("%s: there is no record %lld; it has %lld", s->name, (long long)i, (long long)s->next);
    }
    return 0;
}

/* ---- life */

sw_shard *shard_open_fd(int fd, const char *name, bool seekable)
{
    sw_shard *s = SW_NEW(sw_shard);
    s->fd = fd;
    s->name = sw_strdup(name);
    s->seekable = seekable;
    for (size_t i = 0; i < CACHED_FRAMES; i++)
        s->frames[i].number = -1;
    struct stat st;
    if (seekable && !fstat(fd, &st))
        s->size = (uint64_t)st.st_size;
    s->sums = XXH3_createState();
    s->zstd = ZSTD_createDCtx();
    int rc = s->sums && s->zstd ? 0 : sw_fail("%s: out of memory for the decompressor", name);
    uint64_t first_frame = 0;
    if (!rc)
        XXH3_64bits_reset(s->sums);
#ifdef SW_FUZZ
    ZSTD_DCtx_setParameter(s->zstd, ZSTD_d_forceIgnoreChecksum, ZSTD_d_ignoreChecksum);
#endif
    if (!rc)
        rc = read_header(s, &first_frame);
    if (!rc && seekable)
        rc = open_seekable(s, first_frame);
    if (rc) {
        sw_shard_close(s);
        return NULL;
    }
    return s;
}

sw_shard *sw_shard_open(const char *path)
{
    bool standard = !strcmp(path, "-");
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) {
        sw_fail_errno("%s", path);
        if (fd > STDIN_FILENO)
            close(fd);
        return NULL;
    }
    if (S_ISDIR(st.st_mode)) {
        close(fd);
        return sw_fail_null("%s: is a folder, a shard is needed", path);
    }
    bool seekable = S_ISREG(st.st_mode) && lseek(fd, 0, SEEK_CUR) == 0;
    return shard_open_fd(fd, standard ? "standard input" : path, seekable);
}

void sw_shard_close(sw_shard *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < CACHED_FRAMES; i++) {
        sw_buf_free(&s->frames[i].raw);
        free(s->frames[i].records.at);
    }
    for (size_t c = 0; s->decoded && c < s->info.n_columns; c++)
        free(s->decoded[c].at);
    free(s->decoded);
    free(s->values);
    free((sw_column *)(uintptr_t)s->info.columns);
    cJSON_Delete(s->header);
    cJSON_Delete(s->report);
    free(s->index);
    sw_buf_free(&s->block);
    XXH3_freeState(s->sums);
    ZSTD_freeDCtx(s->zstd);
    if (s->fd > STDIN_FILENO)
        close(s->fd);
    free(s->name);
    free(s);
}

const sw_shard_info *sw_shard_info_of(const sw_shard *s) { return &s->info; }
bool sw_shard_seekable(const sw_shard *s) { return s->seekable; }
int64_t sw_shard_count(const sw_shard *s) { return s->seekable || s->ended ? s->totals.records : -1; }
const sw_shard_totals *sw_shard_totals_of(const sw_shard *s) { return s->seekable || s->ended ? &s->totals : NULL; }
const cJSON *sw_shard_report(const sw_shard *s) { return s->seekable || s->ended ? s->report : NULL; }

int sw_shard_column(const sw_shard *s, const char *name)
{
    for (size_t i = 0; i < s->info.n_columns; i++)
        if (!strcmp(s->info.columns[i].name, name))
            return (int)i;
    return -1;
}

int sw_shard_check_vocab(const sw_shard *s, const char *digest)
{
    if (!strcmp(s->info.vocab_digest, digest))
        return 0;
    return sw_fail("%s: was made with another vocabulary (digest %.32s) than the model's (%s); run swift-tokenize with "
                   "the model's tokenizer",
                   s->name, s->info.vocab_digest, digest);
}
