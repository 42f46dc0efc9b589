#include "data/messages.h"

#include "base/memory.h"

#include <string.h>

static const char *const roles[][2] = {{"user", "user"},
                                       {"human", "user"},
                                       {"assistant", "assistant"},
                                       {"gpt", "assistant"},
                                       {"bot", "assistant"},
                                       {"chatgpt", "assistant"},
                                       {"model", "assistant"},
                                       {"system", "system"},
                                       {"developer", "developer"},
                                       {"tool", "tool"},
                                       {"tool_response", "tool"},
                                       {"function_response", "tool"},
                                       {"observation", "tool"},
                                       {"observations", "tool"},
                                       {"function", "tool"},
                                       {"tool_call", "tool_call"},
                                       {"function_call", "tool_call"}};

const char *sw_role_of(const char *word)
{
    for (size_t i = 0; i < SW_COUNT(roles); i++)
        if (!strcmp(roles[i][0], word))
            return roles[i][1];
    return NULL;
}

cJSON *sw_message_new(const char *role, cJSON *content)
{
    cJSON *m = cJSON_CreateObject();
    cJSON_AddStringToObject(m, "role", role);
    cJSON_AddItemToObject(m, "content", content);
    return m;
}

static void rename_member(cJSON *o, const char *from, const char *to)
{
    if (cJSON_GetObjectItemCaseSensitive(o, to))
        return;
    cJSON *v = cJSON_DetachItemFromObjectCaseSensitive(o, from);
    if (v)
        cJSON_AddItemToObject(o, to, v);
}

/* Parts of text become one string. Pictures, sound and film would be lost without a word: refused. */
static cJSON *join_parts(const cJSON *parts)
{
    sw_buf text = {0};
    sw_buf_puts(&text, "");
    for (const cJSON *p = parts->child; p; p = p->next) {
        const cJSON *kind = sw_json_get(p, "type"), *t = sw_json_get(p, "text");
        bool is_text = cJSON_IsString(p) ||
                       (cJSON_IsString(t) && (!kind || (cJSON_IsString(kind) && !strcmp(kind->valuestring, "text"))));
        if (!is_text) {
            sw_buf_free(&text);
            return sw_fail_null("a part of the type \"%.40s\"; only parts of text can be read",
                                cJSON_IsString(kind) ? kind->valuestring : sw_json_kind(p));
        }
        sw_buf_puts(&text, cJSON_IsString(p) ? p->valuestring : t->valuestring);
    }
    cJSON *s = cJSON_CreateString(text.at);
    sw_buf_free(&text);
    return s;
}

static int normalise_content(cJSON *m)
{
    cJSON *content = cJSON_GetObjectItemCaseSensitive(m, "content"), *with = NULL;
    if (cJSON_IsString(content))
        return 0;
    if (cJSON_IsArray(content))
        with = join_parts(content);
    else if ((!content || cJSON_IsNull(content)) && sw_json_get(m, "tool_calls"))
        with = cJSON_CreateString("");
    else
        sw_fail("a string is needed, not %s", sw_json_kind(content));
    if (!with)
        return -1;
    if (content)
        cJSON_ReplaceItemInObjectCaseSensitive(m, "content", with);
    else
        cJSON_AddItemToObject(m, "content", with);
    return 0;
}

/* Templates print arguments as JSON, so a string that holds an object must become that object. */
static int normalise_calls(cJSON *calls)
{
    if (!cJSON_IsArray(calls))
        return sw_fail("an array is needed, not %s", sw_json_kind(calls));
    for (cJSON *c = calls->child; c; c = c->next) {
        cJSON *f = cJSON_GetObjectItemCaseSensitive(c, "function");
        f = f ? f : c;
        if (!cJSON_IsString(sw_json_get(f, "name")))
            return sw_fail("each call needs the \"name\" of a function");
        cJSON *a = cJSON_GetObjectItemCaseSensitive(f, "arguments");
        cJSON *o = cJSON_IsString(a) ? sw_json_parse(a->valuestring, strlen(a->valuestring)) : NULL;
        if (cJSON_IsObject(o))
            cJSON_ReplaceItemInObjectCaseSensitive(f, "arguments", o);
        else
            cJSON_Delete(o);
    }
    return 0;
}

