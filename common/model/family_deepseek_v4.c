/* DeepSeek-V4 (DeepSeek-AI 2026). Hidden states are S streams side by side [N, S * hidden]. Each half of a block, attention and
 * experts, works on one mix of them, and what it gives is spread over another, by weights that the streams themselves give; the
 * matrix between the streams is held to rows and columns that sum to one (manifold-constrained hyper-connections: Xie et al.
 * 2025, arXiv 2512.24880). Attention sees a window of tokens and rows that others were compressed into
 * (mixer_compressed.h); the experts of the first layers stand in a table by token. */
#include "model/deepseek_v4.h"
#include "model/ffn_moe.h"
#include "model/model.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

static const sw_streams *streams_of(const sw_spec *s) { return &((const sw_deepseek_v4 *)s->layer[0].mixer_options)->streams; }

/* ---- weights that the streams give */

/* Up to three groups of weights follow each other, with a scale each: those by which streams are mixed into one, by which one
 * is spread, and the matrix between them. The model's end has the first group alone. */
typedef struct hyper {
    sw_param *fn, *base, *scale;
} hyper;

static int64_t width_of(int64_t n, int groups) { return groups == 1 ? n : (2 + n) * n; }

static void declare_hyper(sw_builder *b, hyper *h, const char *const names[3], int groups)
{
    const sw_spec *s = sw_builder_spec(b);
    int64_t n = streams_of(s)->n, wide = width_of(n, groups);
    h->fn = sw_ask(b, names[0], 2, (int64_t[]){wide, n * s->hidden}, SW_ASK_F32);
    h->base = sw_ask(b, names[1], 1, &wide, SW_ASK_F32);
    h->scale = sw_ask(b, names[2], 1, (int64_t[]){groups}, SW_ASK_F32);
}

/* f32 [N, width], not yet between bounds. */
static sw_var *logits(sw_ctx *c, const hyper *h, const sw_spec *s, sw_var *x, int groups)
{
    int64_t n = streams_of(s)->n, wide = width_of(n, groups);
    int32_t *ids = sw_ctx_alloc(c, (size_t)wide * sizeof *ids);
    for (int64_t i = 0; i < wide; i++)
        ids[i] = (int32_t)SW_MIN(i / n, 2);
    sw_var *y = sw_cast(c, x, SW_F32), *scale = sw_parameter(c, h->scale), *base = scale ? sw_parameter(c, h->base) : NULL;
    sw_dtype product = c->product;
    y = y && base ? sw_rmsnorm(c, y, NULL, s->norm.eps, 0) : NULL;
    c->product = SW_F32;
    y = y ? sw_matmul(c, y, h->fn, NULL) : NULL;
    c->product = product;
    sw_var *which = y ? sw_from_host(c, SW_I32, 1, &wide, ids) : NULL;
    scale = which ? sw_scale(c, scale, 1) : NULL; /* a view of it is wanted, and it may be the parameter */
    scale = scale ? sw_gather(c, sw_part(c, scale, 0, 2, (int64_t[]){groups, 1}, (int64_t[]){1, 1}), which) : NULL;
    y = scale ? sw_times_row(c, y, scale) : NULL;
    return y ? sw_plus_row(c, y, base) : NULL;
}

/* The weights by which streams become one. */
static sw_var *gates(sw_ctx *c, const sw_spec *s, sw_var *logits)
{
    sw_var *y = sw_activation(c, sw_columns(c, logits, 0, streams_of(s)->n), SW_ACT_SIGMOID);
    return y ? sw_shift(c, y, streams_of(s)->eps) : NULL;
}

/* ---- block */

enum { ATTENTION, EXPERTS, HALVES };
static const char *const hyper_names[HALVES][3] = {{"attn_hc.fn", "attn_hc.base", "attn_hc.scale"},
                                                   {"ffn_hc.fn", "ffn_hc.base", "ffn_hc.scale"}};

typedef struct block {
    hyper hyper[HALVES];
    sw_norm norm[HALVES];
} block;

static void declare(sw_builder *b, void *self)
{
    static const char *const norms[HALVES] = {"attn_norm", "mlp_norm"};
    block *k = self;
    const sw_spec *s = sw_builder_spec(b);
    for (int i = 0; i < HALVES; i++) {
        sw_ask_norm(b, &k->norm[i], norms[i], s->hidden, &s->norm);
        declare_hyper(b, &k->hyper[i], hyper_names[i], 3);
    }
    sw_declare_parts(b);
}

