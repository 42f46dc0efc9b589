#include "train.h"

#include "base/interrupt.h"

#include <stdlib.h>
#include <string.h>

/* A token's key: its record's number in the update, and its place in the record. */
static int64_t key_of(int64_t record, int64_t place) { return record << 32 | place; }

/* A position has a target where the next token of its segment carries weight. */
static bool labelled(const train_sample *s, int64_t i, int64_t end) { return i + 1 < end && s->weights[i + 1] != 0; }

double train_labelled(const sw_objective *o, train_sample *const *samples, size_t n)
{
    double count = 0;
    for (size_t k = 0; k < n && o->of_records; k++)
        count += samples[k]->n_labels > 0;
    for (size_t k = 0; k < n && (o->masks || o->of_words); k++)
        for (int64_t i = 0; i < samples[k]->n; i++)
            count += samples[k]->targets[i] >= 0;
    for (size_t k = 0; k < n && !o->of_records && !o->masks && !o->of_words; k++)
        for (int64_t g = 0, i = 0; g < samples[k]->n_segments; g++)
            for (int64_t end = samples[k]->segments[g]; i < end; i++)
                count += labelled(samples[k], i, end);
    return count;
}

void train_forget_sent(train_run *r)
{
    if (r->sent.c)
        sw_ctx_reset(r->sent.c);
    r->sent.c = NULL;
}

static sw_ctx *context_apart(train_run *r, const sw_ctx *c) { return c == &r->ctx ? &r->twin : &r->ctx; }

void train_send(train_run *r, const train_part *p)
{
    train_forget_sent(r);
    sw_ctx *c = context_apart(r, r->at_work);
    if (train_batch(c, &r->model->spec, p->samples, p->n, p->first, &r->sent.b) || sw_micro_prepare(c, r->model, &r->sent.b)) {
        sw_ctx_reset(c); /* it is said when it is to be run */
        sw_error_clear();
        return;
    }
    r->sent.c = c;
    r->sent.first = p->samples[0];
    r->sent.n = p->n;
}

