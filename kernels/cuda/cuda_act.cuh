/* Activations (enum sw_act) and their slopes. QUICK: for results that are rounded to 16 bits, an exponential and a quotient of few
 * instructions each, which are off by some 2^-21 of their value. Without it these kernels wait for arithmetic, not for memory. */
#ifndef SW_CUDA_ACT_CUH
#define SW_CUDA_ACT_CUH

#include "cuda_common.cuh"

template <bool QUICK> __device__ __forceinline__ float sigmoid(float x) { return QUICK ? __fdividef(1, 1 + __expf(-x)) : 1 / (1 + expf(-x)); }
__device__ inline float gelu_inner(float x) { return 0.7978845608f * (x + 0.044715f * x * x * x); }

template <bool QUICK> __device__ __forceinline__ float act(int kind, float x)
{
    switch (kind) {
    case SW_ACT_SILU: return x * sigmoid<QUICK>(x);
    case SW_ACT_GELU: return 0.5f * x * erfcf(-x * 0.70710678f);
    case SW_ACT_GELU_TANH: return QUICK ? x * sigmoid<true>(2 * gelu_inner(x)) : 0.5f * x * (1 + tanhf(gelu_inner(x)));
    case SW_ACT_RELU: return x > 0 ? x : 0;
    case SW_ACT_RELU2: return x > 0 ? x * x : 0;
    case SW_ACT_SIGMOID: return sigmoid<QUICK>(x);
    case SW_ACT_TANH: return tanhf(x);
    case SW_ACT_GELU_QUICK: return x * sigmoid<QUICK>(1.702f * x);
    case SW_ACT_ELU: return x > 0 ? x : expm1f(x);
    case SW_ACT_SOFTPLUS: return (x > 0 ? x : 0) + log1pf(expf(-fabsf(x)));
    case SW_ACT_EXP: return expf(x);
    case SW_ACT_SQRT: return x > 0 ? sqrtf(x) : 0;
    default: return x;
    }
}

template <bool QUICK> __device__ __forceinline__ float act_slope(int kind, float x)
{
    switch (kind) {
    case SW_ACT_SILU: {
        float g = sigmoid<QUICK>(x);
        return g * (1 + x * (1 - g));
    }
    case SW_ACT_GELU: return 0.5f * erfcf(-x * 0.70710678f) + x * expf(-0.5f * x * x) * 0.3989422804f;
    case SW_ACT_GELU_TANH: {
        float inner = 0.7978845608f * (1 + 3 * 0.044715f * x * x);
        if (QUICK) {
            float g = sigmoid<true>(2 * gelu_inner(x));
            return g + 2 * x * g * (1 - g) * inner;
        }
        float t = tanhf(gelu_inner(x));
        return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * inner;
    }
    case SW_ACT_RELU: return x > 0;
    case SW_ACT_RELU2: return x > 0 ? 2 * x : 0;
    case SW_ACT_SIGMOID: {
        float g = sigmoid<QUICK>(x);
        return g * (1 - g);
    }
    case SW_ACT_TANH: {
        float t = tanhf(x);
        return 1 - t * t;
    }
    case SW_ACT_GELU_QUICK: {
        float g = sigmoid<QUICK>(1.702f * x);
        return g + 1.702f * x * g * (1 - g);
    }
    case SW_ACT_ELU: return x > 0 ? 1 : expf(x);
    case SW_ACT_SOFTPLUS: return sigmoid<QUICK>(x);
    case SW_ACT_EXP: return expf(x);
    case SW_ACT_SQRT: return x > 2.5e-7f ? 0.5f / sqrtf(x) : 1000;
    default: return 1;
    }
}

/* body(kind, quick), asked once for a run of values: those of language models are compiled by themselves. */
template <bool QUICK, class B> __device__ __forceinline__ void with_kind(int kind, B body)
{
    std::integral_constant<bool, QUICK> quick;
    if (kind == SW_ACT_SILU)
        body(SW_ACT_SILU, quick);
    else if (kind == SW_ACT_GELU_TANH)
        body(SW_ACT_GELU_TANH, quick);
    else
        body(kind, quick);
}
template <class B> __device__ __forceinline__ void with_act(int kind, int type_of_result, B body)
{
    if (type_of_result == SW_F32)
        with_kind<false>(kind, body);
    else
        with_kind<true>(kind, body);
}

#endif
