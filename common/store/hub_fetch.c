/* What is needed of a repository on the hub. One question lists its files with sizes and digests; then the small files come,
 * then the weights, which an index may name; last the revision's name is noted, so that it stands for a whole snapshot. */
#include "store/hub_internal.h"

#include "base/fileio.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "store/content_hash.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MOST_NAMED = 6 };

typedef struct fetch {
    const sw_hub_repo *repo;
    sw_http *http;
    char *endpoint, *token, *commit;
    struct { sw_hub_file *at; size_t n, cap; } files;
} fetch;

static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

/* HF_TOKEN, or the file that logging in with other programs leaves. NULL: none. */
static char *read_token(void)
{
    const char *v = env("HF_TOKEN") ? env("HF_TOKEN") : env("HUGGING_FACE_HUB_TOKEN");
    if (v)
        return sw_strdup(v);
    char *path = env("HF_TOKEN_PATH")    ? sw_strdup(env("HF_TOKEN_PATH"))
                 : env("HF_HOME")        ? sw_path_join(env("HF_HOME"), "token")
                 : env("XDG_CACHE_HOME") ? sw_path_join(env("XDG_CACHE_HOME"), "huggingface/token")
                                         : sw_path_join(env("HOME") ? env("HOME") : "", ".cache/huggingface/token");
    sw_buf b = {0};
    char *token = NULL;
    if (sw_is_file(path) && !sw_read_file(path, &b) && b.n) {
        size_t n = strcspn(b.at, " \r\n");
        token = n ? sw_strndup(b.at, n) : NULL;
    }
    sw_buf_free(&b);
    free(path);
    return token;
}

/* ---- names that resemble one */

static void nearer(const char *want, const char *candidate, char **best)
{
    if (candidate && (!*best || sw_spelling_distance(want, candidate) < sw_spelling_distance(want, *best))) {
        free(*best);
        *best = sw_strdup(candidate);
    }
}

/* GETs JSON for a hint; NULL where there is none. */
static cJSON *ask(sw_http *h, const char *token, const char *url)
{
    sw_buf b = {0};
    sw_http_reply reply = {0};
    cJSON *o = !sw_http_get(h, url, token, &b, &reply) && reply.status == 200 ? sw_json_parse(b.at ? b.at : "", b.n) : NULL;
    sw_http_reply_free(&reply);
    sw_buf_free(&b);
    return o;
}

static char *nearest_model(const fetch *f)
{
    sw_buf url = {0};
    char *best = NULL;
    sw_buf_printf(&url, "%s/api/models?limit=50&search=", f->endpoint);
    sw_http_escape(&url, strchr(f->repo->id, '/') + 1, false);
    cJSON *list = ask(f->http, f->token, url.at);
    for (const cJSON *m = cJSON_IsArray(list) ? list->child : NULL; m; m = m->next)
        nearer(f->repo->id, cJSON_GetStringValue(sw_json_get(m, "id")), &best);
    cJSON_Delete(list);
    sw_buf_free(&url);
    return best;
}

static char *nearest_revision(const fetch *f)
{
    static const char *const kinds[] = {"branches", "tags"};
    char *url = sw_strfmt("%s/api/models/%s/refs", f->endpoint, f->repo->id), *best = NULL;
    cJSON *o = ask(f->http, f->token, url);
    for (size_t k = 0; k < SW_COUNT(kinds); k++) {
        const cJSON *list = sw_json_get(o, kinds[k]);
        for (const cJSON *r = cJSON_IsArray(list) ? list->child : NULL; r; r = r->next)
            nearer(f->repo->revision, cJSON_GetStringValue(sw_json_get(r, "name")), &best);
    }
    cJSON_Delete(o);
    free(url);
    return best;
}

int sw_hub_explain(const sw_hub_repo *repo, const char *endpoint, bool with_token, const char *url, const sw_http_reply *reply)
{
    const char *code = reply->error_code ? reply->error_code : "", *text = reply->error_message ? reply->error_message : "";
    if (reply->failure)
        return sw_fail("%s: %s", url, reply->failure);
    if (!strcmp(code, "GatedRepo"))
        return sw_fail("%s: the model is gated%s; accept its terms at %s/%s%s", url,
                       with_token ? ", and the owner of the token that was sent has not been let in" : "", endpoint, repo->id,
                       with_token ? "" : ", and set HF_TOKEN to a token that may read it");
    if (reply->status == 401 || reply->status == 403)
        return sw_fail("%s: status %ld: the model does not exist, or is private: %s%s%s", url, reply->status,
                       with_token ? "the token that was sent (HF_TOKEN, or the file of a login) may not read it"
                                  : "HF_TOKEN must then hold a token that may read it",
                       *text ? "; the hub says: " : "", text);
    return sw_fail("%s: status %ld%s%s", url, reply->status, *text ? ": " : "", text);
}

