#include "model/block.h"

#include "model/model.h"

sw_var *sw_norm_forward(sw_ctx *c, const sw_norm *n, sw_var *x)
{
    if (!n->spec)
        return x;
    return n->spec->kind == SW_NORM_RMS ? sw_rmsnorm(c, x, n->w, n->spec->eps, n->spec->offset)
                                        : sw_layernorm(c, x, n->w, n->b, n->spec->eps, n->spec->offset);
}

sw_var *sw_mix(sw_ctx *c, const sw_pass *p, sw_var *x) { return p->block->spec->mixer->forward(c, p->block->mixer, p, x); }
sw_var *sw_cross(sw_ctx *c, const sw_pass *p, sw_var *x) { return p->block->spec->cross->forward(c, p->block->cross, p, x); }
sw_var *sw_feed(sw_ctx *c, const sw_pass *p, sw_var *x) { return p->block->spec->ffn->forward(c, p->block->ffn, p, x); }

/* One residual branch: its norms, and which of the two it is. */
typedef struct branch {
    sw_norm before, after, around;
    sw_drop_place drop;
    uint32_t site; /* tells the two that drop in the same place */
} branch;

typedef struct standard {
    branch mixer, cross, ffn;
} standard;

static void declare(sw_builder *b, void *self)
{
    standard *s = self;
    const sw_spec *spec = sw_builder_spec(b);
    const sw_layer *l = sw_builder_layer(b);
    const sw_norm_place place = spec->norm_place;
    bool before = place == SW_PRE_NORM || place == SW_SANDWICH_NORM, after = place == SW_POST_NORM || place == SW_SANDWICH_NORM;
    struct {
        branch *at;
        const char *before, *after;
        bool there;
        bool bare;
    } all[] = {{&s->mixer, "attn_norm", "attn_post_norm", true, l->bare_mixer},
               {&s->cross, "cross_norm", "cross_post_norm", l->cross != NULL, false},
               {&s->ffn, "mlp_norm", "mlp_post_norm", l->ffn != NULL, spec->parallel == SW_PARALLEL_SHARED}};
    for (int i = 0; i < 3; i++) {
        all[i].at->site = (uint32_t)i;
        all[i].at->drop = i < 2 ? SW_DROP_MIXER : SW_DROP_FFN;
        if (!all[i].there)
            continue;
        if (before && !all[i].bare)
            sw_ask_norm(b, &all[i].at->before, all[i].before, spec->hidden, &spec->norm);
        if (after)
            sw_ask_norm(b, &all[i].at->after, all[i].after, spec->hidden, &spec->norm);
        if (place == SW_RESIDUAL_NORM)
            sw_ask_norm(b, &all[i].at->around, all[i].before, spec->hidden, &spec->norm);
    }
    sw_declare_parts(b);
}

/* f(x) between the branch's norms, scaled. */
static sw_var *run(sw_ctx *c, const branch *r, sw_var *(*f)(sw_ctx *, const sw_pass *, sw_var *), const sw_pass *p, sw_var *x)
{
    sw_var *h = sw_norm_forward(c, &r->before, x);
    h = h ? f(c, p, h) : NULL;
    h = h ? sw_drop(c, p->spec, r->drop, r->site ^ p->block->site, h) : NULL;
    h = h ? sw_norm_forward(c, &r->after, h) : NULL;
    return h && p->spec->residual_scale > 0 ? sw_scale(c, h, p->spec->residual_scale) : h;
}

static sw_var *residual(sw_ctx *c, const branch *r, sw_var *(*f)(sw_ctx *, const sw_pass *, sw_var *), const sw_pass *p, sw_var *x)
{
    sw_scope scope = sw_scope_begin(c);
    sw_var *h = run(c, r, f, p, x);
    h = h ? sw_add(c, h, x) : NULL;
    h = h ? sw_norm_forward(c, &r->around, h) : NULL;
    return h ? sw_scope_return(c, scope, h) : NULL;
}

static sw_var *parallel(sw_ctx *c, const standard *s, const sw_pass *p, sw_var *x)
{
    sw_scope scope = sw_scope_begin(c);
    bool shared = p->spec->parallel == SW_PARALLEL_SHARED;
    sw_var *h = shared ? sw_norm_forward(c, &s->mixer.before, x) : x;
    branch alone = s->mixer;
    if (shared)
        alone.before = (sw_norm){0};
    sw_var *a = h ? run(c, &alone, sw_mix, p, h) : NULL, *f = a ? run(c, &s->ffn, sw_feed, p, h) : NULL;
    a = f ? sw_add(c, a, f) : NULL;
    a = a ? sw_drop(c, p->spec, SW_DROP_BOTH, p->block->site, a) : NULL;
    return a ? sw_scope_return(c, scope, sw_add(c, a, x)) : NULL;
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    const standard *s = self;
    if (p->spec->parallel && p->block->spec->ffn)
        return parallel(c, s, p, x);
    sw_var *y = residual(c, &s->mixer, sw_mix, p, x);
    if (y && p->block->spec->cross)
        y = residual(c, &s->cross, sw_cross, p, y);
    return y && p->block->spec->ffn ? residual(c, &s->ffn, sw_feed, p, y) : y;
}

const sw_block_ops sw_block_standard = {sizeof(standard), declare, forward};
