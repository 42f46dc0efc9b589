/* The reference device: each kernel of kernels.def as plain loops with sums in double, any strides, any type. It is
 * what other devices are compared with, so it is written to be read, one row at a time:
 * load rows as doubles, compute, store. */
#ifndef SW_KERNELS_REFERENCE_H
#define SW_KERNELS_REFERENCE_H

#include "kernels/kernels.h"

#include <assert.h>

#define K(name, args) int ref_##name args;
#include "kernels/kernels.def"
#undef K

/* Where kernels.def says f32 this device takes f64 too: gradients are checked by differences that want more digits. */
static inline bool ref_is_f32(const sw_tensor *t) { return t->dtype == SW_F32 || t->dtype == SW_F64; }
/* Every index but the last, flattened row by row; the length of a row (1 for a tensor without dimensions). */
int64_t ref_rows(const sw_tensor *t);
int64_t ref_width(const sw_tensor *t);
bool ref_same_shape(const sw_tensor *a, const sw_tensor *b);

/* Row r as doubles, from any type; and back, rounded. acc adds to what is there. */
void ref_load(double *to, const sw_tensor *t, int64_t r);
void ref_store(const sw_tensor *t, int64_t r, const double *from, int acc);

/* Value i of a tensor, counted row by row. */
double ref_get(const sw_tensor *t, int64_t i);
void ref_set(const sw_tensor *t, int64_t i, double v);

/* n doubles of temporary space, or NULL. One call a kernel: the next takes the same space. */
double *ref_scratch(sw_stream *s, int64_t n);

/* An activation and its derivative at x. */
double ref_act(int kind, double x);
double ref_act_slope(int kind, double x);

#endif
