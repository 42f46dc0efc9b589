/* Filling, copying, arithmetic, activations, dropout, AdamW. All bound by memory: bytes of what is read and written over
 * 3.35 TB/s; the largest in training, glu_bwd of 8192 tokens x 14336 in bf16, moves 5 x 235 MB: 0.35 ms. */
#include "cuda_act.cuh"
#include "cuda_blocks.cuh"

namespace {

/* Sixteen bytes a thread, counted in values of one byte or in halves of wider ones. */
struct fill_bits {
    rows_of y;
    uint64_t pattern;
    int size; /* of what is counted: 1 or 2 */
    __device__ void operator()(const rows_shape &g, int64_t r, int64_t c, int n) const
    {
        char *p = (char *)y.data + (row_start(g, y, r) + c) * size;
        unsigned low = (unsigned)pattern, high = (unsigned)(pattern >> 32);
        if (n == RUN && size == 2 && ((uintptr_t)p & 15) == 0) {
            *(uint4 *)p = uint4{low, high, low, high};
            return;
        }
        for (int i = 0; i < n; i++) { /* c is a multiple of eight: the pattern begins anew */
            if (size == 2)
                ((uint16_t *)p)[i] = (uint16_t)(pattern >> i % 4 * 16);
            else
                ((uint8_t *)p)[i] = (uint8_t)pattern;
        }
    }
};

struct axpby_run {
    rows_of y, x;
    float alpha, beta;
    SW_TENSORS(&y, &x)
    __device__ void operator()(const rows_shape &g, int64_t r, int64_t c, int n) const
    {
        float u[RUN], v[RUN];
        int64_t at = row_start(g, y, r) + c;
        load_run(u, x, row_start(g, x, r) + c, n);
        if (beta != 0)
            load_run(v, y, at, n);
#pragma unroll
        for (int i = 0; i < RUN; i++)
            u[i] = alpha * u[i] + (beta != 0 ? beta * v[i] : 0);
        store_run(y, at, n, u);
    }
};

struct add_run {
    rows_of y, a, b;
    SW_TENSORS(&y, &a, &b)
    __device__ void operator()(const rows_shape &g, int64_t r, int64_t c, int n) const
    {
        float u[RUN], v[RUN];
        load_run(u, a, row_start(g, a, r) + c, n);
        load_run(v, b, row_start(g, b, r) + c, n);
#pragma unroll
        for (int i = 0; i < RUN; i++)
            u[i] += v[i];
        store_run(y, row_start(g, y, r) + c, n, u);
    }
};

struct mul_run {
    rows_of y, a, b;
    int vector, acc;
    SW_TENSORS(&y, &a, &b)
    __device__ void operator()(const rows_shape &g, int64_t r, int64_t c, int n) const
    {
        float u[RUN], v[RUN];
        int64_t at = row_start(g, y, r) + c;
        load_run(u, a, row_start(g, a, r) + c, n);
        load_run(v, b, (vector ? 0 : row_start(g, b, r)) + c, n);
#pragma unroll
        for (int i = 0; i < RUN; i++)
            u[i] *= v[i];
        if (acc) {
            load_run(v, y, at, n);
#pragma unroll
            for (int i = 0; i < RUN; i++)
                u[i] += v[i];
        }
        store_run(y, at, n, u);
    }
};

/* ---- activations */
struct act_run {
    rows_of y, x;
    int kind;
    SW_TENSORS(&y, &x)
    __device__ void operator()(const rows_shape &g, int64_t r, int64_t c, int n) const
    {
        float v[RUN];
        load_run(v, x, row_start(g, x, r) + c, n);
        with_act(kind, y.type, [&](int k, auto quick) {
#pragma unroll
            for (int i = 0; i < RUN; i++)
                v[i] = act<quick.value>(k, v[i]);
        });
        store_run(y, row_start(g, y, r) + c, n, v);
    }
};

struct act_back {
    rows_of dx, dy, x;
    int kind, acc;
    SW_TENSORS(&dx, &dy, &x)
    __device__ void operator()(const rows_shape &g, int64_t r, int64_t c, int n) const
    {
        float v[RUN], d[RUN];
        int64_t at = row_start(g, dx, r) + c;
        load_run(v, x, row_start(g, x, r) + c, n);
        load_run(d, dy, row_start(g, dy, r) + c, n);
        with_act(kind, dx.type, [&](int k, auto quick) {
#pragma unroll
            for (int i = 0; i < RUN; i++)
                d[i] *= act_slope<quick.value>(k, v[i]);
        });
        if (acc) {
            load_run(v, dx, at, n);
#pragma unroll
            for (int i = 0; i < RUN; i++)
                d[i] += v[i];
        }
        store_run(dx, at, n, d);
    }
};

struct glu_run {
    rows_of y, gate, up;
    int kind;
    SW_TENSORS(&y, &gate, &up)
    __device__ void operator()(const rows_shape &g, int64_t r, int64_t c, int n) const
    {
        float v[RUN], u[RUN];
        load_run(v, gate, row_start(g, gate, r) + c, n);
        load_run(u, up, row_start(g, up, r) + c, n);
        with_act(kind, y.type, [&](int k, auto quick) {
#pragma unroll
            for (int i = 0; i < RUN; i++)
                v[i] = act<quick.value>(k, v[i]) * u[i];
        });
        store_run(y, row_start(g, y, r) + c, n, v);
    }
};

struct glu_back {
    rows_of dgate, dup, dy, gate, up;
    int kind;
    SW_TENSORS(&dgate, &dup, &dy, &gate, &up)
    __device__ void operator()(const rows_shape &g, int64_t r, int64_t c, int n) const
    {
        float v[RUN], u[RUN], d[RUN];
        load_run(v, gate, row_start(g, gate, r) + c, n);
        load_run(u, up, row_start(g, up, r) + c, n);
        load_run(d, dy, row_start(g, dy, r) + c, n);
        with_act(kind, dgate.type, [&](int k, auto quick) {
#pragma unroll
            for (int i = 0; i < RUN; i++) {
                float x = v[i];
                v[i] = d[i] * u[i] * act_slope<quick.value>(k, x);
                u[i] = d[i] * act<quick.value>(k, x);
            }
        });
        store_run(dgate, row_start(g, dgate, r) + c, n, v);
        store_run(dup, row_start(g, dup, r) + c, n, u);
    }
};

struct softcap_run {
    rows_of y, x;
    float cap;
    SW_TENSORS(&y, &x)
    __device__ void operator()(const rows_shape &g, int64_t r, int64_t c, int n) const
    {
        float v[RUN];
        load_run(v, x, row_start(g, x, r) + c, n);
#pragma unroll
        for (int i = 0; i < RUN; i++)
            v[i] = cap * tanhf(v[i] / cap);
        store_run(y, row_start(g, y, r) + c, n, v);
    }
};

struct softcap_back {
    rows_of dx, dy, y;
    float cap;
    int acc;
    SW_TENSORS(&dx, &dy, &y)
    __device__ void operator()(const rows_shape &g, int64_t r, int64_t c, int n) const
    {
        float v[RUN], d[RUN];
        int64_t at = row_start(g, dx, r) + c;
        load_run(v, y, row_start(g, y, r) + c, n);
        load_run(d, dy, row_start(g, dy, r) + c, n);
#pragma unroll
        for (int i = 0; i < RUN; i++)
            d[i] *= 1 - v[i] / cap * (v[i] / cap);
        if (acc) {
            load_run(v, dx, at, n);
#pragma unroll
            for (int i = 0; i < RUN; i++)
                d[i] += v[i];
        }
        store_run(dx, at, n, d);
    }
};

struct dropout_run {
    rows_of y, x;
    const int64_t *keys;
    double p;
    float scale;
    sw_rng rng;
    int acc;
    SW_TENSORS(&y, &x)
    __device__ void operator()(const rows_shape &g, int64_t r, int64_t c, int n) const
    {
        float v[RUN], old[RUN];
        int64_t at = row_start(g, y, r) + c, key = keys ? keys[r] : r;
        uint32_t words[4];
        sw_rng own = sw_rng_row(&rng, key);
        load_run(v, x, row_start(g, x, r) + c, n);
#pragma unroll
        for (int i = 0; i < RUN; i++) { /* c is a multiple of RUN, and that of 4 */
            if (i % 4 == 0)
                sw_philox(&own, sw_rng_row_block(key, (uint64_t)(c + i) / 4), words);
            v[i] = (double)((float)(words[i % 4] >> 8) * 0x1p-24f) >= p ? v[i] * scale : 0;
        }
        if (acc) {
            load_run(old, y, at, n);
#pragma unroll
            for (int i = 0; i < RUN; i++)
                v[i] += old[i];
        }
        store_run(y, at, n, v);
    }
};

/* Moves 28 bytes a parameter (30 with a copy): 8 billion in 70 ms. */
struct adamw_run {
    rows_of p, g, m, v, low;
    float beta1, beta2, rest1, rest2, keep, rate, root, eps, scale; /* rest: 1 - beta, which f32 could not subtract */
    SW_TENSORS(&p, &g, &m, &v)
    __device__ void operator()(const rows_shape &, int64_t, int64_t c, int n) const
    {
        float value[RUN], grad[RUN], mean[RUN], square[RUN];
        load_run(value, p, c, n);
        load_run(grad, g, c, n);
        load_run(mean, m, c, n);
        load_run(square, v, c, n);
#pragma unroll
        for (int i = 0; i < RUN; i++) {
            float d = grad[i] * scale;
            mean[i] = beta1 * mean[i] + rest1 * d;
            square[i] = beta2 * square[i] + rest2 * d * d;
            value[i] = value[i] * keep - rate * mean[i] / (sqrtf(square[i]) / root + eps);
        }
        store_run(p, c, n, value);
        store_run(m, c, n, mean);
        store_run(v, c, n, square);
        if (low.data)
            store_run(low, c, n, value);
    }
};

/* ---- copies: any strides. x and y walk the same row-major order. */
struct strided {
    void *data;
    int type;
    int64_t stride[SW_MAX_DIMS];
};
struct any_shape {
    int ndim;
    int64_t dim[SW_MAX_DIMS], total;
};

__device__ double number_at(const void *p, int type, int64_t i)
{
    switch (type) {
    case SW_F64: return ((const double *)p)[i];
    case SW_I8: return ((const int8_t *)p)[i];
    case SW_I16: return ((const int16_t *)p)[i];
    case SW_I32: return ((const int32_t *)p)[i];
    case SW_I64: return (double)((const int64_t *)p)[i];
    case SW_U8:
    case SW_BOOL: return ((const uint8_t *)p)[i];
    case SW_F8_E4M3:
    case SW_F8_E5M2: return float8_value(((const uint8_t *)p)[i], type);
    default: break;
    }
    if (type < SW_Q4_0)
        return value_of(p, type, i);
    float v[RUN];
    load_any(v, p, type, i & ~(int64_t)7, RUN, scales_of{});
    return v[i & 7];
}

/* 4096 x 4096 from bf16 to f32 by any strides: 101 MB, 0.03 ms where neighbours lie together, eight times that where
 * not. */
__global__ void __launch_bounds__(256) copy_any(any_shape g, strided y, strided x, int size)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < g.total; i += (int64_t)gridDim.x * blockDim.x) {
        int64_t to = 0, from = 0, rest = i;
#pragma unroll
        for (int d = SW_MAX_DIMS - 1; d >= 0; d--) { /* places that the compiler knows: no copy of the arguments in local memory */
            if (d >= g.ndim)
                continue;
            int64_t q = rest / g.dim[d], k = rest - q * g.dim[d];
            to += k * y.stride[d];
            from += k * x.stride[d];
            rest = q;
        }
        if (size == 8)
            ((uint64_t *)y.data)[to] = ((const uint64_t *)x.data)[from];
        else if (size == 4)
            ((uint32_t *)y.data)[to] = ((const uint32_t *)x.data)[from];
        else if (size == 2)
            ((uint16_t *)y.data)[to] = ((const uint16_t *)x.data)[from];
        else if (size == 1)
            ((uint8_t *)y.data)[to] = ((const uint8_t *)x.data)[from];
        else
            set_value(y.data, y.type, to, (float)number_at(x.data, x.type, from));
    }
}

