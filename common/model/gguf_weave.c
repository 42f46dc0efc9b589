/* Which rows of GGUF's tensors are which rows of the hub's. */
#include "model/ffn_moe.h"
#include "model/gguf_map.h"
#include "model/head.h"
#include "model/mixer_mamba.h"
#include "model/mixer_mla.h"

#include <stdio.h>
#include <string.h>

typedef struct sw_gguf_weaver {
    const sw_spec *s;
    const sw_gguf_kind *kind;
    const sw_checkpoint *c;
    bool from_file;
    int64_t layer;
    sw_gguf_links *out;
    sw_arena *arena;
    int rc;
} weaver;

/* How two tensors hang together. Zero: they are one. */
typedef struct bond {
    sw_slice in_gguf, in_file;     /* count 0: all */
    int64_t n;                     /* rows; 0: all */
    int64_t gguf_rows[2], file_rows[2]; /* sizes before the last; 0: as the other side, or none */
    int64_t heads, width;          /* width 0: the last dimension's */
    sw_gguf_fn fn;
    double scale;
    sw_gguf_columns columns;
    sw_gguf_shape shape;
    bool gguf_turned, file_turned;
    int64_t groups;                /* COLUMN's, where it is rows of groups */
    bool gguf_bare, file_bare;     /* the sizes given are all there are */
} bond;

/* ---- names */

static const char *keep(weaver *w, const char *text) { return sw_arena_strndup(w->arena, text, strlen(text)); }

/* ---- shapes */

static int shape_of(int64_t shape[SW_MAX_DIMS], const int64_t rows[2], int64_t width, bool vector, bool turned)
{
    int n = 0;
    for (int i = 0; i < 2 && rows[i]; i++)
        shape[n++] = rows[i];
    if (turned) { /* rows are [parts,] rows of a part: what is stored is [parts,] width, rows of a part */
        shape[n] = shape[n - 1];
        shape[n - 1] = width;
        return n + 1;
    }
    if (!vector)
        shape[n++] = width;
    return n;
}

static int reshape(const bond *b, bool to_gguf, const sw_tensor *t, int64_t shape[SW_MAX_DIMS])
{
    int n = t->ndim;
    memcpy(shape, t->shape, sizeof t->shape);
    switch (b->shape) {
    case SW_GGUF_COLUMN:
        if (b->groups && sw_numel(t) % b->groups)
            return -1;
        n = to_gguf ? 2 : 1;
        shape[0] = to_gguf && b->groups ? b->groups : sw_numel(t);
        shape[1] = to_gguf && b->groups ? sw_numel(t) / b->groups : 1;
        return n;
    case SW_GGUF_VECTOR:
        n = to_gguf ? 1 : 2;
        shape[0] = to_gguf ? sw_numel(t) : 1;
        shape[1] = sw_numel(t);
        return n;
    case SW_GGUF_TAPS:
        if (n != (to_gguf ? 3 : 2))
            return -1;
        shape[1] = to_gguf ? t->shape[2] : 1;
        shape[2] = t->shape[n - 1];
        return to_gguf ? 2 : 3;
    case SW_GGUF_MIDDLE:
        n = to_gguf ? 2 : 4;
        shape[0] = shape[1] = shape[3] = 1;
        shape[to_gguf ? 0 : 2] = sw_numel(t);
        return n;
    case SW_GGUF_SCALAR:
        shape[0] = 1;
        return to_gguf ? 1 : 0;
    default: return n;
    }
}

