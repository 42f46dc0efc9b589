#include "model/family.h"

#include "base/json.h"
#include "base/strbuf.h"
#include "store/gguf.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const llama_names[SW_ROLE_COUNT] = {
    [SW_T_EMBED] = "model.embed_tokens",
    [SW_T_NORM] = "model.norm",
    [SW_T_HEAD] = "lm_head",
    [SW_T_SCORE] = "score",
    [SW_T_ATTN_NORM] = "model.layers.%d.input_layernorm",
    [SW_T_Q] = "model.layers.%d.self_attn.q_proj",
    [SW_T_K] = "model.layers.%d.self_attn.k_proj",
    [SW_T_V] = "model.layers.%d.self_attn.v_proj",
    [SW_T_O] = "model.layers.%d.self_attn.o_proj",
    [SW_T_Q_NORM] = "model.layers.%d.self_attn.q_norm",
    [SW_T_K_NORM] = "model.layers.%d.self_attn.k_norm",
    [SW_T_MLP_NORM] = "model.layers.%d.post_attention_layernorm",
    [SW_T_GATE] = "model.layers.%d.mlp.gate_proj",
    [SW_T_UP] = "model.layers.%d.mlp.up_proj",
    [SW_T_DOWN] = "model.layers.%d.mlp.down_proj",
};

static const char *const gguf_names[SW_ROLE_COUNT] = {
    [SW_T_EMBED] = "token_embd",       [SW_T_NORM] = "output_norm",         [SW_T_HEAD] = "output",
    [SW_T_SCORE] = "cls.output",       [SW_T_ATTN_NORM] = "blk.%d.attn_norm", [SW_T_Q] = "blk.%d.attn_q",
    [SW_T_K] = "blk.%d.attn_k",        [SW_T_V] = "blk.%d.attn_v",          [SW_T_O] = "blk.%d.attn_output",
    [SW_T_Q_NORM] = "blk.%d.attn_q_norm", [SW_T_K_NORM] = "blk.%d.attn_k_norm", [SW_T_MLP_NORM] = "blk.%d.ffn_norm",
    [SW_T_GATE] = "blk.%d.ffn_gate",   [SW_T_UP] = "blk.%d.ffn_up",         [SW_T_DOWN] = "blk.%d.ffn_down",
};

/* ---- what differs from Llama */

static int read_llama(sw_spec *s, const cJSON *config)
{
    bool bias;
    if (sw_json_bool(config, "attention_bias", false, &bias) || sw_json_bool(config, "mlp_bias", false, &s->mlp_bias))
        return -1;
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = bias;
    return 0;
}

static int read_mistral(sw_spec *s, const cJSON *config) { return sw_json_i64(config, "sliding_window", 0, 1 << 30, 0, &s->window); }

/* use_sliding_window with max_window_layers: the window holds from that layer on. */
static int read_qwen_window(sw_spec *s, const cJSON *config)
{
    bool use;
    if (sw_json_bool(config, "use_sliding_window", false, &use) || sw_json_i64(config, "sliding_window", 0, 1 << 30, 0, &s->window) ||
        sw_json_i64(config, "max_window_layers", 0, INT_MAX, s->layers, &s->window_from))
        return -1;
    if (!use)
        s->window = 0;
    return 0;
}

static int read_qwen2(sw_spec *s, const cJSON *config)
{
    s->q_bias = s->k_bias = s->v_bias = true;
    return read_qwen_window(s, config);
}

static int read_qwen3(sw_spec *s, const cJSON *config)
{
    bool bias;
    if (sw_json_bool(config, "attention_bias", false, &bias))
        return -1;
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = bias;
    s->qk_norm = true;
    return read_qwen_window(s, config);
}

