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
    int rc = sw_is_file(path) ? sw_read_file(path, out) : 0;
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

sw_tokenizer *sw_tokenizer_load(const char *path)
{
    if (!sw_is_dir(path) && !sw_ends_with(path, ".json"))
        return from_gguf(path);
    char *dir = sw_is_dir(path) ? sw_strdup(path) : NULL;
    if (!dir) {
        const char *slash = strrchr(path, '/');
        dir = slash ? sw_strndup(path, (size_t)(slash - path)) : sw_strdup(".");
    }
    char *json = sw_is_dir(path) ? sw_path_join(path, "tokenizer.json") : sw_strdup(path);
    sw_buf a = {0}, b = {0}, c = {0};
    sw_tokenizer *t = NULL;
    if (!sw_read_file(json, &a) && !read_beside(dir, "tokenizer_config.json", &b) && !read_beside(dir, "chat_template.jinja", &c)) {
        t = sw_tokenizer_from_json(a.at, a.n, b.at, b.n);
        if (!t)
            sw_fail_in("%s", json);
        else if (c.n) {
            free(t->chat_template);
            t->chat_template = sw_strndup(c.at, c.n);
        }
    }
    sw_buf_free(&a);
    sw_buf_free(&b);
    sw_buf_free(&c);
    free(json);
    free(dir);
    return t;
}
