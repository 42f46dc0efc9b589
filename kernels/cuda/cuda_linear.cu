/* Linear layers: weights of another type than the activations are converted a slab at a time into temporary space (a
 * quantised 4096 x 14336 matrix to bf16: 117 MB written, 33 read, 0.05 ms), few rows read them as they lie. */
#include "cuda_blocks.cuh"
#include "cuda_products.cuh"
#include "cuda_skinny.cuh"

namespace {

enum { SLAB_BYTES = 64 << 20 };

/* to [rows, columns] dense = part of x that starts at (row, column).
 * 4096 x 8192 of Q4_K to bf16: 19 MB read, 67 MB written, 0.03 ms. */
__global__ void __launch_bounds__(256)
convert_part(void *to, int to_type, const void *x, int type, int64_t stride, int64_t row, int64_t column, int64_t rows, int64_t columns,
             scales_of scales)
{
    int64_t per_row = (columns + RUN - 1) / RUN, total = rows * per_row;
    for (int64_t t = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; t < total; t += (int64_t)gridDim.x * blockDim.x) {
        int64_t r = t / per_row, c = (t - r * per_row) * RUN;
        int n = columns - c < RUN ? (int)(columns - c) : (int)RUN;
        float v[RUN];
        load_any(v, x, type, (row + r) * stride + column + c, n, scales);
        store_run(to, to_type, r * columns + c, n, v);
    }
}

int convert(sw_stream *s, void *to, int type, const sw_tensor *x, int64_t row, int64_t column, int64_t rows, int64_t columns)
{
    if (!rows || !columns)
        return 0;
    SW_LAUNCH(convert_part, cuda_blocks(s, rows * ((columns + RUN - 1) / RUN), 256), 256, 0, s->stream, to, type, x->data, (int)x->dtype,
              x->stride[0], row, column, rows, columns, cuda_scales(x));
    return cuda_launched(s, "weights");
}

/* y = bias + beta y: products with nothing to sum over. */
struct only_bias {
    rows_of y, bias;
    float beta;
    __device__ void operator()(const rows_shape &g, int64_t r, int64_t c, int n) const
    {
        float v[RUN] = {0}, old[RUN];
        int64_t at = row_start(g, y, r) + c;
        if (bias.data)
            load_run(v, bias.data, bias.type, c, n);
        if (beta != 0) {
            load_run(old, y.data, y.type, at, n);
#pragma unroll
            for (int i = 0; i < RUN; i++)
                v[i] += beta * old[i];
        }
        store_run(y.data, y.type, at, n, v);
    }
};

int without_product(sw_stream *s, sw_tensor *y, const sw_tensor *bias, double beta)
{
    const sw_tensor *t[] = {y};
    only_bias f = {{}, {bias ? bias->data : NULL, bias ? (int)bias->dtype : 0, {}}, (float)beta};
    rows_shape g = cuda_rows(&f.y, t, 1, true);
    return cuda_map(s, g, f, "linear");
}

/* The distance of rows; that of a single row may be anything. */
int64_t ld_of(const sw_tensor *t) { return t->shape[0] <= 1 || t->stride[0] < t->shape[1] ? t->shape[1] : t->stride[0]; }
/* Can rows be multiplied as they lie? (Rows of stride 0 repeat one.) */
bool in_place(const sw_tensor *t) { return t->shape[0] <= 1 || t->stride[0] >= t->shape[1]; }

/* The type of a product: the activations'. f16 has not the range for what bf16 may hold. */
int product_type(const sw_tensor *x, const sw_tensor *w)
{
    return x->dtype == SW_F16 && w->dtype == SW_BF16 ? (int)SW_F32 : (int)x->dtype;
}
size_t bytes_of(int type, int64_t n) { return cuda_padded(sw_dtype_bytes((sw_dtype)type, n)); }

/* x itself, or a copy in space when it is of another type. */
const void *operand(sw_stream *s, const sw_tensor *x, int type, void *space, int64_t *ld)
{
    *ld = ld_of(x);
    if ((int)x->dtype == type && in_place(x))
        return x->data;
    *ld = x->shape[1];
    return convert(s, space, type, x, 0, 0, x->shape[0], x->shape[1]) ? NULL : space;
}
size_t operand_bytes(const sw_tensor *x, int type)
{
    return (int)x->dtype == type && in_place(x) ? 0 : bytes_of(type, x->shape[0] * x->shape[1]);
}

/* Where a product is written: y, or f32 space that is added to y afterwards when y's type does not go with the product's. */
bool writes(const sw_tensor *y, int type) { return in_place(y) && ((int)y->dtype == type || y->dtype == SW_F32); }

/* act: over it all (SW_ACT_NONE: none), and before takes what that is given, or is NULL. 1 where a product has no such end: what
 * y and before hold is not the result. */
int forward(sw_stream *s, sw_tensor *y, sw_tensor *before, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, double alpha,
            double beta, int act)
{
    int64_t rows = x->shape[0], in = x->shape[1], out = w->shape[0];
    if (!rows || !out)
        return 0;
    if (!in || alpha == 0)
        return act == SW_ACT_NONE ? without_product(s, y, bias, beta) : 1;
    if (cuda_few_rows(rows, w))
        return act == SW_ACT_NONE ? cuda_linear_few(s, y, x, w, bias, (float)alpha, (float)beta) : 1;
    int type = product_type(x, w), c_type = y->dtype;
    bool as_is = (int)w->dtype == type && in_place(w), direct = writes(y, type);
    if (act != SW_ACT_NONE && (!direct || (before && (before->dtype != y->dtype || !in_place(before)))))
        return 1;
    int64_t slab = as_is ? out : SLAB_BYTES / (int64_t)sw_dtype_bytes((sw_dtype)type, in);
    slab = slab < 64 ? 64 : slab;
    slab = slab < out ? slab : out;
    if (!direct)
        c_type = SW_F32;
    size_t need[4] = {operand_bytes(x, type), as_is ? 0 : bytes_of(type, slab * in),
                      bias && (int)bias->dtype != c_type ? bytes_of(c_type, out) : 0, direct ? 0 : bytes_of(SW_F32, rows * out)};
    char *space = (char *)cuda_scratch(s, need[0] + need[1] + need[2] + need[3] + 1), *weights = space + need[0];
    char *add = weights + need[1], *sum = add + need[2];
    if (!space)
        return -1;
    cuda_product p = {rows, 0, in, type, c_type, NULL, NULL, 0, 0, 0, false, true, NULL, NULL, (float)alpha, direct ? (float)beta : 0,
                      act, NULL, before ? ld_of(before) : 0};
    p.a = operand(s, x, type, space, &p.a_ld);
    if (!p.a)
        return -1;
    const char *add_from = bias ? (const char *)bias->data : NULL;
    if (bias && (int)bias->dtype != c_type) {
        sw_tensor flat = *bias;
        flat.stride[0] = out;
        if (convert(s, add, c_type, &flat, 0, 0, 1, out))
            return -1;
        add_from = add;
    }
    for (int64_t first = 0; first < out; first += slab) {
        int64_t n = out - first < slab ? out - first : slab;
        p.n = n;
        p.b = weights;
        p.b_ld = in;
        if (as_is) {
            p.b = w->data;
            p.b_ld = ld_of(w);
        } else if (convert(s, weights, type, w, first, 0, n, in)) {
            return -1;
        }
        p.c = (char *)(direct ? y->data : sum) + sw_dtype_bytes((sw_dtype)c_type, first);
        p.c_ld = direct ? ld_of(y) : out;
        p.bias = add_from ? add_from + sw_dtype_bytes((sw_dtype)c_type, first) : NULL;
        p.before = before ? (char *)before->data + sw_dtype_bytes(before->dtype, first) : NULL;
        int rc = cuda_multiply(s, &p);
        if (rc)
            return rc;
    }
    if (direct)
        return 0;
    int64_t shape[2] = {rows, out};
    sw_tensor result = sw_tensor_of(sum, SW_F32, 2, shape);
    return cuda_axpby(s, y, 1, &result, beta);
}

} // namespace

