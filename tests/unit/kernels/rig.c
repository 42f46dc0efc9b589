#include "cases.h"

#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const sw_dtype float_types[3] = {SW_F32, SW_BF16, SW_F16};
const int64_t row_shapes[][2] = {{0, 5},   {1, 1},    {3, 1},   {1, 7},     {5, 16}, {4, 33},
                                 {3, 257}, {2, 1030}, {70, 64}, {37, 1031}, {-1, 0}};

int64_t draw(rig *r, int64_t low, int64_t high)
{
    return low + (int64_t)sw_rng_below(&r->rng, r->drawn++, (uint64_t)(high - low + 1));
}

double draw_normal(rig *r) { return sw_rng_normal(&r->rng, r->drawn++); }

/* Where value i, counted row by row, lies. */
static int64_t place(const sw_tensor *t, int64_t i)
{
    int64_t at = 0;
    for (int d = t->ndim - 1; d >= 0; d--) {
        at += i % t->shape[d] * t->stride[d];
        i /= t->shape[d];
    }
    return at;
}

/* Bytes from the start of an array's memory to its first value: an odd number of values. */
static size_t lead_of(const array *a) { return (size_t)((char *)a->t[0].data - (char *)a->memory[0]); }

void put_both(rig *r, array *a)
{
    for (int side = 0; side < 2; side++)
        if (r->device[side]->put(r->device[side], a->memory[side], a->before, a->bytes))
            fail_msg("%s", sw_error());
}

array *blank(rig *r, sw_dtype t, layout l, int ndim, const int64_t *shape)
{
    const int block = sw_dtypes[t].block;
    array *a = SW_NEW(array);
    sw_tensor v = sw_tensor_of(NULL, t, ndim, shape);
    int order[SW_MAX_DIMS] = {0, 1, 2, 3, 4};
    if (l == SHUFFLED)
        for (int i = ndim - 1; i > 0; i--) {
            int j = (int)draw(r, 0, i), other = order[j];
            order[j] = order[i];
            order[i] = other;
        }
    int64_t stride = 1, piece = l == RUNS ? SW_MAX(8, block) : block;
    for (int i = ndim - 1; i >= 0; i--) {
        v.stride[order[i]] = stride;
        stride = stride * shape[order[i]] + (l == DENSE ? 0 : draw(r, 0, 3) * piece);
    }
    int64_t lead = l == DENSE ? 0 : draw(r, 0, 5) * piece;
    a->bytes = sw_dtype_bytes(t, lead + SW_MAX(stride, 0) + (l == DENSE ? 0 : block));
    a->before = sw_malloc(a->bytes + 1);
    memset(a->before, 0xff, a->bytes);
    for (int side = 0; side < 2; side++) {
        a->memory[side] = r->device[side]->alloc(r->device[side], SW_MAX(a->bytes, 1));
        if (!a->memory[side])
            fail_msg("%s", sw_error());
        a->t[side] = v;
        a->t[side].data = (char *)a->memory[side] + sw_dtype_bytes(t, lead);
    }
    put_both(r, a);
    a->next = r->arrays;
    r->arrays = a;
    return a;
}

/* Random levels under scales that give values around 1. Numbers: bytes from the block's start to its scale and minimum. The scale
 * is half precision but of NVFP4 and MXFP4 (8 bits), IQ1_M (in the upper nibbles of four words) and Q8_K (f32). */
