/* GGUF's descriptions of families with latent attention among layers that keep a state, or with an indexer (gguf_map.h). */
#include "model/deepseek_v4.h"
#include "model/ffn_moe.h"
#include "model/gguf_rows.h"
#include "model/mixer_mla.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Kimi Linear. Its delta attention by its states: [taps - 1, heads * width] thrice and [heads, width, width]. */

typedef struct kda_sizes {
    int64_t taps, heads, width;
} kda_sizes;

static bool kda_of(const sw_spec *s, const sw_layer *l, kda_sizes *out)
{
    sw_state_spec t[SW_MOST_STATES];
    if (!l->mixer || strcmp(l->mixer->name, "Kimi delta attention") || l->mixer->states(s, l, t) != 4)
        return false;
    *out = (kda_sizes){t[0].shape[0] + 1, t[3].shape[0], t[3].shape[1]};
    return true;
}

#define KDA(name, value_)                                                                                              \
    static double name(const sw_spec *s)                                                                               \
    {                                                                                                                  \
        kda_sizes d;                                                                                                   \
        for (int64_t i = 0; i < s->layers; i++)                                                                        \
            if (kda_of(s, &s->layer[i], &d))                                                                           \
                return (double)(value_);                                                                               \
        return NAN;                                                                                                    \
    }
KDA(kda_taps, d.taps)
KDA(kda_width, d.width)
static double turned(const sw_spec *s) { return sw_gguf_latent(s) ? (double)sw_gguf_latent(s)->rope : NAN; }

#define KDA_IN                                                                                                          \
    SW_GGUF_MODULE("attn_q", "self_attn.q_proj"), SW_GGUF_MODULE("attn_k", "self_attn.k_proj"), SW_GGUF_MODULE("attn_v", "self_attn.v_proj")
#define KDA_OUT                                                                                                         \
    SW_GGUF_MODULE("ssm_beta", "self_attn.b_proj"), SW_GGUF_MODULE("attn_output", "self_attn.o_proj"),                  \
        SW_GGUF_TENSOR("ssm_norm.weight", "self_attn.o_norm.weight", SW_GGUF_AS_IS, SW_GGUF_SAME),                      \
        SW_GGUF_TENSOR("ssm_dt.bias", "self_attn.dt_bias", SW_GGUF_AS_IS, SW_GGUF_SAME)

static bool kda_layer(sw_gguf_weaver *w, const sw_spec *s, const sw_layer *l, const sw_gguf_row *rows)
{
    kda_sizes d;
    if (!kda_of(s, l, &d))
        return false;
    sw_gguf_tie_rows(w, rows);
    for (const char *p = "qkv"; *p; p++) { /* [1, n, 1, k] or [n, 1, k] there, as a file was made */
        char gguf[] = "ssm_conv1d_x.weight", ours[] = "self_attn.x_conv1d.weight";
        *strchr(gguf, 'x') = *strchr(ours, 'x') = *p;
        sw_gguf_tie(w, gguf, ours, &(sw_gguf_part){.n = d.heads * d.width, .gguf_rows = d.heads * d.width, .file_rows = d.heads * d.width,
                                                   .gguf_taps = true, .taps = true});
    }
    return true;
}

static void kimi_layer(sw_gguf_weaver *w, const sw_spec *s, const sw_layer *l)
{
    static const sw_gguf_row rows[] = {
        KDA_IN, SW_GGUF_MODULE("ssm_f_a", "self_attn.f_a_proj"), SW_GGUF_MODULE("ssm_f_b", "self_attn.f_b_proj"),
        SW_GGUF_MODULE("ssm_g_a", "self_attn.g_a_proj"), SW_GGUF_MODULE("ssm_g_b", "self_attn.g_b_proj"), KDA_OUT,
        SW_GGUF_TENSOR("ssm_a", "self_attn.A_log", SW_GGUF_MIDDLE, SW_GGUF_MINUS_EXP), {0}};
    (void)kda_layer(w, s, l, rows);
}

