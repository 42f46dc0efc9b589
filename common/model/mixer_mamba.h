/* Options of the state-space mixers. Sizes are checked by whoever fills them: sw_mamba_check, sw_mamba2_check. */
#ifndef SW_MODEL_MIXER_MAMBA_H
#define SW_MODEL_MIXER_MAMBA_H

#include "model/block.h"

typedef struct sw_mamba_options {
    int64_t inner, state, taps, rank; /* channels, values of state of each, of the convolution, of the step's projection */
    bool bias, conv_bias;             /* of in_proj and out_proj; of the convolution */
    sw_norm_spec inner_norm;          /* of dt, B and C; eps 0: none */
    sw_act act;                       /* behind the convolution; the gate's is SiLU */
} sw_mamba_options;
int sw_mamba_check(const sw_mamba_options *o) SW_MUST_CHECK;

typedef struct sw_mamba_heads_options {
    int64_t heads, inner, state, taps, rank; /* inner: of all heads */
    bool bias, conv_bias;
    sw_act act;        /* behind the convolution */
    const char *place; /* before its tensors' names */
    int first_state;   /* its first state's number; it has 1 + heads of them */
} sw_mamba_heads_options;
int sw_mamba_heads_check(const sw_mamba_heads_options *o) SW_MUST_CHECK;

typedef enum sw_gated_norm {
    SW_GATE_THEN_NORM, /* norm(x silu(z)) */
    SW_NORM_THEN_GATE,
    SW_GATE_ONLY,
} sw_gated_norm;

typedef struct sw_mamba2_options {
    int64_t heads, head_dim, groups, state, taps;
    bool in_bias, out_bias, conv_bias;
    int first_state; /* its first state's number, where the layer has others before it */
    const char *place; /* before its tensors' names; NULL: "mamba." */
    sw_act act;
    sw_gated_norm norm; /* over each group */
    double eps;
    double dt_least, dt_most;              /* of the step; 0: no limit */
    double in_scale, out_scale;            /* of what comes in and goes out; 0: 1 */
    double z_scale, x_scale, b_scale, c_scale, dt_scale; /* of in_proj's parts; all 0: none */
} sw_mamba2_options;
int sw_mamba2_check(const sw_mamba2_options *o) SW_MUST_CHECK;
/* From a hybrid's fields (mamba_n_heads and so on); NULL with an error. */
const sw_mamba2_options *sw_mamba2_read(sw_spec *s, const cJSON *config);
void sw_mamba2_layer(sw_layer *l, const sw_mamba2_options *o);
/* Whether layer_types or layers_block_type call layer i attention, in any of the names that is given; `missing` without. */
bool sw_is_full_attention(const cJSON *config, int64_t i, bool missing);
/* time_step_limit of a configuration, where it has one. */
int sw_mamba2_read_limit(sw_mamba2_options *o, const cJSON *config) SW_MUST_CHECK;

extern const sw_mixer_ops sw_mixer_mamba;
extern const sw_mixer_ops sw_mixer_mamba2;
extern const sw_mixer_ops sw_mixer_mamba_heads;

#endif
