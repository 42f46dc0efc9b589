#include "model/wrapper.h"

#include "base/json.h"
#include "base/memory.h"
#include "base/strbuf.h"
#include "model/family.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHOLE(name) {name "ForConditionalGeneration", "language_model.", true}
#define BODY(name) {name "ForConditionalGeneration", "model.language_model.", false}
#define TEXT(name) {name "ForConditionalGeneration", "model.text_model.", false}
static const sw_wrapper wrappers[] = {
    WHOLE("Llama4"),    WHOLE("Gemma3"),    WHOLE("Mistral3"),      WHOLE("Llava"),         WHOLE("LlavaNext"), WHOLE("LlavaNextVideo"),
    WHOLE("LlavaOnevision"), WHOLE("VideoLlava"), WHOLE("GotOcr2"),     WHOLE("InternVL"),  WHOLE("Qwen2Audio"),
    WHOLE("Voxtral"),   WHOLE("Kimi_K25"),  BODY("Gemma3n"),        BODY("Gemma4"),         BODY("Qwen3_5"),    BODY("Qwen3_5Moe"),
    BODY("DeepseekVL"), BODY("DeepseekVLHybrid"), BODY("Janus"),     BODY("MiniCPMV4_6"), BODY("Ovis2"),
    TEXT("Idefics2"),   TEXT("Idefics3"),   TEXT("SmolVLM"),        {"InternVLChatModel", "language_model.", true}};

const sw_wrapper *sw_wrapper_for(const char *architecture)
{
    for (size_t i = 0; architecture && i < SW_COUNT(wrappers); i++)
        if (!strcmp(wrappers[i].architecture, architecture))
            return &wrappers[i];
    return NULL;
}

static bool is_known(const cJSON *architectures)
{
    const cJSON *first = cJSON_IsArray(architectures) ? architectures->child : NULL;
    const sw_family *f;
    for (size_t i = 0; cJSON_IsString(first) && (f = sw_family_at(i)); i++)
        for (const char *const *a = f->architectures; *a; a++)
            if (!strcmp(*a, first->valuestring))
                return true;
    return false;
}

cJSON *sw_wrapper_text(const cJSON *config)
{
    /* What stands outside holds for the whole. */
    static const char *const outside[] = {"tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id"};
    const cJSON *text = sw_json_get(config, "text_config");
    if (!text)
        text = sw_json_get(config, "llm_config");
    if (!cJSON_IsObject(text))
        return NULL;
    cJSON *own = cJSON_Duplicate(text, true);
    if (!is_known(sw_json_get(own, "architectures"))) /* the kind of model decides */
        cJSON_DeleteItemFromObjectCaseSensitive(own, "architectures");
    for (size_t i = 0; i < SW_COUNT(outside); i++) {
        const cJSON *v = sw_json_get(config, outside[i]);
        if (!v || (i && sw_json_get(own, outside[i])))
            continue;
        cJSON_DeleteItemFromObjectCaseSensitive(own, outside[i]);
        cJSON_AddItemToObject(own, outside[i], cJSON_Duplicate(v, true));
    }
    return own;
}

void sw_wrapper_name(const sw_wrapper *w, char *name, size_t n)
{
    bool inner = sw_starts_with(name, "model.");
    if (!w || (!w->whole && !inner))
        return;
    char *all = sw_strfmt("%s%s", w->prefix, name + (w->whole ? 0 : strlen("model.")));
    snprintf(name, n, "%s", all);
    free(all);
}

const sw_entry *sw_wrapper_find(const sw_checkpoint *c, const char *name)
{
    const sw_entry *e = sw_checkpoint_find(c, name);
    const char *dot = strchr(name, '.');
    if (!e && dot && dot != strrchr(name, '.'))
        e = sw_checkpoint_find(c, dot + 1);
    for (size_t i = 0; i < SW_COUNT(wrappers) && !e; i++) {
        char longer[SW_NAME_MAX];
        if (i && !strcmp(wrappers[i].prefix, wrappers[i - 1].prefix))
            continue;
        snprintf(longer, sizeof longer, "%s", name);
        sw_wrapper_name(&wrappers[i], longer, sizeof longer);
        e = sw_checkpoint_find(c, longer);
    }
    return e;
}

bool sw_wrapper_has(const sw_wrapper *w, const char *name)
{
    return sw_starts_with(name, w->prefix) || (!w->whole && sw_starts_with(name, "lm_head."));
}
