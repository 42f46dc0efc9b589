/* Products of rows in groups where both sides are of one 16-bit type in whole runs of 16 bytes, as experts are trained and read: all
 * copies are cp.async of a known number, and each thread knows where its own lie. */
#include "cuda_grouped_mma.cuh"

namespace {

enum { DEPTH = GROUPED_DEPTH, COLUMNS = GROUPED_COLUMNS };

/* What a thread copies of tiles of LINES x ACROSS, which go along k: down a matrix (DOWN), or to the right. Zeros behind its end. */
template <int LINES, int ACROSS, int THREADS, bool DOWN> struct tile_copies {
    enum { RUNS = ACROSS / 8, EACH = THREADS / RUNS, N = LINES / EACH, STRIDE = ACROSS + 8, VALUES = LINES * STRIDE };
    static_assert(LINES % EACH == 0, "whole passes");
    const uint16_t *matrix;
    int64_t ld, at; /* at: the thread's first place */
    int to, lines, columns; /* that there are from there on, of lines in this tile */
    /* A matrix [lines_of_it, columns_of_it], of which the tiles begin at (line, column). */
    __device__ tile_copies(const void *m, int64_t ld_, int64_t line, int64_t lines_of_it, int64_t column, int64_t columns_of_it)
        : matrix((const uint16_t *)m), ld(ld_)
    {
        int r = (int)threadIdx.x / RUNS, c = (int)threadIdx.x % RUNS * 8;
        at = (line + r) * ld + column + c;
        to = r * STRIDE + c;
        lines = (int)(lines_of_it - line) - r;
        columns = (int)(columns_of_it - column) - c;
    }
    __device__ void copy(uint16_t *tile, int k) const
    {
        const uint16_t *from = matrix + at + (DOWN ? k * ld : k);
        int left = DOWN ? lines - k : lines;
        bool across = (DOWN ? columns : columns - k) > 0;
#pragma unroll
        for (int i = 0; i < N; i++) {
            bool there = across && i * EACH < left;
            copy_async(tile + to + i * EACH * STRIDE, there ? from + i * EACH * ld : matrix, there ? 16 : 0);
        }
    }
};

__device__ __forceinline__ float2 pair_at(const void *p, int type, int64_t i)
{
    return type == SW_F32 ? *(const float2 *)((const float *)p + i) : pair_values(type, *(const unsigned *)((const uint16_t *)p + i));
}

/* Rows of ROWS a block, warps of 32 x 64. STAGES tiles of both sides are in shared memory. */
template <int ROWS> struct shape {
    enum { THREADS = ROWS * 2, STAGES = ROWS == 128 ? 3 : 2, BLOCKS = ROWS == 128 ? 2 : 4 };
};
template <int FORM, int ROWS> struct sides {
    enum { THREADS = shape<ROWS>::THREADS };
    typedef typename std::conditional<FORM == BACK_W, tile_copies<DEPTH, ROWS, THREADS, true>, tile_copies<ROWS, DEPTH, THREADS, false>>::type a;
    typedef typename std::conditional<FORM != FORWARD, tile_copies<DEPTH, COLUMNS, THREADS, true>, tile_copies<COLUMNS, DEPTH, THREADS, false>>::type b;
    enum { VALUES = a::VALUES + b::VALUES, BYTES = shape<ROWS>::STAGES * VALUES * 2 };
};

/* 65536 rows of 128 experts, 2048 by 768 (8192 tokens of Qwen3-30B-A3B), in bf16: 206 GFLOP, 0.21 ms at the limit, of which
 * mma.sync reaches about 60 %; 0.77 GB, 0.23 ms. Of 8 experts, 4096 by 14336 (Mixtral, 16384 rows): 1.9 TFLOP, 1.95 ms; 1.5 GB. */
template <bool BF16, int FORM, int ROWS> __global__ void __launch_bounds__(ROWS * 2, shape<ROWS>::BLOCKS) grouped_runs(grouped_call p)
{
    typedef typename sides<FORM, ROWS>::a a_tile;
    typedef typename sides<FORM, ROWS>::b b_tile;
    const bool A_TURNED = FORM == BACK_W, B_TURNED = FORM != FORWARD;
    enum { STAGES = shape<ROWS>::STAGES, VALUES = sides<FORM, ROWS>::VALUES };
    SW_DYNAMIC_SHARED(uint16_t, shared);
    begin_early();
    cuda_product q;
    int64_t row, column = (int64_t)blockIdx.y * COLUMNS;
    if (!locate<FORM>(p, ROWS, &q, &row))
        return;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, down = warp / 2 * 32, across = warp % 2 * 64, depth = (int)q.k;
    const a_tile a(q.a, q.a_ld, A_TURNED ? 0 : row, A_TURNED ? depth : q.m, A_TURNED ? row : 0, A_TURNED ? q.m : depth);
    const b_tile b(q.b, q.b_ld, B_TURNED ? 0 : column, B_TURNED ? depth : q.n, B_TURNED ? column : 0, B_TURNED ? q.n : depth);
    auto load = [&](int stage, int k) {
        if (k < depth) {
            a.copy(shared + stage * VALUES, k);
            b.copy(shared + stage * VALUES + a_tile::VALUES, k);
        }
        commit_copies();
    };
    float c[2][8][4] = {{{0}}};
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++)
        load(i, i * DEPTH);
    int stage = 0, next = STAGES - 1;
#pragma unroll 1
    for (int k = 0; k < depth; k += DEPTH) {
        wait_copies<STAGES - 2>();
        __syncthreads(); /* these are there, nobody needs those before them */
        load(next, k + (STAGES - 1) * DEPTH);
        const uint16_t *x = shared + stage * VALUES, *y = x + a_tile::VALUES;
        multiply_block<BF16, A_TURNED, B_TURNED, a_tile::STRIDE, b_tile::STRIDE>(c, A_TURNED ? x + down : x + down * a_tile::STRIDE,
                                                                                 B_TURNED ? y + across : y + across * b_tile::STRIDE);
        stage = stage + 1 < STAGES ? stage + 1 : 0;
        next = next + 1 < STAGES ? next + 1 : 0;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int64_t r = row + down + i * 8 + lane / 4;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            int64_t o = column + across + n * 8 + lane % 4 * 2, at = r * q.c_ld + o;
            if (r >= q.m || o >= q.n)
                continue;
            float2 v = {q.alpha * c[i / 2][n][i % 2 * 2], q.alpha * c[i / 2][n][i % 2 * 2 + 1]};
            if (q.bias) {
                v.x += value_of(q.bias, q.bias_type, o);
                v.y += value_of(q.bias, q.bias_type, o + 1);
            }
            if (q.beta != 0) {
                float2 old = pair_at(q.c, q.c_type, at);
                v.x += q.beta * old.x, v.y += q.beta * old.y;
            }
            if (q.c_type == SW_F32)
                *(float2 *)((float *)q.c + at) = v;
            else
                *(unsigned *)((uint16_t *)q.c + at) = half_pair(q.c_type, v.x, v.y);
        }
    }
}

