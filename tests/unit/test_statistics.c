/* The bootstrap of swift-eval, and the ways it finds answers in text. */
#include "tools/swift-eval/extract.h"
#include "tools/swift-eval/statistics.h"

#include "base/memory.h"
#include "base/philox.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the bootstrap */

static void ratios_and_scales(void **state)
{
    (void)state;
    const eval_amount a[] = {{1, 2}, {3, 0.5}, {2, 1.5}};
    assert_true(fabs(eval_ratio(a, 3, 1) - 1.5) < 1e-15);
    assert_true(fabs(eval_ratio(a, 2, 2) - 3.0 / 3.5) < 1e-15);
    assert_true(eval_value(EVAL_MEAN, 0.25) == 0.25);
    assert_true(fabs(eval_value(EVAL_EXP, 1) - 2.718281828459045) < 1e-15);
}

static void middle_of_known_values(void **state)
{
    (void)state;
    double v[101];
    for (int i = 0; i < 101; i++)
        v[i] = (i * 37) % 101;
    eval_interval m = eval_middle(v, 101, 0.9);
    assert_true(fabs(m.low - 5) < 1e-9 && fabs(m.high - 95) < 1e-9);
    double w[] = {3, 1, 2, NAN};
    m = eval_middle(w, 4, 0.5); /* of 1, 2, 3: half way between neighbours */
    assert_true(fabs(m.low - 1.5) < 1e-9 && fabs(m.high - 2.5) < 1e-9);
    m = eval_middle((double[]){7}, 1, 0.95);
    assert_true(m.low == 7 && m.high == 7);
}

static void draws_do_not_depend_on_threads(void **state)
{
    (void)state;
    enum { N = 57, M = 11, R = 300 };
    eval_amount a[N * M];
    static double one[M * R], three[M * R], alone[R], other[M * R];
    for (size_t i = 0; i < N * M; i++)
        a[i] = (eval_amount){sin((double)i), 1 + (double)(i % 3)};
    int before = omp_get_max_threads();
    omp_set_num_threads(1);
    eval_bootstrap(a, N, M, R, 5, one);
    omp_set_num_threads(3);
    eval_bootstrap(a, N, M, R, 5, three);
    omp_set_num_threads(before);
    assert_memory_equal(one, three, sizeof one);
    /* A metric by itself sees the same draws as among others: differences are paired. */
    eval_amount column[N];
    for (size_t i = 0; i < N; i++)
        column[i] = a[i * M + 9];
    eval_bootstrap(column, N, 1, R, 5, alone);
    assert_memory_equal(alone, one + 9 * R, sizeof alone);
    eval_bootstrap(a, N, M, R, 6, other);
    assert_true(memcmp(one, other, sizeof one) != 0);
}

/* 90 % intervals of the mean of 60 normal numbers must hold the true mean in about 90 of 100 trials. The percentile
 * bootstrap is a little narrow; with 400 trials the share has a standard error of 1.5 %. */
static void intervals_cover_the_truth(void **state)
{
    (void)state;
    enum { TRIALS = 400, N = 60, R = 400 };
    int covered = 0;
    double width = 0;
    for (uint32_t t = 0; t < TRIALS; t++) {
        eval_amount a[N];
        static double ratios[R];
        const sw_rng rng = {.seed = 11, .step = t, .site = 1};
        for (uint64_t i = 0; i < N; i++)
            a[i] = (eval_amount){3 + 2 * sw_rng_normal(&rng, i), 1};
        eval_bootstrap(a, N, 1, R, t, ratios);
        eval_interval m = eval_middle(ratios, R, 0.9);
        covered += m.low <= 3 && 3 <= m.high;
        width += (m.high - m.low) / TRIALS;
    }
    assert_in_range(covered, 335, 380);
    /* 2 * 1.645 * sigma / sqrt(n) = 0.850 */
    assert_true(fabs(width - 0.850) < 0.03);
}

/* ---- answers in text */

static void expect_number(const char *text, const char *wanted)
{
    sw_buf out = {0};
    eval_normalise(EVAL_NUMBER, (sw_span){text, strlen(text)}, &out);
    assert_string_equal(out.at ? out.at : "", wanted);
    sw_buf_free(&out);
}

static void numbers_have_one_spelling(void **state)
{
    (void)state;
    static const char *const same[][2] = {
        {"18", "18"}, {" $1,234.50 ", "1234.5"}, {"-$7", "-7"}, {"$-7.", "-7"}, {"007", "7"}, {"0.00", "0"}, {"-0", "0"}, {"+3", "3"},
        {".50", "0.5"}, {"12.", "12"}, {"40%", "40"}, {"40%.", "40"}, {"1,000,000", "1000000"}, {"0.10", "0.1"}, {"100", "100"},
        {"1.2.3", "1.2.3"}, {"seven", "seven"}, {"$", "$"}, {"", ""}, {"-", "-"}, {"3 apples", "3 apples"}, {",5", ",5"}, {"1e3", "1e3"}};
    for (size_t i = 0; i < SW_COUNT(same); i++)
        expect_number(same[i][0], same[i][1]);
}

static void expect(unsigned what, const char *text, const char *wanted)
{
    sw_buf out = {0};
    eval_normalise(what, (sw_span){text, strlen(text)}, &out);
    assert_string_equal(out.at ? out.at : "", wanted);
    sw_buf_free(&out);
}

