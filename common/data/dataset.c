#include "data/dataset.h"

#include "base/memory.h"
#include "data/dataset_parts.h"
#include "data/messages.h"

#include <stdlib.h>
#include <string.h>

const char *const sw_format_names[] = {"auto", "messages", "sharegpt", "alpaca", "query", "text", "completion", NULL};
const char *const sw_task_names[] = {"auto",      "sft",      "preference", "kto", "prompt",
                                     "embedding", "reranker", "classify",   "tag", NULL};

/* Other names of a column, the first that is there counts. */
const char *const dataset_query_names[] = {"query", "prompt", "input", "instruction", "question", "problem", NULL};
static const char *const response_names[] = {"response", "answer",   "output",     "targets", "target",  "answer_key",
                                             "answers",  "solution", "completion", "text",    "content", NULL};
static const char *const system_names[] = {"system", "system_prompt", NULL};
const char *const dataset_conversation_names[] = {"messages", "conversations", "conversation",
                                                  "chosen",   "prompt",        NULL};
const char *dataset_present(const cJSON *row, const char *const *names)
{
    for (; *names; names++)
        if (sw_json_get(row, *names))
            return *names;
    return NULL;
}

cJSON *dataset_take(cJSON *row, const char *name)
{
    return name ? cJSON_DetachItemFromObjectCaseSensitive(row, name) : NULL;
}

bool dataset_is_messages(const cJSON *v) { return cJSON_IsArray(v) && cJSON_IsObject(v->child); }
static bool is_string(const cJSON *row, const char *name) { return cJSON_IsString(sw_json_get(row, name)); }
static bool is_list(const cJSON *row, const char *name) { return cJSON_IsArray(sw_json_get(row, name)); }

/* A string, or the first of a list of strings; NULL for another kind, with the error. */
cJSON *dataset_take_text(cJSON *row, const char *name)
{
    const cJSON *v = sw_json_get(row, name);
    if (cJSON_IsString(v))
        return dataset_take(row, name);
    if (cJSON_IsArray(v) && cJSON_IsString(v->child)) {
        cJSON *list = dataset_take(row, name), *first = cJSON_DetachItemViaPointer(list, list->child);
        cJSON_Delete(list);
        return first;
    }
    return sw_fail_null("field \"%s\": a string is needed, not %s", name, sw_json_kind(v));
}

static void say(cJSON *messages, const char *role, cJSON *content)
{
    cJSON_AddItemToArray(messages, sw_message_new(role, content));
}

static int add_history(cJSON *messages, cJSON *row)
{
    const cJSON *history = sw_json_get(row, "history");
    if (!history)
        return 0;
    if (!cJSON_IsArray(history))
        return sw_fail("field \"history\": an array of [query, response] is needed, not %s", sw_json_kind(history));
    int i = 0;
    for (const cJSON *h = history->child; h; h = h->next, i++) {
        const cJSON *q = cJSON_IsArray(h) ? h->child : NULL, *a = q ? q->next : NULL;
        if (!cJSON_IsString(q) || !cJSON_IsString(a) || a->next)
            return sw_fail("field \"history[%d]\": a pair of strings, [query, response], is needed", i);
        say(messages, "user", cJSON_CreateString(q->valuestring));
        say(messages, "assistant", cJSON_CreateString(a->valuestring));
    }
    cJSON_Delete(dataset_take(row, "history"));
    return 0;
}

/* [{"human": ..., "assistant": ...}, ...]: each pair is two turns. */
static int pairs(cJSON *list, const char *field, cJSON *messages)
{
    int i = 0;
    for (const cJSON *p = list->child; p; p = p->next, i++) {
        const char *role[2] = {"user", "assistant"};
        for (int k = 0; k < 2; k++) {
            const cJSON *turn = NULL;
            for (const cJSON *c = cJSON_IsObject(p) ? p->child : NULL; c && !turn; c = c->next) {
                const char *r = sw_role_of(c->string);
                turn = r && !strcmp(r, role[k]) ? c : NULL;
            }
            if (!cJSON_IsString(turn))
                return sw_fail("field \"%s[%d]\": an object with the strings human and assistant is needed", field, i);
            say(messages, role[k], cJSON_CreateString(turn->valuestring));
        }
    }
    return i ? 0 : sw_fail("field \"%s\": the conversation is empty", field);
}

