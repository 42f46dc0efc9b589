#include "merge.h"

#include "adapter/tuner.h"
#include "base/fileio.h"
#include "base/json.h"
#include "base/map.h"
#include "base/memory.h"
#include "base/option.h"
#include "model/model.h"
#include "store/checkpoint.h"
#include "store/quant.h"
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* A tensor of the result. */
typedef struct item {
    char *name;
    const sw_param *param;   /* values, or NULL: `raw` as it stands in the file (a buffer that no model reads) */
    const sw_linear *linear; /* with adapters to merge, or NULL */
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

static sw_dtype result_type(const merge_request *r, sw_dtype have)
{
    if (r->dtype != SW_DTYPE_COUNT)
        return r->dtype;
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

static void add(items *list, const merge_request *r, const sw_modules *modules, const char *name, const sw_param *p, const sw_entry *raw,
                const char *shard)
{
    const sw_module *m = p ? module_of(modules, name) : NULL;
    item it = {.name = sw_strdup(name), .raw = raw, .shard = shard};
    if (m)
        p = *m->w; /* a module trained whole has values of its own */
    it.param = p;
    it.linear = m && m->linear && m->linear->adapter ? m->linear : NULL;
    const sw_tensor *t = p ? &p->v.t : &raw->t;
    /* The type that the file has decides, not that of trained values. */
    it.dtype = p ? result_type(r, raw ? raw->t.dtype : t->dtype) : raw->t.dtype;
    it.ndim = t->ndim;
    memcpy(it.shape, t->shape, sizeof it.shape);
    SW_PUSH(*list, it);
}

/* A folder's tensors in its own order, names and files; a GGUF file's under the names of the hub. */
static void collect(items *list, const merge_request *r, sw_model *m, const sw_modules *modules)
{
    const sw_checkpoint *ck = m->checkpoint;
    bool head = false;
    if (ck->gguf) {
        for (size_t i = 0; i < m->params.n; i++)
            add(list, r, modules, m->params.at[i]->name, m->params.at[i], NULL, NULL);
    } else {
        for (size_t i = 0; i < sw_checkpoint_count(ck); i++) {
            const sw_entry *e = sw_checkpoint_at(ck, i);
            add(list, r, modules, e->name, sw_param_find(&m->params, e->name), e, ck->shard_names[sw_checkpoint_shard_of(ck, i)]);
        }
    }
    for (size_t i = 0; i < list->n; i++)
        head |= !strcmp(list->at[i].name, "lm_head.weight");
    if (m->spec.tied && !head && (m->head.w != m->embed.w || m->head.adapter || m->embed.adapter)) {
        const char *last = list->at[list->n - 1].shard;
        add(list, r, modules, "lm_head.weight", m->head.w, sw_checkpoint_find(ck, m->embed.w->name), last);
    }
}

static bool unties(const sw_model *m) { return m->spec.tied && (m->head.w != m->embed.w || m->head.adapter || m->embed.adapter); }

static int merge_chain(const sw_linear *l, const sw_adapter *a, sw_device *d, float *w)
{
    if (!a)
        return 0;
    return merge_chain(l, a->next, d, w) || a->ops->merge(l, a, d, w) ? -1 : 0;
}

static int write_item(const item *it, sw_device *d, sw_checkpoint_writer *w, merge_report *report)
{
    int64_t n = 1;
    for (int i = 0; i < it->ndim; i++)
        n *= it->shape[i];
    size_t bytes = sw_dtype_bytes(it->dtype, n);
    report->tensors++;
    report->bytes += bytes;
    if (!it->param || (!it->linear && it->param->v.t.dtype == it->dtype))
        return sw_checkpoint_write(w, it->param ? it->param->v.t.data : it->raw->t.data, bytes);
    float *values = sw_malloc((size_t)n * sizeof *values);
    void *out = it->dtype == SW_F32 ? values : sw_malloc(bytes);
    int rc = sw_dequantise(values, it->param->v.t.data, it->param->v.t.dtype, n);
    if (!rc && it->linear) {
        rc = merge_chain(it->linear, it->linear->adapter, d, values);
        report->changed++;
    }
    if (!rc && it->dtype != SW_F32)
        rc = sw_quantise(out, it->dtype, values, n, NULL);
    if (!rc)
        rc = sw_checkpoint_write(w, out, bytes);
    if (out != values)
        free(out);
    free(values);
    return rc ? sw_fail_in("%s", it->name) : 0;
}

static int write_json(const char *dir, const char *name, const cJSON *o)
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

static int write_config(const merge_request *r, const sw_model *m, const char *dir)
{
    cJSON *o = m->checkpoint->config ? cJSON_Duplicate(m->checkpoint->config, true) : sw_spec_to_config(&m->spec);
    sw_dtype t = result_type(r, m->embed.w->v.t.dtype);
    cJSON_DeleteItemFromObjectCaseSensitive(o, "dtype");
    cJSON_DeleteItemFromObjectCaseSensitive(o, "torch_dtype");
    cJSON_AddStringToObject(o, "torch_dtype", type_name(t));
    if (unties(m)) {
        cJSON_DeleteItemFromObjectCaseSensitive(o, "tie_word_embeddings");
        cJSON_AddBoolToObject(o, "tie_word_embeddings", false);
    }
    int rc = write_json(dir, "config.json", o);
    cJSON_Delete(o);
    return rc;
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
        rc = write_json(dir, "generation_config.json", o);
        cJSON_Delete(o);
    }
    sw_tokenizer_free(t);
    return rc;
}

/* What the result was made of. */
static int write_history(const merge_request *r, const char *dir)
{
    cJSON *o = cJSON_CreateObject(), *list = cJSON_CreateArray();
    cJSON_AddStringToObject(o, "program", "swift-merge " SW_VERSION);
    cJSON_AddStringToObject(o, "command", sw_command_line());
    cJSON_AddItemToObject(o, "adapters", list);
    int rc = 0;
    for (size_t i = 0; i < r->n_adapters && !rc; i++) {
        sw_digest d;
        char *path = sw_path_join(r->adapters[i], "adapter_model.safetensors");
        rc = sw_digest_file(path, &d);
        cJSON *one = cJSON_CreateObject();
        cJSON_AddStringToObject(one, "path", r->adapters[i]);
        cJSON_AddStringToObject(one, "xxh128", rc ? "" : d.hex);
        cJSON_AddItemToArray(list, one);
        free(path);
    }
    rc = rc ? rc : write_json(dir, "swift-merge.json", o);
    cJSON_Delete(o);
    return rc;
}

static int write_folder(const merge_request *r, sw_model *m, const items *list, merge_report *report)
{
    sw_outdir dir;
    if (sw_outdir_begin(&dir, r->out))
        return -1;
    sw_checkpoint_writer *w = sw_checkpoint_writer_new(dir.temporary, r->max_shard);
    for (size_t i = 0; i < list->n; i++)
        sw_checkpoint_declare(w, list->at[i].name, list->at[i].dtype, list->at[i].ndim, list->at[i].shape, list->at[i].shard);
    int rc = 0;
    for (size_t i = 0; i < list->n && !rc; i++)
        rc = write_item(&list->at[i], m->device, w, report);
    if (rc)
        sw_checkpoint_writer_abort(w);
    else
        rc = sw_checkpoint_writer_finish(w);
    if (!rc)
        rc = write_config(r, m, dir.temporary) || write_history(r, dir.temporary) ||
             (m->checkpoint->gguf ? write_tokenizer(m, dir.temporary)
                                  : sw_checkpoint_copy_companions(m->checkpoint->path, dir.temporary, false));
    if (rc) {
        sw_outdir_abort(&dir);
        return -1;
    }
    return sw_outdir_commit(&dir);
}

int merge_run(const merge_request *r, merge_report *report)
{
    *report = (merge_report){0};
    sw_device *d = sw_device_open("cpu");
    sw_model *m = d ? sw_model_load(r->model, d, &(sw_load_options){.dtype = SW_DTYPE_COUNT}) : NULL;
    sw_modules modules = {0};
    sw_tuned **tuned = SW_NEW_ARRAY(sw_tuned *, r->n_adapters);
    items list = {0};
    int rc = m ? 0 : -1;
    if (m)
        modules = sw_model_modules(m);
    for (size_t i = 0; i < r->n_adapters && !rc; i++) {
        tuned[i] = sw_tuner_attach_folder(&modules, r->adapters[i]);
        rc = tuned[i] ? 0 : -1;
    }
    if (!rc) {
        collect(&list, r, m, &modules);
        rc = write_folder(r, m, &list, report);
    }
    for (size_t i = 0; i < list.n; i++)
        free(list.at[i].name);
    free(list.at);
    free(modules.at);
    sw_model_free(m);
    for (size_t i = 0; i < r->n_adapters; i++)
        sw_tuned_free(tuned[i]);
    free(tuned);
    if (d)
        d->close(d);
    return rc;
}
