#include "quant_gguf.h"

#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/gguf_map.h"
#include "store/quant.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 1 << 22 }; /* values in flight: the memory that a file of any size needs */

/* What this file says of itself; a copy of the input's would be wrong. */
static bool rewritten(const char *key)
{
    static const char *const keys[] = {"general.file_type", "general.quantization_version", "swift.command_line",
                                       "swift.version"};
    for (size_t i = 0; i < SW_COUNT(keys); i++)
        if (!strcmp(key, keys[i]))
            return true;
    return false;
}

int quant_from_gguf(quant_job *j, const sw_gguf *g, sw_gguf_writer *w)
{
    if (!sw_gguf_str(g, "general.architecture").n)
        return sw_fail("%s: general.architecture is missing: no model", sw_gguf_path(g));
    for (size_t i = 0; i < sw_gguf_value_count(g); i++)
        if (!rewritten(sw_gguf_value_at(g, i)->key))
            sw_gguf_put_copy(w, sw_gguf_value_at(g, i));
    for (size_t i = 0; i < sw_gguf_tensor_count(g); i++) {
        const sw_entry *e = sw_gguf_tensor_at(g, i);
        quant_tensor t = {.name = sw_strdup(e->name), .from = *e};
        SW_PUSH(j->tensors, t);
    }
    return 0;
}

/* ---- rows */

typedef struct row_range {
    int64_t width, rows;
    size_t in, out; /* bytes of a row */
} row_range;

static row_range rows_of(const quant_tensor *t)
{
    row_range r = {.width = sw_entry_width(&t->from)};
    if (t->from.t.ndim < 2 && !t->from.made) /* a vector is one row */
        r.width = sw_numel(&t->from.t);
    r.rows = r.width ? sw_numel(&t->from.t) / r.width : 0;
    r.in = sw_dtype_bytes(t->from.t.dtype, r.width);
    r.out = sw_dtype_bytes(t->to, r.width);
    return r;
}

/* One row; work holds 2 * width values. The sums for the report go to e[2]. */
static int convert_row(const quant_tensor *t, const row_range *range, const uint8_t *in, int64_t r, uint8_t *out, float *work, double *e)
{
    float *x = work, *y = work + range->width;
    e[0] = e[1] = 0;
    if (sw_is_integer(t->to)) {
        memcpy(out, in, range->out);
        return 0;
    }
    if (sw_dequantise(x, in, t->from.t.dtype, range->width))
        return -1;
    if (t->to == t->from.t.dtype)
        memcpy(out, in, range->out);
    else if (sw_quantise(out, t->to, x, range->width, NULL) || sw_dequantise(y, out, t->to, range->width))
        return sw_fail_in("row %" PRId64, r);
    for (int64_t i = 0; i < range->width; i++) {
        double d = t->to == t->from.t.dtype ? 0 : (double)x[i] - y[i];
        e[0] += d * d;
        e[1] += (double)x[i] * x[i];
    }
    return 0;
}

/* Rows [from, from + n), any number of threads; sums are taken in the order of rows. */
static int convert_rows(quant_tensor *t, const row_range *range, int64_t from, int64_t n, uint8_t *out, double *errors)
{
    char *failure = NULL;
    uint8_t *made = t->from.made ? sw_malloc(range->in * (size_t)n) : NULL;
    const uint8_t *in = made ? made : (const uint8_t *)t->from.t.data + range->in * (size_t)from;
    if (made && sw_entry_rows(&t->from, from, n, made)) {
        free(made);
        return sw_fail_in("%s", t->name);
    }
#pragma omp parallel
    {
        float *work = sw_malloc((size_t)range->width * 2 * sizeof *work);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < n; i++)
            if (convert_row(t, range, in + range->in * (size_t)i, from + i, out + range->out * (size_t)i, work, errors + 2 * i)) {
#pragma omp critical
                if (!failure) /* messages belong to a thread */
                    failure = sw_strdup(sw_error());
            }
        free(work);
    }
    for (int64_t i = 0; i < n; i++) {
        t->error += errors[2 * i];
        t->square += errors[2 * i + 1];
    }
    int rc = failure ? sw_fail("%s: %s", t->name, failure) : 0;
    free(made);
    free(failure);
    return rc;
}

