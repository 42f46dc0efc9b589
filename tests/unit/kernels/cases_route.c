/* Mixtures of experts: who is chosen, with which weight, and where the rows go. */
#include "cases.h"

static const struct {
    const char *what;
    sw_router r;
    bool corrected;
} routers[] = {
    {"softmax", {.score = SW_ROUTE_SOFTMAX, .scale = 1.7}, false},
    {"softmax, normalised", {.score = SW_ROUTE_SOFTMAX, .scale = 1, .normalise = true}, true},
    {"softmax, power 2", {.score = SW_ROUTE_SOFTMAX, .scale = 1, .normalise = true, .power = 2, .eps = .1}, false},
    {"sigmoid", {.score = SW_ROUTE_SIGMOID, .scale = 1}, true},
    {"sigmoid, groups", {.score = SW_ROUTE_SIGMOID, .scale = 2.5, .normalise = true, .eps = 1e-20, .groups = 4, .top_groups = 2}, true},
    {"softmax, groups by two",
     {.score = SW_ROUTE_SOFTMAX, .scale = 1, .normalise = true, .groups = 2, .top_groups = 1, .group_by_two = true}, false},
    {"sqrt of softplus", {.score = SW_ROUTE_SQRT_SOFTPLUS, .scale = 1.5, .normalise = true}, true},
    {"given, sqrt of softplus", {.score = SW_ROUTE_SQRT_SOFTPLUS, .scale = 1, .given = true}, false},
    {"sparsemixer", {.score = SW_ROUTE_SPARSEMIXER, .scale = 1.5, .jitter = .13}, false},
};
static const int64_t sizes[][3] = {/* tokens, experts, choices */ {0, 8, 2}, {1, 8, 1}, {5, 8, 3}, {3, 64, 8}, {70, 128, 8}, {2, 300, 40}};

enum { MIXED, EQUAL, WITHOUT_NUMBERS, LOGITS };
/* Among random ones: many that are equal; some that are NaN or infinite. */
static array *logits_of(rig *r, int kind, int64_t n, int64_t experts)
{
    array *a = kind == EQUAL ? whole(r, SW_F32, DENSE, SHAPE(n, experts), -2, 2) : normal(r, SW_F32, DENSE, SHAPE(n, experts), 2);
    static const double odd[] = {NAN, -INFINITY};
    for (int64_t i = 0; kind == WITHOUT_NUMBERS && i < n; i++)
        for (int j = 0; j < 2; j++)
            put_value(a, i * experts + (j ? draw(r, 1, experts - 1) : draw(r, 0, 1) * draw(r, 0, experts - 1)), odd[i % 2]);
    put_both(r, a);
    return a;
}

static void for_routers(rig *r, void (*run)(rig *r, const sw_router *, bool corrected, int kind, int64_t n, int64_t experts))
{
    for (size_t i = 0; i < SW_COUNT(routers); i++)
        for (size_t k = 0; k < SW_COUNT(sizes); k++)
            for (int kind = MIXED; kind < LOGITS; kind++) {
                sw_router how = routers[i].r;
                how.k = sizes[k][2];
                if (how.groups > 1 && how.k > sizes[k][1] / how.groups * how.top_groups)
                    continue;
                note(r, "%s, %d tokens, %d of %d, logits of kind %d", routers[i].what, (int)sizes[k][0], (int)how.k, (int)sizes[k][1], kind);
                run(r, &how, routers[i].corrected, kind, sizes[k][0], sizes[k][1]);
                finish(r);
            }
}

/* Each token's experts differ, where they are given. */
static array *ids_of(rig *r, const sw_router *how, int64_t n, int64_t experts)
{
    array *ids = blank(r, SW_I32, DENSE, SHAPE(n, how->k));
    for (int64_t i = 0; how->given && i < n * how->k; i++)
        put_value(ids, i, (double)((i / how->k * 5 + i % how->k) % experts));
    if (how->given)
        put_both(r, ids);
    return ids;
}

static int64_t score_rows(const sw_router *how, int64_t n) { return how->score == SW_ROUTE_SPARSEMIXER ? n * how->k : n; }

static void forward(rig *r, const sw_router *how, bool corrected, int kind, int64_t n, int64_t experts)
{
    array *logits = logits_of(r, kind, n, experts), *add = corrected ? normal(r, SW_F32, DENSE, SHAPE(experts), .2) : NULL;
    array *ids = ids_of(r, how, n, experts), *weights = blank(r, SW_F32, DENSE, SHAPE(n, how->k)),
          *scores = blank(r, SW_F32, DENSE, SHAPE(score_rows(how, n), experts));
    RUN(r, route_fwd, AT(ids), AT(weights), AT(scores), AT(logits), AT(add), how);
    expect(r, ids, 0, 0);
    expect(r, weights, 1e-6, 0);
    expect(r, scores, 1e-6, 0);
}

