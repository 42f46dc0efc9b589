#include "adapter/lora.h"

#include "adapter/tuner.h"
#include "base/json.h"
#include "base/strbuf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void lora_low_rank(const sw_adapter *adapter, sw_low_rank *r)
{
    const sw_lora *a = (const sw_lora *)adapter;
    *r = (sw_low_rank){a->a, a->b, a->scale, a->dropout, a->site};
}

static bool lora_alike(sw_adapter *const *a, int64_t n)
{
    const sw_lora *first = (const sw_lora *)a[0];
    for (int64_t e = 1; e < n; e++) {
        const sw_lora *l = (const sw_lora *)a[e];
        if (l->scale != first->scale || l->dropout != first->dropout ||
            !sw_experts_alike(&(sw_experts){(sw_param *[]){first->a, l->a}, 2, 2, false}) ||
            !sw_experts_alike(&(sw_experts){(sw_param *[]){first->b, l->b}, 2, 2, false}))
            return false;
    }
    return true;
}

/* Of experts' Linears: their dropout's random numbers are those of the first one's site. */
static sw_var *lora_places(sw_ctx *c, sw_linears *l, sw_adapter *const *adapters, sw_var *x, const sw_dispatch *d)
{
    sw_lora *first = (sw_lora *)adapters[0];
    if (first->seen != sw_layout()) {
        first->all_a = sw_realloc(first->all_a, (size_t)l->n * sizeof *first->all_a);
        first->all_b = sw_realloc(first->all_b, (size_t)l->n * sizeof *first->all_b);
        for (int64_t e = 0; e < l->n; e++) {
            first->all_a[e] = ((const sw_lora *)adapters[e])->a;
            first->all_b[e] = ((const sw_lora *)adapters[e])->b;
        }
        first->seen = sw_layout();
    }
    sw_experts down = {first->all_a, l->n, l->n, false}, up = {first->all_b, l->n, l->n, false};
    sw_var *y = sw_places_below(c, l, adapters, x, d), *kept = y ? sw_dropout(c, x, first->dropout, first->site) : NULL;
    sw_dtype product = c->product;
    c->product = c->compute;
    sw_var *t = kept ? sw_matmul_places(c, kept, &down, NULL, d) : NULL;
    c->product = product;
    return t ? sw_matmul_places_add(c, y, t, &up, first->scale, d) : NULL;
}

static sw_var *lora_embed(sw_ctx *c, sw_linear *l, sw_adapter *adapter, sw_var *ids)
{
    sw_lora *a = (sw_lora *)adapter;
    sw_var *y = sw_embed_below(c, l, adapter, ids), *t = y ? sw_embedding(c, a->a, ids, 1) : NULL;
    return t ? sw_matmul_add(c, y, t, a->b, a->scale) : NULL;
}

/* w [out, in] += scale B A; for an embedding w [V, D] += scale A B^T, both in double. */
static int lora_merge(const sw_linear *l, const sw_adapter *adapter, sw_device *d, float *w)
{
    const sw_lora *a = (const sw_lora *)adapter;
    bool embedding = a->a->transposed;
    int64_t r = a->b->v.t.shape[1];
    if (a->a->v.t.dtype != SW_F32 || a->b->v.t.dtype != SW_F32)
        return sw_fail("%s: merging needs the adapter's values in f32", l->name);
    float *va = sw_malloc(sw_tensor_bytes(&a->a->v.t)), *vb = sw_malloc(sw_tensor_bytes(&a->b->v.t));
    int rc = d->get(d, va, a->a->v.t.data, sw_tensor_bytes(&a->a->v.t)) || d->get(d, vb, a->b->v.t.data, sw_tensor_bytes(&a->b->v.t));
#pragma omp parallel for if (!rc)
    for (int64_t o = 0; o < (rc ? 0 : l->out); o++)
        for (int64_t i = 0; i < l->in; i++) {
            double sum = 0;
            for (int64_t k = 0; k < r; k++)
                sum += embedding ? (double)va[o * r + k] * vb[i * r + k] : (double)vb[o * r + k] * va[k * l->in + i];
            w[o * l->in + i] += (float)(a->scale * sum);
        }
    free(va);
    free(vb);
    return rc ? -1 : 0;
}

