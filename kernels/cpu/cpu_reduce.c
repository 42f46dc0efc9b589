/* Sums over rows and whole tensors. The pieces and their order are fixed by the shapes. */
#include "cpu_isa.h"

#include "base/memory.h"

#include <math.h>

/* Columns a task, rows added up in f32 before they join the total (which keeps long sums exact enough). */
enum { COLUMNS = 64, ROWS = 64 };

int SW_CPU(sum_rows)(sw_stream *s, sw_tensor *out, const sw_tensor *x, const sw_tensor *w)
{
    (void)s;
    int64_t width = sw_width(x), rows = sw_numel(x) ? sw_row_count(x) : 0;
    float *total = out->data;
#pragma omp parallel for schedule(static) if (rows * width >= SW_PARALLEL)
    for (int64_t c = 0; c < width; c += COLUMNS) {
        int64_t n = SW_MIN(COLUMNS, width - c);
        for (int64_t first = 0; first < rows; first += ROWS) {
            float sum[COLUMNS] = {0}, xb[COLUMNS], wb[COLUMNS];
            for (int64_t r = first; r < SW_MIN(first + ROWS, rows); r++) {
                const float *xv = sw_load(sw_at(x, sw_row_at(x, r) + c), x->dtype, n, xb);
                if (w) {
                    const float *wv = sw_load(sw_at(w, sw_row_at(w, r) + c), w->dtype, n, wb);
                    for (int64_t j = 0; j < n; j++)
                        sum[j] += xv[j] * wv[j];
                } else {
                    for (int64_t j = 0; j < n; j++)
                        sum[j] += xv[j];
                }
            }
            for (int64_t j = 0; j < n; j++)
                total[c + j] += sum[j];
        }
    }
    return 0;
}

int SW_CPU(sum_squares)(sw_stream *s, sw_tensor *out, const sw_tensor *x)
{
    sw_runs r = sw_cut(x, true);
    double *part = sw_stream_scratch(s, (size_t)(r.count + 1) * sizeof *part), sum = 0;
    if (!part)
        return -1;
#pragma omp parallel for schedule(static) if (r.values >= SW_PARALLEL)
    for (int64_t i = 0; i < r.count; i++) {
        float buf[SW_RUN];
        const float *v = sw_run_load(&r, x, i, buf);
        int64_t n = sw_run_length(&r, i);
        double lane[16] = {0}, p = 0;
        int64_t j = 0;
        for (; j + 16 <= n; j += 16)
            for (int l = 0; l < 16; l++)
                lane[l] += (double)v[j + l] * v[j + l];
        for (; j < n; j++)
            p += (double)v[j] * v[j];
        for (int l = 0; l < 16; l++)
            p += lane[l];
        part[i] = p;
    }
    for (int64_t i = 0; i < r.count; i++)
        sum += part[i];
    *(double *)out->data = sum;
    return 0;
}

int SW_CPU(find_nonfinite)(sw_stream *s, sw_tensor *out, const sw_tensor *x)
{
    (void)s;
    sw_runs r = sw_cut(x, true);
    int64_t found = INT64_MAX;
#pragma omp parallel for schedule(static) reduction(min : found) if (r.values >= SW_PARALLEL)
    for (int64_t i = 0; i < r.count; i++) {
        float buf[SW_RUN];
        const float *v = sw_run_load(&r, x, i, buf);
        int64_t n = sw_run_length(&r, i);
        int bad = 0;
        for (int64_t j = 0; j < n; j++) {
            uint32_t u;
            memcpy(&u, v + j, 4);
            bad |= (u & 0x7f800000u) == 0x7f800000u;
        }
        if (bad && i * SW_RUN < found)
            for (int64_t j = 0; j < n; j++)
                if (!isfinite(v[j])) {
                    found = SW_MIN(found, i * SW_RUN + j);
                    break;
                }
    }
    *(int64_t *)out->data = found == INT64_MAX ? -1 : found;
    return 0;
}
