#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

sw_var *sw_pass_keep(sw_ctx *c, sw_pass *p, sw_var *x)
{
    (void)c;
    if (x)
        SW_PUSH(p->kept, x);
    return x;
}

sw_paging sw_pass_paging(const sw_var *pages)
{
    return pages ? (sw_paging){pages->t.data, SW_PAGE_BITS, pages->t.shape[1] * SW_PAGE} : (sw_paging){0};
}

sw_tensor *sw_pass_state(const sw_pass *p, int k) { return p->cache ? &p->cache->layer[p->block->index].t[k] : NULL; }

static sw_var *block_forward(sw_ctx *c, sw_var *x, void *arg)
{
    sw_pass *p = arg;
    c->where = p->block->name;
    c->keys = p->keys;
    return p->block->spec->block->forward(c, p->block->self, p, x);
}

/* ---- what a batch needs */

/* The table of sequences where each ends with its chunk and begins with the next: chunked attention (Llama 4). */
static int chunk_table(sw_ctx *c, sw_pass *p, const int32_t *seqs)
{
    int64_t size = p->spec->chunk, most = p->n / size + 2 * p->n_seqs, n = 0;
    int32_t *chunks = sw_ctx_alloc(c, (size_t)most * 4 * sizeof *chunks);
    for (const int32_t *s = seqs; s < seqs + 4 * p->n_seqs; s += 4)
        for (int64_t end = s[3], at = end - s[1], next; at < end; at = next) { /* places in the sequence */
            int64_t start = at / size * size;
            next = SW_MIN(start + size, end);
            memcpy(chunks + 4 * n++, (int32_t[]){(int32_t)(s[0] + at - (end - s[1])), (int32_t)(next - at), (int32_t)(s[2] + start),
                                                 (int32_t)(next - start)}, 4 * sizeof *chunks);
        }
    p->chunks = sw_from_host(c, SW_I32, 2, (int64_t[]){n, 4}, chunks);
    return p->chunks ? 0 : -1;
}

/* Room for what the batch adds to the cache. */
static int take_pages(sw_ctx *c, sw_pass *p, const sw_batch *b)
{
    for (int64_t i = 0; i < b->n_seqs; i++)
        if (sw_cache_take(b->cache, p->model, b->slots[i], b->cache->length[b->slots[i]] + SW_MAX(b->lengths[i], 0)))
            return -1;
    p->pages = sw_cache_table(c, &b->cache->pages[SW_PAGES_TOKENS], b->slots, b->n_seqs);
    return p->pages ? 0 : -1;
}

