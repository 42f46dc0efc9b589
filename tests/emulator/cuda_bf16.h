/* bf16 of CUDA, for the emulator. */
#ifndef SW_EMULATOR_CUDA_BF16_H
#define SW_EMULATOR_CUDA_BF16_H

extern "C" {
#include "kernels/tensor.h"
}

struct __nv_bfloat16 { uint16_t bits; };
static inline float __bfloat162float(__nv_bfloat16 h) { return sw_bf16_to_f32(h.bits); }
static inline __nv_bfloat16 __float2bfloat16_rn(float f) { return {sw_f32_to_bf16(f)}; }
static inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 h) { return h.bits; }
static inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t u) { return {u}; }
struct __nv_bfloat162 { __nv_bfloat16 x, y; };
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)}; }

#endif
