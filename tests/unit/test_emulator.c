/* What the emulator must show: kernels with a mistake give wrong numbers, or end the program. */
#include "tests/emulator/emulator_faulty.h"

#include "base/memory.h"
#include "kernels/cuda/cuda_api.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

sw_device *sw_emulator_open(const sw_cuda_host *host, const char *prefix, int index);

enum { N = 256 };

static void fill(float *v)
{
    for (int i = 0; i < N; i++)
        v[i] = (float)(i + 1);
}

/* How many of the values differ from the mirror image of runs of `run`. */
static int wrong(sw_faulty which, int run)
{
    float in[N], out[N];
    fill(in);
    assert_int_equal(sw_faulty_run(which, out, in, N), 0);
    int n = 0;
    for (int i = 0; i < N; i++)
        n += !(out[i] == in[i / run * run + run - 1 - i % run]);
    return n;
}

static void barriers_work(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(wrong(SW_FAULTY_BARRIER_THERE, N), 0);
        assert_int_equal(wrong(SW_FAULTY_WARP_BARRIER_THERE, 32), 0);
        assert_int_equal(wrong(SW_FAULTY_COPIES_AWAITED, N), 0);
        assert_int_equal(wrong(SW_FAULTY_GROUPS_AWAITED, N), 0);
        assert_int_equal(wrong(SW_FAULTY_EARLY_AWAITED, N), 0);
        assert_int_equal(wrong(SW_FAULTY_PRODUCT_AWAITED, N), 0);
        assert_int_equal(wrong(SW_FAULTY_VOTE_OF_ALL, N), 0);
        assert_int_equal(wrong(SW_FAULTY_EARLY_COPIES_LEFT, N), 0);
    }
}

/* Whatever order the launch draws, a warp that runs ahead reads what others have not written. */
static void missing_barrier_shows(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++)
        assert_true(wrong(SW_FAULTY_BARRIER_MISSING, N) >= N / 2 - 32);
}

static void missing_warp_barrier_shows(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++)
        assert_true(wrong(SW_FAULTY_WARP_BARRIER_MISSING, 32) >= N / 2);
}

/* What is copied or multiplied is not there before its thread has waited for it. */
static void late_wait_shows(void **state)
{
    (void)state;
    assert_int_equal(wrong(SW_FAULTY_COPIES_LATE, N), N);
    assert_int_equal(wrong(SW_FAULTY_PRODUCT_LATE, N), N);
    assert_int_equal(wrong(SW_FAULTY_GROUP_LATE, N), N / 2);
}

/* Copies beside kernels, with the events that they need, without the kernel's wait for the copy, and without the copy's for the
 * kernel, where neither stream is late, the kernel's is, or the copies' is. */
static void missing_event_shows(void **state)
{
    (void)state;
    static const char *const late[] = {"", "0", "1"};
    for (int k = 0; k < 3; k++) {
        setenv("SWIFT_EMULATOR_LATE", late[k], 1);
        for (int missing = 0; missing < 3; missing++) {
            float in[N], out[N];
            fill(in);
            assert_int_equal(sw_faulty_streams(missing != 1, missing != 2, out, in, N), 0);
            int n = 0;
            for (int i = 0; i < N; i++)
                n += out[i] != in[N - 1 - i];
            assert_int_equal(n, (k == 2 && missing == 1) || (k == 1 && missing == 2) ? N : 0);
        }
    }
    unsetenv("SWIFT_EMULATOR_LATE");
}

