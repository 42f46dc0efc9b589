/* RMSNorm and LayerNorm over the last dimension: a row of threads for each row of values. Bound by memory: forward 2, the
 * gradient of x 3 (4 with acc) passes over a row, of which re-reads come from the caches; 8192 x 4096 in bf16: forward
 * 0.04 ms, backward 0.06 ms, and as much again for the gradients of weights. */
#include "cuda_fuse.cuh"

namespace {

struct norm_weights {
    const void *w, *b;
    int w_type, b_type;
    float offset;
};

/* What a thread has of a row: the first KEPT runs in registers, as they lie, asked for all at once; without any, each is read
 * where it is needed. */
template <int TYPE, int KEPT> struct row_part {
    stored_run<KEPT ? TYPE : (int)SW_F16> run[KEPT ? KEPT : 1];
    __device__ __forceinline__ void fetch(const void *p, int64_t at, int64_t width)
    {
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
            int64_t c = ((int64_t)threadIdx.x + (int64_t)k * blockDim.x) * RUN;
            if (p && c < width)
                run[k].load(p, at + c);
        }
    }
    __device__ __forceinline__ void get(float (&v)[RUN], int64_t k, const void *p, int type, int64_t i, int n) const
    {
        if constexpr (KEPT)
            run[k].values(v);
        else
            load_run(v, p, type, i, n);
    }
};

template <int TYPE, int KEPT>
__device__ __forceinline__ void get_factor(float (&v)[RUN], const row_part<TYPE, KEPT> &weights, int64_t k, const norm_weights &p, int64_t c, int n)
{
    if (p.w)
        weights.get(v, k, p.w, p.w_type, c, n);
#pragma unroll
    for (int i = 0; i < RUN; i++)
        v[i] = p.w ? p.offset + v[i] : 1;
}

/* Run k of a thread, n values from column c on: the whole row of threads goes round together, so that all of it meets. */
#define FOR_RUNS(k, c, n)                                                                                                   \
    _Pragma("unroll") for (int64_t k = 0, c = (int64_t)threadIdx.x * RUN, n = 0;                                            \
                           (KEPT == 0 || k < KEPT) && (n = g.width - c < RUN ? g.width - c : (int64_t)RUN) > 0;             \
                           k++, c += (int64_t)blockDim.x * RUN)

/* What x is first made of: x = a + b. */
struct norm_sum {
    rows_of a, b;
};

/* KEPT: rows of TYPE, as are the weights, in whole aligned runs, of which a thread has so many at most. ADDED: x is made here.
 * 8192 x 4096 in bf16: 134 MB, 0.04 ms; 0.1 GFLOP. One row, with the sum: 41 KB, 0.1 us; the launch costs more. */
