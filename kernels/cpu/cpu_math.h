/* exp, tanh and the normal distribution in f32, written without branches so that loops over them vectorise at every
 * level. Relative error about 1e-7 (2e-7 for Phi's lower tail); NaN stays NaN. */
#ifndef SW_KERNELS_CPU_MATH_H
#define SW_KERNELS_CPU_MATH_H

#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

static inline float sw_power_of_two(int32_t n) /* -126 <= n <= 127 */
{
    uint32_t u = ((uint32_t)n + 127u) << 23;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* a where yes, else b: by its bits, since compilers turn a choice between numbers into jumps, and then loops over it stay
 * scalar (GCC knows what follows from a constant, and gives it a path of its own). */
static inline float sw_choose(bool yes, float a, float b)
{
    uint32_t mask = 0u - (uint32_t)yes, u, v;
    memcpy(&u, &a, 4);
    memcpy(&v, &b, 4);
    u = (u & mask) | (v & ~mask);
    memcpy(&a, &u, 4);
    return a;
}

/* e^x = 2^n e^r, |r| <= ln 2 / 2; ln 2 in two parts (Cody and Waite). 2^n is multiplied in two halves, so that results
 * below the normal range come out right. */
static inline float sw_exp(float x)
{
    float c = sw_choose(x < -110.0f, -110.0f, x);
    c = sw_choose(c > 89.0f, 89.0f, c);
    float t = c * 1.44269504f;
    int32_t n = (int32_t)(t + copysignf(0.5f, t));
    float nf = (float)n, r = (c - nf * 0.693359375f) + nf * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t half = n >> 1;
    return p * sw_power_of_two(half) * sw_power_of_two((int32_t)((uint32_t)n - (uint32_t)half));
}

static inline float sw_sigmoid(float x) { return 1.0f / (1.0f + sw_exp(-x)); }

/* log(1 + u) for 0 <= u <= 1: 2 artanh(u / (2 + u)) by its series, whose argument is at most 1/3. */
static inline float sw_log1p_unit(float u)
{
    float z = u / (2.0f + u), w = z * z;
    float p = 1.0f / 15;
    p = p * w + 1.0f / 13;
    p = p * w + 1.0f / 11;
    p = p * w + 1.0f / 9;
    p = p * w + 1.0f / 7;
    p = p * w + 1.0f / 5;
    p = p * w + 1.0f / 3;
    return 2 * (z + z * w * p);
}

/* Near zero the odd series (minimax coefficients), elsewhere by e^2|x|. */
static inline float sw_tanh(float x)
{
    float a = fabsf(x), z = x * x;
    float p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    float near = x + x * z * p, far = copysignf(1.0f - 2.0f / (sw_exp(2.0f * a) + 1.0f), x);
    return sw_choose(a < 0.625f, near, far);
}

/* The standard normal density and distribution. The tail is e^(-x^2/2) times a polynomial in 1/(1 + z/2), z = |x|/sqrt 2,
 * fitted to erfc(z) e^(z^2) on 0 <= z <= 10; beyond, it is zero. */
static inline float sw_normal_kernel(float x) { return sw_exp(-0.5f * x * x); }
static inline float sw_phi(float x) { return 0.398942280f * sw_normal_kernel(x); }
static inline float sw_Phi(float x)
{
    float z = fabsf(x) * 0.707106781f;
    float c = sw_choose(z > 10.0f, 10.0f, z);
    float t = 1.0f / (1.0f + 0.5f * c), u = 2.4f * t - 1.4f;
    float p = 5.7193242355424445e-06f;
    p = p * u - 1.7708349332679063e-05f;
    p = p * u - 3.630538049037568e-05f;
    p = p * u + 2.4533370742574334e-04f;
    p = p * u + 8.937932580010965e-05f;
    p = p * u - 2.9232159722596407e-03f;
    p = p * u - 1.1053609196096659e-03f;
    p = p * u + 4.5990291982889175e-02f;
    p = p * u + 0.19544340670108795f;
    p = p * u + 0.42863479256629944f;
    p = p * u + 0.3336736559867859f;
    float tail = 0.5f * p * sw_normal_kernel(x);
    return sw_choose(x < 0, tail, 1.0f - tail);
}

static inline float sw_act_value(float x, int kind)
{
    switch (kind) {
    case SW_ACT_SILU: return x * sw_sigmoid(x);
    case SW_ACT_GELU: return x * sw_Phi(x);
    case SW_ACT_GELU_TANH: return x * sw_sigmoid(1.595769122f * (x + 0.044715f * x * x * x));
    case SW_ACT_RELU: return x < 0 ? 0 : x;
    case SW_ACT_RELU2: return x < 0 ? 0 : x * x;
    case SW_ACT_SIGMOID: return sw_sigmoid(x);
    case SW_ACT_TANH: return sw_tanh(x);
    case SW_ACT_GELU_QUICK: return x * sw_sigmoid(1.702f * x);
    case SW_ACT_ELU: return sw_choose(x < 0, sw_exp(x) - 1.0f, x);
    case SW_ACT_SOFTPLUS: return sw_choose(x < 0, 0.0f, x) + sw_log1p_unit(sw_exp(-fabsf(x)));
    case SW_ACT_EXP: return sw_exp(x);
    case SW_ACT_SQRT: return sqrtf(sw_choose(x < 0, 0.0f, x));
    default: return x;
    }
}

static inline float sw_act_slope(float x, int kind)
{
    float s;
    switch (kind) {
    case SW_ACT_SILU: s = sw_sigmoid(x); return s + x * s * (1 - s);
    case SW_ACT_GELU: return sw_Phi(x) + x * sw_phi(x);
    case SW_ACT_GELU_TANH:
        s = sw_sigmoid(1.595769122f * (x + 0.044715f * x * x * x));
        return s + x * s * (1 - s) * 1.595769122f * (1 + 0.134145f * x * x);
    case SW_ACT_RELU: return x > 0 ? 1 : 0;
    case SW_ACT_RELU2: return x > 0 ? 2 * x : 0;
    case SW_ACT_SIGMOID: s = sw_sigmoid(x); return s * (1 - s);
    case SW_ACT_TANH: s = sw_tanh(x); return 1 - s * s;
    case SW_ACT_GELU_QUICK: s = sw_sigmoid(1.702f * x); return s + 1.702f * x * s * (1 - s);
    case SW_ACT_ELU: return sw_choose(x < 0, sw_exp(x), 1.0f);
    case SW_ACT_SOFTPLUS: return sw_sigmoid(x);
    case SW_ACT_EXP: return sw_exp(x);
    case SW_ACT_SQRT: return 0.5f / sqrtf(sw_choose(x < 2.5e-7f, 2.5e-7f, x));
    default: return 1;
    }
}

#endif
