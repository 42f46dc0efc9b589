/* config.json and {architecture}.* metadata: the same facts in two sets of words. */
#include "model/ffn_moe.h"
#include "model/gguf_map.h"
#include "model/mixer_mamba.h"
#include "model/mixer_mla.h"
#include "model/wrapper.h"

#include "base/json.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what is read off a spec */

const sw_moe *sw_gguf_moe(const sw_spec *s)
{
    for (int64_t i = 0; i < s->layers; i++)
        if (s->layer[i].ffn == &sw_ffn_moe)
            return s->layer[i].ffn_options;
    return NULL;
}

const sw_layer *sw_gguf_layer(const sw_spec *s, const sw_mixer_ops *mixer)
{
    for (int64_t i = 0; i < s->layers; i++)
        if (s->layer[i].mixer == mixer)
            return &s->layer[i];
    return NULL;
}

const sw_mla *sw_gguf_latent(const sw_spec *s)
{
    const sw_layer *l = sw_gguf_layer(s, &sw_mixer_mla);
    return l ? l->mixer_options : NULL;
}

/* Whether it remembers a row a token. */
static bool attends(const sw_spec *s, const sw_layer *l)
{
    sw_state_spec states[SW_MOST_STATES];
    return l->mixer && l->mixer->states && l->mixer->states(s, l, states) > 0 && states[0].by_token;
}

static bool any_attends(const sw_spec *s)
{
    for (int64_t i = 0; i < s->layers; i++)
        if (attends(s, &s->layer[i]))
            return true;
    return false;
}

static double leading_dense(const sw_spec *s)
{
    int64_t i = 0;
    while (i < s->layers && s->layer[i].ffn != &sw_ffn_moe)
        i++;
    return i < s->layers ? (double)i : NAN;
}

#define GET(name, value)                                                                                               \
    static double name(const sw_spec *s) { return (value); }
#define MOE(name, value)                                                                                               \
    static double name(const sw_spec *s)                                                                               \
    {                                                                                                                  \
        const sw_moe *m = sw_gguf_moe(s);                                                                                   \
        return m ? (double)(value) : NAN;                                                                              \
    }
#define MLA(name, value)                                                                                               \
    static double name(const sw_spec *s)                                                                               \
    {                                                                                                                  \
        const sw_mla *m = sw_gguf_latent(s);                                                                                   \
        return m ? (double)(value) : NAN;                                                                              \
    }
GET(layers, (double)s->layers)
GET(places, (double)s->max_position)
GET(hidden, (double)s->hidden)
GET(mlp, s->mlp ? (double)s->mlp : NAN)
GET(heads, any_attends(s) ? (double)s->heads : 0)
GET(kv_heads, any_attends(s) ? sw_gguf_latent(s) ? 1 : (double)s->kv_heads : 0)
GET(key_length, sw_gguf_latent(s) ? (double)(sw_gguf_latent(s)->kv_rank + sw_gguf_latent(s)->rope) : any_attends(s) ? (double)s->layer[0].head_dim : NAN)
GET(value_length, sw_gguf_latent(s) ? (double)sw_gguf_latent(s)->kv_rank : any_attends(s) ? (double)s->layer[0].value_dim : NAN)
GET(vocab, (double)s->vocab)
GET(rms_eps, s->norm.kind == SW_NORM_RMS ? s->norm.eps : NAN)
GET(layer_eps, s->norm.kind == SW_NORM_LAYER ? s->norm.eps : NAN)
/* What Hunyuan calls dynamic is another base. */
static double theta(const sw_spec *s)
{
    const sw_rope_spec *r = &s->rope[0];
    double n = (double)r->dim, times = r->kind == SW_ROPE_DYNAMIC && r->alpha > 0 ? pow(r->alpha, n / (n - 2)) : 1;
    return s->positions == SW_POSITIONS_ROPE ? r->theta * times : NAN;
}
GET(window, s->window ? (double)s->window : NAN)
MOE(experts, m->experts)
MOE(experts_used, m->router.k)
MOE(expert_wide, m->wide)
MOE(shared_wide, m->shared_wide ? m->shared_wide : NAN)
MOE(shared_count, m->shared_wide && m->shared_wide % m->wide == 0 && !m->shared_gated ? m->shared_wide / m->wide : NAN)
MOE(expert_scale, m->router.scale > 0 && m->router.scale != 1 ? m->router.scale : NAN)
MOE(expert_norm, m->router.normalise)
MOE(expert_gate, m->router.score == SW_ROUTE_SQRT_SOFTPLUS ? 4 : m->router.score == SW_ROUTE_SIGMOID ? 2 : 1)
MOE(expert_groups, m->router.groups > 1 ? m->router.groups : NAN)
MOE(expert_groups_used, m->router.groups > 1 ? m->router.top_groups : NAN)
MOE(dense_first, leading_dense(s) > 0 ? leading_dense(s) : NAN)
MLA(q_rank, m->q_rank ? m->q_rank : NAN)
MLA(kv_rank, m->kv_rank)
MLA(key_length_mla, m->nope + m->rope)
MLA(value_length_mla, sw_gguf_layer(s, &sw_mixer_mla)->value_dim)

