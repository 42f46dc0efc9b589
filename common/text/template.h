/* Chat templates over tokenizers: a conversation becomes text, token ids and loss weights. The one renderer that
 * swift-tokenize, swift-infer and swift-eval use, and that is saved with an adapter. */
#ifndef SW_TEXT_TEMPLATE_H
#define SW_TEXT_TEMPLATE_H

#include "base/error.h"
#include "text/jinja.h"
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
    SW_TRAIN_LAST,      /* the last assistant turn with its end-of-turn token */
} sw_train_on;

/* source NULL: the tokenizer's own; else a file, or the name of a built-in (sw_template_builtin_names). The
 * tokenizer must outlive the template. Errors say where the template came from. */
sw_template *sw_template_load(const sw_tokenizer *t, const char *source) SW_MUST_CHECK;
/* From the Jinja text itself. name is for messages. */
sw_template *sw_template_from_text(const sw_tokenizer *t, const char *name, const char *jinja, size_t n) SW_MUST_CHECK;
void sw_template_free(sw_template *m);
const char *sw_template_name(const sw_template *m);
const char *sw_template_text(const sw_template *m); /* Jinja source */
sw_digest sw_template_digest(const sw_template *m);
/* NULL-terminated names of the built-in templates. */
const char *const *sw_template_builtin_names(void);

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

/* The conversation as ids (appended) with one loss weight a token (appended; 0 where no loss). Where an assistant
 * turn begins and ends comes from generation blocks if the template has them, otherwise from rendering prefixes of
 * the conversation and, where a turn changes what came before it, from what changes with the answer's text; where
 * neither tells, an error names the message. A message may have "loss": false or "loss_scale": x (assistant's only). */
int sw_template_encode(const sw_template *m, sw_encoder *e, const cJSON *messages, const cJSON *tools,
                       const cJSON *extra, sw_train_on train_on, sw_ids *ids, sw_weights *weights) SW_MUST_CHECK;

/* Ids of the prompt for generation: conversation + generation prompt. */
int sw_template_encode_prompt(const sw_template *m, sw_encoder *e, const cJSON *messages, const cJSON *tools,
                              const cJSON *extra, sw_ids *ids) SW_MUST_CHECK;

#endif
