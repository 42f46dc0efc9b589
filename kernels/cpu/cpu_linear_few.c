/* Products of few rows with any weights: each row of w is read once, as it is stored, and used for every row of x.
 * Outputs are made SW_LANES at a time, so that their lanes are added up together. A row's sums are taken in the same
 * order however many rows there are. Generation asks for rows of x to be rounded (cpu_rounded.c), training never does.
 */
#include "cpu_linear.h"
#include "kernels/cpu_team.h"

#include "base/memory.h"

enum { ROWS = 4, LINES = 4 };                /* rows of x that share a load of w; vectors summed apart in each */
enum { LEAST = 16 << 10, MOST = 256 << 10 }; /* bytes of a chunk */

#define AT(p) (*(const sw_vec *)(const void *)(p))

/* lane[r * SW_LANES]: a vector whose lanes add up to x[r] . w, for `rows` rows of x (f32, `line` apart), on top of what
 * it has. */
__attribute__((always_inline)) static inline void dots(sw_vec *lane, int rows, const float *x, int64_t line,
                                                       const float *w, int64_t n)
{
    sw_vec sum[ROWS][LINES] = {{{0}}};
    int64_t i = 0;
    for (; i + LINES * SW_LANES <= n; i += LINES * SW_LANES)
        for (int l = 0; l < LINES; l++) {
            sw_vec v = AT(w + i + l * SW_LANES);
            for (int r = 0; r < rows; r++)
                sum[r][l] += v * AT(x + r * line + i + l * SW_LANES);
        }
    for (int r = 0; r < rows; r++) {
        sw_vec rest = {0};
        for (int64_t j = i; j < n; j++)
            rest[0] += w[j] * x[r * line + j];
        lane[r * SW_LANES] += rest + ((sum[r][0] + sum[r][1]) + (sum[r][2] + sum[r][3]));
    }
}

/* Row o of w as f32, run by run. */
static void row_dots(sw_vec *lane, int64_t rows, const float *x, int64_t line, const sw_tensor *w, int64_t o)
{
    float buf[SW_RUN];
    for (int64_t c = 0, n = w->shape[1]; c < n; c += SW_RUN) {
        int64_t m = SW_MIN(SW_RUN, n - c), r = 0;
        const float *run = sw_load_any(w, o * w->stride[0] + c, m, buf);
        for (; r + ROWS <= rows; r += ROWS)
            dots(lane + r * SW_LANES, ROWS, x + r * line + c, line, run, m);
        for (; r < rows; r++)
            dots(lane + r * SW_LANES, 1, x + r * line + c, line, run, m);
    }
}

/* x as f32, rows `line` apart. */
static void copy_rows(float *dst, int64_t line, const sw_tensor *x)
{
    for (int64_t r = 0; r < x->shape[0]; r++) {
        const float *from = sw_load(sw_at(x, r * x->stride[0]), x->dtype, x->shape[1], dst + r * line);
        if (from != dst + r * line)
            memcpy(dst + r * line, from, (size_t)x->shape[1] * sizeof *dst);
    }
}

/* Rows of x as they are multiplied. */
typedef struct operand {
    enum { PLAIN, PAIRS, ROUNDED } how;
    float *plain;
    int64_t line;
    sw_pair_rows pairs;
    sw_rounded_rows rounded;
} operand;

static int prepare(operand *o, sw_stream *s, const sw_tensor *x, const sw_tensor *w, bool rounds)
{
    size_t rounded = rounds ? SW_CPU(rounded_bytes)(x, w->dtype) : 0, pairs = rounded ? 0 : SW_CPU(pair_bytes)(x, w);
    o->line = (x->shape[1] + 31) & ~(int64_t)15;
    o->plain = sw_stream_scratch(s, rounded ? rounded
                                    : pairs ? pairs
                                            : (size_t)(o->line * x->shape[0]) * sizeof *o->plain);
    if (!o->plain)
        return -1;
    o->how = rounded ? ROUNDED : pairs ? PAIRS : PLAIN;
    if (rounded)
        o->rounded = SW_CPU(rounded_rows)(o->plain, x, w->dtype);
    else if (pairs)
        o->pairs = SW_CPU(pair_rows)(o->plain, x, w->dtype);
    else
        copy_rows(o->plain, o->line, x);
    return 0;
}

/* lane[r * SW_LANES + i]: a vector whose lanes add up to row (row + r) of x times row (first + i) of w, n of these
 * (SW_LANES at most). */
