/* The chat format of a family: for checkpoints that bring no template of their own, such as base models. */
#include "text/template_family.h"

#include "base/fileio.h"
#include "base/json.h"
#include "base/memory.h"
#include "text/template_format.h"

#include <stdlib.h>
#include <string.h>

/* model_type of config.json (general.architecture of GGUF), and the formats its checkpoints are trained with: the first
 * whose own tokens the vocabulary has is taken. */
static const struct family {
    const char *type, *formats[4];
} families[] = {
    {"llama", {"llama3", "chatml", "llama2"}},
    {"llama4", {"llama4"}},
    {"mistral", {"chatml", "zephyr", "mistral"}},
    {"mixtral", {"chatml", "mistral"}},
    {"qwen", {"qwen"}},
    {"qwen2", {"qwen2_5"}},
    {"qwen2_moe", {"qwen"}},
    {"qwen2moe", {"qwen"}},
    {"qwen3", {"qwen3"}},
    {"qwen3_moe", {"qwen3"}},
    {"qwen3moe", {"qwen3"}},
    {"qwen3_next", {"qwen3_nothinking"}},
    {"gemma", {"gemma"}},
    {"gemma2", {"gemma"}},
    {"gemma3", {"gemma3_text"}},
    {"gemma3_text", {"gemma3_text"}},
    {"phi", {"default"}},
    {"phi3", {"phi3", "phi4"}},
    {"phimoe", {"phi3"}},
    {"baichuan", {"baichuan"}},
    {"chatglm", {"chatglm4"}},
    {"glm", {"chatglm4"}},
    {"glm4", {"glm4"}},
    {"glm4_moe", {"glm4_5"}},
    {"cohere", {"c4ai"}},
    {"dbrx", {"dbrx"}},
    {"deepseek", {"deepseek"}},
    {"deepseek_v2", {"deepseek_v2_5", "deepseek"}},
    {"deepseek2", {"deepseek_v2_5", "deepseek"}},
    {"deepseek_v3", {"deepseek_v2_5"}},
    {"deepseek_v32", {"deepseek_v3_1"}},
    {"ernie4_5", {"ernie"}},
    {"ernie4_5_moe", {"ernie"}},
    {"gpt_oss", {"gpt_oss"}},
    {"internlm", {"internlm"}},
    {"internlm2", {"internlm2"}},
    {"internlm3", {"internlm2"}},
    {"minicpm", {"chatml", "minicpm"}},
    {"minicpm3", {"chatml"}},
    {"nemotron_h", {"nemotron_h"}},
    {"olmoe", {"olmoe"}},
    {"orion", {"orion"}},
    {"seed_oss", {"seed_oss"}},
    {"telechat", {"telechat"}},
    {"xverse", {"xverse"}},
    {"yuan", {"yuan"}},
};

char *sw_template_family_of(const char *path)
{
    char *file = sw_path_join(path, "config.json"), *family = NULL;
    cJSON *o = sw_is_dir(path) && sw_is_file(file) ? sw_json_load(file) : NULL;
    const char *type;
    if (o && !sw_json_str(o, "model_type", "", &type) && *type)
        family = sw_strdup(type);
    sw_error_clear(); /* what is wrong with the file concerns those who need it */
    cJSON_Delete(o);
    free(file);
    return family;
}

/* Whether the vocabulary has the token that ends this format's answers. */
static bool suits(const sw_chat_format *f, const sw_tokenizer *t)
{
    const char *s = f->pieces->suffix;
    size_t n = strlen(s);
    while (n && (s[n - 1] == '\n' || s[n - 1] == ' '))
        n--;
    if (!strncmp(s, "{{EOS}}", 7))
        return sw_tokenizer_eos(t) >= 0;
    return sw_token_id(t, s, n) >= 0;
}

const sw_chat_format *sw_template_family_format(const char *family, const sw_tokenizer *t)
{
    for (size_t i = 0; family && i < SW_COUNT(families); i++)
        for (size_t k = 0;
             k < SW_COUNT(families[i].formats) && families[i].formats[k] && !strcmp(families[i].type, family); k++) {
            const sw_chat_format *f = sw_chat_format_find(families[i].formats[k]);
            if (f && suits(f, t))
                return f;
        }
    return NULL;
}
