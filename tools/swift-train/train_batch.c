#include "train.h"

#include <stdlib.h>
#include <string.h>

void train_step_free(train_step_data *d)
{
    for (size_t i = 0; i < d->n; i++)
        free(d->at[i]);
    d->n = 0;
}

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
