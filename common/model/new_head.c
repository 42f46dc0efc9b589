#include "model/new_head.h"

#include "adapter/tuner.h"
#include "base/fileio.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/philox.h"
#include "model/wrapper.h"
#include "store/weights_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char of_texts[] = "ForSequenceClassification", of_words[] = "ForTokenClassification";

cJSON *sw_numbered_names(int64_t n)
{
    cJSON *names = cJSON_CreateArray();
    char name[32];
    for (int64_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "LABEL_%lld", (long long)i);
        cJSON_AddItemToArray(names, cJSON_CreateString(name));
    }
    return names;
}

void sw_new_head_free(sw_new_head *h)
{
    cJSON_Delete(h->names);
    cJSON_Delete(h->config);
    *h = (sw_new_head){0};
}

/* ---- the class with the head */

/* "Llama" of LlamaForCausalLM. */
static size_t stem_of(const char *architecture)
{
    static const char *const ends[] = {"ForCausalLM", "LMHeadModel", "ForMaskedLM", "ForPreTraining", "Model"};
    for (size_t i = 0; i < SW_COUNT(ends); i++)
        if (sw_ends_with(architecture, ends[i]))
            return strlen(architecture) - strlen(ends[i]);
    return strlen(architecture);
}

/* The class of the family that reads the same files as `architecture` and has the head. */
static int class_with_head(const sw_new_head *h, const sw_family *f, const char *architecture, char out[SW_NAME_MAX])
{
    size_t n = stem_of(architecture);
    const char *found = NULL;
    for (const char *const *a = f->architectures; *a && !found; a++) {
        const char *rest = *a + n;
        if (!strncmp(*a, architecture, n) && (!strcmp(rest, of_texts) || (sw_starts_with(rest, "Text") && !strcmp(rest + 4, of_texts))))
            found = *a;
    }
    if (!found || (h->words && f->no_word_classes))
        return sw_fail("\"architectures\": %s (%s) is not known to have a head for classes of %s", architecture, f->name,
                       h->words ? "words" : "texts");
    snprintf(out, SW_NAME_MAX, "%.*s%s", (int)(strlen(found) - strlen(of_texts)), found, h->words ? of_words : of_texts);
    return 0;
}

static void replace(cJSON *o, const char *key, cJSON *v)
{
    if (cJSON_GetObjectItemCaseSensitive(o, key))
        cJSON_ReplaceItemInObjectCaseSensitive(o, key, v);
    else
        cJSON_AddItemToObject(o, key, v);
}

static void put_classes(const sw_new_head *h, cJSON *config)
{
    static const char *const numbers[] = {"num_labels", "_num_labels", "problem_type"};
    cJSON *names = cJSON_CreateObject(), *ids = cJSON_CreateObject();
    int n = 0;
    for (const cJSON *v = h->names->child; v; v = v->next, n++) {
        char id[16];
        snprintf(id, sizeof id, "%d", n);
        cJSON_AddStringToObject(names, id, v->valuestring);
        cJSON_AddNumberToObject(ids, v->valuestring, n);
    }
    for (size_t i = 0; i < SW_COUNT(numbers); i++)
        cJSON_DeleteItemFromObjectCaseSensitive(config, numbers[i]);
    replace(config, "id2label", names);
    replace(config, "label2id", ids);
    const cJSON *pad = sw_json_get(h->config, "pad_token_id"); /* that a decoder was given with the head */
    if (pad && !sw_json_get(config, "pad_token_id"))
        replace(config, "pad_token_id", cJSON_Duplicate(pad, true));
    if (!h->words)
        cJSON_AddStringToObject(config, "problem_type", h->problem ? h->problem : n == 1 ? "regression" : "single_label_classification");
}

static int configure(const sw_new_head *h, cJSON *config, const sw_spec *s)
{
    const cJSON *list = sw_json_get(config, "architectures");
    const char *architecture = cJSON_IsArray(list) && cJSON_IsString(list->child) ? list->child->valuestring : s->family->architectures[0];
    char name[SW_NAME_MAX];
    if (s->wrapper || s->encoder_layers)
        return sw_fail("\"architectures\": %s has %s, and gets no head for classes", architecture,
                       s->wrapper ? "towers around the text's model" : "an encoder and a decoder");
    if (class_with_head(h, s->family, architecture, name))
        return -1;
    replace(config, "architectures", cJSON_CreateStringArray((const char *const[]){name}, 1));
    put_classes(h, config);
    return 0;
}

int sw_new_head_configure(const sw_new_head *h, sw_checkpoint *c, sw_spec *s)
{
    bool has = s->task == SW_TASK_CLASSIFY || s->task == SW_TASK_TOKENS;
    if (has && h->if_none)
        return 0;
    int rc = has ? sw_fail("is %s with %lld classes already", sw_task_name(s->task), (long long)s->labels) : configure(h, c->config, s);
    sw_spec_free(s);
    *s = (sw_spec){0};
    return rc ? sw_fail_in("%s", c->path) : sw_spec_from_config(s, c->config, c->path);
}

/* ---- values */

