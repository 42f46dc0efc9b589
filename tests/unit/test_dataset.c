/* Rows of data files, and the formats of training data. */
#include "base/memory.h"
#include "data/dataset.h"
#include "data/jsonl.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static char dir[] = "/tmp/swift-dataset-XXXXXX";

/* Rows of a file as one text: "line:JSON\n" each, then "!message\n" for a failure. Caller frees. */
static char *rows_of(const char *name, const char *bytes, size_t n, sw_rows_kind kind, sw_text_unit unit)
{
    char *path = sw_path_join(dir, name);
    assert_int_equal(sw_write_file(path, bytes, n), 0);
    sw_rows *r = sw_rows_open(path, kind, unit);
    assert_non_null(r);
    sw_buf out = {0};
    sw_buf_puts(&out, "");
    sw_row row;
    int rc;
    while ((rc = sw_rows_next(r, &row)) > 0) {
        cJSON *v = sw_row_json(r, row.at, row.n, row.line);
        sw_buf_printf(&out, "%lld:", (long long)row.line);
        if (v)
            sw_json_print(&out, v);
        else
            sw_buf_printf(&out, "!%s", sw_error() + strlen(path) + 2);
        sw_buf_putc(&out, '\n');
        cJSON_Delete(v);
    }
    if (rc < 0)
        sw_buf_printf(&out, "!%s\n", sw_error() + strlen(path) + 2);
    if (!rc) {
        sw_digest d;
        assert_int_equal(sw_digest_file(path, &d), 0);
        assert_string_equal(sw_rows_digest(r).hex, d.hex);
        assert_int_equal(sw_rows_bytes(r), n);
    }
    sw_rows_close(r);
    free(path);
    return sw_buf_take(&out);
}

static void expect_rows(const char *name, const char *text, sw_text_unit unit, const char *want)
{
    char *got = rows_of(name, text, strlen(text), SW_ROWS_AUTO, unit);
    assert_string_equal(got, want);
    free(got);
}

static void files(void **state)
{
    (void)state;
    expect_rows("a.jsonl", "{\"a\":1}\n\n{\"a\":2}\r\n{\"a\":3}", 0, "1:{\"a\": 1}\n3:{\"a\": 2}\n4:{\"a\": 3}\n");
    expect_rows("a.jsonl", "\xef\xbb\xbf{\"a\":1}\n", 0, "1:{\"a\": 1}\n");
    expect_rows("a.jsonl", "", 0, "");
    expect_rows("a.jsonl", " \n \n", 0, "");
    expect_rows("a.jsonl", "{\"a\":1}\n{\"a\" 2}\n{\"a\":\"\xff\"}\n", 0,
                "1:{\"a\": 1}\n2:!line 2: JSON at byte 5: unexpected '2}'\n"
                "3:!line 3: JSON at byte 6: invalid UTF-8 (byte 0xff)\n");
    expect_rows("a.jsonl", "hello\n", 0,
                "!line 1: begins with the byte 0x68, which is neither JSON Lines nor a JSON array; for other files say "
                "what they "
                "are (--input-kind)\n");
    expect_rows("a.json", "[\n{\"a\": [1, \"]\\\"{\"]},\n {\"b\":\n2} ]\n", 0,
                "2:{\"a\": [1, \"]\\\"{\"]}\n3:{\"b\": 2}\n");
    expect_rows("a.json", "[1, \"x\",null]", 0, "1:1\n1:\"x\"\n1:null\n");
    expect_rows("a.json", "[]", 0, "");
    expect_rows("a.json", "{\"a\":\n1}\n{\"b\":2}", 0, "1:{\"a\": 1}\n3:{\"b\": 2}\n");
    expect_rows("a.json", "[{\"a\":1} {\"b\":2}]", 0,
                "1:{\"a\": 1}\n!line 1: ',' or ']' is needed after an element of the array\n");
    expect_rows("a.json", "[{\"a\":1},\n{\"b\":", 0,
                "1:{\"a\": 1}\n!line 2: the file ends inside the value that begins here\n");
    expect_rows("a.json", "[{\"a\":1},\n", 0, "1:{\"a\": 1}\n!line 2: the file ends before the array does\n");
    expect_rows("a.json", "[1]\n2", 0, "1:1\n!line 2: more follows the end of the array\n");
    expect_rows("a.json", "[1,]", 0, "1:1\n!line 1: a JSON value is needed, not ']'\n");
    expect_rows(
        "a.csv", "q,\"a \"\"b\"\"\"\r\n1,2\r\n\"x\ny\",\"\"\n\n3,\"4,5\"", 0,
        "2:{\"q\": \"1\", \"a \\\"b\\\"\": \"2\"}\n3:{\"q\": \"x\\ny\"}\n6:{\"q\": \"3\", \"a \\\"b\\\"\": \"4,5\"}\n");
    expect_rows("a.tsv", "q\ta\n1,5\t2\n", 0, "2:{\"q\": \"1,5\", \"a\": \"2\"}\n");
    expect_rows(
        "a.csv", "q,a\n1\n1,2,3\n\"1\"x,2\n\"1", 0,
        "2:!line 2: 1 fields for the 2 columns of the first row\n"
        "3:!line 3: more fields than the 2 columns of the first row\n"
        "4:!line 4: column \"q\": text follows a closing quote; a quote inside a quoted field is written twice\n"
        "!line 5: the file ends inside the quotes of this row\n");
    expect_rows("a.txt", "one\n\n two \nthree\n", SW_TEXT_LINE,
                "1:{\"text\": \"one\"}\n3:{\"text\": \" two \"}\n4:{\"text\": \"three\"}\n");
    expect_rows("a.txt", "\none\ntwo\n \n\nthree\n", SW_TEXT_PARAGRAPH,
                "2:{\"text\": \"one\\ntwo\"}\n6:{\"text\": \"three\"}\n");
    expect_rows("a.txt", "one\n\ntwo\n", SW_TEXT_FILE, "1:{\"text\": \"one\\n\\ntwo\\n\"}\n");
    expect_rows("a.txt", "a\xc3\n", SW_TEXT_LINE, "1:!line 1: byte 1: invalid UTF-8 (byte 0xc3)\n");
    expect_rows("a.jsonl", "\x1f\x8b\x08 and so on", 0,
                "!is packed with gzip; unpack it on the way in: zcat FILE | ... -\n");
}

