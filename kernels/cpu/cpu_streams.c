/* Hidden states of several streams: the matrices that mix them, and the mixing. */
#include "cpu_isa.h"
#include "cpu_math.h"

#include "base/memory.h"

enum { MOST = SW_MOST_STREAMS };

static int side_of(const sw_tensor *x)
{
    int side = 1;
    while (side * side < x->shape[1])
        side++;
    return side;
}

/* Divides the lines of m, columns or rows, by their sums + eps, which go to `sums`. */
static void divide(float *m, int side, bool columns, float eps, float *sums)
{
    int along = columns ? side : 1, across = columns ? 1 : side;
    for (int i = 0; i < side; i++) {
        float sum = 0;
        for (int k = 0; k < side; k++)
            sum += m[i * across + k * along];
        sums[i] = sum + eps;
        for (int k = 0; k < side; k++)
            m[i * across + k * along] /= sums[i];
    }
}

/* And back: g of the results becomes that of what was divided, and so does m. */
static void multiply(float *g, float *m, int side, bool columns, const float *sums)
{
    int along = columns ? side : 1, across = columns ? 1 : side;
    for (int i = 0; i < side; i++) {
        float dot = 0;
        for (int k = 0; k < side; k++)
            dot += g[i * across + k * along] * m[i * across + k * along];
        for (int k = 0; k < side; k++) {
            g[i * across + k * along] = (g[i * across + k * along] - dot) / sums[i];
            m[i * across + k * along] *= sums[i];
        }
    }
}

int SW_CPU(sinkhorn_fwd)(sw_stream *s, sw_tensor *y, sw_tensor *divisors, const sw_tensor *x, int rounds, double eps)
{
    (void)s;
    int side = side_of(x), size = side * side, steps = 2 * rounds - 1;
#pragma omp parallel for schedule(static) if (x->shape[0] * size * steps >= SW_PARALLEL)
    for (int64_t n = 0; n < x->shape[0]; n++) {
        float m[MOST * MOST], unused[MOST];
        memcpy(m, sw_at(x, n * x->stride[0]), (size_t)size * sizeof *m);
        for (int i = 0; i < side; i++) {
            float *row = m + i * side, top = row[0], sum = 0;
            for (int k = 1; k < side; k++)
                top = row[k] > top ? row[k] : top;
            for (int k = 0; k < side; k++)
                sum += row[k] = sw_exp(row[k] - top);
            for (int k = 0; k < side; k++)
                row[k] = row[k] / sum + (float)eps;
        }
        for (int step = 0; step < steps; step++)
            divide(m, side, step % 2 == 0, (float)eps,
                   divisors ? (float *)sw_at(divisors, n * divisors->stride[0]) + step * side : unused);
        memcpy(sw_at(y, n * y->stride[0]), m, (size_t)size * sizeof *m);
    }
    return 0;
}

int SW_CPU(sinkhorn_bwd)(sw_stream *s, sw_tensor *dx, const sw_tensor *dy, const sw_tensor *y, const sw_tensor *divisors,
                         int rounds, double eps)
{
    (void)s;
    int side = side_of(y), size = side * side, steps = 2 * rounds - 1;
#pragma omp parallel for schedule(static) if (y->shape[0] * size * steps >= SW_PARALLEL)
    for (int64_t n = 0; n < y->shape[0]; n++) {
        float m[MOST * MOST], g[MOST * MOST];
        memcpy(m, sw_at(y, n * y->stride[0]), (size_t)size * sizeof *m);
        memcpy(g, sw_at(dy, n * dy->stride[0]), (size_t)size * sizeof *g);
        for (int step = steps - 1; step >= 0; step--)
            multiply(g, m, side, step % 2 == 0, (const float *)sw_at(divisors, n * divisors->stride[0]) + step * side);
        for (int i = 0; i < side; i++) {
            float *p = m + i * side, *d = g + i * side, dot = 0;
            for (int k = 0; k < side; k++)
                dot += d[k] * (p[k] -= (float)eps);
            for (int k = 0; k < side; k++)
                d[k] = p[k] * (d[k] - dot);
        }
        memcpy(sw_at(dx, n * dx->stride[0]), g, (size_t)size * sizeof *g);
    }
    return 0;
}

