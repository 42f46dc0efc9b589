/* The matrix that each head keeps, back. A run goes forward once, keeping the matrix before each chunk and the chunk's x;
 * then chunk by chunk back, by the derivatives of what cpu_recurrence.h says. */
#include "cpu_recurrence.h"

/* Gradients of a chunk's parts; rows as there. */
typedef struct back {
    float *dy, *u_across, *m_across;       /* [64][Dv], [Dv][64], [Dv][D] */
    float *du, *less;                      /* [64][Dv]: of u; of x, negative */
    float *dp, *dl;                        /* [64][64] */
    float *dq_in, *dk_in, *dk_out, *dq, *dk; /* [64][D] */
    float *dg;                             /* [64][D], or [64] */
    float *dm;                             /* [D][Dv]: of the matrix after the chunk, then of the one before it */
    float *dwhole, *near, *far;            /* [D]; [64][the larger of D and 64] for the moment, twice */
    float dbeta[SW_CHUNK];
} back;

static size_t back_floats(const sw_keeper *p)
{
    int64_t d = p->deep_padded, w = p->wide_padded;
    return (size_t)(SW_CHUNK * (4 * w + 5 * d + 2 * SW_MAX(d, SW_CHUNK) + 2 * SW_CHUNK + (p->each ? d : 1)) + 2 * d * w + d);
}

static float *take(float **at, int64_t n)
{
    float *p = *at;
    *at += n;
    return p;
}

static back back_in(const sw_keeper *p, float *space)
{
    int64_t d = p->deep_padded, w = p->wide_padded, deep = SW_CHUNK * d, wide = SW_CHUNK * w, square = SW_CHUNK * SW_CHUNK;
    int64_t most = SW_MAX(deep, square);
    return (back){.dy = take(&space, wide), .u_across = take(&space, wide), .m_across = take(&space, d * w), .du = take(&space, wide),
                  .less = take(&space, wide), .dp = take(&space, square), .dl = take(&space, square), .dq_in = take(&space, deep),
                  .dk_in = take(&space, deep), .dk_out = take(&space, deep), .dq = take(&space, deep), .dk = take(&space, deep),
                  .near = take(&space, most), .far = take(&space, most), .dm = take(&space, d * w), .dwhole = take(&space, d),
                  .dg = take(&space, p->each ? deep : SW_CHUNK)};
}

static float dot(const float *a, const float *b, int64_t n)
{
    sw_vec sum = sw_splat(0);
    for (int64_t i = 0; i < n; i += SW_LANES)
        sum += *(const sw_vec *)(const void *)(a + i) * *(const sw_vec *)(const void *)(b + i);
    return sw_lanes_sum(sum);
}

/* ---- what goes through the matrix and through u */

/* du, from outputs and from the matrix after the chunk. */
static void of_u(const sw_keeper *p, const sw_chunk *c, back *b)
{
    int64_t w = p->wide_padded;
    sw_clear(b->du, c->padded * w);
    for (int64_t j = 0; j < c->padded; j += SW_SUB)
        sw_product(SW_SUB, w, c->padded - j, c->p + j * SW_CHUNK + j, 1, SW_CHUNK, b->dy + j * w, w, b->du + j * w, w);
    sw_product(c->padded, w, p->deep_padded, c->k_out, 1, SW_CHUNK, b->dm, w, b->du, w);
}

/* Places of a block, last first: `less` holds what later blocks take from du, becomes minus the gradient of x. */
static void solve_block_back(const sw_chunk *c, back *b, int64_t first, int64_t wide)
{
    for (int64_t t = first + SW_SUB; t-- > first;) {
        for (int64_t j = 0; j < wide; j += SW_LANES) {
            sw_vec du = *(const sw_vec *)(const void *)(b->du + t * wide + j) + *(const sw_vec *)(const void *)(b->less + t * wide + j);
            for (int64_t i = t + 1; i < first + SW_SUB; i++)
                du += c->l[i * SW_CHUNK + t] * *(const sw_vec *)(const void *)(b->less + i * wide + j);
            *(sw_vec *)(void *)(b->du + t * wide + j) = du;
            *(sw_vec *)(void *)(b->less + t * wide + j) = -c->beta[t] * du;
        }
    }
}

