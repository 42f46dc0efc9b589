#include "kernels/reference/reference.h"

#include "kernels/blocks.h"

#include <string.h>

const sw_kernels sw_kernels_reference = {
#define K(name, args) .name = ref_##name,
#include "kernels/kernels.def"
#undef K
};

int64_t ref_rows(const sw_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->ndim - 1; i++)
        n *= t->shape[i];
    return n;
}

int64_t ref_width(const sw_tensor *t) { return t->ndim ? t->shape[t->ndim - 1] : 1; }

bool ref_same_shape(const sw_tensor *a, const sw_tensor *b)
{
    return a->ndim == b->ndim && !memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof a->shape[0]);
}

/* Where row r starts, in values. */
static int64_t row_offset(const sw_tensor *t, int64_t r)
{
    int64_t offset = 0;
    for (int i = t->ndim - 2; i >= 0; i--) {
        offset += r % t->shape[i] * t->stride[i];
        r /= t->shape[i];
    }
    return offset;
}

static int64_t last_stride(const sw_tensor *t) { return t->ndim ? t->stride[t->ndim - 1] : 1; }

/* What value `at` of t is multiplied by. */
static double scale_of(const sw_tensor *t, int64_t at)
{
    int64_t column;
    const float *scale = sw_scales_at(t->scales, (const char *)t->data + at, &column);
    return scale[column / t->scales->wide];
}

void ref_load(double *to, const sw_tensor *t, int64_t r)
{
    int64_t n = ref_width(t), at = row_offset(t, r), step = last_stride(t);
    if (!sw_is_quantised(t->dtype)) {
        for (int64_t i = 0; i < n; i++)
            to[i] = sw_scalar_get(t->data, t->dtype, at + i * step) * (t->scales ? scale_of(t, at + i * step) : 1);
        return;
    }
    const int block = sw_dtypes[t->dtype].block;
    const char *src = (const char *)t->data + sw_dtype_bytes(t->dtype, at);
    float values[256];
    assert(step == 1 && n % block == 0 && block <= 256);
    for (int64_t i = 0; i < n; i += block, src += sw_dtypes[t->dtype].bytes) {
        int rc = sw_block_decode(values, src, t->dtype, block);
        assert(rc == 0);
        (void)rc;
        for (int j = 0; j < block; j++)
            to[i + j] = values[j];
    }
}

void ref_store(const sw_tensor *t, int64_t r, const double *from, int acc)
{
    int64_t n = ref_width(t), at = row_offset(t, r), step = last_stride(t);
    for (int64_t i = 0; i < n; i++)
        sw_scalar_set(t->data, t->dtype, at + i * step,
                      acc ? from[i] + sw_scalar_get(t->data, t->dtype, at + i * step) : from[i]);
}

static int64_t value_offset(const sw_tensor *t, int64_t i)
{
    int64_t n = ref_width(t);
    return row_offset(t, i / n) + i % n * last_stride(t);
}

double ref_get(const sw_tensor *t, int64_t i) { return sw_scalar_get(t->data, t->dtype, value_offset(t, i)); }
void ref_set(const sw_tensor *t, int64_t i, double v) { sw_scalar_set(t->data, t->dtype, value_offset(t, i), v); }

double *ref_scratch(sw_stream *s, int64_t n) { return sw_stream_scratch(s, (size_t)(n > 0 ? n : 1) * sizeof(double)); }
