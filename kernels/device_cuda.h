/* Opening the CUDA device: finding the shared object that holds it, and saying what is missing when that fails. */
#ifndef SW_KERNELS_DEVICE_CUDA_H
#define SW_KERNELS_DEVICE_CUDA_H

#include "kernels/kernels.h"

/* "cuda", "cuda:N" (and "emulator" in programs that the emulator is linked into). */
bool sw_is_cuda_name(const char *name);
sw_device *sw_cuda_device(const char *name) SW_MUST_CHECK;
/* Whether this machine looks as if it had a GPU: worth opening the shared object unasked. */
bool sw_cuda_likely(void);

#endif
