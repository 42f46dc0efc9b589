/* Between the programs and the CUDA device, which is a shared object opened at run time (or, in tests, the emulator
 * linked in). One function is exported; what it needs of the program it is given. */
#ifndef SW_CUDA_API_H
#define SW_CUDA_API_H

#include "kernels/kernels.h"

typedef struct sw_cuda_host {
    const char *interface;
    long sizes;
    int (*fail)(const char *fmt, ...) SW_PRINTF(1, 2); /* sw_fail */
    void (*copy)(void *to, const void *from, size_t n); /* memcpy, by as many threads as it is worth */
} sw_cuda_host;

/* The kernels that both sides were built with, and the sizes of what passes between them: they must be equal. */
#define K(name, args) #name #args ";"
static const char sw_cuda_interface[] =
#include "kernels/kernels.def"
    ;
#undef K
enum {
    SW_CUDA_SIZES = sizeof(sw_tensor) * 1000000 + (sizeof(sw_attention) + sizeof(sw_router) + sizeof(sw_matrices)) * 1000 + sizeof(sw_device) +
                    sizeof(sw_draw) * 7 + sizeof(struct sw_cuda_host) * 3 + SW_DTYPE_COUNT
};

/* Opens device number `index`; prefix is the part of its name before ":N". NULL after host->fail(). */
typedef sw_device *(*sw_cuda_open_fn)(const sw_cuda_host *host, const char *prefix, int index);
/* The name that the shared object exports; the emulator's objects are compiled with another. */
#ifndef SW_CUDA_ENTRY
#define SW_CUDA_ENTRY sw_cuda_open
#endif

#endif
