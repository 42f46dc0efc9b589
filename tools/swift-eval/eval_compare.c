/* swift-eval compare: reports side by side. */
#include "eval.h"
#include "eval_compare.h"

#include "base/fileio.h"
#include "base/gnuplot.h"
#include "base/log.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static int format;
static bool by_group;
static const char *plot;
static const char *const formats[] = {"text", "markdown", "json", NULL};

static const sw_opt options[] = {
    SW_GROUP("Comparison"),
    SW_CHOICE('f', "format", &format, formats, "how to print the table"),
    SW_FLAG('g', "groups", &by_group, "a column for each group of a task too"),
    SW_STR(0, "plot", &plot, "FILE", "also draw the values with their intervals, by gnuplot; the name ends in .svg or .png"),
    SW_COMMON_OPTS_UNSEEDED,
    SW_OPT_END};

static const sw_example examples[] = {
    {"what training did", "swift-eval compare before=before.json after=after.json"},
    {"several tasks, a row a model", "swift-eval compare A=a-gsm8k.json A=a-bbh.json B=b-gsm8k.json B=b-bbh.json --format markdown --plot scores.svg"},
    {0}};

const sw_program eval_compare_program = {"swift-eval compare", "put reports into one table, and test their differences", "[NAME=]REPORT...",
                                         options, examples};

static size_t row_named(eval_table *t, const char *name, size_t n)
{
    for (size_t i = 0; i < t->rows.n; i++)
        if (strlen(t->rows.at[i]) == n && !memcmp(t->rows.at[i], name, n))
            return i;
    SW_PUSH(t->rows, sw_strndup(name, n));
    return t->rows.n - 1;
}

static bool same(const char *a, const char *b) { return a ? b && !strcmp(a, b) : !b; }

static size_t column_for(eval_table *t, const eval_report *r, const eval_group *g, const eval_figure *f)
{
    for (size_t i = 0; i < t->columns.n; i++) {
        const eval_column *c = &t->columns.at[i];
        if (!strcmp(c->task, r->task) && same(c->group, g->name) && !strcmp(c->metric, f->name))
            return i;
    }
    eval_column c = {r->task, g->name, f->name, f->lower_is_better};
    SW_PUSH(t->columns, c);
    return t->columns.n - 1;
}

/* Places of a report's figures, before the number of columns is known. */
typedef struct placed {
    size_t row, column, metric;
    const eval_report *report;
    const eval_figure *figure;
    bool whole;
} placed;

typedef struct places {
    placed *at;
    size_t n, cap;
} places;

static void place_group(eval_table *t, places *p, size_t row, const eval_report *r, const eval_group *g)
{
    for (size_t k = 0; k < r->n_metrics; k++) {
        placed one = {row, column_for(t, r, g, &g->figures[k]), k, r, &g->figures[k], !g->name};
        SW_PUSH(*p, one);
    }
}

static int place_all(eval_table *t, const places *p)
{
    t->cells = SW_NEW_ARRAY(eval_cell, t->rows.n * t->columns.n);
    for (size_t i = 0; i < p->n; i++) {
        const placed *one = &p->at[i];
        eval_cell *c = &t->cells[one->row * t->columns.n + one->column];
        if (c->figure)
            return sw_fail("'%s' has two reports with %s of the task %s; give them names, NAME=FILE", t->rows.at[one->row], one->figure->name,
                           one->report->task);
        *c = (eval_cell){.figure = one->figure, .report = one->report, .metric = one->metric, .whole = one->whole};
    }
    return 0;
}

static void mark_best(eval_table *t)
{
    for (size_t j = 0; j < t->columns.n; j++) {
        const eval_figure *best = NULL;
        size_t n = 0;
        for (size_t i = 0; i < t->rows.n; i++) {
            const eval_figure *f = t->cells[i * t->columns.n + j].figure;
            n += f != NULL;
            if (f && (!best || (t->columns.at[j].lower_is_better ? f->value < best->value : f->value > best->value)))
                best = f;
        }
        for (size_t i = 0; i < t->rows.n && n > 1; i++) {
            eval_cell *c = &t->cells[i * t->columns.n + j];
            c->best = c->figure && c->figure->value == best->value;
        }
    }
}

/* ---- differences between answers to the same questions */

