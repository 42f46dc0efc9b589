#include "cases.h"
#include "kernels/blocks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 32, LARGEST = 32512 };

/* The rows of x as a device's table `rounding` may take them (kernels.h), and how far each value may be from the true
 * one. */
static void round_rows(array *to, array *error, const array *x)
{
    float *q = to->t[REFERENCE].data, *e = error->t[REFERENCE].data;
    for (int64_t i = 0; i < sw_numel(&x->t[0]); i += BLOCK) {
        float most = 0;
        for (int j = 0; j < BLOCK; j++)
            most = fmaxf(most, fabsf((float)value_at(x, i + j)));
        bool none = most < 0x1p-100f; /* taken for zeros */
        float unit = none ? 0 : most / LARGEST, up = none ? 0 : LARGEST / most;
        for (int j = 0; j < BLOCK; j++) {
            volatile float v = (float)value_at(x, i + j) * up; /* rounded twice, as the kernel does */
            q[i + j] = rintf(v) * unit;
            e[i + j] = none ? most : unit * 0.5001f;
        }
    }
}

/* |w| as f32. */
static void sizes_of(array *to, const array *w)
{
    int64_t rows = w->t[0].shape[0], in = w->t[0].shape[1];
    float *f = to->t[REFERENCE].data;
    for (int64_t r = 0; r < rows; r++, f += in) {
        const char *at = w->t[REFERENCE].data;
        assert_int_equal(
            sw_block_decode(f, at + sw_dtype_bytes(w->t[0].dtype, r * w->t[0].stride[0]), w->t[0].dtype, in), 0);
        for (int64_t i = 0; i < in; i++)
            f[i] = fabsf(f[i]);
    }
}

static int product(rig *r, const sw_kernels *k, int side, array *y, const sw_tensor *x, const array *w,
                   const array *bias, const double *f)
{
    return k->linear_fwd(r->device[side]->stream, &y->t[side], x, &w->t[side], bias ? &bias->t[side] : NULL, f[0],
                         f[1]);
}

/* Each row of x alone gives the bits that it gives among others. */
static void rows_alone(rig *r, const sw_kernels *k, const array *y, const array *x, const array *w, const array *bias,
                       const double *f)
{
    array *alone = blank(r, y->t[0].dtype, DENSE, SHAPE(1, y->t[0].shape[1]));
    for (int64_t i = 0; i < x->t[0].shape[0] && f[1] == 0; i++) {
        sw_tensor one = sw_row_view(&x->t[TESTED], i, 1), among = sw_row_view(&y->t[TESTED], i, 1);
        assert_int_equal(product(r, k, TESTED, alone, &one, w, bias, f), 0);
        if (memcmp(alone->t[TESTED].data, among.data, sw_tensor_bytes(&alone->t[TESTED])))
            fail_msg("%s (%s): row %d alone gives other bits", r->device[TESTED]->description, r->note, (int)i);
    }
    alone->expected = true;
}

