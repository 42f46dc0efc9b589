/* What configurations say of mixtures of experts. */
#include "model/ffn_moe.h"

#include "base/json.h"

#include <string.h>

/* In some files (Hunyuan) one number a layer, all the same. */
static int read_equal(const cJSON *list, const char *key, int64_t *out)
{
    for (const cJSON *v = list->child; v; v = v->next)
        if (!cJSON_IsNumber(v) || v->valuedouble != list->child->valuedouble || !(v->valuedouble >= 0 && v->valuedouble <= 1 << 24))
            return sw_fail("\"%s\": its numbers differ from layer to layer, which is not run here", key);
    if (!list->child)
        return sw_fail("\"%s\": the list is empty", key);
    *out = (int64_t)list->child->valuedouble;
    return 0;
}

/* The first of several spellings that is there. */
static int read_any(const cJSON *o, const char *const *keys, int64_t missing, int64_t *out)
{
    for (; *keys; keys++) {
        const cJSON *v = sw_json_get(o, *keys);
        if (v)
            return cJSON_IsArray(v) ? read_equal(v, *keys, out) : sw_json_i64(o, *keys, 0, 1 << 24, missing, out);
    }
    *out = missing;
    return 0;
}

int sw_moe_read(const sw_spec *s, const cJSON *c, sw_moe *m)
{
    int64_t shared, wide;
    if (read_any(c, SW_NAMES("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), m->experts,
                 &m->experts) ||
        read_any(c, SW_NAMES("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k", "top_k_experts"), m->router.k ? m->router.k : 2,
                 &m->router.k) ||
        read_any(c, SW_NAMES("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size"),
                 m->wide ? m->wide : s->mlp, &m->wide) ||
        read_any(c, SW_NAMES("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert"),
                 m->shared_wide, &shared) ||
        read_any(c, SW_NAMES("shared_expert_intermediate_size", "shared_intermediate_size"), shared * m->wide, &wide) ||
        read_any(c, SW_NAMES("n_group", "num_expert_group"), 1, &m->router.groups) ||
        read_any(c, SW_NAMES("topk_group"), 1, &m->router.top_groups) ||
        sw_json_bool(c, "moe_renormalize", m->router.normalise, &m->router.normalise) ||
        sw_json_bool(c, "norm_topk_prob", m->router.normalise, &m->router.normalise) ||
        sw_json_f64(c, "routed_scaling_factor", m->router.scale > 0 ? m->router.scale : 1, &m->router.scale) ||
        sw_json_f64(c, "router_scaling_factor", m->router.scale, &m->router.scale))
        return -1;
    if (m->shared_wide)
        m->shared_wide = wide;
    return sw_moe_check(m);
}

/* Whether layer i is a mixture, by whichever of the usual fields are there; all are without any. */
static int is_sparse(const sw_spec *s, const cJSON *c, const sw_moe *m, int64_t i, bool *sparse)
{
    const cJSON *types = sw_json_get(c, "mlp_layer_types"), *dense = sw_json_get(c, "mlp_only_layers"),
                *freq = sw_json_get(c, "moe_layer_freq"), *listed = sw_json_get(c, "moe_layers");
    int64_t first, step, every, from, to, interval;
    if (types && (!cJSON_IsArray(types) || cJSON_GetArraySize(types) != s->layers))
        return sw_fail("\"mlp_layer_types\": a list of %lld names is needed, one a layer", (long long)s->layers);
    if (types) {
        const cJSON *t = cJSON_GetArrayItem(types, (int)i);
        *sparse = cJSON_IsString(t) && !strcmp(t->valuestring, "sparse");
        if (!*sparse && !(cJSON_IsString(t) && !strcmp(t->valuestring, "dense")))
            return sw_fail("\"mlp_layer_types\": layer %lld is neither dense nor sparse", (long long)i);
        return 0;
    }
    if (listed) {
        *sparse = false;
        for (const cJSON *l = listed->child; l; l = l->next)
            *sparse |= cJSON_IsNumber(l) && l->valuedouble == (double)i;
        return 0;
    }
    if (cJSON_IsArray(freq)) { /* in some files one number a layer */
        const cJSON *f = cJSON_GetArrayItem(freq, (int)i);
        if (cJSON_GetArraySize(freq) != s->layers || !cJSON_IsNumber(f))
            return sw_fail("\"moe_layer_freq\": a number or a list of %lld numbers is needed", (long long)s->layers);
        *sparse = f->valuedouble > 0;
        return 0;
    }
    if (sw_json_i64(c, "first_k_dense_replace", 0, 4096, m->dense_first, &first) ||
        sw_json_i64(c, "num_dense_layers", 0, 4096, first, &first) ||
        sw_json_i64(c, "decoder_sparse_step", 1, 4096, 1, &step) ||
        sw_json_i64(c, "interleave_moe_layer_step", 1, 4096, step, &step) ||
        sw_json_i64(c, "moe_layer_start_index", 0, 4096, 0, &from) ||
        sw_json_i64(c, "moe_layer_end_index", -1, 4096, s->layers - 1, &to) ||
        sw_json_i64(c, "moe_layer_interval", 1, 4096, 1, &interval))
        return -1;
    every = 1;
    if (!cJSON_IsArray(freq) && sw_json_i64(c, "moe_layer_freq", 1, 4096, 1, &every))
        return -1;
    if (to < 0)
        to = s->layers - 1;
    *sparse = i >= first && i % every == 0 && (i + 1) % step == 0 && i >= from && i <= to && (i + 1) % interval == 0;
    for (const cJSON *d = dense ? dense->child : NULL; d; d = d->next)
        if (cJSON_IsNumber(d) && d->valuedouble == (double)i)
            *sparse = false;
    return 0;
}

int sw_moe_layers(sw_spec *s, const cJSON *config, const sw_moe *base)
{
    sw_moe m = *base;
    if (sw_moe_read(s, config, &m))
        return -1;
    const sw_moe *kept = sw_moe_keep(s, &m);
    for (int64_t i = 0; i < s->layers; i++) {
        bool sparse = false;
        if (is_sparse(s, config, kept, i, &sparse))
            return -1;
        if (sparse)
            sw_moe_layer(s, i, kept);
    }
    return 0;
}