int cuda_linear_fwd(sw_stream *s, sw_tensor *y, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias, double alpha, double beta)
{
    cuda_skinny p;
    cuda_expand q;
    if (cuda_skinny_forward(s, y, x, w, bias, alpha, beta, &p))
        return cuda_skinny_multiply(s, &p);
    if (cuda_expands(s, y, x, w, bias, true, alpha, beta, &q))
        return cuda_expand_multiply(s, &q);
    return forward(s, y, NULL, x, w, bias, alpha, beta, SW_ACT_NONE);
}

/* 8192 x 4096 by 16384 with GELU in bf16: 1.1 ms, as long as the product alone; the 537 MB that a kernel of its own would move
 * take 0.16 ms more, those of what is kept for the way back 0.08 ms either way. */
int cuda_linear_act_fwd(sw_stream *s, sw_tensor *y, sw_tensor *before, const sw_tensor *x, const sw_tensor *w, const sw_tensor *bias,
                        int kind)
{
    int rc = forward(s, y, before, x, w, bias, 1, 0, kind);
    if (rc != 1)
        return rc;
    sw_tensor *z = before ? before : y;
    return forward(s, z, NULL, x, w, bias, 1, 0, SW_ACT_NONE) || cuda_act_fwd(s, y, z, kind) ? -1 : 0;
}

