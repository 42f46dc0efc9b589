/* The table of agent formats, and the reading of calls that all of them share: a call lies between marks, and so do its
 * name, keys and values. What a model wrote is anything: nothing here recurses deeper than AGENT_DEPTH, and each byte
 * is looked at a few times only. */
#include "text/agent.h"

#include "base/json.h"
#include "base/memory.h"
#include "text/agent_value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REACT                                                                                                          \
    .call = "Action:", .name_end = "Action Input:", .stop = "Observation:", .style = SW_CALLS_OBJECT, .gap = "\n"
#define QWEN .call = "✿FUNCTION✿:", .name_end = "✿ARGS✿:", .stop = "✿RESULT✿:", .style = SW_CALLS_OBJECT, .gap = "\n"
#define TAGGED_JSON .call = "<tool_call>", .call_end = "</tool_call>", .style = SW_CALLS_JSON
#define GLM                                                                                                            \
    .call = "<tool_call>", .name_end = "<arg_key>", .call_end = "</tool_call>", .key = "<arg_key>",                    \
    .key_end = "</arg_key>", .value_end = "</arg_value>", .ends_answer = "<|observation|>", .stop = "<|observation|>"
#define CODER                                                                                                          \
    .call = "<function=", .name_end = ">", .call_end = "</function>", .key = "<parameter=", .key_end = ">",            \
    .value_end = "</parameter>"
#define LLAMA .style = SW_CALLS_JSON, .call = "{", .in_user = true

