/* Tensors of GGUF made of the hub's, and the other way round. */
#include "model/gguf_map.h"

#include "base/map.h"
#include "store/made.h"
#include "store/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Some rows of what is made: output rows of the slice `to`, out of those of `from` in another tensor. */
typedef struct piece {
    const sw_entry *e;
    sw_slice to, from;
    int64_t n, heads;
    double scale; /* of its values; 0: 1 */
    sw_gguf_columns columns;
    bool from_turned;
    int64_t part; /* where that is turned: rows of a part */
} piece;

typedef struct plan {
    sw_made base;
    const char *name;
    sw_dtype dtype;
    int64_t width;      /* of logical rows */
    bool raw;           /* rows are copied as they are */
    bool to_gguf, turned;
    int64_t part;       /* where the result is turned: logical rows of a part */
    int64_t ratio;      /* rows here that make a row of the entry */
    sw_gguf_fn fn;
    const float *columns; /* [width]: factors of values by their column, or NULL */
    piece *pieces;
    int64_t n;
} plan;

static int64_t slice_at(const sw_slice *s, int64_t i) { return s->first + i / s->count * s->group + s->begin + i % s->count; }

/* Which of the slice's rows row r is; -1: none. */
static int64_t slice_find(const sw_slice *s, int64_t r, int64_t n)
{
    int64_t q = r - s->first, i = q >= 0 ? q % s->group - s->begin : -1;
    if (q < 0 || i < 0 || i >= s->count)
        return -1;
    int64_t at = q / s->group * s->count + i;
    return at < n ? at : -1;
}

/* Where row i of n lies when the halves of each head alternate, and back. */
static int64_t alternating(int64_t i, int64_t n, int64_t heads)
{
    int64_t head = n / heads, half = head / 2, in = i % head;
    return i - in + (in < half ? 2 * in : 2 * (in - half) + 1);
}

static int64_t in_halves(int64_t i, int64_t n, int64_t heads)
{
    int64_t head = n / heads, in = i % head;
    return i - in + in % 2 * (head / 2) + in / 2;
}

/* The row of its source that logical row r is. */
static int64_t source_of(const plan *p, int64_t r, const piece **from)
{
    int64_t guess = p->n > 4 ? SW_MIN(r / SW_MAX(p->pieces[0].n, 1), p->n - 1) : 0;
    for (int64_t k = 0; k < p->n; k++) {
        const piece *x = &p->pieces[(guess + k) % p->n];
        int64_t i = slice_find(&x->to, r, x->n);
        if (i < 0)
            continue;
        if (x->heads)
            i = p->to_gguf ? in_halves(i, x->n, x->heads) : alternating(i, x->n, x->heads);
        *from = x;
        return slice_at(&x->from, i);
    }
    return -1;
}

/* The bytes of `width` values from the row-th such number on. Rows of e may be shorter or longer. */
static int read_row(const sw_entry *e, int64_t row, int64_t width, void *out)
{
    int64_t own = sw_entry_width(e);
    if (own <= width)
        return sw_entry_rows(e, row * (width / own), width / own, out);
    char *whole = sw_malloc(sw_dtype_bytes(e->t.dtype, own));
    int rc = sw_entry_rows(e, row * width / own, 1, whole);
    if (!rc)
        memcpy(out, whole + sw_dtype_bytes(e->t.dtype, row * width % own), sw_dtype_bytes(e->t.dtype, width));
    free(whole);
    return rc;
}

/* The heads of a row of `bytes` in the other order. */
static void order_columns(const sw_gguf_columns *c, bool to_gguf, char *row, size_t bytes)
{
    size_t head = bytes / (size_t)c->heads;
    int64_t per = c->heads / c->groups;
    char *copy = sw_malloc(bytes);
    memcpy(copy, row, bytes);
    for (int64_t g = 0; g < c->groups; g++)
        for (int64_t i = 0; i < per; i++) {
            size_t together = (size_t)(g * per + i) * head, in_turn = (size_t)(i * c->groups + g) * head;
            memcpy(row + (to_gguf ? in_turn : together), copy + (to_gguf ? together : in_turn), head);
        }
    free(copy);
}

static float value_of(sw_gguf_fn fn, bool to_gguf, float v)
{
    switch (fn) {
    case SW_GGUF_PLUS_ONE: return to_gguf ? v + 1 : v - 1;
    case SW_GGUF_MINUS_EXP: return to_gguf ? -(float)exp((double)v) : (float)log(-(double)v);
    case SW_GGUF_EXP: return to_gguf ? (float)exp((double)v) : (float)log((double)v);
    default: return v;
    }
}

