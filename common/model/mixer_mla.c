/* What is remembered of a token is its latent and the shared part of its key. Many queries expand them into keys and
 * values; few queries (decoding) go to the latents instead: with the rows K and V of a head in kv_b, q (K l) = (q K) l, and
 * the sum of weights times V l is V times the sum of weights times l. */
#include "model/mixer_mla.h"

#include "base/json.h"
#include "model/cache.h"
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The norms of the latents have an epsilon of their own, which no configuration says. */
static const sw_norm_spec latent_norm = {.kind = SW_NORM_RMS, .eps = 1e-6};

static const char *named(char out[SW_NAME_MAX], const char *place, const char *name)
{
    snprintf(out, SW_NAME_MAX, "%s%s", place, name);
    return out;
}

void sw_mla_declare(sw_builder *b, sw_mla_parts *a, const char *place, const sw_mla *o)
{
    const sw_layer *l = sw_builder_layer(b);
    int64_t hidden = sw_builder_spec(b)->hidden, queries = l->heads * (o->nope + o->rope);
    unsigned bias = o->bias ? SW_ASK_BIAS : 0;
    char name[SW_NAME_MAX];
    a->options = o;
    if (o->q_rank) {
        sw_ask_linear(b, &a->q_a, named(name, place, "q_a_proj"), o->q_rank, hidden, bias);
        sw_ask_norm(b, &a->q_norm, named(name, place, "q_a_layernorm"), o->q_rank, &latent_norm);
        sw_ask_linear(b, &a->q_b, named(name, place, "q_b_proj"), queries, o->q_rank, 0);
    } else {
        sw_ask_linear(b, &a->q, named(name, place, "q_proj"), queries, hidden, 0);
    }
    sw_ask_linear(b, &a->kv_a, named(name, place, "kv_a_proj_with_mqa"), o->kv_rank + o->rope, hidden, bias);
    sw_ask_norm(b, &a->kv_norm, named(name, place, "kv_a_layernorm"), o->kv_rank, &latent_norm);
    sw_ask_linear(b, &a->kv_b, named(name, place, "kv_b_proj"), l->heads * (o->nope + l->value_dim), o->kv_rank, 0);
    sw_ask_linear(b, &a->o, named(name, place, "o_proj"), hidden, l->heads * l->value_dim, bias);
    if (o->gated)
        sw_ask_linear(b, &a->g, named(name, place, "g_proj"), l->heads, hidden, 0);
    if (o->indexer.topk && !o->indexer.follows)
        sw_indexer_declare(b, &a->indexer, &o->indexer, o->q_rank);
}

sw_state_spec sw_mla_state(const sw_mla *o) { return (sw_state_spec){true, 2, {1, o->kv_rank + o->rope}, SW_DTYPE_COUNT, false}; }

/* ---- queries and latents of this batch */

static sw_var *turned(sw_ctx *c, const sw_pass *p, sw_var *x, int64_t from)
{
    int which = p->block->spec->rope;
    return x && which >= 0 ? sw_rope_from(c, x, from, p->cos[which], p->sin[which], p->spec->rope[which].mode) : x;
}

/* *latent: where they come from one. */
static sw_var *queries_of(sw_ctx *c, sw_mla_parts *a, const sw_pass *p, sw_var *x, sw_var **latent)
{
    const sw_mla *o = a->options;
    sw_var *q;
    *latent = NULL;
    if (o->q_rank) {
        q = sw_linear_forward(c, &a->q_a, x);
        q = q ? sw_norm_forward(c, &a->q_norm, q) : NULL;
        *latent = q;
        q = q ? sw_linear_forward(c, &a->q_b, q) : NULL;
    } else {
        q = sw_linear_forward(c, &a->q, x);
    }
    q = sw_heads(q, p->block->spec->heads);
    q = q && o->q_scale > 0 ? sw_scale(c, q, o->q_scale) : q;
    return turned(c, p, q, o->nope);
}

