#include "cases.h"

#include <stdlib.h>

void case_fill(rig *r)
{
    static const sw_dtype types[] = {SW_F32, SW_BF16, SW_F16, SW_F64, SW_I8, SW_I16, SW_I32, SW_I64, SW_U8, SW_BOOL};
    for (size_t i = 0; i < SW_COUNT(types); i++)
        FOR_LAYOUTS(l, GAPS)
            FOR_SHAPES(s) {
                bool zero = (*s)[1] == 16;
                note(r, "%s [%d, %d]", sw_dtypes[types[i]].name, (int)(*s)[0], (int)(*s)[1]);
                array *y = blank(r, types[i], l, 2, *s);
                RUN(r, fill, AT(y), zero ? 0 : types[i] == SW_BOOL ? 1 : sw_is_float(types[i]) ? -2.625 : 7);
                expect(r, y, 0, 0);
                finish(r);
            }
}

/* Every code of the 8-bit floats, and scales: to the bit in f32. */
static void copy_float8(rig *r)
{
    static const sw_dtype types[] = {SW_F8_E4M3, SW_F8_E5M2};
    for (size_t i = 0; i < 2; i++)
        FOR_FLOATS(to)
            FOR_LAYOUTS(l, GAPS)
                for (int k = 0; k < 12; k++) {
                    int64_t rows = draw(r, 0, 9), width = draw(r, 1, 300);
                    note(r, "%s to %s [%d, %d]", sw_dtypes[types[i]].name, sw_dtypes[*to].name, (int)rows, (int)width);
                    array *x = any_float8(r, types[i], l, rows, width), *y = blank(r, *to, l, SHAPE(rows, width));
                    for (int64_t j = 0; j < (k < 2 ? rows * width : 0); j++)
                        x->before[(char *)x->t[0].data - (char *)x->memory[0] + j / width * x->t[0].stride[0] + j % width] = (unsigned char)j;
                    put_both(r, x);
                    RUN(r, copy, AT(y), AT(x));
                    expect(r, y, *to == SW_F32 ? 0 : tolerance_of(*to), 0);
                    finish(r);
                }
}

void case_copy(rig *r)
{
    static const int64_t shapes[][SW_MAX_DIMS] = {
        {1, 1, 1, 1, 1}, {2, 3, 4, 5, 6}, {3, 1, 7, 2, 65}, {2, 0, 3, 1, 4}, {1, 9, 1, 33, 40}};
    for (int from = 0; from < SW_DTYPE_COUNT; from++) {
        bool blocks = sw_is_quantised((sw_dtype)from);
        for (size_t k = 0; k < 4; k++) { /* to each float type, or to its own */
            sw_dtype to = k < 3 ? float_types[k] : (sw_dtype)from;
            if (blocks ? k == 3 : k < 3 && !sw_is_float((sw_dtype)from))
                continue;
            for (int ndim = 1; ndim <= SW_MAX_DIMS; ndim++)
                FOR_LAYOUTS(l, SHUFFLED) {
                    const int64_t *shape = shapes[draw(r, 0, SW_COUNT(shapes) - 1)] + SW_MAX_DIMS - ndim;
                    int64_t dims[SW_MAX_DIMS];
                    for (int d = 0; d < ndim; d++)
                        dims[d] = shape[d];
                    if (blocks)
                        dims[ndim - 1] = sw_dtypes[from].block * draw(r, 1, 3);
                    note(r, "%s to %s, %d dimensions, layout %d", sw_dtypes[from].name, sw_dtypes[to].name, ndim,
                         (int)l);
                    bool number = sw_is_float((sw_dtype)from) || blocks;
                    array *x = number ? normal(r, (sw_dtype)from, blocks ? DENSE : l, ndim, dims, 1)
                                      : whole(r, (sw_dtype)from, l, ndim, dims, 0, 100);
                    array *y = blank(r, to, draw(r, 0, 1) ? l : DENSE, ndim, dims);
                    RUN(r, copy, AT(y), AT(x));
                    /* the f32 of a block is defined to the bit; one that lies halfway between two of a smaller type may go either way */
                    expect(r, y, blocks && to != SW_F32 ? tolerance_of(to) : 0, 0);
                    finish(r);
                }
        }
    }
    copy_float8(r);
}

