#include "data/shard_format.h"

#include "base/json.h"
#include "base/memory.h"

#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

struct sw_shard_writer {
    sw_outfile out;
    char *name;
    sw_column *columns;
    sw_shard_info info; /* n_columns, columns, vocab_size and classes only */
    cJSON *classes;
    shard_layout layout;
    sw_shard_totals totals;
    sw_buf raw;      /* records of the open frame */
    uint32_t in_raw; /* how many */
    sw_buf block, index;
    XXH3_state_t *sums; /* digest over the checksums of all frames */
    ZSTD_CCtx *zstd;
    uint64_t at; /* bytes written */
};

static void put32(sw_buf *b, uint32_t v) { sw_buf_add(b, &v, 4); }
static void put64(sw_buf *b, uint64_t v) { sw_buf_add(b, &v, 8); }

static int write_all(sw_shard_writer *w, const sw_buf *b)
{
    w->at += b->n;
    return sw_out_write(&w->out, b->at, b->n);
}

/* Appends the checksum and writes the block; leaves the checksum in *sum. */
static int write_block(sw_shard_writer *w, sw_buf *b, uint64_t *sum)
{
    *sum = XXH3_64bits(b->at, b->n);
    put64(b, *sum);
    return write_all(w, b);
}

static void add_text(cJSON *o, const char *key, const char *text)
{
    if (text)
        cJSON_AddStringToObject(o, key, text);
}

static cJSON *header_json(const sw_shard_info *info)
{
    cJSON *o = cJSON_CreateObject(), *columns = cJSON_CreateArray();
    add_text(o, "program", info->program);
    add_text(o, "command_line", info->command_line);
    cJSON *tokenizer = cJSON_AddObjectToObject(o, "tokenizer");
    add_text(tokenizer, "digest", info->tokenizer_digest);
    add_text(tokenizer, "vocab_digest", info->vocab_digest);
    cJSON_AddNumberToObject(tokenizer, "vocab_size", (double)info->vocab_size);
    if (info->template_text) {
        cJSON *t = cJSON_AddObjectToObject(o, "template");
        add_text(t, "name", info->template_name);
        add_text(t, "digest", info->template_digest);
        add_text(t, "text", info->template_text);
    }
    add_text(o, "train_on", info->train_on);
    add_text(o, "task", info->task ? info->task : "auto");
    cJSON_AddNumberToObject(o, "max_length", (double)info->max_length);
    cJSON_AddBoolToObject(o, "packing", info->packing);
    for (size_t i = 0; i < info->n_columns; i++) {
        cJSON *c = cJSON_CreateObject();
        add_text(c, "name", info->columns[i].name);
        add_text(c, "type", shard_type_names[info->columns[i].type]);
        cJSON_AddItemToArray(columns, c);
    }
    cJSON_AddItemToObject(o, "columns", columns);
    if (info->classes)
        cJSON_AddItemToObject(o, "classes", cJSON_Duplicate(info->classes, true));
    if (info->options)
        cJSON_AddItemToObject(o, "options", cJSON_Duplicate(info->options, true));
    return o;
}

static int write_header(sw_shard_writer *w, const sw_shard_info *info)
{
    cJSON *json = header_json(info);
    sw_buf text = {0};
    sw_json_print(&text, json);
    cJSON_Delete(json);
    if (text.n > SHARD_JSON_MAX) {
        sw_buf_free(&text);
        return sw_fail("the header takes %zu bytes; at most %d are allowed", text.n, SHARD_JSON_MAX);
    }
    sw_buf_add(&w->block, SHARD_MAGIC, 8);
    put32(&w->block, SHARD_VERSION);
    put32(&w->block, (uint32_t)text.n);
    sw_buf_add(&w->block, text.at, text.n);
    sw_buf_free(&text);
    uint64_t sum;
    return write_block(w, &w->block, &sum);
}