/* latent [N, kv_rank] and shared [N, 1, rope]. */
static int latents_of(sw_ctx *c, sw_mla_parts *a, const sw_pass *p, sw_var *x, sw_var **latent, sw_var **shared)
{
    const sw_mla *o = a->options;
    int64_t width = o->kv_rank + o->rope;
    sw_var *kv = sw_linear_forward(c, &a->kv_a, x);
    *latent = kv ? sw_norm_forward(c, &a->kv_norm, sw_columns(c, kv, 0, o->kv_rank)) : NULL;
    if (*latent && o->kv_scale > 0)
        *latent = sw_scale(c, *latent, o->kv_scale);
    *shared = *latent ? turned(c, p, sw_part(c, kv, o->kv_rank, 3, (int64_t[]){x->t.shape[0], 1, o->rope}, (int64_t[]){width, o->rope, 1}), 0)
                      : NULL;
    return *shared ? 0 : -1;
}

/* ---- many queries */

static sw_var *expanded(sw_ctx *c, sw_mla_parts *a, const sw_layer *l, sw_var *q, sw_var *latent, sw_var *shared, sw_var *seqs,
                        const sw_attention *how, sw_var *seen)
{
    int64_t m = latent->t.shape[0], nope = a->options->nope, each = nope + l->value_dim, row = l->heads * each;
    sw_var *kv = sw_linear_forward(c, &a->kv_b, latent);
    if (!kv)
        return NULL;
    sw_var *own = sw_part(c, kv, 0, 3, (int64_t[]){m, l->heads, nope}, (int64_t[]){row, each, 1});
    sw_var *v = sw_part(c, kv, nope, 3, (int64_t[]){m, l->heads, l->value_dim}, (int64_t[]){row, each, 1});
    sw_var *k = sw_shared_keys(c, own, shared);
    return k ? sw_attend_seen(c, q, k, v, seqs, how, seen) : NULL;
}

/* The remembered rows of the batch's sequences one after the other, taken apart, and the table of sequences over them. */
static int remembered(sw_ctx *c, const sw_pass *p, const sw_mla *o, int state, int64_t keys, sw_var **latent, sw_var **shared, sw_var **seqs)
{
    int32_t *table = sw_ctx_alloc(c, (size_t)p->n_seqs * 4 * sizeof *table);
    sw_paging paging = sw_pass_paging(p->pages);
    for (int64_t i = 0, at = 0, first = 0; i < p->n_seqs; at += p->before[i] + p->lengths[i], first += p->lengths[i], i++)
        memcpy(table + 4 * i, (int32_t[]){(int32_t)first, (int32_t)p->lengths[i], (int32_t)at, (int32_t)(p->before[i] + p->lengths[i])}, 4 * sizeof *table);
    sw_var *all = sw_borrow(c, *sw_pass_state(p, state)), *ids = sw_tmp(c, SW_I32, 1, &keys);
    *seqs = sw_from_host(c, SW_I32, 2, (int64_t[]){p->n_seqs, 4}, table);
    all = ids && *seqs && !sw_k(c)->paged_rows(sw_s(c), &ids->t, &p->seqs->t, &paging) ? sw_gather(c, all, ids) : NULL;
    if (!all)
        return -1;
    int64_t width = o->kv_rank + o->rope;
    *latent = sw_dense(c, sw_part(c, all, 0, 2, (int64_t[]){keys, o->kv_rank}, (int64_t[]){width, 1}));
    *shared = sw_part(c, all, o->kv_rank, 3, (int64_t[]){keys, 1, o->rope}, (int64_t[]){width, o->rope, 1});
    return *latent ? 0 : -1;
}

/* ---- few queries */

/* The matrix [heads * (nope + value), kv_rank] that kv_b is, without the adapters that add a product of two matrices; any
 * other adapter by what it does to each unit vector, all of them then being in the matrix (*apart: whether they are not). */
