#include "cases.h"

/* Runs that leave out rows, come in any order, have no rows, keep no state or go on from one. */
typedef struct setup {
    int64_t rows, slots, count;
    int seqs[4][4];
} setup;
static const setup setups[] = {{0, 1, 1, {{0, 0, 0, 1}}},
                               {1, 2, 1, {{0, 1, 1, 1}}},
                               {9, 1, 1, {{0, 9, -1, 0}}},
                               {75, 3, 4, {{40, 34, 2, 0}, {0, 35, 0, 1}, {36, 2, -1, 0}, {39, 0, 1, 1}}},
                               {7, 2, 3, {{0, 2, 1, 1}, {2, 1, 0, 0}, {4, 3, -1, 1}}},
                               {150, 2, 2, {{2, 141, 1, 1}, {146, 3, 0, 0}}}};

/* One type and layout is enough for the long and wide ones: devices that are emulated take their time, for `each` values of a row
 * and to meet at barriers for each of `blocks`. */
static bool left_out(const setup *s, sw_dtype t, layout l, int64_t blocks, int64_t each)
{
    return (s->rows > 100 || s->rows * blocks > 1000 || s->rows * blocks * each > 100000) && (t != SW_F32 || l != DENSE);
}

static array *table(rig *r, const setup *s)
{
    array *a = blank(r, SW_I32, DENSE, SHAPE(s->count, 4));
    for (int i = 0; i < 4 * (int)s->count; i++)
        set_value(r, a, i, s->seqs[i / 4][i % 4]);
    return a;
}

/* A result of whose rows some are not touched: those that the table leaves out keep what both sides began with. */
static array *result(rig *r, sw_dtype t, layout l, int ndim, const int64_t *shape) { return whole(r, t, l, ndim, shape, 0, 0); }

/* What is not positive: decays and their like. */
static array *negative(rig *r, layout l, int ndim, const int64_t *shape)
{
    array *a = whole(r, SW_F32, l, ndim, shape, -8, 0);
    for (int64_t i = 0; i < sw_numel(&a->t[0]); i++)
        set_value(r, a, i, value_at(a, i) / 8);
    return a;
}

static const int64_t conv_shapes[][2] = {{1, 1}, {5, 4}, {64, 2}, {130, 3}, {70, 7}};

#define EACH(r, t, l, i, shapes, k)                                                                                    \
    FOR_FLOATS(t)                                                                                                      \
        FOR_LAYOUTS(l, GAPS)                                                                                           \
            for (size_t i = 0; i < SW_COUNT(setups); i++)                                                              \
                for (size_t k = 0; k < SW_COUNT(shapes); k++)

void case_conv1d_fwd(rig *r)
{
    EACH(r, t, l, i, conv_shapes, k) {
        const setup *s = &setups[i];
        if (left_out(s, *t, l, 1, conv_shapes[k][0] * conv_shapes[k][1]))
            continue;
        int64_t channels = conv_shapes[k][0], taps = conv_shapes[k][1];
        note(r, "%s setup %d, %d channels, %d taps", sw_dtypes[*t].name, (int)i, (int)channels, (int)taps);
        array *x = normal(r, *t, l, SHAPE(s->rows, channels), 1), *y = result(r, *t, l, SHAPE(s->rows, channels));
        array *w = normal(r, *t, DENSE, SHAPE(channels, taps), 1), *b = draw(r, 0, 1) ? normal(r, *t, DENSE, SHAPE(channels), 1) : NULL;
        array *state = normal(r, *t, DENSE, SHAPE(s->slots, taps - 1, channels), 1), *seqs = table(r, s);
        RUN(r, conv1d_fwd, AT(y), AT(state), AT(x), AT(w), AT(b), AT(seqs));
        expect(r, y, tolerance_of(*t), 1);
        expect(r, state, 0, 1);
        finish(r);
    }
}

void case_conv1d_bwd(rig *r)
{
    EACH(r, t, l, i, conv_shapes, k) {
        const setup *s = &setups[i];
        if (left_out(s, *t, l, 1, conv_shapes[k][0] * conv_shapes[k][1]))
            continue;
        int64_t channels = conv_shapes[k][0], taps = conv_shapes[k][1];
        bool all = draw(r, 0, 3) > 0;
        note(r, "%s setup %d, %d channels, %d taps", sw_dtypes[*t].name, (int)i, (int)channels, (int)taps);
        array *x = normal(r, *t, l, SHAPE(s->rows, channels), 1), *dy = normal(r, *t, l, SHAPE(s->rows, channels), 1);
        array *w = normal(r, *t, DENSE, SHAPE(channels, taps), 1), *dx = result(r, *t, l, SHAPE(s->rows, channels));
        array *dw = normal(r, SW_F32, DENSE, SHAPE(channels, taps), 1), *db = normal(r, SW_F32, DENSE, SHAPE(channels), 1);
        array *seqs = table(r, s);
        RUN(r, conv1d_bwd, all ? AT(dx) : NULL, AT(dw), all ? AT(db) : NULL, AT(dy), AT(x), AT(w), AT(seqs));
        expect(r, dx, tolerance_of(*t), 1);
        expect(r, dw, 1e-5, 10);
        expect(r, db, 1e-5, 10);
        finish(r);
    }
}

