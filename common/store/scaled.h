/* Weights that files hold in few bits with scales beside them, shown as the bf16 that they stand for: 8-bit floats with a scale
 * a tensor, a row or a block (DeepSeek 3, fbgemm, compressed-tensors), and the 4-bit floats of gpt-oss (MXFP4: OCP
 * Microscaling Formats 1.0). Rows are computed when they are read; there is never a second copy of a model. */
#ifndef SW_STORE_SCALED_H
#define SW_STORE_SCALED_H

#include "store/checkpoint.h"

/* Whether this configuration's "quantization_config" is one that is read here; the error names the method. config may be NULL. */
int sw_scaled_check(const cJSON *config) SW_MUST_CHECK;
/* What entry e of c shows itself as: *out is e, one that is made of it and its scales (arena's), or NULL where it is such a scale. */
int sw_scaled_entry(const sw_checkpoint *c, const sw_entry *e, const sw_entry **out, sw_arena *arena) SW_MUST_CHECK;

#endif