static void one_product(rig *r, const sw_kernels *k, sw_dtype type, sw_dtype x_type, int64_t n, int64_t in, int64_t out)
{
    static const double factors[][2] = {{1, 0}, {1, 1}, {0.5, 0}, {-2, 0.5}};
    const double *f = factors[draw(r, 0, 3)], once[2] = {1, 0};
    layout l = draw(r, 0, 1) ? DENSE : GAPS;
    sw_dtype y_type = draw(r, 0, 1) ? x_type : SW_F32;
    note(r, "w %s [%d, %d], x %s [%d, ..], y %s, layout %d, alpha %g beta %g", sw_dtypes[type].name, (int)out, (int)in,
         sw_dtypes[x_type].name, (int)n, sw_dtypes[y_type].name, (int)l, f[0], f[1]);
    array *x = normal(r, x_type, l, SHAPE(n, in), 3), *w = normal(r, type, l, SHAPE(out, in), 1);
    array *bias = draw(r, 0, 1) ? normal(r, SW_F32, DENSE, SHAPE(out), 1) : NULL;
    array *y = f[1] != 0 ? normal(r, y_type, l, SHAPE(n, out), 1) : blank(r, y_type, l, SHAPE(n, out));
    array *x_rounded = blank(r, SW_F32, DENSE, SHAPE(n, in)), *error = blank(r, SW_F32, DENSE, SHAPE(n, in));
    if (n && in) { /* a block of zeros, one of tiny values, and one value that dwarfs the others */
        for (int64_t i = 0; i < BLOCK; i++) {
            put_value(x, i, 0);
            put_value(x, n * in - 1 - i, 1e-38);
        }
        put_value(x, n * in / 2, -1e4);
        put_both(r, x);
    }
    round_rows(x_rounded, error, x);
    assert_int_equal(product(r, r->device[REFERENCE]->k, REFERENCE, y, &x_rounded->t[REFERENCE], w, bias, f), 0);
    ran(r, TESTED, "linear_fwd, rounding", product(r, k, TESTED, y, &x->t[TESTED], w, bias, f));
    expect(r, y, tolerance_of(y_type), sqrt((double)in) + 0.1);
    rows_alone(r, k, y, x, w, bias, f);
    /* how far it is from the exact product: half a unit of each block at most */
    array *exact = blank(r, SW_F32, DENSE, SHAPE(n, out)), *got = blank(r, SW_F32, DENSE, SHAPE(n, out));
    array *bound = blank(r, SW_F32, DENSE, SHAPE(n, out)), *size = blank(r, SW_F32, DENSE, SHAPE(out, in));
    sizes_of(size, w);
    assert_int_equal(product(r, r->device[REFERENCE]->k, REFERENCE, exact, &x->t[REFERENCE], w, NULL, once), 0);
    assert_int_equal(product(r, r->device[REFERENCE]->k, REFERENCE, bound, &error->t[REFERENCE], size, NULL, once), 0);
    assert_int_equal(product(r, k, TESTED, got, &x->t[TESTED], w, NULL, once), 0);
    for (int64_t i = 0; i < n * out; i++) {
        float at[3] = {((float *)exact->t[REFERENCE].data)[i], ((float *)got->t[TESTED].data)[i],
                       ((float *)bound->t[REFERENCE].data)[i]};
        if (!(fabsf(at[0] - at[1]) <= at[2] + 1e-4f * fabsf(at[0]) + 1e-3f))
            fail_msg("%s (%s): %g, exactly %g, may be off by %g", r->device[TESTED]->description, r->note, at[1], at[0],
                     at[2]);
    }
    array *made[] = {x_rounded, error, exact, got, bound, size};
    for (size_t i = 0; i < SW_COUNT(made); i++)
        made[i]->expected = true;
    finish(r);
}

static void not_finite(rig *r, const sw_kernels *k, sw_dtype type)
{
    static const double values[] = {NAN, INFINITY, -INFINITY};
    for (size_t v = 0; v < SW_COUNT(values); v++) {
        note(r, "w %s, x has %g", sw_dtypes[type].name, values[v]);
        array *x = normal(r, SW_F32, DENSE, SHAPE(2, 512), 1), *w = normal(r, type, DENSE, SHAPE(3, 512), 1);
        array *y = blank(r, SW_F32, DENSE, SHAPE(2, 3));
        set_value(r, x, 512 + draw(r, 0, 511), values[v]);
        ran(r, TESTED, "linear_fwd, rounding", product(r, k, TESTED, y, &x->t[TESTED], w, NULL, (double[]){1, 0}));
        for (int i = 0; i < 6; i++)
            assert_int_equal(isfinite(((float *)y->t[TESTED].data)[i]) != 0, i < 3);
        y->expected = true;
        finish(r);
    }
}

/* Rows in two groups give what products of each give. */
static void in_groups(rig *r, const sw_kernels *k, sw_dtype type)
{
    enum { ROWS = 14, FIRST = 3, IN = 512, OUT = 21 };
    note(r, "w %s, in groups", sw_dtypes[type].name);
    array *x = normal(r, SW_BF16, DENSE, SHAPE(ROWS, IN), 1), *w = normal(r, type, DENSE, SHAPE(2, OUT, IN), 1),
          *start = whole(r, SW_I32, DENSE, SHAPE(3), 0, 0), *y = blank(r, SW_F32, DENSE, SHAPE(ROWS, OUT)),
          *each = blank(r, SW_F32, DENSE, SHAPE(ROWS, OUT));
    put_value(start, 1, FIRST);
    put_value(start, 2, ROWS);
    put_both(r, start);
    sw_device *d = r->device[TESTED];
    sw_matrices m = {
        .one = sw_tensor_of(w->t[TESTED].data, type, 2, (int64_t[]){OUT, IN}), .count = 2, .step = (int64_t)OUT * IN};
    ran(r, TESTED, "grouped_fwd, rounding",
        k->grouped_fwd(d->stream, &y->t[TESTED], &x->t[TESTED], &m, NULL, &start->t[TESTED], 1, 0));
    for (int64_t g = 0; g < 2; g++) {
        int64_t first = g ? FIRST : 0, n = g ? ROWS - FIRST : FIRST;
        sw_tensor to = sw_row_view(&each->t[TESTED], first, n), from = sw_row_view(&x->t[TESTED], first, n),
                  one = sw_matrix(&m, g);
        ran(r, TESTED, "linear_fwd, rounding", k->linear_fwd(d->stream, &to, &from, &one, NULL, 1, 0));
    }
    assert_memory_equal(y->t[TESTED].data, each->t[TESTED].data, ROWS * OUT * sizeof(float));
    y->expected = each->expected = true;
    finish(r);
}

