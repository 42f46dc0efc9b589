// Causal attention of one sequence by a device's kernels, forward and backward, in bf16: attention DEVICE TOKENS HEADS KEY_HEADS WIDTH
// prints a JSON object: seconds each.
#include "base/error.h"
#include "base/memory.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { WARM = 3, TIMES = 20 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void stop(void)
{
    fprintf(stderr, "attention: %s\n", sw_error());
    exit(1);
}

static sw_tensor tensor(sw_device *d, sw_dtype type, int ndim, const int64_t *shape)
{
    sw_tensor t = sw_tensor_of(NULL, type, ndim, shape);
    if (!(t.data = d->alloc(d, sw_tensor_bytes(&t))))
        stop();
    return t;
}

// Values in +-2.
static sw_tensor drawn(sw_device *d, int64_t tokens, int64_t heads, int64_t width, uint32_t seed)
{
    sw_tensor t = tensor(d, SW_BF16, 3, (int64_t[]){tokens, heads, width});
    int64_t n = sw_numel(&t);
    uint16_t *host = sw_malloc((size_t)n * sizeof *host);
    for (int64_t i = 0; i < n; i++)
        host[i] = sw_f32_to_bf16((float)((seed = seed * 1664525u + 1013904223u) >> 8) / (1 << 22) - 2);
    if (d->put(d, t.data, host, (size_t)n * sizeof *host))
        stop();
    free(host);
    return t;
}

int main(int argc, char **argv)
{
    int64_t of[4] = {0};
    for (int i = 0; i < 4 && argc == 6; i++)
        of[i] = strtoll(argv[i + 2], NULL, 10);
    if (of[0] < 1 || of[1] < 1 || of[2] < 1 || of[3] < 1 || of[1] % of[2]) {
        fprintf(stderr, "usage: attention DEVICE TOKENS HEADS KEY_HEADS WIDTH\n");
        return 2;
    }
    sw_device *d = sw_device_open(argv[1]);
    if (!d)
        stop();
    const int64_t n = of[0], heads = of[1], key_heads = of[2], width = of[3];
    sw_tensor q = drawn(d, n, heads, width, 1), k = drawn(d, n, key_heads, width, 2), v = drawn(d, n, key_heads, width, 3);
    sw_tensor g = drawn(d, n, heads, width, 4), dq = tensor(d, SW_BF16, 3, q.shape), dk = tensor(d, SW_BF16, 3, k.shape);
    sw_tensor dv = tensor(d, SW_BF16, 3, v.shape), out = tensor(d, SW_BF16, 3, q.shape);
    sw_tensor lse = tensor(d, SW_F32, 2, (int64_t[]){n, heads}), seqs = tensor(d, SW_I32, 2, (int64_t[]){1, 4});
    const int32_t one[4] = {0, (int32_t)n, 0, (int32_t)n};
    const sw_attention a = {.scale = 1 / sqrt((double)width), .causal = 1};
    double took[2] = {0};
    if (d->put(d, seqs.data, one, sizeof one))
        stop();
    for (int back = 0; back < 2; back++) {
        for (int i = -WARM; i < TIMES; i++) {
            if (i == 0 && d->sync(d))
                stop();
            took[back] = i == 0 ? now() : took[back];
            if (back ? d->k->attention_bwd(d->stream, &dq, &dk, &dv, &g, &out, &lse, &q, &k, &v, &seqs, &a)
                     : d->k->attention_fwd(d->stream, &out, &lse, &q, &k, &v, &seqs, &a))
                stop();
        }
        if (d->sync(d))
            stop();
        took[back] = (now() - took[back]) / TIMES;
    }
    printf("{\"forward\": %.9g, \"backward\": %.9g}\n", took[0], took[1]);
    d->close(d);
    return 0;
}
