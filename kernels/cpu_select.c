#include "kernels/kernels.h"

/* The processor's own kernels are not in this build: the reference loops stand in. */
const sw_kernels *sw_kernels_cpu(const char **level)
{
    *level = "plain loops";
    return &sw_kernels_reference;
}
