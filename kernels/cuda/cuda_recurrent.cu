/* Layers that carry a state along each sequence, one place after another: a thread a channel (or a column of a head's
 * matrix) and sequence. What is summed over threads is summed in order. The plain form: a chunked one that multiplies
 * matrices would do the long sequences of training faster. */
#include "cuda_common.cuh"

namespace {

/* Any tensor of up to four dimensions, the last stride 1. */
struct values {
    void *data;
    int type;
    int64_t s0, s1, s2;
    __device__ float get(int64_t i) const { return value_of(data, type, i); }
    __device__ void set(int64_t i, float v) const
    {
        if (data)
            set_value(data, type, i, v);
    }
};
values values_of(const sw_tensor *t)
{
    return t ? values{t->data, t->dtype, t->stride[0], t->ndim > 1 ? t->stride[1] : 0, t->ndim > 2 ? t->stride[2] : 0} : values{};
}
float *floats(const sw_tensor *t) { return t ? (float *)t->data : NULL; }

struct run {
    int64_t first, rows, slot;
    bool goes_on;
};
__device__ inline run run_of(const int *seqs, int64_t i)
{
    return run{seqs[4 * i], seqs[4 * i + 1], seqs[4 * i + 2], seqs[4 * i + 2] >= 0 && seqs[4 * i + 3] != 0};
}

/* ---- convolution */
struct conv_call {
    values y, state, x, w, b, dy;
    float *dw, *db;
    const int *seqs;
    int64_t count, channels, taps;
};

__device__ inline float conv_input(const conv_call &p, const run &r, int64_t t, int64_t c)
{
    if (t >= 0)
        return p.x.get((r.first + t) * p.x.s0 + c);
    return r.goes_on ? p.state.get(r.slot * p.state.s0 + (p.taps - 1 + t) * p.state.s1 + c) : 0;
}

/* Blocks: sequences, channels, places in turn. back: dx from dy instead.
 * 8192 x 8192, four taps, in bf16: 268 MB, 0.08 ms; 0.5 GFLOP. */
template <bool BACK> __global__ void __launch_bounds__(128) conv_rows(conv_call p)
{
    run r = run_of(p.seqs, blockIdx.x);
    int64_t c = (int64_t)blockIdx.y * 128 + threadIdx.x;
    for (int64_t t = blockIdx.z; c < p.channels && t < r.rows; t += gridDim.z) {
        float sum = !BACK && p.b.data ? p.b.get(c) : 0;
        for (int64_t k = 0; k < p.taps; k++) {
            if (!BACK)
                sum += p.w.get(c * p.w.s0 + k) * conv_input(p, r, t - p.taps + 1 + k, c);
            else if (t + k < r.rows)
                sum += p.w.get(c * p.w.s0 + p.taps - 1 - k) * p.dy.get((r.first + t + k) * p.dy.s0 + c);
        }
        p.y.set((r.first + t) * p.y.s0 + c, sum);
    }
}

/* Three rows of 8192 a sequence: the launch. */
__global__ void __launch_bounds__(128) conv_state(conv_call p)
{
    run r = run_of(p.seqs, blockIdx.x);
    int64_t c = (int64_t)blockIdx.y * 128 + threadIdx.x;
    if (c >= p.channels || r.slot < 0 || !r.rows)
        return;
    for (int64_t k = 0; k < p.taps - 1; k++) /* what is read lies behind what is written */
        p.state.set(r.slot * p.state.s0 + k * p.state.s1 + c, conv_input(p, r, r.rows - p.taps + 1 + k, c));
}

/* Blocks: channels; tap (the last: the bias). 8192 x 8192, four taps, in bf16: x and dy once a tap, 1.3 GB, 0.4 ms. */
__global__ void __launch_bounds__(128) conv_weights(conv_call p)
{
    int64_t c = (int64_t)blockIdx.x * 128 + threadIdx.x, k = blockIdx.y;
    float *out = k == p.taps ? p.db : p.dw;
    if (c >= p.channels || !out)
        return;
    double sum = 0;
    for (int64_t i = 0; i < p.count; i++) {
        run r = run_of(p.seqs, i);
        for (int64_t t = k == p.taps ? 0 : p.taps - 1 - k; t < r.rows; t++)
            sum += (double)p.dy.get((r.first + t) * p.dy.s0 + c) * (k == p.taps ? 1 : p.x.get((r.first + t - p.taps + 1 + k) * p.x.s0 + c));
    }
    out[k == p.taps ? c : c * p.taps + k] += (float)sum;
}

/* ---- selective scan */
struct scan_call {
    values y, state, x, dt, b, c, dy, dx, ddt, db, dc;
    const float *a, *skip;
    float *da, *dskip, *h, *terms_b, *terms_c; /* h [rows + sequences, chunk, n]; terms [rows, chunk, n] */
    const int *seqs;
    int64_t count, channels, width, from, chunk; /* channels from .. from + chunk of the backward pass */
};

/* e^x to half a unit of the last place (argument reduced as by Cody and Waite 1980, a polynomial of degree 7): what expf lacks of
 * that has a sign, and hundreds of factors in a row add it up. */
__device__ inline float decay_factor(float x)
{
    if (!(fabsf(x) < 80))
        return expf(x);
    float n = rintf(x * 1.44269504f), r = fmaf(n, -0.693145752f, x), q;
    r = fmaf(n, -1.42860677e-6f, r);
    q = fmaf(r, 1.98412698e-4f, 1.38888889e-3f);
    q = fmaf(q, r, 8.33333333e-3f);
    q = fmaf(q, r, 4.16666667e-2f);
    q = fmaf(q, r, 1.66666667e-1f);
    q = fmaf(q, r, 0.5f);
    q = fmaf(q * r, r, r) + 1;
    return q * __uint_as_float((unsigned)((int)n + 127) << 23);
}

/* 8192 tokens, 8192 channels, n = 16: 0.54 GB, 0.16 ms; 1.1 G exponentials, 0.3 ms; tokens are gone through in order. */
__global__ void __launch_bounds__(64) scan_forward(scan_call p)
{
    run r = run_of(p.seqs, blockIdx.x);
    int64_t ch = (int64_t)blockIdx.y * 64 + threadIdx.x;
    if (ch >= p.channels || !r.rows)
        return;
    float *h = p.h + ((int64_t)blockIdx.x * p.channels + ch) * p.width;
    for (int64_t n = 0; n < p.width; n++)
        h[n] = r.goes_on ? p.state.get(r.slot * p.state.s0 + ch * p.state.s1 + n) : 0;
    for (int64_t t = r.first; t < r.first + r.rows; t++) {
        float step = p.dt.get(t * p.dt.s0 + ch), in = p.x.get(t * p.x.s0 + ch), sum = p.skip[ch] * in;
        for (int64_t n = 0; n < p.width; n++) {
            h[n] = decay_factor(step * p.a[ch * p.width + n]) * h[n] + step * in * p.b.get(t * p.b.s0 + n);
            sum += p.c.get(t * p.c.s0 + n) * h[n];
        }
        p.y.set(t * p.y.s0 + ch, sum);
    }
    for (int64_t n = 0; r.slot >= 0 && n < p.width; n++)
        p.state.set(r.slot * p.state.s0 + ch * p.state.s1 + n, h[n]);
}

/* A thread a channel goes through all sequences, so that what belongs to the channel has one owner.
 * The same shape keeps h and two terms of each, in chunks of channels: 17 GB written and read, 5.1 ms. */
__global__ void __launch_bounds__(64) scan_backward(scan_call p)
{
    int64_t k = (int64_t)blockIdx.x * 64 + threadIdx.x, ch = p.from + k, width = p.width, skip_row = p.chunk * width;
    if (k >= p.chunk)
        return;
    double d_skip = 0;
    for (int64_t i = 0; i < p.count; i++) {
        run r = run_of(p.seqs, i);
        float *h = p.h + (r.first + i) * skip_row + k * width; /* row t: the state before place t */
        for (int64_t n = 0; n < width; n++)
            h[n] = 0;
        for (int64_t t = 0; t < r.rows; t++) {
            float step = p.dt.get((r.first + t) * p.dt.s0 + ch), in = p.x.get((r.first + t) * p.x.s0 + ch);
            for (int64_t n = 0; n < width; n++)
                h[(t + 1) * skip_row + n] = decay_factor(step * p.a[ch * width + n]) * h[t * skip_row + n] + step * in * p.b.get((r.first + t) * p.b.s0 + n);
        }
        for (int64_t t = r.rows; t-- > 0;) { /* the gradient of the state takes the place of the state behind it */
            int64_t row = r.first + t;
            float step = p.dt.get(row * p.dt.s0 + ch), in = p.x.get(row * p.x.s0 + ch), out = p.dy.get(row * p.dy.s0 + ch);
            float d_step = 0, d_in = out * p.skip[ch];
            d_skip += (double)out * in;
            for (int64_t n = 0; n < width; n++) {
                float a = p.a[ch * width + n], decay = decay_factor(step * a), old = h[t * skip_row + n], bn = p.b.get(row * p.b.s0 + n);
                float now = decay * old + step * in * bn, dh = out * p.c.get(row * p.c.s0 + n);
                if (t + 1 < r.rows)
                    dh += h[(t + 1) * skip_row + n];
                p.terms_c[row * skip_row + k * width + n] = out * now;
                p.terms_b[row * skip_row + k * width + n] = dh * step * in;
                d_step += dh * (decay * a * old + in * bn);
                d_in += dh * step * bn;
                if (p.da)
                    p.da[ch * width + n] += dh * decay * step * old;
                h[t * skip_row + n] = dh * decay;
            }
            p.dx.set(row * p.dx.s0 + ch, d_in);
            p.ddt.set(row * p.ddt.s0 + ch, d_step);
        }
    }
    if (p.dskip)
        p.dskip[ch] += (float)d_skip;
}

/* db, dc of rows that a sequence covers: the chunk's terms in order, added to those of the chunks before.
 * The same shape: 8.6 GB of terms, 2.6 ms. */
__global__ void __launch_bounds__(64) scan_terms(scan_call p)
{
    run r = run_of(p.seqs, blockIdx.x);
    for (int64_t i = (int64_t)blockIdx.y * 64 + threadIdx.x; i < r.rows * p.width; i += (int64_t)gridDim.y * 64) {
        int64_t row = r.first + i / p.width, n = i % p.width;
        float b = p.from ? p.db.get(row * p.db.s0 + n) : 0, c = p.from ? p.dc.get(row * p.dc.s0 + n) : 0;
        for (int64_t k = 0; k < p.chunk; k++) {
            b += p.terms_b[(row * p.chunk + k) * p.width + n];
            c += p.terms_c[(row * p.chunk + k) * p.width + n];
        }
        p.db.set(row * p.db.s0 + n, b);
        p.dc.set(row * p.dc.s0 + n, c);
    }
}

/* ---- the matrix that each head keeps */
enum { THREADS = 128 };
struct keeper_call {
    values out, state, q, k, v, g, beta, dout, dq, dk, dv, dg, dbeta;
    const float *skip;
    float *m, *dm, *skips; /* matrices of the heads at hand; skips [sequences, heads]: terms of dskip */
    const int *seqs;
    int64_t count, rows, heads, share, deep, wide, first_head, together;
    int delta, each; /* each: g has a value for every row of the matrix */
};

__device__ inline float decay_at(const keeper_call &p, int64_t row, int64_t head, int64_t i)
{
    return expf(p.g.get(row * p.g.s0 + head * p.g.s1 * (p.each ? 1 : 0) + (p.each ? i : head)));
}
__device__ inline float beta_at(const keeper_call &p, int64_t row, int64_t head) { return p.beta.data ? p.beta.get(row * p.beta.s0 + head) : 1; }

/* Column j of the matrix at a place: now from was (which may be the same); u_j is returned, without beta in *less. */
__device__ inline float advance(const keeper_call &p, float *now, const float *was, int64_t row, int64_t head, int64_t j, float *less)
{
    int64_t key = row * p.k.s0 + head / p.share * p.k.s1;
    float seen = 0;
    for (int64_t i = 0; i < p.deep; i++) {
        float v = decay_at(p, row, head, i) * was[i * p.wide + j];
        now[i * p.wide + j] = v;
        seen += p.delta ? v * p.k.get(key + i) : 0;
    }
    *less = p.v.get(row * p.v.s0 + head * p.v.s1 + j) - seen;
    float u = beta_at(p, row, head) * *less;
    for (int64_t i = 0; i < p.deep; i++)
        now[i * p.wide + j] += p.k.get(key + i) * u;
    return u;
}

/* 2048 tokens, 32 heads of 128 x 128: 67 MB, 0.02 ms; 6.4 GFLOP, 0.1 ms; M (2 MB in all) passes the caches twice a
 * token: 8.6 GB, some 1.6 ms. */
__global__ void __launch_bounds__(THREADS) keeper_forward(keeper_call p)
{
    run r = run_of(p.seqs, blockIdx.x);
    int64_t head = blockIdx.y, all = p.deep * p.wide;
    if (!r.rows)
        return;
    float *m = p.m + ((int64_t)blockIdx.x * p.heads + head) * all, less;
    for (int64_t j = threadIdx.x; j < p.wide; j += THREADS) { /* columns know nothing of each other */
        int64_t kept = r.slot * p.state.s0 + head * p.state.s1 + j;
        for (int64_t i = 0; i < p.deep; i++)
            m[i * p.wide + j] = r.goes_on ? p.state.get(kept + i * p.state.s2) : 0;
        for (int64_t t = r.first; t < r.first + r.rows; t++) {
            advance(p, m, m, t, head, j, &less);
            float sum = p.skip ? p.skip[head] * p.v.get(t * p.v.s0 + head * p.v.s1 + j) : 0;
            for (int64_t i = 0; i < p.deep; i++)
                sum += m[i * p.wide + j] * p.q.get(t * p.q.s0 + head / p.share * p.q.s1 + i);
            p.out.set(t * p.out.s0 + head * p.out.s1 + j, sum);
        }
        for (int64_t i = 0; r.slot >= 0 && i < p.deep; i++)
            p.state.set(kept + i * p.state.s2, m[i * p.wide + j]);
    }
}

/* How many sequences lie before sequence i: rows may come in any order, and each keeps one matrix more than it has rows. */
__device__ inline int64_t sequences_before(const int *seqs, int64_t count, int64_t i)
{
    int64_t n = 0;
    for (int64_t k = 0; k < count; k++)
        n += seqs[4 * k] < seqs[4 * i] || (seqs[4 * k] == seqs[4 * i] && k < i);
    return n;
}

/* The same shape keeps M of every step, 4.3 GB, written twice and read three times: 21 GB, 6.4 ms; 26 GFLOP. */
__global__ void __launch_bounds__(THREADS) keeper_backward(keeper_call p)
{
    SW_DYNAMIC_SHARED(float, shared);
    __shared__ float space[32];
    run r = run_of(p.seqs, blockIdx.x);
    int64_t slot = blockIdx.y, head = p.first_head + slot, all = p.deep * p.wide, wide = p.wide;
    float *u = shared, *du = u + wide, *less = du + wide, *dout = less + wide, *dks = dout + wide; /* dks [deep] */
    int64_t place = r.first + sequences_before(p.seqs, p.count, blockIdx.x);
    float *m = p.m + (slot * (p.rows + p.count) + place) * all, *dm = p.dm + (slot * p.count + blockIdx.x) * all, skips = 0;
    float skip = p.skip ? p.skip[head] : 0;
    for (int64_t j = threadIdx.x; r.rows && j < wide; j += THREADS) { /* what has no rows has no place of its own */
        for (int64_t i = 0; i < p.deep; i++)
            m[i * wide + j] = dm[i * wide + j] = 0;
        for (int64_t t = 0; t < r.rows; t++)
            advance(p, m + (t + 1) * all, m + t * all, r.first + t, head, j, &less[j]);
    }
    for (int64_t t = r.rows; t-- > 0;) {
        int64_t row = r.first + t, key = row * p.k.s0 + head / p.share * p.k.s1, query = row * p.q.s0 + head / p.share * p.q.s1;
        float *now = m + (t + 1) * all, d_beta = 0, d_all = 0, beta = beta_at(p, row, head);
        const float *was = m + t * all;
        __syncthreads();
        for (int64_t j = threadIdx.x; j < wide; j += THREADS) {
            u[j] = advance(p, now, was, row, head, j, &less[j]);
            dout[j] = p.dout.get(row * p.dout.s0 + head * p.dout.s1 + j);
        }
        __syncthreads();
        for (int64_t i = threadIdx.x; i < p.deep; i += THREADS) {
            float dq = 0, dk = 0, qi = p.q.get(query + i);
            for (int64_t j = 0; j < wide; j++) {
                dq += now[i * wide + j] * dout[j];
                dm[i * wide + j] += qi * dout[j];
                dk += dm[i * wide + j] * u[j];
            }
            dks[i] = dk;
            p.dq.set(row * p.dq.s0 + head * p.dq.s1 + i, dq);
        }
        __syncthreads();
        for (int64_t j = threadIdx.x; j < wide; j += THREADS) {
            float d = 0, v = p.v.get(row * p.v.s0 + head * p.v.s1 + j);
            for (int64_t i = 0; i < p.deep; i++)
                d += dm[i * wide + j] * p.k.get(key + i);
            d_beta += d * less[j];
            skips += v * dout[j];
            du[j] = d * beta;
            p.dv.set(row * p.dv.s0 + head * p.dv.s1 + j, du[j] + skip * dout[j]);
        }
        __syncthreads();
        for (int64_t i = threadIdx.x; i < p.deep; i += THREADS) {
            float dg = 0, dk = dks[i], decay = decay_at(p, row, head, i), ki = p.k.get(key + i);
            for (int64_t j = 0; j < wide; j++) {
                float decayed = decay * was[i * wide + j], e = dm[i * wide + j];
                if (p.delta) {
                    dk -= decayed * du[j];
                    e -= ki * du[j];
                }
                dg += e * decayed;
                dm[i * wide + j] = e * decay;
            }
            d_all += dg;
            p.dk.set(row * p.dk.s0 + head * p.dk.s1 + i, dk);
            if (p.each)
                p.dg.set(row * p.dg.s0 + head * p.dg.s1 + i, dg);
        }
        d_beta = row_sum(d_beta, space);
        d_all = row_sum(d_all, space);
        if (threadIdx.x == 0) {
            p.dbeta.set(row * p.dbeta.s0 + head, d_beta);
            if (!p.each)
                p.dg.set(row * p.dg.s0 + head, d_all);
        }
    }
    skips = row_sum(skips, space);
    if (threadIdx.x == 0)
        p.skips[blockIdx.x * p.heads + head] = skips;
}

/* A value a sequence and head: the launch. */
__global__ void __launch_bounds__(THREADS) keeper_skips(float *dskip, const float *terms, int64_t count, int64_t heads)
{
    int64_t h = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (h >= heads)
        return;
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += terms[i * heads + h];
    dskip[h] += (float)sum;
}

unsigned up(int64_t n, int64_t d) { return (unsigned)((n + d - 1) / d); }

} // namespace

