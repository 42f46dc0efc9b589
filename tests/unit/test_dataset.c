/* Rows of data files, and the formats of training data. */
#include "base/memory.h"
#include "data/dataset.h"
#include "data/jsonl.h"
#include "tests/unit/folder.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

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
    expect_rows("a.jsonl", "\x1f\x8b\x08 and so on", 0, "!gzip before byte 13: unknown header flags set\n");
    expect_rows("a.jsonl", "BZh9", 0, "!is packed with bzip2; unpack it on the way in: bzcat FILE | ... -\n");
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
    assert_non_null(strstr(cut, "the packed file is cut off"));
    free(plain);
    free(unpacked);
    free(cut);
    free(packed);
    sw_buf_free(&b);
}

static size_t gzip(const char *from, size_t n, char *to, size_t room)
{
    z_stream z = {
        .next_in = (Bytef *)(uintptr_t)from, .avail_in = (uInt)n, .next_out = (Bytef *)to, .avail_out = (uInt)room};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return z.total_out;
}

/* gzip files: members one behind the other, zeros after the last, cut, followed by something else. */
static void gzipped(void **state)
{
    (void)state;
    sw_buf b = {0};
    for (int i = 0; i < 60000; i++)
        sw_buf_printf(&b, "{\"n\":%d}\n", i);
    char *plain = rows_of("a.jsonl", b.at, b.n, SW_ROWS_AUTO, 0), *packed = sw_calloc(1, b.n);
    size_t half = gzip(b.at, b.n / 2, packed, b.n),
           n = half + gzip(b.at + b.n / 2, b.n - b.n / 2, packed + half, b.n - half);
    char *unpacked = rows_of("a.jsonl.gz", packed, n, SW_ROWS_AUTO, 0);
    assert_string_equal(plain, unpacked);
    free(unpacked);
    unpacked = rows_of("zeros.gz", packed, n + 512, SW_ROWS_AUTO, 0);
    assert_string_equal(plain, unpacked);
    free(unpacked);
    for (size_t cut = 1; cut < 30; cut += 7) {
        unpacked = rows_of("cut.gz", packed, n - cut, SW_ROWS_AUTO, 0);
        assert_non_null(strstr(unpacked, "the packed file is cut off"));
        free(unpacked);
    }
    packed[n] = 'x';
    unpacked = rows_of("more.gz", packed, n + 20, SW_ROWS_AUTO, 0);
    assert_non_null(strstr(unpacked, "gzip before byte"));
    free(unpacked);
    free(plain);
    free(packed);
    sw_buf_free(&b);
}

/* Rows beyond the bound: an error, or given out as such with what follows them intact, in little memory. */
static void too_long(void **state)
{
    (void)state;
    sw_buf b = {0};
    sw_buf_puts(&b, "{\"a\":1}\n{\"a\":\"");
    for (int i = 0; i < 3000000; i++)
        sw_buf_putc(&b, 'x');
    sw_buf_puts(&b, "\"}\n{\"a\":3}\n");
    char *path = sw_path_join(dir, "long.jsonl");
    assert_int_equal(sw_write_file(path, b.at, b.n), 0);
    for (int pass = 0; pass < 2; pass++) {
        sw_rows *r = sw_rows_open(path, SW_ROWS_AUTO, 0);
        sw_rows_set(r, &(sw_rows_bounds){.max_row = 1000000, .pass_long = pass});
        sw_row row;
        assert_int_equal(sw_rows_next(r, &row), 1);
        assert_int_equal(sw_rows_next(r, &row), pass ? 1 : -1);
        if (!pass) {
            assert_non_null(strstr(sw_error(), "line 2: the row is longer than the 1000000 bytes"));
        } else {
            assert_true(row.too_long && row.line == 2 && row.n < 1000 && !memcmp(row.at, "{\"a\":\"xxx", 9));
            assert_int_equal(sw_rows_next(r, &row), 1);
            assert_true(!row.too_long && row.line == 3 && row.n == 7 && !memcmp(row.at, "{\"a\":3}", 7));
            assert_int_equal(sw_rows_next(r, &row), 0);
            assert_int_equal(sw_rows_rewind(r), 0); /* and again from the start */
            assert_int_equal(sw_rows_next(r, &row), 1);
            assert_true(row.line == 1 && row.n == 7);
        }
        sw_rows_close(r);
    }
    free(path);
    sw_buf_free(&b);
}

