#include "cases.h"

static const int64_t shapes[][2] = {{0, 7}, {1, 1}, {3, 2}, {5, 33}, {2, 1000}, {33, 257}, {4, 50021}};

void case_xent_fwd(rig *r)
{
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            for (size_t i = 0; i < SW_COUNT(shapes); i++) {
                const int64_t *s = shapes[i];
                bool all = draw(r, 0, 2) > 0;
                note(r, "%s [%d, %d]%s", sw_dtypes[*t].name, (int)s[0], (int)s[1], all ? "" : " logp alone");
                array *logits = normal(r, *t, l, 2, s, 4), *targets = whole(r, SW_I32, DENSE, 1, s, -1, s[1] - 1);
                array *logp = blank(r, SW_F32, DENSE, 1, s), *lse = blank(r, SW_F32, DENSE, 1, s);
                array *mean = all ? blank(r, SW_F32, DENSE, 1, s) : NULL,
                      *best = all ? blank(r, SW_I32, DENSE, 1, s) : NULL;
                if (s[0] == 3) { /* far from 0, and equal: the first is best */
                    for (int64_t k = 0; k < 6; k++)
                        set_value(r, logits, k, k < 2 ? 5000 : k < 4 ? -5000 : (double)k);
                }
                if (s[0] == 5) /* a masked token */
                    set_value(r, logits, 40, -INFINITY);
                RUN(r, xent_fwd, AT(logp), AT(mean), AT(lse), AT(best), AT(logits), AT(targets));
                expect(r, logp, 1e-5, 1);
                expect(r, lse, 1e-5, 1);
                if (all) {
                    expect(r, mean, 1e-5, 1);
                    expect(r, best, 0, 0);
                }
                finish(r);
            }
}

void case_xent_bwd(rig *r)
{
    FOR_FLOATS(t)
        FOR_FLOATS(td)
            FOR_LAYOUTS(l, GAPS)
                for (size_t i = 0; i < SW_COUNT(shapes); i++) {
                    const int64_t *s = shapes[i];
                    bool with_mean = draw(r, 0, 1);
                    note(r, "%s to %s [%d, %d]%s", sw_dtypes[*t].name, sw_dtypes[*td].name, (int)s[0], (int)s[1],
                         with_mean ? " with mean" : "");
                    array *logits = normal(r, *t, l, 2, s, 2), *targets = whole(r, SW_I32, DENSE, 1, s, -1, s[1] - 1);
                    array *logp = blank(r, SW_F32, DENSE, 1, s), *lse = blank(r, SW_F32, DENSE, 1, s);
                    RUN(r, xent_fwd, AT(logp), NULL, AT(lse), NULL, AT(logits), AT(targets));
                    share(r, lse);
                    logp->expected = true;
                    array *dlogp = normal(r, SW_F32, DENSE, 1, s, 1),
                          *dmean = with_mean ? normal(r, SW_F32, DENSE, 1, s, 1) : NULL;
                    array *d = blank(r, *td, l, 2, s);
                    RUN(r, xent_bwd, AT(d), AT(logits), AT(lse), AT(targets), AT(dlogp), AT(dmean));
                    expect(r, d, tolerance_of(*td), 1e-2);
                    if (*t == *td) {
                        RUN(r, xent_bwd, AT(logits), AT(logits), AT(lse), AT(targets), AT(dlogp), AT(dmean));
                        expect(r, logits, tolerance_of(*td), 1e-2);
                    }
                    finish(r);
                }
}

void case_adamw(rig *r)
{
    static const int64_t sizes[] = {0, 1, 7, 64, 1001, 40000};
    static const int64_t steps[] = {1, 2, 1000};
    for (int low_type = 0; low_type < 3; low_type++)
        for (size_t i = 0; i < SW_COUNT(sizes); i++)
            for (size_t k = 0; k < SW_COUNT(steps); k++) {
                sw_adamw o = {.lr = 1e-2,
                              .beta1 = 0.9,
                              .beta2 = 0.999,
                              .eps = 1e-8,
                              .decay = 0.1,
                              .grad_scale = 0.5,
                              .step = steps[k]};
                note(r, "[%d] step %d, copy %s", (int)sizes[i], (int)steps[k],
                     low_type ? sw_dtypes[float_types[low_type]].name : "none");
                array *p = normal(r, SW_F32, DENSE, 1, sizes + i, 1), *g = normal(r, SW_F32, DENSE, 1, sizes + i, 1);
                array *m = normal(r, SW_F32, DENSE, 1, sizes + i, 0.1),
                      *v = whole(r, SW_F32, DENSE, 1, sizes + i, 0, 3);
                array *low = low_type ? blank(r, float_types[low_type], DENSE, 1, sizes + i) : NULL;
                RUN(r, adamw, AT(p), AT(low), AT(g), AT(m), AT(v), &o);
                expect(r, p, 3e-6, 0.1);
                expect(r, m, 1e-6, 0.1);
                expect(r, v, 1e-6, 0.1);
                if (low)
                    expect(r, low, tolerance_of(float_types[low_type]), 0.1);
                finish(r);
            }
}