/* Notes that two tensors hang together, if the one on our side is there. */
static bool tie(weaver *w, const char *gguf, const char *file, const bond *b)
{
    const sw_entry *e = w->from_file ? sw_file_find(w->c, file) : sw_checkpoint_find(w->c, gguf);
    if (!e || w->rc)
        return e;
    bool to_gguf = w->from_file, turned_here = to_gguf ? b->file_turned : b->gguf_turned, vector = e->t.ndim < 2;
    int64_t values = sw_numel(&e->t);
    sw_gguf_link l = {.gguf = keep(w, gguf), .file = keep(w, e->name), .in_gguf = b->in_gguf, .in_file = b->in_file, .n = b->n,
                      .heads = b->heads, .fn = b->fn, .scale = b->scale, .columns = b->columns, .gguf_turned = b->gguf_turned, .file_turned = b->file_turned};
    if (!to_gguf)
        l.file = keep(w, file);
    else
        l.gguf = keep(w, gguf);
    if (vector)
        turned_here = l.gguf_turned = l.file_turned = false;
    l.width = b->width ? b->width : vector ? 1 : turned_here ? e->t.shape[e->t.ndim - 2] : e->t.shape[e->t.ndim - 1];
    if (l.width < 1 || values % l.width) {
        w->rc = sw_fail("%s: its size does not fit the configuration", e->name);
        return true;
    }
    int64_t rows = values / l.width;
    if (!l.n)
        l.n = rows;
    int *ndim = to_gguf ? &l.gguf_ndim : &l.file_ndim, *own = to_gguf ? &l.file_ndim : &l.gguf_ndim;
    int64_t *shape = to_gguf ? l.gguf_shape : l.file_shape, *own_shape = to_gguf ? l.file_shape : l.gguf_shape;
    const int64_t *other_rows = to_gguf ? b->gguf_rows : b->file_rows;
    *own = e->t.ndim;
    memcpy(own_shape, e->t.shape, sizeof e->t.shape);
    bool turns = to_gguf ? l.gguf_turned : l.file_turned;
    bool bare = to_gguf ? b->gguf_bare : b->file_bare;
    if (other_rows[0])
        *ndim = shape_of(shape, other_rows, l.width, bare || (vector && !b->width), turns && !bare);
    else if (turns || turned_here)
        *ndim = shape_of(shape, (int64_t[2]){rows, 0}, l.width, false, turns);
    else
        *ndim = reshape(b, to_gguf, &e->t, shape);
    sw_slice whole = {0, rows, 0, rows};
    if (!l.in_gguf.count)
        l.in_gguf = whole;
    if (!l.in_file.count)
        l.in_file = whole;
    /* what the configuration says of our side must lie within it */
    const sw_slice *in = to_gguf ? &l.in_file : &l.in_gguf;
    int64_t last = l.n - 1;
    if (*ndim < 0 || in->count < 1 || in->group < in->begin + in->count || in->first + last / in->count * in->group + in->begin + last % in->count >= rows) {
        w->rc = sw_fail("%s: its size does not fit the configuration", e->name);
        return true;
    }
    if (l.columns.heads && (l.columns.groups < 1 || l.columns.heads % l.columns.groups || l.width % l.columns.heads)) {
        w->rc = sw_fail("%s: rows of %lld values are no %lld heads in %lld groups", e->name, (long long)l.width, (long long)l.columns.heads,
                        (long long)l.columns.groups);
        return true;
    }
    if (l.heads && l.n % (2 * l.heads)) {
        w->rc = sw_fail("%s: %lld rows are no pairs in %lld heads", e->name, (long long)l.n, (long long)l.heads);
        return true;
    }
    SW_PUSH(*w->out, l);
    return true;
}

static void gguf_name(const weaver *w, const char *name, const char *suffix, char out[SW_NAME_MAX])
{
    int64_t encoder = w->s->encoder_layers;
    if (w->layer >= 0)
        snprintf(out, SW_NAME_MAX, "%sblk.%lld.%s%s", w->layer < encoder || (w->kind->flags & SW_GGUF_ENCODER_ALONE) ? "enc." : encoder ? "dec." : "",
                 (long long)(w->layer < encoder ? w->layer : w->layer - encoder), name, suffix);
    else
        snprintf(out, SW_NAME_MAX, "%s%s", name, suffix);
}

/* By GGUF's name and ours, in full. */
static bool tie_named(weaver *w, const char *gguf, const char *ours, const char *suffix, const bond *b)
{
    char theirs[SW_NAME_MAX], mine[SW_NAME_MAX], file[SW_NAME_MAX];
    gguf_name(w, gguf, suffix, theirs);
    snprintf(mine, sizeof mine, "%.*s%s", SW_NAME_MAX - 16, ours, suffix);
    sw_file_name(w->s, w->layer, mine, file);
    return tie(w, theirs, file, b);
}

