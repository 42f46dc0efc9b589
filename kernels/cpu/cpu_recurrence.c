/* The matrix that each head keeps. Heads of sequences are the tasks; the way back makes the matrices again from one kept
 * every EVERY places. */
#include "cpu_recurrent.h"
#include "cpu_math.h"

enum { EVERY = 32 };

typedef struct keeper {
    const sw_tensor *q, *k, *v, *g, *beta, *skip;
    int64_t heads, share, wide, deep;
    int delta;
} keeper;

static keeper keeper_of(const sw_tensor *q, const sw_tensor *k, const sw_tensor *v, const sw_tensor *g, const sw_tensor *beta,
                        const sw_tensor *skip, int delta)
{
    return (keeper){q, k, v, g, beta, skip, v->shape[1], v->shape[1] / k->shape[1], v->shape[2], k->shape[2], delta};
}

/* One place of one head as f32. */
typedef struct place {
    float *q, *k, *decay, *v, *u, *seen; /* seen: what the key finds in the matrix */
    float beta, skip;
} place;

static int64_t place_space(const keeper *p) { return 3 * p->deep + 3 * p->wide; }
static place place_in(const keeper *p, float *space)
{
    float *v = space + 3 * p->deep;
    return (place){space, space + p->deep, space + 2 * p->deep, v, v + p->wide, v + 2 * p->wide, 1, 0};
}

static void fetch(float *to, const sw_tensor *x, int64_t row, int64_t head, int64_t n)
{
    const float *from = sw_load(sw_at(x, row * x->stride[0] + head * x->stride[1]), x->dtype, n, to);
    if (from != to)
        memcpy(to, from, (size_t)n * sizeof *to);
}

static void load_place(const keeper *p, place *at, int64_t row, int64_t head)
{
    fetch(at->q, p->q, row, head / p->share, p->deep);
    fetch(at->k, p->k, row, head / p->share, p->deep);
    fetch(at->v, p->v, row, head, p->wide);
    if (p->g->ndim == 3) {
        fetch(at->decay, p->g, row, head, p->deep);
        for (int64_t i = 0; i < p->deep; i++)
            at->decay[i] = sw_exp(at->decay[i]);
    } else {
        float g;
        fetch(&g, p->g, row, head, 1);
        g = sw_exp(g);
        for (int64_t i = 0; i < p->deep; i++)
            at->decay[i] = g;
    }
    if (p->beta)
        fetch(&at->beta, p->beta, row, head, 1);
    at->skip = p->skip ? ((const float *)p->skip->data)[head] : 0;
}

/* now = the matrix after this place, from the one before it (may be the same memory). */
static void advance(const keeper *p, const place *at, float *now, const float *was)
{
    int64_t wide = p->wide;
    float *restrict seen = at->seen, *restrict u = at->u;
    memset(seen, 0, (size_t)wide * sizeof *seen);
    if (p->delta)
        for (int64_t i = 0; i < p->deep; i++) {
            float f = at->decay[i] * at->k[i];
            for (int64_t j = 0; j < wide; j++)
                seen[j] += f * was[i * wide + j];
        }
    for (int64_t j = 0; j < wide; j++)
        u[j] = at->beta * (at->v[j] - seen[j]);
    for (int64_t i = 0; i < p->deep; i++) {
        float k = at->k[i], decay = at->decay[i];
        for (int64_t j = 0; j < wide; j++)
            now[i * wide + j] = decay * was[i * wide + j] + k * u[j];
    }
}

