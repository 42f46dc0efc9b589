/* GGUF: what was written is read back; no count, length or offset leads outside the file. */
#include "store/gguf.h"
#include "store/quant.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* ---- building files by hand */

static void u32(sw_buf *b, uint32_t v) { sw_buf_add(b, &v, 4); }
static void u64(sw_buf *b, uint64_t v) { sw_buf_add(b, &v, 8); }
static void text(sw_buf *b, const char *s)
{
    u64(b, strlen(s));
    sw_buf_puts(b, s);
}
static void head(sw_buf *b, uint64_t tensors, uint64_t values)
{
    sw_buf_puts(b, "GGUF");
    u32(b, 3);
    u64(b, tensors);
    u64(b, values);
}
static void tensor(sw_buf *b, const char *name, uint32_t ndim, const uint64_t *dims, uint32_t type, uint64_t offset)
{
    text(b, name);
    u32(b, ndim);
    for (uint32_t i = 0; i < ndim; i++)
        u64(b, dims[i]);
    u32(b, type);
    u64(b, offset);
}
static void data(sw_buf *b, size_t n)
{
    while (b->n % 32)
        sw_buf_putc(b, 0);
    for (size_t i = 0; i < n; i++)
        sw_buf_putc(b, (char)i);
}

/* Opens a copy of exactly that length, so that a sanitizer sees a read beyond. Frees the buffer. */
static void refused(sw_buf *b, const char *why)
{
    uint8_t *copy = sw_malloc(b->n ? b->n : 1);
    memcpy(copy, b->at, b->n);
    sw_gguf *g = sw_gguf_from_bytes(copy, b->n, "f");
    if (g || !strstr(sw_error(), why))
        fail_msg("%s: '%s' does not say '%s'", g ? "accepted" : "refused", sw_error(), why);
    free(copy);
    sw_buf_free(b);
}