/* What most families have. Fields of config.json are those that readers of most families know. */
static const sw_gguf_key usual[] = {
    {.gguf = "block_count", .config = "num_hidden_layers", .get = layers},
    {.gguf = "context_length", .config = "max_position_embeddings", .get = places},
    {.gguf = "embedding_length", .config = "hidden_size", .get = hidden},
    {.gguf = "feed_forward_length", .config = "intermediate_size", .get = mlp},
    {.gguf = "attention.head_count", .config = "num_attention_heads", .get = heads},
    {.gguf = "attention.head_count_kv", .config = "num_key_value_heads", .get = kv_heads},
    {.gguf = "attention.key_length", .config = "head_dim", .get = key_length},
    {.gguf = "attention.value_length", .config = NULL, .get = value_length},
    {.gguf = "vocab_size", .config = NULL, .get = vocab},
    {.gguf = "attention.layer_norm_rms_epsilon", .config = "rms_norm_eps", .kind = SW_GGUF_FRACTION, .get = rms_eps},
    {.gguf = "attention.layer_norm_epsilon", .config = "layer_norm_eps", .kind = SW_GGUF_FRACTION, .get = layer_eps},
    {.gguf = "rope.freq_base", .config = "rope_theta", .kind = SW_GGUF_FRACTION, .get = theta},
    {.gguf = "attention.sliding_window", .config = "sliding_window", .get = window},
    {.gguf = "expert_count", .config = "num_experts", .get = experts},
    {.gguf = "expert_used_count", .config = "num_experts_per_tok", .get = experts_used},
    {.gguf = "expert_feed_forward_length", .config = "moe_intermediate_size", .get = expert_wide},
    {.gguf = "expert_shared_feed_forward_length", .config = "shared_expert_intermediate_size", .get = shared_wide},
    {.gguf = "expert_shared_count", .config = "n_shared_experts", .get = shared_count},
    {.gguf = "expert_weights_scale", .config = "routed_scaling_factor", .kind = SW_GGUF_FRACTION, .get = expert_scale},
    {.gguf = "expert_weights_norm", .config = "norm_topk_prob", .kind = SW_GGUF_YES_NO, .get = expert_norm},
    {.gguf = "expert_gating_func", .config = NULL, .get = expert_gate},
    {.gguf = "expert_group_count", .config = "n_group", .get = expert_groups},
    {.gguf = "expert_group_used_count", .config = "topk_group", .get = expert_groups_used},
    {.gguf = "leading_dense_block_count", .config = "first_k_dense_replace", .get = dense_first},
    {.gguf = "attention.q_lora_rank", .config = "q_lora_rank", .get = q_rank},
    {.gguf = "attention.kv_lora_rank", .config = "kv_lora_rank", .get = kv_rank},
    {.gguf = "attention.key_length_mla", .config = NULL, .get = key_length_mla},
    {.gguf = "attention.value_length_mla", .config = "v_head_dim", .get = value_length_mla},
    {0}};