static void packed_and_long(void **state)
{
    (void)state;
    sw_buf b = {0};
    for (int i = 0; i < 3; i++) { /* rows longer than any block that is read at once */
        sw_buf_printf(&b, "{\"n\":%d,\"t\":\"", i);
        for (int k = 0; k < 400000; k++)
            sw_buf_putc(&b, (char)('a' + (k * 7 + i) % 26));
        sw_buf_puts(&b, "\"}\n");
    }
    char *plain = rows_of("long.jsonl", b.at, b.n, SW_ROWS_AUTO, 0);
    size_t bound = ZSTD_compressBound(b.n);
    char *packed = sw_malloc(bound);
    size_t half = ZSTD_compress(packed, bound, b.at, b.n / 2, 3); /* two frames, as zstd --rsyncable or cat make them */
    size_t n = half + ZSTD_compress(packed + half, bound - half, b.at + b.n / 2, b.n - b.n / 2, 3);
    char *unpacked = rows_of("long.jsonl.zst", packed, n, SW_ROWS_AUTO, 0);
    assert_string_equal(plain, unpacked);
    assert_true(strlen(plain) > 1200000);
    char *cut = rows_of("cut.jsonl.zst", packed, n - 5, SW_ROWS_AUTO, 0);
    assert_non_null(strstr(cut, "the zstd file is cut off"));
    free(plain);
    free(unpacked);
    free(cut);
    free(packed);
    sw_buf_free(&b);
}

/* A row in any format as "kind {what it became}", or "!message". Caller frees. */
static char *sample_of(const sw_dataset_options *o, const char *text)
{
    sw_buf out = {0};
    sw_sample s;
    cJSON *row = sw_json_parse(text, strlen(text));
    assert_non_null(row);
    if (sw_sample_from(o, row, &s)) {
        sw_buf_printf(&out, "!%s", sw_error());
        return sw_buf_take(&out);
    }
    const struct {
        const char *name;
        const cJSON *v;
    } parts[] = {{"messages", s.messages}, {"rejected", s.rejected}, {"tools", s.tools},          {"extra", s.extra},
                 {"text", s.text},         {"prompt", s.prompt},     {"completion", s.completion}};
    for (size_t i = 0; i < SW_COUNT(parts); i++)
        if (parts[i].v) {
            sw_buf_printf(&out, "%s%s ", out.n ? " " : "", parts[i].name);
            sw_json_print(&out, parts[i].v);
        }
    if (s.rest->child) {
        sw_buf_puts(&out, " rest ");
        sw_json_print(&out, s.rest);
    }
    sw_sample_free(&s);
    return sw_buf_take(&out);
}

