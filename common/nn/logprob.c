#include "nn/logprob.h"

#include <assert.h>
#include <string.h>

/* Rows at a time: logits in f32 of a chunk stay around 50 MB with a vocabulary of 50,000, near a processor's caches. A GPU's products
 * are bound by reading the head's weights below some 500 rows: there, 256 MB. */
static int64_t chunk_rows(const sw_ctx *c, int64_t vocabulary, int64_t n)
{
    int64_t rows = ((int64_t)(c->device->host ? 12 : 64) << 20) / SW_MAX(vocabulary, 1);
    rows = SW_MAX(rows / 32 * 32, 32);
    return SW_MIN(rows, SW_MAX(n, 1));
}

/* linear, scale, softcap: logits f32 [n, V] */
static sw_var *logits_of(sw_ctx *c, const sw_head *head, sw_var *h)
{
    sw_dtype product = c->product;
    c->product = SW_F32;
    sw_var *y = head->product ? head->product(c, head->linear, h) : sw_linear_forward(c, head->linear, h);
    c->product = product;
    if (y && head->scale != 0 && head->scale != 1)
        y = sw_scale(c, y, head->scale);
    if (y && head->softcap > 0)
        y = sw_softcap(c, y, head->softcap);
    return y;
}

sw_var *sw_logits(sw_ctx *c, sw_var *hidden, const sw_head *head)
{
    bool recording = c->recording;
    c->recording = false;
    sw_scope s = sw_scope_begin(c);
    sw_var *y = sw_scope_return(c, s, logits_of(c, head, hidden));
    c->recording = recording;
    return y;
}

typedef struct head_run {
    const sw_head *head;
    sw_var *hidden, *targets, *lse;
    sw_var *dhidden;  /* made in the forward pass when the coming gradient was known */
    bool trains_head; /* a parameter inside the head trains */
    sw_var *keys;     /* of the rows of hidden, or NULL */
    sw_head copy;
} head_run;

/* One chunk: values, and with dlogp the way back through the head. */
static int run_chunk(sw_ctx *c, head_run *r, int64_t at, int64_t n, sw_logprobs *out, const sw_tensor *dlogp, const sw_tensor *dmean,
                     sw_var *dhidden)
{
    const sw_kernels *k = sw_k(c);
    sw_scope scope = sw_scope_begin(c);
    size_t mark = sw_tape_mark(c);
    bool recording = c->recording;
    sw_tape_hooks hooks = c->hooks;
    sw_var *keys = c->keys;
    c->keys = r->keys ? sw_row_range(c, r->keys, at, n) : NULL;
    c->hooks.final_grad = NULL; /* a chunk's gradient is not the last word on a parameter of the head */
    c->recording = dlogp != NULL;
    sw_var *h = sw_borrow(c, sw_row_view(&r->hidden->t, at, n));
    h->needs_grad = dhidden != NULL;
    sw_var *y = logits_of(c, r->head, h);
    int rc = y ? 0 : -1;
    sw_tensor targets = sw_row_view(&r->targets->t, at, n), lse = sw_row_view(&r->lse->t, at, n);
    if (!rc && out) {
        sw_tensor logp = sw_row_view(&out->logp->t, at, n), best = sw_row_view(&out->best->t, at, n);
        sw_tensor mean = out->mean_logp ? sw_row_view(&out->mean_logp->t, at, n) : (sw_tensor){0};
        rc = k->xent_fwd(sw_s(c), &logp, out->mean_logp ? &mean : NULL, &lse, &best, &y->t, &targets);
    }
    if (!rc && dlogp && y->needs_grad) {
        sw_var *dy = sw_tmp2(c, c->compute, n, y->t.shape[1]);
        rc = dy ? k->xent_bwd(sw_s(c), &dy->t, &y->t, &lse, &targets, dlogp, dmean) : -1;
        if (!rc) {
            sw_seed_grad(c, y, dy->t);
            rc = sw_backward_to(c, mark);
        }
        if (!rc && dhidden && h->grad) {
            sw_tensor into = sw_row_view(&dhidden->t, at, n);
            rc = k->copy(sw_s(c), &into, &h->grad->t);
        }
        sw_drop_grad(c, h);
    }
    c->recording = recording;
    c->hooks = hooks;
    c->keys = keys;
    sw_scope_end(c, scope, NULL, 0);
    return rc;
}

