/* JSON Lines in, JSON Lines out. Records are taken a window at a time, so that memory is flat and sequences of a window
 * share batches; answers come out in the order of the input. */
#include "infer.h"

#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "data/jsonl.h"
#include "data/messages.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A continuation with its prompt; its own tokens begin at `first`. */
typedef struct scored {
    sw_ids whole;
    size_t first;
} scored;

typedef struct record {
    cJSON *in;
    char *where;            /* "file: line N" */
    infer_job *jobs;        /* [n_jobs] samples */
    size_t n_jobs;
    struct { scored *at; size_t n, cap; } continuations;
    bool is_scored;
    sw_ids text;            /* of a classifier */
    infer_words words;      /* of one of words */
    double started;
} record;

typedef struct window {
    record *at;
    size_t n, cap;
} window;

/* Fields that this program reads and does not copy to its output. */
static const char *const known[] = {"prompt", "messages", "tools", "continuations", "max_tokens", "temperature", "top_k", "top_p", "min_p",
                                    "repetition_penalty", "presence_penalty", "frequency_penalty", "stop", "seed", "n"};

static int read_sampling(const cJSON *o, sw_sampling *s, int64_t *max_tokens, int64_t *n)
{
    int64_t seed;
    if (sw_json_f64(o, "temperature", s->temperature, &s->temperature) || sw_json_i64(o, "top_k", 0, 1 << 30, s->top_k, &s->top_k) ||
        sw_json_f64(o, "top_p", s->top_p, &s->top_p) || sw_json_f64(o, "min_p", s->min_p, &s->min_p) ||
        sw_json_f64(o, "repetition_penalty", s->repetition_penalty, &s->repetition_penalty) ||
        sw_json_f64(o, "presence_penalty", s->presence_penalty, &s->presence_penalty) ||
        sw_json_f64(o, "frequency_penalty", s->frequency_penalty, &s->frequency_penalty) ||
        sw_json_i64(o, "seed", 0, (int64_t)1 << 53, (int64_t)s->seed, &seed) ||
        sw_json_i64(o, "max_tokens", 0, 1 << 24, *max_tokens, max_tokens) || sw_json_i64(o, "n", 1, 1024, *n, n))
        return -1;
    s->seed = (uint64_t)seed;
    if (!isfinite(s->temperature) || !isfinite(s->repetition_penalty) || !isfinite(s->presence_penalty) || !isfinite(s->frequency_penalty))
        return sw_fail("\"temperature\" and the penalties must be finite numbers");
    if (s->temperature < 0 || !(s->top_p > 0 && s->top_p <= 1) || !(s->min_p >= 0 && s->min_p <= 1) || !(s->repetition_penalty > 0))
        return sw_fail("\"temperature\" must be 0 or more, \"top_p\" in (0, 1], \"min_p\" in [0, 1], \"repetition_penalty\" above 0");
    return 0;
}

/* Stop strings: the record's too, and what would be a tool's result. */
static int read_stop(const infer_session *s, const cJSON *o, infer_job *j)
{
    const cJSON *stop = sw_json_get(o, "stop");
    const sw_agent *agent = s->tmpl && sw_json_get(o, "tools") ? sw_template_agent(s->tmpl) : NULL;
    infer_job_stops(j, s, sw_json_get(o, "messages"));
    if (agent && agent->stop)
        SW_PUSH(j->stop, sw_strdup(agent->stop));
    for (const cJSON *v = cJSON_IsArray(stop) ? stop->child : stop; v; v = cJSON_IsArray(stop) ? v->next : NULL) {
        if (!cJSON_IsString(v))
            return sw_fail("\"stop\": a string or a list of strings is needed");
        SW_PUSH(j->stop, sw_strdup(v->valuestring));
    }
    return 0;
}