const sw_agent sw_agents[] = {
    {.name = "react_en", REACT},
    {.name = "react_zh", REACT},
    {.name = "react_grpo", REACT},
    {.name = "toolbench", REACT},
    {.name = "qwen_en", QWEN},
    {.name = "qwen_zh", QWEN},
    {.name = "qwen_en_parallel", QWEN},
    {.name = "qwen_zh_parallel", QWEN},
    {.name = "hermes", TAGGED_JSON, .lead = SW_AGENT_SEP, .gap = "\n"},
    {.name = "hunyuan_hermes", TAGGED_JSON, .lead = SW_AGENT_SEP, .gap = "\n"},
    {.name = "youtu", TAGGED_JSON, .lead = "<|end_of_text|>"},
    {.name = "qwen3_coder", CODER, .lead = SW_AGENT_SEP, .gap = "\n"},
    {.name = "qwen3_5", CODER, .lead = SW_AGENT_SEP, .gap = "\n\n"},
    {.name = "seed_oss", CODER, .lead = "<seed:eos>"},
    {.name = "hy_v3_preview",
     .call = "<tool_call>",
     .name_end = "<tool_sep>",
     .call_end = "</tool_call>",
     .key = "<arg_key>",
     .key_end = "</arg_key>",
     .value_end = "</arg_value>",
     .lead = "<｜hy_eos｜>"},
    {.name = "hy_v3",
     .call = "<tool_call:opensource>",
     .name_end = "<tool_sep:opensource>",
     .call_end = "</tool_call:opensource>",
     .key = "<arg_key:opensource>",
     .key_end = "</arg_key:opensource>",
     .value_end = "</arg_value:opensource>",
     .lead = "<｜hy_eos:opensource｜>"},
    {.name = "chatglm4",
     .style = SW_CALLS_OBJECT,
     .call = "",
     .name_end = "\n",
     .call_end = "<|assistant|>",
     .ends_answer = "<|observation|>",
     .stop = "<|observation|>"},
    {.name = "glm4",
     .style = SW_CALLS_OBJECT,
     .call = "",
     .name_end = "\n",
     .call_end = "<|assistant|>",
     .ends_answer = "<|observation|>",
     .stop = "<|observation|>"},
    {.name = "glm4_5", GLM},
    {.name = "glm4_7", GLM},
    {.name = "glm5_1", GLM},
    {.name = "llama3", LLAMA, .lead = "<|eot_id|>"},
    {.name = "llama4", LLAMA, .lead = "<|eot|>"},
    {.name = "deepseek_v3_1",
     .style = SW_CALLS_OBJECT,
     .call = "<｜tool▁call▁begin｜>",
     .name_end = "<｜tool▁sep｜>",
     .call_end = "<｜tool▁call▁end｜>",
     .lead = "<｜end▁of▁sentence｜>"},
    {.name = "deepseek_v4",
     .call = "<｜DSML｜invoke name=\"",
     .name_end = "\">",
     .call_end = "</｜DSML｜invoke>",
     .key = "<｜DSML｜parameter name=\"",
     .key_end = "\"",
     .value_end = "</｜DSML｜parameter>",
     .lead = "<｜end▁of▁sentence｜>"},
    {.name = "minimax_m2",
     .call = "<invoke name=\"",
     .name_end = "\">",
     .call_end = "</invoke>",
     .key = "<parameter name=\"",
     .key_end = "\">",
     .value_end = "</parameter>",
     .lead = "[e~[\n"},
    {.name = "minimax_m3",
     .style = SW_CALLS_MINIMAX,
     .call = "]<]minimax[>[<invoke name=\"",
     .name_end = "\">",
     .call_end = "]<]minimax[>[</invoke>",
     .lead = "[e~[\n"},
    {.name = "gemma4",
     .style = SW_CALLS_GEMMA,
     .call = "<|tool_call>call:",
     .name_end = "{",
     .call_end = "<tool_call|>",
     .stop = "<|tool_response>"},
    {.name = "mistral", .style = SW_CALLS_JSON, .call = "[TOOL_CALLS]", .ends_answer = "]</s>", .lead = SW_AGENT_SEP},
    {.name = "kimi_k25",
     .style = SW_CALLS_OBJECT,
     .call = "<|tool_call_begin|>",
     .name_end = "<|tool_call_argument_begin|>",
     .call_end = "<|tool_call_end|>",
     .lead = "<|im_end|>"},
    {.name = "kimi_k3",
     .call = "<|open|>call tool=\"",
     .name_end = "\"",
     .call_end = "<|close|>call<|sep|>",
     .key = "<|open|>argument key=\"",
     .key_end = "\"",
     .value_end = "<|close|>argument<|sep|>",
     .lead = "<|close|>message<|sep|><|end_of_msg|>"},
    {.name = "minicpm5",
     .call = "<function name=\"",
     .name_end = "\">",
     .call_end = "</function>",
     .key = "<param name=\"",
     .key_end = "\">",
     .value_end = "</param>",
     .lead = SW_AGENT_SEP},
    {.name = NULL}};

const sw_agent *sw_agent_find(const char *name)
{
    for (const sw_agent *a = sw_agents; a->name; a++)
        if (!strcmp(a->name, name))
            return a;
    return NULL;
}