/* What the program says when it dies of it; fails when it does not die. */
static void assert_dies(sw_faulty which, const char *says)
{
    int pipes[2], status;
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    if (!child) {
        float in[N], out[N];
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        signal(SIGABRT, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
        dup2(pipes[1], 2);
        fill(in);
        sw_faulty_run(which, out, in, N);
        _exit(0);
    }
    close(pipes[1]);
    char text[4096] = "";
    size_t n = 0;
    for (ssize_t got; n < sizeof text - 1 && (got = read(pipes[0], text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)got;
    close(pipes[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        fail_msg("case %d: nothing was noticed", (int)which);
    if (!strstr(text, says))
        fail_msg("case %d: '%s' says nothing of '%s'", (int)which, text, says);
}

static void misuse_ends_the_program(void **state)
{
    (void)state;
    assert_dies(SW_FAULTY_DIVERGENT, "barrier");
    assert_dies(SW_FAULTY_TWO_BARRIERS, "another barrier");
    assert_dies(SW_FAULTY_ABSENT_LANE, "lane");
    assert_dies(SW_FAULTY_COPIES_LEFT, "copies of its own");
    assert_dies(SW_FAULTY_EARLY, "waited for nothing");
    assert_dies(SW_FAULTY_PRODUCT_LEFT, "products of its own");
    assert_dies(SW_FAULTY_PRODUCT_UNSETTLED, "no fence has settled");
    assert_dies(SW_FAULTY_PRODUCT_UNFENCED, "copied and not fenced");
    assert_dies(SW_FAULTY_PRODUCT_APART, "another warp of its warpgroup");
    assert_dies(SW_FAULTY_VOTE_OF_SOME, "its warpgroup");
    assert_dies(SW_FAULTY_EARLY_COPIES_ALONE, "in no graph");
    assert_dies(SW_FAULTY_EARLY_COPIES_WRITTEN, "what a kernel before it writes");
#ifdef __SANITIZE_ADDRESS__
    assert_dies(SW_FAULTY_PAST_SHARED, "heap-buffer-overflow");
    assert_dies(SW_FAULTY_READS_PAST_END, "heap-buffer-overflow");
    assert_dies(SW_FAULTY_WRITES_PAST_END, "heap-buffer-overflow");
#else
    assert_int_equal(wrong(SW_FAULTY_READS_PAST_END, N), N);
    assert_dies(SW_FAULTY_WRITES_PAST_END, "outside of 1024 bytes of device memory");
    assert_dies(SW_FAULTY_HOST, "");
#endif
}

static void impossible_launch_fails(void **state)
{
    (void)state;
    float in[N], out[N];
    fill(in);
    assert_int_not_equal(sw_faulty_run(SW_FAULTY_LAUNCH, out, in, N), 0);
}

/* The order of blocks, warps and lanes is drawn anew each launch: results must not show it. */
static void orders_do_not_show(void **state)
{
    (void)state;
    sw_device *d = sw_device_open("emulator");
    assert_non_null(d);
    int64_t shape[2] = {300, 1000}, n = shape[0] * shape[1];
    float *host = sw_malloc((size_t)n * sizeof *host), *first = sw_calloc((size_t)shape[1], sizeof *first), *again = sw_malloc((size_t)shape[1] * sizeof *again);
    sw_rng rng = {.seed = 3};
    for (int64_t i = 0; i < n; i++)
        host[i] = (float)sw_rng_normal(&rng, (uint64_t)i);
    sw_tensor x = sw_tensor_of(d->alloc(d, (size_t)n * 4), SW_F32, 2, shape), sum = sw_tensor_of(d->alloc(d, (size_t)shape[1] * 4), SW_F32, 1, shape + 1);
    assert_int_equal(d->put(d, x.data, host, (size_t)n * 4), 0);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(d->k->fill(d->stream, &sum, 0) || d->k->sum_rows(d->stream, &sum, &x, NULL), 0);
        assert_int_equal(d->get(d, again, sum.data, (size_t)shape[1] * 4), 0);
        if (!i)
            memcpy(first, again, (size_t)shape[1] * 4);
        assert_memory_equal(first, again, (size_t)shape[1] * 4);
    }
    d->free(d, x.data);
    d->free(d, sum.data);
    d->close(d);
    free(host);
    free(first);
    free(again);
}

/* More than the ring of pinned memory holds, both ways, in pieces of odd sizes. */
static void copies_are_whole(void **state)
{
    (void)state;
    sw_device *d = sw_device_open("emulator:1");
    assert_non_null(d);
    assert_string_equal(d->name, "emulator:1");
    size_t n = (size_t)70 << 20, done = 0;
    unsigned char *out = sw_malloc(n), *back = sw_calloc(n, 1), *at = d->alloc(d, n);
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)(i * 2654435761u >> 13);
    for (size_t part = 1; done < n; part = part * 3 + 7) {
        part = SW_MIN(part, n - done);
        assert_int_equal(d->put(d, at + done, out + done, part), 0);
        done += part;
    }
    assert_int_equal(d->get(d, back, at, n), 0);
    assert_memory_equal(out, back, n);
    d->free(d, at);
    d->close(d);
    free(out);
    free(back);
}

static void devices_are_named(void **state)
{
    (void)state;
    static const char *const bad[][2] = {{"gpu", "there is no device"}, {"cudas", "there is no device"}, {"cuda:", "number of a GPU"}, {"cuda:-1", "number of a GPU"},
                                         {"cuda:1x", "number of a GPU"}, {"emulator:2", "2 GPUs"}};
    for (size_t i = 0; i < SW_COUNT(bad); i++) {
        assert_null(sw_device_open(bad[i][0]));
        assert_non_null(strstr(sw_error(), bad[i][1]));
    }
    setenv("SWIFT_CUDA_LIB", "/nowhere", 1);
    assert_null(sw_device_open("cuda"));
    assert_non_null(strstr(sw_error(), "SWIFT_CUDA_LIB"));
    unsetenv("SWIFT_CUDA_LIB");
}

static size_t used(sw_device *d)
{
    size_t left, total;
    assert_int_equal(d->memory(d, &left, &total), 0);
    return total - left;
}

static float at(sw_device *d, const float *p)
{
    float v;
    assert_int_equal(d->get(d, &v, p, sizeof v), 0);
    return v;
}

/* Reserved space takes memory where it is touched, reads as zeros, and gives it back piece by piece. */
static void reserved_memory_comes_and_goes(void **state)
{
    (void)state;
    sw_device *d = sw_device_open("emulator");
    assert_non_null(d);
    const size_t piece = 64 << 10, n = 100 * piece;
    const int64_t values = (int64_t)(piece / sizeof(float));
    size_t before = used(d);
    float *p = d->reserve(d, n), *q = d->reserve(d, piece + 4);
    assert_non_null(p);
    assert_non_null(q);
    assert_int_equal(used(d), before);
    sw_tensor t = sw_tensor_of(p + 10 * values - 8, SW_F32, 1, (int64_t[]){3 * values + 16}); /* a bit of a piece on both sides */
    assert_int_equal(d->k->fill(d->stream, &t, 2), 0);
    assert_int_equal(used(d), before + 5 * piece);
    assert_true(at(d, p + 10 * values - 9) == 0 && at(d, p + 10 * values - 8) == 2 && at(d, p + 13 * values + 7) == 2 && at(d, p + 13 * values + 8) == 0);
    assert_true(at(d, p + 50 * values) == 0); /* reading makes it be there too */
    d->release(d, p + 10 * values - 4, 3 * piece + 8 * sizeof(float));
    assert_true(at(d, p + 10 * values - 5) == 2 && at(d, p + 10 * values - 4) == 0 && at(d, p + 13 * values + 3) == 0 && at(d, p + 13 * values + 4) == 2);
    size_t most = used(d);
    sw_tensor u = sw_tensor_of(q, SW_F32, 1, (int64_t[]){values + 1});
    assert_int_equal(d->k->fill(d->stream, &u, 3), 0); /* in what was given back */
    assert_int_equal(used(d), most);
    assert_true(at(d, q + values) == 3 && at(d, p + 11 * values) == 0);
    assert_int_equal(d->commit(d, p + 70 * values, 2 * piece), 0);
    assert_int_equal(d->commit(d, NULL, 5), 0);
    d->unreserve(d, p, n);
    d->unreserve(d, q, piece + 4);
    assert_int_equal(used(d), before);
    assert_null(d->reserve(d, (size_t)1 << 60));
    d->close(d);
}

/* Too little memory is one message: what was asked for, what there is, what to change. */
static void memory_runs_out(void **state)
{
    (void)state;
    setenv("SWIFT_EMULATOR_MEMORY", "200000000", 1);
    sw_device *d = sw_device_open("emulator");
    assert_non_null(d);
    void *p = d->alloc(d, 100000000);
    assert_non_null(p);
    assert_null(d->alloc(d, 150000000));
    assert_non_null(strstr(sw_error(), "0.15 GB more were asked for"));
    assert_non_null(strstr(sw_error(), "of 0.20 GB are left"));
    assert_non_null(strstr(sw_error(), "quantised"));
    float *r = d->reserve(d, 150000000);
    assert_non_null(r);
    assert_int_not_equal(d->commit(d, r, 150000000), 0);
    assert_non_null(strstr(sw_error(), "out of memory"));
    d->release(d, r, 150000000);
    d->free(d, p);
    p = d->alloc(d, 150000000); /* in what the reserved space had */
    assert_non_null(p);
    d->free(d, p);
    d->unreserve(d, r, 150000000);
    d->close(d);
    unsetenv("SWIFT_EMULATOR_MEMORY");
}

static void unusable_devices_say_why(void **state)
{
    (void)state;
    static const struct {
        const char *setting, *value, *says[3];
    } cases[] = {
        {"SWIFT_EMULATOR_GPUS", "0", {"there is a driver but no GPU", "--device cpu", "emulator:0"}},
        {"SWIFT_EMULATOR_DRIVER", "0", {"no NVIDIA driver", "--device cpu", "emulator:0"}},
        {"SWIFT_EMULATOR_DRIVER", "12040", {"serves CUDA 12.4", "needs 13.0", "update the driver"}},
        {"SWIFT_EMULATOR_CAPABILITY", "61", {"compute capability 6.1", "needs 7.5", "CUDA_ARCHS=61"}},
        {"SWIFT_EMULATOR_MEMORY", "1000000", {"out of memory", "0.00 GB are left", "emulator:0"}},
    };
    for (size_t i = 0; i < SW_COUNT(cases); i++) {
        setenv(cases[i].setting, cases[i].value, 1);
        assert_null(sw_device_open("emulator"));
        for (int k = 0; k < 3; k++)
            if (!strstr(sw_error(), cases[i].says[k]))
                fail_msg("%s=%s: '%s' says nothing of '%s'", cases[i].setting, cases[i].value, sw_error(), cases[i].says[k]);
        assert_null(strchr(sw_error(), '\n'));
        unsetenv(cases[i].setting);
    }
}

/* A shared object beside a program that it was not built with. */
static void another_build_is_refused(void **state)
{
    (void)state;
    sw_cuda_host host = {sw_cuda_interface, SW_CUDA_SIZES, sw_fail, NULL}; /* nothing is copied */
    sw_device *d = sw_emulator_open(&host, "emulator", 0);
    assert_non_null(d);
    d->close(d);
    host.sizes++;
    assert_null(sw_emulator_open(&host, "emulator", 0));
    assert_non_null(strstr(sw_error(), "was built from other sources than this program; build both together"));
    host.sizes--;
    host.interface = "fill(sw_tensor *y);";
    assert_null(sw_emulator_open(&host, "emulator", 0));
    assert_non_null(strstr(sw_error(), "was built from other sources"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(barriers_work),         cmocka_unit_test(missing_barrier_shows),   cmocka_unit_test(missing_warp_barrier_shows),
        cmocka_unit_test(late_wait_shows),       cmocka_unit_test(missing_event_shows),
        cmocka_unit_test(misuse_ends_the_program), cmocka_unit_test(impossible_launch_fails), cmocka_unit_test(orders_do_not_show),
        cmocka_unit_test(copies_are_whole),      cmocka_unit_test(devices_are_named),
        cmocka_unit_test(reserved_memory_comes_and_goes), cmocka_unit_test(memory_runs_out), cmocka_unit_test(unusable_devices_say_why),
        cmocka_unit_test(another_build_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
