#include "cases.h"

typedef struct product {
    int64_t n, in, out;
    sw_dtype x, y, w;
    layout l;
    double alpha, beta;
} product;

static const int64_t sizes[][3] = {/* N, I, O */
                                   {0, 32, 5},    {3, 0, 5},     {1, 1, 1},      {1, 256, 130},
                                   {2, 31, 7},    {5, 64, 1},    {4, 96, 48},    {1, 515, 33},
                                   {17, 33, 257}, {64, 256, 40}, {129, 512, 65}, {33, 768, 130},
                                   {1, 5632, 9}, {2, 2600, 61}};

/* A device may round the weights, or what it multiplies them by, to the coarsest type at hand; sums stay in f32. */
static double tolerance(const product *p)
{
    double t = SW_MAX(tolerance_of(p->x), tolerance_of(p->y));
    return sw_is_float(p->w) ? SW_MAX(t, p->w == p->x ? 0 : tolerance_of(p->w)) : t;
}

static double floor_of(int64_t terms) { return sqrt((double)terms) + 0.1; }

/* Every type of weights with every type of activations; y is of x's type or f32. Of the many types of blocks each takes a third of
 * the sizes in turn, with every type of activations another third. */
static void for_products(rig *r, bool quantised, void (*run)(rig *r, const product *p))
{
    static const double factors[][2] = {{1, 0}, {1, 1}, {0.5, 0}, {-2, 0.5}};
    for (int w = 0; w < SW_DTYPE_COUNT; w++) {
        if (!sw_is_float((sw_dtype)w) && !(quantised && (sw_is_quantised((sw_dtype)w) || sw_is_float8((sw_dtype)w))))
            continue;
        FOR_FLOATS(x)
            for (size_t k = 0; k < SW_COUNT(sizes) * (sw_is_float8((sw_dtype)w) ? 4 : 1); k++) { /* there are many kinds of scales */
                size_t i = k % SW_COUNT(sizes);
                if (sw_is_quantised((sw_dtype)w) && (i + (size_t)w + (size_t)(x - float_types)) % 3)
                    continue;
                const double *f = factors[draw(r, 0, 3)];
                product p = {sizes[i][0],
                             sizes[i][1],
                             sizes[i][2],
                             *x,
                             draw(r, 0, 1) ? *x : SW_F32,
                             (sw_dtype)w,
                             draw(r, 0, 1) ? DENSE : GAPS,
                             f[0],
                             f[1]};
                int block = sw_dtypes[w].block;
                p.in = block > 1 ? (p.in + block - 1) / block * block : p.in;
                note(r, "x %s [%d, %d], y %s, w %s [%d, ..], layout %d, alpha %g beta %g", sw_dtypes[p.x].name,
                     (int)p.n, (int)p.in, sw_dtypes[p.y].name, sw_dtypes[w].name, (int)p.out, (int)p.l, f[0], f[1]);
                run(r, &p);
                finish(r);
            }
    }
}

static array *weights(rig *r, const product *p, double scale)
{
    return sw_is_float8(p->w) ? any_float8(r, p->w, p->l, p->out, p->in) : normal(r, p->w, p->l, SHAPE(p->out, p->in), scale);
}

static array *result(rig *r, sw_dtype t, const product *p, int64_t width)
{
    return p->beta != 0 ? normal(r, t, p->l, SHAPE(p->n, width), 1) : blank(r, t, p->l, SHAPE(p->n, width));
}

static void forward(rig *r, const product *p)
{
    array *x = normal(r, p->x, p->l, SHAPE(p->n, p->in), 1), *w = weights(r, p, 1);
    array *bias = draw(r, 0, 1) ? normal(r, draw(r, 0, 1) ? SW_F32 : p->x, DENSE, SHAPE(p->out), 1) : NULL;
    array *y = result(r, p->y, p, p->out);
    RUN(r, linear_fwd, AT(y), AT(x), AT(w), AT(bias), p->alpha, p->beta);
    expect(r, y, tolerance(p), floor_of(p->in));
}

static void forward_act(rig *r, const product *p)
{
    array *x = normal(r, p->x, p->l, SHAPE(p->n, p->in), 1), *w = weights(r, p, 0.3);
    array *bias = draw(r, 0, 1) ? normal(r, draw(r, 0, 1) ? SW_F32 : p->x, DENSE, SHAPE(p->out), 1) : NULL;
    array *y = blank(r, p->y, p->l, SHAPE(p->n, p->out)), *before = draw(r, 0, 1) ? blank(r, p->y, p->l, SHAPE(p->n, p->out)) : NULL;
    static const sw_act kinds[] = {SW_ACT_RELU, SW_ACT_GELU_TANH, SW_ACT_RELU, SW_ACT_GELU_TANH, SW_ACT_SILU, SW_ACT_GELU};
    int kind = kinds[draw(r, 0, (int)SW_COUNT(kinds) - 1)];
    note(r, "act %d, before %d, bias %d", kind, before != NULL, bias != NULL);
    RUN(r, linear_act_fwd, AT(y), AT(before), AT(x), AT(w), AT(bias), kind);
    expect(r, y, tolerance(p), floor_of(p->in));
    if (before)
        expect(r, before, tolerance(p), floor_of(p->in));
}

static void backward_x(rig *r, const product *p)
{
    array *dy = normal(r, p->x, p->l, SHAPE(p->n, p->out), 1), *w = weights(r, p, 1);
    array *dx = result(r, p->y, p, p->in);
    RUN(r, linear_bwd_x, AT(dx), AT(dy), AT(w), p->alpha, p->beta);
    expect(r, dx, tolerance(p), floor_of(p->out));
}

