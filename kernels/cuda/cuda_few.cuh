/* What a kernel of few rows of x (cuda_few.cu) is given, and weights that go through a ring in shared memory as they are stored. */
#ifndef SW_CUDA_FEW_CUH
#define SW_CUDA_FEW_CUH

#include "cuda_blocks.cuh"
#include "cuda_copies.cuh"
#include "cuda_fuse.cuh"
#include "cuda_grouped.cuh"

/* Another matrix that the same rows are multiplied by. */
struct few_other {
    void *y;
    const void *w, *bias;
    int64_t out, y_row; /* y_row: stride of rows of y */
    scales_of scales;
    unsigned block; /* the first that has its outputs */
};

struct few_call {
    rows_of y, x, w; /* stride[0]: of rows */
    const void *bias;
    int bias_type, in;
    int64_t out;
    float alpha, beta;
    scales_of scales; /* of w */
    group_list groups;  /* start NULL: all rows have w */
    int64_t bias_step;  /* values, from one group's to the next's */
    int64_t y_head, x_head, w_head; /* how far the next head is, in values; grid.z heads */
    /* of few: outputs a block, pieces of a row of weights, values of a piece; how far a warp's next piece is, in rows and pieces */
    int rows, pieces, piece, down, across;
    bool unwritten; /* no kernel writes to a matrix that this one may run beside */
    void *gated;    /* or NULL; takes act(y) * other[0].y, rows gated_row apart; blocks have the same outputs of both matrices */
    int64_t gated_row;
    int act;
    int others; /* of few */
    few_other other[CUDA_TOGETHER - 1];
};

enum { FEW_WARPS = 8 };

/* How a type of weights is read. A lane has WORD values of a row at a step: 16 bytes, or of types of blocks two runs. */
template <int TYPE> struct few_type {
    enum { FLOAT8 = TYPE == SW_F8_E4M3 || TYPE == SW_F8_E5M2, BLOCKS = TYPE >= SW_Q4_0 };
    enum { SIZE = stored_run<TYPE>::SIZE, WORD = BLOCKS ? 2 * RUN : 16 / SIZE, STEP = 32 * WORD };
    enum { TOGETHER = BLOCKS ? 1 : FLOAT8 ? 2 : 4 };           /* rows that a warp goes along at a time */
    enum { STAGES = 12 / TOGETHER, STAGE = TOGETHER * 32 };    /* words of 16 bytes */
    enum { RING = BLOCKS ? 0 : FEW_WARPS * STAGES * STAGE };
    enum { SUMS = BLOCKS ? 512 : 1024 };                       /* of a block, for each row of x */
    enum { AN_SM = BLOCKS ? 4 : 2 };                           /* blocks at work */
};
/* Blocks that an SM has room for: those of the product to come wait beside those at work. */
template <int TYPE, int ROWS> constexpr int few_room()
{
    return few_type<TYPE>::BLOCKS ? 4 : ROWS > 1 ? 2 : few_type<TYPE>::FLOAT8 ? 3 : 4;
}

/* The rows of weights of a block. */
struct few_rows {
    const char *first, *second; /* row 0; row `half`, the first of the other matrix (gated) */
    int64_t bytes;              /* from one to the next */
    int there, half, all;       /* of a matrix; where the second begins, which may be behind what is there; of both */
    __device__ const char *at(int r) const { return r < half ? first + r * bytes : second + (r - half) * bytes; }
    __device__ int left(int r) const { return there - (r < half ? r : r - half); } /* from r on, of its matrix */
};

/* Where a warp is: a piece of TOGETHER rows. */
template <int TOGETHER> struct few_place {
    int row, piece, i, end; /* i, end: values of the row, the next and that behind the piece */
    __device__ few_place(const few_call &p, int first) : row(first / p.pieces * TOGETHER), piece(first % p.pieces) { begin(p); }
    __device__ void begin(const few_call &p)
    {
        i = piece * p.piece;
        end = i + p.piece < p.in ? i + p.piece : p.in;
    }
    /* The next of `step` values; whether it is of the next piece. */
    __device__ bool advance(const few_call &p, int step)
    {
        i += step;
        if (i < end)
            return false;
        piece += p.across;
        row += (p.down + (piece >= p.pieces)) * TOGETHER;
        piece -= piece >= p.pieces ? p.pieces : 0;
        begin(p);
        return true;
    }
};

/* ---- weights as they are stored */

/* A word of n values (fewer than one: none) that lies anyhow, zeros behind. */
template <int TYPE> __device__ inline uint4 plain_word(const char *p, int n)
{
    constexpr int SIZE = few_type<TYPE>::SIZE;
    unsigned u[4] = {0, 0, 0, 0};
    for (int k = 0; k < few_type<TYPE>::WORD; k++)
        if (k < n) {
            unsigned bits = SIZE == 4 ? ((const unsigned *)p)[k] : SIZE == 2 ? ((const uint16_t *)p)[k] : ((const uint8_t *)p)[k];
            u[k * SIZE / 4] |= bits << k * SIZE % 4 * 8;
        }
    return uint4{u[0], u[1], u[2], u[3]};
}

