/* GGUF's descriptions of families whose layers keep a state, and of those with values in their metadata (gguf_map.h). */
#include "model/ffn_moe.h"
#include "model/gguf_rows.h"
#include "model/minimax.h"
#include "model/mixer_mamba.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCALE(gguf_, config_) {gguf_, config_, SW_GGUF_FRACTION, NULL, 1, true}

/* ---- sizes of states */

static const void *options_of(const sw_layer *l) { return l ? l->mixer_options : NULL; }

#define MAMBA(name, value)                                                                                             \
    static double name(const sw_spec *s)                                                                               \
    {                                                                                                                  \
        const sw_mamba_options *m = options_of(sw_gguf_layer(s, &sw_mixer_mamba));                                                    \
        return m ? (double)(value) : NAN;                                                                              \
    }
#define MAMBA2(name, value)                                                                                            \
    static double name(const sw_spec *s)                                                                               \
    {                                                                                                                  \
        const sw_mamba2_options *m = options_of(sw_gguf_layer(s, &sw_mixer_mamba2));                                                  \
        return m ? (double)(value) : NAN;                                                                              \
    }
MAMBA(taps, m->taps)
MAMBA(inner, m->inner)
MAMBA(state, m->state)
MAMBA(rank, m->rank)
MAMBA(normed, m->inner_norm.eps > 0)
MAMBA2(taps2, m->taps)
MAMBA2(inner2, m->heads *m->head_dim)
MAMBA2(state2, m->state)
MAMBA2(heads2, m->heads)
MAMBA2(groups2, m->groups)
static double zero(const sw_spec *s) { return 0 * (double)s->layers; }
static double eps(const sw_spec *s) { return s->norm.eps; }
static double turns(const sw_spec *s) { return s->positions == SW_POSITIONS_ROPE; }
static double growth(const sw_spec *s) { return s->query_growth > 0 ? s->query_growth : NAN; }
static double divide_logits(const sw_spec *s) { return s->logit_scale > 0 ? 1 / s->logit_scale : 1; }

/* A layer of the gated delta rule, by its states: [taps - 1, 2 keys + values] and [value heads, key width, value width]. */
typedef struct delta_sizes {
    int64_t taps, key_heads, value_heads, key, value;
} delta_sizes;

static bool delta_of(const sw_spec *s, const sw_layer *l, delta_sizes *out)
{
    sw_state_spec t[SW_MOST_STATES];
    if (!l->mixer || strcmp(l->mixer->name, "gated delta rule") || l->mixer->states(s, l, t) != 2)
        return false;
    int64_t values = t[1].shape[0] * t[1].shape[2];
    *out = (delta_sizes){t[0].shape[0] + 1, (t[0].shape[1] - values) / 2 / t[1].shape[1], t[1].shape[0], t[1].shape[1], t[1].shape[2]};
    return true;
}

#define DELTA(name, value_)                                                                                            \
    static double name(const sw_spec *s)                                                                               \
    {                                                                                                                  \
        delta_sizes d;                                                                                                 \
        for (int64_t i = 0; i < s->layers; i++)                                                                        \
            if (delta_of(s, &s->layer[i], &d))                                                                         \
                return (double)(value_);                                                                               \
        return NAN;                                                                                                    \
    }
DELTA(delta_taps, d.taps)
DELTA(delta_key, d.key)
DELTA(delta_key_heads, d.key_heads)
DELTA(delta_heads, d.value_heads)
DELTA(delta_inner, d.value_heads *d.value)

/* ---- what no key says */

static int mamba_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    int64_t inner_ = size_of(g, arch, "ssm.inner_size"), hidden = SW_MAX(sw_gguf_whole(config, "hidden_size"), 1);
    set_number(config, "expand", (double)inner_ / (double)hidden);
    set_number(config, "intermediate_size", (double)inner_);
    set_bool(config, "use_bias", has(g, ".ssm_in.bias"));
    set_bool(config, "use_conv_bias", has(g, ".ssm_conv1d.bias"));
    if (sw_json_get(config, "num_heads"))
        set_number(config, "head_dim", (double)inner_ / (double)SW_MAX(sw_gguf_whole(config, "num_heads"), 1));
    return 0;
}

/* Readers take its feed-forwards for all mixtures or none. */
static int nemotron_h_keys(sw_gguf_writer *w, const char *arch, const sw_spec *s, const sw_checkpoint *c)
{
    (void)w, (void)c;
    const sw_moe *m = sw_gguf_moe(s);
    if (m && m->latent)
        return sw_fail("GGUF's %s has no place for experts behind a latent", arch);
    for (int64_t i = 0; i < s->layers; i++)
        if (s->layer[i].ffn == &sw_ffn_dense)
            return sw_fail("GGUF's %s has no place for dense layers beside mixtures", arch);
    return 0;
}