static int matrix_of(sw_ctx *c, sw_linear *l, sw_tensor *w, bool *apart)
{
    *apart = true;
    for (const sw_adapter *on = l->adapter; on; on = on->next)
        *apart = *apart && (on->off || on->ops->low_rank);
    if (*apart) {
        if (sw_use(c, &l->w->v, NULL))
            return -1;
        *w = l->w->v.t;
        return 0;
    }
    sw_var *unit = sw_tmp2(c, c->compute, l->in, l->in), *y;
    if (!unit || sw_k(c)->fill(sw_s(c), &unit->t, 0))
        return -1;
    sw_tensor diagonal = sw_tensor_of(unit->t.data, unit->t.dtype, 2, (int64_t[]){l->in, 1});
    diagonal.stride[0] = l->in + 1;
    if (sw_k(c)->fill(sw_s(c), &diagonal, 1) || !(y = sw_linear_forward(c, l, unit)))
        return -1;
    sw_tensor across = y->t;
    across.shape[0] = l->out;
    across.shape[1] = l->in;
    across.stride[0] = y->t.stride[1];
    across.stride[1] = y->t.stride[0];
    sw_var *turned_about = sw_tmp2(c, c->compute, l->out, l->in);
    if (!turned_about || sw_k(c)->copy(sw_s(c), &turned_about->t, &across))
        return -1;
    *w = turned_about->t;
    return 0;
}

/* Rows [from, from + count) of each head's `each` rows of w: [heads, count, width]. */
static sw_tensor of_heads(const sw_tensor *w, int64_t heads, int64_t each, int64_t from, int64_t count)
{
    sw_tensor rows = sw_row_view(w, from, 1), r = sw_tensor_of(rows.data, w->dtype, 3, (int64_t[]){heads, count, w->shape[1]});
    r.stride[0] = each * w->stride[0];
    r.stride[1] = w->stride[0];
    r.scales = w->scales;
    return r;
}

/* Values [from, from + width) of each head of t [N, H, D]. */
static sw_tensor part_of(const sw_tensor *t, int64_t from, int64_t width)
{
    sw_tensor r = *t;
    r.data = (char *)t->data + sw_dtype_bytes(t->dtype, from);
    r.shape[2] = width;
    return r;
}

/* t [N, H, width], a part of dense heads, as rows [N * H, width]. */
static sw_tensor rows_of(const sw_tensor *t)
{
    sw_tensor r = sw_tensor_of(t->data, t->dtype, 2, (int64_t[]){t->shape[0] * t->shape[1], t->shape[2]});
    r.stride[0] = t->stride[1];
    return r;
}

/* to += from w, or (back) from w^T, for those rows of each head of what the adapters of l add to its matrix. */
static int add_adapters(sw_ctx *c, const sw_linear *l, bool back, int64_t each, int64_t first, int64_t count, sw_tensor *to, const sw_tensor *from)
{
    const sw_kernels *k = sw_k(c);
    int64_t heads = to->shape[1];
    for (const sw_adapter *on = l->adapter; on; on = on->next) {
        sw_low_rank r;
        if (on->off)
            continue;
        on->ops->low_rank(on, &r);
        const sw_tensor *a = &r.a->v.t;
        sw_var *t = sw_use(c, &r.a->v, &r.b->v) ? NULL : sw_tmp3(c, from->dtype, from->shape[0], heads, a->shape[0]);
        if (!t)
            return -1;
        sw_tensor own = of_heads(&r.b->v.t, heads, each, first, count), flat = rows_of(&t->t), of = rows_of(back ? from : to);
        sw_stream *s = sw_s(c);
        if (back ? k->linear_fwd(s, &flat, &of, a, NULL, 1, 0) || k->linear_heads(s, to, &t->t, &own, false, r.scale, 1)
                 : k->linear_heads(s, &t->t, from, &own, true, 1, 0) || k->linear_bwd_x(s, &of, &flat, a, r.scale, 1))
            return -1;
    }
    return 0;
}

