/* See cuda_skinny.cuh. A block has 256 columns of x and some of its rows, 32 of which at a time go through a ring in shared memory; a
 * warp multiplies 16 of those rows and 64 columns both ways. What blocks have summed is added up by a second kernel, always in the
 * same order. */
#include "cuda_mma.cuh"
#include "cuda_skinny.cuh"

#include <algorithm>

namespace {

enum { WARPS = 8, THREADS = WARPS * 32, WIDE = 256, QUARTER = WIDE / 4, HALF = 16, ROWS = 2 * HALF, STAGES = 4, X_STRIDE = WIDE + 8 };
enum { PARTS_BYTES = 32 << 20 };

struct skinny_call {
    cuda_skinny p;
    int64_t rows_each;     /* of a block */
    float *y_part, *g_part; /* [blocks across, rows, 8 N], [blocks down, wide, 8 N] */
};

/* Of N results of eight columns: rows in shared memory of 16-bit values and of sums, eight (four) of which lie in different banks. */
template <int N> struct widths {
    enum { RANK = 8 * N, STRIDE = N % 2 ? RANK : RANK + 8 };
    enum { X_VALUES = ROWS * X_STRIDE, T_VALUES = ROWS * STRIDE, SUMS = 4 * ROWS * STRIDE };
    static_assert(WIDE * STRIDE * 2 <= 2 * SUMS * 4 && RANK * X_STRIDE * 2 <= 2 * SUMS * 4, "w lies where sums will");
    static_assert(WIDE * RANK * 4 <= STAGES * X_VALUES * 2, "the last sums lie where x was");
    static constexpr size_t bytes(bool product, bool sums)
    {
        return (size_t)STAGES * (X_VALUES + (sums ? T_VALUES : 0)) * 2 + (product ? 2 * SUMS * 4 : 0);
    }
};

/* LINES rows of ACROSS values from p on, zeros behind `lines` and `across`; across and ld are multiples of 8. */
template <int LINES, int ACROSS>
__device__ __forceinline__ void copy_block(uint16_t *to, int stride, const void *p, int64_t ld, int64_t lines, int64_t across)
{
    enum { RUNS = ACROSS / 8, ALL = LINES * RUNS };
#pragma unroll
    for (int k = 0; k < ALL; k += THREADS) {
        int i = k + (int)threadIdx.x, r = i / RUNS, c = i % RUNS * 8;
        if (ALL - k < THREADS && i >= ALL)
            break;
        bool there = r < lines && c < across;
        copy_async(to + r * stride + c, (const uint16_t *)p + (there ? r * ld + c : 0), there ? 16 : 0);
    }
}

/* Blocks of an SM. */
constexpr int at_once(int n, bool product, bool sums) { return n <= 2 || (n <= 4 && !(product && sums)) ? 2 : 1; }

/* N registers' pairs that are loaded two and two: load(n, u) gives those of n and of n + 1, or where n is the last anything. */
template <int N, class L> __device__ __forceinline__ void load_pairs(unsigned (&to)[N][2], L load)
{
#pragma unroll
    for (int n = 0; n < N; n += 2) {
        unsigned u[4];
        load(n, u);
        to[n][0] = u[0], to[n][1] = u[1];
        if (n + 1 < N)
            to[n + 1 < N ? n + 1 : n][0] = u[2], to[n + 1 < N ? n + 1 : n][1] = u[3];
    }
}

/* 4096 x 14336 of dy in bf16 at rank 8, both ways: 117 MB, 0.035 ms, and 15 MB of parts, which stay in the L2 cache. */
template <bool BF16, int N, bool PRODUCT, bool SUMS> __global__ void __launch_bounds__(THREADS, at_once(N, PRODUCT, SUMS)) skinny_kernel(skinny_call c)
{
    typedef widths<N> is;
    SW_DYNAMIC_SHARED(uint16_t, ring);
    uint16_t *t_ring = ring + STAGES * is::X_VALUES, *all_sums = t_ring + (SUMS ? STAGES * is::T_VALUES : 0);
    float *sums = (float *)(void *)all_sums;
    begin_early();
    const cuda_skinny &p = c.p;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, low = lane % 8, second = lane / 8 % 2 * 8, upper = lane / 16 * 8;
    int down = warp / 4 * HALF, across = warp % 4 * QUARTER;
    int64_t column = (int64_t)blockIdx.x * WIDE, columns = p.wide - column, first = blockIdx.y * c.rows_each;
    int64_t rows = p.rows - first < c.rows_each ? p.rows - first : c.rows_each;
    int stages = (int)((rows + ROWS - 1) / ROWS);
    const uint16_t *x = (const uint16_t *)p.x + first * p.x_ld + column, *t = (const uint16_t *)p.t + (SUMS ? first * p.t_ld : 0);
    auto load = [&](int i) {
        int64_t row = (int64_t)i * ROWS, left = rows - row;
        if (i < stages) {
            copy_block<ROWS, WIDE>(ring + i % STAGES * is::X_VALUES, X_STRIDE, x + row * p.x_ld, p.x_ld, left, columns);
            if (SUMS)
                copy_block<ROWS, is::RANK>(t_ring + i % STAGES * is::T_VALUES, is::STRIDE, t + row * p.t_ld, p.t_ld, left, p.rank);
        }
        commit_copies();
    };
    /* The sums over columns of stage i's rows. */
    auto total = [&](int i) {
        const float *from = sums + i % 2 * is::SUMS;
        int64_t row = first + (int64_t)i * ROWS, left = rows - (int64_t)i * ROWS;
        float *to = c.y_part + (blockIdx.x * p.rows + row) * is::RANK;
#pragma unroll
        for (int k = 0; k < ROWS * is::RANK / THREADS; k++) {
            int e = k * THREADS + (int)threadIdx.x, r = e / is::RANK, at = r * is::STRIDE + e % is::RANK;
            float sum = 0;
#pragma unroll
            for (int q = 0; q < 4; q++)
                sum += from[q * ROWS * is::STRIDE + at];
            if (r < left)
                to[e] = sum;
        }
    };
    unsigned w[4][N][2];
    if (PRODUCT) {
        const uint16_t *from = (const uint16_t *)p.w + (p.w_turned ? column : column * p.w_ld);
        if (p.w_turned)
            copy_block<is::RANK, WIDE>(all_sums, X_STRIDE, from, p.w_ld, p.rank, columns);
        else
            copy_block<WIDE, is::RANK>(all_sums, is::STRIDE, from, p.w_ld, columns, p.rank);
        commit_copies();
    }
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++)
        load(i);
    if (PRODUCT) {
        wait_copies<STAGES - 1>();
        __syncthreads();
#pragma unroll
        for (int k = 0; k < 4; k++)
            load_pairs(w[k], [&](int n, unsigned (&u)[4]) {
                int at = across + k * 16, then = n + 1 < N ? upper : 0;
                if (p.w_turned)
                    load_matrices<false>(u, all_sums + (n * 8 + then + low) * X_STRIDE + at + second);
                else
                    load_matrices<true>(u, all_sums + (at + second + low) * is::STRIDE + n * 8 + then);
            });
    }
    float g[4][N][4] = {{{0}}};
#pragma unroll 1
    for (int i = 0; i < stages; i++) {
        wait_copies<STAGES - 2>();
        __syncthreads();
        load(i + STAGES - 1);
        const uint16_t *here = ring + i % STAGES * is::X_VALUES + down * X_STRIDE + across;
        if (PRODUCT) {
            float y[N][4] = {{0}};
#pragma unroll
            for (int k = 0; k < 4; k++) {
                unsigned a[4];
                load_matrices<false>(a, here + (second + low) * X_STRIDE + k * 16 + upper);
#pragma unroll
                for (int n = 0; n < N; n++)
                    mma<BF16>(y[n], a, w[k][n][0], w[k][n][1]);
            }
            float *to = sums + i % 2 * is::SUMS + (warp % 4 * ROWS + down + lane / 4) * is::STRIDE + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < N; n++) {
                *(float2 *)(to + n * 8) = float2{y[n][0], y[n][1]};
                *(float2 *)(to + n * 8 + 8 * is::STRIDE) = float2{y[n][2], y[n][3]};
            }
            if (i)
                total(i - 1);
        }
        if (SUMS) {
            unsigned b[N][2];
            const uint16_t *rows_of_t = t_ring + i % STAGES * is::T_VALUES + (down + second + low) * is::STRIDE;
            load_pairs(b, [&](int n, unsigned (&u)[4]) { load_matrices<true>(u, rows_of_t + n * 8 + (n + 1 < N ? upper : 0)); });
#pragma unroll
            for (int m = 0; m < 4; m++) {
                unsigned a[4];
                load_matrices<true>(a, here + (upper + low) * X_STRIDE + m * 16 + second);
#pragma unroll
                for (int n = 0; n < N; n++)
                    mma<BF16>(g[m][n], a, b[n][0], b[n][1]);
            }
        }
    }
    __syncthreads();
    if (PRODUCT)
        total(stages - 1);
    if (SUMS) { /* the lower rows' to the upper ones' */
        float *last = (float *)(void *)ring;
        int at = (across + lane / 4) * is::RANK + lane % 4 * 2;
#pragma unroll
        for (int half = 1; half >= 0; half--) {
            if (warp / 4 == half)
#pragma unroll
                for (int m = 0; m < 4; m++)
#pragma unroll
                    for (int n = 0; n < N; n++)
#pragma unroll
                        for (int upper_rows = 0; upper_rows < 2; upper_rows++) {
                            float2 *sum = (float2 *)(last + at + (m * 16 + upper_rows * 8) * is::RANK + n * 8);
                            float2 v = {g[m][n][2 * upper_rows], g[m][n][2 * upper_rows + 1]};
                            if (half)
                                *sum = v;
                            else
                                *sum = float2{sum->x + v.x, sum->y + v.y};
                        }
            __syncthreads();
        }
        int64_t there = (columns < WIDE ? columns : (int64_t)WIDE) * is::RANK;
        float *to = c.g_part + (blockIdx.y * p.wide + column) * is::RANK;
        for (int e = (int)threadIdx.x * 4; e < there; e += THREADS * 4)
            *(float4 *)(to + e) = *(const float4 *)(last + e);
    }
}