static void lora_free(sw_adapter *adapter)
{
    sw_lora *a = (sw_lora *)adapter;
    free(a->all_a);
    free(a->all_b);
    free(a);
}

static const sw_adapter_ops lora_ops = {.kind = "lora", .low_rank = lora_low_rank, .embed = lora_embed, .merge = lora_merge,
                                        .free = lora_free, .alike = lora_alike, .places = lora_places};

/* As PEFT draws them. A Linear: A Kaiming-uniform with a = sqrt(5), that is uniform in +-1/sqrt(in), and B zero. An
 * embedding: A zero and B normal. */
static int init_values(sw_device *d, sw_param *a, sw_param *b, bool embedding, int64_t in, uint64_t seed)
{
    sw_param *drawn = embedding ? b : a, *zero = embedding ? a : b;
    int64_t n = sw_numel(&drawn->v.t);
    float *host = sw_malloc((size_t)n * sizeof *host);
    sw_rng rng = {seed, 0, sw_rng_site(drawn->name)};
    double bound = 1 / sqrt((double)in);
    for (int64_t i = 0; i < n; i++)
        host[i] = (float)(embedding ? sw_rng_normal(&rng, (uint64_t)i) : (2.0 * sw_rng_uniform(&rng, (uint64_t)i) - 1) * bound);
    int rc = d->put(d, drawn->v.t.data, host, (size_t)n * sizeof *host) || d->k->fill(d->stream, &zero->v.t, 0);
    free(host);
    return rc ? -1 : 0;
}

/* rank_pattern and alpha_pattern: {"end of a path, or a regular expression for one": number}; the first that fits. */
static int pattern_value(const cJSON *patterns, const char *path, double *value)
{
    for (const cJSON *p = patterns ? patterns->child : NULL; p; p = p->next) {
        bool yes;
        char *whole = sw_strfmt("(.*\\.)?(%s)", p->string);
        int rc = sw_whole_match(whole, path, &yes);
        free(whole);
        if (rc)
            return rc;
        if (!cJSON_IsNumber(p))
            return sw_fail("pattern \"%s\": a number is needed, not %s", p->string, sw_json_kind(p));
        if (yes) {
            *value = p->valuedouble;
            return 0;
        }
    }
    return 0;
}

static int attach_one(sw_tuned *t, sw_module *m, uint64_t seed)
{
    const cJSON *c = t->config;
    sw_linear *l = m->linear;
    int64_t r;
    double alpha, dropout, rank;
    bool rs, embedding = m->kind == SW_MODULE_EMBEDDING;
    if (sw_json_i64(c, "r", 1, 65536, 8, &r) || sw_json_f64(c, "lora_alpha", 8, &alpha) || sw_json_f64(c, "lora_dropout", 0, &dropout) ||
        sw_json_bool(c, "use_rslora", false, &rs))
        return -1;
    rank = (double)r;
    if (pattern_value(sw_json_get(c, "rank_pattern"), m->path, &rank) || pattern_value(sw_json_get(c, "alpha_pattern"), m->path, &alpha))
        return -1;
    r = (int64_t)rank;
    if (r < 1 || rank != (double)r)
        return sw_fail("\"rank_pattern\": %s: %g is no rank", m->path, rank);
    if (!(dropout >= 0 && dropout < 1))
        return sw_fail("\"lora_dropout\": %g is not in [0, 1)", dropout);
    /* The embedding's A is looked up by token, so it lies here as [V, r]; files hold it as [r, V]. */
    char *a_name = sw_strfmt(embedding ? "base_model.model.%s.lora_embedding_A" : "base_model.model.%s.lora_A.weight", m->path);
    char *b_name = sw_strfmt(embedding ? "base_model.model.%s.lora_embedding_B" : "base_model.model.%s.lora_B.weight", m->path);
    sw_param *a = embedding ? sw_tuned_param(t, a_name, l->out, r) : sw_tuned_param(t, a_name, r, l->in);
    sw_param *b = a ? sw_tuned_param(t, b_name, embedding ? l->in : l->out, r) : NULL;
    free(a_name);
    free(b_name);
    if (!b)
        return -1;
    a->transposed = embedding;
    a->reads_x = !embedding;
    sw_lora *lora = SW_NEW(sw_lora);
    *lora = (sw_lora){.adapter.ops = &lora_ops,
                      .a = a,
                      .b = b,
                      .scale = alpha / (rs ? sqrt((double)r) : (double)r),
                      .dropout = dropout,
                      .site = sw_rng_site(a->name)};
    sw_linear_attach(l, &lora->adapter);
    return init_values(t->device, a, b, embedding, l->in, seed);
}

