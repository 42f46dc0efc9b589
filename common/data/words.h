/* Words of a text, and the token that stands for each: the first of its tokens, as taggers are trained. */
#ifndef SW_DATA_WORDS_H
#define SW_DATA_WORDS_H

#include "text/tokenizer.h"

typedef struct sw_word {
    size_t start, end; /* bytes of the text */
} sw_word;
typedef struct sw_words {
    sw_word *at; /* in order, none reaches into the next */
    size_t n, cap;
} sw_words;

/* Appends the words of text[0..n) (UTF-8) from byte `from` on: runs of letters, marks and digits; each other character but white
 * space alone, and each Chinese one. No word reaches over byte `to`, where another one may begin. */
void sw_words_of(const char *text, size_t from, size_t to, sw_words *out);
/* Encodes text as sw_encode does, with special tokens. first[i]: index, in what is appended, of the first token of word i, the
 * one that its beginning lies in (words may share one); -1: it has none. A token that is white space alone belongs to what
 * follows it. */
int sw_words_encode(sw_encoder *e, const char *text, size_t n, const sw_words *w, sw_ids *ids, int32_t *first) SW_MUST_CHECK;

#endif