__device__ __forceinline__ float4 add_parts(const float *part, int64_t step, int parts)
{
    float4 sum = {0, 0, 0, 0};
#pragma unroll 8
    for (int i = 0; i < parts; i++) {
        float4 v = *(const float4 *)(part + i * step);
        sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    return sum;
}

/* Four values a thread, first y's, then g's. 8 KB to 15 MB, from the L2 cache: 1 to 4 us. */
__global__ void __launch_bounds__(256) skinny_totals(skinny_call c, int rank, int across, int down)
{
    begin_early();
    const cuda_skinny &p = c.p;
    int64_t fours = rank / 4, of_y = p.y ? p.rows * fours : 0, all = of_y + (p.g ? p.wide * fours : 0);
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < all; i += (int64_t)gridDim.x * blockDim.x) {
        if (i < of_y) {
            int64_t row = i / fours;
            int at = (int)(i - row * fours) * 4;
            float4 v = add_parts(c.y_part + row * rank + at, p.rows * rank, across);
            const float of[4] = {v.x * p.y_alpha, v.y * p.y_alpha, v.z * p.y_alpha, v.w * p.y_alpha};
#pragma unroll
            for (int k = 0; k < 4; k++)
                if (at + k < p.rank)
                    set_value(p.y, p.y_type, row * p.y_ld + at + k, of[k]);
            continue;
        }
        int64_t k = i - of_y, line = p.g_turned ? k % p.wide : k / fours; /* neighbours write neighbours */
        int at = (int)(p.g_turned ? k / p.wide : k - line * fours) * 4;
        float4 v = add_parts(c.g_part + line * rank + at, p.wide * rank, down);
        const float of[4] = {v.x, v.y, v.z, v.w};
        float *to = p.g + (p.g_turned ? at * p.g_ld + line : line * p.g_ld + at);
#pragma unroll
        for (int q = 0; q < 4; q++)
            if (at + q < p.rank)
                to[q * (p.g_turned ? p.g_ld : 1)] += p.g_alpha * of[q];
    }
}

