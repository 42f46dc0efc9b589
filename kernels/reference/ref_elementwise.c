/* Filling, copying, arithmetic and sums. */
#include "kernels/reference/reference.h"

#include <math.h>
#include <string.h>

int ref_fill(sw_stream *s, sw_tensor *y, double value)
{
    (void)s;
    for (int64_t i = 0, n = sw_numel(y); i < n; i++)
        ref_set(y, i, value);
    return 0;
}

/* Between equal types bits move, not values: NaN payloads, large integers and 8-bit floats stay what they are. */
static void copy_bits(sw_tensor *y, const sw_tensor *x)
{
    size_t size = (size_t)sw_dtypes[y->dtype].bytes;
    for (int64_t i = 0, n = sw_numel(y); i < n; i++) {
        int64_t to = 0, from = 0, rest = i;
        for (int d = y->ndim - 1; d >= 0; d--) {
            to += rest % y->shape[d] * y->stride[d];
            from += rest % x->shape[d] * x->stride[d];
            rest /= y->shape[d];
        }
        memcpy((char *)y->data + (size_t)to * size, (const char *)x->data + (size_t)from * size, size);
    }
}

int ref_copy(sw_stream *s, sw_tensor *y, const sw_tensor *x)
{
    assert(ref_same_shape(y, x) && !sw_is_quantised(y->dtype));
    if (y->dtype == x->dtype) {
        copy_bits(y, x);
        return 0;
    }
    assert(sw_is_float(y->dtype));
    double *row = ref_scratch(s, ref_width(x));
    if (!row)
        return -1;
    for (int64_t r = 0; r < ref_rows(x); r++) {
        ref_load(row, x, r);
        ref_store(y, r, row, 0);
    }
    return 0;
}

int ref_axpby(sw_stream *s, sw_tensor *y, double alpha, const sw_tensor *x, double beta)
{
    assert(ref_same_shape(y, x));
    (void)s;
    for (int64_t i = 0, n = sw_numel(x); i < n; i++)
        ref_set(y, i, alpha * ref_get(x, i) + (beta != 0 ? beta * ref_get(y, i) : 0));
    return 0;
}

int ref_add(sw_stream *s, sw_tensor *y, const sw_tensor *a, const sw_tensor *b)
{
    assert(ref_same_shape(y, a) && ref_same_shape(y, b));
    (void)s;
    for (int64_t i = 0, n = sw_numel(y); i < n; i++)
        ref_set(y, i, ref_get(a, i) + ref_get(b, i));
    return 0;
}

int ref_mul(sw_stream *s, sw_tensor *y, const sw_tensor *a, const sw_tensor *b, int acc)
{
    int64_t width = ref_width(a);
    bool vector = b->ndim == 1 && a->ndim != 1;
    assert(ref_same_shape(y, a) && (vector ? b->shape[0] == width : ref_same_shape(a, b)));
    (void)s;
    for (int64_t i = 0, n = sw_numel(y); i < n; i++)
        ref_set(y, i, ref_get(a, i) * ref_get(b, vector ? i % width : i) + (acc ? ref_get(y, i) : 0));
    return 0;
}

int ref_sum_rows(sw_stream *s, sw_tensor *out, const sw_tensor *x, const sw_tensor *w)
{
    int64_t width = ref_width(x);
    assert(ref_is_f32(out) && sw_numel(out) == width && (!w || ref_same_shape(x, w)));
    double *sum = ref_scratch(s, 3 * width), *row = sum + width, *factor = row + width;
    if (!sum)
        return -1;
    for (int64_t i = 0; i < width; i++)
        sum[i] = 0;
    for (int64_t r = 0; r < ref_rows(x); r++) {
        ref_load(row, x, r);
        if (w)
            ref_load(factor, w, r);
        for (int64_t i = 0; i < width; i++)
            sum[i] += w ? row[i] * factor[i] : row[i];
    }
    for (int64_t i = 0; i < width; i++)
        ref_set(out, i, ref_get(out, i) + sum[i]);
    return 0;
}

int ref_sum_squares(sw_stream *s, sw_tensor *out, const sw_tensor *x)
{
    assert(out->dtype == SW_F64 && sw_is_dense(x));
    (void)s;
    double sum = 0;
    for (int64_t i = 0, n = sw_numel(x); i < n; i++)
        sum += ref_get(x, i) * ref_get(x, i);
    *(double *)out->data = sum;
    return 0;
}

int ref_find_nonfinite(sw_stream *s, sw_tensor *out, const sw_tensor *x)
{
    assert(out->dtype == SW_I64 && sw_is_dense(x));
    (void)s;
    int64_t i = 0, n = sw_numel(x);
    while (i < n && isfinite(ref_get(x, i)))
        i++;
    *(int64_t *)out->data = i < n ? i : -1;
    return 0;
}

int ref_dropout(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *keys, double p, const sw_rng *rng, int acc)
{
    assert(ref_same_shape(y, x) && x->ndim == 2 && p >= 0 && p <= 1);
    assert(!keys || (keys->dtype == SW_I64 && keys->shape[0] == x->shape[0]));
    (void)s;
    int64_t width = x->shape[1];
    for (int64_t i = 0, n = sw_numel(x); i < n; i++) {
        int64_t row = i / width, c = i % width, key = keys ? ((const int64_t *)keys->data)[row] : row;
        sw_rng own = sw_rng_row(rng, key);
        double kept = sw_rng_uniform(&own, sw_rng_row_block(key, (uint64_t)c / 4) * 4 + (uint64_t)c % 4) >= p ? ref_get(x, i) / (1 - p) : 0;
        ref_set(y, i, kept + (acc ? ref_get(y, i) : 0));
    }
    return 0;
}