static int kimi_keys(sw_gguf_writer *w, const char *arch, const sw_spec *s, const sw_checkpoint *c)
{
    kda_sizes d;
    (void)w, (void)c;
    for (int64_t i = 0; i < s->layers; i++)
        if (kda_of(s, &s->layer[i], &d) && d.heads != s->heads)
            return sw_fail("GGUF's %s has no place for %lld heads in layers with a state beside %lld in the others", arch, (long long)d.heads, (long long)s->heads);
    return 0;
}

static int kimi_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    int64_t n = SW_MIN(sw_gguf_whole(config, "num_hidden_layers"), 4096);
    cJSON *linear = cJSON_CreateObject(), *state = cJSON_CreateArray(), *full = cJSON_CreateArray();
    for (int64_t i = 0; i < n; i++) /* counted from 1 */
        cJSON_AddItemToArray(has_in_layer(g, i, "ssm_beta.weight") ? state : full, cJSON_CreateNumber((double)(i + 1)));
    cJSON_AddNumberToObject(linear, "num_heads", (double)sw_gguf_whole(config, "num_attention_heads"));
    cJSON_AddNumberToObject(linear, "head_dim", (double)size_of(g, arch, "kda.head_dim"));
    cJSON_AddNumberToObject(linear, "short_conv_kernel_size", (double)size_of(g, arch, "ssm.conv_kernel"));
    cJSON_AddItemToObject(linear, "kda_layers", state);
    cJSON_AddItemToObject(linear, "full_attn_layers", full);
    sw_gguf_set(config, "linear_attn_config", linear);
    return 0;
}

/* ---- Ling 3: the same, with whole matrices for its gates and a least decay, and gates for latent attention's heads */

static void ling_layer(sw_gguf_weaver *w, const sw_spec *s, const sw_layer *l)
{
    static const sw_gguf_row rows[] = {KDA_IN, SW_GGUF_MODULE("ssm_f_a", "self_attn.f_proj"), SW_GGUF_MODULE("ssm_g_a", "self_attn.g_proj"), KDA_OUT,
                                       SW_GGUF_TENSOR("ssm_a", "self_attn.A_log", SW_GGUF_COLUMN, SW_GGUF_EXP), {0}},
                             gate[] = {SW_GGUF_MODULE("attn_gate", "self_attn.g_proj"), {0}};
    if (!kda_layer(w, s, l, rows))
        sw_gguf_tie_rows(w, gate);
}

static double dense_first(const sw_spec *s)
{
    int64_t i = 0;
    while (i < s->layers && s->layer[i].ffn != &sw_ffn_moe)
        i++;
    return (double)i;
}
static double expert_scale(const sw_spec *s) { return sw_gguf_moe(s) ? sw_gguf_moe(s)->router.scale : NAN; }

static int ling_keys(sw_gguf_writer *w, const char *arch, const sw_spec *s, const sw_checkpoint *c)
{
    if (cJSON_IsFalse(sw_json_get(c->config, "kda_safe_gate")))
        return sw_fail("GGUF's %s has no place for decays without a least one", arch);
    return kimi_keys(w, arch, s, c);
}

static int ling_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    set_layers(g, config, "layer_types", "ssm_beta.weight", "linear_attention", "full_attention");
    set_number(config, "head_dim", (double)size_of(g, arch, "kda.head_dim"));
    return leave_out_further(g, arch, config);
}

/* ---- DeepSeek 3.2 and GLM 5: an indexer chooses what is attended to */

#define INDEXER(name, value)                                                                                           \
    static double name(const sw_spec *s) { return sw_gguf_latent(s) ? (double)sw_gguf_latent(s)->indexer.value : NAN; }
INDEXER(index_heads, heads)
INDEXER(index_width, width)
INDEXER(index_best, topk)

