/* Softmax attention with rotary or other positions, grouped keys, and the packings of its projections. */
#include "model/block.h"

#include "model/cache.h"
#include "model/model.h"

#include <math.h>
#include <string.h>

enum { Q, K, V, GATE, PARTS };
static const char letters[PARTS + 1] = "qkvg";

typedef struct attention {
    sw_linear alone[PARTS], packed, o;
    sw_norm q_norm, k_norm;
    sw_norm_spec plain;         /* SW_QK_EACH: without the weights, which are */
    sw_param *q_each, *k_each;  /* [heads, head_dim] */
    sw_param *sinks;
    sw_linear distances;        /* the scores of ranges of distances [buckets, heads], or empty */
} attention;

static int64_t heads_of(const sw_layer *l, int part) { return part == Q || part == GATE ? l->heads : l->kv_heads; }
static int64_t width_of(const sw_layer *l, int part) { return part == V || part == GATE ? l->value_dim : l->head_dim; }
static int64_t groups_of(const sw_spec *s) { return s->packed_groups ? s->packed_groups : 1; }

/* Rows of one group of the packed projection, and where in it a part begins (-1: the part is not packed). */
static int64_t packed_rows(const sw_spec *s, const sw_layer *l, int part, int64_t *begins)
{
    int64_t at = 0;
    *begins = -1;
    for (const char *p = s->packed; p && *p; p++) {
        int k = (int)(strchr(letters, *p) - letters);
        if (k == part)
            *begins = at;
        at += heads_of(l, k) / groups_of(s) * width_of(l, k);
    }
    return at;
}

static bool is_packed(const sw_spec *s, int part) { return s->packed && strchr(s->packed, letters[part]); }
static bool is_alone(const sw_spec *s, int part) { return !is_packed(s, part) && (part != GATE || s->gated); }

static sw_param *ask_each(sw_builder *b, const char *whole, const char *single, int64_t heads)
{
    int64_t width = sw_builder_layer(b)->head_dim;
    sw_param *p = sw_ask_optional(b, whole, 2, (int64_t[]){heads, width}, 0);
    return p ? p : sw_ask_stack(b, single, heads, 1, &width, 0);
}

static void declare_qk_norm(sw_builder *b, attention *a)
{
    const sw_spec *s = sw_builder_spec(b);
    const sw_layer *l = sw_builder_layer(b);
    if (s->qk_norm == SW_QK_EACH) { /* one tensor, or one a head */
        a->plain = s->qk;
        a->plain.plain = true;
        a->plain.bias = false;
        a->q_norm.spec = a->k_norm.spec = &a->plain;
        a->q_each = ask_each(b, "self_attn.q_norm.weight", "self_attn.q_norm.%d.weight", l->heads);
        a->k_each = ask_each(b, "self_attn.k_norm.weight", "self_attn.k_norm.%d.weight", l->kv_heads);
    } else if (s->qk_norm && !l->no_qk_norm) {
        bool full = s->qk_norm == SW_QK_FULL;
        sw_ask_norm(b, &a->q_norm, "self_attn.q_norm", full ? l->heads * l->head_dim : l->head_dim, &s->qk);
        sw_ask_norm(b, &a->k_norm, "self_attn.k_norm", full ? l->kv_heads * l->head_dim : l->head_dim, &s->qk);
    }
}

static void declare(sw_builder *b, void *self)
{
    attention *a = self;
    const sw_spec *s = sw_builder_spec(b);
    const sw_layer *l = sw_builder_layer(b);
    static const char *const names[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};
    const bool bias[] = {s->q_bias, s->k_bias, s->v_bias};
    int64_t begins;
    if (s->packed) {
        const char *name = is_packed(s, K) ? is_packed(s, Q) ? "self_attn.qkv_proj" : "self_attn.kv_proj" : "self_attn.q_proj";
        sw_ask_linear(b, &a->packed, name, groups_of(s) * packed_rows(s, l, Q, &begins), s->hidden,
                      bias[is_packed(s, Q) ? Q : K] ? SW_ASK_BIAS : 0);
    }
    for (int k = Q; k <= V; k++)
        if (is_alone(s, k))
            sw_ask_linear(b, &a->alone[k], names[k], heads_of(l, k) * width_of(l, k), s->hidden, bias[k] ? SW_ASK_BIAS : 0);
    if (s->gated)
        sw_ask_linear(b, &a->alone[GATE], "self_attn.gate_proj", l->heads * l->value_dim, s->hidden, 0);
    sw_ask_linear(b, &a->o, "self_attn.o_proj", s->hidden, l->heads * l->value_dim, s->o_bias ? SW_ASK_BIAS : 0);
    declare_qk_norm(b, a);
    int64_t index = l - s->layer;
    if (s->buckets && (!s->shared_buckets || index == 0 || index == s->encoder_layers))
        sw_ask_linear(b, &a->distances, "self_attn.distances", s->buckets, l->heads, SW_ASK_EMBEDDING);
    if (l->sinks)
        a->sinks = sw_ask(b, "self_attn.sinks", 1, &l->heads, SW_ASK_F32);
}