static void invalid_utf8(void **state)
{
    (void)state;
    char *path = sw_path_join(dir, "bytes.jsonl");
    const char text[] = "{\"a\":\"x\xff\xc3(\xe2\x82\"}\n";
    assert_int_equal(sw_write_file(path, text, sizeof text - 1), 0);
    sw_rows *r = sw_rows_open(path, SW_ROWS_AUTO, 0);
    sw_rows_set(r, &(sw_rows_bounds){.replace = true});
    sw_row row;
    assert_int_equal(sw_rows_next(r, &row), 1);
    cJSON *v = sw_row_json(r, row.at, row.n, row.line);
    assert_non_null(v);
    assert_string_equal(sw_json_get(v, "a")->valuestring, "x\xef\xbf\xbd\xef\xbf\xbd(\xef\xbf\xbd\xef\xbf\xbd");
    cJSON_Delete(v);
    sw_rows_close(r);
    free(path);
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
    } parts[] = {{"messages", s.messages},     {"rejected", s.rejected},   {"tools", s.tools},
                 {"extra", s.extra},           {"text", s.text},           {"prompt", s.prompt},
                 {"completion", s.completion}, {"positives", s.positives}, {"negatives", s.negatives},
                 {"labels", s.labels},         {"media", s.media},         {"carried", s.carried}};
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
    expect(
        NULL,
        "{\"prompt\":[{\"role\":\"user\",\"content\":\"q\"}],\"chosen\":[{\"role\":\"assistant\",\"content\":\"a\"}],"
        "\"rejected\":[{\"role\":\"assistant\",\"content\":\"b\"}]}",
        want);
    expect(NULL, "{\"chosen\":\"\\n\\nHuman: q\\n\\nAssistant: a\",\"rejected\":\"\\n\\nHuman: q\\n\\nAssistant: b\"}",
           want);
    expect(NULL,
           "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"}],"
           "\"rejected_messages\":[{\"role\":\"assistant\",\"content\":\"b\"}]}",
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
    expect(NULL, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"sculpture\"}]}]}",
           "!field 'messages[0].content': a part of the type 'sculpture'; only parts of text can be read");
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

static void tasks(void **state)
{
    (void)state;
    sw_dataset_options sft = {.task = SW_TASK_SFT}, dpo = {.task = SW_TASK_PREFERENCE}, kto = {.task = SW_TASK_KTO},
                       prompt = {.task = SW_TASK_PROMPT}, class = {.task = SW_TASK_CLASSIFY};
    const char *pair = "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\",\"label\":1}";
    expect(&sft, pair, "messages [" U ", " A "] rest {'rejected': 'b', 'label': 1}");
    expect(&dpo, "{\"query\":\"q\",\"response\":\"a\"}",
           "!field 'rejected' (or rejected_response, rejected_messages) is missing");
    const char *answered = "{\"query\":\"q\",\"response\":\"a\",\"label\":%s}";
    char row[200];
    snprintf(row, sizeof row, answered, "true");
    expect(&kto, row, "messages [" U ", " A "] labels [1]");
    snprintf(row, sizeof row, answered, "0.5");
    expect(&kto, row, "!field 'label': whether the answer is wanted is true or false");
    snprintf(row, sizeof row, answered, "\"good\"");
    expect(&kto, row, "!field 'label': a number, true or false, or a list of numbers is needed, not a string");
    snprintf(row, sizeof row, "{\"text\":\"t\",\"label\":\"good\"}");
    expect(&class, row, "!field 'label': 'good' is the name of a class; --labels says which numbers they have");
    snprintf(row, sizeof row, answered, "\"good\"");
    expect(NULL, row, "messages [" U ", " A "] rest {'label': 'good'}");
    expect(&class, "{\"text\":\"t\",\"label\":[1,3]}", "text 't' labels [1, 3]");
    expect(&prompt, "{\"question\":\"q\",\"answer\":\"a\",\"id\":7}",
           "messages [" U "] carried {'question': 'q', 'answer': 'a', 'id': 7, 'messages': [" U "]} rest {'id': 7}");
    expect(&prompt,
           "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"}],"
           "\"solution\":\"5\"}",
           "messages [" U "] carried {'solution': '5', 'response': 'a', 'messages': [" U "]} rest {'solution': '5'}");
    expect(&prompt, "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]}",
           "!the conversation has no turn of the user that could be answered");
    const char *map[] = {"q=query", "a=response", "b="}, *carry[] = {"id", "a"};
    sw_strings maps = {map, 3, 3}, carries = {carry, 2, 2};
    sw_dataset_options o = {.map = &maps, .carry = &carries};
    assert_int_equal(sw_dataset_check(&o), 0);
    expect(&o, "{\"q\":\"q\",\"a\":\"a\",\"b\":1,\"id\":[2],\"c\":3}",
           "messages [" U ", " A "] carried {'id': [2]} rest {'id': [2], 'c': 3}");
    map[0] = "q";
    assert_int_equal(sw_dataset_check(&o), -1);
}

