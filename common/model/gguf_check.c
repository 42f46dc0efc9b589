/* Whether two specs are the same model: what a GGUF file says must be what its makers meant. */
#include "model/deepseek_v4.h"
#include "model/ffn_moe.h"
#include "model/gemma_layers.h"
#include "model/gguf_map.h"
#include "model/minimax.h"
#include "model/mixer_mamba.h"
#include "model/mixer_mla.h"

#include <math.h>
#include <string.h>

static bool near(double a, double b) { return fabs(a - b) <= 1e-5 * fmax(fabs(a), fabs(b)); } /* f32 on the way */

static bool same_text(const char *a, const char *b) { return (!a && !b) || (a && b && !strcmp(a, b)); }

/* Frequencies of short and long texts, and what cos and sin are scaled by. */
static bool same_rope(const sw_rope_spec *a, const sw_rope_spec *b)
{
    int64_t n = sw_rope_pairs(a);
    if (a->mode != b->mode || sw_rope_pairs(b) != n || n > 4096)
        return false;
    const int64_t lengths[] = {1, (int64_t)sw_rope_trained(a), (int64_t)a->max_position};
    float x[4096], y[4096];
    for (size_t k = 0; k < SW_COUNT(lengths); k++) {
        double s, t;
        sw_rope_frequencies(a, lengths[k], x, &s);
        sw_rope_frequencies(b, lengths[k], y, &t);
        for (int64_t i = 0; i < n; i++)
            if (!near((double)x[i], (double)y[i]))
                return false;
        if (!near(s, t))
            return false;
    }
    return true;
}

static bool same_norm(const sw_norm_spec *a, const sw_norm_spec *b)
{
    return a->kind == b->kind && a->plain == b->plain && a->bias == b->bias && near(a->eps, b->eps) && a->offset == b->offset;
}

static const char *experts(const sw_moe *a, const sw_moe *b)
{
    const sw_router *r = &a->router, *q = &b->router;
    if (a->experts != b->experts || a->wide != b->wide || a->shared_wide != b->shared_wide || a->identities != b->identities)
        return "these sizes of experts";
    if (r->k != q->k || r->score != q->score || r->normalise != q->normalise || !near(r->scale, q->scale) ||
        SW_MAX(r->groups, 1) != SW_MAX(q->groups, 1) || (r->groups > 1 && r->top_groups != q->top_groups) || !near(r->jitter, q->jitter) ||
        !near(r->power, q->power))
        return "this choice of experts";
    if (a->shared_bias != b->shared_bias)
        return "biases of an expert for every token";
    if (a->by_token != b->by_token)
        return "these layers with experts by token";
    return !near(a->limit, b->limit) ? "the limit of experts' gates" : NULL;
}

static bool same_mamba(const sw_mamba_options *a, const sw_mamba_options *b)
{
    return a->inner == b->inner && a->state == b->state && a->taps == b->taps && a->rank == b->rank && a->bias == b->bias &&
           a->conv_bias == b->conv_bias && near(a->inner_norm.eps, b->inner_norm.eps) && a->act == b->act;
}

static bool same_mamba2(const sw_mamba2_options *a, const sw_mamba2_options *b)
{
    return a->heads == b->heads && a->head_dim == b->head_dim && a->groups == b->groups && a->state == b->state && a->taps == b->taps &&
           a->in_bias == b->in_bias && a->out_bias == b->out_bias && a->conv_bias == b->conv_bias && a->act == b->act && a->norm == b->norm &&
           near(a->eps, b->eps) && near(a->dt_least, b->dt_least) && near(a->dt_most, b->dt_most);
}

static bool same_latent(const sw_mla *a, const sw_mla *b)
{
    return a->q_rank == b->q_rank && a->kv_rank == b->kv_rank && a->nope == b->nope && a->rope == b->rope && a->bias == b->bias &&
           near(a->q_scale, b->q_scale) && near(a->kv_scale, b->kv_scale) && a->gated == b->gated && a->indexer.topk == b->indexer.topk &&
           a->indexer.heads == b->indexer.heads && a->indexer.width == b->indexer.width && a->indexer.follows == b->indexer.follows;
}

static bool same_streams(const sw_deepseek_v4 *a, const sw_deepseek_v4 *b)
{
    const sw_compressed *x = &a->attention, *y = &b->attention;
    return x->q_rank == y->q_rank && x->groups == y->groups && x->group_rank == y->group_rank && x->nope == y->nope &&
           x->every == y->every && x->overlap == y->overlap && x->indexer.topk == y->indexer.topk &&
           x->indexer.heads == y->indexer.heads && x->indexer.width == y->indexer.width && a->streams.n == b->streams.n &&
           a->streams.rounds == b->streams.rounds && near(a->streams.eps, b->streams.eps);
}

