#include "store/hub.h"

#include "base/fileio.h"
#include "base/json.h"
#include "base/map.h"
#include "base/memory.h"
#include "store/hub_internal.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

/* HOME/… with a folder of one's own where that is not set: nothing is then found. */
static char *home(const char *rest)
{
    const char *h = env("HOME");
    return sw_path_join(h ? h : "/nonexistent", rest);
}

static char *hub_cache(void)
{
    if (env("HF_HUB_CACHE"))
        return sw_strdup(env("HF_HUB_CACHE"));
    if (env("HF_HOME"))
        return sw_path_join(env("HF_HOME"), "hub");
    if (env("XDG_CACHE_HOME"))
        return sw_path_join(env("XDG_CACHE_HOME"), "huggingface/hub");
    return home(".cache/huggingface/hub");
}

/* A part of an id, with the characters a hub allows, so that it never leaves the cache's folder. */
static bool good_part(const char *s, size_t n)
{
    if (!n || n > 96 || s[0] == '.')
        return false;
    for (size_t i = 0; i < n; i++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.", s[i]))
            return false;
    return true;
}

/* Parts between slashes ("refs/pr/1"). */
static bool good_path(const char *s)
{
    for (;; s++) {
        size_t n = strcspn(s, "/");
        if (!good_part(s, n))
            return false;
        s += n;
        if (!*s)
            return true;
    }
}

static void repo_free(sw_hub_repo *r)
{
    free(r->id);
    free(r->revision);
    free(r->file);
    free(r->cache);
    free(r->folder);
}

static int parse_id(sw_hub_repo *r, const char *model, int want)
{
    const char *slash = strchr(model, '/');
    size_t n = slash ? (size_t)(slash - model) : 0, name_n = slash ? strcspn(slash + 1, "@:") : 0;
    const char *rest = slash ? slash + 1 + name_n : "";
    *r = (sw_hub_repo){.want = want};
    bool good = slash && good_part(model, n) && good_part(slash + 1, name_n);
    if (good && *rest == '@') {
        size_t revision_n = strcspn(++rest, ":");
        r->revision = sw_strndup(rest, revision_n);
        rest += revision_n;
        good = good_path(r->revision);
    }
    if (good && *rest == ':') {
        r->file = sw_strdup(rest + 1);
        good = good_path(r->file);
    }
    if (!good) {
        repo_free(r);
        return sw_fail("%s: is no file or folder, and no hub id of the form org/name[@revision][:file.gguf]", model);
    }
    if (!r->revision)
        r->revision = sw_strdup("main");
    r->id = sw_strndup(model, n + 1 + name_n);
    r->cache = hub_cache();
    r->folder = sw_strfmt("%s/models--%.*s--%.*s", r->cache, (int)n, model, (int)name_n, slash + 1);
    return 0;
}

/* ---- what a folder holds */

static bool has(const char *dir, const char *name)
{
    char *path = sw_path_join(dir, name);
    bool there = sw_is_file(path);
    free(path);
    return there;
}

void sw_hub_names_free(sw_hub_names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->at[i]);
    free(names->at);
    *names = (sw_hub_names){0};
}

int sw_hub_index_names(const char *index_path, sw_hub_names *out)
{
    cJSON *index = sw_json_load(index_path);
    const cJSON *map = sw_json_get(index, "weight_map");
    sw_map seen = {0};
    int rc = index ? 0 : -1;
    *out = (sw_hub_names){0};
    if (!rc && !cJSON_IsObject(map))
        rc = sw_fail("%s: \"weight_map\": an object of tensor names is needed", index_path);
    for (const cJSON *v = rc ? NULL : map->child; v && !rc; v = v->next) {
        if (!cJSON_IsString(v) || !good_part(v->valuestring, strlen(v->valuestring)))
            rc = sw_fail("%s: \"weight_map\": \"%s\" has no plain file name", index_path, v->string);
        else if (sw_map_gets(&seen, v->valuestring, -1) < 0) {
            sw_map_puts(&seen, v->valuestring, 1);
            SW_PUSH(*out, sw_strdup(v->valuestring));
        }
    }
    sw_map_free(&seen);
    cJSON_Delete(index);
    if (rc)
        sw_hub_names_free(out);
    return rc;
}

static bool index_complete(const char *dir, const char *name)
{
    sw_hub_names names = {0};
    char *path = sw_path_join(dir, name);
    bool all = !sw_hub_index_names(path, &names);
    for (size_t i = 0; all && i < names.n; i++)
        all = has(dir, names.at[i]);
    sw_hub_names_free(&names);
    free(path);
    return all;
}

static bool any_file(const char *dir, const char *pattern)
{
    DIR *d = opendir(dir);
    bool found = false;
    for (struct dirent *e; d && !found && (e = readdir(d));)
        found = sw_glob(pattern, e->d_name) && has(dir, e->d_name); /* a link that leads nowhere is none */
    if (d)
        closedir(d);
    return found;
}

bool sw_hub_complete(const char *dir, int want)
{
    if (want == SW_HUB_TOKENIZER)
        return any_file(dir, "{tokenizer.json,*.model,vocab.json,vocab.txt,*.tiktoken}");
    if (has(dir, "adapter_config.json") && any_file(dir, "adapter_model.{safetensors,bin}"))
        return true;
    if (has(dir, "model.safetensors.index.json"))
        return has(dir, "config.json") && index_complete(dir, "model.safetensors.index.json");
    if (any_file(dir, "*.safetensors"))
        return has(dir, "config.json");
    if (has(dir, "pytorch_model.bin.index.json"))
        return has(dir, "config.json") && index_complete(dir, "pytorch_model.bin.index.json");
    return has(dir, "config.json") && has(dir, "pytorch_model.bin");
}