int cuda_conv1d_fwd(sw_stream *s, sw_tensor *y, sw_tensor *state, const sw_tensor *x, const sw_tensor *w, const sw_tensor *b, const sw_tensor *seqs)
{
    conv_call p = {values_of(y), values_of(state), values_of(x), values_of(w), values_of(b), {}, NULL, NULL, (const int *)seqs->data, seqs->shape[0],
                   x->shape[1], w->shape[1]};
    if (!p.count || !p.channels)
        return 0;
    unsigned turns = (unsigned)(x->shape[0] < 1 ? 1 : x->shape[0] < 64 ? x->shape[0] : 64);
    SW_LAUNCH(conv_rows<false>, dim3((unsigned)p.count, up(p.channels, 128), turns), 128, 0, s->stream, p);
    SW_LAUNCH(conv_state, dim3((unsigned)p.count, up(p.channels, 128)), 128, 0, s->stream, p);
    return cuda_launched(s, "conv1d_fwd");
}

int cuda_conv1d_bwd(sw_stream *s, sw_tensor *dx, sw_tensor *dw, sw_tensor *db, const sw_tensor *dy, const sw_tensor *x, const sw_tensor *w,
                    const sw_tensor *seqs)
{
    conv_call p = {values_of(dx), {}, values_of(x), values_of(w), {}, values_of(dy), floats(dw), floats(db), (const int *)seqs->data, seqs->shape[0],
                   x->shape[1], w->shape[1]};
    if (!p.count || !p.channels)
        return 0;
    unsigned turns = (unsigned)(x->shape[0] < 1 ? 1 : x->shape[0] < 64 ? x->shape[0] : 64);
    if (dw || db)
        SW_LAUNCH(conv_weights, dim3(up(p.channels, 128), (unsigned)p.taps + 1), 128, 0, s->stream, p);
    if (dx)
        SW_LAUNCH(conv_rows<true>, dim3((unsigned)p.count, up(p.channels, 128), turns), 128, 0, s->stream, p);
    return cuda_launched(s, "conv1d_bwd");
}

