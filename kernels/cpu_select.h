/* The CPU's tables by name, for tests and measurements. */
#ifndef SW_KERNELS_CPU_SELECT_H
#define SW_KERNELS_CPU_SELECT_H

#include "kernels/kernels.h"

/* "base", "avx2" or "avx512"; NULL when this build or this processor lacks it. */
const sw_kernels *sw_kernels_cpu_level(const char *name);

#endif