/* Rows of a block, such that the last blocks end together: 96 rows' time goes into its beginning and end. */
int64_t rows_of_blocks(const sw_stream *s, int64_t rows, int64_t across, int of_an_sm)
{
    int64_t slots = (int64_t)s->sms * of_an_sm, best = rows, least = INT64_MAX;
    for (int64_t blocks = 1; blocks <= 128; blocks++) {
        int64_t each = (rows + blocks - 1) / blocks;
        each = (each + ROWS - 1) / ROWS * ROWS;
        int64_t down = (rows + each - 1) / each, time = (across * down + slots - 1) / slots * (each + 96);
        if (time < least) {
            least = time;
            best = each;
        }
    }
    return best;
}

template <bool BF16, int N, bool PRODUCT, bool SUMS> int launch(sw_stream *s, const cuda_skinny *all)
{
    typedef widths<N> is;
    const size_t shared = is::bytes(PRODUCT, SUMS);
    int64_t across = (all->wide + WIDE - 1) / WIDE, slab = PARTS_BYTES / 4 / (across * is::RANK) / ROWS * ROWS;
    slab = slab < 1024 ? 1024 : slab < all->rows ? slab : all->rows;
    if (cuda_shared(s, skinny_kernel<BF16, N, PRODUCT, SUMS>, shared, "skinny product"))
        return -1;
    for (int64_t first = 0; first < all->rows; first += slab) {
        skinny_call c = {*all, 0, NULL, NULL};
        c.p.rows = std::min(slab, all->rows - first);
        c.p.x = (const uint16_t *)all->x + first * all->x_ld;
        c.p.y = PRODUCT ? (char *)all->y + first * all->y_ld * (all->y_type == SW_F32 ? 4 : 2) : NULL;
        c.p.t = SUMS ? (const uint16_t *)all->t + first * all->t_ld : NULL;
        c.p.g = SUMS ? all->g : NULL;
        c.rows_each = rows_of_blocks(s, c.p.rows, across, at_once(N, PRODUCT, SUMS));
        int64_t down = (c.p.rows + c.rows_each - 1) / c.rows_each;
        size_t y_bytes = PRODUCT ? (size_t)(across * c.p.rows * is::RANK) * 4 : 0;
        size_t g_bytes = SUMS ? (size_t)(down * c.p.wide * is::RANK) * 4 : 0;
        c.y_part = (float *)cuda_scratch(s, y_bytes + g_bytes);
        if (!c.y_part)
            return -1;
        c.g_part = c.y_part + y_bytes / 4;
        SW_LAUNCH_EARLY((skinny_kernel<BF16, N, PRODUCT, SUMS>), dim3((unsigned)across, (unsigned)down), THREADS, shared, s, c);
        if (cuda_launched(s, "skinny product"))
            return -1;
        unsigned blocks = cuda_blocks(s, (PRODUCT ? c.p.rows : 0) * (is::RANK / 4) + (SUMS ? c.p.wide : 0) * (is::RANK / 4), 256);
        SW_LAUNCH_EARLY(skinny_totals, blocks, 256, 0, s, c, (int)is::RANK, (int)across, (int)down);
        if (cuda_launched(s, "skinny product"))
            return -1;
    }
    return 0;
}