void rounded_products(rig *r)
{
    static const int64_t sizes[][3] = {{1, 256, 130}, {2, 512, 7},  {3, 0, 5},    {0, 256, 4},
                                       {5, 768, 33},  {8, 256, 48}, {9, 512, 16}, {17, 256, 65}};
    static const int64_t rests[][3] = {
        {1, 32, 5}, {1, 576, 49}, {4, 96, 17}, {3, 192, 40}, {6, 1504, 18}}; /* for blocks of 32 */
    const sw_kernels *k = r->device[TESTED]->rounding;
    assert_non_null(k);
    static const sw_dtype types[] = {SW_Q4_0, SW_Q4_1, SW_Q5_0, SW_Q5_1, SW_Q8_0, SW_Q4_K, SW_Q5_K, SW_Q6_K}; /* others: exactly */
    for (size_t t = 0; t < SW_COUNT(types); t++) {
        const sw_dtype type = types[t];
        FOR_FLOATS(x) {
            for (size_t i = 0; i < SW_COUNT(sizes); i++)
                one_product(r, k, type, *x, sizes[i][0], sizes[i][1], sizes[i][2]);
            for (size_t i = 0; sw_dtypes[type].block == BLOCK && i < SW_COUNT(rests); i++)
                one_product(r, k, type, *x, rests[i][0], rests[i][1], rests[i][2]);
        }
        not_finite(r, k, type);
        in_groups(r, k, type);
    }
}

/* ---- 8-bit floats on a GPU */

/* The nearest value that an e4m3 has; of two as near, the one whose code is even. */
static float nearest_e4m3(float v)
{
    float best = NAN;
    int at = 0;
    for (int code = 0; code < 127; code++) {
        uint8_t byte = (uint8_t)code;
        float value = (float)sw_scalar_get(&byte, SW_F8_E4M3, 0), far = fabsf(fabsf(v) - value), least = fabsf(fabsf(v) - best);
        if (isnan(best) || far < least || (far == least && at % 2)) {
            best = value;
            at = code;
        }
    }
    return copysignf(best, v);
}

/* The rows of x as the device may take them: a scale for each `span` values of a row. */
static void round_float8(array *to, const array *x, int64_t span)
{
    float *q = to->t[REFERENCE].data;
    int64_t rows = x->t[0].shape[0], in = x->t[0].shape[1];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < in; c += span) {
            int64_t end = SW_MIN(c + span, in);
            float most = 0;
            for (int64_t i = c; i < end; i++)
                most = fmaxf(most, fabsf((float)value_at(x, r * in + i)));
            for (int64_t i = c; i < end; i++)
                q[r * in + i] = most < 0x1p-100f ? 0 : nearest_e4m3((float)value_at(x, r * in + i) * (448 / most)) * (most / 448);
        }
}

static const struct float8_kind {
    int64_t high, wide; /* of float8() */
    int64_t span;       /* of the values of x that share a scale; 0: nothing is rounded */
    int oldest, newest; /* compute capabilities that round */
} float8_kinds[] = {{-1, 0, INT64_MAX, 89, 999}, {0, 0, INT64_MAX, 89, 999}, {1, 0, INT64_MAX, 89, 999}, {128, 128, 128, 90, 99}, {64, 256, 0, 999, 0}};