/* ---- mixing */

static float *weight(const sw_tensor *w, int64_t n, int64_t j, int64_t k)
{
    return sw_at(w, n * w->stride[0] + j * w->stride[1] + k * w->stride[2]);
}

/* `n` values of stream j of token t from column c on, as f32. */
static const float *stream(const sw_tensor *x, int64_t t, int64_t j, int64_t c, int64_t n, float *buf)
{
    return sw_load(sw_at(x, t * x->stride[0] + j * x->stride[1] + c), x->dtype, n, buf);
}

enum { COLUMNS = 512 };

int SW_CPU(mix_streams)(sw_stream *s, sw_tensor *y, const sw_tensor *w, const sw_tensor *x, int acc)
{
    (void)s;
    int64_t tokens = x->shape[0], from = x->shape[1], to = y->shape[1], width = x->shape[2];
#pragma omp parallel for schedule(static) if (tokens * (from + to) * width >= SW_PARALLEL)
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t c = 0; c < width; c += COLUMNS) {
            int64_t n = SW_MIN(COLUMNS, width - c);
            float buf[MOST][COLUMNS], sum[COLUMNS], was[COLUMNS];
            const float *v[MOST];
            for (int64_t j = 0; j < from; j++)
                v[j] = stream(x, t, j, c, n, buf[j]);
            for (int64_t k = 0; k < to; k++) {
                const float *start = acc ? stream(y, t, k, c, n, was) : NULL;
                for (int64_t i = 0; i < n; i++)
                    sum[i] = start ? start[i] : 0;
                for (int64_t j = 0; j < from; j++) {
                    float f = *weight(w, t, j, k);
                    for (int64_t i = 0; i < n; i++)
                        sum[i] += f * v[j][i];
                }
                sw_store(sw_at(y, t * y->stride[0] + k * y->stride[1] + c), y->dtype, n, sum);
            }
        }
    return 0;
}

int SW_CPU(mix_streams_bwd_w)(sw_stream *s, sw_tensor *dw, const sw_tensor *dy, const sw_tensor *x)
{
    (void)s;
    int64_t tokens = x->shape[0], from = x->shape[1], to = dy->shape[1], width = x->shape[2];
#pragma omp parallel for schedule(static) if (tokens * from * to * width >= SW_PARALLEL)
    for (int64_t t = 0; t < tokens; t++) {
        float dot[MOST][MOST] = {{0}};
        for (int64_t c = 0; c < width; c += COLUMNS) {
            int64_t n = SW_MIN(COLUMNS, width - c);
            float buf[MOST][COLUMNS], other[COLUMNS];
            const float *v[MOST];
            for (int64_t j = 0; j < from; j++)
                v[j] = stream(x, t, j, c, n, buf[j]);
            for (int64_t k = 0; k < to; k++) {
                const float *g = stream(dy, t, k, c, n, other);
                for (int64_t j = 0; j < from; j++) {
                    float lane[16] = {0};
                    for (int64_t i = 0; i < n / 16 * 16; i += 16)
                        for (int l = 0; l < 16; l++)
                            lane[l] += v[j][i + l] * g[i + l];
                    for (int64_t i = n / 16 * 16; i < n; i++)
                        lane[i & 15] += v[j][i] * g[i];
                    for (int l = 0; l < 16; l++)
                        dot[j][k] += lane[l];
                }
            }
        }
        for (int64_t j = 0; j < from; j++)
            for (int64_t k = 0; k < to; k++)
                *weight(dw, t, j, k) = dot[j][k];
    }
    return 0;
}
