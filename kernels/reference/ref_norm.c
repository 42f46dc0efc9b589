/* RMSNorm (Zhang and Sennrich 2019) and LayerNorm (Ba et al. 2016) over the last dimension. */
#include "kernels/reference/reference.h"

#include <math.h>

/* What multiplies normalised value i: 1 without weights, whatever the offset. */
static double factor(const sw_tensor *w, double offset, int64_t i) { return w ? offset + ref_get(w, i) : 1; }

static void check(const sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *stats)
{
    assert(ref_same_shape(y, x));
    assert(!w || (w->ndim == 1 && w->shape[0] == ref_width(x)));
    assert(!stats || (ref_is_f32(stats) && sw_numel(stats) == ref_rows(x)));
    (void)y, (void)x, (void)w, (void)stats;
}

int ref_rmsnorm_fwd(sw_stream *s, sw_tensor *y, sw_tensor *rstd, const sw_tensor *x, const sw_tensor *w, double eps,
                    double offset)
{
    int64_t width = ref_width(x);
    check(y, x, w, rstd);
    double *row = ref_scratch(s, width);
    if (!row)
        return -1;
    for (int64_t r = 0; r < ref_rows(x); r++) {
        double sum = 0;
        ref_load(row, x, r);
        for (int64_t i = 0; i < width; i++)
            sum += row[i] * row[i];
        double inverse = 1 / sqrt(sum / (double)width + eps);
        for (int64_t i = 0; i < width; i++)
            row[i] *= inverse * factor(w, offset, i);
        ref_store(y, r, row, 0);
        if (rstd)
            ref_set(rstd, r, inverse);
    }
    return 0;
}

/* With n = x rstd and g = dy (offset + w): dx = rstd (g - n mean(g n)), dw += dy n. */
int ref_rmsnorm_bwd(sw_stream *s, sw_tensor *dx, sw_tensor *dw, const sw_tensor *dy, const sw_tensor *x,
                    const sw_tensor *w, const sw_tensor *rstd, double offset, int acc)
{
    int64_t width = ref_width(x);
    check(dy, x, w, rstd);
    assert((!dx || ref_same_shape(dx, x)) && (!dw || (ref_is_f32(dw) && sw_numel(dw) == width)));
    double *n = ref_scratch(s, 3 * width), *g = n + width, *sum = g + width;
    if (!n)
        return -1;
    for (int64_t i = 0; i < width; i++)
        sum[i] = 0;
    for (int64_t r = 0; r < ref_rows(x); r++) {
        double inverse = ref_get(rstd, r), dot = 0;
        ref_load(n, x, r);
        ref_load(g, dy, r);
        for (int64_t i = 0; i < width; i++) {
            n[i] *= inverse;
            sum[i] += g[i] * n[i];
            g[i] *= factor(w, offset, i);
            dot += g[i] * n[i];
        }
        for (int64_t i = 0; i < width; i++)
            g[i] = inverse * (g[i] - n[i] * dot / (double)width);
        if (dx)
            ref_store(dx, r, g, acc);
    }
    for (int64_t i = 0; dw && i < width; i++)
        ref_set(dw, i, ref_get(dw, i) + sum[i]);
    return 0;
}

int ref_layernorm_fwd(sw_stream *s, sw_tensor *y, sw_tensor *mean, sw_tensor *rstd, const sw_tensor *x,
                      const sw_tensor *w, const sw_tensor *b, double eps, double offset)
{
    int64_t width = ref_width(x);
    check(y, x, w, rstd);
    check(y, x, b, mean);
    double *row = ref_scratch(s, width);
    if (!row)
        return -1;
    for (int64_t r = 0; r < ref_rows(x); r++) {
        double sum = 0, squares = 0;
        ref_load(row, x, r);
        for (int64_t i = 0; i < width; i++)
            sum += row[i];
        double centre = sum / (double)width;
        for (int64_t i = 0; i < width; i++) {
            row[i] -= centre;
            squares += row[i] * row[i];
        }
        double inverse = 1 / sqrt(squares / (double)width + eps);
        for (int64_t i = 0; i < width; i++)
            row[i] = row[i] * inverse * factor(w, offset, i) + (b ? ref_get(b, i) : 0);
        ref_store(y, r, row, 0);
        if (mean)
            ref_set(mean, r, centre);
        if (rstd)
            ref_set(rstd, r, inverse);
    }
    return 0;
}

/* With n = (x - mean) rstd and g = dy (offset + w): dx = rstd (g - mean(g) - n mean(g n)), dw += dy n, db += dy. */
int ref_layernorm_bwd(sw_stream *s, sw_tensor *dx, sw_tensor *dw, sw_tensor *db, const sw_tensor *dy,
                      const sw_tensor *x, const sw_tensor *w, const sw_tensor *mean, const sw_tensor *rstd,
                      double offset, int acc)
{
    int64_t width = ref_width(x);
    check(dy, x, w, rstd);
    check(dy, x, NULL, mean);
    assert((!dx || ref_same_shape(dx, x)) && (!dw || (ref_is_f32(dw) && sw_numel(dw) == width)) &&
           (!db || (ref_is_f32(db) && sw_numel(db) == width)));
    double *n = ref_scratch(s, 4 * width), *g = n + width, *sum = g + width, *bias = sum + width;
    if (!n)
        return -1;
    for (int64_t i = 0; i < width; i++)
        sum[i] = bias[i] = 0;
    for (int64_t r = 0; r < ref_rows(x); r++) {
        double centre = ref_get(mean, r), inverse = ref_get(rstd, r), dot = 0, total = 0;
        ref_load(n, x, r);
        ref_load(g, dy, r);
        for (int64_t i = 0; i < width; i++) {
            n[i] = (n[i] - centre) * inverse;
            sum[i] += g[i] * n[i];
            bias[i] += g[i];
            g[i] *= factor(w, offset, i);
            dot += g[i] * n[i];
            total += g[i];
        }
        for (int64_t i = 0; i < width; i++)
            g[i] = inverse * (g[i] - (total + n[i] * dot) / (double)width);
        if (dx)
            ref_store(dx, r, g, acc);
    }
    for (int64_t i = 0; dw && i < width; i++)
        ref_set(dw, i, ref_get(dw, i) + sum[i]);
    for (int64_t i = 0; db && i < width; i++)
        ref_set(db, i, ref_get(db, i) + bias[i]);
    return 0;
}
