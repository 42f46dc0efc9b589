/* Several files as one stream of rows. */
#include "base/memory.h"
#include "data/mixture.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static char dir[] = "/tmp/swift-mixture-XXXXXX";

/* Files a (100 rows), b (40) and c (none): rows are the file's letter and a number. */
static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir) || chdir(dir))
        return -1;
    int rc = 0;
    for (int f = 0; f < 3; f++) {
        sw_buf b = {0};
        sw_buf_puts(&b, "");
        for (int i = 0; i < (int[]){100, 40, 0}[f]; i++)
            sw_buf_printf(&b, "%c%d\n", 'a' + f, i);
        rc |= sw_write_file((const char *[]){"a", "b", "c"}[f], b.at, b.n);
        sw_buf_free(&b);
    }
    return rc;
}

static int teardown(void **state)
{
    (void)state;
    return chdir("/") || sw_remove_tree(dir);
}

/* All rows as one text, separated by spaces; "!message" at a failure. Caller frees. */
static char *mixed(sw_mix mix, uint64_t seed, int n, char *const *names)
{
    sw_mixture_options o = {.mix = mix, .kind = SW_ROWS_TEXT, .seed = seed};
    sw_mixture *m = sw_mixture_new(names, n, &o);
    if (!m)
        return sw_strfmt("!%s", sw_error());
    sw_buf b = {0};
    sw_buf_puts(&b, "");
    sw_row row;
    int from, rc;
    int64_t taken[4] = {0};
    while ((rc = sw_mixture_next(m, &row, &from)) > 0) {
        sw_buf_printf(&b, "%.*s ", (int)row.n, row.at);
        taken[from]++;
    }
    if (rc < 0)
        sw_buf_printf(&b, "!%s", sw_error());
    for (int i = 0; i < n; i++)
        assert_int_equal(taken[i], sw_mixture_taken(m, i));
    sw_mixture_free(m);
    return sw_buf_take(&b);
}

static int count(const char *rows, char letter)
{
    int n = 0;
    for (; (rows = strchr(rows, letter)); rows++)
        n++;
    return n;
}

static void expect(sw_mix mix, char *a, char *b, int of_a, int of_b)
{
    char *rows = mixed(mix, 7, b ? 2 : 1, (char *[]){a, b}), *again = mixed(mix, 7, b ? 2 : 1, (char *[]){a, b});
    assert_string_equal(rows, again);
    assert_int_equal(count(rows, 'a'), of_a);
    assert_int_equal(count(rows, 'b'), of_b);
    free(rows);
    free(again);
}

/* The numbers of a file's rows in the order they came. */
static int numbers(const char *rows, char letter, int *out)
{
    int n = 0;
    for (; (rows = strchr(rows, letter)); rows++)
        out[n++] = atoi(rows + 1);
    return n;
}

static void concatenated(void **state)
{
    (void)state;
    expect(SW_MIX_CONCAT, "a", "b", 100, 40);
    expect(SW_MIX_CONCAT, "a:0.3", "b:2", 30, 80);
    expect(SW_MIX_CONCAT, "a#7", "b#100", 7, 100);
    expect(SW_MIX_CONCAT, "a#0", "b", 0, 40);
    expect(SW_MIX_CONCAT, "a", "c", 100, 0);
    expect(SW_MIX_CONCAT, "c:0.5", "b", 0, 40);
    /* a sample keeps the order, has nothing twice, and differs with the seed */
    char *one = mixed(SW_MIX_CONCAT, 1, 1, (char *[]){"a#50"}), *two = mixed(SW_MIX_CONCAT, 2, 1, (char *[]){"a#50"});
    int at[100], n = numbers(one, 'a', at);
    assert_int_equal(n, 50);
    for (int i = 1; i < n; i++)
        assert_true(at[i] > at[i - 1]);
    assert_string_not_equal(one, two);
    free(one);
    free(two);
    /* every row is as likely as any other: 2000 samples of 10 of 40 */
    int hits[40] = {0};
    for (uint64_t seed = 0; seed < 2000; seed++) {
        char *rows = mixed(SW_MIX_CONCAT, seed, 1, (char *[]){"b#10"});
        assert_int_equal(numbers(rows, 'b', at), 10);
        for (int i = 0; i < 10; i++)
            hits[at[i]]++;
        free(rows);
    }
    for (int i = 0; i < 40; i++)
        assert_in_range(hits[i], 500 - 5 * 20, 500 + 5 * 20); /* five standard deviations */
}

