/* The reference's backward kernels against finite differences of its forward ones. Everything is f64 here, which the
 * reference takes wherever a float is asked for, and differences are of fourth order: agreement is to ten digits, not
 * three. */
#include "attention_setup.h"

#include <string.h>

static const sw_dtype F = SW_F64;
static const double step = 1. / 1024, close_enough = 1e-8;

/* An objective: runs the forward kernel and returns the inner product of its results with random directions. */
typedef double objective(void *setup);

static double *values(array *a) { return a->t[REFERENCE].data; }

static array *input(rig *r, int ndim, const int64_t *shape) { return normal(r, F, DENSE, ndim, shape, 1); }
static array *zero(rig *r, int ndim, const int64_t *shape) { return whole(r, F, DENSE, ndim, shape, 0, 0); }

static double inner(array *a, array *b)
{
    double sum = 0;
    for (int64_t i = 0; i < sw_numel(&a->t[REFERENCE]); i++)
        sum += values(a)[i] * values(b)[i];
    return sum;
}

static void check(rig *r, const char *of, array *x, array *dx, objective *f, void *setup)
{
    for (int64_t i = 0; i < sw_numel(&x->t[REFERENCE]); i++) {
        double *at = values(x) + i, start = *at, sum = 0;
        static const double places[] = {-2, -1, 1, 2}, factors[] = {1. / 12, -8. / 12, 8. / 12, -1. / 12};
        for (int k = 0; k < 4; k++) {
            *at = start + places[k] * step;
            sum += factors[k] * f(setup);
        }
        *at = start;
        double want = sum / step, got = values(dx)[i];
        if (!(fabs(want - got) <= close_enough * (1 + fabs(want))))
            fail_msg("gradient of %s (%s): value %d is %.12g, finite differences give %.12g", of, r->note, (int)i, got,
                     want);
    }
}

#define CALL(r, kernel, ...) ran((r), REFERENCE, #kernel, (r)->device[REFERENCE]->k->kernel(NULL, __VA_ARGS__))
#define T(a) ((a) ? &(a)->t[REFERENCE] : NULL)

static void done(rig *r)
{
    for (array *a = r->arrays; a; a = a->next)
        a->expected = true;
    finish(r);
}

/* ---- elementwise */

typedef struct elementwise {
    rig *r;
    int kind; /* -1: soft cap */
    array *x, *up, *y, *dy;
} elementwise;

static double run_elementwise(void *setup)
{
    elementwise *e = setup;
    if (e->up)
        CALL(e->r, glu_fwd, T(e->y), T(e->x), T(e->up), e->kind);
    else if (e->kind < 0)
        CALL(e->r, softcap_fwd, T(e->y), T(e->x), 1.5);
    else
        CALL(e->r, act_fwd, T(e->y), T(e->x), e->kind);
    return inner(e->y, e->dy);
}

void gradients_elementwise(rig *r)
{
    for (int kind = -1; kind < SW_ACT_COUNT; kind++)
        for (int gated = 0; gated < (kind < 0 ? 1 : 2); gated++) {
            elementwise e = {.r = r,
                             .kind = kind,
                             .x = input(r, SHAPE(5, 7)),
                             .up = gated ? input(r, SHAPE(5, 7)) : NULL,
                             .y = zero(r, SHAPE(5, 7)),
                             .dy = input(r, SHAPE(5, 7))};
            array *dx = input(r, SHAPE(5, 7)), *dup = zero(r, SHAPE(5, 7)), *was = zero(r, SHAPE(5, 7));
            note(r, "kind %d%s", kind, gated ? ", gated" : "");
            for (int i = 0; i < 35; i++) /* not where relu has its corner */
                values(e.x)[i] += fabs(values(e.x)[i]) < 4 * step ? 0.5 : 0;
            for (int i = 0; kind == SW_ACT_SQRT && i < 35; i++) /* where it is smooth */
                values(e.x)[i] = 1 + fabs(values(e.x)[i]);
            run_elementwise(&e);
            memcpy(values(was), values(dx), 35 * sizeof(double));
            if (gated)
                CALL(r, glu_bwd, T(dx), T(dup), T(e.dy), T(e.x), T(e.up), kind);
            else if (kind < 0)
                CALL(r, softcap_bwd, T(dx), T(e.dy), T(e.y), 1.5, 1);
            else
                CALL(r, act_bwd, T(dx), T(e.dy), T(e.x), kind, 1);
            for (int i = 0; !gated && i < 35; i++) /* it was added */
                values(dx)[i] -= values(was)[i];
            check(r, "x", e.x, dx, run_elementwise, &e);
            if (gated)
                check(r, "up", e.up, dup, run_elementwise, &e);
            done(r);
        }
}

