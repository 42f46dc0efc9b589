/* Words of texts, and the spans that classes of words say. */
#include "base/json.h"
#include "base/memory.h"
#include "data/tags.h"
#include "data/words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char names[] = "{\"id2label\": {\"0\": \"O\", \"1\": \"B-X\", \"2\": \"I-X\", \"3\": \"E-X\", \"4\": \"S-X\", \"5\": \"B-Y\", \"6\": \"I-Y\"}}";

static int read_tags(sw_tags *t, const char *text)
{
    cJSON *o = sw_json_parse(text, strlen(text));
    int rc = sw_tags_read(t, o, 0);
    cJSON_Delete(o);
    return rc;
}

/* Classes as digits, spans as "X0-2 ". */
static void spans_of_words(void **state)
{
    (void)state;
    static const struct {
        const char *classes, *spans;
    } cases[] = {{"", ""},           {"000", ""},           {"1202", "X0-2 X3-4 "}, {"121", "X0-2 X2-3 "}, {"22", "X0-2 "},     {"26", "X0-1 Y1-2 "},
                 {"16", "X0-1 Y1-2 "}, {"123", "X0-3 "},    {"13213", "X0-2 X2-3 X3-5 "}, {"44", "X0-1 X1-2 "}, {"42", "X0-1 X1-2 "},
                 {"15", "X0-1 Y1-2 "}, {"0303", "X1-2 X3-4 "}, {"66", "Y0-2 "}};
    sw_tags t;
    assert_int_equal(read_tags(&t, names), 0);
    assert_true(t.spans);
    for (size_t i = 0; i < SW_COUNT(cases); i++) {
        int32_t ids[16];
        size_t n = strlen(cases[i].classes);
        for (size_t k = 0; k < n; k++)
            ids[k] = cases[i].classes[k] - '0';
        sw_tag_spans s = {0};
        sw_buf got = {0};
        sw_tags_spans(&t, ids, n, &s);
        sw_buf_puts(&got, "");
        for (size_t k = 0; k < s.n; k++)
            sw_buf_printf(&got, "%s%zu-%zu ", s.at[k].type, s.at[k].start, s.at[k].end);
        assert_string_equal(got.at, cases[i].spans);
        sw_buf_free(&got);
        free(s.at);
    }
    assert_int_equal(sw_tags_of_span(&t, "Y", true), 5);
    assert_int_equal(sw_tags_of_span(&t, "Y", false), 6);
    assert_int_equal(sw_tags_of_span(&t, NULL, true), 0);
    assert_int_equal(sw_tags_of_span(&t, "Z", true), -1);
    sw_tags_free(&t);
}

static void names_that_contradict_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"[]", "{}", "{\"1\": \"O\"}", "{\"0\": \"O\", \"00\": \"X\"}", "{\"0\": 1}", "{\"x\": \"O\"}", "{\"0\": \"a\", \"2\": \"b\"}", "3"};
    sw_tags t;
    for (size_t i = 0; i < SW_COUNT(bad); i++) {
        char *text = sw_strfmt("{\"id2label\": %s}", bad[i]);
        assert_int_not_equal(read_tags(&t, text), 0);
        assert_non_null(strstr(sw_error(), "\"id2label\""));
        assert_int_equal(t.n, 0);
        free(text);
    }
    assert_int_equal(read_tags(&t, "{\"id2label\": {\"0\": \"joy\", \"1\": \"grief\"}}"), 0);
    assert_false(t.spans);
    assert_int_equal(sw_tags_of_span(&t, "grief", false), 1);
    sw_tags_free(&t);
}

static void words_of_texts(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"", ""}, {" \t\n", ""}, {"Ann B. saw", "Ann|B|.|saw|"}, {"don't", "don|'|t|"}, {"a_1 2nd", "a|_|1|2nd|"},
                                           {"caf\xc3\xa9 cafe\xcc\x81", "caf\xc3\xa9|cafe\xcc\x81|"}, {"\xe4\xb8\xad\xe6\x96\x87 x", "\xe4\xb8\xad|\xe6\x96\x87|x|"},
                                           {"a\xc2\xa0" "b\xff", "a|b|\xff|"}};
    for (size_t i = 0; i < SW_COUNT(cases); i++) {
        sw_words w = {0};
        sw_buf got = {0};
        sw_words_of(cases[i][0], 0, strlen(cases[i][0]), &w);
        sw_buf_puts(&got, "");
        for (size_t k = 0; k < w.n; k++)
            sw_buf_printf(&got, "%.*s|", (int)(w.at[k].end - w.at[k].start), cases[i][0] + w.at[k].start);
        assert_string_equal(got.at, cases[i][1]);
        sw_buf_free(&got);
        free(w.at);
    }
    sw_words w = {0}; /* in two parts, which no word joins */
    sw_words_of("abcd", 0, 2, &w);
    sw_words_of("abcd", 2, 4, &w);
    assert_int_equal(w.n, 2);
    free(w.at);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(spans_of_words), cmocka_unit_test(names_that_contradict_are_refused), cmocka_unit_test(words_of_texts)};
    return cmocka_run_group_tests_name("tags", tests, NULL, NULL);
}
