/* swift-eval prompts: rows of a task's data to records that swift-infer answers. */
#include "eval.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/philox.h"
#include "data/messages.h"

#include <stdlib.h>
#include <string.h>

static const char *task_name, *system_text;
static sw_strings train_files;
static int64_t shots, limit, max_tokens;
static int format;
static const char *const formats[] = {"auto", "chat", "text", NULL};

static const sw_opt options[] = {
    SW_GROUP("Task"),
    SW_STR('t', "task", &task_name, "TASK", "a task that swift-eval tasks lists, or a JSON file that describes one"),
    SW_I64('n', "limit", &limit, 0, 9007199254740992.0, "N", "take the first N records of each file; 0 is all"),
    SW_GROUP("Prompts"),
    SW_I64('k', "shots", &shots, 0, 1000, "N", "put N solved examples in front of every question"),
    SW_LIST(0, "train", &train_files, "FILE", "where the examples come from; may be given several times"),
    SW_CHOICE('f', "format", &format, formats, "messages for a chat model, or plain text; auto is what the task says"),
    SW_STR(0, "system", &system_text, "TEXT", "system message; text in front of a plain prompt"),
    SW_I64(0, "max-tokens", &max_tokens, 0, 1 << 24, "N", "tokens of an answer at most; 0 is what the task says"),
    SW_COMMON_OPTS,
    SW_OPT_END};

static const sw_example examples[] = {
    {"from test questions to a score",
     "swift-eval prompts --task gsm8k test.jsonl | swift-infer --model M | swift-eval score --out before.json"},
    {"eight solved examples in front, the same for every question",
     "swift-eval prompts --task gsm8k --shots 8 --train train.jsonl --format text test.jsonl > prompts.jsonl"},
    {0}};

const sw_program eval_prompts_program = {"swift-eval prompts", "turn test data into prompts for swift-infer", "[FILE...]", options, examples};

typedef struct shot { /* a solved example */
    char *group, *input, *output;
    cJSON *messages; /* NULL: input and output are it */
} shot;

typedef struct asking {
    eval_task *task;
    bool chat;
    struct { shot *at; size_t n, cap; } pool;
    sw_map ids; /* to places in `wheres` */
    struct { char **at; size_t n, cap; } wheres;
    int64_t records;
} asking;

/* ---- rows */

/* "a|b|c": one of these members is there. */
static int check_needs(const eval_task *t, const cJSON *row)
{
    for (const cJSON *v = t->needs ? t->needs->child : NULL; v; v = v->next) {
        char *copy = sw_strdup(v->valuestring), *rest = copy;
        bool any = false;
        for (char *name; (name = strsep(&rest, "|"));)
            any |= sw_json_get(row, name) != NULL;
        free(copy);
        if (!any)
            return sw_fail("the task %s needs a field %s", t->name, v->valuestring);
    }
    return 0;
}

static const char *role(const cJSON *message)
{
    const cJSON *v = sw_json_get(message, "role");
    return cJSON_IsString(v) ? v->valuestring : "";
}

/* Makes the row ready for templates. *messages: its conversation without the answer that it ends in, which becomes the
 * variable "last"; NULL when the row brings none. */
static int prepare(const asking *a, cJSON *row, cJSON **messages)
{
    const eval_task *t = a->task;
    cJSON *own = t->messages ? cJSON_GetObjectItemCaseSensitive(row, t->messages) : NULL;
    *messages = NULL;
    if (own && !cJSON_IsNull(own)) {
        if (sw_messages_normalise(own, t->messages))
            return -1;
        if (!own->child)
            return sw_fail("\"%s\": the list is empty", t->messages);
        if (!a->chat)
            return sw_fail("\"%s\": a conversation is no plain prompt; leave out --format text", t->messages);
        cJSON *copy = cJSON_Duplicate(own, true), *last = copy->child->prev;
        if (!strcmp(role(last), "assistant")) {
            cJSON *content = cJSON_GetObjectItemCaseSensitive(last, "content");
            if (content && !cJSON_GetObjectItemCaseSensitive(row, "last"))
                cJSON_AddItemToObject(row, "last", cJSON_Duplicate(content, true));
            cJSON_Delete(cJSON_DetachItemViaPointer(copy, last));
        }
        *messages = copy;
    }
    cJSON_DeleteItemFromObjectCaseSensitive(row, "chat");
    cJSON_AddBoolToObject(row, "chat", a->chat);
    return check_needs(t, row);
}

static int render(const sw_jinja *j, const cJSON *row, const char *what, char **out)
{
    sw_buf b = {0};
    sw_buf_puts(&b, "");
    if (eval_render(j, row, what, &b)) {
        sw_buf_free(&b);
        return -1;
    }
    size_t n = b.n;
    *out = sw_buf_take(&b);
    return strlen(*out) == n ? 0 : sw_fail("\"%s\" of the task: the text holds U+0000", what);
}

/* The text that two conversations must share to be the same question. */
static char *printed(const cJSON *v)
{
    sw_buf b = {0};
    sw_json_print(&b, v);
    return sw_buf_take(&b);
}

/* ---- examples in front */

