/* Generation: sequences of different lengths decoded together over one key-value cache. As one ends the next takes its
 * slot, and the batch waits while its prompt is read, in chunks. A step is of prompts or of tokens, not of both, so that what a
 * token's step computes does not depend on who else comes. A prompt that several sequences in a row begin with (samples) is
 * read once, and they share its memory.
 *
 * Where the model has an encoder the prompt is what the encoder reads, whole and once, and the decoder begins with the
 * token that the model's configuration says. Configurations may also force the token after the first of a sequence, which
 * such a decoder answers with, and the last one that a limit allows. */
#ifndef SW_MODEL_GENERATE_H
#define SW_MODEL_GENERATE_H

#include "model/model.h"
#include "model/sampler.h"

typedef enum sw_finish { SW_FINISH_NONE, SW_FINISH_STOP, SW_FINISH_LENGTH, SW_FINISH_CALLER } sw_finish;

typedef struct sw_sequence {
    /* given */
    const int32_t *prompt;
    size_t n_prompt;
    int64_t max_tokens;
    sw_sampling sampling;
    uint32_t stream;             /* which of n samples: another one draws other numbers */
    const int32_t *stop;         /* token ids that end it (not part of the result) */
    size_t n_stop;
    bool want_logprobs;
    /* Called for each token as it comes; non-zero ends the sequence (stop strings), NULL: none. */
    int (*on_token)(struct sw_sequence *s, int32_t id);
    void *arg;
    /* result */
    struct { int32_t *at; size_t n, cap; } out;
    struct { double *at; size_t n, cap; } logprobs;
    sw_finish finish;
    double first_token_at, done_at; /* sw_now() */
    /* private */
    const int32_t *given; /* what the decoder begins with: the prompt, or the first token behind an encoder */
    size_t n_given, fed;
} sw_sequence;

typedef struct sw_generator {
    sw_model *model;
    sw_ctx ctx;
    sw_cache cache;
    int64_t slots;
    bool rounding; /* steps of tokens run the device's table `rounding`, where it has one; off after sw_generator_init */
    const sw_sequence *kept; /* whose prompt, read, lies in the slot behind the others: the next begins with it too */
    sw_tensor kept_logits;   /* device [1, vocab]: what it ends with */
    int32_t start;                      /* what a decoder behind an encoder begins with: the spec's */
    int32_t forced_second, forced_last; /* -1: none. The second token of a sequence; what max_tokens ends it with */
} sw_generator;

/* compute: type of activations. slots: sequences decoded together. */
int sw_generator_init(sw_generator *g, sw_model *m, sw_dtype compute, int64_t slots) SW_MUST_CHECK;
void sw_generator_free(sw_generator *g);
/* What generation_config.json says of these tokens (decoder_start_token_id, forced_bos_token_id, forced_eos_token_id), or
 * where there is none (NULL) config.json, as transformers' generate has it. Either may be NULL. */
int sw_generator_configure(sw_generator *g, const cJSON *config, const cJSON *generation) SW_MUST_CHECK;
/* Runs all; results lie in the sequences (free with sw_sequence_free). Stops early, without an error, when *stop becomes
 * true (NULL: never): unfinished sequences keep SW_FINISH_NONE. Logits that are no numbers where an answer begins are an error. */
int sw_generate(sw_generator *g, sw_sequence **seqs, size_t n, bool (*stop)(void)) SW_MUST_CHECK;
void sw_sequence_free(sw_sequence *s);

/* Log-likelihood: logp[i] = log p(ids[i] | ids[0..i)) for i in [first, n), first >= 1; best[i] (may be NULL) the most likely
 * token there. Both arrays hold n values; the first ones are left alone. Where the model has an encoder, it reads the ids
 * before `first`, and a forced second token comes before the others. Logits that are no numbers are an error. */
int sw_score_tokens(sw_generator *g, const int32_t *ids, size_t n, size_t first, float *logp, int32_t *best) SW_MUST_CHECK;

#endif
