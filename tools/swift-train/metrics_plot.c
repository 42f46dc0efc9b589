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
    size_t n, finite[6]; /* rows; numbers in each column, the step is the first */
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

static double accuracy(const cJSON *o) { return number(o, sw_json_get(o, "accuracy") ? "accuracy" : "token_accuracy"); }

/* gnuplot leaves out what is NaN. */
static void put(series *s, const double *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (isfinite(values[i]))
            sw_buf_printf(&s->rows, "%.9g ", values[i]);
        else
            sw_buf_puts(&s->rows, "NaN ");
        s->finite[i] += isfinite(values[i]);
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
        put(&p->train, (double[]){step, loss, p->average / p->share, accuracy(o), number(o, "lr"), number(o, "grad_norm")}, 6);
    } else if (!strcmp(kind->valuestring, "eval")) {
        if (loss < p->best || !p->eval.finite[1]) {
            p->best = loss;
            p->best_step = step;
        }
        put(&p->eval, (double[]){step, loss, accuracy(o)}, 3);
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

/* Adds a curve over the steps when its column holds anything. */
static void curve(sw_buf *plot, const char *data, const series *s, int column, const char *style, const char *title)
{
    if (s->finite[column])
        sw_buf_printf(plot, "%s$%s using 1:%d with %s title '%s'", plot->n ? ", " : "", data, column + 1, style, title);
}

/* A panel of the curves in plot; an empty one keeps its place. */
static void panel(sw_buf *script, const char *title, const char *key, sw_buf *plot)
{
    if (plot->n)
        sw_buf_printf(script, "%s\nset title '%s'\nplot %s\n", key, title, plot->at);
    else
        sw_buf_puts(script, "set multiplot next\n");
    sw_buf_clear(plot);
}

#define BLUE "lc rgb '#1f4e9e'"
#define RED "linespoints pt 7 ps 0.7 lc rgb '#c0504d'"

static void write_script(sw_buf *script, const plots *p, const char *title)
{
    data(script, "train", &p->train);
    data(script, "eval", &p->eval);
    sw_buf_puts(script, "set multiplot layout 2,2 title ");
    sw_gnuplot_text(script, title);
    sw_buf_puts(script, "\nset grid lc rgb '#dddddd'\nset xlabel 'updates'\nset tics nomirror\nset border 3\n");
    bool one = p->train.n == 1; /* one update is a point, not a line */
    const char *line = one ? "points pt 7 " BLUE : "lines " BLUE;
    sw_buf plot = {0};
    curve(&plot, "train", &p->train, 1, one ? "points pt 7 lc rgb '#b8cce4'" : "lines lc rgb '#b8cce4'", "training");
    curve(&plot, "train", &p->train, 2, one ? "points pt 7 " BLUE : "lines lw 2 " BLUE, "moving average");
    curve(&plot, "eval", &p->eval, 1, RED, "evaluation");
    if (p->eval.finite[1])
        sw_buf_printf(&plot, ", '+' using (%.9g):(%.9g) every ::0::0 with points pt 6 ps 2 lw 2 lc rgb '#c0504d' title 'best: %.4g'", p->best_step,
                      p->best, p->best);
    panel(script, "loss", "set key top right", &plot);
    curve(&plot, "train", &p->train, 3, line, "training");
    curve(&plot, "eval", &p->eval, 2, RED, "evaluation");
    panel(script, "token accuracy", "set key bottom right", &plot);
    curve(&plot, "train", &p->train, 4, line, "");
    panel(script, "learning rate", "unset key", &plot);
    curve(&plot, "train", &p->train, 5, line, "");
    panel(script, "gradient norm", "unset key", &plot);
    sw_buf_puts(script, "unset multiplot\n");
    sw_buf_free(&plot);
}

int sw_metrics_plot(const char *metrics, const char *out, const char *title)
{
    plots p = {0};
    sw_buf script = {0};
    int rc = read_all(&p, metrics);
    if (!rc && !p.train.finite[1] && !p.eval.finite[1])
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