/* A list as a period and where it begins. */
static void set_period(cJSON *config, const char *period, const char *offset, const sw_gguf *g, const char *tensor)
{
    int64_t n = sw_gguf_whole(config, "num_hidden_layers"), first = -1, second = -1;
    for (int64_t i = 0; i < n && second < 0; i++)
        if (has_in_layer(g, i, tensor)) {
            if (first < 0)
                first = i;
            else
                second = i;
        }
    set_number(config, offset, (double)SW_MAX(first, 0));
    set_number(config, period, (double)(second > 0 ? second - first : SW_MAX(n, 1)));
}

static int jamba_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    int64_t inner_ = size_of(g, arch, "ssm.inner_size"), hidden = SW_MAX(sw_gguf_whole(config, "hidden_size"), 1);
    set_number(config, "mamba_expand", (double)inner_ / (double)hidden);
    set_bool(config, "mamba_conv_bias", has(g, ".ssm_conv1d.bias"));
    set_bool(config, "mamba_proj_bias", has(g, ".ssm_in.bias"));
    set_period(config, "attn_layer_period", "attn_layer_offset", g, "attn_q.weight");
    set_period(config, "expert_layer_period", "expert_layer_offset", g, "ffn_gate_inp.weight");
    if (!sw_json_get(config, "num_experts"))
        set_number(config, "num_experts", 1);
    return 0;
}

static int granite_hybrid_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    int64_t inner_ = size_of(g, arch, "ssm.inner_size"), heads = size_of(g, arch, "ssm.time_step_rank");
    char key[128];
    bool turn;
    snprintf(key, sizeof key, "%s.rope.scaling.finetuned", arch);
    if (sw_gguf_bool(g, key, false, &turn))
        return -1;
    set_number(config, "mamba_expand", (double)inner_ / (double)SW_MAX(sw_gguf_whole(config, "hidden_size"), 1));
    set_number(config, "mamba_d_head", (double)inner_ / (double)SW_MAX(heads, 1));
    set_bool(config, "mamba_conv_bias", has(g, ".ssm_conv1d.bias"));
    set_bool(config, "mamba_proj_bias", has(g, ".ssm_in.bias"));
    sw_gguf_set(config, "position_embedding_type", cJSON_CreateString(turn ? "rope" : "nope"));
    if (!sw_json_get(config, "num_experts")) {
        set_number(config, "num_experts", 0);
        set_number(config, "shared_expert_intermediate_size", (double)sw_gguf_whole(config, "intermediate_size"));
    }
    set_layers(g, config, "layer_types", "ssm_out.weight", "mamba", "attention");
    return 0;
}

static int bamba_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    int64_t inner_ = size_of(g, arch, "ssm.inner_size"), heads = size_of(g, arch, "ssm.time_step_rank");
    int64_t n = SW_MIN(sw_gguf_whole(config, "num_hidden_layers"), 4096);
    set_number(config, "mamba_expand", (double)inner_ / (double)SW_MAX(sw_gguf_whole(config, "hidden_size"), 1));
    set_number(config, "mamba_d_head", (double)inner_ / (double)SW_MAX(heads, 1));
    set_bool(config, "mamba_conv_bias", has(g, ".ssm_conv1d.bias"));
    set_bool(config, "mamba_proj_bias", has(g, ".ssm_in.bias"));
    cJSON *list = cJSON_CreateArray();
    for (int64_t i = 0; i < n; i++)
        if (!has_in_layer(g, i, "ssm_out.weight"))
            cJSON_AddItemToArray(list, cJSON_CreateNumber((double)i));
    sw_gguf_set(config, "attn_layer_indices", list);
    return 0;
}

static int nemotron_h_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    int64_t inner_ = size_of(g, arch, "ssm.inner_size"), heads = size_of(g, arch, "ssm.time_step_rank");
    int64_t n = SW_MIN(sw_gguf_whole(config, "num_hidden_layers"), 4096);
    set_number(config, "mamba_head_dim", (double)inner_ / (double)SW_MAX(heads, 1));
    set_bool(config, "use_conv_bias", has(g, ".ssm_conv1d.bias"));
    set_bool(config, "use_bias", has(g, ".ssm_in.bias"));
    cJSON *list = cJSON_CreateArray();
    for (int64_t i = 0; i < n; i++)
        cJSON_AddItemToArray(list, cJSON_CreateString(has_in_layer(g, i, "ssm_out.weight")      ? "mamba"
                                                      : has_in_layer(g, i, "attn_q.weight")       ? "attention"
                                                      : has_in_layer(g, i, "ffn_gate_inp.weight") ? "moe"
                                                                                                  : "mlp"));
    sw_gguf_set(config, "layers_block_type", list);
    cJSON_DeleteItemFromObjectCaseSensitive(config, "num_hidden_layers");
    return 0;
}

static int qwen_next_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    int64_t inner_ = size_of(g, arch, "ssm.inner_size"), heads = size_of(g, arch, "ssm.time_step_rank");
    set_number(config, "linear_value_head_dim", (double)inner_ / (double)SW_MAX(heads, 1));
    if (!sw_json_get(config, "norm_topk_prob"))
        set_bool(config, "norm_topk_prob", true);
    set_layers(g, config, "layer_types", "ssm_out.weight", "linear_attention", "full_attention");
    return 0;
}

