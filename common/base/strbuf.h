/* Growable byte string, always NUL-terminated after at least one append. Zero value is empty.
 * May hold NUL bytes; n is the length. */
#ifndef SW_BASE_STRBUF_H
#define SW_BASE_STRBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct sw_buf {
    char *at;
    size_t n, cap;
} sw_buf;

/* A borrowed byte range. */
typedef struct sw_span {
    const char *at;
    size_t n;
} sw_span;

void sw_buf_add(sw_buf *b, const void *bytes, size_t n);
void sw_buf_puts(sw_buf *b, const char *s);
void sw_buf_putc(sw_buf *b, char c);
void sw_buf_printf(sw_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sw_buf_reserve(sw_buf *b, size_t extra);
void sw_buf_clear(sw_buf *b);  /* keeps the memory */
char *sw_buf_take(sw_buf *b);  /* gives the string away (caller frees), leaves b empty */
void sw_buf_free(sw_buf *b);
/* Appends s as a JSON string literal with quotes (UTF-8 kept, control characters escaped, bytes that are no
 * UTF-8 become U+FFFD). */
void sw_buf_json(sw_buf *b, const char *s, size_t n);

bool sw_ends_with(const char *s, const char *suffix);
bool sw_starts_with(const char *s, const char *prefix);
/* Shell-style match of the whole name: * any run, ? one character, {a,b} alternatives, [..] classes. */
bool sw_glob(const char *pattern, const char *name);
/* Changes of one letter that make b of a (Levenshtein), without regard to case; SIZE_MAX where either is too long to say. */
size_t sw_spelling_distance(const char *a, const char *b);
/* Formats bytes for people ("1.25 GiB") into out[32]; returns out. */
char *sw_human_bytes(double bytes, char out[32]);
/* Seconds as "1h02m", "3m20s" or "4.1s". */
char *sw_human_seconds(double seconds, char out[32]);

/* UTF-8. Decodes one code point at s[0..n): returns its length in bytes and sets *cp, or 0 when the bytes
 * are no UTF-8 (overlong, surrogate, beyond U+10FFFF, cut short). */
int sw_utf8_decode(const char *s, size_t n, uint32_t *cp);
int sw_utf8_encode(uint32_t cp, char out[4]); /* returns the length, 0 for an invalid code point */
/* Offset of the first byte that is no valid UTF-8, or n when all is valid. */
size_t sw_utf8_valid_prefix(const char *s, size_t n);
size_t sw_utf8_count(const char *s, size_t n); /* code points */

#endif
