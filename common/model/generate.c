#include "model/generate.h"

#include "base/json.h"
#include "base/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Tokens of a prompt that are read at once. A GPU takes that many of each when there are many prompts, and more of few: it has to be
 * filled. */
enum { PROMPT_CHUNK = 512, GPU_STEP = 4096 };

int sw_generator_init(sw_generator *g, sw_model *m, sw_dtype compute, int64_t slots)
{
    *g = (sw_generator){.model = m, .slots = slots, .start = m->spec.decoder_start, .forced_second = -1, .forced_last = -1};
    if (sw_ctx_init(&g->ctx, m->device, compute) || sw_cache_init(&g->cache, &g->ctx, m, slots + 1)) {
        sw_generator_free(g);
        return -1;
    }
    g->kept_logits = sw_tensor_of(NULL, SW_F32, 2, (int64_t[]){1, m->spec.vocab});
    g->kept_logits.data = m->device->alloc(m->device, sw_tensor_bytes(&g->kept_logits));
    if (!g->kept_logits.data)
        sw_generator_free(g);
    return g->kept_logits.data ? 0 : -1;
}

void sw_generator_free(sw_generator *g)
{
    if (g->kept_logits.data)
        g->model->device->free(g->model->device, g->kept_logits.data);
    sw_cache_free(&g->cache, g->model);
    sw_ctx_free(&g->ctx);
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

/* ---- tokens from logits */

/* Rows of logits whose tokens are due. */
typedef struct drawing {
    struct { sw_draw *at; size_t n, cap; } rows;
    sw_seen_tokens seen;
    struct { int32_t *at; size_t n, cap; } ids;       /* of one sequence */
    struct { double (*at)[2]; size_t n, cap; } drawn; /* of rows: tokens and their log-probabilities */
} drawing;

static int no_numbers(void)
{
    return sw_fail("the model's logits are no numbers: its weights or adapters hold NaN or infinity, or values grow beyond the type that "
                   "is computed in");
}

static bool ends(const sw_generator *g, const sw_sequence *s) { return g->forced_last >= 0 && (int64_t)s->out.n + 1 >= s->max_tokens; }

static void add_row(const sw_generator *g, drawing *w, const sw_sequence *s)
{
    w->ids.n = 0;
    SW_RESERVE(w->ids, s->n_given + s->out.n);
    memcpy(w->ids.at, s->given, s->n_given * sizeof *s->given);
    if (s->out.n)
        memcpy(w->ids.at + s->n_given, s->out.at, s->out.n * sizeof *s->given);
    sw_draw d = sw_sampling_draw(&s->sampling, w->ids.at, s->n_given + s->out.n, s->n_given, s->stream, &w->seen);
    d.want_logp = s->want_logprobs || !s->out.n; /* the first one's shows whether the logits are numbers */
    if (ends(g, s))
        d.forced = g->forced_last;
    else if (s->n_given + s->out.n == 1)
        d.forced = g->forced_second;
    SW_PUSH(w->rows, d);
}

/* Draws from logits [rows, vocab], which are changed. */
static int draw_rows(sw_ctx *c, drawing *w, sw_tensor *logits)
{
    int64_t n = (int64_t)w->rows.n, bytes = n * (int64_t)sizeof *w->rows.at, room = 1;
    while (room < (int64_t)w->seen.n) /* grows in steps: the next step is to ask for the same */
        room *= 2;
    SW_RESERVE(w->seen, (size_t)room);
    memset(w->seen.at + w->seen.n, 0, ((size_t)room - w->seen.n) * sizeof *w->seen.at);
    SW_RESERVE(w->drawn, (size_t)n);
    sw_var *draws = sw_from_host(c, SW_U8, 1, &bytes, w->rows.at), *seen = sw_from_host(c, SW_I32, 2, (int64_t[]){room, 2}, w->seen.at),
           *out = sw_tmp2(c, SW_F64, n, 2);
    if (!draws || !seen || !out || sw_k(c)->sample(sw_s(c), &out->t, logits, &draws->t, &seen->t) || sw_to_host(c, out, w->drawn.at))
        return -1;
    for (int64_t i = 0; i < n; i++)
        if (isnan(w->drawn.at[i][1]))
            return no_numbers();
    return 0;
}

/* One token more for a sequence. True when it ends. */
static bool advance(const sw_generator *g, sw_sequence *s, const double drawn[2])
{
    int32_t id = (int32_t)drawn[0];
    bool last = ends(g, s);
    if (!s->out.n && !s->first_token_at)
        s->first_token_at = sw_now();
    for (size_t i = 0; i < s->n_stop; i++)
        if (id == s->stop[i]) {
            s->finish = last ? SW_FINISH_LENGTH : SW_FINISH_STOP;
            return true;
        }
    SW_PUSH(s->out, id);
    if (s->want_logprobs)
        SW_PUSH(s->logprobs, drawn[1]);
    if (s->on_token && s->on_token(s, id))
        s->finish = SW_FINISH_CALLER;
    else if ((int64_t)s->out.n >= s->max_tokens)
        s->finish = SW_FINISH_LENGTH;
    return s->finish != SW_FINISH_NONE;
}

/* ---- steps */

typedef struct step {
    int32_t *ids, *last; /* last: row of each sequence whose next token is due */
    int64_t *lengths, *slots, *due;
    int64_t n, n_seqs, n_due;
    int64_t keep; /* number of the due row whose logits the next sequence needs too; -1: none */
    drawing draw;
    bool tokens; /* one each of sequences whose prompts are read */
    /* Sources of sequences that begin, where there is an encoder. */
    struct { int32_t *at; size_t n, cap; } source;
    int64_t *source_lengths;
} step;

static int run_step(sw_generator *g, step *s)
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
        sw_tensor row = y && s->keep >= 0 ? sw_row_view(&y->t, s->keep, 1) : (sw_tensor){0};
        rc = !y || (row.data && sw_k(c)->copy(sw_s(c), &g->kept_logits, &row)) ? -1 : draw_rows(c, &s->draw, &y->t);
    }
    c->rounding = false;
    if (again && d->end(d))
        rc = -1;
    sw_ctx_reset(c);
    return rc;
}