/* Two rows of two blocks of 4-bit floats: an exponent, then bytes whose low halves are the first 16 values. */
static void four_bit_floats(void **state)
{
    (void)state;
    static const float values[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
    sw_buf b = {0};
    head(&b, 1, 0);
    tensor(&b, "t", 2, (uint64_t[]){64, 2}, 39, 0);
    data(&b, 4 * 17);
    size_t start = b.n - 4 * 17;
    for (int i = 0; i < 4; i++)
        b.at[start + (size_t)i * 17] = (char)(125 + i);
    sw_gguf *g = sw_gguf_from_bytes(b.at, b.n, "f");
    if (!g)
        fail_msg("%s", sw_error());
    const sw_entry *e = sw_gguf_tensor(g, "t");
    float out[128];
    assert_int_equal(e->t.dtype, SW_MXFP4);
    assert_int_equal(sw_dequantise(out, e->t.data, SW_MXFP4, 128), 0);
    for (int i = 0; i < 128; i++) {
        uint8_t byte = (uint8_t)b.at[start + (size_t)(i / 32) * 17 + 1 + (size_t)i % 16];
        float want = values[i % 32 < 16 ? byte & 15 : byte >> 4] * ldexpf(1, i / 32 - 2);
        assert_true(out[i] == want);
    }
    sw_gguf_close(g);
    b.n -= 1;
    refused(&b, "cut short");
    head(&b, 1, 0);
    tensor(&b, "t", 2, (uint64_t[]){33, 2}, 39, 0);
    data(&b, 64);
    refused(&b, "multiple of 32");
}

static void round_trip(void **state)
{
    (void)state;
    char path[] = "/tmp/swift-gguf-XXXXXX";
    close(mkstemp(path));
    int64_t shape[] = {2, 32}, five = 5, none = 0;
    uint8_t blocks[36], bytes[20];
    for (size_t i = 0; i < sizeof blocks; i++)
        blocks[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    sw_span words[] = {{"a", 1}, {"", 0}, {"b\0c", 3}};
    sw_gguf_writer *w = sw_gguf_writer_new();
    sw_gguf_put_str(w, "general.architecture", "llama", 5);
    sw_gguf_put_u32(w, "n", 7);
    sw_gguf_put_u64(w, "big", UINT64_MAX);
    sw_gguf_put_f32(w, "f", 0.5f);
    sw_gguf_put_bool(w, "yes", true);
    sw_gguf_put_array(w, "ints", SW_GGUF_I32, 3, (int32_t[]){-1, 0, 7});
    sw_gguf_put_strs(w, "words", 3, words);
    sw_gguf_declare(w, "q", SW_Q4_0, 2, shape);
    sw_gguf_declare(w, "nothing", SW_F32, 1, &none);
    sw_gguf_declare(w, "v", SW_F32, 1, &five);
    assert_int_equal(sw_gguf_writer_open(w, path), 0);
    assert_int_equal(sw_gguf_write(w, blocks, 10), 0);
    assert_int_equal(sw_gguf_write(w, blocks + 10, 26), 0);
    assert_int_equal(sw_gguf_write(w, bytes, 20), 0);
    assert_int_equal(sw_gguf_writer_commit(w), 0);

    sw_gguf *g = sw_gguf_open(path);
    assert_non_null(g);
    assert_int_equal(sw_gguf_value_count(g), 7);
    assert_int_equal(sw_gguf_tensor_count(g), 3);
    const sw_entry *q = sw_gguf_tensor(g, "q");
    assert_int_equal(q->t.shape[0], 2);
    assert_int_equal(q->t.shape[1], 32);
    assert_memory_equal(q->t.data, blocks, 36);
    assert_memory_equal(sw_gguf_tensor(g, "v")->t.data, bytes, 20);
    assert_int_equal(sw_numel(&sw_gguf_tensor(g, "nothing")->t), 0);
    int64_t n;
    double f;
    bool yes;
    assert_int_equal(sw_gguf_i64(g, "n", 0, 10, 0, &n), 0);
    assert_int_equal(n, 7);
    assert_int_equal(sw_gguf_i64(g, "n", 0, 6, 0, &n), -1);
    assert_int_equal(sw_gguf_i64(g, "big", 0, INT64_MAX - 1, 0, &n), -1);
    assert_int_equal(sw_gguf_i64(g, "f", 0, 10, 0, &n), -1);
    assert_int_equal(sw_gguf_i64(g, "words", 0, 10, 0, &n), -1);
    assert_int_equal(sw_gguf_i64(g, "absent", 0, 10, 4, &n), 0);
    assert_int_equal(n, 4);
    assert_int_equal(sw_gguf_f64(g, "f", 0, &f), 0);
    assert_true(f == 0.5);
    assert_int_equal(sw_gguf_bool(g, "yes", false, &yes), 0);
    assert_true(yes);
    assert_int_equal(sw_gguf_bool(g, "n", false, &yes), -1);
    sw_gguf_iter it = sw_gguf_items(sw_gguf_find(g, "ints"));
    double sum = 0;
    int count = 0;
    for (; sw_gguf_next_f64(&it, &f); count++)
        sum = sum * 10 + f;
    assert_int_equal(count, 3);
    assert_true(sum == -93);
    it = sw_gguf_items(sw_gguf_find(g, "words"));
    sw_span s;
    for (count = 0; sw_gguf_next_str(&it, &s); count++) {
        assert_int_equal(s.n, words[count].n);
        assert_memory_equal(s.at, words[count].at, s.n);
    }
    assert_int_equal(count, 3);

    /* a copy of all values is the same values */
    char copy_path[] = "/tmp/swift-gguf-XXXXXX";
    close(mkstemp(copy_path));
    w = sw_gguf_writer_new();
    for (size_t i = 0; i < sw_gguf_value_count(g); i++)
        sw_gguf_put_copy(w, sw_gguf_value_at(g, i));
    for (size_t i = 0; i < 3; i++) {
        const sw_tensor *t = &sw_gguf_tensor_at(g, i)->t;
        sw_gguf_declare(w, sw_gguf_tensor_at(g, i)->name, t->dtype, t->ndim, t->shape);
    }
    assert_int_equal(sw_gguf_writer_open(w, copy_path), 0);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(sw_gguf_write(w, sw_gguf_tensor_at(g, i)->t.data, sw_tensor_bytes(&sw_gguf_tensor_at(g, i)->t)), 0);
    assert_int_equal(sw_gguf_writer_commit(w), 0);
    sw_digest a, b;
    assert_int_equal(sw_digest_file(path, &a), 0);
    assert_int_equal(sw_digest_file(copy_path, &b), 0);
    assert_string_equal(a.hex, b.hex);
    sw_gguf_close(g);
    unlink(path);
    unlink(copy_path);
}

static void one_tensor(sw_buf *b, uint32_t ndim, const uint64_t *dims, uint32_t type, uint64_t offset, size_t bytes)
{
    head(b, 1, 0);
    tensor(b, "t", ndim, dims, type, offset);
    data(b, bytes);
}

static void hostile_tensors(void **state)
{
    (void)state;
    sw_buf b = {0};
    uint64_t d[] = {32, 2, 1, 1, 1};
    one_tensor(&b, 2, d, 2, 0, 35);
    refused(&b, "cut short");
    one_tensor(&b, 2, (uint64_t[]){31, 2}, 2, 0, 64);
    refused(&b, "multiple of 32");
    one_tensor(&b, 2, d, 16, 0, 64);
    refused(&b, "multiple of 256");
    one_tensor(&b, 2, d, 31, 0, 64); /* a type that ggml has given up */
    refused(&b, "the type 31 is not known");
    one_tensor(&b, 2, d, UINT32_MAX, 0, 64);
    refused(&b, "not known");
    one_tensor(&b, 5, d, 0, 0, 64);
    refused(&b, "5 dimensions");
    head(&b, 1, 0);
    text(&b, "t");
    u32(&b, UINT32_MAX);
    data(&b, 64);
    refused(&b, "4294967295 dimensions");
    one_tensor(&b, 2, (uint64_t[]){UINT64_MAX, 2}, 0, 0, 64);
    refused(&b, "a dimension of");
    one_tensor(&b, 2, (uint64_t[]){1ull << 40, 1ull << 40}, 0, 0, 64);
    refused(&b, "too many values");
    one_tensor(&b, 3, (uint64_t[]){0, 1ull << 40, 1ull << 40}, 0, 0, 64);
    refused(&b, "too many values");
    one_tensor(&b, 1, d, 0, 4, 256);
    refused(&b, "no multiple of 32");
    one_tensor(&b, 1, d, 0, UINT64_MAX - 31, 256);
    refused(&b, "beyond any file");
    one_tensor(&b, 1, d, 0, 1ull << 62, 256);
    refused(&b, "cut short");
    head(&b, 2, 0);
    tensor(&b, "t", 1, d, 0, 0);
    tensor(&b, "t", 1, d, 0, 128);
    data(&b, 256);
    refused(&b, "listed twice");
    head(&b, 2, 0);
    tensor(&b, "t", 1, d, 0, 0);
    tensor(&b, "u", 1, d, 0, 96);
    data(&b, 256);
    refused(&b, "overlaps");
    head(&b, 1ull << 60, 0);
    data(&b, 64);
    refused(&b, "announced");
}

static void hostile_values(void **state)
{
    (void)state;
    sw_buf b = {0};
    sw_buf_puts(&b, "GGML");
    data(&b, 64);
    refused(&b, "no GGUF file");
    sw_buf_puts(&b, "GGUF");
    u32(&b, 1);
    data(&b, 64);
    refused(&b, "version 1");
    sw_buf_puts(&b, "GGUF");
    u32(&b, 0x03000000);
    data(&b, 64);
    refused(&b, "big-endian");
    head(&b, 0, UINT64_MAX);
    data(&b, 64);
    refused(&b, "announced");
    head(&b, 0, 1);
    u64(&b, 1ull << 63);
    data(&b, 64);
    refused(&b, "announced");
    head(&b, 0, 1);
    text(&b, "k\xff");
    u32(&b, 0);
    data(&b, 64);
    refused(&b, "UTF-8");
    head(&b, 0, 1);
    text(&b, "k");
    u32(&b, 13);
    data(&b, 64);
    refused(&b, "unknown type 13");
    head(&b, 0, 1);
    text(&b, "k");
    u32(&b, SW_GGUF_ARRAY);
    u32(&b, SW_GGUF_ARRAY);
    u64(&b, 1);
    data(&b, 64);
    refused(&b, "arrays of arrays");
    head(&b, 0, 1);
    text(&b, "k");
    u32(&b, SW_GGUF_ARRAY);
    u32(&b, SW_GGUF_F64);
    u64(&b, 1ull << 61);
    data(&b, 64);
    refused(&b, "an array of");
    head(&b, 0, 1);
    text(&b, "k");
    u32(&b, SW_GGUF_ARRAY);
    u32(&b, SW_GGUF_STR);
    u64(&b, 2);
    text(&b, "x");
    u64(&b, 1ull << 63);
    data(&b, 64);
    refused(&b, "item 1");
    head(&b, 0, 2);
    for (int i = 0; i < 2; i++) {
        text(&b, "k");
        u32(&b, SW_GGUF_U8);
        sw_buf_putc(&b, 1);
    }
    refused(&b, "twice");
    const uint32_t alignments[] = {0, 1, 7, 48, 1u << 31};
    for (size_t i = 0; i < SW_COUNT(alignments); i++) {
        head(&b, 0, 1);
        text(&b, "general.alignment");
        u32(&b, SW_GGUF_U32);
        u32(&b, alignments[i]);
        refused(&b, "general.alignment");
    }
}

/* Cut anywhere, it is refused. */
static void truncated(void **state)
{
    (void)state;
    sw_buf b = {0};
    head(&b, 1, 2);
    text(&b, "words");
    u32(&b, SW_GGUF_ARRAY);
    u32(&b, SW_GGUF_STR);
    u64(&b, 2);
    text(&b, "one");
    text(&b, "two");
    text(&b, "x");
    u32(&b, SW_GGUF_F64);
    u64(&b, 0);
    tensor(&b, "t", 1, (uint64_t[]){3}, 0, 0);
    data(&b, 12);
    for (size_t n = 0; n <= b.n; n++) {
        uint8_t *cut = sw_malloc(n ? n : 1);
        memcpy(cut, b.at, n);
        sw_gguf *g = sw_gguf_from_bytes(cut, n, "f");
        if (!g != (n < b.n))
            fail_msg("%zu of %zu bytes: %s", n, b.n, g ? "accepted" : sw_error());
        sw_gguf_close(g);
        free(cut);
    }
    sw_buf_free(&b);
}

static void writer(void **state)
{
    (void)state;
    char path[] = "/tmp/swift-gguf-XXXXXX";
    close(mkstemp(path));
    unlink(path);
    int64_t n = 3;
    sw_gguf_writer *w = sw_gguf_writer_new();
    sw_gguf_declare(w, "t", SW_Q8_0, 1, &n);
    assert_int_equal(sw_gguf_writer_open(w, path), -1);
    sw_gguf_writer_abort(w);
    w = sw_gguf_writer_new();
    sw_gguf_put_u32(w, "k", 1);
    sw_gguf_put_u32(w, "k", 1);
    assert_int_equal(sw_gguf_writer_open(w, path), -1);
    assert_non_null(strstr(sw_error(), "twice"));
    sw_gguf_writer_abort(w);
    w = sw_gguf_writer_new();
    sw_gguf_declare(w, "t", SW_F32, 1, &n);
    assert_int_equal(sw_gguf_writer_open(w, path), 0);
    assert_int_equal(sw_gguf_write(w, "12345678", 8), 0);
    assert_int_equal(sw_gguf_writer_commit(w), -1);
    w = sw_gguf_writer_new();
    sw_gguf_declare(w, "t", SW_F32, 1, &n);
    assert_int_equal(sw_gguf_writer_open(w, path), 0);
    assert_int_equal(sw_gguf_write(w, "1234567812345", 13), -1);
    sw_gguf_writer_abort(w);
    assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trip), cmocka_unit_test(four_bit_floats), cmocka_unit_test(hostile_tensors), cmocka_unit_test(hostile_values),
                                       cmocka_unit_test(truncated), cmocka_unit_test(writer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