static void expect(const sw_dataset_options *o, const char *row, const char *want)
{
    static const sw_dataset_options automatic;
    char *got = sample_of(o ? o : &automatic, row);
    for (char *q = got; *q; q++) /* so that the expectations can be read */
        if (*q == '"')
            *q = '\'';
    assert_string_equal(got, want);
    free(got);
}

#define U "{'role': 'user', 'content': 'q'}"
#define A "{'role': 'assistant', 'content': 'a'}"
#define S "{'role': 'system', 'content': 's'}"

static void formats(void **state)
{
    (void)state;
    expect(NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"}]}",
           "messages [" U ", " A "]");
    expect(NULL,
           "{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},{\"from\":\"gpt\",\"value\":\"a\"}],\"system\":"
           "\"s\",\"id\":7}",
           "messages [" S ", " U ", " A "] rest {'id': 7}");
    expect(NULL, "{\"conversation\":[{\"human\":\"q\",\"assistant\":\"a\"},{\"human\":\"q\",\"assistant\":\"a\"}]}",
           "messages [" U ", " A ", " U ", " A "]");
    expect(NULL, "{\"instruction\":\"q\",\"input\":\"\",\"output\":\"a\"}", "messages [" U ", " A "]");
    expect(NULL, "{\"instruction\":\"do\",\"input\":\"it\",\"output\":\"a\"}",
           "messages [{'role': 'user', 'content': 'do\\nit'}, " A "]");
    expect(NULL, "{\"instruction\":\"q\",\"output\":\"a\"}", "messages [" U ", " A "]");
    expect(NULL, "{\"query\":\"q\",\"response\":\"a\",\"history\":[[\"q\",\"a\"]],\"system_prompt\":\"s\"}",
           "messages [" S ", " U ", " A ", " U ", " A "]");
    expect(NULL, "{\"question\":\"q\",\"answer\":[\"a\",\"b\"]}", "messages [" U ", " A "]");
    expect(NULL, "{\"prompt\":\"q\"}", "messages [" U "]");
    expect(NULL, "{\"text\":\"t\",\"meta\":1}", "text 't' rest {'meta': 1}");
    expect(NULL, "{\"prompt\":\"p\",\"completion\":\"c\"}", "prompt 'p' completion 'c'");
    expect(NULL,
           "{\"prompt\":[{\"role\":\"user\",\"content\":\"q\"}],\"completion\":[{\"role\":\"assistant\",\"content\":"
           "\"a\"}]}",
           "messages [" U ", " A "]");
    sw_dataset_options query = {.format = SW_FORMAT_QUERY, .system = "s"};
    expect(&query, "{\"prompt\":\"q\",\"completion\":\"a\"}", "messages [" S ", " U ", " A "]");
    expect(&query, "{\"prompt\":\"q\",\"completion\":\"a\",\"system\":\"s\"}", "messages [" S ", " U ", " A "]");
}

static void preferences(void **state)
{
    (void)state;
    const char *want = "messages [" U ", " A "] rejected [" U ", {'role': 'assistant', 'content': 'b'}]";
    expect(NULL,
           "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"}],"
           "\"rejected_response\":\"b\"}",
           want);
    expect(NULL, "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\"}", want);
    expect(NULL,
           "{\"chosen\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"}],"
           "\"rejected\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"b\"}]}",
           want);
    expect(NULL, "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"a\"}",
           "!field 'rejected': is the same as the answer that is wanted");
}

