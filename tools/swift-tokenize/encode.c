#include "tokenize.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

void encoded_clear(encoded *e)
{
    e->ids.n = e->weights.n = e->tags.n = e->pieces.n = e->ends.n = e->numbers.n = 0;
    sw_buf_clear(&e->bytes);
}

void encoded_free(encoded *e)
{
    free(e->ids.at);
    free(e->weights.at);
    free(e->tags.at);
    free(e->pieces.at);
    free(e->ends.at);
    free(e->numbers.at);
    sw_buf_free(&e->bytes);
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

/* Labels are tokens where the model learns to say them. */
static bool learns_tokens(const sw_sample *s) { return s->task <= SW_TASK_KTO && !s->positives; }

static int encode_text(const tokenize_job *job, sw_encoder *encoder, const sw_sample *s, encoded *e)
{
    size_t start = e->ids.n;
    if (!*s->text->valuestring)
        return 0;
    if (job->encoder && learns_tokens(s))
        return sw_fail("is a text alone; %s has an encoder, which learns from a prompt and its completion", job->o->model);
    if (encode_string(encoder, s->text, true, 1, e))
        return -1;
    end_text(job, e, start);
    return 0;
}

/* ---- words and their classes */

/* Number of the class that a sample gives a word; -1 none, as -100 says elsewhere. */
static int class_of(const tokenize_job *job, const cJSON *tag, int32_t *out)
{
    const char *name = cJSON_IsString(tag) ? tag->valuestring : cJSON_IsArray(tag) ? tag->child->valuestring : "O";
    if (cJSON_IsNumber(tag)) {
        double most = job->tags.n ? (double)job->tags.n : 1 << 20;
        if (tag->valuedouble != -100 && !(tag->valuedouble >= 0 && tag->valuedouble < most && tag->valuedouble == (int32_t)tag->valuedouble))
            return sw_fail("a word's class is %g; the classes of %s are 0 to %g, and -100 is none", tag->valuedouble,
                           job->o->labels ? "--labels" : job->o->model, most - 1);
        *out = tag->valuedouble < 0 ? -1 : (int32_t)tag->valuedouble;
        return 0;
    }
    *out = cJSON_IsString(tag) ? sw_tags_find(&job->tags, name)
                               : sw_tags_of_span(&job->tags, cJSON_IsArray(tag) ? name : NULL, cJSON_IsArray(tag) && cJSON_IsTrue(tag->child->next));
    if (*out >= 0)
        return 0;
    if (!job->tags.n)
        return sw_fail("'%s' is the name of a class; which number it has says --labels, or \"id2label\" in the config.json of %s, which is missing",
                       name, job->o->model);
    return job->o->labels ? sw_fail("'%s' is none of the %zu classes of --labels, from %s to %s", name, job->tags.n, job->tags.at[0].name,
                                    job->tags.at[job->tags.n - 1].name)
                          : sw_fail("'%s' is no class of %s; \"id2label\" in its config.json names %zu, from %s to %s", name, job->o->model, job->tags.n,
                                    job->tags.at[0].name, job->tags.at[job->tags.n - 1].name);
}

/* The first token of each word has the word's class, the others none. */
static int encode_tagged(const tokenize_job *job, sw_encoder *encoder, const sw_sample *s, encoded *e)
{
    size_t start = e->ids.n, i = 0;
    int32_t *first = SW_NEW_ARRAY(int32_t, s->words.n + 1), class = -1;
    int rc = sw_words_encode(encoder, s->text->valuestring, strlen(s->text->valuestring), &s->words, &e->ids, first);
    weigh(e, 0);
    SW_RESERVE(e->tags, e->ids.n);
    while (e->tags.n < e->ids.n)
        e->tags.at[e->tags.n++] = -1;
    for (const cJSON *t = s->tags->child; t && !rc; t = t->next, i++) {
        rc = class_of(job, t, &class);
        if (!rc && first[i] >= 0 && e->tags.at[start + (size_t)first[i]] < 0) /* words that share a token: its first word's */
            e->tags.at[start + (size_t)first[i]] = class;
    }
    free(first);
    return rc;
}

/* What an encoder reads, and what the decoder is to write: each a text of its own. */
static int encode_pair(const tokenize_job *job, sw_encoder *encoder, const sw_sample *s, encoded *e)
{
    size_t before = e->ids.n;
    if (encode_string(encoder, s->prompt, true, 0, e))
        return -1;
    size_t start = e->ids.n;
    if (start == before)
        return sw_fail("\"prompt\": is empty; the encoder of %s needs at least one token to read", job->o->model);
    if (encode_string(encoder, s->completion, true, 1, e))
        return -1;
    end_text(job, e, start);
    return 0;
}

/* Prompt and completion are encoded apart, as they will be when the model is asked. */
static int encode_completion(const tokenize_job *job, sw_encoder *encoder, const sw_sample *s, encoded *e)
{
    size_t start = e->ids.n;
    float prompt_weight = job->o->train_on == SW_TRAIN_ALL;
    if (job->encoder)
        return encode_pair(job, encoder, s, e);
    if (sw_tokenizer_adds_bos(job->tokenizer) && sw_tokenizer_bos(job->tokenizer) >= 0)
        add_id(e, sw_tokenizer_bos(job->tokenizer), 0);
    if (encode_string(encoder, s->prompt, false, prompt_weight, e) ||
        encode_string(encoder, s->completion, false, 1, e))
        return -1;
    end_text(job, e, start);
    return 0;
}

/* There must be a template, and it must write what the conversation has. */
static int check_chat(const tokenize_job *job, const cJSON *messages)
{
    if (!job->template)
        return sw_fail("is a conversation, and %s has no chat template; name one (--template)", job->o->model);
    for (const cJSON *m = job->takes.calls || !messages ? NULL : messages->child; m; m = m->next)
        if (cJSON_GetArraySize(sw_json_get(m, "tool_calls")))
            return sw_fail("has calls of tools, and the chat template %s makes nothing of them: nothing would be learnt; choose a built-in "
                           "--template, perhaps with --agent-template", sw_template_name(job->template));
    return 0;
}

static int encode_chat(const tokenize_job *job, sw_encoder *encoder, const sw_sample *s, const cJSON *messages,
                       encoded *e)
{
    if (check_chat(job, messages))
        return -1;
    return sw_template_encode(job->template, encoder, messages, s->tools, s->extra, (sw_train_on)job->o->train_on,
                              job->scale, &e->ids, &e->weights);
}

static bool has_label(const encoded *e, span q)
{
    for (size_t i = q.start; i < q.start + q.n; i++)
        if (e->weights.at[i] != 0)
            return true;
    return false;
}

/* Ends a sequence that began at start: its first token follows nothing, so it is no label. */
static span end_sequence(encoded *e, size_t start)
{
    if (e->ids.n > start)
        e->weights.at[start] = 0;
    return (span){start, e->ids.n - start};
}

/* Cuts q to max_length. What has lost its last label by that teaches nothing and is dropped: false. */
static bool cut(const tokenize_job *job, encoded *e, span *q)
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
    if (job->encoder && e->weights.at[q->start] != 0) /* nothing is left of what the encoder reads */
        return false;
    e->weights.at[q->start] = 0;
    return !had || has_label(e, *q);
}

