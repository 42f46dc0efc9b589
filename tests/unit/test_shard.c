/* Shards: what was written is what is read, in any order; nothing cut or changed is ever taken for whole. */
#include "data/shard_format.h"

#include "base/memory.h"
#include "base/philox.h"

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const sw_column columns[] = {{"ids", SW_COLUMN_I32},
                                    {"weights", SW_COLUMN_RUNS},
                                    {"segments", SW_COLUMN_U32},
                                    {"rejected.ids", SW_COLUMN_I32},
                                    {"rejected.weights", SW_COLUMN_RUNS},
                                    {"label", SW_COLUMN_F32},
                                    {"number", SW_COLUMN_I64},
                                    {"name", SW_COLUMN_BYTES}};
enum { N_COLUMNS = SW_COUNT(columns), VOCAB = 1000 };

static char dir[] = "/tmp/swift-shard-XXXXXX";
static char *path;

static sw_shard_info info(void)
{
    return (sw_shard_info){.tokenizer_digest = "aa",
                           .vocab_digest = "bb",
                           .vocab_size = VOCAB,
                           .template_name = "t",
                           .template_text = "{{ x }}",
                           .template_digest = "cc",
                           .train_on = "assistant",
                           .max_length = 4096,
                           .packing = true,
                           .command_line = "swift-tokenize 'a b'",
                           .program = "swift-tokenize 1",
                           .columns = columns,
                           .n_columns = N_COLUMNS};
}

/* Record i, made from its number alone. */
typedef struct made {
    int32_t ids[5000], rejected[40];
    float weights[5000], rejected_weights[40], label;
    uint32_t segments[3];
    int64_t number;
    char name[24];
    sw_value values[N_COLUMNS];
} made;

static void make(made *m, int64_t i, size_t longest)
{
    sw_rng rng = {7, (uint32_t)i, 1};
    size_t n = 1 + sw_rng_below(&rng, 0, longest);
    for (size_t k = 0; k < n; k++) {
        m->ids[k] = (int32_t)sw_rng_below(&rng, 10 + k, VOCAB);
        m->weights[k] = k < n / 2 ? 0 : i % 3 ? 1 : 0.25f * (float)(k % 7);
    }
    m->weights[0] = 0;
    size_t segments = 0;
    if (n > 2) {
        m->segments[segments++] = (uint32_t)(n / 2);
        m->weights[n / 2] = 0;
    }
    m->segments[segments++] = (uint32_t)n;
    size_t rejected = (size_t)(i % 4) * 10;
    for (size_t k = 0; k < rejected; k++) {
        m->rejected[k] = (int32_t)k;
        m->rejected_weights[k] = k > 3;
    }
    m->label = (float)i / 2;
    m->number = -i;
    int name = snprintf(m->name, sizeof m->name, "record %lld", (long long)i);
    sw_value v[] = {{m->ids, n},
                    {m->weights, n},
                    {m->segments, segments},
                    {m->rejected, rejected},
                    {m->rejected_weights, rejected},
                    {&m->label, 1},
                    {&m->number, 1},
                    {m->name, (size_t)name}};
    memcpy(m->values, v, sizeof v);
}

static void write_shard(const char *to, int64_t n, size_t longest)
{
    sw_shard_info h = info();
    sw_shard_writer *w = sw_shard_create(to, &h);
    assert_non_null(w);
    made *m = SW_NEW(made);
    for (int64_t i = 0; i < n; i++) {
        make(m, i, longest);
        assert_int_equal(sw_shard_append(w, m->values), 0);
    }
    free(m);
    cJSON *report = cJSON_CreateObject();
    cJSON_AddNumberToObject(report, "dropped", 5);
    assert_int_equal(sw_shard_finish(w, report), 0);
    cJSON_Delete(report);
}

static bool is_record(const sw_shard_record *r, int64_t i, size_t longest)
{
    made *m = SW_NEW(made);
    make(m, i, longest);
    bool same = r->number == i && r->n == m->values[0].n && r->n_segments == m->values[2].n &&
                !memcmp(r->ids, m->ids, r->n * 4) && !memcmp(r->weights, m->weights, r->n * 4) &&
                !memcmp(r->segments, m->segments, r->n_segments * 4);
    for (size_t c = 0; same && c < N_COLUMNS; c++)
        same = r->values[c].n == m->values[c].n &&
               (!r->values[c].n ||
                !memcmp(r->values[c].at, m->values[c].at, r->values[c].n * shard_item_bytes(columns[c].type)));
    free(m);
    return same;
}

typedef struct feed {
    int fd;
    const char *at;
    size_t n;
} feed;

static void *feeder(void *arg)
{
    feed *f = arg;
    while (f->n) {
        ssize_t put = write(f->fd, f->at, f->n > 1000 ? 1000 : f->n);
        if (put < 0)
            break;
        f->at += put;
        f->n -= (size_t)put;
    }
    close(f->fd);
    return NULL;
}

