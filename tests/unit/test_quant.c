/* Quantised types: exact bytes are the golden suite's; here what holds for any values. */
#include "store/quant.h"

#include "base/memory.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { N = 1024 };

static const sw_dtype blocks[] = {SW_Q4_0, SW_Q4_1, SW_Q5_0, SW_Q5_1, SW_Q8_0, SW_Q2_K, SW_Q3_K, SW_Q4_K, SW_Q5_K, SW_Q6_K,
                                  SW_IQ4_NL, SW_IQ4_XS, SW_MXFP4, SW_TQ1_0, SW_TQ2_0, SW_Q2_0, SW_Q1_0};
/* Root mean square errors that a normal distribution leaves, with a fifth to spare. */
static const double normal_error[] = {0.106, 0.089, 0.053, 0.044, 0.0068, 0.33, 0.18, 0.083, 0.043, 0.022, 0.091, 0.092, 0.14, 0.97, 0.97, 0.88, 0.73};

static void normal(float *x, int64_t n, double scale, uint32_t site)
{
    sw_rng r = {.seed = 1, .site = site};
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(scale * sw_rng_normal(&r, (uint64_t)i));
}

static double error(const float *x, const float *w, sw_dtype t, int64_t n, const float *importance)
{
    uint8_t *b = sw_malloc(sw_dtype_bytes(t, n));
    float *y = SW_NEW_ARRAY(float, (size_t)n);
    double e = 0, sum = 0;
    assert_int_equal(sw_quantise(b, t, x, n, importance), 0);
    assert_int_equal(sw_dequantise(y, b, t, n), 0);
    for (int64_t i = 0; i < n; i++) {
        double d = (double)x[i] - y[i];
        e += (w ? w[i] : 1) * d * d;
        sum += w ? w[i] : 1;
    }
    free(b);
    free(y);
    return sqrt(e / sum);
}

static void errors_of_normal_values(void **state)
{
    (void)state;
    float x[N];
    const double scales[] = {1, 1e-3, 1000};
    for (size_t s = 0; s < SW_COUNT(scales); s++) {
        normal(x, N, scales[s], 1);
        for (size_t i = 0; i < SW_COUNT(blocks); i++) {
            double e = error(x, NULL, blocks[i], N, NULL) / scales[s];
            if (!(e < normal_error[i] && e > 0.5 * normal_error[i]))
                fail_msg("%s at %g: error %.5f", sw_dtypes[blocks[i]].name, scales[s], e);
        }
    }
}

/* What is quantised already comes back as it is: at least its values, to rounding. */
static void quantising_again(void **state)
{
    (void)state;
    float x[N], y[N], z[N];
    uint8_t b[N * 2];
    normal(x, N, 1, 2);
    for (size_t i = 0; i < SW_COUNT(blocks); i++) {
        assert_int_equal(sw_quantise(b, blocks[i], x, N, NULL), 0);
        assert_int_equal(sw_dequantise(y, b, blocks[i], N), 0);
        assert_int_equal(sw_quantise(b, blocks[i], y, N, NULL), 0);
        assert_int_equal(sw_dequantise(z, b, blocks[i], N), 0);
        double e = 0;
        for (int j = 0; j < N; j++)
            e += (y[j] - z[j]) * (y[j] - z[j]);
        if (sqrt(e / N) > 0.2 * normal_error[i])
            fail_msg("%s: %g", sw_dtypes[blocks[i]].name, sqrt(e / N));
    }
}

static void extreme_values(void **state)
{
    (void)state;
    uint8_t b[N * 4];
    float x[N], y[N];
    const float values[] = {0, 1, -1, 1e-30f, -1e-40f, 6e-8f, 60000};
    for (size_t i = 0; i < SW_COUNT(blocks); i++) {
        for (size_t v = 0; v < SW_COUNT(values); v++) { /* constant blocks */
            for (int j = 0; j < N; j++)
                x[j] = values[v];
            assert_int_equal(sw_quantise(b, blocks[i], x, N, NULL), 0);
            assert_int_equal(sw_dequantise(y, b, blocks[i], N), 0);
            for (int j = 0; j < N; j++)
                if (!(fabsf(y[j] - x[j]) <= fabsf(x[j]) * (blocks[i] == SW_MXFP4 ? 0.2f : 0.01f) + 1e-6f)) /* 4, 6: nothing between */
                    fail_msg("%s: %g became %g", sw_dtypes[blocks[i]].name, x[j], y[j]);
        }
        const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f, 1e20f};
        for (size_t v = 0; v < SW_COUNT(bad); v++) {
            memset(x, 0, sizeof x);
            x[N - 1] = bad[v];
            x[N - 2] = -bad[v];
            int whole = bad[v] == 1e20f && blocks[i] == SW_MXFP4 ? 0 : -1; /* whose scale is a power of two up to 2^127 */
            assert_int_equal(sw_quantise(b, blocks[i], x, N, NULL), whole);
        }
    }
    x[0] = NAN, x[1] = INFINITY, x[2] = -0.0f;
    for (int t = SW_F32; t <= SW_BF16; t++) {
        assert_int_equal(sw_quantise(b, (sw_dtype)t, x, 3, NULL), 0);
        assert_int_equal(sw_dequantise(y, b, (sw_dtype)t, 3), 0);
        assert_true(isnan(y[0]) && isinf(y[1]) && y[2] == 0 && signbit(y[2]));
    }
}