template <bool CENTRED, bool ADDED, int TYPE, int KEPT>
__global__ void __launch_bounds__(512)
norm_forward(rows_shape g, rows_of y, rows_of x, norm_weights p, float *mean, float *rstd, float eps, norm_sum from)
{
    __shared__ float space[32];
    begin_early();
    int64_t r = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    bool here = r < g.rows;
    int64_t at = here ? row_start(g, x, r) : 0;
    float v[RUN], f[RUN], centre = 0, squares = 0;
    row_part<TYPE, KEPT> row, factor;
    if (here) {
        int64_t a = ADDED ? row_start(g, from.a, r) : at, b = ADDED ? row_start(g, from.b, r) : 0;
        row.fetch(ADDED ? from.a.data : x.data, a, g.width);
        factor.fetch(p.w, 0, g.width);
        if constexpr (ADDED) {
            row_part<TYPE, KEPT> other;
            other.fetch(from.b.data, b, g.width);
            FOR_RUNS(k, c, n) {
                row.get(v, k, from.a.data, x.type, a + c, (int)n);
                other.get(f, k, from.b.data, x.type, b + c, (int)n);
#pragma unroll
                for (int i = 0; i < RUN; i++)
                    v[i] += f[i];
                store_run(x.data, x.type, at + c, (int)n, v, KEPT != 0);
                if constexpr (KEPT != 0) /* as it is rounded; without any the thread reads what it has written */
                    store_run(row.run[k].w, TYPE, 0, RUN, v, true);
            }
        }
    }
    if (CENTRED) {
        float sum = 0;
        if (here)
            FOR_RUNS(k, c, n) {
                row.get(v, k, x.data, x.type, at + c, (int)n);
#pragma unroll
                for (int i = 0; i < RUN; i++)
                    sum += v[i];
            }
        centre = row_sum(sum, space) / (float)g.width;
    }
    if (here)
        FOR_RUNS(k, c, n) {
            row.get(v, k, x.data, x.type, at + c, (int)n);
#pragma unroll
            for (int i = 0; i < RUN; i++)
                squares += KEPT || i < n ? (v[i] - centre) * (v[i] - centre) : 0;
        }
    float inverse = 1 / sqrtf(row_sum(squares, space) / (float)g.width + eps);
    if (!here)
        return;
    int64_t to = row_start(g, y, r);
    FOR_RUNS(k, c, n) {
        row.get(v, k, x.data, x.type, at + c, (int)n);
        get_factor(f, factor, k, p, c, (int)n);
#pragma unroll
        for (int i = 0; i < RUN; i++)
            v[i] = (v[i] - centre) * inverse * f[i];
        if (p.b) {
            load_run(f, p.b, p.b_type, c, (int)n);
#pragma unroll
            for (int i = 0; i < RUN; i++)
                v[i] += f[i];
        }
        store_run(y.data, y.type, to + c, (int)n, v, KEPT != 0);
    }
    if (threadIdx.x == 0) {
        if (mean)
            mean[r] = centre;
        if (rstd)
            rstd[r] = inverse;
    }
}

/* With n = (x - mean) rstd and g = dy (offset + w): dx = rstd (g - mean(g) - n mean(g n)); RMSNorm has neither mean. KEPT as above.
 * 8192 x 4096 in bf16: 201 MB, 0.06 ms, with acc 268 MB, 0.08 ms; 0.3 GFLOP. */
template <bool CENTRED, int TYPE, int KEPT>
__global__ void __launch_bounds__(512)
norm_backward(rows_shape g, rows_of dx, rows_of dy, rows_of x, norm_weights p, const float *mean, const float *rstd, int acc)
{
    __shared__ float space[32];
    begin_early();
    int64_t r = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    bool here = r < g.rows;
    int64_t at = here ? row_start(g, x, r) : 0, from = here ? row_start(g, dy, r) : 0, to = here ? row_start(g, dx, r) : 0;
    float v[RUN], d[RUN], f[RUN], centre = here && CENTRED ? mean[r] : 0, inverse = here ? rstd[r] : 0, dot = 0, total = 0;
    row_part<TYPE, KEPT> row, given, factor, before;
    if (here) {
        row.fetch(x.data, at, g.width);
        given.fetch(dy.data, from, g.width);
        factor.fetch(p.w, 0, g.width);
        before.fetch(acc ? dx.data : NULL, to, g.width);
        FOR_RUNS(k, c, n) {
            row.get(v, k, x.data, x.type, at + c, (int)n);
            given.get(d, k, dy.data, dy.type, from + c, (int)n);
            get_factor(f, factor, k, p, c, (int)n);
#pragma unroll
            for (int i = 0; i < RUN; i++) {
                d[i] *= f[i]; /* 0 where there is no value */
                dot += d[i] * (v[i] - centre) * inverse;
                total += d[i];
            }
        }
    }
    dot = row_sum(dot, space) / (float)g.width;
    total = CENTRED ? row_sum(total, space) / (float)g.width : 0;
    if (!here)
        return;
    FOR_RUNS(k, c, n) {
        row.get(v, k, x.data, x.type, at + c, (int)n);
        given.get(d, k, dy.data, dy.type, from + c, (int)n);
        get_factor(f, factor, k, p, c, (int)n);
#pragma unroll
        for (int i = 0; i < RUN; i++)
            d[i] = inverse * (d[i] * f[i] - total - (v[i] - centre) * inverse * dot);
        if (acc) {
            before.get(v, k, dx.data, dx.type, to + c, (int)n);
#pragma unroll
            for (int i = 0; i < RUN; i++)
                d[i] += v[i];
        }
        store_run(dx.data, dx.type, to + c, (int)n, d, KEPT != 0);
    }
}

