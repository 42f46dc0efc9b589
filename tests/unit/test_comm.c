/* The communicator: what every operation leaves on every rank, for one process and, through mpirun, for three and four. */
#include "dist/comm.h"

#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <setjmp.h>
#include <cmocka.h>

static int bad;
#define EXPECT(x)                                                                                                   \
    do {                                                                                                            \
        if (!(x)) {                                                                                                 \
            fprintf(stderr, "rank %d of %d, line %d: %s: %s\n", c->rank, c->ranks, __LINE__, #x, sw_error());       \
            bad++;                                                                                                  \
        }                                                                                                           \
    } while (0)

/* A value that any rank can compute for any other. */
static float value(int rank, int64_t i) { return (float)(sin((double)i * 0.7 + rank * 1.3) * exp((double)((i * 7 + rank) % 40) - 20)); }

/* The sum as it must come out: in double, in the order of the ranks. */
static float sum_of(int ranks, int64_t i)
{
    double sum = value(0, i);
    for (int r = 1; r < ranks; r++)
        sum += value(r, i);
    return (float)sum;
}

static void check_reductions(sw_comm *c)
{
    static const int64_t sizes[] = {0, 1, 2, 7, 1000, 300001, 1100003};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        int64_t n = sizes[k], wrong = 0;
        float *x = malloc(((size_t)n * (size_t)c->ranks + 1) * sizeof *x);
        for (int64_t i = 0; i < n; i++)
            x[i] = value(c->rank, i);
        EXPECT(!sw_comm_all_reduce(c, x, n, SW_F32, SW_REDUCE_SUM));
        for (int64_t i = 0; i < n; i++)
            wrong += x[i] != sum_of(c->ranks, i);
        EXPECT(!wrong);
        for (int64_t i = 0; i < n * c->ranks; i++)
            x[i] = value(c->rank, i);
        EXPECT(!sw_comm_reduce_scatter(c, x, n, SW_F32, SW_REDUCE_SUM));
        for (int64_t i = 0; i < n * c->ranks; i++)
            wrong += x[i] != (i / (n ? n : 1) == c->rank ? sum_of(c->ranks, i) : value(c->rank, i));
        EXPECT(!wrong);
        for (int64_t i = 0; i < n * c->ranks; i++)
            x[i] = i / (n ? n : 1) == c->rank ? value(c->rank, i) : -1;
        EXPECT(!sw_comm_all_gather(c, x, (size_t)n * sizeof *x));
        for (int64_t i = 0; i < n * c->ranks; i++)
            wrong += x[i] != value((int)(i / (n ? n : 1)), i);
        EXPECT(!wrong);
        free(x);
    }
    double d[2] = {c->rank + 0.5, c->rank == c->ranks - 1 ? NAN : 0};
    EXPECT(!sw_comm_all_reduce(c, d, 2, SW_F64, SW_REDUCE_MAX) && d[0] == c->ranks - 0.5 && isnan(d[1]));
    int64_t whole = ((int64_t)1 << 60) + c->rank;
    EXPECT(!sw_comm_all_reduce(c, &whole, 1, SW_I64, SW_REDUCE_MAX) && whole == ((int64_t)1 << 60) + c->ranks - 1);
    uint16_t low[2] = {sw_f32_to_bf16(1.5f), sw_f32_to_f16(0.25f)};
    EXPECT(!sw_comm_all_reduce(c, low, 1, SW_BF16, SW_REDUCE_SUM) && sw_bf16_to_f32(low[0]) == 1.5f * (float)c->ranks);
    EXPECT(!sw_comm_all_reduce(c, low + 1, 1, SW_F16, SW_REDUCE_SUM) && sw_f16_to_f32(low[1]) == 0.25f * (float)c->ranks);
}

static void check_moves(sw_comm *c)
{
    for (int root = 0; root < c->ranks; root++) {
        char text[100] = "";
        if (c->rank == root)
            snprintf(text, sizeof text, "from %d", root);
        EXPECT(!sw_comm_broadcast(c, text, sizeof text, root) && atoi(text + 5) == root);
    }
    /* Rank r sends 1000 r + p bytes of value r + 16 p to rank p. */
    size_t out[16], in[16], to = 0, from = 0;
    for (int p = 0; p < c->ranks; p++) {
        in[p] = (size_t)(1000 * c->rank + p);
        out[p] = (size_t)(1000 * p + c->rank);
        to += in[p];
        from += out[p];
    }
    unsigned char *send = malloc(to + 1), *got = malloc(from + 1), *s = send, *g = got;
    for (int p = 0; p < c->ranks; s += in[p++])
        memset(s, c->rank + 16 * p, in[p]);
    EXPECT(!sw_comm_all_to_all(c, got, out, send, in));
    int wrong = 0;
    for (int p = 0; p < c->ranks; p++)
        for (size_t i = 0; i < out[p]; i++)
            wrong += *g++ != p + 16 * c->rank;
    EXPECT(!wrong);
    free(send);
    free(got);
    int all[16];
    all[c->rank] = 100 + c->rank;
    EXPECT(!sw_comm_gather(c, all, sizeof *all, c->ranks - 1));
    for (int p = 0; c->rank == c->ranks - 1 && p < c->ranks; p++)
        EXPECT(all[p] == 100 + p);
    EXPECT(!sw_comm_barrier(c));
}

static int order[3], told;
static int note(sw_comm *c, void *arg) { return order[told++] = *(int *)arg, c->ops->barrier(c); }
static int refuse(sw_comm *c, void *arg) { return (void)c, (void)arg, sw_fail("refused"); }

/* Jobs run in the order in which they were asked for, and none after one that failed. */
static void check_queue(sw_comm *c)
{
    int which[3] = {3, 1, 2};
    uint64_t ticket = 0;
    for (int i = 0; i < 3; i++)
        ticket = sw_comm_start(c, note, &which[i]);
    EXPECT(!sw_comm_wait(c, ticket) && told == 3 && order[0] == 3 && order[1] == 1 && order[2] == 2);
    EXPECT(!sw_comm_agree(c, 0) && !c->agreed);
    int rc = c->rank == c->ranks / 2 ? sw_fail("rank %d has no more", c->rank) : 0;
    EXPECT(sw_comm_agree(c, rc) == -1 && strstr(sw_error(), "has no more") && c->agreed == (c->ranks > 1));
    ticket = sw_comm_start(c, refuse, NULL);
    EXPECT(sw_comm_wait(c, ticket) && strstr(sw_error(), "refused"));
    if (c->ranks > 1)
        EXPECT(sw_comm_barrier(c) && strstr(sw_error(), "refused"));
}

static int body(void)
{
    sw_comm *c = sw_comm_open();
    if (!c) {
        fprintf(stderr, "%s\n", sw_error());
        return 1;
    }
    check_reductions(c);
    check_moves(c);
    check_queue(c);
    sw_comm_close(c);
    return bad != 0;
}

static void test_one(void **state)
{
    (void)state;
    assert_int_equal(body(), 0);
}

static void test_ranks(void **state)
{
    (void)state;
    char self[PATH_MAX], command[PATH_MAX + 300];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    for (int ranks = 3; ranks <= 4; ranks++) {
        snprintf(command, sizeof command,
                 "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 "
                 "mpirun --oversubscribe --bind-to none -n %d '%s' 1>&2", ranks, self);
        assert_int_equal(system(command), 0);
    }
}

int main(void)
{
    if (sw_comm_launched_rank() >= 0)
        return body();
    return cmocka_run_group_tests(((const struct CMUnitTest[]){cmocka_unit_test(test_one), cmocka_unit_test(test_ranks)}), NULL, NULL);
}
