/* Ordered parallel map: one thread reads, N work, the caller's thread writes, in the order of reading whatever N is.
 * A bounded ring of items lies between them, so memory is flat and a slow end slows the others down. */
#ifndef SW_DATA_PIPELINE_H
#define SW_DATA_PIPELINE_H

#include "base/error.h"

#include <stdatomic.h>
#include <stddef.h>

typedef struct sw_pipeline {
    void *context;
    size_t item_bytes; /* items are zeroed once and then used again and again */
    int workers;       /* at least 1; with 1 everything runs in the caller's thread */
    /* Fills an item: 1, 0 the end, -1. Called by one thread. */
    int (*read)(void *context, void *item);
    /* Any of the workers (0 .. workers-1), several at once on different items: 0 or -1. */
    int (*work)(void *context, int worker, void *item);
    /* In order, in the caller's thread: 0 or -1. Also gets an item whose work failed, with its message (NULL: none),
     * so that what came before the bad record in it can be written; the pipeline ends with that message after it. */
    int (*write)(void *context, void *item, const char *failure);
    void (*free_item)(void *context, void *item); /* frees what an item holds; may be NULL */
    atomic_bool *stop; /* set when the run ends, for a `read` that still waits for its input; may be NULL */
} sw_pipeline;

/* Runs to the end of the input, or to the first failure in the order of the input: all items before it are written,
 * none after it. SIGINT and SIGTERM (base/interrupt.h) end it with a failure too. */
int sw_pipeline_run(const sw_pipeline *p) SW_MUST_CHECK;

#endif