/* ---- norms */

typedef struct norm {
    rig *r;
    bool layer;
    double offset;
    array *x, *w, *b, *y, *dy, *mean, *rstd;
} norm;

static double run_norm(void *setup)
{
    norm *n = setup;
    if (n->layer)
        CALL(n->r, layernorm_fwd, T(n->y), T(n->mean), T(n->rstd), T(n->x), T(n->w), T(n->b), 1e-3, n->offset);
    else
        CALL(n->r, rmsnorm_fwd, T(n->y), T(n->rstd), T(n->x), T(n->w), 1e-3, n->offset);
    return inner(n->y, n->dy);
}

void gradients_norm(rig *r)
{
    for (int variant = 0; variant < 8; variant++) {
        norm n = {.r = r,
                  .layer = variant & 1,
                  .offset = variant & 2 ? 1 : 0,
                  .x = input(r, SHAPE(4, 9)),
                  .w = variant & 4 ? input(r, SHAPE(9)) : NULL,
                  .b = input(r, SHAPE(9)),
                  .y = zero(r, SHAPE(4, 9)),
                  .dy = input(r, SHAPE(4, 9)),
                  .mean = zero(r, SHAPE(4)),
                  .rstd = zero(r, SHAPE(4))};
        array *dx = zero(r, SHAPE(4, 9)), *dw = zero(r, SHAPE(9)), *db = zero(r, SHAPE(9));
        note(r, "%s norm, offset %g, %s weights", n.layer ? "layer" : "rms", n.offset, n.w ? "with" : "no");
        run_norm(&n);
        if (n.layer)
            CALL(r, layernorm_bwd, T(dx), T(dw), T(db), T(n.dy), T(n.x), T(n.w), T(n.mean), T(n.rstd), n.offset, 0);
        else
            CALL(r, rmsnorm_bwd, T(dx), T(dw), T(n.dy), T(n.x), T(n.w), T(n.rstd), n.offset, 0);
        check(r, "x", n.x, dx, run_norm, &n);
        if (n.w)
            check(r, "w", n.w, dw, run_norm, &n);
        if (n.layer)
            check(r, "b", n.b, db, run_norm, &n);
        done(r);
    }
}

/* ---- rotary positions */

typedef struct rotary {
    rig *r;
    int mode;
    array *x, *cos, *sin, *y, *dy;
} rotary;

static double run_rope(void *setup)
{
    rotary *p = setup;
    CALL(p->r, rope, T(p->y), T(p->x), T(p->cos), T(p->sin), p->mode, 0);
    return inner(p->y, p->dy);
}

void gradients_rope(rig *r)
{
    for (int mode = 0; mode <= SW_ROPE_INTERLEAVED; mode++) {
        rotary p = {.r = r,
                    .mode = mode,
                    .x = input(r, SHAPE(3, 2, 8)),
                    .cos = input(r, SHAPE(3, 3)),
                    .sin = input(r, SHAPE(3, 3)),
                    .y = zero(r, SHAPE(3, 2, 8)),
                    .dy = input(r, SHAPE(3, 2, 8))};
        array *dx = zero(r, SHAPE(3, 2, 8));
        note(r, "mode %d", mode);
        CALL(r, rope, T(dx), T(p.dy), T(p.cos), T(p.sin), mode, 1);
        check(r, "x", p.x, dx, run_rope, &p);
        done(r);
    }
}

/* ---- attention */

