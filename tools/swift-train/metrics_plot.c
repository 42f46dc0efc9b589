/* Four panels over the updates: loss (each update, their moving average, evaluations with the best one marked), token
 * accuracy, learning rate, gradient norm. */
#include "metrics.h"

#include "base/fileio.h"
#include "base/gnuplot.h"
#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct series {
    sw_buf rows; /* "step value ..." lines of a here-document */
    size_t n;
} series;

typedef struct plots {
    series train, eval; /* train: step loss average accuracy lr norm; eval: step loss accuracy */
    double average, share; /* of the losses so far; weight that it has */
    double best, best_step;
} plots;

static double number(const cJSON *o, const char *key)
{
    const cJSON *v = sw_json_get(o, key);
    return cJSON_IsNumber(v) ? v->valuedouble : NAN;
}

/* gnuplot leaves out what is NaN. */
static void put(series *s, const double *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (isfinite(values[i]))
            sw_buf_printf(&s->rows, "%.9g ", values[i]);
        else
            sw_buf_puts(&s->rows, "NaN ");
    }
    sw_buf_putc(&s->rows, '\n');
    s->n++;
}

static void take(plots *p, const cJSON *o)
{
    const cJSON *kind = sw_json_get(o, "kind");
    double step = number(o, "step"), loss = number(o, "loss");
    if (!cJSON_IsString(kind) || !isfinite(step))
        return;
    if (!strcmp(kind->valuestring, "train")) {
        if (isfinite(loss)) { /* an exponential average without a bias to its beginning */
            p->average = 0.95 * p->average + 0.05 * loss;
            p->share = 0.95 * p->share + 0.05;
        }
        put(&p->train, (double[]){step, loss, p->average / p->share, number(o, "token_accuracy"), number(o, "lr"), number(o, "grad_norm")}, 6);
    } else if (!strcmp(kind->valuestring, "eval")) {
        if (loss < p->best || !p->eval.n) {
            p->best = loss;
            p->best_step = step;
        }
        put(&p->eval, (double[]){step, loss, number(o, "token_accuracy")}, 3);
    }
}

static int read_all(plots *p, const char *path)
{
    sw_buf all = {0};
    if (sw_read_file(path, &all)) {
        sw_buf_free(&all);
        return -1;
    }
    int rc = 0, line = 1;
    for (size_t at = 0; at < all.n && !rc; line++) {
        const char *end = memchr(all.at + at, '\n', all.n - at);
        if (!end)
            break; /* a line that is being written */
        size_t n = (size_t)(end - (all.at + at));
        cJSON *o = n ? sw_json_parse(all.at + at, n) : NULL;
        if (n && !o)
            rc = sw_fail_in("%s: line %d", path, line);
        else if (o)
            take(p, o);
        cJSON_Delete(o);
        at += n + 1;
    }
    sw_buf_free(&all);
    return rc;
}

static void data(sw_buf *script, const char *name, const series *s)
{
    sw_buf_printf(script, "$%s << END\n", name);
    if (s->n)
        sw_buf_add(script, s->rows.at, s->rows.n);
    sw_buf_puts(script, "END\n");
}

static void panel(sw_buf *script, const char *title, const char *plot)
{
    sw_buf_printf(script, "set title '%s'\nplot %s\n", title, plot);
}

static void write_script(sw_buf *script, const plots *p, const char *title)
{
    data(script, "train", &p->train);
    data(script, "eval", &p->eval);
    sw_buf_puts(script, "set multiplot layout 2,2 title ");
    sw_gnuplot_text(script, title);
    sw_buf_puts(script, "\nset grid lc rgb '#dddddd'\nset key top right\nset xlabel 'updates'\nset tics nomirror\nset border 3\n");
    /* One update is a point, not a line. */
    const char *style = p->train.n > 1 ? "lines" : "points pt 7";
    sw_buf plot = {0};
    const char *comma = "";
    if (p->train.n) {
        sw_buf_printf(&plot, "$train using 1:2 with %s lc rgb '#b8cce4' title 'training', $train using 1:3 with %s lw 2 lc rgb '#1f4e9e' "
                             "title 'moving average'", style, style);
        comma = ", ";
    }
    if (p->eval.n) {
        sw_buf_printf(&plot, "%s$eval using 1:2 with linespoints pt 7 ps 0.7 lc rgb '#c0504d' title 'evaluation'", comma);
        if (isfinite(p->best))
            sw_buf_printf(&plot, ", '+' using (%.9g):(%.9g) every ::0::0 with points pt 6 ps 2 lw 2 lc rgb '#c0504d' title 'best: %.4g'", p->best_step,
                          p->best, p->best);
    }
    panel(script, "loss", plot.at);
    sw_buf_clear(&plot);
    if (p->train.n)
        sw_buf_printf(&plot, "$train using 1:4 with %s lc rgb '#1f4e9e' title 'training'", style);
    if (p->eval.n)
        sw_buf_printf(&plot, "%s$eval using 1:3 with linespoints pt 7 ps 0.7 lc rgb '#c0504d' title 'evaluation'", comma);
    sw_buf_puts(script, "set key bottom right\n");
    panel(script, "token accuracy", plot.at);
    sw_buf_puts(script, "unset key\n");
    if (p->train.n) {
        sw_buf_clear(&plot);
        sw_buf_printf(&plot, "$train using 1:5 with %s lc rgb '#1f4e9e'", style);
        panel(script, "learning rate", plot.at);
        sw_buf_clear(&plot);
        sw_buf_printf(&plot, "$train using 1:6 with %s lc rgb '#1f4e9e'", style);
        panel(script, "gradient norm", plot.at);
    }
    sw_buf_puts(script, "unset multiplot\n");
    sw_buf_free(&plot);
}

int sw_metrics_plot(const char *metrics, const char *out, const char *title)
{
    plots p = {0};
    sw_buf script = {0};
    int rc = read_all(&p, metrics);
    if (!rc && !p.train.n && !p.eval.n)
        rc = sw_fail("%s: no record of an update or an evaluation to draw", metrics);
    if (!rc) {
        write_script(&script, &p, title);
        rc = sw_gnuplot((sw_span){script.at, script.n}, 1200, 800, out);
    }
    sw_buf_free(&p.train.rows);
    sw_buf_free(&p.eval.rows);
    sw_buf_free(&script);
    return rc;
}
