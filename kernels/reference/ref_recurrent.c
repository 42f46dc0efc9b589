/* Layers that carry a state along each sequence. */
#include "kernels/reference/reference.h"

#include <math.h>

typedef struct run {
    int64_t first, rows, slot;
    bool goes_on;
} run;

static run run_of(const sw_tensor *seqs, int64_t i)
{
    assert(seqs->dtype == SW_I32 && seqs->ndim == 2 && seqs->shape[1] == 4);
    return (run){(int64_t)ref_get(seqs, 4 * i), (int64_t)ref_get(seqs, 4 * i + 1), (int64_t)ref_get(seqs, 4 * i + 2),
                 ref_get(seqs, 4 * i + 3) != 0};
}

static double get2(const sw_tensor *t, int64_t i, int64_t j) { return ref_get(t, i * t->shape[1] + j); }
static void set2(const sw_tensor *t, int64_t i, int64_t j, double v)
{
    if (t)
        ref_set(t, i * t->shape[1] + j, v);
}
static void add_to(const sw_tensor *t, int64_t i, double v)
{
    if (t)
        ref_set(t, i, ref_get(t, i) + v);
}

/* ---- convolution */

/* Input of channel c at place t of the run: before its start, what the state holds. */
static double input(const sw_tensor *x, const sw_tensor *state, const run *r, int64_t taps, int64_t t, int64_t c)
{
    if (t >= 0)
        return get2(x, r->first + t, c);
    return r->slot >= 0 && r->goes_on ? ref_get(state, (r->slot * (taps - 1) + taps - 1 + t) * x->shape[1] + c) : 0;
}

int ref_conv1d_fwd(sw_stream *s, sw_tensor *y, sw_tensor *state, const sw_tensor *x, const sw_tensor *w, const sw_tensor *b,
                   const sw_tensor *seqs)
{
    int64_t channels = x->shape[1], taps = w->shape[1];
    assert(ref_same_shape(x, y) && w->shape[0] == channels && taps >= 1);
    (void)s;
    for (int64_t i = 0; i < seqs->shape[0]; i++) {
        run r = run_of(seqs, i);
        for (int64_t c = 0; c < channels; c++) {
            for (int64_t t = 0; t < r.rows; t++) {
                double sum = b ? ref_get(b, c) : 0;
                for (int64_t k = 0; k < taps; k++)
                    sum += get2(w, c, k) * input(x, state, &r, taps, t - taps + 1 + k, c);
                set2(y, r.first + t, c, sum);
            }
            for (int64_t k = 0; r.slot >= 0 && r.rows && k < taps - 1; k++)
                ref_set(state, (r.slot * (taps - 1) + k) * channels + c, input(x, state, &r, taps, r.rows - taps + 1 + k, c));
        }
    }
    return 0;
}

int ref_conv1d_bwd(sw_stream *s, sw_tensor *dx, sw_tensor *dw, sw_tensor *db, const sw_tensor *dy, const sw_tensor *x,
                   const sw_tensor *w, const sw_tensor *seqs)
{
    int64_t channels = x->shape[1], taps = w->shape[1];
    (void)s;
    for (int64_t i = 0; i < seqs->shape[0]; i++) {
        run r = run_of(seqs, i);
        for (int64_t c = 0; c < channels; c++)
            for (int64_t t = 0; t < r.rows; t++) {
                double sum = 0;
                for (int64_t j = 0; j < taps && t + j < r.rows; j++)
                    sum += get2(w, c, taps - 1 - j) * get2(dy, r.first + t + j, c);
                set2(dx, r.first + t, c, sum);
                add_to(db, c, get2(dy, r.first + t, c));
                for (int64_t k = taps - 1 > t ? taps - 1 - t : 0; k < taps; k++)
                    add_to(dw, c * taps + k, get2(dy, r.first + t, c) * get2(x, r.first + t - taps + 1 + k, c));
            }
    }
    return 0;
}

/* ---- selective scan */

