/* The loop: updates, and after each what is due (metrics, evaluation, checkpoint, plot). */
#include "train.h"

#include "base/fileio.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct loop {
    train_run *r;
    sw_progress progress;
    double begun, saved_at; /* sw_now() */
    int64_t first, saved;   /* steps: at the start of this process; of the newest checkpoint */
    struct loop_data {
        train_step_data data;
        int64_t taken;      /* records of the update, of all ranks */
        feed_place place;   /* behind them */
    } now, next;
    bool looked_ahead;      /* next is there */
    int64_t part;           /* of the update that is being run */
    const char *reason;     /* why the run ended, or NULL */
    bool ended;             /* the data has */
} loop;

/* ---- metrics */

static int record(train_run *r, cJSON *o)
{
    int rc = !r->metrics ? 0 : sw_metrics_write(r->metrics, o) || (r->more_metrics && sw_metrics_write(r->more_metrics, o)) ? -1 : 0;
    cJSON_Delete(o);
    return rc;
}

static cJSON *new_record(const train_run *r, const char *kind)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "kind", kind);
    cJSON_AddNumberToObject(o, "step", (double)r->state.step);
    return o;
}

static double memory_used(const train_run *r)
{
    return r->device->host ? (double)sw_current_rss() : (double)(r->fixed_bytes + sw_ctx_bytes(&r->ctx));
}

static double epoch_of(const train_run *r)
{
    return r->epoch_steps ? (double)r->state.step / (double)r->epoch_steps : (double)r->state.place.epoch;
}

static int record_start(train_run *r)
{
    cJSON *o = new_record(r, "start");
    cJSON_AddStringToObject(o, "command", sw_command_line());
    cJSON_AddStringToObject(o, "device", r->device->description);
    if (r->comm->ranks > 1)
        cJSON_AddNumberToObject(o, "ranks", r->comm->ranks);
    cJSON_AddNumberToObject(o, "parameters", (double)sw_model_parameter_count(r->model, false));
    int64_t trained = 0;
    for (size_t i = 0; i < r->flat.n_params; i++)
        trained += sw_numel(&r->flat.params[i]->v.t);
    cJSON_AddNumberToObject(o, "trainable", (double)trained);
    if (r->steps)
        cJSON_AddNumberToObject(o, "steps", (double)r->steps);
    return record(r, o);
}

/* Whether labels are classes, and not tokens. */
static bool classes(const train_run *r) { return r->objective->of_records || r->objective->of_words; }

/* Of spans (names of people and the like): how many of those found are right, how many of those that are there were found, and
 * the harmonic mean of the two, all types together. */
static void add_spans(const train_run *r, cJSON *o, const sw_loss *sum)
{
    if (!r->objective->of_words || !r->tags.spans)
        return;
    cJSON_AddNumberToObject(o, "precision", sum->said > 0 ? sum->right / sum->said : 0);
    cJSON_AddNumberToObject(o, "recall", sum->spans > 0 ? sum->right / sum->spans : 0);
    cJSON_AddNumberToObject(o, "f1", sum->said + sum->spans > 0 ? 2 * sum->right / (sum->said + sum->spans) : 0);
}

/* The share of labels that were the most likely ones. Values have none. */
static void add_accuracy(const train_run *r, cJSON *o, const sw_loss *sum)
{
    if (!r->objective->of_records || r->objective_options.problem != SW_PROBLEM_VALUE)
        cJSON_AddNumberToObject(o, classes(r) ? "accuracy" : "token_accuracy", sum->labelled > 0 ? sum->correct / sum->labelled : 0);
}

static int record_train(loop *l, double lr)
{
    train_run *r = l->r;
    train_window *w = &r->state.window;
    double n = (double)w->updates, here = (double)(r->state.step - l->first);
    cJSON *o = new_record(r, "train");
    cJSON_AddNumberToObject(o, "epoch", epoch_of(r));
    cJSON_AddNumberToObject(o, "loss", w->loss / n);
    add_accuracy(r, o, &w->sum);
    cJSON_AddNumberToObject(o, "grad_norm", w->norm / n);
    cJSON_AddNumberToObject(o, "lr", lr);
    cJSON_AddNumberToObject(o, "tokens", r->state.tokens);
    cJSON_AddNumberToObject(o, "tokens_per_second", w->seconds > 0 ? w->tokens / w->seconds : 0);
    cJSON_AddNumberToObject(o, "memory", memory_used(r));
    cJSON_AddNumberToObject(o, "elapsed", r->state.elapsed);
    if (r->steps)
        cJSON_AddNumberToObject(o, "time_left", here > 0 ? (sw_now() - l->begun) / here * (double)(r->steps - r->state.step) : 0);
    *w = (train_window){0};
    return record(r, o);
}

