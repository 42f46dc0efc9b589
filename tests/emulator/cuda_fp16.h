/* f16 of CUDA, for the emulator. */
#ifndef SW_EMULATOR_CUDA_FP16_H
#define SW_EMULATOR_CUDA_FP16_H

extern "C" {
#include "kernels/tensor.h"
}

struct __half { uint16_t bits; };
static inline float __half2float(__half h) { return sw_f16_to_f32(h.bits); }
static inline __half __float2half_rn(float f) { return {sw_f32_to_f16(f)}; }
static inline uint16_t __half_as_ushort(__half h) { return h.bits; }
static inline __half __ushort_as_half(uint16_t u) { return {u}; }
struct __half2 { __half x, y; };
static inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }

#endif
