#include "model/model_save.h"

#include "base/fileio.h"
#include "base/json.h"
#include "base/log.h"
#include "model/gguf_map.h"
#include "store/checkpoint.h"
#include "store/made.h"
#include "store/quant.h"
#include "store/scaled.h"
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* A tensor of the result. */
typedef struct item {
    const char *name;
    const sw_param *param;   /* values, or NULL: `raw` as it stands in the file (a buffer that no model reads) */
    const sw_linear *linear; /* with adapters to merge, or NULL */
    const sw_stored *stored; /* how it lies in the parameter, or NULL: it is the parameter */
    const sw_entry *raw;
    const char *shard;       /* file it came from, or NULL */
    sw_dtype dtype;
    int ndim;
    int64_t shape[SW_MAX_DIMS];
} item;

typedef struct items {
    item *at;
    size_t n, cap;
} items;

static sw_dtype result_type(const sw_save_options *o, sw_dtype have)
{
    if (o->dtype != SW_DTYPE_COUNT)
        return o->dtype;
    return sw_is_float(have) ? have : SW_BF16;
}

static const sw_module *module_of(const sw_modules *m, const char *name)
{
    size_t n = strlen(name) - strlen(".weight");
    for (size_t i = 0; sw_ends_with(name, ".weight") && i < m->n; i++)
        if (strlen(m->at[i].path) == n && !memcmp(m->at[i].path, name, n))
            return &m->at[i];
    return NULL;
}

static void add(items *list, const sw_save_options *o, const sw_modules *modules, const char *name, const sw_param *p,
                const sw_stored *stored, const sw_entry *raw, const char *shard)
{
    const sw_module *m = p ? module_of(modules, stored ? p->name : name) : NULL; /* a head that was tied has a name of its own */
    item it = {.name = name, .stored = stored, .raw = raw, .shard = shard};
    if (m)
        p = *m->w; /* a module trained whole has values of its own */
    it.param = p;
    it.linear = m && m->linear && m->linear->adapter ? m->linear : NULL;
    const sw_tensor *t = raw ? &raw->t : &p->v.t;
    /* The type that the file has decides, not that of values in memory. */
    it.dtype = p || sw_is_quantised(t->dtype) ? result_type(o, t->dtype) : t->dtype;
    it.ndim = t->ndim;
    memcpy(it.shape, t->shape, sizeof it.shape);
    SW_PUSH(*list, it);
}

static bool unties(const sw_model *m) { return m->spec.tied && (m->head.w != m->embed.w || m->head.adapter || m->embed.adapter); }

static const sw_entry *embedding_entry(const sw_model *m)
{
    for (size_t i = 0; i < m->stored.n; i++)
        if (!strcmp(m->stored.at[i].p->name, m->embed.w->name))
            return sw_checkpoint_find(m->checkpoint, m->stored.at[i].name);
    return NULL;
}

/* The name of a tensor with what the class of the new head has in front of it: a bare encoder's file leaves that out. */
static const char *whole_name(const char *name, const sw_stored *stored)
{
    return stored && stored->count == 1 && sw_ends_with(stored->p->name, name) ? stored->p->name : name;
}

/* What a new head has beside the base's tensors, in the base's type. */
static void add_new(items *list, const sw_save_options *o, const sw_model *m, const sw_modules *modules)
{
    const sw_entry *embed = embedding_entry(m);
    const char *last = list->n ? list->at[list->n - 1].shard : NULL;
    for (size_t i = 0; i < m->params.n; i++) {
        if (!m->params.at[i]->drawn)
            continue;
        add(list, o, modules, m->params.at[i]->name, m->params.at[i], NULL, NULL, last);
        list->at[list->n - 1].dtype = result_type(o, embed ? embed->t.dtype : SW_F32);
    }
}

/* A folder's tensors in its own order, names and files; a GGUF file's as the checkpoint shows them, under the hub's names. With
 * a new head, what no part of the model reads (the head of words) is left out. */
