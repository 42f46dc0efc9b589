#include "model/model.h"

#include "base/json.h"
#include "base/map.h"
#include "base/strbuf.h"
#include "store/checkpoint.h"
#include "store/quant.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PROBLEMS = 12 };

typedef struct loader {
    sw_model *m;
    const sw_load_options *o;
    const sw_family *family;
    sw_buf problems;
    int n_problems;
    sw_map used; /* names of tensors taken */
    int rc;
} loader;

static void problem(loader *l, const char *fmt, ...) SW_PRINTF(2, 3);
static void problem(loader *l, const char *fmt, ...)
{
    va_list ap;
    char text[512];
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (l->n_problems++ < MOST_PROBLEMS)
        sw_buf_printf(&l->problems, "%s%s", l->problems.n ? "; " : "", text);
}

static char *shape_text(int ndim, const int64_t *shape, char out[96])
{
    int n = snprintf(out, 96, "[");
    for (int i = 0; i < ndim && n < 80; i++)
        n += snprintf(out + n, 96 - (size_t)n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    snprintf(out + n, 96 - (size_t)n, "]");
    return out;
}

/* GGUF files of Llama hold the rows of q and k so that a rotary pair is two neighbours; here, as on the hub, a pair is
 * half a head apart. Row 2i + j of a head there is row j * half + i here. */
static void unpermute(void *to, const void *from, size_t row_bytes, int64_t heads, int64_t head_dim)
{
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < head_dim / 2; i++)
            for (int64_t j = 0; j < 2; j++)
                memcpy((char *)to + (size_t)(h * head_dim + j * (head_dim / 2) + i) * row_bytes,
                       (const char *)from + (size_t)(h * head_dim + 2 * i + j) * row_bytes, row_bytes);
}

static sw_dtype wanted(const loader *l, sw_dtype have)
{
    if (sw_is_quantised(have) && !l->o->dequantise)
        return have;
    if (l->o->dtype != SW_DTYPE_COUNT)
        return l->o->dtype;
    return sw_is_float(have) ? have : SW_F32;
}

/* A parameter from a tensor in the file: borrowed where it can stay, else converted or copied. heads > 0: rows come in
 * GGUF's order. */
static sw_param *place(loader *l, const char *name, const sw_entry *e, int64_t heads)
{
    sw_model *m = l->m;
    sw_dtype to = wanted(l, e->t.dtype);
    bool aligned = (uintptr_t)e->t.data % (size_t)SW_MIN(sw_dtypes[e->t.dtype].bytes, 4) == 0 || sw_is_quantised(e->t.dtype);
    if (to == e->t.dtype && !heads && m->device->host && aligned)
        return sw_param_borrow(&m->params, name, e->t);
    sw_param *p = sw_param_new(&m->params, m->device, name, to, e->t.ndim, e->t.shape);
    if (!p)
        return NULL;
    int64_t rows = e->t.shape[0], width = sw_numel(&e->t) / SW_MAX(rows, 1);
    size_t in_row = sw_dtype_bytes(e->t.dtype, width), out_row = sw_dtype_bytes(to, width);
    void *ordered = heads ? sw_malloc(in_row * (size_t)rows) : NULL;
    const char *from = heads ? ordered : e->t.data;
    if (heads)
        unpermute(ordered, e->t.data, in_row, heads, rows / heads);
    int rc = 0;
    if (to == e->t.dtype) {
        rc = m->device->put(m->device, p->v.t.data, from, in_row * (size_t)rows);
    } else {
        float *row = sw_malloc((size_t)width * sizeof *row);
        void *converted = sw_malloc(out_row);
        for (int64_t r = 0; r < rows && !rc; r++)
            rc = sw_dequantise(row, from + in_row * (size_t)r, e->t.dtype, width) || sw_quantise(converted, to, row, width, NULL) ||
                 m->device->put(m->device, (char *)p->v.t.data + out_row * (size_t)r, converted, out_row);
        free(row);
        free(converted);
    }
    free(ordered);
    if (rc) {
        sw_fail_in("%s", name);
        return NULL;
    }
    return p;
}

/* The tensor of a role with a suffix (".weight", ".bias"), of the shape that the spec asks for. */
static sw_param *take(loader *l, sw_role role, int64_t layer, const char *suffix, int ndim, int64_t a, int64_t b)
{
    const sw_checkpoint *ck = l->m->checkpoint;
    char path[128], name[160], file_name[160], want[96], have[96];
    int64_t shape[2] = {a, b};
    snprintf(name, sizeof name, "%s%s", sw_role_name(&l->m->spec, role, layer, path), suffix);
    snprintf(file_name, sizeof file_name, "%s%s", ck->gguf ? sw_role_gguf(role, layer, path) : sw_role_name(&l->m->spec, role, layer, path), suffix);
    const sw_entry *e = sw_checkpoint_find(ck, file_name);
    if (!e) {
        problem(l, "%s %s is missing", file_name, shape_text(ndim, shape, want));
        return NULL;
    }
    sw_map_puts(&l->used, file_name, 1);
    if (e->t.ndim != ndim || memcmp(e->t.shape, shape, (size_t)ndim * sizeof *shape)) {
        problem(l, "%s is %s, the configuration asks for %s", file_name, shape_text(e->t.ndim, e->t.shape, have), shape_text(ndim, shape, want));
        return NULL;
    }
    bool permuted = ck->gguf && l->family->gguf_permuted && (role == SW_T_Q || role == SW_T_K);
    sw_param *p = place(l, name, e, permuted ? (role == SW_T_Q ? l->m->spec.heads : l->m->spec.kv_heads) : 0);
    if (!p)
        l->rc = -1;
    return p;
}

