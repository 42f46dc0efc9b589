/* Products of rows in groups (mixtures of experts): those of cpu_linear.c, a group at a time, for the groups that have rows. A
 * group gives the same bits as if it were alone. */
#include "cpu_isa.h"
#include "cpu_linear.h"

typedef struct group {
    int64_t index, first, n; /* index == count: rows of no group */
} group;

/* The next group with rows after g (whose index is -1 before the first); false when there is none. */
static bool next_group(group *g, const sw_tensor *start, int64_t rows)
{
    const int32_t *at = start->data;
    int64_t count = sw_numel(start) - 1;
    while (++g->index <= count) {
        g->first = at[g->index];
        g->n = (g->index < count ? at[g->index + 1] : rows) - g->first;
        if (g->n)
            return true;
    }
    return false;
}

/* y = beta y */
static int no_product(sw_stream *s, sw_tensor *y, double beta)
{
    return beta == 0 ? SW_CPU(fill)(s, y, 0) : SW_CPU(axpby)(s, y, 0, y, beta);
}

typedef int forward(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, double alpha,
                    double beta);

static int grouped(forward *product, sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_matrices *w, const sw_tensor *bias,
                   const sw_tensor *start, double alpha, double beta)
{
    for (group g = {.index = -1}; next_group(&g, start, x->shape[0]);) {
        sw_tensor out = sw_row_view(y, g.first, g.n), in = sw_row_view(x, g.first, g.n);
        if (g.index == w->count)
            return no_product(s, &out, beta);
        sw_tensor m = sw_matrix(w, g.index), add = m;
        if (bias)
            add = sw_tensor_of(sw_at(bias, g.index * bias->stride[0]), bias->dtype, 1, &bias->shape[1]);
        if (product(s, &out, &in, &m, bias ? &add : NULL, alpha, beta))
            return -1;
    }
    return 0;
}

int SW_CPU(grouped_fwd)(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_matrices *w, const sw_tensor *bias,
                        const sw_tensor *start, double alpha, double beta)
{
    return grouped(SW_CPU(linear_fwd), s, y, x, w, bias, start, alpha, beta);
}

int SW_CPU(grouped_rounded)(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_matrices *w, const sw_tensor *bias,
                            const sw_tensor *start, double alpha, double beta)
{
    return grouped(SW_CPU(linear_rounded), s, y, x, w, bias, start, alpha, beta);
}

int SW_CPU(grouped_bwd_x)(sw_stream *s, sw_tensor *dx, const sw_tensor *dy, const sw_matrices *w, const sw_tensor *start,
                          double alpha, double beta)
{
    for (group g = {.index = -1}; next_group(&g, start, dx->shape[0]);) {
        sw_tensor out = sw_row_view(dx, g.first, g.n), in = sw_row_view(dy, g.first, g.n);
        if (g.index == w->count)
            return no_product(s, &out, beta);
        sw_tensor m = sw_matrix(w, g.index);
        if (SW_CPU(linear_bwd_x)(s, &out, &in, &m, alpha, beta))
            return -1;
    }
    return 0;
}

int SW_CPU(grouped_bwd_w)(sw_stream *s, const sw_matrices *dw, const sw_tensor *dy, const sw_tensor *x, const sw_tensor *start,
                          double alpha)
{
    for (group g = {.index = -1}; next_group(&g, start, x->shape[0]) && g.index < dw->count;) {
        sw_tensor m = sw_matrix(dw, g.index), d = sw_row_view(dy, g.first, g.n), in = sw_row_view(x, g.first, g.n);
        if (SW_CPU(linear_bwd_w)(s, &m, &d, &in, alpha))
            return -1;
    }
    return 0;
}

int SW_CPU(grouped_sum)(sw_stream *s, sw_tensor *out, const sw_tensor *x, const sw_tensor *start)
{
    for (group g = {.index = -1}; next_group(&g, start, x->shape[0]) && g.index < out->shape[0];) {
        sw_tensor to = sw_tensor_of(sw_at(out, g.index * out->stride[0]), SW_F32, 1, &out->shape[1]),
                  in = sw_row_view(x, g.first, g.n);
        if (SW_CPU(sum_rows)(s, &to, &in, NULL))
            return -1;
    }
    return 0;
}
