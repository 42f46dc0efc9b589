/* LoRA (Hu et al. 2021, arXiv 2106.09685): y = W x + scale * B A dropout(x), scale = alpha / r, or alpha / sqrt(r) with
 * rsLoRA (Kalajdzievski 2023, arXiv 2312.03732). A [r, in], B [out, r]. */
#ifndef SW_ADAPTER_LORA_H
#define SW_ADAPTER_LORA_H

#include "nn/linear.h"

typedef struct sw_lora {
    sw_adapter adapter;
    sw_param *a, *b;
    double scale, dropout;
    uint32_t site; /* of the dropout's random numbers */
    /* Of the first of many experts': the factors of all while sw_layout() == seen; owned. */
    sw_param **all_a, **all_b;
    uint64_t seen;
} sw_lora;

#endif
