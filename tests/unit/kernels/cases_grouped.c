/* Products of rows in groups. */
#include "cases.h"

typedef struct product {
    int64_t rows, in, out, groups;
    sw_dtype x, y, w;
    bool apart; /* the matrices lie anyhow */
    double alpha, beta;
    array *start, *matrices[16], *table; /* not apart: one */
    sw_matrices w_of[2];
    const void *at[2][16];
} product;

static const int64_t sizes[][4] = {/* rows, in, out, groups */ {0, 8, 5, 2},
                                   {1, 64, 40, 3},
                                   {3, 40, 9, 16},
                                   {8, 256, 70, 4},
                                   {30, 33, 17, 9},
                                   {40, 96, 200, 3},
                                   {150, 70, 65, 2},
                                   {70, 64, 129, 8},
                                   {130, 72, 136, 5},
                                   {400, 136, 264, 3},
                                   {290, 320, 72, 2}};

/* Where the groups begin: some are empty, and behind the last may be rows of none. */
static array *starts(rig *r, const product *p)
{
    array *a = whole(r, SW_I32, DENSE, SHAPE(p->groups + 1), 0, 0);
    int64_t at = 0, left = draw(r, 0, 1) ? p->rows : p->rows * 3 / 4;
    for (int64_t g = 0; g < p->groups; g++) {
        int64_t n = g + 1 == p->groups ? left - at
                    : draw(r, 0, 2)    ? draw(r, 0, SW_MIN(2 * p->rows / p->groups + 1, left - at))
                                       : 0;
        put_value(a, g, (double)at);
        at += n;
    }
    put_value(a, p->groups, (double)at);
    put_both(r, a);
    return a;
}

/* Two in three lie in runs of eight values. */
static layout any_rows(rig *r) { return (layout[]){DENSE, RUNS, GAPS}[draw(r, 0, 2)]; }

/* Matrices [out, in] of type t, in one tensor or each by itself. */
static void set_matrices(rig *r, product *p, sw_dtype t)
{
    layout l = any_rows(r);
    if (!p->apart)
        p->matrices[0] = normal(r, t, l, SHAPE(p->groups, p->out, p->in), 1);
    array *like = p->matrices[0];
    for (int64_t g = 0; p->apart && g < p->groups; g++) {
        p->matrices[g] = like = normal(r, t, DENSE, SHAPE(p->out, p->in), 1);
        for (int side = 0; side < 2; side++)
            p->at[side][g] = like->t[side].data;
    }
    for (int side = 0; side < 2; side++) {
        sw_tensor one = like->t[side];
        sw_matrices *m = &p->w_of[side];
        *m = (sw_matrices){.count = p->groups, .step = p->apart ? 0 : one.stride[0]};
        m->one = p->apart ? p->matrices[0]->t[side] : sw_tensor_of(one.data, t, 2, one.shape + 1);
        m->one.stride[0] = p->apart ? one.stride[0] : one.stride[1];
        m->at = p->apart ? p->at[side] : NULL;
    }
    if (!p->apart)
        return;
    p->table = whole(r, SW_I64, DENSE, SHAPE(p->groups), 0, 0);
    for (int side = 0; side < 2; side++) {
        sw_device *d = r->device[side];
        if (d->put(d, p->table->t[side].data, p->at[side], (size_t)p->groups * sizeof(void *)))
            fail_msg("%s", sw_error());
        p->w_of[side].table = p->table->t[side].data;
    }
    p->table->expected = true; /* addresses differ */
}

