/* Rotary positions, and rows by index. */
#include "cpu_isa.h"

#include "base/memory.h"

#include <math.h>

int SW_CPU(rope_table)(sw_stream *s, sw_tensor *cos_, sw_tensor *sin_, const sw_tensor *positions, const sw_tensor *inv_freq,
                       double scale)
{
    (void)s;
    int64_t n = sw_numel(positions), half = sw_numel(inv_freq);
    const int32_t *at = positions->data;
    const float *freq = inv_freq->data;
#pragma omp parallel for schedule(static) if (n * half >= SW_PARALLEL / 16)
    for (int64_t i = 0; i < n; i++) {
        float *c = sw_at(cos_, sw_row_at(cos_, i)), *d = sw_at(sin_, sw_row_at(sin_, i));
        for (int64_t k = 0; k < half; k++) {
            float angle = (float)at[i] * freq[k];
            c[k] = cosf(angle) * (float)scale;
            d[k] = sinf(angle) * (float)scale;
        }
    }
    return 0;
}

static void rotate(float *restrict y, const float *restrict x, const float *restrict c, const float *restrict d, int64_t half,
                   int mode)
{
    if (mode == SW_ROPE_HALF) {
        for (int64_t i = 0; i < half; i++) {
            y[i] = x[i] * c[i] - x[i + half] * d[i];
            y[i + half] = x[i + half] * c[i] + x[i] * d[i];
        }
    } else {
        for (int64_t i = 0; i < half; i++) {
            y[2 * i] = x[2 * i] * c[i] - x[2 * i + 1] * d[i];
            y[2 * i + 1] = x[2 * i + 1] * c[i] + x[2 * i] * d[i];
        }
    }
}

int SW_CPU(rope)(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *cos_, const sw_tensor *sin_, int mode,
                 int inverse)
{
    int64_t n = y->shape[0], heads = y->shape[1], width = y->shape[2], half = cos_->shape[1];
    if (!sw_numel(y))
        return 0;
    size_t each = (size_t)(2 * width + half) * sizeof(float);
    char *space = sw_thread_space(s, &each);
    if (!space)
        return -1;
#pragma omp parallel for schedule(static) if (n * heads * width >= SW_PARALLEL)
    for (int64_t i = 0; i < n; i++) {
        float *buf = (float *)(void *)(space + (size_t)omp_get_thread_num() * each), *out = buf + width, *back = out + width;
        const float *c = sw_at(cos_, sw_row_at(cos_, i)), *d = sw_at(sin_, sw_row_at(sin_, i));
        if (inverse) {
            for (int64_t k = 0; k < half; k++)
                back[k] = -d[k];
            d = back;
        }
        for (int64_t h = 0; h < heads; h++) {
            const float *from = sw_load(sw_at(x, i * x->stride[0] + h * x->stride[1]), x->dtype, width, buf);
            rotate(out, from, c, d, half, mode);
            memcpy(out + 2 * half, from + 2 * half, (size_t)(width - 2 * half) * sizeof *out);
            sw_store(sw_at(y, i * y->stride[0] + h * y->stride[1]), y->dtype, width, out);
        }
    }
    return 0;
}

/* A quantised row is read in runs of whole blocks: SW_RUN is a multiple of every block size. */
int SW_CPU(embedding_fwd)(sw_stream *s, sw_tensor *y, const sw_tensor *w, const sw_tensor *ids, double scale)
{
    (void)s;
    sw_runs r = sw_cut(y, false);
    const int32_t *id = ids->data;
#pragma omp parallel for schedule(static) if (r.values >= SW_PARALLEL)
    for (int64_t i = 0; i < r.count; i++) {
        float buf[SW_RUN], out[SW_RUN];
        int64_t n = sw_run_length(&r, i), row = id[i / r.per_row];
        const float *from = sw_load_any(w, row * w->stride[0] + sw_run_column(&r, i), n, buf);
        for (int64_t j = 0; j < n; j++)
            out[j] = from[j] * (float)scale;
        sw_run_store(&r, y, i, out);
    }
    return 0;
}

enum { COLUMNS = 64 }; /* columns a task: every task goes through all rows in order */

int SW_CPU(embedding_bwd)(sw_stream *s, sw_tensor *dw, const sw_tensor *dy, const sw_tensor *ids, double scale)
{
    (void)s;
    int64_t n = sw_numel(ids), width = sw_width(dw);
    const int32_t *id = ids->data;
#pragma omp parallel for schedule(static) if (n * width >= SW_PARALLEL)
    for (int64_t c = 0; c < width; c += COLUMNS)
        for (int64_t i = 0; i < n; i++) {
            float buf[COLUMNS];
            int64_t m = SW_MIN(COLUMNS, width - c);
            const float *from = sw_load(sw_at(dy, sw_row_at(dy, i) + c), dy->dtype, m, buf);
            float *to = sw_at(dw, id[i] * dw->stride[0] + c);
            for (int64_t j = 0; j < m; j++)
                to[j] += (float)scale * from[j];
        }
    return 0;
}

