#include "tokenize.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

const char *const extra_names[N_EXTRAS] = {"label", "margin"};

void encoded_clear(encoded *e)
{
    e->ids.n = e->weights.n = e->pieces.n = 0;
    e->truncated = e->dropped = e->empty = e->unlabelled = e->chats = e->unfilled = e->split = 0;
    e->end_trained = false;
}

void encoded_free(encoded *e)
{
    free(e->ids.at);
    free(e->weights.at);
    free(e->pieces.at);
    *e = (encoded){0};
}

/* Ids that were appended without a weight get one. */
static void weigh(encoded *e, float weight)
{
    SW_RESERVE(e->weights, e->ids.n);
    while (e->weights.n < e->ids.n)
        e->weights.at[e->weights.n++] = weight;
}

static void add_id(encoded *e, int32_t id, float weight)
{
    SW_PUSH(e->ids, id);
    weigh(e, weight);
}

/* A plain text ends where the model is to stop. */
static void end_text(const tokenize_job *job, encoded *e, size_t start)
{
    int32_t eos = sw_tokenizer_eos(job->tokenizer);
    if (job->o->end_token && eos >= 0 && e->ids.n > start && e->ids.at[e->ids.n - 1] != eos)
        add_id(e, eos, 1);
}

static int encode_string(sw_encoder *encoder, const cJSON *text, bool special, float weight, encoded *e)
{
    sw_buf scratch = {0};
    sw_span s = sw_json_text(text, &scratch);
    int rc = sw_encode(encoder, s.at, s.n, special, &e->ids, NULL);
    sw_buf_free(&scratch);
    if (!rc)
        weigh(e, weight);
    return rc;
}

static int encode_text(const tokenize_job *job, sw_encoder *encoder, const sw_sample *s, encoded *e)
{
    size_t start = e->ids.n;
    if (!*s->text->valuestring)
        return 0;
    if (encode_string(encoder, s->text, true, 1, e))
        return -1;
    end_text(job, e, start);
    return 0;
}

/* Prompt and completion are encoded apart, as they will be when the model is asked. */
static int encode_completion(const tokenize_job *job, sw_encoder *encoder, const sw_sample *s, encoded *e)
{
    size_t start = e->ids.n;
    float prompt_weight = job->o->train_on == SW_TRAIN_ALL;
    if (sw_tokenizer_adds_bos(job->tokenizer) && sw_tokenizer_bos(job->tokenizer) >= 0)
        add_id(e, sw_tokenizer_bos(job->tokenizer), 0);
    if (encode_string(encoder, s->prompt, false, prompt_weight, e) ||
        encode_string(encoder, s->completion, false, 1, e))
        return -1;
    end_text(job, e, start);
    return 0;
}

static int encode_chat(const tokenize_job *job, sw_encoder *encoder, const sw_sample *s, const cJSON *messages,
                       encoded *e)
{
    if (!job->template)
        return sw_fail("is a conversation, and %s has no chat template; name one (--template)", job->o->model);
    return sw_template_encode(job->template, encoder, messages, s->tools, s->extra, (sw_train_on)job->o->train_on,
                              &e->ids, &e->weights);
}

static bool has_label(const encoded *e, sequence q)
{
    for (size_t i = q.start; i < q.start + q.n; i++)
        if (e->weights.at[i] != 0)
            return true;
    return false;
}

/* Ends a sequence that began at start: its first token follows nothing, so it is no label. */
static sequence end_sequence(encoded *e, size_t start)
{
    if (e->ids.n > start)
        e->weights.at[start] = 0;
    return (sequence){start, e->ids.n - start};
}

/* Cuts q to max_length. What has lost its last label by that teaches nothing and is dropped: false. */
static bool cut(const tokenize_job *job, encoded *e, sequence *q)
{
    size_t max = (size_t)job->o->max_length;
    if (!max || q->n <= max)
        return true;
    if (job->o->truncate == TRUNCATE_DROP)
        return false;
    bool had = has_label(e, *q);
    if (job->o->truncate == TRUNCATE_LEFT)
        q->start += q->n - max;
    q->n = max;
    e->weights.at[q->start] = 0;
    return !had || has_label(e, *q);
}

static void add_piece(encoded *e, piece p)
{
    e->unlabelled += !has_label(e, p.main);
    SW_PUSH(e->pieces, p);
}

/* Consecutive pieces of max_length; those without a label are left out unless the whole had none. */
static void split(const tokenize_job *job, encoded *e, piece p)
{
    size_t max = (size_t)job->o->max_length;
    bool had = has_label(e, p.main);
    sequence rest = p.main;
    e->split++;
    while (rest.n) {
        p.main = (sequence){rest.start, SW_MIN(rest.n, max)};
        e->weights.at[p.main.start] = 0;
        if (!had || has_label(e, p.main))
            add_piece(e, p);
        rest.start += p.main.n;
        rest.n -= p.main.n;
    }
}

static void read_extras(const cJSON *rest, piece *p)
{
    for (int i = 0; i < N_EXTRAS; i++) {
        const cJSON *v = sw_json_get(rest, extra_names[i]);
        p->has[i] = cJSON_IsNumber(v) || cJSON_IsBool(v);
        p->extras[i] = cJSON_IsNumber(v) ? (float)v->valuedouble : (float)cJSON_IsTrue(v);
    }
}

static int encode_sample(const tokenize_job *job, sw_encoder *encoder, const sw_sample *s, encoded *e)
{
    piece p = {0};
    size_t start = e->ids.n;
    int rc = s->kind == SW_SAMPLE_CHAT   ? encode_chat(job, encoder, s, s->messages, e)
             : s->kind == SW_SAMPLE_TEXT ? encode_text(job, encoder, s, e)
                                         : encode_completion(job, encoder, s, e);
    if (rc)
        return -1;
    p.main = end_sequence(e, start);
    e->chats += s->kind == SW_SAMPLE_CHAT;
    e->unfilled += s->unfilled;
    if (!p.main.n) {
        e->empty++;
        return 0;
    }
    for (size_t i = start; s->kind == SW_SAMPLE_CHAT && i < e->ids.n; i++)
        e->end_trained |= e->ids.at[i] == job->end_token && e->weights.at[i] != 0;
    if (s->rejected) {
        start = e->ids.n;
        if (encode_chat(job, encoder, s, s->rejected, e))
            return sw_fail_in("rejected answer");
        p.rejected = end_sequence(e, start);
    }
    read_extras(s->rest, &p);
    size_t max = (size_t)job->o->max_length;
    bool longer = max && SW_MAX(p.main.n, p.rejected.n) > max;
    if (longer && job->o->truncate == TRUNCATE_SPLIT && !s->rejected) {
        split(job, e, p);
        return 0;
    }
    if (longer &&
        (job->o->truncate == TRUNCATE_SPLIT || !cut(job, e, &p.main) || (s->rejected && !cut(job, e, &p.rejected)))) {
        e->dropped++;
        return 0;
    }
    e->truncated += longer;
    add_piece(e, p);
    return 0;
}

int encode_row(const tokenize_job *job, sw_encoder *encoder, cJSON *row, encoded *out)
{
    sw_sample s;
    if (sw_sample_from(&job->dataset, row, &s))
        return -1;
    size_t ids = out->ids.n;
    int rc = encode_sample(job, encoder, &s, out);
    if (rc)
        out->ids.n = out->weights.n = ids;
    sw_sample_free(&s);
    return rc;
}