static void for_products(rig *r, bool quantised, void (*run)(rig *r, product *p))
{
    static const double factors[][2] = {{1, 0}, {1, 1}, {0.5, 0}, {-2, 0.5}};
    for (int w = 0; w < SW_DTYPE_COUNT; w++) {
        if (!sw_is_float((sw_dtype)w) && !(quantised && sw_is_quantised((sw_dtype)w)))
            continue;
        FOR_FLOATS(x)
            for (size_t i = 0; i < SW_COUNT(sizes); i++) {
                if (sw_is_quantised((sw_dtype)w) && (i + (size_t)w + (size_t)(x - float_types)) % 6)
                    continue;
                const double *f = factors[draw(r, 0, 3)];
                product p = {.rows = sizes[i][0],
                             .in = sizes[i][1],
                             .out = sizes[i][2],
                             .groups = sizes[i][3],
                             .x = *x,
                             .y = draw(r, 0, 1) ? *x : SW_F32,
                             .w = (sw_dtype)w,
                             .apart = draw(r, 0, 1),
                             .alpha = f[0],
                             .beta = f[1]};
                int block = sw_dtypes[w].block;
                p.in = block > 1 ? (p.in + block - 1) / block * block : p.in;
                p.start = starts(r, &p);
                note(r, "x %s [%d, %d], y %s, %d w %s [%d, ..]%s, alpha %g beta %g", sw_dtypes[p.x].name, (int)p.rows, (int)p.in,
                     sw_dtypes[p.y].name, (int)p.groups, sw_dtypes[w].name, (int)p.out, p.apart ? " apart" : "", f[0], f[1]);
                run(r, &p);
                finish(r);
            }
    }
}

static double tolerance(const product *p)
{
    double t = SW_MAX(tolerance_of(p->x), tolerance_of(p->y));
    return sw_is_float(p->w) ? SW_MAX(t, p->w == p->x ? 0 : tolerance_of(p->w)) : t;
}

static array *result(rig *r, const product *p, int64_t width)
{
    layout l = any_rows(r);
    return p->beta != 0 ? normal(r, p->y, l, SHAPE(p->rows, width), 1) : blank(r, p->y, l, SHAPE(p->rows, width));
}

static void forward(rig *r, product *p)
{
    set_matrices(r, p, p->w);
    array *x = normal(r, p->x, any_rows(r), SHAPE(p->rows, p->in), 1), *y = result(r, p, p->out);
    array *bias = draw(r, 0, 1) ? normal(r, draw(r, 0, 1) ? SW_F32 : p->x, DENSE, SHAPE(p->groups, p->out), 1) : NULL;
    RUN(r, grouped_fwd, AT(y), AT(x), &p->w_of[side], AT(bias), AT(p->start), p->alpha, p->beta);
    expect(r, y, tolerance(p), sqrt((double)p->in) + 0.1);
}

static void backward_x(rig *r, product *p)
{
    set_matrices(r, p, p->w);
    array *dy = normal(r, p->x, any_rows(r), SHAPE(p->rows, p->out), 1), *dx = result(r, p, p->in);
    RUN(r, grouped_bwd_x, AT(dx), AT(dy), &p->w_of[side], AT(p->start), p->alpha, p->beta);
    expect(r, dx, tolerance(p), sqrt((double)p->out) + 0.1);
}

static void backward_w(rig *r, product *p)
{
    set_matrices(r, p, SW_F32);
    array *dy = normal(r, p->x, DENSE, SHAPE(p->rows, p->out), 1),
          *x = normal(r, p->w, any_rows(r), SHAPE(p->rows, p->in), 1);
    RUN(r, grouped_bwd_w, &p->w_of[side], AT(dy), AT(x), AT(p->start), p->alpha);
    for (int64_t g = 0; g < (p->apart ? p->groups : 1); g++)
        expect(r, p->matrices[g], p->w == p->x ? 2e-5 : tolerance(p), sqrt((double)p->rows) + 0.1);
}

void case_grouped_fwd(rig *r) { for_products(r, true, forward); }
void case_grouped_bwd_x(rig *r) { for_products(r, true, backward_x); }
void case_grouped_bwd_w(rig *r) { for_products(r, false, backward_w); }

void case_grouped_sum(rig *r)
{
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            for (size_t i = 0; i < SW_COUNT(sizes); i++) {
                product p = {.rows = sizes[i][0], .groups = sizes[i][3]};
                note(r, "%s [%d, %d] in %d groups", sw_dtypes[*t].name, (int)p.rows, (int)sizes[i][1], (int)p.groups);
                array *x = normal(r, *t, l, SHAPE(p.rows, sizes[i][1]), 1), *start = starts(r, &p),
                      *out = normal(r, SW_F32, l, SHAPE(p.groups, sizes[i][1]), 1);
                RUN(r, grouped_sum, AT(out), AT(x), AT(start));
                expect(r, out, 2e-5, sqrt((double)p.rows) + 0.1);
                finish(r);
            }
}
