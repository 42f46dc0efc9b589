/* Rotary position embedding: which frequencies, after transformers' modeling_rope_utils and the papers it names. */
#ifndef SW_MODEL_ROPE_H
#define SW_MODEL_ROPE_H

#include "base/error.h"
#include "base/memory.h"
#include "kernels/kernels.h"

#include <cjson/cJSON.h>

typedef enum sw_rope_kind {
    SW_ROPE_DEFAULT,
    SW_ROPE_LINEAR,
    SW_ROPE_DYNAMIC, /* NTK by the longest sequence of the batch */
    SW_ROPE_YARN,
    SW_ROPE_LLAMA3,
    SW_ROPE_LONGROPE,
    SW_ROPE_NTK_MIXED, /* BlueLM: frequency i, from 1, is divided by exp(a i^power), with a so that the last is divided by factor */
    SW_ROPE_PROPORTIONAL, /* Gemma 4: the exponents of the whole head, but only the first share of the pairs turns */
} sw_rope_kind;

typedef struct sw_rope_spec {
    sw_rope_kind kind;
    sw_rope_mode mode;
    double theta;
    int64_t dim;               /* width of the head that it turns, or part of */
    double partial;            /* share of it that turns; 0 is all */
    double factor;
    double power;              /* ntkmixed */
    double alpha;              /* dynamic, as Hunyuan has it: the base is multiplied once; 0: not given */
    double original_length;    /* original_max_position_embeddings; 0: max_position */
    double max_position;       /* of the model */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow;              /* yarn */
    double attention_factor;                  /* of cos and sin; 0: from the kind's own formula */
    double mscale, mscale_all_dim;            /* yarn as DeepSeek has it; 0: not given */
    bool truncate;                            /* yarn rounds its correction range */
    double short_mscale, long_mscale;         /* longrope as Phi-3.5-MoE has it: attention factors by length; 0: not given */
    double *short_factor, *long_factor;       /* longrope, dim / 2 each; of the spec's arena */
    bool backward;                            /* the plain kind turns the other way */
} sw_rope_spec;

/* Reads one object of rope numbers (rope_parameters, rope_scaling; NULL: none) beside the older spellings at the top of
 * config (rope_theta, partial_rotary_factor). What r holds before is what absent numbers are; dim and max_position of r
 * must be set. Errors name the field. */
int sw_rope_read(sw_rope_spec *r, const cJSON *o, const cJSON *config, sw_arena *arena) SW_MUST_CHECK;
/* Number of angles R that turn (half the rotated width). */
int64_t sw_rope_pairs(const sw_rope_spec *r);
/* Whether the frequencies depend on the length of the text. */
static inline bool sw_rope_by_length(const sw_rope_spec *r) { return r->kind == SW_ROPE_DYNAMIC || r->kind == SW_ROPE_LONGROPE; }
/* The length it was trained for before it was scaled. */
static inline double sw_rope_trained(const sw_rope_spec *r) { return r->original_length > 0 ? r->original_length : r->max_position; }
/* inv_freq f32 [R] for a batch whose longest sequence has `length` places, and the scale of cos and sin. */
void sw_rope_frequencies(const sw_rope_spec *r, int64_t length, float *inv_freq, double *scale);
/* What DeepSeek's yarn multiplies the scale of the scores by (mscale_all_dim, squared); 1 where it has none. */
double sw_rope_score_scale(const sw_rope_spec *r);

#endif