static void add_piece(const sw_sample *s, encoded *e, piece p, counts *n)
{
    n->unlabelled += learns_tokens(s) && !has_label(e, p.seqs[SEQ_MAIN]);
    SW_PUSH(e->pieces, p);
}

/* Consecutive pieces of max_length; those without a label are left out unless the whole had none. */
static void split(const tokenize_job *job, const sw_sample *s, encoded *e, piece p, counts *n)
{
    size_t max = (size_t)job->o->max_length;
    span rest = p.seqs[SEQ_MAIN];
    bool had = has_label(e, rest);
    n->split++;
    while (rest.n) {
        span *q = &p.seqs[SEQ_MAIN];
        *q = (span){rest.start, SW_MIN(rest.n, max)};
        e->weights.at[q->start] = 0;
        if (!had || has_label(e, *q))
            add_piece(s, e, p, n);
        rest.start += q->n;
        rest.n -= q->n;
    }
}

/* ---- what stands beside the tokens */

static span add_json(encoded *e, const cJSON *v)
{
    size_t start = e->bytes.n;
    sw_json_print(&e->bytes, v);
    return (span){start, e->bytes.n - start};
}

static void add_columns(const tokenize_job *job, const sw_sample *s, encoded *e, piece *p)
{
    p->labels.start = e->numbers.n;
    for (const cJSON *c = s->labels ? s->labels->child : NULL; c; c = c->next)
        SW_PUSH(e->numbers, (float)c->valuedouble);
    p->labels.n = e->numbers.n - p->labels.start;
    p->margin = (float)s->margin;
    if (s->media)
        p->media = add_json(e, s->media);
    if (s->carried)
        p->carried = add_json(e, s->carried);
    p->has = (s->rejected ? HAS_REJECTED : 0) | (s->positives ? HAS_LISTS : 0) | (s->labels ? HAS_LABEL : 0) |
             (s->tags ? HAS_TAGS : 0) | (s->has_margin ? HAS_MARGIN : 0) | (job->takes.media ? HAS_MEDIA : 0) | (s->carried ? HAS_CARRIED : 0);
}

/* ---- texts that are compared */

