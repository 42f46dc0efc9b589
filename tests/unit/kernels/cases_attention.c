#include "attention_setup.h"

#define ONE(n, m)                                                                                                      \
    1,                                                                                                                 \
    {                                                                                                                  \
        {                                                                                                              \
            0, n, 0, m                                                                                                 \
        }                                                                                                              \
    }

const attention_setup attention_small[] = {
    {"full", 5, 5, 2, 2, 4, 4, ONE(5, 5), 0, 0, 0, false, false, 0, 0},
    {"causal", 6, 6, 2, 2, 4, 4, ONE(6, 6), 1, 0, 0, false, false, 0, 0},
    {"causal, groups, packed", 9, 9, 4, 2, 3, 5, 2, {{0, 4, 0, 4}, {4, 5, 4, 5}}, 1, 0, 0, false, false, 0, 0},
    {"causal, window", 8, 8, 2, 1, 4, 4, ONE(8, 8), 1, 3, 0, false, false, 0, 0},
    {"window both ways", 8, 8, 2, 1, 4, 4, ONE(8, 8), 0, 3, 0, false, false, 0, 0},
    {"soft cap", 5, 5, 2, 2, 4, 4, ONE(5, 5), 1, 0, 1.5, false, false, 0, 0},
    {"alibi", 6, 6, 3, 3, 4, 4, ONE(6, 6), 1, 0, 0, true, false, 0, 0},
    {"sinks, window", 6, 6, 4, 2, 4, 2, ONE(6, 6), 1, 2, 0, false, true, 0, 0},
    {"after a cache", 5, 16, 2, 1, 4, 4, 2, {{0, 2, 0, 7}, {2, 3, 9, 7}}, 1, 4, 0, false, true, 0, 0},
    {"fewer keys than queries", 5, 3, 2, 2, 4, 4, ONE(5, 3), 1, 0, 0, false, true, 0, 0},
    {"all at once", 7, 11, 4, 2, 6, 3, 2, {{0, 3, 4, 7}, {3, 4, 0, 4}}, 1, 5, 2, true, true, 0, 0},
    {"chosen keys", 6, 6, 2, 1, 4, 4, ONE(6, 6), 1, 0, 0, false, false, 0, 1},
    {"chosen keys, all at once", 7, 45, 4, 2, 6, 3, 2, {{0, 3, 4, 40}, {3, 4, 0, 4}}, 1, 36, 2, true, true, 0, 1},
    {0}};