static void interleaved(void **state)
{
    (void)state;
    expect(SW_MIX_ONCE, "a", "b", 100, 40);
    expect(SW_MIX_ONCE, "a#10", "b", 10, 40);
    expect(SW_MIX_ONCE, "a", "c", 100, 0);
    char *rows = mixed(SW_MIX_FIRST, 3, 2, (char *[]){"a:9", "b:1"});
    assert_int_equal(count(rows, 'a'), 100);
    assert_in_range(count(rows, 'b'), 1, 30);
    free(rows);
    rows = mixed(SW_MIX_ALL, 3, 2, (char *[]){"a:9", "b:1"});
    assert_int_equal(count(rows, 'b'), 40);
    assert_in_range(count(rows, 'a'), 200, 600);
    int at[1000], n = numbers(rows, 'a', at);
    for (int i = 0; i < n; i++)
        assert_int_equal(at[i], i % 100); /* begins again from the start */
    free(rows);
    rows = mixed(SW_MIX_ALL, 3, 2, (char *[]){"a", "c"});
    assert_non_null(strstr(rows, "!c: has no records to begin again with"));
    free(rows);
    /* the order of the two is mixed */
    rows = mixed(SW_MIX_ONCE, 3, 2, (char *[]){"a", "b"});
    assert_true(strstr(rows, "b0") < strstr(rows, "a50"));
    free(rows);
}

static void names(void **state)
{
    (void)state;
    const struct {
        char *name;
        const char *message;
    } bad[] = {{"nope", "!nope: No such file"},
               {"a:0", "!a:0: a weight is above 0"},
               {"a:-1", "!a:-1: No such file"},
               {"a#3:2", "!a#3:2: both a count and a weight"},
               {"a:x", "!a:x: No such file"},
               {"a#", "!a#: No such file"},
               {"c#5", "!a sample: c: has no records to draw 5 from"}};
    for (size_t i = 0; i < SW_COUNT(bad); i++) {
        char *got = mixed(SW_MIX_CONCAT, 0, 1, &bad[i].name);
        assert_memory_equal(got, bad[i].message, strlen(bad[i].message));
        free(got);
    }
    assert_int_equal(sw_write_file("a:5#3", "x\n", 2), 0); /* a name that exists is that name */
    char *got = mixed(SW_MIX_CONCAT, 0, 1, (char *[]){"a:5#3"});
    assert_string_equal(got, "x ");
    free(got);
}

static void skipping(void **state)
{
    (void)state;
    for (int mix = SW_MIX_CONCAT; mix <= SW_MIX_ALL; mix++) {
        char *names[] = {"a:0.5", "b:2"};
        sw_mixture_options o = {.mix = (sw_mix)mix, .kind = SW_ROWS_TEXT, .seed = 5};
        sw_mixture *one = sw_mixture_new(names, 2, &o), *two = sw_mixture_new(names, 2, &o);
        sw_row x, y;
        int from, rc = 1;
        for (int i = 0; i < 20; i++)
            assert_int_equal(sw_mixture_next(one, &x, &from), 1);
        assert_int_equal(sw_mixture_skip(two, 20), 0);
        while (rc) {
            rc = sw_mixture_next(one, &x, &from);
            assert_int_equal(sw_mixture_next(two, &y, &from), rc);
            if (rc)
                assert_true(x.n == y.n && !memcmp(x.at, y.at, x.n));
        }
        assert_int_equal(sw_mixture_skip(two, 1), -1);
        sw_mixture_free(one);
        sw_mixture_free(two);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(concatenated), cmocka_unit_test(interleaved),
                                       cmocka_unit_test(names), cmocka_unit_test(skipping)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