static int from_conversation(cJSON *row, sw_sample *s)
{
    const char *field = dataset_present(row, dataset_conversation_names);
    if (!field)
        return sw_fail("field \"messages\" (or \"conversations\", \"conversation\") is missing");
    const cJSON *v = sw_json_get(row, field), *first = cJSON_IsArray(v) ? v->child : NULL;
    bool turns = !first || sw_json_get(first, "role") || sw_json_get(first, "from") || !cJSON_IsObject(first);
    cJSON *list = dataset_take(row, field);
    if (turns) {
        s->messages = list;
        if (dataset_media_from_parts(list, s) || sw_messages_normalise(list, field))
            return -1;
        const char *answer =
            strcmp(field, "prompt") || s->task == SW_TASK_PROMPT ? NULL : dataset_present(row, response_names);
        if (answer && is_string(row, answer))
            say(list, "assistant", dataset_take(row, answer));
        return 0;
    }
    s->messages = cJSON_CreateArray();
    int rc = pairs(list, field, s->messages);
    cJSON_Delete(list);
    return rc;
}

static int from_alpaca(cJSON *row, sw_sample *s)
{
    s->messages = cJSON_CreateArray();
    if (add_history(s->messages, row))
        return -1;
    cJSON *instruction = dataset_take(row, "instruction"), *input = dataset_take(row, "input");
    bool has_input = cJSON_IsString(input) && *input->valuestring;
    int rc = 0;
    if (!cJSON_IsString(instruction) && !(has_input && (!instruction || cJSON_IsNull(instruction))))
        rc = sw_fail("field \"instruction\": a string is needed, not %s", sw_json_kind(instruction));
    else if (input && !cJSON_IsNull(input) && !cJSON_IsString(input))
        rc = sw_fail("field \"input\": a string is needed, not %s", sw_json_kind(input));
    if (!rc) {
        sw_buf q = {0};
        sw_buf_puts(&q, cJSON_IsString(instruction) ? instruction->valuestring : "");
        if (q.n && has_input)
            sw_buf_putc(&q, '\n');
        sw_buf_puts(&q, has_input ? input->valuestring : "");
        say(s->messages, "user", cJSON_CreateString(q.at));
        sw_buf_free(&q);
    }
    cJSON_Delete(instruction);
    cJSON_Delete(input);
    if (rc || !sw_json_get(row, "output"))
        return rc;
    cJSON *output = dataset_take_text(row, "output");
    if (!output)
        return -1;
    say(s->messages, "assistant", output);
    return 0;
}

static int from_query(cJSON *row, sw_sample *s)
{
    const char *query = dataset_present(row, dataset_query_names);
    if (!query)
        return sw_fail("field \"query\" (or prompt, input, instruction, question, problem) is missing, and neither "
                       "\"messages\" nor \"text\" is there");
    s->messages = cJSON_CreateArray();
    if (add_history(s->messages, row))
        return -1;
    cJSON *q = dataset_take_text(row, query);
    if (!q)
        return -1;
    say(s->messages, "user", q);
    const char *response = sw_json_get(row, "chosen") ? "chosen" : dataset_present(row, response_names);
    if (!response)
        return 0;
    cJSON *a = dataset_take_text(row, response);
    if (!a)
        return -1;
    say(s->messages, "assistant", a);
    return 0;
}

static int from_text(cJSON *row, sw_sample *s)
{
    if (!sw_json_get(row, "text"))
        return sw_fail("field \"text\" is missing");
    s->kind = SW_SAMPLE_TEXT;
    s->text = dataset_take_text(row, "text");
    return s->text ? 0 : -1;
}

static int from_completion(cJSON *row, sw_sample *s)
{
    for (const char *const *name = (const char *const[]){"prompt", "completion", NULL}; *name; name++)
        if (!sw_json_get(row, *name))
            return sw_fail("field \"%s\" is missing", *name);
    if (is_list(row, "prompt") && is_list(row, "completion") && cJSON_IsObject(sw_json_get(row, "prompt")->child)) {
        s->messages = dataset_take(row, "prompt"); /* conversations on both sides are one conversation */
        cJSON *rest = dataset_take(row, "completion");
        for (cJSON *m; (m = cJSON_DetachItemViaPointer(rest, rest->child));)
            cJSON_AddItemToArray(s->messages, m);
        cJSON_Delete(rest);
        return sw_messages_normalise(s->messages, "prompt + completion");
    }
    s->kind = SW_SAMPLE_COMPLETION;
    s->prompt = dataset_take_text(row, "prompt");
    s->completion = s->prompt ? dataset_take_text(row, "completion") : NULL;
    return s->completion ? 0 : -1;
}

