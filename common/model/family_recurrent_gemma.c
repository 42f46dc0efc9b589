/* RecurrentGemma, that is Griffin (De et al. 2024, arXiv 2402.19427): gated linear recurrences (RG-LRU) with local attention
 * among them. h = a h + sqrt(1 - a^2) (i x), log a = -8 softplus(L) r, where the gates i and r are sigmoids of a linear map
 * of each head's channels. A state of one value a channel is a matrix of one by one to the recurrence. */
#include "model/family.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

typedef struct lru_options {
    int64_t width, taps;
} lru_options;

typedef struct gate {
    sw_param *w, *b; /* [heads, each, each], input first; [heads, each] */
} gate;

typedef struct rglru {
    sw_linear x, y, out;
    sw_param *conv, *conv_bias, *decay;
    gate input, recurrent;
} rglru;

static const lru_options *options(const sw_layer *l) { return l->mixer_options; }

static void ask_gate(sw_builder *b, gate *g, const char *w, const char *bias, int64_t heads, int64_t each)
{
    g->w = sw_ask(b, w, 3, (int64_t[]){heads, each, each}, 0);
    g->b = sw_ask(b, bias, 2, (int64_t[]){heads, each}, 0);
}

static void declare(sw_builder *b, void *self)
{
    rglru *m = self;
    const sw_layer *l = sw_builder_layer(b);
    int64_t hidden = sw_builder_spec(b)->hidden, width = options(l)->width;
    sw_ask_linear(b, &m->x, "temporal_block.linear_x", width, hidden, SW_ASK_BIAS);
    sw_ask_linear(b, &m->y, "temporal_block.linear_y", width, hidden, SW_ASK_BIAS);
    sw_ask_linear(b, &m->out, "temporal_block.linear_out", hidden, width, SW_ASK_BIAS);
    m->conv = sw_ask(b, "temporal_block.conv_1d.weight", 3, (int64_t[]){width, 1, options(l)->taps}, 0);
    m->conv_bias = sw_ask(b, "temporal_block.conv_1d.bias", 1, &width, 0);
    m->decay = sw_ask(b, "temporal_block.rg_lru.recurrent_param", 1, &width, SW_ASK_F32);
    ask_gate(b, &m->input, "temporal_block.rg_lru.input_gate_weight", "temporal_block.rg_lru.input_gate_bias", l->heads, width / l->heads);
    ask_gate(b, &m->recurrent, "temporal_block.rg_lru.recurrent_gate_weight", "temporal_block.rg_lru.recurrent_gate_bias", l->heads,
             width / l->heads);
}

/* Head h of a [N, width] and of a weight. */
static sw_tensor columns(const sw_tensor *x, int64_t h, int64_t each)
{
    sw_tensor t = *x;
    t.data = (char *)t.data + sw_dtype_bytes(t.dtype, h * each);
    t.shape[1] = each;
    return t;
}
static sw_tensor matrix(const sw_tensor *w, int64_t h)
{
    sw_tensor t = sw_row_view(w, h, 1);
    return sw_reshaped(&t, 2, w->shape + 1);
}

static int by_heads_back(sw_ctx *c, sw_node *n)
{
    sw_param *w = n->data;
    const sw_kernels *k = sw_k(c);
    int64_t heads = w->v.t.shape[0], each = w->v.t.shape[1];
    int acc;
    sw_tensor *g = sw_grad(c, n->in[0], &acc);
    if (acc == -2)
        return -1;
    for (int64_t h = 0; h < heads; h++) {
        sw_tensor dy = columns(&n->out[0]->grad->t, h, each), x = columns(&n->saved[0]->t, h, each), m = matrix(&w->v.t, h);
        if (w->v.needs_grad) {
            sw_tensor dw = matrix(&w->v.grad->t, h);
            if (k->linear_bwd_w(sw_s(c), &dw, &x, &dy, 1))
                return -1;
        }
        if (g) {
            sw_tensor dx = columns(g, h, each);
            if (k->linear_fwd(sw_s(c), &dx, &dy, &m, NULL, 1, acc))
                return -1;
        }
    }
    return 0;
}

