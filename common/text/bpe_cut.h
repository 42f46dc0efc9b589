/* Byte-level BPE in time linear in the word: its ids are found from the left, each the longest that can stand beside
 * the one before. Private to common/text/. */
#ifndef SW_TEXT_BPE_CUT_H
#define SW_TEXT_BPE_CUT_H

#include "text/tokenizer_parts.h"

/* The tables that cutting needs, of a byte-level tokenizer: a tenth of a second for a large vocabulary. NULL: it has
 * tokens that cutting is not made for, and words have to be merged. */
struct sw_bpe_cuts *sw_bpe_cuts_new(const sw_tokenizer *t);
void sw_bpe_cuts_free(struct sw_bpe_cuts *c);
/* As sw_bpe_bytes; a word that is a token as a whole is that one where the tokenizer ignores merges. */
int sw_bpe_cut(const sw_tokenizer *t, const struct sw_bpe_cuts *c, sw_bpe_scratch *s, const char *word, size_t n,
               sw_ids *ids) SW_MUST_CHECK;

#endif
