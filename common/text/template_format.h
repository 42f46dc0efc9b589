/* Chat formats as data: a conversation cut in pieces, as ms-swift describes them, and the Jinja template each amounts
 * to. */
#ifndef SW_TEXT_TEMPLATE_FORMAT_H
#define SW_TEXT_TEMPLATE_FORMAT_H

#include "text/tokenizer.h"

enum {                              /* sw_chat_format.flags */
       SW_CHAT_ADD_BOS = 1,         /* what the tokenizer puts before any text comes first */
       SW_CHAT_THINKS = 2,          /* thoughts of earlier rounds are removed */
       SW_CHAT_KEEPS_THOUGHTS = 4,  /* ... not */
       SW_CHAT_AFTER_USER = 8,      /* no_thinking only before answers to the user, not to a tool */
       SW_CHAT_KWARG_THINKING = 16, /* the variable that turns thinking off is `thinking`, not `enable_thinking` */
       SW_CHAT_OWN_SYSTEM = 32,     /* the default system text is the checkpoint's SYSTEM_PROMPT.txt, with {name}, {today}
                                       and {yesterday} filled in */
       SW_CHAT_OWN_SYSTEM_AS_IS = 64, /* ... as it stands */
       SW_CHAT_BUDGET = 128, /* thinking_budget is the tokens of the longest thought, where nothing sets it */
};

/* Texts with the marks that template_formats.def describes. */
typedef struct sw_chat_pieces {
    const char *prefix, *system_prefix, *prompt, *system_prompt, *chat_sep, *suffix;
} sw_chat_pieces;

typedef struct sw_chat_format {
    const char *name;
    const sw_chat_pieces *pieces;
    unsigned flags;
    const char *system;                   /* where the conversation brings none; NULL: none either */
    const char *agent;                    /* how tools are written; NULL: react_en */
    const char *stop[4];                  /* texts that end an answer, beside the suffix */
    const char *thinking;                 /* ends the prompt while thinking is on */
    const char *no_thinking;              /* ends it while it is off, and begins answers without thoughts */
    const char *history;                  /* begins earlier answers whose thoughts were removed */
    const char *think_open, *think_close; /* NULL: from thinking, or <think> */
    const char *hooks;                    /* macros that edit texts on their way (hooks/NAME.jinja), or NULL */
} sw_chat_format;

extern const sw_chat_format sw_chat_formats[];               /* ends with a NULL name */
const sw_chat_format *sw_chat_format_find(const char *name); /* NULL: there is none */

/* Appends the format as a Jinja template, its tools written in the agent format (NULL: its own), with a first comment
 * that says which: what sw_template_from_text reads back. t gives the beginning of a text and tokens named by id. */
int sw_chat_format_to_jinja(const sw_chat_format *f, const char *agent, const sw_tokenizer *t,
                            sw_buf *out) SW_MUST_CHECK;

/* Texts that the build takes from the tree: template_chat, agents/NAME and hooks/NAME. */
typedef struct sw_template_part {
    const char *name, *text;
} sw_template_part;
extern const sw_template_part sw_template_parts[]; /* ends with a NULL name */

#endif