/* The conversation with --system in front, when it brings none; calls of tools as every template reads them. */
cJSON *infer_with_system(const cJSON *messages, const char *system)
{
    cJSON *all = cJSON_Duplicate(messages, true);
    if (sw_messages_normalise(all, "messages")) {
        cJSON_Delete(all);
        return NULL;
    }
    const cJSON *role = all->child ? sw_json_get(all->child, "role") : NULL;
    if (system && !(cJSON_IsString(role) && !strcmp(role->valuestring, "system"))) {
        cJSON *m = cJSON_CreateObject();
        cJSON_AddStringToObject(m, "role", "system");
        cJSON_AddStringToObject(m, "content", system);
        cJSON_InsertItemInArray(all, 0, m);
    }
    return all;
}

/* "tools": a list of functions, or its text. NULL where there are none; the caller deletes it. */
int infer_read_tools(const cJSON *o, cJSON **tools)
{
    const cJSON *given = sw_json_get(o, "tools");
    *tools = NULL;
    if (cJSON_IsString(given) && *given->valuestring && !(*tools = sw_json_parse(given->valuestring, strlen(given->valuestring))))
        return sw_fail_in("\"tools\"");
    if (given && !cJSON_IsString(given))
        *tools = cJSON_Duplicate(given, true);
    if (*tools && !cJSON_IsArray(*tools)) {
        sw_fail("\"tools\": a list of functions is needed, not %s", sw_json_kind(*tools));
        cJSON_Delete(*tools);
        *tools = NULL;
        return -1;
    }
    if (*tools && !(*tools)->child) {
        cJSON_Delete(*tools);
        *tools = NULL;
    }
    return 0;
}

static int read_prompt(infer_session *s, const cJSON *o, sw_ids *ids, sw_buf *text)
{
    const cJSON *prompt = sw_json_get(o, "prompt"), *messages = sw_json_get(o, "messages");
    if (messages) {
        if (!cJSON_IsArray(messages) || !messages->child)
            return sw_fail("\"messages\": a list of {role, content} is needed");
        if (!s->tmpl)
            return sw_fail("\"messages\": there is no chat template: %s", s->template_error);
        cJSON *all = infer_with_system(messages, s->settings->system);
        cJSON *tools = NULL;
        int rc = !all || infer_read_tools(o, &tools) ? -1 : sw_template_encode_prompt(s->tmpl, s->encoder, all, tools, NULL, ids);
        if (!rc && cJSON_GetArraySize(tools) && !s->takes.tools && !s->told_tools) {
            sw_warn("records have tools, and the chat template %s makes nothing of them; choose a built-in --template", sw_template_name(s->tmpl));
            s->told_tools = true;
        }
        cJSON_Delete(all);
        cJSON_Delete(tools);
        return rc;
    }
    if (!cJSON_IsString(prompt))
        return sw_fail("\"prompt\" (a string) or \"messages\" (a list) is needed");
    sw_buf tmp = {0};
    sw_span p = sw_json_text(prompt, &tmp);
    sw_buf_add(text, p.at, p.n);
    int rc = sw_encode(s->encoder, p.at, p.n, true, ids, NULL);
    sw_buf_free(&tmp);
    return rc;
}

/* Prompt and continuation are encoded as one text when the prompt is text (a token may reach over the seam), and one
 * after the other after a rendered conversation, and where an encoder reads the prompt. */