/* The steps of a warp on their way: each lane copies what it will itself read, so that it waits for no other. */
template <int TYPE> struct few_ring {
    typedef few_type<TYPE> how;
    uint4 *words; /* the lane's first; a stage is TOGETHER rows of 32 */
    few_place<how::TOGETHER> there;
    const char *from; /* where the lane's word of the first row lies */
    read_once once;
    bool aligned;     /* rows begin at multiples of 16 bytes; others are waited for */
    __device__ few_ring(uint4 *shared, const few_call &p)
        : words(shared + threadIdx.x / 32 * (how::STAGES * how::STAGE) + threadIdx.x % 32), there(p, (int)threadIdx.x / 32)
    {
    }
    __device__ void fill(int stage, const few_call &p, const few_rows &w)
    {
        if (there.row < w.all) {
            int left = p.in - there.i - (int)(threadIdx.x % 32) * how::WORD, rows = w.left(there.row);
            uint4 *to = words + stage * how::STAGE;
            if (aligned && left >= how::WORD && rows >= how::TOGETHER) {
#pragma unroll
                for (int t = 0; t < how::TOGETHER; t++)
                    copy_async(to + t * 32, from + t * w.bytes, once);
            } else {
                int bytes = left >= how::WORD ? 16 : left > 0 ? left * how::SIZE : 0;
#pragma unroll 1
                for (int t = 0; t < how::TOGETHER; t++) {
                    if (aligned)
                        copy_async(to + t * 32, from + t * w.bytes, t < rows ? bytes : 0);
                    else
                        to[t * 32] = plain_word<TYPE>(from + t * w.bytes, t < rows ? left : 0);
                }
            }
            if (there.advance(p, how::STEP))
                go_there(w);
            else
                from += how::STEP * how::SIZE;
        }
        commit_copies();
    }
    __device__ void go_there(const few_rows &w)
    {
        from = w.at(there.row) + (int64_t)(there.i + (int)(threadIdx.x % 32) * how::WORD) * how::SIZE;
    }
    __device__ void fill_all(const few_call &p, const few_rows &w)
    {
        aligned = (((uintptr_t)w.first | (uintptr_t)w.second | (uintptr_t)w.bytes) & 15) == 0;
        go_there(w);
#pragma unroll 1
        for (int k = 0; k < how::STAGES; k++)
            fill(k, p, w);
    }
};

/* Values of a word: all of them, or of 8-bit floats run number `part`, n values that begin at value `at` of a row with these scales. */
template <int TYPE, int N>
__device__ inline void word_values(float (&v)[N], const uint4 &word, int part, const scales_of &scales, const scale_row &scale, int at, int n)
{
    const unsigned u[4] = {word.x, word.y, word.z, word.w};
    if constexpr (few_type<TYPE>::FLOAT8) {
        const unsigned bytes[2] = {u[2 * part], u[2 * part + 1]};
        float8_run(v, bytes, TYPE, n, scales, scale, at);
    } else {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if constexpr (TYPE == SW_F32) {
                v[k] = __uint_as_float(u[k]);
            } else {
                float2 pair = pair_values(TYPE, u[k]);
                v[2 * k] = pair.x, v[2 * k + 1] = pair.y;
            }
        }
    }
}

/* What the pieces of a block's rows of weights give, into sums[rows of x][rows of weights][pieces]. The ring is full. Blocks of scales
 * of two matrices are as wide. */
template <int TYPE, int ROWS>
__device__ inline void sum_words(float *sums, const few_call &p, const few_rows &w, const group_tile &t, int64_t head, few_ring<TYPE> &ring,
                                 const scales_of &scales)
{
    typedef few_type<TYPE> how;
    constexpr int T = how::TOGETHER, WORD = how::WORD, N = WORD < RUN ? WORD : (int)RUN;
    int lane = (int)threadIdx.x % 32, stage = 0;
    const char *rows_of_x = (const char *)p.x.data + (head * p.x_head + t.first * p.x.stride[0]) * (p.x.type == SW_F32 ? 4 : 2);
    few_place<T> here(p, (int)threadIdx.x / 32);
    float sum[ROWS][T] = {{0}};
#pragma unroll 1
    while (here.row < w.all) {
        int row = here.row, piece = here.piece, i = here.i + lane * WORD;
        bool last = here.advance(p, how::STEP);
        float x[N];
        load_run(x, rows_of_x, p.x.type, i, p.in - i);
        uint4 word[T];
        wait_copies<how::STAGES - 1>();
#pragma unroll
        for (int k = 0; k < T; k++)
            word[k] = ring.words[stage * how::STAGE + k * 32];
        scale_row scale[T] = {};
#pragma unroll
        for (int k = 0; k < T && how::FLOAT8; k++)
            if (k < w.left(row)) {
                const uint8_t *at = (const uint8_t *)w.at(row) + k * w.bytes;
                scale[k] = row < w.half ? scale_row_at(scales, at) : scale_row_at(p.other[0].scales, at);
            }
#pragma unroll
        for (int part = 0; part < WORD / N; part++)
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                int at = i + part * N;
                if (r && r >= t.n)
                    continue;
                if (r || part)
                    load_run(x, rows_of_x, p.x.type, r * p.x.stride[0] + at, p.in - at);
#pragma unroll
                for (int k = 0; k < T; k++) {
                    float v[N];
                    word_values<TYPE>(v, word[k], part, scales, scale[k], at, p.in - at);
#pragma unroll
                    for (int j = 0; j < N; j++)
                        sum[r][k] += v[j] * x[j];
                }
            }
        ring.fill(stage, p, w);
        stage = stage + 1 == how::STAGES ? 0 : stage + 1;
        if (last) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                halve<T / 2>(sum[r], lane); /* lane k has the sum of row k, over the lanes of as many */
                float total = sum[r][0];
#pragma unroll
                for (int d = T; d < 32; d *= 2)
                    total += __shfl_xor_sync(FULL_WARP, total, d);
                if (lane < T)
                    sums[r * how::SUMS + (row + lane) * p.pieces + piece] = total;
#pragma unroll
                for (int k = 0; k < T; k++)
                    sum[r][k] = 0;
            }
        }
    }
}

#endif