static sw_var *half(sw_ctx *c, const block *k, int i, const sw_pass *p, sw_var *x)
{
    const sw_streams *o = streams_of(p->spec);
    int64_t n = o->n;
    sw_scope scope = sw_scope_begin(c);
    sw_var *all = logits(c, &k->hyper[i], p->spec, x, 3), *one = all ? gates(c, p->spec, all) : NULL;
    sw_var *h = one ? sw_mix_streams(c, NULL, x, one, n) : NULL;
    h = h ? sw_norm_forward(c, &k->norm[i], h) : NULL;
    h = !h ? NULL : i == ATTENTION ? sw_mix(c, p, h) : sw_feed(c, p, h);
    sw_var *spread = h ? sw_activation(c, sw_columns(c, all, n, n), SW_ACT_SIGMOID) : NULL;
    spread = spread ? sw_scale(c, spread, 2) : NULL;
    sw_var *between = spread ? sw_sinkhorn(c, sw_columns(c, all, 2 * n, n * n), n, o->rounds, o->eps) : NULL;
    sw_var *y = between ? sw_mix_streams(c, NULL, x, between, n) : NULL;
    y = y ? sw_mix_streams(c, y, h, spread, 1) : NULL;
    return y ? sw_scope_return(c, scope, y) : NULL;
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    x = half(c, self, ATTENTION, p, x);
    return x ? half(c, self, EXPERTS, p, x) : NULL;
}

static const sw_block_ops block_deepseek_v4 = {sizeof(block), declare, forward};

/* ---- the model around the blocks */

static void declare_body(sw_builder *b, void *self)
{
    static const char *const names[3] = {"model.hc_head.fn", "model.hc_head.base", "model.hc_head.scale"};
    declare_hyper(b, self, names, 1);
}

static sw_var *enter(sw_ctx *c, void *self, sw_pass *p, sw_var *x)
{
    (void)self;
    int64_t n = streams_of(p->spec)->n;
    sw_var **all = sw_ctx_alloc(c, (size_t)n * sizeof *all);
    for (int64_t i = 0; i < n; i++)
        all[i] = x;
    return sw_windows_of(c, p) ? sw_join(c, all, (size_t)n) : NULL;
}

static sw_var *leave(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    sw_var *one = logits(c, self, p->spec, x, 1);
    one = one ? gates(c, p->spec, one) : NULL;
    return one ? sw_mix_streams(c, NULL, x, one, streams_of(p->spec)->n) : NULL;
}

static const sw_body_ops body = {sizeof(hyper), declare_body, enter, leave};

/* ---- config.json */

enum { SLIDING, SPARSE, HEAVY, KINDS };
static const char *const kinds[KINDS] = {"sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"};

/* One of several names, or -1. */
static int place_of(const char *const *names, int n, const cJSON *v)
{
    for (int i = 0; i < n; i++)
        if (cJSON_IsString(v) && !strcmp(v->valuestring, names[i]))
            return i;
    return -1;
}

/* What kind of attention layer i has: by name; in older files by the tokens of its rows; else the first two are heavily
 * compressed, and then the two kinds take turns. */
static int kind_of(const sw_spec *s, const cJSON *config, int64_t i, int *out)
{
    static const int tokens[KINDS] = {0, 4, 128};
    const cJSON *types = sw_json_get(config, "layer_types"), *ratios = sw_json_get(config, "compress_ratios");
    if (types) {
        *out = place_of(kinds, KINDS, cJSON_GetArrayItem(types, (int)i));
        return *out >= 0
                   ? 0
                   : sw_fail("\"layer_types\": layer %lld is none of %s, %s and %s", (long long)i, kinds[0], kinds[1], kinds[2]);
    }
    *out = i < 2 || i % 2 == 0 ? HEAVY : SPARSE;
    if (!ratios)
        return 0;
    if (!cJSON_IsArray(ratios) || cJSON_GetArraySize(ratios) < s->layers)
        return sw_fail("\"compress_ratios\": a list of %lld numbers is needed, one a layer", (long long)s->layers);
    const cJSON *v = cJSON_GetArrayItem(ratios, (int)i);
    for (*out = 0; *out < KINDS; ++*out)
        if (cJSON_IsNumber(v) && v->valuedouble == tokens[*out])
            return 0;
    return sw_fail("\"compress_ratios\": layer %lld of %lld is none of 0, 4 and 128", (long long)i, (long long)s->layers);
}

