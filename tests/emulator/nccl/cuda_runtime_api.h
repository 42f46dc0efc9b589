/* The part of CUDA's runtime that common/dist/engines uses, in C, for the emulator (emulator_nccl.cc). */
#ifndef SW_EMULATOR_CUDA_RUNTIME_API_H
#define SW_EMULATOR_CUDA_RUNTIME_API_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define cudaSuccess 0
#define cudaErrorNotReady 600
#define cudaStreamNonBlocking 1
typedef int cudaError_t;
typedef struct sw_emu_stream *cudaStream_t;
typedef struct sw_emu_event *cudaEvent_t;
#define cudaSetDevice sw_emu_c_set_device
#define cudaStreamCreateWithFlags sw_emu_c_stream
#define cudaStreamDestroy sw_emu_c_stream_end
#define cudaStreamQuery sw_emu_c_query
#define cudaStreamWaitEvent sw_emu_c_wait
#define cudaMalloc sw_emu_c_malloc
#define cudaMemset sw_emu_c_memset
#define cudaFree sw_emu_c_free
#define cudaGetErrorString sw_emu_c_error
cudaError_t cudaSetDevice(int index);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamQuery(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags);
cudaError_t cudaMalloc(void **p, size_t n);
cudaError_t cudaMemset(void *p, int value, size_t n);
cudaError_t cudaFree(void *p);
const char *cudaGetErrorString(cudaError_t e);

#ifdef __cplusplus
}
#endif

#endif