static void spellings(void **state)
{
    (void)state;
    expect(0, "  a  b\n", "a  b");
    expect(EVAL_WHITESPACE, "\xc2\xa0 a \t\n b\xe3\x80\x80", "a b");
    expect(EVAL_CASE, "STRASSE Stra\xc3\x9f""e \xc3\x84", "strasse strasse \xc3\xa4");
    expect(EVAL_PUNCTUATION, "a.b, \xe2\x80\x9cyes\xe2\x80\x9d!", "ab yes");
    expect(EVAL_PUNCTUATION | EVAL_WHITESPACE, "a - b", "a b");
    expect(EVAL_PUNCTUATION, "] ] >", "] ] >"); /* nothing would be left to compare */
    expect(EVAL_PUNCTUATION | EVAL_NUMBER, "-3.5", "-3.5");
    expect(EVAL_LETTER, "(B)", "B");
    expect(EVAL_LETTER, "B).", "B");
    expect(EVAL_LETTER, "(B", "(B");
    expect(EVAL_LETTER | EVAL_CASE, "(B)", "b");
    expect(EVAL_LETTER, "(BC)", "(BC)");
    assert_int_equal(eval_words((sw_span){" a  b\xc2\xa0""c\n", 9}), 3);
}

static const char *extract(const char *rules, const char *text, const char *right, sw_buf *out)
{
    cJSON *v = sw_json_parse(rules, strlen(rules));
    eval_rules r;
    assert_non_null(v);
    assert_int_equal(eval_rules_read(v, "test", &r), 0);
    int found = eval_extract(&r, (sw_span){text, strlen(text)}, (sw_span){right, strlen(right)}, out);
    eval_rules_free(&r);
    cJSON_Delete(v);
    assert_true(found >= 0);
    return found ? out->at : NULL;
}

static void rules_find_answers(void **state)
{
    (void)state;
    sw_buf b = {0};
    assert_string_equal(extract("\"[0-9]+\"", "1 then 22 then 333.", "", &b), "333");
    assert_string_equal(extract("{\"regex\": \"[0-9]+\", \"which\": \"first\"}", "a 1 then 22", "", &b), "1");
    assert_string_equal(extract("\"is (?:(a)|(b))\"", "is a, is b", "", &b), "b");
    assert_null(extract("\"[0-9]+\"", "none", "", &b));
    /* `when` looks at the right answer, and the first rule that finds something wins. */
    const char *rules = "[{\"when\": \"^yes$\", \"regex\": \"yes|no\"}, \"[a-z]+\"]";
    assert_string_equal(extract(rules, "no way", "yes", &b), "no");
    assert_string_equal(extract(rules, "no way", "left", &b), "way");
    assert_string_equal(extract(rules, "other", "yes", &b), "other");
    /* Empty matches end, between characters of several bytes too. */
    assert_string_equal(extract("\"x*\"", "\xe4\xb8\xad\xe6\x96\x87", "", &b), "");
    assert_string_equal(extract("\".\"", "\xe4\xb8\xad\xe6\x96\x87", "", &b), "\xe6\x96\x87");
    /* No rules: all of it. */
    eval_rules none = {0};
    assert_int_equal(eval_extract(&none, (sw_span){"whole", 5}, (sw_span){0}, &b), 1);
    assert_string_equal(b.at, "whole");
    sw_buf_free(&b);
}

static void bad_rules_are_refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {{"\"(\"", "regular expression '('"}, {"5", "not a number"}, {"{\"regex\": \"a\", \"which\": \"best\"}", "'best'"},
                                         {"{\"when\": \"a\"}", "no \"regex\""}, {"{\"regexp\": \"a\"}", "\"regexp\""}, {"[\"a\", null]", "null"}};
    for (size_t i = 0; i < SW_COUNT(bad); i++) {
        cJSON *v = sw_json_parse(bad[i][0], strlen(bad[i][0]));
        eval_rules r;
        assert_int_equal(eval_rules_read(v, "test", &r), -1);
        assert_non_null(strstr(sw_error(), bad[i][1]));
        cJSON_Delete(v);
    }
    unsigned what;
    assert_int_equal(eval_normalise_parse("case,number", &what), 0);
    assert_int_equal(what, EVAL_CASE | EVAL_NUMBER);
    assert_int_equal(eval_normalise_parse("case,spelling", &what), -1);
}

/* A match that never ends is an error, not a hang. */
static void matches_are_bounded(void **state)
{
    (void)state;
    eval_rules r;
    sw_buf b = {0};
    cJSON *v = cJSON_CreateString("^(a+)+$");
    char text[5001];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 2] = 'b';
    text[sizeof text - 1] = 0;
    assert_int_equal(eval_rules_read(v, "test", &r), 0);
    assert_true(eval_extract(&r, (sw_span){text, sizeof text - 1}, (sw_span){0}, &b) < 0);
    assert_non_null(strstr(sw_error(), "limit"));
    eval_rules_free(&r);
    cJSON_Delete(v);
    sw_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ratios_and_scales),    cmocka_unit_test(middle_of_known_values),    cmocka_unit_test(draws_do_not_depend_on_threads),
        cmocka_unit_test(intervals_cover_the_truth), cmocka_unit_test(numbers_have_one_spelling), cmocka_unit_test(spellings),
        cmocka_unit_test(rules_find_answers),   cmocka_unit_test(bad_rules_are_refused),     cmocka_unit_test(matches_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
