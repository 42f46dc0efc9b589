/* The MPI engine: bytes between host memories. A shared object of its own, linked with MPI and of ours with the
 * conversions of kernels/tensor.c only.
 *
 * Sums are not left to MPI's reductions, whose order is the implementation's business: each rank receives the others'
 * values of its own part and adds them in the order of the ranks, in double. A reduce-scatter so made moves no byte
 * more than the best ring, in one step instead of ranks - 1. All calls come from the communicator's one thread. */
#include "dist/comm.h"

#include <mpi.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PIECE = 1 << 20, LONGEST = 1 << 28 }; /* bytes of a part summed at a time; of one message */

typedef struct mpi {
    MPI_Comm world;
    MPI_Request *requests; /* [2 * ranks] */
    char *space;           /* [ranks][PIECE] */
} mpi;

static int check(sw_comm *c, int rc, const char *what)
{
    if (rc == MPI_SUCCESS)
        return 0;
    char text[MPI_MAX_ERROR_STRING];
    int n = 0;
    MPI_Error_string(rc, text, &n);
    return c->fail("MPI: %s: %.*s; another rank may have ended", what, n, text);
}

/* Until the requests are done. Looks often at first, then seldom: the cores are for those who compute. */
static int finish(sw_comm *c, int n, const char *what)
{
    mpi *m = c->state;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    double begun = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    for (;;) {
        int done = 0;
        if (check(c, MPI_Testall(n, m->requests, &done, MPI_STATUSES_IGNORE), what))
            return -1;
        if (done)
            return 0;
        clock_gettime(CLOCK_MONOTONIC, &t);
        if ((double)t.tv_sec + 1e-9 * (double)t.tv_nsec - begun < 200e-6)
            sched_yield();
        else
            nanosleep(&(struct timespec){0, 20000}, NULL);
    }
}

static int broadcast(sw_comm *c, void *data, size_t bytes, int root)
{
    mpi *m = c->state;
    for (size_t at = 0; at < bytes; at += LONGEST) {
        size_t n = bytes - at < LONGEST ? bytes - at : LONGEST;
        if (check(c, MPI_Ibcast((char *)data + at, (int)n, MPI_BYTE, root, m->world, m->requests), "broadcast") || finish(c, 1, "broadcast"))
            return -1;
    }
    return 0;
}

/* Bytes to and from each rank, by its offset and size; a size of 0 sends nothing. */
static int exchange(sw_comm *c, const char *const *out, const size_t *out_bytes, char *const *in, const size_t *in_bytes, const char *what)
{
    mpi *m = c->state;
    for (size_t at = 0, more = 1; more; at += LONGEST) {
        int n = 0;
        more = 0;
        for (int step = 1; step < c->ranks; step++) { /* each begins with another peer */
            int from = (c->rank + c->ranks - step) % c->ranks, to = (c->rank + step) % c->ranks;
            if (in_bytes[from] > at) {
                size_t k = in_bytes[from] - at < LONGEST ? in_bytes[from] - at : LONGEST;
                more |= in_bytes[from] > at + LONGEST;
                if (check(c, MPI_Irecv(in[from] + at, (int)k, MPI_BYTE, from, 0, m->world, &m->requests[n++]), what))
                    return -1;
            }
            if (out_bytes[to] > at) {
                size_t k = out_bytes[to] - at < LONGEST ? out_bytes[to] - at : LONGEST;
                more |= out_bytes[to] > at + LONGEST;
                if (check(c, MPI_Isend(out[to] + at, (int)k, MPI_BYTE, to, 0, m->world, &m->requests[n++]), what))
                    return -1;
            }
        }
        if (finish(c, n, what))
            return -1;
    }
    return 0;
}

static double low_get(const uint16_t *p, size_t i, sw_dtype type) { return type == SW_BF16 ? sw_bf16_to_f32(p[i]) : sw_f16_to_f32(p[i]); }
static void low_set(uint16_t *p, size_t i, sw_dtype type, double x) { p[i] = type == SW_BF16 ? sw_f32_to_bf16((float)x) : sw_f32_to_f16((float)x); }

/* NaN wins a maximum: it must not get lost. */
#define BIGGER(a, b) ((b) > (a) || (b) != (b) ? (b) : (a))
#define IN_ORDER(T, A)                                                                                              \
    for (size_t i = 0; i < n; i++) {                                                                                \
        A sum = ((const T *)from[0])[i];                                                                            \
        for (int r = 1; r < ranks; r++) {                                                                           \
            A v = ((const T *)from[r])[i];                                                                          \
            sum = op == SW_REDUCE_SUM ? sum + v : BIGGER(sum, v);                                                   \
        }                                                                                                           \
        ((T *)to)[i] = (T)sum;                                                                                      \
    }

