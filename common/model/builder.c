#include "model/builder.h"

#include "model/new_head.h"
#include "store/checkpoint.h"
#include "store/made.h"
#include "store/quant.h"
#include "store/scaled.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PROBLEMS = 12 };

void sw_builder_problem(sw_builder *b, const char *fmt, ...)
{
    va_list ap;
    char text[512];
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (b->n_problems++ < MOST_PROBLEMS)
        sw_buf_printf(&b->problems, "%s%s", b->problems.n ? "; " : "", text);
}

void sw_builder_free(sw_builder *b)
{
    sw_map_free(&b->used);
    sw_buf_free(&b->problems);
}

const sw_spec *sw_builder_spec(const sw_builder *b) { return &b->m->spec; }
const sw_layer *sw_builder_layer(const sw_builder *b) { return b->layer < 0 ? NULL : &b->m->spec.layer[b->layer]; }
void *sw_builder_alloc(sw_builder *b, size_t n) { return sw_arena_zalloc(&b->m->arena, n); }

static char *shape_text(int ndim, const int64_t *shape, char out[96])
{
    int n = snprintf(out, 96, "[");
    for (int i = 0; i < ndim && n < 80; i++)
        n += snprintf(out + n, 96 - (size_t)n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    snprintf(out + n, 96 - (size_t)n, "]");
    return out;
}

/* ---- values */

static sw_dtype wanted(const sw_builder *b, sw_dtype have, unsigned flags)
{
    if (flags & SW_ASK_F32)
        return SW_F32;
    if (sw_is_quantised(have) && !b->o->dequantise)
        return have;
    if (b->o->dtype != SW_DTYPE_COUNT)
        return b->o->dtype;
    if (have == SW_F8_E4M3 || have == SW_F8_E5M2) /* all that they can say */
        return SW_BF16;
    return sw_is_float(have) ? have : SW_F32;
}

/* Row r of a matrix stored the other way round, in f32. */
static void column(float *out, const sw_tensor *t, int64_t r)
{
    int64_t wide = t->shape[1];
    for (int64_t i = 0; i < t->shape[0]; i++)
        out[i] = (float)sw_scalar_get(t->data, t->dtype, i * wide + r);
}

/* Rows of e in the type of the result, a few at a time; `work` holds one in f32. */
static int convert(char *out, sw_dtype type, const char *from, sw_dtype have, int64_t rows, int64_t width, float *work)
{
    size_t in_row = sw_dtype_bytes(have, width), out_row = sw_dtype_bytes(type, width);
    for (int64_t r = 0; r < rows; r++)
        if (sw_dequantise(work, from + in_row * (size_t)r, have, width) || sw_quantise(out + out_row * (size_t)r, type, work, width, NULL))
            return -1;
    return 0;
}

/* Writes the values of e to `to` (device memory, type `type`), row by row, so that no second copy of a matrix is needed. */
static int fill_rows(const sw_builder *b, char *to, sw_dtype type, const sw_entry *e)
{
    enum { BATCH = 1 << 20 }; /* values on their way */
    sw_device *d = b->m->device;
    int64_t width = sw_entry_width(e), rows = sw_entry_row_count(e), most = SW_MAX(1, SW_MIN(rows, BATCH / SW_MAX(width, 1)));
    bool same = type == e->t.dtype;
    if (same && !e->made)
        return d->put(d, to, e->t.data, sw_tensor_bytes(&e->t));
    if (e->t.ndim < 2) { /* a vector is one row of values */
        width = rows;
        rows = most = rows ? 1 : 0;
    }
    size_t in_row = sw_dtype_bytes(e->t.dtype, width), out_row = sw_dtype_bytes(type, width);
    char *raw = e->made ? sw_malloc(in_row * (size_t)most) : NULL, *out = same ? raw : sw_malloc(out_row * (size_t)most);
    float *work = sw_malloc((size_t)width * sizeof *work);
    int rc = 0;
    for (int64_t r = 0; r < rows && !rc; r += most) {
        int64_t n = SW_MIN(most, rows - r);
        const char *from = raw ? raw : (const char *)e->t.data + in_row * (size_t)r;
        if (raw && same && d->host)
            rc = e->t.ndim < 2 ? sw_entry_rows(e, 0, width, to) : sw_entry_rows(e, r, n, to + out_row * (size_t)r);
        else if (raw)
            rc = e->t.ndim < 2 ? sw_entry_rows(e, 0, width, raw) : sw_entry_rows(e, r, n, raw);
        if (!rc && !same)
            rc = convert(out, type, from, e->t.dtype, n, width, work);
        if (!rc && !(raw && same && d->host))
            rc = d->put(d, to + out_row * (size_t)r, out, out_row * (size_t)n);
    }
    free(work);
    if (out != raw)
        free(out);
    free(raw);
    return rc;
}

/* The same of a matrix [rows, width] that is stored the other way round. */
static int fill_turned(const sw_builder *b, char *to, sw_dtype type, const sw_entry *e, int64_t rows, int64_t width)
{
    sw_device *d = b->m->device;
    enum { BATCH = 1 << 20 }; /* bytes on their way: each copy to a GPU has its price */
    size_t out_row = sw_dtype_bytes(type, width);
    int64_t most = SW_MAX((int64_t)(BATCH / SW_MAX(out_row, 1)), 1), n = 0;
    sw_tensor t = e->t;
    float *row = sw_malloc((size_t)width * sizeof *row);
    char *out = sw_malloc(out_row * (size_t)SW_MIN(most, SW_MAX(rows, 1)));
    void *whole = e->made ? sw_malloc(sw_tensor_bytes(&t)) : NULL;
    int rc = whole ? sw_entry_rows(e, 0, t.shape[0], whole) : 0;
    if (whole)
        t.data = whole;
    for (int64_t r = 0; r < rows && !rc; r++) {
        column(row, &t, r);
        rc = sw_quantise(out + out_row * (size_t)n++, type, row, width, NULL);
        if (!rc && (n == most || r + 1 == rows)) {
            rc = d->put(d, to + out_row * (size_t)(r + 1 - n), out, out_row * (size_t)n);
            n = 0;
        }
    }
    free(row);
    free(out);
    free(whole);
    return rc;
}

/* ---- 8-bit floats with scales */

/* Whether 8-bit floats that stand for e's values, or are them, become the parameter that is asked for. */
static bool stays_float8(const sw_builder *b, const sw_entry *e, unsigned flags, bool turned)
{
    return (e->coded || sw_is_float8(e->t.dtype)) && (flags & SW_ASK_ANY) && !(flags & SW_ASK_F32) && !turned && !b->o->dequantise;
}

/* The scales of p, used where they lie if that can be. On a GPU they lie as cuBLASLt asks: rows of whole 16 bytes. */
static int take_scales(const sw_builder *b, sw_param *p, const sw_coded *c)
{
    sw_device *d = b->m->device;
    bool there = d->host && c->scales->t.dtype == SW_F32 && (uintptr_t)c->scales->t.data % sizeof(float) == 0;
    int64_t own = sw_coded_line(c), line = d->host ? own : (own + 3) / 4 * 4;
    size_t n = (size_t)(c->matrices * sw_coded_lines(c) * line) * sizeof(float);
    float *f32 = sw_malloc(n);
    int rc = sw_coded_scales(c, f32, line);
    if (!rc && !there) {
        p->owned_scales = d->alloc(d, n);
        rc = p->owned_scales ? d->put(d, p->owned_scales, f32, n) : -1;
    }
    free(f32);
    sw_param_scale(p, (sw_scales){.at = there ? c->scales->t.data : p->owned_scales, .rows = c->rows, .width = c->width, .high = c->high,
                                  .wide = c->wide, .line = line});
    return rc;
}

static sw_param *float8_param(sw_builder *b, const char *path, const sw_entry *e)
{
    sw_model *m = b->m;
    sw_device *d = m->device;
    const sw_tensor *t = e->coded ? &e->coded->values->t : &e->t;
    sw_param *p = d->host ? sw_param_borrow(&m->params, path, *t) : sw_param_new(&m->params, d, path, t->dtype, t->ndim, t->shape);
    if (!p || (e->coded && take_scales(b, p, e->coded)) || (!d->host && d->put(d, p->v.t.data, t->data, sw_tensor_bytes(t))))
        return NULL;
    return p;
}

/* ---- finding */

/* The name in the file of what is called `ours`. */
static char *name_of(const sw_builder *b, const char *ours, char out[SW_NAME_MAX])
{
    return sw_file_name(&b->m->spec, b->layer, ours, out);
}

/* Finds a tensor of a shape; notes what is wrong with it. whole: of whole numbers */
static const sw_entry *seek(sw_builder *b, const char *name, int ndim, const int64_t *shape, bool optional, bool whole)
{
    char want[96], have[96];
    if (b->asked) {
        if (optional)
            return NULL;
        sw_entry asked = {.name = sw_arena_strndup(&b->m->arena, name, strlen(name)), .t = sw_tensor_of(NULL, whole ? SW_I32 : SW_F32, ndim, shape)};
        SW_PUSH(*b->asked, asked);
        return &b->asked->at[b->asked->n - 1];
    }
    const sw_entry *e = sw_file_find(b->m->checkpoint, name);
    if (!e) {
        if (!optional)
            sw_builder_problem(b, "%s %s is missing", name, shape_text(ndim, shape, want));
        return NULL;
    }
    sw_map_puts(&b->used, e->name, 1);
    if (e->t.ndim != ndim || memcmp(e->t.shape, shape, (size_t)ndim * sizeof *shape)) {
        sw_builder_problem(b, "%s is %s, the configuration asks for %s", e->name, shape_text(e->t.ndim, e->t.shape, have),
                           shape_text(ndim, shape, want));
        return NULL;
    }
    if (sw_is_integer(e->t.dtype) != whole) {
        sw_builder_problem(b, "%s is of type %s, %s", e->name, sw_dtypes[e->t.dtype].name,
                           whole ? "whole numbers are needed" : "weights are floats or quantised");
        return NULL;
    }
    return e;
}

static void remember(sw_builder *b, const sw_entry *e, sw_param *p, int64_t index, int64_t count, bool transposed)
{
    sw_stored s = {e->name, p, index, count, transposed};
    SW_PUSH(b->m->stored, s);
}

/* A parameter of a new head, which no file has. */
static sw_param *draw(sw_builder *b, const char *name, int ndim, const int64_t *shape)
{
    sw_model *m = b->m;
    sw_param *p = sw_param_new(&m->params, m->device, name, SW_F32, ndim, shape);
    int64_t n = p ? sw_numel(&p->v.t) : 0;
    float *values = sw_malloc((size_t)(n + 1) * sizeof *values);
    if (!p || sw_new_head_values(b->fresh, &m->spec, m->checkpoint->config, name, b->fresh_hidden, ndim, n, values) ||
        m->device->put(m->device, p->v.t.data, values, (size_t)n * sizeof *values))
        b->rc = -1;
    free(values);
    if (p)
        p->drawn = true;
    return b->rc ? NULL : p;
}

static sw_param *ask(sw_builder *b, const char *ours, int ndim, const int64_t *shape, unsigned flags, bool optional)
{
    sw_model *m = b->m;
    char path[SW_NAME_MAX], name[SW_NAME_MAX];
    bool turned = (flags & SW_ASK_TRANSPOSED) && ndim == 2;
    int problems = b->n_problems;
    const sw_entry *e = seek(b, name_of(b, ours, name), ndim, turned ? (int64_t[]){shape[1], shape[0]} : shape, optional || b->fresh,
                             false);
    if (!e)
        return b->fresh && b->n_problems == problems ? draw(b, name, ndim, shape) : NULL;
    if (b->look_only) {
        sw_param *found = sw_builder_alloc(b, sizeof *found);
        found->v.t = e->t;
        return found;
    }
    sw_file_name(&m->spec, b->layer, ours, path);
    sw_dtype to = wanted(b, e->t.dtype, flags);
    bool aligned = (uintptr_t)e->t.data % (size_t)SW_MIN(sw_dtypes[e->t.dtype].bytes, 4) == 0 || sw_is_quantised(e->t.dtype);
    sw_param *p;
    if (stays_float8(b, e, flags, turned)) {
        if (!(p = float8_param(b, path, e))) {
            b->rc = sw_fail_in("%s", e->name);
            return NULL;
        }
    } else if (to == e->t.dtype && !turned && !e->made && m->device->host && aligned) {
        p = sw_param_borrow(&m->params, path, e->t);
    } else {
        p = sw_is_quantised(e->t.dtype) && turned ? sw_fail_null("a quantised tensor cannot be turned")
                                                  : sw_param_new(&m->params, m->device, path, to, ndim, shape);
        if (!p || (turned ? fill_turned(b, p->v.t.data, to, e, shape[0], shape[1]) : fill_rows(b, p->v.t.data, to, e))) {
            b->rc = -1;
            sw_fail_in("%s", e->name);
            return NULL;
        }
    }
    p->transposed = turned;
    p->fixed = flags & SW_ASK_FIXED;
    remember(b, e, p, 0, 1, turned);
    return p;
}

sw_param *sw_ask(sw_builder *b, const char *name, int ndim, const int64_t *shape, unsigned flags)
{
    return ask(b, name, ndim, shape, flags, false);
}

sw_param *sw_ask_optional(sw_builder *b, const char *name, int ndim, const int64_t *shape, unsigned flags)
{
    return ask(b, name, ndim, shape, flags, true);
}

sw_param *sw_ask_stack(sw_builder *b, const char *ours, int64_t count, int ndim, const int64_t *shape, unsigned flags)
{
    sw_model *m = b->m;
    char path[SW_NAME_MAX], name[SW_NAME_MAX], each[SW_NAME_MAX];
    int64_t whole[SW_MAX_DIMS] = {count}, values = 1;
    assert(ndim < SW_MAX_DIMS);
    memcpy(whole + 1, shape, (size_t)ndim * sizeof *shape);
    for (int i = 0; i < ndim; i++)
        values *= shape[i];
    sw_param *p = NULL;
    for (int64_t i = 0; i < count; i++) { /* rows of equal size, one after the other */
        snprintf(each, sizeof each, ours, (int)i);
        const sw_entry *e = seek(b, name_of(b, each, name), ndim, shape, false, false);
        if (!e)
            return NULL;
        if (b->look_only)
            continue;
        sw_dtype to = p ? p->v.t.dtype : wanted(b, e->t.dtype, flags);
        if (!p && !(p = sw_param_new(&m->params, m->device, sw_file_name(&m->spec, b->layer, each, path), to, ndim + 1, whole))) {
            b->rc = -1;
            return NULL;
        }
        if (fill_rows(b, (char *)p->v.t.data + sw_dtype_bytes(to, values) * (size_t)i, to, e)) {
            b->rc = sw_fail_in("%s", e->name);
            return NULL;
        }
        remember(b, e, p, i, count, false);
    }
    return p;
}

const int32_t *sw_ask_integers(sw_builder *b, const char *ours, int ndim, const int64_t *shape, int64_t below)
{
    char name[SW_NAME_MAX];
    const sw_entry *e = seek(b, name_of(b, ours, name), ndim, shape, false, true);
    if (!e || b->look_only)
        return NULL;
    int64_t n = sw_numel(&e->t);
    int32_t *to = sw_builder_alloc(b, (size_t)n * sizeof *to);
    for (int64_t i = 0; i < n; i++) {
        double v = sw_scalar_get(e->t.data, e->t.dtype, i);
        if (!(v >= 0 && v < (double)below)) {
            sw_builder_problem(b, "%s: value %lld is %g, which is not between 0 and %lld", e->name, (long long)i, v, (long long)below - 1);
            return NULL;
        }
        to[i] = (int32_t)v;
    }
    return to;
}

/* ---- modules */

static const char *keep_name(sw_builder *b, const char *ours)
{
    char path[SW_NAME_MAX];
    sw_file_name(&b->m->spec, b->layer, ours, path);
    return sw_arena_strndup(&b->m->arena, path, strlen(path));
}

void sw_ask_linear(sw_builder *b, sw_linear *l, const char *module, int64_t out, int64_t in, unsigned flags)
{
    char name[SW_NAME_MAX];
    *l = (sw_linear){.name = keep_name(b, module), .in = in, .out = out};
    if (b->layer >= 0 && b->m->spec.conv1d)
        flags |= SW_ASK_TRANSPOSED;
    snprintf(name, sizeof name, "%s.weight", module);
    l->w = sw_ask(b, name, 2, (int64_t[]){out, in}, flags | SW_ASK_ANY);
    snprintf(name, sizeof name, "%s.bias", module);
    if (flags & SW_ASK_BIAS)
        l->bias = sw_ask(b, name, 1, &out, flags);
    bool embedding = flags & SW_ASK_EMBEDDING, head = l == &b->m->head;
    sw_module m = {.kind = embedding ? SW_MODULE_EMBEDDING : head ? SW_MODULE_HEAD : SW_MODULE_LINEAR,
                   .path = l->name, .linear = l, .w = &l->w, .bias = &l->bias};
    SW_PUSH(b->m->modules, m);
}

void sw_ask_norm(sw_builder *b, sw_norm *n, const char *module, int64_t width, const sw_norm_spec *spec)
{
    char name[SW_NAME_MAX];
    *n = (sw_norm){.spec = spec};
    if (spec->plain)
        return;
    snprintf(name, sizeof name, "%s.weight", module);
    n->w = sw_ask(b, name, 1, &width, 0);
    snprintf(name, sizeof name, "%s.bias", module);
    if (spec->bias)
        n->b = sw_ask(b, name, 1, &width, 0);
    sw_module m = {.kind = SW_MODULE_NORM, .path = keep_name(b, module), .w = &n->w, .bias = &n->b};
    SW_PUSH(b->m->modules, m);
}

void sw_declare_parts(sw_builder *b)
{
    sw_block *block = &b->m->blocks[b->layer];
    if (block->spec->mixer) {
        block->mixer = sw_builder_alloc(b, block->spec->mixer->size);
        block->spec->mixer->declare(b, block->mixer);
    }
    if (block->spec->cross) {
        block->cross = sw_builder_alloc(b, block->spec->cross->size);
        block->spec->cross->declare(b, block->cross);
    }
    if (block->spec->ffn) {
        block->ffn = sw_builder_alloc(b, block->spec->ffn->size);
        block->spec->ffn->declare(b, block->ffn);
    }
}

/* ---- the whole */

/* The layers of a head before its last. */
static void declare_hidden(sw_builder *b, const char *hidden, const char *norm)
{
    sw_model *m = b->m;
    const sw_spec *s = &m->spec;
    int64_t wide = sw_task_has_words(s->task) && s->embed_whole && s->embed_dim ? s->embed_dim : s->hidden;
    if (!s->head_hidden)
        return;
    sw_ask_linear(b, &m->head_hidden, hidden, wide, s->hidden, s->head_hidden_bias ? SW_ASK_BIAS : 0);
    if (s->head_norm)
        sw_ask_norm(b, &m->head_norm, norm, wide, &s->norm);
}

static void declare_ends(sw_builder *b)
{
    sw_model *m = b->m;
    const sw_spec *s = &m->spec;
    int64_t inner = s->embed_dim ? s->embed_dim : s->hidden;
    if (s->task == SW_TASK_EMBED) {
        m->head = (sw_linear){.name = keep_name(b, "lm_head")};
        return;
    }
    if (!sw_task_has_words(s->task)) {
        b->fresh = b->o->head;
        b->fresh_hidden = true;
        declare_hidden(b, "score.hidden", "score.norm");
        b->fresh_hidden = false;
        sw_ask_linear(b, &m->head, "score", s->labels, inner, s->head_bias ? SW_ASK_BIAS : 0);
        b->fresh = NULL;
        return;
    }
    declare_hidden(b, "lm_head.hidden", "lm_head.norm");
    if (s->tied) {
        m->head = (sw_linear){.name = keep_name(b, "lm_head"), .in = inner, .out = s->vocab, .w = m->embed.w};
        if (s->head_bias)
            m->head.bias = sw_ask(b, "lm_head.bias", 1, &s->vocab, 0);
        if (s->head_row_bias && (m->head.bias = sw_ask_optional(b, "lm_head.bias", 2, (int64_t[]){1, s->vocab}, SW_ASK_FIXED)))
            m->head.bias->v.t = sw_reshaped(&m->head.bias->v.t, 1, &s->vocab);
        sw_module module = {.kind = SW_MODULE_HEAD, .path = m->head.name, .linear = &m->head, .w = &m->head.w, .bias = &m->head.bias};
        SW_PUSH(m->modules, module);
    } else {
        sw_ask_linear(b, &m->head, "lm_head", s->vocab, inner, s->head_bias ? SW_ASK_BIAS : 0);
    }
}

/* A tensor that says again what another one says, and is written with its values. */
static void take_copy(sw_builder *b, const sw_entry *e, sw_param *p)
{
    sw_map_puts(&b->used, e->name, 1);
    remember(b, e, p, 0, 1, false);
}

static bool same_values(const sw_entry *a, const sw_entry *b)
{
    if (a->coded || b->coded)
        return a->coded && b->coded && same_values(a->coded->values, b->coded->values) && same_values(a->coded->scales, b->coded->scales);
    return a->t.dtype == b->t.dtype && a->t.ndim == b->t.ndim && !memcmp(a->t.shape, b->t.shape, (size_t)a->t.ndim * sizeof *a->t.shape) &&
           (a->t.data == b->t.data || !memcmp(a->t.data, b->t.data, sw_tensor_bytes(&a->t)));
}

bool sw_model_ties(const sw_checkpoint *c, const sw_spec *s)
{
    char name[SW_NAME_MAX];
    const char *const *other = s->family->same_embedding;
    const sw_entry *embed = sw_file_find(c, sw_file_name(s, -1, "model.embed_tokens.weight", name)),
                   *head = sw_file_find(c, sw_file_name(s, -1, "lm_head.weight", name));
    for (; !embed && other && *other; other++)
        embed = sw_checkpoint_find(c, *other);
    return s->file_ties && embed ? !head || head == embed || same_values(head, embed) : s->tied;
}

/* Where files hold the embedding more than once: the other names, which must say the same; and whether there is a head of
 * other values beside it. */
static void find_copies(sw_builder *b)
{
    sw_model *m = b->m;
    const sw_entry *embed = m->embed.w && m->stored.n ? sw_checkpoint_find(m->checkpoint, m->stored.at[0].name) : NULL;
    char name[SW_NAME_MAX];
    for (const char *const *n = m->spec.family->same_embedding; embed && n && *n; n++) {
        const sw_entry *e = sw_checkpoint_find(m->checkpoint, *n);
        if (e && e != embed && !same_values(e, embed))
            sw_builder_problem(b, "%s has other values than %s, which it must repeat", e->name, embed->name);
        else if (e && e != embed)
            take_copy(b, e, m->embed.w);
    }
    if (!embed || !m->spec.file_ties || !sw_task_has_words(m->spec.task))
        return;
    m->spec.tied = sw_model_ties(m->checkpoint, &m->spec);
    const sw_entry *head = m->spec.tied ? sw_file_find(m->checkpoint, name_of(b, "lm_head.weight", name)) : NULL;
    if (head && head != embed)
        take_copy(b, head, m->embed.w);
}

/* The name of the embedding: ours, unless the file has it under another only. */
static const char *embedding_name(const sw_builder *b)
{
    char name[SW_NAME_MAX];
    if (!b->m->checkpoint || sw_file_find(b->m->checkpoint, name_of(b, "model.embed_tokens.weight", name)))
        return "model.embed_tokens";
    for (const char *const *n = b->m->spec.family->same_embedding; n && *n; n++)
        if (sw_checkpoint_find(b->m->checkpoint, *n))
            return sw_arena_strndup(&b->m->arena, *n, strlen(*n) - strlen(".weight"));
    return "model.embed_tokens";
}

static void declare_start(sw_builder *b)
{
    sw_model *m = b->m;
    const sw_spec *s = &m->spec;
    int64_t inner = s->embed_dim ? s->embed_dim : s->hidden, wide = s->embed_whole ? inner : s->hidden;
    sw_ask_linear(b, &m->embed, embedding_name(b), s->vocab, inner, SW_ASK_EMBEDDING);
    find_copies(b);
    if (s->embed_dim)
        sw_ask_linear(b, &m->project_in, "model.project_in", s->hidden, inner, s->embed_whole ? SW_ASK_BIAS : 0);
    if (s->embed_dim && !s->embed_whole)
        sw_ask_linear(b, &m->project_out, "model.project_out", inner, s->hidden, 0);
    if (s->positions == SW_POSITIONS_LEARNED)
        sw_ask_linear(b, &m->positions, "model.embed_positions", s->max_position + s->position_offset, wide, SW_ASK_EMBEDDING);
    if (s->positions == SW_POSITIONS_LEARNED && s->encoder_layers)
        sw_ask_linear(b, &m->encoder_positions, "model.encoder_positions", s->max_position + s->position_offset, wide, SW_ASK_EMBEDDING);
    if (s->token_types)
        sw_ask_linear(b, &m->types, "model.embed_types", s->token_types, wide, SW_ASK_EMBEDDING);
    if (s->embed_norm)
        sw_ask_norm(b, &m->embed_norm, "model.embed_norm", wide, &s->embedding);
    if (s->embed_norm && s->encoder_layers)
        sw_ask_norm(b, &m->encoder_embed_norm, "model.encoder_embed_norm", wide, &s->embedding);
}

static void declare_block(sw_builder *b, int64_t i)
{
    sw_model *m = b->m;
    sw_block *block = &m->blocks[i];
    char path[SW_NAME_MAX];
    b->layer = i;
    sw_file_name(&m->spec, i, "", path);
    *block = (sw_block){.spec = &m->spec.layer[i], .index = i, .name = sw_arena_strndup(&m->arena, path, strlen(path) - 1)};
    block->site = sw_rng_site(block->name);
    block->self = sw_builder_alloc(b, block->spec->block->size);
    block->spec->block->declare(b, block->self);
    b->layer = -1;
}

int sw_builder_run(sw_builder *b)
{
    sw_model *m = b->m;
    const sw_spec *s = &m->spec;
    const sw_body_ops *body = s->family->body;
    b->layer = -1;
    declare_start(b);
    if (body) {
        m->body = sw_builder_alloc(b, body->size);
        body->declare(b, m->body);
    }
    m->blocks = sw_builder_alloc(b, (size_t)s->layers * sizeof *m->blocks);
    for (int64_t i = 0; i < s->layers && !b->rc && b->n_problems < 100; i++)
        declare_block(b, i);
    if (!s->no_final_norm) {
        sw_norm_spec *last = sw_builder_alloc(b, sizeof *last);
        *last = s->norm;
        if (s->final_norm_eps > 0)
            last->eps = s->final_norm_eps;
        sw_ask_norm(b, &m->norm, "model.norm", s->hidden, last);
        if (s->encoder_layers)
            sw_ask_norm(b, &m->encoder_norm, "model.encoder_norm", s->hidden, last);
    }
    declare_ends(b);
    return b->rc;
}
