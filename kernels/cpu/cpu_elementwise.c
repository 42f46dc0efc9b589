/* Filling, copying, arithmetic, activations, dropout. */
#include "cpu_isa.h"
#include "cpu_math.h"

#include "base/memory.h"

#include <math.h>

#define EACH_RUN(r) _Pragma("omp parallel for schedule(static) if ((r).values >= SW_PARALLEL)") \
    for (int64_t i = 0; i < (r).count; i++)

/* n copies of a value of `size` bytes: a size the compiler knows, or each is a call. */
static void repeat(char *to, const char *one, size_t size, int64_t n)
{
    static const char zeros[8];
    if (!memcmp(one, zeros, size))
        memset(to, 0, (size_t)n * size);
    else if (size == 4)
        for (int64_t j = 0; j < n; j++)
            memcpy(to + 4 * j, one, 4);
    else if (size == 2)
        for (int64_t j = 0; j < n; j++)
            memcpy(to + 2 * j, one, 2);
    else
        for (int64_t j = 0; j < n; j++)
            memcpy(to + (size_t)j * size, one, size);
}

int SW_CPU(fill)(sw_stream *s, sw_tensor *y, double value)
{
    (void)s;
    sw_runs r = sw_cut(y, sw_is_dense(y));
    if (sw_is_quantised(y->dtype) || ((y->dtype == SW_F8_E4M3 || y->dtype == SW_F8_E5M2) && value != 0))
        return sw_fail("fill: a tensor of type %s cannot be filled with %g", sw_dtypes[y->dtype].name, value);
    size_t size = (size_t)sw_dtypes[y->dtype].bytes;
    char one[8] = {0};
    sw_scalar_set(one, y->dtype, 0, value);
    EACH_RUN(r) {
        repeat(sw_at(y, sw_run_at(&r, y, i)), one, size, sw_run_length(&r, i));
    }
    return 0;
}

/* Where value i (row-major) of t lies. */
static int64_t element_at(const sw_tensor *t, int64_t i)
{
    int64_t at = 0;
    for (int d = t->ndim - 1; d >= 0; d--) {
        at += i % t->shape[d] * t->stride[d];
        i /= t->shape[d];
    }
    return at;
}

/* The last two dimensions in squares of 32, so that a transposed copy uses whole cache lines of both sides. */
static void copy_strided(sw_tensor *y, const sw_tensor *x)
{
    int n = y->ndim;
    int64_t cols = sw_width(y), rows = n > 1 ? y->shape[n - 2] : 1, planes = sw_numel(y) / (rows * cols);
    int64_t ys = n ? y->stride[n - 1] : 1, xs = n ? x->stride[n - 1] : 1;
    int64_t yr = n > 1 ? y->stride[n - 2] : 0, xr = n > 1 ? x->stride[n - 2] : 0;
    int64_t row_blocks = (rows + 31) / 32;
    bool same = x->dtype == y->dtype;
    size_t size = (size_t)sw_dtypes[y->dtype].bytes;
#pragma omp parallel for schedule(static) if (planes * rows * cols >= SW_PARALLEL)
    for (int64_t t = 0; t < planes * row_blocks; t++) {
        int64_t first = t % row_blocks * 32, last = SW_MIN(first + 32, rows), plane = t / row_blocks * rows * cols;
        int64_t yo = element_at(y, plane), xo = element_at(x, plane);
        for (int64_t c0 = 0; c0 < cols; c0 += 32)
            for (int64_t r = first; r < last; r++)
                for (int64_t c = c0; c < SW_MIN(c0 + 32, cols); c++) {
                    int64_t to = yo + r * yr + c * ys, from = xo + r * xr + c * xs;
                    if (same && size == 2)
                        ((uint16_t *)y->data)[to] = ((const uint16_t *)x->data)[from];
                    else if (same && size == 4)
                        ((uint32_t *)y->data)[to] = ((const uint32_t *)x->data)[from];
                    else if (same)
                        memcpy(sw_at(y, to), sw_at(x, from), size);
                    else
                        sw_scalar_set(y->data, y->dtype, to, sw_scalar_get(x->data, x->dtype, from));
                }
    }
}

