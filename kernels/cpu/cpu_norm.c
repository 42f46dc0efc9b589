/* RMS norm and layer norm over the last dimension. A row is converted once into the thread's own space; gradients of
 * the weights are summed over fixed groups of rows, then over the groups in order. */
#include "cpu_isa.h"

#include "base/memory.h"

#include <math.h>

/* w, b in f32 for all threads, and room for `rows_each` rows of D floats a thread. */
typedef struct space {
    float *w, *b, *each;
    int64_t width;
    size_t stride; /* of each, in floats */
} space;

static int make_space(space *p, sw_stream *s, int64_t width, int rows_each, int64_t more, const sw_tensor *w, double offset,
                      const sw_tensor *b)
{
    int64_t line = (width + 31) & ~(int64_t)15;
    p->width = width;
    p->stride = (size_t)(line * rows_each);
    float *at = sw_stream_scratch(s, ((size_t)line * 2 + p->stride * (size_t)omp_get_max_threads() + (size_t)more) * sizeof *at);
    if (!at)
        return -1;
    p->w = at;
    p->b = at + line;
    p->each = at + 2 * line;
    const float *from = w ? sw_load(w->data, w->dtype, width, p->w) : NULL;
    for (int64_t i = 0; i < width; i++)
        p->w[i] = from ? (float)offset + from[i] : 1;
    from = b ? sw_load(b->data, b->dtype, width, p->b) : NULL;
    for (int64_t i = 0; i < width; i++)
        p->b[i] = from ? from[i] : 0;
    return 0;
}
static float *space_of_thread(const space *p) { return p->each + p->stride * (size_t)omp_get_thread_num(); }
static float *space_after(const space *p) { return p->each + p->stride * (size_t)omp_get_max_threads(); }

static const float *load_row(const sw_tensor *t, int64_t r, float *buf)
{
    return sw_load(sw_at(t, sw_row_at(t, r)), t->dtype, sw_width(t), buf);
}
static void store_row(const sw_tensor *t, int64_t r, const float *from)
{
    sw_store(sw_at(t, sw_row_at(t, r)), t->dtype, sw_width(t), from);
}

/* Four independent lanes of vectors hide the latency of addition. */
#define SUM_OVER(sum, n, ...)                                      \
    do {                                                           \
        float lane_[4 * SW_LANES] = {0};                           \
        int64_t base_ = 0, n_ = (n);                               \
        for (; base_ + 4 * SW_LANES <= n_; base_ += 4 * SW_LANES)  \
            for (int l_ = 0; l_ < 4 * SW_LANES; l_++) {            \
                int64_t i = base_ + l_;                            \
                lane_[l_] += (__VA_ARGS__);                        \
            }                                                      \
        for (int64_t i = base_; i < n_; i++)                       \
            lane_[i - base_] += (__VA_ARGS__);                     \
        for (int w_ = 2 * SW_LANES; w_; w_ /= 2)                   \
            for (int l_ = 0; l_ < w_; l_++)                        \
                lane_[l_] += lane_[l_ + w_];                       \
        (sum) = lane_[0];                                          \
    } while (0)

int SW_CPU(rmsnorm_fwd)(sw_stream *s, sw_tensor *y, sw_tensor *rstd, const sw_tensor *x, const sw_tensor *w, double eps,
                        double offset)
{
    int64_t width = sw_width(x), rows = sw_numel(x) ? sw_row_count(x) : 0;
    space p;
    if (make_space(&p, s, width, 2, 0, w, offset, NULL))
        return -1;
#pragma omp parallel for schedule(static) if (rows * width >= SW_PARALLEL)
    for (int64_t r = 0; r < rows; r++) {
        float *buf = space_of_thread(&p), *out = buf + p.stride / 2, sum;
        const float *xv = load_row(x, r, buf), *wv = p.w;
        SUM_OVER(sum, width, xv[i] * xv[i]);
        float scale = (float)(1 / sqrt((double)sum / (double)width + eps));
        for (int64_t i = 0; i < width; i++)
            out[i] = xv[i] * scale * wv[i];
        store_row(y, r, out);
        if (rstd)
            ((float *)rstd->data)[r] = scale;
    }
    return 0;
}

int SW_CPU(layernorm_fwd)(sw_stream *s, sw_tensor *y, sw_tensor *mean, sw_tensor *rstd, const sw_tensor *x, const sw_tensor *w,
                          const sw_tensor *b, double eps, double offset)
{
    int64_t width = sw_width(x), rows = sw_numel(x) ? sw_row_count(x) : 0;
    space p;
    if (make_space(&p, s, width, 2, 0, w, offset, b))
        return -1;
#pragma omp parallel for schedule(static) if (rows * width >= SW_PARALLEL)
    for (int64_t r = 0; r < rows; r++) {
        float *buf = space_of_thread(&p), *out = buf + p.stride / 2, sum, square;
        const float *xv = load_row(x, r, buf), *wv = p.w, *bv = p.b;
        SUM_OVER(sum, width, xv[i]);
        float centre = sum / (float)width;
        SUM_OVER(square, width, (xv[i] - centre) * (xv[i] - centre));
        float scale = (float)(1 / sqrt((double)square / (double)width + eps));
        for (int64_t i = 0; i < width; i++)
            out[i] = (xv[i] - centre) * scale * wv[i] + bv[i];
        store_row(y, r, out);
        if (mean)
            ((float *)mean->data)[r] = centre;
        if (rstd)
            ((float *)rstd->data)[r] = scale;
    }
    return 0;
}

