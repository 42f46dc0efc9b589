/* What the attention kernels share. A tile's row is a (query, head) pair of the heads that read one key head: row r of a
 * sequence is query r / group, head r % group of them, so that grouped queries share what is read. */
#ifndef SW_CUDA_ATTENTION_CUH
#define SW_CUDA_ATTENTION_CUH

#include "cuda_common.cuh"

#define LOG2_E 1.4426950408889634f

/* A tensor [rows, heads, width], values side by side. */
struct head_rows {
    void *data;
    int type;
    int64_t row, head;
    const int *page; /* of rows (sw_paging), or NULL */
    int bits;
    __device__ int64_t at(int64_t r, int64_t h) const
    {
        if (page)
            r = ((int64_t)page[r >> bits] << bits) + (r & ((1 << bits) - 1));
        return r * row + h * head;
    }
};

struct attention_call {
    head_rows q, k, v, out;
    float *lse;
    const int *seqs;
    int count, heads, key_heads, group, width, value_width; /* group: query heads of a key head */
    int causal;
    int64_t window;
    float scale, softcap;
    const float *alibi, *sinks;
    const uint32_t *seen; /* a bit a query row and key place, or NULL */
    int64_t seen_words;
    const float *bias; /* [heads, bias_span] by distance + bias_zero, or NULL */
    int64_t bias_span, bias_zero;
};

struct attention_seq { /* first query row, queries, first key row, keys; the tile of it */
    int64_t q0, n, k0, m, tile;
};

/* Tile `index` of all sequences' tiles, of `size` rows (or keys) each; false behind the last. */
__device__ static inline bool find_tile(const attention_call &p, int64_t index, int size, bool of_keys, attention_seq *s)
{
    for (int b = 0; b < p.count; b++) {
        int64_t n = p.seqs[4 * b + 1], m = p.seqs[4 * b + 3], items = of_keys ? m : n * p.group, tiles = (items + size - 1) / size;
        if (index < tiles) {
            *s = attention_seq{p.seqs[4 * b], n, p.seqs[4 * b + 2], m, index};
            return true;
        }
        index -= tiles;
    }
    return false;
}

/* Whether query row `row`, at a place of its sequence, sees the key at another. */
__device__ static inline bool sees(const attention_call &p, int64_t row, int64_t query, int64_t key)
{
    int64_t distance = query - key;
    if (p.causal && distance < 0)
        return false;
    if (p.seen && (key >= p.seen_words * 32 || !(p.seen[row * p.seen_words + key / 32] >> key % 32 & 1)))
        return false;
    return p.window <= 0 || (distance < 0 ? -distance : distance) < p.window;
}

/* Keys that places first .. last may see: [from, to). */
__device__ static inline void key_range(const attention_call &p, int64_t first, int64_t last, int64_t m, int64_t *from, int64_t *to)
{
    *from = p.window > 0 ? first - p.window + 1 : 0;
    *to = p.causal ? last + 1 : p.window > 0 ? last + p.window : m;
    if (*from < 0)
        *from = 0;
    if (*to > m)
        *to = m;
}

/* Queries that may see one of keys first .. last: [from, to). */
__device__ static inline void query_range(const attention_call &p, int64_t first, int64_t last, const attention_seq &s, int64_t *from, int64_t *to)
{
    int64_t shift = s.m - s.n;
    *from = p.causal ? first - shift : p.window > 0 ? first - p.window + 1 - shift : 0;
    *to = p.window > 0 ? last + p.window - shift : s.n;
    if (*from < 0)
        *from = 0;
    if (*to > s.n)
        *to = s.n;
}

/* Where a distance lies in the table of biases: outside of it, at its ends. */
__device__ static inline int64_t bias_at(const attention_call &p, int64_t distance)
{
    int64_t at = distance + p.bias_zero;
    return at < 0 ? 0 : at < p.bias_span ? at : p.bias_span - 1;
}