static bool same_prompt(const sw_sequence *a, const sw_sequence *b)
{
    return a->n_prompt == b->n_prompt && (a->prompt == b->prompt || !memcmp(a->prompt, b->prompt, a->n_prompt * sizeof *a->prompt));
}

static void leave_slot(sw_generator *g, sw_sequence **at, int64_t slot)
{
    (*at)->done_at = sw_now();
    *at = NULL;
    sw_cache_clear_slot(&g->cache, slot);
}

/* Takes a sequence into a slot: what its decoder begins with. */
static int begin(sw_generator *g, sw_sequence *q, int64_t slot)
{
    const sw_spec *s = &g->model->spec;
    sw_cache_clear_slot(&g->cache, slot);
    q->fed = 0;
    q->finish = SW_FINISH_NONE;
    q->given = s->encoder_layers ? &g->start : q->prompt;
    q->n_given = s->encoder_layers ? 1 : q->n_prompt;
    if (q->max_tokens <= 0)
        q->finish = SW_FINISH_LENGTH;
    else if (!q->n_prompt)
        return sw_fail("the prompt is empty; a model needs at least one token to start from");
    return 0;
}

/* Whether one of the slots is reading the prompt that q begins with. */
static bool is_read(sw_sequence *const *at, int64_t slots, const sw_sequence *q)
{
    for (int64_t k = 0; k < slots; k++)
        if (at[k] && at[k]->fed < at[k]->n_given && same_prompt(at[k], q))
            return true;
    return false;
}

/* The next sequence into slot k, which it leaves again where it ends at once. */
static int enter_slot(sw_generator *g, sw_sequence *q, int64_t k, sw_sequence **at, drawing *w)
{
    sw_ctx *c = &g->ctx;
    if (begin(g, q, k))
        return -1;
    if (g->kept && !same_prompt(g->kept, q)) {
        sw_cache_clear_slot(&g->cache, g->slots);
        g->kept = NULL;
    }
    *at = q->finish ? NULL : q;
    if (!*at || !g->kept)
        return 0;
    if (sw_cache_copy_slot(&g->cache, g->model, k, g->slots))
        return -1;
    q->fed = q->n_given;
    w->rows.n = w->seen.n = 0;
    add_row(g, w, q);
    sw_var *row = sw_tmp2(c, SW_F32, 1, g->model->spec.vocab); /* penalties change it */
    int rc = !row || sw_k(c)->copy(sw_s(c), &row->t, &g->kept_logits) || draw_rows(c, w, &row->t) ? -1 : 0;
    if (!rc && advance(g, q, w->drawn.at[0]))
        leave_slot(g, at, k);
    sw_ctx_reset(c);
    return rc;
}

