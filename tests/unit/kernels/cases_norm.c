#include "cases.h"

/* Weights of the type of x, or f32, or none; offset 0 or 1. */
typedef struct norm_shape {
    int ndim;
    int64_t shape[3];
    sw_dtype type;
    layout l;
    int weights;
    double offset;
} norm_shape;

/* Rows that a warp and that a block of the GPU's threads may keep in registers, or not. */
static const int64_t rows_to_norm[][2] = {{0, 5}, {1, 1}, {3, 1}, {1, 7}, {5, 16}, {4, 33}, {3, 257}, {2, 1030}, {70, 64}, {37, 1031}, {3, 584}, {2, 1032}, {-1, 0}};
#define FOR_ROWS(s) for (const int64_t(*s)[2] = rows_to_norm; (*s)[0] >= 0; s++)

static norm_shape shape_of(rig *r, const int64_t *s, sw_dtype t, layout l)
{
    norm_shape n = {.ndim = 2,
                    .shape = {s[0], s[1]},
                    .type = t,
                    .l = l,
                    .weights = (int)draw(r, 0, 2),
                    .offset = (double)draw(r, 0, 1)};
    if (draw(r, 0, 1))
        n = (norm_shape){3, {draw(r, 1, 3), s[0], s[1]}, t, l, n.weights, n.offset};
    note(r, "%s [.., %d, %d] layout %d weights %d offset %g", sw_dtypes[t].name, (int)s[0], (int)s[1], (int)l,
         n.weights, n.offset);
    return n;
}

static int64_t rows_of(const norm_shape *n) { return n->ndim == 2 ? n->shape[0] : n->shape[0] * n->shape[1]; }

static array *weights_of(rig *r, const norm_shape *n)
{
    return n->weights ? normal(r, n->weights == 1 ? n->type : SW_F32, DENSE, 1, n->shape + n->ndim - 1, 1) : NULL;
}

static array *values_of(rig *r, const norm_shape *n, double scale)
{
    return normal(r, n->type, n->l, n->ndim, n->shape, scale);
}

void case_rmsnorm_fwd(rig *r)
{
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            FOR_ROWS(s) {
                norm_shape n = shape_of(r, *s, *t, l);
                array *x = values_of(r, &n, 3), *w = weights_of(r, &n), *y = blank(r, *t, l, n.ndim, n.shape);
                array *rstd = draw(r, 0, 3) ? blank(r, SW_F32, DENSE, SHAPE(rows_of(&n))) : NULL;
                RUN(r, rmsnorm_fwd, AT(y), AT(rstd), AT(x), AT(w), 1e-5, n.offset);
                expect(r, y, tolerance_of(*t), 0.1);
                if (rstd)
                    expect(r, rstd, 1e-5, 0);
                finish(r);
            }
}

void case_rmsnorm_bwd(rig *r)
{
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            FOR_ROWS(s)
                for (int acc = 0; acc < 2; acc++) {
                    norm_shape n = shape_of(r, *s, *t, l);
                    array *x = values_of(r, &n, 2), *w = weights_of(r, &n), *y = blank(r, *t, l, n.ndim, n.shape);
                    array *rstd = blank(r, SW_F32, DENSE, SHAPE(rows_of(&n))), *dy = values_of(r, &n, 1);
                    RUN(r, rmsnorm_fwd, AT(y), AT(rstd), AT(x), AT(w), 1e-2, n.offset);
                    share(r, rstd);
                    y->expected = true;
                    array *dx = !draw(r, 0, 3) ? NULL : acc ? values_of(r, &n, 1) : blank(r, *t, l, n.ndim, n.shape);
                    array *dw = draw(r, 0, 3) ? normal(r, SW_F32, DENSE, 1, *s + 1, 1) : NULL;
                    RUN(r, rmsnorm_bwd, AT(dx), AT(dw), AT(dy), AT(x), AT(w), AT(rstd), n.offset, acc);
                    if (dx)
                        expect(r, dx, tolerance_of(*t), 2);
                    if (dw)
                        expect(r, dw, 2e-5, sqrt((double)rows_of(&n)));
                    finish(r);
                }
}

void case_layernorm_fwd(rig *r)
{
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            FOR_ROWS(s) {
                norm_shape n = shape_of(r, *s, *t, l);
                array *x = values_of(r, &n, 3), *w = weights_of(r, &n), *b = weights_of(r, &n),
                      *y = blank(r, *t, l, n.ndim, n.shape);
                array *mean = blank(r, SW_F32, DENSE, SHAPE(rows_of(&n))),
                      *rstd = blank(r, SW_F32, DENSE, SHAPE(rows_of(&n)));
                RUN(r, layernorm_fwd, AT(y), AT(mean), AT(rstd), AT(x), AT(w), AT(b), 1e-5, n.offset);
                expect(r, y, tolerance_of(*t), 1);
                expect(r, mean, 1e-5, 3);
                expect(r, rstd, 1e-5, 0);
                finish(r);
            }
}

void case_layernorm_bwd(rig *r)
{
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            FOR_ROWS(s)
                for (int acc = 0; acc < 2; acc++) {
                    norm_shape n = shape_of(r, *s, *t, l);
                    array *x = values_of(r, &n, 2), *w = weights_of(r, &n), *y = blank(r, *t, l, n.ndim, n.shape);
                    array *mean = blank(r, SW_F32, DENSE, SHAPE(rows_of(&n))),
                          *rstd = blank(r, SW_F32, DENSE, SHAPE(rows_of(&n)));
                    array *dy = values_of(r, &n, 1);
                    RUN(r, layernorm_fwd, AT(y), AT(mean), AT(rstd), AT(x), AT(w), NULL, 1e-1, n.offset);
                    share(r, rstd);
                    share(r, mean);
                    y->expected = true;
                    array *dx = !draw(r, 0, 3) ? NULL : acc ? values_of(r, &n, 1) : blank(r, *t, l, n.ndim, n.shape);
                    array *dw = draw(r, 0, 3) ? normal(r, SW_F32, DENSE, 1, *s + 1, 1) : NULL;
                    array *db = draw(r, 0, 3) ? normal(r, SW_F32, DENSE, 1, *s + 1, 1) : NULL;
                    RUN(r, layernorm_bwd, AT(dx), AT(dw), AT(db), AT(dy), AT(x), AT(w), AT(mean), AT(rstd), n.offset,
                        acc);
                    if (dx)
                        expect(r, dx, tolerance_of(*t), 2);
                    if (dw)
                        expect(r, dw, 2e-5, sqrt((double)rows_of(&n)));
                    if (db)
                        expect(r, db, 2e-5, sqrt((double)rows_of(&n)));
                    finish(r);
                }
}