/* Logical row r of a source in f32; raw holds a source row. */
static int logical(const plan *p, int64_t r, float *out, void *raw)
{
    const piece *x = NULL;
    int64_t at = source_of(p, r, &x);
    if (at < 0)
        return sw_fail("%s: the file has nothing for row %lld", p->name, (long long)r);
    if (!x->from_turned) {
        if (read_row(x->e, at, p->width, raw) || sw_dequantise(out, raw, x->e->t.dtype, p->width))
            return -1;
        for (int64_t k = 0; k < p->width && x->scale != 0; k++)
            out[k] *= (float)x->scale;
        if (x->columns.heads)
            order_columns(&x->columns, p->to_gguf, (char *)out, (size_t)p->width * sizeof *out);
        return 0;
    }
    int64_t column = at % x->part, first = at / x->part * p->width; /* a column of [width, part] */
    float *whole = sw_malloc((size_t)x->part * sizeof *whole);
    int rc = 0;
    for (int64_t k = 0; k < p->width && !rc; k++) {
        rc = read_row(x->e, first + k, x->part, raw) || sw_dequantise(whole, raw, x->e->t.dtype, x->part) ? -1 : 0;
        out[k] = rc ? 0 : whole[column];
    }
    free(whole);
    return rc;
}

static size_t raw_bytes(const plan *p)
{
    size_t most = 0;
    for (int64_t i = 0; i < p->n; i++) {
        int64_t wide = SW_MAX(p->width, p->pieces[i].from_turned ? p->pieces[i].part : sw_entry_width(p->pieces[i].e));
        size_t bytes = sw_dtype_bytes(p->pieces[i].e->t.dtype, (wide + 255) / 256 * 256);
        most = SW_MAX(most, bytes);
    }
    return most;
}

/* Rows of sources that are turned, many at once: each source row is read once a call. */
static int turned_sources(const plan *p, int64_t first, int64_t n, float *out, void *raw)
{
    for (int64_t r = first, end; r < first + n; r = end) {
        const piece *x = NULL, *y = NULL;
        int64_t at = source_of(p, r, &x);
        if (at < 0 || !x->from_turned || x->heads) {
            end = r + 1;
            if (logical(p, r, out + (r - first) * p->width, raw))
                return -1;
            continue;
        }
        for (end = r + 1; end < first + n; end++) {
            int64_t next = source_of(p, end, &y);
            if (y != x || next / x->part != at / x->part)
                break;
        }
        float *whole = sw_malloc((size_t)x->part * sizeof *whole);
        int rc = 0;
        for (int64_t k = 0; k < p->width && !rc; k++) {
            rc = read_row(x->e, at / x->part * p->width + k, x->part, raw) || sw_dequantise(whole, raw, x->e->t.dtype, x->part) ? -1 : 0;
            for (int64_t i = r; i < end && !rc; i++)
                out[(i - first) * p->width + k] = whole[source_of(p, i, &y) % x->part];
        }
        free(whole);
        if (rc)
            return rc;
    }
    return 0;
}

/* Rows of a result that is turned: row (e, k) holds value k of the logical rows of part e. */
static int turned_result(const plan *p, int64_t first, int64_t n, float *out, void *raw)
{
    float *row = sw_malloc((size_t)p->width * sizeof *row);
    int rc = 0;
    for (int64_t r = first, end; r < first + n && !rc; r = end) {
        int64_t e = r / p->width;
        end = SW_MIN((e + 1) * p->width, first + n);
        for (int64_t i = 0; i < p->part && !rc; i++) {
            rc = logical(p, e * p->part + i, row, raw);
            for (int64_t k = r; k < end && !rc; k++)
                out[(k - first) * p->part + i] = row[k % p->width];
        }
    }
    free(row);
    return rc;
}

static void unit_row(float *row, int64_t width)
{
    double sum = 0;
    for (int64_t i = 0; i < width; i++)
        sum += (double)row[i] * (double)row[i];
    for (int64_t i = 0; i < width && sum > 0; i++)
        row[i] = (float)((double)row[i] / sqrt(sum));
}

/* Whole numbers are of 32 bits there. */
static int whole_rows(const plan *p, int64_t first, int64_t n, int32_t *out)
{
    void *raw = sw_malloc(raw_bytes(p));
    int rc = 0;
    for (int64_t r = 0; r < n && !rc; r++) {
        const piece *x = NULL;
        int64_t at = source_of(p, first + r, &x);
        rc = at < 0 ? sw_fail("%s: the file has nothing for row %lld", p->name, (long long)(first + r))
                    : read_row(x->e, at, p->width, raw);
        for (int64_t k = 0; k < p->width && !rc; k++) {
            double v = sw_scalar_get(raw, x->e->t.dtype, k);
            if (!(v >= INT32_MIN && v <= INT32_MAX))
                rc = sw_fail("%s: %g in row %lld is no number of 32 bits", p->name, v, (long long)(first + r));
            out[r * p->width + k] = rc ? 0 : (int32_t)v;
        }
    }
    free(raw);
    return rc;
}

