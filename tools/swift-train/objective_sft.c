/* Supervised fine-tuning: weighted cross entropy of the labelled tokens, with label smoothing e (Szegedy et al. 2016):
 * sum of w_t ((1 - e) (-log p_t(y_t)) + e mean_v (-log p_t(v))) over the divisor. */
#include "objective.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static void count_spans_of(const sw_tags *t, const int32_t *want, const int32_t *got, size_t n, sw_loss *sum)
{
    sw_tag_spans a = {0}, b = {0};
    sw_tags_spans(t, want, n, &a);
    sw_tags_spans(t, got, n, &b);
    sum->spans += (double)a.n;
    sum->said += (double)b.n;
    for (size_t i = 0, k = 0; i < a.n && k < b.n;) { /* both are in order */
        bool same = a.at[i].start == b.at[k].start && a.at[i].end == b.at[k].end && !strcmp(a.at[i].type, b.at[k].type);
        sum->right += same;
        if (a.at[i].start <= b.at[k].start)
            i++;
        else
            k++;
    }
    free(a.at);
    free(b.at);
}

/* The spans that the classes of each sequence's words say. */
static void count_spans(const sw_micro_batch *b, const sw_tags *t, const int32_t *best, sw_loss *sum)
{
    int32_t *want = SW_NEW_ARRAY(int32_t, (size_t)b->n + 1), *got = SW_NEW_ARRAY(int32_t, (size_t)b->n + 1);
    for (int64_t k = 0, i = 0; t->spans && k < b->n_seqs; k++) {
        size_t words = 0;
        for (int64_t end = i + b->lengths[k]; i < end; i++)
            if (b->targets[i] >= 0) {
                want[words] = b->targets[i];
                got[words++] = best[i];
            }
        count_spans_of(t, want, got, words, sum);
    }
    free(want);
    free(got);
}

static int go_back(sw_ctx *c, int64_t n, const sw_logprobs *out, const float *dlogp, const float *dmean)
{
    sw_var *g = sw_from_host(c, SW_F32, 1, &n, dlogp), *gm = dmean ? sw_from_host(c, SW_F32, 1, &n, dmean) : NULL;
    if (!g || (dmean && !gm))
        return -1;
    if (gm)
        sw_seed_grad(c, out->mean_logp, gm->t);
    return sw_backward(c, out->logp, &g->t);
}

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
    sw_micro_batch there = *b;
    sw_head head = sw_model_head(m);
    sw_logprobs out;
    sw_var *h = sw_micro_prepare(c, m, &there) ? NULL : sw_model_run(c, there.pass, recompute && backward);
    int rc = !h || sw_token_logprobs(c, h, &head,
                                     &(sw_logprob_request){.targets = there.target_ids, .want_mean = e > 0, .dlogp = backward ? dlogp : NULL,
                                                           .dmean = backward && e > 0 ? dmean : NULL},
                                     &out)
                 ? -1
                 : 0;
    if (!rc && backward)
        rc = go_back(c, b->n, &out, dlogp, e > 0 ? dmean : NULL);
    if (!rc && b->meanwhile)
        b->meanwhile(b->meanwhile_arg);
    if (!rc)
        rc = sw_to_host(c, out.logp, logp) || sw_to_host(c, out.best, best) || (e > 0 && sw_to_host(c, out.mean_logp, mean)) ? -1 : 0;
    if (!rc && o->tags && !backward)
        count_spans(b, o->tags, best, sum);
    for (size_t i = 0; !rc && i < n; i++) {
        if (b->targets[i] < 0)
            continue;
        sum->loss -= b->weights[i] / divisor * ((1 - e) * logp[i] + (e > 0 ? e * mean[i] : 0));
        sum->weight += b->weights[i];
        sum->labelled++;
        sum->correct += best[i] == b->targets[i];
    }
    sw_ctx_reset(c);
    c->recording = c->training = false;
    return rc;
}

static const char *const columns[] = {NULL};
const sw_objective sw_objective_sft = {.name = "sft", .columns = columns, .run = sft};
/* The same, of the words that were hidden. */
const sw_objective sw_objective_mlm = {.name = "mlm", .columns = columns, .run = sft, .masks = true};
/* The same, of the classes of words. */
static const char *const tag_columns[] = {"tags", NULL};
const sw_objective sw_objective_tag = {.name = "tag", .columns = tag_columns, .run = sft, .of_words = true};
