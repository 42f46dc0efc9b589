/* The format: PKWARE's .ZIP File Format Specification (APPNOTE), sections 4.3 and 4.5.3. */
#include "store/zip.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { END = 22, END64 = 56, LOCATOR64 = 20, CENTRAL = 46, LOCAL = 30, LONGEST_COMMENT = 65535 };

static uint64_t number(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static bool signature(const uint8_t *p, char a, char b) { return p[0] == 'P' && p[1] == 'K' && p[2] == a && p[3] == b; }

typedef struct directory {
    uint64_t at, n, records;
} directory;

/* The end record is the last of its signature whose comment reaches exactly to the end of the file. */
static int find_directory(const uint8_t *bytes, size_t n, directory *d)
{
    const uint8_t *end = NULL;
    for (size_t back = END; back <= n && back <= END + LONGEST_COMMENT && !end; back++) {
        const uint8_t *p = bytes + n - back;
        if (signature(p, 5, 6) && number(p + 20, 2) == back - END)
            end = p;
    }
    if (!end)
        return sw_fail("the zip directory at its end is missing: the file is cut short, or no zip file");
    size_t at = (size_t)(end - bytes);
    bool wide = at >= LOCATOR64 && signature(end - LOCATOR64, 6, 7);
    uint64_t disk = number(end + 4, 2), limit = at;
    *d = (directory){.at = number(end + 16, 4), .n = number(end + 12, 4), .records = number(end + 10, 2)};
    if (wide) {
        uint64_t where = number(end - LOCATOR64 + 8, 8);
        if (at - LOCATOR64 < END64 || where > at - LOCATOR64 - END64 || !signature(bytes + where, 6, 6))
            return sw_fail("the zip64 end record is not where it should be");
        const uint8_t *p = bytes + where;
        disk = number(p + 16, 4);
        *d = (directory){.at = number(p + 48, 8), .n = number(p + 40, 8), .records = number(p + 32, 8)};
        limit = where;
    }
    if (disk)
        return sw_fail("is one part of a zip file in several parts");
    if (d->at > limit || d->n > limit - d->at)
        return sw_fail("the zip directory (%" PRIu64 " bytes at %" PRIu64 ") reaches beyond its end record", d->n,
                       d->at);
    if (d->records > d->n / CENTRAL)
        return sw_fail("%" PRIu64 " records are announced, the zip directory has %" PRIu64 " bytes", d->records, d->n);
    return 0;
}

typedef struct extent {
    uint64_t start, end;
    const char *name;
} extent;

/* Sizes and offset of 32 bits that are all ones stand, in this order, in the extra field 1. */
static int widen(const uint8_t *extra, size_t n, uint64_t *packed, uint64_t *size, uint64_t *offset)
{
    uint64_t *wide[] = {size, packed, offset};
    bool any = *size == UINT32_MAX || *packed == UINT32_MAX || *offset == UINT32_MAX;
    while (any && n >= 4) {
        size_t length = (size_t)number(extra + 2, 2);
        if (length > n - 4)
            return sw_fail("an extra field is cut short");
        if (number(extra, 2) == 1) {
            const uint8_t *p = extra + 4;
            for (int i = 0; i < 3; i++) {
                if (*wide[i] != UINT32_MAX)
                    continue;
                if (length < 8)
                    return sw_fail("the zip64 field is cut short");
                *wide[i] = number(p, 8);
                p += 8;
                length -= 8;
            }
            return 0;
        }
        extra += 4 + length;
        n -= 4 + length;
    }
    return 0;
}

/* One entry of the directory, with its local header; *used bytes. */
static int read_record(sw_zip *z, const uint8_t *bytes, const directory *d, const uint8_t *p, size_t left, size_t *used,
                       sw_arena *a, extent *e)
{
    if (left < CENTRAL || !signature(p, 1, 2))
        return sw_fail("record %zu of the zip directory is broken", z->n);
    size_t name_n = (size_t)number(p + 28, 2), extra_n = (size_t)number(p + 30, 2),
           comment_n = (size_t)number(p + 32, 2);
    *used = CENTRAL + name_n + extra_n + comment_n;
    if (*used > left)
        return sw_fail("record %zu of the zip directory is cut short", z->n);
    const char *raw = (const char *)p + CENTRAL;
    if (memchr(raw, 0, name_n))
        return sw_fail("the name of record %zu holds a NUL character", z->n);
    char *name = sw_arena_strndup(a, raw, name_n);
    uint64_t packed = number(p + 20, 4), size = number(p + 24, 4), offset = number(p + 42, 4);
    if (number(p + 8, 2) & 1)
        return sw_fail("'%s' is encrypted", name);
    if (number(p + 10, 2))
        return sw_fail("'%s' is compressed; torch stores its records as they are, and so they are needed here", name);
    if (widen((const uint8_t *)raw + name_n, extra_n, &packed, &size, &offset))
        return sw_fail_in("'%s'", name);
    if (packed != size)
        return sw_fail("'%s' is stored and yet of two sizes, %" PRIu64 " and %" PRIu64, name, packed, size);
    if (offset > d->at || d->at - offset < LOCAL)
        return sw_fail("'%s' would begin at byte %" PRIu64 ", the records end at %" PRIu64, name, offset, d->at);
    const uint8_t *local = bytes + offset;
    uint64_t head = LOCAL + number(local + 26, 2) + number(local + 28, 2);
    if (!signature(local, 3, 4) || head > d->at - offset || number(local + 26, 2) != name_n ||
        memcmp(local + LOCAL, raw, name_n))
        return sw_fail("'%s' has no header of its name at byte %" PRIu64, name, offset);
    if (size > d->at - offset - head)
        return sw_fail("'%s' would have %" PRIu64 " bytes, %" PRIu64 " are there", name, size, d->at - offset - head);
    if (sw_map_gets(&z->index, name, -1) >= 0)
        return sw_fail("'%s' is there twice", name);
    sw_map_puts(&z->index, name, (int64_t)z->n);
    *e = (extent){offset, offset + head + size, name};
    z->records[z->n++] = (sw_zip_record){name, local + head, (size_t)size};
    return 0;
}

static int by_start(const void *a, const void *b)
{
    const extent *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

int sw_zip_open(sw_zip *z, const uint8_t *bytes, size_t n, sw_arena *a)
{
    directory d = {0};
    *z = (sw_zip){0};
    if (find_directory(bytes, n, &d))
        return -1;
    z->records = sw_arena_alloc(a, ((size_t)d.records + 1) * sizeof *z->records);
    extent *extents = SW_NEW_ARRAY(extent, (size_t)d.records + 1);
    const uint8_t *p = bytes + d.at;
    size_t left = (size_t)d.n, used = 0;
    int rc = 0;
    for (uint64_t i = 0; i < d.records && !rc; i++, p += used, left -= used) {
        used = 0;
        rc = read_record(z, bytes, &d, p, left, &used, a, &extents[i]);
    }
    if (!rc && z->n)
        qsort(extents, z->n, sizeof *extents, by_start);
    for (size_t i = 1; i < z->n && !rc; i++)
        if (extents[i].start < extents[i - 1].end)
            rc = sw_fail("'%s' overlaps '%s'", extents[i].name, extents[i - 1].name);
    free(extents);
    return rc;
}

const sw_zip_record *sw_zip_find(const sw_zip *z, const char *name)
{
    int64_t i = sw_map_gets(&z->index, name, -1);
    return i < 0 ? NULL : &z->records[i];
}

void sw_zip_close(sw_zip *z) { sw_map_free(&z->index); }
