/* Where models drop values in training, and what their configurations call it. */
#include "model/family.h"

#include "base/json.h"
#include "base/strbuf.h"
#include "nn/ops.h"

#include <stdio.h>
#include <string.h>

#define AT(place) (1u << SW_DROP_##place)
#define BRANCHES (AT(MIXER) | AT(FFN))

/* A row for each name and the families that mean the same by it; NULL: all that have the place. Later rows win. */
static const struct {
    const char *key;
    unsigned places;
    const char *const *families;
    bool texts; /* only where classes are those of texts */
} fields[] = {
    {"hidden_dropout", AT(HEAD), NULL, false},
    {"hidden_dropout", AT(EMBEDDING) | BRANCHES, SW_NAMES("gpt_neox"), false},
    {"hidden_dropout", BRANCHES, SW_NAMES("bloom", "telechat", "chatglm"), false},
    {"hidden_dropout", AT(BOTH) | AT(FFN), SW_NAMES("falcon"), false},
    {"hidden_dropout", AT(FFN), SW_NAMES("stablelm", "persimmon"), false},
    {"hidden_dropout_prob", AT(EMBEDDING) | BRANCHES | AT(HEAD), SW_NAMES("bert", "nomic_bert", "gte"), false},
    {"hidden_dropout_prob", AT(EMBEDDING) | BRANCHES | AT(POOLED) | AT(HEAD), SW_NAMES("roberta", "electra", "mpnet", "jina_embeddings_v3"), false},
    {"hidden_dropout_prob", AT(INNER), SW_NAMES("gte"), false},
    {"hidden_dropout_prob", AT(EMBEDDING) | BRANCHES, SW_NAMES("albert"), false},
    {"classifier_dropout", AT(HEAD), NULL, false},
    {"classifier_dropout", AT(POOLED) | AT(HEAD), SW_NAMES("roberta", "electra", "jina_embeddings_v3"), false},
    {"classifier_dropout_prob", AT(HEAD), SW_NAMES("albert"), false},
    {"embd_pdrop", AT(EMBEDDING), SW_NAMES("gpt2", "gpt_bigcode", "gptj", "codegen", "codeshell", "phi"), false},
    {"resid_pdrop", BRANCHES, SW_NAMES("gpt2", "gpt_bigcode", "gptj", "codegen", "codeshell", "phi", "phi3", "dbrx"), false},
    {"embed_dropout", AT(EMBEDDING), SW_NAMES("gpt_neo", "exaone"), false},
    {"resid_dropout", BRANCHES, SW_NAMES("gpt_neo"), false},
    {"embedding_dropout", AT(EMBEDDING), SW_NAMES("modernbert", "starcoder2"), false},
    {"residual_dropout", BRANCHES, SW_NAMES("starcoder2"), false},
    {"attention_dropout", AT(MIXER), SW_NAMES("modernbert", "falcon"), false},
    {"mlp_dropout", AT(INNER), SW_NAMES("modernbert"), false},
    {"dropout", BRANCHES, SW_NAMES("opt"), false},
    {"dropout", AT(EMBEDDING) | BRANCHES, SW_NAMES("xglm", "bart"), false},
    {"dropout", AT(EMBEDDING) | AT(FFN) | AT(HEAD), SW_NAMES("distilbert"), false},
    {"seq_classif_dropout", AT(HEAD), SW_NAMES("distilbert"), true},
    {"activation_dropout", AT(INNER), SW_NAMES("xglm", "bart"), false},
    {"dropout_rate", AT(EMBEDDING) | BRANCHES | AT(INNER) | AT(FINAL), SW_NAMES("t5", "mt5", "umt5", "t5_encoder", "mt5_encoder", "umt5_encoder"), false},
    {"attn_config.attn_pdrop", BRANCHES, SW_NAMES("mpt"), false},
    {"emb_dropout_prob", AT(EMBEDDING), SW_NAMES("qwen"), false},
    {"embedding_dropout_prob", AT(EMBEDDING), SW_NAMES("phi3small"), false},
    {"ffn_dropout_prob", AT(FFN), SW_NAMES("phi3small"), false}};

static bool is_of(const sw_spec *s, const char *const *families)
{
    bool found = !families;
    for (; families && *families && !found; families++)
        found = !strcmp(*families, s->family->name);
    return found;
}

/* The places of a model: a decoder's classes of texts have none at their head, and where mixer and feed-forward stand side by
 * side, what drops the sum of both drops neither. */
static unsigned places_of(const sw_spec *s, unsigned places)
{
    bool both = places & AT(BOTH) || !strcmp(s->family->name, "falcon");
    if (sw_task_has_words(s->task) || s->task == SW_TASK_EMBED || (s->task == SW_TASK_CLASSIFY && !s->bidirectional))
        places &= ~(AT(HEAD) | AT(POOLED));
    if (both)
        places &= s->parallel ? ~BRANCHES : ~AT(BOTH);
    return places;
}