static int made_rows(const sw_made *base, int64_t first, int64_t n, void *out)
{
    const plan *p = (const plan *)base;
    size_t row = sw_dtype_bytes(p->dtype, p->turned ? p->part : p->width);
    first *= p->ratio;
    n *= p->ratio;
    for (int64_t r = 0; r < n && p->raw; r++) {
        const piece *x = NULL;
        int64_t at = source_of(p, first + r, &x);
        if (at < 0)
            return sw_fail("%s: the file has nothing for row %lld", p->name, (long long)(first + r));
        if (read_row(x->e, at, p->width, (char *)out + row * (size_t)r))
            return -1;
        if (x->columns.heads)
            order_columns(&x->columns, p->to_gguf, (char *)out + row * (size_t)r, row);
    }
    if (p->raw)
        return 0;
    if (sw_is_integer(p->dtype))
        return whole_rows(p, first, n, out);
    int64_t width = p->turned ? p->part : p->width;
    float *values = sw_malloc((size_t)(n * width) * sizeof *values);
    void *raw = sw_malloc(raw_bytes(p));
    int rc = p->turned ? turned_result(p, first, n, values, raw) : turned_sources(p, first, n, values, raw);
    for (int64_t i = 0; i < n && !rc && p->fn == SW_GGUF_UNIT_ROWS; i++)
        unit_row(values + i * width, width);
    for (int64_t i = 0; i < n * width && !rc && p->columns; i++)
        values[i] *= p->columns[i % width];
    for (int64_t i = 0; i < n * width && !rc && p->fn != SW_GGUF_SAME; i++)
        values[i] = value_of(p->fn, p->to_gguf, values[i]);
    if (!rc)
        rc = sw_quantise(out, p->dtype, values, n * width, NULL);
    free(values);
    free(raw);
    return rc;
}

/* ---- what is what */

static sw_dtype joint_type(const plan *p, bool values)
{
    sw_dtype t = p->pieces[0].e->t.dtype;
    bool same = true, blocks = false;
    for (int64_t i = 0; i < p->n; i++) {
        same &= p->pieces[i].e->t.dtype == t;
        blocks |= sw_is_quantised(p->pieces[i].e->t.dtype);
    }
    for (int64_t i = 0; i < p->n; i++)
        if (p->fn != SW_GGUF_SAME || p->pieces[i].scale != 0)
            return SW_F32;
    if (same && (!values || sw_is_float(t)))
        return t;
    return blocks ? SW_BF16 : SW_F32;
}

/* Rows that lie together in one tensor of a file need no making: where they begin, or -1. */
static int64_t lie_together(const plan *p, int64_t all)
{
    const piece *x = p->pieces;
    if (p->n != 1 || !p->raw || x->heads || x->columns.heads || x->e->made || x->n != all || x->to.first || x->to.begin)
        return -1;
    bool out = x->to.count == x->to.group || x->to.count >= x->n, in = x->from.count == x->from.group || x->from.count >= x->n;
    return out && in ? x->from.first + x->from.begin : -1;
}

/* One over the length of each column of a matrix, as its head takes them (head.h). */
static int unit_columns(plan *p, const sw_entry *e, sw_arena *arena)
{
    int64_t width = sw_entry_width(e), rows = sw_entry_row_count(e);
    double *sum = sw_calloc((size_t)width, sizeof *sum);
    float *row = SW_NEW_ARRAY(float, (size_t)width), *factors = sw_arena_alloc(arena, (size_t)width * sizeof *factors);
    void *raw = sw_malloc(sw_dtype_bytes(e->t.dtype, width));
    int rc = 0;
    for (int64_t r = 0; r < rows && !rc; r++) {
        rc = sw_entry_rows(e, r, 1, raw) || sw_dequantise(row, raw, e->t.dtype, width) ? -1 : 0;
        for (int64_t i = 0; i < width && !rc; i++)
            sum[i] += (double)row[i] * (double)row[i];
    }
    for (int64_t i = 0; i < width; i++)
        factors[i] = 1 / ((float)sqrt(sum[i]) + 1e-7F);
    p->columns = factors;
    free(sum);
    free(row);
    free(raw);
    return rc;
}