static void run_head(const keeper *p, sw_tensor *out, sw_tensor *state, sw_run r, int64_t head, float *space)
{
    int64_t all = p->deep * p->wide, wide = p->wide;
    place at = place_in(p, space + all);
    float *m = r.slot >= 0 ? (float *)state->data + (r.slot * p->heads + head) * all : space, *restrict y = at.v;
    if (!r.goes_on)
        memset(m, 0, (size_t)all * sizeof *m);
    for (int64_t t = r.first; t < r.first + r.rows; t++) {
        load_place(p, &at, t, head);
        advance(p, &at, m, m);
        for (int64_t j = 0; j < wide; j++)
            y[j] *= at.skip;
        for (int64_t i = 0; i < p->deep; i++) {
            float q = at.q[i];
            for (int64_t j = 0; j < wide; j++)
                y[j] += q * m[i * wide + j];
        }
        sw_store(sw_at(out, t * out->stride[0] + head * out->stride[1]), out->dtype, wide, y);
    }
}

int SW_CPU(recurrence_fwd)(sw_stream *s, sw_tensor *out, sw_tensor *state, const sw_tensor *q, const sw_tensor *k, const sw_tensor *v,
                           const sw_tensor *g, const sw_tensor *beta, const sw_tensor *skip, const sw_tensor *seqs, int delta)
{
    keeper p = keeper_of(q, k, v, g, beta, skip, delta);
    size_t each = (size_t)(p.deep * p.wide + place_space(&p)) * sizeof(float);
    char *space = sw_thread_space(s, &each);
    if (!space)
        return -1;
#pragma omp parallel for schedule(dynamic) if (sw_numel(v) * p.deep >= SW_PARALLEL)
    for (int64_t i = 0; i < seqs->shape[0] * p.heads; i++) {
        sw_run r = sw_run_of(seqs, i / p.heads);
        if (r.rows)
            run_head(&p, out, state, r, i % p.heads, (float *)(space + (size_t)omp_get_thread_num() * each));
    }
    return 0;
}

typedef struct places {
    sw_tensor *q, *k, *v, *g, *beta;
} places;

static void put(const sw_tensor *to, int64_t row, int64_t head, int64_t n, const float *from)
{
    if (to)
        sw_store(sw_at(to, row * to->stride[0] + head * to->stride[1]), to->dtype, n, from);
}

/* One place back: m its matrix, was the one before it, dm the gradient of m, which becomes was's. Adds to *d_skip. */
static void retreat(const keeper *p, const places *d, const place *at, const float *dout, const float *was, const float *m, float *dm,
                    float *space, int64_t row, int64_t head, float *d_skip)
{
    int64_t wide = p->wide;
    float *dq = space, *dk = dq + p->deep, *dg = dk + p->deep, *restrict dv = dg + p->deep, *restrict du = dv + wide, d_beta = 0, d_all = 0;
    memset(du, 0, (size_t)wide * sizeof *du);
    for (int64_t i = 0; i < p->deep; i++) {
        float of_q = 0, of_k = 0, q = at->q[i], k = at->k[i], *restrict e = dm + i * wide;
        for (int64_t j = 0; j < wide; j++) {
            e[j] += q * dout[j];
            du[j] += e[j] * k;
            of_q += m[i * wide + j] * dout[j];
            of_k += e[j] * at->u[j];
        }
        dq[i] = of_q;
        dk[i] = of_k;
    }
    for (int64_t j = 0; j < wide; j++) {
        d_beta += du[j] * (at->v[j] - at->seen[j]);
        *d_skip += at->v[j] * dout[j];
        du[j] *= at->beta;
        dv[j] = du[j] + at->skip * dout[j];
    }
    for (int64_t i = 0; i < p->deep; i++) {
        float of_k = 0, of_g = 0, k = p->delta ? at->k[i] : 0, decay = at->decay[i], *restrict e = dm + i * wide;
        for (int64_t j = 0; j < wide; j++) {
            float decayed = decay * was[i * wide + j];
            of_k += decayed * du[j];
            e[j] -= k * du[j];
            of_g += e[j] * decayed;
            e[j] *= decay;
        }
        dk[i] -= p->delta ? of_k : 0;
        dg[i] = of_g;
        d_all += of_g;
    }
    put(d->q, row, head, p->deep, dq);
    put(d->k, row, head, p->deep, dk);
    put(d->v, row, head, wide, dv);
    put(d->beta, row, head, 1, &d_beta);
    put(d->g, row, head, d->g && d->g->ndim == 3 ? p->deep : 1, d->g && d->g->ndim == 3 ? dg : &d_all);
}

