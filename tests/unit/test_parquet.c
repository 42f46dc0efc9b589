/* Parquet files as rows of JSON; the files are made by tests/unit/parquet/make.py. */
#include "base/fileio.h"
#include "base/memory.h"
#include "data/jsonl.h"
#include "data/parquet.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define FOLDER "tests/unit/parquet/"

/* Row i as make.py defines it. */
static void expected(int i, sw_buf *b)
{
    sw_buf_clear(b);
    sw_buf_puts(b, "{\"messages\":[");
    if (i % 11)
        sw_buf_printf(b, "{\"role\":\"user\",\"content\":\"q%d é\"},{\"role\":\"assistant\",\"content\":\"%.*s\"}", i,
                      i % 7, "aaaaaaa");
    sw_buf_printf(b, "],\"id\":%d,\"label\":%s,\"score\":", i, i % 5 ? i % 3 ? "false" : "true" : "null");
    sw_buf_printf(b, i % 4 ? "%g" : "null", i / 8.0);
    sw_buf_puts(b, ",\"nested\":");
    sw_buf_printf(b, i % 2 ? "[[1,null],[],null,[%d]]" : "null", i);
    sw_buf_puts(b, ",\"s\":");
    if (i % 7) {
        sw_buf_puts(b, "{\"a\":");
        sw_buf_printf(b, i % 3 ? "null" : "%d", i);
        sw_buf_printf(b, ",\"b\":%s%s", i % 5 ? "{\"c\":[" : "null", "");
        for (int k = 0; i % 5 && k < i % 3; k++)
            sw_buf_puts(b, k ? ",\"x\"" : "\"x\"");
        sw_buf_puts(b, i % 5 ? "]}}" : "}");
    } else {
        sw_buf_puts(b, "null");
    }
    sw_buf_putc(b, '}');
}

/* Snappy, gzip and zstd; one and several row groups and pages; with dictionaries and without; both versions of pages.
 */
static void writers(void **state)
{
    (void)state;
    const char *names[] = {"snappy", "zstd", "gzip-v2", "plain"};
    for (size_t f = 0; f < SW_COUNT(names); f++) {
        char *path = sw_strfmt(FOLDER "%s.parquet", names[f]);
        sw_parquet *p = sw_parquet_open(path, 1 << 20);
        assert_non_null(p);
        for (int pass = 0; pass < 2; pass++) {
            sw_buf got = {0}, want = {0};
            for (int i = 0; i < 40; i++) {
                sw_buf_clear(&got);
                assert_int_equal(sw_parquet_next(p, &got), 1);
                expected(i, &want);
                assert_string_equal(got.at, want.at);
            }
            assert_int_equal(sw_parquet_next(p, &got), 0);
            assert_int_equal(sw_parquet_next(p, &got), 0);
            sw_buf_free(&got);
            sw_buf_free(&want);
            sw_parquet_rewind(p);
        }
        sw_parquet_close(p);
        free(path);
    }
}

/* All rows, a line each, then "!message" of a failure without the file's name. Caller frees. */
static char *rows_of(const char *path)
{
    sw_buf b = {0};
    sw_buf_puts(&b, "");
    sw_parquet *p = sw_parquet_open(path, 1 << 20);
    int rc = p ? 1 : -1;
    while (rc > 0 && (rc = sw_parquet_next(p, &b)) > 0)
        sw_buf_putc(&b, '\n');
    if (rc < 0)
        sw_buf_printf(&b, "!%s", strstr(sw_error(), ": ") + 2);
    sw_parquet_close(p);
    return sw_buf_take(&b);
}

static void types(void **state)
{
    (void)state;
    char *got = rows_of(FOLDER "types.parquet");
    assert_string_equal(
        got,
        "{\"b\":\"/wAB\",\"u\":18446744073709551615,\"i\":-5,\"d\":0.1,\"m\":{\"k\":1},\"n\":{\"3\":[1]},\"f\":\"/"
        "2I=\","
        "\"l\":\"\\\"\\n\\u0000\"}\n"
        "{\"b\":\"ok\",\"u\":0,\"i\":null,\"d\":null,\"m\":{},\"n\":{\"1\":null,\"2\":[]},\"f\":\"Y2Q=\",\"l\":\"é\"}\n"
        "{\"b\":null,\"u\":7,\"i\":7,\"d\":1e+300,\"m\":null,\"n\":null,\"f\":null,\"l\":null}\n");
    free(got);
    got = rows_of(FOLDER "empty.parquet");
    assert_string_equal(got, "");
    free(got);
    got = rows_of(FOLDER "decimal.parquet");
    assert_string_equal(got, "!row 1: column \"x\": decimals are not read; write them as numbers");
    free(got);
}

/* A file that was cut is an error before the first row. */
static void cut(void **state)
{
    (void)state;
    sw_buf file = {0};
    char path[] = "/tmp/swift-parquet-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && !sw_read_file(FOLDER "plain.parquet", &file));
    for (size_t n = 0; n < file.n; n += n < 30 || n + 30 > file.n ? 1 : 37) {
        assert_true(!ftruncate(fd, 0) && pwrite(fd, file.at, n, 0) == (ssize_t)n);
        sw_parquet *p = sw_parquet_open(path, 1 << 20);
        assert_null(p);
        assert_non_null(strstr(sw_error(), "cut off"));
    }
    /* changed bytes never do worse than an error or other values */
    for (size_t i = 0; i < file.n; i++) {
        char was = file.at[i];
        file.at[i] = (char)(was ^ (1 << i % 8));
        assert_true(pwrite(fd, file.at, file.n, 0) == (ssize_t)file.n);
        free(rows_of(path));
        file.at[i] = was;
    }
    close(fd);
    unlink(path);
    sw_buf_free(&file);
}

static void as_rows(void **state)
{
    (void)state;
    sw_rows *r = sw_rows_open(FOLDER "snappy.parquet", SW_ROWS_JSONL, 0); /* whoever reads JSON Lines reads this too */
    sw_row row;
    for (int i = 0; i < 40; i++) {
        assert_int_equal(sw_rows_next(r, &row), 1);
        cJSON *v = sw_row_json(r, row.at, row.n, row.line);
        assert_true(row.line == i + 1 && sw_json_get(v, "id")->valueint == i);
        cJSON_Delete(v);
    }
    assert_int_equal(sw_rows_next(r, &row), 0);
    assert_string_equal(sw_rows_kind_name(r), "Parquet");
    sw_digest d;
    assert_int_equal(sw_digest_file(FOLDER "snappy.parquet", &d), 0);
    assert_string_equal(sw_rows_digest(r).hex, d.hex);
    assert_true(sw_rows_bytes(r) > 1000 && sw_rows_bytes(r) < sw_rows_size(r));
    assert_int_equal(sw_rows_rewind(r), 0);
    assert_int_equal(sw_rows_next(r, &row), 1);
    assert_int_equal(row.line, 1);
    sw_rows_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(writers), cmocka_unit_test(types), cmocka_unit_test(cut),
                                       cmocka_unit_test(as_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
