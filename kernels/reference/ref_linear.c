/* Matrix products: x [N, I], y [N, O], w [O, I]. */
#include "kernels/reference/reference.h"

static void check(const sw_tensor *x, const sw_tensor *y, const sw_tensor *w)
{
    assert(x->ndim == 2 && y->ndim == 2 && w->ndim == 2);
    assert(x->shape[0] == y->shape[0] && x->shape[1] == w->shape[1] && y->shape[1] == w->shape[0]);
    (void)x, (void)y, (void)w;
}

/* A whole matrix as dense rows of doubles, so that a value is converted once. */
static void load_all(double *to, const sw_tensor *t)
{
    for (int64_t r = 0; r < t->shape[0]; r++)
        ref_load(to + r * t->shape[1], t, r);
}

int ref_linear_fwd(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias,
                   double alpha, double beta)
{
    int64_t rows = x->shape[0], in = x->shape[1], out = w->shape[0];
    check(x, y, w);
    assert(!bias || sw_numel(bias) == out);
    double *xs = ref_scratch(s, rows * in + in), *column = xs + rows * in;
    if (!xs)
        return -1;
    load_all(xs, x);
    for (int64_t o = 0; o < out; o++) {
        ref_load(column, w, o);
        double add = bias ? ref_get(bias, o) : 0;
        for (int64_t r = 0; r < rows; r++) {
            double sum = 0;
            for (int64_t i = 0; i < in; i++)
                sum += xs[r * in + i] * column[i];
            ref_set(y, r * out + o, alpha * sum + add + (beta != 0 ? beta * ref_get(y, r * out + o) : 0));
        }
    }
    return 0;
}

int ref_linear_act_fwd(sw_stream *s, sw_tensor *y, sw_tensor *before, const sw_tensor *x, const sw_tensor *w,
                       const sw_tensor *bias, int kind)
{
    sw_tensor *z = before ? before : y;
    return ref_linear_fwd(s, z, x, w, bias, 1, 0) || ref_act_fwd(s, y, z, kind) ? -1 : 0;
}

int ref_linear_bwd_x(sw_stream *s, sw_tensor *dx, const sw_tensor *dy, const sw_tensor *w, double alpha, double beta)
{
    int64_t rows = dx->shape[0], in = dx->shape[1], out = w->shape[0];
    check(dx, dy, w);
    double *sum = ref_scratch(s, rows * in + in + rows * out), *dys = sum + rows * in, *column = dys + rows * out;
    if (!sum)
        return -1;
    load_all(dys, dy);
    for (int64_t i = 0; i < rows * in; i++)
        sum[i] = 0;
    for (int64_t o = 0; o < out; o++) {
        ref_load(column, w, o);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < in; i++)
                sum[r * in + i] += dys[r * out + o] * column[i];
    }
    for (int64_t i = 0; i < rows * in; i++)
        ref_set(dx, i, alpha * sum[i] + (beta != 0 ? beta * ref_get(dx, i) : 0));
    return 0;
}

int ref_linear_bwd_w(sw_stream *s, sw_tensor *dw, const sw_tensor *dy, const sw_tensor *x, double alpha)
{
    int64_t rows = x->shape[0], in = x->shape[1], out = dw->shape[0];
    check(x, dy, dw);
    assert(ref_is_f32(dw));
    double *xs = ref_scratch(s, rows * in + in), *sum = xs + rows * in;
    if (!xs)
        return -1;
    load_all(xs, x);
    for (int64_t o = 0; o < out; o++) {
        for (int64_t i = 0; i < in; i++)
            sum[i] = 0;
        for (int64_t r = 0; r < rows; r++) {
            double g = alpha * ref_get(dy, r * out + o);
            for (int64_t i = 0; i < in; i++)
                sum[i] += g * xs[r * in + i];
        }
        ref_store(dw, o, sum, 1);
    }
    return 0;
}

int ref_linear_heads(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, int across, double alpha, double beta)
{
    int64_t rows = x->shape[0], heads = x->shape[1], in = x->shape[2], out = y->shape[2], n = w->shape[1], width = w->shape[2];
    assert(y->shape[0] == rows && y->shape[1] == heads && w->shape[0] == heads && (across ? n == in && width == out : n == out && width == in));
    double *sum = ref_scratch(s, out + in + width), *xs = sum + out, *line = xs + in;
    if (!sum)
        return -1;
    for (int64_t r = 0; r < rows * heads; r++) {
        ref_load(xs, x, r);
        for (int64_t o = 0; o < out; o++)
            sum[o] = 0;
        for (int64_t k = 0; k < n; k++) {
            ref_load(line, w, r % heads * n + k);
            for (int64_t i = 0; i < width; i++)
                sum[across ? i : k] += xs[across ? k : i] * line[i];
        }
        for (int64_t o = 0; o < out; o++)
            ref_set(y, r * out + o, alpha * sum[o] + (beta != 0 ? beta * ref_get(y, r * out + o) : 0));
    }
    return 0;
}
