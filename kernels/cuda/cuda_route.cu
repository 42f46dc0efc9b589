/* Mixtures of experts: who is chosen, pairs by expert, and rows back to their tokens. Scores are computed in f64 and stored in f32
 * as on the CPU, so that both choose the same; what is chosen does not depend on the order of threads. */
#include "cuda_common.cuh"

namespace {

enum { WARPS = 4 };

struct route_call {
    const float *logits, *correction;
    float *scores, *weights;
    int *ids;
    int64_t n, experts;
    sw_router r;
};

struct choice {
    float v;
    int e;
};
__device__ static inline bool before(choice a, choice b) { return a.v > b.v || (a.v == b.v && a.e < b.e); }
__device__ static inline choice none_yet(void) { return choice{INFINITY, -1}; }

/* What comes after `last` in the order of values: the largest, the first of equal ones; number 0 of -INFINITY where nothing is
 * left. A warp together; f(e) is the value, NaN is left out. */
template <class F> __device__ static inline choice next_best(int64_t n, choice last, F f)
{
    choice best = {-INFINITY, 0x7fffffff};
    for (int64_t e = threadIdx.x % 32; e < n; e += 32) {
        choice c = {f(e), (int)e};
        if (c.v > -INFINITY && before(last, c) && before(c, best))
            best = c;
    }
#pragma unroll
    for (int d = 16; d; d >>= 1) {
        choice c = {__shfl_xor_sync(FULL_WARP, best.v, d), __shfl_xor_sync(FULL_WARP, best.e, d)};
        if (before(c, best))
            best = c;
    }
    return best.e == 0x7fffffff ? choice{-INFINITY, 0} : best;
}

/* Scores that are no shares of a sum. */
__device__ static inline double score_of(double x, sw_router_score kind)
{
    return kind == SW_ROUTE_SIGMOID ? 1 / (1 + exp(-x)) : sqrt(log1p(exp(-fabs(x))) + fmax(x, 0.0));
}
/* Their slope where the score is v: that of sqrt(softplus) has 1 - exp(-v^2) = sigmoid(x) in it. */
__device__ static inline double slope_of(double v, sw_router_score kind)
{
    return kind == SW_ROUTE_SIGMOID ? v * (1 - v) : -expm1(-v * v) / (2 * fmax(v, 1e-30));
}
__device__ static inline bool apart(sw_router_score kind) { return kind == SW_ROUTE_SIGMOID || kind == SW_ROUTE_SQRT_SOFTPLUS; }

/* s[e] = the scores of f(e), a warp together. */
template <class F> __device__ static inline void scores_of(float *s, int64_t n, sw_router_score kind, F f)
{
    int lane = (int)threadIdx.x % 32;
    double sum = 0;
    float top = -INFINITY;
    for (int64_t e = lane; e < n; e += 32) {
        float l = f(e);
        top = l > top ? l : top;
    }
    top = warp_max(top);
    for (int64_t e = lane; e < n; e += 32) {
        double v = apart(kind) ? score_of(f(e), kind) : exp((double)f(e) - (double)top);
        s[e] = (float)v;
        sum += v;
    }
    if (apart(kind))
        return;
#pragma unroll
    for (int d = 16; d; d >>= 1)
        sum += __shfl_xor_sync(FULL_WARP, sum, d);
    for (int64_t e = lane; e < n; e += 32)
        s[e] = (float)((double)s[e] / sum);
}

__device__ static inline double to_power(double x, double p) { return p == 1 ? x : pow(x, p); }
__device__ static inline double power_of(const sw_router &r) { return r.power > 0 ? r.power : 1; }
__device__ static inline double norm_of(const sw_router &r, const float *s, const int *ids)
{
    double sum = 0, power = power_of(r);
    for (int64_t j = 0; r.normalise && j < r.k; j++)
        sum += to_power(s[ids[j]], power);
    return r.normalise ? to_power(sum, 1 / power) : 1;
}

/* The rounds of SW_ROUTE_SPARSEMIXER. A first logit that is NaN is taken first, others never. */
__device__ static inline void mix(const route_call &p, int64_t token)
{
    const float *l = p.logits + token * p.experts;
    float *s = p.scores + token * p.r.k * p.experts;
    choice last = none_yet();
    bool odd = isnan(l[0]), odd_taken = false;
    for (int64_t j = 0; j < p.r.k; j++, s += p.experts) {
        bool take_odd = odd && !odd_taken;
        choice best = take_odd ? choice{l[0], 0} : next_best(p.experts, last, [&](int64_t e) { return l[e]; });
        float top = best.v;
        auto left = [&](int64_t e) { /* before this round */
            float v = l[e];
            if (isnan(v))
                return e == 0 && odd_taken ? -INFINITY : v;
            return before(last, choice{v, (int)e}) ? v : -INFINITY;
        };
        scores_of(s, p.experts, SW_ROUTE_SOFTMAX, [&](int64_t e) {
            float v = l[e];
            return (top - v) / fmaxf(fabsf(v), top) > 2 * p.r.jitter ? -INFINITY : left(e);
        });
        __syncwarp();
        if (threadIdx.x % 32 == 0) {
            p.ids[token * p.r.k + j] = best.e;
            p.weights[token * p.r.k + j] = (float)(p.r.scale * s[best.e]);
        }
        if (take_odd)
            odd_taken = true;
        else
            last = best.v > -INFINITY ? best : choice{-INFINITY, 0x7fffffff};
    }
}

/* A warp a token. 8192 tokens, 8 of 128 experts: 8.4 MB, 2.5 us; 1 M exponentials in f64, 2 us; 9 MB of comparisons from the caches. */
__global__ void __launch_bounds__(WARPS * 32) choose(route_call p)
{
    __shared__ float worth_of[WARPS][SW_MOST_GROUPS];
    __shared__ bool keep_of[WARPS][SW_MOST_GROUPS];
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    int64_t token = (int64_t)blockIdx.x * WARPS + warp, each = p.r.groups > 1 ? p.experts / p.r.groups : p.experts;
    if (token >= p.n)
        return;
    if (p.r.score == SW_ROUTE_SPARSEMIXER) {
        mix(p, token);
        return;
    }
    const float *l = p.logits + token * p.experts;
    float *s = p.scores + token * p.experts, *worth = worth_of[warp];
    int *ids = p.ids + token * p.r.k;
    bool *keep = keep_of[warp];
    scores_of(s, p.experts, p.r.score, [&](int64_t e) { return l[e]; });
    __syncwarp();
    auto value = [&](int64_t e) { return s[e] + (p.correction ? p.correction[e] : 0); };
    if (p.r.groups > 1) {
        for (int64_t g = lane; g < p.r.groups; g += 32) {
            float first = -INFINITY, second = -INFINITY;
            for (int64_t e = g * each; e < (g + 1) * each; e++) {
                float v = value(e);
                second = v > first ? first : v > second ? v : second;
                first = v > first ? v : first;
            }
            worth[g] = p.r.group_by_two && each > 1 ? first + second : first;
            keep[g] = false;
        }
        __syncwarp();
        choice last = none_yet();
        for (int64_t i = 0; i < p.r.top_groups; i++) {
            choice best = next_best(p.r.groups, last, [&](int64_t g) { return worth[g]; });
            if (lane == 0)
                keep[best.e] = true;
            last = best.v > -INFINITY ? best : choice{-INFINITY, 0x7fffffff};
        }
        __syncwarp();
    }
    choice last = none_yet();
    for (int64_t j = 0; !p.r.given && j < p.r.k; j++) {
        choice best = next_best(p.experts, last, [&](int64_t e) { return p.r.groups > 1 && !keep[e / each] ? -INFINITY : value(e); });
        if (lane == 0)
            ids[j] = best.e;
        last = best.v > -INFINITY ? best : choice{-INFINITY, 0x7fffffff};
    }
    __syncwarp();
    double sum = norm_of(p.r, s, ids) + (p.r.normalise ? p.r.eps : 0);
    for (int64_t j = lane; j < p.r.k; j += 32)
        p.weights[token * p.r.k + j] = (float)(p.r.scale * s[ids[j]] / sum);
}

struct route_back {
    float *dlogits;
    const float *dweights, *scores;
    const int *ids;
    int64_t n, experts;
    int acc;
    sw_router r;
};

/* A warp a token, as ref_route.c has it. 8192 tokens, 8 of 128 experts: 8.9 MB, 2.7 us. */
__global__ void __launch_bounds__(WARPS * 32) choose_back(route_back p)
{
    int64_t token = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32, k = p.r.k;
    int lane = (int)threadIdx.x % 32;
    if (token >= p.n)
        return;
    bool mixes = p.r.score == SW_ROUTE_SPARSEMIXER;
    const float *s = p.scores + token * p.experts * (mixes ? k : 1), *dw = p.dweights + token * k;
    const int *ids = p.ids + token * k;
    float *to = p.dlogits + token * p.experts;
    double norm = mixes ? 1 : norm_of(p.r, s, ids), sum = norm + (p.r.normalise ? p.r.eps : 0), dot = 0, all = 0;
    auto slope = [&](int64_t j) { /* of the chosen score j */
        double dnorm = p.r.normalise && norm > 0 ? (power_of(p.r) == 1 ? 1 : pow(s[ids[j]] / norm, power_of(p.r) - 1)) : 0;
        return p.r.scale * ((double)dw[j] / sum - dnorm * dot / (sum * sum));
    };
    for (int64_t j = 0; !mixes && p.r.normalise && j < k; j++)
        dot += (double)dw[j] * s[ids[j]];
    for (int64_t j = 0; !mixes && j < k; j++)
        all += slope(j) * s[ids[j]];
    for (int64_t e = lane; e < p.experts; e += 32) {
        float d = p.acc ? to[e] : 0;
        double ds = 0;
        for (int64_t j = 0; j < k; j++) {
            if (mixes) {
                const float *share = s + j * p.experts;
                d += (float)(p.r.scale * dw[j] * share[ids[j]] * ((e == ids[j]) - (double)share[e]));
            } else if (ids[j] == e) {
                ds = slope(j);
            }
        }
        if (!mixes)
            d += (float)(apart(p.r.score) ? ds * slope_of(s[e], p.r.score) : s[e] * (ds - all));
        to[e] = d;
    }
}

struct dispatch_call {
    int *start, *tokens, *pairs, *experts, *places;
    const int *ids;
    int64_t k, count;
    int total;
};

__device__ static inline int warp_count(int v)
{
#pragma unroll
    for (int d = 16; d; d >>= 1)
        v += __shfl_xor_sync(FULL_WARP, v, d);
    return v;
}

/* A block an expert: it counts the pairs of lower experts and its own, each warp in a stretch of pairs, and then puts its own in
 * their order. 65536 pairs of 128 experts: 1.3 MB written; 67 MB read, from the caches, 0.01 ms. */
__global__ void __launch_bounds__(256) sort_pairs(dispatch_call p)
{
    __shared__ int lower[8], own[8];
    int e = (int)blockIdx.x, warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    int stretch = (p.total + 255) / 256 * 32, first = warp * stretch, last = p.total - first < stretch ? p.total : first + stretch;
    int below = 0, equal = 0;
    for (int i = first + lane; i < last; i += 32) {
        below += p.ids[i] < e;
        equal += p.ids[i] == e;
    }
    below = warp_count(below);
    equal = warp_count(equal);
    if (lane == 0) {
        lower[warp] = below;
        own[warp] = equal;
    }
    __syncthreads();
    int start = 0, at = 0;
    for (int w = 0; w < 8; w++) {
        start += lower[w];
        at += w < warp ? own[w] : 0;
    }
    at += start;
    if (threadIdx.x == 0) {
        p.start[e] = start;
        if (e == 0)
            p.start[p.count] = p.total;
    }
    for (int base = first; base < last; base += 32) {
        int i = base + lane;
        bool mine = i < last && p.ids[i] == e;
        unsigned votes = __ballot_sync(FULL_WARP, mine);
        if (mine) {
            int place = at + __popc(votes & ((1u << lane) - 1)), before = 0;
            int64_t token = i / p.k, row = token * p.k;
            for (int64_t j = 0; j < p.k; j++)
                before += p.ids[row + j] < e || (p.ids[row + j] == e && row + j < i);
            p.tokens[place] = (int)token;
            p.pairs[place] = i;
            p.experts[place] = e;
            p.places[row + before] = place;
        }
        at += __popc(votes);
    }
}

/* 65536 places: 1.6 MB, 0.001 ms. */
__global__ void __launch_bounds__(256) keys_of_places(int64_t *keys, const int64_t *of, const int *tokens, const int *experts, int64_t n)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x)
        keys[i] = sw_rng_key_at(of[tokens[i]], experts[i]);
}