static int explain_listing(const fetch *f, const char *url, const sw_http_reply *reply)
{
    bool revision = reply->error_code && !strcmp(reply->error_code, "RevisionNotFound");
    if (reply->status == 404 || (reply->status == 401 && !f->token)) {
        char *hint = revision ? nearest_revision(f) : nearest_model(f);
        int rc = 0;
        if (hint && revision)
            rc = sw_fail("%s has no revision %s; the nearest is %s", f->repo->id, f->repo->revision, hint);
        else if (hint && strcmp(hint, f->repo->id))
            rc = sw_fail("there is no model %s at %s that may be seen %s; the nearest name is %s", f->repo->id, f->endpoint,
                         f->token ? "with the token that was sent" : "without a token (HF_TOKEN)", hint);
        else if (reply->status == 404)
            rc = revision ? sw_fail("%s has no revision %s", f->repo->id, f->repo->revision)
                          : sw_fail("there is no model %s at %s", f->repo->id, f->endpoint);
        free(hint);
        if (rc)
            return rc;
    }
    return sw_hub_explain(f->repo, f->endpoint, f->token, url, reply);
}

/* ---- the list of files */

/* A relative path that stays where it is put: no part is empty, "." or "..", no odd characters. */
static bool safe_name(const char *s)
{
    if (!*s || strlen(s) > 1000 || strchr(s, '\\'))
        return false;
    for (const char *p = s; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 127)
            return false;
    for (;; s++) {
        size_t n = strcspn(s, "/");
        if (!n || (n == 1 && s[0] == '.') || (n == 2 && !memcmp(s, "..", 2)))
            return false;
        s += n;
        if (!*s)
            return true;
    }
}

static int read_listing(fetch *f, const cJSON *o)
{
    const cJSON *commit = sw_json_get(o, "sha"), *list = sw_json_get(o, "siblings");
    if (!cJSON_IsString(commit) || strlen(commit->valuestring) < 8 ||
        commit->valuestring[strspn(commit->valuestring, "0123456789abcdef")] || !cJSON_IsArray(list))
        return sw_fail("a commit (\"sha\") and a list of files (\"siblings\") are needed");
    f->commit = sw_strdup(commit->valuestring);
    for (const cJSON *s = list->child; s; s = s->next) {
        const char *name = cJSON_GetStringValue(sw_json_get(s, "rfilename"));
        const cJSON *lfs = sw_json_get(s, "lfs");
        const char *id = cJSON_GetStringValue(lfs ? sw_json_get(lfs, "sha256") : sw_json_get(s, "blobId"));
        sw_hub_file file = {.size = -1};
        if (!name || !safe_name(name))
            return sw_fail("the file name '%s' is refused: it would not stay in its folder", name ? name : "");
        if (sw_json_i64(lfs && sw_json_get(lfs, "size") ? lfs : s, "size", 0, INT64_MAX, -1, &file.size))
            return sw_fail_in("%s", name);
        file.name = sw_strdup(name);
        file.id = id && sw_content_id_valid(id) ? sw_strdup(id) : NULL;
        SW_PUSH(f->files, file);
    }
    return 0;
}

static int list_files(fetch *f)
{
    sw_buf url = {0}, body = {0};
    sw_http_reply reply = {0};
    sw_buf_printf(&url, "%s/api/models/%s/revision/", f->endpoint, f->repo->id);
    sw_http_escape(&url, f->repo->revision, false);
    sw_buf_puts(&url, "?blobs=true");
    int rc = sw_http_get(f->http, url.at, f->token, &body, &reply);
    if (!rc && reply.status != 200)
        rc = explain_listing(f, url.at, &reply);
    if (!rc) {
        cJSON *o = sw_json_parse(body.at ? body.at : "", body.n);
        if (!o || read_listing(f, o))
            rc = sw_fail_in("%s", url.at);
        cJSON_Delete(o);
    }
    sw_http_reply_free(&reply);
    sw_buf_free(&url);
    sw_buf_free(&body);
    return rc;
}

/* ---- which of them */