int SW_CPU(copy)(sw_stream *s, sw_tensor *y, const sw_tensor *x)
{
    (void)s;
    int n = y->ndim;
    bool same = x->dtype == y->dtype, quantised = sw_is_quantised(x->dtype) || (sw_is_float8(x->dtype) && !same);
    if (!sw_numel(y))
        return 0;
    bool y_rows = !n || y->stride[n - 1] == 1 || y->shape[n - 1] == 1, x_rows = !n || x->stride[n - 1] == 1 || x->shape[n - 1] == 1;
    bool rows = x_rows && (y_rows || quantised), computable = sw_is_float(y->dtype) && (sw_is_float(x->dtype) || quantised);
    if (!rows || (!same && !computable)) {
        copy_strided(y, x);
        return 0;
    }
    sw_runs r = sw_cut(y, sw_is_dense(y) && sw_is_dense(x));
    EACH_RUN(r) {
        float buf[SW_RUN];
        int64_t m = sw_run_length(&r, i);
        void *to = y_rows ? sw_at(y, sw_run_at(&r, y, i)) : NULL;
        int64_t from = sw_run_at(&r, x, i);
        if (!y_rows) {
            sw_load_any(x, from, m, buf);
            for (int64_t j = 0; j < m; j++)
                sw_scalar_set(y->data, y->dtype, sw_row_at(y, i / r.per_row) + (sw_run_column(&r, i) + j) * y->stride[n - 1], buf[j]);
        } else if (same)
            memmove(to, sw_at(x, from), sw_dtype_bytes(x->dtype, m));
        else
            sw_store(to, y->dtype, m, sw_load_any(x, from, m, buf));
    }
    return 0;
}

int SW_CPU(axpby)(sw_stream *s, sw_tensor *y, double alpha, const sw_tensor *x, double beta)
{
    (void)s;
    sw_runs r = sw_cut(y, sw_is_dense(y) && sw_is_dense(x));
    float a = (float)alpha, b = (float)beta;
    EACH_RUN(r) {
        float xb[SW_RUN], yb[SW_RUN], out[SW_RUN];
        int64_t n = sw_run_length(&r, i);
        const float *xv = sw_run_load(&r, x, i, xb);
        if (b == 0) {
            for (int64_t j = 0; j < n; j++)
                out[j] = a * xv[j];
        } else {
            const float *yv = sw_run_load(&r, y, i, yb);
            for (int64_t j = 0; j < n; j++)
                out[j] = a * xv[j] + b * yv[j];
        }
        sw_run_store(&r, y, i, out);
    }
    return 0;
}

int SW_CPU(add)(sw_stream *s, sw_tensor *y, const sw_tensor *a, const sw_tensor *b)
{
    (void)s;
    sw_runs r = sw_cut(y, sw_is_dense(y) && sw_is_dense(a) && sw_is_dense(b));
    EACH_RUN(r) {
        float ab[SW_RUN], bb[SW_RUN], out[SW_RUN];
        int64_t n = sw_run_length(&r, i);
        const float *av = sw_run_load(&r, a, i, ab), *bv = sw_run_load(&r, b, i, bb);
        for (int64_t j = 0; j < n; j++)
            out[j] = av[j] + bv[j];
        sw_run_store(&r, y, i, out);
    }
    return 0;
}

int SW_CPU(mul)(sw_stream *s, sw_tensor *y, const sw_tensor *a, const sw_tensor *b, int acc)
{
    (void)s;
    bool row = b->ndim == 1 && y->ndim != 1;
    sw_runs r = sw_cut(y, !row && sw_is_dense(y) && sw_is_dense(a) && sw_is_dense(b));
    EACH_RUN(r) {
        float ab[SW_RUN], bb[SW_RUN], yb[SW_RUN], out[SW_RUN];
        int64_t n = sw_run_length(&r, i);
        const float *av = sw_run_load(&r, a, i, ab);
        const float *bv = row ? sw_load(sw_at(b, sw_run_column(&r, i)), b->dtype, n, bb) : sw_run_load(&r, b, i, bb);
        if (acc) {
            const float *yv = sw_run_load(&r, y, i, yb);
            for (int64_t j = 0; j < n; j++)
                out[j] = yv[j] + av[j] * bv[j];
        } else {
            for (int64_t j = 0; j < n; j++)
                out[j] = av[j] * bv[j];
        }
        sw_run_store(&r, y, i, out);
    }
    return 0;
}

/* ---- activations: one loop a kind, chosen outside the loop */

#define EACH_ACT(X) X(SW_ACT_SILU) X(SW_ACT_GELU) X(SW_ACT_GELU_TANH) X(SW_ACT_RELU) X(SW_ACT_RELU2) X(SW_ACT_SIGMOID) \
    X(SW_ACT_TANH) X(SW_ACT_GELU_QUICK) X(SW_ACT_ELU) X(SW_ACT_SOFTPLUS) X(SW_ACT_EXP) X(SW_ACT_SQRT) X(SW_ACT_NONE)

static void act_values(float *restrict y, const float *restrict x, int64_t n, int kind)
{
    switch (kind) {
#define X(k)                          \
    case k:                           \
        for (int64_t j = 0; j < n; j++) \
            y[j] = sw_act_value(x[j], k);   \
        break;
        EACH_ACT(X)
#undef X
    }
}