/* The table of sequences, positions, and cache rows. */
static int lay_out(sw_ctx *c, sw_pass *p, const sw_batch *b)
{
    if (b->cache && take_pages(c, p, b))
        return -1;
    int32_t *seqs = sw_ctx_alloc(c, (size_t)b->n_seqs * 8 * sizeof *seqs), *runs = seqs + 4 * b->n_seqs;
    int32_t *positions = sw_ctx_alloc(c, (size_t)b->n * sizeof *positions), *rows = sw_ctx_alloc(c, (size_t)b->n * sizeof *rows);
    int32_t *ids = sw_ctx_alloc(c, (size_t)b->n * sizeof *ids), *types = sw_ctx_alloc(c, (size_t)b->n * sizeof *types);
    int64_t *tables = sw_ctx_alloc(c, (size_t)b->n_seqs * 3 * sizeof *tables), *lengths = tables, *before = tables + b->n_seqs,
            *slots = before + b->n_seqs, at = 0;
    for (int64_t i = 0; i < b->n_seqs; i++) {
        int64_t n = lengths[i] = b->lengths[i], first = at;
        if (n < 0 || n > b->n - at)
            return sw_fail("batch: the lengths of its sequences do not add up to %lld tokens", (long long)b->n);
        if (b->cache) {
            slots[i] = b->slots[i];
            before[i] = b->cache->length[slots[i]];
            first = i * sw_pass_paging(p->pages).most;
            memcpy(b->cache->ids[slots[i]] + before[i], b->ids + at, (size_t)n * sizeof *b->ids);
            b->cache->length[slots[i]] += n;
        }
        memcpy(seqs + 4 * i, (int32_t[]){(int32_t)at, (int32_t)n, (int32_t)first, (int32_t)(before[i] + n)}, 4 * sizeof *seqs);
        memcpy(runs + 4 * i, (int32_t[]){(int32_t)at, (int32_t)n, b->cache ? (int32_t)slots[i] : -1, before[i] > 0}, 4 * sizeof *runs);
        for (int64_t t = 0; t < n; t++) {
            positions[at + t] = b->positions ? b->positions[at + t] : (int32_t)(before[i] + t);
            rows[at + t] = b->cache ? (int32_t)sw_cache_row(&b->cache->pages[SW_PAGES_TOKENS], slots[i], before[i] + t) : 0;
            p->longest = SW_MAX(p->longest, positions[at + t] + 1);
        }
        at += n;
    }
    if (at != b->n)
        return sw_fail("batch: the lengths of its sequences do not add up to %lld tokens", (long long)b->n);
    for (int64_t i = 0; i < b->n; i++)
        if ((ids[i] = b->ids[i]) < 0 || ids[i] >= p->spec->vocab)
            return sw_fail("token %lld of the batch: id %d is not below the vocabulary's size, %lld", (long long)i, ids[i],
                           (long long)p->spec->vocab);
    for (int64_t i = 0; b->types && i < b->n; i++)
        if ((types[i] = b->types[i]) < 0 || types[i] >= SW_MAX(p->spec->token_types, 1))
            return sw_fail("token %lld of the batch: its type %d is not below the number of types, %lld", (long long)i, types[i],
                           (long long)SW_MAX(p->spec->token_types, 1));
    p->n = b->n;
    p->n_seqs = b->n_seqs;
    p->ids = ids;
    p->positions = positions;
    p->types = types;
    p->lengths = lengths;
    p->before = before;
    p->slots = slots;
    p->cache = b->cache;
    p->seqs = sw_from_host(c, SW_I32, 2, (int64_t[]){b->n_seqs, 4}, seqs);
    p->runs = sw_from_host(c, SW_I32, 2, (int64_t[]){b->n_seqs, 4}, runs);
    p->rows = b->cache ? sw_from_host(c, SW_I32, 1, &b->n, rows) : NULL;
    if (!p->seqs || !p->runs || (b->cache && !p->rows))
        return -1;
    return p->spec->chunk ? chunk_table(c, p, seqs) : 0;
}

/* Angles of the rows [at, at + n) for a text of `length` places. */
static int rope_rows(sw_ctx *c, sw_pass *p, int which, sw_var *positions, int64_t at, int64_t n, int64_t length)
{
    const sw_rope_spec *r = &p->spec->rope[which];
    int64_t pairs = sw_rope_pairs(r);
    float *frequency = sw_ctx_alloc(c, (size_t)pairs * sizeof *frequency);
    double scale;
    sw_rope_frequencies(r, length, frequency, &scale);
    sw_var *f = sw_from_host(c, SW_F32, 1, &pairs, frequency);
    sw_tensor cos = sw_row_view(&p->cos[which]->t, at, n), sin = sw_row_view(&p->sin[which]->t, at, n),
              places = sw_row_view(&positions->t, at, n);
    return f ? sw_k(c)->rope_table(sw_s(c), &cos, &sin, &places, &f->t, scale) : -1;
}

/* A batch that trains turns by its longest sequence, as the reference does; sequences that are generated side by side have
 * nothing to do with each other, and each turns by its own length. */
static int rope_tables(sw_ctx *c, sw_pass *p, int which, sw_var *positions, int64_t length)
{
    const sw_rope_spec *r = &p->spec->rope[which];
    int64_t pairs = sw_rope_pairs(r);
    p->cos[which] = sw_tmp2(c, SW_F32, p->n, pairs);
    p->sin[which] = sw_tmp2(c, SW_F32, p->n, pairs);
    if (!p->cos[which] || !p->sin[which])
        return -1;
    if (!p->cache || length || !sw_rope_by_length(r))
        return rope_rows(c, p, which, positions, 0, p->n, length ? length : p->longest);
    for (int64_t i = 0, at = 0; i < p->n_seqs; at += p->lengths[i++])
        if (p->lengths[i] && rope_rows(c, p, which, positions, at, p->lengths[i], p->before[i] + p->lengths[i]))
            return -1;
    return 0;
}

