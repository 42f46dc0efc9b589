#include "dist/comm.h"

#include "base/memory.h"
#include "base/strbuf.h"
#include "dist/comm_queue.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- one process */

static int one_bytes(sw_comm *c, void *data, size_t bytes, int root) { return (void)c, (void)data, (void)bytes, (void)root, 0; }
static int one_reduce(sw_comm *c, void *data, int64_t n, sw_dtype type, sw_reduce op)
{
    return (void)c, (void)data, (void)n, (void)type, (void)op, 0;
}
static int one_gather(sw_comm *c, void *data, size_t bytes) { return (void)c, (void)data, (void)bytes, 0; }
static int one_to_all(sw_comm *c, void *out, const size_t *out_bytes, const void *in, const size_t *in_bytes)
{
    if (*out_bytes != *in_bytes)
        return c->fail("one process sends %zu bytes to itself and expects %zu", *in_bytes, *out_bytes);
    if (*in_bytes)
        memcpy(out, in, *in_bytes);
    return 0;
}
static int one_send(sw_comm *c, const void *data, size_t bytes, int to)
{
    return (void)data, c->fail("one process has no rank %d to send %zu bytes to", to, bytes);
}
static int one_receive(sw_comm *c, void *data, size_t bytes, int from)
{
    return (void)data, c->fail("one process has no rank %d to receive %zu bytes from", from, bytes);
}
static int one_barrier(sw_comm *c) { return (void)c, 0; }
static void one_abort(sw_comm *c, int status) { (void)c, _exit(status); }
static void one_close(sw_comm *c) { (void)c; }

static const sw_comm_ops one = {"one process", one_bytes, one_reduce, one_reduce, one_gather, one_to_all, one_send, one_receive,
                                one_barrier, NULL, one_abort, one_close};

/* ---- who started us */

static int64_t number(const char *name)
{
    const char *text = getenv(name);
    char *end;
    long long v = text && *text ? strtoll(text, &end, 10) : -1;
    return text && *text && !*end && v >= 0 && v < 1 << 30 ? v : -1;
}

/* Launchers name rank and size each in its own way: Open MPI's mpirun, PMI (MPICH's, and srun's with --mpi=pmi2), srun. */
static const char *const launchers[][3] = {
    {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "mpirun"},
    {"PMI_SIZE", "PMI_RANK", "a launcher"},
    {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "srun"},
};

static const char *const *launcher(void)
{
    for (size_t i = 0; i < SW_COUNT(launchers); i++)
        if (number(launchers[i][0]) > 1 && number(launchers[i][1]) >= 0)
            return launchers[i];
    return NULL;
}

int sw_comm_launched_rank(void)
{
    const char *const *l = launcher();
    return l ? (int)number(l[1]) : -1;
}

/* ---- engines */

static sw_comm_engine find(sw_comm *c, const char *name)
{
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[SW_MAX(n, 0)] = 0;
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(exe, '/');
        if (slash)
            *slash = 0;
    }
    char *path = sw_strfmt("%s/lib/swift/%s", exe, name);
    sw_comm_engine engine = NULL;
    if (access(path, R_OK))
        sw_fail("%s is not there: this build has no such part", path);
    else if (!(c->library = dlopen(path, RTLD_NOW | RTLD_GLOBAL))) /* global: MPI's own plug-ins look for it */
        sw_fail("%s", dlerror());
    else if (!(engine = (sw_comm_engine)(uintptr_t)dlsym(c->library, SW_COMM_ENGINE)))
        sw_fail("%s: has no %s", path, SW_COMM_ENGINE);
    free(path);
    return engine;
}

/* Linked into tests only: the NCCL engine over emulated devices. */
extern int sw_emulator_nccl(sw_comm *c, sw_comm *host, int device) __attribute__((weak));

static sw_comm *new_comm(void)
{
    sw_comm *c = SW_NEW(sw_comm);
    *c = (sw_comm){.ranks = 1, .local_ranks = 1, .ops = &one, .fail = sw_fail};
    return c;
}

sw_comm *sw_comm_open(void)
{
    sw_comm *c = new_comm();
    const char *const *l = launcher();
    if (!l)
        return c;
    long long size = number(l[0]);
    sw_comm_engine engine = find(c, "libswift-mpi.so");
    if (!engine || engine(c, NULL, 0)) {
        sw_fail_in("%s has started %lld processes, for which MPI is needed", l[2], size);
        free(c);
        return NULL;
    }
    if (c->ranks != size) {
        int ranks = c->ranks;
        c->ops->close(c);
        free(c);
        return sw_fail_null("%s has started %lld processes, MPI knows of %d: this launcher does not tell it (srun needs --mpi=pmix, "
                            "mpirun must be of the MPI that this build uses)", l[2], size, ranks);
    }
    c->queue = sw_comm_queue_new(c);
    if (c->queue)
        return c;
    c->ops->close(c);
    free(c);
    return NULL;
}

