/* Phi-3-small (Abdin et al. 2024, arXiv 2404.14219): attention over blocks in some layers, a feed-forward whose gate
 * and up take turns, scales of muP, and tokens that are never said. */
#include "model/ffn_moe.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

typedef struct blocks {
    int64_t size, local,
        stride; /* of a block, blocks nearby, and every which block farther away; size 0: all is seen */
} blocks;

typedef struct attention {
    sw_linear qkv, o;
} attention;

static int64_t packed_rows(const sw_layer *l) { return (l->heads + 2 * l->kv_heads) * l->head_dim; }

static void declare(sw_builder *b, void *self)
{
    attention *a = self;
    const sw_layer *l = sw_builder_layer(b);
    int64_t hidden = sw_builder_spec(b)->hidden;
    sw_ask_linear(b, &a->qkv, "self_attn.qkv_proj", packed_rows(l), hidden, SW_ASK_BIAS);
    sw_ask_linear(b, &a->o, "self_attn.o_proj", hidden, l->heads * l->head_dim, SW_ASK_BIAS);
}

static void set_bits(uint32_t *bits, int64_t from, int64_t to)
{
    for (int64_t word = from / 32; word * 32 < to; word++) {
        uint32_t low = from > word * 32 ? UINT32_MAX << (from - word * 32) : UINT32_MAX;
        uint32_t high = to < word * 32 + 32 ? ((uint32_t)1 << (to - word * 32)) - 1 : UINT32_MAX;
        bits[word] |= low & high;
    }
}

/* What each token sees for heads of one kind: the blocks nearby, and of those before them block j where j + kind is a
 * multiple of the stride. i32 [N, words], a bit a place; the causal mask sees to later places. */
static sw_var *seen_blocks(sw_ctx *c, const sw_pass *p, const blocks *o, int64_t kind, int64_t words)
{
    size_t all = (size_t)(p->n * words);
    uint32_t *bits = sw_ctx_alloc(c, all * sizeof *bits), *row = bits;
    memset(bits, 0, all * sizeof *bits);
    for (int64_t i = 0; i < p->n_seqs; i++)
        for (int64_t t = 0; t < p->lengths[i]; t++, row += words) {
            int64_t place = p->before[i] + t, mine = place / o->size;
            for (int64_t j = 0; j <= mine; j++)
                if (mine - j < o->local || (j + kind) % o->stride == 0)
                    set_bits(row, j * o->size, SW_MIN((j + 1) * o->size, place + 1));
        }
    return sw_from_host(c, SW_I32, 2, (int64_t[]){p->n, words}, bits);
}

/* Once a pass, since layers differ in nothing: what heads h with (h + 1) % stride == i see; NULL where that is all. */
static sw_var *find_seen(sw_ctx *c, void *self, sw_pass *p, sw_var *x)
{
    const blocks *o = NULL;
    int64_t longest = 0;
    (void)self;
    for (int64_t i = 0; i < p->spec->layers; i++)
        if (((const blocks *)p->spec->layer[i].mixer_options)->size)
            o = p->spec->layer[i].mixer_options;
    for (int64_t i = 0; i < p->n_seqs; i++)
        longest = SW_MAX(longest, p->before[i] + p->lengths[i]);
    if (!o || longest <= o->size * o->local)
        return x;
    sw_var **seen = p->body = sw_ctx_alloc(c, (size_t)o->stride * sizeof *seen);
    for (int64_t kind = 1; kind <= SW_MIN(o->stride, p->spec->heads); kind++)
        if (!(seen[kind % o->stride] = sw_pass_keep(c, p, seen_blocks(c, p, o, kind, (longest + 31) / 32))))
            return NULL;
    return x;
}

static void declare_nothing(sw_builder *b, void *self)
{
    (void)b;
    (void)self;
}

static const sw_body_ops body_blocks = {1, declare_nothing, find_seen, NULL};