typedef struct attention {
    rig *r;
    array *q, *k, *v, *seqs, *out, *lse, *dout, *extra;
    float slopes[8], f32[64], df32[64]; /* what is kept in f32, from the values of `extra`: sinks, then biases */
    uint32_t seen[8];
    sw_attention a;
} attention;

static double run_attention(void *setup)
{
    attention *t = setup;
    for (int64_t h = 0; h < t->extra->t[0].shape[0]; h++)
        t->f32[h] = (float)values(t->extra)[h]; /* exact: they and the step are multiples of 2^-10 */
    CALL(t->r, attention_fwd, T(t->out), T(t->lse), T(t->q), T(t->k), T(t->v), T(t->seqs), &t->a);
    return inner(t->out, t->dout);
}

static void check_attention(rig *r, const attention_setup *s)
{
    for (; s->what; s++) {
        attention t = {.r = r,
                       .q = input(r, SHAPE(s->rows, s->heads, s->width)),
                       .k = input(r, SHAPE(s->key_rows, s->key_heads, s->width)),
                       .v = input(r, SHAPE(s->key_rows, s->key_heads, s->value_width)),
                       .seqs = blank(r, SW_I32, DENSE, SHAPE(s->count, 4)),
                       .out = zero(r, SHAPE(s->rows, s->heads, s->value_width)),
                       .lse = zero(r, SHAPE(s->rows, s->heads)),
                       .dout = input(r, SHAPE(s->rows, s->heads, s->value_width)),
                       .extra = input(r, SHAPE(s->heads * (1 + s->span)))};
        array *dq = zero(r, SHAPE(s->rows, s->heads, s->width)),
              *dk = zero(r, SHAPE(s->key_rows, s->key_heads, s->width));
        array *dv = zero(r, SHAPE(s->key_rows, s->key_heads, s->value_width));
        t.a = (sw_attention){.scale = 0.7,
                             .causal = s->causal,
                             .window = s->window,
                             .softcap = s->softcap,
                             .alibi = s->alibi ? t.slopes : NULL,
                             .sinks = s->sinks ? t.f32 : NULL,
                             .dsinks = t.df32,
                             .bias = s->span ? t.f32 + s->heads : NULL,
                             .dbias = s->span ? t.df32 + s->heads : NULL,
                             .bias_span = s->span,
                             .bias_zero = s->span / 2,
                             .seen = s->seen_words ? t.seen : NULL,
                             .seen_words = s->seen_words};
        for (int64_t i = 0; i < s->rows * s->seen_words; i++) /* query 3 sees nothing */
            t.seen[i] = i == 3 ? 0 : (uint32_t)draw(r, 0, UINT32_MAX);
        note(r, "%s", s->what);
        for (int i = 0; i < 4 * s->count; i++)
            set_value(r, t.seqs, i, s->seqs[i / 4][i % 4]);
        int extras = (int)(s->heads * (1 + s->span));
        assert_true(extras <= (int)SW_COUNT(t.f32));
        for (int h = 0; h < extras; h++)
            values(t.extra)[h] = (double)draw(r, -2000, 2000) / 1024;
        for (int h = 0; h < (int)s->heads; h++)
            t.slopes[h] = 0.25f / (float)(h + 1);
        run_attention(&t);
        CALL(r, attention_bwd, T(dq), T(dk), T(dv), T(t.dout), T(t.out), T(t.lse), T(t.q), T(t.k), T(t.v), T(t.seqs),
             &t.a);
        check(r, "q", t.q, dq, run_attention, &t);
        check(r, "k", t.k, dk, run_attention, &t);
        check(r, "v", t.v, dv, run_attention, &t);
        for (int h = s->sinks ? 0 : (int)s->heads; h < extras; h++) {
            /* it is kept in f32: compare to that, not to the ten digits of the rest */
            double at = values(t.extra)[h], sum = 0;
            static const double places[] = {-2, -1, 1, 2}, factors[] = {1. / 12, -8. / 12, 8. / 12, -1. / 12};
            for (int k = 0; k < 4; k++) {
                values(t.extra)[h] = at + places[k] * step;
                sum += factors[k] * run_attention(&t) / step;
            }
            values(t.extra)[h] = at;
            if (!(fabs(sum - (double)t.df32[h]) <= 1e-6 * (1 + fabs(sum))))
                fail_msg("gradient of %s %d (%s): %.9g, finite differences give %.9g", h < s->heads ? "sink" : "bias",
                         h < s->heads ? h : h - (int)s->heads, r->note, (double)t.df32[h], sum);
        }
        done(r);
    }
}