/* Importance moves the error to where it does not count. */
static void importance_counts(void **state)
{
    (void)state;
    float x[N], w[N];
    normal(x, N, 1, 3);
    for (int i = 0; i < N; i++)
        w[i] = i % 4 ? 0.01f : 1;
    for (size_t i = 0; i < SW_COUNT(blocks); i++) {
        double with = error(x, w, blocks[i], N, w), without = error(x, w, blocks[i], N, NULL);
        if (!(with < without))
            fail_msg("%s: %.5f with importance, %.5f without", sw_dtypes[blocks[i]].name, with, without);
    }
    uint8_t b[N * 2];
    memset(w, 0, sizeof w);
    for (size_t i = 0; i < SW_COUNT(blocks); i++) { /* columns that nothing was seen of are rounded all the same */
        if (!(error(x, NULL, blocks[i], N, w) < normal_error[i] * 1.1))
            fail_msg("%s", sw_dtypes[blocks[i]].name);
        const float bad[] = {-1, NAN, INFINITY};
        for (size_t v = 0; v < 3; v++) {
            w[N - 1] = bad[v];
            assert_int_equal(sw_quantise(b, blocks[i], x, N, w), -1);
        }
        w[N - 1] = 0;
    }
}

static void sizes(void **state)
{
    (void)state;
    float x[300] = {0};
    uint8_t b[600];
    for (size_t i = 0; i < SW_COUNT(blocks); i++) {
        assert_int_equal(sw_quantise(b, blocks[i], x, 33, NULL), -1);
        assert_int_equal(sw_dequantise(x, b, blocks[i], 31), -1);
        assert_int_equal(sw_dequantise(x, b, blocks[i], -32), -1);
        assert_int_equal(sw_quantise(NULL, blocks[i], NULL, 0, NULL), 0);
    }
    assert_int_equal(sw_quantise(b, SW_I8, x, 1, NULL), -1);
    assert_int_equal(sw_dtype_by_name("Q4_k"), SW_Q4_K);
    assert_int_equal(sw_dtype_by_name("iq4"), SW_DTYPE_COUNT);
    assert_int_equal(sw_quantise(b, SW_IQ2_XXS, x, 256, NULL), -1);
    assert_false(sw_is_written(SW_IQ2_XXS) || sw_is_written(SW_DTYPE_COUNT));
    assert_int_equal(sw_dtype_by_gguf(12), SW_Q4_K);
    assert_int_equal(sw_dtype_by_gguf(-1), SW_DTYPE_COUNT);
}

/* 256 blocks of pseudo-random bytes, so that every scale, sign and entry of a codebook has its turn, give the values that ggml
 * decodes: digests by tests/golden/make_blocks.py. */
