/* A model folder's tokenizer: which of its files to read. */
#include "text/tokenizer_parts.h"

#include "base/json.h"
#include "store/gguf.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static int read_beside(const char *dir, const char *name, sw_buf *out)
{
    char *path = sw_path_join(dir, name);
    bool there = sw_is_file(path);
    int rc = there ? sw_read_file(path, out) : 0;
    if (!rc && there && !out->n && sw_ends_with(name, ".json"))
        rc = sw_fail("%s: is empty", path);
    free(path);
    return rc;
}

static sw_tokenizer *from_gguf(const char *path)
{
    sw_gguf *g = sw_gguf_open(path);
    sw_tokenizer *t = g ? sw_tokenizer_from_gguf(g) : NULL;
    if (g)
        sw_gguf_close(g);
    return t;
}

typedef struct files {
    sw_buf main, merges, config, template, system;
} files;

/* Bytes that are lines of base64 and a number, and no protocol buffer. */
static bool is_ranks(const sw_buf *b)
{
    size_t i = 0;
    while (i < b->n && b->at[i] != ' ' && b->at[i] != '\n' && (unsigned char)b->at[i] > ' ' &&
           (unsigned char)b->at[i] < 0x7f)
        i++;
    return i && i + 1 < b->n && b->at[i] == ' ' && b->at[i + 1] >= '0' && b->at[i + 1] <= '9';
}

/* A tiktoken file's special tokens are in tokenizer_config.json, where there is one. */
static sw_tokenizer *from_ranks(const files *f)
{
    cJSON *config = f->config.n ? sw_json_parse(f->config.at, f->config.n) : NULL;
    if (f->config.n && !config)
        return NULL;
    struct {
        sw_special_token *at;
        size_t n, cap;
    } special = {0};
    const cJSON *list = sw_json_get(config, "added_tokens_decoder");
    for (const cJSON *s = list ? list->child : NULL; s; s = s->next) {
        const cJSON *content = sw_json_get(s, "content");
        if (cJSON_IsString(content) && s->string)
            SW_PUSH(special, ((sw_special_token){content->valuestring, (int32_t)strtol(s->string, NULL, 10)}));
    }
    sw_tokenizer *t = sw_tokenizer_from_tiktoken(f->main.at, f->main.n, NULL, NULL, special.at, special.n);
    if (t && config && sw_tokenizer_read_config(t, config)) {
        sw_tokenizer_free(t);
        t = NULL;
    }
    free(special.at);
    cJSON_Delete(config);
    return t;
}

static sw_tokenizer *from_model(const files *f)
{
    if (is_ranks(&f->main))
        return from_ranks(f);
    return sw_tokenizer_from_sentencepiece(f->main.at, f->main.n, f->config.at, f->config.n);
}

/* The files that a folder may have, the best first. `*.tiktoken` is looked for. */
static char *main_file(const char *dir)
{
    static const char *const names[] = {"tokenizer.json",          "tokenizer.model", "tiktoken.model", "spiece.model",
                                        "sentencepiece.bpe.model", "vocab.json",      "vocab.txt"};
    for (size_t i = 0; i < SW_COUNT(names); i++) {
        char *path = sw_path_join(dir, names[i]);
        if (sw_is_file(path))
            return path;
        free(path);
    }
    DIR *d = opendir(dir);
    char *found = NULL;
    for (struct dirent *e; d && !found && (e = readdir(d));)
        if (sw_ends_with(e->d_name, ".tiktoken"))
            found = sw_path_join(dir, e->d_name);
    if (d)
        closedir(d);
    return found;
}

bool sw_tokenizer_is_in(const char *dir)
{
    char *file = main_file(dir);
    free(file);
    return file;
}

/* The last part of a folder's name; in a cache of the hub, of the repository's: models--org--name/snapshots/commit. */
static char *model_name(const char *dir)
{
    char *full = realpath(dir, NULL), *name = full ? strrchr(full, '/') : NULL, *up = NULL;
    if (name) {
        *name++ = 0;
        up = strrchr(full, '/');
    }
    if (up && !strcmp(up, "/snapshots")) {
        *up = 0;
        name = strrchr(full, '/') + 1;
        for (char *s; (s = strstr(name, "--"));)
            name = s + 2;
    }
    char *copy = sw_strdup(name ? name : "");
    free(full);
    return copy;
}

/* Of a file that is an object; nothing where the file is missing. */
static int template_of(const char *dir, const char *name, sw_buf *text)
{
    sw_buf b = {0}, scratch = {0};
    int rc = read_beside(dir, name, &b);
    cJSON *o = !rc && b.n ? sw_json_parse(b.at, b.n) : NULL;
    if (!rc && b.n && !o)
        rc = sw_fail_in("%s/%s", dir, name);
    const cJSON *there = sw_json_get(o, "chat_template");
    if (there && !cJSON_IsString(there) && !cJSON_IsArray(there))
        rc = sw_fail("%s/%s: \"chat_template\": a string, or a list of templates with names, is needed, not %s", dir, name, sw_json_kind(there));
    sw_span s = sw_json_text(sw_tokenizer_config_template(o), &scratch);
    sw_buf_add(text, s.at ? s.at : "", s.n);
    cJSON_Delete(o);
    sw_buf_free(&b);
    sw_buf_free(&scratch);
    return rc;
}

int sw_tokenizer_template_in(const char *dir, sw_buf *text)
{
    size_t before = text->n;
    int rc = read_beside(dir, "chat_template.jinja", text);
    if (!rc && text->n == before)
        rc = template_of(dir, "tokenizer_config.json", text);
    return !rc && text->n == before ? template_of(dir, "chat_template.json", text) : rc;
}

