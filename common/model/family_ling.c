/* Ling 2.5: lightning attention (Qin et al. 2024, arXiv 2401.04658) whose queries and keys are normed and turned, with latent
 * attention as each group's last layer, and experts. */
#include "model/ffn_moe.h"
#include "model/mixer_mla.h"

#include "base/json.h"

#include <math.h>

typedef struct lightning_options {
    int64_t head_dim, norm_groups;
    bool qkv_bias, out_bias, qk_norm;
} lightning_options;

enum { Q, K, V };
typedef struct lightning {
    sw_linear qkv, gate, out;
    sw_norm q_norm, k_norm;
    sw_param *norm; /* [heads * head_dim], over each of norm_groups parts */
} lightning;

static const lightning_options *options(const sw_layer *l) { return l->mixer_options; }

static void declare(sw_builder *b, void *self)
{
    lightning *m = self;
    const sw_spec *s = sw_builder_spec(b);
    const lightning_options *o = options(sw_builder_layer(b));
    int64_t inner = s->heads * o->head_dim;
    sw_ask_linear(b, &m->qkv, "self_attn.qkv_proj", 3 * inner, s->hidden, o->qkv_bias ? SW_ASK_BIAS : 0);
    if (o->qk_norm) {
        sw_ask_norm(b, &m->q_norm, "self_attn.q_norm", o->head_dim, &s->norm);
        sw_ask_norm(b, &m->k_norm, "self_attn.k_norm", o->head_dim, &s->norm);
    }
    m->norm = sw_ask(b, "self_attn.g_norm.weight", 1, &inner, 0);
    sw_ask_linear(b, &m->gate, "self_attn.g_proj", inner, s->hidden, 0);
    sw_ask_linear(b, &m->out, "self_attn.o_proj", s->hidden, inner, o->out_bias ? SW_ASK_BIAS : 0);
}

/* The logarithm of each head's decay, for every token: f32 [N, heads]. Slopes are ALiBi's, less in later layers; the first has
 * the number -1 in that, as the published code has it. */
static sw_var *decay(sw_ctx *c, const sw_pass *p, int64_t n)
{
    int64_t heads = p->spec->heads;
    float *slope = sw_ctx_alloc(c, (size_t)heads * sizeof *slope);
    double part = 1 - (double)(p->block->index - 1) / (double)SW_MAX(p->spec->layers - 1, 1) + 1e-5;
    for (int64_t i = 0; i < heads; i++)
        slope[i] = (float)(-sw_alibi_slope(heads, i, 8) * part);
    sw_var *row = sw_from_host(c, SW_F32, 1, &heads, slope), *g = row ? sw_tmp2(c, SW_F32, n, heads) : NULL;
    return g && !sw_k(c)->fill(sw_s(c), &g->t, 0) ? sw_plus_row(c, g, row) : NULL;
}

/* One of the three parts of qkv [N, 3 inner]: [N, heads, head_dim]. */
static sw_var *part(sw_ctx *c, sw_var *qkv, int which, const sw_pass *p, const lightning_options *o)
{
    int64_t inner = p->spec->heads * o->head_dim;
    return sw_part(c, qkv, which * inner, 3, (int64_t[]){qkv->t.shape[0], p->spec->heads, o->head_dim}, (int64_t[]){3 * inner, o->head_dim, 1});
}

/* Normed, and its first part turned. */
static sw_var *placed(sw_ctx *c, const sw_norm *norm, const sw_pass *p, sw_var *x)
{
    x = x && norm->spec ? sw_norm_forward(c, norm, x) : x;
    return x ? sw_rope(c, x, p->cos[0], p->sin[0], SW_ROPE_HALF) : NULL;
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    lightning *m = self;
    const lightning_options *o = options(p->block->spec);
    int64_t n = x->t.shape[0], inner = p->spec->heads * o->head_dim, wide = inner / o->norm_groups;
    sw_var *qkv = sw_linear_forward(c, &m->qkv, x), *weight;
    if (!qkv)
        return NULL;
    sw_recurrence_in r = {.q = placed(c, &m->q_norm, p, part(c, qkv, Q, p, o))};
    r.q = r.q ? sw_scale(c, r.q, 1 / sqrt((double)o->head_dim)) : NULL;
    r.k = r.q ? placed(c, &m->k_norm, p, part(c, qkv, K, p, o)) : NULL;
    r.v = r.k ? part(c, qkv, V, p, o) : NULL;
    r.g = r.v ? decay(c, p, n) : NULL;
    sw_var *y = r.g ? sw_recurrence(c, &r, p->runs, sw_pass_state(p, 0)) : NULL;
    y = y ? sw_rmsnorm(c, sw_part(c, y, 0, 3, (int64_t[]){n, o->norm_groups, wide}, (int64_t[]){inner, wide, 1}), NULL, p->spec->norm.eps, 0)
          : NULL;
    y = y ? sw_part(c, y, 0, 2, (int64_t[]){n, inner}, (int64_t[]){inner, 1}) : NULL;
    weight = y ? sw_parameter(c, m->norm) : NULL;
    y = weight ? sw_times_row(c, y, weight) : NULL;
    sw_var *gate = y ? sw_linear_forward(c, &m->gate, x) : NULL;
    y = gate ? sw_glu(c, gate, y, SW_ACT_SIGMOID) : NULL;
    return y ? sw_linear_forward(c, &m->out, y) : NULL;
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    int64_t wide = options(l)->head_dim;
    out[0] = (sw_state_spec){false, 3, {s->heads, wide, wide}, SW_F32, false};
    return 1;
}

