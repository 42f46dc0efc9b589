/* Arithmetic on whole vectors that compilers do not find by themselves. */
#ifndef SW_KERNELS_CPU_VEC_H
#define SW_KERNELS_CPU_VEC_H

#include "cpu_isa.h"
#include "cpu_math.h"

/* By name where there is one: GCC makes a loop over the lanes into one masked load a lane. */
static inline sw_vec sw_splat(float f)
{
#if defined(__AVX512F__)
    return (sw_vec)_mm512_set1_ps(f);
#elif defined(__AVX__)
    return (sw_vec)_mm256_set1_ps(f);
#else
    return (sw_vec){f, f, f, f};
#endif
}

/* sw_exp of each lane: the same polynomial; AVX-512 rounds and scales by a power of two in one instruction each. */
static inline sw_vec sw_exp_vec(sw_vec x)
{
#if defined(__AVX512F__)
    __m512 c = _mm512_min_ps(_mm512_set1_ps(89.0f), _mm512_max_ps(_mm512_set1_ps(-110.0f), (__m512)x)); /* NaN stays: it comes second */
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(c, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), c));
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_add_ps(_mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r), _mm512_set1_ps(1));
    return (sw_vec)_mm512_scalef_ps(p, n);
#else
    float v[SW_LANES];
    memcpy(v, &x, sizeof v);
    for (int i = 0; i < SW_LANES; i++)
        v[i] = sw_exp(v[i]);
    memcpy(&x, v, sizeof v);
    return x;
#endif
}

#endif
