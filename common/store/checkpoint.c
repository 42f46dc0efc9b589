#include "store/checkpoint.h"

#include "base/json.h"
#include "base/map.h"
#include "base/memory.h"
#include "store/scaled.h"
#include "store/weights_file.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_NAMED = 8 }; /* of a kind of problem in one message */

typedef struct item {
    const sw_entry *e;
    size_t shard;
} item;

struct sw_checkpoint_files {
    struct { sw_weights_file **at; size_t n, cap; } shards;
    struct { item *at; size_t n, cap; } items;
    sw_map index; /* of items, by name */
    sw_arena shown; /* what sw_checkpoint_show was given */
};

/* "a, b and 3 more" */
typedef struct name_list {
    sw_buf text;
    size_t n;
} name_list;

static void name_list_add(name_list *l, const char *name)
{
    if (l->n++ < MOST_NAMED)
        sw_buf_printf(&l->text, "%s%s", l->text.n ? ", " : "", name);
}

static const char *name_list_text(name_list *l)
{
    if (l->n > MOST_NAMED)
        sw_buf_printf(&l->text, " and %zu more", l->n - MOST_NAMED);
    return l->text.at;
}

/* What a file of tensors is called when it is written again: pytorch_model-00001-of-00002.bin as safetensors. */
static char *written_name(const char *name)
{
    if (!sw_is_torch_name(name))
        return sw_strdup(name);
    const char *rest = sw_starts_with(name, "pytorch_model") ? name + strlen("pytorch_") : name;
    return sw_strfmt("%.*s.safetensors", (int)(strrchr(rest, '.') - rest), rest);
}

static int open_shard(sw_checkpoint *c, const char *dir, const char *name)
{
    char *path = dir ? sw_path_join(dir, name) : sw_strdup(name);
    sw_weights_file *s = sw_weights_open(path);
    free(path);
    if (!s)
        return -1;
    SW_PUSH(c->files->shards, s);
    c->shard_names = sw_realloc(c->shard_names, (c->n_shards + 1) * sizeof *c->shard_names);
    c->shard_names[c->n_shards++] = written_name(name);
    return 0;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* model.safetensors.index.json: {"weight_map": {tensor: file}}. Every file must be there and hold what is said. */
static int open_index(sw_checkpoint *c, const char *dir, const char *index_name)
{
    char *index_path = sw_path_join(dir, index_name);
    cJSON *index = sw_json_load(index_path);
    const cJSON *map = sw_json_get(index, "weight_map");
    struct { char **at; size_t n, cap; } files = {0};
    name_list missing = {0}, misplaced = {0};
    sw_map seen = {0};
    int rc = index ? 0 : -1;
    if (!rc && (!cJSON_IsObject(map) || !map->child))
        rc = sw_fail("%s: \"weight_map\": an object of tensor names is needed", index_path);
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
        char *path = sw_path_join(dir, files.at[i]);
        if (!sw_is_file(path))
            name_list_add(&missing, files.at[i]);
        sw_map_puts(&seen, files.at[i], (int64_t)i);
        free(path);
    }
    if (!rc && missing.n)
        rc = sw_fail("%s: of the %zu files that it names %zu are missing: %s", index_path, files.n, missing.n, name_list_text(&missing));
    for (size_t i = 0; i < files.n; i++) {
        if (!rc && open_shard(c, dir, files.at[i]))
            rc = sw_fail_in("%s names a file that cannot be read", index_path);
        free(files.at[i]);
    }
    for (const cJSON *v = rc ? NULL : map->child; v; v = v->next)
        if (!sw_weights_find(c->files->shards.at[sw_map_gets(&seen, v->valuestring, 0)], v->string)) {
            char *text = sw_strfmt("%s (in %s)", v->string, v->valuestring);
            name_list_add(&misplaced, text);
            free(text);
        }
    if (misplaced.n)
        rc = sw_fail("%s: %zu tensors are not where it says: %s", index_path, misplaced.n, name_list_text(&misplaced));
    sw_buf_free(&missing.text);
    sw_buf_free(&misplaced.text);
    free(files.at);
    sw_map_free(&seen);
    cJSON_Delete(index);
    free(index_path);
    return rc;
}

/* The only file of a suffix in a folder; NULL with how many there are. A model in several GGUF files is its first. */
static char *only_file(const char *dir, const char *suffix, size_t *n)
{
    DIR *d = opendir(dir);
    char *found = NULL;
    *n = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        const char *of = sw_ends_with(e->d_name, ".gguf") ? strstr(e->d_name, "-of-") : NULL;
        bool later = of && of - e->d_name > 6 && of[-6] == '-' && memcmp(of - 5, "00001", 5);
        if (sw_ends_with(e->d_name, suffix) && e->d_name[0] != '.' && !later && (*n)++ == 0)
            found = sw_strdup(e->d_name);
    }
    if (d)
        closedir(d);
    if (*n == 1)
        return found;
    free(found);
    return NULL;
}

static int open_gguf(sw_checkpoint *c) { return (c->gguf = sw_gguf_open(c->path)) ? 0 : -1; }

