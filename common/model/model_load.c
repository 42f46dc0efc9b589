#include "model/builder.h"
#include "model/wrapper.h"

#include "base/json.h"
#include "model/gemma_layers.h"
#include "model/gguf_import.h"
#include "model/new_head.h"
#include "store/scaled.h"

#include <stdlib.h>
#include <string.h>

/* Buffers that old files carry and nobody reads; heads of other tasks; a head beside a tied embedding. */
bool sw_model_ignores(const sw_spec *s, const char *name)
{
    static const char *const buffers[] = {"rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias",
                                          ".attention.masked_bias"};
    for (size_t i = 0; i < SW_COUNT(buffers); i++)
        if (sw_ends_with(name, buffers[i]))
            return true;
    for (const char *const *p = s->family->unread; p && *p; p++)
        if (!strncmp(name, *p, strlen(*p)))
            return true;
    for (int64_t i = 0; i < s->further_layers; i++) {
        char layer[SW_NAME_MAX];
        sw_file_name(s, s->layers + i, "", layer);
        if (!strncmp(name, layer, strlen(layer)))
            return true;
    }
    if (s->wrapper && !sw_wrapper_has(s->wrapper, name)) /* towers */
        return true;
    if (sw_kv_is_unused(s, name))
        return true;
    char head[SW_NAME_MAX];
    if (!sw_task_has_words(s->task)) /* the words' head, beside one for classes or none */
        return sw_starts_with(name, sw_file_name(s, -1, "lm_head.", head));
    return s->tied && !strcmp(name, sw_file_name(s, -1, "lm_head.weight", head));
}

/* Ways of pooling: as sentence-transformers named them up to 5.3, each with true or false, and since, in "pooling_mode". */
static const struct {
    const char *flag, *mode;
    sw_pooling pooling;
} poolings[] = {{"pooling_mode_cls_token", "cls", SW_POOL_FIRST},
                {"pooling_mode_mean_tokens", "mean", SW_POOL_MEAN},
                {"pooling_mode_lasttoken", "lasttoken", SW_POOL_LAST}};

static int choose_pooling(sw_spec *s, const char *path, const char *said, const char *before)
{
    for (size_t i = 0; i < SW_COUNT(poolings) && !before; i++)
        if (!strcmp(poolings[i].flag, said) || !strcmp(poolings[i].mode, said)) {
            s->pooling = poolings[i].pooling;
            return 0;
        }
    return sw_fail("%s: \"%s\"%s%s: one of cls_token, mean_tokens and lasttoken is needed", path, said, before ? " beside " : "",
                   before ? before : "");
}

/* What an embedding model takes of a text, as sentence-transformers writes it beside the model. */
static int read_pooling(const char *folder, sw_spec *s)
{
    char *path = sw_path_join(folder, SW_POOLING_FILE);
    int rc = 0;
    if (sw_is_file(path)) {
        cJSON *o = sw_json_load(path);
        const cJSON *mode = sw_json_get(o, "pooling_mode"), *first = cJSON_IsArray(mode) ? mode->child : mode;
        const char *chosen = NULL;
        rc = o ? 0 : -1;
        if (mode && !cJSON_IsString(first))
            rc = sw_fail("%s: \"pooling_mode\": a name is needed, not %s", path, sw_json_kind(first ? first : mode));
        for (const cJSON *v = first; v && !rc; v = cJSON_IsArray(mode) ? v->next : NULL) {
            rc = choose_pooling(s, path, cJSON_IsString(v) ? v->valuestring : sw_json_kind(v), chosen);
            chosen = cJSON_IsString(v) ? v->valuestring : NULL;
        }
        for (const cJSON *v = o && !mode ? o->child : NULL; v && !rc; v = v->next) {
            if (!sw_starts_with(v->string, "pooling_mode_") || !cJSON_IsTrue(v))
                continue;
            rc = choose_pooling(s, path, v->string, chosen);
            chosen = v->string;
        }
        cJSON_Delete(o);
    }
    free(path);
    return rc;
}

/* Bytes that the file's tensors take in the types that are asked for. */
static double weights(const sw_builder *b)
{
    const sw_checkpoint *ck = b->m->checkpoint;
    double sum = 0;
    for (size_t i = 0; i < sw_checkpoint_count(ck); i++) {
        const sw_entry *e = sw_checkpoint_at(ck, i);
        const sw_tensor *t = e->coded && !b->o->dequantise ? &e->coded->values->t : &e->t;
        bool stays = b->o->dtype == SW_DTYPE_COUNT || ((sw_is_quantised(t->dtype) || sw_is_float8(t->dtype)) && !b->o->dequantise);
        sum += stays ? (double)sw_tensor_bytes(t) : (double)sw_numel(t) * sw_dtypes[b->o->dtype].bytes;
    }
    return sum;
}