int cuda_linear_bwd_x(sw_stream *s, sw_tensor *dx, const sw_tensor *dy, const sw_tensor *w, double alpha, double beta)
{
    int64_t rows = dx->shape[0], in = dx->shape[1], out = w->shape[0];
    cuda_skinny skinny;
    if (!rows || !in)
        return 0;
    if (cuda_skinny_back_x(s, dx, dy, w, alpha, beta, &skinny))
        return cuda_skinny_multiply(s, &skinny);
    if (!out || alpha == 0)
        return without_product(s, dx, NULL, beta);
    int type = product_type(dy, w);
    bool as_is = (int)w->dtype == type && in_place(w), direct = writes(dx, type);
    int c_type = direct ? (int)dx->dtype : (int)SW_F32;
    /* slabs of columns: nothing has to be added up over them */
    int64_t slab = as_is ? in : SLAB_BYTES / (int64_t)sw_dtype_bytes((sw_dtype)type, out) / 256 * 256;
    slab = slab < 256 ? 256 : slab;
    slab = slab < in ? slab : in;
    size_t need[3] = {operand_bytes(dy, type), as_is ? 0 : bytes_of(type, out * slab), direct ? 0 : bytes_of(SW_F32, rows * in)};
    char *space = (char *)cuda_scratch(s, need[0] + need[1] + need[2] + 1), *weights = space + need[0], *sum = weights + need[1];
    if (!space)
        return -1;
    cuda_product p = {rows, 0, out, type, c_type, NULL, NULL, 0, 0, 0, false, false, NULL, NULL, (float)alpha, direct ? (float)beta : 0,
                      SW_ACT_NONE, NULL, 0};
    p.a = operand(s, dy, type, space, &p.a_ld);
    if (!p.a)
        return -1;
    for (int64_t first = 0; first < in; first += slab) {
        int64_t n = in - first < slab ? in - first : slab;
        p.n = n;
        p.b = weights;
        p.b_ld = n;
        if (as_is) {
            p.b = w->data;
            p.b_ld = ld_of(w);
        } else if (convert(s, weights, type, w, 0, first, out, n)) {
            return -1;
        }
        p.c = (char *)(direct ? dx->data : sum) + sw_dtype_bytes((sw_dtype)c_type, first);
        p.c_ld = direct ? ld_of(dx) : in;
        if (cuda_multiply(s, &p))
            return -1;
    }
    if (direct)
        return 0;
    int64_t shape[2] = {rows, in};
    sw_tensor result = sw_tensor_of(sum, SW_F32, 2, shape);
    return cuda_axpby(s, dx, 1, &result, beta);
}

int cuda_linear_bwd_w(sw_stream *s, sw_tensor *dw, const sw_tensor *dy, const sw_tensor *x, double alpha)
{
    int64_t rows = x->shape[0], in = x->shape[1], out = dw->shape[0];
    cuda_skinny skinny;
    if (!rows || !in || !out || alpha == 0)
        return 0;
    if (cuda_skinny_back_w(s, dw, dy, x, alpha, &skinny))
        return cuda_skinny_multiply(s, &skinny);
    int type = dy->dtype == x->dtype ? (int)x->dtype : (int)SW_F32;
    size_t need = operand_bytes(dy, type);
    char *space = (char *)cuda_scratch(s, need + operand_bytes(x, type) + 1);
    if (!space)
        return -1;
    cuda_product p = {out, in, rows, type, SW_F32, NULL, NULL, 0, 0, ld_of(dw), true, false, dw->data, NULL, (float)alpha, 1,
                      SW_ACT_NONE, NULL, 0};
    p.a = operand(s, dy, type, space, &p.a_ld);
    p.b = operand(s, x, type, space + need, &p.b_ld);
    return p.a && p.b ? cuda_multiply(s, &p) : -1;
}
