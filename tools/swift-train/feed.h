/* The order in which training sees the records of shards: several files as one, shuffled anew in every epoch, or one
 * pipe. The order depends on the seed and the data only, so a place in it is a pair of numbers, and a run that stopped
 * goes on at that place. */
#ifndef SWIFT_TRAIN_FEED_H
#define SWIFT_TRAIN_FEED_H

#include "base/fileio.h"
#include "data/shard.h"
#include "dist/comm.h"

/* A record of its own memory (one block: free(sample)). */
typedef struct train_sample {
    int64_t n, n_segments;
    int32_t *ids;       /* [n] */
    float *weights;     /* [n] */
    uint32_t *segments; /* [n_segments] ends */
    int32_t *targets;   /* [n] what is hidden at each place, or its class, -1 nothing; NULL where the next tokens are learnt */
    int64_t n_labels;
    float *labels;      /* [n_labels] of the record, where the objective uses them */
} train_sample;

typedef struct train_step_data { /* the samples of an update, or of a rank's share of it */
    train_sample **at;
    size_t n, cap;
} train_step_data;
void train_step_free(train_step_data *d);

typedef struct feed_options {
    sw_comm *comm;           /* of the ranks that share the data; NULL: one process */
    bool shuffle;
    uint64_t seed;
    int64_t buffer;          /* records among which a pipe that is read once is shuffled */
    bool again;              /* the records are needed more than once, or their number beforehand: a pipe is spooled */
    const char *spool;       /* folder for that file */
    const char *vocab_digest; /* of the model's tokenizer (sw_tokenizer_vocab_digest), or NULL: not compared */
    int64_t vocab;           /* ids must be below it */
    const char *objective;   /* for messages */
    const cJSON *classes;    /* of the model's texts or words: names that a shard's must be where it has some; NULL: it has none */
    int64_t n_classes;       /* classes of words must be below it */
    const char *const *columns; /* what it uses, as sw_objective has it: a shard that holds other things is refused */
} feed_options;

/* Records already taken from the epoch. */
typedef struct feed_place {
    int64_t epoch, taken;
} feed_place;

typedef struct train_feed train_feed;

/* Shards by name; "-" (or none) is standard input, alone. Of several ranks each reads files itself, and only its own
 * records of them; standard input is read by rank 0, which deals the records out, and then all ranks make these calls. A tokenizer that is not the model's is refused here. */
train_feed *feed_open(char **paths, int n, const feed_options *o) SW_MUST_CHECK;
void feed_close(train_feed *f);
const sw_shard_info *feed_info(const train_feed *f); /* of the first shard; NULL where rank 0 has it */
/* Records, tokens and longest record of an epoch; false: a pipe that is read once. */
bool feed_totals(const train_feed *f, sw_shard_totals *t);
/* Identity of the data, for a run that resumes. */
sw_digest feed_digest(const train_feed *f);
/* The next record. 1 and a sample, 0 the end of the epoch (the next call begins another one; a pipe that is read once
 * has ended for good: the call after it gives 0 again), -1. */
int feed_next(train_feed *f, train_sample **s) SW_MUST_CHECK;
/* Goes past the next `want` records of the epoch, or as many as it has left, and adds to out this rank's share of them:
 * those from rank * each on, at most `each`. *got: how many were gone past; 0 at the end of the epoch, as above. */
int feed_take(train_feed *f, int64_t want, int64_t each, train_step_data *out, int64_t *got) SW_MUST_CHECK;
/* Whether any record can be read at any time: not those of a pipe, nor those that rank 0 deals out. */
bool feed_at_once(const train_feed *f);
feed_place feed_tell(const train_feed *f);
/* Goes to a place that feed_tell gave, in files at once; a pipe is read up to it. */
int feed_seek(train_feed *f, feed_place place) SW_MUST_CHECK;

#endif