int cuda_selective_scan_fwd(sw_stream *s, sw_tensor *y, sw_tensor *state, const sw_tensor *x, const sw_tensor *dt, const sw_tensor *a, const sw_tensor *b,
                            const sw_tensor *c, const sw_tensor *skip, const sw_tensor *seqs)
{
    scan_call p = {};
    p.y = values_of(y), p.state = values_of(state), p.x = values_of(x), p.dt = values_of(dt), p.b = values_of(b), p.c = values_of(c);
    p.a = floats(a), p.skip = floats(skip), p.seqs = (const int *)seqs->data, p.count = seqs->shape[0], p.channels = x->shape[1], p.width = a->shape[1];
    if (!p.count || !p.channels)
        return 0;
    p.h = (float *)cuda_scratch(s, (size_t)(p.count * p.channels * p.width + 1) * sizeof(float));
    if (!p.h)
        return -1;
    SW_LAUNCH(scan_forward, dim3((unsigned)p.count, up(p.channels, 64)), 64, 0, s->stream, p);
    return cuda_launched(s, "selective_scan_fwd");
}

int cuda_selective_scan_bwd(sw_stream *s, sw_tensor *dx, sw_tensor *ddt, sw_tensor *da, sw_tensor *db, sw_tensor *dc, sw_tensor *dskip, const sw_tensor *dy,
                            const sw_tensor *x, const sw_tensor *dt, const sw_tensor *a, const sw_tensor *b, const sw_tensor *c, const sw_tensor *skip,
                            const sw_tensor *seqs)
{
    scan_call p = {};
    p.x = values_of(x), p.dt = values_of(dt), p.b = values_of(b), p.c = values_of(c), p.dy = values_of(dy);
    p.dx = values_of(dx), p.ddt = values_of(ddt), p.db = values_of(db), p.dc = values_of(dc), p.da = floats(da), p.dskip = floats(dskip);
    p.a = floats(a), p.skip = floats(skip), p.seqs = (const int *)seqs->data, p.count = seqs->shape[0], p.channels = x->shape[1], p.width = a->shape[1];
    int64_t rows = x->shape[0], chunk = ((int64_t)64 << 20) / (3 * (rows + p.count) * p.width > 0 ? 3 * (rows + p.count) * p.width : 1);
    chunk = chunk < 64 ? 64 : chunk;
    chunk = chunk < p.channels ? chunk : p.channels;
    if (!p.count || !p.channels)
        return 0;
    p.h = (float *)cuda_scratch(s, (size_t)(3 * (rows + p.count) * chunk * p.width + 1) * sizeof(float));
    if (!p.h)
        return -1;
    p.terms_b = p.h + (rows + p.count) * chunk * p.width, p.terms_c = p.terms_b + (rows + p.count) * chunk * p.width;
    for (p.from = 0; p.from < p.channels; p.from += chunk) {
        p.chunk = p.channels - p.from < chunk ? p.channels - p.from : chunk;
        SW_LAUNCH(scan_backward, up(p.chunk, 64), 64, 0, s->stream, p);
        SW_LAUNCH(scan_terms, dim3((unsigned)p.count, 64), 64, 0, s->stream, p);
    }
    return cuda_launched(s, "selective_scan_bwd");
}

