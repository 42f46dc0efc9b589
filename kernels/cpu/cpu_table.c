#include "cpu_isa.h"

extern const sw_kernels SW_CPU(table);
const sw_kernels SW_CPU(table) = {
#define K(name, args) .name = SW_CPU(name),
#include "kernels/kernels.def"
#undef K
};