/* Each head's channels times its matrix, [in, out]. */
static sw_var *by_heads(sw_ctx *c, sw_var *x, sw_param *w)
{
    sw_var *y = sw_like(c, x);
    if (!y || sw_use(c, &w->v, NULL))
        return NULL;
    for (int64_t h = 0; h < w->v.t.shape[0]; h++) {
        sw_tensor from = columns(&x->t, h, w->v.t.shape[1]), to = columns(&y->t, h, w->v.t.shape[1]), m = matrix(&w->v.t, h);
        if (sw_k(c)->linear_bwd_x(sw_s(c), &to, &from, &m, 1, 0))
            return NULL;
    }
    return sw_record(c, (sw_node){.op = "by_heads", .back = by_heads_back, .in = {x, &w->v}, .out = {y}, .saved = {x}, .data = w});
}

static sw_var *gate_of(sw_ctx *c, const gate *g, sw_var *x)
{
    sw_var *y = by_heads(c, x, g->w), *b = y ? sw_parameter(c, g->b) : NULL;
    y = b ? sw_cast(c, y, SW_F32) : NULL;
    y = y ? sw_plus_row(c, y, b) : NULL;
    return y ? sw_activation(c, y, SW_ACT_SIGMOID) : NULL;
}

/* sqrt(1 - a^2), but 1 where a text begins. */
static sw_var *input_scale(sw_ctx *c, const sw_pass *p, sw_var *log_a)
{
    float *later = sw_ctx_alloc(c, (size_t)p->n * sizeof *later);
    for (int64_t i = 0; i < p->n; i++)
        later[i] = p->positions[i] != 0;
    sw_var *keep = sw_from_host(c, SW_F32, 2, (int64_t[]){p->n, 1}, later), *m = keep ? sw_dense(c, log_a) : NULL;
    m = m ? sw_scale(c, m, 2) : NULL;
    m = m ? sw_activation(c, m, SW_ACT_EXP) : NULL;
    m = m ? sw_scale(c, m, -1) : NULL;
    m = m ? sw_shift(c, m, 1) : NULL;
    m = m ? sw_activation(c, m, SW_ACT_SQRT) : NULL;
    m = m ? sw_shift(c, m, -1) : NULL;
    m = m ? sw_scale_rows(c, m, keep) : NULL;
    return m ? sw_shift(c, m, 1) : NULL;
}

static sw_var *ones(sw_ctx *c, int64_t n)
{
    sw_var *v = sw_tmp3(c, SW_F32, n, 1, 1);
    return v && !sw_k(c)->fill(sw_s(c), &v->t, 1) ? v : NULL;
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    rglru *m = self;
    int64_t n = x->t.shape[0], width = options(p->block->spec)->width;
    sw_var *both[2], *y, *u, *log_a, *in, *l;
    if (sw_linears_forward(c, (sw_linear *[]){&m->x, &m->y}, 2, x, both) || !(y = sw_activation(c, both[1], p->spec->act)))
        return NULL;
    u = sw_conv1d(c, both[0], m->conv, m->conv_bias, p->runs, sw_pass_state(p, 0));
    if (!u || !(in = gate_of(c, &m->input, u)) || !(log_a = gate_of(c, &m->recurrent, u)) || !(l = sw_parameter(c, m->decay)) ||
        !(l = sw_activation(c, l, SW_ACT_SOFTPLUS)) || !(l = sw_scale(c, l, -8)) || !(log_a = sw_times_row(c, log_a, l)) ||
        !(u = sw_cast(c, u, SW_F32)) || !(in = sw_mul(c, in, u)))
        return NULL;
    sw_var *scale = input_scale(c, p, log_a), *one = ones(c, n);
    in = scale && one ? sw_mul(c, in, scale) : NULL;
    if (!in)
        return NULL;
    sw_recurrence_in r = {.q = one, .k = one, .v = sw_part(c, in, 0, 3, (int64_t[]){n, width, 1}, (int64_t[]){width, 1, 1}), .g = log_a};
    sw_var *h = sw_recurrence(c, &r, p->runs, sw_pass_state(p, 1));
    h = h ? sw_cast(c, sw_part(c, h, 0, 2, (int64_t[]){n, width}, (int64_t[]){width, 1}), c->compute) : NULL;
    h = h ? sw_mul(c, h, y) : NULL;
    return h ? sw_linear_forward(c, &m->out, h) : NULL;
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    const lru_options *o = options(l);
    (void)s;
    out[0] = (sw_state_spec){false, 2, {o->taps - 1, o->width}, SW_DTYPE_COUNT, false};
    out[1] = (sw_state_spec){false, 3, {o->width, 1, 1}, SW_F32, false};
    return 2;
}

