/* Matrix products. Many rows go to oneDNN, in bf16 where the activations are bf16 and the processor multiplies it, else
 * in f32; weights of another type are converted tile by tile. Few rows (decoding) read the weights once, as they lie
 * (cpu_linear_few.c). */
#include "cpu_isa.h"
#include "cpu_linear.h"
#include "kernels/cpu_gemm.h"

#include "base/memory.h"

#include <stdlib.h>

enum { TILE_BYTES = 8 << 20 }; /* of converted weights: about what stays in the caches that cores share */

static size_t padded(size_t n) { return (n + 127) & ~(size_t)63; }

/* dst [rows, width] dense of type `to`, from rows of a tensor of any type, starting at row `first`. */
static void convert_rows(void *dst, sw_dtype to, const sw_tensor *t, int64_t first, int64_t rows)
{
    int64_t width = t->shape[1], per_row = (width + SW_RUN - 1) / SW_RUN;
#pragma omp parallel for schedule(static) if (rows * width >= SW_PARALLEL)
    for (int64_t i = 0; i < rows * per_row; i++) {
        float buf[SW_RUN];
        int64_t r = i / per_row, c = i % per_row * SW_RUN, n = SW_MIN(SW_RUN, width - c);
        char *at = (char *)dst + sw_dtype_bytes(to, r * width + c);
        int64_t from = (first + r) * t->stride[0] + c;
        if (to == SW_BF16 && sw_is_quantised(t->dtype))
            SW_CPU(dequantise_bf16)((uint16_t *)(void *)at, sw_at(t, from), t->dtype, n);
        else
            sw_store(at, to, n, sw_load_any(t, from, n, to == SW_F32 ? (float *)(void *)at : buf));
    }
}

/* t itself, when its rows can be multiplied as they lie, else converted into space. */
static sw_gemm_operand operand_of(const sw_tensor *t, sw_dtype type, void *space)
{
    if (t->dtype == type && (t->stride[0] >= t->shape[1] || t->shape[0] == 1))
        return (sw_gemm_operand){t->data, t->shape[0] == 1 ? t->shape[1] : t->stride[0], 1};
    convert_rows(space, type, t, 0, t->shape[0]);
    return (sw_gemm_operand){space, t->shape[1], 1};
}
static sw_gemm_operand transposed(sw_gemm_operand a) { return (sw_gemm_operand){a.data, a.column, a.row}; }
static size_t space_for(const sw_tensor *t, sw_dtype type)
{
    return padded(sw_dtype_bytes(type, t->shape[0] * t->shape[1]));
}

static sw_dtype type_for(const sw_tensor *activations)
{
    return SW_HAS_BF16_DOT && activations->dtype == SW_BF16 ? SW_BF16 : SW_F32;
}
/* Can a product in `type` write y itself? */
static bool writes(sw_dtype type, const sw_tensor *y)
{
    return (y->dtype == SW_F32 || (y->dtype == SW_BF16 && type == SW_BF16)) &&
           (y->stride[0] >= y->shape[1] || y->shape[0] == 1);
}

/* y = alpha sum + bias + beta y, sum [N, width] dense or NULL (zeros). */
static void finish(sw_tensor *y, const float *sum, const float *bias, float alpha, float beta)
{
    int64_t rows = y->shape[0], width = y->shape[1], per_row = (width + SW_RUN - 1) / SW_RUN;
#pragma omp parallel for schedule(static) if (rows * width >= SW_PARALLEL)
    for (int64_t i = 0; i < rows * per_row; i++) {
        float buf[SW_RUN], out[SW_RUN];
        int64_t r = i / per_row, c = i % per_row * SW_RUN, n = SW_MIN(SW_RUN, width - c), at = r * y->stride[0] + c;
        for (int64_t j = 0; j < n; j++)
            out[j] = (sum ? alpha * sum[r * width + c + j] : 0) + (bias ? bias[c + j] : 0);
        if (beta != 0) {
            const float *old = sw_load(sw_at(y, at), y->dtype, n, buf);
            for (int64_t j = 0; j < n; j++)
                out[j] += beta * old[j];
        }
        sw_store(sw_at(y, at), y->dtype, n, out);
    }
}

