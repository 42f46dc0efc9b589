/* Choosing the next token from logits, on the host. Settings at their neutral values change nothing; temperature 0 is
 * greedy. The order is that of Hugging Face and llama.cpp: penalties, temperature, top-k, top-p, min-p, draw. */
#ifndef SW_MODEL_SAMPLER_H
#define SW_MODEL_SAMPLER_H

#include "base/philox.h"

#include <stddef.h>
#include <stdint.h>

typedef struct sw_sampling {
    double temperature;         /* 0: greedy */
    int64_t top_k;              /* 0: all */
    double top_p;               /* 1: all. Smallest set whose probabilities reach it */
    double min_p;               /* 0: all. Tokens of at least this share of the best one's probability */
    double repetition_penalty;  /* 1: none. Logits of tokens seen (prompt too) are divided, negative ones multiplied (Keskar et al. 2019) */
    double presence_penalty;    /* 0: none. Taken off logits of tokens generated so far */
    double frequency_penalty;   /* 0: none. The same times how often */
    uint64_t seed;
} sw_sampling;

extern const sw_sampling sw_sampling_greedy;

/* Draws a token. logits [vocab] are changed by the penalties. seen: prompt and generated ids, the first n_prompt of n are
 * the prompt. The draw depends on (seed, stream, n - n_prompt) only. *logp: natural log-probability of the token under the
 * plain softmax of the logits, before any setting (NULL: not wanted). */
int32_t sw_sample(float *logits, int64_t vocab, const sw_sampling *s, const int32_t *seen, size_t n, size_t n_prompt, uint32_t stream,
                  double *logp);

#endif
