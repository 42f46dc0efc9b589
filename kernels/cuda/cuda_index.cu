/* An indexer's scores for few queries, and what is chosen by them. */
#include "cuda_common.cuh"

#include "kernels/select.h"

namespace {

struct query_of { /* first key row, the sequence's keys, and those that the query sees */
    int64_t k0, m, seen;
};
__device__ inline bool find_query(const int *seqs, int count, int64_t every, int64_t row, query_of *q)
{
    for (int b = 0; b < count; b++) {
        int64_t at = row - seqs[4 * b], n = seqs[4 * b + 1], tokens = seqs[4 * b + 3];
        if (at >= 0 && at < n) {
            *q = query_of{seqs[4 * b + 2], tokens / every, (tokens - n + at + 1) / every};
            return true;
        }
    }
    return false;
}
__device__ inline int64_t paged(const int *page, int bits, int64_t r)
{
    return page ? ((int64_t)page[r >> bits] << bits) + (r & ((1 << bits) - 1)) : r;
}

enum { WARPS = 4, EACH = 8, KEYS = WARPS * EACH };

struct scoring {
    float *scores;
    const float *weights;
    const void *q, *k;
    int type, heads, width, count, bits;
    int64_t score_row, weight_row, q_row, q_head, k_row, every;
    const int *seqs, *page;
};

/* A block has KEYS keys of a query; a lane has heads, so that no sum goes over lanes but the last. A head's query is in shared
 * memory, one value further than its width, a warp's key beside it.
 * One query, 32,768 keys of 128, 64 heads: 8 MB, 0.5 GFLOP; two reads of shared memory a step: 10 us. */
__global__ void __launch_bounds__(WARPS * 32) score_keys(scoring p)
{
    SW_DYNAMIC_SHARED(float, shared); /* [heads][width + 1], [WARPS][width] */
    int64_t row = blockIdx.y, first = (int64_t)blockIdx.x * KEYS;
    query_of s;
    if (!find_query(p.seqs, p.count, p.every, row, &s) || first >= s.seen)
        return;
    int line = p.width + 1, warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    float *key = shared + p.heads * line + warp * p.width;
    for (int i = (int)threadIdx.x; i < p.heads * p.width; i += WARPS * 32)
        shared[i / p.width * line + i % p.width] = value_of(p.q, p.type, row * p.q_row + i / p.width * p.q_head + i % p.width);
    __syncthreads();
    for (int64_t j = first + warp * EACH; j < first + (warp + 1) * EACH && j < s.seen; j++) {
        int64_t at = paged(p.page, p.bits, s.k0 + j) * p.k_row;
        for (int d = lane; d < p.width; d += 32)
            key[d] = value_of(p.k, p.type, at + d);
        __syncwarp();
        float sum = 0;
        for (int h = lane; h < p.heads; h += 32) {
            float dot = 0;
            for (int d = 0; d < p.width; d++)
                dot += shared[h * line + d] * key[d];
            sum += dot > 0 ? p.weights[row * p.weight_row + h] * dot : 0;
        }
        sum = warp_sum(sum);
        if (lane == 0)
            p.scores[row * p.score_row + j] = sum;
        __syncwarp();
    }
}

enum { THREADS = 256 };

struct choosing {
    unsigned *bits;
    int *rows;
    const float *scores;
    int64_t score_row, bits_row, rows_row, words, every, k, among, most; /* most: keys that space is for */
    const int *seqs, *page;
    int count, page_bits;
    unsigned *chosen; /* [N, most / 32 + 1] */
    sw_scored *space; /* [N, most] */
};

/* Larger scores have larger keys; both zeros have one, NaN that of -infinity. */
__device__ inline unsigned key_of(float x)
{
    unsigned b = __float_as_uint(x != x ? -INFINITY : x == 0 ? 0 : x);
    return b >> 31 ? ~b : b | 0x80000000u;
}

/* A block a query. The k-th largest is found a byte at a time; where more are equal to it than are taken, one thread takes them as
 * the reference does.
 * One query, 32,768 scores: five passes over 128 KB in the caches, 5 us; equal ones in doubt, 1 ms. */
__global__ void __launch_bounds__(THREADS) choose_keys(choosing p)
{
    __shared__ int amount[256], before, above;
    __shared__ unsigned prefix;
    int64_t row = blockIdx.x;
    query_of s;
    if (!find_query(p.seqs, p.count, p.every, row, &s))
        return;
    const float *score = p.scores + row * p.score_row;
    unsigned *chosen = p.chosen + row * (p.most / 32 + 1);
    int64_t seen = s.seen, words = (seen + 31) / 32;
    if (threadIdx.x == 0) {
        prefix = 0;
        above = 0;
    }
    bool plain = true;
    if (seen > p.k) {
        for (int shift = 24; shift >= 0; shift -= 8) {
            amount[threadIdx.x] = 0;
            __syncthreads();
            unsigned high = prefix;
            for (int64_t j = threadIdx.x; j < seen; j += THREADS) {
                unsigned key = key_of(score[j]);
                if (shift == 24 || key >> (shift + 8) == high)
                    atomicAdd(&amount[key >> shift & 255], 1);
            }
            __syncthreads();
            if (threadIdx.x == 0) {
                int digit = 255;
                while (digit && above + amount[digit] < p.k)
                    above += amount[digit--];
                prefix = high << 8 | (unsigned)digit;
                before = above + amount[digit];
            }
            __syncthreads();
        }
        plain = before == p.k && prefix > key_of(-INFINITY);
    }
    __syncthreads();
    unsigned least = seen > p.k ? prefix : 0;
    if (plain) {
        for (int64_t w = threadIdx.x; w < words; w += THREADS) {
            unsigned b = 0;
            for (int i = 0; i < 32 && w * 32 + i < seen; i++)
                b |= (seen <= p.k || key_of(score[w * 32 + i]) >= least ? 1u : 0u) << i;
            chosen[w] = b;
        }
    } else {
        sw_scored *all = p.space + row * p.most;
        int64_t m = s.m > p.among ? s.m : p.among;
        for (int64_t j = threadIdx.x; j < m; j += THREADS)
            all[j] = sw_scored{j < seen && score[j] == score[j] ? score[j] : -INFINITY, (int)j};
        for (int64_t w = threadIdx.x; w < words; w += THREADS)
            chosen[w] = 0;
        __syncthreads();
        if (threadIdx.x == 0) {
            sw_largest_first(all, m, p.k);
            for (int64_t i = 0; i < p.k; i++)
                if (all[i].place < seen)
                    chosen[all[i].place / 32] |= 1u << all[i].place % 32;
        }
    }
    __syncthreads();
    if (p.bits)
        for (int64_t w = threadIdx.x; w < p.words; w += THREADS)
            p.bits[row * p.bits_row + w] = w < words ? chosen[w] : 0;
    if (!p.rows)
        return;
    int64_t each = (words + THREADS - 1) / THREADS, from = each * threadIdx.x, to = from + each < words ? from + each : words;
    int mine = 0, at = 0, all = 0, *rows = p.rows + row * p.rows_row;
    for (int64_t w = from; w < to; w++)
        mine += __popc(chosen[w]);
    amount[threadIdx.x] = mine;
    __syncthreads();
    for (int t = 0; t < THREADS; t++) {
        at += t < (int)threadIdx.x ? amount[t] : 0;
        all += amount[t];
    }
    for (int64_t w = from; w < to; w++)
        for (int i = 0; i < 32; i++)
            if (chosen[w] >> i & 1)
                rows[at++] = (int)paged(p.page, p.page_bits, s.k0 + w * 32 + i);
    for (int64_t i = all + (int64_t)threadIdx.x; i < p.k; i += THREADS)
        rows[i] = -1;
}

} // namespace