template <bool BF16, int N> int by_kind(sw_stream *s, const cuda_skinny *p)
{
    if (!p->g)
        return launch<BF16, N, true, false>(s, p);
    if (!p->y)
        return launch<BF16, N, false, true>(s, p);
    if constexpr (N <= 4)
        return launch<BF16, N, true, true>(s, p);
    return cuda_fail("%s: a product of rank %d both ways", s->name, p->rank); /* cuda_skinny_join does not ask for it */
}
template <bool BF16> int by_rank(sw_stream *s, const cuda_skinny *p)
{
    switch (p->rank / 8) {
    case 1: return by_kind<BF16, 1>(s, p);
    case 2: return by_kind<BF16, 2>(s, p);
    case 3: return by_kind<BF16, 3>(s, p);
    case 4: return by_kind<BF16, 4>(s, p);
    case 5:
    case 6: return by_kind<BF16, 6>(s, p);
    default: return by_kind<BF16, 8>(s, p);
    }
}

bool begin(const sw_stream *s, cuda_skinny *p, const sw_tensor *x, int64_t rank, double alpha)
{
    *p = cuda_skinny{};
    p->rows = x->shape[0], p->wide = x->shape[1], p->type = (int)x->dtype, p->x = x->data, p->x_ld = x->stride[0];
    p->rank = (int)rank;
    return cuda_skinny_sizes(s, p->rows, p->wide, rank, x->dtype) && alpha != 0 && cuda_in_runs(x) &&
           widths<8>::bytes(true, false) <= s->shared_most;
}

