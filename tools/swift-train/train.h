/* What the parts of swift-train share: the options, and a run. */
#ifndef SWIFT_TRAIN_TRAIN_H
#define SWIFT_TRAIN_TRAIN_H

#include "base/option.h"
#include "feed.h"
#include "metrics.h"
#include "model/model_save.h"
#include "objective.h"
#include "optimizer.h"
#include "parallel.h"
#include "schedule.h"
#include "text/template.h"

#define TRAIN_MASK_SHARE 0.15 /* --mask-share without the option: BERT's (arXiv:1810.04805, section 3.1) */

typedef struct train_options {
    const sw_program *program; /* whose options these are, to be noted in what is written */
    const char *model, *out, *adapter, *metrics, *plot, *labels;
    const char *tuner, *schedule, *optimizer;
    sw_strings val, target_modules, modules_to_save;
    int dtype, save_dtype, share, problem, task;
    int64_t bucket, lora_r, batch, accumulate, max_steps, eval_steps, early_stop, save_steps, keep, shuffle_buffer, log_steps, max_memory;
    double dropout, mask_share, lora_alpha, lora_dropout, epochs, lr, warmup, weight_decay, beta1, beta2, eps, clip, label_smoothing, save_minutes;
    bool rslora, decay_all, recompute, dequantise, resume, overwrite, estimate, shuffle, eval_first;
} train_options;

/* Sums over the updates since the last record of metrics. */
typedef struct train_window {
    sw_loss sum;
    double loss, norm, tokens, seconds; /* loss and norm: summed over updates */
    int64_t updates;
} train_window;

/* What a checkpoint holds beside tensors. */
typedef struct train_state {
    int64_t step; /* updates done */
    feed_place place;
    double tokens, elapsed; /* tokens seen; seconds of training, earlier parts of a resumed run included */
    double best_loss;       /* lowest evaluation loss */
    int64_t best_step;      /* -1: none yet */
    int64_t bad_evals;      /* evaluations since it */
    int64_t last_eval;      /* step of the newest evaluation; -1: none yet */
    train_window window;
} train_state;

typedef struct train_run {
    const train_options *o;
    sw_comm *comm; /* the ranks of this run; one of them (0) writes and speaks */
    train_parallel parallel;
    int64_t each, batch; /* a rank's records of an update, and how many of them it runs at once */
    struct {
        int64_t flags[2]; /* stop, plot: of any rank */
        uint64_t ticket;
        bool asked;
    } poll;
    bool stopping, plot_asked; /* a signal came, to any rank */
    sw_device *device;
    sw_dtype compute;
    sw_model *model;
    sw_modules modules;
    sw_tuned *tuned; /* NULL: full */
    sw_flat flat;
    sw_ctx ctx, twin, *at_work; /* one of the two, while the other is made ready */
    bool ctx_ready;
    struct {
        sw_ctx *c; /* where it is ready; NULL: nothing is */
        train_sample *first; /* of its samples */
        size_t n;
        sw_micro_batch b;
    } sent; /* what will be run next, on the device already */
    sw_optimizer optimizer;
    const sw_schedule *schedule;
    const sw_objective *objective;
    sw_objective_options objective_options;
    sw_tags tags; /* of a classifier */
    sw_digest values; /* of the model as it was read, where ranks compare it */
    sw_tokenizer *tokenizer;
    int32_t mask_token;
    int32_t end_token; /* of the chat template that the data was made with, or -1 */
    train_feed *feed, *val;
    sw_metrics *metrics, *more_metrics;
    char *metrics_path, *plot_path;
    int64_t steps;       /* updates in all; 0: as many as a pipe gives */
    int64_t epoch_steps; /* updates of an epoch; 0: not known */
    int64_t warmup;
    double lr;
    size_t fixed_bytes; /* weights, gradients and optimiser states */
    train_state state;
} train_run;