sw_shard_writer *sw_shard_create(const char *path, const sw_shard_info *info)
{
    bool standard = !strcmp(path, "-");
    if (standard && isatty(STDOUT_FILENO))
        return sw_fail_null("a shard is binary and standard output is a terminal; give a file, or a pipe to a reader");
    if (info->vocab_size <= 0)
        return sw_fail_null("a shard needs the size of its vocabulary");
    shard_layout layout;
    if (shard_layout_of(info, &layout))
        return NULL;
    sw_shard_writer *w = SW_NEW(sw_shard_writer);
    w->layout = layout;
    w->name = sw_strdup(standard ? "standard output" : path);
    w->columns = SW_NEW_ARRAY(sw_column, info->n_columns);
    for (size_t i = 0; i < info->n_columns; i++)
        w->columns[i] = (sw_column){sw_strdup(info->columns[i].name), info->columns[i].type};
    w->info = (sw_shard_info){.vocab_size = info->vocab_size, .columns = w->columns, .n_columns = info->n_columns};
    w->info.classes = w->classes = cJSON_Duplicate(info->classes, true);
    w->sums = XXH3_createState();
    w->zstd = ZSTD_createCCtx();
    if (sw_out_open(&w->out, path)) {
        sw_shard_abandon(w);
        return NULL;
    }
    if (!w->sums || !w->zstd) {
        sw_fail("%s: out of memory for the compressor", w->name);
        sw_shard_abandon(w);
        return NULL;
    }
    XXH3_64bits_reset(w->sums);
    ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, 3);
    ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_checksumFlag, 1);
    if (write_header(w, info)) {
        sw_shard_abandon(w);
        return NULL;
    }
    return w;
}

static int flush_frame(sw_shard_writer *w)
{
    if (!w->in_raw)
        return 0;
    sw_buf *b = &w->block;
    sw_buf_clear(b);
    sw_buf_reserve(b, SHARD_FRAME_BYTES + ZSTD_compressBound(w->raw.n) + SHARD_SUM_BYTES);
    size_t n = ZSTD_compress2(w->zstd, b->at + SHARD_FRAME_BYTES, b->cap - SHARD_FRAME_BYTES, w->raw.at, w->raw.n);
    if (ZSTD_isError(n))
        return sw_fail("%s: compression: %s", w->name, ZSTD_getErrorName(n));
    memcpy(b->at, "FRAM", SHARD_TAG_BYTES); /* not sw_buf_add, which would end the text in the packed bytes */
    shard_put32(b->at + 4, w->in_raw);
    shard_put32(b->at + 8, (uint32_t)n);
    shard_put32(b->at + 12, (uint32_t)w->raw.n);
    b->n = SHARD_FRAME_BYTES + n;
    put64(&w->index, w->at);
    put64(&w->index, (uint64_t)w->totals.records - w->in_raw);
    uint64_t sum;
    if (write_block(w, b, &sum))
        return -1;
    put64(&w->index, sum);
    XXH3_64bits_update(w->sums, &sum, sizeof sum);
    w->totals.frames++;
    w->in_raw = 0;
    sw_buf_clear(&w->raw);
    return 0;
}

/* A run is its length and its value; a mask of one conversation is a handful of them. */
static void put_runs(sw_buf *b, const float *v, size_t n)
{
    for (size_t i = 0, start = 0; i < n; i = start) {
        while (i < n && !memcmp(&v[i], &v[start], sizeof *v))
            i++;
        put32(b, (uint32_t)(i - start));
        sw_buf_add(b, &v[start], sizeof *v);
        start = i;
    }
}