static void plot(const train_run *r, bool asked)
{
    if (!r->comm->rank && r->plot_path && sw_metrics_plot(r->metrics_path, r->plot_path, r->o->out)) {
        if (asked || r->o->plot)
            sw_warn("no plot: %s", sw_error());
        else
            sw_info("no plot: %s", sw_error());
    }
}

/* ---- one update */

/* This rank's samples of update `step` (from 0) as the feed gives them next. */
static int take(train_run *r, int64_t step, struct loop_data *d)
{
    int rc = 0;
    d->taken = 0;
    do /* an epoch's last update takes what is left */
        rc = feed_take(r->feed, r->o->batch * r->o->accumulate, r->each, &d->data, &d->taken);
    while (!rc && !d->taken && r->epoch_steps);
    d->place = feed_tell(r->feed);
    if (!rc)
        train_mask(r, &d->data, (uint32_t)step, r->comm->rank * r->each, "mask");
    return rc;
}

/* The samples of the update to come: 1, 0 the data has ended, -1. */
static int gather(loop *l)
{
    train_run *r = l->r;
    int rc = 0;
    if (l->looked_ahead) {
        struct loop_data old = l->now;
        l->now = l->next;
        l->next = old;
        l->looked_ahead = false;
    } else {
        rc = take(r, r->state.step, &l->now);
    }
    return sw_comm_agree(r->comm, rc) ? -1 : l->now.taken > 0;
}

/* Parts of an update that each rank runs: the first rank is never short of records before another. */
static int64_t parts_of(const loop *l)
{
    return (SW_MIN(l->r->each, l->now.taken) + l->r->batch - 1) / l->r->batch;
}

static train_part part_of(const train_run *r, const train_step_data *d, int64_t i)
{
    size_t at = SW_MIN((size_t)(i * r->batch), d->n);
    return (train_part){.samples = d->at + at, .n = SW_MIN((size_t)r->batch, d->n - at), .first = r->comm->rank * r->each + (int64_t)at};
}

/* While the device is at work on a part: what it will be given next is read and sent. */
static void look_ahead(void *arg)
{
    loop *l = arg;
    train_run *r = l->r;
    const train_step_data *d = &l->now.data;
    int64_t next = l->part + 1;
    if (next == parts_of(l)) {
        if (!feed_at_once(r->feed) || l->looked_ahead || (r->steps && r->state.step + 1 >= r->steps))
            return;
        feed_place place = feed_tell(r->feed);
        if (take(r, r->state.step + 1, &l->next)) { /* to be tried again, and told, when its turn comes */
            int rc = feed_seek(r->feed, place);
            (void)rc;
            sw_error_clear();
            return;
        }
        l->looked_ahead = true;
        d = &l->next.data;
        next = 0;
    }
    train_part p = part_of(r, d, next);
    if (p.n)
        train_send(r, &p);
}

/* Forward and backward of part i; leaves gradients summed up. */
static int run_part(loop *l, int64_t i, double divisor, sw_loss *sum)
{
    train_run *r = l->r;
    train_part p = part_of(r, &l->now.data, i);
    r->ctx.rng = r->twin.rng = (sw_rng){(uint64_t)sw_common_opts.seed, (uint32_t)r->state.step, 0};
    l->part = i;
    p.divisor = divisor;
    p.backward = true;
    p.meanwhile = look_ahead;
    p.meanwhile_arg = l;
    return train_run_part(r, &p, sum);
}

/* Goes through the update again with every op's result checked, to say where the first NaN or infinity comes from. */
static int find_nan(loop *l, double divisor, const char *what)
{
    train_run *r = l->r;
    sw_loss sum = {0};
    int rc = sw_flat_zero_grad(&r->flat);
    train_forget_sent(r);
    r->ctx.check = r->twin.check = true;
    for (int64_t i = 0; !rc && i < parts_of(l); i++)
        rc = run_part(l, i, divisor, &sum);
    r->ctx.check = r->twin.check = false;
    sw_ctx_reset(r->at_work);
    /* Ranks that wait for this one's values cannot be told. */
    if (!rc || !parallel_needs_all(&r->parallel)) {
        rc = sw_comm_agree(r->comm, rc);
        r->comm->agreed = true;
    }
    char *where = rc ? sw_strdup(sw_error()) : sw_strdup("no single op makes it: sums overflow");
    sw_fail("update %lld: the %s is not a number: %s. Nothing was changed by it; a lower --lr or --dtype f32 may help",
            (long long)r->state.step + 1, what, where);
    free(where);
    return -1;
}