static const attention_setup attention_large[] = {
    {"no rows", 0, 0, 2, 2, 8, 8, 0, {{0}}, 1, 0, 0, false, false, 0, 0},
    {"no queries, no keys, rows of nobody",
     6,
     9,
     2,
     1,
     8,
     8,
     3,
     {{1, 0, 0, 3}, {1, 2, 3, 0}, {3, 2, 4, 4}},
     1,
     0,
     0,
     false,
     false,
     0, 0},
    {"one token", 1, 1, 3, 1, 64, 64, ONE(1, 1), 1, 0, 0, false, false, 0, 0},
    {"causal, 300", 300, 300, 3, 1, 64, 64, ONE(300, 300), 1, 0, 0, false, false, 0, 0},
    {"full, 129 odd", 129, 129, 2, 2, 33, 17, ONE(129, 129), 0, 0, 0, false, false, 0, 0},
    {"causal, window 65", 260, 260, 2, 1, 32, 32, ONE(260, 260), 1, 65, 0, false, true, 0, 0},
    {"window 40 both ways", 200, 200, 2, 1, 32, 32, ONE(200, 200), 0, 40, 0, true, false, 0, 0},
    {"decoding", 3, 700, 4, 2, 128, 128, 3, {{0, 1, 0, 450}, {1, 1, 450, 1}, {2, 1, 451, 249}}, 1, 0, 0, false, false, 0, 0},
    {"decoding, a long context", 1, 1500, 6, 1, 128, 128, ONE(1, 1500), 1, 0, 0, false, true, 0, 0},
    {"decoding, wide heads, window", 2, 900, 8, 2, 256, 200, 2, {{0, 1, 0, 600}, {1, 1, 600, 300}}, 1, 500, 30, false, false, 0, 0},
    {"decoding, narrow heads", 1, 900, 3, 3, 64, 64, ONE(1, 900), 1, 0, 0, false, true, 0, 0},
    {"second part of a prompt", 90, 290, 4, 2, 80, 96, ONE(90, 290), 1, 0, 20, false, false, 0, 0},
    {"packed", 200, 200, 2, 2, 16, 16, 3, {{0, 1, 0, 1}, {1, 130, 1, 130}, {131, 69, 131, 69}}, 1, 0, 0, false, false, 0, 0},
    {"chosen keys, 290", 290, 290, 2, 1, 64, 64, ONE(290, 290), 1, 0, 0, false, false, 0, 10},
    {"chosen keys, wide, packed, words for some", 190, 190, 4, 2, 80, 96, 2, {{0, 60, 0, 60}, {60, 130, 60, 130}}, 1, 0, 0, false, true, 0, 3},
    {"chosen keys, both ways", 150, 150, 2, 1, 32, 32, ONE(150, 150), 0, 40, 0, true, false, 0, 5},
    {"chosen keys, decoding", 3, 700, 4, 1, 128, 128, 3, {{0, 1, 0, 450}, {1, 1, 450, 1}, {2, 1, 451, 249}}, 1, 0, 0, false, false, 0, 15},
    {"second part of a prompt, scaled products", 90, 290, 4, 2, 80, 96, ONE(90, 290), 1, 0, 0, false, false, 0, 0},
    {"packed, window 100, wide", 330, 330, 4, 1, 128, 128, 2, {{0, 130, 0, 130}, {130, 200, 130, 200}}, 1, 100, 0, false, true, 0, 0},
    {"full, wide", 140, 333, 2, 1, 128, 104, ONE(140, 333), 0, 0, 0, false, false, 0, 0},
    {"fewer keys than queries, without sinks", 70, 50, 2, 1, 64, 64, ONE(70, 50), 1, 0, 0, false, false, 0, 0},
    {"wide heads", 70, 70, 2, 1, 256, 256, ONE(70, 70), 1, 0, 50, false, true, 0, 0},
    {0}};

/* Scores by distance. */
const attention_setup attention_biased_small[] = {
    {"bias by distance", 6, 6, 2, 2, 4, 4, ONE(6, 6), 0, 0, 0, false, false, 5, 0},
    {"causal bias, groups, soft cap", 7, 9, 4, 2, 4, 3, 2, {{0, 3, 0, 5}, {3, 4, 5, 4}}, 1, 0, 2, false, false, 7, 0},
    {0}};

static const attention_setup biased_large[] = {
    {"bias, 300", 300, 300, 3, 3, 64, 64, ONE(300, 300), 0, 0, 0, false, false, 257, 0},
    {"bias of few distances, packed, groups", 150, 170, 6, 2, 20, 24, 2, {{0, 81, 0, 101}, {81, 69, 101, 69}}, 1, 0, 0, true, false, 9, 0},
    {"bias, decoding", 2, 400, 4, 2, 64, 64, 2, {{0, 1, 0, 300}, {1, 1, 300, 100}}, 1, 0, 0, false, false, 101, 0},
    {0}};

typedef struct attention_arrays {
    array *q, *k, *v, *seqs, *alibi, *sinks, *bias, *seen, *out, *lse;
    sw_attention a[2];
} attention_arrays;

/* Bits of which keys a query sees: about half of them, stretches of 32, all, none. */
static array *chosen(rig *r, const attention_setup *s)
{
    array *a = whole(r, SW_I32, DENSE, SHAPE(s->rows, s->seen_words), INT32_MIN, INT32_MAX);
    for (int64_t i = 0; i < s->rows; i++)
        for (int64_t w = 0; i % 4 && w < s->seen_words; w++)
            set_value(r, a, i * s->seen_words + w, i % 4 == 1 ? -(w % 2) : i % 4 == 2 ? -1 : 0);
    return a;
}