static void collect(items *list, const sw_save_options *o, const sw_model *m, const sw_modules *modules, const char *head_name)
{
    const sw_checkpoint *ck = m->checkpoint;
    bool head = false;
    for (size_t i = 0; i < sw_checkpoint_count(ck); i++) {
        const sw_entry *e = sw_checkpoint_at(ck, i);
        const sw_stored *stored = sw_model_stored(m, e->name);
        const char *name = sw_model_has_new_head(m) ? whole_name(e->name, stored) : e->name;
        if (sw_model_has_new_head(m) && !stored)
            continue;
        add(list, o, modules, name, stored ? stored->p : NULL, stored, e, ck->n_shards ? ck->shard_names[sw_checkpoint_shard_of(ck, i)] : NULL);
    }
    for (size_t i = 0; i < list->n; i++)
        head |= !strcmp(list->at[i].name, head_name);
    if (unties(m) && !head) {
        const char *last = list->at[list->n - 1].shard;
        add(list, o, modules, head_name, m->head.w, NULL, embedding_entry(m), last);
    }
    add_new(list, o, m, modules);
}

static int merge_chain(const sw_linear *l, const sw_adapter *a, sw_device *d, float *w)
{
    if (!a)
        return 0;
    return merge_chain(l, a->next, d, w) || a->ops->merge(l, a, d, w) ? -1 : 0;
}

/* The bytes of a tensor on the host: itself on a host device, else a copy to be freed through *copy. */
static const void *on_host(sw_device *d, const sw_tensor *t, void **copy)
{
    *copy = NULL;
    if (d->host)
        return t->data;
    *copy = sw_malloc(sw_tensor_bytes(t));
    return d->get(d, *copy, t->data, sw_tensor_bytes(t)) ? NULL : *copy;
}

/* [rows, columns] to [columns, rows], in place. */
static void turn(float *x, int64_t rows, int64_t columns)
{
    float *t = sw_malloc((size_t)(rows * columns) * sizeof *t);
    memcpy(t, x, (size_t)(rows * columns) * sizeof *t);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < columns; k++)
            x[k * rows + i] = t[i * columns + k];
    free(t);
}

static int write_param(const item *it, sw_device *d, sw_checkpoint_writer *w, size_t bytes)
{
    const sw_tensor *whole = it->param->master.data ? &it->param->master : &it->param->v.t;
    sw_tensor part = it->stored ? sw_stored_part(it->stored, whole) : *whole;
    const sw_tensor *from = &part;
    bool turned = it->stored && it->stored->transposed;
    const sw_coded *coded = from->scales ? it->raw->coded : NULL; /* as the file has it */
    void *copy = NULL;
    const void *have = coded ? NULL : on_host(d, from, &copy);
    int rc = have || coded ? 0 : -1;
    if (!rc && !it->linear && !turned && from->dtype == it->dtype) {
        rc = sw_checkpoint_write(w, have, bytes);
    } else if (!rc) {
        int64_t n = sw_numel(from);
        float *values = sw_malloc((size_t)n * sizeof *values);
        void *out = it->dtype == SW_F32 ? values : sw_malloc(bytes);
        rc = coded ? sw_coded_rows(coded, 0, coded->matrices * coded->rows, values) : sw_dequantise(values, have, from->dtype, n);
        if (!rc && it->linear)
            rc = merge_chain(it->linear, it->linear->adapter, d, values);
        if (!rc && turned)
            turn(values, from->shape[0], from->shape[1]);
        if (!rc && it->dtype != SW_F32)
            rc = sw_quantise(out, it->dtype, values, n, NULL);
        if (!rc)
            rc = sw_checkpoint_write(w, out, bytes);
        if (out != values)
            free(out);
        free(values);
    }
    free(copy);
    return rc ? sw_fail_in("%s", it->name) : 0;
}