/* Element i of n: normal, drawn again where it lies beyond the cut. */
static double draw(const sw_rng *rng, uint64_t i, uint64_t n, double cut)
{
    double z = sw_rng_normal(rng, i);
    for (uint64_t again = 1; cut > 0 && fabs(z) > cut && again < 1000; again++)
        z = sw_rng_normal(rng, i + again * n);
    return z;
}

int sw_new_head_values(const sw_new_head *h, const sw_spec *s, const cJSON *config, const char *name, bool hidden, int ndim, int64_t n,
                       float *out)
{
    double deviation, cut = 0;
    const char *key = sw_json_get(config, "initializer_range") || !sw_json_get(config, "init_std") ? "initializer_range" : "init_std";
    if (sw_json_f64(config, key, 0.02, &deviation))
        return -1;
    deviation = deviation > 0 && isfinite(deviation) ? deviation : 0.02;
    if (s->family->new_head && s->family->new_head(s, config, hidden, &deviation, &cut))
        return -1;
    sw_rng rng = {h->seed, 0, sw_rng_site(name)};
    bool bias = sw_ends_with(name, ".bias");
    for (int64_t i = 0; i < n; i++)
        out[i] = bias ? 0 : ndim < 2 ? 1 : (float)(deviation * draw(&rng, (uint64_t)i, (uint64_t)n, cut));
    return 0;
}

/* ---- beside an adapter */

/* The classes that a configuration names, in the order of their numbers. */
static cJSON *names_in(const cJSON *config)
{
    const cJSON *given = sw_json_get(config, "id2label");
    int n = cJSON_IsObject(given) ? cJSON_GetArraySize(given) : 0;
    cJSON *names = cJSON_CreateArray();
    for (int i = 0; i < n; i++) {
        char id[16];
        snprintf(id, sizeof id, "%d", i);
        const cJSON *name = sw_json_get(given, id);
        if (!cJSON_IsString(name))
            break;
        cJSON_AddItemToArray(names, cJSON_CreateString(name->valuestring));
    }
    if (n && cJSON_GetArraySize(names) == n)
        return names;
    cJSON_Delete(names);
    return sw_fail_null("\"id2label\": an object with a name for each class, from \"0\" on, is needed");
}

static int by_config(const char *path, sw_new_head *h)
{
    h->config = sw_json_load(path);
    const cJSON *list = sw_json_get(h->config, "architectures");
    const char *architecture = cJSON_IsArray(list) && cJSON_IsString(list->child) ? list->child->valuestring : "";
    h->words = sw_ends_with(architecture, of_words);
    if (!h->config || (!h->words && !sw_ends_with(architecture, of_texts)))
        return h->config ? 0 : -1;
    h->names = names_in(h->config);
    return h->names && !sw_json_str(h->config, "problem_type", NULL, &h->problem) ? 1 : sw_fail_in("%s", path);
}

/* PEFT's own folders say the task, and the head's rows how many classes there are. */
static int by_shape(const char *dir, sw_new_head *h)
{
    static const char *const heads[] = {"model.score.weight", "model.classifier.weight", "model.classifier.out_proj.weight"};
    char *path = sw_path_join(dir, "adapter_config.json"), *values = sw_tuned_values(dir);
    cJSON *config = sw_json_load(path);
    const char *task = "";
    int rc = config ? sw_json_str(config, "task_type", "", &task) : -1;
    h->words = !rc && !strcmp(task, "TOKEN_CLS");
    sw_weights_file *s = !rc && (h->words || !strcmp(task, "SEQ_CLS")) && sw_is_file(values) ? sw_weights_open(values) : NULL;
    for (size_t i = 0; s && i < SW_COUNT(heads) && !h->names; i++)
        for (size_t k = 0; k < sw_weights_count(s) && !h->names; k++) {
            const sw_entry *e = sw_weights_at(s, k);
            if (sw_ends_with(e->name, heads[i]) && e->t.ndim == 2 && e->t.shape[0] > 0 && e->t.shape[0] <= 1 << 20)
                h->names = sw_numbered_names(e->t.shape[0]);
        }
    sw_weights_close(s);
    cJSON_Delete(config);
    free(path);
    free(values);
    return rc ? -1 : h->names != NULL;
}

int sw_new_head_of_adapter(const char *dir, sw_new_head *h)
{
    char *path = sw_path_join(dir, "config.json");
    *h = (sw_new_head){.if_none = true};
    int rc = sw_is_file(path) ? by_config(path, h) : by_shape(dir, h);
    if (rc < 1)
        sw_new_head_free(h);
    free(path);
    return rc;
}

sw_model *sw_model_load_under(const char *path, sw_device *d, sw_dtype dtype, const char *const *adapters, size_t n)
{
    sw_new_head head = {0};
    int wanted = 0;
    for (size_t i = 0; i < n && !wanted; i++)
        wanted = sw_new_head_of_adapter(adapters[i], &head);
    sw_model *m = wanted < 0 ? NULL : sw_model_load(path, d, &(sw_load_options){.dtype = dtype, .head = wanted ? &head : NULL});
    sw_new_head_free(&head);
    return m;
}
