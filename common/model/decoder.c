#include "model/model.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a forward pass needs beside the hidden states; made once a batch. */
typedef struct pass {
    sw_model *m;
    sw_var *cos, *sin, *seqs;
    sw_cache *cache;
    sw_var *rows;   /* i32 [n]: the cache rows that this batch's keys and values go to */
    sw_block *block;
} pass;

static sw_var *attention(sw_ctx *c, pass *p, sw_block *b, sw_var *x)
{
    const sw_spec *s = &p->m->spec;
    sw_var *q = sw_heads(sw_linear_forward(c, &b->q, x), s->heads);
    sw_var *k = q ? sw_heads(sw_linear_forward(c, &b->k, x), s->kv_heads) : NULL;
    sw_var *v = k ? sw_heads(sw_linear_forward(c, &b->v, x), s->kv_heads) : NULL;
    if (!v)
        return NULL;
    if (s->qk_norm && (!(q = sw_rmsnorm(c, q, b->q_norm, s->norm_eps, 0)) || !(k = sw_rmsnorm(c, k, b->k_norm, s->norm_eps, 0))))
        return NULL;
    q = sw_rope(c, q, p->cos, p->sin, s->rope.mode);
    k = q ? sw_rope(c, k, p->cos, p->sin, s->rope.mode) : NULL;
    if (!k)
        return NULL;
    if (p->cache) {
        sw_tensor *ck = &p->cache->k[b->index], *cv = &p->cache->v[b->index];
        if (c->recording)
            return sw_fail_null("a cache of keys and values cannot be used in training");
        if (sw_k(c)->scatter_rows(sw_s(c), ck, &k->t, &p->rows->t, 0) || sw_k(c)->scatter_rows(sw_s(c), cv, &v->t, &p->rows->t, 0))
            return NULL;
        k = sw_borrow(c, *ck);
        v = sw_borrow(c, *cv);
    }
    sw_attention a = {.scale = s->attention_scale > 0 ? s->attention_scale : 1 / sqrt((double)s->head_dim), .causal = 1,
                      .window = b->window, .softcap = s->attention_softcap};
    sw_var *out = sw_attend(c, q, k, v, p->seqs, &a);
    return out ? sw_linear_forward(c, &b->o, out) : NULL;
}

static sw_var *mlp(sw_ctx *c, const sw_spec *s, sw_block *b, sw_var *x)
{
    sw_var *gate = sw_linear_forward(c, &b->gate, x), *up = gate ? sw_linear_forward(c, &b->up, x) : NULL;
    sw_var *h = up ? sw_glu(c, gate, up, s->act) : NULL;
    return h ? sw_linear_forward(c, &b->down, h) : NULL;
}

static sw_var *block_forward(sw_ctx *c, sw_var *x, void *arg)
{
    pass *p = arg;
    sw_block *b = p->block;
    const sw_spec *s = &p->m->spec;
    c->where = b->name;
    sw_scope scope = sw_scope_begin(c);
    sw_var *h = sw_rmsnorm(c, x, b->attn_norm, s->norm_eps, 0);
    sw_var *a = h ? attention(c, p, b, h) : NULL;
    sw_var *y = a ? sw_scope_return(c, scope, sw_add(c, a, x)) : NULL;
    if (!y)
        return NULL;
    sw_scope inner = sw_scope_begin(c);
    h = sw_rmsnorm(c, y, b->mlp_norm, s->norm_eps, 0);
    h = h ? mlp(c, s, b, h) : NULL;
    return h ? sw_scope_return(c, inner, sw_add(c, h, y)) : NULL;
}