struct convert_run { /* from any stored type, rows */
    rows_of y, x;
    scales_of scales;
    __device__ void operator()(const rows_shape &g, int64_t r, int64_t c, int n) const
    {
        float v[RUN];
        load_any(v, x.data, x.type, row_start(g, x, r) + c, n, scales);
        store_run(y, row_start(g, y, r) + c, n, v);
    }
};

} // namespace

int cuda_fill(sw_stream *s, sw_tensor *y, double value)
{
    int bytes = sw_dtypes[y->dtype].bytes;
    fill_bits f = {{}, 0, bytes == 1 ? 1 : 2};
    const sw_tensor *t[] = {y};
    rows_shape g = cuda_rows(&f.y, t, 1, false);
    for (int i = 0; i < 8; i += bytes)
        sw_scalar_set((char *)&f.pattern + i, y->dtype, 0, value);
    g.width *= bytes / f.size;
    for (int d = 0; d < g.outer; d++)
        f.y.stride[d] *= bytes / f.size;
    return cuda_map(s, g, f, "fill");
}

static bool vectors(const sw_tensor *t) { return !t->ndim || t->shape[t->ndim - 1] <= 1 || t->stride[t->ndim - 1] == 1; }

int cuda_copy(sw_stream *s, sw_tensor *y, const sw_tensor *x)
{
    bool same = y->dtype == x->dtype, blocks = sw_is_quantised(x->dtype) || (sw_is_float8(x->dtype) && !same);
    if (vectors(y) && vectors(x) && (blocks || (sw_is_float(x->dtype) && !same))) {
        convert_run f;
        const sw_tensor *t[] = {y, x};
        rows_of of[2];
        rows_shape g = cuda_rows(of, t, 2, blocks);
        f.y = of[0], f.x = of[1], f.scales = cuda_scales(x);
        return cuda_map(s, g, f, "copy");
    }
    if (same && sw_is_dense(x) && sw_is_dense(y)) {
        CUDA_TRY(s, cudaMemcpyAsync(y->data, x->data, sw_tensor_bytes(x), cudaMemcpyDeviceToDevice, s->stream));
        return 0;
    }
    any_shape g = {y->ndim, {}, sw_numel(y)};
    strided to = {y->data, y->dtype, {}}, from = {x->data, x->dtype, {}};
    for (int d = 0; d < y->ndim; d++) {
        g.dim[d] = y->shape[d];
        to.stride[d] = y->stride[d];
        from.stride[d] = x->stride[d];
    }
    if (!g.total)
        return 0;
    SW_LAUNCH(copy_any, cuda_blocks(s, g.total, 256), 256, 0, s->stream, g, to, from, same ? sw_dtypes[y->dtype].bytes : 0);
    return cuda_launched(s, "copy");
}