/* Rows of w in a converted tile: all when they fit. */
static int64_t tile_rows(const sw_tensor *w, sw_dtype type)
{
    int64_t rows = TILE_BYTES / (int64_t)sw_dtype_bytes(type, w->shape[1]);
    return SW_MIN(w->shape[0], SW_MAX(rows / 64 * 64, 64));
}

/* relu: may be done with it (where beta is 0); set to whether it was. */
static int forward(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, double alpha, double beta,
                   bool *relu)
{
    bool wanted = *relu;
    *relu = false;
    int64_t rows = x->shape[0], in = x->shape[1], out = w->shape[0];
    if (!rows || !out)
        return 0;
    if (rows <= SW_FEW_ROWS && in)
        return SW_CPU(linear_few)(s, y, x, w, bias, (float)alpha, (float)beta);
    sw_dtype type = type_for(x);
    bool plain = w->dtype == type, direct = writes(type, y) && alpha != 0 && in;
    int64_t tile = plain || !in ? out : tile_rows(w, type);
    size_t need[4] = {space_for(x, type), plain && w->stride[0] >= in ? 0 : padded(sw_dtype_bytes(type, tile * in)),
                      direct ? 0 : padded((size_t)(rows * out) * sizeof(float)), padded((size_t)out * sizeof(float))};
    char *space = sw_stream_scratch(s, need[0] + need[1] + need[2] + need[3]);
    if (!space)
        return -1;
    float *sum = (float *)(void *)(space + need[0] + need[1]), *add = (float *)(void *)(space + need[0] + need[1] + need[2]);
    if (bias) {
        const float *from = sw_load(bias->data, bias->dtype, out, add);
        for (int64_t i = 0; i < out; i++) /* oneDNN scales the bias with the product */
            add[i] = direct ? from[i] / (float)alpha : from[i];
    }
    if (!in || alpha == 0) {
        finish(y, NULL, bias ? add : NULL, 0, (float)beta);
        return 0;
    }
    sw_gemm g = {.m = rows, .k = in, .type = type, .a = operand_of(x, type, space)};
    g.c_type = direct ? y->dtype : SW_F32;
    g.c_row = direct ? (rows == 1 ? out : y->stride[0]) : out;
    g.alpha = direct ? (float)alpha : 1;
    g.beta = direct ? (float)beta : 0;
    g.relu = *relu = wanted && direct;
    for (int64_t first = 0; first < out; first += tile) {
        sw_tensor part = sw_row_view(w, first, SW_MIN(tile, out - first));
        g.n = part.shape[0];
        g.b = transposed(operand_of(&part, type, space + need[0]));
        g.c = direct ? sw_at(y, first) : sum + first;
        g.bias = bias && direct ? add + first : NULL;
        if (sw_cpu_gemm(&g))
            return -1;
    }
    if (!direct)
        finish(y, sum, bias ? add : NULL, (float)alpha, (float)beta);
    return 0;
}

int SW_CPU(linear_fwd)(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, double alpha,
                       double beta)
{
    return forward(s, y, x, w, bias, alpha, beta, &(bool){false});
}

/* oneDNN's other functions are not those of act_fwd to the last bits, and round once where ours round twice. */
int SW_CPU(linear_act_fwd)(sw_stream *s, sw_tensor *y, sw_tensor *before, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias,
                           int kind)
{
    bool done = kind == SW_ACT_RELU && !before;
    sw_tensor *z = before ? before : y;
    if (forward(s, z, x, w, bias, 1, 0, &done))
        return -1;
    return done ? 0 : SW_CPU(act_fwd)(s, y, z, kind);
}

int SW_CPU(linear_act_rounded)(sw_stream *s, sw_tensor *y, sw_tensor *before, const sw_tensor *x, const sw_tensor *w,
                               const sw_tensor *bias, int kind)
{
    sw_tensor *z = before ? before : y;
    return SW_CPU(linear_rounded)(s, z, x, w, bias, 1, 0) || SW_CPU(act_fwd)(s, y, z, kind) ? -1 : 0;
}

