/* Tokenizers: text to token ids and back, equal to Hugging Face tokenizers to the last id.
 *
 * A tokenizer is read once (tokenizer.json, or a GGUF file's tokenizer.ggml.* metadata) and never changes after,
 * so any number of threads may share one; per-thread scratch (word cache, buffers) is an sw_encoder. */
#ifndef SW_TEXT_TOKENIZER_H
#define SW_TEXT_TOKENIZER_H

#include "base/error.h"
#include "base/fileio.h"
#include "base/strbuf.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct sw_tokenizer sw_tokenizer;
typedef struct sw_encoder sw_encoder;
struct sw_gguf;
struct cJSON;

/* Growable ids, and offsets [start, end) in bytes of the input text where asked for. */
typedef struct sw_ids {
    int32_t *at;
    size_t n, cap;
} sw_ids;

/* From the text of a tokenizer.json; config_json (tokenizer_config.json, may be NULL) gives bos/eos/pad and
 * add_bos_token where the first does not say. Errors name the field. */
sw_tokenizer *sw_tokenizer_from_json(const char *text, size_t n, const char *config, size_t config_n) SW_MUST_CHECK;
/* tokenizer.ggml.* of a GGUF file: llama, gpt2, bert and t5 vocabularies. */
sw_tokenizer *sw_tokenizer_from_gguf(const struct sw_gguf *g) SW_MUST_CHECK;
/* GGUF's name (tokenizer.ggml.pre) of a pre_tokenizer of tokenizer.json; of several that cut alike, the one that also normalises
 * and uses merges as this tokenizer does. false: it has none. */
enum { SW_GGUF_PRE_NAME = 40 };
bool sw_gguf_pre_name(const struct cJSON *pre_tokenizer, bool nfc, bool ignore_merges, char out[SW_GGUF_PRE_NAME]);
/* A sentencepiece model (its protocol buffer): the ids are sentencepiece's own. With a tokenizer_config.json (NULL, 0: none) the
 * tokens that it names are found in texts, have the ids that it says, and stand around a text as its class puts them. */
sw_tokenizer *sw_tokenizer_from_sentencepiece(const void *bytes, size_t n, const char *config, size_t config_n) SW_MUST_CHECK;
/* A tiktoken file (a line a token: base64 and rank). pattern: the expression that cuts words, NULL: guessed from the
 * size; normalizer: its tokenizer.json text or NULL; special tokens by name and id. */
typedef struct sw_special_token {
    const char *text;
    int32_t id;
} sw_special_token;
sw_tokenizer *sw_tokenizer_from_tiktoken(const char *text, size_t n, const char *pattern, const char *normalizer,
                                         const sw_special_token *specials, size_t n_specials) SW_MUST_CHECK;
/* The older files of byte-level BPE (vocab.json and merges.txt), and of WordPiece (vocab.txt; lower_case as in its
 * config). */
sw_tokenizer *sw_tokenizer_from_vocab_merges(const char *vocab, size_t n_vocab, const char *merges, size_t n_merges,
                                             const char *config, size_t n_config) SW_MUST_CHECK;
sw_tokenizer *sw_tokenizer_from_vocab_txt(const char *text, size_t n, const char *config,
                                          size_t n_config) SW_MUST_CHECK;
/* From a model folder (tokenizer.json, else tokenizer.model, a .tiktoken file, vocab.json + merges.txt, or vocab.txt,
 * with tokenizer_config.json and chat_template.jinja), one of those files, or a GGUF file. */
sw_tokenizer *sw_tokenizer_load(const char *path) SW_MUST_CHECK;
bool sw_tokenizer_is_in(const char *dir); /* whether a folder has one of those files */
void sw_tokenizer_free(sw_tokenizer *t);

int64_t sw_tokenizer_size(const sw_tokenizer *t); /* largest id + 1 */
/* Whether a model of so many rows can have this tokenizer: all words of its own have a row. Added tokens may have none (that of
 * pictures in Gemma 3 1B): a text with one is then an error of its own, by sw_tokenizer_check_ids. */
