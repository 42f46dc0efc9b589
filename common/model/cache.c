#include "model/cache.h"

#include "model/model.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 4096, MOST_PAGES = INT32_MAX / SW_PAGE };

/* Tokens of a row. */
static int64_t every_of(const sw_pages *p) { return SW_MAX(p->by_token, 1); }

const sw_pages *sw_cache_rows(const sw_cache *cache, int64_t every)
{
    for (int i = 0; i < cache->kinds; i++)
        if (cache->pages[i].by_token == every)
            return &cache->pages[i];
    return NULL;
}

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

/* Bytes of all states of the kind for so many pages. */
static size_t bytes_for(const sw_cache *cache, const sw_model *m, const sw_pages *p, int64_t pages)
{
    size_t bytes = 0;
    for (int64_t i = 0; i < m->spec.layers; i++)
        for (int k = 0; k < cache->layer[i].n; k++)
            if (cache->layer[i].spec[k].by_token == p->by_token) {
                sw_tensor all = state_of(cache, &cache->layer[i].spec[k], pages * SW_PAGE, NULL);
                bytes += (sw_tensor_bytes(&all) + ALIGN - 1) / ALIGN * ALIGN;
            }
    return bytes;
}

/* Lays the states out in p's memory, with what they hold where they have some. */
static int lay_out(sw_cache *cache, const sw_model *m, const sw_pages *p)
{
    char *at = p->memory;
    for (int64_t i = 0; i < m->spec.layers; i++)
        for (int k = 0; k < cache->layer[i].n; k++) {
            sw_tensor *t = &cache->layer[i].t[k], to = state_of(cache, &cache->layer[i].spec[k], p->room * SW_PAGE, at);
            if (cache->layer[i].spec[k].by_token != p->by_token)
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
static void reserve(const sw_cache *cache, const sw_model *m, int64_t least, sw_pages *p)
{
    sw_device *d = m->device;
    size_t left, total = sw_physical_memory();
    if (!d->reserve || (d->memory && d->memory(d, &left, &total)))
        return;
    p->room = SW_MIN(SW_MAX((int64_t)(total / bytes_for(cache, m, p, 1)), least), MOST_PAGES);
    p->bytes = bytes_for(cache, m, p, p->room);
    p->memory = d->reserve(d, p->bytes);
    p->reserved = p->memory;
}

static int make_room(sw_cache *cache, const sw_model *m, sw_pages *p, int64_t want)
{
    sw_pages to = *p;
    to.memory = NULL;
    to.reserved = false;
    if (want > MOST_PAGES)
        return sw_fail("a cache of %lld tokens is not possible", (long long)(want * SW_PAGE * every_of(p)));
    if (!p->memory)
        reserve(cache, m, want, &to);
    if (!to.memory) {
        to.room = SW_MIN(SW_MAX(want, 2 * p->room), MOST_PAGES);
        to.bytes = bytes_for(cache, m, p, to.room);
        to.memory = m->device->alloc(m->device, to.bytes);
    }
    if (!to.memory || lay_out(cache, m, &to)) {
        release(m, &to);
        return sw_fail_in("what %lld tokens remember", (long long)(want * SW_PAGE * every_of(p)));
    }
    release(m, p);
    *p = to;
    return 0;
}

/* ---- pages of slots */

/* A page that is free. Tensors grow by an eighth, so that they seldom change their shape. */
static int free_page(sw_cache *cache, const sw_model *m, sw_pages *p, int32_t *page)
{
    int64_t want = p->made + p->made / 8 + 1;
    if (!p->idle.n) {
        if (want > p->room && make_room(cache, m, p, want))
            return -1;
        for (int64_t i = want - 1; i >= p->made; i--) /* the first is taken first */
            SW_PUSH(p->idle, (int32_t)i);
        for (; p->made < want; p->made++)
            SW_PUSH(p->holders, 0);
        for (int64_t i = 0; i < m->spec.layers; i++)
            for (int k = 0; k < cache->layer[i].n; k++)
                if (cache->layer[i].spec[k].by_token == p->by_token)
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

/* A page of its own in place of one that others have too, with the first n rows of it. */
static int part_page(sw_cache *cache, const sw_model *m, sw_pages *p, int32_t *page, int64_t n)
{
    int32_t own;
    if (free_page(cache, m, p, &own))
        return -1;
    for (int64_t i = 0; i < m->spec.layers; i++)
        for (int k = 0; k < cache->layer[i].n; k++) {
            const sw_tensor *t = &cache->layer[i].t[k];
            if (cache->layer[i].spec[k].by_token == p->by_token && copy_rows(m, t, (int64_t)own * SW_PAGE, t, (int64_t)*page * SW_PAGE, n))
                return -1;
        }
    leave_page(p, page);
    *page = own;
    return 0;
}

/* Pages for rows [from, to), which will be written. */
static int take(sw_cache *cache, const sw_model *m, sw_pages *p, int64_t slot, int64_t from, int64_t to)
{
    struct sw_slot_pages *own = &p->of[slot];
    for (int64_t i = from / SW_PAGE; i < (to + SW_PAGE - 1) / SW_PAGE; i++) {
        if (i >= (int64_t)own->n)
            SW_PUSH(*own, -1);
        int32_t *page = &own->at[i];
        if (*page < 0 ? free_page(cache, m, p, page)
                      : p->holders.at[*page] > 1 && part_page(cache, m, p, page, SW_MAX(from - i * SW_PAGE, 0)))
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

static void share(sw_pages *p, int64_t to, int64_t from, int64_t rows)
{
    leave(p, to);
    for (int64_t i = 0; i < (rows + SW_PAGE - 1) / SW_PAGE; i++) {
        int32_t page = p->of[from].at[i];
        SW_PUSH(p->of[to], page);
        if (page >= 0)
            p->holders.at[page]++;
    }
}

int sw_cache_take(sw_cache *cache, const sw_model *m, int64_t slot, int64_t places)
{
    int64_t length = cache->length[slot], unseen = cache->window ? (length - cache->window + 1) / SW_PAGE : 0;
    sw_pages *tokens = &cache->pages[SW_PAGES_TOKENS];
    for (int64_t i = 0; i < SW_MIN(unseen, (int64_t)tokens->of[slot].n); i++)
        leave_page(tokens, &tokens->of[slot].at[i]);
    for (sw_pages *p = cache->pages; p < cache->pages + cache->kinds; p++) /* a row that is begun has its place: its page is always there */
        if (p->by_token > 0 && take(cache, m, p, slot, length / p->by_token, (places + p->by_token - 1) / p->by_token))
            return -1;
    cache->ids[slot] = sw_realloc(cache->ids[slot], tokens->of[slot].n * SW_PAGE * sizeof **cache->ids);
    return 0;
}

int sw_cache_take_source(sw_cache *cache, const sw_model *m, int64_t slot, int64_t places)
{
    return take(cache, m, &cache->pages[SW_PAGES_SOURCES], slot, 0, places);
}

int64_t sw_cache_pages(const sw_cache *cache)
{
    int64_t n = 0;
    for (int i = 0; i < cache->kinds; i++)
        n += (int64_t)(cache->pages[i].holders.n - cache->pages[i].idle.n);
    return n;
}

sw_var *sw_cache_table(sw_ctx *c, const sw_pages *p, const int64_t *slots, int64_t n)
{
    int64_t width = 1;
    for (int64_t i = 0; i < n; i++)
        while (width < (int64_t)p->of[slots[i]].n)
            width *= 2;
    if (width > INT32_MAX / SW_PAGE / SW_MAX(n, 1))
        return sw_fail_null("%lld sequences of up to %lld tokens are too many for a batch", (long long)n, (long long)(width * SW_PAGE * every_of(p)));
    int32_t *table = sw_ctx_alloc(c, (size_t)(n * width) * sizeof *table), *at = table;
    memset(table, -1, (size_t)(n * width) * sizeof *table);
    for (int64_t i = 0; i < n; i++, at += width)
        if (p->of[slots[i]].n)
            memcpy(at, p->of[slots[i]].at, p->of[slots[i]].n * sizeof *at);
    return sw_from_host(c, SW_I32, 2, (int64_t[]){n, width}, table);
}

int sw_cache_copy_slot(sw_cache *cache, const sw_model *m, int64_t to, int64_t from)
{
    if (to == from)
        return 0;
    cache->length[to] = cache->length[from];
    cache->source_length[to] = cache->source_length[from];
    for (sw_pages *p = cache->pages; p < cache->pages + cache->kinds; p++)
        share(p, to, from, (p->by_token > 0 ? cache->length : cache->source_length)[from] / every_of(p));
    size_t bytes = (size_t)cache->length[from] * sizeof **cache->ids;
    cache->ids[to] = sw_realloc(cache->ids[to], cache->pages[SW_PAGES_TOKENS].of[to].n * SW_PAGE * sizeof **cache->ids);
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
    for (sw_pages *p = cache->pages; p < cache->pages + cache->kinds; p++)
        leave(p, slot);
    cache->length[slot] = cache->source_length[slot] = 0;
}

/* ---- life */

static int add_kind(sw_cache *cache, int32_t by_token)
{
    for (int i = 0; i < cache->kinds; i++)
        if (cache->pages[i].by_token == by_token)
            return 0;
    if (cache->kinds == SW_MOST_PAGES)
        return sw_fail("layers remember rows of more than %d lengths", SW_MOST_PAGES - SW_PAGES_SOURCES - 1);
    cache->pages[cache->kinds++] = (sw_pages){.by_token = by_token, .of = SW_NEW_ARRAY(struct sw_slot_pages, (size_t)cache->slots)};
    return 0;
}

/* A state by slot. */
static int add_fixed(sw_cache *cache, const sw_model *m, sw_layer_states *l, int k)
{
    l->t[k] = state_of(cache, &l->spec[k], cache->slots, NULL);
    l->t[k].data = l->memory[k] = m->device->alloc(m->device, sw_tensor_bytes(&l->t[k]));
    return l->memory[k] ? 0 : -1;
}

/* How far back any layer sees, where pages further off need not be kept. */
static int64_t window_of(const sw_cache *cache, const sw_spec *s)
{
    int64_t window = 0;
    for (int64_t i = s->encoder_layers; i < s->layers; i++) {
        const sw_layer *l = &s->layer[i];
        for (int k = 0; k < cache->layer[i].n; k++) {
            const sw_state_spec *state = &cache->layer[i].spec[k];
            if (state->by_token != 1)
                continue;
            if (!state->windowed || l->window <= 0 || l->chunked)
                return 0;
            window = SW_MAX(window, l->window);
        }
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
    int rc = add_kind(cache, 1) || add_kind(cache, SW_BY_SOURCE_TOKEN); /* SW_PAGES_TOKENS, SW_PAGES_SOURCES */
    for (int64_t i = m->spec.encoder_layers; i < m->spec.layers; i++) { /* an encoder reads all at once */
        sw_layer_states *l = &cache->layer[i];
        const sw_mixer_ops *mixer = m->spec.layer[i].mixer, *cross = m->spec.layer[i].cross;
        l->n = mixer && mixer->states ? mixer->states(&m->spec, &m->spec.layer[i], l->spec) : 0;
        l->n += cross && cross->states ? cross->states(&m->spec, &m->spec.layer[i], l->spec + l->n) : 0;
        for (int k = 0; !rc && k < l->n; k++)
            rc = l->spec[k].by_token ? add_kind(cache, l->spec[k].by_token) : add_fixed(cache, m, l, k);
    }
    for (sw_pages *p = cache->pages; p < cache->pages + cache->kinds; p++)
        p->room = bytes_for(cache, m, p, 1) ? 0 : MOST_PAGES; /* no state of the kind */
    cache->window = window_of(cache, &m->spec);
    if (!rc)
        return 0;
    sw_cache_free(cache, m);
    return sw_fail_in("what %lld sequences remember", (long long)slots);
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
    for (sw_pages *p = cache->pages; p < cache->pages + cache->kinds; p++)
        free_pages(cache, m, p);
    for (int64_t i = 0; cache->ids && i < cache->slots; i++)
        free(cache->ids[i]);
    free(cache->ids);
    free(cache->layer);
    free(cache->length);
    free(cache->source_length);
    *cache = (sw_cache){0};
}