/* Terms of dw (dy times the normalised value) and of db (dy). */
struct norm_terms {
    static const int outputs = 2;
    rows_of dy, x;
    const float *mean, *rstd;
    SW_TENSORS(&dy, &x)
    __device__ void operator()(const rows_shape &g, int64_t r, int64_t c, int n, float (&a)[RUN], float (&b)[RUN]) const
    {
        float v[RUN], d[RUN], centre = mean ? mean[r] : 0, inverse = rstd[r];
        load_run(v, x, row_start(g, x, r) + c, n);
        load_run(d, dy, row_start(g, dy, r) + c, n);
#pragma unroll
        for (int i = 0; i < RUN; i++) {
            a[i] += d[i] * ((v[i] - centre) * inverse);
            b[i] += d[i];
        }
    }
};

/* Threads of a row and rows of a block: a warp, which waits for no other, or as many as have two runs each. */
enum { WARP_RUNS = 4, BLOCK_RUNS = 2, MOST_THREADS = 512 };
dim3 block_for(const rows_shape &g)
{
    if (g.width <= 32 * RUN * WARP_RUNS)
        return dim3(32, 4);
    unsigned x = 64;
    while (x < MOST_THREADS && (int64_t)x * RUN * BLOCK_RUNS < g.width)
        x *= 2;
    return dim3(x);
}

/* call(type, runs) with what norm_forward and norm_backward are compiled for: rows of 16 bits whose runs are whole and fit. */
template <class C> void with_kept(const rows_shape &g, const rows_of *of, int n, const norm_weights &p, const dim3 &block, C call)
{
    bool fits = g.width % RUN == 0 && g.width <= (int64_t)block.x * RUN * (block.x == 32 ? WARP_RUNS : BLOCK_RUNS) && of[0].type != SW_F32 &&
                (!p.w || (p.w_type == of[0].type && (uintptr_t)p.w % 16 == 0));
    for (int i = 0; i < n; i++) {
        fits = fits && of[i].type == of[0].type && (uintptr_t)of[i].data % 16 == 0;
        for (int d = 0; d < g.outer; d++)
            fits = fits && of[i].stride[d] % RUN == 0;
    }
    std::integral_constant<int, SW_BF16> bf16;
    std::integral_constant<int, SW_F16> f16;
    std::integral_constant<int, WARP_RUNS> of_warp;
    std::integral_constant<int, BLOCK_RUNS> of_block;
    if (!fits)
        call(std::integral_constant<int, ANY_TYPE>(), std::integral_constant<int, 0>());
    else if (of[0].type == SW_BF16)
        block.x == 32 ? call(bf16, of_warp) : call(bf16, of_block);
    else
        block.x == 32 ? call(f16, of_warp) : call(f16, of_block);
}

norm_weights weights_of(const sw_tensor *w, const sw_tensor *b, double offset)
{
    return norm_weights{w ? w->data : NULL, b ? b->data : NULL, w ? (int)w->dtype : 0, b ? (int)b->dtype : 0, (float)offset};
}

float *floats(const sw_tensor *t) { return t ? (float *)t->data : NULL; }

