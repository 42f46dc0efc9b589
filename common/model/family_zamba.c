/* Zamba (Glorioso et al. 2024, arXiv 2405.16712) and Zamba2 (arXiv 2411.15242): Mamba layers, some of which first hear a
 * transformer block that they share. The block sees the hidden states beside the embeddings of the text. Zamba2 adds to the
 * block's matrices, at each use of it, products of two thin ones of that use's own. */
#include "model/family.h"
#include "model/mixer_mamba.h"
#include "model/model.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* One use of a shared block: a hybrid layer's ffn_options. */
typedef struct use {
    int64_t holder;          /* the layer that holds the block's tensors: the first that uses it; each where nothing is tied */
    bool holds;              /* that is this one */
    int64_t number, uses;    /* of this use, among all of the model; how many there are */
    int64_t blocks;          /* use k is of block k % blocks */
    int64_t rank;            /* of what a use adds; 0: nothing, and the feed-forward's gate and up are apart */
    bool adapted_attention;  /* to queries, keys and values, too */
    bool turns;
    const char *place;       /* before the names of the block's tensors */
    const sw_mixer_ops *mamba;
} use;

typedef struct thin {
    sw_linear down, up;
} thin;

enum { Q, K, V, FEED, THIN };
typedef struct shared {
    sw_norm norm, feed_norm;
    sw_linear qkv[3], o, gate_up, up, down; /* gate_up is the gate where up is there */
    thin *own[THIN]; /* [uses], those of this block's */
} shared;

typedef struct hybrid {
    shared *held; /* NULL: another layer's */
    sw_linear linear;
    sw_norm norm;
} hybrid;

static const use *use_of(const sw_layer *l) { return l->ffn_options; }

static const char *named(char out[SW_NAME_MAX], const use *u, const char *name)
{
    snprintf(out, SW_NAME_MAX, "%s%s", u->place, name);
    return out;
}

static void declare_thin(sw_builder *b, thin **all, const use *u, const char *list, int64_t in, int64_t out)
{
    char name[SW_NAME_MAX];
    *all = sw_builder_alloc(b, (size_t)u->uses * sizeof **all);
    for (int64_t k = u->number % u->blocks; k < u->uses; k += u->blocks) {
        snprintf(name, sizeof name, "%s%s.%lld.0", u->place, list, (long long)k);
        sw_ask_linear(b, &(*all)[k].down, name, u->rank, in, 0);
        snprintf(name, sizeof name, "%s%s.%lld.1", u->place, list, (long long)k);
        sw_ask_linear(b, &(*all)[k].up, name, out, u->rank, 0);
    }
}

static void declare_shared(sw_builder *b, shared *d)
{
    static const char *const parts[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};
    static const char *const thin_parts[] = {"self_attn.linear_q_adapter_list", "self_attn.linear_k_adapter_list",
                                             "self_attn.linear_v_adapter_list"};
    const sw_spec *s = sw_builder_spec(b);
    const sw_layer *l = sw_builder_layer(b);
    const use *u = use_of(l);
    const int64_t width[] = {l->heads * l->head_dim, l->kv_heads * l->head_dim, l->kv_heads * l->head_dim};
    unsigned bias = s->mlp_bias ? SW_ASK_BIAS : 0;
    char name[SW_NAME_MAX];
    sw_ask_norm(b, &d->norm, named(name, u, "input_layernorm"), 2 * s->hidden, &s->norm);
    for (int i = Q; i <= V; i++) {
        sw_ask_linear(b, &d->qkv[i], named(name, u, parts[i]), width[i], 2 * s->hidden, 0);
        if (u->adapted_attention)
            declare_thin(b, &d->own[i], u, thin_parts[i], 2 * s->hidden, width[i]);
    }
    sw_ask_linear(b, &d->o, named(name, u, "self_attn.o_proj"), s->hidden, l->heads * l->head_dim, 0);
    sw_ask_norm(b, &d->feed_norm, named(name, u, "pre_ff_layernorm"), s->hidden, &s->norm);
    if (u->rank) {
        sw_ask_linear(b, &d->gate_up, named(name, u, "feed_forward.gate_up_proj"), 2 * l->mlp, s->hidden, bias);
        declare_thin(b, &d->own[FEED], u, "feed_forward.gate_up_proj_adapter_list", s->hidden, 2 * l->mlp);
    } else {
        sw_ask_linear(b, &d->gate_up, named(name, u, "feed_forward.gate_proj"), l->mlp, s->hidden, bias);
        sw_ask_linear(b, &d->up, named(name, u, "feed_forward.up_proj"), l->mlp, s->hidden, bias);
    }
    sw_ask_linear(b, &d->down, named(name, u, "feed_forward.down_proj"), s->hidden, l->mlp, bias);
}