/* A part of the packed projection's output y [N, groups * rows], as [N, heads, width]: a view where the heads lie evenly. */
static sw_var *take_part(sw_ctx *c, const sw_pass *p, int part, sw_var *y)
{
    const sw_layer *l = p->block->spec;
    int64_t begins, rows = packed_rows(p->spec, l, part, &begins), groups = groups_of(p->spec);
    int64_t n = y->t.shape[0], heads = heads_of(l, part), width = width_of(l, part), each = heads / groups;
    if (groups == 1 || each == 1)
        return sw_part(c, y, begins, 3, (int64_t[]){n, heads, width}, (int64_t[]){groups * rows, groups == 1 ? width : rows, 1});
    sw_var *v = sw_part(c, y, begins, 4, (int64_t[]){n, groups, each, width}, (int64_t[]){groups * rows, rows, width, 1});
    return sw_heads(sw_dense(c, v), heads);
}

static int project(sw_ctx *c, attention *a, const sw_pass *p, sw_var *x, sw_var *out[PARTS])
{
    const sw_spec *s = p->spec;
    sw_linear *from[PARTS + 1];
    sw_var *y[PARTS + 1], *packed = NULL;
    size_t n = 0, i = 0;
    if (s->packed)
        from[n++] = &a->packed;
    for (int k = Q; k < PARTS; k++)
        if (is_alone(s, k))
            from[n++] = &a->alone[k];
    if (sw_linears_forward(c, from, n, x, y))
        return -1;
    if (s->packed) {
        packed = y[i++];
        if (s->clip_qkv > 0 && !(packed = sw_clamp(c, packed, s->clip_qkv)))
            return -1;
    }
    for (int k = Q; k < PARTS; k++) {
        if (is_packed(s, k)) {
            out[k] = take_part(c, p, k, packed);
        } else if (is_alone(s, k)) {
            sw_var *v = y[i++];
            if (s->clip_qkv > 0 && k != GATE && (k == V || s->qk_norm != SW_QK_FULL)) /* OLMoE cuts what is normed */
                v = sw_clamp(c, v, s->clip_qkv);
            out[k] = sw_heads(v, heads_of(p->block->spec, k));
        } else {
            out[k] = NULL;
            continue;
        }
        if (!out[k])
            return -1;
    }
    return 0;
}

/* x [N, H, D] normed as the spec says. */
static sw_var *qk_norm(sw_ctx *c, const sw_pass *p, const sw_norm *n, sw_param *each, sw_var *x)
{
    if (p->spec->qk_norm == SW_QK_FULL) {
        int64_t heads = x->t.shape[1], width = x->t.shape[2];
        if (x->base)
            x = sw_dense(c, x);
        x = x ? sw_norm_forward(c, n, sw_heads(x, 1)) : NULL;
        x = x && p->spec->clip_qkv > 0 ? sw_clamp(c, x, p->spec->clip_qkv) : x;
        return x ? sw_part(c, x, 0, 3, (int64_t[]){x->t.shape[0], heads, width}, (int64_t[]){heads * width, width, 1}) : NULL;
    }
    x = sw_norm_forward(c, n, x);
    return x && each ? sw_scale_columns(c, x, each) : x;
}

sw_var *sw_pass_remember(sw_ctx *c, const sw_pass *p, int k, sw_var *x)
{
    if (!p->cache)
        return x;
    if (c->recording)
        return sw_fail_null("a cache of earlier tokens cannot be used in training");
    sw_tensor *state = sw_pass_state(p, k);
    return sw_k(c)->scatter_rows(sw_s(c), state, &x->t, &p->rows->t, 0) ? NULL : sw_borrow(c, *state);
}

sw_var *sw_pass_rope(sw_ctx *c, const sw_pass *p, sw_var *x, bool query)
{
    int which = p->block->spec->rope;
    if (which >= 0)
        x = sw_rope(c, x, p->cos[which], p->sin[which], p->spec->rope[which].mode);
    bool grows = query && p->query_scale && (which < 0 || !p->spec->query_growth_unturned);
    return x && grows ? sw_rope(c, x, p->query_scale, p->query_zero, SW_ROPE_HALF) : x;
}

