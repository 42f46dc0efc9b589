/* Log-softmax at the target over a large vocabulary: one pass over memory. And drawing a token. */
#include "cpu_isa.h"
#include "cpu_math.h"
#include "kernels/draw.h"

#include <math.h>

static float run_max(const float *v, int64_t n)
{
    float lane[2 * SW_LANES];
    int64_t j = 0;
    for (int l = 0; l < 2 * SW_LANES; l++)
        lane[l] = -INFINITY;
    for (; j + 2 * SW_LANES <= n; j += 2 * SW_LANES)
        for (int l = 0; l < 2 * SW_LANES; l++)
            lane[l] = v[j + l] > lane[l] ? v[j + l] : lane[l];
    for (; j < n; j++)
        lane[0] = v[j] > lane[0] ? v[j] : lane[0];
    for (int l = 1; l < 2 * SW_LANES; l++)
        lane[0] = lane[l] > lane[0] ? lane[l] : lane[0];
    return lane[0];
}

/* Sum of exp(v - top) and, where asked, of v - top. */
static double run_sums(const float *v, int64_t n, float top, double *plain)
{
    float e[2 * SW_LANES] = {0}, p[2 * SW_LANES] = {0};
    int64_t j = 0;
    for (; j + 2 * SW_LANES <= n; j += 2 * SW_LANES)
        for (int l = 0; l < 2 * SW_LANES; l++) {
            e[l] += sw_exp(v[j + l] - top);
            p[l] += v[j + l];
        }
    for (; j < n; j++) {
        e[0] += sw_exp(v[j] - top);
        p[0] += v[j];
    }
    double sum = 0;
    for (int l = 0; l < 2 * SW_LANES; l++) {
        sum += e[l];
        *plain += p[l];
    }
    return sum;
}

int SW_CPU(xent_fwd)(sw_stream *s, sw_tensor *logp, sw_tensor *mean_logp, sw_tensor *lse, sw_tensor *best,
                     const sw_tensor *logits, const sw_tensor *targets)
{
    (void)s;
    int64_t n = logits->shape[0], vocabulary = logits->shape[1];
    const int32_t *target = targets->data;
#pragma omp parallel for schedule(static) if (n * vocabulary >= SW_PARALLEL / 8)
    for (int64_t i = 0; i < n; i++) {
        float top = -INFINITY, buf[SW_RUN];
        double sum = 0, plain = 0;
        int32_t first = 0;
        int64_t row = i * logits->stride[0];
        for (int64_t c = 0; c < vocabulary; c += SW_RUN) {
            int64_t m = vocabulary - c < SW_RUN ? vocabulary - c : SW_RUN;
            const float *v = sw_load(sw_at(logits, row + c), logits->dtype, m, buf);
            float most = run_max(v, m);
            if (most > top) {
                int64_t j = 0;
                while (v[j] != most)
                    j++;
                first = (int32_t)(c + j);
                sum *= exp((double)top - most);
                top = most;
            }
            sum += run_sums(v, m, top == -INFINITY ? 0 : top, &plain);
        }
        double total = (top == -INFINITY ? 0 : top) + log(sum);
        int32_t t = target[i];
        float at = 0;
        if (t >= 0)
            at = *sw_load(sw_at(logits, row + t), logits->dtype, 1, buf);
        ((float *)lse->data)[i] = (float)total;
        ((float *)logp->data)[i] = t >= 0 ? (float)(at - total) : 0;
        if (mean_logp)
            ((float *)mean_logp->data)[i] = (float)(plain / (double)vocabulary - total);
        if (best)
            ((int32_t *)best->data)[i] = first;
    }
    return 0;
}

int SW_CPU(xent_bwd)(sw_stream *s, sw_tensor *dlogits, const sw_tensor *logits, const sw_tensor *lse, const sw_tensor *targets,
                     const sw_tensor *dlogp, const sw_tensor *dmean)
{
    (void)s;
    int64_t n = logits->shape[0], vocabulary = logits->shape[1];
    const int32_t *target = targets->data;
    const float *total = lse->data, *dp = dlogp->data, *dm = dmean ? dmean->data : NULL;
#pragma omp parallel for schedule(static) if (n * vocabulary >= SW_PARALLEL / 8)
    for (int64_t i = 0; i < n; i++) {
        float buf[SW_RUN], out[SW_RUN], top = total[i];
        int32_t t = target[i];
        float at = t >= 0 ? dp[i] : 0, mean = dm ? dm[i] : 0, every = mean / (float)vocabulary, p = at + mean;
        for (int64_t c = 0; c < vocabulary; c += SW_RUN) {
            int64_t m = vocabulary - c < SW_RUN ? vocabulary - c : SW_RUN;
            const float *v = sw_load(sw_at(logits, i * logits->stride[0] + c), logits->dtype, m, buf);
            for (int64_t j = 0; j < m; j++)
                out[j] = every - p * sw_exp(v[j] - top);
            if (t >= c && t < c + m)
                out[t - c] = at * (1 - sw_exp(v[t - c] - top)) + mean * (1 / (float)vocabulary - sw_exp(v[t - c] - top));
            sw_store(sw_at(dlogits, i * dlogits->stride[0] + c), dlogits->dtype, m, out);
        }
    }
    return 0;
}

int SW_CPU(sample)(sw_stream *s, sw_tensor *out, sw_tensor *logits, const sw_tensor *draws, const sw_tensor *seen)
{
    const sw_draw *d = draws->data;
    (void)s;
#pragma omp parallel for schedule(dynamic) if (logits->shape[0] > 1 && logits->shape[1] >= SW_PARALLEL / 8)
    for (int64_t r = 0; r < logits->shape[0]; r++)
        sw_draw_row((double *)out->data + 2 * r, (float *)logits->data + r * logits->stride[0], logits->shape[1], &d[r],
                    (const int32_t(*)[2])seen->data + d[r].seen_first);
    return 0;
}