/* Each head by itself, since they see different blocks. */
static sw_var *attend_blocks(sw_ctx *c, const sw_pass *p, sw_var *q, sw_var *k, sw_var *v, const sw_attention *how)
{
    const sw_layer *l = p->block->spec;
    const blocks *o = l->mixer_options;
    int64_t d = l->head_dim, n = q->t.shape[0], m = k->t.shape[0], group = l->heads / l->kv_heads;
    sw_var **out = sw_ctx_alloc(c, (size_t)l->heads * sizeof *out), *const *seen = p->body;
    for (int64_t h = 0; h < l->heads; h++) {
        int64_t row = l->heads * d, kv_row = l->kv_heads * d, at = h / group * d;
        sw_var *one = sw_part(c, q, h * d, 3, (int64_t[]){n, 1, d}, (int64_t[]){row, d, 1});
        sw_var *key = one ? sw_part(c, k, at, 3, (int64_t[]){m, 1, d}, (int64_t[]){kv_row, d, 1}) : NULL;
        sw_var *value = key ? sw_part(c, v, at, 3, (int64_t[]){m, 1, d}, (int64_t[]){kv_row, d, 1}) : NULL;
        if (!value || !(out[h] = sw_attend_seen(c, one, key, value, p->seqs, how, seen[(h + 1) % o->stride])))
            return NULL;
    }
    return sw_join(c, out, (size_t)l->heads);
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    attention *a = self;
    const sw_layer *l = p->block->spec;
    const blocks *o = l->mixer_options;
    int64_t n = x->t.shape[0], d = l->head_dim, group = l->heads / l->kv_heads, rows = (group + 2) * d;
    sw_var *y = sw_linear_forward(c, &a->qkv, x), *q, *k, *v;
    if (!y ||
        !(q = sw_part(c, y, 0, 4, (int64_t[]){n, l->kv_heads, group, d},
                      (int64_t[]){l->kv_heads * rows, rows, d, 1})) ||
        !(q = sw_heads(sw_dense(c, q), l->heads)) ||
        !(k = sw_part(c, y, group * d, 3, (int64_t[]){n, l->kv_heads, d}, (int64_t[]){l->kv_heads * rows, rows, 1})) ||
        !(v = sw_part(c, y, (group + 1) * d, 3, (int64_t[]){n, l->kv_heads, d},
                      (int64_t[]){l->kv_heads * rows, rows, 1})) ||
        !(q = sw_pass_rope(c, p, q, true)) || !(k = sw_pass_rope(c, p, k, false)))
        return NULL;
    bool all = !o->size || !p->body;
    if (!(k = sw_pass_remember(c, p, 0, k)) || (!all && !p->cache && !(v = sw_dense(c, v))) ||
        !(v = sw_pass_remember(c, p, 1, v)))
        return NULL;
    sw_attention how = {.scale = l->attention_scale, .causal = true, .paging = sw_pass_paging(p->pages)};
    y = all ? sw_attend(c, q, k, v, p->seqs, &how, NULL, NULL) : attend_blocks(c, p, q, k, v, &how);
    return y ? sw_linear_forward(c, &a->o, y) : NULL;
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    (void)s;
    out[0] = out[1] = (sw_state_spec){true, 2, {l->kv_heads, l->head_dim}, SW_DTYPE_COUNT, false};
    return 2;
}

static const sw_mixer_ops mixer_blocks = {"attention over blocks", sizeof(attention), declare, forward, states};

/* ---- feed-forward */

typedef struct turns {
    sw_linear up, down;
} turns;

static void declare_turns(sw_builder *b, void *self)
{
    turns *m = self;
    int64_t hidden = sw_builder_spec(b)->hidden, wide = sw_builder_layer(b)->mlp;
    sw_ask_linear(b, &m->up, "mlp.up_proj", 2 * wide, hidden, SW_ASK_BIAS);
    sw_ask_linear(b, &m->down, "mlp.down_proj", hidden, wide, SW_ASK_BIAS);
}

static sw_var *forward_turns(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    turns *m = self;
    const double *limit = p->block->spec->ffn_options;
    sw_var *y = sw_linear_forward(c, &m->up, x);
    y = y ? sw_glu_turns(c, y, *limit) : NULL;
    return y ? sw_linear_forward(c, &m->down, y) : NULL;
}

static const sw_ffn_ops ffn_turns = {"gate and up in turns", sizeof(turns), declare_turns, forward_turns};

/* ---- head: tokens of the vocabulary that nothing was trained for are never said */

static bool never_said(int64_t id)
{
    return id == 100256 || (id >= 100258 && id <= 100260) || id == 100264 || id == 100265 || id >= 100267;
}

