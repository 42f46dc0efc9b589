/* What a decoder computes, as data. The zero value of every field is plain Llama; a family is a function that reads its
 * config.json into a spec and a map of its tensor names (family.h). One generic decoder (decoder.c) builds from it. */
#ifndef SW_MODEL_SPEC_H
#define SW_MODEL_SPEC_H

#include "base/error.h"
#include "kernels/kernels.h"

#include "base/memory.h"

#include <cjson/cJSON.h>

typedef enum sw_rope_kind {
    SW_ROPE_DEFAULT,
    SW_ROPE_LINEAR,
    SW_ROPE_DYNAMIC, /* NTK by the longest sequence of the batch */
    SW_ROPE_YARN,
    SW_ROPE_LLAMA3,
    SW_ROPE_LONGROPE,
} sw_rope_kind;

typedef struct sw_rope_spec {
    sw_rope_kind kind;
    sw_rope_mode mode;
    double theta;
    double partial;            /* share of the head that turns; 0 is all */
    double factor;
    double original_length;    /* original_max_position_embeddings; 0: max_position */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow;              /* yarn */
    double attention_factor;                  /* of cos and sin; 0: from the kind's own formula */
    double mscale, mscale_all_dim;            /* yarn as DeepSeek has it; 0: not given */
    bool truncate;                            /* yarn rounds its correction range */
    double *short_factor, *long_factor;       /* longrope, dim / 2 each; owned by the spec's arena */
    double *divisors;          /* GGUF's rope_freqs: each plain frequency is divided by its own; dim / 2, or NULL */
} sw_rope_spec;

typedef enum sw_task {
    SW_TASK_LM,
    SW_TASK_CLASSIFY, /* score head at the last token; num_labels 1 is a reward or value */
} sw_task;

typedef struct sw_spec {
    const char *family;        /* row of the family table */
    sw_task task;
    int64_t vocab, hidden, layers, heads, kv_heads, head_dim, mlp, max_position, labels;
    double norm_eps;
    sw_act act;
    sw_rope_spec rope;
    double attention_scale;    /* 0: 1/sqrt(head_dim) */
    int64_t window;            /* sliding window; 0: none */
    int64_t full_every;        /* layer i is full attention where (i + 1) % full_every == 0; 0: the window is everywhere */
    int64_t window_from;       /* the window holds from this layer on */
    bool *sliding;             /* [layers] by layer_types, or NULL; wins over the two above */
    bool q_bias, k_bias, v_bias, o_bias, mlp_bias;
    bool qk_norm;              /* RMS norm of every head of q and k, before the rotation */
    bool tied;                 /* lm_head is the embedding */
    int32_t bos, eos[8], pad;  /* -1: none; eos ends with -1 */
    double embedding_scale, logit_scale, logit_softcap, attention_softcap; /* 0: none */
    sw_arena arena;            /* of the arrays above */
} sw_spec;

void sw_spec_free(sw_spec *s);
/* Reads rope_parameters / rope_scaling / rope_theta of config.json in either spelling. head_dim and max_position of s
 * must be set. */
int sw_spec_read_rope(sw_spec *s, const cJSON *config) SW_MUST_CHECK;
/* Checks what every decoder needs (positive sizes, heads a multiple of kv_heads, ...); errors name the field. */
int sw_spec_check(const sw_spec *s) SW_MUST_CHECK;
/* Number of angles R that turn (half the rotated width). */
int64_t sw_rope_pairs(const sw_spec *s);
/* inv_freq f32 [R] for a batch whose longest sequence has `length` places, and the scale of cos and sin. */
void sw_rope_frequencies(const sw_spec *s, int64_t length, float *inv_freq, double *scale);

#endif