int cuda_axpby(sw_stream *s, sw_tensor *y, double alpha, const sw_tensor *x, double beta)
{
    const sw_tensor *t[] = {y, x};
    rows_of of[2];
    rows_shape g = cuda_rows(of, t, 2, false);
    return cuda_map(s, g, axpby_run{of[0], of[1], (float)alpha, (float)beta}, "axpby");
}

int cuda_add(sw_stream *s, sw_tensor *y, const sw_tensor *a, const sw_tensor *b)
{
    const sw_tensor *t[] = {y, a, b};
    rows_of of[3];
    rows_shape g = cuda_rows(of, t, 3, false);
    return cuda_map(s, g, add_run{of[0], of[1], of[2]}, "add");
}

int cuda_mul(sw_stream *s, sw_tensor *y, const sw_tensor *a, const sw_tensor *b, int acc)
{
    bool vector = b->ndim == 1 && a->ndim != 1;
    const sw_tensor *t[] = {y, a, vector ? NULL : b};
    rows_of of[3];
    rows_shape g = cuda_rows(of, t, 3, vector);
    if (vector)
        of[2] = rows_of{b->data, b->dtype, {}};
    return cuda_map(s, g, mul_run{of[0], of[1], of[2], vector, acc}, "mul");
}

int cuda_act_fwd(sw_stream *s, sw_tensor *y, const sw_tensor *x, int kind)
{
    const sw_tensor *t[] = {y, x};
    rows_of of[2];
    rows_shape g = cuda_rows(of, t, 2, false);
    return cuda_map(s, g, act_run{of[0], of[1], kind}, "act_fwd");
}

