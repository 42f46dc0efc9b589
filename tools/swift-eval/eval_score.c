/* swift-eval score: results of swift-infer to a report. */
#include "eval.h"
#include "eval_report.h"

#include "base/fileio.h"
#include "base/log.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *task_name, *out_path = "-", *details_path, *extract, *normalise;
static int64_t resamples = 1000;
static double confidence = 0.95;

static const sw_opt options[] = {
    SW_GROUP("Task"),
    SW_STR('t', "task", &task_name, "TASK", "the task that the prompts were made with; not needed for a built-in one"),
    SW_STR(0, "extract", &extract, "REGEX",
           "find the answer in the text by this regular expression (PCRE2) instead of the task's: the last match, its last "
           "group"),
    SW_STR(0, "normalise", &normalise, "LIST",
           "what does not matter between the answer and the right one, instead of what the task says: case, punctuation, "
           "whitespace, number, letter; separated by commas"),
    SW_GROUP("Confidence intervals"),
    SW_I64(0, "samples", &resamples, 1, 10000000, "N", "bootstrap resamples"),
    SW_F64(0, "confidence", &confidence, 0.0001, 0.9999, "X", "share of the resamples that an interval covers"),
    SW_GROUP("Output"),
    SW_STR('o', "out", &out_path, "FILE", "report to write, JSON; - is standard output"),
    SW_STR(0, "details", &details_path, "FILE", "also write what was found and counted in each record, JSON Lines"),
    SW_COMMON_OPTS,
    SW_OPT_END};

static const sw_example examples[] = {
    {"score answers of swift-infer", "swift-eval score answers.jsonl --out report.json --details details.jsonl"},
    {"own questions, whatever the case and the last full stop",
     "swift-eval prompts --task exact questions.jsonl | swift-infer --model M | swift-eval score --normalise case,punctuation"},
    {0}};

const sw_program eval_score_program = {"swift-eval score", "count what the answers reach at a task", "[FILE...]", options, examples};

/* A record of the task's data: all its samples or parts. */
typedef struct unit {
    char *id;
    size_t group, samples;
    eval_amount *amounts; /* [n_metrics] */
} unit;

typedef struct scoring {
    eval_task *task;
    struct { unit *at; size_t n, cap; } units;
    struct { char **at; size_t n, cap; } groups; /* names; "" where a result has none */
    sw_map by_id, seen, by_group;
    sw_outfile details;
    int64_t results, truncated;
} scoring;

static int replace_rules(eval_task *t)
{
    cJSON *regex = extract ? cJSON_CreateString(extract) : NULL;
    int rc = t->scorer != &eval_match && (extract || normalise)
                 ? sw_fail("--%s: the task %s compares no texts", extract ? "extract" : "normalise", t->name)
                 : 0;
    for (size_t i = 0; i < t->n_metrics && !rc; i++) {
        if (normalise)
            rc = eval_normalise_parse(normalise, &t->metrics[i].normalise);
        if (regex && !rc) {
            eval_rules_free(&t->metrics[i].extract);
            rc = eval_rules_read(regex, "--extract", &t->metrics[i].extract);
        }
    }
    cJSON_Delete(regex);
    return rc;
}

static int find_task(scoring *s, const cJSON *result)
{
    const char *said;
    if (sw_json_str(result, "task", NULL, &said))
        return -1;
    if (!s->task) {
        if (!said)
            return sw_fail("the result does not say its \"task\"; --task is needed");
        s->task = eval_task_load(said);
        if (!s->task)
            return sw_fail_in("\"task\"");
        if (replace_rules(s->task))
            return -1;
    }
    if (said && strcmp(said, s->task->name))
        return sw_fail("\"task\": the result is of the task '%s', not of '%s'", said, s->task->name);
    return 0;
}

static int find_unit(scoring *s, const cJSON *result, unit **out)
{
    const cJSON *id = sw_json_get(result, "id");
    const char *group;
    int64_t sample, part;
    if (!cJSON_IsString(id) && !cJSON_IsNumber(id))
        return sw_fail("\"id\": a string or a number is needed, not %s", sw_json_kind(id));
    if (sw_json_str(result, "group", "", &group) || sw_json_i64(result, "sample", 0, (int64_t)1 << 40, -1, &sample) ||
        sw_json_i64(result, "part", 0, (int64_t)1 << 40, -1, &part))
        return -1;
    sw_buf key = {0}, once = {0};
    sw_json_print(&key, id);
    sw_buf_printf(&once, "%s %lld %lld", key.at, (long long)sample, (long long)part);
    int64_t before = sw_map_gets(&s->seen, once.at, -1), at = sw_map_gets(&s->by_id, key.at, -1);
    sw_map_puts(&s->seen, once.at, s->results + 1);
    int64_t of_group = sw_map_gets(&s->by_group, group, -1);
    if (of_group < 0) {
        of_group = (int64_t)s->groups.n;
        sw_map_puts(&s->by_group, group, of_group);
        SW_PUSH(s->groups, sw_strdup(group));
    }
    int rc = 0;
    if (before >= 0) {
        rc = sw_fail("\"id\": %s was in result %lld already", key.at, (long long)before);
    } else if (at < 0) {
        at = (int64_t)s->units.n;
        sw_map_puts(&s->by_id, key.at, at);
        unit u = {.id = sw_strdup(key.at), .group = (size_t)of_group, .amounts = SW_NEW_ARRAY(eval_amount, s->task->n_metrics)};
        SW_PUSH(s->units, u);
    } else if (s->units.at[at].group != (size_t)of_group) {
        rc = sw_fail("\"group\": '%s' differs from that of an earlier result of the same id", group);
    }
    if (!rc) {
        *out = &s->units.at[at];
        (*out)->samples += sample >= 0;
    }
    sw_buf_free(&key);
    sw_buf_free(&once);
    return rc;
}

