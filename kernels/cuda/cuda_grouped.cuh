/* Rows in groups, each with a matrix of its own (kernels.def): where a block's rows lie is found on the device, so that the host
 * need not know how many each group has. */
#ifndef SW_CUDA_GROUPED_CUH
#define SW_CUDA_GROUPED_CUH

#include "cuda_blocks.cuh"

struct group_list {
    const int *start;
    int64_t count, rows; /* rows: of all groups and of none */
    const void *first;   /* of the matrices; */
    int64_t step;        /* bytes from one to the next; */
    const void *const *at; /* or, where they lie anyhow, each, */
    const float *const *scales_at; /* and the first scale of each; NULL: they have those of all, or none */
    __device__ const void *matrix(int64_t g) const { return at ? at[g] : (const char *)first + g * step; }
    /* Of matrix g, when those of the first are `one`. */
    __device__ scales_of scales(int64_t g, scales_of one) const
    {
        if (scales_at) {
            one.at = scales_at[g];
            one.origin = (const uint8_t *)at[g];
        }
        return one;
    }
};
static inline group_list cuda_groups(const sw_matrices *m, const sw_tensor *start, int64_t rows)
{
    return group_list{(const int *)start->data, m->count, rows, m->one.data, (int64_t)sw_dtype_bytes(m->one.dtype, m->step), m->at ? m->table : NULL,
                      m->scales ? (const float *const *)m->scales_table : NULL};
}
/* Tiles of so many rows that there may be, those of rows of no group among them. */
static inline int64_t cuda_tiles(const group_list &g, int64_t rows)
{
    int64_t most = (g.rows + (rows - 1) * (g.count + 1)) / rows;
    return most < g.rows ? most : g.rows;
}

struct group_tile {
    int64_t group, first, n; /* group == count: rows of none */
};
/* Tile number `index` when each group is cut into tiles of `size` rows; false behind the last. A warp together: each lane counts the
 * tiles of a stretch of groups. */
__device__ static inline bool find_group_tile(const group_list &g, int size, int64_t index, group_tile *out)
{
    int lane = (int)threadIdx.x % 32;
    int64_t each = (g.count + 32) / 32, from = lane * each, to = from + each < g.count + 1 ? from + each : g.count + 1;
    int tiles = 0;
    for (int64_t i = from; i < to; i++)
        tiles += ((i < g.count ? g.start[i + 1] : (int)g.rows) - g.start[i] + size - 1) / size;
    int after = tiles;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
        int other = __shfl_up_sync(FULL_WARP, after, d);
        after += lane >= d ? other : 0;
    }
    int before = after - tiles, group = 0, first = 0, n = 0;
    bool mine = index >= before && index < after;
    for (int64_t i = from, left = index - before; mine && i < to; i++) {
        int rows = (i < g.count ? g.start[i + 1] : (int)g.rows) - g.start[i];
        int64_t here = (rows + size - 1) / size;
        if (left < here) {
            group = (int)i;
            first = (int)left * size;
            n = rows - first < size ? rows - first : size;
            first += g.start[i];
            break;
        }
        left -= here;
    }
    unsigned votes = __ballot_sync(FULL_WARP, mine);
    if (!votes)
        return false;
    int owner = __ffs((int)votes) - 1;
    out->group = __shfl_sync(FULL_WARP, group, owner);
    out->first = __shfl_sync(FULL_WARP, first, owner);
    out->n = __shfl_sync(FULL_WARP, n, owner);
    return true;
}

#endif
