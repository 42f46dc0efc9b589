/* Conversations as data sets write them, made into what chat templates read: role and content under these names, roles
 * user, assistant, system, developer and tool, contents that are strings, tool calls as OpenAI has them. */
#ifndef SW_DATA_MESSAGES_H
#define SW_DATA_MESSAGES_H

#include "base/error.h"
#include "base/json.h"

/* In place. field is what the messages are called in the row, for the error. */
int sw_messages_normalise(cJSON *messages, const char *field) SW_MUST_CHECK;
/* {"role": role, "content": content}; takes content. */
cJSON *sw_message_new(const char *role, cJSON *content);
/* The role a data set's word stands for, or NULL; "tool_call" for a call given as a message. */
const char *sw_role_of(const char *word);

#endif
