/* What every file of kernels/cpu shares: names that carry the instruction-set level (each file is compiled once a
 * level, SW_ISA says which), conversions of runs of values to and from f32, and the way work is cut into tasks.
 *
 * Kernels compute in f32 on short runs: a run is converted into a buffer that stays in the first-level cache, so one
 * loop serves every element type. The cutting depends on shapes only, never on the number of threads. */
#ifndef SW_KERNELS_CPU_ISA_H
#define SW_KERNELS_CPU_ISA_H

#include "kernels/kernels.h"

#include <omp.h>
#include <string.h>
#if defined(__F16C__) || defined(__AVX__)
#include <immintrin.h>
#endif

#define SW_CPU_JOIN_(a, b) sw_cpu_##a##_##b
#define SW_CPU_JOIN(a, b) SW_CPU_JOIN_(a, b)
/* The name of a kernel, or of a helper shared between files, at this level. */
#define SW_CPU(name) SW_CPU_JOIN(name, SW_ISA)

#define K(name, args) int SW_CPU(name) args;
#include "kernels/kernels.def"
#undef K

#if defined(__AVX512F__)
enum { SW_LANES = 16 };
#elif defined(__AVX__)
enum { SW_LANES = 8 };
#else
enum { SW_LANES = 4 };
#endif
/* Products of bf16 pairs in one instruction. */
#if defined(__AVX512BF16__)
enum { SW_HAS_BF16_DOT = 1 };
#else
enum { SW_HAS_BF16_DOT = 0 };
#endif
typedef float sw_vec __attribute__((vector_size(SW_LANES * sizeof(float)), aligned(4), may_alias));
typedef int32_t sw_ivec __attribute__((vector_size(SW_LANES * sizeof(float)), aligned(4), may_alias));

static inline float sw_lanes_sum(sw_vec v)
{
    float s[SW_LANES];
    memcpy(s, &v, sizeof s);
    for (int w = SW_LANES / 2; w; w /= 2)
        for (int i = 0; i < w; i++)
            s[i] += s[i + w];
    return s[0];
}

#if defined(__AVX512F__)
#define SW_EVENS 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define SW_ODDS 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#elif defined(__AVX__)
#define SW_EVENS 0, 2, 4, 6, 8, 10, 12, 14
#define SW_ODDS 1, 3, 5, 7, 9, 11, 13, 15
#else
#define SW_EVENS 0, 2, 4, 6
#define SW_ODDS 1, 3, 5, 7
#endif

/* to[i]: neighbours in v[2 i], then those in v[2 i + 1], added up. */
__attribute__((always_inline)) static inline void sw_add_neighbours(sw_vec *to, const sw_vec *v, int n)
{
#pragma GCC unroll 8
    for (int i = 0; i < n; i++)
        to[i] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], SW_EVENS) + __builtin_shufflevector(v[2 * i], v[2 * i + 1], SW_ODDS);
}

/* Value i of the result: the lanes of v[i] added up. */
static inline sw_vec sw_lanes_sums(const sw_vec v[SW_LANES])
{
    sw_vec sum[SW_LANES / 2];
    sw_add_neighbours(sum, v, SW_LANES / 2);
    sw_add_neighbours(sum, sum, SW_LANES / 4);
    if (SW_LANES > 4)
        sw_add_neighbours(sum, sum, SW_LANES / 8);
    if (SW_LANES > 8)
        sw_add_neighbours(sum, sum, SW_LANES / 16);
    return sum[0];
}

/* ---- runs of values */

enum {
    SW_RUN = 1024,        /* values converted at a time */
    SW_PARALLEL = 1 << 14 /* values of work for which waking other threads pays */
};

static inline void *sw_at(const sw_tensor *t, int64_t i) { return (char *)t->data + sw_dtype_bytes(t->dtype, i); }

static inline void sw_widen_bf16(float *dst, const uint16_t *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = sw_bf16_to_f32(src[i]);
}

static inline void sw_narrow_bf16(uint16_t *dst, const float *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, src + i, 4);
        uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16, nan = u >> 16 | 0x40;
        dst[i] = (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
    }
}

static inline void sw_widen_f16(float *dst, const uint16_t *src, int64_t n)
{
    int64_t i = 0;
#if defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(src + i))));
#endif
    for (; i < n; i++)
        dst[i] = sw_f16_to_f32(src[i]);
}

