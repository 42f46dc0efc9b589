/* Hash map from byte strings to int64. Keys are copied. Zero value is empty. */
#ifndef SW_BASE_MAP_H
#define SW_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct sw_map {
    struct sw_map_slot *slots;
    size_t n, cap;
    struct sw_arena *keys;
} sw_map;

void sw_map_put(sw_map *m, const char *key, size_t n, int64_t value); /* replaces */
/* The value, or missing where there is no such key. */
int64_t sw_map_get(const sw_map *m, const char *key, size_t n, int64_t missing);
int64_t sw_map_gets(const sw_map *m, const char *key, int64_t missing); /* NUL-terminated key */
void sw_map_puts(sw_map *m, const char *key, int64_t value);
void sw_map_free(sw_map *m);

#endif