/* ---- the caches */

/* A file of a folder by its name, or the only GGUF file of which the name is a part; NULL: none. */
static char *file_in(const char *dir, const char *file)
{
    if (has(dir, file))
        return sw_path_join(dir, file);
    if (sw_ends_with(file, ".gguf"))
        return NULL;
    char *pattern = sw_strfmt("*%s*.gguf", file), *found = NULL;
    for (char *p = pattern; *p; p++)
        *p = *p >= 'A' && *p <= 'Z' ? (char)(*p + 32) : *p;
    DIR *d = opendir(dir);
    size_t n = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        char *lower = sw_strdup(e->d_name), *of = strstr(e->d_name, "-of-");
        for (char *p = lower; *p; p++)
            *p = *p >= 'A' && *p <= 'Z' ? (char)(*p + 32) : *p;
        bool later = of && of - e->d_name >= 5 && memcmp(of - 5, "00001", 5);
        if (sw_glob(pattern, lower) && !later && has(dir, e->d_name) && n++ == 0)
            found = sw_path_join(dir, e->d_name);
        free(lower);
    }
    if (d)
        closedir(d);
    free(pattern);
    if (n == 1)
        return found;
    free(found);
    return NULL;
}

static char *usable(const char *dir, const sw_hub_repo *r)
{
    if (!sw_is_dir(dir))
        return NULL;
    if (r->file)
        return file_in(dir, r->file);
    if (sw_hub_complete(dir, r->want))
        return sw_strdup(dir);
    return any_file(dir, "config.json") ? NULL : file_in(dir, ""); /* a repository of one GGUF file */
}

/* The snapshot that a revision (a branch, tag or commit) has in the cache. */
static char *cached(const sw_hub_repo *r)
{
    char *ref = sw_strfmt("%s/refs/%s", r->folder, r->revision), *snapshot = NULL, *found = NULL;
    sw_buf b = {0};
    if (!sw_is_file(ref)) {
        snapshot = sw_strfmt("%s/snapshots/%s", r->folder, r->revision);
    } else if (!sw_read_file(ref, &b)) {
        while (b.n && (b.at[b.n - 1] == '\n' || b.at[b.n - 1] == ' '))
            b.at[--b.n] = 0;
        if (good_part(b.at ? b.at : "", b.n))
            snapshot = sw_strfmt("%s/snapshots/%s", r->folder, b.at);
    }
    if (snapshot)
        found = usable(snapshot, r);
    sw_buf_free(&b);
    free(ref);
    free(snapshot);
    return found;
}

/* ModelScope's cache: the files themselves in ROOT/[hub/][models/]org/name, where dots of a name may have become "___". It
 * keeps one revision. */
static char *cached_by_modelscope(const sw_hub_repo *r)
{
    char *root = env("MODELSCOPE_CACHE") ? sw_strdup(env("MODELSCOPE_CACHE")) : home(".cache/modelscope"), *found = NULL;
    sw_buf spelt = {0};
    for (const char *p = r->id; *p; p++)
        *p == '.' ? sw_buf_puts(&spelt, "___") : sw_buf_putc(&spelt, *p);
    static const char *const places[] = {"models/", "", "hub/models/", "hub/"};
    bool right = !strcmp(r->revision, "main") || !strcmp(r->revision, "master");
    for (size_t i = 0; i < 2 * SW_COUNT(places) && right && !found; i++) {
        char *dir = sw_strfmt("%s/%s%s", root, places[i / 2], i % 2 ? spelt.at : r->id);
        found = usable(dir, r);
        free(dir);
    }
    sw_buf_free(&spelt);
    free(root);
    return found;
}

static bool offline(void)
{
    static const char *const names[] = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"};
    for (size_t i = 0; i < SW_COUNT(names); i++)
        if (env(names[i]) && strcmp(env(names[i]), "0") && strcasecmp(env(names[i]), "false") && strcasecmp(env(names[i]), "no"))
            return true;
    return false;
}

static char *resolve(const char *model, int want)
{
    sw_hub_repo r;
    if (sw_is_dir(model) || sw_is_file(model))
        return sw_strdup(model);
    if (parse_id(&r, model, want))
        return NULL;
    char *path = cached(&r);
    if (!path)
        path = cached_by_modelscope(&r);
    if (!path && offline())
        sw_fail("%s: is no file or folder, no cache has all of it (%s, or ModelScope's), and HF_HUB_OFFLINE forbids to download it", model,
                r.folder);
    else if (!path && !(path = sw_hub_fetch(&r)))
        sw_fail_in("%s: is no file or folder and in no cache; downloading it", model);
    repo_free(&r);
    return path;
}

char *sw_model_path(const char *model) { return resolve(model, SW_HUB_MODEL); }

int sw_model_paths(const char **names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *path = sw_model_path(names[i]);
        if (!path)
            return -1;
        names[i] = path;
    }
    return 0;
}

char *sw_tokenizer_path(const char *model) { return resolve(model, SW_HUB_TOKENIZER); }