static sw_var *absorbed(sw_ctx *c, sw_mla_parts *a, const sw_pass *p, sw_var *q, int state, sw_attention *how, const sw_chosen *chosen)
{
    const sw_mla *o = a->options;
    const sw_layer *l = p->block->spec;
    const sw_kernels *k = sw_k(c);
    int64_t n = q->t.shape[0], each = o->nope + l->value_dim;
    sw_tensor w;
    bool apart;
    sw_var *wide = sw_tmp3(c, q->t.dtype, n, l->heads, o->kv_rank + o->rope), *out = sw_tmp3(c, q->t.dtype, n, l->heads, l->value_dim);
    if (!wide || !out || matrix_of(c, &a->kv_b, &w, &apart))
        return NULL;
    sw_tensor to = part_of(&wide->t, 0, o->kv_rank), from = part_of(&q->t, 0, o->nope), own = of_heads(&w, l->heads, each, 0, o->nope);
    sw_tensor to_rest = part_of(&wide->t, o->kv_rank, o->rope), rest = part_of(&q->t, o->nope, o->rope);
    if (k->linear_heads(sw_s(c), &to, &from, &own, true, 1, 0) ||
        (apart && add_adapters(c, &a->kv_b, false, each, 0, o->nope, &to, &from)) || k->copy(sw_s(c), &to_rest, &rest))
        return NULL;
    sw_tensor keys = *sw_pass_state(p, state), values = keys;
    values.shape[2] = o->kv_rank;
    how->paging = chosen->rows ? (sw_paging){chosen->rows->t.data, 0, o->indexer.topk} : sw_pass_paging(p->pages);
    sw_var *sum = sw_attend_seen(c, wide, sw_borrow(c, keys), sw_borrow(c, values), chosen->rows ? chosen->seqs : p->seqs, how, chosen->seen);
    own = of_heads(&w, l->heads, each, o->nope, l->value_dim);
    if (!sum || k->linear_heads(sw_s(c), &out->t, &sum->t, &own, false, 1, 0) ||
        (apart && add_adapters(c, &a->kv_b, true, each, o->nope, l->value_dim, &out->t, &sum->t)))
        return NULL;
    return out;
}

/* Whether going to the latents takes fewer products than expanding them; *keys: how many there are. */
static bool few_queries(const sw_pass *p, const sw_mla *o, int64_t value, int64_t *keys)
{
    double expand = 0, absorb = 0, rank = (double)o->kv_rank, nope = (double)o->nope, rope = (double)o->rope, wide = (double)value;
    *keys = 0;
    for (int64_t i = 0; i < p->n_seqs; i++) {
        double n = (double)p->lengths[i], m = (double)(p->before[i] + p->lengths[i]);
        expand += m * rank * (nope + wide) + n * m * (nope + rope + wide);
        absorb += n * rank * (nope + wide) + n * m * (2 * rank + rope);
        *keys += p->lengths[i] + p->before[i];
    }
    return absorb < expand;
}

/* y [N, heads, value], each head by its weight. */
static sw_var *gated(sw_ctx *c, sw_mla_parts *a, sw_var *x, sw_var *y)
{
    int64_t n = y->t.shape[0], heads = y->t.shape[1], width = y->t.shape[2];
    sw_var *g = sw_linear_forward(c, &a->g, x);
    g = g ? sw_activation(c, g, SW_ACT_SIGMOID) : NULL;
    y = g ? sw_scale_rows(c, sw_part(c, y, 0, 2, (int64_t[]){n * heads, width}, (int64_t[]){width, 1}),
                          sw_part(c, g, 0, 2, (int64_t[]){n * heads, 1}, (int64_t[]){1, 1}))
          : NULL;
    return y ? sw_part(c, y, 0, 3, (int64_t[]){n, heads, width}, (int64_t[]){heads * width, width, 1}) : NULL;
}