static void compared(void **state)
{
    (void)state;
    sw_dataset_options emb = {.task = SW_TASK_EMBEDDING, .bare_texts = true},
                       rank = {.task = SW_TASK_RERANKER, .bare_texts = true};
    const char *three = "text 'q' positives ['a'] negatives ['b', 'c']";
    expect(NULL, "{\"anchor\":\"q\",\"positive\":\"a\",\"negative_1\":\"b\",\"negative_2\":\"c\"}", three);
    expect(NULL, "{\"anchor\":\"q\",\"positive\":[\"a\"],\"negatives\":[\"b\",\"c\"]}", three);
    expect(NULL, "{\"query\":\"q\",\"pos\":[\"a\"],\"neg\":[\"b\",\"c\"]}", three);
    expect(&emb, "{\"query\":\"q\",\"response\":\"a\",\"rejected_response\":[\"b\",\"c\"]}", three);
    expect(&emb,
           "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],\"positive_messages\":[[{\"role\":\"user\","
           "\"content\":\"a\"}]],"
           "\"negative_messages\":[[{\"role\":\"user\",\"content\":\"b\"}],[{\"role\":\"user\",\"content\":\"c\"}]]}",
           three);
    expect(NULL, "{\"query\":\"q\",\"positive_passages\":[{\"title\":\"t\",\"text\":\"a\"}],\"negative_passages\":[]}",
           "text 'q' positives ['t a'] negatives []");
    expect(NULL, "{\"sentence1\":\"q\",\"sentence2\":\"a\",\"score\":0.5}",
           "text 'q' positives ['a'] negatives [] labels [0.5]");
    expect(NULL, "{\"query\":\"q\",\"docs\":[\"b\",\"a\",\"c\"],\"labels\":[0,1,0]}", three);
    expect(&rank, "{\"query\":\"q\",\"positive\":\"a\",\"negative\":[]}",
           "messages [" U "] positives [[" U ", " A "]] negatives []");
    expect(&emb, "{\"query\":\"q\"}",
           "!field 'positive' (or positives, pos, positive_messages, response, answer, sentence2, ...) is missing");
    expect(NULL, "{\"query\":\"q\",\"docs\":[\"a\"],\"labels\":[1,0]}",
           "!field 'labels': as many as 'docs' are needed");
    expect(NULL, "{\"query\":\"q\",\"docs\":[\"a\"],\"labels\":[2]}",
           "!field 'labels': 2; whether a document belongs to the query is 1 or 0");
    expect(NULL, "{\"anchor\":\"q\",\"positive\":[\"a\",5]}",
           "!text 2: field 'positive': a text is needed (a string, a passage with 'text', or messages), not a number");
}

static void media(void **state)
{
    (void)state;
    const char *want = "messages [{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': 'q'}]}, " A
                       "] media {'images': ['x.png']}";
    expect(NULL, "{\"query\":\"q\",\"response\":\"a\",\"images\":[\"x.png\"]}", want);
    expect(NULL, "{\"query\":\"<image>q\",\"response\":\"a\",\"image\":\"x.png\"}", want);
    expect(NULL, "{\"query\":\"q\",\"response\":\"a\",\"images\":[{\"path\":\"x.png\",\"bytes\":null}]}", want);
    expect(NULL,
           "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"x.png\"}},"
           "{\"type\":\"text\",\"text\":\"q\"}]},{\"role\":\"assistant\",\"content\":\"a\"}]}",
           want);
    expect(NULL,
           "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"},{\"type\":\"text\",\"text\":\"q\"}]},"
           "{\"role\":\"assistant\",\"content\":\"a\"}],\"images\":[\"x.png\"]}",
           want);
    expect(NULL,
           "{\"query\":\"a<video>b<audio>\",\"videos\":[[\"1.png\",\"2.png\"]],\"audios\":[\"s.wav\"],\"images\":[]}",
           "messages [{'role': 'user', 'content': [{'type': 'text', 'text': 'a'}, {'type': 'video'}, {'type': 'text', "
           "'text': 'b'}, "
           "{'type': 'audio'}]}] media {'videos': [['1.png', '2.png']], 'audios': ['s.wav']}");
    expect(NULL, "{\"query\":\"<image><image>q\",\"images\":[\"x.png\"]}", "!messages: 2 tags <image>, but 1 images");
    expect(NULL, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
           "!messages: has the tag <image>, but the record has no 'images'");
    expect(NULL, "{\"query\":\"<image>\"}", "messages [{'role': 'user', 'content': '<image>'}]");
    expect(NULL, "{\"text\":\"q\",\"images\":[\"x.png\"]}",
           "!field 'images', 'videos' or 'audios': only conversations can have them");
    expect(NULL, "{\"query\":\"q\",\"images\":[5]}",
           "!field 'images': a path, a URL or an object with 'path', 'url' or 'bytes' is needed, not a number");
    expect(NULL, "{\"query\":\"q\",\"objects\":{\"bbox\":[]}}",
           "!field 'objects': boxes cannot be read; write them into the text as the model expects them");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files),        cmocka_unit_test(packed_and_long), cmocka_unit_test(formats),
        cmocka_unit_test(preferences),  cmocka_unit_test(tools_and_parts), cmocka_unit_test(bad_rows),
        cmocka_unit_test(placeholders), cmocka_unit_test(gzipped),         cmocka_unit_test(too_long),
        cmocka_unit_test(invalid_utf8), cmocka_unit_test(tasks),           cmocka_unit_test(compared),
        cmocka_unit_test(media)};
    return cmocka_run_group_tests(tests, sw_folder_make, sw_folder_remove);
}
