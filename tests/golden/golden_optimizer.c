/* Kind optimizer: twenty steps of training with an optimiser, gradient accumulation, clipping, and schedules (shared
 * INDEX.md "optimizer/"). */
#include "golden.h"
#include "golden_rows.h"

#include "base/fileio.h"
#include "base/json.h"
#include "base/strbuf.h"
#include "tools/swift-train/optimizer.h"
#include "tools/swift-train/schedule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int is_schedules(const char *path)
{
    char *file = sw_strfmt("%s.json", path);
    cJSON *o = sw_is_file(file) ? sw_json_load(file) : NULL;
    const cJSON *rows = sw_json_get(o, "schedules");
    int yes = rows && sw_json_get(rows->child, "values");
    cJSON_Delete(o);
    free(file);
    return yes;
}

static int is_case(const char *path)
{
    return (golden_has(path, "case.json") && golden_has(path, "final.safetensors")) || golden_has(path, "clip.json") ||
           (!sw_is_dir(path) && is_schedules(path));
}

static int check(double *worst, double difference, double tolerance, const char *what)
{
    if (!(difference <= *worst))
        *worst = difference;
    return difference <= tolerance ? 0 : sw_fail("%s differs by %.3g, %.2g is allowed", what, difference, tolerance);
}

/* ---- schedules */

/* transformers' names, with the variant that a name may carry ("linear_w5"). */
static const sw_schedule *schedule_of(const char *row)
{
    static const char *const rows[][2] = {{"linear_w", "linear"}, {"cosine_w", "cosine"}, {"constant_with_warmup_w", "constant"}};
    if (!strcmp(row, "constant"))
        return sw_schedule_find(row);
    for (size_t i = 0; i < SW_COUNT(rows); i++) {
        const char *tail = row + strlen(rows[i][0]);
        if (sw_starts_with(row, rows[i][0]) && *tail && strspn(tail, "0123456789") == strlen(tail))
            return sw_schedule_find(rows[i][1]);
    }
    return NULL;
}

static int run_schedules(const char *path, double *worst)
{
    char *file = sw_strfmt("%s.json", path);
    cJSON *o = sw_json_load(file);
    sw_buf unknown = {0};
    int rc = o ? 0 : -1;
    const cJSON *all = sw_json_get(o, "schedules");
    for (const cJSON *row = all ? all->child : NULL; row && !rc; row = row->next) {
        const cJSON *config = sw_json_get(row, "config"), *values = sw_json_get(row, "values");
        const sw_schedule *s = schedule_of(row->string);
        if (!s) {
            sw_buf_printf(&unknown, "%s%s", unknown.n ? ", " : "", row->string);
            continue;
        }
        int64_t warmup, total, step = 0;
        rc = sw_json_i64(config, "num_warmup_steps", 0, 1000000, 0, &warmup) || sw_json_i64(config, "num_training_steps", 0, 1000000, 50, &total);
        for (const cJSON *v = values ? values->child : NULL; v && !rc; v = v->next, step++)
            rc = check(worst, fabs(sw_schedule_at(s, step, warmup, total) - v->valuedouble), 1e-8, row->string);
        if (!rc && !step)
            rc = sw_fail("%s: no values", row->string);
    }
    if (!rc && unknown.n)
        rc = sw_fail("the other schedules agree, these are not known here: %s", unknown.at);
    sw_buf_free(&unknown);
    cJSON_Delete(o);
    free(file);
    return rc ? -1 : 0;
}

/* ---- clipping of given gradients */