/* The right choice is what an example's output shows. */
static int add_choice(const eval_task *t, cJSON *row)
{
    const cJSON *choices = t->choices ? eval_member(row, t->choices) : NULL;
    if (!choices)
        return 0;
    int place = -1;
    if (eval_choice_place(t, row, &place))
        return -1;
    char letter[2] = {place < 26 ? (char)('A' + place) : '?', 0};
    cJSON_DeleteItemFromObjectCaseSensitive(row, "choice");
    cJSON_AddItemToObject(row, "choice", cJSON_Duplicate(cJSON_GetArrayItem(choices, place), true));
    cJSON_DeleteItemFromObjectCaseSensitive(row, "letter");
    cJSON_AddStringToObject(row, "letter", letter);
    return 0;
}

static int add_to_pool(void *context, cJSON *row, const char *where)
{
    asking *a = context;
    shot s = {0};
    cJSON *messages;
    int rc = prepare(a, row, &messages);
    if (!rc)
        rc = add_choice(a->task, row);
    if (!rc && !messages)
        rc = render(a->task->input, row, "input", &s.input);
    if (!rc && (render(a->task->output, row, "output", &s.output) || render(a->task->group, row, "group", &s.group)))
        rc = -1;
    if (!rc && messages) {
        s.input = printed(messages);
        s.messages = messages;
        messages = NULL;
        cJSON_AddItemToArray(s.messages, sw_message_new("assistant", cJSON_CreateString(s.output)));
        while (s.messages->child && !strcmp(role(s.messages->child), "system"))
            cJSON_Delete(cJSON_DetachItemViaPointer(s.messages, s.messages->child));
    }
    SW_PUSH(a->pool, s);
    cJSON_Delete(messages);
    cJSON_Delete(row);
    return rc ? sw_fail_in("%s", where) : 0;
}

/* Shuffles the pool once, so that all questions (of a group) get the same examples in the same order. */
static void shuffle(asking *a)
{
    sw_rng rng = {.seed = (uint64_t)sw_common_opts.seed, .site = sw_rng_site("shots")};
    uint64_t *order = SW_NEW_ARRAY(uint64_t, a->pool.n);
    shot *shuffled = SW_NEW_ARRAY(shot, a->pool.n);
    sw_rng_permutation(&rng, a->pool.n, order);
    for (size_t i = 0; i < a->pool.n; i++)
        shuffled[i] = a->pool.at[order[i]];
    memcpy(a->pool.at, shuffled, a->pool.n * sizeof *shuffled);
    free(shuffled);
    free(order);
}

/* The first --shots examples of the question's group that are not the question itself. */
static int choose(const asking *a, const char *group, const char *input, const shot **chosen)
{
    int64_t n = 0;
    for (size_t i = 0; i < a->pool.n && n < shots; i++)
        if (!strcmp(a->pool.at[i].group, group) && strcmp(a->pool.at[i].input, input))
            chosen[n++] = &a->pool.at[i];
    if (n < shots)
        return sw_fail("--shots %lld: --train has %lld examples%s%s besides the question itself", (long long)shots, (long long)n,
                       *group ? " of the group " : "", group);
    return 0;
}

/* ---- prompts */

static void say(cJSON *messages, const char *who, const char *text)
{
    cJSON *m = cJSON_CreateObject();
    cJSON_AddStringToObject(m, "role", who);
    eval_add_text(m, "content", (sw_span){text, strlen(text)});
    cJSON_AddItemToArray(messages, m);
}

static void add_messages(const asking *a, cJSON *out, cJSON *own, const char *input, const shot *const *chosen)
{
    cJSON *all = cJSON_AddArrayToObject(out, "messages");
    const char *system = system_text ? system_text : a->task->system;
    if (own && own->child && !strcmp(role(own->child), "system"))
        cJSON_AddItemToArray(all, cJSON_DetachItemViaPointer(own, own->child));
    else if (system)
        say(all, "system", system);
    for (int64_t i = 0; i < shots; i++) {
        for (const cJSON *m = chosen[i]->messages ? chosen[i]->messages->child : NULL; m; m = m->next)
            cJSON_AddItemToArray(all, cJSON_Duplicate(m, true));
        if (!chosen[i]->messages) {
            say(all, "user", chosen[i]->input);
            say(all, "assistant", chosen[i]->output);
        }
    }
    while (own && own->child)
        cJSON_AddItemToArray(all, cJSON_DetachItemViaPointer(own, own->child));
    if (!own)
        say(all, "user", input);
}

static int add_prompt(const asking *a, cJSON *out, const char *input, const shot *const *chosen)
{
    const eval_task *t = a->task;
    const char *system = system_text ? system_text : t->system;
    sw_buf b = {0};
    sw_buf_puts(&b, "");
    if (system)
        sw_buf_printf(&b, "%s%s", system, t->between);
    for (int64_t i = 0; i < shots; i++) {
        if (chosen[i]->messages) {
            sw_buf_free(&b);
            return sw_fail("--train: a conversation is no plain prompt; leave out --format text");
        }
        sw_buf_printf(&b, "%s%s%s%s", chosen[i]->input, t->separator, chosen[i]->output, t->between);
    }
    sw_buf_puts(&b, input);
    eval_add_text(out, "prompt", (sw_span){b.at, b.n});
    sw_buf_free(&b);
    return 0;
}

