/* Kimi Linear and Ling 3: Kimi delta attention (Kimi Team 2025, arXiv 2510.26692), the gated delta rule with a decay for each
 * channel of the key, with some latent attention among it (Kimi's has no positions, Ling's weights its heads), and experts. */
#include "model/ffn_moe.h"
#include "model/mixer_mamba.h"
#include "model/mixer_mla.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

typedef struct kda_options {
    int64_t heads, head_dim, taps;
    bool whole;        /* f and g are one matrix each, not a product of two thin ones; A is a row */
    double least;      /* of the decay's logarithm, which a sigmoid then reaches (safe gate); 0: softplus */
} kda_options;

enum { Q, K, V };
typedef struct kda {
    sw_linear in[3], f_a, f_b, g_a, g_b, b, out;
    sw_param *conv[3], *dt_bias, *a_log;
    sw_norm norm;
    sw_norm_spec plain;
} kda;

static const kda_options *options(const sw_layer *l) { return l->mixer_options; }

static void declare(sw_builder *b, void *self)
{
    static const char *const in[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};
    static const char *const conv[] = {"self_attn.q_conv1d.weight", "self_attn.k_conv1d.weight", "self_attn.v_conv1d.weight"};
    kda *m = self;
    const sw_spec *s = sw_builder_spec(b);
    const kda_options *o = options(sw_builder_layer(b));
    int64_t inner = o->heads * o->head_dim;
    for (int i = Q; i <= V; i++) {
        sw_ask_linear(b, &m->in[i], in[i], inner, s->hidden, 0);
        m->conv[i] = sw_ask(b, conv[i], 3, (int64_t[]){inner, 1, o->taps}, 0);
    }
    if (o->whole) {
        sw_ask_linear(b, &m->f_b, "self_attn.f_proj", inner, s->hidden, 0);
        sw_ask_linear(b, &m->g_b, "self_attn.g_proj", inner, s->hidden, 0);
    } else {
        sw_ask_linear(b, &m->f_a, "self_attn.f_a_proj", o->head_dim, s->hidden, 0);
        sw_ask_linear(b, &m->f_b, "self_attn.f_b_proj", inner, o->head_dim, 0);
        sw_ask_linear(b, &m->g_a, "self_attn.g_a_proj", o->head_dim, s->hidden, 0);
        sw_ask_linear(b, &m->g_b, "self_attn.g_b_proj", inner, o->head_dim, 0);
    }
    sw_ask_linear(b, &m->b, "self_attn.b_proj", o->heads, s->hidden, 0);
    m->dt_bias = sw_ask(b, "self_attn.dt_bias", 1, &inner, SW_ASK_F32);
    m->a_log = o->whole ? sw_ask(b, "self_attn.A_log", 1, &o->heads, SW_ASK_F32)
                        : sw_ask(b, "self_attn.A_log", 4, (int64_t[]){1, 1, o->heads, 1}, SW_ASK_F32);
    m->plain = (sw_norm_spec){.eps = s->norm.eps};
    sw_ask_norm(b, &m->norm, "self_attn.o_norm", o->head_dim, &m->plain);
    sw_ask_linear(b, &m->out, "self_attn.o_proj", s->hidden, inner, 0);
}

static sw_var *as_heads(sw_ctx *c, sw_var *x, const kda_options *o)
{
    int64_t inner = o->heads * o->head_dim;
    return sw_part(c, x, 0, 3, (int64_t[]){x->t.shape[0], o->heads, o->head_dim}, (int64_t[]){inner, o->head_dim, 1});
}

static sw_var *chain(sw_ctx *c, sw_linear *first, sw_linear *second, sw_var *x)
{
    sw_var *y = first->w ? sw_linear_forward(c, first, x) : x;
    return y ? sw_linear_forward(c, second, y) : NULL;
}

/* exp(A) of each head, times sign, in all its channels: [heads, head_dim]. */
static sw_var *rates(sw_ctx *c, kda *m, const kda_options *o, double sign)
{
    sw_var *a = sw_parameter(c, m->a_log), *each = sw_tmp2(c, SW_F32, o->heads, o->head_dim);
    a = a ? sw_activation(c, a, SW_ACT_EXP) : NULL;
    if (!a || !each || sw_k(c)->fill(sw_s(c), &each->t, sign))
        return NULL;
    return sw_scale_rows(c, each, sw_part(c, a, 0, 2, (int64_t[]){o->heads, 1}, (int64_t[]){1, 1}));
}