static inline void sw_narrow_f16(uint16_t *dst, const float *src, int64_t n)
{
    int64_t i = 0;
#if defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(dst + i), _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < n; i++)
        dst[i] = sw_f32_to_f16(src[i]);
}

/* n values at src as f32: src itself when it is f32, else converted into buf. */
static inline const float *sw_load(const void *src, sw_dtype t, int64_t n, float *buf)
{
    if (t == SW_F32)
        return src;
    if (t == SW_BF16)
        sw_widen_bf16(buf, src, n);
    else
        sw_widen_f16(buf, src, n);
    return buf;
}

static inline void sw_store(void *dst, sw_dtype t, int64_t n, const float *src)
{
    if (t == SW_BF16)
        sw_narrow_bf16(dst, src, n);
    else if (t == SW_F16)
        sw_narrow_f16(dst, src, n);
    else if (dst != src)
        memcpy(dst, src, (size_t)n * sizeof(float));
}

/* dst = n values of src, of a quantised type (n is a multiple of the block); of 8-bit floats, times their scales s, or NULL. */
void SW_CPU(dequantise)(float *dst, const void *src, sw_dtype t, int64_t n);
void SW_CPU(float8_values)(float *dst, const void *src, sw_dtype t, const sw_scales *s, int64_t n);
/* n values from value `at` of t on, of any type that weights have: as sw_load. */
static inline const float *sw_load_any(const sw_tensor *t, int64_t at, int64_t n, float *buf)
{
    const void *src = sw_at(t, at);
    if (sw_is_float8(t->dtype))
        SW_CPU(float8_values)(buf, src, t->dtype, t->scales, n);
    else if (sw_is_quantised(t->dtype))
        SW_CPU(dequantise)(buf, src, t->dtype, n);
    else
        return sw_load(src, t->dtype, n, buf);
    return buf;
}

/* ---- rows and tasks */

static inline int64_t sw_width(const sw_tensor *t) { return t->ndim ? t->shape[t->ndim - 1] : 1; }

static inline int64_t sw_row_count(const sw_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i + 1 < t->ndim; i++)
        n *= t->shape[i];
    return n;
}

/* Where row r (row-major over all dimensions but the last) begins, in values. */
static inline int64_t sw_row_at(const sw_tensor *t, int64_t r)
{
    if (t->ndim == 2)
        return r * t->stride[0];
    int64_t at = 0;
    for (int d = t->ndim - 2; d >= 0; d--) {
        at += r % t->shape[d] * t->stride[d];
        r /= t->shape[d];
    }
    return at;
}

/* Equal-shaped tensors cut into runs. Dense tensors are one long row. */
typedef struct sw_runs {
    bool flat;
    int64_t values, width, per_row, count;
} sw_runs;

static inline sw_runs sw_cut(const sw_tensor *shape, bool flat)
{
    sw_runs r = {.flat = flat, .values = sw_numel(shape)};
    if (!r.values)
        return r;
    r.width = flat ? r.values : sw_width(shape);
    r.per_row = (r.width + SW_RUN - 1) / SW_RUN;
    r.count = r.per_row * (r.values / r.width);
    return r;
}

static inline int64_t sw_run_column(const sw_runs *r, int64_t i) { return i % r->per_row * SW_RUN; }
static inline int64_t sw_run_length(const sw_runs *r, int64_t i)
{
    int64_t left = r->width - sw_run_column(r, i);
    return left < SW_RUN ? left : SW_RUN;
}
static inline int64_t sw_run_at(const sw_runs *r, const sw_tensor *t, int64_t i)
{
    return r->flat ? i * SW_RUN : sw_row_at(t, i / r->per_row) + sw_run_column(r, i);
}
static inline const float *sw_run_load(const sw_runs *r, const sw_tensor *t, int64_t i, float *buf)
{
    return sw_load(sw_at(t, sw_run_at(r, t, i)), t->dtype, sw_run_length(r, i), buf);
}
static inline void sw_run_store(const sw_runs *r, const sw_tensor *t, int64_t i, const float *buf)
{
    sw_store(sw_at(t, sw_run_at(r, t, i)), t->dtype, sw_run_length(r, i), buf);
}

/* Temporary space for every thread: thread i has `each` bytes at sw_space + i * each (each is rounded up). */
static inline char *sw_thread_space(sw_stream *s, size_t *each)
{
    *each = (*each + 127) & ~(size_t)63;
    return sw_stream_scratch(s, *each * (size_t)omp_get_max_threads());
}

#endif