static void backward_w(rig *r, const product *p)
{
    array *dy = normal(r, p->x, p->l, SHAPE(p->n, p->out), 1), *x = normal(r, p->w, p->l, SHAPE(p->n, p->in), 1);
    array *dw = normal(r, SW_F32, DENSE, SHAPE(p->out, p->in), 1);
    RUN(r, linear_bwd_w, AT(dw), AT(dy), AT(x), p->alpha);
    expect(r, dw, p->w == p->x ? 2e-5 : tolerance(p), floor_of(p->n));
}

/* Many rows by matrices of few columns, LoRA's: the reference sums in f64, so the tolerance is that of what is stored. */
static void for_ranks(rig *r, void (*run)(rig *r, const product *p), bool back)
{
    static const int64_t shapes[][2] = {{256, 128}, {257, 192}, {300, 264}, {256, 520}, {545, 136}};
    static const int64_t ranks[] = {4, 8, 16, 24, 32, 40, 48, 64, 72};
    for (size_t i = 0; i < SW_COUNT(ranks); i++)
        for (const sw_dtype *t = float_types + 1; t < float_types + 3; t++) { /* of 16 bits */
            const int64_t *s = shapes[draw(r, 0, (int64_t)SW_COUNT(shapes) - 1)];
            layout l = (layout[]){DENSE, RUNS, RUNS, GAPS}[draw(r, 0, 3)];
            product p = {s[0], back ? ranks[i] : s[1], back ? s[1] : ranks[i], *t, draw(r, 0, 1) ? *t : SW_F32, *t, l, draw(r, 0, 1) ? 1 : -0.7, 0};
            note(r, "x %s [%d, %d], y %s, w [%d, ..], layout %d, alpha %g", sw_dtypes[*t].name, (int)p.n, (int)p.in, sw_dtypes[p.y].name, (int)p.out, (int)l,
                 p.alpha);
            run(r, &p);
            finish(r);
        }
}

/* What LoRA's way back asks of one dy: dt = dy b, db += dy^T t. */
static void both_ways(rig *r, const product *p)
{
    array *dy = normal(r, p->x, p->l, SHAPE(p->n, p->out), 1), *b = normal(r, p->w, p->l, SHAPE(p->out, p->in), 1);
    array *t = normal(r, p->x, p->l, SHAPE(p->n, p->in), 1), *dt = blank(r, p->y, p->l, SHAPE(p->n, p->in));
    array *db = normal(r, SW_F32, p->l, SHAPE(p->out, p->in), 1);
    RUN(r, linear_bwd_x, AT(dt), AT(dy), AT(b), p->alpha, 0);
    RUN(r, linear_bwd_w, AT(db), AT(dy), AT(t), 0.5);
    expect(r, dt, tolerance(p), floor_of(p->out));
    expect(r, db, 2e-5, floor_of(p->n));
}

void case_linear_fwd(rig *r)
{
    for_products(r, true, forward);
    for_ranks(r, forward, false);
    for_ranks(r, forward, true);
}
void case_linear_act_fwd(rig *r) { for_products(r, true, forward_act); }
void case_linear_bwd_x(rig *r)
{
    for_products(r, true, backward_x);
    for_ranks(r, backward_x, true);
    for_ranks(r, backward_x, false);
}
void case_linear_bwd_w(rig *r)
{
    for_products(r, false, backward_w);
    for_ranks(r, backward_w, false);
    for_ranks(r, backward_w, true);
    for_ranks(r, both_ways, true);
}

void case_linear_heads(rig *r)
{
    static const int64_t shapes[][4] = {{0, 3, 32, 32}, {1, 1, 256, 32}, {1, 5, 32, 256}, {3, 4, 256, 256}, {6, 2, 64, 544}, {13, 3, 96, 64}};
    for (int w = 0; w < SW_DTYPE_COUNT; w++)
        FOR_FLOATS(t)
            for (size_t i = 0; i < 2 * SW_COUNT(shapes); i++) {
                const int64_t *s = shapes[i / 2], across = (int64_t)i % 2, width = s[across ? 3 : 2];
                if ((!sw_is_quantised((sw_dtype)w) && !sw_is_float((sw_dtype)w)) || width % sw_dtypes[w].block)
                    continue;
                bool adds = draw(r, 0, 1);
                note(r, "%s by %s [%d, %d, %d -> %d]%s", sw_dtypes[*t].name, sw_dtypes[w].name, (int)s[0], (int)s[1], (int)s[2], (int)s[3],
                     across ? ", across" : "");
                array *x = normal(r, *t, GAPS, SHAPE(s[0], s[1], s[2]), 1);
                array *m = normal(r, (sw_dtype)w, DENSE, SHAPE(s[1], across ? s[2] : s[3], width), 1);
                array *y = adds ? normal(r, *t, GAPS, SHAPE(s[0], s[1], s[3]), 1) : blank(r, *t, GAPS, SHAPE(s[0], s[1], s[3]));
                RUN(r, linear_heads, AT(y), AT(x), AT(m), (int)across, 0.7, adds ? 1.3 : 0);
                expect(r, y, SW_MAX(tolerance_of(*t), sw_is_quantised((sw_dtype)w) ? tolerance_of(*t) : tolerance_of((sw_dtype)w)), sqrt((double)s[2]));
                finish(r);
            }
}
