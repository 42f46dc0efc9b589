/* Kind tuner: logits, gradients, twenty steps of training and merged weights of tuners (shared INDEX.md "tuner/"). */
#include "golden.h"
#include "golden_rows.h"

#include "adapter/tuner.h"
#include "base/fileio.h"
#include "base/json.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "store/safetensors.h"
#include "tools/swift-train/optimizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int is_case(const char *dir) { return golden_has(dir, "case.json") && golden_has(dir, "expect.safetensors"); }

typedef struct trial {
    sw_device *device;
    sw_model *model;
    sw_modules modules;
    sw_tuned *tuned;
    sw_flat flat;
    sw_ctx ctx;
    cJSON *info;
    sw_safetensors *expect, *final, *merged, *data;
    golden_rows rows;
    double loss;
    double *worst;
} trial;

static int check(trial *t, double difference, double tolerance, const char *what)
{
    if (!(difference <= *t->worst))
        *t->worst = difference;
    return difference <= tolerance ? 0 : sw_fail("%s differs by %.3g, %.2g is allowed", what, difference, tolerance);
}

static sw_var *hidden(trial *t)
{
    const sw_micro_batch *b = &t->rows.b;
    return sw_model_forward(&t->ctx, t->model, &(sw_batch){.n = b->n, .n_seqs = b->n_seqs, .ids = b->ids, .lengths = b->lengths}, false);
}

/* Loss of the batch in t->loss, and its gradient. */
static int step_loss(trial *t)
{
    sw_loss sum = {0};
    int rc = sw_objective_sft.run(&t->ctx, t->model, &t->rows.b, &(sw_objective_options){0}, t->rows.labelled, true, false, &sum);
    t->loss = sum.loss;
    return rc;
}

/* A trained parameter by the name that PEFT's running model gives it. */
static const sw_param *by_name(const trial *t, const char *name)
{
    if (!t->tuned)
        return sw_param_find(&t->model->params, name);
    static const char wrapper[] = ".modules_to_save";
    const char *hit = strstr(name, wrapper);
    char *plain = hit ? sw_strfmt("%.*s%s", (int)(hit - name), name, hit + sizeof wrapper - 1) : sw_strdup(name);
    const sw_param *p = NULL;
    for (size_t i = 0; i < t->tuned->names.n; i++)
        if (!strcmp(t->tuned->names.at[i], plain))
            p = t->tuned->trained.at[i];
    free(plain);
    return p;
}

static int compare(trial *t, const sw_param *p, const sw_tensor *got, const sw_entry *e, double relative, double absolute)
{
    if (!p || sw_numel(&p->v.t) != sw_numel(&e->t))
        return sw_fail("%s: no trained tensor of that name and size", e->name);
    int64_t n = sw_numel(&e->t), rows = p->v.t.shape[0], columns = n / SW_MAX(rows, 1);
    double d = 0, largest = 0;
    float *host = sw_malloc((size_t)n * sizeof *host);
    int rc = t->device->get(t->device, host, got->data, (size_t)n * sizeof *host);
    for (int64_t i = 0; !rc && i < n; i++) {
        int64_t k = p->transposed ? i % rows * columns + i / rows : i;
        double want = ((const float *)e->t.data)[i], have = host[k];
        largest = fmax(largest, fabs(want));
        d = isnan(have) ? INFINITY : fmax(d, fabs(want - have));
    }
    free(host);
    return rc ? -1 : check(t, d, fmax(relative * largest, absolute), e->name);
}

static int check_start(trial *t)
{
    const sw_entry *e = sw_st_find(t->expect, "logits");
    sw_ctx *c = &t->ctx;
    sw_head head = sw_model_head(t->model);
    if (!e || golden_rows_read(&t->rows, t->data, 0, NULL))
        return e ? -1 : sw_fail("expect.safetensors: logits are missing");
    c->recording = c->training = false;
    sw_var *h = hidden(t), *y = h ? sw_logits(c, h, &head) : NULL;
    float *logits = y ? sw_malloc(sw_tensor_bytes(&y->t)) : NULL;
    if (!y || sw_to_host(c, y, logits)) {
        free(logits);
        return -1;
    }
    int64_t v = y->t.shape[1];
    double d = 0;
    for (int64_t i = 0; i < t->rows.b.n && t->rows.place[i] < e->t.shape[0] * t->rows.width; i++)
        d = fmax(d, golden_max_diff(logits + i * v, (const float *)e->t.data + t->rows.place[i] * v, (size_t)v));
    free(logits);
    sw_ctx_reset(c);
    double want;
    if (check(t, d, 1e-4, "logits") || step_loss(t) || sw_json_f64(t->info, "loss_batch0", NAN, &want) ||
        check(t, fabs(t->loss / want - 1), 1e-5, "loss"))
        return -1;
    size_t seen = 0;
    for (size_t i = 0; i < sw_st_count(t->expect); i++) {
        const sw_entry *g = sw_st_at(t->expect, i);
        if (strncmp(g->name, "grad/", 5))
            continue;
        const sw_param *p = by_name(t, g->name + 5);
        if (compare(t, p, p ? &p->v.grad->t : NULL, g, 1e-4, 1e-9))
            return -1;
        seen++;
    }
    return seen == t->flat.n_params ? 0 : sw_fail("%zu gradients are given, %zu tensors train", seen, t->flat.n_params);
}