/* One row of the first dimension as rows of the last: row i of t begins at i * stride[0]; inner counts its rows. */
typedef struct inner {
    sw_tensor row; /* without the first dimension; its strides serve any i */
    int64_t step, rows, width;
} inner;
static inner inner_of(const sw_tensor *t)
{
    inner p = {.row = *t, .step = t->stride[0], .rows = 1, .width = 1};
    p.row.ndim = t->ndim - 1;
    for (int d = 0; d < p.row.ndim; d++) {
        p.row.shape[d] = t->shape[d + 1];
        p.row.stride[d] = t->stride[d + 1];
    }
    if (p.row.ndim) {
        p.rows = sw_row_count(&p.row);
        p.width = sw_width(&p.row);
    }
    return p;
}

/* to = from (or += with acc) for columns [c, c + n) of one row; either type plain, floats convert. */
static void move_run(const sw_tensor *y, int64_t to, const sw_tensor *x, int64_t from, int64_t n, int acc)
{
    if (!acc && x->dtype == y->dtype) {
        memcpy(sw_at(y, to), sw_at(x, from), sw_dtype_bytes(x->dtype, n));
        return;
    }
    if (!sw_is_float(x->dtype) || !sw_is_float(y->dtype)) {
        for (int64_t j = 0; j < n; j++)
            sw_scalar_set(y->data, y->dtype, to + j,
                          sw_scalar_get(x->data, x->dtype, from + j) + (acc ? sw_scalar_get(y->data, y->dtype, to + j) : 0));
        return;
    }
    float xb[SW_RUN], yb[SW_RUN];
    const float *xv = sw_load(sw_at(x, from), x->dtype, n, xb);
    if (acc) {
        const float *yv = sw_load(sw_at(y, to), y->dtype, n, yb);
        for (int64_t j = 0; j < n; j++)
            yb[j] = yv[j] + xv[j];
        xv = yb;
    }
    sw_store(sw_at(y, to), y->dtype, n, xv);
}

int SW_CPU(gather_rows)(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *ids)
{
    (void)s;
    int64_t n = sw_numel(ids), values = sw_numel(y);
    const int32_t *id = ids->data;
    if (!values)
        return 0;
    inner py = inner_of(y), px = inner_of(x);
#pragma omp parallel for schedule(static) if (values >= SW_PARALLEL)
    for (int64_t i = 0; i < n; i++)
        for (int64_t r = 0; r < py.rows; r++)
            for (int64_t c = 0; c < py.width; c += SW_RUN) {
                int64_t m = SW_MIN(SW_RUN, py.width - c), to = i * py.step + sw_row_at(&py.row, r) + c;
                if (id[i] < 0)
                    memset(sw_at(y, to), 0, sw_dtype_bytes(y->dtype, m));
                else
                    move_run(y, to, x, id[i] * px.step + sw_row_at(&px.row, r) + c, m, 0);
            }
    return 0;
}

int SW_CPU(scatter_rows)(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *ids, int acc)
{
    (void)s;
    int64_t n = sw_numel(ids), values = sw_numel(x);
    const int32_t *id = ids->data;
    if (!values)
        return 0;
    inner py = inner_of(y), px = inner_of(x);
    int64_t per_row = (px.width + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for schedule(static) if (values >= SW_PARALLEL)
    for (int64_t t = 0; t < per_row * px.rows; t++) {
        int64_t r = t / per_row, c = t % per_row * COLUMNS, m = SW_MIN(COLUMNS, px.width - c);
        int64_t to = sw_row_at(&py.row, r) + c, from = sw_row_at(&px.row, r) + c;
        for (int64_t i = 0; i < n; i++)
            if (id[i] >= 0)
                move_run(y, id[i] * py.step + to, x, i * px.step + from, m, acc);
    }
    return 0;
}

int SW_CPU(paged_rows)(sw_stream *s, sw_tensor *rows, const sw_tensor *seqs, const sw_paging *paging)
{
    int32_t *to = rows->data;
    (void)s;
    for (int64_t b = 0; b < seqs->shape[0]; b++) {
        const int32_t *of = (const int32_t *)seqs->data + b * seqs->stride[0];
        for (int64_t j = 0; j < of[3]; j++)
            *to++ = (int32_t)sw_paged(paging, of[2] + j);
    }
    return 0;
}
