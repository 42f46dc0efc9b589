/* Drawing a token from logits, as host devices do it (kernel `sample`); other devices follow it. */
#ifndef SW_KERNELS_DRAW_H
#define SW_KERNELS_DRAW_H

#include "kernels/kernels.h"

/* out: the token, and its log-probability (0 where it is not wanted). logits [vocab]; seen: the row's own, d->seen_count of them.
 * Ids that are no token of the vocabulary count for nothing. */
void sw_draw_row(double out[2], float *logits, int64_t vocab, const sw_draw *d, const int32_t (*seen)[2]);

#endif