static int encode_compared(const tokenize_job *job, sw_encoder *encoder, const sw_sample *s, const cJSON *text,
                           encoded *e)
{
    size_t start = e->ids.n;
    if (!cJSON_IsString(text))
        return encode_chat(job, encoder, s, text, e);
    if (encode_string(encoder, text, true, 0, e))
        return -1;
    end_text(job, e, start);
    return 0;
}

/* All texts of a list, one behind the other, each at most max_length: *longer where one had more. */
static int encode_list(const tokenize_job *job, sw_encoder *encoder, const sw_sample *s, const cJSON *list, encoded *e,
                       span *seq, span *ends, bool *longer)
{
    size_t max = (size_t)job->o->max_length, i = 0;
    *seq = (span){e->ids.n, 0};
    *ends = (span){e->ends.n, 0};
    for (const cJSON *t = list->child; t; t = t->next, i++) {
        size_t start = e->ids.n;
        if (encode_compared(job, encoder, s, t, e))
            return sw_fail_in("text %zu of its %s", i + 1, list == s->positives ? "positives" : "negatives");
        size_t n = e->ids.n - start;
        if (!n)
            return sw_fail("text %zu of its %s is empty", i + 1, list == s->positives ? "positives" : "negatives");
        if (max && n > max) {
            *longer = true;
            if (job->o->truncate == TRUNCATE_LEFT)
                memmove(e->ids.at + start, e->ids.at + e->ids.n - max, max * sizeof *e->ids.at);
            e->ids.n = e->weights.n = start + max;
        }
        SW_PUSH(e->ends, (uint32_t)(e->ids.n - seq->start));
    }
    seq->n = e->ids.n - seq->start;
    ends->n = e->ends.n - ends->start;
    return 0;
}

/* ---- */

static int encode_prompt(const tokenize_job *job, sw_encoder *encoder, const sw_sample *s, encoded *e)
{
    if (s->kind == SW_SAMPLE_COMPLETION) {
        if (job->encoder)
            return encode_string(encoder, s->prompt, true, 0, e);
        if (sw_tokenizer_adds_bos(job->tokenizer) && sw_tokenizer_bos(job->tokenizer) >= 0)
            add_id(e, sw_tokenizer_bos(job->tokenizer), 0);
        return encode_string(encoder, s->prompt, false, 0, e);
    }
    if (check_chat(job, s->messages))
        return -1;
    int rc = sw_template_encode_prompt(job->template, encoder, s->messages, s->tools, s->extra, &e->ids);
    weigh(e, 0);
    return rc;
}

static int encode_main(const tokenize_job *job, sw_encoder *encoder, const sw_sample *s, encoded *e)
{
    if (s->task == SW_TASK_PROMPT)
        return encode_prompt(job, encoder, s, e);
    if (s->tags)
        return encode_tagged(job, encoder, s, e);
    if (s->positives)
        return encode_compared(job, encoder, s, s->kind == SW_SAMPLE_TEXT ? s->text : s->messages, e);
    return s->kind == SW_SAMPLE_CHAT   ? encode_chat(job, encoder, s, s->messages, e)
           : s->kind == SW_SAMPLE_TEXT ? encode_text(job, encoder, s, e)
                                       : encode_completion(job, encoder, s, e);
}

static int encode_sample(const tokenize_job *job, sw_encoder *encoder, const sw_sample *s, encoded *e, outcome *told)
{
    piece p = {0};
    size_t start = e->ids.n, max = (size_t)job->o->max_length;
    bool learns = learns_tokens(s), longer = false, end_trained = false;
    if (s->media && !job->takes.media)
        return sw_fail(
            "has images, videos or audios, and the chat template %s makes nothing of them; use the model's own, or "
            "leave the columns out (--map images=)",
            job->template ? sw_template_name(job->template) : "(none)");
    if (encode_main(job, encoder, s, e))
        return -1;
    span *main = &p.seqs[SEQ_MAIN], *rejected = &p.seqs[SEQ_REJECTED];
    *main = end_sequence(e, start);
    told->n.chats += learns && s->kind == SW_SAMPLE_CHAT;
    told->n.unfilled += s->unfilled;
    told->n.unused_tools += s->kind == SW_SAMPLE_CHAT && !job->takes.tools && cJSON_GetArraySize(s->tools);
    if (!main->n) {
        told->n.empty++;
        return 0;
    }
    for (size_t i = start; i < e->ids.n; i++) {
        if (!learns)
            e->weights.at[i] = 0;
        told->labelled += e->weights.at[i] != 0;
        end_trained |= s->kind == SW_SAMPLE_CHAT && e->ids.at[i] == job->end_token && e->weights.at[i] != 0;
    }
    told->n.end_trained = end_trained;
    if (s->rejected) {
        start = e->ids.n;
        if (encode_chat(job, encoder, s, s->rejected, e))
            return sw_fail_in("rejected answer");
        *rejected = end_sequence(e, start);
    }
    if (s->positives &&
        (encode_list(job, encoder, s, s->positives, e, &p.seqs[SEQ_POSITIVE], &p.ends[SEQ_POSITIVE], &longer) ||
         encode_list(job, encoder, s, s->negatives, e, &p.seqs[SEQ_NEGATIVE], &p.ends[SEQ_NEGATIVE], &longer)))
        return -1;
    add_columns(job, s, e, &p);
    told->length = (int64_t)SW_MAX(main->n, rejected->n);
    longer |= max && (size_t)told->length > max;
    bool one = !s->rejected && !s->positives;
    if (longer && job->o->truncate == TRUNCATE_SPLIT && one) {
        split(job, s, e, p, &told->n);
        return 0;
    }
    bool dropped = longer && (job->o->truncate == TRUNCATE_DROP || job->o->truncate == TRUNCATE_SPLIT);
    if (dropped || (longer && (!cut(job, e, main) || (s->rejected && !cut(job, e, rejected))))) {
        told->n.dropped++;
        return 0;
    }
    told->n.truncated += longer;
    add_piece(s, e, p, &told->n);
    return 0;
}

