/* Apertus: Llama with norms of queries and keys, and an activation that learns (xIELU, Huang and Schlag 2024,
 * arXiv 2411.13010): for x > 0 ap x^2 + beta x, else an (exp(x) - 1 - x) + beta x, with ap = softplus(alpha_p) and
 * an = beta + softplus(alpha_n). */
#include "model/family.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

typedef struct xielu {
    sw_linear up, down;
    sw_param *alpha_p, *alpha_n, *beta, *eps;
} xielu;

static void declare(sw_builder *b, void *self)
{
    xielu *f = self;
    const sw_spec *s = sw_builder_spec(b);
    int64_t wide = sw_builder_layer(b)->mlp, one = 1;
    sw_ask_linear(b, &f->up, "mlp.up_proj", wide, s->hidden, s->mlp_bias ? SW_ASK_BIAS : 0);
    sw_ask_linear(b, &f->down, "mlp.down_proj", s->hidden, wide, s->down_bias ? SW_ASK_BIAS : 0);
    f->alpha_p = sw_ask(b, "mlp.act_fn.alpha_p", 1, &one, SW_ASK_F32);
    f->alpha_n = sw_ask(b, "mlp.act_fn.alpha_n", 1, &one, SW_ASK_F32);
    f->beta = sw_ask(b, "mlp.act_fn.beta", 0, &one, SW_ASK_F32 | SW_ASK_FIXED);
    f->eps = sw_ask(b, "mlp.act_fn.eps", 0, &one, SW_ASK_F32 | SW_ASK_FIXED); /* its own kernels begin the exponential at it: 1e-6 */
}

/* Scalars on the host; masters are f32 where they train in another type. */
static int scalar(sw_ctx *c, sw_param *p, double *out)
{
    if (sw_use_away(c, (sw_var *[]){&p->v}, 1) || sw_master_values(p))
        return -1;
    const sw_tensor *t = p->master.data ? &p->master : &p->v.t;
    float value;
    int rc = c->device->get(c->device, &value, t->data, sizeof value);
    *out = (double)value;
    return rc;
}

static double softplus(double x) { return x > 30 ? x : log1p(exp(x)); }

/* g += factor * sum of a * b over everything. */
static int add_sum(sw_ctx *c, sw_param *p, double factor, const sw_tensor *a, const sw_tensor *b)
{
    sw_var *columns = sw_tmp1(c, SW_F32, a->shape[1]), *all = sw_tmp1(c, SW_F32, 1);
    const sw_kernels *k = sw_k(c);
    if (!columns || !all || k->fill(sw_s(c), &columns->t, 0) || k->fill(sw_s(c), &all->t, 0) ||
        k->sum_rows(sw_s(c), &columns->t, a, b))
        return -1;
    sw_tensor tall = sw_reshaped(&columns->t, 2, (int64_t[]){a->shape[1], 1});
    return k->sum_rows(sw_s(c), &all->t, &tall, NULL) || k->axpby(sw_s(c), &p->v.grad->t, factor, &all->t, 1) ? -1 : 0;
}

static int act_back(sw_ctx *c, sw_node *n)
{
    const xielu *f = n->data;
    const sw_kernels *k = sw_k(c);
    const sw_tensor *x = &n->saved[0]->t, *dy = &n->out[0]->grad->t;
    double ap = n->f[0], an = n->f[1], beta = n->f[2];
    sw_var *t = sw_like(c, n->saved[0]);
    int acc;
    sw_tensor *dx = sw_grad(c, n->in[0], &acc);
    if (!t || acc == -2)
        return -1;
    if (dx && (k->axpby(sw_s(c), dx, beta - an, dy, acc) || k->act_bwd(sw_s(c), &t->t, dy, x, SW_ACT_RELU2, 0) ||
               k->axpby(sw_s(c), dx, ap, &t->t, 1) || k->act_bwd(sw_s(c), &t->t, dy, x, SW_ACT_ELU, 0) ||
               k->axpby(sw_s(c), dx, an, &t->t, 1)))
        return -1;
    double raw; /* softplus'(raw) is the sigmoid */
    if (f->alpha_p->v.needs_grad && (scalar(c, f->alpha_p, &raw) || k->act_fwd(sw_s(c), &t->t, x, SW_ACT_RELU2) ||
                                     add_sum(c, f->alpha_p, 1 / (1 + exp(-raw)), dy, &t->t)))
        return -1;
    if (f->alpha_n->v.needs_grad && (scalar(c, f->alpha_n, &raw) || k->act_fwd(sw_s(c), &t->t, x, SW_ACT_ELU) ||
                                     k->axpby(sw_s(c), &t->t, -1, x, 1) || add_sum(c, f->alpha_n, 1 / (1 + exp(-raw)), dy, &t->t)))
        return -1;
    return 0;
}

static sw_var *activation(sw_ctx *c, xielu *f, sw_var *x)
{
    const sw_kernels *k = sw_k(c);
    double p, n, beta;
    if (scalar(c, f->alpha_p, &p) || scalar(c, f->alpha_n, &n) || scalar(c, f->beta, &beta))
        return NULL;
    double ap = softplus(p), an = beta + softplus(n);
    sw_var *y = sw_like(c, x), *t = sw_like(c, x);
    if (!y || !t || k->act_fwd(sw_s(c), &y->t, &x->t, SW_ACT_RELU2) || k->act_fwd(sw_s(c), &t->t, &x->t, SW_ACT_ELU) ||
        k->axpby(sw_s(c), &y->t, beta - an, &x->t, ap) || k->axpby(sw_s(c), &y->t, an, &t->t, 1))
        return NULL;
    return sw_record(c, (sw_node){.op = "xielu", .back = act_back, .in = {x, &f->alpha_p->v, &f->alpha_n->v}, .out = {y}, .saved = {x},
                                  .f = {ap, an, beta}, .data = f});
}

static sw_var *forward(sw_ctx *c, void *self, const sw_pass *p, sw_var *x)
{
    xielu *f = self;
    (void)p;
    sw_var *h = sw_linear_forward(c, &f->up, x);
    h = h ? activation(c, f, h) : NULL;
    return h ? sw_linear_forward(c, &f->down, h) : NULL;
}

static const sw_ffn_ops ffn_xielu = {"xielu", sizeof(xielu), declare, forward};

static int layers(sw_spec *s, const cJSON *config)
{
    const char *act;
    if (sw_json_str(config, "hidden_act", "xielu", &act))
        return -1;
    if (strcmp(act, "xielu"))
        return sw_fail("\"hidden_act\": '%s'; Apertus has xielu", act);
    for (int64_t i = 0; i < s->layers; i++)
        s->layer[i].ffn = &ffn_xielu;
    return 0;
}

static const sw_rename names[] = {{"attn_norm", "attention_layernorm"}, {"mlp_norm", "feedforward_layernorm"}, {0}};

const sw_family sw_family_apertus[] = {
    {.name = "apertus", .architectures = SW_NAMES("ApertusForCausalLM"), .model_types = SW_NAMES("apertus"),
     .spec = {.qk_norm = SW_QK_HEAD, .norm = {.eps = 1e-5}, .rope = {{.theta = 1.2e7}}}, .read = sw_read_biases,
     .rope_class = "{\"rope_type\": \"llama3\", \"rope_theta\": 12000000, \"factor\": 8, \"original_max_position_embeddings\": 8192, "
                   "\"low_freq_factor\": 1, \"high_freq_factor\": 4}",
     .layers = layers, .names = names},
    {0}};
