#include "nn/landing.h"

enum { ROOM = 1 << 20 }; /* bytes: eight arrays of a batch of 32,000 tokens */

void *sw_landing_room(sw_landing *l, sw_device *d, size_t n)
{
    if (!d->send || !n || n > ROOM - l->used)
        return NULL;
    if (!l->data) {
        l->data = d->alloc(d, ROOM);
        l->free_at = l->data ? d->mark(d, NULL) : NULL; /* alloc is in order with the kernels */
        if (!l->free_at) {
            d->free(d, l->data);
            *l = (sw_landing){.used = ROOM};
            return NULL;
        }
    }
    void *room = (char *)l->data + l->used;
    l->used += (n + 255) & ~(size_t)255;
    return room;
}

int sw_landing_send(sw_landing *l, sw_device *d, void *room, const void *host, size_t n)
{
    if (d->send(d, room, host, n, l->waited ? NULL : l->free_at))
        return -1;
    l->waited = true;
    return 0;
}

void sw_landing_leave(sw_landing *l, sw_device *d)
{
    if (!l->data || !l->used)
        return;
    bool marked = d->mark(d, l->free_at) != NULL; /* without, an error that the next call has too: nothing is sent any more */
    l->used = marked ? 0 : ROOM;
    l->waited = false;
}

void sw_landing_free(sw_landing *l, sw_device *d)
{
    if (l->data)
        d->free(d, l->data);
    if (l->free_at)
        d->unmark(d, l->free_at);
    *l = (sw_landing){0};
}