static void of_x(const sw_keeper *p, const sw_chunk *c, back *b)
{
    int64_t w = p->wide_padded;
    for (int64_t t = 0; !p->delta && t < c->padded; t++)
        for (int64_t j = 0; j < w; j++)
            b->less[t * w + j] = -c->beta[t] * b->du[t * w + j];
    sw_clear(b->less, p->delta ? c->padded * w : 0);
    for (int64_t t = c->padded - SW_SUB; p->delta && t >= 0; t -= SW_SUB) {
        int64_t later = c->padded - t - SW_SUB;
        if (later)
            sw_product(SW_SUB, w, later, c->l + (t + SW_SUB) * SW_CHUNK + t, 1, SW_CHUNK, b->less + (t + SW_SUB) * w, w, b->less + t * w, w);
        solve_block_back(c, b, t, w);
    }
    for (int64_t t = 0; t < c->n; t++)
        b->dbeta[t] = dot(b->du + t * w, c->x + t * w, w);
}

/* Blocks at and below the diagonal of a u^T, from u across. */
static void lower(const sw_keeper *p, const sw_chunk *c, const back *b, const float *a, float *to)
{
    for (int64_t t = 0; t < c->padded; t += SW_SUB) {
        for (int64_t i = t; i < t + SW_SUB; i++)
            sw_clear(to + i * SW_CHUNK, SW_CHUNK);
        sw_product(SW_SUB, t + SW_SUB, p->wide_padded, a + t * p->wide_padded, p->wide_padded, 1, b->u_across, SW_CHUNK, to + t * SW_CHUNK,
                   SW_CHUNK);
    }
}

/* m: the matrix before the chunk. */
static void through(const sw_keeper *p, const sw_chunk *c, back *b, const float *m)
{
    int64_t d = p->deep_padded, w = p->wide_padded, n = c->padded;
    of_u(p, c, b);
    of_x(p, c, b);
    SW_CPU(transpose)(b->u_across, SW_CHUNK, c->u, w, n, w);
    lower(p, c, b, b->dy, b->dp);
    SW_CPU(transpose)(b->m_across, d, b->dm, w, d, w);
    sw_clear(b->dk_out, n * d);
    sw_product(n, d, w, c->u, w, 1, b->m_across, d, b->dk_out, d);
    SW_CPU(transpose)(b->m_across, d, m, w, d, w);
    sw_clear(b->dq_in, n * d);
    sw_product(n, d, w, b->dy, w, 1, b->m_across, d, b->dq_in, d);
    for (int64_t i = 0; i < d; i++) {
        b->dwhole[i] = c->whole[i] * dot(m + i * w, b->dm + i * w, w);
        for (int64_t j = 0; j < w; j++)
            b->dm[i * w + j] *= c->whole[i];
    }
    sw_product(d, w, n, c->q_in, 1, d, b->dy, w, b->dm, w);
    if (!p->delta)
        return;
    lower(p, c, b, b->less, b->dl);
    sw_clear(b->dk_in, n * d);
    sw_product(n, d, w, b->less, w, 1, b->m_across, d, b->dk_in, d);
    sw_product(d, w, n, c->k_in, 1, d, b->less, w, b->dm, w);
}

/* ---- what goes through the decays: one of them. dp and dl come without them and get them */

/* dg_s = the sum of what decays from before s to s or later: pairs (t, j) with j < s <= t, what came in at t >= s, what
 * goes out from j < s, and what passes through. in, out: the last two of each place. */
static void one_decay_of(const sw_chunk *c, back *b, const float *in, const float *out, float passes)
{
    float pairs[SW_CHUNK] = {0}, came = 0, before[SW_CHUNK], sum = 0;
    for (int64_t t = 0; t < c->padded; t++) {
        before[t] = sum;
        sum += out[t];
    }
    for (int64_t t = c->padded; t-- > 0;) {
        const float *row = b->near + t * SW_CHUNK;
        float crossing = 0;
        for (int64_t j = 0; j < SW_CHUNK; j++)
            pairs[j] += row[j];
        for (int64_t j = 0; j < t; j++)
            crossing += pairs[j];
        came += in[t];
        b->dg[t] = crossing + came + before[t] + passes;
    }
}