static void fill_blocks(rig *r, array *a, double scale)
{
    static const struct {
        sw_dtype type;
        int scale_at, minimum_at;
        double scale, minimum;
    } kinds[] = {{SW_Q4_0, 0, -1, 1. / 8, 0},         {SW_Q4_1, 0, 2, 1. / 8, -1},         {SW_Q5_0, 0, -1, 1. / 16, 0},
                 {SW_Q5_1, 0, 2, 1. / 16, -1},        {SW_Q8_0, 0, -1, 1. / 128, 0},       {SW_Q2_K, 80, 82, 1. / 24, 1. / 12},
                 {SW_Q3_K, 108, -1, 1. / 64, 0},      {SW_Q4_K, 0, 2, 1. / 512, 1. / 48},  {SW_Q5_K, 0, 2, 1. / 1024, 1. / 48},
                 {SW_Q6_K, 208, -1, 1. / 2048, 0},    {SW_IQ4_NL, 0, -1, 1. / 64, 0},      {SW_IQ4_XS, 0, -1, 1. / 1024, 0},
                 {SW_IQ2_XXS, 0, -1, 1. / 32, 0},     {SW_IQ2_XS, 0, -1, 1. / 32, 0},      {SW_IQ2_S, 0, -1, 1. / 32, 0},
                 {SW_IQ3_XXS, 0, -1, 1. / 96, 0},     {SW_IQ3_S, 0, -1, 1. / 96, 0},       {SW_IQ1_S, 0, -1, 1. / 6, 0},
                 {SW_TQ1_0, 52, -1, 1, 0},            {SW_TQ2_0, 64, -1, 1, 0},            {SW_Q1_0, 0, -1, 1, 0},
                 {SW_Q2_0, 0, -1, 1, 0},              {SW_IQ1_M, -1, -1, 1. / 6, 0},       {SW_MXFP4, -1, -1, 1. / 4, 0},
                 {SW_NVFP4, -1, -1, 1. / 4, 0},       {SW_Q8_K, -1, -1, 1. / 128, 0}};
    size_t kind = 0;
    sw_dtype t = a->t[0].dtype;
    while (kind < SW_COUNT(kinds) && kinds[kind].type != t)
        kind++;
    if (kind == SW_COUNT(kinds))
        fail_msg("%s has no row in kinds[]", sw_dtypes[t].name);
    int block = sw_dtypes[t].block, bytes = sw_dtypes[t].bytes;
    for (int64_t i = 0, n = sw_numel(&a->t[0]); i < n; i += block) {
        unsigned char *b = a->before + lead_of(a) + sw_dtype_bytes(t, place(&a->t[0], i));
        for (int j = 0; j < bytes; j++)
            b[j] = (unsigned char)draw(r, 0, 255);
        float d = (float)(kinds[kind].scale * scale * (1 + 0.01 * (double)draw(r, 0, 50)));
        uint16_t h = sw_f32_to_f16(d);
        if (t == SW_IQ1_M)
            for (int j = 0; j < 4; j++)
                b[49 + 2 * j] = (unsigned char)((b[49 + 2 * j] & 15) | (h >> 4 * j & 15) << 4);
        else if (t == SW_MXFP4)
            b[0] = (unsigned char)(125 + draw(r, -2, 1));
        else if (t == SW_NVFP4)
            for (int j = 0; j < 4; j++)
                b[j] = (unsigned char)(40 + draw(r, -8, 8));
        else if (t == SW_Q8_K)
            memcpy(b, &d, sizeof d);
        else
            memcpy(b + kinds[kind].scale_at, &h, 2);
        h = sw_f32_to_f16((float)(kinds[kind].minimum * scale));
        if (kinds[kind].minimum_at >= 0)
            memcpy(b + kinds[kind].minimum_at, &h, 2);
    }
}

void put_value(array *a, int64_t i, double v)
{
    sw_scalar_set(a->before + lead_of(a), a->t[0].dtype, place(&a->t[0], i), v);
}

array *normal(rig *r, sw_dtype t, layout l, int ndim, const int64_t *shape, double scale)
{
    array *a = blank(r, t, l, ndim, shape);
    if (sw_is_quantised(t))
        fill_blocks(r, a, scale);
    for (int64_t i = 0; !sw_is_quantised(t) && i < sw_numel(&a->t[0]); i++)
        put_value(a, i, scale * draw_normal(r));
    put_both(r, a);
    return a;
}