/* A score from its dot product; *slope is what it moves by when the scaled product moves by one. */
__device__ static inline float score_of(const attention_call &p, float dot, int head, int64_t query, int64_t key, float *slope)
{
    float x = p.scale * dot;
    *slope = 1;
    if (p.softcap > 0) {
        float t = tanhf(x / p.softcap);
        x = p.softcap * t;
        *slope = 1 - t * t;
    }
    if (p.bias)
        x += p.bias[head * p.bias_span + bias_at(p, key - query)];
    return p.alibi ? x + p.alibi[head] * (float)(key - query) : x;
}

/* Rows of a tensor as f32 into shared memory, `stride` apart, zeros behind the width and where there is no row.
 * Row r comes from row first + r / group, head + r % group. */
__device__ static inline void load_tile(float *to, int stride, const head_rows &t, int64_t first, int64_t have, int rows, int width, int padded,
                                        int64_t head, int group, int64_t skip)
{
    int runs = (padded + 3) / 4;
    for (int i = (int)threadIdx.x; i < rows * runs; i += (int)blockDim.x) {
        int r = i / runs, c = (i - r * runs) * 4;
        int64_t item = skip + r;
        float v[4] = {0};
        if (item < have && c < width)
            load_run(v, t.data, t.type, t.at(first + item / group, head + item % group) + c, width - c < 4 ? width - c : 4);
        for (int k = 0; k < 4 && c + k < padded; k++)
            to[r * stride + c + k] = v[k];
    }
}

/* What parts of the keys give: the maximum, the sum, and value_width sums, a row. */
struct attention_parts {
    float *at; /* [splits, queries, heads, 2 + value_width], or NULL: one part, written to out */
    int splits;
    int64_t rows; /* queries x heads */
};

struct gradient_call {
    attention_call p;
    head_rows dout, dq, dk, dv;
    const float *lse;
    float *delta;   /* [queries, heads]: dout . out */
    int rows, keys; /* of a tile */
    float *dbias;   /* [row tiles, heads, bias_span]: what each tile adds, or NULL */
};

/* Whether every head's runs of eight 16-bit values begin at multiples of 16 bytes. */
static inline bool whole_runs(const head_rows &t) { return (uintptr_t)t.data % 16 == 0 && t.row % RUN == 0 && t.head % RUN == 0; }
head_rows cuda_head_rows(const sw_tensor *t);
attention_call cuda_attention_call(const sw_tensor *out, const sw_tensor *lse, const sw_tensor *q, const sw_tensor *k, const sw_tensor *v,
                                   const sw_tensor *seqs, const sw_attention *a);
/* How to split the keys when `blocks` are too few to fill the GPU: parts of `least` keys at least, in temporary space. */
int cuda_attention_split(sw_stream *s, const attention_call &p, int64_t queries, int64_t keys, int64_t blocks, int64_t least,
                         attention_parts *split);
/* Joins the parts, where there are several. */
int cuda_attention_join(sw_stream *s, const attention_call &p, const attention_parts &split);
/* Few queries over many keys; both widths at most 256. */
int cuda_attention_few(sw_stream *s, const attention_call &p, int64_t queries, int64_t keys);
/* Whether tensor cores can do the call: the GPU, the types, and heads of at most that width. */
bool cuda_mma_serves(const sw_stream *s, const attention_call &p, int most_width);
/* The tensor-core kernels, where they serve the call: 1 done, 0 not for them, -1 failed. */
int cuda_attention_mma(sw_stream *s, const attention_call &p, int64_t queries);
int cuda_attention_bwd_mma(sw_stream *s, const gradient_call &c, int64_t queries, int64_t keys);
/* The same by warpgroups. */
bool cuda_wgmma_serves(const sw_stream *s, const attention_call &p);
int cuda_attention_wgmma(sw_stream *s, const attention_call &p, int64_t queries);
int cuda_attention_bwd_wgmma(sw_stream *s, const gradient_call &c, int64_t queries, int64_t keys);

#endif
