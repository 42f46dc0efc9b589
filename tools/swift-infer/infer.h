/* What the modes of swift-infer share: a loaded model with its tokenizer, template and adapters. */
#ifndef SW_TOOL_INFER_H
#define SW_TOOL_INFER_H

#include "adapter/tuner.h"
#include "base/option.h"
#include "data/tags.h"
#include "data/words.h"
#include "model/generate.h"
#include "store/checkpoint.h"
#include "text/template.h"

typedef struct infer_settings {
    const char *model, *template_source, *agent, *system;
    sw_strings adapters, stop;
    sw_sampling sampling;
    int64_t max_tokens, batch, samples, context;
    sw_dtype compute; /* SW_DTYPE_COUNT: what suits the device */
    bool score, embed, chat, logprobs, timing, skip_special;
    int64_t skip_bad;
} infer_settings;

typedef struct infer_session {
    const infer_settings *settings;
    sw_device *device;
    sw_model *model;
    sw_modules modules;
    struct { sw_tuned **at; size_t n, cap; } tuned;
    sw_tokenizer *tokenizer;
    sw_encoder *encoder;
    sw_template *tmpl;     /* NULL: the checkpoint has none */
    char *template_error;  /* then why */
    sw_template_use takes; /* what the template makes something of */
    bool told_tools;       /* that it makes nothing of tools */
    sw_generator generator;
    int64_t context;       /* tokens of a text at most: --context, or what the model has learned positions for */
    sw_tags tags;          /* of a classifier of words: its classes' names, where it has some */
    cJSON *generation;     /* generation_config.json, or NULL */
    bool ready;
    bool embeds;           /* records become vectors */
    struct { int32_t *at; size_t n, cap; } stop; /* token ids that end an answer */
    struct { const char **at; size_t n, cap; } stop_texts; /* of the template, where they are no tokens */
} infer_session;

int infer_open(infer_session *s, const infer_settings *settings) SW_MUST_CHECK;
void infer_close(infer_session *s);

/* Whether a text ("the text has") is no longer than `most` tokens, and all of them are the model's. */
int infer_check_ids(const infer_session *s, const char *what, const sw_ids *ids, int64_t most) SW_MUST_CHECK;

/* generation.c: what generation_config.json says: ids and texts to end at, and tokens that are forced. What of it is not done is
 * told. */
int infer_read_generation(infer_session *s) SW_MUST_CHECK;
void infer_add_stop(infer_session *s, int32_t id); /* -1: none */

/* A generation with its stop strings: text is cut before the first that appears. */
typedef struct infer_job {
    sw_sequence sequence; /* first: the callback gets it */
    const infer_session *session;
    sw_ids prompt;
    struct { char **at; size_t n, cap; } stop; /* owned */
    sw_buf text;          /* answer so far */
    size_t shown;         /* bytes given to on_text */
    sw_stream_decoder decoder;
    void (*on_text)(const char *text, size_t n); /* streaming, or NULL */
} infer_job;
/* Stop strings: the command's, those of generation_config.json and, in conversations, the template's. */
void infer_job_stops(infer_job *j, const infer_session *s, bool conversation);
/* prompt must be filled, sampling and max_tokens set in sequence. */
void infer_job_begin(infer_job *j, const infer_session *s);
int infer_job_finish(infer_job *j) SW_MUST_CHECK; /* the text that is still held back */
void infer_job_free(infer_job *j);
const char *infer_finish_name(const sw_sequence *q);

/* classify.c: what a classifier reads of a record; the scores of n texts, [n, labels]; and what is told of them. */
int infer_read_text(infer_session *s, const cJSON *in, sw_ids *ids) SW_MUST_CHECK;
int infer_classify(infer_session *s, const sw_ids *const *texts, size_t n, float *scores) SW_MUST_CHECK;
void infer_add_scores(const infer_session *s, const float *scores, cJSON *o);
/* What stands for each of n texts, [n, hidden]; and the answer. */
int infer_embed(infer_session *s, const sw_ids *const *texts, size_t n, float *vectors) SW_MUST_CHECK;
void infer_add_embedding(const infer_session *s, float *vector, cJSON *o);
/* The texts one after the other, in the context. The name that config.json gives a class, or its number. */
sw_batch infer_batch_of(sw_ctx *c, const sw_ids *const *texts, size_t n);
cJSON *infer_class_name(const infer_session *s, int64_t i);

/* tag.c: the same of a classifier of words. */
typedef struct infer_words {
    sw_buf text;
    sw_words words;
    int32_t *first; /* [words.n] the token that stands for each, or -1 */
    sw_ids ids;
    bool given;     /* the record says what its words are */
} infer_words;
void infer_words_free(infer_words *w);
int infer_read_words(infer_session *s, const cJSON *in, infer_words *w) SW_MUST_CHECK;
/* *scores: [tokens of all texts, labels]; the caller frees it, also on failure. */
int infer_tag(infer_session *s, const sw_ids *const *texts, size_t n, float **scores) SW_MUST_CHECK;
void infer_add_classes(const infer_session *s, const infer_words *w, const float *scores, cJSON *o);

/* The conversation with --system in front, when it brings none; calls of tools as every template reads them. NULL: failed. */
cJSON *infer_with_system(const cJSON *messages, const char *system);
/* "tools": a list of functions, or its text. NULL where there are none; the caller deletes it. */
int infer_read_tools(const cJSON *o, cJSON **tools) SW_MUST_CHECK;

/* JSON Lines in, JSON Lines out, in the order of the input. */
int infer_batch(infer_session *s, char **files, int n_files) SW_MUST_CHECK;
/* A conversation on the terminal. */
int infer_chat(infer_session *s) SW_MUST_CHECK;

#endif
