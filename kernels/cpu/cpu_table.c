#include "cpu_isa.h"
#include "cpu_linear.h"

extern const sw_kernels SW_CPU(table), SW_CPU(table_rounding);
#define K(name, args) SW_CPU(name),
const sw_kernels SW_CPU(table) = {
#include "kernels/kernels.def"
};
/* The same but for two. */
#define linear_fwd linear_rounded
#define linear_act_fwd linear_act_rounded
#define grouped_fwd grouped_rounded
const sw_kernels SW_CPU(table_rounding) = {
#include "kernels/kernels.def"
};
#undef K