static void one_float8(rig *r, const struct float8_kind *kind, int capability, sw_dtype x_type, sw_dtype w_type, const int64_t *size)
{
    const double f[2] = {draw(r, 0, 1) ? 1 : -2, draw(r, 0, 1) ? 0 : 0.5};
    const int64_t high = kind->high, wide = kind->wide;
    if (wide >= size[1]) /* one for all of a row is one a row, whatever it is called */
        kind = &float8_kinds[2];
    bool whole = size[1] % 16 == 0 && size[2] % 16 == 0 && w_type == SW_F8_E4M3; /* what tensor cores take */
    int64_t span = whole && capability >= kind->oldest && capability <= kind->newest ? kind->span : 0;
    note(r, "capability %d: w %s [%d, %d], blocks of %d x %d, x %s [%d, ..], alpha %g beta %g", capability, sw_dtypes[w_type].name, (int)size[2],
         (int)size[1], (int)high, (int)wide, sw_dtypes[x_type].name, (int)size[0], f[0], f[1]);
    array *x = normal(r, x_type, GAPS, SHAPE(size[0], size[1]), 3), *w = float8(r, w_type, DENSE, size[2], size[1], high, wide);
    array *bias = draw(r, 0, 1) ? normal(r, x_type, DENSE, SHAPE(size[2]), 1) : NULL;
    array *y = f[1] != 0 ? normal(r, SW_F32, GAPS, SHAPE(size[0], size[2]), 1) : blank(r, SW_F32, GAPS, SHAPE(size[0], size[2]));
    array *rounded = blank(r, SW_F32, DENSE, SHAPE(size[0], size[1]));
    for (int64_t i = 0; size[0] && i < 16; i++)
        put_value(x, i, i % 2 ? 0 : i == 8 ? -1e3 : 1e-3);
    put_both(r, x);
    if (span)
        round_float8(rounded, x, span);
    ran(r, REFERENCE, "linear_fwd", product(r, r->device[REFERENCE]->k, REFERENCE, y, span ? &rounded->t[REFERENCE] : &x->t[REFERENCE], w, bias, f));
    ran(r, TESTED, "linear_fwd, rounding", product(r, r->device[TESTED]->rounding, TESTED, y, &x->t[TESTED], w, bias, f));
    expect(r, y, span || x_type == SW_F32 ? 2e-5 : tolerance_of(x_type), sqrt((double)size[1]) + 0.1);
    rounded->expected = true;
    finish(r);
}

/* A row of x with a NaN or infinity gives no finite numbers, the others do. */
static void float8_not_finite(rig *r, int64_t rows)
{
    static const double values[] = {NAN, INFINITY, -INFINITY};
    for (size_t v = 0; v < SW_COUNT(values); v++)
        for (int64_t high = 0; high <= 128; high += 128) {
            note(r, "x has %g", values[v]);
            array *x = normal(r, SW_BF16, DENSE, SHAPE(rows, 256), 1), *w = float8(r, SW_F8_E4M3, DENSE, 128, 256, high, high);
            array *y = blank(r, SW_F32, DENSE, SHAPE(rows, 128));
            set_value(r, x, 256 + draw(r, 0, 255), values[v]);
            ran(r, TESTED, "linear_fwd, rounding", product(r, r->device[TESTED]->rounding, TESTED, y, &x->t[TESTED], w, NULL, (double[]){1, 0}));
            float *got = SW_NEW_ARRAY(float, (size_t)rows * 128);
            assert_int_equal(r->device[TESTED]->get(r->device[TESTED], got, y->t[TESTED].data, (size_t)rows * 128 * sizeof *got), 0);
            for (int64_t i = 0; i < rows * 128; i++)
                assert_int_equal(isfinite(got[i]) != 0, i / 128 != 1);
            free(got);
            y->expected = true;
            finish(r);
        }
}

/* On GPUs of several compute capabilities; r's own device gives way to each. */
void rounded_float8(rig *r)
{
    static const int64_t sizes[][3] = {{1, 256, 128}, {8, 144, 48}, {9, 256, 128}, {17, 400, 272}, {32, 16, 16}, {30, 120, 64}, {12, 64, 20}, {0, 16, 16}};
    static const int capabilities[] = {80, 89, 90, 100};
    sw_device *own = r->device[TESTED];
    for (size_t c = 0; c < SW_COUNT(capabilities); c++) {
        char text[8];
        snprintf(text, sizeof text, "%d", capabilities[c]);
        setenv("SWIFT_EMULATOR_CAPABILITY", text, 1);
        sw_device *d = r->device[TESTED] = sw_device_open("emulator");
        assert_non_null(d);
        assert_int_equal(d->rounding != NULL, capabilities[c] >= 89);
        for (size_t k = 0; d->rounding && k < SW_COUNT(float8_kinds); k++)
            for (size_t i = 0; i < SW_COUNT(sizes); i++)
                FOR_FLOATS(x)
                    one_float8(r, &float8_kinds[k], capabilities[c], *x, i == 3 && *x == SW_F16 ? SW_F8_E5M2 : SW_F8_E4M3, sizes[i]);
        if (d->rounding) {
            float8_not_finite(r, 3);
            float8_not_finite(r, 12);
        }
        d->close(d);
    }
    unsetenv("SWIFT_EMULATOR_CAPABILITY");
    r->device[TESTED] = own;
}
