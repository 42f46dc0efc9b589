/* Files of torch.save, as tests/fuzz/make_torch.py writes them: what they hold, and what is refused of hostile ones. */
#include "store/torch_file.h"

#include "base/memory.h"
#include "store/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define SAMPLES "tests/fuzz/corpus/torch/"

static const sw_entry *entry(const sw_torch *t, const char *name, sw_dtype dtype, int ndim, int64_t rows, int64_t columns)
{
    const sw_entry *e = sw_torch_find(t, name);
    if (!e)
        fail_msg("%s is missing", name);
    assert_int_equal(e->t.dtype, dtype);
    assert_int_equal(e->t.ndim, ndim);
    if (ndim > 0)
        assert_int_equal(e->t.shape[0], rows);
    if (ndim > 1)
        assert_int_equal(e->t.shape[1], columns);
    assert_true(sw_is_dense(&e->t));
    return e;
}

static double value(const sw_entry *e, int64_t i) { return sw_scalar_get(e->t.data, e->t.dtype, i); }

static bool in_file(const sw_entry *e)
{
    const uint8_t *p = e->t.data;
    return p >= e->file->at && p < e->file->at + e->file->n;
}

static void whole(const char *path)
{
    static const sw_dtype types[] = {SW_F32, SW_F64, SW_F16, SW_BF16, SW_I64, SW_I32, SW_I16, SW_I8, SW_U8, SW_BOOL, SW_F8_E4M3, SW_F8_E5M2};
    sw_torch *t = sw_torch_open(path);
    if (!t)
        fail_msg("%s", sw_error());
    assert_int_equal(sw_torch_count(t), 19);
    assert_string_equal(sw_torch_at(t, 0)->name, "t.f32");
    assert_null(sw_torch_at(t, 19));
    assert_null(sw_torch_find(t, "t"));
    for (size_t i = 0; i < SW_COUNT(types); i++) {
        char name[32];
        snprintf(name, sizeof name, "t.%s", sw_dtypes[types[i]].name);
        const sw_entry *e = entry(t, name, types[i], 2, 2, 3);
        float row[6];
        assert_int_equal(sw_dequantise(row, e->t.data, e->t.dtype, 6), 0);
        for (int k = 0; k < 6; k++)
            assert_true(row[k] == (types[i] == SW_BOOL ? 1 : k + 1) && value(e, k) == row[k]);
    }
    const sw_entry *tied = entry(t, "tied", SW_F32, 2, 4, 6), *tie = entry(t, "tie", SW_F32, 2, 4, 6);
    const sw_entry *rows = entry(t, "rows", SW_F32, 2, 2, 6), *turned = entry(t, "turned", SW_F32, 2, 6, 4);
    const sw_entry *every = entry(t, "every", SW_F32, 2, 4, 3), *scalar = entry(t, "scalar", SW_F32, 0, 0, 0);
    assert_true(value(tied, 23) == 24 && value(scalar, 0) == 5);
    for (int64_t i = 0; i < 12; i++)
        assert_true(value(rows, i) == (double)(7 + i));
    for (int64_t i = 0; i < 6; i++)
        for (int64_t j = 0; j < 4; j++)
            assert_true(value(turned, i * 4 + j) == (double)(j * 6 + i + 1));
    for (int64_t i = 0; i < 4; i++)
        for (int64_t j = 0; j < 3; j++)
            assert_true(value(every, i * 3 + j) == (double)(i * 6 + 2 * j + 2));
    entry(t, "empty", SW_F32, 2, 0, 4);
    assert_false(in_file(turned));
    if (strstr(path, "zip")) { /* what is dense is used where it lies, tied tensors once */
        assert_ptr_equal(tied->t.data, tie->t.data);
        assert_true(in_file(tied) && in_file(rows) && in_file(scalar) && (char *)rows->t.data == (char *)tied->t.data + 24);
    }
    sw_torch_close(t);
}

static void good(void **state)
{
    (void)state;
    whole(SAMPLES "zip");
    whole(SAMPLES "zip-protocol4");
    whole(SAMPLES "zip64");
    whole(SAMPLES "old");
    sw_torch *t = sw_torch_open(SAMPLES "nested");
    assert_non_null(t);
    assert_int_equal(sw_torch_count(t), 1);
    assert_true(value(entry(t, "a", SW_F32, 1, 6, 0), 5) == 6);
    sw_torch_close(t);
}

