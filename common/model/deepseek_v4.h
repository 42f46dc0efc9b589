/* What a layer of DeepSeek-V4 has besides its experts (family_deepseek_v4.c): attention of its kind, and streams. */
#ifndef SW_MODEL_DEEPSEEK_V4_H
#define SW_MODEL_DEEPSEEK_V4_H

#include "model/mixer_compressed.h"

/* Hidden states side by side (hyper-connections). */
typedef struct sw_streams {
    int64_t n;
    int rounds; /* of Sinkhorn's, of the matrix between them */
    double eps; /* added to gates and sums */
} sw_streams;

/* mixer_options of a layer */
typedef struct sw_deepseek_v4 {
    sw_compressed attention; /* first: they are the mixer's */
    sw_streams streams;      /* the same for all */
} sw_deepseek_v4;

#endif
