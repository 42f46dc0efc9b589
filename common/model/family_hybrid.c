/* Families of state-space layers with some attention among them: Bamba, Jamba, Nemotron-H. */
#include "model/ffn_moe.h"
#include "model/mixer_mamba.h"

#include "base/json.h"

#include <string.h>

/* ---- Bamba */

static bool lists(const cJSON *list, int64_t i)
{
    for (const cJSON *v = list ? list->child : NULL; v; v = v->next)
        if (cJSON_IsNumber(v) && v->valuedouble == (double)i)
            return true;
    return false;
}

static int bamba_layers(sw_spec *s, const cJSON *config)
{
    const sw_mamba2_options *o = sw_mamba2_read(s, config);
    for (int64_t i = 0; o && i < s->layers; i++)
        if (!lists(sw_json_get(config, "attn_layer_indices"), i))
            sw_mamba2_layer(&s->layer[i], o);
    return o ? 0 : -1;
}

/* ---- Jamba */

SW_MOE_LAYERS(jamba_experts, .router = {.score = SW_ROUTE_SOFTMAX})

static int jamba_layers(sw_spec *s, const cJSON *config)
{
    sw_mamba_options *o = sw_arena_zalloc(&s->arena, sizeof *o);
    const int64_t most = 1 << 24;
    int64_t every, at, expert_every, expert_at, experts;
    double expand;
    o->act = s->act;
    o->rank = (s->hidden + 15) / 16; /* "auto" */
    o->inner_norm = s->norm;
    if (sw_json_i64(config, "attn_layer_period", 1, 4096, 8, &every) || sw_json_i64(config, "attn_layer_offset", 0, 4096, 4, &at) ||
        sw_json_i64(config, "expert_layer_period", 1, 4096, 2, &expert_every) ||
        sw_json_i64(config, "expert_layer_offset", 0, 4096, 1, &expert_at) || sw_json_i64(config, "num_experts", 1, most, 16, &experts) ||
        sw_json_f64(config, "mamba_expand", 2, &expand) || sw_json_i64(config, "mamba_d_state", 1, most, 16, &o->state) ||
        sw_json_i64(config, "mamba_d_conv", 1, most, 4, &o->taps) || sw_json_bool(config, "mamba_proj_bias", false, &o->bias) ||
        sw_json_bool(config, "mamba_conv_bias", true, &o->conv_bias) ||
        (!cJSON_IsString(sw_json_get(config, "mamba_dt_rank")) && sw_json_i64(config, "mamba_dt_rank", 1, most, o->rank, &o->rank)))
        return -1;
    o->inner = expand > 0 && expand < 64 ? (int64_t)(expand * (double)s->hidden) : 0;
    if (sw_mamba_check(o) || (experts > 1 && jamba_experts(s, config)))
        return -1;
    for (int64_t i = 0; i < s->layers; i++) {
        sw_layer *l = &s->layer[i];
        if (i % every != at) {
            l->mixer = &sw_mixer_mamba;
            l->mixer_options = o;
        }
        if (i % expert_every != expert_at) {
            l->ffn = &sw_ffn_dense;
            l->ffn_options = NULL;
        }
    }
    return 0;
}

/* ---- Nemotron-H: a layer is one thing, a mixer or a feed-forward */

typedef struct single {
    sw_norm norm;
} single;

static void declare_single(sw_builder *b, void *self)
{
    single *d = self;
    const sw_spec *s = sw_builder_spec(b);
    sw_ask_norm(b, &d->norm, "attn_norm", s->hidden, &s->norm);
    sw_declare_parts(b);
}

static sw_var *single_forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    single *d = self;
    sw_scope scope = sw_scope_begin(c);
    sw_var *h = sw_norm_forward(c, &d->norm, x);
    h = h ? p->block->spec->mixer ? sw_mix(c, p, h) : sw_feed(c, p, h) : NULL;
    return h ? sw_scope_return(c, scope, sw_add(c, h, x)) : NULL;
}

static const sw_block_ops block_single = {sizeof(single), declare_single, single_forward};

static const char *pattern_of(const cJSON *config)
{
    const cJSON *pattern = sw_json_get(config, "hybrid_override_pattern");
    return cJSON_IsString(pattern) && !sw_json_get(config, "layers_block_type") && !sw_json_get(config, "layer_types") ? pattern->valuestring
                                                                                                                       : NULL;
}

static const cJSON *types_of(const cJSON *config)
{
    const cJSON *types = sw_json_get(config, "layers_block_type");
    return types ? types : sw_json_get(config, "layer_types");
}

/* M, E, * or -: what layer i is; 0 for anything else. */
static char kind_of(const cJSON *config, int64_t i)
{
    static const struct {
        const char *name;
        char kind;
    } kinds[] = {{"linear_attention", 'M'}, {"mamba", 'M'}, {"moe", 'E'}, {"full_attention", '*'}, {"attention", '*'}, {"mlp", '-'}};
    const char *pattern = pattern_of(config);
    if (pattern)
        return strchr("ME*-", pattern[i]) ? pattern[i] : 0;
    const cJSON *type = cJSON_GetArrayItem(types_of(config), (int)i);
    for (size_t k = 0; cJSON_IsString(type) && k < SW_COUNT(kinds); k++)
        if (!strcmp(kinds[k].name, type->valuestring))
            return kinds[k].kind;
    return 0;
}

