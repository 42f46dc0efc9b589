/* Selective scan: blocks of channels are the tasks. */
#include "cpu_recurrent.h"
#include "cpu_math.h"

enum { CHANNELS = 32, PARTS = 16 };

typedef struct scan {
    const sw_tensor *x, *dt, *a, *b, *c, *skip, *dy;
    int64_t width;
} scan;

/* h [width] goes on by one place; returns the sum over c. */
static float step_on(float *restrict h, const float *restrict a, const float *restrict b, const float *restrict c, float dt, float x,
                     int64_t width)
{
    float sum = 0, in = dt * x;
    for (int64_t n = 0; n < width; n++)
        h[n] = sw_exp(dt * a[n]) * h[n] + in * b[n];
    for (int64_t n = 0; n < width; n++)
        sum += c[n] * h[n];
    return sum;
}

static void run_block(const scan *p, sw_tensor *y, sw_tensor *state, sw_run r, int64_t first, float *space)
{
    int64_t channels = p->x->shape[1], width = p->width, n = SW_MIN(CHANNELS, channels - first);
    const float *a = (const float *)p->a->data + first * width, *skip = (const float *)p->skip->data + first;
    float *h = space, *b_buf = h + CHANNELS * width, *c_buf = b_buf + width, xb[CHANNELS], out[CHANNELS];
    float *kept = r.slot >= 0 ? (float *)state->data + (r.slot * channels + first) * width : NULL;
    if (r.goes_on)
        memcpy(h, kept, (size_t)(n * width) * sizeof *h);
    else
        memset(h, 0, (size_t)(n * width) * sizeof *h);
    for (int64_t t = r.first; t < r.first + r.rows; t++) {
        const float *x = sw_load_part(p->x, t, first, n, xb), *dt = sw_load_part(p->dt, t, first, n, NULL);
        const float *b = sw_load_part(p->b, t, 0, width, b_buf), *c = sw_load_part(p->c, t, 0, width, c_buf);
        for (int64_t i = 0; i < n; i++)
            out[i] = skip[i] * x[i] + step_on(h + i * width, a + i * width, b, c, dt[i], x[i], width);
        sw_store_part(y, t, first, n, out);
    }
    if (kept)
        memcpy(kept, h, (size_t)(n * width) * sizeof *h);
}

int SW_CPU(selective_scan_fwd)(sw_stream *s, sw_tensor *y, sw_tensor *state, const sw_tensor *x, const sw_tensor *dt, const sw_tensor *a,
                               const sw_tensor *b, const sw_tensor *c, const sw_tensor *skip, const sw_tensor *seqs)
{
    scan p = {x, dt, a, b, c, skip, NULL, a->shape[1]};
    int64_t blocks = (x->shape[1] + CHANNELS - 1) / CHANNELS, tasks = blocks * seqs->shape[0];
    size_t each = (size_t)((CHANNELS + 2) * p.width) * sizeof(float);
    char *space = sw_thread_space(s, &each);
    if (!space)
        return -1;
#pragma omp parallel for schedule(dynamic) if (sw_numel(x) * p.width >= SW_PARALLEL)
    for (int64_t i = 0; i < tasks; i++) {
        sw_run r = sw_run_of(seqs, i / blocks);
        if (r.rows)
            run_block(&p, y, state, r, i % blocks * CHANNELS, (float *)(space + (size_t)omp_get_thread_num() * each));
    }
    return 0;
}