/* Values of queries are around `level`, those of keys as far below 0. */
static attention_arrays forward_at(rig *r, const attention_setup *s, sw_dtype t, layout l, double level)
{
    attention_arrays x = {.q = normal(r, t, l, SHAPE(s->rows, s->heads, s->width), 1),
                          .k = normal(r, t, l, SHAPE(s->key_rows, s->key_heads, s->width), 1),
                          .v = normal(r, t, l, SHAPE(s->key_rows, s->key_heads, s->value_width), 1),
                          .seqs = blank(r, SW_I32, DENSE, SHAPE(s->count, 4)),
                          .alibi = s->alibi ? normal(r, SW_F32, DENSE, SHAPE(s->heads), 0.1) : NULL,
                          .sinks = s->sinks ? normal(r, SW_F32, DENSE, SHAPE(s->heads), 1) : NULL,
                          .bias = s->span ? normal(r, SW_F32, DENSE, SHAPE(s->heads, s->span), 1) : NULL,
                          .seen = s->seen_words ? chosen(r, s) : NULL,
                          .out = blank(r, t, DENSE, SHAPE(s->rows, s->heads, s->value_width)),
                          .lse = blank(r, SW_F32, DENSE, SHAPE(s->rows, s->heads))};
    for (int64_t i = 0; level != 0 && i < sw_numel(&x.q->t[REFERENCE]); i++)
        put_value(x.q, i, level + value_at(x.q, i) / 4);
    for (int64_t i = 0; level != 0 && i < sw_numel(&x.k->t[REFERENCE]); i++)
        put_value(x.k, i, value_at(x.k, i) / 4 - level);
    put_both(r, x.q);
    put_both(r, x.k);
    for (int i = 0; i < 4 * s->count; i++)
        set_value(r, x.seqs, i, s->seqs[i / 4][i % 4]);
    note(r, "%s, %s, layout %d", s->what, sw_dtypes[t].name, (int)l);
    for (int side = 0; side < 2; side++)
        x.a[side] = (sw_attention){.scale = 1 / sqrt((double)s->width),
                                   .causal = s->causal,
                                   .window = s->window,
                                   .softcap = s->softcap,
                                   .alibi = s->alibi ? x.alibi->t[side].data : NULL,
                                   .sinks = s->sinks ? x.sinks->t[side].data : NULL,
                                   .bias = s->span ? x.bias->t[side].data : NULL,
                                   .bias_span = s->span,
                                   .bias_zero = s->span / 2,
                                   .seen = x.seen ? x.seen->t[side].data : NULL,
                                   .seen_words = s->seen_words};
    RUN(r, attention_fwd, AT(x.out), AT(x.lse), AT(x.q), AT(x.k), AT(x.v), AT(x.seqs), &x.a[side]);
    return x;
}
static attention_arrays forward(rig *r, const attention_setup *s, sw_dtype t, layout l) { return forward_at(r, s, t, l, 0); }

static void check_forward(rig *r, const attention_setup *s, sw_dtype t, layout l)
{
    attention_arrays x = forward(r, s, t, l);
    expect(r, x.out, SW_MAX(tolerance_of(t), 2e-5), 0.1);
    expect(r, x.lse, SW_MAX(tolerance_of(t) / 4, 1e-5), 1);
    array *alone = blank(r, t, l, SHAPE(s->rows, s->heads, s->value_width)); /* without lse */
    RUN(r, attention_fwd, AT(alone), NULL, AT(x.q), AT(x.k), AT(x.v), AT(x.seqs), &x.a[side]);
    expect(r, alone, SW_MAX(tolerance_of(t), 2e-5), 0.1);
    finish(r);
}

/* Keys and values in pages of 8 rows in any order, some of nobody: what they give where they lie one after the other. */
static void check_paged(rig *r, const attention_setup *s, sw_dtype t, layout l)
{
    enum { BITS = 3 };
    int64_t used = (s->key_rows >> BITS) + 1, pages = used + 3;
    attention_arrays x = forward(r, s, t, l);
    array *k = normal(r, t, l, SHAPE(pages << BITS, s->key_heads, s->width), 1), *v = normal(r, t, l, SHAPE(pages << BITS, s->key_heads, s->value_width), 1);
    array *page = blank(r, SW_I32, DENSE, SHAPE(used)), *rows = blank(r, SW_I32, DENSE, SHAPE(s->key_rows));
    for (int64_t i = 0; i < used; i++)
        put_value(page, i, (double)((i * (pages - 1) + 2) % pages));
    for (int64_t i = 0; i < s->key_rows; i++)
        put_value(rows, i, (double)(((int64_t)value_at(page, i >> BITS) << BITS) + i % (1 << BITS)));
    put_both(r, page);
    put_both(r, rows);
    RUN(r, gather_rows, AT(x.k), AT(k), AT(rows));
    RUN(r, gather_rows, AT(x.v), AT(v), AT(rows));
    RUN(r, attention_fwd, AT(x.out), AT(x.lse), AT(x.q), AT(x.k), AT(x.v), AT(x.seqs), &x.a[side]);
    array *out = blank(r, t, DENSE, SHAPE(s->rows, s->heads, s->value_width)), *lse = blank(r, SW_F32, DENSE, SHAPE(s->rows, s->heads));
    for (int side = 0; side < 2; side++)
        x.a[side].paging = (sw_paging){page->t[side].data, BITS, used << BITS};
    RUN(r, attention_fwd, AT(out), AT(lse), AT(x.q), AT(k), AT(v), AT(x.seqs), &x.a[side]);
    assert_memory_equal(out->t[REFERENCE].data, x.out->t[REFERENCE].data, sw_tensor_bytes(&out->t[REFERENCE]));
    expect(r, out, SW_MAX(tolerance_of(t), 2e-5), 0.1);
    expect(r, lse, SW_MAX(tolerance_of(t) / 4, 1e-5), 1);
    expect(r, x.out, SW_MAX(tolerance_of(t), 2e-5), 0.1);
    expect(r, x.lse, SW_MAX(tolerance_of(t) / 4, 1e-5), 1);
    expect(r, x.k, 0, 0);
    expect(r, x.v, 0, 0);
    finish(r);
}

