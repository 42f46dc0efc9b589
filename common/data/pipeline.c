#include "data/pipeline.h"

#include "base/interrupt.h"
#include "base/memory.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

enum { ITEMS_PER_WORKER = 4 };

typedef enum state { FREE, FILLED, DONE } state;

typedef struct slot {
    state state;
    void *item;
    char *failure; /* of reading or working on this item */
    bool last;     /* reading ended here, the item holds nothing */
} slot;

/* Item i lives in slot i % n. All counters only grow; everything is guarded by the lock. */
typedef struct ring {
    const sw_pipeline *p;
    slot *slots;
    size_t n;
    uint64_t filled, taken; /* items read, and handed to workers */
    bool stop;
    int workers_started;
    pthread_mutex_t lock;
    pthread_cond_t work_there, work_done, slot_free;
} ring;

static char *failure_text(void) { return sw_strdup(*sw_error() ? sw_error() : "failed without saying why"); }

static void *reader(void *arg)
{
    ring *r = arg;
    for (uint64_t i = 0;; i++) {
        slot *s = &r->slots[i % r->n];
        pthread_mutex_lock(&r->lock);
        while (s->state != FREE && !r->stop)
            pthread_cond_wait(&r->slot_free, &r->lock);
        bool stop = r->stop;
        pthread_mutex_unlock(&r->lock);
        if (stop)
            return NULL;
        int rc = r->p->read(r->p->context, s->item);
        char *failure = rc < 0 ? failure_text() : NULL;
        pthread_mutex_lock(&r->lock);
        s->last = rc <= 0;
        s->failure = failure;
        s->state = rc > 0 ? FILLED : DONE;
        if (rc > 0) {
            r->filled = i + 1;
            pthread_cond_signal(&r->work_there);
        } else {
            pthread_cond_signal(&r->work_done);
        }
        pthread_mutex_unlock(&r->lock);
        if (rc <= 0)
            return NULL;
    }
}

static void *worker(void *arg)
{
    ring *r = arg;
    pthread_mutex_lock(&r->lock);
    int number = r->workers_started++;
    for (;;) {
        while (r->taken == r->filled && !r->stop)
            pthread_cond_wait(&r->work_there, &r->lock);
        if (r->stop)
            break;
        slot *s = &r->slots[r->taken++ % r->n];
        pthread_mutex_unlock(&r->lock);
        char *failure = r->p->work(r->p->context, number, s->item) ? failure_text() : NULL;
        pthread_mutex_lock(&r->lock);
        s->failure = failure;
        s->state = DONE;
        pthread_cond_signal(&r->work_done);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* Writes one item and turns a failure of its work into that of the run. */
static int hand_out(const sw_pipeline *p, void *item, const char *failure)
{
    if (p->write(p->context, item, failure))
        return -1;
    return failure ? sw_fail("%s", failure) : 0;
}

static int writer(ring *r)
{
    for (uint64_t i = 0;; i++) {
        slot *s = &r->slots[i % r->n];
        pthread_mutex_lock(&r->lock);
        while (s->state != DONE)
            pthread_cond_wait(&r->work_done, &r->lock);
        pthread_mutex_unlock(&r->lock);
        if (s->last)
            return s->failure ? sw_fail("%s", s->failure) : 0;
        if (hand_out(r->p, s->item, s->failure))
            return -1;
        if (sw_interrupted())
            return sw_fail("interrupted");
        pthread_mutex_lock(&r->lock);
        s->state = FREE;
        pthread_cond_signal(&r->slot_free);
        pthread_mutex_unlock(&r->lock);
    }
}

static int run_alone(const sw_pipeline *p)
{
    void *item = sw_calloc(1, p->item_bytes);
    int rc;
    while ((rc = p->read(p->context, item)) > 0) {
        char *failure = p->work(p->context, 0, item) ? failure_text() : NULL;
        rc = hand_out(p, item, failure);
        free(failure);
        if (!rc && sw_interrupted())
            rc = sw_fail("interrupted");
        if (rc)
            break;
    }
    if (p->free_item)
        p->free_item(p->context, item);
    free(item);
    return rc;
}

int sw_pipeline_run(const sw_pipeline *p)
{
    if (p->workers <= 1)
        return run_alone(p);
    ring r = {.p = p, .n = (size_t)p->workers * ITEMS_PER_WORKER};
    r.slots = SW_NEW_ARRAY(slot, r.n);
    for (size_t i = 0; i < r.n; i++)
        r.slots[i].item = sw_calloc(1, p->item_bytes);
    pthread_mutex_init(&r.lock, NULL);
    pthread_cond_init(&r.work_there, NULL);
    pthread_cond_init(&r.work_done, NULL);
    pthread_cond_init(&r.slot_free, NULL);
    pthread_t *threads = SW_NEW_ARRAY(pthread_t, (size_t)p->workers + 1);
    int started = 0, rc = 0;
    while (started <= p->workers && !pthread_create(&threads[started], NULL, started ? worker : reader, &r))
        started++;
    /* fewer workers than asked for still do the work; a reader and one worker are needed */
    rc = started > 1 ? writer(&r) : sw_fail("no thread can be started; try --threads=1");
    if (p->stop)
        *p->stop = true;
    pthread_mutex_lock(&r.lock);
    r.stop = true;
    pthread_cond_broadcast(&r.work_there);
    pthread_cond_broadcast(&r.slot_free);
    pthread_mutex_unlock(&r.lock);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < r.n; i++) {
        if (p->free_item)
            p->free_item(p->context, r.slots[i].item);
        free(r.slots[i].item);
        free(r.slots[i].failure);
    }
    pthread_mutex_destroy(&r.lock);
    pthread_cond_destroy(&r.work_there);
    pthread_cond_destroy(&r.work_done);
    pthread_cond_destroy(&r.slot_free);
    free(threads);
    free(r.slots);
    return rc;
}