int sw_generate(sw_generator *g, sw_sequence **seqs, size_t n, bool (*stop)(void))
{
    int64_t slots = g->slots;
    sw_sequence **at = SW_NEW_ARRAY(sw_sequence *, (size_t)slots);
    bool host = g->model->device->host;
    size_t room = (size_t)SW_MAX(slots * PROMPT_CHUNK, host ? 0 : GPU_STEP), next = 0;
    step s = {.ids = SW_NEW_ARRAY(int32_t, room), .last = SW_NEW_ARRAY(int32_t, (size_t)slots), .lengths = SW_NEW_ARRAY(int64_t, (size_t)slots),
              .slots = SW_NEW_ARRAY(int64_t, (size_t)slots), .due = SW_NEW_ARRAY(int64_t, (size_t)slots),
              .source_lengths = SW_NEW_ARRAY(int64_t, (size_t)slots)};
    int rc = 0;
    while (!rc && !(stop && stop())) {
        s.n = s.n_seqs = s.n_due = 0;
        s.source.n = 0;
        s.keep = -1;
        s.tokens = true;
        int64_t prompts = 0;
        for (int64_t k = 0; k < slots; k++) {
            while (!rc && !at[k] && next < n && !is_read(at, slots, seqs[next]))
                rc = enter_slot(g, seqs[next++], k, &at[k], &s.draw);
            bool reads = at[k] && at[k]->fed < at[k]->n_given;
            prompts += reads;
            s.tokens &= !reads;
        }
        size_t chunk = (size_t)(host || !prompts ? PROMPT_CHUNK : SW_MAX(PROMPT_CHUNK, GPU_STEP / prompts));
        s.draw.rows.n = s.draw.seen.n = 0;
        for (int64_t k = 0; k < slots; k++) {
            sw_sequence *q = at[k];
            bool prompt = q && q->fed < q->n_given;
            if (!q || prompt == s.tokens)
                continue;
            bool encoded = g->model->spec.encoder_layers && !q->fed;
            int64_t m = prompt ? (int64_t)SW_MIN(q->n_given - q->fed, chunk) : 1;
            memcpy(s.ids + s.n, prompt ? q->given + q->fed : &q->out.at[q->out.n - 1], (size_t)m * sizeof *s.ids);
            q->fed += (size_t)m;
            for (size_t i = 0; encoded && i < q->n_prompt; i++)
                SW_PUSH(s.source, q->prompt[i]);
            s.source_lengths[s.n_seqs] = encoded ? (int64_t)q->n_prompt : 0;
            s.lengths[s.n_seqs] = m;
            s.slots[s.n_seqs++] = k;
            s.n += m;
            if (q->fed >= q->n_given) {
                if (!q->out.n && next < n && same_prompt(q, seqs[next]))
                    s.keep = s.n_due;
                add_row(g, &s.draw, q);
                s.due[s.n_due] = k;
                s.last[s.n_due++] = (int32_t)(s.n - 1);
            }
        }
        if (rc || !s.n_seqs)
            break;
        rc = run_step(g, &s);
        if (!rc && s.keep >= 0) {
            g->kept = at[s.due[s.keep]];
            rc = sw_cache_copy_slot(&g->cache, g->model, slots, s.due[s.keep]);
        }
        for (int64_t i = 0; !rc && i < s.n_due; i++) {
            int64_t k = s.due[i];
            if (advance(g, at[k], s.draw.drawn.at[i]))
                leave_slot(g, &at[k], k);
        }
    }
    g->kept = NULL;
    sw_cache_clear_slot(&g->cache, slots);
    free(at);
    free(s.ids);
    free(s.last);
    free(s.lengths);
    free(s.slots);
    free(s.due);
    free(s.source.at);
    free(s.source_lengths);
    free(s.draw.rows.at);
    free(s.draw.seen.at);
    free(s.draw.ids.at);
    free(s.draw.drawn.at);
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
        if (isnan(values[i]))
            rc = no_numbers();
        logp[first + (size_t)i] = values[i];
        if (best)
            best[first + (size_t)i] = top[i];
    }
    sw_ctx_reset(c);
    return rc;
}