static int indexer_keys(sw_gguf_writer *w, const char *arch, const sw_spec *s, const sw_checkpoint *c)
{
    (void)w, (void)c;
    for (int64_t i = 0; i < s->layers; i++)
        if (s->layer[i].mixer == &sw_mixer_mla && ((const sw_mla *)s->layer[i].mixer_options)->indexer.follows)
            return sw_fail("GGUF's %s has no place for layers that take the choice of the one before", arch);
    return 0;
}

#define INDEXED                                                                                                        \
    .flags = SW_GGUF_PAIRS | SW_GGUF_SPLIT_KV,                                                                         \
    .more = ROWS(SW_GGUF_MODULE("indexer.attn_q_b", "self_attn.indexer.wq_b"), SW_GGUF_MODULE("indexer.attn_k", "self_attn.indexer.wk"), \
                 SW_GGUF_MODULE("indexer.k_norm", "self_attn.indexer.k_norm"), SW_GGUF_MODULE("indexer.proj", "self_attn.indexer.weights_proj")), \
    .keys = KEYS(COUNT("attention.indexer.head_count", "index_n_heads", index_heads), COUNT("attention.indexer.key_length", "index_head_dim", index_width), \
                 COUNT("attention.indexer.top_k", "index_topk", index_best)),                                          \
    .words = WORDS("num_experts", "n_routed_experts", "shared_expert_intermediate_size", ""), .to_config = leave_out_further, .from_config = indexer_keys

/* ---- DeepSeek 4: rows that windows of tokens are compressed into, streams, and experts by token in the first layers */

#define V4(name, value)                                                                                                \
    static double name(const sw_spec *s)                                                                               \
    {                                                                                                                  \
        const sw_deepseek_v4 *o = s->layer[0].mixer_options;                                                           \
        return (double)(value);                                                                                        \
    }
V4(v4_q_rank, o->attention.q_rank)
V4(v4_groups, o->attention.groups)
V4(v4_group_rank, o->attention.group_rank)
V4(v4_streams, o->streams.n)
V4(v4_rounds, o->streams.rounds)
V4(v4_eps, o->streams.eps)
GET(v4_theta, s->rope[1].theta)
GET(one, ((void)s, 1))
GET(unsaid, ((void)s, NAN))

static bool by_token(const sw_layer *l) { return ((const sw_moe *)l->ffn_options)->by_token; }

static double v4_tables(const sw_spec *s)
{
    int64_t i = 0;
    while (i < s->layers && by_token(&s->layer[i]))
        i++;
    return (double)i;
}

/* What llama.cpp is built for: its loader refuses other rows, and it ends while it runs other streams and indexers. */
enum { V4_SPARSE = 4, V4_HEAVY = 128, V4_STREAMS = 4, V4_INDEX = 64 };

static int v4_fits(const sw_spec *s, const char *arch)
{
    const sw_streams *streams = &((const sw_deepseek_v4 *)s->layer[0].mixer_options)->streams;
    if (streams->n != V4_STREAMS)
        return sw_fail("GGUF's %s has no place for %lld streams: its readers have %d", arch, (long long)streams->n, V4_STREAMS);
    if (s->tied)
        return sw_fail("GGUF's %s has no place for a head that is the embedding", arch);
    for (int64_t i = 0; i < s->layers; i++) {
        const sw_compressed *o = s->layer[i].mixer_options;
        const sw_moe *m = s->layer[i].ffn_options;
        if (o->every && o->every != (o->overlap ? V4_SPARSE : V4_HEAVY))
            return sw_fail("GGUF's %s has no place for rows of %lld tokens in layer %lld: its readers make them of %d with an "
                           "indexer, of %d without",
                           arch, (long long)o->every, (long long)i, V4_SPARSE, V4_HEAVY);
        if (o->indexer.width % V4_INDEX)
            return sw_fail("GGUF's %s has no place for an indexer's heads of %lld values: its readers run multiples of %d", arch,
                           (long long)o->indexer.width, V4_INDEX);
        if (m->router.score != SW_ROUTE_SQRT_SOFTPLUS)
            return sw_fail("GGUF's %s has no place for scores of experts but sqrtsoftplus", arch);
        if (m->by_token && i >= v4_tables(s))
            return sw_fail("GGUF's %s has no place for experts by token in layer %lld: such layers are the first", arch,
                           (long long)i);
    }
    return 0;
}