int ref_selective_scan_fwd(sw_stream *s, sw_tensor *y, sw_tensor *state, const sw_tensor *x, const sw_tensor *dt, const sw_tensor *a,
                           const sw_tensor *b, const sw_tensor *c, const sw_tensor *skip, const sw_tensor *seqs)
{
    int64_t channels = x->shape[1], width = a->shape[1];
    assert(ref_same_shape(x, y) && ref_same_shape(x, dt) && a->shape[0] == channels && b->shape[1] == width && ref_same_shape(b, c));
    double *h = ref_scratch(s, width);
    if (!h)
        return -1;
    for (int64_t i = 0; i < seqs->shape[0]; i++) {
        run r = run_of(seqs, i);
        for (int64_t ch = 0; r.rows && ch < channels; ch++) {
            for (int64_t n = 0; n < width; n++)
                h[n] = r.slot >= 0 && r.goes_on ? ref_get(state, (r.slot * channels + ch) * width + n) : 0;
            for (int64_t t = r.first; t < r.first + r.rows; t++) {
                double step = get2(dt, t, ch), in = get2(x, t, ch), sum = ref_get(skip, ch) * in;
                for (int64_t n = 0; n < width; n++) {
                    h[n] = exp(step * get2(a, ch, n)) * h[n] + step * in * get2(b, t, n);
                    sum += get2(c, t, n) * h[n];
                }
                set2(y, t, ch, sum);
            }
            for (int64_t n = 0; r.slot >= 0 && n < width; n++)
                ref_set(state, (r.slot * channels + ch) * width + n, h[n]);
        }
    }
    return 0;
}

int ref_selective_scan_bwd(sw_stream *s, sw_tensor *dx, sw_tensor *ddt, sw_tensor *da, sw_tensor *db, sw_tensor *dc, sw_tensor *dskip,
                           const sw_tensor *dy, const sw_tensor *x, const sw_tensor *dt, const sw_tensor *a, const sw_tensor *b,
                           const sw_tensor *c, const sw_tensor *skip, const sw_tensor *seqs)
{
    int64_t channels = x->shape[1], width = a->shape[1], rows = x->shape[0];
    double *h = ref_scratch(s, (rows + 2) * width + 2 * rows * width); /* states; gradient of the state; sums of db and dc */
    if (!h)
        return -1;
    double *dh = h + (rows + 1) * width, *b_sum = dh + width, *c_sum = b_sum + rows * width;
    for (int64_t i = 0; i < 2 * rows * width; i++)
        b_sum[i] = 0;
    for (int64_t i = 0; i < seqs->shape[0]; i++) {
        run r = run_of(seqs, i);
        for (int64_t ch = 0; ch < channels; ch++) {
            for (int64_t n = 0; n < width; n++)
                h[n] = dh[n] = 0;
            for (int64_t t = 0; t < r.rows; t++) {
                double step = get2(dt, r.first + t, ch), in = get2(x, r.first + t, ch);
                for (int64_t n = 0; n < width; n++)
                    h[(t + 1) * width + n] = exp(step * get2(a, ch, n)) * h[t * width + n] + step * in * get2(b, r.first + t, n);
            }
            for (int64_t t = r.rows; t-- > 0;) {
                int64_t row = r.first + t;
                double step = get2(dt, row, ch), in = get2(x, row, ch), out = get2(dy, row, ch);
                double d_step = 0, d_in = out * ref_get(skip, ch);
                add_to(dskip, ch, out * in);
                for (int64_t n = 0; n < width; n++) {
                    double decay = exp(step * get2(a, ch, n)), old = h[t * width + n], bn = get2(b, row, n);
                    dh[n] += out * get2(c, row, n);
                    c_sum[row * width + n] += out * h[(t + 1) * width + n];
                    b_sum[row * width + n] += dh[n] * step * in;
                    d_step += dh[n] * (decay * get2(a, ch, n) * old + in * bn);
                    d_in += dh[n] * step * bn;
                    add_to(da, ch * width + n, dh[n] * decay * step * old);
                    dh[n] *= decay;
                }
                set2(dx, row, ch, d_in);
                set2(ddt, row, ch, d_step);
            }
        }
        for (int64_t row = r.first; row < r.first + r.rows; row++)
            for (int64_t n = 0; n < width; n++) {
                set2(db, row, n, b_sum[row * width + n]);
                set2(dc, row, n, c_sum[row * width + n]);
            }
    }
    return 0;
}

/* ---- the matrix that each head keeps */

