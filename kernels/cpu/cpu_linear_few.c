/* Products of few rows with any weights: each row of w is read once and used for every row of x. */
#include "cpu_linear.h"

#include "base/memory.h"

/* sum[n] += x[n] . w for every row n of x (f32, `line` apart). */
static void dots(float *sum, const float *x, int64_t line, int64_t rows, const float *w, int64_t n)
{
    for (int64_t r = 0; r < rows; r++) {
        const float *xr = x + r * line;
        sw_vec lane[4] = {{0}};
        int64_t i = 0;
        for (; i + 4 * SW_LANES <= n; i += 4 * SW_LANES)
            for (int l = 0; l < 4; l++)
                lane[l] += *(const sw_vec *)(const void *)(w + i + l * SW_LANES) * *(const sw_vec *)(const void *)(xr + i + l * SW_LANES);
        float rest = 0;
        for (; i < n; i++)
            rest += w[i] * xr[i];
        sum[r] += rest + sw_lanes_sum((lane[0] + lane[1]) + (lane[2] + lane[3]));
    }
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
            dots(sum, xs + c, line, rows, sw_load_any(sw_at(w, o * w->stride[0] + c), w->dtype, n, buf), n);
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
