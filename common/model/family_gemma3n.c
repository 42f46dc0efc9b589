/* Gemma 3n (text). Hidden states are K streams side by side [N, K * hidden], of which each block computes one and predicts
 * the others (AltUp, Baykal et al. 2023, arXiv 2301.13310); a low-rank path beside attention (Laurel); shared keys and values and an input
 * of its own for each layer (gemma_layers.h); the first feed-forwards keep only the largest of their gates. */
#include "model/gemma_layers.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>

typedef struct options3n {
    int64_t streams, active, rank, vocab, width;
    bool scaled;     /* the active stream is scaled before it takes in the layer's input */
    double sparsity; /* share of the gates that are cut; of this layer */
} options3n;

/* A layer's feed-forward holds them; the same for all but the sparsity. */
static const options3n *options_of(const sw_layer *l) { return l->ffn_options; }

/* ---- feed-forward */

typedef struct feed {
    sw_linear gate, up, down;
    double cut; /* standard deviations above the mean; 0: nothing is cut */
} feed;

/* z with Phi(z) = p, by halving. */
static double normal_quantile(double p)
{
    double low = -10, high = 10;
    for (int i = 0; i < 80; i++) {
        double z = (low + high) / 2;
        *(0.5 * erfc(-z * M_SQRT1_2) < p ? &low : &high) = z;
    }
    return low;
}

static void declare_feed(sw_builder *b, void *self)
{
    feed *f = self;
    const sw_spec *s = sw_builder_spec(b);
    const sw_layer *l = sw_builder_layer(b);
    double sparsity = options_of(l)->sparsity;
    sw_ask_linear(b, &f->gate, "mlp.gate_proj", l->mlp, s->hidden, 0);
    sw_ask_linear(b, &f->up, "mlp.up_proj", l->mlp, s->hidden, 0);
    sw_ask_linear(b, &f->down, "mlp.down_proj", s->hidden, l->mlp, 0);
    f->cut = sparsity > 0 ? normal_quantile(sparsity) : 0;
}

/* relu(x - mean - cut * deviation) = deviation * relu(z - cut), z the normed x; and deviation = mean(x * z). */
static sw_var *cut_low(sw_ctx *c, sw_var *x, double cut)
{
    sw_var *z = sw_layernorm(c, x, NULL, NULL, 1e-20, 0);
    sw_var *deviation = z ? sw_mul(c, x, z) : NULL;
    deviation = deviation ? sw_row_sum(c, deviation, 1 / (double)x->t.shape[1]) : NULL;
    z = deviation ? sw_shift(c, z, -cut) : NULL;
    z = z ? sw_activation(c, z, SW_ACT_RELU) : NULL;
    return z ? sw_scale_rows(c, z, deviation) : NULL;
}

static sw_var *run_feed(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    feed *f = self;
    sw_var *in[2], *h;
    if (sw_linears_forward(c, (sw_linear *[]){&f->gate, &f->up}, 2, x, in))
        return NULL;
    if (options_of(p->block->spec)->sparsity > 0)
        in[0] = cut_low(c, in[0], f->cut);
    h = in[0] ? sw_glu(c, in[0], in[1], p->spec->act) : NULL;
    return h ? sw_linear_forward(c, &f->down, h) : NULL;
}

static const sw_ffn_ops ffn_sparse = {"sparse gates", sizeof(feed), declare_feed, run_feed};

/* ---- block */

typedef struct block3n {
    sw_norm before, after, mlp_before, mlp_after, router_norm, laurel_norm;
    sw_linear router, predict, correct, left, right;
    sw_param *output_scale;
    sw_layer_input input;
} block3n;