static int write_item(const item *it, sw_device *d, sw_checkpoint_writer *w, sw_save_report *report)
{
    int64_t n = 1;
    for (int i = 0; i < it->ndim; i++)
        n *= it->shape[i];
    size_t bytes = sw_dtype_bytes(it->dtype, n);
    report->tensors++;
    report->bytes += bytes;
    report->changed += it->linear != NULL;
    if (it->param)
        return write_param(it, d, w, bytes);
    const sw_tensor *t = &it->raw->t;
    if (!it->raw->made && it->dtype == t->dtype)
        return sw_checkpoint_write(w, t->data, bytes);
    void *made = sw_malloc(sw_tensor_bytes(t)), *out = it->dtype == t->dtype ? made : sw_malloc(bytes);
    int rc = sw_entry_rows(it->raw, 0, sw_entry_row_count(it->raw), made);
    if (!rc && out != made) { /* blocks, which no folder holds */
        float *values = sw_malloc((size_t)n * sizeof *values);
        rc = sw_dequantise(values, made, t->dtype, n) || sw_quantise(out, it->dtype, values, n, NULL) ? -1 : 0;
        free(values);
    }
    rc = rc || sw_checkpoint_write(w, out, bytes) ? -1 : 0;
    if (out != made)
        free(out);
    free(made);
    return rc;
}

int sw_save_json(const char *dir, const char *name, const cJSON *o)
{
    sw_buf b = {0};
    sw_json_print_pretty(&b, o);
    char *path = sw_path_join(dir, name);
    int rc = sw_write_file(path, b.at, b.n);
    free(path);
    sw_buf_free(&b);
    return rc;
}

static const char *type_name(sw_dtype t) { return t == SW_BF16 ? "bfloat16" : t == SW_F16 ? "float16" : "float32"; }

static int write_config(const sw_save_options *options, const sw_model *m, const char *dir)
{
    const sw_entry *embed = embedding_entry(m);
    cJSON *o = cJSON_Duplicate(m->checkpoint->config, true);
    sw_dtype t = result_type(options, embed ? embed->t.dtype : m->embed.w->v.t.dtype);
    cJSON_DeleteItemFromObjectCaseSensitive(o, "dtype");
    cJSON_DeleteItemFromObjectCaseSensitive(o, "torch_dtype");
    cJSON_DeleteItemFromObjectCaseSensitive(o, "quantization_config"); /* what is written is plain */
    cJSON_DeleteItemFromObjectCaseSensitive(o, "expert_dtype");
    cJSON_AddStringToObject(o, "torch_dtype", type_name(t));
    if (unties(m)) {
        cJSON_DeleteItemFromObjectCaseSensitive(o, "tie_word_embeddings");
        cJSON_AddBoolToObject(o, "tie_word_embeddings", false);
    }
    int rc = sw_save_json(dir, "config.json", o);
    cJSON_Delete(o);
    return rc;
}

int sw_model_save_head(const sw_model *m, const char *dir)
{
    return sw_model_has_new_head(m) ? sw_save_json(dir, "config.json", m->checkpoint->config) : 0;
}

/* A GGUF base brings its tokenizer and chat template as metadata: they become the files of a folder. */
static int write_tokenizer(const sw_model *m, const char *dir)
{
    sw_tokenizer *t = sw_tokenizer_from_gguf(m->checkpoint->gguf);
    if (!t)
        return -1;
    sw_buf json = {0}, config = {0};
    char *a = sw_path_join(dir, "tokenizer.json"), *b = sw_path_join(dir, "tokenizer_config.json");
    int rc = sw_tokenizer_to_json(t, &json, &config) || sw_write_file(a, json.at, json.n) || sw_write_file(b, config.at, config.n) ? -1 : 0;
    free(a);
    free(b);
    sw_buf_free(&json);
    sw_buf_free(&config);
    if (!rc) {
        cJSON *o = cJSON_CreateObject();
        if (m->spec.bos >= 0)
            cJSON_AddNumberToObject(o, "bos_token_id", m->spec.bos);
        if (m->spec.eos[0] >= 0)
            cJSON_AddNumberToObject(o, "eos_token_id", m->spec.eos[0]);
        rc = sw_save_json(dir, "generation_config.json", o);
        cJSON_Delete(o);
    }
    sw_tokenizer_free(t);
    return rc;
}