/* -exp(A) softplus(f + bias), or with a least value least * sigmoid(exp(A) (f + bias)): f32 [N, heads, head_dim]. */
static sw_var *decay(sw_ctx *c, kda *m, const kda_options *o, sw_var *x)
{
    sw_var *g = chain(c, &m->f_a, &m->f_b, x), *bias, *a;
    if (!g || !(g = sw_cast(c, g, SW_F32)) || !(bias = sw_parameter(c, m->dt_bias)) || !(g = sw_plus_row(c, g, bias)) ||
        (!(o->least < 0) && !(g = sw_activation(c, g, SW_ACT_SOFTPLUS))) || !(a = rates(c, m, o, o->least < 0 ? 1 : -1)) ||
        !(g = sw_times_row(c, g, a)))
        return NULL;
    if (o->least < 0 && (!(g = sw_activation(c, g, SW_ACT_SIGMOID)) || !(g = sw_scale(c, g, o->least))))
        return NULL;
    return as_heads(c, g, o);
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    kda *m = self;
    const kda_options *o = options(p->block->spec);
    int64_t n = x->t.shape[0], inner = o->heads * o->head_dim;
    sw_var *part[3];
    if (sw_linears_forward(c, (sw_linear *[]){&m->in[Q], &m->in[K], &m->in[V]}, 3, x, part))
        return NULL;
    for (int i = Q; i <= V; i++) {
        sw_var *u = sw_conv1d(c, part[i], m->conv[i], NULL, p->runs, sw_pass_state(p, i));
        if (!u || !(u = sw_activation(c, u, p->spec->act)))
            return NULL;
        part[i] = as_heads(c, u, o);
    }
    sw_recurrence_in r = {.v = part[V], .delta = 1};
    r.q = sw_unit(c, part[Q], 1 / sqrt((double)o->head_dim));
    r.k = r.q ? sw_unit(c, part[K], 1) : NULL;
    r.g = r.k ? decay(c, m, o, x) : NULL;
    sw_var *beta = r.g ? sw_linear_forward(c, &m->b, x) : NULL;
    beta = beta ? sw_cast(c, beta, SW_F32) : NULL;
    r.beta = beta ? sw_activation(c, beta, SW_ACT_SIGMOID) : NULL;
    sw_var *y = r.beta ? sw_recurrence(c, &r, p->runs, sw_pass_state(p, 3)) : NULL;
    y = y ? sw_norm_forward(c, &m->norm, y) : NULL;
    sw_var *gate = y ? chain(c, &m->g_a, &m->g_b, x) : NULL;
    y = gate ? sw_glu(c, gate, sw_part(c, y, 0, 2, (int64_t[]){n, inner}, (int64_t[]){inner, 1}), SW_ACT_SIGMOID) : NULL;
    return y ? sw_linear_forward(c, &m->out, y) : NULL;
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    const kda_options *o = options(l);
    (void)s;
    for (int i = Q; i <= V; i++)
        out[i] = (sw_state_spec){false, 2, {o->taps - 1, o->heads * o->head_dim}, SW_DTYPE_COUNT, false};
    out[3] = (sw_state_spec){false, 3, {o->heads, o->head_dim, o->head_dim}, SW_F32, false};
    return 4;
}

static const sw_mixer_ops mixer_kda = {"Kimi delta attention", sizeof(kda), declare, forward, states};

SW_MOE_LAYERS(experts, .router = {.score = SW_ROUTE_SIGMOID, .normalise = true, .eps = 1e-20, .group_by_two = true, .scale = 2.446}, .correction = true,
              .shared_wide = 1, .gate = "w1", .up = "w3", .down = "w2")

/* Whether linear_attn_config calls layer i, counted from 1 there, one of its own. */
static bool listed(const cJSON *linear, int64_t i)
{
    const cJSON *list = sw_json_get(linear, "kda_layers");
    for (const cJSON *v = list ? list->child : NULL; v; v = v->next)
        if (cJSON_IsNumber(v) && v->valuedouble == (double)(i + 1))
            return true;
    return false;
}

static int layers(sw_spec *s, const cJSON *config)
{
    const cJSON *linear = sw_json_get(config, "linear_attn_config"); /* fields of published files */
    kda_options *o = sw_arena_zalloc(&s->arena, sizeof *o);
    const int64_t most = 1 << 16;
    if (linear ? sw_json_i64(linear, "num_heads", 1, most, 32, &o->heads) || sw_json_i64(linear, "head_dim", 1, 4096, 128, &o->head_dim) ||
                     sw_json_i64(linear, "short_conv_kernel_size", 2, 256, 4, &o->taps)
               : sw_json_i64(config, "linear_num_heads", 1, most, 32, &o->heads) ||
                     sw_json_i64(config, "linear_head_dim", 1, 4096, 128, &o->head_dim) ||
                     sw_json_i64(config, "linear_conv_kernel_dim", 2, 256, 4, &o->taps))
        return -1;
    s->tied = false; /* whatever the configuration says */
    if (sw_mla_layers(s, config, NULL) || experts(s, config))
        return -1;
    for (int64_t i = 0; i < s->layers; i++) {
        sw_layer *l = &s->layer[i];
        l->rope = -1;
        if (linear ? listed(linear, i) : !sw_is_full_attention(config, i, (i + 1) % 4 == 0)) {
            l->mixer = &mixer_kda;
            l->mixer_options = o;
        }
    }
    return 0;
}