void sw_gguf_tie(sw_gguf_weaver *w, const char *gguf, const char *ours, const sw_gguf_part *p)
{
    (void)tie_named(w, gguf, ours, "", &(bond){.in_gguf = p->in_gguf, .in_file = p->in_file, .n = p->n,
                                                .gguf_rows = {p->gguf_stack ? p->gguf_stack : p->gguf_rows, p->gguf_stack ? p->gguf_rows : p->gguf_taps},
                                                .file_rows = {p->file_rows, p->taps}, .fn = p->fn, .columns = p->columns,
                                                .scale = p->scale, .shape = p->groups ? SW_GGUF_COLUMN : SW_GGUF_AS_IS, .groups = p->groups});
}

void sw_gguf_tie_table(sw_gguf_weaver *w, const char *gguf, const char *ours, int64_t rows)
{
    char name[SW_NAME_MAX];
    const sw_entry *e = w->from_file ? sw_file_find(w->c, sw_file_name(w->s, w->layer, ours, name)) : NULL;
    int64_t have = e && e->t.ndim == 2 ? e->t.shape[0] : rows;
    if (have > rows) {
        w->rc = sw_fail("%s: has %lld rows, more than the %lld of the vocabulary", e->name, (long long)have, (long long)rows);
        return;
    }
    sw_slice all = {0, have, 0, have};
    sw_gguf_tie(w, gguf, ours, have < rows ? &(sw_gguf_part){.in_gguf = all, .in_file = all, .n = have, .gguf_rows = rows} : &(sw_gguf_part){0});
    for (int64_t i = have; i < rows; i++)
        sw_gguf_tie(w, gguf, ours, &(sw_gguf_part){.in_gguf = {i, 1, 0, 1}, .in_file = {0, 1, 0, 1}, .n = 1, .gguf_rows = rows});
}

const cJSON *sw_gguf_weaver_config(const sw_gguf_weaver *w) { return w->c->config; }

/* Where this family says other than the usual: rows with this of our names. */
static const sw_gguf_row *special(const weaver *w, const char *ours)
{
    for (const sw_gguf_row *r = w->kind->names; r && r->ours; r++)
        if (!strcmp(r->ours, ours))
            return r;
    return NULL;
}

/* A module's weight and bias. */
static void both(weaver *w, const char *gguf, const char *ours, const bond *b)
{
    const sw_gguf_row *r = special(w, ours);
    if (r && !r->gguf)
        return;
    (void)tie_named(w, r ? r->gguf : gguf, ours, ".weight", b);
    (void)tie_named(w, r ? r->gguf : gguf, ours, ".bias", b);
}

static void norm(weaver *w, const char *gguf, const char *ours, bool from_one)
{
    const sw_gguf_row *r = special(w, ours);
    bond b = {.fn = from_one && (w->kind->flags & SW_GGUF_NORMS_FROM_ONE) ? SW_GGUF_PLUS_ONE : SW_GGUF_SAME};
    if (r && !r->gguf)
        return;
    (void)tie_named(w, r ? r->gguf : gguf, ours, ".weight", &b);
    (void)tie_named(w, r ? r->gguf : gguf, ours, ".bias", &(bond){0});
}

/* ---- attention */

static int64_t heads_of(const sw_layer *l, char part) { return part == 'q' || part == 'g' ? l->heads : l->kv_heads; }
static int64_t rows_of(const sw_layer *l, char part) { return heads_of(l, part) * (part == 'v' || part == 'g' ? l->value_dim : l->head_dim); }

/* Rows in a group of the packed projection; where a part begins in it. */
static int64_t group_rows(const sw_spec *s, const sw_layer *l, char part, int64_t *begins)
{
    int64_t at = 0, groups = s->packed_groups ? s->packed_groups : 1;
    for (const char *p = s->packed; *p; p++) {
        if (*p == part)
            *begins = at;
        at += rows_of(l, *p) / groups;
    }
    return at;
}

/* Heads whose rows lie otherwise in GGUF. */
static int64_t regrouped(const weaver *w, const sw_layer *l, char part)
{
    bool pairs = (w->kind->flags & SW_GGUF_PAIRS) && w->s->rope[0].mode == SW_ROPE_HALF && w->s->positions == SW_POSITIONS_ROPE;
    return pairs && (part == 'q' || part == 'k') ? heads_of(l, part) : 0;
}