static sw_hub_file *find(const fetch *f, const char *name)
{
    for (size_t i = 0; i < f->files.n; i++)
        if (!strcmp(f->files.at[i].name, name))
            return &f->files.at[i];
    return NULL;
}

static void want(sw_hub_files *list, sw_hub_file *file)
{
    if (file)
        SW_PUSH(*list, file);
}

/* Parts of a split model but the first are no models of their own. */
static bool later_part(const char *name)
{
    const char *of = strstr(name, "-of-");
    return of && of - name >= 6 && of[-6] == '-' && memcmp(of - 5, "00001", 5);
}

/* A GGUF file and, where it is the first of several, the others. */
static int want_gguf(fetch *f, sw_hub_files *list, sw_hub_file *first)
{
    const char *of = strstr(first->name, "-00001-of-");
    want(list, first);
    for (long i = 2, n = of ? atol(of + 10) : 1; i <= n; i++) {
        char *name = sw_strfmt("%.*s-%05ld%s", (int)(of - first->name), first->name, i, of + 6);
        sw_hub_file *part = i < 100000 ? find(f, name) : NULL;
        int rc = part ? 0 : sw_fail("%s has no %s, which %s needs", f->repo->id, name, first->name);
        free(name);
        if (rc)
            return rc;
        want(list, part);
    }
    return 0;
}

static bool has_part(const char *name, const char *part)
{
    for (size_t n = strlen(part); *name; name++)
        if (!strncasecmp(name, part, n))
            return true;
    return !*part;
}

/* The GGUF file that is meant by its name or by a part of it ("Q4_K_M"); "": the only one. */
static sw_hub_file *choose_gguf(const fetch *f, const char *said)
{
    sw_hub_file *found = find(f, said);
    sw_buf named = {0};
    char *best = NULL;
    size_t n = 0;
    for (size_t i = 0; i < f->files.n && !found; i++) {
        sw_hub_file *file = &f->files.at[i];
        if (!sw_ends_with(file->name, ".gguf") || later_part(file->name))
            continue;
        nearer(said, file->name, &best);
        if (has_part(file->name, said) && n++ < MOST_NAMED)
            sw_buf_printf(&named, "%s%s", named.n ? ", " : "", file->name);
    }
    if (!found && n == 1)
        found = find(f, named.at);
    else if (!found && n)
        sw_fail("%s has %zu GGUF files %s%s(%s%s); name one: %s:FILE", f->repo->id, n, *said ? "whose name has " : "", *said ? said : "",
                named.at, n > MOST_NAMED ? " …" : "", f->repo->id);
    else if (!found && best)
        sw_fail("%s has no file %s; the nearest is %s", f->repo->id, said, best);
    else if (!found)
        sw_fail("%s has no %s%s", f->repo->id, *said ? "file " : "weights in safetensors, PyTorch or GGUF files", said);
    free(best);
    sw_buf_free(&named);
    return found;
}

/* The file at the root of the repository that a pattern finds when there is just one. */
static sw_hub_file *only(const fetch *f, const char *pattern)
{
    sw_hub_file *found = NULL;
    for (size_t i = 0; i < f->files.n; i++)
        if (!strchr(f->files.at[i].name, '/') && sw_glob(pattern, f->files.at[i].name)) {
            if (found)
                return NULL;
            found = &f->files.at[i];
        }
    return found;
}

static bool any(const fetch *f, const char *pattern)
{
    for (size_t i = 0; i < f->files.n; i++)
        if (sw_glob(pattern, f->files.at[i].name))
            return true;
    return false;
}

static const char *const small_files[] = {
    "config.json", "generation_config.json", "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "chat_template.*",
    "*processor_config.json", "vocab.json", "vocab.txt", "merges.txt", "*.model", "*.tiktoken", "adapter_config.json",
    "quant*_config.json",
};

static bool is_small(const char *name)
{
    for (size_t i = 0; i < SW_COUNT(small_files); i++)
        if (!strchr(name, '/') && sw_glob(small_files[i], name))
            return true;
    return false;
}

/* Weights, the best form first. *index: the list that names them, to be got before. */
static int choose_weights(fetch *f, sw_hub_files *weights, sw_hub_file **index)
{
    static const struct { const char *index, *single; } forms[] = {
        {"model.safetensors.index.json", "model.safetensors"}, {NULL, "adapter_model.safetensors"}, {NULL, "*.safetensors"},
        {"pytorch_model.bin.index.json", "pytorch_model.bin"}, {NULL, "adapter_model.bin"}};
    for (size_t i = 0; i < SW_COUNT(forms); i++) {
        *index = forms[i].index ? find(f, forms[i].index) : NULL;
        sw_hub_file *single = only(f, forms[i].single);
        if (*index)
            return 0;
        want(weights, single);
        if (single)
            return 0;
    }
    sw_hub_file *gguf = choose_gguf(f, "");
    return gguf ? want_gguf(f, weights, gguf) : -1;
}