static int qwen_next_keys(sw_gguf_writer *w, const char *arch, const sw_spec *s, const sw_checkpoint *c)
{
    delta_sizes d;
    (void)c;
    uint8_t *list = SW_NEW_ARRAY(uint8_t, (size_t)s->layers);
    int64_t first = 0;
    for (int64_t i = 0; i < s->layers; i++)
        list[i] = delta_of(s, &s->layer[i], &d);
    while (first < s->layers && list[first])
        first++;
    put_flags(w, arch, "attention.recurrent_layers", list, s->layers);
    put_number(w, arch, "full_attention_interval", first + 1);
    free(list);
    return 0;
}

/* q, k and v of each key head lie together with the gate z on the hub; in GGUF all q, all k, all v, and z apart. */
static void qwen_next_layer(sw_gguf_weaver *w, const sw_spec *s, const sw_layer *l)
{
    delta_sizes d;
    if (!delta_of(s, l, &d))
        return;
    int64_t h = d.key_heads, k = d.key, v = d.value_heads / h * d.value, group = 2 * k + 2 * v, wide = h * (2 * k + v);
    const int64_t begins[] = {0, k, 2 * k}, counts[] = {k, k, v};
    int64_t at = 0;
    for (int i = 0; i < 3; i++) {
        sw_gguf_part p = {.in_file = {0, group, begins[i], counts[i]}, .in_gguf = {at, h * counts[i], 0, h * counts[i]}, .n = h * counts[i],
                          .gguf_rows = wide, .file_rows = h * group};
        sw_gguf_tie(w, "attn_qkv.weight", "linear_attn.in_proj_qkvz.weight", &p);
        at += h * counts[i];
    }
    sw_gguf_part z = {.in_file = {0, group, 2 * k + v, v}, .n = h * v, .gguf_rows = h * v, .file_rows = h * group};
    sw_gguf_tie(w, "attn_gate.weight", "linear_attn.in_proj_qkvz.weight", &z);
}

/* ---- Qwen 3.5: where keys are shared, GGUF takes one value head of each key head in turn, the hub those of a key head together */

static int qwen35_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    return leave_out_further(g, arch, config) || qwen_next_config(g, arch, config) ? -1 : 0;
}

static int qwen35_keys(sw_gguf_writer *w, const char *arch, const sw_spec *s, const sw_checkpoint *c)
{
    int32_t sections[4] = {11, 11, 10, 0}; /* which places of pictures turn which pairs: readers want them of texts, too */
    const cJSON *given = sw_json_get(sw_json_get(c->config, "rope_parameters"), "mrope_section");
    for (int i = 0; i < 4 && given; i++) {
        const cJSON *v = cJSON_GetArrayItem(given, i);
        sections[i] = cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble < 4096 ? (int32_t)v->valuedouble : 0;
    }
    put_list(w, arch, "rope.dimension_sections", sections, 4);
    return qwen_next_keys(w, arch, s, c);
}

/* Rows of heads in turn behind `before` rows that are the same. */
static void in_turn(sw_gguf_weaver *w, const char *gguf, const char *ours, const delta_sizes *d, int64_t before, int64_t width, bool taps, sw_gguf_fn fn)
{
    int64_t groups = d->key_heads, per = d->value_heads / groups, all = before + d->value_heads * width;
    sw_slice same = {0, before, 0, before};
    if (before)
        sw_gguf_tie(w, gguf, ours, &(sw_gguf_part){.in_gguf = same, .in_file = same, .n = before, .gguf_rows = all, .file_rows = all, .taps = taps, .fn = fn});
    for (int64_t i = 0; i < per; i++)
        sw_gguf_tie(w, gguf, ours, &(sw_gguf_part){.in_file = {before, per * width, i * width, width}, .n = groups * width, .gguf_rows = all,
                                                   .in_gguf = {before + i * groups * width, groups * width, 0, groups * width},
                                                   .file_rows = all, .taps = taps, .fn = fn});
}

static void qwen35_layer(sw_gguf_weaver *w, const sw_spec *s, const sw_layer *l)
{
    delta_sizes d;
    if (!delta_of(s, l, &d))
        return;
    int64_t keys = 2 * d.key_heads * d.key;
    in_turn(w, "attn_qkv.weight", "linear_attn.in_proj_qkv.weight", &d, keys, d.value, false, SW_GGUF_SAME);
    in_turn(w, "ssm_conv1d.weight", "linear_attn.conv1d.weight", &d, keys, d.value, true, SW_GGUF_SAME);
    in_turn(w, "attn_gate.weight", "linear_attn.in_proj_z.weight", &d, 0, d.value, false, SW_GGUF_SAME);
    in_turn(w, "ssm_beta.weight", "linear_attn.in_proj_b.weight", &d, 0, 1, false, SW_GGUF_SAME);
    in_turn(w, "ssm_alpha.weight", "linear_attn.in_proj_a.weight", &d, 0, 1, false, SW_GGUF_SAME);
    in_turn(w, "ssm_a", "linear_attn.A_log", &d, 0, 1, false, SW_GGUF_MINUS_EXP);
    in_turn(w, "ssm_dt.bias", "linear_attn.dt_bias", &d, 0, 1, false, SW_GGUF_SAME);
    sw_gguf_tie(w, "ssm_norm.weight", "linear_attn.norm.weight", &(sw_gguf_part){0});
    sw_gguf_tie(w, "ssm_out.weight", "linear_attn.out_proj.weight", &(sw_gguf_part){.columns = {d.value_heads, d.key_heads}});
}

