/* See cuda_fuse.cuh. Calls are done at once only where none touches what another writes, other than as its kernel expects. */
#include "cuda_fuse.cuh"
#include "cuda_products.cuh"

namespace {

/* ---- a call of kernel F: its arguments, or false */
template <auto F, class... T> bool is(cuda_call *call, T &...to)
{
    if (call->kind != (const void *)F)
        return false;
    std::apply([&](auto &...kept) { ((to = kept.give()), ...); }, static_cast<cuda_step_kernel<F> *>(call)->args);
    return true;
}

/* Whether a and b are apart, or one place: each value is read by the thread that writes it. */
bool apart_or_same(const sw_tensor *a, const sw_tensor *b) { return cuda_apart(a, b) || cuda_same(*a, *b); }
bool same_shape(const sw_tensor *a, const sw_tensor *b)
{
    return a->ndim == b->ndim && !memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape);
}

/* ---- products of the same few rows: queries, keys and values; gates and what they are multiplied by, with that product, too */
bool is_linear(cuda_call *call, cuda_linear *l)
{
    double alpha, beta;
    if (!is<cuda_linear_fwd>(call, l->y, l->x, l->w, l->bias, alpha, beta) &&
        (!is<cuda_linear_rounded>(call, l->y, l->x, l->w, l->bias, alpha, beta) || l->w->dtype == SW_F8_E4M3)) /* it rounds */
        return false;
    return alpha == 1 && beta == 0 && l->x->shape[1] > 0 && l->w->shape[0] > 0 && cuda_few_rows(l->x->shape[0], l->w);
}

bool go_together(const cuda_linear &a, const cuda_linear &b)
{
    return cuda_same(*a.x, *b.x) && a.w->dtype == b.w->dtype && a.w->stride[0] == b.w->stride[0] && a.y->dtype == b.y->dtype &&
           (!a.bias || !b.bias || a.bias->dtype == b.bias->dtype) && cuda_apart(a.y, b.y) && cuda_apart(a.y, b.w) && cuda_apart(a.y, b.bias) &&
           cuda_apart(a.y, b.x) && cuda_apart(b.y, a.w) && cuda_apart(b.y, a.bias) && cuda_apart(b.y, a.x);
}

int products(sw_stream *s, const std::unique_ptr<cuda_call> *calls, size_t most)
{
    cuda_linear l[CUDA_TOGETHER];
    int n = 0;
    for (bool fits = true; fits && n < CUDA_TOGETHER && (size_t)n < most && is_linear(calls[n].get(), &l[n]);) {
        for (int k = 0; k < n; k++)
            fits = fits && go_together(l[k], l[n]);
        n += fits;
    }
    sw_tensor *y = NULL;
    const sw_tensor *gate, *up;
    int kind = SW_ACT_NONE;
    if (n == 2 && most > 2 && is<cuda_glu_fwd>(calls[2].get(), y, gate, up, kind)) {
        if (cuda_same(*gate, *l[1].y)) /* the products come in any order */
            std::swap(l[0], l[1]);
        bool fits = cuda_same(*gate, *l[0].y) && cuda_same(*up, *l[1].y) && same_shape(y, gate) && y->dtype == gate->dtype &&
                    (kind == SW_ACT_SILU || kind == SW_ACT_GELU_TANH) && l[0].w->shape[0] == l[1].w->shape[0] &&
                    !l[0].w->scales == !l[1].w->scales && (!l[0].w->scales || l[0].w->scales->wide == l[1].w->scales->wide);
        for (int k = 0; k < n; k++)
            fits = fits && apart_or_same(y, l[k].y) && cuda_apart(y, l[k].x) && cuda_apart(y, l[k].w) && cuda_apart(y, l[k].bias);
        y = fits ? y : NULL;
    }
    return n < 2 ? 0 : cuda_linear_together(s, l, n, y, kind) ? -1 : n + (y != NULL);
}

/* ---- a sum and the norm of it. A row's threads have read it when the first of them writes its norm: over what was added, too,
 * where that is the only row. */
bool is_norm(cuda_call *call, cuda_norm *n)
{
    *n = cuda_norm{};
    if (is<cuda_rmsnorm_fwd>(call, n->y, n->rstd, n->x, n->w, n->eps, n->offset))
        return true;
    n->centred = true;
    return is<cuda_layernorm_fwd>(call, n->y, n->mean, n->rstd, n->x, n->w, n->bias, n->eps, n->offset);
}