static int logprobs_back(sw_ctx *c, sw_node *n)
{
    head_run *r = n->data;
    sw_var *hidden = n->in[0];
    if (r->dhidden) {
        int acc;
        sw_tensor *g = sw_grad(c, hidden, &acc);
        return acc == -2 || (g && sw_k(c)->axpby(sw_s(c), g, 1, &r->dhidden->t, acc)) ? -1 : 0;
    }
    if (!n->out[0]->grad && !(n->out[1] && n->out[1]->grad))
        return 0;
    int64_t rows = hidden->t.shape[0], chunk = chunk_rows(c, r->head->linear->out, rows);
    sw_var *d = hidden->needs_grad ? sw_like(c, hidden) : NULL, *zero = NULL;
    if (hidden->needs_grad && !d)
        return -1;
    if (!n->out[0]->grad && (!(zero = sw_tmp1(c, SW_F32, rows)) || sw_k(c)->fill(sw_s(c), &zero->t, 0)))
        return -1;
    for (int64_t at = 0; at < rows; at += chunk) {
        int64_t m = SW_MIN(chunk, rows - at);
        sw_tensor dlogp = sw_row_view(zero ? &zero->t : &n->out[0]->grad->t, at, m), dmean;
        bool mean = n->out[1] && n->out[1]->grad;
        if (mean)
            dmean = sw_row_view(&n->out[1]->grad->t, at, m);
        if (run_chunk(c, r, at, m, NULL, &dlogp, mean ? &dmean : NULL, d))
            return -1;
    }
    if (!d)
        return 0;
    int acc;
    sw_tensor *g = sw_grad(c, hidden, &acc);
    return g ? sw_k(c)->axpby(sw_s(c), g, 1, &d->t, acc) : -1;
}

static bool head_trains(const sw_linear *l)
{
    return l->w->v.needs_grad || (l->bias && l->bias->v.needs_grad) || l->adapter;
}

int sw_token_logprobs(sw_ctx *c, sw_var *hidden, const sw_head *head, const sw_logprob_request *q, sw_logprobs *out)
{
    const char *outer = c->where;
    c->where = head->linear->name;
    int64_t n = hidden->t.shape[0], chunk = chunk_rows(c, head->linear->out, n);
    head_run *r = sw_ctx_alloc(c, sizeof *r);
    r->copy = *head;
    r->head = &r->copy;
    r->hidden = hidden;
    r->keys = c->keys;
    r->targets = q->targets;
    r->lse = sw_tmp1(c, SW_F32, n);
    r->trains_head = head_trains(head->linear);
    *out = (sw_logprobs){sw_tmp1(c, SW_F32, n), q->want_mean ? sw_tmp1(c, SW_F32, n) : NULL, sw_tmp1(c, SW_I32, n)};
    if (!r->targets || !r->lse || !out->logp || (q->want_mean && !out->mean_logp) || !out->best)
        return -1;
    bool wants = c->recording && (hidden->needs_grad || r->trains_head), known = wants && q->dlogp;
    sw_var *dlogp = NULL, *dmean = NULL;
    if (known) {
        dlogp = sw_from_host(c, SW_F32, 1, &n, q->dlogp);
        dmean = q->dmean ? sw_from_host(c, SW_F32, 1, &n, q->dmean) : NULL;
        r->dhidden = hidden->needs_grad ? sw_like(c, hidden) : NULL;
        if (!dlogp || (q->dmean && !dmean) || (hidden->needs_grad && !r->dhidden))
            return -1;
    }
    for (int64_t at = 0; at < n; at += chunk) {
        int64_t m = SW_MIN(chunk, n - at);
        sw_tensor dl, dm;
        if (known)
            dl = sw_row_view(&dlogp->t, at, m);
        if (dmean)
            dm = sw_row_view(&dmean->t, at, m);
        if (run_chunk(c, r, at, m, out, known ? &dl : NULL, dmean ? &dm : NULL, r->dhidden))
            return -1;
    }
    c->where = outer;
    if (!wants)
        return 0;
    if (known && !r->dhidden)
        return 0; /* only the head trains, and it has had its gradient */
    sw_var *inside = sw_borrow(c, hidden->t); /* stands for the head's adapters */
    inside->needs_grad = r->trains_head;
    return sw_record(c, (sw_node){.op = "logprobs", .back = logprobs_back, .in = {hidden, &head->linear->w->v, inside},
                                  .out = {out->logp, out->mean_logp}, .data = r,
                                  .saved = {hidden, r->targets, r->lse, r->dhidden}})
               ? 0
               : -1;
}
