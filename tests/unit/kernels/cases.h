/* The kernel test: every kernel of kernels.def, on a device under test beside the reference, with the same bytes.
 *
 * A case makes arrays (each lies on both devices), runs the kernel on both, and says which arrays it expected to
 * change. Arrays may be views with gaps and odd starts. Gaps, and results before they are made, are filled with NaN, so
 * that reading past a row shows in the numbers; after the case every byte that is no expected value must be as it was.
 */
#ifndef SW_TESTS_KERNEL_CASES_H
#define SW_TESTS_KERNEL_CASES_H

#include "base/memory.h"
#include "kernels/kernels.h"

/* cmocka wants these four before it */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

enum { REFERENCE, TESTED };

typedef struct array {
    sw_tensor t[2];
    void *memory[2];
    unsigned char *before; /* the bytes that both devices were given */
    size_t bytes;
    bool expected;
    sw_scales scales[2]; /* of 8-bit floats */
    struct array *scaled_by; /* their memory */
    struct array *next;
} array;

typedef struct rig {
    sw_device *device[2];
    sw_rng rng;
    uint64_t drawn;
    array *arrays;
    char note[160]; /* what of the case is running, for messages */
} rig;

typedef enum layout { DENSE, GAPS, SHUFFLED, RUNS } layout; /* SHUFFLED: any order of strides, gaps too; RUNS: gaps of eight values */

/* Random numbers of a rig: a whole number in [low, high], a normal one. */
int64_t draw(rig *r, int64_t low, int64_t high);
double draw_normal(rig *r);

/* An array of NaN bytes (a result), of normal values times scale (any type; quantised ones get plausible blocks), of
 * whole numbers in [low, high]. */
array *blank(rig *r, sw_dtype t, layout l, int ndim, const int64_t *shape);
array *normal(rig *r, sw_dtype t, layout l, int ndim, const int64_t *shape, double scale);
array *whole(rig *r, sw_dtype t, layout l, int ndim, const int64_t *shape, int64_t low, int64_t high);
/* Keys of rows for random numbers: any record, any place in it; i64 [n], which doubles hold with what kernels add to the record. */
array *row_keys(rig *r, int64_t n);
/* A matrix of 8-bit floats times scales, values around 1: a view of one with more rows and columns, or of one of several, where
 * `l` is not DENSE. Its scales are for blocks of high x wide; 0 x 0: of the whole matrix, 1 x 0: of rows, -1: it has none. */
array *float8(rig *r, sw_dtype t, layout l, int64_t rows, int64_t width, int64_t high, int64_t wide);
/* The same with blocks of any kind. */
array *any_float8(rig *r, sw_dtype t, layout l, int64_t rows, int64_t width);
#define SHAPE(...)                                                                                                     \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (int64_t[]) { __VA_ARGS__ }
/* Value i, counted row by row, of what both devices start from. */
double value_at(const array *a, int64_t i);
void set_value(rig *r, array *a, int64_t i, double v);
/* The same in two steps, for many values. */
void put_value(array *a, int64_t i, double v);
void put_both(rig *r, array *a);
/* What the reference has made of a becomes what both devices have. */
void share(rig *r, array *a);

void note(rig *r, const char *fmt, ...) SW_PRINTF(2, 3);
void ran(rig *r, int side, const char *kernel, int rc);
/* Runs a kernel on both sides; AT(array) is its tensor there, or NULL. */
#define RUN(r, kernel, ...)                                                                                            \
    for (int side = REFERENCE; side <= TESTED; side++)                                                                 \
    ran((r), side, #kernel, (r)->device[side]->k->kernel((r)->device[side]->stream, __VA_ARGS__))
#define AT(a) ((a) ? &(a)->t[side] : NULL)

/* a is a result: |tested - reference| <= tolerance max(largest of its row, floor). Integers must be equal. */
void expect(rig *r, array *a, double tolerance, double floor);
/* The usual tolerance of a type: what one rounding of it, or some tens of f32 ones, may do. */
double tolerance_of(sw_dtype t);
/* Ends a case: what was not expected to change has not. Frees all arrays. */
void finish(rig *r);

/* The same bits from 1, 2 and 3 threads, from the device under test (just twice where threads are not the host's). */
void before_bits(rig *r, array *a, int threads);
void after_bits(rig *r, array *a, int threads, const char *kernel, int rc);
#define SAME_BITS(r, a, kernel, ...)                                                                                   \
    for (int threads = 1, side = TESTED; threads <= 3; threads++) {                                                    \
        before_bits((r), (a), threads);                                                                                \
        after_bits((r), (a), threads, #kernel, (r)->device[side]->k->kernel((r)->device[side]->stream, __VA_ARGS__));  \
    }

extern const sw_dtype float_types[3];
#define FOR_FLOATS(t) for (const sw_dtype *t = float_types; t < float_types + 3; t++)
#define FOR_LAYOUTS(l, last) for (layout l = DENSE; l <= (last); l++)
/* Shapes of rows: none, one, odd, a power of two, many. Ends with {-1}. */
extern const int64_t row_shapes[][2];
#define FOR_SHAPES(s) for (const int64_t(*s)[2] = row_shapes; (*s)[0] >= 0; s++)

#define K(name, args) void case_##name(rig *r);
#include "kernels/kernels.def"
#undef K

/* Gradients of the reference against finite differences, and values known from elsewhere. */
void gradients_elementwise(rig *r);
void gradients_norm(rig *r);
void gradients_rope(rig *r);
void gradients_attention(rig *r);
void gradients_recurrent(rig *r);
void gradients_streams(rig *r);
void gradients_xent(rig *r);
void known_values(rig *r);
/* The products of a device's table `rounding` (kernels.h). */
void rounded_products(rig *r);
void rounded_float8(rig *r); /* of the emulated GPU */

#endif
