/* Kind loss: objectives, their gradients on every tensor of the policy (shared INDEX.md "loss/"). */
#include "golden.h"
#include "golden_rows.h"

#include "base/fileio.h"
#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_case(const char *path)
{
    char *json = sw_strfmt("%s.json", path), *tensors = sw_strfmt("%s.safetensors", path);
    int yes = sw_is_file(json) && sw_is_file(tensors);
    free(json);
    free(tensors);
    return yes;
}

typedef struct trial {
    cJSON *info;
    sw_safetensors *expect, *data;
    sw_device *device;
    sw_model *model;
    sw_flat flat;
    sw_ctx ctx;
    bool ctx_ready;
    golden_rows rows;
    sw_loss sum;
    double *worst;
} trial;

static int check(trial *t, double difference, double tolerance, const char *what)
{
    if (!(difference <= *t->worst))
        *t->worst = difference;
    return difference <= tolerance ? 0 : sw_fail("%s differs by %.3g, %.2g is allowed", what, difference, tolerance);
}

/* Documents of a packed row that the case brings. */
static int read_packed(trial *t)
{
    const sw_entry *ids = sw_st_find(t->expect, "input_ids"), *labels = sw_st_find(t->expect, "labels"), *ends = sw_st_find(t->expect, "cu_seqlens");
    if (!ids || !labels || !ends || sw_numel(&ids->t) != sw_numel(&labels->t))
        return sw_fail("a packed case needs input_ids, labels and cu_seqlens");
    int64_t n = sw_numel(&ids->t), docs = sw_numel(&ends->t) - 1;
    golden_rows *r = &t->rows;
    *r = (golden_rows){.ids = SW_NEW_ARRAY(int32_t, (size_t)n), .targets = SW_NEW_ARRAY(int32_t, (size_t)n), .weights = SW_NEW_ARRAY(float, (size_t)n),
                       .lengths = SW_NEW_ARRAY(int64_t, (size_t)docs)};
    for (int64_t d = 0; d < docs; d++) {
        int64_t start = (int64_t)sw_scalar_get(ends->t.data, ends->t.dtype, d), end = (int64_t)sw_scalar_get(ends->t.data, ends->t.dtype, d + 1);
        if (start < 0 || end < start || end > n)
            return sw_fail("cu_seqlens is wrong");
        r->lengths[d] = end - start;
        for (int64_t i = start; i < end; i++) {
            int32_t target = i + 1 < end ? (int32_t)sw_scalar_get(labels->t.data, labels->t.dtype, i + 1) : -1;
            r->ids[i] = (int32_t)sw_scalar_get(ids->t.data, ids->t.dtype, i);
            r->targets[i] = target < 0 ? -1 : target;
            r->weights[i] = target >= 0;
            r->labelled += target >= 0;
        }
    }
    r->b = (sw_micro_batch){.n = n, .n_seqs = docs, .ids = r->ids, .lengths = r->lengths, .targets = r->targets, .weights = r->weights};
    return 0;
}

static int run_sft(trial *t)
{
    static const char *const known[] = {"labels", "num_items_in_batch", "label_smoothing_factor", "loss_scale", "packing"};
    const char *option;
    const cJSON *config = sw_json_get(t->info, "config");
    sw_objective_options o = {0};
    double items;
    bool ok = false;
    if (sw_json_str(t->info, "option", "", &option) || sw_json_f64(config, "label_smoothing_factor", 0, &o.label_smoothing))
        return -1;
    for (size_t i = 0; i < SW_COUNT(known); i++)
        ok |= !strcmp(option, known[i]);
    if (!ok)
        return sw_fail("the option '%s' is not known here", option);
    const sw_entry *scale = sw_st_find(t->expect, "loss_scale");
    if (sw_st_find(t->expect, "cu_seqlens") ? read_packed(t) : golden_rows_read(&t->rows, t->data, 0, scale ? &scale->t : NULL))
        return -1;
    if (sw_json_f64(config, "num_items_in_batch", t->rows.labelled, &items))
        return -1;
    /* The same without a gradient must give the same loss. */
    sw_loss plain = {0};
    if (sw_objective_sft.run(&t->ctx, t->model, &t->rows.b, &o, items, false, false, &plain) ||
        sw_objective_sft.run(&t->ctx, t->model, &t->rows.b, &o, items, true, false, &t->sum))
        return -1;
    return check(t, fabs(plain.loss / t->sum.loss - 1), 1e-6, "the loss without a gradient");
}

/* ---- classification: the policy with a score head, which the case brings */

