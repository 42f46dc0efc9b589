/* Safetensors: what was written is read back; no header, however wrong, leads outside the file. */
#include "store/safetensors.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* A file of this header and n data bytes; freed by the caller. */
static uint8_t *file_of(const char *header, size_t n, size_t *size)
{
    size_t h = strlen(header);
    uint8_t *b = sw_calloc(1, 8 + h + n);
    for (int i = 0; i < 8; i++)
        b[i] = (uint8_t)((uint64_t)h >> 8 * i);
    memcpy(b + 8, header, h);
    for (size_t i = 0; i < n; i++)
        b[8 + h + i] = (uint8_t)i;
    *size = 8 + h + n;
    return b;
}

static void refused(const char *header, size_t n, const char *why)
{
    size_t size;
    uint8_t *b = file_of(header, n, &size);
    sw_safetensors *s = sw_st_from_bytes(b, size, "f");
    assert_null(s);
    if (!strstr(sw_error(), why))
        fail_msg("'%s' does not say '%s' (header %s)", sw_error(), why, header);
    free(b);
}

static void round_trip(void **state)
{
    (void)state;
    char path[] = "/tmp/swift-st-XXXXXX";
    close(mkstemp(path));
    float f[6] = {0, 1, -2, INFINITY, 5e-42f, 3};
    uint16_t h[3] = {1, 2, 65535};
    int64_t shape[] = {2, 3}, three = 3, none[] = {4, 0};
    char odd[] = "a \"quoted\" näme\n";
    sw_entry e[] = {{"w", sw_tensor_of(f, SW_F32, 2, shape), NULL, NULL, NULL},
                    {odd, sw_tensor_of(h, SW_BF16, 1, &three), NULL, NULL, NULL},
                    {"scalar", sw_tensor_of(f, SW_F32, 0, NULL), NULL, NULL, NULL},
                    {"empty", sw_tensor_of(f, SW_I64, 2, none), NULL, NULL, NULL}};
    cJSON *meta = cJSON_CreateObject();
    cJSON_AddStringToObject(meta, "format", "pt");
    assert_int_equal(sw_st_save(path, e, 4, meta), 0);
    cJSON_Delete(meta);
    sw_safetensors *s = sw_st_open(path);
    assert_non_null(s);
    assert_int_equal(sw_st_count(s), 4);
    assert_string_equal(cJSON_GetObjectItem(sw_st_metadata(s), "format")->valuestring, "pt");
    for (size_t i = 0; i < 4; i++) {
        const sw_entry *g = sw_st_find(s, e[i].name);
        assert_non_null(g);
        assert_int_equal(g->t.dtype, e[i].t.dtype);
        assert_int_equal(g->t.ndim, e[i].t.ndim);
        assert_memory_equal(g->t.shape, e[i].t.shape, sizeof(int64_t) * (size_t)g->t.ndim);
        assert_memory_equal(g->t.data, e[i].t.data, sw_tensor_bytes(&e[i].t));
        assert_int_equal((uintptr_t)g->t.data % (size_t)sw_dtypes[g->t.dtype].bytes, 0); /* the last two lie at odd places */
    }
    assert_null(sw_st_find(s, "v"));
    sw_st_close(s);
    unlink(path);
}

#define T(name, dtype, shape, from, to) "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}"

static void hostile(void **state)
{
    (void)state;
    refused("", 0, "ends inside");
    refused("[]", 0, "an object is needed");
    refused("{" T("a", "F32", "[2]", "0", "8") "}x", 8, "header");
    refused("{" T("a", "F32", "[2]", "0", "8") "," T("b", "F32", "[2]", "4", "12") "}", 12, "overlaps");
    refused("{" T("a", "F32", "[2]", "0", "8") "," T("b", "F32", "[2]", "0", "8") "}", 8, "overlaps");
    refused("{" T("a", "F32", "[2]", "0", "8") "," T("b", "F32", "[1]", "12", "16") "}", 16, "belong to no tensor");
    refused("{" T("a", "F32", "[2]", "0", "8") "}", 9, "belong to no tensor");
    refused("{" T("a", "F32", "[2]", "0", "8") "}", 7, "cut short");
    refused("{" T("a", "F32", "[3]", "0", "8") "}", 8, "12 bytes");
    refused("{" T("a", "F32", "[2]", "8", "0") "}", 8, "backwards");
    refused("{" T("a", "F32", "[2]", "-8", "0") "}", 8, "whole numbers");
    refused("{" T("a", "F32", "[2]", "0", "8.5") "}", 9, "whole numbers");
    refused("{" T("a", "F32", "[2]", "0", "1e300") "}", 8, "whole numbers");
    refused("{" T("a", "F32", "[2]", "0", "18446744073709551624") "}", 8, "whole numbers");
    refused("{" T("a", "F32", "[-2]", "0", "8") "}", 8, "dimension 0");
    refused("{" T("a", "F32", "[4294967296,4294967296]", "0", "0") "}", 0, "too many");
    refused("{" T("a", "F32", "[0,4503599627370496,4503599627370496]", "0", "0") "}", 0, "too many");
    refused("{" T("a", "F32", "[1,1,1,1,1,1]", "0", "4") "}", 4, "dimensions");
    refused("{" T("a", "F33", "[2]", "0", "8") "}", 8, "F33");
    refused("{" T("a", "F32", "[2]", "0", "8") "," T("a", "F32", "[2]", "8", "16") "}", 16, "listed twice");
    refused("{\"a\":3}", 0, "a number");
    refused("{\"a\":{\"dtype\":3}}", 0, "dtype");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 0, "two whole numbers");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 8, "two whole numbers");
    refused("{\"__metadata__\":[]}", 0, "__metadata__");
    refused("{" T("a\\u0000b", "F32", "[2]", "0", "8") "}", 8, "NUL");
    char *deep = sw_calloc(1, 4001);
    memset(deep, '[', 2000);
    refused(deep, 0, "nested deeper");
    free(deep);
}

