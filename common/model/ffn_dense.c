/* The dense feed-forward: down(act(gate x) * up x), or without a gate down(act(up x)). */
#include "model/block.h"

#include <stdio.h>

static const char *named(char out[64], const char *place, const char *name)
{
    snprintf(out, 64, "%s%s", place, name);
    return out;
}

void sw_dense_declare(sw_builder *b, sw_dense_parts *d, const char *place)
{
    const sw_spec *s = sw_builder_spec(b);
    char name[64];
    int64_t wide = sw_builder_layer(b)->mlp;
    unsigned bias = s->mlp_bias ? SW_ASK_BIAS : 0;
    if (s->packed_mlp) {
        sw_ask_linear(b, &d->gate, named(name, place, "gate_up_proj"), 2 * wide, s->hidden, bias);
    } else {
        if (!s->plain_mlp)
            sw_ask_linear(b, &d->gate, named(name, place, "gate_proj"), wide, s->hidden, bias);
        sw_ask_linear(b, &d->up, named(name, place, "up_proj"), wide, s->hidden, bias);
    }
    sw_ask_linear(b, &d->down, named(name, place, "down_proj"), s->hidden, wide, s->down_bias ? SW_ASK_BIAS : 0);
}

sw_var *sw_dense_forward(sw_ctx *c, sw_dense_parts *d, const sw_pass *p, sw_var *x)
{
    const sw_spec *s = p->spec;
    sw_var *in[2], *h;
    if (s->plain_mlp) {
        h = sw_linear_act(c, &d->up, x, s->act);
    } else {
        int64_t wide = d->down.in;
        if (sw_linears_forward(c, (sw_linear *[]){&d->gate, &d->up}, s->packed_mlp ? 1 : 2, x, in))
            return NULL;
        if (s->packed_mlp) {
            in[1] = sw_columns(c, in[0], wide, wide);
            in[0] = sw_columns(c, in[0], 0, wide);
        }
        h = sw_glu(c, in[0], in[1], s->act);
    }
    h = h ? sw_drop(c, s, SW_DROP_INNER, p->block->site, h) : NULL;
    return h ? sw_linear_forward(c, &d->down, h) : NULL;
}

static void declare(sw_builder *b, void *self) { sw_dense_declare(b, self, "mlp."); }
static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x) { return sw_dense_forward(c, self, p, x); }

const sw_ffn_ops sw_ffn_dense = {"dense", sizeof(sw_dense_parts), declare, forward};
