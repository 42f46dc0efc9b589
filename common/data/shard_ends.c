#include "data/shard_reader.h"

#include "base/interrupt.h"
#include "base/json.h"
#include "base/memory.h"

#include <errno.h>
#include <unistd.h>

enum { STEP = 4 << 20 }; /* what a length promises is allocated as it arrives */

int shard_cut(const sw_shard *s)
{
    return sw_fail("%s: the shard is cut off at byte %llu, its end record is missing; make it again", s->name,
                   (unsigned long long)(s->seekable ? s->size : s->at));
}

int shard_damaged(const sw_shard *s, uint64_t at, const char *what)
{
    return sw_fail("%s: the shard is damaged at byte %llu: %s", s->name, (unsigned long long)at, what);
}

int shard_fetch(sw_shard *s, uint64_t offset, uint64_t n, sw_buf *b)
{
    if (s->seekable && (offset > s->size || n > s->size - offset))
        return shard_cut(s);
    while (n) {
        size_t want = (size_t)SW_MIN(n, (uint64_t)STEP);
        sw_buf_reserve(b, want);
        ssize_t got = s->seekable ? pread(s->fd, b->at + b->n, want, (off_t)offset) : sw_read_unless_stopped(s->fd, b->at + b->n, want);
        if (got < 0 && errno == EINTR && !sw_interrupted())
            continue;
        if (got < 0)
            return sw_interrupted() ? sw_fail("%s: interrupted", s->name) : sw_fail_errno("%s: read", s->name);
        if (!got)
            return shard_cut(s);
        b->n += (size_t)got;
        offset += (uint64_t)got;
        n -= (uint64_t)got;
        if (!s->seekable)
            s->at = offset;
    }
    return 0;
}

int shard_check_sum(const sw_shard *s, const sw_buf *block, uint64_t offset, uint64_t *sum)
{
    size_t n = block->n - SHARD_SUM_BYTES;
    *sum = shard_get64(block->at + n);
#ifndef SW_FUZZ /* a fuzzer that has to find checksums finds nothing else */
    if (XXH3_64bits(block->at, n) != *sum)
        return shard_damaged(s, offset, "a checksum is wrong");
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
    if (sw_json_str(h, "train_on", "all", &i->train_on) || sw_json_str(h, "task", "auto", &i->task) ||
        sw_json_i64(h, "max_length", 0, INT64_MAX, 0, &i->max_length) ||
        sw_json_bool(h, "packing", false, &i->packing) || sw_json_str(h, "program", "", &i->program) ||
        sw_json_str(h, "command_line", "", &i->command_line))
        return -1;
    i->options = sw_json_get(h, "options");
    i->classes = sw_json_get(h, "classes");
    for (const cJSON *c = i->classes ? i->classes->child : NULL; c; c = c->next)
        if (!cJSON_IsArray(i->classes) || !cJSON_IsString(c))
            return sw_fail("\"classes\": a list of names is needed");
    return read_columns(s);
}

