/* Objectives: what is minimised, from per-token log-probabilities. An objective is one file and one row in run.c. */
#ifndef SWIFT_TRAIN_OBJECTIVE_H
#define SWIFT_TRAIN_OBJECTIVE_H

#include "data/tags.h"
#include "model/model.h"

/* Part of a batch that is run at once: sequences one after the other, without padding. */
typedef struct sw_micro_batch {
    int64_t n, n_seqs;
    const int32_t *ids;     /* host [n] */
    const int64_t *lengths; /* host [n_seqs] */
    const int32_t *source_ids;     /* of a model with an encoder: what it reads, and how much of it each sequence has */
    const int64_t *source_lengths;
    const int64_t *keys, *source_keys; /* of the tokens, as sw_batch has them */
    /* Host [n]: what position i is to predict (the next token of its sequence), -1 nothing; and the loss weight of that
     * prediction, not 0 where there is a target. */
    const int32_t *targets;
    const float *weights;
    /* Host: what each sequence is labelled with, one after the other, and how many numbers that is of each [n_seqs]; -1
     * where it is not labelled, 0 where it is in none of the classes. NULL where the objective learns tokens. */
    const float *labels;
    const int64_t *n_labels;
    /* Of the context that will run it, from sw_micro_prepare; NULL: not made yet. */
    sw_pass *pass;
    sw_var *target_ids; /* i32 [n] */
    /* What the host can do while the device is at work: called when all is asked for, before the results are waited for. NULL:
     * nothing. */
    void (*meanwhile)(void *arg);
    void *meanwhile_arg;
} sw_micro_batch;

/* The batch on the device, if it is not there yet. */
int sw_micro_prepare(sw_ctx *c, sw_model *m, sw_micro_batch *b) SW_MUST_CHECK;

/* What the label of a whole text says: its class, its classes, or values. */
typedef enum sw_problem { SW_PROBLEM_CLASS, SW_PROBLEM_CLASSES, SW_PROBLEM_VALUE } sw_problem;
/* From config.json's "problem_type"; without one (NULL) a single score is a value, and several are classes. */
int sw_problem_of(const char *name, int64_t labels, sw_problem *out) SW_MUST_CHECK;

typedef struct sw_objective_options {
    double label_smoothing;
    sw_problem problem;
    const sw_tags *tags; /* of_words: what the classes are called; may be none */
} sw_objective_options;

/* Sums, so that parts of a batch add up in any split. */
typedef struct sw_loss {
    double loss;    /* sum of weighted token losses, over the divisor */
    double weight;  /* sum of the weights of the labelled tokens */
    double correct; /* labelled tokens whose most likely token is the target */
    double labelled;
    double spans, said, right; /* of_words: those of the labels, those of the answers, and of these those that are among the former */
} sw_loss;

typedef struct sw_objective {
    const char *name; /* --objective */
    const char *const *columns; /* of a shard that it uses besides ids, weights, segments and carried; NULL-terminated */
    /* Runs forward, and with `backward` adds to the gradients of the trained parameters. divisor: what the sum of the
     * batch's token losses is divided by (labelled tokens of the whole optimiser step), so that the split does not
     * matter. Adds to *sum. Resets the context. */
    int (*run)(sw_ctx *c, sw_model *m, const sw_micro_batch *b, const sw_objective_options *o, double divisor, bool backward,
               bool recompute, sw_loss *sum);
    bool masks;      /* it learns the tokens of a text that are hidden from it, and not the next ones */
    bool of_words;   /* it learns the classes that tokens have in the column tags, and no tokens */
    bool of_records; /* it learns a label a record and no tokens: sw_loss and the divisor count records */
} sw_objective;

extern const sw_objective sw_objective_sft, sw_objective_mlm, sw_objective_tag, sw_objective_classify;

#endif
