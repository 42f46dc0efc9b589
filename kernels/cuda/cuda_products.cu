/* See cuda_products.cuh. 2 m n k operations: 8192 x 4096 x 14336 in bf16 takes 1 ms at the limit, in f32 14 ms (TF32, on
 * request: 2 ms). */
#include "cuda_products.cuh"

#include <cublasLt.h>

#include <map>
#include <stdlib.h>
#include <tuple>

namespace {

enum { WORKSPACE = 32 << 20, MOST_PLANS = 4096 };

/* What a choice of algorithm depends on. */
typedef std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int, int> plan_key;
struct plan {
    cublasLtMatmulDesc_t call;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
    bool usable;
};

} // namespace

struct cuda_products {
    cublasLtHandle_t lt;
    void *workspace;
    bool tf32;
    std::map<plan_key, plan> plans;
};

namespace {

/* ---- the plain kernel
 * 512 x 4096 x 4096 in f32: 17 GFLOP, 0.26 ms at the limit of f32 (shared memory, a read for two operations, allows
 * half); 84 MB. */
__global__ void __launch_bounds__(256) multiply_plain(cuda_product p)
{
    plain_tile<false>(p, (int64_t)blockIdx.x * PLAIN_TILE, (int64_t)blockIdx.y * PLAIN_TILE);
}

int plain(sw_stream *s, const cuda_product *p)
{
    if (p->type == SW_F8_E4M3)
        return CUDA_NO_ALGORITHM;
    enum { TILE = PLAIN_TILE };
    int64_t down = (p->m + TILE - 1) / TILE, across = (p->n + TILE - 1) / TILE;
    for (int64_t first = 0; first < across; first += 65535) { /* the grid's limit */
        cuda_product part = *p;
        int64_t skip = first * TILE, n = p->n - skip < 65535 * (int64_t)TILE ? p->n - skip : 65535 * (int64_t)TILE;
        part.n = n;
        part.b_type = p->type;
        part.bias_type = p->c_type;
        part.b = (const char *)p->b + sw_dtype_bytes((sw_dtype)p->type, p->b_turned ? skip * p->b_ld : skip);
        part.c = (char *)p->c + sw_dtype_bytes((sw_dtype)p->c_type, skip);
        part.bias = p->bias ? (const char *)p->bias + sw_dtype_bytes((sw_dtype)p->c_type, skip) : NULL;
        SW_LAUNCH(multiply_plain, dim3((unsigned)down, (unsigned)((n + TILE - 1) / TILE)), 256, 0, s->stream, part);
    }
    return cuda_launched(s, "product");
}

/* ---- cuBLASLt. Its matrices are columns side by side: c turned = op(b) turned times op(a) turned. */

int failed(const sw_stream *s, cublasStatus_t e, const char *what)
{
    return cuda_fail("%s: %s: cuBLASLt status %d", s->name, what, (int)e);
}
#define LT_TRY(s, call)                  \
    do {                                 \
        cublasStatus_t e_ = (call);      \
        if (e_ != CUBLAS_STATUS_SUCCESS) \
            return failed(s, e_, #call); \
    } while (0)

cudaDataType_t lt_type(int t)
{
    return t == SW_F32 ? CUDA_R_32F : t == SW_BF16 ? CUDA_R_16BF : t == SW_F8_E4M3 ? CUDA_R_8F_E4M3 : CUDA_R_16F;
}

/* Scales of blocks, for cuBLASLt's first matrix, which is b, and its second. */
enum { BLOCK_SCALES = CUBLAS_VERSION >= 120900 };
int set_scales(sw_stream *s, plan *made, const cuda_product *p)
{
    LT_TRY(s, cublasLtMatmulDescSetAttribute(made->call, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &p->b_scales, sizeof p->b_scales));
    LT_TRY(s, cublasLtMatmulDescSetAttribute(made->call, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &p->a_scales, sizeof p->a_scales));
    return 0;
}
int set_scale_modes(sw_stream *s, plan *made)
{
#if CUBLAS_VERSION >= 120900
    int32_t first = CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F, second = CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
    LT_TRY(s, cublasLtMatmulDescSetAttribute(made->call, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &first, sizeof first));
    LT_TRY(s, cublasLtMatmulDescSetAttribute(made->call, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &second, sizeof second));
#else
    (void)s, (void)made;
#endif
    return 0;
}

/* The largest of 16, 8, 4, 2 that divides the addresses of all rows. */
uint32_t alignment(const void *p, int64_t ld, int type)
{
    uint64_t bits = (uint64_t)(uintptr_t)p | (uint64_t)ld * (uint64_t)sw_dtypes[type].bytes | 16;
    return (uint32_t)(bits & (~bits + 1));
}

void forget(plan *p)
{
    cublasLtMatmulDescDestroy(p->call);
    cublasLtMatrixLayoutDestroy(p->a);
    cublasLtMatrixLayoutDestroy(p->b);
    cublasLtMatrixLayoutDestroy(p->c);
}

/* The epilogue that does p's act, or 0. GELU is left to types of 16 bits: how near its tanh comes to ours in f32 is not
 * documented. What ReLU was given is not needed: where its result is 0, its slope is. */
int epilogue_of(const cuda_product *p)
{
    int bias = p->bias ? CUBLASLT_EPILOGUE_BIAS : 0;
    if (p->act == SW_ACT_NONE)
        return bias ? bias : (int)CUBLASLT_EPILOGUE_DEFAULT;
    if (p->act == SW_ACT_RELU && !p->before)
        return CUBLASLT_EPILOGUE_RELU | bias;
    bool aligned = !p->before || ((uintptr_t)p->before % 16 == 0 && p->before_ld % 8 == 0);
    if (p->act == SW_ACT_GELU_TANH && p->c_type != SW_F32 && aligned)
        return (p->before ? (int)CUBLASLT_EPILOGUE_GELU_AUX : (int)CUBLASLT_EPILOGUE_GELU) | bias;
    return 0;
}

int make_plan(sw_stream *s, plan *made, const cuda_product *p, int epilogue, const uint32_t align[3])
{
    cuda_products *o = s->products;
    cublasComputeType_t compute = p->type == SW_F32 && o->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasOperation_t first = p->b_turned ? CUBLAS_OP_T : CUBLAS_OP_N, second = p->a_turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    cudaDataType_t type = lt_type(p->type), c_type = lt_type(p->c_type);
    LT_TRY(s, cublasLtMatmulDescCreate(&made->call, compute, CUDA_R_32F));
    LT_TRY(s, cublasLtMatmulDescSetAttribute(made->call, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first));
    LT_TRY(s, cublasLtMatmulDescSetAttribute(made->call, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second));
    LT_TRY(s, cublasLtMatmulDescSetAttribute(made->call, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
    if (p->before) {
        LT_TRY(s, cublasLtMatmulDescSetAttribute(made->call, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &p->before_ld, sizeof p->before_ld));
        LT_TRY(s, cublasLtMatmulDescSetAttribute(made->call, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, &c_type, sizeof c_type));
        LT_TRY(s, cublasLtMatmulDescSetAttribute(made->call, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &p->before, sizeof p->before));
    }
    if (p->bias) {
        LT_TRY(s, cublasLtMatmulDescSetAttribute(made->call, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &c_type, sizeof c_type));
        LT_TRY(s, cublasLtMatmulDescSetAttribute(made->call, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias));
    }
    if (p->a_scales && (set_scale_modes(s, made) || set_scales(s, made, p)))
        return -1;
    uint64_t m = (uint64_t)p->m, n = (uint64_t)p->n, k = (uint64_t)p->k;
    LT_TRY(s, cublasLtMatrixLayoutCreate(&made->a, type, p->b_turned ? k : n, p->b_turned ? n : k, p->b_ld));
    LT_TRY(s, cublasLtMatrixLayoutCreate(&made->b, type, p->a_turned ? m : k, p->a_turned ? k : m, p->a_ld));
    LT_TRY(s, cublasLtMatrixLayoutCreate(&made->c, c_type, n, m, p->c_ld));
    cublasLtMatmulPreference_t want;
    cublasLtMatmulHeuristicResult_t found;
    size_t space = WORKSPACE;
    int count = 0;
    LT_TRY(s, cublasLtMatmulPreferenceCreate(&want));
    cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &space, sizeof space);
    cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &align[1], sizeof *align);
    cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &align[0], sizeof *align);
    cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &align[2], sizeof *align);
    cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &align[2], sizeof *align);
    cublasStatus_t e = cublasLtMatmulAlgoGetHeuristic(o->lt, made->call, made->a, made->b, made->c, made->c, want, 1, &found, &count);
    cublasLtMatmulPreferenceDestroy(want);
    made->usable = e == CUBLAS_STATUS_SUCCESS && count > 0 && found.state == CUBLAS_STATUS_SUCCESS;
    if (made->usable)
        made->algorithm = found.algo;
    return 0;
}

} // namespace

