/* What encoders after BERT have in common: for the files of their families. */
#ifndef SW_MODEL_ENCODER_H
#define SW_MODEL_ENCODER_H

#include "model/family.h"

/* Norms behind the residuals, none after the last layer; what has biases. */
#define SW_BERT_NORMS                                                                                                   \
    .norm = {.kind = SW_NORM_LAYER, .bias = true, .eps = 1e-12}, .norm_place = SW_RESIDUAL_NORM, .no_final_norm = true,  \
    .embed_norm = true, .bidirectional = true, .tied = true
#define SW_BERT_ATTENTION_BIASES .q_bias = true, .k_bias = true, .v_bias = true, .o_bias = true
#define SW_BERT_MLP .mlp_bias = true, .down_bias = true, .plain_mlp = true

/* One more layer with a norm before the words, and one behind the first token before classes, with these activations; classes of
 * tokens have none. Embeddings are means. */
void sw_bert_heads(sw_spec *s, sw_act before_words, sw_act before_classes);
/* Refuses decoders, and reads how many types tokens have. */
int sw_bert_read(sw_spec *s, const cJSON *config, int64_t types) SW_MUST_CHECK;
/* Positions begin behind the padding token's id, and max_position_embeddings counts the rows of the table before them. */
int sw_bert_positions(sw_spec *s) SW_MUST_CHECK;

#endif
