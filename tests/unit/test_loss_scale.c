#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "text/loss_scale.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The answer with |w| where the weight changes to w. */
static void expect(const char *spec, const char *query, const char *answer, const char *due)
{
    char base;
    sw_loss_scale *s = sw_loss_scale_load(spec, &base);
    if (!s)
        fail_msg("%s", sw_error());
    size_t n = strlen(answer);
    float w[256];
    sw_buf out = {0};
    for (size_t i = 0; i < n; i++)
        w[i] = 1;
    if (sw_loss_scale_apply(s, query, query ? strlen(query) : 0, answer, n, w))
        fail_msg("%s", sw_error());
    for (size_t i = 0; i < n; i++) {
        if (w[i] != (i ? w[i - 1] : 1))
            sw_buf_printf(&out, "|%g|", w[i]);
        sw_buf_putc(&out, answer[i]);
    }
    assert_string_equal(out.at ? out.at : "", due);
    sw_buf_free(&out);
    sw_loss_scale_free(s);
}

static void presets(void **state)
{
    (void)state;
    expect("default", NULL, "Action: f", "Action: f");
    expect("react", NULL, "I will.\nAction: f\nAction Input: {}\nObservation: 3\nThought: t\nFinal Answer: a",
           "I will.\n|2|Action: f\nAction Input: {}\nObservation:|0| 3\n|1|Thought: t\nFinal Answer: a");
    expect("react", NULL, "Next: x", "Next: x");
    expect("alpha_umi", NULL, "Next: x", "|2|Next: x");
    expect("qwen", NULL, "a✿FUNCTION✿: f\n✿RESULT✿: r\n✿RETURN✿: b",
           "a|2|✿FUNCTION✿: f\n✿RESULT✿:|0| r\n|1|✿RETURN✿: b");
    expect("hermes", NULL, "a<tool_call>\n{}\n</tool_call>b<tool_call>c</tool_call>",
           "a|2|<tool_call>\n{}\n</tool_call>|1|b|2|<tool_call>c</tool_call>");
    expect("agentflan", NULL, "Name: x\nThought: y", "Name:|3| x\n|1|Thought: y");
    expect("agentflan", "What is the value of x?", "Thought: y", "|3|Thought: y");
    expect("ignore_empty_think", NULL, "<think>\n\n</think>\n\nyes", "|0|<think>\n\n</think>\n\n|1|yes");
    expect("ignore_empty_think", NULL, "<think>hm</think>yes", "<think>hm</think>yes");
    expect("ignore_empty_think", NULL, "yes <think></think>", "yes <think></think>");
    expect("ignore_think_prefix", NULL, "<think>\nhm", "|0|<think>\n|1|hm");
}

static void chains(void **state)
{
    (void)state;
    char base;
    expect("last_round+react+ignore_empty_think", NULL, "<think>\n</think>\nAction: f",
           "|0|<think>\n</think>\n|2|Action: f");
    expect("hermes+react", NULL, "<tool_call>Action: x</tool_call>", "|2|<tool_call>|4|Action: x</tool_call>");
    static const char *const specs[] = {"default", "last_round", "all", "all+hermes", "hermes"};
    static const char due[] = "dlaa\0";
    for (size_t i = 0; i < 5; i++) {
        sw_loss_scale *s = sw_loss_scale_load(specs[i], &base);
        assert_non_null(s);
        assert_int_equal(base, due[i]);
        assert_int_equal(sw_loss_scale_is_plain(s), i < 3);
        sw_loss_scale_free(s);
    }
    assert_null(sw_loss_scale_load("react+all", &base));
    assert_non_null(strstr(sw_error(), "come first"));
    assert_null(sw_loss_scale_load("reacts", &base));
    assert_non_null(strstr(sw_error(), "ignore_empty_think"));
}

static void from_file(const char *text, const char *answer, const char *due)
{
    char path[] = "/tmp/loss-scale-XXXXXX", base;
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    if (due) {
        expect(path, "ask me", answer, due);
    } else {
        assert_null(sw_loss_scale_load(path, &base));
        if (!strstr(sw_error(), answer))
            fail_msg("%s", sw_error());
    }
    unlink(path);
}

static void files(void **state)
{
    (void)state;
    from_file("{\"A:\": [0.5, 3]}", "xA:yA:z", "x|0.5|A:|3|y|0.5|A:|3|z");
    from_file("{\"[0-9]+\": [0], \"ü+\": 2}", "a12ü3", "a|0|12|2|ü|0|3");
    from_file("{\"query\": {\"ask\": 0}, \"response\": {\"A\": 2}}", "A", "|0|A");
    from_file("{\"response\": {\"\": 2}}", "finds nothing", NULL);
    from_file("{\"(\": 2}", "no regular expression", NULL);
    from_file("{\"a\": [1, 2, 3]}", "one number, or a list of two", NULL);
    from_file("{\"a\": -1}", "from 0 to 1000000", NULL);
    from_file("{\"a\": \"x\"}", "from 0 to 1000000", NULL);
    from_file("[]", "an object of texts and weights", NULL);
    from_file("{", "loss-scale", NULL);
    from_file("{\"x*\": 2}", "xxa", "|2|xx|1|a"); /* empty matches end */
}

/* A pattern that backtracks without end is an error, not a hang. */
static void hostile(void **state)
{
    (void)state;
    char path[] = "/tmp/loss-scale-XXXXXX", base;
    int fd = mkstemp(path);
    const char *text = "{\"(a*)*(a*)*(a*)*b\": 2}";
    assert_true(fd >= 0 && write(fd, text, strlen(text)) > 0);
    close(fd);
    sw_loss_scale *s = sw_loss_scale_load(path, &base);
    assert_non_null(s);
    static char many[4000];
    static float w[4000];
    memset(many, 'a', sizeof many);
    many[sizeof many - 1] = 'c';
    int rc = sw_loss_scale_apply(s, NULL, 0, many, sizeof many, w);
    if (rc)
        assert_non_null(strstr(sw_error(), "takes too long"));
    sw_loss_scale_free(s);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(presets), cmocka_unit_test(chains), cmocka_unit_test(files),
                                       cmocka_unit_test(hostile)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
