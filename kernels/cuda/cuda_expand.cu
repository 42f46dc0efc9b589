/* See cuda_skinny.cuh. A warp keeps its 64 columns of w in registers and goes down the rows, 16 at a time; a lane's results of four
 * products of eight columns are eight columns that lie side by side. */
#include "cuda_mma.cuh"
#include "cuda_skinny.cuh"

namespace {

enum { THREADS = 256, ACROSS = 4, DOWN = THREADS / 32 / ACROSS, COLUMNS = 64, WIDE = ACROSS * COLUMNS, ROWS = 16, STEP = DOWN * ROWS };

struct expand_call {
    cuda_expand p;
    int64_t rows_each; /* of a block */
};

__device__ __forceinline__ unsigned pair_at(const uint16_t *p, int64_t step) { return step == 1 ? *(const unsigned *)p : p[0] | (unsigned)p[step] << 16; }

/* DEPTH: of 16 ranks. 4096 x 14336 in bf16 from rank 8: 117 MB written, 0.035 ms. */
template <bool BF16, int DEPTH> __global__ void __launch_bounds__(THREADS) expand_kernel(expand_call c)
{
    begin_early();
    const cuda_expand &p = c.p;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, low = lane / 4, pair = lane % 4 * 2;
    int64_t column = (int64_t)blockIdx.x * WIDE + warp % ACROSS * COLUMNS, first = blockIdx.y * c.rows_each;
    int64_t last = first + c.rows_each < p.rows ? first + c.rows_each : p.rows;
    unsigned w[COLUMNS / 8][DEPTH][2];
    int64_t along = p.w_turned ? 1 : p.w_ld, beside = p.w_turned ? p.w_ld : 1;
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
        for (int k = 0; k < 2 * DEPTH; k++) {
            int64_t at = column + n / 4 * 32 + low / 2 * 8 + n % 4 * 2 + low % 2, rank = k * 8 + pair;
            bool there = at < p.wide && rank < p.rank;
            w[n][k / 2][k % 2] = there ? pair_at((const uint16_t *)p.w + rank * along + at * beside, along) : 0;
        }
    auto load = [&](unsigned (&t)[DEPTH][4], int64_t row) {
#pragma unroll
        for (int k = 0; k < 4 * DEPTH; k++) {
            int64_t at = row + low + k % 2 * 8, rank = k / 2 * 8 + pair;
            t[k / 4][k % 4] = at < last && rank < p.rank ? *(const unsigned *)((const uint16_t *)p.t + at * p.t_ld + rank) : 0;
        }
    };
    unsigned next[DEPTH][4];
    int64_t row = first + warp / ACROSS * ROWS;
    load(next, row);
#pragma unroll 1
    for (; row < last; row += STEP) {
        unsigned t[DEPTH][4];
#pragma unroll
        for (int k = 0; k < 4 * DEPTH; k++)
            t[k / 4][k % 4] = next[k / 4][k % 4];
        load(next, row + STEP);
#pragma unroll
        for (int half = 0; half < COLUMNS / 32; half++) {
            float y[4][4] = {{0}};
#pragma unroll
            for (int k = 0; k < DEPTH; k++)
#pragma unroll
                for (int n = 0; n < 4; n++)
                    mma<BF16>(y[n], t[k], w[half * 4 + n][k][0], w[half * 4 + n][k][1]);
            int64_t at = column + half * 32 + lane % 4 * 8;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                unsigned v[4];
#pragma unroll
                for (int n = 0; n < 4; n++)
                    v[n] = packed<BF16>(y[n][2 * i] * p.alpha, y[n][2 * i + 1] * p.alpha);
                if (row + low + 8 * i < last && at < p.wide)
                    *(uint4 *)((uint16_t *)p.y + (row + low + 8 * i) * p.y_ld + at) = uint4{v[0], v[1], v[2], v[3]};
            }
        }
    }
}

template <bool BF16, int DEPTH> int launch(sw_stream *s, const cuda_expand *p)
{
    int64_t across = (p->wide + WIDE - 1) / WIDE, down = ((int64_t)s->sms * 8 + across - 1) / across, most = (p->rows + STEP - 1) / STEP;
    down = down < most ? down : most;
    expand_call c = {*p, (p->rows + down - 1) / down};
    c.rows_each = (c.rows_each + STEP - 1) / STEP * STEP;
    down = (p->rows + c.rows_each - 1) / c.rows_each;
    SW_LAUNCH_EARLY((expand_kernel<BF16, DEPTH>), dim3((unsigned)across, (unsigned)down), THREADS, 0, s, c);
    return cuda_launched(s, "product of low rank");
}

template <bool BF16> int by_rank(sw_stream *s, const cuda_expand *p)
{
    return p->rank <= 16 ? launch<BF16, 1>(s, p) : p->rank <= 32 ? launch<BF16, 2>(s, p) : launch<BF16, 4>(s, p);
}

} // namespace

bool cuda_expands(const sw_stream *s, const sw_tensor *y, const sw_tensor *t, const sw_tensor *w, const sw_tensor *bias, bool turned, double alpha,
                  double beta, cuda_expand *p)
{
    *p = cuda_expand{y->shape[0], y->shape[1], (int)t->shape[1], (int)y->dtype, t->data, t->stride[0], w->data, w->stride[0], turned, y->data,
                     y->stride[0], (float)alpha};
    return !bias && beta == 0 && alpha != 0 && cuda_skinny_sizes(s, y->shape[0], y->shape[1], t->shape[1], y->dtype) && t->dtype == y->dtype &&
           w->dtype == y->dtype && cuda_in_runs(y) && cuda_in_runs(t) && cuda_in_runs(w);
}

int cuda_expand_multiply(sw_stream *s, const cuda_expand *p) { return p->type == SW_BF16 ? by_rank<true>(s, p) : by_rank<false>(s, p); }