static void linear(loader *l, sw_linear *out, sw_role role, int64_t layer, int64_t o, int64_t i, bool bias)
{
    char path[128];
    sw_role_name(&l->m->spec, role, layer, path);
    *out = (sw_linear){.name = sw_arena_strndup(&l->m->arena, path, strlen(path)), .in = i, .out = o};
    out->w = take(l, role, layer, ".weight", 2, o, i);
    if (bias)
        out->bias = take(l, role, layer, ".bias", 1, o, 0);
}

static void load_block(loader *l, int64_t i)
{
    sw_model *m = l->m;
    const sw_spec *s = &m->spec;
    sw_block *b = &m->blocks[i];
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    char name[64];
    snprintf(name, sizeof name, "model.layers.%lld", (long long)i);
    b->name = sw_arena_strndup(&m->arena, name, strlen(name));
    b->index = i;
    b->window = s->sliding ? (s->sliding[i] ? s->window : 0) : i >= s->window_from ? s->window : 0;
    b->attn_norm = take(l, SW_T_ATTN_NORM, i, ".weight", 1, s->hidden, 0);
    linear(l, &b->q, SW_T_Q, i, q, s->hidden, s->q_bias);
    linear(l, &b->k, SW_T_K, i, kv, s->hidden, s->k_bias);
    linear(l, &b->v, SW_T_V, i, kv, s->hidden, s->v_bias);
    linear(l, &b->o, SW_T_O, i, s->hidden, q, s->o_bias);
    if (s->qk_norm) {
        b->q_norm = take(l, SW_T_Q_NORM, i, ".weight", 1, s->head_dim, 0);
        b->k_norm = take(l, SW_T_K_NORM, i, ".weight", 1, s->head_dim, 0);
    }
    b->mlp_norm = take(l, SW_T_MLP_NORM, i, ".weight", 1, s->hidden, 0);
    linear(l, &b->gate, SW_T_GATE, i, s->mlp, s->hidden, s->mlp_bias);
    linear(l, &b->up, SW_T_UP, i, s->mlp, s->hidden, s->mlp_bias);
    linear(l, &b->down, SW_T_DOWN, i, s->hidden, s->mlp, s->mlp_bias);
}

/* Frequencies of Llama 3 files: GGUF stores the divisors instead of the rule. */
static int read_rope_freqs(loader *l)
{
    sw_spec *s = &l->m->spec;
    const sw_entry *e = l->m->checkpoint->gguf ? sw_checkpoint_find(l->m->checkpoint, "rope_freqs.weight") : NULL;
    if (!e)
        return 0;
    int64_t n = sw_rope_pairs(s);
    if (e->t.dtype != SW_F32 || sw_numel(&e->t) != n)
        return sw_fail("rope_freqs.weight: %lld numbers of type f32 are needed", (long long)n);
    s->rope.divisors = sw_arena_zalloc(&s->arena, (size_t)n * sizeof(double));
    for (int64_t i = 0; i < n; i++) {
        s->rope.divisors[i] = sw_scalar_get(e->t.data, SW_F32, i);
        if (!(s->rope.divisors[i] > 0))
            return sw_fail("rope_freqs.weight: number %lld is not positive", (long long)i);
    }
    return 0;
}

/* Buffers that old files carry and nobody reads; a head beside a tied embedding. */
static bool ignorable(const sw_spec *s, const char *name)
{
    return sw_ends_with(name, "rotary_emb.inv_freq") || !strcmp(name, "rope_freqs.weight") ||
           (s->tied && (!strcmp(name, "lm_head.weight") || !strcmp(name, "output.weight")));
}

