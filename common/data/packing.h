/* Packing: several documents into one record of at most `capacity` tokens, so that a step's tokens are not padding.
 *
 * Best fit, longest first (Johnson, "Near-optimal bin packing algorithms", 1973), over a window of the stream: bounded
 * memory, and the same packs for the same input. Documents of badly filled packs wait for the next window. */
#ifndef SW_DATA_PACKING_H
#define SW_DATA_PACKING_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct sw_packer sw_packer;

/* Takes a finished pack: its documents in the order in which they came, n >= 1; they are its own from then on, also
 * when it fails. */
typedef int (*sw_pack_sink)(void *context, void *const *items, size_t n);

/* window: documents that are looked at together, at least 1. */
sw_packer *sw_packer_new(size_t capacity, size_t window, sw_pack_sink sink, void *context);
/* Adds a document of 1..capacity tokens; item is handed to the sink, never looked at. */
int sw_packer_add(sw_packer *p, size_t tokens, void *item) SW_MUST_CHECK;
/* Hands out all that waits. */
int sw_packer_flush(sw_packer *p) SW_MUST_CHECK;
/* Tokens put into packs over the room in them, 0..1 (1 before the first). */
double sw_packer_fill(const sw_packer *p);
int64_t sw_packer_packs(const sw_packer *p);
/* Gives what still waits to `drop` (may be NULL), one item at a time. */
void sw_packer_free(sw_packer *p, void (*drop)(void *item));

#endif
