/* Values as models write them in calls: JSON, Python literals, and two dialects of chat templates. All are turned into
 * JSON. */
#ifndef SW_TEXT_AGENT_VALUE_H
#define SW_TEXT_AGENT_VALUE_H

#include <cjson/cJSON.h>
#include <stddef.h>

/* The value that fills text[0..n) but for white space, or NULL: no such value, or nested deeper than 60. */
cJSON *agent_value(const char *text, size_t n);
/* The value that text[0..n) begins with; *used: its bytes. */
cJSON *agent_value_prefix(const char *text, size_t n, size_t *used);
/* {key:value,...} with bare keys and texts between <|"|>. NULL as above. */
cJSON *agent_value_gemma(const char *text, size_t n);
/* ]<]minimax[>[<key>...]<]minimax[>[</key> one after another; lists are <item>s. Always an object. */
cJSON *agent_value_minimax(const char *text, size_t n);

#endif
