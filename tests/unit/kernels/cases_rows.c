#include "cases.h"

void case_rope_table(rig *r)
{
    static const int64_t halves[] = {1, 3, 16, 32, 65};
    for (int64_t n = 0; n < 40; n += 13)
        for (size_t i = 0; i < SW_COUNT(halves); i++) {
            note(r, "%d places, %d angles", (int)n, (int)halves[i]);
            array *positions = whole(r, SW_I32, DENSE, 1, &n, 0, 131071),
                  *freq = blank(r, SW_F32, DENSE, 1, halves + i);
            for (int64_t k = 0; k < halves[i]; k++)
                set_value(r, freq, k, pow(10000, -(double)k / (double)halves[i]));
            array *c = blank(r, SW_F32, DENSE, SHAPE(n, halves[i])), *s = blank(r, SW_F32, DENSE, SHAPE(n, halves[i]));
            RUN(r, rope_table, AT(c), AT(s), AT(positions), AT(freq), 1.25);
            expect(r, c, 2e-6, 1);
            expect(r, s, 2e-6, 1);
            finish(r);
        }
}

void case_rope(rig *r)
{
    static const int64_t shapes[][4] = {{0, 2, 8, 4},  {1, 1, 2, 1},   {5, 3, 64, 32},
                                        {7, 2, 10, 3}, {3, 5, 96, 16}, {33, 9, 66, 33}};
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            for (size_t i = 0; i < SW_COUNT(shapes); i++)
                for (int mode = 0; mode <= SW_ROPE_INTERLEAVED; mode++)
                    for (int inverse = 0; inverse < 2; inverse++) {
                        const int64_t *s = shapes[i];
                        note(r, "%s [%d, %d, %d] %d angles mode %d inverse %d", sw_dtypes[*t].name, (int)s[0],
                             (int)s[1], (int)s[2], (int)s[3], mode, inverse);
                        array *x = normal(r, *t, l, 3, s, 1), *y = blank(r, *t, DENSE, 3, s);
                        array *c = normal(r, SW_F32, DENSE, SHAPE(s[0], s[3]), 1),
                              *d = normal(r, SW_F32, DENSE, SHAPE(s[0], s[3]), 1);
                        RUN(r, rope, AT(y), AT(x), AT(c), AT(d), mode, inverse);
                        RUN(r, rope, AT(x), AT(x), AT(c), AT(d), mode, inverse);
                        expect(r, y, tolerance_of(*t), 1);
                        expect(r, x, tolerance_of(*t), 1);
                        finish(r);
                    }
}

void case_embedding_fwd(rig *r)
{
    static const int64_t counts[] = {0, 1, 9, 130};
    for (int w = 0; w < SW_DTYPE_COUNT; w++)
        FOR_FLOATS(t)
            FOR_LAYOUTS(l, GAPS)
                for (size_t i = 0; i < SW_COUNT(counts); i++) {
                    if (!sw_is_quantised((sw_dtype)w) && !sw_is_float((sw_dtype)w) && !sw_is_float8((sw_dtype)w))
                        continue;
                    int block = sw_dtypes[w].block;
                    int64_t width = block > 1 ? block * draw(r, 1, 3) : draw(r, 1, 100), vocabulary = draw(r, 1, 40);
                    double scale = draw(r, 0, 1) ? 1 : 1.7;
                    note(r, "%s from %s [%d, %d], %d ids", sw_dtypes[*t].name, sw_dtypes[w].name, (int)vocabulary,
                         (int)width, (int)counts[i]);
                    array *table = sw_is_float8((sw_dtype)w) ? any_float8(r, (sw_dtype)w, l, vocabulary, width)
                                                             : normal(r, (sw_dtype)w, l, SHAPE(vocabulary, width), 1),
                          *y = blank(r, *t, l, SHAPE(counts[i], width));
                    array *ids = whole(r, SW_I32, DENSE, 1, counts + i, 0, vocabulary - 1);
                    RUN(r, embedding_fwd, AT(y), AT(table), AT(ids), scale);
                    expect(r, y, tolerance_of(*t), 0.1);
                    finish(r);
                }
}

void case_embedding_bwd(rig *r)
{
    static const int64_t counts[] = {0, 1, 9, 130, 700};
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            for (size_t i = 0; i < SW_COUNT(counts); i++) {
                int64_t width = draw(r, 1, 130), vocabulary = draw(r, 1, 50);
                note(r, "%s [%d, %d], %d ids", sw_dtypes[*t].name, (int)vocabulary, (int)width, (int)counts[i]);
                array *dw = normal(r, SW_F32, DENSE, SHAPE(vocabulary, width), 1),
                      *dy = normal(r, *t, l, SHAPE(counts[i], width), 1);
                array *ids = whole(r, SW_I32, DENSE, 1, counts + i, 0, vocabulary - 1);
                RUN(r, embedding_bwd, AT(dw), AT(dy), AT(ids), 1.5);
                expect(r, dw, 2e-5, 1);
                SAME_BITS(r, dw, embedding_bwd, AT(dw), AT(dy), AT(ids), 1.5);
                finish(r);
            }
}

