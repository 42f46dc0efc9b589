/* The matrix that each head keeps, forward. Heads of sequences are the tasks: long runs go in chunks, heads that share a
 * key together; short ones (decoding) place by place. */
#include "cpu_recurrence.h"

/* ---- place by place */

/* One place of one head as f32. */
typedef struct place {
    float *q, *k, *decay, *v;
    float beta, skip;
} place;

static int64_t place_space(const sw_keeper *p) { return 3 * p->deep_padded + p->wide_padded; }
static place place_in(const sw_keeper *p, float *space)
{
    int64_t d = p->deep_padded;
    return (place){space, space + d, space + 2 * d, space + 3 * d, 1, 0};
}

static void load_place(const sw_keeper *p, place *at, int64_t row, int64_t head)
{
    sw_fetch(at->q, p->q, row, head / p->share, p->deep);
    sw_fetch(at->k, p->k, row, head / p->share, p->deep);
    sw_fetch(at->v, p->v, row, head, p->wide);
    sw_fetch(at->decay, p->g, row, head, p->each ? p->deep : 1);
    if (!p->each)
        at->decay[0] = sw_exp(at->decay[0]);
    for (int64_t i = 0; i < p->deep; i++)
        at->decay[i] = p->each ? sw_exp(at->decay[i]) : at->decay[0];
    if (p->beta)
        sw_fetch(&at->beta, p->beta, row, head, 1);
    at->skip = sw_skip_of(p, head);
}

/* `vectors` vectors of columns of the matrix at m go on by one place; the output takes v's place. */
__attribute__((always_inline)) static inline void step_columns(int vectors, const sw_keeper *p, const place *at, float *m, float *v)
{
    sw_vec sum[8], u[8];
    for (int i = 0; i < vectors; i++)
        sum[i] = sw_splat(0);
    for (int64_t d = 0; p->delta && d < p->deep; d++) {
        sw_vec f = sw_splat(at->decay[d] * at->k[d]);
        for (int i = 0; i < vectors; i++)
            sum[i] += f * *(const sw_vec *)(const void *)(m + d * p->wide + i * SW_LANES);
    }
    for (int i = 0; i < vectors; i++) {
        sw_vec x = *(const sw_vec *)(const void *)(v + i * SW_LANES);
        u[i] = at->beta * (x - sum[i]);
        sum[i] = at->skip * x;
    }
    for (int64_t d = 0; d < p->deep; d++) {
        sw_vec decay = sw_splat(at->decay[d]), k = sw_splat(at->k[d]), q = sw_splat(at->q[d]);
        for (int i = 0; i < vectors; i++) {
            sw_vec *to = (sw_vec *)(void *)(m + d * p->wide + i * SW_LANES), now = decay * *to + k * u[i];
            *to = now;
            sum[i] += q * now;
        }
    }
    for (int i = 0; i < vectors; i++)
        *(sw_vec *)(void *)(v + i * SW_LANES) = sum[i];
}

static void step_column(const sw_keeper *p, const place *at, float *m, float *v)
{
    float seen = 0, sum = at->skip * *v;
    for (int64_t d = 0; p->delta && d < p->deep; d++)
        seen += at->decay[d] * at->k[d] * m[d * p->wide];
    float u = at->beta * (*v - seen);
    for (int64_t d = 0; d < p->deep; d++) {
        float now = at->decay[d] * m[d * p->wide] + at->k[d] * u;
        m[d * p->wide] = now;
        sum += at->q[d] * now;
    }
    *v = sum;
}

enum { MOST_VECTORS = SW_LANES == 16 ? 8 : 4 };

static void run_places(const sw_keeper *p, sw_tensor *out, float *m, sw_run r, int64_t head, float *space)
{
    place at = place_in(p, space);
    for (int64_t t = r.first; t < r.first + r.rows; t++) {
        int64_t j = 0;
        load_place(p, &at, t, head);
        for (; j + MOST_VECTORS * SW_LANES <= p->wide; j += MOST_VECTORS * SW_LANES)
            step_columns(MOST_VECTORS, p, &at, m + j, at.v + j);
        for (; j + MOST_VECTORS / 2 * SW_LANES <= p->wide; j += MOST_VECTORS / 2 * SW_LANES)
            step_columns(MOST_VECTORS / 2, p, &at, m + j, at.v + j);
        for (; j + SW_LANES <= p->wide; j += SW_LANES)
            step_columns(1, p, &at, m + j, at.v + j);
        for (; j < p->wide; j++)
            step_column(p, &at, m + j, at.v + j);
        sw_put(out, t, head, p->wide, at.v);
    }
}

/* ---- in chunks */