int cuda_act_bwd(sw_stream *s, sw_tensor *dx, const sw_tensor *dy, const sw_tensor *x, int kind, int acc)
{
    const sw_tensor *t[] = {dx, dy, x};
    rows_of of[3];
    rows_shape g = cuda_rows(of, t, 3, false);
    return cuda_map(s, g, act_back{of[0], of[1], of[2], kind, acc}, "act_bwd");
}

int cuda_glu_fwd(sw_stream *s, sw_tensor *y, const sw_tensor *gate, const sw_tensor *up, int kind)
{
    const sw_tensor *t[] = {y, gate, up};
    rows_of of[3];
    rows_shape g = cuda_rows(of, t, 3, false);
    return cuda_map(s, g, glu_run{of[0], of[1], of[2], kind}, "glu_fwd");
}

int cuda_glu_bwd(sw_stream *s, sw_tensor *dgate, sw_tensor *dup, const sw_tensor *dy, const sw_tensor *gate,
                 const sw_tensor *up, int kind)
{
    const sw_tensor *t[] = {dgate, dup, dy, gate, up};
    rows_of of[5];
    rows_shape g = cuda_rows(of, t, 5, false);
    return cuda_map(s, g, glu_back{of[0], of[1], of[2], of[3], of[4], kind}, "glu_bwd");
}

