#include "base/map.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct sw_map_slot {
    const char *key; /* NULL: empty */
    uint32_t n, hash;
    int64_t value;
};

static struct sw_map_slot *find(const sw_map *m, const char *key, size_t n, uint32_t hash)
{
    size_t i = hash & (m->cap - 1);
    while (m->slots[i].key) {
        struct sw_map_slot *s = &m->slots[i];
        if (s->hash == hash && s->n == n && !memcmp(s->key, key, n))
            return s;
        i = (i + 1) & (m->cap - 1);
    }
    return &m->slots[i];
}

static void grow(sw_map *m)
{
    sw_map bigger = {.cap = m->cap ? m->cap * 2 : 16, .n = m->n, .keys = m->keys};
    bigger.slots = SW_NEW_ARRAY(struct sw_map_slot, bigger.cap);
    for (size_t i = 0; i < m->cap; i++)
        if (m->slots[i].key)
            *find(&bigger, m->slots[i].key, m->slots[i].n, m->slots[i].hash) = m->slots[i];
    free(m->slots);
    *m = bigger;
}

void sw_map_put(sw_map *m, const char *key, size_t n, int64_t value)
{
    if ((m->n + 1) * 4 > m->cap * 3)
        grow(m);
    uint32_t hash = (uint32_t)XXH3_64bits(key, n);
    struct sw_map_slot *s = find(m, key, n, hash);
    if (!s->key) {
        if (!m->keys)
            m->keys = SW_NEW(sw_arena);
        *s = (struct sw_map_slot){sw_arena_strndup(m->keys, key, n), (uint32_t)n, hash, 0};
        m->n++;
    }
    s->value = value;
}

int64_t sw_map_get(const sw_map *m, const char *key, size_t n, int64_t missing)
{
    if (!m->n)
        return missing;
    struct sw_map_slot *s = find(m, key, n, (uint32_t)XXH3_64bits(key, n));
    return s->key ? s->value : missing;
}

int64_t sw_map_gets(const sw_map *m, const char *key, int64_t missing) { return sw_map_get(m, key, strlen(key), missing); }
void sw_map_puts(sw_map *m, const char *key, int64_t value) { sw_map_put(m, key, strlen(key), value); }

void sw_map_free(sw_map *m)
{
    free(m->slots);
    if (m->keys)
        sw_arena_free(m->keys);
    free(m->keys);
    *m = (sw_map){0};
}