static sw_format recognise(const cJSON *row)
{
    if (sw_json_get(row, "messages") || sw_json_get(row, "conversations") || is_list(row, "conversation"))
        return SW_FORMAT_MESSAGES;
    if (dataset_is_messages(sw_json_get(row, "chosen")))
        return SW_FORMAT_MESSAGES;
    if (dataset_is_messages(sw_json_get(row, "prompt")) && !sw_json_get(row, "completion"))
        return SW_FORMAT_MESSAGES;
    if (sw_json_get(row, "instruction") && cJSON_GetObjectItemCaseSensitive(row, "input"))
        return SW_FORMAT_ALPACA;
    if (sw_json_get(row, "prompt") && sw_json_get(row, "completion"))
        return SW_FORMAT_COMPLETION;
    return is_string(row, "text") && !dataset_present(row, dataset_query_names) ? SW_FORMAT_TEXT : SW_FORMAT_QUERY;
}

/* ---- what all formats share */

static int add_system(const sw_dataset_options *o, cJSON *row, cJSON *messages)
{
    const char *name = dataset_present(row, system_names);
    cJSON *text = name ? dataset_take_text(row, name) : NULL;
    if (name && !text)
        return -1;
    const cJSON *first = sw_json_get(messages->child, "role");
    bool has = first && (!strcmp(first->valuestring, "system") || !strcmp(first->valuestring, "developer"));
    if (has && text) {
        cJSON_Delete(text);
        return sw_fail("field \"%s\": the conversation begins with a system message already", name);
    }
    if (!text && o->system && !has)
        text = cJSON_CreateString(o->system);
    if (text)
        cJSON_InsertItemInArray(messages, 0, sw_message_new("system", text));
    return 0;
}

/* The conversation up to the last user or tool turn, which a rejected answer follows. */
static cJSON *asked(const cJSON *messages)
{
    cJSON *copy = cJSON_Duplicate(messages, true);
    while (copy->child) {
        cJSON *last = copy->child->prev;
        const char *role = sw_json_get(last, "role")->valuestring;
        if (!strcmp(role, "user") || !strcmp(role, "tool"))
            break;
        cJSON_Delete(cJSON_DetachItemViaPointer(copy, last));
    }
    return copy;
}

static bool is_answer(const cJSON *message)
{
    const cJSON *role = sw_json_get(message, sw_json_get(message, "role") ? "role" : "from");
    const char *r = cJSON_IsString(role) ? sw_role_of(role->valuestring) : NULL;
    return r && !strcmp(r, "assistant");
}

static int add_rejected(cJSON *row, sw_sample *s)
{
    static const char *const names[] = {"rejected_response", "rejected_messages", "rejected", NULL};
    const char *name = dataset_present(row, names);
    if (!name)
        return 0;
    if (s->kind != SW_SAMPLE_CHAT)
        return sw_fail("field \"%s\": only a conversation has a rejected answer", name);
    cJSON *v = dataset_take(row, name);
    bool whole = strcmp(name, "rejected_response") && dataset_is_messages(v) && !is_answer(v->child);
    if (dataset_media_from_parts(v, s)) {
        cJSON_Delete(v);
        return -1;
    }
    if (whole) {
        s->rejected = v;
    } else if (cJSON_IsString(v)) {
        s->rejected = asked(s->messages);
        say(s->rejected, "assistant", v);
    } else if (cJSON_IsArray(v) && cJSON_IsObject(v->child)) {
        s->rejected = asked(s->messages);
        for (cJSON *m; (m = cJSON_DetachItemViaPointer(v, v->child));)
            cJSON_AddItemToArray(s->rejected, m);
        cJSON_Delete(v);
    } else {
        sw_fail("field \"%s\": a string or an array of messages is needed, not %s", name, sw_json_kind(v));
        cJSON_Delete(v);
        return -1;
    }
    if (sw_messages_normalise(s->rejected, name))
        return -1;
    const cJSON *first = sw_json_get(s->messages->child, "role");
    if (whole && !strcmp(first->valuestring, "system") &&
        strcmp(sw_json_get(s->rejected->child, "role")->valuestring, "system"))
        cJSON_InsertItemInArray(s->rejected, 0, cJSON_Duplicate(s->messages->child, true));
    if (cJSON_Compare(s->messages, s->rejected, true))
        return sw_fail("field \"%s\": is the same as the answer that is wanted", name);
    return 0;
}

