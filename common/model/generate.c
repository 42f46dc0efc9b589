#include "model/generate.h"

#include "base/json.h"
#include "base/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPT_CHUNK = 512 };

int sw_generator_init(sw_generator *g, sw_model *m, sw_dtype compute, int64_t slots)
{
    *g = (sw_generator){.model = m, .slots = slots, .start = m->spec.decoder_start, .forced_second = -1, .forced_last = -1};
    if (sw_ctx_init(&g->ctx, m->device, compute) || sw_cache_init(&g->cache, &g->ctx, m, slots, 64)) {
        sw_generator_free(g);
        return -1;
    }
    g->logits = sw_malloc((size_t)slots * (size_t)m->spec.vocab * sizeof *g->logits);
    return 0;
}

void sw_generator_free(sw_generator *g)
{
    sw_cache_free(&g->cache, g->model);
    sw_ctx_free(&g->ctx);
    free(g->logits);
    *g = (sw_generator){0};
}

/* A token id, or a list with one; missing: as it was. */
static int read_token(const sw_generator *g, const cJSON *o, const char *key, int32_t *id)
{
    const cJSON *v = sw_json_get(o, key);
    int64_t vocab = g->model->spec.vocab;
    if (cJSON_IsArray(v) && v->child && !v->child->next)
        v = v->child;
    if (!v)
        return 0;
    if (!cJSON_IsNumber(v) || v->valuedouble != floor(v->valuedouble) || v->valuedouble < 0 || v->valuedouble >= (double)vocab)
        return sw_fail("\"%s\": the id of one token is needed, from 0 to %lld", key, (long long)vocab - 1);
    *id = (int32_t)v->valuedouble;
    return 0;
}

int sw_generator_configure(sw_generator *g, const cJSON *config, const cJSON *generation)
{
    const cJSON *o = generation ? generation : config;
    return (generation && read_token(g, o, "decoder_start_token_id", &g->start)) || read_token(g, o, "forced_bos_token_id", &g->forced_second) ||
                   read_token(g, o, "forced_eos_token_id", &g->forced_last)
               ? -1
               : 0;
}

void sw_sequence_free(sw_sequence *s)
{
    free(s->out.at);
    free(s->logprobs.at);
    memset(&s->out, 0, sizeof s->out);
    memset(&s->logprobs, 0, sizeof s->logprobs);
}

/* Leaves one token of probability 1. */
static void force(float *logits, int64_t vocab, int32_t id)
{
    for (int64_t i = 0; i < vocab; i++)
        logits[i] = i == id ? 0 : -INFINITY;
}

/* One token more for a sequence whose logits are there. True when it ends. */
static bool advance(const sw_generator *g, sw_sequence *s, float *logits, int32_t *seen)
{
    int64_t vocab = g->model->spec.vocab;
    double logp;
    bool ends = g->forced_last >= 0 && (int64_t)s->out.n + 1 >= s->max_tokens;
    if (ends)
        force(logits, vocab, g->forced_last);
    else if (g->forced_second >= 0 && s->n_given + s->out.n == 1)
        force(logits, vocab, g->forced_second);
    memcpy(seen, s->given, s->n_given * sizeof *seen);
    if (s->out.n)
        memcpy(seen + s->n_given, s->out.at, s->out.n * sizeof *seen);
    int32_t id = sw_sample(logits, vocab, &s->sampling, seen, s->n_given + s->out.n, s->n_given, s->stream,
                           s->want_logprobs ? &logp : NULL);
    if (!s->out.n && !s->first_token_at)
        s->first_token_at = sw_now();
    for (size_t i = 0; i < s->n_stop; i++)
        if (id == s->stop[i]) {
            s->finish = ends ? SW_FINISH_LENGTH : SW_FINISH_STOP;
            return true;
        }
    SW_PUSH(s->out, id);
    if (s->want_logprobs)
        SW_PUSH(s->logprobs, logp);
    if (s->on_token && s->on_token(s, id))
        s->finish = SW_FINISH_CALLER;
    else if ((int64_t)s->out.n >= s->max_tokens)
        s->finish = SW_FINISH_LENGTH;
    return s->finish != SW_FINISH_NONE;
}

