#include "model/model_chat.h"

#include "base/fileio.h"
#include "base/json.h"
#include "base/memory.h"
#include "model/model_save.h"
#include "store/checkpoint.h"

#include <stdlib.h>
#include <string.h>

static void add_id(cJSON *list, int32_t id)
{
    for (const cJSON *have = list->child; have; have = have->next)
        if (have->valuedouble == id)
            return;
    if (id >= 0)
        cJSON_AddItemToArray(list, cJSON_CreateNumber(id));
}

/* An object of a file in dir, else in the base's folder, else an empty one. */
static cJSON *object_of(const sw_model *m, const char *dir, const char *name)
{
    cJSON *o = NULL;
    char *here = sw_path_join(dir, name), *base = sw_path_join(m->checkpoint->path, name);
    const char *path = sw_is_file(here) ? here : !m->checkpoint->gguf && sw_is_file(base) ? base : NULL;
    o = path ? sw_json_load(path) : cJSON_CreateObject();
    if (o && !cJSON_IsObject(o)) {
        sw_fail("%s: an object is needed, not %s", path, sw_json_kind(o));
        cJSON_Delete(o);
        o = NULL;
    }
    free(here);
    free(base);
    return o;
}

static int write_generation_config(const sw_model *m, const char *dir, int32_t end_token)
{
    cJSON *o = object_of(m, dir, "generation_config.json");
    if (!o)
        return -1;
    cJSON *list = cJSON_CreateArray();
    add_id(list, end_token);
    const cJSON *had = sw_json_get(o, "eos_token_id");
    for (const cJSON *v = cJSON_IsArray(had) ? had->child : had; v; v = cJSON_IsArray(had) ? v->next : NULL)
        if (cJSON_IsNumber(v))
            add_id(list, (int32_t)v->valuedouble);
    for (size_t i = 0; i < SW_COUNT(m->spec.eos) && m->spec.eos[i] >= 0; i++)
        add_id(list, m->spec.eos[i]);
    cJSON_DeleteItemFromObjectCaseSensitive(o, "eos_token_id");
    if (cJSON_GetArraySize(list) > 1) {
        cJSON_AddItemToObject(o, "eos_token_id", list);
    } else {
        if (list->child)
            cJSON_AddNumberToObject(o, "eos_token_id", list->child->valuedouble);
        cJSON_Delete(list);
    }
    if (m->spec.bos >= 0 && !sw_json_get(o, "bos_token_id"))
        cJSON_AddNumberToObject(o, "bos_token_id", m->spec.bos);
    int rc = sw_save_json(dir, "generation_config.json", o);
    cJSON_Delete(o);
    return rc;
}

static int write_tokenizer_config(const sw_model *m, const sw_tokenizer *t, const char *dir, const char *text, int32_t end_token)
{
    cJSON *o = object_of(m, dir, "tokenizer_config.json");
    if (!o)
        return -1;
    sw_span piece = sw_token_piece(t, end_token);
    char *name = sw_strndup(piece.at, piece.n);
    cJSON_DeleteItemFromObjectCaseSensitive(o, "eos_token");
    cJSON_AddStringToObject(o, "eos_token", name);
    cJSON_DeleteItemFromObjectCaseSensitive(o, "chat_template");
    cJSON_AddStringToObject(o, "chat_template", text);
    free(name);
    int rc = sw_save_json(dir, "tokenizer_config.json", o);
    cJSON_Delete(o);
    return rc;
}

int sw_save_chat(const sw_model *m, const sw_tokenizer *t, const char *dir, const char *text, int32_t end_token, bool whole)
{
    char *path = sw_path_join(dir, "chat_template.jinja");
    int rc = text ? sw_write_file(path, text, strlen(text)) : 0;
    free(path);
    return rc || (text && whole && t && end_token >= 0 && write_tokenizer_config(m, t, dir, text, end_token)) ||
                   write_generation_config(m, dir, end_token)
               ? -1
               : 0;
}