/* Rows of heads; where only the first values of each turn, those alone are regrouped. */
static void heads(weaver *w, const sw_layer *l, char part, const char *gguf, const char *ours)
{
    int64_t h = regrouped(w, l, part), d = l->head_dim, turned = l->rope >= 0 ? 2 * sw_rope_pairs(&w->s->rope[l->rope]) : d;
    bond b = {.heads = h, .file_turned = w->s->conv1d};
    if (!h || turned >= d) {
        both(w, gguf, ours, &b);
        return;
    }
    b.gguf_rows[0] = b.file_rows[0] = h * d;
    b.in_gguf = b.in_file = (sw_slice){0, d, 0, turned};
    b.n = h * turned;
    both(w, gguf, ours, &b);
    b.in_gguf = b.in_file = (sw_slice){0, d, turned, d - turned};
    b.n = h * (d - turned);
    b.heads = 0;
    both(w, gguf, ours, &b);
}

static void packed(weaver *w, const sw_layer *l)
{
    const sw_spec *s = w->s;
    const bool one = w->kind->flags & SW_GGUF_QKV;
    const char *ours = !strchr(s->packed, 'k') ? "self_attn.q_proj" : strchr(s->packed, 'q') ? "self_attn.qkv_proj" : "self_attn.kv_proj";
    int64_t groups = s->packed_groups ? s->packed_groups : 1, begins = 0, rows = group_rows(s, l, s->packed[0], &begins), at = 0;
    bool plain = !strchr(s->packed, 'k'); /* queries and their gates stay as they are */
    if (plain || (one && groups == 1 && !strcmp(s->packed, "qkv"))) {
        both(w, plain ? "attn_q" : "attn_qkv", ours, &(bond){.file_turned = s->conv1d});
    } else {
        for (const char *p = "qkv"; *p; p++) {
            if (!strchr(s->packed, *p))
                continue;
            int64_t n = rows_of(l, *p), own[2] = {one ? groups * rows : n, 0};
            group_rows(s, l, *p, &begins);
            bond b = {.in_file = {0, rows, begins, n / groups}, .in_gguf = {one ? at : 0, n, 0, n}, .n = n,
                      .gguf_rows = {own[0]}, .file_rows = {groups * rows}, .heads = regrouped(w, l, *p), .file_turned = s->conv1d};
            char name[] = {'a', 't', 't', 'n', '_', *p, 0};
            both(w, one ? "attn_qkv" : name, ours, &b);
            at += n;
        }
    }
}

/* Norms of queries and keys: one for all heads, one over all, or one a head, which some files hold apart. */
static void qk_norm(weaver *w, const sw_layer *l, char part)
{
    char gguf[] = {'a', 't', 't', 'n', '_', part, '_', 'n', 'o', 'r', 'm', 0}, ours[64];
    int64_t heads = heads_of(l, part);
    bool from_one = w->s->qk.offset == 1;
    snprintf(ours, sizeof ours, "self_attn.%c_norm", part);
    if (w->s->qk_norm == SW_QK_FULL && regrouped(w, l, part)) {
        both(w, gguf, ours, &(bond){.heads = heads});
        return;
    }
    if (w->s->qk_norm != SW_QK_EACH || !(w->kind->flags & SW_GGUF_NORM_A_HEAD)) {
        norm(w, gguf, ours, from_one);
        return;
    }
    for (int64_t h = 0; h < heads; h++) {
        snprintf(ours, sizeof ours, "self_attn.%c_norm.%lld", part, (long long)h);
        if (!tie_named(w, gguf, ours, ".weight", &(bond){.in_gguf = {h, 1, 0, 1}, .n = 1, .width = l->head_dim, .gguf_rows = {heads},
                                                         .file_rows = {l->head_dim}, .file_bare = true}))
            return;
    }
}

static void attention(weaver *w, const sw_layer *l)
{
    const sw_spec *s = w->s;
    if (s->packed)
        packed(w, l);
    for (const char *p = "qkv"; *p; p++) {
        char gguf[] = {'a', 't', 't', 'n', '_', *p, 0}, ours[32];
        snprintf(ours, sizeof ours, "self_attn.%c_proj", *p);
        if (!s->packed || !strchr(s->packed, *p))
            heads(w, l, *p, gguf, ours);
    }
    both(w, "attn_output", "self_attn.o_proj", &(bond){.file_turned = s->conv1d});
    qk_norm(w, l, 'q');
    qk_norm(w, l, 'k');
    if (l->sinks)
        (void)tie_named(w, "attn_sinks.weight", "self_attn.sinks", "", &(bond){0});
}