/* Without the usual names: the only file of the first kind that there is. */
static int open_only_file(sw_checkpoint *c, const char *dir)
{
    static const char *const kinds[] = {".safetensors", ".gguf", ".pth"};
    for (size_t k = 0; k < SW_COUNT(kinds); k++) {
        size_t n;
        char *name = only_file(dir, kinds[k], &n);
        int rc = 0;
        if (name && k == 1) {
            char *path = sw_path_join(dir, name);
            free(c->path);
            c->path = path;
            rc = open_gguf(c);
        } else if (name) {
            rc = open_shard(c, dir, name);
        } else if (n) {
            rc = k == 1 ? sw_fail("%s: holds %zu GGUF files; name the one that is meant", dir, n)
                        : sw_fail("%s: holds several %s files and no index; model.safetensors.index.json says which tensor is where", dir, kinds[k]);
        }
        free(name);
        if (n)
            return rc;
    }
    return sw_fail("%s: holds no weights; model.safetensors, shards with model.safetensors.index.json, pytorch_model.bin (also with an "
                   "index) or a GGUF file is needed", dir);
}

static int open_folder(sw_checkpoint *c, const char *dir)
{
    static const struct { const char *name; bool index; } usual[] = {
        {"model.safetensors.index.json", true}, {"model.safetensors", false}, {"pytorch_model.bin.index.json", true}, {"pytorch_model.bin", false}};
    char *config = sw_path_join(dir, "config.json");
    int rc = 0;
    if (sw_is_file(config) && !(c->config = sw_json_load(config)))
        rc = -1;
    free(config);
    if (rc)
        return rc;
    for (size_t k = 0; k < SW_COUNT(usual); k++) {
        char *path = sw_path_join(dir, usual[k].name);
        bool there = sw_is_file(path);
        free(path);
        if (there)
            return usual[k].index ? open_index(c, dir, usual[k].name) : open_shard(c, dir, usual[k].name);
    }
    return open_only_file(c, dir);
}

static void list_item(struct sw_checkpoint_files *f, const sw_entry *e, size_t shard)
{
    item it = {e, shard};
    sw_map_puts(&f->index, e->name, (int64_t)f->items.n);
    SW_PUSH(f->items, it);
}

static int list_items(sw_checkpoint *c)
{
    struct sw_checkpoint_files *f = c->files;
    for (size_t i = 0; c->gguf && i < sw_gguf_tensor_count(c->gguf); i++)
        list_item(f, sw_gguf_tensor_at(c->gguf, i), 0);
    for (size_t s = 0; s < f->shards.n; s++) {
        for (size_t i = 0; i < sw_weights_count(f->shards.at[s]); i++) {
            const sw_entry *e = sw_weights_at(f->shards.at[s], i);
            int64_t other = sw_map_gets(&f->index, e->name, -1);
            if (other >= 0)
                return sw_fail("%s: the tensor %s is in %s and in %s", c->path, e->name, c->shard_names[f->items.at[other].shard],
                               c->shard_names[s]);
            list_item(f, e, s);
        }
    }
    return 0;
}

/* Weights in few bits show themselves as what they stand for. */
static int show_scaled(sw_checkpoint *c)
{
    struct sw_checkpoint_files *f = c->files;
    size_t n = f->items.n, kept = 0;
    if (sw_scaled_check(c->config))
        return sw_fail_in("%s", c->path);
    item *was = SW_NEW_ARRAY(item, n + 1);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        const sw_entry *e;
        rc = sw_scaled_entry(c, f->items.at[i].e, &e, &f->shown) ? sw_fail_in("%s", c->path) : 0;
        if (!rc && e)
            was[kept++] = (item){e, f->items.at[i].shard};
    }
    if (!rc) {
        sw_map_free(&f->index);
        f->index = (sw_map){0};
        f->items.n = 0;
        for (size_t i = 0; i < kept; i++)
            list_item(f, was[i].e, was[i].shard);
    }
    free(was);
    return rc;
}

sw_checkpoint *sw_checkpoint_open(const char *model)
{
    char *path = sw_model_path(model);
    if (!path)
        return NULL;
    sw_checkpoint *c = SW_NEW(sw_checkpoint);
    c->path = path;
    c->files = SW_NEW(struct sw_checkpoint_files);
    int rc;
    if (sw_is_dir(path)) {
        char *dir = sw_strdup(path); /* c->path may change */
        rc = open_folder(c, dir);
        free(dir);
    } else if (sw_ends_with(path, ".safetensors") || sw_is_torch_name(path)) {
        rc = open_shard(c, NULL, path);
    } else {
        rc = open_gguf(c);
    }
    if (rc || list_items(c) || show_scaled(c)) {
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
        sw_weights_close(c->files->shards.at[i]);
        free(c->shard_names[i]);
    }
    sw_gguf_close(c->gguf);
    free(c->files->shards.at);
    free(c->files->items.at);
    sw_map_free(&c->files->index);
    sw_arena_free(&c->files->shown);
    free(c->files);
    free(c->shard_names);
    cJSON_Delete(c->config);
    free(c->path);
    free(c);
}

size_t sw_checkpoint_count(const sw_checkpoint *c) { return c->files->items.n; }

size_t sw_checkpoint_shard_of(const sw_checkpoint *c, size_t i) { return c->files->items.at[i].shard; }

const sw_entry *sw_checkpoint_at(const sw_checkpoint *c, size_t i) { return i < c->files->items.n ? c->files->items.at[i].e : NULL; }

const sw_entry *sw_checkpoint_find(const sw_checkpoint *c, const char *name)
{
    int64_t i = sw_map_gets(&c->files->index, name, -1);
    return i < 0 ? NULL : c->files->items.at[i].e;
}

void sw_checkpoint_show(sw_checkpoint *c, const sw_entry *entries, size_t n, sw_arena *arena)
{
    struct sw_checkpoint_files *f = c->files;
    sw_map_free(&f->index);
    f->index = (sw_map){0};
    f->items.n = 0;
    for (size_t i = 0; i < n; i++)
        list_item(f, &entries[i], 0);
    f->shown = *arena;
    *arena = (sw_arena){0};
}
