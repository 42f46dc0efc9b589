/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * SC 2011). A number depends only on (seed, step, site, element), never on threads or on what was drawn
 * before, so that a resumed or differently split run sees the same ones. Every device uses these formulas. */
#ifndef SW_BASE_PHILOX_H
#define SW_BASE_PHILOX_H

#include <stdint.h>

/* What is being drawn for: a run's seed, the optimiser or decoding step, the place in the program. */
typedef struct sw_rng {
    uint64_t seed;
    uint32_t step, site;
} sw_rng;

/* Stable site number of a name (a dropout's module path, "shuffle", ...). */
uint32_t sw_rng_site(const char *name);

/* Devices compile the formula for themselves. */
#ifdef __CUDACC__
#define SW_RNG_FUNCTION __host__ __device__ static inline
#else
#define SW_RNG_FUNCTION static inline
#endif

SW_RNG_FUNCTION void sw_philox(const sw_rng *r, uint64_t block, uint32_t out[4])
{
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32), c2 = r->step, c3 = r->site;
    uint32_t k0 = (uint32_t)r->seed, k1 = (uint32_t)(r->seed >> 32);
    for (int i = 0; i < 10; i++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The numbers of a row that has a key: the upper half of the key tells records apart, the lower half rows of a record. Its
 * column c is word c % 4 of the block sw_rng_row_block(key, c / 4) of what this gives. */
SW_RNG_FUNCTION sw_rng sw_rng_row(const sw_rng *r, int64_t key)
{
    sw_rng own = {r->seed + 0x9E3779B97F4A7C15u * (uint64_t)((uint64_t)key >> 32), r->step, r->site};
    return own;
}
SW_RNG_FUNCTION uint64_t sw_rng_row_block(int64_t key, uint64_t column4) { return (uint64_t)(uint32_t)key << 32 | column4; }

/* For a row that goes to several experts: a key of its own at each. */
SW_RNG_FUNCTION int64_t sw_rng_key_at(int64_t key, int32_t expert)
{
    return (int64_t)((uint64_t)key + ((uint64_t)(((uint32_t)expert + 1) * 0x9E3779B9u) << 32));
}

/* Element i: word i % 4 of block i / 4. */
static inline uint32_t sw_rng_u32(const sw_rng *r, uint64_t i)
{
    uint32_t w[4];
    sw_philox(r, i >> 2, w);
    return w[i & 3];
}

/* Uniform in [0, 1), 24 bits. */
static inline float sw_rng_uniform(const sw_rng *r, uint64_t i) { return (float)(sw_rng_u32(r, i) >> 8) * 0x1p-24f; }

/* Standard normal by Box-Muller; element i uses words 2i and 2i+1. */
double sw_rng_normal(const sw_rng *r, uint64_t i);
/* Uniform integer in [0, n), n > 0, without bias worth mentioning (64-bit multiply-shift). */
uint64_t sw_rng_below(const sw_rng *r, uint64_t i, uint64_t n);
/* perm[0..n) becomes a random permutation of 0..n-1 (Fisher-Yates). */
void sw_rng_permutation(const sw_rng *r, uint64_t n, uint64_t *perm);

#endif
