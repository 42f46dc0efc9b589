#include "parallel.h"

#include "base/memory.h"
#include "optimizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct parallel_bucket {
    train_parallel *p;
    int64_t index;
    size_t first, n;  /* its parameters in flat->params */
    size_t pending;   /* those whose gradients are not final yet */
    bool sent;
    void *mark;       /* of the device, behind what has made its gradients; NULL: none was needed */
    enum { HERE, COMING, AWAY } values; /* where they are shared */
    uint64_t ticket;  /* of the values on their way */
} parallel_bucket;

static void *at(const sw_tensor *t, int64_t i) { return (char *)t->data + sw_dtype_bytes(t->dtype, i); }
static int64_t size_of(const sw_flat *f, int64_t b) { return f->buckets[b + 1] - f->buckets[b]; }
/* Other engines work beside the device's own order of work. */
static int settle(const train_parallel *p) { return p->flat->device->host ? 0 : p->flat->device->sync(p->flat->device); }
static int commit(const train_parallel *p, const sw_tensor *t, int64_t b)
{
    sw_device *d = p->flat->device;
    return d->commit ? d->commit(d, at(t, p->flat->buckets[b]), sw_dtype_bytes(t->dtype, size_of(p->flat, b))) : 0;
}
/* A bucket that such an engine will read or write. */
static int offer(const train_parallel *p, const sw_tensor *t, int64_t b) { return commit(p, t, b) || settle(p) ? -1 : 0; }

/* The same for gradients: the engine waits for the device, and the backward pass goes on. */
static int offer_gradients(const train_parallel *p, parallel_bucket *k)
{
    sw_device *d = p->flat->device;
    if (!d->mark || !p->device->ops->after)
        return offer(p, &p->flat->grad, k->index);
    if (commit(p, &p->flat->grad, k->index))
        return -1;
    void *mark = d->mark(d, k->mark);
    k->mark = mark ? mark : k->mark;
    return mark ? 0 : -1;
}

/* ---- gradients */

static int exchange(sw_comm *c, void *arg)
{
    const parallel_bucket *k = arg;
    const sw_flat *f = k->p->flat;
    int64_t n = size_of(f, k->index);
    void *data = at(&f->grad, f->buckets[k->index]);
    if (k->mark && c->ops->after(c, k->mark))
        return -1;
    if (!sw_flat_shares(f, SW_SHARE_OPTIMIZER))
        return c->ops->all_reduce(c, data, n, SW_F32, SW_REDUCE_SUM);
    if (c->ops->reduce_scatter(c, data, n / c->ranks, SW_F32, SW_REDUCE_SUM))
        return -1;
    /* What is left of a rank's own part is the sum so far, to which the next part of the update adds. */
    if (sw_flat_shares(f, SW_SHARE_GRADIENTS))
        sw_flat_release(f, &f->grad, k->index);
    return 0;
}

/* All that is ready, from the last bucket on: in this order on every rank, whichever records it has. */
static int send_ready(train_parallel *p, bool all)
{
    for (; p->next >= 0 && (all || !p->buckets[p->next].pending); p->next--) {
        parallel_bucket *k = &p->buckets[p->next];
        if (offer_gradients(p, k))
            return -1;
        k->sent = true;
        p->ticket = sw_comm_start(p->device, exchange, k);
    }
    return 0;
}

