#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/json.h"
#include "base/memory.h"
#include "text/agent.h"
#include "text/template_format.h"

#include <stdlib.h>
#include <string.h>

static const char tools_text[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":"
    "{\"s\":{\"type\":\"string\"},\"n\":{\"type\":\"integer\"},\"l\":{\"type\":\"array\"}}}}}]";

/* due: the calls as JSON, then " ~ " and what is left of the text. */
static void expect(const char *format, const char *text, const char *due)
{
    cJSON *tools = sw_json_parse(tools_text, sizeof tools_text - 1);
    const sw_agent *a = sw_agent_find(format);
    assert_non_null(a);
    sw_buf rest = {0}, out = {0};
    const char *left = strstr(due, " ~ ");
    cJSON *calls = sw_agent_parse(a, text, strlen(text), tools, &rest),
          *wanted = sw_json_parse(due, (size_t)(left - due));
    assert_non_null(wanted);
    if (!cJSON_Compare(calls, wanted, 1) || strcmp(rest.n ? rest.at : "", left + 3)) {
        sw_json_print(&out, calls);
        fail_msg("%s: %s\n  gives %s ~ %s\n  not   %s", format, text, out.at, rest.n ? rest.at : "", due);
    }
    cJSON_Delete(calls);
    cJSON_Delete(wanted);
    cJSON_Delete(tools);
    sw_buf_free(&rest);
}

#define F(arguments) "{\"name\":\"f\",\"arguments\":" arguments "}"

static void none(void **state)
{
    (void)state;
    for (const sw_agent *a = sw_agents; a->name; a++) {
        expect(a->name, "", "[] ~ ");
        expect(a->name, "Just an answer: { } with (brackets).\n", "[] ~ Just an answer: { } with (brackets).");
    }
    assert_null(sw_agent_find("nope"));
    for (const char *p = "react_en"; p; p = NULL)
        assert_non_null(strstr(sw_agent_list(), p));
}

/* Whatever a model was asked for, it may answer as ReAct. */
static void react(void **state)
{
    (void)state;
    for (const sw_agent *a = sw_agents; a->name; a++)
        expect(a->name,
               "Thought: hm\nAction: f\nAction Input: {\"n\": 1}\nObservation:", "[" F("{\"n\":1}") "] ~ Thought: hm");
    expect(
        "react_en",
        "Action: f\nAction Input: {'s': 'it\\'s', 'l': (1, None, True), 'n': -1.5e3}\nAction: g\nAction Input: plain "
        "words",
        "[" F(
            "{\"s\":\"it's\",\"l\":[1,null,true],\"n\":-1.5e3}") ",{\"name\":\"g\",\"arguments\":\"plain words\"}] ~ ");
    expect("react_en", "Action: f\nAction Input:", "[" F("{}") "] ~ ");
    expect("react_en", "Action: f", "[] ~ Action: f");
    expect("qwen_en", "ok ✿FUNCTION✿: f\n✿ARGS✿: {\"s\": \"✿\"}\n✿RESULT✿: invented",
           "[" F("{\"s\":\"✿\"}") "] ~ ok  invented");
}

static void tagged(void **state)
{
    (void)state;
    expect("hermes", "a\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"n\": 12345678901234567890}}\n</tool_call>\nb",
           "[" F("{\"n\":12345678901234567890}") "] ~ a\n\nb");
    expect("hermes", "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"n\\\": 1}\"}",
           "[" F("{\"n\":1}") "] ~ "); /* cut short */
    expect("hermes", "<tool_call>{\"name\": \"f\", \"argum", "[] ~ <tool_call>{\"name\": \"f\", \"argum");
    expect("hermes", "<tool_call>[{\"name\": \"f\"}, {\"name\": \"f\", \"parameters\": {}}]</tool_call>",
           "[" F("{}") "," F("{}") "] ~ ");
    expect("llama3", "{\"name\": \"f\", \"parameters\": {\"s\": \"a}b\"}}; {\"name\": \"f\", \"parameters\": {}}",
           "[" F("{\"s\":\"a}b\"}") "," F("{}") "] ~ ");
    expect("llama3", "{\"a\": 1} {\"name\": 2}", "[] ~ {\"a\": 1} {\"name\": 2}");
    expect("mistral", "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}]", "[" F("{}") "] ~ ]");
}

/* Values between marks are texts where the tool says so, and JSON where they read as such. */
static void pairs(void **state)
{
    (void)state;
    expect("qwen3_coder",
           "<tool_call>\n<function=f>\n<parameter=s>\n5\n</parameter>\n<parameter=n>\n5\n</"
           "parameter>\n<parameter=l>\n[1, \"a\"]\n"
           "</parameter>\n<parameter=other>\ntwo\nlines\n</parameter>\n</function>\n</tool_call>",
           "[" F("{\"s\":\"5\",\"n\":5,\"l\":[1,\"a\"],\"other\":\"two\\nlines\"}") "] ~ ");
    expect("qwen3_coder", "<function=f>\n</function>", "[" F("{}") "] ~ ");
    expect("glm4_5",
           "<tool_call>f\n<arg_key>n</arg_key>\n<arg_value>5</arg_value>\n<arg_key>s</arg_key>\n<arg_value>a</"
           "arg_value>\n</tool_call><|observation|>",
           "[" F("{\"n\":5,\"s\":\"a\"}") "] ~ ");
    expect("glm4_7", "<tool_call>f</tool_call>", "[" F("{}") "] ~ ");
    expect("deepseek_v4",
           "<｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"x\" "
           "string=\"true\">5</｜DSML｜parameter><｜DSML｜parameter name=\"y\" "
           "string=\"false\">5</｜DSML｜parameter></｜DSML｜invoke>",
           "[" F("{\"x\":\"5\",\"y\":5}") "] ~ ");
    expect("kimi_k3",
           "<|open|>call tool=\"a&quot;&amp;\" index=\"1\"<|sep|><|open|>argument key=\"x\" "
           "type=\"string\"<|sep|>5<|close|>argument<|sep|>"
           "<|close|>call<|sep|>",
           "[{\"name\":\"a\\\"&\",\"arguments\":{\"x\":\"5\"}}] ~ ");
    expect("minicpm5",
           "<function name=\"f\"><param name=\"x\"><![CDATA[<b>\n5]]></param><param name=\"y\">true</param></function>",
           "[" F("{\"x\":\"<b>\\n5\",\"y\":true}") "] ~ ");
    expect("minimax_m2", "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"n\">1",
           "[" F("{\"n\":1}") "] ~ ");
}

static void own_dialects(void **state)
{
    (void)state;
#define NS "]<]minimax[>["
    expect("minimax_m3",
           NS "<tool_call>\n" NS "<invoke name=\"f\">" NS "<l>" NS "<item>1" NS "</item>" NS "<item>" NS "<k>v" NS
              "</k>" NS "</item>" NS "</l>" NS "<e>" NS "</e>" NS "</invoke>\n" NS "</tool_call>",
           "[" F("{\"l\":[1,{\"k\":\"v\"}],\"e\":\"\"}") "] ~ ");
    expect("gemma4", "<|tool_call>call:f{a:<|\"|>it's {<|\"|>,b:[1,{<|\"|>k<|\"|>:true}],c:null}<tool_call|>",
           "[" F("{\"a\":\"it's {\",\"b\":[1,{\"k\":true}],\"c\":null}") "] ~ ");
    expect("kimi_k25",
           "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}<|tool_call_end|>"
           "<|tool_calls_section_end|>",
           "[" F("{}") "] ~ ");
    expect("glm4", "f\n{\"n\": 1}<|assistant|>g\n{}<|observation|>",
           "[" F("{\"n\":1}") ",{\"name\":\"g\",\"arguments\":{}}] ~ ");
    expect("glm4", "A sentence, then\n{\"n\": 1}", "[] ~ A sentence, then\n{\"n\": 1}");
}

/* What goes on for ever or nests for ever ends. */
static void hostile(void **state)
{
    (void)state;
    sw_buf b = {0};
    static const char *const parts[] = {"{",
                                        "[",
                                        "{\"name\": ",
                                        "<tool_call>",
                                        "Action: f\nAction Input: ",
                                        "]<]minimax[>[<invoke name=\"f\">",
                                        "]<]minimax[>[<a>",
                                        "<|tool_call>call:f{a:{",
                                        "f\n{\"a\": ",
                                        "<function=f>",
                                        "<parameter=x>"};
    for (size_t p = 0; p < SW_COUNT(parts); p++) {
        sw_buf_clear(&b);
        while (b.n < 200000)
            sw_buf_puts(&b, parts[p]);
        for (const sw_agent *a = sw_agents; a->name; a++)
            cJSON_Delete(sw_agent_parse(a, b.at, b.n, NULL, NULL));
    }
    sw_buf_free(&b);
}

static void openai(void **state)
{
    (void)state;
    const char text[] = "[" F("{\"s\":\"é\",\"n\":12345678901234567890}") "," F("\"words\"") "]";
    cJSON *calls = sw_json_parse(text, sizeof text - 1), *list = sw_agent_tool_calls(calls);
    sw_buf b = {0};
    sw_json_print(&b, list);
    assert_string_equal(
        b.at, "[{\"id\": \"call_0\", \"type\": \"function\", \"function\": {\"name\": \"f\", "
              "\"arguments\": \"{\\\"s\\\": \\\"é\\\", \\\"n\\\": 12345678901234567890}\"}}, {\"id\": \"call_1\", "
              "\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": \"words\"}}]");
    sw_buf_free(&b);
    cJSON_Delete(calls);
    cJSON_Delete(list);
}

/* Templates of checkpoints are told by the marks in them; each format's own text is told as one that reads its calls.
 */
static void guesses(void **state)
{
    (void)state;
    assert_null(sw_agent_guess("{% for m in messages %}{{ m.content }}{% endfor %}"));
    assert_string_equal(sw_agent_guess("{{ '<tool_call>' }}")->name, "hermes");
    assert_string_equal(sw_agent_guess("'<tool_call>\\n<function='")->name, "qwen3_coder");
    assert_string_equal(sw_agent_guess("[TOOL_CALLS]")->name, "mistral");
    for (const sw_agent *a = sw_agents; a->name; a++) {
        char *part = sw_strfmt("agents/%s", a->name);
        const sw_template_part *p = sw_template_parts;
        while (p->name && strcmp(p->name, part))
            p++;
        assert_non_null(p->name); /* its file is there */
        if (!a->in_user) {
            const sw_agent *g = sw_agent_guess(p->text);
            assert_non_null(g);
            assert_int_equal(g->style, a->style);
        }
        free(part);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(none),         cmocka_unit_test(react),   cmocka_unit_test(tagged), cmocka_unit_test(pairs),
        cmocka_unit_test(own_dialects), cmocka_unit_test(hostile), cmocka_unit_test(openai), cmocka_unit_test(guesses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