static void declare(sw_builder *b, void *self)
{
    hybrid *d = self;
    const sw_spec *s = sw_builder_spec(b);
    const use *u = use_of(sw_builder_layer(b));
    if (u->holds) {
        d->held = sw_builder_alloc(b, sizeof *d->held);
        declare_shared(b, d->held);
    }
    sw_ask_linear(b, &d->linear, "linear", s->hidden, s->hidden, 0);
    sw_ask_norm(b, &d->norm, "mamba_decoder.input_layernorm", s->hidden, &s->norm);
    sw_declare_parts(b);
}

/* What l gives, and what this use adds to it. */
static sw_var *adapted(sw_ctx *c, sw_linear *l, thin *own, const use *u, sw_var *x)
{
    sw_var *y = sw_linear_forward(c, l, x);
    if (!y || !own)
        return y;
    sw_var *h = sw_linear_forward(c, &own[u->number].down, x);
    h = h ? sw_linear_forward(c, &own[u->number].up, h) : NULL;
    return h ? sw_add(c, h, y) : NULL;
}

/* x [N, 2 hidden], normed. */
static sw_var *attend(sw_ctx *c, shared *d, const sw_pass *p, sw_var *x)
{
    const sw_layer *l = p->block->spec;
    const use *u = use_of(l);
    sw_var *part[3];
    for (int i = Q; i <= V; i++) {
        part[i] = sw_heads(adapted(c, &d->qkv[i], d->own[i], u, x), i == Q ? l->heads : l->kv_heads);
        if (!part[i] || (i != V && !(part[i] = sw_pass_rope(c, p, part[i], i == Q))) || (i != Q && !(part[i] = sw_pass_remember(c, p, i - K, part[i]))))
            return NULL;
    }
    sw_attention how = {.scale = l->attention_scale, .causal = 1, .paging = sw_pass_paging(p->pages)};
    sw_var *y = sw_attend(c, part[Q], part[K], part[V], p->seqs, &how, NULL, NULL);
    return y ? sw_linear_forward(c, &d->o, y) : NULL;
}

static sw_var *transform(sw_ctx *c, shared *d, const sw_pass *p, sw_var *x)
{
    const sw_layer *l = p->block->spec;
    sw_var *h = sw_join(c, (sw_var *[]){x, p->body}, 2);
    h = h ? sw_norm_forward(c, &d->norm, h) : NULL;
    h = h ? attend(c, d, p, h) : NULL;
    h = h ? sw_norm_forward(c, &d->feed_norm, h) : NULL;
    sw_var *gate = h ? adapted(c, &d->gate_up, d->own[FEED], use_of(l), h) : NULL, *up = NULL;
    if (gate)
        up = d->up.w ? sw_linear_forward(c, &d->up, h) : sw_columns(c, gate, l->mlp, l->mlp);
    h = up ? sw_glu(c, d->up.w ? gate : sw_columns(c, gate, 0, l->mlp), up, p->spec->act) : NULL;
    return h ? sw_linear_forward(c, &d->down, h) : NULL;
}

/* x + mamba(norm(x + linear(block(x)))) */
static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    hybrid *d = self, *holder = p->model->blocks[use_of(p->block->spec)->holder].self;
    sw_scope scope = sw_scope_begin(c);
    sw_var *h = transform(c, holder->held, p, x);
    h = h ? sw_linear_forward(c, &d->linear, h) : NULL;
    h = h ? sw_add(c, h, x) : NULL;
    h = h ? sw_norm_forward(c, &d->norm, h) : NULL;
    h = h ? sw_mix(c, p, h) : NULL;
    return h ? sw_scope_return(c, scope, sw_add(c, h, x)) : NULL;
}

static const sw_block_ops block_hybrid = {sizeof(hybrid), declare, forward};

/* The Mamba of a hybrid layer, whose first states are the attention's. */
typedef struct behind {
    void *mamba;
} behind;

static void declare_behind(sw_builder *b, void *self)
{
    behind *d = self;
    const sw_mixer_ops *mamba = use_of(sw_builder_layer(b))->mamba;
    d->mamba = sw_builder_alloc(b, mamba->size);
    mamba->declare(b, d->mamba);
}

static sw_var *behind_forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    return use_of(p->block->spec)->mamba->forward(c, ((behind *)self)->mamba, p, x);
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    int n = sw_mixer_attention.states(s, l, out);
    return n + use_of(l)->mamba->states(s, l, out + n);
}

static const sw_mixer_ops mixer_behind = {"mamba behind a shared block", sizeof(behind), declare_behind, behind_forward, states};

