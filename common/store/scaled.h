/* Weights that files hold in few bits with scales beside them, shown as the bf16 that they stand for: 8-bit floats with a scale
 * a tensor, a row or a block (DeepSeek 3 and 4, fbgemm, compressed-tensors), and the 4-bit floats of gpt-oss (MXFP4: OCP
 * Microscaling Formats 1.0); those of DeepSeek 4's experts, whose rows lie as they are used, as blocks of SW_MXFP4. Rows are computed when they are read; there is never a second copy of a model. Who can take 8-bit
 * floats and scales themselves finds them in the entry's `coded`. */
#ifndef SW_STORE_SCALED_H
#define SW_STORE_SCALED_H

#include "store/checkpoint.h"

/* Whether this configuration's "quantization_config" is one that is read here; the error names the method. config may be NULL. */
int sw_scaled_check(const cJSON *config) SW_MUST_CHECK;
/* What entry e of c shows itself as: *out is e, one that is made of it and its scales (arena's), or NULL where it is such a scale. */
int sw_scaled_entry(const sw_checkpoint *c, const sw_entry *e, const sw_entry **out, sw_arena *arena) SW_MUST_CHECK;

/* 8-bit floats and what they are multiplied by. */
struct sw_coded {
    const sw_entry *values, *scales; /* scales: dense [matrices, ceil(rows / high), ceil(width / wide)] of a float type or f8_e8m0 */
    int64_t matrices, rows, width;   /* matrices of that shape lie one after the other */
    int64_t high, wide;              /* of a block; those at the edges are cut */
};

static inline int64_t sw_coded_lines(const sw_coded *c) { return (c->rows + c->high - 1) / c->high; } /* rows of scales of a matrix */
static inline int64_t sw_coded_line(const sw_coded *c) { return (c->width + c->wide - 1) / c->wide; }
/* Scales as f32, with `line` from one row of them to the next (sw_coded_line or more; what is between is 0). One that is no
 * finite number is an error. to: [matrices, lines, line]. */
int sw_coded_scales(const sw_coded *c, float *to, int64_t line) SW_MUST_CHECK;
/* Rows [first, first + n) of all the matrices' in f32: each value times its scale. */
int sw_coded_rows(const sw_coded *c, int64_t first, int64_t n, float *to) SW_MUST_CHECK;

#endif
