/* How fast a model runs: model FOLDER TOKENS DECODED BATCH THREADS, on random ids in bf16 (f32 where the processor has no
 * products of bf16). Prints a JSON object of tokens a second:
 * prompt: TOKENS of one sequence through the model, the last one's logits; encoders: BATCH sequences at once, all logits;
 * decode: DECODED tokens of one sequence, one after the other, after them;
 * step: forward and backward of BATCH sequences of TOKENS, with the gradient of every weight;
 * and of numbers of weights (parameters) and of those that a token meets (active). */
#include "base/memory.h"
#include "model/cache.h"
#include "model/ffn_moe.h"
#include "model/model.h"
#include "nn/logprob.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 3 };

/* Of the processor where there is one thread: the same on a machine that others use. */
static double now(void)
{
    struct timespec t;
    clock_gettime(omp_get_max_threads() > 1 ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int64_t at_random(uint64_t *state, int64_t below)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((*state >> 33) % (uint64_t)below);
}

/* Logits of `rows` rows from `first` on, to the host. */
static int logits_of(sw_ctx *c, sw_model *m, sw_var *h, int64_t first, int64_t rows, float *to)
{
    sw_head head = sw_model_head(m);
    sw_var *y = h ? sw_logits(c, sw_row_range(c, h, first, rows), &head) : NULL;
    return y ? sw_to_host(c, y, to) : -1;
}

/* The best rates of a prompt and of decoding after it. */
static int prompt_and_decode(sw_model *m, sw_dtype type, const int32_t *ids, int64_t n, int64_t decoded, double rate[2])
{
    sw_ctx c = {0};
    float *row = SW_NEW_ARRAY(float, (size_t)m->spec.vocab);
    int rc = sw_ctx_init(&c, m->device, type);
    for (int round = 0; !rc && round < ROUNDS; round++) {
        sw_cache cache;
        rc = sw_cache_init(&cache, &c, m, 1);
        double start = now(), middle = start;
        for (int64_t i = 0; !rc && i <= decoded; i++) {
            int64_t count = i ? 1 : n;
            sw_batch b = {.n = count, .n_seqs = 1, .ids = i ? ids + i : ids, .lengths = &count, .cache = &cache, .slots = &(int64_t){0}};
            rc = logits_of(&c, m, sw_model_forward(&c, m, &b, false), count - 1, 1, row);
            sw_ctx_reset(&c);
            if (!i)
                middle = now();
        }
        rate[0] = SW_MAX(rate[0], (double)n / (middle - start));
        rate[1] = SW_MAX(rate[1], (double)decoded / (now() - middle));
        sw_cache_free(&cache, m);
    }
    sw_ctx_free(&c);
    free(row);
    return rc;
}

static int whole_batches(sw_model *m, sw_dtype type, const int32_t *ids, int64_t n, int64_t batch, double *rate)
{
    sw_ctx c = {0};
    int64_t *lengths = SW_NEW_ARRAY(int64_t, (size_t)batch);
    float *rows = SW_NEW_ARRAY(float, (size_t)(n * m->spec.vocab));
    for (int64_t i = 0; i < batch; i++)
        lengths[i] = n;
    int rc = sw_ctx_init(&c, m->device, type);
    for (int round = 0; !rc && round < ROUNDS; round++) {
        sw_batch b = {.n = n * batch, .n_seqs = batch, .ids = ids, .lengths = lengths};
        double start = now();
        sw_var *h = sw_model_forward(&c, m, &b, false);
        for (int64_t i = 0; !rc && i < batch; i++) {
            sw_scope scope = sw_scope_begin(&c);
            rc = logits_of(&c, m, h, i * n, n, rows);
            sw_scope_end(&c, scope, NULL, 0);
        }
        *rate = SW_MAX(*rate, (double)(n * batch) / (now() - start));
        sw_ctx_reset(&c);
    }
    sw_ctx_free(&c);
    free(lengths);
    free(rows);
    return rc;
}

static int steps(sw_model *m, sw_dtype type, const int32_t *ids, int64_t n, int64_t batch, double *rate)
{
    sw_ctx c = {0};
    sw_flat flat = {0};
    int64_t all = n * batch, *lengths = SW_NEW_ARRAY(int64_t, (size_t)batch);
    int32_t *targets = SW_NEW_ARRAY(int32_t, (size_t)all);
    float *seed = SW_NEW_ARRAY(float, (size_t)all);
    for (int64_t i = 0; i < batch; i++)
        lengths[i] = n;
    for (int64_t i = 0; i < all; i++) {
        targets[i] = (i + 1) % n ? ids[i + 1] : -1;
        seed[i] = targets[i] >= 0 ? -1.0f / (float)(all - batch) : 0;
    }
    for (size_t i = 0; i < m->params.n; i++)
        m->params.at[i]->trainable = !m->params.at[i]->fixed;
    int rc = sw_ctx_init(&c, m->device, type) || sw_flat_build(&flat, &m->params, m->device, type);
    for (int round = 0; !rc && round < ROUNDS; round++) {
        sw_batch b = {.n = all, .n_seqs = batch, .ids = ids, .lengths = lengths};
        sw_head head = sw_model_head(m);
        sw_logprobs out;
        double start = now();
        c.recording = true;
        sw_var *h = sw_flat_zero_grad(&flat) ? NULL : sw_model_forward(&c, m, &b, false), *d;
        sw_var *wanted = h ? sw_from_host(&c, SW_I32, 1, &all, targets) : NULL;
        rc = !wanted || sw_token_logprobs(&c, h, &head, &(sw_logprob_request){.targets = wanted, .dlogp = seed}, &out) ||
             !(d = sw_from_host(&c, SW_F32, 1, &all, seed)) || sw_backward(&c, out.logp, &d->t) ? -1 : 0;
        *rate = SW_MAX(*rate, (double)all / (now() - start));
        sw_ctx_reset(&c);
    }
    sw_ctx_free(&c);
    sw_flat_free(&flat);
    free(lengths);
    free(targets);
    free(seed);
    return rc;
}

/* Weights of matrices, those of experts as often as they are chosen; tables that are only looked up in count nothing. */
static double active_weights(const sw_model *m)
{
    double sum = 0;
    for (size_t i = 0; i < m->params.n; i++) {
        const sw_param *p = m->params.at[i];
        double share = 1;
        for (int64_t l = 0; l < m->spec.layers; l++)
            if (m->spec.layer[l].ffn == &sw_ffn_moe && strstr(p->name, ".experts")) {
                const sw_moe *o = m->spec.layer[l].ffn_options;
                share = (double)o->router.k / (double)o->experts;
            }
        bool table = (&p->v == &m->embed.w->v && m->head.w != m->embed.w) || (m->positions.w && p == m->positions.w) ||
                     (m->types.w && p == m->types.w);
        if (p->v.t.ndim >= 2 && !table && !strstr(p->name, "conv"))
            sum += share * (double)sw_numel(&p->v.t);
    }
    return sum;
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "model FOLDER TOKENS DECODED BATCH THREADS\n");
        return SW_EXIT_USAGE;
    }
    int64_t n = atoll(argv[2]), decoded = atoll(argv[3]), batch = atoll(argv[4]);
    omp_set_num_threads(atoi(argv[5]));
    sw_device *d = sw_device_open("cpu");
    sw_dtype type = d && d->low_precision ? SW_BF16 : SW_F32;
    sw_model *m = d ? sw_model_load(argv[1], d, &(sw_load_options){.dtype = type}) : NULL;
    int rc = m && n > 0 && decoded >= 0 && batch > 0 ? 0 : -1;
    double rate[3] = {0}, active = m ? active_weights(m) : 0;
    int64_t parameters = m ? sw_model_parameter_count(m, false) : 0, count = SW_MAX(n * batch, n + decoded);
    int32_t *ids = SW_NEW_ARRAY(int32_t, (size_t)SW_MAX(count, 1));
    uint64_t state = 1;
    for (int64_t i = 0; m && i < count; i++)
        ids[i] = (int32_t)at_random(&state, m->spec.vocab);
    if (!rc && m->spec.task == SW_TASK_LM)
        rc = prompt_and_decode(m, type, ids, n, decoded, rate) || steps(m, type, ids, n, batch, &rate[2]);
    else if (!rc)
        rc = whole_batches(m, type, ids, n, batch, &rate[0]) || steps(m, type, ids, n, batch, &rate[2]);
    if (!rc)
        printf("{\"prompt\": %.6g, \"decode\": %.6g, \"step\": %.6g, \"parameters\": %lld, \"active\": %.0f}\n", rate[0], rate[1], rate[2],
               (long long)parameters, active);
    else
        fprintf(stderr, "model: %s: %s\n", argv[1], sw_error());
    free(ids);
    sw_model_free(m);
    if (d)
        d->close(d);
    return rc ? SW_EXIT_FAILED : 0;
}
