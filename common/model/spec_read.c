#include "model/family.h"

#include "base/json.h"
#include "base/strbuf.h"
#include "model/wrapper.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool lists(const char *const *names, const char *name)
{
    for (; name && names && *names; names++)
        if (!strcmp(*names, name))
            return true;
    return false;
}

/* The first of several spellings that the configuration has; the list ends with NULL. */
static const char *spelling(const cJSON *config, const char *const *names)
{
    for (const char *const *n = names; *n; n++)
        if (sw_json_get(config, *n))
            return *n;
    return names[0];
}

static const struct {
    const char *name;
    sw_act act;
} acts[] = {{"silu", SW_ACT_SILU},           {"swish", SW_ACT_SILU},        {"gelu", SW_ACT_GELU},       {"gelu_new", SW_ACT_GELU_TANH},
            {"gelu_pytorch_tanh", SW_ACT_GELU_TANH}, {"gelu_fast", SW_ACT_GELU_TANH}, {"relu", SW_ACT_RELU}, {"relu2", SW_ACT_RELU2},
            {"quick_gelu", SW_ACT_GELU_QUICK}, {"sigmoid", SW_ACT_SIGMOID}, {"tanh", SW_ACT_TANH},
            {"relu_squared", SW_ACT_RELU2}, {"elu", SW_ACT_ELU}};

const char *sw_act_name(sw_act act)
{
    for (size_t i = 0; i < SW_COUNT(acts); i++)
        if (acts[i].act == act)
            return acts[i].name;
    return "none";
}

int sw_read_act(const cJSON *config, const char *key, sw_act missing, sw_act *out)
{
    const char *name;
    *out = missing;
    if (sw_json_str(config, key, NULL, &name))
        return -1;
    for (size_t i = 0; name && i < SW_COUNT(acts); i++)
        if (!strcmp(acts[i].name, name)) {
            *out = acts[i].act;
            return 0;
        }
    return name ? sw_fail("\"%s\": '%s' is not known", key, name) : 0;
}

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
        if (!cJSON_IsNumber(v) || v->valuedouble < 0 || v->valuedouble > INT_MAX || v->valuedouble != (double)(int32_t)v->valuedouble)
            return sw_fail("\"eos_token_id\": a token id or a list of them is needed");
        s->eos[n++] = (int32_t)v->valuedouble;
    }
    s->eos[n] = -1;
    return 0;
}

/* What a size is that a file does not have: as the family's published class says, unless the file says null. */
static int64_t absent(const cJSON *config, const char *key, int64_t usual, int64_t derived)
{
    return usual && !cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(config, key)) ? usual : derived;
}