void gradients_attention(rig *r)
{
    check_attention(r, attention_small);
    check_attention(r, attention_biased_small);
}

/* ---- log-softmax */

typedef struct xent {
    rig *r;
    array *logits, *targets, *logp, *mean, *lse, *dlogp, *dmean;
} xent;

static double run_xent(void *setup)
{
    xent *x = setup;
    CALL(x->r, xent_fwd, T(x->logp), T(x->mean), T(x->lse), NULL, T(x->logits), T(x->targets));
    return inner(x->logp, x->dlogp) + (x->dmean ? inner(x->mean, x->dmean) : 0);
}

void gradients_xent(rig *r)
{
    for (int with_mean = 0; with_mean < 2; with_mean++) {
        xent x = {.r = r,
                  .logits = input(r, SHAPE(6, 11)),
                  .targets = whole(r, SW_I32, DENSE, SHAPE(6), 0, 10),
                  .logp = zero(r, SHAPE(6)),
                  .mean = zero(r, SHAPE(6)),
                  .lse = zero(r, SHAPE(6)),
                  .dlogp = input(r, SHAPE(6)),
                  .dmean = with_mean ? input(r, SHAPE(6)) : NULL};
        array *d = zero(r, SHAPE(6, 11));
        note(r, "%s mean", with_mean ? "with" : "without");
        set_value(r, x.targets, 4, -1);
        run_xent(&x);
        CALL(r, xent_bwd, T(d), T(x.logits), T(x.lse), T(x.targets), T(x.dlogp), T(x.dmean));
        check(r, "logits", x.logits, d, run_xent, &x);
        done(r);
    }
}

/* ---- layers with a state along each sequence */

typedef struct recurrent {
    rig *r;
    array *x, *w, *b, *y, *dy, *seqs; /* convolution */
    array *dt, *a, *c, *skip;         /* scan */
    array *q, *k, *g, *beta;          /* matrices */
    int delta;
} recurrent;

static double run_conv1d(void *setup)
{
    recurrent *n = setup;
    CALL(n->r, conv1d_fwd, T(n->y), NULL, T(n->x), T(n->w), T(n->b), T(n->seqs));
    return inner(n->y, n->dy);
}

static double run_scan(void *setup)
{
    recurrent *n = setup;
    CALL(n->r, selective_scan_fwd, T(n->y), NULL, T(n->x), T(n->dt), T(n->a), T(n->b), T(n->c), T(n->skip), T(n->seqs));
    return inner(n->y, n->dy);
}

static double run_matrices(void *setup)
{
    recurrent *n = setup;
    CALL(n->r, recurrence_fwd, T(n->y), NULL, T(n->q), T(n->k), T(n->x), T(n->g), T(n->beta), T(n->skip), T(n->seqs), n->delta);
    return inner(n->y, n->dy);
}

/* Two sequences, of five rows and of three. */
static array *two_runs(rig *r)
{
    static const int at[] = {3, 5, -1, 0, 0, 3, -1, 0};
    array *a = whole(r, SW_I32, DENSE, SHAPE(2, 4), 0, 0);
    for (int i = 0; i < 8; i++)
        set_value(r, a, i, at[i]);
    return a;
}

static void gradients_conv1d(rig *r)
{
    recurrent n = {.r = r, .x = input(r, SHAPE(8, 3)), .w = input(r, SHAPE(3, 4)), .b = input(r, SHAPE(3)), .y = zero(r, SHAPE(8, 3)),
                   .dy = input(r, SHAPE(8, 3)), .seqs = two_runs(r)};
    array *dx = zero(r, SHAPE(8, 3)), *dw = zero(r, SHAPE(3, 4)), *db = zero(r, SHAPE(3));
    note(r, "convolution");
    CALL(r, conv1d_bwd, T(dx), T(dw), T(db), T(n.dy), T(n.x), T(n.w), T(n.seqs));
    check(r, "x", n.x, dx, run_conv1d, &n);
    check(r, "w", n.w, dw, run_conv1d, &n);
    check(r, "b", n.b, db, run_conv1d, &n);
    done(r);
}