static int want_indexed(fetch *f, const char *index, sw_hub_files *weights)
{
    sw_hub_names names;
    char *path = sw_strfmt("%s/snapshots/%s/%s", f->repo->folder, f->commit, index);
    int rc = sw_hub_index_names(path, &names);
    for (size_t i = 0; !rc && i < names.n; i++) {
        sw_hub_file *file = find(f, names.at[i]);
        want(weights, file);
        if (!file)
            rc = sw_fail("%s names %s, which %s does not have", path, names.at[i], f->repo->id);
    }
    if (!rc)
        sw_hub_names_free(&names);
    free(path);
    return rc;
}

static int get_all(fetch *f, const sw_hub_files *files)
{
    return sw_hub_transfer(f->repo, f->http, f->endpoint, f->token, f->commit, files);
}

/* *file: the one that the path is to name, or NULL for the folder. */
static int fetch_files(fetch *f, const sw_hub_file **file)
{
    sw_hub_files small = {0}, weights = {0};
    sw_hub_file *index = NULL, *gguf = NULL;
    int rc = 0;
    if (f->repo->file)
        rc = (gguf = choose_gguf(f, f->repo->file)) ? want_gguf(f, &weights, gguf) : -1;
    else if (f->repo->want == SW_HUB_MODEL)
        rc = choose_weights(f, &weights, &index);
    for (size_t i = 0; i < f->files.n && !f->repo->file; i++)
        if (is_small(f->files.at[i].name))
            want(&small, &f->files.at[i]);
    want(&small, index);
    if (!rc && f->repo->want == SW_HUB_TOKENIZER && !f->repo->file && !any(f, "{tokenizer.json,*.model,vocab.json,vocab.txt,*.tiktoken}"))
        rc = (gguf = choose_gguf(f, "")) ? want_gguf(f, &weights, gguf) : sw_fail("%s has no tokenizer", f->repo->id);
    if (!rc && weights.n && sw_ends_with(weights.at[0]->name, ".gguf") && !find(f, "config.json"))
        gguf = weights.at[0];
    rc = rc || get_all(f, &small) || (index && want_indexed(f, index->name, &weights)) || get_all(f, &weights) ? -1 : 0;
    free(small.at);
    free(weights.at);
    *file = gguf;
    return rc;
}

/* The name of the revision, for the next time and for other programs. */
static int write_ref(const fetch *f)
{
    if (!strcmp(f->repo->revision, f->commit))
        return 0;
    char *path = sw_strfmt("%s/refs/%s", f->repo->folder, f->repo->revision), *dir = sw_strdup(path);
    *strrchr(dir, '/') = 0;
    int rc = sw_mkdirs(dir) || sw_write_file(path, f->commit, strlen(f->commit)) ? -1 : 0;
    free(dir);
    free(path);
    return rc;
}

char *sw_hub_fetch(const sw_hub_repo *repo)
{
    fetch f = {.repo = repo, .http = sw_http_open(), .token = read_token()};
    const sw_hub_file *file = NULL;
    char *path = NULL;
    f.endpoint = sw_strdup(env("HF_ENDPOINT") ? env("HF_ENDPOINT") : "https://huggingface.co");
    for (size_t n = strlen(f.endpoint); n && f.endpoint[n - 1] == '/'; n--)
        f.endpoint[n - 1] = 0;
    int rc = f.http ? list_files(&f) : -1;
    if (!rc)
        sw_info("downloading %s, revision %s (%.12s), into %s", repo->id, repo->revision, f.commit, repo->folder);
    if (!rc && !fetch_files(&f, &file) && !write_ref(&f))
        path = sw_strfmt("%s/snapshots/%s%s%s", repo->folder, f.commit, file ? "/" : "", file ? file->name : "");
    for (size_t i = 0; i < f.files.n; i++) {
        free(f.files.at[i].name);
        free(f.files.at[i].id);
    }
    free(f.files.at);
    sw_http_close(f.http);
    free(f.endpoint);
    free(f.token);
    free(f.commit);
    return path;
}
