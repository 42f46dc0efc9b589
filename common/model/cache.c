#include "model/cache.h"

#include "model/model.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 4096, MOST_PAGES = INT32_MAX / SW_PAGE };

static sw_pages *pages_of(sw_cache *cache, int by_token) { return by_token == SW_BY_SOURCE_TOKEN ? &cache->sources : &cache->tokens; }

static sw_tensor state_of(const sw_cache *cache, const sw_state_spec *s, int64_t rows, void *data)
{
    int64_t shape[4] = {rows};
    memcpy(shape + 1, s->shape, (size_t)s->ndim * sizeof *shape);
    return sw_tensor_of(data, s->dtype == SW_DTYPE_COUNT ? cache->ctx->compute : s->dtype, s->ndim + 1, shape);
}

static int copy_rows(const sw_model *m, const sw_tensor *to, int64_t to_row, const sw_tensor *from, int64_t from_row, int64_t n)
{
    sw_tensor a = sw_row_view(to, to_row, n), b = sw_row_view(from, from_row, n);
    return n ? m->device->k->copy(m->device->stream, &a, &b) : 0;
}

/* ---- memory of pages */

/* Bytes of all states of a kind for so many pages. */
static size_t bytes_for(const sw_cache *cache, const sw_model *m, int by_token, int64_t pages)
{
    size_t bytes = 0;
    for (int64_t i = 0; i < m->spec.layers; i++)
        for (int k = 0; k < cache->layer[i].n; k++)
            if (cache->layer[i].spec[k].by_token == by_token) {
                sw_tensor all = state_of(cache, &cache->layer[i].spec[k], pages * SW_PAGE, NULL);
                bytes += (sw_tensor_bytes(&all) + ALIGN - 1) / ALIGN * ALIGN;
            }
    return bytes;
}

/* Lays the states out in p's memory, with what they hold where they have some. */
static int lay_out(sw_cache *cache, const sw_model *m, int by_token, const sw_pages *p)
{
    char *at = p->memory;
    for (int64_t i = 0; i < m->spec.layers; i++)
        for (int k = 0; k < cache->layer[i].n; k++) {
            sw_tensor *t = &cache->layer[i].t[k], to = state_of(cache, &cache->layer[i].spec[k], p->room * SW_PAGE, at);
            if (cache->layer[i].spec[k].by_token != by_token)
                continue;
            if (t->data && copy_rows(m, &to, 0, t, 0, p->made * SW_PAGE))
                return -1;
            at += (sw_tensor_bytes(&to) + ALIGN - 1) / ALIGN * ALIGN;
            to.shape[0] = p->made * SW_PAGE;
            *t = to;
        }
    return 0;
}

static void release(const sw_model *m, const sw_pages *p)
{
    if (p->reserved)
        m->device->unreserve(m->device, p->memory, p->bytes);
    else if (p->memory)
        m->device->free(m->device, p->memory);
}

/* Addresses for all that the device can hold, where it has addresses without memory; p->memory NULL otherwise. */
static void reserve(const sw_cache *cache, const sw_model *m, int by_token, int64_t least, sw_pages *p)
{
    sw_device *d = m->device;
    size_t left, total = sw_physical_memory();
    if (!d->reserve || (d->memory && d->memory(d, &left, &total)))
        return;
    p->room = SW_MIN(SW_MAX((int64_t)(total / bytes_for(cache, m, by_token, 1)), least), MOST_PAGES);
    p->bytes = bytes_for(cache, m, by_token, p->room);
    p->memory = d->reserve(d, p->bytes);
    p->reserved = p->memory;
}

static int make_room(sw_cache *cache, const sw_model *m, int by_token, int64_t want)
{
    sw_pages *p = pages_of(cache, by_token), to = *p;
    to.memory = NULL;
    to.reserved = false;
    if (want > MOST_PAGES)
        return sw_fail("a cache of %lld tokens is not possible", (long long)want * SW_PAGE);
    if (!p->memory)
        reserve(cache, m, by_token, want, &to);
    if (!to.memory) {
        to.room = SW_MIN(SW_MAX(want, 2 * p->room), MOST_PAGES);
        to.bytes = bytes_for(cache, m, by_token, to.room);
        to.memory = m->device->alloc(m->device, to.bytes);
    }
    if (!to.memory || lay_out(cache, m, by_token, &to)) {
        release(m, &to);
        return sw_fail_in("what %lld tokens remember", (long long)want * SW_PAGE);
    }
    release(m, p);
    *p = to;
    return 0;
}

/* ---- pages of slots */