static int run_clip(const char *dir, double *worst)
{
    char *info_path = sw_path_join(dir, "clip.json"), *path = sw_path_join(dir, "clip.safetensors");
    cJSON *info = sw_json_load(info_path);
    sw_safetensors *s = sw_st_open(path);
    sw_device *d = sw_device_open(golden_device);
    sw_params list = {0};
    sw_flat flat = {0};
    const char *names[] = {"a", "b"};
    int rc = info && s && d ? 0 : -1;
    for (size_t i = 0; i < 2 && !rc; i++) {
        const sw_entry *e = sw_st_find(s, names[i]);
        sw_param *p = e ? sw_param_new(&list, d, names[i], SW_F32, e->t.ndim, e->t.shape) : NULL;
        rc = p ? d->k->fill(d->stream, &p->v.t, 0) : sw_fail("%s is missing", names[i]);
        if (p)
            p->trainable = true;
    }
    rc = rc || sw_flat_build(&flat, &list, d, SW_F32) ? -1 : 0;
    const cJSON *norms = sw_json_get(info, "norms");
    for (const cJSON *n = norms ? norms->child : NULL; n && !rc; n = n->next) {
        double norm = 0, limit = atof(n->string);
        for (size_t i = 0; i < 2 && !rc; i++)
            rc = d->put(d, flat.grads[i].t.data, sw_st_find(s, names[i])->t.data, sw_tensor_bytes(&flat.grads[i].t));
        rc = rc || sw_grad_norm(&flat, &norm) || check(worst, fabs(norm / n->valuedouble - 1), 1e-6, "the norm");
        double scale = sw_clip_scale(norm, limit);
        for (size_t i = 0; i < 2 && !rc; i++) {
            char *name = sw_strfmt("%s_clipped/%s", names[i], n->string);
            const sw_entry *raw = sw_st_find(s, names[i]), *want = sw_st_find(s, name);
            rc = want ? 0 : sw_fail("%s is missing", name);
            for (int64_t k = 0; !rc && k < sw_numel(&want->t); k++)
                rc = check(worst, fabs(((const float *)raw->t.data)[k] * scale - ((const float *)want->t.data)[k]), 1e-6, name);
            free(name);
        }
    }
    if (flat.device)
        sw_flat_free(&flat);
    if (d)
        sw_params_free(&list, d);
    if (s)
        sw_st_close(s);
    if (d)
        d->close(d);
    cJSON_Delete(info);
    free(info_path);
    free(path);
    return rc ? -1 : 0;
}

/* ---- training */

typedef struct trial {
    cJSON *info;
    sw_device *device;
    sw_model *model;
    sw_safetensors *data, *final;
    sw_flat flat;
    sw_ctx ctx;
    bool ctx_ready;
    sw_optimizer optimizer;
    golden_rows rows;
    int64_t accumulation;
    double lr;
    double *worst;
} trial;

/* The optimiser is the beginning of the case's own name in case.json; a configuration it does not know is refused. */
static int read_optimizer(trial *t)
{
    static const char *const known[] = {"lr", "betas", "eps", "weight_decay"};
    const cJSON *config = sw_json_get(t->info, "config");
    const char *name, *note;
    sw_optimizer_options o = {0, 0.9, 0.999, 1e-8};
    if (sw_json_str(t->info, "case", "adamw", &name) || sw_json_str(t->info, "note", "", &note) ||
        sw_json_i64(t->info, "accumulation", 1, 64, 1, &t->accumulation))
        return -1;
    if (!config)
        config = t->info; /* gradient accumulation has its few values there */
    else
        for (const cJSON *c = config->child; c; c = c->next) {
            bool ok = false;
            for (size_t i = 0; i < SW_COUNT(known); i++)
                ok |= !strcmp(c->string, known[i]);
            if (!ok)
                return sw_fail("\"%s\" is not known here", c->string);
        }
    if (!sw_starts_with(name, "adamw"))
        return sw_fail("the optimiser '%s' is not known here", name);
    const cJSON *betas = sw_json_get(config, "betas");
    if (cJSON_IsArray(betas) && cJSON_GetArraySize(betas) == 2) {
        o.beta1 = betas->child->valuedouble;
        o.beta2 = betas->child->next->valuedouble;
    }
    if (sw_json_f64(config, "lr", 0, &t->lr) || sw_json_f64(config, "eps", 1e-8, &o.eps) || sw_json_f64(config, "weight_decay", 0.01, &o.weight_decay))
        return -1;
    bool spare_norms = strstr(note, "not decayed") != NULL;
    for (size_t i = 0; i < t->model->params.n; i++) {
        sw_param *p = t->model->params.at[i];
        p->trainable = true;
        p->decay = !spare_norms || p->v.t.ndim >= 2;
    }
    return sw_flat_build(&t->flat, &t->model->params, t->device, SW_F32) || sw_flat_zero_grad(&t->flat)
               ? -1
               : sw_optimizer_init(&t->optimizer, sw_optimizer_find("adamw"), &o, &t->flat);
}

static const cJSON *item(const cJSON *list, int64_t i) { return cJSON_GetArrayItem(list, (int)i); }

