#include "cases.h"

/* ---- attention to two sets of keys */

void case_attention_merge(rig *r)
{
    static const int64_t shapes[][3] = {{0, 2, 8}, {1, 1, 1}, {5, 3, 64}, {7, 2, 10}, {3, 4, 1030}};
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            for (size_t i = 0; i < SW_COUNT(shapes); i++) {
                const int64_t *s = shapes[i];
                note(r, "%s [%d, %d, %d]", sw_dtypes[*t].name, (int)s[0], (int)s[1], (int)s[2]);
                array *out = normal(r, *t, l, 3, s, 1), *other = normal(r, *t, l, 3, s, 1);
                array *lse = normal(r, SW_F32, DENSE, 2, s, 5), *other_lse = normal(r, SW_F32, DENSE, 2, s, 5);
                for (int64_t k = 0; k < s[0] * s[1]; k++) { /* one of them has seen nothing, or neither has */
                    if (k % 4 == 1 || k % 4 == 3)
                        set_value(r, lse, k, -INFINITY);
                    if (k % 4 >= 2)
                        set_value(r, other_lse, k, -INFINITY);
                }
                RUN(r, attention_merge, AT(out), AT(lse), AT(other), AT(other_lse));
                expect(r, out, tolerance_of(*t), 1);
                expect(r, lse, 1e-6, 1);
                finish(r);
            }
}

/* ---- pooling */

typedef struct pooled {
    array *x, *gate, *rows, *y, *lse;
} pooled;

/* Every row in one slot of each part at most; some slots empty, the last entry wholly. */
static pooled pool(rig *r, sw_dtype t, layout l, const int64_t s[4])
{
    int64_t entries = s[0], width = s[1], parts = s[2], each = s[3], m = entries * each + 2;
    pooled p = {.x = normal(r, t, l, SHAPE(m, parts * width), 1),
                .gate = normal(r, SW_F32, l, SHAPE(m, parts * width), 2),
                .rows = blank(r, SW_I32, DENSE, SHAPE(entries, parts * each)),
                .y = blank(r, t, l, SHAPE(entries, width)),
                .lse = blank(r, SW_F32, DENSE, SHAPE(entries, width))};
    note(r, "%s, layout %d, %d entries of %d values from %d x %d slots", sw_dtypes[t].name, (int)l, (int)entries, (int)width,
         (int)parts, (int)each);
    for (int64_t e = 0; e < entries; e++)
        for (int64_t j = 0; j < parts * each; j++) {
            bool none = (e && e == entries - 1) || draw(r, 0, 4) == 0;
            put_value(p.rows, e * parts * each + j, none ? -1 : (double)(e * each + j % each + j / each));
        }
    put_both(r, p.rows);
    RUN(r, pool_fwd, AT(p.y), AT(p.lse), AT(p.x), AT(p.gate), AT(p.rows));
    return p;
}

static const int64_t pools[][4] = {{0, 8, 1, 4}, {1, 1, 1, 1}, {3, 64, 1, 5}, {5, 16, 2, 4}, {2, 130, 2, 3}, {40, 33, 2, 2}};

void case_pool_fwd(rig *r)
{
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            for (size_t i = 0; i < SW_COUNT(pools); i++) {
                pooled p = pool(r, *t, l, pools[i]);
                expect(r, p.y, tolerance_of(*t), 1);
                expect(r, p.lse, 1e-6, 1);
                finish(r);
            }
}

void case_pool_bwd(rig *r)
{
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            for (size_t i = 0; i < SW_COUNT(pools); i++) {
                pooled p = pool(r, *t, l, pools[i]);
                share(r, p.y);
                share(r, p.lse);
                const int64_t *shape = p.x->t[0].shape;
                array *dy = normal(r, *t, l, 2, p.y->t[0].shape, 1), *dx = blank(r, *t, l, 2, shape),
                      *dgate = blank(r, SW_F32, l, 2, shape);
                RUN(r, pool_bwd, AT(dx), AT(dgate), AT(dy), AT(p.y), AT(p.lse), AT(p.x), AT(p.gate), AT(p.rows));
                expect(r, dx, tolerance_of(*t), 0.1);
                expect(r, dgate, SW_MAX(tolerance_of(*t) / 4, 1e-6), 1);
                finish(r);
            }
}

/* ---- streams */

static const int64_t squares[][3] = {{0, 4, 3},  {1, 1, 1},   {5, 4, 20}, {3, 2, 1},
                                     {2, 16, 5}, {150, 4, 2}, {7, 3, 4}}; /* matrices, side, rounds */

