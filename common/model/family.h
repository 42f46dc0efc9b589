/* The families: one row each, one file family_X.c for those that need more than a few lines. A family says which
 * config.json it reads, how, and what its tensors are called. Adding a Llama-like one is a function of a few lines and
 * a row in family.c. */
#ifndef SW_MODEL_FAMILY_H
#define SW_MODEL_FAMILY_H

#include "model/spec.h"

struct sw_gguf;

/* Roles of tensors in a decoder, and their names in a checkpoint; %d is the layer. */
typedef enum sw_role {
    SW_T_EMBED, SW_T_NORM, SW_T_HEAD, SW_T_SCORE,
    SW_T_ATTN_NORM, SW_T_Q, SW_T_K, SW_T_V, SW_T_O, SW_T_Q_NORM, SW_T_K_NORM,
    SW_T_MLP_NORM, SW_T_GATE, SW_T_UP, SW_T_DOWN,
    SW_ROLE_COUNT
} sw_role;

typedef struct sw_family {
    const char *name;                  /* "qwen2" */
    const char *const *architectures;  /* of config.json, NULL-terminated: "Qwen2ForCausalLM" */
    const char *const *model_types;    /* of config.json, for files without architectures */
    const char *gguf;                  /* general.architecture, or NULL */
    /* Sets what differs from Llama. Common fields (sizes, rope, norm eps, tying, act) have been read. */
    int (*read)(sw_spec *s, const cJSON *config);
    const char *const *names;          /* [SW_ROLE_COUNT] module paths without ".weight"; NULL row: Llama's */
    bool gguf_permuted;                /* GGUF files hold q and k rows in interleaved rotary order */
} sw_family;

extern const sw_family sw_families[];
extern const size_t sw_family_count;

/* From a config.json tree; the error names the field that decides and the nearest known architectures. */
int sw_spec_from_config(sw_spec *s, const cJSON *config, const char *where) SW_MUST_CHECK;
int sw_spec_from_gguf(sw_spec *s, const struct sw_gguf *g) SW_MUST_CHECK;
const sw_family *sw_family_of(const sw_spec *s);
/* Module path of a role ("model.layers.3.self_attn.q_proj"); out holds at least 128 bytes. Returns out. */
char *sw_role_name(const sw_spec *s, sw_role role, int64_t layer, char out[128]);
/* The same in GGUF's naming ("blk.3.attn_q"). */
char *sw_role_gguf(sw_role role, int64_t layer, char out[128]);
/* A config.json for a model that came as GGUF. */
cJSON *sw_spec_to_config(const sw_spec *s);

#endif
