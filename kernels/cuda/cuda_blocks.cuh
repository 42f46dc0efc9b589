/* Values out of every stored type, eight at a time: the formulas of kernels/blocks.c, each operation rounded by itself,
 * so that the f32 values are the same to the bit. */
#ifndef SW_CUDA_BLOCKS_CUH
#define SW_CUDA_BLOCKS_CUH

#include "cuda_common.cuh"

/* An 8-bit float. An e5m2 is the upper half of an f16; the bits of an e4m3, moved, are an f16 of 2^-8 times its value. */
__device__ static inline float float8_value(unsigned b, int type)
{
    if (type == SW_F8_E5M2)
        return __half2float(__ushort_as_half((uint16_t)(b << 8)));
    unsigned size = b & 0x7f;
    float v = __half2float(__ushort_as_half((uint16_t)((b & 0x80) << 8 | size << 7))) * 256;
    return size == 0x7f ? __uint_as_float(0x7fc00000u) : v;
}

/* What sw_scales (kernels/tensor.h) says, for kernels; at NULL: all scales are 1. */
struct scales_of {
    const float *at;
    const uint8_t *origin;
    int64_t rows, width, high, wide, line, lines;
};
static inline scales_of cuda_scales(const sw_tensor *t)
{
    const sw_scales *s = t->scales;
    return s ? scales_of{s->at, (const uint8_t *)s->origin, s->rows, s->width, s->high, s->wide, s->line, (s->rows + s->high - 1) / s->high}
             : scales_of{};
}

__device__ static inline int64_t quotient(int64_t a, int64_t b)
{
    return (uint64_t)(a | b) <= 0xffffffffu ? (int64_t)((unsigned)a / (unsigned)b) : a / b;
}

/* The scales of the row that the value at p lies in, and where in the row it lies. */
struct scale_row {
    const float *at;
    int64_t column;
};
__device__ static inline scale_row scale_row_at(const scales_of &s, const uint8_t *p)
{
    if (!s.at)
        return scale_row{NULL, 0};
    int64_t i = p - s.origin, row = quotient(i, s.width), matrix = quotient(row, s.rows);
    return scale_row{s.at + (matrix * s.lines + quotient(row - matrix * s.rows, s.high)) * s.line, i - row * s.width};
}

/* n (8 at most) bytes from p on, the rest 0. */
__device__ static inline void load_bytes(unsigned (&bytes)[2], const uint8_t *p, int n)
{
    bytes[0] = bytes[1] = 0;
    if (n == 8 && ((uintptr_t)p & 7) == 0)
        bytes[0] = ((const unsigned *)p)[0], bytes[1] = ((const unsigned *)p)[1];
    else
        for (int k = 0; k < n; k++)
            bytes[k / 4] |= (unsigned)p[k] << k % 4 * 8;
}

/* Eight bytes that share a scale, two at a time; false where the scale or one of them is not of the usual. The 256 of an e4m3 is exact,
 * with the scale as before it. */
__device__ static inline bool float8_eight(float (&v)[8], const unsigned (&bytes)[2], int type, float scale)
{
    bool odd = !(fabsf(scale) < 1e30f);
    float factor = type == SW_F8_E4M3 ? scale * 256 : scale;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        unsigned two = bytes[k / 2] >> k % 2 * 16, apart = (two & 0xff) | (two & 0xff00) << 8;
        if (type == SW_F8_E4M3 && k % 2 == 0)
            odd = odd || ((bytes[k / 2] & 0x7f7f7f7f) + 0x01010101) & 0x80808080;
        float2 pair = pair_values(SW_F16, type == SW_F8_E4M3 ? (apart & 0x800080) << 8 | (apart & 0x7f007f) << 7 : apart << 8);
        v[2 * k] = __fmul_rn(pair.x, factor);
        v[2 * k + 1] = __fmul_rn(pair.y, factor);
    }
    return !odd;
}

