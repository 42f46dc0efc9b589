/* The scorer "perplexity": texts are scored as continuations of a prefix, which may be empty. A long text is cut at white
 * space into parts; each part is scored after the end of the one before, and the parts are one record again when they
 * are counted. */
#include "eval.h"

#include <math.h>
#include <string.h>

static bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
static bool inside_character(char c) { return ((unsigned char)c & 0xc0) == 0x80; }

/* Where the part that begins at `from` ends: before white space where there is some in its second half. */
static size_t part_end(sw_span s, size_t from, size_t most)
{
    if (s.n - from <= most)
        return s.n;
    size_t end = from + most;
    while (end > from + most / 2 && !(is_blank(s.at[end]) && !is_blank(s.at[end - 1])))
        end--;
    if (end > from + most / 2)
        return end;
    for (end = from + most; inside_character(s.at[end]); end--)
        ;
    return end;
}

static size_t context_start(sw_span s, size_t from, size_t most)
{
    if (from <= most)
        return 0;
    size_t at = from - most;
    while (at < from && !is_blank(s.at[at]))
        at++;
    for (at = at < from ? at : from - most; at < from && inside_character(s.at[at]); at++)
        ;
    return at;
}

static int ask(const eval_task *t, const cJSON *vars, cJSON *out, int (*emit)(const cJSON *))
{
    const cJSON *field = eval_member(vars, t->text);
    if (!cJSON_IsString(field) || !*field->valuestring)
        return sw_fail("\"%s\": a text is needed, not %s", t->text, cJSON_IsString(field) ? "an empty one" : sw_json_kind(field));
    if (!cJSON_GetObjectItemCaseSensitive(out, "prompt"))
        return sw_fail("the task %s scores plain texts; a conversation is no prefix for them", t->name);
    sw_buf tmp = {0}, literal = {0};
    sw_span s = sw_json_text(field, &tmp);
    int rc = 0, parts = 0;
    for (size_t from = 0, end; from < s.n && !rc; from = end, parts++) {
        end = part_end(s, from, (size_t)t->part_bytes);
        sw_span part = {s.at + from, end - from};
        cJSON *one = cJSON_Duplicate(out, true);
        if (from || end < s.n)
            cJSON_AddNumberToObject(one, "part", parts);
        if (from) {
            size_t start = context_start(s, from, (size_t)t->context_bytes);
            cJSON_DeleteItemFromObjectCaseSensitive(one, "prompt");
            eval_add_text(one, "prompt", (sw_span){s.at + start, from - start});
        }
        sw_buf_clear(&literal);
        sw_buf_json(&literal, part.at, part.n);
        cJSON_AddItemToArray(cJSON_AddArrayToObject(one, "continuations"), cJSON_CreateRaw(literal.at));
        cJSON_AddNumberToObject(one, "words", (double)eval_words(part));
        cJSON_AddNumberToObject(one, "bytes", (double)part.n);
        rc = emit(one);
        cJSON_Delete(one);
    }
    sw_buf_free(&tmp);
    sw_buf_free(&literal);
    return rc;
}

static int score(const eval_task *t, const cJSON *result, eval_amount *amounts, cJSON *details)
{
    (void)t;
    const cJSON *scores = sw_json_get(result, "scores"), *first = cJSON_IsArray(scores) ? scores->child : NULL;
    const cJSON *p = sw_json_get(first, "logprob");
    int64_t tokens, words, bytes;
    if (!first || first->next || !cJSON_IsNumber(p) || !isfinite(p->valuedouble))
        return sw_fail("\"scores\": one score with a finite \"logprob\" is needed");
    if (sw_json_i64(first, "tokens", 0, (int64_t)1 << 40, 0, &tokens) || sw_json_i64(result, "words", 0, (int64_t)1 << 40, 0, &words) ||
        sw_json_i64(result, "bytes", 1, (int64_t)1 << 40, 0, &bytes))
        return -1;
    if (!bytes)
        return sw_fail("\"bytes\": the length of the text is needed");
    amounts[0] = (eval_amount){-p->valuedouble, (double)tokens};
    amounts[1] = (eval_amount){-p->valuedouble, (double)words};
    amounts[2] = (eval_amount){-p->valuedouble / M_LN2, (double)bytes};
    if (details)
        cJSON_AddNumberToObject(details, "logprob", p->valuedouble);
    return 0;
}

static const eval_metric metrics[] = {{.name = "token_perplexity", .scale = EVAL_EXP, .lower_is_better = true},
                                      {.name = "word_perplexity", .scale = EVAL_EXP, .lower_is_better = true},
                                      {.name = "bits_per_byte", .lower_is_better = true},
                                      {0}};

const eval_scorer eval_perplexity = {"perplexity", "scores", metrics, ask, score};