char *sw_gguf_full(const char *arch, const char *key, char out[SW_GGUF_KEY_MAX])
{
    snprintf(out, SW_GGUF_KEY_MAX, "%s.%s", arch, key);
    return out;
}

static const sw_gguf_key *key_of(const sw_gguf_kind *kind, const char *gguf)
{
    for (const sw_gguf_key *k = kind->keys; k && k->gguf; k++)
        if (!strcmp(k->gguf, gguf))
            return k;
    return NULL;
}

/* ---- from a file */

/* A number, or of a list the largest. */
int sw_gguf_number(const sw_gguf *g, const char *key, sw_gguf_value_kind kind, double *out)
{
    const sw_gguf_value *v = sw_gguf_find(g, key);
    int64_t n;
    bool yes;
    if (v->type == SW_GGUF_ARRAY) {
        sw_gguf_iter it = sw_gguf_items(v);
        double d;
        *out = 0;
        while (sw_gguf_next_f64(&it, &d))
            *out = fmax(*out, d);
        return 0;
    }
    if (kind == SW_GGUF_FRACTION)
        return sw_gguf_f64(g, key, 0, out);
    if (kind == SW_GGUF_YES_NO && v->type == SW_GGUF_BOOL) {
        if (sw_gguf_bool(g, key, false, &yes))
            return -1;
        *out = yes;
        return 0;
    }
    if (sw_gguf_i64(g, key, 0, (int64_t)1 << 40, 0, &n))
        return -1;
    *out = (double)n;
    return 0;
}

/* Sets a field, of a member where the name has a point. */
void sw_gguf_set(cJSON *config, const char *name, cJSON *value)
{
    const char *dot = strchr(name, '.');
    if (dot) {
        char *outer = sw_strndup(name, (size_t)(dot - name));
        cJSON *o = cJSON_GetObjectItemCaseSensitive(config, outer);
        o = o ? o : cJSON_AddObjectToObject(config, outer);
        free(outer);
        config = o;
        name = dot + 1;
    }
    cJSON_DeleteItemFromObjectCaseSensitive(config, name);
    cJSON_AddItemToObject(config, name, value);
}

static int read_keys(const sw_gguf *g, const sw_gguf_kind *kind, const sw_gguf_key *keys, bool own, cJSON *config)
{
    char key[SW_GGUF_KEY_MAX];
    double d;
    for (const sw_gguf_key *k = keys; k && k->gguf; k++) {
        sw_gguf_full(kind->arch, k->gguf, key);
        if (!k->config || (!own && key_of(kind, k->gguf)) || !sw_gguf_find(g, key))
            continue;
        if (sw_gguf_number(g, key, k->kind, &d))
            return -1;
        sw_gguf_set(config, k->config, k->kind == SW_GGUF_YES_NO ? cJSON_CreateBool(d != 0) : cJSON_CreateNumber(d));
    }
    return 0;
}

/* Whether some layer has this tensor. */
static bool has_bias(const sw_gguf *g, const char *end)
{
    for (size_t i = 0; i < sw_gguf_tensor_count(g); i++)
        if (sw_ends_with(sw_gguf_tensor_at(g, i)->name, end))
            return true;
    return false;
}

int64_t sw_gguf_whole(const cJSON *config, const char *name)
{
    const cJSON *v = sw_json_get(config, name);
    return cJSON_IsNumber(v) && fabs(v->valuedouble) <= 0x1p53 ? (int64_t)v->valuedouble : 0;
}

