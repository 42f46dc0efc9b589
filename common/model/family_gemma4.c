/* Gemma 4 (text): heads that differ by layer, shared keys and values, an input of its own for each layer, and a factor on
 * what each gives. */
#include "model/ffn_moe.h"
#include "model/gemma_layers.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct block4 {
    sw_norm before, after, mlp_before, mlp_after;
    sw_dense_parts dense;          /* beside experts: then the feed-forward is both, each with a norm behind it */
    sw_norm dense_after, moe_after;
    sw_layer_input input;
    sw_param *factor;
    float value; /* of the factor, once read; 0 before */
} block4;

typedef struct options4 {
    sw_moe moe; /* first: the layers' ffn_options are its, too */
    int64_t vocab, width;
} options4;

/* The same for the whole model. */
static const options4 *options_of(const sw_layer *l) { return l->ffn_options; }

static void declare(sw_builder *b, void *self)
{
    block4 *k = self;
    const sw_spec *s = sw_builder_spec(b);
    int64_t width = options_of(sw_builder_layer(b))->width, one = 1;
    sw_ask_norm(b, &k->before, "attn_norm", s->hidden, &s->norm);
    sw_ask_norm(b, &k->after, "attn_post_norm", s->hidden, &s->norm);
    sw_ask_norm(b, &k->mlp_before, "mlp_norm", s->hidden, &s->norm);
    sw_ask_norm(b, &k->mlp_after, "mlp_post_norm", s->hidden, &s->norm);
    sw_declare_parts(b);
    if (sw_builder_layer(b)->ffn == &sw_ffn_moe) {
        sw_dense_declare(b, &k->dense, "mlp.");
        sw_ask_norm(b, &k->dense_after, "dense_post_norm", s->hidden, &s->norm);
        sw_ask_norm(b, &k->moe_after, "moe_post_norm", s->hidden, &s->norm);
    }
    if (width)
        sw_declare_layer_input(b, &k->input, width);
    k->factor = sw_ask(b, "layer_scalar", 1, &one, SW_ASK_F32 | SW_ASK_FIXED);
}

static sw_var *feed(sw_ctx *c, block4 *k, const sw_pass *p, sw_var *x)
{
    sw_var *h = sw_norm_forward(c, &k->mlp_before, x);
    if (!h || !k->dense.down.w)
        return h ? sw_feed(c, p, h) : NULL;
    h = sw_dense_forward(c, &k->dense, p, h);
    h = h ? sw_norm_forward(c, &k->dense_after, h) : NULL;
    sw_var *y = h ? sw_feed(c, p, x) : NULL;
    y = y ? sw_norm_forward(c, &k->moe_after, y) : NULL;
    return y ? sw_add(c, y, h) : NULL;
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *whole)
{
    block4 *k = self;
    int64_t hidden = p->spec->hidden;
    sw_var *kv[2], *x = whole->t.shape[1] == hidden ? whole : sw_columns(c, whole, 0, hidden);
    if (k->value == 0 && c->device->get(c->device, &k->value, k->factor->v.t.data, sizeof k->value))
        return NULL;
    sw_scope scope = sw_scope_begin(c);
    sw_var *h = sw_norm_forward(c, &k->before, x);
    h = h ? sw_attend_shared(c, p, h, whole, kv) : NULL;
    h = h ? sw_norm_forward(c, &k->after, h) : NULL;
    sw_var *y = h ? sw_add(c, h, x) : NULL;
    h = y ? feed(c, k, p, y) : NULL;
    h = h ? sw_norm_forward(c, &k->mlp_after, h) : NULL;
    y = h ? sw_add(c, h, y) : NULL;
    if (y && k->input.gate.w) {
        h = sw_layer_input_of(c, &k->input, p, y);
        y = h ? sw_add(c, h, y) : NULL;
    }
    y = y && k->value != 1 ? sw_scale(c, y, (double)k->value) : y;
    y = y ? sw_carry(c, p, y, whole, hidden, kv) : NULL;
    return y ? sw_scope_return(c, scope, y) : NULL;
}

static const sw_block_ops block_gemma4 = {sizeof(block4), declare, forward};

/* ---- the model around the blocks */

static void declare_body(sw_builder *b, void *self)
{
    const options4 *o = options_of(&sw_builder_spec(b)->layer[0]);
    sw_declare_layer_inputs(b, self, o->vocab, o->width);
}

static sw_var *enter(sw_ctx *c, void *self, sw_pass *p, sw_var *x)
{
    sw_layer_inputs *in = self;
    if (in->width && !(p->body = sw_layer_inputs_of(c, in, p, x)))
        return NULL;
    return x;
}

static sw_var *leave(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    (void)self;
    return x->t.shape[1] == p->spec->hidden ? x : sw_columns(c, x, 0, p->spec->hidden);
}

static const sw_body_ops body = {sizeof(sw_layer_inputs), declare_body, enter, leave};