int cuda_products_open(sw_stream *s)
{
    const char *tf32 = getenv("SWIFT_TF32");
    s->products = new cuda_products();
    s->products->tf32 = tf32 && *tf32 == '1';
    LT_TRY(s, cublasLtCreate(&s->products->lt));
    s->products->workspace = cuda_allocate(s, WORKSPACE);
    return s->products->workspace ? 0 : -1;
}

void cuda_products_close(sw_stream *s)
{
    if (!s->products)
        return;
    for (auto &p : s->products->plans)
        forget(&p.second);
    if (s->products->lt)
        cublasLtDestroy(s->products->lt);
    cuda_release(s, s->products->workspace);
    delete s->products;
    s->products = NULL;
}

int cuda_multiply(sw_stream *s, const cuda_product *p)
{
    cuda_products *o = s->products;
    if (p->a_scales && !BLOCK_SCALES)
        return CUDA_NO_ALGORITHM;
    uint32_t align[3] = {alignment(p->a, p->a_ld, p->type), alignment(p->b, p->b_ld, p->type), alignment(p->c, p->c_ld, p->c_type)};
    int epilogue = epilogue_of(p);
    if (!epilogue)
        return 1;
    int kind = epilogue << 16 | (p->type * 64 + (p->a_scales ? 32 : 0) + p->c_type * 8 + p->a_turned * 4 + p->b_turned * 2);
    plan_key key(p->m, p->n, p->k, p->a_ld, p->b_ld, p->c_ld, p->before ? p->before_ld : 0, kind,
                 (int)(align[0] << 16 | align[1] << 8 | align[2]));
    auto found = o->plans.find(key);
    if (found == o->plans.end()) {
        if (o->plans.size() >= MOST_PLANS) { /* batches of ever new lengths */
            for (auto &old : o->plans)
                forget(&old.second);
            o->plans.clear();
        }
        plan made = {};
        if (make_plan(s, &made, p, epilogue, align))
            return -1;
        found = o->plans.insert({key, made}).first;
    }
    plan *q = &found->second;
    if (!q->usable)
        return p->act == SW_ACT_NONE ? plain(s, p) : 1;
    if (p->before)
        LT_TRY(s, cublasLtMatmulDescSetAttribute(q->call, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &p->before, sizeof p->before));
    if (p->bias)
        LT_TRY(s, cublasLtMatmulDescSetAttribute(q->call, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias));
    if (p->a_scales && set_scales(s, q, p))
        return -1;
    cublasStatus_t e = cublasLtMatmul(o->lt, q->call, &p->alpha, p->b, q->a, p->a, q->b, &p->beta, p->c, q->c, p->c, q->c,
                                      &q->algorithm, o->workspace, WORKSPACE, s->stream);
    if (e == CUBLAS_STATUS_NOT_SUPPORTED) {
        q->usable = false;
        return p->act == SW_ACT_NONE ? plain(s, p) : 1;
    }
    return e == CUBLAS_STATUS_SUCCESS ? 0 : failed(s, e, "product");
}