typedef struct keeper {
    const sw_tensor *q, *k, *v, *g, *beta, *skip;
    int64_t heads, keys, wide, deep; /* deep: D, wide: Dv */
    int delta;
    double *qt, *kt, *vt, *decay, *u; /* of the place at hand */
    double b, skips;
} keeper;

static keeper keeper_of(const sw_tensor *q, const sw_tensor *k, const sw_tensor *v, const sw_tensor *g, const sw_tensor *beta,
                        const sw_tensor *skip, int delta)
{
    keeper p = {q, k, v, g, beta, skip, v->shape[1], k->shape[1], v->shape[2], k->shape[2], delta, 0, 0, 0, 0, 0, 1, 0};
    assert(ref_same_shape(q, k) && p.heads % p.keys == 0 && g->shape[1] == p.heads && (g->ndim == 2 || g->shape[2] == p.deep));
    return p;
}

static void lay_out(keeper *p, double *space)
{
    p->qt = space;
    p->kt = p->qt + p->deep;
    p->decay = p->kt + p->deep;
    p->vt = p->decay + p->deep;
    p->u = p->vt + p->wide;
}
static int64_t place_space(const keeper *p) { return 3 * p->deep + 2 * p->wide; }

static void load_place(keeper *p, int64_t row, int64_t head)
{
    int64_t key = row * p->keys + head / (p->heads / p->keys), at = row * p->heads + head;
    ref_load(p->qt, p->q, key);
    ref_load(p->kt, p->k, key);
    ref_load(p->vt, p->v, at);
    for (int64_t i = 0; i < p->deep; i++)
        p->decay[i] = exp(ref_get(p->g, p->g->ndim == 3 ? at * p->deep + i : at));
    p->b = p->beta ? ref_get(p->beta, at) : 1;
    p->skips = p->skip ? ref_get(p->skip, head) : 0;
}

/* now = the matrix after this place; was before it (may be the same memory). */
static void advance(keeper *p, double *now, const double *was)
{
    for (int64_t i = 0; i < p->deep; i++)
        for (int64_t j = 0; j < p->wide; j++)
            now[i * p->wide + j] = p->decay[i] * was[i * p->wide + j];
    for (int64_t j = 0; j < p->wide; j++) {
        double seen = 0;
        for (int64_t i = 0; p->delta && i < p->deep; i++)
            seen += now[i * p->wide + j] * p->kt[i];
        p->u[j] = p->b * (p->vt[j] - seen);
    }
    for (int64_t i = 0; i < p->deep; i++)
        for (int64_t j = 0; j < p->wide; j++)
            now[i * p->wide + j] += p->kt[i] * p->u[j];
}

int ref_recurrence_fwd(sw_stream *s, sw_tensor *out, sw_tensor *state, const sw_tensor *q, const sw_tensor *k, const sw_tensor *v,
                       const sw_tensor *g, const sw_tensor *beta, const sw_tensor *skip, const sw_tensor *seqs, int delta)
{
    keeper p = keeper_of(q, k, v, g, beta, skip, delta);
    int64_t all = p.deep * p.wide;
    double *m = ref_scratch(s, all + place_space(&p));
    if (!m)
        return -1;
    lay_out(&p, m + all);
    for (int64_t i = 0; i < seqs->shape[0]; i++) {
        run r = run_of(seqs, i);
        for (int64_t head = 0; r.rows && head < p.heads; head++) {
            int64_t kept = (r.slot * p.heads + head) * all;
            for (int64_t e = 0; e < all; e++)
                m[e] = r.slot >= 0 && r.goes_on ? ref_get(state, kept + e) : 0;
            for (int64_t t = r.first; t < r.first + r.rows; t++) {
                load_place(&p, t, head);
                advance(&p, m, m);
                for (int64_t j = 0; j < p.wide; j++) {
                    p.vt[j] *= p.skips;
                    for (int64_t e = 0; e < p.deep; e++)
                        p.vt[j] += m[e * p.wide + j] * p.qt[e];
                }
                ref_store(out, t * p.heads + head, p.vt, 0);
            }
            for (int64_t e = 0; r.slot >= 0 && e < all; e++)
                ref_set(state, kept + e, m[e]);
        }
    }
    return 0;
}

typedef struct places {
    sw_tensor *q, *k, *v, *g, *beta, *skip;
} places;

