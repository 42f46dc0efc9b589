/* Formats of training data: whatever a row looks like, it becomes one sw_sample. */
#ifndef SW_DATA_DATASET_H
#define SW_DATA_DATASET_H

#include "base/error.h"
#include "base/json.h"
#include "base/option.h"

typedef enum sw_format {
    SW_FORMAT_AUTO,
    SW_FORMAT_MESSAGES,   /* messages or conversations: [{role, content}] or [{from, value}] */
    SW_FORMAT_SHAREGPT,   /* conversation: [{human, assistant}], or messages as above; system beside it */
    SW_FORMAT_ALPACA,     /* instruction, input, output; system and history beside them */
    SW_FORMAT_QUERY,      /* query, response and what they are else called; system, history */
    SW_FORMAT_TEXT,       /* text */
    SW_FORMAT_COMPLETION, /* prompt, completion: joined as they are, without a template */
} sw_format;
extern const char *const sw_format_names[]; /* in that order, NULL-terminated */

typedef enum sw_sample_kind {
    SW_SAMPLE_CHAT,       /* messages, for a chat template */
    SW_SAMPLE_TEXT,       /* text, as it is */
    SW_SAMPLE_COMPLETION, /* prompt and completion, as they are; loss on the completion */
} sw_sample_kind;

/* Strings and trees are owned by the sample. A JSON string may hold U+0000: use sw_json_text on the trees. */
typedef struct sw_sample {
    sw_sample_kind kind;
    cJSON *messages;            /* CHAT: [{role, content, ...}], roles as templates want them */
    cJSON *rejected;            /* CHAT: the conversation not wanted, or NULL */
    cJSON *tools;               /* array, or NULL */
    cJSON *extra;               /* further template variables (chat_template_kwargs), or NULL */
    cJSON *text;                /* TEXT: a string */
    cJSON *prompt, *completion; /* COMPLETION: strings */
    cJSON *rest;                /* object: the other columns */
    bool unfilled;              /* a {{NAME}} of capitals is left in it */
} sw_sample;

typedef struct sw_dataset_options {
    sw_format format;
    const char *system;     /* for conversations that bring none, or NULL */
    const sw_strings *fill; /* "NAME=VALUE": each {{NAME}} in a text becomes VALUE; NULL: none */
} sw_dataset_options;

/* Takes row (always; it is freed on failure). The message names the field, and what would be right. */
int sw_sample_from(const sw_dataset_options *o, cJSON *row, sw_sample *out) SW_MUST_CHECK;
void sw_sample_free(sw_sample *s);
/* Fails on a value of --fill that has no NAME=. */
int sw_dataset_check(const sw_dataset_options *o) SW_MUST_CHECK;

#endif
