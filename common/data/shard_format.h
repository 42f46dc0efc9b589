/* What the writer and the reader of shards share: the bytes, their bounds, and what makes a record right. */
#ifndef SW_DATA_SHARD_FORMAT_H
#define SW_DATA_SHARD_FORMAT_H

#include "data/shard.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "shards are little-endian, columns are copied as they are");

/* The first byte is no text, CR LF and the DOS end of file show a transfer that changed line ends. */
#define SHARD_MAGIC "\x89SWS\r\n\x1a\n"
#define SHARD_END "SWSHEND\n"

enum {
    SHARD_VERSION = 1,
    SHARD_TAG_BYTES = 4, /* "FRAM", "DONE", "INDX" */
    SHARD_SUM_BYTES = 8, /* XXH3-64 after each block, of all of the block before it */
    SHARD_HEADER_BYTES = 16,
    SHARD_FRAME_BYTES = 16,
    SHARD_DONE_BYTES = 64,
    SHARD_INDEX_BYTES = 16,
    SHARD_ENTRY_BYTES = 24,
    SHARD_FOOTER_BYTES = 16,
    SHARD_COLUMNS_MAX = 256,
    SHARD_JSON_MAX = 64 << 20,
    SHARD_FRAME_TARGET = 256 << 10, /* raw bytes after which a frame is closed */
    SHARD_FRAME_MAX = 256 << 20,    /* raw bytes that a reader accepts */
};

static inline void shard_put32(void *to, uint32_t v) { memcpy(to, &v, 4); }
static inline void shard_put64(void *to, uint64_t v) { memcpy(to, &v, 8); }

static inline uint32_t shard_get32(const void *from)
{
    uint32_t v;
    memcpy(&v, from, 4);
    return v;
}

static inline uint64_t shard_get64(const void *from)
{
    uint64_t v;
    memcpy(&v, from, 8);
    return v;
}

/* Names of the types in the header, in the order of sw_column_type; bytes of an item in memory. */
extern const char *const shard_type_names[];
size_t shard_item_bytes(sw_column_type t);

/* Which columns mean what. */
typedef struct shard_layout {
    int ids, weights, segments; /* -1: no such column */
    int of[SHARD_COLUMNS_MAX];  /* of a weights, segments or tags column: the ids column it describes, else -1 */
} shard_layout;

/* Fails on a set of columns that no record could have. */
int shard_layout_of(const sw_shard_info *info, shard_layout *l) SW_MUST_CHECK;
/* Fails on values that break what shard.h promises. */
int shard_check_record(const sw_shard_info *info, const shard_layout *l, const sw_value *values) SW_MUST_CHECK;
/* Adds a record to totals. */
void shard_count_record(const shard_layout *l, const sw_value *values, sw_shard_totals *t);

/* sw_shard_open on a descriptor, which the reader takes over; name is for messages. */
sw_shard *shard_open_fd(int fd, const char *name, bool seekable) SW_MUST_CHECK;

#endif