/* Tokens of a row of each kind. */
static int read_rates(const cJSON *config, int64_t every[KINDS])
{
    static const char *const older[KINDS] = {NULL, "compress_rate_csa", "compress_rate_hca"};
    static const int64_t usual[KINDS] = {0, 4, 128};
    const cJSON *rates = sw_json_get(config, "compress_rates");
    if (rates && !cJSON_IsObject(rates))
        return sw_fail("\"compress_rates\": an object is needed, not %s", sw_json_kind(rates));
    every[SLIDING] = 0;
    for (int k = SPARSE; k < KINDS; k++)
        if (sw_json_i64(rates, kinds[k], 1, 1 << 16, usual[k], &every[k]) ||
            sw_json_i64(config, older[k], 1, 1 << 16, every[k], &every[k]))
            return -1;
    return 0;
}

/* Two rotations: of layers with a window alone, and of those with rows and of these. Where the file has one object only, it
 * is about the second, whose yarn does not scale. */
static int read_ropes(sw_spec *s, const cJSON *config)
{
    const cJSON *o = sw_json_get(config, "rope_scaling");
    double share, theta, other;
    int64_t turns;
    if (!o)
        o = sw_json_get(config, "rope_parameters");
    const cJSON *main = sw_json_get(o, "main"), *compress = sw_json_get(o, "compress");
    bool nested = cJSON_IsObject(main) && cJSON_IsObject(compress), given = sw_json_get(config, "partial_rotary_factor") != NULL;
    if (sw_json_i64(config, "qk_rope_head_dim", 2, s->head_dim, 0, &turns) ||
        sw_json_f64(config, "partial_rotary_factor", turns ? (double)turns / (double)s->head_dim : 0.125, &share) ||
        sw_json_f64(config, "rope_theta", 10000, &theta) || sw_json_f64(config, "compress_rope_theta", 160000, &other))
        return -1;
    for (int i = 0; i < 2; i++) {
        sw_rope_spec *r = &s->rope[i];
        const cJSON *of = nested ? i ? compress : main : i ? o : NULL;
        *r = (sw_rope_spec){.mode = SW_ROPE_INTERLEAVED,
                            .dim = s->head_dim,
                            .max_position = (double)s->max_position,
                            .theta = theta,
                            .partial = nested && !given ? 1 : share};
        if (sw_rope_read(r, of, nested ? NULL : config, &s->arena))
            return -1;
        if (!nested) {
            r->theta = i ? other : theta;
            r->partial = share;
            if (r->kind == SW_ROPE_YARN && !(r->attention_factor > 0))
                r->attention_factor = 1;
        }
        if (!(r->theta > 0) || !(r->partial > 0 && r->partial <= 1))
            return sw_fail(
                "\"%srope_theta\" %g and \"partial_rotary_factor\" %g: a positive number, and one in (0, 1], are needed",
                i && !nested ? "compress_" : "", r->theta, r->partial);
        if ((int64_t)((double)r->dim * r->partial) % 2 || r->dim * r->partial < 2)
            return sw_fail("\"partial_rotary_factor\": %g of a head's %lld values is no even number of them", r->partial,
                           (long long)r->dim);
        if (sw_rope_by_length(r))
            return sw_fail("\"rope_type\": rotations that change with the text's length do not go with rows that are made once");
    }
    return 0;
}

static int read(sw_spec *s, const cJSON *config)
{
    return sw_json_i64(config, "head_dim", 2, 1 << 16, 512, &s->head_dim) ||
                   sw_json_i64(config, "sliding_window", 1, 1 << 30, 128, &s->window) || read_ropes(s, config)
               ? -1
               : 0;
}

static int read_streams(const cJSON *config, sw_streams *o)
{
    int64_t rounds;
    if (sw_json_i64(config, "hc_mult", 1, SW_MOST_STREAMS, 4, &o->n) ||
        sw_json_i64(config, "hc_sinkhorn_iters", 0, 1000, 20, &rounds) || sw_json_f64(config, "hc_eps", 1e-6, &o->eps))
        return -1;
    if (!(o->eps >= 0 && o->eps < 1))
        return sw_fail("\"hc_eps\": %g is not between 0 and 1", o->eps);
    o->rounds = (int)SW_MAX(rounds, 1);
    return 0;
}

