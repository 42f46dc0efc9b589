/* Windows of tokens pooled into one row, and attention over two sets of keys. */
#include "cpu_isa.h"
#include "cpu_math.h"

#include "base/memory.h"

int SW_CPU(attention_merge)(sw_stream *s, sw_tensor *out, sw_tensor *lse, const sw_tensor *other, const sw_tensor *other_lse)
{
    (void)s;
    int64_t rows = sw_row_count(out), width = sw_width(out);
    float *to = lse->data;
    const float *more = other_lse->data;
#pragma omp parallel for schedule(static) if (rows * width >= SW_PARALLEL)
    for (int64_t r = 0; r < rows; r++) {
        float top = to[r] > more[r] ? to[r] : more[r], first = 0, second = 0;
        if (top > -INFINITY) {
            first = expf(to[r] - top);
            second = expf(more[r] - top);
            to[r] = top + logf(first + second);
            first /= first + second;
            second = 1 - first;
        }
        for (int64_t c = 0; c < width; c += SW_RUN) {
            float a[SW_RUN], b[SW_RUN], sum[SW_RUN];
            int64_t n = SW_MIN(SW_RUN, width - c);
            void *at = sw_at(out, sw_row_at(out, r) + c);
            const float *x = sw_load(at, out->dtype, n, a),
                        *y = sw_load(sw_at(other, sw_row_at(other, r) + c), other->dtype, n, b);
            for (int64_t i = 0; i < n; i++)
                sum[i] = first * x[i] + second * y[i];
            sw_store(at, out->dtype, n, sum);
        }
    }
    return 0;
}

/* A task is COLUMNS values of an entry, of all its slots. */
enum { COLUMNS = 128 };

typedef struct call {
    const sw_tensor *x, *gate;
    const int32_t *rows;
    int64_t width, slots, each, chunks; /* each: slots of a part of the columns */
} call;

static call call_of(const sw_tensor *y, const sw_tensor *x, const sw_tensor *gate, const sw_tensor *rows)
{
    int64_t width = y->shape[1], slots = rows->shape[1];
    return (call){x, gate, rows->data, width, slots, width ? slots / (x->shape[1] / width) : 0, (width + COLUMNS - 1) / COLUMNS};
}

/* Column of slot j's part, from which column d of it counts. */
static int64_t part_at(const call *c, int64_t j, int64_t d) { return j / c->each * c->width + d; }

static const float *gates(const call *c, int64_t row, int64_t column)
{
    return sw_at(c->gate, row * c->gate->stride[0] + column);
}

static const float *values(const call *c, int64_t row, int64_t column, int64_t n, float *buf)
{
    return sw_load(sw_at(c->x, row * c->x->stride[0] + column), c->x->dtype, n, buf);
}

int SW_CPU(pool_fwd)(sw_stream *s, sw_tensor *y, sw_tensor *lse, const sw_tensor *x, const sw_tensor *gate, const sw_tensor *rows)
{
    (void)s;
    const call c = call_of(y, x, gate, rows);
#pragma omp parallel for schedule(static) if (y->shape[0] * c.width * c.slots >= SW_PARALLEL)
    for (int64_t t = 0; t < y->shape[0] * c.chunks; t++) {
        int64_t e = t / c.chunks, d = t % c.chunks * COLUMNS, n = SW_MIN(COLUMNS, c.width - d);
        const int32_t *row = c.rows + e * c.slots;
        float top[COLUMNS], total[COLUMNS], sum[COLUMNS], buf[COLUMNS];
        for (int64_t i = 0; i < n; i++) {
            top[i] = -INFINITY;
            total[i] = sum[i] = 0;
        }
        for (int64_t j = 0; j < c.slots; j++) {
            const float *g = row[j] < 0 ? top : gates(&c, row[j], part_at(&c, j, d));
            for (int64_t i = 0; i < n; i++)
                top[i] = g[i] > top[i] ? g[i] : top[i];
        }
        for (int64_t j = 0; j < c.slots; j++) {
            if (row[j] < 0)
                continue;
            const float *g = gates(&c, row[j], part_at(&c, j, d)), *v = values(&c, row[j], part_at(&c, j, d), n, buf);
            for (int64_t i = 0; i < n; i++) {
                float share = sw_exp(g[i] - top[i]);
                total[i] += share;
                sum[i] += share * v[i];
            }
        }
        float *to = sw_at(lse, e * c.width + d);
        for (int64_t i = 0; i < n; i++) {
            bool any = total[i] > 0;
            sum[i] = any ? sum[i] / total[i] : 0;
            to[i] = any ? top[i] + logf(total[i]) : -INFINITY;
        }
        sw_store(sw_at(y, e * y->stride[0] + d), y->dtype, n, sum);
    }
    return 0;
}

int SW_CPU(pool_bwd)(sw_stream *s, sw_tensor *dx, sw_tensor *dgate, const sw_tensor *dy, const sw_tensor *y, const sw_tensor *lse,
                     const sw_tensor *x, const sw_tensor *gate, const sw_tensor *rows)
{
    (void)s;
    const call c = call_of(y, x, gate, rows);
#pragma omp parallel for schedule(static) if (y->shape[0] * c.width * c.slots >= SW_PARALLEL)
    for (int64_t t = 0; t < y->shape[0] * c.chunks; t++) {
        int64_t e = t / c.chunks, d = t % c.chunks * COLUMNS, n = SW_MIN(COLUMNS, c.width - d);
        const int32_t *row = c.rows + e * c.slots;
        float a[COLUMNS], b[COLUMNS], buf[COLUMNS], out[COLUMNS];
        const float *g = sw_load(sw_at(dy, e * dy->stride[0] + d), dy->dtype, n, a),
                    *mean = sw_load(sw_at(y, e * y->stride[0] + d), y->dtype, n, b);
        const float *log_sum = sw_at(lse, e * c.width + d);
        for (int64_t j = 0; j < c.slots; j++) {
            if (row[j] < 0)
                continue;
            int64_t at = part_at(&c, j, d);
            const float *z = gates(&c, row[j], at), *v = values(&c, row[j], at, n, buf);
            float *to = sw_at(dgate, row[j] * dgate->stride[0] + at);
            for (int64_t i = 0; i < n; i++) {
                out[i] = sw_exp(z[i] - log_sum[i]) * g[i];
                to[i] = out[i] * (v[i] - mean[i]);
            }
            sw_store(sw_at(dx, row[j] * dx->stride[0] + at), dx->dtype, n, out);
        }
    }
    return 0;
}