static void latent(weaver *w, const sw_layer *l)
{
    const sw_mla *o = l->mixer_options;
    bool pairs = w->s->rope[0].mode == SW_ROPE_HALF && (w->kind->flags & SW_GGUF_PAIRS);
    static const sw_gguf_row rows[] = {SW_GGUF_MODULE("attn_q_a", "self_attn.q_a_proj"), SW_GGUF_MODULE("attn_q_a_norm", "self_attn.q_a_layernorm"),
                                       SW_GGUF_MODULE("attn_q_b", "self_attn.q_b_proj"), SW_GGUF_MODULE("attn_q", "self_attn.q_proj"),
                                       SW_GGUF_MODULE("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"), SW_GGUF_MODULE("attn_kv_a_norm", "self_attn.kv_a_layernorm"),
                                       SW_GGUF_MODULE("attn_output", "self_attn.o_proj")};
    if (pairs)
        w->rc = sw_fail("latent attention that turns halves of heads has no place in GGUF's %s", w->kind->arch);
    for (size_t i = 0; i < SW_COUNT(rows); i++)
        both(w, rows[i].gguf, rows[i].ours, &(bond){0});
    int64_t h = l->heads, n = o->nope, v = l->value_dim;
    char old[SW_NAME_MAX];
    gguf_name(w, "attn_kv_b", ".weight", old);
    bool split = w->from_file ? w->kind->flags & SW_GGUF_SPLIT_KV : !sw_checkpoint_find(w->c, old);
    if (!split) {
        both(w, "attn_kv_b", "self_attn.kv_b_proj", &(bond){0});
        return;
    }
    bond k = {.in_file = {0, n + v, 0, n}, .n = h * n, .file_rows = {h * (n + v)}, .gguf_rows = {h, n}, .gguf_turned = true};
    bond values = {.in_file = {0, n + v, n, v}, .n = h * v, .file_rows = {h * (n + v)}, .gguf_rows = {h, v}};
    both(w, "attn_k_b", "self_attn.kv_b_proj", &k);
    both(w, "attn_v_b", "self_attn.kv_b_proj", &values);
}

/* ---- states */

static const sw_gguf_row mamba_rows[] = {
    SW_GGUF_MODULE("ssm_in", "mamba.in_proj"), SW_GGUF_MODULE("ssm_x", "mamba.x_proj"), SW_GGUF_MODULE("ssm_dt", "mamba.dt_proj"), SW_GGUF_MODULE("ssm_out", "mamba.out_proj"),
    SW_GGUF_TENSOR("ssm_conv1d.weight", "mamba.conv1d.weight", SW_GGUF_TAPS, SW_GGUF_SAME), SW_GGUF_TENSOR("ssm_conv1d.bias", "mamba.conv1d.bias", SW_GGUF_AS_IS, SW_GGUF_SAME),
    SW_GGUF_TENSOR("ssm_a", "mamba.A_log", SW_GGUF_AS_IS, SW_GGUF_MINUS_EXP), SW_GGUF_TENSOR("ssm_d", "mamba.D", SW_GGUF_AS_IS, SW_GGUF_SAME),
    SW_GGUF_MODULE("ssm_dt_norm", "mamba.dt_layernorm"), SW_GGUF_MODULE("ssm_b_norm", "mamba.b_layernorm"), SW_GGUF_MODULE("ssm_c_norm", "mamba.c_layernorm"), {0}};
static const sw_gguf_row mamba2_rows[] = {
    SW_GGUF_MODULE("ssm_in", "mamba.in_proj"), SW_GGUF_MODULE("ssm_out", "mamba.out_proj"), SW_GGUF_TENSOR("ssm_conv1d.weight", "mamba.conv1d.weight", SW_GGUF_TAPS, SW_GGUF_SAME),
    SW_GGUF_TENSOR("ssm_conv1d.bias", "mamba.conv1d.bias", SW_GGUF_AS_IS, SW_GGUF_SAME), SW_GGUF_TENSOR("ssm_a", "mamba.A_log", SW_GGUF_COLUMN, SW_GGUF_MINUS_EXP),
    SW_GGUF_TENSOR("ssm_d", "mamba.D", SW_GGUF_COLUMN, SW_GGUF_SAME), SW_GGUF_TENSOR("ssm_dt.bias", "mamba.dt_bias", SW_GGUF_AS_IS, SW_GGUF_SAME), {0}};

