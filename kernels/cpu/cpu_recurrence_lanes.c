/* Matrices of one value each (gated linear recurrences of channels): the heads lie across the lanes, and blocks of them
 * are the tasks. */
#include "cpu_recurrence.h"

enum { HEADS = 64 };

/* A tensor whose heads lie side by side, or that all heads share. */
static bool side_by_side(const sw_tensor *x) { return !x || x->shape[1] == 1 || x->stride[1] == 1; }

bool SW_CPU(fits_lanes)(const sw_keeper *p, const sw_tensor *out, const sw_keeper_grads *d)
{
    bool keys = p->share == 1 || p->share == p->heads;
    if (d && !(side_by_side(d->q) && side_by_side(d->k) && side_by_side(d->v) && side_by_side(d->g) && side_by_side(d->beta)))
        return false;
    return p->deep == 1 && p->wide == 1 && p->heads > 1 && keys && side_by_side(p->q) && side_by_side(p->k) && side_by_side(p->v) &&
           side_by_side(p->g) && side_by_side(p->beta) && side_by_side(out);
}

/* One place of a block of heads: where its values lie, in the tensors or in `space`. */
typedef struct places {
    const float *q, *k, *v, *beta;
    float decay[HEADS], space[4][HEADS];
} places;

static const float *load(float *space, const sw_tensor *x, int64_t row, int64_t head, int64_t n)
{
    if (x && x->shape[1] > 1)
        return sw_load(sw_at(x, row * x->stride[0] + head), x->dtype, n, space);
    float all = 1;
    if (x)
        sw_fetch(&all, x, row, 0, 1);
    for (int64_t i = 0; i < n; i++)
        space[i] = all;
    return space;
}

static void load_places(const sw_keeper *p, places *at, int64_t row, int64_t head, int64_t n)
{
    at->q = load(at->space[0], p->q, row, head, n);
    at->k = load(at->space[1], p->k, row, head, n);
    at->v = load(at->space[2], p->v, row, head, n);
    at->beta = load(at->space[3], p->beta, row, head, n);
    const float *g = load(at->decay, p->g, row, head, n);
    for (int64_t i = 0; i < n; i++)
        at->decay[i] = sw_exp(g[i]);
}

/* h goes on by one place; x: what u is before beta. */
static void advance(const sw_keeper *p, const places *at, float *restrict now, const float *restrict was, float *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float old = at->decay[i] * was[i];
        x[i] = at->v[i] - (p->delta ? old * at->k[i] : 0);
        now[i] = old + at->k[i] * at->beta[i] * x[i];
    }
}

static void run_block(const sw_keeper *p, sw_tensor *out, sw_tensor *state, sw_run r, int64_t head, int64_t n)
{
    places at;
    float h[HEADS] = {0}, now[HEADS], x[HEADS], skip[HEADS], *kept = r.slot >= 0 ? (float *)state->data + r.slot * p->heads + head : NULL;
    if (r.goes_on)
        memcpy(h, kept, (size_t)n * sizeof *h);
    for (int64_t i = 0; i < n; i++)
        skip[i] = sw_skip_of(p, head + i);
    for (int64_t t = r.first; t < r.first + r.rows; t++) {
        load_places(p, &at, t, head, n);
        advance(p, &at, now, h, x, n);
        for (int64_t i = 0; i < n; i++) {
            h[i] = now[i];
            x[i] = at.q[i] * now[i] + skip[i] * at.v[i];
        }
        sw_put(out, t, head, n, x);
    }
    if (kept)
        memcpy(kept, h, (size_t)n * sizeof *h);
}

int SW_CPU(lanes_fwd)(sw_stream *s, const sw_keeper *p, sw_tensor *out, sw_tensor *state, const sw_tensor *seqs)
{
    int64_t blocks = (p->heads + HEADS - 1) / HEADS, tasks = seqs->shape[0] * blocks;
    (void)s;
#pragma omp parallel for schedule(dynamic) if (sw_numel(p->v) >= SW_PARALLEL)
    for (int64_t i = 0; i < tasks; i++) {
        int64_t head = i % blocks * HEADS;
        sw_run r = sw_run_of(seqs, i / blocks);
        if (r.rows)
            run_block(p, out, state, r, head, SW_MIN(HEADS, p->heads - head));
    }
    return 0;
}

/* ---- back */

/* h: [rows + 1][HEADS] for the states. */
static void block_back(const sw_keeper *p, const sw_keeper_grads *d, const sw_tensor *dout, sw_run r, int64_t head, int64_t n, float *h)
{
    places at;
    float x[HEADS], dy_space[HEADS], dh[HEADS] = {0}, skip[HEADS], dskip[HEADS] = {0}, dq[HEADS], dk[HEADS], dv[HEADS], dg[HEADS], dbeta[HEADS];
    for (int64_t i = 0; i < n; i++) {
        skip[i] = sw_skip_of(p, head + i);
        h[i] = 0;
    }
    for (int64_t t = 0; t < r.rows; t++) {
        load_places(p, &at, r.first + t, head, n);
        advance(p, &at, h + (t + 1) * HEADS, h + t * HEADS, x, n);
    }
    for (int64_t t = r.rows; t-- > 0;) {
        const float *was = h + t * HEADS, *now = was + HEADS;
        load_places(p, &at, r.first + t, head, n);
        const float *dy = load(dy_space, dout, r.first + t, head, n);
        for (int64_t i = 0; i < n; i++) {
            float old = at.decay[i] * was[i], e = dh[i] + at.q[i] * dy[i], v = at.v[i] - (p->delta ? old * at.k[i] : 0);
            float du = e * at.k[i], dx = at.beta[i] * du, of_old = e - (p->delta ? dx * at.k[i] : 0);
            dq[i] = now[i] * dy[i];
            dk[i] = e * at.beta[i] * v - (p->delta ? dx * old : 0);
            dv[i] = dx + skip[i] * dy[i];
            dbeta[i] = du * v;
            dg[i] = of_old * old;
            dskip[i] += at.v[i] * dy[i];
            dh[i] = of_old * at.decay[i];
        }
        sw_put(d->q, r.first + t, head, n, dq);
        sw_put(d->k, r.first + t, head, n, dk);
        sw_put(d->v, r.first + t, head, n, dv);
        sw_put(d->g, r.first + t, head, n, dg);
        sw_put(d->beta, r.first + t, head, n, dbeta);
    }
    for (int64_t i = 0; d->skip && i < n; i++)
        ((float *)d->skip->data)[head + i] += dskip[i];
}

/* A block's runs are one task, so that the sums over them have an order. */
int SW_CPU(lanes_bwd)(sw_stream *s, const sw_keeper *p, const sw_keeper_grads *d, const sw_tensor *dout, const sw_tensor *seqs)
{
    int64_t blocks = (p->heads + HEADS - 1) / HEADS;
    size_t each = (size_t)((sw_longest_run(seqs) + 1) * HEADS) * sizeof(float);
    char *space = sw_thread_space(s, &each);
    if (!space)
        return -1;
#pragma omp parallel for schedule(dynamic) if (sw_numel(p->v) >= SW_PARALLEL)
    for (int64_t i = 0; i < blocks; i++)
        for (int64_t run = 0; run < seqs->shape[0]; run++)
            block_back(p, d, dout, sw_run_of(seqs, run), i * HEADS, SW_MIN(HEADS, p->heads - i * HEADS),
                       (float *)(void *)(space + (size_t)omp_get_thread_num() * each));
    return 0;
}