/* One place back: m its matrix, was the one before it, dm the gradient of m, which becomes was's. */
static void retreat(keeper *p, const places *d, const double *dout, const double *was, const double *m, double *dm, double *space,
                    int64_t row, int64_t head)
{
    double *dq = space, *dk = dq + p->deep, *dg = dk + p->deep, *dv = dg + p->deep, *du = dv + p->wide;
    int64_t at = row * p->heads + head, wide = p->wide;
    double d_beta = 0, d_skip = 0, d_all = 0;
    for (int64_t j = 0; j < wide; j++)
        du[j] = 0;
    for (int64_t i = 0; i < p->deep; i++) {
        dq[i] = dk[i] = dg[i] = 0;
        for (int64_t j = 0; j < wide; j++) {
            double *e = dm + i * wide + j;
            dq[i] += m[i * wide + j] * dout[j];
            *e += p->qt[i] * dout[j];
            dk[i] += *e * p->u[j];
            du[j] += *e * p->kt[i];
        }
    }
    for (int64_t j = 0; j < wide; j++) {
        double seen = 0;
        for (int64_t i = 0; p->delta && i < p->deep; i++)
            seen += p->decay[i] * was[i * wide + j] * p->kt[i];
        d_beta += du[j] * (p->vt[j] - seen);
        d_skip += p->vt[j] * dout[j];
        du[j] *= p->b; /* now of v less what was seen */
        dv[j] = du[j] + p->skips * dout[j];
    }
    for (int64_t i = 0; i < p->deep; i++) {
        for (int64_t j = 0; j < wide; j++) {
            double *e = dm + i * wide + j, decayed = p->decay[i] * was[i * wide + j];
            if (p->delta) {
                dk[i] -= decayed * du[j];
                *e -= p->kt[i] * du[j];
            }
            dg[i] += *e * decayed;
            *e *= p->decay[i];
        }
        d_all += dg[i];
    }
    if (d->q)
        ref_store(d->q, at, dq, 0);
    if (d->k)
        ref_store(d->k, at, dk, 0);
    if (d->v)
        ref_store(d->v, at, dv, 0);
    if (d->g && d->g->ndim == 3)
        ref_store(d->g, at, dg, 0);
    else if (d->g)
        ref_set(d->g, at, d_all);
    if (d->beta)
        ref_set(d->beta, at, d_beta);
    add_to(d->skip, head, d_skip);
}

int ref_recurrence_bwd(sw_stream *s, sw_tensor *dq, sw_tensor *dk, sw_tensor *dv, sw_tensor *dg, sw_tensor *dbeta, sw_tensor *dskip,
                       const sw_tensor *dout, const sw_tensor *q, const sw_tensor *k, const sw_tensor *v, const sw_tensor *g,
                       const sw_tensor *beta, const sw_tensor *skip, const sw_tensor *seqs, int delta)
{
    keeper p = keeper_of(q, k, v, g, beta, skip, delta);
    places d = {dq, dk, dv, dg, dbeta, dskip};
    int64_t all = p.deep * p.wide, rows = v->shape[0];
    double *m = ref_scratch(s, (rows + 2) * all + 2 * place_space(&p) + p.wide);
    if (!m)
        return -1;
    double *dm = m + (rows + 1) * all, *space = dm + all, *back = space + place_space(&p), *dy = back + place_space(&p);
    lay_out(&p, space);
    for (int64_t i = 0; i < seqs->shape[0]; i++) {
        run r = run_of(seqs, i);
        for (int64_t head = 0; head < p.heads; head++) {
            for (int64_t e = 0; e < all; e++)
                m[e] = dm[e] = 0;
            for (int64_t t = 0; t < r.rows; t++) {
                load_place(&p, r.first + t, head);
                advance(&p, m + (t + 1) * all, m + t * all);
            }
            for (int64_t t = r.rows; t-- > 0;) {
                load_place(&p, r.first + t, head);
                ref_load(dy, dout, (r.first + t) * p.heads + head);
                advance(&p, m + (t + 1) * all, m + t * all); /* u again */
                retreat(&p, &d, dy, m + t * all, m + (t + 1) * all, dm, back, r.first + t, head);
            }
        }
    }
    return 0;
}