sw_var *sw_mla_forward(sw_ctx *c, sw_mla_parts *a, const sw_pass *p, sw_var *x, int state)
{
    const sw_mla *o = a->options;
    const sw_layer *l = p->block->spec;
    sw_attention how = {.scale = l->attention_scale, .causal = 1};
    sw_var *latent, *shared, *seqs = p->seqs, *q = queries_of(c, a, p, x, &latent), *out;
    sw_chosen chosen = {0};
    int64_t keys;
    if (!q || (o->indexer.topk && sw_indexer_choose(c, &a->indexer, &o->indexer, p, x, latent, state + 1, &chosen)) ||
        latents_of(c, a, p, x, &latent, &shared))
        return NULL;
    if (!p->cache) {
        out = expanded(c, a, l, q, latent, shared, seqs, &how, chosen.seen);
    } else {
        sw_var *both = sw_heads(sw_join(c, (sw_var *[]){latent, shared}, 2), 1);
        if (!both || !sw_pass_remember(c, p, state, both))
            return NULL;
        if (few_queries(p, o, l->value_dim, &keys) || chosen.rows)
            out = absorbed(c, a, p, q, state, &how, &chosen);
        else if (remembered(c, p, o, state, keys, &latent, &shared, &seqs))
            out = NULL;
        else
            out = expanded(c, a, l, q, latent, shared, seqs, &how, chosen.seen);
    }
    if (out && o->gated)
        out = gated(c, a, x, out);
    return out ? sw_linear_forward(c, &a->o, out) : NULL;
}

/* ---- one in a layer */

static void declare(sw_builder *b, void *self) { sw_mla_declare(b, self, "self_attn.", sw_builder_layer(b)->mixer_options); }

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x) { return sw_mla_forward(c, self, p, x, 0); }

static int states(const sw_spec *s, const sw_layer *l, sw_state_spec out[SW_MOST_STATES])
{
    (void)s;
    const sw_mla *o = l->mixer_options;
    bool chooses = o->indexer.topk && !o->indexer.follows;
    out[0] = sw_mla_state(o);
    if (chooses)
        out[1] = sw_indexer_state(&o->indexer);
    return chooses ? 2 : 1;
}

const sw_mixer_ops sw_mixer_mla = {"latent attention", sizeof(sw_mla_parts), declare, forward, states};

int sw_mla_read(sw_spec *s, const cJSON *config, sw_mla **out)
{
    sw_mla *o = *out = sw_arena_zalloc(&s->arena, sizeof *o);
    int64_t value, most = 1 << 16;
    bool interleave, pairs = s->rope[0].mode == SW_ROPE_INTERLEAVED;
    if (sw_json_i64(config, "q_lora_rank", 1, most, 0, &o->q_rank) || sw_json_i64(config, "kv_lora_rank", 1, most, 512, &o->kv_rank) ||
        sw_json_i64(config, "qk_nope_head_dim", 1, most, 128, &o->nope) || sw_json_i64(config, "qk_rope_head_dim", 2, most, 64, &o->rope) ||
        sw_json_i64(config, "v_head_dim", 1, most, s->heads > 0 ? s->hidden / s->heads : 128, &value) ||
        sw_json_bool(config, "attention_bias", false, &o->bias) || sw_json_bool(config, "rope_interleave", pairs, &interleave))
        return -1;
    if (s->heads < 1 || s->heads > 1 << 16)
        return sw_fail("\"num_attention_heads\": %lld is not between 1 and 65536", (long long)s->heads);
    if (o->rope % 2)
        return sw_fail("\"qk_rope_head_dim\": %lld is odd, the rotary embedding needs pairs", (long long)o->rope);
    s->rope[0].mode = interleave ? SW_ROPE_INTERLEAVED : SW_ROPE_HALF;
    for (int64_t i = 0; i < s->layers; i++) {
        sw_layer *l = &s->layer[i];
        l->kv_heads = l->heads;
        l->head_dim = o->nope + o->rope;
        l->value_dim = value;
        l->attention_scale = sw_rope_score_scale(&s->rope[0]) / sqrt((double)l->head_dim);
    }
    return 0;
}

int sw_mla_layers(sw_spec *s, const cJSON *config, sw_mla **out)
{
    sw_mla *o;
    if (sw_mla_read(s, config, &o))
        return -1;
    for (int64_t i = 0; i < s->layers; i++) {
        s->layer[i].mixer = &sw_mixer_mla;
        s->layer[i].mixer_options = o;
    }
    if (out)
        *out = o;
    return 0;
}
