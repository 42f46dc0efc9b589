#include "kernels/tensor.h"

#include <string.h>

const sw_dtype_info sw_dtypes[SW_DTYPE_COUNT] = {
#define X(e, n, b, s, g) [e] = {n, b, s, g},
    SW_DTYPES(X)
#undef X
};

sw_tensor sw_tensor_of(void *data, sw_dtype dtype, int ndim, const int64_t *shape)
{
    sw_tensor t = {.data = data, .dtype = dtype, .ndim = ndim};
    int64_t stride = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        t.shape[i] = shape[i];
        t.stride[i] = stride;
        stride *= shape[i];
    }
    return t;
}

int64_t sw_numel(const sw_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++)
        n *= t->shape[i];
    return n;
}

size_t sw_tensor_bytes(const sw_tensor *t) { return sw_dtype_bytes(t->dtype, sw_numel(t)); }

bool sw_is_dense(const sw_tensor *t)
{
    int64_t stride = 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        if (t->shape[i] > 1 && t->stride[i] != stride)
            return false;
        stride *= t->shape[i];
    }
    return true;
}

sw_tensor sw_row_view(const sw_tensor *t, int64_t start, int64_t count)
{
    sw_tensor r = *t;
    r.data = (char *)t->data + sw_dtype_bytes(t->dtype, start * t->stride[0]);
    r.shape[0] = count;
    return r;
}

sw_tensor sw_reshaped(const sw_tensor *t, int ndim, const int64_t *shape)
{
    sw_tensor r = sw_tensor_of(t->data, t->dtype, ndim, shape);
    r.scales = t->scales;
    return r;
}

float sw_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    union { uint32_t u; float f; } v;
    if (exponent == 31) {
        v.u = sign | 0x7f800000u | mantissa << 13;
    } else if (exponent) {
        v.u = sign | (exponent + 112) << 23 | mantissa << 13;
    } else {
        v.f = (float)mantissa * 0x1p-24f;
        v.u |= sign;
    }
    return v.f;
}

uint16_t sw_f32_to_f16(float f)
{
    union { float f; uint32_t u; } v = {f};
    uint32_t sign = v.u >> 16 & 0x8000, x = v.u & 0x7fffffffu;
    if (x > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00 | (x >> 13 & 0x3ff));
    if (x >= 0x477ff000u) /* rounds to beyond the largest finite value */
        return (uint16_t)(sign | 0x7c00);
    if (x < 0x38800000u) { /* subnormal: let the addition round */
        union { uint32_t u; float f; } s = {x}, magic = {0x3f000000u};
        s.f += magic.f;
        return (uint16_t)(sign | (s.u - magic.u));
    }
    x += 0xc8000fffu + (x >> 13 & 1);
    return (uint16_t)(sign | x >> 13);
}

/* OCP 8-bit floats. E5M2 is the upper half of an f16; E4M3 has no infinity and one NaN of each sign. */
static float f8_e5m2_to_f32(uint8_t b) { return sw_f16_to_f32((uint16_t)(b << 8)); }

static float f8_e4m3_to_f32(uint8_t b)
{
    uint32_t sign = (uint32_t)(b & 0x80) << 24, exponent = b >> 3 & 15, mantissa = b & 7;
    union { uint32_t u; float f; } v;
    if ((b & 0x7f) == 0x7f) {
        v.u = sign | 0x7fc00000u;
    } else if (exponent) {
        v.u = sign | (exponent + 120) << 23 | mantissa << 20;
    } else {
        v.f = (float)mantissa * 0x1p-9f;
        v.u |= sign;
    }
    return v.f;
}

/* A power of two and no sign. */
static double f8_e8m0(uint8_t b) { return b == 255 ? __builtin_nan("") : __builtin_ldexp(1, b - 127); }

double sw_scalar_get(const void *p, sw_dtype t, int64_t i)
{
    switch (t) {
    case SW_F32: return ((const float *)p)[i];
    case SW_F64: return ((const double *)p)[i];
    case SW_F16: return sw_f16_to_f32(((const uint16_t *)p)[i]);
    case SW_BF16: return sw_bf16_to_f32(((const uint16_t *)p)[i]);
    case SW_I8: return ((const int8_t *)p)[i];
    case SW_I16: return ((const int16_t *)p)[i];
    case SW_I32: return ((const int32_t *)p)[i];
    case SW_I64: return (double)((const int64_t *)p)[i];
    case SW_U8:
    case SW_BOOL: return ((const uint8_t *)p)[i];
    case SW_F8_E4M3: return f8_e4m3_to_f32(((const uint8_t *)p)[i]);
    case SW_F8_E5M2: return f8_e5m2_to_f32(((const uint8_t *)p)[i]);
    case SW_F8_E8M0: return f8_e8m0(((const uint8_t *)p)[i]);
    default: return __builtin_nan("");
    }
}

void sw_scalar_set(void *p, sw_dtype t, int64_t i, double v)
{
    switch (t) {
    case SW_F32: ((float *)p)[i] = (float)v; break;
    case SW_F64: ((double *)p)[i] = v; break;
    case SW_F16: ((uint16_t *)p)[i] = sw_f32_to_f16((float)v); break;
    case SW_BF16: ((uint16_t *)p)[i] = sw_f32_to_bf16((float)v); break;
    case SW_I8: ((int8_t *)p)[i] = (int8_t)v; break;
    case SW_I16: ((int16_t *)p)[i] = (int16_t)v; break;
    case SW_I32: ((int32_t *)p)[i] = (int32_t)v; break;
    case SW_I64: ((int64_t *)p)[i] = (int64_t)v; break;
    case SW_U8:
    case SW_BOOL: ((uint8_t *)p)[i] = (uint8_t)v; break;
    default: break; /* F8 and quantised types are written by store/quant.h */
    }
}
