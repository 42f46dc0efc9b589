#include "store/checkpoint.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static char *cache_root(void)
{
    const char *v = getenv("HF_HUB_CACHE");
    if (v && *v)
        return sw_strdup(v);
    v = getenv("HF_HOME");
    if (v && *v)
        return sw_path_join(v, "hub");
    v = getenv("HOME");
    return sw_strfmt("%s/.cache/huggingface/hub", v ? v : "");
}

/* org/name with the characters a hub allows, so that an id never leaves the cache's folder. */
static bool good_part(const char *s, size_t n)
{
    if (!n || n > 96 || s[0] == '.')
        return false;
    for (size_t i = 0; i < n; i++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.", s[i]))
            return false;
    return true;
}

char *sw_hub_resolve(const char *id)
{
    const char *slash = strchr(id, '/'), *at = strchr(id, '@');
    size_t n = at ? (size_t)(at - id) : strlen(id);
    if (!slash || slash > id + n || !good_part(id, (size_t)(slash - id)) || !good_part(slash + 1, (size_t)(id + n - slash - 1)) ||
        (at && !good_part(at + 1, strlen(at + 1))))
        return sw_fail_null("%s: is no file or folder, and no hub id of the form org/name", id);
    char *root = cache_root();
    char *repo = sw_strfmt("%s/models--%.*s--%.*s", root, (int)(slash - id), id, (int)(id + n - slash - 1), slash + 1);
    const char *revision = at ? at + 1 : "main";
    char *ref = sw_strfmt("%s/refs/%s", repo, revision), *snapshot = NULL;
    sw_buf b = {0};
    if (sw_is_file(ref) && !sw_read_file(ref, &b)) {
        while (b.n && (b.at[b.n - 1] == '\n' || b.at[b.n - 1] == ' '))
            b.at[--b.n] = 0;
        if (good_part(b.at ? b.at : "", b.n))
            snapshot = sw_strfmt("%s/snapshots/%s", repo, b.at);
    } else {
        snapshot = sw_strfmt("%s/snapshots/%s", repo, revision);
    }
    if (!snapshot || !sw_is_dir(snapshot)) {
        sw_fail("%s: is no file or folder, and the hub cache has no such model (looked for revision %s in %s)", id, revision, repo);
        free(snapshot);
        snapshot = NULL;
    }
    sw_buf_free(&b);
    free(ref);
    free(repo);
    free(root);
    return snapshot;
}

char *sw_model_path(const char *model)
{
    return sw_is_dir(model) || sw_is_file(model) ? sw_strdup(model) : sw_hub_resolve(model);
}