static int make(const sw_gguf_link *const *links, int64_t n, const sw_checkpoint *c, bool to_gguf, sw_entry *out, sw_arena *arena)
{
    const sw_gguf_link *l = links[0];
    plan *p = sw_arena_zalloc(arena, sizeof *p);
    *p = (plan){.base = {made_rows}, .name = to_gguf ? l->gguf : l->file, .width = l->width, .to_gguf = to_gguf, .fn = l->fn, .n = n,
                .turned = to_gguf ? l->gguf_turned : l->file_turned};
    p->pieces = sw_arena_zalloc(arena, (size_t)n * sizeof *p->pieces);
    int ndim = to_gguf ? l->gguf_ndim : l->file_ndim;
    const int64_t *shape = to_gguf ? l->gguf_shape : l->file_shape;
    bool values = p->fn != SW_GGUF_SAME || p->turned;
    int64_t all = 1, have = 0;
    for (int i = 0; i < ndim; i++)
        all *= shape[i];
    all /= SW_MAX(p->width, 1);
    p->part = p->turned ? shape[ndim - 1] : 0;
    for (int64_t i = 0; i < n; i++) {
        const sw_gguf_link *k = links[i];
        const sw_entry *e = sw_checkpoint_find(c, to_gguf ? k->file : k->gguf);
        bool turned = to_gguf ? k->file_turned : k->gguf_turned;
        const int64_t *from = to_gguf ? k->file_shape : k->gguf_shape;
        p->pieces[i] = (piece){e, to_gguf ? k->in_gguf : k->in_file, to_gguf ? k->in_file : k->in_gguf, k->n, k->heads,
                               k->scale == 0 || k->scale == 1 ? 0 : to_gguf ? k->scale : 1 / k->scale, k->columns, turned,
                               turned ? from[(to_gguf ? k->file_ndim : k->gguf_ndim) - 1] : 0};
        if (k->width != p->width || k->fn != p->fn)
            return sw_fail("%s: its parts do not fit together", p->name);
        values |= turned || p->pieces[i].scale != 0 ||
                  (k->columns.heads && k->width / k->columns.heads % sw_dtypes[e->t.dtype].block); /* heads that are no whole blocks */
        have += k->n;
    }
    if (have != all)
        return sw_fail("%s: has %lld rows, but the file holds %lld of them", p->name, (long long)all, (long long)have);
    p->dtype = joint_type(p, values);
    if (to_gguf && sw_is_integer(p->dtype))
        p->dtype = SW_I32;
    p->raw = !values;
    for (int64_t i = 0; i < n; i++)
        p->raw &= p->pieces[i].e->t.dtype == p->dtype;
    *out = (sw_entry){.name = (char *)(uintptr_t)p->name, .t = sw_tensor_of(NULL, p->dtype, ndim, shape), .made = &p->base};
    p->ratio = SW_MAX(sw_entry_width(out) / SW_MAX(p->turned ? p->part : p->width, 1), 1);
    if (p->fn == SW_GGUF_UNIT_COLUMNS && unit_columns(p, p->pieces[0].e, arena))
        return -1;
    int64_t at = lie_together(p, all);
    if (at >= 0) {
        const sw_entry *e = p->pieces[0].e;
        out->t.data = (char *)e->t.data + sw_dtype_bytes(e->t.dtype, p->width * at);
        out->file = e->file;
        out->made = NULL;
    }
    if (p->dtype != SW_DTYPE_COUNT && sw_is_quantised(p->dtype) && p->width % sw_dtypes[p->dtype].block)
        return sw_fail("%s: rows of %lld values are no whole blocks of %s", p->name, (long long)p->width, sw_dtypes[p->dtype].name);
    return 0;
}

int sw_gguf_tensors(const sw_gguf_links *links, const sw_checkpoint *c, bool from_file, sw_entries *out, sw_arena *arena)
{
    sw_map index = {0};
    struct chain { size_t *at; size_t n, cap; } *chains = SW_NEW_ARRAY(struct chain, links->n + 1);
    size_t n = 0;
    int rc = 0;
    for (size_t i = 0; i < links->n; i++) {
        const char *name = from_file ? links->at[i].gguf : links->at[i].file;
        int64_t at = sw_map_gets(&index, name, -1);
        if (at < 0) {
            at = (int64_t)n++;
            sw_map_puts(&index, name, at);
        }
        SW_PUSH(chains[at], i);
    }
    for (size_t i = 0; i < n && !rc; i++) {
        const sw_gguf_link **group = SW_NEW_ARRAY(const sw_gguf_link *, chains[i].n);
        sw_entry e;
        for (size_t k = 0; k < chains[i].n; k++)
            group[k] = &links->at[chains[i].at[k]];
        rc = make(group, (int64_t)chains[i].n, c, from_file, &e, arena);
        if (!rc)
            SW_PUSH(*out, e);
        free(group);
    }
    for (size_t i = 0; i < n; i++)
        free(chains[i].at);
    free(chains);
    sw_map_free(&index);
    return rc;
}