static int check_training(trial *t)
{
    double lr, drift, norm;
    if (sw_json_f64(t->info, "lr", 0, &lr) || sw_json_f64(t->info, "final_weight_max_abs_diff_f64", 0, &drift))
        return -1;
    for (size_t i = 0; i < t->flat.n_params; i++)
        t->flat.params[i]->decay = true;
    sw_optimizer o;
    if (sw_optimizer_init(&o, sw_optimizer_find("adamw"), &(sw_optimizer_options){0.01, 0.9, 0.999, 1e-8}, &t->flat))
        return -1;
    const cJSON *loss = sw_json_get(t->info, "losses")->child, *want_norm = sw_json_get(t->info, "grad_norms")->child;
    int rc = 0;
    for (int64_t step = 0; loss && want_norm && !rc; step++, loss = loss->next, want_norm = want_norm->next)
        rc = golden_rows_read(&t->rows, t->data, step, NULL) || sw_flat_zero_grad(&t->flat) || step_loss(t) || sw_grad_norm(&t->flat, &norm) ||
             check(t, fabs(t->loss / loss->valuedouble - 1), 1e-4, "a loss on the way") ||
             check(t, fabs(norm / want_norm->valuedouble - 1), 1e-3, "a gradient's norm on the way") ||
             sw_optimizer_step(&o, lr, sw_clip_scale(norm, 1));
    sw_optimizer_free(&o);
    for (size_t i = 0; !rc && i < sw_st_count(t->final); i++) {
        const sw_entry *e = sw_st_at(t->final, i);
        const sw_param *p = by_name(t, e->name);
        rc = compare(t, p, p ? &p->master : NULL, e, 0, fmax(1e-4, 20 * drift));
    }
    return rc ? -1 : 0;
}

static int merge_chain(const sw_linear *l, const sw_adapter *a, sw_device *d, float *w)
{
    return !a ? 0 : merge_chain(l, a->next, d, w) || a->ops->merge(l, a, d, w) ? -1 : 0;
}

/* Before training: the base's weights with the adapter in them. */
static int check_merged(trial *t)
{
    for (size_t i = 0; t->merged && i < sw_st_count(t->merged); i++) {
        const sw_entry *e = sw_st_at(t->merged, i);
        const sw_module *m = NULL;
        for (size_t k = 0; k < t->modules.n; k++)
            if (sw_starts_with(e->name, t->modules.at[k].path) && !strcmp(e->name + strlen(t->modules.at[k].path), ".weight"))
                m = &t->modules.at[k];
        if (!m)
            return sw_fail("merged: no module has the tensor %s", e->name);
        const sw_param *p = *m->w;
        size_t n = (size_t)sw_numel(&p->v.t);
        float *w = sw_malloc(n * sizeof *w);
        int rc = t->device->get(t->device, w, p->v.t.data, n * sizeof *w);
        rc = rc ? rc : m->linear ? merge_chain(m->linear, m->linear->adapter, t->device, w) : 0;
        double d = golden_max_diff(w, e->t.data, n);
        free(w);
        if (rc || check(t, d, 1e-5, e->name))
            return -1;
    }
    return 0;
}

static sw_safetensors *open_in(const char *dir, const char *name)
{
    char *path = sw_path_join(dir, name);
    sw_safetensors *s = sw_st_open(path);
    free(path);
    return s;
}

static int prepare(trial *t, const char *dir)
{
    char *info = sw_path_join(dir, "case.json"), *init = sw_path_join(dir, "init");
    const char *base, *data;
    t->info = sw_json_load(info);
    int rc = !t->info || sw_json_str(t->info, "base", "llama", &base) || sw_json_str(t->info, "data", "train", &data) ? -1 : 0;
    if (!rc) {
        char *base_path = sw_strfmt("%s/../base/%s", dir, base), *data_path = sw_strfmt("%s/../data/%s.safetensors", dir, data);
        t->device = sw_device_open(golden_device);
        t->model = t->device ? sw_model_load(base_path, t->device, &(sw_load_options){.dtype = SW_F32}) : NULL;
        t->data = sw_st_open(data_path);
        t->expect = open_in(dir, "expect.safetensors");
        t->final = open_in(dir, "final.safetensors");
        t->merged = golden_has(dir, "merged_changed.safetensors") ? open_in(dir, "merged_changed.safetensors") : NULL;
        rc = t->model && t->data && t->expect && t->final ? 0 : -1;
        free(base_path);
        free(data_path);
    }
    if (!rc) {
        sw_params list = t->model->params;
        t->modules = sw_model_modules(t->model);
        bool folder = golden_has(init, "adapter_config.json");
        const cJSON *config = sw_json_get(t->info, "config");
        if (folder) {
            t->tuned = sw_tuner_attach_folder(&t->modules, init);
            rc = t->tuned ? 0 : -1;
            if (!rc)
                list = sw_tuned_trainable(t->tuned);
        } else if (config && config->child) {
            rc = sw_fail("this tuner is not known here");
        } else {
            for (size_t i = 0; i < list.n; i++)
                list.at[i]->trainable = true;
        }
        rc = rc || check_merged(t) || sw_ctx_init(&t->ctx, t->device, SW_F32) || sw_flat_build(&t->flat, &list, t->device, SW_F32) ? -1 : 0;
        if (folder && t->tuned)
            free(list.at);
    }
    free(info);
    free(init);
    return rc;
}

static int run(const char *dir, double *worst)
{
    trial t = {.worst = worst};
    int rc = prepare(&t, dir) || check_start(&t) || check_training(&t) ? -1 : 0;
    sw_ctx_free(&t.ctx);
    sw_flat_free(&t.flat);
    free(t.modules.at);
    sw_model_free(t.model);
    sw_tuned_free(t.tuned);
    sw_safetensors *all[] = {t.expect, t.final, t.merged, t.data};
    for (size_t i = 0; i < SW_COUNT(all); i++)
        if (all[i])
            sw_st_close(all[i]);
    cJSON_Delete(t.info);
    golden_rows_free(&t.rows);
    if (t.device)
        t.device->close(t.device);
    return rc;
}

const golden_kind golden_tuner = {"tuner", is_case, run, NULL};
