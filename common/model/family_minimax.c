/* MiniMax-Text-01: lightning attention (Qin et al. 2024, arXiv 2405.17381), a matrix a head that decays by a constant,
 * with some softmax attention among it, and experts. */
#include "model/ffn_moe.h"
#include "model/minimax.h"
#include "model/mixer_mamba.h"

#include "base/json.h"

#include <math.h>

static const sw_minimax_options *options(const sw_layer *l) { return l->mixer_options; }

typedef struct lightning {
    sw_linear qkv, gate, out;
    sw_norm norm;
    sw_norm_spec plain;
    sw_param *slope;
} lightning;

static void declare(sw_builder *b, void *self)
{
    lightning *m = self;
    const sw_spec *s = sw_builder_spec(b);
    const sw_layer *l = sw_builder_layer(b);
    int64_t inner = l->heads * l->head_dim, block = options(l)->block;
    const unsigned fixed = SW_ASK_F32 | SW_ASK_FIXED;
    sw_ask_linear(b, &m->qkv, "self_attn.qkv_proj", 3 * inner, s->hidden, 0);
    sw_ask_linear(b, &m->out, "self_attn.out_proj", s->hidden, inner, 0);
    sw_ask_linear(b, &m->gate, "self_attn.output_gate", inner, s->hidden, 0);
    m->plain = (sw_norm_spec){.eps = 1e-6};
    sw_ask_norm(b, &m->norm, "self_attn.norm", inner, &m->plain);
    /* Files may carry the slopes, and tables that follow from them. */
    m->slope = sw_ask_optional(b, "self_attn.slope_rate", 3, (int64_t[]){l->heads, 1, 1}, fixed);
    if (sw_ask_optional(b, "self_attn.query_decay", 3, (int64_t[]){l->heads, block, 1}, fixed)) {
        (void)sw_ask_optional(b, "self_attn.key_decay", 3, (int64_t[]){l->heads, block, 1}, fixed);
        (void)sw_ask_optional(b, "self_attn.diagonal_decay", 4, (int64_t[]){1, l->heads, block, block}, fixed);
    }
}

/* The slope of each head: ALiBi's, less in later layers. */
static sw_var *slopes(sw_ctx *c, lightning *m, const sw_pass *p)
{
    int64_t heads = p->block->spec->heads;
    if (m->slope)
        return sw_parameter(c, m->slope);
    float *values = sw_ctx_alloc(c, (size_t)heads * sizeof *values);
    double factor = 1 - (double)p->block->index / ((double)(p->spec->layers - 1) + 1e-5) + 1e-5;
    for (int64_t i = 0; i < heads; i++)
        values[i] = (float)(pow(2, -8.0 / (double)heads * (double)(i + 1)) * factor);
    return sw_from_host(c, SW_F32, 1, &heads, values);
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    lightning *m = self;
    const sw_layer *l = p->block->spec;
    int64_t n = x->t.shape[0], d = l->head_dim, inner = l->heads * d;
    sw_var *u = sw_linear_forward(c, &m->qkv, x);
    u = u ? sw_activation(c, u, p->spec->act) : NULL;
    sw_var *slope = u ? slopes(c, m, p) : NULL, *zero = slope ? sw_tmp2(c, SW_F32, n, l->heads) : NULL;
    if (!zero || sw_k(c)->fill(sw_s(c), &zero->t, 0))
        return NULL;
    sw_recurrence_in r = {.q = sw_part(c, u, 0, 3, (int64_t[]){n, l->heads, d}, (int64_t[]){3 * inner, 3 * d, 1}),
                          .k = sw_part(c, u, d, 3, (int64_t[]){n, l->heads, d}, (int64_t[]){3 * inner, 3 * d, 1}),
                          .v = sw_part(c, u, 2 * d, 3, (int64_t[]){n, l->heads, d}, (int64_t[]){3 * inner, 3 * d, 1}),
                          .g = sw_plus_row(c, zero, slope)};
    r.g = r.g ? sw_scale(c, r.g, -1) : NULL;
    sw_var *y = r.g ? sw_recurrence(c, &r, p->runs, sw_pass_state(p, 0)) : NULL;
    y = y ? sw_norm_forward(c, &m->norm, sw_part(c, y, 0, 2, (int64_t[]){n, inner}, (int64_t[]){inner, 1})) : NULL;
    sw_var *gate = y ? sw_linear_forward(c, &m->gate, x) : NULL;
    y = gate ? sw_glu(c, gate, y, SW_ACT_SIGMOID) : NULL;
    return y ? sw_linear_forward(c, &m->out, y) : NULL;
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    (void)s;
    out[0] = (sw_state_spec){false, 3, {l->heads, l->head_dim, l->head_dim}, SW_F32, false};
    return 1;
}

const sw_mixer_ops sw_mixer_lightning = {"lightning attention", sizeof(lightning), declare, forward, states};

/* ---- the block: what is normed is also the residual */

typedef struct block {
    sw_norm mixer, ffn;
} block;

static void declare_block(sw_builder *b, void *self)
{
    block *d = self;
    const sw_spec *s = sw_builder_spec(b);
    sw_ask_norm(b, &d->mixer, "attn_norm", s->hidden, &s->norm);
    sw_ask_norm(b, &d->ffn, "mlp_norm", s->hidden, &s->norm);
    sw_declare_parts(b);
}