static void gradients_scan(rig *r)
{
    recurrent n = {.r = r, .x = input(r, SHAPE(8, 3)), .dt = input(r, SHAPE(8, 3)), .a = input(r, SHAPE(3, 2)), .b = input(r, SHAPE(8, 2)),
                   .c = input(r, SHAPE(8, 2)), .skip = input(r, SHAPE(3)), .y = zero(r, SHAPE(8, 3)), .dy = input(r, SHAPE(8, 3)),
                   .seqs = two_runs(r)};
    array *dx = zero(r, SHAPE(8, 3)), *ddt = zero(r, SHAPE(8, 3)), *da = zero(r, SHAPE(3, 2)), *db = zero(r, SHAPE(8, 2)),
          *dc = zero(r, SHAPE(8, 2)), *dskip = zero(r, SHAPE(3));
    note(r, "selective scan");
    for (int i = 0; i < 24; i++)
        values(n.dt)[i] *= 0.3;
    CALL(r, selective_scan_bwd, T(dx), T(ddt), T(da), T(db), T(dc), T(dskip), T(n.dy), T(n.x), T(n.dt), T(n.a), T(n.b), T(n.c), T(n.skip),
         T(n.seqs));
    check(r, "x", n.x, dx, run_scan, &n);
    check(r, "dt", n.dt, ddt, run_scan, &n);
    check(r, "a", n.a, da, run_scan, &n);
    check(r, "b", n.b, db, run_scan, &n);
    check(r, "c", n.c, dc, run_scan, &n);
    check(r, "skip", n.skip, dskip, run_scan, &n);
    done(r);
}

static void gradients_matrices(rig *r, int form)
{
    bool deep = form & 1;
    recurrent n = {.r = r, .q = input(r, SHAPE(8, 2, 3)), .k = input(r, SHAPE(8, 2, 3)), .x = input(r, SHAPE(8, 2, 4)),
                   .g = deep ? input(r, SHAPE(8, 2, 3)) : input(r, SHAPE(8, 2)), .beta = form & 2 ? input(r, SHAPE(8, 2)) : NULL,
                   .skip = form & 2 ? input(r, SHAPE(2)) : NULL, .y = zero(r, SHAPE(8, 2, 4)), .dy = input(r, SHAPE(8, 2, 4)),
                   .seqs = two_runs(r), .delta = (form & 4) > 0};
    array *dq = zero(r, SHAPE(8, 2, 3)), *dk = zero(r, SHAPE(8, 2, 3)), *dv = zero(r, SHAPE(8, 2, 4)),
          *dg = deep ? zero(r, SHAPE(8, 2, 3)) : zero(r, SHAPE(8, 2)), *dbeta = zero(r, SHAPE(8, 2)), *dskip = zero(r, SHAPE(2));
    note(r, "matrices, form %d", form);
    for (int i = 0; i < 48; i++) {
        values(n.k)[i] *= 0.4;
        if (i < sw_numel(&n.g->t[0]))
            values(n.g)[i] *= 0.3;
    }
    CALL(r, recurrence_bwd, T(dq), T(dk), T(dv), T(dg), n.beta ? T(dbeta) : NULL, n.skip ? T(dskip) : NULL, T(n.dy), T(n.q), T(n.k), T(n.x),
         T(n.g), T(n.beta), T(n.skip), T(n.seqs), n.delta);
    check(r, "q", n.q, dq, run_matrices, &n);
    check(r, "k", n.k, dk, run_matrices, &n);
    check(r, "v", n.x, dv, run_matrices, &n);
    check(r, "g", n.g, dg, run_matrices, &n);
    if (n.beta)
        check(r, "beta", n.beta, dbeta, run_matrices, &n);
    if (n.skip)
        check(r, "skip", n.skip, dskip, run_matrices, &n);
    done(r);
}

