/* Inside of a tokenizer: what its readers fill and its stages use. Private to common/text/.
 *
 * The stages are those of tokenizer.json, and a tokenizer of any other kind is turned into them: normalisers edit the
 * text and remember where each byte came from, pre-tokenizers cut it into pieces, a model gives the ids of a piece, a
 * post-processor puts special tokens around them, and a decoder goes the other way. */
#ifndef SW_TEXT_TOKENIZER_PARTS_H
#define SW_TEXT_TOKENIZER_PARTS_H

#include "base/map.h"
#include "base/memory.h"
#include "text/tokenizer.h"
#include "text/tokenizer_trie.h"

#include <cjson/cJSON.h>
#include <pthread.h>

enum { SW_MOST_TOKENS = 1 << 24, SW_DEEPEST_SEQUENCE = 16 };

/* ---- patterns: a literal or a regular expression (Oniguruma's syntax) */

typedef enum sw_scanner_kind {
    SW_SCAN_NONE,   /* PCRE2 */
    SW_SCAN_GPT2,   /* the pattern of GPT-2 */
    SW_SCAN_CL100K, /* that of cl100k, Llama 3, Qwen 2 */
    SW_SCAN_O200K,  /* that of o200k, Llama 4, Tekken: words that change from lower to upper case are cut */
} sw_scanner_kind;

typedef struct sw_pattern {
    char *literal;
    size_t n;
    char *expression;
    sw_scanner_kind scanner; /* its hand-written equal, whose matches leave nothing between them */
    int digits;              /* longest group of them */
    bool marks, contractions, slash;
    struct pcre2_real_code_8 *regex;
} sw_pattern;

typedef struct sw_match {
    uint32_t start, end;
    bool hit; /* a match, or what lies between two */
} sw_match;
typedef struct sw_matches {
    sw_match *at;
    size_t n, cap;
} sw_matches;

int sw_pattern_literal(sw_pattern *p, const char *text, size_t n) SW_MUST_CHECK;
int sw_pattern_regex(sw_pattern *p, const char *expression) SW_MUST_CHECK;
void sw_pattern_free(sw_pattern *p);
/* Cuts text[0..n) into matches and what lies between, in order. */
int sw_pattern_matches(const sw_pattern *p, const char *text, size_t n, sw_matches *out) SW_MUST_CHECK;
/* A scanner's next piece of text[i..n): where it ends. i < n. */
size_t sw_scan_next(const sw_pattern *p, const char *text, size_t n, size_t i);
/* As many of them as fit; returns how many. */
size_t sw_scan_many(const sw_pattern *p, const char *text, size_t n, size_t i, uint32_t *ends, size_t most);
/* Whether an expression is one that there is a scanner for; fills the scanner's fields. */
bool sw_scan_known(sw_pattern *p, const char *expression);
/* Oniguruma's syntax in the words of PCRE2 (appended). */
int sw_regex_translate(const char *expression, sw_buf *out) SW_MUST_CHECK;

/* ---- the text being worked on */

typedef struct sw_from { /* where a byte came from: [start, end) in the text given */
    uint32_t start, end;
} sw_from;

typedef struct sw_work_text {
    char *at;
    sw_from *from;
    size_t n, cap;
} sw_work_text;

typedef struct sw_piece {
    uint32_t start, end; /* in the work text */
    uint32_t origin;     /* where it begins in the text given */
    int32_t id;          /* >= 0: an added token */
} sw_piece;

typedef struct sw_pieces {
    sw_piece *at;
    size_t n, cap;
} sw_pieces;

typedef struct sw_work {
    sw_work_text text, spare;
    sw_pieces pieces, spare_pieces;
    sw_matches matches;
    struct {
        struct sw_unit {
            uint32_t cp;
            int32_t change;
            uint8_t combining;
        } * at;
        size_t n, cap;
    } units;
    sw_buf scratch;
} sw_work;

void sw_work_free(sw_work *w);
void sw_work_reserve(sw_work_text *t, size_t want);

/* Edits of one piece, character by character. change 0: takes the place of the next character; below 0: of that and of
 * as many more; above 0: is put in, and belongs where the character before it belongs. */
