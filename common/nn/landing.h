/* Where what the host sends lands: device memory apart from the kernels' own, so that copies need not wait for those at work
 * (device->send). Given out from its start on; all of it is free again behind the mark that leaving it sets. */
#ifndef SW_NN_LANDING_H
#define SW_NN_LANDING_H

#include "kernels/kernels.h"

typedef struct sw_landing { /* zeroed at first */
    void *data;    /* NULL: none yet */
    size_t used;
    void *free_at; /* mark of the device behind what may still read it */
    bool waited;   /* a copy has waited for that since */
} sw_landing;

/* Room for n bytes; NULL: there is none left, or the device gains nothing by it. */
void *sw_landing_room(sw_landing *l, sw_device *d, size_t n);
int sw_landing_send(sw_landing *l, sw_device *d, void *room, const void *host, size_t n) SW_MUST_CHECK;
/* Nothing that is asked for from now on uses what has landed. */
void sw_landing_leave(sw_landing *l, sw_device *d);
void sw_landing_free(sw_landing *l, sw_device *d);

#endif
