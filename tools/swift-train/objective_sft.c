/* Supervised fine-tuning: weighted cross entropy of the labelled tokens, with label smoothing e (Szegedy et al. 2016):
 * sum of w_t ((1 - e) (-log p_t(y_t)) + e mean_v (-log p_t(v))) over the divisor. */
#include "objective.h"

#include "base/memory.h"

static int sft(sw_ctx *c, sw_model *m, const sw_micro_batch *b, const sw_objective_options *o, double divisor, bool backward, bool recompute,
               sw_loss *sum)
{
    double e = o->label_smoothing;
    size_t n = (size_t)b->n;
    float *dlogp = sw_ctx_alloc(c, n * sizeof *dlogp), *dmean = sw_ctx_alloc(c, n * sizeof *dmean);
    float *logp = sw_ctx_alloc(c, n * sizeof *logp), *mean = sw_ctx_alloc(c, n * sizeof *mean);
    int32_t *best = sw_ctx_alloc(c, n * sizeof *best);
    for (size_t i = 0; i < n; i++) {
        double w = b->targets[i] >= 0 ? b->weights[i] / divisor : 0;
        dlogp[i] = (float)(-(1 - e) * w);
        dmean[i] = (float)(-e * w);
    }
    c->recording = c->training = backward;
    sw_batch batch = {.n = b->n, .n_seqs = b->n_seqs, .ids = b->ids, .lengths = b->lengths, .source_ids = b->source_ids,
                      .source_lengths = b->source_lengths};
    sw_head head = sw_model_head(m);
    sw_logprobs out;
    sw_var *h = sw_model_forward(c, m, &batch, recompute && backward);
    int rc = !h || sw_token_logprobs(c, h, &head,
                                     &(sw_logprob_request){.targets = b->targets, .want_mean = e > 0, .dlogp = backward ? dlogp : NULL,
                                                           .dmean = backward && e > 0 ? dmean : NULL},
                                     &out) ||
                     sw_to_host(c, out.logp, logp) || sw_to_host(c, out.best, best) || (e > 0 && sw_to_host(c, out.mean_logp, mean))
                 ? -1
                 : 0;
    for (size_t i = 0; !rc && i < n; i++) {
        if (b->targets[i] < 0)
            continue;
        sum->loss -= b->weights[i] / divisor * ((1 - e) * logp[i] + (e > 0 ? e * mean[i] : 0));
        sum->weight += b->weights[i];
        sum->labelled++;
        sum->correct += best[i] == b->targets[i];
    }
    if (!rc && backward) {
        sw_var *g = sw_from_host(c, SW_F32, 1, &b->n, dlogp), *gm = e > 0 ? sw_from_host(c, SW_F32, 1, &b->n, dmean) : NULL;
        if (!g || (e > 0 && !gm)) {
            rc = -1;
        } else {
            if (gm)
                sw_seed_grad(c, out.mean_logp, gm->t);
            rc = sw_backward(c, out.logp, &g->t);
        }
    }
    sw_ctx_reset(c);
    c->recording = c->training = false;
    return rc;
}

static const char *const columns[] = {NULL};
const sw_objective sw_objective_sft = {.name = "sft", .columns = columns, .run = sft};
/* The same, of the words that were hidden. */
const sw_objective sw_objective_mlm = {.name = "mlm", .columns = columns, .run = sft, .masks = true};