static bool beside(const sw_model *m, const char *name)
{
    char *path = sw_path_join(m->checkpoint->path, name);
    bool there = sw_is_file(path);
    free(path);
    return there;
}

static void add_module(cJSON *list, const char *path, const char *type)
{
    cJSON *o = cJSON_CreateObject();
    char *name = sw_strfmt("%d", cJSON_GetArraySize(list)), *full = sw_strfmt("sentence_transformers.models.%s", type);
    cJSON_AddNumberToObject(o, "idx", cJSON_GetArraySize(list));
    cJSON_AddStringToObject(o, "name", name);
    cJSON_AddStringToObject(o, "path", path);
    cJSON_AddStringToObject(o, "type", full);
    cJSON_AddItemToArray(list, o);
    free(name);
    free(full);
}

/* How texts are pooled, as sentence-transformers reads it, where the base says it in its files or its metadata. */
static int write_modules(const sw_model *m, const char *dir)
{
    sw_spec s = m->spec;
    bool said = m->checkpoint->gguf ? sw_gguf_pools(m->checkpoint->gguf) : beside(m, SW_POOLING_FILE) || beside(m, SW_MODULES_FILE);
    if (!said || (s.task != SW_TASK_EMBED && s.task != SW_TASK_LM))
        return 0;
    if (s.task == SW_TASK_LM && sw_model_check_modules(m->checkpoint->path, &s)) {
        sw_warn("%s; the folder that is written pools nothing", sw_error());
        return 0;
    }
    const struct {
        const char *name;
        bool yes;
    } modes[] = {{"cls_token", s.pooling == SW_POOL_FIRST}, {"mean_tokens", s.pooling == SW_POOL_MEAN}, {"max_tokens", false},
                 {"mean_sqrt_len_tokens", false}, {"weightedmean_tokens", false}, {"lasttoken", s.pooling == SW_POOL_LAST}};
    cJSON *list = cJSON_CreateArray(), *pooling = cJSON_CreateObject();
    add_module(list, "", "Transformer");
    add_module(list, "1_Pooling", "Pooling");
    if (s.unit_vectors)
        add_module(list, "2_Normalize", "Normalize");
    cJSON_AddNumberToObject(pooling, "word_embedding_dimension", (double)s.hidden);
    for (size_t i = 0; i < SW_COUNT(modes); i++) {
        char *key = sw_strfmt("pooling_mode_%s", modes[i].name);
        cJSON_AddBoolToObject(pooling, key, modes[i].yes);
        free(key);
    }
    char *folder = sw_path_join(dir, "1_Pooling");
    int rc = sw_mkdirs(folder) || sw_save_json(dir, SW_POOLING_FILE, pooling) || sw_save_json(dir, SW_MODULES_FILE, list) ? -1 : 0;
    free(folder);
    cJSON_Delete(list);
    cJSON_Delete(pooling);
    return rc;
}

int sw_model_save(const sw_model *m, const sw_modules *modules, const char *dir, const sw_save_options *o, sw_save_report *report)
{
    *report = (sw_save_report){0};
    items list = {0};
    char *head_name = sw_strfmt("%s.weight", m->head.name);
    collect(&list, o, m, modules, head_name);
    sw_checkpoint_writer *w = sw_checkpoint_writer_new(dir, o->max_shard);
    for (size_t i = 0; i < list.n; i++)
        sw_checkpoint_declare(w, list.at[i].name, list.at[i].dtype, list.at[i].ndim, list.at[i].shape, list.at[i].shard);
    int rc = 0;
    for (size_t i = 0; i < list.n && !rc; i++)
        rc = o->stop && o->stop() ? sw_fail("interrupted; nothing was written") : write_item(&list.at[i], m->device, w, report);
    free(list.at);
    free(head_name);
    if (rc)
        sw_checkpoint_writer_abort(w);
    else
        rc = sw_checkpoint_writer_finish(w);
    if (rc || write_config(o, m, dir) || write_modules(m, dir))
        return -1;
    return m->checkpoint->gguf ? write_tokenizer(m, dir) : sw_checkpoint_copy_companions(m->checkpoint->path, dir, false);
}