int sum_and_norm(sw_stream *s, const std::unique_ptr<cuda_call> *calls)
{
    sw_tensor *sum;
    const sw_tensor *a, *b;
    cuda_norm n;
    if (!is<cuda_add>(calls[0].get(), sum, a, b) || !is_norm(calls[1].get(), &n) || !cuda_same(*sum, *n.x) || sum->ndim != 2 ||
        a->dtype != sum->dtype || b->dtype != sum->dtype || !same_shape(sum, a) || !same_shape(sum, b) || !same_shape(sum, n.y))
        return 0;
    bool one = sum->shape[0] == 1, fits = apart_or_same(sum, a) && apart_or_same(sum, b) && (one || apart_or_same(n.y, a)) &&
                                          (one || apart_or_same(n.y, b));
    const sw_tensor *written[] = {sum, n.y, n.mean, n.rstd}, *read[] = {n.w, n.bias};
    for (int i = 0; i < 4; i++) {
        for (int k = 0; k < i; k++)
            fits = fits && cuda_apart(written[i], written[k]);
        for (const sw_tensor *r : read)
            fits = fits && cuda_apart(written[i], r);
        fits = fits && (i < 2 || (cuda_apart(written[i], a) && cuda_apart(written[i], b)));
    }
    return !fits ? 0 : cuda_add_norm(s, &n, a, b) ? -1 : 2;
}

/* ---- queries and keys that are turned */
int turned(sw_stream *s, const std::unique_ptr<cuda_call> *calls)
{
    cuda_moved of[2];
    const sw_tensor *cos[2], *sin[2];
    int mode[2], inverse[2];
    for (int i = 0; i < 2; i++)
        if (!is<cuda_rope>(calls[i].get(), of[i].y, of[i].x, cos[i], sin[i], mode[i], inverse[i]))
            return 0;
    bool fits = cuda_same(*cos[0], *cos[1]) && cuda_same(*sin[0], *sin[1]) && mode[0] == mode[1] && inverse[0] == inverse[1] &&
                of[0].x->dtype == of[1].x->dtype && of[0].x->shape[0] == of[1].x->shape[0] &&
                of[0].x->shape[2] == of[1].x->shape[2] && cuda_apart(of[0].y, of[1].y);
    for (int i = 0; i < 2; i++)
        fits = fits && cuda_apart(of[i].y, of[1 - i].x) && cuda_apart(of[i].y, cos[0]) && cuda_apart(of[i].y, sin[0]);
    return !fits ? 0 : cuda_rope_two(s, of, cos[0], sin[0], mode[0], inverse[0]) ? -1 : 2;
}

/* ---- keys and values that are stored */
int stored(sw_stream *s, const std::unique_ptr<cuda_call> *calls)
{
    cuda_moved of[2];
    const sw_tensor *ids[2];
    int acc[2];
    for (int i = 0; i < 2; i++)
        if (!is<cuda_scatter_rows>(calls[i].get(), of[i].y, of[i].x, ids[i], acc[i]) || acc[i])
            return 0;
    bool fits = cuda_same(*ids[0], *ids[1]) && cuda_apart(of[0].y, of[1].y);
    for (int i = 0; i < 2; i++)
        fits = fits && cuda_apart(of[i].y, of[1 - i].x) && cuda_apart(of[i].y, ids[0]);
    return !fits ? 0 : cuda_scatter_two(s, of, ids[0]) ? -1 : 2;
}

/* ---- what comes of dy on LoRA's way back */
int both_ways(sw_stream *s, const std::unique_ptr<cuda_call> *calls)
{
    sw_tensor *dt, *db;
    const sw_tensor *dy, *b, *dy_too, *t;
    double alpha, beta, alpha_too;
    cuda_skinny p, q;
    if (!is<cuda_linear_bwd_x>(calls[0].get(), dt, dy, b, alpha, beta) || !is<cuda_linear_bwd_w>(calls[1].get(), db, dy_too, t, alpha_too) ||
        !cuda_skinny_back_x(s, dt, dy, b, alpha, beta, &p) || !cuda_skinny_back_w(s, db, dy_too, t, alpha_too, &q) || !cuda_skinny_join(&p, &q))
        return 0;
    bool fits = cuda_apart(dt, db);
    for (const sw_tensor *read : {dy, b, t})
        fits = fits && cuda_apart(dt, read) && cuda_apart(db, read);
    return !fits ? 0 : cuda_skinny_multiply(s, &p) ? -1 : 2;
}

} // namespace

bool cuda_fills_shared(const std::unique_ptr<cuda_call> *calls, size_t n)
{
    bool fills = false;
    cuda_linear l;
    for (size_t i = 0; i < n; i++)
        fills = fills || (is_linear(calls[i].get(), &l) && !sw_is_quantised(l.w->dtype));
    return fills;
}

int cuda_fuse(sw_stream *s, const std::unique_ptr<cuda_call> *calls, size_t n)
{
    int (*const pairs[])(sw_stream *, const std::unique_ptr<cuda_call> *) = {sum_and_norm, turned, stored, both_ways};
    int done = products(s, calls, n);
    for (auto f : pairs)
        done = done || n < 2 ? done : f(s, calls);
    return done;
}