static int read_attention(const sw_spec *s, const cJSON *config, sw_compressed *o)
{
    sw_indexer *x = &o->indexer;
    if (sw_json_i64(config, "q_lora_rank", 1, 1 << 24, 1024, &o->q_rank) ||
        sw_json_i64(config, "o_groups", 1, 1 << 16, 8, &o->groups) ||
        sw_json_i64(config, "o_lora_rank", 1, 1 << 24, 1024, &o->group_rank) ||
        sw_json_i64(config, "index_topk", 1, 1 << 24, 512, &x->topk) ||
        sw_json_i64(config, "index_n_heads", 1, 1 << 16, 64, &x->heads) ||
        sw_json_i64(config, "index_head_dim", 2, 1 << 16, 128, &x->width))
        return -1;
    if (s->heads < 1 || s->heads > 1 << 16)
        return sw_fail("\"num_attention_heads\": %lld is not between 1 and 65536", (long long)s->heads);
    if (s->heads * s->head_dim % o->groups)
        return sw_fail("\"o_groups\": %lld parts are not possible of %lld heads of %lld values", (long long)o->groups,
                       (long long)s->heads, (long long)s->head_dim);
    return 0;
}

static int read_experts(sw_spec *s, const cJSON *config, sw_moe *m)
{
    static const struct {
        const char *name;
        sw_router_score score;
    } scores[] = {{"sqrtsoftplus", SW_ROUTE_SQRT_SOFTPLUS}, {"sigmoid", SW_ROUTE_SIGMOID}, {"softmax", SW_ROUTE_SOFTMAX}};
    const char *name;
    size_t i = 0;
    if (sw_moe_read(s, config, m) || sw_json_str(config, "scoring_func", scores[0].name, &name) ||
        sw_json_f64(config, "swiglu_limit", 10, &m->limit) || sw_json_bool(config, "mlp_bias", false, &m->shared_bias))
        return -1;
    while (i < SW_COUNT(scores) && strcmp(scores[i].name, name))
        i++;
    if (i == SW_COUNT(scores))
        return sw_fail("\"scoring_func\": '%s' is none of sqrtsoftplus, sigmoid and softmax", name);
    if (!(m->limit > 0))
        return sw_fail("\"swiglu_limit\": %g is no positive number", m->limit);
    m->router.score = scores[i].score;
    m->router.normalise = true; /* whatever norm_topk_prob says, and one shared expert whatever n_shared_experts does */
    m->router.groups = 1;
    m->shared_wide = m->wide;
    return sw_moe_check(m);
}

static int layers(sw_spec *s, const cJSON *config)
{
    static const char *const mlps[] = {"hash_moe", "moe"};
    const cJSON *types = sw_json_get(config, "mlp_layer_types");
    sw_deepseek_v4 base = {0}, *all = sw_arena_zalloc(&s->arena, KINDS * sizeof *all);
    sw_moe m = {.router = {.k = 6, .eps = 1e-20, .scale = 1.5},
                .experts = 256,
                .wide = 2048,
                .shared_wide = 1,
                .gate = "w1",
                .up = "w3",
                .down = "w2"};
    int64_t every[KINDS], tabled;
    if (read_streams(config, &base.streams) || read_attention(s, config, &base.attention) || read_rates(config, every) ||
        read_experts(s, config, &m) || sw_json_i64(config, "num_hash_layers", 0, 4096, 3, &tabled))
        return -1;
    if (types && (!cJSON_IsArray(types) || cJSON_GetArraySize(types) != s->layers))
        return sw_fail("\"mlp_layer_types\": a list of %lld names is needed, one a layer", (long long)s->layers);
    for (int k = 0; k < KINDS; k++) {
        int64_t turns = 2 * sw_rope_pairs(&s->rope[k != SLIDING]);
        sw_compressed *o = &all[k].attention;
        all[k] = base;
        o->nope = s->head_dim - turns;
        o->every = every[k];
        o->overlap = k == SPARSE;
        if (k != SPARSE)
            o->indexer = (sw_indexer){0};
        else if (o->indexer.width < turns)
            return sw_fail("\"index_head_dim\": %lld is less than the %lld values that turn", (long long)o->indexer.width,
                           (long long)turns);
    }
    m.correction = true;
    const sw_moe *scored = sw_moe_keep(s, &m);
    m.correction = false;
    m.by_token = true;
    const sw_moe *by_token = sw_moe_keep(s, &m);
    for (int64_t i = 0; i < s->layers; i++) {
        sw_layer *l = &s->layer[i];
        int kind, mlp = types ? place_of(mlps, 2, cJSON_GetArrayItem(types, (int)i)) : i >= tabled;
        if (kind_of(s, config, i, &kind))
            return -1;
        if (mlp < 0)
            return sw_fail("\"mlp_layer_types\": layer %lld is neither hash_moe nor moe", (long long)i);
        l->kv_heads = 1;
        l->head_dim = l->value_dim = s->head_dim;
        l->attention_scale = 1 / sqrt((double)s->head_dim);
        l->window = s->window;
        l->rope = kind != SLIDING;
        l->mixer = &sw_mixer_compressed;
        l->mixer_options = &all[kind].attention;
        l->block = &block_deepseek_v4;
        sw_moe_layer(s, i, mlp ? scored : by_token);
    }
    return 0;
}