/* Tools are an array, or the text of one; a single function is an array of one. */
static int add_tools(cJSON *row, sw_sample *s)
{
    cJSON *v = dataset_take(row, "tools");
    if (cJSON_IsString(v) && *v->valuestring) {
        cJSON *parsed = sw_json_parse(v->valuestring, strlen(v->valuestring));
        cJSON_Delete(v);
        if (!parsed)
            return sw_fail_in("field \"tools\"");
        v = parsed;
    }
    if (cJSON_IsObject(v)) {
        s->tools = cJSON_CreateArray();
        cJSON_AddItemToArray(s->tools, v);
        return 0;
    }
    if (v && !cJSON_IsArray(v) && !cJSON_IsNull(v) && !(cJSON_IsString(v) && !*v->valuestring)) {
        sw_fail("field \"tools\": an array of functions is needed, not %s", sw_json_kind(v));
        cJSON_Delete(v);
        return -1;
    }
    if (cJSON_IsArray(v) && v->child)
        s->tools = v;
    else
        cJSON_Delete(v);
    return 0;
}

/* ---- what the task wants */

static int add_labels(const sw_dataset_options *o, cJSON *row, sw_sample *s)
{
    bool must = s->task == SW_TASK_KTO || s->task == SW_TASK_CLASSIFY;
    if (dataset_take_labels(row, "label", must, o, s))
        return -1;
    if (s->task == SW_TASK_KTO &&
        (s->labels->child->next || (s->labels->child->valuedouble != 0 && s->labels->child->valuedouble != 1)))
        return sw_fail("field \"label\": whether the answer is wanted is true or false");
    const cJSON *margin = sw_json_get(row, "margin");
    s->has_margin = cJSON_IsNumber(margin);
    s->margin = s->has_margin ? margin->valuedouble : 0;
    return 0;
}

/* The conversation ends where the model is to answer; what the row answers is kept for the reward. */
static int make_prompt(sw_sample *s)
{
    if (s->kind == SW_SAMPLE_TEXT)
        return sw_fail("field \"text\": a prompt is a conversation, or a prompt and a completion");
    if (s->kind == SW_SAMPLE_COMPLETION) {
        cJSON_Delete(s->completion);
        s->completion = NULL;
        return 0;
    }
    cJSON *messages = asked(s->messages), *last = s->messages->child->prev;
    if (!messages->child) {
        cJSON_Delete(messages);
        return sw_fail("the conversation has no turn of the user that could be answered");
    }
    const cJSON *content = sw_json_get(last, "content");
    if (s->format <= SW_FORMAT_SHAREGPT && !strcmp(sw_json_get(last, "role")->valuestring, "assistant") &&
        cJSON_IsString(content) && !sw_json_get(s->carried, "response"))
        cJSON_AddStringToObject(s->carried, "response", content->valuestring);
    cJSON_Delete(s->messages);
    s->messages = messages;
    cJSON_DeleteItemFromObjectCaseSensitive(s->carried, "messages");
    cJSON_AddItemToObject(s->carried, "messages", cJSON_Duplicate(messages, true));
    return 0;
}

static int add_task(const sw_dataset_options *o, cJSON *row, sw_sample *s)
{
    bool only_answer = s->task == SW_TASK_SFT || s->task == SW_TASK_PROMPT;
    if (!only_answer && (add_labels(o, row, s) || (s->task <= SW_TASK_PREFERENCE && add_rejected(row, s))))
        return -1;
    if (s->task == SW_TASK_PREFERENCE && !s->rejected)
        return sw_fail("field \"rejected\" (or rejected_response, rejected_messages) is missing");
    return s->task == SW_TASK_PROMPT ? make_prompt(s) : 0;
}

/* ---- placeholders */

/* Length of a {{NAME}} of capitals, digits and _ at p, or 0. */
static size_t placeholder(const char *p)
{
    size_t n = 2;
    if (p[0] != '{' || p[1] != '{')
        return 0;
    while ((p[n] >= 'A' && p[n] <= 'Z') || p[n] == '_' || (p[n] >= '0' && p[n] <= '9'))
        n++;
    return n > 2 && p[n] == '}' && p[n + 1] == '}' ? n + 2 : 0;
}

static void fill_string(const sw_dataset_options *o, cJSON *v, bool *unfilled)
{
    const char *p = cJSON_IsString(v) ? strstr(v->valuestring, "{{") : NULL;
    if (!p)
        return;
    sw_buf b = {0};
    const char *plain = v->valuestring;
    bool changed = false;
    while (p) {
        size_t n = placeholder(p);
        const char *with = NULL;
        for (size_t i = 0; n && o->fill && i < o->fill->n; i++) {
            const char *name = o->fill->at[i], *eq = strchr(name, '=');
            if ((size_t)(eq - name) == n - 4 && !memcmp(name, p + 2, n - 4))
                with = eq + 1;
        }
        if (with) {
            sw_buf_add(&b, plain, (size_t)(p - plain));
            sw_buf_puts(&b, with);
            plain = p + n;
            changed = true;
        }
        *unfilled |= n && !with;
        p = strstr(p + (n ? n : 1), "{{");
    }
    if (changed) {
        sw_buf_puts(&b, plain);
        cJSON_SetValuestring(v, b.at);
    }
    sw_buf_free(&b);
}