typedef struct step {
    int32_t *ids, *last; /* last: row of each sequence whose next token is due */
    int64_t *lengths, *slots, *due;
    int64_t n, n_seqs, n_due;
    bool tokens; /* one each of sequences whose prompts are read */
    /* Sources of sequences that begin, where there is an encoder. */
    struct { int32_t *at; size_t n, cap; } source;
    int64_t *source_lengths;
} step;

static int run_step(sw_generator *g, const step *s)
{
    sw_ctx *c = &g->ctx;
    sw_device *d = c->device;
    bool again = d->begin && s->tokens; /* the next step will ask for the same */
    if (again) {
        sw_ctx_settle(c);
        if (d->begin(d, (uint64_t)s->n))
            return -1;
    }
    c->rounding = g->rounding && d->rounding && s->tokens;
    sw_batch b = {.n = s->n, .n_seqs = s->n_seqs, .ids = s->ids, .lengths = s->lengths, .cache = &g->cache, .slots = s->slots,
                  .source_ids = s->source.at, .source_lengths = s->source_lengths};
    sw_head head = sw_model_head(g->model);
    sw_var *h = sw_model_forward(c, g->model, &b, false);
    int rc = h ? 0 : -1;
    if (h && s->n_due) {
        sw_var *rows = s->n_due == s->n ? NULL : sw_from_host(c, SW_I32, 1, &s->n_due, s->last);
        sw_var *x = s->n_due == s->n ? h : rows ? sw_gather(c, h, rows) : NULL;
        sw_var *y = x ? sw_logits(c, x, &head) : NULL;
        rc = y ? sw_to_host(c, y, g->logits) : -1;
    }
    c->rounding = false;
    if (again && d->end(d))
        rc = -1;
    sw_ctx_reset(c);
    return rc;
}

/* Takes a sequence into a slot: what its decoder begins with. */
static int begin(sw_generator *g, sw_sequence *q, int64_t slot)
{
    const sw_spec *s = &g->model->spec;
    q->fed = 0;
    q->finish = SW_FINISH_NONE;
    q->given = s->encoder_layers ? &g->start : q->prompt;
    q->n_given = s->encoder_layers ? 1 : q->n_prompt;
    g->cache.length[slot] = 0;
    if (q->max_tokens <= 0)
        q->finish = SW_FINISH_LENGTH;
    else if (!q->n_prompt)
        return sw_fail("the prompt is empty; a model needs at least one token to start from");
    return 0;
}

int sw_generate(sw_generator *g, sw_sequence **seqs, size_t n, bool (*stop)(void))
{
    int64_t vocab = g->model->spec.vocab, slots = g->slots;
    sw_sequence **at = SW_NEW_ARRAY(sw_sequence *, (size_t)slots);
    size_t room = (size_t)(slots * PROMPT_CHUNK), next = 0, longest = 1;
    for (size_t i = 0; i < n; i++)
        longest = SW_MAX(longest, seqs[i]->n_prompt + (size_t)SW_MAX(seqs[i]->max_tokens, 0) + 1);
    step s = {.ids = SW_NEW_ARRAY(int32_t, room), .last = SW_NEW_ARRAY(int32_t, (size_t)slots), .lengths = SW_NEW_ARRAY(int64_t, (size_t)slots),
              .slots = SW_NEW_ARRAY(int64_t, (size_t)slots), .due = SW_NEW_ARRAY(int64_t, (size_t)slots),
              .source_lengths = SW_NEW_ARRAY(int64_t, (size_t)slots)};
    int32_t *seen = SW_NEW_ARRAY(int32_t, longest);
    int rc = 0;
    while (!rc && !(stop && stop())) {
        s.n = s.n_seqs = s.n_due = 0;
        s.source.n = 0;
        s.tokens = true;
        int64_t places = 0, source_places = 0;
        for (int64_t k = 0; k < slots; k++) {
            while (!rc && !at[k] && next < n) {
                sw_sequence *q = seqs[next++];
                rc = begin(g, q, k);
                at[k] = rc || q->finish ? NULL : q;
            }
            s.tokens &= !at[k] || at[k]->fed >= at[k]->n_given;
        }
        for (int64_t k = 0; k < slots; k++) {
            sw_sequence *q = at[k];
            bool prompt = q && q->fed < q->n_given;
            if (!q || prompt == s.tokens)
                continue;
            bool encoded = g->model->spec.encoder_layers && !q->fed;
            int64_t m = prompt ? (int64_t)SW_MIN(q->n_given - q->fed, (size_t)PROMPT_CHUNK) : 1;
            memcpy(s.ids + s.n, prompt ? q->given + q->fed : &q->out.at[q->out.n - 1], (size_t)m * sizeof *s.ids);
            q->fed += (size_t)m;
            for (size_t i = 0; encoded && i < q->n_prompt; i++)
                SW_PUSH(s.source, q->prompt[i]);
            s.source_lengths[s.n_seqs] = encoded ? (int64_t)q->n_prompt : 0;
            source_places = SW_MAX(source_places, s.source_lengths[s.n_seqs]);
            s.lengths[s.n_seqs] = m;
            s.slots[s.n_seqs++] = k;
            s.n += m;
            places = SW_MAX(places, (int64_t)q->fed);
            if (q->fed >= q->n_given) {
                s.due[s.n_due] = k;
                s.last[s.n_due++] = (int32_t)(s.n - 1);
            }
        }
        if (rc || !s.n_seqs)
            break;
        rc = sw_cache_reserve(&g->cache, g->model, places) || sw_cache_reserve_source(&g->cache, g->model, source_places) ? -1 : 0;
        if (!rc)
            rc = run_step(g, &s);
        for (int64_t i = 0; !rc && i < s.n_due; i++) {
            sw_sequence *q = at[s.due[i]];
            if (advance(g, q, g->logits + i * vocab, seen)) {
                q->done_at = sw_now();
                at[s.due[i]] = NULL;
            }
        }
    }
    free(at);
    free(s.ids);
    free(s.last);
    free(s.lengths);
    free(s.slots);
    free(s.due);
    free(s.source.at);
    free(s.source_lengths);
    free(seen);
    return rc;
}

