#include "text/template.h"

#include "base/json.h"

#include <string.h>

#define TOOLS(name) "[{\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"description\":\"d\",\"parameters\":{\"type\":\"object\",\"properties\":{}}}}]"
#define PLAIN "[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"}]"
#define CALL                                                                                                                    \
    "[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"call12345\",\"type\":\"function\","  \
    "\"function\":{\"name\":\"Zq8\",\"arguments\":{\"x\":\"Zq9\"}}}]},{\"role\":\"tool\",\"tool_call_id\":\"call12345\",\"name\":\"f\","           \
    "\"content\":\"r\"},{\"role\":\"assistant\",\"content\":\"a\"}]"

/* Whether it can be rendered; out is then what came. */
static bool render(const sw_template *m, const char *messages, const char *tools, bool prompt, sw_buf *out)
{
    cJSON *list = sw_json_parse(messages, strlen(messages)), *offered = tools ? sw_json_parse(tools, strlen(tools)) : NULL;
    bool good = list && !sw_template_render(m, list, offered, NULL, prompt, out, NULL) && out->n;
    sw_error_clear();
    cJSON_Delete(list);
    cJSON_Delete(offered);
    return good;
}

static bool takes_media(const sw_template *m)
{
    sw_buf a = {0}, b = {0};
    bool takes = render(m, "[{\"role\":\"user\",\"content\":[{\"type\":\"image\"},{\"type\":\"text\",\"text\":\"Zq7\"}]}]", NULL, true, &a) &&
                 render(m, "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Zq7\"}]}]", NULL, true, &b) && strstr(a.at, "Zq7") &&
                 !strstr(a.at, "'type'") && !strstr(a.at, "\"type\"") && strcmp(a.at, b.at);
    sw_buf_free(&a);
    sw_buf_free(&b);
    return takes;
}

static bool takes_calls(const sw_template *m)
{
    sw_buf a = {0};
    bool takes = !render(m, CALL, TOOLS("f"), false, &a) || strstr(a.at, "Zq8") || strstr(a.at, "Zq9");
    sw_buf_free(&a);
    return takes;
}

static bool takes_tools(const sw_template *m)
{
    sw_buf a = {0};
    bool takes = !render(m, PLAIN, TOOLS("Zq7"), false, &a) || strstr(a.at, "Zq7");
    sw_buf_free(&a);
    return takes;
}

sw_template_use sw_template_used(const sw_template *m)
{
    return (sw_template_use){m && takes_media(m), !m || takes_calls(m), !m || takes_tools(m)};
}