/* ---- Apertus: what its activation learns is metadata, a number a layer */

static const char *const xielu[] = {"alpha_n", "alpha_p", "beta", "eps"};

static int apertus_keys(sw_gguf_writer *w, const char *arch, const sw_spec *s, const sw_checkpoint *c)
{
    char name[SW_NAME_MAX], ours[64], key[64];
    (void)arch;
    float *list = SW_NEW_ARRAY(float, (size_t)s->layers);
    int rc = 0;
    for (size_t k = 0; k < SW_COUNT(xielu) && !rc; k++) {
        for (int64_t i = 0; i < s->layers && !rc; i++) {
            snprintf(ours, sizeof ours, "mlp.act_fn.%s", xielu[k]);
            const sw_entry *e = sw_checkpoint_find(c, sw_file_name(s, i, ours, name));
            if (!e || sw_numel(&e->t) != 1)
                rc = sw_fail("the tensor %s is missing or no number", name);
            else
                list[i] = (float)sw_scalar_get(e->t.data, e->t.dtype, 0);
        }
        snprintf(key, sizeof key, "xielu.%s", xielu[k]);
        sw_gguf_put_array(w, key, SW_GGUF_F32, (uint64_t)s->layers, list);
    }
    free(list);
    return rc;
}

static int apertus_tensors(const sw_gguf *g, const sw_spec *s, sw_entries *out, sw_arena *arena)
{
    char name[SW_NAME_MAX], ours[64], key[64];
    for (size_t k = 0; k < SW_COUNT(xielu); k++) {
        snprintf(key, sizeof key, "xielu.%s", xielu[k]);
        const sw_gguf_value *v = sw_gguf_find(g, key);
        sw_gguf_iter it = sw_gguf_items(v);
        float *values = sw_arena_zalloc(arena, (size_t)s->layers * sizeof *values);
        int64_t one = 1;
        for (int64_t i = 0; i < s->layers; i++) {
            double d;
            if (v && v->type == SW_GGUF_F32 ? sw_gguf_f64(g, key, 0, &d) : !sw_gguf_next_f64(&it, &d))
                return sw_fail("%s: a number a layer is needed", key);
            values[i] = (float)d;
            snprintf(ours, sizeof ours, "mlp.act_fn.%s", xielu[k]);
            sw_file_name(s, i, ours, name);
            sw_entry e = {.name = sw_arena_strndup(arena, name, strlen(name)), .t = sw_tensor_of(&values[i], SW_F32, k < 2 ? 1 : 0, &one)};
            SW_PUSH(*out, e);
        }
    }
    return 0;
}

static int apertus_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    sw_gguf_set(config, "hidden_act", cJSON_CreateString("xielu"));
    return 0;
}

/* ---- Ministral 3: queries grow with their position */

static int ministral_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    cJSON *rope = cJSON_GetObjectItemCaseSensitive(config, "rope_scaling"), *growth_ = cJSON_DetachItemFromObjectCaseSensitive(config, "growth");
    if (growth_ && rope)
        sw_gguf_set(rope, "llama_4_scaling_beta", growth_);
    else
        cJSON_Delete(growth_);
    return 0;
}

/* ---- Falcon-H1: attention and Mamba 2 side by side, with multipliers that GGUF has in the weights */

static double factor(const cJSON *config, const char *name, int i)
{
    const cJSON *v = sw_json_get(config, name);
    v = i >= 0 && cJSON_IsArray(v) ? cJSON_GetArrayItem(v, i) : v;
    return cJSON_IsNumber(v) && v->valuedouble != 0 ? v->valuedouble : 1;
}

static void tie_scaled(sw_gguf_weaver *w, const char *gguf, const char *ours, double scale)
{
    char a[64], b[64];
    for (int i = 0; i < 2; i++) {
        snprintf(a, sizeof a, "%s.%s", gguf, i ? "bias" : "weight");
        snprintf(b, sizeof b, "%s.%s", ours, i ? "bias" : "weight");
        sw_gguf_tie(w, a, b, &(sw_gguf_part){.scale = scale});
    }
}

static int64_t count(const cJSON *config, const char *name, int64_t missing)
{
    const cJSON *v = sw_json_get(config, name);
    return cJSON_IsNumber(v) && v->valuedouble >= 1 && v->valuedouble <= 1 << 24 ? (int64_t)v->valuedouble : missing;
}