/* ---- the model around the blocks */

static void declare_body(sw_builder *b, void *self)
{
    (void)b;
    (void)self;
}

static sw_var *enter(sw_ctx *c, void *self, sw_pass *p, sw_var *x)
{
    (void)self;
    c->late = true;
    p->body = sw_pass_keep(c, p, x);
    return x;
}

static const sw_body_ops body = {1, declare_body, enter, NULL};

/* ---- config.json */

static int read(sw_spec *s, const cJSON *config)
{
    int64_t wide;
    if (s->heads < 1)
        return sw_fail("\"num_attention_heads\": at least one is needed");
    if (sw_json_i64(config, "attention_hidden_size", 1, 1 << 24, 2 * s->hidden, &wide) ||
        sw_json_i64(config, "attention_head_dim", 1, 1 << 16, 2 * s->hidden / s->heads, &s->head_dim) ||
        sw_json_i64(config, "intermediate_size", 1, 1 << 24, 4 * s->hidden, &s->mlp) ||
        sw_json_bool(config, "add_bias_linear", false, &s->mlp_bias))
        return -1;
    if (wide != 2 * s->hidden)
        return sw_fail("\"attention_hidden_size\": %lld, the hidden states and the embeddings have %lld", (long long)wide, (long long)(2 * s->hidden));
    s->down_bias = s->mlp_bias;
    return sw_spec_read_rope(s, config); /* with the width of heads that is known now */
}

/* Whether layer i uses a shared block, where no list says so: Zamba's period. */
static int by_period(const cJSON *config, int64_t i, bool *yes)
{
    int64_t period, offset;
    if (sw_json_i64(config, "attn_layer_period", 1, 4096, 6, &period) || sw_json_i64(config, "attn_layer_offset", 0, 4096, 4, &offset))
        return -1;
    *yes = i == 2 || (i > 2 && (i - 3) % period == offset);
    return 0;
}

static int is_hybrid(const cJSON *config, int64_t layers, bool periods, int64_t i, bool *yes)
{
    const cJSON *types = sw_json_get(config, "layers_block_type"), *ids = sw_json_get(config, "hybrid_layer_ids"), *t;
    if (!types)
        types = sw_json_get(config, "layer_types");
    if (!types && periods)
        return by_period(config, i, yes);
    if (!types && !ids)
        return sw_fail("\"layers_block_type\": a list of what each layer is is needed");
    if (!types) {
        *yes = false;
        for (t = ids->child; t; t = t->next)
            *yes |= cJSON_IsNumber(t) && t->valuedouble == (double)i;
        return 0;
    }
    if (!cJSON_IsArray(types) || cJSON_GetArraySize(types) != layers)
        return sw_fail("\"layers_block_type\": a list of %lld names is needed, one a layer", (long long)layers);
    t = cJSON_GetArrayItem(types, (int)i);
    *yes = cJSON_IsString(t) && !strcmp(t->valuestring, "hybrid");
    if (*yes || (cJSON_IsString(t) && (!strcmp(t->valuestring, "mamba") || !strcmp(t->valuestring, "linear_attention"))))
        return 0;
    return sw_fail("\"layers_block_type\": layer %lld is neither mamba nor hybrid", (long long)i);
}

/* Makes the layers: mixers with options `alone`, and behind a use of a shared block (as `first` says) `behind`. */
static int set_layers(sw_spec *s, const cJSON *config, use first, const void *alone, const void *behind_block)
{
    if (s->heads < 1 || s->kv_heads < 1 || s->heads % s->kv_heads || s->head_dim % 2)
        return sw_fail("\"num_attention_heads\": %lld heads, %lld of keys, of %lld values each, do not fit together", (long long)s->heads,
                       (long long)s->kv_heads, (long long)s->head_dim);
    int64_t *holder = sw_arena_zalloc(&s->arena, (size_t)first.blocks * sizeof *holder);
    use **all = sw_arena_zalloc(&s->arena, (size_t)s->layers * sizeof *all);
    for (int64_t i = 0; i < s->layers; i++) {
        sw_layer *l = &s->layer[i];
        bool yes = false;
        if (is_hybrid(config, s->layers, !first.rank, i, &yes))
            return -1;
        l->mixer = yes ? &mixer_behind : first.mamba;
        l->mixer_options = yes ? behind_block : alone;
        l->ffn = NULL;
        l->rope = yes && first.turns ? 0 : -1;
        if (!yes)
            continue;
        use *u = all[first.uses] = sw_arena_zalloc(&s->arena, sizeof *u);
        *u = first;
        u->number = first.uses++;
        u->holds = !s->tied || u->number < u->blocks;
        if (u->holds)
            holder[u->number % u->blocks] = i;
        u->holder = holder[u->number % u->blocks];
        l->ffn_options = u;
        l->block = &block_hybrid;
        l->attention_scale = 1 / sqrt((double)s->head_dim / 2);
    }
    for (int64_t k = 0; k < first.uses; k++)
        all[k]->uses = first.uses;
    return 0;
}