static int v4_keys(sw_gguf_writer *w, const char *arch, const sw_spec *s, const sw_checkpoint *c)
{
    char key[SW_GGUF_KEY_MAX];
    (void)c;
    if (v4_fits(s, arch))
        return -1;
    int32_t *tokens = SW_NEW_ARRAY(int32_t, (size_t)s->layers);
    float *limits = SW_NEW_ARRAY(float, (size_t)s->layers);
    for (int64_t i = 0; i < s->layers; i++) {
        tokens[i] = (int32_t)((const sw_compressed *)s->layer[i].mixer_options)->every;
        limits[i] = (float)((const sw_moe *)s->layer[i].ffn_options)->limit;
    }
    put_list(w, arch, "attention.compress_ratios", tokens, s->layers);
    sw_gguf_put_array(w, sw_gguf_full(arch, "swiglu_clamp_exp", key), SW_GGUF_F32, (uint64_t)s->layers, limits);
    free(tokens);
    free(limits);
    return 0;
}

/* One limit, or the same for every layer; with `first` whatever it is, else the same as another. */
static int v4_limit(const sw_gguf *g, const char *key, bool first, double *limit)
{
    const sw_gguf_value *v = sw_gguf_find(g, key);
    sw_gguf_iter it = sw_gguf_items(v);
    double d;
    if (!v)
        return 0;
    if (v->type != SW_GGUF_ARRAY && sw_gguf_f64(g, key, 0, &d))
        return -1;
    for (bool one = v->type != SW_GGUF_ARRAY; one || sw_gguf_next_f64(&it, &d); one = false) {
        if (!first && d != *limit)
            return sw_fail("%s: %g beside %g: limits that differ are not run here", key, d, *limit);
        first = false;
        *limit = d;
    }
    return 0;
}

static int v4_config(const sw_gguf *g, const char *arch, cJSON *config)
{
    static const char *const needed[] = {
        "attention.key_length", "attention.q_lora_rank", "attention.output_lora_rank", "attention.output_group_count",
        "attention.sliding_window", "attention.compress_ratios", "attention.compress_rope_freq_base",
        "attention.indexer.head_count", "attention.indexer.key_length", "attention.indexer.top_k", "hyper_connection.count",
        "hyper_connection.sinkhorn_iterations", "hyper_connection.epsilon", "hash_layer_count", "expert_gating_func",
        "expert_weights_scale", "expert_weights_norm", "swiglu_clamp_exp"};
    char key[SW_GGUF_KEY_MAX];
    for (size_t i = 0; i < SW_COUNT(needed); i++)
        if (!sw_gguf_find(g, sw_gguf_full(arch, needed[i], key)))
            return sw_fail("%s is missing", key);
    int64_t n = sw_gguf_whole(config, "num_hidden_layers"), further = size_of(g, arch, "nextn_predict_layers"), gate, turned;
    /* some files count layers that guess further tokens and do not have them */
    if (further && further < n && has_in_layer(g, n - further, "nextn.eh_proj.weight")) {
        n -= further;
        set_number(config, "num_hidden_layers", (double)n);
    }
    if (sw_gguf_i64(g, sw_gguf_full(arch, "expert_gating_func", key), 0, 1 << 16, 0, &gate))
        return -1;
    if (gate != 4)
        return sw_fail("%s: %lld: 4 (sqrtsoftplus) is needed", key, (long long)gate);
    if (!cJSON_IsTrue(sw_json_get(config, "norm_topk_prob")))
        return sw_fail("%s.expert_weights_norm: weights that do not sum to one are not run here", arch);
    sw_gguf_iter it = sw_gguf_items(sw_gguf_find(g, sw_gguf_full(arch, "attention.compress_ratios", key)));
    cJSON *tokens = cJSON_CreateArray();
    double d, limit = 0;
    for (int64_t i = 0; i < n && sw_gguf_next_f64(&it, &d); i++)
        cJSON_AddItemToArray(tokens, cJSON_CreateNumber(d));
    sw_gguf_set(config, "compress_ratios", tokens);
    if (v4_limit(g, sw_gguf_full(arch, "swiglu_clamp_exp", key), true, &limit) ||
        v4_limit(g, sw_gguf_full(arch, "swiglu_clamp_shexp", key), false, &limit))
        return -1;
    set_number(config, "swiglu_limit", limit);
    turned = size_of(g, arch, "rope.dimension_count");
    cJSON_DeleteItemFromObjectCaseSensitive(config, "partial_rotary_factor");
    set_number(config, "qk_rope_head_dim", (double)(turned ? turned : sw_gguf_whole(config, "head_dim")));
    return 0;
}

