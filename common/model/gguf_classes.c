/* What encoders have beyond a body: which class of config.json they are, how they pool, and names of classes. */
#include "model/gguf_map.h"

#include "base/json.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of an encoder's classes the one that has the head which the file has. */
const char *const *sw_gguf_encoder_architecture(const sw_gguf *g, const sw_family *f)
{
    const char *end = sw_gguf_tensor(g, "cls.output.weight") ? "ForSequenceClassification" : "Model";
    for (const char *const *a = f->architectures; *a; a++)
        if (sw_ends_with(*a, end))
            return a;
    return f->architectures;
}

/* Names of classes where there is one for each row of the head, else their number. */
int sw_gguf_read_labels(const sw_gguf *g, const char *arch, cJSON *config)
{
    char key[SW_GGUF_KEY_MAX], id[24];
    const sw_entry *head = sw_gguf_tensor(g, "cls.output.weight");
    const sw_gguf_value *v = sw_gguf_find(g, sw_gguf_full(arch, "classifier.output_labels", key));
    if (!head)
        return 0;
    int64_t rows = head->t.ndim == 2 ? head->t.shape[0] : 1;
    if (!v || v->type != SW_GGUF_ARRAY || v->count != (uint64_t)rows) {
        cJSON_AddNumberToObject(config, "num_labels", (double)rows);
        return 0;
    }
    cJSON *names = cJSON_AddObjectToObject(config, "id2label"), *ids = cJSON_AddObjectToObject(config, "label2id");
    sw_gguf_iter it = sw_gguf_items(v);
    sw_span s;
    for (int i = 0; sw_gguf_next_str(&it, &s); i++) {
        if (sw_utf8_valid_prefix(s.at, s.n) < s.n || memchr(s.at, 0, s.n))
            return sw_fail("\"%s\": label %d is no text", key, i);
        char *name = sw_strndup(s.at, s.n);
        snprintf(id, sizeof id, "%d", i);
        cJSON_AddStringToObject(names, id, name);
        cJSON_AddNumberToObject(ids, name, i);
        free(name);
    }
    return 0;
}

enum { POOLED_MEAN = 1, POOLED_FIRST = 2, POOLED_LAST = 3, POOLED_RANK = 4 };

static char *pooling_key(const sw_gguf *g, char out[SW_GGUF_KEY_MAX])
{
    sw_span arch = sw_gguf_str(g, "general.architecture");
    snprintf(out, SW_GGUF_KEY_MAX, "%.*s.pooling_type", (int)SW_MIN(arch.n, 64), arch.n ? arch.at : "");
    return out;
}

bool sw_gguf_pools(const sw_gguf *g)
{
    char key[SW_GGUF_KEY_MAX];
    int64_t kind;
    return !sw_gguf_i64(g, pooling_key(g, key), POOLED_MEAN, POOLED_LAST, 0, &kind) && kind > 0;
}

int sw_gguf_read_pooling(const sw_gguf *g, sw_spec *s)
{
    char key[SW_GGUF_KEY_MAX];
    int64_t kind;
    if (s->task != SW_TASK_EMBED && s->task != SW_TASK_LM)
        return 0;
    if (sw_gguf_i64(g, pooling_key(g, key), 0, INT_MAX, s->task == SW_TASK_EMBED ? POOLED_MEAN : POOLED_LAST, &kind))
        return -1;
    s->pooling = kind == POOLED_FIRST ? SW_POOL_FIRST : kind == POOLED_LAST ? SW_POOL_LAST : SW_POOL_MEAN;
    return 0;
}

void sw_gguf_put_pooling(sw_gguf_writer *w, const char *arch, const sw_spec *s)
{
    char key[SW_GGUF_KEY_MAX];
    int pooling = s->task == SW_TASK_CLASSIFY ? POOLED_RANK : s->pooling == SW_POOL_FIRST ? POOLED_FIRST : s->pooling == SW_POOL_LAST ? POOLED_LAST : POOLED_MEAN;
    sw_gguf_put_u32(w, sw_gguf_full(arch, "pooling_type", key), (uint32_t)pooling);
}

void sw_gguf_put_encoder(sw_gguf_writer *w, const char *arch, const sw_spec *s, const cJSON *config)
{
    char key[SW_GGUF_KEY_MAX];
    sw_gguf_put_bool(w, sw_gguf_full(arch, "attention.causal", key), false);
    sw_gguf_put_pooling(w, arch, s);
    if (s->task != SW_TASK_CLASSIFY)
        return;
    sw_span *labels = SW_NEW_ARRAY(sw_span, (size_t)s->labels);
    char id[24], (*made)[32] = sw_calloc((size_t)s->labels, sizeof *made);
    for (int64_t i = 0; i < s->labels; i++) {
        snprintf(id, sizeof id, "%lld", (long long)i);
        const cJSON *name = sw_json_get(sw_json_get(config, "id2label"), id);
        snprintf(made[i], sizeof *made, "LABEL_%s", id);
        const char *text = cJSON_IsString(name) ? name->valuestring : made[i];
        labels[i] = (sw_span){text, strlen(text)};
    }
    sw_gguf_put_strs(w, sw_gguf_full(arch, "classifier.output_labels", key), (uint64_t)s->labels, labels);
    free(labels);
    free(made);
}
