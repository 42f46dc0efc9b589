#include "base/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static void *checked(void *p, size_t n)
{
    if (!p && n) {
        fprintf(stderr, "swift: out of memory (%zu bytes asked for)\n", n);
        exit(1);
    }
    return p;
}

void *sw_malloc(size_t n) { return checked(malloc(n ? n : 1), n); }
void *sw_calloc(size_t count, size_t size) { return checked(calloc(count ? count : 1, size ? size : 1), count * size); }
void *sw_realloc(void *p, size_t n) { return checked(realloc(p, n ? n : 1), n); }
char *sw_strdup(const char *s) { return sw_strndup(s, strlen(s)); }

char *sw_strndup(const char *s, size_t n)
{
    char *p = sw_malloc(n + 1);
    memcpy(p, s, n);
    p[n] = 0;
    return p;
}

char *sw_strfmt(const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = sw_malloc((size_t)(n < 0 ? 0 : n) + 1);
    p[0] = 0;
    if (n >= 0)
        vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}

void sw_vec_grow(void **at, size_t *cap, size_t want, size_t item)
{
    if (want <= *cap)
        return;
    size_t n = *cap ? *cap * 2 : 8;
    if (n < want)
        n = want;
    *at = sw_realloc(*at, n * item);
    *cap = n;
}

struct sw_arena_block {
    struct sw_arena_block *next;
    size_t cap, used;
    _Alignas(16) char data[];
};

void *sw_arena_alloc(sw_arena *a, size_t n)
{
    n = (n + 15) & ~(size_t)15;
    if (!a->head || a->head->cap - a->head->used < n) {
        size_t cap = a->head ? a->head->cap * 2 : 4096;
        if (cap > ((size_t)1 << 22))
            cap = (size_t)1 << 22;
        if (cap < n)
            cap = n;
        struct sw_arena_block *b = sw_malloc(sizeof *b + cap);
        b->next = a->head;
        b->cap = cap;
        b->used = 0;
        a->head = b;
    }
    void *p = a->head->data + a->head->used;
    a->head->used += n;
    a->used += n;
    return p;
}

void *sw_arena_zalloc(sw_arena *a, size_t n) { return memset(sw_arena_alloc(a, n), 0, n); }

char *sw_arena_strndup(sw_arena *a, const char *s, size_t n)
{
    char *p = sw_arena_alloc(a, n + 1);
    memcpy(p, s, n);
    p[n] = 0;
    return p;
}

void sw_arena_reset(sw_arena *a)
{
    struct sw_arena_block *best = NULL;
    for (struct sw_arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        if (!best || b->cap > best->cap) {
            free(best);
            best = b;
        } else {
            free(b);
        }
    }
    if (best) {
        best->next = NULL;
        best->used = 0;
    }
    a->head = best;
    a->used = 0;
}

void sw_arena_free(sw_arena *a)
{
    for (struct sw_arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    *a = (sw_arena){0};
}

int sw_mul_size(size_t a, size_t b, size_t *out) { return __builtin_mul_overflow(a, b, out) ? -1 : 0; }
int sw_add_size(size_t a, size_t b, size_t *out) { return __builtin_add_overflow(a, b, out) ? -1 : 0; }

size_t sw_peak_rss(void)
{
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) ? 0 : (size_t)u.ru_maxrss * 1024;
}

size_t sw_current_rss(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long size = 0, resident = 0;
    if (f) {
        if (fscanf(f, "%lu %lu", &size, &resident) != 2)
            resident = 0;
        fclose(f);
    }
    return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

size_t sw_physical_memory(void) { return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE); }
