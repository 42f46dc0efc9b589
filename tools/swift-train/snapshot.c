/* Checkpoints: OUT/checkpoint-STEP is a result that others load, with state.safetensors (master values and moments, f32,
 * by parameter) and trainer_state.json (counters, place in the data, the settings that must not change) beside it. */
#include "train.h"

#include "base/fileio.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "store/safetensors.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char prefix[] = "checkpoint-";

/* ---- finding them */

typedef struct steps {
    int64_t *at;
    size_t n, cap;
} steps;

static int by_step(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The steps of whole checkpoints, ascending; names that are being built or removed do not match. */
static steps list_steps(const char *out)
{
    steps s = {0};
    DIR *d = opendir(out);
    for (struct dirent *e; d && (e = readdir(d));) {
        const char *digits = e->d_name + strlen(prefix);
        if (!sw_starts_with(e->d_name, prefix) || !*digits || strspn(digits, "0123456789") != strlen(digits) || strlen(digits) > 18)
            continue;
        SW_PUSH(s, strtoll(digits, NULL, 10));
    }
    if (d)
        closedir(d);
    if (s.n)
        qsort(s.at, s.n, sizeof *s.at, by_step);
    return s;
}

static char *step_path(const char *out, int64_t step) { return sw_strfmt("%s/%s%lld", out, prefix, (long long)step); }

bool snapshot_any(const char *out)
{
    steps s = list_steps(out);
    free(s.at);
    return s.n > 0;
}

static int remove_first(const char *out, const steps *s, size_t n)
{
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        char *path = step_path(out, s->at[i]);
        rc = sw_remove_tree(path);
        free(path);
    }
    return rc;
}

int snapshot_remove_all(const char *out)
{
    steps s = list_steps(out);
    int rc = remove_first(out, &s, s.n);
    free(s.at);
    return rc;
}

/* ---- the settings that a run keeps when it resumes */

cJSON *snapshot_settings(const train_run *r)
{
    const sw_spec *s = &r->model->spec;
    cJSON *o = cJSON_CreateObject();
    sw_buf tuner = {0};
    if (r->tuned) {
        cJSON *config = cJSON_Duplicate(r->tuned->config, true);
        cJSON_DeleteItemFromObjectCaseSensitive(config, "base_model_name_or_path");
        sw_json_print(&tuner, config);
        cJSON_Delete(config);
    }
    char *model = sw_strfmt("%s, %lld layers of %lld, vocabulary %lld, %lld parameters", s->family->name, (long long)s->layers, (long long)s->hidden,
                            (long long)s->vocab, (long long)sw_model_parameter_count(r->model, false));
    cJSON_AddStringToObject(o, "model", model);
    cJSON_AddStringToObject(o, "tuner", r->tuned ? tuner.at : "full");
    cJSON_AddStringToObject(o, "data", feed_digest(r->feed).hex);
    cJSON_AddStringToObject(o, "optimizer", r->o->optimizer);
    cJSON_AddStringToObject(o, "dtype", r->compute == SW_F32 ? "f32" : "bf16");
    cJSON_AddNumberToObject(o, "seed", (double)sw_common_opts.seed);
    cJSON_AddNumberToObject(o, "records of an update", (double)(r->o->batch * r->o->accumulate));
    cJSON_AddBoolToObject(o, "shuffle", r->o->shuffle);
    cJSON *dropout = cJSON_CreateDoubleArray(s->dropout, SW_DROPS);
    if (s->drops)
        cJSON_AddItemToObject(o, "dropout", dropout);
    else
        cJSON_Delete(dropout);
    if (s->layer_drop > 0 || s->encoder_layer_drop > 0)
        cJSON_AddItemToObject(o, "layerdrop", cJSON_CreateDoubleArray((double[]){s->layer_drop, s->encoder_layer_drop}, 2));
    if (sw_model_has_new_head(r->model))
        cJSON_AddItemToObject(o, "labels", cJSON_Duplicate(sw_json_get(r->model->checkpoint->config, "id2label"), true));
    free(model);
    sw_buf_free(&tuner);
    return o;
}