/* A call written as a message of its own joins the assistant's turn. */
static int join_call(cJSON *messages, cJSON *m)
{
    cJSON *content = cJSON_GetObjectItemCaseSensitive(m, "content"), *call;
    if (cJSON_IsString(content))
        call = sw_json_parse(content->valuestring, strlen(content->valuestring));
    else
        call = content ? cJSON_Duplicate(content, true) : NULL;
    if (!cJSON_IsObject(call) && !cJSON_IsArray(call)) {
        cJSON_Delete(call);
        return sw_fail("a tool call is an object with \"name\" and \"arguments\", or its text");
    }
    cJSON *list = call;
    if (cJSON_IsObject(call)) {
        list = cJSON_CreateArray();
        cJSON_AddItemToArray(list, call);
    }
    cJSON *turn = m != messages->child ? m->prev : NULL;
    const cJSON *role = turn ? sw_json_get(turn, "role") : NULL;
    bool joins =
        role && !strcmp(role->valuestring, "assistant") && !sw_json_get(m, "loss") && !sw_json_get(m, "loss_scale");
    if (!joins) {
        turn = m;
        cJSON_ReplaceItemInObjectCaseSensitive(m, "role", cJSON_CreateString("assistant"));
        cJSON_ReplaceItemInObjectCaseSensitive(m, "content", cJSON_CreateString(""));
    }
    cJSON *calls = cJSON_GetObjectItemCaseSensitive(turn, "tool_calls");
    if (!cJSON_IsArray(calls))
        calls = cJSON_AddArrayToObject(turn, "tool_calls");
    for (cJSON *c; (c = cJSON_DetachItemViaPointer(list, list->child));) {
        if (sw_json_get(c, "function")) {
            cJSON_AddItemToArray(calls, c);
        } else {
            cJSON *o = cJSON_CreateObject();
            cJSON_AddStringToObject(o, "type", "function");
            cJSON_AddItemToObject(o, "function", c);
            cJSON_AddItemToArray(calls, o);
        }
    }
    cJSON_Delete(list);
    if (joins)
        cJSON_Delete(cJSON_DetachItemViaPointer(messages, m));
    return normalise_calls(calls);
}

int sw_messages_normalise(cJSON *messages, const char *field)
{
    if (!cJSON_IsArray(messages))
        return sw_fail("field \"%s\": an array of messages is needed, not %s", field, sw_json_kind(messages));
    if (!messages->child)
        return sw_fail("field \"%s\": the conversation is empty", field);
    size_t i = 0;
    for (cJSON *m = messages->child, *next; m; m = next, i++) {
        next = m->next;
        if (!cJSON_IsObject(m))
            return sw_fail("field \"%s[%zu]\": an object with role and content is needed, not %s", field, i,
                           sw_json_kind(m));
        rename_member(m, "from", "role");
        rename_member(m, "value", "content");
        cJSON *role = cJSON_GetObjectItemCaseSensitive(m, "role");
        const char *name = cJSON_IsString(role) ? sw_role_of(role->valuestring) : NULL;
        if (!cJSON_IsString(role))
            return sw_fail("field \"%s[%zu].role\": a string is needed, not %s", field, i, sw_json_kind(role));
        if (!name)
            return sw_fail("field \"%s[%zu].role\": \"%.40s\" is not known; user, assistant, system, developer, tool, "
                           "tool_call, and human, gpt, bot, observation and the like are",
                           field, i, role->valuestring);
        if (!strcmp(name, "tool_call")) {
            if (join_call(messages, m))
                return sw_fail_in("field \"%s[%zu].content\"", field, i);
            continue;
        }
        if (strcmp(name, role->valuestring))
            cJSON_SetValuestring(role, name);
        if (normalise_content(m))
            return sw_fail_in("field \"%s[%zu].content\"", field, i);
        const cJSON *weight = sw_json_get(m, "weight"); /* as OpenAI's fine-tuning and ShareGPT have it: 0 or 1 */
        if (cJSON_IsNumber(weight) && weight->valuedouble == 0 && !sw_json_get(m, "loss")) {
            cJSON_DeleteItemFromObjectCaseSensitive(m, "loss");
            cJSON_AddFalseToObject(m, "loss");
        }
        cJSON *calls = cJSON_GetObjectItemCaseSensitive(m, "tool_calls");
        if (calls && !cJSON_IsNull(calls) && normalise_calls(calls))
            return sw_fail_in("field \"%s[%zu].tool_calls\"", field, i);
    }
    return 0;
}