static double *resampled(const eval_report *r, size_t metric, const eval_report *like)
{
    eval_amount *a = SW_NEW_ARRAY(eval_amount, r->n);
    double *ratios = SW_NEW_ARRAY(double, (size_t)like->resamples);
    for (size_t i = 0; i < r->n; i++)
        a[i] = r->amounts[i * r->n_metrics + metric];
    eval_bootstrap(a, r->n, 1, like->resamples, (uint64_t)like->seed, ratios);
    for (int64_t b = 0; b < like->resamples; b++)
        ratios[b] = eval_value(r->all.figures[metric].scale, ratios[b]);
    free(a);
    return ratios;
}

static void difference(const eval_cell *first, eval_cell *c)
{
    double *a = resampled(first->report, first->metric, first->report), *b = resampled(c->report, c->metric, first->report);
    for (int64_t i = 0; i < first->report->resamples; i++)
        b[i] -= a[i];
    c->paired = true;
    c->difference = c->figure->value - first->figure->value;
    c->difference_interval = eval_middle(b, first->report->resamples, first->report->confidence);
    free(a);
    free(b);
}

static void pair(eval_table *t)
{
    const eval_report *told = NULL;
    for (size_t i = 1; i < t->rows.n; i++)
        for (size_t j = 0; j < t->columns.n; j++) {
            const eval_cell *first = &t->cells[j];
            eval_cell *c = &t->cells[i * t->columns.n + j];
            if (!c->figure || !first->figure || !c->whole || !c->report->ids || !first->report->ids)
                continue;
            if (c->report->n == first->report->n && !strcmp(c->report->ids, first->report->ids)) {
                difference(first, c);
            } else if (told != c->report) {
                told = c->report;
                sw_warn("%s: '%s' and '%s' answered other questions; their difference cannot be tested", c->report->task, t->rows.at[0],
                        t->rows.at[i]);
            }
        }
}

/* The = of NAME=FILE, or NULL. Names and files may hold one themselves (lr=1e-4): a file that is there says which it is. */
static const char *parting(const char *operand)
{
    const char *first = strchr(operand, '='), *at = sw_is_file(operand) ? NULL : first;
    if (!at)
        return NULL;
    while (at && !sw_is_file(at + 1))
        at = strchr(at + 1, '=');
    at = at ? at : first;
    return at > operand ? at : NULL;
}

static int read_reports(eval_table *t, places *p, char **operands, int n)
{
    t->reports = SW_NEW_ARRAY(eval_report, (size_t)n);
    for (int i = 0; i < n; i++) {
        const char *equals = parting(operands[i]), *path = operands[i], *name = operands[i];
        size_t length;
        if (equals) {
            path = equals + 1;
            length = (size_t)(equals - operands[i]);
        } else {
            const char *slash = strrchr(path, '/');
            name = slash ? slash + 1 : path;
            length = strlen(name) - (sw_ends_with(name, ".json") && strlen(name) > 5 ? 5 : 0);
        }
        eval_report *r = &t->reports[t->n_reports];
        if (eval_report_read(path, r))
            return -1;
        t->n_reports++;
        if (i && r->confidence != t->reports[0].confidence)
            sw_warn("%s: its intervals cover %g %%, those of the first report %g %%", path, r->confidence * 100, t->reports[0].confidence * 100);
        size_t row = row_named(t, name, length);
        place_group(t, p, row, r, &r->all);
        for (size_t g = 0; by_group && g < r->n_groups; g++)
            place_group(t, p, row, r, &r->groups[g]);
    }
    return place_all(t, p);
}

static void free_table(eval_table *t)
{
    for (size_t i = 0; i < t->rows.n; i++)
        free(t->rows.at[i]);
    for (size_t i = 0; i < t->n_reports; i++)
        eval_report_free(&t->reports[i]);
    free(t->rows.at);
    free(t->columns.at);
    free(t->cells);
    free(t->reports);
}

int eval_compare_body(int n, char **operands)
{
    static void (*const printers[])(const eval_table *, sw_buf *) = {eval_table_text, eval_table_markdown, eval_table_json};
    if (!n)
        return sw_usage("a report is needed");
    if (plot && !sw_plot_name(plot))
        return sw_usage("--plot: '%s' does not end in .svg or .png", plot);
    eval_table t = {0};
    places p = {0};
    sw_buf out = {0};
    int rc = read_reports(&t, &p, operands, n);
    if (!rc) {
        mark_best(&t);
        pair(&t);
        printers[format](&t, &out);
        rc = plot ? eval_table_plot(&t, plot) : 0;
    }
    if (!rc)
        rc = eval_put(&out);
    sw_buf_free(&out);
    free(p.at);
    free_table(&t);
    return rc;
}