int sw_tokenizer_check_fit(const sw_tokenizer *t, int64_t vocab) SW_MUST_CHECK;
int sw_tokenizer_check_ids(const sw_tokenizer *t, int64_t vocab, const int32_t *ids, size_t n) SW_MUST_CHECK;
/* Token text as it stands in the vocabulary ({NULL,0}: no such id); special: is it an added special token? */
sw_span sw_token_piece(const sw_tokenizer *t, int32_t id);
bool sw_token_is_special(const sw_tokenizer *t, int32_t id);
/* Id of a vocabulary entry or added token by its text, or -1. */
int32_t sw_token_id(const sw_tokenizer *t, const char *piece, size_t n);
int32_t sw_tokenizer_bos(const sw_tokenizer *t); /* -1: none */
int32_t sw_tokenizer_eos(const sw_tokenizer *t);
int32_t sw_tokenizer_pad(const sw_tokenizer *t);
/* Whether encoding with add_special puts a bos / eos. */
bool sw_tokenizer_adds_bos(const sw_tokenizer *t);
bool sw_tokenizer_adds_eos(const sw_tokenizer *t);
/* Identity: a digest of what determines ids (vocabulary, merges, added tokens, normaliser, pre-tokenizer), the
 * same whether the tokenizer came from JSON or from GGUF only if those parts are the same. Shards carry it. */
sw_digest sw_tokenizer_digest(const sw_tokenizer *t);
/* Digest of the id -> piece table alone: equal for the JSON and GGUF form of one vocabulary (filler rows and
 * padding ids left out). What a model and a shard must share. */
sw_digest sw_tokenizer_vocab_digest(const sw_tokenizer *t);
/* The chat template that came with it (tokenizer_config.json, chat_template.jinja, or GGUF), or NULL. */
const char *sw_tokenizer_chat_template(const sw_tokenizer *t);
/* The same of a folder alone, appended: chat_template.jinja, else that of tokenizer_config.json (of several the default one), else
 * chat_template.json, where models for pictures too have it. Nothing where there is none. */
int sw_tokenizer_template_in(const char *dir, sw_buf *text) SW_MUST_CHECK;
/* The system text that came with it (SYSTEM_PROMPT.txt), or NULL, and what its folder calls the model ("": unknown). */
const char *sw_tokenizer_system_prompt(const sw_tokenizer *t);
const char *sw_tokenizer_model_name(const sw_tokenizer *t);
/* The files that a Hugging Face folder needs, as JSON texts appended to the buffers (a GGUF tokenizer is turned
 * into tokenizer.json here). */
int sw_tokenizer_to_json(const sw_tokenizer *t, sw_buf *tokenizer_json, sw_buf *tokenizer_config) SW_MUST_CHECK;

sw_encoder *sw_encoder_new(const sw_tokenizer *t);
void sw_encoder_free(sw_encoder *e);
/* Appends the ids of text[0..n) (valid UTF-8, NUL bytes allowed). add_special: apply the post-processor (bos, eos).
 * offsets (may be NULL): appends two values a token, byte offsets into text; 0,0 for tokens the post-processor made. */
int sw_encode(sw_encoder *e, const char *text, size_t n, bool add_special, sw_ids *ids, sw_ids *offsets) SW_MUST_CHECK;
/* As sw_encode, but the spelling of special tokens in text is plain text (for untrusted user text). */
int sw_encode_plain(sw_encoder *e, const char *text, size_t n, sw_ids *ids) SW_MUST_CHECK;
/* Two texts as the post-processor joins them. types and special (may be NULL) get one value an id. */
int sw_encode_pair(sw_encoder *e, const char *a, size_t na, const char *b, size_t nb, bool add_special, sw_ids *ids,
                   sw_ids *types, sw_ids *special) SW_MUST_CHECK;
/* Appends the text of ids. Bytes that are no UTF-8 become U+FFFD. Ids without a token are dropped. */
int sw_decode(const sw_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, sw_buf *out) SW_MUST_CHECK;

/* Streaming decode for generation: feed one id at a time; text that can no longer change is appended, never a part of a
 * character. Zero value starts; _finish flushes what is left (broken bytes as U+FFFD) and frees, _free only frees. What
 * is appended in all is what sw_decode gives. skip_special must stay the same. */
typedef struct sw_stream_decoder {
    struct sw_decoding *decoding;
} sw_stream_decoder;
int sw_stream_decode(sw_stream_decoder *d, const sw_tokenizer *t, int32_t id, bool skip_special,
                     sw_buf *out) SW_MUST_CHECK;
int sw_stream_finish(sw_stream_decoder *d, const sw_tokenizer *t, bool skip_special, sw_buf *out) SW_MUST_CHECK;
void sw_stream_free(sw_stream_decoder *d);

#endif