static bool same_sharing(const sw_kv_sharing *a, const sw_kv_sharing *b)
{
    return a->source == b->source && a->value_is_key == b->value_is_key;
}

static bool same_residuals(const sw_minimax_options *a, const sw_minimax_options *b)
{
    return near(a->alpha, b->alpha) && near(a->beta, b->beta) && near(a->mlp_alpha, b->mlp_alpha) && near(a->mlp_beta, b->mlp_beta);
}

/* What a mixer remembers has the sizes of what it is made of. */
static bool same_states(const sw_spec *s, const sw_layer *a, const sw_spec *t, const sw_layer *b)
{
    sw_state_spec x[SW_MOST_STATES], y[SW_MOST_STATES];
    int n = a->mixer && a->mixer->states ? a->mixer->states(s, a, x) : 0;
    if (n && b->mixer->states(t, b, y) != n)
        return false;
    for (int i = 0; i < n; i++)
        if (x[i].ndim != y[i].ndim || memcmp(x[i].shape, y[i].shape, (size_t)x[i].ndim * sizeof *x[i].shape))
            return false;
    return true;
}

static const char *layer(const sw_spec *s, const sw_layer *a, const sw_spec *t, const sw_layer *b)
{
    if (a->mixer != b->mixer || a->ffn != b->ffn || a->block != b->block || a->cross != b->cross || a->bidirectional != b->bidirectional ||
        a->bare_mixer != b->bare_mixer)
        return "this order of kinds of layers";
    if (a->mixer == &sw_mixer_mla ? !same_latent(a->mixer_options, b->mixer_options)
        : a->mixer == &sw_mixer_compressed ? !same_streams(a->mixer_options, b->mixer_options)
        : a->mixer == &sw_mixer_shared_kv ? !same_sharing(a->mixer_options, b->mixer_options)
        : a->mixer == &sw_mixer_mamba ? !same_mamba(a->mixer_options, b->mixer_options)
                                      : a->mixer == &sw_mixer_mamba2 && !same_mamba2(a->mixer_options, b->mixer_options))
        return "these options of its layers";
    if (!same_states(s, a, t, b))
        return "these sizes of its layers' states";
    if (a->block == &sw_block_minimax && !same_residuals(a->mixer_options, b->mixer_options))
        return "these factors of its residuals";
    bool attends = a->mixer == &sw_mixer_attention || a->mixer == &sw_mixer_mla || a->mixer == &sw_mixer_shared_kv ||
                   a->mixer == &sw_mixer_compressed;
    if (attends && (a->heads != b->heads || a->kv_heads != b->kv_heads || a->head_dim != b->head_dim || a->value_dim != b->value_dim))
        return "these heads";
    if (attends && (a->rope != b->rope || a->no_qk_norm != b->no_qk_norm))
        return "layers that turn their queries otherwise";
    if (attends && !near(a->attention_scale, b->attention_scale))
        return "scaled attention";
    if (attends && (a->chunked != b->chunked || a->sinks != b->sinks || !near(a->value_scale, b->value_scale)))
        return "this kind of attention";
    if (attends && a->window != b->window && SW_MAX(a->window, b->window) < s->max_position)
        return "these sliding windows";
    const char *what = a->ffn == &sw_ffn_moe ? experts(a->ffn_options, b->ffn_options) : NULL;
    if (what)
        return what;
    bool dense = a->ffn == &sw_ffn_dense || a->mixer == &sw_mixer_shared_kv; /* Gemma's lie beside experts, or are of a kind of their own */
    return dense && a->mlp != b->mlp ? "this width of its feed-forward" : NULL;
}

/* Of models without words. */
static const char *pooled(const sw_spec *a, const sw_spec *b)
{
    if (a->pooling != b->pooling)
        return "this way of pooling";
    if (a->task == SW_TASK_CLASSIFY && (a->labels != b->labels || a->head_hidden != b->head_hidden || a->head_hidden_bias != b->head_hidden_bias ||
                                        a->head_norm != b->head_norm || a->head_act != b->head_act))
        return "this head of classes";
    return a->token_types != b->token_types ? "these token types" : NULL;
}

