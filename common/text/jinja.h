/* The Jinja dialect of chat templates, as transformers configures it: trim_blocks, lstrip_blocks, loop controls,
 * the generation block, tojson, strftime_now, raise_exception, namespace; values print as Python prints them.
 * A compiled template is immutable and may be shared by threads. Hostile templates end in an error: steps,
 * depth and output are bounded. */
#ifndef SW_TEXT_JINJA_H
#define SW_TEXT_JINJA_H

#include "base/error.h"
#include "base/strbuf.h"

#include <cjson/cJSON.h>
#include <stddef.h>

typedef struct sw_jinja sw_jinja;

/* Error: "line L: ...". */
sw_jinja *sw_jinja_compile(const char *source, size_t n) SW_MUST_CHECK;
void sw_jinja_free(sw_jinja *j);

/* Byte ranges of the output made inside {% generation %} blocks. */
typedef struct sw_ranges {
    size_t (*at)[2];
    size_t n, cap;
} sw_ranges;

typedef enum sw_jinja_error { /* what kind the last failure of sw_jinja_render was */
    SW_JINJA_OTHER,
    SW_JINJA_RAISED, /* the template called raise_exception; sw_error() is exactly its message */
} sw_jinja_error;

/* Renders with the members of vars (an object) as variables; appends to out. ranges and kind may be NULL.
 * now: what strftime_now sees, seconds since 1970 UTC; -1 is the current time, local. */
int sw_jinja_render(const sw_jinja *j, const cJSON *vars, double now, sw_buf *out, sw_ranges *ranges,
                    sw_jinja_error *kind) SW_MUST_CHECK;

#endif