/* A rotation by nothing that scales: queries that grow with the logarithm of their position. */
static int growth_tables(sw_ctx *c, sw_pass *p)
{
    const sw_spec *s = p->spec;
    int64_t pairs = s->head_dim / 2;
    float *scale = sw_ctx_alloc(c, (size_t)(p->n * pairs) * sizeof *scale);
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t k = 0; k < pairs; k++)
            scale[i * pairs + k] = (float)(1 + s->query_growth * log1p(floor((p->positions[i] + s->query_growth_offset) / s->query_growth_length)));
    p->query_scale = sw_from_host(c, SW_F32, 2, (int64_t[]){p->n, pairs}, scale);
    p->query_zero = sw_tmp2(c, SW_F32, p->n, pairs);
    return p->query_scale && p->query_zero ? sw_k(c)->fill(sw_s(c), &p->query_zero->t, 0) : -1;
}

static sw_linear *positions_of(const sw_pass *p) { return p->encoder ? &p->model->encoder_positions : &p->model->positions; }

/* What the embeddings are looked up by. */
static int lay_ids(sw_ctx *c, sw_pass *p)
{
    const sw_spec *s = p->spec;
    p->token_ids = sw_from_host(c, SW_I32, 1, &p->n, p->ids);
    if (p->model->types.w)
        p->type_ids = sw_from_host(c, SW_I32, 1, &p->n, p->types);
    if (!p->token_ids || (p->model->types.w && !p->type_ids))
        return -1;
    if (s->positions != SW_POSITIONS_LEARNED)
        return 0;
    int32_t *at = sw_ctx_alloc(c, (size_t)p->n * sizeof *at);
    int64_t most = positions_of(p)->out;
    for (int64_t i = 0; i < p->n; i++)
        if ((at[i] = (int32_t)(p->positions[i] + s->position_offset)) >= most)
            return sw_fail("position %d: the model has learned %lld only", p->positions[i], (long long)(most - s->position_offset));
    p->place_ids = sw_from_host(c, SW_I32, 1, &p->n, at);
    return p->place_ids ? 0 : -1;
}

static int prepare(sw_ctx *c, sw_pass *p, const sw_batch *b)
{
    const sw_spec *s = p->spec;
    bool used[SW_MOST_ROPES] = {false};
    if (lay_out(c, p, b) || lay_ids(c, p) || (b->keys && !(p->keys = sw_from_host(c, SW_I64, 1, &b->n, b->keys))))
        return -1;
    for (int64_t i = 0; i < s->layers; i++)
        if (s->layer[i].rope >= 0)
            used[s->layer[i].rope] = true;
    sw_var *positions = sw_from_host(c, SW_I32, 1, &p->n, p->positions);
    for (int k = 0; positions && k < SW_MOST_ROPES; k++)
        if (used[k] && rope_tables(c, p, k, positions, SW_MAX(b->rope_length, 0)))
            return -1;
    if (s->query_growth > 0 && growth_tables(c, p))
        return -1;
    if (s->alibi && !(p->alibi = sw_from_host(c, SW_F32, 1, &s->heads, s->alibi)))
        return -1;
    return positions ? 0 : -1;
}

/* ---- before and after the blocks */

/* Halves of sines and cosines (Vaswani et al. 2017, arXiv 1706.03762, as tensor2tensor laid them out). */
static sw_var *sinusoids(sw_ctx *c, const sw_pass *p)
{
    const sw_spec *s = p->spec;
    int64_t half = s->hidden / 2;
    float *values = sw_ctx_alloc(c, (size_t)(p->n * s->hidden) * sizeof *values);
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t k = 0; k < half; k++) {
            double angle = (double)(p->positions[i] + s->position_offset) * exp(-(double)k * log(10000) / (double)SW_MAX(half - 1, 1));
            values[i * s->hidden + k] = (float)sin(angle);
            values[i * s->hidden + half + k] = (float)cos(angle);
        }
    sw_var *x = sw_from_host(c, SW_F32, 2, (int64_t[]){p->n, s->hidden}, values);
    return x ? sw_cast(c, x, c->compute) : NULL;
}