/* null, false, 0 and what is empty: a field that asks for nothing. */
static bool asks_nothing(const cJSON *v)
{
    return cJSON_IsNull(v) || cJSON_IsFalse(v) || (cJSON_IsNumber(v) && v->valuedouble == 0) || (cJSON_IsString(v) && !*v->valuestring) ||
           ((cJSON_IsArray(v) || cJSON_IsObject(v)) && !v->child);
}

/* Every field of LoraConfig either is used here, changes no result of an adapter that is loaded, or must ask for nothing.
 * fan_in_fan_out is of the second kind: A and B lie the same however the base's matrix does. */
static int check_fields(const cJSON *config)
{
    static const char *const known[] = {
        "peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules",
        "layers_to_transform", "layers_pattern", "modules_to_save", "bias", "init_lora_weights",
        "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "fan_in_fan_out",
        "megatron_config", "megatron_core", "eva_config", "qalora_group_size"};
    for (const cJSON *field = config->child; field; field = field->next) {
        bool ours = asks_nothing(field);
        for (size_t i = 0; i < SW_COUNT(known) && !ours; i++)
            ours = !strcmp(field->string, known[i]);
        if (!ours)
            return sw_fail("\"%s\" is set, and is not known here", field->string);
    }
    const char *bias;
    if (sw_json_str(config, "bias", "none", &bias))
        return -1;
    if (strcmp(bias, "none"))
        return sw_fail("\"bias\": '%s' is not known here; use none", bias);
    /* The others (pissa, olora, corda, lora_ga, loftq) take A and B out of the base's weights. */
    static const char *const starts[] = {"gaussian", "eva", "orthogonal"};
    const cJSON *start = sw_json_get(config, "init_lora_weights");
    bool base_stays = !cJSON_IsString(start);
    for (size_t i = 0; i < SW_COUNT(starts) && !base_stays; i++)
        base_stays = !strcmp(start->valuestring, starts[i]);
    return base_stays ? 0 : sw_fail("\"init_lora_weights\": '%s' changes the base's weights, which is not known here; save the adapter as a plain "
                                    "one (save_pretrained with path_initial_model_for_weight_conversion)", start->valuestring);
}

static int lora_attach(sw_tuned *t, sw_modules *modules, uint64_t seed)
{
    if (check_fields(t->config))
        return -1;
    size_t hits = 0;
    for (size_t i = 0; i < modules->n; i++) {
        sw_module *m = &modules->at[i];
        bool yes;
        if (sw_target_matches(t->config, m, &yes))
            return -1;
        if (!yes || sw_tuner_saves(t->config, m)) /* what trains whole needs no low rank beside it */
            continue;
        if (m->kind == SW_MODULE_NORM)
            return sw_fail("\"target_modules\": %s is a norm, LoRA needs a matrix", m->path);
        if (attach_one(t, m, seed))
            return -1;
        hits++;
    }
    if (!hits)
        return sw_fail("\"target_modules\": no module of this model is meant; its names end in q_proj, k_proj, v_proj, o_proj, "
                       "gate_proj, up_proj and down_proj, or say all-linear");
    return 0;
}

const sw_tuner sw_tuner_lora = {"lora", "LORA", lora_attach};