static int load(loader *l)
{
    sw_model *m = l->m;
    const sw_spec *s = &m->spec;
    if (read_rope_freqs(l))
        return -1;
    linear(l, &m->embed, SW_T_EMBED, 0, s->vocab, s->hidden, false);
    m->blocks = SW_NEW_ARRAY(sw_block, (size_t)s->layers);
    for (int64_t i = 0; i < s->layers && !l->rc && l->n_problems < 100; i++)
        load_block(l, i);
    m->norm = take(l, SW_T_NORM, 0, ".weight", 1, s->hidden, 0);
    if (s->task == SW_TASK_CLASSIFY)
        linear(l, &m->head, SW_T_SCORE, 0, s->labels, s->hidden, false);
    else if (s->tied)
        m->head = (sw_linear){.name = "lm_head", .in = s->hidden, .out = s->vocab, .w = m->embed.w};
    else
        linear(l, &m->head, SW_T_HEAD, 0, s->vocab, s->hidden, false);
    if (l->rc)
        return -1;
    for (size_t i = 0; i < sw_checkpoint_count(m->checkpoint); i++) {
        const char *name = sw_checkpoint_at(m->checkpoint, i)->name;
        if (sw_map_gets(&l->used, name, 0) == 0 && !ignorable(s, name))
            problem(l, "%s is unexpected", name);
    }
    if (l->n_problems)
        return sw_fail("%s: the tensors do not fit the configuration: %s%s", m->checkpoint->path, l->problems.at,
                       l->n_problems > MOST_PROBLEMS ? "; and more" : "");
    return 0;
}

sw_model *sw_model_load(const char *path, sw_device *d, const sw_load_options *o)
{
    return sw_model_load_config(path, NULL, d, o);
}

sw_model *sw_model_load_config(const char *path, const char *config, sw_device *d, const sw_load_options *o)
{
    sw_model *m = SW_NEW(sw_model);
    loader l = {.m = m, .o = o};
    m->device = d;
    m->checkpoint = sw_checkpoint_open(path);
    int rc = m->checkpoint ? 0 : -1;
    if (!rc && config) {
        cJSON_Delete(m->checkpoint->config);
        m->checkpoint->config = sw_json_load(config);
        rc = m->checkpoint->config ? 0 : -1;
    }
    if (!rc && m->checkpoint->gguf) {
        rc = sw_spec_from_gguf(&m->spec, m->checkpoint->gguf);
    } else if (!rc) {
        char *where = sw_path_join(m->checkpoint->path, "config.json");
        rc = m->checkpoint->config ? sw_spec_from_config(&m->spec, m->checkpoint->config, where) : sw_fail("%s: is missing", where);
        free(where);
    }
    if (!rc) {
        l.family = sw_family_of(&m->spec);
        rc = load(&l);
    }
    sw_map_free(&l.used);
    sw_buf_free(&l.problems);
    if (rc) {
        sw_model_free(m);
        return NULL;
    }
    return m;
}

/* The module path is the parameter's name without ".weight". */
static void add_norm(sw_model *m, sw_modules *out, sw_param **w)
{
    if (!*w)
        return;
    const char *path = sw_arena_strndup(&m->arena, (*w)->name, strlen((*w)->name) - strlen(".weight"));
    sw_module module = {.kind = SW_MODULE_NORM, .path = path, .w = w};
    SW_PUSH(*out, module);
}

static void add_linear(sw_modules *out, sw_module_kind kind, sw_linear *l)
{
    sw_module module = {.kind = kind, .path = l->name, .linear = l, .w = &l->w, .bias = &l->bias};
    SW_PUSH(*out, module);
}

sw_modules sw_model_modules(sw_model *m)
{
    sw_modules out = {.params = &m->params, .device = m->device};
    add_linear(&out, SW_MODULE_EMBEDDING, &m->embed);
    for (int64_t i = 0; m->blocks && i < m->spec.layers; i++) {
        sw_block *b = &m->blocks[i];
        sw_linear *all[] = {&b->q, &b->k, &b->v, &b->o, &b->gate, &b->up, &b->down};
        for (size_t k = 0; k < SW_COUNT(all); k++)
            add_linear(&out, SW_MODULE_LINEAR, all[k]);
        add_norm(m, &out, &b->attn_norm);
        add_norm(m, &out, &b->q_norm);
        add_norm(m, &out, &b->k_norm);
        add_norm(m, &out, &b->mlp_norm);
    }
    add_norm(m, &out, &m->norm);
    add_linear(&out, SW_MODULE_HEAD, &m->head);
    return out;
}

int64_t sw_model_parameter_count(const sw_model *m, bool trainable_only)
{
    int64_t n = 0;
    for (size_t i = 0; i < m->params.n; i++)
        if (!trainable_only || m->params.at[i]->trainable)
            n += sw_numel(&m->params.at[i]->v.t);
    return n;
}

void sw_model_free(sw_model *m)
{
    if (!m)
        return;
    sw_modules modules = sw_model_modules(m);
    for (size_t i = 0; i < modules.n; i++)
        if (modules.at[i].linear)
            sw_linear_detach_all(modules.at[i].linear);
    free(modules.at);
    sw_params_free(&m->params, m->device);
    free(m->blocks);
    sw_checkpoint_close(m->checkpoint);
    sw_spec_free(&m->spec);
    sw_arena_free(&m->arena);
    free(m);
}
