#include "eval_compare.h"

#include "base/gnuplot.h"
#include "base/json.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* A grid of texts, the first row and the first column are headings. */
typedef struct grid {
    char **at;
    size_t rows, columns;
} grid;

static char *heading(const eval_column *c)
{
    return c->group ? sw_strfmt("%s/%s/%s", c->task, c->group, c->metric) : sw_strfmt("%s/%s", c->task, c->metric);
}

static bool significant(const eval_cell *c) { return c->difference_interval.low > 0 || c->difference_interval.high < 0; }

static char *value_text(const eval_cell *c, bool markdown)
{
    if (!c->figure)
        return sw_strdup("");
    const char *around = c->best && markdown ? "**" : "";
    return sw_strfmt("%s%.4f%s [%.4f, %.4f]%s", around, c->figure->value, around, c->figure->interval.low, c->figure->interval.high,
                     markdown ? "" : c->best ? " *" : "  ");
}

static char *difference_text(const eval_cell *c, bool markdown)
{
    if (!c->paired)
        return sw_strdup("");
    const char *around = significant(c) && markdown ? "**" : "";
    return sw_strfmt("%s%+.4f%s [%+.4f, %+.4f]%s", around, c->difference, around, c->difference_interval.low, c->difference_interval.high,
                     markdown ? "" : significant(c) ? " *" : "  ");
}

/* One row of the grid a row of the table from `first` on, by `text`. Columns that are empty in all of them are left out. */
static grid make_grid(const eval_table *t, size_t first, bool markdown, char *(*text)(const eval_cell *, bool), const char *corner)
{
    grid g = {SW_NEW_ARRAY(char *, (t->rows.n + 1) * (t->columns.n + 1)), t->rows.n - first + 1, 1};
    bool *used = SW_NEW_ARRAY(bool, t->columns.n);
    for (size_t j = 0; j < t->columns.n; j++) {
        for (size_t i = first; i < t->rows.n; i++) {
            char *s = text(&t->cells[i * t->columns.n + j], markdown);
            used[j] |= *s != 0;
            free(s);
        }
        g.columns += used[j];
    }
    size_t at = 0;
    g.at[at++] = sw_strdup(corner);
    for (size_t j = 0; j < t->columns.n; j++)
        if (used[j])
            g.at[at++] = heading(&t->columns.at[j]);
    for (size_t i = first; i < t->rows.n; i++) {
        g.at[at++] = sw_strdup(t->rows.at[i]);
        for (size_t j = 0; j < t->columns.n; j++)
            if (used[j])
                g.at[at++] = text(&t->cells[i * t->columns.n + j], markdown);
    }
    free(used);
    return g;
}

static void free_grid(grid *g)
{
    for (size_t i = 0; i < g->rows * g->columns; i++)
        free(g->at[i]);
    free(g->at);
}

static void print_text(const grid *g, sw_buf *out)
{
    for (size_t i = 0; i < g->rows; i++) {
        for (size_t j = 0; j < g->columns; j++) {
            size_t width = 0;
            for (size_t k = 0; k < g->rows; k++)
                width = SW_MAX(width, sw_utf8_count(g->at[k * g->columns + j], strlen(g->at[k * g->columns + j])));
            const char *s = g->at[i * g->columns + j];
            sw_buf_puts(out, s);
            if (j + 1 < g->columns)
                sw_buf_printf(out, "%*s", (int)(width - sw_utf8_count(s, strlen(s)) + 2), "");
        }
        while (out->n && out->at[out->n - 1] == ' ')
            out->n--;
        sw_buf_putc(out, '\n');
    }
}

static void print_markdown(const grid *g, sw_buf *out)
{
    for (size_t i = 0; i < g->rows; i++) {
        for (size_t j = 0; j < g->columns; j++) {
            sw_buf_puts(out, j ? " | " : "| ");
            for (const char *s = g->at[i * g->columns + j]; *s; s++) {
                if (*s == '|')
                    sw_buf_putc(out, '\\');
                sw_buf_putc(out, *s);
            }
        }
        sw_buf_puts(out, " |\n");
        for (size_t j = 0; j < g->columns && !i; j++)
            sw_buf_puts(out, j ? "---|" : "|---|");
        if (!i)
            sw_buf_putc(out, '\n');
    }
}

static void print_tables(const eval_table *t, bool markdown, sw_buf *out)
{
    void (*const show)(const grid *, sw_buf *) = markdown ? print_markdown : print_text;
    double percent = t->reports[0].confidence * 100;
    bool paired = false;
    grid g = make_grid(t, 0, markdown, value_text, "");
    show(&g, out);
    free_grid(&g);
    if (t->rows.n > 1)
        sw_buf_printf(out, "\n%s: the best of a column; in brackets, intervals of %.4g %%.\n", markdown ? "Bold" : "*", percent);
    for (size_t i = 0; i < t->rows.n * t->columns.n; i++)
        paired |= t->cells[i].paired;
    if (!paired)
        return;
    char *corner = sw_strfmt("minus %s", t->rows.at[0]);
    g = make_grid(t, 1, markdown, difference_text, corner);
    sw_buf_putc(out, '\n');
    show(&g, out);
    sw_buf_printf(out, "\n%s: the interval of %.4g %% of the paired difference leaves out 0.\n", markdown ? "Bold" : "*", percent);
    free_grid(&g);
    free(corner);
}