static void falcon_h1_layer(sw_gguf_weaver *w, const sw_spec *s, const sw_layer *l)
{
    static const sw_gguf_row rows[] = {SW_GGUF_TENSOR("ssm_conv1d.weight", "mamba.conv1d.weight", SW_GGUF_TAPS, SW_GGUF_SAME),
                                       SW_GGUF_TENSOR("ssm_conv1d.bias", "mamba.conv1d.bias", SW_GGUF_AS_IS, SW_GGUF_SAME),
                                       SW_GGUF_TENSOR("ssm_a", "mamba.A_log", SW_GGUF_COLUMN, SW_GGUF_MINUS_EXP),
                                       SW_GGUF_TENSOR("ssm_d", "mamba.D", SW_GGUF_COLUMN, SW_GGUF_SAME),
                                       SW_GGUF_TENSOR("ssm_dt.bias", "mamba.dt_bias", SW_GGUF_AS_IS, SW_GGUF_SAME), {0}};
    const cJSON *c = sw_gguf_weaver_config(w);
    if (!l) {
        tie_scaled(w, "token_embd", "model.embed_tokens", factor(c, "embedding_multiplier", -1));
        tie_scaled(w, "output", "lm_head", factor(c, "lm_head_multiplier", -1));
        return;
    }
    double in = factor(c, "attention_in_multiplier", -1), ssm = factor(c, "ssm_in_multiplier", -1);
    tie_scaled(w, "attn_q", "self_attn.q_proj", in);
    tie_scaled(w, "attn_k", "self_attn.k_proj", in * factor(c, "key_multiplier", -1));
    tie_scaled(w, "attn_v", "self_attn.v_proj", in);
    tie_scaled(w, "attn_output", "self_attn.o_proj", factor(c, "attention_out_multiplier", -1));
    tie_scaled(w, "ssm_out", "mamba.out_proj", factor(c, "ssm_out_multiplier", -1));
    sw_gguf_tie_rows(w, rows);
    int64_t heads = count(c, "mamba_n_heads", 128), groups = count(c, "mamba_n_groups", 1), state_ = groups * count(c, "mamba_d_state", 256);
    int64_t inner_ = count(c, "mamba_d_ssm", (int64_t)(factor(c, "mamba_expand", -1) * (double)s->hidden));
    const int64_t wide[] = {inner_, inner_, state_, state_, heads};
    int64_t at = 0, all = 2 * inner_ + 2 * state_ + heads;
    for (int i = 0; i < 5; at += wide[i++]) {
        sw_slice part = {at, wide[i], 0, wide[i]};
        sw_gguf_tie(w, "ssm_in.weight", "mamba.in_proj.weight",
                    &(sw_gguf_part){.in_gguf = part, .in_file = part, .n = wide[i], .gguf_rows = all, .file_rows = all,
                                    .scale = ssm * factor(c, "ssm_multipliers", i)});
    }
    sw_gguf_tie(w, "ssm_norm.weight", "mamba.norm.weight", &(sw_gguf_part){.groups = groups});
    sw_gguf_tie(w, "ffn_norm", "mlp_norm.weight", &(sw_gguf_part){0}); /* without ".weight" */
    tie_scaled(w, "ffn_gate", "mlp.gate_proj", factor(c, "mlp_multipliers", 0));
    tie_scaled(w, "ffn_down", "mlp.down_proj", factor(c, "mlp_multipliers", 1));
}

static int falcon_h1_keys(sw_gguf_writer *w, const char *arch, const sw_spec *s, const sw_checkpoint *c)
{
    bool norm = cJSON_IsTrue(sw_json_get(c->config, "mamba_rms_norm")), before = !cJSON_IsFalse(sw_json_get(c->config, "mamba_norm_before_gate"));
    if (norm && before)
        return sw_fail("GGUF's %s has no place for norms before the gate", arch);
    put_number(w, arch, "ssm.inner_size", count(c->config, "mamba_d_ssm", (int64_t)(factor(c->config, "mamba_expand", -1) * (double)s->hidden)));
    return 0;
}

static int falcon_h1_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    int64_t inner_ = size_of(g, arch, "ssm.inner_size"), heads = size_of(g, arch, "ssm.time_step_rank");
    set_number(config, "mamba_d_head", (double)inner_ / (double)SW_MAX(heads, 1));
    set_number(config, "mamba_d_ssm", (double)inner_);
    set_bool(config, "mamba_conv_bias", has(g, ".ssm_conv1d.bias"));
    set_bool(config, "mamba_rms_norm", has(g, ".ssm_norm.weight"));
    set_bool(config, "mamba_norm_before_gate", false);
    return 0;
}

/* ---- MiniMax-Text-01: one factor of all residuals, and none of what is added to them. Its slopes follow from the sizes. */