/* A page that is free. Tensors grow by an eighth, so that they seldom change their shape. */
static int free_page(sw_cache *cache, const sw_model *m, int by_token, int32_t *page)
{
    sw_pages *p = pages_of(cache, by_token);
    int64_t want = p->made + p->made / 8 + 1;
    if (!p->idle.n) {
        if (want > p->room && make_room(cache, m, by_token, want))
            return -1;
        for (int64_t i = want - 1; i >= p->made; i--) /* the first is taken first */
            SW_PUSH(p->idle, (int32_t)i);
        for (; p->made < want; p->made++)
            SW_PUSH(p->holders, 0);
        for (int64_t i = 0; i < m->spec.layers; i++)
            for (int k = 0; k < cache->layer[i].n; k++)
                if (cache->layer[i].spec[k].by_token == by_token)
                    cache->layer[i].t[k].shape[0] = p->made * SW_PAGE;
    }
    *page = p->idle.at[--p->idle.n];
    p->holders.at[*page] = 1;
    return 0;
}

static void leave_page(sw_pages *p, int32_t *page)
{
    if (*page >= 0 && !--p->holders.at[*page])
        SW_PUSH(p->idle, *page);
    *page = -1;
}

/* A page of its own in place of one that others have too, with the first n places of it. */
static int part_page(sw_cache *cache, const sw_model *m, int by_token, int32_t *page, int64_t n)
{
    int32_t own;
    if (free_page(cache, m, by_token, &own))
        return -1;
    for (int64_t i = 0; i < m->spec.layers; i++)
        for (int k = 0; k < cache->layer[i].n; k++) {
            const sw_tensor *t = &cache->layer[i].t[k];
            if (cache->layer[i].spec[k].by_token == by_token && copy_rows(m, t, (int64_t)own * SW_PAGE, t, (int64_t)*page * SW_PAGE, n))
                return -1;
        }
    leave_page(pages_of(cache, by_token), page);
    *page = own;
    return 0;
}

/* Pages for places [from, to), which will be written. */
static int take(sw_cache *cache, const sw_model *m, int by_token, int64_t slot, int64_t from, int64_t to)
{
    sw_pages *p = pages_of(cache, by_token);
    struct sw_slot_pages *own = &p->of[slot];
    for (int64_t i = from / SW_PAGE; i < (to + SW_PAGE - 1) / SW_PAGE; i++) {
        if (i >= (int64_t)own->n)
            SW_PUSH(*own, -1);
        int32_t *page = &own->at[i];
        if (*page < 0 ? free_page(cache, m, by_token, page)
                      : p->holders.at[*page] > 1 && part_page(cache, m, by_token, page, SW_MAX(from - i * SW_PAGE, 0)))
            return -1;
    }
    return 0;
}

static void leave(sw_pages *p, int64_t slot)
{
    for (size_t i = 0; i < p->of[slot].n; i++)
        leave_page(p, &p->of[slot].at[i]);
    p->of[slot].n = 0;
}

static void share(sw_pages *p, int64_t to, int64_t from, int64_t places)
{
    leave(p, to);
    for (int64_t i = 0; i < (places + SW_PAGE - 1) / SW_PAGE; i++) {
        int32_t page = p->of[from].at[i];
        SW_PUSH(p->of[to], page);
        if (page >= 0)
            p->holders.at[page]++;
    }
}

int sw_cache_take(sw_cache *cache, const sw_model *m, int64_t slot, int64_t places)
{
    int64_t length = cache->length[slot], unseen = cache->window ? (length - cache->window + 1) / SW_PAGE : 0;
    for (int64_t i = 0; i < SW_MIN(unseen, (int64_t)cache->tokens.of[slot].n); i++)
        leave_page(&cache->tokens, &cache->tokens.of[slot].at[i]);
    if (take(cache, m, true, slot, length, places))
        return -1;
    cache->ids[slot] = sw_realloc(cache->ids[slot], cache->tokens.of[slot].n * SW_PAGE * sizeof **cache->ids);
    return 0;
}

int sw_cache_take_source(sw_cache *cache, const sw_model *m, int64_t slot, int64_t places)
{
    return take(cache, m, SW_BY_SOURCE_TOKEN, slot, 0, places);
}

int64_t sw_cache_pages(const sw_cache *cache)
{
    return (int64_t)(cache->tokens.holders.n - cache->tokens.idle.n + cache->sources.holders.n - cache->sources.idle.n);
}

int sw_cache_copy_slot(sw_cache *cache, const sw_model *m, int64_t to, int64_t from)
{
    if (to == from)
        return 0;
    cache->length[to] = cache->length[from];
    cache->source_length[to] = cache->source_length[from];
    share(&cache->tokens, to, from, cache->length[from]);
    share(&cache->sources, to, from, cache->source_length[from]);
    size_t bytes = (size_t)cache->length[from] * sizeof **cache->ids;
    cache->ids[to] = sw_realloc(cache->ids[to], cache->tokens.of[to].n * SW_PAGE * sizeof **cache->ids);
    if (bytes)
        memcpy(cache->ids[to], cache->ids[from], bytes);
    for (int64_t i = 0; i < m->spec.layers; i++)
        for (int k = 0; k < cache->layer[i].n; k++)
            if (!cache->layer[i].spec[k].by_token && copy_rows(m, &cache->layer[i].t[k], to, &cache->layer[i].t[k], from, 1))
                return -1;
    return 0;
}