int cuda_softcap_fwd(sw_stream *s, sw_tensor *y, const sw_tensor *x, double cap)
{
    const sw_tensor *t[] = {y, x};
    rows_of of[2];
    rows_shape g = cuda_rows(of, t, 2, false);
    return cuda_map(s, g, softcap_run{of[0], of[1], (float)cap}, "softcap_fwd");
}

int cuda_softcap_bwd(sw_stream *s, sw_tensor *dx, const sw_tensor *dy, const sw_tensor *y, double cap, int acc)
{
    const sw_tensor *t[] = {dx, dy, y};
    rows_of of[3];
    rows_shape g = cuda_rows(of, t, 3, false);
    return cuda_map(s, g, softcap_back{of[0], of[1], of[2], (float)cap, acc}, "softcap_bwd");
}

int cuda_dropout(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *keys, double p, const sw_rng *rng, int acc)
{
    const sw_tensor *t[] = {y, x};
    rows_of of[2];
    rows_shape g = cuda_rows(of, t, 2, true);
    return cuda_map(s, g, dropout_run{of[0], of[1], keys ? (const int64_t *)keys->data : nullptr, p, (float)(1 / (1 - p)), *rng, acc}, "dropout");
}

int cuda_adamw(sw_stream *s, sw_tensor *p, sw_tensor *low, const sw_tensor *g, sw_tensor *m, sw_tensor *v, const sw_adamw *o)
{
    double first = 1 - pow(o->beta1, (double)o->step), second = sqrt(1 - pow(o->beta2, (double)o->step));
    adamw_run f = {{p->data, SW_F32, {}}, {g->data, SW_F32, {}}, {m->data, SW_F32, {}}, {v->data, SW_F32, {}}, {}, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    if (low)
        f.low = rows_of{low->data, low->dtype, {}};
    f.beta1 = (float)o->beta1, f.beta2 = (float)o->beta2, f.rest1 = (float)(1 - o->beta1), f.rest2 = (float)(1 - o->beta2);
    f.keep = (float)(1 - o->lr * o->decay);
    f.rate = (float)(o->lr / first), f.root = (float)second, f.eps = (float)o->eps, f.scale = (float)o->grad_scale;
    rows_shape shape = {1, sw_numel(p), 0, {}};
    return cuda_map(s, shape, f, "adamw");
}