static int minimax_keys(sw_gguf_writer *w, const char *arch, const sw_spec *s, const sw_checkpoint *c)
{
    char key[SW_GGUF_KEY_MAX];
    (void)c;
    uint8_t *list = SW_NEW_ARRAY(uint8_t, (size_t)s->layers);
    double alpha = ((const sw_minimax_options *)s->layer[0].mixer_options)->alpha;
    int rc = 0;
    for (int64_t i = 0; i < s->layers && !rc; i++) {
        const sw_minimax_options *o = s->layer[i].mixer_options;
        list[i] = s->layer[i].mixer == &sw_mixer_lightning;
        if (o->alpha != alpha || o->mlp_alpha != alpha || o->beta != 1 || o->mlp_beta != 1)
            rc = sw_fail("GGUF's %s has no place for factors of the residuals that differ, nor for others", arch);
    }
    put_flags(w, arch, "attention.recurrent_layers", list, s->layers);
    sw_gguf_put_f32(w, sw_gguf_full(arch, "residual_scale", key), (float)alpha);
    free(list);
    return rc;
}

static int minimax_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    static const char *const factors[] = {"layernorm_linear_attention_", "layernorm_full_attention_", "layernorm_mlp_"};
    char key[SW_GGUF_KEY_MAX];
    double alpha;
    int64_t n = SW_MIN(sw_gguf_whole(config, "num_hidden_layers"), 4096), turned = size_of(g, arch, "rope.dimension_count");
    if (sw_gguf_f64(g, sw_gguf_full(arch, "residual_scale", key), 1, &alpha))
        return -1;
    for (size_t i = 0; i < SW_COUNT(factors); i++) {
        snprintf(key, sizeof key, "%salpha", factors[i]);
        set_number(config, key, alpha);
        snprintf(key, sizeof key, "%sbeta", factors[i]);
        set_number(config, key, 1);
    }
    cJSON *list = cJSON_CreateArray();
    for (int64_t i = 0; i < n; i++)
        cJSON_AddItemToArray(list, cJSON_CreateNumber(has_in_layer(g, i, "attn_q.weight")));
    sw_gguf_set(config, "attn_type_list", list);
    set_bool(config, "postnorm", true);
    if (turned)
        set_number(config, "rotary_dim", (double)turned);
    cJSON_DeleteItemFromObjectCaseSensitive(config, "partial_rotary_factor");
    return 0;
}

static void minimax_layer(sw_gguf_weaver *w, const sw_spec *s, const sw_layer *l)
{
    static const sw_gguf_row rows[] = {SW_GGUF_MODULE("attn_qkv", "self_attn.qkv_proj"), SW_GGUF_MODULE("attn_gate", "self_attn.output_gate"),
                                       SW_GGUF_MODULE("attn_output", "self_attn.out_proj"), SW_GGUF_MODULE("attn_norm_2", "self_attn.norm"), {0}};
    (void)s;
    if (l->mixer == &sw_mixer_lightning)
        sw_gguf_tie_rows(w, rows);
}

/* llama.cpp norms what lightning attention gives with the model's eps, the model with 1e-6; and knows no word after the 200032nd. */
#define MINIMAX(family_)                                                                                                \
    {.arch = "minimax-01", .family = family_, .flags = SW_GGUF_ALL_SPARSE, .layer = minimax_layer, .values = WORDS("slope_rate", "_decay"), \
     .words = WORDS("num_experts", "num_local_experts", "moe_intermediate_size", "", "norm_topk_prob", ""), .to_config = minimax_config, \
     .from_config = minimax_keys}

/* ---- Llama 4: chunks of 8192 in three of four layers, which alone turn */

static double dense_width(const sw_spec *s) { return (double)s->layer[0].mlp; }

static int llama4_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    (void)g, (void)arch;
    int64_t n = SW_MIN(sw_gguf_whole(config, "num_hidden_layers"), 4096);
    cJSON *types = cJSON_CreateArray();
    for (int64_t i = 0; i < n; i++)
        cJSON_AddItemToArray(types, cJSON_CreateString((i + 1) % 4 ? "chunked_attention" : "full_attention"));
    sw_gguf_set(config, "layer_types", types);
    set_number(config, "no_rope_layer_interval", 4);
    set_number(config, "attention_chunk_size", 8192);
    set_number(config, "floor_scale", 8192);
    set_number(config, "attn_scale", 0.1);
    set_bool(config, "use_qk_norm", sw_gguf_whole(config, "num_experts") != 128); /* the larger has none */
    return 0;
}

#define NO_ATTENTION                                                                                                   \
    "num_attention_heads", "", "num_key_value_heads", "", "attention_bias", "", "mlp_bias", "", "rms_norm_eps", "layer_norm_epsilon"
#define STATES2                                                                                                        \
    COUNT("ssm.inner_size", NULL, inner2), COUNT("ssm.conv_kernel", "mamba_d_conv", taps2), COUNT("ssm.state_size", "mamba_d_state", state2), \
        COUNT("ssm.time_step_rank", "mamba_n_heads", heads2), COUNT("ssm.group_count", "mamba_n_groups", groups2)
#define NEMOTRON_KEYS                                                                                                  \
    KEYS(COUNT("ssm.inner_size", NULL, inner2), COUNT("ssm.conv_kernel", "conv_kernel", taps2), COUNT("ssm.state_size", "ssm_state_size", state2), \
         COUNT("ssm.time_step_rank", "mamba_num_heads", heads2), COUNT("ssm.group_count", "n_groups", groups2),         \
         SPEC("attention.layer_norm_epsilon", NULL, eps))