static void act_slopes(float *restrict y, const float *restrict x, int64_t n, int kind)
{
    switch (kind) {
#define X(k)                               \
    case k:                                \
        for (int64_t j = 0; j < n; j++)    \
            y[j] = sw_act_slope(x[j], k);  \
        break;
        EACH_ACT(X)
#undef X
    }
}

int SW_CPU(act_fwd)(sw_stream *s, sw_tensor *y, const sw_tensor *x, int kind)
{
    (void)s;
    sw_runs r = sw_cut(y, sw_is_dense(y) && sw_is_dense(x));
    EACH_RUN(r) {
        float xb[SW_RUN], out[SW_RUN];
        act_values(out, sw_run_load(&r, x, i, xb), sw_run_length(&r, i), kind);
        sw_run_store(&r, y, i, out);
    }
    return 0;
}

/* dx = out (+ dx) */
static void store_gradient(const sw_runs *r, sw_tensor *dx, int64_t i, float *out, int acc)
{
    if (acc) {
        float db[SW_RUN];
        const float *dv = sw_run_load(r, dx, i, db);
        int64_t n = sw_run_length(r, i);
        for (int64_t j = 0; j < n; j++)
            out[j] += dv[j];
    }
    sw_run_store(r, dx, i, out);
}

int SW_CPU(act_bwd)(sw_stream *s, sw_tensor *dx, const sw_tensor *dy, const sw_tensor *x, int kind, int acc)
{
    (void)s;
    sw_runs r = sw_cut(dx, sw_is_dense(dx) && sw_is_dense(dy) && sw_is_dense(x));
    EACH_RUN(r) {
        float xb[SW_RUN], yb[SW_RUN], out[SW_RUN];
        int64_t n = sw_run_length(&r, i);
        const float *yv = sw_run_load(&r, dy, i, yb);
        act_slopes(out, sw_run_load(&r, x, i, xb), n, kind);
        for (int64_t j = 0; j < n; j++)
            out[j] *= yv[j];
        store_gradient(&r, dx, i, out, acc);
    }
    return 0;
}

int SW_CPU(glu_fwd)(sw_stream *s, sw_tensor *y, const sw_tensor *gate, const sw_tensor *up, int kind)
{
    (void)s;
    sw_runs r = sw_cut(y, sw_is_dense(y) && sw_is_dense(gate) && sw_is_dense(up));
    EACH_RUN(r) {
        float gb[SW_RUN], ub[SW_RUN], out[SW_RUN];
        int64_t n = sw_run_length(&r, i);
        const float *uv = sw_run_load(&r, up, i, ub);
        act_values(out, sw_run_load(&r, gate, i, gb), n, kind);
        for (int64_t j = 0; j < n; j++)
            out[j] *= uv[j];
        sw_run_store(&r, y, i, out);
    }
    return 0;
}

int SW_CPU(glu_bwd)(sw_stream *s, sw_tensor *dgate, sw_tensor *dup, const sw_tensor *dy, const sw_tensor *gate,
                    const sw_tensor *up, int kind)
{
    (void)s;
    sw_runs r = sw_cut(dy, sw_is_dense(dgate) && sw_is_dense(dup) && sw_is_dense(dy) && sw_is_dense(gate) && sw_is_dense(up));
    EACH_RUN(r) {
        float gb[SW_RUN], ub[SW_RUN], yb[SW_RUN], dg[SW_RUN], du[SW_RUN];
        int64_t n = sw_run_length(&r, i);
        const float *gv = sw_run_load(&r, gate, i, gb), *uv = sw_run_load(&r, up, i, ub), *yv = sw_run_load(&r, dy, i, yb);
        if (kind == SW_ACT_SILU) { /* the common one shares its exponential */
            for (int64_t j = 0; j < n; j++) {
                float sigmoid = sw_sigmoid(gv[j]), y = yv[j];
                du[j] = y * gv[j] * sigmoid;
                dg[j] = y * uv[j] * (sigmoid + gv[j] * sigmoid * (1 - sigmoid));
            }
        } else {
            act_values(du, gv, n, kind);
            act_slopes(dg, gv, n, kind);
            for (int64_t j = 0; j < n; j++) {
                du[j] *= yv[j];
                dg[j] *= yv[j] * uv[j];
            }
        }
        sw_run_store(&r, dgate, i, dg);
        sw_run_store(&r, dup, i, du);
    }
    return 0;
}

int SW_CPU(softcap_fwd)(sw_stream *s, sw_tensor *y, const sw_tensor *x, double cap)
{
    (void)s;
    sw_runs r = sw_cut(y, sw_is_dense(y) && sw_is_dense(x));
    float c = (float)cap, inverse = (float)(1 / cap);
    EACH_RUN(r) {
        float xb[SW_RUN], out[SW_RUN];
        int64_t n = sw_run_length(&r, i);
        const float *xv = sw_run_load(&r, x, i, xb);
        for (int64_t j = 0; j < n; j++)
            out[j] = c * sw_tanh(xv[j] * inverse);
        sw_run_store(&r, y, i, out);
    }
    return 0;
}

