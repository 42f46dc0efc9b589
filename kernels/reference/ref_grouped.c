/* Products of rows in groups: those of ref_linear.c, a group at a time. */
#include "kernels/reference/reference.h"

#include <string.h>

/* Rows of group g; those of none for g == count. */
static sw_tensor rows_of(const sw_tensor *t, const sw_tensor *start, int64_t g, int64_t count)
{
    int64_t first = (int64_t)ref_get(start, g), last = g < count ? (int64_t)ref_get(start, g + 1) : t->shape[0];
    assert(sw_numel(start) == count + 1 && first <= last && last <= t->shape[0]);
    return sw_row_view(t, first, last - first);
}

/* y = beta y */
static int no_product(sw_stream *s, sw_tensor *y, double beta)
{
    return beta == 0 ? ref_fill(s, y, 0) : ref_axpby(s, y, 0, y, beta);
}

int ref_grouped_fwd(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_matrices *w, const sw_tensor *bias,
                    const sw_tensor *start, double alpha, double beta)
{
    for (int64_t g = 0; g <= w->count; g++) {
        sw_tensor out = rows_of(y, start, g, w->count), in = rows_of(x, start, g, w->count);
        if (g == w->count)
            return no_product(s, &out, beta);
        sw_tensor m = sw_matrix(w, g), add = bias ? sw_row_view(bias, g, 1) : m;
        if (ref_linear_fwd(s, &out, &in, &m, bias ? &add : NULL, alpha, beta))
            return -1;
    }
    return 0;
}

int ref_grouped_bwd_x(sw_stream *s, sw_tensor *dx, const sw_tensor *dy, const sw_matrices *w, const sw_tensor *start,
                      double alpha, double beta)
{
    for (int64_t g = 0; g <= w->count; g++) {
        sw_tensor out = rows_of(dx, start, g, w->count), in = rows_of(dy, start, g, w->count),
                  m = sw_matrix(w, g < w->count ? g : 0);
        if (g == w->count)
            return no_product(s, &out, beta);
        if (ref_linear_bwd_x(s, &out, &in, &m, alpha, beta))
            return -1;
    }
    return 0;
}

int ref_grouped_bwd_w(sw_stream *s, const sw_matrices *dw, const sw_tensor *dy, const sw_tensor *x, const sw_tensor *start,
                      double alpha)
{
    for (int64_t g = 0; g < dw->count; g++) {
        sw_tensor m = sw_matrix(dw, g), d = rows_of(dy, start, g, dw->count), in = rows_of(x, start, g, dw->count);
        if (ref_linear_bwd_w(s, &m, &d, &in, alpha))
            return -1;
    }
    return 0;
}

int ref_grouped_sum(sw_stream *s, sw_tensor *out, const sw_tensor *x, const sw_tensor *start)
{
    int64_t count = out->shape[0], width = out->shape[1];
    double *sum = ref_scratch(s, 2 * width), *row = sum + width;
    if (!sum)
        return -1;
    for (int64_t g = 0; g < count; g++) {
        memset(sum, 0, (size_t)width * sizeof *sum);
        for (int64_t r = (int64_t)ref_get(start, g); r < (int64_t)ref_get(start, g + 1); r++) {
            ref_load(row, x, r);
            for (int64_t c = 0; c < width; c++)
                sum[c] += row[c];
        }
        ref_store(out, g, sum, 1);
    }
    return 0;
}
