#include "train.h"

#include "base/interrupt.h"

#include <stdlib.h>
#include <string.h>

/* A position has a target where the next token of its segment carries weight. */
static bool labelled(const train_sample *s, int64_t i, int64_t end) { return i + 1 < end && s->weights[i + 1] != 0; }

double train_labelled(train_sample *const *samples, size_t n)
{
    double count = 0;
    for (size_t k = 0; k < n; k++)
        for (int64_t g = 0, i = 0; g < samples[k]->n_segments; g++)
            for (int64_t end = samples[k]->segments[g]; i < end; i++)
                count += labelled(samples[k], i, end);
    return count;
}

int train_run_part(train_run *r, train_sample *const *samples, size_t n, double divisor, bool backward, sw_loss *sum)
{
    /* A rank without records walks the same way with a token that teaches nothing. */
    int32_t id = 0;
    float weight = 0;
    uint32_t end = 1;
    train_sample idle = {1, 1, &id, &weight, &end}, *const only = &idle;
    sw_micro_batch b;
    if (!n && !parallel_needs_all(&r->parallel))
        return 0;
    return train_batch(&r->ctx, n ? samples : &only, n ? n : 1, &b) ||
                   r->objective->run(&r->ctx, r->model, &b, &r->objective_options, divisor, backward, backward && r->o->recompute, sum)
               ? -1
               : 0;
}

static int combine(sw_comm *c, void *flags) { return c->ops->all_reduce(c, flags, 2, SW_I64, SW_REDUCE_MAX); }

int train_poll(train_run *r)
{
    if (r->comm->ranks == 1) {
        r->stopping |= sw_interrupted();
        r->plot_asked |= sw_usr1_taken();
        return 0;
    }
    if (r->poll.asked) {
        r->poll.asked = false;
        if (sw_comm_wait(r->comm, r->poll.ticket))
            return -1;
        r->stopping |= r->poll.flags[0] != 0;
        r->plot_asked |= r->poll.flags[1] != 0;
    }
    if (!r->stopping) {
        r->poll.flags[0] = sw_interrupted();
        r->poll.flags[1] = sw_usr1_taken();
        r->poll.ticket = sw_comm_start(r->comm, combine, r->poll.flags);
        r->poll.asked = true;
    }
    return 0;
}

int train_batch(sw_ctx *c, train_sample *const *samples, size_t n, sw_micro_batch *b)
{
    *b = (sw_micro_batch){0};
    for (size_t k = 0; k < n; k++) {
        b->n += samples[k]->n;
        b->n_seqs += samples[k]->n_segments;
    }
    int32_t *ids = sw_ctx_alloc(c, (size_t)b->n * sizeof *ids), *targets = sw_ctx_alloc(c, (size_t)b->n * sizeof *targets);
    float *weights = sw_ctx_alloc(c, (size_t)b->n * sizeof *weights);
    int64_t *lengths = sw_ctx_alloc(c, (size_t)b->n_seqs * sizeof *lengths), at = 0, seq = 0;
    if (!ids || !targets || !weights || !lengths)
        return -1;
    for (size_t k = 0; k < n; k++) {
        const train_sample *s = samples[k];
        for (int64_t g = 0, i = 0; g < s->n_segments; g++) {
            int64_t end = s->segments[g];
            if (end == i) { /* an empty document */
                b->n_seqs--;
                continue;
            }
            lengths[seq++] = end - i;
            for (; i < end; i++, at++) {
                bool has = labelled(s, i, end);
                ids[at] = s->ids[i];
                targets[at] = has ? s->ids[i + 1] : -1;
                weights[at] = has ? s->weights[i + 1] : 0;
            }
        }
    }
    b->ids = ids;
    b->targets = targets;
    b->weights = weights;
    b->lengths = lengths;
    return 0;
}
