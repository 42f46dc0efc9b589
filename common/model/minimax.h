/* MiniMax-Text-01: factors of its residuals, and its lightning attention (family_minimax.c). */
#ifndef SW_MODEL_MINIMAX_H
#define SW_MODEL_MINIMAX_H

#include "model/block.h"

/* mixer_options of its layers, whichever mixer they have. */
typedef struct sw_minimax_options {
    double alpha, beta, mlp_alpha, mlp_beta; /* of the residual, and of what is added to it: of the mixer, of the feed-forward */
    int64_t block;                           /* of the tables that files carry */
} sw_minimax_options;

extern const sw_mixer_ops sw_mixer_lightning;
extern const sw_block_ops sw_block_minimax;

#endif
