/* The matrix that each head keeps: what stepping, running in chunks and going back share.
 *
 * A chunk of SW_CHUNK places is worked out as products (Yang et al. 2024, arXiv 2412.06464; Dao and Gu 2024, arXiv
 * 2405.21060). With G_t the decays from the chunk's start to place t, multiplied up, and M the matrix before it:
 *
 *   p_tj = <q_t, G_t / G_j k_j> for j <= t     l_tj = <k_t, G_t / G_j k_j> for j < t
 *   x_t = v_t - M^T (G_t k_t) - sum over j < t of l_tj u_j (without delta: v_t)     u_t = beta_t x_t
 *   out_t = M^T (G_t q_t) + sum over j <= t of p_tj u_j + skip v_t
 *   the matrix after it = diag(G_end) M + sum over j of (G_end / G_j k_j) u_j^T
 *
 * No decay is ever divided by: G_t / G_j comes from multiplying up what lies between, so that none overflows. */
#ifndef SW_KERNELS_CPU_RECURRENCE_H
#define SW_KERNELS_CPU_RECURRENCE_H

#include "cpu_math.h"
#include "cpu_recurrent.h"
#include "cpu_tile.h"

enum {
    SW_CHUNK = 64,
    SW_SUB = 16,      /* places of a block within it */
    SW_FEW_PLACES = 8 /* of a run: stepping costs less */
};

typedef struct sw_keeper {
    const sw_tensor *q, *k, *v, *g, *beta, *skip;
    int64_t heads, share, deep, wide, deep_padded, wide_padded; /* D, Dv, and those as multiples of 16 */
    bool delta, each; /* each: every place of the key has a decay of its own */
} sw_keeper;

static inline sw_keeper sw_keeper_of(const sw_tensor *q, const sw_tensor *k, const sw_tensor *v, const sw_tensor *g, const sw_tensor *beta,
                                     const sw_tensor *skip, int delta)
{
    return (sw_keeper){q, k, v, g, beta, skip, v->shape[1], v->shape[1] / k->shape[1], k->shape[2], v->shape[2],
                       sw_pad16(k->shape[2]), sw_pad16(v->shape[2]), delta != 0, g->ndim == 3};
}

static inline float sw_skip_of(const sw_keeper *p, int64_t head) { return p->skip ? ((const float *)p->skip->data)[head] : 0; }
static inline int64_t sw_chunks(int64_t rows) { return (rows + SW_CHUNK - 1) / SW_CHUNK; }

/* n values of (row, head) as f32. */
static inline void sw_fetch(float *to, const sw_tensor *x, int64_t row, int64_t head, int64_t n)
{
    const float *from = sw_load(sw_at(x, row * x->stride[0] + head * x->stride[1]), x->dtype, n, to);
    if (from != to)
        memcpy(to, from, (size_t)n * sizeof *to);
}

static inline void sw_put(const sw_tensor *to, int64_t row, int64_t head, int64_t n, const float *from)
{
    if (to)
        sw_store(sw_at(to, row * to->stride[0] + head * to->stride[1]), to->dtype, n, from);
}

/* One chunk of one head. Matrices have rows of `deep` or `wide` padded with zeros; rows up to `padded`, a multiple of
 * SW_SUB, are zeros that change nothing. */
typedef struct sw_chunk {
    int64_t first, n, padded;
    float *q, *k, *k_across;           /* [64][D] as they are; k also as [D][64] */
    float *raw_p, *raw_l;              /* one decay: q k^T and k k^T, shared by the heads of a key */
    float *q_in, *k_in;                /* [64][D]: G_t q_t, G_t k_t */
    float *k_out;                      /* [D][64]: G_end / G_j k_j */
    float *p, *l;                      /* [64][64]; zeros where nothing is defined */
    float *decay, *ratio;              /* each: exp(g) [64][D]; one decay: exp(g) [64], and G_t / G_j [64][64] */
    float *whole;                      /* [D]: G_end */
    float *v, *x, *u, *seen;           /* [64][Dv] */
    float *some;                       /* [64][D] for the moment */
    float beta[SW_CHUNK], from_start[SW_CHUNK], to_end[SW_CHUNK]; /* the last two where there is one decay: G_t, G_end / G_t */
} sw_chunk;

size_t SW_CPU(chunk_floats)(const sw_keeper *p);
sw_chunk SW_CPU(chunk_in)(const sw_keeper *p, float *space);
/* What belongs to the key: q, k and their products. Places [first, first + n) of the batch. */
void SW_CPU(chunk_keys)(const sw_keeper *p, sw_chunk *c, int64_t first, int64_t n, int64_t head);
/* What belongs to the head, after its key's. */
void SW_CPU(chunk_head)(const sw_keeper *p, sw_chunk *c, int64_t head);
/* x and u from the matrix m [D][Dv] before the chunk. */
void SW_CPU(chunk_solve)(const sw_keeper *p, sw_chunk *c, const float *m);
/* m goes on to the chunk's end. */
void SW_CPU(chunk_advance)(const sw_keeper *p, const sw_chunk *c, float *m);

/* to[c][r] = from[r][c], rows and columns multiples of 16. */
void SW_CPU(transpose)(float *to, int64_t to_row, const float *from, int64_t from_row, int64_t rows, int64_t columns);

/* c [m][n] = a b, and its sum with what is there: see sw_tile_product. */
static inline void sw_product(int64_t m, int64_t n, int64_t k, const float *a, int64_t row, int64_t column, const float *b, int64_t b_row,
                              float *c, int64_t c_row)
{
    sw_tile_product(false, m, n, k, (const sw_word *)(const void *)a, row, column, (const sw_word *)(const void *)b, b_row, c, c_row);
}
static inline void sw_clear(float *to, int64_t n) { memset(to, 0, (size_t)n * sizeof *to); }

/* Where gradients go; each may be NULL. */
typedef struct sw_keeper_grads {
    sw_tensor *q, *k, *v, *g, *beta, *skip;
} sw_keeper_grads;

/* Matrices of one value: heads lie across the lanes (cpu_recurrence_lanes.c). `out` is dout on the way back; d NULL forward. */
bool SW_CPU(fits_lanes)(const sw_keeper *p, const sw_tensor *out, const sw_keeper_grads *d);
int SW_CPU(lanes_fwd)(sw_stream *s, const sw_keeper *p, sw_tensor *out, sw_tensor *state, const sw_tensor *seqs);
int SW_CPU(lanes_bwd)(sw_stream *s, const sw_keeper *p, const sw_keeper_grads *d, const sw_tensor *dout, const sw_tensor *seqs);

#endif