array *float8(rig *r, sw_dtype t, layout l, int64_t rows, int64_t width, int64_t high, int64_t wide)
{
    bool view = l != DENSE;
    int64_t aligned = wide > 0 ? wide : 1;
    int64_t left = view && wide ? draw(r, 0, 2) * (draw(r, 0, 1) ? aligned : 1) : 0, right = view && wide ? draw(r, 0, 5) : 0;
    int64_t above = view ? draw(r, 0, 9) : 0, below = view ? draw(r, 0, 9) : 0, matrices = view ? draw(r, 1, 3) : 1;
    int64_t m = draw(r, 0, matrices - 1), all = above + rows + below, broad = left + width + right;
    array *a = blank(r, t, DENSE, SHAPE(matrices * all, broad));
    for (size_t i = 0; i < a->bytes; i++) {
        unsigned b = (unsigned)draw(r, 0, 255);
        a->before[i] = (unsigned char)(t == SW_F8_E5M2 ? (b & 0x80) | (30 + b % 40) : (b & 0x7f) == 0x7f ? 0 : b);
    }
    put_both(r, a);
    if (high >= 0 && all > 0 && broad > 0) {
        high = high ? high : all;
        wide = wide ? wide : broad;
        int64_t lines = (all + high - 1) / high, line = ((broad + wide - 1) / wide + 3) / 4 * 4;
        a->scaled_by = blank(r, SW_F32, DENSE, SHAPE(matrices * lines, line));
        for (int64_t i = 0; i < matrices * lines * line; i++)
            put_value(a->scaled_by, i, (t == SW_F8_E5M2 ? 1. : 1. / 64) * (0.5 + (double)draw(r, 0, 100) / 100));
        put_both(r, a->scaled_by);
        for (int side = 0; side < 2; side++) {
            a->scales[side] = (sw_scales){a->scaled_by->t[side].data, a->memory[side], all, broad, high, wide, line};
            a->t[side].scales = &a->scales[side];
        }
    }
    for (int side = 0; side < 2; side++) {
        a->t[side].data = (char *)a->memory[side] + (m * all + above) * broad + left;
        a->t[side].shape[0] = rows;
        a->t[side].shape[1] = width;
    }
    return a;
}

array *any_float8(rig *r, sw_dtype t, layout l, int64_t rows, int64_t width)
{
    static const int64_t kinds[][2] = {{-1, 0}, {0, 0}, {1, 0}, {128, 128}, {128, 128}, {64, 256}, {4, 3}, {1, 16}};
    const int64_t *k = kinds[draw(r, 0, SW_COUNT(kinds) - 1)];
    size_t n = strlen(r->note);
    snprintf(r->note + n, sizeof r->note - n, ", blocks of %d x %d", (int)k[0], (int)k[1]);
    return float8(r, t, l, rows, width, k[0], k[1]);
}

array *whole(rig *r, sw_dtype t, layout l, int ndim, const int64_t *shape, int64_t low, int64_t high)
{
    array *a = blank(r, t, l, ndim, shape);
    for (int64_t i = 0; i < sw_numel(&a->t[0]); i++)
        put_value(a, i, (double)draw(r, low, high));
    put_both(r, a);
    return a;
}

double value_at(const array *a, int64_t i)
{
    return sw_scalar_get(a->before + lead_of(a), a->t[0].dtype, place(&a->t[0], i));
}

void set_value(rig *r, array *a, int64_t i, double v)
{
    put_value(a, i, v);
    put_both(r, a);
}

static unsigned char *bytes_of(rig *r, const array *a, int side)
{
    unsigned char *b = sw_malloc(a->bytes + 1);
    if (r->device[side]->get(r->device[side], b, a->memory[side], a->bytes))
        fail_msg("%s", sw_error());
    return b;
}

void share(rig *r, array *a)
{
    free(a->before);
    a->before = bytes_of(r, a, REFERENCE);
    put_both(r, a);
}

void note(rig *r, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(r->note, sizeof r->note, fmt, args);
    va_end(args);
}

void ran(rig *r, int side, const char *kernel, int rc)
{
    if (rc)
        fail_msg("%s: %s (%s): %s", r->device[side]->description, kernel, r->note, sw_error());
}