static const sw_draw settings[] = {
    {.temperature = 0, .top_p = 1},
    {.temperature = 1, .top_p = 1},
    {.temperature = 0.3, .top_p = 1, .want_logp = 1},
    {.temperature = 5, .top_p = 1},
    {.temperature = 1, .top_p = 0.7, .want_logp = 1},
    {.temperature = 2, .top_p = 0.01},
    {.temperature = 1, .top_p = 0},
    {.temperature = 1, .top_p = 1, .top_k = 1},
    {.temperature = 3, .top_p = 1, .top_k = 5},
    {.temperature = 2, .top_p = 0.9, .top_k = 40, .min_p = 0.01, .want_logp = 1},
    {.temperature = 2, .top_p = 1, .min_p = 0.2},
    {.temperature = 1, .top_p = 1, .min_p = 1},
    {.temperature = 4, .top_p = 1, .top_k = 100000},
    {.temperature = 0, .top_p = 1, .want_logp = 1},
};

/* Rows that differ in all they may; the logits are whole numbers where many are to be equal. */
static void draws(rig *r, int64_t rows, int64_t vocab, bool equal, bool penalties)
{
    enum { SEEN = 6 };
    note(r, "[%d, %d]%s%s", (int)rows, (int)vocab, equal ? " equal ones" : "", penalties ? " penalties" : "");
    array *logits = equal ? whole(r, SW_F32, GAPS, SHAPE(rows, vocab), -4, 4) : normal(r, SW_F32, GAPS, SHAPE(rows, vocab), 3);
    array *how = blank(r, SW_U8, DENSE, SHAPE(rows, sizeof(sw_draw))), *out = blank(r, SW_F64, DENSE, SHAPE(rows, 2));
    array *seen = blank(r, SW_I32, DENSE, SHAPE(penalties ? rows * SEEN : 0, 2));
    for (int64_t i = 0; i < rows; i++) {
        sw_draw d = settings[i % (int64_t)SW_COUNT(settings)];
        d.forced = i == 3 && vocab > 5 ? 5 : -1;
        d.rng = (sw_rng){77, (uint32_t)draw(r, 0, 3), sw_rng_site("sample")};
        d.place = (uint64_t)draw(r, 0, 1000);
        d.repetition_penalty = penalties && i % 3 ? 1.3 : 1;
        d.presence_penalty = penalties ? 0.75 : 0;
        d.frequency_penalty = penalties && i % 2 ? 0.4 : 0;
        d.seen_first = penalties ? (int32_t)i * SEEN : 0;
        d.seen_count = penalties ? (int32_t)SW_MIN(SEEN, vocab) : 0;
        for (int32_t k = 0; k < d.seen_count; k++) {
            put_value(seen, 2 * (d.seen_first + k), (double)((k * 31 + i) % vocab < vocab && vocab > 200 ? (k * 31 + i) % vocab : k));
            put_value(seen, 2 * (d.seen_first + k) + 1, (double)draw(r, 0, 2));
        }
        for (size_t b = 0; b < sizeof d; b++)
            put_value(how, i * (int64_t)sizeof d + (int64_t)b, ((const unsigned char *)&d)[b]);
        if (i == 1 && vocab > 30) /* a masked token, and the best one twice */
            put_value(logits, i * vocab + 7, -INFINITY);
    }
    put_both(r, how);
    put_both(r, seen);
    put_both(r, logits);
    RUN(r, sample, AT(out), AT(logits), AT(how), AT(seen));
    expect(r, out, 1e-12, 1);
    expect(r, logits, 1e-7, 0.1);
    finish(r);
}

void case_sample(rig *r)
{
    static const int64_t vocabularies[] = {1, 2, 31, 300, 5003};
    for (size_t v = 0; v < SW_COUNT(vocabularies); v++)
        for (int kind = 0; kind < 4; kind++)
            draws(r, kind ? (int64_t)SW_COUNT(settings) * 2 : v % 2, vocabularies[v], kind & 1, kind & 2);
}