int snapshot_compare(const cJSON *then, const cJSON *now, const char *format)
{
    for (const cJSON *n = now->child; n; n = n->next) {
        const cJSON *t = cJSON_GetObjectItemCaseSensitive(then, n->string);
        if (t && cJSON_Compare(t, n, true))
            continue;
        sw_buf a = {0}, b = {0};
        sw_json_print(&a, t ? t : n);
        sw_json_print(&b, n);
        int rc = sw_fail(format, n->string, t ? a.at : "not noted", b.at);
        sw_buf_free(&a);
        sw_buf_free(&b);
        return rc;
    }
    return 0;
}

/* ---- counters */

typedef struct field {
    const char *name;
    double *number;
    int64_t *whole;
} field;

enum { FIELDS = 18 };

static void fields_of(train_state *s, field f[FIELDS])
{
    train_window *w = &s->window;
    const field all[FIELDS] = {
        {"step", NULL, &s->step}, {"epoch", NULL, &s->place.epoch}, {"taken", NULL, &s->place.taken}, {"tokens", &s->tokens, NULL},
        {"elapsed", &s->elapsed, NULL}, {"best_loss", &s->best_loss, NULL}, {"best_step", NULL, &s->best_step},
        {"bad_evals", NULL, &s->bad_evals}, {"last_eval", NULL, &s->last_eval}, {"window_updates", NULL, &w->updates}, {"window_loss", &w->loss, NULL},
        {"window_norm", &w->norm, NULL}, {"window_tokens", &w->tokens, NULL}, {"window_seconds", &w->seconds, NULL},
        {"window_sum_loss", &w->sum.loss, NULL}, {"window_sum_weight", &w->sum.weight, NULL}, {"window_correct", &w->sum.correct, NULL},
        {"window_labelled", &w->sum.labelled, NULL},
    };
    memcpy(f, all, sizeof all);
}

static int write_counters(train_run *r, const char *dir)
{
    field f[FIELDS];
    fields_of(&r->state, f);
    cJSON *o = cJSON_CreateObject();
    for (int i = 0; i < FIELDS; i++)
        cJSON_AddNumberToObject(o, f[i].name, f[i].number ? *f[i].number : (double)*f[i].whole); /* infinity becomes null */
    cJSON_AddNumberToObject(o, "optimizer_steps", (double)r->optimizer.steps);
    cJSON_AddItemToObject(o, "settings", snapshot_settings(r));
    int rc = sw_save_json(dir, "trainer_state.json", o);
    cJSON_Delete(o);
    return rc;
}

static const char kept[] = "%s was %.200s and is %.200s now; a run that resumes keeps it (--overwrite begins anew)";

static int read_counters(train_run *r, const char *dir)
{
    char *path = sw_path_join(dir, "trainer_state.json");
    cJSON *o = sw_json_load(path), *now = snapshot_settings(r);
    train_state s = {0};
    field f[FIELDS];
    fields_of(&s, f);
    int rc = o ? 0 : -1;
    for (int i = 0; i < FIELDS && !rc; i++) {
        bool must = f[i].whole || strcmp(f[i].name, "best_loss");
        if (must && !sw_json_get(o, f[i].name))
            rc = sw_fail("\"%s\" is missing", f[i].name);
        else
            rc = f[i].whole ? sw_json_i64(o, f[i].name, -1, INT64_MAX / 2, -1, f[i].whole) : sw_json_f64(o, f[i].name, INFINITY, f[i].number);
    }
    rc = rc || sw_json_i64(o, "optimizer_steps", 0, INT64_MAX / 2, 0, &r->optimizer.steps) || snapshot_compare(sw_json_get(o, "settings"), now, kept) ? -1 : 0;
    if (rc && o)
        sw_fail_in("%s", path);
    else if (!rc)
        r->state = s;
    cJSON_Delete(o);
    cJSON_Delete(now);
    free(path);
    return rc;
}

/* ---- tensors */

static size_t n_buffers(const train_run *r)
{
    size_t n = 1;
    while (n <= SW_OPTIMIZER_STATES && r->optimizer.kind->states[n - 1])
        n++;
    return n;
}