static void declare(sw_builder *b, void *self)
{
    block3n *k = self;
    const sw_spec *s = sw_builder_spec(b);
    const options3n *o = options_of(sw_builder_layer(b));
    int64_t n = o->streams;
    sw_ask_norm(b, &k->before, "attn_norm", s->hidden, &s->norm);
    sw_ask_norm(b, &k->after, "attn_post_norm", s->hidden, &s->norm);
    sw_ask_norm(b, &k->mlp_before, "mlp_norm", s->hidden, &s->norm);
    sw_ask_norm(b, &k->mlp_after, "mlp_post_norm", s->hidden, &s->norm);
    sw_declare_parts(b);
    sw_ask_norm(b, &k->router_norm, "altup.router_norm", s->hidden, &s->norm);
    sw_ask_linear(b, &k->router, "altup.modality_router", n, s->hidden, 0);
    sw_ask_linear(b, &k->predict, "altup.prediction_coefs", n * n, n, 0);
    sw_ask_linear(b, &k->correct, "altup.correction_coefs", n, n, 0);
    k->output_scale = sw_ask(b, "altup.correct_output_scale", 1, &s->hidden, 0);
    sw_ask_linear(b, &k->left, "laurel.linear_left", o->rank, s->hidden, 0);
    sw_ask_linear(b, &k->right, "laurel.linear_right", s->hidden, o->rank, 0);
    sw_ask_norm(b, &k->laurel_norm, "laurel.post_laurel_norm", s->hidden, &s->norm);
    sw_declare_layer_input(b, &k->input, o->width);
}

/* tanh of the router over a stream: [N, K]. */
static sw_var *modalities(sw_ctx *c, block3n *k, sw_var *x)
{
    sw_var *h = sw_norm_forward(c, &k->router_norm, x);
    h = h ? sw_scale(c, h, 1 / (double)x->t.shape[1]) : NULL;
    h = h ? sw_linear_forward(c, &k->router, h) : NULL;
    return h ? sw_activation(c, h, SW_ACT_TANH) : NULL;
}

/* Stream i becomes itself plus the streams j by the coefficients i * K + j. */
static sw_var *predict(sw_ctx *c, sw_var *const *streams, int64_t n, int64_t i, sw_var *coefficients)
{
    sw_var *sum = streams[i];
    for (int64_t j = 0; j < n && sum; j++) {
        sw_var *t = sw_scale_rows(c, streams[j], sw_columns(c, coefficients, i * n + j, 1));
        sum = t ? sw_add(c, t, sum) : NULL;
    }
    return sum;
}

/* The layer proper, over the predicted active stream x. */
static sw_var *layer(sw_ctx *c, block3n *k, const sw_pass *p, sw_var *x, sw_var *whole, sw_var *kv[2])
{
    sw_var *normed = sw_norm_forward(c, &k->before, x);
    sw_var *low = normed ? sw_linear_forward(c, &k->left, normed) : NULL;
    low = low ? sw_linear_forward(c, &k->right, low) : NULL;
    low = low ? sw_norm_forward(c, &k->laurel_norm, low) : NULL;
    low = low ? sw_add(c, low, normed) : NULL;
    sw_var *h = low ? sw_attend_shared(c, p, normed, whole, kv) : NULL;
    h = h ? sw_norm_forward(c, &k->after, h) : NULL;
    h = h ? sw_add(c, h, x) : NULL;
    h = h ? sw_add(c, h, low) : NULL;
    sw_var *y = h ? sw_scale(c, h, M_SQRT1_2) : NULL;
    h = y ? sw_norm_forward(c, &k->mlp_before, y) : NULL;
    h = h ? sw_feed(c, p, h) : NULL;
    h = h ? sw_norm_forward(c, &k->mlp_after, h) : NULL;
    return h ? sw_add(c, h, y) : NULL;
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *whole)
{
    block3n *k = self;
    const options3n *o = options_of(p->block->spec);
    int64_t n = o->streams, wide = p->spec->hidden;
    sw_var **in = sw_ctx_alloc(c, (size_t)n * 3 * sizeof *in), **predicted = in + n, **out = predicted + n, *kv[2];
    sw_scope scope = sw_scope_begin(c);
    for (int64_t i = 0; i < n; i++)
        in[i] = sw_columns(c, whole, i * wide, wide);
    sw_var *m = modalities(c, k, in[o->active]), *coefficients = m ? sw_linear_forward(c, &k->predict, m) : NULL;
    for (int64_t i = 0; i < n; i++)
        if (!coefficients || !(predicted[i] = predict(c, in, n, i, coefficients)))
            return NULL;
    sw_var *y = layer(c, k, p, predicted[o->active], whole, kv);
    m = y ? modalities(c, k, y) : NULL;
    coefficients = m ? sw_linear_forward(c, &k->correct, m) : NULL;
    sw_var *news = coefficients ? sw_dense(c, predicted[o->active]) : NULL; /* what the layer brought that was not predicted */
    news = news ? sw_scale(c, news, -1) : NULL;
    news = news ? sw_add(c, news, y) : NULL;
    for (int64_t i = 0; i < n; i++) {
        sw_var *t = news ? sw_scale_rows(c, news, sw_columns(c, coefficients, i, 1)) : NULL;
        t = t ? sw_add(c, t, news) : NULL;
        if (!t || !(out[i] = sw_add(c, t, predicted[i])))
            return NULL;
    }
    y = o->scaled ? sw_scale_columns(c, out[o->active], k->output_scale) : out[o->active];
    y = y ? sw_layer_input_of(c, &k->input, p, y) : NULL;
    for (int64_t i = 1; i < n; i++)
        if (!y || !(out[i] = sw_add(c, sw_dense(c, y), out[i])))
            return NULL;
    sw_var *all = y ? sw_join(c, out, (size_t)n) : NULL;
    all = all ? sw_carry(c, p, all, whole, n * wide, kv) : NULL;
    return all ? sw_scope_return(c, scope, all) : NULL;
}

