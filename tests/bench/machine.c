// What this machine can do at most, for the benchmark to compare with: rate of large matrix products (oneDNN, bf16 and
// f32) and of reading memory. Prints one JSON object.
#include "kernels/cpu_gemm.h"

#include "base/error.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

// Floating point operations a second of an n by n product, the best of several.
static double product_rate(sw_dtype type, int64_t n)
{
    void *m = calloc((size_t)(3 * n * n), sizeof(float));
    if (!m) {
        fprintf(stderr, "machine: no memory\n");
        exit(1);
    }
    char *part = m;
    size_t size = (size_t)(n * n) * sizeof(float);
    sw_gemm g = {.m = n,
                 .n = n,
                 .k = n,
                 .type = type,
                 .a = {part, n, 1},
                 .b = {part + size, n, 1},
                 .c = part + 2 * size,
                 .c_type = SW_F32,
                 .c_row = n,
                 .alpha = 1};
    double best = 1e30;
    for (int i = 0; i < 8; i++) {
        double start = now();
        if (sw_cpu_gemm(&g)) {
            fprintf(stderr, "machine: %s\n", sw_error());
            exit(1);
        }
        double took = now() - start;
        if (took < best)
            best = took;
    }
    free(m);
    return 2.0 * (double)n * (double)n * (double)n / best;
}

// Bytes a second that all threads together read from memory, the best of several.
static double read_rate(void)
{
    size_t n = (size_t)128 << 20; // words: 1 GiB, more than any cache
    long long *data = malloc(n * sizeof *data), sum = 0;
    if (!data) {
        fprintf(stderr, "machine: no memory\n");
        exit(1);
    }
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++)
        data[i] = (long long)i;
    double best = 1e30;
    for (int round = 0; round < 5; round++) {
        double start = now();
#pragma omp parallel for simd reduction(+ : sum) schedule(static)
        for (size_t i = 0; i < n; i++)
            sum += data[i];
        double took = now() - start;
        if (took < best)
            best = took;
    }
    volatile long long sink = sum; // keeps the sums from being left out
    (void)sink;
    free(data);
    return n * sizeof *data / best;
}

int main(void)
{
    printf("{\"threads\": %d, \"bf16_flops\": %.4g, \"f32_flops\": %.4g, \"read_bytes\": %.4g}\n",
           omp_get_max_threads(), product_rate(SW_BF16, 2048), product_rate(SW_F32, 2048), read_rate());
    return 0;
}