void case_axpby(rig *r)
{
    static const double factors[][2] = {{1, 0}, {0.5, 1}, {-2, 0.25}, {1, 1}, {0, 2}};
    FOR_FLOATS(tx)
        FOR_FLOATS(ty)
            FOR_LAYOUTS(l, GAPS)
                FOR_SHAPES(s) {
                    const double *f = factors[draw(r, 0, 4)];
                    note(r, "%s to %s [%d, %d] alpha %g beta %g", sw_dtypes[*tx].name, sw_dtypes[*ty].name,
                         (int)(*s)[0], (int)(*s)[1], f[0], f[1]);
                    array *x = normal(r, *tx, l, 2, *s, 1),
                          *y = f[1] != 0 ? normal(r, *ty, l, 2, *s, 1) : blank(r, *ty, l, 2, *s);
                    RUN(r, axpby, AT(y), f[0], AT(x), f[1]);
                    expect(r, y, tolerance_of(*ty), 1);
                    finish(r);
                    x = normal(r, *tx, l, 2, *s, 1);
                    RUN(r, axpby, AT(x), 3, AT(x), 0);
                    expect(r, x, tolerance_of(*tx), 1);
                    finish(r);
                }
}

void case_add(rig *r)
{
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            FOR_SHAPES(s) {
                note(r, "%s [%d, %d]", sw_dtypes[*t].name, (int)(*s)[0], (int)(*s)[1]);
                array *a = normal(r, *t, l, 2, *s, 1), *b = normal(r, *t, DENSE, 2, *s, 1), *y = blank(r, *t, l, 2, *s);
                RUN(r, add, AT(y), AT(a), AT(b));
                RUN(r, add, AT(b), AT(a), AT(b));
                expect(r, y, tolerance_of(*t), 1);
                expect(r, b, tolerance_of(*t), 1);
                finish(r);
            }
}

void case_mul(rig *r)
{
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            FOR_SHAPES(s)
                for (int acc = 0; acc < 2; acc++)
                    for (int vector = 0; vector < 2; vector++) {
                        note(r, "%s [%d, %d] acc %d%s", sw_dtypes[*t].name, (int)(*s)[0], (int)(*s)[1], acc,
                             vector ? " by a vector" : "");
                        array *a = normal(r, *t, l, 2, *s, 1),
                              *y = acc ? normal(r, *t, l, 2, *s, 1) : blank(r, *t, l, 2, *s);
                        array *b = vector ? normal(r, *t, DENSE, 1, *s + 1, 1) : normal(r, *t, DENSE, 2, *s, 1);
                        RUN(r, mul, AT(y), AT(a), AT(b), acc);
                        RUN(r, mul, AT(a), AT(a), AT(b), 0);
                        expect(r, y, tolerance_of(*t), 1);
                        expect(r, a, tolerance_of(*t), 1);
                        finish(r);
                    }
}

void case_sum_rows(rig *r)
{
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            FOR_SHAPES(s)
                for (int weighted = 0; weighted < 2; weighted++) {
                    note(r, "%s [%d, %d]%s", sw_dtypes[*t].name, (int)(*s)[0], (int)(*s)[1],
                         weighted ? " weighted" : "");
                    array *x = normal(r, *t, l, 2, *s, 1), *w = weighted ? normal(r, *t, l, 2, *s, 1) : NULL;
                    array *out = normal(r, SW_F32, DENSE, 1, *s + 1, 1);
                    SAME_BITS(r, out, sum_rows, AT(out), AT(x), AT(w));
                    finish(r);
                    x = normal(r, *t, l, 2, *s, 1), w = weighted ? normal(r, *t, l, 2, *s, 1) : NULL;
                    out = normal(r, SW_F32, DENSE, 1, *s + 1, 1);
                    RUN(r, sum_rows, AT(out), AT(x), AT(w));
                    expect(r, out, 1e-5, sqrt((double)(*s)[0]));
                    finish(r);
                }
}