#define NAMES(...) (const char *const[]){__VA_ARGS__, NULL}
const sw_family sw_families[] = {
    {"llama", NAMES("LlamaForCausalLM", "LlamaForSequenceClassification", "LLaMAForCausalLM"), NAMES("llama", "internlm3", "iquestcoder"),
     "llama", read_llama, NULL, true},
    {"mistral", NAMES("MistralForCausalLM", "MistralForSequenceClassification"), NAMES("mistral"), NULL, read_mistral, NULL, true},
    {"qwen2", NAMES("Qwen2ForCausalLM", "Qwen2ForSequenceClassification"), NAMES("qwen2"), "qwen2", read_qwen2, NULL, false},
    {"qwen3", NAMES("Qwen3ForCausalLM", "Qwen3ForSequenceClassification"), NAMES("qwen3"), "qwen3", read_qwen3, NULL, false},
};
const size_t sw_family_count = SW_COUNT(sw_families);

const sw_family *sw_family_of(const sw_spec *s)
{
    for (size_t i = 0; i < sw_family_count; i++)
        if (!strcmp(sw_families[i].name, s->family))
            return &sw_families[i];
    return NULL;
}

static bool lists(const char *const *names, const char *name)
{
    for (; name && *names; names++)
        if (!strcmp(*names, name))
            return true;
    return false;
}

char *sw_role_name(const sw_spec *s, sw_role role, int64_t layer, char out[128])
{
    const sw_family *f = sw_family_of(s);
    snprintf(out, 128, f->names ? f->names[role] : llama_names[role], (int)layer);
    return out;
}

char *sw_role_gguf(sw_role role, int64_t layer, char out[128])
{
    snprintf(out, 128, gguf_names[role], (int)layer);
    return out;
}

/* ---- config.json */

static const struct {
    const char *name;
    sw_act act;
} acts[] = {{"silu", SW_ACT_SILU},           {"swish", SW_ACT_SILU},        {"gelu", SW_ACT_GELU},       {"gelu_new", SW_ACT_GELU_TANH},
            {"gelu_pytorch_tanh", SW_ACT_GELU_TANH}, {"gelu_fast", SW_ACT_GELU_TANH}, {"relu", SW_ACT_RELU}, {"relu2", SW_ACT_RELU2},
            {"quick_gelu", SW_ACT_GELU_QUICK}, {"sigmoid", SW_ACT_SIGMOID}, {"tanh", SW_ACT_TANH}};

static int read_tokens(sw_spec *s, const cJSON *config)
{
    int64_t id;
    if (sw_json_i64(config, "bos_token_id", 0, INT_MAX, -1, &id))
        return -1;
    s->bos = (int32_t)id;
    if (sw_json_i64(config, "pad_token_id", -1, INT_MAX, -1, &id))
        return -1;
    s->pad = (int32_t)id;
    const cJSON *eos = sw_json_get(config, "eos_token_id");
    size_t n = 0;
    const cJSON *v = cJSON_IsArray(eos) ? eos->child : eos;
    for (; v && n + 1 < SW_COUNT(s->eos); v = cJSON_IsArray(eos) ? v->next : NULL) {
        if (!cJSON_IsNumber(v) || v->valuedouble < 0 || v->valuedouble > INT_MAX)
            return sw_fail("\"eos_token_id\": a token id or a list of them is needed");
        s->eos[n++] = (int32_t)v->valuedouble;
    }
    s->eos[n] = -1;
    return 0;
}

static int read_common(sw_spec *s, const cJSON *config)
{
    const int64_t many = (int64_t)1 << 40;
    const char *act;
    if (sw_json_i64(config, "vocab_size", 1, many, 0, &s->vocab) || sw_json_i64(config, "hidden_size", 1, many, 0, &s->hidden) ||
        sw_json_i64(config, "num_hidden_layers", 1, many, 0, &s->layers) ||
        sw_json_i64(config, "num_attention_heads", 1, many, 0, &s->heads) ||
        sw_json_i64(config, "num_key_value_heads", 1, many, s->heads, &s->kv_heads) ||
        sw_json_i64(config, "head_dim", 1, many, s->heads ? s->hidden / s->heads : 0, &s->head_dim) ||
        sw_json_i64(config, "intermediate_size", 1, many, 0, &s->mlp) ||
        sw_json_i64(config, "max_position_embeddings", 1, many, 2048, &s->max_position) ||
        sw_json_f64(config, "rms_norm_eps", 1e-6, &s->norm_eps) || sw_json_bool(config, "tie_word_embeddings", false, &s->tied) ||
        sw_json_str(config, "hidden_act", "silu", &act))
        return -1;
    size_t i = 0;
    while (i < SW_COUNT(acts) && strcmp(acts[i].name, act))
        i++;
    if (i == SW_COUNT(acts))
        return sw_fail("\"hidden_act\": '%s' is not known", act);
    s->act = acts[i].act;
    const cJSON *labels = sw_json_get(config, "id2label");
    if (sw_json_i64(config, "num_labels", 1, 1 << 20, cJSON_IsObject(labels) ? cJSON_GetArraySize(labels) : 2, &s->labels))
        return -1;
    return read_tokens(s, config) || sw_spec_read_rope(s, config) ? -1 : 0;
}

