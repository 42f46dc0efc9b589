/* What Gemma 3n and 4 share: layers that use keys and values of an earlier one, norms of the values, and an input of its own
 * for each layer (per-layer embeddings). */
#ifndef SW_MODEL_GEMMA_LAYERS_H
#define SW_MODEL_GEMMA_LAYERS_H

#include "model/family.h"

/* ---- attention */

/* The mixer_options of a layer. While training, keys and values that later layers use travel with the hidden states, as
 * columns behind them, so that their gradient finds its way back block by block; in generation they are in the cache. */
typedef struct sw_kv_sharing {
    int64_t source;      /* the layer whose keys and values this one uses; -1: its own */
    bool stores;         /* later layers use this one's */
    bool value_is_key;   /* values are the keys before their norm and rotation */
    int64_t carried;     /* columns that come in behind the hidden states */
    int64_t at;          /* of those, where the source's keys begin; its values follow */
} sw_kv_sharing;

extern const sw_mixer_ops sw_mixer_shared_kv;
/* Fills mixer, mixer_options and rope of every layer; the last `shared` ones use the last earlier layer of their kind
 * (sliding or full). value_is_key: of full layers. */
int sw_share_kv(sw_spec *s, int64_t shared, bool value_is_key) SW_MUST_CHECK;
/* Whether a tensor of the file makes keys or values of a layer that uses another's: published files have them. */
bool sw_kv_is_unused(const sw_spec *s, const char *name);
/* The running block's attention over x [N, hidden], normed. whole: the block's input with what it carries. kv: the keys and
 * values that must travel on from here, or NULLs. */
sw_var *sw_attend_shared(sw_ctx *c, const sw_pass *p, sw_var *x, sw_var *whole, sw_var *kv[2]) SW_MUST_CHECK;
/* The block's output [N, width] with what travels behind it; width: of the hidden states alone. */
sw_var *sw_carry(sw_ctx *c, const sw_pass *p, sw_var *x, sw_var *whole, int64_t width, sw_var *const kv[2]) SW_MUST_CHECK;

/* ---- inputs of each layer */

typedef struct sw_layer_inputs {
    sw_linear table;      /* [vocabulary of its own, layers * width] */
    sw_linear projection; /* of the embedding */
    sw_norm norm;
    int64_t width;        /* 0: the model has none */
} sw_layer_inputs;

void sw_declare_layer_inputs(sw_builder *b, sw_layer_inputs *in, int64_t vocab, int64_t width);
/* From x, the embedding: [N, layers * width], kept for all blocks. */
sw_var *sw_layer_inputs_of(sw_ctx *c, sw_layer_inputs *in, sw_pass *p, sw_var *x) SW_MUST_CHECK;

/* A block's part of it: norm(projection(act(gate(x)) * input)). */
typedef struct sw_layer_input {
    sw_linear gate, projection;
    sw_norm norm;
} sw_layer_input;
void sw_declare_layer_input(sw_builder *b, sw_layer_input *in, int64_t width);
sw_var *sw_layer_input_of(sw_ctx *c, sw_layer_input *in, const sw_pass *p, sw_var *x) SW_MUST_CHECK;

#endif
