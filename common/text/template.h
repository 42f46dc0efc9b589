/* Chat templates over tokenizers: a conversation becomes text, token ids and loss weights. The one renderer that
 * swift-tokenize, swift-infer and swift-eval use, and that is saved with an adapter. */
#ifndef SW_TEXT_TEMPLATE_H
#define SW_TEXT_TEMPLATE_H

#include "base/error.h"
#include "text/agent.h"
#include "text/jinja.h"
#include "text/loss_scale.h"
#include "text/tokenizer.h"

#include <cjson/cJSON.h>

typedef struct sw_template sw_template;

/* Growable loss weights, one a token. */
typedef struct sw_weights {
    float *at;
    size_t n, cap;
} sw_weights;

typedef enum sw_train_on {
    SW_TRAIN_ALL,       /* every token but the first */
    SW_TRAIN_ASSISTANT, /* assistant turns with their end-of-turn token */
    SW_TRAIN_LAST,      /* what the assistant says after the last turn of another, with its end-of-turn token */
} sw_train_on;

/* Which template: source (a file, or the name of a built-in format) if it is given, else the tokenizer's own, else the
 * built-in one of the family. */
typedef struct sw_template_choice {
    const char *source;
    const char *agent;  /* how tools are written in a built-in format, or read out of answers to another; NULL: its own */
    const char *family; /* model_type of config.json, or GGUF's general.architecture; NULL: unknown */
} sw_template_choice;
/* The tokenizer must outlive the template. Errors say where the template came from. */
sw_template *sw_template_choose(const sw_tokenizer *t, const sw_template_choice *c) SW_MUST_CHECK;
sw_template *sw_template_load(const sw_tokenizer *t, const char *source) SW_MUST_CHECK; /* a choice of source alone */
/* model_type of the config.json in a folder (the caller frees it); NULL where there is none. */
char *sw_template_family_of(const char *path);
/* From the Jinja text itself. name is for messages. What a built-in format became is recognised by its first comment. */
sw_template *sw_template_from_text(const sw_tokenizer *t, const char *name, const char *jinja, size_t n) SW_MUST_CHECK;
void sw_template_free(sw_template *m);
const char *sw_template_name(const sw_template *m);
const char *sw_template_text(const sw_template *m); /* Jinja source */
sw_digest sw_template_digest(const sw_template *m);
/* How it writes calls of tools; NULL: it does not seem to. */
const sw_agent *sw_template_agent(const sw_template *m);
/* Texts that end an answer, NULL-terminated; what sw_template_end_token says may be among them. */
const char *const *sw_template_stops(const sw_template *m);

/* The variables that a template sees, as transformers passes them: messages (with reasoning_content and thinking filled in
 * from each other), tools, documents, and the members of extra. The tree refers to its arguments, which must outlive
 * it; tools, documents and extra may be NULL. The caller deletes it. */
cJSON *sw_template_variables(const cJSON *messages, const cJSON *tools, const cJSON *documents, const cJSON *extra);

/* What the template puts after an assistant turn, found by rendering a probe conversation: the token that must
 * carry loss and that generation stops at; -1 where the template has none. */
int32_t sw_template_end_token(const sw_template *m);

/* The conversation as text. messages: array of {role, content, ...}; tools may be NULL; extra: further template
 * variables (object, may be NULL). */
int sw_template_render(const sw_template *m, const cJSON *messages, const cJSON *tools, const cJSON *extra,
                       bool add_generation_prompt, sw_buf *out, sw_ranges *generation) SW_MUST_CHECK;

/* What a template makes something of, found by rendering probes: pictures, calls of tools, and the tools themselves. What it
 * leaves out would be lost without a word. A template that fails on a probe is taken to use it (pictures: not to). */
typedef struct sw_template_use {
    bool media, calls, tools;
} sw_template_use;
sw_template_use sw_template_used(const sw_template *m); /* NULL: all but pictures */

/* The conversation as ids (appended) with one loss weight a token (appended; 0 where no loss). Where an assistant
 * turn begins and ends comes from generation blocks if the template has them, otherwise from rendering prefixes of
 * the conversation and, where a turn changes what came before it, from what changes with the answer's text; where
 * neither tells, an error names the message. An assistant's message may have "loss": true or false, which overrides
 * train_on, and "loss_scale": x, which overrides scale: the weights of parts of an answer, or NULL where all weigh 1. */
int sw_template_encode(const sw_template *m, sw_encoder *e, const cJSON *messages, const cJSON *tools,
                       const cJSON *extra, sw_train_on train_on, const sw_loss_scale *scale, sw_ids *ids,
                       sw_weights *weights) SW_MUST_CHECK;

/* Ids of the prompt for generation: conversation + generation prompt. */
int sw_template_encode_prompt(const sw_template *m, sw_encoder *e, const cJSON *messages, const cJSON *tools,
                              const cJSON *extra, sw_ids *ids) SW_MUST_CHECK;

#endif
