#include "store/checkpoint.h"

#include "base/json.h"
#include "base/map.h"
#include "base/memory.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static int open_shard(sw_checkpoint *c, const char *dir, const char *name)
{
    char *path = dir ? sw_path_join(dir, name) : sw_strdup(name);
    sw_safetensors *s = sw_st_open(path);
    free(path);
    if (!s)
        return -1;
    c->shards = sw_realloc(c->shards, (c->n_shards + 1) * sizeof *c->shards);
    c->shard_names = sw_realloc(c->shard_names, (c->n_shards + 1) * sizeof *c->shard_names);
    c->shards[c->n_shards] = s;
    c->shard_names[c->n_shards++] = sw_strdup(name);
    return 0;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* model.safetensors.index.json: {"weight_map": {tensor: file}}. Every file must be there and hold what is said. */
static int open_index(sw_checkpoint *c, const char *dir, const char *index_path)
{
    cJSON *index = sw_json_load(index_path);
    if (!index)
        return -1;
    const cJSON *map = sw_json_get(index, "weight_map");
    struct { char **at; size_t n, cap; } files = {0};
    sw_map seen = {0};
    int rc = cJSON_IsObject(map) && map->child ? 0 : sw_fail("%s: \"weight_map\": an object of tensor names is needed", index_path);
    for (const cJSON *v = rc ? NULL : map->child; v && !rc; v = v->next) {
        if (!cJSON_IsString(v) || !*v->valuestring || strchr(v->valuestring, '/'))
            rc = sw_fail("%s: \"weight_map\": \"%s\" has no plain file name", index_path, v->string);
        else if (sw_map_gets(&seen, v->valuestring, -1) < 0) {
            sw_map_puts(&seen, v->valuestring, 0);
            SW_PUSH(files, sw_strdup(v->valuestring));
        }
    }
    if (files.n)
        qsort(files.at, files.n, sizeof *files.at, by_name);
    for (size_t i = 0; i < files.n; i++) {
        if (!rc && open_shard(c, dir, files.at[i]))
            rc = sw_fail_in("%s names a shard that cannot be read", index_path);
        sw_map_puts(&seen, files.at[i], (int64_t)i);
        free(files.at[i]);
    }
    for (const cJSON *v = rc ? NULL : map->child; v && !rc; v = v->next)
        if (!sw_st_find(c->shards[sw_map_gets(&seen, v->valuestring, 0)], v->string))
            rc = sw_fail("%s: the tensor %s is not in %s", index_path, v->string, v->valuestring);
    free(files.at);
    sw_map_free(&seen);
    cJSON_Delete(index);
    return rc;
}

static int open_only_file(sw_checkpoint *c, const char *dir)
{
    DIR *d = opendir(dir);
    if (!d)
        return sw_fail_errno("%s", dir);
    char *found = NULL;
    size_t n = 0;
    for (struct dirent *e; (e = readdir(d));)
        if (sw_ends_with(e->d_name, ".safetensors") && n++ == 0)
            found = sw_strdup(e->d_name);
    closedir(d);
    int rc = n == 1 ? open_shard(c, dir, found)
                    : sw_fail("%s: holds %s; a model.safetensors, or model.safetensors.index.json with shards, is needed", dir,
                              n ? "several .safetensors files and no index" : "no .safetensors file");
    free(found);
    return rc;
}

static int open_folder(sw_checkpoint *c, const char *dir)
{
    char *config = sw_path_join(dir, "config.json"), *index = sw_path_join(dir, "model.safetensors.index.json");
    char *single = sw_path_join(dir, "model.safetensors");
    int rc = 0;
    if (sw_is_file(config) && !(c->config = sw_json_load(config)))
        rc = -1;
    if (!rc)
        rc = sw_is_file(index) ? open_index(c, dir, index) : sw_is_file(single) ? open_shard(c, dir, "model.safetensors") : open_only_file(c, dir);
    free(config);
    free(index);
    free(single);
    return rc;
}

static int check_duplicates(const sw_checkpoint *c)
{
    sw_map seen = {0};
    int rc = 0;
    for (size_t s = 0; s < c->n_shards && !rc; s++)
        for (size_t i = 0; i < sw_st_count(c->shards[s]) && !rc; i++) {
            const char *name = sw_st_at(c->shards[s], i)->name;
            int64_t other = sw_map_gets(&seen, name, -1);
            if (other >= 0)
                rc = sw_fail("%s: the tensor %s is in %s and in %s", c->path, name, c->shard_names[other], c->shard_names[s]);
            sw_map_puts(&seen, name, (int64_t)s);
        }
    sw_map_free(&seen);
    return rc;
}

sw_checkpoint *sw_checkpoint_open(const char *model)
{
    char *path = sw_model_path(model);
    if (!path)
        return NULL;
    sw_checkpoint *c = SW_NEW(sw_checkpoint);
    c->path = path;
    int rc;
    if (sw_is_dir(path))
        rc = open_folder(c, path);
    else if (sw_ends_with(path, ".safetensors"))
        rc = open_shard(c, NULL, path);
    else
        rc = (c->gguf = sw_gguf_open(path)) ? 0 : -1;
    if (rc || (c->n_shards > 1 && check_duplicates(c))) {
        sw_checkpoint_close(c);
        return NULL;
    }
    return c;
}

void sw_checkpoint_close(sw_checkpoint *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_shards; i++) {
        sw_st_close(c->shards[i]);
        free(c->shard_names[i]);
    }
    if (c->gguf)
        sw_gguf_close(c->gguf);
    free(c->shards);
    free(c->shard_names);
    cJSON_Delete(c->config);
    free(c->path);
    free(c);
}

