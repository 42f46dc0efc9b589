/* Words in, the class of each out. */
#include "infer.h"

#include "base/json.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void infer_words_free(infer_words *w)
{
    free(w->ids.at);
    free(w->words.at);
    free(w->first);
    sw_buf_free(&w->text);
}

/* "tokens" (or "words"), a list of words, which are read with a space between; or "text", whose words are found here. */
int infer_read_words(infer_session *s, const cJSON *in, infer_words *w)
{
    const cJSON *words = sw_json_get(in, "tokens"), *text = sw_json_get(in, "text");
    words = words ? words : sw_json_get(in, "words");
    sw_buf tmp = {0};
    sw_buf_puts(&w->text, "");
    if (!cJSON_IsArray(words) && !(cJSON_IsString(text) && !words))
        return sw_fail("\"tokens\" (a list of words) or \"text\" (a string) is needed");
    for (const cJSON *v = words ? words->child : NULL; v; v = v->next) {
        if (!cJSON_IsString(v)) {
            sw_buf_free(&tmp);
            return sw_fail("\"tokens\": a list of strings is needed, not of %s", sw_json_kind(v));
        }
        sw_buf_clear(&tmp);
        sw_span one = sw_json_text(v, &tmp);
        if (v != words->child)
            sw_buf_putc(&w->text, ' ');
        sw_word word = {w->text.n, w->text.n + one.n};
        sw_buf_add(&w->text, one.at, one.n);
        SW_PUSH(w->words, word);
    }
    if (!words) {
        sw_span all = sw_json_text(text, &tmp);
        sw_buf_add(&w->text, all.at, all.n);
        sw_words_of(w->text.at, 0, w->text.n, &w->words);
    }
    sw_buf_free(&tmp);
    w->given = words;
    w->first = SW_NEW_ARRAY(int32_t, w->words.n + 1);
    if (sw_words_encode(s->encoder, w->text.at, w->text.n, &w->words, &w->ids, w->first))
        return -1;
    if (!w->ids.n)
        return sw_fail("the text is empty: there is nothing to classify");
    return infer_check_ids(s, "the text has", &w->ids, s->context);
}

int infer_tag(infer_session *s, const sw_ids *const *texts, size_t n, float **scores)
{
    sw_ctx *c = &s->generator.ctx;
    sw_batch b = infer_batch_of(c, texts, n);
    sw_head head = sw_model_head(s->model);
    sw_var *h = sw_model_forward(c, s->model, &b, false), *y = h ? sw_logits(c, h, &head) : NULL;
    *scores = SW_NEW_ARRAY(float, (size_t)(b.n * s->model->spec.labels));
    int rc = !y || sw_to_host(c, y, *scores) ? -1 : 0;
    sw_ctx_reset(c);
    return rc;
}

/* The likeliest class, and its probability. */
static int32_t best_of(const float *scores, int64_t k, double *probability)
{
    int32_t best = 0;
    double sum = 0;
    for (int64_t i = 1; i < k; i++)
        best = scores[i] > scores[best] ? (int32_t)i : best;
    for (int64_t i = 0; i < k; i++)
        sum += exp((double)scores[i] - (double)scores[best]);
    *probability = 1 / sum;
    return best;
}

static void add_string(cJSON *list, const char *key, const char *s, size_t n)
{
    sw_buf b = {0};
    sw_buf_json(&b, s, n);
    if (key)
        cJSON_AddItemToObject(list, key, cJSON_CreateRaw(b.at));
    else
        cJSON_AddItemToArray(list, cJSON_CreateRaw(b.at));
    sw_buf_free(&b);
}

/* Spans by their words where words were given, else by their characters and with their text. */
static void add_spans(const infer_session *s, const infer_words *w, const int32_t *classes, cJSON *o)
{
    sw_tag_spans spans = {0};
    cJSON *list = cJSON_AddArrayToObject(o, "spans");
    sw_tags_spans(&s->tags, classes, w->words.n, &spans);
    for (size_t i = 0; i < spans.n; i++) {
        cJSON *span = cJSON_CreateObject();
        size_t from = w->words.at[spans.at[i].start].start, to = w->words.at[spans.at[i].end - 1].end;
        cJSON_AddNumberToObject(span, "start", w->given ? (double)spans.at[i].start : (double)sw_utf8_count(w->text.at, from));
        cJSON_AddNumberToObject(span, "end", w->given ? (double)spans.at[i].end : (double)sw_utf8_count(w->text.at, to));
        cJSON_AddStringToObject(span, "label", spans.at[i].type);
        add_string(span, "text", w->text.at + from, to - from);
        cJSON_AddItemToArray(list, span);
    }
    free(spans.at);
}

void infer_add_classes(const infer_session *s, const infer_words *w, const float *scores, cJSON *o)
{
    int64_t k = s->model->spec.labels;
    int32_t *classes = SW_NEW_ARRAY(int32_t, w->words.n + 1), outside = SW_MAX(sw_tags_find(&s->tags, "O"), 0);
    cJSON *words = w->given ? NULL : cJSON_AddArrayToObject(o, "words");
    cJSON *names = cJSON_AddArrayToObject(o, "classes"), *sure = cJSON_AddArrayToObject(o, "scores");
    for (size_t i = 0; i < w->words.n; i++) {
        double probability = 0;
        bool has = w->first[i] >= 0;
        classes[i] = has ? best_of(scores + w->first[i] * k, k, &probability) : outside;
        if (words)
            add_string(words, NULL, w->text.at + w->words.at[i].start, w->words.at[i].end - w->words.at[i].start);
        cJSON_AddItemToArray(names, has ? infer_class_name(s, classes[i]) : cJSON_CreateNull());
        cJSON_AddItemToArray(sure, has ? cJSON_CreateNumber(probability) : cJSON_CreateNull());
    }
    if (s->tags.spans)
        add_spans(s, w, classes, o);
    free(classes);
}