double tolerance_of(sw_dtype t) { return t == SW_BF16 ? 1.6e-2 : t == SW_F16 ? 2e-3 : 1e-5; }

/* Fails when bytes that hold no value of a differ from what was there. */
static void check_gaps(rig *r, const array *a, const unsigned char *after)
{
    size_t size = (size_t)sw_dtypes[a->t[0].dtype].bytes, lead = lead_of(a);
    unsigned char *is_value = sw_calloc(a->bytes + 1, 1);
    for (int64_t i = 0, n = sw_numel(&a->t[0]); i < n; i += sw_dtypes[a->t[0].dtype].block)
        memset(is_value + lead + sw_dtype_bytes(a->t[0].dtype, place(&a->t[0], i)), 1, size);
    for (size_t i = 0; i < a->bytes; i++)
        if (!is_value[i] && after[i] != a->before[i])
            fail_msg("%s (%s): byte %zu of %zu, between or around the rows, was written",
                     r->device[TESTED]->description, r->note, i, a->bytes);
    free(is_value);
}

void expect(rig *r, array *a, double tolerance, double floor)
{
    const sw_tensor *t = &a->t[0];
    unsigned char *want = bytes_of(r, a, REFERENCE), *got = bytes_of(r, a, TESTED);
    int64_t n = sw_numel(t), width = t->ndim ? t->shape[t->ndim - 1] : 1;
    bool integer = !sw_is_float(t->dtype) && t->dtype != SW_F64;
    check_gaps(r, a, got);
    for (int64_t row = 0; row < n; row += width) {
        double largest = floor;
        for (int64_t i = row; i < row + width; i++) {
            double x = fabs(sw_scalar_get(want + lead_of(a), t->dtype, place(t, i)));
            largest = isfinite(x) && x > largest ? x : largest;
        }
        for (int64_t i = row; i < row + width; i++) {
            double x = sw_scalar_get(want + lead_of(a), t->dtype, place(t, i));
            double y = sw_scalar_get(got + lead_of(a), t->dtype, place(t, i));
            if (x == y || (isnan(x) && isnan(y)))
                continue;
            if (integer || !(fabs(x - y) <= tolerance * largest))
                fail_msg("%s (%s): value %" PRId64 " of row %" PRId64
                         " is %.9g, reference %.9g (row's largest %.9g, tolerance %g)",
                         r->device[TESTED]->description, r->note, i - row, row / width, y, x, largest, tolerance);
        }
    }
    a->expected = true;
    free(want);
    free(got);
}

void finish(rig *r)
{
    for (array *a = r->arrays, *next; a; a = next) {
        unsigned char *after = a->expected ? NULL : bytes_of(r, a, TESTED);
        if (after && memcmp(after, a->before, a->bytes))
            fail_msg("%s (%s): an input was written", r->device[TESTED]->description, r->note);
        free(after);
        for (int side = 0; side < 2; side++)
            r->device[side]->free(r->device[side], a->memory[side]);
        next = a->next;
        free(a->before);
        free(a);
    }
    r->arrays = NULL;
}

static int all_threads;
static unsigned char *first_bits;

void before_bits(rig *r, array *a, int threads)
{
    if (!all_threads)
        all_threads = omp_get_max_threads();
    omp_set_num_threads(threads);
    if (r->device[TESTED]->put(r->device[TESTED], a->memory[TESTED], a->before, a->bytes))
        fail_msg("%s", sw_error());
}

void after_bits(rig *r, array *a, int threads, const char *kernel, int rc)
{
    omp_set_num_threads(all_threads);
    ran(r, TESTED, kernel, rc);
    a->expected = true;
    unsigned char *bits = bytes_of(r, a, TESTED);
    if (threads == 1) {
        free(first_bits);
        first_bits = bits;
        return;
    }
    if (memcmp(bits, first_bits, a->bytes))
        fail_msg("%s: %s (%s): %d threads give other bits than one", r->device[TESTED]->description, kernel, r->note,
                 threads);
    free(bits);
}