/* Positions, the table of sequences, cache rows and rotary tables, from what the batch says. */
static int prepare(sw_ctx *c, pass *p, const sw_batch *b)
{
    const sw_spec *s = &p->m->spec;
    int32_t *seqs = sw_ctx_alloc(c, (size_t)b->n_seqs * 4 * sizeof *seqs);
    int32_t *positions = sw_ctx_alloc(c, (size_t)b->n * sizeof *positions), *rows = sw_ctx_alloc(c, (size_t)b->n * sizeof *rows);
    int64_t at = 0, longest = 0;
    for (int64_t i = 0; i < b->n_seqs; i++) {
        int64_t n = b->lengths[i], before = 0, first = at;
        if (n < 0 || n > b->n - at)
            return sw_fail("batch: the lengths of its sequences do not add up to %lld tokens", (long long)b->n);
        if (b->cache) {
            int64_t slot = b->slots[i];
            before = b->cache->length[slot];
            first = slot * b->cache->capacity;
            if (before + n > b->cache->capacity)
                return sw_fail("the cache holds %lld places, %lld are needed", (long long)b->cache->capacity, (long long)(before + n));
            b->cache->length[slot] += n;
        }
        memcpy(seqs + 4 * i, (int32_t[]){(int32_t)at, (int32_t)n, (int32_t)first, (int32_t)(before + n)}, 4 * sizeof *seqs);
        for (int64_t t = 0; t < n; t++) {
            positions[at + t] = b->positions ? b->positions[at + t] : (int32_t)(before + t);
            rows[at + t] = (int32_t)(first + before + t);
            longest = SW_MAX(longest, positions[at + t] + 1);
        }
        at += n;
    }
    if (at != b->n)
        return sw_fail("batch: the lengths of its sequences do not add up to %lld tokens", (long long)b->n);
    for (int64_t i = 0; i < b->n; i++)
        if (b->ids[i] < 0 || b->ids[i] >= s->vocab)
            return sw_fail("token %lld of the batch: id %d is not below the vocabulary's size, %lld", (long long)i, b->ids[i],
                           (long long)s->vocab);
    int64_t pairs = sw_rope_pairs(s);
    float *frequency = sw_ctx_alloc(c, (size_t)pairs * sizeof *frequency);
    double scale;
    sw_rope_frequencies(s, b->rope_length > 0 ? b->rope_length : longest, frequency, &scale);
    sw_var *f = sw_from_host(c, SW_F32, 1, &pairs, frequency), *pos = sw_from_host(c, SW_I32, 1, &b->n, positions);
    p->cos = sw_tmp2(c, SW_F32, b->n, pairs);
    p->sin = sw_tmp2(c, SW_F32, b->n, pairs);
    p->seqs = sw_from_host(c, SW_I32, 2, (int64_t[]){b->n_seqs, 4}, seqs);
    p->rows = b->cache ? sw_from_host(c, SW_I32, 1, &b->n, rows) : NULL;
    if (!f || !pos || !p->cos || !p->sin || !p->seqs || (b->cache && !p->rows))
        return -1;
    p->cache = b->cache;
    return sw_k(c)->rope_table(sw_s(c), &p->cos->t, &p->sin->t, &pos->t, &f->t, scale);
}

sw_var *sw_model_forward(sw_ctx *c, sw_model *m, const sw_batch *b, bool recompute)
{
    const char *outer = c->where;
    pass base = {.m = m};
    c->where = "batch";
    sw_scope scope = sw_scope_begin(c);
    if (prepare(c, &base, b))
        return NULL;
    sw_var *ids = sw_from_host(c, SW_I32, 1, &b->n, b->ids);
    sw_var *x = ids ? sw_embed_forward(c, &m->embed, ids, m->spec.embedding_scale > 0 ? m->spec.embedding_scale : 1) : NULL;
    for (int64_t i = 0; x && i < m->spec.layers; i++) {
        pass *p = sw_ctx_alloc(c, sizeof *p); /* the backward pass may run the block again */
        *p = base;
        p->block = &m->blocks[i];
        x = recompute ? sw_recompute(c, block_forward, x, p) : block_forward(c, x, p);
        if (x) /* what the block took and nobody has saved is not needed any more */
            sw_scope_end(c, scope, (sw_var *[]){x, base.cos, base.sin, base.seqs, base.rows}, 5);
    }
    c->where = "model.norm";
    x = x ? sw_rmsnorm(c, x, m->norm, m->spec.norm_eps, 0) : NULL;
    if (!x)
        return NULL;
    /* A recorded block may run again and needs the tables, so the tape's life is theirs. */
    sw_scope_end(c, scope, recompute ? (sw_var *[]){x, base.cos, base.sin, base.seqs} : &x, recompute ? 4 : 1);
    c->where = outer;
    return x;
}

sw_head sw_model_head(sw_model *m)
{
    return (sw_head){.linear = &m->head, .scale = m->spec.logit_scale, .softcap = m->spec.logit_softcap};
}

/* ---- the cache */