static int write_tensor(quant_tensor *t, sw_gguf_writer *w)
{
    row_range range = rows_of(t);
    if (!range.rows)
        return 0;
    int64_t batch = SW_MAX(1, SW_MIN(range.rows, BATCH / SW_MAX(range.width, 1)));
    uint8_t *out = sw_malloc(range.out * (size_t)batch);
    double *errors = SW_NEW_ARRAY(double, (size_t)batch * 2);
    int rc = 0;
    for (int64_t r = 0; !rc && r < range.rows; r += batch) {
        int64_t n = SW_MIN(batch, range.rows - r);
        rc = sw_interrupted() ? sw_fail("interrupted; no file was written") : convert_rows(t, &range, r, n, out, errors);
        if (!rc)
            rc = sw_gguf_write(w, out, range.out * (size_t)n);
    }
    free(out);
    free(errors);
    return rc;
}

/* ---- the whole file */

static double relative_error(const quant_tensor *t) { return t->square > 0 ? sqrt(t->error / t->square) : 0; }

static size_t new_bytes(const quant_tensor *t) { return sw_dtype_bytes(t->to, sw_numel(&t->from.t)); }

static void report_line(sw_buf *b, const quant_tensor *t)
{
    sw_buf_puts(b, "{\"tensor\":");
    sw_buf_json(b, t->name, strlen(t->name));
    sw_buf_puts(b, ",\"shape\":[");
    for (int i = 0; i < t->from.t.ndim; i++)
        sw_buf_printf(b, "%s%" PRId64, i ? "," : "", t->from.t.shape[i]);
    sw_buf_printf(b, "],\"from\":\"%s\",\"to\":\"%s\",\"bytes_before\":%zu,\"bytes_after\":%zu,\"relative_rmse\":",
                  sw_dtypes[t->from.t.dtype].name, sw_dtypes[t->to].name, sw_tensor_bytes(&t->from.t), new_bytes(t));
    sw_json_number(b, relative_error(t));
    sw_buf_puts(b, "}\n");
}

static int write_report(const quant_job *j)
{
    sw_buf b = {0};
    for (size_t i = 0; i < j->tensors.n; i++)
        report_line(&b, &j->tensors.at[i]);
    int rc = sw_write_file(j->report, b.at ? b.at : "", b.n);
    sw_buf_free(&b);
    return rc;
}

static void print_table(const quant_job *j)
{
    size_t before = 0, after = 0;
    double error = 0, square = 0;
    char a[32], b[32];
    for (size_t i = 0; i < j->tensors.n; i++) {
        const quant_tensor *t = &j->tensors.at[i];
        before += sw_tensor_bytes(&t->from.t);
        after += new_bytes(t);
        error += t->error;
        square += t->square;
        if (!j->report)
            sw_info("%-32s %5s -> %-5s %11s -> %-11s error %.5f", t->name, sw_dtypes[t->from.t.dtype].name,
                    sw_dtypes[t->to].name, sw_human_bytes((double)sw_tensor_bytes(&t->from.t), a),
                    sw_human_bytes((double)new_bytes(t), b), relative_error(t));
    }
    sw_info("%zu tensors, %s -> %s, error %.5f (root mean square, relative to the weights)", j->tensors.n,
            sw_human_bytes((double)before, a), sw_human_bytes((double)after, b), square > 0 ? sqrt(error / square) : 0);
}

/* A number of the model by its key, of a list (one a layer) the first; 0 where there is none. */
static int first_of(const sw_gguf *g, const char *arch, const char *key, int64_t *out)
{
    char name[SW_GGUF_KEY_MAX];
    const sw_gguf_value *v = sw_gguf_find(g, sw_gguf_full(arch, key, name));
    double first = 0;
    if (!v || v->type != SW_GGUF_ARRAY)
        return sw_gguf_i64(g, name, 0, 1 << 20, 0, out);
    sw_gguf_iter items = sw_gguf_items(v);
    *out = sw_gguf_next_f64(&items, &first) && first > 0 && first < 1 << 20 ? (int64_t)first : 0;
    return 0;
}

static int in_order(const void *a, const void *b)
{
    return quant_order((*(quant_tensor *const *)a)->name, (*(quant_tensor *const *)b)->name);
}

/* The places of a part's tensors; returns how many there are. */
static int64_t number(quant_job *j, quant_part part, bool by_layer)
{
    quant_tensor **at = SW_NEW_ARRAY(quant_tensor *, j->tensors.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < j->tensors.n; i++)
        if (quant_has_place(part, j->tensors.at[i].name))
            at[n++] = &j->tensors.at[i];
    qsort(at, n, sizeof *at, in_order);
    for (size_t i = 0; i < n; i++)
        at[i]->place = by_layer ? SW_MAX(quant_layer(at[i]->name), 0) : (int64_t)i;
    free(at);
    return (int64_t)n;
}