/* 1 done, 0 interrupted before the end (nothing changed), -1. */
static int update(loop *l, double *lr)
{
    train_run *r = l->r;
    const train_step_data *d = &l->now.data;
    double divisor = train_labelled(r->objective, d->at, d->n), begun = sw_now(), norm;
    sw_loss sum = {0};
    if (parallel_sum(&r->parallel, &divisor, 1))
        return -1;
    *lr = r->lr * sw_schedule_at(r->schedule, r->state.step, r->warmup, r->steps);
    if (divisor > 0) {
        for (int64_t i = 0, parts = parts_of(l); i < parts; i++) {
            if (train_poll(r))
                return -1;
            if (r->stopping)
                return 0;
            if (parallel_begin(&r->parallel, i + 1 == parts) || run_part(l, i, divisor, &sum) || parallel_end(&r->parallel))
                return sw_fail_in("update %lld", (long long)r->state.step + 1);
        }
    }
    double tokens = 0;
    for (size_t i = 0; i < d->n; i++)
        tokens += (double)d->at[i]->n;
    if (train_sum(r, &sum, &tokens))
        return -1;
    if (divisor > 0) {
        if (parallel_wait(&r->parallel))
            return -1;
        if (!isfinite(sum.loss))
            return find_nan(l, divisor, "loss");
        if (parallel_norm(&r->parallel, &norm))
            return -1;
        if (!isfinite(norm))
            return find_nan(l, divisor, "gradient");
        if (sw_optimizer_step(&r->optimizer, *lr, sw_clip_scale(norm, r->o->clip)) || parallel_share_values(&r->parallel) ||
            sw_flat_zero_grad(&r->flat))
            return -1;
    } else {
        norm = 0;
        sw_warn("update %lld: its %lld records hold no %s; nothing to learn from them", (long long)r->state.step + 1,
                (long long)l->now.taken, train_labels_name(r->objective));
    }
    train_window *w = &r->state.window;
    double seconds = sw_now() - begun;
    r->state.step++;
    r->state.tokens += tokens;
    r->state.elapsed += seconds;
    w->updates++;
    w->loss += sum.loss;
    w->norm += norm;
    w->tokens += tokens;
    w->seconds += seconds;
    w->sum.correct += sum.correct;
    w->sum.labelled += sum.labelled;
    w->sum.weight += sum.weight;
    return 1;
}

/* After the first update: whether the longest batch will fit too. Activations grow with tokens. */
static int check_longest(const loop *l)
{
    const train_run *r = l->r;
    sw_shard_totals t;
    if (!feed_totals(r->feed, &t))
        return 0;
    double first = 0, longest = (double)(t.longest * r->batch);
    const train_step_data *d = &l->now.data;
    for (size_t i = 0, at = 0; at < d->n; at += (size_t)r->batch, i++) {
        double n = 0;
        for (size_t k = at; k < SW_MIN(at + (size_t)r->batch, d->n); k++)
            n += (double)d->at[k]->n;
        first = fmax(first, n);
    }
    double need = (double)r->fixed_bytes + (double)sw_ctx_peak(&r->ctx) * longest / fmax(first, 1);
    size_t left, all = sw_physical_memory();
    if (r->device->memory && r->device->memory(r->device, &left, &all))
        return -1;
    double limit = r->o->max_memory ? (double)r->o->max_memory : (double)all;
    if (!limit || need <= limit)
        return 0;
    char a[32], b[32];
    sw_human_bytes(need, a);
    sw_human_bytes(limit, b);
    if (r->o->max_memory)
        return sw_fail("--max-memory %s: a batch of %lld records of the longest length (%lld tokens) will take about %s; use a smaller --batch "
                       "with more --accumulate, --recompute, or a shorter --max-length", b, (long long)r->batch, (long long)t.longest, a);
    sw_warn("a batch of %lld records of the longest length (%lld tokens) will take about %s, %s has %s; a smaller --batch with more "
            "--accumulate, --recompute, or a shorter --max-length takes less", (long long)r->batch, (long long)t.longest, a,
            r->device->host ? "this machine" : r->device->name, b);
    return 0;
}

