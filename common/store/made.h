/* Tensors that lie in no file as they are needed: their rows are computed from what does lie there when somebody asks for
 * them, so that a model in another layout or type is read without a second copy of it. */
#ifndef SW_STORE_MADE_H
#define SW_STORE_MADE_H

#include "store/safetensors.h"

/* What e->made begins with. A row is what lies along the last dimension; of a vector, one value. */
struct sw_made {
    /* Rows [first, first + n) as values of the entry's type; called by any number of threads. */
    int (*rows)(const sw_made *m, int64_t first, int64_t n, void *out);
};

/* Values of a row, and how many rows an entry has. */
int64_t sw_entry_width(const sw_entry *e);
int64_t sw_entry_row_count(const sw_entry *e);
/* The bytes of rows [first, first + n): copied, or computed. Ranges must lie within the entry. */
int sw_entry_rows(const sw_entry *e, int64_t first, int64_t n, void *out) SW_MUST_CHECK;

#endif
