/* Hidden states of several streams: the matrices that mix them, and the mixing. */
#include "kernels/reference/reference.h"

#include <math.h>

static int64_t side_of(const sw_tensor *x)
{
    int64_t side = 1;
    while (side * side < x->shape[1])
        side++;
    assert(x->ndim == 2 && side * side == x->shape[1] && side <= SW_MOST_STREAMS && ref_is_f32(x));
    return side;
}

/* Line i of a matrix of side S, a row or a column: where its value k is. */
static int64_t at(int64_t side, bool columns, int64_t i, int64_t k) { return columns ? k * side + i : i * side + k; }

int ref_sinkhorn_fwd(sw_stream *s, sw_tensor *y, sw_tensor *divisors, const sw_tensor *x, int rounds, double eps)
{
    int64_t side = side_of(x), steps = 2 * rounds - 1;
    assert(ref_same_shape(y, x) && rounds >= 1 && (!divisors || (divisors->shape[1] == steps * side && ref_is_f32(divisors))));
    (void)s;
    for (int64_t n = 0; n < x->shape[0]; n++) {
        double m[SW_MOST_STREAMS * SW_MOST_STREAMS];
        ref_load(m, x, n);
        for (int64_t i = 0; i < side; i++) {
            double top = -INFINITY, sum = 0;
            for (int64_t k = 0; k < side; k++)
                top = fmax(top, m[i * side + k]);
            for (int64_t k = 0; k < side; k++)
                sum += m[i * side + k] = exp(m[i * side + k] - top);
            for (int64_t k = 0; k < side; k++)
                m[i * side + k] = m[i * side + k] / sum + eps;
        }
        for (int64_t step = 0; step < steps; step++)
            for (int64_t i = 0; i < side; i++) {
                double sum = eps;
                for (int64_t k = 0; k < side; k++)
                    sum += m[at(side, step % 2 == 0, i, k)];
                for (int64_t k = 0; k < side; k++)
                    m[at(side, step % 2 == 0, i, k)] /= sum;
                if (divisors)
                    ref_set(divisors, (n * steps + step) * side + i, sum);
            }
        ref_store(y, n, m, 0);
    }
    return 0;
}

/* Of y = x / (sum of x + eps): dx = (dy - <dy, y>) / (sum of x + eps), and x = y times that. */
int ref_sinkhorn_bwd(sw_stream *s, sw_tensor *dx, const sw_tensor *dy, const sw_tensor *y, const sw_tensor *divisors, int rounds,
                     double eps)
{
    int64_t side = side_of(y), steps = 2 * rounds - 1;
    assert(ref_same_shape(dx, y) && ref_same_shape(dy, y) && divisors->shape[1] == steps * side);
    (void)s;
    for (int64_t n = 0; n < y->shape[0]; n++) {
        double m[SW_MOST_STREAMS * SW_MOST_STREAMS], g[SW_MOST_STREAMS * SW_MOST_STREAMS];
        ref_load(m, y, n);
        ref_load(g, dy, n);
        for (int64_t step = steps - 1; step >= 0; step--)
            for (int64_t i = 0; i < side; i++) {
                double sum = ref_get(divisors, (n * steps + step) * side + i), dot = 0;
                for (int64_t k = 0; k < side; k++)
                    dot += g[at(side, step % 2 == 0, i, k)] * m[at(side, step % 2 == 0, i, k)];
                for (int64_t k = 0; k < side; k++) {
                    g[at(side, step % 2 == 0, i, k)] = (g[at(side, step % 2 == 0, i, k)] - dot) / sum;
                    m[at(side, step % 2 == 0, i, k)] *= sum;
                }
            }
        for (int64_t i = 0; i < side; i++) {
            double dot = 0;
            for (int64_t k = 0; k < side; k++)
                dot += g[i * side + k] * (m[i * side + k] - eps);
            for (int64_t k = 0; k < side; k++)
                g[i * side + k] = (m[i * side + k] - eps) * (g[i * side + k] - dot);
        }
        ref_store(dx, n, g, 0);
    }
    return 0;
}

static double weight(const sw_tensor *w, int64_t n, int64_t j, int64_t k)
{
    return sw_scalar_get(w->data, w->dtype, n * w->stride[0] + j * w->stride[1] + k * w->stride[2]);
}

static void check(const sw_tensor *w, const sw_tensor *x, const sw_tensor *y)
{
    assert(w->ndim == 3 && x->ndim == 3 && y->ndim == 3 && ref_is_f32(w) && x->dtype == y->dtype);
    assert(w->shape[0] == x->shape[0] && w->shape[0] == y->shape[0] && w->shape[1] == x->shape[1] && w->shape[2] == y->shape[1]);
    assert(x->shape[2] == y->shape[2] && w->shape[1] <= SW_MOST_STREAMS && w->shape[2] <= SW_MOST_STREAMS);
    (void)w, (void)x, (void)y;
}

int ref_mix_streams(sw_stream *s, sw_tensor *y, const sw_tensor *w, const sw_tensor *x, int acc)
{
    int64_t width = x->shape[2], from = w->shape[1], to = w->shape[2];
    check(w, x, y);
    double *row = ref_scratch(s, 2 * width), *sum = row + width;
    if (!row)
        return -1;
    for (int64_t n = 0; n < y->shape[0]; n++)
        for (int64_t k = 0; k < to; k++) {
            for (int64_t d = 0; d < width; d++)
                sum[d] = 0;
            for (int64_t j = 0; j < from; j++) {
                ref_load(row, x, n * from + j);
                for (int64_t d = 0; d < width; d++)
                    sum[d] += weight(w, n, j, k) * row[d];
            }
            ref_store(y, n * to + k, sum, acc);
        }
    return 0;
}

int ref_mix_streams_bwd_w(sw_stream *s, sw_tensor *dw, const sw_tensor *dy, const sw_tensor *x)
{
    int64_t width = x->shape[2], from = dw->shape[1], to = dw->shape[2];
    check(dw, x, dy);
    double *a = ref_scratch(s, 2 * width), *b = a + width;
    if (!a)
        return -1;
    for (int64_t n = 0; n < x->shape[0]; n++)
        for (int64_t j = 0; j < from; j++)
            for (int64_t k = 0; k < to; k++) {
                double dot = 0;
                ref_load(a, x, n * from + j);
                ref_load(b, dy, n * to + k);
                for (int64_t d = 0; d < width; d++)
                    dot += a[d] * b[d];
                sw_scalar_set(dw->data, dw->dtype, n * dw->stride[0] + j * dw->stride[1] + k * dw->stride[2], dot);
            }
    return 0;
}
