/* Pages of a column: unpacking, levels, values. */
#include "data/parquet_file.h"

#include "base/memory.h"
#include "data/thrift.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { HEADER_STEP = 64 << 10, HEADER_MAX = 16 << 20 };
enum { CODEC_NONE = 0, CODEC_SNAPPY = 1, CODEC_GZIP = 2, CODEC_ZSTD = 6 };
enum { ENCODING_PLAIN = 0, ENCODING_PLAIN_DICTIONARY = 2, ENCODING_RLE = 3, ENCODING_RLE_DICTIONARY = 8 };
enum { PAGE_DATA = 0, PAGE_DICTIONARY = 2, PAGE_DATA_V2 = 3 };

typedef struct page_header {
    int64_t type, raw, packed; /* bytes unpacked and packed */
    int64_t values, encoding, level_encoding;
    int64_t def_bytes, rep_bytes; /* of version 2, in front of the values and never packed */
    bool is_packed;
} page_header;

static int damaged(const char *what) { return sw_fail("damaged: %s", what); }

/* ---- unpacking */

/* Snappy (its format description, "Compressed format"): a length, then literals and copies of what is there already. */
static int unsnap(const uint8_t *at, size_t n, uint8_t *out, size_t room)
{
    const uint8_t *end = at + n;
    size_t done = 0;
    uint64_t want = 0;
    for (int shift = 0;; shift += 7) {
        if (at == end || shift > 28)
            return -1;
        want |= (uint64_t)(*at & 0x7f) << shift;
        if (!(*at++ & 0x80))
            break;
    }
    if (want != room)
        return -1;
    while (at < end) {
        size_t tag = *at++, len, offset, bytes;
        if (!(tag & 3)) {
            len = tag >> 2;
            bytes = len >= 60 ? len - 59 : 0;
            if ((size_t)(end - at) < bytes)
                return -1;
            if (bytes)
                len = 0;
            for (size_t i = 0; i < bytes; i++)
                len |= (size_t)*at++ << 8 * i;
            len++;
            if ((size_t)(end - at) < len || room - done < len)
                return -1;
            memcpy(out + done, at, len);
            at += len, done += len;
            continue;
        }
        bytes = (tag & 3) == 1 ? 1 : (tag & 3) == 2 ? 2 : 4;
        if ((size_t)(end - at) < bytes)
            return -1;
        offset = 0;
        for (size_t i = 0; i < bytes; i++)
            offset |= (size_t)*at++ << 8 * i;
        if (bytes == 1) {
            len = 4 + (tag >> 2 & 7);
            offset |= (tag >> 5) << 8;
        } else {
            len = (tag >> 2) + 1;
        }
        if (!offset || offset > done || room - done < len)
            return -1;
        for (size_t i = 0; i < len; i++, done++) /* what is copied may reach into the copy */
            out[done] = out[done - offset];
    }
    return done == room ? 0 : -1;
}

static int gunzip(const uint8_t *at, size_t n, uint8_t *out, size_t room)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)at, .avail_in = (uInt)n, .next_out = out, .avail_out = (uInt)room};
    if (inflateInit2(&z, 32 + MAX_WBITS) != Z_OK)
        return -1;
    int rc = inflate(&z, Z_FINISH);
    size_t done = z.total_out;
    inflateEnd(&z);
    return rc == Z_STREAM_END && done == room ? 0 : -1;
}

static int unpack(int codec, const uint8_t *at, size_t n, uint8_t *out, size_t room)
{
    int rc = -1;
    switch (codec) {
    case CODEC_NONE:
        rc = n == room ? 0 : -1;
        if (!rc && n)
            memcpy(out, at, n);
        break;
    case CODEC_SNAPPY: rc = unsnap(at, n, out, room); break;
    case CODEC_GZIP: rc = gunzip(at, n, out, room); break;
    case CODEC_ZSTD: rc = ZSTD_decompress(out, room, at, n) == room ? 0 : -1; break;
    default: return sw_fail("is packed with a method (number %d) other than Snappy, gzip and zstd", codec);
    }
    return rc ? damaged("a page does not unpack to its length") : 0;
}

