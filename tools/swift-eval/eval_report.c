#include "eval_report.h"

#include "base/json.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const scales[] = {"mean", "exp"};

/* ---- writing */

static cJSON *figures_json(const eval_report *r, const eval_group *g)
{
    cJSON *o = cJSON_CreateObject();
    for (size_t i = 0; i < r->n_metrics; i++) {
        const eval_figure *f = &g->figures[i];
        cJSON *m = cJSON_AddObjectToObject(o, f->name);
        cJSON_AddNumberToObject(m, "value", f->value);
        cJSON_AddNumberToObject(m, "low", f->interval.low);
        cJSON_AddNumberToObject(m, "high", f->interval.high);
        if (!g->name) {
            cJSON_AddStringToObject(m, "scale", scales[f->scale]);
            cJSON_AddBoolToObject(m, "lower_is_better", f->lower_is_better);
        }
    }
    return o;
}

/* One line, however long. */
static void add_numbers(cJSON *o, const eval_report *r, size_t metric, bool weights)
{
    sw_buf b = {0};
    sw_buf_putc(&b, '[');
    for (size_t i = 0; i < r->n; i++) {
        const eval_amount *a = &r->amounts[i * r->n_metrics + metric];
        if (i)
            sw_buf_putc(&b, ',');
        sw_json_number(&b, weights ? a->weight : a->sum);
    }
    sw_buf_putc(&b, ']');
    cJSON_AddItemToObject(o, r->all.figures[metric].name, cJSON_CreateRaw(b.at));
    sw_buf_free(&b);
}

static cJSON *records_json(const eval_report *r)
{
    cJSON *o = cJSON_CreateObject(), *sums = NULL, *weights = NULL;
    cJSON_AddStringToObject(o, "ids", r->ids);
    sums = cJSON_AddObjectToObject(o, "sums");
    weights = cJSON_AddObjectToObject(o, "weights");
    for (size_t k = 0; k < r->n_metrics; k++) {
        bool plain = true;
        for (size_t i = 0; i < r->n; i++)
            plain &= r->amounts[i * r->n_metrics + k].weight == 1;
        add_numbers(sums, r, k, false);
        if (!plain)
            add_numbers(weights, r, k, true);
    }
    return o;
}

cJSON *eval_report_json(const eval_report *r, cJSON *made)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "task", r->task);
    cJSON_AddNumberToObject(o, "count", (double)r->n);
    cJSON_AddItemToObject(o, "metrics", figures_json(r, &r->all));
    if (r->n_groups) {
        cJSON *groups = cJSON_AddObjectToObject(o, "groups");
        for (size_t i = 0; i < r->n_groups; i++) {
            cJSON *g = cJSON_AddObjectToObject(groups, r->groups[i].name);
            cJSON_AddNumberToObject(g, "count", (double)r->groups[i].n);
            cJSON_AddItemToObject(g, "metrics", figures_json(r, &r->groups[i]));
        }
    }
    cJSON_AddNumberToObject(o, "truncated", (double)r->truncated);
    cJSON *b = cJSON_AddObjectToObject(o, "bootstrap");
    cJSON_AddNumberToObject(b, "samples", (double)r->resamples);
    cJSON_AddNumberToObject(b, "confidence", r->confidence);
    cJSON_AddNumberToObject(b, "seed", (double)r->seed);
    cJSON_AddItemToObject(o, "made", made);
    cJSON_AddItemToObject(o, "records", records_json(r));
    return o;
}

/* ---- reading */

static int read_figure(const cJSON *m, eval_figure *f)
{
    if (sw_json_f64(m, "value", NAN, &f->value) || sw_json_f64(m, "low", NAN, &f->interval.low) ||
        sw_json_f64(m, "high", NAN, &f->interval.high))
        return sw_fail_in("metric '%s'", m->string);
    if (!isfinite(f->value) || !isfinite(f->interval.low) || !isfinite(f->interval.high))
        return sw_fail("metric '%s': \"value\", \"low\" and \"high\" are needed, three finite numbers", m->string);
    return 0;
}

static int read_metrics(const cJSON *o, eval_report *r)
{
    const cJSON *metrics = sw_json_get(o, "metrics");
    if (!cJSON_IsObject(metrics) || !metrics->child)
        return sw_fail("\"metrics\": an object of metrics is needed, not %s", metrics ? sw_json_kind(metrics) : "nothing");
    r->all.figures = SW_NEW_ARRAY(eval_figure, (size_t)cJSON_GetArraySize(metrics));
    for (const cJSON *m = metrics->child; m; m = m->next) {
        eval_figure *f = &r->all.figures[r->n_metrics++];
        const char *scale;
        f->name = sw_strdup(m->string);
        if (read_figure(m, f) || sw_json_str(m, "scale", "mean", &scale) || sw_json_bool(m, "lower_is_better", false, &f->lower_is_better))
            return -1;
        if (strcmp(scale, scales[EVAL_MEAN]) && strcmp(scale, scales[EVAL_EXP]))
            return sw_fail("metric '%s': \"scale\" is mean or exp, not '%s'", m->string, scale);
        f->scale = strcmp(scale, scales[EVAL_MEAN]) ? EVAL_EXP : EVAL_MEAN;
    }
    return 0;
}