static void one_back(const sw_keeper *p, const sw_chunk *c, back *b)
{
    int64_t d = p->deep_padded, n = c->padded;
    float in[SW_CHUNK], out[SW_CHUNK], passes = 0;
    for (int64_t i = 0; i < d; i++)
        passes += b->dwhole[i];
    for (int64_t t = 0; t < n; t++) {
        in[t] = dot(c->q_in + t * d, b->dq_in + t * d, d) + (p->delta ? dot(c->k_in + t * d, b->dk_in + t * d, d) : 0);
        out[t] = c->to_end[t] * dot(c->k + t * d, b->dk_out + t * d, d);
        for (int64_t j = 0; j < SW_CHUNK; j++) {
            int64_t at = t * SW_CHUNK + j;
            b->near[at] = j < t ? c->p[at] * b->dp[at] + (p->delta ? c->l[at] * b->dl[at] : 0) : 0;
            b->dp[at] = j <= t ? b->dp[at] * c->ratio[at] : 0;
            if (p->delta)
                b->dl[at] = j < t ? b->dl[at] * c->ratio[at] : 0;
        }
    }
    one_decay_of(c, b, in, out, passes);
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = 0; i < d; i++) {
            int64_t at = t * d + i;
            b->dq[at] = c->from_start[t] * b->dq_in[at];
            b->dk[at] = c->to_end[t] * b->dk_out[at] + (p->delta ? c->from_start[t] * b->dk_in[at] : 0);
        }
    for (int64_t t = 0; t < n; t += SW_SUB) {
        sw_product(SW_SUB, d, t + SW_SUB, b->dp + t * SW_CHUNK, SW_CHUNK, 1, c->k, d, b->dq + t * d, d);
        sw_product(SW_SUB, d, n - t, b->dp + t * SW_CHUNK + t, 1, SW_CHUNK, c->q + t * d, d, b->dk + t * d, d);
        if (!p->delta)
            continue;
        sw_product(SW_SUB, d, t + SW_SUB, b->dl + t * SW_CHUNK, SW_CHUNK, 1, c->k, d, b->dk + t * d, d);
        sw_product(SW_SUB, d, n - t, b->dl + t * SW_CHUNK + t, 1, SW_CHUNK, c->k + t * d, d, b->dk + t * d, d);
    }
}

/* ---- one of each place of the key */

/* Places of a block times the decays from its start: rows of `to`. */
static void from_block_start(const sw_keeper *p, const sw_chunk *c, const float *x, int64_t first, float *to)
{
    int64_t d = p->deep_padded;
    const float *e = c->decay + first * d;
    for (int64_t i = 0; i < d; i += SW_LANES) {
        sw_vec run = sw_splat(1);
        for (int64_t t = 0; t < SW_SUB; t++) {
            run *= *(const sw_vec *)(const void *)(e + t * d + i);
            *(sw_vec *)(void *)(to + t * d + i) = run * *(const sw_vec *)(const void *)(x + (first + t) * d + i);
        }
    }
}

/* What pairs with keys of earlier blocks give to the place t that reads (dq, and dk for what delta reads): those keys go
 * along in b->near, decayed to where the block begins. */
static void reading_pairs(const sw_keeper *p, const sw_chunk *c, back *b)
{
    int64_t d = p->deep_padded;
    for (int64_t first = 0; first < c->padded; first += SW_SUB) {
        const float *e = c->decay + first * d;
        for (int which = 0; which < 1 + p->delta; which++) {
            float *to = (which ? b->dk : b->dq) + first * d;
            sw_clear(to, SW_SUB * d);
            if (first)
                sw_product(SW_SUB, d, first, (which ? b->dl : b->dp) + first * SW_CHUNK, SW_CHUNK, 1, b->near, d, to, d);
            for (int64_t i = 0; first && i < d; i += SW_LANES) {
                sw_vec run = sw_splat(1);
                for (int64_t t = 0; t < SW_SUB; t++) {
                    run *= *(const sw_vec *)(const void *)(e + t * d + i);
                    *(sw_vec *)(void *)(to + t * d + i) *= run;
                }
            }
        }
        for (int64_t i = 0; i < d; i += SW_LANES) {
            sw_vec run = sw_splat(1);
            for (int64_t t = SW_SUB; t-- > 0; run *= *(const sw_vec *)(const void *)(e + t * d + i))
                *(sw_vec *)(void *)(b->near + (first + t) * d + i) = run * *(const sw_vec *)(const void *)(c->k + (first + t) * d + i);
            for (int64_t j = 0; j < first; j++)
                *(sw_vec *)(void *)(b->near + j * d + i) *= run;
        }
    }
    if (!p->delta)
        sw_clear(b->dk, c->padded * d);
}

