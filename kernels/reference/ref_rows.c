/* Rotary positions (Su et al. 2021) and rows by index. */
#include "kernels/reference/reference.h"

#include <math.h>

/* The angle is rounded to f32 before its cosine is taken: at place 100,000 that moves it by up to 0.004, and
 * models have been trained with it. */
int ref_rope_table(sw_stream *s, sw_tensor *cos_, sw_tensor *sin_, const sw_tensor *positions,
                   const sw_tensor *inv_freq, double scale)
{
    int64_t n = sw_numel(positions), half = sw_numel(inv_freq);
    assert(positions->dtype == SW_I32 && ref_is_f32(inv_freq) && ref_same_shape(cos_, sin_));
    assert(cos_->shape[0] == n && cos_->shape[1] == half);
    (void)s;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < half; j++) {
            float angle = (float)ref_get(positions, i) * (float)ref_get(inv_freq, j);
            ref_set(cos_, i * half + j, cos((double)angle) * scale);
            ref_set(sin_, i * half + j, sin((double)angle) * scale);
        }
    return 0;
}

int ref_rope(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *cos_, const sw_tensor *sin_, int mode,
             int inverse)
{
    int64_t heads = x->shape[1], width = x->shape[2], half = cos_->shape[1];
    assert(x->ndim == 3 && ref_same_shape(y, x) && ref_same_shape(cos_, sin_) && cos_->shape[0] == x->shape[0] &&
           2 * half <= width);
    double *row = ref_scratch(s, width);
    if (!row)
        return -1;
    for (int64_t r = 0; r < x->shape[0] * heads; r++) {
        ref_load(row, x, r);
        for (int64_t i = 0; i < half; i++) {
            int64_t first = mode == SW_ROPE_HALF ? i : 2 * i, second = mode == SW_ROPE_HALF ? i + half : 2 * i + 1;
            double a = row[first], b = row[second], c = ref_get(cos_, r / heads * half + i),
                   d = ref_get(sin_, r / heads * half + i);
            if (inverse)
                d = -d;
            row[first] = a * c - b * d;
            row[second] = b * c + a * d;
        }
        ref_store(y, r, row, 0);
    }
    return 0;
}

int ref_embedding_fwd(sw_stream *s, sw_tensor *y, const sw_tensor *w, const sw_tensor *ids, double scale)
{
    int64_t width = w->shape[1];
    assert(w->ndim == 2 && y->ndim == 2 && y->shape[1] == width && y->shape[0] == sw_numel(ids) &&
           ids->dtype == SW_I32);
    double *row = ref_scratch(s, width);
    if (!row)
        return -1;
    for (int64_t n = 0; n < y->shape[0]; n++) {
        int64_t id = (int64_t)ref_get(ids, n);
        assert(id >= 0 && id < w->shape[0]);
        ref_load(row, w, id);
        for (int64_t i = 0; i < width; i++)
            row[i] *= scale;
        ref_store(y, n, row, 0);
    }
    return 0;
}

/* All rows of an id are summed where it first comes. */
int ref_embedding_bwd(sw_stream *s, sw_tensor *dw, const sw_tensor *dy, const sw_tensor *ids, double scale)
{
    int64_t width = dw->shape[1], rows = sw_numel(ids);
    assert(ref_is_f32(dw) && dy->shape[1] == width && dy->shape[0] == rows && ids->dtype == SW_I32);
    double *sum = ref_scratch(s, 2 * width), *row = sum + width;
    if (!sum)
        return -1;
    for (int64_t n = 0; n < rows; n++) {
        int64_t id = (int64_t)ref_get(ids, n), first = 0;
        assert(id >= 0 && id < dw->shape[0]);
        while ((int64_t)ref_get(ids, first) != id)
            first++;
        if (first < n)
            continue;
        for (int64_t i = 0; i < width; i++)
            sum[i] = 0;
        for (int64_t m = n; m < rows; m++) {
            if ((int64_t)ref_get(ids, m) != id)
                continue;
            ref_load(row, dy, m);
            for (int64_t i = 0; i < width; i++)
                sum[i] += scale * row[i];
        }
        ref_store(dw, id, sum, 1);
    }
    return 0;
}

static void check_rows(const sw_tensor *y, const sw_tensor *x, const sw_tensor *ids, const sw_tensor *counted)
{
    assert(y->ndim == x->ndim && y->ndim >= 1 && ids->dtype == SW_I32 && sw_numel(ids) == counted->shape[0]);
    for (int d = 1; d < y->ndim; d++)
        assert(y->shape[d] == x->shape[d]);
    (void)y, (void)x, (void)ids, (void)counted;
}

int ref_gather_rows(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *ids)
{
    check_rows(y, x, ids, y);
    double *row = ref_scratch(s, ref_width(x));
    if (!row)
        return -1;
    for (int64_t n = 0; n < y->shape[0]; n++) {
        int64_t id = (int64_t)ref_get(ids, n);
        sw_tensor to = sw_row_view(y, n, 1), from = id >= 0 ? sw_row_view(x, id, 1) : to;
        assert(id < x->shape[0]);
        if (id < 0)
            ref_fill(s, &to, 0);
        for (int64_t r = 0; id >= 0 && r < ref_rows(&to); r++) {
            ref_load(row, &from, r);
            ref_store(&to, r, row, 0);
        }
    }
    return 0;
}

int ref_scatter_rows(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *ids, int acc)
{
    check_rows(y, x, ids, x);
    double *row = ref_scratch(s, ref_width(x));
    if (!row)
        return -1;
    for (int64_t n = 0; n < x->shape[0]; n++) {
        int64_t id = (int64_t)ref_get(ids, n);
        if (id < 0)
            continue;
        assert(id < y->shape[0]);
        sw_tensor to = sw_row_view(y, id, 1), from = sw_row_view(x, n, 1);
        for (int64_t r = 0; r < ref_rows(&to); r++) {
            ref_load(row, &from, r);
            ref_store(&to, r, row, acc);
        }
    }
    return 0;
}

int ref_paged_rows(sw_stream *s, sw_tensor *rows, const sw_tensor *seqs, const sw_paging *paging)
{
    int64_t at = 0;
    (void)s;
    for (int64_t b = 0; b < seqs->shape[0]; b++)
        for (int64_t j = 0; j < (int64_t)ref_get(seqs, 4 * b + 3); j++)
            ref_set(rows, at++, (double)sw_paged(paging, (int64_t)ref_get(seqs, 4 * b + 2) + j));
    assert(at == sw_numel(rows));
    return 0;
}
