#include "base/philox.h"

#include <math.h>
#include <string.h>
#include <xxhash.h>

uint32_t sw_rng_site(const char *name) { return XXH32(name, strlen(name), 0x5357u); }

double sw_rng_normal(const sw_rng *r, uint64_t i)
{
    double u = ((double)sw_rng_u32(r, 2 * i) + 1.0) * 0x1p-32; /* (0, 1] */
    double v = (double)sw_rng_u32(r, 2 * i + 1) * 0x1p-32;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

uint64_t sw_rng_below(const sw_rng *r, uint64_t i, uint64_t n)
{
    uint64_t x = (uint64_t)sw_rng_u32(r, 2 * i) << 32 | sw_rng_u32(r, 2 * i + 1);
    return (uint64_t)((unsigned __int128)x * n >> 64);
}

void sw_rng_permutation(const sw_rng *r, uint64_t n, uint64_t *perm)
{
    for (uint64_t i = 0; i < n; i++)
        perm[i] = i;
    for (uint64_t i = n; i > 1; i--) {
        uint64_t j = sw_rng_below(r, i, i), t = perm[i - 1];
        perm[i - 1] = perm[j];
        perm[j] = t;
    }
}