/* Pairs within a block, but for a place with itself; b->far gets what keys have of them. */
static void own_pairs(const sw_keeper *p, const sw_chunk *c, back *b, int64_t first)
{
    int64_t d = p->deep_padded, at = first * d;
    for (int64_t i = 0; i < d; i += SW_LANES)
        for (int64_t j = 0; j < SW_SUB; j++) {
            sw_vec *far = (sw_vec *)(void *)(b->far + at + j * d + i), sum = sw_splat(0), run = sw_splat(1);
            sw_vec key = *(const sw_vec *)(const void *)(c->k + at + j * d + i);
            for (int64_t t = j + 1; t < SW_SUB; t++) {
                float dp = b->dp[(first + t) * SW_CHUNK + first + j];
                run *= *(const sw_vec *)(const void *)(c->decay + at + t * d + i);
                sw_vec of = dp * *(const sw_vec *)(const void *)(c->q + at + t * d + i);
                *(sw_vec *)(void *)(b->dq + at + t * d + i) += dp * run * key;
                if (p->delta) {
                    float dl = b->dl[(first + t) * SW_CHUNK + first + j];
                    of += dl * *(const sw_vec *)(const void *)(c->k + at + t * d + i);
                    *(sw_vec *)(void *)(b->dk + at + t * d + i) += dl * run * key;
                }
                sum += run * of;
            }
            *far = run * *far + sum;
        }
}

/* What keys have of pairs with later places, in b->far: it goes from block to block, decaying. */
static void read_pairs(const sw_keeper *p, const sw_chunk *c, back *b)
{
    int64_t d = p->deep_padded;
    sw_clear(b->far, c->padded * d);
    for (int64_t first = c->padded - SW_SUB; first >= 0; first -= SW_SUB) {
        own_pairs(p, c, b, first);
        for (int64_t i = 0; first && i < d; i += SW_LANES) {
            sw_vec run = sw_splat(1);
            for (int64_t t = 0; t < SW_SUB; t++)
                run *= *(const sw_vec *)(const void *)(c->decay + (first + t) * d + i);
            for (int64_t j = 0; j < first; j++)
                *(sw_vec *)(void *)(b->far + j * d + i) *= run;
        }
        for (int which = 0; first && which < 1 + p->delta; which++) {
            from_block_start(p, c, which ? c->k : c->q, first, c->some);
            sw_product(first, d, SW_SUB, (which ? b->dl : b->dp) + first * SW_CHUNK, 1, SW_CHUNK, c->some, d, b->far, d);
        }
    }
}

static void each_back(const sw_keeper *p, const sw_chunk *c, back *b)
{
    int64_t d = p->deep_padded;
    reading_pairs(p, c, b);
    read_pairs(p, c, b);
    for (int64_t i = 0; i < d; i += SW_LANES) {
        sw_vec run = sw_splat(1), later = *(const sw_vec *)(const void *)(b->dwhole + i), before = sw_splat(0);
#define AT(x) (*(sw_vec *)(void *)((x) + t * d + i))
        for (int64_t t = c->padded; t-- > 0; run *= AT(c->decay)) { /* dg: what crosses, what comes in later, what passes */
            AT(b->dk_out) *= run;
            later += AT(c->q) * AT(b->dq) + AT(c->k) * (AT(b->dk) - AT(b->far)) + AT(c->q_in) * AT(b->dq_in);
            if (p->delta)
                later += AT(c->k_in) * AT(b->dk_in);
            AT(b->dg) = later;
        }
        run = sw_splat(1);
        for (int64_t t = 0; t < c->padded; t++) {
            float self = b->dp[t * SW_CHUNK + t];
            run *= AT(c->decay);
            AT(b->dg) += before; /* what goes out from places before it */
            before += AT(c->k) * AT(b->dk_out);
            AT(b->dq) += run * AT(b->dq_in) + self * AT(c->k);
            AT(b->dk) += AT(b->far) + AT(b->dk_out) + self * AT(c->q);
            if (p->delta)
                AT(b->dk) += run * AT(b->dk_in);
        }
#undef AT
    }
}

/* ---- a head */

static void put_gradients(const sw_keeper *p, const sw_keeper_grads *d, const sw_chunk *c, back *b, int64_t head, float *d_skip)
{
    int64_t deep = p->deep_padded, w = p->wide_padded;
    float skip = sw_skip_of(p, head);
    for (int64_t t = 0; t < c->n; t++) {
        int64_t row = c->first + t;
        *d_skip += dot(c->v + t * w, b->dy + t * w, w);
        for (int64_t j = 0; j < w; j++)
            b->less[t * w + j] = skip * b->dy[t * w + j] - b->less[t * w + j];
        sw_put(d->q, row, head, p->deep, b->dq + t * deep);
        sw_put(d->k, row, head, p->deep, b->dk + t * deep);
        sw_put(d->v, row, head, p->wide, b->less + t * w);
        sw_put(d->beta, row, head, 1, b->dbeta + t);
        sw_put(d->g, row, head, p->each ? p->deep : 1, b->dg + (p->each ? t * deep : t));
    }
}