typedef struct sw_edit {
    const sw_work_text *in;
    sw_work_text *out;
    size_t start, end, at; /* the piece, and what of it was used up */
    uint32_t origin;
} sw_edit;
sw_edit sw_edit_begin(const sw_work_text *in, const sw_piece *p, sw_work_text *out);
void sw_edit_skip(sw_edit *e, size_t characters); /* leaves characters out */
void sw_edit_put(sw_edit *e, uint32_t cp, int32_t change);
void sw_edit_copy(sw_edit *e, size_t to); /* keeps what lies before a position */

/* ---- normalisers */

typedef enum sw_normal_kind {
    SW_NFC,
    SW_NFD,
    SW_NFKC,
    SW_NFKD,
    SW_LOWERCASE,
    SW_STRIP,
    SW_STRIP_ACCENTS,
    SW_REPLACE,
    SW_PREPEND,
    SW_CHARSMAP,
    SW_BYTES,
    SW_NMT,
    SW_BERT,
    SW_SENTENCEPIECE,
} sw_normal_kind;

/* Rules as sentencepiece keeps them: a double array (of Darts) from spellings to places in a list of strings. */
typedef struct sw_charsmap {
    uint32_t *unit;
    size_t n_unit;
    char *text; /* NUL-terminated strings */
    size_t n_text;
    bool plain[128]; /* ASCII that no rule begins with */
    bool apart[128]; /* ... or none but before what is not ASCII */
} sw_charsmap;
int sw_charsmap_read(sw_charsmap *m, const void *blob, size_t n) SW_MUST_CHECK;
void sw_charsmap_free(sw_charsmap *m);
/* The first (shortest: first) or longest rule that s[0..n) begins with: its length (0: none) and replacement. */
size_t sw_charsmap_find(const sw_charsmap *m, const char *s, size_t n, bool longest, sw_span *to);

typedef struct sw_normal {
    sw_normal_kind kind;
    sw_pattern pattern; /* REPLACE */
    char *text;         /* REPLACE, PREPEND */
    size_t n;
    bool left, right;                              /* STRIP */
    bool clean, chinese, strip_accents, lowercase; /* BERT */
    bool prefix, suffix, squeeze, escape; /* SENTENCEPIECE: dummy prefix, at the end, extra white space out, ▁ */
    bool first;                           /* and the prefix at the beginning of a text only */
    sw_charsmap charsmap;                 /* CHARSMAP, SENTENCEPIECE */
} sw_normal;

/* All of t's normalisers over w->text, which is one piece. */
int sw_normalise(const sw_tokenizer *t, sw_work *w) SW_MUST_CHECK;
void sw_unicode_normal(sw_work *w, const char *text, size_t n, bool compatible, bool compose); /* into w->units */
void sw_normal_free(sw_normal *s);
bool sw_text_is_nfc(const char *s, size_t n); /* false: perhaps not */
size_t sw_grapheme_end(const char *s, size_t n, size_t i);

/* ---- pre-tokenizers */

typedef enum sw_behaviour {
    SW_REMOVED,
    SW_ISOLATED,
    SW_MERGED_WITH_PREVIOUS,
    SW_MERGED_WITH_NEXT,
    SW_CONTIGUOUS
} sw_behaviour;
typedef enum sw_cut_kind {
    SW_CUT_SPLIT,
    SW_CUT_BYTE_LEVEL,
    SW_CUT_METASPACE,
    SW_CUT_WHITESPACE,
    SW_CUT_WHITESPACE_SPLIT,
    SW_CUT_PUNCTUATION,
    SW_CUT_DIGITS,
    SW_CUT_CHARACTER,
    SW_CUT_SCRIPTS,
    SW_CUT_LENGTH,
} sw_cut_kind;
typedef enum sw_scheme { SW_PREPEND_ALWAYS, SW_PREPEND_FIRST, SW_PREPEND_NEVER } sw_scheme;

typedef struct sw_cut {
    sw_cut_kind kind;
    sw_pattern pattern;       /* SPLIT */
    sw_behaviour behaviour;   /* SPLIT, PUNCTUATION, DIGITS */
    bool invert;              /* SPLIT */
    bool prefix_space, regex; /* BYTE_LEVEL */
    uint32_t character;       /* METASPACE's replacement, CHARACTER's delimiter */
    sw_scheme scheme;         /* METASPACE */
    bool split;
    size_t length; /* LENGTH */
} sw_cut;