/* Reads bytes as a shard, through a pipe or a file. Records read, or -1 - that for a failure. */
static int64_t read_bytes(const char *at, size_t n, bool through_pipe, bool *wrong, size_t longest)
{
    int ends[2];
    pthread_t thread;
    feed f;
    sw_shard *s;
    if (through_pipe) {
        assert_int_equal(pipe(ends), 0);
        f = (feed){ends[1], at, n};
        assert_int_equal(pthread_create(&thread, NULL, feeder, &f), 0);
        s = shard_open_fd(ends[0], "pipe", false);
    } else {
        char *copy = sw_strfmt("%s/copy", dir);
        assert_int_equal(sw_write_file(copy, at, n), 0);
        s = sw_shard_open(copy);
        free(copy);
    }
    int64_t count = 0;
    int rc = s ? 1 : -1;
    sw_shard_record r;
    while (s && (rc = sw_shard_next(s, &r)) > 0) {
        if (!is_record(&r, count, longest))
            *wrong = true;
        count++;
    }
    if (!rc && sw_shard_totals_of(s)->records != count)
        rc = -1;
    sw_shard_close(s);
    if (through_pipe)
        pthread_join(thread, NULL);
    return rc ? -1 - count : count;
}

static void round_trip(void **state)
{
    (void)state;
    enum { N = 400, LONGEST = 5000 };
    write_shard(path, N, LONGEST);
    sw_shard *s = sw_shard_open(path);
    assert_non_null(s);
    const sw_shard_info *h = sw_shard_info_of(s);
    assert_string_equal(h->template_text, "{{ x }}");
    assert_string_equal(h->command_line, "swift-tokenize 'a b'");
    assert_string_equal(h->train_on, "assistant");
    assert_int_equal(h->vocab_size, VOCAB);
    assert_int_equal(h->max_length, 4096);
    assert_true(h->packing);
    assert_int_equal(sw_shard_check_vocab(s, "bb"), 0);
    assert_int_equal(sw_shard_check_vocab(s, "bc"), -1);
    assert_int_equal(sw_shard_column(s, "rejected.ids"), 3);
    assert_int_equal(sw_shard_column(s, "nothing"), -1);
    assert_int_equal(sw_shard_count(s), N);
    assert_true(sw_shard_totals_of(s)->frames > 10); /* or the test does not test frames */
    assert_int_equal(cJSON_GetObjectItem(sw_shard_report(s), "dropped")->valueint, 5);

    sw_shard_record r;
    for (int64_t i = 0; i < N; i++) {
        if (sw_shard_next(s, &r) != 1)
            fail_msg("record %lld: %s", (long long)i, sw_error());
        assert_true(is_record(&r, i, LONGEST));
    }
    assert_int_equal(sw_shard_next(s, &r), 0);
    uint64_t order[N];
    sw_rng rng = {1, 2, 3};
    sw_rng_permutation(&rng, N, order);
    for (int64_t i = 0; i < N; i++) {
        assert_int_equal(sw_shard_read(s, (int64_t)order[i], &r), 0);
        assert_true(is_record(&r, (int64_t)order[i], LONGEST));
    }
    assert_int_equal(sw_shard_read(s, N, &r), -1);
    assert_int_equal(sw_shard_read(s, -1, &r), -1);
    assert_int_equal(sw_shard_seek(s, 123), 0);
    assert_int_equal(sw_shard_next(s, &r), 1);
    assert_true(is_record(&r, 123, LONGEST));
    sw_shard_close(s);

    sw_buf b = {0};
    bool wrong = false;
    assert_int_equal(sw_read_file(path, &b), 0);
    assert_int_equal(read_bytes(b.at, b.n, true, &wrong, LONGEST), N);
    assert_false(wrong);
    sw_buf_free(&b);
}

static void empty_shard(void **state)
{
    (void)state;
    write_shard(path, 0, 10);
    sw_buf b = {0};
    bool wrong = false;
    assert_int_equal(sw_read_file(path, &b), 0);
    assert_int_equal(read_bytes(b.at, b.n, false, &wrong, 10), 0);
    assert_int_equal(read_bytes(b.at, b.n, true, &wrong, 10), 0);
    sw_buf_free(&b);
}

static void every_cut_is_an_error(void **state)
{
    (void)state;
    write_shard(path, 5, 20);
    sw_buf b = {0};
    bool any = false;
    assert_int_equal(sw_read_file(path, &b), 0);
    assert_int_equal(read_bytes(b.at, b.n, false, &any, 20), 5);
    assert_int_equal(read_bytes(b.at, b.n, true, &any, 20), 5);
    assert_false(any);
    for (size_t n = 0; n < b.n; n++)
        for (int through_pipe = 0; through_pipe < 2; through_pipe++) {
            bool wrong = false;
            if (read_bytes(b.at, n, through_pipe, &wrong, 20) >= 0 || wrong)
                fail_msg("cut at byte %zu of %zu was not seen (pipe: %d)", n, b.n, through_pipe);
        }
    sw_buf_free(&b);
}

