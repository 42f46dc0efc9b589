#include "model/cache.h"

#include "model/model.h"

#include <stdlib.h>
#include <string.h>

/* Places of a slot that a state has rows for, and how many are filled. */
static int64_t places(const sw_cache *cache, const sw_state_spec *s)
{
    return !s->by_token ? 1 : s->by_token == SW_BY_SOURCE_TOKEN ? cache->source_capacity : cache->capacity;
}

static int64_t filled(const sw_cache *cache, const sw_state_spec *s, int64_t slot)
{
    return !s->by_token ? 1 : s->by_token == SW_BY_SOURCE_TOKEN ? cache->source_length[slot] : cache->length[slot];
}

/* Memory of state k for `capacity` places a slot. */
static int state_memory(const sw_cache *cache, const sw_model *m, const sw_state_spec *s, int64_t capacity, sw_tensor *t, void **memory)
{
    int64_t shape[4] = {s->by_token ? cache->slots * capacity : cache->slots};
    memcpy(shape + 1, s->shape, (size_t)s->ndim * sizeof *shape);
    *t = sw_tensor_of(NULL, s->dtype == SW_DTYPE_COUNT ? cache->ctx->compute : s->dtype, s->ndim + 1, shape);
    t->data = *memory = m->device->alloc(m->device, sw_tensor_bytes(t));
    return t->data ? 0 : sw_fail_in("what %lld sequences of %lld tokens remember", (long long)cache->slots, (long long)capacity);
}

int sw_cache_init(sw_cache *cache, sw_ctx *c, const sw_model *m, int64_t slots, int64_t capacity)
{
    if (m->spec.bidirectional) { /* what was remembered of a token would change with each one after it */
        *cache = (sw_cache){0};
        return sw_fail("%s reads texts in both directions: it cannot generate them token by token", m->spec.family->name);
    }
    *cache = (sw_cache){c, slots, capacity, SW_NEW_ARRAY(int64_t, (size_t)SW_MAX(slots, 1)), NULL,
                        SW_NEW_ARRAY(sw_layer_states, (size_t)m->spec.layers), m->spec.encoder_layers ? capacity : 0,
                        SW_NEW_ARRAY(int64_t, (size_t)SW_MAX(slots, 1))};
    int rc = slots < 1 || capacity < 1 || slots > INT32_MAX / capacity
                 ? sw_fail("a cache of %lld sequences of %lld tokens is not possible", (long long)slots, (long long)capacity)
                 : 0;
    for (int64_t i = 0; !rc && i < m->spec.layers; i++) {
        sw_layer_states *l = &cache->layer[i];
        const sw_mixer_ops *mixer = m->spec.layer[i].mixer, *cross = m->spec.layer[i].cross;
        if (i < m->spec.encoder_layers) /* reads all at once */
            continue;
        int n = mixer && mixer->states ? mixer->states(&m->spec, &m->spec.layer[i], l->spec) : 0;
        n += cross && cross->states ? cross->states(&m->spec, &m->spec.layer[i], l->spec + n) : 0;
        for (; !rc && l->n < n; l->n++)
            rc = state_memory(cache, m, &l->spec[l->n], capacity, &l->t[l->n], &l->memory[l->n]);
    }
    if (rc)
        sw_cache_free(cache, m);
    else
        cache->ids = SW_NEW_ARRAY(int32_t, (size_t)(slots * capacity));
    return rc;
}

static int copy_rows(const sw_model *m, const sw_tensor *to, int64_t to_row, const sw_tensor *from, int64_t from_row, int64_t n)
{
    sw_tensor a = sw_row_view(to, to_row, n), b = sw_row_view(from, from_row, n);
    return n ? m->device->k->copy(m->device->stream, &a, &b) : 0;
}

static int grow(sw_cache *cache, const sw_model *m, sw_layer_states *l, int k, int64_t capacity)
{
    sw_tensor t;
    void *memory;
    if (state_memory(cache, m, &l->spec[k], capacity, &t, &memory))
        return -1;
    for (int64_t slot = 0; slot < cache->slots; slot++)
        if (copy_rows(m, &t, slot * capacity, &l->t[k], slot * places(cache, &l->spec[k]), filled(cache, &l->spec[k], slot))) {
            m->device->free(m->device, memory);
            return -1;
        }
    m->device->free(m->device, l->memory[k]);
    l->memory[k] = memory;
    l->t[k] = t;
    return 0;
}

/* All states of a kind. */
static int grow_all(sw_cache *cache, const sw_model *m, int by_token, int64_t capacity)
{
    if (cache->slots > INT32_MAX / capacity)
        return sw_fail("a cache of %lld sequences of %lld tokens is not possible", (long long)cache->slots, (long long)capacity);
    for (int64_t i = 0; i < m->spec.layers; i++)
        for (int k = 0; k < cache->layer[i].n; k++)
            if (cache->layer[i].spec[k].by_token == by_token && grow(cache, m, &cache->layer[i], k, capacity))
                return -1;
    return 0;
}

int sw_cache_reserve_source(sw_cache *cache, const sw_model *m, int64_t capacity)
{
    if (capacity <= cache->source_capacity)
        return 0;
    capacity = SW_MAX(capacity, cache->source_capacity * 2);
    if (grow_all(cache, m, SW_BY_SOURCE_TOKEN, capacity))
        return -1;
    cache->source_capacity = capacity;
    return 0;
}

int sw_cache_reserve(sw_cache *cache, const sw_model *m, int64_t capacity)
{
    if (capacity <= cache->capacity)
        return 0;
    capacity = SW_MAX(capacity, cache->capacity * 2);
    if (grow_all(cache, m, true, capacity))
        return -1;
    int32_t *ids = SW_NEW_ARRAY(int32_t, (size_t)(cache->slots * capacity));
    for (int64_t slot = 0; slot < cache->slots; slot++)
        memcpy(ids + slot * capacity, cache->ids + slot * cache->capacity, (size_t)cache->length[slot] * sizeof *ids);
    free(cache->ids);
    cache->ids = ids;
    cache->capacity = capacity;
    return 0;
}

int sw_cache_copy_slot(sw_cache *cache, const sw_model *m, int64_t to, int64_t from)
{
    cache->length[to] = cache->length[from];
    cache->source_length[to] = cache->source_length[from];
    memmove(cache->ids + to * cache->capacity, cache->ids + from * cache->capacity, (size_t)cache->length[from] * sizeof *cache->ids);
    for (int64_t i = 0; to != from && i < m->spec.layers; i++)
        for (int k = 0; k < cache->layer[i].n; k++) {
            const sw_tensor *t = &cache->layer[i].t[k];
            int64_t each = places(cache, &cache->layer[i].spec[k]);
            if (copy_rows(m, t, to * each, t, from * each, filled(cache, &cache->layer[i].spec[k], from)))
                return -1;
        }
    return 0;
}

void sw_cache_free(sw_cache *cache, const sw_model *m)
{
    for (int64_t i = 0; cache->layer && i < m->spec.layers; i++)
        for (int k = 0; k < SW_MOST_STATES; k++)
            if (cache->layer[i].memory[k])
                m->device->free(m->device, cache->layer[i].memory[k]);
    free(cache->layer);
    free(cache->ids);
    free(cache->length);
    free(cache->source_length);
    *cache = (sw_cache){0};
}