static const int64_t scan_shapes[][2] = {{1, 1}, {5, 4}, {33, 16}, {70, 3}};

void case_selective_scan_fwd(rig *r)
{
    EACH(r, t, l, i, scan_shapes, k) {
        const setup *s = &setups[i];
        if (left_out(s, *t, l, 1, scan_shapes[k][0] * scan_shapes[k][1]))
            continue;
        int64_t channels = scan_shapes[k][0], width = scan_shapes[k][1];
        note(r, "%s setup %d, %d channels of %d", sw_dtypes[*t].name, (int)i, (int)channels, (int)width);
        array *x = normal(r, *t, l, SHAPE(s->rows, channels), 1), *y = result(r, *t, l, SHAPE(s->rows, channels));
        array *dt = normal(r, SW_F32, l, SHAPE(s->rows, channels), 0.3), *a = negative(r, DENSE, SHAPE(channels, width));
        array *b = normal(r, *t, l, SHAPE(s->rows, width), 1), *c = normal(r, *t, l, SHAPE(s->rows, width), 1);
        array *skip = normal(r, SW_F32, DENSE, SHAPE(channels), 1), *state = normal(r, SW_F32, DENSE, SHAPE(s->slots, channels, width), 1);
        array *seqs = table(r, s);
        RUN(r, selective_scan_fwd, AT(y), AT(state), AT(x), AT(dt), AT(a), AT(b), AT(c), AT(skip), AT(seqs));
        expect(r, y, tolerance_of(*t), 4);
        expect(r, state, 1e-5, 4);
        finish(r);
    }
}

void case_selective_scan_bwd(rig *r)
{
    EACH(r, t, l, i, scan_shapes, k) {
        const setup *s = &setups[i];
        if (left_out(s, *t, l, 1, scan_shapes[k][0] * scan_shapes[k][1]))
            continue;
        int64_t channels = scan_shapes[k][0], width = scan_shapes[k][1];
        bool all = draw(r, 0, 3) > 0;
        note(r, "%s setup %d, %d channels of %d", sw_dtypes[*t].name, (int)i, (int)channels, (int)width);
        array *x = normal(r, *t, l, SHAPE(s->rows, channels), 1), *dy = normal(r, *t, l, SHAPE(s->rows, channels), 1);
        array *dt = normal(r, SW_F32, l, SHAPE(s->rows, channels), 0.3), *a = negative(r, DENSE, SHAPE(channels, width));
        array *b = normal(r, *t, l, SHAPE(s->rows, width), 1), *c = normal(r, *t, l, SHAPE(s->rows, width), 1);
        array *skip = normal(r, SW_F32, DENSE, SHAPE(channels), 1), *seqs = table(r, s);
        array *dx = result(r, *t, l, SHAPE(s->rows, channels)), *ddt = result(r, SW_F32, l, SHAPE(s->rows, channels));
        array *db = result(r, SW_F32, l, SHAPE(s->rows, width)), *dc = result(r, SW_F32, l, SHAPE(s->rows, width));
        array *da = normal(r, SW_F32, DENSE, SHAPE(channels, width), 1), *dskip = normal(r, SW_F32, DENSE, SHAPE(channels), 1);
        RUN(r, selective_scan_bwd, AT(dx), AT(ddt), all ? AT(da) : NULL, AT(db), AT(dc), all ? AT(dskip) : NULL, AT(dy), AT(x), AT(dt),
            AT(a), AT(b), AT(c), AT(skip), AT(seqs));
        expect(r, dx, tolerance_of(*t), 4);
        expect(r, ddt, 1e-5, 10);
        expect(r, da, 1e-5, 30);
        expect(r, db, 1e-5, 10);
        expect(r, dc, 1e-5, 10);
        expect(r, dskip, 1e-5, 10);
        finish(r);
    }
}

