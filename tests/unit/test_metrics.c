/* The metrics file of a training: what is kept when a run goes on, and what fails. */
#include "base/fileio.h"
#include "base/json.h"
#include "base/memory.h"
#include "tools/swift-train/metrics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/swift-metrics-XXXXXX";

static char *read_all(const char *path)
{
    sw_buf b = {0};
    assert_int_equal(sw_read_file(path, &b), 0);
    return b.at ? b.at : sw_strdup("");
}

static void write_steps(const char *path, int64_t keep, int from, int to)
{
    sw_metrics *m = sw_metrics_open(path, keep, keep);
    assert_non_null(m);
    for (int i = from; i <= to; i++) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "kind", "train");
        cJSON_AddNumberToObject(o, "step", i);
        cJSON_AddNumberToObject(o, "loss", 1.0 / i);
        assert_int_equal(sw_metrics_write(m, o), 0);
        cJSON_Delete(o);
    }
    assert_int_equal(sw_metrics_close(m), 0);
}

static void going_on_drops_what_comes_after(void **state)
{
    (void)state;
    char *whole = sw_path_join(folder, "whole.jsonl"), *parts = sw_path_join(folder, "parts.jsonl");
    write_steps(whole, -1, 1, 6);
    write_steps(parts, -1, 1, 4);
    FILE *f = fopen(parts, "ab"); /* a kill in the middle of a line */
    fputs("{\"kind\": \"train\", \"st", f);
    fclose(f);
    write_steps(parts, 2, 3, 6);
    char *a = read_all(whole), *b = read_all(parts);
    assert_string_equal(a, b);
    /* Anew: nothing is kept. */
    write_steps(parts, -1, 6, 6);
    free(b);
    b = read_all(parts);
    assert_string_equal(b, strstr(a, "{\"kind\": \"train\", \"step\": 6"));
    free(a);
    free(b);
    free(whole);
    free(parts);
}

/* A checkpoint between an update and the evaluation after it: that evaluation comes again. */
static void an_evaluation_after_the_checkpoint_is_dropped(void **state)
{
    (void)state;
    char *path = sw_path_join(folder, "evals.jsonl");
    static const char before[] = "{\"kind\": \"eval\", \"step\": 2}\n{\"kind\": \"train\", \"step\": 3}\n{\"kind\": \"train\", \"step\": 4}\n";
    FILE *f = fopen(path, "wb");
    fprintf(f, "%s{\"kind\": \"eval\", \"step\": 4}\n", before);
    fclose(f);
    assert_int_equal(sw_metrics_close(sw_metrics_open(path, 4, 2)), 0);
    char *now = read_all(path);
    assert_string_equal(now, before);
    free(now);
    free(path);
}

static void numbers_come_back_and_those_that_are_none_are_null(void **state)
{
    (void)state;
    char *path = sw_path_join(folder, "numbers.jsonl");
    sw_metrics *m = sw_metrics_open(path, -1, -1);
    cJSON *o = cJSON_CreateObject();
    cJSON_AddNumberToObject(o, "step", 1);
    cJSON_AddNumberToObject(o, "loss", NAN);
    cJSON_AddNumberToObject(o, "grad_norm", INFINITY);
    cJSON_AddNumberToObject(o, "lr", 0.1 + 0.2);
    assert_int_equal(sw_metrics_write(m, o), 0);
    assert_int_equal(sw_metrics_close(m), 0);
    cJSON_Delete(o);
    char *text = read_all(path);
    o = sw_json_parse(text, strlen(text));
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(o, "loss")));
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(o, "grad_norm")));
    assert_true(cJSON_GetObjectItem(o, "lr")->valuedouble == 0.1 + 0.2);
    cJSON_Delete(o);
    free(text);
    free(path);
}

static void a_full_disk_is_an_error(void **state)
{
    (void)state;
    sw_metrics *m = sw_metrics_open("/dev/full", -1, -1);
    assert_non_null(m);
    cJSON *o = cJSON_CreateObject();
    cJSON_AddNumberToObject(o, "step", 1);
    assert_int_equal(sw_metrics_write(m, o), -1);
    assert_non_null(strstr(sw_error(), "/dev/full"));
    cJSON_Delete(o);
    assert_int_equal(sw_metrics_close(m), -1);
}

static void plots_are_drawn_whole_or_refused(void **state)
{
    (void)state;
    char *path = sw_path_join(folder, "plot.jsonl"), *out = sw_path_join(folder, "plot.svg");
    write_steps(path, -1, 1, 30);
    if (!system("command -v gnuplot > /dev/null")) {
        assert_int_equal(sw_metrics_plot(path, out, "it's a <title>"), 0);
        char *text = read_all(out);
        assert_non_null(strstr(text, "</svg>"));
        free(text);
    }
    write_steps(path, -1, 1, 0); /* empty */
    assert_int_equal(sw_remove_tree(out), 0);
    assert_int_equal(sw_metrics_plot(path, out, "t"), -1);
    assert_false(sw_is_file(out));
    FILE *f = fopen(path, "wb");
    fputs("{\"kind\": \"train\", \"step\": 1, \"loss\": 2}\nnonsense\n", f);
    fclose(f);
    assert_int_equal(sw_metrics_plot(path, out, "t"), -1);
    assert_non_null(strstr(sw_error(), "line 2"));
    free(path);
    free(out);
}

static int begin(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    return sw_remove_tree(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(going_on_drops_what_comes_after),
        cmocka_unit_test(an_evaluation_after_the_checkpoint_is_dropped),
        cmocka_unit_test(numbers_come_back_and_those_that_are_none_are_null),
        cmocka_unit_test(a_full_disk_is_an_error),
        cmocka_unit_test(plots_are_drawn_whole_or_refused),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