/* layer_types says per layer whether it slides; the window of any other family reading comes first. */
static int read_layer_types(sw_spec *s, const cJSON *config)
{
    const cJSON *types = sw_json_get(config, "layer_types");
    if (!types || !s->window)
        return 0;
    if (!cJSON_IsArray(types) || cJSON_GetArraySize(types) != s->layers)
        return sw_fail("\"layer_types\": a list of %lld names is needed, one a layer", (long long)s->layers);
    s->sliding = sw_arena_zalloc(&s->arena, (size_t)s->layers * sizeof *s->sliding);
    int64_t i = 0;
    for (const cJSON *t = types->child; t; t = t->next, i++) {
        bool sliding = cJSON_IsString(t) && !strcmp(t->valuestring, "sliding_attention");
        if (!sliding && !(cJSON_IsString(t) && !strcmp(t->valuestring, "full_attention")))
            return sw_fail("\"layer_types\": layer %lld is neither sliding_attention nor full_attention", (long long)i);
        s->sliding[i] = sliding;
    }
    return 0;
}

static int distance(const char *a, const char *b) /* of spellings, for "did you mean" */
{
    int row[128], n = (int)SW_MIN(strlen(b), (size_t)127);
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 1; a[i - 1] && i < 128; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int above = row[j], change = diagonal + (a[i - 1] != b[j - 1]);
            row[j] = SW_MIN(SW_MIN(row[j] + 1, row[j - 1] + 1), change);
            diagonal = above;
        }
    }
    return row[n];
}

static int unknown(const char *where, const char *field, const char *name)
{
    const char *best = "";
    int least = INT_MAX;
    for (size_t i = 0; i < sw_family_count; i++)
        for (const char *const *a = sw_families[i].architectures; *a; a++) {
            int d = distance(name, *a);
            if (d < least) {
                least = d;
                best = *a;
            }
        }
    return sw_fail("%s: \"%s\": '%s' is no architecture that is known here; the nearest is %s", where, field, name, best);
}

int sw_spec_from_config(sw_spec *s, const cJSON *config, const char *where)
{
    *s = (sw_spec){.eos = {-1}};
    if (!cJSON_IsObject(config))
        return sw_fail("%s: an object is needed, not %s", where, sw_json_kind(config));
    const cJSON *list = sw_json_get(config, "architectures");
    const char *architecture = cJSON_IsArray(list) && cJSON_IsString(list->child) ? list->child->valuestring : NULL, *type;
    if (sw_json_str(config, "model_type", NULL, &type))
        return sw_fail_in("%s", where);
    const sw_family *f = NULL;
    for (size_t i = 0; !f && i < sw_family_count; i++)
        if (architecture ? lists(sw_families[i].architectures, architecture) : lists(sw_families[i].model_types, type))
            f = &sw_families[i];
    if (!f)
        return architecture || type ? unknown(where, architecture ? "architectures" : "model_type", architecture ? architecture : type)
                                    : sw_fail("%s: neither \"architectures\" nor \"model_type\" is there", where);
    s->family = f->name;
    s->task = architecture && sw_ends_with(architecture, "SequenceClassification") ? SW_TASK_CLASSIFY : SW_TASK_LM;
    if (read_common(s, config) || (f->read && f->read(s, config)) || read_layer_types(s, config) || sw_spec_check(s)) {
        sw_spec_free(s);
        return sw_fail_in("%s", where);
    }
    return 0;
}