sw_comm *sw_comm_open_gpu(sw_comm *host, int device)
{
    sw_comm *c = new_comm();
    if (host->ranks == 1)
        return c;
    *c = (sw_comm){.rank = host->rank, .ranks = host->ranks, .local_rank = host->local_rank, .local_ranks = host->local_ranks, .ops = &one,
                   .fail = sw_fail};
    /* Once NCCL begins, a rank that fails must end all: the others wait inside it. */
    sw_comm_engine engine = sw_emulator_nccl ? sw_emulator_nccl : find(c, "libswift-nccl.so");
    if (!sw_comm_agree(host, engine ? 0 : -1) && !engine(c, host, device) && (c->queue = sw_comm_queue_new(c)))
        return c;
    sw_fail_in("%d ranks on GPUs need NCCL", host->ranks);
    free(c);
    return NULL;
}

void sw_comm_close(sw_comm *c)
{
    if (!c)
        return;
    sw_comm_queue_free(c->queue);
    c->ops->close(c);
    free(c); /* the library stays open: MPI cannot be unloaded */
}

void sw_comm_abort(sw_comm *c, int status)
{
    c->ops->abort(c, status);
    _exit(status);
}

/* ---- at once */

typedef struct call {
    enum { BROADCAST, ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, ALL_TO_ALL, SEND, RECEIVE, BARRIER } what;
    void *data;
    const void *in;
    const size_t *out_bytes, *in_bytes;
    size_t bytes;
    int64_t n;
    sw_dtype type;
    sw_reduce op;
    int peer;
} call;

static int run(sw_comm *c, void *arg)
{
    const call *k = arg;
    switch (k->what) {
    case BROADCAST: return c->ops->broadcast(c, k->data, k->bytes, k->peer);
    case ALL_REDUCE: return c->ops->all_reduce(c, k->data, k->n, k->type, k->op);
    case REDUCE_SCATTER: return c->ops->reduce_scatter(c, k->data, k->n, k->type, k->op);
    case ALL_GATHER: return c->ops->all_gather(c, k->data, k->bytes);
    case ALL_TO_ALL: return c->ops->all_to_all(c, k->data, k->out_bytes, k->in, k->in_bytes);
    case SEND: return c->ops->send(c, k->in, k->bytes, k->peer);
    case RECEIVE: return c->ops->receive(c, k->data, k->bytes, k->peer);
    default: return c->ops->barrier(c);
    }
}

static int at_once(sw_comm *c, call *k) { return c->queue ? sw_comm_wait(c, sw_comm_start(c, run, k)) : run(c, k); }

int sw_comm_broadcast(sw_comm *c, void *data, size_t bytes, int root)
{
    return at_once(c, &(call){.what = BROADCAST, .data = data, .bytes = bytes, .peer = root});
}
int sw_comm_all_reduce(sw_comm *c, void *data, int64_t n, sw_dtype type, sw_reduce op)
{
    return at_once(c, &(call){.what = ALL_REDUCE, .data = data, .n = n, .type = type, .op = op});
}
int sw_comm_reduce_scatter(sw_comm *c, void *data, int64_t n, sw_dtype type, sw_reduce op)
{
    return at_once(c, &(call){.what = REDUCE_SCATTER, .data = data, .n = n, .type = type, .op = op});
}
int sw_comm_all_gather(sw_comm *c, void *data, size_t bytes) { return at_once(c, &(call){.what = ALL_GATHER, .data = data, .bytes = bytes}); }
int sw_comm_all_to_all(sw_comm *c, void *out, const size_t *out_bytes, const void *in, const size_t *in_bytes)
{
    return at_once(c, &(call){.what = ALL_TO_ALL, .data = out, .out_bytes = out_bytes, .in = in, .in_bytes = in_bytes});
}
int sw_comm_send(sw_comm *c, const void *data, size_t bytes, int to)
{
    return at_once(c, &(call){.what = SEND, .in = data, .bytes = bytes, .peer = to});
}
int sw_comm_receive(sw_comm *c, void *data, size_t bytes, int from)
{
    return at_once(c, &(call){.what = RECEIVE, .data = data, .bytes = bytes, .peer = from});
}
int sw_comm_barrier(sw_comm *c) { return at_once(c, &(call){.what = BARRIER}); }

int sw_comm_gather(sw_comm *c, void *data, size_t bytes, int root)
{
    if (c->rank != root)
        return sw_comm_send(c, (char *)data + bytes * (size_t)c->rank, bytes, root);
    for (int i = 0; i < c->ranks; i++)
        if (i != root && sw_comm_receive(c, (char *)data + bytes * (size_t)i, bytes, i))
            return -1;
    return 0;
}

int sw_comm_agree(sw_comm *c, int rc)
{
    if (c->ranks == 1)
        return rc;
    if (rc && c->agreed)
        return rc; /* all know already */
    int64_t failed = rc ? c->ranks - c->rank : 0;
    char text[4096] = "";
    if (rc)
        snprintf(text, sizeof text, "%s", sw_error());
    if (sw_comm_all_reduce(c, &failed, 1, SW_I64, SW_REDUCE_MAX))
        return -1;
    if (!failed)
        return 0;
    int first = c->ranks - (int)failed;
    if (sw_comm_broadcast(c, text, sizeof text, first))
        return -1;
    c->agreed = true;
    return first ? sw_fail("rank %d: %s", first, text) : sw_fail("%s", text);
}