static const char *whole(const sw_spec *a, const sw_spec *b, unsigned flags)
{
    const sw_act act = a->family->spec.act; /* written nowhere: each architecture has its own */
    if (a->task != b->task)
        return "a classification head";
    const char *head = a->task == SW_TASK_LM ? NULL : pooled(a, b);
    if (head)
        return head;
    if (a->encoder_layers != b->encoder_layers || (a->encoder_layers && a->decoder_start != b->decoder_start))
        return "this encoder";
    if (a->vocab != b->vocab || a->hidden != b->hidden || a->layers != b->layers || a->embed_dim != b->embed_dim)
        return "these sizes";
    if (a->act != act && a->act != b->act)
        return b->act == SW_ACT_SILU ? "another activation than silu" : "another activation than its own";
    if (!same_norm(&a->norm, &b->norm) || a->norm_place != b->norm_place || a->parallel != b->parallel || a->embed_norm != b->embed_norm ||
        a->no_final_norm != b->no_final_norm)
        return "these norms";
    if (a->qk_norm != b->qk_norm || (a->qk_norm && (!same_norm(&a->qk, &b->qk) || a->qk_norm_after_rope != b->qk_norm_after_rope)))
        return "these norms of queries and keys";
    if (a->positions != b->positions || (a->position_offset != b->position_offset && !(flags & SW_GGUF_ENCODER)))
        return "these positions";
    if (a->buckets != b->buckets || a->bucket_distance != b->bucket_distance || (a->shared_buckets != b->shared_buckets && a->layers > 2))
        return "these ranges of distances";
    if (a->positions == SW_POSITIONS_ROPE && a->rope[0].kind == SW_ROPE_DYNAMIC && !(a->rope[0].alpha > 0))
        return "a rotary scaling that depends on the length of the text";
    if (a->positions == SW_POSITIONS_ROPE && !same_rope(&a->rope[0], &b->rope[0]))
        return "this rotary scaling";
    if (a->positions == SW_POSITIONS_ROPE && (a->rope[1].theta > 0) != (b->rope[1].theta > 0))
        return "a second rotation";
    if (a->rope[1].theta > 0 && !same_rope(&a->rope[1], &b->rope[1]))
        return "this second rotation";
    if (!same_text(a->packed, b->packed) || SW_MAX(a->packed_groups, 1) != SW_MAX(b->packed_groups, 1))
        return "projections packed like these";
    if (a->q_bias != b->q_bias || a->k_bias != b->k_bias || a->v_bias != b->v_bias || a->o_bias != b->o_bias || a->mlp_bias != b->mlp_bias ||
        a->down_bias != b->down_bias || a->head_bias != b->head_bias)
        return "these biases";
    if (!near(a->clip_qkv, b->clip_qkv))
        return "clipped queries, keys and values";
    if (!near(a->attention_softcap, b->attention_softcap) || !near(a->logit_softcap, b->logit_softcap))
        return "soft caps";
    if (a->plain_mlp != b->plain_mlp || a->packed_mlp != b->packed_mlp || a->conv1d != b->conv1d)
        return "this feed-forward";
    double x[] = {a->embedding_scale, a->residual_scale, a->logit_scale}, y[] = {b->embedding_scale, b->residual_scale, b->logit_scale};
    for (int i = 0; i < 3 && !(flags & SW_GGUF_FOLDED); i++)
        if (!near(x[i] == 0 ? 1 : x[i], y[i] == 0 ? 1 : y[i]))
            return "scaled attention, embeddings or logits";
    if ((a->tied != b->tied && !a->file_ties) || (a->head_product != b->head_product && !(flags & SW_GGUF_UNIT_HEAD)) || a->bidirectional != b->bidirectional)
        return "this head";
    if (a->chunk != b->chunk && SW_MAX(a->chunk, b->chunk) && SW_MIN(a->chunk, b->chunk) < a->max_position)
        return "chunks of this size";
    if (!near(a->query_growth, b->query_growth) || (a->query_growth > 0 && !near(a->query_growth_length, b->query_growth_length)))
        return "queries that grow with their position";
    for (int64_t i = 0; a->alibi && b->alibi && i < a->heads; i++)
        if (!near((double)a->alibi[i], (double)b->alibi[i]))
            return "these slopes of distance";
    return NULL;
}

int sw_gguf_same(const sw_gguf_kind *kind, const sw_spec *meant, const sw_spec *read)
{
    const char *what = whole(meant, read, kind->flags);
    for (int64_t i = 0; i < meant->layers && !what; i++)
        what = layer(meant, &meant->layer[i], read, &read->layer[i]);
    return what ? sw_fail("GGUF's %s has no place for %s", kind->arch, what) : 0;
}