int sw_score_tokens(sw_generator *g, const int32_t *ids, size_t n, size_t first, float *logp, int32_t *best)
{
    sw_ctx *c = &g->ctx;
    if (!n)
        return 0;
    int64_t length = (int64_t)n;
    if (first < 1)
        first = 1;
    int32_t *targets = sw_ctx_alloc(c, n * sizeof *targets), *rows = sw_ctx_alloc(c, n * sizeof *rows), *top = sw_ctx_alloc(c, n * sizeof *top);
    float *values = sw_ctx_alloc(c, n * sizeof *values);
    int64_t m = 0, n_source = (int64_t)first, begun = 1;
    for (size_t i = first; i < n; i++) {
        rows[m] = (int32_t)(i - 1);
        targets[m++] = ids[i];
    }
    sw_batch b = {.n = length, .n_seqs = 1, .ids = ids, .lengths = &length};
    if (g->model->spec.encoder_layers) { /* it reads what comes before; the decoder its own start, then what it wrote */
        int32_t *decoder = sw_ctx_alloc(c, (n + 2) * sizeof *decoder);
        decoder[0] = g->start;
        if (m && g->forced_second >= 0 && targets[0] != g->forced_second)
            decoder[begun++] = g->forced_second;
        for (int64_t i = 0; i < m; i++) {
            rows[i] = (int32_t)(begun + i - 1);
            decoder[begun + i] = targets[i];
        }
        length = m + begun - 1;
        b = (sw_batch){.n = length, .n_seqs = 1, .ids = decoder, .lengths = &length, .source_ids = ids, .source_lengths = &n_source};
    }
    sw_head head = sw_model_head(g->model);
    sw_logprobs out;
    sw_var *h = m ? sw_model_forward(c, g->model, &b, false) : NULL;
    sw_var *at = h ? sw_from_host(c, SW_I32, 1, &m, rows) : NULL, *x = at ? sw_gather(c, h, at) : NULL;
    sw_var *wanted = x ? sw_from_host(c, SW_I32, 1, &m, targets) : NULL;
    int rc = m && (!wanted || sw_token_logprobs(c, x, &head, &(sw_logprob_request){.targets = wanted}, &out) ||
                   sw_to_host(c, out.logp, values) || sw_to_host(c, out.best, top))
                 ? -1
                 : 0;
    for (int64_t i = 0; !rc && i < m; i++) {
        logp[first + (size_t)i] = values[i];
        if (best)
            best[first + (size_t)i] = top[i];
    }
    sw_ctx_reset(c);
    return rc;
}