/* a, b: what o.x is made of, or NULL. */
template <bool CENTRED> int forward(sw_stream *s, const cuda_norm &o, const char *name, const sw_tensor *a = NULL, const sw_tensor *b = NULL)
{
    const sw_tensor *t[] = {o.y, o.x, a, b};
    const int n = a ? 4 : 2;
    rows_of of[4];
    rows_shape g = cuda_rows(of, t, n, true);
    if (!g.rows || !g.width)
        return 0;
    dim3 block = block_for(g);
    unsigned blocks = (unsigned)((g.rows + block.y - 1) / block.y);
    norm_weights p = weights_of(o.w, o.bias, o.offset);
    with_kept(g, of, n, p, block, [&](auto type, auto kept) {
        constexpr int TYPE = decltype(type)::value, KEPT = decltype(kept)::value;
        if (a)
            SW_LAUNCH_EARLY((norm_forward<CENTRED, true, TYPE, KEPT>), blocks, block, 0, s, g, of[0], of[1], p, floats(o.mean),
                            floats(o.rstd), (float)o.eps, norm_sum{of[2], of[3]});
        else
            SW_LAUNCH_EARLY((norm_forward<CENTRED, false, TYPE, KEPT>), blocks, block, 0, s, g, of[0], of[1], p, floats(o.mean),
                            floats(o.rstd), (float)o.eps, norm_sum{});
    });
    return cuda_launched(s, name);
}

template <bool CENTRED>
int backward(sw_stream *s, sw_tensor *dx, sw_tensor *dw, sw_tensor *db, const sw_tensor *dy, const sw_tensor *x, const norm_weights &p,
             const sw_tensor *mean, const sw_tensor *rstd, int acc, const char *name)
{
    const sw_tensor *t[] = {dx, dy, x};
    rows_of of[3];
    if (dw || db) { /* first: dx may be dy's memory */
        const sw_tensor *u[] = {dy, x};
        rows_of in[2];
        rows_shape g = cuda_rows(in, u, 2, true);
        if (cuda_column_sums(s, g, norm_terms{in[0], in[1], floats(mean), floats(rstd)}, floats(dw), floats(db), name))
            return -1;
    }
    if (!dx)
        return 0;
    rows_shape g = cuda_rows(of, t, 3, true);
    if (!g.rows || !g.width)
        return 0;
    dim3 block = block_for(g);
    with_kept(g, of, 3, p, block, [&](auto type, auto kept) {
        constexpr int TYPE = decltype(type)::value, KEPT = decltype(kept)::value;
        SW_LAUNCH_EARLY((norm_backward<CENTRED, TYPE, KEPT>), (unsigned)((g.rows + block.y - 1) / block.y), block, 0, s, g, of[0], of[1],
                        of[2], p, floats(mean), floats(rstd), acc);
    });
    return cuda_launched(s, name);
}

} // namespace

int cuda_rmsnorm_fwd(sw_stream *s, sw_tensor *y, sw_tensor *rstd, const sw_tensor *x, const sw_tensor *w, double eps, double offset)
{
    return forward<false>(s, cuda_norm{false, y, NULL, rstd, x, w, NULL, eps, offset}, "rmsnorm_fwd");
}

int cuda_add_norm(sw_stream *s, const cuda_norm *n, const sw_tensor *a, const sw_tensor *b)
{
    return n->centred ? forward<true>(s, *n, "add and layernorm_fwd", a, b) : forward<false>(s, *n, "add and rmsnorm_fwd", a, b);
}

int cuda_rmsnorm_bwd(sw_stream *s, sw_tensor *dx, sw_tensor *dw, const sw_tensor *dy, const sw_tensor *x, const sw_tensor *w,
                     const sw_tensor *rstd, double offset, int acc)
{
    return backward<false>(s, dx, dw, NULL, dy, x, weights_of(w, NULL, offset), NULL, rstd, acc, "rmsnorm_bwd");
}

int cuda_layernorm_fwd(sw_stream *s, sw_tensor *y, sw_tensor *mean, sw_tensor *rstd, const sw_tensor *x, const sw_tensor *w,
                       const sw_tensor *b, double eps, double offset)
{
    return forward<true>(s, cuda_norm{true, y, mean, rstd, x, w, b, eps, offset}, "layernorm_fwd");
}

int cuda_layernorm_bwd(sw_stream *s, sw_tensor *dx, sw_tensor *dw, sw_tensor *db, const sw_tensor *dy, const sw_tensor *x,
                       const sw_tensor *w, const sw_tensor *mean, const sw_tensor *rstd, double offset, int acc)
{
    return backward<true>(s, dx, dw, db, dy, x, weights_of(w, NULL, offset), mean, rstd, acc, "layernorm_bwd");
}
