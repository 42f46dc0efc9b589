/* Products of few rows with any weights: each row of w is read once, as it is stored, and used for every row of x. */
#include "cpu_linear.h"

#include "base/memory.h"

enum { ROWS = 4, LINES = 4 }; /* rows of x that share a load of w; vectors summed apart in each */

#define AT(p) (*(const sw_vec *)(const void *)(p))

/* sum[r] += x[r] . w for `rows` rows of x (f32, `line` apart). A row's sum is added up in the same order however many there are. */
__attribute__((always_inline)) static inline void dots(float *sum, int rows, const float *x, int64_t line, const float *w, int64_t n)
{
    sw_vec lane[ROWS][LINES] = {{{0}}};
    int64_t i = 0;
    for (; i + LINES * SW_LANES <= n; i += LINES * SW_LANES)
        for (int l = 0; l < LINES; l++) {
            sw_vec v = AT(w + i + l * SW_LANES);
            for (int r = 0; r < rows; r++)
                lane[r][l] += v * AT(x + r * line + i + l * SW_LANES);
        }
    for (int r = 0; r < rows; r++) {
        float rest = 0;
        for (int64_t j = i; j < n; j++)
            rest += w[j] * x[r * line + j];
        sum[r] += rest + sw_lanes_sum((lane[r][0] + lane[r][1]) + (lane[r][2] + lane[r][3]));
    }
}

static void all_dots(float *sum, int64_t rows, const float *x, int64_t line, const float *w, int64_t n)
{
    int64_t r = 0;
    for (; r + ROWS <= rows; r += ROWS)
        dots(sum + r, ROWS, x + r * line, line, w, n);
    for (; r < rows; r++)
        dots(sum + r, 1, x + r * line, line, w, n);
}

int SW_CPU(linear_few)(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, float alpha,
                       float beta)
{
    int64_t rows = x->shape[0], in = x->shape[1], out = w->shape[0], line = (in + 31) & ~(int64_t)15;
    float *xs = sw_stream_scratch(s, (size_t)(line * rows) * sizeof *xs);
    if (!xs)
        return -1;
    for (int64_t r = 0; r < rows; r++) {
        const float *from = sw_load(sw_at(x, r * x->stride[0]), x->dtype, in, xs + r * line);
        if (from != xs + r * line)
            memcpy(xs + r * line, from, (size_t)in * sizeof *xs);
    }
#pragma omp parallel for schedule(static) if (in * out >= SW_PARALLEL * 4)
    for (int64_t o = 0; o < out; o++) {
        float sum[SW_FEW_ROWS] = {0}, buf[SW_RUN];
        for (int64_t c = 0; c < in; c += SW_RUN) {
            int64_t n = SW_MIN(SW_RUN, in - c);
            all_dots(sum, rows, xs + c, line, sw_load_any(sw_at(w, o * w->stride[0] + c), w->dtype, n, buf), n);
        }
        float add = bias ? *sw_load(sw_at(bias, o), bias->dtype, 1, buf) : 0;
        for (int64_t r = 0; r < rows; r++) {
            void *at = sw_at(y, r * y->stride[0] + o);
            float v = alpha * sum[r] + add;
            if (beta != 0)
                v += beta * *sw_load(at, y->dtype, 1, buf);
            sw_store(at, y->dtype, 1, &v);
        }
    }
    return 0;
}