/* 8192 tokens of 4096 in bf16, 8 rows each: 0.6 GB, 0.18 ms. */
__global__ void __launch_bounds__(256) sum_places(rows_of y, rows_of x, const int *ids, int64_t n, int64_t width, int64_t k, int acc)
{
    int64_t per_row = (width + RUN - 1) / RUN, total = n * per_row;
    for (int64_t t = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; t < total; t += (int64_t)gridDim.x * blockDim.x) {
        int64_t i = t / per_row, c = (t - i * per_row) * RUN;
        int have = width - c < RUN ? (int)(width - c) : (int)RUN;
        float sum[RUN] = {0}, v[RUN];
        if (acc)
            load_run(sum, y.data, y.type, i * y.stride[0] + c, have);
        for (int64_t j = 0; j < k; j++) {
            load_run(v, x.data, x.type, ids[i * k + j] * x.stride[0] + c, have);
#pragma unroll
            for (int q = 0; q < RUN; q++)
                sum[q] += v[q];
        }
        store_run(y.data, y.type, i * y.stride[0] + c, have, sum);
    }
}

} // namespace

int cuda_route_fwd(sw_stream *s, sw_tensor *ids, sw_tensor *weights, sw_tensor *scores, const sw_tensor *logits,
                   const sw_tensor *correction, const sw_router *r)
{
    route_call p = {(const float *)logits->data, correction ? (const float *)correction->data : NULL, (float *)scores->data,
                    (float *)weights->data, (int *)ids->data, logits->shape[0], logits->shape[1], *r};
    if (!p.n)
        return 0;
    SW_LAUNCH(choose, (unsigned)((p.n + WARPS - 1) / WARPS), WARPS * 32, 0, s->stream, p);
    return cuda_launched(s, "route_fwd");
}

