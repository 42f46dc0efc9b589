#include "base/philox.h"

#include <math.h>
#include <string.h>
#include <xxhash.h>

uint32_t sw_rng_site(const char *name) { return XXH32(name, strlen(name), 0x5357u); }

/* Words 2i and 2i + 1, which are of one block. */
static const uint32_t *two_words(const sw_rng *r, uint64_t i, uint32_t block[4])
{
    sw_philox(r, i >> 1, block);
    return block + 2 * (i & 1);
}

double sw_rng_normal(const sw_rng *r, uint64_t i)
{
    uint32_t block[4];
    const uint32_t *w = two_words(r, i, block);
    double u = ((double)w[0] + 1.0) * 0x1p-32; /* (0, 1] */
    double v = (double)w[1] * 0x1p-32;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

uint64_t sw_rng_below(const sw_rng *r, uint64_t i, uint64_t n)
{
    uint32_t block[4];
    const uint32_t *w = two_words(r, i, block);
    uint64_t x = (uint64_t)w[0] << 32 | w[1];
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