bool begin_product(const sw_stream *s, cuda_skinny *p, const sw_tensor *y, const sw_tensor *x, const sw_tensor *w, int64_t rank,
                   double alpha, double beta)
{
    if (!begin(s, p, x, rank, alpha) || beta != 0 || w->dtype != x->dtype || !cuda_in_runs(w) || (y->dtype != x->dtype && y->dtype != SW_F32) ||
        y->stride[0] < y->shape[1])
        return false;
    p->y = y->data, p->y_type = (int)y->dtype, p->y_ld = y->stride[0], p->y_alpha = (float)alpha;
    p->w = w->data, p->w_ld = w->stride[0];
    return true;
}

} // namespace

bool cuda_skinny_forward(const sw_stream *s, const sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias,
                         double alpha, double beta, cuda_skinny *p)
{
    if (bias || !begin_product(s, p, y, x, w, w->shape[0], alpha, beta))
        return false;
    p->w_turned = true;
    return true;
}

bool cuda_skinny_back_x(const sw_stream *s, const sw_tensor *dx, const sw_tensor *dy, const sw_tensor *w, double alpha, double beta,
                        cuda_skinny *p)
{
    return begin_product(s, p, dx, dy, w, w->shape[1], alpha, beta);
}

bool cuda_skinny_back_w(const sw_stream *s, const sw_tensor *dw, const sw_tensor *dy, const sw_tensor *x, double alpha, cuda_skinny *p)
{
    bool turned = dy->shape[1] < x->shape[1]; /* dy is the one with few columns */
    const sw_tensor *t = turned ? dy : x;
    if (dy->dtype != x->dtype || !begin(s, p, turned ? x : dy, t->shape[1], alpha) || !cuda_in_runs(t))
        return false;
    p->g = (float *)dw->data, p->g_ld = dw->stride[0], p->g_alpha = (float)alpha, p->g_turned = turned;
    p->t = t->data, p->t_ld = t->stride[0];
    return true;
}

bool cuda_skinny_join(cuda_skinny *p, const cuda_skinny *q)
{
    if (p->x != q->x || p->x_ld != q->x_ld || p->rows != q->rows || p->wide != q->wide || p->type != q->type || p->rank != q->rank ||
        p->g || q->y || p->rank > 32)
        return false;
    p->g = q->g, p->g_ld = q->g_ld, p->g_alpha = q->g_alpha, p->g_turned = q->g_turned, p->t = q->t, p->t_ld = q->t_ld;
    return true;
}

int cuda_skinny_multiply(sw_stream *s, const cuda_skinny *p) { return p->type == SW_BF16 ? by_rank<true>(s, p) : by_rank<false>(s, p); }
