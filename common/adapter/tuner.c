#include "adapter/tuner.h"

#include "base/fileio.h"
#include "base/json.h"
#include "base/strbuf.h"
#include "store/quant.h"
#include "store/safetensors.h"
#include "store/weights_file.h"

#include <stdlib.h>
#include <string.h>

static const sw_tuner *const tuners[] = {&sw_tuner_lora};

const sw_tuner *sw_tuner_at(size_t i) { return i < SW_COUNT(tuners) ? tuners[i] : NULL; }

/* ---- building */

static void note(sw_tuned *t, sw_param *p, const char *peft_name)
{
    p->trainable = p->adapter = true;
    SW_PUSH(t->trained, p);
    SW_PUSH(t->names, sw_strdup(peft_name));
}

sw_param *sw_tuned_param(sw_tuned *t, const char *peft_name, int64_t rows, int64_t columns)
{
    sw_param *p = sw_param_new(&t->params, t->device, peft_name, SW_F32, 2, (int64_t[]){rows, columns});
    if (p) {
        p->decay = true;
        note(t, p, peft_name);
    }
    return p;
}

/* A module that trains whole. Where its values serve another module too (a head tied to the embedding) it gets its own. */
static int save_module(sw_tuned *t, sw_modules *modules, sw_module *m)
{
    sw_param *p = *m->w;
    if (p->adapter)
        return sw_fail("\"modules_to_save\": %s is trained whole by another adapter too, and one can have it", m->path);
    char *name = sw_strfmt("base_model.model.%s.weight", m->path);
    bool shared = false;
    for (size_t i = 0; i < modules->n; i++)
        shared |= &modules->at[i] != m && *modules->at[i].w == p;
    if (shared) {
        sw_param *own = sw_param_new(&t->params, t->device, name, sw_is_float(p->v.t.dtype) ? p->v.t.dtype : SW_F32, p->v.t.ndim, p->v.t.shape);
        if (!own || t->device->k->copy(t->device->stream, &own->v.t, &p->v.t)) {
            free(name);
            return -1;
        }
        *m->w = p = own;
    }
    p->decay = true;
    note(t, p, name);
    free(name);
    if (m->bias && *m->bias) {
        name = sw_strfmt("base_model.model.%s.bias", m->path);
        (*m->bias)->decay = true;
        note(t, *m->bias, name);
        free(name);
    }
    return 0;
}

static int save_modules(sw_tuned *t, sw_modules *modules)
{
    const cJSON *list = sw_json_get(t->config, "modules_to_save");
    if (list && !cJSON_IsArray(list))
        return sw_fail("\"modules_to_save\": a list of names is needed, not %s", sw_json_kind(list));
    for (const cJSON *s = list ? list->child : NULL; s; s = s->next) {
        bool hit = false;
        if (!cJSON_IsString(s) || !*s->valuestring)
            return sw_fail("\"modules_to_save\": a list of names is needed");
        for (size_t i = 0; i < modules->n && !hit; i++)
            hit = sw_path_in(modules->at[i].path, s->valuestring);
        if (!hit)
            return sw_fail("\"modules_to_save\": no module's name ends in '%s'", s->valuestring);
    }
    for (size_t i = 0; i < modules->n; i++)
        if (sw_tuner_saves(t->config, &modules->at[i]) && save_module(t, modules, &modules->at[i]))
            return -1;
    return 0;
}

sw_tuned *sw_tuner_attach(sw_modules *modules, const cJSON *config, uint64_t seed)
{
    const char *type;
    if (sw_json_str(config, "peft_type", "", &type))
        return NULL;
    const sw_tuner *tuner = NULL;
    for (size_t i = 0; i < SW_COUNT(tuners); i++)
        if (!strcmp(tuners[i]->peft_type, type))
            tuner = tuners[i];
    if (!tuner)
        return sw_fail_null("\"peft_type\": '%s' is not known; known is LORA", type);
    sw_tuned *t = SW_NEW(sw_tuned);
    t->tuner = tuner;
    t->device = modules->device;
    t->config = cJSON_Duplicate(config, true);
    if (tuner->attach(t, modules, seed) || save_modules(t, modules)) {
        for (size_t i = 0; i < modules->n; i++)
            if (modules->at[i].linear)
                sw_linear_detach_all(modules->at[i].linear);
        sw_tuned_free(t);
        return NULL;
    }
    return t;
}

