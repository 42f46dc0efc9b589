/* GGUF's descriptions of families with latent attention among layers that keep a state, or with an indexer (gguf_map.h). */
#include "model/ffn_moe.h"
#include "model/gguf_rows.h"
#include "model/mixer_mla.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
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
    {0}};