static int read_continuation(infer_session *s, record *r, const cJSON *continuation)
{
    sw_ids ids = {0}, whole = {0};
    sw_buf text = {0}, tmp = {0};
    int rc = cJSON_IsString(continuation) ? 0 : sw_fail("\"continuations\": a list of strings is needed");
    const cJSON *prompt = sw_json_get(r->in, "prompt");
    bool plain = !sw_json_get(r->in, "messages");
    if (!rc && !(plain && !prompt))
        rc = read_prompt(s, r->in, &ids, &text);
    size_t first = ids.n;
    bool encoder = s->model->spec.encoder_layers; /* reads the prompt as it stands: there is no seam */
    if (!rc && encoder && !ids.n)
        rc = sw_fail("\"continuations\": a \"prompt\" is needed, which this model reads before it writes");
    sw_span c = rc ? (sw_span){0} : sw_json_text(continuation, &tmp);
    if (!rc) {
        sw_buf_add(&text, c.at, c.n);
        if (plain && !encoder) {
            rc = sw_encode(s->encoder, text.at, text.n, true, &whole, NULL);
        } else {
            for (size_t i = 0; i < ids.n; i++)
                SW_PUSH(whole, ids.at[i]);
            rc = sw_encode(s->encoder, c.at, c.n, false, &whole, NULL);
        }
    }
    if (plain && !rc && !text.n)
        rc = sw_fail("\"continuations\": prompt and continuation are both empty");
    if (plain && !encoder) /* a token over the seam is the continuation's; a continuation without text has none */
        first = SW_MIN(first, whole.n - (c.n && whole.n));
    first = encoder ? first : SW_MAX(first, 1);
    rc = rc ? rc : infer_check_ids(s, "prompt and continuation have", &whole, s->context);
    if (!rc)
        SW_PUSH(r->continuations, ((scored){whole, first}));
    else
        free(whole.at);
    free(ids.at);
    sw_buf_free(&text);
    sw_buf_free(&tmp);
    return rc;
}

static int read_continuations(infer_session *s, record *r)
{
    const cJSON *list = sw_json_get(r->in, "continuations");
    if (!cJSON_IsArray(list))
        return sw_fail("\"continuations\": a list of strings is needed");
    for (const cJSON *c = list->child; c; c = c->next)
        if (read_continuation(s, r, c))
            return -1;
    return 0;
}

static int prepare(infer_session *s, record *r)
{
    const infer_settings *o = s->settings;
    sw_sampling sampling = o->sampling;
    int64_t max_tokens = o->max_tokens, n = o->samples;
    r->started = sw_now();
    if (!cJSON_IsObject(r->in))
        return sw_fail("an object is needed, not %s", sw_json_kind(r->in));
    if (s->model->spec.task == SW_TASK_CLASSIFY || s->embeds)
        return infer_read_text(s, r->in, &r->text);
    if (s->model->spec.task == SW_TASK_TOKENS)
        return infer_read_words(s, r->in, &r->words);
    r->is_scored = sw_json_get(r->in, "continuations");
    if (r->is_scored)
        return read_continuations(s, r);
    if (o->score)
        return sw_fail("\"continuations\" is missing: a list of strings, which --score is to score");
    if (read_sampling(r->in, &sampling, &max_tokens, &n))
        return -1;
    r->jobs = SW_NEW_ARRAY(infer_job, (size_t)n);
    for (int64_t k = 0; k < n; k++) {
        infer_job *j = &r->jobs[r->n_jobs++];
        sw_buf text = {0};
        int rc = read_prompt(s, r->in, &j->prompt, &text) || read_stop(s, r->in, j);
        sw_buf_free(&text);
        if (rc)
            return -1;
        if (!j->prompt.n && max_tokens)
            return sw_fail("the prompt is empty; a model needs at least one token to start from");
        if (infer_check_ids(s, "the prompt has", &j->prompt, s->context - 1))
            return -1;
        j->sequence.sampling = sampling;
        j->sequence.max_tokens = SW_MIN(max_tokens, s->context - (int64_t)j->prompt.n);
        j->sequence.stream = (uint32_t)k;
        infer_job_begin(j, s);
    }
    return 0;
}

/* What an answer says by itself: a record's own fields of these names would be mistaken for it. */
static const char *const of_answers[] = {"sample", "text", "prompt_tokens", "completion_tokens", "tool_calls", "finish_reason", "logprobs",
                                         "first_token_seconds", "seconds", NULL};
static const char *const of_scores[] = {"scores", NULL};
static const char *const of_texts[] = {"scores", "class", "classes", "embedding", NULL};
static const char *const of_words[] = {"scores", "classes", "spans", NULL};

static cJSON *copy_unknown(const cJSON *in, const char *const *made)
{
    cJSON *o = cJSON_CreateObject();
    for (const cJSON *v = in->child; v; v = v->next) {
        bool mine = cJSON_GetObjectItemCaseSensitive(o, v->string); /* a name that comes twice: the first counts, as everywhere */
        for (size_t i = 0; i < SW_COUNT(known); i++)
            mine |= !strcmp(v->string, known[i]);
        for (size_t i = 0; made[i]; i++)
            mine |= !strcmp(v->string, made[i]);
        if (!mine)
            cJSON_AddItemToObject(o, v->string, cJSON_Duplicate(v, true));
    }
    return o;
}