int SW_CPU(linear_bwd_x)(sw_stream *s, sw_tensor *dx, const sw_tensor *dy, const sw_tensor *w, double alpha, double beta)
{
    int64_t rows = dx->shape[0], in = dx->shape[1], out = w->shape[0];
    if (!rows || !in)
        return 0;
    sw_dtype type = type_for(dy);
    bool plain = w->dtype == type;
    int64_t tile = plain || !out ? out : tile_rows(w, type);
    bool direct = writes(type, dx) && alpha != 0 && (dx->dtype == SW_F32 || tile == out); /* tiles add up in f32 */
    size_t need[3] = {space_for(dy, type), plain && w->stride[0] >= in ? 0 : padded(sw_dtype_bytes(type, tile * in)),
                      direct ? 0 : padded((size_t)(rows * in) * sizeof(float))};
    char *space = sw_stream_scratch(s, need[0] + need[1] + need[2] + 1);
    if (!space)
        return -1;
    if (!out || alpha == 0) {
        finish(dx, NULL, NULL, 0, (float)beta);
        return 0;
    }
    float *sum = (float *)(void *)(space + need[0] + need[1]);
    sw_gemm_operand a = operand_of(dy, type, space);
    for (int64_t first = 0; first < out; first += tile) {
        sw_tensor part = sw_row_view(w, first, SW_MIN(tile, out - first));
        sw_gemm g = {.m = rows, .n = in, .k = part.shape[0], .type = type, .a = a};
        g.a.data = (const char *)a.data + sw_dtype_bytes(type, first);
        g.b = operand_of(&part, type, space + need[0]);
        g.c = direct ? dx->data : sum;
        g.c_type = direct ? dx->dtype : SW_F32;
        g.c_row = direct ? (rows == 1 ? in : dx->stride[0]) : in;
        g.alpha = direct ? (float)alpha : 1;
        g.beta = first ? 1 : direct ? (float)beta : 0;
        if (sw_cpu_gemm(&g))
            return -1;
    }
    if (!direct)
        finish(dx, sum, NULL, (float)alpha, (float)beta);
    return 0;
}

int SW_CPU(linear_bwd_w)(sw_stream *s, sw_tensor *dw, const sw_tensor *dy, const sw_tensor *x, double alpha)
{
    int64_t rows = x->shape[0], in = x->shape[1], out = dw->shape[0];
    if (!rows || !in || !out || alpha == 0)
        return 0;
    sw_dtype type = dy->dtype == SW_BF16 ? type_for(x) : SW_F32;
    size_t need = space_for(dy, type);
    char *space = sw_stream_scratch(s, need + space_for(x, type));
    if (!space)
        return -1;
    sw_gemm g = {.m = out, .n = in, .k = rows, .type = type, .c = dw->data, .c_type = SW_F32, .alpha = (float)alpha, .beta = 1};
    g.a = transposed(operand_of(dy, type, space));
    g.b = operand_of(x, type, space + need);
    g.c_row = out == 1 ? in : dw->stride[0];
    return sw_cpu_gemm(&g);
}

/* Head h of t [N, H, D] or of weights [H, O, I], as a matrix. */
static sw_tensor head_of(const sw_tensor *t, int64_t h, int dim)
{
    sw_tensor r = sw_tensor_of(sw_at(t, h * t->stride[dim]), t->dtype, 2, (int64_t[]){t->shape[1 - dim], t->shape[2]});
    r.stride[0] = t->stride[1 - dim];
    r.scales = t->scales;
    return r;
}

int SW_CPU(linear_heads)(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, int across, double alpha, double beta)
{
    for (int64_t h = 0; h < x->shape[1]; h++) {
        sw_tensor to = head_of(y, h, 1), from = head_of(x, h, 1), by = head_of(w, h, 0);
        if (across ? SW_CPU(linear_bwd_x)(s, &to, &from, &by, alpha, beta) : SW_CPU(linear_fwd)(s, &to, &from, &by, NULL, alpha, beta))
            return -1;
    }
    return 0;
}
