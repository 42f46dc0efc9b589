/* Mamba, Falcon-Mamba and Mamba 2: nothing but state-space layers. */
#include "model/family.h"
#include "model/mixer_mamba.h"

#include "base/json.h"

#include <string.h>

enum { MOST = 1 << 24 };

/* Mamba 1 and Falcon-Mamba: what intermediate_size says comes first (Falcon-Mamba-7B says another number by expand). */
static int inner_size(const sw_spec *s, const cJSON *config, bool told, int64_t *inner)
{
    double expand;
    if (told && (*inner = s->mlp) > 0)
        return 0;
    if (sw_json_f64(config, "expand", 2, &expand))
        return -1;
    *inner = (int64_t)(expand * (double)s->hidden);
    return expand > 0 && expand < 64 ? 0 : sw_fail("\"expand\": %g is not between 0 and 64", expand);
}

static void set_layers(sw_spec *s, const sw_mixer_ops *mixer, const void *options)
{
    for (int64_t i = 0; i < s->layers; i++) {
        s->layer[i].mixer = mixer;
        s->layer[i].mixer_options = options;
        s->layer[i].ffn = NULL;
    }
}

static int mamba(sw_spec *s, const cJSON *config, bool norms)
{
    sw_mamba_options *o = sw_arena_zalloc(&s->arena, sizeof *o);
    const cJSON *rank = sw_json_get(config, "time_step_rank");
    o->act = s->act;
    o->rank = (s->hidden + 15) / 16; /* "auto" */
    if (inner_size(s, config, true, &o->inner) || sw_json_i64(config, "state_size", 1, MOST, 16, &o->state) ||
        sw_json_i64(config, "conv_kernel", 1, MOST, 4, &o->taps) || sw_json_bool(config, "use_bias", false, &o->bias) ||
        sw_json_bool(config, "use_conv_bias", true, &o->conv_bias) ||
        (!cJSON_IsString(rank) && sw_json_i64(config, "time_step_rank", 1, MOST, o->rank, &o->rank)))
        return -1;
    o->inner_norm = (sw_norm_spec){.plain = true};
    if (norms && sw_json_f64(config, "mixer_rms_eps", 1e-6, &o->inner_norm.eps))
        return -1;
    set_layers(s, &sw_mixer_mamba, o);
    return sw_mamba_check(o);
}

static int mamba_layers(sw_spec *s, const cJSON *config) { return mamba(s, config, false); }
static int falcon_mamba_layers(sw_spec *s, const cJSON *config) { return mamba(s, config, true); }

static int mamba2_layers(sw_spec *s, const cJSON *config)
{
    sw_mamba2_options *o = sw_arena_zalloc(&s->arena, sizeof *o);
    int64_t inner;
    o->act = s->act;
    o->eps = s->norm.eps;
    if (inner_size(s, config, false, &inner) || sw_json_i64(config, "num_heads", 1, MOST, 128, &o->heads) ||
        sw_json_i64(config, "head_dim", 1, MOST, 64, &o->head_dim) || sw_json_i64(config, "n_groups", 1, MOST, 8, &o->groups) ||
        sw_json_i64(config, "state_size", 1, MOST, 128, &o->state) || sw_json_i64(config, "conv_kernel", 1, MOST, 4, &o->taps) ||
        sw_json_bool(config, "use_bias", false, &o->in_bias) || sw_json_bool(config, "use_conv_bias", true, &o->conv_bias) ||
        sw_mamba2_read_limit(o, config))
        return -1;
    o->out_bias = o->in_bias;
    if (inner != o->heads * o->head_dim)
        return sw_fail("\"expand\": %lld channels are not the %lld heads of %lld", (long long)inner, (long long)o->heads, (long long)o->head_dim);
    set_layers(s, &sw_mixer_mamba2, o);
    return sw_mamba2_check(o);
}

static const sw_rename names[] = {{"model.embed_tokens", "backbone.embeddings"}, {"model.norm", "backbone.norm_f"},
                                  {"model.layers", "backbone.layers"},           {"attn_norm", "norm"},
                                  {"mamba.", "mixer."},                          {0}};
#define STATES_ONLY .norm = {.eps = 1e-5}, .positions = SW_POSITIONS_NONE

const sw_family sw_family_mamba[] = {
    {.name = "mamba", .architectures = SW_NAMES("MambaForCausalLM"), .model_types = SW_NAMES("mamba"),
     .spec = {.tied = true, STATES_ONLY}, .layers = mamba_layers, .names = names},
    {.name = "falcon_mamba", .architectures = SW_NAMES("FalconMambaForCausalLM"), .model_types = SW_NAMES("falcon_mamba"),
     .spec = {.tied = true, STATES_ONLY}, .layers = falcon_mamba_layers, .names = names},
    {.name = "mamba2", .architectures = SW_NAMES("Mamba2ForCausalLM"), .model_types = SW_NAMES("mamba2"), .spec = {STATES_ONLY},
     .layers = mamba2_layers, .names = names},
    {0}};