static void fill(const sw_dataset_options *o, sw_sample *s)
{
    cJSON *lists[] = {s->messages, s->rejected}, *strings[] = {s->text, s->prompt, s->completion};
    for (size_t i = 0; i < SW_COUNT(lists); i++)
        for (cJSON *m = lists[i] ? lists[i]->child : NULL; m; m = m->next)
            fill_string(o, cJSON_GetObjectItemCaseSensitive(m, "content"), &s->unfilled);
    for (size_t i = 0; i < SW_COUNT(strings); i++)
        fill_string(o, strings[i], &s->unfilled);
}

int sw_dataset_check(const sw_dataset_options *o)
{
    for (size_t i = 0; o->fill && i < o->fill->n; i++) {
        const char *t = o->fill->at[i], *eq = strchr(t, '=');
        sw_buf b = {0};
        sw_buf_printf(&b, "{{%.*s}}", eq ? (int)(eq - t) : 0, t);
        bool good = eq && placeholder(b.at) == b.n;
        sw_buf_free(&b);
        if (!good)
            return sw_fail("--fill: '%s': NAME=VALUE is needed, NAME of capitals, digits and _", t);
    }
    for (size_t i = 0; o->map && i < o->map->n; i++)
        if (!strchr(o->map->at[i], '=') || *o->map->at[i] == '=')
            return sw_fail("--map: '%s': OLD=NEW is needed, or OLD= to leave the column out", o->map->at[i]);
    return 0;
}

/* ---- */

static int convert(const sw_dataset_options *o, cJSON *row, sw_sample *s)
{
    if (!cJSON_IsObject(row))
        return sw_fail("an object is needed, not %s", sw_json_kind(row));
    dataset_rename(o, row);
    s->task = o->task;
    if (s->task == SW_TASK_AUTO && o->format == SW_FORMAT_AUTO && dataset_is_lists(row))
        s->task = SW_TASK_EMBEDDING;
    else if (s->task == SW_TASK_AUTO && o->format == SW_FORMAT_AUTO && dataset_is_tagged(row))
        s->task = SW_TASK_TAG;
    dataset_carry(o, row, s);
    if (s->task == SW_TASK_TAG)
        return dataset_from_tagged(row, s);
    if (s->task == SW_TASK_EMBEDDING || s->task == SW_TASK_RERANKER)
        return dataset_from_lists(o, row, s);
    dataset_join_prompts(row);
    if (dataset_take_media(row, s))
        return -1;
    s->format = o->format == SW_FORMAT_AUTO ? recognise(row) : o->format;
    int rc;
    switch (s->format) {
    case SW_FORMAT_MESSAGES:
    case SW_FORMAT_SHAREGPT: rc = from_conversation(row, s); break;
    case SW_FORMAT_ALPACA: rc = from_alpaca(row, s); break;
    case SW_FORMAT_TEXT: rc = from_text(row, s); break;
    case SW_FORMAT_COMPLETION: rc = from_completion(row, s); break;
    default: rc = from_query(row, s);
    }
    if (rc || (s->kind == SW_SAMPLE_CHAT && (add_system(o, row, s->messages) || add_tools(row, s))) || add_task(o, row, s))
        return -1;
    s->extra = dataset_take(row, "chat_template_kwargs");
    if (s->extra && !cJSON_IsObject(s->extra) && !cJSON_IsNull(s->extra))
        return sw_fail("field \"chat_template_kwargs\": an object is needed, not %s", sw_json_kind(s->extra));
    if (cJSON_IsNull(s->extra)) {
        cJSON_Delete(s->extra);
        s->extra = NULL;
    }
    fill(o, s);
    return dataset_place_media(s);
}

int sw_sample_from(const sw_dataset_options *o, cJSON *row, sw_sample *out)
{
    *out = (sw_sample){.rest = row};
    int rc = convert(o, row, out);
    if (rc)
        sw_sample_free(out);
    return rc;
}

void sw_sample_free(sw_sample *s)
{
    cJSON *const trees[] = {s->messages,  s->rejected,  s->tools,  s->extra, s->text,    s->prompt, s->completion,
                            s->positives, s->negatives, s->labels, s->tags,  s->media,  s->carried, s->rest};
    for (size_t i = 0; i < SW_COUNT(trees); i++)
        cJSON_Delete(trees[i]);
    free(s->words.at);
    *s = (sw_sample){0};
}
