/* The reader of shards inside: its state, and what its two halves ask of each other. shard_ends.c reads what lies
 * around the frames (header, end record, index, footer), shard_read.c the frames and their records. */
#ifndef SW_DATA_SHARD_READER_H
#define SW_DATA_SHARD_READER_H

#include "data/shard_format.h"

#include <xxhash.h>
#include <zstd.h>

enum {
    SHARD_CACHED_FRAMES = 16, /* of a seekable shard, for reading in a random order */
};

/* A decompressed frame. */
typedef struct shard_frame {
    int64_t number; /* -1: empty */
    int64_t first;  /* number of its first record */
    uint64_t used;  /* clock of the last use */
    sw_buf raw;
    struct {
        uint32_t *at;
        size_t n, cap;
    } records; /* offsets of the records' columns in raw */
} shard_frame;

typedef struct shard_entry {
    uint64_t offset, sum;
    int64_t first;
} shard_entry;

struct sw_shard {
    char *name;
    int fd;
    bool seekable, ended;
    uint64_t at, size; /* bytes read from a pipe; size of a file */
    cJSON *header, *report;
    sw_shard_info info;
    shard_layout layout;
    sw_shard_totals totals, seen;            /* totals: valid when seekable or ended; seen: read in order so far */
    int64_t next;                            /* record that sw_shard_next gives */
    shard_entry *index;                      /* of a seekable shard: totals.frames entries */
    shard_frame frames[SHARD_CACHED_FRAMES]; /* a pipe uses the first */
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

/* Errors: the stream ends at what was read last; the bytes at `at` are wrong. */
int shard_cut(const sw_shard *s);
int shard_damaged(const sw_shard *s, uint64_t at, const char *what);
/* Appends n bytes at `offset` to b; a pipe can only give those at s->at. */
int shard_fetch(sw_shard *s, uint64_t offset, uint64_t n, sw_buf *b) SW_MUST_CHECK;
/* Checks the sum that ends the block, and gives it. */
int shard_check_sum(const sw_shard *s, const sw_buf *block, uint64_t offset, uint64_t *sum) SW_MUST_CHECK;
/* Leaves in *end where the first frame starts. */
int shard_read_header(sw_shard *s, uint64_t *end) SW_MUST_CHECK;
/* End record and index of a file. */
int shard_read_ends(sw_shard *s, uint64_t first_frame) SW_MUST_CHECK;
/* What follows the frames of a pipe, the first bytes of which are in s->block. */
int shard_finish_pipe(sw_shard *s, uint64_t offset) SW_MUST_CHECK;

#endif