static void put_chunk(const sw_keeper *p, sw_tensor *out, sw_chunk *c, const float *m, int64_t head)
{
    int64_t w = p->wide_padded;
    float skip = sw_skip_of(p, head), *y = c->seen;
    sw_clear(y, c->padded * w);
    sw_product(c->padded, w, p->deep_padded, c->q_in, p->deep_padded, 1, m, w, y, w);
    for (int64_t t = 0; t < c->padded; t += SW_SUB)
        sw_product(SW_SUB, w, t + SW_SUB, c->p + t * SW_CHUNK, SW_CHUNK, 1, c->u, w, y + t * w, w);
    for (int64_t t = 0; t < c->n; t++) {
        for (int64_t j = 0; skip != 0 && j < p->wide; j++)
            y[t * w + j] += skip * c->v[t * w + j];
        sw_put(out, c->first + t, head, p->wide, y + t * w);
    }
}

/* Heads [head, head + count), which share a key; m [count][D][Dv] padded. */
static void run_chunks(const sw_keeper *p, sw_tensor *out, sw_run r, int64_t head, int64_t count, float *m, float *space)
{
    sw_chunk c = SW_CPU(chunk_in)(p, space);
    int64_t all = p->deep_padded * p->wide_padded;
    for (int64_t t = 0; t < r.rows; t += SW_CHUNK) {
        SW_CPU(chunk_keys)(p, &c, r.first + t, SW_MIN(SW_CHUNK, r.rows - t), head);
        for (int64_t h = 0; h < count; h++) {
            SW_CPU(chunk_head)(p, &c, head + h);
            SW_CPU(chunk_solve)(p, &c, m + h * all);
            put_chunk(p, out, &c, m + h * all, head + h);
            SW_CPU(chunk_advance)(p, &c, m + h * all);
        }
    }
}

static float *kept_of(const sw_keeper *p, sw_tensor *state, sw_run r, int64_t head)
{
    return (float *)state->data + (r.slot * p->heads + head) * p->deep * p->wide;
}

static void run_heads(const sw_keeper *p, sw_tensor *out, sw_tensor *state, sw_run r, int64_t head, int64_t count, float *space)
{
    int64_t w = p->wide_padded, all = p->deep_padded * w, line = (int64_t)sizeof(float) * p->wide;
    for (int64_t h = 0; r.rows <= SW_FEW_PLACES && h < count; h++) {
        float *m = r.slot >= 0 ? kept_of(p, state, r, head + h) : space;
        if (!r.goes_on)
            sw_clear(m, p->deep * p->wide);
        run_places(p, out, m, r, head + h, space + all);
    }
    if (r.rows <= SW_FEW_PLACES)
        return;
    sw_clear(space, count * all);
    for (int64_t h = 0; r.goes_on && h < count; h++)
        for (int64_t i = 0; i < p->deep; i++)
            memcpy(space + h * all + i * w, kept_of(p, state, r, head + h) + i * p->wide, (size_t)line);
    run_chunks(p, out, r, head, count, space, space + count * all);
    for (int64_t h = 0; r.slot >= 0 && h < count; h++)
        for (int64_t i = 0; i < p->deep; i++)
            memcpy(kept_of(p, state, r, head + h) + i * p->wide, space + h * all + i * w, (size_t)line);
}

/* Heads of one key that make a task: all, unless there are too few tasks for the threads. No result depends on it. */
static int64_t heads_together(const sw_keeper *p, int64_t runs)
{
    int64_t count = p->each ? 1 : p->share;
    while (count > 1 && runs * (p->heads / p->share) * ((p->share + count - 1) / count) < 2 * omp_get_max_threads())
        count = (count + 1) / 2;
    return SW_MIN(count, 16);
}

int SW_CPU(recurrence_fwd)(sw_stream *s, sw_tensor *out, sw_tensor *state, const sw_tensor *q, const sw_tensor *k, const sw_tensor *v,
                           const sw_tensor *g, const sw_tensor *beta, const sw_tensor *skip, const sw_tensor *seqs, int delta)
{
    sw_keeper p = sw_keeper_of(q, k, v, g, beta, skip, delta);
    if (SW_CPU(fits_lanes)(&p, out, NULL))
        return SW_CPU(lanes_fwd)(s, &p, out, state, seqs);
    int64_t together = heads_together(&p, seqs->shape[0]), parts = (p.share + together - 1) / together;
    int64_t tasks = seqs->shape[0] * p.heads / p.share * parts, all = p.deep_padded * p.wide_padded;
    bool few = sw_longest_run(seqs) <= SW_FEW_PLACES;
    size_t each = (few ? (size_t)(all + place_space(&p)) : (size_t)(together * all) + SW_CPU(chunk_floats)(&p)) * sizeof(float);
    char *space = sw_thread_space(s, &each);
    if (!space)
        return -1;
#pragma omp parallel for schedule(dynamic) if (sw_numel(v) * p.deep >= SW_PARALLEL)
    for (int64_t i = 0; i < tasks; i++) {
        int64_t part = i % parts, key = i / parts % (p.heads / p.share), first = part * together;
        sw_run r = sw_run_of(seqs, i / parts / (p.heads / p.share));
        if (r.rows)
            run_heads(&p, out, state, r, key * p.share + first, SW_MIN(together, p.share - first),
                      (float *)(void *)(space + (size_t)omp_get_thread_num() * each));
    }
    return 0;
}