/* ---- GGUF: its metadata in the words of config.json, so that one reader serves both */

int sw_spec_from_gguf(sw_spec *s, const struct sw_gguf *g)
{
    sw_span arch = sw_gguf_str(g, "general.architecture");
    const sw_family *f = NULL;
    for (size_t i = 0; !f && i < sw_family_count; i++)
        if (sw_families[i].gguf && strlen(sw_families[i].gguf) == arch.n && !memcmp(sw_families[i].gguf, arch.at, arch.n))
            f = &sw_families[i];
    if (!f)
        return sw_fail("%s: \"general.architecture\": '%.*s' is not known; known are llama, qwen2, qwen3", sw_gguf_path(g), (int)arch.n,
                       arch.n ? arch.at : "");
    static const struct {
        const char *gguf, *config;
        bool fraction;
    } keys[] = {{"block_count", "num_hidden_layers", false},
                {"embedding_length", "hidden_size", false},
                {"feed_forward_length", "intermediate_size", false},
                {"attention.head_count", "num_attention_heads", false},
                {"attention.head_count_kv", "num_key_value_heads", false},
                {"attention.key_length", "head_dim", false},
                {"context_length", "max_position_embeddings", false},
                {"attention.sliding_window", "sliding_window", false},
                {"vocab_size", "vocab_size", false},
                {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true},
                {"rope.freq_base", "rope_theta", true}};
    cJSON *config = cJSON_CreateObject(), *rope = NULL;
    cJSON_AddItemToObject(config, "architectures", cJSON_CreateStringArray(f->architectures, 1));
    int rc = 0;
    char key[128];
    for (size_t i = 0; !rc && i < SW_COUNT(keys); i++) {
        double d;
        int64_t n;
        snprintf(key, sizeof key, "%.*s.%s", (int)arch.n, arch.at, keys[i].gguf);
        if (!sw_gguf_find(g, key))
            continue;
        rc = keys[i].fraction ? sw_gguf_f64(g, key, 0, &d) : sw_gguf_i64(g, key, 0, (int64_t)1 << 40, 0, &n);
        if (!rc)
            cJSON_AddNumberToObject(config, keys[i].config, keys[i].fraction ? d : (double)n);
    }
    /* The embedding's rows are what counts: vocabularies may be padded. */
    const sw_entry *embedding = sw_gguf_tensor(g, "token_embd.weight");
    if (!rc && (!embedding || embedding->t.ndim != 2))
        rc = sw_fail("the tensor token_embd.weight is missing or no matrix");
    if (!rc) {
        cJSON_DeleteItemFromObject(config, "vocab_size");
        cJSON_AddNumberToObject(config, "vocab_size", (double)embedding->t.shape[0]);
        cJSON_AddBoolToObject(config, "tie_word_embeddings", !sw_gguf_tensor(g, "output.weight"));
        cJSON_AddBoolToObject(config, "attention_bias", sw_gguf_tensor(g, "blk.0.attn_q.bias") && strcmp(f->name, "qwen2"));
    }
    snprintf(key, sizeof key, "%.*s.rope.scaling.type", (int)arch.n, arch.at);
    sw_span kind = sw_gguf_str(g, key);
    if (!rc && kind.n && !(kind.n == 4 && !memcmp(kind.at, "none", 4))) {
        double factor, original;
        char *name = sw_strndup(kind.at, kind.n);
        rope = cJSON_AddObjectToObject(config, "rope_scaling");
        cJSON_AddStringToObject(rope, "rope_type", name);
        free(name);
        snprintf(key, sizeof key, "%.*s.rope.scaling.factor", (int)arch.n, arch.at);
        rc = sw_gguf_f64(g, key, 1, &factor);
        snprintf(key, sizeof key, "%.*s.rope.scaling.original_context_length", (int)arch.n, arch.at);
        rc = rc ? rc : sw_gguf_f64(g, key, 0, &original);
        if (!rc) {
            cJSON_AddNumberToObject(rope, "factor", factor);
            if (original > 0)
                cJSON_AddNumberToObject(rope, "original_max_position_embeddings", original);
        }
    }
    static const struct {
        const char *gguf, *config;
    } tokens[] = {{"tokenizer.ggml.bos_token_id", "bos_token_id"}, {"tokenizer.ggml.eos_token_id", "eos_token_id"},
                  {"tokenizer.ggml.padding_token_id", "pad_token_id"}};
    for (size_t i = 0; !rc && i < SW_COUNT(tokens); i++) {
        int64_t id;
        rc = sw_gguf_i64(g, tokens[i].gguf, 0, INT_MAX, -1, &id);
        if (!rc && id >= 0)
            cJSON_AddNumberToObject(config, tokens[i].config, (double)id);
    }
    rc = rc ? sw_fail_in("%s", sw_gguf_path(g)) : sw_spec_from_config(s, config, sw_gguf_path(g));
    cJSON_Delete(config);
    return rc;
}