void gradients_recurrent(rig *r)
{
    gradients_conv1d(r);
    gradients_scan(r);
    for (int form = 0; form < 8; form++)
        gradients_matrices(r, form);
}

/* ---- streams, and windows that are pooled */

typedef struct streams {
    rig *r;
    array *x, *w, *y, *dy, *lse, *divisors, *rows;
} streams;

static double run_pool(void *setup)
{
    streams *s = setup;
    CALL(s->r, pool_fwd, T(s->y), T(s->lse), T(s->x), T(s->w), T(s->rows));
    return inner(s->y, s->dy);
}

static double run_sinkhorn(void *setup)
{
    streams *s = setup;
    CALL(s->r, sinkhorn_fwd, T(s->y), T(s->divisors), T(s->x), 4, 1e-2);
    return inner(s->y, s->dy);
}

static double run_mix(void *setup)
{
    streams *s = setup;
    CALL(s->r, mix_streams, T(s->y), T(s->w), T(s->x), 0);
    return inner(s->y, s->dy);
}

/* Two entries of two windows of two tokens; the first has no window before its own. */
static void gradients_pool(rig *r)
{
    static const int slots[] = {-1, -1, 0, 1, 0, 1, 2, 3};
    streams s = {.r = r, .x = input(r, SHAPE(5, 6)), .w = input(r, SHAPE(5, 6)), .y = zero(r, SHAPE(2, 3)), .dy = input(r, SHAPE(2, 3)),
                 .lse = zero(r, SHAPE(2, 3)), .rows = blank(r, SW_I32, DENSE, SHAPE(2, 4))};
    array *dx = zero(r, SHAPE(5, 6)), *dgate = zero(r, SHAPE(5, 6));
    for (int i = 0; i < 8; i++)
        set_value(r, s.rows, i, slots[i]);
    note(r, "pool");
    run_pool(&s);
    CALL(r, pool_bwd, T(dx), T(dgate), T(s.dy), T(s.y), T(s.lse), T(s.x), T(s.w), T(s.rows));
    check(r, "x", s.x, dx, run_pool, &s);
    check(r, "gate", s.w, dgate, run_pool, &s);
    done(r);
}

void gradients_streams(rig *r)
{
    gradients_pool(r);
    streams s = {.r = r, .x = input(r, SHAPE(3, 9)), .y = zero(r, SHAPE(3, 9)), .dy = input(r, SHAPE(3, 9)), .divisors = zero(r, SHAPE(3, 21))};
    array *dx = zero(r, SHAPE(3, 9));
    note(r, "sinkhorn");
    run_sinkhorn(&s);
    CALL(r, sinkhorn_bwd, T(dx), T(s.dy), T(s.y), T(s.divisors), 4, 1e-2);
    check(r, "x", s.x, dx, run_sinkhorn, &s);
    done(r);
    s = (streams){.r = r, .x = input(r, SHAPE(2, 3, 5)), .w = input(r, SHAPE(2, 3, 4)), .y = zero(r, SHAPE(2, 4, 5)), .dy = input(r, SHAPE(2, 4, 5))};
    array *dw = zero(r, SHAPE(2, 3, 4));
    note(r, "mix_streams");
    CALL(r, mix_streams_bwd_w, T(dw), T(s.dy), T(s.x));
    check(r, "w", s.w, dw, run_mix, &s);
    done(r);
}

/* ---- the forward kernels themselves, at values that tables and a pocket calculator give */

static void near(double got, double want)
{
    if (!(fabs(got - want) < 1e-9))
        fail_msg("%.12g instead of %.12g", got, want);
}