/* A folder with the policy as a classifier, for the model's own reader: t->model, or NULL. */
static void make_classifier(trial *t, const char *base)
{
    const sw_entry *head = sw_st_find(t->expect, "score.weight");
    char *config_path = sw_path_join(base, "config.json"), *weights = sw_path_join(base, "model.safetensors");
    char *dir = sw_strdup("/tmp/golden-classifier-XXXXXX"), *to_config = NULL, *to_weights = NULL;
    cJSON *config = sw_json_load(config_path);
    sw_safetensors *policy = sw_st_open(weights);
    int rc = config && policy && head && mkdtemp(dir) ? 0 : sw_fail("the policy or the case's score.weight is missing");
    if (!rc) {
        struct { sw_entry *at; size_t n, cap; } all = {0};
        for (size_t i = 0; i < sw_st_count(policy); i++)
            if (strncmp(sw_st_at(policy, i)->name, "lm_head.", 8))
                SW_PUSH(all, *sw_st_at(policy, i));
        SW_PUSH(all, *head);
        sw_buf text = {0};
        cJSON *names = cJSON_CreateArray();
        cJSON_AddItemToArray(names, cJSON_CreateString("LlamaForSequenceClassification"));
        cJSON_ReplaceItemInObjectCaseSensitive(config, "architectures", names);
        cJSON_AddNumberToObject(config, "num_labels", (double)head->t.shape[0]);
        sw_json_print(&text, config);
        to_config = sw_path_join(dir, "config.json");
        to_weights = sw_path_join(dir, "model.safetensors");
        rc = sw_write_file(to_config, text.at, text.n) || sw_st_save(to_weights, all.at, all.n, NULL) ? -1 : 0;
        sw_buf_free(&text);
        free(all.at);
    }
    if (!rc)
        t->model = sw_model_load(dir, t->device, &(sw_load_options){.dtype = SW_F32});
    if (to_config) { /* the model has its files open */
        unlink(to_config);
        unlink(to_weights);
        rmdir(dir);
    }
    cJSON_Delete(config);
    if (policy)
        sw_st_close(policy);
    free(config_path);
    free(weights);
    free(to_config);
    free(to_weights);
    free(dir);
}

/* The rows without padding and their labels: [rows] of a class, [rows, labels] of values, or of 0 and 1 that say which. */
static int run_classify(trial *t)
{
    const sw_entry *ids = sw_st_find(t->data, "input_ids"), *mask = sw_st_find(t->data, "attention_mask"), *labels = sw_st_find(t->expect, "labels");
    const char *option;
    if (!ids || !mask || !labels || sw_numel(&ids->t) != sw_numel(&mask->t) || sw_json_str(t->info, "option", "", &option))
        return sw_fail("a case of classification needs labels, and data input_ids and attention_mask");
    int64_t rows = ids->t.shape[0], width = ids->t.shape[1], k = labels->t.ndim == 2 ? labels->t.shape[1] : 1, n = 0, all = 0;
    sw_objective_options o = {0};
    const char *problem = strstr(option, "problem_type=");
    if (!problem || sw_problem_of(problem + strlen("problem_type="), t->model->spec.labels, &o.problem) || labels->t.shape[0] != rows)
        return problem ? -1 : sw_fail("the option '%s' is not known here", option);
    golden_rows *r = &t->rows;
    *r = (golden_rows){.ids = SW_NEW_ARRAY(int32_t, (size_t)(rows * width)), .lengths = SW_NEW_ARRAY(int64_t, (size_t)(2 * rows)),
                       .weights = SW_NEW_ARRAY(float, (size_t)(rows * k))};
    int64_t *n_labels = r->lengths + rows;
    for (int64_t i = 0; i < rows * width; i++)
        if (sw_scalar_get(mask->t.data, mask->t.dtype, i)) {
            r->ids[n++] = (int32_t)sw_scalar_get(ids->t.data, ids->t.dtype, i);
            r->lengths[i / width]++;
        }
    for (int64_t i = 0; i < rows * k; i++) {
        double label = sw_scalar_get(labels->t.data, labels->t.dtype, i);
        if (o.problem == SW_PROBLEM_CLASSES && label == 0)
            continue;
        r->weights[all++] = o.problem == SW_PROBLEM_CLASSES ? (float)(i % k) : (float)label;
        n_labels[i / k]++;
    }
    r->b = (sw_micro_batch){.n = n, .n_seqs = rows, .ids = r->ids, .lengths = r->lengths, .labels = r->weights, .n_labels = n_labels};
    sw_loss plain = {0};
    if (sw_objective_classify.run(&t->ctx, t->model, &r->b, &o, (double)rows, false, false, &plain) ||
        sw_objective_classify.run(&t->ctx, t->model, &r->b, &o, (double)rows, true, false, &t->sum))
        return -1;
    return check(t, fabs(plain.loss / t->sum.loss - 1), 1e-6, "the loss without a gradient");
}