/* Buffer 0 is the master values, the others are the optimiser's. */
static const sw_tensor *buffer(const train_run *r, size_t k, const char **name)
{
    *name = k ? r->optimizer.kind->states[k - 1] : "master";
    return k ? &r->optimizer.state[k - 1] : &r->flat.master;
}

static char *part_name(const char *name, const sw_param *p) { return sw_strfmt("%s/%s", name, p->name); }
static void *part_at(const sw_tensor *flat, const sw_param *p) { return (float *)flat->data + p->offset; }

/* Whether ranks hold parts of it only. The master values are whole on rank 0 while a result is written. */
static bool is_shared(const train_run *r, size_t k) { return k ? sw_flat_shares(&r->flat, SW_SHARE_OPTIMIZER) : sw_flat_shares_master(&r->flat); }

/* Before parameter i of buffer k is written, its bucket comes; after the bucket's last parameter it goes. */
static int collect_for(train_run *r, size_t k, size_t i)
{
    const sw_flat *f = &r->flat;
    int64_t bucket = sw_flat_bucket(f, f->params[i]->offset);
    const char *name;
    if (!k || !is_shared(r, k) || (i && sw_flat_bucket(f, f->params[i - 1]->offset) == bucket))
        return 0;
    return parallel_collect(&r->parallel, buffer(r, k, &name), bucket);
}

static void release_after(train_run *r, size_t k, size_t i)
{
    const sw_flat *f = &r->flat;
    int64_t bucket = sw_flat_bucket(f, f->params[i]->offset);
    const char *name;
    if (k && is_shared(r, k) && (i + 1 == f->n_params || sw_flat_bucket(f, f->params[i + 1]->offset) != bucket))
        sw_flat_release(f, buffer(r, k, &name), bucket);
}

/* The other ranks' part of writing. */
static int give_tensors(train_run *r)
{
    int rc = 0;
    for (size_t k = 0; k < n_buffers(r); k++)
        for (size_t i = 0; i < r->flat.n_params && !rc; i++)
            rc = collect_for(r, k, i);
    return rc;
}

static int write_tensors(train_run *r, const char *dir)
{
    char *path = sw_path_join(dir, "state.safetensors");
    sw_st_writer *w = sw_st_writer_new();
    size_t most = 0;
    for (size_t k = 0; k < n_buffers(r); k++)
        for (size_t i = 0; i < r->flat.n_params; i++) {
            const sw_param *p = r->flat.params[i];
            const char *name;
            buffer(r, k, &name);
            char *part = part_name(name, p);
            sw_st_declare(w, part, SW_F32, p->v.t.ndim, p->v.t.shape);
            most = SW_MAX(most, (size_t)sw_numel(&p->v.t) * sizeof(float));
            free(part);
        }
    void *host = r->device->host ? NULL : sw_malloc(most);
    int rc = sw_st_writer_open(w, path);
    for (size_t k = 0; k < n_buffers(r); k++)
        for (size_t i = 0; i < r->flat.n_params && !rc; i++) {
            const sw_param *p = r->flat.params[i];
            const char *name;
            const sw_tensor *from = buffer(r, k, &name);
            size_t bytes = (size_t)sw_numel(&p->v.t) * sizeof(float);
            rc = collect_for(r, k, i);
            if (host && !rc)
                rc = r->device->get(r->device, host, part_at(from, p), bytes);
            rc = rc ? rc : sw_st_write(w, host ? host : part_at(from, p), bytes);
            release_after(r, k, i);
        }
    free(host);
    if (rc)
        sw_st_writer_abort(w);
    else
        rc = sw_st_writer_commit(w);
    free(path);
    return rc;
}

static int read_part(train_run *r, const sw_safetensors *s, const char *path, size_t k, const sw_param *p)
{
    const char *name;
    const sw_tensor *to = buffer(r, k, &name);
    char *part = part_name(name, p);
    const sw_entry *e = sw_st_find(s, part);
    int rc = 0;
    if (!e || e->t.dtype != SW_F32 || sw_numel(&e->t) != sw_numel(&p->v.t))
        rc = sw_fail("%s: %s %s", path, part, e ? "has another type or shape" : "is missing");
    else
        rc = r->device->put(r->device, part_at(to, p), e->t.data, (size_t)sw_numel(&p->v.t) * sizeof(float));
    free(part);
    return rc;
}

