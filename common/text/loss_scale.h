/* Loss scales: how much the parts of an answer weigh, told by patterns in its text, as ms-swift's loss_scale. */
#ifndef SW_TEXT_LOSS_SCALE_H
#define SW_TEXT_LOSS_SCALE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct sw_loss_scale sw_loss_scale;

/* spec: [BASE][+RULE]..., where BASE is default, last_round or all, and a RULE a preset (sw_loss_scale_presets) or a
 * JSON file; a file's name that holds a + must be alone. Rules multiply. *base: 0 where spec names none, else 'd', 'l'
 * or 'a'.
 *
 * A file is an object: {"text": weights, ...}, or {"query": {...}, "response": {...}} of such. Weights of two numbers:
 * the text is a key; it weighs the first, what follows it up to the next key the second. One number (alone or in a
 * list): the text is a regular expression (a dot matches line breaks too), what it matches weighs that; used where no
 * key is given. query: where the user's text holds one of these, the whole answer weighs the number. What no rule names
 * weighs 1. */
sw_loss_scale *sw_loss_scale_load(const char *spec, char *base) SW_MUST_CHECK;
void sw_loss_scale_free(sw_loss_scale *s);
bool sw_loss_scale_is_plain(const sw_loss_scale *s); /* no rules: all weigh 1 */
const char *const *sw_loss_scale_presets(void);      /* NULL-terminated names */

/* The weight of each byte of answer[0..n), given the user's text before it, multiplied into weights[0..n). */
int sw_loss_scale_apply(const sw_loss_scale *s, const char *query, size_t query_n, const char *answer, size_t n,
                        float *weights) SW_MUST_CHECK;

#endif
