#include "store/made.h"

#include <string.h>

int64_t sw_entry_width(const sw_entry *e) { return e->t.ndim > 1 ? e->t.shape[e->t.ndim - 1] : 1; }

int64_t sw_entry_row_count(const sw_entry *e)
{
    int64_t width = sw_entry_width(e);
    return width ? sw_numel(&e->t) / width : 0;
}

int sw_entry_rows(const sw_entry *e, int64_t first, int64_t n, void *out)
{
    if (e->made)
        return e->made->rows(e->made, first, n, out);
    int64_t width = sw_entry_width(e);
    if (sw_is_quantised(e->t.dtype) && e->t.ndim < 2) { /* values of a block do not stand alone */
        if (first || n != sw_numel(&e->t))
            return sw_fail("%s: a vector of blocks is read whole", e->name);
        memcpy(out, e->t.data, sw_tensor_bytes(&e->t));
        return 0;
    }
    size_t row = sw_dtype_bytes(e->t.dtype, width);
    memcpy(out, (const char *)e->t.data + row * (size_t)first, row * (size_t)n);
    return 0;
}
