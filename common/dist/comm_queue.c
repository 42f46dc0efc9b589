#include "dist/comm_queue.h"

#include "base/memory.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

typedef struct job {
    sw_comm_job run;
    void *arg;
} job;

struct sw_comm_queue {
    sw_comm *comm;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t asked, finished;
    struct {
        job *at;
        size_t n, cap;
    } waiting;
    uint64_t started, done;
    bool ending;
    char *failure;
};

static void *work(void *arg)
{
    struct sw_comm_queue *q = arg;
    pthread_mutex_lock(&q->lock);
    for (;;) {
        while (!q->waiting.n && !q->ending)
            pthread_cond_wait(&q->asked, &q->lock);
        if (!q->waiting.n)
            break;
        job j = q->waiting.at[0];
        memmove(q->waiting.at, q->waiting.at + 1, --q->waiting.n * sizeof j);
        bool run = !q->failure;
        pthread_mutex_unlock(&q->lock);
        int rc = run ? j.run(q->comm, j.arg) : 0;
        pthread_mutex_lock(&q->lock);
        if (rc && !q->failure)
            q->failure = sw_strdup(sw_error());
        q->done++;
        pthread_cond_broadcast(&q->finished);
    }
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

struct sw_comm_queue *sw_comm_queue_new(sw_comm *c)
{
    struct sw_comm_queue *q = SW_NEW(struct sw_comm_queue);
    q->comm = c;
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->asked, NULL);
    pthread_cond_init(&q->finished, NULL);
    /* Signals go to the thread that looks for them. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&q->thread, NULL, work, q);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        free(q);
        return sw_fail_null("a thread for communication cannot be started: %s", strerror(rc));
    }
    return q;
}

void sw_comm_queue_free(struct sw_comm_queue *q)
{
    if (!q)
        return;
    pthread_mutex_lock(&q->lock);
    q->ending = true;
    pthread_cond_signal(&q->asked);
    pthread_mutex_unlock(&q->lock);
    pthread_join(q->thread, NULL);
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->asked);
    pthread_cond_destroy(&q->finished);
    free(q->waiting.at);
    free(q->failure);
    free(q);
}

uint64_t sw_comm_start(sw_comm *c, sw_comm_job run, void *arg)
{
    struct sw_comm_queue *q = c->queue;
    if (!q)
        return run(c, arg) ? UINT64_MAX : 0;
    pthread_mutex_lock(&q->lock);
    SW_PUSH(q->waiting, ((job){run, arg}));
    uint64_t ticket = ++q->started;
    pthread_cond_signal(&q->asked);
    pthread_mutex_unlock(&q->lock);
    return ticket;
}

int sw_comm_wait(sw_comm *c, uint64_t ticket)
{
    struct sw_comm_queue *q = c->queue;
    if (!q)
        return ticket == UINT64_MAX ? -1 : 0;
    pthread_mutex_lock(&q->lock);
    while (q->done < ticket)
        pthread_cond_wait(&q->finished, &q->lock);
    int rc = q->failure ? sw_fail("%s", q->failure) : 0;
    pthread_mutex_unlock(&q->lock);
    return rc;
}