/* ---- duplicates */

/* All that the row says, without the system message, which many rows share. */
static void gather(const cJSON *v, sw_buf *text)
{
    sw_buf scratch = {0};
    if (cJSON_IsString(v)) {
        sw_span s = sw_json_text(v, &scratch);
        sw_buf_add(text, s.at, s.n);
        sw_buf_putc(text, '\n');
    }
    const cJSON *role = sw_json_get(v, "role");
    bool message = cJSON_IsString(role);
    if (message && strcmp(role->valuestring, "system"))
        gather(sw_json_get(v, "content"), text);
    if (cJSON_IsObject(v) && !message)
        gather(sw_json_get(v, "text"), text);
    for (const cJSON *c = cJSON_IsArray(v) ? v->child : NULL; c; c = c->next)
        gather(c, text);
    sw_buf_free(&scratch);
}

/* A record is what its pieces will be: the ids and labels for exact duplicates, the words for near ones. */
static void make_print(const tokenize_job *job, const sw_sample *s, const encoded *e, size_t ids, size_t numbers,
                       size_t bytes, sw_print *print)
{
    sw_buf b = {0};
    sw_buf_puts(&b, "");
    sw_buf_add(&b, e->numbers.at + numbers, (e->numbers.n - numbers) * sizeof *e->numbers.at);
    if (s->tags) /* on the tokens, which are all there */
        sw_buf_add(&b, e->tags.at + ids, (e->tags.n - ids) * sizeof *e->tags.at);
    uint64_t labels[2];
    sw_print_exact(print, b.at, b.n);
    memcpy(labels, print->exact, sizeof labels);
    sw_buf_add(&b, e->ids.at + ids, (e->ids.n - ids) * sizeof *e->ids.at);
    if (s->media)
        sw_buf_add(&b, e->bytes.at + bytes, e->bytes.n - bytes);
    sw_print_exact(print, b.at, b.n);
    if (job->o->dedup == DEDUP_NEAR) {
        const cJSON *parts[] = {s->messages,   s->rejected,  s->text,      s->prompt,
                                s->completion, s->positives, s->negatives, s->media};
        sw_buf_clear(&b);
        for (size_t i = 0; i < SW_COUNT(parts); i++)
            gather(parts[i], &b);
        if (s->media)
            sw_json_print(&b, s->media);
        sw_print_text(print, b.n ? b.at : "", b.n, labels[0]);
    }
    sw_buf_free(&b);
}

int encode_row(const tokenize_job *job, sw_encoder *encoder, cJSON *row, encoded *out, outcome *told, sw_print *print)
{
    sw_sample s;
    *told = (outcome){0};
    if (sw_sample_from(&job->dataset, row, &s))
        return -1;
    *told = (outcome){.format = s.format,
                      .lists = s.positives,
                      .tools = s.tools,
                      .rejected = s.rejected,
                      .labels = s.labels,
                      .tags = s.tags,
                      .media = s.media};
    size_t ids = out->ids.n, ends = out->ends.n, numbers = out->numbers.n, bytes = out->bytes.n;
    int rc = encode_sample(job, encoder, &s, out, told);
    if (!rc && print)
        make_print(job, &s, out, ids, numbers, bytes, print);
    if (rc) {
        out->ids.n = out->weights.n = ids;
        out->tags.n = SW_MIN(out->tags.n, ids);
        out->ends.n = ends;
        out->numbers.n = numbers;
        out->bytes.n = bytes;
    }
    sw_sample_free(&s);
    return rc;
}
