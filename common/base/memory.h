/* Host memory for bookkeeping. These never return NULL: a program that cannot get a few kilobytes says so
 * and ends (exit 1). Sizes that come from a file are checked by their reader first; tensor storage does not
 * come from here (nn/context.h) and reports running out as an error. */
#ifndef SW_BASE_MEMORY_H
#define SW_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

void *sw_malloc(size_t n);
void *sw_calloc(size_t count, size_t size);
void *sw_realloc(void *p, size_t n);
char *sw_strdup(const char *s);
char *sw_strndup(const char *s, size_t n);
char *sw_strfmt(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define SW_NEW(T) ((T *)sw_calloc(1, sizeof(T)))
#define SW_NEW_ARRAY(T, n) ((T *)sw_calloc((n), sizeof(T)))
#define SW_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define SW_MIN(a, b) ((a) < (b) ? (a) : (b))
#define SW_MAX(a, b) ((a) > (b) ? (a) : (b))

/* Growable array: declare `struct { T *at; size_t n, cap; } v;` zeroed; free with free(v.at). */
#define SW_PUSH(v, value) (sw_vec_grow((void **)&(v).at, &(v).cap, (v).n + 1, sizeof *(v).at), (v).at[(v).n++] = (value))
#define SW_RESERVE(v, want) sw_vec_grow((void **)&(v).at, &(v).cap, (want), sizeof *(v).at)
void sw_vec_grow(void **at, size_t *cap, size_t want, size_t item);

/* Arena: many small allocations with one life. Pointers stay valid until reset or free. Zero value is empty. */
typedef struct sw_arena {
    struct sw_arena_block *head;
    size_t used;
} sw_arena;
void *sw_arena_alloc(sw_arena *a, size_t n); /* 16-byte aligned, not zeroed */
void *sw_arena_zalloc(sw_arena *a, size_t n);
char *sw_arena_strndup(sw_arena *a, const char *s, size_t n);
void sw_arena_reset(sw_arena *a); /* keeps the largest block for reuse */
void sw_arena_free(sw_arena *a);

/* Multiplication and addition of sizes that a file gave: 0 and the result, or -1 on overflow (no message). */
int sw_mul_size(size_t a, size_t b, size_t *out);
int sw_add_size(size_t a, size_t b, size_t *out);

/* Peak resident set of this process in bytes (0 where the system does not say). */
size_t sw_peak_rss(void);
size_t sw_current_rss(void);
size_t sw_physical_memory(void);

#endif