static int read_model(quant_model *m, const sw_gguf *g)
{
    static const struct { const char *arch; int64_t layers; } large[] = {{"llama", 80}, {"qwen2", 80}, {"jais2", 68}};
    sw_span named = sw_gguf_str(g, "general.architecture");
    char *arch = sw_strndup(named.at, SW_MIN(named.n, (size_t)64));
    int64_t heads, groups;
    int rc = first_of(g, arch, "attention.head_count", &heads) || first_of(g, arch, "attention.head_count_kv", &groups) ||
                     first_of(g, arch, "block_count", &m->layers) || first_of(g, arch, "expert_count", &m->experts)
                 ? -1
                 : 0;
    if (!rc) {
        m->shared_by = groups ? heads / groups : 0;
        m->falcon = !strcmp(arch, "falcon");
        for (size_t i = 0; i < SW_COUNT(large); i++)
            m->large |= !strcmp(arch, large[i].arch) && m->layers == large[i].layers && (i || heads != groups);
    }
    free(arch);
    return rc;
}

/* What the model is like, from what the file will say of it, and the places of its tensors. */
static int learn(quant_job *j, const sw_gguf_writer *w)
{
    quant_model *m = &j->model;
    sw_gguf *g = sw_gguf_preview(w);
    int rc = g ? read_model(m, g) : -1;
    if (g)
        sw_gguf_close(g);
    for (size_t i = 0; i < j->tensors.n; i++)
        m->has_output |= !strcmp(j->tensors.at[i].name, "output.weight");
    m->values = number(j, QUANT_VALUE, false);
    number(j, QUANT_DOWN, m->experts > 1);
    return rc;
}

/* A pattern that names nothing is a slip. */
static int check_keep(const quant_job *j)
{
    for (size_t k = 0; k < j->keep.n; k++) {
        size_t i = 0;
        while (i < j->tensors.n && !quant_keeps(j->keep.at[k], j->tensors.at[i].name, &j->tensors.at[i].from.t))
            i++;
        if (i == j->tensors.n)
            return sw_fail("--keep %s: no matrix of the model has such a name; a report (--report) lists them", j->keep.at[k]);
    }
    return 0;
}

int quant_write(quant_job *j, sw_gguf_writer *w)
{
    double total = 0, done = 0;
    int rc = learn(j, w) || check_keep(j) ? -1 : 0;
    sw_gguf_put_u32(w, "general.file_type", j->recipe->file_type);
    sw_gguf_put_u32(w, "general.quantization_version", 2);
    sw_gguf_put_str(w, "swift.version", SW_VERSION, strlen(SW_VERSION));
    sw_gguf_put_str(w, "swift.command_line", sw_command_line(), strlen(sw_command_line()));
    for (size_t i = 0; !rc && i < j->tensors.n; i++) {
        quant_tensor *t = &j->tensors.at[i];
        rc = quant_pick(j->recipe, &j->model, &j->keep, t->name, &t->from.t, t->place, &t->to);
        if (!rc)
            sw_gguf_declare(w, t->name, t->to, t->from.t.ndim, t->from.t.shape);
        total += (double)sw_numel(&t->from.t);
    }
    if (!rc)
        rc = sw_gguf_writer_open(w, j->out);
    sw_progress bar;
    sw_progress_begin(&bar, "quantising", "values", total);
    for (size_t i = 0; !rc && i < j->tensors.n; i++) {
        rc = write_tensor(&j->tensors.at[i], w);
        if (!rc && !isfinite(j->tensors.at[i].square))
            sw_warn("%s: some values are NaN or infinite", j->tensors.at[i].name);
        done += (double)sw_numel(&j->tensors.at[i].from.t);
        sw_progress_update(&bar, done, j->tensors.at[i].name);
    }
    sw_progress_end(&bar);
    if (rc)
        sw_gguf_writer_abort(w);
    else
        rc = sw_gguf_writer_commit(w);
    if (!rc)
        print_table(j);
    return !rc && j->report ? write_report(j) : rc;
}

void quant_job_free(quant_job *j)
{
    for (size_t i = 0; i < j->tensors.n; i++)
        free(j->tensors.at[i].name);
    free(j->tensors.at);
    sw_arena_free(&j->arena);
}