int train_run_part(train_run *r, const train_part *p, sw_loss *sum)
{
    train_sample *const *samples = p->samples;
    size_t n = p->n;
    /* A rank without records walks the same way with a token that teaches nothing. */
    int32_t id = 0;
    float weight = 0;
    uint32_t end = 1;
    train_sample idle = {.n = 1, .n_segments = 1, .ids = &id, .weights = &weight, .segments = &end}, *const only = &idle;
    sw_micro_batch b;
    if (!n && !parallel_needs_all(&r->parallel))
        return 0;
    if (r->sent.c && n && r->sent.first == samples[0] && r->sent.n == n) {
        r->at_work = r->sent.c;
        b = r->sent.b;
        r->sent.c = NULL;
    } else {
        r->at_work = context_apart(r, r->sent.c ? r->sent.c : &r->twin);
        if (train_batch(r->at_work, &r->model->spec, n ? samples : &only, n ? n : 1, p->first, &b))
            return -1;
    }
    if (r->device->send) { /* else nothing would come of it */
        b.meanwhile = p->meanwhile;
        b.meanwhile_arg = p->meanwhile_arg;
    }
    return r->objective->run(r->at_work, r->model, &b, &r->objective_options, p->divisor, p->backward, p->backward && r->o->recompute, sum);
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

/* A sequence for a model with an encoder: that reads what comes before the first token with weight, and the decoder learns
 * to write the rest. Where no token has weight nothing is learnt, and the decoder only begins. */
static void add_pair(const sw_spec *spec, const train_sample *s, int64_t from, int64_t end, sw_micro_batch *b, int32_t *source, int64_t *source_length,
                     int64_t *n_source, int32_t *ids, int32_t *targets, float *weights, int64_t *length, int64_t record, int64_t *keys,
                     int64_t *source_keys)
{
    int64_t first = from + 1, at = b->n;
    while (first < end && s->weights[first] == 0)
        first++;
    memcpy(source + *n_source, s->ids + from, (size_t)(first - from) * sizeof *source);
    for (int64_t i = from; i < first; i++)
        source_keys[*n_source + i - from] = key_of(record, i);
    *n_source += *source_length = first - from;
    for (int64_t i = first; i < end; i++, at++) {
        ids[at] = i == first ? spec->decoder_start : s->ids[i - 1];
        keys[at] = key_of(record, i);
        weights[at] = s->weights[i];
        targets[at] = weights[at] != 0 ? s->ids[i] : -1;
    }
    if (first == end) {
        ids[at] = spec->decoder_start;
        keys[at] = key_of(record, end);
        weights[at] = 0;
        targets[at++] = -1;
    }
    *length = at - b->n;
    b->n = at;
}

static int batch_of_pairs(sw_ctx *c, const sw_spec *spec, train_sample *const *samples, size_t n, int64_t first, sw_micro_batch *b)
{
    int64_t most = 0, seqs = 0, n_source = 0;
    for (size_t k = 0; k < n; k++) {
        most += samples[k]->n + samples[k]->n_segments;
        seqs += samples[k]->n_segments;
    }
    int32_t *ids = sw_ctx_alloc(c, (size_t)most * sizeof *ids), *targets = sw_ctx_alloc(c, (size_t)most * sizeof *targets);
    int32_t *source = sw_ctx_alloc(c, (size_t)most * sizeof *source);
    int64_t *keys = sw_ctx_alloc(c, (size_t)most * sizeof *keys), *source_keys = sw_ctx_alloc(c, (size_t)most * sizeof *source_keys);
    float *weights = sw_ctx_alloc(c, (size_t)most * sizeof *weights);
    int64_t *lengths = sw_ctx_alloc(c, (size_t)seqs * sizeof *lengths), *source_lengths = sw_ctx_alloc(c, (size_t)seqs * sizeof *lengths);
    for (size_t k = 0; k < n; k++)
        for (int64_t g = 0, from = 0, end; g < samples[k]->n_segments; g++, from = end) {
            end = samples[k]->segments[g];
            if (end == from) /* an empty document */
                continue;
            add_pair(spec, samples[k], from, end, b, source, &source_lengths[b->n_seqs], &n_source, ids, targets, weights, &lengths[b->n_seqs],
                     first + (int64_t)k, keys, source_keys);
            b->n_seqs++;
        }
    b->ids = ids;
    b->targets = targets;
    b->weights = weights;
    b->lengths = lengths;
    b->source_ids = source;
    b->source_lengths = source_lengths;
    b->keys = keys;
    b->source_keys = source_keys;
    return 0;
}

int train_batch(sw_ctx *c, const sw_spec *spec, train_sample *const *samples, size_t n, int64_t first, sw_micro_batch *b)
{
    *b = (sw_micro_batch){0};
    if (spec->encoder_layers)
        return batch_of_pairs(c, spec, samples, n, first, b);
    for (size_t k = 0; k < n; k++) {
        b->n += samples[k]->n;
        b->n_seqs += samples[k]->n_segments;
    }
    int32_t *ids = sw_ctx_alloc(c, (size_t)b->n * sizeof *ids), *targets = sw_ctx_alloc(c, (size_t)b->n * sizeof *targets);
    float *weights = sw_ctx_alloc(c, (size_t)b->n * sizeof *weights);
    int64_t *keys = sw_ctx_alloc(c, (size_t)b->n * sizeof *keys);
    int64_t *lengths = sw_ctx_alloc(c, (size_t)b->n_seqs * sizeof *lengths), at = 0, seq = 0, all = 0;
    int64_t *n_labels = sw_ctx_alloc(c, (size_t)b->n_seqs * sizeof *n_labels);
    for (size_t k = 0; k < n; k++)
        all += samples[k]->n_labels;
    float *labels = sw_ctx_alloc(c, (size_t)all * sizeof *labels);
    all = 0;
    for (size_t k = 0; k < n; k++) {
        const train_sample *s = samples[k];
        if (s->n_labels && s->n_segments != 1)
            return sw_fail("a record of %lld texts has one label", (long long)s->n_segments);
        if (s->n_labels && s->n)
            memcpy(labels + all, s->labels, (size_t)s->n_labels * sizeof *labels);
        all += s->n ? s->n_labels : 0;
        for (int64_t g = 0, i = 0; g < s->n_segments; g++) {
            int64_t end = s->segments[g];
            if (end == i) { /* an empty document */
                b->n_seqs--;
                continue;
            }
            n_labels[seq] = s->n_labels ? s->n_labels : -1;
            lengths[seq++] = end - i;
            for (; i < end; i++, at++) {
                bool has = labelled(s, i, end);
                ids[at] = s->ids[i];
                keys[at] = key_of(first + (int64_t)k, i);
                targets[at] = s->targets ? s->targets[i] : has ? s->ids[i + 1] : -1;
                weights[at] = s->targets ? targets[at] >= 0 : has ? s->weights[i + 1] : 0;
            }
        }
    }
    b->ids = ids;
    b->targets = targets;
    b->weights = weights;
    b->lengths = lengths;
    b->keys = keys;
    b->labels = labels;
    b->n_labels = n_labels;
    return 0;
}

int sw_micro_prepare(sw_ctx *c, sw_model *m, sw_micro_batch *b)
{
    if (b->pass)
        return 0;
    b->pass = sw_model_prepare(c, m, &(sw_batch){.n = b->n, .n_seqs = b->n_seqs, .ids = b->ids, .lengths = b->lengths,
                                                 .source_ids = b->source_ids, .source_lengths = b->source_lengths, .keys = b->keys,
                                                 .source_keys = b->source_keys});
    b->target_ids = b->pass && b->targets ? sw_from_host(c, SW_I32, 1, &b->n, b->targets) : NULL;
    return b->pass && (b->target_ids || !b->targets) ? 0 : -1;
}