static sw_var *head_without(sw_ctx *c, sw_linear *l, sw_var *x)
{
    float *values = sw_ctx_alloc(c, (size_t)l->out * sizeof *values);
    for (int64_t i = 0; i < l->out; i++)
        values[i] = never_said(i) ? -1e30F : 0;
    sw_var *row = sw_from_host(c, SW_F32, 1, &l->out, values), *y = row ? sw_linear_forward(c, l, x) : NULL;
    return y ? sw_plus_row(c, y, row) : NULL;
}

static int read_phi3small(sw_spec *s, const cJSON *config)
{
    bool scaled, homo;
    double attention, width, position;
    const char *act;
    if (sw_json_i64(config, "ff_intermediate_size", 1, 1 << 24, s->mlp, &s->mlp) ||
        sw_json_f64(config, "rope_embedding_base", 1e6, &s->rope[0].theta) ||
        sw_json_f64(config, "rope_position_scale", 1, &position) ||
        sw_json_bool(config, "mup_use_scaling", true, &scaled) ||
        sw_json_f64(config, "mup_attn_multiplier", 1, &attention) ||
        sw_json_f64(config, "mup_embedding_multiplier", 10, &s->embedding_scale) ||
        sw_json_f64(config, "mup_width_multiplier", 8, &width) || sw_json_str(config, "hidden_act", "gegelu", &act) ||
        sw_json_bool(config, "blocksparse_homo_head_pattern", false, &homo))
        return -1;
    if (strcmp(act, "gegelu") || position != 1 || homo)
        return sw_fail("\"hidden_act\" must be gegelu, \"rope_position_scale\" 1 and \"blocksparse_homo_head_pattern\" "
                       "false, as published "
                       "models have them");
    if (!(s->rope[0].theta > 0) || !(attention > 0) || !(width >= 0))
        return sw_fail(
            "\"rope_embedding_base\" %g, \"mup_attn_multiplier\" %g and \"mup_width_multiplier\" %g must be positive",
            s->rope[0].theta, attention, width);
    s->attention_scale = scaled ? attention / (double)s->head_dim : 0;
    s->logit_scale = width > 0 ? 1 / width : 0;
    s->head_product = s->vocab == 100352 ? head_without : NULL; /* the one vocabulary that it was published with */
    return 0;
}

static int layers(sw_spec *s, const cJSON *config)
{
    blocks *o = sw_arena_zalloc(&s->arena, 2 * sizeof *o), *none = o + 1;
    double *limit = sw_arena_zalloc(&s->arena, sizeof *limit);
    int64_t dense;
    if (sw_json_i64(config, "blocksparse_block_size", 1, 1 << 20, 64, &o->size) ||
        sw_json_i64(config, "blocksparse_num_local_blocks", 1, 1 << 20, 16, &o->local) ||
        sw_json_i64(config, "blocksparse_vert_stride", 1, 1 << 16, 8, &o->stride) ||
        sw_json_i64(config, "dense_attention_every_n_layers", 0, 4096, 0, &dense) ||
        sw_json_f64(config, "gegelu_limit", 20, limit))
        return -1;
    if (!(*limit > 0) || s->kv_heads < 1 || s->heads % s->kv_heads)
        return sw_fail(
            "\"gegelu_limit\" %g must be positive, and the %lld heads a multiple of \"num_key_value_heads\", %lld",
            *limit, (long long)s->heads, (long long)s->kv_heads);
    for (int64_t i = 0; i < s->layers; i++) {
        sw_layer *l = &s->layer[i];
        l->mixer = &mixer_blocks;
        l->mixer_options = dense && (i + 1) % dense == 0 ? none : o;
        l->ffn = &ffn_turns;
        l->ffn_options = limit;
    }
    return 0;
}

static const sw_rename names[] = {{"self_attn.qkv_proj", "self_attn.query_key_value"},
                                  {"self_attn.o_proj", "self_attn.dense"},
                                  {"model.norm", "model.final_layernorm"},
                                  {0}};

const sw_family sw_family_phi3small[] = {{.name = "phi3small",
                                          .architectures = SW_NAMES("Phi3SmallForCausalLM"),
                                          .model_types = SW_NAMES("phi3small"),
                                          .spec = {.norm = {.kind = SW_NORM_LAYER, .bias = true}, .tied = true},
                                          .read = read_phi3small,
                                          .layers = layers,
                                          .names = names,
                                          .body = &body_blocks},
                                         {0}};
