/* What makes a saved folder converse as it was trained: the chat template, and the tokens that end an answer. */
#ifndef SW_MODEL_MODEL_CHAT_H
#define SW_MODEL_MODEL_CHAT_H

#include "model/model.h"
#include "text/tokenizer.h"

/* Writes into `dir`: chat_template.jinja with `text`, and generation_config.json (that of dir or of the base) in which
 * end_token (-1: none) stands first among the tokens that end generation. whole: dir is a model with its tokenizer, whose
 * configuration then gets the template and the end token too. text NULL: generation_config.json only. */
int sw_save_chat(const sw_model *m, const sw_tokenizer *t, const char *dir, const char *text, int32_t end_token, bool whole) SW_MUST_CHECK;

#endif