static sw_var *enter(sw_ctx *c, sw_pass *p)
{
    sw_model *m = p->model;
    const sw_spec *s = p->spec;
    sw_var *x = sw_embed_forward(c, &m->embed, p->token_ids, s->embedding_scale > 0 ? s->embedding_scale : 1);
    if (x && m->project_in.w && !s->embed_whole)
        x = sw_linear_forward(c, &m->project_in, x);
    if (x && (s->positions == SW_POSITIONS_LEARNED || s->positions == SW_POSITIONS_SINUSOIDAL)) {
        sw_var *at = p->place_ids ? sw_embed_forward(c, positions_of(p), p->place_ids, 1) : sinusoids(c, p);
        x = at ? sw_add(c, x, at) : NULL;
    }
    if (x && m->types.w) {
        sw_var *at = sw_embed_forward(c, &m->types, p->type_ids, 1);
        x = at ? sw_add(c, x, at) : NULL;
    }
    x = x ? sw_norm_forward(c, p->encoder ? &m->encoder_embed_norm : &m->embed_norm, x) : NULL;
    x = x ? sw_drop(c, s, SW_DROP_EMBEDDING, p->encoder, x) : NULL;
    if (x && m->project_in.w && s->embed_whole)
        x = sw_linear_forward(c, &m->project_in, x);
    const sw_body_ops *body = s->family->body;
    return x && body && body->enter ? body->enter(c, m->body, p, x) : x;
}

/* The layers of the head before its last. */
static sw_var *head_hidden(sw_ctx *c, sw_model *m, sw_var *x)
{
    if (!m->head_hidden.w)
        return x;
    x = sw_linear_act(c, &m->head_hidden, x, m->spec.head_act);
    return x ? sw_norm_forward(c, &m->head_norm, x) : NULL;
}

static sw_var *leave(sw_ctx *c, sw_pass *p, sw_var *x)
{
    sw_model *m = p->model;
    const sw_body_ops *body = p->spec->family->body;
    c->where = "model.norm";
    if (body && body->leave)
        x = body->leave(c, m->body, p, x);
    x = x ? sw_norm_forward(c, &m->norm, x) : NULL;
    x = x ? sw_drop(c, p->spec, SW_DROP_FINAL, 0, x) : NULL;
    if (x && m->project_out.w)
        x = sw_linear_forward(c, &m->project_out, x);
    sw_task task = p->spec->task;
    bool each = task == SW_TASK_MASKED_LM || task == SW_TASK_TOKENS || (task == SW_TASK_CLASSIFY && p->spec->pooling == SW_POOL_MEAN_LATE);
    x = x && each ? head_hidden(c, m, x) : x;
    return x && task == SW_TASK_TOKENS ? sw_drop(c, p->spec, SW_DROP_HEAD, 0, x) : x;
}

/* Leaves the scope with what later blocks need, and x. */
static void end_scope(sw_ctx *c, sw_scope scope, const sw_pass *p, sw_var *x)
{
    sw_var **keep = sw_ctx_alloc(c, (p->kept.n + 1) * sizeof *keep);
    if (p->kept.n)
        memcpy(keep, p->kept.at, p->kept.n * sizeof *keep);
    keep[p->kept.n] = x;
    sw_scope_end(c, scope, keep, p->kept.n + 1);
}

/* ---- long rotation: where a text grows past the length that the short factors are for, what is remembered of it was
 * made with the wrong ones, and the text is read again from its start */

static bool outgrows(const sw_model *m, const sw_batch *b, int64_t i)
{
    const sw_rope_spec *r = &m->spec.rope[0];
    double before = b->cache ? (double)b->cache->length[b->slots[i]] : 0, trained = sw_rope_trained(r);
    return r->kind == SW_ROPE_LONGROPE && before > 0 && before <= trained && before + (double)b->lengths[i] > trained;
}