static int read_nemotron_h(sw_spec *s, const cJSON *config)
{
    const char *pattern = pattern_of(config);
    const cJSON *types = types_of(config);
    if (!pattern && !cJSON_IsArray(types))
        return sw_fail("\"layers_block_type\": a list of what each layer is is needed, or \"hybrid_override_pattern\"");
    s->tied = false; /* whatever the configuration says */
    s->layers = pattern ? (int64_t)strlen(pattern) : cJSON_GetArraySize(types);
    if (!sw_json_get(config, "head_dim") && sw_json_i64(config, "attention_head_dim", 1, 1 << 16, s->head_dim, &s->head_dim))
        return -1;
    if (sw_json_bool(config, "mlp_bias", false, &s->mlp_bias) || sw_read_act(config, "mlp_hidden_act", SW_ACT_RELU2, &s->act))
        return -1;
    s->down_bias = s->mlp_bias;
    return 0;
}

SW_MOE_LAYERS(nemotron_experts, .router = {.score = SW_ROUTE_SIGMOID, .normalise = true, .eps = 1e-20, .group_by_two = true},
              .correction = true, .shared_wide = 1)

static const sw_moe *read_nemotron_experts(sw_spec *s, const cJSON *config)
{
    if (nemotron_experts(s, config))
        return NULL;
    sw_moe m = *(const sw_moe *)s->layer[0].ffn_options;
    m.shared_bias = s->mlp_bias;
    if (sw_json_i64(config, "moe_latent_size", 1, 1 << 20, 0, &m.latent))
        return NULL;
    return sw_json_i64(config, "moe_shared_expert_intermediate_size", 1, 1 << 24, m.shared_wide, &m.shared_wide) ? NULL : sw_moe_keep(s, &m);
}

static int nemotron_h_layers(sw_spec *s, const cJSON *config)
{
    sw_mamba2_options *o = sw_arena_zalloc(&s->arena, sizeof *o);
    const int64_t most = 1 << 24;
    const sw_moe *moe = NULL;
    o->eps = s->norm.eps;
    if (sw_json_i64(config, "mamba_num_heads", 1, most, 128, &o->heads) || sw_json_i64(config, "mamba_head_dim", 1, most, 64, &o->head_dim) ||
        sw_json_i64(config, sw_json_get(config, "mamba_n_groups") ? "mamba_n_groups" : "n_groups", 1, most, 8, &o->groups) ||
        sw_json_i64(config, "ssm_state_size", 1, most, 128, &o->state) ||
        sw_json_i64(config, sw_json_get(config, "mamba_d_conv") ? "mamba_d_conv" : "conv_kernel", 1, most, 4, &o->taps) ||
        sw_json_bool(config, "use_bias", false, &o->in_bias) ||
        sw_json_bool(config, sw_json_get(config, "mamba_conv_bias") ? "mamba_conv_bias" : "use_conv_bias", true, &o->conv_bias) ||
        sw_read_act(config, "mamba_hidden_act", SW_ACT_SILU, &o->act) ||
        sw_json_f64(config, sw_json_get(config, "mamba_dt_min") ? "mamba_dt_min" : "time_step_min", 1e-3, &o->dt_least) || sw_mamba2_check(o))
        return -1;
    o->out_bias = o->in_bias;
    for (int64_t i = 0; i < s->layers && !moe; i++)
        if (kind_of(config, i) == 'E' && !(moe = read_nemotron_experts(s, config)))
            return -1;
    for (int64_t i = 0; i < s->layers; i++) {
        sw_layer *l = &s->layer[i];
        char kind = kind_of(config, i);
        l->block = &block_single;
        if (!kind)
            return sw_fail("layer %lld is neither mamba, attention, mlp nor moe", (long long)i);
        if (kind == 'M')
            sw_mamba2_layer(l, o);
        if (kind == 'E' || kind == '-')
            l->mixer = NULL;
        if (kind == 'E')
            sw_moe_layer(s, i, moe);
        else
            l->ffn = kind == '-' ? &sw_ffn_dense : NULL;
    }
    return 0;
}

static const sw_rename feed_forward_names[] = {{"model.norm", "model.final_layernorm"}, {"mlp_norm", "pre_ff_layernorm"},
                                               {"mlp.", "feed_forward."}, {0}};
static const sw_rename nemotron_names[] = {{"model.embed_tokens", "backbone.embeddings"}, {"model.norm", "backbone.norm_f"},
                                           {"model.layers", "backbone.layers"}, {"attn_norm", "norm"}, {"mamba.", "mixer."},
                                           {"self_attn.", "mixer."}, {"mlp.", "mixer."}, {"mlp.router", "mixer.gate"},
                                           {"mlp.correction", "mixer.gate.e_score_correction_bias"},
                                           {"mlp.shared.", "mixer.shared_experts."}, {"mlp.latent_in", "mixer.fc1_latent_proj"},
                                           {"mlp.latent_out", "mixer.fc2_latent_proj"}, {0}};

const sw_family sw_family_hybrid[] = {
    {.name = "bamba", .architectures = SW_NAMES("BambaForCausalLM"), .model_types = SW_NAMES("bamba"),
     .spec = {.norm = {.eps = 1e-5}, .rope = {{.partial = 0.5}}}, .read = sw_read_biases, .layers = bamba_layers, .names = feed_forward_names},
    {.name = "jamba", .architectures = SW_NAMES("JambaForCausalLM", "JambaForSequenceClassification"), .no_word_classes = true, .model_types = SW_NAMES("jamba"),
     .spec = {.positions = SW_POSITIONS_NONE}, .layers = jamba_layers, .names = feed_forward_names},
    {.name = "nemotron_h", .architectures = SW_NAMES("NemotronHForCausalLM"), .model_types = SW_NAMES("nemotron_h"),
     .spec = {.norm = {.eps = 1e-5}, .positions = SW_POSITIONS_NONE, .plain_mlp = true, .act = SW_ACT_RELU2}, .read = read_nemotron_h,
     .layers = nemotron_h_layers, .names = nemotron_names},
    {0}};