static keeper_call keeper_of(const sw_tensor *q, const sw_tensor *k, const sw_tensor *v, const sw_tensor *g, const sw_tensor *beta, const sw_tensor *skip,
                             const sw_tensor *seqs, int delta)
{
    keeper_call p = {};
    p.q = values_of(q), p.k = values_of(k), p.v = values_of(v), p.g = values_of(g), p.beta = values_of(beta), p.skip = floats(skip);
    p.seqs = (const int *)seqs->data, p.count = seqs->shape[0], p.rows = v->shape[0], p.heads = v->shape[1], p.share = p.heads / k->shape[1];
    p.deep = k->shape[2], p.wide = v->shape[2], p.delta = delta, p.each = g->ndim == 3;
    return p;
}

int cuda_recurrence_fwd(sw_stream *s, sw_tensor *out, sw_tensor *state, const sw_tensor *q, const sw_tensor *k, const sw_tensor *v, const sw_tensor *g,
                        const sw_tensor *beta, const sw_tensor *skip, const sw_tensor *seqs, int delta)
{
    keeper_call p = keeper_of(q, k, v, g, beta, skip, seqs, delta);
    p.out = values_of(out), p.state = values_of(state);
    if (!p.count || !p.heads)
        return 0;
    p.m = (float *)cuda_scratch(s, (size_t)(p.count * p.heads * p.deep * p.wide + 1) * sizeof(float));
    if (!p.m)
        return -1;
    SW_LAUNCH(keeper_forward, dim3((unsigned)p.count, (unsigned)p.heads), THREADS, 0, s->stream, p);
    return cuda_launched(s, "recurrence_fwd");
}