static int write_details(scoring *s, const cJSON *result, const eval_amount *amounts, cJSON *details)
{
    cJSON *scores = cJSON_AddObjectToObject(details, "scores");
    static const char *const kept[] = {"answer", "part", "sample", "group", "id"};
    for (size_t i = 0; i < s->task->n_metrics; i++)
        cJSON_AddNumberToObject(scores, s->task->metrics[i].name, amounts[i].sum / amounts[i].weight);
    for (size_t i = 0; i < SW_COUNT(kept); i++) {
        const cJSON *v = sw_json_get(result, kept[i]);
        if (v)
            cJSON_InsertItemInArray(details, 0, cJSON_Duplicate(v, true)); /* with its name */
    }
    sw_buf b = {0};
    sw_json_print(&b, details);
    sw_buf_putc(&b, '\n');
    int rc = sw_out_write(&s->details, b.at, b.n);
    sw_buf_free(&b);
    return rc;
}

static int score_result(scoring *s, const cJSON *result)
{
    unit *u = NULL;
    const char *finish;
    if (find_task(s, result))
        return -1;
    const eval_scorer *scorer = s->task->scorer;
    if (!sw_json_get(result, scorer->result))
        return sw_fail("the record has no \"%s\": it was not answered by swift-infer yet", scorer->result);
    if (find_unit(s, result, &u) || sw_json_str(result, "finish_reason", "", &finish))
        return -1;
    if (!strcmp(finish, "interrupted"))
        return sw_fail("\"finish_reason\": the answer was interrupted");
    s->truncated += !strcmp(finish, "length");
    eval_amount *amounts = SW_NEW_ARRAY(eval_amount, s->task->n_metrics);
    cJSON *details = details_path ? cJSON_CreateObject() : NULL;
    int rc = scorer->score(s->task, result, amounts, details);
    for (size_t i = 0; i < s->task->n_metrics && !rc; i++) {
        u->amounts[i].sum += amounts[i].sum;
        u->amounts[i].weight += amounts[i].weight;
    }
    if (!rc && details)
        rc = write_details(s, result, amounts, details);
    cJSON_Delete(details);
    free(amounts);
    return rc;
}

static int each_result(void *context, cJSON *result, const char *where)
{
    scoring *s = context;
    int rc = score_result(s, result);
    s->results++;
    cJSON_Delete(result);
    return rc ? sw_fail_in("%s", where) : 0;
}

/* ---- the report */

static int by_id(const void *a, const void *b) { return strcmp(((const unit *)a)->id, ((const unit *)b)->id); }

static int figures(const eval_task *t, const eval_amount *a, size_t n, eval_group *g)
{
    size_t m = t->n_metrics;
    g->n = n;
    g->figures = SW_NEW_ARRAY(eval_figure, m);
    for (size_t k = 0; k < m; k++) {
        eval_figure *f = &g->figures[k];
        *f = (eval_figure){.name = sw_strdup(t->metrics[k].name), .scale = t->metrics[k].scale, .lower_is_better = t->metrics[k].lower_is_better};
        f->value = eval_value(f->scale, eval_ratio(a + k, n, m));
        if (!isfinite(f->value))
            return sw_fail("%s: nothing was scored%s%s, or not a number", f->name, g->name ? " in group " : "", g->name ? g->name : "");
    }
    double *ratios = SW_NEW_ARRAY(double, m * (size_t)resamples);
    eval_bootstrap(a, n, m, resamples, (uint64_t)sw_common_opts.seed, ratios);
    for (size_t k = 0; k < m; k++) {
        eval_interval middle = eval_middle(ratios + k * (size_t)resamples, resamples, confidence);
        g->figures[k].interval = (eval_interval){eval_value(g->figures[k].scale, middle.low), eval_value(g->figures[k].scale, middle.high)};
    }
    free(ratios);
    return 0;
}

static int group_figures(scoring *s, eval_report *r)
{
    size_t m = s->task->n_metrics;
    if (s->groups.n < 2 && !*s->groups.at[0])
        return 0;
    r->groups = SW_NEW_ARRAY(eval_group, s->groups.n);
    eval_amount *a = SW_NEW_ARRAY(eval_amount, r->n * m);
    int rc = 0;
    for (size_t i = 0; i < s->groups.n && !rc; i++) {
        size_t n = 0;
        for (size_t j = 0; j < r->n; j++)
            if (s->units.at[j].group == i)
                memcpy(a + n++ * m, r->amounts + j * m, m * sizeof *a);
        eval_group *g = &r->groups[r->n_groups++];
        g->name = sw_strdup(*s->groups.at[i] ? s->groups.at[i] : "(none)");
        rc = figures(s->task, a, n, g);
    }
    free(a);
    return rc;
}

