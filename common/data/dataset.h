/* Formats of training data: whatever a row looks like, it becomes one sw_sample. */
#ifndef SW_DATA_DATASET_H
#define SW_DATA_DATASET_H

#include "base/error.h"
#include "base/json.h"
#include "base/option.h"
#include "data/words.h"

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

/* What the records are to be used for. */
typedef enum sw_task {
    SW_TASK_AUTO,       /* by the fields: EMBEDDING where texts are compared, TAG where words have classes, else what is there (see sw_sample) */
    SW_TASK_SFT,        /* the answer that is wanted, nothing else */
    SW_TASK_PREFERENCE, /* a wanted and a rejected answer: DPO and its kin, reward models */
    SW_TASK_KTO,        /* an answer and a label: wanted or not */
    SW_TASK_PROMPT,     /* what is asked, for answers that the model makes itself: GRPO, PPO, distillation */
    SW_TASK_EMBEDDING,  /* a text, texts that belong to it, texts that do not */
    SW_TASK_RERANKER,   /* the same as pairs of query and document */
    SW_TASK_CLASSIFY,   /* a text and its class, classes or value */
    SW_TASK_TAG,        /* words and the class of each */
} sw_task;
extern const char *const sw_task_names[]; /* in that order, NULL-terminated */

typedef enum sw_sample_kind {
    SW_SAMPLE_CHAT,       /* messages, for a chat template */
    SW_SAMPLE_TEXT,       /* text, as it is */
    SW_SAMPLE_COMPLETION, /* prompt and completion, as they are; loss on the completion */
} sw_sample_kind;

/* Strings and trees are owned by the sample. A JSON string may hold U+0000: use sw_json_text on the trees. */
typedef struct sw_sample {
    sw_sample_kind kind;
    sw_format format;             /* what the row was */
    sw_task task;                 /* AUTO: what is there */
    cJSON *messages;              /* CHAT: [{role, content, ...}], roles as templates want them; content is a string or,
                                   * with media, a list of parts */
    cJSON *rejected;              /* CHAT: the conversation not wanted, or NULL */
    cJSON *tools;                 /* array, or NULL */
    cJSON *extra;                 /* further template variables (chat_template_kwargs), or NULL */
    cJSON *text;                  /* TEXT: a string */
    cJSON *prompt, *completion;   /* COMPLETION: strings */
    cJSON *positives, *negatives; /* EMBEDDING and RERANKER: lists of strings or conversations, else NULL */
    cJSON *labels;                /* numbers, at least one, or NULL */
    sw_words words;               /* TAG: of text */
    cJSON *tags;                  /* TAG, else NULL: for each word a class by its name or number; null: it lies in no span; or a pair,
                                   * the span's type and whether the word is its first */
    bool has_margin;
    double margin;  /* by how much the answer is better than the rejected one */
    cJSON *media;   /* {"images": [...], "videos": [...], "audios": [...]}: paths, URLs or lists of them, or NULL */
    cJSON *carried; /* object: columns to hand on as they are, or NULL */
    cJSON *rest;    /* object: the other columns */
    bool unfilled;  /* a {{NAME}} of capitals is left in it */
} sw_sample;

typedef struct sw_dataset_options {
    sw_format format;
    const char *system;      /* for conversations that bring none, or NULL */
    const sw_strings *fill;  /* "NAME=VALUE": each {{NAME}} in a text becomes VALUE; NULL: none */
    const sw_strings *map;   /* "OLD=NEW": columns get other names first; NULL: none */
    const sw_strings *carry; /* columns to hand on, "*": all of them; NULL: none */
    sw_task task;
    const struct sw_tags *classes; /* CLASSIFY: whose names labels may be; NULL: labels are numbers */
    bool only_classes;             /* numbers must be those of classes, too */
    bool bare_texts; /* EMBEDDING: a conversation that is one message is its text */
} sw_dataset_options;

/* Takes row (always; it is freed on failure). The message names the field, and what would be right. */
int sw_sample_from(const sw_dataset_options *o, cJSON *row, sw_sample *out) SW_MUST_CHECK;
void sw_sample_free(sw_sample *s);
/* Fails on values of --fill and --map that are none. */
int sw_dataset_check(const sw_dataset_options *o) SW_MUST_CHECK;

#endif
