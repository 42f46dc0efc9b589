/* Matrix products of the CPU beside sums by hand: every way round, rows with gaps, and one row or column, whose stride some
 * versions of oneDNN overlook. */
#include "kernels/cpu_gemm.h"

#include "base/memory.h"
#include "base/philox.h"
#include "kernels/tensor.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 140, ROUNDS = 3000 };

static float a[MOST * MOST], b[MOST * MOST], c[MOST * MOST], before[MOST * MOST], bias[MOST];
static uint16_t a16[MOST * MOST], b16[MOST * MOST], c16[MOST * MOST];

static uint32_t bits(void)
{
    static const sw_rng rng = {.seed = 1};
    static uint64_t block;
    uint32_t w[4];
    sw_philox(&rng, block++, w);
    return w[0];
}
static int draw(size_t n) { return (int)(bits() % n); }

/* Whole numbers: exact in either type. */
static void fill(void)
{
    for (int i = 0; i < MOST * MOST; i++) {
        uint32_t r = bits();
        a[i] = (float)(r % 9) - 4;
        b[i] = (float)(r / 9 % 9) - 4;
        c[i] = before[i] = (float)(r / 81 % 5) - 2;
        a16[i] = sw_f32_to_bf16(a[i]), b16[i] = sw_f32_to_bf16(b[i]), c16[i] = sw_f32_to_bf16(c[i]);
    }
    for (int i = 0; i < MOST; i++)
        bias[i] = (float)draw(5) - 2;
}

static sw_gemm_operand operand(const void *data, int64_t rows, int64_t columns)
{
    int64_t gap = draw(3) ? 0 : 1 + draw(5);
    return draw(2) ? (sw_gemm_operand){data, 1, rows + gap} : (sw_gemm_operand){data, columns + gap, 1};
}

static double off_by(const sw_gemm *g)
{
    double worst = 0;
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            int64_t at = i * g->c_row + j;
            double want = g->bias ? bias[j] : 0, got = g->c_type == SW_BF16 ? sw_bf16_to_f32(c16[at]) : c[at];
            for (int64_t k = 0; k < g->k; k++)
                want += (double)a[i * g->a.row + k * g->a.column] * b[k * g->b.row + j * g->b.column];
            want = g->alpha * want + g->beta * before[at];
            double off = fabs(want - got) - (g->c_type == SW_BF16 ? fabs(want) / 128 : 0);
            worst = off <= worst ? worst : off; /* NaN counts */
        }
    return worst;
}

static void random_products(void **state)
{
    static const int sizes[] = {1, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 32, 33, 48, 64, 96, 130};
    static const float alphas[] = {1, 1, -2, 0.5f}, betas[] = {0, 0, 1, 0.5f};
    (void)state;
    fill();
    for (int round = 0; round < ROUNDS; round++) {
        sw_gemm g = {.m = sizes[draw(SW_COUNT(sizes))], .n = sizes[draw(SW_COUNT(sizes))], .k = sizes[draw(SW_COUNT(sizes))]};
        bool half = draw(2);
        g.type = half ? SW_BF16 : SW_F32;
        g.c_type = half && draw(3) == 0 ? SW_BF16 : SW_F32;
        g.a = operand(half ? (void *)a16 : (void *)a, g.m, g.k);
        g.b = operand(half ? (void *)b16 : (void *)b, g.k, g.n);
        g.c = g.c_type == SW_BF16 ? (void *)c16 : (void *)c;
        g.c_row = g.n + (draw(3) ? 0 : draw(5));
        g.alpha = alphas[draw(4)], g.beta = betas[draw(4)];
        g.bias = draw(4) ? NULL : bias;
        memcpy(c, before, sizeof c);
        for (int i = 0; i < MOST * MOST; i++)
            c16[i] = sw_f32_to_bf16(before[i]);
        assert_int_equal(sw_cpu_gemm(&g), 0);
        double off = off_by(&g);
        if (!(off < 1e-3))
            fail_msg("[%d, %d] by [%d, %d], %s to %s, strides %d %d, %d %d, %d, alpha %g beta %g: off by %g", (int)g.m, (int)g.k, (int)g.k, (int)g.n,
                     sw_dtypes[g.type].name, sw_dtypes[g.c_type].name, (int)g.a.row, (int)g.a.column, (int)g.b.row, (int)g.b.column,
                     (int)g.c_row, (double)g.alpha, (double)g.beta, off);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_products)};
    return cmocka_run_group_tests_name("gemm", tests, NULL, NULL);
}