char *sw_tuned_values(const char *dir)
{
    char *values = sw_path_join(dir, "adapter_model.safetensors"), *old = sw_path_join(dir, "adapter_model.bin");
    bool only_old = !sw_is_file(values) && sw_is_file(old);
    free(only_old ? values : old);
    return only_old ? old : values;
}

sw_tuned *sw_tuner_attach_folder(sw_modules *modules, const char *dir)
{
    char *config_path = sw_path_join(dir, "adapter_config.json"), *values = sw_tuned_values(dir);
    cJSON *config = sw_json_load(config_path);
    sw_tuned *t = config ? sw_tuner_attach(modules, config, 0) : NULL;
    if (config && !t)
        sw_fail_in("%s", config_path);
    if (t && sw_tuned_load(t, values)) {
        for (size_t i = 0; i < modules->n; i++)
            if (modules->at[i].linear)
                sw_linear_detach_all(modules->at[i].linear);
        sw_tuned_free(t);
        t = NULL;
    }
    cJSON_Delete(config);
    free(config_path);
    free(values);
    return t;
}

sw_params sw_tuned_trainable(const sw_tuned *t)
{
    sw_params list = {0};
    for (size_t i = 0, end; i < t->trained.n; i = end) {
        for (end = i; end < t->trained.n && sw_same_layer(t->trained.at[i], t->trained.at[end]); end++)
            if (t->trained.at[end]->reads_x)
                SW_PUSH(list, t->trained.at[end]);
        for (size_t k = i; k < end; k++)
            if (!t->trained.at[k]->reads_x)
                SW_PUSH(list, t->trained.at[k]);
    }
    return list;
}

void sw_tuned_free(sw_tuned *t)
{
    if (!t)
        return;
    sw_params_free(&t->params, t->device);
    for (size_t i = 0; i < t->names.n; i++)
        free(t->names.at[i]);
    free(t->names.at);
    free(t->trained.at);
    cJSON_Delete(t->config);
    free(t);
}

/* ---- files */

static void transpose(float *to, const float *from, int64_t rows, int64_t columns) /* to [columns, rows] */
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            to[c * rows + r] = from[r * columns + c];
}

static int load_value(sw_tuned *t, sw_param *p, const sw_entry *e)
{
    int64_t n = sw_numel(&p->v.t), shape[SW_MAX_DIMS] = {0};
    memcpy(shape, p->v.t.shape, sizeof shape);
    if (p->transposed) {
        shape[0] = p->v.t.shape[1];
        shape[1] = p->v.t.shape[0];
    }
    if (e->t.ndim != p->v.t.ndim || memcmp(e->t.shape, shape, (size_t)e->t.ndim * sizeof *shape))
        return sw_fail("%s: has %lld values in %d dimensions, the model and adapter_config.json ask for another shape", e->name,
                       (long long)sw_numel(&e->t), e->t.ndim);
    if (sw_is_integer(e->t.dtype))
        return sw_fail("%s: is of type %s, weights are floats", e->name, sw_dtypes[e->t.dtype].name);
    if (!p->owned || sw_is_float8(p->v.t.dtype)) { /* a base module as its file has it: it gets values of its own */
        if (p->owned)
            t->device->free(t->device, p->owned);
        p->owned = t->device->alloc(t->device, (size_t)n * sizeof(float));
        if (!p->owned)
            return -1;
        p->v.t = sw_tensor_of(p->owned, SW_F32, p->v.t.ndim, p->v.t.shape);
        sw_layout_changed();
    }
    float *host = sw_malloc((size_t)n * sizeof *host), *turned = NULL;
    int rc = sw_dequantise(host, e->t.data, e->t.dtype, n);
    if (!rc && p->transposed) {
        turned = sw_malloc((size_t)n * sizeof *turned);
        transpose(turned, host, shape[0], shape[1]);
    }
    void *bytes = turned ? turned : host;
    if (!rc && p->v.t.dtype != SW_F32) {
        void *low = sw_malloc(sw_tensor_bytes(&p->v.t));
        rc = sw_quantise(low, p->v.t.dtype, bytes, n, NULL) || t->device->put(t->device, p->v.t.data, low, sw_tensor_bytes(&p->v.t));
        free(low);
    } else if (!rc) {
        rc = t->device->put(t->device, p->v.t.data, bytes, (size_t)n * sizeof(float));
    }
    free(host);
    free(turned);
    return rc ? -1 : 0;
}