static void values_of_any_bytes(void **state)
{
    (void)state;
    static const struct { const char *name; uint64_t digest; } want[] = {
        {"q4_0", 0x396fb86af300d445}, {"q4_1", 0xcb3de1916aa273ac}, {"q5_0", 0xda6e5d9f5fbe800f}, {"q5_1", 0x8bffbf9967a4b120},
        {"q8_0", 0xb509f02af9a43d1a}, {"q2_K", 0x83236178ef77857e}, {"q3_K", 0x52a7490a9581e0d3}, {"q4_K", 0x47a89c5cf49e5dca},
        {"q5_K", 0x96caf7803224f457}, {"q6_K", 0x53ec0bbaff1c147e}, {"q8_K", 0x64170718b5ddf3ac}, {"iq2_xxs", 0xdbe5f1dbd29f1f43},
        {"iq2_xs", 0x20d36388b3e77966}, {"iq3_xxs", 0xafc8b975ff110f51}, {"iq1_s", 0x5df05fcdf1083411}, {"iq4_nl", 0x5c735fda0572d68f},
        {"iq3_s", 0x6b489269de488476}, {"iq2_s", 0x1ce91ec7b99f0773}, {"iq4_xs", 0x168b759f0717cf5a}, {"iq1_m", 0x8da383a77b583652},
        {"tq1_0", 0xe048087ab0edb653}, {"tq2_0", 0xefb0561cc3e73486}, {"mxfp4", 0xd37bff6689b3e878}, {"nvfp4", 0x6951f4bb4d5c600b},
        {"q1_0", 0xe16c6a9cf1e49525}, {"q2_0", 0xbca3b718d932b682},
    };
    for (size_t t = 0; t < SW_COUNT(want); t++) {
        sw_dtype type = sw_dtype_by_name(want[t].name);
        int64_t n = 256 * sw_dtypes[type].block;
        size_t size = sw_dtype_bytes(type, n);
        uint8_t *b = sw_malloc(size);
        float *y = SW_NEW_ARRAY(float, (size_t)n);
        uint64_t x = (uint64_t)sw_dtypes[type].gguf, h = 0xcbf29ce484222325;
        for (size_t i = 0; i < size; i++) {
            x = x * 6364136223846793005 + 1442695040888963407;
            b[i] = (uint8_t)(x >> 56);
        }
        assert_int_equal(sw_dequantise(y, b, type, n), 0);
        for (int64_t i = 0; i < n; i++)
            y[i] = isnan(y[i]) || y[i] == 0 ? 0 : y[i];
        for (size_t i = 0; i < (size_t)n * sizeof *y; i++)
            h = (h ^ ((const uint8_t *)y)[i]) * 0x100000001b3;
        if (h != want[t].digest)
            fail_msg("%s: values are not ggml's", want[t].name);
        free(b);
        free(y);
    }
}

/* Every code of the two 8-bit floats (OCP OFP8): sign, exponent with bias 7 or 15, mantissa of 3 or 2 bits. */
static void eight_bits(void **state)
{
    (void)state;
    uint8_t codes[256];
    float e4m3[256], e5m2[256];
    for (int i = 0; i < 256; i++)
        codes[i] = (uint8_t)i;
    assert_int_equal(sw_dequantise(e4m3, codes, SW_F8_E4M3, 256), 0);
    assert_int_equal(sw_dequantise(e5m2, codes, SW_F8_E5M2, 256), 0);
    for (int i = 0; i < 256; i++) {
        float sign = i & 0x80 ? -1 : 1;
        int e = i >> 3 & 15, m = i & 7;
        if (e == 15 && m == 7)
            assert_true(isnan(e4m3[i]));
        else
            assert_true(e4m3[i] == sign * ldexpf(e ? 1 + (float)m / 8 : (float)m / 8, e ? e - 7 : -6) && signbit(e4m3[i]) == signbit(sign));
        e = i >> 2 & 31, m = i & 3;
        if (e == 31 && m)
            assert_true(isnan(e5m2[i]));
        else
            assert_true(e5m2[i] == (e == 31 ? sign * INFINITY : sign * ldexpf(e ? 1 + (float)m / 4 : (float)m / 4, e ? e - 15 : -14)));
    }
}

/* Halves round what they can hold, and refuse what would become infinite; what is infinite already stays so. */
static void halves_that_overflow(void **state)
{
    (void)state;
    uint16_t half;
    const float most = 65519, over = 65520, infinite = INFINITY, nearly = 3.39e38F, beyond = 3.4e38F;
    assert_int_equal(sw_quantise(&half, SW_F16, &most, 1, NULL), 0);
    assert_int_equal(half, 0x7bff);
    assert_int_equal(sw_quantise(&half, SW_F16, &over, 1, NULL), -1);
    assert_non_null(strstr(sw_error(), "no f16 can hold it"));
    assert_int_equal(sw_quantise(&half, SW_F16, &infinite, 1, NULL), 0);
    assert_int_equal(half, 0x7c00);
    assert_int_equal(sw_quantise(&half, SW_BF16, &nearly, 1, NULL), 0);
    assert_int_equal(sw_quantise(&half, SW_BF16, &beyond, 1, NULL), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(eight_bits), cmocka_unit_test(errors_of_normal_values), cmocka_unit_test(quantising_again),
                                       cmocka_unit_test(extreme_values), cmocka_unit_test(importance_counts), cmocka_unit_test(sizes),
                                       cmocka_unit_test(values_of_any_bytes), cmocka_unit_test(halves_that_overflow)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