int cuda_route_bwd(sw_stream *s, sw_tensor *dlogits, const sw_tensor *dweights, const sw_tensor *scores, const sw_tensor *ids,
                   const sw_router *r, int acc)
{
    route_back p = {(float *)dlogits->data, (const float *)dweights->data, (const float *)scores->data, (const int *)ids->data,
                    dlogits->shape[0], dlogits->shape[1], acc, *r};
    if (!p.n)
        return 0;
    SW_LAUNCH(choose_back, (unsigned)((p.n + WARPS - 1) / WARPS), WARPS * 32, 0, s->stream, p);
    return cuda_launched(s, "route_bwd");
}

int cuda_dispatch(sw_stream *s, sw_tensor *start, sw_tensor *tokens, sw_tensor *pairs, sw_tensor *experts, sw_tensor *places,
                  const sw_tensor *ids)
{
    dispatch_call p = {(int *)start->data, (int *)tokens->data, (int *)pairs->data, (int *)experts->data, (int *)places->data,
                       (const int *)ids->data, ids->shape[1], start->shape[0] - 1, (int)sw_numel(ids)};
    SW_LAUNCH(sort_pairs, (unsigned)p.count, 256, 0, s->stream, p);
    return cuda_launched(s, "dispatch");
}

int cuda_place_keys(sw_stream *s, sw_tensor *keys, const sw_tensor *of, const sw_tensor *tokens, const sw_tensor *experts)
{
    int64_t n = keys->shape[0];
    if (!n)
        return 0;
    SW_LAUNCH(keys_of_places, cuda_blocks(s, n, 256), 256, 0, s->stream, (int64_t *)keys->data, (const int64_t *)of->data,
              (const int *)tokens->data, (const int *)experts->data, n);
    return cuda_launched(s, "place_keys");
}

int cuda_gather_sum(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *ids, int acc)
{
    int64_t n = y->shape[0], width = y->shape[1], total = n * ((width + RUN - 1) / RUN);
    if (!total)
        return 0;
    rows_of to = {y->data, y->dtype, {y->stride[0]}}, from = {x->data, x->dtype, {x->stride[0]}};
    SW_LAUNCH(sum_places, cuda_blocks(s, total, 256), 256, 0, s->stream, to, from, (const int *)ids->data, n, width, ids->shape[1], acc);
    return cuda_launched(s, "gather_sum");
}