void case_sum_squares(rig *r)
{
    static const int64_t sizes[] = {0, 1, 3, 64, 1000, 65537, 300001};
    FOR_FLOATS(t)
        for (size_t i = 0; i < SW_COUNT(sizes); i++) {
            note(r, "%s [%d]", sw_dtypes[*t].name, (int)sizes[i]);
            array *x = normal(r, *t, DENSE, 1, sizes + i, 1), *out = blank(r, SW_F64, DENSE, SHAPE(1));
            RUN(r, sum_squares, AT(out), AT(x));
            expect(r, out, 1e-6, 0);
            SAME_BITS(r, out, sum_squares, AT(out), AT(x));
            finish(r);
        }
}

void case_find_nonfinite(rig *r)
{
    static const int64_t sizes[] = {0, 1, 17, 1000, 65536, 200003};
    static const double bad[] = {INFINITY, -INFINITY, NAN};
    FOR_FLOATS(t)
        for (size_t i = 0; i < SW_COUNT(sizes); i++)
            for (int places = 0; places < 4; places++) { /* none, one, several, the first and the last */
                array *x = normal(r, *t, DENSE, 1, sizes + i, 100), *out = blank(r, SW_I64, DENSE, SHAPE(1));
                for (int k = 0; sizes[i] && k < places; k++)
                    set_value(r, x, places == 3 ? (k ? sizes[i] - 1 : 0) : draw(r, 0, sizes[i] - 1),
                              bad[draw(r, 0, 2)]);
                note(r, "%s [%d] with %d", sw_dtypes[*t].name, (int)sizes[i], places);
                RUN(r, find_nonfinite, AT(out), AT(x));
                expect(r, out, 0, 0);
                finish(r);
            }
}

array *row_keys(rig *r, int64_t n)
{
    array *keys = blank(r, SW_I64, DENSE, 1, &n);
    for (int64_t i = 0; i < n; i++)
        put_value(keys, i, (double)(draw(r, 0, 1 << 20) << 32 | draw(r, 0, 1 << 18) << 12));
    put_both(r, keys);
    return keys;
}

void case_dropout(rig *r)
{
    static const double rates[] = {0, 0.1, 0.5, 1};
    FOR_FLOATS(t)
        FOR_SHAPES(s)
            for (int acc = 0; acc < 2; acc++)
                for (size_t i = 0; i < SW_COUNT(rates); i++) {
                    sw_rng rng = {
                        .seed = (uint64_t)draw(r, 0, INT64_MAX - 1), .step = (uint32_t)draw(r, 0, 1000), .site = 77};
                    note(r, "%s [%d, %d] p %g acc %d", sw_dtypes[*t].name, (int)(*s)[0], (int)(*s)[1], rates[i], acc);
                    array *x = normal(r, *t, DENSE, 2, *s, 1);
                    array *y = acc ? normal(r, *t, DENSE, 2, *s, 1) : blank(r, *t, DENSE, 2, *s);
                    array *keys = row_keys(r, (*s)[0]);
                    bool with = draw(r, 0, 1);
                    RUN(r, dropout, AT(y), AT(x), with ? AT(keys) : NULL, rates[i], &rng, acc);
                    expect(r, y, tolerance_of(*t), 1);
                    if (!acc) {
                        RUN(r, dropout, AT(x), AT(x), AT(keys), rates[i], &rng, 0);
                        expect(r, x, tolerance_of(*t), 1);
                    }
                    finish(r);
                }
}
