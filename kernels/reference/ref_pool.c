/* Windows of tokens pooled into one row, and attention over two sets of keys. */
#include "kernels/reference/reference.h"

#include <math.h>

int ref_attention_merge(sw_stream *s, sw_tensor *out, sw_tensor *lse, const sw_tensor *other, const sw_tensor *other_lse)
{
    int64_t width = ref_width(out);
    assert(out->ndim == 3 && ref_same_shape(out, other) && ref_is_f32(lse) && ref_same_shape(lse, other_lse));
    assert(sw_numel(lse) == ref_rows(out));
    double *a = ref_scratch(s, 2 * width), *b = a + width;
    if (!a)
        return -1;
    for (int64_t r = 0; r < ref_rows(out); r++) {
        double first = ref_get(lse, r), second = ref_get(other_lse, r), top = fmax(first, second);
        double sum = top > -INFINITY ? exp(first - top) + exp(second - top) : 0;
        ref_load(a, out, r);
        ref_load(b, other, r);
        for (int64_t d = 0; d < width; d++)
            a[d] = sum > 0 ? (exp(first - top) * a[d] + exp(second - top) * b[d]) / sum : 0;
        ref_store(out, r, a, 0);
        ref_set(lse, r, sum > 0 ? top + log(sum) : -INFINITY);
    }
    return 0;
}

static void check(const sw_tensor *y, const sw_tensor *lse, const sw_tensor *x, const sw_tensor *gate, const sw_tensor *rows)
{
    assert(y->ndim == 2 && x->ndim == 2 && rows->ndim == 2 && rows->dtype == SW_I32 && rows->shape[0] == y->shape[0]);
    assert(ref_is_f32(gate) && ref_same_shape(gate, x) && ref_is_f32(lse) && ref_same_shape(lse, y));
    assert(x->shape[1] % y->shape[1] == 0 && rows->shape[1] % (x->shape[1] / y->shape[1]) == 0);
    (void)y, (void)lse, (void)x, (void)gate, (void)rows;
}

/* Where value d of slot j of entry e lies in x and its like, counted row by row; -1: nowhere. */
static int64_t value_of_slot(const sw_tensor *x, const sw_tensor *rows, int64_t width, int64_t e, int64_t j, int64_t d)
{
    int64_t slots = rows->shape[1], each = slots / (x->shape[1] / width), row = (int64_t)ref_get(rows, e * slots + j);
    assert(row < x->shape[0]);
    return row < 0 ? -1 : row * x->shape[1] + j / each * width + d;
}

int ref_pool_fwd(sw_stream *s, sw_tensor *y, sw_tensor *lse, const sw_tensor *x, const sw_tensor *gate, const sw_tensor *rows)
{
    int64_t width = y->shape[1];
    check(y, lse, x, gate, rows);
    (void)s;
    for (int64_t e = 0; e < y->shape[0]; e++)
        for (int64_t d = 0; d < width; d++) {
            double top = -INFINITY, total = 0, sum = 0;
            for (int64_t j = 0; j < rows->shape[1]; j++) {
                int64_t at = value_of_slot(x, rows, width, e, j, d);
                top = at >= 0 ? fmax(top, ref_get(gate, at)) : top;
            }
            for (int64_t j = 0; j < rows->shape[1]; j++) {
                int64_t at = value_of_slot(x, rows, width, e, j, d);
                double share = at >= 0 ? exp(ref_get(gate, at) - top) : 0;
                total += share;
                sum += at >= 0 ? share * ref_get(x, at) : 0;
            }
            ref_set(y, e * width + d, total > 0 ? sum / total : 0);
            ref_set(lse, e * width + d, total > 0 ? top + log(total) : -INFINITY);
        }
    return 0;
}

int ref_pool_bwd(sw_stream *s, sw_tensor *dx, sw_tensor *dgate, const sw_tensor *dy, const sw_tensor *y, const sw_tensor *lse,
                 const sw_tensor *x, const sw_tensor *gate, const sw_tensor *rows)
{
    int64_t width = y->shape[1];
    check(y, lse, x, gate, rows);
    assert(ref_same_shape(dx, x) && ref_same_shape(dgate, x) && ref_same_shape(dy, y));
    (void)s;
    for (int64_t e = 0; e < y->shape[0]; e++)
        for (int64_t j = 0; j < rows->shape[1]; j++)
            for (int64_t d = 0; d < width; d++) {
                int64_t at = value_of_slot(x, rows, width, e, j, d), to = e * width + d;
                if (at < 0)
                    continue;
                double share = exp(ref_get(gate, at) - ref_get(lse, to)), g = share * ref_get(dy, to);
                ref_set(dx, at, g);
                ref_set(dgate, at, g * (ref_get(x, at) - ref_get(y, to)));
            }
    return 0;
}