static int zamba_layers(sw_spec *s, const cJSON *config)
{
    sw_mamba_heads_options *alone = sw_arena_zalloc(&s->arena, 2 * sizeof *alone), *behind_block = alone + 1;
    const int64_t most = 1 << 24;
    double expand;
    *alone = (sw_mamba_heads_options){.place = "mamba.", .rank = (s->hidden + 15) / 16}; /* "auto" */
    if (sw_json_f64(config, "mamba_expand", 2, &expand) || sw_json_i64(config, "n_mamba_heads", 1, most, 2, &alone->heads) ||
        sw_json_i64(config, "mamba_d_state", 1, most, 16, &alone->state) || sw_json_i64(config, "mamba_d_conv", 1, most, 4, &alone->taps) ||
        (!cJSON_IsString(sw_json_get(config, "mamba_dt_rank")) && sw_json_i64(config, "mamba_dt_rank", 1, most, alone->rank, &alone->rank)) ||
        sw_json_bool(config, "mamba_proj_bias", false, &alone->bias) || sw_json_bool(config, "mamba_conv_bias", true, &alone->conv_bias) ||
        sw_read_act(config, "hidden_mamba_act", SW_ACT_SILU, &alone->act))
        return -1;
    alone->inner = expand > 0 && expand < 64 ? (int64_t)(expand * (double)s->hidden) : 0;
    *behind_block = *alone;
    behind_block->place = "mamba_decoder.mamba.";
    behind_block->first_state = 2;
    if (sw_mamba_heads_check(behind_block))
        return -1;
    return set_layers(s, config, (use){.blocks = 1, .place = "shared_transf.", .mamba = &sw_mixer_mamba_heads}, alone, behind_block);
}

static int zamba2_layers(sw_spec *s, const cJSON *config)
{
    sw_mamba2_options *alone = sw_arena_zalloc(&s->arena, 2 * sizeof *alone), *behind_block = alone + 1;
    use first = {.place = "shared_transformer.", .mamba = &sw_mixer_mamba2};
    const int64_t most = 1 << 24;
    double expand;
    *alone = (sw_mamba2_options){.act = SW_ACT_SILU, .eps = 1e-5, .in_bias = s->mlp_bias, .out_bias = s->mlp_bias, .conv_bias = true};
    if (sw_json_f64(config, "mamba_expand", 2, &expand) || sw_json_i64(config, "n_mamba_heads", 1, most, 8, &alone->heads))
        return -1;
    alone->head_dim = expand > 0 && expand < 64 ? (int64_t)(expand * (double)s->hidden) / alone->heads : 0;
    if (sw_json_i64(config, "mamba_headdim", 1, most, alone->head_dim, &alone->head_dim) ||
        sw_json_i64(config, "mamba_ngroups", 1, most, 1, &alone->groups) || sw_json_i64(config, "mamba_d_state", 1, most, 64, &alone->state) ||
        sw_json_i64(config, "mamba_d_conv", 1, most, 4, &alone->taps) || sw_json_f64(config, "time_step_min", 1e-3, &alone->dt_least) ||
        sw_mamba2_check(alone) || sw_json_i64(config, "num_mem_blocks", 1, 4096, 1, &first.blocks) ||
        sw_json_i64(config, "adapter_rank", 1, most, 128, &first.rank) || sw_json_bool(config, "use_mem_rope", false, &first.turns) ||
        sw_json_bool(config, "use_shared_attention_adapter", false, &first.adapted_attention))
        return -1;
    *behind_block = *alone;
    behind_block->place = "mamba_decoder.mamba.";
    behind_block->first_state = 2;
    return set_layers(s, config, first, alone, behind_block);
}

static const sw_rename names[] = {{"model.norm", "model.final_layernorm"}, {0}};
#define ZAMBA .spec = {.tied = true, .norm = {.eps = 1e-5}, .act = SW_ACT_GELU}, .read = read, .names = names, .body = &body

const sw_family sw_family_zamba[] = {
    {.name = "zamba", .architectures = SW_NAMES("ZambaForCausalLM"), .model_types = SW_NAMES("zamba"), ZAMBA, .layers = zamba_layers},
    {.name = "zamba2", .architectures = SW_NAMES("Zamba2ForCausalLM"), .model_types = SW_NAMES("zamba2"), ZAMBA, .layers = zamba2_layers},
    {0}};
