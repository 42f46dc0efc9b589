/* The scorer "choice": nothing is generated; each choice is scored as the continuation of the prompt, and the most
 * probable one is the answer: by its log-probability (acc), or by that over its characters (acc_norm), which does not
 * favour short ones. */
#include "eval.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CHOICES = 1000 };

static int by_text(const cJSON *names, const char *text, int n)
{
    int i = 0;
    for (const cJSON *c = names ? names->child : NULL; c && i < n; c = c->next, i++)
        if (cJSON_IsString(c) && !strcmp(c->valuestring, text))
            return i;
    return -1;
}

/* By its label where the task has labels, else a place from 0, its text, or a letter. Where choices are numbers, a text is one of
 * them before it is a place. */
int eval_choice_place(const eval_task *t, const cJSON *vars, int *place)
{
    const cJSON *choices = eval_member(vars, t->choices);
    int n = cJSON_IsArray(choices) ? cJSON_GetArraySize(choices) : 0;
    if (n < 2 || n > MAX_CHOICES)
        return sw_fail("\"%s\": a list of 2 to %d choices is needed, not %s", t->choices, MAX_CHOICES,
                       n ? "one of another length" : cJSON_IsArray(choices) ? "an empty one" : sw_json_kind(choices));
    sw_buf answer = {0};
    if (eval_right_answer(t, vars, &answer)) {
        sw_buf_free(&answer);
        return -1;
    }
    const char *s = answer.at ? answer.at : "";
    const cJSON *names = t->labels ? eval_member(vars, t->labels) : choices, *own = eval_member(vars, "answer");
    char *end;
    long number = strtol(s, &end, 10);
    size_t bracket = *s == '(';
    bool text = cJSON_IsString(own) && !strcmp(own->valuestring, s);
    *place = t->labels || text ? by_text(names, s, n) : -1;
    if (*place < 0 && !t->labels && *s >= '0' && *s <= '9' && !*end && number < n)
        *place = (int)number;
    if (*place < 0)
        *place = by_text(names, s, n);
    if (*place < 0 && !t->labels && strlen(s) == 1 + 2 * bracket && (!bracket || s[2] == ')')) {
        int letter = (s[bracket] | 32) - 'a';
        *place = letter >= 0 && letter < n && letter < 26 ? letter : -1;
    }
    int rc = *place < 0 ? sw_fail("the answer '%.60s' names none of the %d choices", s, n) : 0;
    sw_buf_free(&answer);
    return rc;
}

static int ask(const eval_task *t, const cJSON *vars, cJSON *out, int (*emit)(const cJSON *))
{
    const cJSON *choices = eval_member(vars, t->choices);
    int place;
    if (eval_choice_place(t, vars, &place))
        return -1;
    cJSON *texts = cJSON_AddArrayToObject(out, "continuations"), *lengths = cJSON_CreateArray();
    cJSON *with = cJSON_Duplicate(vars, true);
    sw_buf text = {0};
    int i = 0, rc = 0;
    for (const cJSON *c = choices->child; c && !rc; c = c->next, i++) {
        if (!cJSON_IsString(c) || !*c->valuestring) {
            rc = sw_fail("\"%s\": texts are needed; number %d is %s", t->choices, i + 1, cJSON_IsString(c) ? "empty" : sw_json_kind(c));
            break;
        }
        char letter[2] = {i < 26 ? (char)('A' + i) : '?', 0};
        cJSON_DeleteItemFromObjectCaseSensitive(with, "choice");
        cJSON_DeleteItemFromObjectCaseSensitive(with, "letter");
        cJSON_AddItemToObject(with, "choice", cJSON_Duplicate(c, true));
        cJSON_AddStringToObject(with, "letter", letter);
        sw_buf_clear(&text);
        rc = eval_render(t->continuation, with, "continuation", &text);
        if (!rc && !text.n)
            rc = sw_fail("\"continuation\" of the task: the text of choice %d is empty", i + 1);
        if (rc)
            break;
        sw_buf literal = {0}, tmp = {0};
        sw_buf_json(&literal, text.at, text.n);
        cJSON_AddItemToArray(texts, cJSON_CreateRaw(literal.at));
        sw_span plain = sw_json_text(c, &tmp);
        cJSON_AddItemToArray(lengths, cJSON_CreateNumber((double)sw_utf8_count(plain.at, plain.n)));
        sw_buf_free(&literal);
        sw_buf_free(&tmp);
    }
    cJSON_AddItemToObject(out, "lengths", lengths);
    cJSON_AddNumberToObject(out, "answer", place);
    cJSON_Delete(with);
    sw_buf_free(&text);
    return rc ? rc : emit(out);
}

static int score(const eval_task *t, const cJSON *result, eval_amount *amounts, cJSON *details)
{
    (void)t;
    const cJSON *scores = sw_json_get(result, "scores"), *lengths = sw_json_get(result, "lengths");
    int n = cJSON_IsArray(scores) ? cJSON_GetArraySize(scores) : 0;
    int64_t answer;
    if (sw_json_i64(result, "answer", 0, MAX_CHOICES, -1, &answer))
        return -1;
    if (n < 2 || !cJSON_IsArray(lengths) || cJSON_GetArraySize(lengths) != n || answer < 0 || answer >= n)
        return sw_fail("\"scores\", \"lengths\" and \"answer\" of one question with two choices or more are needed");
    double best = 0, best_norm = 0;
    int chosen = -1, chosen_norm = -1, i = 0;
    for (const cJSON *s = scores->child, *l = lengths->child; s; s = s->next, l = l->next, i++) {
        const cJSON *p = sw_json_get(s, "logprob");
        if (!cJSON_IsNumber(p) || !cJSON_IsNumber(l) || !(l->valuedouble > 0))
            return sw_fail("\"scores\": number %d has no \"logprob\" or no length", i + 1);
        double value = p->valuedouble, norm = value / l->valuedouble;
        if (chosen < 0 || value > best)
            best = value, chosen = i;
        if (chosen_norm < 0 || norm > best_norm)
            best_norm = norm, chosen_norm = i;
    }
    amounts[0] = (eval_amount){chosen == answer, 1};
    amounts[1] = (eval_amount){chosen_norm == answer, 1};
    cJSON *predictions = details ? cJSON_AddObjectToObject(details, "predictions") : NULL;
    if (predictions) {
        cJSON_AddNumberToObject(predictions, "acc", chosen);
        cJSON_AddNumberToObject(predictions, "acc_norm", chosen_norm);
    }
    return 0;
}

static const eval_metric metrics[] = {{.name = "acc"}, {.name = "acc_norm"}, {0}};

const eval_scorer eval_choice = {"choice", "scores", metrics, ask, score};
