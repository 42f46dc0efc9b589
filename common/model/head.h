/* Products of the vocabulary's matrix other than the plain one, for sw_spec.head_product. x [N, hidden] -> [N, vocab] in the
 * context's product type. */
#ifndef SW_MODEL_HEAD_H
#define SW_MODEL_HEAD_H

#include "nn/linear.h"

/* Each row of the matrix counts by its direction only (Baichuan 2). No adapter, no quantised type. */
sw_var *sw_head_unit_rows(sw_ctx *c, sw_linear *l, sw_var *x) SW_MUST_CHECK;
/* Each column, one a value of the hidden state, is divided by its length; no gradient passes the lengths (Ling). No
 * quantised type. */
sw_var *sw_head_unit_columns(sw_ctx *c, sw_linear *l, sw_var *x) SW_MUST_CHECK;

#endif