/* ---- what is due after an update */

static int save(loop *l)
{
    train_run *r = l->r;
    if (l->saved == r->state.step)
        return 0;
    if (snapshot_save(r))
        return -1;
    l->saved = r->state.step;
    l->saved_at = sw_now();
    cJSON *o = new_record(r, "save");
    char *path = sw_strfmt("%s/checkpoint-%lld", r->o->out, (long long)r->state.step);
    cJSON_AddStringToObject(o, "path", path);
    free(path);
    return record(r, o);
}

static int evaluate(loop *l)
{
    train_run *r = l->r;
    train_state *s = &r->state;
    sw_loss sum;
    if (train_evaluate(r, &sum))
        return -1;
    if (r->stopping) /* the run that resumes does it again */
        return 0;
    double loss = sum.loss / sum.labelled;
    bool best = loss < s->best_loss;
    s->last_eval = s->step;
    s->bad_evals = best ? 0 : s->bad_evals + 1;
    if (best) {
        s->best_loss = loss;
        s->best_step = s->step;
        if (result_save_best(r))
            return -1;
    }
    cJSON *o = new_record(r, "eval");
    cJSON_AddNumberToObject(o, "epoch", epoch_of(r));
    cJSON_AddNumberToObject(o, "loss", loss);
    if (!classes(r))
        cJSON_AddNumberToObject(o, "perplexity", exp(loss));
    add_accuracy(r, o, &sum);
    add_spans(r, o, &sum);
    cJSON_AddNumberToObject(o, r->objective->of_records ? "records" : r->objective->of_words ? "words" : "tokens", sum.labelled);
    cJSON_AddBoolToObject(o, "best", best);
    sw_info("step %lld: evaluation loss %.4f%s", (long long)s->step, loss, best ? " (best)" : "");
    if (r->o->early_stop && s->bad_evals >= r->o->early_stop)
        l->reason = "early-stop";
    return record(r, o);
}

static bool due(const train_run *r, int64_t every)
{
    return every ? r->state.step % every == 0 : r->state.place.taken == 0;
}

/* Also at the start of a run that resumes: a stop may have come between an update and what was due after it. */
static int after_update(loop *l)
{
    train_run *r = l->r;
    if (r->plot_asked)
        plot(r, true);
    r->plot_asked = false;
    if (r->val && r->state.last_eval != r->state.step && due(r, r->o->eval_steps) && evaluate(l))
        return -1;
    if (!r->state.step || r->stopping)
        return 0;
    bool late = r->o->save_minutes > 0 && sw_now() - l->saved_at > 60 * r->o->save_minutes;
    if (r->o->save_minutes > 0 && sw_comm_broadcast(r->comm, &late, sizeof late, 0)) /* by one clock */
        return -1;
    return (late || due(r, r->o->save_steps)) ? save(l) : 0;
}

/* ---- the whole */

static int begin(loop *l)
{
    train_run *r = l->r;
    int resumed = r->o->resume ? snapshot_resume(r) : 0;
    if (resumed < 0)
        return -1;
    if (!r->comm->rank) {
        int64_t step = resumed ? r->state.step : -1, eval = r->state.last_eval;
        r->metrics = sw_metrics_open(r->metrics_path, step, eval);
        if (!r->metrics || (r->o->metrics && !(r->more_metrics = sw_metrics_open(r->o->metrics, step, eval))))
            return -1;
    }
    l->first = l->saved = resumed ? r->state.step : -1;
    l->first = SW_MAX(l->first, 0);
    l->begun = l->saved_at = sw_now();
    if (record_start(r) || sw_flat_zero_grad(&r->flat))
        return -1;
    if (!resumed && !r->o->eval_first)
        return 0;
    return after_update(l);
}

