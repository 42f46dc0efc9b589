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
/* The same, of the classes of words. */
static const char *const tag_columns[] = {"tags", NULL};
const sw_objective sw_objective_tag = {.name = "tag", .columns = tag_columns, .run = sft, .of_words = true};
