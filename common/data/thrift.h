/* Thrift's compact protocol, as far as Parquet's metadata needs it: a reader of bytes that nothing is known about.
 * After the first error everything reads as 0 and `bad` is set. */
#ifndef SW_DATA_THRIFT_H
#define SW_DATA_THRIFT_H

#include "base/strbuf.h"

typedef enum thrift_type {
    THRIFT_STOP,
    THRIFT_TRUE,
    THRIFT_FALSE,
    THRIFT_BYTE,
    THRIFT_I16,
    THRIFT_I32,
    THRIFT_I64,
    THRIFT_DOUBLE,
    THRIFT_BINARY,
    THRIFT_LIST,
    THRIFT_SET,
    THRIFT_MAP,
    THRIFT_STRUCT,
} thrift_type;

typedef struct thrift {
    const uint8_t *at, *end;
    bool bad;
} thrift;

/* A field of a struct; id is kept between calls and begins as 0. THRIFT_STOP: the struct ends. */
thrift_type thrift_field(thrift *t, int *id);
int64_t thrift_int(thrift *t); /* any whole number */
sw_span thrift_binary(thrift *t);
/* Items of a list, of *type. No more than there are bytes left. */
size_t thrift_list(thrift *t, thrift_type *type);
void thrift_skip(thrift *t, thrift_type type);

#endif