static int fill(scoring *s, eval_report *r)
{
    size_t m = s->task->n_metrics;
    sw_buf ids = {0};
    *r = (eval_report){.task = sw_strdup(s->task->name), .n = s->units.n, .n_metrics = m, .resamples = resamples,
                       .seed = sw_common_opts.seed, .truncated = s->truncated, .confidence = confidence};
    qsort(s->units.at, s->units.n, sizeof *s->units.at, by_id);
    r->amounts = SW_NEW_ARRAY(eval_amount, r->n * m);
    for (size_t i = 0; i < r->n; i++) {
        const unit *u = &s->units.at[i];
        double samples = (double)SW_MAX(u->samples, 1); /* a record with many samples weighs what one with one does */
        sw_buf_printf(&ids, "%s\n", u->id);
        for (size_t k = 0; k < m; k++)
            r->amounts[i * m + k] = (eval_amount){u->amounts[k].sum / samples, u->amounts[k].weight / samples};
    }
    sw_digest digest = sw_digest_bytes(ids.at, ids.n);
    r->ids = sw_strdup(digest.hex);
    sw_buf_free(&ids);
    return figures(s->task, r->amounts, r->n, &r->all) || group_figures(s, r) ? -1 : 0;
}

static void show_group(const eval_report *r, const eval_group *g, int width)
{
    for (size_t k = 0; k < r->n_metrics; k++)
        fprintf(stderr, "%-*s  %6zu  %-18s %10.4f  [%.4f, %.4f]\n", width, g->name ? g->name : r->task, g->n, g->figures[k].name,
                g->figures[k].value, g->figures[k].interval.low, g->figures[k].interval.high);
}

static void show(const eval_report *r)
{
    size_t width = strlen(r->task);
    for (size_t i = 0; i < r->n_groups; i++)
        width = SW_MAX(width, strlen(r->groups[i].name));
    fprintf(stderr, "%-*s  %6s  %-18s %10s  %.4g %% interval\n", (int)width, "", "count", "metric", "value", r->confidence * 100);
    for (size_t i = 0; i < r->n_groups; i++)
        show_group(r, &r->groups[i], (int)width);
    show_group(r, &r->all, (int)width);
    if (r->truncated)
        fprintf(stderr, "%lld answers were cut at the limit of tokens\n", (long long)r->truncated);
}

static int write_report(const eval_report *r, cJSON *inputs)
{
    cJSON *made = cJSON_CreateObject();
    cJSON_AddStringToObject(made, "program", "swift-eval " SW_VERSION);
    cJSON_AddStringToObject(made, "command", sw_command_line());
    cJSON_AddItemToObject(made, "inputs", inputs);
    cJSON *o = eval_report_json(r, made);
    sw_buf b = {0};
    sw_json_print_pretty(&b, o);
    int rc = sw_write_file(out_path, b.at, b.n);
    sw_buf_free(&b);
    cJSON_Delete(o);
    return rc;
}

static void free_scoring(scoring *s)
{
    for (size_t i = 0; i < s->units.n; i++) {
        free(s->units.at[i].id);
        free(s->units.at[i].amounts);
    }
    for (size_t i = 0; i < s->groups.n; i++)
        free(s->groups.at[i]);
    free(s->units.at);
    free(s->groups.at);
    sw_map_free(&s->by_id);
    sw_map_free(&s->seen);
    sw_map_free(&s->by_group);
    eval_task_free(s->task);
}

int eval_score_body(int n, char **files)
{
    scoring s = {0};
    eval_report report = {0};
    cJSON *inputs = cJSON_CreateArray();
    int rc = 0;
    if (details_path && !strcmp(details_path, out_path)) {
        cJSON_Delete(inputs);
        return sw_usage("--details and --out name the same file");
    }
    if (task_name && (!(s.task = eval_task_load(task_name)) || replace_rules(s.task)))
        rc = -1;
    for (int i = 0; i < n && !rc; i++)
        rc = sw_out_spares(out_path, files[i]) || sw_out_spares(details_path, files[i]) ? -1 : 0;
    bool details = !rc && details_path && !(rc = sw_out_open(&s.details, details_path));
    if (!rc)
        rc = eval_each_row(files, n, NULL, 0, inputs, each_result, &s) || fill(&s, &report) ? -1 : 0;
    if (details && rc)
        sw_out_abort(&s.details);
    else if (details)
        rc = sw_out_commit(&s.details);
    if (!rc) {
        rc = write_report(&report, inputs);
        inputs = NULL;
    }
    if (!rc && !sw_quiet())
        show(&report);
    cJSON_Delete(inputs);
    eval_report_free(&report);
    free_scoring(&s);
    return rc;
}