int cuda_index_scores(sw_stream *s, sw_tensor *scores, const sw_tensor *q, const sw_tensor *k, const sw_tensor *weights, const sw_tensor *seqs,
                      const sw_paging *paging, int64_t every)
{
    int64_t n = q->shape[0], most = scores->shape[1];
    if (!n || !most)
        return 0;
    scoring p = {(float *)scores->data, (const float *)weights->data, q->data, k->data, q->dtype, (int)q->shape[1], (int)q->shape[2],
                 (int)seqs->shape[0], paging->bits, scores->stride[0], weights->stride[0], q->stride[0], q->stride[1], k->stride[0],
                 every, (const int *)seqs->data, paging->page};
    size_t bytes = (size_t)(p.heads * (p.width + 1) + WARPS * p.width) * sizeof(float);
    if (cuda_shared(s, score_keys, bytes, "an indexer"))
        return -1;
    SW_LAUNCH(score_keys, dim3((unsigned)((most + KEYS - 1) / KEYS), (unsigned)n), WARPS * 32, bytes, s->stream, p);
    return cuda_launched(s, "index_scores");
}

int cuda_index_choose(sw_stream *s, sw_tensor *bits, sw_tensor *rows, const sw_tensor *scores, const sw_tensor *seqs, const sw_paging *paging,
                      int64_t every, int64_t k, int64_t among)
{
    int64_t n = scores->shape[0], most = scores->shape[1] > among ? scores->shape[1] : among;
    if (!n)
        return 0;
    size_t space = cuda_padded((size_t)(n * most) * sizeof(sw_scored));
    char *scratch = (char *)cuda_scratch(s, space + (size_t)(n * (most / 32 + 1)) * sizeof(unsigned));
    if (!scratch)
        return -1;
    choosing p = {bits ? (unsigned *)bits->data : NULL, rows ? (int *)rows->data : NULL, (const float *)scores->data, scores->stride[0],
                  bits ? bits->stride[0] : 0, rows ? rows->stride[0] : 0, bits ? bits->shape[1] : 0, every, k, among, most, (const int *)seqs->data,
                  paging->page, (int)seqs->shape[0], paging->bits, (unsigned *)(scratch + space), (sw_scored *)scratch};
    SW_LAUNCH(choose_keys, (unsigned)n, THREADS, 0, s->stream, p);
    return cuda_launched(s, "index_choose");
}