static void backward(rig *r, const sw_router *how, bool corrected, int kind, int64_t n, int64_t experts)
{
    array *logits = logits_of(r, kind == WITHOUT_NUMBERS ? MIXED : kind, n, experts),
          *add = corrected ? normal(r, SW_F32, DENSE, SHAPE(experts), .2) : NULL, *dw = normal(r, SW_F32, DENSE, SHAPE(n, how->k), 1);
    array *ids = ids_of(r, how, n, experts), *weights = blank(r, SW_F32, DENSE, SHAPE(n, how->k)),
          *scores = blank(r, SW_F32, DENSE, SHAPE(score_rows(how, n), experts)), *d = normal(r, SW_F32, DENSE, SHAPE(n, experts), .1);
    sw_device *reference = r->device[REFERENCE];
    ran(r, REFERENCE, "route_fwd", reference->k->route_fwd(NULL, &ids->t[0], &weights->t[0], &scores->t[0], &logits->t[0], add ? &add->t[0] : NULL, how));
    share(r, ids);
    share(r, scores);
    share(r, weights);
    int acc = (int)draw(r, 0, 1);
    RUN(r, route_bwd, AT(d), AT(dw), AT(scores), AT(ids), how, acc);
    expect(r, d, 2e-6, .1);
}

void case_route_fwd(rig *r) { for_routers(r, forward); }
void case_route_bwd(rig *r) { for_routers(r, backward); }

void case_dispatch(rig *r)
{
    static const int64_t shapes[][3] = {/* tokens, choices, experts */ {0, 2, 3}, {1, 1, 1}, {1, 8, 200}, {9, 2, 4}, {300, 4, 16}, {700, 3, 7}};
    for (size_t i = 0; i < SW_COUNT(shapes); i++)
        for (int uneven = 0; uneven < 2; uneven++) {
            const int64_t *s = shapes[i], n = s[0] * s[1];
            note(r, "%d tokens, %d of %d experts%s", (int)s[0], (int)s[1], (int)s[2], uneven ? ", a few of them" : "");
            array *ids = whole(r, SW_I32, DENSE, SHAPE(s[0], s[1]), 0, uneven ? (s[2] - 1) / 4 : s[2] - 1);
            array *start = blank(r, SW_I32, DENSE, SHAPE(s[2] + 1)), *tokens = blank(r, SW_I32, DENSE, SHAPE(n)),
                  *pairs = blank(r, SW_I32, DENSE, SHAPE(n)), *experts = blank(r, SW_I32, DENSE, SHAPE(n)),
                  *places = blank(r, SW_I32, DENSE, SHAPE(s[0], s[1]));
            RUN(r, dispatch, AT(start), AT(tokens), AT(pairs), AT(experts), AT(places), AT(ids));
            expect(r, start, 0, 0);
            expect(r, tokens, 0, 0);
            expect(r, pairs, 0, 0);
            expect(r, experts, 0, 0);
            expect(r, places, 0, 0);
            finish(r);
        }
}

void case_place_keys(rig *r)
{
    static const int64_t shapes[][3] = {/* tokens, places, experts */ {3, 0, 2}, {1, 1, 1}, {9, 18, 4}, {300, 1200, 128}};
    for (size_t i = 0; i < SW_COUNT(shapes); i++) {
        const int64_t *s = shapes[i];
        note(r, "%d places of %d tokens", (int)s[1], (int)s[0]);
        array *of = row_keys(r, s[0]), *tokens = whole(r, SW_I32, DENSE, SHAPE(s[1]), 0, s[0] - 1),
              *experts = whole(r, SW_I32, DENSE, SHAPE(s[1]), 0, s[2] - 1), *keys = blank(r, SW_I64, DENSE, SHAPE(s[1]));
        RUN(r, place_keys, AT(keys), AT(of), AT(tokens), AT(experts));
        expect(r, keys, 0, 0);
        finish(r);
    }
}

void case_gather_sum(rig *r)
{
    static const int64_t shapes[][3] = {/* rows, terms, width */ {0, 2, 5}, {1, 1, 1}, {5, 3, 33}, {40, 8, 64}, {7, 2, 1030}};
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            for (size_t i = 0; i < SW_COUNT(shapes); i++)
                for (int acc = 0; acc < 2; acc++) {
                    const int64_t *s = shapes[i], from = draw(r, 1, 50);
                    note(r, "%s, %d rows of %d, %d terms, acc %d", sw_dtypes[*t].name, (int)s[0], (int)s[2], (int)s[1], acc);
                    array *x = normal(r, *t, l, SHAPE(from, s[2]), 1), *ids = whole(r, SW_I32, DENSE, SHAPE(s[0], s[1]), 0, from - 1);
                    array *y = acc ? normal(r, *t, l, SHAPE(s[0], s[2]), 1) : blank(r, *t, l, SHAPE(s[0], s[2]));
                    RUN(r, gather_sum, AT(y), AT(x), AT(ids), acc);
                    expect(r, y, tolerance_of(*t), 1);
                    finish(r);
                }
}