/* Rows are cut into groups for the weights' gradients; what a group sums goes to its own line of scratch. */
typedef struct groups {
    int64_t count, rows;
} groups;
static groups group_rows(int64_t rows)
{
    int64_t each = SW_MAX(16, (rows + 63) / 64);
    return (groups){(rows + each - 1) / each, each};
}

static void add_groups(float *total, const float *part, int64_t count, int64_t width)
{
#pragma omp parallel for schedule(static) if (count * width >= SW_PARALLEL)
    for (int64_t c = 0; c < width; c += 64) {
        float sum[64] = {0};
        int64_t n = SW_MIN(64, width - c);
        for (int64_t g = 0; g < count; g++)
            for (int64_t i = 0; i < n; i++)
                sum[i] += part[g * width + c + i];
        for (int64_t i = 0; i < n; i++)
            total[c + i] += sum[i];
    }
}

/* Both norms: xhat = (x - mean) rstd, g = dy w, dx = rstd (g - mean(g xhat) xhat [- mean(g)]), dw = sum dy xhat. */
static int norm_bwd(sw_stream *s, sw_tensor *dx, sw_tensor *dw, sw_tensor *db, const sw_tensor *dy, const sw_tensor *x,
                    const sw_tensor *w, const float *mean, const float *rstd, double offset, int acc)
{
    int64_t width = sw_width(x), rows = sw_numel(x) ? sw_row_count(x) : 0;
    if (!rows)
        return 0;
    groups g = group_rows(rows);
    space p;
    int64_t parts = g.count * width;
    if (make_space(&p, s, width, 4, parts * ((dw != NULL) + (db != NULL)), w, offset, NULL))
        return -1;
    float *dw_part = dw ? space_after(&p) : NULL, *db_part = db ? space_after(&p) + (dw ? parts : 0) : NULL;
#pragma omp parallel for schedule(static) if (rows * width >= SW_PARALLEL)
    for (int64_t group = 0; group < g.count; group++) {
        int64_t line = (int64_t)p.stride / 4;
        float *xb = space_of_thread(&p), *yb = xb + line, *db_ = yb + line, *out = db_ + line;
        const float *wv = p.w;
        float *dwg = dw ? dw_part + group * width : NULL, *dbg = db ? db_part + group * width : NULL;
        if (dwg)
            memset(dwg, 0, (size_t)width * sizeof *dwg);
        if (dbg)
            memset(dbg, 0, (size_t)width * sizeof *dbg);
        for (int64_t r = group * g.rows; r < SW_MIN((group + 1) * g.rows, rows); r++) {
            const float *xv = load_row(x, r, xb), *yv = load_row(dy, r, yb);
            float scale = rstd[r], centre = mean ? mean[r] : 0, gx, gs = 0;
            if (dwg)
                for (int64_t i = 0; i < width; i++)
                    dwg[i] += yv[i] * ((xv[i] - centre) * scale);
            if (dbg)
                for (int64_t i = 0; i < width; i++)
                    dbg[i] += yv[i];
            if (!dx)
                continue;
            SUM_OVER(gx, width, yv[i] * wv[i] * ((xv[i] - centre) * scale));
            if (mean)
                SUM_OVER(gs, width, yv[i] * wv[i]);
            gx /= (float)width;
            gs /= (float)width;
            for (int64_t i = 0; i < width; i++)
                out[i] = scale * (yv[i] * wv[i] - gs - (xv[i] - centre) * scale * gx);
            if (acc) {
                const float *old = load_row(dx, r, db_);
                for (int64_t i = 0; i < width; i++)
                    out[i] += old[i];
            }
            store_row(dx, r, out);
        }
    }
    if (dw)
        add_groups(dw->data, dw_part, g.count, width);
    if (db)
        add_groups(db->data, db_part, g.count, width);
    return 0;
}

int SW_CPU(rmsnorm_bwd)(sw_stream *s, sw_tensor *dx, sw_tensor *dw, const sw_tensor *dy, const sw_tensor *x, const sw_tensor *w,
                        const sw_tensor *rstd, double offset, int acc)
{
    return norm_bwd(s, dx, dw, NULL, dy, x, w, NULL, rstd->data, offset, acc);
}

int SW_CPU(layernorm_bwd)(sw_stream *s, sw_tensor *dx, sw_tensor *dw, sw_tensor *db, const sw_tensor *dy, const sw_tensor *x,
                          const sw_tensor *w, const sw_tensor *mean, const sw_tensor *rstd, double offset, int acc)
{
    return norm_bwd(s, dx, dw, db, dy, x, w, mean->data, rstd->data, offset, acc);
}