/* to[i] = the values of all ranks, in their order. `to` may be one of them. */
static void reduce(void *to, const char *const *from, int ranks, size_t n, sw_dtype type, sw_reduce op)
{
    if (type == SW_F32) {
        IN_ORDER(float, double)
    } else if (type == SW_F64) {
        IN_ORDER(double, double)
    } else if (type == SW_I64) {
        IN_ORDER(int64_t, int64_t)
    } else {
        for (size_t i = 0; i < n; i++) {
            double sum = low_get((const uint16_t *)from[0], i, type);
            for (int r = 1; r < ranks; r++) {
                double v = low_get((const uint16_t *)from[r], i, type);
                sum = op == SW_REDUCE_SUM ? sum + v : BIGGER(sum, v);
            }
            low_set(to, i, type, sum);
        }
    }
}

static size_t width(sw_dtype type) { return type == SW_F64 || type == SW_I64 ? 8 : type == SW_F32 ? 4 : 2; }

/* Part r of data is the values [start[r], start[r + 1]); this rank's becomes the sum. */
static int reduce_parts(sw_comm *c, char *data, const int64_t *start, sw_dtype type, sw_reduce op, const char *what)
{
    mpi *m = c->state;
    size_t w = width(type), most = 0;
    if (type != SW_F32 && type != SW_F64 && type != SW_I64 && type != SW_BF16 && type != SW_F16)
        return c->fail("MPI: %s: values of type %d cannot be added", what, (int)type);
    const char *out[c->ranks], *all[c->ranks];
    char *in[c->ranks];
    size_t out_bytes[c->ranks], in_bytes[c->ranks];
    for (int r = 0; r < c->ranks; r++)
        most = (size_t)(start[r + 1] - start[r]) * w > most ? (size_t)(start[r + 1] - start[r]) * w : most;
    size_t mine = (size_t)(start[c->rank + 1] - start[c->rank]) * w;
    for (size_t at = 0; at < most; at += PIECE) {
        size_t got = at >= mine ? 0 : mine - at < PIECE ? mine - at : PIECE;
        char *own = data + (size_t)start[c->rank] * w + at;
        for (int r = 0; r < c->ranks; r++) {
            size_t part = (size_t)(start[r + 1] - start[r]) * w;
            out[r] = data + (size_t)start[r] * w + at;
            out_bytes[r] = at >= part ? 0 : part - at < PIECE ? part - at : PIECE;
            in[r] = m->space + (size_t)r * PIECE;
            in_bytes[r] = got;
            all[r] = r == c->rank ? own : in[r];
        }
        if (exchange(c, out, out_bytes, in, in_bytes, what))
            return -1;
        reduce(own, all, c->ranks, got / w, type, op);
    }
    return 0;
}

static int gather_parts(sw_comm *c, char *data, const size_t *start, const char *what)
{
    const char *out[c->ranks];
    char *in[c->ranks];
    size_t out_bytes[c->ranks], in_bytes[c->ranks];
    for (int r = 0; r < c->ranks; r++) {
        out[r] = data + start[c->rank];
        out_bytes[r] = start[c->rank + 1] - start[c->rank];
        in[r] = data + start[r];
        in_bytes[r] = start[r + 1] - start[r];
    }
    return exchange(c, out, out_bytes, in, in_bytes, what);
}

static int all_reduce(sw_comm *c, void *data, int64_t n, sw_dtype type, sw_reduce op)
{
    int64_t start[c->ranks + 1];
    size_t bytes[c->ranks + 1];
    for (int r = 0; r <= c->ranks; r++) {
        start[r] = n / c->ranks * r + n % c->ranks * r / c->ranks;
        bytes[r] = (size_t)start[r] * width(type);
    }
    return reduce_parts(c, data, start, type, op, "all-reduce") || gather_parts(c, data, bytes, "all-reduce") ? -1 : 0;
}

static int reduce_scatter(sw_comm *c, void *data, int64_t n, sw_dtype type, sw_reduce op)
{
    int64_t start[c->ranks + 1];
    for (int r = 0; r <= c->ranks; r++)
        start[r] = n * r;
    return reduce_parts(c, data, start, type, op, "reduce-scatter");
}

