/* Texts in, scores of a classifier out. */
#include "infer.h"

#include "base/json.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* As swift-tokenize encodes what a classifier learns from: a text and its end, or a whole conversation. */
int infer_read_text(infer_session *s, const cJSON *in, sw_ids *ids)
{
    const cJSON *messages = sw_json_get(in, "messages"), *text = sw_json_get(in, "text");
    text = text ? text : sw_json_get(in, "prompt");
    int rc;
    if (sw_json_get(in, "continuations"))
        return sw_fail("\"continuations\": the model %s", s->embeds ? "makes embeddings of whole texts" : "is a classifier, which scores whole texts");
    if (messages) {
        if (!cJSON_IsArray(messages) || !messages->child)
            return sw_fail("\"messages\": a list of {role, content} is needed");
        if (!s->tmpl)
            return sw_fail("\"messages\": there is no chat template: %s", s->template_error);
        sw_weights weights = {0};
        cJSON *all = infer_with_system(messages, s->settings->system), *tools = NULL;
        rc = !all || infer_read_tools(in, &tools) ||
                     sw_template_encode(s->tmpl, s->encoder, all, tools, NULL, SW_TRAIN_ASSISTANT, NULL, ids, &weights)
                 ? -1
                 : 0;
        cJSON_Delete(all);
        cJSON_Delete(tools);
        free(weights.at);
    } else if (!cJSON_IsString(text)) {
        return sw_fail("\"text\" (a string) or \"messages\" (a list) is needed");
    } else {
        sw_buf tmp = {0};
        sw_span p = sw_json_text(text, &tmp);
        int32_t eos = sw_tokenizer_eos(s->tokenizer);
        rc = sw_encode(s->encoder, p.at, p.n, true, ids, NULL);
        sw_buf_free(&tmp);
        if (!rc && !s->embeds && eos >= 0 && ids->n && ids->at[ids->n - 1] != eos) /* embeddings are of what the tokenizer makes */
            SW_PUSH(*ids, eos);
    }
    if (!rc && !ids->n)
        return sw_fail("the text is empty: there is nothing to classify");
    return rc ? rc : infer_check_ids(s, "the text has", ids, s->context);
}

sw_batch infer_batch_of(sw_ctx *c, const sw_ids *const *texts, size_t n)
{
    sw_batch b = {.n_seqs = (int64_t)n};
    int64_t *lengths = sw_ctx_alloc(c, n * sizeof *lengths), at = 0;
    for (size_t i = 0; i < n; i++)
        b.n += lengths[i] = (int64_t)texts[i]->n;
    int32_t *ids = sw_ctx_alloc(c, (size_t)b.n * sizeof *ids);
    for (size_t i = 0; i < n; at += lengths[i++])
        memcpy(ids + at, texts[i]->at, texts[i]->n * sizeof *ids);
    b.ids = ids;
    b.lengths = lengths;
    return b;
}

/* One row for each text: what the pooling gives, or its scores. */
static int rows_of(infer_session *s, const sw_ids *const *texts, size_t n, bool scored, float *out)
{
    sw_ctx *c = &s->generator.ctx;
    sw_batch b = infer_batch_of(c, texts, n);
    sw_var *h = sw_model_forward(c, s->model, &b, false), *x = h ? sw_model_pool(c, s->model, &b, h) : NULL;
    x = x && scored ? sw_model_score(c, s->model, x) : x;
    x = x ? sw_cast(c, x, SW_F32) : NULL;
    int rc = !x || sw_to_host(c, x, out) ? -1 : 0;
    sw_ctx_reset(c);
    return rc;
}

int infer_classify(infer_session *s, const sw_ids *const *texts, size_t n, float *scores) { return rows_of(s, texts, n, true, scores); }
int infer_embed(infer_session *s, const sw_ids *const *texts, size_t n, float *vectors) { return rows_of(s, texts, n, false, vectors); }

void infer_add_embedding(const infer_session *s, float *vector, cJSON *o)
{
    int64_t n = s->model->spec.hidden;
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)vector[i] * vector[i];
    double scale = s->model->spec.unit_vectors && sum > 0 ? 1 / sqrt(sum) : 1;
    cJSON *list = cJSON_AddArrayToObject(o, "embedding");
    for (int64_t i = 0; i < n; i++)
        cJSON_AddItemToArray(list, cJSON_CreateNumber((double)(float)(vector[i] * scale)));
}

cJSON *infer_class_name(const infer_session *s, int64_t i)
{
    const cJSON *config = s->model->checkpoint->config;
    char key[24];
    snprintf(key, sizeof key, "%lld", (long long)i);
    const cJSON *name = sw_json_get(sw_json_get(config, "id2label"), key);
    return cJSON_IsString(name) ? cJSON_Duplicate(name, true) : cJSON_CreateNumber((double)i);
}

void infer_add_scores(const infer_session *s, const float *scores, cJSON *o)
{
    int64_t k = s->model->spec.labels, best = 0;
    const cJSON *problem = sw_json_get(s->model->checkpoint->config, "problem_type");
    const char *kind = cJSON_IsString(problem) ? problem->valuestring : k == 1 ? "regression" : "";
    for (int64_t i = 1; i < k; i++)
        best = scores[i] > scores[best] ? i : best;
    if (!strcmp(kind, "multi_label_classification")) {
        cJSON *list = cJSON_AddArrayToObject(o, "classes");
        for (int64_t i = 0; i < k; i++)
            if (scores[i] > 0)
                cJSON_AddItemToArray(list, infer_class_name(s, i));
    } else if (strcmp(kind, "regression")) {
        cJSON_AddItemToObject(o, "class", infer_class_name(s, best));
    }
    cJSON *list = cJSON_AddArrayToObject(o, "scores");
    for (int64_t i = 0; i < k; i++)
        cJSON_AddItemToArray(list, cJSON_CreateNumber((double)scores[i]));
}