static const sw_mixer_ops mixer_rglru = {"gated linear recurrence", sizeof(rglru), declare, forward, states};

static int read(sw_spec *s, const cJSON *config)
{
    if (sw_json_bool(config, "attention_bias", false, &s->q_bias) || sw_json_i64(config, "attention_window_size", 1, 1 << 30, 2048, &s->window) ||
        sw_json_f64(config, "logits_soft_cap", 30, &s->logit_softcap))
        return -1;
    s->k_bias = s->v_bias = s->q_bias;
    s->mlp /= 2;
    s->embedding_scale = (double)sw_bf16_to_f32(sw_f32_to_bf16(sqrtf((float)s->hidden))); /* kept in bf16, whatever computes */
    return 0;
}

/* block_types repeats over the layers. */
static int layers(sw_spec *s, const cJSON *config)
{
    lru_options *o = sw_arena_zalloc(&s->arena, sizeof *o);
    const cJSON *types = sw_json_get(config, "block_types");
    int count = cJSON_IsArray(types) ? cJSON_GetArraySize(types) : 0;
    if (sw_json_i64(config, "lru_width", 1, 1 << 20, s->hidden, &o->width) || sw_json_i64(config, "conv1d_width", 2, 256, 4, &o->taps))
        return -1;
    if (s->heads < 1 || o->width % s->heads)
        return sw_fail("\"lru_width\": %lld is no multiple of %lld heads", (long long)o->width, (long long)s->heads);
    for (int64_t i = 0; i < s->layers; i++) {
        const cJSON *type = count ? cJSON_GetArrayItem(types, (int)(i % count)) : NULL;
        bool attention = count ? cJSON_IsString(type) && !strcmp(type->valuestring, "attention") : i % 3 == 2;
        if (count && !attention && !(cJSON_IsString(type) && !strcmp(type->valuestring, "recurrent")))
            return sw_fail("\"block_types\": entry %d is neither recurrent nor attention", (int)(i % count));
        if (!attention) {
            s->layer[i].mixer = &mixer_rglru;
            s->layer[i].mixer_options = o;
        }
    }
    return 0;
}

static const sw_rename names[] = {{"model.norm", "model.final_norm"}, {"attn_norm", "temporal_pre_norm"}, {"mlp_norm", "channel_pre_norm"},
                                  {"mlp.", "mlp_block."}, {"self_attn.", "temporal_block."}, {0}};

const sw_family sw_family_recurrent_gemma[] = {
    {.name = "recurrent_gemma", .architectures = SW_NAMES("RecurrentGemmaForCausalLM"), .model_types = SW_NAMES("recurrent_gemma"),
     .spec = {.tied = true, .act = SW_ACT_GELU_TANH, .norm = {.offset = 1}, .o_bias = true, .mlp_bias = true, .down_bias = true,
              .rope = {{.partial = 0.5}}},
     .read = read, .layers = layers, .names = names},
    {0}};
