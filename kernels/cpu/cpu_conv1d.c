/* Causal convolution of each channel. Blocks of channels are the tasks; the last inputs of a block, as f32, go round in
 * a ring of K rows. */
#include "cpu_recurrent.h"

enum { CHANNELS = 64 };

/* w of channels [c, c + n) as [K][CHANNELS]. */
static void load_taps(float *to, const sw_tensor *w, int64_t c, int64_t n, int64_t taps)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < taps; k++)
            to[k * CHANNELS + i] = (float)sw_scalar_get(w->data, w->dtype, (c + i) * taps + k);
}

static void convolve(sw_tensor *y, sw_tensor *state, const sw_tensor *x, const sw_tensor *w, const sw_tensor *b, sw_run r, int64_t c,
                     float *space)
{
    int64_t channels = x->shape[1], taps = w->shape[1], n = SW_MIN(CHANNELS, channels - c);
    float *tap = space, *ring = tap + taps * CHANNELS, bias[CHANNELS] = {0}, sum[CHANNELS];
    load_taps(tap, w, c, n, taps);
    if (b)
        memcpy(bias, sw_load(sw_at(b, c), b->dtype, n, sum), (size_t)n * sizeof *bias);
    /* place t lies in ring row t mod K; those before the start in rows 1 .. K - 1 */
    memset(ring, 0, (size_t)(taps * CHANNELS) * sizeof *ring);
    for (int64_t k = 1; r.goes_on && k < taps; k++) {
        const float *old = sw_load(sw_at(state, (r.slot * (taps - 1) + k - 1) * channels + c), state->dtype, n, sum);
        memcpy(ring + k * CHANNELS, old, (size_t)n * sizeof *ring);
    }
    for (int64_t t = 0; t < r.rows; t++) {
        float *in = ring + t % taps * CHANNELS;
        const float *from = sw_load_part(x, r.first + t, c, n, in);
        if (from != in)
            memcpy(in, from, (size_t)n * sizeof *in);
        memcpy(sum, bias, sizeof sum);
        for (int64_t k = 0; k < taps; k++) {
            const float *a = tap + k * CHANNELS, *v = ring + (t + 1 + k) % taps * CHANNELS;
            for (int64_t i = 0; i < n; i++)
                sum[i] += a[i] * v[i];
        }
        sw_store_part(y, r.first + t, c, n, sum);
    }
    for (int64_t k = 0; r.slot >= 0 && k < taps - 1; k++)
        sw_store(sw_at(state, (r.slot * (taps - 1) + k) * channels + c), state->dtype, n, ring + (r.rows + 1 + k) % taps * CHANNELS);
}

int SW_CPU(conv1d_fwd)(sw_stream *s, sw_tensor *y, sw_tensor *state, const sw_tensor *x, const sw_tensor *w, const sw_tensor *b,
                       const sw_tensor *seqs)
{
    int64_t blocks = (x->shape[1] + CHANNELS - 1) / CHANNELS, tasks = blocks * seqs->shape[0];
    size_t each = (size_t)(2 * w->shape[1] * CHANNELS) * sizeof(float);
    char *space = sw_thread_space(s, &each);
    if (!space)
        return -1;
#pragma omp parallel for schedule(dynamic) if (sw_numel(x) >= SW_PARALLEL)
    for (int64_t i = 0; i < tasks; i++) {
        sw_run r = sw_run_of(seqs, i / blocks);
        if (r.rows)
            convolve(y, state, x, w, b, r, i % blocks * CHANNELS, (float *)(space + (size_t)omp_get_thread_num() * each));
    }
    return 0;
}

/* One run of one block back. dx of place t is complete once place t + K - 1 has been seen: it waits in a ring, too. */
static void convolve_back(sw_tensor *dx, float *dtap, float *dbias, const sw_tensor *dy, const sw_tensor *x, const float *tap, sw_run r,
                          int64_t c, int64_t n, int64_t taps, float *ring)
{
    float *wait = ring + taps * CHANNELS, buf[CHANNELS];
    memset(ring, 0, (size_t)(2 * taps * CHANNELS) * sizeof *ring);
    for (int64_t t = 0; t < r.rows + taps - 1; t++) {
        if (t < r.rows) {
            float *in = ring + t % taps * CHANNELS;
            const float *from = sw_load_part(x, r.first + t, c, n, in), *d = sw_load_part(dy, r.first + t, c, n, buf);
            if (from != in)
                memcpy(in, from, (size_t)n * sizeof *in);
            for (int64_t k = 0; k < taps; k++) { /* of place t - K + 1 + k */
                const float *a = tap + k * CHANNELS, *v = ring + (t + 1 + k) % taps * CHANNELS;
                float *da = dtap + k * CHANNELS, *to = wait + (t + 1 + k) % taps * CHANNELS;
                for (int64_t i = 0; i < n; i++) {
                    da[i] += d[i] * v[i];
                    to[i] += d[i] * a[i];
                }
            }
            for (int64_t i = 0; i < n; i++)
                dbias[i] += d[i];
        }
        float *done = wait + (t + 1) % taps * CHANNELS;
        int64_t place = t - taps + 1;
        if (place >= 0 && dx)
            sw_store_part(dx, r.first + place, c, n, done);
        memset(done, 0, CHANNELS * sizeof *done);
    }
}

int SW_CPU(conv1d_bwd)(sw_stream *s, sw_tensor *dx, sw_tensor *dw, sw_tensor *db, const sw_tensor *dy, const sw_tensor *x,
                       const sw_tensor *w, const sw_tensor *seqs)
{
    int64_t channels = x->shape[1], taps = w->shape[1], blocks = (channels + CHANNELS - 1) / CHANNELS;
    size_t each = (size_t)(4 * taps * CHANNELS) * sizeof(float);
    char *space = sw_thread_space(s, &each);
    if (!space)
        return -1;
#pragma omp parallel for schedule(dynamic) if (sw_numel(x) >= SW_PARALLEL)
    for (int64_t block = 0; block < blocks; block++) {
        int64_t c = block * CHANNELS, n = SW_MIN(CHANNELS, channels - c);
        float *tap = (float *)(space + (size_t)omp_get_thread_num() * each), *dtap = tap + taps * CHANNELS, *ring = dtap + taps * CHANNELS,
              dbias[CHANNELS] = {0};
        load_taps(tap, w, c, n, taps);
        memset(dtap, 0, (size_t)(taps * CHANNELS) * sizeof *dtap);
        for (int64_t i = 0; i < seqs->shape[0]; i++)
            convolve_back(dx, dtap, dbias, dy, x, tap, sw_run_of(seqs, i), c, n, taps, ring);
        for (int64_t i = 0; i < n; i++) {
            for (int64_t k = 0; dw && k < taps; k++)
                ((float *)dw->data)[(c + i) * taps + k] += dtap[k * CHANNELS + i];
            if (db)
                ((float *)db->data)[c + i] += dbias[i];
        }
    }
    return 0;
}