static void tools_and_parts(void **state)
{
    (void)state;
    expect(NULL,
           "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"q\"}]},"
           "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":"
           "\"f\",\"arguments\":\"{\\\"x\\\": 1}\"}}]},"
           "{\"role\":\"tool\",\"content\":\"r\"}],\"tools\":\"[{\\\"name\\\": \\\"f\\\"}]\"}",
           "messages [" U
           ", {'role': 'assistant', 'content': '', 'tool_calls': [{'type': 'function', 'function': {'name': 'f', "
           "'arguments': {'x': 1}}}]}, {'role': 'tool', 'content': 'r'}] tools [{'name': 'f'}]");
    expect(
        NULL,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"},"
        "{\"role\":\"tool_call\",\"content\":\"{\\\"name\\\":\\\"f\\\",\\\"arguments\\\":{}}\"},"
        "{\"role\":\"tool_call\",\"content\":\"{\\\"name\\\":\\\"g\\\",\\\"arguments\\\":{}}\"},"
        "{\"role\":\"tool_response\",\"content\":\"r\"}]}",
        "messages [" U
        ", {'role': 'assistant', 'content': 'a', 'tool_calls': [{'type': 'function', 'function': {'name': "
        "'f', 'arguments': {}}}, {'type': 'function', 'function': {'name': 'g', 'arguments': {}}}]}, {'role': 'tool', "
        "'content': 'r'}]");
}

static void bad_rows(void **state)
{
    (void)state;
    expect(NULL, "[1]", "!an object is needed, not an array");
    expect(NULL, "{\"messages\":[]}", "!field 'messages': the conversation is empty");
    expect(NULL, "{\"messages\":\"x\"}", "!field 'messages': an array of messages is needed, not a string");
    expect(NULL, "{\"messages\":[{\"role\":\"user\"}]}",
           "!field 'messages[0].content': a string is needed, not nothing");
    expect(NULL, "{\"messages\":[{\"role\":\"user\",\"content\":3}]}",
           "!field 'messages[0].content': a string is needed, not a number");
    expect(NULL, "{\"messages\":[{\"role\":\"king\",\"content\":\"x\"}]}",
           "!field 'messages[0].role': 'king' is not known; user, assistant, system, developer, tool, tool_call, and "
           "human, "
           "gpt, bot, observation and the like are");
    expect(NULL, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
           "!field 'messages[0].content': a part of the type 'image'; only parts of text can be read");
    expect(NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"images\":[\"a.png\"]}",
           "!field 'images': only text can be read; remove the field to train on the text alone");
    expect(NULL, "{\"query\":5}", "!field 'query': a string is needed, not a number");
    expect(NULL, "{\"query\":\"q\",\"history\":[[\"a\"]]}",
           "!field 'history[0]': a pair of strings, [query, response], is needed");
    expect(NULL, "{\"foo\":\"q\"}",
           "!field 'query' (or prompt, input, instruction, question, problem) is missing, and neither "
           "'messages' nor 'text' is there");
    sw_dataset_options text = {.format = SW_FORMAT_TEXT};
    expect(&text, "{\"foo\":\"q\"}", "!field 'text' is missing");
}

static void placeholders(void **state)
{
    (void)state;
    const char *values[] = {"NAME=Ada", "AUTHOR_2=x{{NAME}}"};
    sw_strings list = {values, 2, 2};
    sw_dataset_options o = {.fill = &list};
    assert_int_equal(sw_dataset_check(&o), 0);
    expect(
        &o, "{\"query\":\"I am {{NAME}} of {{AUTHOR_2}}{{{NAME}}}{{NAME}\",\"response\":\"{{name}} {{}}\"}",
        "messages [{'role': 'user', 'content': 'I am Ada of x{{NAME}}{Ada}{{NAME}'}, {'role': 'assistant', 'content': "
        "'{{name}} {{}}'}]");
    values[1] = "=x";
    assert_int_equal(sw_dataset_check(&o), -1);
    values[1] = "name";
    assert_int_equal(sw_dataset_check(&o), -1);
    sw_sample s;
    cJSON *row = sw_json_parse("{\"text\":\"{{OTHER}}\"}", 20);
    assert_int_equal(sw_sample_from(&o, row, &s), 0);
    assert_true(s.unfilled);
    sw_sample_free(&s);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return sw_remove_tree(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(files),           cmocka_unit_test(packed_and_long),
                                       cmocka_unit_test(formats),         cmocka_unit_test(preferences),
                                       cmocka_unit_test(tools_and_parts), cmocka_unit_test(bad_rows),
                                       cmocka_unit_test(placeholders)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