int shard_read_header(sw_shard *s, uint64_t *end)
{
    sw_buf *b = &s->block;
    if (shard_fetch(s, 0, SHARD_HEADER_BYTES, b)) {
        if (!sw_interrupted() && (b->n < 8 || memcmp(b->at, SHARD_MAGIC, 8)))
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
        return shard_damaged(s, 12, "the header's length is beyond all bounds");
    uint64_t sum;
    if (shard_fetch(s, SHARD_HEADER_BYTES, (uint64_t)n + SHARD_SUM_BYTES, b) || shard_check_sum(s, b, 0, &sum))
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
        return shard_damaged(s, offset, "the end record's length is beyond all bounds");
    if (shard_fetch(s, offset + b->n, (uint64_t)SHARD_DONE_BYTES - b->n + n + SHARD_SUM_BYTES, b) ||
        shard_check_sum(s, b, offset, &sum))
        return -1;
    *end = offset + b->n;
    int64_t counts[6];
    memcpy(counts, b->at + 8, sizeof counts);
    s->totals = (sw_shard_totals){counts[0], counts[1], counts[2], counts[3], counts[4], counts[5]};
    *chain = shard_get64(b->at + 56);
    if (!plausible(&s->totals))
        return shard_damaged(s, offset, "the end record's counts contradict each other");
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
        return shard_damaged(s, offset, "more frames than the file has room for");
    uint64_t n = SHARD_INDEX_BYTES + frames * SHARD_ENTRY_BYTES + SHARD_SUM_BYTES;
    if (offset + n + SHARD_FOOTER_BYTES != s->size)
        return shard_damaged(s, offset, "the index has not the length that the end record asks for");
    if (shard_fetch(s, offset, n, b) || shard_check_sum(s, b, offset, &sum))
        return -1;
    if (memcmp(b->at, "INDX", SHARD_TAG_BYTES) || shard_get64(b->at + 8) != frames)
        return shard_damaged(s, offset, "no index follows the end record");
    s->index = SW_NEW_ARRAY(shard_entry, frames);
    for (uint64_t i = 0; i < frames; i++) {
        const char *p = b->at + SHARD_INDEX_BYTES + i * SHARD_ENTRY_BYTES;
        shard_entry *e = &s->index[i];
        *e = (shard_entry){.offset = shard_get64(p), .first = (int64_t)shard_get64(p + 8), .sum = shard_get64(p + 16)};
        XXH3_64bits_update(s->sums, &e->sum, sizeof e->sum);
        bool ordered =
            i ? e->offset > e[-1].offset && e->first > e[-1].first : e->offset == first_frame && e->first == 0;
        if (!ordered || e->offset >= done_at || e->first >= s->totals.records)
            return shard_damaged(s, offset, "the index is out of order");
    }
#ifndef SW_FUZZ
    if (XXH3_64bits_digest(s->sums) != chain)
        return shard_damaged(s, offset, "the index and the end record disagree");
#endif
    (void)chain;
    return 0;
}

int shard_read_ends(sw_shard *s, uint64_t first_frame)
{
    sw_buf *b = &s->block;
    sw_buf_clear(b);
    if (s->size < first_frame + SHARD_FOOTER_BYTES)
        return shard_cut(s);
    if (shard_fetch(s, s->size - SHARD_FOOTER_BYTES, SHARD_FOOTER_BYTES, b))
        return -1;
    if (memcmp(b->at + 8, SHARD_END, 8))
        return shard_cut(s);
    uint64_t done_at = shard_get64(b->at), end, chain;
    sw_buf_clear(b);
    if (done_at < first_frame || done_at > s->size - SHARD_FOOTER_BYTES)
        return shard_damaged(s, s->size - SHARD_FOOTER_BYTES, "the end record's place is outside the file");
    if (shard_fetch(s, done_at, SHARD_FRAME_BYTES, b))
        return -1;
    if (memcmp(b->at, "DONE", SHARD_TAG_BYTES))
        return shard_damaged(s, done_at, "no end record where there should be one");
    return read_done(s, done_at, &chain, &end) ? -1 : read_index(s, first_frame, done_at, end, chain);
}

/* A pipe reads index and footer too: the writer must not meet a closed pipe, and a cut is a cut. */
int shard_finish_pipe(sw_shard *s, uint64_t offset)
{
    sw_buf *b = &s->block;
    uint64_t chain, end, sum;
    if (read_done(s, offset, &chain, &end))
        return -1;
    if (memcmp(&s->seen, &s->totals, sizeof s->seen))
        return shard_damaged(s, offset, "the end record counts other records than those that came");
#ifndef SW_FUZZ
    if (XXH3_64bits_digest(s->sums) != chain)
        return shard_damaged(s, offset, "frames are not those that were written");
#endif
    /* the counts are right, so this length is no promise any more */
    sw_buf_clear(b);
    if (shard_fetch(s, end, SHARD_INDEX_BYTES + (uint64_t)s->totals.frames * SHARD_ENTRY_BYTES + SHARD_SUM_BYTES, b) ||
        shard_check_sum(s, b, end, &sum))
        return -1;
    if (memcmp(b->at, "INDX", SHARD_TAG_BYTES))
        return shard_damaged(s, end, "no index follows the end record");
    sw_buf_clear(b);
    if (shard_fetch(s, s->at, SHARD_FOOTER_BYTES, b))
        return -1;
    if (memcmp(b->at + 8, SHARD_END, 8) || shard_get64(b->at) != offset)
        return shard_damaged(s, s->at - SHARD_FOOTER_BYTES, "the end mark is wrong");
    char more;
    ssize_t got = sw_read_unless_stopped(s->fd, &more, 1);
    if (got)
        return got < 0
                   ? sw_fail_errno("%s: read", s->name)
                   : shard_damaged(s, s->at,
                                   "more follows the end; shards cannot be joined by concatenation, name each file");
    s->ended = true;
    return 0;
}
