/* --estimate: nothing is guessed from formulas; two small batches are run forward and backward on the model, and what they
 * take is carried on to the batches of the data. */
#include "train.h"

#include "base/log.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Forward and backward of sequences of random ids. */
static int probe(train_run *r, int64_t sequences, int64_t length, double *bytes, double *seconds)
{
    train_sample *s = sw_malloc(sizeof *s + (size_t)length * 8 + 4);
    *s = (train_sample){.n = length, .n_segments = 1, .ids = (int32_t *)(s + 1), .weights = (float *)((int32_t *)(s + 1) + length),
                        .segments = (uint32_t *)((int32_t *)(s + 1) + 2 * length)};
    sw_rng rng = {1, 0, sw_rng_site("estimate")};
    for (int64_t i = 0; i < length; i++) {
        s->ids[i] = (int32_t)sw_rng_below(&rng, (uint64_t)i, (uint64_t)r->model->spec.vocab);
        s->weights[i] = i > 0 && (!r->model->spec.encoder_layers || i >= length / 2);
    }
    *s->segments = (uint32_t)length;
    train_sample **many = SW_NEW_ARRAY(train_sample *, (size_t)sequences);
    for (int64_t i = 0; i < sequences; i++)
        many[i] = s;
    /* A context of its own, so that its peak is this batch's. */
    sw_ctx c;
    int rc = sw_ctx_init(&c, r->device, r->compute);
    double best = INFINITY;
    for (int round = 0; round < 2 && !rc; round++) {
        sw_micro_batch b;
        sw_loss sum = {0};
        double begun = sw_now();
        rc = train_batch(&c, &r->model->spec, many, (size_t)sequences, 0, &b) ||
             r->objective->run(&c, r->model, &b, &r->objective_options, (double)b.n, true, r->o->recompute, &sum) ? -1 : 0;
        best = fmin(best, sw_now() - begun);
    }
    if (!rc)
        rc = sw_flat_zero_grad(&r->flat);
    *bytes = (double)sw_ctx_peak(&c);
    *seconds = best;
    sw_ctx_free(&c);
    free(many);
    free(s);
    return rc;
}

int train_estimate(train_run *r)
{
    const train_options *o = r->o;
    sw_shard_totals t;
    if (!feed_totals(r->feed, &t))
        return sw_fail("--estimate needs the data as a file");
    int64_t mean = SW_MAX(2, t.tokens / SW_MAX(t.segments, 1)), few = SW_MAX(1, 128 / mean), many = SW_MAX(2 * few, 384 / mean);
    double b1, b2, s1, s2;
    if (probe(r, few, mean, &b1, &s1) || probe(r, many, mean, &b2, &s2))
        return -1;
    double n1 = (double)(few * mean), n2 = (double)(many * mean), per_token = (b2 - b1) / (n2 - n1), base = fmax(0, b1 - per_token * n1);
    double usual = (double)t.tokens / (double)t.records * (double)o->batch, longest = (double)(t.longest * o->batch);
    double fixed = (double)r->fixed_bytes;
    int64_t all = sw_model_parameter_count(r->model, false), trained = 0;
    for (size_t i = 0; i < r->flat.n_params; i++)
        trained += sw_numel(&r->flat.params[i]->v.t);
    double tokens = (double)t.tokens * (double)r->steps / (double)r->epoch_steps, rate = n2 / s2;
    char x[32];
    if (r->tuned)
        all += trained;
    printf("parameters       %lld\n", (long long)all);
    printf("trained          %lld (%.3g %%)\n", (long long)trained, 100.0 * (double)trained / (double)all);
    printf("data             %lld records, %lld tokens, %lld labelled, longest %lld\n", (long long)t.records, (long long)t.tokens,
           (long long)t.labelled, (long long)t.longest);
    printf("updates          %lld of %lld records\n", (long long)r->steps, (long long)(o->batch * o->accumulate));
    printf("memory, fixed    %s for weights, gradients and optimiser states\n", sw_human_bytes(fixed, x));
    printf("memory, usual    %s with a batch of the mean length\n", sw_human_bytes(fixed + base + per_token * usual, x));
    printf("memory, most     %s with a batch of the longest records\n", sw_human_bytes(fixed + base + per_token * longest, x));
    printf("speed            %.0f tokens/s (measured on %.0f tokens; %s, %s)\n", rate, n2, r->device->description, r->compute == SW_F32 ? "f32" : "bf16");
    printf("time             %s\n", sw_human_seconds(tokens / rate, x));
    return SW_EXIT_OK;
}