/* One channel of one run back: its states are made again and kept. b_sum, c_sum f32 [N, width] of the task. */
static void channel_back(const scan *p, sw_tensor *dx, sw_tensor *ddt, float *da, float *dskip, float *b_sum, float *c_sum, sw_run r,
                         int64_t ch, float *space)
{
    int64_t width = p->width;
    const float *a = (const float *)p->a->data + ch * width;
    float skip = ((const float *)p->skip->data)[ch], *dh = space, *b_buf = dh + width, *c_buf = b_buf + width, *h = c_buf + width, v[3];
    memset(dh, 0, (size_t)width * sizeof *dh);
    memset(h, 0, (size_t)width * sizeof *h);
    for (int64_t t = 0; t < r.rows; t++) {
        const float *b = sw_load_part(p->b, r.first + t, 0, width, b_buf);
        memcpy(h + (t + 1) * width, h + t * width, (size_t)width * sizeof *h);
        step_on(h + (t + 1) * width, a, b, b, *sw_load_part(p->dt, r.first + t, ch, 1, v), *sw_load_part(p->x, r.first + t, ch, 1, v + 1), width);
    }
    for (int64_t t = r.rows; t-- > 0;) {
        int64_t row = r.first + t;
        float step = *sw_load_part(p->dt, row, ch, 1, v), x = *sw_load_part(p->x, row, ch, 1, v + 1),
              out = *sw_load_part(p->dy, row, ch, 1, v + 2);
        const float *b = sw_load_part(p->b, row, 0, width, b_buf), *c = sw_load_part(p->c, row, 0, width, c_buf);
        const float *old = h + t * width, *now = old + width;
        float *db = b_sum + row * width, *dc = c_sum + row * width, d_step = 0, d_in = 0;
        for (int64_t n = 0; n < width; n++) {
            float decay = sw_exp(step * a[n]), d = dh[n] + out * c[n], gone = d * decay * old[n];
            dc[n] += out * now[n];
            db[n] += d * step * x;
            d_step += gone * a[n];
            d_in += d * b[n];
            da[n] += gone * step;
            dh[n] = d * decay;
        }
        float dx_t = d_in * step + out * skip, ddt_t = d_step + d_in * x;
        if (dx)
            sw_store_part(dx, row, ch, 1, &dx_t);
        if (ddt)
            sw_store_part(ddt, row, ch, 1, &ddt_t);
        *dskip += out * x;
    }
}

/* The channels are PARTS tasks, whatever the number of threads, each with sums of its own for db and dc. */
int SW_CPU(selective_scan_bwd)(sw_stream *s, sw_tensor *dx, sw_tensor *ddt, sw_tensor *da, sw_tensor *db, sw_tensor *dc,
                               sw_tensor *dskip, const sw_tensor *dy, const sw_tensor *x, const sw_tensor *dt, const sw_tensor *a,
                               const sw_tensor *b, const sw_tensor *c, const sw_tensor *skip, const sw_tensor *seqs)
{
    scan p = {x, dt, a, b, c, skip, dy, a->shape[1]};
    int64_t channels = x->shape[1], width = p.width, sums = x->shape[0] * width, own = (sw_longest_run(seqs) + 5) * width;
    float *space = sw_stream_scratch(s, (size_t)(PARTS * (2 * sums + own)) * sizeof *space);
    if (!space)
        return -1;
    memset(space, 0, (size_t)(PARTS * 2 * sums) * sizeof *space);
#pragma omp parallel for schedule(dynamic) if (sw_numel(x) * width >= SW_PARALLEL)
    for (int64_t part = 0; part < PARTS; part++) {
        float *mine = space + PARTS * 2 * sums + part * own, *d_a = mine, *b_sum = space + part * 2 * sums, *c_sum = b_sum + sums;
        for (int64_t ch = part * channels / PARTS; ch < (part + 1) * channels / PARTS; ch++) {
            float d_skip = 0;
            memset(d_a, 0, (size_t)width * sizeof *d_a);
            for (int64_t i = 0; i < seqs->shape[0]; i++)
                channel_back(&p, dx, ddt, d_a, &d_skip, b_sum, c_sum, sw_run_of(seqs, i), ch, mine + width);
            for (int64_t n = 0; da && n < width; n++)
                ((float *)da->data)[ch * width + n] += d_a[n];
            if (dskip)
                ((float *)dskip->data)[ch] += d_skip;
        }
    }
    sw_tensor *to[] = {db, dc};
    for (int64_t i = 0; i < seqs->shape[0]; i++) {
        sw_run r = sw_run_of(seqs, i);
#pragma omp parallel for schedule(static) if (r.rows * width * PARTS >= SW_PARALLEL)
        for (int64_t row = r.first; row < r.first + r.rows; row++)
            for (int which = 0; which < 2; which++) {
                if (!to[which])
                    continue;
                float *total = space + which * sums + row * width;
                for (int64_t part = 1; part < PARTS; part++)
                    for (int64_t n = 0; n < width; n++)
                        total[n] += total[part * 2 * sums + n];
                sw_store_part(to[which], row, 0, width, total);
            }
    }
    return 0;
}