#define V4_HYPER(gguf_, ours_)                                                                                         \
    SW_GGUF_TENSOR(gguf_ "_fn.weight", ours_ ".fn", SW_GGUF_AS_IS, SW_GGUF_SAME),                                      \
        SW_GGUF_TENSOR(gguf_ "_base.weight", ours_ ".base", SW_GGUF_AS_IS, SW_GGUF_SAME),                              \
        SW_GGUF_TENSOR(gguf_ "_scale.weight", ours_ ".scale", SW_GGUF_AS_IS, SW_GGUF_SAME)
#define V4_COMPRESSOR(gguf_, ours_)                                                                                    \
    SW_GGUF_MODULE(gguf_ "_kv", ours_ ".kv_proj"), SW_GGUF_MODULE(gguf_ "_gate", ours_ ".gate_proj"),                  \
        SW_GGUF_MODULE(gguf_ "_norm", ours_ ".kv_norm"),                                                               \
        SW_GGUF_TENSOR(gguf_ "_ape.weight", ours_ ".position_bias", SW_GGUF_AS_IS, SW_GGUF_SAME)

static void v4_layer(sw_gguf_weaver *w, const sw_spec *s, const sw_layer *l)
{
    static const sw_gguf_row rows[] = {
        SW_GGUF_MODULE("attn_q_a", "self_attn.q_a_proj"), SW_GGUF_MODULE("attn_q_a_norm", "self_attn.q_a_norm"),
        SW_GGUF_MODULE("attn_q_b", "self_attn.q_b_proj"), SW_GGUF_MODULE("attn_kv", "self_attn.kv_proj"),
        SW_GGUF_MODULE("attn_kv_a_norm", "self_attn.kv_norm"), SW_GGUF_MODULE("attn_output_a", "self_attn.o_a_proj"),
        SW_GGUF_MODULE("attn_output_b", "self_attn.o_b_proj"),
        SW_GGUF_TENSOR("attn_sinks.weight", "self_attn.sinks", SW_GGUF_AS_IS, SW_GGUF_SAME),
        V4_COMPRESSOR("attn_compressor", "self_attn.compressor"),
        V4_COMPRESSOR("indexer_compressor", "self_attn.indexer.compressor"),
        SW_GGUF_MODULE("indexer.attn_q_b", "self_attn.indexer.q_b_proj"),
        SW_GGUF_MODULE("indexer.proj", "self_attn.indexer.weights_proj"),
        V4_HYPER("hc_attn", "attn_hc"), V4_HYPER("hc_ffn", "ffn_hc"),
        SW_GGUF_TENSOR("ffn_gate_tid2eid.weight", "mlp.router.by_token", SW_GGUF_AS_IS, SW_GGUF_SAME), {0}};
    (void)s, (void)l;
    sw_gguf_tie_rows(w, rows);
}