/* Sizes under the names that configurations use for them, and their bounds. */
static int read_sizes(sw_spec *s, const cJSON *config)
{
    static const char *const vocab[] = {"vocab_size", "padded_vocab_size", NULL}, *const hidden[] = {"hidden_size", "n_embd", "d_model", "dim", NULL},
                      *const layers[] = {"num_hidden_layers", "n_layer", "num_layers", "n_layers", NULL},
                      *const heads[] = {"num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads", NULL},
                      *const mlp[] = {"intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "hidden_dim", NULL},
                      *const places[] = {"max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length",
                                         "model_max_length", NULL};
    const int64_t many = (int64_t)1 << 40;
    struct {
        const char *const *names;
        int64_t *to, missing, most;
    } all[] = {{vocab, &s->vocab, s->vocab, 1 << 28}, {hidden, &s->hidden, s->hidden, 1 << 20}, {layers, &s->layers, s->layers, 4096},
               {heads, &s->heads, s->heads, 1 << 16}, {mlp, &s->mlp, 0, 1 << 24},
               {places, &s->max_position, s->max_position ? s->max_position : 2048, many}};
    for (size_t i = 0; i < SW_COUNT(all); i++) {
        const char *key = s->keys[i] = spelling(config, all[i].names); /* in the order of sw_size_key */
        bool list = all[i].names == mlp && cJSON_IsArray(sw_json_get(config, key)); /* one a layer, which the family reads */
        if (!list && sw_json_i64(config, key, 1, all[i].most, all[i].missing, all[i].to))
            return -1;
    }
    /* Where queries and keys are made of two parts, what turns is the part that rope_head_dim says. */
    static const char *const head_dim[] = {"qk_rope_head_dim", "head_dim", "kv_channels", NULL};
    if (sw_json_i64(config, "num_nextn_predict_layers", 0, 4096, 0, &s->further_layers))
        return -1;
    const char *width = s->keys[SW_KEY_HEAD_DIM] = spelling(config, head_dim);
    s->keys[SW_KEY_KV_HEADS] = "num_key_value_heads";
    int64_t shared = s->kv_heads && s->heads % s->kv_heads == 0 ? s->kv_heads : 0;
    return sw_json_i64(config, "num_key_value_heads", 1, many, absent(config, "num_key_value_heads", shared, s->heads), &s->kv_heads) ||
                   sw_json_i64(config, width, 1, many, absent(config, width, s->head_dim, s->heads ? s->hidden / s->heads : 0), &s->head_dim)
               ? -1
               : 0;
}

static int read_common(sw_spec *s, const cJSON *config)
{
    static const char *const eps[] = {"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon",
                                      "layernorm_epsilon", NULL};
    static const char *const act_names[] = {"hidden_activation", "hidden_act", "activation_function", "activation", NULL};
    const char *act, *act_key = spelling(config, act_names);
    double usual_eps = s->norm.eps > 0 ? s->norm.eps : s->norm.kind == SW_NORM_RMS ? 1e-6 : 1e-5;
    if (read_sizes(s, config) || sw_json_f64(config, spelling(config, eps), usual_eps, &s->norm.eps) ||
        sw_json_bool(config, "tie_word_embeddings", s->tied, &s->tied) || sw_json_str(config, act_key, NULL, &act))
        return -1;
    if (!(s->norm.eps >= 0 && s->norm.eps < 1))
        return sw_fail("\"%s\": %g is not between 0 and 1", spelling(config, eps), s->norm.eps);
    size_t i = 0;
    while (act && i < SW_COUNT(acts) && strcmp(acts[i].name, act))
        i++;
    if (act && i == SW_COUNT(acts) && !s->family->layers) /* a family with activations of its own knows them */
        return sw_fail("\"%s\": '%s' is not known", act_key, act);
    if (act && i < SW_COUNT(acts))
        s->act = acts[i].act;
    const cJSON *labels = sw_json_get(config, "id2label");
    if (sw_json_i64(config, "num_labels", 1, 1 << 20, cJSON_IsObject(labels) ? cJSON_GetArraySize(labels) : s->labels, &s->labels))
        return -1;
    for (int k = 1; k < SW_MOST_ROPES; k++)
        s->rope[k].mode = s->rope[0].mode;
    return read_tokens(s, config) || sw_spec_read_rope(s, config) ? -1 : 0;
}

int sw_read_biases(sw_spec *s, const cJSON *config)
{
    bool attention, mlp;
    if (sw_json_bool(config, "attention_bias", s->q_bias, &attention) || sw_json_bool(config, "mlp_bias", s->mlp_bias, &mlp))
        return -1;
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = attention;
    s->mlp_bias = s->down_bias = mlp;
    return 0;
}

int sw_read_window(sw_spec *s, const cJSON *config)
{
    bool use;
    if (sw_json_bool(config, "use_sliding_window", true, &use) ||
        sw_json_i64(config, "sliding_window", 0, 1 << 30, s->window, &s->window))
        return -1;
    if (!use)
        s->window = 0;
    return 0;
}

int sw_read_qwen_window(sw_spec *s, const cJSON *config)
{
    bool use;
    if (sw_json_bool(config, "use_sliding_window", false, &use) || sw_read_window(s, config) ||
        sw_json_i64(config, "max_window_layers", 0, INT_MAX, s->layers, &s->window_from))
        return -1;
    if (!use)
        s->window = 0;
    return 0;
}

int sw_local_rope(sw_spec *s, double theta)
{
    sw_rope_spec *r = &s->rope[1];
    if (r->theta > 0)
        return 0;
    *r = (sw_rope_spec){.mode = s->rope[0].mode, .theta = theta, .dim = s->head_dim, .max_position = (double)s->max_position,
                        .partial = s->rope[0].partial};
    return sw_rope_read(r, NULL, NULL, &s->arena);
}

int sw_full_layers_do_not_turn(sw_spec *s, const cJSON *config)
{
    (void)config;
    for (int64_t i = 0; i < s->layers; i++)
        if (!s->layer[i].window)
            s->layer[i].rope = -1;
    return 0;
}

static int unknown(const char *where, const char *field, const char *name)
{
    const char *best = "";
    size_t least = SIZE_MAX;
    const sw_family *f;
    bool by_type = !strcmp(field, "model_type");
    for (size_t i = 0; (f = sw_family_at(i)); i++)
        for (const char *const *a = by_type ? f->model_types : f->architectures; a && *a; a++) {
            size_t d = sw_spelling_distance(name, *a);
            if (d < least) {
                least = d;
                best = *a;
            }
        }
    return sw_fail("%s: \"%s\": '%s' is no %s that is known here; the nearest is %s", where, field, name,
                   by_type ? "kind of model" : "architecture", best);
}

static bool is_reward(const char *architecture) { return sw_ends_with(architecture, "ForRewardModel"); }

/* By the class that config.json names; without one an encoder has no head. */
static sw_task task_for(const sw_family *f, const char *architecture)
{
    static const struct {
        const char *end;
        sw_task task;
    } ends[] = {{"ForRewardModel", SW_TASK_CLASSIFY},        {"SequenceClassification", SW_TASK_CLASSIFY},
                {"ForTokenClassification", SW_TASK_TOKENS}, {"ForProcessRewardModel", SW_TASK_TOKENS}, {"ForMaskedLM", SW_TASK_MASKED_LM},
                {"ForPreTraining", SW_TASK_MASKED_LM}};
    for (size_t i = 0; architecture && i < SW_COUNT(ends); i++)
        if (sw_ends_with(architecture, ends[i].end))
            return ends[i].task;
    return f->spec.bidirectional ? SW_TASK_EMBED : SW_TASK_LM;
}

/* Every family that has a head for classes of texts may have one for classes of tokens. */
static const sw_family *family_for(const char *architecture, const char *type)
{
    static const char tokens[] = "ForTokenClassification";
    const sw_family *f;
    char text[SW_NAME_MAX];
    if (architecture && sw_ends_with(architecture, tokens) && strlen(architecture) < sizeof text) {
        snprintf(text, sizeof text, "%.*sForSequenceClassification", (int)(strlen(architecture) - strlen(tokens)), architecture);
        architecture = text;
    }
    for (size_t i = 0; (f = sw_family_at(i)); i++)
        if (architecture ? lists(f->architectures, architecture) : lists(f->model_types, type))
            return f;
    return NULL;
}

/* The text's part of a model with towers around it. */
static int read_wrapped(sw_spec *s, const sw_wrapper *w, const cJSON *config, const char *where)
{
    cJSON *text = sw_wrapper_text(config);
    if (!text)
        return sw_fail("%s: \"text_config\": an object that describes the text's model is needed", where);
    char *place = sw_strfmt("%s: text_config", where);
    int rc = sw_spec_from_config(s, text, place);
    s->wrapper = w;
    free(place);
    cJSON_Delete(text);
    return rc;
}

/* The configuration with the rotation that the family's published class has where it says nothing of any; NULL: it does. */
static cJSON *with_class_rope(const sw_family *f, const cJSON *config)
{
    static const char *const fields[] = {"rope_parameters", "rope_scaling", "rope_theta", "rotary_emb_base"};
    for (size_t i = 0; i < SW_COUNT(fields); i++)
        if (cJSON_GetObjectItemCaseSensitive(config, fields[i]))
            return NULL;
    cJSON *own = f->rope_class ? cJSON_Duplicate(config, true) : NULL;
    if (own)
        cJSON_AddItemToObject(own, "rope_parameters", sw_json_parse(f->rope_class, strlen(f->rope_class)));
    return own;
}

static int read_family(sw_spec *s, const sw_family *f, const cJSON *config)
{
    return read_common(s, config) || (f->read && f->read(s, config)) || sw_spec_fill_layers(s, config) || (f->layers && f->layers(s, config)) ||
                   sw_spec_check(s) || sw_spec_read_dropout(s, config)
               ? -1
               : 0;
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
    if (list && !architecture && (!cJSON_IsArray(list) || list->child))
        return sw_fail("%s: \"architectures\": a list of names is needed, not %s", where, cJSON_IsArray(list) ? sw_json_kind(list->child) : sw_json_kind(list));
    if (sw_wrapper_for(architecture))
        return read_wrapped(s, sw_wrapper_for(architecture), config, where);
    const sw_family *f = family_for(architecture, type);
    if (!f)
        return architecture || type ? unknown(where, architecture ? "architectures" : "model_type", architecture ? architecture : type)
                                    : sw_fail("%s: neither \"architectures\" nor \"model_type\" is there", where);
    *s = f->spec;
    s->family = f;
    s->names = f->names;
    s->encoder_names = f->encoder_names;
    s->labels = architecture && is_reward(architecture) ? 1 : 2;
    s->task = task_for(f, architecture);
    s->head_bias |= s->task == SW_TASK_TOKENS;
    cJSON *own = with_class_rope(f, config);
    int rc = read_family(s, f, own ? own : config);
    cJSON_Delete(own);
    if (rc) {
        sw_spec_free(s);
        return sw_fail_in("%s", where);
    }
    s->tied &= sw_task_has_words(s->task);
    if (s->task == SW_TASK_CLASSIFY && !s->bidirectional && architecture && sw_ends_with(architecture, "SequenceClassification"))
        s->head_bias = false; /* what a decoder's head over words may have, its head over texts never has */
    return 0;
}
