/* Multi-head latent attention (DeepSeek-AI 2024, arXiv 2405.04434, section 2.1): keys and values of all heads come from one
 * compressed latent a token, and a small part of each key, which alone turns, is shared by all heads. */
#ifndef SW_MODEL_MIXER_MLA_H
#define SW_MODEL_MIXER_MLA_H

#include "model/indexer.h"

typedef struct sw_mla {
    int64_t q_rank;           /* width of the latent of queries; 0: they come from the hidden states at once */
    int64_t kv_rank;          /* of keys and values */
    int64_t nope, rope;       /* widths of a key's two parts; the second turns and is shared */
    bool bias;                /* of the projections to the latents and of the output's */
    double q_scale, kv_scale; /* of queries, and of the latent of keys and values; 0: none */
    bool gated;               /* what each head gives is weighted by sigmoid(g_proj x) */
    sw_indexer indexer;
} sw_mla;

/* Tensors of one such attention. */
typedef struct sw_mla_parts {
    const sw_mla *options;
    sw_linear q, q_a, q_b, kv_a, kv_b, g, o;
    sw_norm q_norm, kv_norm;
    sw_indexer_parts indexer;
} sw_mla_parts;

/* For blocks with several, which have no indexer: declares one under `place` ("self_attn."), runs it with the state number
 * `state`, and says what state that is. */
void sw_mla_declare(sw_builder *b, sw_mla_parts *a, const char *place, const sw_mla *options);
sw_var *sw_mla_forward(sw_ctx *c, sw_mla_parts *a, const sw_pass *p, sw_var *x, int state) SW_MUST_CHECK;
sw_state_spec sw_mla_state(const sw_mla *options);

/* Options by the fields of config.json that families share (q_lora_rank, kv_lora_rank, qk_nope_head_dim, ...), in s's arena;
 * widths and scale of every layer become theirs. */
int sw_mla_read(sw_spec *s, const cJSON *config, sw_mla **out) SW_MUST_CHECK;
/* For families' `layers`: that in every layer. out: the options, or NULL. */
int sw_mla_layers(sw_spec *s, const cJSON *config, sw_mla **out) SW_MUST_CHECK;

extern const sw_mixer_ops sw_mixer_mla; /* mixer_options: sw_mla */

#endif