void known_values(rig *r)
{
    static const double at_one[SW_ACT_COUNT] = {[SW_ACT_SILU] = 0.731058578630,
                                                [SW_ACT_GELU] = 0.841344746069,
                                                [SW_ACT_GELU_TANH] = 0.841191990607,
                                                [SW_ACT_RELU] = 1,
                                                [SW_ACT_RELU2] = 1,
                                                [SW_ACT_SIGMOID] = 0.731058578630,
                                                [SW_ACT_TANH] = 0.761594155956,
                                                [SW_ACT_GELU_QUICK] = 0.845795765933,
                                                [SW_ACT_ELU] = 1,
                                                [SW_ACT_SOFTPLUS] = 1.313261687518,
                                                [SW_ACT_EXP] = 2.718281828459,
                                                [SW_ACT_SQRT] = 1,
                                                [SW_ACT_NONE] = 1};
    array *one = whole(r, F, DENSE, SHAPE(1), 1, 1), *y = zero(r, SHAPE(1)), *line = zero(r, SHAPE(1, 4)),
          *normed = zero(r, SHAPE(1, 4));
    for (int kind = 0; kind < SW_ACT_COUNT; kind++) {
        CALL(r, act_fwd, T(y), T(one), kind);
        near(values(y)[0], at_one[kind]);
    }
    for (int i = 0; i < 4; i++)
        values(line)[i] = i + 1;
    CALL(r, rmsnorm_fwd, T(normed), NULL, T(line), NULL, 0, 0);
    near(values(normed)[3], 4 / sqrt(7.5));
    array *mean = zero(r, SHAPE(1)), *rstd = zero(r, SHAPE(1));
    CALL(r, layernorm_fwd, T(normed), T(mean), T(rstd), T(line), NULL, NULL, 0, 0);
    near(values(normed)[3], 1.5 / sqrt(1.25));
    array *targets = whole(r, SW_I32, DENSE, SHAPE(1), 2, 2), *best = blank(r, SW_I32, DENSE, SHAPE(1));
    CALL(r, xent_fwd, T(y), T(mean), T(rstd), T(best), T(line), T(targets));
    near(values(y)[0], -1.440189698561);
    near(values(mean)[0], -1.940189698561);
    near(values(rstd)[0], 4.440189698561);
    assert_int_equal(*(int32_t *)best->t[REFERENCE].data, 3);

    /* a quarter turn takes (1, 2 | 3, 4) to (-3, -4 | 1, 2), or by neighbours to (-2, 1, -4, 3) */
    array *x = zero(r, SHAPE(1, 1, 4)), *turned = zero(r, SHAPE(1, 1, 4)), *cosine = zero(r, SHAPE(1, 2)),
          *sine = zero(r, SHAPE(1, 2));
    static const double half[] = {-3, -4, 1, 2}, neighbours[] = {-2, 1, -4, 3};
    for (int i = 0; i < 4; i++)
        values(x)[i] = i + 1;
    values(sine)[0] = values(sine)[1] = 1;
    CALL(r, rope, T(turned), T(x), T(cosine), T(sine), SW_ROPE_HALF, 0);
    assert_memory_equal(values(turned), half, sizeof half);
    CALL(r, rope, T(turned), T(x), T(cosine), T(sine), SW_ROPE_INTERLEAVED, 0);
    assert_memory_equal(values(turned), neighbours, sizeof neighbours);

    /* two keys with scores 0 and ln 3: a quarter of the first value, three quarters of the second */
    array *q = whole(r, F, DENSE, SHAPE(1, 1, 1), 1, 1), *k = zero(r, SHAPE(2, 1, 1)), *v = zero(r, SHAPE(2, 1, 1));
    array *seqs = whole(r, SW_I32, DENSE, SHAPE(1, 4), 0, 0), *out = zero(r, SHAPE(1, 1, 1)),
          *lse = zero(r, SHAPE(1, 1));
    set_value(r, seqs, 1, 1);
    set_value(r, seqs, 3, 2);
    values(k)[1] = log(3) / 2;
    values(v)[0] = 4;
    values(v)[1] = 8;
    CALL(r, attention_fwd, T(out), T(lse), T(q), T(k), T(v), T(seqs), &(sw_attention){.scale = 2, .causal = 1});
    near(values(out)[0], 7);
    near(values(lse)[0], log(4));
    float sink = logf(4); /* takes half of it all */
    CALL(r, attention_fwd, T(out), T(lse), T(q), T(k), T(v), T(seqs),
         &(sw_attention){.scale = 2, .causal = 1, .sinks = &sink});
    assert_true(fabs(values(out)[0] - 3.5) < 1e-6);
    done(r);
}