void sw_cache_clear_slot(sw_cache *cache, int64_t slot)
{
    leave(&cache->tokens, slot);
    leave(&cache->sources, slot);
    cache->length[slot] = cache->source_length[slot] = 0;
}

/* ---- life */

static void init_pages(const sw_cache *cache, const sw_model *m, int by_token, sw_pages *p)
{
    p->of = SW_NEW_ARRAY(struct sw_slot_pages, (size_t)cache->slots);
    p->room = bytes_for(cache, m, by_token, 1) ? 0 : MOST_PAGES; /* no state of the kind */
}

/* How far back any layer sees, where pages further off need not be kept: all that remember tokens must be attention with
 * a window. */
static int64_t window_of(const sw_cache *cache, const sw_spec *s)
{
    int64_t window = 0;
    for (int64_t i = s->encoder_layers; i < s->layers; i++) {
        const sw_layer *l = &s->layer[i];
        if (l->mixer == &sw_mixer_attention && l->window > 0 && !l->chunked)
            window = SW_MAX(window, l->window);
        else
            for (int k = 0; k < cache->layer[i].n; k++)
                if (cache->layer[i].spec[k].by_token == 1)
                    return 0;
    }
    return window;
}

int sw_cache_init(sw_cache *cache, sw_ctx *c, const sw_model *m, int64_t slots)
{
    *cache = (sw_cache){.ctx = c, .slots = slots};
    if (m->spec.bidirectional) /* what was remembered of a token would change with each one after it */
        return sw_fail("%s reads texts in both directions: it cannot generate them token by token", m->spec.family->name);
    if (slots < 1 || slots > INT32_MAX / SW_PAGE)
        return sw_fail("a cache of %lld sequences is not possible", (long long)slots);
    cache->length = SW_NEW_ARRAY(int64_t, (size_t)slots);
    cache->source_length = SW_NEW_ARRAY(int64_t, (size_t)slots);
    cache->ids = SW_NEW_ARRAY(int32_t *, (size_t)slots);
    cache->layer = SW_NEW_ARRAY(sw_layer_states, (size_t)m->spec.layers);
    for (int64_t i = m->spec.encoder_layers; i < m->spec.layers; i++) { /* an encoder reads all at once */
        sw_layer_states *l = &cache->layer[i];
        const sw_mixer_ops *mixer = m->spec.layer[i].mixer, *cross = m->spec.layer[i].cross;
        l->n = mixer && mixer->states ? mixer->states(&m->spec, &m->spec.layer[i], l->spec) : 0;
        l->n += cross && cross->states ? cross->states(&m->spec, &m->spec.layer[i], l->spec + l->n) : 0;
        for (int k = 0; k < l->n; k++) {
            if (l->spec[k].by_token)
                continue;
            l->t[k] = state_of(cache, &l->spec[k], slots, NULL);
            l->t[k].data = l->memory[k] = m->device->alloc(m->device, sw_tensor_bytes(&l->t[k]));
            if (!l->memory[k]) {
                sw_cache_free(cache, m);
                return sw_fail_in("what %lld sequences remember", (long long)slots);
            }
        }
    }
    init_pages(cache, m, true, &cache->tokens);
    init_pages(cache, m, SW_BY_SOURCE_TOKEN, &cache->sources);
    cache->window = window_of(cache, &m->spec);
    return 0;
}

static void free_pages(const sw_cache *cache, const sw_model *m, sw_pages *p)
{
    release(m, p);
    for (int64_t i = 0; p->of && i < cache->slots; i++)
        free(p->of[i].at);
    free(p->of);
    free(p->idle.at);
    free(p->holders.at);
}

void sw_cache_free(sw_cache *cache, const sw_model *m)
{
    for (int64_t i = 0; cache->layer && i < m->spec.layers; i++)
        for (int k = 0; k < SW_MOST_STATES; k++)
            if (cache->layer[i].memory[k])
                m->device->free(m->device, cache->layer[i].memory[k]);
    free_pages(cache, m, &cache->tokens);
    free_pages(cache, m, &cache->sources);
    for (int64_t i = 0; cache->ids && i < cache->slots; i++)
        free(cache->ids[i]);
    free(cache->ids);
    free(cache->layer);
    free(cache->length);
    free(cache->source_length);
    *cache = (sw_cache){0};
}