static float head_back(const keeper *p, const places *d, const sw_tensor *dout, sw_run r, int64_t head, float *space)
{
    int64_t all = p->deep * p->wide, chunks = (r.rows + EVERY - 1) / EVERY;
    place at = place_in(p, space);
    float *back = space + place_space(p), *dy = back + place_space(p), *dm = dy + p->wide, *near = dm + all, *far = near + (EVERY + 1) * all;
    float d_skip = 0;
    memset(dm, 0, (size_t)all * sizeof *dm);
    memset(far, 0, (size_t)all * sizeof *far);
    for (int64_t t = 0; t < (chunks - 1) * EVERY; t++) {
        float *m = far + t / EVERY * all;
        load_place(p, &at, r.first + t, head);
        if (t % EVERY == EVERY - 1) {
            advance(p, &at, m + all, t % EVERY ? near : m);
            continue;
        }
        advance(p, &at, near, t % EVERY ? near : m);
    }
    for (int64_t chunk = chunks; chunk-- > 0;) {
        int64_t first = chunk * EVERY, n = SW_MIN(EVERY, r.rows - first);
        memcpy(near, far + chunk * all, (size_t)all * sizeof *near);
        for (int64_t t = 0; t < n; t++) {
            load_place(p, &at, r.first + first + t, head);
            advance(p, &at, near + (t + 1) * all, near + t * all);
        }
        for (int64_t t = n; t-- > 0;) {
            load_place(p, &at, r.first + first + t, head);
            fetch(dy, dout, r.first + first + t, head, p->wide);
            advance(p, &at, near + (t + 1) * all, near + t * all); /* u and seen again */
            retreat(p, d, &at, dy, near + t * all, near + (t + 1) * all, dm, back, r.first + first + t, head, &d_skip);
        }
    }
    return d_skip;
}

int SW_CPU(recurrence_bwd)(sw_stream *s, sw_tensor *dq, sw_tensor *dk, sw_tensor *dv, sw_tensor *dg, sw_tensor *dbeta, sw_tensor *dskip,
                           const sw_tensor *dout, const sw_tensor *q, const sw_tensor *k, const sw_tensor *v, const sw_tensor *g,
                           const sw_tensor *beta, const sw_tensor *skip, const sw_tensor *seqs, int delta)
{
    keeper p = keeper_of(q, k, v, g, beta, skip, delta);
    places d = {dq, dk, dv, dg, dbeta};
    int64_t tasks = seqs->shape[0] * p.heads, all = p.deep * p.wide;
    size_t each = (size_t)((sw_longest_run(seqs) / EVERY + EVERY + 4) * all + 2 * place_space(&p) + p.wide) * sizeof(float);
    each = (each + 127) & ~(size_t)63;
    char *space = sw_stream_scratch(s, each * (size_t)omp_get_max_threads() + (size_t)tasks * sizeof(float));
    if (!space)
        return -1;
    float *d_skip = (float *)(space + each * (size_t)omp_get_max_threads());
#pragma omp parallel for schedule(dynamic) if (sw_numel(v) * p.deep >= SW_PARALLEL)
    for (int64_t i = 0; i < tasks; i++) {
        sw_run r = sw_run_of(seqs, i / p.heads);
        d_skip[i] = r.rows ? head_back(&p, &d, dout, r, i % p.heads, (float *)(space + (size_t)omp_get_thread_num() * each)) : 0;
    }
    for (int64_t i = 0; dskip && i < tasks; i++)
        ((float *)dskip->data)[i % p.heads] += d_skip[i];
    return 0;
}
