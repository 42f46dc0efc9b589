/* Agent formats: how tools, tool calls and their results stand in a chat template, and how calls are read out of what a
 * model wrote. The written side is Jinja, common/text/agents/NAME.jinja, with three macros:
 *   tool_prompt(tools, system)  the system text with the tools in it (in_user: what stands before the first query)
 *   tool_calls(calls)           an assistant's calls
 *   tool_results(results)       tool messages up to where the assistant goes on
 * A new format is that file and one row of the table in agent.c. */
#ifndef SW_TEXT_AGENT_H
#define SW_TEXT_AGENT_H

#include "base/error.h"
#include "base/strbuf.h"

#include <cjson/cJSON.h>
#include <stdbool.h>

#define SW_AGENT_SEP "\1" /* sw_agent.lead: the chat template's own separator */

typedef enum sw_call_style {
    SW_CALLS_PAIRS,   /* a name, then keys and values, between marks */
    SW_CALLS_OBJECT,  /* a name, then all arguments as one JSON object or Python literal */
    SW_CALLS_JSON,    /* {"name": ..., "arguments" or "parameters": ...} */
    SW_CALLS_GEMMA,   /* name{key:value,...} with a quote of its own */
    SW_CALLS_MINIMAX, /* nested tags with a namespace */
} sw_call_style;

typedef struct sw_agent {
    const char *name;
    const char *lead;        /* between an answer that calls and the results; trained on where it is the suffix */
    const char *gap;         /* between an answer's text and its calls */
    const char *ends_answer; /* calls end with it: no suffix follows */
    const char *stop;        /* where a model is stopped that would go on to invent results */
    bool in_user;            /* tools stand in the first user's turn */
    sw_call_style style;
    /* Marks. A call begins at call (anywhere, or after a line break where bare), its name ends at name_end, the call at
     * call_end or where the text does. key, key_end, value_end: of PAIRS. */
    const char *call, *name_end, *call_end, *key, *key_end, *value_end;
} sw_agent;

extern const sw_agent sw_agents[];               /* ends with a NULL name */
const sw_agent *sw_agent_find(const char *name); /* NULL: there is none */
const char *sw_agent_list(void);                 /* the names, for messages */
/* The format that a chat template's Jinja writes calls in, by the marks in it; NULL where it has none of them. */
const sw_agent *sw_agent_guess(const char *jinja);

/* The calls in a model's answer, in its own format or else as ReAct, which models fall back to: an array of
 * {"name": text, "arguments": object}, that the caller deletes; empty where there are none. tools (may be NULL) tell
 * which values are texts; without them a value that reads as JSON is that. Arguments that cannot be read are kept as a
 * text. rest (may be NULL): the answer without its calls, trimmed, is appended. */
cJSON *sw_agent_parse(const sw_agent *a, const char *text, size_t n, const cJSON *tools, sw_buf *rest);

/* The same as OpenAI's tool_calls: [{"id": "call_0", "type": "function", "function": {"name", "arguments": JSON
 * text}}]. */
cJSON *sw_agent_tool_calls(const cJSON *calls);

#endif