void case_sinkhorn_fwd(rig *r)
{
    FOR_LAYOUTS(l, GAPS)
        for (size_t i = 0; i < SW_COUNT(squares); i++) {
            int64_t n = squares[i][0], side = squares[i][1], rounds = squares[i][2];
            note(r, "%d matrices of %d, %d rounds, layout %d", (int)n, (int)side, (int)rounds, (int)l);
            array *x = normal(r, SW_F32, l, SHAPE(n, side * side), 2), *y = blank(r, SW_F32, l, SHAPE(n, side * side));
            array *divisors = blank(r, SW_F32, DENSE, SHAPE(n, (2 * rounds - 1) * side)),
                  *alone = blank(r, SW_F32, l, SHAPE(n, side * side));
            RUN(r, sinkhorn_fwd, AT(y), AT(divisors), AT(x), (int)rounds, 1e-3);
            RUN(r, sinkhorn_fwd, AT(alone), NULL, AT(x), (int)rounds, 1e-3);
            expect(r, y, 1e-5, 0.1);
            expect(r, alone, 1e-5, 0.1);
            expect(r, divisors, 1e-5, 0.1);
            finish(r);
        }
}

void case_sinkhorn_bwd(rig *r)
{
    FOR_LAYOUTS(l, GAPS)
        for (size_t i = 0; i < SW_COUNT(squares); i++) {
            int64_t n = squares[i][0], side = squares[i][1], rounds = squares[i][2];
            note(r, "%d matrices of %d, %d rounds, layout %d", (int)n, (int)side, (int)rounds, (int)l);
            array *x = normal(r, SW_F32, l, SHAPE(n, side * side), 2), *y = blank(r, SW_F32, l, SHAPE(n, side * side));
            array *divisors = blank(r, SW_F32, DENSE, SHAPE(n, (2 * rounds - 1) * side));
            array *dy = normal(r, SW_F32, l, SHAPE(n, side * side), 1), *dx = blank(r, SW_F32, l, SHAPE(n, side * side));
            RUN(r, sinkhorn_fwd, AT(y), AT(divisors), AT(x), (int)rounds, 1e-3);
            share(r, y);
            share(r, divisors);
            RUN(r, sinkhorn_bwd, AT(dx), AT(dy), AT(y), AT(divisors), (int)rounds, 1e-3);
            expect(r, dx, 2e-5, 0.1);
            finish(r);
        }
}

static const int64_t mixes[][4] = {{0, 4, 4, 8},   {1, 1, 1, 1},      {3, 4, 4, 64},  {5, 4, 1, 33},
                                   {4, 1, 4, 257}, {2, 16, 16, 1030}, {3, 2, 5, 2100}}; /* N, J, K, D */

void case_mix_streams(rig *r)
{
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            for (size_t i = 0; i < SW_COUNT(mixes); i++)
                for (int acc = 0; acc < 2; acc++) {
                    const int64_t *s = mixes[i];
                    note(r, "%s, layout %d, [%d, %d to %d, %d] acc %d", sw_dtypes[*t].name, (int)l, (int)s[0], (int)s[1],
                         (int)s[2], (int)s[3], acc);
                    array *x = normal(r, *t, l, SHAPE(s[0], s[1], s[3]), 1),
                          *w = normal(r, SW_F32, l == DENSE ? DENSE : SHUFFLED, 3, s, 1);
                    array *y = acc ? normal(r, *t, l, SHAPE(s[0], s[2], s[3]), 1) : blank(r, *t, l, SHAPE(s[0], s[2], s[3]));
                    RUN(r, mix_streams, AT(y), AT(w), AT(x), acc);
                    expect(r, y, tolerance_of(*t), 1);
                    finish(r);
                }
}

void case_mix_streams_bwd_w(rig *r)
{
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            for (size_t i = 0; i < SW_COUNT(mixes); i++) {
                const int64_t *s = mixes[i];
                note(r, "%s, layout %d, [%d, %d to %d, %d]", sw_dtypes[*t].name, (int)l, (int)s[0], (int)s[1], (int)s[2],
                     (int)s[3]);
                array *x = normal(r, *t, l, SHAPE(s[0], s[1], s[3]), 1), *dy = normal(r, *t, l, SHAPE(s[0], s[2], s[3]), 1);
                array *dw = blank(r, SW_F32, l == DENSE ? DENSE : SHUFFLED, 3, s);
                RUN(r, mix_streams_bwd_w, AT(dw), AT(dy), AT(x));
                expect(r, dw, 2e-5, sqrt((double)s[3]));
                SAME_BITS(r, dw, mix_streams_bwd_w, AT(dw), AT(dy), AT(x));
                finish(r);
            }
}