static int finish(loop *l)
{
    train_run *r = l->r;
    if (r->val && r->state.last_eval != r->state.step && evaluate(l))
        return -1;
    if (r->stopping || save(l))
        return r->stopping ? 0 : -1;
    bool best = r->o->early_stop && r->state.best_step >= 0 && r->state.best_step != r->state.step;
    if (result_finish(r, best))
        return -1;
    if (best)
        sw_info("the result is that of step %lld, of evaluation loss %.4f", (long long)r->state.best_step, r->state.best_loss);
    cJSON *o = new_record(r, "end");
    cJSON_AddStringToObject(o, "reason", l->reason);
    cJSON_AddNumberToObject(o, "elapsed", r->state.elapsed);
    cJSON_AddNumberToObject(o, "peak_memory", r->device->host ? (double)sw_peak_rss() : (double)(r->fixed_bytes + sw_ctx_peak(&r->ctx)));
    return record(r, o);
}

/* Interrupted: what was learnt is kept. */
static int stop(loop *l)
{
    train_run *r = l->r;
    r->comm->agreed = !r->state.step;
    if (!r->state.step)
        return sw_fail("interrupted before the first update");
    if (save(l))
        return -1;
    cJSON *o = new_record(r, "end");
    cJSON_AddStringToObject(o, "reason", "interrupted");
    cJSON_AddNumberToObject(o, "elapsed", r->state.elapsed);
    if (record(r, o))
        return -1;
    r->comm->agreed = true;
    return sw_fail("interrupted after update %lld; --resume goes on from there", (long long)r->state.step);
}

static int step(loop *l)
{
    train_run *r = l->r;
    int got = gather(l);
    if (got < 0 && r->comm->ranks == 1 && sw_interrupted()) { /* while it waited for a pipe */
        r->stopping = true;
        return 0;
    }
    if (got < 0) { /* bad data does not cost what was learnt before it */
        char *why = sw_strdup(sw_error());
        bool agreed = r->comm->agreed;
        r->comm->agreed = false;
        if (!r->state.step || !save(l)) {
            r->comm->agreed = agreed;
            sw_fail("%s", why);
        }
        free(why);
        return -1;
    }
    if (!got) {
        if (!r->state.step)
            return sw_fail("standard input: holds no records");
        l->reason = "done";
        if (r->o->max_steps && !sw_option_given("epochs"))
            sw_warn("standard input ended after %lld of %lld updates; --epochs 2 or more, or a file, goes over it again", (long long)r->state.step,
                    (long long)r->o->max_steps);
        return 0;
    }
    /* Files say at once that the epoch is over. */
    sw_shard_totals t;
    double lr;
    int rc = update(l, &lr);
    if (rc < 1)
        return rc;
    r->state.place = l->now.place;
    if (feed_totals(r->feed, &t) && r->state.place.taken == t.records)
        r->state.place = (feed_place){r->state.place.epoch + 1, 0};
    char extra[48];
    snprintf(extra, sizeof extra, "loss %.4f", r->state.window.updates ? r->state.window.loss / (double)r->state.window.updates : 0);
    bool last = r->steps && r->state.step >= r->steps;
    if ((r->state.step % r->o->log_steps == 0 || last) && record_train(l, lr))
        return -1;
    sw_progress_update(&l->progress, (double)r->state.step, extra);
    if (r->state.step == l->first + 1 && sw_comm_agree(r->comm, check_longest(l)))
        return -1;
    if (last)
        l->reason = r->o->max_steps && r->state.step >= r->o->max_steps ? "max-steps" : "done";
    return last ? 0 : after_update(l);
}

int train_loop(train_run *r)
{
    loop l = {.r = r};
    int rc = begin(&l);
    if (!rc) {
        sw_progress_begin(&l.progress, "training", "updates", (double)r->steps);
        sw_progress_update(&l.progress, (double)r->state.step, NULL);
        if (r->steps && r->state.step >= r->steps && !l.reason)
            l.reason = "done";
        while (!rc && !l.reason && !(rc = train_poll(r)) && !r->stopping)
            rc = step(&l);
        if (!rc && !r->stopping)
            rc = finish(&l);
        sw_progress_end(&l.progress);
        if (!rc && r->stopping)
            rc = stop(&l);
    }
    train_step_free(&l.now.data);
    train_step_free(&l.next.data);
    free(l.now.data.at);
    free(l.next.data.at);
    char *why = rc ? sw_strdup(sw_error()) : NULL;
    int closed = sw_metrics_close(r->metrics) || sw_metrics_close(r->more_metrics) ? -1 : 0;
    if (rc)
        sw_fail("%s", why);
    free(why);
    rc = rc ? rc : closed;
    if (!rc)
        plot(r, false);
    return rc;
}
