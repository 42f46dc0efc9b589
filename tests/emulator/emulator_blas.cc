/* See cublasLt.h. Matrices lie columns side by side. */
#include "cublasLt.h"

#include "emulator_memory.h"

extern "C" {
#include "kernels/cpu_gemm.h"
}

#include <omp.h>
#include <stdlib.h>
#include <vector>

struct sw_emu_lt_call {
    cublasOperation_t turn_a, turn_b;
    int epilogue;
    const void *bias;
    cudaDataType_t bias_type;
    void *before; /* what an activation is given goes there */
    int64_t before_ld;
    cudaDataType_t before_type;
    const float *scales[2]; /* of a, b */
    int32_t modes[2];
};
struct sw_emu_lt_layout {
    cudaDataType_t type;
    int64_t rows, columns, ld;
};
struct sw_emu_lt_want { uint32_t align[4]; };

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h)
{
    *h = nullptr;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t, cudaDataType_t)
{
    *d = new sw_emu_lt_call{CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr, CUDA_R_32F, nullptr, 0, CUDA_R_32F, {}, {}};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
    delete d;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a, const void *v, size_t n)
{
    switch (a) {
    case CUBLASLT_MATMUL_DESC_TRANSA: memcpy(&d->turn_a, v, n); break;
    case CUBLASLT_MATMUL_DESC_TRANSB: memcpy(&d->turn_b, v, n); break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE: memcpy(&d->epilogue, v, n); break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: memcpy(&d->bias, v, n); break;
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: memcpy(&d->bias_type, v, n); break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: memcpy(&d->before, v, n); break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: memcpy(&d->before_ld, v, n); break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE: memcpy(&d->before_type, v, n); break;
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER: memcpy(&d->scales[0], v, n); break;
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER: memcpy(&d->scales[1], v, n); break;
    case CUBLASLT_MATMUL_DESC_A_SCALE_MODE: memcpy(&d->modes[0], v, n); break;
    case CUBLASLT_MATMUL_DESC_B_SCALE_MODE: memcpy(&d->modes[1], v, n); break;
    }
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type, uint64_t rows, uint64_t columns, int64_t ld)
{
    if (ld < (int64_t)rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    *l = new sw_emu_lt_layout{type, (int64_t)rows, (int64_t)columns, ld};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    delete l;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p)
{
    *p = new sw_emu_lt_want{{256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t a, const void *v, size_t n)
{
    if (a >= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES)
        memcpy(&p->align[a - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], v, n);
    return CUBLAS_STATUS_SUCCESS;
}

static bool is_16(cudaDataType_t t) { return t == CUDA_R_16F || t == CUDA_R_16BF; }
static int bytes_of(cudaDataType_t t) { return t == CUDA_R_32F ? 4 : is_16(t) ? 2 : 1; }

/* What the documentation of cuBLASLt asks for where factors are 8-bit floats: compute capability 8.9, before 10.0 (and on 12.x) the
 * first factor turned and the second one not, sizes and addresses of whole 16 bytes; scales of blocks on 9.0, one factor's of
 * 128 values and the other's of 128 x 128 or 128, at multiples of 16 bytes, and sizes of c that are multiples of 4. */
static cublasStatus_t check_8(const sw_emu_lt_call *d, const sw_emu_lt_layout *a, const sw_emu_lt_layout *b, const sw_emu_lt_layout *c,
                              const sw_emu_lt_want *want)
{
    const char *said = getenv("SWIFT_EMULATOR_CAPABILITY");
    int capability = said ? atoi(said) : 90;
    bool turned = d->turn_a == CUBLAS_OP_T && d->turn_b == CUBLAS_OP_N, blocks = d->modes[0] || d->modes[1];
    if (capability < 89 || (!turned && capability / 10 != 10) || d->epilogue != CUBLASLT_EPILOGUE_DEFAULT)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (a->rows % 16 || a->columns % 16 || a->ld % 16 || b->ld % 16 || c->ld * bytes_of(c->type) % 16)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < 4; i++)
        if (want->align[i] % 16)
            return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!blocks)
        return CUBLAS_STATUS_SUCCESS;
    for (int i = 0; i < 2; i++)
        if ((d->modes[i] != CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F && d->modes[i] != CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F) ||
            !d->scales[i] || (uintptr_t)d->scales[i] % 16)
            return CUBLAS_STATUS_INVALID_VALUE;
    bool both = d->modes[0] == d->modes[1] && d->modes[0] == CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F;
    return capability / 10 != 9 || both || c->rows % 4 || c->columns % 4 ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
}

/* Rows of 16-bit values that begin on odd ones have no algorithm here, so that what stands in for it is tested too. */
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t, cublasLtMatmulPreference_t want, int,
                                              cublasLtMatmulHeuristicResult_t *found, int *count)
{
    bool t = d->turn_a == CUBLAS_OP_T, u = d->turn_b == CUBLAS_OP_T;
    *count = 0;
    if ((t ? a->columns : a->rows) != c->rows || (u ? b->rows : b->columns) != c->columns ||
        (t ? a->rows : a->columns) != (u ? b->columns : b->rows) || a->type != b->type || (c->type != a->type && c->type != CUDA_R_32F))
        return CUBLAS_STATUS_INVALID_VALUE;
    bool keeps = (d->epilogue & CUBLASLT_EPILOGUE_GELU_AUX) == CUBLASLT_EPILOGUE_GELU_AUX;
    if (((d->epilogue & CUBLASLT_EPILOGUE_BIAS) && d->bias_type != c->type) ||
        (keeps && (d->before_type != c->type || d->before_ld % 8 || (uintptr_t)d->before % 16)))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < 4; i++)
        if (want->align[i] < 4 && is_16(a->type))
            return CUBLAS_STATUS_NOT_SUPPORTED;
    cublasStatus_t eight = a->type == CUDA_R_8F_E4M3 ? check_8(d, a, b, c, want) : CUBLAS_STATUS_SUCCESS;
    if (eight != CUBLAS_STATUS_SUCCESS)
        return eight;
    found->state = CUBLAS_STATUS_SUCCESS;
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}