static int cache_memory(sw_cache *cache, const sw_model *m, int64_t capacity, sw_tensor *k, sw_tensor *v, sw_storage *memory)
{
    const sw_spec *s = &m->spec;
    int64_t shape[3] = {cache->slots * capacity, s->kv_heads, s->head_dim};
    for (int64_t i = 0; i < 2 * s->layers; i++) {
        sw_tensor t = sw_tensor_of(NULL, cache->ctx->compute, 3, shape);
        memory[i].bytes = sw_tensor_bytes(&t);
        t.data = memory[i].data = m->device->alloc(m->device, memory[i].bytes);
        if (!t.data)
            return sw_fail_in("keys and values of %lld sequences of %lld tokens", (long long)cache->slots, (long long)capacity);
        *(i % 2 ? &v[i / 2] : &k[i / 2]) = t;
    }
    return 0;
}

static void free_memory(const sw_model *m, sw_storage *memory)
{
    for (int64_t i = 0; memory && i < 2 * m->spec.layers; i++)
        if (memory[i].data)
            m->device->free(m->device, memory[i].data);
    free(memory);
}

int sw_cache_init(sw_cache *cache, sw_ctx *c, const sw_model *m, int64_t slots, int64_t capacity)
{
    size_t layers = (size_t)m->spec.layers;
    *cache = (sw_cache){c, slots, capacity, SW_NEW_ARRAY(int64_t, (size_t)slots), SW_NEW_ARRAY(sw_tensor, layers),
                        SW_NEW_ARRAY(sw_tensor, layers), SW_NEW_ARRAY(sw_storage, 2 * layers)};
    if (slots < 1 || capacity < 1 || slots > INT32_MAX / capacity) {
        sw_cache_free(cache, m);
        return sw_fail("a cache of %lld sequences of %lld tokens is not possible", (long long)slots, (long long)capacity);
    }
    if (cache_memory(cache, m, capacity, cache->k, cache->v, cache->memory)) {
        sw_cache_free(cache, m);
        return -1;
    }
    return 0;
}

static int copy_rows(const sw_model *m, const sw_tensor *to, int64_t to_row, const sw_tensor *from, int64_t from_row, int64_t n)
{
    sw_tensor a = sw_row_view(to, to_row, n), b = sw_row_view(from, from_row, n);
    return n ? m->device->k->copy(m->device->stream, &a, &b) : 0;
}

int sw_cache_reserve(sw_cache *cache, const sw_model *m, int64_t capacity)
{
    if (capacity <= cache->capacity)
        return 0;
    capacity = SW_MAX(capacity, cache->capacity * 2);
    size_t layers = (size_t)m->spec.layers;
    sw_tensor *k = SW_NEW_ARRAY(sw_tensor, layers), *v = SW_NEW_ARRAY(sw_tensor, layers);
    sw_storage *memory = SW_NEW_ARRAY(sw_storage, 2 * layers);
    int rc = cache_memory(cache, m, capacity, k, v, memory);
    for (size_t i = 0; !rc && i < layers; i++)
        for (int64_t slot = 0; !rc && slot < cache->slots; slot++)
            rc = copy_rows(m, &k[i], slot * capacity, &cache->k[i], slot * cache->capacity, cache->length[slot]) ||
                 copy_rows(m, &v[i], slot * capacity, &cache->v[i], slot * cache->capacity, cache->length[slot])
                     ? -1
                     : 0;
    if (rc) {
        free_memory(m, memory);
        free(k);
        free(v);
        return rc;
    }
    free_memory(m, cache->memory);
    free(cache->k);
    free(cache->v);
    cache->k = k;
    cache->v = v;
    cache->memory = memory;
    cache->capacity = capacity;
    return 0;
}

int sw_cache_copy_slot(sw_cache *cache, const sw_model *m, int64_t to, int64_t from)
{
    cache->length[to] = cache->length[from];
    for (int64_t i = 0; to != from && i < m->spec.layers; i++)
        if (copy_rows(m, &cache->k[i], to * cache->capacity, &cache->k[i], from * cache->capacity, cache->length[from]) ||
            copy_rows(m, &cache->v[i], to * cache->capacity, &cache->v[i], from * cache->capacity, cache->length[from]))
            return -1;
    return 0;
}

void sw_cache_free(sw_cache *cache, const sw_model *m)
{
    if (!cache->ctx)
        return;
    free_memory(m, cache->memory);
    free(cache->k);
    free(cache->v);
    free(cache->length);
    *cache = (sw_cache){0};
}