static const sw_block_ops block_gemma3n = {sizeof(block3n), declare, forward};

/* ---- the model around the blocks */

typedef struct around {
    sw_layer_inputs inputs;
    sw_linear *in, *out; /* [streams - 1] */
} around;

static void declare_body(sw_builder *b, void *self)
{
    around *a = self;
    const sw_spec *s = sw_builder_spec(b);
    const options3n *o = options_of(&s->layer[0]);
    size_t bytes = (size_t)o->streams * sizeof *a->in;
    char name[64];
    sw_declare_layer_inputs(b, &a->inputs, o->vocab, o->width);
    a->in = sw_builder_alloc(b, bytes);
    a->out = sw_builder_alloc(b, bytes);
    for (int i = 0; i + 1 < (int)o->streams; i++) {
        snprintf(name, sizeof name, "model.altup_projections.%d", i);
        sw_ask_linear(b, &a->in[i], name, s->hidden, s->hidden, 0);
        snprintf(name, sizeof name, "model.altup_unembed_projections.%d", i);
        sw_ask_linear(b, &a->out[i], name, s->hidden, s->hidden, 0);
    }
}

/* Root mean square of each row, [N, 1]: the mean of x times its normed self. */
static sw_var *magnitude(sw_ctx *c, sw_var *x)
{
    sw_var *h = sw_rmsnorm(c, x, NULL, 0, 0);
    h = h ? sw_mul(c, h, x) : NULL;
    return h ? sw_row_sum(c, h, 1 / (double)x->t.shape[1]) : NULL;
}

/* l(x) with rows as long as `size` says. */
static sw_var *resized(sw_ctx *c, sw_linear *l, sw_var *x, sw_var *size)
{
    sw_var *h = sw_linear_forward(c, l, x);
    h = h ? sw_rmsnorm(c, h, NULL, 1e-12, 0) : NULL;
    return h ? sw_scale_rows(c, h, size) : NULL;
}

static sw_var *enter(sw_ctx *c, void *self, sw_pass *p, sw_var *x)
{
    around *a = self;
    int64_t n = options_of(&p->spec->layer[0])->streams;
    sw_var **streams = sw_ctx_alloc(c, (size_t)n * sizeof *streams), *size = magnitude(c, x);
    if (!size || !(p->body = sw_layer_inputs_of(c, &a->inputs, p, x)))
        return NULL;
    streams[0] = x;
    for (int64_t i = 1; i < n; i++)
        if (!(streams[i] = resized(c, &a->in[i - 1], x, size)))
            return NULL;
    return sw_join(c, streams, (size_t)n);
}

