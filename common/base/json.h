/* JSON through cJSON, with what cJSON leaves out: lengths (a JSON string may hold U+0000), UTF-8 checks,
 * errors that name the place, numbers that must be whole. Trees are cJSON's; free with cJSON_Delete. */
#ifndef SW_BASE_JSON_H
#define SW_BASE_JSON_H

#include "base/error.h"
#include "base/strbuf.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

/* Parses one JSON value that fills text[0..n) (white space around it allowed). Refuses invalid UTF-8, nesting
 * deeper than 500 and trailing text. NULL with the reason (byte offset) on failure. Also accepts the bare
 * words Infinity, -Infinity and NaN as numbers, as Python writes them in config files. */
cJSON *sw_json_parse(const char *text, size_t n) SW_MUST_CHECK;
/* Reads and parses a file; the error names it. */
cJSON *sw_json_load(const char *path) SW_MUST_CHECK;

/* The bytes of a string value (U+0000 included), decoded into buf when needed; {NULL, 0} for another kind.
 * cJSON keeps U+0000 as the bytes C0 80; this is the only place that knows. */
sw_span sw_json_text(const cJSON *v, sw_buf *buf);

/* How a number was spelt, where sw_json_parse met a point, an exponent or more than 15 digits: 1.0 is not 1 to everybody,
 * and large whole numbers are no doubles. NULL otherwise. */
const char *sw_json_number_text(const cJSON *v);

/* Typed members of an object. Missing or null gives the default; a wrong kind or a number out of range sets
 * an error that names the key and returns -1. `o` may be NULL (then every member is missing). */
int sw_json_i64(const cJSON *o, const char *key, int64_t min, int64_t max, int64_t missing, int64_t *out) SW_MUST_CHECK;
int sw_json_f64(const cJSON *o, const char *key, double missing, double *out) SW_MUST_CHECK;
int sw_json_bool(const cJSON *o, const char *key, bool missing, bool *out) SW_MUST_CHECK;
/* *out points into the tree. */
int sw_json_str(const cJSON *o, const char *key, const char *missing, const char **out) SW_MUST_CHECK;
/* Member that is present and not null, else NULL. Case-sensitive. */
const cJSON *sw_json_get(const cJSON *o, const char *key);
/* "a string", "an array" ... for messages; NULL gives "nothing". */
const char *sw_json_kind(const cJSON *v);

/* Writing. Numbers are printed with the fewest digits that read back the same. */
void sw_json_print(sw_buf *out, const cJSON *v);                 /* compact, one line, Python-free UTF-8 */
void sw_json_print_pretty(sw_buf *out, const cJSON *v);          /* two spaces */
void sw_json_number(sw_buf *out, double v);                      /* NaN and infinities become null */

#endif
