#include "base/json.h"
#include "base/memory.h"
#include "text/template.h"

#include <string.h>

/* A member that refers to another tree. */
static void refer(cJSON *to, const char *key, const cJSON *value)
{
    cJSON *r = value ? cJSON_CreateObjectReference(NULL) : cJSON_CreateNull();
    if (value) { /* a shallow copy that owns nothing: cJSON frees neither text nor children of a reference */
        *r = *value;
        r->next = r->prev = NULL;
        r->string = NULL;
        r->type = (value->type | cJSON_IsReference) & ~cJSON_StringIsConst;
    }
    cJSON_DeleteItemFromObjectCaseSensitive(to, key);
    cJSON_AddItemToObject(to, key, r);
}

/* A message whose reasoning goes by one of three names has it under reasoning_content, and under thinking where that
 * is missing. */
static cJSON *message_variables(const cJSON *m)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    const cJSON *reasoning = NULL;
    cJSON *copy = cJSON_CreateObject();
    for (const cJSON *c = m->child; c; c = c->next)
        refer(copy, c->string, c);
    for (size_t i = 0; i < SW_COUNT(names) && !reasoning; i++)
        reasoning = sw_json_get(m, names[i]);
    if (reasoning) {
        refer(copy, "reasoning_content", reasoning);
        if (!cJSON_GetObjectItemCaseSensitive(m, "thinking"))
            refer(copy, "thinking", reasoning);
    }
    return copy;
}

cJSON *sw_template_variables(const cJSON *messages, const cJSON *tools, const cJSON *documents, const cJSON *extra)
{
    cJSON *vars = cJSON_CreateObject(), *list = cJSON_CreateArray();
    for (const cJSON *c = extra ? extra->child : NULL; c; c = c->next)
        refer(vars, c->string, c);
    for (const cJSON *m = messages ? messages->child : NULL; m; m = m->next)
        cJSON_AddItemToArray(list, cJSON_IsObject(m) ? message_variables(m) : cJSON_Duplicate(m, 1));
    cJSON_DeleteItemFromObjectCaseSensitive(vars, "messages");
    cJSON_AddItemToObject(vars, "messages", list);
    refer(vars, "tools", tools);
    refer(vars, "documents", documents);
    return vars;
}