static void load_chunk(const sw_keeper *p, sw_chunk *c, sw_run r, int64_t chunk, int64_t head)
{
    int64_t first = chunk * SW_CHUNK;
    SW_CPU(chunk_keys)(p, c, r.first + first, SW_MIN(SW_CHUNK, r.rows - first), head);
    SW_CPU(chunk_head)(p, c, head);
}

/* kept: the matrix before each chunk and, with delta, its x. */
static float head_back(const sw_keeper *p, const sw_keeper_grads *d, const sw_tensor *dout, sw_run r, int64_t head, float *space)
{
    int64_t w = p->wide_padded, all = p->deep_padded * w, chunks = sw_chunks(r.rows), places = p->delta ? SW_CHUNK * w : 0;
    sw_chunk c = SW_CPU(chunk_in)(p, space);
    back b = back_in(p, space + SW_CPU(chunk_floats)(p));
    float *kept = space + SW_CPU(chunk_floats)(p) + back_floats(p), *xs = kept + chunks * all, d_skip = 0;
    sw_clear(kept, all);
    for (int64_t i = 0; i < chunks; i++) {
        float *m = kept + i * all;
        if (!p->delta && i + 1 == chunks)
            break;
        load_chunk(p, &c, r, i, head);
        if (p->delta)
            c.x = xs + i * places;
        SW_CPU(chunk_solve)(p, &c, m);
        if (i + 1 < chunks) {
            memcpy(m + all, m, (size_t)all * sizeof *m);
            SW_CPU(chunk_advance)(p, &c, m + all);
        }
    }
    sw_clear(b.dm, all);
    for (int64_t i = chunks; i-- > 0;) {
        if (!p->delta || i + 1 < chunks)
            load_chunk(p, &c, r, i, head);
        c.x = p->delta ? xs + i * places : c.v;
        for (int64_t t = 0; t < c.padded; t++)
            for (int64_t j = 0; j < w; j++)
                c.u[t * w + j] = c.beta[t] * c.x[t * w + j];
        sw_clear(b.dy, c.padded * w);
        for (int64_t t = 0; t < c.n; t++)
            sw_fetch(b.dy + t * w, dout, c.first + t, head, p->wide);
        through(p, &c, &b, kept + i * all);
        if (p->each)
            each_back(p, &c, &b);
        else
            one_back(p, &c, &b);
        put_gradients(p, d, &c, &b, head, &d_skip);
    }
    return d_skip;
}

int SW_CPU(recurrence_bwd)(sw_stream *s, sw_tensor *dq, sw_tensor *dk, sw_tensor *dv, sw_tensor *dg, sw_tensor *dbeta, sw_tensor *dskip,
                           const sw_tensor *dout, const sw_tensor *q, const sw_tensor *k, const sw_tensor *v, const sw_tensor *g,
                           const sw_tensor *beta, const sw_tensor *skip, const sw_tensor *seqs, int delta)
{
    sw_keeper p = sw_keeper_of(q, k, v, g, beta, skip, delta);
    sw_keeper_grads d = {dq, dk, dv, dg, dbeta, dskip};
    if (SW_CPU(fits_lanes)(&p, dout, &d))
        return SW_CPU(lanes_bwd)(s, &p, &d, dout, seqs);
    int64_t tasks = seqs->shape[0] * p.heads, kept = p.deep_padded * p.wide_padded + (delta ? SW_CHUNK * p.wide_padded : 0);
    size_t each = ((size_t)(sw_chunks(sw_longest_run(seqs)) * kept) + SW_CPU(chunk_floats)(&p) + back_floats(&p)) * sizeof(float);
    each = (each + 127) & ~(size_t)63;
    char *space = sw_stream_scratch(s, each * (size_t)omp_get_max_threads() + (size_t)tasks * sizeof(float));
    if (!space)
        return -1;
    float *d_skip = (float *)(void *)(space + each * (size_t)omp_get_max_threads());
#pragma omp parallel for schedule(dynamic) if (sw_numel(v) * p.deep >= SW_PARALLEL)
    for (int64_t i = 0; i < tasks; i++) {
        sw_run r = sw_run_of(seqs, i / p.heads);
        d_skip[i] = r.rows ? head_back(&p, &d, dout, r, i % p.heads, (float *)(void *)(space + (size_t)omp_get_thread_num() * each)) : 0;
    }
    for (int64_t i = 0; dskip && i < tasks; i++)
        ((float *)dskip->data)[i % p.heads] += d_skip[i];
    return 0;
}