int sw_pretokenize(const sw_tokenizer *t, sw_work *w) SW_MUST_CHECK;
void sw_cut_free(sw_cut *c);
extern const sw_pattern sw_gpt2_pattern, sw_gpt2_digits_pattern;

/* ---- models */

typedef enum sw_model_kind { SW_BPE, SW_UNIGRAM, SW_WORDPIECE, SW_WORDLEVEL } sw_model_kind;

typedef struct sw_merge { /* slot of the open-addressed table */
    int32_t left, right;  /* -1: empty */
    int32_t rank, id;
} sw_merge;

typedef struct sw_bpe_scratch {
    struct sw_bpe_node {
        int32_t id, prev, next, len;
    } * node;
    size_t cap;
    struct sw_bpe_pair {
        int32_t rank, at, left, right;
    } * heap;
    size_t heap_cap;
    struct sw_best {
        double score, second; /* second: of what was the next best */
        int32_t from, id;
    } * best; /* UNIGRAM */
    size_t best_cap;
    struct sw_unigram_word * words; /* of the one tokenizer that the scratch serves (tokenizer_unigram.c) */
    uint64_t *dead; /* a bit a position (bpe_cut.c) */
    size_t dead_cap;
    uint64_t *pairs; /* of the one tokenizer that the scratch serves (bpe_cut.c) */
    sw_buf spelling;
} sw_bpe_scratch;
void sw_scratch_free(sw_bpe_scratch *s);

/* The ids of one piece; lens (may be NULL) gets the bytes of each. */
int sw_model_piece(const sw_tokenizer *t, sw_bpe_scratch *s, const char *text, size_t n, sw_ids *ids,
                   sw_ids *lens) SW_MUST_CHECK;
int sw_bpe_piece(const sw_tokenizer *t, sw_bpe_scratch *s, const char *text, size_t n, sw_ids *ids,
                 sw_ids *lens) SW_MUST_CHECK;
int sw_unigram_piece(const sw_tokenizer *t, sw_bpe_scratch *s, const char *text, size_t n, sw_ids *ids,
                     sw_ids *lens) SW_MUST_CHECK;
int sw_wordpiece_piece(const sw_tokenizer *t, sw_bpe_scratch *s, const char *text, size_t n, sw_ids *ids,
                       sw_ids *lens) SW_MUST_CHECK;
/* WORDLEVEL: the id of a word, -1: none; control symbols of sentencepiece are no words. */
int64_t sw_whole_word(const sw_tokenizer *t, const char *text, size_t n);
bool sw_bpe_cuts_spaces(const sw_tokenizer *t); /* for cut_spaces */
bool sw_unigram_cuts_spaces(const sw_tokenizer *t);
/* Byte-level BPE of raw bytes, each of which has a token. */
int sw_bpe_bytes(const sw_tokenizer *t, sw_bpe_scratch *s, const uint8_t *word, size_t n, sw_ids *ids) SW_MUST_CHECK;

/* ---- added tokens */

typedef struct sw_added {
    char *text; /* as the file spells it */
    size_t n;
    char *pattern; /* as it is looked for: normalised, where `normalized` */
    size_t n_pattern;
    int32_t id;
    bool special, lstrip, rstrip, single_word, normalized;
} sw_added;

typedef struct sw_matcher {
    sw_trie trie;       /* values are indices into added */
    uint8_t first[256]; /* an added token begins with this byte */
} sw_matcher;

/* Cuts pieces at added tokens: those looked for in the text as given (normalized false), or in the normalised one.
 * plain: special ones are passed over. */
void sw_added_cut(const sw_tokenizer *t, bool normalized, bool plain, sw_work *w);
void sw_added_build(sw_tokenizer *t);
/* The next added token of the text as given at or after *from: false, or its index with the bounds that stripping
 * gives; *from is then behind it. `done`: where the one before ended. */
bool sw_added_next(const sw_tokenizer *t, bool normalized, bool plain, const char *s, size_t n, size_t *from,
                   size_t done, size_t *start, size_t *end, int32_t *id);

/* ---- post-processor: what stands around the texts */

typedef struct sw_post_item {
    int32_t id; /* -1: the text itself, -2: the second one */
    int32_t type;
} sw_post_item;
typedef struct sw_post_items {
    sw_post_item *at;
    size_t n, cap;
} sw_post_items;

/* ---- decoder */