/* ---- runs and packed groups */

static void bits_begin(parquet_bits *b, const uint8_t *at, size_t n, int width)
{
    *b = (parquet_bits){.at = at, .end = at + n, .width = width};
}

/* The next number: 0 or -1. */
static int bits_next(parquet_bits *b, uint32_t *out)
{
    if (!b->width) {
        *out = 0;
        return 0;
    }
    while (!b->run && !b->packed) {
        uint64_t head = 0;
        int shift = 0;
        do {
            if (b->at == b->end || shift > 56)
                return damaged("levels or indices end early");
            head |= (uint64_t)(*b->at & 0x7f) << shift;
            shift += 7;
        } while (*b->at++ & 0x80);
        if (head & 1) {
            b->packed = (head >> 1) * 8;
            b->bit = 0;
            continue;
        }
        b->run = head >> 1;
        b->value = 0;
        for (int i = 0; i < (b->width + 7) / 8; i++) {
            if (b->at == b->end)
                return damaged("levels or indices end early");
            b->value |= (uint32_t)*b->at++ << 8 * i;
        }
    }
    if (b->run) {
        b->run--;
        *out = b->value;
        return 0;
    }
    uint64_t v = 0;
    size_t byte = b->bit / 8, need = (b->bit + (size_t)b->width + 7) / 8;
    if ((size_t)(b->end - b->at) < need)
        return damaged("levels or indices end early");
    for (size_t i = byte; i < need; i++)
        v |= (uint64_t)b->at[i] << 8 * (i - byte);
    *out = (uint32_t)(v >> b->bit % 8 & (((uint64_t)1 << b->width) - 1));
    b->bit += (size_t)b->width;
    if (!--b->packed)
        b->at += (b->bit + 7) / 8;
    return 0;
}

/* ---- values */

/* The next plain value. */
static int plain_next(const parquet_node *leaf, const uint8_t **at, const uint8_t *end, sw_span *out)
{
    static const int widths[] = {0, 4, 8, 12, 4, 8, 0, 0};
    size_t left = (size_t)(end - *at),
           n = leaf->type == PARQUET_FIXED ? (size_t)leaf->width : (size_t)widths[leaf->type];
    if (leaf->type == PARQUET_BYTES) {
        uint32_t len = 0;
        if (left < 4)
            return damaged("a page ends inside a value");
        memcpy(&len, *at, 4);
        *at += 4;
        left -= 4;
        n = len;
    }
    if (left < n)
        return damaged("a page ends inside a value");
    *out = (sw_span){(const char *)*at, n};
    *at += n;
    return 0;
}

static int value_next(parquet_column *c)
{
    static const char booleans[] = {0, 1};
    uint32_t i;
    if (c->indexed || c->boolean_runs) {
        if (bits_next(&c->indices, &i))
            return -1;
        if (c->boolean_runs) {
            c->value = (sw_span){&booleans[i & 1], 1};
            return 0;
        }
        if (i >= c->dictionary.n)
            return damaged("an index beyond the dictionary");
        c->value = c->dictionary.at[i];
        return 0;
    }
    if (c->leaf->type != PARQUET_BOOLEAN)
        return plain_next(c->leaf, &c->at, c->end, &c->value);
    if (c->at == c->end)
        return damaged("a page ends before its values do");
    c->value = (sw_span){&booleans[*c->at >> c->bit & 1], 1};
    c->bit = (c->bit + 1) & 7;
    c->at += !c->bit;
    return 0;
}

/* ---- pages */

static void read_page_kind(thrift *t, int kind, page_header *h)
{
    int id = 0;
    for (thrift_type f; (f = thrift_field(t, &id));) {
        int64_t *to = NULL;
        if (id == 1)
            to = &h->values;
        else if (kind == 8)
            to = id == 4 ? &h->encoding : id == 5 ? &h->def_bytes : id == 6 ? &h->rep_bytes : NULL;
        else
            to = id == 2 ? &h->encoding : kind == 5 && id == 3 ? &h->level_encoding : NULL;
        if (kind == 8 && id == 7)
            h->is_packed = f == THRIFT_TRUE;
        if (to && f == THRIFT_I32)
            *to = thrift_int(t);
        else
            thrift_skip(t, f);
    }
}

