#ifdef SW_FUZZ
#define ZSTD_STATIC_LINKING_ONLY /* ZSTD_d_forceIgnoreChecksum */
#endif
#include "data/shard_reader.h"

#include "base/memory.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- frames */

/* Splits the raw bytes into records; every length is checked against what is there. */
static int split_frame(sw_shard *s, shard_frame *f, uint32_t records, uint64_t offset)
{
    f->records.n = 0;
    size_t at = 0;
    for (uint32_t i = 0; i < records; i++) {
        if (f->raw.n - at < 4 || shard_get32(f->raw.at + at) > f->raw.n - at - 4)
            return shard_damaged(s, offset, "a record reaches beyond its frame");
        SW_PUSH(f->records, (uint32_t)at);
        at += 4 + (size_t)shard_get32(f->raw.at + at);
    }
    return at == f->raw.n ? 0 : shard_damaged(s, offset, "a frame is longer than its records");
}

/* Reads the frame at `offset`, the head of which is in s->block, into f. *sum: its checksum. */
static int read_frame(sw_shard *s, shard_frame *f, uint64_t offset, uint64_t *sum)
{
    sw_buf *b = &s->block;
    uint32_t records = shard_get32(b->at + 4), packed = shard_get32(b->at + 8), raw = shard_get32(b->at + 12);
    f->number = -1;
    if (!records || raw > SHARD_FRAME_MAX || packed > ZSTD_compressBound(raw) || raw / 4 < records)
        return shard_damaged(s, offset, "a frame's lengths are beyond all bounds");
    if (shard_fetch(s, offset + SHARD_FRAME_BYTES, (uint64_t)packed + SHARD_SUM_BYTES, b) ||
        shard_check_sum(s, b, offset, sum))
        return -1;
    const char *from = b->at + SHARD_FRAME_BYTES;
    if (ZSTD_getFrameContentSize(from, packed) != raw)
        return shard_damaged(s, offset, "a frame does not unpack to its length");
    sw_buf_clear(&f->raw);
    sw_buf_reserve(&f->raw, raw);
    size_t n = ZSTD_decompressDCtx(s->zstd, f->raw.at, raw, from, packed);
    if (ZSTD_isError(n) || n != raw)
        return shard_damaged(s, offset,
                             ZSTD_isError(n) ? ZSTD_getErrorName(n) : "a frame does not unpack to its length");
    f->raw.n = n;
    return split_frame(s, f, records, offset);
}

/* The frame of record i of a seekable shard, from the cache or from the file. */
static shard_frame *frame_of(sw_shard *s, int64_t i)
{
    int64_t low = 0, high = s->totals.frames - 1; /* the last frame whose first record is not after i */
    while (low < high) {
        int64_t mid = (low + high + 1) / 2;
        if (s->index[mid].first <= i)
            low = mid;
        else
            high = mid - 1;
    }
    shard_frame *oldest = &s->frames[0];
    for (shard_frame *f = s->frames; f < s->frames + SHARD_CACHED_FRAMES; f++) {
        if (f->number == low) {
            f->used = ++s->clock;
            return f;
        }
        if (f->used < oldest->used)
            oldest = f;
    }
    const shard_entry *e = &s->index[low];
    int64_t last = low + 1 < s->totals.frames ? e[1].first : s->totals.records;
    uint64_t sum;
    sw_buf_clear(&s->block);
    if (shard_fetch(s, e->offset, SHARD_FRAME_BYTES, &s->block))
        return NULL;
    if (memcmp(s->block.at, "FRAM", SHARD_TAG_BYTES)) {
        shard_damaged(s, e->offset, "no frame where the index has one");
        return NULL;
    }
    if (read_frame(s, oldest, e->offset, &sum))
        return NULL;
    if (sum != e->sum || (int64_t)oldest->records.n != last - e->first) {
        shard_damaged(s, e->offset, "a frame is not the one that the index has");
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
    shard_frame *f = &s->frames[0];
    uint64_t offset = s->at, sum;
    sw_buf_clear(&s->block);
    if (shard_fetch(s, offset, SHARD_FRAME_BYTES, &s->block))
        return -1;
    if (!memcmp(s->block.at, "DONE", SHARD_TAG_BYTES))
        return shard_finish_pipe(s, offset);
    if (memcmp(s->block.at, "FRAM", SHARD_TAG_BYTES))
        return shard_damaged(s, offset, "neither a frame nor the end record");
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

static int decode(sw_shard *s, const shard_frame *f, int64_t number, sw_shard_record *r)
{
    const char *at = f->raw.at + f->records.at[number - f->first];
    if (read_columns_of(s, at + 4, shard_get32(at)))
        return sw_fail_in("%s: record %lld", s->name, (long long)number);
    const shard_layout *l = &s->layout;
    *r = (sw_shard_record){.number = number, .values = s->values};
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

int sw_shard_next(sw_shard *s, sw_shard_record *r)
{
    const shard_frame *f = &s->frames[0];
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

int sw_shard_read(sw_shard *s, int64_t i, sw_shard_record *r)
{
    if (!s->seekable)
        return sw_fail("%s: a pipe is read from front to back; records in any order need a file", s->name);
    if (i < 0 || i >= s->totals.records)
        return sw_fail("%s: there is no record %lld; it has %lld", s->name, (long long)i, (long long)s->totals.records);
    const shard_frame *f = frame_of(s, i);
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
    sw_shard_record r;
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
    for (size_t i = 0; i < SHARD_CACHED_FRAMES; i++)
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
        rc = shard_read_header(s, &first_frame);
    if (!rc && seekable)
        rc = shard_read_ends(s, first_frame);
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
    for (size_t i = 0; i < SHARD_CACHED_FRAMES; i++) {
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