typedef enum sw_decode_kind {
    SW_DECODE_BYTE_LEVEL,
    SW_DECODE_BYTE_FALLBACK,
    SW_DECODE_METASPACE,
    SW_DECODE_WORDPIECE,
    SW_DECODE_BPE,
    SW_DECODE_CTC,
    SW_DECODE_FUSE,
    SW_DECODE_STRIP,
    SW_DECODE_REPLACE,
    SW_DECODE_SENTENCEPIECE,
} sw_decode_kind;

typedef struct sw_decode_step {
    sw_decode_kind kind;
    sw_pattern pattern; /* REPLACE */
    char *text, *other; /* REPLACE's content; WORDPIECE's prefix; BPE's suffix; CTC's padding and delimiter */
    bool cleanup;
    uint32_t character; /* METASPACE, STRIP */
    sw_scheme scheme;
    size_t start, stop;   /* STRIP */
    bool squeeze, prefix; /* SENTENCEPIECE */
} sw_decode_step;
void sw_decode_step_free(sw_decode_step *s);

/* ---- the whole */

enum { SW_PART_NORMALIZER, SW_PART_PRE_TOKENIZER, SW_PART_POST_PROCESSOR, SW_PART_DECODER, SW_PART_COUNT };
extern const char *const sw_part_names[SW_PART_COUNT];

struct sw_tokenizer {
    sw_arena arena;
    int64_t size;    /* largest id + 1 */
    sw_span *pieces; /* [size] as decoding sees them (an added token wins); at NULL: no such id */
    sw_span *words;  /* [size] the model's own vocabulary; at NULL: the id is an added token's alone */
    sw_map model_ids, added_ids;
    uint8_t *special;           /* [size] 1: special added token, 2: added token */
    uint8_t *skipped;           /* [size] left out of decoding when special tokens are */
    char *parts[SW_PART_COUNT]; /* as JSON, for writing */

    sw_model_kind model;
    int32_t unk;
    char *unk_text; /* a model's unk_token */
    bool byte_fallback, fuse_unk, ignore_merges;
    char *prefix_text, *suffix_text; /* continuing_subword_prefix, end_of_word_suffix; never NULL after reading */
    int64_t max_chars;               /* WORDPIECE */
    int32_t byte_ids[256];           /* of the tokens <0x00> ...; -1: none */
    int32_t byte_chars[256];         /* of the byte-level characters; -1: none */
    int32_t *char_ids[0x1100];       /* [cp >> 8][cp & 255] id of a character alone; -1: none */
    sw_merge *merges;
    size_t merge_cap, n_merges;
    uint64_t *merge_bits; /* 2^21 bits: which hashes of pairs there are */
    double *scores;       /* [size], UNIGRAM */
    double least_score, most_score;
    sw_trie trie;         /* UNIGRAM: the vocabulary; WORDPIECE: of starts */
    bool sentencepiece;   /* user-defined pieces are never cut, unknown ones are merged */
    sw_trie frozen;       /* user-defined pieces of sentencepiece */
    uint8_t *piece_types; /* [size] of sentencepiece, or NULL */

    struct {
        sw_normal *at;
        size_t n, cap;
    } normals;
    struct {
        sw_cut *at;
        size_t n, cap;
    } cuts;
    struct {
        sw_added *at;
        size_t n, cap;
    } added;
    sw_matcher matchers[2]; /* of tokens looked for before and after normalisation */
    sw_post_items single, pair;
    struct {
        bool *at;
        size_t n, cap;
    } trims; /* of offsets; true: a space in front may have been put there */
    struct {
        sw_decode_step *at;
        size_t n, cap;
    } decoders;
    bool decodes; /* there is a decoder; without, tokens are joined by spaces */

    struct { /* the quick way (encode_quick.c) */
        enum { SW_QUICK_NONE, SW_QUICK_BYTES, SW_QUICK_SPACES } kind;
        const sw_pattern *scan; /* BYTES */
        bool nfc;               /* BYTES: only for text that is in this form */
        bool holes;             /* BYTES: some bytes have no token */
        bool each;              /* SPACES: every space begins a word, not only the first of several */
        bool prefix, given;     /* SPACES: one is put in front; not where there is one */
        bool first;             /* SPACES: only at the start of the text */
    } quick;
    struct { /* of byte-level BPE (bpe_cut.h), made when the first encoder has enough to do */
        pthread_mutex_t lock;
        bool tried;
        struct sw_bpe_cuts *at; /* NULL: words are merged */
    } tables;
    bool cut_spaces;      /* no merge of BPE, no piece of UNIGRAM joins ▁ to what is before it, unless that is one, too */
    uint8_t *token_bytes; /* [size] bytes of text of a byte-level token; 0: more than fit, or no such */