const char *sw_agent_list(void)
{
    static _Thread_local char list[800];
    size_t n = 0;
    for (const sw_agent *a = sw_agents; a->name && n < sizeof list; a++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", a->name);
    return list;
}

const sw_agent *sw_agent_guess(const char *jinja)
{
    static const char *const told[][2] = {
        /* the first mark that is there tells; rarer ones first */
        {"minimax[>[", "minimax_m3"},
        {"<minimax:tool_call>", "minimax_m2"},
        {"<seed:tool_call>", "seed_oss"},
        {"<｜DSML｜", "deepseek_v4"},
        {"<｜tool▁call▁begin｜>", "deepseek_v3_1"},
        {"<|tool_call>call:", "gemma4"},
        {"<|tool_call_argument_begin|>", "kimi_k25"},
        {"<|open|>call", "kimi_k3"},
        {"<tool_sep:opensource>", "hy_v3"},
        {"<tool_sep>", "hy_v3_preview"},
        {"<arg_key>", "glm4_7"},
        {"<function=", "qwen3_coder"},
        {"<param name=", "minicpm5"},
        {"[TOOL_CALLS]", "mistral"},
        {"✿FUNCTION✿", "qwen_en"},
        {"<tool_call>", "hermes"},
        {"<|observation|>", "glm4"},
        {"<|python_tag|>", "llama3"},
        {"Action Input:", "react_en"},
    };
    for (size_t i = 0; i < SW_COUNT(told); i++)
        if (strstr(jinja, told[i][0]))
            return sw_agent_find(told[i][1]);
    return NULL;
}

/* ---- reading */

static const char *find(const char *at, const char *end, const char *mark)
{
    size_t n = strlen(mark);
    return n && (size_t)(end - at) >= n ? memmem(at, (size_t)(end - at), mark, n) : NULL;
}

static sw_span trim(const char *at, const char *end)
{
    while (at < end && strchr(" \t\r\n", *at) && *at)
        at++;
    while (end > at && strchr(" \t\r\n", end[-1]) && end[-1])
        end--;
    return (sw_span){at, (size_t)(end - at)};
}

/* The type that a tool's schema gives a parameter, or NULL. */
static const cJSON *schema_type(const cJSON *tools, sw_span name, const char *key)
{
    for (const cJSON *t = cJSON_IsArray(tools) ? tools->child : NULL; t; t = t->next) {
        const cJSON *f = sw_json_get(t, "function"), *own = sw_json_get(f ? f : t, "name");
        if (cJSON_IsString(own) && strlen(own->valuestring) == name.n && !memcmp(own->valuestring, name.at, name.n))
            return sw_json_get(sw_json_get(sw_json_get(sw_json_get(f ? f : t, "parameters"), "properties"), key),
                               "type");
    }
    return NULL;
}

static cJSON *make_text(sw_span s)
{
    char *text = sw_strndup(s.at, s.n);
    cJSON *v = cJSON_CreateString(text);
    free(text);
    return v;
}

/* A value as it stands: a text where the tool says so, else JSON where it reads as such. */
static cJSON *make_value(sw_span s, const cJSON *type)
{
    bool is_text = cJSON_IsString(type) && !strcmp(type->valuestring, "string");
    cJSON *v = is_text ? NULL : agent_value(s.at, s.n);
    return v ? v : make_text(s);
}

static void add_call(cJSON *calls, sw_span name, cJSON *arguments)
{
    cJSON *call = cJSON_CreateObject();
    cJSON_AddItemToObject(call, "name", make_text(name));
    cJSON_AddItemToObject(call, "arguments", arguments ? arguments : cJSON_CreateObject());
    cJSON_AddItemToArray(calls, call);
}

/* &quot; and &amp; of attributes. */
static char *unescape(sw_span s)
{
    char *out = sw_strndup(s.at, s.n), *to = out;
    for (const char *at = out; *at;) {
        size_t n = !strncmp(at, "&quot;", 6) ? 6 : !strncmp(at, "&amp;", 5) ? 5 : 1;
        *to++ = n == 6 ? '"' : *at;
        at += n;
    }
    *to = 0;
    return out;
}

/* What stands before a value: nothing, a tag of its own (<arg_value>), or what remains of the key's (string="true">,
 * type="number"<|sep|>). told: that says whether the value is a text: 1 yes, 0 no, -1 it does not. */
static const char *skip_to_value(const sw_agent *a, const char *at, const char *end, int *told)
{
    *told = -1;
    if (!strcmp(a->key_end, "\"")) {
        const char *close = find(at, end, strstr(a->key, "<|open|>") ? "<|sep|>" : ">");
        if (!close)
            return at;
        *told = find(at, close, "string=\"true\"") || find(at, close, "type=\"string\"");
        return close + (*close == '>' ? 1 : strlen("<|sep|>"));
    }
    if (!strncmp(a->value_end, "</", 2) && strncmp(a->key, "<param", 6)) { /* its opening tag */
        const char *p = at;
        while (p < end && strchr(" \t\r\n", *p) && *p)
            p++;
        size_t n = strlen(a->value_end) - 1;
        if ((size_t)(end - p) > n && *p == '<' && !memcmp(p + 1, a->value_end + 2, n - 1))
            return p + n;
    }
    return at;
}

static cJSON *read_pairs(const sw_agent *a, sw_span name, const char *at, const char *end, const cJSON *tools)
{
    cJSON *all = cJSON_CreateObject();
    for (const char *key; (key = find(at, end, a->key));) {
        key += strlen(a->key);
        const char *key_end = find(key, end, a->key_end);
        if (!key_end)
            break;
        int told;
        sw_span k = trim(key, key_end);
        const char *value = skip_to_value(a, key_end + strlen(a->key_end), end, &told),
                   *value_end = find(value, end, a->value_end);
        sw_span v = {value, (size_t)((value_end ? value_end : end) - value)};
        bool cdata = v.n >= 12 && !memcmp(v.at, "<![CDATA[", 9) && !memcmp(v.at + v.n - 3, "]]>", 3);
        if (cdata)
            v = (sw_span){v.at + 9, v.n - 12};
        else if (v.n && *v.at == '\n' && v.at[v.n - 1] == '\n') /* a value on lines of its own */
            v = (sw_span){v.at + 1, v.n - (v.n > 1 ? 2 : 1)};
        char *word = unescape(k);
        const cJSON *type = schema_type(tools, name, word);
        cJSON_DeleteItemFromObjectCaseSensitive(all, word);
        cJSON_AddItemToObject(all, word, told == 1 || cdata ? make_text(v) : make_value(v, type));
        free(word);
        if (!value_end)
            break;
        at = value_end + strlen(a->value_end);
    }
    return all;
}

/* {"name", "arguments" or "parameters"}, or a list of such. */
static void take_json(cJSON *calls, cJSON *v, int depth)
{
    if (cJSON_IsArray(v) && depth < 2) {
        for (cJSON *c = v->child; c; c = c->next)
            take_json(calls, c, depth + 1);
        return;
    }
    const cJSON *name = sw_json_get(v, "name"), *given = sw_json_get(v, "arguments");
    given = given ? given : sw_json_get(v, "parameters");
    if (!cJSON_IsString(name))
        return;
    cJSON *own = cJSON_IsString(given) ? agent_value(given->valuestring, strlen(given->valuestring)) : NULL;
    if (own && !cJSON_IsObject(own)) {
        cJSON_Delete(own);
        own = NULL;
    }
    add_call(calls, (sw_span){name->valuestring, strlen(name->valuestring)},
             own     ? own
             : given ? cJSON_Duplicate(given, 1)
                     : NULL);
}

/* Objects one after another, with commas, brackets and line breaks between. Returns where they end. */
static const char *read_json(const char *at, const char *end, cJSON *calls)
{
    while (at < end) {
        const char *p = at;
        while (p < end && strchr(" \t\r\n,;[]", *p) && *p)
            p++;
        size_t used;
        cJSON *v = p < end && *p == '{' ? agent_value_prefix(p, (size_t)(end - p), &used) : NULL;
        if (!v)
            return at;
        int before = cJSON_GetArraySize(calls);
        take_json(calls, v, 0);
        cJSON_Delete(v);
        if (cJSON_GetArraySize(calls) == before)
            return at;
        at = p + used;
    }
    return at;
}

/* A name that can be one: what stands before the mark that ends it, without the decoration some models add. */
static sw_span clean_name(sw_span s)
{
    if (s.n > 10 && !memcmp(s.at, "functions.", 10)) {
        s.at += 10;
        s.n -= 10;
        const char *colon = memchr(s.at, ':', s.n);
        s.n = colon ? (size_t)(colon - s.at) : s.n;
    }
    return s;
}

static cJSON *read_object(const char *at, const char *end)
{
    sw_span s = trim(at, end);
    size_t used;
    cJSON *v = s.n ? agent_value_prefix(s.at, s.n, &used) : NULL;
    if (v && !cJSON_IsObject(v)) {
        cJSON_Delete(v);
        v = NULL;
    }
    return v ? v : s.n ? make_text(s) : cJSON_CreateObject();
}

/* NAME, a line break, and an object: what has no mark of its own. */
static const char *read_bare(const sw_agent *a, const char *at, const char *end, cJSON *calls, const char **begin)
{
    for (const char *line = at; line < end;) {
        const char *eol = memchr(line, '\n', (size_t)(end - line));
        if (!eol)
            return NULL;
        const char *next = eol + 1;
        sw_span name = trim(line, eol);
        bool good = name.n > 0 && name.n <= 128 && next < end && *next == '{';
        for (size_t i = 0; i < name.n && good; i++)
            good = strchr(" `{}\"<>", name.at[i]) == NULL;
        size_t used;
        cJSON *v = good ? agent_value_prefix(next, (size_t)(end - next), &used) : NULL;
        if (cJSON_IsObject(v)) {
            add_call(calls, name, v);
            *begin = line;
            next += used;
            size_t close = strlen(a->call_end);
            return (size_t)(end - next) >= close && !memcmp(next, a->call_end, close) ? next + close : next;
        }
        cJSON_Delete(v);
        line = next;
    }
    return NULL;
}

static const char *first_of(const char *const *marks, size_t n, const char *at, const char *end)
{
    const char *first = end;
    for (size_t i = 0; i < n; i++) {
        const char *hit = marks[i] ? find(at, end, marks[i]) : NULL;
        first = hit && hit < first ? hit : first;
    }
    return first;
}

/* The call that begins at or after at: it is added to calls. Returns where reading goes on, or NULL at the end; *begin:
 * where the call began, NULL where what looked like one was none. */
static const char *read_call(const sw_agent *a, const char *at, const char *end, const cJSON *tools, cJSON *calls,
                             const char **begin)
{
    *begin = NULL;
    if (!*a->call)
        return read_bare(a, at, end, calls, begin);
    const char *call = find(at, end, a->call);
    if (!call)
        return NULL;
    const char *name = call + strlen(a->call);
    int before = cJSON_GetArraySize(calls);
    if (a->style == SW_CALLS_JSON) {
        const char *stop = a->call_end ? find(name, end, a->call_end) : NULL;
        const char *used = read_json(*a->call == '{' ? call : name, stop ? stop : end, calls);
        if (cJSON_GetArraySize(calls) == before)
            return name;
        *begin = call;
        return stop ? stop + strlen(a->call_end) : used;
    }
    const char *const closers[] = {a->call_end, a->call_end ? NULL : a->call, a->call_end ? NULL : a->stop};
    const char *limit = first_of(closers, SW_COUNT(closers), name, end);
    const char *name_end = find(name, limit, a->name_end);
    if (!name_end && a->style == SW_CALLS_PAIRS && limit < end)
        name_end = limit; /* no arguments */
    if (!name_end)
        return name;
    sw_span s = clean_name(trim(name, name_end));
    const char *body = a->style == SW_CALLS_GEMMA || (a->key && !strcmp(a->name_end, a->key))
                           ? name_end
                           : SW_MIN(name_end + strlen(a->name_end), limit);
    if (!s.n || s.n > 256)
        return name;
    char *spelt = unescape(s); /* attributes hide quotes */
    if (*a->name_end == '"')
        s = (sw_span){spelt, strlen(spelt)};
    switch (a->style) {
    case SW_CALLS_PAIRS: add_call(calls, s, read_pairs(a, s, body, limit, tools)); break;
    case SW_CALLS_GEMMA: add_call(calls, s, agent_value_gemma(body, (size_t)(limit - body))); break;
    case SW_CALLS_MINIMAX: add_call(calls, s, agent_value_minimax(body, (size_t)(limit - body))); break;
    default: add_call(calls, s, read_object(body, limit)); break;
    }
    free(spelt);
    *begin = call;
    return a->call_end && limit < end ? limit + strlen(a->call_end) : limit;
}

static void read_all(const sw_agent *a, const char *text, const char *end, const cJSON *tools, cJSON *calls,
                     sw_buf *rest)
{
    const char *at = text, *kept = text;
    int tries = 0; /* a text full of calls, or of what looks like the beginning of one, is read that far only */
    for (const char *begin, *next; at < end && tries++ < 1000 && (next = read_call(a, at, end, tools, calls, &begin));
         at = next) {
        if (begin) {
            sw_buf_add(rest, kept, (size_t)(begin - kept));
            kept = next;
        }
    }
    sw_buf_add(rest, kept, (size_t)(end - kept));
}

/* What only frames the calls, and is left over once they are taken out. */
static void drop_frames(sw_buf *b)
{
    static const char *const frames[] = {
        /* longer ones first */
        "]<]minimax[>[<tool_call>",
        "]<]minimax[>[</tool_call>",
        "<tool_calls>",
        "</tool_calls>",
        "<tool_calls:opensource>",
        "</tool_calls:opensource>",
        "<tool_call>",
        "</tool_call>",
        "<minimax:tool_call>",
        "</minimax:tool_call>",
        "<seed:tool_call>",
        "</seed:tool_call>",
        "<｜DSML｜tool_calls>",
        "</｜DSML｜tool_calls>",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>",
        "<|open|>tools<|sep|>",
        "<|close|>tools<|sep|>",
        "<|observation|>",
        "<|assistant|>",
        "Observation:",
        "✿RESULT✿:",
        "]</s>",
        "[TOOL_CALLS]",
    };
    size_t kept = 0;
    for (size_t at = 0, n; at < b->n; at += n) {
        n = 0;
        for (size_t i = 0; i < SW_COUNT(frames) && !n; i++)
            if (*frames[i] == b->at[at] && b->n - at >= strlen(frames[i]) &&
                !memcmp(b->at + at, frames[i], strlen(frames[i])))
                n = strlen(frames[i]);
        if (!n) {
            b->at[kept++] = b->at[at];
            n = 1;
        }
    }
    b->n = kept;
}

cJSON *sw_agent_parse(const sw_agent *a, const char *text, size_t n, const cJSON *tools, sw_buf *rest)
{
    cJSON *calls = cJSON_CreateArray();
    sw_buf left = {0};
    read_all(a, text, text + n, tools, calls, &left);
    if (!calls->child && a->call != sw_agents[0].call) {
        sw_buf_clear(&left);
        read_all(&sw_agents[0], text, text + n, tools, calls, &left);
    }
    if (rest) {
        if (calls->child)
            drop_frames(&left);
        sw_span s = left.n ? trim(left.at, left.at + left.n) : (sw_span){"", 0};
        sw_buf_add(rest, s.at, s.n);
    }
    sw_buf_free(&left);
    return calls;
}

cJSON *sw_agent_tool_calls(const cJSON *calls)
{
    cJSON *list = cJSON_CreateArray();
    int i = 0;
    for (const cJSON *c = calls->child; c; c = c->next, i++) {
        cJSON *call = cJSON_CreateObject(), *f = cJSON_CreateObject();
        const cJSON *arguments = sw_json_get(c, "arguments");
        char id[24];
        snprintf(id, sizeof id, "call_%d", i);
        cJSON_AddStringToObject(call, "id", id);
        cJSON_AddStringToObject(call, "type", "function");
        cJSON_AddItemToObject(f, "name", cJSON_Duplicate(sw_json_get(c, "name"), 1));
        if (cJSON_IsString(arguments)) {
            cJSON_AddItemToObject(f, "arguments", cJSON_Duplicate(arguments, 1));
        } else {
            sw_buf b = {0};
            sw_json_print(&b, arguments);
            cJSON_AddStringToObject(f, "arguments", b.at);
            sw_buf_free(&b);
        }
        cJSON_AddItemToObject(call, "function", f);
        cJSON_AddItemToArray(list, call);
    }
    return list;
}