/* A list of names by which layers slide. */
static int read_windows(const sw_gguf *g, const sw_gguf_kind *kind, cJSON *config)
{
    char key[SW_GGUF_KEY_MAX];
    const sw_gguf_value *v = sw_gguf_find(g, sw_gguf_full(kind->arch, "attention.sliding_window_pattern", key));
    if (!v || !sw_json_get(config, "sliding_window"))
        return 0;
    int64_t n = sw_gguf_whole(config, "num_hidden_layers"), every = 0;
    sw_gguf_iter it = sw_gguf_items(v);
    double d;
    if (n < 1 || n > 4096)
        return sw_fail("%s: %s needs a number of layers", sw_gguf_path(g), key);
    if (v->type != SW_GGUF_ARRAY && sw_gguf_i64(g, key, 0, 4096, 0, &every))
        return -1;
    cJSON *list = cJSON_CreateArray();
    for (int64_t i = 0; i < n; i++) {
        bool slides = every ? (i + 1) % every != 0 : sw_gguf_next_f64(&it, &d) && d != 0;
        cJSON_AddItemToArray(list, cJSON_CreateString(slides ? "sliding_attention" : "full_attention"));
    }
    sw_gguf_set(config, "layer_types", list);
    return 0;
}

static int read_tokens(const sw_gguf *g, cJSON *config)
{
    static const struct {
        const char *gguf, *config;
    } tokens[] = {{"tokenizer.ggml.bos_token_id", "bos_token_id"}, {"tokenizer.ggml.eos_token_id", "eos_token_id"},
                  {"tokenizer.ggml.padding_token_id", "pad_token_id"}};
    for (size_t i = 0; i < SW_COUNT(tokens); i++) {
        int64_t id;
        if (sw_gguf_i64(g, tokens[i].gguf, 0, INT_MAX, -1, &id))
            return -1;
        if (id >= 0)
            cJSON_AddNumberToObject(config, tokens[i].config, (double)id);
    }
    return 0;
}

/* Fields by the names that this family has for them; "" is none. */
static void rename_fields(const sw_gguf_kind *kind, cJSON *config)
{
    for (const char *const *w = kind->words; w && w[0]; w += 2) {
        cJSON *v = cJSON_DetachItemFromObjectCaseSensitive(config, w[0]);
        if (v && *w[1])
            sw_gguf_set(config, w[1], v);
        else
            cJSON_Delete(v);
    }
}

static const sw_family *family_named(const char *name)
{
    const sw_family *f;
    for (size_t i = 0; (f = sw_family_at(i)); i++)
        if (!strcmp(f->name, name))
            return f;
    return NULL;
}

static int read_all(const sw_gguf *g, const sw_gguf_kind *kind, const sw_family *f, cJSON *config)
{
    const sw_entry *embedding = sw_gguf_tensor(g, "token_embd.weight");
    if (!embedding || embedding->t.ndim != 2)
        return sw_fail("the tensor token_embd.weight is missing or no matrix");
    if (read_keys(g, kind, usual, false, config) || read_keys(g, kind, kind->keys, true, config))
        return -1;
    /* The embedding's rows are what counts: vocabularies may be padded. */
    cJSON_AddNumberToObject(config, "vocab_size", (double)embedding->t.shape[0]);
    cJSON_AddBoolToObject(config, "tie_word_embeddings", (kind->flags & SW_GGUF_TIED) || !sw_gguf_tensor(g, "output.weight"));
    cJSON_AddBoolToObject(config, "attention_bias", has_bias(g, ".attn_q.bias") || has_bias(g, ".attn_qkv.bias"));
    cJSON_AddBoolToObject(config, "mlp_bias", has_bias(g, ".ffn_up.bias"));
    cJSON_AddStringToObject(config, "hidden_act", sw_act_name(f->spec.act));
    if (sw_json_get(config, "kv_lora_rank")) { /* keys and values are those of heads, not of the latent */
        char key[SW_GGUF_KEY_MAX];
        int64_t width, turned, heads;
        if (sw_gguf_i64(g, sw_gguf_full(kind->arch, "rope.dimension_count", key), 1, 1 << 16, 64, &turned) ||
            sw_gguf_i64(g, sw_gguf_full(kind->arch, sw_gguf_find(g, sw_gguf_full(kind->arch, "attention.key_length_mla", key)) ? "attention.key_length_mla"
                                                                                                             : "attention.key_length", key),
                        1, 1 << 16, 192, &width) ||
            sw_gguf_i64(g, sw_gguf_full(kind->arch, "attention.head_count", key), 1, 1 << 16, 1, &heads))
            return -1;
        if (!sw_json_get(config, "v_head_dim")) {
            int64_t value;
            if (sw_gguf_i64(g, sw_gguf_full(kind->arch, "attention.value_length", key), 1, 1 << 16, 128, &value))
                return -1;
            sw_gguf_set(config, "v_head_dim", cJSON_CreateNumber((double)value));
        }
        sw_gguf_set(config, "qk_rope_head_dim", cJSON_CreateNumber((double)turned));
        sw_gguf_set(config, "qk_nope_head_dim", cJSON_CreateNumber((double)(width - turned)));
        sw_gguf_set(config, "head_dim", cJSON_CreateNumber((double)turned));
        sw_gguf_set(config, "num_key_value_heads", cJSON_CreateNumber((double)heads));
    }
    if (!(kind->flags & SW_GGUF_NO_TURN) && sw_gguf_read_rope(g, kind, f, config))
        return -1;
    if (sw_json_get(config, "sliding_window"))
        sw_gguf_set(config, "use_sliding_window", cJSON_CreateTrue());
    bool windows = !key_of(kind, "attention.sliding_window_pattern");
    if ((windows && read_windows(g, kind, config)) || read_tokens(g, config) || sw_gguf_read_labels(g, kind->arch, config))
        return -1;
    return kind->to_config ? kind->to_config(g, kind->arch, config) : 0;
}

