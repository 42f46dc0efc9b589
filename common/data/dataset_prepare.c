/* What happens to a row before its format is looked at. */
#include "data/dataset_parts.h"

#include "base/memory.h"
#include "data/messages.h"

#include <stdlib.h>
#include <string.h>

void dataset_rename(const sw_dataset_options *o, cJSON *row)
{
    for (size_t i = 0; o->map && i < o->map->n; i++) {
        const char *old = o->map->at[i], *new = strchr(old, '=') + 1;
        char *name = sw_strndup(old, (size_t)(new - 1 - old));
        cJSON *v = dataset_take(row, name);
        free(name);
        if (v && *new) {
            cJSON_DeleteItemFromObjectCaseSensitive(row, new);
            cJSON_AddItemToObject(row, new, v);
        } else {
            cJSON_Delete(v);
        }
    }
}

void dataset_carry(const sw_dataset_options *o, const cJSON *row, sw_sample *s)
{
    bool all = s->task == SW_TASK_PROMPT;
    for (size_t i = 0; o->carry && i < o->carry->n; i++)
        all |= !strcmp(o->carry->at[i], "*");
    if (!all && !(o->carry && o->carry->n))
        return;
    s->carried = all ? cJSON_Duplicate(row, true) : cJSON_CreateObject();
    for (const char *const *name = dataset_conversation_names; all && s->task == SW_TASK_PROMPT && *name; name++)
        if (dataset_is_messages(sw_json_get(row, *name)))
            cJSON_DeleteItemFromObjectCaseSensitive(s->carried, *name);
    for (size_t i = 0; !all && i < o->carry->n; i++) {
        const cJSON *v = cJSON_GetObjectItemCaseSensitive(row, o->carry->at[i]);
        if (v)
            cJSON_AddItemToObject(s->carried, o->carry->at[i], cJSON_Duplicate(v, true));
    }
}

/* "\n\nHuman: ...\n\nAssistant: ..." as messages, or NULL. */
static cJSON *from_transcript(const char *p)
{
    static const struct {
        const char *head, *role;
    } heads[] = {{"\n\nHuman:", "user"}, {"\n\nAssistant:", "assistant"}};
    cJSON *messages = cJSON_CreateArray();
    while (p && *p) {
        size_t k = !strncmp(p, heads[1].head, strlen(heads[1].head));
        p += strlen(heads[k].head);
        p += *p == ' ';
        const char *human = strstr(p, heads[0].head), *assistant = strstr(p, heads[1].head);
        const char *end = !human || (assistant && assistant < human) ? assistant : human;
        char *text = end ? sw_strndup(p, (size_t)(end - p)) : sw_strdup(p);
        cJSON_AddItemToArray(messages, sw_message_new(heads[k].role, cJSON_CreateString(text)));
        free(text);
        p = end;
    }
    return messages;
}

void dataset_join_prompts(cJSON *row)
{
    static const char *const answers[] = {"chosen", "rejected"};
    const cJSON *prompt = sw_json_get(row, "prompt");
    bool transcript = !dataset_present(row, dataset_query_names), lists = dataset_is_messages(prompt);
    for (size_t i = 0; i < SW_COUNT(answers); i++) {
        const cJSON *v = sw_json_get(row, answers[i]);
        transcript &= cJSON_IsString(v) && !strncmp(v->valuestring, "\n\nHuman:", 8);
        lists &= dataset_is_messages(v);
    }
    for (size_t i = 0; (transcript || lists) && i < SW_COUNT(answers); i++) {
        cJSON *v = cJSON_GetObjectItemCaseSensitive(row, answers[i]), *whole;
        if (transcript) {
            whole = from_transcript(v->valuestring);
        } else {
            whole = cJSON_Duplicate(prompt, true);
            for (cJSON *m; (m = cJSON_DetachItemViaPointer(v, v->child));)
                cJSON_AddItemToArray(whole, m);
        }
        cJSON_ReplaceItemInObjectCaseSensitive(row, answers[i], whole);
    }
    if (lists)
        cJSON_Delete(dataset_take(row, "prompt"));
}
