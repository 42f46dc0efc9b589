/* The scorer "match": an answer is generated, and is right where it says the same as the right one. Each metric has its
 * own way to find the answer in the text and its own idea of "the same". */
#include "eval.h"

#include <string.h>

static int ask(const eval_task *t, const cJSON *vars, cJSON *out, int (*emit)(const cJSON *))
{
    sw_buf answer = {0};
    int rc = eval_right_answer(t, vars, &answer);
    if (!rc) {
        cJSON_AddNumberToObject(out, "max_tokens", (double)t->max_tokens);
        if (t->stop && t->stop->child)
            cJSON_AddItemToObject(out, "stop", cJSON_Duplicate(t->stop, true));
        eval_add_text(out, "answer", (sw_span){answer.at, answer.n});
        rc = emit(out);
    }
    sw_buf_free(&answer);
    return rc;
}

static int score(const eval_task *t, const cJSON *result, eval_amount *amounts, cJSON *details)
{
    const cJSON *text = sw_json_get(result, "text"), *answer = sw_json_get(result, "answer");
    if (!cJSON_IsString(text))
        return sw_fail("\"text\": the answer of the model, a string, is needed, not %s", sw_json_kind(text));
    if (!cJSON_IsString(answer))
        return sw_fail("\"answer\": the right answer, a string, is needed, not %s", sw_json_kind(answer));
    sw_buf tmp[2] = {{0}, {0}}, found = {0}, said = {0}, right = {0};
    sw_span given = sw_json_text(text, &tmp[0]), wanted = sw_json_text(answer, &tmp[1]);
    cJSON *predictions = details ? cJSON_AddObjectToObject(details, "predictions") : NULL;
    int rc = 0;
    for (size_t i = 0; i < t->n_metrics && !rc; i++) {
        const eval_metric *m = &t->metrics[i];
        int any = eval_extract(&m->extract, given, wanted, &found);
        amounts[i] = (eval_amount){0, 1};
        if (any < 0) {
            rc = -1;
        } else if (any) {
            eval_normalise(m->normalise, (sw_span){found.at, found.n}, &said);
            eval_normalise(m->normalise, wanted, &right);
            amounts[i].sum = said.n == right.n && (!said.n || !memcmp(said.at, right.at, said.n));
        }
        if (predictions && any > 0)
            eval_add_text(predictions, m->name, (sw_span){said.at, said.n});
        else if (predictions)
            cJSON_AddNullToObject(predictions, m->name);
    }
    sw_buf *const all[] = {&tmp[0], &tmp[1], &found, &said, &right};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        sw_buf_free(all[i]);
    return rc;
}

const eval_scorer eval_match = {"match", "text", NULL, ask, score};