/* ---- Ling 3 */

SW_MOE_LAYERS(ling_experts, .router = {.score = SW_ROUTE_SIGMOID, .normalise = true, .eps = 1e-20, .group_by_two = true, .scale = 2.5},
              .correction = true, .shared_wide = 1, .dense_first = 2)

/* What published configurations may say beyond the fields of transformers. */
static int check_ling(const cJSON *config)
{
    static const char *const limits[] = {"expert_swiglu_limit_list", "share_expert_swiglu_limit_list"};
    const char *gates;
    bool whole;
    if (sw_json_bool(config, "no_kda_lora", true, &whole) || sw_json_str(config, "gated_attention_proj_granularity_type", "head_wise", &gates))
        return -1;
    if (!whole || strcmp(gates, "head_wise"))
        return sw_fail("\"no_kda_lora\" must be true and \"gated_attention_proj_granularity_type\" head_wise, as published models have them");
    for (size_t i = 0; i < SW_COUNT(limits); i++) {
        const cJSON *list = sw_json_get(config, limits[i]);
        for (const cJSON *v = list ? list->child : NULL; v; v = v->next)
            if (!cJSON_IsNull(v) && !(cJSON_IsNumber(v) && v->valuedouble == 0))
                return sw_fail("\"%s\": limits of experts' gates are not run here", limits[i]);
    }
    return 0;
}

static int ling_layers(sw_spec *s, const cJSON *config)
{
    kda_options *o = sw_arena_zalloc(&s->arena, sizeof *o);
    const int64_t most = 1 << 16;
    int64_t every;
    bool safe;
    sw_mla *mla;
    o->whole = true;
    s->tied = false;
    if (sw_json_i64(config, "head_dim", 1, 4096, 128, &o->head_dim) || sw_json_i64(config, "linear_head_dim", 1, 4096, o->head_dim, &o->head_dim) ||
        sw_json_i64(config, "linear_num_heads", 1, most, s->heads, &o->heads) ||
        sw_json_i64(config, "short_conv_kernel_size", 2, 256, 4, &o->taps) || sw_json_i64(config, "linear_conv_kernel_dim", 2, 256, o->taps, &o->taps) ||
        sw_json_i64(config, "layer_group_size", 1, 4096, 6, &every) || sw_json_bool(config, "kda_safe_gate", true, &safe) ||
        sw_json_f64(config, "kda_lower_bound", -5, &o->least))
        return -1;
    if (check_ling(config))
        return -1;
    if (safe && !(o->least < 0))
        return sw_fail("\"kda_lower_bound\": %g, a negative number is needed", o->least);
    if (!safe)
        o->least = 0;
    if (sw_mla_layers(s, config, &mla) || ling_experts(s, config))
        return -1;
    if (mla->q_rank)
        return sw_fail("\"q_lora_rank\": %lld, queries from a latent are not known of this family", (long long)mla->q_rank);
    mla->gated = true;
    for (int64_t i = 0; i < s->layers; i++) {
        sw_layer *l = &s->layer[i];
        if (sw_is_full_attention(config, i, (i + 1) % every == 0))
            continue;
        l->rope = -1;
        l->mixer = &mixer_kda;
        l->mixer_options = o;
    }
    return 0;
}

static const sw_rename names[] = {{"mlp.", "block_sparse_moe."}, {"mlp.router", "block_sparse_moe.gate"},
                                  {"mlp.correction", "block_sparse_moe.gate.e_score_correction_bias"},
                                  {"mlp.shared.", "block_sparse_moe.shared_experts."}, {0}};

static const sw_rename ling_names[] = {{"model.embed_tokens", "model.word_embeddings"}, {"self_attn.", "attention."},
                                       {"self_attn.o_proj", "attention.dense"}, {"mlp.router", "mlp.gate"},
                                       {"mlp.correction", "mlp.gate.expert_bias"}, {"mlp.shared.", "mlp.shared_experts."}, {0}};

const sw_family sw_family_kimi[] = {
    {.name = "kimi_linear", .architectures = SW_NAMES("KimiLinearForCausalLM"), .model_types = SW_NAMES("kimi_linear"),
     .spec = {.norm = {.eps = 1e-5}, .positions = SW_POSITIONS_NONE}, .layers = layers, .names = names},
    {.name = "bailing_hybrid", .architectures = SW_NAMES("BailingHybridForCausalLM", "BailingMoeV3ForCausalLM"), .model_types = SW_NAMES("bailing_hybrid"),
     .spec = {.rope = {{.mode = SW_ROPE_INTERLEAVED, .theta = 6e6}}}, .layers = ling_layers, .names = ling_names},
    {0}};