static int emit(const cJSON *record)
{
    sw_buf b = {0};
    sw_json_print(&b, record);
    sw_buf_putc(&b, '\n');
    return eval_put(&b);
}

/* The row's own id, or "FILE:N". Two rows of the same id could not be told apart later. */
static int add_id(asking *a, const cJSON *row, const char *where, cJSON *out)
{
    const cJSON *own = sw_json_get(row, "id");
    char *text = NULL;
    if (a->task->id) {
        if (render(a->task->id, row, "id", &text))
            return -1;
        cJSON_AddStringToObject(out, "id", text);
    } else if (own) {
        if (!cJSON_IsString(own) && !cJSON_IsNumber(own))
            return sw_fail("\"id\": a string or a number is needed, not %s", sw_json_kind(own));
        cJSON_AddItemToObject(out, "id", cJSON_Duplicate(own, true));
    } else {
        const cJSON *file = sw_json_get(row, "file"), *index = sw_json_get(row, "index");
        text = cJSON_IsString(file) && cJSON_IsNumber(index) ? sw_strfmt("%s:%.0f", file->valuestring, index->valuedouble) : sw_strdup(where);
        cJSON_AddStringToObject(out, "id", text);
    }
    free(text);
    char *key = printed(sw_json_get(out, "id"));
    int64_t before = sw_map_gets(&a->ids, key, -1);
    int rc = before < 0 ? 0 : sw_fail("the id %s was used before, at %s", key, a->wheres.at[before]);
    sw_map_puts(&a->ids, key, (int64_t)a->wheres.n);
    SW_PUSH(a->wheres, sw_strdup(where));
    free(key);
    return rc;
}

static int ask_row(asking *a, cJSON *row, const char *where, cJSON *out)
{
    const eval_task *t = a->task;
    char *group = NULL, *input = NULL;
    const shot **chosen = SW_NEW_ARRAY(const shot *, (size_t)shots + 1);
    cJSON *messages;
    int rc = prepare(a, row, &messages);
    if (!rc)
        rc = add_id(a, row, where, out);
    cJSON_AddStringToObject(out, "task", t->name);
    if (!rc)
        rc = render(t->group, row, "group", &group);
    if (!rc && *group)
        cJSON_AddStringToObject(out, "group", group);
    if (!rc && messages)
        input = printed(messages);
    else if (!rc)
        rc = render(t->input, row, "input", &input);
    if (!rc && shots)
        rc = choose(a, group, input, chosen);
    if (!rc && a->chat)
        add_messages(a, out, messages, input, chosen);
    else if (!rc)
        rc = add_prompt(a, out, input, chosen);
    const cJSON *tools = messages ? sw_json_get(row, "tools") : NULL;
    if (tools)
        cJSON_AddItemToObject(out, "tools", cJSON_Duplicate(tools, true));
    if (!rc)
        rc = t->scorer->ask(t, row, out, emit);
    cJSON_Delete(messages);
    free(chosen);
    free(group);
    free(input);
    return rc;
}

static int each_row(void *context, cJSON *row, const char *where)
{
    asking *a = context;
    cJSON *out = cJSON_CreateObject();
    int rc = ask_row(a, row, where, out);
    cJSON_Delete(out);
    cJSON_Delete(row);
    a->records++;
    return rc ? sw_fail_in("%s", where) : 0;
}

static void free_asking(asking *a)
{
    for (size_t i = 0; i < a->pool.n; i++) {
        free(a->pool.at[i].group);
        free(a->pool.at[i].input);
        free(a->pool.at[i].output);
        cJSON_Delete(a->pool.at[i].messages);
    }
    for (size_t i = 0; i < a->wheres.n; i++)
        free(a->wheres.at[i]);
    free(a->pool.at);
    free(a->wheres.at);
    sw_map_free(&a->ids);
    eval_task_free(a->task);
}

int eval_prompts_body(int n, char **files)
{
    if (!task_name)
        return sw_usage("--task is needed");
    if ((shots > 0) != (train_files.n > 0))
        return sw_usage("--shots and --train go together");
    asking a = {.task = eval_task_load(task_name)};
    if (!a.task)
        return -1;
    a.chat = format ? format == 1 : a.task->chat;
    if (max_tokens)
        a.task->max_tokens = max_tokens;
    int rc = 0;
    if (shots && !a.task->output)
        rc = sw_fail("--shots: the task %s has no \"output\", which shows how an example is solved", a.task->name);
    if (!rc && shots) {
        rc = eval_each_row((char *const *)(uintptr_t)train_files.at, (int)train_files.n, a.task->rows, 0, NULL, add_to_pool, &a);
        if (!rc)
            shuffle(&a);
    }
    if (!rc)
        rc = eval_each_row(files, n, a.task->rows, limit, NULL, each_row, &a);
    if (!rc)
        sw_info("%s: %lld records", a.task->name, (long long)a.records);
    free_asking(&a);
    return rc;
}