#define DELTA_KEYS                                                                                                     \
    KEYS(COUNT("ssm.inner_size", NULL, delta_inner), COUNT("ssm.conv_kernel", "linear_conv_kernel_dim", delta_taps),   \
         COUNT("ssm.state_size", "linear_key_head_dim", delta_key), COUNT("ssm.time_step_rank", "linear_num_value_heads", delta_heads), \
         COUNT("ssm.group_count", "linear_num_key_heads", delta_key_heads))
#define NEMOTRON_WORDS "rms_norm_eps", "layer_norm_epsilon", "num_experts", "n_routed_experts", "hidden_act", "", "attention_bias", ""

const sw_gguf_kind sw_gguf_kinds_states[] = {
    {.arch = "mamba", .family = "falcon_mamba", .sign = "=ssm.dt_b_c_rms", .flags = SW_GGUF_NO_TURN,
     .keys = KEYS(COUNT("feed_forward_length", NULL, zero), COUNT("ssm.inner_size", NULL, inner), COUNT("ssm.conv_kernel", "conv_kernel", taps),
                  COUNT("ssm.state_size", "state_size", state), COUNT("ssm.time_step_rank", "time_step_rank", rank),
                  YES("ssm.dt_b_c_rms", NULL, normed)),
     .words = WORDS(NO_ATTENTION), .to_config = mamba_config},
    {.arch = "mamba", .family = "mamba", .flags = SW_GGUF_NO_TURN,
     .keys = KEYS(COUNT("feed_forward_length", NULL, zero), COUNT("ssm.inner_size", NULL, inner), COUNT("ssm.conv_kernel", "conv_kernel", taps),
                  COUNT("ssm.state_size", "state_size", state), COUNT("ssm.time_step_rank", "time_step_rank", rank),
                  YES("ssm.dt_b_c_rms", NULL, normed)),
     .words = WORDS(NO_ATTENTION), .to_config = mamba_config},
    {.arch = "mamba2", .family = "mamba2", .flags = SW_GGUF_NO_TURN,
     .keys = KEYS(COUNT("feed_forward_length", NULL, zero), COUNT("ssm.inner_size", NULL, inner2), COUNT("ssm.conv_kernel", "conv_kernel", taps2),
                  COUNT("ssm.state_size", "state_size", state2), COUNT("ssm.time_step_rank", "num_heads", heads2),
                  COUNT("ssm.group_count", "n_groups", groups2)),
     .words = WORDS(NO_ATTENTION, "intermediate_size", ""), .to_config = mamba_config},
    {.arch = "jamba", .family = "jamba", .flags = SW_GGUF_NO_TURN | SW_GGUF_KV_BY_LAYER | SW_GGUF_ALL_SPARSE,
     .keys = KEYS(COUNT("ssm.inner_size", NULL, inner), COUNT("ssm.conv_kernel", "mamba_d_conv", taps), COUNT("ssm.state_size", "mamba_d_state", state),
                  COUNT("ssm.time_step_rank", "mamba_dt_rank", rank)),
     .words = WORDS("moe_intermediate_size", "", "norm_topk_prob", "", "head_dim", ""), .to_config = jamba_config},
    {.arch = "granitehybrid", .family = "granitemoehybrid", .sign = "attention.scale", .flags = SW_GGUF_PAIRS | SW_GGUF_KV_BY_LAYER | SW_GGUF_ALL_SPARSE | SW_GGUF_BIASES,
     .keys = KEYS(STATES2, SCALE("attention.scale", "attention_multiplier"), SCALE("embedding_scale", "embedding_multiplier"),
                  SCALE("residual_scale", "residual_multiplier"), SPEC("logit_scale", "logits_scaling", divide_logits),
                  YES("rope.scaling.finetuned", NULL, turns)),
     .words = WORDS("num_experts", "num_local_experts", "moe_intermediate_size", "", "norm_topk_prob", "", "n_shared_experts", "",
                    "shared_expert_intermediate_size", "shared_intermediate_size"),
     .to_config = granite_hybrid_config},
    {.arch = "granitehybrid", .family = "bamba", .flags = SW_GGUF_PAIRS | SW_GGUF_KV_BY_LAYER | SW_GGUF_BIASES,
     .keys = KEYS(STATES2, YES("rope.scaling.finetuned", NULL, turns)), .to_config = bamba_config},
    {.arch = "nemotron_h_moe", .family = "nemotron_h", .sign = ".ffn_gate_inp.weight",
     .flags = SW_GGUF_NO_TURN | SW_GGUF_KV_BY_LAYER | SW_GGUF_MLP_BY_LAYER | SW_GGUF_ALL_SPARSE | SW_GGUF_BIASES, .keys = NEMOTRON_KEYS,
     .words = WORDS(NEMOTRON_WORDS, "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"), .to_config = nemotron_h_config,
     .from_config = nemotron_h_keys},
    {.arch = "nemotron_h", .family = "nemotron_h", .flags = SW_GGUF_NO_TURN | SW_GGUF_KV_BY_LAYER | SW_GGUF_MLP_BY_LAYER | SW_GGUF_BIASES,
     .keys = NEMOTRON_KEYS, .words = WORDS(NEMOTRON_WORDS), .to_config = nemotron_h_config},
    {.arch = "qwen3next", .family = "qwen3_next", .flags = SW_GGUF_NORMS_FROM_ONE | SW_GGUF_ALL_SPARSE,
     .names = ROWS(SW_GGUF_MODULE("post_attention_norm", "mlp_norm")),
     .more = ROWS(SW_GGUF_MODULE("ssm_ba", "linear_attn.in_proj_ba"), SW_GGUF_MODULE("ssm_out", "linear_attn.out_proj"),
                  SW_GGUF_TENSOR("ssm_norm.weight", "linear_attn.norm.weight", SW_GGUF_AS_IS, SW_GGUF_SAME),
                  SW_GGUF_TENSOR("ssm_conv1d.weight", "linear_attn.conv1d.weight", SW_GGUF_TAPS, SW_GGUF_SAME),
                  SW_GGUF_TENSOR("ssm_a", "linear_attn.A_log", SW_GGUF_AS_IS, SW_GGUF_MINUS_EXP),
                  SW_GGUF_TENSOR("ssm_dt.bias", "linear_attn.dt_bias", SW_GGUF_AS_IS, SW_GGUF_SAME)),
     .layer = qwen_next_layer, .keys = DELTA_KEYS, .words = WORDS("n_shared_experts", "", "mlp_bias", ""), .to_config = qwen_next_config,
     .from_config = qwen_next_keys},
    {.arch = "qwen35", .family = "qwen3_5_text", .flags = SW_GGUF_NORMS_FROM_ONE, .names = ROWS(SW_GGUF_MODULE("post_attention_norm", "mlp_norm")),
     .layer = qwen35_layer, .keys = DELTA_KEYS, .words = WORDS("mlp_bias", "", "norm_topk_prob", ""), .to_config = qwen35_config, .from_config = qwen35_keys},
    {.arch = "qwen35moe", .family = "qwen3_5_moe_text", .flags = SW_GGUF_NORMS_FROM_ONE | SW_GGUF_ALL_SPARSE,
     .names = ROWS(SW_GGUF_MODULE("post_attention_norm", "mlp_norm")), .layer = qwen35_layer, .keys = DELTA_KEYS,
     .words = WORDS("n_shared_experts", "", "mlp_bias", ""), .to_config = qwen35_config, .from_config = qwen35_keys},
    {.arch = "apertus", .family = "apertus", .flags = SW_GGUF_BIASES, .values = WORDS(".mlp.act_fn."), .to_config = apertus_config,
     .from_config = apertus_keys, .tensors = apertus_tensors},
    MINIMAX("minimax_text_01"),
    MINIMAX("minimax"),
    {.arch = "mistral3", .family = "ministral3", .flags = SW_GGUF_PAIRS | SW_GGUF_BIASES,
     .keys = KEYS(SPEC("attention.temperature_scale", "growth", growth)), .to_config = ministral_config},
    {.arch = "falcon-h1", .family = "falcon_h1", .flags = SW_GGUF_FOLDED,
     .names = ROWS(SW_GGUF_MODULE(NULL, "mlp_norm"), SW_GGUF_MODULE(NULL, "mlp.gate_proj"), SW_GGUF_MODULE(NULL, "mlp.down_proj")),
     .layer = falcon_h1_layer,
     .keys = KEYS({"ssm.conv_kernel", "mamba_d_conv", SW_GGUF_WHOLE, NULL, 4, true}, {"ssm.state_size", "mamba_d_state", SW_GGUF_WHOLE, NULL, 256, true},
                  {"ssm.time_step_rank", "mamba_n_heads", SW_GGUF_WHOLE, NULL, 128, true},
                  {"ssm.group_count", "mamba_n_groups", SW_GGUF_WHOLE, NULL, 1, true}),
     .to_config = falcon_h1_config, .from_config = falcon_h1_keys},
    {.arch = "llama4", .family = "llama4_text", .flags = SW_GGUF_PAIRS | SW_GGUF_ALL_SPARSE,
     .keys = KEYS(COUNT("feed_forward_length", "intermediate_size_mlp", dense_width),
                  {"interleave_moe_layer_step", "interleave_moe_layer_step", SW_GGUF_WHOLE, NULL, 1, true}),
     .words = WORDS("num_experts", "num_local_experts", "moe_intermediate_size", "intermediate_size", "shared_expert_intermediate_size", "",
                    "n_shared_experts", "", "norm_topk_prob", ""),
     .to_config = llama4_config},
    {.arch = "hy_v3", .family = "hy_v3", .names = ROWS(SW_GGUF_TENSOR("exp_probs_b", "mlp.correction", SW_GGUF_AS_IS, SW_GGUF_SAME)),
     .words = WORDS("shared_expert_intermediate_size", "", "n_shared_experts", "num_shared_experts", "routed_scaling_factor", "router_scaling_factor")},
    {0}};