static void check_backward_at(rig *r, const attention_setup *s, sw_dtype t, layout l, double level)
{
    attention_arrays x = forward_at(r, s, t, l, level);
    share(r, x.out);
    share(r, x.lse);
    array *dout = normal(r, t, l, SHAPE(s->rows, s->heads, s->value_width), 1);
    array *dq = blank(r, t, l, SHAPE(s->rows, s->heads, s->width)),
          *dk = blank(r, t, l, SHAPE(s->key_rows, s->key_heads, s->width));
    array *dv = blank(r, t, l, SHAPE(s->key_rows, s->key_heads, s->value_width));
    array *dsinks = s->sinks ? normal(r, SW_F32, DENSE, SHAPE(s->heads), 1) : NULL;
    array *dbias = s->span ? normal(r, SW_F32, DENSE, SHAPE(s->heads, s->span), 1) : NULL;
    for (int side = 0; side < 2; side++) {
        x.a[side].dsinks = dsinks ? dsinks->t[side].data : NULL;
        x.a[side].dbias = dbias ? dbias->t[side].data : NULL;
    }
    RUN(r, attention_bwd, AT(dq), AT(dk), AT(dv), AT(dout), AT(x.out), AT(x.lse), AT(x.q), AT(x.k), AT(x.v), AT(x.seqs),
        &x.a[side]);
    double tolerance = SW_MAX(tolerance_of(t), 4e-5);
    expect(r, dq, tolerance, 0.2);
    expect(r, dk, tolerance, 0.5);
    expect(r, dv, tolerance, 0.5);
    if (dsinks)
        expect(r, dsinks, tolerance, 1);
    if (dbias)
        expect(r, dbias, tolerance, 1);
    finish(r);
}

static void check_backward(rig *r, const attention_setup *s, sw_dtype t, layout l) { check_backward_at(r, s, t, l, 0); }

/* Scores around -16: had keys behind the last one, as 0, probabilities, they would be more than f16 has. */
static void check_low(rig *r)
{
    const attention_setup s = {"full, low scores", 70, 50, 2, 1, 64, 64, ONE(70, 50), 0, 0, 0, false, false, 0, 0};
    FOR_FLOATS(t)
        check_backward_at(r, &s, *t, DENSE, 1.41);
}

typedef void (*check_fn)(rig *r, const attention_setup *s, sw_dtype t, layout l);

static void for_setups(rig *r, check_fn check, const attention_setup *small, const attention_setup *large)
{
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS) {
            for (const attention_setup *s = small; s->what; s++)
                check(r, s, *t, l);
            for (const attention_setup *s = large; s->what; s++)
                if (l == DENSE || s->rows < 200)
                    check(r, s, *t, l);
        }
}

static void for_all(rig *r, check_fn check)
{
    for_setups(r, check, attention_small, attention_large);
    for_setups(r, check, attention_biased_small, biased_large);
}

void case_attention_fwd(rig *r)
{
    for_all(r, check_forward);
    for_all(r, check_paged);
}
void case_attention_bwd(rig *r)
{
    for_all(r, check_backward);
    check_low(r);
}