static void rows(weaver *w, const sw_gguf_row *table)
{
    for (; table && table->ours; table++) {
        if (!table->gguf)
            continue;
        bond b = {.shape = table->shape, .fn = table->fn};
        if (table->whole)
            (void)tie_named(w, table->gguf, table->ours, "", &b);
        else
            both(w, table->gguf, table->ours, &b);
    }
}

void sw_gguf_tie_rows(sw_gguf_weaver *w, const sw_gguf_row *table) { rows(w, table); }

static void mamba2(weaver *w, const sw_mamba2_options *o)
{
    rows(w, mamba2_rows);
    bond b = {.shape = SW_GGUF_COLUMN, .groups = o->groups};
    (void)tie_named(w, "ssm_norm.weight", "mamba.norm.weight", "", &b);
}

/* ---- feed-forward */

static void halves(weaver *w, const char *gate, const char *up, const char *ours, int64_t wide)
{
    for (int i = 0; i < 2; i++)
        both(w, i ? up : gate, ours,
             &(bond){.in_file = {0, 2 * wide, i * wide, wide}, .n = wide, .gguf_rows = {wide}, .file_rows = {2 * wide}});
}

static void dense(weaver *w, const sw_layer *l)
{
    bool turned = w->s->conv1d;
    if (w->s->packed_mlp && !(w->kind->flags & SW_GGUF_GATE_UP))
        halves(w, "ffn_gate", "ffn_up", "mlp.gate_up_proj", l->mlp);
    else if (w->s->packed_mlp)
        both(w, "ffn_up", "mlp.gate_up_proj", &(bond){0});
    if (!w->s->packed_mlp) {
        both(w, "ffn_gate", "mlp.gate_proj", &(bond){.file_turned = turned});
        both(w, "ffn_up", "mlp.up_proj", &(bond){.file_turned = turned});
    }
    both(w, "ffn_down", "mlp.down_proj", &(bond){.file_turned = turned});
}

/* One of an expert's three matrices: of every expert a tensor. */
static void experts(weaver *w, const sw_moe *m, const char *gguf, const char *name, int64_t n)
{
    for (int64_t e = 0; e < m->experts; e++) {
        char ours[SW_NAME_MAX];
        snprintf(ours, sizeof ours, "mlp.experts.%lld.%s", (long long)e, name);
        if (!tie_named(w, gguf, ours, ".weight", &(bond){.in_gguf = {e * n, n, 0, n}, .n = n, .gguf_rows = {m->experts, n}, .file_rows = {n}}))
            return;
    }
}