static const sw_mixer_ops mixer_turned_lightning = {"lightning attention that turns", sizeof(lightning), declare, forward, states};

/* The rotation is of part of a lightning head, and of all that turns in a latent head. */
static int read(sw_spec *s, const cJSON *config)
{
    int64_t turns = s->head_dim;
    if (sw_json_i64(config, "head_dim", 1, 4096, s->heads > 0 ? s->hidden / s->heads : 0, &s->head_dim))
        return -1;
    s->rope[0].dim = s->head_dim;
    if (sw_rope_pairs(&s->rope[0]) * 2 != turns || turns > s->head_dim)
        return sw_fail("\"partial_rotary_factor\": %g of \"head_dim\", %lld, is not \"qk_rope_head_dim\", %lld", s->rope[0].partial,
                       (long long)s->head_dim, (long long)turns);
    return 0;
}

SW_MOE_LAYERS(experts, .router = {.score = SW_ROUTE_SIGMOID, .normalise = true, .eps = 1e-20, .group_by_two = true}, .correction = true,
              .shared_wide = 1, .dense_first = 1)

static int layers(sw_spec *s, const cJSON *config)
{
    lightning_options *o = sw_arena_zalloc(&s->arena, sizeof *o);
    int64_t every;
    bool silu;
    sw_mla *mla;
    o->head_dim = s->head_dim;
    if (sw_json_i64(config, "layer_group_size", 1, 4096, 5, &every) || sw_json_i64(config, "group_norm_size", 1, 1 << 16, 4, &o->norm_groups) ||
        sw_json_bool(config, "use_qkv_bias", false, &o->qkv_bias) || sw_json_bool(config, "use_bias", false, &o->out_bias) ||
        sw_json_bool(config, "use_qk_norm", true, &o->qk_norm) || sw_json_bool(config, "linear_silu", false, &silu) ||
        sw_mla_layers(s, config, &mla) || experts(s, config))
        return -1;
    if (silu)
        return sw_fail("\"linear_silu\": true, no published model has it, is not run here");
    if (s->heads * o->head_dim % o->norm_groups)
        return sw_fail("\"group_norm_size\": %lld groups do not divide %lld heads of %lld values", (long long)o->norm_groups,
                       (long long)s->heads, (long long)o->head_dim);
    mla->bias = o->qkv_bias;
    for (int64_t i = 0; i < s->layers / every * every; i++) {
        if ((i + 1) % every == 0)
            continue;
        s->layer[i].mixer = &mixer_turned_lightning;
        s->layer[i].mixer_options = o;
    }
    return 0;
}

static const sw_rename names[] = {{"model.embed_tokens", "model.word_embeddings"}, {"self_attn.", "attention."},
                                  {"self_attn.o_proj", "attention.dense"}, {"self_attn.qkv_proj", "attention.query_key_value"},
                                  {"self_attn.q_norm", "attention.query_layernorm"}, {"self_attn.k_norm", "attention.key_layernorm"},
                                  {"mlp.router", "mlp.gate"}, {"mlp.correction", "mlp.gate.expert_bias"},
                                  {"mlp.shared.", "mlp.shared_experts."}, {0}};

const sw_family sw_family_ling[] = {
    {.name = "bailing_moe_v2_5", .architectures = SW_NAMES("BailingMoeV2_5ForCausalLM"), .model_types = SW_NAMES("bailing_moe_v2_5"),
     .spec = {.rope = {{.mode = SW_ROPE_INTERLEAVED, .theta = 6e5, .partial = 0.5}}}, .read = read, .layers = layers, .names = names},
    {0}};