/* Rank 0 reads, a bucket at a time, and gives it to all. */
static int read_tensors(train_run *r, const char *dir)
{
    sw_flat *f = &r->flat;
    char *path = sw_path_join(dir, "state.safetensors");
    sw_safetensors *s = r->comm->rank ? NULL : sw_st_open(path);
    int rc = sw_comm_agree(r->comm, s || r->comm->rank ? 0 : -1);
    for (size_t k = 0; k < n_buffers(r) && !rc; k++) {
        const char *name;
        const sw_tensor *to = buffer(r, k, &name);
        size_t i = 0;
        for (int64_t b = 0; b < f->n_buckets && !rc; b++) {
            for (; i < f->n_params && sw_flat_bucket(f, f->params[i]->offset) == b && !rc; i++)
                rc = s ? read_part(r, s, path, k, f->params[i]) : 0;
            /* The copy to compute with is made while the bucket is whole. */
            rc = sw_comm_agree(r->comm, rc) || parallel_spread(&r->parallel, to, b) ||
                         (!k && sw_flat_refresh_range(f, f->buckets[b], f->buckets[b + 1] - f->buckets[b]))
                     ? -1
                     : 0;
            if (!rc && is_shared(r, k))
                sw_flat_release(f, to, b);
            if (!rc && !k && f->low.data && sw_flat_shares(f, SW_SHARE_PARAMETERS))
                sw_flat_release(f, &f->low, b);
        }
    }
    if (s)
        sw_st_close(s);
    free(path);
    return rc;
}

/* ---- the whole */

static int save_here(train_run *r)
{
    char *path = step_path(r->o->out, r->state.step);
    sw_outdir dir;
    int rc = sw_outdir_begin(&dir, path);
    if (!rc) {
        rc = result_write(r, dir.temporary) || write_tensors(r, dir.temporary) || write_counters(r, dir.temporary) ? -1 : 0;
        if (rc)
            sw_outdir_abort(&dir);
        else
            rc = sw_outdir_commit(&dir);
    }
    steps s = list_steps(r->o->out);
    if (!rc && r->o->keep && s.n > (size_t)r->o->keep)
        rc = remove_first(r->o->out, &s, s.n - (size_t)r->o->keep);
    free(s.at);
    free(path);
    return rc;
}

/* A failure of rank 0 ends the run: the others may be waiting for it in any of the buckets. */
int snapshot_save(train_run *r)
{
    int rc = parallel_collect_master(&r->parallel) || (r->comm->rank ? give_tensors(r) : save_here(r)) ? -1 : 0;
    if (!rc)
        rc = sw_comm_barrier(r->comm); /* nobody goes on as if it were there before it is */
    parallel_release_master(&r->parallel);
    return rc ? sw_fail_in("checkpoint") : 0;
}

int snapshot_resume(train_run *r)
{
    steps s = r->comm->rank ? (steps){0} : list_steps(r->o->out);
    int64_t newest = s.n ? s.at[s.n - 1] : -1;
    free(s.at);
    if (sw_comm_broadcast(r->comm, &newest, sizeof newest, 0))
        return -1;
    if (newest < 0)
        return 0;
    char *dir = step_path(r->o->out, newest);
    int rc = sw_comm_agree(r->comm, r->comm->rank ? 0 : read_counters(r, dir));
    rc = rc || sw_comm_broadcast(r->comm, &r->state, sizeof r->state, 0) ||
                 sw_comm_broadcast(r->comm, &r->optimizer.steps, sizeof r->optimizer.steps, 0) || read_tensors(r, dir) ||
                 sw_comm_agree(r->comm, feed_seek(r->feed, r->state.place))
             ? -1
             : 1;
    if (rc > 0)
        sw_info("going on from %s", dir);
    else
        sw_fail_in("--resume");
    free(dir);
    return rc;
}