/* run.c: opens everything that training needs. */
int train_open(train_run *r, const train_options *o, sw_comm *comm, int n, char **shards) SW_MUST_CHECK;
void train_close(train_run *r);

/* train_batch.c: samples, which are records `first` and on of their update, as sequences one after the other; arrays from the
 * context, until it is reset. For a model with an
 * encoder each sequence is cut before its first token with weight: the encoder reads what is before, the decoder writes the rest. */
int train_batch(sw_ctx *c, const sw_spec *spec, train_sample *const *samples, size_t n, int64_t first, sw_micro_batch *b) SW_MUST_CHECK;
/* Labelled tokens of samples, or labelled samples, as the objective counts. */
double train_labelled(const sw_objective *o, train_sample *const *samples, size_t n);

/* Forward and backward (or forward alone) of samples, with the random numbers of the contexts' rng; sent before, or now. */
typedef struct train_part {
    train_sample *const *samples;
    size_t n;
    int64_t first; /* the record of the update that samples[0] is */
    double divisor;
    bool backward;
    void (*meanwhile)(void *arg); /* as sw_micro_batch has it */
    void *meanwhile_arg;
} train_part;
int train_run_part(train_run *r, const train_part *p, sw_loss *sum) SW_MUST_CHECK;
/* Sends the samples of p to the device while it is at work, to be run next (which train_run_part knows by the samples); they must
 * live until then. Where that fails they are not sent. */
void train_send(train_run *r, const train_part *p);
void train_forget_sent(train_run *r);
/* Looks for signals to any rank, into r->stopping and r->plot_asked. Of several ranks each call gives what was so at the
 * call before, so that nobody waits for the slowest. */
int train_poll(train_run *r) SW_MUST_CHECK;

/* mask.c: the tokenizer's mask token, where the objective hides words; hides some of samples, the first of which is number
 * `first` of what `site` names, in step `step`. */
int train_find_mask(train_run *r) SW_MUST_CHECK;
void train_mask(const train_run *r, train_step_data *d, uint32_t step, int64_t first, const char *site);

/* trainer.c: until done, stopped or interrupted. Returns an exit status or -1. */
int train_loop(train_run *r) SW_MUST_CHECK;

/* evaluate.c: the sums of all ranks, of losses and of tokens seen; what the objective learns, for people; over the validation shards. */
int train_sum(train_run *r, sw_loss *sum, double *tokens) SW_MUST_CHECK;
const char *train_labels_name(const sw_objective *o);
int train_evaluate(train_run *r, sw_loss *sum) SW_MUST_CHECK;

/* snapshot.c: every rank calls; rank 0 reads and writes */
/* The settings that a run keeps when it resumes, and that its ranks must have in common. */
cJSON *snapshot_settings(const train_run *r);
/* Fails on the first of `now` that `then` has otherwise; format: its name, then, now. */
int snapshot_compare(const cJSON *then, const cJSON *now, const char *format) SW_MUST_CHECK;
/* Writes OUT/checkpoint-STEP, whole or not at all, and removes what --keep does not keep. */
int snapshot_save(train_run *r) SW_MUST_CHECK;
/* Goes to the newest checkpoint of --out: 1, or 0 where there is none. */
int snapshot_resume(train_run *r) SW_MUST_CHECK;
/* Whether --out holds checkpoints. */
bool snapshot_any(const char *out);
int snapshot_remove_all(const char *out) SW_MUST_CHECK;

/* result.c */
/* What others load: a PEFT adapter or a whole model, with the chat template and the tokens that end generation. */
int result_write(const train_run *r, const char *dir) SW_MUST_CHECK;
/* OUT/best, replacing an earlier one. */
int result_save_best(train_run *r) SW_MUST_CHECK;
/* The result into --out itself: present values, or those of OUT/best. */
int result_finish(train_run *r, bool best) SW_MUST_CHECK;

/* estimate.c: prints what a run would need. */
int train_estimate(train_run *r) SW_MUST_CHECK;
#endif