static void v4_around(sw_gguf_weaver *w, const sw_spec *s)
{
    static const sw_gguf_row rows[] = {V4_HYPER("output_hc", "model.hc_head"), {0}};
    (void)s;
    sw_gguf_tie_rows(w, rows);
}

const sw_gguf_kind sw_gguf_kinds_latent[] = {
    {.arch = "kimi-linear", .family = "kimi_linear", .flags = SW_GGUF_SPLIT_KV | SW_GGUF_KV_BY_LAYER, .layer = kimi_layer,
     .keys = KEYS(COUNT("ssm.conv_kernel", NULL, kda_taps), COUNT("kda.head_dim", NULL, kda_width), COUNT("rope.dimension_count", NULL, turned)),
     .words = WORDS("num_experts_per_tok", "num_experts_per_token", "shared_expert_intermediate_size", "", "n_shared_experts", "num_shared_experts",
                    "norm_topk_prob", "moe_renormalize", "n_group", "num_expert_group"),
     .to_config = kimi_config, .from_config = kimi_keys},
    {.arch = "bailingmoe3", .family = "bailing_hybrid", .flags = SW_GGUF_SPLIT_KV | SW_GGUF_KV_BY_LAYER, .layer = ling_layer,
     .keys = KEYS(COUNT("ssm.conv_kernel", "short_conv_kernel_size", kda_taps), COUNT("kda.head_dim", NULL, kda_width),
                  FIELD("kda.safe_gate", "kda_safe_gate", SW_GGUF_YES_NO, 1), FRACTION("kda.gate_lower_bound", "kda_lower_bound", -5),
                  COUNT("leading_dense_block_count", "first_k_dense_replace", dense_first),
                  SPEC("expert_weights_scale", "routed_scaling_factor", expert_scale)),
     .words = WORDS("shared_expert_intermediate_size", "", "n_shared_experts", "num_shared_experts", "attention_bias", "", "mlp_bias", ""),
     .to_config = ling_config, .from_config = ling_keys},
    {.arch = "deepseek32", .family = "deepseek_v32", INDEXED},
    {.arch = "glm-dsa", .family = "glm_moe_dsa", INDEXED},
    /* Of rows with the same score (none, where no head of the indexer is for them) llama.cpp may keep others: logits differ there. */
    {.arch = "deepseek4", .family = "deepseek_v4", .flags = SW_GGUF_WINDOWS | SW_GGUF_SECOND_SCALES, .layer = v4_layer,
     .around = v4_around,
     .keys = KEYS(COUNT("attention.head_count_kv", "num_key_value_heads", one),
                  COUNT("attention.q_lora_rank", "q_lora_rank", v4_q_rank),
                  COUNT("attention.output_lora_rank", "o_lora_rank", v4_group_rank),
                  COUNT("attention.output_group_count", "o_groups", v4_groups),
                  SPEC("attention.compress_rope_freq_base", "compress_rope_theta", v4_theta),
                  COUNT("attention.sliding_window_pattern", NULL, unsaid), /* all slide */
                  FIELD("attention.indexer.head_count", "index_n_heads", SW_GGUF_WHOLE, 64),
                  FIELD("attention.indexer.key_length", "index_head_dim", SW_GGUF_WHOLE, 128),
                  FIELD("attention.indexer.top_k", "index_topk", SW_GGUF_WHOLE, 512),
                  COUNT("hyper_connection.count", "hc_mult", v4_streams),
                  COUNT("hyper_connection.sinkhorn_iterations", "hc_sinkhorn_iters", v4_rounds),
                  SPEC("hyper_connection.epsilon", "hc_eps", v4_eps), COUNT("hash_layer_count", "num_hash_layers", v4_tables),
                  SPEC("expert_weights_scale", "routed_scaling_factor", expert_scale)),
     .words = WORDS("num_experts", "n_routed_experts", "shared_expert_intermediate_size", ""), .to_config = v4_config,
     .from_config = v4_keys},
    {0}};