int cuda_recurrence_bwd(sw_stream *s, sw_tensor *dq, sw_tensor *dk, sw_tensor *dv, sw_tensor *dg, sw_tensor *dbeta, sw_tensor *dskip, const sw_tensor *dout,
                        const sw_tensor *q, const sw_tensor *k, const sw_tensor *v, const sw_tensor *g, const sw_tensor *beta, const sw_tensor *skip,
                        const sw_tensor *seqs, int delta)
{
    keeper_call p = keeper_of(q, k, v, g, beta, skip, seqs, delta);
    p.dout = values_of(dout), p.dq = values_of(dq), p.dk = values_of(dk), p.dv = values_of(dv), p.dg = values_of(dg), p.dbeta = values_of(dbeta);
    if (!p.count || !p.heads)
        return 0;
    /* a matrix a place is kept, for as many heads at a time as 256 MB hold */
    int64_t all = p.deep * p.wide, each = (p.rows + 2 * p.count) * all;
    p.together = ((int64_t)64 << 20) / (each > 0 ? each : 1);
    p.together = p.together < 1 ? 1 : p.together < p.heads ? p.together : p.heads;
    p.skips = (float *)cuda_scratch(s, (size_t)(p.count * p.heads + p.together * each + 1) * sizeof(float));
    if (!p.skips)
        return -1;
    p.m = p.skips + p.count * p.heads, p.dm = p.m + p.together * (p.rows + p.count) * all;
    size_t bytes = (size_t)(4 * p.wide + p.deep) * sizeof(float);
    if (cuda_shared(s, keeper_backward, bytes, "recurrence_bwd"))
        return -1;
    for (p.first_head = 0; p.first_head < p.heads; p.first_head += p.together) {
        int64_t n = p.heads - p.first_head < p.together ? p.heads - p.first_head : p.together;
        SW_LAUNCH(keeper_backward, dim3((unsigned)p.count, (unsigned)n), THREADS, bytes, s->stream, p);
    }
    if (dskip)
        SW_LAUNCH(keeper_skips, up(p.heads, THREADS), THREADS, 0, s->stream, (float *)dskip->data, p.skips, p.count, p.heads);
    return cuda_launched(s, "recurrence_bwd");
}