size_t sw_checkpoint_count(const sw_checkpoint *c)
{
    size_t n = c->gguf ? sw_gguf_tensor_count(c->gguf) : 0;
    for (size_t i = 0; i < c->n_shards; i++)
        n += sw_st_count(c->shards[i]);
    return n;
}

size_t sw_checkpoint_shard_of(const sw_checkpoint *c, size_t i)
{
    size_t s = 0;
    while (s + 1 < c->n_shards && i >= sw_st_count(c->shards[s]))
        i -= sw_st_count(c->shards[s++]);
    return s;
}

const sw_entry *sw_checkpoint_at(const sw_checkpoint *c, size_t i)
{
    if (c->gguf)
        return sw_gguf_tensor_at(c->gguf, i);
    for (size_t s = 0; s < c->n_shards; s++) {
        if (i < sw_st_count(c->shards[s]))
            return sw_st_at(c->shards[s], i);
        i -= sw_st_count(c->shards[s]);
    }
    return NULL;
}

const sw_entry *sw_checkpoint_find(const sw_checkpoint *c, const char *name)
{
    if (c->gguf)
        return sw_gguf_tensor(c->gguf, name);
    const sw_entry *e = NULL;
    for (size_t s = 0; s < c->n_shards && !e; s++)
        e = sw_st_find(c->shards[s], name);
    return e;
}

/* ---- writing */

typedef struct declared {
    char *name, *shard;
    sw_dtype dtype;
    int ndim;
    int64_t shape[SW_MAX_DIMS];
    size_t bytes;
} declared;

struct sw_checkpoint_writer {
    char *dir;
    size_t limit, total, next, n_shards;
    bool open;
    sw_st_writer *current;
    struct { declared *at; size_t n, cap; } tensors;
};

sw_checkpoint_writer *sw_checkpoint_writer_new(const char *dir, size_t max_shard_bytes)
{
    sw_checkpoint_writer *w = SW_NEW(sw_checkpoint_writer);
    w->dir = sw_strdup(dir);
    w->limit = max_shard_bytes;
    return w;
}

void sw_checkpoint_declare(sw_checkpoint_writer *w, const char *name, sw_dtype dtype, int ndim, const int64_t *shape, const char *shard)
{
    sw_tensor t = sw_tensor_of(NULL, dtype, ndim, shape);
    declared d = {.name = sw_strdup(name), .shard = shard ? sw_strdup(shard) : NULL, .dtype = dtype, .ndim = ndim, .bytes = sw_tensor_bytes(&t)};
    memcpy(d.shape, shape, (size_t)ndim * sizeof *shape);
    w->total += d.bytes;
    SW_PUSH(w->tensors, d);
}

