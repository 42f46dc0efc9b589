/* Inside of a tokenizer: what its readers fill and its stages use. Private to common/text/. */
#ifndef SW_TEXT_TOKENIZER_PARTS_H
#define SW_TEXT_TOKENIZER_PARTS_H

#include "base/map.h"
#include "base/memory.h"
#include "text/tokenizer.h"

#include <cjson/cJSON.h>

/* ---- pre-tokenizers: a chain of cutters, each applied to the pieces of the one before */
typedef enum sw_cut_kind {
    SW_CUT_GPT2,    /* the pattern of GPT-2, by a hand scanner */
    SW_CUT_CL100K,  /* that of cl100k and its kin (Llama 3, Qwen 2): digits in groups of at most `digits` */
    SW_CUT_DIGITS,  /* each digit alone, or runs of digits */
    SW_CUT_REGEX,   /* any other expression; matches and what lies between them are pieces */
} sw_cut_kind;

typedef struct sw_cut {
    sw_cut_kind kind;
    int digits;             /* CL100K: longest group; DIGITS: 1 alone, 0 runs */
    char *expression;       /* as the file spells it, or NULL */
    struct pcre2_real_code_8 *regex;
} sw_cut;

typedef struct sw_added {
    char *text;
    size_t n;
    int32_t id;
    bool special, lstrip, rstrip, single_word, normalized;
} sw_added;

typedef struct sw_merge { /* slot of the open-addressed table */
    int32_t left, right;    /* -1: empty */
    int32_t rank, id;
} sw_merge;

struct sw_tokenizer {
    sw_arena arena;
    sw_span *pieces;        /* [size] as decoding sees them (an added token wins); at NULL: no such id */
    sw_span *words;         /* [size] the model's own vocabulary; at NULL: the id is an added token's alone */
    sw_span *bytes;         /* [size] what they stand for */
    int64_t size;
    sw_map ids;             /* spelling -> id */
    int32_t byte_ids[256];  /* -1: none */
    sw_merge *merges;
    size_t merge_cap, n_merges;
    bool ignore_merges, nfc;
    bool trim_offsets, trim_keeps_first; /* of the post-processor */
    struct { sw_cut *at; size_t n, cap; } cuts;
    struct { sw_added *at; size_t n, cap; } added;
    uint8_t *special;       /* [size] 1: special added token, 2: added token */
    uint16_t *added_first;  /* [256] 1 where an added token begins with that byte */
    sw_ids prefix, suffix;  /* what the post-processor puts around one text */
    sw_ids pair_prefix;     /* before the second of a pair */
    int32_t bos, eos, pad, unk;
    bool adds_bos, adds_eos;
    char *chat_template;
    const char *pre_name;   /* GGUF's name of the pre-tokenizer, or NULL */
};

sw_tokenizer *sw_tokenizer_new(void);
/* Appends cut positions (ends) of text[0..n) under one cutter. */
int sw_cut_text(const sw_cut *c, const char *text, size_t n, sw_ids *ends) SW_MUST_CHECK;
/* A cutter from a regular expression: a known one gets its hand scanner. */
int sw_cut_from_regex(sw_tokenizer *t, const char *expression) SW_MUST_CHECK;
void sw_cut_simple(sw_tokenizer *t, sw_cut_kind kind, int digits);
void sw_cut_free(sw_cut *c);

/* Byte-level spelling: each byte is a printable character (Radford et al. 2019). */
uint32_t sw_byte_char(uint8_t byte);
int sw_char_byte(uint32_t cp); /* -1: stands for no byte */

/* Builds tables from pieces, added tokens and merges; the size must be set. */
void sw_tokenizer_size_is(sw_tokenizer *t, int64_t size);
void sw_tokenizer_set_word(sw_tokenizer *t, int32_t id, const char *s, size_t n);  /* of the model */
void sw_tokenizer_set_added(sw_tokenizer *t, const sw_added *a);                  /* takes a's text */
int sw_tokenizer_add_merge(sw_tokenizer *t, const char *left, size_t nl, const char *right, size_t nr, int32_t rank) SW_MUST_CHECK;
void sw_tokenizer_reserve_merges(sw_tokenizer *t, size_t n);
int sw_tokenizer_finish(sw_tokenizer *t) SW_MUST_CHECK;

/* Byte-pair merging of one word (bytes); appends ids. scratch grows as needed and is reused. */
typedef struct sw_bpe_scratch {
    struct { int32_t id, prev, next, len; } *node;
    size_t cap;
    struct { int32_t rank, at, left, right; } *heap;
    size_t heap_cap;
} sw_bpe_scratch;
/* lens (may be NULL) gets the bytes of each id. */
int sw_bpe_word(const sw_tokenizer *t, sw_bpe_scratch *s, const uint8_t *word, size_t n, sw_ids *ids, sw_ids *lens) SW_MUST_CHECK;

#endif
