/* Choosing the next token from logits: what a sequence asks of the kernel `sample`. Settings at their neutral values change
 * nothing; temperature 0 is greedy. */
#ifndef SW_MODEL_SAMPLER_H
#define SW_MODEL_SAMPLER_H

#include "kernels/kernels.h"

typedef struct sw_sampling { /* as sw_draw has them */
    double temperature;
    int64_t top_k;
    double top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    uint64_t seed;
} sw_sampling;

extern const sw_sampling sw_sampling_greedy;

/* Tokens of all rows that penalties are for, as the kernel takes them. */
typedef struct sw_seen_tokens { int32_t (*at)[2]; size_t n, cap; } sw_seen_tokens;

/* The draw of token n - n_prompt of an answer. ids: prompt and answer so far, the first n_prompt of n are the prompt. It
 * depends on (seed, stream, n - n_prompt) only. Tokens for the penalties, where there are any, come behind seen's. */
sw_draw sw_sampling_draw(const sw_sampling *s, const int32_t *ids, size_t n, size_t n_prompt, uint32_t stream, sw_seen_tokens *seen);

#endif