int sw_model_check_modules(const char *folder, sw_spec *s)
{
    char *path = sw_path_join(folder, SW_MODULES_FILE);
    int rc = 0;
    if (sw_is_file(path)) {
        cJSON *list = sw_json_load(path);
        rc = list ? 0 : -1;
        for (const cJSON *v = list ? list->child : NULL; v && !rc; v = v->next) {
            const char *type = "", *place = "";
            rc = sw_json_str(v, "type", "", &type) || sw_json_str(v, "path", "", &place) ? -1 : 0;
            s->unit_vectors |= sw_ends_with(type, ".Normalize");
            if (!rc && !sw_ends_with(type, ".Transformer") && !sw_ends_with(type, ".Pooling") && !sw_ends_with(type, ".Normalize"))
                rc = sw_fail("%s: %s (%s) changes the vectors after pooling and is not computed here; Transformer, Pooling and Normalize are",
                             path, *place ? place : "a module", type);
        }
        cJSON_Delete(list);
    }
    free(path);
    return rc;
}

int sw_model_modules_around(const char *folder, sw_spec *s)
{
    if (s->task != SW_TASK_EMBED && s->task != SW_TASK_LM)
        return 0;
    return read_pooling(folder, s) || (s->task == SW_TASK_EMBED && sw_model_check_modules(folder, s)) ? -1 : 0;
}

void sw_model_choose_names(const sw_checkpoint *c, sw_spec *s)
{
    const sw_rename *names = s->names;
    char name[SW_NAME_MAX];
    if (!s->family->other_names)
        return;
    s->names = s->family->other_names;
    if (!sw_file_find(c, sw_file_name(s, -1, "model.embed_tokens.weight", name)))
        s->names = names;
}

static int load(sw_builder *b)
{
    sw_model *m = b->m;
    sw_model_choose_names(m->checkpoint, &m->spec);
    sw_device *d = m->device; /* NULL where tensors are only looked for */
    bool asked = d && d->memory;
    size_t left = 0, total;
    if (sw_model_modules_around(m->checkpoint->path, &m->spec) || (asked && d->memory(d, &left, &total)))
        return -1;
    if (sw_builder_run(b)) {
        char need[32], have[32];
        return asked && weights(b) > (double)left
                   ? sw_fail_in("%s: its weights take %s of memory, of which %s has %s left", m->checkpoint->path,
                                sw_human_bytes(weights(b), need), d->name, sw_human_bytes((double)left, have))
                   : -1;
    }
    for (size_t i = 0; i < sw_checkpoint_count(m->checkpoint); i++) {
        const char *name = sw_checkpoint_at(m->checkpoint, i)->name;
        if (sw_map_gets(&b->used, name, 0) == 0 && !sw_model_ignores(&m->spec, name))
            sw_builder_problem(b, "%s is unexpected", name);
    }
    if (b->n_problems)
        return sw_fail("%s: the tensors do not fit the configuration: %s%s", m->checkpoint->path, b->problems.at,
                       b->n_problems > 12 ? "; and more" : "");
    return 0;
}

/* Makes of "...ForMaskedLM" the class of its body. */
static int name_body(cJSON *config, const char *where)
{
    cJSON *first = sw_json_get(config, "architectures")->child;
    static const char *const ends[] = {"ForMaskedLM", "ForPreTraining"};
    for (size_t i = 0; i < SW_COUNT(ends); i++)
        if (sw_ends_with(first->valuestring, ends[i])) {
            char *body = sw_strfmt("%.*sModel", (int)(strlen(first->valuestring) - strlen(ends[i])), first->valuestring);
            bool set = cJSON_SetValuestring(first, body);
            free(body);
            return set ? 0 : sw_fail("%s: out of memory", where);
        }
    return 0;
}

int sw_model_read_config(sw_checkpoint *c, sw_spec *s, const char *where)
{
    char *pooling = sw_path_join(c->path, SW_POOLING_FILE);
    int rc = sw_spec_from_config(s, c->config, where);
    if (!rc && s->task == SW_TASK_MASKED_LM && sw_is_file(pooling) && sw_model_check(c, s)) {
        sw_spec_free(s);
        rc = name_body(c->config, where) || sw_spec_from_config(s, c->config, where) ? -1 : 0;
    }
    free(pooling);
    return rc;
}