/* Rows of one, two or three dimensions. */
static int row_shape(rig *r, int64_t rows, int64_t shape[3], const int64_t *like)
{
    int ndim = like ? (int)like[3] : (int)draw(r, 1, 3);
    shape[0] = rows;
    for (int d = 1; d < 3; d++)
        shape[d] = like ? like[d] : draw(r, 1, 40);
    return ndim;
}

void case_gather_rows(rig *r)
{
    static const int64_t counts[] = {0, 1, 5, 50};
    FOR_FLOATS(tx)
        FOR_FLOATS(ty)
            FOR_LAYOUTS(l, GAPS)
                for (size_t i = 0; i < SW_COUNT(counts); i++) {
                    int64_t from[4], to[3];
                    from[3] = row_shape(r, draw(r, 1, 20), from, NULL);
                    int ndim = row_shape(r, counts[i], to, from);
                    note(r, "%s to %s, %d of %d rows, %d dimensions", sw_dtypes[*tx].name, sw_dtypes[*ty].name,
                         (int)counts[i], (int)from[0], ndim);
                    array *x = normal(r, *tx, l, ndim, from, 1), *y = blank(r, *ty, l, ndim, to);
                    array *ids = whole(r, SW_I32, DENSE, 1, counts + i, -1, from[0] - 1);
                    RUN(r, gather_rows, AT(y), AT(x), AT(ids));
                    expect(r, y, 0, 0);
                    finish(r);
                }
}

void case_scatter_rows(rig *r)
{
    static const int64_t counts[] = {0, 1, 5, 50};
    FOR_FLOATS(tx)
        FOR_FLOATS(ty)
            FOR_LAYOUTS(l, GAPS)
                for (size_t i = 0; i < SW_COUNT(counts); i++)
                    for (int acc = 0; acc < 2; acc++) {
                        int64_t from[4], to[3];
                        from[3] = row_shape(r, counts[i], from, NULL);
                        int ndim = row_shape(r, counts[i] + 3, to, from);
                        note(r, "%s to %s, %d rows, %d dimensions, acc %d", sw_dtypes[*tx].name, sw_dtypes[*ty].name,
                             (int)counts[i], ndim, acc);
                        array *x = normal(r, *tx, l, ndim, from, 1), *y = normal(r, *ty, l, ndim, to, 1);
                        array *ids = whole(r, SW_I32, DENSE, 1, counts + i, -1, to[0] - 1);
                        for (int64_t n = 0; !acc && n < counts[i]; n++) /* all different: there is no order to keep */
                            set_value(r, ids, n, n % 7 == 3 ? -1 : (double)(counts[i] - n));
                        RUN(r, scatter_rows, AT(y), AT(x), AT(ids), acc);
                        expect(r, y, acc ? tolerance_of(*ty) : 0, 1);
                        finish(r);
                    }
}

void case_paged_rows(rig *r)
{
    static const int32_t table[3][4] = {{0, 2, 0, 300}, {2, 1, 512, 0}, {3, 1, 320, 150}};
    for (int64_t bits = 0; bits < 8; bits += 3)
        for (int64_t n = 0; n < 4; n++) {
            array *seqs = blank(r, SW_I32, DENSE, SHAPE(n, 4)), *page = whole(r, SW_I32, DENSE, SHAPE(512), 0, 1000);
            int64_t rows = 0;
            note(r, "%d sequences, pages of %d", (int)n, 1 << bits);
            for (int64_t i = 0; i < 4 * n; i++)
                set_value(r, seqs, i, table[i / 4][i % 4]);
            for (int64_t i = 0; i < n; i++)
                rows += table[i][3];
            array *to = blank(r, SW_I32, DENSE, SHAPE(rows)), *plain = blank(r, SW_I32, DENSE, SHAPE(rows));
            sw_paging paging[2] = {{page->t[0].data, (int)bits, 512}, {page->t[1].data, (int)bits, 512}};
            RUN(r, paged_rows, AT(to), AT(seqs), &paging[side]);
            RUN(r, paged_rows, AT(plain), AT(seqs), &(sw_paging){0});
            expect(r, to, 0, 0);
            expect(r, plain, 0, 0);
            finish(r);
        }
}