int SW_CPU(softcap_bwd)(sw_stream *s, sw_tensor *dx, const sw_tensor *dy, const sw_tensor *y, double cap, int acc)
{
    (void)s;
    sw_runs r = sw_cut(dx, sw_is_dense(dx) && sw_is_dense(dy) && sw_is_dense(y));
    float inverse = (float)(1 / cap);
    EACH_RUN(r) {
        float db[SW_RUN], yb[SW_RUN], out[SW_RUN];
        int64_t n = sw_run_length(&r, i);
        const float *dv = sw_run_load(&r, dy, i, db), *yv = sw_run_load(&r, y, i, yb);
        for (int64_t j = 0; j < n; j++) {
            float t = yv[j] * inverse;
            out[j] = dv[j] * (1 - t * t);
        }
        store_gradient(&r, dx, i, out, acc);
    }
    return 0;
}

/* Random words of the SW_RUN elements from block `first` on. The four words of a block go to four arrays, so that the rounds
 * run on whole vectors of blocks. */
static void random_run(uint32_t word[4][SW_RUN / 4], const sw_rng *rng, uint64_t first)
{
    for (int b = 0; b < SW_RUN / 4; b++) {
        uint32_t w[4];
        sw_philox(rng, first + (uint64_t)b, w);
        word[0][b] = w[0];
        word[1][b] = w[1];
        word[2][b] = w[2];
        word[3][b] = w[3];
    }
}

int SW_CPU(dropout)(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *keys, double p, const sw_rng *rng, int acc)
{
    (void)s;
    sw_runs r = sw_cut(x, false);
    const int64_t *key = keys ? keys->data : NULL;
    if (x->ndim != 2 || (keys && keys->shape[0] != x->shape[0]))
        return sw_fail("dropout: rows with a key each are needed");
    /* uniform = (word >> 8) / 2^24 >= p, as integers */
    uint32_t threshold = p >= 1 ? 1u << 24 : (uint32_t)ceil(p * 0x1p24);
    float scale = p >= 1 ? 0 : (float)(1 / (1 - p));
    EACH_RUN(r) {
        uint32_t word[4][SW_RUN / 4];
        float xb[SW_RUN + 3], out[SW_RUN + 3], yb[SW_RUN];
        int64_t n = sw_run_length(&r, i);
        const float *xv = sw_run_load(&r, x, i, xb);
        int64_t row = key ? key[i / r.per_row] : i / r.per_row;
        sw_rng own = sw_rng_row(rng, row);
        random_run(word, &own, sw_rng_row_block(row, (uint64_t)sw_run_column(&r, i) / 4));
        for (int64_t j = 0; j < n; j++)
            out[j] = word[j & 3][j >> 2] >> 8 >= threshold ? xv[j] * scale : 0;
        if (acc) {
            const float *yv = sw_run_load(&r, y, i, yb);
            for (int64_t j = 0; j < n; j++)
                out[j] += yv[j];
        }
        sw_run_store(&r, y, i, out);
    }
    return 0;
}

/* Decoupled weight decay Adam over flat buffers. */
int SW_CPU(adamw)(sw_stream *s, sw_tensor *p, sw_tensor *low, const sw_tensor *g, sw_tensor *m, sw_tensor *v, const sw_adamw *o)
{
    (void)s;
    sw_runs r = sw_cut(p, true);
    float b1 = (float)o->beta1, b2 = (float)o->beta2, c1 = (float)(1 - o->beta1), c2 = (float)(1 - o->beta2);
    float rate = (float)(o->lr / (1 - pow(o->beta1, (double)o->step))), keep = (float)(o->lr * o->decay), eps = (float)o->eps;
    float root = (float)(1 / sqrt(1 - pow(o->beta2, (double)o->step))), scale = (float)o->grad_scale;
    EACH_RUN(r) {
        int64_t n = sw_run_length(&r, i), at = i * SW_RUN;
        float *restrict pv = (float *)p->data + at, *restrict mv = (float *)m->data + at, *restrict vv = (float *)v->data + at;
        const float *restrict gv = (const float *)g->data + at;
        for (int64_t j = 0; j < n; j++) {
            float gj = gv[j] * scale, mj = b1 * mv[j] + c1 * gj, vj = b2 * vv[j] + c2 * gj * gj;
            mv[j] = mj;
            vv[j] = vj;
            pv[j] -= rate * mj / (sqrtf(vj) * root + eps) + keep * pv[j];
        }
        if (low)
            sw_store(sw_at(low, at), low->dtype, n, pv);
    }
    return 0;
}