static int print(cJSON *o)
{
    sw_buf b = {0};
    sw_json_print(&b, o);
    sw_buf_putc(&b, '\n');
    int rc = fwrite(b.at, 1, b.n, stdout) == b.n ? 0 : sw_fail_errno("standard output");
    sw_buf_free(&b);
    cJSON_Delete(o);
    return rc;
}

static void add_text(cJSON *o, const char *key, const char *s, size_t n)
{
    sw_buf b = {0};
    sw_buf_json(&b, s ? s : "", n);
    cJSON_AddItemToObject(o, key, cJSON_CreateRaw(b.at));
    sw_buf_free(&b);
}

static void add_logprobs(cJSON *o, const infer_session *s, const int32_t *ids, const double *logprobs, size_t n)
{
    cJSON *list = cJSON_AddArrayToObject(o, "logprobs");
    for (size_t i = 0; i < n; i++) {
        cJSON *t = cJSON_CreateObject();
        sw_span piece = sw_token_piece(s->tokenizer, ids[i]);
        add_text(t, "token", piece.at, piece.n);
        cJSON_AddNumberToObject(t, "id", ids[i]);
        cJSON_AddNumberToObject(t, "logprob", logprobs[i]);
        cJSON_AddItemToArray(list, t);
    }
}

/* Calls of tools in an answer, where tools were given: "tool_calls" of o. Marks that are special tokens count, so that the
 * ids are read and not the text. Returns the number of calls, or -1. */
static int add_tool_calls(const infer_session *s, const record *r, const infer_job *j, cJSON *o)
{
    const sw_agent *agent = s->tmpl ? sw_template_agent(s->tmpl) : NULL;
    cJSON *tools;
    sw_buf text = {0};
    if (!sw_json_get(r->in, "messages") || !sw_json_get(r->in, "tools"))
        return 0;
    if (infer_read_tools(r->in, &tools) || sw_decode(s->tokenizer, j->sequence.out.at, j->sequence.out.n, false, &text)) {
        cJSON_Delete(tools);
        return -1;
    }
    cJSON *calls = sw_agent_parse(agent ? agent : sw_agent_find("react_en"), text.n ? text.at : "", text.n, tools, NULL);
    int n = cJSON_GetArraySize(calls);
    if (n)
        cJSON_AddItemToObject(o, "tool_calls", sw_agent_tool_calls(calls));
    cJSON_Delete(calls);
    cJSON_Delete(tools);
    sw_buf_free(&text);
    return n;
}

static int write_answers(infer_session *s, record *r)
{
    for (size_t k = 0; k < r->n_jobs; k++) {
        infer_job *j = &r->jobs[k];
        const sw_sequence *q = &j->sequence;
        if (infer_job_finish(j))
            return -1;
        cJSON *o = copy_unknown(r->in, of_answers);
        if (r->n_jobs > 1)
            cJSON_AddNumberToObject(o, "sample", (double)k);
        add_text(o, "text", j->text.at, j->text.n);
        cJSON_AddNumberToObject(o, "prompt_tokens", (double)q->n_prompt);
        cJSON_AddNumberToObject(o, "completion_tokens", (double)q->out.n);
        int calls = add_tool_calls(s, r, j, o);
        if (calls < 0) {
            cJSON_Delete(o);
            return -1;
        }
        bool called = calls && q->finish != SW_FINISH_LENGTH && q->finish != SW_FINISH_NONE;
        cJSON_AddStringToObject(o, "finish_reason", called ? "tool_calls" : infer_finish_name(q));
        if (s->settings->logprobs)
            add_logprobs(o, s, q->out.at, q->logprobs.at, q->logprobs.n);
        if (s->settings->timing) {
            cJSON_AddNumberToObject(o, "first_token_seconds", q->first_token_at - r->started);
            cJSON_AddNumberToObject(o, "seconds", q->done_at - r->started);
        }
        if (print(o))
            return -1;
    }
    return 0;
}