cJSON *sw_spec_to_config(const sw_spec *s)
{
    const sw_family *f = sw_family_of(s);
    cJSON *o = cJSON_CreateObject();
    cJSON_AddItemToObject(o, "architectures", cJSON_CreateStringArray(f->architectures, 1));
    cJSON_AddStringToObject(o, "model_type", f->model_types[0]);
    const char *act = "silu";
    for (size_t i = SW_COUNT(acts); i-- > 0;)
        if (acts[i].act == s->act)
            act = acts[i].name;
    cJSON_AddStringToObject(o, "hidden_act", act);
    const struct {
        const char *name;
        double value;
    } numbers[] = {{"vocab_size", (double)s->vocab},        {"hidden_size", (double)s->hidden},
                   {"num_hidden_layers", (double)s->layers}, {"num_attention_heads", (double)s->heads},
                   {"num_key_value_heads", (double)s->kv_heads}, {"head_dim", (double)s->head_dim},
                   {"intermediate_size", (double)s->mlp},   {"max_position_embeddings", (double)s->max_position},
                   {"rms_norm_eps", s->norm_eps},           {"rope_theta", s->rope.theta}};
    for (size_t i = 0; i < SW_COUNT(numbers); i++)
        cJSON_AddNumberToObject(o, numbers[i].name, numbers[i].value);
    cJSON_AddBoolToObject(o, "tie_word_embeddings", s->tied);
    cJSON_AddBoolToObject(o, "attention_bias", s->q_bias);
    cJSON_AddBoolToObject(o, "mlp_bias", s->mlp_bias);
    if (s->window) {
        cJSON_AddNumberToObject(o, "sliding_window", (double)s->window);
        cJSON_AddBoolToObject(o, "use_sliding_window", true);
        cJSON_AddNumberToObject(o, "max_window_layers", (double)s->window_from);
    }
    static const char *const kinds[] = {"default", "linear", "dynamic", "yarn", "llama3", "longrope"};
    if (s->rope.kind != SW_ROPE_DEFAULT) {
        cJSON *r = cJSON_AddObjectToObject(o, "rope_scaling");
        cJSON_AddStringToObject(r, "rope_type", kinds[s->rope.kind]);
        cJSON_AddNumberToObject(r, "factor", s->rope.factor);
        if (s->rope.original_length > 0)
            cJSON_AddNumberToObject(r, "original_max_position_embeddings", s->rope.original_length);
        if (s->rope.kind == SW_ROPE_LLAMA3) {
            cJSON_AddNumberToObject(r, "low_freq_factor", s->rope.low_freq_factor);
            cJSON_AddNumberToObject(r, "high_freq_factor", s->rope.high_freq_factor);
        }
    }
    if (s->bos >= 0)
        cJSON_AddNumberToObject(o, "bos_token_id", s->bos);
    if (s->eos[0] >= 0)
        cJSON_AddNumberToObject(o, "eos_token_id", s->eos[0]);
    if (s->pad >= 0)
        cJSON_AddNumberToObject(o, "pad_token_id", s->pad);
    return o;
}