cJSON *sw_gguf_config(const sw_gguf *g, const sw_gguf_kind *kind)
{
    const sw_family *f = family_named(kind->family);
    cJSON *config = cJSON_CreateObject();
    const char *const *type = f->model_types, *const *architecture = kind->architecture ? &kind->architecture : f->architectures;
    while (kind->architecture && *type && strcmp(*type, kind->arch))
        type++;
    if (kind->flags & SW_GGUF_ENCODER)
        architecture = sw_gguf_encoder_architecture(g, f);
    cJSON_AddItemToObject(config, "architectures", cJSON_CreateStringArray(architecture, 1));
    if (type) /* else to_config says it */
        cJSON_AddStringToObject(config, "model_type", *type ? *type : f->model_types[0]);
    if (read_all(g, kind, f, config)) {
        cJSON_Delete(config);
        sw_fail_in("%s", sw_gguf_path(g));
        return NULL;
    }
    rename_fields(kind, config);
    return config;
}

/* ---- to a file */

static const cJSON *field(const cJSON *config, const char *name)
{
    const char *dot = strchr(name, '.');
    if (!dot)
        return sw_json_get(config, name);
    char *outer = sw_strndup(name, (size_t)(dot - name));
    const cJSON *o = sw_json_get(config, outer);
    free(outer);
    return sw_json_get(o, dot + 1);
}

static void put_value(sw_gguf_writer *w, const char *key, sw_gguf_value_kind kind, double d)
{
    if (kind == SW_GGUF_FRACTION)
        sw_gguf_put_f32(w, key, (float)d);
    else if (kind == SW_GGUF_YES_NO)
        sw_gguf_put_bool(w, key, d != 0);
    else
        sw_gguf_put_u32(w, key, (uint32_t)d);
}

