/* Templates cut in pieces, the other known way to find labels: each piece is tokenised alone. Kept beside the tests, to
 * tell what the numbers of trainers that work so mean; the programs label by rendering. */
#ifndef SW_GOLDEN_PIECES_H
#define SW_GOLDEN_PIECES_H

#include "text/template.h"

/* template: the object with prefix, system_prefix, prompt, chat_sep, suffix ... */
int golden_pieces_encode(const cJSON *template, const sw_tokenizer *t, sw_encoder *e, const cJSON *messages,
                         const cJSON *tokens, sw_ids *ids, sw_weights *weights);

#endif