/* Whether a configuration has the text as one of its special tokens: eos_token and the like, or additional_special_tokens. */
static bool is_named(const cJSON *config, const char *text)
{
    for (const cJSON *v = config->child; v; v = v->next) {
        bool list = cJSON_IsArray(v);
        for (const cJSON *one = list ? v->child : v; one && sw_ends_with(v->string, list ? "_tokens" : "_token"); one = list ? one->next : NULL) {
            const cJSON *content = cJSON_IsObject(one) ? sw_json_get(one, "content") : one;
            if (cJSON_IsString(content) && !strcmp(content->valuestring, text))
                return true;
        }
    }
    return false;
}

/* Adds to the configuration what transformers wrote into files of their own before 4.34: special_tokens_map.json, and
 * added_tokens.json (texts and their ids). */
static int complete_config(const char *dir, sw_buf *config)
{
    sw_buf map = {0}, added = {0};
    int rc = read_beside(dir, "special_tokens_map.json", &map) || read_beside(dir, "added_tokens.json", &added) ? -1 : 0;
    if (rc || (!map.n && !added.n)) {
        sw_buf_free(&map);
        sw_buf_free(&added);
        return rc;
    }
    cJSON *o = config->n ? sw_json_parse(config->at, config->n) : cJSON_CreateObject(), *specials = o && map.n ? sw_json_parse(map.at, map.n) : NULL;
    cJSON *ids = o && added.n ? sw_json_parse(added.at, added.n) : NULL;
    if (!o)
        rc = sw_fail_in("%s/tokenizer_config.json", dir);
    else if (map.n && !specials)
        rc = sw_fail_in("%s/special_tokens_map.json", dir);
    else if (added.n && !ids)
        rc = sw_fail_in("%s/added_tokens.json", dir);
    for (const cJSON *s = !rc && specials ? specials->child : NULL; s; s = s->next)
        if (!sw_json_get(o, s->string)) {
            cJSON_DeleteItemFromObjectCaseSensitive(o, s->string);
            cJSON_AddItemToObject(o, s->string, cJSON_Duplicate(s, true));
        }
    if (!rc && ids && !sw_json_get(o, "added_tokens_decoder")) {
        cJSON_DeleteItemFromObjectCaseSensitive(o, "added_tokens_decoder");
        cJSON *list = cJSON_AddObjectToObject(o, "added_tokens_decoder");
        for (const cJSON *id = ids->child; id && !rc; id = id->next) {
            if (!cJSON_IsNumber(id)) {
                rc = sw_fail("%s/added_tokens.json: \"%.40s\": an id is needed, not %s", dir, id->string, sw_json_kind(id));
                break;
            }
            char *key = sw_strfmt("%.0f", id->valuedouble);
            cJSON *token = cJSON_AddObjectToObject(list, key);
            cJSON_AddStringToObject(token, "content", id->string);
            cJSON_AddBoolToObject(token, "special", is_named(o, id->string));
            free(key);
        }
    }
    if (!rc) {
        sw_buf_clear(config);
        sw_json_print(config, o);
    }
    cJSON_Delete(o);
    cJSON_Delete(specials);
    cJSON_Delete(ids);
    sw_buf_free(&map);
    sw_buf_free(&added);
    return rc;
}

static sw_tokenizer *from_files(const char *path, const char *dir)
{
    files f = {0};
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    sw_tokenizer *t = NULL;
    bool whole = sw_ends_with(name, ".json") && strcmp(name, "vocab.json"); /* the others leave much open */
    if (!sw_read_file(path, &f.main) && !read_beside(dir, "tokenizer_config.json", &f.config) &&
        !sw_tokenizer_template_in(dir, &f.template) &&
        !read_beside(dir, "SYSTEM_PROMPT.txt", &f.system) && !read_beside(dir, "merges.txt", &f.merges) && (whole || !complete_config(dir, &f.config))) {
        const char *at = f.main.at ? f.main.at : "";
        if (!strcmp(name, "vocab.txt"))
            t = sw_tokenizer_from_vocab_txt(at, f.main.n, f.config.at, f.config.n);
        else if (!strcmp(name, "vocab.json"))
            t = sw_tokenizer_from_vocab_merges(at, f.main.n, f.merges.at, f.merges.n, f.config.at, f.config.n);
        else if (sw_ends_with(name, ".json"))
            t = sw_tokenizer_from_json(at, f.main.n, f.config.at, f.config.n);
        else
            t = from_model(&f);
        if (!t) {
            sw_fail_in("%s", path);
        } else {
            if (f.template.n) {
                free(t->chat_template);
                t->chat_template = sw_strndup(f.template.at, f.template.n);
            }
            if (f.system.n)
                t->system_prompt = sw_strndup(f.system.at, f.system.n);
            t->model_name = model_name(dir);
        }
    }
    sw_buf_free(&f.main);
    sw_buf_free(&f.merges);
    sw_buf_free(&f.config);
    sw_buf_free(&f.template);
    sw_buf_free(&f.system);
    return t;
}

sw_tokenizer *sw_tokenizer_load(const char *path)
{
    if (sw_is_dir(path)) {
        char *file = main_file(path);
        sw_tokenizer *t = file ? from_files(file, path)
                               : sw_fail_null("%s: no tokenizer.json, tokenizer.model, *.tiktoken, vocab.json or vocab.txt", path);
        free(file);
        return t;
    }
    static const char *const endings[] = {".json", ".model", ".tiktoken", ".txt"};
    for (size_t i = 0; i < SW_COUNT(endings); i++) {
        if (!sw_ends_with(path, endings[i]))
            continue;
        const char *slash = strrchr(path, '/');
        char *dir = slash ? sw_strndup(path, (size_t)(slash - path)) : sw_strdup(".");
        sw_tokenizer *t = from_files(path, dir);
        free(dir);
        return t;
    }
    return from_gguf(path);
}