static size_t index_of(const sw_flat *f, const sw_param *q)
{
    size_t low = 0, high = f->n_params - 1;
    while (low < high) {
        size_t middle = (low + high + 1) / 2;
        if (f->params[middle]->offset <= q->offset)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static int on_final(void *arg, sw_param *q)
{
    train_parallel *p = arg;
    if (!p->sending)
        return 0;
    size_t i = index_of(p->flat, q);
    parallel_bucket *k = &p->buckets[sw_flat_bucket(p->flat, q->offset)];
    if (k->sent)
        return sw_fail("%s: its gradient has changed after it was final", q->name);
    if (!p->final[i])
        k->pending--;
    p->final[i] = true;
    return send_ready(p, false);
}

int parallel_begin(train_parallel *p, bool last)
{
    const sw_flat *f = p->flat;
    if (p->ticket && sw_comm_wait(p->device, p->ticket)) /* the part before it may still be leaving the buckets */
        return -1;
    p->ticket = 0;
    p->sending = p->host->ranks > 1 && (last || sw_flat_shares(f, SW_SHARE_GRADIENTS));
    if (!p->sending)
        return 0;
    memset(p->final, 0, f->n_params * sizeof *p->final);
    for (int64_t b = 0; b < f->n_buckets; b++) {
        p->buckets[b].pending = p->buckets[b].n;
        p->buckets[b].sent = false;
    }
    p->next = f->n_buckets - 1;
    return 0;
}

int parallel_end(train_parallel *p)
{
    if (!p->sending)
        return 0;
    p->sending = false;
    return send_ready(p, true);
}

bool parallel_needs_all(const train_parallel *p) { return sw_flat_shares(p->flat, SW_SHARE_PARAMETERS); }

/* ---- values that are brought when they are needed */

static int gather(sw_comm *c, void *arg)
{
    const parallel_bucket *k = arg;
    sw_flat *f = k->p->flat;
    const sw_tensor *t = sw_flat_values(f);
    return c->ops->all_gather(c, at(t, f->buckets[k->index]), sw_dtype_bytes(t->dtype, size_of(f, k->index) / c->ranks));
}

static int start_values(train_parallel *p, int64_t b)
{
    parallel_bucket *k = &p->buckets[b];
    if (k->values != AWAY)
        return 0;
    if (offer(p, sw_flat_values(p->flat), b))
        return -1;
    k->values = COMING;
    k->ticket = sw_comm_start(p->device, gather, k);
    return 0;
}

static void mark_away(parallel_bucket *k, bool away)
{
    k->values = away ? AWAY : HERE;
    for (size_t i = k->first; i < k->first + k->n; i++)
        k->p->flat->params[i]->v.away = away;
}

static int put_away(train_parallel *p, int64_t b)
{
    parallel_bucket *k = &p->buckets[b];
    if (k->values == AWAY)
        return 0;
    if ((k->values == COMING && sw_comm_wait(p->device, k->ticket)) || settle(p))
        return -1;
    sw_flat_release(p->flat, sw_flat_values(p->flat), b);
    mark_away(k, true);
    return 0;
}

static int put_all_away(train_parallel *p)
{
    int rc = 0;
    for (int64_t b = 0; sw_flat_shares(p->flat, SW_SHARE_PARAMETERS) && b < p->flat->n_buckets && !rc; b++)
        rc = put_away(p, b);
    return rc;
}

/* The bucket that is asked for, the one before it, which the op at work may still read, and the next one on the way. */
static int on_value(void *arg, sw_param *q)
{
    train_parallel *p = arg;
    int64_t b = sw_flat_bucket(p->flat, q->offset), next = b >= p->current ? b + 1 : b - 1;
    if (start_values(p, b) || sw_comm_wait(p->device, p->buckets[b].ticket))
        return sw_fail_in("%s", q->name);
    mark_away(&p->buckets[b], false);
    if (next >= 0 && next < p->flat->n_buckets && start_values(p, next))
        return -1;
    for (int64_t k = 0; k < p->flat->n_buckets; k++)
        if (k != b && k != p->current && k != next && put_away(p, k))
            return -1;
    p->current = b;
    return 0;
}

/* ---- an update */

int parallel_wait(train_parallel *p)
{
    return p->host->ranks == 1 ? 0 : sw_comm_wait(p->device, p->ticket) || put_all_away(p) ? -1 : 0;
}

int parallel_sum(train_parallel *p, double *values, int n) { return sw_comm_all_reduce(p->host, values, n, SW_F64, SW_REDUCE_SUM); }

int parallel_norm(train_parallel *p, double *norm)
{
    const sw_flat *f = p->flat;
    if (!sw_flat_shares(f, SW_SHARE_OPTIMIZER))
        return sw_grad_norm(f, norm);
    double sum = 0;
    for (int64_t b = 0; b < f->n_buckets; b++) {
        int64_t start, n = sw_flat_part(f, b, f->plan.rank, &start);
        sw_tensor mine = sw_flat_range(&f->grad, start, n);
        double squares = 0;
        if (sw_sum_squares(f, &mine, &squares))
            return -1;
        sum += squares;
    }
    if (parallel_sum(p, &sum, 1))
        return -1;
    *norm = sqrt(sum);
    return 0;
}

int parallel_share_values(train_parallel *p)
{
    const sw_flat *f = p->flat;
    if (!sw_flat_shares(f, SW_SHARE_OPTIMIZER) || sw_flat_shares(f, SW_SHARE_PARAMETERS))
        return 0;
    if (settle(p))
        return -1;
    uint64_t ticket = 0;
    for (int64_t b = 0; b < f->n_buckets; b++)
        ticket = sw_comm_start(p->device, gather, &p->buckets[b]);
    return sw_comm_wait(p->device, ticket);
}

/* ---- whole buffers, for checkpoints */

int parallel_collect(train_parallel *p, const sw_tensor *t, int64_t bucket)
{
    const sw_flat *f = p->flat;
    return offer(p, t, bucket) || sw_comm_gather(p->device, at(t, f->buckets[bucket]), sw_dtype_bytes(t->dtype, size_of(f, bucket) / f->plan.ranks), 0) ? -1 : 0;
}

int parallel_spread(train_parallel *p, const sw_tensor *t, int64_t bucket)
{
    const sw_flat *f = p->flat;
    if (p->host->ranks == 1)
        return 0;
    return offer(p, t, bucket) || sw_comm_broadcast(p->device, at(t, f->buckets[bucket]), sw_dtype_bytes(t->dtype, size_of(f, bucket)), 0) ? -1 : 0;
}

int parallel_collect_master(train_parallel *p)
{
    if (!sw_flat_shares_master(p->flat))
        return 0;
    int rc = put_all_away(p);
    for (int64_t b = 0; b < p->flat->n_buckets && !rc; b++)
        rc = parallel_collect(p, &p->flat->master, b);
    return rc;
}

void parallel_release_master(train_parallel *p)
{
    for (int64_t b = 0; sw_flat_shares_master(p->flat) && b < p->flat->n_buckets; b++)
        sw_flat_release(p->flat, &p->flat->master, b);
}

/* ---- its life */

/* "cuda:1" */
static int number_of(const sw_device *d)
{
    const char *colon = strchr(d->name, ':');
    return colon ? atoi(colon + 1) : 0;
}

int parallel_open(train_parallel *p, sw_comm *comm, sw_flat *f, sw_ctx *c)
{
    *p = (train_parallel){.host = comm, .device = comm, .flat = f};
    if (comm->ranks == 1)
        return 0;
    if (!f->device->host && !(p->device = sw_comm_open_gpu(comm, number_of(f->device)))) {
        p->device = comm;
        return -1;
    }
    p->final = SW_NEW_ARRAY(bool, f->n_params);
    p->buckets = SW_NEW_ARRAY(parallel_bucket, (size_t)f->n_buckets);
    for (size_t i = 0; i < f->n_params; i++) {
        parallel_bucket *k = &p->buckets[sw_flat_bucket(f, f->params[i]->offset)];
        if (!k->n++)
            k->first = i;
    }
    for (int64_t b = 0; b < f->n_buckets; b++) {
        p->buckets[b].p = p;
        p->buckets[b].index = b;
        if (sw_flat_shares(f, SW_SHARE_PARAMETERS))
            mark_away(&p->buckets[b], true);
    }
    c->hooks = (sw_tape_hooks){.arg = p, .final_grad = on_final, .value = on_value};
    return 0;
}

void parallel_close(train_parallel *p)
{
    /* What was asked for still uses the buckets; every rank has asked for the same. */
    int rc = p->host ? sw_comm_barrier(p->device) : 0;
    (void)rc;
    if (p->device != p->host)
        sw_comm_close(p->device);
    for (int64_t b = 0; p->buckets && b < p->flat->n_buckets; b++)
        if (p->buckets[b].mark)
            p->flat->device->unmark(p->flat->device, p->buckets[b].mark);
    free(p->buckets);
    free(p->final);
    *p = (train_parallel){0};
}
