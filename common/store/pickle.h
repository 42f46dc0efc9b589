/* Python pickles (protocols 2 to 5) as trees of plain values. Nothing is ever run: a name outside the caller's list is
 * refused, a call is recorded with its arguments, and what an object's __setstate__ would get is dropped. */
#ifndef SW_STORE_PICKLE_H
#define SW_STORE_PICKLE_H

#include "base/error.h"
#include "base/memory.h"
#include "base/strbuf.h"

#include <stdbool.h>

typedef enum sw_pickle_kind {
    SW_PICKLE_NONE,
    SW_PICKLE_BOOL,       /* i */
    SW_PICKLE_INT,        /* i */
    SW_PICKLE_LONG,       /* text: little-endian two's complement of more than 8 bytes */
    SW_PICKLE_FLOAT,      /* f */
    SW_PICKLE_STR,        /* text, not checked to be UTF-8 */
    SW_PICKLE_BYTES,      /* text */
    SW_PICKLE_TUPLE,      /* items */
    SW_PICKLE_LIST,       /* items; sets, too */
    SW_PICKLE_DICT,       /* items: key, value, key, value ... in the file's order; a key may be there twice */
    SW_PICKLE_GLOBAL,     /* global */
    SW_PICKLE_CALL,       /* items: callee, argument tuple */
    SW_PICKLE_PERSISTENT, /* items: the id */
    SW_PICKLE_MARK,       /* never handed out */
} sw_pickle_kind;

/* A name that a pickle may mention. */
typedef struct sw_pickle_global {
    const char *module, *name;
    int id;          /* the caller's */
    bool makes_dict; /* calling it makes a dict (collections.OrderedDict) */
} sw_pickle_global;

typedef struct sw_pickle_value {
    sw_pickle_kind kind;
    union {
        int64_t i;
        double f;
        sw_span text; /* in the pickle's bytes */
        struct sw_pickle_items *items;
        const sw_pickle_global *global;
    };
} sw_pickle_value;

/* Shared where Python shares, so that a list may hold itself: walk no deeper than is needed. */
typedef struct sw_pickle_items {
    sw_pickle_value *at;
    size_t n, cap;
} sw_pickle_items;

typedef struct sw_pickle {
    sw_pickle_value value;
    size_t used;                 /* bytes up to and with STOP */
    sw_pickle_items persistents; /* every PERSISTENT, in order */
} sw_pickle;

/* Reads the pickle that bytes[0..n) begin with. allowed ends with {0}. Values lie in *a and in bytes. -1 with the byte
 * offset and what was refused. Time and memory are linear in the bytes, of which 64 MiB are read at most. */
int sw_pickle_read(const uint8_t *bytes, size_t n, const sw_pickle_global *allowed, sw_arena *a,
                   sw_pickle *out) SW_MUST_CHECK;
/* "a dict", "a call of torch._utils._rebuild_tensor_v2" ... for messages, in out[96]; returns out. */
char *sw_pickle_describe(const sw_pickle_value *v, char out[96]);

#endif
