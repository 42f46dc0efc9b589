/* What the reader and the writer of GGUF files share. */
#ifndef SW_STORE_GGUF_FORMAT_H
#define SW_STORE_GGUF_FORMAT_H

#include "store/gguf.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "model files are mapped as they lie: little-endian machines only"
#endif

enum { SW_GGUF_TYPES = SW_GGUF_F64 + 1, SW_GGUF_MAX_DIMS = 4, SW_GGUF_ALIGNMENT = 32 };

/* Bytes of a scalar; 0 for strings and arrays. */
static const uint8_t sw_gguf_scalar_bytes[SW_GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* As sw_gguf_from_bytes; the mapping becomes its own. */
sw_gguf *sw_gguf_from_map(sw_mapping map, const char *name) SW_MUST_CHECK;

/* The string whose length and bytes lie at a place that has been checked. */
static inline sw_span sw_gguf_span_at(const uint8_t *at)
{
    uint64_t n;
    memcpy(&n, at, 8);
    return (sw_span){(const char *)at + 8, (size_t)n};
}

#endif