/* A batch in which such sequences are whole; rows: of its results, those that b asks for. */
static const sw_batch *read_again(sw_ctx *c, const sw_model *m, const sw_batch *b, int32_t **rows)
{
    int64_t more = 0;
    for (int64_t i = 0; i < b->n_seqs; i++)
        more += outgrows(m, b, i) ? b->cache->length[b->slots[i]] : 0;
    if (!more)
        return b;
    sw_batch *w = sw_ctx_alloc(c, sizeof *w);
    int32_t *ids = sw_ctx_alloc(c, (size_t)(b->n + more) * sizeof *ids), *positions = sw_ctx_alloc(c, (size_t)(b->n + more) * sizeof *ids);
    int64_t *lengths = sw_ctx_alloc(c, (size_t)b->n_seqs * sizeof *lengths), at = 0, from = 0, row = 0;
    *rows = sw_ctx_alloc(c, (size_t)b->n * sizeof **rows);
    for (int64_t i = 0; i < b->n_seqs; from += b->lengths[i++]) {
        int64_t slot = b->slots[i], before = b->cache->length[slot], old = outgrows(m, b, i) ? before : 0;
        lengths[i] = old + b->lengths[i];
        if (old)
            memcpy(ids + at, b->cache->ids[slot], (size_t)old * sizeof *ids);
        memcpy(ids + at + old, b->ids + from, (size_t)b->lengths[i] * sizeof *ids);
        for (int64_t t = 0; t < lengths[i]; t++)
            positions[at + t] = b->positions && t >= old ? b->positions[from + t - old] : (int32_t)(before - old + t);
        for (int64_t t = 0; t < b->lengths[i]; t++)
            (*rows)[row++] = (int32_t)(at + old + t);
        if (old)
            b->cache->length[slot] = 0;
        at += lengths[i];
    }
    *w = *b;
    w->n = at;
    w->ids = ids;
    w->positions = positions;
    w->lengths = lengths;
    w->types = NULL; /* of models that remember nothing */
    return w;
}

/* ---- blocks */

static sw_var *run_blocks(sw_ctx *c, const sw_pass *base, sw_var *x, int64_t from, int64_t to, bool recompute, sw_scope scope)
{
    for (int64_t i = from; x && i < to; i++) {
        sw_pass *p = sw_ctx_alloc(c, sizeof *p); /* the backward pass may run the block again */
        *p = *base;
        p->block = &p->model->blocks[i];
        if (sw_drops_layer(c, p->spec, i, p->block->site))
            continue;
        x = recompute ? sw_recompute(c, block_forward, x, p) : block_forward(c, x, p);
        if (x) /* what the block took and nobody has saved is not needed any more */
            end_scope(c, scope, base, x);
    }
    return x;
}

/* ---- an encoder in front */

/* Scores by distance that all layers from `first` on share. They are made here and not in a block, because what a block
 * makes again when it is run again is its own. */
static int share_bias(sw_ctx *c, sw_pass *p, int64_t first)
{
    if (!p->spec->buckets || !p->spec->shared_buckets)
        return 0;
    p->bias = sw_pass_keep(c, p, sw_attention_bias(c, p, &p->model->blocks[first]));
    return p->bias ? 0 : -1;
}

/* Where the decoder finds the keys of each sequence's source. */
static int lay_sources(sw_ctx *c, sw_pass *p, const sw_batch *b, const sw_batch *source)
{
    int32_t *cross = sw_ctx_alloc(c, (size_t)b->n_seqs * 4 * sizeof *cross), *rows = sw_ctx_alloc(c, (size_t)source->n * sizeof *rows);
    for (int64_t i = 0; b->cache && i < b->n_seqs; i++)
        if (source->lengths[i] && sw_cache_take_source(b->cache, p->model, b->slots[i], source->lengths[i]))
            return -1;
    if (b->cache && !(p->cross_pages = sw_cache_table(c, &b->cache->pages[SW_PAGES_SOURCES], b->slots, b->n_seqs)))
        return -1;
    for (int64_t i = 0, at = 0, read = 0; i < b->n_seqs; at += b->lengths[i], read += source->lengths[i++]) {
        int64_t first = read, n = source->lengths[i];
        if (b->cache) {
            int64_t slot = b->slots[i];
            first = i * sw_pass_paging(p->cross_pages).most;
            if (n)
                b->cache->source_length[slot] = n;
            for (int64_t t = 0; t < n; t++)
                rows[read + t] = (int32_t)sw_cache_row(&b->cache->pages[SW_PAGES_SOURCES], slot, t);
            n = b->cache->source_length[slot];
        }
        if (n < 1 && b->lengths[i])
            return sw_fail("sequence %lld has no source, which %s reads before it writes", (long long)i, p->spec->family->name);
        memcpy(cross + 4 * i, (int32_t[]){(int32_t)at, (int32_t)b->lengths[i], (int32_t)first, (int32_t)n}, 4 * sizeof *cross);
    }
    p->cross = sw_from_host(c, SW_I32, 2, (int64_t[]){b->n_seqs, 4}, cross);
    p->memory_rows = b->cache && source->n ? sw_from_host(c, SW_I32, 1, &source->n, rows) : NULL;
    return p->cross && (!b->cache || !source->n || p->memory_rows) ? 0 : -1;
}