/* ---- config.json */

static int read(sw_spec *s, const cJSON *config)
{
    s->embedding_scale = sqrt((double)s->hidden);
    if (sw_read_biases(s, config) || sw_read_window(s, config) || sw_json_f64(config, "final_logit_softcapping", 0, &s->logit_softcap))
        return -1;
    return s->window > 0 ? 0 : sw_fail("\"sliding_window\": a positive number is needed; layers that slide turn otherwise than the others");
}

/* per_layer_config: {"5": {"head_dim": 512}}; before it, global_head_dim and num_global_key_value_heads of full layers. */
static int read_heads(sw_spec *s, const cJSON *config, bool value_is_key)
{
    const cJSON *each = sw_json_get(config, "per_layer_config");
    int64_t wide, fewer;
    if (sw_json_i64(config, "global_head_dim", 2, 1 << 16, each ? s->head_dim : 512, &wide) ||
        sw_json_i64(config, "num_global_key_value_heads", 1, 1 << 16, s->kv_heads, &fewer))
        return -1;
    for (int64_t i = 0; i < s->layers; i++) {
        sw_layer *l = &s->layer[i];
        char key[24];
        snprintf(key, sizeof key, "%lld", (long long)i);
        const cJSON *own = sw_json_get(each, key);
        if (!l->window) {
            l->head_dim = wide;
            l->kv_heads = value_is_key ? fewer : l->kv_heads;
        }
        if (sw_json_i64(own, "head_dim", 2, 1 << 16, l->head_dim, &l->head_dim) ||
            sw_json_i64(own, "num_key_value_heads", 1, 1 << 16, l->kv_heads, &l->kv_heads))
            return sw_fail_in("\"per_layer_config\": layer %lld", (long long)i);
        l->value_dim = l->head_dim;
        s->rope[l->window > 0].dim = l->head_dim;
    }
    return 0;
}

SW_MOE_LAYERS(experts, .router = {.score = SW_ROUTE_SOFTMAX, .normalise = true}, .stacked = true, .own_norms = true)

static int layers(sw_spec *s, const cJSON *config)
{
    options4 *o = sw_arena_zalloc(&s->arena, sizeof *o);
    bool value_is_key, moe, wider;
    int64_t shared;
    const char *both;
    if (sw_json_bool(config, "attention_k_eq_v", false, &value_is_key) || sw_json_bool(config, "enable_moe_block", false, &moe) ||
        sw_json_bool(config, "use_double_wide_mlp", false, &wider) ||
        sw_json_i64(config, "num_kv_shared_layers", 0, s->layers - 1, 0, &shared) ||
        sw_json_i64(config, "hidden_size_per_layer_input", 0, 1 << 20, 256, &o->width) ||
        sw_json_i64(config, "vocab_size_per_layer_input", 1, 1 << 28, s->vocab, &o->vocab) ||
        sw_json_str(config, "use_bidirectional_attention", NULL, &both))
        return -1;
    if (moe) {
        if (experts(s, config))
            return -1;
        o->moe = *(const sw_moe *)s->layer[0].ffn_options;
    }
    if (both && !strcmp(both, "all"))
        return sw_fail("\"use_bidirectional_attention\": 'all' makes an encoder of this decoder; such models are not run here");
    s->layer[s->layers - 1].window = 0; /* whatever layer_types says */
    if (read_heads(s, config, value_is_key) || sw_share_kv(s, shared, value_is_key))
        return -1;
    for (int64_t i = 0; i < s->layers; i++) {
        s->layer[i].block = &block_gemma4;
        s->layer[i].ffn_options = o;
        if (wider && i >= s->layers - shared)
            s->layer[i].mlp *= 2;
    }
    return 0;
}

static const sw_rename names[] = {{"mlp_norm", "pre_feedforward_layernorm"},
                                  {"dense_post_norm", "post_feedforward_layernorm_1"},
                                  {"moe_post_norm", "post_feedforward_layernorm_2"},
                                  {"mlp.expert_norm", "pre_feedforward_layernorm_2"},
                                  {"mlp.router", "router.proj"},
                                  {"mlp.router_scale", "router.scale"},
                                  {"mlp.expert_scale", "router.per_expert_scale"},
                                  {"mlp.experts.gate_up", "experts.gate_up_proj"},
                                  {"mlp.experts.down", "experts.down_proj"},
                                  {0}};

const sw_family sw_family_gemma4[] = {
    {.name = "gemma4_text", .architectures = SW_NAMES("Gemma4ForCausalLM"), .model_types = SW_NAMES("gemma4_text"),
     .spec = {.tied = true, .act = SW_ACT_GELU_TANH, .window = 512, .full_every = 6,
              .rope = {{.theta = 1e6, .partial = 0.25, .kind = SW_ROPE_PROPORTIONAL}, {.theta = 1e4}}},
     .read = read, .layers = layers, .names = names, .body = &body},
    {0}};