static sw_var *leave(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    around *a = self;
    int64_t n = options_of(&p->spec->layer[0])->streams, wide = p->spec->hidden;
    sw_var *first = sw_columns(c, x, 0, wide), *size = magnitude(c, first), *sum = size ? first : NULL;
    for (int64_t i = 1; i < n && sum; i++) {
        sw_var *h = resized(c, &a->out[i - 1], sw_columns(c, x, i * wide, wide), size);
        sum = h ? sw_add(c, h, sum) : NULL;
    }
    return sum ? sw_scale(c, sum, 1 / (double)n) : NULL;
}

static const sw_body_ops body = {sizeof(around), declare_body, enter, leave};

/* ---- config.json */

static int read(sw_spec *s, const cJSON *config)
{
    double local;
    s->embedding_scale = sqrt((double)s->hidden);
    if (sw_read_biases(s, config) || sw_read_window(s, config) || sw_json_f64(config, "final_logit_softcapping", 30, &s->logit_softcap) ||
        sw_json_f64(config, "rope_local_base_freq", 10000, &local))
        return -1;
    return sw_local_rope(s, local);
}

/* Value i of a list with one number a layer, or of one number for all. */
static int layer_number(const cJSON *config, const char *key, int64_t layers, int64_t i, double missing, double *out)
{
    const cJSON *v = sw_json_get(config, key);
    if (cJSON_IsArray(v) && cJSON_GetArraySize(v) != layers)
        return sw_fail("\"%s\": a list of %lld numbers is needed, one a layer", key, (long long)layers);
    v = cJSON_IsArray(v) ? cJSON_GetArrayItem(v, (int)i) : v;
    if (v && !cJSON_IsNumber(v))
        return sw_fail("\"%s\": layer %lld has %s, a number is needed", key, (long long)i, sw_json_kind(v));
    *out = v ? v->valuedouble : missing;
    return 0;
}

static int layers(sw_spec *s, const cJSON *config)
{
    options3n o;
    int64_t shared;
    if (sw_json_i64(config, "altup_num_inputs", 1, 64, 4, &o.streams) || sw_json_i64(config, "altup_active_idx", 0, o.streams - 1, 0, &o.active) ||
        sw_json_bool(config, "altup_correct_scale", true, &o.scaled) || sw_json_i64(config, "laurel_rank", 1, 1 << 20, 64, &o.rank) ||
        sw_json_i64(config, "vocab_size_per_layer_input", 1, 1 << 28, 262144, &o.vocab) ||
        sw_json_i64(config, "hidden_size_per_layer_input", 1, 1 << 20, 256, &o.width) ||
        sw_json_i64(config, "num_kv_shared_layers", 0, s->layers - 1, 15, &shared) || sw_share_kv(s, shared, false))
        return -1;
    for (int64_t i = 0; i < s->layers; i++) {
        options3n *own = sw_arena_zalloc(&s->arena, sizeof *own);
        double wide;
        *own = o;
        if (layer_number(config, "intermediate_size", s->layers, i, 16384, &wide) ||
            layer_number(config, "activation_sparsity_pattern", s->layers, i, i < 10 ? 0.95 : 0, &own->sparsity))
            return -1;
        if (!(wide >= 1 && wide <= 1 << 24) || !(own->sparsity >= 0 && own->sparsity < 1))
            return sw_fail("layer %lld: \"intermediate_size\" %g or \"activation_sparsity_pattern\" %g is out of range", (long long)i, wide,
                           own->sparsity);
        s->layer[i].mlp = (int64_t)wide;
        s->layer[i].block = &block_gemma3n;
        s->layer[i].ffn = &ffn_sparse;
        s->layer[i].ffn_options = own;
    }
    return 0;
}

static const sw_rename names[] = {{"mlp_norm", "pre_feedforward_layernorm"}, {0}};

const sw_family sw_family_gemma3n[] = {
    {.name = "gemma3n_text", .architectures = SW_NAMES("Gemma3nForCausalLM"), .model_types = SW_NAMES("gemma3n_text"),
     .spec = {.tied = true, .act = SW_ACT_GELU_TANH, .kv_heads = 2, .head_dim = 256, .window = 512, .full_every = 5, .rope = {{.theta = 1e6}}},
     .read = read, .layers = layers, .names = names, .body = &body},
    {0}};