void eval_table_text(const eval_table *t, sw_buf *out) { print_tables(t, false, out); }
void eval_table_markdown(const eval_table *t, sw_buf *out) { print_tables(t, true, out); }

static void add_values(cJSON *o, double value, eval_interval i)
{
    cJSON_AddNumberToObject(o, "value", value);
    cJSON_AddNumberToObject(o, "low", i.low);
    cJSON_AddNumberToObject(o, "high", i.high);
}

void eval_table_json(const eval_table *t, sw_buf *out)
{
    cJSON *all = cJSON_CreateObject(), *columns = cJSON_AddArrayToObject(all, "columns"), *rows = cJSON_AddArrayToObject(all, "rows");
    for (size_t j = 0; j < t->columns.n; j++) {
        const eval_column *c = &t->columns.at[j];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "task", c->task);
        if (c->group)
            cJSON_AddStringToObject(o, "group", c->group);
        cJSON_AddStringToObject(o, "metric", c->metric);
        cJSON_AddBoolToObject(o, "lower_is_better", c->lower_is_better);
        cJSON_AddItemToArray(columns, o);
    }
    for (size_t i = 0; i < t->rows.n; i++) {
        cJSON *row = cJSON_CreateObject();
        cJSON_AddStringToObject(row, "name", t->rows.at[i]);
        cJSON *values = cJSON_AddArrayToObject(row, "values");
        for (size_t j = 0; j < t->columns.n; j++) {
            const eval_cell *c = &t->cells[i * t->columns.n + j];
            cJSON *v = c->figure ? cJSON_CreateObject() : cJSON_CreateNull();
            cJSON_AddItemToArray(values, v);
            if (!c->figure)
                continue;
            add_values(v, c->figure->value, c->figure->interval);
            cJSON_AddBoolToObject(v, "best", c->best);
            if (c->paired)
                add_values(cJSON_AddObjectToObject(v, "difference"), c->difference, c->difference_interval);
        }
        cJSON_AddItemToArray(rows, row);
    }
    sw_json_print_pretty(out, all);
    cJSON_Delete(all);
}

/* ---- plot */

int eval_table_plot(const eval_table *t, const char *path)
{
    size_t across = SW_MIN(t->columns.n, 4), down = (t->columns.n + across - 1) / across;
    sw_buf s = {0};
    sw_buf_printf(&s, "set multiplot layout %zu,%zu\nunset key\nset grid ytics\nset xrange [-0.5:%g]\nset style fill solid 0.3\n", down, across,
                  (double)t->rows.n - 0.5);
    sw_buf_printf(&s, "set xtics%s (", t->rows.n > 4 ? " rotate by -30" : "");
    for (size_t i = 0; i < t->rows.n; i++) {
        sw_buf_puts(&s, i ? ", " : "");
        sw_gnuplot_text(&s, t->rows.at[i]);
        sw_buf_printf(&s, " %zu", i);
    }
    sw_buf_puts(&s, ")\n");
    for (size_t j = 0; j < t->columns.n; j++) {
        char *title = heading(&t->columns.at[j]);
        sw_buf_puts(&s, "set title ");
        sw_gnuplot_text(&s, title);
        sw_buf_printf(&s, "\n$d%zu << END\n", j);
        double low = 0, high = 0;
        bool any = false;
        for (size_t i = 0; i < t->rows.n; i++) {
            const eval_figure *f = t->cells[i * t->columns.n + j].figure;
            if (!f)
                continue;
            sw_buf_printf(&s, "%zu %.17g %.17g %.17g\n", i, f->value, f->interval.low, f->interval.high);
            low = any ? SW_MIN(low, SW_MIN(f->interval.low, f->value)) : SW_MIN(f->interval.low, f->value);
            high = any ? SW_MAX(high, SW_MAX(f->interval.high, f->value)) : SW_MAX(f->interval.high, f->value);
            any = true;
        }
        /* Scores that are all the same would leave gnuplot without a range. */
        double margin = high > low ? (high - low) * 0.1 : 0.05 * SW_MAX(high > 0 ? high : -high, 1);
        sw_buf_printf(&s, "END\nset yrange [%.9g:%.9g]\nplot $d%zu using 1:2:3:4 with yerrorbars pointtype 7 linewidth 2 linecolor rgb '#1f5fa8'\n",
                      low - margin, high + margin, j);
        free(title);
    }
    sw_buf_puts(&s, "unset multiplot\n");
    int rc = sw_gnuplot((sw_span){s.at, s.n}, (int)(SW_MAX(120 + 80 * SW_MIN(t->rows.n, 20), 360) * across), (int)(360 * SW_MIN(down, 20)), path);
    sw_buf_free(&s);
    return rc;
}