static int train(trial *t)
{
    const cJSON *losses = sw_json_get(t->info, "losses"), *norms = sw_json_get(t->info, "grad_norms"), *factors = sw_json_get(t->info, "lr_factor");
    int64_t steps = cJSON_GetArraySize(losses);
    double clip;
    if (!steps || cJSON_GetArraySize(norms) != steps || sw_json_f64(t->info, "clip", 1, &clip))
        return sw_fail("case.json has another form");
    for (int64_t step = 0; step < steps; step++) {
        double divisor = 0, norm;
        for (int64_t k = 0; k < t->accumulation; k++) {
            if (golden_rows_read(&t->rows, t->data, step * t->accumulation + k, NULL))
                return -1;
            divisor += t->rows.labelled;
        }
        sw_loss sum = {0};
        for (int64_t k = 0; k < t->accumulation; k++)
            if (golden_rows_read(&t->rows, t->data, step * t->accumulation + k, NULL) ||
                sw_objective_sft.run(&t->ctx, t->model, &t->rows.b, &(sw_objective_options){0}, divisor, true, step % 2, &sum))
                return -1;
        double factor = factors ? item(factors, step)->valuedouble : 1;
        if (sw_grad_norm(&t->flat, &norm) || check(t->worst, fabs(sum.loss / item(losses, step)->valuedouble - 1), 1e-4, "a loss on the way") ||
            check(t->worst, fabs(norm / item(norms, step)->valuedouble - 1), 1e-3, "a gradient's norm on the way") ||
            sw_optimizer_step(&t->optimizer, t->lr * factor, sw_clip_scale(norm, clip)) || sw_flat_zero_grad(&t->flat))
            return -1;
    }
    return 0;
}

static int check_final(trial *t)
{
    double drift;
    if (sw_json_f64(t->info, "final_weight_max_abs_diff_f64", 0, &drift))
        return -1;
    for (size_t i = 0; i < sw_st_count(t->final); i++) {
        const sw_entry *e = sw_st_at(t->final, i);
        const sw_param *p = sw_param_find(&t->model->params, e->name);
        if (!p || sw_numel(&p->master) != sw_numel(&e->t))
            return sw_fail("%s: no trained tensor of that name and size", e->name);
        float *host = sw_malloc(sw_tensor_bytes(&p->master));
        int rc = t->device->get(t->device, host, p->master.data, sw_tensor_bytes(&p->master)) ||
                 check(t->worst, golden_max_diff(host, e->t.data, (size_t)sw_numel(&e->t)), fmax(1e-4, 20 * drift), e->name);
        free(host);
        if (rc)
            return -1;
    }
    return 0;
}

static int run_training(const char *dir, double *worst)
{
    trial t = {.worst = worst};
    char *info = sw_path_join(dir, "case.json"), *final = sw_path_join(dir, "final.safetensors");
    char *base = sw_strfmt("%s/../base/llama", dir), *data = sw_strfmt("%s/../data/train.safetensors", dir);
    t.info = sw_json_load(info);
    t.device = sw_device_open(golden_device);
    t.model = t.device ? sw_model_load(base, t.device, &(sw_load_options){.dtype = SW_F32}) : NULL;
    t.data = sw_st_open(data);
    t.final = sw_st_open(final);
    int rc = t.info && t.model && t.data && t.final ? 0 : -1;
    if (!rc) {
        rc = sw_ctx_init(&t.ctx, t.device, SW_F32);
        t.ctx_ready = !rc;
        rc = rc || read_optimizer(&t) || train(&t) || check_final(&t) ? -1 : 0;
    }
    if (t.ctx_ready)
        sw_ctx_free(&t.ctx);
    if (t.optimizer.flat)
        sw_optimizer_free(&t.optimizer);
    if (t.flat.device)
        sw_flat_free(&t.flat);
    sw_model_free(t.model);
    if (t.data)
        sw_st_close(t.data);
    if (t.final)
        sw_st_close(t.final);
    golden_rows_free(&t.rows);
    if (t.device)
        t.device->close(t.device);
    cJSON_Delete(t.info);
    free(info);
    free(final);
    free(base);
    free(data);
    return rc;
}

static int run(const char *path, double *worst)
{
    if (!sw_is_dir(path))
        return run_schedules(path, worst);
    return golden_has(path, "clip.json") ? run_clip(path, worst) : run_training(path, worst);
}

const golden_kind golden_optimizer = {"optimizer", is_case, run, ".json"};