static sw_var *branch(sw_ctx *c, const sw_norm *n, sw_var *(*f)(sw_ctx *, const sw_pass *, sw_var *), const sw_pass *p, sw_var *x,
                      double alpha, double beta)
{
    sw_scope scope = sw_scope_begin(c);
    sw_var *h = sw_norm_forward(c, n, x), *y = h ? f(c, p, h) : NULL;
    y = y ? sw_scale(c, y, beta) : NULL;
    h = y ? sw_scale(c, h, alpha) : NULL;
    return h ? sw_scope_return(c, scope, sw_add(c, y, h)) : NULL;
}

static sw_var *block_forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    block *d = self;
    const sw_minimax_options *o = options(p->block->spec);
    sw_var *y = branch(c, &d->mixer, sw_mix, p, x, o->alpha, o->beta);
    return y ? branch(c, &d->ffn, sw_feed, p, y, o->mlp_alpha, o->mlp_beta) : NULL;
}

const sw_block_ops sw_block_minimax = {sizeof(block), declare_block, block_forward};

SW_MOE_LAYERS(experts, .router = {.score = SW_ROUTE_SOFTMAX, .normalise = true}, .gate = "w1", .up = "w3", .down = "w2")

/* A factor under the name that transformers has for it, or that of the files published first. */
static int factor(const cJSON *config, const char *name, const char *older, double *out)
{
    return sw_json_f64(config, older, 1, out) || sw_json_f64(config, name, *out, out) ? -1 : 0;
}

/* Which layers have softmax attention: layer_types, or 1 in attn_type_list; else each second. */
static int is_softmax(const sw_spec *s, const cJSON *config, int64_t i, bool *yes)
{
    const cJSON *list = sw_json_get(config, "attn_type_list"), *one = cJSON_IsArray(list) ? cJSON_GetArrayItem(list, (int)i) : NULL;
    *yes = sw_is_full_attention(config, i, i % 2 == 0);
    if (!list || sw_json_get(config, "layer_types"))
        return 0;
    if (!cJSON_IsNumber(one) || cJSON_GetArraySize(list) != s->layers)
        return sw_fail("\"attn_type_list\": a list of %lld numbers is needed, 1 where attention is softmax's", (long long)s->layers);
    *yes = one->valuedouble > 0;
    return 0;
}

static int layers(sw_spec *s, const cJSON *config)
{
    sw_minimax_options *o = sw_arena_zalloc(&s->arena, 2 * sizeof *o), *full = o + 1;
    if (factor(config, "linear_attn_alpha_factor", "layernorm_linear_attention_alpha", &o->alpha) ||
        factor(config, "linear_attn_beta_factor", "layernorm_linear_attention_beta", &o->beta) ||
        factor(config, "full_attn_alpha_factor", "layernorm_full_attention_alpha", &full->alpha) ||
        factor(config, "full_attn_beta_factor", "layernorm_full_attention_beta", &full->beta) ||
        factor(config, "mlp_alpha_factor", "layernorm_mlp_alpha", &o->mlp_alpha) ||
        factor(config, "mlp_beta_factor", "layernorm_mlp_beta", &o->mlp_beta) ||
        sw_json_i64(config, "block_size", 1, 1 << 16, 256, &o->block) || experts(s, config))
        return -1;
    full->mlp_alpha = o->mlp_alpha;
    full->mlp_beta = o->mlp_beta;
    if (s->heads < 1 || s->head_dim < 1 || s->heads > 1 << 16 || s->head_dim > 4096)
        return sw_fail("\"num_attention_heads\": %lld heads of %lld values are not possible", (long long)s->heads, (long long)s->head_dim);
    for (int64_t i = 0; i < s->layers; i++) {
        bool softmax;
        if (is_softmax(s, config, i, &softmax))
            return -1;
        s->layer[i].block = &sw_block_minimax;
        s->layer[i].mixer_options = softmax ? full : o;
        s->layer[i].window = softmax ? s->window : 0;
        if (!softmax)
            s->layer[i].mixer = &sw_mixer_lightning;
    }
    return 0;
}

/* The files published first, with code of their own: rotary_dim, and options that all of them have the same. */
static int read_text_01(sw_spec *s, const cJSON *config)
{
    int64_t turned, shared;
    bool post;
    if (sw_json_i64(config, "rotary_dim", 2, 1 << 16, s->head_dim, &turned) || sw_json_bool(config, "postnorm", false, &post) ||
        sw_json_i64(config, "shared_intermediate_size", 0, 1 << 24, 0, &shared))
        return -1;
    if (!post || shared)
        return sw_fail("\"postnorm\" must be true and \"shared_intermediate_size\" 0, as published models have them");
    if (turned > s->head_dim)
        return sw_fail("\"rotary_dim\": %lld is more than \"head_dim\", %lld", (long long)turned, (long long)s->head_dim);
    s->rope[0].partial = (double)turned / (double)s->head_dim;
    return sw_read_window(s, config);
}

static const sw_rename names[] = {{"mlp.router", "block_sparse_moe.gate"}, {"mlp.experts.", "block_sparse_moe.experts."}, {0}};

const sw_family sw_family_minimax[] = {
    {.name = "minimax", .architectures = SW_NAMES("MiniMaxForCausalLM", "MiniMaxForSequenceClassification"), .model_types = SW_NAMES("minimax"),
     .spec = {.norm = {.eps = 1e-5}, .rope = {{.theta = 1e6}}}, .read = sw_read_window, .layers = layers, .names = names},
    {.name = "minimax_text_01", .architectures = SW_NAMES("MiniMaxText01ForCausalLM", "MiniMaxM1ForCausalLM"),
     .model_types = SW_NAMES("minimax_text_01", "minimax_m1"), .read = read_text_01, .layers = layers, .names = names},
    {0}};
