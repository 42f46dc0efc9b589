/* Any bytes as a model's answer: the first byte chooses the format. What is read as calls is written as OpenAI writes
 * them, and must read as JSON again. */
#include "base/json.h"
#include "text/agent.h"

#include <stdint.h>
#include <stdlib.h>

static const char tools_text[] =
    "[{\"name\":\"f\",\"parameters\":{\"properties\":{\"s\":{\"type\":\"string\"},\"n\":{\"type\":[\"integer\"]}}}}]";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static cJSON *tools;
    size_t formats = 0;
    if (!tools)
        tools = sw_json_parse(tools_text, sizeof tools_text - 1);
    while (sw_agents[formats].name)
        formats++;
    if (!n)
        return 0;
    const char *text = (const char *)data + 1;
    sw_buf rest = {0}, b = {0};
    cJSON *calls = sw_agent_parse(&sw_agents[*data % formats], text, n - 1, tools, &rest),
          *list = sw_agent_tool_calls(calls), *again;
    if (rest.n > n || cJSON_GetArraySize(list) != cJSON_GetArraySize(calls))
        abort();
    for (const cJSON *c = calls->child; c; c = c->next)
        if (!cJSON_IsString(sw_json_get(c, "name")))
            abort();
    sw_json_print(&b, list);
    if (!(again = sw_json_parse(b.at, b.n)))
        abort();
    cJSON_Delete(again);
    cJSON_Delete(list);
    cJSON_Delete(calls);
    sw_buf_free(&rest);
    sw_buf_free(&b);
    return 0;
}