static void every_flip_is_an_error(void **state)
{
    (void)state;
    write_shard(path, 5, 20);
    sw_buf b = {0};
    bool any = false;
    assert_int_equal(sw_read_file(path, &b), 0);
    assert_int_equal(read_bytes(b.at, b.n, false, &any, 20), 5);
    assert_int_equal(read_bytes(b.at, b.n, true, &any, 20), 5);
    assert_false(any);
    for (size_t i = 0; i < b.n; i++)
        for (int through_pipe = 0; through_pipe < 2; through_pipe++) {
            bool wrong = false;
            b.at[i] ^= (char)(1 << i % 8);
            if (read_bytes(b.at, b.n, through_pipe, &wrong, 20) >= 0 || wrong)
                fail_msg("a flipped bit in byte %zu was not seen (pipe: %d)", i, through_pipe);
            b.at[i] ^= (char)(1 << i % 8);
        }
    bool wrong = false;
    sw_buf_puts(&b, "x");
    assert_true(read_bytes(b.at, b.n, false, &wrong, 20) < 0);
    assert_true(read_bytes(b.at, b.n, true, &wrong, 20) < 0);
    sw_buf_free(&b);
}

/* Frames are whole and their checksums right, but they are not those that were written. */
static void frames_cannot_be_taken_out_or_swapped(void **state)
{
    (void)state;
    enum { N = 100, LONGEST = 5000 };
    write_shard(path, N, LONGEST);
    sw_buf b = {0}, other = {0};
    assert_int_equal(sw_read_file(path, &b), 0);
    size_t first = SHARD_HEADER_BYTES + shard_get32(b.at + 12) + SHARD_SUM_BYTES;
    size_t n = SHARD_FRAME_BYTES + shard_get32(b.at + first + 8) + SHARD_SUM_BYTES, second = first + n;
    assert_memory_equal(b.at + second, "FRAM", 4);
    size_t m = SHARD_FRAME_BYTES + shard_get32(b.at + second + 8) + SHARD_SUM_BYTES, third = second + m;
    assert_memory_equal(b.at + third, "FRAM", 4);
    for (int swap = 0; swap < 2; swap++)
        for (int through_pipe = 0; through_pipe < 2; through_pipe++) {
            bool wrong = false;
            sw_buf_clear(&other);
            sw_buf_add(&other, b.at, first);
            sw_buf_add(&other, b.at + second, m);
            if (swap)
                sw_buf_add(&other, b.at + first, n);
            sw_buf_add(&other, b.at + third, b.n - third);
            assert_true(read_bytes(other.at, other.n, through_pipe, &wrong, LONGEST) < 0);
        }
    sw_buf_free(&b);
    sw_buf_free(&other);
}

static void writer_refuses_bad_records(void **state)
{
    (void)state;
    sw_shard_info h = info();
    sw_shard_writer *w = sw_shard_create(path, &h);
    assert_non_null(w);
    made *m = SW_NEW(made);
    make(m, 3, 20);
    size_t n = m->values[0].n;
    assert_true(n > 2);
    m->ids[1] = VOCAB;
    assert_int_equal(sw_shard_append(w, m->values), -1);
    m->ids[1] = -1;
    assert_int_equal(sw_shard_append(w, m->values), -1);
    m->ids[1] = 1;
    m->weights[0] = 1;
    assert_int_equal(sw_shard_append(w, m->values), -1);
    m->weights[0] = 0;
    m->weights[n / 2] = 1; /* the first of the second document */
    assert_int_equal(sw_shard_append(w, m->values), -1);
    m->weights[n / 2] = 0;
    m->weights[1] = (float)NAN;
    assert_int_equal(sw_shard_append(w, m->values), -1);
    m->weights[1] = 1;
    m->segments[1]--;
    assert_int_equal(sw_shard_append(w, m->values), -1);
    m->segments[1]++;
    m->values[1].n--;
    assert_int_equal(sw_shard_append(w, m->values), -1);
    m->values[1].n++;
    m->values[0].n = m->values[1].n = m->values[2].n = 0;
    assert_int_equal(sw_shard_append(w, m->values), -1);
    assert_int_equal(sw_shard_written(w)->records, 0);
    free(m);
    unlink(path);
    sw_shard_abandon(w);
    assert_int_not_equal(access(path, F_OK), 0);
    sw_column twice[] = {columns[0], columns[1], columns[0]}, alone[] = {columns[0], columns[2]};
    h.columns = twice, h.n_columns = 3;
    assert_null(sw_shard_create(path, &h));
    h.columns = alone, h.n_columns = 2;
    assert_null(sw_shard_create(path, &h));
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(dir) && (path = sw_strfmt("%s/shard", dir)) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    free(path);
    return sw_remove_tree(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trip),
                                       cmocka_unit_test(empty_shard),
                                       cmocka_unit_test(every_cut_is_an_error),
                                       cmocka_unit_test(every_flip_is_an_error),
                                       cmocka_unit_test(frames_cannot_be_taken_out_or_swapped),
                                       cmocka_unit_test(writer_refuses_bad_records)};
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, setup, teardown);
}