/* p->source, where the batch has any: with a cache most steps bring none. */
static int prepare_sources(sw_ctx *c, sw_pass *p, const sw_batch *b)
{
    int64_t *none = sw_ctx_alloc(c, (size_t)b->n_seqs * sizeof *none);
    sw_batch source = {.n_seqs = b->n_seqs, .ids = b->source_ids, .keys = b->source_keys, .lengths = b->source_lengths ? b->source_lengths : none};
    for (int64_t i = 0; i < b->n_seqs; i++) {
        if (source.lengths[i] < 0 || source.lengths[i] > INT32_MAX - source.n)
            return sw_fail("batch: the lengths of its sources are not possible");
        source.n += source.lengths[i];
    }
    if (lay_sources(c, p, b, &source) || !source.n)
        return p->cross ? 0 : -1;
    p->source = sw_ctx_alloc(c, sizeof *p->source);
    *p->source = (sw_pass){.model = p->model, .spec = p->spec, .encoder = true};
    return prepare(c, p->source, &source);
}

/* The sources through the encoder: p->memory. */
static int encode(sw_ctx *c, sw_pass *p, bool recompute, sw_scope scope)
{
    sw_model *m = p->model;
    sw_pass *e = p->source;
    c->keys = e->keys;
    sw_var *x = enter(c, e);
    if (x && share_bias(c, e, 0))
        x = NULL;
    x = run_blocks(c, e, x, 0, p->spec->encoder_layers, recompute, scope);
    c->where = m->encoder_norm.w ? m->encoder_norm.w->name : c->where;
    x = x ? sw_norm_forward(c, &m->encoder_norm, x) : NULL;
    x = x ? sw_drop(c, p->spec, SW_DROP_FINAL, 1, x) : NULL;
    p->memory = sw_pass_keep(c, p, x);
    for (size_t i = 0; recompute && i < e->kept.n; i++) /* its blocks may be run again */
        SW_PUSH(p->kept, e->kept.at[i]);
    free(e->kept.at);
    e->kept.at = NULL;
    return x ? 0 : -1;
}

sw_pass *sw_model_prepare(sw_ctx *c, sw_model *m, const sw_batch *asked)
{
    const char *outer = c->where;
    int32_t *rows = NULL;
    const sw_batch *b = asked->cache ? read_again(c, m, asked, &rows) : asked;
    sw_pass *p = sw_ctx_alloc(c, sizeof *p);
    *p = (sw_pass){.model = m, .spec = &m->spec};
    c->where = "batch";
    if (prepare(c, p, b) || (m->spec.encoder_layers && prepare_sources(c, p, b)) ||
        (rows && !(p->asked = sw_from_host(c, SW_I32, 1, &asked->n, rows))))
        return NULL;
    c->where = outer;
    return p;
}

sw_var *sw_model_run(sw_ctx *c, sw_pass *p, bool recompute)
{
    const char *outer = c->where;
    sw_model *m = p->model;
    sw_scope scope = sw_scope_begin(c);
    int64_t first = m->spec.encoder_layers;
    int rc = (p->source && encode(c, p, recompute, scope)) || share_bias(c, p, first);
    c->keys = p->keys; /* of the hidden states too */
    sw_var *x = rc ? NULL : enter(c, p);
    x = run_blocks(c, p, x, first, m->spec.layers, recompute, scope);
    x = x ? leave(c, p, x) : NULL;
    if (x && p->asked)
        x = sw_gather(c, x, p->asked);
    if (x) {
        if (recompute) /* a block may run again and needs what was kept: the tape's life is theirs */
            end_scope(c, scope, p, x);
        else
            sw_scope_return(c, scope, x);
        c->where = outer;
    }
    free(p->kept.at);
    p->kept.at = NULL;
    return x;
}