template <bool BF16, int FORM, int ROWS> int launch(sw_stream *s, const grouped_call &p)
{
    const size_t shared = sides<FORM, ROWS>::BYTES;
    int64_t tiles = FORM == BACK_W ? (p.all.m + ROWS - 1) / ROWS * p.groups.count : cuda_tiles(p.groups, ROWS);
    if (cuda_shared(s, grouped_runs<BF16, FORM, ROWS>, shared, "products of experts"))
        return -1;
    SW_LAUNCH_EARLY((grouped_runs<BF16, FORM, ROWS>), dim3((unsigned)tiles, (unsigned)((p.all.n + COLUMNS - 1) / COLUMNS)), ROWS * 2, shared, s, p);
    return cuda_launched(s, "products of experts");
}

template <bool BF16, int FORM> int by_rows(sw_stream *s, const grouped_call &p, int64_t rows)
{
    if (rows >= 128 && (size_t)sides<FORM, 128>::BYTES <= s->shared_most)
        return launch<BF16, FORM, 128>(s, p);
    return launch<BF16, FORM, 64>(s, p);
}
template <bool BF16> int by_form(sw_stream *s, const grouped_call &p, int form, int64_t rows)
{
    return form == FORWARD ? by_rows<BF16, FORWARD>(s, p, rows) : form == BACK_X ? by_rows<BF16, BACK_X>(s, p, rows) : by_rows<BF16, BACK_W>(s, p, rows);
}

bool aligned(const void *p, int64_t ld, int64_t width, int64_t size, int64_t bytes)
{
    return (uintptr_t)p % (size_t)bytes == 0 && ld * size % bytes == 0 && width * size % bytes == 0;
}

} // namespace

int cuda_grouped_runs(sw_stream *s, const grouped_call *p, int form, const sw_matrices *m, int64_t average)
{
    const cuda_product &q = p->all;
    bool back_w = form == BACK_W;
    int64_t size = back_w ? 4 : 2, bytes = back_w ? 8 : 16; /* of the matrices' values, and what they lie at multiples of */
    int64_t a_wide = back_w ? q.m : q.k, b_wide = form == FORWARD ? q.k : q.n, c_size = q.c_type == SW_F32 ? 4 : 2;
    bool fits = s->capability >= 80 && (q.type == SW_BF16 || q.type == SW_F16) && q.b_type == q.type && q.n % 8 == 0 && q.k < 1 << 30 &&
                p->groups.rows < 1 << 30 && aligned(q.a, q.a_ld, a_wide, 2, 16) && (!back_w || aligned(q.b, q.b_ld, b_wide, 2, 16)) &&
                (back_w || aligned(q.c, q.c_ld, q.n, c_size, 2 * c_size)) && aligned(m->one.data, m->one.stride[0], m->one.shape[1], size, bytes) &&
                m->step * size % bytes == 0;
    for (int64_t i = 0; fits && m->at && i < m->count; i++)
        fits = (uintptr_t)m->at[i] % (size_t)bytes == 0;
    int64_t rows = back_w ? q.m : average;
    return !fits ? (int)GROUPED_NONE : q.type == SW_BF16 ? by_form<true>(s, *p, form, rows) : by_form<false>(s, *p, form, rows);
}
