/* The dense feed-forward: down(act(gate x) * up x), or without a gate down(act(up x)). */
#include "model/block.h"

typedef struct dense {
    sw_linear gate, up, down; /* gate: both where they are packed */
} dense;

static void declare(sw_builder *b, void *self)
{
    dense *d = self;
    const sw_spec *s = sw_builder_spec(b);
    int64_t wide = sw_builder_layer(b)->mlp;
    unsigned bias = s->mlp_bias ? SW_ASK_BIAS : 0;
    if (s->packed_mlp) {
        sw_ask_linear(b, &d->gate, "mlp.gate_up_proj", 2 * wide, s->hidden, bias);
    } else {
        if (!s->plain_mlp)
            sw_ask_linear(b, &d->gate, "mlp.gate_proj", wide, s->hidden, bias);
        sw_ask_linear(b, &d->up, "mlp.up_proj", wide, s->hidden, bias);
    }
    sw_ask_linear(b, &d->down, "mlp.down_proj", s->hidden, wide, s->down_bias ? SW_ASK_BIAS : 0);
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    dense *d = self;
    const sw_spec *s = p->spec;
    sw_var *gate = s->plain_mlp ? NULL : sw_linear_forward(c, &d->gate, x), *up, *h;
    if (s->packed_mlp && gate) {
        int64_t wide = d->down.in;
        up = sw_columns(c, gate, wide, wide);
        gate = sw_columns(c, gate, 0, wide);
    } else {
        up = gate || s->plain_mlp ? sw_linear_forward(c, &d->up, x) : NULL;
    }
    if (!up)
        return NULL;
    h = s->plain_mlp ? sw_activation(c, up, s->act) : sw_glu(c, gate, up, s->act);
    return h ? sw_linear_forward(c, &d->down, h) : NULL;
}

const sw_ffn_ops sw_ffn_dense = {"dense", sizeof(dense), declare, forward};