int sw_tuned_load(sw_tuned *t, const char *path)
{
    sw_weights_file *s = sw_weights_open(path);
    if (!s)
        return -1;
    int rc = 0;
    for (size_t i = 0; i < t->trained.n && !rc; i++) {
        const sw_entry *e = sw_weights_find(s, t->names.at[i]);
        rc = e ? load_value(t, t->trained.at[i], e) : sw_fail("the tensor %s is missing", t->names.at[i]);
    }
    /* PEFT also writes the base values of an embedding that carries LoRA; they are the base's own. */
    for (size_t i = 0; i < sw_weights_count(s) && !rc; i++) {
        const char *name = sw_weights_at(s, i)->name;
        bool known = strstr(name, ".base_layer.") != NULL;
        for (size_t k = 0; k < t->names.n && !known; k++)
            known = !strcmp(t->names.at[k], name);
        if (!known)
            rc = sw_fail("the tensor %s is unexpected: adapter_config.json asks for none of that name", name);
    }
    sw_weights_close(s);
    return rc ? sw_fail_in("%s", path) : 0;
}

int sw_tuned_save(const sw_tuned *t, const char *dir, sw_dtype dtype)
{
    char *config = sw_path_join(dir, "adapter_config.json"), *values = sw_path_join(dir, "adapter_model.safetensors");
    sw_entry *entries = SW_NEW_ARRAY(sw_entry, t->trained.n);
    int rc = 0;
    for (size_t i = 0; i < t->trained.n && !rc; i++) {
        const sw_param *p = t->trained.at[i];
        int64_t n = sw_numel(&p->v.t);
        float *host = sw_malloc((size_t)n * sizeof *host);
        /* Where the parameter computes in bf16 its exact value is in the flat buffers. */
        const sw_tensor *from = p->master.data ? &p->master : &p->v.t;
        void *raw = sw_malloc(sw_dtype_bytes(from->dtype, n));
        rc = t->device->get(t->device, raw, from->data, sw_dtype_bytes(from->dtype, n)) || sw_dequantise(host, raw, from->dtype, n);
        free(raw);
        int64_t shape[SW_MAX_DIMS];
        memcpy(shape, p->v.t.shape, sizeof shape);
        if (p->transposed) {
            float *turned = sw_malloc((size_t)n * sizeof *turned);
            transpose(turned, host, shape[0], shape[1]);
            free(host);
            host = turned;
            shape[0] = p->v.t.shape[1];
            shape[1] = p->v.t.shape[0];
        }
        if (!rc && dtype != SW_F32) {
            void *low = sw_malloc(sw_dtype_bytes(dtype, n));
            rc = sw_quantise(low, dtype, host, n, NULL);
            free(host);
            host = low;
        }
        entries[i] = (sw_entry){.name = t->names.at[i], .t = sw_tensor_of(host, dtype, p->v.t.ndim, shape)};
    }
    sw_buf text = {0};
    sw_json_print_pretty(&text, t->config);
    cJSON *meta = cJSON_CreateObject();
    cJSON_AddStringToObject(meta, "format", "pt");
    rc = rc || sw_st_save(values, entries, t->trained.n, meta) || sw_write_file(config, text.at, text.n) ? -1 : 0;
    cJSON_Delete(meta);
    sw_buf_free(&text);
    for (size_t i = 0; i < t->trained.n; i++)
        free(entries[i].t.data);
    free(entries);
    free(config);
    free(values);
    return rc;
}