static void products(sw_vec *lane, const operand *o, int64_t row, int64_t rows, const sw_tensor *w, int64_t first,
                     int64_t n)
{
    const char *at = sw_at(w, first * w->stride[0]);
    size_t line = sw_dtype_bytes(w->dtype, w->stride[0]);
    int64_t in = w->shape[1];
    if (o->how == PLAIN || n < SW_LANES)
        memset(lane, 0, (size_t)(rows * SW_LANES) * sizeof *lane);
    if (o->how == ROUNDED) {
        sw_rounded_rows from = {(const char *)o->rounded.at + (size_t)row * o->rounded.line, o->rounded.line, o->rounded.shared};
        SW_CPU(rounded_dots)(lane, rows, &from, at, line, n, w->dtype, in);
    } else if (o->how == PAIRS && sw_is_float8(w->dtype)) {
        SW_CPU(float8_dots)(lane, rows, &o->pairs, w, first, n);
    } else if (o->how == PAIRS) {
        SW_CPU(pair_dots)(lane, rows, &o->pairs, at, line, n, w->dtype, in);
    } else {
        for (int64_t i = 0; i < n; i++)
            row_dots(lane + i, rows, o->plain, o->line, w, first + i);
    }
}

typedef struct call {
    sw_tensor *y;
    const sw_tensor *w, *bias;
    float alpha, beta;
    operand x;
    int64_t rows, outs; /* of x; of w in a chunk */
} call;

/* SW_LANES outputs of every row, from output `first` on. */
static void some_outputs(const call *c, int64_t first)
{
    sw_vec lane[SW_FEW_ROWS][SW_LANES];
    float buf[SW_LANES], add[SW_LANES] = {0};
    int64_t n = SW_MIN(SW_LANES, c->w->shape[0] - first);
    if (c->bias)
        memcpy(add, sw_load(sw_at(c->bias, first), c->bias->dtype, n, buf), (size_t)n * sizeof *add);
    for (int64_t r = 0; r < c->rows; r++) {
        if (r % SW_FEW_ROWS == 0)
            products(lane[0], &c->x, r, SW_MIN(SW_FEW_ROWS, c->rows - r), c->w, first, n);
        void *at = sw_at(c->y, r * c->y->stride[0] + first);
        sw_vec sum = sw_lanes_sums(lane[r % SW_FEW_ROWS]) * c->alpha + AT(add);
        if (c->beta != 0) {
            float old[SW_LANES] = {0};
            memcpy(old, sw_load(at, c->y->dtype, n, buf), (size_t)n * sizeof *old);
            sum += c->beta * AT(old);
        }
        memcpy(buf, &sum, sizeof buf);
        if (n == SW_LANES) /* a constant */
            sw_store(at, c->y->dtype, SW_LANES, buf);
        else
            sw_store(at, c->y->dtype, n, buf);
    }
}

static void chunk(void *arg, int64_t i, int who)
{
    const call *c = arg;
    (void)who;
    for (int64_t first = i * c->outs, last = SW_MIN(first + c->outs, c->w->shape[0]); first < last; first += SW_LANES)
        some_outputs(c, first);
}

/* Rows of w that a thread takes at a time: a sixteenth, within limits of bytes, in whole vectors of outputs. */
static int64_t outs_of(const sw_tensor *w)
{
    int64_t line = (int64_t)sw_dtype_bytes(w->dtype, w->shape[1]), outs = w->shape[0];
    if (w->shape[1] * outs < SW_PARALLEL * 4)
        return outs;
    outs = SW_MIN(SW_MAX(outs / 16, LEAST / line), MOST / line);
    return SW_MAX(outs / SW_LANES, 1) * SW_LANES;
}

/* Only rows that are rounded may be more than SW_FEW_ROWS. */
static int few(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, float alpha,
               float beta, bool rounds)
{
    call c = {.y = y, .w = w, .bias = bias, .alpha = alpha, .beta = beta, .rows = x->shape[0], .outs = outs_of(w)};
    if (prepare(&c.x, s, x, w, rounds))
        return -1;
    sw_cpu_team((w->shape[0] + c.outs - 1) / c.outs, chunk, &c);
    return 0;
}

int SW_CPU(linear_few)(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias,
                       float alpha, float beta)
{
    return few(s, y, x, w, bias, alpha, beta, false);
}

int SW_CPU(linear_rounded)(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias,
                           double alpha, double beta)
{
    if (!x->shape[0] || !w->shape[0] || !x->shape[1] || !SW_CPU(rounded_bytes)(x, w->dtype))
        return SW_CPU(linear_fwd)(s, y, x, w, bias, alpha, beta);
    return few(s, y, x, w, bias, (float)alpha, (float)beta, true);
}