sw_var *sw_model_forward(sw_ctx *c, sw_model *m, const sw_batch *b, bool recompute)
{
    sw_pass *p = sw_model_prepare(c, m, b);
    return p ? sw_model_run(c, p, recompute) : NULL;
}

sw_head sw_model_head(sw_model *m)
{
    if (!sw_task_has_words(m->spec.task)) /* scales and caps are of words */
        return (sw_head){.linear = &m->head};
    return (sw_head){.linear = &m->head, .product = m->spec.head_product, .scale = m->spec.logit_scale, .softcap = m->spec.logit_softcap};
}

/* Rows of the first or last token of each sequence. */
static sw_var *pool_one(sw_ctx *c, const sw_batch *b, bool first, sw_var *x)
{
    int32_t *rows = sw_ctx_alloc(c, (size_t)b->n_seqs * sizeof *rows);
    for (int64_t i = 0, at = 0; i < b->n_seqs; at += b->lengths[i++])
        rows[i] = (int32_t)(first ? at : at + b->lengths[i] - 1);
    sw_var *ids = sw_from_host(c, SW_I32, 1, &b->n_seqs, rows);
    return ids ? sw_gather(c, x, ids) : NULL;
}

/* Sums in f32 of rows that are divided by their number beforehand. */
static sw_var *pool_mean(sw_ctx *c, const sw_batch *b, sw_var *x)
{
    int32_t *sequence = sw_ctx_alloc(c, (size_t)b->n * sizeof *sequence);
    float *share = sw_ctx_alloc(c, (size_t)b->n * sizeof *share);
    for (int64_t i = 0, at = 0; i < b->n_seqs; i++)
        for (int64_t t = 0; t < b->lengths[i]; t++, at++) {
            sequence[at] = (int32_t)i;
            share[at] = 1 / (float)b->lengths[i];
        }
    sw_dtype type = x->t.dtype;
    sw_var *ids = sw_from_host(c, SW_I32, 1, &b->n, sequence), *s = sw_from_host(c, SW_F32, 2, (int64_t[]){b->n, 1}, share),
           *sum = sw_tmp2(c, SW_F32, b->n_seqs, x->t.shape[1]);
    if (!ids || !s || !sum || sw_k(c)->fill(sw_s(c), &sum->t, 0) || !(x = sw_cast(c, x, SW_F32)) || !(x = sw_scale_rows(c, x, s)))
        return NULL;
    sum = sw_scatter_add(c, sum, x, ids);
    return sum ? sw_cast(c, sum, type) : NULL;
}

sw_var *sw_model_pool(sw_ctx *c, sw_model *m, const sw_batch *b, sw_var *hidden)
{
    int64_t *first = sw_ctx_alloc(c, (size_t)b->n_seqs * sizeof *first);
    for (int64_t i = 0, at = 0; i < b->n_seqs; at += b->lengths[i++]) {
        if (b->lengths[i] < 1)
            return sw_fail_null("sequence %lld of the batch is empty: nothing stands for it", (long long)i);
        first[i] = b->keys ? b->keys[at] : 0;
    }
    if (b->keys && !(c->keys = sw_from_host(c, SW_I64, 1, &b->n_seqs, first)))
        return NULL;
    return m->spec.pooling >= SW_POOL_MEAN ? pool_mean(c, b, hidden) : pool_one(c, b, m->spec.pooling == SW_POOL_FIRST, hidden);
}

sw_var *sw_model_score(sw_ctx *c, sw_model *m, sw_var *x)
{
    x = sw_drop(c, &m->spec, SW_DROP_POOLED, 0, x);
    x = x && m->spec.pooling != SW_POOL_MEAN_LATE ? head_hidden(c, m, x) : x;
    x = x ? sw_drop(c, &m->spec, SW_DROP_HEAD, 0, x) : NULL;
    return x ? sw_linear_forward(c, &m->head, x) : NULL;
}
