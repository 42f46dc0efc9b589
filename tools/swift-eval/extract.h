/* Answers out of free text: regular expressions that find them, and spellings that count as the same. */
#ifndef SWIFT_EVAL_EXTRACT_H
#define SWIFT_EVAL_EXTRACT_H

#include "base/error.h"
#include "base/json.h"
#include "base/strbuf.h"

/* Rules in the order they are tried. Zero value: none, the whole text is the answer. */
typedef struct eval_rules {
    struct eval_rule *at;
    size_t n;
} eval_rules;

/* v: a regular expression (PCRE2, the last match counts), {"regex", "which": "first" | "last", "when"}, or a list of
 * these. `when` is a regular expression for the right answer: the rule is tried only where it matches. NULL is none. */
int eval_rules_read(const cJSON *v, const char *what, eval_rules *out) SW_MUST_CHECK;
void eval_rules_free(eval_rules *r);

/* The text of the last group that took part in the match, or of the whole match. 1 found (replaces out), 0 no rule
 * finds anything, -1 failed (a match that takes too long). */
int eval_extract(const eval_rules *r, sw_span text, sw_span right, sw_buf *out) SW_MUST_CHECK;

/* What does not matter when two answers are compared. White space at both ends never does. */
enum {
    EVAL_CASE = 1,         /* Unicode case folding */
    EVAL_PUNCTUATION = 2,  /* punctuation goes, and the ASCII symbols $+<=>^`|~; not where nothing would be left */
    EVAL_WHITESPACE = 4,   /* runs of white space are one space */
    EVAL_NUMBER = 8,       /* numbers by their value: $1,234.50 is 1234.5, a point at the end goes, U+2212 is a minus */
    EVAL_LETTER = 16,      /* a single letter may stand in brackets, or before one or a point: (B), B) and B. are B */
};
/* A list of case, punctuation, whitespace, number, letter; NULL is none. */
int eval_normalise_read(const cJSON *v, unsigned *out) SW_MUST_CHECK;
/* The same, separated by commas. */
int eval_normalise_parse(const char *list, unsigned *out) SW_MUST_CHECK;
/* Replaces out. text is valid UTF-8. */
void eval_normalise(unsigned what, sw_span text, sw_buf *out);

/* Runs of characters that are no white space. */
size_t eval_words(sw_span text);

#endif
