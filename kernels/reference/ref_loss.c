/* Log-softmax at a target, drawing a token, and AdamW. */
#include "kernels/reference/reference.h"

#include "kernels/draw.h"

#include <math.h>

int ref_xent_fwd(sw_stream *s, sw_tensor *logp, sw_tensor *mean_logp, sw_tensor *lse, sw_tensor *best,
                 const sw_tensor *logits, const sw_tensor *targets)
{
    int64_t width = logits->shape[1];
    assert(logits->ndim == 2 && width > 0 && targets->dtype == SW_I32 && sw_numel(targets) == logits->shape[0]);
    assert(ref_is_f32(logp) && ref_is_f32(lse) && (!best || best->dtype == SW_I32));
    double *row = ref_scratch(s, width);
    if (!row)
        return -1;
    for (int64_t n = 0; n < logits->shape[0]; n++) {
        int64_t top = 0, target = (int64_t)ref_get(targets, n);
        double sum = 0, total = 0;
        assert(target < width);
        ref_load(row, logits, n);
        for (int64_t i = 1; i < width; i++)
            if (row[i] > row[top])
                top = i;
        for (int64_t i = 0; i < width; i++) {
            sum += exp(row[i] - row[top]);
            total += row[i];
        }
        double log_sum = row[top] + log(sum);
        ref_set(lse, n, log_sum);
        ref_set(logp, n, target >= 0 ? row[target] - log_sum : 0);
        if (mean_logp)
            ref_set(mean_logp, n, total / (double)width - log_sum);
        if (best)
            ref_set(best, n, (double)top);
    }
    return 0;
}

int ref_xent_bwd(sw_stream *s, sw_tensor *dlogits, const sw_tensor *logits, const sw_tensor *lse,
                 const sw_tensor *targets, const sw_tensor *dlogp, const sw_tensor *dmean)
{
    int64_t width = logits->shape[1];
    assert(logits->ndim == 2 && ref_same_shape(dlogits, logits) && sw_numel(targets) == logits->shape[0]);
    double *row = ref_scratch(s, width);
    if (!row)
        return -1;
    for (int64_t n = 0; n < logits->shape[0]; n++) {
        int64_t target = (int64_t)ref_get(targets, n);
        double log_sum = ref_get(lse, n), g = target >= 0 ? ref_get(dlogp, n) : 0, m = dmean ? ref_get(dmean, n) : 0;
        ref_load(row, logits, n);
        for (int64_t i = 0; i < width; i++)
            row[i] = m / (double)width - (g + m) * exp(row[i] - log_sum) + (i == target ? g : 0);
        ref_store(dlogits, n, row, 0);
    }
    return 0;
}

int ref_adamw(sw_stream *s, sw_tensor *p, sw_tensor *low, const sw_tensor *g, sw_tensor *m, sw_tensor *v,
              const sw_adamw *o)
{
    int64_t n = sw_numel(p);
    assert(ref_is_f32(p) && ref_is_f32(g) && ref_is_f32(m) && ref_is_f32(v) && o->step >= 1);
    assert(sw_numel(g) == n && sw_numel(m) == n && sw_numel(v) == n && (!low || sw_numel(low) == n));
    (void)s;
    double first = 1 - pow(o->beta1, (double)o->step), second = sqrt(1 - pow(o->beta2, (double)o->step));
    for (int64_t i = 0; i < n; i++) {
        double grad = ref_get(g, i) * o->grad_scale;
        double mean = o->beta1 * ref_get(m, i) + (1 - o->beta1) * grad;
        double square = o->beta2 * ref_get(v, i) + (1 - o->beta2) * grad * grad;
        double value = ref_get(p, i) * (1 - o->lr * o->decay);
        value -= o->lr / first * mean / (sqrt(square) / second + o->eps);
        ref_set(m, i, mean);
        ref_set(v, i, square);
        ref_set(p, i, value);
        if (low)
            ref_set(low, i, ref_get(p, i));
    }
    return 0;
}

int ref_sample(sw_stream *s, sw_tensor *out, sw_tensor *logits, const sw_tensor *draws, const sw_tensor *seen)
{
    const sw_draw *d = draws->data;
    (void)s;
    assert(logits->dtype == SW_F32 && logits->ndim == 2 && out->dtype == SW_F64 && sw_numel(out) == 2 * logits->shape[0]);
    assert(sw_numel(draws) == logits->shape[0] * (int64_t)sizeof *d && seen->dtype == SW_I32 && seen->shape[1] == 2);
    for (int64_t r = 0; r < logits->shape[0]; r++)
        sw_draw_row((double *)out->data + 2 * r, (float *)logits->data + r * logits->stride[0], logits->shape[1], &d[r],
                    (const int32_t(*)[2])seen->data + d[r].seen_first);
    return 0;
}