static int score_one(infer_session *s, const scored *q, cJSON *scores)
{
    const sw_ids *whole = &q->whole;
    size_t first = q->first;
    float *logp = SW_NEW_ARRAY(float, whole->n);
    double *each = SW_NEW_ARRAY(double, whole->n);
    int32_t *best = SW_NEW_ARRAY(int32_t, whole->n);
    int rc = sw_score_tokens(&s->generator, whole->at, whole->n, first, logp, best);
    double sum = 0;
    bool greedy = true;
    for (size_t i = first; i < whole->n; i++) {
        sum += each[i] = logp[i];
        greedy &= best[i] == whole->at[i];
    }
    if (!rc) {
        cJSON *o = cJSON_CreateObject();
        size_t n = whole->n - SW_MIN(first, whole->n);
        cJSON_AddNumberToObject(o, "logprob", sum);
        cJSON_AddNumberToObject(o, "tokens", (double)n);
        cJSON_AddBoolToObject(o, "greedy", greedy);
        if (s->settings->logprobs)
            add_logprobs(o, s, whole->at + first, each + first, n);
        cJSON_AddItemToArray(scores, o);
    }
    free(logp);
    free(each);
    free(best);
    return rc;
}

static int write_scores(infer_session *s, record *r)
{
    cJSON *o = copy_unknown(r->in, of_scores), *scores = cJSON_AddArrayToObject(o, "scores");
    for (size_t i = 0; i < r->continuations.n; i++)
        if (score_one(s, &r->continuations.at[i], scores)) {
            cJSON_Delete(o);
            return sw_fail_in("%s", r->where);
        }
    return print(o);
}

/* Each text's scores, or its embedding, --batch of them at a time. */
static int write_classes(infer_session *s, const window *w)
{
    size_t most = (size_t)s->settings->batch, labels = (size_t)(s->embeds ? s->model->spec.hidden : s->model->spec.labels);
    const sw_ids **texts = SW_NEW_ARRAY(const sw_ids *, most);
    float *scores = SW_NEW_ARRAY(float, most * labels);
    int rc = 0;
    for (size_t i = 0; i < w->n && !rc && !sw_interrupted(); i += most) {
        size_t n = SW_MIN(most, w->n - i);
        for (size_t k = 0; k < n; k++)
            texts[k] = &w->at[i + k].text;
        rc = s->embeds ? infer_embed(s, texts, n, scores) : infer_classify(s, texts, n, scores);
        for (size_t k = 0; k < n && !rc; k++) {
            cJSON *o = copy_unknown(w->at[i + k].in, of_texts);
            if (s->embeds)
                infer_add_embedding(s, scores + k * labels, o);
            else
                infer_add_scores(s, scores + k * labels, o);
            rc = print(o);
        }
    }
    free(texts);
    free(scores);
    return rc;
}

/* The classes of each text's words, --batch of them at a time. */
static int write_tags(infer_session *s, const window *w)
{
    size_t most = (size_t)s->settings->batch, labels = (size_t)s->model->spec.labels;
    const sw_ids **texts = SW_NEW_ARRAY(const sw_ids *, most);
    int rc = 0;
    for (size_t i = 0; i < w->n && !rc && !sw_interrupted(); i += most) {
        size_t n = SW_MIN(most, w->n - i);
        float *scores = NULL, *at;
        for (size_t k = 0; k < n; k++)
            texts[k] = &w->at[i + k].words.ids;
        rc = infer_tag(s, texts, n, &scores);
        at = scores;
        for (size_t k = 0; k < n && !rc; at += texts[k++]->n * labels) {
            cJSON *o = copy_unknown(w->at[i + k].in, of_words);
            infer_add_classes(s, &w->at[i + k].words, at, o);
            rc = print(o);
        }
        free(scores);
    }
    free(texts);
    return rc;
}

