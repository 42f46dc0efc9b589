/* The tensor that kernels see: a typed, strided view of device memory. It owns nothing.
 *
 * Quantised types are rows of blocks (block_size values in block_bytes bytes along the last dimension), in GGUF's
 * own layouts, so that a mapped file is usable as it lies. shape counts values. */
#ifndef SW_KERNELS_TENSOR_H
#define SW_KERNELS_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SW_MAX_DIMS = 5 };

/* X(enum, name, block size in values, block bytes, GGUF type number or -1) */
#define SW_DTYPES(X)                                                                                                \
    X(SW_F32, "f32", 1, 4, 0)                                                                                       \
    X(SW_F16, "f16", 1, 2, 1)                                                                                       \
    X(SW_BF16, "bf16", 1, 2, 30)                                                                                    \
    X(SW_F64, "f64", 1, 8, 28)                                                                                      \
    X(SW_I8, "i8", 1, 1, 24)                                                                                        \
    X(SW_I16, "i16", 1, 2, 25)                                                                                      \
    X(SW_I32, "i32", 1, 4, 26)                                                                                      \
    X(SW_I64, "i64", 1, 8, 27)                                                                                      \
    X(SW_U8, "u8", 1, 1, -1)                                                                                        \
    X(SW_BOOL, "bool", 1, 1, -1)                                                                                    \
    X(SW_F8_E4M3, "f8_e4m3", 1, 1, -1)                                                                              \
    X(SW_F8_E5M2, "f8_e5m2", 1, 1, -1)                                                                              \
    X(SW_F8_E8M0, "f8_e8m0", 1, 1, -1)                                                                              \
    X(SW_Q4_0, "q4_0", 32, 18, 2)                                                                                   \
    X(SW_Q4_1, "q4_1", 32, 20, 3)                                                                                   \
    X(SW_Q5_0, "q5_0", 32, 22, 6)                                                                                   \
    X(SW_Q5_1, "q5_1", 32, 24, 7)                                                                                   \
    X(SW_Q8_0, "q8_0", 32, 34, 8)                                                                                   \
    X(SW_IQ4_NL, "iq4_nl", 32, 18, 20)                                                                              \
    X(SW_MXFP4, "mxfp4", 32, 17, 39)                                                                                \
    X(SW_NVFP4, "nvfp4", 64, 36, 40)                                                                                \
    X(SW_Q2_0, "q2_0", 64, 18, 42)                                                                                  \
    X(SW_Q1_0, "q1_0", 128, 18, 41)                                                                                 \
    X(SW_Q2_K, "q2_K", 256, 84, 10)                                                                                 \
    X(SW_Q3_K, "q3_K", 256, 110, 11)                                                                                \
    X(SW_Q4_K, "q4_K", 256, 144, 12)                                                                                \
    X(SW_Q5_K, "q5_K", 256, 176, 13)                                                                                \
    X(SW_Q6_K, "q6_K", 256, 210, 14)                                                                                \
    X(SW_Q8_K, "q8_K", 256, 292, 15)                                                                                \
    X(SW_IQ1_S, "iq1_s", 256, 50, 19)                                                                               \
    X(SW_IQ1_M, "iq1_m", 256, 56, 29)                                                                               \
    X(SW_IQ2_XXS, "iq2_xxs", 256, 66, 16)                                                                           \
    X(SW_IQ2_XS, "iq2_xs", 256, 74, 17)                                                                             \
    X(SW_IQ2_S, "iq2_s", 256, 82, 22)                                                                               \
    X(SW_IQ3_XXS, "iq3_xxs", 256, 98, 18)                                                                           \
    X(SW_IQ3_S, "iq3_s", 256, 110, 21)                                                                              \
    X(SW_IQ4_XS, "iq4_xs", 256, 136, 23)                                                                            \
    X(SW_TQ1_0, "tq1_0", 256, 54, 34)                                                                               \
    X(SW_TQ2_0, "tq2_0", 256, 66, 35)

typedef enum sw_dtype {
#define X(e, n, b, s, g) e,
    SW_DTYPES(X)
#undef X
        SW_DTYPE_COUNT
} sw_dtype;