/* By layer, where the kind says that readers expect it. */
static bool put_by_layer(sw_gguf_writer *w, const sw_gguf_kind *kind, const char *name, const char *key, const sw_spec *s)
{
    bool kv = (kind->flags & SW_GGUF_KV_BY_LAYER) && !strcmp(name, "attention.head_count_kv"),
         wide = (kind->flags & SW_GGUF_MLP_BY_LAYER) && !strcmp(name, "feed_forward_length");
    if (!kv && !wide)
        return false;
    int32_t *list = SW_NEW_ARRAY(int32_t, (size_t)s->layers);
    for (int64_t i = 0; i < s->layers; i++) {
        const sw_layer *l = &s->layer[i];
        if (kv)
            list[i] = l->mixer == &sw_mixer_mla ? 1 : attends(s, l) ? (int32_t)l->kv_heads : 0;
        else
            list[i] = l->ffn == &sw_ffn_moe ? (int32_t)((const sw_moe *)l->ffn_options)->wide : l->ffn ? (int32_t)l->mlp : 0;
    }
    sw_gguf_put_array(w, key, SW_GGUF_I32, (uint64_t)s->layers, list);
    free(list);
    return true;
}

static void put_keys(sw_gguf_writer *w, const sw_gguf_kind *kind, const sw_gguf_key *keys, bool own, const sw_spec *s, const cJSON *config)
{
    char key[SW_GGUF_KEY_MAX];
    for (const sw_gguf_key *k = keys; k && k->gguf; k++) {
        if (!own && key_of(kind, k->gguf))
            continue;
        if (((kind->flags & SW_GGUF_NO_TURN) && sw_starts_with(k->gguf, "rope.")) ||
            ((kind->flags & SW_GGUF_ALL_SPARSE) && !strcmp(k->gguf, "leading_dense_block_count")))
            continue;
        sw_gguf_full(kind->arch, k->gguf, key);
        if (put_by_layer(w, kind, k->gguf, key, s))
            continue;
        double d = k->get ? k->get(s) : NAN;
        const cJSON *v = k->get || !k->config ? NULL : field(config, k->config);
        if (v)
            d = cJSON_IsBool(v) ? cJSON_IsTrue(v) : cJSON_IsNumber(v) ? v->valuedouble : NAN;
        if (isnan(d) && k->here)
            d = k->missing;
        if (!isnan(d))
            put_value(w, key, k->kind, d);
    }
}

double sw_gguf_period(const sw_spec *s, bool first)
{
    for (int64_t n = 1; n <= s->layers + 1; n++) {
        int64_t i = 0;
        while (i < s->layers && (s->layer[i].window == 0) == (first ? i % n == 0 : (i + 1) % n == 0))
            i++;
        if (i == s->layers)
            return (double)n;
    }
    return NAN;
}
static void put_windows(sw_gguf_writer *w, const sw_gguf_kind *kind, const sw_spec *s)
{
    char key[SW_GGUF_KEY_MAX];
    bool some = false, all = true;
    uint8_t *list = SW_NEW_ARRAY(uint8_t, (size_t)s->layers);
    for (int64_t i = 0; i < s->layers; i++) {
        list[i] = s->layer[i].window > 0;
        some |= list[i];
        all &= list[i];
    }
    if (some && (!all || (kind->flags & SW_GGUF_WINDOWS)))
        sw_gguf_put_array(w, sw_gguf_full(kind->arch, "attention.sliding_window_pattern", key), SW_GGUF_BOOL, (uint64_t)s->layers, list);
    free(list);
}

int sw_gguf_put_config(sw_gguf_writer *w, const sw_gguf_kind *kind, const sw_spec *s, const sw_checkpoint *c)
{
    cJSON *text = s->wrapper ? sw_wrapper_text(c->config) : NULL;
    const cJSON *config = text ? text : c->config;
    sw_gguf_put_str(w, "general.architecture", kind->arch, strlen(kind->arch));
    sw_gguf_put_str(w, "general.type", "model", 5);
    put_keys(w, kind, usual, false, s, config);
    put_keys(w, kind, kind->keys, true, s, config);
    if (!key_of(kind, "attention.sliding_window_pattern"))
        put_windows(w, kind, s);
    if (kind->flags & SW_GGUF_ENCODER)
        sw_gguf_put_encoder(w, kind->arch, s, config);
    cJSON_Delete(text);
    if (sw_gguf_put_rope(w, kind, s))
        return -1;
    return kind->from_config ? kind->from_config(w, kind->arch, s, c) : 0;
}