/* Cut anywhere, the file is refused: no prefix of it is a file. */
static void truncated(void **state)
{
    (void)state;
    size_t size;
    uint8_t *b = file_of("{" T("a", "F32", "[2]", "0", "8") "," T("b", "U8", "[3]", "8", "11") "}", 11, &size);
    sw_safetensors *s = sw_st_from_bytes(b, size, "f");
    assert_non_null(s);
    assert_int_equal(sw_st_count(s), 2);
    sw_st_close(s);
    for (size_t n = 0; n < size; n++) {
        uint8_t *cut = sw_malloc(n ? n : 1); /* exactly as long, so that a sanitizer sees a read beyond */
        memcpy(cut, b, n);
        s = sw_st_from_bytes(cut, n, "f");
        if (s)
            fail_msg("%zu of %zu bytes were taken for a file", n, size);
        free(cut);
    }
    memset(b, 0xff, 8);
    assert_null(sw_st_from_bytes(b, size, "f"));
    assert_non_null(strstr(sw_error(), "no safetensors file"));
    free(b);
}

/* Old writers did not align the data part: tensors are usable all the same. */
static void unaligned(void **state)
{
    (void)state;
    size_t size;
    uint8_t *b = file_of("{" T("a", "U8", "[1]", "0", "1") "," T("b", "F32", "[2]", "1", "9") "}", 9, &size);
    sw_safetensors *s = sw_st_from_bytes(b, size, "f");
    const sw_entry *e = sw_st_find(s, "b");
    assert_int_equal((uintptr_t)e->t.data % 4, 0);
    assert_memory_equal(e->t.data, ((uint8_t[]){1, 2, 3, 4, 5, 6, 7, 8}), 8);
    sw_st_close(s);
    free(b);
}

static void writer(void **state)
{
    (void)state;
    char path[] = "/tmp/swift-st-XXXXXX";
    close(mkstemp(path));
    unlink(path);
    int64_t two = 2;
    float f[2] = {1, 2};
    sw_st_writer *w = sw_st_writer_new();
    sw_st_declare(w, "a", SW_F32, 1, &two);
    assert_int_equal(sw_st_writer_open(w, path), 0);
    assert_int_equal(sw_st_write(w, f, 4), 0);
    assert_int_equal(sw_st_writer_commit(w), -1); /* half of it is missing */
    assert_non_null(strstr(sw_error(), "4 of 8"));
    assert_int_equal(access(path, F_OK), -1);
    w = sw_st_writer_new();
    sw_st_declare(w, "a", SW_F32, 1, &two);
    assert_int_equal(sw_st_writer_open(w, path), 0);
    assert_int_equal(sw_st_write(w, f, 9), -1);
    sw_st_writer_abort(w);
    w = sw_st_writer_new();
    sw_st_declare(w, "a", SW_F32, 1, &two);
    sw_st_declare(w, "a", SW_F32, 1, &two);
    assert_int_equal(sw_st_writer_open(w, path), -1);
    assert_non_null(strstr(sw_error(), "taken"));
    sw_st_writer_abort(w);
    w = sw_st_writer_new();
    sw_st_declare(w, "a", SW_Q4_0, 1, &(int64_t){32});
    assert_int_equal(sw_st_writer_open(w, path), -1);
    sw_st_writer_abort(w);
    assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trip), cmocka_unit_test(hostile), cmocka_unit_test(truncated),
                                       cmocka_unit_test(unaligned), cmocka_unit_test(writer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