/* The range of a distance (key place - query place): each of the nearest has its own, those further off grow with the
 * logarithm; where both directions are seen, each has half of them (Raffel et al. 2019, arXiv 1910.10683; f32 as there). */
static int32_t bucket_of(int64_t distance, bool bidirectional, int64_t buckets, int64_t farthest)
{
    int64_t first = 0, d = bidirectional && distance > 0 ? distance : SW_MAX(-distance, 0);
    if (bidirectional) {
        buckets /= 2;
        first = distance > 0 ? buckets : 0;
    }
    int64_t exact = buckets / 2;
    if (d < exact)
        return (int32_t)(first + d);
    float way = logf((float)d / (float)exact) / (float)log((double)farthest / (double)exact) * (float)(buckets - exact);
    return (int32_t)(first + SW_MIN(exact + (int64_t)way, buckets - 1));
}

sw_var *sw_attention_bias(sw_ctx *c, const sw_pass *p, const sw_block *b)
{
    attention *a = b->mixer;
    int64_t far = p->spec->bucket_distance, span = 2 * far + 1;
    int32_t *ranges = sw_ctx_alloc(c, (size_t)span * sizeof *ranges);
    for (int64_t i = 0; i < span; i++)
        ranges[i] = bucket_of(i - far, b->spec->bidirectional, p->spec->buckets, far);
    sw_var *ids = sw_from_host(c, SW_I32, 1, &span, ranges), *x = ids ? sw_embed_forward(c, &a->distances, ids, 1) : NULL;
    return x ? sw_bias_table(c, x) : NULL;
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    attention *a = self;
    const sw_spec *s = p->spec;
    const sw_layer *l = p->block->spec;
    sw_var *part[PARTS], *q, *k, *v;
    if (project(c, a, p, x, part))
        return NULL;
    q = part[Q];
    k = part[K];
    v = part[V];
    bool after = s->qk_norm_after_rope;
    if (!after && (!(q = qk_norm(c, p, &a->q_norm, a->q_each, q)) || !(k = qk_norm(c, p, &a->k_norm, a->k_each, k))))
        return NULL;
    if (!(q = sw_pass_rope(c, p, q, true)) || !(k = sw_pass_rope(c, p, k, false)))
        return NULL;
    if (after && (!(q = qk_norm(c, p, &a->q_norm, a->q_each, q)) || !(k = qk_norm(c, p, &a->k_norm, a->k_each, k))))
        return NULL;
    if (!(k = sw_pass_remember(c, p, 0, k)) || !(v = sw_pass_remember(c, p, 1, v)))
        return NULL;
    sw_attention how = {.scale = l->attention_scale, .causal = !l->bidirectional, .window = l->window, .softcap = s->attention_softcap,
                        .bias_zero = s->bucket_distance, .paging = sw_pass_paging(p->pages)};
    sw_var *bias = !s->buckets || p->bias ? p->bias : sw_attention_bias(c, p, p->block);
    if (s->buckets && !bias)
        return NULL;
    sw_var *out = bias ? sw_attend_biased(c, q, k, v, p->seqs, &how, bias)
                       : sw_attend(c, q, k, v, l->chunked ? p->chunks : p->seqs, &how, p->alibi, a->sinks);
    if (out && part[GATE]) {
        int64_t wide = l->heads * l->value_dim;
        sw_var *gate = sw_dense(c, part[GATE]);
        gate = gate ? sw_part(c, gate, 0, 2, (int64_t[]){x->t.shape[0], wide}, (int64_t[]){wide, 1}) : NULL;
        out = gate ? sw_glu(c, gate, sw_part(c, out, 0, 2, (int64_t[]){x->t.shape[0], wide}, (int64_t[]){wide, 1}), SW_ACT_SIGMOID) : NULL;
    }
    if (out && l->value_scale > 0) /* a weighted sum of scaled values is the scaled sum */
        out = sw_scale(c, out, l->value_scale);
    return out ? sw_linear_forward(c, &a->o, out) : NULL;
}

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    (void)s;
    out[0] = (sw_state_spec){true, 2, {l->kv_heads, l->head_dim}, SW_DTYPE_COUNT, true};
    out[1] = (sw_state_spec){true, 2, {l->kv_heads, l->value_dim}, SW_DTYPE_COUNT, true};
    return 2;
}

const sw_mixer_ops sw_mixer_attention = {"attention", sizeof(attention), declare, forward, states};