/* The values of the first n of eight bytes, the rest 0; they lie `further` values after what r was made for, in the same row. */
__device__ static inline void float8_run(float (&v)[8], const unsigned (&bytes)[2], int type, int n, const scales_of &s, const scale_row &r,
                                         int64_t further)
{
    float scale = 1;
    int64_t column = r.column + further, end = column + 8; /* of the block */
    if (n >= 8) {
        if (r.at) {
            int64_t block = quotient(column, s.wide);
            scale = r.at[block];
            end = (block + 1) * s.wide;
        }
        if (column + 8 <= end && float8_eight(v, bytes, type, scale))
            return;
    }
    end = 0;
#pragma unroll
    for (int k = 0; k < 8; k++) {
        if (r.at && k < n && column + k >= end) {
            int64_t block = quotient(column + k, s.wide);
            scale = r.at[block];
            end = (block + 1) * s.wide;
        }
        v[k] = k < n ? __fmul_rn(float8_value(bytes[k / 4] >> k % 4 * 8 & 255, type), scale) : 0;
    }
}

__device__ static inline int block_values(int type)
{
    switch (type) {
#define X(e, n, b, s, g) \
    case e: return b;
        SW_DTYPES(X)
#undef X
    default: return 1;
    }
}
__device__ static inline int block_size(int type)
{
    switch (type) {
#define X(e, n, b, s, g) \
    case e: return s;
        SW_DTYPES(X)
#undef X
    default: return 0;
    }
}

/* Blocks of these types have even sizes and lie in the device's own memory, so that they begin at even addresses; 16 bits is
 * what can be read at once. */
__device__ static inline float block_half(const uint8_t *p) { return __half2float(__ushort_as_half(*(const uint16_t *)p)); }

#define SW_ANY __device__ static inline
#define SW_TABLE __device__ static const
#define SW_HALF block_half
#include "kernels/codebooks.h"

/* Eight bytes, the first lowest. */
__device__ static inline uint64_t block_eight(const uint8_t *p)
{
    const uint16_t *h = (const uint16_t *)p;
    return (uint64_t)h[0] | (uint64_t)h[1] << 16 | (uint64_t)h[2] << 32 | (uint64_t)h[3] << 48;
}
__device__ static inline int byte_of(uint64_t eight, int i) { return (int)(eight >> 8 * i & 255); }

/* Six-bit scale and minimum of group 0..7 of Q4_K and Q5_K. */
__device__ static inline void scale_min(const uint8_t *s, int group, int *scale, int *min)
{
    if (group < 4) {
        *scale = s[group] & 63;
        *min = s[group + 4] & 63;
    } else {
        *scale = (s[group + 4] & 15) | s[group - 4] >> 6 << 4;
        *min = s[group + 4] >> 4 | s[group] >> 6 << 4;
    }
}