static int check_gradients(trial *t)
{
    const cJSON *l2 = sw_json_get(t->info, "grad_l2"), *sums = sw_json_get(t->info, "grad_sum");
    double all = 0, norm;
    size_t seen = 0;
    for (const cJSON *want = l2 ? l2->child : NULL; want; want = want->next, seen++) {
        const sw_param *p = sw_param_find(&t->model->params, want->string);
        const cJSON *sum = cJSON_GetObjectItemCaseSensitive(sums, want->string);
        if (!p || !p->v.grad || !sum)
            return sw_fail("%s: no trained tensor of that name", want->string);
        int64_t n = sw_numel(&p->v.t);
        float *g = sw_malloc((size_t)n * sizeof *g);
        double squares = 0, total = 0, size = 0, largest = 0;
        int rc = t->device->get(t->device, g, p->v.grad->t.data, (size_t)n * sizeof *g);
        for (int64_t i = 0; !rc && i < n; i++) {
            squares += (double)g[i] * g[i];
            total += g[i];
            size += fabs(g[i]);
            largest = fmax(largest, fabs(g[i]));
        }
        all += squares;
        char *name = sw_strfmt("grad/%s", want->string);
        const sw_entry *e = sw_st_find(t->expect, name);
        rc = rc || check(t, fabs(sqrt(squares) / want->valuedouble - 1), 1e-4, name) || check(t, fabs(total - sum->valuedouble) / size, 1e-4, name) ||
             (e && check(t, golden_max_diff(g, e->t.data, (size_t)n) / largest, 1e-4, name));
        free(name);
        free(g);
        if (rc)
            return -1;
    }
    if (seen != t->flat.n_params)
        return sw_fail("%zu gradients are given, %zu tensors train", seen, t->flat.n_params);
    return sw_json_f64(t->info, "grad_norm", NAN, &norm) ? -1 : check(t, fabs(sqrt(all) / norm - 1), 1e-4, "the gradient's norm");
}

static int run(const char *path, double *worst)
{
    trial t = {.worst = worst};
    char *dir = sw_strdup(path), *slash = strrchr(dir, '/');
    if (slash)
        *slash = 0;
    char *info = sw_strfmt("%s.json", path), *expect = sw_strfmt("%s.safetensors", path);
    char *base = sw_strfmt("%s/../base/policy", slash ? dir : "."), *data = sw_strfmt("%s/../data/sft.safetensors", slash ? dir : ".");
    const char *group = slash ? (strrchr(dir, '/') ? strrchr(dir, '/') + 1 : dir) : "";
    t.info = sw_json_load(info);
    int rc = t.info ? 0 : -1;
    bool classifier = !strcmp(group, "seqcls");
    if (!rc && !classifier && strcmp(group, "sft"))
        rc = sw_fail("the objectives of %s are not known here", group);
    if (!rc && classifier) {
        free(data);
        data = sw_strfmt("%s/../data/pairs.safetensors", slash ? dir : ".");
    }
    if (!rc) {
        t.expect = sw_st_open(expect);
        t.data = sw_st_open(data);
        t.device = sw_device_open(golden_device);
        if (t.device && t.expect && classifier)
            make_classifier(&t, base);
        else
            t.model = t.device ? sw_model_load(base, t.device, &(sw_load_options){.dtype = SW_F32}) : NULL;
        rc = t.expect && t.data && t.model ? 0 : -1;
    }
    for (size_t i = 0; !rc && i < t.model->params.n; i++)
        t.model->params.at[i]->trainable = true;
    double want;
    if (!rc) {
        rc = sw_ctx_init(&t.ctx, t.device, SW_F32);
        t.ctx_ready = !rc;
        rc = rc || sw_flat_build(&t.flat, &t.model->params, t.device, SW_F32) || sw_flat_zero_grad(&t.flat) ||
             (classifier ? run_classify(&t) : run_sft(&t)) ||
             sw_json_f64(t.info, "loss", NAN, &want) || check(&t, fabs(t.sum.loss / want - 1), 1e-5, "the loss") || check_gradients(&t) ? -1 : 0;
    }
    if (t.ctx_ready)
        sw_ctx_free(&t.ctx);
    if (t.flat.device)
        sw_flat_free(&t.flat);
    sw_model_free(t.model);
    if (t.expect)
        sw_st_close(t.expect);
    if (t.data)
        sw_st_close(t.data);
    golden_rows_free(&t.rows);
    if (t.device)
        t.device->close(t.device);
    cJSON_Delete(t.info);
    free(dir);
    free(info);
    free(expect);
    free(base);
    free(data);
    return rc;
}

const golden_kind golden_loss = {"loss", is_case, run, ".json"};
