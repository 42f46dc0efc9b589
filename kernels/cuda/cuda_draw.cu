/* Drawing tokens from logits, a block a row, without sorting them: where a cut or the draw falls in the order of the logits is
 * found a byte of their bits at a time, from histograms of how many there are, or of how much probability they have. That is
 * counted in whole steps of 2^-44 of the best one's, so that sums do not depend on their order. Between the passes the
 * logits stay in the caches: a row of 128,256 is 0.5 MB; with top-k and top-p 13 passes, 1.7 million exponentials in
 * double, about 0.3 ms on the one SM, as much for 132 rows. */
#include "cuda_common.cuh"

namespace {

enum { THREADS = 512 };
typedef unsigned long long amount;

struct best_of { /* the first largest */
    float value;
    int id;
};
struct joined {
    __device__ best_of operator()(best_of a, best_of b) const { return b.value > a.value || (b.value == a.value && b.id < a.id) ? b : a; }
    __device__ double operator()(double a, double b) const { return a + b; }
    __device__ amount operator()(amount a, amount b) const { return a + b; }
};
/* Of all threads, for all threads; space [THREADS] */
template <class T> __device__ T block_joined(T v, T *space)
{
    __syncthreads();
    space[threadIdx.x] = v;
    for (int d = THREADS / 2; d; d >>= 1) {
        __syncthreads();
        if ((int)threadIdx.x < d)
            space[threadIdx.x] = joined()(space[threadIdx.x], space[threadIdx.x + d]);
    }
    __syncthreads();
    return space[0];
}

/* Larger values have larger keys; both zeros have one. */
__device__ inline unsigned key_of(float x)
{
    unsigned b = __float_as_uint(x == 0 ? 0 : x);
    return b >> 31 ? ~b : b | 0x80000000u;
}

/* Tokens that may be drawn: the best ones up to a token. */
struct pool {
    const float *logits;
    int64_t vocab;
    float floor, top;
    double temperature, min_share;
    unsigned last_key;
    int last_id;
    __device__ double share(float x) const { return exp(((double)x - top) / temperature); }
    __device__ amount weight(float x) const { return (amount)(share(x) * 0x1p44 + 0.5); }
    __device__ bool has(int64_t i) const
    {
        float x = logits[i];
        unsigned key = x >= floor ? key_of(x) : 0;
        return x >= floor && (key > last_key || (key == last_key && i <= last_id)) && (min_share <= 0 || share(x) >= min_share);
    }
};

union scratch {
    best_of best[THREADS];
    double sums[THREADS];
    amount amounts[THREADS];
    int counts[THREADS];
};
struct search {
    unsigned prefix;
    int id;
    amount before; /* of tokens before the one that is sought */
};

__device__ amount total_of(const pool &p, scratch *space)
{
    amount sum = 0;
    for (int64_t i = threadIdx.x; i < p.vocab; i += THREADS)
        sum += p.has(i) ? p.weight(p.logits[i]) : 0;
    return block_joined(sum, space->amounts);
}

/* The first token in order with which the amount reaches target (> 0; not more than there is): the pool ends with it. Amounts
 * are numbers of tokens, or their weights. Gives the amount up to it. */
__device__ amount cut(pool *p, amount target, bool count, scratch *space, search *found)
{
    __syncthreads();
    if (threadIdx.x == 0)
        *found = search{0, 0, 0};
    for (int shift = 24; shift >= 0; shift -= 8) {
        __syncthreads();
        unsigned prefix = found->prefix;
        if (threadIdx.x < 256)
            space->amounts[threadIdx.x] = 0;
        __syncthreads();
        for (int64_t i = threadIdx.x; i < p->vocab; i += THREADS) {
            unsigned key = key_of(p->logits[i]);
            if ((shift == 24 || key >> (shift + 8) == prefix) && p->has(i))
                atomicAdd(&space->amounts[key >> shift & 255], count ? (amount)1 : p->weight(p->logits[i]));
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int digit = 255;
            while (digit && found->before + space->amounts[digit] < target)
                found->before += space->amounts[digit--];
            found->prefix = prefix << 8 | (unsigned)digit;
        }
    }
    __syncthreads();
    /* those with this key, in order of their ids: each thread counts in a stretch of its own */
    unsigned key = found->prefix;
    int64_t each = (p->vocab + THREADS - 1) / THREADS, from = each * threadIdx.x, to = from + each < p->vocab ? from + each : p->vocab;
    int mine = 0;
    float value = 0;
    for (int64_t i = from; i < to; i++)
        if (key_of(p->logits[i]) == key && p->has(i)) {
            mine++;
            value = p->logits[i];
        }
    space->counts[threadIdx.x] = mine;
    __syncthreads();
    amount before = found->before;
    int earlier = 0, all = 0;
    for (int t = 0; t < THREADS; t++) {
        all += space->counts[t];
        earlier += t < (int)threadIdx.x ? space->counts[t] : 0;
    }
    __syncthreads();
    if (mine) {
        amount one = count ? 1 : p->weight(value), wanted = (target - before + one - 1) / one;
        int need = wanted < (amount)all ? (int)wanted : all;
        if (need > earlier && need <= earlier + mine)
            for (int64_t i = from; i < to; i++)
                if (key_of(p->logits[i]) == key && p->has(i) && ++earlier == need) {
                    found->id = (int)i;
                    found->before = before + (amount)need * one;
                }
    }
    __syncthreads();
    p->last_key = key;
    p->last_id = found->id;
    return found->before;
}

__device__ int draw_from(pool p, const sw_draw &d, int best, scratch *space, search *found)
{
    if (d.top_k > 0) {
        amount mine = 0;
        for (int64_t i = threadIdx.x; i < p.vocab; i += THREADS)
            mine += p.has(i);
        if (block_joined(mine, space->amounts) > (amount)d.top_k)
            cut(&p, (amount)d.top_k, true, space, found);
    }
    amount total = total_of(p, space);
    if (d.top_p < 1) {
        double reach = ceil(d.top_p * (double)total);
        amount target = reach < 1 ? 1 : (amount)reach;
        total = cut(&p, target < total ? target : total, false, space, found);
    }
    if (d.min_p > 0) {
        p.min_share = d.min_p;
        total = total_of(p, space);
    }
    if (!total)
        return best;
    unsigned words[4];
    sw_philox(&d.rng, d.place >> 2, words);
    amount at = (amount)((double)words[d.place & 3] * 0x1p-32 * (double)total) + 1;
    cut(&p, at < total ? at : total, false, space, found);
    return p.last_id;
}

__device__ best_of largest(const float *logits, int64_t vocab, scratch *space)
{
    best_of a = {-INFINITY, 0x7fffffff};
#pragma unroll 16 /* loads under way at a time */
    for (int64_t i = threadIdx.x; i < vocab; i += THREADS)
        a = joined()(a, best_of{logits[i], (int)i});
    a = block_joined(a, space->best);
    return a.id == 0x7fffffff ? best_of{logits[0], 0} : a;
}

/* 16 greedy rows of 128,256: 8 MB, 3 us. */
__global__ void __launch_bounds__(THREADS)
draw_tokens(double *out, float *logits, int64_t stride, int64_t vocab, const sw_draw *draws, const int *seen, float *plain)
{
    __shared__ scratch space;
    __shared__ search found;
    begin_early();
    const sw_draw d = draws[blockIdx.x];
    logits += blockIdx.x * stride;
    out += 2 * (int64_t)blockIdx.x;
    if (d.forced >= 0) {
        if (threadIdx.x == 0) {
            out[0] = d.forced;
            out[1] = 0;
        }
        return;
    }
    double log_sum = 0;
    if (d.want_logp) {
        best_of top = largest(logits, vocab, &space);
        for (int64_t i = threadIdx.x; i < vocab; i += THREADS)
            log_sum += exp((double)logits[i] - top.value);
        log_sum = top.value + log(block_joined(log_sum, space.sums));
    }
    __syncthreads();
    seen += 2 * (int64_t)d.seen_first;
    plain += d.seen_first;
    for (int i = (int)threadIdx.x; i < d.seen_count; i += THREADS) {
        int id = seen[2 * i], times = seen[2 * i + 1];
        if (id < 0 || id >= vocab)
            continue;
        float x = plain[i] = logits[id];
        if (d.repetition_penalty != 1)
            x = (float)(x > 0 ? x / d.repetition_penalty : x * d.repetition_penalty);
        if (times)
            x -= (float)(d.presence_penalty + d.frequency_penalty * times);
        logits[id] = x;
    }
    __syncthreads();
    best_of best = largest(logits, vocab, &space);
    int id = best.id;
    if (d.temperature > 0) {
        pool p = {logits, vocab, best.value - (float)(d.temperature * 40), best.value, d.temperature, 0, 0, 0x7fffffff};
        id = draw_from(p, d, best.id, &space, &found);
    }
    if (threadIdx.x)
        return;
    out[0] = id;
    out[1] = 0;
    if (d.want_logp) {
        float logit = logits[id];
        for (int i = 0; i < d.seen_count; i++)
            logit = seen[2 * i] == id ? plain[i] : logit;
        out[1] = (double)logit - log_sum;
    }
}

} // namespace

int cuda_sample(sw_stream *s, sw_tensor *out, sw_tensor *logits, const sw_tensor *draws, const sw_tensor *seen)
{
    int64_t rows = logits->shape[0];
    float *plain = rows ? (float *)cuda_scratch(s, (size_t)(seen->shape[0] + 1) * sizeof(float)) : NULL;
    if (!plain)
        return rows ? -1 : 0;
    SW_LAUNCH_EARLY(draw_tokens, (unsigned)rows, THREADS, 0, s, (double *)out->data, (float *)logits->data, logits->stride[0], logits->shape[1],
                    (const sw_draw *)draws->data, (const int *)seen->data, plain);
    return cuda_launched(s, "sample");
}