/* All experts in one tensor: gate and up together, each expert's after the other's. */
static void stacks(weaver *w, const sw_moe *m)
{
    int64_t e = m->experts, wide = m->wide, hidden = w->s->hidden;
    static const char *const names[] = {"ffn_gate_exps", "ffn_up_exps"};
    const sw_gguf_row *r = special(w, "mlp.experts.gate_up");
    char one[SW_NAME_MAX];
    gguf_name(w, r ? r->gguf : "", "", one);
    bool together = r && (w->from_file || sw_checkpoint_find(w->c, one));
    if (m->apart) {
        (void)tie_named(w, "ffn_gate_exps.weight", "mlp.experts.gate", "", &(bond){.gguf_rows = {e, wide}, .file_rows = {e * wide}});
        (void)tie_named(w, "ffn_up_exps.weight", "mlp.experts.up", "", &(bond){.gguf_rows = {e, wide}, .file_rows = {e * wide}});
        /* [experts * wide, hidden], of which GGUF holds each expert's turned */
        bond b = {.n = e * hidden, .width = wide, .gguf_rows = {e, hidden}, .file_rows = {e * wide, hidden}, .file_turned = true, .file_bare = true};
        (void)tie_named(w, "ffn_down_exps.weight", "mlp.experts.down", "", &b);
        return;
    }
    if (together)
        (void)tie_named(w, r->gguf, "mlp.experts.gate_up", "", &(bond){0});
    for (int i = 0; i < 2 && !together; i++) {
        sw_slice part = m->interleaved ? (sw_slice){0, 2, i, 1} : (sw_slice){0, 2 * wide, i * wide, wide};
        bond b = {.in_file = part, .n = e * wide, .gguf_rows = {e, wide}, .file_rows = {e, 2 * wide}, .file_turned = m->turned};
        char weight[32], bias[32];
        snprintf(weight, sizeof weight, "%s.weight", names[i]);
        snprintf(bias, sizeof bias, "%s.bias", names[i]);
        (void)tie_named(w, weight, "mlp.experts.gate_up", "", &b);
        b.file_turned = false;
        b.width = 1;
        if (m->biased) {
            b.gguf_rows[0] = b.file_rows[0] = e;
            b.gguf_rows[1] = wide;
            b.file_rows[1] = 2 * wide;
            b.gguf_bare = b.file_bare = true;
            (void)tie_named(w, bias, "mlp.experts.gate_up_bias", "", &b);
        }
    }
    bond down = {.n = e * hidden, .gguf_rows = {e, hidden}, .file_rows = {e, hidden}, .file_turned = m->turned};
    (void)tie_named(w, "ffn_down_exps.weight", "mlp.experts.down", "", &down);
    if (m->biased)
        (void)tie_named(w, "ffn_down_exps.bias", "mlp.experts.down_bias", "", &(bond){0});
}

static void mixture(weaver *w, const sw_moe *m)
{
    (void)tie_named(w, "ffn_gate_inp", "mlp.router", ".weight", &(bond){0});
    if (m->router_bias) /* elsewhere a correction of the choice may be called so */
        (void)tie_named(w, "ffn_gate_inp", "mlp.router", ".bias", &(bond){0});
    const sw_gguf_row *r = special(w, "mlp.correction");
    if (m->correction)
        (void)tie_named(w, r ? r->gguf : "exp_probs_b.bias", "mlp.correction", "", &(bond){.shape = m->correction_row ? SW_GGUF_VECTOR : SW_GGUF_AS_IS});
    if (m->stacked) {
        stacks(w, m);
    } else {
        experts(w, m, "ffn_gate_exps", m->gate ? m->gate : "gate_proj", m->wide);
        experts(w, m, "ffn_up_exps", m->up ? m->up : "up_proj", m->wide);
        experts(w, m, "ffn_down_exps", m->down ? m->down : "down_proj", w->s->hidden);
    }
    bool one = m->shared_packed && (w->kind->flags & SW_GGUF_GATE_UP);
    if (one)
        both(w, "ffn_up_shexp", "mlp.shared.gate_up_proj", &(bond){0});
    else if (m->shared_packed)
        halves(w, "ffn_gate_shexp", "ffn_up_shexp", "mlp.shared.gate_up_proj", m->shared_wide);
    else
        both(w, "ffn_gate_shexp", "mlp.shared.gate_proj", &(bond){0});
    if (!m->shared_packed)
        both(w, "ffn_up_shexp", "mlp.shared.up_proj", &(bond){0});
    both(w, "ffn_down_shexp", "mlp.shared.down_proj", &(bond){0});
    if (m->shared_gated)
        both(w, "ffn_gate_inp_shexp", "mlp.shared_gate", &(bond){.shape = SW_GGUF_VECTOR});
}

/* ---- the whole */

static void norms(weaver *w, const sw_layer *l)
{
    const sw_spec *s = w->s;
    bool one = s->norm.offset == 1, before = s->norm_place == SW_PRE_NORM || s->norm_place == SW_SANDWICH_NORM;
    if (before && (w->kind->flags & SW_GGUF_NORM_2) && s->parallel == SW_PARALLEL) {
        norm(w, "attn_norm_2", "attn_norm", one);
        norm(w, "attn_norm", "mlp_norm", one);
    } else if (before) {
        norm(w, "attn_norm", "attn_norm", one);
        if (s->parallel != SW_PARALLEL_SHARED && l->ffn)
            norm(w, "ffn_norm", "mlp_norm", one);
    }
    if (s->norm_place == SW_POST_NORM || s->norm_place == SW_SANDWICH_NORM) {
        norm(w, "post_attention_norm", "attn_post_norm", one);
        norm(w, "post_ffw_norm", "mlp_post_norm", one);
    }
    if (s->norm_place == SW_RESIDUAL_NORM) {
        norm(w, "attn_output_norm", "attn_norm", one);
        norm(w, "layer_output_norm", "mlp_norm", one);
    }
}