sw_model *sw_model_load(const char *path, sw_device *d, const sw_load_options *o)
{
    return sw_model_load_config(path, NULL, d, o);
}

sw_model *sw_model_load_config(const char *path, const char *config, sw_device *d, const sw_load_options *o)
{
    sw_model *m = SW_NEW(sw_model);
    sw_builder b = {.m = m, .o = o};
    m->device = d;
    m->checkpoint = sw_checkpoint_open(path);
    int rc = m->checkpoint ? 0 : -1;
    if (!rc && config) {
        cJSON_Delete(m->checkpoint->config);
        m->checkpoint->config = sw_json_load(config);
        rc = m->checkpoint->config ? 0 : -1;
    }
    if (!rc && m->checkpoint->gguf) {
        rc = sw_gguf_adopt(m->checkpoint, &m->spec);
    } else if (!rc) {
        char *where = sw_path_join(m->checkpoint->path, "config.json");
        rc = !m->checkpoint->config ? sw_fail("%s: is missing", where)
             : config               ? sw_spec_from_config(&m->spec, m->checkpoint->config, where)
                                    : sw_model_read_config(m->checkpoint, &m->spec, where);
        free(where);
    }
    if (!rc && o->head)
        rc = sw_new_head_configure(o->head, m->checkpoint, &m->spec);
    rc = rc ? rc : load(&b);
    sw_builder_free(&b);
    if (rc) {
        sw_model_free(m);
        return NULL;
    }
    return m;
}

int sw_model_check(const sw_checkpoint *c, const sw_spec *s)
{
    sw_model m = {.spec = *s, .checkpoint = (sw_checkpoint *)(uintptr_t)c};
    sw_load_options o = {.dtype = SW_DTYPE_COUNT};
    sw_builder b = {.m = &m, .o = &o, .look_only = true};
    int rc = load(&b);
    sw_builder_free(&b);
    free(m.modules.at);
    free(m.stored.at);
    sw_arena_free(&m.arena);
    return rc;
}

int sw_model_tensors(const sw_spec *s, sw_entries *out, sw_arena *arena)
{
    sw_model m = {.spec = *s, .arena = *arena};
    sw_load_options o = {.dtype = SW_DTYPE_COUNT};
    sw_builder b = {.m = &m, .o = &o, .look_only = true, .asked = out};
    int rc = sw_builder_run(&b);
    sw_builder_free(&b);
    free(m.modules.at);
    free(m.stored.at);
    *arena = m.arena;
    return rc;
}

int sw_model_check_new(const sw_model *m)
{
    for (size_t i = 0; i < m->params.n; i++)
        if (m->params.at[i]->drawn && !m->params.at[i]->adapter)
            return sw_fail("%s: has no %s, and the adapter brings none (modules_to_save)", m->checkpoint->path, m->params.at[i]->name);
    return 0;
}

sw_modules sw_model_modules(sw_model *m)
{
    sw_modules out = {.params = &m->params, .device = m->device};
    for (size_t i = 0; i < m->modules.n; i++)
        SW_PUSH(out, m->modules.at[i]);
    return out;
}

const sw_stored *sw_model_stored(const sw_model *m, const char *name)
{
    for (size_t i = 0; i < m->stored.n; i++)
        if (!strcmp(m->stored.at[i].name, name))
            return &m->stored.at[i];
    return NULL;
}

sw_tensor sw_stored_part(const sw_stored *s, const sw_tensor *whole)
{
    if (s->count == 1)
        return *whole;
    sw_tensor t = sw_row_view(whole, s->index, 1);
    return sw_reshaped(&t, whole->ndim - 1, whole->shape + 1);
}

int64_t sw_model_parameter_count(const sw_model *m, bool trainable_only)
{
    int64_t n = 0;
    for (size_t i = 0; i < m->params.n; i++)
        if (!trainable_only || m->params.at[i]->trainable)
            n += sw_numel(&m->params.at[i]->v.t);
    return n;
}

void sw_model_free(sw_model *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->modules.n; i++)
        if (m->modules.at[i].linear)
            sw_linear_detach_all(m->modules.at[i].linear);
    free(m->modules.at);
    free(m->stored.at);
    sw_params_free(&m->params, m->device);
    sw_checkpoint_close(m->checkpoint);
    sw_spec_free(&m->spec);
    sw_arena_free(&m->arena);
    free(m);
}