/* "a.b" is b of the object a. */
static const cJSON *holder(const cJSON *config, const char *key, const char **last)
{
    const char *dot = strchr(key, '.');
    *last = dot ? dot + 1 : key;
    if (!dot)
        return config;
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(dot - key), key);
    return sw_json_get(config, name);
}

/* Layers that are gone past, by the names that families have for it. */
static const struct {
    const char *key;
    bool encoder;
    const char *const *families;
} layer_fields[] = {{"layerdrop", false, SW_NAMES("opt", "xglm")}, {"decoder_layerdrop", false, SW_NAMES("bart")},
                    {"encoder_layerdrop", true, SW_NAMES("bart")}};

static int read_layer_drop(sw_spec *s, const cJSON *config)
{
    for (size_t i = 0; i < SW_COUNT(layer_fields); i++) {
        double *p = layer_fields[i].encoder ? &s->encoder_layer_drop : &s->layer_drop;
        if (!is_of(s, layer_fields[i].families))
            continue;
        if (sw_json_f64(config, layer_fields[i].key, 0, p))
            return -1;
        if (!(*p >= 0 && *p < 1))
            return sw_fail("\"%s\": %g is not in [0, 1)", layer_fields[i].key, *p);
    }
    return 0;
}

int sw_spec_read_dropout(sw_spec *s, const cJSON *config)
{
    for (size_t i = 0; i < SW_COUNT(fields); i++) {
        const char *key;
        const cJSON *o = holder(config, fields[i].key, &key);
        unsigned places = is_of(s, fields[i].families) ? places_of(s, fields[i].places) : 0;
        double p;
        if (!places || (fields[i].texts && s->task != SW_TASK_CLASSIFY))
            continue;
        s->drops |= fields[i].families ? places : 0;
        if (!sw_json_get(o, key))
            continue;
        if (sw_json_f64(o, key, 0, &p))
            return -1;
        if (!(p >= 0 && p < 1))
            return sw_fail("\"%s\": %g is not in [0, 1)", fields[i].key, p);
        s->drops |= places;
        for (int k = 0; k < SW_DROPS; k++)
            if (places & 1u << k)
                s->dropout[k] = p;
    }
    return read_layer_drop(s, config);
}

bool sw_drops_layer(const sw_ctx *c, const sw_spec *s, int64_t layer, uint32_t site)
{
    double p = layer < s->encoder_layers ? s->encoder_layer_drop : s->layer_drop;
    sw_rng rng = {c->rng.seed, c->rng.step, site ^ 0x6C617965u};
    return c->training && p > 0 && sw_rng_uniform(&rng, 0) < p;
}

bool sw_spec_set_dropout(sw_spec *s, double p)
{
    s->layer_drop = s->encoder_layer_drop = 0;
    for (int k = 0; k < SW_DROPS; k++)
        s->dropout[k] = s->drops & 1u << k ? p : 0;
    return s->drops != 0;
}

static bool is_applied(const sw_spec *s, const char *key)
{
    for (size_t i = 0; i < SW_COUNT(fields); i++) {
        const char *last;
        holder(NULL, fields[i].key, &last);
        if (!strcmp(last, key) && is_of(s, fields[i].families) && strncmp(key, "attention", 9))
            return true;
    }
    for (size_t i = 0; i < SW_COUNT(layer_fields); i++)
        if (!strcmp(layer_fields[i].key, key) && is_of(s, layer_fields[i].families))
            return true;
    return !strcmp(key, "attn_pdrop") ? false : !strncmp(key, "summary_", 8);
}

void sw_spec_unused_dropout(const sw_spec *s, const cJSON *config, sw_buf *out)
{
    for (const cJSON *v = config ? config->child : NULL; v; v = v->next) {
        bool drops = v->string && (strstr(v->string, "dropout") || strstr(v->string, "pdrop") || strstr(v->string, "layerdrop"));
        if (cJSON_IsObject(v) && !strcmp(v->string, "attn_config"))
            sw_spec_unused_dropout(s, v, out);
        else if (drops && cJSON_IsNumber(v) && v->valuedouble > 0 && !is_applied(s, v->string))
            sw_buf_printf(out, "%s%.40s %g", out->n ? ", " : "", v->string, v->valuedouble);
    }
}

sw_var *sw_drop(sw_ctx *c, const sw_spec *s, sw_drop_place place, uint32_t site, sw_var *x)
{
    return sw_dropout(c, x, s->dropout[place], site ^ 0x9E3779B9u * (uint32_t)(place + 1));
}
