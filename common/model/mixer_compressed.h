/* Attention over a window of tokens and, in the same softmax, over rows that windows of earlier tokens were pooled into
 * (DeepSeek-AI 2026, DeepSeek-V4, section 2.3). Every token has one key, which is its value too and all heads read; what the
 * heads give is turned back, and goes to the output through latents of groups of heads. */
#ifndef SW_MODEL_MIXER_COMPRESSED_H
#define SW_MODEL_MIXER_COMPRESSED_H

#include "model/indexer.h"

typedef struct sw_compressed {
    int64_t q_rank;             /* width of the latent of queries */
    int64_t groups, group_rank; /* of the output; the width of a group's latent */
    int64_t nope;               /* values of a head before those that turn */
    int64_t every;              /* tokens of a row; 0: the layer has no rows */
    bool overlap;               /* a row is made of two windows, its own and the one before */
    sw_indexer indexer;         /* topk rows are seen; 0: all. Its mode and what it follows are not used */
} sw_compressed;

extern const sw_mixer_ops sw_mixer_compressed; /* mixer_options: sw_compressed */

enum { SW_MOST_WINDOWS = 2 };
/* What layers with rows need of a batch (p->body begins with it or is it): for a body's `enter`. NULL after an error. */
struct sw_windows_of_pass *sw_windows_of(sw_ctx *c, sw_pass *p) SW_MUST_CHECK;

#endif