static int read_groups(const cJSON *o, eval_report *r)
{
    const cJSON *groups = sw_json_get(o, "groups");
    if (groups && !cJSON_IsObject(groups))
        return sw_fail("\"groups\": an object is needed, not %s", sw_json_kind(groups));
    r->groups = SW_NEW_ARRAY(eval_group, groups ? (size_t)cJSON_GetArraySize(groups) : 0);
    for (const cJSON *v = groups ? groups->child : NULL; v; v = v->next) {
        eval_group *g = &r->groups[r->n_groups++];
        int64_t n;
        g->name = sw_strdup(v->string);
        g->figures = SW_NEW_ARRAY(eval_figure, r->n_metrics);
        if (sw_json_i64(v, "count", 1, (int64_t)r->n, 1, &n))
            return sw_fail_in("group '%s'", v->string);
        g->n = (size_t)n;
        for (size_t k = 0; k < r->n_metrics; k++) {
            const cJSON *m = sw_json_get(sw_json_get(v, "metrics"), r->all.figures[k].name);
            g->figures[k] = r->all.figures[k];
            g->figures[k].name = sw_strdup(r->all.figures[k].name);
            if (m ? read_figure(m, &g->figures[k]) : sw_fail("metric '%s' is missing", r->all.figures[k].name))
                return sw_fail_in("group '%s'", v->string);
        }
    }
    return 0;
}

static int read_numbers(const cJSON *list, eval_report *r, size_t metric, bool weights)
{
    size_t i = 0;
    const char *what = weights ? "weights" : "sums", *name = r->all.figures[metric].name;
    if (!cJSON_IsArray(list) || (size_t)cJSON_GetArraySize(list) != r->n)
        return sw_fail("\"records\": \"%s\" of '%s': a list of %zu numbers is needed", what, name, r->n);
    for (const cJSON *v = list->child; v; v = v->next, i++) {
        if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble) || (weights && v->valuedouble < 0))
            return sw_fail("\"records\": \"%s\" of '%s': number %zu is %s", what, name, i + 1, cJSON_IsNumber(v) ? "out of range" : sw_json_kind(v));
        *(weights ? &r->amounts[i * r->n_metrics + metric].weight : &r->amounts[i * r->n_metrics + metric].sum) = v->valuedouble;
    }
    return 0;
}

static int read_records(const cJSON *o, eval_report *r)
{
    const cJSON *records = sw_json_get(o, "records");
    const char *ids;
    size_t size;
    if (sw_json_str(records, "ids", NULL, &ids))
        return sw_fail_in("\"records\"");
    if (!ids)
        return 0; /* someone's own report: its values can be shown, not paired */
    /* The count is the file's word until a list of that length has been seen. */
    for (size_t k = 0; k < r->n_metrics; k++)
        if ((size_t)cJSON_GetArraySize(sw_json_get(sw_json_get(records, "sums"), r->all.figures[k].name)) != r->n)
            return sw_fail("\"records\": \"sums\" of '%s': a list of %zu numbers is needed", r->all.figures[k].name, r->n);
    if (sw_mul_size(r->n, r->n_metrics, &size))
        return sw_fail("\"records\": too many");
    r->ids = sw_strdup(ids);
    r->amounts = SW_NEW_ARRAY(eval_amount, size);
    for (size_t i = 0; i < size; i++)
        r->amounts[i].weight = 1;
    for (size_t k = 0; k < r->n_metrics; k++) {
        const char *name = r->all.figures[k].name;
        const cJSON *weights = sw_json_get(sw_json_get(records, "weights"), name);
        double total = 0;
        if (read_numbers(sw_json_get(sw_json_get(records, "sums"), name), r, k, false) || (weights && read_numbers(weights, r, k, true)))
            return -1;
        for (size_t i = 0; i < r->n; i++)
            total += r->amounts[i * r->n_metrics + k].weight;
        if (!(total > 0))
            return sw_fail("\"records\": the weights of '%s' add up to nothing", name);
    }
    return 0;
}

static int read_report(const cJSON *o, eval_report *r)
{
    const cJSON *bootstrap = sw_json_get(o, "bootstrap");
    const char *task;
    int64_t n;
    if (!cJSON_IsObject(o))
        return sw_fail("a report of swift-eval score is an object, not %s", sw_json_kind(o));
    if (sw_json_str(o, "task", NULL, &task) || sw_json_i64(o, "count", 1, (int64_t)1 << 40, 0, &n))
        return -1;
    if (!task || !n)
        return sw_fail("\"task\" and \"count\" of a report are needed");
    r->task = sw_strdup(task);
    r->n = r->all.n = (size_t)n;
    if (sw_json_i64(bootstrap, "samples", 1, 10000000, 1000, &r->resamples) || sw_json_f64(bootstrap, "confidence", 0.95, &r->confidence) ||
        sw_json_i64(bootstrap, "seed", 0, (int64_t)1 << 53, 0, &r->seed) ||
        sw_json_i64(o, "truncated", 0, (int64_t)1 << 40, 0, &r->truncated))
        return -1;
    if (!(r->confidence > 0 && r->confidence < 1))
        return sw_fail("\"confidence\": %g is not between 0 and 1", r->confidence);
    return read_metrics(o, r) || read_groups(o, r) || read_records(o, r) ? -1 : 0;
}

int eval_report_read(const char *path, eval_report *r)
{
    *r = (eval_report){0};
    cJSON *o = sw_json_load(path);
    if (!o)
        return -1;
    int rc = read_report(o, r);
    cJSON_Delete(o);
    if (rc)
        eval_report_free(r);
    return rc ? sw_fail_in("%s", path) : 0;
}

static void free_group(eval_group *g, size_t n)
{
    for (size_t i = 0; i < n && g->figures; i++)
        free(g->figures[i].name);
    free(g->figures);
    free(g->name);
}

void eval_report_free(eval_report *r)
{
    free_group(&r->all, r->n_metrics);
    for (size_t i = 0; i < r->n_groups; i++)
        free_group(&r->groups[i], r->n_metrics);
    free(r->groups);
    free(r->task);
    free(r->ids);
    free(r->amounts);
    *r = (eval_report){0};
}