static void layer(weaver *w, const sw_layer *l)
{
    norms(w, l);
    if (l->mixer == &sw_mixer_mla)
        latent(w, l);
    else if (l->mixer == &sw_mixer_mamba)
        rows(w, mamba_rows);
    else if (l->mixer == &sw_mixer_mamba2)
        mamba2(w, l->mixer_options);
    else if (l->mixer == &sw_mixer_attention)
        attention(w, l);
    if (l->ffn == &sw_ffn_moe)
        mixture(w, l->ffn_options);
    else if (l->ffn)
        dense(w, l);
    rows(w, w->kind->more);
    if (w->kind->layer)
        w->kind->layer(w, w->s, l);
}

/* Under the one of its names that the folder has. */
static void embedding(weaver *w, const char *gguf)
{
    char name[SW_NAME_MAX];
    sw_file_name(w->s, -1, "model.embed_tokens.weight", name);
    bool found = !w->from_file || sw_file_find(w->c, name);
    if (found)
        (void)tie(w, gguf, name, &(bond){0});
    for (const char *const *n = w->s->family->same_embedding; n && *n && !found; n++)
        found = tie(w, gguf, *n, &(bond){0});
}

/* Rows before the first position are read by nobody. */
static void positions(weaver *w)
{
    const sw_spec *s = w->s;
    int64_t before = s->position_offset, n = s->max_position;
    if (!(w->kind->flags & SW_GGUF_ENCODER) || !before)
        both(w, "position_embd", "model.embed_positions", &(bond){0});
    else
        both(w, "position_embd", "model.embed_positions",
             &(bond){.in_file = {before, n, 0, n}, .n = n, .gguf_rows = {n}, .file_rows = {n + before}});
}

int sw_gguf_weave(const sw_spec *s, const sw_gguf_kind *kind, const sw_checkpoint *c, bool from_file, sw_gguf_links *out, sw_arena *arena)
{
    weaver w = {.s = s, .kind = kind, .c = c, .from_file = from_file, .layer = -1, .out = out, .arena = arena};
    bool folded = kind->flags & SW_GGUF_FOLDED;
    if (folded)
        kind->layer(&w, s, NULL);
    else
        embedding(&w, "token_embd.weight");
    positions(&w);
    both(&w, "token_types", "model.embed_types", &(bond){0});
    if (s->embed_norm)
        norm(&w, "token_embd_norm", "model.embed_norm", s->norm.offset == 1);
    rows(&w, kind->more);
    if (kind->around)
        kind->around(&w, s);
    for (w.layer = 0; w.layer < s->layers && !w.rc; w.layer++)
        layer(&w, &s->layer[w.layer]);
    w.layer = -1;
    norm(&w, "output_norm", "model.norm", s->norm.offset == 1);
    if (s->task == SW_TASK_CLASSIFY) {
        both(&w, "cls", "score.hidden", &(bond){0});
        both(&w, "cls.norm", "score.norm", &(bond){0});
        both(&w, "cls.output", "score", &(bond){0});
    }
    if (!sw_task_has_words(s->task))
        return w.rc;
    if (!(s->tied && from_file) && !folded)
        both(&w, "output", "lm_head", &(bond){.fn = !from_file                                   ? SW_GGUF_SAME
                                                    : s->head_product == sw_head_unit_rows    ? SW_GGUF_UNIT_ROWS
                                                    : s->head_product == sw_head_unit_columns ? SW_GGUF_UNIT_COLUMNS
                                                                                              : SW_GGUF_SAME});
    else if (s->tied && s->file_ties && s->logit_scale == 0) /* readers scale what a tied head of such models reads */
        embedding(&w, "output.weight");
    else if (s->head_bias)
        (void)tie_named(&w, "output.bias", "lm_head.bias", "", &(bond){0});
    return w.rc;
}