/* heads, keys, D, Dv, and which of: decays of each place of the key, beta, skip, delta */
static const int64_t matrix_shapes[][5] = {{1, 1, 1, 1, 0},    {4, 2, 8, 6, 15}, {3, 3, 16, 33, 2},  {6, 1, 5, 20, 6}, {2, 2, 12, 7, 11},
                                           {40, 20, 33, 40, 10}, {5, 5, 17, 64, 15}, {70, 70, 1, 1, 15}, {70, 1, 1, 1, 4},  {6, 2, 1, 1, 6}};

typedef struct matrix {
    array *q, *k, *v, *g, *beta, *skip, *seqs;
    int delta;
} matrix;

static matrix make(rig *r, sw_dtype t, layout l, const setup *s, const int64_t *shape)
{
    int64_t n = s->rows, h = shape[0], d = shape[2], how = shape[4];
    note(r, "%s: %d rows, %d heads, %d keys, %d by %d, form %d", sw_dtypes[t].name, (int)n, (int)h, (int)shape[1], (int)d, (int)shape[3], (int)how);
    matrix m = {.q = normal(r, t, l, SHAPE(n, shape[1], d), 1),
                .k = normal(r, t, l, SHAPE(n, shape[1], d), 0.7 / sqrt((double)d)), /* the delta rule wants keys below length 1 */
                .v = normal(r, t, l, SHAPE(n, h, shape[3]), 1),
                .g = how & 1 ? negative(r, l, SHAPE(n, h, d)) : negative(r, l, SHAPE(n, h)),
                .beta = how & 2 ? whole(r, SW_F32, l, SHAPE(n, h), 0, 1) : NULL,
                .skip = how & 4 ? normal(r, SW_F32, DENSE, SHAPE(h), 1) : NULL,
                .seqs = table(r, s),
                .delta = (how & 8) > 0};
    return m;
}

void case_recurrence_fwd(rig *r)
{
    EACH(r, t, l, i, matrix_shapes, k) {
        const setup *s = &setups[i];
        if (left_out(s, *t, l, matrix_shapes[k][0], matrix_shapes[k][2] * matrix_shapes[k][3]))
            continue;
        const int64_t *shape = matrix_shapes[k];
        matrix m = make(r, *t, l, s, shape);
        array *out = result(r, *t, l, SHAPE(s->rows, shape[0], shape[3]));
        array *state = normal(r, SW_F32, DENSE, SHAPE(s->slots, shape[0], shape[2], shape[3]), 1);
        RUN(r, recurrence_fwd, AT(out), AT(state), AT(m.q), AT(m.k), AT(m.v), AT(m.g), AT(m.beta), AT(m.skip), AT(m.seqs), m.delta);
        expect(r, out, tolerance_of(*t), 4);
        expect(r, state, 1e-5, 4);
        finish(r);
    }
}

void case_recurrence_bwd(rig *r)
{
    EACH(r, t, l, i, matrix_shapes, k) {
        const setup *s = &setups[i];
        if (left_out(s, *t, l, matrix_shapes[k][0], matrix_shapes[k][2] * matrix_shapes[k][3]))
            continue;
        const int64_t *shape = matrix_shapes[k];
        int64_t n = s->rows, h = shape[0], d = shape[2];
        bool all = draw(r, 0, 3) > 0;
        matrix m = make(r, *t, l, s, shape);
        array *dout = normal(r, *t, l, SHAPE(n, h, shape[3]), 1), *dv = result(r, *t, l, SHAPE(n, h, shape[3]));
        array *dq = result(r, SW_F32, l, SHAPE(n, h, d)), *dk = result(r, SW_F32, l, SHAPE(n, h, d));
        array *dg = shape[4] & 1 ? result(r, SW_F32, l, SHAPE(n, h, d)) : result(r, SW_F32, l, SHAPE(n, h));
        array *dbeta = result(r, SW_F32, l, SHAPE(n, h)), *dskip = normal(r, SW_F32, DENSE, SHAPE(h), 1);
        RUN(r, recurrence_bwd, all ? AT(dq) : NULL, all ? AT(dk) : NULL, AT(dv), AT(dg), m.beta ? AT(dbeta) : NULL,
            m.skip ? AT(dskip) : NULL, AT(dout), AT(m.q), AT(m.k), AT(m.v), AT(m.g), AT(m.beta), AT(m.skip), AT(m.seqs), m.delta);
        expect(r, dq, 1e-5, 10);
        expect(r, dk, 1e-5, 30);
        expect(r, dv, tolerance_of(*t), 10);
        expect(r, dg, 1e-5, 30);
        expect(r, dbeta, 1e-5, 30);
        expect(r, dskip, 1e-5, 10);
        finish(r);
    }
}