/* ---- names */

#define LAYERS                                                                                                                   \
    {"attn_norm", "attn_norm"}, {"mlp_norm", "ffn_norm"}, {"attn_hc.fn", "hc_attn_fn"}, {"attn_hc.base", "hc_attn_base"},        \
        {"attn_hc.scale", "hc_attn_scale"}, {"ffn_hc.fn", "hc_ffn_fn"}, {"ffn_hc.base", "hc_ffn_base"},                          \
        {"ffn_hc.scale", "hc_ffn_scale"}, {"self_attn.q_a_proj", "attn.wq_a"}, {"self_attn.q_a_norm", "attn.q_norm"},            \
        {"self_attn.q_b_proj", "attn.wq_b"}, {"self_attn.kv_proj", "attn.wkv"}, {"self_attn.o_a_proj", "attn.wo_a"},             \
        {"self_attn.o_b_proj", "attn.wo_b"}, {"self_attn.sinks", "attn.attn_sink"},                                              \
        {"self_attn.compressor.kv_proj", "attn.compressor.wkv"}, {"self_attn.compressor.gate_proj", "attn.compressor.wgate"},    \
        {"self_attn.compressor.position_bias", "attn.compressor.ape"}, {"self_attn.compressor.kv_norm", "attn.compressor.norm"}, \
        {"self_attn.indexer.compressor.kv_proj", "attn.indexer.compressor.wkv"},                                                 \
        {"self_attn.indexer.compressor.gate_proj", "attn.indexer.compressor.wgate"},                                             \
        {"self_attn.indexer.compressor.position_bias", "attn.indexer.compressor.ape"},                                           \
        {"self_attn.indexer.compressor.kv_norm", "attn.indexer.compressor.norm"},                                                \
        {"self_attn.indexer.q_b_proj", "attn.indexer.wq_b"}, {"self_attn.indexer.weights_proj", "attn.indexer.weights_proj"},    \
        {"mlp.router", "ffn.gate"}, {"mlp.correction", "ffn.gate.bias"}, {"mlp.router.by_token", "ffn.gate.tid2eid"},            \
        {"mlp.experts.", "ffn.experts."}, {"mlp.shared.gate_proj", "ffn.shared_experts.w1"},                                     \
        {"mlp.shared.up_proj", "ffn.shared_experts.w3"}, {"mlp.shared.down_proj", "ffn.shared_experts.w2"}

/* As they are published, and as transformers writes them. */
static const sw_rename names[] = {LAYERS,
                                  {"model.embed_tokens", "embed"},
                                  {"model.layers", "layers"},
                                  {"model.norm", "norm"},
                                  {"lm_head", "head"},
                                  {"model.hc_head.fn", "hc_head_fn"},
                                  {"model.hc_head.base", "hc_head_base"},
                                  {"model.hc_head.scale", "hc_head_scale"},
                                  {"self_attn.kv_norm", "attn.kv_norm"},
                                  {0}};
static const sw_rename written_names[] = {LAYERS,
                                          {"lm_head", "head"},
                                          {"model.hc_head.fn", "model.hc_head.hc_fn"},
                                          {"model.hc_head.base", "model.hc_head.hc_base"},
                                          {"model.hc_head.scale", "model.hc_head.hc_scale"},
                                          {"self_attn.kv_norm", "attn.norm"},
                                          {0}};

const sw_family sw_family_deepseek_v4[] = {
    {.name = "deepseek_v4", .architectures = SW_NAMES("DeepseekV4ForCausalLM"), .model_types = SW_NAMES("deepseek_v4"),
     .spec = {.vocab = 129280, .heads = 64, .head_dim = 512, .kv_heads = 1, .max_position = 1048576,
              .rope = {{.mode = SW_ROPE_INTERLEAVED}}},
     .read = read, .layers = layers, .names = names, .other_names = written_names, .body = &body,
     .unread = SW_NAMES("mtp.", "model.mtp.")},
    {0}};