static void free_record(record *r)
{
    infer_words_free(&r->words);
    free(r->text.at);
    for (size_t k = 0; k < r->continuations.n; k++)
        free(r->continuations.at[k].whole.at);
    free(r->continuations.at);
    for (size_t k = 0; k < r->n_jobs; k++)
        infer_job_free(&r->jobs[k]);
    free(r->jobs);
    free(r->where);
    cJSON_Delete(r->in);
}

static int run_window(infer_session *s, window *w)
{
    struct { sw_sequence **at; size_t n, cap; } all = {0};
    for (size_t i = 0; i < w->n; i++)
        for (size_t k = 0; k < w->at[i].n_jobs; k++)
            SW_PUSH(all, &w->at[i].jobs[k].sequence);
    sw_task task = s->model->spec.task;
    bool classifier = task != SW_TASK_LM || s->embeds;
    int rc = 0;
    if (task == SW_TASK_TOKENS)
        rc = write_tags(s, w);
    else if (classifier)
        rc = write_classes(s, w);
    else if (all.n)
        rc = sw_generate(&s->generator, all.at, all.n, sw_interrupted);
    free(all.at);
    for (size_t i = 0; i < w->n && !rc && !classifier; i++) {
        bool cut_short = false;
        for (size_t k = 0; k < w->at[i].n_jobs; k++)
            cut_short |= w->at[i].jobs[k].sequence.finish == SW_FINISH_NONE;
        if (cut_short)
            break;
        rc = w->at[i].is_scored ? write_scores(s, &w->at[i]) : write_answers(s, &w->at[i]);
    }
    for (size_t i = 0; i < w->n; i++)
        free_record(&w->at[i]);
    w->n = 0;
    if (!rc && fflush(stdout))
        rc = sw_fail_errno("standard output");
    return rc;
}

static int run_file(infer_session *s, const char *path, window *w, int64_t *bad, sw_progress *progress)
{
    sw_rows *rows = sw_rows_open(path, SW_ROWS_JSONL, SW_TEXT_LINE);
    if (!rows)
        return -1;
    sw_row row;
    int got, rc = 0;
    while (!rc && !sw_interrupted() && (got = sw_rows_next(rows, &row))) {
        if (got < 0) {
            rc = -1;
            break;
        }
        record r = {.in = sw_row_json(rows, row.at, row.n, row.line), .where = sw_strfmt("%s: line %lld", sw_rows_name(rows), (long long)row.line)};
        if (!r.in || prepare(s, &r)) {
            rc = r.in ? sw_fail_in("%s", r.where) : -1;
            free_record(&r);
            if (*bad >= s->settings->skip_bad)
                break;
            ++*bad;
            sw_warn("left out: %s", sw_error());
            rc = 0;
            continue;
        }
        SW_PUSH(*w, r);
        if (w->n >= (size_t)(s->settings->batch * 4)) {
            size_t n = w->n;
            rc = run_window(s, w);
            sw_progress_update(progress, progress->done + (double)n, NULL);
        }
    }
    sw_rows_close(rows);
    return rc;
}

int infer_batch(infer_session *s, char **files, int n_files)
{
    static char *standard[] = {"-"};
    window w = {0};
    int64_t bad = 0;
    int rc = 0;
    sw_progress progress;
    sw_progress_begin(&progress, "infer", "records", 0);
    if (!n_files) {
        files = standard;
        n_files = 1;
    }
    for (int i = 0; i < n_files && !rc; i++)
        rc = run_file(s, files[i], &w, &bad, &progress);
    if (rc) { /* what was read before the bad record is still answered */
        char *why = sw_strdup(sw_error());
        if (!run_window(s, &w))
            sw_fail("%s", why);
        free(why);
    } else {
        size_t n = w.n;
        rc = run_window(s, &w);
        sw_progress_update(&progress, progress.done + (double)n, NULL);
    }
    free(w.at);
    sw_progress_end(&progress);
    if (!rc && sw_interrupted())
        rc = sw_fail("interrupted; the answers printed are complete");
    if (bad)
        sw_warn("%lld bad records were left out", (long long)bad);
    return rc;
}