static int all_gather(sw_comm *c, void *data, size_t bytes)
{
    size_t start[c->ranks + 1];
    for (int r = 0; r <= c->ranks; r++)
        start[r] = bytes * (size_t)r;
    return gather_parts(c, data, start, "all-gather");
}

static int all_to_all(sw_comm *c, void *out, const size_t *out_bytes, const void *in, const size_t *in_bytes)
{
    const char *send[c->ranks];
    char *receive[c->ranks];
    size_t to = 0, from = 0;
    for (int r = 0; r < c->ranks; r++) {
        send[r] = (const char *)in + from;
        receive[r] = (char *)out + to;
        from += in_bytes[r];
        to += out_bytes[r];
    }
    if (in_bytes[c->rank] != out_bytes[c->rank])
        return c->fail("MPI: all-to-all: rank %d sends %zu bytes to itself and expects %zu", c->rank, in_bytes[c->rank], out_bytes[c->rank]);
    if (in_bytes[c->rank])
        memcpy(receive[c->rank], send[c->rank], in_bytes[c->rank]);
    return exchange(c, send, in_bytes, receive, out_bytes, "all-to-all");
}

static int send_to(sw_comm *c, const void *data, size_t bytes, int to)
{
    mpi *m = c->state;
    for (size_t at = 0; at < bytes; at += LONGEST) {
        size_t n = bytes - at < LONGEST ? bytes - at : LONGEST;
        if (check(c, MPI_Isend((const char *)data + at, (int)n, MPI_BYTE, to, 1, m->world, m->requests), "send") || finish(c, 1, "send"))
            return -1;
    }
    return 0;
}

static int receive_from(sw_comm *c, void *data, size_t bytes, int from)
{
    mpi *m = c->state;
    for (size_t at = 0; at < bytes; at += LONGEST) {
        size_t n = bytes - at < LONGEST ? bytes - at : LONGEST;
        if (check(c, MPI_Irecv((char *)data + at, (int)n, MPI_BYTE, from, 1, m->world, m->requests), "receive") || finish(c, 1, "receive"))
            return -1;
    }
    return 0;
}

static int barrier(sw_comm *c)
{
    mpi *m = c->state;
    return check(c, MPI_Ibarrier(m->world, m->requests), "barrier") || finish(c, 1, "barrier") ? -1 : 0;
}

static void end_all(sw_comm *c, int status)
{
    (void)c;
    MPI_Abort(MPI_COMM_WORLD, status);
}

static void close_mpi(sw_comm *c)
{
    mpi *m = c->state;
    MPI_Comm_free(&m->world);
    MPI_Finalize();
    free(m->requests);
    free(m->space);
    free(m);
}

static const sw_comm_ops ops = {"MPI", broadcast, all_reduce, reduce_scatter, all_gather, all_to_all, send_to, receive_from,
                                barrier, NULL, end_all, close_mpi};

int swift_comm_engine(sw_comm *c, sw_comm *host, int device);
int swift_comm_engine(sw_comm *c, sw_comm *host, int device)
{
    (void)host, (void)device;
    int have = MPI_THREAD_SINGLE, rc = MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &have);
    if (rc != MPI_SUCCESS)
        return check(c, rc, "start");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if (have < MPI_THREAD_SERIALIZED) {
        MPI_Finalize();
        return c->fail("this MPI was built without support of threads (MPI_THREAD_SERIALIZED), which is needed");
    }
    mpi *m = calloc(1, sizeof *m);
    MPI_Comm local;
    if (!m || check(c, MPI_Comm_dup(MPI_COMM_WORLD, &m->world), "start") ||
        check(c, MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local), "start")) {
        free(m);
        return m ? -1 : c->fail("out of memory");
    }
    MPI_Comm_set_errhandler(m->world, MPI_ERRORS_RETURN);
    MPI_Comm_rank(m->world, &c->rank);
    MPI_Comm_size(m->world, &c->ranks);
    MPI_Comm_rank(local, &c->local_rank);
    MPI_Comm_size(local, &c->local_ranks);
    MPI_Comm_free(&local);
    m->requests = malloc((2 * (size_t)c->ranks + 1) * sizeof(MPI_Request));
    m->space = malloc((size_t)c->ranks * PIECE);
    if (!m->requests || !m->space)
        return c->fail("out of memory: %zu bytes for communication among %d ranks", (size_t)c->ranks * PIECE, c->ranks);
    c->state = m;
    c->ops = &ops;
    return 0;
}