int sw_shard_append(sw_shard_writer *w, const sw_value *values)
{
    size_t bound = 4;
    for (size_t c = 0; c < w->info.n_columns; c++) {
        size_t item = w->columns[c].type == SW_COLUMN_RUNS ? 8 : shard_item_bytes(w->columns[c].type), bytes;
        if (sw_mul_size(values[c].n, item, &bytes) || sw_add_size(bound, bytes + 4, &bound) || bound > SHARD_FRAME_MAX)
            return sw_fail("record %lld: larger than the %d MiB that a shard's record may have",
                           (long long)w->totals.records, SHARD_FRAME_MAX >> 20);
    }
    if (shard_check_record(&w->info, &w->layout, values))
        return sw_fail_in("record %lld", (long long)w->totals.records);
    if (w->raw.n + bound > SHARD_FRAME_MAX && flush_frame(w))
        return -1;
    size_t start = w->raw.n;
    put32(&w->raw, 0);
    for (size_t c = 0; c < w->info.n_columns; c++) {
        size_t at = w->raw.n;
        put32(&w->raw, 0);
        if (w->columns[c].type == SW_COLUMN_RUNS)
            put_runs(&w->raw, values[c].at, values[c].n);
        else
            sw_buf_add(&w->raw, values[c].at, values[c].n * shard_item_bytes(w->columns[c].type));
        shard_put32(w->raw.at + at, (uint32_t)(w->raw.n - at - 4));
    }
    shard_put32(w->raw.at + start, (uint32_t)(w->raw.n - start - 4));
    w->in_raw++;
    shard_count_record(&w->layout, values, &w->totals);
    return w->raw.n >= SHARD_FRAME_TARGET ? flush_frame(w) : 0;
}

const sw_shard_totals *sw_shard_written(const sw_shard_writer *w) { return &w->totals; }

static int write_end(sw_shard_writer *w, const cJSON *report)
{
    if (flush_frame(w))
        return -1;
    sw_buf text = {0}, *b = &w->block;
    if (report)
        sw_json_print(&text, report);
    if (text.n > SHARD_JSON_MAX) {
        sw_buf_free(&text);
        return sw_fail("%s: the report in the end record is too large", w->name);
    }
    uint64_t done_at = w->at, sum;
    const int64_t counts[] = {w->totals.frames,   w->totals.records,  w->totals.tokens,
                              w->totals.labelled, w->totals.segments, w->totals.longest};
    sw_buf_clear(b);
    sw_buf_add(b, "DONE", SHARD_TAG_BYTES);
    put32(b, (uint32_t)text.n);
    sw_buf_add(b, counts, sizeof counts);
    put64(b, XXH3_64bits_digest(w->sums));
    sw_buf_add(b, text.at, text.n);
    sw_buf_free(&text);
    if (write_block(w, b, &sum))
        return -1;
    sw_buf_clear(b);
    sw_buf_add(b, "INDX", SHARD_TAG_BYTES);
    put32(b, 0);
    put64(b, (uint64_t)w->totals.frames);
    sw_buf_add(b, w->index.at, w->index.n);
    if (write_block(w, b, &sum))
        return -1;
    sw_buf_clear(b);
    put64(b, done_at);
    sw_buf_add(b, SHARD_END, 8);
    return write_all(w, b);
}

static void release(sw_shard_writer *w)
{
    for (size_t i = 0; i < w->info.n_columns; i++)
        free((char *)(uintptr_t)w->columns[i].name);
    free(w->columns);
    cJSON_Delete(w->classes);
    free(w->name);
    sw_buf_free(&w->raw);
    sw_buf_free(&w->block);
    sw_buf_free(&w->index);
    XXH3_freeState(w->sums);
    ZSTD_freeCCtx(w->zstd);
    free(w);
}

int sw_shard_finish(sw_shard_writer *w, const cJSON *report)
{
    int rc = write_end(w, report);
    if (rc)
        sw_out_abort(&w->out);
    else
        rc = sw_out_commit(&w->out);
    release(w);
    return rc;
}

void sw_shard_abandon(sw_shard_writer *w)
{
    if (!w)
        return;
    sw_out_abort(&w->out);
    release(w);
}
