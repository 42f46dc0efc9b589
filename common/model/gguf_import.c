#include "model/family.h"

#include "base/json.h"
#include "store/gguf.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* GGUF metadata in the words of config.json, so that one reader serves both. */

int sw_spec_from_gguf(sw_spec *s, const struct sw_gguf *g)
{
    sw_span arch = sw_gguf_str(g, "general.architecture");
    const sw_family *f;
    for (size_t i = 0; (f = sw_family_at(i)); i++)
        if (f->gguf && strlen(f->gguf) == arch.n && !memcmp(f->gguf, arch.at, arch.n))
            break;
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
    const sw_family *f = s->family;
    const sw_rope_spec *turn = &s->rope[0];
    cJSON *o = cJSON_CreateObject();
    cJSON_AddItemToObject(o, "architectures", cJSON_CreateStringArray(f->architectures, 1));
    cJSON_AddStringToObject(o, "model_type", f->model_types[0]);
    cJSON_AddStringToObject(o, "hidden_act", sw_act_name(s->act));
    const struct {
        const char *name;
        double value;
    } numbers[] = {{"vocab_size", (double)s->vocab},        {"hidden_size", (double)s->hidden},
                   {"num_hidden_layers", (double)s->layers}, {"num_attention_heads", (double)s->heads},
                   {"num_key_value_heads", (double)s->kv_heads}, {"head_dim", (double)s->head_dim},
                   {"intermediate_size", (double)s->mlp},   {"max_position_embeddings", (double)s->max_position},
                   {"rms_norm_eps", s->norm.eps},           {"rope_theta", turn->theta}};
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
    if (turn->kind != SW_ROPE_DEFAULT) {
        cJSON *r = cJSON_AddObjectToObject(o, "rope_scaling");
        cJSON_AddStringToObject(r, "rope_type", kinds[turn->kind]);
        cJSON_AddNumberToObject(r, "factor", turn->factor);
        if (turn->original_length > 0)
            cJSON_AddNumberToObject(r, "original_max_position_embeddings", turn->original_length);
        if (turn->kind == SW_ROPE_LLAMA3) {
            cJSON_AddNumberToObject(r, "low_freq_factor", turn->low_freq_factor);
            cJSON_AddNumberToObject(r, "high_freq_factor", turn->high_freq_factor);
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
