/* What template.c and template_labels.c share. */
#ifndef SW_TEXT_TEMPLATE_INTERNAL_H
#define SW_TEXT_TEMPLATE_INTERNAL_H

#include "text/template.h"

struct sw_template {
    const sw_tokenizer *tokenizer;
    char *name, *text;
    sw_digest digest;
    sw_jinja *jinja;
    cJSON *tokens; /* bos_token, eos_token ... */
    int32_t end_token;
    bool budget; /* thinking_budget is the tokens of the longest thought where nothing sets it */
    bool apart; /* answers are tokenised apart from what stands around them, as ms-swift does */
    const sw_agent *agent;
    char **stop; /* NULL-terminated */
};

/* As sw_template_variables, with the tokenizer's tokens. */
cJSON *template_variables(const sw_template *m, const cJSON *messages, const cJSON *tools, const cJSON *extra);
void template_set_prompt(cJSON *vars, bool add_generation_prompt);
int template_render(const sw_template *m, const cJSON *vars, sw_buf *out, sw_ranges *generation);

#endif