static void read_header(thrift *t, page_header *h)
{
    int id = 0;
    *h = (page_header){
        .type = -1, .raw = -1, .packed = -1, .values = -1, .level_encoding = ENCODING_RLE, .is_packed = true};
    for (thrift_type f; (f = thrift_field(t, &id));) {
        if ((id == 5 || id == 7 || id == 8) && f == THRIFT_STRUCT)
            read_page_kind(t, id, h);
        else if (f == THRIFT_I32 && id >= 1 && id <= 3)
            *(id == 1 ? &h->type : id == 2 ? &h->raw : &h->packed) = thrift_int(t);
        else
            thrift_skip(t, f);
    }
}

/* The header of the page at the chunk's place, which moves behind it. */
static int next_header(parquet_column *c, page_header *h)
{
    int64_t left = c->chunk.end - c->chunk.at;
    for (int64_t n = HEADER_STEP;; n *= 4) {
        n = SW_MIN(n, left);
        sw_buf_clear(&c->raw);
        sw_buf_reserve(&c->raw, (size_t)n);
        if (parquet_read_at(c->fd, c->chunk.at, (size_t)n, c->raw.at))
            return -1;
        thrift t = {(const uint8_t *)c->raw.at, (const uint8_t *)c->raw.at + n, false};
        read_header(&t, h);
        if (!t.bad) {
            c->chunk.at += t.at - (const uint8_t *)c->raw.at;
            break;
        }
        if (n == left || n > HEADER_MAX)
            return damaged("the header of a page");
    }
    left = c->chunk.end - c->chunk.at;
    if (h->raw < 0 || h->raw > PARQUET_PAGE_MAX || h->packed < 0 || h->packed > left)
        return damaged("the length of a page");
    return 0;
}

/* Reads and unpacks the page's bytes into `to`. */
static int load(parquet_column *c, const page_header *h, sw_buf *to)
{
    int64_t levels = h->type == PAGE_DATA_V2 ? h->def_bytes + h->rep_bytes : 0;
    if (h->def_bytes < 0 || h->rep_bytes < 0 || levels > h->packed || levels > h->raw)
        return damaged("the levels of a page");
    sw_buf_clear(&c->raw);
    sw_buf_reserve(&c->raw, (size_t)h->packed);
    if (parquet_read_at(c->fd, c->chunk.at, (size_t)h->packed, c->raw.at))
        return -1;
    c->chunk.at += h->packed;
    sw_buf_clear(to);
    sw_buf_reserve(to, (size_t)h->raw);
    memcpy(to->at, c->raw.at, (size_t)levels);
    const uint8_t *from = (const uint8_t *)c->raw.at + levels;
    to->n = (size_t)h->raw;
    size_t packed = (size_t)(h->packed - levels), raw = (size_t)(h->raw - levels);
    if (!packed && !raw)
        return 0;
    return unpack(h->is_packed ? c->chunk.codec : CODEC_NONE, from, packed, (uint8_t *)to->at + levels, raw);
}

static int read_dictionary(parquet_column *c, const page_header *h)
{
    if ((h->encoding != ENCODING_PLAIN && h->encoding != ENCODING_PLAIN_DICTIONARY) || h->values < 0 ||
        c->leaf->type == PARQUET_BOOLEAN)
        return damaged("a dictionary");
    if (load(c, h, &c->dictionary_page))
        return -1;
    const uint8_t *at = (const uint8_t *)c->dictionary_page.at, *end = at + c->dictionary_page.n;
    c->dictionary.n = 0;
    for (int64_t i = 0; i < h->values; i++) {
        sw_span v;
        if (plain_next(c->leaf, &at, end, &v))
            return -1;
        SW_PUSH(c->dictionary, v);
    }
    return 0;
}

static int bits_of(int max)
{
    int n = 0;
    while (max >> n)
        n++;
    return n;
}