typedef struct sw_dtype_info {
    const char *name;
    int block, bytes; /* values in a block, bytes of a block */
    int gguf;
} sw_dtype_info;
extern const sw_dtype_info sw_dtypes[SW_DTYPE_COUNT];

static inline bool sw_is_quantised(sw_dtype t) { return sw_dtypes[t].block > 1; }
static inline bool sw_is_float8(sw_dtype t) { return t == SW_F8_E4M3 || t == SW_F8_E5M2; } /* of weights; they may have scales */
static inline bool sw_is_float(sw_dtype t) { return t == SW_F32 || t == SW_BF16 || t == SW_F16; } /* computable floats */
static inline bool sw_is_integer(sw_dtype t) { return t >= SW_I8 && t <= SW_BOOL; } /* ids and counts, no weights */

/* What 8-bit floats are multiplied by: a scale for each block of a matrix, or of several on top of each other. Which one a value
 * has follows from where it lies (a value is a byte), so that any view of the matrix keeps them by keeping the pointer. */
typedef struct sw_scales {
    const float *at;    /* device memory: [matrices, ceil(rows / high), line] */
    const void *origin; /* the first value of the first matrix */
    int64_t rows, width; /* of each matrix, whose rows lie side by side */
    int64_t high, wide; /* of a block; those at the edges are cut */
    int64_t line;       /* scales from a row of blocks to the next one, ceil(width / wide) or more */
} sw_scales;

typedef struct sw_tensor {
    void *data;
    sw_dtype dtype;
    int ndim;
    int64_t shape[SW_MAX_DIMS];
    int64_t stride[SW_MAX_DIMS]; /* in values; for quantised types the last is 1 and the others whole blocks */
    const sw_scales *scales;     /* of 8-bit floats, host memory that outlives all views; NULL: the values are those of the bytes */
} sw_tensor;

/* A dense tensor over data (last dimension fastest). */
sw_tensor sw_tensor_of(void *data, sw_dtype dtype, int ndim, const int64_t *shape);
/* Number of values; bytes of a dense tensor of that shape. */
int64_t sw_numel(const sw_tensor *t);
size_t sw_tensor_bytes(const sw_tensor *t);
static inline size_t sw_dtype_bytes(sw_dtype dtype, int64_t values) /* values: a multiple of the block size */
{
    const sw_dtype_info *t = &sw_dtypes[dtype];
    return (size_t)(t->block == 1 ? values : values / t->block) * (size_t)t->bytes;
}
bool sw_is_dense(const sw_tensor *t);
/* Views. rows: [start, start+count) of the first dimension. */
sw_tensor sw_row_view(const sw_tensor *t, int64_t start, int64_t count);
sw_tensor sw_reshaped(const sw_tensor *t, int ndim, const int64_t *shape); /* dense only */

/* The scales of the row that the value at p lies in, from its first block on; *column: where in the row it lies. */
static inline const float *sw_scales_at(const sw_scales *s, const void *p, int64_t *column)
{
    int64_t i = (const char *)p - (const char *)s->origin, row = i / s->width;
    *column = i - row * s->width;
    return s->at + (row / s->rows * ((s->rows + s->high - 1) / s->high) + row % s->rows / s->high) * s->line;
}

/* Scalar conversions; bf16 rounds to nearest even, NaN stays NaN. */
static inline float sw_bf16_to_f32(uint16_t h)
{
    union { uint32_t u; float f; } v = {(uint32_t)h << 16};
    return v.f;
}
static inline uint16_t sw_f32_to_bf16(float f)
{
    union { float f; uint32_t u; } v = {f};
    if ((v.u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(v.u >> 16 | 0x40);
    return (uint16_t)((v.u + 0x7fff + (v.u >> 16 & 1)) >> 16);
}
float sw_f16_to_f32(uint16_t h);
uint16_t sw_f32_to_f16(float f); /* round to nearest even */
/* One value of a plain (not quantised) element type; integers convert. */
double sw_scalar_get(const void *p, sw_dtype t, int64_t i);
void sw_scalar_set(void *p, sw_dtype t, int64_t i, double v);

#endif