static void hostile(void **state)
{
    (void)state;
    static const struct { const char *file, *why; } cases[] = {
        {"bad-system", "asks for posix.system, which is refused"}, {"bad-system4", "asks for posix.system, which is refused"},
        {"bad-eval-in-dict", "asks for __builtin__.eval, which is refused"}, {"bad-inst", "asks for os.system, which is refused"},
        {"bad-ext", "instruction 0x82 is refused"}, {"bad-module", "asks for torch.nn.modules.linear.Linear"},
        {"bad-complex", "torch.ComplexFloatStorage"}, {"bad-memo", "memo place 4294967280"}, {"bad-get", "memo place 7"},
        {"bad-nesting", "it holds a list"}, {"bad-length", "9223372036854775808 bytes are needed"}, {"bad-stack", "the stack is empty"},
        {"bad-mark", "2 values are needed on the stack"}, {"bad-protocol", "protocol 9"}, {"bad-self", "it holds a list"},
        {"bad-none", "a dict without tensors"}, {"bad-offset", "reaches to value"}, {"bad-reach", "reaches to value 4 of a storage of 4"},
        {"bad-stride", "reaches to value"}, {"bad-shape", "too many values"}, {"bad-negative", "a size and a stride"},
        {"bad-expanded", "overlap (an expanded tensor)"}, {"bad-dims", "9 dimensions"}, {"bad-count", "a storage of 4611686018427387904 values"},
        {"bad-storage-size", "is of 20 bytes, the file holds 16"}, {"bad-storage-gone", "storage '7' is not in the file"},
        {"bad-two-types", "tensor 'b': its storage '0' is of two types"}, {"bad-name", "name is no text"}, {"bad-twice", "listed twice"},
        {"bad-copies", "more memory than the file"}, {"bad-order", "byte order 'big'"}, {"bad-script", "TorchScript"},
        {"bad-no-pickle", "without data.pkl"}, {"bad-compressed", "is compressed"}, {"bad-encrypted", "is encrypted"},
        {"bad-cut", "cut short"}, {"bad-size", "2147483648 bytes"}, {"bad-place", "begin at byte 2147483648"},
        {"bad-place64", "begin at byte 9223372036854775808"}, {"bad-size64", "18446744073709551608 bytes"}, {"bad-header", "no header of its name"},
        {"bad-overlap", "'m/byteorder' overlaps 'm/data.pkl'"}, {"bad-old-cut", "cut short"}, {"bad-old-long", "follow the last storage"},
        {"bad-old-count", "cut short"}, {"bad-old-order", "big-endian"}, {"bad-old-system", "posix.system"}, {"bad-old-magic", "did not write"},
        {"bad-text", "neither a zip record nor a pickle"},
    };
    for (size_t i = 0; i < SW_COUNT(cases); i++) {
        char path[256];
        snprintf(path, sizeof path, SAMPLES "%s", cases[i].file);
        sw_torch *t = sw_torch_open(path);
        if (t || !strstr(sw_error(), cases[i].why) || !strstr(sw_error(), path))
            fail_msg("%s: %s: '%s' does not say '%s'", cases[i].file, t ? "accepted" : "refused", sw_error(), cases[i].why);
    }
}

/* Every beginning of a good file is refused without reading beyond it (ASan watches). */
static void truncated(void **state)
{
    (void)state;
    static const char *const files[] = {SAMPLES "zip", SAMPLES "old"};
    for (size_t f = 0; f < SW_COUNT(files); f++) {
        sw_buf b = {0};
        assert_int_equal(sw_read_file(files[f], &b), 0);
        for (size_t n = 0; n < b.n; n += n < 3000 ? 7 : 1) {
            uint8_t *part = malloc(n ? n : 1);
            memcpy(part, b.at, n);
            assert_null(sw_torch_from_bytes(part, n, "part"));
            free(part);
        }
        sw_buf_free(&b);
    }
}

/* A list that many calls would turn into dicts is turned once: time stays linear in the file. */
static void amplified(void **state)
{
    (void)state;
    sw_buf b = {0};
    sw_buf_puts(&b, "\x80\x02](");
    for (int i = 0; i < 20000; i++)
        sw_buf_puts(&b, "NN\x86");
    sw_buf_add(&b, "eq\0ccollections\nOrderedDict\nq\1", 31);
    for (int i = 0; i < 20000; i++)
        sw_buf_add(&b, "h\1h\0\x85R0", 7);
    sw_buf_puts(&b, "0.");
    size_t before = sw_peak_rss();
    assert_null(sw_torch_from_bytes(b.at, b.n, "amplified"));
    assert_true(sw_peak_rss() - before < 64 << 20);
    sw_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(good), cmocka_unit_test(hostile), cmocka_unit_test(truncated), cmocka_unit_test(amplified)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