/* Levels of version 1 lie behind their length. */
static int begin_levels(parquet_bits *b, int max, const uint8_t **at, const uint8_t *end)
{
    uint32_t n = 0;
    if (!max) {
        bits_begin(b, *at, 0, 0);
        return 0;
    }
    if (end - *at < 4)
        return damaged("the levels of a page");
    memcpy(&n, *at, 4);
    *at += 4;
    if ((size_t)(end - *at) < n)
        return damaged("the levels of a page");
    bits_begin(b, *at, n, bits_of(max));
    *at += n;
    return 0;
}

static int begin_page(parquet_column *c, const page_header *h)
{
    if (h->values < 0 || h->values > c->chunk.values)
        return damaged("more values than the column has");
    if (load(c, h, &c->page))
        return -1;
    const uint8_t *at = (const uint8_t *)c->page.at, *end = at + c->page.n;
    if (h->type == PAGE_DATA_V2) {
        bits_begin(&c->reps, at, (size_t)h->rep_bytes, bits_of(c->leaf->rep));
        bits_begin(&c->defs, at + h->rep_bytes, (size_t)h->def_bytes, bits_of(c->leaf->def));
        at += h->rep_bytes + h->def_bytes;
    } else if (h->level_encoding != ENCODING_RLE) {
        return sw_fail("levels in an encoding (number %lld) that is no longer written", (long long)h->level_encoding);
    } else if (begin_levels(&c->reps, c->leaf->rep, &at, end) || begin_levels(&c->defs, c->leaf->def, &at, end)) {
        return -1;
    }
    c->indexed = h->encoding == ENCODING_PLAIN_DICTIONARY || h->encoding == ENCODING_RLE_DICTIONARY;
    c->boolean_runs = h->encoding == ENCODING_RLE && c->leaf->type == PARQUET_BOOLEAN;
    if (c->indexed) {
        if (at<end && * at> 32)
            return damaged("the width of indices");
        bits_begin(&c->indices, at + (at < end), at < end ? (size_t)(end - at - 1) : 0, at < end ? *at : 0);
    } else if (c->boolean_runs) {
        if (end - at < 4)
            return damaged("a page ends inside a value");
        bits_begin(&c->indices, at + 4, (size_t)(end - at - 4), 1);
    } else if (h->encoding != ENCODING_PLAIN) {
        return sw_fail(
            "values in an encoding (number %lld) other than plain and dictionary; write the file again without it",
            (long long)h->encoding);
    }
    c->at = at;
    c->end = end;
    c->bit = 0;
    c->in_page = h->values;
    return 0;
}

int parquet_column_next(parquet_column *c)
{
    while (!c->in_page) {
        page_header h;
        if (!c->chunk.values) {
            c->ended = true;
            c->rep = 0;
            return 0;
        }
        if (c->chunk.at == c->chunk.end)
            return damaged("the column ends before its values do");
        if (next_header(c, &h))
            return -1;
        if (h.type == PAGE_DICTIONARY                       ? read_dictionary(c, &h)
            : h.type == PAGE_DATA || h.type == PAGE_DATA_V2 ? begin_page(c, &h)
                                                            : 0)
            return -1;
        if (h.type != PAGE_DICTIONARY && h.type != PAGE_DATA && h.type != PAGE_DATA_V2)
            c->chunk.at += h.packed; /* an index of pages */
    }
    uint32_t rep, def;
    if (bits_next(&c->reps, &rep) || bits_next(&c->defs, &def))
        return -1;
    if (rep > (uint32_t)c->leaf->rep || def > (uint32_t)c->leaf->def)
        return damaged("a level beyond the schema's");
    c->rep = (int)rep;
    c->def = (int)def;
    c->in_page--;
    c->chunk.values--;
    return c->def == c->leaf->def ? value_next(c) : 0;
}

int parquet_column_begin(parquet_column *c, const parquet_chunk *chunk)
{
    c->chunk = *chunk;
    c->in_page = 0;
    c->ended = false;
    c->dictionary.n = 0;
    return parquet_column_next(c);
}

void parquet_column_free(parquet_column *c)
{
    sw_buf_free(&c->raw);
    sw_buf_free(&c->page);
    sw_buf_free(&c->dictionary_page);
    free(c->dictionary.at);
}