    int32_t bos, eos, pad;
    bool adds_bos, adds_eos;
    char *chat_template, *system_prompt, *model_name;
};

sw_tokenizer *sw_tokenizer_new(void);

/* Byte-level spelling: each byte is a printable character (Radford et al. 2019). */
uint32_t sw_byte_char(uint8_t byte);
int sw_char_byte(uint32_t cp); /* -1: stands for no byte */

/* Tokens that a tokenizer_config.json names, with their ids and flags, then bos, eos and the like. */
int sw_tokenizer_add_configured(sw_tokenizer *t, const cJSON *config) SW_MUST_CHECK;
const char *sw_tokenizer_class(const cJSON *config); /* "": none */
const cJSON *sw_tokenizer_config_template(const cJSON *config); /* a string, or NULL */

/* ---- for readers: the size first, then words and merges, then added tokens, then finish */
void sw_tokenizer_size_is(sw_tokenizer *t, int64_t size);
void sw_tokenizer_set_word(sw_tokenizer *t, int32_t id, const char *s, size_t n); /* of the model */
void sw_tokenizer_grow(sw_tokenizer *t, int64_t size);
/* Takes a's text. The id is the one that the text has already, else the next one. */
int sw_tokenizer_add(sw_tokenizer *t, sw_added a, int32_t *next_id) SW_MUST_CHECK;
int sw_tokenizer_add_merge(sw_tokenizer *t, const char *left, size_t nl, const char *right, size_t nr,
                           int32_t rank) SW_MUST_CHECK;
void sw_tokenizer_reserve_merges(sw_tokenizer *t, size_t n);
/* The merges that scores imply: every pair of words whose joint spelling is a word of a higher score comes first.
 * distinct: equal scores are ordered by the ids of the halves, else they stay equal. usable (may be NULL) says which
 * words. */
int sw_tokenizer_merges_from_scores(sw_tokenizer *t, const float *scores, const uint8_t *usable,
                                    bool distinct) SW_MUST_CHECK;
int sw_tokenizer_read_vocabulary(sw_tokenizer *t, const cJSON *vocab) SW_MUST_CHECK; /* {"piece": id}; sets the size */
/* normalizer, pre_tokenizer, post_processor, decoder from JSON; o may be NULL. */
int sw_tokenizer_read_part(sw_tokenizer *t, int part, const cJSON *o) SW_MUST_CHECK;
int sw_tokenizer_read_part_text(sw_tokenizer *t, int part, const char *json) SW_MUST_CHECK; /* NULL: none */
int sw_tokenizer_read_config(sw_tokenizer *t, const cJSON *config) SW_MUST_CHECK;           /* tokenizer_config.json */
int sw_tokenizer_finish(sw_tokenizer *t) SW_MUST_CHECK;
/* A post-processor as JSON (appended) that puts bos and eos around; -1: none. Nothing where there is neither. */
void sw_post_template(const sw_tokenizer *t, int32_t bos, int32_t eos, sw_buf *out);
/* The normaliser of a unigram model of sentencepiece as JSON (appended): its rules (may be NULL), white space squeezed.
 */
void sw_unigram_normaliser(const char *charsmap, size_t n, bool squeeze, sw_buf *out);
#define SW_METASPACE_SPLIT(scheme, split)                                                                              \
    "{\"type\": \"Metaspace\", \"replacement\": \"\xe2\x96\x81\", \"prepend_scheme\": \"" scheme "\", \"split\": " split "}"
#define SW_METASPACE_JSON(scheme) SW_METASPACE_SPLIT(scheme, "true")
/* A JSON object's key with U+0000 kept, decoded into buf when needed. */
sw_span sw_json_key(const cJSON *v, sw_buf *buf);

/* ---- encoding */
void sw_quick_prepare(sw_tokenizer *t);
/* t's tables, made by the first who asks (make), or NULL; any thread may. */
const struct sw_bpe_cuts *sw_bpe_tables(const sw_tokenizer *t, bool make);

#endif
