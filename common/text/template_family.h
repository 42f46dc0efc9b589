#ifndef SW_TEXT_TEMPLATE_FAMILY_H
#define SW_TEXT_TEMPLATE_FAMILY_H

#include "text/template_format.h"

/* The format for a checkpoint of the family without a template; NULL where none is known or none suits the vocabulary.
 */
const sw_chat_format *sw_template_family_format(const char *family, const sw_tokenizer *t);

#endif