/* v = values first .. first+7 of the block b; first is a multiple of 8. They share a scale. */
__device__ static inline void decode8(float (&v)[8], const uint8_t *b, int type, int first)
{
    int level[8];
    float scale, shift = 0; /* value = level scale + shift (blocks of 32) or level scale - shift */
    if (type <= SW_Q8_0) {
        const uint8_t *high = b + (type == SW_Q5_1 ? 4 : 2);
        const uint8_t *qs = type == SW_Q4_0 ? b + 2 : type == SW_Q4_1 ? b + 4 : type == SW_Q5_0 ? b + 6 : type == SW_Q5_1 ? b + 8 : b + 2;
        bool fives = type == SW_Q5_0 || type == SW_Q5_1;
        uint64_t bytes = block_eight(qs + (type == SW_Q8_0 ? first : first & 15));
        int fifth = fives ? high[first / 8] : 0;
        int zero = type == SW_Q4_0 ? 8 : type == SW_Q5_0 ? 16 : 0;
        for (int i = 0; i < 8; i++) {
            if (type == SW_Q8_0) {
                level[i] = (int8_t)byte_of(bytes, i);
                continue;
            }
            level[i] = first < 16 ? byte_of(bytes, i) & 15 : byte_of(bytes, i) >> 4;
            if (fives)
                level[i] |= (fifth >> i & 1) << 4;
            level[i] -= zero;
        }
        scale = block_half(b);
        if (type == SW_Q4_1 || type == SW_Q5_1)
            shift = block_half(b + 2);
        for (int i = 0; i < 8; i++)
            v[i] = type == SW_Q4_1 || type == SW_Q5_1 ? __fadd_rn(__fmul_rn((float)level[i], scale), shift) : __fmul_rn((float)level[i], scale);
        return;
    }
    bool shifted = false;
    uint64_t bytes, other;
    int at = first & 31, half = first >> 7, run = first >> 5 & 3; /* place in a run of 32; half; run of the half */
    switch (type) {
    case SW_Q2_K:
        bytes = block_eight(b + 16 + half * 32 + at);
        for (int i = 0; i < 8; i++)
            level[i] = byte_of(bytes, i) >> run * 2 & 3;
        scale = __fmul_rn(block_half(b + 80), (float)(b[first / 16] & 15));
        shift = __fmul_rn(block_half(b + 82), (float)(b[first / 16] >> 4));
        shifted = true;
        break;
    case SW_Q3_K: {
        const uint8_t *scales = b + 96;
        int group = first / 16;
        int six = (scales[group % 8] >> group / 8 * 4 & 15) | (scales[8 + group % 4] >> group / 4 * 2 & 3) << 4;
        bytes = block_eight(b + 32 + half * 32 + at);
        other = block_eight(b + at);
        for (int i = 0; i < 8; i++)
            level[i] = (byte_of(bytes, i) >> run * 2 & 3) - (byte_of(other, i) >> first / 32 & 1 ? 0 : 4);
        scale = __fmul_rn(block_half(b + 108), (float)(six - 32));
        break;
    }
    case SW_Q4_K:
    case SW_Q5_K: {
        int group = first / 32, six, min;
        bytes = block_eight(b + (type == SW_Q5_K ? 48 : 16) + group / 2 * 32 + at);
        other = type == SW_Q5_K ? block_eight(b + 16 + at) : 0;
        scale_min(b + 4, group, &six, &min);
        for (int i = 0; i < 8; i++)
            level[i] = (byte_of(bytes, i) >> group % 2 * 4 & 15) | (byte_of(other, i) >> group & 1) << 4;
        scale = __fmul_rn(block_half(b), (float)six);
        shift = __fmul_rn(block_half(b + 2), (float)min);
        shifted = true;
        break;
    }
    case SW_Q6_K:
        bytes = block_eight(b + half * 64 + run % 2 * 32 + at);
        other = block_eight(b + 128 + half * 32 + at);
        for (int i = 0; i < 8; i++)
            level[i] = ((byte_of(bytes, i) >> run / 2 * 4 & 15) | (byte_of(other, i) >> run * 2 & 3) << 4) - 32;
        scale = __fmul_rn(block_half(b + 208), (float)((const int8_t *)b)[192 + first / 16]);
        break;
    default: sw_codebook_eight(v, b, type, first); return;
    }
    for (int i = 0; i < 8; i++) {
        float x = __fmul_rn(scale, (float)level[i]);
        v[i] = shifted ? __fsub_rn(x, shift) : x;
    }
}

/* As load_run, from any float or quantised type or 8-bit floats with scales s, which do not reach beyond a row; of the quantised i
 * counts values from the start of a row of blocks and is a multiple of 8, as n is. */
__device__ static inline void load_any(float (&v)[RUN], const void *p, int type, int64_t i, int n, const scales_of &s)
{
    if (type == SW_F8_E4M3 || type == SW_F8_E5M2) {
        const uint8_t *at = (const uint8_t *)p + i;
        unsigned bytes[2];
        load_bytes(bytes, at, n);
        float8_run(v, bytes, type, n, s, scale_row_at(s, at), 0);
        return;
    }
    if (type < SW_Q4_0) {
        load_run(v, p, type, i, n);
        return;
    }
    int block = block_values(type);
    decode8(v, (const uint8_t *)p + i / block * block_size(type), type, (int)(i % block));
}

#endif
