/* Zip archives of stored (not compressed) records, as torch writes them, zip64 included: where each record's bytes lie.
 */
#ifndef SW_STORE_ZIP_H
#define SW_STORE_ZIP_H

#include "base/error.h"
#include "base/map.h"
#include "base/memory.h"

typedef struct sw_zip_record {
    const char *name;
    const uint8_t *at;
    size_t n;
} sw_zip_record;

typedef struct sw_zip {
    sw_zip_record *records; /* in *a */
    size_t n;
    sw_map index;
} sw_zip;

/* Checks the directory and every local header of bytes[0..n): no record reaches out of the file or into another. -1
 * with what is wrong; *z is to be closed in any case. */
int sw_zip_open(sw_zip *z, const uint8_t *bytes, size_t n, sw_arena *a) SW_MUST_CHECK;
const sw_zip_record *sw_zip_find(const sw_zip *z, const char *name); /* NULL: none */
void sw_zip_close(sw_zip *z);

#endif
