#include "store/checkpoint.h"

#include "base/json.h"
#include "base/memory.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

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

/* What is cut or no JSON is not handed on. */
static int check_companion(const char *path, const sw_buf *b)
{
    if (!sw_ends_with(path, ".json"))
        return 0;
    cJSON *o = sw_json_parse(b->at ? b->at : "", b->n);
    cJSON_Delete(o);
    return o ? 0 : sw_fail_in("%s", path);
}

/* What a model's folder has beside the weights: settings, every form of a tokenizer, and the code that config.json may name. */
static bool is_companion(const char *name, bool with_config)
{
    static const char *const patterns[] = {"generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                           "added_tokens.json", "chat_template.jinja", "chat_template.json", "*.model", "*.tiktoken",
                                           "vocab.json", "merges.txt", "vocab.txt", "*processor_config.json", "SYSTEM_PROMPT.txt", "*.py",
                                           "sentence_bert_config.json", "config_sentence_transformers.json"};
    if (with_config && !strcmp(name, "config.json"))
        return true;
    for (size_t i = 0; i < SW_COUNT(patterns); i++)
        if (!fnmatch(patterns[i], name, FNM_PERIOD))
            return true;
    return false;
}

int sw_checkpoint_copy_companions(const char *from, const char *to, bool with_config)
{
    DIR *d = opendir(from);
    int rc = d ? 0 : sw_fail_errno("%s", from);
    for (struct dirent *e; !rc && (e = readdir(d));) {
        if (!is_companion(e->d_name, with_config))
            continue;
        char *source = sw_path_join(from, e->d_name), *target = sw_path_join(to, e->d_name);
        sw_buf b = {0};
        if (sw_is_file(source))
            rc = sw_read_file(source, &b) || check_companion(source, &b) || sw_write_file(target, b.at ? b.at : "", b.n) ? -1 : 0;
        sw_buf_free(&b);
        free(source);
        free(target);
    }
    if (d)
        closedir(d);
    return rc;
}