/* Tensors without a file name fill shards in the order of declaration; names need their count first. */
static void assign_shards(sw_checkpoint_writer *w)
{
    size_t *number = SW_NEW_ARRAY(size_t, w->tensors.n), shards = 1, used = 0;
    for (size_t i = 0; i < w->tensors.n; i++) {
        size_t bytes = w->tensors.at[i].bytes;
        if (w->limit && used && used + bytes > w->limit) {
            shards++;
            used = 0;
        }
        used += bytes;
        number[i] = shards;
    }
    for (size_t i = 0; i < w->tensors.n; i++)
        if (!w->tensors.at[i].shard)
            w->tensors.at[i].shard = shards == 1 ? sw_strdup("model.safetensors")
                                                 : sw_strfmt("model-%05zu-of-%05zu.safetensors", number[i], shards);
    free(number);
    w->open = true;
}

static int next_shard(sw_checkpoint_writer *w)
{
    if (w->current) {
        sw_st_writer *done = w->current;
        w->current = NULL;
        if (sw_st_writer_commit(done))
            return -1;
    }
    if (w->next == w->tensors.n)
        return 0;
    const char *shard = w->tensors.at[w->next].shard;
    w->current = sw_st_writer_new();
    w->n_shards++;
    sw_st_set_metadata(w->current, "format", "pt");
    for (size_t i = w->next; i < w->tensors.n && !strcmp(w->tensors.at[i].shard, shard); i++)
        sw_st_declare(w->current, w->tensors.at[i].name, w->tensors.at[i].dtype, w->tensors.at[i].ndim, w->tensors.at[i].shape);
    char *path = sw_path_join(w->dir, shard);
    int rc = sw_st_writer_open(w->current, path);
    free(path);
    return rc;
}

int sw_checkpoint_write(sw_checkpoint_writer *w, const void *bytes, size_t n)
{
    if (!w->open)
        assign_shards(w);
    if (w->next == w->tensors.n || n != w->tensors.at[w->next].bytes)
        return sw_fail("%s: more or other bytes than were declared", w->dir);
    const char *shard = w->tensors.at[w->next].shard;
    if ((w->next == 0 || strcmp(shard, w->tensors.at[w->next - 1].shard)) && next_shard(w))
        return -1;
    w->next++;
    return sw_st_write(w->current, bytes, n);
}

static int write_index(const sw_checkpoint_writer *w)
{
    cJSON *o = cJSON_CreateObject(), *meta = cJSON_AddObjectToObject(o, "metadata"), *map = cJSON_AddObjectToObject(o, "weight_map");
    cJSON_AddNumberToObject(meta, "total_size", (double)w->total);
    for (size_t i = 0; i < w->tensors.n; i++)
        cJSON_AddStringToObject(map, w->tensors.at[i].name, w->tensors.at[i].shard);
    sw_buf b = {0};
    sw_json_print_pretty(&b, o);
    char *path = sw_path_join(w->dir, "model.safetensors.index.json");
    int rc = sw_write_file(path, b.at, b.n);
    free(path);
    sw_buf_free(&b);
    cJSON_Delete(o);
    return rc;
}

int sw_checkpoint_writer_finish(sw_checkpoint_writer *w)
{
    int rc = w->next == w->tensors.n ? next_shard(w) : sw_fail("%s: %zu tensors were declared, %zu written", w->dir, w->tensors.n, w->next);
    if (!rc && w->n_shards > 1)
        rc = write_index(w);
    sw_checkpoint_writer_abort(w);
    return rc;
}

void sw_checkpoint_writer_abort(sw_checkpoint_writer *w)
{
    if (!w)
        return;
    if (w->current)
        sw_st_writer_abort(w->current);
    for (size_t i = 0; i < w->tensors.n; i++) {
        free(w->tensors.at[i].name);
        free(w->tensors.at[i].shard);
    }
    free(w->tensors.at);
    free(w->dir);
    free(w);
}

int sw_checkpoint_copy_companions(const char *from, const char *to, bool with_config)
{
    static const char *const names[] = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
                                        "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "preprocessor_config.json"};
    for (size_t i = with_config ? 0 : 1; i < SW_COUNT(names); i++) {
        char *source = sw_path_join(from, names[i]), *target = sw_path_join(to, names[i]);
        sw_buf b = {0};
        int rc = sw_is_file(source) && (sw_read_file(source, &b) || sw_write_file(target, b.at ? b.at : "", b.n)) ? -1 : 0;
        sw_buf_free(&b);
        free(source);
        free(target);
        if (rc)
            return rc;
    }
    return 0;
}