static sw_dtype type_of(cudaDataType_t t)
{
    return t == CUDA_R_32F ? SW_F32 : t == CUDA_R_16F ? SW_F16 : t == CUDA_R_8F_E4M3 ? SW_F8_E4M3 : SW_BF16;
}
static float number(const void *p, cudaDataType_t t, int64_t i) { return (float)sw_scalar_get(p, type_of(t), i); }

/* What value r of column c is multiplied by; the sum is over rows. */
static float scale_of(const float *scales, int mode, const sw_emu_lt_layout *l, int64_t r, int64_t c)
{
    int64_t blocks = (l->rows + 127) / 128;
    switch (mode) {
    case CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F: return scales[r / 128 * l->columns + c];
    case CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F: return scales[c / 128 * ((blocks + 3) / 4 * 4) + r / 128];
    default: return scales ? *scales : 1;
    }
}

/* A matrix as f32, columns side by side without gaps. */
static std::vector<float> widened(const void *p, const sw_emu_lt_layout *l, const float *scales, int mode)
{
    std::vector<float> v((size_t)(l->rows * l->columns));
    for (int64_t c = 0; c < l->columns; c++)
        for (int64_t r = 0; r < l->rows; r++)
            v[(size_t)(c * l->rows + r)] = number(p, l->type, c * l->ld + r) * scale_of(scales, mode, l, r, c);
    return v;
}

static cublasStatus_t multiply(const sw_emu_lt_call *d, float scale, const void *a, const sw_emu_lt_layout *al, const void *b,
                               const sw_emu_lt_layout *bl, float keep, const void *c, const sw_emu_lt_layout *cl, void *out,
                               const sw_emu_lt_layout *ol)
{
    sw_emu_access access;
    std::vector<float> x = widened(a, al, d->scales[0], d->modes[0]), y = widened(b, bl, d->scales[1], d->modes[1]), z((size_t)(cl->rows * cl->columns));
    /* out turned, rows side by side: op(b) turned times op(a) turned */
    sw_gemm g = {};
    g.m = cl->columns;
    g.n = cl->rows;
    g.k = d->turn_a == CUBLAS_OP_T ? al->rows : al->columns;
    g.type = g.c_type = SW_F32;
    g.a = d->turn_b == CUBLAS_OP_T ? sw_gemm_operand{y.data(), 1, bl->rows} : sw_gemm_operand{y.data(), bl->rows, 1};
    g.b = d->turn_a == CUBLAS_OP_T ? sw_gemm_operand{x.data(), 1, al->rows} : sw_gemm_operand{x.data(), al->rows, 1};
    g.c = z.data();
    g.c_row = g.n;
    g.alpha = 1;
    int threads = omp_get_max_threads();
    if (g.m * g.n * g.k < (int64_t)1 << 22) /* waking threads takes longer */
        omp_set_num_threads(1);
    int rc = sw_cpu_gemm(&g);
    omp_set_num_threads(threads);
    if (rc)
        return CUBLAS_STATUS_EXECUTION_FAILED;
    for (int64_t j = 0; j < cl->columns; j++)
        for (int64_t i = 0; i < cl->rows; i++) {
            float v = scale * z[(size_t)(j * cl->rows + i)];
            if (keep != 0)
                v += keep * number(c, cl->type, j * cl->ld + i);
            if (d->epilogue & CUBLASLT_EPILOGUE_BIAS)
                v += number(d->bias, d->bias_type, i);
            if ((d->epilogue & CUBLASLT_EPILOGUE_GELU_AUX) == CUBLASLT_EPILOGUE_GELU_AUX)
                sw_scalar_set(d->before, type_of(d->before_type), j * d->before_ld + i, v);
            if (d->epilogue & CUBLASLT_EPILOGUE_RELU)
                v = v > 0 ? v : 0;
            if (d->epilogue & CUBLASLT_EPILOGUE_GELU)
                v = 0.5f * v * (1 + tanhf(0.7978845608f * (v + 0.044715f * v * v * v)));
            sw_scalar_set(out, type_of(ol->type), j * ol->ld + i, v);
        }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t d, const void *alpha, const void *a, cublasLtMatrixLayout_t al,
                              const void *b, cublasLtMatrixLayout_t bl, const void *beta, const void *c, cublasLtMatrixLayout_t cl, void *out,
                              cublasLtMatrixLayout_t ol, const cublasLtMatmulAlgo_t *, void *, size_t, cudaStream_t s)
{
    float scale = *(const float *)alpha, keep = *(const float *)beta;
    if (!sw_emu_puts_off(s))
        return multiply(d, scale, a, al, b, bl, keep, c, cl, out, ol);
    /* what describes the product may be gone when it runs */
    sw_emu_lt_call call = *d;
    sw_emu_lt_layout la = *al, lb = *bl, lc = *cl, lo = *ol;
    sw_emu_give(s, [=] {
        if (multiply(&call, scale, a, &la, b, &lb, keep, c, &lc, out, &lo) != CUBLAS_STATUS_SUCCESS)
            abort();
    });
    return CUBLAS_STATUS_SUCCESS;
}
