#include "cases.h"

/* Wide enough for the flat ends of each function. */
static const double spread = 4;

#define FOR_ACTS(kind) for (int kind = 0; kind < SW_ACT_COUNT; kind++)

/* Work for several threads need not be done for every kind. */
static bool enough(int kind, const int64_t *shape) { return kind != SW_ACT_SILU && shape[0] * shape[1] > 10000; }

/* Where e^x is more than f32 holds; of SW_ACT_EXP itself and its slope, where it is not. */
static double far_of(int kind) { return kind == SW_ACT_EXP ? 80 : 90; }

void case_act_fwd(rig *r)
{
    FOR_ACTS(kind)
        FOR_FLOATS(t)
            FOR_LAYOUTS(l, GAPS)
                FOR_SHAPES(s) {
                    if (enough(kind, *s))
                        continue;
                    note(r, "kind %d %s [%d, %d]", kind, sw_dtypes[*t].name, (int)(*s)[0], (int)(*s)[1]);
                    array *x = normal(r, *t, l, 2, *s, spread), *y = blank(r, *t, l, 2, *s);
                    if ((*s)[0] == 3) {
                        set_value(r, x, 0, -far_of(kind));
                        set_value(r, x, 1, far_of(kind));
                    }
                    RUN(r, act_fwd, AT(y), AT(x), kind);
                    RUN(r, act_fwd, AT(x), AT(x), kind);
                    expect(r, y, tolerance_of(*t), 1);
                    expect(r, x, tolerance_of(*t), 1);
                    finish(r);
                }
}

void case_act_bwd(rig *r)
{
    FOR_ACTS(kind)
        FOR_FLOATS(t)
            FOR_LAYOUTS(l, GAPS)
                FOR_SHAPES(s) {
                    if (enough(kind, *s))
                        continue;
                    int acc = (int)draw(r, 0, 1);
                    note(r, "kind %d %s [%d, %d] acc %d", kind, sw_dtypes[*t].name, (int)(*s)[0], (int)(*s)[1], acc);
                    array *x = normal(r, *t, l, 2, *s, spread), *dy = normal(r, *t, DENSE, 2, *s, 1);
                    array *dx = acc ? normal(r, *t, l, 2, *s, 1) : blank(r, *t, l, 2, *s);
                    if ((*s)[0] == 3) {
                        set_value(r, x, 0, -far_of(kind));
                        set_value(r, x, 1, far_of(kind));
                    }
                    RUN(r, act_bwd, AT(dx), AT(dy), AT(x), kind, acc);
                    expect(r, dx, tolerance_of(*t), 1);
                    finish(r);
                }
}

void case_glu_fwd(rig *r)
{
    FOR_ACTS(kind)
        FOR_FLOATS(t)
            FOR_LAYOUTS(l, GAPS)
                FOR_SHAPES(s) {
                    if (enough(kind, *s))
                        continue;
                    note(r, "kind %d %s [%d, %d]", kind, sw_dtypes[*t].name, (int)(*s)[0], (int)(*s)[1]);
                    array *gate = normal(r, *t, l, 2, *s, spread), *up = normal(r, *t, l, 2, *s, 1),
                          *y = blank(r, *t, DENSE, 2, *s);
                    array *over = draw(r, 0, 1) ? gate : up;
                    RUN(r, glu_fwd, AT(y), AT(gate), AT(up), kind);
                    RUN(r, glu_fwd, AT(over), AT(gate), AT(up), kind);
                    expect(r, y, tolerance_of(*t), 1);
                    expect(r, over, tolerance_of(*t), 1);
                    finish(r);
                }
}

void case_glu_bwd(rig *r)
{
    FOR_ACTS(kind)
        FOR_FLOATS(t)
            FOR_LAYOUTS(l, GAPS)
                FOR_SHAPES(s) {
                    if (enough(kind, *s))
                        continue;
                    note(r, "kind %d %s [%d, %d]", kind, sw_dtypes[*t].name, (int)(*s)[0], (int)(*s)[1]);
                    array *gate = normal(r, *t, l, 2, *s, spread), *up = normal(r, *t, l, 2, *s, 1),
                          *dy = normal(r, *t, DENSE, 2, *s, 1);
                    array *dgate = blank(r, *t, l, 2, *s), *dup = blank(r, *t, l, 2, *s);
                    RUN(r, glu_bwd, AT(dgate), AT(dup), AT(dy), AT(gate), AT(up), kind);
                    RUN(r, glu_bwd, AT(gate), AT(up), AT(dy), AT(gate), AT(up), kind);
                    array *results[] = {dgate, dup, gate, up};
                    for (int i = 0; i < 4; i++)
                        expect(r, results[i], tolerance_of(*t), 1);
                    finish(r);
                }
}

void case_softcap_fwd(rig *r)
{
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            FOR_SHAPES(s) {
                double cap = draw(r, 0, 1) ? 30 : 2.5;
                note(r, "%s [%d, %d] cap %g", sw_dtypes[*t].name, (int)(*s)[0], (int)(*s)[1], cap);
                array *x = normal(r, *t, l, 2, *s, 20), *y = blank(r, *t, l, 2, *s);
                RUN(r, softcap_fwd, AT(y), AT(x), cap);
                RUN(r, softcap_fwd, AT(x), AT(x), cap);
                expect(r, y, tolerance_of(*t), 1);
                expect(r, x, tolerance_of(*t), 1);
                finish(r);
            }
}

void case_softcap_bwd(rig *r)
{
    FOR_FLOATS(t)
        FOR_LAYOUTS(l, GAPS)
            FOR_SHAPES(s)
                for (int acc = 0; acc < 2; acc++) {
                    note(r, "%s [%d, %d] acc %d", sw_dtypes[*t].name, (int)(*s)[0], (int)(*s)[1], acc);
                    array *y = normal(r, *t, l, 2, *s, 3), *dy = normal(r, *t, DENSE, 2, *s, 1);
                    array *dx = acc ? normal(r, *t, l, 2, *s, 1) : blank(r, *t, l, 2, *s);
                    RUN(r, softcap_bwd, AT(dx), AT(dy), AT(y), 30, acc);
                    expect(r, dx, tolerance_of(*t), 1);
                    finish(r);
                }
}
